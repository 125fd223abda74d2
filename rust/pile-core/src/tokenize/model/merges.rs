//! Byte-pair merging of one piece.
//!
//! The rule: among the pairs of neighbours that have a merge, the one of lowest rank is merged,
//! the leftmost of equals, until no pair is left. Short pieces look at all pairs each time,
//! long ones keep them in a queue, O(n log n). Source: Sennrich et al. 2016, arXiv:1508.07909;
//! order of merges as in Hugging Face `tokenizers` 0.23.3.

use rustc_hash::FxHashMap;

use crate::tokenize::{model::cache::ID_LIMIT, model::queue::Queue};

/// Pieces with more symbols than this go through the queue: a bit of a word for each.
const MAX_SCANNED: usize = 64;
/// Longer texts are refused: symbols of a piece are numbered in 32 bits, one number of which stands for none.
pub(crate) const MAX_TEXT_BYTES: usize = u32::MAX as usize;
const POSITION_BITS: u32 = MAX_SCANNED.trailing_zeros();

/// Ranks are below this, so that rank and position of a scanned symbol fit a word.
pub(crate) const RANK_LIMIT: u32 = 1 << 24;
/// Stands for "these two do not merge"; a real rank is smaller.
const NEVER: u32 = u32::MAX;
const NONE: u32 = u32::MAX;
/// In place of rank and position of a scanned symbol: it does not merge.
const NO_CANDIDATE: i32 = i32::MAX;

/// The merges of a vocabulary, and the ids of its single bytes.
///
/// Most pairs do not merge, and each look at a large table is a wait for memory: pairs of bytes have a
/// table of their own, and a filter of a bit a place tells most other pairs that do not merge.
#[derive(Debug)]
pub(crate) struct MergeTable {
    /// An open-addressing table of (left id, right id, rank), 20 + 20 + 24 bits.
    slots: Box<[u64]>,
    shift: u32,
    /// A bit for each place that a pair that merges has here; a pair without its bit does not merge.
    filter: Box<[u64; N_FILTER_BITS / 64]>,
    /// Rank of the merge of two bytes, or `NEVER`, at `left << 8 | right`.
    byte_pairs: Box<[u32]>,
    /// The byte of an id that is that of a byte.
    bytes: FxHashMap<u32, u8>,
    /// What a pair becomes, by rank.
    results: Vec<u32>,
    /// What the first merge makes, as long as each makes the id after that of the merge before: then a
    /// look at `results` is saved.
    first_result: Option<u32>,
    byte_ids: [Option<u32>; 256],
}

const EMPTY: u64 = u64::MAX;
const N_FILTER_BITS: usize = 1 << 19;
const RANK_BITS: u32 = RANK_LIMIT.trailing_zeros();
const ID_BITS: u32 = ID_LIMIT.trailing_zeros();

/// Buffers that are reused from piece to piece.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    bytes: Vec<u8>,
    ids: Vec<u32>,
    ranks: Vec<u32>,
    next: Vec<u32>,
    previous: Vec<u32>,
    queue: Queue,
}

impl MergeTable {
    /// A table without merges, with room for `n_merges`.
    pub(crate) fn new(byte_ids: [Option<u32>; 256], n_merges: usize) -> Self {
        let n_slots = (2 * n_merges + 2).next_power_of_two();
        Self {
            slots: vec![EMPTY; n_slots].into(),
            shift: u64::BITS - n_slots.trailing_zeros(),
            filter: Box::new([0; N_FILTER_BITS / 64]),
            byte_pairs: vec![NEVER; 1 << 16].into(),
            bytes: (0..=255)
                .filter_map(|byte: u8| Some((byte_ids[usize::from(byte)]?, byte)))
                .collect(),
            results: Vec::with_capacity(n_merges),
            first_result: None,
            byte_ids,
        }
    }

    /// Adds the merge of the next rank: `left` and `right` become `id`. Of two of the same pair the
    /// last one holds. Ids must be below `ID_LIMIT`, ranks below `RANK_LIMIT`.
    pub(crate) fn push(&mut self, left: u32, right: u32, id: u32) {
        let (pair, rank) = (pair(left, right), self.results.len() as u64);
        let mut at = self.first_slot(pair);
        while self.slots[at] != EMPTY && self.slots[at] >> RANK_BITS != pair {
            at = (at + 1) & (self.slots.len() - 1);
        }
        self.slots[at] = pair << RANK_BITS | rank;
        let (word, bit) = filter_place(hash(pair));
        self.filter[word] |= bit;
        if let (Some(left), Some(right)) = (self.bytes.get(&left), self.bytes.get(&right)) {
            self.byte_pairs[byte_pair(*left, *right)] = rank as u32;
        }
        let first = match rank {
            0 => Some(id),
            _ => self.first_result,
        };
        self.first_result = first.filter(|first| first.checked_add(rank as u32) == Some(id));
        self.results.push(id);
    }

