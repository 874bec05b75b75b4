//! Claims in memory against a naive model, written from what the documentation says and
//! without a look at how stores decide: for each key who holds it, until when, and what
//! everybody still remembers of it.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use hapax::confirm::Token;
use hapax::confirm::claims::{
    Answer, ClaimRequest, ClaimStore, Digest, Ending, Fence, Grant, MemoryClaims, Outcome,
    SettleRequest, Settled, Settlement, Status, Terms,
};
use hapax::{Clock, ManualClock, Timestamp};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Microseconds.
type Micros = i64;

/// What everybody knows of a key.
#[derive(Clone, Debug)]
struct Known {
    /// Who was granted it last, with which payload, for the how manieth time.
    who: u64,
    payload: u8,
    attempt: u32,
    is_takeover: bool,
    progress: Progress,
    /// Until when they know it.
    until: Micros,
}

#[derive(Clone, Debug, PartialEq)]
enum Progress {
    Working { since: Micros, deadline: Micros },
    Finished(Outcome),
    GaveUp,
}

/// What a claimant is told. Fences have a rule of their own.
#[derive(Debug, PartialEq)]
enum Told {
    GoAhead { attempt: u32, is_takeover: bool },
    Wait { since: Micros, remaining: Micros },
    Done(Outcome),
    OtherPayload,
}

/// What somebody says of a key.
#[derive(Clone, Debug)]
enum Word {
    Complete(Outcome),
    Release,
    Extend,
    Adopt { payload: u8, outcome: Outcome },
    Clear,
}

/// In microseconds.
#[derive(Clone, Copy, Debug)]
struct Spans {
    lease: Micros,
    keep: Micros,
}

#[derive(Default)]
struct Model(HashMap<u8, Known>);

impl Model {
    fn known(&mut self, key: u8, now: Micros) -> Option<&mut Known> {
        self.0.retain(|_, known| now < known.until);
        self.0.get_mut(&key)
    }

    fn claim(&mut self, key: u8, (who, payload): (u64, u8), spans: Spans, now: Micros) -> Told {
        let deadline = now + spans.lease;
        let until = deadline + spans.keep;
        let mut next = Known {
            who,
            payload,
            attempt: 1,
            is_takeover: false,
            progress: Progress::Working { since: now, deadline },
            until,
        };
        if let Some(known) = self.known(key, now) {
            if let Progress::Working { since, .. } = known.progress
                && known.who == who
            {
                known.progress = Progress::Working { since, deadline };
                (known.payload, known.until) = (payload, until);
                return Told::GoAhead { attempt: known.attempt, is_takeover: known.is_takeover };
            }
            if known.progress != Progress::GaveUp && known.payload != payload {
                return Told::OtherPayload;
            }
            match &known.progress {
                Progress::Finished(outcome) => return Told::Done(outcome.clone()),
                Progress::Working { since, deadline } if now < *deadline => {
                    return Told::Wait { since: *since, remaining: deadline - now };
                }
                progress => next.is_takeover = *progress != Progress::GaveUp,
            }
            next.attempt = known.attempt + 1;
        }
        let told = Told::GoAhead { attempt: next.attempt, is_takeover: next.is_takeover };
        self.0.insert(key, next);
        told
    }

    /// True iff it counts.
    fn settle(&mut self, key: u8, (who, word): (u64, &Word), spans: Spans, now: Micros) -> bool {
        let Some(known) = self.known(key, now) else {
            if let Word::Adopt { .. } = word {
                self.adopt(key, (who, word), 1, now + spans.keep);
            }
            return matches!(word, Word::Clear | Word::Release | Word::Adopt { .. });
        };
        let is_holder = known.who == who;
        let is_working = matches!(known.progress, Progress::Working { .. });
        let is_finished = matches!(known.progress, Progress::Finished(_));
        match word {
            Word::Clear if known.progress == Progress::GaveUp => {}
            Word::Clear => {
                known.progress = Progress::GaveUp;
                known.until = now + spans.lease;
            }
            Word::Adopt { .. } if is_finished => return is_holder,
            Word::Adopt { .. } => {
                let is_over = match known.progress {
                    Progress::Working { deadline, .. } => deadline <= now,
                    _ => true,
                };
                if !is_over && !is_holder {
                    return false;
                }
                let attempt = known.attempt + 1;
                self.adopt(key, (who, word), attempt, now + spans.keep);
            }
            _ if !is_holder => return false,
            Word::Complete(_) if is_finished => {}
            Word::Release if known.progress == Progress::GaveUp => {}
            _ if !is_working => return false,
            Word::Complete(outcome) => {
                known.progress = Progress::Finished(outcome.clone());
                known.until = now + spans.keep;
            }
            Word::Release => {
                known.progress = Progress::GaveUp;
                known.until = now + spans.lease;
            }
            Word::Extend => {
                if let Progress::Working { deadline, .. } = &mut known.progress {
                    *deadline = now + spans.lease;
                }
                known.until = now + spans.lease + spans.keep;
            }
        }
        true
    }

