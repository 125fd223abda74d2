//! Finds many byte strings in one pass, ten thousand nearly as fast as one.
//!
//! Of each string a window of `stride + gram - 1` bytes is chosen. The haystack is looked at only every
//! `stride` bytes: wherever the string stands, exactly one of these looks falls on one of the first
//! `stride` grams of its window. A bitmap says at once that a gram is of no string; where it says
//! otherwise the strings with that gram are compared in full.

use rustc_hash::FxHashMap;

/// Bytes of a gram of strings that have as many; a shorter string is a gram of its own.
const GRAM_BYTES: usize = 8;

/// Looks are this far apart where all strings are long enough for it.
const STRIDE: usize = 8;

/// How far into a string a window is looked for.
const WINDOW_REACH: usize = 64;

/// Bytes that must stand behind a haystack's end: any will do.
pub(super) const SLACK_BYTES: usize = GRAM_BYTES;

/// Finds every occurrence of some strings, overlapping ones included.
#[derive(Debug)]
pub(super) struct Grams<'a> {
    strings: &'a [&'a [u8]],
    classes: Vec<Class>,
}

/// Strings that are looked for with the same gram length and stride.
#[derive(Debug)]
struct Class {
    gram_bytes: usize,
    stride: usize,
    bitmap: Vec<u64>,
    /// Bits that a hash is shifted by to give a place in the bitmap.
    shift: u32,
    /// Where a gram's places stand in `places`.
    by_gram: FxHashMap<u64, (u32, u32)>,
    places: Vec<InString>,
}

/// A gram's place in a string.
#[derive(Debug, Clone, Copy)]
struct InString {
    string: u32,
    offset: u32,
    /// The string's last gram: most strings that share a gram with the haystack are told apart by it
    /// before they are fetched.
    last: u64,
    /// Where that gram starts, from this one.
    to_last: i32,
}

/// Gram length and stride for a string of this length.
fn class_of(length: usize) -> (usize, usize) {
    match length {
        _ if length < GRAM_BYTES => (length, 1),
        _ if length < GRAM_BYTES + STRIDE - 1 => (GRAM_BYTES, 1),
        _ => (GRAM_BYTES, STRIDE),
    }
}

/// The first `n` bytes as a number, `n` at most 8.
fn gram(bytes: &[u8], n: usize) -> u64 {
    gram_of(&bytes[..n])
}

/// At most 8 bytes as a number.
fn gram_of(bytes: &[u8]) -> u64 {
    if let Ok(eight) = bytes.try_into() {
        return u64::from_le_bytes(eight);
    }
    let mut padded = [0; GRAM_BYTES];
    padded[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(padded)
}

fn hash(gram: u64) -> u64 {
    // The golden ratio: high bits depend on all bits of the gram.
    (gram ^ (gram >> 29)).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

impl<'a> Grams<'a> {
    /// Looks for `strings`, none of them empty and no two equal.
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
                Class::new(strings, &members, gram_bytes, stride)
            })
            .collect();
        Self { strings, classes }
    }

    /// Calls `found(string, place)` for every occurrence in the first `length` bytes of `haystack`, in no
    /// particular order; [`SLACK_BYTES`] more bytes must follow.
    pub(super) fn find(&self, haystack: &[u8], length: usize, mut found: impl FnMut(usize, usize)) {
        for class in &self.classes {
            class.find(self.strings, haystack, length, &mut found);
        }
    }
}

impl Class {
    fn new(strings: &[&[u8]], members: &[u32], gram_bytes: usize, stride: usize) -> Self {
        let mut n_strings_with = Counts::new(members.len() * WINDOW_REACH);
        for string in members {
            for gram in grams_in_reach(strings[*string as usize], gram_bytes) {
                n_strings_with.add(gram);
            }
        }
        let mut entries: Vec<(u64, InString)> = Vec::with_capacity(members.len() * stride);
        for string in members {
            let bytes = strings[*string as usize];
            let first = rarest_window(bytes, gram_bytes, stride, &n_strings_with);
            for offset in first..first + stride {
                let last = bytes.len() - gram_bytes;
                let place = InString {
                    string: *string,
                    offset: offset as u32,
                    last: gram(&bytes[last..], gram_bytes),
                    to_last: last as i32 - offset as i32,
                };
                entries.push((gram(&bytes[offset..], gram_bytes), place));
            }
        }
        entries.sort_unstable_by_key(|(gram, place)| (*gram, place.string, place.offset));
        Self::of_entries(&entries, gram_bytes, stride)
    }

