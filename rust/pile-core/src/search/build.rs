//! Builds an index one segment at a time. Each segment is sorted in memory, in linear time, and written
//! atomically.
//!
//! The file `ranks` is written last and completes the index. It has the magic `PILERANK`, a header
//! ([`RanksHeader`]) and these arrays:
//! - The ids by rank: i32.
//! - If the bytes of the ids are known: where those of each rank start, then their end, u32; and the bytes.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::Path,
};

use libsais::SuffixArrayConstruction;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    alphabet::{Alphabet, IdCounts},
    file::{VERSION, write_header},
    index::typed_tokens,
    segment::{
        self, PrefixPacking, SAMPLE_STRIDE, SegmentArrays, SegmentHeader, SegmentSpan, SegmentView,
        StoredToken, path_of,
    },
};
use crate::{
    Error, Result,
    io::{Scratch, checksum_of, hex, write_atomically},
    progress::Progress,
    tokenize::TokenBytes,
    tokens::{TokenDataset, TokenSource, TokenType},
};

pub(super) const MAGIC: &[u8; 8] = b"PILERANK";

/// The file that completes an index.
pub(super) const RANKS_FILE: &str = "ranks";

/// Most tokens of a segment: one less than libsais accepts, which sorts with signed 32-bit positions.
const MAX_SEGMENT_TOKENS: u64 = (1 << 31) - 2;

/// The header of the file `ranks`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RanksHeader {
    pub(super) version: u32,
    /// The fingerprint of the dataset.
    pub(super) fingerprint: String,
    /// A digest of everything that makes two indexes differ: the dataset, the order of its ids, and the
    /// segments.
    pub(super) index: String,
    pub(super) n_ids: u64,
    pub(super) has_bytes: bool,
    /// The id that ends every document and occurs nowhere else, if there is one.
    pub(super) end_of_document: Option<i32>,
    pub(super) segments: Vec<SegmentSpan>,
}

impl RanksHeader {
    fn new(
        dataset: &TokenDataset,
        alphabet: &Alphabet,
        counts: &IdCounts,
        segments: Vec<SegmentSpan>,
    ) -> Self {
        let fingerprint = dataset.fingerprint();
        let mut digest = Sha256::new();
        digest.update(fingerprint.as_bytes());
        digest.update(bytemuck::cast_slice::<i32, u8>(alphabet.ids()));
        let (starts, bytes) = alphabet.byte_table();
        digest.update(bytemuck::cast_slice::<u32, u8>(starts));
        digest.update(bytes);
        for segment in &segments {
            digest.update(segment.end_document.to_le_bytes());
        }
        Self {
            version: VERSION,
            fingerprint,
            index: hex(&digest.finalize()),
            n_ids: alphabet.len() as u64,
            has_bytes: alphabet.has_bytes(),
            end_of_document: counts.end_of_document(),
            segments,
        }
    }

    /// The header of a segment's file.
    pub(super) fn segment(&self, number: usize) -> SegmentHeader {
        SegmentHeader::new(
            &self.index,
            number as u64,
            self.segments[number],
            self.n_ids as usize,
            self.end_of_document.is_none(),
        )
    }
}

/// The segments of an index to be built, and the memory and disk that it takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IndexPlan {
    /// The segments; none if the dataset has no tokens.
    pub segments: Vec<SegmentSpan>,
    /// Bytes of memory to sort the largest segment, including its mapped tokens.
    pub memory_bytes: u64,
    /// Bytes of the index on disk, except for the headers and the tables of the ids.
    pub disk_bytes: u64,
}

/// Bytes of memory for each token of a segment that is sorted: the symbol, the entry of the suffix array, and
/// the mapped token. Symbols of u16 tokens take 4 bytes if there are more than 2^16 of them, which needs a
/// large vocabulary and many ids that end documents; the number is known only once the ids are counted.
fn sort_bytes_per_token(token_type: TokenType) -> u64 {
    match token_type {
        TokenType::U16 => 2 + 4 + 2,
        TokenType::I32 => 4 + 4 + 4,
    }
}

/// Bytes on disk of a segment of `n_tokens` tokens: 4 for each entry of the suffix array, an eighth for the
/// samples, and an eighth for the ends of documents.
fn disk_bytes(n_tokens: u64) -> u64 {
    n_tokens * 4 + n_tokens / 4
}

