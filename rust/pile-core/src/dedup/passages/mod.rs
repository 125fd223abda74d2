//! Finds repeated passages: all bytes, or tokens, in windows of N that also begin earlier in reading order.
//!
//! Windows do not cross documents. Neither a suffix array of all text nor a record for each byte is needed:
//!
//! 1. `scan`: the anchor of each window is a short string in it that its content determines (see `anchors`). The
//!    hash and position of each anchor, of which there are about two in N / 2 bytes, are sorted by hash on disk.
//! 2. `repeated`: equal windows have equal anchors, so only anchors whose hash occurs twice are retained.
//! 3. `contexts`: a second pass over the shards writes the windows of these, sorted by hash on disk.
//! 4. `groups`: windows of anchors with equal hashes are compared.
//! 5. `output`: the ranges of repeated windows are sorted by position, united, and trimmed to characters.
//!
//! Each step is finished on disk before the next, and the first and third after every few shards, so that an
//! interrupted job resumes. The result does not depend on threads, memory or interruptions.
//!
//! **Memory.** Buffers are shares of the limit; beside them, there are the blocks in flight and the pages of mapped
//! files, which the system may drop. **Disk.** With N = 100, anchors take about half as many bytes as the texts, and
//! contexts about five times the bytes of the text with repeated anchors; a merge needs that much again only for runs
//! beyond the first 256.
//!
//! **Tokens.** Texts are tokenized in both passes. The steps are the same, of ids instead of bytes, up to the last one,
//! which looks up the byte offsets of tokens in a file of the first: see `units`. It takes four bytes for each token.
//!
//! **Periodic text.** A run of one byte is an anchor at each byte. Windows that repeat those one period before are
//! found during the scan and are not written as anchors.

mod anchors;
mod contexts;
mod documents;
mod groups;
mod output;
mod ranges;
mod records;
pub mod reference;
mod repeated;
mod rolling;
mod scan;
mod store;
mod units;

use std::path::{Path, PathBuf};

use serde::Serialize;

use self::{
    store::{FinishedStep, Store},
    units::{ByteSplitter, Unit, UnitSplitter},
};
use super::RecordNumber;
use crate::{Error, Result, io::Mapped, progress::Progress, read::Rules};

pub use output::PASSAGE_COLUMNS;
pub use store::SubsetPassages;
pub use units::{TextTokenizer, TokenSplitter};

/// Minimum length of a window in bytes. Shorter ones have no anchors of a useful length.
pub const MIN_LENGTH: usize = 32;

/// Minimum length of a window in tokens.
pub const MIN_TOKENS: usize = 16;

/// Maximum length of a window in bytes or tokens.
pub const MAX_LENGTH: usize = 1 << 20;

/// The configuration of the job.
#[derive(Debug, Clone)]
pub struct PassagesConfig {
    /// The shards, in reading order.
    pub shards: Vec<PathBuf>,
    /// How they are read.
    pub rules: Rules,
    /// Length of a window in bytes or tokens.
    pub length: usize,
    /// Whether the first copies count as repeated too, as in deduplicate-text-datasets before it spares them.
    pub every_copy: bool,
    /// Memory limit in bytes.
    pub memory: u64,
    /// Number of threads that parse and scan.
    pub n_threads: usize,
    /// Documents of which no passage is reported. Passages of other documents may be copies of theirs.
    pub protected: Vec<RecordNumber>,
    /// Texts whose documents, wherever they are, are protected too.
    pub protected_texts: Vec<String>,
    /// Folder for the files, unfinished and finished.
    pub folder: PathBuf,
    /// Names everything that the result depends on, the tokenizer too, except the shards and the rule for bad records. Unfinished
    /// files are resumed only by a job of the same name.
    pub job: String,
    /// Whether unfinished files of another job in the folder are discarded; otherwise they are an error.
    pub discard: bool,
}

/// What was read and found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PassagesSummary {
    /// Documents, empty ones included.
    pub n_documents: u64,
    /// Bytes of their texts.
    pub n_text_bytes: u64,
    /// Bytes in passages, trimmed to characters.
    pub n_repeated_bytes: u64,
    /// Passages.
    pub n_passages: u64,
    /// Bad records that were skipped.
    pub n_bad_records: u64,
    /// The shards, in order.
    pub shards: Vec<ReadShard>,
    /// Figures by subset, sorted by name. The documents without a subset are last.
    pub subsets: Vec<SubsetPassages>,
}

/// A shard as it was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReadShard {
    /// The path as given.
    pub path: String,
    /// Bytes of the stored file.
    pub bytes: u64,
    /// SHA-256 of the stored file.
    pub sha256: String,
}

/// A repeated passage. Offsets are in bytes of the texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RepeatedPassage {
    /// Number of the document among those of all shards.
    pub document: u64,
    /// Number of the shard.
    pub shard: u64,
    /// Number of the record in the shard.
    pub record: u64,
    /// First byte that is repeated, at the start of a character.
    pub start: u64,
    /// End of the repeated bytes, at the end of a character.
    pub end: u64,
    /// First byte that is repeated, also within a character. Of tokens, `start`.
    pub raw_start: u64,
    /// End of the repeated bytes, also within a character. Of tokens, `end`.
    pub raw_end: u64,
    /// The document in which the window from `raw_start` on first occurs.
    pub copy_document: u64,
    /// Number of its shard.
    pub copy_shard: u64,
    /// Number of its record in the shard.
    pub copy_record: u64,
    /// Where `start` is in that occurrence.
    pub copy_start: u64,
}

/// The passages in reading order, a mapped file for each column.
pub struct Passages {
    columns: Vec<Mapped>,
    n: usize,
}

