//! Runs a cell: all contenders are filled, then take turns round by round, so
//! that whatever else the machine does meets them alike.

use crate::cell::{Cell, Contender};
use crate::engines::{BATCH, Engine, Kind, Room};
use crate::memory;
use crate::stream::{Known, Stream, key};
use hapax::Verdict;
use indicatif::ProgressBar;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use std::ops::Range;
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// New keys are numbered from here, beyond all that live.
const FIRST_NEW: u64 = 1 << 40;

/// A pass adds at most this share of the live keys before they are forgotten
/// again, so that the number of live keys is the one that is stated.
const PASSES_PER_LIVE: u64 = 8;

/// A rolling window is filled so many times before it is timed: lines settle.
const ROLLING_FILLS: u64 = 3;

/// How long a cell is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    pub(crate) rounds: usize,
    /// Checks of each thread in a round.
    pub(crate) checks: u64,
}

/// One round of one contender.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// Contenders' samples of equal rounds were taken one after the other.
    pub(crate) round: usize,
    pub(crate) checks_per_s: f64,
}

/// What one contender showed.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) contender: Contender,
    pub(crate) samples: Vec<Sample>,
    /// By how many the numbers of uniques were off, in all rounds.
    pub(crate) wrong_verdicts: u64,
    /// After the rounds, where the engine knows.
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) why_not_run: Option<String>,
}

impl Outcome {
    const fn begun(contender: Contender) -> Self {
        let samples = Vec::new();
        Self { contender, samples, wrong_verdicts: 0, memory_bytes: None, why_not_run: None }
    }

    fn not_run(contender: Contender, needed_bytes: u64) -> Self {
        let why = format!("memory: needs about {:.1} GB", needed_bytes as f64 / 1e9);
        Self { why_not_run: Some(why), ..Self::begun(contender) }
    }
}

/// Steps of the progress bar that a cell takes, if all fits in memory at once.
pub(crate) const fn steps(cell: &Cell, effort: Effort) -> u64 {
    (cell.contenders.len() * (effort.rounds + 1)) as u64
}

/// Measures every contender of a cell that fits in the memory there is, all of
/// it if that is not known; outcomes in the contenders' order.
pub(crate) fn measure(
    cell: &Cell,
    effort: Effort,
    available_bytes: Option<u64>,
    progress: &ProgressBar,
) -> Vec<Outcome> {
    match cell.key_bytes {
        8 => Measurement::<8>::new(cell, effort, progress).run(available_bytes),
        16 => Measurement::<16>::new(cell, effort, progress).run(available_bytes),
        36 => Measurement::<36>::new(cell, effort, progress).run(available_bytes),
        other => unreachable!("no cell has keys of {other} bytes"),
    }
}

/// A round's keys: one stream for each thread, pass by pass.
type Passes<const N: usize> = Vec<Vec<Stream<N>>>;

struct Measurement<'a, const N: usize> {
    cell: &'a Cell,
    effort: Effort,
    progress: &'a ProgressBar,
    room: Room,
    random: SmallRng,
    /// The number of the next new key.
    next_new: u64,
    /// Rounds begun.
    rounds: usize,
}

impl<'a, const N: usize> Measurement<'a, N> {
    fn new(cell: &'a Cell, effort: Effort, progress: &'a ProgressBar) -> Self {
        let per_pass = checks_per_pass(cell, effort) * cell.most_threads() as u64;
        let capacity = cell.live_keys + per_pass;
        let room = Room { live_keys: cell.live_keys, capacity, table_bytes: 0 };
        let random = SmallRng::seed_from_u64(0x1d);
        Self { cell, effort, progress, room, random, next_new: FIRST_NEW, rounds: 0 }
    }

    fn run(mut self, available_bytes: Option<u64>) -> Vec<Outcome> {
        let plan = memory::plan(self.cell, self.room.capacity, available_bytes);
        let mut outcomes: Vec<Outcome> = plan
            .left_out
            .iter()
            .map(|(contender, needed)| Outcome::not_run(*contender, *needed))
            .collect();
        if let Some(subject) = plan.subject {
            let mut subject = self.start(subject);
            self.room.table_bytes = subject.engine.memory_bytes().unwrap_or(1 << 20);
            let groups = if plan.groups.is_empty() { vec![Vec::new()] } else { plan.groups };
            for group in groups {
                outcomes.extend(self.run_group(&mut subject, &group));
            }
            outcomes.push(subject.finish());
        }
        let place = |outcome: &Outcome| {
            self.cell.contenders.iter().position(|contender| *contender == outcome.contender)
        };
        outcomes.sort_by_key(place);
        outcomes
    }

    /// Runs all rounds of the subject and some others.
    fn run_group(&mut self, subject: &mut Running<N>, group: &[Contender]) -> Vec<Outcome> {
        let mut others: Vec<_> = group.iter().map(|contender| self.start(*contender)).collect();
        for _ in 0..self.effort.rounds {
            let passes = self.draw();
            let mut all: Vec<&mut Running<N>> =
                std::iter::once(&mut *subject).chain(&mut others).collect();
            // Each goes first in its turn.
            let first = self.rounds % all.len();
            all.rotate_left(first);
            for running in all {
                self.round(running, &passes);
            }
            self.rounds += 1;
        }
        others.into_iter().map(Running::finish).collect()
    }

