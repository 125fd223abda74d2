//! Counts of n-grams and of terms.

use std::path::PathBuf;

use numpy::{IntoPyArray, PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1};
use pile_core::{
    Error, Result,
    count::{
        self, ArithmeticKey, Gram, GramSink, Grouped, Keep, Keys, NgramConfig, Terms, Totals,
        Within, WordsConfig,
    },
    read::DEFAULT_MAX_RECORD,
    timeline::CheckpointCounts,
    tokenize::TokenBytes,
    tokens::{TokenSource, TokenType},
};
use pyo3::{prelude::*, pybacked::PyBackedBytes};

use crate::{
    dataset::TokenDataset,
    errors::BindError,
    jobs::{rules, to_python},
    order::TrainingOrder,
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
    group_names: Vec<Option<String>>,
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
        let (config, keys) = (counting.into(), Keys::Tokens(table.as_ref()));
        count::count_ngrams(&documents, across_documents, &config, progress, || {
            count::write_table(&output, keys, &group_names)
        })
    })?;
    to_python(py, &summary)
}

/// Counts the n-grams of the words of shards into a table.
#[pyfunction]
#[pyo3(signature = (
    shards, counting, output, ignore_case, by_subset, on_progress = None, *,
    text_field = "text", skip_bad_records = false, max_record = DEFAULT_MAX_RECORD
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
    max_record: u64,
) -> PyResult<Bound<'py, PyAny>> {
    let config = WordsConfig {
        counting: counting.into(),
        shards,
        rules: rules(text_field, skip_bad_records, max_record),
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
        let config = counting.into();
        count::count_ngrams(&documents, across_documents, &config, progress, || Ok(sink))
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

type Table<'py> = Bound<'py, PyArray2<i64>>;

/// Tables, names of groups, documents, bad records, and the hashes of shards.
type OfShards<'py> = ([Table<'py>; 3], Vec<Option<String>>, u64, u64, Vec<String>);

/// Terms, pairs of them, and how they are counted: `TermQuery` of `types.py`.
#[derive(FromPyObject)]
pub struct TermQuery {
    terms: Vec<PyBackedBytes>,
    whole_words: bool,
    ignore_case: bool,
    pairs: Vec<(u32, u32)>,
    within_words: Option<u32>,
    threads: usize,
}

impl TermQuery {
    fn terms(&self) -> Result<Terms> {
        let terms: Vec<&[u8]> = self.terms.iter().map(AsRef::as_ref).collect();
        let within = self.within_words.map_or(Within::Unit, Within::Words);
        Terms::new(
            &terms,
            (self.whole_words, self.ignore_case),
            &self.pairs,
            within,
        )
    }
}

/// Three tables, of occurrences, units and pairs, with a row for each of some totals.
fn tables(py: Python<'_>, totals: Vec<Totals>) -> PyResult<[Table<'_>; 3]> {
    let n_rows = totals.len();
    let [mut occurrences, mut units, mut pairs] = [Vec::new(), Vec::new(), Vec::new()];
    for of in totals {
        occurrences.extend(of.occurrences.into_iter().map(|n| n as i64));
        units.extend(of.units.into_iter().map(|n| n as i64));
        pairs.extend(of.pairs.into_iter().map(|n| n as i64));
    }
    let table = |values: Vec<i64>| {
        let n_columns = values.len() / n_rows.max(1);
        let fail = |err: PyErr| PyErr::from(BindError::from(Error::argument(err.to_string())));
        values
            .into_pyarray(py)
            .reshape([n_rows, n_columns])
            .map_err(fail)
    };
    Ok([table(occurrences)?, table(units)?, table(pairs)?])
}

