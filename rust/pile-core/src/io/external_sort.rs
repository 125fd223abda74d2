//! Sorts records of a fixed size within a memory limit. If they do not fit, sorted runs are written to a folder and
//! merged.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    fs::File,
    io::{Read, Write},
    path::{Path, PathBuf},
};

use bytemuck::Pod;

use super::{create, remove_if_there};
use crate::{Error, Result, progress::Progress};

/// Maximum number of runs that are merged at once.
const FAN_IN: usize = if cfg!(test) { 3 } else { 64 };

/// Records between two checks for a stop.
const CHECK_INTERVAL: u64 = 1 << 16;

/// Records that are sorted once all are added. It uses `memory` bytes at most, or space for a few records. Runs are
/// removed once they are merged; after an error they stay in the folder, which the caller removes.
pub(crate) struct ExternalSort<T> {
    folder: PathBuf,
    /// Names the runs in the folder.
    name: &'static str,
    memory: u64,
    buffer: Vec<T>,
    runs: Vec<PathBuf>,
    /// Runs written so far, merged ones included.
    n_written: usize,
}

impl<T: Pod + Ord> ExternalSort<T> {
    pub(crate) fn new(folder: &Path, name: &'static str, memory: u64) -> Self {
        Self {
            folder: folder.to_owned(),
            name,
            memory,
            buffer: Vec::new(),
            runs: Vec::new(),
            n_written: 0,
        }
    }

    /// Adds a record.
    pub(crate) fn push(&mut self, record: T) -> Result<()> {
        // Two thirds of `memory`: when the buffer grows to its capacity, the old one, of half the size, is in memory too.
        let capacity = (self.memory as usize / 3 * 2 / size_of::<T>()).max(4);
        if self.buffer.len() >= capacity {
            self.spill()?;
        }
        if self.buffer.len() == self.buffer.capacity() {
            // Each size is half the next one, up to the capacity. Doubling from a fixed size would end with a smaller
            // step, in which the old buffer is more than half of the new one.
            let mut size = capacity;
            while size / 2 > self.buffer.len().max(3) {
                size /= 2;
            }
            self.buffer.reserve_exact(size - self.buffer.len());
        }
        self.buffer.push(record);
        Ok(())
    }

    fn spill(&mut self) -> Result<()> {
        self.buffer.sort_unstable();
        let mut run = self.next_run()?;
        run.write(&self.buffer)?;
        self.buffer.clear();
        self.runs.push(run.path);
        Ok(())
    }

    fn next_run(&mut self) -> Result<SortedRunFile> {
        self.n_written += 1;
        let name = format!("{}-{:06}", self.name, self.n_written);
        SortedRunFile::create(self.folder.join(name))
    }

    /// Calls `visit` with the records, ascending. Equal ones come one after the other.
    ///
    /// # Errors
    /// Those of the file system and of `visit`, or a stop.
    pub(crate) fn for_each(
        mut self,
        progress: &Progress,
        mut visit: impl FnMut(T) -> Result<()>,
    ) -> Result<()> {
        let mut n = 0_u64;
        let mut checked = |record: T| {
            n += 1;
            if n.is_multiple_of(CHECK_INTERVAL) {
                progress.advance(0)?;
            }
            visit(record)
        };
        if self.runs.is_empty() {
            self.buffer.sort_unstable();
            return self.buffer.into_iter().try_for_each(checked);
        }
        if !self.buffer.is_empty() {
            self.spill()?;
        }
        self.buffer = Vec::new();
        while self.runs.len() > FAN_IN {
            self.merge_first_runs(progress)?;
        }
        let runs = std::mem::take(&mut self.runs);
        self.merge(&runs, &mut checked)
    }

    /// Merges the first [`FAN_IN`] runs, which were merged the least often, into one, which becomes the last.
    fn merge_first_runs(&mut self, progress: &Progress) -> Result<()> {
        let merged: Vec<PathBuf> = self.runs.drain(..FAN_IN).collect();
        let mut run = self.next_run()?;
        let n_buffered = self.buffer_records();
        let mut buffer = Vec::new();
        self.merge(&merged, &mut |record| {
            buffer.push(record);
            if buffer.len() >= n_buffered {
                progress.advance(0)?;
                run.write(&buffer)?;
                buffer.clear();
            }
            Ok(())
        })?;
        run.write(&buffer)?;
        self.runs.push(run.path);
        Ok(())
    }

    /// Records of the buffer of one run while runs are merged.
    fn buffer_records(&self) -> usize {
        // One for each run that is read, and one for the run that is written.
        let n = self.memory as usize / (FAN_IN + 1) / size_of::<T>();
        n.clamp(2, (1 << 20) / size_of::<T>())
    }

    /// Calls `visit` with the records of sorted runs, ascending, and removes the runs.
    fn merge(&self, runs: &[PathBuf], visit: &mut impl FnMut(T) -> Result<()>) -> Result<()> {
        let mut readers = Vec::with_capacity(runs.len());
        let mut heads = BinaryHeap::with_capacity(runs.len());
        for (index, path) in runs.iter().enumerate() {
            let mut reader = RecordReader::open(path, self.buffer_records())?;
            if let Some(record) = reader.next()? {
                heads.push(Reverse((record, index)));
            }
            readers.push(reader);
        }
        while let Some(mut head) = heads.peek_mut() {
            let Reverse((record, index)) = *head;
            visit(record)?;
            match readers[index].next()? {
                Some(next) => *head = Reverse((next, index)),
                None => drop(std::collections::binary_heap::PeekMut::pop(head)),
            }
        }
        runs.iter().try_for_each(|path| remove_if_there(path))
    }
}