impl Passages {
    fn open(store: &Store) -> Result<Self> {
        let n = store.state.n_passages;
        let open = |(name, width): &(&str, usize)| {
            Mapped::open_written(&store.scratch.path(name), n, *width as u64)
        };
        Ok(Self {
            columns: PASSAGE_COLUMNS.iter().map(open).collect::<Result<_>>()?,
            n: n as usize,
        })
    }

    /// Number of passages.
    #[must_use]
    pub fn len(&self) -> usize {
        self.n
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.n == 0
    }

    /// The file of each column of [`PASSAGE_COLUMNS`]: little-endian numbers.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.columns.iter().map(Mapped::path)
    }

    /// Iterates over the passages.
    pub fn iter(&self) -> impl Iterator<Item = RepeatedPassage> {
        (0..self.n).map(|index| {
            let mut numbers = self
                .columns
                .iter()
                .zip(PASSAGE_COLUMNS)
                .map(|(file, (_, width))| {
                    let mut number = [0; 8];
                    number[..width].copy_from_slice(&file.bytes()[index * width..][..width]);
                    u64::from_le_bytes(number)
                });
            let mut next = || numbers.next().unwrap_or_default();
            let (document, shard, record, start, end) = (next(), next(), next(), next(), next());
            let (trim_start, trim_end) = (next(), next());
            RepeatedPassage {
                document,
                shard,
                record,
                start,
                end,
                raw_start: start - trim_start,
                raw_end: end + trim_end,
                copy_document: next(),
                copy_shard: next(),
                copy_record: next(),
                copy_start: next(),
            }
        })
    }
}

/// Finds the repeated passages of all documents, or resumes the same job. With `tokens`, windows are of these.
///
/// `progress` advances twice by the bytes of the shards on disk.
///
/// # Errors
/// The length is not between [`MIN_LENGTH`] or [`MIN_TOKENS`] and [`MAX_LENGTH`]; a text cannot be tokenized; a shard is no regular file, cannot be read, or changes
/// between the passes; a protected record has no document; the folder has work of another job; the file system fails;
/// or a stop.
pub fn find_passages(
    config: &PassagesConfig,
    tokens: Option<&dyn TextTokenizer>,
    progress: &Progress,
) -> Result<(Passages, PassagesSummary)> {
    let (min, unit) = match tokens {
        None => (MIN_LENGTH, "bytes"),
        Some(_) => (MIN_TOKENS, "tokens"),
    };
    if !(min..=MAX_LENGTH).contains(&config.length) {
        let what = format!(
            "passages have a minimum length of {min} to {MAX_LENGTH} {unit}, got {}",
            config.length
        );
        return Err(Error::argument(what));
    }
    match tokens {
        None => find_with(config, &|| ByteSplitter, progress),
        Some(tokens) => find_with(config, &|| tokens.splitter(), progress),
    }
}

fn find_with<S: UnitSplitter>(
    config: &PassagesConfig,
    new_splitter: &impl Fn() -> S,
    progress: &Progress,
) -> Result<(Passages, PassagesSummary)> {
    let mut store = Store::open(
        &config.folder,
        &config.job,
        S::Unit::NAME,
        config.discard,
        config.memory,
        progress,
    )?;
    run_steps(
        config,
        new_splitter,
        &mut store,
        progress,
        FinishedStep::Passages,
    )?;
    Ok((Passages::open(&store)?, summary(config, &store)))
}

/// Runs the steps that are not finished, up to `last`.
fn run_steps<S: UnitSplitter>(
    config: &PassagesConfig,
    new_splitter: &impl Fn() -> S,
    store: &mut Store,
    progress: &Progress,
    last: FinishedStep,
) -> Result<()> {
    let is_damaged = store.state.shards.len() > config.shards.len()
        || store.state.n_context_shards > store.state.shards.len();
    // Anyone may have written the state.
    if is_damaged {
        let what = "the state has more shards than the job";
        return Err(Error::malformed(&config.folder, what));
    }
    let of_shards = |n: usize| store.state.shards[..n].iter().map(|shard| shard.bytes);
    let n_read = of_shards(store.state.shards.len()).sum::<u64>()
        + of_shards(store.state.n_context_shards).sum::<u64>();
    progress.advance(n_read)?;
    while store.state.finished < last {
        match store.state.finished {
            FinishedStep::None => scan::scan_shards(config, new_splitter, store, progress)?,
            FinishedStep::Anchors => repeated::find_repeated(store, progress)?,
            FinishedStep::Repeated => {
                contexts::write_contexts(config, new_splitter, store, progress)?
            }
            FinishedStep::Contexts => groups::find_ranges::<S::Unit>(config, store, progress)?,
            FinishedStep::Ranges => output::write_passages(config, store, progress)?,
            FinishedStep::Passages => break,
        }
    }
    Ok(())
}

fn summary(config: &PassagesConfig, store: &Store) -> PassagesSummary {
    let state = &store.state;
    let mut subsets = state.subsets.clone();
    subsets.sort_by(|a, b| (a.name.is_none(), &a.name).cmp(&(b.name.is_none(), &b.name)));
    PassagesSummary {
        n_documents: state.n_documents(),
        n_text_bytes: subsets.iter().map(|subset| subset.n_text_bytes).sum(),
        n_repeated_bytes: subsets.iter().map(|subset| subset.n_repeated_bytes).sum(),
        n_passages: state.n_passages,
        n_bad_records: state.shards.iter().map(|shard| shard.n_bad_records).sum(),
        shards: config
            .shards
            .iter()
            .zip(&state.shards)
            .map(|(path, shard)| ReadShard {
                path: path.to_string_lossy().into_owned(),
                bytes: shard.bytes,
                sha256: shard.sha256.clone(),
            })
            .collect(),
        subsets,
    }
}

#[cfg(test)]
pub(crate) mod tests;
