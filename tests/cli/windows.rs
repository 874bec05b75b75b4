//! Event time: windows, late records, and records from the future.

use crate::model::{self, Sighting, Window};
use crate::tool::{Folder, Outcome, dedup};
use proptest::prelude::*;

/// 2023-11-14T22:13:20Z.
const START_MICROS: i64 = 1_700_000_000_000_000;

/// Keys and times that wander forth and back.
fn events() -> impl Strategy<Value = Vec<(u8, i64)>> {
    let step = prop_oneof![0..20_000_i64, -60_000..60_000_i64, Just(250_000_i64)];
    prop::collection::vec((0..8_u8, step), 0..200).prop_map(|steps| {
        let mut time = START_MICROS;
        let wander = steps.into_iter().map(|(key, step)| {
            time += step;
            (key, time)
        });
        wander.collect()
    })
}

fn window() -> impl Strategy<Value = Window> {
    (100..200_000_i64, 1..20_i64, 0..=100_i64, any::<bool>()).prop_map(
        |(span, buckets, percent, is_sliding)| Window {
            span,
            buckets,
            lateness: span * percent / 100,
            is_sliding,
        },
    )
}

fn flags(window: Window) -> Vec<String> {
    let Window { span, buckets, lateness, is_sliding } = window;
    let mut flags: Vec<String> = ["--format=jsonl", "-k=.k", "-t=.t"].map(String::from).into();
    flags.push(format!("--window={span}us"));
    flags.push(format!("--buckets={buckets}"));
    flags.push(format!("--lateness={lateness}us"));
    flags.extend(is_sliding.then(|| "--sliding".to_owned()));
    flags
}

/// Each event as a line; the last member makes it one of a kind.
fn written(events: &[(u8, i64)]) -> Vec<String> {
    let line = |(number, (key, time)): (usize, &(u8, i64))| {
        let (seconds, micros) = (time / 1_000_000, time % 1_000_000);
        format!("{{\"k\":{key},\"t\":{seconds}.{micros:06},\"n\":{number}}}\n")
    };
    events.iter().enumerate().map(line).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn verdicts_are_those_of_the_plain_model(events in events(), window in window()) {
        let lines = written(&events);
        let verdicts = model::sightings(&events, window);
        let those = |wanted: &[Sighting]| -> String {
            let pairs = lines.iter().zip(&verdicts);
            pairs.filter(|(_, verdict)| wanted.contains(verdict)).map(|(line, _)| line.as_str()).collect()
        };
        let run = |more: &[&str]| {
            let more = more.iter().map(ToString::to_string);
            dedup(flags(window).into_iter().chain(more), lines.concat()).text()
        };
        prop_assert_eq!(run(&[]), those(&[Sighting::First, Sighting::Late]));
        prop_assert_eq!(run(&["--on-late=drop"]), those(&[Sighting::First]));
        prop_assert_eq!(run(&["-D"]), those(&[Sighting::Again]));
        prop_assert_eq!(run(&["-d"]), seconds(&events, &lines, &verdicts));
        prop_assert_eq!(run(&["-c"]), counted(&events, &lines, &verdicts));
    }
}

/// The second sighting of each key after each of its first ones.
fn seconds(events: &[(u8, i64)], lines: &[String], verdicts: &[Sighting]) -> String {
    let mut output = String::new();
    let mut is_due = [false; 8];
    for ((line, (key, _)), verdict) in lines.iter().zip(events).zip(verdicts) {
        let is_due = &mut is_due[usize::from(*key)];
        match verdict {
            Sighting::First => *is_due = true,
            Sighting::Again if std::mem::take(is_due) => output += line,
            _ => {}
        }
    }
    output
}

