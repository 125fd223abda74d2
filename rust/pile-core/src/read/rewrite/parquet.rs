//! Writes a parquet file again, without some rows or with other texts.
//!
//! The values of all columns are decoded and encoded again, as the library writes them: with the schema, the metadata
//! for readers, the compression and the row groups of the file. A row group without rows is left out. Statistics are
//! computed anew; Bloom filters are lost.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
};

use parquet::{
    basic::{Compression, GzipLevel, ZstdLevel},
    column::{
        reader::{ColumnReader, ColumnReaderImpl},
        writer::ColumnWriterImpl,
    },
    data_type::{
        BoolType, ByteArray, ByteArrayType, DataType, DoubleType, FixedLenByteArrayType, FloatType,
        Int32Type, Int64Type, Int96Type,
    },
    errors::ParquetError,
    file::{
        metadata::ParquetMetaData,
        properties::WriterProperties,
        reader::FileReader as _,
        writer::{SerializedColumnWriter, SerializedFileWriter},
    },
    schema::types::ColumnDescriptor,
};

use super::{
    RewrittenShard,
    changes::RecordChange,
    compressor::Levels,
    shard::{Rewritten, ShardRewriter},
};
use crate::{
    Error, Result,
    io::GrowingFile,
    read::{
        parquet::{CountedRows, ParquetReader, guarded},
        record::utf8,
        record_edit::cut_text,
    },
};

/// The writer of a file.
type FileWriter<'a> = SerializedFileWriter<ReportingWriter<'a>>;

/// The changes of a row group's rows, by the row's number in the group.
type RowChanges<'a> = [(u64, RecordChange<'a>)];

/// Writes the file with its changes.
pub(super) fn rewrite(mut rewriter: ShardRewriter<'_>, out: GrowingFile) -> Result<Rewritten> {
    let path = rewriter.path;
    if rewriter.changes.has_marks() {
        let what = "marks are written to JSON lines only: a table has the columns of its schema";
        return Err(Error::malformed(path, what));
    }
    let out_path = out.path().to_owned();
    let failure = Mutex::new(None);
    // An error of the output is not one of the shard, which the library would make of it.
    let explain = |err: Error| match failure
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take()
    {
        Some(of_output) => Error::io(&out_path, of_output),
        None => err,
    };
    let mut reader = ParquetReader::open(path, rewriter.rules)?;
    let metadata = reader.reader.metadata().clone();
    let file_out = ReportingWriter {
        out,
        failure: &failure,
    };
    let mut writer = guarded(path, || {
        let properties = properties(&metadata, rewriter.levels)?;
        let schema = metadata.file_metadata().schema_descr().root_schema_ptr();
        SerializedFileWriter::new(file_out, schema, Arc::new(properties))
    })
    .map_err(explain)?;
    let mut done = RewrittenShard::of(path, 0, String::new());
    let (mut first_row, mut n_reported) = (0, 0);
    for number in 0..metadata.num_row_groups() {
        let n_rows = u64::try_from(metadata.row_group(number).num_rows()).unwrap_or(0);
        let mut changes = Vec::new();
        while let Some(row) = rewriter.changes.next_record()
            && row - first_row < n_rows
        {
            changes.extend(
                rewriter
                    .changes
                    .take(row)?
                    .map(|change| (row - first_row, change)),
            );
        }
        let mut group = GroupRewriter {
            reader: &reader,
            number,
            changes: &changes,
            done: &mut done,
        };
        group.run(&mut writer, n_rows).map_err(|err| match err {
            GroupError::Row(row, what) => {
                Error::malformed(path, format!("record {}: {what}", first_row + row))
            }
            GroupError::Other(err) => explain(err),
        })?;
        first_row += n_rows;
        reader.hash_group(number)?;
        (rewriter.advance)(reader.raw().n_bytes() - n_reported)?;
        n_reported = reader.raw().n_bytes();
    }
    if let Some(row) = rewriter.changes.next_record() {
        let what = format!("ends before record {row}: the shard has changed");
        return Err(Error::malformed(path, what));
    }
    reader.hash_to(u64::MAX)?;
    (rewriter.advance)(reader.raw().n_bytes() - n_reported)?;
    done.bytes = reader.raw().n_bytes();
    done.sha256 = reader.raw().sha256();
    done.n_kept = Some(first_row - done.n_removed);
    let file_out = guarded(path, || writer.into_inner()).map_err(explain)?;
    Ok((done, Some(file_out.out)))
}

