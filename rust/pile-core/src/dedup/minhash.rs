//! Signatures of sets of shingles. Two sets have equal values in a bin with the probability of their Jaccard similarity, as
//! with the minimum of a random permutation (MinHash), but a signature takes time for the shingles *and* for the
//! bins, not for the one times the other.
//!
//! Fast similarity sketching (Dahlgaard, Knudsen and Thorup, FOCS 2017): each round throws each shingle into one of `k`
//! bins, with a value. The value of a bin is the smallest that the first round with a shingle in this bin threw into it.
//! Rounds follow until no bin is empty. A large set fills all bins in its first rounds, and a small set has
//! little to throw. What is left empty after `k` rounds is filled by `k` rounds of one bin each, so that the rounds
//! end. Only a set of a few shingles needs them: `n` shingles leave about `k / e^n` bins empty.

use super::hash::mix;

/// The value of a bin that no shingle was thrown into. The round of a value is in the upper half, so all values are smaller.
const EMPTY: u64 = u64::MAX;

/// Makes the signatures of sets. They are the same in each process.
#[derive(Debug, Clone)]
pub(super) struct MinHash {
    /// Scratch, by bin: the round and the value in one number, so that those of the first round are the smallest.
    bins: Vec<u64>,
}

impl MinHash {
    pub(super) fn new(permutations: usize) -> Self {
        Self {
            bins: vec![EMPTY; permutations],
        }
    }

    /// Length of the signatures.
    pub(super) fn permutations(&self) -> usize {
        self.bins.len()
    }

    /// Appends the signature of a set of shingle hashes, some of which may be repeated. It is all `u32::MAX` for the empty
    /// set.
    pub(super) fn append(&mut self, shingles: &[u64], signature: &mut Vec<u32>) {
        self.bins.fill(EMPTY);
        let n_bins = self.bins.len() as u64;
        let n_rounds = if shingles.is_empty() { 0 } else { 2 * n_bins };
        for round in 0..n_rounds {
            self.throw(round, shingles);
            if !self.bins.contains(&EMPTY) {
                break;
            }
        }
        signature.extend(self.bins.iter().map(|bin| *bin as u32));
    }

    fn throw(&mut self, round: u64, shingles: &[u64]) {
        let n_bins = self.bins.len() as u64;
        for shingle in shingles {
            // The shingles are hashes, so they are random enough for the first round.
            let hash = match round {
                0 => *shingle,
                _ => mix(shingle.wrapping_add(mix(round))),
            };
            let bin = match round < n_bins {
                true => ((hash >> 32) * n_bins) >> 32,
                false => round - n_bins,
            };
            let bin = &mut self.bins[bin as usize];
            *bin = (*bin).min(round << 32 | u64::from(hash as u32));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dedup::{Bands, Threshold, bands::band_probability, lsh_bands};

    fn signature(permutations: usize, shingles: &[u64]) -> Vec<u32> {
        let mut signature = vec![7];
        MinHash::new(permutations).append(shingles, &mut signature);
        signature.split_off(1)
    }

    /// Two sets of random shingles of which `n_shared` are in both and `n_apart` in each alone.
    fn sets(seed: u64, n_shared: u64, n_apart: u64) -> (Vec<u64>, Vec<u64>) {
        let all: Vec<u64> = (0..n_shared + 2 * n_apart)
            .map(|i| mix(mix(seed) ^ i))
            .collect();
        let n = (n_shared + n_apart) as usize;
        (all[..n].to_vec(), all[n_apart as usize..][..n].to_vec())
    }

    #[test]
    fn signatures_never_change() {
        let shingles: Vec<u64> = (1..4).map(mix).collect();
        assert_eq!(signature(4, &shingles), KNOWN);
        assert_eq!(signature(3, &[]), [u32::MAX; 3]);
    }

    const KNOWN: [u32; 4] = [425_316_237, 2_301_676_993, 1_518_525_007, 3_822_571_753];

    #[test]
    fn neither_order_nor_repetition_of_shingles_matters() {
        let shingles: Vec<u64> = (0..40).map(mix).collect();
        let mut repeated: Vec<u64> = shingles.iter().rev().copied().collect();
        repeated.extend(&shingles[..9]);
        for permutations in [1, 16, 100, 4096] {
            let found = signature(permutations, &shingles);
            assert_eq!(found, signature(permutations, &repeated));
            assert!(!found.contains(&u32::MAX));
        }
    }

    /// Each bin of a set of any size: an estimate of the similarity without bias.
    #[test]
    fn equal_values_estimate_the_similarity() {
        for (n_shared, n_apart) in [(4, 1), (30, 10), (300, 1350), (1500, 750), (2700, 150)] {
            let n_equal: usize = (0..200)
                .map(|seed| {
                    let (a, b) = sets(seed, n_shared, n_apart);
                    let (a, b) = (signature(256, &a), signature(256, &b));
                    a.iter().zip(&b).filter(|(a, b)| a == b).count()
                })
                .sum();
            let found = n_equal as f64 / (200.0 * 256.0);
            let expected = n_shared as f64 / (n_shared + 2 * n_apart) as f64;
            assert!((found - expected).abs() < 0.02, "{found}, {expected}");
        }
    }

    /// Bands assume that the values of a signature are independent. Here they are not quite: this compares the pairs
    /// that share a band with what independent values would give.
    #[test]
    fn bands_find_what_their_curve_says() {
        let bands = lsh_bands(Threshold::parse("0.87").unwrap(), 256).unwrap();
        for (n_shared, n_apart) in [(5, 1), (14, 2), (27, 2), (140, 20), (270, 20), (1400, 200)] {
            let n = 2000;
            let n_found = (0..n)
                .filter(|seed| {
                    let (a, b) = sets(*seed, n_shared, n_apart);
                    shares_band(&signature(256, &a), &signature(256, &b), bands)
                })
                .count();
            let similarity = n_shared as f64 / (n_shared + 2 * n_apart) as f64;
            let found = n_found as f64 / n as f64;
            let expected = band_probability(similarity, bands);
            // Three standard deviations of the middle of the curve.
            assert!(
                (found - expected).abs() < 0.034,
                "{similarity}: {found}, {expected}"
            );
        }
    }

    fn shares_band(a: &[u32], b: &[u32], bands: Bands) -> bool {
        let rows = |signature: &[u32]| {
            let rows = signature.chunks(bands.rows).take(bands.bands);
            rows.map(<[u32]>::to_vec).collect::<Vec<_>>()
        };
        rows(a).iter().zip(&rows(b)).any(|(a, b)| a == b)
    }
}
