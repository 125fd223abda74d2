//! The provenance of a dataset: for each document its shard, record, bytes of the record, and subset.
//!
//! The file `PREFIX.provenance` is, with little-endian numbers:
//!
//! | bytes | value |
//! |---|---|
//! | 8 | `PILEPROV` |
//! | 8 | u64, length of the header |
//! | | header: JSON with the version, the number of documents, and the lists of shards and subsets; padded with spaces to a multiple of 8 |
//! | | one entry per document ([`super::record_location`]), usually 3 or 4 bytes |
//! | 8 each | u64, offset of each block of 64 entries from the first entry |
//!
//! Shards and subsets are referred to by their index in the header's lists.

use std::{
    io::{self, Write},
    ops::Range,
    path::Path,
};

use serde::{Deserialize, Serialize};

use super::record_location::{BLOCK, LocationDecoder, LocationEncoder, RecordLocation};
use crate::{
    Error, Result,
    io::Mapped,
    text::names::{MAX_SUBSET_BYTES, MAX_SUBSETS, SubsetNames},
};

const MAGIC: &[u8; 8] = b"PILEPROV";
const VERSION: u32 = 2;

/// Maximum number of characters of a shard's path: Linux opens no longer one. Tables have a path in each row.
const MAX_PATH_CHARACTERS: usize = 4096;

/// A shard, and a range of documents that contains all of its documents. Documents of other shards may be in
/// the range too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardSpan {
    /// The shard's path as it was given.
    pub path: String,
    /// Number of its first document in the dataset.
    pub first_document: u64,
    /// Number of its last document plus one; equal to `first_document` if it has none.
    pub end_document: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct ProvenanceHeader {
    version: u32,
    n_documents: u64,
    shards: Vec<ShardSpan>,
    subsets: Vec<String>,
}

/// The part of the header that all versions have.
#[derive(Deserialize)]
struct HeaderVersion {
    version: u32,
}

/// The origin of one document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin<'a> {
    /// The shard's path as it was given.
    pub shard: &'a str,
    /// The record's number in its shard, from 0.
    pub record: u64,
    /// The record's first byte in the decompressed shard.
    pub byte_start: u64,
    /// Bytes of the record, without the line end.
    pub byte_length: u64,
    /// The record's subset, if it has one.
    pub subset: Option<&'a str>,
}

/// The origins of all documents as columns, with shards and subsets by number. -1 is none or unknown.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct OriginColumns {
    /// Numbers of the shards.
    pub shard: Vec<i32>,
    /// The records' numbers in their shards.
    pub record: Vec<i64>,
    /// The records' first bytes in the decompressed shards.
    pub byte_start: Vec<i64>,
    /// The records' lengths in bytes.
    pub byte_length: Vec<i64>,
    /// Numbers of the subsets.
    pub subset: Vec<i32>,
}

/// An opened `.provenance` file.
#[derive(Debug)]
pub struct Provenance {
    file: Mapped,
    header: ProvenanceHeader,
    /// The range of the entries in the file. The offsets of the blocks follow it.
    entries: Range<u64>,
}

impl Provenance {
    /// Opens the provenance of a dataset of `n_documents`.
    ///
    /// # Errors
    /// The file cannot be read, is malformed, or is for another number of documents.
    pub fn open(path: &Path, n_documents: u64) -> Result<Self> {
        let file = Mapped::open(path)?;
        if file.slice(0, 8)? != MAGIC {
            let what = "expected \"PILEPROV\": not a provenance file";
            return Err(Error::format(path, 0, what));
        }
        let n_header = u64_at(&file, 8)?;
        let header = read_header(path, file.slice(16, n_header)?)?;
        if header.n_documents != n_documents {
            let what = format!(
                "is for {} documents, but the dataset has {n_documents}",
                header.n_documents
            );
            return Err(Error::malformed(path, what));
        }
        check_names(path, &header)?;
        let spans = header.shards.iter();
        if let Some(bad) = spans
            .clone()
            .find(|s| s.first_document > s.end_document || s.end_document > n_documents)
        {
            let what = format!(
                "gives {} the documents {} to {} of {n_documents}",
                bad.path, bad.first_document, bad.end_document
            );
            return Err(Error::format(path, 16, what));
        }
        let start = 16 + n_header;
        let offset_bytes = n_documents.div_ceil(BLOCK) * 8;
        let end = (file.bytes().len() as u64).checked_sub(offset_bytes);
        let Some(end) = end.filter(|end| *end >= start) else {
            let what = format!(
                "has {} bytes, too few for {n_documents} documents: it is cut short",
                file.bytes().len()
            );
            return Err(Error::malformed(path, what));
        };
        Ok(Self {
            file,
            header,
            entries: start..end,
        })
    }

