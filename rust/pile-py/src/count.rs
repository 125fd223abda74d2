//! Counts of n-grams and of terms.

use std::path::PathBuf;

use numpy::{IntoPyArray, PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1};
use pile_core::{
    Error, Result,
    count::{
        self, ArithmeticKey, DocumentDecoder, GroupName, GroupedDocuments, KeyColumns, Ngram,
        NgramConfig, NgramSink, PairScope, Retention, ShardTermsConfig, TermOptions, TermTotals,
        Terms, WordsConfig,
    },
    read::DEFAULT_MAX_RECORD,
    timeline::CheckpointCounts,
    tokenize::TokenBytes,
    tokens::{self, TokenSource, TokenType},
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

/// How n-grams are counted: `Counting` of `types.py`.
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
    fn from(counting: Counting) -> Self {
        Self {
            lengths: counting.lengths,
            retention: Retention {
                min_count: counting.min_count,
                top: counting.top,
            },
            memory: counting.memory,
            n_threads: counting.threads,
            folder: counting.folder,
            free_bytes: counting.free_bytes,
            job: counting.job,
            discard: counting.discard,
        }
    }
}

/// The documents of a dataset in groups, of which each must exist.
fn grouped<'a>(
    dataset: &'a TokenDataset,
    groups: &'a [u32],
    n_groups: usize,
) -> Result<GroupedDocuments<'a, tokens::TokenDataset>> {
    let n = dataset.inner.n_documents() as usize;
    if n_groups == 0 || (!groups.is_empty() && groups.len() != n) {
        return Err(Error::argument(format!(
            "{} group numbers of {n_groups} groups for {n} documents",
            groups.len()
        )));
    }
    if let Some(group) = groups.iter().find(|group| **group as usize >= n_groups) {
        let what = format!("no group {group}: there are {n_groups}");
        return Err(Error::argument(what));
    }
    Ok(GroupedDocuments {
        source: &*dataset.inner,
        path: dataset.inner.prefix(),
        groups,
        n_groups,
    })
}

/// Counts the n-grams of a dataset and writes the retained ones to a table: see `pile_tools.count_ngrams`.
///
/// Args:
///     dataset: The dataset.
///     counting: The settings.
///     output: The table: Parquet if its name ends in `.parquet`, otherwise tab-separated text.
///     across_documents: Whether an n-gram may span documents.
///     tokenizer: Decodes n-grams for the column `text`. With None, the table has no such column.
///     groups: The group number of each document: (n_documents,) uint32, or (0,) for one group.
///     group_names: The names of the groups.
///     on_progress: Called with the n-grams counted so far.
///
/// Returns:
///     A `LengthSummary` of `pile_tools.types` for each length.
///
/// Raises:
///     ConfigError: A length cannot be counted, or the groups do not fit the documents.
///     FormatError: The dataset is damaged or has ids that are not tokens, or the disk has too little space.
///     OutputExistsError: The scratch folder has work of another job.
///     OSError: A file cannot be read or written.
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
    group_names: Vec<GroupName>,
    on_progress: Option<Py<PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let groups = groups.as_slice()?;
    let summaries = watch(py, on_progress, |progress| {
        let token_bytes = tokenizer.map(|tokenizer| TokenBytes::new(&tokenizer.inner));
        let documents = grouped(dataset, groups, group_names.len())?;
        let (config, keys) = (counting.into(), KeyColumns::Tokens(token_bytes.as_ref()));
        count::count_ngrams(&documents, across_documents, &config, progress, || {
            count::write_table(&output, keys, &group_names)
        })
    })?;
    to_python(py, &summaries)
}

/// Counts the n-grams of the words of shards and writes the retained ones to a table.
///
/// Words are those of `str.split()`. `pile_tools.count_ngrams` is the whole job.
///
/// Args:
///     shards: The shards.
///     counting: The settings.
///     output: The table: Parquet if its name ends in `.parquet`, otherwise tab-separated text.
///     ignore_case: Whether words that differ in case only are equal.
///     by_subset: Whether n-grams are also counted by subset.
///     on_progress: Called with the compressed bytes read so far.
///     text_field: The field of a record that has its text.
///     skip_bad_records: Whether bad records are skipped. Otherwise they are an error.
///     max_record: Number of bytes above which a record is bad.
///
/// Returns:
///     A `WordsSummary` of `pile_tools.types`.
///
/// Raises:
///     ConfigError: A length cannot be counted.
///     FormatError: A shard is damaged, or the disk has too little space.
///     OutputExistsError: The scratch folder has work of another job.
///     OSError: A file cannot be read or written.
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
            count::write_table(&output, KeyColumns::Words, groups)
        })
    })?;
    to_python(py, &summary)
}