/// Divides a dataset into segments that can be sorted in `memory_bytes`. A document that needs more memory by
/// itself becomes a segment that exceeds `memory_bytes`, as documents are not divided.
///
/// # Errors
/// The documents are not contiguous, or one has more tokens than a segment can hold.
pub fn plan(dataset: &TokenDataset, memory_bytes: u64) -> Result<IndexPlan> {
    dataset.check()?;
    let per_token = sort_bytes_per_token(dataset.token_type());
    let limit = (memory_bytes / per_token).clamp(1, MAX_SEGMENT_TOKENS);
    let mut segments: Vec<SegmentSpan> = Vec::new();
    for document in 0..dataset.n_documents() {
        let range = dataset.token_range(document)?;
        let n_tokens = range.end - range.start;
        if n_tokens > MAX_SEGMENT_TOKENS {
            let what = format!(
                "document {document} has {n_tokens} tokens; an index holds documents of up to \
                 {MAX_SEGMENT_TOKENS} tokens"
            );
            return Err(Error::malformed(dataset.prefix(), what));
        }
        match segments.last_mut() {
            Some(segment) if segment.n_tokens + n_tokens <= limit || n_tokens == 0 => {
                segment.n_tokens += n_tokens;
                segment.end_document += 1;
            }
            _ => segments.push(SegmentSpan {
                first_document: document,
                end_document: document + 1,
                first_token: range.start,
                n_tokens,
            }),
        }
    }
    segments.retain(|segment| segment.n_tokens > 0);
    let sizes = segments.iter().map(|segment| segment.n_tokens);
    Ok(IndexPlan {
        memory_bytes: sizes.clone().max().unwrap_or(0) * per_token,
        disk_bytes: sizes.map(disk_bytes).sum(),
        segments,
    })
}

/// The counts of an index that was built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IndexSummary {
    /// Documents of the dataset.
    pub n_documents: u64,
    /// Tokens of the dataset.
    pub n_tokens: u64,
    /// Distinct ids.
    pub n_ids: u64,
    /// Whether the bytes of the ids are known, so that texts can be searched for.
    pub has_bytes: bool,
    /// The id that ends every document and occurs nowhere else, if there is one.
    pub end_of_document: Option<i32>,
    /// Segments of the index.
    pub n_segments: u64,
    /// Segments that an earlier run had finished.
    pub n_reused: u64,
}

/// The saved state of a build: the digest of the index whose finished segments are in the scratch folder.
#[derive(Serialize, Deserialize)]
struct IndexBuildState {
    index: String,
}

/// Builds the index of a dataset in `folder`. Segments of the same index that an earlier run finished there
/// are reused; if there are none, the folder is cleared. With `discard`, finished work of other jobs is, too.
///
/// With `table`, the bytes of each id, the index also finds texts. Progress counts every token twice: when
/// its id is counted, and when its segment is written.
///
/// # Errors
/// As [`plan`]; or a file cannot be written; or the folder has finished work of another job; or a stop.
pub fn build(
    dataset: &TokenDataset,
    table: Option<&TokenBytes>,
    folder: &Path,
    memory_bytes: u64,
    discard: bool,
    progress: &Progress,
) -> Result<IndexSummary> {
    let plan = plan(dataset, memory_bytes)?;
    let counts = IdCounts::new(dataset)?;
    progress.advance(dataset.n_tokens())?;
    let alphabet = Alphabet::new(&counts.total, table);
    let header = RanksHeader::new(dataset, &alphabet, &counts, plan.segments);
    let symbols = Symbols::new(&alphabet, &counts.as_last);
    // No job can use the segments of another index, so they are discarded.
    let is_of_index = Scratch::saved_state::<IndexBuildState>(folder)?.is_some();
    let may_resume = |state: &IndexBuildState| state.index == header.index;
    let (mut scratch, saved) = Scratch::open(folder, discard || is_of_index, progress, may_resume)?;
    let state = saved.unwrap_or_else(|| IndexBuildState {
        index: header.index.clone(),
    });
    let mut n_reused = 0;
    for (number, span) in header.segments.iter().enumerate() {
        let path = path_of(folder, number);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if scratch.is_finished(&name) {
            n_reused += 1;
        } else {
            let job = SegmentJob {
                dataset,
                alphabet: &alphabet,
                symbols: &symbols,
                span: *span,
            };
            match dataset.token_type() {
                TokenType::U16 => job.run::<u16>(&path, &header.segment(number))?,
                TokenType::I32 => job.run::<i32>(&path, &header.segment(number))?,
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
        end_of_document: header.end_of_document,
        n_segments: header.segments.len() as u64,
        n_reused,
    })
}

fn write_ranks(out: &mut impl Write, header: &RanksHeader, alphabet: &Alphabet) -> io::Result<()> {
    let (starts, bytes) = alphabet.byte_table();
    write_header(out, MAGIC, header)?;
    out.write_all(bytemuck::cast_slice(alphabet.ids()))?;
    out.write_all(bytemuck::cast_slice(starts))?;
    out.write_all(bytes)
}

/// The symbols that libsais sorts in place of tokens.
///
/// The last token of a document has a smaller symbol than the same token elsewhere. A suffix that ends
/// therefore sorts before all longer suffixes that start with it, and no separators between documents are
/// needed. Suffixes that are equal up to their ends are ordered by the documents after them, which is
/// arbitrary but deterministic.
struct Symbols {
    /// The symbol of each rank. One less is the rank's symbol at the end of a document.
    by_rank: Vec<i32>,
}

impl Symbols {
    /// Numbers the symbols densely: only an id that ends a document has two.
    fn new(alphabet: &Alphabet, as_last: &BTreeMap<i32, u64>) -> Self {
        let mut symbol = -1;
        let by_rank = alphabet.ids().iter().map(|id| {
            symbol += if as_last.contains_key(id) { 2 } else { 1 };
            symbol
        });
        Self {
            by_rank: by_rank.collect(),
        }
    }

    /// Number of symbols.
    fn n(&self) -> usize {
        self.by_rank.last().map_or(0, |last| *last as usize + 1)
    }
}

/// A segment to be sorted and written.
struct SegmentJob<'a> {
    dataset: &'a TokenDataset,
    alphabet: &'a Alphabet,
    symbols: &'a Symbols,
    span: SegmentSpan,
}

