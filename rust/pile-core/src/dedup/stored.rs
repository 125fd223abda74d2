//! Stored signatures: what the first pass finds, written once and used by several jobs.
//!
//! A folder has two files for each shard: the rows of its documents (see `SketchRow`), and their signatures, for each
//! document `permutations` numbers of 32 bits. All numbers are little-endian. What else is known of the shards, and the
//! names of the subsets, the caller keeps. Both files come from anywhere: their checksums, sizes and values are checked.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{
    DedupConfig, Normalization, Shingle, SketchedShard,
    config::{SketchConfig, check_permutations},
    documents::{Documents, numbers},
    sketch::{DedupState, PackedRow, rows_name, signatures_name, sketch_shards},
};
use crate::{
    Error, Result,
    io::{Checksum, Mapped, check_mapped},
    progress::Progress,
    read::{Rules, ShardSummary},
};

/// Bytes hashed between two checks for a stop.
const CHUNK_BYTES: usize = 4 << 20;

/// Signatures in a folder, which are used for some of the shards of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSignatures {
    /// The folder.
    pub folder: PathBuf,
    /// The names of the subsets, by the numbers in the rows; `None` for documents without one.
    pub subsets: Vec<Option<String>>,
    /// The shards that they are used for.
    pub shards: Vec<StoredShard>,
}

/// A shard with stored signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredShard {
    /// Index of the shard in the job.
    pub index: usize,
    /// Number of the shard in the folder.
    pub number: usize,
    /// Documents, empty ones included.
    pub n_documents: u64,
    /// Size, checksum and records of the shard.
    pub summary: ShardSummary,
    /// The checksum of the file of rows.
    pub rows_sha256: String,
    /// The checksum of the file of signatures.
    pub signatures_sha256: String,
}

/// The signatures of a shard, if they are stored.
pub(super) type OfShard<'a> = Option<(&'a StoredSignatures, &'a StoredShard)>;

impl StoredSignatures {
    /// The stored signatures of each of `n` shards.
    ///
    /// # Errors
    /// A shard has several, or is none of these.
    pub(super) fn by_shard(stored: &[Self], n: usize) -> Result<Vec<OfShard<'_>>> {
        let mut found = vec![None; n];
        for signatures in stored {
            for shard in &signatures.shards {
                match found.get_mut(shard.index) {
                    Some(free @ None) => *free = Some((signatures, shard)),
                    _ => {
                        let what = format!("stored signatures of shard {} of {n}", shard.index);
                        return Err(Error::argument(format!("{what}, or several of one")));
                    }
                }
            }
        }
        Ok(found)
    }

    /// The path of the signatures of a shard.
    pub(super) fn values(&self, shard: &StoredShard) -> PathBuf {
        self.folder.join(signatures_name(shard.number))
    }

    /// Checks the signatures of a shard by their size and checksum.
    pub(super) fn check_values(
        &self,
        shard: &StoredShard,
        permutations: usize,
        progress: &Progress,
    ) -> Result<()> {
        let width = signature_bytes(permutations);
        let path = self.values(shard);
        open_checked(
            &path,
            shard.n_documents,
            width,
            &shard.signatures_sha256,
            progress,
        )?;
        Ok(())
    }

    /// Maps the rows of a shard, which have the right size and checksum. Their values are not checked.
    pub(super) fn open_rows(&self, shard: &StoredShard, progress: &Progress) -> Result<Mapped> {
        let width = size_of::<PackedRow>() as u64;
        let path = self.folder.join(rows_name(shard.number));
        open_checked(
            &path,
            shard.n_documents,
            width,
            &shard.rows_sha256,
            progress,
        )
    }
}

fn signature_bytes(permutations: usize) -> u64 {
    (permutations * size_of::<u32>()) as u64
}

/// Maps a file of stored signatures.
///
/// # Errors
/// It cannot be read, or has another size or checksum; or a stop.
fn open_checked(
    path: &Path,
    n_documents: u64,
    width: u64,
    sha256: &str,
    progress: &Progress,
) -> Result<Mapped> {
    let file = Mapped::open(path)?;
    let (found, expected) = (file.bytes().len() as u64, n_documents.saturating_mul(width));
    if found != expected {
        let what = format!(
            "has {found} bytes, expected {expected} for {n_documents} documents; make the signatures again"
        );
        return Err(Error::malformed(path, what));
    }
    let mut checksum = Checksum::default();
    for chunk in file.bytes().chunks(CHUNK_BYTES) {
        checksum.update(chunk);
        progress.advance(0)?;
    }
    if checksum.sha256() != sha256 {
        let what = "does not have the checksum in its manifest; make the signatures again";
        return Err(Error::malformed(path, what));
    }
    Ok(file)
}

/// The files of the signatures of all shards of a job.
pub(super) struct SignatureFiles<'a> {
    folder: &'a Path,
    state: &'a DedupState,
    stored: Vec<OfShard<'a>>,
    permutations: usize,
}