    /// Makes a contender, fills it, and lets it run a round untimed, so that it
    /// has room for the keys of the others.
    fn start(&mut self, contender: Contender) -> Running<N> {
        self.say(contender, "filling");
        let engine = contender.kind.build(self.room);
        let filled = self.fill(&*engine, contender.kind);
        let next_rolling = contender.kind.rolls().then_some(filled);
        let outcome = Outcome::begun(contender);
        let mut running = Running { engine, next_rolling, outcome };
        let passes = self.draw();
        let _ = self.turn(&mut running, &passes);
        self.progress.inc(1);
        running
    }

    /// Records the live keys; how many numbers were used for that.
    fn fill(&self, engine: &dyn Engine<N>, kind: Kind) -> u64 {
        let live_keys = self.room.live_keys;
        let filled = live_keys * if kind.rolls() { ROLLING_FILLS } else { 1 };
        record(engine, 0..filled);
        let surplus = filled..filled + kind.surplus_keys(live_keys);
        record(engine, surplus.clone());
        forget(engine, surplus);
        filled
    }

    /// One timed round of one contender.
    fn round(&mut self, running: &mut Running<N>, passes: &Passes<N>) {
        self.say(running.outcome.contender, "");
        let checks_per_s = self.turn(running, passes);
        running.outcome.samples.push(Sample { round: self.rounds, checks_per_s });
        self.progress.inc(1);
    }

    /// Runs the passes, or, in a rolling window, others of its own.
    fn turn(&mut self, running: &mut Running<N>, passes: &Passes<N>) -> f64 {
        let Some(first) = running.next_rolling else { return running.run(passes) };
        // The clock moves between batches, and what is about to expire then
        // might already have.
        let live_keys = self.room.live_keys;
        let sure = live_keys - (2 * BATCH as u64).min(live_keys / 2);
        let (passes, next) = self.draw_from(Known::Trailing { live_keys: sure }, first);
        running.next_rolling = Some(next);
        running.run(&passes)
    }

    /// Draws a round's keys, among the fixed ones that live.
    fn draw(&mut self) -> Passes<N> {
        let known = Known::Fixed { live_keys: self.room.live_keys };
        let (passes, next) = self.draw_from(known, self.next_new);
        self.next_new = next;
        passes
    }

    /// Draws a round's keys; also the number of the next new one.
    fn draw_from(&mut self, known: Known, mut next: u64) -> (Passes<N>, u64) {
        let per_pass = checks_per_pass(self.cell, self.effort);
        let mut stream = || {
            let stream = Stream::draw(self.cell.mix, known, next, per_pass, &mut self.random);
            next = stream.new.end;
            stream
        };
        let mut pass = || (0..self.cell.most_threads()).map(|_| stream()).collect();
        let passes = (0..self.effort.checks.div_ceil(per_pass)).map(|_| pass()).collect();
        (passes, next)
    }

    fn say(&self, contender: Contender, doing: &str) {
        self.progress.set_message(format!("{}: {doing} {}", self.cell.name, contender.kind.name()));
    }
}

/// How many keys each thread checks before new ones are forgotten.
fn checks_per_pass(cell: &Cell, effort: Effort) -> u64 {
    let most = cell.live_keys / PASSES_PER_LIVE / cell.most_threads() as u64;
    effort.checks.min(most.max(BATCH as u64))
}

/// A contender that is filled.
struct Running<const N: usize> {
    engine: Box<dyn Engine<N>>,
    /// The number of its next new key, where the window rolls.
    next_rolling: Option<u64>,
    outcome: Outcome,
}

impl<const N: usize> Running<N> {
    /// Checks all passes, forgetting the new keys after each unless the window
    /// rolls; checks a second.
    fn run(&mut self, passes: &Passes<N>) -> f64 {
        let mut elapsed = Duration::ZERO;
        let mut checks = 0;
        for streams in passes {
            let streams = &streams[..self.outcome.contender.threads];
            let timing = check_streams(&*self.engine, streams);
            elapsed += timing.elapsed;
            let made = streams.iter().map(|stream| stream.keys.len()).sum::<usize>();
            self.compare(timing.uniques, streams.iter().map(Stream::news).sum(), made);
            checks += made;
            self.forget(streams);
        }
        checks as f64 / elapsed.as_secs_f64()
    }

    /// A benchmark that answers wrongly is worth nothing.
    fn compare(&mut self, uniques: u64, expected: u64, checks: usize) {
        let kind = self.outcome.contender.kind;
        if kind.answers() {
            let allowed = (checks as f64 * kind.wrong_share()) as u64;
            self.outcome.wrong_verdicts += uniques.abs_diff(expected).saturating_sub(allowed);
        }
    }

