//! The anchors of a text: the position of the smallest hash in each window (minimizers).
//!
//! A window is `length` consecutive units. Its anchor is the leftmost of its strings of `anchor_length` units that
//! have the smallest hash. So the content of a window decides where its anchor is: equal windows have equal
//! anchors at equal offsets. Consecutive windows mostly share an anchor, so there are about two anchors in
//! `length - anchor_length + 2` bytes (Schleimer, Wilkerson, Aiken 2003: winnowing).

use super::{rolling::RollingHash, units::Unit};

/// Strings with a period of up to this many units have greater hashes than all others.
///
/// Otherwise a run of spaces whose hash happens to be small is the anchor of every window with such a run. Now it is
/// the anchor only of windows that are all spaces.
const MAX_PERIOD: usize = 4;

/// The hash bit of strings with a period of up to [`MAX_PERIOD`].
const PERIODIC_BIT: u32 = 63;

/// Lengths of windows and of anchors in units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WindowShape {
    pub(super) length: usize,
    pub(super) anchor_length: usize,
}

impl WindowShape {
    /// Longer anchors are denser in a text, but fewer of them occur in texts that share no window.
    pub(super) fn new<U: Unit>(length: usize) -> Self {
        let [min, max] = U::ANCHOR_LENGTHS;
        Self {
            length,
            anchor_length: (length / 2).clamp(min, max),
        }
    }

    /// Strings of the anchor's length in a window.
    fn n_strings(self) -> usize {
        self.length - self.anchor_length + 1
    }
}

/// Consecutive windows with the same anchor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Anchor {
    /// Hash of the anchor.
    pub(super) hash: u64,
    /// Offset of the anchor in the text.
    pub(super) offset: usize,
    /// Start of the first window.
    pub(super) first: usize,
    /// Start of the last window.
    pub(super) last: usize,
}

/// A string and its hash.
#[derive(Debug, Clone, Copy)]
struct HashedString {
    hash: u64,
    offset: usize,
}

/// Finds the anchors of texts.
pub(super) struct AnchorScanner {
    shape: WindowShape,
    /// For each string of a block of `n_strings` strings, the smallest from it to the end of the block.
    smallest_to_end: Vec<HashedString>,
    /// The hashes of the next block's strings.
    next_block: Vec<u64>,
}

impl AnchorScanner {
    pub(super) fn new(shape: WindowShape) -> Self {
        Self {
            shape,
            smallest_to_end: Vec::new(),
            next_block: Vec::new(),
        }
    }

    /// Calls `take` with each anchor of `text`, in ascending order.
    ///
    /// A window is the end of one block of strings and the start of the next, so its minimum is that of two minima
    /// (van Herk 1992; Gil and Werman 1993). The time does not depend on the hashes.
    pub(super) fn each<U: Unit>(&mut self, text: &[U], mut take: impl FnMut(Anchor)) {
        let n_strings = self.shape.n_strings();
        let Some(last_window) = text.len().checked_sub(self.shape.length) else {
            return;
        };
        let mut hashes = StringHashes::new(text, self.shape.anchor_length);
        let mut anchor: Option<Anchor> = None;
        hashes.fill(n_strings, &mut self.next_block);
        for block_start in (0..=last_window).step_by(n_strings) {
            self.start_block(block_start);
            hashes.fill(n_strings, &mut self.next_block);
            // The smallest of the next block's strings that the window has. At first there is none: no hash is greater
            // than this one, so it is never the smallest.
            let mut smallest_of_next = HashedString {
                hash: u64::MAX,
                offset: usize::MAX,
            };
            for i in 0..n_strings.min(last_window + 1 - block_start) {
                let mut smallest = self.smallest_to_end[i];
                if smallest_of_next.hash < smallest.hash {
                    smallest = smallest_of_next;
                }
                let window = block_start + i;
                match &mut anchor {
                    Some(anchor) if anchor.offset == smallest.offset => anchor.last = window,
                    _ => {
                        let new = Anchor {
                            hash: smallest.hash,
                            offset: smallest.offset,
                            first: window,
                            last: window,
                        };
                        if let Some(old) = anchor.replace(new) {
                            take(old);
                        }
                    }
                }
                // The text may end before the next block does.
                if let Some(hash) = self.next_block.get(i)
                    && *hash < smallest_of_next.hash
                {
                    smallest_of_next = HashedString {
                        hash: *hash,
                        offset: block_start + n_strings + i,
                    };
                }
            }
        }
        if let Some(anchor) = anchor {
            take(anchor);
        }
    }

