//! Lets the plain threads of a conformance suite ask an asynchronous store.

use hapax::confirm::conformance::BlockOn;
use std::future::Future;
use tokio::runtime::{Handle, Runtime};

pub struct OnTokio(Handle);

impl OnTokio {
    pub fn of(runtime: &Runtime) -> Self {
        Self(runtime.handle().clone())
    }
}

impl BlockOn for OnTokio {
    fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.0.block_on(future)
    }
}
