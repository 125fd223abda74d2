//! Repeated passages.

use std::path::PathBuf;

use pile_core::{
    dedup::{
        RecordNumber,
        passages::{self, PASSAGE_COLUMNS, Passages, PassagesConfig, TextTokenizer},
    },
    read::DEFAULT_MAX_RECORD,
    tokenize::PassageTokens,
};
use pyo3::{prelude::*, types::PyDict};

use crate::{
    jobs::{rules, to_python},
    progress::watch,
    tokenizer::Tokenizer,
};

/// How repeated passages are found: `PassageSearch` of `types.py`.
#[derive(FromPyObject)]
pub struct PassageSearch {
    length: usize,
    every_copy: bool,
    protected: Vec<(usize, u64)>,
    protected_texts: Vec<String>,
    memory: u64,
    threads: usize,
    folder: PathBuf,
    job: String,
    discard: bool,
}

/// Finds the bytes of texts in windows of a given length, in bytes or tokens, that also begin earlier.
///
/// Earlier is in reading order. Windows do not cross documents. A job that was interrupted resumes.
///
/// Args:
///     shards: The shards, in reading order. Each is read twice.
///     search: The settings.
///     on_progress: Called with the compressed bytes read so far; in the end, twice those of all shards.
///     tokenizer: The tokenizer whose tokens are counted; by default windows are of bytes.
///     text_field: The field of a record that has its text.
///     skip_bad_records: Whether bad records are skipped. Otherwise they are an error.
///     max_record: Number of bytes above which a record is bad.
///
/// Returns:
///     A `PassageRows`, whose arrays map files of the search's folder, and a `PassagesSummary` of
///     `pile_tools.types`.
///
/// Raises:
///     ConfigError: The length is out of range, or a protected record has no document.
///     FormatError: A shard is no regular file, is damaged, changed between the passes, or has a text that
///         cannot be tokenized; or the shards have too many subsets.
///     OutputExistsError: The folder has work of another job.
///     OSError: A file cannot be read or written.
#[pyfunction]
#[pyo3(signature = (
    shards, search, on_progress = None, *,
    tokenizer = None, text_field = "text", skip_bad_records = false, max_record = DEFAULT_MAX_RECORD
))]
#[allow(clippy::too_many_arguments)] // the job's config, by keyword from Python
pub fn find_passages<'py>(
    py: Python<'py>,
    shards: Vec<PathBuf>,
    search: PassageSearch,
    on_progress: Option<Py<PyAny>>,
    tokenizer: Option<&Tokenizer>,
    text_field: &str,
    skip_bad_records: bool,
    max_record: u64,
) -> PyResult<(Bound<'py, PyDict>, Bound<'py, PyAny>)> {
    let protected = search.protected.into_iter();
    let config = PassagesConfig {
        shards,
        rules: rules(text_field, skip_bad_records, max_record),
        length: search.length,
        every_copy: search.every_copy,
        protected: protected
            .map(|(shard, record)| RecordNumber { shard, record })
            .collect(),
        protected_texts: search.protected_texts,
        memory: search.memory,
        n_threads: search.threads,
        folder: search.folder,
        job: search.job,
        discard: search.discard,
    };
    let tokens = tokenizer.map(|tokenizer| PassageTokens::new(&tokenizer.inner));
    let tokens = tokens.as_ref().map(|tokens| tokens as &dyn TextTokenizer);
    let (found, summary) = watch(py, on_progress, |progress| {
        passages::find_passages(&config, tokens, progress)
    })?;
    Ok((mapped(py, &found)?, to_python(py, &summary)?))
}

/// The arrays that map the files of the columns.
fn mapped<'py>(py: Python<'py>, passages: &Passages) -> PyResult<Bound<'py, PyDict>> {
    let numpy = py.import("numpy")?;
    let columns = PyDict::new(py);
    for ((name, width), path) in PASSAGE_COLUMNS.iter().zip(passages.paths()) {
        let dtype = format!("<u{width}");
        // An empty file cannot be mapped.
        let column = if passages.is_empty() {
            numpy.call_method1("zeros", (0, dtype))?
        } else {
            numpy.call_method1("memmap", (path, dtype, "r"))?
        };
        columns.set_item(name, column)?;
    }
    Ok(columns)
}
