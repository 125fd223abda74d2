//! When the model saw what. These are functions, not methods of `TrainingOrder`: the timeline is a layer
//! above the order.

use numpy::{IntoPyArray, PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1};
use pile_core::{
    Error,
    timeline::{
        self, IndexSearch, MixtureConfig, RepeatsConfig, Scan, SearchUnit, Sighting, TextQuery,
        WithInsertedTexts,
    },
    tokenize::TokenBytes,
    tokens::{Span, TokenSource},
};
use pyo3::{prelude::*, pybacked::PyBackedBytes};

use crate::{
    errors::BindError,
    order::{TrainingOrder, table},
    progress::watch,
    search::SuffixIndex,
    tokenizer::Tokenizer,
};

type Table<'py> = Bound<'py, PyArray2<i64>>;
type Column<'py> = Bound<'py, PyArray1<i64>>;

fn column(py: Python<'_>, items: Vec<u64>) -> Column<'_> {
    let items: Vec<i64> = items.into_iter().map(|n| n as i64).collect();
    items.into_pyarray(py)
}

/// The columns of a sighting in the table of [`order_when`].
pub fn columns(s: &Sighting) -> [i64; 12] {
    [
        s.text,
        s.document,
        s.byte_offset,
        s.token_offset,
        s.n_tokens,
        s.copy,
        s.part,
        s.n_parts,
        s.sample,
        s.offset,
        s.length,
        s.n_documents,
    ]
    .map(|x| x as i64)
}

/// Every time the model saw texts: see `pile_tools.timeline.when`.
///
/// Args:
///     order: The order.
///     tokenizer: Decodes the documents. With None, texts are ids in the stored type.
///     index: An index of the dataset to search in. With None, the documents are scanned.
///     texts: The texts.
///     n_samples: Number of samples of the run. Used with `across_documents` only.
///     across_documents: Whether occurrences that span documents of a row are found too.
///     max_occurrences: Number of occurrences above which the search fails.
///     n_threads: Number of threads.
///     on_progress: Called with the tokens or texts searched and the entries of the order read so far.
///
/// Returns:
///     A row for each part of an occurrence in a sample: (n, 12) int64 with the columns text, document, byte
///     offset, token offset, n_tokens, copy, part, n_parts, sample, offset, length, n_documents. For each
///     text, the number of its occurrences in the documents, and of those that no sample shows: (n_texts,)
///     int64 each. The numbers of documents, tokens, and tokens without bytes that were searched: (3,) int64.
///
/// Raises:
///     ConfigError: A text is empty, or the texts occur more than `max_occurrences` times.
///     FormatError: The dataset or the order is damaged, or there are no tokens.
#[pyfunction]
#[pyo3(signature = (order, tokenizer, index, texts, n_samples, across_documents, max_occurrences, n_threads, on_progress = None))]
#[allow(clippy::too_many_arguments)] // the question, by keyword from Python
pub fn order_when<'py>(
    py: Python<'py>,
    order: &TrainingOrder,
    tokenizer: Option<&Tokenizer>,
    index: Option<&SuffixIndex>,
    texts: Vec<PyBackedBytes>,
    n_samples: u64,
    across_documents: bool,
    max_occurrences: u64,
    n_threads: usize,
    on_progress: Option<Py<PyAny>>,
) -> PyResult<(Table<'py>, Column<'py>, Column<'py>, Column<'py>)> {
    let seen = watch(py, on_progress, |progress| {
        let order = &*order.inner;
        let table = tokenizer.map(|tokenizer| TokenBytes::new(&tokenizer.inner));
        let unit = match &table {
            Some(table) => SearchUnit::Text(table),
            None => SearchUnit::Ids(order.source().token_type()),
        };
        let scan = Scan {
            source: order.source(),
            unit,
            n_threads,
            max_occurrences,
        };
        let query = TextQuery {
            texts: &texts.iter().map(AsRef::as_ref).collect::<Vec<&[u8]>>(),
            across_documents: across_documents.then_some(n_samples),
        };
        let indexed = index
            .map(|index| IndexSearch::new(&index.inner, unit, max_occurrences))
            .transpose()?;
        let Some(documents) = indexed else {
            return query.run(order, &scan, &scan, progress);
        };
        let Some(changes) = order.changes() else {
            return query.run(order, &documents, &scan, progress);
        };
        let inserted = Scan {
            source: changes.inserted_texts(),
            unit,
            n_threads,
            max_occurrences,
        };
        let finder = WithInsertedTexts {
            documents,
            inserted,
        };
        query.run(order, &finder, &scan, progress)
    })?;
    let mut n_occurrences = vec![0; texts.len()];
    for occurrence in &seen.occurrences.occurrences {
        n_occurrences[occurrence.text as usize] += 1;
    }
    let found = &seen.occurrences;
    let searched = vec![found.n_documents, found.n_tokens, found.n_without_bytes];
    Ok((
        table(py, seen.sightings.iter().map(columns).collect())?,
        column(py, n_occurrences),
        column(py, seen.n_unreached),
        column(py, searched),
    ))
}