/// The settings of the writer, which are those of the first row group.
fn properties(
    metadata: &ParquetMetaData,
    levels: Levels,
) -> std::result::Result<WriterProperties, ParquetError> {
    let file = metadata.file_metadata();
    let mut properties =
        WriterProperties::builder().set_key_value_metadata(file.key_value_metadata().cloned());
    let columns = metadata
        .row_groups()
        .first()
        .map_or(&[][..], |group| group.columns());
    for column in columns {
        let compression = match column.compression() {
            Compression::ZSTD(_) => Compression::ZSTD(ZstdLevel::try_new(levels.zstd)?),
            Compression::GZIP(_) => Compression::GZIP(GzipLevel::try_new(levels.gzip)?),
            other => other,
        };
        let has_dictionary = column.dictionary_page_offset().is_some();
        let name = column.column_path();
        properties = properties
            .set_column_compression(name.clone(), compression)
            .set_column_dictionary_enabled(name.clone(), has_dictionary);
    }
    Ok(properties.build())
}

/// Why a row group cannot be written.
enum GroupError {
    /// A row cannot be changed.
    Row(u64, String),
    Other(Error),
}

impl From<Error> for GroupError {
    fn from(err: Error) -> Self {
        Self::Other(err)
    }
}

/// Why a column cannot be written.
enum ColumnError {
    /// A row cannot be changed.
    Row(u64, String),
    Parquet(ParquetError),
}

impl From<ParquetError> for ColumnError {
    fn from(err: ParquetError) -> Self {
        Self::Parquet(err)
    }
}

/// Writes a row group again.
struct GroupRewriter<'a> {
    reader: &'a ParquetReader,
    number: usize,
    changes: &'a RowChanges<'a>,
    done: &'a mut RewrittenShard,
}

impl GroupRewriter<'_> {
    fn run(
        &mut self,
        writer: &mut FileWriter<'_>,
        n_rows: u64,
    ) -> std::result::Result<(), GroupError> {
        let is_removed = |(_, change): &&(u64, RecordChange<'_>)| *change == RecordChange::Remove;
        let n_removed = self.changes.iter().filter(is_removed).count() as u64;
        self.done.n_removed += n_removed;
        self.done.n_cut += self.changes.len() as u64 - n_removed;
        if n_removed == n_rows {
            // The texts are read, to count them.
            return self.column(self.reader.text, None);
        }
        let path = self.reader.path();
        let mut group = guarded(path, || writer.next_row_group())?;
        let n_columns = self
            .reader
            .reader
            .metadata()
            .row_group(self.number)
            .num_columns();
        for column in 0..n_columns {
            let mut writer = guarded(path, || group.next_column())?;
            self.column(column, writer.as_mut())?;
            guarded(path, || {
                writer.map_or(Ok(()), SerializedColumnWriter::close)
            })?;
        }
        guarded(path, || group.close())?;
        Ok(())
    }

    /// Writes a column, or reads it only.
    fn column(
        &mut self,
        column: usize,
        mut writer: Option<&mut SerializedColumnWriter<'_>>,
    ) -> std::result::Result<(), GroupError> {
        let (reader, n_rows) = self.reader.open_column(self.number, column)?;
        let described = self
            .reader
            .reader
            .metadata()
            .row_group(self.number)
            .column(column);
        let described = described.column_descr();
        macro_rules! copy {
            ($type:ty, $reader:expr, $edit:expr) => {
                ColumnCopier::<$type> {
                    reader: $reader,
                    writer: writer.as_mut().map(|writer| writer.typed::<$type>()),
                    described,
                    n_rows,
                    counted: self.reader.count_rows(self.number),
                    changes: self.changes,
                }
                .run($edit)
            };
        }
        let mut texts = TextChanges {
            changes: self.changes,
            n_text_bytes_removed: 0,
        };
        let is_text = column == self.reader.text;
        let copied = guarded(self.reader.path(), || {
            let copied = match reader {
                ColumnReader::ByteArrayColumnReader(reader) if is_text => {
                    copy!(ByteArrayType, reader, |row, value| texts.edit(row, value))
                        .and_then(|()| texts.finish())
                }
                ColumnReader::ByteArrayColumnReader(reader) => {
                    copy!(ByteArrayType, reader, |_, _| Ok(()))
                }
                ColumnReader::BoolColumnReader(reader) => copy!(BoolType, reader, |_, _| Ok(())),
                ColumnReader::Int32ColumnReader(reader) => copy!(Int32Type, reader, |_, _| Ok(())),
                ColumnReader::Int64ColumnReader(reader) => copy!(Int64Type, reader, |_, _| Ok(())),
                ColumnReader::Int96ColumnReader(reader) => copy!(Int96Type, reader, |_, _| Ok(())),
                ColumnReader::FloatColumnReader(reader) => copy!(FloatType, reader, |_, _| Ok(())),
                ColumnReader::DoubleColumnReader(reader) => {
                    copy!(DoubleType, reader, |_, _| Ok(()))
                }
                ColumnReader::FixedLenByteArrayColumnReader(reader) => {
                    copy!(FixedLenByteArrayType, reader, |_, _| Ok(()))
                }
            };
            match copied {
                Ok(()) => Ok(Ok(())),
                Err(ColumnError::Row(row, what)) => Ok(Err(GroupError::Row(row, what))),
                Err(ColumnError::Parquet(err)) => Err(err),
            }
        })?;
        self.done.n_text_bytes_removed += texts.n_text_bytes_removed;
        copied
    }
}