    /// Number of documents of the dataset.
    #[must_use]
    pub fn n_documents(&self) -> u64 {
        self.header.n_documents
    }

    /// The shards, with the ranges of their documents.
    #[must_use]
    pub fn shards(&self) -> &[ShardSpan] {
        &self.header.shards
    }

    /// The subsets' names, in order of their first appearance.
    #[must_use]
    pub fn subsets(&self) -> &[String] {
        &self.header.subsets
    }

    /// The location of a document's record; `None` if it is unknown.
    ///
    /// # Errors
    /// No such document, or a damaged file.
    pub fn location(&self, document: u64) -> Result<Option<RecordLocation>> {
        if document >= self.header.n_documents {
            return Err(Error::argument(format!(
                "no document {document}: the dataset has {}",
                self.header.n_documents
            )));
        }
        let mut locations = self.locations(document, document + 1);
        locations.next().unwrap_or(Ok(None))
    }

    /// The locations of the documents from `first` up to but excluding `end`. The iterator ends after an error.
    pub fn locations(
        &self,
        first: u64,
        end: u64,
    ) -> impl Iterator<Item = Result<Option<RecordLocation>>> {
        let end = end.min(self.header.n_documents);
        let mut next = first - first % BLOCK;
        let mut decoder = LocationDecoder::new(&[]);
        std::iter::from_fn(move || {
            while next < end {
                let location = self.next_location(next, &mut decoder);
                next = if location.is_err() { end } else { next + 1 };
                // The entries before `first` in its block are only decoded. `next` follows the document just decoded.
                if next > first || location.is_err() {
                    return Some(location);
                }
            }
            None
        })
    }

    /// The location of a document. `decoder` must be at the document's entry, or the entry be the first of a
    /// block.
    fn next_location<'a>(
        &'a self,
        document: u64,
        decoder: &mut LocationDecoder<'a>,
    ) -> Result<Option<RecordLocation>> {
        if document.is_multiple_of(BLOCK) {
            *decoder = LocationDecoder::new(self.block(document / BLOCK)?);
        }
        let location = decoder.next().filter(|location| self.is_valid(*location));
        location.ok_or_else(|| {
            let what = format!("the entry of document {document} is damaged");
            Error::malformed(self.file.path(), what)
        })
    }

    /// Whether the header lists the shard and subset of a location. Other code indexes by them.
    fn is_valid(&self, location: Option<RecordLocation>) -> bool {
        location.is_none_or(|location| {
            let subset = location.subset.unwrap_or(0) as usize;
            (location.shard as usize) < self.header.shards.len()
                && (location.subset.is_none() || subset < self.header.subsets.len())
        })
    }

    /// The bytes from the first entry of a block to the last entry of the file.
    fn block(&self, block: u64) -> Result<&[u8]> {
        let Range { start, end } = self.entries;
        let at = u64_at(&self.file, end + 8 * block)?;
        let from = start.checked_add(at).filter(|from| *from <= end);
        let Some(from) = from else {
            let what = format!("block {block} starts at byte {at} of {}", end - start);
            return Err(Error::format(self.file.path(), end + 8 * block, what));
        };
        self.file.slice(from, end - from)
    }

    /// The origins of all documents as columns, which take 32 bytes per document.
    ///
    /// # Errors
    /// A damaged file.
    pub fn columns(&self) -> Result<OriginColumns> {
        let mut columns = OriginColumns::default();
        for location in self.locations(0, self.n_documents()) {
            let location = location?;
            let number =
                |field: fn(RecordLocation) -> u64| location.map_or(-1, |l| field(l) as i64);
            columns.shard.push(number(|l| u64::from(l.shard)) as i32);
            columns.record.push(number(|l| l.record));
            columns.byte_start.push(number(|l| l.byte_start));
            columns.byte_length.push(number(|l| l.byte_length));
            let subset = location.and_then(|location| location.subset);
            columns
                .subset
                .push(subset.map_or(-1, |subset| subset as i32));
        }
        Ok(columns)
    }

    /// The origin of a document; `None` if it is unknown.
    ///
    /// # Errors
    /// No such document, or a damaged file.
    pub fn origin(&self, document: u64) -> Result<Option<Origin<'_>>> {
        let origin = |location: RecordLocation| Origin {
            shard: &self.header.shards[location.shard as usize].path,
            record: location.record,
            byte_start: location.byte_start,
            byte_length: location.byte_length,
            subset: location
                .subset
                .map(|i| self.header.subsets[i as usize].as_str()),
        };
        Ok(self.location(document)?.map(origin))
    }

    /// The documents whose origin is a record of a shard, given by number. Reads the locations of the shard's
    /// range of documents.
    ///
    /// # Errors
    /// No such shard, or a damaged file.
    pub fn documents_of(&self, shard: u32, record: u64) -> Result<Vec<u64>> {
        let Some(span) = self.header.shards.get(shard as usize) else {
            return Err(Error::argument(format!("no shard {shard}")));
        };
        let (first, end) = (span.first_document, span.end_document);
        let mut found = Vec::new();
        for (location, document) in self.locations(first, end).zip(first..) {
            if location?.is_some_and(|l| (l.shard, l.record) == (shard, record)) {
                found.push(document);
            }
        }
        Ok(found)
    }
}

