//! The label job: where the documents of a dataset came from that was written without provenance.
//!
//! The stored tokens of each document are hashed. Then the shards' texts are tokenized, in order, and
//! looked up: what has a document's hash is compared with it token by token. Memory: 24 bytes a
//! document; the places that were found lie in a file.
//!
//! Where several documents have the same tokens, and as many records: the k-th document came from the
//! k-th record. Where there is one such record, all came from it. Any other number is ambiguous: all
//! are labelled with the first of these records, and counted.

mod index;
#[cfg(test)]
mod tests;

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use serde::Serialize;

use self::index::{Hash, Index};
use super::{
    Place, TokenDataset, TokenSource, TokenType,
    build::{encode_record, encoders},
    provenance,
};
use crate::{
    Error, Result,
    io::{self, Mapped},
    progress::Progress,
    read::{Block, Position, Rules, ShardSummary, Step, map_blocks},
    tokenize::{Encoder, Tokenizer},
};

/// What to label, and by what.
#[derive(Debug, Clone)]
pub struct LabelConfig {
    /// The dataset's path without suffixes.
    pub prefix: PathBuf,
    /// The shards it may have been made from.
    pub shards: Vec<PathBuf>,
    /// How their records are read.
    pub rules: Rules,
    /// Whether the special tokens of the tokenizer's post-processor are around each text.
    pub add_special_tokens: bool,
    /// The token that may end each document.
    pub eod: Option<u32>,
    /// Folder for the unfinished and then the finished file.
    pub folder: PathBuf,
    /// The file is called `NAME.provenance`.
    pub name: String,
    /// Threads that hash and encode.
    pub n_threads: usize,
}

/// One of the shards that were looked through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LabelledShard {
    /// Its path as it was given.
    pub path: String,
    /// Documents of the dataset that are labelled with it.
    pub n_documents: u64,
    /// Size, checksum and records.
    #[serde(flatten)]
    pub summary: ShardSummary,
}

/// Documents labelled with one subset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LabelledSubset {
    /// `meta.pile_set_name`; `None` for records without one.
    pub name: Option<String>,
    /// Documents.
    pub n_documents: u64,
    /// Tokens.
    pub n_tokens: u64,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LabelSummary {
    /// Documents of the dataset.
    pub n_documents: u64,
    /// Tokens of the dataset.
    pub n_tokens: u64,
    /// Whether its documents end with the end-of-document token: more than half do.
    pub has_eod: bool,
    /// Documents whose record was found, the ambiguous included.
    pub n_found: u64,
    /// Of these: told from others of the same tokens by the order alone.
    pub n_by_order: u64,
    /// Of these: labelled with the first of several records that it may be.
    pub n_ambiguous: u64,
    /// Texts in the shards; empty ones are left out, as GPT-NeoX does.
    pub n_texts: u64,
    /// Bad records that were left out.
    pub n_bad_records: u64,
    /// Of these: their tokens are not in the dataset.
    pub n_other_texts: u64,
    /// By shard.
    pub shards: Vec<LabelledShard>,
    /// Of the documents found, by subset, in order of first appearance.
    pub subsets: Vec<LabelledSubset>,
}

/// Writes `NAME.provenance`; `progress` advances by bytes of the `.bin`, then of the shards on disk.
///
/// # Errors
/// The dataset is damaged or of another tokenizer, or the first failure in the order of the shards.
pub fn label(
    config: &LabelConfig,
    tokenizer: &Tokenizer,
    progress: &Progress,
) -> Result<LabelSummary> {
    label_by(config, tokenizer, index::hash, progress)
}

/// A record whose tokens are those of a document.
struct Found {
    /// Slot of the first document with these tokens.
    slot: usize,
    position: Position,
    subset: Option<String>,
}

/// What became of one block.
struct LookedUp {
    found: Vec<Found>,
    n_texts: u64,
    n_bad_records: u64,
}

fn label_by(
    config: &LabelConfig,
    tokenizer: &Tokenizer,
    hash: Hash,
    progress: &Progress,
) -> Result<LabelSummary> {
    let dataset = TokenDataset::open(&config.prefix)?;
    let token_type = dataset.token_type();
    if tokenizer.max_id() > token_type.max_id() {
        let what = format!(
            "stores tokens as {}, but the tokenizer's largest id is {}: it was made with another",
            token_type.name(),
            tokenizer.max_id()
        );
        return Err(Error::malformed(&config.prefix, what));
    }
    let index = Index::new(&dataset, config.eod, config.n_threads, hash, progress)?;
    let eod = config.eod.filter(|_| index.has_eod());
    let encoders = encoders(tokenizer, config.add_special_tokens, config.n_threads)?;
    let path = config.folder.join("places");
    let mut labels = Labels::new(&index, &path)?;
    map_blocks(
        &config.shards,
        &config.rules,
        0,
        encoders,
        progress,
        |encoder, block| look_up(block, encoder, &index, token_type, eod),
        |step| labels.step(step, &config.shards),
    )?;
    let summary = labels.finish(&config.folder.join(format!("{}.provenance", config.name)))?;
    io::remove_if_there(&path)?;
    Ok(summary)
}

