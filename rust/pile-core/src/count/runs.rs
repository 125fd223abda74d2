//! Sorted runs of counts: how they are written, read and merged.
//!
//! A record is an n-gram's key, the number of a group of documents (a subset) and how often the n-gram
//! occurs in it. In a run records ascend by key, then group, and no two are equal. Keys are compared byte
//! by byte: those of tokens are big-endian, so that this is the order of the ids.

use std::{
    cmp::Ordering,
    collections::{BinaryHeap, binary_heap::PeekMut},
    fs::File,
    io::{BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use crate::{
    Error, Result,
    io::{Checksum, create},
};

/// Bytes of a number at most.
const VARINT_BYTES: usize = 10;

/// A record, its room used again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) key: Vec<u8>,
    pub(super) group: u32,
    pub(super) count: u64,
}

/// Appends a number, seven bits a byte, the low ones first.
fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Appends a record.
pub(super) fn put(out: &mut Vec<u8>, key: &[u8], group: u32, count: u64) {
    put_number(out, key.len() as u64);
    out.extend_from_slice(key);
    put_number(out, u64::from(group));
    put_number(out, count);
}

/// Calls `take` with key, group and count of each record that [`put`] wrote.
pub(super) fn each(
    mut bytes: &[u8],
    mut take: impl FnMut(&[u8], u32, u64) -> Result<()>,
) -> Result<()> {
    fn number(bytes: &mut &[u8]) -> u64 {
        let (mut number, mut shift) = (0, 0);
        while let Some((byte, rest)) = bytes.split_first() {
            *bytes = rest;
            number |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        number
    }
    while !bytes.is_empty() {
        let length = number(&mut bytes) as usize;
        let (key, rest) = bytes.split_at(length);
        bytes = rest;
        let group = number(&mut bytes) as u32;
        take(key, group, number(&mut bytes))?;
    }
    Ok(())
}

/// Writes one run.
pub(super) struct RunWriter {
    path: PathBuf,
    file: BufWriter<File>,
    checksum: Checksum,
}

impl RunWriter {
    /// A run in a new file.
    pub(super) fn create(path: &Path) -> Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            file: BufWriter::with_capacity(1 << 18, create(path)?),
            checksum: Checksum::default(),
        })
    }

    /// Appends records that [`put`] wrote, greater than all before.
    pub(super) fn append(&mut self, records: &[u8]) -> Result<()> {
        self.checksum.update(records);
        let written = self.file.write_all(records);
        written.map_err(|err| Error::io(&self.path, err))
    }

    /// Syncs the file; returns its checksum.
    pub(super) fn finish(mut self) -> Result<Checksum> {
        let finished = self
            .file
            .flush()
            .and_then(|()| self.file.get_ref().sync_all());
        finished.map_err(|err| Error::io(&self.path, err))?;
        Ok(self.checksum)
    }
}

/// Reads one run.
struct RunReader {
    path: PathBuf,
    file: BufReader<File>,
    left: u64,
}

impl RunReader {
    fn open(path: &Path, buffer_bytes: usize) -> Result<Self> {
        let fail = |err| Error::io(path, err);
        let file = File::open(path).map_err(fail)?;
        let left = file.metadata().map_err(fail)?.len();
        Ok(Self {
            path: path.to_owned(),
            file: BufReader::with_capacity(buffer_bytes, file),
            left,
        })
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.left = match self.left.checked_sub(bytes.len() as u64) {
            Some(left) => left,
            None => return Err(Error::malformed(&self.path, "a run of counts is cut short")),
        };
        let read = self.file.read_exact(bytes);
        read.map_err(|err| Error::io(&self.path, err))
    }

    fn number(&mut self) -> Result<u64> {
        let mut number = 0;
        for i in 0..VARINT_BYTES {
            let mut byte = [0];
            self.fill(&mut byte)?;
            number |= u64::from(byte[0] & 0x7f) << (7 * i);
            if byte[0] & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Error::malformed(&self.path, "a run of counts is damaged"))
    }

    /// The next record, if there is one.
    fn next(&mut self, record: &mut Record) -> Result<bool> {
        if self.left == 0 {
            return Ok(false);
        }
        let length = self.number()?;
        if length > self.left {
            return Err(Error::malformed(&self.path, "a run of counts is damaged"));
        }
        record.key.resize(length as usize, 0);
        let mut key = std::mem::take(&mut record.key);
        self.fill(&mut key)?;
        record.key = key;
        record.group = self.number()? as u32;
        record.count = self.number()?;
        Ok(true)
    }
}