    /// Makes the next block, which starts with the string at this offset, the current one.
    fn start_block(&mut self, block_start: usize) {
        self.smallest_to_end.clear();
        let string = |(i, hash): (usize, &u64)| HashedString {
            hash: *hash,
            offset: block_start + i,
        };
        let strings = self.next_block.iter().enumerate().map(string);
        self.smallest_to_end.extend(strings);
        for i in (1..self.smallest_to_end.len()).rev() {
            let (left, right) = (self.smallest_to_end[i - 1], self.smallest_to_end[i]);
            if right.hash < left.hash {
                self.smallest_to_end[i - 1] = right;
            }
        }
    }
}

/// The hashes of all strings of a length in a text.
struct StringHashes<'a, U> {
    text: &'a [U],
    rolling: RollingHash,
    /// The hash of the next string without its last unit.
    partial_hash: u64,
    /// The last unit of the next string.
    next: usize,
    /// For each period, how many units before `next` equal the unit one period before.
    n_equal: [usize; MAX_PERIOD],
}

impl<'a, U: Unit> StringHashes<'a, U> {
    fn new(text: &'a [U], length: usize) -> Self {
        let rolling = RollingHash::new(length);
        let next = (length - 1).min(text.len());
        let n_equal = |i: usize| {
            let period = i + 1;
            let is_equal = |at: &usize| text[*at] == text[*at - period];
            (period..next).rev().take_while(is_equal).count()
        };
        Self {
            text,
            rolling,
            partial_hash: rolling.start(text),
            next,
            n_equal: std::array::from_fn(n_equal),
        }
    }

    /// Replaces the content of `hashes` by the hashes of the next `n` strings, or of those that are left.
    fn fill(&mut self, n: usize, hashes: &mut Vec<u64>) {
        let length = self.rolling.length;
        let n = n.min(self.text.len() - self.next);
        hashes.clear();
        if n == 0 {
            return;
        }
        // `next` is at least `length - 1`, and anchors are longer than `MAX_PERIOD`: see `Unit::ANCHOR_LENGTHS`.
        let before = |distance: usize| &self.text[self.next - distance..][..n];
        let (last, first) = (before(0), before(length - 1));
        let periods: [&[U]; MAX_PERIOD] = std::array::from_fn(|i| before(i + 1));
        hashes.extend((0..n).map(|i| {
            let hash = RollingHash::append(self.partial_hash, last[i]);
            self.partial_hash = self.rolling.without_first(hash, first[i]);
            let mut is_periodic = false;
            for (period, n_equal) in (1..).zip(&mut self.n_equal) {
                *n_equal = (*n_equal + 1) * usize::from(last[i] == periods[period - 1][i]);
                // A string has a period if all its units but the first `period` equal the one a period before.
                is_periodic |= *n_equal + period >= length;
            }
            RollingHash::mix(hash) >> 1 | u64::from(is_periodic) << PERIODIC_BIT
        }));
        self.next += n;
    }
}

/// Windows that equal the windows `distance` units before them in the same text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PeriodicWindows {
    pub(super) first: usize,
    pub(super) last: usize,
    pub(super) distance: usize,
}

/// Splits the anchors of texts into those whose windows have to be compared with others and, in periodic stretches,
/// windows that repeat the ones a period before.
///
/// A run of one unit has an anchor for each of them. All but the first are found to be repeated here, without a
/// record for each.
pub(super) struct PassageScanner {
    scanner: AnchorScanner,
}

impl PassageScanner {
    pub(super) fn new(shape: WindowShape) -> Self {
        Self {
            scanner: AnchorScanner::new(shape),
        }
    }

