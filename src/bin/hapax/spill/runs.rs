//! A store of keys in files without names, for one run of the command.
//!
//! What is recorded stays in memory, in the *tail*, until there is enough of it.
//! Then it is sorted and written to a file of its own, a *run*. Whenever there are
//! [`FAN_IN`] runs on a level, they are merged into one on the next, so that there
//! are few to look through. So everything is written in sequence, and a few
//! times at most. What was recorded later is found first: in the tail, then
//! from the first level to the last, in each from the latest run back.

use super::name::Name;
use super::tail::Tail;
use super::value::Value;
use grenad::{MergeFunction, Merger, Reader, ReaderCursor, Writer, WriterBuilder};
use hapax::confirm::{
    Answer, Bucket, Confirmer, OwnedStore, Record, Rule, Sighting, StoreError, StoreErrorKind,
};
use parking_lot::Mutex;
use std::borrow::Cow;
use std::convert::Infallible;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::time::Duration;

/// Runs that are merged at once. With more, each key is written less often, and
/// there are more runs to look through.
const FAN_IN: usize = 8;

/// Enough that system calls do not show.
const WRITE_BYTES: usize = 256 << 10;

/// A look-up reads two blocks of each run, through which it then goes.
const BLOCK_BYTES: usize = 2 << 10;

/// A block and what is written before it, in one system call: a block ends with the key
/// that fills it.
const READ_BYTES: usize = BLOCK_BYTES + BLOCK_BYTES / 4;

/// The store, of which this process is the only user.
pub(super) struct Runs(Mutex<Inner>);

struct Inner {
    folder: PathBuf,
    tail: Tail,
    /// The oldest run of a level comes first.
    levels: Vec<Vec<Run>>,
    /// Nobody asks about buckets before this one.
    expired: Bucket,
    /// Why nothing is served any more.
    failed: Option<StoreError>,
}

impl Runs {
    /// With files in `folder`, and some `tail_bytes` of memory.
    pub(super) fn new(folder: PathBuf, tail_bytes: usize) -> Self {
        Self(Mutex::new(Inner {
            folder,
            tail: Tail::new(tail_bytes),
            levels: Vec::new(),
            expired: Bucket::new(i64::MIN),
            failed: None,
        }))
    }

    /// What the files take, in bytes.
    pub(super) fn file_bytes(&self) -> u64 {
        self.0.lock().levels.iter().flatten().map(|run| run.bytes).sum()
    }

    /// Runs `work` unless some failed before: what is in memory may then not be
    /// what is in the files.
    fn served<T>(&self, work: impl FnOnce(&mut Inner) -> io::Result<T>) -> Result<T, StoreError> {
        let mut inner = self.0.lock();
        if let Some(failed) = &inner.failed {
            return Err(failed.clone());
        }
        work(&mut inner).map_err(|error| {
            let failed = StoreError::new(StoreErrorKind::Broken, error);
            inner.failed.insert(failed).clone()
        })
    }
}

impl Confirmer for Runs {
    fn confirm(&self, sightings: &[Sighting<'_>], rule: Rule) -> Result<Vec<Answer>, StoreError> {
        let confirm_one = |inner: &mut Inner, sighting: &Sighting<'_>| {
            let decision = rule.decide(inner.record_of(sighting.key)?, sighting);
            if let Some(record) = decision.write {
                inner.put(sighting.key, Value::Record(record))?;
            }
            Ok(decision.answer)
        };
        self.served(|inner| sightings.iter().map(|each| confirm_one(inner, each)).collect())
    }

    fn look(&self, keys: &[&[u8]]) -> Result<Vec<Option<Record>>, StoreError> {
        self.served(|inner| keys.iter().map(|key| inner.record_of(key)).collect())
    }

    fn forget(&self, keys: &[&[u8]]) -> Result<(), StoreError> {
        self.served(|inner| keys.iter().try_for_each(|key| inner.put(key, Value::Forgotten)))
    }

    /// Drops the files that hold nothing later.
    fn expire(&self, before: Bucket) -> Result<(), StoreError> {
        self.served(|inner| {
            inner.expired = inner.expired.max(before);
            inner.levels.iter_mut().for_each(|runs| runs.retain(|run| run.newest >= before));
            Ok(())
        })
    }
}

impl OwnedStore for Runs {
    fn record(&self, sightings: &[Sighting<'_>]) -> Result<(), StoreError> {
        self.served(|inner| {
            let mut sightings = sightings.iter();
            sightings.try_for_each(|each| inner.put(each.key, Value::Record(each.into())))
        })
    }

    /// There is nothing when a run of the command begins, which is when this is
    /// called.
    fn recover(&self, _: &mut dyn FnMut(&[u8], Bucket)) -> Result<(), StoreError> {
        Ok(())
    }

    /// What is here is this run's, whose window is one.
    fn bind(&self, _: Option<Duration>) -> Result<(), StoreError> {
        Ok(())
    }

    fn epoch(&self) -> u64 {
        1
    }
}

impl Inner {
    /// What was last recorded of a key.
    fn record_of(&mut self, key: &[u8]) -> io::Result<Option<Record>> {
        let name = Name::of(key);
        if let Some(value) = self.tail.get(&name) {
            return Ok(value.record());
        }
        for run in self.levels.iter_mut().flat_map(|runs| runs.iter_mut().rev()) {
            if let Some(value) = run.find(&name)? {
                return Ok(value.record());
            }
        }
        Ok(None)
    }

