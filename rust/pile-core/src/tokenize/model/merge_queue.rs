//! The candidate merges of a long pretoken, in the order in which BPE applies them: by rank, then from left to
//! right.
//!
//! A heap of (rank, position) would do, but costs O(log n) for each candidate and jumps around in memory. Here
//! each rank has a list of its positions, and the heap holds ranks only. A merge mostly creates candidates of
//! higher ranks, so a rank is taken from the heap once, its positions are sorted, and they are applied in
//! memory order: a million equal letters cost little more than as many steps through an array.
//!
//! A candidate of a lower or of the current rank may be pushed at any time. It is then returned in its order.

use std::{cmp::Reverse, collections::BinaryHeap};

use rustc_hash::FxHashMap;

/// A priority queue of candidate merges.
#[derive(Debug, Default)]
pub(crate) struct MergeQueue {
    /// The ranks with waiting positions, each once.
    ranks: BinaryHeap<Reverse<u32>>,
    /// The positions of each rank in `ranks`, in no order.
    waiting: FxHashMap<u32, Vec<u32>>,
    /// The rank being applied. It has no meaning if `current` is empty.
    rank: u32,
    /// The remaining positions of that rank in descending order, so that the next one is the last.
    current: Vec<u32>,
    /// Empty lists whose memory is reused.
    spare: Vec<Vec<u32>>,
}

impl MergeQueue {
    /// Adds a candidate.
    pub(crate) fn push(&mut self, rank: u32, position: u32) {
        let Self { ranks, spare, .. } = self;
        let positions = self.waiting.entry(rank).or_insert_with(|| {
            ranks.push(Reverse(rank));
            spare.pop().unwrap_or_default()
        });
        positions.push(position);
    }

    /// Removes and returns the candidate of the lowest rank, the leftmost of equals.
    pub(crate) fn pop(&mut self) -> Option<(u32, u32)> {
        if let Some(&Reverse(rank)) = self.ranks.peek()
            && (self.current.is_empty() || rank <= self.rank)
        {
            self.start_rank(rank);
        }
        self.current.pop().map(|position| (self.rank, position))
    }

    /// Makes `rank`, the lowest waiting rank, the current one. Remaining positions of another rank go back to
    /// the waiting ones.
    fn start_rank(&mut self, rank: u32) {
        self.ranks.pop();
        let mut positions = self.waiting.remove(&rank).unwrap_or_default();
        if rank == self.rank {
            positions.append(&mut self.current);
        }
        positions.sort_unstable_by_key(|position| Reverse(*position));
        let mut previous = std::mem::replace(&mut self.current, positions);
        let previous_rank = std::mem::replace(&mut self.rank, rank);
        for position in previous.drain(..) {
            self.push(previous_rank, position);
        }
        self.spare.push(previous);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    proptest! {
        #[test]
        fn equals_a_heap(steps in vec(prop::option::weighted(0.6, (0_u32..5, 0_u32..50)), 0..200)) {
            let (mut queue, mut heap) = (MergeQueue::default(), BinaryHeap::new());
            for step in steps {
                match step {
                    Some((rank, position)) => {
                        queue.push(rank, position);
                        heap.push(Reverse((rank, position)));
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