    pub(super) fn each<U: Unit>(
        &mut self,
        text: &[U],
        mut take_anchor: impl FnMut(Anchor),
        mut take_periodic: impl FnMut(PeriodicWindows),
    ) {
        let length = self.scanner.shape.length;
        let mut previous: Option<Anchor> = None;
        let mut stretch: Option<PeriodicWindows> = None;
        self.scanner.each(text, |anchor| {
            let before = previous.replace(anchor);
            let distance = match before {
                Some(before) if before.hash == anchor.hash => anchor.offset - before.offset,
                _ => 0,
            };
            let is_repeated = distance > 0 && distance <= anchor.first && {
                let end = anchor.last + length;
                text[anchor.first..end] == text[anchor.first - distance..end - distance]
            };
            if !is_repeated {
                take_anchor(anchor);
                return;
            }
            match &mut stretch {
                // The distance is that of the stretch. A shorter one would put an anchor of this hash, one period
                // earlier, between the two before; a longer one would reach windows that have another anchor.
                Some(stretch) if stretch.last + 1 == anchor.first => stretch.last = anchor.last,
                _ => {
                    let new = PeriodicWindows {
                        first: anchor.first,
                        last: anchor.last,
                        distance,
                    };
                    if let Some(old) = stretch.replace(new) {
                        take_periodic(old);
                    }
                }
            }
        });
        if let Some(stretch) = stretch {
            take_periodic(stretch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};
    use std::collections::BTreeMap;

    fn strings(text: &[u8], length: usize) -> Vec<HashedString> {
        let mut hashes = Vec::new();
        StringHashes::new(text, length).fill(text.len(), &mut hashes);
        let strings = hashes.into_iter().zip(0..);
        strings
            .map(|(hash, offset)| HashedString { hash, offset })
            .collect()
    }

    /// The anchor of each window by its definition.
    fn anchors_naively(text: &[u8], shape: WindowShape) -> Vec<(u64, usize)> {
        let hashes = strings(text, shape.anchor_length);
        let windows = hashes.windows(shape.n_strings());
        let smallest = |window: &[HashedString]| {
            let smallest = window.iter().min_by_key(|string| string.hash);
            smallest.map(|string| (string.hash, string.offset)).unwrap()
        };
        windows.map(smallest).collect()
    }

    proptest! {
        #[test]
        fn each_window_has_its_anchor(text in vec(0_u8..3, 0..400), length in 32_usize..70) {
            let shape = WindowShape::new::<u8>(length);
            let mut found = Vec::new();
            AnchorScanner::new(shape).each(&text, |anchor| {
                assert_eq!(anchor.first, found.len());
                found.resize(anchor.last + 1, (anchor.hash, anchor.offset));
            });
            prop_assert_eq!(found, anchors_naively(&text, shape));
        }

        #[test]
        fn hashes_depend_on_the_string_alone(text in vec(0_u8..2, 16..400), period in 1_usize..8) {
            let text: Vec<u8> = text.iter().chain(text[..period].repeat(9).iter()).copied().collect();
            let mut by_string = BTreeMap::new();
            for string in strings(&text, 16) {
                let bytes = &text[string.offset..][..16];
                prop_assert_eq!(*by_string.entry(bytes).or_insert(string.hash), string.hash);
                let is_periodic = (1..=MAX_PERIOD).any(|p| bytes[p..] == bytes[..16 - p]);
                prop_assert_eq!(is_periodic, string.hash >> PERIODIC_BIT == 1);
            }
        }
    }

    #[test]
    fn a_run_of_one_byte_has_one_anchor() {
        let (mut anchors, mut periodic) = (Vec::new(), Vec::new());
        let mut scanner = PassageScanner::new(WindowShape::new::<u8>(100));
        scanner.each(&[b' '; 5000], |a| anchors.push(a), |p| periodic.push(p));
        assert_eq!(anchors.len(), 1);
        let expected = PeriodicWindows {
            first: 1,
            last: 4900,
            distance: 1,
        };
        assert_eq!(periodic, [expected]);
    }
}
