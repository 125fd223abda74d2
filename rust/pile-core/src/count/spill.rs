//! The sorted runs of a job, in its scratch folder.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};

use super::runs::{self, RunWriter, SumEqual};
use crate::{
    Error, Result,
    io::{self, Checksum, Scratch},
    progress::Progress,
};

/// Maximum number of runs that are merged at once.
const FAN_IN: usize = if cfg!(test) { 4 } else { 64 };

/// Maximum bytes of the buffers of all runs that are merged.
const MAX_MERGE_BYTES: u64 = 64 << 20;

/// The file of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct RunFile {
    name: String,
    /// Tokens or words of its n-grams.
    n: usize,
    n_bytes: u64,
}

/// The part of the input whose runs are finished.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct FinishedInput {
    /// What was read or counted. A job may make several passes over its input.
    pub(super) what: String,
    /// The end of the part. The unit is the job's: tokens or shards.
    pub(super) end: u64,
}

/// The state that is saved in the scratch folder.
#[derive(Debug, Default, Serialize, Deserialize)]
struct SpillState {
    job: String,
    runs: Vec<RunFile>,
    finished: Vec<FinishedInput>,
    /// The job's own state at the end of the last finished part.
    job_state: Vec<String>,
    /// Names given to runs so far, those of removed runs included.
    n_named: u64,
}

/// The resources that runs may use.
#[derive(Debug, Clone, Copy)]
pub(super) struct SpillLimits {
    /// Bytes that were free on the disk of the scratch folder before the job's first run.
    pub(super) free_bytes: u64,
    /// The job's memory in bytes.
    pub(super) memory: u64,
}

/// The runs of a job.
pub(super) struct Spill {
    scratch: Scratch,
    state: SpillState,
    free_bytes: u64,
    merge_bytes: u64,
}

/// Runs that were written, but belong to a part of the input that is not finished.
#[derive(Default)]
pub(super) struct PendingRuns {
    runs: Vec<(RunFile, Checksum)>,
    n_named: u64,
}

impl Spill {
    /// Opens or creates the scratch folder. The runs of an interrupted run of the same job are reused.
    ///
    /// # Errors
    /// The folder has runs of another job and `discard` is off; its state is malformed; the file system fails; or
    /// a stop.
    pub(super) fn open(
        folder: &Path,
        job: &str,
        discard: bool,
        limits: SpillLimits,
        progress: &Progress,
    ) -> Result<Self> {
        let (scratch, saved) = Scratch::open(folder, discard, progress, |state: &SpillState| {
            state.job == job
        })?;
        let state = saved.unwrap_or_else(|| SpillState {
            job: job.to_owned(),
            ..SpillState::default()
        });
        // Anyone may have written the state, so its names are untrusted. `Scratch::open` has checked the names and
        // checksums of the files that it records; no other file is opened.
        if let Some(run) = state
            .runs
            .iter()
            .find(|run| !scratch.is_finished(&run.name))
        {
            let what = format!(
                "the state names a run {:?} that is not among its files; remove the folder",
                run.name
            );
            return Err(Error::malformed(folder, what));
        }
        Ok(Self {
            scratch,
            state,
            free_bytes: limits.free_bytes,
            merge_bytes: (limits.memory / 4).min(MAX_MERGE_BYTES),
        })
    }

