//! MinHash signatures: for each of `k` permutations of 32-bit numbers, the minimum over the shingles of a text.
//!
//! A permutation multiplies by an odd number and adds another, modulo 2^32.

use super::hash::mix;

/// Permutations of a block. Their minima, multipliers and addends fill 12 of the 16 vector registers of AVX2.
const BLOCK: usize = 32;

/// A block of permutations.
#[derive(Debug, Clone)]
struct MinBlock {
    multipliers: [u32; BLOCK],
    addends: [u32; BLOCK],
}

impl MinBlock {
    /// The minima over `numbers`. The compiler vectorizes the inner loop. Always inlined, so that `minima_avx2`
    /// compiles it with AVX2.
    #[inline(always)]
    fn minima(&self, numbers: &[u32]) -> [u32; BLOCK] {
        let mut minima = [u32::MAX; BLOCK];
        for number in numbers {
            for (i, minimum) in minima.iter_mut().enumerate() {
                let image = number.wrapping_mul(self.multipliers[i]);
                *minimum = image.wrapping_add(self.addends[i]).min(*minimum);
            }
        }
        minima
    }

    /// [`Self::minima`] with AVX2, five times as fast: SSE2, the baseline, has neither this multiplication nor this
    /// minimum.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn minima_avx2(&self, numbers: &[u32]) -> [u32; BLOCK] {
        self.minima(numbers)
    }
}

/// The permutations of signatures. They are the same in each process.
#[derive(Debug, Clone)]
pub(super) struct MinHash {
    blocks: Vec<MinBlock>,
    permutations: usize,
    has_avx2: bool,
    /// Scratch: the shingles as 32-bit numbers.
    numbers: Vec<u32>,
}

impl MinHash {
    pub(super) fn new(permutations: usize) -> Self {
        // The numbers of permutation `i` do not depend on the number of permutations.
        let seed = |i: usize, of: u64| (mix(2 * i as u64 + of + 1) >> 32) as u32;
        let block = |first: usize| MinBlock {
            multipliers: std::array::from_fn(|i| seed(first + i, 0) | 1),
            addends: std::array::from_fn(|i| seed(first + i, 1)),
        };
        Self {
            blocks: (0..permutations).step_by(BLOCK).map(block).collect(),
            permutations,
            #[cfg(target_arch = "x86_64")]
            has_avx2: std::arch::is_x86_feature_detected!("avx2"),
            #[cfg(not(target_arch = "x86_64"))]
            has_avx2: false,
            numbers: Vec::new(),
        }
    }

    /// Length of the signatures.
    pub(super) fn permutations(&self) -> usize {
        self.permutations
    }

    /// Appends the signature of a set of shingle hashes. It is all `u32::MAX` for the empty set.
    pub(super) fn append(&mut self, shingles: &[u64], signature: &mut Vec<u32>) {
        self.numbers.clear();
        // The high halves are as random as the low ones.
        let numbers = shingles.iter().map(|hash| (hash >> 32) as u32);
        self.numbers.extend(numbers);
        let end = signature.len() + self.permutations;
        for block in &self.blocks {
            signature.extend(self.minima(block));
        }
        signature.truncate(end);
    }

    #[cfg(target_arch = "x86_64")]
    fn minima(&self, block: &MinBlock) -> [u32; BLOCK] {
        if self.has_avx2 {
            // SAFETY: the processor has AVX2, as detected in `new`.
            return unsafe { block.minima_avx2(&self.numbers) };
        }
        block.minima(&self.numbers)
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn minima(&self, block: &MinBlock) -> [u32; BLOCK] {
        block.minima(&self.numbers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signature(permutations: usize, shingles: &[u64]) -> Vec<u32> {
        let mut signature = vec![7];
        MinHash::new(permutations).append(shingles, &mut signature);
        signature.split_off(1)
    }

    #[test]
    fn each_number_is_the_minimum_of_its_permutation() {
        let shingles: Vec<u64> = (0..500).map(mix).collect();
        for permutations in [1, 31, 32, 33, 256] {
            let found = signature(permutations, &shingles);
            let minhash = MinHash::new(permutations);
            let expected = (0..permutations).map(|i| {
                let block = &minhash.blocks[i / BLOCK];
                let image = |hash: &u64| {
                    ((hash >> 32) as u32)
                        .wrapping_mul(block.multipliers[i % BLOCK])
                        .wrapping_add(block.addends[i % BLOCK])
                };
                shingles.iter().map(image).min().unwrap()
            });
            assert_eq!(found, expected.collect::<Vec<_>>());
            let without_avx2 = minhash.blocks.iter().flat_map(|block| {
                let numbers: Vec<u32> = shingles.iter().map(|hash| (hash >> 32) as u32).collect();
                block.minima(&numbers)
            });
            assert_eq!(found, without_avx2.take(permutations).collect::<Vec<_>>());
        }
        assert_eq!(signature(3, &[]), [u32::MAX; 3]);
    }

    #[test]
    fn equal_numbers_estimate_the_similarity() {
        let all: Vec<u64> = (0..3000).map(mix).collect();
        for shared in [300, 1500, 2700] {
            // The union has 3,000 shingles.
            let apart = (3000 - shared) / 2;
            let (a, b) = (&all[..shared + apart], &all[apart..]);
            let (a, b) = (signature(4096, a), signature(4096, b));
            let n_equal = a.iter().zip(&b).filter(|(a, b)| a == b).count();
            let (found, expected) = (n_equal as f64 / 4096.0, shared as f64 / 3000.0);
            assert!((found - expected).abs() < 0.03, "{found}, {expected}");
        }
    }
}