/// Copies the rows of a column that are not removed.
struct ColumnCopier<'a, 'b, T: DataType> {
    reader: ColumnReaderImpl<T>,
    writer: Option<&'a mut ColumnWriterImpl<'b, T>>,
    described: &'a ColumnDescriptor,
    /// Number of rows that are decoded together.
    n_rows: usize,
    counted: CountedRows,
    changes: &'a RowChanges<'a>,
}

impl<T: DataType> ColumnCopier<'_, '_, T>
where
    T::T: Clone,
{
    /// Calls `edit` with each value and the number of its row, removed rows included.
    fn run(
        mut self,
        mut edit: impl FnMut(u64, &mut T::T) -> std::result::Result<(), ColumnError>,
    ) -> std::result::Result<(), ColumnError> {
        let (max_def, max_rep) = (
            self.described.max_def_level(),
            self.described.max_rep_level(),
        );
        let (mut def, mut rep, mut values) = (Vec::new(), Vec::new(), Vec::new());
        let (mut kept_def, mut kept_rep, mut kept) = (Vec::new(), Vec::new(), Vec::new());
        let mut next_row = 0;
        let mut removed = self
            .changes
            .iter()
            .filter_map(|(row, change)| (*change == RecordChange::Remove).then_some(*row));
        let mut next_removed = removed.next();
        let mut is_kept = true;
        loop {
            def.clear();
            rep.clear();
            values.clear();
            let (n, ..) = self.reader.read_records(
                self.n_rows,
                Some(&mut def),
                Some(&mut rep),
                &mut values,
            )?;
            self.counted.add(n)?;
            if n == 0 {
                return Ok(());
            }
            // The library gives no levels for a column without nulls or without lists.
            let n_levels = if max_def > 0 { def.len() } else { values.len() };
            let mut values = values.drain(..);
            for i in 0..n_levels {
                let level = def.get(i).copied().filter(|_| max_def > 0);
                let repetition = rep.get(i).copied().filter(|_| max_rep > 0);
                if repetition.is_none_or(|level| level == 0) {
                    is_kept = next_removed != Some(next_row);
                    if !is_kept {
                        next_removed = removed.next();
                    }
                    next_row += 1;
                }
                let has_value = level.is_none_or(|level| level == max_def);
                if let Some(mut value) = has_value.then(|| values.next()).flatten() {
                    edit(next_row - 1, &mut value)?;
                    if is_kept {
                        kept.push(value);
                    }
                }
                if is_kept {
                    kept_def.extend(level);
                    kept_rep.extend(repetition);
                }
            }
            if let Some(writer) = &mut self.writer {
                let def = (max_def > 0).then_some(&*kept_def);
                let rep = (max_rep > 0).then_some(&*kept_rep);
                writer.write_batch(&kept, def, rep)?;
            }
            kept_def.clear();
            kept_rep.clear();
            kept.clear();
        }
    }
}

/// The changes of a row group's texts that are still to be made.
struct TextChanges<'a> {
    changes: &'a RowChanges<'a>,
    n_text_bytes_removed: u64,
}

impl TextChanges<'_> {
    fn edit(&mut self, row: u64, value: &mut ByteArray) -> std::result::Result<(), ColumnError> {
        let Some(((next, change), rest)) = self.changes.split_first() else {
            return Ok(());
        };
        if row < *next {
            return Ok(());
        }
        if row > *next {
            // The row was null.
            return self.finish();
        }
        self.changes = rest;
        let fail = |what| ColumnError::Row(row, what);
        let text = utf8(value.data()).map_err(fail)?;
        match change {
            RecordChange::Cut(ranges) => {
                let mut rest = String::with_capacity(text.len());
                self.n_text_bytes_removed += cut_text(text, ranges, &mut rest).map_err(fail)?;
                *value = ByteArray::from(rest.into_bytes());
            }
            _ => self.n_text_bytes_removed += text.len() as u64,
        }
        Ok(())
    }

    /// Fails if a change was not made.
    fn finish(&self) -> std::result::Result<(), ColumnError> {
        match self.changes.first() {
            Some((row, _)) => Err(ColumnError::Row(*row, "null, expected a string".to_owned())),
            None => Ok(()),
        }
    }
}

/// Writes a file and keeps the error, which the library would make one of its own.
struct ReportingWriter<'a> {
    out: GrowingFile,
    failure: &'a Mutex<Option<io::Error>>,
}

impl ReportingWriter<'_> {
    fn report(&self, err: io::Error) -> io::Error {
        let kind = err.kind();
        // After an interruption the write is tried again.
        if kind != io::ErrorKind::Interrupted {
            *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(err);
        }
        kind.into()
    }
}

impl Write for ReportingWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes).map_err(|err| self.report(err))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush().map_err(|err| self.report(err))
    }
}
