//! The first pass: a row of fixed size for each document, and its signature.

use std::path::{Path, PathBuf};

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    DedupConfig, Normalization, Shingle, Shingler,
    config::{SketchConfig, check_permutations},
    documents::numbers,
    minhash::MinHash,
    normalize::normalized,
    stored::{StoredShard, StoredSignatures},
};
use crate::{
    Error, Result,
    io::{GrowingFile, Scratch},
    progress::Progress,
    read::{BadRecordList, Block, Position, ShardSummary, Step, map_blocks},
    text::names::{MAX_SUBSETS, number_of, too_many_subsets},
};

/// Least bytes of the shingles of one document that the memory limit allows.
const MIN_SHINGLE_BYTES: u64 = 64 << 20;

/// A document in the file of its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SketchRow {
    /// The first 128 bits of the SHA-256 of the normalized text.
    pub(super) hash: u128,
    /// Bytes of the text, before normalization.
    pub(super) n_bytes: u64,
    /// Number of the record in its shard.
    pub(super) record: u64,
    /// Index of the subset.
    pub(super) subset: u32,
    /// Shingles, repeated ones included; 0 if only exact duplicates are found.
    pub(super) n_shingles: u32,
}

/// A row on disk.
pub(super) type PackedRow = [u64; 5];

impl SketchRow {
    fn pack(&self) -> PackedRow {
        let numbers = u64::from(self.subset) << 32 | u64::from(self.n_shingles);
        let (high, low) = ((self.hash >> 64) as u64, self.hash as u64);
        [high, low, self.n_bytes, self.record, numbers]
    }

    pub(super) fn unpack([high, low, n_bytes, record, numbers]: PackedRow) -> Self {
        Self {
            hash: u128::from(high) << 64 | u128::from(low),
            n_bytes,
            record,
            subset: (numbers >> 32) as u32,
            n_shingles: numbers as u32,
        }
    }
}

/// The name of the file with the rows of a shard's documents.
pub(super) fn rows_name(shard: usize) -> String {
    format!("rows-{shard:06}")
}

/// The name of the file with the signatures of a shard's documents.
pub(super) fn signatures_name(shard: usize) -> String {
    format!("signatures-{shard:06}")
}

/// Figures of a shard that was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SketchedShard {
    /// The path as given.
    pub path: String,
    /// Documents, empty ones included.
    pub n_documents: u64,
    /// Lone surrogates in the JSON, which are compared as U+FFFD.
    pub n_lone_surrogates: u64,
    /// Bad records, which were skipped.
    pub bad_records: BadRecordList,
    /// Size, checksum and records.
    #[serde(flatten)]
    pub summary: ShardSummary,
}

/// The state of a job, which is saved after each shard of each pass.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct DedupState {
    pub(super) job: String,
    /// Those that the first pass has read.
    pub(super) shards: Vec<SketchedShard>,
    /// The names of the subsets, in order of first appearance; `None` for documents without one.
    pub(super) subsets: Vec<Option<String>>,
    /// Indices of the shards that the second pass has read.
    pub(super) spilled: Vec<usize>,
}

impl DedupState {
    /// The state of a job that has read all shards once, as it was saved.
    ///
    /// # Errors
    /// The job's folder has none; or the file system fails.
    pub(super) fn saved(config: &DedupConfig) -> Result<Self> {
        let found = Scratch::saved_state::<Self>(&config.folder)?;
        found
            .filter(|state| state.job == config.job && state.shards.len() == config.shards.len())
            .ok_or_else(|| {
                let what = "has no state of this job: another process changed it";
                Error::malformed(&config.folder, what)
            })
    }

    /// Opens the scratch folder of a job over `shards`, and its state: the saved one, or that of a job that has read
    /// nothing. `progress` advances by the shards that an earlier run has read.
    ///
    /// # Errors
    /// The folder has work of another job and `discard` is off; the file system fails; or a stop.
    pub(super) fn open(
        folder: &Path,
        job: &str,
        discard: bool,
        shards: &[PathBuf],
        progress: &Progress,
    ) -> Result<(Scratch, Self)> {
        let may_resume = |state: &Self| state.job == job && state.shards.len() <= shards.len();
        // Of the same request with other signatures: no command resumes it, so it is discarded.
        let is_of_request = Scratch::saved_state::<Self>(folder)?
            .is_some_and(|state| state.job != job && request_of(&state.job) == request_of(job));
        let discard = discard || is_of_request;
        let (mut scratch, saved) = Scratch::open(folder, discard, progress, may_resume)?;
        let state = saved.unwrap_or_else(|| Self {
            job: job.to_owned(),
            ..Self::default()
        });
        scratch.declare_inputs(shards);
        for shard in &state.shards {
            progress.advance(shard.summary.bytes)?;
        }
        Ok((scratch, state))
    }
}

