//! Sorted runs of counts: how they are written, read and merged.
//!
//! A record is the key of an n-gram, the number of a group of documents (a subset), and how often the n-gram
//! occurs in that group. The records of a run ascend strictly by key, then group. Keys are compared byte by byte;
//! token ids in keys are big-endian, so that keys sort as the ids do.
//!
//! On disk, a record is the length of the key, the key, the group and the count. Integers are LEB128: seven bits
//! a byte, the low ones first; the high bit says that another byte follows.

use std::{
    cmp::Ordering,
    collections::{BinaryHeap, binary_heap::PeekMut},
    fs::File,
    io::{BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use crate::{
    Error, Result,
    bytes::{put_varint, take_varint},
    io::{Checksum, create},
};

/// Maximum bytes of an integer: 64 bits, seven a byte.
const MAX_VARINT_BYTES: usize = 10;

/// A record. Its key is a buffer that is reused.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct CountRecord {
    pub(super) key: Vec<u8>,
    pub(super) group: u32,
    pub(super) count: u64,
}

/// Appends a record.
pub(super) fn put_record(out: &mut Vec<u8>, key: &[u8], group: u32, count: u64) {
    put_varint(out, key.len() as u64);
    out.extend_from_slice(key);
    put_varint(out, u64::from(group));
    put_varint(out, count);
}

/// Calls `visit` with the key, group and count of each record in `bytes`, which [`put_record`] wrote.
pub(super) fn for_each_record(
    mut bytes: &[u8],
    mut visit: impl FnMut(&[u8], u32, u64) -> Result<()>,
) -> Result<()> {
    // The caller has written these bytes itself, so no number is cut.
    let take = |bytes: &mut &[u8]| take_varint(bytes).unwrap_or_default();
    while !bytes.is_empty() {
        let length = take(&mut bytes) as usize;
        let (key, rest) = bytes.split_at(length);
        bytes = rest;
        let group = take(&mut bytes) as u32;
        visit(key, group, take(&mut bytes))?;
    }
    Ok(())
}

/// Writes a run.
pub(super) struct RunWriter {
    path: PathBuf,
    file: BufWriter<File>,
    checksum: Checksum,
}

impl RunWriter {
    /// Creates the file of a run.
    pub(super) fn create(path: &Path) -> Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            file: BufWriter::with_capacity(1 << 18, create(path)?),
            checksum: Checksum::default(),
        })
    }

    /// Appends records that [`put_record`] wrote. They must be greater than all records before.
    pub(super) fn append(&mut self, records: &[u8]) -> Result<()> {
        self.checksum.update(records);
        let written = self.file.write_all(records);
        written.map_err(|err| Error::io(&self.path, err))
    }

    /// Syncs the file and returns its checksum.
    pub(super) fn finish(mut self) -> Result<Checksum> {
        let finished = self
            .file
            .flush()
            .and_then(|()| self.file.get_ref().sync_all());
        finished.map_err(|err| Error::io(&self.path, err))?;
        Ok(self.checksum)
    }
}

/// Reads a run.
struct RunReader {
    path: PathBuf,
    file: BufReader<File>,
    /// Bytes that were not read yet.
    n_unread: u64,
}

impl RunReader {
    fn open(path: &Path, buffer_bytes: usize) -> Result<Self> {
        let fail = |err| Error::io(path, err);
        let file = File::open(path).map_err(fail)?;
        let n_unread = file.metadata().map_err(fail)?.len();
        Ok(Self {
            path: path.to_owned(),
            file: BufReader::with_capacity(buffer_bytes, file),
            n_unread,
        })
    }

    fn read_exact(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.n_unread = match self.n_unread.checked_sub(bytes.len() as u64) {
            Some(n_unread) => n_unread,
            None => {
                let what = "a run of counts ends within a record";
                return Err(Error::malformed(&self.path, what));
            }
        };
        let read = self.file.read_exact(bytes);
        read.map_err(|err| Error::io(&self.path, err))
    }

    fn read_varint(&mut self) -> Result<u64> {
        let mut number = 0;
        for i in 0..MAX_VARINT_BYTES {
            let mut byte = [0];
            self.read_exact(&mut byte)?;
            number |= u64::from(byte[0] & 0x7f) << (7 * i);
            if byte[0] & 0x80 == 0 {
                return Ok(number);
            }
        }
        let what = format!("a run of counts has an integer of more than {MAX_VARINT_BYTES} bytes");
        Err(Error::malformed(&self.path, what))
    }

    /// Reads the next record. Returns false at the end of the run.
    fn read_record(&mut self, record: &mut CountRecord) -> Result<bool> {
        if self.n_unread == 0 {
            return Ok(false);
        }
        let length = self.read_varint()?;
        // Checked before the key's buffer is allocated.
        if length > self.n_unread {
            let what = format!(
                "a run of counts has a key of {length} bytes, but only {} bytes follow",
                self.n_unread
            );
            return Err(Error::malformed(&self.path, what));
        }
        record.key.resize(length as usize, 0);
        self.read_exact(&mut record.key)?;
        record.group = self.read_varint()? as u32;
        record.count = self.read_varint()?;
        Ok(true)
    }
}

