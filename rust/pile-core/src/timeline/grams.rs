//! Finds many byte strings in one pass over a haystack; ten thousand strings take little longer than one.
//!
//! A *gram* is a run of `gram_bytes` bytes, at most 8, that is handled as one integer. The haystack is probed
//! only at every `stride`-th byte. For that, `stride` consecutive grams of each string are entered into a
//! table: wherever an occurrence begins, exactly one of its entered grams starts at a multiple of `stride` in
//! the haystack. A bitmap over hashes of the entered grams rejects nearly all probes. For the others, every
//! string with that gram is compared.
//!
//! Which `stride` grams of a string are entered is free. The rarest ones are chosen, so that strings which begin
//! alike are not compared at every occurrence of their common beginning.

use rustc_hash::FxHashMap;

/// Bytes of a gram, the width of a `u64`. A shorter string is one gram as a whole.
const GRAM_BYTES: usize = 8;

/// Distance of the probes for strings of at least `GRAM_BYTES + STRIDE - 1` bytes. Shorter ones are probed
/// for at every byte.
const STRIDE: usize = 8;

/// The entered grams are chosen from this many first bytes of a string, which bounds the set-up for long strings.
const WINDOW_REACH: usize = 64;

/// Bytes of any content that must follow the haystack: the last probe reads a whole `u64`.
pub(super) const SLACK_BYTES: usize = GRAM_BYTES;

/// Finds every occurrence of some strings, overlapping ones included.
#[derive(Debug)]
pub(super) struct GramSearcher<'a> {
    strings: &'a [&'a [u8]],
    classes: Vec<LengthClass>,
}

/// The strings that are searched for with the same gram length and stride.
#[derive(Debug)]
struct LengthClass {
    gram_bytes: usize,
    stride: usize,
    /// Bit `hash(gram) >> shift` is set for every entered gram.
    bitmap: Vec<u64>,
    shift: u32,
    /// For each entered gram, the start and end of its range in `entries`.
    by_gram: FxHashMap<u64, (u32, u32)>,
    entries: Vec<GramEntry>,
}

/// An entered gram of a string.
#[derive(Debug, Clone, Copy)]
struct GramEntry {
    string: u32,
    /// First byte of the gram in the string.
    offset: u32,
    /// The string's last gram. It is compared first: a mismatch saves the cache miss of fetching the string.
    last: u64,
    /// Offset of the last gram minus the offset of this one.
    to_last: i32,
}

/// Gram length and stride for strings of this length: the window of `stride` grams must fit into the string.
fn class_of(length: usize) -> (usize, usize) {
    match length {
        _ if length < GRAM_BYTES => (length, 1),
        _ if length < GRAM_BYTES + STRIDE - 1 => (GRAM_BYTES, 1),
        _ => (GRAM_BYTES, STRIDE),
    }
}

