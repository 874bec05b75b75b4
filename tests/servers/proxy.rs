//! Stands between a client and a server, to lose a reply, cut connections or hold
//! up what is sent.

use super::wait_until;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

/// What all connections share.
struct Shared {
    target: u16,
    loses_reply: AtomicBool,
    /// To what the reply is to be lost.
    doomed: Mutex<Option<Vec<u8>>>,
    is_cut: AtomicBool,
    is_closed: AtomicBool,
    wires: Mutex<Vec<Wire>>,
}

/// One connection.
struct Wire {
    ends: [TcpStream; 2],
    is_held: Arc<AtomicBool>,
}

impl Proxy {
    /// To a server on this machine.
    pub fn to(target: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            target,
            loses_reply: AtomicBool::new(false),
            doomed: Mutex::default(),
            is_cut: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
            wires: Mutex::default(),
        });
        let proxy = Self { port, shared: Arc::clone(&shared) };
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if shared.is_closed.load(Ordering::SeqCst) {
                    return;
                }
                shared.connect(client);
            }
        });
        proxy
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Lets the server's next reply on any connection vanish, and the connection
    /// with it.
    pub fn lose_next_reply(&self) {
        self.shared.loses_reply.store(true, Ordering::SeqCst);
    }

    /// Lets the server's reply to the next message with these bytes in it vanish, and the
    /// connection with it.
    pub fn lose_reply_to(&self, bytes: &[u8]) {
        *self.shared.doomed.lock().unwrap() = Some(bytes.to_owned());
    }

    /// Ends all connections, and each new one at once.
    pub fn cut(&self) {
        self.shared.is_cut.store(true, Ordering::SeqCst);
        self.shared.hang_up();
    }

    /// Lets connections through again.
    pub fn mend(&self) {
        self.shared.is_cut.store(false, Ordering::SeqCst);
    }

    /// Holds up what is sent to the server over the connections that there are,
    /// even when the client has hung up; new ones are not held.
    pub fn hold(&self) {
        self.shared.set_held(true);
    }

    /// Lets go what was held.
    pub fn release(&self) {
        self.shared.set_held(false);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.is_closed.store(true, Ordering::SeqCst);
        self.shared.hang_up();
        // Wakes the thread that waits for clients.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl Shared {
    fn connect(self: &Arc<Self>, client: TcpStream) {
        if self.is_cut.load(Ordering::SeqCst) {
            return;
        }
        let Ok(server) = TcpStream::connect(("127.0.0.1", self.target)) else { return };
        let again = |end: &TcpStream| end.try_clone().unwrap();
        let is_held = Arc::new(AtomicBool::new(false));
        let wire = Wire { ends: [again(&client), again(&server)], is_held: Arc::clone(&is_held) };
        self.wires.lock().unwrap().push(wire);
        let (from_client, to_server) = (again(&client), again(&server));
        let is_doomed = Arc::new(AtomicBool::new(false));
        let (shared, dooms) = (Arc::clone(self), Arc::clone(&is_doomed));
        thread::spawn(move || {
            carry(from_client, to_server, |bytes| {
                wait_until("the proxy releases", || !is_held.load(Ordering::SeqCst));
                dooms.fetch_or(shared.dooms(bytes), Ordering::SeqCst);
                true
            });
        });
        let shared = Arc::clone(self);
        thread::spawn(move || {
            carry(server, client, |_| {
                let is_lost = is_doomed.load(Ordering::SeqCst);
                !is_lost && !shared.loses_reply.swap(false, Ordering::SeqCst)
            });
        });
    }

    /// True iff the reply to these bytes is to be lost.
    fn dooms(&self, bytes: &[u8]) -> bool {
        let found = |doomed: &mut Vec<u8>| bytes.windows(doomed.len()).any(|part| part == doomed);
        self.doomed.lock().unwrap().take_if(found).is_some()
    }

    fn set_held(&self, is_held: bool) {
        for wire in self.wires.lock().unwrap().iter() {
            wire.is_held.store(is_held, Ordering::SeqCst);
        }
    }

    fn hang_up(&self) {
        self.set_held(false);
        for end in self.wires.lock().unwrap().drain(..).flat_map(|wire| wire.ends) {
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}

/// Carries bytes one way until either end hangs up, or they are not `let_through`.
fn carry(mut from: TcpStream, mut to: TcpStream, let_through: impl Fn(&[u8]) -> bool) {
    let mut bytes = vec![0; 1 << 16];
    while let Ok(length @ 1..) = from.read(&mut bytes) {
        if !let_through(&bytes[..length]) || to.write_all(&bytes[..length]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