/// The part of a job's name that names the request.
fn request_of(job: &str) -> &str {
    job.split_once('.').map_or(job, |(request, _)| request)
}

/// Computes the shingles and signatures of texts. Its buffers are reused.
#[derive(Debug, Clone)]
pub struct TextSketcher {
    normalization: Normalization,
    shingler: Shingler,
    minhash: MinHash,
}

impl TextSketcher {
    /// A sketcher with signatures of `permutations` numbers.
    ///
    /// # Errors
    /// No permutations, or more than 4,096.
    pub fn new(
        permutations: usize,
        shingle: Shingle,
        normalization: Normalization,
    ) -> Result<Self> {
        check_permutations(permutations)?;
        Ok(Self {
            normalization,
            shingler: Shingler::new(shingle),
            minhash: MinHash::new(permutations),
        })
    }

    /// Length of the signatures.
    #[must_use]
    pub fn permutations(&self) -> usize {
        self.minhash.permutations()
    }

    /// Appends the signature of a text. It is all `u32::MAX` if the text is shorter than a shingle.
    pub fn append_signature(&mut self, text: &str, signature: &mut Vec<u32>) {
        let text = normalized(text, self.normalization);
        let shingles = self.shingler.all(&text);
        self.minhash.append(shingles, signature);
    }
}

/// The sketches of a block's documents.
struct SketchedBlock {
    rows: Vec<SketchRow>,
    signatures: Vec<u32>,
    /// The distinct subsets of the documents. The rows have their indices plus 1, or 0 for no subset.
    subsets: Vec<String>,
    n_lone_surrogates: u64,
    bad_records: BadRecordList,
}

/// A worker of the first pass.
struct Sketcher<'a> {
    config: SketchConfig<'a>,
    near: Option<(Shingler, MinHash)>,
}

impl<'a> Sketcher<'a> {
    fn new(config: SketchConfig<'a>) -> Self {
        let parts = |(shingle, permutations)| (Shingler::new(shingle), MinHash::new(permutations));
        Self {
            config,
            near: config.signature.map(parts),
        }
    }

    fn sketch(&mut self, block: &Block) -> Result<SketchedBlock> {
        let (mut rows, mut signatures, mut subsets) = (Vec::new(), Vec::new(), Vec::new());
        let mut n_lone_surrogates = 0;
        let bad_records = block.each_document(|position, document| {
            n_lone_surrogates += document.n_lone_surrogates;
            let text = normalized(&document.text, self.config.normalization);
            let mut n_shingles = 0;
            if let Some((shingler, minhash)) = &mut self.near {
                check_length(shingler, &text, self.config.memory, block, position)?;
                let shingles = shingler.all(&text);
                n_shingles = shingles.len() as u32;
                minhash.append(shingles, &mut signatures);
            }
            let subset = document.subset.map(|name| number_of(&name, &mut subsets));
            rows.push(SketchRow {
                hash: text_hash(&text),
                n_bytes: document.text.len() as u64,
                record: position.record,
                subset: subset.map_or(0, |subset| subset as u32 + 1),
                n_shingles,
            });
            Ok(())
        })?;
        Ok(SketchedBlock {
            rows,
            signatures,
            subsets,
            n_lone_surrogates,
            bad_records,
        })
    }
}

/// The first 128 bits of a text's SHA-256: nobody can make two texts that share it to have one removed.
pub(super) fn text_hash(text: &str) -> u128 {
    let hash = Sha256::digest(text.as_bytes());
    hash[..16]
        .iter()
        .fold(0, |number, byte| number << 8 | u128::from(*byte))
}

