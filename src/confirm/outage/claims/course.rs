//! How a call takes its course: whom it asks, in which order, and what it makes
//! of the answers.

use super::super::call::caught;
use super::super::failure::{both_failed, fallback_failed, is_lost, is_outage};
use super::super::switch::Asking;
use super::books::{Books, Telling, Turn};
use super::journal::{Debt, Grantor, Holder};
use crate::confirm::claims::{
    Answer, AsyncClaimStore, ClaimRequest, ClaimStore, MemoryClaims, SettleRequest, Settled,
    Settlement, Status, Terms,
};
use crate::confirm::{StoreError, StoreErrorKind};
use std::future::Future;

/// Of so many keys does a claim tell the primary, if it is owed them: two, so that what is
/// owed gets less however many claims come.
const SHARE: usize = 2;

/// Of so many does a sweep.
const SWEEP: usize = 64;

/// For each, so many notes are looked at for claims of which nobody was heard again.
const LOOKS: usize = 8;

/// Who stands in for the primary.
pub(super) enum StandIn<'a, B> {
    Memory(&'a MemoryClaims),
    Other(B),
}

/// One call: the primary, who stands in for it, and the books.
pub(super) struct Course<'a, A, B> {
    pub(super) primary: A,
    pub(super) stand_in: Option<StandIn<'a, B>>,
    pub(super) books: &'a Books,
}

