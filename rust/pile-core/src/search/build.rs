//! Builds an index, piece by piece: each is sorted in memory in linear time and written whole.
//!
//! The file `ranks` is written last of all: magic `PILERANK`, header ([`RanksHeader`]), the ids by rank, i32; where
//! their bytes are known, where those begin and the last ones end, u32, and the bytes.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::Path,
};

use libsais::SuffixArrayConstruction;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    alphabet::{Alphabet, count_ids},
    file::{VERSION, write_header},
    piece::{self, PieceHeader, PieceSpan, STRIDE, Signs, Token, View, path_of},
};
use crate::{
    Error, Result,
    io::{Scratch, checksum_of, hex, write_atomically},
    progress::Progress,
    tokenize::TokenBytes,
    tokens::{TokenDataset, TokenSource, TokenType},
};

pub(super) const MAGIC: &[u8; 8] = b"PILERANK";

/// The file that makes pieces an index.
pub(super) const RANKS_FILE: &str = "ranks";

/// A suffix array of signed 32-bit places, and the library's own bound.
const MAX_PIECE_TOKENS: u64 = (1 << 31) - 2;

/// What the file `ranks` says of an index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RanksHeader {
    pub(super) version: u32,
    /// The dataset's.
    pub(super) fingerprint: String,
    /// What tells indexes apart: dataset, order of the ids, pieces.
    pub(super) index: String,
    pub(super) n_ids: u64,
    pub(super) has_bytes: bool,
    /// The id in which every document ends and which stands nowhere else.
    pub(super) ends_with: Option<i32>,
    pub(super) pieces: Vec<PieceSpan>,
}

impl RanksHeader {
    pub(super) fn piece(&self, number: usize) -> PieceHeader {
        let n_ids = self.n_ids as usize;
        PieceHeader::new(
            &self.index,
            number as u64,
            self.pieces[number],
            n_ids,
            self.ends_with.is_none(),
        )
    }
}

/// How an index will be built, and what that takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IndexPlan {
    /// The pieces; none where there are no tokens.
    pub pieces: Vec<PieceSpan>,
    /// Memory for the largest piece, its mapped tokens included.
    pub memory_bytes: u64,
    /// Bytes of the index on disk, some kilobytes aside.
    pub disk_bytes: u64,
}

/// Bytes of memory a token takes while its piece is sorted: its symbol, its place among the suffixes, and as it is
/// stored.
fn memory_of(token_type: TokenType) -> u64 {
    match token_type {
        TokenType::U16 => 2 + 4 + 2,
        TokenType::I32 => 4 + 4 + 4,
    }
}

/// Cuts a dataset into pieces that can be sorted in so much memory. A document is not cut: one that is longer than
/// such a piece makes a longer one.
///
/// # Errors
/// Its documents do not lie one after the other, or one is too long for any piece.
pub fn plan(dataset: &TokenDataset, memory_bytes: u64) -> Result<IndexPlan> {
    dataset.check()?;
    let per_token = memory_of(dataset.token_type());
    let limit = (memory_bytes / per_token).clamp(1, MAX_PIECE_TOKENS);
    let mut pieces: Vec<PieceSpan> = Vec::new();
    for document in 0..dataset.n_documents() {
        let range = dataset.token_range(document)?;
        let n_tokens = range.end - range.start;
        if n_tokens > MAX_PIECE_TOKENS {
            let what = format!(
                "document {document} has {n_tokens} tokens, more than an index can hold in a piece"
            );
            return Err(Error::malformed(dataset.prefix(), what));
        }
        match pieces.last_mut() {
            Some(piece) if piece.n_tokens + n_tokens <= limit || n_tokens == 0 => {
                piece.n_tokens += n_tokens;
                piece.end_document += 1;
            }
            _ => pieces.push(PieceSpan {
                first_document: document,
                end_document: document + 1,
                first_token: range.start,
                n_tokens,
            }),
        }
    }
    pieces.retain(|piece| piece.n_tokens > 0);
    let largest = pieces.iter().map(|piece| piece.n_tokens).max().unwrap_or(0);
    Ok(IndexPlan {
        memory_bytes: largest * per_token,
        disk_bytes: pieces
            .iter()
            .map(|piece| piece.n_tokens * 4 + piece.n_tokens / 4)
            .sum(),
        pieces,
    })
}

