//! Where each document came from: shard, record, bytes of the record, subset.
//!
//! `PREFIX.provenance` is little-endian: 8 bytes `PILEPROV`, a u64 with the length of a JSON header
//! (padded with spaces to a multiple of 8), the header, then the columns, each n documents long:
//! `byte_start` u64, `byte_length` u64, `record` u32, `subset` u16. The header lists the shards, with
//! their first document each, and the subsets' names; 22 bytes a document in all.
//!
//! That is version 1: documents in the order of shards and records, as `tokenize` writes them. Version 2
//! is for documents in any order, some of them of unknown origin: a fifth column, `shard` u32, tells the
//! number of each document's shard, [`UNKNOWN`] where nothing is known. 26 bytes a document.

use std::{
    io::{self, Write},
    path::Path,
};

use serde::{Deserialize, Serialize};

use crate::{Error, Result, io::Mapped};

const MAGIC: &[u8; 8] = b"PILEPROV";
const IN_ORDER: u32 = 1;
const ANY_ORDER: u32 = 2;

/// The `subset` entry of a document whose record names none.
pub(super) const NO_SUBSET: u16 = u16::MAX;

/// The `shard` entry of a document of which nothing is known.
const UNKNOWN: u32 = u32::MAX;

/// The columns, by the bytes that a document has in those before.
const BYTE_START: u64 = 0;
const BYTE_LENGTH: u64 = 8;
const RECORD: u64 = 16;
const SUBSET: u64 = 20;
const SHARD: u64 = 22;

/// A shard, and where its documents begin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardSpan {
    /// The shard's path as it was given.
    pub path: String,
    /// Number of its first document in the dataset; of the next shard's if it has none. In version 2
    /// its documents may come in any order, but none comes before this one.
    pub first_document: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    version: u32,
    n_documents: u64,
    shards: Vec<ShardSpan>,
    subsets: Vec<String>,
}

/// Where one document came from, shard and subset by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Number of the shard.
    pub shard: u32,
    /// The record's line in its shard, from 0.
    pub record: u64,
    /// The record's first byte in the decompressed shard.
    pub byte_start: u64,
    /// The record's bytes, line end excluded.
    pub byte_length: u64,
    /// Number of the record's subset, if it names one.
    pub subset: Option<u32>,
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
        let document_bytes = match header.version {
            IN_ORDER => SHARD,
            ANY_ORDER => SHARD + 4,
            other => {
                let what = format!("version {other}, expected {IN_ORDER} or {ANY_ORDER}");
                return Err(Error::format(path, 16, what));
            }
        };
        let columns_start = 16 + length;
        let expected = n_documents
            .checked_mul(document_bytes)
            .and_then(|b| b.checked_add(columns_start));
        if header.n_documents != n_documents || expected != Some(file.bytes().len() as u64) {
            let what = format!(
                "speaks of {} documents in {} bytes, but the dataset has {n_documents}",
                header.n_documents,
                file.bytes().len()
            );
            return Err(Error::malformed(path, what));
        }
        let is_ascending = header.shards.first().is_none_or(|s| s.first_document == 0)
            && header.shards.is_sorted_by_key(|s| s.first_document);
        if header.version == IN_ORDER && !is_ascending {
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
        let number = u16::from_le_bytes(self.column(SUBSET, document)?);
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

    /// Number of a document's shard in [`Self::shards`]; `None` where nothing is known.
    fn shard_number(&self, document: u64) -> Result<Option<u32>> {
        let n_shards = self.header.shards.len() as u64;
        if self.header.version == IN_ORDER {
            // Of shards with the same first document all but the last are empty.
            let shards = &self.header.shards;
            let after = shards.partition_point(|s| s.first_document <= document);
            return match after.checked_sub(1) {
                Some(number) => Ok(Some(number as u32)),
                None => Err(Error::malformed(self.file.path(), "names no shards")),
            };
        }
        let number = u32::from_le_bytes(self.column(SHARD, document)?);
        if number == UNKNOWN {
            return Ok(None);
        }
        if u64::from(number) < n_shards {
            return Ok(Some(number));
        }
        let what = format!("document {document} has shard {number} of {n_shards}");
        Err(Error::malformed(self.file.path(), what))
    }

    /// Where a document came from, shard and subset by number; `None` where that is unknown.
    ///
    /// # Errors
    /// No such document, or a damaged file.
    pub fn place(&self, document: u64) -> Result<Option<Place>> {
        if document >= self.header.n_documents {
            return Err(Error::argument(format!(
                "no document {document}: the dataset has {}",
                self.header.n_documents
            )));
        }
        let Some(shard) = self.shard_number(document)? else {
            return Ok(None);
        };
        Ok(Some(Place {
            shard,
            record: u64::from(u32::from_le_bytes(self.column(RECORD, document)?)),
            byte_start: u64::from_le_bytes(self.column(BYTE_START, document)?),
            byte_length: u64::from_le_bytes(self.column(BYTE_LENGTH, document)?),
            subset: self.subset_number(document)?.map(u32::from),
        }))
    }

    /// Where a document came from; `None` where that is unknown.
    ///
    /// # Errors
    /// No such document, or a damaged file.
    pub fn origin(&self, document: u64) -> Result<Option<Origin<'_>>> {
        let Header {
            shards, subsets, ..
        } = &self.header;
        Ok(self.place(document)?.map(|place| Origin {
            shard: &shards[place.shard as usize].path,
            record: place.record,
            byte_start: place.byte_start,
            byte_length: place.byte_length,
            subset: place.subset.map(|i| subsets[i as usize].as_str()),
        }))
    }

    /// The documents that came from a record of a shard, the shard by its number in [`Self::shards`]: a
    /// binary search, or in version 2 one pass over the columns.
    ///
    /// # Errors
    /// No such shard, or a damaged file.
    pub fn documents_of(&self, shard: u32, record: u64) -> Result<Vec<u64>> {
        let Some(span) = self.header.shards.get(shard as usize) else {
            let what = format!("no shard {shard}: there are {}", self.header.shards.len());
            return Err(Error::argument(what));
        };
        let n = self.header.n_documents;
        let first = span.first_document.min(n);
        let records = numbers(self.whole_column(RECORD, 4));
        if self.header.version == IN_ORDER {
            let next = self.header.shards.get(shard as usize + 1);
            let end = next.map_or(n, |next| next.first_document.min(n));
            let (mut low, mut high) = (first, end);
            while low < high {
                let middle = low + (high - low) / 2;
                if records(middle) < record {
                    low = middle + 1;
                } else {
                    high = middle;
                }
            }
            return Ok((low..end).take_while(|i| records(*i) == record).collect());
        }
        let shards = numbers(self.whole_column(SHARD, 4));
        let is_it = |i: &u64| records(*i) == record && shards(*i) == u64::from(shard);
        Ok((first..n).filter(is_it).collect())
    }
}