impl<A: AsyncClaimStore, B: AsyncClaimStore> Course<'_, A, B> {
    pub(super) async fn claim(
        &self,
        id: &[u8],
        request: &ClaimRequest,
    ) -> Result<Answer, StoreError> {
        self.tell(SHARE).await?;
        if let Some(stand_in) = self.stand_in_for(id) {
            let turn = self.books.start_claim(id, request.terms)?;
            return self.claim_of(stand_in, turn, id, request).await.map_err(fallback_failed);
        }
        match (self.claim_of_primary(id, request).await, &self.stand_in) {
            (Err(error), Some(stand_in)) if is_outage(&error) => {
                // Better no answer than one that the primary would never hear of.
                let turn = self.books.start_claim(id, request.terms);
                let turn = turn.map_err(|full| full.with_parts(error.may_have_recorded()))?;
                let answer = self.claim_of(stand_in, turn, id, request).await;
                answer.map_err(|other| both_failed(other, error))
            }
            (answer, _) => answer,
        }
    }

    /// Whoever answers for a noted key.
    fn stand_in_for(&self, id: &[u8]) -> Option<&StandIn<'_, B>> {
        self.stand_in.as_ref().filter(|_| self.books.is_noted(id))
    }

    /// Asks the primary; once more if its reply was lost, and somebody stands in.
    async fn claim_of_primary(
        &self,
        id: &[u8],
        request: &ClaimRequest,
    ) -> Result<Answer, StoreError> {
        let call = async || self.primary.claim(id, request).await;
        let first = self.ask(self.books.switch.ask()?, call()).await;
        match &first {
            Err(error) if is_lost(error) && self.stand_in.is_some() => {
                let Some(asking) = self.books.switch.ask_if_closed() else { return first };
                match self.ask(asking, call()).await {
                    Err(again) if is_outage(&again) => first,
                    second => second.map_err(|error| error.with_parts(true)),
                }
            }
            _ => first,
        }
    }

    /// Asks the stand-in for a key that has been noted; what it grants is unconfirmed.
    async fn claim_of(
        &self,
        stand_in: &StandIn<'_, B>,
        turn: Turn<'_>,
        id: &[u8],
        request: &ClaimRequest,
    ) -> Result<Answer, StoreError> {
        let answer = caught(async { stand_in.claim(id, request).await }).await;
        let answer = match answer {
            Ok(Answer::Granted(grant) | Answer::Unconfirmed(grant)) => {
                turn.granted(request, &grant);
                Answer::Unconfirmed(grant)
            }
            Ok(answer) => {
                turn.unchanged();
                answer
            }
            Err(error) => {
                if !error.may_have_recorded() {
                    turn.unchanged();
                }
                self.books.fallback_failed();
                return Err(error);
            }
        };
        let is_grant = matches!(answer, Answer::Unconfirmed(_));
        self.books.answered_instead(matches!(stand_in, StandIn::Other(_)), is_grant);
        Ok(answer)
    }

    pub(super) async fn settle(
        &self,
        id: &[u8],
        request: &SettleRequest<'_>,
    ) -> Result<Settled, StoreError> {
        if matches!(request.settlement, Settlement::Clear) {
            return self.clear(id, request).await;
        }
        match (self.books.grantor(id, request.token), &self.stand_in) {
            (Grantor::StandIn, Some(stand_in)) => self.settle_in(stand_in, id, request).await,
            (Grantor::Former, _) => Ok(Settled::Stale),
            _ => self.settle_in_primary(id, request).await,
        }
    }

    async fn settle_in_primary(
        &self,
        id: &[u8],
        request: &SettleRequest<'_>,
    ) -> Result<Settled, StoreError> {
        let call = async { self.primary.settle(id, request).await };
        self.ask(self.books.switch.ask()?, call).await
    }

    /// Settles a lease that the stand-in granted.
    async fn settle_in(
        &self,
        stand_in: &StandIn<'_, B>,
        id: &[u8],
        request: &SettleRequest<'_>,
    ) -> Result<Settled, StoreError> {
        let turn = self.books.start_settlement(id, request.token);
        let settled = caught(async { stand_in.settle(id, request).await }).await;
        match &settled {
            Ok(Settled::Done) if matches!(request.settlement, Settlement::Extend) => {
                turn.extended(request.token, request.terms);
            }
            Ok(Settled::Done) => {}
            Ok(Settled::Stale) => turn.lost(request.token),
            Err(error) => {
                self.books.fallback_failed();
                if !error.may_have_recorded() {
                    turn.unchanged();
                }
            }
        }
        settled
    }

    /// Frees a key everywhere: the stand-in keeps what it learned in earlier outages.
    async fn clear(&self, id: &[u8], request: &SettleRequest<'_>) -> Result<Settled, StoreError> {
        let Some(stand_in) = &self.stand_in else {
            return self.settle_in_primary(id, request).await;
        };
        let (_turn, stamp) = self.books.start_clearing(id)?;
        caught(async { stand_in.settle(id, request).await }).await?;
        let settled = self.settle_in_primary(id, request).await?;
        if let Some(stamp) = stamp {
            self.books.cleared(id, stamp);
        }
        Ok(settled)
    }

    pub(super) async fn look(&self, id: &[u8]) -> Result<Option<Status>, StoreError> {
        match self.stand_in_for(id) {
            Some(stand_in) => caught(async { stand_in.look(id).await }).await,
            None => self.look_in_primary(id).await,
        }
    }

    async fn look_in_primary(&self, id: &[u8]) -> Result<Option<Status>, StoreError> {
        let call = async { self.primary.look(id).await };
        self.ask(self.books.switch.ask()?, call).await
    }

    pub(super) async fn sweep(&self) -> Result<bool, StoreError> {
        let told = self.tell(SWEEP).await?;
        let mut has_more = told > 0 && self.books.owes();
        if let Some(stand_in) = &self.stand_in {
            has_more |= caught(async { stand_in.sweep().await }).await?;
        }
        if let Some(asking) = self.books.switch.ask_if_closed() {
            has_more |= self.ask(asking, async { self.primary.sweep().await }).await?;
        }
        Ok(has_more)
    }

    /// Tells the primary what came of keys that the stand-in let through, of `most` of them;
    /// how many are the primary's again.
    ///
    /// A primary or a stand-in that cannot answer is no error here: the call goes on without
    /// it.
    async fn tell(&self, most: usize) -> Result<usize, StoreError> {
        self.books.age(LOOKS * most);
        let mut told = 0;
        for _ in 0..most {
            let Some(stand_in) = &self.stand_in else { break };
            let Some(telling) = self.books.start_telling() else { break };
            match self.tell_one(stand_in, telling).await {
                Ok(is_told) => told += usize::from(is_told),
                Err(error) if is_outage(&error) => break,
                Err(error) if error.kind() == StoreErrorKind::Refused => {}
                Err(error) => return Err(error),
            }
        }
        Ok(told)
    }

    /// What came of a key the stand-in knows, and what of that the primary must.
    async fn tell_one(
        &self,
        stand_in: &StandIn<'_, B>,
        telling: Telling<'_>,
    ) -> Result<bool, StoreError> {
        let id = &*telling.debt.id.clone();
        // No probe for nothing: whoever is left alone is not told.
        let asking = self.books.switch.ask()?;
        let status = caught(async { stand_in.look(id).await }).await;
        let status = status.inspect_err(|_| self.books.fallback_failed())?;
        match (status, telling.debt.holder) {
            (Some(Status::InFlight { remaining, .. }), _) => {
                telling.goes_on(remaining);
                Ok(false)
            }
            (Some(Status::Finished(outcome)), Some(holder)) if holder.is_settled => {
                let adopt = Settlement::Adopt(&holder.digest, &outcome);
                self.tell_settlement(asking, telling, holder, adopt).await
            }
            (None, Some(holder)) => {
                self.tell_settlement(asking, telling, holder, Settlement::Release).await
            }
            // What others finished, others tell.
            (Some(Status::Finished(_)) | None, _) => {
                telling.paid(false, false);
                Ok(true)
            }
        }
    }

    async fn tell_settlement(
        &self,
        asking: Asking<'_>,
        telling: Telling<'_>,
        holder: Holder,
        settlement: Settlement<'_>,
    ) -> Result<bool, StoreError> {
        let id = &*telling.debt.id.clone();
        let Holder { token, terms, .. } = holder;
        let request = SettleRequest { token, settlement, terms };
        let settled = self.ask(asking, async { self.primary.settle(id, &request).await }).await;
        let is_stale = match settled {
            Ok(settled) => settled == Settled::Stale,
            Err(error) if error.kind() == StoreErrorKind::Refused => {
                telling.refused();
                return Err(error);
            }
            Err(error) => return Err(error),
        };
        let is_twice = is_stale && matches!(settlement, Settlement::Adopt(..));
        // Whoever is at it there may never be heard of again: then this must be told.
        if is_twice
            && let Some(Status::InFlight { remaining, .. }) = self.look_in_primary(id).await?
        {
            telling.met_another(remaining);
            return Ok(false);
        }
        if matches!(settlement, Settlement::Release) {
            self.release_former(&telling.debt, terms).await?;
        }
        telling.paid(true, is_twice);
        Ok(true)
    }

    /// Frees a key of those whom another took over from: a claim of theirs whose reply was
    /// lost may be in the primary, which would let them complete late.
    async fn release_former(&self, debt: &Debt, terms: Terms) -> Result<(), StoreError> {
        for token in debt.former.iter().copied() {
            let request = SettleRequest { token, settlement: Settlement::Release, terms };
            let call = async { self.primary.settle(&debt.id, &request).await };
            self.ask(self.books.switch.ask()?, call).await?;
        }
        Ok(())
    }

    /// Makes a call of the primary, and reports what came of it.
    async fn ask<T>(
        &self,
        asking: Asking<'_>,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let result = caught(call).await;
        asking.report(&result, self.stand_in.is_some());
        result
    }
}

impl<B: AsyncClaimStore> StandIn<'_, B> {
    async fn claim(&self, id: &[u8], request: &ClaimRequest) -> Result<Answer, StoreError> {
        match self {
            Self::Memory(memory) => memory.claim(id, request),
            Self::Other(other) => other.claim(id, request).await,
        }
    }

    async fn settle(&self, id: &[u8], request: &SettleRequest<'_>) -> Result<Settled, StoreError> {
        match self {
            Self::Memory(memory) => memory.settle(id, request),
            Self::Other(other) => other.settle(id, request).await,
        }
    }

    async fn look(&self, id: &[u8]) -> Result<Option<Status>, StoreError> {
        match self {
            Self::Memory(memory) => memory.look(id),
            Self::Other(other) => other.look(id).await,
        }
    }

    async fn sweep(&self) -> Result<bool, StoreError> {
        match self {
            Self::Memory(memory) => memory.sweep(),
            Self::Other(other) => other.sweep().await,
        }
    }
}