/// Each first sighting with those up to the next first one of its key.
fn counted(events: &[(u8, i64)], lines: &[String], verdicts: &[Sighting]) -> String {
    let mut entries: Vec<(u64, &str)> = Vec::new();
    let mut latest = [None; 8];
    for ((line, (key, _)), verdict) in lines.iter().zip(events).zip(verdicts) {
        let latest = &mut latest[usize::from(*key)];
        match verdict {
            Sighting::First => *latest = Some(entries.len()),
            Sighting::Late => {}
            Sighting::Again => {
                let number: usize = latest.expect("a first sighting came before");
                entries[number].0 += 1;
                continue;
            }
        }
        entries.push((1, line));
    }
    let lines = entries.into_iter().map(|(count, line)| format!("{count:>7} {line}"));
    lines.collect::<Vec<_>>().concat()
}

/// Runs over a csv file of keys and times.
fn csv(flags: &[&str], rows: &str) -> Outcome {
    let flags = [&["--format=csv", "-n", "-k1", "-t2"], flags].concat();
    dedup(flags, rows)
}

#[test]
fn times_are_read_as_told() {
    let cases = [
        ("a,1700000000\na,1700000599\na,1700000700\n", None),
        ("a,1700000000000\na,1700000599999\na,1700000700000\n", None),
        ("a,2023-11-14T22:13:20Z\na,2023-11-15T00:23:19+02:00\na,2023-11-14T22:25:00Z\n", None),
        ("a,0\na,599999\na,700000\n", Some("millis")),
        ("a,1700000000.0\na,1700000599.9\na,1700000700\n", Some("seconds")),
        ("a,14.11.23 22:13:20\na,14.11.23 22:23:19\na,14.11.23 22:25:00\n", Some("%d.%m.%y %T")),
        (
            "a,20231114 +0100 2313\na,20231114 +0000 2222\na,20231114 +0000 2225\n",
            Some("%Y%m%d %z %H%M"),
        ),
    ];
    for (rows, format) in cases {
        let format = format.map(|format| format!("--time-format={format}"));
        let mut flags = vec!["--window=10m", "--buckets=120"];
        flags.extend(format.as_deref());
        let lines: Vec<&str> = rows.split_inclusive('\n').collect();
        assert_eq!(csv(&flags, rows).text(), [lines[0], lines[2]].concat(), "{format:?}");
    }
}

#[test]
fn json_times_may_be_text_or_numbers() {
    let rows = "{\"k\":1,\"t\":\"2023-11-14T22:13:20Z\"}\n{\"k\":1,\"t\":1700000001}\n\
                {\"k\":1,\"t\":\"1700000002\"}\n";
    let flags = ["--format=jsonl", "-k=k", "-t=t", "--window=10m"];
    assert_eq!(dedup(flags, rows).text(), rows.split_inclusive('\n').next().expect("a line"));
}

#[test]
fn a_time_that_is_none_follows_on_error() {
    let rows = "a,1700000000\nb,soon\na,1700000001\nc\nd,1700000002\n";
    let fail = csv(&["--window=10m"], rows);
    assert_eq!(
        fail.failure(),
        "standard input: line 2: `soon` is no time (expected RFC 3339 or epoch seconds or \
         milliseconds): give --time-format, repair it, or give --on-error pass or drop"
    );
    assert_eq!(fail.output, b"a,1700000000\n");
    let long = csv(&["--window=10m"], &format!("a,{}\n", "x\u{7}".repeat(100_000)));
    assert!(long.failure().len() < 800 && !long.failure().contains('\u{7}'));
    let pass = csv(&["--window=10m", "--on-error=pass"], rows).text();
    assert_eq!(pass, "a,1700000000\nb,soon\nc\nd,1700000002\n");
    let drop = csv(&["--window=10m", "--on-error=drop"], rows).text();
    assert_eq!(drop, "a,1700000000\nd,1700000002\n");
}

