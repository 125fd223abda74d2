//! The tokenize job: encodes the records of shards into a token dataset, in their order.
//!
//! The bytes are the same for any number of threads, and for a job that was killed and resumed.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{
    TokenType,
    writer::{BuildState, DatasetWriter, NewDocument, SubsetTotal},
};
use crate::{
    Error, Result,
    progress::Progress,
    read::{BadRecordList, Block, Position, Rules, ShardSummary, Step, map_blocks},
    text::names::number_of,
    tokenize::{Encoder, Tokenizer},
};

/// The settings of the tokenize job.
#[derive(Debug, Clone)]
pub struct BuildConfig {
    /// The shards, in the order of the dataset.
    pub shards: Vec<PathBuf>,
    /// The rules by which records are read.
    pub rules: Rules,
    /// Whether the tokenizer's post-processor adds its special tokens to each text.
    pub add_special_tokens: bool,
    /// The end-of-document token, appended to each document.
    pub eod: Option<u32>,
    /// Folder for the files, unfinished and finished.
    pub folder: PathBuf,
    /// The files are `NAME.bin`, `NAME.idx` and `NAME.provenance`.
    pub name: String,
    /// Names everything that the tokens depend on, except the rule for bad records. Unfinished files are
    /// resumed only by a job of the same name.
    pub job: String,
    /// Whether the shards are a part of a larger job's, so that they may have no documents.
    pub is_part: bool,
    /// Whether unfinished files of another job in the folder are discarded; otherwise they are an error.
    pub discard: bool,
    /// Number of threads that encode.
    pub n_threads: usize,
}

/// Figures of one shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardResult {
    /// The path as given.
    pub path: String,
    /// Number of its first document in the dataset.
    pub first_document: u64,
    /// Records without text, which are skipped as GPT-NeoX skips them.
    pub n_empty: u64,
    /// Lone surrogates in the JSON, which were replaced by U+FFFD.
    pub n_lone_surrogates: u64,
    /// Bad records, which were skipped.
    pub bad_records: BadRecordList,
    /// Size, checksum and records.
    #[serde(flatten)]
    pub summary: ShardSummary,
}

/// Figures of a finished dataset.
#[derive(Debug, Clone, Serialize)]
pub struct BuildSummary {
    /// numpy's name of the type of the tokens.
    pub dtype: &'static str,
    /// Number of documents.
    pub n_documents: u64,
    /// Number of tokens, end-of-document tokens included.
    pub n_tokens: u64,
    /// Shards that an earlier, interrupted run finished.
    pub n_resumed_shards: usize,
    /// SHA-256 of the `.bin`, computed as it was written.
    pub bin_sha256: String,
    /// By shard.
    pub shards: Vec<ShardResult>,
    /// By subset, in order of first appearance.
    pub subsets: Vec<SubsetTotal>,
}

/// Runs the job or resumes it. `progress` advances by compressed bytes and counts the tokens of this run.
///
/// # Errors
/// The first failure in the order of the data. Finished shards are kept for the next run.
pub fn build(
    config: &BuildConfig,
    tokenizer: &Tokenizer,
    progress: &Progress,
) -> Result<BuildSummary> {
    let token_type = TokenType::for_vocabulary(tokenizer.vocab_size(), tokenizer.max_id());
    let mut writer = DatasetWriter::open(config, token_type, progress)?;
    let n_resumed_shards = writer.state.shards.len();
    for shard in &writer.state.shards {
        progress.advance(shard.summary.bytes)?;
    }
    let encoders = encoders(tokenizer, config.add_special_tokens, config.n_threads)?;
    let encode = |encoder: &mut Encoder<'_>, block: &Block| {
        let encoded = encode_block(block, encoder, token_type, config.eod)?;
        progress.add_tokens(
            encoded
                .documents
                .iter()
                .map(|document| document.n_tokens)
                .sum(),
        );
        Ok(encoded)
    };
    let mut assembly = ShardAssembly {
        config,
        writer: &mut writer,
        counts: RecordCounts::default(),
        first_document: None,
    };
    map_blocks(
        &config.shards,
        &config.rules,
        n_resumed_shards,
        encoders,
        progress,
        encode,
        |step| assembly.step(step),
    )?;
    if writer.state.n_documents == 0 && !config.is_part {
        let first = config.shards.first().map_or(Path::new("no shards"), |p| p);
        let shards = writer.state.shards.iter();
        let what = match shards.map(|shard| shard.bad_records.n).sum() {
            0 => "no documents: the shards have no text".to_owned(),
            n_bad => format!("no documents: all records are empty or bad ({n_bad} bad ones)"),
        };
        return Err(Error::malformed(first, what));
    }
    let bin_sha256 = writer.bin_sha256();
    let BuildState {
        n_documents,
        n_tokens,
        shards,
        subsets,
        ..
    } = writer.assemble()?;
    Ok(BuildSummary {
        dtype: token_type.name(),
        n_documents,
        n_tokens,
        n_resumed_shards,
        bin_sha256,
        shards,
        subsets,
    })
}

