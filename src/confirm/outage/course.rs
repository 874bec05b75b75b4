//! How a call takes its course: whom it asks, in which order, and what it makes
//! of the answers.

use super::books::{Books, Doubt};
use super::call::{ask, caught, write};
use super::failure::{both_failed, fallback_failed, is_lost, is_outage};
use super::journal::{Batch, sightings as owed_sightings};
use super::policy::sealed::Plan;
use super::switch::Asking;
use crate::confirm::{
    Answer, AsyncConfirmer, Bucket, Confirmer, Inline, MemoryConfirmer, OwnedStore, Record, Rule,
    Sighting, StoreError, StoreErrorKind,
};
use std::iter;

/// Answers, and who gave them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Confirmed {
    /// One for each sighting, in order.
    pub(crate) answers: Vec<Answer>,
    /// Who vouches for them, ...
    pub(crate) by: AnsweredBy,
    /// ... but for those for which the primary does all the same: true for each of
    /// them, and empty if there are none.
    pub(crate) by_primary: Vec<bool>,
}

impl Confirmed {
    /// Answers for which one vouches.
    pub(crate) const fn by(by: AnsweredBy, answers: Vec<Answer>) -> Self {
        Self { answers, by, by_primary: Vec::new() }
    }

    /// Each answer, and who vouches for it.
    pub(crate) fn into_each(self) -> Vec<(Answer, AnsweredBy)> {
        let by_primary = self.by_primary.into_iter().chain(iter::repeat(false));
        let by = |is_primary| if is_primary { AnsweredBy::Primary } else { self.by };
        self.answers.into_iter().zip(by_primary.map(by)).collect()
    }
}

/// Who vouches for answers. `Seen` is certain in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AnsweredBy {
    /// The primary.
    Primary,
    /// The fallback alone: what it calls new, the primary may have known.
    Fallback,
    /// Nobody: they are new as far as these sightings themselves tell.
    Nobody,
}

/// Calls of a guarded confirmer: the primary, what to do without it, and the guard's
/// books. Dropping a future is like losing its reply.
pub(crate) struct Course<'books, A, B> {
    pub(super) primary: A,
    pub(super) plan: Plan<B>,
    pub(super) books: &'books Books,
}

