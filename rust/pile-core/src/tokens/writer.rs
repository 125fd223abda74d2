//! Writing a dataset that survives a killed job: files that grow, and a state with the lengths and checksums of what is
//! finished.
//!
//! The tokens are appended to `NAME.bin` and the other values of the documents to one file per column. After each
//! shard the files are synced and the state is replaced. A job that resumes truncates the files to the state
//! and continues with the next shard: at most the work on one shard is lost, and the bytes are those of an
//! uninterrupted run. At the end the columns become `NAME.idx` and `NAME.provenance`.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{
    BuildConfig, RecordLocation, ShardResult, TokenType,
    idx::{IdxArrays, write_arrays},
    provenance,
};
use crate::{
    Error, Result,
    io::{self, GrowingFile, Mapped, Scratch},
    progress::Progress,
    read::{BadRecords, DEFAULT_MAX_RECORD, Position},
    text::names::too_many_subsets,
};

/// The state of a job, saved after each shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BuildState {
    /// Names the job's settings. Only the same job may resume.
    pub job: String,
    pub n_documents: u64,
    pub n_tokens: u64,
    pub subsets: Vec<SubsetTotal>,
    pub shards: Vec<ShardResult>,
    /// The limit on the length of a record in the last run. Earlier runs had at most this limit.
    #[serde(default = "default_max_record")]
    pub max_record: u64,
}

fn default_max_record() -> u64 {
    DEFAULT_MAX_RECORD
}

/// Totals of one subset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubsetTotal {
    /// `meta.pile_set_name`; `None` for records without one.
    pub name: Option<String>,
    /// Number of documents.
    pub n_documents: u64,
    /// Number of tokens, end-of-document tokens included.
    pub n_tokens: u64,
    /// Bytes of text in UTF-8.
    pub n_text_bytes: u64,
}

/// The value in column `subset` of a document without a subset.
const NO_SUBSET: u16 = u16::MAX;

/// A document to append.
pub(super) struct NewDocument<'a> {
    pub position: Position,
    pub n_tokens: u64,
    pub n_text_bytes: u64,
    pub subset: Option<&'a str>,
}

/// The files of the columns.
const COLUMNS: [&str; 5] = ["lengths", "byte_start", "byte_length", "record", "subset"];

impl BuildState {
    /// Whether the job of `config` may resume from this state. The finished shards must be its first ones,
    /// and reading them again must give the same documents. That is so if no record was skipped and the limit
    /// on their length has not shrunk, or if records may be skipped and the limit is the same: with a larger one, a
    /// skipped record might be read.
    /// [`Scratch::open`] checks that the shards are unchanged.
    fn may_resume(&self, config: &BuildConfig) -> bool {
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

/// Writes the files of a dataset.
pub(super) struct DatasetWriter {
    scratch: Scratch,
    name: String,
    token_type: TokenType,
    pub state: BuildState,
    tokens: GrowingFile,
    columns: [GrowingFile; 5],
}

impl DatasetWriter {
    /// Creates the files, or opens those of the same job to resume it.
    ///
    /// # Errors
    /// The folder holds finished shards of another job, and `config.discard` is off.
    pub fn open(config: &BuildConfig, token_type: TokenType, progress: &Progress) -> Result<Self> {
        let (mut scratch, state) = Scratch::open(
            &config.folder,
            config.discard,
            progress,
            |state: &BuildState| state.may_resume(config),
        )?;
        scratch.declare_inputs(&config.shards);
        let mut state = state.unwrap_or_else(|| BuildState {
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

    /// Appends tokens, in the stored type. [`Self::push_document`] is then called for each of their documents.
    pub fn push_tokens(&mut self, bytes: &[u8]) -> Result<()> {
        self.tokens.push(bytes)
    }

    /// Appends a document of `shard` whose tokens were pushed.
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
                format!("record {record}: {what} more than the format can hold"),
            )
        };
        let length =
            i32::try_from(document.n_tokens).map_err(|_| too_large("its number of tokens is"))?;
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

    /// Counts a document in the totals of its subset, and returns the subset's number.
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
        // The totals may include one of no subset, which has no number.
        let number = subsets[..at].iter().filter(|s| s.name.is_some()).count();
        u16::try_from(number)
            .ok()
            .filter(|number| *number != NO_SUBSET)
            .ok_or_else(|| too_many_subsets(shard))
    }

    /// Saves that a shard is finished. A job that resumes later does not read it again.
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

    /// SHA-256 of the pushed tokens.
    pub fn bin_sha256(&self) -> String {
        self.tokens.sha256()
    }

    /// Writes `NAME.idx` and `NAME.provenance` for the finished `NAME.bin`.
    ///
    /// Nothing is removed, so a job that is killed here resumes with all shards finished.
    pub fn assemble(self) -> Result<BuildState> {
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
            let arrays = IdxArrays {
                n_sequences: n,
                lengths,
                n_documents: n,
                document_ends: 1..=n,
            };
            write_arrays(out, self.token_type, arrays)
        })?;
        let shards = self.state.shards.iter();
        let shards: Vec<String> = shards.map(|shard| shard.path.clone()).collect();
        let subsets = self
            .state
            .subsets
            .iter()
            .filter_map(|s| s.name.clone())
            .collect();
        let location = self.locations()?;
        io::write_atomically(&path(".provenance"), |out| {
            provenance::write_locations(out, &shards, subsets, || (0..n).map(&location).map(Some))
        })?;
        drop(location);
        Ok(self.state)
    }

    /// Returns the location of a document's record from the columns.
    fn locations(&self) -> Result<impl Fn(u64) -> RecordLocation> {
        let [_, starts, byte_lengths, records, subsets] = &self.columns;
        let n = self.state.n_documents;
        let starts = Mapped::open_written(starts.path(), n, 8)?;
        let byte_lengths = Mapped::open_written(byte_lengths.path(), n, 8)?;
        let records = Mapped::open_written(records.path(), n, 4)?;
        let subsets = Mapped::open_written(subsets.path(), n, 2)?;
        let shards = &self.state.shards;
        Ok(move |document| {
            // The last shard with a first document at or before this one. Earlier shards with the same first
            // document are empty.
            let after = shards.partition_point(|shard| shard.first_document <= document);
            let subset = u16::from_le_bytes(item(&subsets, document));
            RecordLocation {
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