/// Counts terms in shards.
#[pyfunction]
#[pyo3(signature = (
    shards, query, by_subset, on_progress = None, *,
    tokenizer = None, text_field = "text", skip_bad_records = false, max_record = DEFAULT_MAX_RECORD
))]
#[allow(clippy::too_many_arguments)] // the job's config, by keyword from Python
pub fn shards_terms<'py>(
    py: Python<'py>,
    shards: Vec<PathBuf>,
    query: TermQuery,
    by_subset: bool,
    on_progress: Option<Py<PyAny>>,
    tokenizer: Option<&Tokenizer>,
    text_field: &str,
    skip_bad_records: bool,
    max_record: u64,
) -> PyResult<OfShards<'py>> {
    let rules = rules(text_field, skip_bad_records, max_record);
    let found = watch(py, on_progress, |progress| {
        let how = (query.threads, progress);
        let tokenizer = tokenizer.map(|tokenizer| &*tokenizer.inner);
        count::count_terms_in_shards(&shards, &rules, &query.terms()?, by_subset, tokenizer, how)
    })?;
    let tables = tables(py, found.totals)?;
    Ok((
        tables,
        found.groups,
        found.n_documents,
        found.n_bad_records,
        found.shards,
    ))
}

/// Counts terms in the decoded documents of a dataset.
#[pyfunction]
#[pyo3(signature = (dataset, tokenizer, query, groups, n_groups, eod, on_progress = None))]
#[allow(clippy::too_many_arguments)] // the job's config, by keyword from Python
pub fn dataset_terms<'py>(
    py: Python<'py>,
    dataset: &TokenDataset,
    tokenizer: &Tokenizer,
    query: TermQuery,
    groups: PyReadonlyArray1<'py, u32>,
    n_groups: usize,
    eod: Option<u32>,
    on_progress: Option<Py<PyAny>>,
) -> PyResult<[Table<'py>; 3]> {
    let groups = groups.as_slice()?;
    let totals = watch(py, on_progress, |progress| {
        let documents = Grouped {
            source: &*dataset.inner,
            groups,
            n_groups,
        };
        let table = TokenBytes::new(&tokenizer.inner);
        let how = (query.threads, progress);
        count::count_terms_in_documents(&documents, &query.terms()?, (&table, eod), how)
    })?;
    tables(py, totals)
}

/// Counts terms in the samples of an order, up to each of some numbers of samples.
#[pyfunction]
#[pyo3(signature = (order, tokenizer, query, ends, on_progress = None))]
pub fn order_terms<'py>(
    py: Python<'py>,
    order: &TrainingOrder,
    tokenizer: &Tokenizer,
    query: TermQuery,
    ends: Vec<u64>,
    on_progress: Option<Py<PyAny>>,
) -> PyResult<[Table<'py>; 3]> {
    let totals = watch(py, on_progress, |progress| {
        let table = TokenBytes::new(&tokenizer.inner);
        let checkpoints = CheckpointCounts {
            order: &order.inner,
            table: &table,
            ends: &ends,
            n_threads: query.threads,
        };
        let mut all = Vec::new();
        checkpoints.count_terms(&query.terms()?, progress, |totals| {
            all.push(totals);
            Ok(())
        })?;
        Ok(all)
    })?;
    tables(py, totals)
}

/// Counts by Pythia's arithmetic rule, up to each of some numbers of samples.
#[pyfunction]
#[pyo3(signature = (order, tokenizer, ends, n_threads, on_progress = None))]
pub fn order_arithmetic(
    py: Python<'_>,
    order: &TrainingOrder,
    tokenizer: &Tokenizer,
    ends: Vec<u64>,
    n_threads: usize,
    on_progress: Option<Py<PyAny>>,
) -> PyResult<Vec<Vec<(String, u64)>>> {
    let name = |key: &ArithmeticKey| match *key {
        ArithmeticKey::Number(a) => a.to_string(),
        ArithmeticKey::Pair(a, b) => format!("{a}-{b}"),
        ArithmeticKey::Unit(a, unit) => format!("{a}-{}", count::UNITS[usize::from(unit)]),
    };
    watch(py, on_progress, |progress| {
        let table = TokenBytes::new(&tokenizer.inner);
        let checkpoints = CheckpointCounts {
            order: &order.inner,
            table: &table,
            ends: &ends,
            n_threads,
        };
        let mut all = Vec::new();
        checkpoints.count_arithmetic(progress, |counts| {
            let mut keys: Vec<_> = counts.iter().collect();
            keys.sort_unstable();
            all.push(keys.into_iter().map(|(key, n)| (name(key), *n)).collect());
            Ok(())
        })?;
        Ok(all)
    })
}