/// The next record of a run, in a heap with the smallest on top.
struct Head {
    record: Record,
    run: RunReader,
}

impl Ord for Head {
    fn cmp(&self, other: &Self) -> Ordering {
        let place = |head: &Self| (head.record.group, head.run.left);
        let by_key = other.record.key.cmp(&self.record.key);
        by_key.then_with(|| place(other).cmp(&place(self)))
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Head {}

/// Calls `take` with all records of some runs, ascending; records of different runs may be equal.
pub(super) fn merge(
    runs: &[PathBuf],
    buffer_bytes: usize,
    mut take: impl FnMut(&[u8], u32, u64) -> Result<()>,
) -> Result<()> {
    let mut heads = BinaryHeap::with_capacity(runs.len());
    for path in runs {
        let mut head = Head {
            record: Record::default(),
            run: RunReader::open(path, buffer_bytes)?,
        };
        if head.run.next(&mut head.record)? {
            heads.push(head);
        }
    }
    while let Some(mut top) = heads.peek_mut() {
        take(&top.record.key, top.record.group, top.record.count)?;
        let Head { record, run } = &mut *top;
        if !run.next(record)? {
            PeekMut::pop(top);
        }
    }
    Ok(())
}

/// Adds up records that are equal and follow each other, and gives the sums to `take`.
pub(super) struct Summed<F> {
    record: Record,
    take: F,
}

impl<F: FnMut(&[u8], u32, u64) -> Result<()>> Summed<F> {
    pub(super) fn new(take: F) -> Self {
        Self {
            record: Record::default(),
            take,
        }
    }

    pub(super) fn add(&mut self, key: &[u8], group: u32, count: u64) -> Result<()> {
        if self.record.group == group && self.record.key == key {
            self.record.count += count;
            return Ok(());
        }
        self.give()?;
        self.record.key.clear();
        self.record.key.extend_from_slice(key);
        self.record.group = group;
        self.record.count = count;
        Ok(())
    }

    fn give(&mut self) -> Result<()> {
        // Nothing occurs 0 times: this is before the first record.
        match self.record.count {
            0 => Ok(()),
            count => (self.take)(&self.record.key, self.record.group, count),
        }
    }

    /// Gives the last one.
    pub(super) fn finish(mut self) -> Result<()> {
        self.give()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};
    use std::collections::BTreeMap;

    type Counts = BTreeMap<(Vec<u8>, u32), u64>;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_merge_adds_up(runs in vec(vec((vec(0_u8..3, 0..4), 0_u32..300, 1_u64..1 << 40), 0..20), 0..5)) {
            let folder = tempfile::tempdir().unwrap();
            let (mut paths, mut expected) = (Vec::new(), Counts::new());
            for (number, records) in runs.iter().enumerate() {
                let mut sorted = Counts::new();
                for (key, group, count) in records {
                    *sorted.entry((key.clone(), *group)).or_default() += count;
                    *expected.entry((key.clone(), *group)).or_default() += count;
                }
                let path = folder.path().join(number.to_string());
                let (mut run, mut bytes) = (RunWriter::create(&path).unwrap(), Vec::new());
                for ((key, group), count) in &sorted {
                    put(&mut bytes, key, *group, *count);
                }
                run.append(&bytes).unwrap();
                prop_assert_eq!(run.finish().unwrap().n_bytes(), bytes.len() as u64);
                let mut back = Counts::new();
                each(&bytes, |key, group, count| {
                    back.insert((key.to_vec(), group), count);
                    Ok(())
                }).unwrap();
                prop_assert_eq!(back, sorted);
                paths.push(path);
            }
            let mut found = Vec::new();
            let mut summed = Summed::new(|key: &[u8], group, count| {
                found.push(((key.to_vec(), group), count));
                Ok(())
            });
            merge(&paths, 16, |key, group, count| summed.add(key, group, count)).unwrap();
            summed.finish().unwrap();
            prop_assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_run_cut_short_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        let mut bytes = Vec::new();
        put(&mut bytes, b"abc", 1, 300);
        for end in 1..bytes.len() {
            std::fs::write(&path, &bytes[..end]).unwrap();
            let err = merge(std::slice::from_ref(&path), 16, |_, _, _| Ok(())).unwrap_err();
            assert!(err.to_string().contains("a run of counts"), "{err}");
        }
    }
}