fn look_up(
    block: &Block,
    encoder: &mut Encoder<'_>,
    index: &Index<'_>,
    token_type: TokenType,
    eod: Option<u32>,
) -> Result<LookedUp> {
    let (mut found, mut n_texts) = (Vec::new(), 0);
    let (mut ids, mut tokens) = (Vec::new(), Vec::new());
    let bad_records = block.each_document(|position, document| {
        if document.text.is_empty() {
            return Ok(());
        }
        n_texts += 1;
        ids.clear();
        tokens.clear();
        encode_record(encoder, block, position, &document.text, &mut ids)?;
        ids.extend(eod);
        token_type.encode_all(&ids, &mut tokens);
        if let Some(slot) = index.find(&tokens)? {
            found.push(Found {
                slot,
                position,
                subset: document.subset.map(Into::into),
            });
        }
        Ok(())
    })?;
    Ok(LookedUp {
        found,
        n_texts,
        n_bad_records: bad_records.n,
    })
}

/// What is known so far.
struct Labels<'a> {
    index: &'a Index<'a>,
    /// By slot of the first of equal documents: records of theirs, up to one more than there are documents.
    n_records: Vec<u32>,
    /// By document: its place's number in the file, [`NOWHERE`] where it has none yet.
    places: Vec<u32>,
    path: &'a Path,
    out: BufWriter<File>,
    n_places: u32,
    subsets: Vec<String>,
    shards: Vec<LabelledShard>,
    n_texts: u64,
    n_bad_records: u64,
    n_other_texts: u64,
}

const NOWHERE: u32 = u32::MAX;

impl<'a> Labels<'a> {
    fn new(index: &'a Index<'a>, path: &'a Path) -> Result<Self> {
        let file = io::create(path)?;
        Ok(Self {
            index,
            n_records: vec![0; index.n_slots()],
            places: vec![NOWHERE; index.n_slots()],
            path,
            out: BufWriter::with_capacity(1 << 18, file),
            n_places: 0,
            subsets: Vec::new(),
            shards: Vec::new(),
            n_texts: 0,
            n_bad_records: 0,
            n_other_texts: 0,
        })
    }

    fn step(&mut self, step: Step<LookedUp>, shards: &[PathBuf]) -> Result<()> {
        match step {
            Step::Block(block) => {
                self.n_texts += block.n_texts;
                self.n_bad_records += block.n_bad_records;
                self.n_other_texts += block.n_texts - block.found.len() as u64;
                let mut found = block.found.into_iter();
                found.try_for_each(|found| self.take(found))
            }
            Step::EndOfShard(shard, summary) => {
                self.shards.push(LabelledShard {
                    path: shards[shard].to_string_lossy().into_owned(),
                    n_documents: 0,
                    summary,
                });
                Ok(())
            }
        }
    }

    /// Gives the record to the next of the equal documents, if one is left.
    fn take(&mut self, found: Found) -> Result<()> {
        let before = self.n_records[found.slot];
        let n_equal = self.index.n_equal(found.slot);
        self.n_records[found.slot] = n_equal.min(before) + 1;
        if before >= n_equal {
            return Ok(());
        }
        let document = self.index.document(found.slot + before as usize);
        self.places[document as usize] = self.n_places;
        self.n_places += 1;
        let place = self.place(found);
        let written = self.out.write_all(&to_bytes(place));
        written.map_err(|err| Error::io(self.path, err))
    }

    fn place(&mut self, found: Found) -> Place {
        let Position {
            record,
            byte_start,
            byte_length,
        } = found.position;
        let subset = found.subset.map(|name| number_in(&mut self.subsets, name));
        Place {
            shard: self.shards.len() as u32,
            record,
            byte_start,
            byte_length,
            subset,
        }
    }