    fn adopt(&mut self, key: u8, (who, word): (u64, &Word), attempt: u32, until: Micros) {
        let Word::Adopt { payload, outcome } = word else { return };
        let progress = Progress::Finished(outcome.clone());
        let payload = *payload;
        self.0.insert(key, Known { who, payload, attempt, is_takeover: false, progress, until });
    }

    fn look(&mut self, key: u8, now: Micros) -> Option<Told> {
        match &self.known(key, now)?.progress {
            Progress::GaveUp => None,
            Progress::Finished(outcome) => Some(Told::Done(outcome.clone())),
            Progress::Working { since, deadline } => {
                Some(Told::Wait { since: *since, remaining: (deadline - now).max(0) })
            }
        }
    }
}

fn micros(span: Duration) -> Micros {
    span.as_micros() as Micros
}

fn digest(payload: u8) -> Digest {
    Digest::of(&[payload])
}

fn told(answer: Answer) -> Told {
    match answer {
        Answer::Granted(Grant { attempt, is_takeover, .. }) => {
            Told::GoAhead { attempt, is_takeover }
        }
        Answer::InFlight { since, remaining } => {
            Told::Wait { since: since.as_micros(), remaining: micros(remaining) }
        }
        Answer::Finished(outcome) => Told::Done(outcome),
        Answer::Mismatch => Told::OtherPayload,
        Answer::Unconfirmed(_) => panic!("memory knows"),
    }
}

#[derive(Clone, Debug)]
enum Step {
    Claim { key: u8, who: u64, payload: u8, terms: Terms },
    Settle { key: u8, who: u64, word: Word, terms: Terms },
    Look { key: u8 },
    Pass(Duration),
    Sweep,
}

/// The store and the model, side by side.
struct Rig {
    clock: Arc<ManualClock>,
    claims: MemoryClaims,
    model: Model,
    /// The latest fence of each key, forgotten or not.
    fences: HashMap<u8, Fence>,
    /// True iff some were below a millisecond, which is too short for fences.
    has_brief_terms: bool,
}

