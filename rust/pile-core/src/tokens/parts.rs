//! A dataset in the making: growing column files and a state that says how far they are good.
//!
//! After each shard the files are synced and the state replaced. A killed job cuts the files back
//! to that state and goes on with the next shard, so at most one shard's work is lost and the bytes
//! are those of an uninterrupted run.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{BuildConfig, Place, ShardResult, TokenType, idx::write_arrays, provenance};
use crate::{
    Error, Result,
    io::{self, GrowingFile, Mapped, Scratch},
    progress::Progress,
    read::{BadRecords, DEFAULT_MAX_RECORD, Position},
};

/// How far a job is: written after each shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// What is being made, shards aside. Another job does not go on with these parts.
    pub job: String,
    pub n_documents: u64,
    pub n_tokens: u64,
    pub subsets: Vec<SubsetTotal>,
    pub shards: Vec<ShardResult>,
    /// The longest record that was read, of any of the runs.
    #[serde(default = "default_max_record")]
    pub max_record: u64,
}

fn default_max_record() -> u64 {
    DEFAULT_MAX_RECORD
}

/// Documents and tokens of one subset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubsetTotal {
    /// `meta.pile_set_name`; `None` for records without one.
    pub name: Option<String>,
    /// Documents.
    pub n_documents: u64,
    /// Tokens, end-of-document tokens included.
    pub n_tokens: u64,
    /// Bytes of text, UTF-8.
    pub n_text_bytes: u64,
}

/// The `subset` entry of a document whose record names none.
const NO_SUBSET: u16 = u16::MAX;

/// One document as it is added.
pub(super) struct NewDocument<'a> {
    pub position: Position,
    pub n_tokens: u64,
    pub n_text_bytes: u64,
    pub subset: Option<&'a str>,
}

/// The columns of the documents; tokens grow in `NAME.bin`.
const COLUMNS: [&str; 5] = ["lengths", "byte_start", "byte_length", "record", "subset"];

impl State {
    /// Whether this is a state of the job that `config` describes: its shards are the first ones of the job,
    /// and no record was left out that is to be an error now, or that may not be too long now. Where none was
    /// left out, the limit of a record may have grown. [`Scratch::open`] checks that the shards are unchanged.
    fn is_of(&self, config: &BuildConfig) -> bool {
        let max_record = config.rules.max_record;
        let may_skip =
            config.rules.bad_records == BadRecords::Skip && max_record == self.max_record;
        let is_same = |(done, path): (&ShardResult, &PathBuf)| {
            done.path == path.to_string_lossy() && (may_skip || done.bad_records.n == 0)
        };
        self.job == config.job
            && max_record >= self.max_record
            && self.shards.len() <= config.shards.len()
            && self.shards.iter().zip(&config.shards).all(is_same)
    }
}

/// The unfinished files of a dataset.
pub(super) struct Parts {
    scratch: Scratch,
    name: String,
    token_type: TokenType,
    pub state: State,
    tokens: GrowingFile,
    columns: [GrowingFile; 5],
}

impl Parts {
    /// Opens or creates the files, to go on with what was finished of the same job.
    ///
    /// # Errors
    /// The folder holds finished shards of another job, and `config.discard` is off.
    pub fn open(config: &BuildConfig, token_type: TokenType, progress: &Progress) -> Result<Self> {
        let (mut scratch, state) =
            Scratch::open(&config.folder, config.discard, progress, |state: &State| {
                state.is_of(config)
            })?;
        let mut state = state.unwrap_or_else(|| State {
            job: config.job.clone(),
            n_documents: 0,
            n_tokens: 0,
            subsets: Vec::new(),
            shards: Vec::new(),
            max_record: config.rules.max_record,
        });
        state.max_record = config.rules.max_record;
        let [lengths, start, length, record, subset] = COLUMNS;
        Ok(Self {
            tokens: scratch.grow(&format!("{}.bin", config.name))?,
            columns: [
                scratch.grow(lengths)?,
                scratch.grow(start)?,
                scratch.grow(length)?,
                scratch.grow(record)?,
                scratch.grow(subset)?,
            ],
            name: config.name.clone(),
            scratch,
            token_type,
            state,
        })
    }

    /// Adds tokens of documents to come, in the stored type.
    pub fn push_tokens(&mut self, bytes: &[u8]) -> Result<()> {
        self.tokens.push(bytes)
    }

    /// Adds a document of `shard`, whose tokens were pushed.
    pub fn push_document(&mut self, shard: &Path, document: NewDocument<'_>) -> Result<()> {
        let Position {
            record,
            byte_start,
            byte_length,
        } = document.position;
        let too_large = |what: &str| {
            Error::format(
                shard,
                byte_start,
                format!("record {record}: {what} beyond what the format holds"),
            )
        };
        let length = i32::try_from(document.n_tokens).map_err(|_| too_large("tokens"))?;
        let short_record =
            u32::try_from(record).map_err(|_| too_large("its number in the shard is"))?;
        let subset = self.count_subset(shard, &document)?;
        let [lengths, starts, byte_lengths, records, subsets] = &mut self.columns;
        lengths.push(&length.to_le_bytes())?;
        starts.push(&byte_start.to_le_bytes())?;
        byte_lengths.push(&byte_length.to_le_bytes())?;
        records.push(&short_record.to_le_bytes())?;
        subsets.push(&subset.to_le_bytes())?;
        self.state.n_documents += 1;
        self.state.n_tokens += document.n_tokens;
        Ok(())
    }