impl<A: AsyncConfirmer, B: AsyncConfirmer> Course<'_, A, B> {
    /// Answers sightings, as [`AsyncConfirmer::confirm`] does, or as the policy says.
    ///
    /// # Errors
    ///
    /// Nobody has an answer. What may have been recorded is not held against the
    /// keys' next sightings, if they are [recalled](super::Guard::recall).
    pub(crate) async fn confirm(
        &self,
        sightings: &[Sighting<'_>],
        rule: Rule,
    ) -> Result<Confirmed, StoreError> {
        self.confirm_in_doubt(sightings, sightings, rule).await
    }

    /// Answers sightings, of which those `in_doubt` are remembered if nobody has an
    /// answer and they may have been recorded.
    async fn confirm_in_doubt(
        &self,
        sightings: &[Sighting<'_>],
        in_doubt: &[Sighting<'_>],
        rule: Rule,
    ) -> Result<Confirmed, StoreError> {
        let mut doubt = Doubt::new(self.books, in_doubt);
        let result = self.answer(sightings, rule, &mut doubt).await;
        match result {
            Ok(confirmed) => {
                doubt.resolved();
                Ok(confirmed)
            }
            // It may be another store's, or of another attempt, than what was recorded.
            Err(error) => Err(error.with_parts(doubt.may_have_recorded())),
        }
    }

    /// Records sightings whose verdicts are certain in the store that is `owned`, the
    /// primary's own, or as the policy says. That store blocks meanwhile. `new` are
    /// those of keys that are surely new; the others, duplicates, move their keys up.
    ///
    /// # Errors
    ///
    /// As [`confirm`](Self::confirm) for those that are new. The others' keys stay
    /// duplicates.
    pub(crate) async fn record(
        &self,
        owned: &dyn OwnedStore,
        sightings: &[Sighting<'_>],
        new: &[Sighting<'_>],
        rule: Rule,
    ) -> Result<Confirmed, StoreError> {
        let (primary, plan) = (Inline(Recording(owned)), self.plan.as_ref());
        let course = Course { primary, plan, books: self.books };
        course.confirm_in_doubt(sightings, new, rule).await
    }

    /// Writes sightings that have their answers to `store`, the primary's own,
    /// whatever the policy: they can wait for it. It blocks meanwhile. Those of keys for
    /// which it is owed something come after that.
    ///
    /// # Errors
    ///
    /// Each may or may not have been written: write them all again.
    pub(crate) fn write(
        &self,
        store: &dyn OwnedStore,
        sightings: &[Sighting<'_>],
    ) -> Result<(), StoreError> {
        let owed = self.books.owed(sightings.iter().map(|sighting| sighting.key));
        let (now, later) = (parted(sightings, &owed, false), parted(sightings, &owed, true));
        if !now.is_empty() {
            let asking = self.books.switch.ask()?;
            let result = write(store, &now);
            self.report(asking, &result);
            result?;
        }
        self.books.owe_records(&later)
    }

    /// What the primary holds for keys, whatever the policy.
    ///
    /// # Errors
    ///
    /// The primary's.
    pub(crate) async fn look(&self, keys: &[&[u8]]) -> Result<Vec<Option<Record>>, StoreError> {
        caught(async { self.primary.look(keys).await }).await
    }

    async fn answer(
        &self,
        sightings: &[Sighting<'_>],
        rule: Rule,
        doubt: &mut Doubt<'_>,
    ) -> Result<Confirmed, StoreError> {
        self.write_back(rule).await?;
        let owed = self.books.owed(sightings.iter().map(|sighting| sighting.key));
        match self.books.switch.ask() {
            Err(error) => self.without_primary(sightings, rule, doubt, error).await,
            Ok(asking) if owed.contains(&true) => {
                self.with_both(asking, sightings, &owed, rule, doubt).await
            }
            Ok(asking) => match self.ask_primary(asking, sightings, rule, doubt).await {
                Err(error) if is_outage(&error) => {
                    self.without_primary(sightings, rule, doubt, error).await
                }
                answers => Ok(Confirmed::by(AnsweredBy::Primary, answers?)),
            },
        }
    }

    /// Asks the primary, and once more if its reply was lost.
    async fn ask_primary(
        &self,
        asking: Asking<'_>,
        sightings: &[Sighting<'_>],
        rule: Rule,
        doubt: &mut Doubt<'_>,
    ) -> Result<Vec<Answer>, StoreError> {
        let first = self.ask_once(asking, sightings, rule, doubt).await;
        let Err(error) = first else { return first };
        if !is_lost(&error) {
            return Err(error);
        }
        let Some(asking) = self.books.switch.ask_if_closed() else { return Err(error) };
        match self.ask_once(asking, sightings, rule, doubt).await {
            Err(again) if is_outage(&again) => Err(error),
            second => second,
        }
    }

    async fn ask_once(
        &self,
        asking: Asking<'_>,
        sightings: &[Sighting<'_>],
        rule: Rule,
        doubt: &mut Doubt<'_>,
    ) -> Result<Vec<Answer>, StoreError> {
        let before = doubt.begin();
        let result = ask(&self.primary, sightings, rule).await;
        recorded_nothing(&result, before, doubt);
        self.report(asking, &result);
        result
    }

    /// What there is to know without the primary: what the fallback says, or
    /// nothing but the sightings themselves.
    async fn ask_instead(
        &self,
        sightings: &[Sighting<'_>],
        rule: Rule,
        doubt: &mut Doubt<'_>,
    ) -> Result<Vec<Answer>, StoreError> {
        let Plan::Ask(fallback) = &self.plan else {
            return MemoryConfirmer::new().confirm(sightings, rule);
        };
        let before = doubt.begin();
        let result = ask(fallback, sightings, rule).await;
        recorded_nothing(&result, before, doubt);
        if result.is_err() {
            self.books.fallback_failed();
        }
        result
    }

    async fn without_primary(
        &self,
        sightings: &[Sighting<'_>],
        rule: Rule,
        doubt: &mut Doubt<'_>,
        error: StoreError,
    ) -> Result<Confirmed, StoreError> {
        if matches!(self.plan, Plan::Reject) {
            return Err(error);
        }
        // Better no answer than one that the primary would never hear of.
        if matches!(self.plan, Plan::Ask(_)) {
            self.books.check_room(sightings)?;
        }
        let answers = self
            .ask_instead(sightings, rule, doubt)
            .await
            .map_err(|fallback| both_failed(fallback, error))?;
        self.take_note(sightings, &answers, rule)?;
        Ok(Confirmed::by(self.by_other(), answers))
    }

    /// The primary is back, and has yet to be told of some of these keys: those
    /// are answered for as before, the others are its own again.
    async fn with_both(
        &self,
        asking: Asking<'_>,
        sightings: &[Sighting<'_>],
        owed: &[bool],
        rule: Rule,
        doubt: &mut Doubt<'_>,
    ) -> Result<Confirmed, StoreError> {
        let (told, untold) = (parted(sightings, owed, false), parted(sightings, owed, true));
        let told = match self.ask_about(asking, &told, rule, doubt).await {
            Err(error) if is_outage(&error) => {
                return self.without_primary(sightings, rule, doubt, error).await;
            }
            answers => answers?,
        };
        let answers = self.ask_instead(&untold, rule, doubt).await.map_err(fallback_failed)?;
        self.take_note(&untold, &answers, rule)?;
        let (mut told, mut untold) = (told.into_iter(), answers.into_iter());
        let next = |is_owed: &bool| if *is_owed { untold.next() } else { told.next() };
        let answers = owed.iter().filter_map(next).collect();
        let by_primary = owed.iter().map(|is_owed| !is_owed).collect();
        Ok(Confirmed { answers, by: self.by_other(), by_primary })
    }

    /// Asks the primary, unless there is nothing to ask.
    async fn ask_about(
        &self,
        asking: Asking<'_>,
        sightings: &[Sighting<'_>],
        rule: Rule,
        doubt: &mut Doubt<'_>,
    ) -> Result<Vec<Answer>, StoreError> {
        if sightings.is_empty() {
            return Ok(Vec::new());
        }
        self.ask_primary(asking, sightings, rule, doubt).await
    }

    fn take_note(
        &self,
        sightings: &[Sighting<'_>],
        answers: &[Answer],
        rule: Rule,
    ) -> Result<(), StoreError> {
        match self.plan {
            Plan::Ask(_) => self.books.answered_by_fallback(sightings, answers, rule),
            Plan::Reject | Plan::Admit => {
                self.books.admitted(answers);
                Ok(())
            }
        }
    }

    const fn by_other(&self) -> AnsweredBy {
        match self.plan {
            Plan::Ask(_) => AnsweredBy::Fallback,
            Plan::Reject | Plan::Admit => AnsweredBy::Nobody,
        }
    }

    /// Tells the primary a batch of what it is owed, if it can be asked and
    /// nobody else does so. Says whether it did: it is worth calling again then.
    ///
    /// A primary that still cannot answer is no error here: the call goes on
    /// without it.
    ///
    /// # Errors
    ///
    /// The primary's, if it is fenced off.
    pub(crate) async fn write_back(&self, rule: Rule) -> Result<bool, StoreError> {
        let Some((_writing, asking, batch)) = self.books.start_writing() else {
            return Ok(false);
        };
        let error = match &batch {
            Batch::Forget(entries) => {
                let keys: Vec<_> = batch.keys().collect();
                let result = caught(async { self.primary.forget(&keys).await }).await;
                self.report(asking, &result);
                result.map(|()| self.books.forgotten(entries)).err()
            }
            Batch::Record(entries) => {
                let result = ask(&self.primary, &owed_sightings(entries), rule).await;
                self.report(asking, &result);
                result.map(|answers| self.books.recorded(entries, &answers)).err()
            }
        };
        match error {
            None => Ok(true),
            Some(error) if is_outage(&error) => Ok(false),
            Some(error) if error.kind() == StoreErrorKind::Refused => {
                self.books.refused(&batch);
                Ok(true)
            }
            Some(error) => Err(error),
        }
    }

    /// The fallback forgets at once, and so does the primary if it can;
    /// otherwise it is owed, under a policy that answers without it.
    ///
    /// # Errors
    ///
    /// Each key may or may not have been forgotten: forget them again.
    pub(crate) async fn forget(&self, keys: &[&[u8]]) -> Result<(), StoreError> {
        if let Plan::Ask(fallback) = &self.plan {
            caught(async { fallback.forget(keys).await }).await?;
        }
        let owed = self.books.owed(keys.iter().copied());
        let (later, now): (Vec<_>, Vec<_>) =
            keys.iter().copied().zip(owed).partition(|(_, owed)| *owed);
        self.books.owe_forgets(&keys_of(&later))?;
        let now = keys_of(&now);
        match self.forget_in_primary(&now).await {
            Err(error) if is_outage(&error) && !matches!(self.plan, Plan::Reject) => {
                self.books.owe_forgets(&now)?;
            }
            result => result?,
        }
        self.books.forget_lost(keys);
        Ok(())
    }

    async fn forget_in_primary(&self, keys: &[&[u8]]) -> Result<(), StoreError> {
        if keys.is_empty() {
            return Ok(());
        }
        let first = self.forget_once(self.books.switch.ask()?, keys).await;
        match (&first, self.books.switch.ask_if_closed()) {
            (Err(error), Some(asking)) if is_lost(error) => self.forget_once(asking, keys).await,
            _ => first,
        }
    }

    async fn forget_once(&self, asking: Asking<'_>, keys: &[&[u8]]) -> Result<(), StoreError> {
        let result = caught(async { self.primary.forget(keys).await }).await;
        self.report(asking, &result);
        result
    }

    /// Frees the room of records in buckets before `before` everywhere; a primary
    /// that is left alone is told another time.
    ///
    /// # Errors
    ///
    /// The primary, or the fallback, did not.
    pub(crate) async fn expire(&self, before: Bucket) -> Result<(), StoreError> {
        self.books.expire(before);
        let in_fallback = match &self.plan {
            Plan::Ask(fallback) => caught(async { fallback.expire(before).await }).await,
            Plan::Reject | Plan::Admit => Ok(()),
        };
        if let Some(asking) = self.books.switch.ask_if_closed() {
            let result = caught(async { self.primary.expire(before).await }).await;
            self.report(asking, &result);
            result?;
        }
        in_fallback
    }

    fn report<T>(&self, asking: Asking<'_>, result: &Result<T, StoreError>) {
        asking.report(result, !matches!(self.plan, Plan::Reject));
    }
}

/// An owned store of which nothing is asked: what it is shown is new.
struct Recording<'a>(&'a dyn OwnedStore);

impl Confirmer for Recording<'_> {
    fn confirm(&self, sightings: &[Sighting<'_>], _: Rule) -> Result<Vec<Answer>, StoreError> {
        self.0.record(sightings)?;
        Ok(vec![Answer::New; sightings.len()])
    }

    fn look(&self, keys: &[&[u8]]) -> Result<Vec<Option<Record>>, StoreError> {
        self.0.look(keys)
    }

    fn forget(&self, keys: &[&[u8]]) -> Result<(), StoreError> {
        self.0.forget(keys)
    }
}

/// Undoes the doubt that a call began if it is certain to have recorded nothing.
fn recorded_nothing<T>(result: &Result<T, StoreError>, before: bool, doubt: &mut Doubt<'_>) {
    if matches!(result, Err(error) if !error.may_have_recorded()) {
        doubt.end(before);
    }
}

/// The sightings that are owed, or those that are not.
fn parted<'key>(sightings: &[Sighting<'key>], owed: &[bool], part: bool) -> Vec<Sighting<'key>> {
    let in_part = sightings.iter().zip(owed).filter(|(_, owed)| **owed == part);
    in_part.map(|(sighting, _)| *sighting).collect()
}

fn keys_of<'key>(keys: &[(&'key [u8], bool)]) -> Vec<&'key [u8]> {
    keys.iter().map(|(key, _)| *key).collect()
}
