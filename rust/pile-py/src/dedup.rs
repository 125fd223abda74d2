//! Duplicate documents.

use std::path::PathBuf;

use numpy::{IntoPyArray, PyArray2, PyArrayMethods};
use pile_core::{
    dedup::{
        self, Bands, DedupConfig, NearConfig, Normalization, Preference, RecordNumber, Shingle,
        SignaturesConfig, TextSketcher, Threshold, Verification,
    },
    read::{DEFAULT_MAX_RECORD, ShardSummary},
};
use pyo3::{prelude::*, pybacked::PyBackedStr, types::PyDict};

use crate::{
    errors::BindError,
    jobs::{rules, to_python},
    progress::watch,
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

/// Finds the duplicate documents of shards, and decides which to remove.
///
/// Args:
///     shards: The shards, in reading order. Each is read twice.
///     deduplication: The settings.
///     on_progress: Called with the compressed bytes read so far; in the end, twice those of all shards.
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
    shards, deduplication, on_progress = None, *,
    text_field = "text", skip_bad_records = false, max_record = DEFAULT_MAX_RECORD
))]
#[allow(clippy::too_many_arguments)] // the job's config, by keyword from Python
pub fn find_duplicates<'py>(
    py: Python<'py>,
    shards: Vec<PathBuf>,
    deduplication: Deduplication,
    on_progress: Option<Py<PyAny>>,
    text_field: &str,
    skip_bad_records: bool,
    max_record: u64,
) -> PyResult<(Bound<'py, PyDict>, Bound<'py, PyAny>)> {
    let near = deduplication.near.map(|near| near.config()).transpose();
    let protected = deduplication.protected.into_iter();
    let config = DedupConfig {
        shards,
        n_older: deduplication.n_older,
        rules: rules(text_field, skip_bad_records, max_record),
        near: near.map_err(BindError::from)?,
        normalization: Normalization::parse(&deduplication.normalize).map_err(BindError::from)?,
        preference: Preference::parse(&deduplication.prefer, deduplication.subset_priority)
            .map_err(BindError::from)?,
        protected: protected
            .map(|(shard, record)| RecordNumber { shard, record })
            .collect(),
        protected_texts: deduplication.protected_texts,
        max_cluster: deduplication.max_cluster,
        large_clusters: deduplication.large_clusters,
        memory: deduplication.memory,
        n_threads: deduplication.threads,
        folder: deduplication.folder,
        job: deduplication.job,
        discard: deduplication.discard,
        stored: deduplication.stored.into_iter().map(Into::into).collect(),
        estimates_older: deduplication.estimates_older,
    };
    let found = watch(py, on_progress, |progress| {
        dedup::find_duplicates(&config, progress)
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
        let signatures = py.detach(|| {
            let mut sketcher = self.sketcher.clone();
            let mut signatures = Vec::new();
            for text in &texts {
                sketcher.append_signature(text, &mut signatures);
            }
            signatures
        });
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
