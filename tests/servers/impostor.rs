//! Something that is no server of the kind that is expected.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

/// The port of a server that sends `reply` to whatever it is sent.
pub fn impostor(reply: &'static [u8]) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            let mut bytes = [0; 4_096];
            while let Ok(1..) = client.read(&mut bytes) {
                if client.write_all(reply).is_err() {
                    break;
                }
            }
        }
    });
    port
}
