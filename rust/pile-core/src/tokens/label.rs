//! The label job: finds the provenance of a dataset that was written without it.
//!
//! The stored tokens of each document are hashed. Then the texts of the shards are tokenized, in order, and
//! looked up by their hash; the tokens of documents with that hash are compared in full. This takes 24 bytes
//! of memory per document: 16 of the index, 4 to count its records and 4 for its label. The locations of the
//! records that match are written to a file.
//!
//! Several documents may have equal tokens, and so may several records. If there are as many such records as
//! documents, the k-th document gets the k-th record. If there is one record, all the documents get it. Any
//! other number is ambiguous: all the documents get the first of the records and are counted as ambiguous.

mod document_index;
#[cfg(test)]
mod tests;

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use serde::Serialize;

use self::document_index::{DocumentIndex, TokenHash};
use super::{
    RecordLocation, TokenDataset, TokenSource, TokenType,
    build::{encode_record, encoders},
    provenance,
};
use crate::{
    Error, Result,
    io::{self, Mapped},
    progress::Progress,
    read::{Block, Position, Rules, ShardSummary, Step, map_blocks},
    text::names::SubsetNames,
    tokenize::{Encoder, Tokenizer},
};

/// The settings of the label job.
#[derive(Debug, Clone)]
pub struct LabelConfig {
    /// Path of the dataset without suffixes.
    pub prefix: PathBuf,
    /// The shards to search.
    pub shards: Vec<PathBuf>,
    /// The rules by which records are read.
    pub rules: Rules,
    /// Whether the tokenizer's post-processor adds its special tokens to each text.
    pub add_special_tokens: bool,
    /// The end-of-document token that the documents may have.
    pub eod: Option<u32>,
    /// Folder for the file, unfinished and finished.
    pub folder: PathBuf,
    /// The file is `NAME.provenance`.
    pub name: String,
    /// Number of threads that hash and encode.
    pub n_threads: usize,
}

/// Figures of one searched shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LabelledShard {
    /// The path as given.
    pub path: String,
    /// Documents labelled with a record of this shard.
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
    /// Number of documents.
    pub n_documents: u64,
    /// Number of tokens.
    pub n_tokens: u64,
}

/// Figures of a labelled dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LabelSummary {
    /// Number of documents of the dataset.
    pub n_documents: u64,
    /// Number of tokens of the dataset.
    pub n_tokens: u64,
    /// Whether its documents end with the end-of-document token, which is decided by majority.
    pub has_eod: bool,
    /// Documents whose record was found, ambiguous ones included.
    pub n_found: u64,
    /// Of these, documents with equal tokens whose records were assigned by their order.
    pub n_by_order: u64,
    /// Of the documents found, those labelled with the first of several possible records.
    pub n_ambiguous: u64,
    /// Texts in the shards, without empty ones, which GPT-NeoX skips.
    pub n_texts: u64,
    /// Bad records, which were skipped.
    pub n_bad_records: u64,
    /// Texts whose tokens are not in the dataset.
    pub n_other_texts: u64,
    /// By shard.
    pub shards: Vec<LabelledShard>,
    /// Of the documents found, by subset, in order of first appearance.
    pub subsets: Vec<LabelledSubset>,
}

/// Runs the job: writes `NAME.provenance`. `progress` advances by bytes of the `.bin`, then by bytes of the
/// shards on disk.
///
/// # Errors
/// A dataset that is damaged or of another tokenizer, or the first failure in the order of the shards.
pub fn label(
    config: &LabelConfig,
    tokenizer: &Tokenizer,
    progress: &Progress,
) -> Result<LabelSummary> {
    label_by(config, tokenizer, document_index::hash, progress)
}

/// A record whose tokens equal those of a document.
struct MatchedRecord {
    /// Slot of the first document with these tokens in the [`DocumentIndex`].
    slot: usize,
    position: Position,
    subset: Option<String>,
}

/// The records of one block that match documents.
struct BlockMatches {
    found: Vec<MatchedRecord>,
    n_texts: u64,
    n_bad_records: u64,
}

