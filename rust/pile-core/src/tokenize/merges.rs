//! Byte-pair merging of one piece.
//!
//! The rule: among the pairs of neighbours that have a merge, the one of lowest rank is merged,
//! the leftmost of equals, until no pair is left. Short pieces look at all pairs each time,
//! long ones keep them in a heap, O(n log n). Source: Sennrich et al. 2016, arXiv:1508.07909;
//! order of merges as in Hugging Face `tokenizers` 0.23.3.

use rustc_hash::FxHashMap;
use std::{cmp::Reverse, collections::BinaryHeap};

/// Pieces with more symbols than this go through the heap.
const MAX_SCANNED: usize = 48;
const NONE: usize = usize::MAX;

/// What a pair of neighbours becomes. Ordered by rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Merge {
    pub(super) rank: u32,
    pub(super) id: u32,
}

impl Merge {
    /// Stands for "these two do not merge"; a real rank is smaller.
    const NEVER: Self = Self {
        rank: u32::MAX,
        id: u32::MAX,
    };
}

/// The merges of a vocabulary, and the ids of its single bytes.
#[derive(Debug)]
pub(super) struct MergeTable {
    pairs: FxHashMap<u64, Merge>,
    byte_ids: [Option<u32>; 256],
}

/// Buffers that are reused from piece to piece.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    ids: Vec<u32>,
    merges: Vec<Merge>,
    next: Vec<usize>,
    previous: Vec<usize>,
    heap: BinaryHeap<Reverse<(u32, usize)>>,
}

fn key(left: u32, right: u32) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

impl MergeTable {
    /// A table without merges. Bytes without id are left out of the output, as the reference
    /// does where there is no unknown token.
    pub(super) fn new(byte_ids: [Option<u32>; 256], n_merges: usize) -> Self {
        let mut pairs = FxHashMap::default();
        pairs.reserve(n_merges);
        Self { pairs, byte_ids }
    }

    /// Makes `merge` what `left` and `right` become; the last one set holds.
    pub(super) fn set(&mut self, left: u32, right: u32, merge: Merge) {
        self.pairs.insert(key(left, right), merge);
    }

    #[inline]
    fn get(&self, left: u32, right: u32) -> Merge {
        let found = self.pairs.get(&key(left, right));
        found.copied().unwrap_or(Merge::NEVER)
    }

    /// Appends the ids of `piece` to `out`.
    pub(super) fn merge(&self, piece: &[u8], scratch: &mut Scratch, out: &mut Vec<u32>) {
        let ids = piece.iter().filter_map(|b| self.byte_ids[usize::from(*b)]);
        scratch.ids.clear();
        scratch.ids.extend(ids);
        let pairs = scratch.ids.windows(2).map(|w| self.get(w[0], w[1]));
        scratch.merges.clear();
        scratch.merges.extend(pairs);
        if scratch.ids.len() <= MAX_SCANNED {
            self.merge_by_scan(scratch);
            out.extend_from_slice(&scratch.ids);
        } else {
            self.merge_by_heap(scratch, out);
        }
    }

    /// Merges until no pair is left; quadratic, quick for few symbols.
    fn merge_by_scan(&self, scratch: &mut Scratch) {
        let (ids, merges) = (&mut scratch.ids, &mut scratch.merges);
        while let Some((at, best)) = lowest(merges) {
            ids[at] = best.id;
            ids.remove(at + 1);
            merges.remove(at);
            if at > 0 {
                merges[at - 1] = self.get(ids[at - 1], ids[at]);
            }
            if at < merges.len() {
                merges[at] = self.get(ids[at], ids[at + 1]);
            }
        }
    }

    /// The same by a linked list and a heap of candidate merges.
    ///
    /// `merges[i]` is what the living symbol `i` becomes with its right neighbour. A candidate
    /// whose rank is no longer that one is out of date and dropped.
    fn merge_by_heap(&self, scratch: &mut Scratch, out: &mut Vec<u32>) {
        scratch.link();
        while let Some(Reverse((rank, at))) = scratch.heap.pop() {
            let merge = scratch.merges[at];
            if merge.rank != rank || rank == Merge::NEVER.rank {
                continue;
            }
            scratch.join(at, merge.id);
            self.refresh(scratch, at);
            if scratch.previous[at] != NONE {
                self.refresh(scratch, scratch.previous[at]);
            }
        }
        let mut at = 0;
        while at != NONE {
            out.push(scratch.ids[at]);
            at = scratch.next[at];
        }
    }

