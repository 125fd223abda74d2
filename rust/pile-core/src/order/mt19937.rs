//! numpy's legacy generator, `numpy.random.RandomState`, as far as its `shuffle` needs it.
//!
//! Mersenne Twister 19937 (Matsumoto and Nishimura 1998) seeded by one 32-bit word; bounded draws
//! by masking and rejection, and Fisher-Yates from the end.

use crate::io::prefetch;

const N: usize = 624;
const M: usize = 397;

/// The generator's state; two shuffles in a row go on with one stream.
#[derive(Debug, Clone)]
pub struct Mt19937 {
    state: [u32; N],
    next: usize,
}

impl Mt19937 {
    /// `RandomState(seed)`.
    #[must_use]
    pub fn new(seed: u32) -> Self {
        let mut state = [seed; N];
        for i in 1..N {
            let before = state[i - 1];
            state[i] = 1_812_433_253_u32
                .wrapping_mul(before ^ (before >> 30))
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

    /// A draw from `0..=max`: 64 bits, high word first, only where `max` needs them.
    pub fn interval(&mut self, max: u64) -> u64 {
        if max == 0 {
            return 0; // without a draw, as the reference
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

    /// `RandomState.shuffle` of a one-dimensional array.
    ///
    /// Draws do not depend on the data, so they run ahead of the swaps, and each place is asked for as
    /// soon as it is drawn: a large shuffle waits for memory and for little else.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        let mut drawn = [0_usize; AHEAD];
        let mut end = items.len();
        while end > 1 {
            let n = AHEAD.min(end - 1);
            for (k, place) in drawn[..n].iter_mut().enumerate() {
                *place = self.interval((end - 1 - k) as u64) as usize;
                prefetch(&items[*place]);
            }
            for (k, place) in drawn[..n].iter().enumerate() {
                items.swap(end - 1 - k, *place);
            }
            end -= n;
        }
    }
}

/// Draws made before their swaps.
const AHEAD: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_ahead_changes_nothing() {
        for n in [0, 1, 2, 63, 64, 65, 66, 129, 1000] {
            let (mut fast, mut slow) = (Mt19937::new(7), Mt19937::new(7));
            let mut shuffled: Vec<usize> = (0..n).collect();
            let mut plain = shuffled.clone();
            fast.shuffle(&mut shuffled);
            for i in (1..n).rev() {
                plain.swap(i, slow.interval(i as u64) as usize);
            }
            assert_eq!(shuffled, plain, "{n}");
            assert_eq!(fast.next_u32(), slow.next_u32(), "{n}");
        }
    }
}