fn label_by(
    config: &LabelConfig,
    tokenizer: &Tokenizer,
    hash: TokenHash,
    progress: &Progress,
) -> Result<LabelSummary> {
    // Without its provenance, which is written here: an old one may be damaged.
    let dataset = TokenDataset::open_unlabelled(&config.prefix)?;
    dataset.require_tokens()?;
    let token_type = dataset.token_type();
    if tokenizer.max_id() > token_type.max_id() {
        let what = format!(
            "stores tokens as {}, but the tokenizer's largest id is {}: it was made with another tokenizer",
            token_type.name(),
            tokenizer.max_id()
        );
        return Err(Error::malformed(&config.prefix, what));
    }
    let index = DocumentIndex::new(&dataset, config.eod, config.n_threads, hash, progress)?;
    let eod = config.eod.filter(|_| index.has_eod());
    let encoders = encoders(tokenizer, config.add_special_tokens, config.n_threads)?;
    let path = config.folder.join("locations");
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
    index: &DocumentIndex<'_>,
    token_type: TokenType,
    eod: Option<u32>,
) -> Result<BlockMatches> {
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
            found.push(MatchedRecord {
                slot,
                position,
                subset: document.subset.map(Into::into),
            });
        }
        Ok(())
    })?;
    Ok(BlockMatches {
        found,
        n_texts,
        n_bad_records: bad_records.n,
    })
}

/// The labels found so far.
struct Labels<'a> {
    index: &'a DocumentIndex<'a>,
    /// By slot of the first of equal documents: the number of records with their tokens, or one more than the number
    /// of documents if there are more records, since it then does not matter how many.
    n_records: Vec<u32>,
    /// By document: the index of its record's location in the file, or [`UNLABELLED`].
    location_of: Vec<u32>,
    /// The file of the locations.
    path: &'a Path,
    out: BufWriter<File>,
    n_locations: u32,
    subsets: SubsetNames,
    shards: Vec<LabelledShard>,
    n_texts: u64,
    n_bad_records: u64,
    n_other_texts: u64,
}

/// Not the index of a location: there are at most as many locations as documents, which are fewer than this.
const UNLABELLED: u32 = u32::MAX;

impl<'a> Labels<'a> {
    fn new(index: &'a DocumentIndex<'a>, path: &'a Path) -> Result<Self> {
        let file = io::create(path)?;
        Ok(Self {
            index,
            n_records: vec![0; index.n_slots()],
            location_of: vec![UNLABELLED; index.n_slots()],
            path,
            out: BufWriter::with_capacity(1 << 18, file),
            n_locations: 0,
            subsets: SubsetNames::default(),
            shards: Vec::new(),
            n_texts: 0,
            n_bad_records: 0,
            n_other_texts: 0,
        })
    }

