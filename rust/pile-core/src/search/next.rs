//! The next token after a context: counts of each, and a probability that backs off to a shorter context.

use std::cmp::Reverse;

use rustc_hash::FxHashMap;

use super::{
    index::{SuffixIndex, n_suffixes, to_stored, with_tokens},
    segment::{SegmentView, StoredToken},
    text::TextMatches,
};
use crate::{
    Result,
    tokens::{TokenSource, TokenType},
};

/// The tokens that follow the occurrences of a context.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NextTokens {
    /// The ids, by descending count and then by id.
    pub ids: Vec<i64>,
    /// The count of each id.
    pub counts: Vec<u64>,
    /// Occurrences that end with their document.
    pub n_ends: u64,
    /// Occurrences of a text that end within a token. They have no next token.
    pub n_within: u64,
    /// Length of the context that was searched for: tokens, or bytes of a text.
    pub n_context: u64,
}

/// How often a token follows the longest suffix of a context that any token follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probability {
    /// Occurrences of that suffix followed by the token.
    pub n_followed_by: u64,
    /// Occurrences of that suffix followed by any token of the same document.
    pub n_followed: u64,
    /// Tokens of that suffix.
    pub n_context: u64,
}

impl SuffixIndex {
    /// The tokens that follow a context. For an empty context, the counts of all ids.
    ///
    /// # Errors
    /// The dataset's tokens cannot be read.
    pub fn next_tokens(&self, context: &[i64]) -> Result<NextTokens> {
        Ok(with_tokens!(self, |tokens| match to_stored(context) {
            Some(context) => self.next_stored(tokens, &context),
            None => NextTokens {
                n_context: context.len() as u64,
                ..NextTokens::default()
            },
        }))
    }

    /// The tokens that follow the longest suffix of a context that any token follows.
    ///
    /// This is the distribution of an n-gram model of unbounded n (Liu et al. 2024, arXiv:2401.17377), within
    /// documents. The end of a document is not a token: a suffix that only ever ends documents is skipped for
    /// a shorter one.
    ///
    /// # Errors
    /// As [`Self::next_tokens`].
    pub fn longest_next_tokens(&self, context: &[i64]) -> Result<NextTokens> {
        let n = self.longest_followed(context)?;
        self.next_tokens(&context[context.len() - n..])
    }

    /// The tokens that follow the occurrences of a text that end at a token boundary.
    ///
    /// # Errors
    /// As [`Self::count_text`].
    pub fn next_after_text(&self, text: &[u8]) -> Result<NextTokens> {
        self.check_text(text)?;
        let (mut counts, mut next) = (FxHashMap::default(), NextTokens::default());
        with_tokens!(self, |tokens| for view in self.views(tokens) {
            for matches in view.find_text(self.tails(), text) {
                view.count_after(text.len(), &matches, &mut counts, &mut next);
            }
        });
        next.n_context = text.len() as u64;
        Ok(self.sorted_by_count(counts, next))
    }

    /// The tokens that follow the longest suffix of a text that any token follows. A suffix starts at a
    /// character.
    ///
    /// # Errors
    /// As [`Self::count_text`].
    pub fn longest_next_after_text(&self, text: &str) -> Result<NextTokens> {
        // Binary search, as every shorter suffix is followed too.
        let starts: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
        let (mut low, mut high) = (0, starts.len());
        let mut longest = self.next_tokens(&[])?;
        self.check_text(text.as_bytes())?;
        while low < high {
            let middle = low + (high - low) / 2;
            let next = self.next_after_text(&text.as_bytes()[starts[middle]..])?;
            if next.ids.is_empty() {
                low = middle + 1;
            } else {
                (longest, high) = (next, middle);
            }
        }
        Ok(longest)
    }

    /// The counts for the probability of `next` after the longest suffix of `context` that any token follows.
    ///
    /// # Errors
    /// As [`Self::next_tokens`].
    pub fn probability(&self, context: &[i64], next: i64) -> Result<Probability> {
        let n = self.longest_followed(context)?;
        let mut ngram = context[context.len() - n..].to_vec();
        let n_followed = self.n_followed(&ngram)?;
        ngram.push(next);
        Ok(Probability {
            n_followed_by: self.count(&ngram)?,
            n_followed,
            n_context: n as u64,
        })
    }

