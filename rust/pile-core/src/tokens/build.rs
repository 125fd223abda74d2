//! The tokenize job: shards in, a token dataset out, in the order of the shards.
//!
//! One thread reads and decompresses, `n_threads` parse and encode blocks of lines, the calling
//! thread writes the results in their order. A credit for each block in flight bounds memory. The
//! bytes are the same for any number of threads.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
};

use serde::{Deserialize, Serialize};

use super::{
    TokenType,
    parts::{NewDocument, Parts, State, SubsetTotal},
};
use crate::{
    Error, Result,
    progress::Progress,
    read::{Block, ShardReader, ShardSummary},
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
    /// Names inputs and settings: only parts of the same job are gone on with.
    pub job: String,
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
pub fn build(config: &BuildConfig, tokenizer: &Tokenizer, progress: &Progress) -> Result<BuildSummary> {
    let token_type = TokenType::for_vocabulary(tokenizer.vocab_size());
    if tokenizer.max_id() > token_type.max_id() {
        let what = format!("the tokenizer's largest id, {}, does not fit {}", tokenizer.max_id(), token_type.name());
        return Err(Error::argument(what));
    }
    let mut parts = Parts::open(&config.folder, &config.job, token_type)?;
    let n_resumed_shards = parts.state.shards.len();
    for shard in &parts.state.shards {
        progress.advance(shard.summary.bytes)?;
    }
    run(config, tokenizer, token_type, &mut parts, progress)?;
    if parts.state.n_documents == 0 {
        let first = config.shards.first().map_or(Path::new("no shards"), |p| p);
        return Err(Error::malformed(first, "no documents: every shard is empty"));
    }
    let State { n_documents, n_tokens, shards, subsets, .. } = parts.assemble(&config.name)?;
    Ok(BuildSummary { dtype: token_type.name(), n_documents, n_tokens, n_resumed_shards, shards, subsets })
}

/// What the reader hands out, in order.
enum Piece {
    Block(Block),
    EndOfShard(usize, ShardSummary),
}

/// A piece after the workers.
enum Done {
    Block { path: PathBuf, tokens: Vec<u8>, documents: Vec<NewDocument>, n_empty: u64 },
    EndOfShard(usize, ShardSummary),
}

fn run(
    config: &BuildConfig,
    tokenizer: &Tokenizer,
    token_type: TokenType,
    parts: &mut Parts,
    progress: &Progress,
) -> Result<()> {
    let n_threads = config.n_threads.max(1);
    let first_shard = parts.state.shards.len();
    let (give_credit, credits) = channel();
    for _ in 0..4 * n_threads {
        let _ = give_credit.send(());
    }
    let (send_piece, pieces) = channel();
    let pieces = Mutex::new(pieces);
    let (send_done, done) = channel();
    thread::scope(|scope| {
        let pieces = &pieces;
        let send_failure = send_done.clone();
        scope.spawn(move || {
            let reading = Reading { credits, send_piece, progress, n_pieces: 0 };
            reading.run(&config.shards, first_shard, &send_failure);
        });
        let workers: Vec<_> = (0..n_threads)
            .map(|_| {
                let send_done = send_done.clone();
                scope.spawn(move || encode_pieces(tokenizer, token_type, config.eod, pieces, &send_done))
            })
            .collect();
        drop(send_done);
        // Returning drops credits and results: reader and workers see that and end.
        let written = write_in_order(config, parts, done, give_credit);
        for worker in workers {
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
        written
    })
}

struct Reading<'a> {
    credits: Receiver<()>,
    send_piece: Sender<(u64, Piece)>,
    progress: &'a Progress,
    n_pieces: u64,
}

impl Reading<'_> {
    /// Reads all shards from `first`; a failure takes the place of the piece that could not be read.
    fn run(mut self, shards: &[PathBuf], first: usize, send_failure: &Sender<(u64, Result<Done>)>) {
        for (shard, path) in shards.iter().enumerate().skip(first) {
            if let Err(err) = self.shard(path, shard) {
                let _ = send_failure.send((self.n_pieces, Err(err)));
                return;
            }
        }
    }

    fn shard(&mut self, path: &Path, shard: usize) -> Result<()> {
        let mut reader = ShardReader::open(path, shard)?;
        let mut reported = 0;
        loop {
            let block = reader.next_block()?;
            self.progress.advance(reader.bytes_read() - reported)?;
            reported = reader.bytes_read();
            let Some(block) = block else { break };
            self.send(Piece::Block(block))?;
        }
        self.send(Piece::EndOfShard(shard, reader.summary()))
    }

    /// Waits for room, then hands a piece to the workers; that they are gone is a stop.
    fn send(&mut self, piece: Piece) -> Result<()> {
        self.credits.recv().map_err(|_| Error::cancelled())?;
        self.send_piece.send((self.n_pieces, piece)).map_err(|_| Error::cancelled())?;
        self.n_pieces += 1;
        Ok(())
    }
}

