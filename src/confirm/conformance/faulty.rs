//! Confirmers broken in one way each, to see that a check notices.

use crate::confirm::{
    Answer, Bucket, Confirmer, Decision, OwnedStore, Record, Rule, Sighting, StoreError,
    StoreErrorKind, Token,
};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    // In judging a sighting:
    NothingIsSeen,
    EdgeComesEarly,
    EdgeComesLate,
    FixedSlides,
    SlidingStays,
    SlidesBack,
    EarlierIsNew,
    NewKeepsTheBucket,
    UnsignedBuckets,
    TokensIgnored,
    RetryStays,
    RefreshTakesTheToken,
    // In reading and writing:
    RefusesAll,
    NotAtomic,
    BatchJudgedAtOnce,
    AnswersReversed,
    AnswersMissing,
    EmptyBatchRefused,
    TailDropped,
    LookRecords,
    LookGivesNothing,
    LookGivesOtherTokens,
    LookGivesFirstBuckets,
    LookReversed,
    LookSkipsUnknown,
    ForgetsNothing,
    ForgetsAll,
    ExpiresTooMuch,
    // In how keys are kept:
    EmptyKeyRefused,
    KeysCut,
    KeysEndAtZero,
    KeysAreText,
    LookTakesText,
    CaseIgnored,
    SpacesTrimmed,
    NamespaceIgnored,
    NamespaceJoined,
    // In lasting:
    LostOnReopening,
    RefreshLostOnReopening,
    LostOnRestart,
    RetryAfterLostReplySeen,
    LostReplyCalledUnavailable,
    CutOffCalledRefused,
    CutOffLooksEmpty,
    // In owning:
    RecordsNothing,
    RecordMovesBack,
    RecordKeepsTheBucket,
    RecoversInPart,
    RecoversForgotten,
    EpochStays,
    NotFenced,
    BindsToAny,
}

/// What all confirmers of one namespace share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    records: Mutex<HashMap<Vec<u8>, Record>>,
    /// What `RecoversForgotten` comes back with.
    forgotten: Mutex<Vec<Vec<u8>>>,
    owner: AtomicU64,
    /// In nanoseconds; the largest number stands for an unbounded window.
    width: Mutex<Option<u128>>,
    meeting: Meeting,
}

/// Where callers of `NotAtomic` meet between reading and writing: so a race, if
/// there is one, is lost.
#[derive(Debug, Default)]
pub(super) struct Meeting {
    arrived: AtomicU64,
}

impl Meeting {
    /// Lets the first to come wait for a second one, for as long as one may come.
    pub(super) fn wait_once(&self, patience: Duration) {
        if self.arrived.fetch_add(1, Ordering::SeqCst) > 0 {
            return;
        }
        let start = Instant::now();
        while self.arrived.load(Ordering::SeqCst) < 2 && start.elapsed() < patience {
            thread::yield_now();
        }
    }

    /// Lets another wait for a second one, where the first waited in vain.
    #[cfg(feature = "claims")]
    pub(super) fn call_off(&self) {
        let _ = self.arrived.compare_exchange(1, 0, Ordering::SeqCst, Ordering::SeqCst);
    }
}

/// A confirmer over a map, with a fault.
#[derive(Debug)]
pub(super) struct Faulty {
    pub(super) fault: Fault,
    prefix: Vec<u8>,
    shared: Arc<Shared>,
    epoch: u64,
}

impl Faulty {
    pub(super) fn open(fault: Fault, namespace: &str, shared: Arc<Shared>) -> Self {
        let prefix = match fault {
            Fault::NamespaceIgnored => Vec::new(),
            Fault::NamespaceJoined => namespace.into(),
            _ => [namespace.as_bytes(), b"\0"].concat(),
        };
        let owner = match fault {
            Fault::EpochStays => 1,
            _ => shared.owner.load(Ordering::SeqCst) + 1,
        };
        shared.owner.store(owner, Ordering::SeqCst);
        let confirmer = Self { fault, prefix, shared, epoch: owner };
        if fault == Fault::LostOnReopening && owner > 1 {
            confirmer.shared.records.lock().clear();
        }
        if fault == Fault::RefreshLostOnReopening {
            let mut records = confirmer.shared.records.lock();
            records.values_mut().for_each(|record| {
                record.bucket = record.bucket.min(Bucket::new(super::case::NOW));
            });
        }
        confirmer
    }

