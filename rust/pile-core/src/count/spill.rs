//! Sorted runs of counts in the folder of an unfinished job.

use std::{
    path::{Path, PathBuf},
    sync::Mutex,
};

use serde::{Deserialize, Serialize};

use super::runs::{self, RunWriter, Summed};
use crate::{
    Error, Result,
    io::{self, Checksum, Scratch},
    progress::Progress,
};

/// Runs that are merged at once.
const FAN_IN: usize = if cfg!(test) { 4 } else { 64 };

/// Bytes of the buffers of all runs that are merged.
const MERGE_BYTES: u64 = 64 << 20;

/// One run.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Run {
    name: String,
    /// Tokens or words of its n-grams.
    n: usize,
    n_bytes: u64,
}

/// A part of the input of which the runs are finished: up to `end`, in the units of the job.
#[derive(Debug, Serialize, Deserialize)]
struct Piece {
    what: String,
    end: u64,
}

/// What stands in the folder's state.
#[derive(Debug, Default, Serialize, Deserialize)]
struct State {
    job: String,
    runs: Vec<Run>,
    pieces: Vec<Piece>,
    /// What else the job needs to go on.
    notes: Vec<String>,
    n_named: u64,
}

/// The runs of a job.
pub(super) struct Spill {
    scratch: Scratch,
    state: State,
    free_bytes: u64,
    merge_bytes: u64,
}

/// Runs in the making, of one piece.
#[derive(Default)]
pub(super) struct Making {
    runs: Vec<(Run, Checksum)>,
    n_named: u64,
}

impl Spill {
    /// The runs of an earlier start of this very job, or none.
    ///
    /// # Errors
    /// Those of another job are there and `discard` is off; or the file system fails.
    pub(super) fn open(
        folder: &Path,
        job: &str,
        discard: bool,
        (free_bytes, memory): (u64, u64),
        progress: &Progress,
    ) -> Result<Self> {
        let (scratch, saved) =
            Scratch::open(folder, discard, progress, |state: &State| state.job == job)?;
        let state = saved.unwrap_or_else(|| State {
            job: job.to_owned(),
            ..State::default()
        });
        // A state may have been written by anyone: no file is opened but those that were just compared.
        if let Some(run) = state
            .runs
            .iter()
            .find(|run| !scratch.is_finished(&run.name))
        {
            let what = format!(
                "its state names a run {:?} that is not among its files; remove the folder",
                run.name
            );
            return Err(Error::malformed(folder, what));
        }
        Ok(Self {
            scratch,
            state,
            free_bytes,
            merge_bytes: (memory / 4).min(MERGE_BYTES),
        })
    }