    /// The path of a file in the scratch folder.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.scratch.path(name)
    }

    /// The end of the finished parts of `what`.
    pub(super) fn finished_end(&self, what: &str) -> u64 {
        let of_kind = self.state.finished.iter().filter(|part| part.what == what);
        of_kind.map(|part| part.end).max().unwrap_or(0)
    }

    /// The job's own state at the end of the last finished part.
    pub(super) fn job_state(&self) -> &[String] {
        &self.state.job_state
    }

    /// Starts the runs of the next part of the input.
    pub(super) fn begin(&self) -> Mutex<PendingRuns> {
        Mutex::new(PendingRuns {
            runs: Vec::new(),
            n_named: self.state.n_named,
        })
    }

    /// Writes a run of n-grams of `n` tokens or words. `fill` appends its records.
    pub(super) fn write(
        &self,
        pending: &Mutex<PendingRuns>,
        n: usize,
        fill: impl FnOnce(&mut RunWriter) -> Result<()>,
    ) -> Result<()> {
        // The lock is not held while the run is written: other threads write runs at the same time.
        let name = {
            let mut pending = pending.lock().unwrap_or_else(PoisonError::into_inner);
            pending.n_named += 1;
            format!("run-{:06}", pending.n_named)
        };
        let mut run = RunWriter::create(&self.scratch.path(&name))?;
        fill(&mut run)?;
        let checksum = run.finish()?;
        let n_bytes = checksum.n_bytes();
        let mut pending = pending.lock().unwrap_or_else(PoisonError::into_inner);
        pending.runs.push((RunFile { name, n, n_bytes }, checksum));
        Ok(())
    }

    /// Records the runs of a finished part of the input, and saves the state. A job that is killed later resumes
    /// after this part.
    pub(super) fn finish_input(
        &mut self,
        pending: Mutex<PendingRuns>,
        input: FinishedInput,
        job_state: Vec<String>,
    ) -> Result<()> {
        self.record(pending);
        self.state.finished.push(input);
        self.state.job_state = job_state;
        self.scratch.save(&self.state)
    }

    /// Adds the runs to the state, which is not saved.
    fn record(&mut self, pending: Mutex<PendingRuns>) {
        let pending = pending.into_inner().unwrap_or_else(PoisonError::into_inner);
        for (run, checksum) in pending.runs {
            self.scratch.finish_file(&run.name, &checksum);
            self.state.runs.push(run);
        }
        self.state.n_named = pending.n_named;
    }

    /// Declares the shards of the job; see [`Scratch::declare_inputs`].
    pub(super) fn declare_inputs(&mut self, shards: &[PathBuf]) {
        self.scratch.declare_inputs(shards);
    }

    /// Records a shard from which runs were made.
    pub(super) fn use_input(&mut self, path: &Path, sha256: &str) {
        self.scratch.use_input(path, sha256);
    }

    /// Fails if the disk has no space for `more_bytes`.
    pub(super) fn check_disk_space(&self, more_bytes: u64) -> Result<()> {
        let used: u64 = self.state.runs.iter().map(|run| run.n_bytes).sum();
        let free = self.free_bytes.saturating_sub(used);
        if more_bytes <= free {
            return Ok(());
        }
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        let what = format!(
            "the counts do not fit the memory, and to spill the rest of them may need {} MiB of disk here, \
             where {} MiB are free: free {} MiB, allow more memory, or write the output to another disk",
            mib(more_bytes),
            mib(free),
            mib(more_bytes - free),
        );
        Err(Error::malformed(&self.scratch.path(""), what))
    }

    /// Bytes of the runs of n-grams of `n` tokens or words.
    pub(super) fn n_bytes(&self, n: usize) -> u64 {
        let runs = self.state.runs.iter().filter(|run| run.n == n);
        runs.map(|run| run.n_bytes).sum()
    }

    /// Calls `visit` with the key, group and count of each record of n-grams of `n` tokens or words, ascending.
    /// Several records may have the same key and group.
    ///
    /// # Errors
    /// A run is malformed or has a group that is not below `n_groups`; the file system fails; or an error of `visit`.
    pub(super) fn merge(
        &mut self,
        n: usize,
        n_groups: usize,
        mut visit: impl FnMut(&[u8], u32, u64) -> Result<()>,
    ) -> Result<()> {
        while self.runs_of(n).len() > FAN_IN {
            self.merge_first_runs(n)?;
        }
        let paths = self.paths(&self.runs_of(n));
        runs::merge(&paths, self.buffer_bytes(), |key, group, count| {
            if group as usize >= n_groups {
                let what = format!("a run of counts has group {group} of {n_groups} groups");
                return Err(Error::malformed(&self.scratch.path(""), what));
            }
            visit(key, group, count)
        })
    }

    fn runs_of(&self, n: usize) -> Vec<RunFile> {
        let runs = self.state.runs.iter().filter(|run| run.n == n);
        runs.cloned().collect()
    }

    fn paths(&self, runs: &[RunFile]) -> Vec<PathBuf> {
        let path = |run: &RunFile| self.scratch.path(&run.name);
        runs.iter().map(path).collect()
    }

    /// Bytes of the read buffer of one run.
    fn buffer_bytes(&self) -> usize {
        (self.merge_bytes as usize / FAN_IN).max(1 << 12)
    }

    /// Merges the first runs into one, which becomes the last. So the first runs are always those that were
    /// merged the least, which are the smallest, and each record is copied about log(runs) / log(FAN_IN) times.
    fn merge_first_runs(&mut self, n: usize) -> Result<()> {
        let merged: Vec<RunFile> = self.runs_of(n).into_iter().take(FAN_IN).collect();
        let pending = self.begin();
        self.write(&pending, n, |run| {
            let mut bytes = Vec::new();
            let mut sums = SumEqual::new(|key: &[u8], group, count| {
                bytes.clear();
                runs::put_record(&mut bytes, key, group, count);
                run.append(&bytes)
            });
            runs::merge(
                &self.paths(&merged),
                self.buffer_bytes(),
                |key, group, count| sums.add(key, group, count),
            )?;
            sums.finish()
        })?;
        let is_merged = |run: &RunFile| merged.iter().any(|old| old.name == run.name);
        self.state.runs.retain(|run| !is_merged(run));
        for run in &merged {
            self.scratch.forget_file(&run.name);
        }
        self.record(pending);
        // The state is saved before the files are removed: it must not refer to removed files.
        self.scratch.save(&self.state)?;
        for path in self.paths(&merged) {
            io::remove_if_there(&path)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_with_an_unknown_group_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let limits = SpillLimits {
            free_bytes: u64::MAX,
            memory: 0,
        };
        let progress = Progress::default();
        let mut spill = Spill::open(folder.path(), "job", false, limits, &progress).unwrap();
        let pending = spill.begin();
        let mut record = Vec::new();
        runs::put_record(&mut record, b"key", 2, 1);
        spill.write(&pending, 1, |run| run.append(&record)).unwrap();
        spill.record(pending);
        spill.merge(1, 3, |_, _, _| Ok(())).unwrap();
        let err = spill.merge(1, 2, |_, _, _| Ok(())).unwrap_err();
        assert!(err.to_string().contains("group 2 of 2 groups"), "{err}");
    }
}
