//! Occurrences of a text in the documents, at any byte of a token.
//!
//! A text is within one token, or a token ends with a prefix of it ([`TokenTails`]) and the rest starts at a
//! token boundary. From the boundary the search walks over tokens: over each one whose bytes are a prefix of
//! the remaining text, and last over the range of tokens that start with all of it. Ids without bytes may
//! come between. Tokens are sorted by their bytes, so each step narrows a range of suffixes; a branch ends
//! when its range is empty.

use std::ops::Range;

use super::{
    alphabet::{Alphabet, PrefixRange, prefix_ranges},
    index::{SuffixIndex, check_limit, n_suffixes, with_tokens},
    segment::{SegmentView, StoredToken},
};
use crate::{
    Error, Result,
    bytes::sortable_prefix,
    tokenize::MAX_DECODED_BYTES,
    tokens::{TokenSource, TokenType},
};

/// A suffix of a token's bytes.
#[derive(Debug, Clone, Copy)]
struct Tail {
    /// The rank of the token.
    rank: u32,
    /// Where the tail starts in the token's bytes.
    start: u32,
}

impl Tail {
    fn bytes(self, alphabet: &Alphabet) -> &[u8] {
        &alphabet.bytes(self.rank)[self.start as usize..]
    }
}

/// Every suffix of the bytes of every token, whole tokens included, sorted by bytes. A text that starts
/// within a token starts at one of them.
#[derive(Debug)]
pub(super) struct TokenTails {
    tails: Vec<Tail>,
}

impl TokenTails {
    pub(super) fn new(alphabet: &Alphabet) -> Self {
        let ranks = 0..alphabet.len() as u32;
        let mut keyed: Vec<(u64, Tail)> = ranks
            .flat_map(|rank| {
                let bytes = alphabet.bytes(rank);
                let starts = 0..bytes.len() as u32;
                starts.map(move |start| {
                    (
                        sortable_prefix(&bytes[start as usize..]),
                        Tail { rank, start },
                    )
                })
            })
            .collect();
        keyed.sort_unstable_by(|(key_a, a), (key_b, b)| {
            key_a
                .cmp(key_b)
                .then_with(|| a.bytes(alphabet).cmp(b.bytes(alphabet)))
                .then_with(|| (a.rank, a.start).cmp(&(b.rank, b.start)))
        });
        Self {
            tails: keyed.into_iter().map(|(_, tail)| tail).collect(),
        }
    }

    /// For each prefix of `text`, shortest first, the tails that start with it: see [`prefix_ranges`].
    pub(super) fn prefix_ranges<'a>(
        &'a self,
        alphabet: &'a Alphabet,
        text: &'a [u8],
    ) -> impl Iterator<Item = PrefixRange> + 'a {
        let all = 0..self.tails.len() as u32;
        prefix_ranges(all, |tail| self.tails[tail as usize].bytes(alphabet), text)
    }

    /// The tails of a range of [`Self::prefix_ranges`].
    fn get(&self, range: Range<u32>) -> &[Tail] {
        &self.tails[range.start as usize..range.end as usize]
    }
}

/// Occurrences of a text in a segment that start at the same byte of their first token and have the same
/// number of tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TextMatches {
    first_tokens: FirstTokens,
    /// Bytes of the first token before the text.
    pub(super) byte_offset: u32,
    /// Tokens from the first one to the one in which the text ends, both included.
    pub(super) n_tokens: u64,
}

/// The first token of each match.
#[derive(Debug, Clone, PartialEq, Eq)]
enum FirstTokens {
    /// The first tokens of these suffixes.
    Suffixes(Range<u32>),
    /// The token at this position.
    Position(usize),
}

impl TextMatches {
    /// Number of matches.
    pub(super) fn n(&self) -> u64 {
        match &self.first_tokens {
            FirstTokens::Suffixes(suffixes) => n_suffixes(suffixes),
            FirstTokens::Position(_) => 1,
        }
    }

    /// The position of each match's first token.
    pub(super) fn positions<T: StoredToken>(
        &self,
        view: &SegmentView<'_, T>,
    ) -> impl Iterator<Item = usize> {
        let (position, suffixes) = match &self.first_tokens {
            FirstTokens::Suffixes(suffixes) => (None, suffixes.clone()),
            FirstTokens::Position(position) => (Some(*position), 0..0),
        };
        position.into_iter().chain(view.positions(suffixes))
    }
}

/// A state of a walk: suffixes whose first tokens are equal and match the text.
#[derive(Debug, Clone)]
pub(super) struct WalkNode {
    pub(super) suffixes: Range<u32>,
    /// Number of those tokens.
    pub(super) depth: usize,
    /// Where they end in the text.
    pub(super) at: usize,
}

/// A walk from one first token costs about as much as a comparison of the token before this many occurrences.
const OCCURRENCES_PER_WALK: u64 = 16;

