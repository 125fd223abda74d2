//! Places inside a piece that no merge can cross, told by the bytes around them.
//!
//! Whatever is merged across a place is a token that has the bytes around that place inside it. Where
//! no token has, the piece is the sum of what stands left and right, each merged by itself: a long
//! piece without white space (Chinese, Japanese) falls apart into short ones that recur.

/// Bits of each filter; a power of 2.
const N_BITS: usize = 1 << 18;

/// The windows of bytes that tokens have; a filter that may hold more, never fewer.
#[derive(Debug, Clone)]
struct Windows(Box<[u64]>);

impl Windows {
    fn new() -> Self {
        Self(vec![0; N_BITS / 64].into())
    }

    /// The place of a window of up to four bytes.
    #[inline]
    fn place(window: u32) -> (usize, u64) {
        let bit =
            (window.wrapping_mul(0x9E37_79B1) >> (u32::BITS - N_BITS.trailing_zeros())) as usize;
        (bit / 64, 1 << (bit % 64))
    }

    fn insert(&mut self, window: u32) {
        let (at, bit) = Self::place(window);
        self.0[at] |= bit;
    }

    #[inline]
    fn has(&self, window: u32) -> bool {
        let (at, bit) = Self::place(window);
        self.0[at] & bit != 0
    }
}

/// What is known of the tokens that merges make.
#[derive(Debug)]
pub(crate) struct Seams {
    /// Two bytes, left and right of a place, inside any token.
    pairs: Windows,
    /// Tokens of two bytes.
    whole_pairs: Windows,
    /// One byte left and two right, at the start of a token.
    starts: Windows,
    /// Two bytes left and one right, at the end of a token.
    ends: Windows,
    /// Two bytes left and two right, inside a token.
    insides: Windows,
}

fn window(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |w, b| w << 8 | u32::from(*b))
}

impl Seams {
    /// What `tokens`, all that merges can make, leave open.
    pub(crate) fn new<T: AsRef<[u8]>>(tokens: impl Iterator<Item = T>) -> Self {
        let mut seams = Self {
            pairs: Windows::new(),
            whole_pairs: Windows::new(),
            starts: Windows::new(),
            ends: Windows::new(),
            insides: Windows::new(),
        };
        tokens.for_each(|token| seams.add(token.as_ref()));
        seams
    }

    fn add(&mut self, token: &[u8]) {
        if token.len() == 2 {
            self.whole_pairs.insert(window(token));
        }
        token.windows(2).for_each(|w| self.pairs.insert(window(w)));
        token
            .windows(4)
            .for_each(|w| self.insides.insert(window(w)));
        if token.len() > 2 {
            self.starts.insert(window(&token[..3]));
            self.ends.insert(window(&token[token.len() - 3..]));
        }
    }

    /// Whether no merge can join bytes `at - 1` and `at` of `piece`.
    #[inline]
    fn is_seam(&self, piece: &[u8], at: usize) -> bool {
        let pair = &piece[at - 1..=at];
        if !self.pairs.has(window(pair)) {
            return true;
        }
        let has_left = at >= 2;
        let has_right = at + 2 <= piece.len();
        !(self.whole_pairs.has(window(pair))
            || has_right && self.starts.has(window(&piece[at - 1..at + 2]))
            || has_left && self.ends.has(window(&piece[at - 2..=at]))
            || has_left && has_right && self.insides.has(window(&piece[at - 2..at + 2])))
    }

    /// Appends where the parts of `piece` end, which stands at `start` of its text.
    pub(crate) fn push_ends(&self, piece: &[u8], start: usize, ends: &mut Vec<usize>) {
        // Only where characters start: inside of one there is hardly ever a seam.
        let starts = (1..piece.len()).filter(|at| piece[*at] & 0xC0 != 0x80);
        let seams = starts.filter(|at| self.is_seam(piece, *at));
        ends.extend(seams.map(|at| start + at));
        ends.push(start + piece.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Whether an occurrence of a token reaches across `at`, said plainly.
    fn is_crossed(tokens: &[Vec<u8>], piece: &[u8], at: usize) -> bool {
        tokens.iter().any(|token| {
            let mut places = piece.windows(token.len()).enumerate();
            places.any(|(start, w)| w == &token[..] && start < at && at < start + token.len())
        })
    }

    #[test]
    fn parts_of_a_piece() {
        let tokens = ["ab", "abc", "de"].map(str::as_bytes);
        let seams = Seams::new(tokens.into_iter());
        let ends = |piece: &[u8]| {
            let mut ends = Vec::new();
            seams.push_ends(piece, 10, &mut ends);
            ends
        };
        assert_eq!(ends(b"abcde"), [13, 15]);
        assert_eq!(ends(b"deab"), [12, 14]);
        assert_eq!(ends(b"ab"), [12]);
        assert_eq!(ends(b"x"), [11]);
    }

    proptest! {
        #[test]
        fn a_seam_is_never_crossed(
            tokens in proptest::collection::vec(proptest::collection::vec(b'a'..=b'd', 2..6), 1..6),
            piece in proptest::collection::vec(b'a'..=b'd', 2..20),
        ) {
            let seams = Seams::new(tokens.iter().map(Vec::as_slice));
            for at in 1..piece.len() {
                if seams.is_seam(&piece, at) {
                    prop_assert!(!is_crossed(&tokens, &piece, at), "{at}");
                }
            }
        }
    }
}
