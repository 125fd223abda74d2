//! External sort of byte strings: buffers in memory, sorted runs on disk, and their merge.
//!
//! The records of a run ascend. On disk, a record is the length of the prefix that it shares with the previous
//! record, the length of the rest, both LEB128, and the rest. Numbers in records are big-endian, so that byte strings
//! sort as the numbers do.

use std::{
    cmp::Ordering,
    collections::{BinaryHeap, binary_heap::PeekMut},
    fs::File,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use crate::{
    Error, Result,
    bytes::{put_varint, sortable_prefix},
    progress::Progress,
};

/// Records merged between two checks for a stop.
const STOP_INTERVAL: u64 = 1 << 16;

/// A record in a buffer.
struct BufferedRecord {
    prefix: u64,
    start: usize,
    length: usize,
}

/// Records in memory.
pub(super) struct RecordBuffer {
    bytes: Vec<u8>,
    records: Vec<BufferedRecord>,
    max_bytes: usize,
}

impl RecordBuffer {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self {
            bytes: Vec::new(),
            records: Vec::new(),
            max_bytes,
        }
    }

    /// Adds the record that consists of `parts`.
    pub(super) fn push(&mut self, parts: &[&[u8]]) {
        let start = self.bytes.len();
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        self.records.push(BufferedRecord {
            prefix: sortable_prefix(&self.bytes[start..]),
            start,
            length: self.bytes.len() - start,
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Bytes of the records and their index. A vector that grows may take twice as much.
    pub(super) fn n_bytes(&self) -> usize {
        self.bytes.len() + self.records.len() * size_of::<BufferedRecord>()
    }

    /// Whether the records have to be written to a run to keep the memory limit.
    pub(super) fn is_full(&self) -> bool {
        2 * self.n_bytes() > self.max_bytes
    }

    fn record(&self, record: &BufferedRecord) -> &[u8] {
        &self.bytes[record.start..][..record.length]
    }

    /// Passes the records to `visit`, ascending, and clears the buffer.
    pub(super) fn drain(&mut self, mut visit: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut records = std::mem::take(&mut self.records);
        records.sort_unstable_by(|a, b| {
            let by_prefix = a.prefix.cmp(&b.prefix);
            by_prefix.then_with(|| self.record(a).cmp(self.record(b)))
        });
        records
            .iter()
            .try_for_each(|record| visit(self.record(record)))?;
        records.clear();
        (self.records, self.bytes) = (records, std::mem::take(&mut self.bytes));
        self.bytes.clear();
        Ok(())
    }
}

/// Encodes the ascending records of a run.
#[derive(Default)]
pub(super) struct RunEncoder {
    previous: Vec<u8>,
    encoded: Vec<u8>,
}

impl RunEncoder {
    /// The bytes of the next record in the run.
    pub(super) fn encode(&mut self, record: &[u8]) -> &[u8] {
        let n_shared = n_shared(&self.previous, record);
        self.encoded.clear();
        put_varint(&mut self.encoded, n_shared as u64);
        put_varint(&mut self.encoded, (record.len() - n_shared) as u64);
        self.encoded.extend_from_slice(&record[n_shared..]);
        self.previous.truncate(n_shared);
        self.previous.extend_from_slice(&record[n_shared..]);
        &self.encoded
    }
}

/// Length of the longest common prefix.
fn n_shared(a: &[u8], b: &[u8]) -> usize {
    let words = a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0);
    let n = 8 * words.take_while(|(a, b)| a == b).count();
    let bytes = a[n..].iter().zip(&b[n..]);
    n + bytes.take_while(|(a, b)| a == b).count()
}

/// Reads the records of a run.
struct RecordRunReader {
    path: PathBuf,
    file: BufReader<File>,
    /// The last record that was read.
    record: Vec<u8>,
}

impl RecordRunReader {
    fn open(path: &Path, buffer_bytes: usize) -> Result<Self> {
        let file = File::open(path).map_err(|err| Error::io(path, err))?;
        Ok(Self {
            path: path.to_owned(),
            file: BufReader::with_capacity(buffer_bytes, file),
            record: Vec::new(),
        })
    }

    /// Reads the next record. Returns false at the end of the run.
    fn next(&mut self) -> Result<bool> {
        let fail = |err| Error::io(&self.path, err);
        if self.file.fill_buf().map_err(fail)?.is_empty() {
            return Ok(false);
        }
        let (n_shared, n_more) = (self.read_varint()?, self.read_varint()?);
        // Not allocated before the bytes are read: a damaged length may be any number.
        let more = (&mut self.file).take(n_more as u64);
        self.record.truncate(n_shared);
        let is_short = self.record.len() < n_shared;
        let fail = |err| Error::io(&self.path, err);
        let n_read = { more }.read_to_end(&mut self.record).map_err(fail)?;
        if is_short || n_read < n_more {
            return Err(self.damaged());
        }
        Ok(true)
    }

    fn read_varint(&mut self) -> Result<usize> {
        let mut number = 0;
        // 63 bits, seven a byte.
        for shift in (0..63).step_by(7) {
            let mut byte = [0];
            let read = self.file.read(&mut byte);
            if read.map_err(|err| Error::io(&self.path, err))? == 0 {
                break;
            }
            number |= usize::from(byte[0] & 0x7f) << shift;
            if byte[0] & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(self.damaged())
    }

    fn damaged(&self) -> Error {
        let what = "a sorted run ends within a record; remove its folder and run the job again";
        Error::malformed(&self.path, what)
    }
}

/// A run with its first unmerged record. The order is reversed, as [`BinaryHeap`] has the greatest on top.
struct RecordRunHead(RecordRunReader);

impl Ord for RecordRunHead {
    fn cmp(&self, other: &Self) -> Ordering {
        other.0.record.cmp(&self.0.record)
    }
}

impl PartialOrd for RecordRunHead {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for RecordRunHead {
    fn eq(&self, other: &Self) -> bool {
        self.0.record == other.0.record
    }
}

impl Eq for RecordRunHead {}

/// Calls `visit` with each distinct record of several runs, ascending.
///
/// Equal records are passed once: a step that was interrupted may have written some of them twice.
///
/// # Errors
/// A run cannot be read or is damaged, `visit` fails, or a stop.
pub(super) fn merge(
    runs: &[PathBuf],
    buffer_bytes: usize,
    progress: &Progress,
    mut visit: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let mut heads = BinaryHeap::with_capacity(runs.len());
    for path in runs {
        let mut run = RecordRunReader::open(path, buffer_bytes)?;
        if run.next()? {
            heads.push(RecordRunHead(run));
        }
    }
    let mut last: Option<Vec<u8>> = None;
    let mut n_merged = 0;
    while let Some(mut top) = heads.peek_mut() {
        n_merged += 1;
        if n_merged % STOP_INTERVAL == 0 {
            progress.advance(0)?;
        }
        let record = &top.0.record;
        if last.as_ref() != Some(record) {
            visit(record)?;
            let last = last.get_or_insert_default();
            last.clear();
            last.extend_from_slice(record);
        }
        if !top.0.next()? {
            PeekMut::pop(top);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    fn run(records: &[Vec<u8>]) -> Vec<u8> {
        let mut buffer = RecordBuffer::new(0);
        for record in records {
            let (head, tail) = record.split_at(record.len() / 2);
            buffer.push(&[head, tail]);
        }
        let (mut encoder, mut bytes) = (RunEncoder::default(), Vec::new());
        let drained = buffer.drain(|record| {
            bytes.extend_from_slice(encoder.encode(record));
            Ok(())
        });
        drained.unwrap();
        assert!(buffer.is_empty());
        bytes
    }

    proptest! {
        #[test]
        fn a_merge_equals_a_set(runs in vec(vec(vec(0_u8..3, 0..20), 0..20), 0..5)) {
            let folder = tempfile::tempdir().unwrap();
            let mut paths = Vec::new();
            for (number, records) in runs.iter().enumerate() {
                let path = folder.path().join(number.to_string());
                std::fs::write(&path, run(records)).unwrap();
                paths.push(path);
            }
            let mut found = Vec::new();
            merge(&paths, 16, &Progress::default(), |record| {
                found.push(record.to_vec());
                Ok(())
            }).unwrap();
            let expected: std::collections::BTreeSet<_> = runs.into_iter().flatten().collect();
            prop_assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_truncated_run_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        let bytes = run(&[vec![7; 300]]);
        for end in 1..bytes.len() {
            std::fs::write(&path, &bytes[..end]).unwrap();
            let runs = std::slice::from_ref(&path);
            let err = merge(runs, 16, &Progress::default(), |_| Ok(())).unwrap_err();
            assert!(err.to_string().contains("a sorted run ends"), "{err}");
        }
    }
}
