//! Where each document came from: shard, record, bytes of the record, subset.
//!
//! `PREFIX.provenance` is little-endian: 8 bytes `PILEPROV`, a u64 with the length of a JSON header
//! (padded with spaces to a multiple of 8), the header, then the columns, each n documents long:
//! `byte_start` u64, `byte_length` u64, `record` u32, `subset` u16. The header lists the shards, with
//! their first document each, and the subsets' names; 22 bytes a document in all.

use std::{
    io::{self, Write},
    path::Path,
};

use serde::{Deserialize, Serialize};

use crate::{Error, Result, io::Mapped};

const MAGIC: &[u8; 8] = b"PILEPROV";
const VERSION: u32 = 1;

/// The `subset` entry of a document whose record names none.
pub(super) const NO_SUBSET: u16 = u16::MAX;

/// The documents of one shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardSpan {
    /// The shard's path as it was given.
    pub path: String,
    /// Number of its first document in the dataset.
    pub first_document: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    version: u32,
    n_documents: u64,
    shards: Vec<ShardSpan>,
    subsets: Vec<String>,
}

/// Where one document came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin<'a> {
    /// The shard's path as it was given.
    pub shard: &'a str,
    /// The record's line in its shard, from 0.
    pub record: u64,
    /// The record's first byte in the decompressed shard.
    pub byte_start: u64,
    /// The record's bytes, line end excluded.
    pub byte_length: u64,
    /// The record's subset, if it names one.
    pub subset: Option<&'a str>,
}

/// An opened `.provenance` file.
#[derive(Debug)]
pub struct Provenance {
    file: Mapped,
    header: Header,
    columns_start: u64,
}

impl Provenance {
    /// Opens the provenance of a dataset of `n_documents`.
    ///
    /// # Errors
    /// The file cannot be read, is malformed, or is of another number of documents.
    pub fn open(path: &Path, n_documents: u64) -> Result<Self> {
        let file = Mapped::open(path)?;
        if file.slice(0, 8)? != MAGIC {
            return Err(Error::format(
                path,
                0,
                "expected \"PILEPROV\": not a provenance file",
            ));
        }
        let mut length = [0; 8];
        length.copy_from_slice(file.slice(8, 8)?);
        let length = u64::from_le_bytes(length);
        let header: Header = serde_json::from_slice(file.slice(16, length)?)
            .map_err(|err| Error::format(path, 16, format!("header: {err}")))?;
        if header.version != VERSION {
            return Err(Error::format(
                path,
                16,
                format!("version {}, expected {VERSION}", header.version),
            ));
        }
        let columns_start = 16 + length;
        let expected = n_documents
            .checked_mul(22)
            .and_then(|b| b.checked_add(columns_start));
        if header.n_documents != n_documents || expected != Some(file.bytes().len() as u64) {
            let what = format!(
                "speaks of {} documents in {} bytes, but the dataset has {n_documents}",
                header.n_documents,
                file.bytes().len()
            );
            return Err(Error::malformed(path, what));
        }
        if header.shards.first().is_some_and(|s| s.first_document != 0)
            || !header.shards.is_sorted_by_key(|s| s.first_document)
        {
            return Err(Error::format(
                path,
                16,
                "the shards' first documents do not ascend from 0",
            ));
        }
        Ok(Self {
            file,
            header,
            columns_start,
        })
    }

    /// The shards and their first documents, in order.
    #[must_use]
    pub fn shards(&self) -> &[ShardSpan] {
        &self.header.shards
    }

    /// The subsets' names, in order of their first appearance.
    #[must_use]
    pub fn subsets(&self) -> &[String] {
        &self.header.subsets
    }

    fn column<const W: usize>(&self, before: u64, document: u64) -> Result<[u8; W]> {
        let at = self.columns_start + before * self.header.n_documents + W as u64 * document;
        let mut bytes = [0; W];
        bytes.copy_from_slice(self.file.slice(at, W as u64)?);
        Ok(bytes)
    }

    /// All bytes of a column.
    fn whole_column(&self, before: u64, width: u64) -> &[u8] {
        let start = (self.columns_start + before * self.header.n_documents) as usize;
        &self.file.bytes()[start..start + (width * self.header.n_documents) as usize]
    }

