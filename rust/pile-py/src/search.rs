//! `SuffixIndex`: the suffix array of a dataset.

use std::{ffi::OsString, path::PathBuf, sync::Arc};

use numpy::{IntoPyArray, PyArray1, PyArray2, PyReadonlyArray1, PyReadonlyArray2};
use pile_core::{search, tokenize::TokenBytes, tokens::TokenSource};
use pyo3::{
    prelude::*,
    types::{PyBytes, PyList, PyTuple},
};

use crate::{
    dataset::{TokenDataset, absolute, quoted},
    errors::BindError,
    jobs::to_python,
    order::{rows, table},
    progress::{detached, watch},
    tokenizer::Tokenizer,
};

type Column<'py> = Bound<'py, PyArray1<i64>>;
type Table<'py> = Bound<'py, PyArray2<i64>>;

/// The suffix array of a dataset, memory-mapped. `pile_tools.search.Index` wraps it.
///
/// `SuffixIndex(folder, dataset)` opens the index in a folder. Pickles by path.
///
/// Raises:
///     FormatError: The index is incomplete, damaged, or of another dataset.
///     OSError: A file cannot be read.
#[pyclass(module = "pile_tools._core", frozen)]
pub struct SuffixIndex {
    pub inner: Arc<search::SuffixIndex>,
}

/// Ids from Python: an array of any integer type, or any sequence of integers.
pub struct Ids(Vec<i64>);

impl<'py> FromPyObject<'_, 'py> for Ids {
    type Error = PyErr;

    fn extract(any: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if any.is_instance_of::<PyList>() || any.is_instance_of::<PyTuple>() {
            return any.extract().map(Self);
        }
        // Arrays of these types, those of datasets and of tokenizers among them, are read without a Python object for
        // each id.
        if let Ok(ids) = any.extract::<PyReadonlyArray1<'_, u16>>() {
            return Ok(Self(
                ids.as_array().iter().map(|id| i64::from(*id)).collect(),
            ));
        }
        if let Ok(ids) = any.extract::<PyReadonlyArray1<'_, i32>>() {
            return Ok(Self(
                ids.as_array().iter().map(|id| i64::from(*id)).collect(),
            ));
        }
        if let Ok(ids) = any.extract::<PyReadonlyArray1<'_, i64>>() {
            return Ok(Self(ids.as_array().iter().copied().collect()));
        }
        if let Ok(ids) = any.extract::<PyReadonlyArray1<'_, u32>>() {
            return Ok(Self(
                ids.as_array().iter().map(|id| i64::from(*id)).collect(),
            ));
        }
        any.extract().map(Self)
    }
}

/// `search::NextTokens` for Python: ids, counts, `n_ends`, `n_within`, `n_context`.
type NextTokens<'py> = (Column<'py>, Column<'py>, u64, u64, u64);

fn next_tokens(py: Python<'_>, found: search::NextTokens) -> NextTokens<'_> {
    (
        found.ids.into_pyarray(py),
        column(py, found.counts),
        found.n_ends,
        found.n_within,
        found.n_context,
    )
}

fn column(py: Python<'_>, values: Vec<u64>) -> Column<'_> {
    let values: Vec<i64> = values.into_iter().map(|n| n as i64).collect();
    values.into_pyarray(py)
}

fn text_occurrences<'py>(
    py: Python<'py>,
    found: &[search::TextOccurrence],
) -> PyResult<Table<'py>> {
    let rows = found
        .iter()
        .map(|o| [o.document, o.token_offset, o.byte_in_token, o.n_tokens].map(|n| n as i64));
    table(py, rows.collect())
}