/// Every part of a document that a sample shows, in training order: (n, 5) int64.
///
/// The columns are copy of the document, sample, offset in the sample, first token in the document, and
/// number of tokens.
///
/// Raises:
///     ConfigError: There is no such document.
///     FormatError: The order is damaged.
#[pyfunction]
pub fn order_trace<'py>(
    py: Python<'py>,
    order: &TrainingOrder,
    document: u64,
) -> PyResult<Table<'py>> {
    let appearances = watch(py, None, |progress| {
        let span = Span {
            document,
            start: 0,
            length: order.inner.source().document_length(document)?,
        };
        Ok(order.inner.appearances(&[span], progress)?.appearances)
    })?;
    let mut rows: Vec<[i64; 5]> = appearances
        .iter()
        .map(|a| [a.copy, a.sample, a.offset, a.start, a.length].map(|x| x as i64))
        .collect();
    rows.sort_by_key(|row| (row[1], row[2]));
    table(py, rows)
}

/// What the first `n_samples` samples repeat: see `pile_tools.timeline.repeats`.
///
/// `on_progress` gets the documents and the entries of the order read so far.
///
/// Returns:
///     For each interval of `interval_samples` samples, the tokens that were read before in another copy of
///     their document, and those read before in a duplicate only: (n_intervals, 2) int64. The repeated
///     documents: (n, 6) int64 with the columns same_as, document, n_tokens, n_copies, first_sample,
///     last_sample. The first sample with a token of either kind, or None.
///
/// Raises:
///     ConfigError: The order has fewer samples.
///     FormatError: The dataset or the order is damaged, or there are no tokens.
#[pyfunction]
#[pyo3(signature = (order, n_samples, interval_samples, n_threads, on_progress = None))]
pub fn order_repeats<'py>(
    py: Python<'py>,
    order: &TrainingOrder,
    n_samples: u64,
    interval_samples: u64,
    n_threads: usize,
    on_progress: Option<Py<PyAny>>,
) -> PyResult<(Table<'py>, Table<'py>, Option<u64>, Option<u64>)> {
    let found = watch(py, on_progress, |progress| {
        let config = RepeatsConfig {
            n_samples,
            n_inputs: order.seq_length(),
            interval_samples,
            n_threads,
        };
        timeline::repeats(&order.inner, config, progress)
    })?;
    let both = found.by_epoch.iter().zip(&found.by_duplicate);
    let documents = found.documents.iter().map(|d| {
        [
            d.same_as,
            d.document,
            d.n_tokens,
            d.n_copies,
            d.first_sample,
            d.last_sample,
        ]
        .map(|x| x as i64)
    });
    Ok((
        table(py, both.map(|(a, b)| [*a as i64, *b as i64]).collect())?,
        table(py, documents.collect())?,
        found.first_by_epoch,
        found.first_by_duplicate,
    ))
}

/// Tokens of each subset that the model reads in each interval: (n_intervals, n_subsets + 1) int64.
///
/// The last column is that of unknown subsets.
///
/// Args:
///     order: The order.
///     subset_numbers: The index of each document's subset, -1 if unknown: (n_documents,) int32.
///     n_subsets: Number of subsets.
///     n_samples: Number of samples of the run.
///     interval_samples: Number of samples of an interval.
///     n_threads: Number of threads.
///     on_progress: Called with the samples read so far.
///
/// Raises:
///     ConfigError: The order has fewer samples.
///     FormatError: The order is damaged.
#[pyfunction]
#[pyo3(signature = (order, subset_numbers, n_subsets, n_samples, interval_samples, n_threads, on_progress = None))]
#[allow(clippy::too_many_arguments)] // the question, by keyword from Python
pub fn order_mixture<'py>(
    py: Python<'py>,
    order: &TrainingOrder,
    subset_numbers: PyReadonlyArray1<'py, i32>,
    n_subsets: usize,
    n_samples: u64,
    interval_samples: u64,
    n_threads: usize,
    on_progress: Option<Py<PyAny>>,
) -> PyResult<Table<'py>> {
    let numbers = subset_numbers.as_slice()?;
    // One kind more than there are subsets, for documents of an unknown subset.
    let n_kinds = n_subsets.checked_add(1).ok_or_else(|| {
        let what = format!("{n_subsets} subsets: there are fewer");
        BindError::from(Error::argument(what))
    })?;
    let n_tokens = watch(py, on_progress, |progress| {
        let kind_of = |document: u64| {
            let number = numbers.get(document as usize).copied();
            let number = number.and_then(|number| usize::try_from(number).ok());
            Ok(number.filter(|n| *n < n_subsets).unwrap_or(n_subsets))
        };
        let config = MixtureConfig {
            n_samples,
            n_inputs: order.seq_length(),
            interval_samples,
            n_kinds,
            n_threads,
        };
        timeline::mixture(&order.inner, config, kind_of, progress)
    })?;
    let n_intervals = n_tokens.len() / n_kinds;
    column(py, n_tokens)
        .reshape([n_intervals, n_kinds])
        .map_err(|err| BindError::from(Error::argument(err.to_string())).into())
}