    fn stored(&self, key: &[u8]) -> Vec<u8> {
        let key = match self.fault {
            Fault::KeysCut => key[..key.len().min(767)].to_vec(),
            Fault::KeysEndAtZero => key.split(|byte| *byte == 0).next().unwrap().to_vec(),
            Fault::KeysAreText => String::from_utf8_lossy(key).into_owned().into_bytes(),
            Fault::CaseIgnored => key.to_ascii_lowercase(),
            Fault::SpacesTrimmed => key.trim_ascii_end().to_vec(),
            _ => key.to_vec(),
        };
        [self.prefix.as_slice(), &key].concat()
    }

    fn decide(&self, rule: Rule, held: Option<Record>, sighting: &Sighting<'_>) -> Decision {
        let mut sighting = *sighting;
        if self.fault == Fault::UnsignedBuckets {
            sighting.bucket = Bucket::new(sighting.bucket.number().max(0));
        }
        let right = rule.decide(held, &sighting);
        let Some(held) = held else { return right };
        let number = |bucket: Bucket| bucket.number();
        let age = number(sighting.bucket) - number(held.bucket);
        let edge = i64::from(rule.buckets());
        let own = held.token == sighting.token;
        let seen = matches!(right.answer, Answer::Seen(_));
        let moved = |bucket, token| Decision {
            answer: Answer::Seen(bucket),
            write: Some(Record { bucket, token }),
        };
        let new = Decision { answer: Answer::New, write: Some(Record::from(&sighting)) };
        match self.fault {
            Fault::NothingIsSeen => new,
            Fault::EdgeComesEarly if age == edge => new,
            Fault::EdgeComesLate if age == edge + 1 => {
                Decision { answer: Answer::Seen(held.bucket), write: None }
            }
            Fault::EarlierIsNew if age < 0 && !own => new,
            Fault::FixedSlides if seen && age > 0 => moved(sighting.bucket, held.token),
            Fault::SlidingStays if seen => {
                Decision { answer: Answer::Seen(held.bucket), write: None }
            }
            Fault::SlidesBack if seen && rule.is_sliding() => moved(sighting.bucket, held.token),
            Fault::NewKeepsTheBucket if right.answer == Answer::New => {
                Decision { answer: Answer::New, write: None }
            }
            Fault::TokensIgnored if own => {
                Decision { answer: Answer::Seen(held.bucket), write: None }
            }
            Fault::RetryStays if own => Decision { answer: Answer::New, write: None },
            Fault::RefreshTakesTheToken if seen && right.write.is_some() => {
                moved(sighting.bucket, sighting.token)
            }
            _ => right,
        }
    }

    fn confirm_one(&self, rule: Rule, sighting: &Sighting<'_>) -> Answer {
        let key = self.stored(sighting.key);
        let mut records = self.shared.records.lock();
        let decision = self.decide(rule, records.get(&key).copied(), sighting);
        if self.fault == Fault::NotAtomic {
            drop(records);
            // Each check that races nobody waits in vain.
            self.shared.meeting.wait_once(Duration::from_millis(20));
            records = self.shared.records.lock();
        }
        if let Some(record) = decision.write {
            records.insert(key, record);
        }
        decision.answer
    }