    /// A file of the folder that is not a run.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.scratch.path(name)
    }

    /// How far the finished pieces of a kind reach.
    pub(super) fn end(&self, what: &str) -> u64 {
        let of_kind = self.state.pieces.iter().filter(|piece| piece.what == what);
        of_kind.map(|piece| piece.end).max().unwrap_or(0)
    }

    /// What was noted when the last piece was finished.
    pub(super) fn notes(&self) -> &[String] {
        &self.state.notes
    }

    /// Where new runs get their names.
    pub(super) fn begin(&self) -> Mutex<Making> {
        Mutex::new(Making {
            runs: Vec::new(),
            n_named: self.state.n_named,
        })
    }

    /// Writes a run of n-grams of `n` tokens or words; `fill` appends its records.
    pub(super) fn write(
        &self,
        making: &Mutex<Making>,
        n: usize,
        fill: impl FnOnce(&mut RunWriter) -> Result<()>,
    ) -> Result<()> {
        let name = {
            let mut making = making.lock().unwrap_or_else(|err| err.into_inner());
            making.n_named += 1;
            format!("run-{:06}", making.n_named)
        };
        let mut run = RunWriter::create(&self.scratch.path(&name))?;
        fill(&mut run)?;
        let checksum = run.finish()?;
        let n_bytes = checksum.n_bytes();
        let mut making = making.lock().unwrap_or_else(|err| err.into_inner());
        making.runs.push((Run { name, n, n_bytes }, checksum));
        Ok(())
    }

    /// Keeps the runs of a finished piece.
    pub(super) fn keep(
        &mut self,
        making: Mutex<Making>,
        (what, end): (&str, u64),
        notes: Vec<String>,
    ) -> Result<()> {
        self.take(making);
        let what = what.to_owned();
        self.state.pieces.push(Piece { what, end });
        self.state.notes = notes;
        self.scratch.save(&self.state)
    }

    /// Keeps finished runs.
    fn take(&mut self, making: Mutex<Making>) {
        let made = making.into_inner().unwrap_or_else(|err| err.into_inner());
        for (run, checksum) in made.runs {
            self.scratch.finish_file(&run.name, &checksum);
            self.state.runs.push(run);
        }
        self.state.n_named = made.n_named;
    }

    /// Records a shard that kept runs are counted from.
    pub(super) fn use_input(&mut self, path: &Path, sha256: &str) {
        self.scratch.use_input(path, sha256);
    }

    /// Fails if `more_bytes` will not fit the disk.
    pub(super) fn check_room(&self, more_bytes: u64) -> Result<()> {
        let used: u64 = self.state.runs.iter().map(|run| run.n_bytes).sum();
        let free = self.free_bytes.saturating_sub(used);
        if more_bytes <= free {
            return Ok(());
        }
        let mb = |bytes: u64| bytes.div_ceil(1 << 20);
        let what = format!(
            "the counts do not fit the memory, and to spill the rest of them may need {} MiB of disk here, \
             where {} MiB are free: free {} MiB, give more --memory, or an output on another disk",
            mb(more_bytes),
            mb(free),
            mb(more_bytes - free),
        );
        Err(Error::malformed(&self.scratch.path(""), what))
    }

    /// Bytes of the runs of n-grams of `n` tokens.
    pub(super) fn n_bytes(&self, n: usize) -> u64 {
        let runs = self.state.runs.iter().filter(|run| run.n == n);
        runs.map(|run| run.n_bytes).sum()
    }

    /// Calls `take` with all records of n-grams of `n` tokens or words, ascending.
    pub(super) fn merge(
        &mut self,
        n: usize,
        take: impl FnMut(&[u8], u32, u64) -> Result<()>,
    ) -> Result<()> {
        while self.of(n).len() > FAN_IN {
            self.merge_some(n)?;
        }
        let paths = self.paths(&self.of(n));
        runs::merge(&paths, self.buffer_bytes(), take)
    }

    fn of(&self, n: usize) -> Vec<Run> {
        let runs = self.state.runs.iter().filter(|run| run.n == n);
        runs.cloned().collect()
    }

    fn paths(&self, runs: &[Run]) -> Vec<PathBuf> {
        let path = |run: &Run| self.scratch.path(&run.name);
        runs.iter().map(path).collect()
    }

    fn buffer_bytes(&self) -> usize {
        (self.merge_bytes as usize / FAN_IN).max(1 << 12)
    }

    /// Makes one run of the first ones: runs are as many times larger as they were merged, so those at the
    /// front, the smallest, come next.
    fn merge_some(&mut self, n: usize) -> Result<()> {
        let merged: Vec<Run> = self.of(n).into_iter().take(FAN_IN).collect();
        let making = self.begin();
        self.write(&making, n, |run| {
            let mut bytes = Vec::new();
            let mut summed = Summed::new(|key: &[u8], group, count| {
                bytes.clear();
                runs::put(&mut bytes, key, group, count);
                run.append(&bytes)
            });
            runs::merge(
                &self.paths(&merged),
                self.buffer_bytes(),
                |key, group, count| summed.add(key, group, count),
            )?;
            summed.finish()
        })?;
        let is_merged = |run: &Run| merged.iter().any(|old| old.name == run.name);
        self.state.runs.retain(|run| !is_merged(run));
        for run in &merged {
            self.scratch.forget_file(&run.name);
        }
        self.take(making);
        self.scratch.save(&self.state)?;
        for path in self.paths(&merged) {
            io::remove_if_there(&path)?;
        }
        Ok(())
    }
}