/// Fails if the shingles of a document may not fit the memory.
fn check_length(
    shingler: &Shingler,
    text: &str,
    memory: u64,
    block: &Block,
    position: Position,
) -> Result<()> {
    let n_shingles = shingler.max_shingles(text.len());
    let n_bytes = n_shingles * size_of::<u64>() as u64;
    if n_bytes <= memory.max(MIN_SHINGLE_BYTES) && n_shingles <= u32::MAX.into() {
        return Ok(());
    }
    let what = format!(
        "record {}: its text of {} bytes may need {} MiB for its shingles: allow more memory, or a lower max-record",
        position.record,
        text.len(),
        n_bytes.div_ceil(1 << 20)
    );
    let path = block.shard_path();
    Err(Error::format(path, position.byte_start, what))
}

/// Reads the shards that the state does not have yet, or takes over their stored signatures, and saves the state after
/// each.
pub(super) fn sketch_shards(
    config: SketchConfig<'_>,
    scratch: &mut Scratch,
    state: &mut DedupState,
    progress: &Progress,
) -> Result<()> {
    let stored = StoredSignatures::by_shard(config.stored, config.shards.len())?;
    let mut writer = SketchWriter {
        config,
        numbers: SketchSubsets::new(&state.subsets),
        n_documents: state.shards.iter().map(|shard| shard.n_documents).sum(),
        scratch,
        state,
        shard: None,
    };
    let workers = (0..config.n_threads.max(1)).map(|_| Sketcher::new(config));
    let mut workers: Vec<_> = workers.collect();
    while let Some(next) = stored.get(writer.state.shards.len()) {
        if let Some((signatures, shard)) = next {
            writer.take_over(signatures, shard, progress)?;
            continue;
        }
        let first = writer.state.shards.len();
        let end = first
            + stored[first..]
                .iter()
                .take_while(|found| found.is_none())
                .count();
        workers = map_blocks(
            &config.shards[..end],
            config.rules,
            first,
            workers,
            progress,
            Sketcher::sketch,
            |step| match step {
                Step::Block(block) => writer.add(block),
                Step::EndOfShard(shard, summary) => writer.finish(shard, summary),
            },
        )?;
    }
    Ok(())
}

/// The index of each subset's name in the state.
struct SketchSubsets(FxHashMap<Option<String>, u32>);

impl SketchSubsets {
    fn new(names: &[Option<String>]) -> Self {
        Self(names.iter().cloned().zip(0..).collect())
    }

    fn number(
        &mut self,
        name: Option<&str>,
        names: &mut Vec<Option<String>>,
        shard: &Path,
    ) -> Result<u32> {
        let name = name.map(str::to_owned);
        if let Some(number) = self.0.get(&name) {
            return Ok(*number);
        }
        // One of the names is that of no subset.
        if names.len() > MAX_SUBSETS {
            return Err(too_many_subsets(shard));
        }
        let number = names.len() as u32;
        names.push(name.clone());
        self.0.insert(name, number);
        Ok(number)
    }
}

/// Writes the sketches of blocks, in the order of the data.
struct SketchWriter<'a> {
    config: SketchConfig<'a>,
    scratch: &'a mut Scratch,
    state: &'a mut DedupState,
    numbers: SketchSubsets,
    /// Documents of all shards so far.
    n_documents: u64,
    /// The shard that is being read; `None` before its first step.
    shard: Option<ShardSketch>,
}

/// The unfinished files of a shard, and its counts so far.
struct ShardSketch {
    rows: GrowingFile,
    signatures: GrowingFile,
    n_documents: u64,
    n_lone_surrogates: u64,
    bad_records: BadRecordList,
}

impl ShardSketch {
    fn open(shard: usize, scratch: &mut Scratch) -> Result<Self> {
        Ok(Self {
            rows: scratch.grow(&rows_name(shard))?,
            signatures: scratch.grow(&signatures_name(shard))?,
            n_documents: 0,
            n_lone_surrogates: 0,
            bad_records: BadRecordList::default(),
        })
    }
}