/// One encoder for each thread.
pub(super) fn encoders(
    tokenizer: &Tokenizer,
    add_special_tokens: bool,
    n_threads: usize,
) -> Result<Vec<Encoder<'_>>> {
    let encoder = |_| match add_special_tokens {
        true => tokenizer.encoder_with_special_tokens(),
        false => Ok(tokenizer.encoder()),
    };
    (0..n_threads.max(1)).map(encoder).collect()
}

/// Appends the ids of a record's text to `ids`. An error names the record.
pub(super) fn encode_record(
    encoder: &mut Encoder<'_>,
    block: &Block,
    position: Position,
    text: &str,
    ids: &mut Vec<u32>,
) -> Result<()> {
    encoder.encode(text, ids).map_err(|err| {
        let what = format!("record {}: {err}", position.record);
        Error::format(block.shard_path(), position.byte_start, what)
    })
}

/// The encoded documents of one block.
struct EncodedBlock {
    shard: PathBuf,
    tokens: Vec<u8>,
    documents: Vec<EncodedDocument>,
    /// The distinct subsets of the documents.
    subsets: Vec<String>,
    counts: RecordCounts,
}

struct EncodedDocument {
    position: Position,
    n_tokens: u64,
    n_text_bytes: u64,
    /// Index in the subsets of the block.
    subset: Option<usize>,
}

/// Records that were skipped, and characters that were replaced.
#[derive(Default)]
struct RecordCounts {
    n_empty: u64,
    n_lone_surrogates: u64,
    bad_records: BadRecordList,
}

fn encode_block(
    block: &Block,
    encoder: &mut Encoder<'_>,
    token_type: TokenType,
    eod: Option<u32>,
) -> Result<EncodedBlock> {
    let mut tokens = Vec::new();
    let (mut documents, mut subsets) = (Vec::new(), Vec::new());
    let (mut n_empty, mut n_lone_surrogates) = (0, 0);
    let mut ids = Vec::new();
    let bad_records = block.each_document(|position, document| {
        if document.text.is_empty() {
            n_empty += 1;
            return Ok(());
        }
        n_lone_surrogates += document.n_lone_surrogates;
        ids.clear();
        encode_record(encoder, block, position, &document.text, &mut ids)?;
        ids.extend(eod);
        token_type.encode_all(&ids, &mut tokens);
        documents.push(EncodedDocument {
            position,
            n_tokens: ids.len() as u64,
            n_text_bytes: document.text.len() as u64,
            subset: document.subset.map(|name| number_of(&name, &mut subsets)),
        });
        Ok(())
    })?;
    Ok(EncodedBlock {
        shard: block.shard_path().to_owned(),
        tokens,
        documents,
        subsets,
        counts: RecordCounts {
            n_empty,
            n_lone_surrogates,
            bad_records,
        },
    })
}

/// Writes the encoded blocks, and joins the counts of a shard's blocks.
struct ShardAssembly<'a> {
    config: &'a BuildConfig,
    writer: &'a mut DatasetWriter,
    /// Counts of the current shard so far.
    counts: RecordCounts,
    /// Number of the current shard's first document; `None` before its first step.
    first_document: Option<u64>,
}

impl ShardAssembly<'_> {
    fn step(&mut self, step: Step<EncodedBlock>) -> Result<()> {
        let first_document = *self
            .first_document
            .get_or_insert(self.writer.state.n_documents);
        match step {
            Step::Block(encoded) => self.block(encoded),
            Step::EndOfShard(shard, summary) => {
                let path = self.config.shards[shard].to_string_lossy().into_owned();
                let RecordCounts {
                    n_empty,
                    n_lone_surrogates,
                    bad_records,
                } = std::mem::take(&mut self.counts);
                self.first_document = None;
                self.writer.finish_shard(ShardResult {
                    path,
                    first_document,
                    n_empty,
                    n_lone_surrogates,
                    bad_records,
                    summary,
                })
            }
        }
    }

    fn block(&mut self, encoded: EncodedBlock) -> Result<()> {
        self.counts.n_empty += encoded.counts.n_empty;
        self.counts.n_lone_surrogates += encoded.counts.n_lone_surrogates;
        let bad_records = encoded.counts.bad_records;
        self.counts.bad_records.append(bad_records);
        self.writer.push_tokens(&encoded.tokens)?;
        for document in encoded.documents {
            let new = NewDocument {
                position: document.position,
                n_tokens: document.n_tokens,
                n_text_bytes: document.n_text_bytes,
                subset: document.subset.map(|number| &*encoded.subsets[number]),
            };
            self.writer.push_document(&encoded.shard, new)?;
        }
        Ok(())
    }
}
