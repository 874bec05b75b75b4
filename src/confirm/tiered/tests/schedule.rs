//! Random schedules: confirmations and forgets whose steps are mixed, given up
//! half-way, or arrive late.

use super::{BUCKETS, NOW, SPAN, Stepped, run, seen, sighting, stepped, take_step};
use crate::confirm::tiered::BARRIER;
use crate::confirm::{Answer, AsyncConfirmer, Bucket, Record, Rule, Token};
use crate::time::Window;
use proptest::prelude::*;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::Ordering;

const KEYS: [&[u8]; 2] = [b"a", b"b"];

#[derive(Clone, Debug)]
enum Move {
    /// Somebody sees a key, so many buckets ago.
    See(usize, i64),
    Forget(usize),
    /// One of those under way takes a step.
    Step(usize),
    /// One of them is given up.
    GiveUp(usize),
    /// What was given up arrives.
    Arrive,
    LoseReply,
    Advance(i64),
    Expire,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        4 => (0..2_usize, 0..3_i64).prop_map(|(key, ago)| Move::See(key, ago)),
        2 => (0..2_usize).prop_map(Move::Forget),
        24 => any::<usize>().prop_map(Move::Step),
        2 => any::<usize>().prop_map(Move::GiveUp),
        1 => Just(Move::Arrive),
        1 => Just(Move::LoseReply),
        1 => (1..12_i64).prop_map(Move::Advance),
        1 => Just(Move::Expire),
    ];
    prop::collection::vec(one, 1..200)
}

type Task = Pin<Box<dyn Future<Output = ()>>>;

struct World {
    tiered: Rc<Stepped>,
    rule: Rule,
    now: i64,
    /// Sightings under way, with their buckets, and forgets, with none.
    tasks: Vec<(Task, Option<i64>)>,
    /// Key, bucket and token of each sighting.
    sightings: Vec<(&'static [u8], i64, u64)>,
}

impl World {
    fn new(rule: Rule) -> Self {
        let tiered = Rc::new(stepped());
        Self { tiered, rule, now: NOW, tasks: Vec::new(), sightings: Vec::new() }
    }

    fn take(&mut self, step: &Move) {
        match *step {
            Move::See(key, ago) => {
                let (key, at, token) = (KEYS[key], self.now - ago, self.sightings.len() as u64 + 1);
                self.sightings.push((key, at, token));
                let (tiered, rule) = (Rc::clone(&self.tiered), self.rule);
                let task = async move {
                    // Also the error of a lost reply.
                    let _ = tiered.confirm(&[sighting(key, at, token)], rule).await;
                };
                self.tasks.push((Box::pin(task), Some(at)));
            }
            Move::Forget(key) => {
                // Whoever forgets a key has asked lately: a barrier of somebody who
                // slept for a window stops no sighting that comes at the same time.
                self.see(b"other", self.now, 0);
                let tiered = Rc::clone(&self.tiered);
                let task = async move { tiered.forget(&[KEYS[key]]).await.unwrap() };
                self.tasks.push((Box::pin(task), None));
            }
            Move::Step(task) if !self.tasks.is_empty() => {
                let task = task % self.tasks.len();
                if take_step(self.tasks[task].0.as_mut()).is_ready() {
                    drop(self.tasks.swap_remove(task));
                }
            }
            Move::GiveUp(task) if !self.tasks.is_empty() => {
                drop(self.tasks.swap_remove(task % self.tasks.len()));
            }
            Move::Step(_) | Move::GiveUp(_) => {}
            Move::Arrive => self.arrive(),
            Move::LoseReply => self.lose_reply(true),
            // Nor does one that takes a window long.
            Move::Advance(_) if self.tasks.iter().any(|(_, at)| at.is_none()) => {}
            Move::Advance(by) => self.now += by,
            Move::Expire => {
                let before = Bucket::new(self.oldest() - BUCKETS);
                run(self.tiered.expire(before)).unwrap();
            }
        }
    }

    /// No sighting under way, or still to come, is in an earlier bucket.
    fn oldest(&self) -> i64 {
        let under_way = self.tasks.iter().filter_map(|(_, at)| *at);
        let late = [self.tiered.cache(), self.tiered.authority()].map(|store| store.oldest_late());
        under_way.chain(late.into_iter().flatten()).fold(self.now - 3, i64::min)
    }

    fn arrive(&self) {
        self.tiered.cache().arrive();
        self.tiered.authority().arrive();
    }

    fn lose_reply(&self, is_lost: bool) {
        self.tiered.authority().store.loses_reply.store(is_lost, Ordering::SeqCst);
    }

    /// What the cache would settle the authority would, and in the same name.
    fn assert_sound(&self) {
        for key in KEYS {
            let cached = self.tiered.cache().store.held(key);
            let Some(cached) = cached.filter(|record| record.token != BARRIER) else { continue };
            if !self.rule.matches(cached.bucket, Bucket::new(self.now - 3)) {
                continue;
            }
            let held = self.tiered.authority().store.held(key);
            let is_behind = |held: Record| {
                held.token == cached.token && held.bucket >= cached.bucket
                    || !self.rule.matches(cached.bucket, held.bucket)
            };
            assert!(held.is_some_and(is_behind), "{key:?}: {cached:?} before {held:?}");
        }
    }

    fn finish(&mut self) {
        for (task, _) in std::mem::take(&mut self.tasks) {
            run(task);
            self.assert_sound();
        }
    }

    fn see(&self, key: &[u8], at: i64, token: u64) -> Answer {
        self.lose_reply(false);
        run(self.tiered.confirm(&[sighting(key, at, token)], self.rule)).unwrap()[0]
    }

    /// Whoever won a key and asks again is not its duplicate.
    fn assert_winners_are_new(&self) {
        for (key, at, token) in &self.sightings {
            let held = self.tiered.authority().store.held(key);
            if held.is_some_and(|held| held.token == Token::new(*token)) {
                assert_eq!(self.see(key, *at, *token), Answer::New, "{key:?} of {token}");
            }
        }
    }

    /// A key is forgotten for good, whatever arrives after that.
    fn assert_forgotten_keys_are_new(&self) {
        for key in KEYS {
            run(self.tiered.forget(&[key])).unwrap();
            self.tiered.cache().arrive();
            assert_eq!(self.see(key, self.now, u64::MAX - 1), Answer::New);
            let twice = self.see(key, self.now, u64::MAX);
            assert_eq!(twice, seen(self.now));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn the_cache_never_knows_more_than_the_authority(moves in moves(), slides in any::<bool>()) {
        let window = if slides { Window::sliding(SPAN) } else { Window::fixed(SPAN) };
        let mut world = World::new(Rule::of(&window.buckets(BUCKETS as u32)));
        for step in &moves {
            world.take(step);
            world.assert_sound();
        }
        world.finish();
        world.assert_winners_are_new();
        world.assert_forgotten_keys_are_new();
    }
}
