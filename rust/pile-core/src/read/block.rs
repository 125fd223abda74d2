//! A run of whole records of a shard, and the documents in it.

use std::{
    borrow::Cow,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    BadRecords, Document, Rules,
    lines::TooLong,
    record::{utf8, without_marks},
    shard::{bad_record, too_long},
};
use crate::{Error, Result};

/// Whole records of one shard, with where they stand in it.
#[derive(Debug)]
pub struct Block {
    pub(super) path: PathBuf,
    pub(super) rules: Arc<Rules>,
    pub(super) first_record: u64,
    pub(super) first_byte: u64,
    pub(super) bytes: Vec<u8>,
    pub(super) content: Content,
}

/// What the bytes of a block are.
#[derive(Debug)]
pub(super) enum Content {
    /// JSON, one record a line.
    Lines,
    /// Texts, one after the other.
    Texts(Vec<Text>),
    /// One document, the whole file.
    File,
    /// One record, whose bytes are not here.
    TooLong(TooLong),
}

/// A text among the bytes of a block.
#[derive(Debug)]
pub(super) struct Text {
    /// Where it ends.
    pub end: usize,
    pub subset: Option<Arc<str>>,
    /// There is no text here: what there is instead.
    pub missing: Option<&'static str>,
}

/// Where a record stands: its number, and its bytes in the decompressed shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Number of the line, or of the row, in its shard, from 0.
    pub record: u64,
    /// First byte in the decompressed shard; of a row in the column's texts laid end to end.
    pub byte_start: u64,
    /// Bytes of the line, its end excluded, or of the text.
    pub byte_length: u64,
}

/// A record that was left out.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct BadRecord {
    /// Its number in the shard, from 0.
    pub record: u64,
    /// Its first byte, as in [`Position`].
    pub byte: u64,
    /// What is wrong with it.
    pub reason: String,
}

/// The records of a shard that were left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct BadRecordList {
    /// How many.
    pub n: u64,
    /// The first [`BadRecordList::LISTED`] of them.
    pub first: Vec<BadRecord>,
}

impl BadRecordList {
    /// Bad records of a shard that are listed one by one.
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

    /// Adds those of a later block of the same shard.
    pub fn append(&mut self, later: Self) {
        let room = Self::LISTED - self.first.len();
        self.n += later.n;
        self.first.extend(later.first.into_iter().take(room));
    }
}

impl Block {
    /// The shard's file.
    #[must_use]
    pub fn shard_path(&self) -> &Path {
        &self.path
    }

    /// Bytes of all records, also of one that is not kept.
    #[must_use]
    pub fn n_bytes(&self) -> u64 {
        match &self.content {
            Content::TooLong(passed) => passed.length + u64::from(passed.has_end),
            _ => self.bytes.len() as u64,
        }
    }

    /// Bytes of memory that the records take.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Records; the last line of a file needs no end.
    #[must_use]
    pub fn n_records(&self) -> u64 {
        match &self.content {
            Content::Texts(texts) => texts.len() as u64,
            Content::File | Content::TooLong(_) => 1,
            Content::Lines => {
                let n_ends = memchr::memchr_iter(b'\n', &self.bytes).count() as u64;
                let is_open = self.bytes.last().is_some_and(|last| *last != b'\n');
                n_ends + u64::from(is_open)
            }
        }
    }

    /// Calls `take` with each document and its position, and returns the bad records if the rules
    /// are to skip them.
    ///
    /// # Errors
    /// The first bad record if they are not to be skipped, named with its place, or what `take` gives.
    pub fn each_document(
        &self,
        mut take: impl FnMut(Position, Document<'_>) -> Result<()>,
    ) -> Result<BadRecordList> {
        let mut scratch = Vec::new();
        let mut bad = BadRecordList::default();
        self.each_record(&mut |position, record| {
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

    /// The documents with their positions, copied; an error names the record and where it stands.
    pub fn documents(&self) -> impl Iterator<Item = Result<(Position, Document<'static>)>> {
        let mut documents = Vec::new();
        let mut scratch = Vec::new();
        let _ = self.each_record(&mut |position, record| {
            let document = record.document(&self.rules, &mut scratch);
            let document = document.map(|document| (position, document.into_owned()));
            documents.push(document.map_err(|what| {
                let what = format!("record {}: {what}", position.record);
                Error::format(&self.path, position.byte_start, what)
            }));
            Ok(())
        });
        documents.into_iter()
    }

    fn each_record(&self, take: &mut impl FnMut(Position, Record<'_>) -> Result<()>) -> Result<()> {
        let mut start = 0_u64;
        let mut number = self.first_record;
        let mut next = |length: u64, skip: u64, record: Record<'_>| {
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
            Content::Texts(texts) => {
                let mut from = 0;
                for text in texts {
                    let bytes = &self.bytes[from..text.end];
                    from = text.end;
                    next(bytes.len() as u64, 0, Record::Text(bytes, text))?;
                }
            }
            Content::File => next(self.n_bytes(), 0, Record::File(&self.bytes))?,
            Content::TooLong(passed) => {
                next(passed.length, passed.has_end.into(), Record::TooLong)?;
            }
            Content::Lines => {
                let mut from = 0;
                for end in memchr::memchr_iter(b'\n', &self.bytes) {
                    let line = &self.bytes[from..end];
                    from = end + 1;
                    next(line.len() as u64, 1, Record::Line(line))?;
                }
                let line = &self.bytes[from..];
                if !line.is_empty() {
                    next(line.len() as u64, 0, Record::Line(line))?;
                }
            }
        }
        Ok(())
    }
}

/// A record as it stands in its block.
enum Record<'a> {
    Line(&'a [u8]),
    Text(&'a [u8], &'a Text),
    File(&'a [u8]),
    TooLong,
}

impl<'a> Record<'a> {
    /// The document, or what is wrong with the record.
    fn document(
        self,
        rules: &Rules,
        scratch: &'a mut Vec<u8>,
    ) -> std::result::Result<Document<'a>, String> {
        match self {
            Self::TooLong => Err(too_long(rules.max_record)),
            long if long.n_bytes() > rules.max_record => Err(too_long(rules.max_record)),
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

    /// Bytes of the record that are here.
    fn n_bytes(&self) -> u64 {
        match self {
            Self::Line(bytes) | Self::Text(bytes, _) | Self::File(bytes) => bytes.len() as u64,
            Self::TooLong => 0,
        }
    }
}
