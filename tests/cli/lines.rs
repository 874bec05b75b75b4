//! Plain lines: which bytes come out, and in which order.

use crate::model::{self, Record};
use crate::tool::{Folder, dedup};
use proptest::prelude::*;
use std::collections::HashMap;

/// Files of few different bytes, so that lines repeat and every odd byte meets
/// every other: ends of lines, NUL, and what is no UTF-8.
fn nasty_file() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop::sample::select(b"\n\n\n\r\0a\xffb".to_vec());
    prop::collection::vec(byte, 0..200)
}

/// The lines of all files.
fn all_lines(files: &[Vec<u8>], terminator: u8) -> Vec<Record> {
    files.iter().flat_map(|file| model::lines(file, terminator)).collect()
}

fn content(record: &Record) -> Vec<Vec<u8>> {
    vec![record.content.clone()]
}

/// Runs over `files` with `flags`.
fn run(flags: &[&str], files: &[Vec<u8>]) -> Vec<u8> {
    let folder = Folder::new();
    let paths = files.iter().enumerate().map(|(n, file)| folder.file(&format!("{n}.txt"), file));
    let args = flags.iter().map(Into::into).chain(paths);
    dedup::<std::path::PathBuf>(args, "").ok()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn first_sightings_pass_untouched(
        files in prop::collection::vec(nasty_file(), 1..4),
        is_zero in any::<bool>(),
        is_fingerprint in any::<bool>(),
    ) {
        let terminator = if is_zero { 0 } else { b'\n' };
        let mode = if is_fingerprint { "--mode=fingerprint" } else { "--mode=verified" };
        let flags = if is_zero { vec![mode, "-z"] } else { vec![mode] };
        let lines = all_lines(&files, terminator);
        let (firsts, _) = model::split(&lines, content);
        prop_assert_eq!(run(&flags, &files), model::join(firsts, terminator));
    }

    #[test]
    fn later_sightings_are_reported(files in prop::collection::vec(nasty_file(), 1..4)) {
        let lines = all_lines(&files, b'\n');
        let (firsts, agains) = model::split(&lines, content);
        prop_assert_eq!(run(&["-D"], &files), model::join(agains.iter().copied(), b'\n'));

        let again_records: Vec<Record> = agains.iter().copied().cloned().collect();
        let (seconds, _) = model::split(&again_records, content);
        prop_assert_eq!(run(&["-d"], &files), model::join(seconds, b'\n'));

        let mut counts: HashMap<&[u8], u64> = HashMap::new();
        for line in &lines {
            *counts.entry(&line.content).or_default() += 1;
        }
        let counted: Vec<Record> = firsts
            .into_iter()
            .map(|line| Record {
                content: [format!("{:>7} ", counts[line.content.as_slice()]).as_bytes(), &line.content].concat(),
                ..line.clone()
            })
            .collect();
        prop_assert_eq!(run(&["-c"], &files), model::join(&counted, b'\n'));
    }

    #[test]
    fn a_pipe_gives_what_a_file_gives(file in nasty_file()) {
        let piped = dedup(["-"], &file).ok();
        prop_assert_eq!(run(&[], &[file]), piped);
    }
}

#[test]
fn a_missing_final_newline_glues_nothing() {
    assert_eq!(run(&[], &[b"a\nb".to_vec(), b"c\nb\n".to_vec(), b"d".to_vec()]), b"a\nb\nc\nd");
    assert_eq!(run(&[], &[b"a".to_vec(), b"a".to_vec()]), b"a");
    assert_eq!(run(&["-z"], &[b"a\0b".to_vec(), b"c\n".to_vec()]), b"a\0b\0c\n");
}

#[test]
fn a_carriage_return_belongs_to_its_line() {
    assert_eq!(dedup([] as [&str; 0], "a\r\na\na\r\n").ok(), b"a\r\na\n");
}

#[test]
fn long_lines_pass_whole() {
    for bytes in [100 << 20, 1 << 20, 256 << 10, (256 << 10) - 1] {
        let line = [vec![b'x'; bytes], b"\n".to_vec()].concat();
        let input = [&line[..], b"xx\n", &line, b"\nend"].concat();
        assert!(dedup([] as [&str; 0], &input).ok() == [&line[..], b"xx\n\nend"].concat());
    }
}

#[test]
fn many_lines_cross_every_edge_of_the_buffers() {
    let lines: Vec<String> = (0..60_000_u32)
        .map(|n| {
            format!("{}{}\n", n.wrapping_mul(2_654_435_761) % 20_011, "-".repeat(n as usize % 37))
        })
        .collect();
    let input = lines.concat().into_bytes();
    let records = model::lines(&input, b'\n');
    let (firsts, agains) = model::split(&records, content);
    assert!(dedup([] as [&str; 0], &input).ok() == model::join(firsts, b'\n'));
    assert!(dedup(["-D"], &input).ok() == model::join(agains, b'\n'));
}

#[test]
fn null_is_another_name_of_zero_terminated() {
    assert_eq!(dedup(["--null"], "a\0a\0b\nb\0").ok(), b"a\0b\nb\0");
}
