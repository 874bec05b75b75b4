//! The keys that are the stand-in's to answer.

use crate::confirm::claims::{Digest, Terms};
use crate::confirm::{StoreError, StoreErrorKind, Token};
use crate::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;

/// What a note takes beside its key, in bytes: its place among the notes, and among those
/// that are owed.
const NOTE_BYTES: usize = 280;

/// Notes of keys that the stand-in let through, until the primary has been told of them.
///
/// One caller at a time tells the primary. A note that changes meanwhile gets a new stamp,
/// and stays.
#[derive(Debug)]
pub(super) struct Journal {
    notes: BTreeMap<Arc<[u8]>, Note>,
    /// Keys of which there is something to tell, or to find out first.
    owed: BTreeSet<Arc<[u8]>>,
    bytes: usize,
    limit_bytes: usize,
    stamps: u64,
    /// The key of which the primary is being told.
    telling: Option<Arc<[u8]>>,
    /// The key of which it was told, or was to be, last.
    told: Option<Arc<[u8]>>,
    /// The key that was looked at last for claims that were given up.
    aged: Option<Arc<[u8]>>,
}

#[derive(Debug)]
struct Note {
    /// How many are asking the stand-in about it.
    asking: usize,
    /// The latest claim that the stand-in granted.
    holder: Option<Holder>,
    /// Those whom another took over from there.
    former: Vec<Token>,
    /// By then the stand-in has forgotten all that was asked of it so far; or when to tell
    /// the primary, if it could not be told.
    until: Timestamp,
    stamp: u64,
}

/// Whom the stand-in granted a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) token: Token,
    pub(super) digest: Digest,
    pub(super) terms: Terms,
    /// It was settled there, or may have been.
    pub(super) is_settled: bool,
}

/// Who granted a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grantor {
    Primary,
    StandIn,
    /// The stand-in, which has granted the key to another since.
    Former,
}

/// What there is to tell the primary: how a note was when its turn came.
#[derive(Clone, Debug)]
pub(super) struct Debt {
    pub(super) id: Arc<[u8]>,
    pub(super) holder: Option<Holder>,
    /// Those whom another took over from.
    pub(super) former: Vec<Token>,
    pub(super) until: Timestamp,
    stamp: u64,
}

/// Why a key could not be noted.
#[derive(Debug, thiserror::Error)]
#[error(
    "the journal of what the store has yet to be told has reached its limit of {limit_bytes} \
     bytes: bring the store back, or raise the limit"
)]
struct JournalFull {
    limit_bytes: usize,
}

impl Journal {
    pub(super) const fn new(limit_bytes: usize) -> Self {
        Self {
            notes: BTreeMap::new(),
            owed: BTreeSet::new(),
            bytes: 0,
            limit_bytes,
            stamps: 0,
            telling: None,
            told: None,
            aged: None,
        }
    }

