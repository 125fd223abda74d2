//! What follows: the distribution of the next token after a context, and after the longest part of it that occurs.

use rustc_hash::FxHashMap;

use super::{
    index::{SuffixIndex, n_of, typed, with_tokens},
    piece::{Token, View},
    text::Hits,
};
use crate::{
    Result,
    tokens::{TokenSource, TokenType},
};

/// What follows a context, over all its occurrences.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NextTokens {
    /// Ids that follow, the most frequent first, those of equal counts by id.
    pub ids: Vec<i64>,
    /// How often each does.
    pub counts: Vec<u64>,
    /// Occurrences behind which the document ends.
    pub n_ends: u64,
    /// Occurrences of a text that end within a token: what follows them is no whole token.
    pub n_within: u64,
    /// Tokens at the context's end that were looked for; of a text, its bytes.
    pub n_context: u64,
}

/// How often a token follows the longest part of a context that is followed by anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probability {
    /// Occurrences of that part with the token behind them.
    pub n_followed_by: u64,
    /// Occurrences of it with any token of the same document behind them.
    pub n_followed: u64,
    /// Tokens of that part, the context's last ones.
    pub n_context: u64,
}

impl SuffixIndex {
    /// What follows a context; of an empty one, how often each id occurs.
    ///
    /// # Errors
    /// The dataset's tokens cannot be read.
    pub fn next_tokens(&self, context: &[i64]) -> Result<NextTokens> {
        Ok(with_tokens!(self, |tokens| match typed(context) {
            Some(context) => self.next_typed(tokens, &context),
            None => NextTokens {
                n_context: context.len() as u64,
                ..NextTokens::default()
            },
        }))
    }

    /// What follows the longest part at the context's end that is followed by anything: the distribution of an
    /// n-gram model of unbounded n (Liu et al. 2024, arXiv:2401.17377). Within documents: the ends of documents are no
    /// tokens, and a part that only ever ends documents is passed over for a shorter one.
    ///
    /// # Errors
    /// As [`Self::next_tokens`].
    pub fn longest_next_tokens(&self, context: &[i64]) -> Result<NextTokens> {
        let n = self.longest_followed(context)?;
        self.next_tokens(&context[context.len() - n..])
    }

    /// What follows a text, wherever it stands: the next token after each occurrence that ends with a token.
    ///
    /// # Errors
    /// As [`Self::count_text`].
    pub fn next_after_text(&self, text: &[u8]) -> Result<NextTokens> {
        self.check_text(text)?;
        let (mut counts, mut found) = (FxHashMap::default(), NextTokens::default());
        with_tokens!(self, |tokens| for view in self.views(tokens) {
            for hits in view.find_text(self.tails(), text) {
                view.count_after(text.len(), &hits, &mut counts, &mut found);
            }
        });
        found.n_context = text.len() as u64;
        Ok(self.ranked(counts, found))
    }

    /// What follows the longest part at a text's end that is followed by anything.
    ///
    /// # Errors
    /// As [`Self::count_text`].
    pub fn longest_next_after_text(&self, text: &str) -> Result<NextTokens> {
        let starts: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
        let (mut low, mut high) = (0, starts.len());
        let mut best = self.next_tokens(&[])?;
        self.check_text(text.as_bytes())?;
        while low < high {
            let middle = low + (high - low) / 2;
            let found = self.next_after_text(&text.as_bytes()[starts[middle]..])?;
            if found.ids.is_empty() {
                low = middle + 1;
            } else {
                (best, high) = (found, middle);
            }
        }
        Ok(best)
    }

    /// The probability of a token in that distribution.
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

    /// Tokens of the longest part at the context's end that is followed by anything. If a part is, so is each
    /// shorter one.
    fn longest_followed(&self, context: &[i64]) -> Result<usize> {
        let (mut known, mut beyond) = (0, context.len() + 1);
        while known + 1 < beyond {
            let n = known + (beyond - known) / 2;
            if self.n_followed(&context[context.len() - n..])? > 0 {
                known = n;
            } else {
                beyond = n;
            }
        }
        Ok(known)
    }

