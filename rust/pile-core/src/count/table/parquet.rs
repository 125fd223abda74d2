//! Parquet files: `tokens` is a list of int32, `words` and `text` are strings, counts are int64.

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
};

use parquet::{
    basic::{Compression, LogicalType, Repetition, Type as PhysicalType, ZstdLevel},
    data_type::{ByteArray, ByteArrayType, DataType, Int32Type, Int64Type},
    errors::{ParquetError, Result as ParquetResult},
    file::{
        properties::WriterProperties,
        writer::{SerializedFileWriter, SerializedRowGroupWriter},
    },
    schema::types::{Type, TypePtr},
};

use super::{KeyColumns, Ngram, NgramSink, ids_of, text_of};
use crate::{Error, Result, io::create};

/// Limits of a row group: rows, bytes of texts, token ids, and counts. A row group is in memory until it is written, so
/// these trade memory, some tens of MB, against the number of row groups that a reader has to open.
const GROUP_ROWS: usize = 1 << 18;
const GROUP_TEXT_BYTES: usize = 16 << 20;
const GROUP_IDS: usize = 4 * GROUP_ROWS;
const GROUP_COUNTS: usize = 16 * GROUP_ROWS;

/// Writes n-grams to a file.
pub(super) struct ParquetTable<'a> {
    path: PathBuf,
    writer: SerializedFileWriter<File>,
    keys: KeyColumns<'a>,
    rows: RowGroupBuffer,
    scratch: Vec<u8>,
}

/// The columns of the next row group.
#[derive(Default)]
struct RowGroupBuffer {
    n_rows: usize,
    /// The token ids of all rows. Empty if keys are words.
    ids: Vec<i32>,
    /// Parquet's repetition levels of `ids`: 0 for the first token of an n-gram, which starts a list, 1 for the others.
    repetitions: Vec<i16>,
    /// The column `words` or `text`. Empty if there is none.
    texts: Vec<ByteArray>,
    text_bytes: usize,
    counts: Vec<i64>,
    by_group: Vec<Vec<i64>>,
}

/// A required field of a primitive type.
fn primitive(
    name: &str,
    physical: PhysicalType,
    logical: Option<LogicalType>,
) -> ParquetResult<TypePtr> {
    let built = Type::primitive_type_builder(name, physical)
        .with_repetition(Repetition::REQUIRED)
        .with_logical_type(logical)
        .build()?;
    Ok(Arc::new(built))
}

/// A group with one field.
fn group(
    name: &str,
    repetition: Repetition,
    logical: Option<LogicalType>,
    field: TypePtr,
) -> ParquetResult<TypePtr> {
    let built = Type::group_type_builder(name)
        .with_repetition(repetition)
        .with_logical_type(logical)
        .with_fields(vec![field])
        .build()?;
    Ok(Arc::new(built))
}

/// The schema of the table. `groups` are the names of the groups' columns.
fn schema(keys: KeyColumns<'_>, groups: &[String]) -> ParquetResult<TypePtr> {
    let text = |name| primitive(name, PhysicalType::BYTE_ARRAY, Some(LogicalType::String));
    let mut fields = Vec::new();
    match keys {
        KeyColumns::Words => fields.push(text("words")?),
        KeyColumns::Tokens(token_bytes) => {
            // The names `list` and `element` are those of the Parquet specification.
            let id = primitive("element", PhysicalType::INT32, None)?;
            let list = group("list", Repetition::REPEATED, None, id)?;
            let logical = Some(LogicalType::List);
            fields.push(group("tokens", Repetition::REQUIRED, logical, list)?);
            if token_bytes.is_some() {
                fields.push(text("text")?);
            }
        }
    }
    for name in ["count"]
        .into_iter()
        .chain(groups.iter().map(String::as_str))
    {
        fields.push(primitive(name, PhysicalType::INT64, None)?);
    }
    let schema = Type::group_type_builder("schema")
        .with_fields(fields)
        .build()?;
    Ok(Arc::new(schema))
}

impl<'a> ParquetTable<'a> {
    pub(super) fn create(path: &Path, keys: KeyColumns<'a>, groups: &[String]) -> Result<Self> {
        let file = create(path)?;
        let level = ZstdLevel::try_new(3); // The default of zstd; that of the library is 1.
        let open = level.and_then(|level| {
            let properties = WriterProperties::builder()
                .set_compression(Compression::ZSTD(level))
                .build();
            SerializedFileWriter::new(file, schema(keys, groups)?, Arc::new(properties))
        });
        Ok(Self {
            path: path.to_owned(),
            writer: open.map_err(|err| failure(path, err))?,
            keys,
            rows: RowGroupBuffer {
                by_group: vec![Vec::new(); groups.len()],
                ..RowGroupBuffer::default()
            },
            scratch: Vec::new(),
        })
    }

