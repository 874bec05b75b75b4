//! Stands between a client and a server, to lose a reply or cut the connection.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

pub struct Proxy {
    port: u16,
    wires: Arc<Wires>,
}

/// What all connections share.
struct Wires {
    target: u16,
    loses_reply: AtomicBool,
    is_cut: AtomicBool,
    is_closed: AtomicBool,
    /// Both ends of every connection.
    ends: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    /// To a server on this machine.
    pub fn to(target: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let wires = Arc::new(Wires {
            target,
            loses_reply: AtomicBool::new(false),
            is_cut: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
            ends: Mutex::default(),
        });
        let shared = Arc::clone(&wires);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if shared.is_closed.load(Ordering::SeqCst) {
                    return;
                }
                shared.connect(client);
            }
        });
        Self { port, wires }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Lets the server's next reply on any connection vanish, and the connection
    /// with it.
    pub fn lose_next_reply(&self) {
        self.wires.loses_reply.store(true, Ordering::SeqCst);
    }

    /// Ends all connections, and each new one at once.
    pub fn cut(&self) {
        self.wires.is_cut.store(true, Ordering::SeqCst);
        self.wires.hang_up();
    }

    /// Lets connections through again.
    pub fn mend(&self) {
        self.wires.is_cut.store(false, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.wires.is_closed.store(true, Ordering::SeqCst);
        self.wires.hang_up();
        // Wakes the thread that waits for clients.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl Wires {
    fn connect(self: &Arc<Self>, client: TcpStream) {
        if self.is_cut.load(Ordering::SeqCst) {
            return;
        }
        let Ok(server) = TcpStream::connect(("127.0.0.1", self.target)) else { return };
        let again = |end: &TcpStream| end.try_clone().unwrap();
        self.ends.lock().unwrap().extend([again(&client), again(&server)]);
        let (from_client, to_client) = (again(&client), client);
        let (from_server, to_server) = (again(&server), server);
        let wires = Arc::clone(self);
        thread::spawn(move || wires.carry(from_client, to_server, false));
        let wires = Arc::clone(self);
        thread::spawn(move || wires.carry(from_server, to_client, true));
    }

    /// Carries bytes one way until either end hangs up.
    fn carry(&self, mut from: TcpStream, mut to: TcpStream, are_replies: bool) {
        let mut bytes = vec![0; 1 << 16];
        while let Ok(length @ 1..) = from.read(&mut bytes) {
            let is_lost = are_replies && self.loses_reply.swap(false, Ordering::SeqCst);
            if is_lost || to.write_all(&bytes[..length]).is_err() {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }

    fn hang_up(&self) {
        for end in self.ends.lock().unwrap().drain(..) {
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}