    fn n_followed(&self, ngram: &[i64]) -> Result<u64> {
        Ok(with_tokens!(self, |tokens| match typed(ngram) {
            Some(ngram) => self
                .views(tokens)
                .map(|view| {
                    let range = view.find(&ngram);
                    n_of(&(view.first_that_goes_on(range.clone(), ngram.len())..range.end))
                })
                .sum(),
            None => 0,
        }))
    }

    fn next_typed<T: Token>(&self, tokens: &[&[T]], context: &[T]) -> NextTokens {
        let (mut counts, mut n_ends) = (FxHashMap::default(), 0);
        for view in self.views(tokens) {
            n_ends += count_next(&view, context, &mut counts);
        }
        let found = NextTokens {
            n_ends,
            n_context: context.len() as u64,
            ..NextTokens::default()
        };
        self.ranked(counts, found)
    }

    /// Counts by rank as ids, the most frequent first.
    fn ranked(&self, counts: FxHashMap<u32, u64>, found: NextTokens) -> NextTokens {
        let mut all: Vec<(u32, u64)> = counts.into_iter().collect();
        let id = |rank: u32| i64::from(self.alphabet().ids()[rank as usize]);
        all.sort_unstable_by_key(|(rank, n)| (std::cmp::Reverse(*n), id(*rank)));
        NextTokens {
            ids: all.iter().map(|(rank, _)| id(*rank)).collect(),
            counts: all.iter().map(|(_, n)| *n).collect(),
            ..found
        }
    }
}

impl<T: Token> View<'_, T> {
    /// Adds what follows occurrences of a text of so many bytes.
    fn count_after(
        &self,
        n_bytes: usize,
        hits: &Hits,
        counts: &mut FxHashMap<u32, u64>,
        found: &mut NextTokens,
    ) {
        let mut add = |place: usize, byte: u32, n_tokens: u64| {
            let end = place + n_tokens as usize;
            let ranks = (place..end).filter_map(|place| self.rank(place));
            let length: usize = ranks.map(|rank| self.alphabet.bytes(rank).len()).sum();
            if length != byte as usize + n_bytes {
                found.n_within += 1;
            } else if self.is_last(end - 1) {
                found.n_ends += 1;
            } else if let Some(rank) = self.rank(end) {
                *counts.entry(rank).or_default() += 1;
            }
        };
        match hits {
            Hits::One {
                place,
                byte,
                n_tokens,
            } => add(*place, *byte, *n_tokens),
            Hits::Suffixes {
                suffixes,
                byte,
                n_tokens,
            } => {
                for place in &self.suffixes[suffixes.start as usize..suffixes.end as usize] {
                    add(*place as usize, *byte, *n_tokens);
                }
            }
        }
    }
}

/// Adds how often each rank follows in a piece; returns how often the document ends.
fn count_next<T: Token>(
    view: &View<'_, T>,
    context: &[T],
    counts: &mut FxHashMap<u32, u64>,
) -> u64 {
    let range = view.find(context);
    let depth = context.len();
    let mut at = view.first_that_goes_on(range.clone(), depth);
    let n_ends = n_of(&(range.start..at));
    while at < range.end {
        let Some(rank) = view.rank_at(at, depth) else {
            break;
        };
        // Runs are short as a rule: the step doubles before it is cut down.
        let (mut step, mut known) = (1, at);
        while known + step < range.end && view.rank_at(known + step, depth) == Some(rank) {
            known += step;
            step *= 2;
        }
        let end = (known + step).min(range.end);
        let next = view
            .narrow(known..end, depth, rank..rank + 1)
            .end
            .max(at + 1);
        *counts.entry(rank).or_default() += u64::from(next - at);
        at = next;
    }
    n_ends
}