#[pymethods]
impl SuffixIndex {
    #[new]
    fn new(py: Python<'_>, folder: PathBuf, dataset: &TokenDataset) -> Result<Self, BindError> {
        let dataset = Arc::clone(&dataset.inner);
        let inner = py.detach(|| search::SuffixIndex::open(&folder, dataset))?;
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// The dataset of the index.
    #[getter]
    fn dataset(&self) -> TokenDataset {
        TokenDataset::of(Arc::clone(self.inner.dataset()))
    }

    /// Number of segments of the index.
    #[getter]
    fn n_segments(&self) -> usize {
        self.inner.n_segments()
    }

    /// Number of distinct ids in the dataset.
    #[getter]
    fn n_ids(&self) -> usize {
        self.inner.alphabet().len()
    }

    /// Whether the index can search for texts, as it was built with a tokenizer.
    #[getter]
    fn has_bytes(&self) -> bool {
        self.inner.alphabet().has_bytes()
    }

    /// Whether every id decodes to the same bytes with a tokenizer. False if `has_bytes` is.
    fn is_of(&self, py: Python<'_>, tokenizer: &Tokenizer) -> bool {
        py.detach(|| {
            self.inner
                .alphabet()
                .decodes_as(&TokenBytes::new(&tokenizer.inner))
        })
    }

    /// The concatenated bytes of ids.
    ///
    /// Ids that do not occur have no bytes, nor has any id if `has_bytes` is False.
    ///
    /// Raises:
    ///     ConfigError: The bytes are longer than 1 GiB.
    fn decode<'py>(&self, py: Python<'py>, ids: Ids) -> Result<Bound<'py, PyBytes>, BindError> {
        Ok(PyBytes::new(py, &self.inner.decode(&ids.0)?))
    }

    /// Number of occurrences of an n-gram, given by its ids.
    ///
    /// Raises:
    ///     ConfigError: The n-gram is empty.
    fn count(&self, py: Python<'_>, ids: Ids) -> Result<u64, BindError> {
        Ok(py.detach(|| self.inner.count(&ids.0))?)
    }

    /// Number of occurrences of each n-gram: (n,) int64. The same for any number of threads.
    ///
    /// Args:
    ///     ids: The concatenated n-grams.
    ///     starts: Index of each n-gram's first id, then the end of the last one: (n + 1,) int64.
    ///     n_threads: Number of threads.
    ///
    /// Raises:
    ///     ConfigError: An n-gram is empty, or `starts` does not ascend within `ids`.
    fn count_batch<'py>(
        &self,
        py: Python<'py>,
        ids: PyReadonlyArray1<'py, i64>,
        starts: PyReadonlyArray1<'py, i64>,
        n_threads: usize,
    ) -> PyResult<Column<'py>> {
        let ids = ids.as_slice()?;
        let starts: Vec<usize> = starts.as_array().iter().map(|at| *at as usize).collect();
        let counts = detached(py, || self.inner.count_batch(ids, &starts, n_threads))?;
        Ok(column(py, counts.map_err(BindError::from)?))
    }

    /// Every occurrence of an n-gram, in order: (n, 2) int64.
    ///
    /// The columns are document and token offset.
    ///
    /// Raises:
    ///     ConfigError: The n-gram is empty, or occurs more than `max_occurrences` times.
    fn locate<'py>(&self, py: Python<'py>, ids: Ids, max_occurrences: u64) -> PyResult<Table<'py>> {
        let found = detached(py, || self.inner.locate(&ids.0, max_occurrences))?
            .map_err(BindError::from)?;
        table(
            py,
            found
                .iter()
                .map(|o| [o.document, o.token_offset].map(|n| n as i64))
                .collect(),
        )
    }

    /// Number of occurrences of a text. Overlapping occurrences count.
    ///
    /// Raises:
    ///     ConfigError: The text is empty, or `has_bytes` is False.
    fn count_text(&self, py: Python<'_>, text: &[u8]) -> Result<u64, BindError> {
        Ok(py.detach(|| self.inner.count_text(text))?)
    }

    /// Every occurrence of a text, in order: (n, 4) int64.
    ///
    /// The columns are document, token offset, first byte in that token, and number of tokens.
    ///
    /// Raises:
    ///     ConfigError: As `count_text`; or the text occurs more than `max_occurrences` times.
    fn locate_text<'py>(
        &self,
        py: Python<'py>,
        text: &[u8],
        max_occurrences: u64,
    ) -> PyResult<Table<'py>> {
        let found = detached(py, || self.inner.locate_text(text, max_occurrences))?
            .map_err(BindError::from)?;
        text_occurrences(py, &found)
    }

    /// Number of occurrences of a text, and up to `limit` of them as rows of `locate_text`.
    ///
    /// Which ones is arbitrary but deterministic.
    ///
    /// Raises:
    ///     ConfigError: As `count_text`.
    fn sample_text<'py>(
        &self,
        py: Python<'py>,
        text: &[u8],
        limit: usize,
    ) -> PyResult<(u64, Table<'py>)> {
        let (n, found) =
            detached(py, || self.inner.sample_text(text, limit))?.map_err(BindError::from)?;
        Ok((n, text_occurrences(py, &found)?))
    }

    /// The tokens that follow a context, or with `longest` its longest suffix that any token follows.
    ///
    /// For an empty context: all ids and their counts.
    ///
    /// Returns:
    ///     The ids, by descending count and then by id, and their counts: (n,) int64 each. The number of
    ///     occurrences that end with their document. 0, as no occurrence of tokens ends within a token. The
    ///     number of tokens of the context that was used.
    fn next_tokens<'py>(
        &self,
        py: Python<'py>,
        context: Ids,
        longest: bool,
    ) -> PyResult<NextTokens<'py>> {
        let found = detached(py, || match longest {
            true => self.inner.longest_next_tokens(&context.0),
            false => self.inner.next_tokens(&context.0),
        })?;
        Ok(next_tokens(py, found.map_err(BindError::from)?))
    }

    /// The tokens that follow a text, or with `longest` its longest suffix that any token follows.
    ///
    /// Returns:
    ///     The ids, by descending count and then by id, and their counts: (n,) int64 each. The number of
    ///     occurrences that end with their document, and of those that end within a token. The number of
    ///     bytes of the text that was used.
    ///
    /// Raises:
    ///     ConfigError: As `count_text`.
    fn next_after_text<'py>(
        &self,
        py: Python<'py>,
        text: &str,
        longest: bool,
    ) -> PyResult<NextTokens<'py>> {
        let found = detached(py, || match longest {
            true => self.inner.longest_next_after_text(text),
            false => self.inner.next_after_text(text.as_bytes()),
        })?;
        Ok(next_tokens(py, found.map_err(BindError::from)?))
    }

    /// The counts of `next` after the longest suffix of a context that any token follows.
    ///
    /// Returns:
    ///     The number of occurrences of the suffix that `next` follows, the number of those that any token of
    ///     the same document follows, and the length of the suffix in tokens.
    fn probability(
        &self,
        py: Python<'_>,
        context: Ids,
        next: i64,
    ) -> Result<(u64, u64, u64), BindError> {
        let p = py.detach(|| self.inner.probability(&context.0, next))?;
        Ok((p.n_followed_by, p.n_followed, p.n_context))
    }

    /// The maximal spans of a text, of at least `min_bytes` bytes, that occur in a document: (n, 2) int64.
    ///
    /// The columns are the first byte and the end of each span. Spans are in order, cut to whole characters,
    /// and none is within another.
    ///
    /// Raises:
    ///     ConfigError: `min_bytes` is 0, or `has_bytes` is False.
    fn spans<'py>(
        &self,
        py: Python<'py>,
        text: &str,
        min_bytes: usize,
        n_threads: usize,
    ) -> PyResult<Table<'py>> {
        let found = detached(py, || self.inner.spans(text, min_bytes, n_threads))?
            .map_err(BindError::from)?;
        table(
            py,
            found
                .iter()
                .map(|span| [span.start as i64, span.end as i64])
                .collect(),
        )
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let dataset = self.inner.dataset();
        Ok(format!(
            "<SuffixIndex {}: {} documents, {} tokens, {} segments>",
            quoted(py, self.inner.folder().as_os_str())?,
            dataset.n_documents(),
            dataset.n_tokens(),
            self.inner.n_segments(),
        ))
    }

    fn __getnewargs__(&self) -> PyResult<(OsString, TokenDataset)> {
        Ok((absolute(self.inner.folder())?, self.dataset()))
    }
}