impl SketchWriter<'_> {
    fn open_shard(&mut self) -> Result<ShardSketch> {
        match self.shard.take() {
            Some(shard) => Ok(shard),
            None => ShardSketch::open(self.state.shards.len(), self.scratch),
        }
    }

    fn add(&mut self, block: SketchedBlock) -> Result<()> {
        let mut shard = self.open_shard()?;
        // The number of each of the block's subsets, once a document has it.
        let mut known = vec![None; block.subsets.len() + 1];
        for row in &block.rows {
            let index = row.subset as usize;
            let subset = match known[index] {
                Some(number) => number,
                None => {
                    let name = index.checked_sub(1).map(|index| &*block.subsets[index]);
                    let path = &self.config.shards[self.state.shards.len()];
                    self.numbers.number(name, &mut self.state.subsets, path)?
                }
            };
            known[index] = Some(subset);
            let row = SketchRow { subset, ..*row };
            shard.rows.push(bytemuck::cast_slice(&row.pack()))?;
        }
        shard
            .signatures
            .push(bytemuck::cast_slice(&block.signatures))?;
        shard.n_documents += block.rows.len() as u64;
        shard.n_lone_surrogates += block.n_lone_surrogates;
        shard.bad_records.append(block.bad_records);
        self.shard = Some(shard);
        self.count(block.rows.len() as u64)
    }

    /// Counts documents, which have 32-bit numbers.
    fn count(&mut self, n_documents: u64) -> Result<()> {
        self.n_documents = self.n_documents.saturating_add(n_documents);
        if self.n_documents >= u64::from(u32::MAX) {
            return Err(Error::argument(
                "the shards have more than 4,294,967,294 documents, the limit of one job",
            ));
        }
        Ok(())
    }

    /// Copies the stored rows of the next shard, with this job's numbers of subsets. Its signatures stay where they are.
    fn take_over(
        &mut self,
        signatures: &StoredSignatures,
        stored: &StoredShard,
        progress: &Progress,
    ) -> Result<()> {
        let index = self.state.shards.len();
        self.count(stored.n_documents)?;
        let permutations = self.config.signature.map_or(0, |(_, n)| n);
        signatures.check_values(stored, permutations, progress)?;
        let mapped = signatures.open_rows(stored, progress)?;
        let rows: &[PackedRow] = numbers(&mapped, 0, stored.n_documents)?;
        let mut shard = self.open_shard()?;
        let mut subsets = vec![None; signatures.subsets.len()];
        let mut next_record = 0;
        for (i, row) in (0_u64..).zip(rows) {
            let row = SketchRow::unpack(*row);
            let refuse = |what: String| {
                let byte = i * size_of::<PackedRow>() as u64;
                Err(Error::format(mapped.path(), byte, what))
            };
            if !(next_record..stored.summary.n_records).contains(&row.record) {
                return refuse(format!(
                    "record {} of document {i}, expected one from {next_record} to below {}",
                    row.record, stored.summary.n_records
                ));
            }
            next_record = row.record + 1;
            if row.n_bytes > self.config.rules.max_record {
                let limit = self.config.rules.max_record;
                return refuse(format!(
                    "document {i} has a text of {} bytes, but a record has at most {limit}",
                    row.n_bytes
                ));
            }
            let Some(known) = subsets.get_mut(row.subset as usize) else {
                let n_subsets = signatures.subsets.len();
                return refuse(format!(
                    "subset {} of document {i}, but there are {n_subsets}",
                    row.subset
                ));
            };
            let subset = match *known {
                Some(number) => number,
                None => {
                    let name = signatures.subsets[row.subset as usize].as_deref();
                    let path = &self.config.shards[index];
                    self.numbers.number(name, &mut self.state.subsets, path)?
                }
            };
            *known = Some(subset);
            let row = SketchRow { subset, ..row };
            shard.rows.push(bytemuck::cast_slice(&row.pack()))?;
        }
        shard.n_documents = stored.n_documents;
        self.shard = Some(shard);
        self.scratch
            .use_input(&signatures.values(stored), &stored.signatures_sha256);
        progress.advance(stored.summary.bytes)?;
        self.finish(index, stored.summary.clone())
    }

    fn finish(&mut self, shard: usize, summary: ShardSummary) -> Result<()> {
        let mut sketch = self.open_shard()?;
        sketch.rows.finish(self.scratch)?;
        sketch.signatures.finish(self.scratch)?;
        let path: &Path = &self.config.shards[shard];
        if shard >= self.config.n_absent {
            self.scratch.use_input(path, &summary.sha256);
        }
        self.state.shards.push(SketchedShard {
            path: path.to_string_lossy().into_owned(),
            n_documents: sketch.n_documents,
            n_lone_surrogates: sketch.n_lone_surrogates,
            bad_records: sketch.bad_records,
            summary,
        });
        self.scratch.save(&self.state)
    }
}
