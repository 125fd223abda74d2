//! Writes shards again, without some records or with other texts or marks.
//!
//! All other bytes stay: line ends, blank lines, byte-order marks and bad records included. A shard without changes is
//! copied. The bytes of a shard depend on its data, its changes and the compression level alone.
//!
//! A thread writes a shard, one block at a time. A finished shard is recorded, so that a job that is killed resumes
//! with the others.

mod changes;
mod compressor;
mod line_copier;
mod parquet;
mod shard;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use serde::{Deserialize, Serialize};

pub use self::changes::{Changes, Cuts, Marks, RecordColumns};
use self::{compressor::Levels, shard::ShardRewriter};
use super::{Rules, format::is_stream};
use crate::{
    Error, Result,
    io::{GrowingFile, Scratch, share_work},
    progress::Progress,
};

/// The settings of a job that writes shards again.
#[derive(Debug, Clone)]
pub struct RewriteConfig<'a> {
    /// The shards. None may be a stream.
    pub shards: Vec<PathBuf>,
    /// The file name of each new shard in `folder`. A new shard has the format and compression of the old one, so its
    /// name should end as the old one's does.
    pub names: Vec<String>,
    /// SHA-256 that each shard must have, in hexadecimal; empty for no check.
    pub sha256: Vec<String>,
    /// How records are read.
    pub rules: Rules,
    /// What changes.
    pub changes: Changes<'a>,
    /// Compression level of zstd.
    pub zstd_level: i32,
    /// Compression level of gzip.
    pub gzip_level: u32,
    /// Folder for the files, unfinished and finished.
    pub folder: PathBuf,
    /// Names everything that the files depend on. Finished shards are resumed only by a job of the same name.
    pub job: String,
    /// Whether finished shards of another job in the folder are discarded; otherwise they are an error.
    pub discard: bool,
    /// Number of threads.
    pub n_threads: usize,
}

/// Figures of one shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RewrittenShard {
    /// The path as given.
    pub path: String,
    /// Size of the shard in bytes.
    pub bytes: u64,
    /// SHA-256 of the shard.
    pub sha256: String,
    /// Records that were written, bad ones included; `None` for a shard that was copied, as its records are not read.
    pub n_kept: Option<u64>,
    /// Records that were left out.
    pub n_removed: u64,
    /// Records of whose text something was cut.
    pub n_cut: u64,
    /// Records that were marked.
    pub n_marked: u64,
    /// Bytes of the texts that were left out, and of what was cut from others.
    pub n_text_bytes_removed: u64,
    /// The new shard; `None` for a shard of one document (`.txt`) that was removed.
    pub output: Option<WrittenShard>,
}

/// A new shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrittenShard {
    /// Name of the file in the folder.
    pub name: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// Its SHA-256.
    pub sha256: String,
}

/// Figures of a finished job.
#[derive(Debug, Clone, Serialize)]
pub struct RewriteSummary {
    /// Shards that an earlier, interrupted run finished.
    pub n_resumed_shards: usize,
    /// By shard.
    pub shards: Vec<RewrittenShard>,
}

/// The state of a job, saved after each shard.
#[derive(Serialize, Deserialize)]
struct RewriteState {
    job: String,
    shards: Vec<FinishedShard>,
}

/// A finished shard. Shards finish in any order.
#[derive(Serialize, Deserialize)]
struct FinishedShard {
    number: usize,
    #[serde(flatten)]
    result: RewrittenShard,
}

impl RewriteState {
    /// Whether the job of `config` may resume from this state.
    fn may_resume(&self, config: &RewriteConfig<'_>) -> bool {
        let numbers: BTreeSet<usize> = self.shards.iter().map(|done| done.number).collect();
        let is_same = |done: &FinishedShard| {
            let path = config.shards.get(done.number);
            let name = done.result.output.as_ref().map(|output| &output.name);
            path.is_some_and(|path| done.result.path == path.to_string_lossy())
                && name.is_none_or(|name| *name == config.names[done.number])
        };
        self.job == config.job
            && numbers.len() == self.shards.len()
            && self.shards.iter().all(is_same)
    }
}

/// Runs the job or resumes it. `progress` advances by the bytes of the shards as stored.
///
/// # Errors
/// Invalid settings; a shard that cannot be read, or that differs from what the changes or the checksums say; a record
/// that cannot be changed as wanted; the file system; or a stop. The first failure in the order of the shards is
/// returned, and finished shards are kept for the next run.
pub fn rewrite_shards(config: &RewriteConfig<'_>, progress: &Progress) -> Result<RewriteSummary> {
    config.check()?;
    let (mut scratch, state) = Scratch::open(
        &config.folder,
        config.discard,
        progress,
        |state: &RewriteState| state.may_resume(config),
    )?;
    scratch.declare_inputs(&config.shards);
    let finished = state.map_or_else(Vec::new, |state| state.shards);
    // Anyone may have written the state: a file that it does not record is not finished.
    let is_there = |done: &FinishedShard| {
        let output = done.result.output.as_ref();
        output.is_none_or(|output| scratch.is_finished(&output.name))
    };
    let finished: Vec<FinishedShard> = finished.into_iter().filter(is_there).collect();
    let n_resumed_shards = finished.len();
    for done in &finished {
        progress.advance(done.result.bytes)?;
    }
    let is_finished = |number: &usize| finished.iter().any(|done| done.number == *number);
    let numbers: Vec<usize> = (0..config.shards.len())
        .filter(|number| !is_finished(number))
        .collect();
    let job = RewriteJob {
        config,
        progress,
        numbers,
        next: AtomicUsize::new(0),
        first_failed: AtomicUsize::new(usize::MAX),
        shared: Mutex::new(SharedState {
            scratch,
            finished,
            failure: None,
        }),
    };
    share_work(config.n_threads.max(1), || job.work());
    let shared = job
        .shared
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    if let Some((_, err)) = shared.failure {
        return Err(err);
    }
    let mut finished = shared.finished;
    finished.sort_by_key(|done| done.number);
    Ok(RewriteSummary {
        n_resumed_shards,
        shards: finished.into_iter().map(|done| done.result).collect(),
    })
}