/// The segments, memory and disk of the index that `build_index` would build.
///
/// Returns:
///     An `IndexPlan` of `pile_tools.types`.
///
/// Raises:
///     FormatError: The dataset is damaged, or a document has more tokens than a segment can hold.
#[pyfunction]
pub fn plan_index<'py>(
    py: Python<'py>,
    dataset: &TokenDataset,
    memory_bytes: u64,
) -> PyResult<Bound<'py, PyAny>> {
    let plan = py
        .detach(|| search::plan(&dataset.inner, memory_bytes))
        .map_err(BindError::from)?;
    to_python(py, &plan)
}

/// Builds the index of a dataset in a folder: see `pile_tools.jobs.index`.
///
/// Args:
///     dataset: The dataset.
///     tokenizer: The tokenizer of the dataset. With None, the index cannot search for texts.
///     folder: The folder. Finished segments of the same index in it are reused.
///     memory_bytes: Bytes of memory to sort a segment. A longer document takes more.
///     on_progress: Called with the tokens processed so far. Each is processed twice.
///     discard: Whether finished work of other jobs in the folder is removed.
///
/// Returns:
///     An `IndexSummary` of `pile_tools.types`.
///
/// Raises:
///     FormatError: The dataset is damaged, or a document has more tokens than a segment can hold.
///     OutputExistsError: The folder has finished work of another job, and `discard` is off.
///     OSError: A file cannot be read or written.
#[pyfunction]
#[pyo3(signature = (dataset, tokenizer, folder, memory_bytes, on_progress = None, *, discard = false))]
pub fn build_index<'py>(
    py: Python<'py>,
    dataset: &TokenDataset,
    tokenizer: Option<&Tokenizer>,
    folder: PathBuf,
    memory_bytes: u64,
    on_progress: Option<Py<PyAny>>,
    discard: bool,
) -> PyResult<Bound<'py, PyAny>> {
    let summary = watch(py, on_progress, |progress| {
        let table = tokenizer.map(|tokenizer| TokenBytes::new(&tokenizer.inner));
        search::build(
            &dataset.inner,
            table.as_ref(),
            &folder,
            memory_bytes,
            discard,
            progress,
        )
    })?;
    to_python(py, &summary)
}

