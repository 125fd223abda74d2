//! Counts the pieces of documents, all that a trainer needs to know of a corpus.

use super::{normalize::nfc, pieces::pieces};
use rustc_hash::FxHashMap;

/// How often each piece occurs.
#[derive(Debug, Default)]
pub(super) struct PieceCounts {
    counts: FxHashMap<Box<[u8]>, u64>,
    n_bytes: u64,
}

impl PieceCounts {
    /// Counts the pieces of the NFC of `text`.
    pub(super) fn add(&mut self, text: &str) {
        self.n_bytes += text.len() as u64;
        for piece in pieces(&nfc(text)) {
            self.count(piece.as_bytes(), 1);
        }
    }

    /// Adds the counts of `other`.
    pub(super) fn absorb(&mut self, other: Self) {
        self.n_bytes += other.n_bytes;
        for (piece, n) in other.counts {
            self.count(&piece, n);
        }
    }

    /// Bytes of text counted so far.
    pub(super) fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    /// Pieces and their counts, sorted: the same whatever was counted in which order.
    pub(super) fn sorted(self) -> Vec<(Box<[u8]>, u64)> {
        let mut counts: Vec<_> = self.counts.into_iter().collect();
        counts.sort_unstable();
        counts
    }

    fn count(&mut self, piece: &[u8], n: u64) {
        match self.counts.get_mut(piece) {
            Some(count) => *count += n,
            None => {
                self.counts.insert(piece.into(), n);
            }
        }
    }
}