impl SegmentJob<'_> {
    fn run<T: StoredToken>(&self, path: &Path, header: &SegmentHeader) -> Result<()> {
        let tokens = &*typed_tokens::<T>(self.dataset, self.span.tokens())?;
        let (buckets, document_ends) = (self.buckets(tokens), self.document_ends()?);
        let suffixes = if self.symbols.n() <= 1 << 16 {
            let text: Vec<u16> = self.symbols_of(tokens, &document_ends, |symbol| symbol as u16);
            SuffixArrayConstruction::for_text(&text)
                .in_owned_buffer32()
                .single_threaded()
                .run()
                .map(|sorted| sorted.into_vec())
        } else {
            let mut text: Vec<i32> = self.symbols_of(tokens, &document_ends, |symbol| symbol);
            SuffixArrayConstruction::for_text_mut(&mut text)
                .in_owned_buffer32()
                .single_threaded()
                .run()
                .map(|sorted| sorted.into_vec())
        };
        let suffixes = suffixes.map_err(|err| {
            let what = format!("its suffixes cannot be sorted: {err:?}");
            Error::malformed(self.dataset.prefix(), what)
        })?;
        let view = SegmentView {
            tokens,
            suffixes: bytemuck::cast_slice(&suffixes),
            samples: &[],
            packing: PrefixPacking::new(self.alphabet.len()),
            buckets: &buckets,
            document_ends: Some(&document_ends),
            end_of_document: None,
            alphabet: self.alphabet,
        };
        let sampled = (0..suffixes.len() as u32).step_by(SAMPLE_STRIDE as usize);
        let samples: Vec<u64> = sampled.map(|suffix| view.prefix_key(suffix)).collect();
        let arrays = SegmentArrays {
            buckets: &buckets,
            document_ends: if header.has_ends { &document_ends } else { &[] },
            samples: &samples,
            suffixes: view.suffixes,
        };
        write_atomically(path, |out| segment::write(out, header, &arrays))
    }

    /// The first suffix of each rank, then the number of suffixes.
    fn buckets<T: StoredToken>(&self, tokens: &[T]) -> Vec<u32> {
        let mut buckets = vec![0; self.alphabet.len() + 1];
        for token in tokens {
            buckets[self.rank(*token) as usize + 1] += 1;
        }
        for rank in 1..buckets.len() {
            buckets[rank] += buckets[rank - 1];
        }
        buckets
    }

    /// The rank of a token of the dataset. The alphabet has all of them, unless the dataset changes while it
    /// is read.
    fn rank<T: StoredToken>(&self, token: T) -> u32 {
        self.alphabet.rank(token.id()).unwrap_or_default()
    }

    /// A bit for each token, set if the token is the last of its document.
    fn document_ends(&self) -> Result<Vec<u64>> {
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

    /// The symbol of each token, converted to `S`. `document_ends` has a word for every 64 tokens.
    fn symbols_of<T: StoredToken, S>(
        &self,
        tokens: &[T],
        document_ends: &[u64],
        convert: impl Fn(i32) -> S,
    ) -> Vec<S> {
        let mut symbols = Vec::with_capacity(tokens.len());
        for (word, tokens) in document_ends.iter().zip(tokens.chunks(64)) {
            symbols.extend(tokens.iter().enumerate().map(|(i, token)| {
                let is_last = (word >> i & 1) as i32;
                convert(self.symbols.by_rank[self.rank(*token) as usize] - is_last)
            }));
        }
        symbols
    }
}
