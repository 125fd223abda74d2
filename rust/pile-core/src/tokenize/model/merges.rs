//! Byte-pair encoding of one pretoken.
//!
//! The rule: of the neighbouring symbols that have a merge, the pair of lowest rank is merged, the leftmost of
//! equals, until no pair has a merge. Pretokens of up to 64 symbols search all pairs for each merge. Longer ones
//! keep the candidates in a queue, which takes O(n log n). Source: Sennrich et al. 2016, arXiv:1508.07909. The
//! order of merges is that of Hugging Face `tokenizers` 0.23.3.

use rustc_hash::FxHashMap;

use crate::tokenize::{model::cache::ID_LIMIT, model::merge_queue::MergeQueue};

/// Symbols of the longest pretoken that is merged by scanning. Each has a bit of a `u64`.
const MAX_SCANNED: usize = 64;
/// Texts of this many bytes or more are refused. The symbols of a pretoken have indices of 32 bits, and [`NO_SYMBOL`]
/// is not an index. NFC may lengthen a text; the encoder therefore limits pretokens too, to far less.
pub(crate) const MAX_TEXT_BYTES: usize = u32::MAX as usize;
const POSITION_BITS: u32 = MAX_SCANNED.trailing_zeros();

/// All ranks are below this. The rank and position of a candidate then fit 30 bits, so that they are a
/// nonnegative `i32` less than [`NO_CANDIDATE`], and two ids with a rank fit a `u64`.
pub(crate) const RANK_LIMIT: u32 = 1 << 24;
/// The rank of a pair that has no merge.
const NO_MERGE: u32 = u32::MAX;
/// In the linked list of symbols: there is no neighbour.
const NO_SYMBOL: u32 = u32::MAX;
/// The candidate of a symbol that does not merge with its right neighbour. It is larger than any other.
const NO_CANDIDATE: i32 = i32::MAX;

/// The merges of a vocabulary, and the ids of its single bytes.
///
/// Most pairs of symbols have no merge, and a lookup in a large table waits for memory. So pairs of bytes have a
/// direct table, and a one-bit filter answers for most other pairs that have no merge.
#[derive(Debug)]
pub(crate) struct MergeTable {
    /// A hash table with linear probing. A slot is (left id, right id, rank) in 20 + 20 + 24 bits, or [`EMPTY`].
    /// At least half of the slots are empty, so probing ends.
    slots: Box<[u64]>,
    /// The index of the first slot of a hash is `hash >> shift`.
    shift: u32,
    /// A Bloom filter with one hash function: if the bit of a pair is 0, the pair has no merge. 64 KiB, so that
    /// it stays in the L2 cache.
    filter: Box<[u64; N_FILTER_BITS / 64]>,
    /// Rank of the merge of two bytes, or [`NO_MERGE`], at [`byte_pair_index`].
    byte_pairs: Box<[u32]>,
    /// The byte of each id that is a single byte.
    bytes: FxHashMap<u32, u8>,
    /// The id that the merge of each rank produces.
    results: Vec<u32>,
    /// The id that rank 0 produces, if each merge produces the id after the previous one's. Then the result of a
    /// merge is computed instead of loaded from `results`. Trained vocabularies are of this kind.
    first_result: Option<u32>,
    byte_ids: [Option<u32>; 256],
}

/// A slot without a merge. A merge with this value would have rank [`RANK_LIMIT`] - 1, which is never given.
const EMPTY: u64 = u64::MAX;
const N_FILTER_BITS: usize = 1 << 19;
const RANK_BITS: u32 = RANK_LIMIT.trailing_zeros();
const ID_BITS: u32 = ID_LIMIT.trailing_zeros();

/// Buffers that are reused from pretoken to pretoken.
#[derive(Debug, Default)]
pub(crate) struct MergeScratch {
    bytes: Vec<u8>,
    /// The symbols; at first one for each byte.
    ids: Vec<u32>,
    /// For each symbol, the rank of its merge with its right neighbour. [`NO_MERGE`] for removed symbols.
    ranks: Vec<u32>,
    /// Doubly linked list of the symbols that were not removed.
    next: Vec<u32>,
    previous: Vec<u32>,
    queue: MergeQueue,
}

