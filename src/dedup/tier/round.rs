//! The course of one batch through the tiers.
//!
//! Keys that memory can judge have their verdicts at once. The others are asked
//! about together; those that somebody else is asking about, or that this batch
//! asks about already, are put off until that is settled. One round is that,
//! over and over, until nothing is put off.
//!
//! A round that ends early (an error, a panic, a future that is dropped) takes
//! back what nobody will hear of: no message may be called a duplicate of one
//! whose verdict was lost.

use super::pending::Attempt;
use super::queue::Queued;
use super::{Purpose, Tiers};
use crate::confirm::{
    Answer, AnsweredBy, Confirmed, MAX_KEY_BYTES, Rule, Sighting, StoreError, StoreErrorKind, Token,
};
use crate::hash::KeyHash;
use crate::shard::Shards;
use crate::time::Bucket;
use crate::verdict::Verdict;
use event_listener::EventListener;
use std::sync::Arc;

/// Takes note of sightings that the store may have answered, and of which nobody
/// will hear: the next ones of their keys are to be asked about in their stead.
pub(crate) trait Unheard {
    /// Takes note of one.
    fn unheard(&self, sighting: &Sighting<'_>);

    /// The token of one that a sighting is to be asked about in the stead of. It is
    /// noted no longer.
    fn recall(&self, sighting: &Sighting<'_>, rule: Rule) -> Option<Token>;
}

/// A batch on its way.
pub(crate) struct Round<'a> {
    tiers: &'a Tiers,
    table: &'a Shards,
    store: &'a (dyn Unheard + Sync),
    asking: Vec<Asking<'a>>,
    /// So many keys are asked about together, at most.
    at_once: usize,
    put_off: Vec<Check<'a>>,
    /// Keys that this round has recorded.
    won: Vec<Asking<'a>>,
    /// The store has recorded a key that was taken back before it was won.
    is_in_doubt: bool,
}

/// One key of a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Check<'a> {
    /// Its place in the batch.
    pub(crate) index: usize,
    pub(crate) hash: KeyHash,
    pub(crate) key: &'a [u8],
    pub(crate) at: Bucket,
}

/// A key that is this round's to ask about.
#[derive(Clone, Copy, Debug)]
struct Asking<'a> {
    check: Check<'a>,
    token: Token,
    /// The token is that of an earlier sighting, of which nobody heard.
    is_recalled: bool,
    purpose: Purpose,
}

/// What the store said to a round's questions, and to what it had to write, unless it
/// failed before.
pub(crate) struct Replies {
    pub(crate) judged: Option<Result<Confirmed, StoreError>>,
    pub(crate) recorded: Option<Result<Confirmed, StoreError>>,
}

impl Replies {
    /// Does the store refuse any of it? It has not failed then.
    fn are_refused(&self) -> bool {
        [&self.judged, &self.recorded]
            .into_iter()
            .flatten()
            .any(|reply| matches!(reply, Err(error) if error.kind() == StoreErrorKind::Refused))
    }
}

/// How a round goes on.
#[derive(Debug)]
pub(crate) enum Next {
    /// With questions to the store.
    Ask,
    /// When somebody else has his reply.
    Wait(EventListener),
    Done,
}

/// Where a batch stopped, and why.
pub(crate) type Stop = (usize, StoreError);

impl<'a> Round<'a> {
    pub(crate) const fn new(
        tiers: &'a Tiers,
        table: &'a Shards,
        store: &'a (dyn Unheard + Sync),
    ) -> Self {
        Self {
            tiers,
            table,
            store,
            asking: Vec::new(),
            at_once: usize::MAX,
            put_off: Vec::new(),
            won: Vec::new(),
            is_in_doubt: false,
        }
    }

    /// Begins the check of a key. Its verdict, if memory can give it.
    pub(crate) fn begin(&mut self, check: Check<'a>) -> Option<Verdict> {
        let Self { tiers, table, .. } = *self;
        // A key that is put off stays before later sightings of itself.
        if self.put_off.iter().any(|earlier| earlier.hash == check.hash) {
            self.put_off.push(check);
            return None;
        }
        let Check { hash, key, at, .. } = check;
        match tiers.pending.hold(hash, key, |queued| tiers.purpose(table, hash, key, at, queued)) {
            Attempt::Settled => {
                tiers.counts.duplicates.add(1);
                return Some(Verdict::Duplicate);
            }
            Attempt::Busy => self.put_off.push(check),
            Attempt::Held(purpose) => {
                let asking = self.asking(check, purpose);
                if self.queue(asking) {
                    let by = AnsweredBy::Primary;
                    return Some(self.settle_one(asking, Answer::New, by));
                }
                self.asking.push(asking);
            }
        }
        None
    }

