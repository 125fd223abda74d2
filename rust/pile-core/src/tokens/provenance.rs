//! Where each document came from: shard, record, bytes of the record, subset.
//!
//! `PREFIX.provenance`: 8 bytes `PILEPROV`, a u64 with the length of a JSON header (padded with spaces
//! to a multiple of 8), the header, the entries of the documents, and where each block of them starts.
//! The header lists shards and subsets by number. Entries ([`super::origins`]) are variable-length, 3 to
//! 4 bytes as a rule; each block of 64 starts anew, so that one document costs no more than one block.

use std::{
    io::{self, Write},
    path::Path,
};

use serde::{Deserialize, Serialize};

use super::origins::{BLOCK, Decoder, Encoder, Place};
use crate::{Error, Result, io::Mapped};

const MAGIC: &[u8; 8] = b"PILEPROV";
const VERSION: u32 = 2;

/// A shard and the documents among which its own are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardSpan {
    /// The shard's path as it was given.
    pub path: String,
    /// Number of its first document in the dataset.
    pub first_document: u64,
    /// One more than the number of its last; the same as the first one's where it has none.
    pub end_document: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    version: u32,
    n_documents: u64,
    shards: Vec<ShardSpan>,
    subsets: Vec<String>,
}

/// The header of any version.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

/// Where one document came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin<'a> {
    /// The shard's path as it was given.
    pub shard: &'a str,
    /// The record's number in its shard, from 0.
    pub record: u64,
    /// The record's first byte in the decompressed shard.
    pub byte_start: u64,
    /// The record's bytes, line end excluded.
    pub byte_length: u64,
    /// The record's subset, if it names one.
    pub subset: Option<&'a str>,
}

/// Where all documents came from, shards and subsets by number, -1 where there is none or none is known.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct OriginColumns {
    /// Numbers of the shards.
    pub shard: Vec<i32>,
    /// The records' numbers in their shards.
    pub record: Vec<i64>,
    /// The records' first bytes in the decompressed shards.
    pub byte_start: Vec<i64>,
    /// The records' bytes.
    pub byte_length: Vec<i64>,
    /// Numbers of the subsets.
    pub subset: Vec<i32>,
}

/// An opened `.provenance` file.
#[derive(Debug)]
pub struct Provenance {
    file: Mapped,
    header: Header,
    /// Where the entries start, and where they end and the blocks' places start.
    entries: (u64, u64),
}