impl<T: StoredToken> SegmentView<'_, T> {
    /// All suffixes, as the start of a walk at byte `at` of a text.
    pub(super) fn walk_root(&self, at: usize) -> WalkNode {
        WalkNode {
            suffixes: 0..self.suffixes.len() as u32,
            depth: 0,
            at,
        }
    }

    /// Every occurrence of a text.
    pub(super) fn find_text(&self, tails: &TokenTails, text: &[u8]) -> Vec<TextMatches> {
        let (mut matches, mut within) = (Vec::new(), 0..0);
        for (length, range) in (1..).zip(tails.prefix_ranges(self.alphabet, text)) {
            if length == text.len() {
                within = range.all;
            } else {
                let (head, rest) = text.split_at(length);
                self.find_split(tails.get(range.exact()), head, rest, &mut matches);
            }
        }
        for tail in tails.get(within) {
            matches.push(TextMatches {
                first_tokens: FirstTokens::Suffixes(self.bucket(tail.rank..tail.rank + 1)),
                byte_offset: tail.start,
                n_tokens: 1,
            });
        }
        matches.retain(|matches| matches.n() > 0);
        matches
    }

    /// Adds the occurrences of a text whose first token ends with `head`, so that `rest` starts at a token
    /// boundary. `tails` are all tails that equal `head`.
    ///
    /// Where `rest` is rare, its occurrences are searched for and the token before each is compared with
    /// `head`. Where it is frequent, a walk over `rest` starts from each token that ends with `head`.
    fn find_split(&self, tails: &[Tail], head: &[u8], rest: &[u8], matches: &mut Vec<TextMatches>) {
        if tails.is_empty() {
            return;
        }
        let rest_matches = self.walk(rest, self.walk_root(0));
        let n: u64 = rest_matches.iter().map(TextMatches::n).sum();
        if n <= tails.len() as u64 * OCCURRENCES_PER_WALK {
            for found in rest_matches {
                for position in found.positions(self) {
                    matches.extend(self.match_before(position, head, found.n_tokens));
                }
            }
            return;
        }
        for tail in tails {
            let first_token = WalkNode {
                suffixes: self.bucket(tail.rank..tail.rank + 1),
                depth: 1,
                at: 0,
            };
            let found = self.walk(rest, first_token);
            matches.extend(found.into_iter().map(|found| TextMatches {
                byte_offset: tail.start,
                ..found
            }));
        }
    }

    /// The match of a text whose rest starts at a position and has `n_tokens` tokens; None if the token
    /// before does not end with `head`.
    fn match_before(&self, position: usize, head: &[u8], n_tokens: u64) -> Option<TextMatches> {
        let first = self.token_with_bytes_before(position)?;
        let bytes = self.token_bytes(first);
        let byte_offset = bytes.len().checked_sub(head.len())?;
        bytes.ends_with(head).then_some(TextMatches {
            first_tokens: FirstTokens::Position(first),
            byte_offset: byte_offset as u32,
            n_tokens: n_tokens + (position - first) as u64,
        })
    }

    /// The nearest position before `position`, in the same document, of a token that has bytes.
    pub(super) fn token_with_bytes_before(&self, position: usize) -> Option<usize> {
        let mut before = position;
        loop {
            before = before.checked_sub(1)?;
            if self.is_last(before) {
                return None;
            }
            if !self.alphabet.bytes(self.rank(before)?).is_empty() {
                return Some(before);
            }
        }
    }

    /// The suffixes of `start` that continue with all of `text` from byte `start.at` on.
    fn walk(&self, text: &[u8], start: WalkNode) -> Vec<TextMatches> {
        let (mut found, mut open) = (Vec::new(), vec![start]);
        while let Some(node) = open.pop() {
            let Some(last_ranks) = self.step(text, &node, &mut open) else {
                continue;
            };
            let suffixes = self.narrow(node.suffixes, node.depth, last_ranks);
            if !suffixes.is_empty() {
                found.push(TextMatches {
                    first_tokens: FirstTokens::Suffixes(suffixes),
                    byte_offset: 0,
                    n_tokens: node.depth as u64 + 1,
                });
            }
        }
        found
    }

    /// Adds to `open` the nodes that are one token further. Returns the ranks whose bytes start with all of
    /// the remaining text; None if there are none.
    fn step(&self, text: &[u8], node: &WalkNode, open: &mut Vec<WalkNode>) -> Option<Range<u32>> {
        let mut add_nodes = |ranks: Range<u32>, at: usize| {
            // Ranks of the same bytes are separate nodes. One node of them all would have suffixes that are
            // not sorted by the next token, as they differ in a token before it.
            for rank in ranks {
                let suffixes = self.narrow(node.suffixes.clone(), node.depth, rank..rank + 1);
                if !suffixes.is_empty() {
                    open.push(WalkNode {
                        suffixes,
                        depth: node.depth + 1,
                        at,
                    });
                }
            }
        };
        // A match starts with a token that has bytes.
        if node.depth > 0 {
            add_nodes(self.alphabet.ranks_without_bytes(), node.at);
        }
        for (end, range) in (node.at + 1..).zip(self.alphabet.prefix_ranges(&text[node.at..])) {
            if end == text.len() {
                return Some(range.all);
            }
            add_nodes(range.exact(), end);
        }
        None
    }
}

