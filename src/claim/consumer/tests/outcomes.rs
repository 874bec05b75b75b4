//! What messages come to while no process ends.

use super::broker::Away;
use super::fate::Fate;
use super::stage::{LEASE, OutOfHats, Stage};
use crate::claim::{
    Claim, Consumed, Consumer, ConsumerError, DeadLetter, Failure, Gate, Identity, LeaseError,
    Retry, Unanswered,
};
use crate::confirm::claims::{
    Answer, AsyncClaimStore, ClaimRequest, ClaimStore, Digest, MemoryClaims, Outcome,
    SettleRequest, Settled, Settlement, Status,
};
use crate::confirm::{Inline, MAX_KEY_BYTES, StoreError, StoreErrorKind};
use crate::time::{Clock, Timestamp};
use futures_util::future::join_all;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

const SECOND: Duration = Duration::from_secs(1);

fn hat() -> Outcome {
    Outcome::success(*b"a hat")
}

#[tokio::test]
async fn a_message_that_comes_again_is_acknowledged_without_work() {
    let stage = Stage::new();
    let consumer = stage.consumer();
    let number = stage.broker.publish("hat-17", "2 hats");
    let came = stage.consume(&consumer, &stage.deliver(number)).await;
    assert_eq!(came, Ok(Consumed::Done(hat())));
    // The producer sends it twice.
    let again = stage.broker.publish("hat-17", "2 hats");
    let came = stage.consume(&consumer, &stage.deliver(again)).await;
    assert_eq!(came, Ok(Consumed::Replayed(hat())));
    assert!(stage.broker.is_acknowledged(number) && stage.broker.is_acknowledged(again));
    assert_eq!(stage.effects(), 1);
    let stats = consumer.stats();
    assert_eq!((stats.done, stats.replayed), (1, 1));
}

#[tokio::test]
async fn outcomes_are_kept_for_seven_days() {
    let stage = Stage::new();
    for (days, effects) in [(0, 1), (6, 1), (1, 2)] {
        stage.clock.advance(Duration::from_secs(days * 86_400));
        let number = stage.broker.publish("hat-17", "2 hats");
        stage.run_until_acknowledged(number).await;
        assert_eq!(stage.effects(), effects);
    }
}

#[tokio::test]
async fn of_many_deliveries_at_once_one_is_worked_on() {
    let stage = Arc::new(Stage::new());
    let consumers: Vec<_> = (0..4).map(|_| Arc::new(stage.consumer())).collect();
    let numbers: Vec<_> = (0..64).map(|_| stage.broker.publish("hat-17", "2 hats")).collect();
    // As tasks: the futures go from thread to thread.
    let tasks = numbers.iter().map(|&number| {
        let (stage, consumer) = (Arc::clone(&stage), Arc::clone(&consumers[number % 4]));
        tokio::spawn(async move {
            let parcel = stage.deliver(number);
            let (stage, fate) = (&stage, &Fate::default());
            let work = |attempt| async move {
                tokio::task::yield_now().await;
                stage.work(attempt, fate).await
            };
            consumer.consume(&parcel, work).await.map(drop)
        })
    });
    for came in join_all(tasks).await {
        came.unwrap().unwrap();
    }
    for number in numbers {
        stage.run_until_acknowledged(number).await;
    }
    assert_eq!(stage.effects(), 1);
    let in_flight: u64 = consumers.iter().map(|consumer| consumer.stats().in_flight).sum();
    assert_eq!(in_flight, 63);
}

#[tokio::test]
async fn a_handler_that_fails_is_tried_later_and_later_and_then_no_more() {
    let stage = Stage::new();
    let consumer = stage.builder(&Fate::default()).attempts(4).retry(SECOND, SECOND * 3);
    let consumer = consumer.build().unwrap();
    let number = stage.broker.publish("hat-17", "2 hats");
    for attempt in 1..=3 {
        let parcel = stage.deliver(number);
        let came = consumer.consume(&parcel, |turn| async move {
            assert_eq!((turn.number, turn.is_takeover), (attempt, false));
            Err(OutOfHats)
        });
        let Ok(Consumed::Retried { reason, .. }) = came.await else { panic!("not handed back") };
        assert_eq!(reason, Retry::Failed(Failure::Returned(OutOfHats)));
    }
    assert_eq!(stage.broker.nacks(number), [SECOND, SECOND * 2, SECOND * 3]);
    let parcel = stage.deliver(number);
    let came = consumer.consume(&parcel, |_| async { Err(OutOfHats) }).await;
    let last = Some(Failure::Returned(OutOfHats));
    assert_eq!(came, Ok(Consumed::Dead(DeadLetter::Exhausted { attempts: 4, last })));
    // Nobody has put it away: it comes again, and to the same, without work.
    let came = stage.consume(&consumer, &parcel).await;
    let dead = DeadLetter::Exhausted { attempts: 4, last: None };
    assert_eq!(came, Ok(Consumed::Dead(dead)));
    assert_eq!((stage.effects(), stage.broker.nacks(number).len()), (0, 3));
    assert!(!stage.broker.is_acknowledged(number));
    let stats = consumer.stats();
    assert_eq!((stats.failed, stats.dead), (3, 2));
}