    /// A key that this round holds, with the token that it is known by from here on,
    /// wherever it goes.
    fn asking(&self, check: Check<'a>, purpose: Purpose) -> Asking<'a> {
        let token = self.tiers.draw_token();
        let asking = Asking { check, token, is_recalled: false, purpose };
        if !purpose.may_win() {
            return asking;
        }
        match self.store.recall(&asking.sighting(), self.tiers.rule()) {
            Some(token) => Asking { token, is_recalled: true, ..asking },
            None => asking,
        }
    }

    /// Leaves a key to be written later, if there is only to write, there is room
    /// in the queue, and no store refuses it for its length: its caller is to hear of
    /// that.
    fn queue(&self, asking: Asking<'_>) -> bool {
        let Asking { check: Check { hash, key, at, .. }, token, purpose, .. } = asking;
        let may_wait = !purpose.is_question() && key.len() <= MAX_KEY_BYTES;
        let Some(queue) = self.tiers.queue.as_ref().filter(|_| may_wait) else { return false };
        let key = Arc::from(key);
        // Before it can arrive.
        let Some((before, mark)) = self.tiers.pending.queue(hash, &key, at) else { return false };
        let is_queued = queue.push(Queued { hash, key, bucket: at, token, mark });
        if !is_queued {
            self.tiers.pending.unqueue(hash, before);
        }
        is_queued
    }

    /// What the store is to judge.
    pub(crate) fn questions(&self) -> Vec<Sighting<'a>> {
        self.sightings(Purpose::is_question)
    }

    /// What the store is only to record.
    pub(crate) fn recordings(&self) -> Vec<Sighting<'a>> {
        self.sightings(|purpose| !purpose.is_question())
    }

    /// What the store is to record as new.
    pub(crate) fn wins(&self) -> Vec<Sighting<'a>> {
        self.sightings(|purpose| purpose == Purpose::Record)
    }

    fn sightings(&self, is_meant: impl Fn(Purpose) -> bool) -> Vec<Sighting<'a>> {
        let asked = self.asking[..self.asked()].iter();
        let meant = asked.filter(|asking| is_meant(asking.purpose));
        meant.map(Asking::sighting).collect()
    }

    /// How many keys are asked about next, in the batch's order.
    fn asked(&self) -> usize {
        self.asking.len().min(self.at_once)
    }

    /// Gives all that was asked about its verdict. If the store refuses some of it, half
    /// as much is to be asked about next, with the same tokens: so that in the end all keys
    /// before the first that it refuses have theirs.
    ///
    /// # Errors
    ///
    /// Keys from the index on that it gives have none, and nothing of them is
    /// remembered. [`Faulty`](StoreErrorKind::Faulty) if there are not as many answers
    /// as questions: none of them counts then.
    pub(crate) fn settle(
        &mut self,
        replies: Replies,
        verdicts: &mut [Verdict],
    ) -> Result<(), Stop> {
        if self.asked() > 1 && replies.are_refused() {
            self.at_once = self.asked() / 2;
            return Ok(());
        }
        let Replies { judged, recorded } = replies;
        let later = self.asking.split_off(self.asked());
        let asking = std::mem::replace(&mut self.asking, later);
        let questions = asking.iter().filter(|asking| asking.purpose.is_question()).count();
        let mut judged = Answers::of(judged, questions);
        let mut recorded = match recorded {
            None if judged.failed.is_some() => Answers::none(None),
            recorded => Answers::of(recorded, asking.len() - questions),
        };
        let answered = asking.into_iter().map(|asking| {
            let answers = if asking.purpose.is_question() { &mut judged } else { &mut recorded };
            if answers.are_miscounted {
                self.unheard(&asking);
            }
            (asking, answers.next())
        });
        let answered: Vec<_> = answered.collect();
        let failed = judged.failed.or(recorded.failed);
        let end = if failed.is_some() { self.first_unanswered(&answered) } else { usize::MAX };
        for (asking, answer) in answered {
            match answer {
                Some((answer, by)) if asking.check.index < end => {
                    verdicts[asking.check.index] = self.settle_one(asking, answer, by);
                }
                Some((answer, _)) => {
                    self.is_in_doubt |= answer == Answer::New && asking.purpose.may_win();
                    self.take_back(&asking);
                }
                None => self.let_go(&asking),
            }
        }
        failed.map_or(Ok(()), |error| Err((end, error)))
    }

    /// The first key of the batch that has no answer.
    fn first_unanswered(&self, answered: &[(Asking<'_>, Option<(Answer, AnsweredBy)>)]) -> usize {
        let unanswered = answered.iter().filter(|(_, answer)| answer.is_none());
        let unanswered = unanswered.map(|(asking, _)| asking.check.index);
        let put_off = self.put_off.iter().map(|check| check.index);
        unanswered.chain(put_off).min().unwrap_or(usize::MAX)
    }

    fn settle_one(&mut self, asking: Asking<'a>, answer: Answer, by: AnsweredBy) -> Verdict {
        let Check { hash, key, at, .. } = asking.check;
        let verdict = asking.purpose.verdict(answer, by);
        self.tiers.take_over(self.table, hash, key, at, answer);
        self.tiers.count(asking.purpose, verdict);
        self.tiers.pending.release(hash);
        if verdict != Verdict::Duplicate {
            self.won.push(asking);
        }
        verdict
    }

    /// Lets go of a key whose verdict nobody will hear.
    fn take_back(&self, asking: &Asking<'_>) {
        self.unheard(asking);
        self.tiers.pending.release(asking.check.hash);
    }

    /// Lets go of a key without an answer. Whoever failed to give it has taken note
    /// if he may have recorded it; but an earlier sighting may have been recorded, too.
    fn let_go(&self, asking: &Asking<'_>) {
        if asking.is_recalled {
            self.unheard(asking);
        }
        self.tiers.pending.release(asking.check.hash);
    }

    /// A duplicate's key stays one, heard or not: asked about in the name of what moved
    /// it up, it would be new.
    fn unheard(&self, asking: &Asking<'_>) {
        if asking.purpose.may_win() {
            self.store.unheard(&asking.sighting());
        }
    }

    /// How to go on; gives their verdicts to keys that were put off and need
    /// be no longer.
    pub(crate) fn next(&mut self, verdicts: &mut [Verdict]) -> Next {
        loop {
            if !self.asking.is_empty() {
                return Next::Ask;
            }
            for check in std::mem::take(&mut self.put_off) {
                if let Some(verdict) = self.begin(check) {
                    verdicts[check.index] = verdict;
                }
            }
            if !self.asking.is_empty() {
                continue;
            }
            let Some(first) = self.put_off.first() else { return Next::Done };
            if let Some(listener) = self.tiers.pending.listen(first.hash) {
                return Next::Wait(listener);
            }
        }
    }

    /// The first `completed` keys have verdicts that the caller will see. True iff the
    /// store may have recorded others.
    pub(crate) fn keep_before(&mut self, completed: usize) -> bool {
        self.won.retain(|won| won.check.index >= completed);
        self.is_in_doubt || !self.won.is_empty()
    }

    /// All keys have.
    pub(crate) fn finish(mut self) {
        self.won.clear();
    }
}

impl<'a> Asking<'a> {
    fn sighting(&self) -> Sighting<'a> {
        let Check { key, at, .. } = self.check;
        Sighting { key, bucket: at, token: self.token }
    }
}