/// The gram of all bytes of a slice of at most 8 bytes.
fn gram_of(bytes: &[u8]) -> u64 {
    if let Ok(eight) = bytes.try_into() {
        return u64::from_le_bytes(eight);
    }
    let mut padded = [0; GRAM_BYTES];
    padded[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(padded)
}

fn hash(gram: u64) -> u64 {
    // Fibonacci hashing: the callers use the high bits, which depend on all lower bits after a multiplication by
    // 2^64 / golden ratio. The shift mixes the high bits of the gram into the low ones first.
    (gram ^ (gram >> 29)).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

impl<'a> GramSearcher<'a> {
    /// A searcher for `strings`, which must be distinct and not empty.
    pub(super) fn new(strings: &'a [&'a [u8]]) -> Self {
        let mut classes: FxHashMap<(usize, usize), Vec<u32>> = FxHashMap::default();
        for (i, string) in strings.iter().enumerate() {
            classes
                .entry(class_of(string.len()))
                .or_default()
                .push(i as u32);
        }
        let classes = classes
            .into_iter()
            .map(|((gram_bytes, stride), members)| {
                LengthClass::new(strings, &members, gram_bytes, stride)
            })
            .collect();
        Self { strings, classes }
    }

    /// Calls `found(string, start)` for every occurrence in the first `length` bytes of `haystack`,
    /// overlapping ones included, in no particular order. [`SLACK_BYTES`] more bytes must follow.
    pub(super) fn find(&self, haystack: &[u8], length: usize, mut found: impl FnMut(usize, usize)) {
        for class in &self.classes {
            class.find(self.strings, haystack, length, &mut found);
        }
    }
}

impl LengthClass {
    fn new(strings: &[&[u8]], members: &[u32], gram_bytes: usize, stride: usize) -> Self {
        let mut frequencies = GramFrequencies::new(members.len() * WINDOW_REACH);
        for string in members {
            for gram in grams_in_reach(strings[*string as usize], gram_bytes) {
                frequencies.add(gram);
            }
        }
        let mut entries: Vec<(u64, GramEntry)> = Vec::with_capacity(members.len() * stride);
        for string in members {
            let bytes = strings[*string as usize];
            let first = rarest_window(bytes, gram_bytes, stride, &frequencies);
            for offset in first..first + stride {
                let last = bytes.len() - gram_bytes;
                let entry = GramEntry {
                    string: *string,
                    offset: offset as u32,
                    last: gram_of(&bytes[last..]),
                    to_last: last as i32 - offset as i32,
                };
                entries.push((gram_of(&bytes[offset..offset + gram_bytes]), entry));
            }
        }
        entries.sort_unstable_by_key(|(gram, entry)| (*gram, entry.string, entry.offset));
        Self::from_sorted(&entries, gram_bytes, stride)
    }

    /// Builds the table from entries sorted by gram.
    fn from_sorted(entries: &[(u64, GramEntry)], gram_bytes: usize, stride: usize) -> Self {
        // At 32 bits or more an entry, at most 3 % of the probes that match no entry pass the bitmap.
        let n_bits = (entries.len() * 32).next_power_of_two().max(1 << 12);
        let mut class = Self {
            gram_bytes,
            stride,
            bitmap: vec![0; n_bits / 64],
            shift: 64 - n_bits.trailing_zeros(),
            by_gram: FxHashMap::default(),
            entries: entries.iter().map(|(_, entry)| *entry).collect(),
        };
        let mut first = 0;
        for same_gram in entries.chunk_by(|a, b| a.0 == b.0) {
            let end = first + same_gram.len() as u32;
            class.by_gram.insert(same_gram[0].0, (first, end));
            let bit = (hash(same_gram[0].0) >> class.shift) as usize;
            class.bitmap[bit / 64] |= 1 << (bit % 64);
            first = end;
        }
        class
    }

    fn find(
        &self,
        strings: &[&[u8]],
        haystack: &[u8],
        length: usize,
        found: &mut impl FnMut(usize, usize),
    ) {
        let Some(last) = length.checked_sub(self.gram_bytes) else {
            return;
        };
        // Grams are little-endian: the bytes after a short gram are its high bits.
        let mask = u64::MAX >> (8 * (GRAM_BYTES - self.gram_bytes));
        let probes = haystack[..last + GRAM_BYTES]
            .windows(GRAM_BYTES)
            .step_by(self.stride);
        for (probe, bytes) in probes.enumerate() {
            let mut eight = [0; GRAM_BYTES];
            eight.copy_from_slice(bytes);
            let gram = u64::from_le_bytes(eight) & mask;
            let bit = (hash(gram) >> self.shift) as usize;
            if self.bitmap[bit / 64] >> (bit % 64) & 1 == 1 {
                self.compare(
                    strings,
                    &haystack[..length],
                    probe * self.stride,
                    gram,
                    found,
                );
            }
        }
    }

    /// Compares all strings with this gram, which starts at byte `at` of the haystack.
    ///
    /// Cold, so that the loop over the probes stays small: the bitmap rejects nearly all of them.
    #[cold]
    fn compare(
        &self,
        strings: &[&[u8]],
        haystack: &[u8],
        at: usize,
        gram: u64,
        found: &mut impl FnMut(usize, usize),
    ) {
        let Some((first, end)) = self.by_gram.get(&gram) else {
            return;
        };
        for entry in &self.entries[*first as usize..*end as usize] {
            let last = at.checked_add_signed(entry.to_last as isize);
            let last = last.and_then(|last| haystack.get(last..last + self.gram_bytes));
            if last.is_none_or(|bytes| gram_of(bytes) != entry.last) {
                continue;
            }
            let string = strings[entry.string as usize];
            let Some(start) = at.checked_sub(entry.offset as usize) else {
                continue;
            };
            if haystack[start..].starts_with(string) {
                found(entry.string as usize, start);
            }
        }
    }
}

/// Estimates in how many strings each gram occurs.
///
/// Grams with the same hash share a counter. The estimate is never too low; a window may seem more costly
/// than it is. An exact map is too slow: ten thousand strings have half a million grams, and filling the map
/// takes as long as a scan of the data.
struct GramFrequencies {
    counts: Vec<u16>,
    shift: u32,
}

impl GramFrequencies {
    fn new(n_grams: usize) -> Self {
        let n = (2 * n_grams).next_power_of_two().clamp(1 << 10, 1 << 20);
        Self {
            counts: vec![0; n],
            shift: 64 - n.trailing_zeros(),
        }
    }

    fn add(&mut self, gram: u64) {
        let count = &mut self.counts[(hash(gram) >> self.shift) as usize];
        *count = count.saturating_add(1);
    }

    fn estimate(&self, gram: u64) -> u32 {
        u32::from(self.counts[(hash(gram) >> self.shift) as usize])
    }
}

/// The grams of the bytes from which [`rarest_window`] chooses.
fn grams_in_reach(string: &[u8], gram_bytes: usize) -> impl Iterator<Item = u64> {
    let reach = &string[..string.len().min(WINDOW_REACH)];
    reach.windows(gram_bytes).map(gram_of)
}

/// The first byte of the `stride` consecutive grams that occur in the fewest strings. A gram that many
/// strings share, such as white space, makes each of its occurrences in the haystack a comparison with all
/// these strings.
fn rarest_window(
    string: &[u8],
    gram_bytes: usize,
    stride: usize,
    frequencies: &GramFrequencies,
) -> usize {
    let counts: Vec<u32> = grams_in_reach(string, gram_bytes)
        .map(|gram| frequencies.estimate(gram) + uniformity_cost(gram, gram_bytes))
        .collect();
    let cost = |window: &[u32]| window.iter().map(|n| u64::from(*n)).sum::<u64>();
    let windows = counts.windows(stride).enumerate();
    windows
        .min_by_key(|(_, window)| cost(window))
        .map_or(0, |(first, _)| first)
}

/// An extra cost for grams of at most two different bytes: runs of spaces or dashes are frequent in any
/// haystack, even if only one string has them.
fn uniformity_cost(gram: u64, gram_bytes: usize) -> u32 {
    let bytes = &gram.to_le_bytes()[..gram_bytes];
    let is_new = |(i, byte): &(usize, &u8)| !bytes[..*i].contains(byte);
    match bytes.iter().enumerate().filter(is_new).count() {
        0..=2 => 1 << 16,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    fn all(strings: &[&[u8]], haystack: &[u8]) -> Vec<(usize, usize)> {
        let mut padded = haystack.to_vec();
        padded.resize(haystack.len() + SLACK_BYTES, b'a');
        let mut found = Vec::new();
        GramSearcher::new(strings).find(&padded, haystack.len(), |string, at| {
            found.push((string, at));
        });
        found.sort_unstable();
        found
    }

    fn reference(strings: &[&[u8]], haystack: &[u8]) -> Vec<(usize, usize)> {
        let mut found = Vec::new();
        for (i, string) in strings.iter().enumerate() {
            let at = (0..haystack.len()).filter(|at| haystack[*at..].starts_with(string));
            found.extend(at.map(|at| (i, at)));
        }
        found
    }

    #[test]
    fn finds_overlapping_occurrences_and_both_ends_of_the_haystack() {
        assert_eq!(all(&[b"aa"], b"aaaa"), [(0, 0), (0, 1), (0, 2)]);
        let long = b"the quick brown fox jumps";
        assert_eq!(all(&[&long[..], b"the", b"jumps"], long).len(), 3);
        assert_eq!(all(&[&long[..]], &long[1..]), []);
        assert_eq!(all(&[b"x"], b""), []);
    }

    proptest! {
        #[test]
        fn agrees_with_a_search_at_every_byte(
            haystack in vec(0_u8..3, 0..300),
            slices in vec((0_usize..300, 1_usize..40), 0..20),
            others in vec(vec(0_u8..3, 1..20), 0..5),
        ) {
            let mut strings: Vec<&[u8]> = others.iter().map(Vec::as_slice).collect();
            for (start, length) in slices {
                let end = (start + length).min(haystack.len());
                if start < end {
                    strings.push(&haystack[start..end]);
                }
            }
            strings.sort_unstable();
            strings.dedup();
            prop_assert_eq!(all(&strings, &haystack), reference(&strings, &haystack));
        }
    }
}
