//! The tokenize job: shards in, a token dataset out, in the order of the shards.
//!
//! The bytes are the same for any number of threads, and for a job that was killed and gone on with.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{
    TokenType,
    parts::{NewDocument, Parts, State, SubsetTotal},
};
use crate::{
    Error, Result,
    progress::Progress,
    read::{BadRecordList, Block, Position, Rules, ShardSummary, Step, map_blocks},
    tokenize::{Encoder, Tokenizer},
};

/// What to make.
#[derive(Debug, Clone)]
pub struct BuildConfig {
    /// The shards, in the order that is to be the dataset's.
    pub shards: Vec<PathBuf>,
    /// How their records are read.
    pub rules: Rules,
    /// Appended to each document.
    pub eod: Option<u32>,
    /// Folder for the unfinished and then the finished files.
    pub folder: PathBuf,
    /// The files are called `NAME.bin`, `NAME.idx`, `NAME.provenance`.
    pub name: String,
    /// Names what the documents' tokens depend on, what becomes of bad records aside: only parts of
    /// the same job are gone on with.
    pub job: String,
    /// The shards are a part of a larger job's: there may be no documents in them.
    pub is_part: bool,
    /// Throw away what another job has finished in the folder, instead of refusing to.
    pub discard: bool,
    /// Threads that encode.
    pub n_threads: usize,
}

/// What became of one shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardResult {
    /// Its path as it was given.
    pub path: String,
    /// Number of its first document in the dataset.
    pub first_document: u64,
    /// Records left out because their text is empty, as GPT-NeoX does.
    pub n_empty: u64,
    /// Lone surrogates in the JSON, which have become U+FFFD.
    pub n_lone_surrogates: u64,
    /// Bad records that were left out.
    pub bad_records: BadRecordList,
    /// Size, checksum and records.
    #[serde(flatten)]
    pub summary: ShardSummary,
}

/// What was made.
#[derive(Debug, Clone, Serialize)]
pub struct BuildSummary {
    /// How tokens are stored, by numpy's name.
    pub dtype: &'static str,
    /// Documents.
    pub n_documents: u64,
    /// Tokens, end-of-document tokens included.
    pub n_tokens: u64,
    /// Shards that an earlier, interrupted run had finished.
    pub n_resumed_shards: usize,
    /// SHA-256 of the `.bin`, taken while it was written.
    pub bin_sha256: String,
    /// By shard.
    pub shards: Vec<ShardResult>,
    /// By subset, in order of first appearance.
    pub subsets: Vec<SubsetTotal>,
}

/// Runs the job, or goes on with it; `progress` advances by compressed bytes, and counts the
/// tokens of this run.
///
/// # Errors
/// The first failure in the order of the data; what was finished is kept for the next run.
pub fn build(
    config: &BuildConfig,
    tokenizer: &Tokenizer,
    progress: &Progress,
) -> Result<BuildSummary> {
    let token_type = TokenType::for_vocabulary(tokenizer.vocab_size());
    if tokenizer.max_id() > token_type.max_id() {
        let what = format!(
            "the tokenizer's largest id, {}, does not fit {}",
            tokenizer.max_id(),
            token_type.name()
        );
        return Err(Error::argument(what));
    }
    let mut parts = Parts::open(config, token_type, progress)?;
    let n_resumed_shards = parts.state.shards.len();
    for shard in &parts.state.shards {
        progress.advance(shard.summary.bytes)?;
    }
    let encoders = (0..config.n_threads.max(1))
        .map(|_| tokenizer.encoder())
        .collect();
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
    let mut writing = Writing {
        config,
        parts: &mut parts,
        left_out: LeftOut::default(),
        first_document: None,
    };
    map_blocks(
        &config.shards,
        &config.rules,
        n_resumed_shards,
        encoders,
        progress,
        encode,
        |step| writing.step(step),
    )?;
    if parts.state.n_documents == 0 && !config.is_part {
        let first = config.shards.first().map_or(Path::new("no shards"), |p| p);
        let shards = parts.state.shards.iter();
        let what = match shards.map(|shard| shard.bad_records.n).sum() {
            0 => "no documents: every shard is empty".to_owned(),
            n_bad => format!("no documents: all records are empty or bad ({n_bad} bad ones)"),
        };
        return Err(Error::malformed(first, what));
    }
    let bin_sha256 = parts.bin_sha256();
    let State {
        n_documents,
        n_tokens,
        shards,
        subsets,
        ..
    } = parts.assemble()?;
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

/// The documents of one block, encoded.
struct Encoded {
    shard: PathBuf,
    tokens: Vec<u8>,
    documents: Vec<Document>,
    /// Different subsets of the documents.
    subsets: Vec<String>,
    left_out: LeftOut,
}

struct Document {
    position: Position,
    n_tokens: u64,
    n_text_bytes: u64,
    /// Number of its subset in the block.
    subset: Option<usize>,
}

/// What is not in the tokens as it was in the records.
#[derive(Default)]
struct LeftOut {
    n_empty: u64,
    n_lone_surrogates: u64,
    bad_records: BadRecordList,
}

fn encode_block(
    block: &Block,
    encoder: &mut Encoder<'_>,
    token_type: TokenType,
    eod: Option<u32>,
) -> Result<Encoded> {
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
        encoder.encode(&document.text, &mut ids);
        ids.extend(eod);
        token_type.encode_all(&ids, &mut tokens);
        documents.push(Document {
            position,
            n_tokens: ids.len() as u64,
            n_text_bytes: document.text.len() as u64,
            subset: document.subset.map(|name| number_of(&name, &mut subsets)),
        });
        Ok(())
    })?;
    Ok(Encoded {
        shard: block.shard_path().to_owned(),
        tokens,
        documents,
        subsets,
        left_out: LeftOut {
            n_empty,
            n_lone_surrogates,
            bad_records,
        },
    })
}

/// Number of a name among those of a block.
fn number_of(name: &str, names: &mut Vec<String>) -> usize {
    names
        .iter()
        .position(|known| known == name)
        .unwrap_or_else(|| {
            names.push(name.to_owned());
            names.len() - 1
        })
}

struct Writing<'a> {
    config: &'a BuildConfig,
    parts: &'a mut Parts,
    /// Of the current shard.
    left_out: LeftOut,
    first_document: Option<u64>,
}

impl Writing<'_> {
    fn step(&mut self, step: Step<Encoded>) -> Result<()> {
        let first_document = *self
            .first_document
            .get_or_insert(self.parts.state.n_documents);
        match step {
            Step::Block(encoded) => self.block(encoded),
            Step::EndOfShard(shard, summary) => {
                let path = self.config.shards[shard].to_string_lossy().into_owned();
                let LeftOut {
                    n_empty,
                    n_lone_surrogates,
                    bad_records,
                } = std::mem::take(&mut self.left_out);
                self.first_document = None;
                self.parts.finish_shard(ShardResult {
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

    fn block(&mut self, encoded: Encoded) -> Result<()> {
        self.left_out.n_empty += encoded.left_out.n_empty;
        self.left_out.n_lone_surrogates += encoded.left_out.n_lone_surrogates;
        let bad_records = encoded.left_out.bad_records;
        self.left_out.bad_records.append(bad_records);
        self.parts.push_tokens(&encoded.tokens)?;
        for document in encoded.documents {
            let new = NewDocument {
                position: document.position,
                n_tokens: document.n_tokens,
                n_text_bytes: document.n_text_bytes,
                subset: document.subset.map(|number| &*encoded.subsets[number]),
            };
            self.parts.push_document(&encoded.shard, new)?;
        }
        Ok(())
    }
}
