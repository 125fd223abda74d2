//! Counts the pieces of documents, all that a trainer needs to know of a corpus.
//!
//! Most pieces are short: up to 16 bytes are a key of two words in a table of their own. The bytes of
//! longer ones lie one after the other in one buffer.

use crate::tokenize::{normalize::nfc::nfc, pretokenize::scan::Scanner};
use rustc_hash::FxBuildHasher;
use std::hash::BuildHasher;

/// How often each piece occurs.
#[derive(Debug, Default)]
pub(crate) struct PieceCounts {
    short: ShortCounts,
    long: LongCounts,
    n_bytes: u64,
    /// Where pieces of the text at hand end.
    ends: Vec<usize>,
}

impl PieceCounts {
    /// Counts the pieces of the NFC of `text`.
    pub(crate) fn add(&mut self, text: &str) {
        self.n_bytes += text.len() as u64;
        let text = nfc(text);
        let mut scanner = Scanner::new(&text, 0);
        let mut ends = std::mem::take(&mut self.ends);
        let mut start = 0;
        loop {
            ends.clear();
            scanner.next_ends(&mut ends);
            if ends.is_empty() {
                break;
            }
            for end in &ends {
                match short_key(text.as_bytes(), start, *end) {
                    Some(key) => self.short.count(key, 1),
                    None => self.long.count(&text.as_bytes()[start..*end], 1),
                }
                start = *end;
            }
        }
        self.ends = ends;
    }

    /// Adds the counts of `other`.
    pub(crate) fn absorb(&mut self, mut other: Self) {
        self.n_bytes += other.n_bytes;
        // The smaller into the larger: what comes in the order of a larger table crowds together.
        if other.short.slots.len() > self.short.slots.len() {
            std::mem::swap(&mut other.short, &mut self.short);
        }
        if other.long.slots.len() > self.long.slots.len() {
            std::mem::swap(&mut other.long, &mut self.long);
        }
        other.short.each(|key, n| self.short.count(key, n));
        other.long.each(|piece, n| self.long.count(piece, n));
    }

    /// Bytes of text counted so far.
    pub(crate) fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    /// Calls `visit` with each piece and its count, in no order.
    pub(crate) fn each(&self, mut visit: impl FnMut(&[u8], u64)) {
        self.short.each(|key, n| {
            let bytes: [u8; SHORT_BYTES] = bytemuck::cast(key);
            let len = bytes.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1);
            visit(&bytes[..len], n);
        });
        self.long.each(visit);
    }
}

/// A piece padded with zeros.
type ShortKey = [u64; 2];

const SHORT_BYTES: usize = 16;

/// The key of `text[start..end]`, which is not empty; none if it is long or ends with a zero.
#[inline]
fn short_key(text: &[u8], start: usize, end: usize) -> Option<ShortKey> {
    let len = end - start;
    if len > SHORT_BYTES || text[end - 1] == 0 {
        return None;
    }
    let bytes: [u8; SHORT_BYTES] = match text[start..].first_chunk() {
        Some(bytes) => *bytes,
        None => padded(&text[start..end]),
    };
    let kept = u128::MAX >> (128 - 8 * len);
    Some(bytemuck::cast(
        (u128::from_le_bytes(bytes) & kept).to_le_bytes(),
    ))
}

#[cold]
fn padded(piece: &[u8]) -> [u8; SHORT_BYTES] {
    let mut bytes = [0; SHORT_BYTES];
    bytes[..piece.len()].copy_from_slice(piece);
    bytes
}

/// Slots of a table, a power of 2, that are never all taken: at most three of four.
fn is_crowded(n_taken: usize, n_slots: usize) -> bool {
    4 * n_taken >= 3 * n_slots
}

const FIRST_SLOTS: usize = 1 << 10;

/// Counts by key, in open addressing; a slot with the key 0 is free.
#[derive(Debug)]
struct ShortCounts {
    slots: Vec<(ShortKey, u64)>,
    n_taken: usize,
}

impl Default for ShortCounts {
    fn default() -> Self {
        Self {
            slots: vec![([0; 2], 0); FIRST_SLOTS],
            n_taken: 0,
        }
    }
}

impl ShortCounts {
    #[inline]
    fn count(&mut self, key: ShortKey, n: u64) {
        let mask = self.slots.len() - 1;
        let mut at = hash(key) & mask;
        loop {
            let slot = &mut self.slots[at];
            if slot.0 == key {
                slot.1 += n;
                return;
            }
            if slot.0 == [0; 2] {
                *slot = (key, n);
                break;
            }
            at = (at + 1) & mask;
        }
        self.n_taken += 1;
        if is_crowded(self.n_taken, self.slots.len()) {
            self.grow();
        }
    }

    #[cold]
    fn grow(&mut self) {
        let grown = vec![([0; 2], 0); 2 * self.slots.len()];
        let old = std::mem::replace(&mut self.slots, grown);
        self.n_taken = 0;
        for (key, n) in old.into_iter().filter(|(key, _)| *key != [0; 2]) {
            self.count(key, n);
        }
    }

