//! Counts the pretokens of documents. The counts are all that training uses of a corpus.
//!
//! Most pretokens are short: those of up to 16 bytes are keys of two words in one table. Longer ones are in a
//! second table, with their bytes concatenated in one buffer.

use crate::text::nfc::nfc;
use crate::tokenize::{
    model::pretoken_key::{self, MAX_SHORT_BYTES, ShortKey},
    pretokenize::block_scanner::BlockScanner,
    pretokenize::gpt2::Gpt2Rule,
};
use rustc_hash::FxBuildHasher;
use std::hash::BuildHasher;

/// The number of occurrences of each pretoken.
#[derive(Debug, Default)]
pub(crate) struct PretokenCounts {
    short: ShortCounts,
    long: LongCounts,
    n_bytes: u64,
    /// Scratch: the ends of pretokens of the current text.
    ends: Vec<usize>,
}

impl PretokenCounts {
    /// Counts the pretokens of `text` in NFC.
    pub(crate) fn add(&mut self, text: &str) {
        self.n_bytes += text.len() as u64;
        let text = nfc(text);
        // 0: no run of spaces is a token.
        let mut scanner = BlockScanner::new(&text, Gpt2Rule::new(0));
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
        // Insert the smaller table into the larger one. Keys in the slot order of a larger table would fill one
        // region of a smaller table after the other, which makes probing long.
        if other.short.slots.len() > self.short.slots.len() {
            std::mem::swap(&mut other.short, &mut self.short);
        }
        if other.long.slots.len() > self.long.slots.len() {
            std::mem::swap(&mut other.long, &mut self.long);
        }
        other.short.for_each(|key, n| self.short.count(key, n));
        other
            .long
            .for_each(|pretoken, n| self.long.count(pretoken, n));
    }

    /// Bytes of the texts, before normalization.
    pub(crate) fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    /// Calls `visit` with each pretoken and its count, in unspecified order.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(&[u8], u64)) {
        self.short.for_each(|key, n| {
            let bytes: [u8; MAX_SHORT_BYTES] = bytemuck::cast(key);
            // A key never ends with a zero byte, so zeros at the end are padding.
            let len = bytes.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1);
            visit(&bytes[..len], n);
        });
        self.long.for_each(visit);
    }
}

/// The key of `text[start..end]`, which must not be empty. None if it is long or ends with a zero byte.
#[inline]
fn short_key(text: &[u8], start: usize, end: usize) -> Option<ShortKey> {
    let len = end - start;
    if len > MAX_SHORT_BYTES || text[end - 1] == 0 {
        return None;
    }
    let bytes: [u8; MAX_SHORT_BYTES] = pretoken_key::load(text, start, end);
    let mask = u128::MAX >> (128 - 8 * len);
    Some(bytemuck::cast(
        (u128::from_le_bytes(bytes) & mask).to_le_bytes(),
    ))
}

/// Whether three quarters of the slots of a table are used. It then grows: a full table would make probing loop
/// forever.
fn must_grow(n_used: usize, n_slots: usize) -> bool {
    4 * n_used >= 3 * n_slots
}

/// Slots of an empty table. The number of slots is always a power of 2.
const INITIAL_SLOTS: usize = 1 << 10;

/// A slot of [`ShortCounts`] without a key. No pretoken has the key 0.
const FREE_SLOT: (ShortKey, u64) = ([0; 2], 0);

/// Counts of pretokens that have a [`ShortKey`]: a hash table with linear probing.
#[derive(Debug)]
struct ShortCounts {
    /// Keys and their counts.
    slots: Vec<(ShortKey, u64)>,
    n_used: usize,
}

impl Default for ShortCounts {
    fn default() -> Self {
        Self {
            slots: vec![FREE_SLOT; INITIAL_SLOTS],
            n_used: 0,
        }
    }
}

impl ShortCounts {
    #[inline]
    fn count(&mut self, key: ShortKey, n: u64) {
        let mask = self.slots.len() - 1;
        let mut at = pretoken_key::hash(key) & mask;
        loop {
            let slot = &mut self.slots[at];
            if slot.0 == key {
                slot.1 += n;
                return;
            }
            if slot.0 == FREE_SLOT.0 {
                *slot = (key, n);
                break;
            }
            at = (at + 1) & mask;
        }
        self.n_used += 1;
        if must_grow(self.n_used, self.slots.len()) {
            self.grow();
        }
    }

    #[cold]
    fn grow(&mut self) {
        let grown = vec![FREE_SLOT; 2 * self.slots.len()];
        let old = std::mem::replace(&mut self.slots, grown);
        self.n_used = 0;
        for (key, n) in old.into_iter().filter(|(key, _)| *key != FREE_SLOT.0) {
            self.count(key, n);
        }
    }

