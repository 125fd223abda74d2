//! Items of benchmarks in a corpus.

use std::path::PathBuf;

use numpy::{IntoPyArray, PyArray2, PyReadonlyArray2};
use pile_core::{
    contamination::{
        self, BenchmarkItems as CoreItems, ContaminatedBytes, Contamination, ContaminationConfig,
        DocumentBytes, ItemPart, Role,
    },
    count::DocumentDecoder,
    read::DEFAULT_MAX_RECORD,
    tokenize::TokenBytes,
    tokens::TokenSource,
};
use pyo3::{prelude::*, types::PyDict};

use crate::{
    dataset::TokenDataset,
    errors::BindError,
    jobs::{rules, to_python},
    order::{TrainingOrder, table},
    progress::watch,
    timeline::columns,
    tokenizer::Tokenizer,
};

/// How items are found: `ContaminationSearch` of `types.py`.
#[derive(FromPyObject)]
pub struct ContaminationSearch {
    threshold: f64,
    max_gap: usize,
    threads: usize,
    folder: PathBuf,
    job: String,
    discard: bool,
    lists_bytes: bool,
}

impl From<ContaminationSearch> for ContaminationConfig {
    fn from(search: ContaminationSearch) -> Self {
        Self {
            threshold: search.threshold,
            max_gap: search.max_gap,
            n_threads: search.threads,
            folder: search.folder,
            job: search.job,
            discard: search.discard,
            lists_bytes: search.lists_bytes,
        }
    }
}

/// The items of a benchmark, with a table of their n-grams.
///
/// Args:
///     n_items: Number of items.
///     parts: The parts, by item: the number of the item, the role (0 passage, 1 question, 2 answer,
///         3 choice), and the text.
///     ngram: Words of an n-gram, from 4 to 64. A part of fewer words is one n-gram if it has at least 4.
///
/// Raises:
///     ConfigError: The n-grams have too few or too many words, there is no such role, or the parts are not
///         sorted by item.
#[pyclass(module = "pile_tools._core", frozen)]
pub struct BenchmarkItems {
    inner: CoreItems,
    n_items: usize,
}

#[pymethods]
impl BenchmarkItems {
    #[new]
    fn new(
        py: Python<'_>,
        n_items: usize,
        parts: Vec<(u32, usize, String)>,
        ngram: usize,
    ) -> Result<Self, BindError> {
        let part = |(item, role, text): (u32, usize, String)| {
            let role = Role::ALL.get(role).copied();
            let role =
                role.ok_or_else(|| pile_core::Error::argument("a role is a number from 0 to 3"))?;
            Ok(ItemPart { item, role, text })
        };
        let parts = parts.into_iter().map(part);
        let parts = parts.collect::<pile_core::Result<Vec<_>>>()?;
        let inner = py.detach(|| CoreItems::new(n_items, parts, ngram))?;
        Ok(Self { inner, n_items })
    }

    fn __len__(&self) -> usize {
        self.n_items
    }

    fn __repr__(&self) -> String {
        let n_grams = self.inner.n_grams();
        format!(
            "<BenchmarkItems: {} items, {n_grams} n-grams>",
            self.n_items
        )
    }
}

/// Matches, parts and summary as Python gets them.
type Found<'py> = (Bound<'py, PyDict>, Bound<'py, PyDict>, Bound<'py, PyAny>);

