//! A segment of the index: the sorted suffixes of consecutive documents.
//!
//! Terms used throughout the search modules:
//! - A *position* is the index of a token within its segment.
//! - A *suffix* is named by its index in sorted order; the suffix array maps it to the position of its first
//!   token. A suffix ends where its document ends.
//! - A *rank* is the index of a token id in the [`Alphabet`], and suffixes are sorted by the ranks of their
//!   tokens.
//! - A *depth* is a number of tokens from the start of a suffix.
//!
//! The file `segment-000NN` has the magic `PILESUFF`, a header ([`SegmentHeader`]) and these arrays:
//! - For each rank, the first suffix that starts with it, then the number of suffixes: u32, padded to 8
//!   bytes.
//! - A bit for each token, set if the token is the last of its document: u64. The array is absent if an id
//!   marks the ends of documents.
//! - The prefix keys of every 64th suffix (see [`PrefixPacking`]): u64.
//! - The suffix array: u32.

use std::{
    io::{self, Write},
    ops::Range,
    path::{Path, PathBuf},
};

use bytemuck::Pod;
use serde::{Deserialize, Serialize};

use super::{
    alphabet::Alphabet,
    file::{VERSION, array, read_header, write_header},
};
use crate::{Error, Result, io::Mapped};

const MAGIC: &[u8; 8] = b"PILESUFF";

/// Every suffix whose index is a multiple of this has its prefix key in the samples. 8 bytes for 64 suffixes
/// add 1/8 byte a token to the index.
pub(super) const SAMPLE_STRIDE: u32 = 64;

/// Most ranks in a prefix key. With 4,096 ids or more, a fifth one does not fit into 64 bits; with fewer ids, longer
/// keys rarely tell two sampled suffixes apart.
const MAX_KEY_TOKENS: u32 = 4;

/// The documents and tokens of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentSpan {
    /// The first document.
    pub first_document: u64,
    /// One past the last document.
    pub end_document: u64,
    /// The first token, counted from the start of the dataset.
    pub first_token: u64,
    /// Number of tokens, below 2^31.
    pub n_tokens: u64,
}

impl SegmentSpan {
    /// The tokens of the segment, counted from the start of the dataset.
    pub(super) fn tokens(&self) -> Range<u64> {
        self.first_token..self.first_token + self.n_tokens
    }
}

/// The header of a segment's file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SegmentHeader {
    pub(super) version: u32,
    /// The digest of the index that the segment belongs to.
    pub(super) index: String,
    pub(super) number: u64,
    pub(super) span: SegmentSpan,
    pub(super) n_ids: u64,
    /// Whether the file has a bit for each token that is the last of its document.
    pub(super) has_ends: bool,
}

impl SegmentHeader {
    pub(super) fn new(
        index: &str,
        number: u64,
        span: SegmentSpan,
        n_ids: usize,
        has_ends: bool,
    ) -> Self {
        Self {
            version: VERSION,
            index: index.to_owned(),
            number,
            span,
            n_ids: n_ids as u64,
            has_ends,
        }
    }
}

/// The path of a segment's file in the folder of the index.
pub(super) fn path_of(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("segment-{number:05}"))
}

/// The arrays of a segment's file, as the module documentation describes them.
pub(super) struct SegmentArrays<'a> {
    pub(super) buckets: &'a [u32],
    /// Empty if the header says that there are none.
    pub(super) document_ends: &'a [u64],
    pub(super) samples: &'a [u64],
    pub(super) suffixes: &'a [u32],
}

/// Writes the file of a segment.
pub(super) fn write(
    out: &mut impl Write,
    header: &SegmentHeader,
    arrays: &SegmentArrays<'_>,
) -> io::Result<()> {
    write_header(out, MAGIC, header)?;
    out.write_all(bytemuck::cast_slice(arrays.buckets))?;
    if arrays.buckets.len() % 2 == 1 {
        out.write_all(&[0; 4])?;
    }
    out.write_all(bytemuck::cast_slice(arrays.document_ends))?;
    out.write_all(bytemuck::cast_slice(arrays.samples))?;
    out.write_all(bytemuck::cast_slice(arrays.suffixes))
}

/// Number of sampled suffixes of a segment.
fn n_samples(n_tokens: u64) -> u64 {
    n_tokens.div_ceil(SAMPLE_STRIDE.into())
}

