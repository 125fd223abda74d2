//! Occurrences of token sequences in the samples of an order.

use rustc_hash::FxHashMap;

use crate::{Error, Result, order::TrainingOrder, progress::Progress, tokens::TokenSource};

/// One occurrence of a sequence, whole within a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SequenceOccurrence {
    /// Number of the sequence in the query.
    pub sequence: u64,
    /// Position of the sample in the training order.
    pub sample: u64,
    /// The sequence's first token within the sample.
    pub offset: u64,
}

/// Tokens of the hash key by which a row is matched against all sequences at once.
const KEY_TOKENS: usize = 4;

/// The first tokens of a sequence.
type SequenceKey = [i64; KEY_TOKENS];

/// Samples read at a time.
const CHUNK_SAMPLES: u64 = 256;

/// Returns every occurrence of each sequence in the first `n_samples` samples, in training order, in one pass.
///
/// An occurrence may run from one document into the next. One that the end of a sample cuts is not reported.
///
/// # Errors
/// A sequence of fewer than four tokens, an order that cannot be read, or a stop.
pub fn find_sequences<S: TokenSource>(
    order: &TrainingOrder<S>,
    sequences: &[Vec<i64>],
    n_samples: u64,
    progress: &Progress,
) -> Result<Vec<SequenceOccurrence>> {
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

fn by_first_tokens(sequences: &[Vec<i64>]) -> Result<FxHashMap<SequenceKey, Vec<usize>>> {
    let mut by_key: FxHashMap<SequenceKey, Vec<usize>> = FxHashMap::default();
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
    by_key: &FxHashMap<SequenceKey, Vec<usize>>,
    found: &mut Vec<SequenceOccurrence>,
) {
    for (offset, window) in row.windows(KEY_TOKENS).enumerate() {
        let key = [window[0], window[1], window[2], window[3]];
        for sequence in by_key.get(&key).into_iter().flatten() {
            if row[offset..].starts_with(&sequences[*sequence]) {
                found.push(SequenceOccurrence {
                    sequence: *sequence as u64,
                    sample,
                    offset: offset as u64,
                });
            }
        }
    }
}