    /// Writes the buffered rows as a row group.
    fn write_rows(&mut self) -> Result<()> {
        if self.rows.n_rows == 0 {
            return Ok(());
        }
        let mut write = || {
            let mut group = self.writer.next_row_group()?;
            self.rows.write(&mut group)?;
            group.close().map(drop)
        };
        write().map_err(|err| failure(&self.path, err))
    }
}

impl RowGroupBuffer {
    /// Writes and clears the columns.
    fn write<W: std::io::Write + Send>(
        &mut self,
        group: &mut SerializedRowGroupWriter<'_, W>,
    ) -> ParquetResult<()> {
        if !self.ids.is_empty() {
            // Definition levels: the list and its element exist. No n-gram is empty.
            let levels = vec![1; self.ids.len()];
            let mut column = next_column(group)?;
            let written = column.typed::<Int32Type>();
            written.write_batch(&self.ids, Some(&levels), Some(&self.repetitions))?;
            column.close()?;
        }
        if !self.texts.is_empty() {
            write_column::<ByteArrayType, _>(group, &self.texts)?;
        }
        write_column::<Int64Type, _>(group, &self.counts)?;
        for counts in &self.by_group {
            write_column::<Int64Type, _>(group, counts)?;
        }
        self.n_rows = 0;
        self.text_bytes = 0;
        self.ids.clear();
        self.repetitions.clear();
        self.texts.clear();
        self.counts.clear();
        self.by_group.iter_mut().for_each(Vec::clear);
        Ok(())
    }
}

fn next_column<'a, W: std::io::Write + Send>(
    group: &'a mut SerializedRowGroupWriter<'_, W>,
) -> ParquetResult<parquet::file::writer::SerializedColumnWriter<'a>> {
    let column = group.next_column()?;
    column.ok_or_else(|| ParquetError::General("fewer columns than the schema has".to_owned()))
}

fn write_column<T: DataType, W: std::io::Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    values: &[T::T],
) -> ParquetResult<()> {
    let mut column = next_column(group)?;
    column.typed::<T>().write_batch(values, None, None)?;
    column.close()
}

/// The I/O error in `err`, if there is one; otherwise an error with the message of the Parquet library.
fn failure(path: &Path, err: ParquetError) -> Error {
    match err {
        ParquetError::External(inner) => match inner.downcast::<std::io::Error>() {
            Ok(err) => Error::io(path, *err),
            Err(other) => Error::malformed(path, other.to_string()),
        },
        other => Error::malformed(path, other.to_string()),
    }
}

impl NgramSink for ParquetTable<'_> {
    fn take(&mut self, ngram: &Ngram<'_>) -> Result<()> {
        let rows = &mut self.rows;
        let text = match self.keys {
            KeyColumns::Words => Some(String::from_utf8_lossy(ngram.key).into_owned()),
            KeyColumns::Tokens(token_bytes) => {
                let before = rows.ids.len();
                // No type in which tokens are stored holds a larger id than `i32::MAX`.
                rows.ids.extend(ids_of(ngram.key).map(|id| id as i32));
                rows.repetitions.push(0);
                rows.repetitions.resize(before + ngram.key.len() / 4, 1);
                token_bytes
                    .map(|bytes| text_of(ngram.key, bytes, &mut self.scratch))
                    .transpose()?
            }
        };
        if let Some(text) = text {
            rows.text_bytes += text.len();
            rows.texts.push(ByteArray::from(text.into_bytes()));
        }
        rows.counts.push(ngram.count as i64);
        for (column, count) in rows.by_group.iter_mut().zip(ngram.by_group) {
            column.push(*count as i64);
        }
        rows.n_rows += 1;
        if rows.n_rows >= GROUP_ROWS
            || rows.text_bytes >= GROUP_TEXT_BYTES
            || rows.ids.len() >= GROUP_IDS
            || rows.n_rows * (1 + rows.by_group.len()) >= GROUP_COUNTS
        {
            self.write_rows()?;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        self.write_rows()?;
        // Not `into_inner`, which would turn an I/O error into text.
        let finished = self.writer.finish();
        finished.map_err(|err| failure(&self.path, err))?;
        let synced = self.writer.inner().sync_all();
        synced.map_err(|err| Error::io(&self.path, err))
    }
}