/// How a prefix key packs ranks into a u64.
///
/// A key holds the ranks of the tokens after a suffix's first token, at most [`MAX_KEY_TOKENS`] and as many
/// as fit. Each is stored as rank + 1, the first one in the highest bits, and 0 where the document has ended.
/// Keys of suffixes with the same first token are therefore in the order of the suffixes.
#[derive(Debug, Clone, Copy)]
pub(super) struct PrefixPacking {
    /// Bits of a rank.
    n_bits: u32,
    /// Ranks in a key.
    pub(super) n_tokens: usize,
}

impl PrefixPacking {
    /// Packs ranks of an alphabet of `n_ids` ids.
    pub(super) fn new(n_ids: usize) -> Self {
        // The largest stored value is rank + 1 = n_ids.
        let n_bits = usize::BITS - n_ids.max(1).leading_zeros();
        Self {
            n_bits,
            n_tokens: (u64::BITS / n_bits).min(MAX_KEY_TOKENS) as usize,
        }
    }

    /// Number of bits below those of the first `n` ranks.
    pub(super) fn n_bits_after(self, n: usize) -> u32 {
        self.n_bits * self.n_tokens.saturating_sub(n) as u32
    }

    /// The key of at most [`Self::n_tokens`] ranks after which the document ends.
    pub(super) fn key(self, ranks: impl Iterator<Item = u32>) -> u64 {
        let shifted = |(i, rank): (usize, u32)| (u64::from(rank) + 1) << self.n_bits_after(i + 1);
        ranks.enumerate().map(shifted).sum()
    }
}

/// The opened file of a segment.
#[derive(Debug)]
pub(super) struct Segment {
    file: Mapped,
    pub(super) span: SegmentSpan,
    n_ids: u64,
    // Byte offsets of the arrays in the file.
    buckets_at: u64,
    document_ends_at: Option<u64>,
    samples_at: u64,
    suffixes_at: u64,
}

impl Segment {
    /// Opens a segment's file, whose header must be `expected`.
    ///
    /// # Errors
    /// The file is missing, truncated, damaged, or part of another index.
    pub(super) fn open(path: &Path, expected: &SegmentHeader) -> Result<Self> {
        let file = Mapped::open(path)?;
        let (header, buckets_at): (SegmentHeader, u64) = read_header(&file, MAGIC)?;
        if header != *expected {
            let what = "is part of another index than the files beside it; build the index anew";
            return Err(Error::malformed(path, what));
        }
        let n_buckets = header.n_ids + 1;
        let document_ends_at = buckets_at + n_buckets.next_multiple_of(2) * 4;
        let n_tokens = header.span.n_tokens;
        let n_end_words = if header.has_ends {
            n_tokens.div_ceil(64)
        } else {
            0
        };
        let samples_at = document_ends_at + n_end_words * 8;
        let suffixes_at = samples_at + n_samples(n_tokens) * 8;
        let (suffixes, end) = array::<u32>(&file, suffixes_at, n_tokens)?;
        if end != file.bytes().len() as u64 {
            let what = format!("has {} bytes, expected {end}", file.bytes().len());
            return Err(Error::malformed(path, what));
        }
        // A search indexes the suffix array with values from the buckets and does not check them again.
        // Checking every entry of the suffix array would read the whole file, so positions are checked where
        // they are used.
        let (buckets, _) = array::<u32>(&file, buckets_at, n_buckets)?;
        let n_suffixes = suffixes.len() as u32;
        if !buckets.is_sorted()
            || buckets.first() != Some(&0)
            || buckets.last() != Some(&n_suffixes)
        {
            let what = format!(
                "the first suffixes of the ranks do not ascend from 0 to {n_suffixes}: the file is damaged"
            );
            return Err(Error::format(path, buckets_at, what));
        }
        Ok(Self {
            span: header.span,
            n_ids: header.n_ids,
            buckets_at,
            document_ends_at: header.has_ends.then_some(document_ends_at),
            samples_at,
            suffixes_at,
            file,
        })
    }

