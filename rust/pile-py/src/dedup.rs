//! Duplicate documents.

use std::{
    path::PathBuf,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    time::Duration,
};

use numpy::{IntoPyArray, PyArray2, PyArrayMethods};
use pile_core::{
    dedup::{
        self, Bands, DedupConfig, DedupTask, NearConfig, Normalization, Preference, RecordNumber,
        Shingle, SignaturesConfig, TaskRunner, TextSketcher, Threshold, Verification,
    },
    progress::Progress,
    read::{DEFAULT_MAX_RECORD, ShardSummary},
};
use pyo3::{prelude::*, pybacked::PyBackedStr, types::PyDict};

use crate::{
    errors::BindError,
    jobs::{rules, to_python},
    progress::{detached, run, watch},
};

/// How duplicates are found: `Deduplication` of `types.py`.
#[derive(FromPyObject)]
pub struct Deduplication {
    n_older: usize,
    near: Option<NearDuplicates>,
    normalize: String,
    prefer: String,
    subset_priority: Vec<String>,
    protected: Vec<(usize, u64)>,
    protected_texts: Vec<String>,
    max_cluster: u64,
    large_clusters: bool,
    memory: u64,
    threads: usize,
    folder: PathBuf,
    job: String,
    discard: bool,
    stored: Vec<StoredSignatures>,
    estimates_older: bool,
}

/// Signatures that are used instead of reading shards: `StoredSignatures` of `types.py`.
#[derive(FromPyObject)]
pub struct StoredSignatures {
    folder: PathBuf,
    subsets: Vec<Option<String>>,
    shards: Vec<StoredShard>,
}

/// A shard of them: `StoredShard` of `types.py`.
#[derive(FromPyObject)]
pub struct StoredShard {
    index: usize,
    number: usize,
    n_documents: u64,
    bytes: u64,
    sha256: String,
    n_records: u64,
    n_text_bytes: u64,
    rows_sha256: String,
    signatures_sha256: String,
}

impl From<StoredSignatures> for dedup::StoredSignatures {
    fn from(stored: StoredSignatures) -> Self {
        let shard = |shard: StoredShard| dedup::StoredShard {
            index: shard.index,
            number: shard.number,
            n_documents: shard.n_documents,
            summary: ShardSummary {
                bytes: shard.bytes,
                sha256: shard.sha256,
                n_records: shard.n_records,
                n_text_bytes: shard.n_text_bytes,
            },
            rows_sha256: shard.rows_sha256,
            signatures_sha256: shard.signatures_sha256,
        };
        Self {
            folder: stored.folder,
            subsets: stored.subsets,
            shards: stored.shards.into_iter().map(shard).collect(),
        }
    }
}

/// What signatures are made of: `Sketching` of `types.py`.
#[derive(FromPyObject)]
pub struct Sketching {
    shingle: String,
    permutations: usize,
    normalize: String,
    memory: u64,
    threads: usize,
    folder: PathBuf,
    job: String,
    discard: bool,
}

/// How near duplicates are found: `NearDuplicates` of `types.py`.
#[derive(FromPyObject)]
pub struct NearDuplicates {
    threshold: String,
    shingle: String,
    verify: String,
    permutations: usize,
}

impl NearDuplicates {
    fn config(&self) -> pile_core::Result<NearConfig> {
        let threshold = Threshold::parse(&self.threshold)?;
        Ok(NearConfig {
            threshold,
            shingle: Shingle::parse(&self.shingle)?,
            verification: Verification::parse(&self.verify)?,
            permutations: self.permutations,
            bands: dedup::lsh_bands(threshold, self.permutations)?,
        })
    }
}

