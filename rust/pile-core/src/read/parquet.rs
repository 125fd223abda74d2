//! The texts of a column of a parquet file.
//!
//! The library seeks in the file. A second reader computes the checksum of the whole file; it advances with
//! the row groups, which follow each other in the file, so that its progress is that of the texts.

mod pages;

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
};

use parquet::{
    basic::{ConvertedType, LogicalType, Type},
    column::reader::{ColumnReader, ColumnReaderImpl, get_column_reader},
    data_type::{ByteArray, ByteArrayType, Int32Type},
    errors::{ParquetError, Result as ParquetResult},
    file::reader::{FileReader, SerializedFileReader},
    schema::types::ColumnDescPtr,
};

use self::pages::{CheckedPages, check_column, max_footer_bytes, max_page_bytes};
use super::{Rules, block::ColumnText, shard::BLOCK_BYTES};
use crate::{Error, Result, io::HashingReader};

/// Maximum number of rows that are decoded together.
const MAX_ROWS: usize = 64;

/// Fewer rows are decoded together if the pages are large, so that they take at most this many bytes: each
/// row may be as long as the largest page or dictionary.
const MAX_ROWS_BYTES: u64 = 64 << 20;

/// Reads the texts of a parquet file.
pub(super) struct ParquetReader {
    path: PathBuf,
    pub(super) reader: SerializedFileReader<File>,
    /// Index of the column of the texts.
    pub(super) text: usize,
    /// Index of the column of the subsets.
    subset: Option<usize>,
    next_group: usize,
    /// The current row group.
    columns: Option<GroupColumns>,
    /// Hashes the file.
    raw: HashingReader<File>,
    /// Reads the headers of the pages.
    headers: File,
    /// Limit on the bytes of a page.
    max_page: u64,
}

/// The remaining rows of a row group.
struct GroupColumns {
    text: StringColumn,
    subset: Option<StringColumn>,
    /// Number of rows that are decoded together.
    n_rows: usize,
    counted: CountedRows,
}

/// Counts the rows of a row group's column, and compares their number with that in the metadata. A job numbers the rows
/// as this reader finds them, and the rewriter as the metadata say: both must be the same.
pub(super) struct CountedRows {
    group: usize,
    n_expected: i64,
    n_rows: u64,
}

/// A column of strings or nulls, and the rows that were decoded last.
struct StringColumn {
    reader: ValueReader,
    /// The definition level of a row with a value; a row with a lower level is null.
    full_level: i16,
    levels: Vec<i16>,
    values: Vec<ByteArray>,
}

/// Decodes the values of a column.
enum ValueReader {
    Bytes(ColumnReaderImpl<ByteArrayType>),
    /// A column of Arrow's type null, which is stored as integers but never has a value.
    Null(ColumnReaderImpl<Int32Type>),
}

/// The texts of a block and their bytes.
pub(super) struct ColumnTexts {
    pub bytes: Vec<u8>,
    pub texts: Vec<ColumnText>,
}