    /// What the merge of a rank makes.
    #[inline]
    fn result(&self, rank: u32) -> u32 {
        match self.first_result {
            Some(first) => first + rank,
            None => self.results[rank as usize],
        }
    }

    /// Whether every byte that UTF-8 uses has an id.
    pub(crate) fn has_all_bytes(&self) -> bool {
        let used = |b: &usize| !matches!(b, 0xC0 | 0xC1 | 0xF5..);
        (0..256).filter(used).all(|b| self.byte_ids[b].is_some())
    }

    #[inline]
    fn first_slot(&self, pair: u64) -> usize {
        (hash(pair) >> self.shift) as usize
    }

    /// Rank of the merge of two neighbours, or `NEVER`.
    #[inline]
    fn rank(&self, left: u32, right: u32) -> u32 {
        let pair = pair(left, right);
        let (word, bit) = filter_place(hash(pair));
        if self.filter[word] & bit == 0 {
            return NEVER;
        }
        let mut at = self.first_slot(pair);
        loop {
            let slot = self.slots[at];
            if slot >> RANK_BITS == pair {
                return slot as u32 & (RANK_LIMIT - 1);
            }
            if slot == EMPTY {
                return NEVER;
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }

    /// Appends the ids of `piece` to `out`; or returns a byte of it that has no id. The reference leaves such
    /// bytes out, and text would be lost without a word.
    pub(crate) fn merge(
        &self,
        piece: &[u8],
        scratch: &mut Scratch,
        out: &mut Vec<u32>,
    ) -> Result<(), u8> {
        let Scratch { bytes, ids, .. } = scratch;
        bytes.clear();
        ids.clear();
        for byte in piece {
            bytes.push(*byte);
            ids.push(self.byte_ids[usize::from(*byte)].ok_or(*byte)?);
        }
        if ids.len() <= MAX_SCANNED {
            self.merge_by_scan(bytes, ids, out);
        } else {
            self.merge_by_queue(scratch, out);
        }
        Ok(())
    }

    /// Merges until no pair is left, by looking at all pairs each time; for up to 64 symbols.
    ///
    /// A word for each symbol holds the rank of its merge with its right neighbour and, below it,
    /// its position: the least word is the leftmost merge of lowest rank.
    fn merge_by_scan(&self, bytes: &[u8], ids: &mut [u32], out: &mut Vec<u32>) {
        let n = ids.len();
        let candidate = |rank: u32, at: usize| match rank {
            NEVER => NO_CANDIDATE,
            rank => (rank << POSITION_BITS | at as u32) as i32,
        };
        let mut candidates = [NO_CANDIDATE; MAX_SCANNED];
        for (at, pair) in bytes.windows(2).enumerate() {
            let rank = self.byte_pairs[byte_pair(pair[0], pair[1])];
            candidates[at] = candidate(rank, at);
        }
        let mut alive = u64::MAX.checked_shr(64 - n as u32).unwrap_or(0);
        let lanes = &mut candidates[..n.next_multiple_of(8)];
        while let Some(best) = lanes.iter().copied().min().filter(|b| *b != NO_CANDIDATE) {
            let at = best as usize & (MAX_SCANNED - 1);
            ids[at] = self.result((best >> POSITION_BITS) as u32);
            let behind = alive & (u64::MAX << 1) << at;
            let gone = behind.trailing_zeros() as usize;
            alive &= !(1 << gone);
            lanes[gone] = NO_CANDIDATE;
            let behind = behind & (behind - 1);
            lanes[at] = match behind {
                0 => NO_CANDIDATE,
                _ => candidate(
                    self.rank(ids[at], ids[behind.trailing_zeros() as usize]),
                    at,
                ),
            };
            let before = alive & ((1 << at) - 1);
            if before != 0 {
                let left = 63 - before.leading_zeros() as usize;
                lanes[left] = candidate(self.rank(ids[left], ids[at]), left);
            }
        }
        while alive != 0 {
            out.push(ids[alive.trailing_zeros() as usize]);
            alive &= alive - 1;
        }
    }

    /// The same by a linked list and a queue of candidate merges.
    ///
    /// `ranks[i]` is that of the living symbol `i` with its right neighbour. A candidate whose rank
    /// is no longer that one is out of date and dropped.
    fn merge_by_queue(&self, scratch: &mut Scratch, out: &mut Vec<u32>) {
        let ranks = scratch.ids.windows(2).map(|w| self.rank(w[0], w[1]));
        scratch.ranks.clear();
        scratch.ranks.extend(ranks);
        scratch.link();
        while let Some((rank, at)) = scratch.queue.pop() {
            if scratch.ranks[at as usize] != rank {
                continue;
            }
            scratch.join(at, self.result(rank));
            self.refresh(scratch, at);
            let previous = scratch.previous[at as usize];
            if previous != NONE {
                self.refresh(scratch, previous);
            }
        }
        let mut at = 0;
        while at != NONE {
            out.push(scratch.ids[at as usize]);
            at = scratch.next[at as usize];
        }
    }

    /// Looks up anew what symbol `at` becomes with its right neighbour.
    fn refresh(&self, scratch: &mut Scratch, at: u32) {
        let rank = match scratch.next[at as usize] {
            NONE => NEVER,
            next => self.rank(scratch.ids[at as usize], scratch.ids[next as usize]),
        };
        scratch.ranks[at as usize] = rank;
        if rank != NEVER {
            scratch.queue.push(rank, at);
        }
    }
}

/// Place of a pair of bytes in its table.
#[inline]
fn byte_pair(left: u8, right: u8) -> usize {
    usize::from(left) << 8 | usize::from(right)
}

#[inline]
fn hash(pair: u64) -> u64 {
    const ODD: u64 = 0x9E37_79B9_7F4A_7C15; // 2^64 / golden ratio.
    pair.wrapping_mul(ODD)
}

/// Word and bit of a hash in the filter.
#[inline]
fn filter_place(hash: u64) -> (usize, u64) {
    let at = (hash >> (u64::BITS - N_FILTER_BITS.trailing_zeros())) as usize;
    (at / 64, 1 << (at % 64))
}

/// Two ids as one number.
#[inline]
fn pair(left: u32, right: u32) -> u64 {
    u64::from(left) << ID_BITS | u64::from(right)
}

impl Scratch {
    /// Links all symbols in order and queues all their merges.
    fn link(&mut self) {
        let n = self.ids.len() as u32; // A text is of under 4 GiB: `check_length`.
        self.ranks.push(NEVER); // The last symbol has no right neighbour.
        self.next.clear();
        self.next.extend(1..n);
        self.next.push(NONE);
        self.previous.clear();
        self.previous.push(NONE);
        self.previous.extend(0..n - 1);
        for (at, rank) in (0..).zip(&self.ranks).filter(|(_, rank)| **rank != NEVER) {
            self.queue.push(*rank, at);
        }
    }

    /// Makes symbol `at` and its right neighbour one symbol `id`.
    fn join(&mut self, at: u32, id: u32) {
        let gone = self.next[at as usize];
        let next = self.next[gone as usize];
        self.ids[at as usize] = id;
        self.ranks[gone as usize] = NEVER;
        self.next[at as usize] = next;
        if next != NONE {
            self.previous[next as usize] = at;
        }
    }
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
        for (left, right, id) in merges {
            table.push(*left, *right, *id);
        }
        table
    }

    fn merged(table: &MergeTable, piece: &[u8]) -> Vec<u32> {
        let mut out = Vec::new();
        let merged = table.merge(piece, &mut Scratch::default(), &mut out);
        assert_eq!(merged, Ok(()));
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
    fn a_byte_without_id_is_named() {
        let t = table(&[(0, 1, 4)]);
        let merged = |piece: &[u8]| t.merge(piece, &mut Scratch::default(), &mut Vec::new());
        assert_eq!(merged(b"axb"), Err(b'x'));
        assert_eq!(merged(b"x"), Err(b'x'));
        assert_eq!(merged(&[b'x'; 1000]), Err(b'x'));
    }

    #[test]
    fn of_a_pair_given_twice_the_last_holds() {
        let t = table(&[(0, 1, 4), (1, 2, 5), (0, 1, 6)]);
        assert_eq!(merged(&t, b"abc"), [0, 5]);
        assert_eq!(merged(&t, b"ab"), [6]);
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
        fn queue_equals_scan(piece in proptest::collection::vec(b'a'..=b'd', 1..=MAX_SCANNED)) {
            let t = table(&[(2, 3, 4), (0, 1, 5), (5, 5, 6), (1, 0, 7), (6, 4, 8), (0, 0, 9), (4, 4, 10)]);
            let mut ids: Vec<u32> = piece.iter().map(|b| u32::from(b - b'a')).collect();
            let (mut by_scan, mut by_queue) = (Vec::new(), Vec::new());
            let mut scratch = Scratch { ids: ids.clone(), ..Scratch::default() };
            t.merge_by_scan(&piece, &mut ids, &mut by_scan);
            t.merge_by_queue(&mut scratch, &mut by_queue);
            prop_assert_eq!(by_scan, by_queue);
        }
    }
}
