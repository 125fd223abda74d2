//! Counts of n-grams.

use std::path::PathBuf;

use numpy::{IntoPyArray, PyArray1, PyArrayMethods, PyReadonlyArray1};
use pile_core::{
    Error, Result,
    count::{self, Gram, GramSink, Grouped, Keep, Keys, NgramConfig, WordsConfig},
    tokenize::TokenBytes,
    tokens::{TokenSource, TokenType},
};
use pyo3::prelude::*;

use crate::{
    dataset::TokenDataset,
    errors::BindError,
    jobs::{rules, to_python},
    progress::watch,
    tokenizer::Tokenizer,
};

/// How n-grams are counted, whatever they are of: `Counting` of `_core.pyi`.
#[derive(FromPyObject)]
pub struct Counting {
    lengths: Vec<usize>,
    min_count: u64,
    top: Option<usize>,
    memory: u64,
    threads: usize,
    folder: PathBuf,
    free_bytes: u64,
    job: String,
    discard: bool,
}

impl From<Counting> for NgramConfig {
    fn from(given: Counting) -> Self {
        Self {
            lengths: given.lengths,
            keep: Keep {
                min_count: given.min_count,
                top: given.top,
            },
            memory: given.memory,
            n_threads: given.threads,
            folder: given.folder,
            free_bytes: given.free_bytes,
            job: given.job,
            discard: given.discard,
        }
    }
}

/// Counts the n-grams of a dataset into a table.
#[pyfunction]
#[pyo3(signature = (dataset, counting, output, across_documents, tokenizer, groups, group_names, on_progress = None))]
#[allow(clippy::too_many_arguments)] // the job's config, by keyword from Python
pub fn count_token_ngrams<'py>(
    py: Python<'py>,
    dataset: &TokenDataset,
    counting: Counting,
    output: PathBuf,
    across_documents: bool,
    tokenizer: Option<&Tokenizer>,
    groups: PyReadonlyArray1<'py, u32>,
    group_names: Vec<String>,
    on_progress: Option<Py<PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let groups = groups.as_slice()?;
    let summary = watch(py, on_progress, |progress| {
        let table = tokenizer.map(|tokenizer| TokenBytes::new(&tokenizer.inner));
        let documents = Grouped {
            source: &*dataset.inner,
            groups,
            n_groups: group_names.len(),
        };
        let sink = count::write_table(&output, Keys::Tokens(table.as_ref()), &group_names)?;
        count::count_ngrams(
            &documents,
            across_documents,
            &counting.into(),
            sink,
            progress,
        )
    })?;
    to_python(py, &summary)
}

/// Counts the n-grams of the words of shards into a table.
#[pyfunction]
#[pyo3(signature = (
    shards, counting, output, ignore_case, by_subset, on_progress = None, *,
    text_field = "text", skip_bad_records = false
))]
#[allow(clippy::too_many_arguments)] // the job's config, by keyword from Python
pub fn count_word_ngrams<'py>(
    py: Python<'py>,
    shards: Vec<PathBuf>,
    counting: Counting,
    output: PathBuf,
    ignore_case: bool,
    by_subset: bool,
    on_progress: Option<Py<PyAny>>,
    text_field: &str,
    skip_bad_records: bool,
) -> PyResult<Bound<'py, PyAny>> {
    let config = WordsConfig {
        counting: counting.into(),
        shards,
        rules: rules(text_field, skip_bad_records),
        ignore_case,
        by_subset,
    };
    let summary = watch(py, on_progress, |progress| {
        count::count_words(&config, progress, |groups| {
            count::write_table(&output, Keys::Words, groups)
        })
    })?;
    to_python(py, &summary)
}

/// Keeps n-grams in arrays.
struct Arrays<'a, T> {
    ids: &'a mut Vec<T>,
    counts: &'a mut Vec<i64>,
    of: fn(u32) -> T,
}

impl<T> GramSink for Arrays<'_, T> {
    fn take(&mut self, gram: &Gram<'_>) -> Result<()> {
        let ids = gram.key.as_chunks::<4>().0.iter();
        self.ids
            .extend(ids.map(|id| (self.of)(u32::from_be_bytes(*id))));
        self.counts.push(gram.count as i64);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

/// The n-grams of a dataset, and how often each occurs.
#[pyfunction]
#[pyo3(signature = (dataset, counting, across_documents, on_progress = None))]
pub fn token_ngrams<'py>(
    py: Python<'py>,
    dataset: &TokenDataset,
    counting: Counting,
    across_documents: bool,
    on_progress: Option<Py<PyAny>>,
) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyArray1<i64>>)> {
    let n = counting.lengths.iter().copied().max().unwrap_or(1);
    let (mut short, mut long, mut counts) = (Vec::<u16>::new(), Vec::<i32>::new(), Vec::new());
    let is_short = dataset.inner.token_type() == TokenType::U16;
    watch(py, on_progress, |progress| {
        let documents = Grouped {
            source: &*dataset.inner,
            groups: &[],
            n_groups: 1,
        };
        let counts = &mut counts;
        let sink: Box<dyn GramSink> = match is_short {
            true => Box::new(Arrays {
                ids: &mut short,
                counts,
                of: |id| id as u16,
            }),
            false => Box::new(Arrays {
                ids: &mut long,
                counts,
                of: |id| id as i32,
            }),
        };
        count::count_ngrams(
            &documents,
            across_documents,
            &counting.into(),
            sink,
            progress,
        )
    })?;
    let shape = [counts.len(), n];
    let fail = |err: PyErr| BindError::from(Error::argument(err.to_string()));
    let ids = match is_short {
        true => short
            .into_pyarray(py)
            .reshape(shape)
            .map_err(fail)?
            .into_any(),
        false => long
            .into_pyarray(py)
            .reshape(shape)
            .map_err(fail)?
            .into_any(),
    };
    Ok((ids, counts.into_pyarray(py)))
}