/// What was built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IndexSummary {
    /// Documents of the dataset.
    pub n_documents: u64,
    /// Its tokens.
    pub n_tokens: u64,
    /// Different ids among them.
    pub n_ids: u64,
    /// Whether texts can be looked for.
    pub has_bytes: bool,
    /// The id in which every document ends and which stands nowhere else.
    pub ends_with: Option<i32>,
    /// Pieces of the index.
    pub n_pieces: u64,
    /// Those of them that were there already.
    pub n_kept: u64,
}

/// Which index the finished pieces in the scratch folder are of.
#[derive(Serialize, Deserialize)]
struct State {
    index: String,
}

/// Builds the index of a dataset in `folder`; pieces of the same index that are there already are kept.
///
/// With `table`, the bytes of each id, texts can be looked for. Progress is in tokens, each counted twice.
///
/// # Errors
/// As [`plan`]; a file cannot be written; a stop.
pub fn build(
    dataset: &TokenDataset,
    table: Option<&TokenBytes>,
    folder: &Path,
    memory_bytes: u64,
    progress: &Progress,
) -> Result<IndexSummary> {
    let plan = plan(dataset, memory_bytes)?;
    let (counts, lasts) = count_ids(dataset)?;
    progress.advance(dataset.n_tokens())?;
    let alphabet = Alphabet::new(&counts, table);
    let header = header(dataset, &alphabet, (&counts, &lasts), plan.pieces);
    let symbols = Symbols::new(&alphabet, &lasts);
    // Pieces of another index are worth nothing to anyone.
    let (mut scratch, kept) = Scratch::open(folder, true, progress, |state: &State| {
        state.index == header.index
    })?;
    let state = kept.unwrap_or_else(|| State {
        index: header.index.clone(),
    });
    let mut n_kept = 0;
    for (number, span) in header.pieces.iter().enumerate() {
        let path = path_of(folder, number);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if scratch.is_finished(&name) {
            n_kept += 1;
        } else {
            let job = Job {
                dataset,
                alphabet: &alphabet,
                symbols: &symbols,
                span: *span,
            };
            let tokens = dataset.bin_bytes();
            match dataset.token_type() {
                TokenType::U16 => job.run::<u16>(tokens, &path, &header.piece(number))?,
                TokenType::I32 => job.run::<i32>(tokens, &path, &header.piece(number))?,
            }
            scratch.finish_file(&name, &checksum_of(&path, progress)?);
            scratch.save(&state)?;
        }
        progress.advance(span.n_tokens)?;
    }
    write_atomically(&folder.join(RANKS_FILE), |out| {
        write_ranks(out, &header, &alphabet)
    })?;
    Ok(IndexSummary {
        n_documents: dataset.n_documents(),
        n_tokens: dataset.n_tokens(),
        n_ids: header.n_ids,
        has_bytes: header.has_bytes,
        ends_with: header.ends_with,
        n_pieces: header.pieces.len() as u64,
        n_kept,
    })
}

fn header(
    dataset: &TokenDataset,
    alphabet: &Alphabet,
    (counts, lasts): (&BTreeMap<i32, u64>, &BTreeMap<i32, u64>),
    pieces: Vec<PieceSpan>,
) -> RanksHeader {
    let fingerprint = dataset.fingerprint();
    let mut digest = Sha256::new();
    digest.update(fingerprint.as_bytes());
    digest.update(bytemuck::cast_slice::<i32, u8>(alphabet.ids()));
    let (starts, bytes) = alphabet.spelling();
    digest.update(bytemuck::cast_slice::<u32, u8>(starts));
    digest.update(bytes);
    for piece in &pieces {
        digest.update(piece.end_document.to_le_bytes());
    }
    let mut ends = lasts.iter();
    let ends_with = match (ends.next(), ends.next()) {
        (Some((id, n)), None) if counts.get(id) == Some(n) => Some(*id),
        _ => None,
    };
    RanksHeader {
        version: VERSION,
        fingerprint,
        index: hex(&digest.finalize()),
        n_ids: alphabet.len() as u64,
        has_bytes: alphabet.has_bytes(),
        ends_with,
        pieces,
    }
}

fn write_ranks(out: &mut impl Write, header: &RanksHeader, alphabet: &Alphabet) -> io::Result<()> {
    let (starts, bytes) = alphabet.spelling();
    write_header(out, MAGIC, header)?;
    out.write_all(bytemuck::cast_slice(alphabet.ids()))?;
    out.write_all(bytemuck::cast_slice(starts))?;
    out.write_all(bytes)
}

