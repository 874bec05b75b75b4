//! Csv and tsv: records with quotes, keys by column, headers.

use crate::model::{self, Record};
use crate::tool::{Folder, dedup};
use proptest::prelude::*;

/// A field and how it is written.
fn field() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let byte = prop::sample::select(b",\"\n\ra\xffb".to_vec());
    (prop::collection::vec(byte, 0..4), any::<bool>()).prop_map(|(value, is_quoted)| {
        let needs_quotes = value.iter().any(|byte| b",\"\n\r".contains(byte));
        let written = if is_quoted || needs_quotes {
            let inside =
                value.iter().flat_map(|&byte| vec![byte; if byte == b'"' { 2 } else { 1 }]);
            [b"\"".to_vec(), inside.collect(), b"\"".to_vec()].concat()
        } else {
            value.clone()
        };
        (value, written)
    })
}

/// A record of three fields, the first never empty: else it could be blank.
fn record() -> impl Strategy<Value = Record> {
    let end = prop::sample::select(vec![&b"\n"[..], b"\r\n"]);
    (prop::collection::vec(field(), 3), end).prop_map(|(fields, end)| {
        let (values, written): (Vec<_>, Vec<_>) = fields.into_iter().unzip();
        Record { content: written.join(&b','), terminator: end.to_vec(), fields: values }
    })
}

