//! Where given token sequences stand in the samples of an order.

use rustc_hash::FxHashMap;

use crate::{Error, Result, order::TrainingOrder, progress::Progress, tokens::TokenSource};

/// One occurrence of a sequence, whole within a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Number of the sequence among those asked for.
    pub sequence: u64,
    /// Place of the sample in the training order.
    pub sample: u64,
    /// The sequence's first token within the sample.
    pub offset: u64,
}

/// Tokens that are hashed to find candidates.
const KEY_TOKENS: usize = 4;

type Key = [i64; KEY_TOKENS];

/// Samples read at a time.
const CHUNK_SAMPLES: u64 = 256;

/// Every place of each sequence in the first `n_samples` samples, in training order; one pass for
/// all sequences. A sequence that runs on into the next document counts, one cut by a sample's end
/// does not.
///
/// # Errors
/// A sequence of fewer than four tokens, the order cannot be read, or a stop.
pub fn find_sequences<S: TokenSource>(
    order: &TrainingOrder<S>,
    sequences: &[Vec<i64>],
    n_samples: u64,
    progress: &Progress,
) -> Result<Vec<Place>> {
    let by_key = by_first_tokens(sequences)?;
    let row_tokens = order.sample_length() as usize;
    let token_type = order.source().token_type();
    let mut bytes = vec![0; CHUNK_SAMPLES as usize * row_tokens * token_type.n_bytes()];
    let mut found = Vec::new();
    let mut first = 0;
    while first < n_samples {
        let n = CHUNK_SAMPLES.min(n_samples - first);
        let used = n as usize * row_tokens * token_type.n_bytes();
        order.read_batch(first, n, &mut bytes[..used])?;
        let tokens: Vec<i64> = bytes[..used]
            .chunks_exact(token_type.n_bytes())
            .map(|b| token_type.decode(b))
            .collect();
        for (row, sample) in tokens.chunks_exact(row_tokens).zip(first..) {
            find_in_row(row, sample, sequences, &by_key, &mut found);
        }
        progress.advance(n)?;
        first += n;
    }
    Ok(found)
}

fn by_first_tokens(sequences: &[Vec<i64>]) -> Result<FxHashMap<Key, Vec<usize>>> {
    let mut by_key: FxHashMap<Key, Vec<usize>> = FxHashMap::default();
    for (number, sequence) in sequences.iter().enumerate() {
        let Some(key) = sequence.first_chunk::<KEY_TOKENS>() else {
            let what = format!(
                "sequence {number} has {} tokens, expected at least {KEY_TOKENS}",
                sequence.len()
            );
            return Err(Error::argument(what));
        };
        by_key.entry(*key).or_default().push(number);
    }
    Ok(by_key)
}

fn find_in_row(
    row: &[i64],
    sample: u64,
    sequences: &[Vec<i64>],
    by_key: &FxHashMap<Key, Vec<usize>>,
    found: &mut Vec<Place>,
) {
    for (offset, window) in row.windows(KEY_TOKENS).enumerate() {
        let key = [window[0], window[1], window[2], window[3]];
        for sequence in by_key.get(&key).into_iter().flatten() {
            if row[offset..].starts_with(&sequences[*sequence]) {
                found.push(Place {
                    sequence: *sequence as u64,
                    sample,
                    offset: offset as u64,
                });
            }
        }
    }
}