impl MergeTable {
    /// A table without merges that has space for `n_merges`. More must not be pushed: a full table would make probing
    /// loop forever.
    pub(crate) fn new(byte_ids: [Option<u32>; 256], n_merges: usize) -> Self {
        let n_slots = (2 * n_merges + 2).next_power_of_two();
        Self {
            slots: vec![EMPTY; n_slots].into(),
            shift: u64::BITS - n_slots.trailing_zeros(),
            filter: Box::new([0; N_FILTER_BITS / 64]),
            byte_pairs: vec![NO_MERGE; 1 << 16].into(),
            bytes: (0..=255)
                .filter_map(|byte: u8| Some((byte_ids[usize::from(byte)]?, byte)))
                .collect(),
            results: Vec::with_capacity(n_merges),
            first_result: None,
            byte_ids,
        }
    }

    /// Adds the merge of the next rank: `left` and `right` become `id`.
    ///
    /// A pair that was added before gets the new rank. Ids must be below [`ID_LIMIT`], and there must be fewer
    /// than [`RANK_LIMIT`] merges.
    pub(crate) fn push(&mut self, left: u32, right: u32, id: u32) {
        let (pair, rank) = (pack_pair(left, right), self.results.len() as u64);
        let mut slot = self.first_slot(pair);
        while self.slots[slot] != EMPTY && self.slots[slot] >> RANK_BITS != pair {
            slot = (slot + 1) & (self.slots.len() - 1);
        }
        self.slots[slot] = pair << RANK_BITS | rank;
        let (word, bit) = filter_bit(hash(pair));
        self.filter[word] |= bit;
        if let (Some(left), Some(right)) = (self.bytes.get(&left), self.bytes.get(&right)) {
            self.byte_pairs[byte_pair_index(*left, *right)] = rank as u32;
        }
        let first = match rank {
            0 => Some(id),
            _ => self.first_result,
        };
        self.first_result = first.filter(|first| first.checked_add(rank as u32) == Some(id));
        self.results.push(id);
    }

    /// The id that the merge of `rank` produces.
    #[inline]
    fn result(&self, rank: u32) -> u32 {
        match self.first_result {
            Some(first) => first + rank,
            None => self.results[rank as usize],
        }
    }

    /// Whether every byte that occurs in UTF-8 has an id.
    pub(crate) fn has_all_bytes(&self) -> bool {
        let is_utf8 = |b: &usize| !matches!(b, 0xC0 | 0xC1 | 0xF5..);
        (0..256).filter(is_utf8).all(|b| self.byte_ids[b].is_some())
    }

    #[inline]
    fn first_slot(&self, pair: u64) -> usize {
        (hash(pair) >> self.shift) as usize
    }

    /// Rank of the merge of two neighbouring symbols, or [`NO_MERGE`].
    #[inline]
    fn rank(&self, left: u32, right: u32) -> u32 {
        let pair = pack_pair(left, right);
        let (word, bit) = filter_bit(hash(pair));
        if self.filter[word] & bit == 0 {
            return NO_MERGE;
        }
        let mut slot = self.first_slot(pair);
        loop {
            let entry = self.slots[slot];
            // First, as an empty slot has the bits of the pair of the largest id with itself.
            if entry == EMPTY {
                return NO_MERGE;
            }
            if entry >> RANK_BITS == pair {
                return entry as u32 & (RANK_LIMIT - 1);
            }
            slot = (slot + 1) & (self.slots.len() - 1);
        }
    }

