//! Reading an order: samples as spans, batches as tokens.

use std::path::Path;

use super::{
    Appearance, Appearances, BatchDocuments, ChangeKind, ChangedSamples, DocumentRun,
    IndexedSamples, SampleLayout, Steps, appearances,
};
use crate::{
    Error, Result,
    progress::Progress,
    tokens::{Span, TokenSource},
};

/// A span of one sample of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SampleSpan {
    /// Row of the batch.
    pub row: u64,
    /// The span. The spans of a row follow each other in its order.
    pub span: Span,
}

/// Samples in training order, as spans over a token source.
pub trait Samples: Send + Sync {
    /// Number of samples.
    fn n_samples(&self) -> u64;

    /// Tokens of a sample.
    fn sample_length(&self) -> u64;

    /// Whether the spans of a sample may hold fewer tokens than the sample; padding fills it then.
    fn is_padded(&self) -> bool {
        false
    }

    /// Positions of the samples that GPT-NeoX's reader cannot read and replaces by another sample.
    fn replaced(&self) -> Vec<u64> {
        Vec::new()
    }

    /// The changes of an order with interventions.
    fn changes(&self) -> Option<&ChangedSamples> {
        None
    }

    /// The spans of the sample at a position of the training order; empty documents have none.
    ///
    /// # Errors
    /// No such sample, or an index that does not fit its source.
    fn spans(&self, position: u64, source: &dyn TokenSource) -> Result<Vec<Span>>;

    /// Every part of `queries` that a sample holds. `progress` advances by the array entries that are read.
    ///
    /// # Errors
    /// An index that does not fit its source, or a stop.
    fn appearances(
        &self,
        queries: &[Span],
        source: &dyn TokenSource,
        progress: &Progress,
    ) -> Result<Appearances> {
        appearances::by_samples(self, queries, source, progress)
    }

    /// An upper bound on the copies of each document that the samples are made of: an order of several epochs
    /// has a document several times.
    ///
    /// # Errors
    /// As [`Self::spans`].
    fn n_copies(&self, source: &dyn TokenSource) -> Result<Vec<u32>> {
        appearances::spans_by_document(self, source)
    }
}

/// Samples of a source that is in training order already: sample `i` is the whole of document `i`.
#[derive(Debug, Clone, Copy)]
pub struct RowSamples {
    /// Rows.
    pub n_rows: u64,
    /// Tokens of a row.
    pub row_length: u64,
}

impl Samples for RowSamples {
    fn n_samples(&self) -> u64 {
        self.n_rows
    }

    fn sample_length(&self) -> u64 {
        self.row_length
    }

    fn spans(&self, position: u64, _: &dyn TokenSource) -> Result<Vec<Span>> {
        if position >= self.n_rows {
            return Err(no_sample(position, self.n_rows));
        }
        Ok(vec![Span {
            document: position,
            start: 0,
            length: self.row_length,
        }])
    }
}

/// The error of a position that the order does not have.
pub(super) fn no_sample(position: u64, n_samples: u64) -> Error {
    Error::argument(format!("no sample {position}: the order has {n_samples}"))
}

/// The samples that a model sees, in order, over a token source.
pub struct TrainingOrder<S> {
    source: S,
    pub(super) samples: Box<dyn Samples>,
    pub(super) padding: i64,
}

impl<S: TokenSource> TrainingOrder<S> {
    /// Opens `STEM_{doc,sample,shuffle}_idx.npy` of a `packed` order over a source, in constant time.
    ///
    /// # Errors
    /// A file is missing or malformed, or the three do not belong together.
    pub fn open(stem: &Path, seq_length: u64, source: S) -> Result<Self> {
        let samples = IndexedSamples::open(stem, SampleLayout::packed(seq_length))?;
        Ok(Self::new(Box::new(samples), source, 0))
    }

    /// An order of any samples over a source. `padding` is the token that fills short samples.
    pub fn new(samples: Box<dyn Samples>, source: S, padding: i64) -> Self {
        Self {
            source,
            samples,
            padding,
        }
    }

    /// The source of the tokens.
    pub fn source(&self) -> &S {
        &self.source
    }

    /// Number of samples.
    pub fn n_samples(&self) -> u64 {
        self.samples.n_samples()
    }

    /// Tokens of a sample. Usually one more than the sequence length, for the last label.
    pub fn sample_length(&self) -> u64 {
        self.samples.sample_length()
    }

    /// Positions of the samples that GPT-NeoX's reader cannot read and replaces by another sample.
    #[must_use]
    pub fn replaced(&self) -> Vec<u64> {
        self.samples.replaced()
    }

    /// The changes of an order with interventions; `None` for other orders.
    #[must_use]
    pub fn changes(&self) -> Option<&ChangedSamples> {
        self.samples.changes()
    }

    /// The steps of the order, with `batch_size` samples each.
    ///
    /// # Errors
    /// A batch size of zero.
    pub fn steps(&self, batch_size: u64) -> Result<Steps> {
        Steps::new(self.n_samples(), batch_size)
    }