    /// Settles documents of which there are not as many as records, and counts all.
    fn settle(&mut self) -> LabelSummary {
        let (mut n_found, mut n_by_order, mut n_ambiguous) = (0, 0, 0);
        let mut slot = 0;
        while slot < self.index.n_slots() {
            let (n_records, n_equal) = (self.n_records[slot], self.index.n_equal(slot));
            if n_records != n_equal {
                let first = self.places[self.index.document(slot) as usize];
                for other in slot..slot + n_equal as usize {
                    self.places[self.index.document(other) as usize] = first;
                }
            }
            let n = u64::from(n_equal);
            n_found += n * u64::from(n_records > 0);
            n_by_order += n * u64::from(n_records > 1 && n_records == n_equal);
            n_ambiguous += n * u64::from(n_records > 1 && n_records != n_equal);
            slot += n_equal as usize;
        }
        let dataset = self.index.dataset();
        LabelSummary {
            n_documents: dataset.n_documents(),
            n_tokens: dataset.n_tokens(),
            has_eod: self.index.has_eod(),
            n_found,
            n_by_order,
            n_ambiguous,
            n_texts: self.n_texts,
            n_bad_records: self.n_bad_records,
            n_other_texts: self.n_other_texts,
            shards: std::mem::take(&mut self.shards),
            subsets: Vec::new(),
        }
    }

    /// Writes the provenance.
    fn finish(mut self, provenance: &Path) -> Result<LabelSummary> {
        let mut summary = self.settle();
        self.out.flush().map_err(|err| Error::io(self.path, err))?;
        let file = Mapped::open_written(self.path, self.n_places.into(), PLACE_BYTES as u64)?;
        let place = |number: &u32| {
            let at = *number as usize * PLACE_BYTES;
            (*number != NOWHERE).then(|| from_bytes(&file.bytes()[at..at + PLACE_BYTES]))
        };
        // In the order of the documents, subsets have other numbers than in that of the shards.
        let mut new_numbers: Vec<Option<u32>> = vec![None; self.subsets.len()];
        let mut named = 0;
        let mut totals = Vec::new();
        for (place, document) in self.places.iter().map(place).zip(0..) {
            let Some(place) = place else { continue };
            summary.shards[place.shard as usize].n_documents += 1;
            let n_tokens = self.index.dataset().document_length(document)?;
            let name = place.subset.map(|old| {
                let new = &mut new_numbers[old as usize];
                new.get_or_insert_with(|| {
                    named += 1;
                    named - 1
                });
                &self.subsets[old as usize]
            });
            count(&mut totals, name, n_tokens);
        }
        let names = totals.iter().filter_map(|total| total.name.clone());
        let names: Vec<String> = names.collect();
        summary.subsets = totals;
        let shards: Vec<String> = summary.shards.iter().map(|s| s.path.clone()).collect();
        let renumbered = |number: &u32| {
            let place = place(number)?;
            let subset = place.subset.and_then(|old| new_numbers[old as usize]);
            Some(Place { subset, ..place })
        };
        io::write_atomically(provenance, |out| {
            let places = || self.places.iter().map(renumbered);
            provenance::write_places(out, &shards, names, places)
        })?;
        Ok(summary)
    }
}

/// The place of a name among those known, added at the end if it is new.
fn number_in(names: &mut Vec<String>, name: String) -> u32 {
    let known = names.iter().position(|known| *known == name);
    let number = known.unwrap_or_else(|| {
        names.push(name);
        names.len() - 1
    });
    number as u32
}

fn count(totals: &mut Vec<LabelledSubset>, name: Option<&String>, n_tokens: u64) {
    let known = totals.iter().position(|total| total.name.as_ref() == name);
    let at = known.unwrap_or_else(|| {
        totals.push(LabelledSubset {
            name: name.cloned(),
            n_documents: 0,
            n_tokens: 0,
        });
        totals.len() - 1
    });
    totals[at].n_documents += 1;
    totals[at].n_tokens += n_tokens;
}

/// Bytes of a place in the file of places: five numbers, the subset's plus one.
const PLACE_BYTES: usize = 32;

fn to_bytes(place: Place) -> [u8; PLACE_BYTES] {
    let subset = place.subset.map_or(0, |number| number + 1);
    let numbers = [
        u64::from(place.shard) << 32 | u64::from(subset),
        place.record,
        place.byte_start,
        place.byte_length,
    ];
    let mut bytes = [0; PLACE_BYTES];
    for (to, number) in bytes.chunks_exact_mut(8).zip(numbers) {
        to.copy_from_slice(&number.to_le_bytes());
    }
    bytes
}

fn from_bytes(bytes: &[u8]) -> Place {
    let number = |i: usize| {
        let mut number = [0; 8];
        number.copy_from_slice(&bytes[8 * i..8 * i + 8]);
        u64::from_le_bytes(number)
    };
    Place {
        shard: (number(0) >> 32) as u32,
        subset: (number(0) as u32).checked_sub(1),
        record: number(1),
        byte_start: number(2),
        byte_length: number(3),
    }
}
