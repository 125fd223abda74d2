//! The scratch folder of the job: sorted runs by kind, files of fixed-size rows, and the saved state.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::records::{RecordBuffer, RunEncoder, merge};
use crate::{
    Error, Result,
    io::{GrowingFile, Mapped, Scratch, remove_if_there},
    progress::Progress,
};

/// Maximum number of runs that are merged at once. Each is an open file, of which a process has 1,024 by default.
const FAN_IN: usize = if cfg!(test) { 4 } else { 256 };

/// Minimum bytes of a buffer of records.
const MIN_BUFFER: usize = if cfg!(test) { 1 << 11 } else { 1 << 20 };

/// What the records of a run are. Fields are named in the order of their bytes in the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum RunKind {
    /// Hash and position of an anchor.
    Anchors,
    /// Position of an anchor whose hash occurs at least twice.
    Repeated,
    /// The windows of a repeated anchor: see [`super::contexts`].
    Contexts,
    /// The windows of an anchor that has too many different contexts for memory: see [`super::groups`].
    Windows,
    /// Ranges of repeated windows.
    Ranges,
}

impl fmt::Display for RunKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anchors => "anchors",
            Self::Repeated => "repeated",
            Self::Contexts => "contexts",
            Self::Windows => "windows",
            Self::Ranges => "ranges",
        })
    }
}

/// What positions count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum WindowUnit {
    #[default]
    Bytes,
    Tokens,
}

/// The steps of the job. The state has the last one that is finished.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum FinishedStep {
    /// Shards are still to be scanned for anchors.
    #[default]
    None,
    /// The anchors of all shards are in runs.
    Anchors,
    /// The positions of the repeated ones are in a file.
    Repeated,
    /// Their windows are in runs.
    Contexts,
    /// The ranges of repeated windows are in runs.
    Ranges,
    /// The rows of passages are in a file.
    Passages,
}

/// A shard that was scanned for anchors.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ScannedShard {
    pub(super) bytes: u64,
    pub(super) sha256: String,
    pub(super) n_bad_records: u64,
    /// End of its documents, which are numbered over all shards.
    pub(super) end_document: u64,
    /// End of the positions of its units.
    pub(super) end_position: u64,
}

/// Figures of the documents of a subset.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubsetPassages {
    /// Its name; `None` for the documents without one.
    pub name: Option<String>,
    /// Documents.
    pub n_documents: u64,
    /// Bytes of their texts.
    pub n_text_bytes: u64,
    /// Bytes in passages, trimmed to UTF-8 borders.
    pub n_repeated_bytes: u64,
}

/// The state that is saved.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct PassagesState {
    pub(super) job: String,
    pub(super) unit: WindowUnit,
    pub(super) finished: FinishedStep,
    pub(super) shards: Vec<ScannedShard>,
    /// Shards whose contexts are written.
    pub(super) n_context_shards: usize,
    /// In the order in which they first occur.
    pub(super) subsets: Vec<SubsetPassages>,
    pub(super) n_passages: u64,
    runs: BTreeMap<RunKind, Vec<String>>,
    n_named: u64,
}

impl PassagesState {
    pub(super) fn n_documents(&self) -> u64 {
        self.shards.last().map_or(0, |shard| shard.end_document)
    }

    pub(super) fn end_position(&self) -> u64 {
        self.shards.last().map_or(0, |shard| shard.end_position)
    }
}

/// The job's files and state.
pub(super) struct Store {
    pub(super) scratch: Scratch,
    pub(super) state: PassagesState,
    memory: u64,
}

impl Store {
    /// Opens or creates the folder. A job that was interrupted resumes from its saved state.
    pub(super) fn open(
        folder: &Path,
        job: &str,
        unit: WindowUnit,
        discard: bool,
        memory: u64,
        progress: &Progress,
    ) -> Result<Self> {
        let may_resume = |state: &PassagesState| state.job == job && state.unit == unit;
        let (scratch, saved) = Scratch::open(folder, discard, progress, may_resume)?;
        let state = saved.unwrap_or_else(|| PassagesState {
            job: job.to_owned(),
            unit,
            ..PassagesState::default()
        });
        // Anyone may have written the state. `Scratch::open` has checked the files that it records; no other file
        // may be opened.
        let mut names = state.runs.values().flatten();
        if let Some(name) = names.find(|name| !scratch.is_finished(name)) {
            let what = format!("the state names a run {name:?} that is not among its files");
            return Err(Error::malformed(folder, what));
        }
        Ok(Self {
            scratch,
            state,
            memory,
        })
    }

    /// A part of the memory limit in bytes.
    pub(super) fn memory_share(&self, divisor: u64) -> usize {
        usize::try_from(self.memory / divisor)
            .unwrap_or(usize::MAX)
            .max(MIN_BUFFER)
    }

    pub(super) fn save(&self) -> Result<()> {
        self.scratch.save(&self.state)
    }

    /// Records that a step is finished, and removes the runs and the file that no later step needs.
    pub(super) fn finish_step(
        &mut self,
        step: FinishedStep,
        unneeded_runs: &[RunKind],
        unneeded_file: Option<&str>,
    ) -> Result<()> {
        self.state.finished = step;
        let runs = unneeded_runs
            .iter()
            .filter_map(|kind| self.state.runs.remove(kind));
        let mut unneeded: Vec<String> = runs.flatten().collect();
        unneeded.extend(unneeded_file.map(str::to_owned));
        self.remove_files(&unneeded)
    }