    fn forget(&self, streams: &[Stream<N>]) {
        if self.next_rolling.is_some() {
            return;
        }
        for stream in streams {
            forget(&*self.engine, stream.new.clone());
        }
    }

    fn finish(self) -> Outcome {
        Outcome { memory_bytes: self.engine.memory_bytes(), ..self.outcome }
    }
}

/// Records the keys of numbers that are new to an engine.
fn record<const N: usize>(engine: &dyn Engine<N>, numbers: Range<u64>) {
    for keys in batches(numbers) {
        engine.check_all(&keys, &mut [Verdict::Late; BATCH][..keys.len()]);
    }
}

/// Forgets the keys of numbers.
fn forget<const N: usize>(engine: &dyn Engine<N>, numbers: Range<u64>) {
    for keys in batches(numbers) {
        engine.forget_all(&keys);
    }
}

/// The keys of numbers, a batch at a time.
fn batches<const N: usize>(numbers: Range<u64>) -> impl Iterator<Item = Vec<[u8; N]>> {
    let end = numbers.end;
    numbers
        .step_by(BATCH)
        .map(move |first| (first..end.min(first + BATCH as u64)).map(key).collect())
}

/// What checking some streams took.
struct Timing {
    elapsed: Duration,
    uniques: u64,
}

/// Checks each stream in a thread of its own; from when the first begins until
/// the last has ended.
fn check_streams<const N: usize>(engine: &dyn Engine<N>, streams: &[Stream<N>]) -> Timing {
    if let [stream] = streams {
        let start = Instant::now();
        let uniques = check_stream(engine, stream);
        return Timing { elapsed: start.elapsed(), uniques };
    }
    let barrier = Barrier::new(streams.len());
    let run = |stream| {
        barrier.wait();
        let start = Instant::now();
        let uniques = check_stream(engine, stream);
        (start, Instant::now(), uniques)
    };
    let parts: Vec<(Instant, Instant, u64)> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            streams.iter().map(|stream| scope.spawn(move || run(stream))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no engine panics")).collect()
    });
    let start = parts.iter().map(|(start, ..)| *start).min();
    let end = parts.iter().map(|(_, end, _)| *end).max();
    let elapsed = end.zip(start).map_or(Duration::ZERO, |(end, start)| end - start);
    Timing { elapsed, uniques: parts.iter().map(|(.., uniques)| uniques).sum() }
}

/// Checks a stream in batches; how many keys were new.
fn check_stream<const N: usize>(engine: &dyn Engine<N>, stream: &Stream<N>) -> u64 {
    let mut verdicts = [Verdict::Late; BATCH];
    let mut uniques = 0;
    for keys in stream.keys.chunks(BATCH) {
        let verdicts = &mut verdicts[..keys.len()];
        engine.check_all(keys, verdicts);
        uniques += verdicts.iter().filter(|verdict| verdict.is_unique()).count() as u64;
    }
    uniques
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bars::ratio;
    use crate::cell::cells;

    const EFFORT: Effort = Effort { rounds: 3, checks: 5_000 };

    #[test]
    fn every_cell_runs_and_is_answered_rightly() {
        for mut cell in cells(2) {
            cell.live_keys = 8_192;
            let outcomes = measure(&cell, EFFORT, None, &ProgressBar::hidden());
            assert_eq!(outcomes.len(), cell.contenders.len());
            for (outcome, contender) in outcomes.iter().zip(&cell.contenders) {
                let name = format!("{} in {}", contender.kind.name(), cell.name);
                assert_eq!(outcome.contender, *contender);
                assert_eq!(outcome.why_not_run, None, "{name}");
                assert_eq!(outcome.samples.len(), EFFORT.rounds, "{name}");
                assert_eq!(outcome.wrong_verdicts, 0, "{name}");
            }
        }
    }

    #[test]
    fn what_does_not_fit_at_once_runs_in_groups() {
        let mut cell = cells(2).swap_remove(0);
        cell.live_keys = 8_192;
        let available = 9_216 * 200;
        let outcomes = measure(&cell, EFFORT, Some(available), &ProgressBar::hidden());
        let rounds: Vec<_> = outcomes.iter().map(|outcome| outcome.samples.len()).collect();
        assert!(rounds[0] > EFFORT.rounds, "the subject runs with each group: {rounds:?}");
        for outcome in &outcomes[1..] {
            let is_moka = outcome.contender.kind == Kind::MokaAhash;
            assert_eq!(outcome.why_not_run.is_some(), is_moka);
            assert_eq!(outcome.samples.len(), if is_moka { 0 } else { EFFORT.rounds });
            assert_eq!(ratio(&outcomes[0], outcome).is_some(), !is_moka);
        }
    }

    #[test]
    fn batches_cover_a_range_once() {
        let keys: Vec<[u8; 8]> = batches(3..600).flatten().collect();
        assert_eq!(keys, (3..600).map(key).collect::<Vec<_>>());
    }
}