    /// The document's subset as a number, its totals counted.
    fn count_subset(&mut self, shard: &Path, document: &NewDocument<'_>) -> Result<u16> {
        let subsets = &mut self.state.subsets;
        let at = subsets
            .iter()
            .position(|s| s.name.as_deref() == document.subset)
            .unwrap_or_else(|| {
                subsets.push(SubsetTotal {
                    name: document.subset.map(str::to_owned),
                    n_documents: 0,
                    n_tokens: 0,
                    n_text_bytes: 0,
                });
                subsets.len() - 1
            });
        let total = &mut subsets[at];
        total.n_documents += 1;
        total.n_tokens += document.n_tokens;
        total.n_text_bytes += document.n_text_bytes;
        if document.subset.is_none() {
            return Ok(NO_SUBSET);
        }
        // Numbers count the named subsets only.
        let number = subsets[..at].iter().filter(|s| s.name.is_some()).count();
        u16::try_from(number)
            .ok()
            .filter(|number| *number != NO_SUBSET)
            .ok_or_else(|| Error::malformed(shard, "more than 65,535 different subsets"))
    }

    /// Records that a shard is finished: from here on a killed job does not do it again.
    pub fn finish_shard(&mut self, shard: ShardResult) -> Result<()> {
        self.scratch
            .use_input(Path::new(&shard.path), &shard.summary.sha256);
        self.state.shards.push(shard);
        self.tokens.finish(&mut self.scratch)?;
        for column in &mut self.columns {
            column.finish(&mut self.scratch)?;
        }
        self.scratch.save(&self.state)
    }

    /// SHA-256 of the tokens pushed.
    pub fn bin_sha256(&self) -> String {
        self.tokens.sha256()
    }

    /// Writes `NAME.idx` and `NAME.provenance` beside the finished `NAME.bin`.
    ///
    /// Nothing is removed: killed here or later, a job finds all its shards finished.
    pub fn assemble(self) -> Result<State> {
        let path = |suffix: &str| self.scratch.path(&format!("{}{suffix}", self.name));
        let n = self.state.n_documents;
        let token_bytes = self.token_type.n_bytes() as u64;
        Mapped::open_written(self.tokens.path(), self.state.n_tokens, token_bytes)?;
        let lengths = Mapped::open_written(self.columns[0].path(), n, 4)?;
        let lengths = lengths
            .bytes()
            .chunks_exact(4)
            .map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        io::write_atomically(&path(".idx"), |out| {
            write_arrays(out, self.token_type, (n, lengths), (n, 1..=n))
        })?;
        let shards = self.state.shards.iter();
        let shards: Vec<String> = shards.map(|shard| shard.path.clone()).collect();
        let subsets = self
            .state
            .subsets
            .iter()
            .filter_map(|s| s.name.clone())
            .collect();
        let place = self.places()?;
        io::write_atomically(&path(".provenance"), |out| {
            provenance::write_places(out, &shards, subsets, || (0..n).map(&place).map(Some))
        })?;
        drop(place);
        Ok(self.state)
    }

    /// Where each document came from, out of its columns.
    fn places(&self) -> Result<impl Fn(u64) -> Place> {
        let [_, starts, byte_lengths, records, subsets] = &self.columns;
        let n = self.state.n_documents;
        let starts = Mapped::open_written(starts.path(), n, 8)?;
        let byte_lengths = Mapped::open_written(byte_lengths.path(), n, 8)?;
        let records = Mapped::open_written(records.path(), n, 4)?;
        let subsets = Mapped::open_written(subsets.path(), n, 2)?;
        let shards = &self.state.shards;
        Ok(move |document| {
            // Of shards with the same first document all but the last are empty.
            let after = shards.partition_point(|shard| shard.first_document <= document);
            let subset = u16::from_le_bytes(item(&subsets, document));
            Place {
                shard: after.saturating_sub(1) as u32,
                record: u64::from(u32::from_le_bytes(item(&records, document))),
                byte_start: u64::from_le_bytes(item(&starts, document)),
                byte_length: u64::from_le_bytes(item(&byte_lengths, document)),
                subset: (subset != NO_SUBSET).then_some(u32::from(subset)),
            }
        })
    }
}

/// An item of a column of `W` bytes each; [`Mapped::open_written`] checked that it has one for each document.
fn item<const W: usize>(column: &Mapped, document: u64) -> [u8; W] {
    let mut item = [0; W];
    item.copy_from_slice(&column.bytes()[document as usize * W..][..W]);
    item
}