    fn put(&mut self, key: &[u8], value: Value) -> io::Result<()> {
        // Lengths have 32 bits, here and in the files.
        u32::try_from(key.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
        self.tail.put(&Name::of(key), value);
        if self.tail.is_full() { self.write_tail() } else { Ok(()) }
    }

    /// Makes a run of the tail, and merges where there are enough of them.
    fn write_tail(&mut self) -> io::Result<()> {
        let mut run = NewRun::begin(self)?;
        for (name, kept) in self.tail.in_order() {
            run.add(name, kept)?;
        }
        let run = run.finish()?;
        self.tail.clear();
        self.add(run, 0);
        self.merge_full_levels()
    }

    fn add(&mut self, run: Run, level: usize) {
        if self.levels.len() == level {
            self.levels.push(Vec::with_capacity(FAN_IN));
        }
        self.levels[level].push(run);
    }

    fn merge_full_levels(&mut self) -> io::Result<()> {
        let mut level = 0;
        while level < self.levels.len() && self.levels[level].len() >= FAN_IN {
            let merged = self.merge(level)?;
            self.add(merged, level + 1);
            level += 1;
        }
        Ok(())
    }

    /// All runs of a level as one.
    fn merge(&mut self, level: usize) -> io::Result<Run> {
        let mut merged = NewRun::begin(self)?;
        let mut sources = Merger::builder(Latest);
        for run in std::mem::take(&mut self.levels[level]) {
            let mut cursor = run.cursor;
            cursor.reset();
            sources.push(cursor);
        }
        let mut entries = sources.build().into_stream_merger_iter().map_err(failure)?;
        while let Some((name, kept)) = entries.next().map_err(failure)? {
            merged.add(name, kept)?;
        }
        merged.finish()
    }
}

/// Keys in order, in a file.
struct Run {
    cursor: ReaderCursor<BufReader<Positioned>>,
    /// The latest bucket in which a key of it counts.
    newest: Bucket,
    bytes: u64,
}

impl Run {
    fn find(&mut self, name: &Name<'_>) -> io::Result<Option<Value>> {
        let found = self.cursor.move_on_key_equal_to(name.as_bytes()).map_err(failure)?;
        let Some((_, kept)) = found else { return Ok(None) };
        let (value, rest) = Value::decode(kept).ok_or(io::ErrorKind::InvalidData)?;
        Ok((rest == name.rest()).then_some(value))
    }
}

/// How a run is laid out. Its index has two levels of blocks, of which the upper one is a
/// single block and stays in memory.
///
/// grenad 0.5 counts one level more: it never ends a block on the second one before the
/// file ends, so that with one level the whole index is a block, and in memory.
fn format() -> WriterBuilder {
    let mut format = WriterBuilder::new();
    format.index_levels(2).block_size(BLOCK_BYTES);
    format
}

/// A run that is being written.
struct NewRun {
    writer: Writer<BufWriter<File>>,
    expired: Bucket,
    newest: Bucket,
}

impl NewRun {
    fn begin(store: &Inner) -> io::Result<Self> {
        let file = BufWriter::with_capacity(WRITE_BYTES, tempfile::tempfile_in(&store.folder)?);
        Ok(Self { writer: format().build(file), expired: store.expired, newest: store.expired })
    }

    /// Adds the next name in order, unless nobody asks about its key any more.
    fn add(&mut self, name: &[u8], kept: &[u8]) -> io::Result<()> {
        let (value, _) = Value::decode(kept).ok_or(io::ErrorKind::InvalidData)?;
        let bucket = match value {
            Value::Record(record) if record.bucket < self.expired => return Ok(()),
            Value::Record(record) => record.bucket,
            // Stays for as long as there may be an older record.
            Value::Forgotten => Bucket::new(i64::MAX),
        };
        self.newest = self.newest.max(bucket);
        self.writer.insert(name, kept)
    }

    fn finish(self) -> io::Result<Run> {
        let file =
            self.writer.into_inner()?.into_inner().map_err(io::IntoInnerError::into_error)?;
        let bytes = file.metadata()?.len();
        let file = Positioned { file, position: 0, bytes };
        let reader = Reader::new(BufReader::with_capacity(READ_BYTES, file)).map_err(failure)?;
        let cursor = reader.into_cursor().map_err(failure)?;
        Ok(Run { cursor, newest: self.newest, bytes })
    }
}

/// Of what several runs say of a key, the latest counts.
struct Latest;

impl MergeFunction for Latest {
    type Error = Infallible;

    fn merge<'a>(&self, _: &[u8], values: &[Cow<'a, [u8]>]) -> Result<Cow<'a, [u8]>, Infallible> {
        Ok(values.last().cloned().unwrap_or_default())
    }
}