    fn confirm_at_once(&self, rule: Rule, sightings: &[Sighting<'_>]) -> Vec<Answer> {
        let mut records = self.shared.records.lock();
        let held: Vec<_> =
            sightings.iter().map(|each| records.get(&self.stored(each.key)).copied()).collect();
        let mut answers = Vec::new();
        for (sighting, held) in sightings.iter().zip(held) {
            let decision = self.decide(rule, held, sighting);
            answers.push(decision.answer);
            if let Some(record) = decision.write {
                records.insert(self.stored(sighting.key), record);
            }
        }
        answers
    }

    fn look_for(&self, key: &[u8]) -> Option<Record> {
        let text = String::from_utf8_lossy(key);
        let key = if self.fault == Fault::LookTakesText { text.as_bytes() } else { key };
        let mut held = self.shared.records.lock().get(&self.stored(key)).copied()?;
        match self.fault {
            Fault::LookGivesNothing => return None,
            Fault::LookGivesOtherTokens => held.token = Token::new(0),
            Fault::LookGivesFirstBuckets => {
                held.bucket = held.bucket.min(Bucket::new(super::case::NOW));
            }
            _ => {}
        }
        Some(held)
    }

    fn owned(&self) -> Result<(), StoreError> {
        let owner = self.shared.owner.load(Ordering::SeqCst);
        if owner == self.epoch || self.fault == Fault::NotFenced {
            return Ok(());
        }
        Err(StoreError::new(StoreErrorKind::Fenced, "another owner"))
    }

    fn refused<T>(cause: &str) -> Result<T, StoreError> {
        Err(StoreError::new(StoreErrorKind::Refused, cause))
    }
}

impl Confirmer for Faulty {
    fn confirm(&self, sightings: &[Sighting<'_>], rule: Rule) -> Result<Vec<Answer>, StoreError> {
        self.owned()?;
        let is_empty = |sighting: &Sighting<'_>| sighting.key.is_empty();
        match self.fault {
            Fault::RefusesAll => Self::refused("as always"),
            Fault::EmptyBatchRefused if sightings.is_empty() => Self::refused("no sightings"),
            Fault::EmptyKeyRefused if sightings.iter().any(is_empty) => Self::refused("no key"),
            Fault::BatchJudgedAtOnce => Ok(self.confirm_at_once(rule, sightings)),
            Fault::TailDropped => {
                let kept = sightings.len().min(1_000);
                let mut answers: Vec<_> =
                    sightings[..kept].iter().map(|each| self.confirm_one(rule, each)).collect();
                answers.resize(sightings.len(), Answer::New);
                Ok(answers)
            }
            fault => {
                let each = sightings.iter().map(|each| self.confirm_one(rule, each));
                let mut answers: Vec<_> = each.collect();
                match fault {
                    Fault::AnswersReversed => answers.reverse(),
                    Fault::AnswersMissing => answers.truncate(1),
                    _ => {}
                }
                Ok(answers)
            }
        }
    }

    fn look(&self, keys: &[&[u8]]) -> Result<Vec<Option<Record>>, StoreError> {
        self.owned()?;
        let mut held: Vec<_> = keys.iter().map(|key| self.look_for(key)).collect();
        match self.fault {
            Fault::LookRecords => {
                let mut records = self.shared.records.lock();
                let looked = Record { bucket: Bucket::new(0), token: Token::new(0) };
                for key in keys {
                    records.entry(self.stored(key)).or_insert(looked);
                }
            }
            Fault::LookReversed => held.reverse(),
            Fault::LookSkipsUnknown => held.retain(Option::is_some),
            _ => {}
        }
        Ok(held)
    }

    fn forget(&self, keys: &[&[u8]]) -> Result<(), StoreError> {
        self.owned()?;
        let mut records = self.shared.records.lock();
        match self.fault {
            Fault::ForgetsNothing => {}
            Fault::ForgetsAll => records.clear(),
            _ => records.retain(|stored, _| !keys.iter().any(|key| self.stored(key) == *stored)),
        }
        self.shared.forgotten.lock().extend(keys.iter().map(|key| key.to_vec()));
        Ok(())
    }

    fn expire(&self, before: Bucket) -> Result<(), StoreError> {
        self.owned()?;
        let spared = i64::from(self.fault == Fault::ExpiresTooMuch);
        let first = Bucket::new(before.number() + spared);
        self.shared.records.lock().retain(|_, record| record.bucket >= first);
        Ok(())
    }
}

impl OwnedStore for Faulty {
    fn record(&self, sightings: &[Sighting<'_>]) -> Result<(), StoreError> {
        self.owned()?;
        let mut records = self.shared.records.lock();
        for sighting in sightings {
            let held = records.get(&self.stored(sighting.key)).map(|record| record.bucket);
            let writes = match self.fault {
                Fault::RecordsNothing => false,
                Fault::RecordMovesBack => true,
                Fault::RecordKeepsTheBucket => held.is_none(),
                _ => held.is_none_or(|held| held < sighting.bucket),
            };
            if writes {
                records.insert(self.stored(sighting.key), Record::from(sighting));
            }
        }
        Ok(())
    }

    fn recover(&self, visit: &mut dyn FnMut(&[u8], Bucket)) -> Result<(), StoreError> {
        let records = self.shared.records.lock();
        let skipped = usize::from(self.fault == Fault::RecoversInPart);
        for (key, record) in records.iter().skip(skipped) {
            if let Some(key) = key.strip_prefix(self.prefix.as_slice()) {
                visit(key, record.bucket);
            }
        }
        if self.fault == Fault::RecoversForgotten {
            let forgotten = self.shared.forgotten.lock();
            forgotten.iter().for_each(|key| visit(key, Bucket::new(0)));
        }
        Ok(())
    }

    fn bind(&self, width: Option<Duration>) -> Result<(), StoreError> {
        self.owned()?;
        let width = width.map_or(u128::MAX, |width| width.as_nanos());
        let bound = self.shared.width.lock().replace(width);
        let is_other = bound.is_some_and(|bound| bound != width);
        if self.fault != Fault::BindsToAny && is_other && !self.shared.records.lock().is_empty() {
            *self.shared.width.lock() = bound;
            return Err(StoreError::new(StoreErrorKind::Refused, "other buckets"));
        }
        Ok(())
    }

    fn epoch(&self) -> u64 {
        self.epoch
    }
}
