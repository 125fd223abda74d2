//! A piece of the index: the sorted suffixes of some consecutive documents.
//!
//! `piece-000NN`: magic `PILESUFF`, header ([`PieceHeader`]); for each rank and behind the last one the first of its
//! suffixes, u32; where documents do not all end in a token of their own, a bit for each token that is a document's
//! last, in u64s; the signs of every 64th suffix (see [`Signs`]), u64; the suffixes in order, each by its first
//! token's place in the piece, u32.

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

/// Suffixes from one with a sign to the next.
pub(super) const STRIDE: u32 = 64;

/// Ranks in a sign, at most: more tell little.
const MAX_SIGN_TOKENS: u32 = 4;

/// Which documents and tokens a piece covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PieceSpan {
    /// Its first document.
    pub first_document: u64,
    /// The document behind its last.
    pub end_document: u64,
    /// Its first token among all of the dataset.
    pub first_token: u64,
    /// Its tokens, below 2^31.
    pub n_tokens: u64,
}

impl PieceSpan {
    /// Its tokens among all of the dataset.
    pub(super) fn tokens(&self) -> Range<u64> {
        self.first_token..self.first_token + self.n_tokens
    }
}

/// What a piece's file says of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PieceHeader {
    pub(super) version: u32,
    /// The digest of the index that it is of.
    pub(super) index: String,
    pub(super) number: u64,
    pub(super) span: PieceSpan,
    pub(super) n_ids: u64,
    pub(super) has_ends: bool,
}

impl PieceHeader {
    pub(super) fn new(
        index: &str,
        number: u64,
        span: PieceSpan,
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

/// The path of a piece in the index's folder.
pub(super) fn path_of(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("piece-{number:05}"))
}

/// Writes a piece.
pub(super) fn write(
    out: &mut impl Write,
    header: &PieceHeader,
    buckets: &[u32],
    (ends, signs): (&[u64], &[u64]),
    suffixes: &[u32],
) -> io::Result<()> {
    write_header(out, MAGIC, header)?;
    out.write_all(bytemuck::cast_slice(buckets))?;
    if buckets.len() % 2 == 1 {
        out.write_all(&[0; 4])?;
    }
    out.write_all(bytemuck::cast_slice(ends))?;
    out.write_all(bytemuck::cast_slice(signs))?;
    out.write_all(bytemuck::cast_slice(suffixes))
}

/// Suffixes with a sign.
fn n_signs(n_tokens: u64) -> u64 {
    n_tokens.div_ceil(STRIDE.into())
}

/// How ranks lie in a sign: as many as fit, each plus one, the first one highest; zeros where the document has ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Signs {
    /// Bits of each.
    n_bits: u32,
    pub(super) n_tokens: usize,
}

impl Signs {
    /// Those of so many ids.
    pub(super) fn new(n_ids: usize) -> Self {
        let n_bits = usize::BITS - n_ids.max(1).leading_zeros();
        Self {
            n_bits,
            n_tokens: (u64::BITS / n_bits).min(MAX_SIGN_TOKENS) as usize,
        }
    }

    /// Bits below those of the first `n` ranks.
    pub(super) fn n_below(self, n: usize) -> u32 {
        self.n_bits * self.n_tokens.saturating_sub(n) as u32
    }

    /// The sign of what goes on with these ranks, at most as many as it has, and then ends.
    pub(super) fn sign(self, ranks: impl Iterator<Item = u32>) -> u64 {
        let at = |(place, rank): (usize, u32)| (u64::from(rank) + 1) << self.n_below(place + 1);
        ranks.enumerate().map(at).sum()
    }
}

/// An opened piece.
#[derive(Debug)]
pub(super) struct Piece {
    file: Mapped,
    pub(super) span: PieceSpan,
    n_ids: u64,
    buckets_at: u64,
    ends_at: Option<u64>,
    signs_at: u64,
    suffixes_at: u64,
}