    /// Number of tokens of the longest suffix of `context` that any token follows. Binary search finds it, as
    /// every shorter suffix is followed too.
    fn longest_followed(&self, context: &[i64]) -> Result<usize> {
        let (mut followed, mut not_followed) = (0, context.len() + 1);
        while followed + 1 < not_followed {
            let n = followed + (not_followed - followed) / 2;
            if self.n_followed(&context[context.len() - n..])? > 0 {
                followed = n;
            } else {
                not_followed = n;
            }
        }
        Ok(followed)
    }

    /// Number of occurrences of an n-gram that any token of the same document follows.
    fn n_followed(&self, ngram: &[i64]) -> Result<u64> {
        Ok(with_tokens!(self, |tokens| match to_stored(ngram) {
            Some(ngram) => self
                .views(tokens)
                .map(|view| {
                    let range = view.find(&ngram);
                    let first = view.first_continued(range.clone(), ngram.len());
                    n_suffixes(&(first..range.end))
                })
                .sum(),
            None => 0,
        }))
    }

    fn next_stored<T: StoredToken>(&self, tokens: &[&[T]], context: &[T]) -> NextTokens {
        let (mut counts, mut n_ends) = (FxHashMap::default(), 0);
        for view in self.views(tokens) {
            n_ends += view.count_next(context, &mut counts);
        }
        let next = NextTokens {
            n_ends,
            n_context: context.len() as u64,
            ..NextTokens::default()
        };
        self.sorted_by_count(counts, next)
    }

    /// Sets the ids and counts of `next` from counts by rank.
    fn sorted_by_count(&self, counts: FxHashMap<u32, u64>, next: NextTokens) -> NextTokens {
        let mut all: Vec<(u32, u64)> = counts.into_iter().collect();
        let id = |rank: u32| i64::from(self.alphabet().ids()[rank as usize]);
        all.sort_unstable_by_key(|(rank, n)| (Reverse(*n), id(*rank)));
        NextTokens {
            ids: all.iter().map(|(rank, _)| id(*rank)).collect(),
            counts: all.iter().map(|(_, n)| *n).collect(),
            ..next
        }
    }
}

impl<T: StoredToken> SegmentView<'_, T> {
    /// Adds the next token after each match of a text of `n_bytes` bytes: to `counts` by rank, or to the
    /// counts of `next` if there is none.
    fn count_after(
        &self,
        n_bytes: usize,
        matches: &TextMatches,
        counts: &mut FxHashMap<u32, u64>,
        next: &mut NextTokens,
    ) {
        for position in matches.positions(self) {
            let end = position + matches.n_tokens as usize;
            let lengths = (position..end).map(|position| self.token_bytes(position).len());
            // The text ends at a token boundary if its bytes and those before it fill its tokens.
            if lengths.sum::<usize>() != matches.byte_offset as usize + n_bytes {
                next.n_within += 1;
            } else if self.is_last(end - 1) {
                next.n_ends += 1;
            } else if let Some(rank) = self.rank(end) {
                *counts.entry(rank).or_default() += 1;
            }
        }
    }

    /// Adds the number of times that each rank follows a context. Returns how often a document ends after it.
    fn count_next(&self, context: &[T], counts: &mut FxHashMap<u32, u64>) -> u64 {
        let range = self.find(context);
        let depth = context.len();
        let mut start = self.first_continued(range.clone(), depth);
        let n_ends = n_suffixes(&(range.start..start));
        while start < range.end {
            let Some(rank) = self.rank_at(start, depth) else {
                break;
            };
            // Suffixes with the same next token are adjacent, most often few. Doubling steps find a bound of
            // their end in time logarithmic in their number, not in that of all suffixes. The sums fit in a
            // u32, as a segment has fewer than 2^31 tokens.
            let (mut step, mut last_known) = (1, start);
            while last_known + step < range.end
                && self.rank_at(last_known + step, depth) == Some(rank)
            {
                last_known += step;
                step *= 2;
            }
            let bound = (last_known + step).min(range.end);
            // In a damaged index the suffixes may be in any order. The loop must end all the same.
            let end = self
                .narrow(last_known..bound, depth, rank..rank + 1)
                .end
                .max(start + 1);
            *counts.entry(rank).or_default() += u64::from(end - start);
            start = end;
        }
        n_ends
    }
}