fn u64_at(file: &Mapped, at: u64) -> Result<u64> {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(file.slice(at, 8)?);
    Ok(u64::from_le_bytes(bytes))
}

fn read_header(path: &Path, json: &[u8]) -> Result<ProvenanceHeader> {
    let fail = |err: serde_json::Error| Error::format(path, 16, format!("not a header: {err}"));
    let HeaderVersion { version } = serde_json::from_slice(json).map_err(fail)?;
    if version != VERSION {
        let what = format!(
            "version {version}, expected {VERSION}: written by another release of pile-tools; tokenize the dataset \
             again, or remove the file to open the dataset without its documents' origins"
        );
        return Err(Error::format(path, 16, what));
    }
    serde_json::from_slice(json).map_err(fail)
}

/// Refuses names that no shard or subset has, and more subsets than a dataset has: the file may come from anyone.
fn check_names(path: &Path, header: &ProvenanceHeader) -> Result<()> {
    let n_subsets = header.subsets.len();
    let longest = header.subsets.iter().map(String::len).max().unwrap_or(0);
    let paths = header.shards.iter().map(|shard| shard.path.chars().count());
    let longest_path = paths.max().unwrap_or(0);
    let what = if n_subsets > MAX_SUBSETS {
        format!("{n_subsets} subsets, expected at most {MAX_SUBSETS}")
    } else if longest > MAX_SUBSET_BYTES {
        format!("a subset's name of {longest} bytes, expected at most {MAX_SUBSET_BYTES}")
    } else if longest_path > MAX_PATH_CHARACTERS {
        format!("a path of {longest_path} characters, expected at most {MAX_PATH_CHARACTERS}")
    } else {
        return Ok(());
    };
    Err(Error::format(path, 16, what))
}