    fn step(&mut self, step: Step<BlockMatches>, shards: &[PathBuf]) -> Result<()> {
        match step {
            Step::Block(block) => {
                self.n_texts += block.n_texts;
                self.n_bad_records += block.n_bad_records;
                self.n_other_texts += block.n_texts - block.found.len() as u64;
                let mut found = block.found.into_iter();
                let shard = &shards[self.shards.len()];
                found.try_for_each(|found| self.assign(found, shard))
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

    /// Assigns a record to the next of the equal documents, unless all have one.
    fn assign(&mut self, found: MatchedRecord, shard: &Path) -> Result<()> {
        let n_before = self.n_records[found.slot];
        let n_equal = self.index.n_equal(found.slot);
        self.n_records[found.slot] = n_equal.min(n_before) + 1;
        if n_before >= n_equal {
            return Ok(());
        }
        let document = self.index.document(found.slot + n_before as usize);
        self.location_of[document as usize] = self.n_locations;
        self.n_locations += 1;
        let location = self.location(found, shard)?;
        let written = self.out.write_all(&to_bytes(location));
        written.map_err(|err| Error::io(self.path, err))
    }

    fn location(&mut self, found: MatchedRecord, shard: &Path) -> Result<RecordLocation> {
        let Position {
            record,
            byte_start,
            byte_length,
        } = found.position;
        let subset = found
            .subset
            .map(|name| self.subsets.number(&name, shard))
            .transpose()?;
        Ok(RecordLocation {
            shard: self.shards.len() as u32,
            record,
            byte_start,
            byte_length,
            subset,
        })
    }

    /// Gives the first record to equal documents that are not as many as their records, and counts all documents.
    fn resolve(&mut self) -> LabelSummary {
        let (mut n_found, mut n_by_order, mut n_ambiguous) = (0, 0, 0);
        let mut slot = 0;
        while slot < self.index.n_slots() {
            let (n_records, n_equal) = (self.n_records[slot], self.index.n_equal(slot));
            if n_records != n_equal {
                let first = self.location_of[self.index.document(slot) as usize];
                for other in slot..slot + n_equal as usize {
                    self.location_of[self.index.document(other) as usize] = first;
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
        let mut summary = self.resolve();
        self.out.flush().map_err(|err| Error::io(self.path, err))?;
        let n_bytes = LOCATION_BYTES as u64;
        let file = Mapped::open_written(self.path, self.n_locations.into(), n_bytes)?;
        let location = |number: &u32| {
            let at = *number as usize * LOCATION_BYTES;
            (*number != UNLABELLED).then(|| from_bytes(&file.bytes()[at..at + LOCATION_BYTES]))
        };
        // Subsets were numbered as they appear in the shards; the file numbers them as they appear in the
        // documents, as the tokenize job does.
        let subsets = self.subsets.into_names();
        let mut new_numbers: Vec<Option<u32>> = vec![None; subsets.len()];
        let mut n_named = 0;
        let mut totals = Vec::new();
        for (location, document) in self.location_of.iter().map(location).zip(0..) {
            let Some(location) = location else {
                continue;
            };
            summary.shards[location.shard as usize].n_documents += 1;
            let n_tokens = self.index.dataset().document_length(document)?;
            let name = location.subset.map(|old| {
                let new = &mut new_numbers[old as usize];
                new.get_or_insert_with(|| {
                    n_named += 1;
                    n_named - 1
                });
                &subsets[old as usize]
            });
            count(&mut totals, name, n_tokens);
        }
        let names = totals.iter().filter_map(|total| total.name.clone());
        let names: Vec<String> = names.collect();
        summary.subsets = totals;
        let shards: Vec<String> = summary.shards.iter().map(|s| s.path.clone()).collect();
        let renumbered = |number: &u32| {
            let location = location(number)?;
            let subset = location.subset.and_then(|old| new_numbers[old as usize]);
            Some(RecordLocation { subset, ..location })
        };
        io::write_atomically(provenance, |out| {
            let locations = || self.location_of.iter().map(renumbered);
            provenance::write_locations(out, &shards, names, locations)
        })?;
        Ok(summary)
    }
}

/// Adds a document to the totals of its subset.
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

/// Bytes of a location in the file of locations.
const LOCATION_BYTES: usize = 32;

/// Packs a location. Shard and subset share eight bytes; the subset is stored plus one, 0 being none.
fn to_bytes(location: RecordLocation) -> [u8; LOCATION_BYTES] {
    let subset = location.subset.map_or(0, |number| number + 1);
    let numbers = [
        u64::from(location.shard) << 32 | u64::from(subset),
        location.record,
        location.byte_start,
        location.byte_length,
    ];
    let mut bytes = [0; LOCATION_BYTES];
    for (to, number) in bytes.chunks_exact_mut(8).zip(numbers) {
        to.copy_from_slice(&number.to_le_bytes());
    }
    bytes
}

fn from_bytes(bytes: &[u8]) -> RecordLocation {
    let number = |i: usize| {
        let mut number = [0; 8];
        number.copy_from_slice(&bytes[8 * i..8 * i + 8]);
        u64::from_le_bytes(number)
    };
    RecordLocation {
        shard: (number(0) >> 32) as u32,
        subset: (number(0) as u32).checked_sub(1),
        record: number(1),
        byte_start: number(2),
        byte_length: number(3),
    }
}