/// The first unmerged record of a run. The order is reversed, as [`BinaryHeap`] has the greatest on top.
struct RunHead {
    record: CountRecord,
    run: RunReader,
}

impl Ord for RunHead {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_key = other.record.key.cmp(&self.record.key);
        by_key.then_with(|| other.record.group.cmp(&self.record.group))
    }
}

impl PartialOrd for RunHead {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for RunHead {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for RunHead {}

/// Calls `visit` with the key, group and count of each record of several runs, ascending by key, then group.
/// Records of different runs may have the same key and group. They are passed one by one.
pub(super) fn merge(
    runs: &[PathBuf],
    buffer_bytes: usize,
    mut visit: impl FnMut(&[u8], u32, u64) -> Result<()>,
) -> Result<()> {
    let mut heads = BinaryHeap::with_capacity(runs.len());
    for path in runs {
        let mut head = RunHead {
            record: CountRecord::default(),
            run: RunReader::open(path, buffer_bytes)?,
        };
        if head.run.read_record(&mut head.record)? {
            heads.push(head);
        }
    }
    while let Some(mut top) = heads.peek_mut() {
        visit(&top.record.key, top.record.group, top.record.count)?;
        let RunHead { record, run } = &mut *top;
        if !run.read_record(record)? {
            PeekMut::pop(top);
        }
    }
    Ok(())
}

/// Sums the counts of consecutive records with the same key and group, and calls `visit` with each sum.
pub(super) struct SumEqual<F> {
    /// The sum so far. Its count is 0 before the first record, as no record has that count.
    sum: CountRecord,
    visit: F,
}

impl<F: FnMut(&[u8], u32, u64) -> Result<()>> SumEqual<F> {
    pub(super) fn new(visit: F) -> Self {
        Self {
            sum: CountRecord::default(),
            visit,
        }
    }

    pub(super) fn add(&mut self, key: &[u8], group: u32, count: u64) -> Result<()> {
        if self.sum.group == group && self.sum.key == key {
            self.sum.count += count;
            return Ok(());
        }
        self.visit_sum()?;
        self.sum.key.clear();
        self.sum.key.extend_from_slice(key);
        self.sum.group = group;
        self.sum.count = count;
        Ok(())
    }

    fn visit_sum(&mut self) -> Result<()> {
        match self.sum.count {
            0 => Ok(()),
            count => (self.visit)(&self.sum.key, self.sum.group, count),
        }
    }

    /// Calls `visit` with the last sum.
    pub(super) fn finish(mut self) -> Result<()> {
        self.visit_sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};
    use std::collections::BTreeMap;

    type CountMap = BTreeMap<(Vec<u8>, u32), u64>;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_merge_equals_a_map(runs in vec(vec((vec(0_u8..3, 0..4), 0_u32..300, 1_u64..1 << 40), 0..20), 0..5)) {
            let folder = tempfile::tempdir().unwrap();
            let (mut paths, mut expected) = (Vec::new(), CountMap::new());
            for (number, records) in runs.iter().enumerate() {
                let mut sorted = CountMap::new();
                for (key, group, count) in records {
                    *sorted.entry((key.clone(), *group)).or_default() += count;
                    *expected.entry((key.clone(), *group)).or_default() += count;
                }
                let path = folder.path().join(number.to_string());
                let (mut run, mut bytes) = (RunWriter::create(&path).unwrap(), Vec::new());
                for ((key, group), count) in &sorted {
                    put_record(&mut bytes, key, *group, *count);
                }
                run.append(&bytes).unwrap();
                prop_assert_eq!(run.finish().unwrap().n_bytes(), bytes.len() as u64);
                let mut read = CountMap::new();
                for_each_record(&bytes, |key, group, count| {
                    read.insert((key.to_vec(), group), count);
                    Ok(())
                }).unwrap();
                prop_assert_eq!(read, sorted);
                paths.push(path);
            }
            let mut found = Vec::new();
            let mut sums = SumEqual::new(|key: &[u8], group, count| {
                found.push(((key.to_vec(), group), count));
                Ok(())
            });
            merge(&paths, 16, |key, group, count| sums.add(key, group, count)).unwrap();
            sums.finish().unwrap();
            prop_assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_truncated_run_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        let mut bytes = Vec::new();
        put_record(&mut bytes, b"abc", 1, 300);
        for end in 1..bytes.len() {
            std::fs::write(&path, &bytes[..end]).unwrap();
            let err = merge(std::slice::from_ref(&path), 16, |_, _, _| Ok(())).unwrap_err();
            assert!(err.to_string().contains("a run of counts"), "{err}");
        }
    }
}