/// Writes a provenance file. `locations` are those of all `n_documents` documents, in order.
///
/// # Errors
/// Those of the writer or of `locations`.
pub fn write_provenance(
    out: &mut impl Write,
    n_documents: u64,
    shards: Vec<ShardSpan>,
    subsets: Vec<String>,
    locations: impl IntoIterator<Item = Result<Option<RecordLocation>>>,
) -> io::Result<()> {
    let header = ProvenanceHeader {
        version: VERSION,
        n_documents,
        shards,
        subsets,
    };
    let mut json = serde_json::to_vec(&header)?;
    json.resize(json.len().next_multiple_of(8), b' ');
    out.write_all(MAGIC)?;
    out.write_all(&(json.len() as u64).to_le_bytes())?;
    out.write_all(&json)?;
    let (mut encoder, mut entry) = (LocationEncoder::default(), Vec::new());
    let (mut block_offsets, mut n_bytes) = (Vec::new(), 0_u64);
    for (location, document) in locations.into_iter().zip(0_u64..) {
        if document.is_multiple_of(BLOCK) {
            block_offsets.push(n_bytes);
            encoder = LocationEncoder::default();
        }
        entry.clear();
        // `write_atomically` unwraps the error again, so that it keeps its kind and names the input.
        encoder.push(location.map_err(io::Error::other)?, &mut entry);
        out.write_all(&entry)?;
        n_bytes += entry.len() as u64;
    }
    block_offsets
        .iter()
        .try_for_each(|offset| out.write_all(&offset.to_le_bytes()))
}

/// Writes a provenance file and computes the ranges of the shards from `locations`, which is iterated over twice.
///
/// # Errors
/// Those of the writer.
pub(super) fn write_locations<I: Iterator<Item = Option<RecordLocation>>>(
    out: &mut impl Write,
    shards: &[String],
    subsets: Vec<String>,
    locations: impl Fn() -> I,
) -> io::Result<()> {
    let mut spans = vec![(u64::MAX, 0); shards.len()];
    let mut n_documents = 0;
    for location in locations() {
        if let Some(location) = location {
            let (first, end) = &mut spans[location.shard as usize];
            *first = n_documents.min(*first);
            *end = n_documents + 1;
        }
        n_documents += 1;
    }
    let mut last_end = 0;
    let spans = spans.into_iter().zip(shards).map(|((first, end), path)| {
        // A shard without documents gets an empty range at the end of the previous shard.
        let (first, end) = if end == 0 {
            (last_end, last_end)
        } else {
            (first, end)
        };
        last_end = end;
        ShardSpan {
            path: path.clone(),
            first_document: first,
            end_document: end,
        }
    });
    write_provenance(
        out,
        n_documents,
        spans.collect(),
        subsets,
        locations().map(Ok),
    )
}

/// The provenance of one of several datasets that are concatenated.
pub(super) struct MergedProvenance<'a> {
    pub n_documents: u64,
    pub provenance: Option<&'a Provenance>,
}