impl Drop for Round<'_> {
    fn drop(&mut self) {
        self.asking.iter().for_each(|asking| self.take_back(asking));
        for won in &self.won {
            self.unheard(won);
            self.tiers.pending.disown(won.check.hash, won.check.key);
            self.table.forget(won.check.hash, won.check.key);
        }
    }
}

/// Answers on their way to those who asked.
struct Answers {
    answers: std::vec::IntoIter<(Answer, AnsweredBy)>,
    failed: Option<StoreError>,
    /// Then there are none, and whoever gave them thinks that they were heard.
    are_miscounted: bool,
}

impl Answers {
    /// To so many who asked. All of them, or none and an error: who is left without
    /// either would be thought a duplicate.
    fn of(reply: Option<Result<Confirmed, StoreError>>, asked: usize) -> Self {
        match reply {
            None if asked == 0 => Self::none(None),
            None => Self::miscounted(0, asked),
            Some(Err(error)) => Self::none(Some(error)),
            Some(Ok(Confirmed { answers, .. })) if answers.len() != asked => {
                Self::miscounted(answers.len(), asked)
            }
            Some(Ok(confirmed)) => {
                let answers = confirmed.into_each().into_iter();
                Self { answers, failed: None, are_miscounted: false }
            }
        }
    }

    fn none(failed: Option<StoreError>) -> Self {
        Self { answers: Vec::new().into_iter(), failed, are_miscounted: false }
    }

    fn miscounted(given: usize, asked: usize) -> Self {
        let cause = format!("{given} answers were given to {asked} sightings");
        let failed = StoreError::new(StoreErrorKind::Faulty, cause);
        Self { are_miscounted: true, ..Self::none(Some(failed)) }
    }

    fn next(&mut self) -> Option<(Answer, AnsweredBy)> {
        self.answers.next()
    }
}