#[test]
fn a_time_too_far_ahead_moves_nothing() {
    let rows = "a,2023-11-14T00:00:00Z\nb,2999-01-01T00:00:00Z\na,2023-11-14T00:00:01Z\n\
                c,2023-11-14T02:00:00Z\na,2023-11-14T00:00:02Z\n";
    let fail = csv(&["--window=10m"], rows);
    assert!(fail.failure().starts_with("standard input: line 2: its time is 8547840h beyond"));
    assert!(fail.failure().ends_with("raise --max-ahead, or give --on-error pass or drop"));
    assert_eq!(fail.output, b"a,2023-11-14T00:00:00Z\n");
    let drop = csv(&["--window=10m", "--on-error=drop", "--stats=json"], rows);
    assert_eq!(
        drop.output,
        b"a,2023-11-14T00:00:00Z\nc,2023-11-14T02:00:00Z\na,2023-11-14T00:00:02Z\n"
    );
    assert!(drop.errors.contains("\"errors\":1,") && drop.errors.contains("\"late\":1,"));
    let strict = csv(&["--window=10m", "--on-error=drop", "--max-ahead=1h"], rows).text();
    assert_eq!(strict, "a,2023-11-14T00:00:00Z\n");
    let lax = csv(&["--window=10m", "--max-ahead=99999999m", "--on-late=drop"], rows);
    assert!(lax.failure().starts_with("standard input: line 2: "));
    let lax = csv(&["--window=10m", "--max-ahead=999999999m", "--on-late=drop"], rows).text();
    assert_eq!(lax, "a,2023-11-14T00:00:00Z\nb,2999-01-01T00:00:00Z\n");
}

#[test]
fn lateness_is_the_window_unless_told() {
    let rows = "a,1700006400\nb,1700005900\nb,1700005901\nc,1700005000\nc,1700005000\n";
    assert_eq!(
        csv(&["--window=10m"], rows).text(),
        "a,1700006400\nb,1700005900\nc,1700005000\nc,1700005000\n"
    );
    assert_eq!(csv(&["--window=10m", "--lateness=0s"], rows).text(), rows);
}

#[test]
fn arrival_time_counts_for_pipes_alone() {
    assert_eq!(dedup(["--window=1d", "--sliding"], "a\nb\na\n").text(), "a\nb\n");
    let folder = Folder::new();
    let file = folder.file("x.txt", "a\n");
    let outcome = dedup(["--window=1d".into(), file.clone()], "");
    assert_eq!(
        outcome.failure(),
        format!(
            "{}: a window needs each record's time, and a file arrives all at once: name the time \
             field with -t, or pipe the file in if arrival time is meant",
            file.display()
        )
    );
    let mut redirected = crate::tool::command(["--window=1d"]);
    redirected.stdin(std::fs::File::open(file).expect("it was written"));
    let outcome = crate::tool::wait(redirected.spawn().expect("the tool starts"));
    assert!(outcome.failure().starts_with("standard input: a window needs"));
}

#[test]
fn server_logs_are_csv_with_spaces() {
    let log = "10.0.0.1 - - [17/May/2015:10:05:03 +0000] \"GET /a HTTP/1.1\" 200 7 \"-\" \"x y\"\n\
               10.0.0.1 - - [17/May/2015:10:05:43 +0000] \"GET /b HTTP/1.1\" 200 7 \"-\" \"x y\"\n\
               10.0.0.1 - - [17/May/2015:10:09:00 +0000] \"GET /a HTTP/1.1\" 304 0 \"-\" \"x y\"\n\
               10.0.0.2 - - [17/May/2015:10:09:01 +0000] \"GET /a HTTP/1.1\" 200 7 \"-\" \"x y\"\n\
               10.0.0.1 - - [17/May/2015:10:18:00 +0000] \"GET /a HTTP/1.1\" 200 7 \"-\" \"x y\"\n";
    let flags = [
        "--format",
        "csv",
        "--delimiter",
        " ",
        "-n",
        "-k",
        "1",
        "-k",
        "6",
        "-t",
        "4",
        "--time-format",
        "[%d/%b/%Y:%H:%M:%S",
        "--window",
        "10m",
        "--lateness",
        "60s",
    ];
    let lines: Vec<&str> = log.split_inclusive('\n').collect();
    assert_eq!(dedup(flags, log).text(), [lines[0], lines[1], lines[3], lines[4]].concat());
}