/// Any file of such records; the last line end may be missing.
fn records() -> impl Strategy<Value = Vec<Record>> {
    (prop::collection::vec(record(), 0..40), any::<bool>()).prop_map(|(mut records, is_open)| {
        if let Some(last) = records.last_mut().filter(|_| is_open) {
            last.terminator.clear();
        }
        records
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn keys_are_unquoted_values_and_bytes_stay(records in records()) {
        let file = model::join(&records, b'\n');
        for (flags, places) in [
            (&["-k", "1"][..], &[0][..]),
            (&["-k", "3", "-k", "1"], &[2, 0]),
        ] {
            let flags = [&["-n", "--format", "csv"], flags].concat();
            let key = |record: &Record| {
                places.iter().map(|&place: &usize| record.fields[place].clone()).collect()
            };
            let (firsts, _) = model::split(&records, key);
            prop_assert_eq!(dedup(flags, &file).ok(), model::join(firsts, b'\n'));
        }
    }

    #[test]
    fn without_a_key_the_written_record_counts(records in records()) {
        let file = model::join(&records, b'\n');
        let (firsts, _) = model::split(&records, |record| vec![record.content.clone()]);
        let output = dedup(["-n", "--format", "csv"], &file).ok();
        prop_assert_eq!(output, model::join(firsts, b'\n'));
    }
}

#[test]
fn columns_go_by_name_or_number_and_a_name_wins() {
    let file = "id,2,name\n1,x,a\n2,x,a\n1,y,b\n";
    let by = |key: &str| dedup(["--format=csv", "-k", key], file).text();
    assert_eq!(by("id"), "id,2,name\n1,x,a\n2,x,a\n");
    assert_eq!(by("1"), by("id"));
    assert_eq!(by("2"), "id,2,name\n1,x,a\n1,y,b\n");
    assert_eq!(by("3"), by("name"));
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_first_name() {
    let file = "\u{feff}id,v\r\n1,a\r\n1,b\r\n";
    assert_eq!(dedup(["--format=csv", "-k", "id"], file).text(), "\u{feff}id,v\r\n1,a\r\n");
}

#[test]
fn files_share_one_header() {
    let folder = Folder::new();
    let one = folder.file("one.csv", "id,v\n1,a");
    let two = folder.file("two.csv", "\"id\",v\r\n1,b\r\n2,c\r\n");
    let empty = folder.file("empty.csv", "");
    let args = ["-k".into(), "id".into(), one.clone(), empty, two];
    assert_eq!(dedup(args, "").text(), "id,v\n1,a\n2,c\r\n");

    let other = folder.file("other.csv", "v,id\nb,3\n");
    let outcome = dedup([one, other.clone()], "");
    assert_eq!(
        outcome.failure(),
        format!(
            "{}: its header differs from that of the first file: give files with one header",
            other.display()
        )
    );
    assert_eq!(outcome.output, b"id,v\n1,a");
}

#[test]
fn an_unknown_column_is_told_those_there_are() {
    let outcome = dedup(["--format=csv", "-k", "uid"], "id,\"a\nb\"\n1,2\n");
    assert_eq!(
        outcome.failure(),
        "standard input: no column `uid`: the columns are id, a\\nb (-n if there is no header)"
    );
    let outcome = dedup(["--format=csv", "-k", "3"], "id,v\n1,2\n");
    assert!(outcome.failure().contains("no column `3`"));
    let outcome = dedup(["--format=csv", "-k", "id"], "id,id\n1,2\n");
    assert!(outcome.failure().contains("give its number, 1 to 2"));
    let garbage = "\u{1b}[2J,".repeat(10_000);
    let outcome = dedup(["--format=csv", "-k", "id"], garbage);
    assert!(outcome.failure().len() < 1_000 && !outcome.failure().contains('\u{1b}'));
}

#[test]
fn tabs_and_other_delimiters_separate() {
    let folder = Folder::new();
    let tsv = folder.file("x.TSV", "id\tv\n1\ta\n1\tb,\n");
    assert_eq!(dedup(["-k".into(), "id".into(), tsv], "").text(), "id\tv\n1\ta\n");
    let semicolons = dedup(["--format=csv", "--delimiter=;", "-n", "-k2"], "1;a\n2;a\n");
    assert_eq!(semicolons.text(), "1;a\n");
    let tabs = dedup(["--format=csv", r"--delimiter=\t", "-n", "-k2"], "1\ta\n2\ta\n");
    assert_eq!(tabs.text(), "1\ta\n");
}

#[test]
fn blank_lines_are_no_records() {
    let output = dedup(["--format=csv", "-n", "-k1"], "\n\na,1\r\n\r\n\na,2\n\nb,3\n").text();
    assert_eq!(output, "\n\na,1\r\n\r\n\n\nb,3\n");
}

#[test]
fn records_without_their_key_follow_on_error() {
    let file = "id,v\n1,a\n\"x\ny\",b\n2\n1,c\n3,\"open\n1,d\n";
    let by = |what: &str| {
        let flags = ["--format=csv", "-k", "v", "-k", "id", "--stats=text", "--on-error", what];
        dedup(flags, file)
    };
    let fail = by("fail");
    assert_eq!(
        fail.failure(),
        "standard input: line 5: no field `v`: repair it, or give --on-error pass or drop"
    );
    assert_eq!(fail.output, b"id,v\n1,a\n\"x\ny\",b\n");
    let pass = by("pass");
    assert_eq!((pass.status, pass.output.as_slice()), (0, file.as_bytes()));
    assert!(pass.errors.contains("5 records: 3 unique, 0 duplicate, 2 with errors"));
    let drop = by("drop");
    assert_eq!(drop.output, b"id,v\n1,a\n\"x\ny\",b\n1,c\n");
    assert!(drop.errors.contains("2 with errors"));
}

#[test]
fn a_quote_that_is_never_closed_is_an_error() {
    let outcome = dedup(["--format=csv", "-n"], "a,b\nc,\"d\ne,f\n");
    assert_eq!(
        outcome.failure(),
        "standard input: line 2: a quoted field is never closed: repair it, or give --on-error \
         pass or drop"
    );
    assert_eq!(outcome.output, b"a,b\n");
}

#[test]
fn the_header_goes_to_all_reports() {
    let folder = Folder::new();
    let duplicates = folder.path("duplicates.csv");
    let file = "id,v\n1,a\n1,b\n1,c\n2,d\n";
    let run = |flag: &str| {
        let flags = ["--format=csv", "-k", "id", flag, "--duplicates"].map(Into::into);
        dedup::<std::path::PathBuf>(flags.into_iter().chain([duplicates.clone()]), file).text()
    };
    assert_eq!(run("-d"), "id,v\n1,b\n");
    assert_eq!(run("-D"), "id,v\n1,b\n1,c\n");
    assert_eq!(run("-c"), "id,v\n      3 1,a\n      1 2,d\n");
    assert_eq!(crate::tool::read(&duplicates), b"id,v\n1,b\n1,c\n");
}