    fn of_entries(entries: &[(u64, InString)], gram_bytes: usize, stride: usize) -> Self {
        let n_bits = (entries.len() * 32).next_power_of_two().max(1 << 12);
        let mut class = Self {
            gram_bytes,
            stride,
            bitmap: vec![0; n_bits / 64],
            shift: 64 - n_bits.trailing_zeros(),
            by_gram: FxHashMap::default(),
            places: entries.iter().map(|(_, place)| *place).collect(),
        };
        let mut first = 0;
        for of_gram in entries.chunk_by(|a, b| a.0 == b.0) {
            let end = first + of_gram.len() as u32;
            class.by_gram.insert(of_gram[0].0, (first, end));
            let bit = (hash(of_gram[0].0) >> class.shift) as usize;
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
        let mask = u64::MAX >> (8 * (GRAM_BYTES - self.gram_bytes));
        let looks = haystack[..last + GRAM_BYTES]
            .windows(GRAM_BYTES)
            .step_by(self.stride);
        for (look, bytes) in looks.enumerate() {
            let mut eight = [0; GRAM_BYTES];
            eight.copy_from_slice(bytes);
            let gram = u64::from_le_bytes(eight) & mask;
            let bit = (hash(gram) >> self.shift) as usize;
            if self.bitmap[bit / 64] >> (bit % 64) & 1 == 1 {
                self.compare(
                    strings,
                    &haystack[..length],
                    look * self.stride,
                    gram,
                    found,
                );
            }
        }
    }

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
        for place in &self.places[*first as usize..*end as usize] {
            let last = at.checked_add_signed(place.to_last as isize);
            let last = last.and_then(|last| haystack.get(last..last + self.gram_bytes));
            if last.is_none_or(|bytes| gram_of(bytes) != place.last) {
                continue;
            }
            let string = strings[place.string as usize];
            let Some(start) = at.checked_sub(place.offset as usize) else {
                continue;
            };
            if haystack[start..].starts_with(string) {
                found(place.string as usize, start);
            }
        }
    }
}

/// How many strings have each gram, about: grams of one hash count together, so at worst a window seems
/// dearer than it is. Ten thousand strings have half a million grams, and a map of them costs as much as a scan.
struct Counts {
    counts: Vec<u16>,
    shift: u32,
}

impl Counts {
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

    fn of(&self, gram: u64) -> u32 {
        u32::from(self.counts[(hash(gram) >> self.shift) as usize])
    }
}

fn grams_in_reach(string: &[u8], gram_bytes: usize) -> impl Iterator<Item = u64> {
    let reach = &string[..string.len().min(WINDOW_REACH)];
    reach.windows(gram_bytes).map(move |w| gram(w, gram_bytes))
}

/// Where the window starts whose grams the fewest other strings have: what many share, white space
/// say, would be compared with all of them.
fn rarest_window(
    string: &[u8],
    gram_bytes: usize,
    stride: usize,
    n_strings_with: &Counts,
) -> usize {
    let counts: Vec<u32> = grams_in_reach(string, gram_bytes)
        .map(|gram| n_strings_with.of(gram) + monotony(gram, gram_bytes))
        .collect();
    let cost = |window: &[u32]| window.iter().map(|n| u64::from(*n)).sum::<u64>();
    let windows = counts.windows(stride).enumerate();
    windows
        .min_by_key(|(_, window)| cost(window))
        .map_or(0, |(first, _)| first)
}

/// What a gram of hardly any different bytes costs: runs of spaces and dashes are everywhere in a haystack.
fn monotony(gram: u64, gram_bytes: usize) -> u32 {
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
        Grams::new(strings).find(&padded, haystack.len(), |string, at| {
            found.push((string, at));
        });
        found.sort_unstable();
        found
    }

    fn naively(strings: &[&[u8]], haystack: &[u8]) -> Vec<(usize, usize)> {
        let mut found = Vec::new();
        for (i, string) in strings.iter().enumerate() {
            let at = (0..haystack.len()).filter(|at| haystack[*at..].starts_with(string));
            found.extend(at.map(|at| (i, at)));
        }
        found
    }

    #[test]
    fn overlapping_ones_and_those_at_both_ends() {
        assert_eq!(all(&[b"aa"], b"aaaa"), [(0, 0), (0, 1), (0, 2)]);
        let long = b"the quick brown fox jumps";
        assert_eq!(all(&[&long[..], b"the", b"jumps"], long).len(), 3);
        assert_eq!(all(&[&long[..]], &long[1..]), []);
        assert_eq!(all(&[b"x"], b""), []);
    }

    proptest! {
        #[test]
        fn as_a_naive_search(
            haystack in vec(0_u8..3, 0..300),
            cuts in vec((0_usize..300, 1_usize..40), 0..20),
            others in vec(vec(0_u8..3, 1..20), 0..5),
        ) {
            let mut strings: Vec<&[u8]> = others.iter().map(Vec::as_slice).collect();
            for (start, length) in cuts {
                let end = (start + length).min(haystack.len());
                if start < end {
                    strings.push(&haystack[start..end]);
                }
            }
            strings.sort_unstable();
            strings.dedup();
            prop_assert_eq!(all(&strings, &haystack), naively(&strings, &haystack));
        }
    }
}