#[tokio::test]
async fn a_panic_of_the_handler_is_one_of_its_failures() {
    let stage = Stage::new();
    let consumer = stage.consumer();
    let number = stage.broker.publish("hat-17", "2 hats");
    let parcel = stage.deliver(number);
    // Before there is a future, too.
    let came = consumer.consume(&parcel, |_| -> std::future::Ready<Result<Outcome, OutOfHats>> {
        panic!("a hole in the hat")
    });
    let Ok(Consumed::Retried { reason, .. }) = came.await else { panic!("not handed back") };
    assert_eq!(reason, Retry::Failed(Failure::Panicked("a hole in the hat".to_owned())));
    // The key is free at once.
    let came = stage.consume(&consumer, &stage.deliver(number)).await;
    assert_eq!(came, Ok(Consumed::Done(hat())));
}

#[tokio::test(start_paused = true)]
async fn a_message_that_kills_its_processes_is_given_up() {
    use super::fate::{End, Step};

    let stage = Stage::new();
    let number = stage.broker.publish("hat-17", "2 hats");
    for _ in 0..3 {
        stage.run_and_end(number, Step::MidWork, End::Killed).await;
        stage.clock.advance(LEASE);
    }
    let consumer = stage.builder(&Fate::default()).attempts(3).build().unwrap();
    let came = stage.consume(&consumer, &stage.deliver(number)).await;
    let dead = DeadLetter::Exhausted { attempts: 3, last: None };
    assert_eq!(came, Ok(Consumed::Dead(dead)));
    assert_eq!((stage.turns().len(), stage.effects()), (3, 0));
}

#[tokio::test]
async fn a_failure_that_is_kept_is_a_dead_letter_now_and_later() {
    let stage = Stage::new();
    let consumer = stage.consumer();
    let parcel = stage.deliver(stage.broker.publish("hat-17", "2 hats"));
    let refused = Outcome::failure(*b"no such hat");
    let dead = Ok(Consumed::Dead(DeadLetter::Failed(refused.clone())));
    let came = consumer.consume(&parcel, |_| async { Ok::<_, OutOfHats>(refused) }).await;
    assert_eq!(came, dead);
    assert_eq!(stage.consume(&consumer, &parcel).await, dead);
    assert_eq!(stage.effects(), 0);
}

#[tokio::test]
async fn another_message_with_the_same_key_is_neither_worked_on_nor_acknowledged() {
    let stage = Stage::new();
    let first = stage.broker.publish("hat-17", "2 hats");
    let other = stage.broker.publish("hat-17", "99 hats");
    stage.run_until_acknowledged(first).await;
    let came = stage.consume(&stage.consumer(), &stage.deliver(other)).await;
    assert_eq!(came, Ok(Consumed::Dead(DeadLetter::Mismatch)));
    assert_eq!((stage.effects(), stage.broker.is_acknowledged(other)), (1, false));
}

#[tokio::test]
async fn scopes_are_worked_on_apart() {
    let stage = Stage::new();
    stage.run_until_acknowledged(stage.broker.publish("hat-17", "2 hats")).await;
    let gate = Consumer::gate(Inline(Arc::clone(&stage.store))).build().unwrap();
    let billing = Consumer::builder(gate, "bills").build().unwrap();
    let parcel = stage.deliver(stage.broker.publish("hat-17", "2 hats"));
    let came = billing.consume(&parcel, |_| async { Ok::<_, OutOfHats>(hat()) }).await;
    assert_eq!(came, Ok(Consumed::Done(hat())));
}

