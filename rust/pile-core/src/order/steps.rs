//! The samples of each training step, and of each data-parallel rank within it.

use std::ops::Range;

use crate::{Error, Result};

/// An order cut into steps. Step `s`, from 0, is samples `s * batch_size` to `(s + 1) * batch_size - 1`, for
/// any numbers of ranks and micro-batches. Samples after the last whole step are not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Steps {
    n_steps: u64,
    batch_size: u64,
}

/// One micro-batch of one data-parallel rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MicroBatch {
    /// Number of the rank.
    pub rank: u64,
    /// Data-parallel ranks.
    pub n_ranks: u64,
    /// Number of the micro-batch within the step.
    pub micro_batch: u64,
    /// Micro-batches of a step (gradient accumulation steps).
    pub n_micro_batches: u64,
}

impl Steps {
    /// The steps of `n_samples` samples.
    ///
    /// # Errors
    /// A batch size of zero.
    pub fn new(n_samples: u64, batch_size: u64) -> Result<Self> {
        let n_steps = n_samples
            .checked_div(batch_size)
            .ok_or_else(|| Error::argument("a batch must have at least 1 sample, got 0"))?;
        Ok(Self {
            n_steps,
            batch_size,
        })
    }

    /// Number of whole steps.
    #[must_use]
    pub fn n_steps(&self) -> u64 {
        self.n_steps
    }

    /// The positions of a step's samples in the order.
    ///
    /// # Errors
    /// No such step.
    pub fn samples(&self, step: u64) -> Result<Range<u64>> {
        if step >= self.n_steps {
            return Err(Error::argument(format!(
                "no step {step}: the order has {} steps of {} samples, numbered from 0",
                self.n_steps, self.batch_size
            )));
        }
        Ok(step * self.batch_size..(step + 1) * self.batch_size)
    }

    /// The positions of the samples that one rank reads in one micro-batch of a step, as GPT-NeoX distributes
    /// them: the first micro-batch of every rank, then the second of every rank, and so on.
    ///
    /// # Errors
    /// No such step, rank or micro-batch, or a batch that does not divide into equal micro-batches.
    pub fn micro_batch(&self, step: u64, of: MicroBatch) -> Result<Range<u64>> {
        let MicroBatch {
            rank,
            n_ranks,
            micro_batch,
            n_micro_batches,
        } = of;
        let size = self.batch_size;
        if rank >= n_ranks || micro_batch >= n_micro_batches {
            return Err(Error::argument(format!(
                "no rank {rank} of {n_ranks}, micro-batch {micro_batch} of {n_micro_batches}: both are numbered from 0"
            )));
        }
        let n_parts = n_ranks.saturating_mul(n_micro_batches);
        if !size.is_multiple_of(n_parts) {
            return Err(Error::argument(format!(
                "a batch of {size} cannot be divided among {n_ranks} ranks in {n_micro_batches} micro-batches"
            )));
        }
        let n = size / n_parts;
        let first = self.samples(step)?.start + (micro_batch * n_ranks + rank) * n;
        Ok(first..first + n)
    }
}

/// Consecutive tokens of one document in a row of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DocumentRun {
    /// The row.
    pub row: u64,
    /// The document, -1 if unknown.
    pub document: i64,
    /// Number of tokens.
    pub length: u64,
}

/// The document of each token of a batch, in the forms that attention within documents takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchDocuments {
    /// The document of each token, row after row; -1 for unknown documents and padding.
    pub documents: Vec<i64>,
    /// The index of each token in its run.
    pub position_ids: Vec<i32>,
    /// Cumulative sequence lengths: the start of each run in the concatenated inputs of all rows, then the number
    /// of inputs.
    pub cu_seqlens: Vec<i32>,
}

impl BatchDocuments {
    /// Builds the batch from the runs of its rows, in ascending order. The first `n_inputs` tokens of each
    /// row are the model's inputs.
    ///
    /// # Errors
    /// Runs that exceed their row or the number of rows, or a batch with more tokens than an int32 counts.
    pub fn new(
        runs: impl IntoIterator<Item = DocumentRun>,
        n_rows: usize,
        row_length: usize,
        n_inputs: usize,
    ) -> Result<Self> {
        let n_all = n_rows.checked_mul(row_length.max(n_inputs));
        if n_all.is_none_or(|n| n > i32::MAX as usize) || n_inputs > row_length {
            let what = format!("{n_rows} rows of {row_length} tokens with {n_inputs} inputs");
            return Err(Error::argument(what));
        }
        let mut batch = Self {
            documents: Vec::with_capacity(n_rows * row_length),
            position_ids: Vec::with_capacity(n_rows * row_length),
            cu_seqlens: Vec::new(),
        };
        // The number of a row's token among the inputs of all rows; `None` if it is only a label.
        let input_at = |row: usize, remaining: usize| {
            let offset = row_length - remaining;
            (offset < n_inputs).then_some(row * n_inputs + offset)
        };
        let mut runs = runs.into_iter().peekable();
        for row in 0..n_rows {
            let mut remaining = row_length;
            while let Some(run) = runs.next_if(|run| run.row == row as u64) {
                let length = usize::try_from(run.length).ok().filter(|n| *n <= remaining);
                let length = length.ok_or_else(|| out_of_order(&run))?;
                batch.extend(run.document, length, input_at(row, remaining));
                remaining -= length;
            }
            batch.extend(-1, remaining, input_at(row, remaining));
        }
        if let Some(run) = runs.next() {
            return Err(out_of_order(&run));
        }
        batch.cu_seqlens.push((n_rows * n_inputs) as i32);
        Ok(batch)
    }