impl Deduplication {
    fn config(
        self,
        shards: Vec<PathBuf>,
        (text_field, skip_bad_records, max_record): (&str, bool, u64),
    ) -> pile_core::Result<DedupConfig> {
        let near = self.near.map(|near| near.config()).transpose()?;
        let protected = self.protected.into_iter();
        Ok(DedupConfig {
            shards,
            n_older: self.n_older,
            rules: rules(text_field, skip_bad_records, max_record),
            near,
            normalization: Normalization::parse(&self.normalize)?,
            preference: Preference::parse(&self.prefer, self.subset_priority)?,
            protected: protected
                .map(|(shard, record)| RecordNumber { shard, record })
                .collect(),
            protected_texts: self.protected_texts,
            max_cluster: self.max_cluster,
            large_clusters: self.large_clusters,
            memory: self.memory,
            n_threads: self.threads,
            folder: self.folder,
            job: self.job,
            discard: self.discard,
            stored: self.stored.into_iter().map(Into::into).collect(),
            estimates_older: self.estimates_older,
        })
    }
}

/// Interval between two looks of a waiting job at whether it is stopped.
const TICK: Duration = Duration::from_millis(100);

/// Sends tasks to the thread that holds the interpreter, and waits until it has run them.
struct PythonRunner<'a> {
    tasks: Sender<Vec<DedupTask>>,
    done: Receiver<()>,
    progress: &'a Progress,
}

impl TaskRunner for PythonRunner<'_> {
    fn run(&mut self, tasks: &[DedupTask]) -> pile_core::Result<()> {
        let gone = || pile_core::Error::argument("nobody runs the tasks");
        self.tasks.send(tasks.to_vec()).map_err(|_| gone())?;
        loop {
            match self.done.recv_timeout(TICK) {
                Ok(()) => return Ok(()),
                // An exception of the other thread stops the job.
                Err(RecvTimeoutError::Timeout) => self.progress.advance(0)?,
                Err(RecvTimeoutError::Disconnected) => return Err(gone()),
            }
        }
    }
}

/// Finds the duplicate documents of shards, and decides which to remove.
///
/// Args:
///     shards: The shards, in reading order. Each is read twice.
///     deduplication: The settings.
///     on_progress: Called with the compressed bytes read so far; in the end, twice those of all shards.
///     run_tasks: Called several times with tasks of the job, for near duplicates: names of their folders
///         in that of the job, and what `run_dedup_task` takes. It returns when all are finished. Without
///         it, this process does all work.
///     text_field: The field of a record that has its text.
///     skip_bad_records: Whether bad records are skipped. Otherwise they are an error.
///     max_record: Number of bytes above which a record is bad.
///
/// Returns:
///     A `DuplicateRows` and a `DedupSummary` of `pile_tools.types`.
///
/// Raises:
///     ConfigError: A setting is invalid, or a protected record has no document.
///     FormatError: A shard is damaged, changes while it is read, or cannot be read twice.
///     OutputExistsError: The scratch folder has work of another job.
///     OSError: A file cannot be read or written.
#[pyfunction]
#[pyo3(signature = (
    shards, deduplication, on_progress = None, *, run_tasks = None,
    text_field = "text", skip_bad_records = false, max_record = DEFAULT_MAX_RECORD
))]
#[allow(clippy::too_many_arguments)] // the job's config, by keyword from Python
pub fn find_duplicates<'py>(
    py: Python<'py>,
    shards: Vec<PathBuf>,
    deduplication: Deduplication,
    on_progress: Option<Py<PyAny>>,
    run_tasks: Option<Py<PyAny>>,
    text_field: &str,
    skip_bad_records: bool,
    max_record: u64,
) -> PyResult<(Bound<'py, PyDict>, Bound<'py, PyAny>)> {
    let config = deduplication
        .config(shards, (text_field, skip_bad_records, max_record))
        .map_err(BindError::from)?;
    let (sender, tasks) = channel::<Vec<DedupTask>>();
    let (finish, done) = channel();
    let is_divided = run_tasks.is_some();
    let job = |progress: &Progress| {
        let mut runner = PythonRunner {
            tasks: sender,
            done,
            progress,
        };
        let runner: Option<&mut dyn TaskRunner> = match is_divided {
            true => Some(&mut runner),
            false => None,
        };
        dedup::find_duplicates(&config, runner, progress)
    };
    let found = run(py, job, |progress| {
        if let Some(callback) = &on_progress {
            callback.call1(py, (progress.done(),))?;
        }
        if let (Some(run_tasks), Ok(tasks)) = (&run_tasks, tasks.try_recv()) {
            let name = |task: DedupTask| Ok((task.name(), serde_json::to_string(&task)?));
            let named = tasks.into_iter().map(name).collect::<Result<Vec<_>, _>>();
            let named = named.map_err(|err: serde_json::Error| {
                pyo3::exceptions::PyRuntimeError::new_err(err.to_string())
            })?;
            run_tasks.call1(py, (named,))?;
            // Fails only if the job has ended, whose result then says why.
            let _ = finish.send(());
        }
        Ok(())
    })?;
    let rows = PyDict::new(py);
    rows.set_item("document", found.rows.document.into_pyarray(py))?;
    rows.set_item("shard", found.rows.shard.into_pyarray(py))?;
    rows.set_item("record", found.rows.record.into_pyarray(py))?;
    rows.set_item("cluster", found.rows.cluster.into_pyarray(py))?;
    rows.set_item("cluster_size", found.rows.cluster_size.into_pyarray(py))?;
    rows.set_item("decision", found.rows.decision.into_pyarray(py))?;
    rows.set_item("kept_copy", found.rows.kept_copy.into_pyarray(py))?;
    rows.set_item("similarity", found.rows.similarity.into_pyarray(py))?;
    rows.set_item("kind", found.rows.kind.into_pyarray(py))?;
    Ok((rows, to_python(py, &found.summary)?))
}

