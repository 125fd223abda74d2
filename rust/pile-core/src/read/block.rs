//! Consecutive whole records of a shard, and their documents.

use std::{
    borrow::Cow,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    BadRecords, Document, FoundRecord, Rules,
    lines::SkippedRecord,
    record::{utf8, without_marks},
    shard::{bad_record, too_long},
};
use crate::{Error, Result, text::names::MAX_SUBSET_BYTES};

/// Consecutive whole records of one shard, with their position in it.
#[derive(Debug)]
pub struct Block {
    pub(super) path: PathBuf,
    pub(super) rules: Arc<Rules>,
    pub(super) first_record: u64,
    pub(super) first_byte: u64,
    pub(super) bytes: Vec<u8>,
    pub(super) content: BlockContent,
}

/// How the bytes of a block are to be read.
#[derive(Debug)]
pub(super) enum BlockContent {
    /// JSON, one record per line.
    Lines,
    /// Texts of a column, one after the other.
    Texts(Vec<ColumnText>),
    /// One document, which is the whole file.
    File,
    /// One record that exceeds the limit. Its bytes were not kept.
    TooLong(SkippedRecord),
}

/// A text in the bytes of a block. It starts at the end of the previous one.
#[derive(Debug)]
pub(super) struct ColumnText {
    /// End of the text in the bytes.
    pub end: usize,
    pub subset: Option<Arc<str>>,
    /// Why the row has no text, if it has none.
    pub missing: Option<&'static str>,
}

impl ColumnText {
    /// Bytes of memory beside those of the text.
    pub fn memory_bytes(&self) -> u64 {
        (size_of::<Self>() + self.subset.as_deref().map_or(0, str::len)) as u64
    }
}

/// The position of a record in its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Number of the line or row, from 0.
    pub record: u64,
    /// First byte in the decompressed shard. For a row, in the concatenation of the column's texts.
    pub byte_start: u64,
    /// Bytes of the line, without its end, or of the text.
    pub byte_length: u64,
}

/// A bad record that was skipped.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct BadRecord {
    /// Its number in the shard, from 0.
    pub record: u64,
    /// Its first byte: see [`Position::byte_start`].
    pub byte: u64,
    /// Why it is bad.
    pub reason: String,
}

/// The bad records of a shard that were skipped.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct BadRecordList {
    /// Their number.
    pub n: u64,
    /// The first [`BadRecordList::LISTED`] of them.
    pub first: Vec<BadRecord>,
}

impl BadRecordList {
    /// Maximum number of bad records that are listed.
    pub const LISTED: usize = 100;

    fn push(&mut self, at: Position, reason: String) {
        self.n += 1;
        if self.first.len() < Self::LISTED {
            self.first.push(BadRecord {
                record: at.record,
                byte: at.byte_start,
                reason,
            });
        }
    }

    /// Appends the bad records of a later block of the same shard.
    pub fn append(&mut self, later: Self) {
        let n_more = Self::LISTED - self.first.len();
        self.n += later.n;
        self.first.extend(later.first.into_iter().take(n_more));
    }
}

impl Block {
    /// Path of the shard.
    #[must_use]
    pub fn shard_path(&self) -> &Path {
        &self.path
    }

    /// Bytes that the records of this block take in the decompressed shard, with their line ends. A record that
    /// exceeds the limit counts too, although its bytes were not kept.
    #[must_use]
    pub fn n_bytes(&self) -> u64 {
        match &self.content {
            BlockContent::TooLong(skipped) => skipped.length + u64::from(skipped.has_end),
            _ => self.bytes.len() as u64,
        }
    }

