//! Shards that are written again, and records that are read again.

use std::path::PathBuf;

use numpy::PyReadonlyArray1;
use pile_core::read::{
    self, Changes, Cuts, DEFAULT_MAX_RECORD, Marks, RecordColumns, RewriteConfig,
};
use pyo3::{prelude::*, types::PyBytes};

use crate::{
    errors::BindError,
    jobs::{rules, to_python},
    progress::watch,
};

type Column32<'py> = PyReadonlyArray1<'py, u32>;
type Column64<'py> = PyReadonlyArray1<'py, u64>;

/// Writes shards again, without some records or with other texts or marks, or resumes the same job.
///
/// All other bytes of the decompressed shards stay as they are. A shard without changes is copied. The bytes
/// are the same for any number of threads. A `.txt` shard whose document is removed is not written. The
/// columns of `removed`, `cuts` and `marks` ascend by shard, record and start. No record may be in two of
/// them.
///
/// A cut text becomes a JSON string with no more escapes than JSON requires; a list of strings becomes one
/// string. A mark is a JSON object in the `meta` of a record, which is added if it is missing or null. A
/// record that is a string becomes an object with the string as its text. Text files and Parquet files
/// cannot have marks.
///
/// The rows of a Parquet file are encoded again, with the schema, the compression and the row groups of the
/// file, less those that have lost all rows.
///
/// Args:
///     shards: The shards; none may be a stream.
///     names: The name of each new shard, with the ending of the shard.
///     folder: The folder for the files, unfinished and finished.
///     job: A digest of everything that the files depend on. Only finished shards of the same job are
///         resumed.
///     n_threads: Number of threads. Each writes a shard.
///     discard: Whether finished shards of another job are discarded. Otherwise they are an error.
///     on_progress: Called with the compressed bytes read so far.
///     removed: Shard and record of each record that is left out: (n,) uint32 and (n,) uint64.
///     cuts: Shard, record, start and end of each range of bytes that is cut from a text: (n,) uint32 and
///         three (n,) uint64. A record may have several, which must not overlap or split a character.
///     marks: Shard and record of each mark, its key in `meta`, and the keys of the mark with their values:
///         (n,) uint32, (n,) uint64, a name, and names with (n,) uint64.
///     sha256: The SHA-256 that each shard must have, in hexadecimal; empty for no check.
///     text_field: The field of a record that has its text.
///     max_record: Number of bytes above which a record cannot be changed.
///     zstd_level: The compression level of zstd, 1 to 22.
///     gzip_level: The compression level of gzip, 0 to 9.
///
/// Returns:
///     A `RewriteSummary` of `pile_tools.types`.
///
/// Raises:
///     ConfigError: A level, a name or a column is invalid, or a record has two changes.
///     FormatError: A shard is damaged or has changed, or a record cannot be changed as asked.
///     OutputExistsError: The folder has finished shards of another job, and `discard` is False.
///     OSError: A file cannot be read or written.
#[pyfunction]
#[pyo3(signature = (
    shards, names, folder, job, n_threads, discard, on_progress = None, *, removed = None, cuts = None, marks = None,
    sha256 = Vec::new(), text_field = "text", max_record = DEFAULT_MAX_RECORD, zstd_level = 3, gzip_level = 6
))]
#[allow(clippy::too_many_arguments, clippy::type_complexity)] // the job's config, by keyword from Python
pub fn rewrite_shards<'py>(
    py: Python<'py>,
    shards: Vec<PathBuf>,
    names: Vec<String>,
    folder: PathBuf,
    job: String,
    n_threads: usize,
    discard: bool,
    on_progress: Option<Py<PyAny>>,
    removed: Option<(Column32<'py>, Column64<'py>)>,
    cuts: Option<(Column32<'py>, Column64<'py>, Column64<'py>, Column64<'py>)>,
    marks: Option<(
        Column32<'py>,
        Column64<'py>,
        String,
        Vec<(String, Column64<'py>)>,
    )>,
    sha256: Vec<String>,
    text_field: &str,
    max_record: u64,
    zstd_level: i32,
    gzip_level: u32,
) -> PyResult<Bound<'py, PyAny>> {
    let mut changes = Changes::default();
    if let Some((shards, records)) = &removed {
        changes.removed = columns(shards, records)?;
    }
    if let Some((shards, records, starts, ends)) = &cuts {
        changes.cuts = Cuts {
            at: columns(shards, records)?,
            starts: starts.as_slice()?,
            ends: ends.as_slice()?,
        };
    }
    if let Some((shards, records, key, members)) = &marks {
        let members = members
            .iter()
            .map(|(name, values)| Ok((&**name, values.as_slice()?)));
        changes.marks = Marks {
            at: columns(shards, records)?,
            key,
            members: members.collect::<PyResult<_>>()?,
        };
    }
    let config = RewriteConfig {
        shards,
        names,
        sha256,
        // Bad records stay, whatever the rules say of them.
        rules: rules(text_field, true, max_record),
        changes,
        zstd_level,
        gzip_level,
        folder,
        job,
        discard,
        n_threads,
    };
    let summary = watch(py, on_progress, |progress| {
        read::rewrite_shards(&config, progress)
    })?;
    to_python(py, &summary)
}