/// The entries of a column of u32, by document.
fn numbers(column: &[u8]) -> impl Fn(u64) -> u64 {
    move |document| {
        let mut entry = [0; 4];
        entry.copy_from_slice(&column[4 * document as usize..][..4]);
        u64::from(u32::from_le_bytes(entry))
    }
}

/// Writes what stands before the columns of documents in the order of shards and records.
pub(super) fn write_header(
    out: &mut impl Write,
    n_documents: u64,
    shards: Vec<ShardSpan>,
    subsets: Vec<String>,
) -> io::Result<()> {
    write_header_of(out, IN_ORDER, n_documents, shards, subsets)
}

fn write_header_of(
    out: &mut impl Write,
    version: u32,
    n_documents: u64,
    shards: Vec<ShardSpan>,
    subsets: Vec<String>,
) -> io::Result<()> {
    let header = Header {
        version,
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
    let version = parts.iter().map(|part| part.header.version).max();
    let version = version.unwrap_or(IN_ORDER);
    write_header_of(out, version, n_documents, shards, subsets)?;
    for (column, width) in [(BYTE_START, 8), (BYTE_LENGTH, 8), (RECORD, 4)] {
        for part in parts {
            out.write_all(part.whole_column(column, width))?;
        }
    }
    for (part, numbers) in parts.iter().zip(&renumbered) {
        for b in part.whole_column(SUBSET, 2).chunks_exact(2) {
            let old = u16::from_le_bytes([b[0], b[1]]);
            let new = numbers.get(usize::from(old)).copied().unwrap_or(NO_SUBSET);
            out.write_all(&new.to_le_bytes())?;
        }
    }
    if version == IN_ORDER {
        return Ok(());
    }
    let mut n_shards = 0;
    for part in parts {
        for document in 0..part.header.n_documents {
            let shard = part.shard_number(document).map_err(io::Error::other)?;
            let shard = shard.map_or(UNKNOWN, |shard| n_shards + shard);
            out.write_all(&shard.to_le_bytes())?;
        }
        n_shards += part.header.shards.len() as u32;
    }
    Ok(())
}

/// Writes a whole file, in version 1 where the documents allow it. `places`, gone through once a column,
/// are those of all documents in order, with records and subsets that the columns hold.
pub(super) fn write_places<I: Iterator<Item = Option<Place>>>(
    out: &mut impl Write,
    n_documents: u64,
    shards: &[String],
    subsets: Vec<String>,
    places: impl Fn() -> I,
) -> io::Result<()> {
    let in_order = |place: Option<Place>| place.map(|place| (place.shard, place.record));
    let is_in_order = places().all(|place| place.is_some())
        && places()
            .map(in_order)
            .is_sorted_by(|before, after| before < after);
    let version = if is_in_order { IN_ORDER } else { ANY_ORDER };
    let mut firsts = vec![n_documents; shards.len()];
    for (place, document) in places().zip(0..) {
        if let Some(place) = place {
            let first = &mut firsts[place.shard as usize];
            *first = document.min(*first);
        }
    }
    if is_in_order {
        let mut next = n_documents;
        for first in firsts.iter_mut().rev() {
            next = next.min(*first);
            *first = next;
        }
    }
    let spans = shards.iter().zip(firsts);
    let spans = spans.map(|(path, first_document)| ShardSpan {
        path: path.clone(),
        first_document,
    });
    write_header_of(out, version, n_documents, spans.collect(), subsets)?;
    let or_0 = |place: Option<Place>, number: fn(Place) -> u64| place.map_or(0, number);
    for place in places() {
        out.write_all(&or_0(place, |place| place.byte_start).to_le_bytes())?;
    }
    for place in places() {
        out.write_all(&or_0(place, |place| place.byte_length).to_le_bytes())?;
    }
    for place in places() {
        let record = or_0(place, |place| place.record) as u32;
        out.write_all(&record.to_le_bytes())?;
    }
    for place in places() {
        let subset = place.and_then(|place| place.subset);
        let subset = subset.map_or(NO_SUBSET, |subset| subset as u16);
        out.write_all(&subset.to_le_bytes())?;
    }
    if version == ANY_ORDER {
        for place in places() {
            let shard = place.map_or(UNKNOWN, |place| place.shard);
            out.write_all(&shard.to_le_bytes())?;
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