fn found_to_python(py: Python<'_>, found: Contamination) -> PyResult<Found<'_>> {
    let matches = &found.matches;
    let rows = PyDict::new(py);
    let numbers =
        |of: fn(&contamination::Match) -> u64| -> Vec<u64> { matches.iter().map(of).collect() };
    rows.set_item("part", numbers(|m| m.part.into()).into_pyarray(py))?;
    rows.set_item("shard", numbers(|m| m.shard.into()).into_pyarray(py))?;
    rows.set_item("document", numbers(|m| m.document).into_pyarray(py))?;
    rows.set_item("kind", numbers(|m| m.kind as u64).into_pyarray(py))?;
    rows.set_item("byte_start", numbers(|m| m.bytes.start).into_pyarray(py))?;
    rows.set_item("byte_end", numbers(|m| m.bytes.end).into_pyarray(py))?;
    let n_choices = numbers(|m| m.n_choices.into()).into_pyarray(py);
    rows.set_item("n_choices", n_choices)?;
    let floats =
        |of: fn(&contamination::Match) -> f64| -> Vec<f64> { matches.iter().map(of).collect() };
    rows.set_item("score", floats(|m| m.score).into_pyarray(py))?;
    let answers = floats(|m| m.answer_score.unwrap_or(f64::NAN));
    rows.set_item("answer_score", answers.into_pyarray(py))?;
    let occurrences = (0_u64..).zip(matches).flat_map(|(number, found)| {
        let of_match = found.occurrences.iter();
        of_match.map(move |bytes| [number, bytes.start, bytes.end].map(|n| n as i64))
    });
    rows.set_item("occurrences", table(py, occurrences.collect())?)?;
    let texts: Vec<&str> = matches.iter().map(|found| found.text.as_str()).collect();
    rows.set_item("text", texts)?;
    let all = &found.contaminated;
    let shards: Vec<u32> = all.iter().map(|of| of.shard).collect();
    let numbers = |of: fn(&ContaminatedBytes) -> u64| -> Vec<u64> { all.iter().map(of).collect() };
    let contaminated = (
        shards.into_pyarray(py),
        numbers(|of| of.document).into_pyarray(py),
        numbers(|of| of.bytes.start).into_pyarray(py),
        numbers(|of| of.bytes.end).into_pyarray(py),
    );
    rows.set_item("contaminated", contaminated)?;
    let of_parts = PyDict::new(py);
    let parts = &found.parts;
    let numbers =
        |of: fn(&contamination::PartSummary) -> u64| -> Vec<u64> { parts.iter().map(of).collect() };
    of_parts.set_item("n_words", numbers(|p| p.n_words).into_pyarray(py))?;
    of_parts.set_item("n_grams", numbers(|p| p.n_grams).into_pyarray(py))?;
    of_parts.set_item("n_documents", numbers(|p| p.n_documents).into_pyarray(py))?;
    let weights: Vec<f64> = parts.iter().map(|part| part.weight).collect();
    of_parts.set_item("weight", weights.into_pyarray(py))?;
    let is_telling: Vec<bool> = parts.iter().map(|part| part.is_telling).collect();
    of_parts.set_item("is_telling", is_telling.into_pyarray(py))?;
    Ok((rows, of_parts, to_python(py, &found.summary)?))
}

/// Finds the items of a benchmark in the documents of shards.
///
/// Args:
///     items: The items.
///     shards: The shards, in reading order.
///     search: The settings.
///     on_progress: Called with the compressed bytes read so far.
///     text_field: The field of a record that has its text.
///     skip_bad_records: Whether bad records are skipped. Otherwise they are an error.
///     max_record: Number of bytes above which a record is bad.
///
/// Returns:
///     An `ItemMatches`, a `PartTotals` and a `ContaminationSummary` of `pile_tools.types`.
///
/// Raises:
///     ConfigError: A setting is invalid.
///     FormatError: A shard is damaged or changes while it is read.
///     OutputExistsError: The scratch folder has work of another job.
///     OSError: A file cannot be read or written.
#[pyfunction]
#[pyo3(signature = (
    items, shards, search, on_progress = None, *,
    text_field = "text", skip_bad_records = false, max_record = DEFAULT_MAX_RECORD
))]
#[allow(clippy::too_many_arguments)] // the job's config, by keyword from Python
pub fn shards_contamination<'py>(
    py: Python<'py>,
    items: &BenchmarkItems,
    shards: Vec<PathBuf>,
    search: ContaminationSearch,
    on_progress: Option<Py<PyAny>>,
    text_field: &str,
    skip_bad_records: bool,
    max_record: u64,
) -> PyResult<Found<'py>> {
    let rules = rules(text_field, skip_bad_records, max_record);
    let config = search.into();
    let found = watch(py, on_progress, |progress| {
        contamination::find_in_shards(&items.inner, &shards, &rules, &config, progress)
    })?;
    found_to_python(py, found)
}

