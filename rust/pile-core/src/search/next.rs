//! What follows: the distribution of the next token after a context, and after the longest part of it that occurs.

use rustc_hash::FxHashMap;

use super::{
    index::{SuffixIndex, n_of, typed, with_tokens},
    piece::{Token, View},
};
use crate::tokens::{TokenSource, TokenType};

/// What follows a context, over all its occurrences.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NextTokens {
    /// Ids that follow, the most frequent first, those of equal counts by id.
    pub ids: Vec<i64>,
    /// How often each does.
    pub counts: Vec<u64>,
    /// Occurrences behind which the document ends.
    pub n_ends: u64,
    /// Tokens at the context's end that were looked for.
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
    #[must_use]
    pub fn next_tokens(&self, context: &[i64]) -> NextTokens {
        with_tokens!(self, |tokens| match typed(context) {
            Some(context) => self.next_typed(tokens, &context),
            None => NextTokens {
                n_context: context.len() as u64,
                ..NextTokens::default()
            },
        })
    }

    /// What follows the longest part at the context's end that is followed by anything: the distribution of an
    /// n-gram model of unbounded n (Liu et al. 2024, arXiv:2401.17377). Within documents: the ends of documents are no
    /// tokens, and a part that only ever ends documents is passed over for a shorter one.
    #[must_use]
    pub fn longest_next_tokens(&self, context: &[i64]) -> NextTokens {
        let n = self.longest_followed(context);
        self.next_tokens(&context[context.len() - n..])
    }

    /// The probability of a token in that distribution.
    #[must_use]
    pub fn probability(&self, context: &[i64], next: i64) -> Probability {
        let n = self.longest_followed(context);
        let mut ngram = context[context.len() - n..].to_vec();
        let n_followed = self.n_followed(&ngram);
        ngram.push(next);
        Probability {
            n_followed_by: self.count(&ngram).unwrap_or_default(),
            n_followed,
            n_context: n as u64,
        }
    }

    /// Tokens of the longest part at the context's end that is followed by anything. If a part is, so is each
    /// shorter one.
    fn longest_followed(&self, context: &[i64]) -> usize {
        let (mut known, mut beyond) = (0, context.len() + 1);
        while known + 1 < beyond {
            let n = known + (beyond - known) / 2;
            if self.n_followed(&context[context.len() - n..]) > 0 {
                known = n;
            } else {
                beyond = n;
            }
        }
        known
    }

    fn n_followed(&self, ngram: &[i64]) -> u64 {
        with_tokens!(self, |tokens| match typed(ngram) {
            Some(ngram) => self
                .views(tokens)
                .map(|view| {
                    let range = view.find(&ngram);
                    n_of(&(view.first_that_goes_on(range.clone(), ngram.len())..range.end))
                })
                .sum(),
            None => 0,
        })
    }

    fn next_typed<T: Token>(&self, tokens: &[T], context: &[T]) -> NextTokens {
        let (mut counts, mut n_ends) = (FxHashMap::default(), 0);
        for view in self.views(tokens) {
            n_ends += count_next(&view, context, &mut counts);
        }
        let mut all: Vec<(u32, u64)> = counts.into_iter().collect();
        let id = |rank: u32| i64::from(self.alphabet().ids()[rank as usize]);
        all.sort_unstable_by_key(|(rank, n)| (std::cmp::Reverse(*n), id(*rank)));
        NextTokens {
            ids: all.iter().map(|(rank, _)| id(*rank)).collect(),
            counts: all.iter().map(|(_, n)| *n).collect(),
            n_ends,
            n_context: context.len() as u64,
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
