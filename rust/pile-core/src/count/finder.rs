//! Finds every occurrence of many terms, overlapping ones included, in one pass from left to right.
//!
//! At each byte two small tables say of which lengths a term may start with the next bytes; mostly none. A
//! term of up to eight bytes is then looked up as a number, a longer one by its first eight bytes and, for each
//! length that terms with these have, as a whole. So the time depends on the occurrences, hardly on the terms.

use rustc_hash::FxHashMap;

use crate::{Error, Result};

/// Bytes of a term that are looked up as a number.
const SHORT: usize = 8;

/// Bytes that must stand behind a text's end: any will do.
pub(crate) const SLACK_BYTES: usize = SHORT;

/// Bits of the hash of a term's first four bytes.
const FOUR_BITS: u32 = 16;

/// Finds terms.
#[derive(Debug)]
pub struct Finder {
    terms: Vec<Box<[u8]>>,
    /// By the next two bytes, a bit for each length of 1 to 8 bytes that a term (or its beginning) has.
    by_two: Vec<u8>,
    /// By a hash of the next four bytes, the same for lengths from 4.
    by_four: Vec<u8>,
    /// Bits by hashes of terms' first bytes and their number: what is not set is of no term.
    bits: Vec<u64>,
    /// What a hash is shifted by to give a place among the bits.
    shift: u32,
    /// Terms of up to eight bytes, by length.
    short: Vec<FxHashMap<u64, u32>>,
    /// Lengths of longer terms by their first eight bytes: where they stand in `lengths`.
    by_eight: FxHashMap<u64, (u32, u32)>,
    lengths: Vec<u32>,
    long: FxHashMap<Box<[u8]>, u32>,
}

fn four(bytes: u64) -> usize {
    ((bytes as u32).wrapping_mul(0x9E37_79B1) >> (32 - FOUR_BITS)) as usize
}

/// The first `n` bytes of a number's eight.
fn first(bytes: u64, n: usize) -> u64 {
    bytes & (u64::MAX >> (64 - 8 * n))
}

fn number(bytes: &[u8]) -> u64 {
    let mut eight = [0; SHORT];
    let n = bytes.len().min(SHORT);
    eight[..n].copy_from_slice(&bytes[..n]);
    u64::from_le_bytes(eight)
}

impl Finder {
    /// Looks for terms, none of them empty and no two equal.
    ///
    /// # Errors
    /// An empty term, or 2^32 of them.
    pub fn new(terms: Vec<Box<[u8]>>) -> Result<Self> {
        if terms.iter().any(|term| term.is_empty()) {
            return Err(Error::argument(
                "a term is empty: it would occur everywhere",
            ));
        }
        if u32::try_from(terms.len()).is_err() {
            return Err(Error::argument("2^32 terms or more"));
        }
        let n_bits = (terms.len() * 64).next_power_of_two().max(1 << 16);
        let mut finder = Self {
            terms: Vec::new(),
            bits: vec![0; n_bits / 64],
            shift: u64::BITS - n_bits.trailing_zeros(),
            by_two: vec![0; 1 << 16],
            by_four: vec![0; 1 << FOUR_BITS],
            short: vec![FxHashMap::default(); SHORT + 1],
            by_eight: FxHashMap::default(),
            lengths: Vec::new(),
            long: FxHashMap::default(),
        };
        let mut lengths: Vec<(u64, u32)> = Vec::new();
        for (i, term) in terms.iter().enumerate() {
            finder.mark(term);
            if term.len() <= SHORT {
                finder.short[term.len()].insert(number(term), i as u32);
            } else {
                lengths.push((number(term), term.len() as u32));
                finder.long.insert(term.clone(), i as u32);
            }
        }
        lengths.sort_unstable();
        lengths.dedup();
        for of_eight in lengths.chunk_by(|a, b| a.0 == b.0) {
            let start = finder.lengths.len() as u32;
            finder
                .lengths
                .extend(of_eight.iter().map(|(_, length)| length));
            let end = finder.lengths.len() as u32;
            finder.by_eight.insert(of_eight[0].0, (start, end));
        }
        finder.terms = terms;
        Ok(finder)
    }