    /// Writes the records of a buffer to a run, and clears it. The run is part of the state once that is saved.
    pub(super) fn write_run(&mut self, kind: RunKind, buffer: &mut RecordBuffer) -> Result<()> {
        if buffer.is_empty() {
            return Ok(());
        }
        let mut run = self.new_run(kind)?;
        let mut encoder = RunEncoder::default();
        buffer.drain(|record| run.1.push(encoder.encode(record)))?;
        self.finish_run(kind, run)
    }

    /// Writes a run if the buffer is full.
    pub(super) fn write_run_if_full(
        &mut self,
        kind: RunKind,
        buffer: &mut RecordBuffer,
    ) -> Result<()> {
        match buffer.is_full() {
            true => self.write_run(kind, buffer),
            false => Ok(()),
        }
    }

    fn new_run(&mut self, kind: RunKind) -> Result<(String, GrowingFile)> {
        self.state.n_named += 1;
        let name = format!("{kind}-{:06}", self.state.n_named);
        // An interrupted run of the job may have left a file of this name.
        remove_if_there(&self.scratch.path(&name))?;
        let file = self.scratch.grow(&name)?;
        Ok((name, file))
    }

    fn finish_run(&mut self, kind: RunKind, (name, mut file): (String, GrowingFile)) -> Result<()> {
        file.finish(&mut self.scratch)?;
        self.state.runs.entry(kind).or_default().push(name);
        Ok(())
    }

    fn runs(&self, kind: RunKind) -> &[String] {
        self.state.runs.get(&kind).map_or(&[], Vec::as_slice)
    }

    pub(super) fn has_runs(&self, kind: RunKind) -> bool {
        !self.runs(kind).is_empty()
    }

    /// The paths of the runs of a kind, to be merged with [`Self::buffer_bytes`] each.
    ///
    /// If there are too many, the first ones are merged into one, which becomes the last. The first ones were merged the
    /// least often, so each record is copied about log(runs) / log([`FAN_IN`]) times.
    pub(super) fn runs_to_merge(
        &mut self,
        kind: RunKind,
        progress: &Progress,
    ) -> Result<Vec<PathBuf>> {
        while self.runs(kind).len() > FAN_IN {
            let mut run = self.new_run(kind)?;
            let mut encoder = RunEncoder::default();
            let merged = self.paths(&self.runs(kind)[..FAN_IN]);
            merge(&merged, self.buffer_bytes(), progress, |record| {
                run.1.push(encoder.encode(record))
            })?;
            self.finish_run(kind, run)?;
            self.remove_first_runs(kind, FAN_IN)?;
        }
        Ok(self.paths(self.runs(kind)))
    }

    /// Bytes of the read buffer of a run: a quarter of the memory for all.
    pub(super) fn buffer_bytes(&self) -> usize {
        (self.memory_share(4) / FAN_IN).clamp(1 << 12, 1 << 20)
    }

    fn paths(&self, names: &[String]) -> Vec<PathBuf> {
        names.iter().map(|name| self.scratch.path(name)).collect()
    }

    pub(super) fn remove_runs(&mut self, kind: RunKind) -> Result<()> {
        self.remove_first_runs(kind, self.runs(kind).len())
    }

    fn remove_first_runs(&mut self, kind: RunKind, n: usize) -> Result<()> {
        let names: Vec<String> = match self.state.runs.get_mut(&kind) {
            Some(names) => names.drain(..n).collect(),
            None => Vec::new(),
        };
        self.remove_files(&names)
    }

    /// Saves the state, which does not refer to the files any more, and removes them.
    fn remove_files(&mut self, names: &[String]) -> Result<()> {
        for name in names {
            self.scratch.forget_file(name);
        }
        self.save()?;
        for path in self.paths(names) {
            remove_if_there(&path)?;
        }
        Ok(())
    }
}

/// A mapped file of rows of `N` little-endian numbers.
pub(super) struct Rows<const N: usize> {
    file: Mapped,
}

impl<const N: usize> Rows<N> {
    pub(super) fn open(store: &Store, name: &str, n_rows: u64) -> Result<Self> {
        let path = store.scratch.path(name);
        let file = Mapped::open_written(&path, n_rows, 8 * N as u64)?;
        Ok(Self { file })
    }

    pub(super) fn len(&self) -> usize {
        self.file.bytes().len() / (8 * N)
    }

    pub(super) fn row(&self, index: usize) -> [u64; N] {
        let row = &self.file.bytes()[index * 8 * N..][..8 * N];
        let numbers = row.as_chunks::<8>().0;
        std::array::from_fn(|i| u64::from_le_bytes(numbers[i]))
    }

    /// The first index from `first` to `end` for whose row `is_before` is false, or `end`. The rows for which it is
    /// true come first.
    pub(super) fn partition_point(
        &self,
        mut first: usize,
        mut end: usize,
        is_before: impl Fn([u64; N]) -> bool,
    ) -> usize {
        while first < end {
            let middle = first.midpoint(end);
            match is_before(self.row(middle)) {
                true => first = middle + 1,
                false => end = middle,
            }
        }
        first
    }
}

/// The bytes of a row.
pub(super) fn row_bytes<const N: usize>(row: [u64; N]) -> Vec<u8> {
    row.iter().flat_map(|number| number.to_le_bytes()).collect()
}