/// Runs a task of `find_duplicates`, or finds it finished. No other process may run it at the same time.
///
/// Args:
///     shards: The shards, as `find_duplicates` has them.
///     deduplication: Its settings, but for `memory` and `threads`, which are those of this task.
///     task: What it has passed to `run_tasks`.
///     on_progress: Called with the compressed bytes read so far.
///     text_field: As there.
///     skip_bad_records: As there.
///     max_record: As there.
///
/// Raises:
///     ConfigError: A setting is invalid, or this is no task of the job.
///     FormatError: A shard is damaged or changes while it is read, or the job has not come to this task.
///     OSError: A file cannot be read or written.
#[pyfunction]
#[pyo3(signature = (
    shards, deduplication, task, on_progress = None, *,
    text_field = "text", skip_bad_records = false, max_record = DEFAULT_MAX_RECORD
))]
#[allow(clippy::too_many_arguments)] // the job's config, by keyword from Python
pub fn run_dedup_task(
    py: Python<'_>,
    shards: Vec<PathBuf>,
    deduplication: Deduplication,
    task: &str,
    on_progress: Option<Py<PyAny>>,
    text_field: &str,
    skip_bad_records: bool,
    max_record: u64,
) -> PyResult<()> {
    let config = deduplication
        .config(shards, (text_field, skip_bad_records, max_record))
        .map_err(BindError::from)?;
    let task: DedupTask = serde_json::from_str(task).map_err(|err| {
        BindError::from(pile_core::Error::argument(format!(
            "no task: {task}: {err}"
        )))
    })?;
    watch(py, on_progress, |progress| {
        dedup::run_task(&config, task, progress)
    })
}

/// Writes the signatures of shards, which `find_duplicates` uses instead of a pass, or resumes the job.
///
/// Two files for each shard: `rows-N`, 40 bytes for each document, and `signatures-N`, 4 bytes for each
/// permutation of each document. They are the same for any number of threads.
///
/// Args:
///     shards: The shards, in reading order.
///     sketching: The settings.
///     on_progress: Called with the compressed bytes read so far.
///     text_field: The field of a record that has its text.
///     skip_bad_records: Whether bad records are skipped. Otherwise they are an error.
///     max_record: Number of bytes above which a record is bad.
///
/// Returns:
///     A `SignaturesSummary` of `pile_tools.types`.
///
/// Raises:
///     ConfigError: A setting is invalid.
///     FormatError: A shard is damaged.
///     OutputExistsError: The folder has work of another job.
///     OSError: A file cannot be read or written.
#[pyfunction]
#[pyo3(signature = (
    shards, sketching, on_progress = None, *,
    text_field = "text", skip_bad_records = false, max_record = DEFAULT_MAX_RECORD
))]
#[allow(clippy::too_many_arguments)] // the job's config, by keyword from Python
pub fn write_signatures<'py>(
    py: Python<'py>,
    shards: Vec<PathBuf>,
    sketching: Sketching,
    on_progress: Option<Py<PyAny>>,
    text_field: &str,
    skip_bad_records: bool,
    max_record: u64,
) -> PyResult<Bound<'py, PyAny>> {
    let config = SignaturesConfig {
        shards,
        rules: rules(text_field, skip_bad_records, max_record),
        folder: sketching.folder,
        job: sketching.job,
        discard: sketching.discard,
        shingle: Shingle::parse(&sketching.shingle).map_err(BindError::from)?,
        permutations: sketching.permutations,
        normalization: Normalization::parse(&sketching.normalize).map_err(BindError::from)?,
        memory: sketching.memory,
        n_threads: sketching.threads,
    };
    let summary = watch(py, on_progress, |progress| {
        dedup::write_signatures(&config, progress)
    })?;
    to_python(py, &summary)
}