    fn for_each(&self, mut visit: impl FnMut(ShortKey, u64)) {
        for (key, n) in self.slots.iter().filter(|(key, _)| *key != FREE_SLOT.0) {
            visit(*key, *n);
        }
    }
}

/// Counts of the other pretokens: a hash table with linear probing, whose slots are indices.
#[derive(Debug)]
struct LongCounts {
    /// The concatenated bytes of `pretokens`.
    bytes: Vec<u8>,
    pretokens: Vec<LongPretoken>,
    /// The index of a pretoken plus 1; 0 if the slot is free.
    slots: Vec<usize>,
}

#[derive(Debug)]
struct LongPretoken {
    hash: u64,
    /// End offset in `LongCounts::bytes`. The start is the end of the previous pretoken.
    end: usize,
    count: u64,
}

impl Default for LongCounts {
    fn default() -> Self {
        Self {
            bytes: Vec::new(),
            pretokens: Vec::new(),
            slots: vec![0; INITIAL_SLOTS],
        }
    }
}

impl LongCounts {
    fn count(&mut self, pretoken: &[u8], n: u64) {
        let hash = FxBuildHasher.hash_one(pretoken);
        let mut at = self.first_slot(hash);
        while self.slots[at] != 0 {
            let known = self.slots[at] - 1;
            if self.pretokens[known].hash == hash && self.bytes_of(known) == pretoken {
                self.pretokens[known].count += n;
                return;
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
        self.bytes.extend_from_slice(pretoken);
        self.pretokens.push(LongPretoken {
            hash,
            end: self.bytes.len(),
            count: n,
        });
        self.slots[at] = self.pretokens.len();
        if must_grow(self.pretokens.len(), self.slots.len()) {
            self.grow();
        }
    }

    fn first_slot(&self, hash: u64) -> usize {
        hash as usize & (self.slots.len() - 1)
    }

    fn bytes_of(&self, pretoken: usize) -> &[u8] {
        let start = pretoken.checked_sub(1).map_or(0, |i| self.pretokens[i].end);
        &self.bytes[start..self.pretokens[pretoken].end]
    }

    #[cold]
    fn grow(&mut self) {
        self.slots = vec![0; 2 * self.slots.len()];
        for index in 0..self.pretokens.len() {
            let mut at = self.first_slot(self.pretokens[index].hash);
            while self.slots[at] != 0 {
                at = (at + 1) & (self.slots.len() - 1);
            }
            self.slots[at] = index + 1;
        }
    }

    fn for_each(&self, mut visit: impl FnMut(&[u8], u64)) {
        for (index, pretoken) in self.pretokens.iter().enumerate() {
            visit(self.bytes_of(index), pretoken.count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::nfc::nfc_always;
    use crate::tokenize::{
        pretokenize::pattern::Pattern, pretokenize::reference::reference_pretokens,
    };
    use proptest::prelude::*;
    use std::collections::HashMap;

    type Counted = HashMap<Vec<u8>, u64>;

    fn counted(counts: &PretokenCounts) -> Counted {
        let mut all = HashMap::new();
        counts.for_each(|pretoken, n| {
            assert!(
                all.insert(pretoken.to_vec(), n).is_none(),
                "{pretoken:?} twice"
            )
        });
        all
    }

    /// The counts of the pretokens found by the reference.
    fn expected(texts: &[String]) -> Counted {
        let mut all = HashMap::new();
        for text in texts {
            for pretoken in reference_pretokens(&nfc_always(text), Pattern::Gpt2) {
                *all.entry(pretoken.as_bytes().to_vec()).or_default() += 1;
            }
        }
        all
    }

    #[test]
    fn many_pretokens_of_all_lengths() {
        let texts: Vec<String> = (0..4000)
            .map(|i| format!("{i}x{}\0 {}'s", "y\0".repeat(i % 40), "ab".repeat(i % 20)))
            .collect();
        let mut counts = PretokenCounts::default();
        texts.iter().for_each(|text| counts.add(text));
        assert_eq!(counted(&counts), expected(&texts));
    }

    #[test]
    fn an_empty_text_has_no_pretokens() {
        let mut counts = PretokenCounts::default();
        counts.add("");
        assert_eq!(counted(&counts), Counted::new());
    }

    proptest! {
        #[test]
        fn equals_counting_the_reference(
            texts in proptest::collection::vec("([ab\0é\u{301} ]|[a-z]{14,18}|\\PC){0,30}", 0..6),
            split in 0..6usize,
        ) {
            let mut counts = [PretokenCounts::default(), PretokenCounts::default()];
            for (i, text) in texts.iter().enumerate() {
                counts[usize::from(i < split)].add(text);
            }
            let [mut all, other] = counts;
            all.absorb(other);
            prop_assert_eq!(counted(&all), expected(&texts));
            prop_assert_eq!(all.n_bytes(), texts.iter().map(|t| t.len() as u64).sum::<u64>());
        }
    }
}
