//! The distinct pretokens as tokens in one array, in which a pair is found by its position.

use super::{super::pretoken_counts::PretokenCounts, Pair};
use crate::{Error, Result};

/// The value of the array before, between and after pretokens.
pub(super) const BORDER: u32 = u32::MAX;

/// The value at the start of a token that was merged into its left neighbour. It is no token, so an old position
/// of a pair is recognized there.
const MERGED: u32 = u32::MAX - 1;

/// The distinct pretokens as tokens, and how often each occurs in the text.
pub(super) struct Pretokens {
    /// One element for each byte and each border.
    ///
    /// A token is stored at the positions of its first and of its last byte, so that it is found from both of its
    /// neighbours. The elements in between are stale. [`Self::merge_at`] may read one at an outdated position of a
    /// pair: it is then [`MERGED`] or another token than the pair's.
    tokens: Vec<u32>,
    /// Number of bytes of each token.
    lengths: Vec<u32>,
    counts: CountsByPosition,
}

/// A pair that was merged into one token, and its neighbours.
pub(super) struct MergedPair {
    /// How often the pretoken occurs.
    pub(super) count: u64,
    /// The token before the pair, or [`BORDER`].
    pub(super) before: u32,
    /// The position of that token.
    pub(super) before_position: u32,
    /// The token after the pair, or [`BORDER`].
    pub(super) after: u32,
}

impl Pretokens {
    /// The pretokens with one token for each byte. `byte_ids` are the ids of the bytes.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Argument`] if positions do not fit 32 bits.
    pub(super) fn new(pretokens: &PretokenCounts, byte_ids: &[u32; 256]) -> Result<Self> {
        let (counts, mut next_positions) = CountsByPosition::new(pretokens)?;
        let mut tokens = vec![BORDER; counts.n_positions()];
        pretokens.for_each(|pretoken, count| {
            let class = counts.class_of(count);
            let position = &mut next_positions[class];
            for (token, byte) in tokens[*position..].iter_mut().zip(pretoken) {
                *token = byte_ids[usize::from(*byte)];
            }
            *position += pretoken.len() + 1;
        });
        let mut pretokens = Self {
            tokens,
            lengths: Vec::new(),
            counts,
        };
        for id in byte_ids {
            pretokens.set_length(*id, 1);
        }
        Ok(pretokens)
    }

    fn set_length(&mut self, id: u32, n_bytes: u32) {
        let id = id as usize;
        self.lengths.resize(self.lengths.len().max(id + 1), 0);
        self.lengths[id] = n_bytes;
    }

    /// Calls `visit` with each pair, its position, and how often its pretoken occurs. Positions ascend.
    pub(super) fn each_pair(&self, mut visit: impl FnMut(Pair, u32, u64)) {
        let mut position = 1;
        for (end, count) in self.counts.ends.iter().zip(&self.counts.counts) {
            while position < *end as usize {
                // A pretoken is not empty, and a border follows it.
                let left = self.tokens[position];
                let next = position + self.lengths[left as usize] as usize;
                let right = self.tokens[next];
                if right == BORDER {
                    position = next + 1;
                    continue;
                }
                visit((left, right), position as u32, *count);
                position = next;
            }
        }
    }

    /// Registers the token `id` that `pair` becomes. Must be called before [`Self::merge_at`].
    pub(super) fn register(&mut self, pair: Pair, id: u32) {
        let length = |id: u32| self.lengths[id as usize];
        self.set_length(id, length(pair.0) + length(pair.1));
    }

    /// Merges `pair` at `position` into the token `id`. Returns None if the pair is no longer there.
    ///
    /// `cursor` must not have been used for a larger position.
    #[inline]
    pub(super) fn merge_at(
        &mut self,
        position: u32,
        pair: Pair,
        id: u32,
        cursor: &mut CountCursor,
    ) -> Option<MergedPair> {
        let start = position as usize;
        if self.tokens[start] != pair.0 {
            return None;
        }
        let middle = start + self.lengths[pair.0 as usize] as usize;
        if self.tokens[middle] != pair.1 {
            return None;
        }
        let end = middle + self.lengths[pair.1 as usize] as usize;
        // In this order: a right token of one byte starts and ends at `middle`.
        self.tokens[middle] = MERGED;
        self.tokens[start] = id;
        self.tokens[end - 1] = id;
        let (before, after) = (self.tokens[start - 1], self.tokens[end]);
        let before_length = match before {
            BORDER => 1,
            before => self.lengths[before as usize],
        };
        Some(MergedPair {
            count: self.counts.at(position, cursor),
            before,
            before_position: position - before_length,
            after,
        })
    }
}

/// log2 of the positions in a block of [`CountsByPosition::first_classes`].
const BLOCK_BITS: u32 = 8;

/// The count of the pretoken at each position.
///
/// Pretokens with equal counts form a class and are stored next to each other, in descending order of counts. So
/// one count per class is stored, instead of one per pretoken.
struct CountsByPosition {
    /// The count of each class, in descending order.
    counts: Vec<u64>,
    /// The end position of each class.
    ends: Vec<u32>,
    /// The class at the first position of each block. A search for a class starts there.
    first_classes: Vec<u32>,
}

/// The state of a walk over ascending positions.
#[derive(Default)]
pub(super) struct CountCursor {
    class: usize,
}

impl CountsByPosition {
    /// The counts, and the first position of each class.
    fn new(pretokens: &PretokenCounts) -> Result<(Self, Vec<usize>)> {
        let mut sizes = std::collections::BTreeMap::<_, usize>::new();
        pretokens.for_each(|pretoken, count| {
            *sizes.entry(std::cmp::Reverse(count)).or_default() += pretoken.len() + 1;
        });
        let (mut counts, mut ends, mut starts) = (Vec::new(), Vec::new(), Vec::new());
        let mut end = 1; // Position 0 is a border.
        for (count, size) in sizes {
            starts.push(end);
            end += size;
            counts.push(count.0);
            ends.push(u32::try_from(end).map_err(|_| {
                Error::argument(
                    "more than 4 GB of distinct pretokens: train on a sample of the text",
                )
            })?);
        }
        let mut by_position = Self {
            counts,
            ends,
            first_classes: Vec::new(),
        };
        let mut class = 0;
        for block in 0..=by_position.n_positions() >> BLOCK_BITS {
            while by_position
                .ends
                .get(class)
                .is_some_and(|end| *end as usize <= block << BLOCK_BITS)
            {
                class += 1;
            }
            by_position.first_classes.push(class as u32);
        }
        Ok((by_position, starts))
    }

    /// Number of positions, including borders.
    fn n_positions(&self) -> usize {
        self.ends.last().map_or(1, |end| *end as usize)
    }

    fn class_of(&self, count: u64) -> usize {
        self.counts.partition_point(|c| *c > count)
    }

    /// The count at a position that is not a border, and not before one that `cursor` was used for.
    #[inline]
    fn at(&self, position: u32, cursor: &mut CountCursor) -> u64 {
        let first = self.first_classes[(position >> BLOCK_BITS) as usize] as usize;
        cursor.class = cursor.class.max(first);
        while self.ends[cursor.class] <= position {
            cursor.class += 1;
        }
        self.counts[cursor.class]
    }
}
