//! How much of each subset the model reads, over the run.

use super::places::in_parallel;
use crate::{Result, order::TrainingOrder, progress::Progress, tokens::TokenSource};

/// Samples of one work item.
const ITEM_SAMPLES: u64 = 4096;

/// Tokens of each kind of document that the model reads in each interval: for `n_kinds` kinds, those of the
/// first interval, then those of the next, and so on; the last interval may be shorter.
///
/// Of each sample the first `n_inputs` tokens are read: where it has one more, that is only predicted, and
/// is the first of another sample.
///
/// # Errors
/// The order cannot be read, `kind_of` fails, no interval, or a stop.
pub fn mixture<S: TokenSource>(
    order: &TrainingOrder<S>,
    (n_samples, n_inputs): (u64, u64),
    interval_samples: u64,
    n_kinds: usize,
    kind_of: impl Fn(u64) -> Result<usize> + Sync,
    (n_threads, progress): (usize, &Progress),
) -> Result<Vec<u64>> {
    order.check_range(0, n_samples)?;
    let interval_samples = interval_samples.max(1);
    let n_intervals = n_samples.div_ceil(interval_samples) as usize;
    let items_each = interval_samples.div_ceil(ITEM_SAMPLES) as usize;
    let parts = in_parallel(n_intervals * items_each, n_threads, |item, _: &mut ()| {
        let interval = item / items_each;
        let first = interval as u64 * interval_samples + (item % items_each) as u64 * ITEM_SAMPLES;
        let end = ((interval as u64 + 1) * interval_samples).min(n_samples);
        let end = end.min(first + ITEM_SAMPLES);
        let mut n_tokens = vec![0; n_kinds];
        for sample in first..end {
            let mut room = n_inputs;
            for span in order.spans(sample)? {
                let n = span.length.min(room);
                n_tokens[kind_of(span.document)?] += n;
                room -= n;
            }
        }
        progress.advance(end.saturating_sub(first))?;
        Ok((interval, n_tokens))
    })?;
    let mut all = vec![0; n_intervals * n_kinds];
    for (interval, n_tokens) in parts {
        let row = &mut all[interval * n_kinds..(interval + 1) * n_kinds];
        for (sum, n) in row.iter_mut().zip(n_tokens) {
            *sum += n;
        }
    }
    Ok(all)
}
