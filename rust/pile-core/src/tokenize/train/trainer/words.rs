//! All different pieces as tokens, in one array, where pairs are found by their place.

use super::{super::counts::PieceCounts, Pair};
use crate::{Error, Result};

/// Stands before, between and behind words.
pub(super) const BORDER: u32 = u32::MAX;

/// Stands where a token started that is now part of another.
const GONE: u32 = u32::MAX - 1;

/// Pieces as tokens, each once, and how often they occur.
pub(super) struct Words {
    /// One for each byte and border. A token stands at its first and at its last byte, so that both
    /// neighbours of a place are found; the places between say nothing.
    tokens: Vec<u32>,
    /// Bytes of each token.
    lengths: Vec<u32>,
    counts: CountsByPlace,
}

/// Where a pair was joined, and what stood around it.
pub(super) struct Joined {
    /// How often the word occurs.
    pub(super) count: u64,
    /// The token before, or a border, and where it starts.
    pub(super) before: u32,
    pub(super) before_place: u32,
    /// The token behind, or a border.
    pub(super) after: u32,
}

impl Words {
    /// The pieces as bytes, of which `byte_ids` are the tokens.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Argument`] if places do not fit 32 bits.
    pub(super) fn new(pieces: &PieceCounts, byte_ids: &[u32; 256]) -> Result<Self> {
        let (counts, mut next_places) = CountsByPlace::new(pieces)?;
        let mut tokens = vec![BORDER; counts.n_places()];
        pieces.each(|piece, count| {
            let class = counts.class_of(count);
            let place = &mut next_places[class];
            for (token, byte) in tokens[*place..].iter_mut().zip(piece) {
                *token = byte_ids[usize::from(*byte)];
            }
            *place += piece.len() + 1;
        });
        let mut words = Self {
            tokens,
            lengths: Vec::new(),
            counts,
        };
        for id in byte_ids {
            words.set_length(*id, 1);
        }
        Ok(words)
    }

    fn set_length(&mut self, id: u32, n_bytes: u32) {
        let id = id as usize;
        self.lengths.resize(self.lengths.len().max(id + 1), 0);
        self.lengths[id] = n_bytes;
    }

    /// Calls `visit` with each pair of neighbours, its place and how often its word occurs.
    pub(super) fn each_pair(&self, mut visit: impl FnMut(Pair, u32, u64)) {
        let mut place = 1;
        for (end, count) in self.counts.ends.iter().zip(&self.counts.counts) {
            while place < *end as usize {
                // A word has a token, and a border behind it.
                let left = self.tokens[place];
                let next = place + self.lengths[left as usize] as usize;
                let right = self.tokens[next];
                if right == BORDER {
                    place = next + 1;
                    continue;
                }
                visit((left, right), place as u32, *count);
                place = next;
            }
        }
    }

    /// Says that `pair` becomes `id`; [`Self::join`] does it.
    pub(super) fn announce(&mut self, pair: Pair, id: u32) {
        let length = |id: u32| self.lengths[id as usize];
        self.set_length(id, length(pair.0) + length(pair.1));
    }

    /// Makes the pair at `place`, if it is still there, one token `id`.
    #[inline]
    pub(super) fn join(
        &mut self,
        place: u32,
        pair: Pair,
        id: u32,
        cursor: &mut Cursor,
    ) -> Option<Joined> {
        let start = place as usize;
        if self.tokens[start] != pair.0 {
            return None;
        }
        let middle = start + self.lengths[pair.0 as usize] as usize;
        if self.tokens[middle] != pair.1 {
            return None;
        }
        let end = middle + self.lengths[pair.1 as usize] as usize;
        self.tokens[middle] = GONE;
        self.tokens[start] = id;
        self.tokens[end - 1] = id;
        let (before, after) = (self.tokens[start - 1], self.tokens[end]);
        let before_length = match before {
            BORDER => 1,
            before => self.lengths[before as usize],
        };
        Some(Joined {
            count: self.counts.at(place, cursor),
            before,
            before_place: place - before_length,
            after,
        })
    }
}

/// Bits of a place within a block.
const BLOCK_BITS: u32 = 8;

/// How often the word at a place occurs. Words that occur equally often, a class, lie together; the
/// most frequent come first.
struct CountsByPlace {
    /// Falling.
    counts: Vec<u64>,
    /// Where each class ends.
    ends: Vec<u32>,
    /// The class at the start of each block of places.
    first_classes: Vec<u32>,
}

/// Goes through rising places.
#[derive(Default)]
pub(super) struct Cursor {
    class: usize,
}

impl CountsByPlace {
    /// The counts, and the place of the first word of each class.
    fn new(pieces: &PieceCounts) -> Result<(Self, Vec<usize>)> {
        let mut sizes = std::collections::BTreeMap::<_, usize>::new();
        pieces.each(|piece, count| {
            *sizes.entry(std::cmp::Reverse(count)).or_default() += piece.len() + 1;
        });
        let (mut counts, mut ends, mut starts) = (Vec::new(), Vec::new(), Vec::new());
        let mut end = 1; // behind the first border
        for (count, size) in sizes {
            starts.push(end);
            end += size;
            counts.push(count.0);
            ends.push(u32::try_from(end).map_err(|_| {
                Error::argument("more than 4 GB of different words: train on a sample of the text")
            })?);
        }
        let mut by_place = Self {
            counts,
            ends,
            first_classes: Vec::new(),
        };
        let mut class = 0;
        for block in 0..=by_place.n_places() >> BLOCK_BITS {
            while by_place
                .ends
                .get(class)
                .is_some_and(|end| *end as usize <= block << BLOCK_BITS)
            {
                class += 1;
            }
            by_place.first_classes.push(class as u32);
        }
        Ok((by_place, starts))
    }

    /// Places of words, borders included.
    fn n_places(&self) -> usize {
        self.ends.last().map_or(1, |end| *end as usize)
    }

    fn class_of(&self, count: u64) -> usize {
        self.counts.partition_point(|c| *c > count)
    }

    /// The count at a place that is no border and not before those that `cursor` saw.
    #[inline]
    fn at(&self, place: u32, cursor: &mut Cursor) -> u64 {
        let first = self.first_classes[(place >> BLOCK_BITS) as usize] as usize;
        cursor.class = cursor.class.max(first);
        while self.ends[cursor.class] <= place {
            cursor.class += 1;
        }
        self.counts[cursor.class]
    }
}
