//! Divides a job into tasks that processes on several machines run on shared storage.
//!
//! The driver, which is the process that runs [`find_duplicates`](super::find_duplicates), reads rows, hands out tasks
//! and decides. A task reads files of the driver and of earlier tasks, and writes into its own folder. A job that was
//! killed skips the tasks that have finished; an unfinished task starts again.
//!
//! Numbers are in the byte order of the machine, which must be that of all machines.
//!
//! 1. **Bands**, one task per shard: hashes the bands of its signatures.
//! 2. **Pairs**, one per band: sorts the band's hashes of all shards; documents with an equal hash are candidates.
//! 3. **Spill**, one per shard with documents to compare: the second pass over the shard.
//! 4. **Verify**, one per range of candidate pairs: computes their similarities.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use bytemuck::Pod;
use serde::{Deserialize, Serialize};

use super::{
    DedupConfig, NearConfig,
    bits::BitSet,
    candidates::{CANDIDATES, Candidates, for_each_distinct, pair_buckets, write_distinct},
    documents::{Documents, numbers},
    exact::ExactGroups,
    find::{SORT, empty_folder},
    hash::hash_rows,
    ranks::Ranks,
    sketch::DedupState,
    spill::{Needed, SpilledDocuments, spill_shard},
    stored::{DocumentSignatures, SignatureFiles},
    verify::{ComparedTexts, PairCounts, VERIFIED, verify_each},
};
use crate::{
    Error, Result,
    io::{ExternalSort, Mapped, RecordFile, RecordWriter, Scratch, check_mapped, write_atomically},
    progress::Progress,
};

/// Maximum candidate pairs that a task verifies: few enough that a killed task repeats little, and enough that opening
/// all spilled documents costs little beside them.
const PAIRS_PER_TASK: u64 = if cfg!(test) { 50 } else { 1 << 24 };

/// The file that a task for bands, pairs or verification makes.
const DATA: &str = "data";

/// Replaces the rank of a document that is in no candidate pair: a copy, or a document without shingles.
const NO_CANDIDATE: u32 = u32::MAX;

/// A part of the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DedupTask {
    /// Hashes the bands of the signatures of a shard.
    Bands {
        /// The index of the shard.
        shard: usize,
    },
    /// Finds the candidates of a band.
    Pairs {
        /// The number of the band.
        band: usize,
    },
    /// Writes the documents of a shard that are compared.
    Spill {
        /// The index of the shard.
        shard: usize,
    },
    /// Verifies candidates.
    Verify {
        /// The number of the first one.
        first: u64,
    },
}

impl DedupTask {
    /// The name of the task's folder, among those of all tasks of the job.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Bands { shard } => format!("bands-{shard:06}"),
            Self::Pairs { band } => format!("pairs-{band:06}"),
            Self::Spill { shard } => format!("spill-{shard:06}"),
            Self::Verify { first } => format!("verify-{first:012}"),
        }
    }

    /// The folder of the task.
    #[must_use]
    pub fn folder(self, config: &DedupConfig) -> PathBuf {
        config.folder.join("tasks").join(self.name())
    }

    /// The saved state; `None` unless the task has finished for this job.
    fn state(self, config: &DedupConfig) -> Result<Option<TaskState>> {
        let saved = Scratch::saved_state::<TaskState>(&self.folder(config))?;
        Ok(saved.filter(|state| state.job == config.job))
    }

    fn finished(self, config: &DedupConfig) -> Result<TaskState> {
        self.state(config)?.ok_or_else(|| {
            let what = "has no finished task: another process changed it";
            Error::malformed(&self.folder(config), what)
        })
    }

    /// Maps the data file of the task. The caller must know that the task has finished.
    fn data(self, config: &DedupConfig) -> Result<Mapped> {
        Mapped::open(&self.folder(config).join(DATA))
    }
}

/// Runs tasks of a job.
pub trait TaskRunner {
    /// Runs each of the tasks by [`run_task`], in any order and in any process; returns when all are finished.
    ///
    /// # Errors
    /// A task failed.
    fn run(&mut self, tasks: &[DedupTask]) -> Result<()>;
}