#[tokio::test]
async fn a_key_that_is_too_long_is_a_dead_letter() {
    let stage = Stage::new();
    let key = "k".repeat(MAX_KEY_BYTES);
    let parcel = stage.deliver(stage.broker.publish(&key, "2 hats"));
    let came = stage.consume(&stage.consumer(), &parcel).await;
    assert!(matches!(came, Ok(Consumed::Dead(DeadLetter::KeyTooLong(_)))), "{came:?}");
}

#[tokio::test]
async fn a_broker_that_is_away_has_the_message_replayed_when_it_is_back() {
    let stage = Stage::new();
    let consumer = stage.consumer();
    let number = stage.broker.publish("hat-17", "2 hats");
    let parcel = stage.deliver(number);
    stage.broker.set_away(true);
    let came = stage.consume(&consumer, &parcel).await;
    assert_eq!(came, Err(Unanswered { consumed: Consumed::Done(hat()), source: Away }));
    assert_eq!(consumer.stats().unanswered, 1);
    stage.broker.set_away(false);
    stage.broker.hang_up();
    stage.run_until_acknowledged(number).await;
    assert_eq!(stage.effects(), 1);
}

/// Claims that cannot be reached for a number of calls.
struct Faulty {
    store: Arc<MemoryClaims>,
    claims_to_fail: Mutex<u32>,
    outcomes_to_fail: Mutex<u32>,
}

impl Faulty {
    fn consumer(stage: &Stage, claims: u32, outcomes: u32) -> Consumer<Self> {
        let store = Self {
            store: Arc::clone(&stage.store),
            claims_to_fail: Mutex::new(claims),
            outcomes_to_fail: Mutex::new(outcomes),
        };
        Consumer::builder(Consumer::gate(store).build().unwrap(), "hats").build().unwrap()
    }
}

fn fail(left: &Mutex<u32>) -> Result<(), StoreError> {
    let mut left = left.lock();
    if *left == 0 {
        return Ok(());
    }
    *left -= 1;
    Err(StoreError::new(StoreErrorKind::Unavailable, "no route"))
}

impl AsyncClaimStore for Faulty {
    async fn claim(&self, id: &[u8], request: &ClaimRequest) -> Result<Answer, StoreError> {
        fail(&self.claims_to_fail)?;
        self.store.claim(id, request)
    }

    async fn settle(&self, id: &[u8], request: &SettleRequest<'_>) -> Result<Settled, StoreError> {
        if matches!(request.settlement, Settlement::Complete(_)) {
            fail(&self.outcomes_to_fail)?;
        }
        self.store.settle(id, request)
    }

    async fn look(&self, id: &[u8]) -> Result<Option<Status>, StoreError> {
        self.store.look(id)
    }
}