    pub(super) fn keys(&self) -> usize {
        self.notes.len()
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn contains(&self, id: &[u8]) -> bool {
        self.notes.contains_key(id)
    }

    /// True iff there is something to tell.
    pub(super) fn owes(&self) -> bool {
        !self.owed.is_empty()
    }

    /// Somebody is about to claim a key of the stand-in.
    pub(super) fn begin(&mut self, id: &[u8]) -> Result<(), StoreError> {
        if !self.contains(id) {
            self.add(id)?;
        }
        if let Some(note) = self.notes.get_mut(id) {
            note.asking += 1;
        }
        Ok(())
    }

    fn add(&mut self, id: &[u8]) -> Result<(), StoreError> {
        let bytes = self.bytes + note_bytes(id);
        if bytes > self.limit_bytes {
            let cause = JournalFull { limit_bytes: self.limit_bytes };
            return Err(StoreError::new(StoreErrorKind::Full, cause));
        }
        self.bytes = bytes;
        let (asking, holder, former) = (0, None, Vec::new());
        let note = Note { asking, holder, former, until: Timestamp::MIN, stamp: 0 };
        self.notes.insert(id.into(), note);
        Ok(())
    }

    /// Somebody is about to ask the stand-in about a key that may have a note; its stamp.
    pub(super) fn hold(&mut self, id: &[u8]) -> Option<u64> {
        let note = self.notes.get_mut(id)?;
        note.asking += 1;
        Some(note.stamp)
    }

    /// Nobody heard whether the stand-in granted a key; it forgets that by `until`.
    pub(super) fn unheard(&mut self, id: &[u8], until: Timestamp) {
        self.owe(id);
        if let Some(note) = self.notes.get_mut(id) {
            note.until = note.until.max(until);
        }
    }

    /// Somebody does not ask the stand-in any more.
    pub(super) fn end(&mut self, id: &[u8]) {
        let Some(note) = self.notes.get_mut(id) else { return };
        note.asking -= 1;
        if note.asking == 0 && note.holder.is_none() && !self.owed.contains(id) {
            self.remove(id);
        }
    }

    /// The stand-in has granted a key; it forgets that by `until`.
    pub(super) fn granted(
        &mut self,
        id: &[u8],
        holder: Holder,
        is_takeover: bool,
        until: Timestamp,
    ) {
        let Some(note) = self.notes.get_mut(id) else { return };
        note.until = until;
        let before = note.holder.replace(holder);
        if let Some(before) = before.filter(|before| is_takeover && before.token != holder.token) {
            note.former.push(before.token);
            self.bytes += size_of::<Token>();
        }
        self.stamp(id);
        self.owed.remove(id);
    }

    /// Who granted a lease.
    pub(super) fn grantor(&self, id: &[u8], token: Token) -> Grantor {
        let Some(note) = self.notes.get(id) else { return Grantor::Primary };
        if note.holder.is_some_and(|holder| holder.token == token) {
            return Grantor::StandIn;
        }
        if note.former.contains(&token) { Grantor::Former } else { Grantor::Primary }
    }

    /// A holder's lease was settled in the stand-in, or may have been.
    pub(super) fn settled(&mut self, id: &[u8], token: Token) {
        if let Some(holder) = self.holder(id, token) {
            holder.is_settled = true;
            self.owe(id);
        }
    }

    /// A holder's lease goes on; the stand-in forgets it by `until`.
    pub(super) fn extended(&mut self, id: &[u8], token: Token, until: Timestamp) {
        if self.holder(id, token).is_some()
            && let Some(note) = self.notes.get_mut(id)
        {
            note.until = until;
        }
    }

    /// The stand-in says that a key is this holder's no more. If it was settled before,
    /// that is still to be told.
    pub(super) fn lost(&mut self, id: &[u8], token: Token) {
        if self.holder(id, token).is_some_and(|holder| !holder.is_settled) {
            self.let_go(id);
        }
    }

    /// A key was cleared everywhere, unless it has been granted since it had this stamp.
    pub(super) fn cleared(&mut self, id: &[u8], stamp: u64) {
        if self.notes.get(id).is_some_and(|note| note.stamp == stamp) {
            self.let_go(id);
        }
    }

    /// Nobody holds a key, whoever did.
    fn let_go(&mut self, id: &[u8]) {
        self.owed.remove(id);
        self.stamp(id);
        let Some(note) = self.notes.get_mut(id) else { return };
        note.holder = None;
        if note.asking == 0 {
            self.remove(id);
        }
    }

    /// The next debt, unless the primary is being told of one.
    /// [`stop_telling`](Self::stop_telling) ends it.
    pub(super) fn start_telling(&mut self) -> Option<Debt> {
        if self.telling.is_some() {
            return None;
        }
        let id = self.next_owed()?;
        let note = self.notes.get(&id)?;
        let (holder, until, stamp) = (note.holder, note.until, note.stamp);
        let former = note.former.clone();
        self.telling = Some(Arc::clone(&id));
        self.told = Some(Arc::clone(&id));
        Some(Debt { id, holder, former, until, stamp })
    }

    /// The next key of which nobody asks the stand-in just now, from the last one on.
    fn next_owed(&self) -> Option<Arc<[u8]>> {
        let is_still = |id: &&Arc<[u8]>| self.notes.get(*id).is_some_and(|note| note.asking == 0);
        let after = self.told.as_deref().map_or(Unbounded, Excluded);
        let ahead = self.owed.range::<[u8], _>((after, Unbounded));
        ahead.chain(&self.owed).find(is_still).cloned()
    }

    pub(super) fn stop_telling(&mut self) {
        self.telling = None;
    }

    /// Whether the primary is being told of this key.
    pub(super) fn is_telling(&self, id: &[u8]) -> bool {
        self.telling.as_deref() == Some(id)
    }

    /// There is nothing more to tell: the key is the primary's again, unless something has
    /// happened to it since. True iff nothing has.
    pub(super) fn paid(&mut self, debt: &Debt) -> bool {
        let is_paid = self.is_as_it_was(debt);
        if is_paid {
            self.remove(&debt.id);
        }
        is_paid
    }

    /// It cannot be told yet: not before `until`, unless something happens to it.
    pub(super) fn postpone(&mut self, debt: &Debt, until: Timestamp) {
        if !self.is_as_it_was(debt) {
            return;
        }
        self.owed.remove(&debt.id);
        if let Some(note) = self.notes.get_mut(&debt.id) {
            note.until = until;
        }
    }

    fn is_as_it_was(&self, debt: &Debt) -> bool {
        let note = self.notes.get(&debt.id);
        note.is_some_and(|note| note.asking == 0 && note.stamp == debt.stamp)
    }

    /// Looks at `most` notes, going round, for claims of which nobody was heard again, and
    /// which the stand-in has forgotten; and for what was postponed.
    pub(super) fn age(&mut self, most: usize, now: Timestamp) {
        let after = self.aged.take();
        let after = after.as_deref().map_or(Unbounded, Excluded);
        let ahead = self.notes.range::<[u8], _>((after, Unbounded));
        let most = most.min(self.notes.len());
        let next: Vec<_> = ahead.chain(&self.notes).take(most).collect();
        self.aged = next.last().map(|(id, _)| Arc::clone(id));
        let due = next.into_iter().filter(|(_, note)| now >= note.until);
        let due: Vec<_> = due.map(|(id, _)| Arc::clone(id)).collect();
        for id in &due {
            self.owe(id);
        }
    }

    fn holder(&mut self, id: &[u8], token: Token) -> Option<&mut Holder> {
        self.notes.get_mut(id)?.holder.as_mut().filter(|holder| holder.token == token)
    }

    fn owe(&mut self, id: &[u8]) {
        if let Some((id, _)) = self.notes.get_key_value(id) {
            self.owed.insert(Arc::clone(id));
        }
        self.stamp(id);
    }

    fn stamp(&mut self, id: &[u8]) {
        self.stamps += 1;
        if let Some(note) = self.notes.get_mut(id) {
            note.stamp = self.stamps;
        }
    }

    fn remove(&mut self, id: &[u8]) {
        self.owed.remove(id);
        if let Some(note) = self.notes.remove(id) {
            self.bytes -= note_bytes(id) + note.former.len() * size_of::<Token>();
        }
    }
}

const fn note_bytes(id: &[u8]) -> usize {
    id.len() + NOTE_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const TERMS: Terms = Terms { lease: Duration::from_secs(10), keep: Duration::from_secs(100) };

    fn holder(token: u64) -> Holder {
        let (token, digest) = (Token::new(token), Digest::of(b""));
        Holder { token, digest, terms: TERMS, is_settled: false }
    }

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    /// Lets the stand-in grant a key.
    fn grant(journal: &mut Journal, id: &[u8], token: u64) {
        journal.begin(id).unwrap();
        journal.granted(id, holder(token), token > 1, at(110));
        journal.end(id);
    }

    fn next(journal: &mut Journal) -> Option<Debt> {
        let debt = journal.start_telling();
        journal.stop_telling();
        debt
    }

    #[test]
    fn a_note_lasts_from_before_the_claim_until_the_primary_knows() {
        let mut journal = Journal::new(1_000);
        journal.begin(b"k").unwrap();
        assert!(journal.contains(b"k"));
        journal.end(b"k");
        assert_eq!((journal.keys(), journal.bytes()), (0, 0), "nothing was granted");

        grant(&mut journal, b"k", 1);
        assert!(next(&mut journal).is_none(), "somebody is at it");
        journal.settled(b"k", Token::new(1));
        let debt = next(&mut journal).unwrap();
        assert!(debt.holder.unwrap().is_settled);
        assert!(journal.paid(&debt));
        assert_eq!((journal.keys(), journal.bytes(), journal.owes()), (0, 0, false));
    }

    #[test]
    fn what_happens_while_the_primary_is_told_is_told_again() {
        let mut journal = Journal::new(1_000);
        grant(&mut journal, b"k", 1);
        journal.settled(b"k", Token::new(1));
        let debt = next(&mut journal).unwrap();
        journal.begin(b"k").unwrap();
        assert!(!journal.paid(&debt), "somebody may be granted it");
        assert!(next(&mut journal).is_none());
        journal.granted(b"k", holder(2), false, at(110));
        journal.end(b"k");
        assert!(!journal.paid(&debt) && journal.contains(b"k"));
        journal.settled(b"k", Token::new(2));
        let debt = next(&mut journal).unwrap();
        assert_eq!(debt.holder.unwrap().token, Token::new(2));
        assert!(journal.paid(&debt));
    }

    #[test]
    fn one_at_a_time_tells_and_each_key_has_its_turn() {
        let mut journal = Journal::new(10_000);
        for id in [b"a", b"b", b"c"] {
            grant(&mut journal, id, 1);
            journal.settled(id, Token::new(1));
        }
        let first = journal.start_telling().unwrap();
        assert!(journal.is_telling(b"a") && journal.start_telling().is_none());
        journal.stop_telling();
        let mut told = vec![first.id];
        told.extend((0..3).map(|_| next(&mut journal).unwrap().id));
        assert_eq!(told, [b"a", b"b", b"c", b"a"].map(|id| Arc::from(&id[..])));
    }

    #[test]
    fn who_granted_a_lease_is_known() {
        let mut journal = Journal::new(1_000);
        grant(&mut journal, b"k", 1);
        assert_eq!(journal.grantor(b"k", Token::new(1)), Grantor::StandIn);
        grant(&mut journal, b"k", 2);
        assert_eq!(journal.grantor(b"k", Token::new(1)), Grantor::Former);
        assert_eq!(journal.grantor(b"k", Token::new(2)), Grantor::StandIn);
        assert_eq!(journal.grantor(b"k", Token::new(3)), Grantor::Primary);
        assert_eq!(journal.grantor(b"other", Token::new(1)), Grantor::Primary);
    }

    #[test]
    fn claims_that_were_given_up_are_owed_when_the_stand_in_has_forgotten_them() {
        let mut journal = Journal::new(10_000);
        for id in 0..20_u8 {
            grant(&mut journal, &[id], 1);
        }
        journal.extended(&[7], Token::new(1), at(500));
        journal.age(100, at(109));
        assert!(journal.start_telling().is_none());
        let mut owed = BTreeSet::new();
        for _ in 0..60 {
            journal.age(1, at(110));
            owed.extend(next(&mut journal).map(|debt| debt.id));
        }
        assert_eq!(owed.len(), 19);
        assert!(!owed.contains(&[7][..]));
    }

    #[test]
    fn a_full_journal_takes_no_new_keys() {
        let mut journal = Journal::new(2 * (NOTE_BYTES + 1));
        grant(&mut journal, b"a", 1);
        grant(&mut journal, b"b", 1);
        assert_eq!(journal.begin(b"c").unwrap_err().kind(), StoreErrorKind::Full);
        assert!(journal.begin(b"a").is_ok());
    }

    #[test]
    fn a_key_that_is_cleared_is_the_primarys_unless_it_was_granted_again() {
        let mut journal = Journal::new(1_000);
        grant(&mut journal, b"k", 1);
        let stamp = journal.hold(b"k").unwrap();
        journal.cleared(b"k", stamp);
        assert!(journal.contains(b"k"));
        journal.end(b"k");
        assert!(!journal.contains(b"k"));

        grant(&mut journal, b"k", 1);
        let stamp = journal.hold(b"k").unwrap();
        grant(&mut journal, b"k", 2);
        journal.cleared(b"k", stamp);
        journal.end(b"k");
        assert_eq!(journal.grantor(b"k", Token::new(2)), Grantor::StandIn);
    }
}