    fn each(&self, mut visit: impl FnMut(ShortKey, u64)) {
        for (key, n) in self.slots.iter().filter(|(key, _)| *key != [0; 2]) {
            visit(*key, *n);
        }
    }
}

/// The folded product of both words.
#[inline]
fn hash(key: ShortKey) -> usize {
    const ODD: [u64; 2] = [0x9E37_79B9_7F4A_7C15, 0xD1B5_4A32_D192_ED03];
    let product = u128::from(key[0] ^ ODD[0]) * u128::from(key[1] ^ ODD[1]);
    (product as u64 ^ (product >> 64) as u64) as usize
}

/// Counts of pieces of any length, in open addressing.
#[derive(Debug)]
struct LongCounts {
    bytes: Vec<u8>,
    pieces: Vec<LongPiece>,
    /// Number of a piece, plus 1; 0 is free.
    slots: Vec<usize>,
}

#[derive(Debug)]
struct LongPiece {
    hash: u64,
    /// In the bytes.
    end: usize,
    count: u64,
}

impl Default for LongCounts {
    fn default() -> Self {
        Self {
            bytes: Vec::new(),
            pieces: Vec::new(),
            slots: vec![0; FIRST_SLOTS],
        }
    }
}

impl LongCounts {
    fn count(&mut self, piece: &[u8], n: u64) {
        let hash = FxBuildHasher.hash_one(piece);
        let mut at = self.first_slot(hash);
        while self.slots[at] != 0 {
            let known = self.slots[at] - 1;
            if self.pieces[known].hash == hash && self.bytes_of(known) == piece {
                self.pieces[known].count += n;
                return;
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
        self.bytes.extend_from_slice(piece);
        self.pieces.push(LongPiece {
            hash,
            end: self.bytes.len(),
            count: n,
        });
        self.slots[at] = self.pieces.len();
        if is_crowded(self.pieces.len(), self.slots.len()) {
            self.grow();
        }
    }

    fn first_slot(&self, hash: u64) -> usize {
        hash as usize & (self.slots.len() - 1)
    }

    fn bytes_of(&self, piece: usize) -> &[u8] {
        let start = piece.checked_sub(1).map_or(0, |i| self.pieces[i].end);
        &self.bytes[start..self.pieces[piece].end]
    }

    #[cold]
    fn grow(&mut self) {
        self.slots = vec![0; 2 * self.slots.len()];
        for number in 0..self.pieces.len() {
            let mut at = self.first_slot(self.pieces[number].hash);
            while self.slots[at] != 0 {
                at = (at + 1) & (self.slots.len() - 1);
            }
            self.slots[at] = number + 1;
        }
    }

    fn each(&self, mut visit: impl FnMut(&[u8], u64)) {
        for (number, piece) in self.pieces.iter().enumerate() {
            visit(self.bytes_of(number), piece.count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenize::{
        normalize::nfc::nfc_always, pretokenize::pattern::Pattern, pretokenize::plain::plain_pieces,
    };
    use proptest::prelude::*;
    use std::collections::HashMap;

    type Counted = HashMap<Vec<u8>, u64>;

    fn counted(counts: &PieceCounts) -> Counted {
        let mut all = HashMap::new();
        counts.each(|piece, n| assert!(all.insert(piece.to_vec(), n).is_none(), "{piece:?} twice"));
        all
    }

    /// The same piece by piece.
    fn plain(texts: &[String]) -> Counted {
        let mut all = HashMap::new();
        for text in texts {
            for piece in plain_pieces(&nfc_always(text), Pattern::Gpt2) {
                *all.entry(piece.as_bytes().to_vec()).or_default() += 1;
            }
        }
        all
    }

    #[test]
    fn many_pieces_of_all_lengths() {
        let texts: Vec<String> = (0..4000)
            .map(|i| format!("{i}x{}\0 {}'s", "y\0".repeat(i % 40), "ab".repeat(i % 20)))
            .collect();
        let mut counts = PieceCounts::default();
        texts.iter().for_each(|text| counts.add(text));
        assert_eq!(counted(&counts), plain(&texts));
    }

    #[test]
    fn nothing_is_no_piece() {
        let mut counts = PieceCounts::default();
        counts.add("");
        assert_eq!(counted(&counts), Counted::new());
    }

    proptest! {
        #[test]
        fn equals_plain_counting(
            texts in proptest::collection::vec("([ab\0é\u{301} ]|[a-z]{14,18}|\\PC){0,30}", 0..6),
            split in 0..6usize,
        ) {
            let mut counts = [PieceCounts::default(), PieceCounts::default()];
            for (i, text) in texts.iter().enumerate() {
                counts[usize::from(i < split)].add(text);
            }
            let [mut all, other] = counts;
            all.absorb(other);
            prop_assert_eq!(counted(&all), plain(&texts));
            prop_assert_eq!(all.n_bytes(), texts.iter().map(|t| t.len() as u64).sum::<u64>());
        }
    }
}