/// The state of a finished task.
#[derive(Debug, Default, Serialize, Deserialize)]
struct TaskState {
    job: String,
    /// Capped buckets of a `Pairs` task, else 0.
    n_capped_buckets: u64,
    /// Totals of a `Verify` task, else `None`.
    counts: Option<PairCounts>,
}

/// The folder of the finished spill task of a shard; `None` if the shard has none.
pub(super) fn spilled_by_task(config: &DedupConfig, shard: usize) -> Result<Option<PathBuf>> {
    let task = DedupTask::Spill { shard };
    Ok(task.state(config)?.map(|_| task.folder(config)))
}

/// The path of a file that the driver writes for the tasks.
fn shared_path(config: &DedupConfig, name: &str) -> PathBuf {
    config.folder.join(format!("shared-{name}"))
}

fn share<T: Pod>(config: &DedupConfig, name: &str, values: &[T]) -> Result<()> {
    let path = shared_path(config, name);
    write_atomically(&path, |out| out.write_all(bytemuck::cast_slice(values)))
}

fn shared<T: Pod>(file: &Mapped) -> Result<&[T]> {
    numbers(file, 0, (file.bytes().len() / size_of::<T>()) as u64)
}

/// Maps a shared file of one `u32` per document.
fn open_by_document(config: &DedupConfig, documents: &Documents, name: &str) -> Result<Mapped> {
    let width = size_of::<u32>() as u64;
    Mapped::open_written(&shared_path(config, name), documents.len().into(), width)
}

/// The driver's side of a job's tasks.
pub(super) struct Tasks<'a> {
    config: &'a DedupConfig,
    runner: &'a mut dyn TaskRunner,
}

impl<'a> Tasks<'a> {
    pub(super) fn new(config: &'a DedupConfig, runner: &'a mut dyn TaskRunner) -> Self {
        Self { config, runner }
    }

    /// Finds the candidate pairs as `find_candidates` does, by bands and pairs tasks.
    pub(super) fn find_candidates(
        &mut self,
        near: &NearConfig,
        (documents, ranks, groups): (&Documents, &Ranks, &ExactGroups),
        folder: &Path,
        progress: &Progress,
    ) -> Result<Candidates> {
        let config = self.config;
        let mut candidates = ranks.of_document.clone();
        documents.for_each(|document, _, row| {
            if groups.is_copy(document) || row.n_shingles == 0 {
                candidates[document as usize] = NO_CANDIDATE;
            }
            Ok(())
        })?;
        share(config, "candidates", &candidates)?;
        drop(candidates);
        share(config, "documents", &ranks.documents)?;
        let shards = 0..documents.n_shards();
        let bands: Vec<_> = shards.map(|shard| DedupTask::Bands { shard }).collect();
        self.runner.run(&bands)?;
        let pairs = (0..near.bands.bands).map(|band| DedupTask::Pairs { band });
        let pairs: Vec<_> = pairs.collect();
        self.runner.run(&pairs)?;
        let mut n_capped_buckets = 0;
        let mut all = ExternalSort::new(folder, "pairs", config.memory);
        for task in pairs {
            n_capped_buckets += task.finished(config)?.n_capped_buckets;
            let file = RecordFile::open::<u64>(task.folder(config).join(DATA))?;
            let mut reader = file.read::<u64>()?;
            while let Some(pair) = reader.next()? {
                all.push(pair)?;
            }
            progress.advance(0)?;
        }
        Ok(Candidates {
            pairs: write_distinct(all, folder, progress)?,
            n_capped_buckets,
        })
    }

    /// Runs the second pass as `spill_documents` does, by spill tasks.
    pub(super) fn spill_documents(
        &mut self,
        state: &DedupState,
        documents: &Documents,
        needed: &Needed,
        progress: &Progress,
    ) -> Result<()> {
        share(self.config, "needed-shingles", needed.shingles.words())?;
        share(self.config, "needed-texts", needed.texts.words())?;
        let shards = 0..documents.n_shards();
        let shards = shards.filter(|shard| needed.is_in(documents, *shard));
        let tasks: Vec<_> = shards.map(|shard| DedupTask::Spill { shard }).collect();
        self.runner.run(&tasks)?;
        let n_bytes = state.shards.iter().map(|shard| shard.summary.bytes);
        progress.advance(n_bytes.sum())
    }