impl Provenance {
    /// Opens the provenance of a dataset of `n_documents`.
    ///
    /// # Errors
    /// The file cannot be read, is malformed, or is of another number of documents.
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
                "speaks of {} documents, but the dataset has {n_documents}",
                header.n_documents
            );
            return Err(Error::malformed(path, what));
        }
        let spans = header.shards.iter();
        if let Some(bad) = spans
            .clone()
            .find(|s| s.first_document > s.end_document || s.end_document > n_documents)
        {
            let what = format!(
                "says that {} has documents {} to {} of {n_documents}",
                bad.path, bad.first_document, bad.end_document
            );
            return Err(Error::format(path, 16, what));
        }
        let start = 16 + n_header;
        let n_places = n_documents.div_ceil(BLOCK) * 8;
        let end = (file.bytes().len() as u64).checked_sub(n_places);
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
            entries: (start, end),
        })
    }

    /// Documents of the dataset.
    #[must_use]
    pub fn n_documents(&self) -> u64 {
        self.header.n_documents
    }

    /// The shards, and among which documents theirs are.
    #[must_use]
    pub fn shards(&self) -> &[ShardSpan] {
        &self.header.shards
    }

    /// The subsets' names, in order of their first appearance.
    #[must_use]
    pub fn subsets(&self) -> &[String] {
        &self.header.subsets
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
        let mut places = self.places(document, document + 1);
        places.next().unwrap_or(Ok(None))
    }

    /// The places of documents `first` to `end`, the last one excluded, one after the other; nothing
    /// comes after an error.
    pub fn places(&self, first: u64, end: u64) -> impl Iterator<Item = Result<Option<Place>>> {
        let end = end.min(self.header.n_documents);
        let mut next = first - first % BLOCK;
        let mut decoder = Decoder::new(&[]);
        std::iter::from_fn(move || {
            while next < end {
                let place = self.next_place(next, &mut decoder);
                next = if place.is_err() { end } else { next + 1 };
                // What stands before the first in its block is only gone through.
                if next > first || place.is_err() {
                    return Some(place);
                }
            }
            None
        })
    }

    fn next_place<'a>(&'a self, document: u64, decoder: &mut Decoder<'a>) -> Result<Option<Place>> {
        if document.is_multiple_of(BLOCK) {
            *decoder = Decoder::new(self.block(document / BLOCK)?);
        }
        let place = decoder.next().filter(|place| self.is_known(*place));
        place.ok_or_else(|| {
            let what = format!("the entry of document {document} is damaged");
            Error::malformed(self.file.path(), what)
        })
    }

    fn is_known(&self, place: Option<Place>) -> bool {
        place.is_none_or(|place| {
            let subset = place.subset.unwrap_or(0) as usize;
            (place.shard as usize) < self.header.shards.len()
                && (place.subset.is_none() || subset < self.header.subsets.len())
        })
    }

    /// The bytes of the entries from a block's first to the last of all.
    fn block(&self, block: u64) -> Result<&[u8]> {
        let (start, end) = self.entries;
        let at = u64_at(&self.file, end + 8 * block)?;
        let from = start.checked_add(at).filter(|from| *from <= end);
        let Some(from) = from else {
            let what = format!("block {block} starts at byte {at} of {}", end - start);
            return Err(Error::format(self.file.path(), end + 8 * block, what));
        };
        self.file.slice(from, end - from)
    }

    /// The origins of all documents, column by column: 32 bytes a document.
    ///
    /// # Errors
    /// A damaged file.
    pub fn columns(&self) -> Result<OriginColumns> {
        let mut columns = OriginColumns::default();
        for place in self.places(0, self.n_documents()) {
            let place = place?;
            let number = |of: fn(Place) -> u64| place.map_or(-1, |place| of(place) as i64);
            columns.shard.push(number(|p| u64::from(p.shard)) as i32);
            columns.record.push(number(|p| p.record));
            columns.byte_start.push(number(|p| p.byte_start));
            columns.byte_length.push(number(|p| p.byte_length));
            let subset = place.and_then(|place| place.subset);
            columns
                .subset
                .push(subset.map_or(-1, |subset| subset as i32));
        }
        Ok(columns)
    }

    /// Number of a document's subset in [`Self::subsets`].
    ///
    /// # Errors
    /// No such document, or a damaged file.
    pub fn subset_number(&self, document: u64) -> Result<Option<u32>> {
        Ok(self.place(document)?.and_then(|place| place.subset))
    }

    /// Where a document came from; `None` where that is unknown.
    ///
    /// # Errors
    /// No such document, or a damaged file.
    pub fn origin(&self, document: u64) -> Result<Option<Origin<'_>>> {
        let named = |place: Place| Origin {
            shard: &self.header.shards[place.shard as usize].path,
            record: place.record,
            byte_start: place.byte_start,
            byte_length: place.byte_length,
            subset: place
                .subset
                .map(|i| self.header.subsets[i as usize].as_str()),
        };
        Ok(self.place(document)?.map(named))
    }

    /// The documents that came from a record of a shard, by the shard's number. One pass over the
    /// documents among which the shard's are.
    ///
    /// # Errors
    /// No such shard, or a damaged file.
    pub fn documents_of(&self, shard: u32, record: u64) -> Result<Vec<u64>> {
        let Some(span) = self.header.shards.get(shard as usize) else {
            return Err(Error::argument(format!("no shard {shard}")));
        };
        let (first, end) = (span.first_document, span.end_document);
        let mut found = Vec::new();
        for (place, document) in self.places(first, end).zip(first..) {
            if place?.is_some_and(|place| (place.shard, place.record) == (shard, record)) {
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

fn read_header(path: &Path, json: &[u8]) -> Result<Header> {
    let fail = |err: serde_json::Error| Error::format(path, 16, format!("not a header: {err}"));
    let Version { version } = serde_json::from_slice(json).map_err(fail)?;
    if version != VERSION {
        let what = format!(
            "version {version}, expected {VERSION}: of another release of pile-tools; run `tokenize` again \
             with --force, or remove the file to open the dataset without its documents' origins"
        );
        return Err(Error::format(path, 16, what));
    }
    serde_json::from_slice(json).map_err(fail)
}

/// Writes a whole file: `places` are those of all documents in order.
///
/// # Errors
/// What the writer or `places` reports.
pub fn write_provenance(
    out: &mut impl Write,
    n_documents: u64,
    shards: Vec<ShardSpan>,
    subsets: Vec<String>,
    places: impl IntoIterator<Item = Result<Option<Place>>>,
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
    out.write_all(&json)?;
    let (mut encoder, mut entry) = (Encoder::default(), Vec::new());
    let (mut blocks, mut n_bytes) = (Vec::new(), 0_u64);
    for (place, document) in places.into_iter().zip(0_u64..) {
        if document.is_multiple_of(BLOCK) {
            blocks.push(n_bytes);
            encoder = Encoder::default();
        }
        entry.clear();
        encoder.push(place.map_err(io::Error::other)?, &mut entry);
        out.write_all(&entry)?;
        n_bytes += entry.len() as u64;
    }
    blocks
        .iter()
        .try_for_each(|at| out.write_all(&at.to_le_bytes()))
}

/// Writes a whole file. `places`, gone through twice, are those of all documents in order.
///
/// # Errors
/// What the writer reports.
pub(super) fn write_places<I: Iterator<Item = Option<Place>>>(
    out: &mut impl Write,
    shards: &[String],
    subsets: Vec<String>,
    places: impl Fn() -> I,
) -> io::Result<()> {
    let mut spans = vec![(u64::MAX, 0); shards.len()];
    let mut n_documents = 0;
    for place in places() {
        if let Some(place) = place {
            let (first, end) = &mut spans[place.shard as usize];
            *first = n_documents.min(*first);
            *end = n_documents + 1;
        }
        n_documents += 1;
    }
    let mut last_end = 0;
    let spans = spans.into_iter().zip(shards).map(|((first, end), path)| {
        // A shard without documents is where the one before ends.
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
    write_provenance(out, n_documents, spans.collect(), subsets, places().map(Ok))
}

/// Writes the provenance of several datasets' documents, one dataset after the other; each with the
/// number of its documents, which are unknown where it has no provenance.
///
/// # Errors
/// What the writer reports; a damaged file.
pub(super) fn write_merged(
    out: &mut impl Write,
    parts: &[(u64, Option<&Provenance>)],
) -> io::Result<()> {
    let (mut shards, mut subsets, mut n_all) = (Vec::new(), Vec::new(), 0);
    let mut renumbered = Vec::new();
    for (n_documents, part) in parts {
        let first_shard = shards.len() as u32;
        let (part_shards, names) =
            part.map_or((&[][..], &[][..]), |part| (part.shards(), part.subsets()));
        shards.extend(part_shards.iter().map(|s| ShardSpan {
            path: s.path.clone(),
            first_document: n_all + s.first_document,
            end_document: n_all + s.end_document,
        }));
        let names = names.iter();
        let numbers: Vec<u32> = names.map(|name| number_in(&mut subsets, name)).collect();
        renumbered.push((first_shard, numbers));
        n_all += n_documents;
    }
    let places =
        parts
            .iter()
            .zip(&renumbered)
            .flat_map(|((n_documents, part), (first_shard, numbers))| {
                let renumber = |place: Place| Place {
                    shard: *first_shard + place.shard,
                    subset: place.subset.map(|subset| numbers[subset as usize]),
                    ..place
                };
                let known = part.iter().flat_map(|part| part.places(0, u64::MAX));
                let n_unknown = if part.is_some() { 0 } else { *n_documents };
                known
                    .map(move |place| place.map(|place| place.map(renumber)))
                    .chain((0..n_unknown).map(|_| Ok(None)))
            });
    write_provenance(out, n_all, shards, subsets, places)
}

/// The place of a name among those known, added at the end if it is new.
fn number_in(names: &mut Vec<String>, name: &String) -> u32 {
    let at = names.iter().position(|known| known == name);
    at.unwrap_or_else(|| {
        names.push(name.clone());
        names.len() - 1
    }) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Places as they come, in runs: most follow the one before, some are unknown or far away.
    fn arbitrary_places() -> impl Strategy<Value = Vec<Option<Place>>> {
        let far = (0..3_u32, any::<u64>(), any::<u64>(), any::<u64>());
        let step = (0..9_u8, 0..2_000_000_u64, prop::option::of(0..2_u32), far);
        prop::collection::vec(step, 0..300).prop_map(|steps| {
            let mut last = Place::default();
            let next =
                |(kind, byte_length, subset, far): (u8, u64, Option<u32>, (u32, u64, u64, u64))| {
                    let follows = |gap: u64| Place {
                        shard: last.shard,
                        record: last.record.wrapping_add(1),
                        byte_start: last
                            .byte_start
                            .wrapping_add(last.byte_length)
                            .wrapping_add(gap),
                        byte_length,
                        subset,
                    };
                    let place = match kind {
                        0 => return None,
                        1 => Place {
                            shard: far.0,
                            record: far.1,
                            byte_start: far.2,
                            byte_length: far.3,
                            subset,
                        },
                        2 => follows(0),
                        _ => follows(1),
                    };
                    last = place;
                    Some(place)
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

    fn write(path: &Path, places: &[Option<Place>]) -> Provenance {
        let n = places.len() as u64;
        let names = vec!["S".into(), "T".into()];
        let mut bytes = Vec::new();
        write_provenance(
            &mut bytes,
            n,
            shards(n),
            names,
            places.iter().map(|p| Ok(*p)),
        )
        .unwrap();
        std::fs::write(path, bytes).unwrap();
        Provenance::open(path, n).unwrap()
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(places in arbitrary_places()) {
            let folder = tempfile::tempdir().unwrap();
            let opened = write(&folder.path().join("p"), &places);
            let all: Vec<_> = opened.places(0, u64::MAX).map(Result::unwrap).collect();
            prop_assert_eq!(&all, &places);
            for (document, place) in places.iter().enumerate() {
                prop_assert_eq!(opened.place(document as u64).unwrap(), *place);
            }
            prop_assert!(opened.place(places.len() as u64).is_err());
            if let Some((document, Some(place))) = places.iter().enumerate().next_back() {
                let found = opened.documents_of(place.shard, place.record).unwrap();
                prop_assert!(found.contains(&(document as u64)));
            }
        }

        #[test]
        fn merged_documents_keep_their_origins(parts in prop::collection::vec(arbitrary_places(), 1..4)) {
            let folder = tempfile::tempdir().unwrap();
            let open = |(i, places): (usize, &Vec<_>)| write(&folder.path().join(i.to_string()), places);
            let opened: Vec<_> = parts.iter().enumerate().map(open).collect();
            let mut bytes = Vec::new();
            let mut inputs: Vec<_> = opened.iter().map(|p| (p.n_documents(), Some(p))).collect();
            inputs.insert(0, (3, None));
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
    fn shards_say_among_which_documents_theirs_are() {
        let place = |shard| {
            let place = Place {
                shard,
                ..Place::default()
            };
            Some(place)
        };
        let places = [place(2), None, place(0), place(2), None];
        let shards = ["a", "b", "c", "d"].map(String::from);
        let mut bytes = Vec::new();
        write_places(&mut bytes, &shards, vec![], || places.into_iter()).unwrap();
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
    fn records_one_after_the_other_take_few_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let place = |i: u64| Place {
            shard: 2,
            record: i,
            byte_start: 6_001 * i,
            byte_length: 6_000,
            subset: Some(1),
        };
        let path = folder.path().join("p");
        write(
            &path,
            &(0..10_000).map(|i| Some(place(i))).collect::<Vec<_>>(),
        );
        let n_bytes = std::fs::metadata(path).unwrap().len();
        assert!(n_bytes < 45_000, "{n_bytes}");
    }

    #[test]
    fn the_version_before_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p");
        let header = br#"{"version":1,"n_documents":0,"shards":[],"subsets":[]}  "#;
        let length = (header.len() as u64).to_le_bytes();
        std::fs::write(&path, [&MAGIC[..], &length, header].concat()).unwrap();
        let message = Provenance::open(&path, 0).unwrap_err().to_string();
        assert!(message.contains("version 1, expected 2"), "{message}");
    }
}