    fn mark(&mut self, term: &[u8]) {
        let n = term.len().min(SHORT);
        let place = self.place(number(term), n);
        self.bits[place / 64] |= 1 << (place % 64);
        let bit = 1_u8 << (n - 1);
        match term {
            [only] => (0..=255).for_each(|next| {
                self.by_two[usize::from(u16::from_le_bytes([*only, next]))] |= bit;
            }),
            [a, b, ..] => self.by_two[usize::from(u16::from_le_bytes([*a, *b]))] |= bit,
            [] => {}
        }
        if term.len() >= 4 {
            self.by_four[four(number(term))] |= bit;
        }
    }

    /// The place among the bits of the first `n` bytes of a term.
    fn place(&self, key: u64, n: usize) -> usize {
        let hash = (key ^ (key >> 29) ^ ((n as u64) << 60)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (hash >> self.shift) as usize
    }

    /// The terms.
    #[must_use]
    pub fn terms(&self) -> &[Box<[u8]>] {
        &self.terms
    }

    /// Calls `found(term, place)` for every occurrence in the first `length` bytes of `text`, ascending by
    /// place; [`SLACK_BYTES`] more bytes must follow.
    pub(crate) fn find(&self, text: &[u8], length: usize, mut found: impl FnMut(usize, usize)) {
        for (at, bytes) in text[..length + SHORT - 1].windows(SHORT).enumerate() {
            let Ok(eight) = <[u8; SHORT]>::try_from(bytes) else {
                return;
            };
            let eight = u64::from_le_bytes(eight);
            let mut lengths = self.by_two[(eight & 0xffff) as usize];
            if lengths >= 8 {
                lengths &= self.by_four[four(eight)] | 7;
            }
            if lengths != 0 {
                self.look(lengths, eight, &text[at..length], &mut |term| {
                    found(term, at)
                });
            }
        }
    }

    fn look(&self, mut lengths: u8, eight: u64, text: &[u8], found: &mut impl FnMut(usize)) {
        while lengths != 0 {
            let n = lengths.trailing_zeros() as usize + 1;
            lengths &= lengths - 1;
            if n > text.len() {
                return;
            }
            let key = first(eight, n);
            let place = self.place(key, n);
            if self.bits[place / 64] >> (place % 64) & 1 == 0 {
                continue;
            }
            if let Some(term) = self.short[n].get(&key) {
                found(*term as usize);
            }
            if n == SHORT
                && let Some((start, end)) = self.by_eight.get(&key)
            {
                for length in &self.lengths[*start as usize..*end as usize] {
                    let term = text
                        .get(..*length as usize)
                        .and_then(|text| self.long.get(text));
                    if let Some(term) = term {
                        found(*term as usize);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    proptest! {
        #[test]
        fn as_a_naive_search(
            text in vec(0_u8..3, 0..200),
            cuts in vec((0_usize..200, 1_usize..40), 0..20),
            others in vec(vec(0_u8..3, 1..20), 0..9),
        ) {
            let cut = |(start, n): (usize, usize)| text.get(start..(start + n).min(text.len()));
            let cuts = cuts.into_iter().filter_map(cut).map(<[u8]>::to_vec);
            let mut terms: Vec<Box<[u8]>> = cuts.chain(others).map(Vec::into_boxed_slice).collect();
            terms.retain(|term| !term.is_empty());
            terms.sort_unstable();
            terms.dedup();
            let mut expected = Vec::new();
            for at in 0..text.len() {
                let here = terms.iter().enumerate().filter(|(_, term)| text[at..].starts_with(term));
                expected.extend(here.map(|(i, _)| (at, i)));
            }
            let finder = Finder::new(terms).unwrap();
            let padded = [&text[..], &[0; SLACK_BYTES]].concat();
            let mut found = Vec::new();
            finder.find(&padded, text.len(), |term, at| found.push((at, term)));
            prop_assert!(found.is_sorted_by_key(|(at, _)| *at));
            found.sort_unstable();
            prop_assert_eq!(found, expected);
        }
    }
}