/// Collects n-grams and their counts in memory.
struct ArraySink<'a, T> {
    /// The ids of all n-grams, concatenated.
    ids: &'a mut Vec<T>,
    counts: &'a mut Vec<i64>,
    from_id: fn(u32) -> T,
}

impl<T> NgramSink for ArraySink<'_, T> {
    fn take(&mut self, ngram: &Ngram<'_>) -> Result<()> {
        let ids = ngram.key.as_chunks::<4>().0.iter();
        self.ids
            .extend(ids.map(|id| (self.from_id)(u32::from_be_bytes(*id))));
        self.counts.push(ngram.count as i64);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

/// The retained n-grams of a dataset, (n_retained, n) in its type, and their counts, (n_retained,) int64.
///
/// `counting` has one length, n. `on_progress` gets the n-grams counted so far.
///
/// Raises:
///     ConfigError, FormatError, OutputExistsError, OSError: As `count_token_ngrams`.
#[pyfunction]
#[pyo3(signature = (dataset, counting, across_documents, on_progress = None))]
pub fn token_ngrams<'py>(
    py: Python<'py>,
    dataset: &TokenDataset,
    counting: Counting,
    across_documents: bool,
    on_progress: Option<Py<PyAny>>,
) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyArray1<i64>>)> {
    let [n] = counting.lengths[..] else {
        let what = format!("one length is expected, got {:?}", counting.lengths);
        return Err(BindError::from(Error::argument(what)).into());
    };
    // One of the two is filled.
    let (mut u16_ids, mut i32_ids, mut counts) = (Vec::<u16>::new(), Vec::<i32>::new(), Vec::new());
    let is_u16 = dataset.inner.token_type() == TokenType::U16;
    watch(py, on_progress, |progress| {
        let documents = grouped(dataset, &[], 1)?;
        let counts = &mut counts;
        let sink: Box<dyn NgramSink> = match is_u16 {
            true => Box::new(ArraySink {
                ids: &mut u16_ids,
                counts,
                from_id: |id| id as u16,
            }),
            false => Box::new(ArraySink {
                ids: &mut i32_ids,
                counts,
                from_id: |id| id as i32,
            }),
        };
        let config = counting.into();
        count::count_ngrams(&documents, across_documents, &config, progress, || Ok(sink))
    })?;
    let shape = [counts.len(), n];
    let ids = match is_u16 {
        true => u16_ids
            .into_pyarray(py)
            .reshape(shape)
            .map_err(argument_error)?
            .into_any(),
        false => i32_ids
            .into_pyarray(py)
            .reshape(shape)
            .map_err(argument_error)?
            .into_any(),
    };
    Ok((ids, counts.into_pyarray(py)))
}

fn argument_error(err: PyErr) -> PyErr {
    BindError::from(Error::argument(err.to_string())).into()
}

type Table<'py> = Bound<'py, PyArray2<i64>>;

/// The tables of occurrences, units and pairs; the names of the groups; documents; bad records; and the SHA-256 of
/// each shard.
type ShardTermsResult<'py> = ([Table<'py>; 3], Vec<GroupName>, u64, u64, Vec<String>);

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
        let options = TermOptions {
            whole_words: self.whole_words,
            ignore_case: self.ignore_case,
            pairs: &self.pairs,
            scope: self.within_words.map_or(PairScope::Unit, PairScope::Words),
        };
        Terms::new(&terms, options)
    }
}

/// The tables of occurrences, units and pairs. Each has one row for each of `totals`, of which there may be none.
fn term_tables<'py>(
    py: Python<'py>,
    query: &TermQuery,
    totals: Vec<TermTotals>,
) -> PyResult<[Table<'py>; 3]> {
    let n_rows = totals.len();
    let [mut occurrences, mut units, mut pairs] = [Vec::new(), Vec::new(), Vec::new()];
    for row in totals {
        occurrences.extend(row.occurrences.into_iter().map(|n| n as i64));
        units.extend(row.units.into_iter().map(|n| n as i64));
        pairs.extend(row.pairs.into_iter().map(|n| n as i64));
    }
    let table = |values: Vec<i64>, n_columns: usize| {
        values
            .into_pyarray(py)
            .reshape([n_rows, n_columns])
            .map_err(argument_error)
    };
    let (n_terms, n_pairs) = (query.terms.len(), query.pairs.len());
    Ok([
        table(occurrences, n_terms)?,
        table(units, n_terms)?,
        table(pairs, n_pairs)?,
    ])
}

