//! The part of numpy's legacy generator, `numpy.random.RandomState`, that its `shuffle` uses.
//!
//! Mersenne Twister 19937 (Matsumoto and Nishimura 1998), seeded by one 32-bit word. Bounded draws are by
//! masking and rejection. The shuffle is Fisher-Yates from the end. The constants are those of the paper; that
//! of the seeding is from the authors' revision of 2002 (`init_genrand` in mt19937ar.c).

use crate::io::prefetch;

/// Words of state.
const N: usize = 624;

/// Distance of the words that the recurrence combines.
const M: usize = 397;

/// A generator. Successive shuffles draw from one stream.
#[derive(Debug, Clone)]
pub struct Mt19937 {
    state: [u32; N],
    next: usize,
}

impl Mt19937 {
    /// The generator of `RandomState(seed)`.
    #[must_use]
    pub fn new(seed: u32) -> Self {
        let mut state = [seed; N];
        for i in 1..N {
            let previous = state[i - 1];
            state[i] = 1_812_433_253_u32
                .wrapping_mul(previous ^ (previous >> 30))
                .wrapping_add(i as u32);
        }
        Self { state, next: N }
    }

    fn refill(&mut self) {
        for i in 0..N {
            let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % N] & 0x7fff_ffff);
            let twisted = if y & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[i] = self.state[(i + M) % N] ^ (y >> 1) ^ twisted;
        }
        self.next = 0;
    }

    /// The next 32 random bits.
    pub fn next_u32(&mut self) -> u32 {
        if self.next == N {
            self.refill();
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// A draw from `0..=max`. Takes 32 bits if `max` fits, else 64 bits, high word first.
    pub fn interval(&mut self, max: u64) -> u64 {
        if max == 0 {
            return 0; // The reference draws nothing here.
        }
        let mask = u64::MAX >> max.leading_zeros();
        loop {
            let draw = if max <= u64::from(u32::MAX) {
                u64::from(self.next_u32())
            } else {
                u64::from(self.next_u32()) << 32 | u64::from(self.next_u32())
            };
            if draw & mask <= max {
                return draw & mask;
            }
        }
    }

    /// Shuffles as `RandomState.shuffle` shuffles a one-dimensional array.
    ///
    /// The draws do not depend on the data. They are made [`AHEAD`] swaps early, and each drawn index is
    /// prefetched: the swaps of a large array would otherwise wait for one cache miss each.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        let mut drawn = [0_usize; AHEAD];
        let mut end = items.len();
        while end > 1 {
            let n = AHEAD.min(end - 1);
            for (k, index) in drawn[..n].iter_mut().enumerate() {
                *index = self.interval((end - 1 - k) as u64) as usize;
                prefetch(&items[*index]);
            }
            for (k, index) in drawn[..n].iter().enumerate() {
                items.swap(end - 1 - k, *index);
            }
            end -= n;
        }
    }
}

/// Draws made before the first of their swaps: enough to hide a cache miss.
const AHEAD: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawing_ahead_does_not_change_the_result() {
        for n in [0, 1, 2, 63, 64, 65, 66, 129, 1000] {
            let (mut fast, mut slow) = (Mt19937::new(7), Mt19937::new(7));
            let mut shuffled: Vec<usize> = (0..n).collect();
            let mut expected = shuffled.clone();
            fast.shuffle(&mut shuffled);
            for i in (1..n).rev() {
                expected.swap(i, slow.interval(i as u64) as usize);
            }
            assert_eq!(shuffled, expected, "{n}");
            assert_eq!(fast.next_u32(), slow.next_u32(), "{n}");
        }
    }
}