/// An occurrence of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TextOccurrence {
    /// The document.
    pub document: u64,
    /// The token that has the first byte, counted from the start of the document.
    pub token_offset: u64,
    /// The first byte, counted from the start of that token.
    pub byte_in_token: u64,
    /// Tokens from that one to the one with the last byte, both included.
    pub n_tokens: u64,
}

impl SuffixIndex {
    /// Checks that the index can search for a text.
    pub(super) fn check_text(&self, text: &[u8]) -> Result<()> {
        if text.is_empty() {
            return Err(Error::argument(
                "the text is empty: it would occur everywhere",
            ));
        }
        if !self.alphabet().has_bytes() && !self.alphabet().is_empty() {
            return Err(Error::argument(
                "the index was built without a tokenizer and finds ids only; build it anew with a \
                 tokenizer to find texts",
            ));
        }
        Ok(())
    }

    /// Number of occurrences of a text within documents. Overlapping occurrences count.
    ///
    /// # Errors
    /// The text is empty, or the index was built without a tokenizer.
    pub fn count_text(&self, text: &[u8]) -> Result<u64> {
        self.check_text(text)?;
        Ok(with_tokens!(self, |tokens| {
            let views = self.views(tokens);
            views
                .flat_map(|view| view.find_text(self.tails(), text))
                .map(|matches| matches.n())
                .sum()
        }))
    }

    /// Every occurrence of a text within documents, in order.
    ///
    /// # Errors
    /// As [`Self::count_text`]; or the text occurs more than `max_occurrences` times.
    pub fn locate_text(&self, text: &[u8], max_occurrences: u64) -> Result<Vec<TextOccurrence>> {
        self.check_text(text)?;
        let mut occurrences = Vec::new();
        let mut n = 0;
        with_tokens!(
            self,
            |tokens| for (segment, view) in self.views(tokens).enumerate() {
                let found = view.find_text(self.tails(), text);
                n += found.iter().map(TextMatches::n).sum::<u64>();
                check_limit(n, max_occurrences)?;
                for matches in found {
                    let positions = matches.positions(&view);
                    self.add_occurrences(segment, &matches, positions, &mut occurrences)?;
                }
            }
        );
        occurrences.sort_unstable();
        Ok(occurrences)
    }

    /// Number of occurrences of a text within documents, and up to `limit` of them. Which ones is arbitrary
    /// but deterministic.
    ///
    /// # Errors
    /// As [`Self::count_text`].
    pub fn sample_text(&self, text: &[u8], limit: usize) -> Result<(u64, Vec<TextOccurrence>)> {
        self.check_text(text)?;
        let (mut n, mut occurrences) = (0, Vec::new());
        with_tokens!(
            self,
            |tokens| for (segment, view) in self.views(tokens).enumerate() {
                for matches in view.find_text(self.tails(), text) {
                    n += matches.n();
                    let positions = matches.positions(&view).take(limit - occurrences.len());
                    self.add_occurrences(segment, &matches, positions, &mut occurrences)?;
                }
            }
        );
        occurrences.sort_unstable();
        Ok((n, occurrences))
    }

    /// Adds the occurrences of `matches` in a segment whose first tokens are at `positions`.
    fn add_occurrences(
        &self,
        segment: usize,
        matches: &TextMatches,
        positions: impl Iterator<Item = usize>,
        occurrences: &mut Vec<TextOccurrence>,
    ) -> Result<()> {
        for position in positions {
            let first = self.occurrence_at(segment, position)?;
            occurrences.push(TextOccurrence {
                document: first.document,
                token_offset: first.token_offset,
                byte_in_token: matches.byte_offset.into(),
                n_tokens: matches.n_tokens,
            });
        }
        Ok(())
    }

    /// The concatenated bytes of ids. Ids that do not occur in the dataset have none.
    ///
    /// # Errors
    /// They are longer than 1 GiB.
    pub fn decode(&self, ids: &[i64]) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let ranks = ids
            .iter()
            .filter_map(|id| self.alphabet().rank(i32::try_from(*id).ok()?));
        for rank in ranks {
            bytes.extend_from_slice(self.alphabet().bytes(rank));
            if bytes.len() > MAX_DECODED_BYTES {
                let what = "the ids decode to more than 1 GiB, the longest text supported";
                return Err(Error::argument(what));
            }
        }
        Ok(bytes)
    }

    /// Number of tokens of the dataset whose ids decode to no bytes.
    ///
    /// # Errors
    /// The dataset's tokens cannot be read.
    pub fn n_without_bytes(&self) -> Result<u64> {
        let ranks = self.alphabet().ranks_without_bytes();
        if ranks.is_empty() {
            return Ok(0);
        }
        Ok(with_tokens!(self, |tokens| self
            .views(tokens)
            .map(|view| n_suffixes(&view.bucket(ranks.clone())))
            .sum()))
    }
}