/// A file of records that is written once.
struct SortedRunFile {
    path: PathBuf,
    file: File,
}

impl SortedRunFile {
    fn create(path: PathBuf) -> Result<Self> {
        let file = create(&path)?;
        Ok(Self { path, file })
    }

    fn write<T: Pod>(&mut self, records: &[T]) -> Result<()> {
        let written = self.file.write_all(bytemuck::cast_slice(records));
        written.map_err(|err| Error::io(&self.path, err))
    }
}

/// Writes a file of records of a fixed size.
pub(crate) struct RecordWriter<T> {
    run: SortedRunFile,
    buffer: Vec<T>,
    n_records: u64,
}

/// Records in the buffer of a [`RecordWriter`], and of a reader of what it wrote.
const BUFFER_RECORDS: usize = 1 << 13;

impl<T: Pod> RecordWriter<T> {
    pub(crate) fn create(path: PathBuf) -> Result<Self> {
        Ok(Self {
            run: SortedRunFile::create(path)?,
            buffer: Vec::new(),
            n_records: 0,
        })
    }

    pub(crate) fn push(&mut self, record: T) -> Result<()> {
        self.buffer.push(record);
        self.n_records += 1;
        if self.buffer.len() >= BUFFER_RECORDS {
            self.run.write(&self.buffer)?;
            self.buffer.clear();
        }
        Ok(())
    }

    /// Returns the finished file.
    pub(crate) fn finish(self) -> Result<RecordFile> {
        let Self {
            mut run,
            buffer,
            n_records,
        } = self;
        run.write(&buffer)?;
        Ok(RecordFile {
            path: run.path,
            n_records,
        })
    }
}

/// A file of records of a fixed size.
#[derive(Debug)]
pub(crate) struct RecordFile {
    path: PathBuf,
    pub(crate) n_records: u64,
}

impl RecordFile {
    /// A file of records of type `T` that exists.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn open<T: Pod>(path: PathBuf) -> Result<Self> {
        let found = std::fs::metadata(&path).map_err(|err| Error::io(&path, err))?;
        Ok(Self {
            n_records: found.len() / size_of::<T>() as u64,
            path,
        })
    }

    /// Reads the records from the start.
    pub(crate) fn read<T: Pod>(&self) -> Result<RecordReader<T>> {
        RecordReader::open(&self.path, BUFFER_RECORDS)
    }
}

/// Reads records of a fixed size from a file.
pub(crate) struct RecordReader<T> {
    path: PathBuf,
    file: File,
    /// Records of the file that are not in the buffer yet.
    n_unread: u64,
    buffer: Vec<T>,
    next: usize,
    n_buffered: usize,
}

impl<T: Pod> RecordReader<T> {
    fn open(path: &Path, n_buffered: usize) -> Result<Self> {
        let fail = |err| Error::io(path, err);
        let file = File::open(path).map_err(fail)?;
        let n_bytes = file.metadata().map_err(fail)?.len();
        Ok(Self {
            path: path.to_owned(),
            file,
            n_unread: n_bytes / size_of::<T>() as u64,
            buffer: Vec::new(),
            next: 0,
            n_buffered,
        })
    }

    /// The next record.
    pub(crate) fn next(&mut self) -> Result<Option<T>> {
        if self.next == self.buffer.len() {
            let n = self.n_unread.min(self.n_buffered as u64);
            self.n_unread -= n;
            self.buffer.resize(n as usize, T::zeroed());
            self.next = 0;
            let read = self
                .file
                .read_exact(bytemuck::cast_slice_mut(&mut self.buffer));
            read.map_err(|err| Error::io(&self.path, err))?;
        }
        let record = self.buffer.get(self.next).copied();
        self.next += 1;
        if record.is_none() {
            self.next = 0;
        }
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn equals_sorting_in_memory(records in vec(0_u64..50, 0..300), memory in 0_u64..3000) {
            let folder = tempfile::tempdir().unwrap();
            let mut sort = ExternalSort::new(folder.path(), "run", memory);
            for record in &records {
                sort.push(u128::from(*record) << 70).unwrap();
            }
            let mut found = Vec::new();
            sort.for_each(&Progress::default(), |record| {
                found.push((record >> 70) as u64);
                Ok(())
            })
            .unwrap();
            let mut expected = records;
            expected.sort_unstable();
            prop_assert_eq!(found, expected);
            prop_assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn written_records_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = RecordWriter::create(folder.path().join("a")).unwrap();
        let n = 2 * BUFFER_RECORDS as u64 + 5;
        (0..n).for_each(|i| writer.push(i).unwrap());
        let file = writer.finish().unwrap();
        assert_eq!(file.n_records, n);
        let mut reader = file.read::<u64>().unwrap();
        for i in 0..n {
            assert_eq!(reader.next().unwrap(), Some(i));
        }
        assert_eq!(
            (reader.next().unwrap(), reader.next().unwrap()),
            (None, None)
        );
    }
}