    /// Appends a run. `first_input` is the number of its first token among the inputs.
    fn extend(&mut self, document: i64, length: usize, first_input: Option<usize>) {
        if length == 0 {
            return;
        }
        self.cu_seqlens.extend(first_input.map(|n| n as i32));
        self.documents
            .resize(self.documents.len() + length, document);
        self.position_ids.extend(0..length as i32);
    }
}

fn out_of_order(run: &DocumentRun) -> Error {
    Error::argument(format!(
        "a run of {} tokens does not fit row {}",
        run.length, run.row
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_micro_batches_of_a_step_are_its_samples() {
        let steps = Steps::new(100, 24).unwrap();
        assert_eq!(steps.n_steps(), 4);
        for (n_ranks, n_micro_batches) in [(1, 1), (4, 3), (24, 1), (2, 12)] {
            let mut all = Vec::new();
            for micro_batch in 0..n_micro_batches {
                for rank in 0..n_ranks {
                    let of = MicroBatch {
                        rank,
                        n_ranks,
                        micro_batch,
                        n_micro_batches,
                    };
                    all.extend(steps.micro_batch(3, of).unwrap());
                }
            }
            assert_eq!(all, steps.samples(3).unwrap().collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_batch_that_cannot_be_divided_is_an_error() {
        let steps = Steps::new(u64::MAX, 24).unwrap();
        let of = |rank, n_ranks, micro_batch, n_micro_batches| MicroBatch {
            rank,
            n_ranks,
            micro_batch,
            n_micro_batches,
        };
        for (step, of, message) in [
            (0, of(0, 5, 0, 1), "a batch of 24 cannot"),
            (0, of(0, u64::MAX, 0, u64::MAX), "a batch of 24 cannot"),
            (0, of(2, 2, 0, 1), "no rank 2 of 2"),
            (0, of(0, 0, 0, 0), "no rank 0 of 0"),
            (0, of(0, 1, 3, 3), "micro-batch 3 of 3"),
            (u64::MAX, of(0, 1, 0, 1), "no step 18446744073709551615"),
        ] {
            let err = steps.micro_batch(step, of).unwrap_err().to_string();
            assert!(err.contains(message), "{err}");
        }
        let err = Steps::new(5, 0).unwrap_err().to_string();
        assert!(err.contains("at least 1 sample"), "{err}");
        assert_eq!(Steps::new(5, 6).unwrap().n_steps(), 0);
    }

    #[test]
    fn runs_and_padding_get_their_documents() {
        let run = |row, document, length| DocumentRun {
            row,
            document,
            length,
        };
        let runs = [run(0, 7, 3), run(0, 9, 2), run(2, 4, 1), run(2, 5, 4)];
        let batch = BatchDocuments::new(runs, 3, 5, 4).unwrap();
        assert_eq!(batch.documents[..5], [7, 7, 7, 9, 9]);
        assert_eq!(batch.documents[5..], [-1, -1, -1, -1, -1, 4, 5, 5, 5, 5]);
        assert_eq!(batch.position_ids[..5], [0, 1, 2, 0, 1]);
        assert_eq!(batch.position_ids[5..], [0, 1, 2, 3, 4, 0, 0, 1, 2, 3]);
        assert_eq!(batch.cu_seqlens, [0, 3, 4, 8, 9, 12]);
        // A run that starts with the last token has no input.
        let batch = BatchDocuments::new([run(0, 1, 4), run(0, 2, 1)], 1, 5, 4).unwrap();
        assert_eq!(batch.cu_seqlens, [0, 4]);
        for wrong in [run(0, 1, 6), run(1, 1, 1), run(0, 1, u64::MAX)] {
            BatchDocuments::new([wrong], 1, 5, 4).unwrap_err();
        }
        BatchDocuments::new([run(0, 1, 5), run(0, 1, 1)], 1, 5, 4).unwrap_err();
        BatchDocuments::new([], usize::MAX, 2, 1).unwrap_err();
        BatchDocuments::new([], 1, 5, 6).unwrap_err();
    }
}