/// A file that is read from any place with one system call.
struct Positioned {
    file: File,
    position: u64,
    bytes: u64,
}

impl Read for Positioned {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.file.read_at(buffer, self.position)?;
        self.position += bytes as u64;
        Ok(bytes)
    }
}

impl Seek for Positioned {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(offset) => self.bytes.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

fn failure(error: grenad::Error) -> io::Error {
    match error {
        grenad::Error::Io(error) => error,
        other => io::Error::new(io::ErrorKind::InvalidData, other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hapax::Window;
    use hapax::confirm::Token;
    use std::collections::HashMap;

    /// Steps of confirming, recording, forgetting and expiring over few keys and a tail
    /// of a few records, against a map.
    #[test]
    fn does_what_a_map_does() {
        let folder = tempfile::tempdir().unwrap();
        let rule = Rule::of(&Window::fixed(std::time::Duration::from_secs(8)).buckets(8));
        let store = Runs::new(folder.path().to_owned(), 600);
        let mut map: HashMap<Vec<u8>, Record> = HashMap::new();
        let mut random = 1_u64;
        for step in 0..20_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let bits = random >> 33;
            // Some long, some not.
            let key = format!("key {:>1$}", bits % 701, bits as usize % 701 % 70).into_bytes();
            let bucket = Bucket::new(step / 500);
            let sighting = Sighting { key: &key, bucket, token: Token::new(step as u64) };
            match bits / 1_024 % 16 {
                0 => {
                    store.forget(&[&key]).unwrap();
                    map.remove(&key);
                }
                1 => store.expire(Bucket::new(bucket.number() - 8)).unwrap(),
                2..8 if !map.get(&key).is_some_and(|held| rule.matches(held.bucket, bucket)) => {
                    store.record(&[sighting]).unwrap();
                    map.insert(key.clone(), (&sighting).into());
                }
                _ => {
                    let decision = rule.decide(map.get(&key).copied(), &sighting);
                    map.extend(decision.write.map(|record| (key.clone(), record)));
                    assert_eq!(store.confirm(&[sighting], rule).unwrap(), [decision.answer]);
                }
            }
            let held = store.look(&[&key]).unwrap()[0];
            let matches = |record: &Record| rule.matches(record.bucket, bucket);
            assert_eq!(held.filter(matches), map.get(&key).copied().filter(matches));
        }
        let levels: Vec<_> = store.0.lock().levels.iter().map(Vec::len).collect();
        assert!(levels.len() > 1, "{levels:?}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    /// Says how many bytes were read.
    struct Counted<R>(R, u64);

    impl<R: Read> Read for Counted<R> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let bytes = self.0.read(buffer)?;
            self.1 += bytes as u64;
            Ok(bytes)
        }
    }

    impl<R: Seek> Seek for Counted<R> {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            self.0.seek(to)
        }
    }

    /// What the first look-up reads is what stays in memory, and two blocks more.
    #[test]
    fn little_of_an_index_stays_in_memory() {
        for (key_bytes, keys) in [(16, 200_000), (100, 100_000), (1_000, 20_000), (5_000, 5_000)] {
            let key = |number: u32| number.to_be_bytes().repeat(key_bytes / 4);
            let mut tail = Tail::new(1 << 30);
            (0..keys).for_each(|number| tail.put(&Name::of(&key(number)), Value::Forgotten));
            let mut writer = format().build(Vec::new());
            tail.in_order().for_each(|(name, kept)| writer.insert(name, kept).unwrap());
            let run = writer.into_inner().unwrap();
            let bytes = run.len();
            let reader = Reader::new(Counted(io::Cursor::new(run), 0)).unwrap();
            let mut cursor = reader.into_cursor().unwrap();
            let (key, most_bytes) = (key(7), bytes / 500 + 4 * BLOCK_BYTES + key_bytes);
            assert!(cursor.move_on_key_equal_to(Name::of(&key).as_bytes()).unwrap().is_some());
            let read = cursor.into_inner().1 as usize;
            assert!(read < most_bytes, "{read} of {bytes}, keys of {key_bytes}");
        }
    }

    #[test]
    fn a_key_is_not_taken_for_another_of_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let store = Runs::new(folder.path().to_owned(), 0);
        let (key, other) = ([b'a'; 100], [b'b'; 100]);
        let sighting = Sighting { key: &key, bucket: Bucket::new(0), token: Token::new(1) };
        store.record(&[sighting]).unwrap();
        let mut inner = store.0.lock();
        let run = &mut inner.levels[0][0];
        assert!(run.find(&Name::of(&key)).unwrap().is_some());
        assert_eq!(run.find(&Name::of(&key).shared_with(&other)).unwrap(), None);
    }

    #[test]
    fn a_failure_is_final() {
        let folder = tempfile::tempdir().unwrap();
        let store = Runs::new(folder.path().join("lost"), 0);
        let sighting = Sighting { key: b"a", bucket: Bucket::new(0), token: Token::new(1) };
        let error = store.record(&[sighting]).unwrap_err();
        assert!(error.may_have_recorded());
        assert_eq!(store.look(&[b"a"]), Err(error));
    }
}
