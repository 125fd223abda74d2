//! A run of whole lines of a shard, and the documents in it.

use std::path::{Path, PathBuf};

use super::Document;
use crate::{Error, Result};

/// Whole lines of one shard, with where they stand in it.
#[derive(Debug)]
pub struct Block {
    path: PathBuf,
    first_record: u64,
    first_byte: u64,
    bytes: Vec<u8>,
}

/// Where a record stands: its line and the bytes of it, line end excluded, in the decompressed shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Number of the line in its shard, from 0.
    pub record: u64,
    /// First byte in the decompressed shard.
    pub byte_start: u64,
    /// Bytes of the line.
    pub byte_length: u64,
}

impl Block {
    pub(super) fn new(path: PathBuf, first_record: u64, first_byte: u64, bytes: Vec<u8>) -> Self {
        Self {
            path,
            first_record,
            first_byte,
            bytes,
        }
    }

    /// The shard's file.
    #[must_use]
    pub fn shard_path(&self) -> &Path {
        &self.path
    }

    /// Bytes of all lines.
    #[must_use]
    pub fn n_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Lines, one without a line end at the file's end included.
    #[must_use]
    pub fn n_records(&self) -> u64 {
        self.lines().count() as u64
    }

    fn lines(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes.split_inclusive(|byte| *byte == b'\n')
    }

    /// The documents with their positions; an error names the record and where it stands.
    pub fn documents(&self) -> impl Iterator<Item = Result<(Position, Document<'_>)>> {
        let mut byte_start = self.first_byte;
        self.lines()
            .zip(self.first_record..)
            .map(move |(line, record)| {
                let start = byte_start;
                byte_start += line.len() as u64;
                let line = line.strip_suffix(b"\n").unwrap_or(line);
                let position = Position {
                    record,
                    byte_start: start,
                    byte_length: line.len() as u64,
                };
                let document =
                    Document::parse(line).map_err(|what| self.bad_record(position, &what))?;
                Ok((position, document))
            })
    }

    fn bad_record(&self, at: Position, what: &str) -> Error {
        let text = format!("record {}: {what}", at.record);
        Error::format(&self.path, at.byte_start, text)
    }
}
