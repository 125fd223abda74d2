//! Merge boundaries: byte positions inside a pretoken that no merge can cross.
//!
//! A merge across a position produces a token that contains the bytes around it. If no token contains them, the
//! ids of the pretoken are those of its left part followed by those of its right part. A long pretoken without
//! white space (Chinese, Japanese) is thus split into short parts, most of which the cache has.
//!
//! The test of a position looks at up to two bytes on each side. It may miss a boundary, but never reports one
//! that a merge can cross.

/// Bits of each filter; a power of 2. One filter takes 32 KiB.
const N_BITS: usize = 1 << 18;

/// A set of strings of up to four bytes: a Bloom filter with one hash function. It may report a string that was
/// not inserted, but never misses one that was.
#[derive(Debug, Clone)]
struct ByteStringFilter(Box<[u64]>);

impl ByteStringFilter {
    fn new() -> Self {
        Self(vec![0; N_BITS / 64].into())
    }

    /// Index of the word and the bit of a string, given as [`as_number`].
    #[inline]
    fn word_and_bit(bytes: u32) -> (usize, u64) {
        // Multiplicative hash with 2^32 / golden ratio; its upper bits are the good ones.
        let bit =
            (bytes.wrapping_mul(0x9E37_79B1) >> (u32::BITS - N_BITS.trailing_zeros())) as usize;
        (bit / 64, 1 << (bit % 64))
    }

    fn insert(&mut self, bytes: &[u8]) {
        let (word, bit) = Self::word_and_bit(as_number(bytes));
        self.0[word] |= bit;
    }

    #[inline]
    fn may_contain(&self, bytes: &[u8]) -> bool {
        let (word, bit) = Self::word_and_bit(as_number(bytes));
        self.0[word] & bit != 0
    }
}

/// Up to four bytes as a number.
fn as_number(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .fold(0, |number, b| number << 8 | u32::from(*b))
}

/// The byte strings of the tokens that merges produce.
#[derive(Debug)]
pub(crate) struct MergeBoundaries {
    /// All strings of two bytes in tokens.
    pairs: ByteStringFilter,
    /// Tokens of two bytes.
    tokens_of_two: ByteStringFilter,
    /// The first three bytes of longer tokens.
    starts: ByteStringFilter,
    /// The last three bytes of longer tokens.
    ends: ByteStringFilter,
    /// All strings of four bytes in tokens.
    quads: ByteStringFilter,
}

impl MergeBoundaries {
    /// The boundaries of a vocabulary. `tokens` must include every token that a merge can produce.
    pub(crate) fn new<T: AsRef<[u8]>>(tokens: impl Iterator<Item = T>) -> Self {
        let mut boundaries = Self {
            pairs: ByteStringFilter::new(),
            tokens_of_two: ByteStringFilter::new(),
            starts: ByteStringFilter::new(),
            ends: ByteStringFilter::new(),
            quads: ByteStringFilter::new(),
        };
        tokens.for_each(|token| boundaries.add(token.as_ref()));
        boundaries
    }

    fn add(&mut self, token: &[u8]) {
        if token.len() == 2 {
            self.tokens_of_two.insert(token);
        }
        token.windows(2).for_each(|pair| self.pairs.insert(pair));
        token.windows(4).for_each(|quad| self.quads.insert(quad));
        if token.len() > 2 {
            self.starts.insert(&token[..3]);
            self.ends.insert(&token[token.len() - 3..]);
        }
    }

    /// Whether no merge can join bytes `at - 1` and `at` of `pretoken`.
    ///
    /// A token across `at` contains both bytes. It is these two bytes alone, or it starts one byte before `at`,
    /// or it ends one byte after `at`, or it contains two bytes on each side.
    #[inline]
    fn is_boundary(&self, pretoken: &[u8], at: usize) -> bool {
        let pair = &pretoken[at - 1..=at];
        // One lookup answers for most positions.
        if !self.pairs.may_contain(pair) {
            return true;
        }
        let has_two_left = at >= 2;
        let has_two_right = at + 2 <= pretoken.len();
        !(self.tokens_of_two.may_contain(pair)
            || has_two_right && self.starts.may_contain(&pretoken[at - 1..at + 2])
            || has_two_left && self.ends.may_contain(&pretoken[at - 2..=at])
            || has_two_left && has_two_right && self.quads.may_contain(&pretoken[at - 2..at + 2]))
    }

    /// Appends the end offsets of the parts of `pretoken`, which starts at offset `start` of its text. The last
    /// end is that of the pretoken.
    pub(crate) fn push_ends(&self, pretoken: &[u8], start: usize, ends: &mut Vec<usize>) {
        // The bytes within a character are hardly ever a boundary, so only the starts of characters are tested.
        let starts = (1..pretoken.len()).filter(|at| pretoken[*at] & 0xC0 != 0x80);
        let boundaries = starts.filter(|at| self.is_boundary(pretoken, *at));
        ends.extend(boundaries.map(|at| start + at));
        ends.push(start + pretoken.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Whether an occurrence of a token in `pretoken` crosses `at`, by trying all occurrences.
    fn is_crossed(tokens: &[Vec<u8>], pretoken: &[u8], at: usize) -> bool {
        tokens.iter().any(|token| {
            let mut windows = pretoken.windows(token.len()).enumerate();
            windows.any(|(start, w)| w == &token[..] && start < at && at < start + token.len())
        })
    }

    #[test]
    fn parts_of_a_pretoken() {
        let tokens = ["ab", "abc", "de"].map(str::as_bytes);
        let boundaries = MergeBoundaries::new(tokens.into_iter());
        let ends = |pretoken: &[u8]| {
            let mut ends = Vec::new();
            boundaries.push_ends(pretoken, 10, &mut ends);
            ends
        };
        assert_eq!(ends(b"abcde"), [13, 15]);
        assert_eq!(ends(b"deab"), [12, 14]);
        assert_eq!(ends(b"ab"), [12]);
        assert_eq!(ends(b"x"), [11]);
    }

    proptest! {
        #[test]
        fn no_token_crosses_a_boundary(
            tokens in proptest::collection::vec(proptest::collection::vec(b'a'..=b'd', 2..6), 1..6),
            pretoken in proptest::collection::vec(b'a'..=b'd', 2..20),
        ) {
            let boundaries = MergeBoundaries::new(tokens.iter().map(Vec::as_slice));
            for at in 1..pretoken.len() {
                if boundaries.is_boundary(&pretoken, at) {
                    prop_assert!(!is_crossed(&tokens, &pretoken, at), "{at}");
                }
            }
        }
    }
}