impl Piece {
    /// Opens the piece that `expected` speaks of.
    ///
    /// # Errors
    /// The file is missing, cut short, damaged, or of another index.
    pub(super) fn open(path: &Path, expected: &PieceHeader) -> Result<Self> {
        let file = Mapped::open(path)?;
        let (header, start): (PieceHeader, u64) = read_header(&file, MAGIC)?;
        if header != *expected {
            let what = "is a piece of another index than the files beside it; build the index anew";
            return Err(Error::malformed(path, what));
        }
        let n_buckets = header.n_ids + 1;
        let ends = start + n_buckets.next_multiple_of(2) * 4;
        let n_tokens = header.span.n_tokens;
        let n_ends = if header.has_ends {
            n_tokens.div_ceil(64)
        } else {
            0
        };
        let signs_at = ends + n_ends * 8;
        let suffixes_at = signs_at + n_signs(n_tokens) * 8;
        let (suffixes, end) = array::<u32>(&file, suffixes_at, n_tokens)?;
        if end != file.bytes().len() as u64 {
            let what = format!("has {} bytes, expected {end}", file.bytes().len());
            return Err(Error::malformed(path, what));
        }
        let (buckets, _) = array::<u32>(&file, start, n_buckets)?;
        let n_suffixes = suffixes.len() as u32;
        if !buckets.is_sorted()
            || buckets.first() != Some(&0)
            || buckets.last() != Some(&n_suffixes)
        {
            let what = "the beginnings of the ranks are not ascending: the file is damaged";
            return Err(Error::format(path, start, what));
        }
        Ok(Self {
            span: header.span,
            n_ids: header.n_ids,
            buckets_at: start,
            ends_at: header.has_ends.then_some(ends),
            signs_at,
            suffixes_at,
            file,
        })
    }

    /// The piece with its tokens.
    pub(super) fn view<'a, T: Token>(
        &'a self,
        tokens: &'a [T],
        alphabet: &'a Alphabet,
        ends_with: Option<i32>,
    ) -> View<'a, T> {
        View {
            tokens,
            suffixes: self.values(self.suffixes_at, self.span.n_tokens),
            signs: self.values(self.signs_at, n_signs(self.span.n_tokens)),
            signs_of: Signs::new(alphabet.len()),
            buckets: self.values(self.buckets_at, self.n_ids + 1),
            ends: self
                .ends_at
                .map(|at| self.values(at, self.span.n_tokens.div_ceil(64))),
            ends_with,
            alphabet,
        }
    }

    /// Values whose place was checked when the file was opened.
    fn values<T: Pod>(&self, start: u64, n: u64) -> &[T] {
        array(&self.file, start, n).map_or(&[], |(values, _)| values)
    }
}

/// A stored token.
pub(super) trait Token: Pod + Eq + Send + Sync {
    /// Its id.
    fn id(self) -> i32;
    /// The token of an id, if the type can hold it.
    fn of(id: i64) -> Option<Self>;
}

impl Token for u16 {
    #[inline]
    fn id(self) -> i32 {
        i32::from(self)
    }
    fn of(id: i64) -> Option<Self> {
        id.try_into().ok()
    }
}

impl Token for i32 {
    #[inline]
    fn id(self) -> i32 {
        self
    }
    fn of(id: i64) -> Option<Self> {
        id.try_into().ok()
    }
}

/// A piece, ready to be searched. Places that a damaged file makes up are beyond its tokens: they are no tokens.
#[derive(Clone, Copy)]
pub(super) struct View<'a, T> {
    pub(super) tokens: &'a [T],
    pub(super) suffixes: &'a [u32],
    /// Those of every [`STRIDE`]th suffix: a search looks at them, which lie together, before it looks at tokens,
    /// which do not.
    pub(super) signs: &'a [u64],
    pub(super) signs_of: Signs,
    pub(super) buckets: &'a [u32],
    pub(super) ends: Option<&'a [u64]>,
    pub(super) ends_with: Option<i32>,
    pub(super) alphabet: &'a Alphabet,
}

impl<T: Token> View<'_, T> {
    /// Whether the token at a place is the last of its document.
    #[inline]
    pub(super) fn is_last(&self, place: usize) -> bool {
        match self.ends {
            Some(ends) => ends
                .get(place / 64)
                .is_none_or(|word| word >> (place % 64) & 1 == 1),
            None => self
                .tokens
                .get(place)
                .is_none_or(|token| Some(token.id()) == self.ends_with),
        }
    }

    /// The rank of the token at a place.
    #[inline]
    pub(super) fn rank(&self, place: usize) -> Option<u32> {
        self.tokens
            .get(place)
            .and_then(|token| self.alphabet.rank(token.id()))
    }

    /// The rank of the token `depth` behind the first of a suffix; None where its document has ended before.
    #[inline]
    pub(super) fn rank_at(&self, suffix: u32, depth: usize) -> Option<u32> {
        let place = self.suffixes[suffix as usize] as usize + depth;
        if depth > 0 && self.is_last(place - 1) {
            return None;
        }
        self.rank(place)
    }

    /// What a suffix goes on with behind its first token. Signs of suffixes with the same first token ascend.
    pub(super) fn sign(&self, suffix: u32) -> u64 {
        let depths = 1..=self.signs_of.n_tokens;
        self.signs_of
            .sign(depths.map_while(|depth| self.rank_at(suffix, depth)))
    }
}
