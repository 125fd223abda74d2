//! The anchors of a text: the position of the smallest hash in each window (minimizers).
//!
//! A window is `length` consecutive bytes. Its anchor is the leftmost of its strings of `anchor_length` bytes that
//! have the smallest hash. So the content of a window decides where its anchor is: equal windows have equal
//! anchors at equal offsets. Consecutive windows mostly share an anchor, so there are about two anchors in
//! `length - anchor_length + 2` bytes (Schleimer, Wilkerson, Aiken 2003: winnowing).

use super::rolling::RollingHash;

/// Strings with a period of up to this many bytes have greater hashes than all others.
///
/// Otherwise a run of spaces whose hash happens to be small is the anchor of every window with such a run. Now it is
/// the anchor only of windows that are all spaces.
const MAX_PERIOD: usize = 4;

/// The hash bit of strings with a period of up to [`MAX_PERIOD`].
const PERIODIC: u64 = 1 << 63;

/// Lengths of windows and of anchors in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WindowShape {
    pub(super) length: usize,
    pub(super) anchor_length: usize,
}

impl WindowShape {
    /// Longer anchors are more numerous, but fewer of them occur in texts that have no window in common.
    pub(super) fn new(length: usize) -> Self {
        Self {
            length,
            anchor_length: (length / 2).clamp(16, 32),
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
    /// Hash of the anchor's bytes.
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
    /// The hashes of the next block.
    next_block: Vec<HashedString>,
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
    pub(super) fn each(&mut self, text: &[u8], mut take: impl FnMut(Anchor)) {
        let n_strings = self.shape.n_strings();
        let Some(last_window) = text.len().checked_sub(self.shape.length) else {
            return;
        };
        let mut hashes = StringHashes::new(text, self.shape.anchor_length);
        let mut anchor: Option<Anchor> = None;
        self.next_block.clear();
        self.next_block.extend((&mut hashes).take(n_strings));
        for block_start in (0..=last_window).step_by(n_strings) {
            std::mem::swap(&mut self.smallest_to_end, &mut self.next_block);
            for i in (1..n_strings).rev() {
                let (left, right) = (self.smallest_to_end[i - 1], self.smallest_to_end[i]);
                if right.hash < left.hash {
                    self.smallest_to_end[i - 1] = right;
                }
            }
            self.next_block.clear();
            self.next_block.extend((&mut hashes).take(n_strings));
            // The smallest of the next block's strings in the window.
            let mut smallest_of_next: Option<HashedString> = None;
            for (i, window) in (block_start..=last_window).take(n_strings).enumerate() {
                let mut smallest = self.smallest_to_end[i];
                if let Some(next) = smallest_of_next
                    && next.hash < smallest.hash
                {
                    smallest = next;
                }
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
                // The block has no string after that of the last window.
                if let Some(next) = self.next_block.get(i)
                    && smallest_of_next.is_none_or(|smallest| next.hash < smallest.hash)
                {
                    smallest_of_next = Some(*next);
                }
            }
        }
        if let Some(anchor) = anchor {
            take(anchor);
        }
    }
}

/// The hashes of all strings of a length in a text.
struct StringHashes<'a> {
    text: &'a [u8],
    rolling: RollingHash,
    hash: u64,
    /// End of the next string.
    end: usize,
    /// For each period, how many bytes up to `end` equal the byte one period before.
    n_equal: [usize; MAX_PERIOD],
}

impl<'a> StringHashes<'a> {
    fn new(text: &'a [u8], length: usize) -> Self {
        let mut hashes = Self {
            text,
            rolling: RollingHash::new(length),
            hash: 0,
            end: 0,
            n_equal: [0; MAX_PERIOD],
        };
        for _ in 1..length.min(text.len()) {
            hashes.add_byte();
        }
        hashes
    }

    fn add_byte(&mut self) {
        let (text, end) = (self.text, self.end);
        let leaving = match end.checked_sub(self.rolling.length) {
            Some(start) => Some(text[start]),
            None => None,
        };
        self.hash = self.rolling.roll(self.hash, leaving, text[end]);
        for (i, n_equal) in self.n_equal.iter_mut().enumerate() {
            let is_equal = end > i && text[end] == text[end - i - 1];
            *n_equal = if is_equal { *n_equal + 1 } else { 0 };
        }
        self.end += 1;
    }
}

impl Iterator for StringHashes<'_> {
    type Item = HashedString;

    fn next(&mut self) -> Option<HashedString> {
        if self.end >= self.text.len() {
            return None;
        }
        self.add_byte();
        let length = self.rolling.length;
        let with_period = |(i, n_equal): (usize, &usize)| *n_equal + i + 1 >= length;
        let is_periodic = self.n_equal.iter().enumerate().any(with_period);
        let hash = RollingHash::mix(self.hash) >> 1;
        Some(HashedString {
            hash: if is_periodic { hash | PERIODIC } else { hash },
            offset: self.end - length,
        })
    }
}

/// Windows that equal the windows `distance` bytes before them in the same text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PeriodicWindows {
    pub(super) first: usize,
    pub(super) last: usize,
    pub(super) distance: usize,
}

/// Splits the anchors of texts into those whose windows have to be compared with others and, in periodic stretches,
/// windows that repeat the ones a period before.
///
/// A run of one byte has an anchor for each of its bytes. All but the first are found to be repeated here, without a
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

    pub(super) fn each(
        &mut self,
        text: &[u8],
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

    /// The anchor of each window by its definition.
    fn anchors_naively(text: &[u8], shape: WindowShape) -> Vec<(u64, usize)> {
        let hashes: Vec<_> = StringHashes::new(text, shape.anchor_length).collect();
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
            let shape = WindowShape::new(length);
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
            for string in StringHashes::new(&text, 16) {
                let bytes = &text[string.offset..][..16];
                prop_assert_eq!(*by_string.entry(bytes).or_insert(string.hash), string.hash);
                let is_periodic = (1..=MAX_PERIOD).any(|p| bytes[p..] == bytes[..16 - p]);
                prop_assert_eq!(is_periodic, string.hash & PERIODIC != 0);
            }
        }
    }

    #[test]
    fn a_run_of_one_byte_has_one_anchor() {
        let (mut anchors, mut periodic) = (Vec::new(), Vec::new());
        let mut scanner = PassageScanner::new(WindowShape::new(100));
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