impl RewriteConfig<'_> {
    fn check(&self) -> Result<()> {
        let n = self.shards.len();
        let is_checked = self.sha256.len() == n || self.sha256.is_empty();
        if self.names.len() != n || !is_checked {
            return Err(Error::argument("each shard needs a name and a checksum"));
        }
        let distinct: BTreeSet<&String> = self.names.iter().collect();
        if distinct.len() < n || self.names.iter().any(|name| name.contains('/')) {
            return Err(Error::argument(
                "each shard needs a different name, without /",
            ));
        }
        if let Some(name) = self.names.iter().find(|name| Scratch::has_own(name)) {
            let what =
                format!("a new shard cannot be named {name}: the job has a file of this name");
            return Err(Error::argument(what));
        }
        if let Some(stream) = self.shards.iter().find(|path| is_stream(path)) {
            let what = "a stream can be read only once, so it cannot be written again";
            return Err(Error::malformed(stream, what));
        }
        self.changes.check(n)?;
        self.levels().check()
    }

    fn levels(&self) -> Levels {
        Levels {
            zstd: self.zstd_level,
            gzip: self.gzip_level,
        }
    }
}

/// A job that runs on several threads.
struct RewriteJob<'a> {
    config: &'a RewriteConfig<'a>,
    progress: &'a Progress,
    /// The shards that are not finished.
    numbers: Vec<usize>,
    /// Index of the next of these.
    next: AtomicUsize,
    /// Number of the first shard that failed so far. Later ones are given up.
    first_failed: AtomicUsize,
    shared: Mutex<SharedState>,
}

struct SharedState {
    scratch: Scratch,
    finished: Vec<FinishedShard>,
    /// The first shard that failed, and its error.
    failure: Option<(usize, Error)>,
}

impl RewriteJob<'_> {
    /// Writes shards until there are no more or one has failed.
    fn work(&self) {
        while let Some(number) = self.numbers.get(self.next.fetch_add(1, Relaxed)) {
            if *number > self.first_failed.load(Relaxed) {
                return;
            }
            if let Err(err) = self.rewrite(*number) {
                self.first_failed.fetch_min(*number, Relaxed);
                let failure = &mut self.lock().failure;
                if failure.as_ref().is_none_or(|(first, _)| number < first) {
                    *failure = Some((*number, err));
                }
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, SharedState> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rewrite(&self, number: usize) -> Result<()> {
        let (path, name) = (&self.config.shards[number], &self.config.names[number]);
        let mut advance = |n_bytes| {
            // The error of an earlier shard is the one that is returned.
            if number > self.first_failed.load(Relaxed) {
                return Err(Error::cancelled());
            }
            self.progress.advance(n_bytes)
        };
        let rewriter = ShardRewriter {
            path,
            rules: &self.config.rules,
            changes: self.config.changes.of_shard(number),
            levels: self.config.levels(),
            advance: &mut advance,
        };
        let create = || self.lock().scratch.grow(name);
        let (mut result, file) = rewriter.run(create)?;
        if let Some(expected) = self.config.sha256.get(number)
            && *expected != result.sha256
        {
            let what = "the shard has changed since its records were compared";
            return Err(Error::malformed(path, what));
        }
        self.finish(number, &mut result, file)
    }

    fn finish(
        &self,
        number: usize,
        result: &mut RewrittenShard,
        file: Option<GrowingFile>,
    ) -> Result<()> {
        let mut shared = self.lock();
        if let Some(mut file) = file {
            file.finish(&mut shared.scratch)?;
            result.output = Some(WrittenShard {
                name: self.config.names[number].clone(),
                bytes: file.n_bytes(),
                sha256: file.sha256(),
            });
        }
        shared
            .scratch
            .use_input(Path::new(&self.config.shards[number]), &result.sha256);
        shared.finished.push(FinishedShard {
            number,
            result: result.clone(),
        });
        let state = RewriteStateRef {
            job: &self.config.job,
            shards: &shared.finished,
        };
        shared.scratch.save(&state)
    }
}

/// A [`RewriteState`] that is saved.
#[derive(Serialize)]
struct RewriteStateRef<'a> {
    job: &'a str,
    shards: &'a [FinishedShard],
}
