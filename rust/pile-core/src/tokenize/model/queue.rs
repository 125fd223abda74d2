//! Candidate merges of a long piece, in the order in which they are made: by rank, then from left to right.
//!
//! The places of each rank have a list of their own. A merge mostly makes candidates of higher ranks only, so a rank
//! is taken up once, its places sorted, and then gone through from left to right, as they lie in memory: a million
//! equal letters cost little more than as many steps along an array. Any order of ranks is right.

use std::{cmp::Reverse, collections::BinaryHeap};

use rustc_hash::FxHashMap;

/// Candidates, each of a rank and a place.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// The ranks of which places wait.
    ranks: BinaryHeap<Reverse<u32>>,
    waiting: FxHashMap<u32, Vec<u32>>,
    /// The rank that is gone through, and its places, the leftmost last.
    rank: u32,
    places: Vec<u32>,
    /// Lists that are used again.
    spare: Vec<Vec<u32>>,
}

impl Queue {
    /// Adds a candidate.
    pub(crate) fn push(&mut self, rank: u32, place: u32) {
        let Self { ranks, spare, .. } = self;
        let places = self.waiting.entry(rank).or_insert_with(|| {
            ranks.push(Reverse(rank));
            spare.pop().unwrap_or_default()
        });
        places.push(place);
    }

    /// Takes out the leftmost candidate of the lowest rank.
    pub(crate) fn pop(&mut self) -> Option<(u32, u32)> {
        if let Some(&Reverse(rank)) = self.ranks.peek()
            && (self.places.is_empty() || rank <= self.rank)
        {
            self.take_up(rank);
        }
        self.places.pop().map(|place| (self.rank, place))
    }

    fn take_up(&mut self, rank: u32) {
        self.ranks.pop();
        let mut places = self.waiting.remove(&rank).unwrap_or_default();
        if rank == self.rank {
            places.append(&mut self.places);
        }
        places.sort_unstable_by_key(|place| Reverse(*place));
        let mut left = std::mem::replace(&mut self.places, places);
        let before = std::mem::replace(&mut self.rank, rank);
        left.drain(..).for_each(|place| self.push(before, place));
        self.spare.push(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    proptest! {
        #[test]
        fn as_a_heap(steps in vec(prop::option::weighted(0.6, (0_u32..5, 0_u32..50)), 0..200)) {
            let (mut queue, mut heap) = (Queue::default(), BinaryHeap::new());
            for step in steps {
                match step {
                    Some((rank, place)) => {
                        queue.push(rank, place);
                        heap.push(Reverse((rank, place)));
                    }
                    None => prop_assert_eq!(queue.pop(), heap.pop().map(|Reverse(least)| least)),
                }
            }
            while let Some(Reverse(least)) = heap.pop() {
                prop_assert_eq!(queue.pop(), Some(least));
            }
            prop_assert_eq!(queue.pop(), None);
        }
    }
}
