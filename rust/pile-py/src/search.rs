//! `SuffixIndex`: the suffix array of a dataset.

use std::{path::PathBuf, sync::Arc};

use numpy::{IntoPyArray, PyArray1, PyArray2, PyReadonlyArray1, PyReadonlyArray2};
use pile_core::{search, tokenize::TokenBytes};
use pyo3::{
    prelude::*,
    types::{PyBytes, PyList, PyTuple},
};

use crate::{
    dataset::TokenDataset, errors::BindError, jobs::to_python, order::table, progress::watch,
    tokenizer::Tokenizer,
};

type Column<'py> = Bound<'py, PyArray1<i64>>;
type Table<'py> = Bound<'py, PyArray2<i64>>;

/// The suffix array of a dataset, memory-mapped.
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
        // Arrays of these types are read without a Python object for each id.
        if let Ok(ids) = any.extract::<PyReadonlyArray1<'_, u16>>() {
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

    #[getter]
    fn dataset(&self) -> TokenDataset {
        TokenDataset::of(Arc::clone(self.inner.dataset()))
    }

    #[getter]
    fn n_segments(&self) -> usize {
        self.inner.n_segments()
    }

    #[getter]
    fn n_ids(&self) -> usize {
        self.inner.alphabet().len()
    }

    #[getter]
    fn has_bytes(&self) -> bool {
        self.inner.alphabet().has_bytes()
    }

    fn is_of(&self, py: Python<'_>, tokenizer: &Tokenizer) -> bool {
        py.detach(|| {
            self.inner
                .alphabet()
                .decodes_as(&TokenBytes::new(&tokenizer.inner))
        })
    }

    fn decode<'py>(&self, py: Python<'py>, ids: Ids) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.inner.decode(&ids.0))
    }

    fn count(&self, py: Python<'_>, ids: Ids) -> Result<u64, BindError> {
        Ok(py.detach(|| self.inner.count(&ids.0))?)
    }

    fn count_batch<'py>(
        &self,
        py: Python<'py>,
        ids: PyReadonlyArray1<'py, i64>,
        starts: PyReadonlyArray1<'py, i64>,
        n_threads: usize,
    ) -> PyResult<Column<'py>> {
        let ids = ids.as_slice()?;
        let starts: Vec<usize> = starts.as_array().iter().map(|at| *at as usize).collect();
        let counts = py.detach(|| self.inner.count_batch(ids, &starts, n_threads));
        Ok(column(py, counts.map_err(BindError::from)?))
    }

    fn locate<'py>(&self, py: Python<'py>, ids: Ids, max_occurrences: u64) -> PyResult<Table<'py>> {
        let found = py
            .detach(|| self.inner.locate(&ids.0, max_occurrences))
            .map_err(BindError::from)?;
        table(
            py,
            found
                .iter()
                .map(|o| [o.document, o.token_offset].map(|n| n as i64))
                .collect(),
        )
    }

    fn count_text(&self, py: Python<'_>, text: &[u8]) -> Result<u64, BindError> {
        Ok(py.detach(|| self.inner.count_text(text))?)
    }

    fn locate_text<'py>(
        &self,
        py: Python<'py>,
        text: &[u8],
        max_occurrences: u64,
    ) -> PyResult<Table<'py>> {
        let found = py
            .detach(|| self.inner.locate_text(text, max_occurrences))
            .map_err(BindError::from)?;
        text_occurrences(py, &found)
    }

    fn sample_text<'py>(
        &self,
        py: Python<'py>,
        text: &[u8],
        limit: usize,
    ) -> PyResult<(u64, Table<'py>)> {
        let (n, found) = py
            .detach(|| self.inner.sample_text(text, limit))
            .map_err(BindError::from)?;
        Ok((n, text_occurrences(py, &found)?))
    }

    fn next_tokens<'py>(
        &self,
        py: Python<'py>,
        context: Ids,
        longest: bool,
    ) -> PyResult<NextTokens<'py>> {
        let found = py.detach(|| match longest {
            true => self.inner.longest_next_tokens(&context.0),
            false => self.inner.next_tokens(&context.0),
        });
        Ok(next_tokens(py, found.map_err(BindError::from)?))
    }

    fn next_after_text<'py>(
        &self,
        py: Python<'py>,
        text: &str,
        longest: bool,
    ) -> PyResult<NextTokens<'py>> {
        let found = py.detach(|| match longest {
            true => self.inner.longest_next_after_text(text),
            false => self.inner.next_after_text(text.as_bytes()),
        });
        Ok(next_tokens(py, found.map_err(BindError::from)?))
    }

    fn probability(
        &self,
        py: Python<'_>,
        context: Ids,
        next: i64,
    ) -> Result<(u64, u64, u64), BindError> {
        let p = py.detach(|| self.inner.probability(&context.0, next))?;
        Ok((p.n_followed_by, p.n_followed, p.n_context))
    }

    fn spans<'py>(
        &self,
        py: Python<'py>,
        text: &str,
        min_bytes: usize,
        n_threads: usize,
    ) -> PyResult<Table<'py>> {
        let found = py
            .detach(|| self.inner.spans(text, min_bytes, n_threads))
            .map_err(BindError::from)?;
        table(
            py,
            found
                .iter()
                .map(|span| [span.start as i64, span.end as i64])
                .collect(),
        )
    }

    fn __getnewargs__(&self) -> PyResult<(PathBuf, TokenDataset)> {
        Ok((std::path::absolute(self.inner.folder())?, self.dataset()))
    }
}

/// The segments, memory and disk of an index that `build_index` would build.
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

/// Builds the index of a dataset in a folder and returns its counts.
#[pyfunction]
#[pyo3(signature = (dataset, tokenizer, folder, memory_bytes, on_progress = None))]
pub fn build_index<'py>(
    py: Python<'py>,
    dataset: &TokenDataset,
    tokenizer: Option<&Tokenizer>,
    folder: PathBuf,
    memory_bytes: u64,
    on_progress: Option<Py<PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let summary = watch(py, on_progress, |progress| {
        let table = tokenizer.map(|tokenizer| TokenBytes::new(&tokenizer.inner));
        search::build(
            &dataset.inner,
            table.as_ref(),
            &folder,
            memory_bytes,
            progress,
        )
    })?;
    to_python(py, &summary)
}

/// The documents with an occurrence of every clause, and the shortest run of tokens that contains one of each.
///
/// A clause is an array of its occurrences. Clauses and result have the columns document, token of the document, number
/// of tokens.
#[pyfunction]
#[pyo3(signature = (clauses, window = None))]
pub fn combine_occurrences<'py>(
    py: Python<'py>,
    clauses: Vec<PyReadonlyArray2<'py, i64>>,
    window: Option<u64>,
) -> PyResult<Table<'py>> {
    let clauses: Vec<Vec<search::ClauseOccurrence>> = clauses
        .iter()
        .map(|clause| {
            let rows = clause.as_array();
            let occurrences = rows.rows().into_iter().map(|row| search::ClauseOccurrence {
                document: row[0] as u64,
                token_offset: row[1] as u64,
                n_tokens: row[2] as u64,
            });
            occurrences.collect()
        })
        .collect();
    let found = py
        .detach(|| search::combine(&clauses, window))
        .map_err(BindError::from)?;
    let rows = found
        .iter()
        .map(|found| [found.document, found.token_offset, found.n_tokens].map(|n| n as i64));
    table(py, rows.collect())
}