    /// Verifies the candidate pairs as `verify_pairs` does, by verify tasks.
    pub(super) fn verify_pairs(
        &mut self,
        candidates: &Candidates,
        folder: &Path,
        progress: &Progress,
    ) -> Result<(RecordFile, PairCounts)> {
        let firsts = (0..candidates.pairs.n_records).step_by(PAIRS_PER_TASK as usize);
        let tasks: Vec<_> = firsts.map(|first| DedupTask::Verify { first }).collect();
        self.runner.run(&tasks)?;
        let mut verified = RecordWriter::create(folder.join(VERIFIED))?;
        let mut counts = PairCounts::new();
        for task in tasks {
            let of_task = task.finished(self.config)?.counts.ok_or_else(|| {
                let what = "has no counts: another process changed it";
                Error::malformed(&task.folder(self.config), what)
            })?;
            counts.add(&of_task);
            let file = RecordFile::open::<[u64; 2]>(task.folder(self.config).join(DATA))?;
            let mut reader = file.read::<[u64; 2]>()?;
            while let Some(pair) = reader.next()? {
                verified.push(pair)?;
            }
            progress.advance(0)?;
        }
        Ok((verified.finish()?, counts))
    }
}

/// Runs a task unless it has finished. No other process may run it at the same time. `progress` advances by the
/// compressed bytes that a spill task reads, and not for other tasks.
///
/// # Errors
/// The job has not reached this task; a shard is damaged or changed; the file system fails; or a stop is requested.
pub fn run_task(config: &DedupConfig, task: DedupTask, progress: &Progress) -> Result<()> {
    let near = || {
        let near = config.near.as_ref();
        near.ok_or_else(|| Error::argument("a task for near duplicates of a job for exact ones"))
    };
    let may_resume = |state: &TaskState| state.job == config.job;
    let (mut scratch, finished) = Scratch::open(&task.folder(config), true, progress, may_resume)?;
    if finished.is_some() {
        return Ok(());
    }
    let state = DedupState::saved(config)?;
    let (what, number, n) = match task {
        DedupTask::Bands { shard } | DedupTask::Spill { shard } => {
            ("shard", shard, state.shards.len())
        }
        DedupTask::Pairs { band } => ("band", band, near()?.bands.bands),
        DedupTask::Verify { .. } => ("", 0, 1),
    };
    if number >= n {
        let what = format!("a task for {what} {number}, and there are {n}");
        return Err(Error::argument(what));
    }
    let mut made = TaskState {
        job: config.job.clone(),
        ..TaskState::default()
    };
    match task {
        DedupTask::Bands { shard } => {
            hash_bands(config, near()?, &state, shard, &mut scratch, progress)?;
        }
        DedupTask::Pairs { band } => {
            made.n_capped_buckets = pair_band(config, &state, band, &mut scratch, progress)?;
        }
        DedupTask::Spill { shard } => {
            let documents = Documents::open(&config.folder, &state)?;
            let needed = |name| {
                let file = Mapped::open(&shared_path(config, name))?;
                Ok::<_, Error>(BitSet::from_words(shared(&file)?.to_vec()))
            };
            let needed = Needed {
                shingles: needed("needed-shingles")?,
                texts: needed("needed-texts")?,
            };
            let of_shard = (shard, &documents, &needed);
            spill_shard(config, &mut scratch, &state, of_shard, progress)?;
        }
        DedupTask::Verify { first } => {
            made.counts = Some(verify_range(
                config,
                near()?,
                &state,
                first,
                &mut scratch,
                progress,
            )?);
        }
    }
    check_mapped()?;
    scratch.save(&made)
}