/// The documents in which items are found.
#[derive(FromPyObject)]
pub enum Documents<'py> {
    Dataset(PyRef<'py, TokenDataset>),
    Order(PyRef<'py, TrainingOrder>),
}

/// Finds the items of a benchmark in the decoded documents of a dataset, or in those of an order.
///
/// The rows of an order of rows are documents. The end-of-document token separates texts wherever it is.
///
/// Args:
///     items: The items.
///     documents: The dataset or the order.
///     tokenizer: Decodes the documents.
///     eod: The id of the end-of-document token.
///     search: The settings.
///     on_progress: Called with the tokens read so far.
///
/// Returns:
///     As `shards_contamination`.
///
/// Raises:
///     ConfigError: A setting is invalid.
///     FormatError: The dataset is damaged, or there are no tokens.
///     OSError: A file cannot be read or written.
#[pyfunction]
#[pyo3(signature = (items, documents, tokenizer, eod, search, on_progress = None))]
pub fn documents_contamination<'py>(
    py: Python<'py>,
    items: &BenchmarkItems,
    documents: Documents<'py>,
    tokenizer: &Tokenizer,
    eod: Option<u32>,
    search: ContaminationSearch,
    on_progress: Option<Py<PyAny>>,
) -> PyResult<Found<'py>> {
    let source: std::sync::Arc<dyn TokenSource> = match documents {
        Documents::Dataset(dataset) => std::sync::Arc::clone(&dataset.inner) as _,
        Documents::Order(order) => std::sync::Arc::clone(order.inner.source()),
    };
    let config = search.into();
    let found = watch(py, on_progress, |progress| {
        let token_bytes = TokenBytes::new(&tokenizer.inner);
        let decoder = DocumentDecoder {
            token_bytes: &token_bytes,
            eod,
        };
        contamination::find_in_documents(&items.inner, &*source, decoder, &config, progress)
    })?;
    found_to_python(py, found)
}

/// Every sample of an order that shows some bytes of its documents, in the columns of `order_when`.
///
/// Args:
///     order: The order.
///     tokenizer: Decodes the documents.
///     ranges: The document, the first byte and the end of each range: (n, 3) int64. The number of a range is
///         the text of its sightings.
///     on_progress: Called with the entries of the order read so far.
///
/// Raises:
///     ConfigError: There is no such document, or a range has no byte.
///     FormatError: The dataset or the order is damaged, or there are no tokens.
#[pyfunction]
#[pyo3(signature = (order, tokenizer, ranges, on_progress = None))]
pub fn order_sightings<'py>(
    py: Python<'py>,
    order: &TrainingOrder,
    tokenizer: &Tokenizer,
    ranges: PyReadonlyArray2<'py, i64>,
    on_progress: Option<Py<PyAny>>,
) -> PyResult<Bound<'py, PyArray2<i64>>> {
    let mut given = Vec::new();
    for [document, start, end] in crate::order::rows(&ranges)? {
        if !(0 <= document && 0 <= start && start < end) {
            let what = format!("no bytes {start} to {end} of document {document}");
            return Err(BindError::from(pile_core::Error::argument(what)).into());
        }
        given.push(DocumentBytes {
            document: document as u64,
            bytes: start as u64..end as u64,
        });
    }
    let seen = watch(py, on_progress, |progress| {
        let token_bytes = TokenBytes::new(&tokenizer.inner);
        contamination::sightings_of_bytes(&order.inner, &token_bytes, &given, progress)
    })?;
    table(py, seen.sightings.iter().map(columns).collect())
}
