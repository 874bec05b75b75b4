//! The cap on memory.

use crate::tool::dedup;

/// Different lines, far more than the cap holds, and the first one again.
fn flood() -> String {
    let lines = (0..400_000).map(|n| format!("a line of some length, number {n:>40}\n"));
    lines.chain(["the end\n".to_owned(), "the end\n".to_owned()]).collect()
}

#[test]
fn at_the_cap_a_new_key_is_an_error_that_names_its_line() {
    let input = flood();
    let outcome = dedup(["--memory=8M"], &input);
    let message = outcome.failure();
    assert!(message.starts_with("standard input: line "), "{message}");
    assert!(message.ends_with(
        "the memory limit is reached and the key is new: raise --memory, shorten --window, or give \
         --on-full spill or evict-oldest"
    ));
    let written = String::from_utf8(outcome.output.clone()).expect("text");
    assert!(input.starts_with(&written) && written.ends_with('\n'));
    let line: usize = message
        .split(' ')
        .nth(3)
        .expect("a number")
        .trim_end_matches(':')
        .parse()
        .expect("a number");
    assert_eq!(written.lines().count() + 1, line);
}

#[test]
fn on_error_does_not_excuse_a_full_memory() {
    let outcome = dedup(["--memory=8M", "--on-error=drop"], flood());
    assert!(outcome.failure().contains("is reached and the key is new"));
}

#[test]
fn with_eviction_all_new_keys_pass_and_recent_ones_are_known() {
    let input = flood();
    let outcome = dedup(["--memory=8M", "--on-full=evict-oldest", "--stats=json"], &input);
    assert_eq!(outcome.status, 0, "{}", outcome.errors);
    let expected = input.strip_suffix("the end\n").expect("it ends so");
    assert!(outcome.output == expected.as_bytes());
    assert!(!outcome.errors.contains("\"evicted\":0,"), "{}", outcome.errors);
}

#[test]
fn a_cap_that_cannot_work_says_what_would() {
    let message = |flags: &[&str]| dedup(flags, "a\n").failure().to_owned();
    assert_eq!(message(&["--memory=1K"]), "--memory is too small: give at least 4M");
    assert_eq!(message(&["-d", "--memory=7M"]), "--memory is too small: give at least 8M");
    assert_eq!(dedup(["--memory=4M"], "a\na\n").text(), "a\n");
    assert_eq!(dedup(["-d", "--memory=8M"], "a\na\n").text(), "a\n");
}

#[test]
fn repeated_keys_share_the_cap() {
    let input = "a\na\nb\na\n";
    assert_eq!(dedup(["-d", "--memory=64M"], input).text(), "a\n");
}

#[test]
fn a_filter_passes_nearly_all_new_lines_in_bounded_memory() {
    let input = flood();
    let outcome = dedup(["--mode=filter=1e-4", "--memory=8M", "--stats=json"], &input);
    assert_eq!(outcome.status, 0, "{}", outcome.errors);
    let passed = String::from_utf8(outcome.output.clone()).expect("text").lines().count();
    assert!((400_001 - 120..=400_001).contains(&passed), "{passed} of 400,001 different lines");
    assert_eq!(dedup(["--mode=filter=1e-4"], "a\nb\na\nb\n").text(), "a\nb\n");
    assert_eq!(dedup(["--mode=filter=1e-4", "-d"], "a\nb\na\na\n").text(), "a\n");
}

#[test]
fn a_filter_that_costs_too_much_is_refused() {
    let outcome = dedup(["--mode=filter=1e-9", "--window=1m", "--buckets=120"], "a\n");
    assert!(outcome.failure().contains("use fewer buckets"), "{}", outcome.errors);
}