/// Tells the writer that a piece will never come, so that a bug ends the job instead of hanging it.
struct EndOnPanic<'a> {
    number: u64,
    send_done: &'a Sender<(u64, Result<Done>)>,
}

impl Drop for EndOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let _ = self.send_done.send((self.number, Err(Error::cancelled())));
        }
    }
}

fn encode_pieces(
    tokenizer: &Tokenizer,
    token_type: TokenType,
    eod: Option<u32>,
    pieces: &Mutex<Receiver<(u64, Piece)>>,
    send_done: &Sender<(u64, Result<Done>)>,
) {
    let mut encoder = tokenizer.encoder();
    loop {
        let next = match pieces.lock() {
            Ok(pieces) => pieces.recv(),
            Err(_) => return, // another worker panicked; the scope reports it
        };
        let Ok((number, piece)) = next else { return };
        let _panicking = EndOnPanic { number, send_done };
        let done = match piece {
            Piece::Block(block) => encode_block(&block, &mut encoder, token_type, eod),
            Piece::EndOfShard(shard, summary) => Ok(Done::EndOfShard(shard, summary)),
        };
        if send_done.send((number, done)).is_err() {
            return;
        }
    }
}

fn encode_block(block: &Block, encoder: &mut Encoder<'_>, token_type: TokenType, eod: Option<u32>) -> Result<Done> {
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
    Ok(Done::Block { path: block.path().to_owned(), tokens, documents, n_empty })
}

/// Writes pieces as soon as all before them are written.
fn write_in_order(
    config: &BuildConfig,
    parts: &mut Parts,
    done: Receiver<(u64, Result<Done>)>,
    give_credit: Sender<()>,
) -> Result<()> {
    let mut early = BTreeMap::new();
    let mut writing = Writing { config, parts, n_empty: 0, first_document: None };
    let mut next = 0;
    for (number, piece) in done {
        early.insert(number, piece);
        while let Some(piece) = early.remove(&next) {
            writing.piece(piece?)?;
            let _ = give_credit.send(()); // the reader may be at its end
            next += 1;
        }
    }
    Ok(())
}

struct Writing<'a> {
    config: &'a BuildConfig,
    parts: &'a mut Parts,
    /// Of the current shard.
    n_empty: u64,
    first_document: Option<u64>,
}

impl Writing<'_> {
    fn piece(&mut self, piece: Done) -> Result<()> {
        let first_document = *self.first_document.get_or_insert(self.parts.state.n_documents);
        match piece {
            Done::Block { path, tokens, documents, n_empty } => {
                self.n_empty += n_empty;
                self.parts.push_tokens(&tokens)?;
                documents.into_iter().try_for_each(|document| self.parts.push_document(&path, document))
            }
            Done::EndOfShard(shard, summary) => {
                let path = self.config.shards[shard].to_string_lossy().into_owned();
                let n_empty = std::mem::take(&mut self.n_empty);
                self.first_document = None;
                self.parts.finish_shard(ShardResult { path, first_document, n_empty, summary })
            }
        }
    }
}