impl ParquetReader {
    pub(super) fn open(path: &Path, rules: &Rules) -> Result<Self> {
        let fail = |err| Error::io(path, err);
        let mut file = File::open(path).map_err(fail)?;
        let headers = File::open(path).map_err(fail)?;
        let raw = HashingReader::new(File::open(path).map_err(fail)?);
        let Some(n_footer) = footer_bytes(&mut file).map_err(fail)? else {
            let what = "the file does not end as a parquet file does: it is none, or cut short";
            return Err(Error::malformed(path, what));
        };
        let max_footer = max_footer_bytes(rules.max_record);
        if n_footer > max_footer {
            let what = format!(
                "a footer of {n_footer} bytes, more than the {max_footer} that max-record allows"
            );
            return Err(Error::malformed(path, what));
        }
        let reader = guarded(path, || SerializedFileReader::new(file))?;
        let columns = reader.metadata().file_metadata().schema_descr().columns();
        let text = find_text(path, columns, &rules.text_field)?;
        // Some writers flatten structs: the column's name is then the whole path.
        let find = |parts: &[&str]| {
            let mut columns = columns.iter();
            columns.position(|column| column.path().parts() == parts && is_text(column))
        };
        let subset = find(&["meta", "pile_set_name"]).or_else(|| find(&["meta.pile_set_name"]));
        Ok(Self {
            path: path.to_owned(),
            reader,
            text,
            subset,
            next_group: 0,
            columns: None,
            raw,
            headers,
            max_page: max_page_bytes(rules.max_record),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn raw(&self) -> &HashingReader<File> {
        &self.raw
    }

    /// The texts of the next rows; none at the end.
    pub(super) fn next_texts(&mut self) -> Result<ColumnTexts> {
        let mut found = ColumnTexts {
            bytes: Vec::new(),
            texts: Vec::new(),
        };
        // The second bound is for short texts, nulls and long names of subsets.
        let mut n_more = 0;
        while found.bytes.len() < BLOCK_BYTES && n_more < 4 * BLOCK_BYTES as u64 {
            let n_before = found.texts.len();
            if self.columns.is_none() && !self.open_group()? {
                self.hash_to(u64::MAX)?;
                break;
            }
            let Some(columns) = &mut self.columns else {
                break;
            };
            if !guarded(&self.path, || columns.read(&mut found))? {
                self.columns = None;
            }
            let new = &found.texts[n_before..];
            n_more += new.iter().map(ColumnText::memory_bytes).sum::<u64>();
        }
        Ok(found)
    }

    /// Opens the next row group. Returns false if there is none.
    fn open_group(&mut self) -> Result<bool> {
        if self.next_group == self.reader.num_row_groups() {
            return Ok(false);
        }
        let number = self.next_group;
        let (text, n_text_rows) = self.open_column(number, self.text)?;
        let subset = self
            .subset
            .map(|column| self.open_column(number, column))
            .transpose()?;
        let n_rows = subset
            .as_ref()
            .map_or(n_text_rows, |(_, n)| n_text_rows.min(*n));
        let open = |(reader, _): (ColumnReader, usize), column: usize| {
            let described = self.reader.metadata().row_group(number).column(column);
            StringColumn::new(reader, described.column_descr().max_def_level())
        };
        let columns = guarded(&self.path, || {
            let subset = subset.zip(self.subset);
            Ok(GroupColumns {
                text: open((text, n_rows), self.text)?,
                subset: subset
                    .map(|(found, column)| open(found, column))
                    .transpose()?,
                n_rows,
                counted: self.count_rows(number),
            })
        })?;
        self.next_group += 1;
        self.columns = Some(columns);
        self.hash_group(number)?;
        Ok(true)
    }

    /// Counts the rows of a column of a row group.
    pub(super) fn count_rows(&self, group: usize) -> CountedRows {
        CountedRows {
            group,
            n_expected: self.reader.metadata().row_group(group).num_rows(),
            n_rows: 0,
        }
    }

    /// Opens a column of a row group. Also returns the number of rows that may be decoded together.
    pub(super) fn open_column(&self, group: usize, column: usize) -> Result<(ColumnReader, usize)> {
        let described = self.reader.metadata().row_group(group).column(column);
        // `byte_range` panics if the range is invalid; `guarded` returns that as an error.
        guarded(&self.path, || Ok(described.byte_range()))?;
        let largest = check_column(&self.path, &self.headers, described, self.max_page)?;
        let n_rows = (MAX_ROWS_BYTES / largest.max(1)).clamp(1, MAX_ROWS as u64) as usize;
        guarded(&self.path, || {
            let described = described.column_descr_ptr();
            let pages = CheckedPages {
                pages: self
                    .reader
                    .get_row_group(group)?
                    .get_column_page_reader(column)?,
                max_levels: [described.max_rep_level(), described.max_def_level()],
                max_page: self.max_page,
            };
            Ok((get_column_reader(described, Box::new(pages)), n_rows))
        })
    }

    /// Hashes the file up to the end of a row group.
    pub(super) fn hash_group(&mut self, group: usize) -> Result<()> {
        let columns = self.reader.metadata().row_group(group).columns();
        let ends = || {
            let ends = columns.iter().map(|column| {
                let (start, length) = column.byte_range();
                start.saturating_add(length)
            });
            Ok(ends.max().unwrap_or(0))
        };
        let end = guarded(&self.path, ends)?;
        self.hash_to(end)
    }

    /// Hashes the file up to byte `end`, or to its end.
    pub(super) fn hash_to(&mut self, end: u64) -> Result<()> {
        let mut buffer = vec![0; 1 << 17];
        while self.raw.n_bytes() < end {
            let remaining = usize::try_from(end - self.raw.n_bytes()).unwrap_or(usize::MAX);
            let n_bytes = remaining.min(buffer.len());
            let n = self.raw.read(&mut buffer[..n_bytes]);
            if n.map_err(|err| Error::io(&self.path, err))? == 0 {
                break;
            }
        }
        Ok(())
    }
}

impl GroupColumns {
    /// Appends the texts of the next rows. Returns false if there are none.
    fn read(&mut self, found: &mut ColumnTexts) -> ParquetResult<bool> {
        let n = self.text.read(self.n_rows)?;
        self.counted.add(n)?;
        // After the last text there must be no subset.
        if let Some(subset) = &mut self.subset
            && subset.read(n.max(1))? != n
        {
            return Err(ParquetError::General("columns of different lengths".into()));
        }
        let mut subsets = self.subset.as_ref().map(StringColumn::items);
        for text in self.text.items() {
            let subset = subsets.as_mut().and_then(Iterator::next).flatten();
            let subset = subset
                .map(|name| std::str::from_utf8(name.data()))
                .transpose();
            let missing = match subset {
                _ if text.is_none() => Some("null, expected a string"),
                Err(_) => Some("the name of its subset is not UTF-8"),
                Ok(_) => None,
            };
            found
                .bytes
                .extend_from_slice(text.map_or(&[][..], ByteArray::data));
            found.texts.push(ColumnText {
                end: found.bytes.len(),
                subset: subset.ok().flatten().map(Arc::from),
                missing,
            });
        }
        Ok(n > 0)
    }
}

impl CountedRows {
    /// Counts `n` rows; 0 is the end of the column.
    pub(super) fn add(&mut self, n: usize) -> ParquetResult<()> {
        self.n_rows += n as u64;
        if n > 0 || i64::try_from(self.n_rows) == Ok(self.n_expected) {
            return Ok(());
        }
        Err(ParquetError::General(format!(
            "row group {} has {} rows, {} by its metadata",
            self.group, self.n_rows, self.n_expected
        )))
    }
}

impl StringColumn {
    fn new(reader: ColumnReader, full_level: i16) -> ParquetResult<Self> {
        let reader = match reader {
            ColumnReader::ByteArrayColumnReader(reader) => ValueReader::Bytes(reader),
            ColumnReader::Int32ColumnReader(reader) => ValueReader::Null(reader),
            _ => return Err(ParquetError::General("not a column of strings".into())),
        };
        Ok(Self {
            reader,
            full_level,
            levels: Vec::new(),
            values: Vec::new(),
        })
    }

    /// Decodes up to `n` rows. Returns their number.
    fn read(&mut self, n: usize) -> ParquetResult<usize> {
        self.levels.clear();
        self.values.clear();
        let levels = Some(&mut self.levels);
        let (n, ..) = match &mut self.reader {
            ValueReader::Bytes(reader) => reader.read_records(n, levels, None, &mut self.values)?,
            ValueReader::Null(reader) => reader.read_records(n, levels, None, &mut Vec::new())?,
        };
        // The library gives no levels for a column without nulls.
        if self.full_level == 0 {
            self.levels.resize(n, 0);
        }
        Ok(n)
    }

    /// The decoded rows; `None` is null.
    fn items(&self) -> impl Iterator<Item = Option<&ByteArray>> {
        let mut values = self.values.iter();
        let has_value = |level: &i16| *level == self.full_level;
        self.levels
            .iter()
            .map(move |level| has_value(level).then(|| values.next()).flatten())
    }
}

/// The index of the column of texts with this name.
fn find_text(path: &Path, columns: &[ColumnDescPtr], name: &str) -> Result<usize> {
    let fail = |what: String| Err(Error::malformed(path, what));
    let at = columns
        .iter()
        .position(|column| column.path().parts()[0] == name);
    let Some(at) = at else {
        let mut names: Vec<&str> = columns
            .iter()
            .map(|c| c.path().parts()[0].as_str())
            .collect();
        names.dedup();
        return fail(format!(
            "no column {name:?}; there are: {}",
            names.join(", ")
        ));
    };
    let column = &columns[at];
    if (is_text(column) || is_null(column)) && column.path().parts().len() == 1 {
        return Ok(at);
    }
    let kind = match column.path().parts().len() {
        1 => match column.logical_type_ref() {
            Some(kind) => format!("{kind:?}"),
            None => column.physical_type().to_string(),
        },
        _ => "a list or struct".to_owned(),
    };
    fail(format!("column {name:?} is {kind}, expected strings"))
}

/// Whether a column has strings, or bytes without a declared meaning: some writers do not declare strings as such.
fn is_text(column: &ColumnDescPtr) -> bool {
    let is_string = match column.logical_type_ref() {
        Some(kind) => kind == &LogicalType::String,
        None => [ConvertedType::UTF8, ConvertedType::NONE].contains(&column.converted_type()),
    };
    is_string && column.physical_type() == Type::BYTE_ARRAY && column.max_rep_level() == 0
}

/// Whether a column has Arrow's type null. Writers use it for a column without any value.
fn is_null(column: &ColumnDescPtr) -> bool {
    column.logical_type_ref() == Some(&LogicalType::Unknown)
        && column.physical_type() == Type::INT32
        && column.max_rep_level() == 0
}

/// The size of the footer, as stored at the end of a parquet file; `None` if the file does not end as one.
/// The last eight bytes are the size and the magic number.
fn footer_bytes(file: &mut File) -> io::Result<Option<u64>> {
    let mut end = [0; 8];
    let n_bytes = file.seek(SeekFrom::End(0))?;
    if n_bytes < 12 {
        return Ok(None);
    }
    file.seek(SeekFrom::End(-8))?;
    file.read_exact(&mut end)?;
    let [a, b, c, d, magic @ ..] = end;
    Ok((&magic == b"PAR1").then_some(u32::from_le_bytes([a, b, c, d]).into()))
}

/// Calls the library and returns its errors and its panics as damage of the file: the library panics on some
/// damaged files.
pub(super) fn guarded<T>(path: &Path, read: impl FnOnce() -> ParquetResult<T>) -> Result<T> {
    let what = match catch_unwind(AssertUnwindSafe(read)) {
        Ok(Ok(done)) => return Ok(done),
        Ok(Err(err)) => err.to_string(),
        Err(_) => "its metadata are inconsistent".to_owned(),
    };
    Err(Error::malformed(
        path,
        format!("not parquet, or damaged: {what}"),
    ))
}
