//! How much of each subset the model reads, over the run.

use super::parallel::in_parallel;
use crate::{Result, order::TrainingOrder, progress::Progress, tokens::TokenSource};

/// Samples of one work item.
const ITEM_SAMPLES: u64 = 4096;

/// The part of a run that [`mixture`] summarizes.
#[derive(Debug, Clone, Copy)]
pub struct MixtureConfig {
    /// Samples of the run, from the first.
    pub n_samples: u64,
    /// Tokens of each sample that the model reads. If a sample has one more, it is only a label, and the next
    /// sample of the sequence begins with it. In a sample of a padded order that is shorter, that token is an input
    /// as well, and so counts in both samples.
    pub n_inputs: u64,
    /// Samples of an interval; not far more than `n_samples`, as a work item is made for every 4,096 of them.
    pub interval_samples: u64,
    /// Kinds of documents.
    pub n_kinds: usize,
    /// Threads.
    pub n_threads: usize,
}

/// Returns the tokens of each kind of document that the model reads in each interval: the `n_kinds` counts of
/// the first interval, then those of the second, and so on. The last interval may be shorter.
///
/// # Errors
/// An order that cannot be read, an error of `kind_of`, or a stop.
pub fn mixture<S: TokenSource>(
    order: &TrainingOrder<S>,
    config: MixtureConfig,
    kind_of: impl Fn(u64) -> Result<usize> + Sync,
    progress: &Progress,
) -> Result<Vec<u64>> {
    let MixtureConfig {
        n_samples,
        n_inputs,
        n_kinds,
        ..
    } = config;
    order.check_range(0, n_samples)?;
    let interval_samples = config.interval_samples.max(1);
    let n_intervals = n_samples.div_ceil(interval_samples) as usize;
    let items_per_interval = interval_samples.div_ceil(ITEM_SAMPLES) as usize;
    let n_items = n_intervals * items_per_interval;
    let counts = in_parallel(n_items, config.n_threads, |item, _: &mut ()| {
        let interval = item / items_per_interval;
        let first =
            interval as u64 * interval_samples + (item % items_per_interval) as u64 * ITEM_SAMPLES;
        let end = ((interval as u64 + 1) * interval_samples).min(n_samples);
        let end = end.min(first + ITEM_SAMPLES);
        let mut n_tokens = vec![0; n_kinds];
        for sample in first..end {
            let mut inputs_left = n_inputs;
            for span in order.spans(sample)? {
                let n = span.length.min(inputs_left);
                n_tokens[kind_of(span.document)?] += n;
                inputs_left -= n;
            }
        }
        progress.advance(end.saturating_sub(first))?;
        Ok((interval, n_tokens))
    })?;
    let mut all = vec![0; n_intervals * n_kinds];
    for (interval, n_tokens) in counts {
        let row = &mut all[interval * n_kinds..(interval + 1) * n_kinds];
        for (sum, n) in row.iter_mut().zip(n_tokens) {
            *sum += n;
        }
    }
    Ok(all)
}