    /// The segment together with its tokens.
    pub(super) fn view<'a, T: StoredToken>(
        &'a self,
        tokens: &'a [T],
        alphabet: &'a Alphabet,
        end_of_document: Option<i32>,
    ) -> SegmentView<'a, T> {
        SegmentView {
            tokens,
            suffixes: self.values(self.suffixes_at, self.span.n_tokens),
            samples: self.values(self.samples_at, n_samples(self.span.n_tokens)),
            packing: PrefixPacking::new(alphabet.len()),
            buckets: self.values(self.buckets_at, self.n_ids + 1),
            document_ends: self
                .document_ends_at
                .map(|at| self.values(at, self.span.n_tokens.div_ceil(64))),
            end_of_document,
            alphabet,
        }
    }

    /// An array of the file. [`Self::open`] has checked that the file holds it.
    fn values<T: Pod>(&self, start: u64, n: u64) -> &[T] {
        array(&self.file, start, n).map_or(&[], |(values, _)| values)
    }
}

/// The type in which a dataset stores its tokens.
pub(super) trait StoredToken: Pod + Eq + Send + Sync {
    /// The id of the token.
    fn id(self) -> i32;
    /// The token with an id; None if the type cannot hold the id.
    fn from_id(id: i64) -> Option<Self>;
}

impl StoredToken for u16 {
    #[inline]
    fn id(self) -> i32 {
        i32::from(self)
    }
    fn from_id(id: i64) -> Option<Self> {
        id.try_into().ok()
    }
}

impl StoredToken for i32 {
    #[inline]
    fn id(self) -> i32 {
        self
    }
    fn from_id(id: i64) -> Option<Self> {
        id.try_into().ok()
    }
}

/// A segment with its tokens, ready to be searched.
///
/// The suffix array of a damaged file may hold positions past the end of `tokens`. Methods treat those as the
/// end of a document with no token.
#[derive(Clone, Copy)]
pub(super) struct SegmentView<'a, T> {
    pub(super) tokens: &'a [T],
    /// The position of each suffix, in sorted order.
    pub(super) suffixes: &'a [u32],
    /// The prefix key of every [`SAMPLE_STRIDE`]th suffix. A search narrows its range here first: the keys
    /// are adjacent in memory, and the tokens of neighbouring suffixes are not.
    pub(super) samples: &'a [u64],
    pub(super) packing: PrefixPacking,
    /// The first suffix of each rank, then the number of suffixes.
    pub(super) buckets: &'a [u32],
    /// A bit for each token that is the last of its document; None if `end_of_document` marks those tokens.
    pub(super) document_ends: Option<&'a [u64]>,
    /// The id that ends every document and occurs nowhere else, if there is one.
    pub(super) end_of_document: Option<i32>,
    pub(super) alphabet: &'a Alphabet,
}

impl<T: StoredToken> SegmentView<'_, T> {
    /// Whether the token at a position is the last of its document.
    #[inline]
    pub(super) fn is_last(&self, position: usize) -> bool {
        match self.document_ends {
            Some(ends) => ends
                .get(position / 64)
                .is_none_or(|word| word >> (position % 64) & 1 == 1),
            None => self
                .tokens
                .get(position)
                .is_none_or(|token| Some(token.id()) == self.end_of_document),
        }
    }

    /// The rank of the token at a position; None past the end of the segment.
    #[inline]
    pub(super) fn rank(&self, position: usize) -> Option<u32> {
        self.tokens
            .get(position)
            .and_then(|token| self.alphabet.rank(token.id()))
    }

    /// The bytes of the token at a position; empty past the end of the segment.
    pub(super) fn token_bytes(&self, position: usize) -> &[u8] {
        self.rank(position)
            .map_or(&[], |rank| self.alphabet.bytes(rank))
    }

    /// The rank of the token at a depth of a suffix; None if the document ends before it. The caller knows that the
    /// document has the tokens before that depth: only whether it ends with the last of them is checked.
    #[inline]
    pub(super) fn rank_at(&self, suffix: u32, depth: usize) -> Option<u32> {
        let position = self.suffixes[suffix as usize] as usize + depth;
        if depth > 0 && self.is_last(position - 1) {
            return None;
        }
        self.rank(position)
    }

    /// The positions of a range of suffixes.
    pub(super) fn positions(&self, suffixes: Range<u32>) -> impl Iterator<Item = usize> {
        let positions = &self.suffixes[suffixes.start as usize..suffixes.end as usize];
        positions.iter().map(|position| *position as usize)
    }

    /// The prefix key of a suffix.
    pub(super) fn prefix_key(&self, suffix: u32) -> u64 {
        let depths = 1..=self.packing.n_tokens;
        self.packing
            .key(depths.map_while(|depth| self.rank_at(suffix, depth)))
    }
}
