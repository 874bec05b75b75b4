//! What must hold of every confirmer.

use super::callers::{CALLERS, all_at_once};
use super::case::{
    BUCKETS, Case, NOW, ask_all, expect_all, expect_held, fixed, look_for, seen, sliding,
};
use super::report::{Checked, Unmet, ensure};
use super::{Harness, keys};
use crate::confirm::{Answer, Bucket, Confirmer, Record, Rule, Sighting, StoreError};

/// A check and its name, which is also its namespace.
pub(super) type Named<H> = (&'static str, fn(&Case<'_, H>) -> Checked);

/// Pairs each function with its name.
macro_rules! named {
    ($($check:ident),+ $(,)?) => { [$((stringify!($check), $check as fn(&Case<'_, H>) -> Checked)),+] };
}
pub(super) use named;

/// All of them.
pub(super) fn all<H: Harness>() -> impl Iterator<Item = Named<H>> {
    named![
        first_new_then_seen,
        fixed_window_edges,
        sliding_window_edges,
        earlier_times_match,
        new_after_the_window_moves_the_bucket,
        buckets_of_any_number,
        repeats_in_a_batch,
        answers_in_order,
        same_token_is_new_again,
        a_later_retry_counts_from_then,
        refresh_keeps_the_token,
        one_winner,
        empty_batch,
        empty_key,
        long_keys,
        binary_keys,
        similar_keys,
        thousands_in_a_batch,
        namespaces_apart,
        look_records_nothing,
        look_gives_what_is_held,
        look_answers_in_order,
        forget_lets_in,
        expire_spares_what_matches,
        reopening_keeps_all,
        restart_keeps_all,
        lost_reply,
        cut_off,
    ]
    .into_iter()
}

fn first_new_then_seen<H: Harness>(case: &Case<'_, H>) -> Checked {
    let confirmer = case.open()?;
    for (rule, key) in [(fixed(), b"fixed".as_slice()), (sliding(), b"sliding")] {
        case.expect(&confirmer, rule, (key, NOW), Answer::New, "first sighting")?;
        case.expect(&confirmer, rule, (key, NOW), seen(NOW), "second sighting")?;
        case.expect(&confirmer, rule, (key, NOW), seen(NOW), "third sighting")?;
    }
    Ok(())
}

fn fixed_window_edges<H: Harness>(case: &Case<'_, H>) -> Checked {
    let confirmer = case.open()?;
    let rule = fixed();
    case.expect(&confirmer, rule, (b"k", NOW), Answer::New, "first sighting")?;
    // Twice, in case the first moved the bucket.
    for _ in 0..2 {
        let last = NOW + BUCKETS;
        case.expect(&confirmer, rule, (b"k", last), seen(NOW), "in the last bucket that matches")?;
    }
    let after = NOW + BUCKETS + 1;
    case.expect(&confirmer, rule, (b"k", after), Answer::New, "one bucket after the window")
}

fn sliding_window_edges<H: Harness>(case: &Case<'_, H>) -> Checked {
    let confirmer = case.open()?;
    let rule = sliding();
    case.expect(&confirmer, rule, (b"k", NOW), Answer::New, "first sighting")?;
    let mut at = NOW;
    for _ in 0..3 {
        at += BUCKETS;
        case.expect(&confirmer, rule, (b"k", at), seen(at), "a window after the latest sighting")?;
    }
    let back = at - 3;
    case.expect(&confirmer, rule, (b"k", back), seen(at), "an earlier time, which moves nothing")?;
    let last = at + BUCKETS;
    case.expect(&confirmer, rule, (b"k", last), seen(last), "in the last bucket that matches")?;
    let after = last + BUCKETS + 1;
    case.expect(&confirmer, rule, (b"k", after), Answer::New, "one bucket after the window")
}

fn earlier_times_match<H: Harness>(case: &Case<'_, H>) -> Checked {
    let confirmer = case.open()?;
    for (rule, key) in [(fixed(), b"fixed".as_slice()), (sliding(), b"sliding")] {
        case.expect(&confirmer, rule, (key, NOW), Answer::New, "first sighting")?;
        for before in [1, BUCKETS, BUCKETS + 1, 1_000] {
            let at = NOW - before;
            case.expect(&confirmer, rule, (key, at), seen(NOW), "checked at an earlier time")?;
        }
    }
    Ok(())
}

fn new_after_the_window_moves_the_bucket<H: Harness>(case: &Case<'_, H>) -> Checked {
    let confirmer = case.open()?;
    for (rule, key) in [(fixed(), b"fixed".as_slice()), (sliding(), b"sliding")] {
        let mut at = NOW;
        for _ in 0..3 {
            case.expect(&confirmer, rule, (key, at), Answer::New, "after the window")?;
            case.expect(&confirmer, rule, (key, at), seen(at), "again, in the same bucket")?;
            at += BUCKETS + 1;
        }
    }
    Ok(())
}

fn buckets_of_any_number<H: Harness>(case: &Case<'_, H>) -> Checked {
    let confirmer = case.open()?;
    // The first and last that 1,000 years before and after 1970 have in microseconds.
    for (key, bucket) in [(b"a", 0), (b"b", -1), (b"c", -(1_i64 << 55)), (b"d", 1_i64 << 55)] {
        case.expect(&confirmer, fixed(), (key, bucket), Answer::New, "first sighting")?;
        let last = bucket + BUCKETS;
        case.expect(&confirmer, fixed(), (key, last), seen(bucket), "at the edge")?;
        case.expect(&confirmer, fixed(), (key, last + 1), Answer::New, "after the window")?;
    }
    Ok(())
}

fn repeats_in_a_batch<H: Harness>(case: &Case<'_, H>) -> Checked {
    let confirmer = case.open()?;
    let sightings = case.sightings(&["a", "b", "a", "a", "b", "c"], NOW);
    let expected = [Answer::New, Answer::New, seen(NOW), seen(NOW), seen(NOW), Answer::New];
    for time in ["asked once", "asked again"] {
        let answers = ask_all(&confirmer, fixed(), &sightings)?;
        ensure!(answers == expected, "{time}: {answers:?} instead of {expected:?}");
    }
    let buckets = [NOW, NOW + BUCKETS, NOW + BUCKETS + 1, NOW + BUCKETS + 1];
    let through_time = buckets.map(|bucket| case.sighting(b"d", bucket));
    let expected = [Answer::New, seen(NOW), Answer::New, seen(NOW + BUCKETS + 1)];
    let answers = ask_all(&confirmer, fixed(), &through_time)?;
    ensure!(answers == expected, "one key through time: {answers:?} instead of {expected:?}");
    Ok(())
}

fn answers_in_order<H: Harness>(case: &Case<'_, H>) -> Checked {
    let confirmer = case.open()?;
    let known = ["m", "c", "x"];
    expect_all(&confirmer, fixed(), &case.sightings(&known, NOW), Answer::New, "known keys")?;
    let mixed = ["z", "x", "y", "m", "a", "b", "c"];
    let answers = ask_all(&confirmer, fixed(), &case.sightings(&mixed, NOW + 1))?;
    for (key, answer) in mixed.iter().zip(answers) {
        let expected = if known.contains(key) { seen(NOW) } else { Answer::New };
        ensure!(answer == expected, "key {key}: {answer:?} instead of {expected:?}");
    }
    Ok(())
}

fn same_token_is_new_again<H: Harness>(case: &Case<'_, H>) -> Checked {
    let confirmer = case.open()?;
    for (rule, key) in [(fixed(), b"fixed".as_slice()), (sliding(), b"sliding")] {
        let own = [case.sighting(key, NOW)];
        expect_all(&confirmer, rule, &own, Answer::New, "first sighting")?;
        expect_all(&confirmer, rule, &own, Answer::New, "the same sighting again")?;
        case.expect(&confirmer, rule, (key, NOW), seen(NOW), "another sighting")?;
        expect_all(&confirmer, rule, &own, Answer::New, "the first, after another was seen")?;
    }
    Ok(())
}

fn a_later_retry_counts_from_then<H: Harness>(case: &Case<'_, H>) -> Checked {
    let confirmer = case.open()?;
    let first = case.sighting(b"k", NOW);
    let retry = Sighting { bucket: Bucket::new(NOW + 2), ..first };
    expect_all(&confirmer, fixed(), &[first], Answer::New, "first sighting")?;
    expect_all(&confirmer, fixed(), &[retry], Answer::New, "the same sighting, asked about later")?;
    expect_all(&confirmer, fixed(), &[first], Answer::New, "the same again, as at first")?;
    let edge = NOW + 2 + i64::from(fixed().buckets());
    case.expect(&confirmer, fixed(), (b"k", edge), seen(NOW + 2), "at the later one's edge")
}

fn refresh_keeps_the_token<H: Harness>(case: &Case<'_, H>) -> Checked {
    let confirmer = case.open()?;
    let winner = [case.sighting(b"k", NOW)];
    let refresh = [case.sighting(b"k", NOW + 1)];
    expect_all(&confirmer, sliding(), &winner, Answer::New, "first sighting")?;
    expect_all(&confirmer, sliding(), &refresh, seen(NOW + 1), "the sighting that refreshes")?;
    expect_all(&confirmer, sliding(), &winner, Answer::New, "the first again, though refreshed")?;
    expect_all(&confirmer, sliding(), &refresh, seen(NOW + 1), "the refreshing one again")
}

fn one_winner<H: Harness>(case: &Case<'_, H>) -> Checked {
    let confirmer = case.open()?;
    let keys: Vec<_> = (0..60).map(|number| format!("key {number}")).collect();
    // Keys never seen; keys of a window that is over; and both in a sliding one.
    for (round, rule) in [fixed(), fixed(), sliding(), sliding()].into_iter().enumerate() {
        let bucket = NOW + round as i64 * (BUCKETS + 1);
        let winners = race(case, &confirmer, rule, &keys, bucket)?;
        for (key, wins) in keys.iter().zip(winners) {
            ensure!(wins == 1, "round {round}: {wins} of {CALLERS} callers were first with {key}");
        }
    }
    Ok(())
}

/// How many callers were first with each key.
fn race<H: Harness>(
    case: &Case<'_, H>,
    confirmer: &H::Confirmer,
    rule: Rule,
    keys: &[String],
    bucket: i64,
) -> Checked<Vec<usize>> {
    let (alone, others) = keys.split_at(20);
    let batches: Vec<_> = alone.chunks(1).chain(others.chunks(20)).collect();
    let answers = all_at_once(batches.len(), |_, round| {
        ask_all(confirmer, rule, &case.sightings(batches[round], bucket))
    })?;
    let mut winners = vec![0; keys.len()];
    for answers in answers {
        for (wins, answer) in winners.iter_mut().zip(answers.concat()) {
            *wins += usize::from(answer == Answer::New);
        }
    }
    Ok(winners)
}

fn empty_batch<H: Harness>(case: &Case<'_, H>) -> Checked {
    let confirmer = case.open()?;
    ask_all(&confirmer, fixed(), &[])?;
    Ok(confirmer.forget(&[])?)
}

fn empty_key<H: Harness>(case: &Case<'_, H>) -> Checked {
    new_then_seen(case, &[b""])
}

fn long_keys<H: Harness>(case: &Case<'_, H>) -> Checked {
    new_then_seen(case, &keys::long())
}

fn binary_keys<H: Harness>(case: &Case<'_, H>) -> Checked {
    new_then_seen(case, &keys::binary())
}

fn similar_keys<H: Harness>(case: &Case<'_, H>) -> Checked {
    new_then_seen(case, &keys::SIMILAR)
}

fn thousands_in_a_batch<H: Harness>(case: &Case<'_, H>) -> Checked {
    let keys: Vec<_> = (0..10_000).map(|number| format!("key {number}")).collect();
    new_then_seen(case, &keys)
}

/// In one batch each key is new, in the next each is seen; a look between finds
/// each.
fn new_then_seen<H: Harness, K: AsRef<[u8]>>(case: &Case<'_, H>, keys: &[K]) -> Checked {
    let confirmer = case.open()?;
    let first = case.sightings(keys, NOW);
    expect_all(&confirmer, fixed(), &first, Answer::New, "first sightings")?;
    let all: Vec<_> = keys.iter().map(AsRef::as_ref).collect();
    for (sighting, held) in first.iter().zip(look_for(&confirmer, &all)?) {
        let expected = Some(Record::from(sighting));
        ensure!(held == expected, "looked for: {held:?} instead of {expected:?}");
    }
    expect_all(&confirmer, fixed(), &case.sightings(keys, NOW), seen(NOW), "second sightings")
}

fn namespaces_apart<H: Harness>(case: &Case<'_, H>) -> Checked {
    // Joined with their keys, the names would be equal.
    let (one, other) = (case.harness.open("namespace")?, case.harness.open("namespacea")?);
    case.expect(&one, fixed(), (b"ab", NOW), Answer::New, "in the first namespace")?;
    case.expect(&other, fixed(), (b"b", NOW), Answer::New, "in the second namespace")?;
    case.expect(&other, fixed(), (b"ab", NOW), Answer::New, "in the second namespace")?;
    other.forget(&[b"ab"])?;
    case.expect(&one, fixed(), (b"ab", NOW), seen(NOW), "forgotten in the second namespace alone")
}

fn look_records_nothing<H: Harness>(case: &Case<'_, H>) -> Checked {
    let confirmer = case.open()?;
    for (rule, key) in [(fixed(), b"fixed".as_slice()), (sliding(), b"sliding")] {
        for when in ["before its first sighting", "once more"] {
            expect_held(&confirmer, key, None, when)?;
        }
        case.expect(&confirmer, rule, (key, NOW), Answer::New, "the first sighting, after looks")?;
    }
    Ok(())
}

fn look_gives_what_is_held<H: Harness>(case: &Case<'_, H>) -> Checked {
    let confirmer = case.open()?;
    for (rule, key) in [(fixed(), b"fixed".as_slice()), (sliding(), b"sliding")] {
        let first = case.sighting(key, NOW);
        expect_all(&confirmer, rule, &[first], Answer::New, "first sighting")?;
        expect_held(&confirmer, key, Some(Record::from(&first)), "after its first sighting")?;

        let bucket = Bucket::new(if rule.is_sliding() { NOW + 2 } else { NOW });
        case.expect(&confirmer, rule, (key, NOW + 2), Answer::Seen(bucket), "second sighting")?;
        let held = Record { bucket, token: first.token };
        expect_held(&confirmer, key, Some(held), "after its second sighting")?;

        let later = case.sighting(key, bucket.number() + BUCKETS + 1);
        expect_all(&confirmer, rule, &[later], Answer::New, "after the window")?;
        expect_held(&confirmer, key, Some(Record::from(&later)), "after its window and another")?;

        confirmer.forget(&[key])?;
        expect_held(&confirmer, key, None, "after it was forgotten")?;
    }
    Ok(())
}

fn look_answers_in_order<H: Harness>(case: &Case<'_, H>) -> Checked {
    let confirmer = case.open()?;
    let known = case.sightings(&["m", "x"], NOW);
    expect_all(&confirmer, fixed(), &known, Answer::New, "known keys")?;
    let [m, x] = [0, 1].map(|place| Some(Record::from(&known[place])));
    let held = look_for(&confirmer, &[b"z", b"x", b"y", b"m", b"x", b"a"])?;
    let expected = [None, x, None, m, x, None];
    ensure!(held == expected, "looked for z, x, y, m, x, a: {held:?} instead of {expected:?}");
    look_for(&confirmer, &[])?;
    Ok(())
}

fn forget_lets_in<H: Harness>(case: &Case<'_, H>) -> Checked {
    let confirmer = case.open()?;
    let sightings = case.sightings(&["a", "b", "c"], NOW);
    expect_all(&confirmer, fixed(), &sightings, Answer::New, "first sightings")?;
    confirmer.forget(&[b"a", b"c", b"never seen"])?;
    case.expect(&confirmer, fixed(), (b"b", NOW + 1), seen(NOW), "not forgotten")?;
    for key in [b"a", b"c"] {
        case.expect(&confirmer, fixed(), (key, NOW + 1), Answer::New, "forgotten")?;
        case.expect(&confirmer, fixed(), (key, NOW + 1), seen(NOW + 1), "after that")?;
    }
    Ok(())
}

fn expire_spares_what_matches<H: Harness>(case: &Case<'_, H>) -> Checked {
    let confirmer = case.open()?;
    let keys: Vec<_> = (0..=BUCKETS + 2).map(|age| (age, format!("aged {age}"))).collect();
    for (age, key) in &keys {
        case.expect(&confirmer, fixed(), (key.as_bytes(), NOW - age), Answer::New, "first")?;
    }
    confirmer.expire(Bucket::new(NOW - BUCKETS))?;
    for (age, key) in &keys {
        let expected = if *age <= BUCKETS { seen(NOW - age) } else { Answer::New };
        let when = format!("a key of {age} buckets ago, after expiry");
        case.expect(&confirmer, fixed(), (key.as_bytes(), NOW), expected, &when)?;
    }
    Ok(())
}

fn reopening_keeps_all<H: Harness>(case: &Case<'_, H>) -> Checked {
    kept_over(case, || Ok(()))
}

fn restart_keeps_all<H: Harness>(case: &Case<'_, H>) -> Checked {
    kept_over(case, || able(case.harness.trouble().restart()))
}

/// Ends the check where the harness has no means for it.
pub(super) fn able(can: bool) -> Checked {
    if can { Ok(()) } else { Err(Unmet::NotRun) }
}

/// Records keys, closes the confirmer, and finds them again after `interval`.
fn kept_over<H: Harness>(case: &Case<'_, H>, interval: impl Fn() -> Checked) -> Checked {
    let keys: Vec<_> = (0..1_000).map(|number| format!("key {number}")).collect();
    let sightings = case.sightings(&keys, NOW);
    {
        let confirmer = case.open()?;
        expect_all(&confirmer, sliding(), &sightings, Answer::New, "first sightings")?;
        confirmer.forget(&[b"key 17"])?;
        case.expect(&confirmer, sliding(), (b"key 18", NOW + 1), seen(NOW + 1), "refreshed")?;
    }
    interval()?;
    let confirmer = case.open()?;
    case.expect(&confirmer, sliding(), (b"key 17", NOW), Answer::New, "forgotten before")?;
    case.expect(&confirmer, sliding(), (b"key 18", NOW), seen(NOW + 1), "refreshed before")?;
    let others: Vec<Sighting<'_>> = [&sightings[..17], &sightings[19..]].concat();
    expect_all(&confirmer, sliding(), &others, Answer::New, "the same sightings again")?;
    let again: Vec<_> = others.iter().map(|sighting| case.sighting(sighting.key, NOW)).collect();
    expect_all(&confirmer, sliding(), &again, seen(NOW), "other sightings")
}

fn lost_reply<H: Harness>(case: &Case<'_, H>) -> Checked {
    let confirmer = case.open()?;
    let sightings = case.sightings(&["a", "b"], NOW);
    able(case.harness.trouble().lose_next_reply())?;
    match confirmer.confirm(&sightings, fixed()) {
        Ok(answers) => ensure!(false, "the reply was lost, yet there is one: {answers:?}"),
        Err(error) => ensure!(
            error.is_retryable() && error.may_have_recorded(),
            "a lost reply is {:?}, which says that the keys were not recorded or not to ask again",
            error.kind()
        ),
    }
    expect_all(&confirmer, fixed(), &sightings, Answer::New, "asked again after a lost reply")?;
    let others = case.sightings(&["a", "b"], NOW);
    expect_all(&confirmer, fixed(), &others, seen(NOW), "other sightings after that")
}

fn cut_off<H: Harness>(case: &Case<'_, H>) -> Checked {
    let confirmer = case.open()?;
    case.expect(&confirmer, fixed(), (b"before", NOW), Answer::New, "before the cut")?;
    let sightings = case.sightings(&["a", "b"], NOW);
    able(case.harness.trouble().cut_off())?;
    let answers = confirmer.confirm(&sightings, fixed());
    let held = confirmer.look(&[b"before"]);
    case.harness.trouble().reconnect();
    fails_for_now("confirm", answers)?;
    fails_for_now("look", held)?;
    expect_all(&confirmer, fixed(), &sightings, Answer::New, "asked again when reconnected")?;
    case.expect(&confirmer, fixed(), (b"before", NOW), seen(NOW), "recorded before the cut")
}

pub(super) fn fails_for_now<T: std::fmt::Debug>(
    call: &str,
    result: Result<T, StoreError>,
) -> Checked {
    match result {
        Ok(reply) => ensure!(false, "cut off, {call} gave {reply:?} nevertheless"),
        Err(error) => ensure!(error.is_retryable(), "cut off, {call}: {:?}", error.kind()),
    }
    Ok(())
}
