//! Repeated passages.

use std::path::PathBuf;

use pile_core::{
    dedup::passages::{self, PASSAGE_COLUMNS, Passages, PassagesConfig},
    read::DEFAULT_MAX_RECORD,
};
use pyo3::{prelude::*, types::PyDict};

use crate::{
    jobs::{rules, to_python},
    progress::watch,
};

/// Finds the bytes of shards in windows of `length` bytes that also begin earlier in reading order.
///
/// Windows do not cross documents. A job that was interrupted resumes.
///
/// Args:
///     shards: The shards, in reading order. Each is read twice.
///     folder: The folder for the files, unfinished and finished. The caller holds its lock.
///     length: Length of a window in bytes, at least 32.
///     memory: Memory limit in bytes.
///     threads: Number of threads that parse and scan.
///     every_copy: Whether the first copies count as repeated too.
///     discard: Whether unfinished files of another job in the folder are discarded.
///     on_progress: Called with the compressed bytes read so far: twice those of all shards at the end.
///     text_field: The field of a record that has its text.
///     skip_bad_records: Whether bad records are skipped. Otherwise they are an error.
///     max_record: Number of bytes above which a record is bad.
///
/// Returns:
///     The passages in reading order, as a structured array of int64 that maps a file of `folder`:
///     `document`, `shard`, `record`, the bytes `start` to `end`, which are `raw_start` to `raw_end` trimmed
///     inwards to borders of characters, and the first occurrence of the window at `raw_start`:
///     `copy_document`, and `copy_start`, which corresponds to `start`.
///     And a `PassagesSummary` of `pile_tools.types`.
///
/// Raises:
///     ConfigError: The length is out of range, or a shard is no regular file.
///     FormatError: A shard is damaged, or changed between the passes.
///     OutputExistsError: The folder has work of another job.
///     OSError: A file cannot be read or written.
#[pyfunction]
#[pyo3(signature = (
    shards, folder, *, length, memory, threads, every_copy = false, discard = false, on_progress = None,
    text_field = "text", skip_bad_records = false, max_record = DEFAULT_MAX_RECORD
))]
#[allow(clippy::too_many_arguments)] // the job's config, by keyword from Python
pub fn find_passages<'py>(
    py: Python<'py>,
    shards: Vec<PathBuf>,
    folder: PathBuf,
    length: usize,
    memory: u64,
    threads: usize,
    every_copy: bool,
    discard: bool,
    on_progress: Option<Py<PyAny>>,
    text_field: &str,
    skip_bad_records: bool,
    max_record: u64,
) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    let config = PassagesConfig {
        shards,
        rules: rules(text_field, skip_bad_records, max_record),
        length,
        every_copy,
        memory,
        n_threads: threads,
        folder,
        discard,
    };
    let (found, summary) = watch(py, on_progress, |progress| {
        passages::find_passages(&config, progress)
    })?;
    Ok((mapped(py, &found)?, to_python(py, &summary)?))
}

/// The array that maps the file.
fn mapped<'py>(py: Python<'py>, passages: &Passages) -> PyResult<Bound<'py, PyAny>> {
    let numpy = py.import("numpy")?;
    let dtype = PASSAGE_COLUMNS.map(|name| (name, "<i8")).to_vec();
    // An empty file cannot be mapped.
    if passages.iter().next().is_none() {
        return numpy.call_method1("zeros", (0, dtype));
    }
    let options = PyDict::new(py);
    options.set_item("dtype", dtype)?;
    options.set_item("mode", "r")?;
    numpy.call_method("memmap", (passages.path(),), Some(&options))
}