fn columns<'a>(shards: &'a Column32<'_>, records: &'a Column64<'_>) -> PyResult<RecordColumns<'a>> {
    Ok(RecordColumns {
        shards: shards.as_slice()?,
        records: records.as_slice()?,
    })
}

/// The bytes of a record, without its line end, and its text. The shard is read up to the record.
///
/// Args:
///     shard: The shard.
///     record: The number of the record in the shard, bad records included. A row of a table has the bytes of
///         its text.
///     text_field: The field of the record that has its text.
///     max_record: Number of bytes above which a record is bad.
///
/// Raises:
///     FormatError: The shard is damaged, has fewer records or is no regular file, or the record is bad.
///     OSError: The shard cannot be read.
#[pyfunction]
#[pyo3(signature = (shard, record, *, text_field = "text", max_record = DEFAULT_MAX_RECORD))]
pub fn read_record<'py>(
    py: Python<'py>,
    shard: PathBuf,
    record: u64,
    text_field: &str,
    max_record: u64,
) -> Result<(Bound<'py, PyBytes>, String), BindError> {
    let rules = rules(text_field, true, max_record);
    let found = py.detach(|| read::read_record(&shard, &rules, record))?;
    Ok((PyBytes::new(py, &found.bytes), found.text))
}

/// The bytes of the record at a position of a shard. A compressed shard is decompressed up to the record.
///
/// Args:
///     shard: The shard: lines or text, not a table.
///     byte_start: The first byte of the record in the decompressed shard.
///     byte_length: Bytes of the record, without the line end.
///     max_record: Maximum bytes of a record.
///
/// Raises:
///     FormatError: The shard is damaged, ends before the record, is a table or is no regular file, or the
///         record is longer than `max_record`.
///     OSError: The shard cannot be read.
#[pyfunction]
#[pyo3(signature = (shard, byte_start, byte_length, *, max_record = DEFAULT_MAX_RECORD))]
pub fn read_record_at<'py>(
    py: Python<'py>,
    shard: PathBuf,
    byte_start: u64,
    byte_length: u64,
    max_record: u64,
) -> Result<Bound<'py, PyBytes>, BindError> {
    let found = py.detach(|| read::read_record_at(&shard, byte_start, byte_length, max_record))?;
    Ok(PyBytes::new(py, &found))
}

/// The text of a record of a shard, given the bytes of the record, or None if it has no text.
///
/// Only the name of the shard is used. Lone surrogates become U+FFFD.
#[pyfunction]
#[pyo3(signature = (shard, record, text_field = "text"))]
pub fn record_text(shard: PathBuf, record: &[u8], text_field: &str) -> Option<String> {
    read::record_text(&shard, record, text_field)
}
