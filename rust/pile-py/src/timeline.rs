//! When the model saw what. Functions rather than methods of the order, which knows nothing of this room.

use numpy::{IntoPyArray, PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1};
use pile_core::{
    Error,
    timeline::{self, Alphabet, FindPlaces, Indexed, Question, Scan, Sighting},
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

fn columns(s: &Sighting) -> [i64; 12] {
    [
        s.text,
        s.document,
        s.byte,
        s.token,
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

/// Every time the model saw texts.
#[pyfunction]
#[pyo3(signature = (order, tokenizer, index, texts, n_samples, across_documents, max_places, n_threads, on_progress = None))]
#[allow(clippy::too_many_arguments)] // the question, by keyword from Python
pub fn order_when<'py>(
    py: Python<'py>,
    order: &TrainingOrder,
    tokenizer: Option<&Tokenizer>,
    index: Option<&SuffixIndex>,
    texts: Vec<PyBackedBytes>,
    n_samples: u64,
    across_documents: bool,
    max_places: u64,
    n_threads: usize,
    on_progress: Option<Py<PyAny>>,
) -> PyResult<(Table<'py>, Column<'py>, Column<'py>, Column<'py>)> {
    let answer = watch(py, on_progress, |progress| {
        let order = &order.inner;
        let table = tokenizer.map(|tokenizer| TokenBytes::new(&tokenizer.inner));
        let alphabet = match &table {
            Some(table) => Alphabet::Text(table),
            None => Alphabet::Ids(order.source().token_type()),
        };
        let scan = Scan {
            source: order.source(),
            alphabet,
            n_threads,
            max_places,
        };
        let question = Question {
            texts: &texts.iter().map(AsRef::as_ref).collect::<Vec<&[u8]>>(),
            across_documents: across_documents.then_some(n_samples),
        };
        let indexed = index
            .map(|index| Indexed::new(&index.inner, alphabet, max_places))
            .transpose()?;
        let finder: &dyn FindPlaces = indexed.as_ref().map_or(&scan, |indexed| indexed);
        question.ask(order, finder, &scan, progress)
    })?;
    let mut n_places = vec![0; texts.len()];
    for place in &answer.found.places {
        n_places[place.text as usize] += 1;
    }
    let found = &answer.found;
    let looked_at = vec![found.n_documents, found.n_tokens, found.n_without_bytes];
    Ok((
        table(py, answer.sightings.iter().map(columns).collect())?,
        column(py, n_places),
        column(py, answer.n_unreached),
        column(py, looked_at),
    ))
}

/// Every part of a document that a sample holds.
#[pyfunction]
pub fn order_trace<'py>(
    py: Python<'py>,
    order: &TrainingOrder,
    document: u64,
) -> PyResult<Table<'py>> {
    let views = watch(py, None, |progress| {
        let span = Span {
            document,
            start: 0,
            length: order.inner.source().document_length(document)?,
        };
        Ok(order.inner.views(&[span], progress)?.views)
    })?;
    let mut rows: Vec<[i64; 5]> = views
        .iter()
        .map(|v| [v.copy, v.sample, v.offset, v.start, v.length].map(|x| x as i64))
        .collect();
    rows.sort_by_key(|row| (row[1], row[2]));
    table(py, rows)
}

/// What the model reads more than once.
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
        timeline::repeats(
            &order.inner,
            (n_samples, order.seq_length()),
            interval_samples,
            n_threads,
            progress,
        )
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

/// Tokens of each subset that the model reads, by interval.
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
    let n_tokens = watch(py, on_progress, |progress| {
        let kind_of = |document: u64| {
            let number = numbers.get(document as usize).copied();
            let number = number.and_then(|number| usize::try_from(number).ok());
            Ok(number.filter(|n| *n < n_subsets).unwrap_or(n_subsets))
        };
        timeline::mixture(
            &order.inner,
            (n_samples, order.seq_length()),
            interval_samples,
            n_subsets + 1,
            kind_of,
            (n_threads, progress),
        )
    })?;
    let n_intervals = n_tokens.len() / (n_subsets + 1);
    column(py, n_tokens)
        .reshape([n_intervals, n_subsets + 1])
        .map_err(|err| BindError::from(Error::argument(err.to_string())).into())
}