/// Writes the provenance of several datasets that are concatenated. Documents of a dataset without provenance
/// are of unknown origin.
///
/// # Errors
/// Those of the writer; a damaged file, or too many subsets.
pub(super) fn write_merged(out: &mut impl Write, parts: &[MergedProvenance<'_>]) -> io::Result<()> {
    let (mut shards, mut subsets, mut n_all) = (Vec::new(), SubsetNames::default(), 0);
    // For each part, the new number of its first shard and the new numbers of its subsets.
    let mut renumbered = Vec::new();
    for part in parts {
        let first_shard = shards.len() as u32;
        let mut numbers = Vec::new();
        if let Some(provenance) = part.provenance {
            shards.extend(provenance.shards().iter().map(|s| ShardSpan {
                path: s.path.clone(),
                first_document: n_all + s.first_document,
                end_document: n_all + s.end_document,
            }));
            for name in provenance.subsets() {
                let number = subsets.number(name, provenance.file.path());
                numbers.push(number.map_err(io::Error::other)?);
            }
        }
        renumbered.push((first_shard, numbers));
        n_all += part.n_documents;
    }
    let locations = parts
        .iter()
        .zip(&renumbered)
        .flat_map(|(part, (first_shard, numbers))| {
            let renumber = |location: RecordLocation| RecordLocation {
                shard: *first_shard + location.shard,
                subset: location.subset.map(|subset| numbers[subset as usize]),
                ..location
            };
            let known = part
                .provenance
                .iter()
                .flat_map(|p| p.locations(0, u64::MAX));
            let n_unknown = if part.provenance.is_some() {
                0
            } else {
                part.n_documents
            };
            known
                .map(move |location| location.map(|location| location.map(renumber)))
                .chain((0..n_unknown).map(|_| Ok(None)))
        });
    write_provenance(out, n_all, shards, subsets.into_names(), locations)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Locations of which most follow the previous one, and some are unknown or unrelated.
    fn arbitrary_locations() -> impl Strategy<Value = Vec<Option<RecordLocation>>> {
        let far = (0..3_u32, any::<u64>(), any::<u64>(), any::<u64>());
        let step = (0..9_u8, 0..2_000_000_u64, prop::option::of(0..2_u32), far);
        prop::collection::vec(step, 0..300).prop_map(|steps| {
            let mut last = RecordLocation::default();
            let next =
                |(kind, byte_length, subset, far): (u8, u64, Option<u32>, (u32, u64, u64, u64))| {
                    let follows = |gap: u64| RecordLocation {
                        shard: last.shard,
                        record: last.record.wrapping_add(1),
                        byte_start: last
                            .byte_start
                            .wrapping_add(last.byte_length)
                            .wrapping_add(gap),
                        byte_length,
                        subset,
                    };
                    let location = match kind {
                        0 => return None,
                        1 => RecordLocation {
                            shard: far.0,
                            record: far.1,
                            byte_start: far.2,
                            byte_length: far.3,
                            subset,
                        },
                        2 => follows(0),
                        _ => follows(1),
                    };
                    last = location;
                    Some(location)
                };
            steps.into_iter().map(next).collect()
        })
    }

    fn shards(n_documents: u64) -> Vec<ShardSpan> {
        let span = |path: &str| ShardSpan {
            path: path.into(),
            first_document: 0,
            end_document: n_documents,
        };
        vec![span("a"), span("b"), span("a")]
    }

    fn write(path: &Path, locations: &[Option<RecordLocation>]) -> Provenance {
        let n = locations.len() as u64;
        let names = vec!["S".into(), "T".into()];
        let mut bytes = Vec::new();
        write_provenance(
            &mut bytes,
            n,
            shards(n),
            names,
            locations.iter().map(|location| Ok(*location)),
        )
        .unwrap();
        std::fs::write(path, bytes).unwrap();
        Provenance::open(path, n).unwrap()
    }

    proptest! {
        #[test]
        fn reading_returns_what_was_written(locations in arbitrary_locations()) {
            let folder = tempfile::tempdir().unwrap();
            let opened = write(&folder.path().join("p"), &locations);
            let all: Vec<_> = opened.locations(0, u64::MAX).map(Result::unwrap).collect();
            prop_assert_eq!(&all, &locations);
            for (document, location) in locations.iter().enumerate() {
                prop_assert_eq!(opened.location(document as u64).unwrap(), *location);
            }
            prop_assert!(opened.location(locations.len() as u64).is_err());
            if let Some((document, Some(location))) = locations.iter().enumerate().next_back() {
                let found = opened.documents_of(location.shard, location.record).unwrap();
                prop_assert!(found.contains(&(document as u64)));
            }
        }

        #[test]
        fn merged_documents_keep_their_origins(parts in prop::collection::vec(arbitrary_locations(), 1..4)) {
            let folder = tempfile::tempdir().unwrap();
            let open = |(i, locations): (usize, &Vec<_>)| write(&folder.path().join(i.to_string()), locations);
            let opened: Vec<_> = parts.iter().enumerate().map(open).collect();
            let mut bytes = Vec::new();
            let mut inputs: Vec<_> = opened
                .iter()
                .map(|p| MergedProvenance { n_documents: p.n_documents(), provenance: Some(p) })
                .collect();
            inputs.insert(0, MergedProvenance { n_documents: 3, provenance: None });
            write_merged(&mut bytes, &inputs).unwrap();
            let path = folder.path().join("merged");
            std::fs::write(&path, bytes).unwrap();
            let n = parts.iter().map(Vec::len).sum::<usize>() as u64;
            let merged = Provenance::open(&path, n + 3).unwrap();
            prop_assert_eq!(merged.origin(2).unwrap(), None);
            let mut document = 3;
            for part in &opened {
                for i in 0..part.n_documents() {
                    prop_assert_eq!(merged.origin(document).unwrap(), part.origin(i).unwrap());
                    document += 1;
                }
            }
        }
    }

    #[test]
    fn ranges_of_shards_contain_their_documents() {
        let of_shard = |shard| {
            Some(RecordLocation {
                shard,
                ..RecordLocation::default()
            })
        };
        let locations = [of_shard(2), None, of_shard(0), of_shard(2), None];
        let shards = ["a", "b", "c", "d"].map(String::from);
        let mut bytes = Vec::new();
        write_locations(&mut bytes, &shards, vec![], || locations.into_iter()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p");
        std::fs::write(&path, bytes).unwrap();
        let opened = Provenance::open(&path, 5).unwrap();
        let spans = opened
            .shards()
            .iter()
            .map(|s| (s.first_document, s.end_document));
        assert_eq!(spans.collect::<Vec<_>>(), [(2, 3), (3, 3), (0, 4), (4, 4)]);
        assert_eq!(opened.documents_of(2, 0).unwrap(), [0, 3]);
        assert!(opened.documents_of(1, 0).unwrap().is_empty());
        assert!(opened.documents_of(4, 0).is_err());
    }

    #[test]
    fn consecutive_records_take_few_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let location = |i: u64| RecordLocation {
            shard: 2,
            record: i,
            byte_start: 6_001 * i,
            byte_length: 6_000,
            subset: Some(1),
        };
        let path = folder.path().join("p");
        write(
            &path,
            &(0..10_000).map(|i| Some(location(i))).collect::<Vec<_>>(),
        );
        let n_bytes = std::fs::metadata(path).unwrap().len();
        assert!(n_bytes < 45_000, "{n_bytes}");
    }

    #[test]
    fn an_old_version_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p");
        let header = br#"{"version":1,"n_documents":0,"shards":[],"subsets":[]}  "#;
        let length = (header.len() as u64).to_le_bytes();
        std::fs::write(&path, [&MAGIC[..], &length, header].concat()).unwrap();
        let message = Provenance::open(&path, 0).unwrap_err().to_string();
        assert!(message.contains("version 1, expected 2"), "{message}");
    }

    #[test]
    fn names_have_the_limits_of_shards_and_subsets() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p");
        let open = |shard: String, subsets: Vec<String>| {
            let shard = ShardSpan {
                path: shard,
                first_document: 0,
                end_document: 0,
            };
            let mut bytes = Vec::new();
            write_provenance(&mut bytes, 0, vec![shard], subsets, []).unwrap();
            std::fs::write(&path, bytes).unwrap();
            Provenance::open(&path, 0).map(drop)
        };
        let names = |n: usize| (0..n).map(|i| i.to_string()).collect::<Vec<_>>();
        open("\u{FFFD}".repeat(4096), names(65_535)).unwrap();
        open(String::new(), vec!["x".repeat(255)]).unwrap();
        for (shard, subsets, expected) in [
            ("x".repeat(4097), vec![], "a path of 4097 characters"),
            (String::new(), names(65_536), "65536 subsets"),
            (
                String::new(),
                vec!["\u{e9}".repeat(128)],
                "a subset's name of 256 bytes",
            ),
        ] {
            let message = open(shard, subsets).unwrap_err().to_string();
            assert!(
                message.contains(expected) && message.contains("p"),
                "{message}"
            );
        }
    }

    #[test]
    fn merged_datasets_have_no_more_subsets_than_one() {
        let folder = tempfile::tempdir().unwrap();
        let open = |name: &str| {
            let names = (0..40_000).map(|i| format!("{name}{i}")).collect();
            let (path, mut bytes) = (folder.path().join(name), Vec::new());
            write_provenance(&mut bytes, 0, vec![], names, []).unwrap();
            std::fs::write(&path, bytes).unwrap();
            Provenance::open(&path, 0).unwrap()
        };
        let (a, b) = (open("a"), open("b"));
        let part = |provenance| MergedProvenance {
            n_documents: 0,
            provenance: Some(provenance),
        };
        write_merged(&mut Vec::new(), &[part(&a), part(&a)]).unwrap();
        let err = write_merged(&mut Vec::new(), &[part(&a), part(&b)]).unwrap_err();
        assert!(err.to_string().contains("one more subset"), "{err}");
    }
}
