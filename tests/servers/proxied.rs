//! A server behind a proxy: trouble for whoever holds a store in it to the contract.

use super::Server;
use super::proxy::Proxy;
use hapax::confirm::conformance::Trouble;
use std::sync::{Mutex, MutexGuard};

pub struct Proxied<S> {
    server: Mutex<S>,
    proxy: Proxy,
    /// What a message has in it to which a reply can be lost.
    written: &'static [u8],
}

impl<S: Server> Proxied<S> {
    pub fn new(server: S) -> Self {
        let proxy = Proxy::to(server.port());
        Self { server: Mutex::new(server), proxy, written: b"" }
    }

    /// Loses no replies but those to messages with these bytes in them.
    pub fn written(self, bytes: &'static [u8]) -> Self {
        Self { written: bytes, ..self }
    }

    /// The proxy's.
    pub fn port(&self) -> u16 {
        self.proxy.port()
    }

    pub fn server(&self) -> MutexGuard<'_, S> {
        self.server.lock().unwrap()
    }
}

impl<S: Server> Trouble for Proxied<S> {
    fn lose_next_reply(&self) -> bool {
        if self.written.is_empty() {
            self.proxy.lose_next_reply();
        } else {
            self.proxy.lose_reply_to(self.written);
        }
        true
    }

    fn cut_off(&self) -> bool {
        self.proxy.cut();
        true
    }

    fn reconnect(&self) {
        self.proxy.mend();
    }

    fn restart(&self) -> bool {
        let mut server = self.server();
        server.kill();
        server.restart();
        true
    }
}