    /// The document of each token of `n` samples from position `first`. The first `n_inputs` tokens of each
    /// sample are the model's inputs.
    ///
    /// # Errors
    /// As [`Self::spans`].
    pub fn batch_documents(&self, first: u64, n: u64, n_inputs: u64) -> Result<BatchDocuments> {
        let spans = self.batch_spans(first, n)?;
        let runs = spans
            .into_iter()
            .map(|SampleSpan { row, span }| DocumentRun {
                row,
                document: span.document as i64,
                length: span.length,
            });
        BatchDocuments::new(
            runs,
            n as usize,
            self.sample_length() as usize,
            n_inputs as usize,
        )
    }

    /// Checks that the order has `n` samples from position `first`.
    ///
    /// # Errors
    /// It has fewer.
    pub fn check_range(&self, first: u64, n: u64) -> Result<()> {
        let n_samples = self.n_samples();
        if first.checked_add(n).is_some_and(|end| end <= n_samples) {
            return Ok(());
        }
        Err(Error::argument(format!(
            "no {n} samples from {first}: the order has {n_samples}"
        )))
    }

    /// The spans of the sample at a position of the order; empty documents have none.
    ///
    /// # Errors
    /// No such sample, or an index that does not fit its dataset.
    pub fn spans(&self, position: u64) -> Result<Vec<Span>> {
        self.samples.spans(position, &self.source)
    }

    /// Every part of `queries` that a sample holds, sorted by query, copy and token. A token that two
    /// neighbouring samples share appears in both.
    ///
    /// # Errors
    /// An index that does not fit its source, or a stop.
    pub fn appearances(&self, queries: &[Span], progress: &Progress) -> Result<Appearances> {
        let mut found = self.samples.appearances(queries, &self.source, progress)?;
        found.appearances.sort_by_key(Appearance::key);
        Ok(found)
    }

    /// An upper bound on the copies of each document of the source that the samples are made of.
    ///
    /// # Errors
    /// As [`Self::spans`].
    pub fn n_copies(&self) -> Result<Vec<u32>> {
        self.samples.n_copies(&self.source)
    }

    /// The spans of `n` samples from position `first`, by row.
    ///
    /// # Errors
    /// As [`Self::spans`].
    pub fn batch_spans(&self, first: u64, n: u64) -> Result<Vec<SampleSpan>> {
        self.check_range(first, n)?;
        let mut all = Vec::new();
        for row in 0..n {
            let spans = self.spans(first + row)?;
            all.extend(spans.into_iter().map(|span| SampleSpan { row, span }));
        }
        Ok(all)
    }

    /// Writes the tokens of `n` samples from position `first` to `out`, row after row, in the stored type.
    ///
    /// # Errors
    /// As [`Self::spans`], a source that cannot be read, or a buffer `out` that is too short.
    pub fn read_batch(&self, first: u64, n: u64, out: &mut [u8]) -> Result<()> {
        self.check_range(first, n)?;
        self.read_samples(&(first..first + n).collect::<Vec<_>>(), out)
    }

    /// Writes the tokens of the samples at the given positions to `out`: see [`Self::read_batch`].
    ///
    /// # Errors
    /// As [`Self::read_batch`].
    pub fn read_samples(&self, positions: &[u64], out: &mut [u8]) -> Result<()> {
        // Not 0: no kind of order has samples without tokens.
        let row_bytes = self.sample_length() as usize * self.source.token_type().n_bytes();
        let n_bytes = out.len();
        let mut rows = out.chunks_exact_mut(row_bytes);
        for position in positions {
            let row = rows.next().ok_or_else(|| {
                Error::argument(format!(
                    "{} samples need more than {n_bytes} bytes",
                    positions.len()
                ))
            })?;
            let used = self.read_spans(*position, &self.spans(*position)?, row)?;
            self.pad(&mut row[used..]);
        }
        Ok(())
    }

    /// Writes the tokens of `spans`, which are those of the sample at `position`, to the beginning of `out`, in
    /// the stored type. Returns the number of bytes written.
    ///
    /// # Errors
    /// As [`TokenSource::read`].
    pub fn read_spans(&self, position: u64, spans: &[Span], out: &mut [u8]) -> Result<usize> {
        let used = self.source.read(spans, out)?;
        let changes = self
            .changes()
            .map_or(&[][..], |changes| changes.of_sample(position));
        let width = self.source.token_type().n_bytes();
        for change in changes
            .iter()
            .filter(|change| change.kind == ChangeKind::Replaced)
        {
            let slots = out[change.offset as usize * width..].chunks_exact_mut(width);
            for (slot, token) in slots.zip(&change.tokens) {
                slot.copy_from_slice(&token.to_le_bytes()[..width]);
            }
        }
        Ok(used)
    }

    /// The tokens of the sample at a position, padding included.
    ///
    /// # Errors
    /// As [`Self::read_samples`].
    pub fn tokens(&self, position: u64) -> Result<Vec<i64>> {
        let token_type = self.source.token_type();
        let mut bytes = vec![0; self.sample_length() as usize * token_type.n_bytes()];
        self.read_samples(&[position], &mut bytes)?;
        let tokens = bytes.chunks_exact(token_type.n_bytes());
        Ok(tokens.map(|token| token_type.decode(token)).collect())
    }

    /// Fills whole tokens of `rest` with the padding token.
    fn pad(&self, rest: &mut [u8]) {
        let token = self.padding.to_le_bytes();
        for slot in rest.chunks_exact_mut(self.source.token_type().n_bytes()) {
            let n = slot.len();
            slot.copy_from_slice(&token[..n]);
        }
    }
}