impl<'a> SignatureFiles<'a> {
    /// The files after the first pass.
    pub(super) fn of(config: &'a DedupConfig, state: &'a DedupState) -> Result<Self> {
        Ok(Self {
            folder: &config.folder,
            state,
            stored: StoredSignatures::by_shard(&config.stored, config.shards.len())?,
            permutations: config.near.as_ref().map_or(0, |near| near.permutations),
        })
    }

    /// Maps the signatures of a shard.
    pub(super) fn open(&self, shard: usize) -> Result<Mapped> {
        let path = match self.stored[shard] {
            Some((signatures, stored)) => signatures.values(stored),
            None => self.folder.join(signatures_name(shard)),
        };
        let n_documents = self.state.shards[shard].n_documents;
        Mapped::open_written(&path, n_documents, signature_bytes(self.permutations))
    }

    /// Maps the signatures of all shards.
    pub(super) fn open_all(&self) -> Result<DocumentSignatures> {
        let shards = 0..self.state.shards.len();
        Ok(DocumentSignatures {
            permutations: self.permutations,
            files: shards
                .map(|shard| self.open(shard))
                .collect::<Result<_>>()?,
        })
    }
}

/// The signatures of the documents of all shards.
#[derive(Default)]
pub(super) struct DocumentSignatures {
    permutations: usize,
    /// By shard.
    files: Vec<Mapped>,
}

impl DocumentSignatures {
    /// Those that estimates need: of all documents, or none.
    pub(super) fn for_estimates(config: &DedupConfig, state: &DedupState) -> Result<Self> {
        match config.n_estimated() {
            0 => Ok(Self::default()),
            _ => SignatureFiles::of(config, state)?.open_all(),
        }
    }

    /// The signature of a document.
    pub(super) fn get(&self, documents: &Documents, document: u32) -> Result<&[u32]> {
        let shard = documents.shard_of(document);
        let index = u64::from(document - documents.first(shard));
        let start = index * signature_bytes(self.permutations);
        numbers(&self.files[shard], start, self.permutations as u64)
    }
}

/// The settings of [`write_signatures`].
#[derive(Debug, Clone)]
pub struct SignaturesConfig {
    /// The shards, in reading order.
    pub shards: Vec<PathBuf>,
    /// How they are read.
    pub rules: Rules,
    /// The folder for the files, unfinished and finished.
    pub folder: PathBuf,
    /// Names everything that the files depend on. Unfinished ones are resumed only by a job of the same name.
    pub job: String,
    /// Whether unfinished files of another job in the folder are discarded; otherwise they are an error.
    pub discard: bool,
    /// What similarities compare.
    pub shingle: Shingle,
    /// Length of the signatures.
    pub permutations: usize,
    /// What is done to texts first.
    pub normalization: Normalization,
    /// Bytes of memory for the shingles of one document.
    pub memory: u64,
    /// Number of threads. The files do not depend on it.
    pub n_threads: usize,
}

/// Signatures that were written.
#[derive(Debug, Serialize)]
pub struct SignaturesSummary {
    /// Shards that an earlier, interrupted run read.
    pub n_resumed_shards: usize,
    /// By shard.
    pub shards: Vec<SketchedShard>,
    /// The names of the subsets, by the numbers in the rows.
    pub subsets: Vec<Option<String>>,
    /// The files, two for each shard: rows and signatures.
    pub files: Vec<SignaturesFile>,
}

/// A file that was written.
#[derive(Debug, Serialize)]
pub struct SignaturesFile {
    /// Its name in the folder.
    pub name: String,
    /// Its checksum.
    pub sha256: String,
}

/// Writes the signatures of shards into a folder, or resumes the job. `progress` advances by compressed bytes.
///
/// The files are the same for any number of threads and any interruption.
///
/// # Errors
/// A shard is damaged; a bad record that the rules refuse; a document too large for the memory; too many documents or
/// subsets; the folder has work of another job; the file system fails; or a stop.
pub fn write_signatures(
    config: &SignaturesConfig,
    progress: &Progress,
) -> Result<SignaturesSummary> {
    check_permutations(config.permutations)?;
    let (mut scratch, mut state) = DedupState::open(
        &config.folder,
        &config.job,
        config.discard,
        &config.shards,
        progress,
    )?;
    let n_resumed_shards = state.shards.len();
    let sketch = SketchConfig {
        shards: &config.shards,
        rules: &config.rules,
        normalization: config.normalization,
        signature: Some((config.shingle, config.permutations)),
        memory: config.memory,
        n_threads: config.n_threads,
        stored: &[],
        n_absent: 0,
    };
    sketch_shards(sketch, &mut scratch, &mut state, progress)?;
    check_mapped()?;
    let names = (0..state.shards.len()).flat_map(|i| [rows_name(i), signatures_name(i)]);
    let file = |name: String| SignaturesFile {
        sha256: scratch.sha256(&name).unwrap_or_default().to_owned(),
        name,
    };
    Ok(SignaturesSummary {
        n_resumed_shards,
        files: names.map(file).collect(),
        shards: state.shards,
        subsets: state.subsets,
    })
}
