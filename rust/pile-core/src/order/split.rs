//! Parts of a dataset, and weights of several: GPT-NeoX's `get_train_valid_test_split_`,
//! `get_normalized_weights_and_num_samples` and `weights_by_num_docs`.

use std::ops::Range;

use crate::{Error, Result};

/// The documents of train, valid and test by a split such as `969,30,1` (or `8/1/1`).
///
/// Borders are rounded half to even, in float64, as the reference does.
///
/// # Errors
/// Not numbers, negative ones, or a sum of zero.
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
    let mut borders = [0_i64; 4];
    for (k, share) in shares.iter().enumerate() {
        borders[k + 1] = borders[k] + (share / sum * n_documents as f64).round_ties_even() as i64;
    }
    let excess = borders[3] - n_documents as i64;
    for border in &mut borders[1..] {
        *border -= excess;
    }
    let at = |k: usize| borders[k].max(0) as u64;
    Ok([0, 1, 2].map(|k| at(k)..at(k + 1).max(at(k))))
}

/// GPT-NeoX asks for this many times the samples of a run whose datasets have paths of their own.
const MARGIN: f64 = 1.005;

/// Weights that sum to one, and the samples to build of each dataset for `n_samples` in all.
///
/// # Errors
/// No weights, negative ones, or a sum of zero.
pub fn normalized_weights(weights: &[f64], n_samples: u64) -> Result<(Vec<f64>, Vec<u64>)> {
    let sum: f64 = weights.iter().sum();
    if weights.iter().any(|w| !w.is_finite() || *w < 0.0) || sum <= 0.0 {
        return Err(Error::argument(format!(
            "weights {weights:?} must be at least 0, and one of them more"
        )));
    }
    let weights: Vec<f64> = weights.iter().map(|w| w / sum).collect();
    let samples = weights
        .iter()
        .map(|w| (n_samples as f64 * w * MARGIN).ceil() as u64)
        .collect();
    Ok((weights, samples))
}

/// `weight_by_num_documents`: smaller datasets weigh more than their share, the more the smaller `alpha`.
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
    if weights.len() == 1 {
        return vec![1.0];
    }
    normalized(&weights)
}

/// Which dataset gives each sample of a blend, and its how manieth.
#[derive(Debug)]
pub struct Blended {
    /// Number of the dataset.
    pub dataset_index: Vec<u8>,
    /// Place in that dataset's own order.
    pub sample_index: Vec<i64>,
}

/// GPT-NeoX's blend: each sample comes from the dataset that is furthest behind its weight, the first of equals.
///
/// # Errors
/// More than 255 datasets, or no memory for so many samples.
pub fn blend(weights: &[f64], n_samples: u64) -> Result<Blended> {
    if weights.is_empty() || weights.len() > usize::from(u8::MAX) {
        return Err(Error::argument(format!(
            "{} datasets, a blend has 1 to 255",
            weights.len()
        )));
    }
    let mut dataset_index = super::packed::with_room(n_samples)?;
    let mut sample_index = super::packed::with_room(n_samples)?;
    let mut counts = vec![0_i64; weights.len()];
    for i in 0..n_samples {
        let place = i.max(1) as f64;
        let behind = |d: usize| weights[d] * place - counts[d] as f64;
        let mut next = 0;
        for d in 1..weights.len() {
            if behind(d) > behind(next) {
                next = d;
            }
        }
        dataset_index.push(next as u8);
        sample_index.push(counts[next]);
        counts[next] += 1;
    }
    Ok(Blended {
        dataset_index,
        sample_index,
    })
}