    /// Looks up anew what symbol `at` becomes with its right neighbour.
    fn refresh(&self, scratch: &mut Scratch, at: usize) {
        let next = scratch.next[at];
        let merge = match next {
            NONE => Merge::NEVER,
            next => self.get(scratch.ids[at], scratch.ids[next]),
        };
        scratch.merges[at] = merge;
        if merge != Merge::NEVER {
            scratch.heap.push(Reverse((merge.rank, at)));
        }
    }
}

impl Scratch {
    /// Links all symbols in order and queues all their merges.
    fn link(&mut self) {
        let n = self.ids.len();
        self.merges.push(Merge::NEVER); // The last symbol has no right neighbour.
        self.next.clear();
        self.next.extend(1..n);
        self.next.push(NONE);
        self.previous.clear();
        self.previous.push(NONE);
        self.previous.extend(0..n - 1);
        let mut queue = std::mem::take(&mut self.heap).into_vec();
        queue.clear();
        let found = (0..n).filter(|i| self.merges[*i] != Merge::NEVER);
        queue.extend(found.map(|i| Reverse((self.merges[i].rank, i))));
        self.heap = BinaryHeap::from(queue);
    }

    /// Makes symbol `at` and its right neighbour one symbol `id`.
    fn join(&mut self, at: usize, id: u32) {
        let gone = self.next[at];
        let next = self.next[gone];
        self.ids[at] = id;
        self.merges[gone] = Merge::NEVER;
        self.next[at] = next;
        if next != NONE {
            self.previous[next] = at;
        }
    }
}

/// The merge of lowest rank and its position, the leftmost of equals.
#[inline]
fn lowest(merges: &[Merge]) -> Option<(usize, Merge)> {
    let mut best = (0, Merge::NEVER);
    for (at, merge) in merges.iter().enumerate() {
        if merge.rank < best.1.rank {
            best = (at, *merge);
        }
    }
    (best.1 != Merge::NEVER).then_some(best)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bytes a..=d are ids 0..=3; each merge is (left, right, result).
    fn table(merges: &[(u32, u32, u32)]) -> MergeTable {
        let mut byte_ids = [None; 256];
        for (byte, id) in (b'a'..=b'd').zip(0..) {
            byte_ids[usize::from(byte)] = Some(id);
        }
        let mut table = MergeTable::new(byte_ids, merges.len());
        for (rank, (left, right, id)) in (0..).zip(merges) {
            table.set(*left, *right, Merge { rank, id: *id });
        }
        table
    }

    fn merged(table: &MergeTable, piece: &[u8]) -> Vec<u32> {
        let mut out = Vec::new();
        table.merge(piece, &mut Scratch::default(), &mut out);
        out
    }

    #[test]
    fn lowest_rank_first_then_leftmost() {
        let t = table(&[(1, 2, 4), (0, 1, 5)]);
        assert_eq!(merged(&t, b"abc"), [0, 4]);
        assert_eq!(merged(&t, b"abab"), [5, 5]);
        let t = table(&[(0, 0, 4)]);
        assert_eq!(merged(&t, b"aaa"), [4, 0]);
    }

    #[test]
    fn bytes_without_id_are_left_out() {
        let t = table(&[(0, 1, 4)]);
        assert_eq!(merged(&t, b"axb"), [4]);
        assert_eq!(merged(&t, b"x"), [0; 0]);
        assert_eq!(merged(&t, &[b'x'; 1000]), [0; 0]);
    }

    #[test]
    fn a_million_equal_letters() {
        let t = table(&[(0, 0, 4), (4, 4, 5), (5, 5, 6)]);
        let out = merged(&t, &vec![b'a'; 1_000_003]);
        assert_eq!(out.len(), 125_000 + 2);
        assert_eq!(out[out.len() - 3..], [6, 4, 0]);
    }

    proptest! {
        #[test]
        fn heap_equals_scan(piece in proptest::collection::vec(b'a'..=b'd', 1..200)) {
            let t = table(&[(2, 3, 4), (0, 1, 5), (5, 5, 6), (1, 0, 7), (6, 4, 8), (0, 0, 9), (4, 4, 10)]);
            let ids: Vec<u32> = piece.iter().map(|b| u32::from(b - b'a')).collect();
            let merges: Vec<Merge> = ids.windows(2).map(|w| t.get(w[0], w[1])).collect();
            let mut scratch = Scratch { ids: ids.clone(), merges: merges.clone(), ..Scratch::default() };
            t.merge_by_scan(&mut scratch);
            let mut by_heap = Vec::new();
            t.merge_by_heap(&mut Scratch { ids, merges, ..Scratch::default() }, &mut by_heap);
            prop_assert_eq!(scratch.ids, by_heap);
        }
    }
}