impl Rig {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::from_secs(1_790_000_000)));
        let claims = MemoryClaims::with_clock(clock.clone());
        Self {
            clock,
            claims,
            model: Model::default(),
            fences: HashMap::new(),
            has_brief_terms: false,
        }
    }

    fn step(&mut self, step: &Step) {
        let now = self.clock.now().as_micros();
        if let Step::Claim { terms, .. } | Step::Settle { terms, .. } = step {
            self.has_brief_terms |= terms.lease.min(terms.keep) < Duration::from_millis(1);
        }
        match step {
            Step::Claim { key, who, payload, terms } => {
                let request = ClaimRequest {
                    token: Token::new(*who),
                    digest: digest(*payload),
                    terms: *terms,
                };
                let known = self.model.known(*key, now).cloned();
                let answer = self.claims.claim(&[*key], &request).unwrap();
                if let Answer::Granted(grant) = answer {
                    self.check_fence(*key, *who, grant.fence, known.as_ref());
                }
                let expected = self.model.claim(*key, (*who, *payload), spans(*terms), now);
                assert_eq!(told(answer), expected);
            }
            Step::Settle { key, who, word, terms } => {
                let adopted;
                let settlement = match word {
                    Word::Complete(outcome) => Settlement::Complete(outcome),
                    Word::Release => Settlement::Release,
                    Word::Extend => Settlement::Extend,
                    Word::Clear => Settlement::Clear,
                    Word::Adopt { payload, outcome } => {
                        adopted = digest(*payload);
                        Settlement::Adopt(&adopted, outcome)
                    }
                };
                let request = SettleRequest { token: Token::new(*who), settlement, terms: *terms };
                let settled = self.claims.settle(&[*key], &request).unwrap();
                let counts = self.model.settle(*key, (*who, word), spans(*terms), now);
                assert_eq!(settled, if counts { Settled::Done } else { Settled::Stale });
            }
            Step::Look { key } => self.check_look(*key),
            Step::Pass(span) => self.clock.advance(*span),
            Step::Sweep => while self.claims.sweep().unwrap() {},
        }
    }

    /// The same for whoever holds the key already, and larger than any before for others.
    fn check_fence(&mut self, key: u8, who: u64, fence: Fence, known: Option<&Known>) {
        let clock = Fence::new(self.clock.now().as_micros() as u64);
        assert!(fence >= clock || known.is_some());
        let Some(before) = self.fences.insert(key, fence) else { return };
        let is_held = |known: &Known| matches!(known.progress, Progress::Working { .. });
        if known.is_some_and(|known| known.who == who && is_held(known)) {
            assert_eq!(fence, before);
            return;
        }
        // Granted and forgotten in this very microsecond, a key has no fence to come after.
        let is_forgotten = self.has_brief_terms && before >= clock;
        assert!(before < fence || is_forgotten, "{fence} came after {before}");
    }

    fn check_look(&mut self, key: u8) {
        let now = self.clock.now().as_micros();
        let found = self.claims.look(&[key]).unwrap();
        if let Some(Status::InFlight { grant, .. }) = found {
            assert_eq!(Some(grant.fence), self.fences.get(&key).copied());
        }
        let found = found.map(|status| match status {
            Status::Finished(outcome) => Told::Done(outcome),
            Status::InFlight { since, remaining, .. } => {
                Told::Wait { since: since.as_micros(), remaining: micros(remaining) }
            }
        });
        assert_eq!(found, self.model.look(key, now));
    }

    /// All at once: what is known, and that nothing else is kept.
    fn check_all(&mut self) {
        (0..KEYS).for_each(|key| self.check_look(key));
        self.clock.advance(Duration::from_secs(100));
        for _ in 0..2 {
            while self.claims.sweep().unwrap() {}
            self.clock.advance(Duration::from_secs(100));
        }
        assert!(self.claims.is_empty());
    }
}

fn spans(Terms { lease, keep }: Terms) -> Spans {
    Spans { lease: micros(lease), keep: micros(keep) }
}

const KEYS: u8 = 3;

/// Mostly whole and half seconds, so that edges are met.
fn halves(least: u64) -> impl Strategy<Value = Duration> {
    (least..20).prop_map(|halves| Duration::from_millis(halves * 500))
}

fn brief() -> impl Strategy<Value = Duration> {
    (0..3_u64).prop_map(Duration::from_micros)
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        any::<[u8; 2]>().prop_map(Outcome::success),
        any::<[u8; 2]>().prop_map(Outcome::failure),
        Just(Outcome::tombstone(Ending::Success)),
    ]
}

fn word() -> impl Strategy<Value = Word> {
    prop_oneof![
        3 => outcome().prop_map(Word::Complete),
        3 => Just(Word::Release),
        2 => Just(Word::Extend),
        1 => (0..2_u8, outcome()).prop_map(|(payload, outcome)| Word::Adopt { payload, outcome }),
        1 => Just(Word::Clear),
    ]
}

/// Brief terms are rare: half of all runs should have none.
fn step() -> impl Strategy<Value = Step> {
    let span = || prop_oneof![200 => halves(1), 1 => brief()];
    let terms = || (span(), span()).prop_map(|(lease, keep)| Terms { lease, keep });
    let pass = prop_oneof![8 => halves(0), 1 => brief()];
    // Few claimants, so that they come back, also when others have been since.
    let (key, who) = (0..KEYS, 0..4_u64);
    prop_oneof![
        4 => (key.clone(), who.clone(), 0..10_u8, terms()).prop_map(|(key, who, payload, terms)| {
            Step::Claim { key, who, payload: u8::from(payload == 0), terms }
        }),
        4 => (key.clone(), who, word(), terms())
            .prop_map(|(key, who, word, terms)| Step::Settle { key, who, word, terms }),
        1 => key.prop_map(|key| Step::Look { key }),
        2 => pass.prop_map(Step::Pass),
        1 => Just(Step::Sweep),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2_000,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource(
            "proptest-regressions",
        ))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_steps_come_to_what_the_model_says(steps in prop::collection::vec(step(), 1..80)) {
        let mut rig = Rig::new();
        for step in &steps {
            rig.step(step);
        }
        rig.check_all();
    }
}