/// Counts terms in the documents of shards.
///
/// Args:
///     shards: The shards.
///     query: The terms and how they are counted.
///     by_subset: Whether each subset is a group. Otherwise there is one group.
///     on_progress: Called with the compressed bytes read so far.
///     tokenizer: Normalizes the texts as a dataset of it holds them. With None, they are counted as written.
///     text_field: The field of a record that has its text.
///     skip_bad_records: Whether bad records are skipped. Otherwise they are an error.
///     max_record: Number of bytes above which a record is bad.
///
/// Returns:
///     Three tables with a row for each group: occurrences and documents, (n_groups, n_terms) int64 each, and
///     pairs, (n_groups, n_pairs) int64. The names of the groups, None for documents without a subset. The
///     number of documents. The number of bad records. The SHA-256 of each shard.
///
/// Raises:
///     ConfigError: There are no terms, or one is empty.
///     FormatError: A shard is damaged.
///     OSError: A shard cannot be read.
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
) -> PyResult<ShardTermsResult<'py>> {
    let config = ShardTermsConfig {
        shards,
        rules: rules(text_field, skip_bad_records, max_record),
        by_subset,
        n_threads: query.threads,
    };
    let counts = watch(py, on_progress, |progress| {
        let tokenizer = tokenizer.map(|tokenizer| &*tokenizer.inner);
        count::count_terms_in_shards(&config, &query.terms()?, tokenizer, progress)
    })?;
    Ok((
        term_tables(py, &query, counts.totals)?,
        counts.groups,
        counts.n_documents,
        counts.n_bad_records,
        counts.shards,
    ))
}

/// Counts terms in the decoded documents of a dataset.
///
/// Args:
///     dataset: The dataset.
///     tokenizer: Decodes the documents.
///     query: The terms and how they are counted.
///     groups: The group number of each document: (n_documents,) uint32, or (0,) for one group.
///     n_groups: Number of groups.
///     eod: A token that is not part of the text if it ends a document, or None.
///     on_progress: Called with the tokens read so far.
///
/// Returns:
///     Three tables with a row for each group: occurrences and documents, (n_groups, n_terms) int64 each, and
///     pairs, (n_groups, n_pairs) int64.
///
/// Raises:
///     ConfigError: There are no terms, one is empty, or the groups do not fit the documents.
///     FormatError: The dataset is damaged.
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
        let documents = grouped(dataset, groups, n_groups)?;
        let decoder = DocumentDecoder {
            token_bytes: &TokenBytes::new(&tokenizer.inner),
            eod,
        };
        let (terms, n_threads) = (query.terms()?, query.threads);
        count::count_terms_in_documents(&documents, &terms, decoder, n_threads, progress)
    })?;
    term_tables(py, &query, totals)
}

/// Counts terms in the first samples of an order, up to each of `ends`.
///
/// Args:
///     order: The order.
///     tokenizer: Decodes the samples.
///     query: The terms and how they are counted.
///     ends: Numbers of samples, ascending.
///     on_progress: Called with the samples read so far.
///
/// Returns:
///     Three tables with a row for each end: occurrences and samples, (n_ends, n_terms) int64 each, and
///     pairs, (n_ends, n_pairs) int64.
///
/// Raises:
///     ConfigError: There are no terms, one is empty, or the order has fewer samples than an end.
///     FormatError: The dataset or the order is damaged, or there are no tokens.
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
        let token_bytes = TokenBytes::new(&tokenizer.inner);
        let checkpoints = CheckpointCounts {
            order: &order.inner,
            table: &token_bytes,
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
    term_tables(py, &query, totals)
}

/// Counts by Pythia's arithmetic rule in the first samples of an order, up to each of `ends`.
///
/// Args:
///     order: The order.
///     tokenizer: Decodes the samples.
///     ends: Numbers of samples, ascending.
///     n_threads: Number of threads.
///     on_progress: Called with the samples read so far.
///
/// Returns:
///     For each end, pairs of a key and its count. A key is a number, `A-B` for two numbers, or `A-UNIT` for
///     a number and a unit of time.
///
/// Raises:
///     ConfigError: The order has fewer samples than an end.
///     FormatError: The dataset or the order is damaged, or there are no tokens.
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
        let token_bytes = TokenBytes::new(&tokenizer.inner);
        let checkpoints = CheckpointCounts {
            order: &order.inner,
            table: &token_bytes,
            ends: &ends,
            n_threads,
        };
        let mut all = Vec::new();
        checkpoints.count_arithmetic(progress, |counts| {
            let mut counts: Vec<_> = counts.iter().collect();
            counts.sort_unstable();
            all.push(counts.into_iter().map(|(key, n)| (name(key), *n)).collect());
            Ok(())
        })?;
        Ok(all)
    })
}
