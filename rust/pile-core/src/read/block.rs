//! A run of whole records of a shard, and the documents in it.

use std::{
    borrow::Cow,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{BadRecords, Document, Rules, record::utf8};
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

impl Text {
    /// Text up to there, of no subset.
    pub(super) fn new(end: usize) -> Self {
        Self {
            end,
            subset: None,
            missing: None,
        }
    }
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

    /// Bytes of all records.
    #[must_use]
    pub fn n_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Records; the last line of a file needs no end.
    #[must_use]
    pub fn n_records(&self) -> u64 {
        match &self.content {
            Content::Texts(texts) => texts.len() as u64,
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
                record.document(&self.rules.text_field, &mut scratch),
                self.rules.bad_records,
            ) {
                (Ok(document), _) => take(position, document)?,
                (Err(what), BadRecords::Skip) => bad.push(position, what),
                (Err(what), BadRecords::Refuse) => {
                    let advice = "--on-bad-record skip leaves such records out";
                    return Err(self.bad_record(position, &format!("{what}; {advice}")));
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
            let document = record.document(&self.rules.text_field, &mut scratch);
            let document = document.map(|document| (position, document.into_owned()));
            documents.push(document.map_err(|what| self.bad_record(position, &what)));
            Ok(())
        });
        documents.into_iter()
    }

    fn each_record(&self, take: &mut impl FnMut(Position, Record<'_>) -> Result<()>) -> Result<()> {
        let mut start = 0;
        let mut number = self.first_record;
        let mut next = |length: usize, skip: usize, record: Record<'_>| {
            let position = Position {
                record: number,
                byte_start: self.first_byte + start as u64,
                byte_length: length as u64,
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
                    next(bytes.len(), 0, Record::Text(bytes, text))?;
                }
            }
            Content::Lines => {
                let mut from = 0;
                for end in memchr::memchr_iter(b'\n', &self.bytes) {
                    let line = &self.bytes[from..end];
                    from = end + 1;
                    next(line.len(), 1, Record::Line(line))?;
                }
                let line = &self.bytes[from..];
                if !line.is_empty() {
                    next(line.len(), 0, Record::Line(line))?;
                }
            }
        }
        Ok(())
    }

    fn bad_record(&self, at: Position, what: &str) -> Error {
        let text = format!("record {}: {what}", at.record);
        Error::format(&self.path, at.byte_start, text)
    }
}

/// A record as it stands in its block.
enum Record<'a> {
    Line(&'a [u8]),
    Text(&'a [u8], &'a Text),
}

impl<'a> Record<'a> {
    /// The document, or what is wrong with the record.
    fn document(
        self,
        text_field: &str,
        scratch: &'a mut Vec<u8>,
    ) -> std::result::Result<Document<'a>, String> {
        match self {
            Self::Line(line) => Document::parse(line, text_field, scratch),
            Self::Text(
                _,
                Text {
                    missing: Some(what),
                    ..
                },
            ) => Err((*what).to_owned()),
            Self::Text(bytes, text) => Ok(Document {
                text: Cow::Borrowed(utf8(bytes)?),
                subset: text.subset.as_deref().map(Cow::Borrowed),
                n_lone_surrogates: 0,
            }),
        }
    }
}