    /// Number of a document's subset in [`Self::subsets`].
    ///
    /// # Errors
    /// No such document, or a damaged file.
    pub fn subset_number(&self, document: u64) -> Result<Option<u16>> {
        let number = u16::from_le_bytes(self.column(20, document)?);
        if number == NO_SUBSET {
            return Ok(None);
        }
        if usize::from(number) < self.header.subsets.len() {
            return Ok(Some(number));
        }
        let what = format!(
            "document {document} has subset {number} of {}",
            self.header.subsets.len()
        );
        Err(Error::malformed(self.file.path(), what))
    }

    /// Where a document came from.
    ///
    /// # Errors
    /// No such document, or a damaged file.
    pub fn origin(&self, document: u64) -> Result<Origin<'_>> {
        if document >= self.header.n_documents {
            return Err(Error::argument(format!(
                "no document {document}: the dataset has {}",
                self.header.n_documents
            )));
        }
        // Of shards with the same first document all but the last are empty.
        let after = self
            .header
            .shards
            .partition_point(|s| s.first_document <= document);
        let shard = after
            .checked_sub(1)
            .map(|i| self.header.shards[i].path.as_str());
        let subset = self.subset_number(document)?;
        Ok(Origin {
            shard: shard.ok_or_else(|| Error::malformed(self.file.path(), "names no shards"))?,
            record: u64::from(u32::from_le_bytes(self.column(16, document)?)),
            byte_start: u64::from_le_bytes(self.column(0, document)?),
            byte_length: u64::from_le_bytes(self.column(8, document)?),
            subset: subset.map(|i| self.header.subsets[usize::from(i)].as_str()),
        })
    }
}

/// Writes what stands before the columns.
pub(super) fn write_header(
    out: &mut impl Write,
    n_documents: u64,
    shards: Vec<ShardSpan>,
    subsets: Vec<String>,
) -> io::Result<()> {
    let header = Header {
        version: VERSION,
        n_documents,
        shards,
        subsets,
    };
    let mut json = serde_json::to_vec(&header)?;
    json.resize(json.len().next_multiple_of(8), b' ');
    out.write_all(MAGIC)?;
    out.write_all(&(json.len() as u64).to_le_bytes())?;
    out.write_all(&json)
}

/// Writes the provenance of several datasets' documents, one dataset after the other.
///
/// # Errors
/// What the writer reports; a damaged file.
pub(super) fn write_merged(out: &mut impl Write, parts: &[&Provenance]) -> io::Result<()> {
    let (mut shards, mut subsets, mut n_documents) = (Vec::new(), Vec::new(), 0);
    let mut renumbered = Vec::new();
    for part in parts {
        shards.extend(part.header.shards.iter().map(|s| ShardSpan {
            path: s.path.clone(),
            first_document: n_documents + s.first_document,
        }));
        let numbers = part
            .header
            .subsets
            .iter()
            .map(|name| number_in(&mut subsets, name));
        renumbered.push(numbers.collect::<Vec<u16>>());
        n_documents += part.header.n_documents;
    }
    write_header(out, n_documents, shards, subsets)?;
    for (before, width) in [(0, 8), (8, 8), (16, 4)] {
        for part in parts {
            out.write_all(part.whole_column(before, width))?;
        }
    }
    for (part, numbers) in parts.iter().zip(&renumbered) {
        for b in part.whole_column(20, 2).chunks_exact(2) {
            let old = u16::from_le_bytes([b[0], b[1]]);
            let new = numbers.get(usize::from(old)).copied().unwrap_or(NO_SUBSET);
            out.write_all(&new.to_le_bytes())?;
        }
    }
    Ok(())
}

/// The place of a name among those known, added at the end if it is new.
fn number_in(names: &mut Vec<String>, name: &String) -> u16 {
    let at = names.iter().position(|known| known == name);
    let at = at.unwrap_or_else(|| {
        names.push(name.clone());
        names.len() - 1
    });
    u16::try_from(at).unwrap_or(NO_SUBSET)
}
