//! JSON lines: paths, and which values are one key.

use crate::tool::{Folder, dedup};

/// Which lines of `input` pass with `flags`, by number from 1.
#[track_caller]
fn passing(flags: &[&str], input: &[&str]) -> Vec<usize> {
    let flags = [&["--format", "jsonl"], flags].concat();
    let output = dedup(flags, input.join("\n")).text();
    let mut kept = output.lines().peekable();
    let numbers = (1..=input.len()).filter(|n| kept.next_if_eq(&input[n - 1]).is_some()).collect();
    assert_eq!(kept.next(), None, "lines came out that did not go in, or not in order");
    numbers
}

#[test]
fn paths_reach_into_members_and_items() {
    let input = [
        r#"{"a": {"b": [1, 2]}, "c d": "x", "n": 1}"#,
        r#"{"n": 2, "c d": "y", "a": {"b": [1, 3]}}"#,
        r#"{"n": 3, "c d": "x", "a": {"b": [4, 2]}}"#,
    ];
    assert_eq!(passing(&["-k", ".a.b[0]"], &input), [1, 3]);
    assert_eq!(passing(&["-k", "a.b[1]"], &input), [1, 2]);
    assert_eq!(passing(&["-k", r#".["c d"]"#], &input), [1, 2]);
    assert_eq!(passing(&["-k", r#".["c d"]"#, "-k", ".a.b[0]"], &input), [1, 2, 3]);
}

#[test]
fn numbers_compare_as_written() {
    let written = [
        "1",
        "1.0",
        "1e0",
        "100",
        "1e2",
        "1",
        "12345678901234567890123",
        "-0",
        "0",
        "12345678901234567890124",
        "1.0",
        "12345678901234567890123",
    ];
    let input: Vec<String> = written.iter().map(|n| format!("{{\"k\":{n}}}")).collect();
    let input: Vec<&str> = input.iter().map(String::as_str).collect();
    assert_eq!(passing(&["-k", ".k"], &input), [1, 2, 3, 4, 5, 7, 8, 9, 10]);
}

#[test]
fn strings_compare_by_their_value_and_not_with_other_kinds() {
    let input = [
        r#"{"k":"A"}"#,
        r#"{"k":"\u0041"}"#,
        r#"{"\u006b":"A"}"#,
        r#"{"k":"1"}"#,
        r#"{"k":1}"#,
        r#"{"k":true}"#,
        r#"{"k":"true"}"#,
        r#"{"k":["A"]}"#,
        r#"{"k":"[\"A\"]"}"#,
    ];
    assert_eq!(passing(&["-k", ".k"], &input), [1, 4, 5, 6, 7, 8, 9]);
}

#[test]
fn objects_compare_whatever_their_order_and_the_last_of_equal_members_counts() {
    let input = [
        r#"{"k":{"a":1,"b":[{}]}}"#,
        r#"{"k": { "b": [ {} ], "a": 1 } }"#,
        r#"{"k":{"a":9,"b":[{}],"a":1}}"#,
        r#"{"k":7,"k":{"a":1,"b":[{}]}}"#,
        r#"{"k":{"a":1,"b":[{}],"c":null}}"#,
    ];
    assert_eq!(passing(&["-k", ".k"], &input), [1, 5]);
}

#[test]
fn composite_keys_do_not_run_together() {
    let input = [r#"{"a":"ab","b":"c"}"#, r#"{"a":"a","b":"bc"}"#, r#"{"b":"c","a":"ab"}"#];
    assert_eq!(passing(&["-k", ".a", "-k", ".b"], &input), [1, 2]);
}

#[test]
fn without_a_key_lines_are_lines() {
    assert_eq!(passing(&[], &["not json", "{}", "{ }", "not json", "", "{}", ""]), [1, 2, 3, 5]);
}

#[test]
fn what_cannot_be_a_key_follows_on_error() {
    let deep = format!("{{\"k\":{}{}}}", "[".repeat(50_000), "]".repeat(50_000));
    let wrong = [
        (r#"{"k":null}"#, "no field `.k`"),
        (r#"{"x":1}"#, "no field `.k`"),
        ("[1]", "no field `.k`"),
        ("5", "no field `.k`"),
        (r#"{"k":1"#, "not JSON (EOF while parsing an object at column 6)"),
        (r#"{"k":1} 2"#, "not JSON (trailing characters at column 9)"),
        (r#"{"k":"\ud800"}"#, "not JSON"),
        ("nonsense", "not JSON"),
        (&deep, "`.k` is nested too deeply"),
    ];
    for (line, message) in wrong {
        let input = format!("{{\"k\":1}}\n{line}\n{{\"k\":2}}\n");
        let by = |what| dedup(["--format=jsonl", "-k", ".k", "--on-error", what], &input);
        let fail = by("fail");
        let told = fail.failure();
        assert!(told.starts_with(&format!("standard input: line 2: {message}")), "{told}");
        assert_eq!(fail.output, b"{\"k\":1}\n");
        assert_eq!(by("pass").text(), input);
        assert_eq!(by("drop").text(), "{\"k\":1}\n{\"k\":2}\n");
    }
}

#[test]
fn invalid_utf8_and_deep_nesting_beside_the_key_do_no_harm() {
    let deep =
        [b"{\"x\":", "[".repeat(200_000).as_bytes(), "]".repeat(200_000).as_bytes()].concat();
    let line = [&deep[..], b",\"y\":\"\xff\",\"k\":1}\n"].concat();
    let input = [&line[..], b"{\"k\":1}\n{\"k\":\"\xff\"}\n"].concat();
    let outcome = dedup(["--format=jsonl", "-k", "k", "--on-error=drop"], input);
    assert!(outcome.ok() == line);
}

#[test]
fn blank_lines_are_no_records_where_lines_are_parsed() {
    let output = dedup(["--format=jsonl", "-k", ".k"], "\n{\"k\":1}\n \t\r\n{\"k\":1}\n\n");
    assert_eq!(output.text(), "\n{\"k\":1}\n \t\r\n\n");
}

#[test]
fn endings_tell_the_format() {
    let folder = Folder::new();
    for name in ["a.jsonl", "b.ndjson", "c.NDJSON"] {
        let file = folder.file(name, "{\"k\":1}\n{\"k\": 1}\n");
        assert_eq!(dedup(["-k".into(), "k".into(), file], "").text(), "{\"k\":1}\n");
    }
}