#[tokio::test]
async fn without_the_store_a_message_is_handed_back_before_any_work() {
    let stage = Stage::new();
    let consumer = Faulty::consumer(&stage, 1, 0);
    let number = stage.broker.publish("hat-17", "2 hats");
    let fate = Fate::default();
    let came = consumer.consume(&stage.deliver(number), |turn| stage.work(turn, &fate)).await;
    let Ok(Consumed::Retried { reason: Retry::Unclaimed(_), after: SECOND }) = came else {
        panic!("{came:?}")
    };
    assert_eq!((stage.effects(), consumer.stats().unsettled), (0, 1));
    stage.run_until_acknowledged(number).await;
    assert_eq!(stage.effects(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_for_a_moment_keeps_the_outcome_afterwards() {
    let stage = Stage::new();
    let consumer = Faulty::consumer(&stage, 0, 5);
    let number = stage.broker.publish("hat-17", "2 hats");
    let fate = Fate::default();
    let came = consumer.consume(&stage.deliver(number), |turn| stage.work(turn, &fate)).await;
    assert_eq!(came, Ok(Consumed::Done(hat())));
    assert_eq!(stage.effects(), 1);
}

#[tokio::test(start_paused = true)]
async fn no_message_is_acknowledged_whose_outcome_could_not_be_kept() {
    let stage = Stage::new();
    let consumer = Faulty::consumer(&stage, 0, u32::MAX);
    let number = stage.broker.publish("hat-17", "2 hats");
    let fate = Fate::default();
    let came = consumer.consume(&stage.deliver(number), |turn| stage.work(turn, &fate)).await;
    let Ok(Consumed::Retried { reason: Retry::Unsettled(LeaseError::Store(_)), .. }) = came else {
        panic!("{came:?}")
    };
    assert!(!stage.broker.is_acknowledged(number));
    stage.run_until_acknowledged(number).await;
    // The second handler was told.
    let told: Vec<_> = stage.turns().iter().map(|turn| turn.is_takeover).collect();
    assert_eq!(told, [false, true]);
}

/// The time of the runtime, which goes on by itself when all its tasks wait.
struct Paused(Instant);

impl Clock for Paused {
    fn now(&self) -> Timestamp {
        Timestamp::from_secs(1_000_000).saturating_add(self.0.elapsed())
    }
}

fn on_paused_time() -> (Arc<MemoryClaims>, Gate<Inline<Arc<MemoryClaims>>>) {
    let store = Arc::new(MemoryClaims::with_clock(Arc::new(Paused(Instant::now()))));
    let gate = Consumer::gate(Inline(Arc::clone(&store))).lease(LEASE).build().unwrap();
    (store, gate)
}

#[tokio::test(start_paused = true)]
async fn a_lease_lasts_as_long_as_its_handler() {
    let stage = Stage::new();
    let number = stage.broker.publish("hat-17", "2 hats");
    let (store, gate) = on_paused_time();
    let consumer = Consumer::builder(gate, "hats").build().unwrap();
    let rival = Gate::builder(Inline(store)).build().unwrap();
    let id = Identity::new("", "hats", "hat-17");
    let parcel = stage.deliver(number);
    let came = consumer.consume(&parcel, |_| async {
        for _ in 0..10 {
            sleep(LEASE).await;
            let claim = rival.claim_async(&id, Digest::of(b"2 hats")).await.unwrap();
            assert!(matches!(claim, Claim::InFlight(_)), "{claim:?}");
        }
        Ok::<_, OutOfHats>(hat())
    });
    assert_eq!(came.await, Ok(Consumed::Done(hat())));
    assert_eq!(u64::from(stage.broker.beats(number)), 10 * LEASE.as_secs() / 10 - 1);
}

#[tokio::test(start_paused = true)]
async fn a_handler_is_stopped_once_its_lease_is_lost() {
    let stage = Stage::new();
    let number = stage.broker.publish("hat-17", "2 hats");
    let (_, gate) = on_paused_time();
    let consumer = Consumer::builder(gate.clone(), "hats").build().unwrap();
    let id = Identity::new("", "hats", "hat-17");
    let work_ended = Notify::new();
    let parcel = stage.deliver(number);
    let came = consumer.consume(&parcel, |_| async {
        gate.release_async(&id).await.unwrap();
        sleep(LEASE).await;
        work_ended.notify_one();
        Ok::<_, OutOfHats>(hat())
    });
    let Ok(Consumed::Retried { reason, .. }) = came.await else { panic!("not handed back") };
    assert_eq!(reason, Retry::Unsettled(LeaseError::Stale));
    let ended = tokio::time::timeout(SECOND, work_ended.notified()).await;
    assert!(ended.is_err(), "the work went on to its end");
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let lease = SECOND * 30;
    let gate = Gate::builder(MemoryClaims::new()).lease(lease).build().unwrap();
    let builder = || Consumer::builder(gate.clone(), "hats");
    assert!(builder().build().is_ok());
    assert_eq!(builder().attempts(0).build().unwrap_err(), ConsumerError::NoAttempts);
    let too_late = ConsumerError::RetryTooLate { retry: lease, lease };
    assert_eq!(builder().retry(SECOND, lease).build().unwrap_err(), too_late);
    for heartbeat in [Duration::ZERO, SECOND * 16] {
        let error = ConsumerError::Heartbeat { heartbeat, lease };
        assert_eq!(builder().heartbeat(heartbeat).build().unwrap_err(), error);
    }
}

#[test]
fn why_a_message_is_not_done_can_be_followed_to_its_cause() {
    use std::error::Error;

    let retry = Retry::Failed(Failure::Returned(OutOfHats));
    let failure = retry.source().unwrap();
    assert_eq!(failure.source().unwrap().to_string(), "out of hats");
    let last = Some(Failure::Returned(OutOfHats));
    let dead = DeadLetter::Exhausted { attempts: 4, last };
    assert!(dead.to_string().contains('4') && dead.source().is_some());
    let consumed = Consumed::<OutOfHats>::Done(hat());
    assert!(Unanswered { consumed, source: Away }.source().is_some());
}
