//! Locality-sensitive hashing: which signatures become candidate pairs, and how likely.
//!
//! Signatures are split into bands of rows. Two texts are a candidate pair if all rows of one band are equal. The
//! "optimal" bands of other tools find only half of the pairs at the threshold. Candidates are verified here, so
//! the bands are chosen to find nearly all of these pairs, at the price of more candidates.

use serde::Serialize;

use super::{Threshold, config::check_permutations};
use crate::Result;

/// Least probability of finding a pair whose similarity is the threshold. With 0.995, one of a hundred such pairs is
/// missed with two choices of seeds in five; with this, with one in ten. At 0.87 that costs 1.4 times the candidates of
/// similarity 0.7.
const MIN_PROBABILITY: f64 = 0.999;

/// Points at which the expected number of candidates is summed.
const N_POINTS: u32 = 500;

/// How signatures are split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Bands {
    /// Number of bands.
    pub bands: usize,
    /// Permutations of each band.
    pub rows: usize,
}

/// The probability that two texts of this similarity are a candidate pair: `1 - (1 - s^rows)^bands`.
#[must_use]
pub fn band_probability(similarity: f64, bands: Bands) -> f64 {
    1.0 - power(1.0 - power(similarity, bands.rows), bands.bands)
}

/// `base` to the power of `exponent`. The same on each machine, unlike the functions of the platform.
fn power(mut base: f64, mut exponent: usize) -> f64 {
    let mut product = 1.0;
    while exponent > 0 {
        if exponent & 1 == 1 {
            product *= base;
        }
        base *= base;
        exponent >>= 1;
    }
    product
}

/// The bands that give the fewest candidates below the threshold, if similarities are spread evenly, of those that
/// find a pair at the threshold with a probability of 0.999. Those that find it with the highest probability if none
/// reaches that.
///
/// # Errors
/// No permutations, or more than 4,096.
pub fn lsh_bands(threshold: Threshold, permutations: usize) -> Result<Bands> {
    check_permutations(permutations)?;
    let threshold = threshold.as_f64();
    let enough = |bands: &Bands| band_probability(threshold, *bands) >= MIN_PROBABILITY;
    let fewest = (1..=permutations).filter_map(|rows| {
        let with = |bands| Bands { bands, rows };
        (1..=permutations / rows).map(with).find(enough)
    });
    let candidates = |bands: Bands| -> f64 {
        let similarity = |i| threshold * f64::from(i) / f64::from(N_POINTS);
        (1..N_POINTS)
            .map(|i| band_probability(similarity(i), bands))
            .sum()
    };
    let best = fewest.min_by(|a, b| candidates(*a).total_cmp(&candidates(*b)));
    // One row makes a candidate of every pair with an equal number in their signatures.
    Ok(best.unwrap_or(Bands {
        bands: permutations,
        rows: 1,
    }))
}

/// Similarities from 0.50 to 1.00, and the probability of finding a pair of each.
pub(super) fn probability_curve(bands: Bands) -> Vec<(f64, f64)> {
    let point = |percent: u32| {
        let similarity = f64::from(percent) / 100.0;
        (similarity, band_probability(similarity, bands))
    };
    (50..=100).map(point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(threshold: &str, permutations: usize) -> (Bands, f64) {
        let threshold = Threshold::parse(threshold).unwrap();
        let bands = lsh_bands(threshold, permutations).unwrap();
        (bands, band_probability(threshold.as_f64(), bands))
    }

    #[test]
    fn bands_find_nearly_all_pairs_at_the_threshold() {
        let (bands, probability) = chosen("0.87", 256);
        assert_eq!((bands.bands, bands.rows), (25, 10));
        assert!((0.999..0.9995).contains(&probability), "{probability}");
        for threshold in ["0.3", "0.5", "0.8", "0.95", "0.99"] {
            for permutations in [64, 128, 256, 1000] {
                let (bands, probability) = chosen(threshold, permutations);
                assert!(bands.bands * bands.rows <= permutations);
                assert!(probability >= MIN_PROBABILITY, "{threshold} {permutations}");
            }
        }
        assert_eq!(
            chosen("1", 256).0,
            Bands {
                bands: 1,
                rows: 256
            }
        );
    }

    #[test]
    fn too_few_permutations_find_what_they_can() {
        let (bands, probability) = chosen("0.3", 4);
        assert_eq!(bands, Bands { bands: 4, rows: 1 });
        assert!((probability - 0.7599).abs() < 1e-9);
        assert!(lsh_bands(Threshold::parse("0.5").unwrap(), 0).is_err());
        assert!(lsh_bands(Threshold::parse("0.5").unwrap(), 4097).is_err());
    }

    #[test]
    fn powers_and_the_curve_agree() {
        for (base, exponent) in [(0.87, 12), (0.5, 1), (1.0, 256), (0.0, 3), (0.3, 0)] {
            assert!((power(base, exponent) - f64::powi(base, exponent as i32)).abs() < 1e-12);
        }
        let curve = probability_curve(Bands {
            bands: 20,
            rows: 12,
        });
        assert_eq!((curve.len(), curve[50]), (51, (1.0, 1.0)));
        assert!(curve.is_sorted_by(|a, b| a.0 < b.0 && a.1 < b.1 + 1e-12));
    }
}
