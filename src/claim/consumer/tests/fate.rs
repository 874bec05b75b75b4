//! Where a process comes to its end.

use crate::confirm::StoreError;
use crate::confirm::claims::{
    Answer, AsyncClaimStore, ClaimRequest, ClaimStore, MemoryClaims, SettleRequest, Settled,
    Settlement, Status,
};
use parking_lot::Mutex;
use std::future::pending;
use std::sync::Arc;

/// The steps of a message, before and after which a process may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    BeforeClaim,
    AfterClaim,
    MidWork,
    AfterWork,
    BeforeOutcome,
    AfterOutcome,
    BeforeAck,
    AfterAck,
}

impl Step {
    pub(super) const ALL: [Self; 8] = [
        Self::BeforeClaim,
        Self::AfterClaim,
        Self::MidWork,
        Self::AfterWork,
        Self::BeforeOutcome,
        Self::AfterOutcome,
        Self::BeforeAck,
        Self::AfterAck,
    ];
}

/// How it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Without a word, as if the machine had lost its power.
    Killed,
    /// Its future is dropped where it waits.
    Dropped,
    /// By a panic.
    Panicked,
}

/// Ends the process at one step, once.
#[derive(Clone, Debug, Default)]
pub(super) struct Fate(Arc<Mutex<Option<(Step, End)>>>);

impl Fate {
    pub(super) fn new(step: Step, end: End) -> Self {
        Self(Arc::new(Mutex::new(Some((step, end)))))
    }

    /// True iff the process has come to that step.
    pub(super) fn is_met(&self) -> bool {
        self.0.lock().is_none()
    }

    /// Goes on unless this is the step; stops there until it is forgotten or dropped, or
    /// panics.
    pub(super) async fn at(&self, step: Step) {
        match self.take(step) {
            None => {}
            Some(End::Panicked) => panic!("{step:?}"),
            Some(End::Killed | End::Dropped) => pending().await,
        }
    }

    fn take(&self, step: Step) -> Option<End> {
        self.0.lock().take_if(|(fatal, _)| *fatal == step).map(|(_, end)| end)
    }
}

/// Claims that a process ends before or after making.
pub(super) struct Mortal {
    pub(super) store: Arc<MemoryClaims>,
    pub(super) fate: Fate,
}

impl AsyncClaimStore for Mortal {
    async fn claim(&self, id: &[u8], request: &ClaimRequest) -> Result<Answer, StoreError> {
        self.fate.at(Step::BeforeClaim).await;
        let answer = self.store.claim(id, request);
        self.fate.at(Step::AfterClaim).await;
        answer
    }

    async fn settle(&self, id: &[u8], request: &SettleRequest<'_>) -> Result<Settled, StoreError> {
        let Settlement::Complete(_) = request.settlement else {
            return self.store.settle(id, request);
        };
        self.fate.at(Step::BeforeOutcome).await;
        let settled = self.store.settle(id, request);
        self.fate.at(Step::AfterOutcome).await;
        settled
    }

    async fn look(&self, id: &[u8]) -> Result<Option<Status>, StoreError> {
        self.store.look(id)
    }
}