/// The documents with an occurrence of every clause, in order, and the shortest run that has one of each.
///
/// Args:
///     clauses: The occurrences of each clause, in any order: (n, 3) int64 with the columns document, token
///         offset and number of tokens.
///     window: Number of tokens above which a run is left out, or None.
///
/// Returns:
///     A row for each document: (n_documents, 3) int64 with the columns document, token offset and number of
///     tokens of the run. Of several shortest runs it is the first.
///
/// Raises:
///     ConfigError: There are no clauses, or one has another number of columns.
#[pyfunction]
#[pyo3(signature = (clauses, window = None))]
pub fn combine_occurrences<'py>(
    py: Python<'py>,
    clauses: Vec<PyReadonlyArray2<'py, i64>>,
    window: Option<u64>,
) -> PyResult<Table<'py>> {
    let occurrence = |row: [i64; 3]| {
        let [document, token_offset, n_tokens] = row.map(|n| n as u64);
        search::ClauseOccurrence {
            document,
            token_offset,
            n_tokens,
        }
    };
    let clauses = clauses
        .iter()
        .map(|clause| Ok(rows(clause)?.into_iter().map(occurrence).collect()))
        .collect::<Result<Vec<Vec<_>>, BindError>>()?;
    let found = py
        .detach(|| search::combine(&clauses, window))
        .map_err(BindError::from)?;
    let found = found
        .iter()
        .map(|run| [run.document, run.token_offset, run.n_tokens].map(|n| n as i64));
    table(py, found.collect())
}