    /// Appends the ids of `pretoken` to `out`.
    ///
    /// # Errors
    /// The first byte that has no id. Hugging Face `tokenizers` drops such bytes, which loses text silently.
    pub(crate) fn merge(
        &self,
        pretoken: &[u8],
        scratch: &mut MergeScratch,
        out: &mut Vec<u32>,
    ) -> Result<(), u8> {
        let MergeScratch { bytes, ids, .. } = scratch;
        bytes.clear();
        ids.clear();
        for byte in pretoken {
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

    /// Merges up to 64 symbols by searching all candidates for each merge.
    ///
    /// A candidate is the rank of the merge of a symbol with its right neighbour, and in the low bits the position
    /// of the symbol: the least candidate is the leftmost merge of the lowest rank. Symbols are not moved. A bit
    /// of `alive` says whether a symbol was not yet merged into its left neighbour, and neighbours are found by
    /// counting zeros.
    fn merge_by_scan(&self, bytes: &[u8], ids: &mut [u32], out: &mut Vec<u32>) {
        let n = ids.len();
        let candidate = |rank: u32, position: usize| match rank {
            NO_MERGE => NO_CANDIDATE,
            rank => (rank << POSITION_BITS | position as u32) as i32,
        };
        let mut candidates = [NO_CANDIDATE; MAX_SCANNED];
        for (position, pair) in bytes.windows(2).enumerate() {
            let rank = self.byte_pairs[byte_pair_index(pair[0], pair[1])];
            candidates[position] = candidate(rank, position);
        }
        // The shift is 64, and refused, if there are no symbols.
        let mut alive = u64::MAX.checked_shr(64 - n as u32).unwrap_or(0);
        // Whole groups of 8, so that the compiler computes the minimum with SIMD. The type is `i32`, as SSE
        // compares signed integers.
        let candidates = &mut candidates[..n.next_multiple_of(8)];
        while let Some(best) = candidates
            .iter()
            .copied()
            .min()
            .filter(|best| *best != NO_CANDIDATE)
        {
            let position = best as usize & (MAX_SCANNED - 1);
            ids[position] = self.result((best >> POSITION_BITS) as u32);
            // The right neighbour exists, as `position` has a candidate.
            let to_the_right = alive & (u64::MAX << 1) << position;
            let removed = to_the_right.trailing_zeros() as usize;
            alive &= !(1 << removed);
            candidates[removed] = NO_CANDIDATE;
            // Without its lowest bit, which is `removed`.
            let to_the_right = to_the_right & (to_the_right - 1);
            candidates[position] = match to_the_right {
                0 => NO_CANDIDATE,
                _ => candidate(
                    self.rank(ids[position], ids[to_the_right.trailing_zeros() as usize]),
                    position,
                ),
            };
            let to_the_left = alive & ((1 << position) - 1);
            if to_the_left != 0 {
                let left = 63 - to_the_left.leading_zeros() as usize;
                candidates[left] = candidate(self.rank(ids[left], ids[position]), left);
            }
        }
        while alive != 0 {
            out.push(ids[alive.trailing_zeros() as usize]);
            alive &= alive - 1;
        }
    }

    /// Merges any number of symbols with a linked list of symbols and a queue of candidates.
    ///
    /// A merge changes the ranks of its neighbours but leaves their old candidates in the queue. A candidate whose
    /// rank differs from that in `ranks` is such an old one and is dropped.
    fn merge_by_queue(&self, scratch: &mut MergeScratch, out: &mut Vec<u32>) {
        let ranks = scratch.ids.windows(2).map(|w| self.rank(w[0], w[1]));
        scratch.ranks.clear();
        scratch.ranks.extend(ranks);
        scratch.link_symbols();
        while let Some((rank, symbol)) = scratch.queue.pop() {
            if scratch.ranks[symbol as usize] != rank {
                continue;
            }
            scratch.merge_with_next(symbol, self.result(rank));
            self.update_rank(scratch, symbol);
            let previous = scratch.previous[symbol as usize];
            if previous != NO_SYMBOL {
                self.update_rank(scratch, previous);
            }
        }
        let mut symbol = 0;
        while symbol != NO_SYMBOL {
            out.push(scratch.ids[symbol as usize]);
            symbol = scratch.next[symbol as usize];
        }
    }

    /// Updates the rank of the merge of `symbol` with its right neighbour, and queues the merge if there is one.
    fn update_rank(&self, scratch: &mut MergeScratch, symbol: u32) {
        let rank = match scratch.next[symbol as usize] {
            NO_SYMBOL => NO_MERGE,
            next => self.rank(scratch.ids[symbol as usize], scratch.ids[next as usize]),
        };
        scratch.ranks[symbol as usize] = rank;
        if rank != NO_MERGE {
            scratch.queue.push(rank, symbol);
        }
    }
}

/// Index of a pair of bytes in `MergeTable::byte_pairs`.
#[inline]
fn byte_pair_index(left: u8, right: u8) -> usize {
    usize::from(left) << 8 | usize::from(right)
}

/// Multiplicative hash, good in its upper bits.
#[inline]
fn hash(pair: u64) -> u64 {
    const ODD: u64 = 0x9E37_79B9_7F4A_7C15; // 2^64 / golden ratio
    pair.wrapping_mul(ODD)
}

/// Index of the word and the bit of a hash in the filter.
#[inline]
fn filter_bit(hash: u64) -> (usize, u64) {
    let index = (hash >> (u64::BITS - N_FILTER_BITS.trailing_zeros())) as usize;
    (index / 64, 1 << (index % 64))
}

/// Two ids as one number of 40 bits.
#[inline]
fn pack_pair(left: u32, right: u32) -> u64 {
    u64::from(left) << ID_BITS | u64::from(right)
}

impl MergeScratch {
    /// Links all symbols in order, and queues all their merges. `ranks` has those of all symbols but the last.
    fn link_symbols(&mut self) {
        // Fits: the encoder refuses pretokens of more than 32 MiB.
        let n = self.ids.len() as u32;
        self.ranks.push(NO_MERGE); // The last symbol has no right neighbour.
        self.next.clear();
        self.next.extend(1..n);
        self.next.push(NO_SYMBOL);
        self.previous.clear();
        self.previous.push(NO_SYMBOL);
        self.previous.extend(0..n - 1);
        for (symbol, rank) in (0..).zip(&self.ranks) {
            if *rank != NO_MERGE {
                self.queue.push(*rank, symbol);
            }
        }
    }

    /// Replaces `symbol` and its right neighbour by the one symbol `id`, at the index of `symbol`.
    fn merge_with_next(&mut self, symbol: u32, id: u32) {
        let removed = self.next[symbol as usize];
        let next = self.next[removed as usize];
        self.ids[symbol as usize] = id;
        self.ranks[removed as usize] = NO_MERGE;
        self.next[symbol as usize] = next;
        if next != NO_SYMBOL {
            self.previous[next as usize] = symbol;
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

    fn merged(table: &MergeTable, pretoken: &[u8]) -> Vec<u32> {
        let mut out = Vec::new();
        let merged = table.merge(pretoken, &mut MergeScratch::default(), &mut out);
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
    fn a_byte_without_an_id_is_an_error() {
        let t = table(&[(0, 1, 4)]);
        let merged =
            |pretoken: &[u8]| t.merge(pretoken, &mut MergeScratch::default(), &mut Vec::new());
        assert_eq!(merged(b"axb"), Err(b'x'));
        assert_eq!(merged(b"x"), Err(b'x'));
        assert_eq!(merged(&[b'x'; 1000]), Err(b'x'));
    }

    #[test]
    fn the_last_rank_of_a_repeated_pair_counts() {
        let t = table(&[(0, 1, 4), (1, 2, 5), (0, 1, 6)]);
        assert_eq!(merged(&t, b"abc"), [0, 5]);
        assert_eq!(merged(&t, b"ab"), [6]);
    }

    #[test]
    fn an_empty_slot_is_no_merge_of_the_largest_id_with_itself() {
        let largest = ID_LIMIT - 1;
        let filter_bit_of = |left, right| filter_bit(hash(pack_pair(left, right)));
        let expected = filter_bit_of(largest, largest);
        let (left, right) = (0..ID_LIMIT)
            .flat_map(|left| (0..100).map(move |right| (left, right)))
            .find(|(left, right)| filter_bit_of(*left, *right) == expected)
            .unwrap();
        let t = table(&[(left, right, 4)]);
        assert_eq!(t.rank(left, right), 0);
        assert_eq!(t.rank(largest, largest), NO_MERGE);
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
        fn queue_equals_scan(pretoken in proptest::collection::vec(b'a'..=b'd', 1..=MAX_SCANNED)) {
            let t = table(&[(2, 3, 4), (0, 1, 5), (5, 5, 6), (1, 0, 7), (6, 4, 8), (0, 0, 9), (4, 4, 10)]);
            let mut ids: Vec<u32> = pretoken.iter().map(|b| u32::from(b - b'a')).collect();
            let (mut by_scan, mut by_queue) = (Vec::new(), Vec::new());
            let mut scratch = MergeScratch { ids: ids.clone(), ..MergeScratch::default() };
            t.merge_by_scan(&pretoken, &mut ids, &mut by_scan);
            t.merge_by_queue(&mut scratch, &mut by_queue);
            prop_assert_eq!(by_scan, by_queue);
        }
    }
}