/// Computes the MinHash signatures of texts, those by which `find_duplicates` finds candidates.
///
/// `MinHasher(permutations, shingle, normalize)`: 1 to 4,096 permutations, `words:N` or `chars:N`, and
/// `none`, `whitespace` or `case`. Threads may share it. Signatures are the same on every machine,
/// and only those of equal settings can be compared.
///
/// Raises:
///     ConfigError: An argument is invalid.
#[pyclass(module = "pile_tools._core", frozen)]
pub struct MinHasher {
    sketcher: TextSketcher,
    shingle: String,
}

#[pymethods]
impl MinHasher {
    #[new]
    #[pyo3(signature = (permutations = 256, shingle = "words:5", normalize = "none"))]
    fn new(permutations: usize, shingle: &str, normalize: &str) -> Result<Self, BindError> {
        let name = shingle.to_owned();
        let shingle = Shingle::parse(shingle)?;
        let normalization = Normalization::parse(normalize)?;
        Ok(Self {
            sketcher: TextSketcher::new(permutations, shingle, normalization)?,
            shingle: name,
        })
    }

    fn __repr__(&self) -> String {
        let permutations = self.sketcher.permutations();
        format!(
            "<MinHasher: {permutations} permutations of {}>",
            self.shingle
        )
    }

    /// The signatures of texts: (n_texts, permutations) uint32.
    ///
    /// The share of equal numbers in two signatures estimates the Jaccard similarity of the sets of shingles.
    /// A text that is shorter than a shingle has a signature of 2**32 - 1 only, and is similar to no other.
    fn signatures<'py>(
        &self,
        py: Python<'py>,
        texts: Vec<PyBackedStr>,
    ) -> PyResult<Bound<'py, PyArray2<u32>>> {
        let signatures = detached(py, || {
            let mut sketcher = self.sketcher.clone();
            let mut signatures = Vec::new();
            for text in &texts {
                sketcher.append_signature(text, &mut signatures);
            }
            signatures
        })?;
        let shape = [texts.len(), self.sketcher.permutations()];
        signatures.into_pyarray(py).reshape(shape)
    }
}

/// The number of bands and of rows of each into which signatures are split to find candidate pairs.
///
/// They find a pair whose similarity is the threshold with a probability of at least 0.999 if the
/// permutations allow it, with as few candidates below the threshold as possible. The threshold is a decimal
/// fraction with at most four digits after the point.
///
/// Raises:
///     ConfigError: The threshold is not above 0 and up to 1, or there are not 1 to 4,096 permutations.
#[pyfunction]
pub fn lsh_bands(threshold: &str, permutations: usize) -> Result<(usize, usize), BindError> {
    let Bands { bands, rows } = dedup::lsh_bands(Threshold::parse(threshold)?, permutations)?;
    Ok((bands, rows))
}

/// The probability that two texts of a similarity share a band: `1 - (1 - similarity**rows)**bands`.
#[pyfunction]
pub fn band_probability(similarity: f64, bands: usize, rows: usize) -> f64 {
    dedup::band_probability(similarity, Bands { bands, rows })
}
