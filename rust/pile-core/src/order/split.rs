//! Splits of a dataset, and blends of several datasets: GPT-NeoX's `get_train_valid_test_split_`,
//! `get_normalized_weights_and_num_samples`, `weights_by_num_docs` and `build_blending_indices`.

use std::ops::Range;

use crate::{Error, Result};

/// Returns the documents of train, valid and test for a split such as `969,30,1` (or `8/1/1`).
///
/// As in the reference, sizes are computed in float64 and rounded half to even, missing shares are 0, and shares after
/// the third are ignored.
///
/// # Errors
/// A split that is not finite numbers, has negative numbers, or sums to zero.
pub fn split_documents(split: &str, n_documents: u64) -> Result<[Range<u64>; 3]> {
    let wrong = || {
        Error::argument(format!(
            "split {split:?} is not up to three shares such as 969,30,1"
        ))
    };
    let separator = if split.contains(',') { ',' } else { '/' };
    let shares = split.split(separator).map(|s| s.trim().parse::<f64>());
    let mut shares: Vec<f64> = shares
        .collect::<std::result::Result<_, _>>()
        .map_err(|_| wrong())?;
    shares.resize(3, 0.0);
    let sum: f64 = shares.iter().sum();
    if shares.iter().any(|s| !s.is_finite() || *s < 0.0) || sum <= 0.0 {
        return Err(wrong());
    }
    let mut bounds = [0_i64; 4];
    for (k, share) in shares.iter().enumerate() {
        bounds[k + 1] = bounds[k] + (share / sum * n_documents as f64).round_ties_even() as i64;
    }
    // Rounding may give a document too many or too few. The reference corrects all bounds but the first by it, which
    // can make one negative.
    let excess = bounds[3] - n_documents as i64;
    for bound in &mut bounds[1..] {
        *bound -= excess;
    }
    let at = |k: usize| bounds[k].max(0) as u64;
    Ok([0, 1, 2].map(|k| at(k)..at(k + 1).max(at(k))))
}

/// GPT-NeoX builds this many times the samples that a blend needs of each dataset by its weight.
const MARGIN: f64 = 1.005;

/// Returns the weights scaled to sum to one, and the number of samples to build of each dataset for
/// `n_samples` in total.
///
/// # Errors
/// No weights, negative or non-finite weights, or a sum of zero.
pub fn normalized_weights(weights: &[f64], n_samples: u64) -> Result<(Vec<f64>, Vec<u64>)> {
    let sum: f64 = weights.iter().sum();
    if weights.iter().any(|w| !w.is_finite() || *w < 0.0) || sum <= 0.0 {
        return Err(Error::argument(format!(
            "weights {weights:?} must be at least 0, and one of them above 0"
        )));
    }
    let weights: Vec<f64> = weights.iter().map(|w| w / sum).collect();
    let samples = weights
        .iter()
        .map(|w| (n_samples as f64 * w * MARGIN).ceil() as u64)
        .collect();
    Ok((weights, samples))
}

/// Returns the weights of GPT-NeoX's `weight_by_num_documents`. Small datasets get more than their share,
/// more so for a smaller `alpha`.
#[must_use]
pub fn weights_by_documents(n_documents: &[u64], alpha: f64) -> Vec<f64> {
    let normalized = |values: &[f64]| -> Vec<f64> {
        let sum: f64 = values.iter().sum();
        values.iter().map(|v| v / sum).collect()
    };
    let counts: Vec<f64> = n_documents.iter().map(|n| *n as f64).collect();
    let shares = normalized(&counts);
    let powers: Vec<f64> = shares.iter().map(|p| p.powf(alpha)).collect();
    let rest: Vec<f64> = shares.iter().map(|p| 1.0 - p).collect();
    let weights: Vec<f64> = normalized(&powers)
        .iter()
        .zip(rest)
        .map(|(q, r)| q * r)
        .collect();
    // The rest of a single dataset is 0, and so is its weight, which cannot be normalized.
    if weights.len() == 1 {
        return vec![1.0];
    }
    normalized(&weights)
}

/// For each sample of a blend, the dataset that provides it and the sample of that dataset.
#[derive(Debug)]
pub struct BlendArrays {
    /// Number of the dataset.
    pub dataset_index: Vec<u8>,
    /// Position in that dataset's own order.
    pub sample_index: Vec<i64>,
}

/// Returns GPT-NeoX's blend: each sample comes from the dataset with the largest deficit relative to its
/// weight, the first of equals. `weights` sum to one: see [`normalized_weights`].
///
/// # Errors
/// No datasets or more than 255, or too little memory.
pub fn blend(weights: &[f64], n_samples: u64) -> Result<BlendArrays> {
    if weights.is_empty() || weights.len() > usize::from(u8::MAX) {
        return Err(Error::argument(format!(
            "{} datasets, a blend has 1 to 255",
            weights.len()
        )));
    }
    let mut dataset_index = super::packed::try_with_capacity(n_samples)?;
    let mut sample_index = super::packed::try_with_capacity(n_samples)?;
    let mut counts = vec![0_i64; weights.len()];
    for i in 0..n_samples {
        // The reference treats the first sample as the second.
        let position = i.max(1) as f64;
        let deficit = |d: usize| weights[d] * position - counts[d] as f64;
        let mut next = 0;
        for d in 1..weights.len() {
            if deficit(d) > deficit(next) {
                next = d;
            }
        }
        dataset_index.push(next as u8);
        sample_index.push(counts[next]);
        counts[next] += 1;
    }
    Ok(BlendArrays {
        dataset_index,
        sample_index,
    })
}
