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
    read::{Block, ShardSummary, Step, map_blocks},
    tokenize::{Encoder, Tokenizer},
};

/// What to make.
#[derive(Debug, Clone)]
pub struct BuildConfig {
    /// The shards, in the order that is to be the dataset's.
    pub shards: Vec<PathBuf>,
    /// Appended to each document.
    pub eod: Option<u32>,
    /// Folder for the unfinished and then the finished files.
    pub folder: PathBuf,
    /// The files are called `NAME.bin`, `NAME.idx`, `NAME.provenance`.
    pub name: String,
    /// Names what the documents' tokens depend on: only parts of the same job are gone on with.
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
    /// By shard.
    pub shards: Vec<ShardResult>,
    /// By subset, in order of first appearance.
    pub subsets: Vec<SubsetTotal>,
}

/// Runs the job, or goes on with it; `progress` advances by compressed bytes.
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
    let mut parts = Parts::open(config, token_type)?;
    let n_resumed_shards = parts.state.shards.len();
    for shard in &parts.state.shards {
        progress.advance(shard.summary.bytes)?;
    }
    let encoders = (0..config.n_threads.max(1))
        .map(|_| tokenizer.encoder())
        .collect();
    let encode = |encoder: &mut Encoder<'_>, block: &Block| {
        encode_block(block, encoder, token_type, config.eod)
    };
    let mut writing = Writing {
        config,
        parts: &mut parts,
        n_empty: 0,
        first_document: None,
    };
    map_blocks(
        &config.shards,
        n_resumed_shards,
        encoders,
        progress,
        encode,
        |step| writing.step(step),
    )?;
    if parts.state.n_documents == 0 && !config.is_part {
        let first = config.shards.first().map_or(Path::new("no shards"), |p| p);
        return Err(Error::malformed(
            first,
            "no documents: every shard is empty",
        ));
    }
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
        shards,
        subsets,
    })
}

/// The documents of one block, encoded.
struct Encoded {
    shard: PathBuf,
    tokens: Vec<u8>,
    documents: Vec<NewDocument>,
    n_empty: u64,
}

fn encode_block(
    block: &Block,
    encoder: &mut Encoder<'_>,
    token_type: TokenType,
    eod: Option<u32>,
) -> Result<Encoded> {
    let (mut tokens, mut documents, mut n_empty) = (Vec::new(), Vec::new(), 0);
    let mut ids = Vec::new();
    for document in block.documents() {
        let (position, document) = document?;
        if document.text.is_empty() {
            n_empty += 1;
            continue;
        }
        ids.clear();
        encoder.encode(&document.text, &mut ids);
        ids.extend(eod);
        for id in &ids {
            token_type.encode(*id, &mut tokens);
        }
        documents.push(NewDocument {
            position,
            n_tokens: ids.len() as u64,
            n_text_bytes: document.text.len() as u64,
            subset: document.subset.map(Into::into),
        });
    }
    Ok(Encoded {
        shard: block.shard_path().to_owned(),
        tokens,
        documents,
        n_empty,
    })
}

struct Writing<'a> {
    config: &'a BuildConfig,
    parts: &'a mut Parts,
    /// Of the current shard.
    n_empty: u64,
    first_document: Option<u64>,
}

impl Writing<'_> {
    fn step(&mut self, step: Step<Encoded>) -> Result<()> {
        let first_document = *self
            .first_document
            .get_or_insert(self.parts.state.n_documents);
        match step {
            Step::Block(Encoded {
                shard,
                tokens,
                documents,
                n_empty,
            }) => {
                self.n_empty += n_empty;
                self.parts.push_tokens(&tokens)?;
                documents
                    .into_iter()
                    .try_for_each(|document| self.parts.push_document(&shard, document))
            }
            Step::EndOfShard(shard, summary) => {
                let path = self.config.shards[shard].to_string_lossy().into_owned();
                let n_empty = std::mem::take(&mut self.n_empty);
                self.first_document = None;
                self.parts.finish_shard(ShardResult {
                    path,
                    first_document,
                    n_empty,
                    summary,
                })
            }
        }
    }
}