    /// Bytes of memory that the block takes. Rows without a text take some too.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        let texts = match &self.content {
            BlockContent::Texts(texts) => texts.iter().map(ColumnText::memory_bytes).sum(),
            _ => 0,
        };
        self.bytes.len() as u64 + texts
    }

    /// Number of records. The last line of a file may lack its line end.
    #[must_use]
    pub fn n_records(&self) -> u64 {
        match &self.content {
            BlockContent::Texts(texts) => texts.len() as u64,
            BlockContent::File | BlockContent::TooLong(_) => 1,
            BlockContent::Lines => {
                let n_ends = memchr::memchr_iter(b'\n', &self.bytes).count() as u64;
                let is_open = self.bytes.last().is_some_and(|last| *last != b'\n');
                n_ends + u64::from(is_open)
            }
        }
    }

    /// Calls `take` with each document and its position. Returns the bad records that were skipped.
    ///
    /// # Errors
    /// The first bad record if the rules refuse them, or an error of `take`.
    pub fn each_document(
        &self,
        take: impl FnMut(Position, Document<'_>) -> Result<()>,
    ) -> Result<BadRecordList> {
        self.each_selected_document(|_| true, take)
    }

    /// Calls `take` with each document whose record number is selected. The other records may be bad: they are not
    /// parsed, as parsing takes half of the time of reading.
    ///
    /// # Errors
    /// The first selected record that is bad if the rules refuse them, or an error of `take`.
    pub fn each_selected_document(
        &self,
        is_selected: impl Fn(u64) -> bool,
        mut take: impl FnMut(Position, Document<'_>) -> Result<()>,
    ) -> Result<BadRecordList> {
        let mut scratch = Vec::new();
        let mut bad = BadRecordList::default();
        self.each_record(&mut |position, record| {
            if !is_selected(position.record) {
                return Ok(());
            }
            match (
                record.document(&self.rules, &mut scratch),
                self.rules.bad_records,
            ) {
                (Ok(document), _) => take(position, document)?,
                (Err(what), BadRecords::Skip) => bad.push(position, what),
                (Err(what), BadRecords::Refuse) => {
                    let (record, byte) = (position.record, position.byte_start);
                    return Err(bad_record(&self.path, record, byte, &what));
                }
            }
            Ok(())
        })?;
        Ok(bad)
    }

    /// Copies of the documents with their positions. A bad record is an error that names it, even if the rules say
    /// to skip such records.
    pub fn documents(&self) -> impl Iterator<Item = Result<(Position, Document<'static>)>> {
        let mut documents = Vec::new();
        let mut scratch = Vec::new();
        let _ = self.each_record(&mut |position, record| {
            let document = record.document(&self.rules, &mut scratch);
            let document = document.map(|document| (position, document.into_owned()));
            documents.push(document.map_err(|what| self.bad(position, &what)));
            Ok(())
        });
        documents.into_iter()
    }

    /// A copy of the record of this number, or an error that names it if it is bad; `None` if it is in another block.
    pub(super) fn record(&self, number: u64) -> Option<Result<FoundRecord>> {
        let (mut found, mut scratch) = (None, Vec::new());
        let _ = self.each_record(&mut |position, record| {
            if position.record == number {
                let bytes = record.bytes().to_vec();
                let document = record.document(&self.rules, &mut scratch);
                let document = document.map(|document| document.text.into_owned());
                let text = document.map_err(|what| self.bad(position, &what));
                found = Some(text.map(|text| FoundRecord { bytes, text }));
            }
            Ok(())
        });
        found
    }

    /// The error for a bad record.
    fn bad(&self, position: Position, what: &str) -> Error {
        let what = format!("record {}: {what}", position.record);
        Error::format(&self.path, position.byte_start, what)
    }

    /// Calls `take` with each record and its position.
    fn each_record(
        &self,
        take: &mut impl FnMut(Position, RawRecord<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut start = 0_u64;
        let mut number = self.first_record;
        // `skip` is the bytes between this record and the next.
        let mut next = |length: u64, skip: u64, record: RawRecord<'_>| {
            let position = Position {
                record: number,
                byte_start: self.first_byte + start,
                byte_length: length,
            };
            number += 1;
            start += length + skip;
            take(position, record)
        };
        match &self.content {
            BlockContent::Texts(texts) => {
                let mut from = 0;
                for text in texts {
                    let bytes = &self.bytes[from..text.end];
                    from = text.end;
                    next(bytes.len() as u64, 0, RawRecord::Text(bytes, text))?;
                }
            }
            BlockContent::File => next(self.n_bytes(), 0, RawRecord::File(&self.bytes))?,
            BlockContent::TooLong(skipped) => {
                next(skipped.length, skipped.has_end.into(), RawRecord::TooLong)?;
            }
            BlockContent::Lines => {
                let mut from = 0;
                for end in memchr::memchr_iter(b'\n', &self.bytes) {
                    let line = &self.bytes[from..end];
                    from = end + 1;
                    next(line.len() as u64, 1, RawRecord::Line(line))?;
                }
                let line = &self.bytes[from..];
                if !line.is_empty() {
                    next(line.len() as u64, 0, RawRecord::Line(line))?;
                }
            }
        }
        Ok(())
    }
}

/// A record that is not parsed yet.
enum RawRecord<'a> {
    Line(&'a [u8]),
    Text(&'a [u8], &'a ColumnText),
    File(&'a [u8]),
    TooLong,
}

impl<'a> RawRecord<'a> {
    /// The document, or why the record is bad.
    fn document(
        self,
        rules: &Rules,
        scratch: &'a mut Vec<u8>,
    ) -> std::result::Result<Document<'a>, String> {
        let document = self.parse(rules, scratch)?;
        let n_bytes = document.subset.as_deref().map_or(0, str::len);
        if n_bytes > MAX_SUBSET_BYTES {
            return Err(format!(
                "the name of its subset has {n_bytes} bytes, expected at most {MAX_SUBSET_BYTES}"
            ));
        }
        Ok(document)
    }

    fn parse(
        self,
        rules: &Rules,
        scratch: &'a mut Vec<u8>,
    ) -> std::result::Result<Document<'a>, String> {
        match self {
            Self::TooLong => Err(too_long(rules.max_record)),
            // The reader drops only a line of which it has read more than a block and the limit. Texts of columns and
            // shorter lines that exceed the limit come here.
            record if record.bytes().len() as u64 > rules.max_record => {
                Err(too_long(rules.max_record))
            }
            Self::Line(line) => Document::parse(line, &rules.text_field, scratch),
            Self::Text(bytes, text) => match text.missing {
                Some(what) => Err(what.to_owned()),
                None => Ok(Document {
                    text: Cow::Borrowed(utf8(bytes)?),
                    subset: text.subset.as_deref().map(Cow::Borrowed),
                    n_lone_surrogates: 0,
                }),
            },
            Self::File(bytes) => Ok(Document {
                text: Cow::Borrowed(without_marks(utf8(bytes)?)),
                subset: None,
                n_lone_surrogates: 0,
            }),
        }
    }

    /// The bytes of the record in memory.
    fn bytes(&self) -> &'a [u8] {
        match self {
            Self::Line(bytes) | Self::Text(bytes, _) | Self::File(bytes) => bytes,
            Self::TooLong => &[],
        }
    }
}