/// What stands for a token while suffixes are sorted: a token that ends its document sorts before the same one
/// within, so that suffixes which end lie before those that go on, and no separators are needed.
struct Symbols {
    /// By rank; one less is its symbol at the end of a document.
    within: Vec<i32>,
}

impl Symbols {
    fn new(alphabet: &Alphabet, lasts: &BTreeMap<i32, u64>) -> Self {
        let mut next = -1;
        let within = alphabet.ids().iter().map(|id| {
            next += if lasts.contains_key(id) { 2 } else { 1 };
            next
        });
        Self {
            within: within.collect(),
        }
    }

    fn n(&self) -> usize {
        self.within.last().map_or(0, |last| *last as usize + 1)
    }
}

/// A piece to be sorted and written.
struct Job<'a> {
    dataset: &'a TokenDataset,
    alphabet: &'a Alphabet,
    symbols: &'a Symbols,
    span: PieceSpan,
}

impl Job<'_> {
    fn run<T: Token>(&self, bin: &[u8], path: &Path, header: &PieceHeader) -> Result<()> {
        let tokens = bytemuck::try_cast_slice::<u8, T>(bin)
            .map_err(|err| Error::malformed(self.dataset.prefix(), err.to_string()))?;
        let first = self.span.first_token as usize;
        let tokens = &tokens[first..first + self.span.n_tokens as usize];
        let (buckets, ends) = (self.buckets(tokens), self.ends()?);
        let suffixes = if self.symbols.n() <= 1 << 16 {
            let text: Vec<u16> = self.text(tokens, &ends, |symbol| symbol as u16);
            SuffixArrayConstruction::for_text(&text)
                .in_owned_buffer32()
                .single_threaded()
                .run()
                .map(|sorted| sorted.into_vec())
        } else {
            let mut text: Vec<i32> = self.text(tokens, &ends, |symbol| symbol);
            SuffixArrayConstruction::for_text_mut(&mut text)
                .in_owned_buffer32()
                .single_threaded()
                .run()
                .map(|sorted| sorted.into_vec())
        };
        let suffixes = suffixes.map_err(|err| {
            Error::malformed(
                self.dataset.prefix(),
                format!("its suffixes cannot be sorted: {err:?}"),
            )
        })?;
        let view = View {
            tokens,
            suffixes: bytemuck::cast_slice(&suffixes),
            signs: &[],
            signs_of: Signs::new(self.alphabet.len()),
            buckets: &buckets,
            ends: Some(&ends),
            ends_with: None,
            alphabet: self.alphabet,
        };
        let signed = (0..suffixes.len() as u32).step_by(STRIDE as usize);
        let signs: Vec<u64> = signed.map(|suffix| view.sign(suffix)).collect();
        let written_ends = if header.has_ends { &ends[..] } else { &[] };
        write_atomically(path, |out| {
            piece::write(out, header, &buckets, (written_ends, &signs), view.suffixes)
        })
    }

    /// The first suffix of each rank, and how many there are.
    fn buckets<T: Token>(&self, tokens: &[T]) -> Vec<u32> {
        let mut buckets = vec![0; self.alphabet.len() + 1];
        for token in tokens {
            let rank = self.alphabet.rank(token.id()).unwrap_or_default();
            buckets[rank as usize + 1] += 1;
        }
        for rank in 1..buckets.len() {
            buckets[rank] += buckets[rank - 1];
        }
        buckets
    }

    /// A bit for each token that is its document's last.
    fn ends(&self) -> Result<Vec<u64>> {
        let mut ends = vec![0; self.span.n_tokens.div_ceil(64) as usize];
        for document in self.span.first_document..self.span.end_document {
            let range = self.dataset.token_range(document)?;
            if !range.is_empty() {
                let last = (range.end - 1 - self.span.first_token) as usize;
                ends[last / 64] |= 1 << (last % 64);
            }
        }
        Ok(ends)
    }

    fn text<T: Token, S>(&self, tokens: &[T], ends: &[u64], symbol: impl Fn(i32) -> S) -> Vec<S> {
        let words = ends.iter().zip(tokens.chunks(64));
        let mut text = Vec::with_capacity(tokens.len());
        for (word, tokens) in words {
            text.extend(tokens.iter().enumerate().map(|(i, token)| {
                let rank = self.alphabet.rank(token.id()).unwrap_or_default();
                symbol(self.symbols.within[rank as usize] - (word >> i & 1) as i32)
            }));
        }
        text
    }
}
