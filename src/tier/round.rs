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

use super::pending::{Claim, Lost};
use super::{Purpose, Tiers};
use crate::confirm::{Answer, AnsweredBy, Confirmed, Sighting, StoreError, Token};
use crate::hash::KeyHash;
use crate::shard::Shards;
use crate::time::Bucket;
use crate::verdict::Verdict;
use event_listener::EventListener;

/// A batch on its way.
#[derive(Debug)]
pub(crate) struct Round<'a> {
    tiers: &'a Tiers,
    table: &'a Shards,
    asking: Vec<Asking<'a>>,
    put_off: Vec<Check<'a>>,
    /// Keys that this round has recorded.
    won: Vec<Asking<'a>>,
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
    purpose: Purpose,
    /// The earlier sighting whose reply was lost, and that is asked about again.
    earlier: Option<Lost>,
}

/// What the store said to a round's questions, and to what it had to write.
pub(crate) struct Replies {
    pub(crate) judged: Result<Confirmed, StoreError>,
    pub(crate) recorded: Result<Confirmed, StoreError>,
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
    pub(crate) const fn new(tiers: &'a Tiers, table: &'a Shards) -> Self {
        Self { tiers, table, asking: Vec::new(), put_off: Vec::new(), won: Vec::new() }
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
        match tiers.pending.claim(hash, || tiers.purpose(table, hash, key, at)) {
            Claim::Settled => {
                tiers.counts.duplicates.add(1);
                return Some(Verdict::Duplicate);
            }
            Claim::Busy => self.put_off.push(check),
            Claim::Granted(purpose, lost) => {
                let earlier = lost.filter(|lost| tiers.rule.matches(lost.bucket, at));
                let token = earlier.map_or_else(|| tiers.draw_token(), |earlier| earlier.token);
                self.asking.push(Asking { check, token, purpose, earlier });
            }
        }
        None
    }

    /// What the store is to judge.
    pub(crate) fn questions(&self) -> Vec<Sighting<'a>> {
        self.sightings(Purpose::is_question)
    }

    /// What the store is only to record.
    pub(crate) fn recordings(&self) -> Vec<Sighting<'a>> {
        self.sightings(|purpose| !purpose.is_question())
    }

    fn sightings(&self, is_meant: impl Fn(Purpose) -> bool) -> Vec<Sighting<'a>> {
        let meant = self.asking.iter().filter(|asking| is_meant(asking.purpose));
        meant.map(Asking::sighting).collect()
    }

    /// Gives all that was asked about its verdict.
    ///
    /// # Errors
    ///
    /// Keys from the index on that it gives have none, and nothing of them is
    /// remembered.
    pub(crate) fn settle(
        &mut self,
        replies: Replies,
        verdicts: &mut [Verdict],
    ) -> Result<(), Stop> {
        let (mut judged, judging_failed) = answers(replies.judged);
        let (mut recorded, recording_failed) = answers(replies.recorded);
        let failed = judging_failed.or(recording_failed);
        let answered: Vec<_> = self
            .asking
            .iter()
            .map(|asking| {
                if asking.purpose.is_question() { judged.next() } else { recorded.next() }
            })
            .collect();
        let unanswered = self.asking.iter().zip(&answered).filter(|(_, answer)| answer.is_none());
        let unanswered = unanswered.map(|(asking, _)| asking.check.index);
        let end = match &failed {
            None => usize::MAX,
            Some(_) => {
                let put_off = self.put_off.iter().map(|check| check.index);
                unanswered.chain(put_off).min().unwrap_or(usize::MAX)
            }
        };
        let is_lost = failed.as_ref().is_some_and(StoreError::may_have_recorded);
        for (asking, answer) in std::mem::take(&mut self.asking).into_iter().zip(answered) {
            match answer {
                Some((answer, by)) if asking.check.index < end => {
                    let index = asking.check.index;
                    verdicts[index] = self.settle_one(asking, answer, by);
                }
                _ => self.let_go(&asking, is_lost || answer.is_some()),
            }
        }
        match failed {
            None => Ok(()),
            Some(error) => {
                self.keep_before(end);
                Err((end, error))
            }
        }
    }

    fn settle_one(&mut self, asking: Asking<'a>, answer: Answer, by: AnsweredBy) -> Verdict {
        let Check { hash, key, at, .. } = asking.check;
        let verdict = asking.purpose.verdict(answer, by);
        self.tiers.take_over(self.table, hash, key, at, answer);
        self.tiers.count(asking.purpose, verdict);
        self.tiers.pending.release(hash, None);
        if verdict != Verdict::Duplicate {
            self.won.push(asking);
        }
        verdict
    }

    /// Lets go of a key that gets no verdict.
    fn let_go(&self, asking: &Asking<'_>, may_be_recorded: bool) {
        let lost = may_be_recorded.then(|| asking.lost()).or(asking.earlier);
        self.tiers.pending.release(asking.check.hash, lost);
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

    /// The first `completed` keys have verdicts that the caller will see.
    pub(crate) fn keep_before(&mut self, completed: usize) {
        self.won.retain(|won| won.check.index >= completed);
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

    /// What to keep of it if nobody hears its verdict.
    fn lost(&self) -> Lost {
        let earlier = self.earlier.map(|earlier| earlier.bucket);
        Lost { token: self.token, bucket: self.check.at.max(earlier.unwrap_or(self.check.at)) }
    }
}

impl Drop for Round<'_> {
    fn drop(&mut self) {
        for asking in &self.asking {
            self.let_go(asking, true);
        }
        for won in &self.won {
            let Check { hash, key, .. } = won.check;
            self.tiers.pending.keep(hash, won.lost());
            self.table.forget(hash, key);
        }
    }
}

/// The answers, in order, and why there are none.
fn answers(
    replies: Result<Confirmed, StoreError>,
) -> (impl Iterator<Item = (Answer, AnsweredBy)>, Option<StoreError>) {
    let (confirmed, failed) = match replies {
        Ok(confirmed) => (confirmed, None),
        Err(error) => (Confirmed::default(), Some(error)),
    };
    let by = confirmed.by;
    (confirmed.answers.into_iter().map(move |answer| (answer, by)), failed)
}