/// Writes the hash of each band of each document's signature, band-major: (bands, documents) `u64`.
fn hash_bands(
    config: &DedupConfig,
    near: &NearConfig,
    state: &DedupState,
    shard: usize,
    scratch: &mut Scratch,
    progress: &Progress,
) -> Result<()> {
    let file = SignatureFiles::of(config, state)?.open(shard)?;
    let signatures: &[u32] = shared(&file)?;
    let mut hashes = scratch.grow(DATA)?;
    for band in 0..near.bands.bands {
        let start = band * near.bands.rows;
        for signature in signatures.chunks_exact(near.permutations) {
            let hash: u64 = hash_rows(&signature[start..start + near.bands.rows]);
            hashes.push(&hash.to_ne_bytes())?;
        }
        progress.advance(0)?;
    }
    hashes.finish(scratch)
}

/// Writes the distinct candidate pairs of a band, ascending; returns the number of capped buckets.
fn pair_band(
    config: &DedupConfig,
    state: &DedupState,
    band: usize,
    scratch: &mut Scratch,
    progress: &Progress,
) -> Result<u64> {
    let documents = Documents::open(&config.folder, state)?;
    let (ranks, by_rank) = (
        open_by_document(config, &documents, "candidates")?,
        open_by_document(config, &documents, "documents")?,
    );
    let (ranks, by_rank): (&[u32], &[u32]) = (shared(&ranks)?, shared(&by_rank)?);
    let folder = empty_folder(scratch)?;
    let mut bands = ExternalSort::new(&folder, "bands", config.memory / 2);
    for shard in 0..documents.n_shards() {
        let (first, end) = (documents.first(shard), documents.end_of(shard + 1));
        let n = u64::from(end - first);
        let hashed = DedupTask::Bands { shard };
        hashed.finished(config)?;
        let file = hashed.data(config)?;
        let hashes: &[u64] = numbers(&file, band as u64 * n * size_of::<u64>() as u64, n)?;
        let ranks = &ranks[first as usize..end as usize];
        for (hash, rank) in hashes.iter().zip(ranks) {
            if *rank != NO_CANDIDATE {
                bands.push(u128::from(*hash) << 32 | u128::from(*rank))?;
            }
        }
        progress.advance(0)?;
    }
    let mut pairs = ExternalSort::new(&folder, "pairs", config.memory / 2);
    let older = documents.end_of(config.n_older);
    let is_older = |rank: u32| by_rank[rank as usize] < older;
    let n_capped_buckets = pair_buckets(bands, is_older, &mut pairs, progress)?;
    let mut data = scratch.grow(DATA)?;
    for_each_distinct(pairs, progress, |pair| data.push(&pair.to_ne_bytes()))?;
    data.finish(scratch)?;
    std::fs::remove_dir_all(&folder).map_err(|err| Error::io(&folder, err))?;
    Ok(n_capped_buckets)
}

/// Writes the candidate pairs of a range that reach the threshold, with their similarities.
fn verify_range(
    config: &DedupConfig,
    near: &NearConfig,
    state: &DedupState,
    first: u64,
    scratch: &mut Scratch,
    progress: &Progress,
) -> Result<PairCounts> {
    let documents = Documents::open(&config.folder, state)?;
    let spilled = SpilledDocuments::open(&documents, |shard| spilled_by_task(config, shard))?;
    let texts = ComparedTexts {
        documents: &documents,
        spilled: &spilled,
        signatures: DocumentSignatures::for_estimates(config, state)?,
        n_estimated: documents.end_of(config.n_estimated()),
    };
    let by_rank = open_by_document(config, &documents, "documents")?;
    let candidates = Mapped::open(&config.folder.join(SORT).join(CANDIDATES))?;
    let candidates: &[u64] = shared(&candidates)?;
    let start = usize::try_from(first).unwrap_or(usize::MAX);
    if start >= candidates.len() {
        let what = format!(
            "a task from candidate {first}, and there are {}",
            candidates.len()
        );
        return Err(Error::argument(what));
    }
    let end = candidates
        .len()
        .min(start.saturating_add(PAIRS_PER_TASK as usize));
    let mut pairs = candidates[start..end].iter().copied();
    let mut data = scratch.grow(DATA)?;
    let counts = verify_each(
        near,
        || Ok(pairs.next()),
        shared(&by_rank)?,
        &texts,
        config.n_threads,
        |pair| data.push(bytemuck::cast_slice(&pair.pack())),
        progress,
    )?;
    data.finish(scratch)?;
    Ok(counts)
}
