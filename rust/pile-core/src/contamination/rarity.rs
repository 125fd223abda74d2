//! How much an n-gram says: the rarer it is among the documents, the more.

use super::items::{BenchmarkItems, Part};

/// A part is told from common phrases only if its n-grams together weigh at least as much as one that occurs in one of
/// this many documents. In a smaller corpus one that occurs in a single document is enough.
pub const TELLING_DOCUMENTS: f64 = 1000.0;

/// The weights of all n-grams and parts.
#[derive(Debug)]
pub(super) struct Rarity {
    /// By n-gram.
    weights: Vec<f64>,
    /// By part, the weight of all its n-grams.
    totals: Vec<f64>,
    /// Least weight of a part that can be told.
    least: f64,
    /// Whether there are no documents: then every part is in none of them, and nothing has a weight.
    is_empty: bool,
}

/// `log((1 + documents) / (1 + documents with the n-gram))`.
fn weight(n_documents: u64, n_with: u64) -> f64 {
    ((1 + n_documents) as f64 / (1 + n_with) as f64).ln()
}

impl Rarity {
    /// The weights of n-grams of which each occurs in so many of `n_documents` documents.
    pub(super) fn new(items: &BenchmarkItems, n_with: &[u64], n_documents: u64) -> Self {
        let weights: Vec<f64> = n_with.iter().map(|n| weight(n_documents, *n)).collect();
        let total = |part: &Part| sum(&weights, part.grams.iter().copied());
        Self {
            totals: items.parts.iter().map(total).collect(),
            least: weight(n_documents, 1).min(TELLING_DOCUMENTS.ln()),
            weights,
            is_empty: n_documents == 0,
        }
    }

    /// The weight of distinct n-grams. Numbers are added in the given order: ascending for all sums, so that a sum of
    /// all n-grams of a part is its total exactly.
    pub(super) fn sum(&self, grams: impl Iterator<Item = u32>) -> f64 {
        sum(&self.weights, grams)
    }

    pub(super) fn total(&self, part: usize) -> f64 {
        self.totals[part]
    }

    pub(super) fn weight(&self, gram: u32) -> f64 {
        self.weights[gram as usize]
    }

    /// Whether a part has n-grams that are rare enough to claim anything.
    pub(super) fn is_telling(&self, part: usize) -> bool {
        // In a corpus of one document `least` is 0, and so is the weight of what that document has.
        self.is_empty || self.totals[part] > 0.0 && self.totals[part] >= self.least
    }
}

fn sum(weights: &[f64], grams: impl Iterator<Item = u32>) -> f64 {
    grams.map(|gram| weights[gram as usize]).sum()
}
