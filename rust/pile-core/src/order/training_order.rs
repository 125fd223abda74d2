//! An order read back: samples as spans, batches as tokens.

use std::path::Path;

use super::{BatchDocuments, IndexedSamples, Layout, Run, Steps, Views, views};
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
    /// What stands there, in the order of the row.
    pub span: Span,
}

/// Samples in the order in which they are seen, as spans over some token source.
pub trait Samples: Send + Sync {
    /// How many there are.
    fn n_samples(&self) -> u64;

    /// Tokens of a sample.
    fn sample_length(&self) -> u64;

    /// Whether the spans of a sample may hold fewer tokens than it has; the rest is padding.
    fn is_padded(&self) -> bool {
        false
    }

    /// Samples that GPT-NeoX's reader cannot read, in whose place it gives another one.
    fn replaced(&self) -> Vec<u64> {
        Vec::new()
    }

    /// The spans of the sample at place `i` over `source`, empty documents left out.
    ///
    /// # Errors
    /// No such sample, or an index that does not fit its source.
    fn spans(&self, i: u64, source: &dyn TokenSource) -> Result<Vec<Span>>;

    /// Every part of `queries` that a sample holds; `progress` advances by what is gone through for it.
    ///
    /// # Errors
    /// An index that does not fit its source, or a stop.
    fn views(
        &self,
        queries: &[Span],
        source: &dyn TokenSource,
        progress: &Progress,
    ) -> Result<Views> {
        views::by_samples(self, queries, source, progress)
    }

    /// How many copies of each document of the source the samples are made of, at most.
    ///
    /// # Errors
    /// As [`Self::spans`].
    fn n_copies(&self, source: &dyn TokenSource) -> Result<Vec<u32>> {
        views::spans_of_documents(self, source)
    }
}

/// Rows of a source that is in training order already: sample `i` is document `i`, whole.
#[derive(Debug, Clone, Copy)]
pub struct RowSamples {
    /// Rows.
    pub n_rows: u64,
    /// Tokens of each.
    pub row_length: u64,
}

impl Samples for RowSamples {
    fn n_samples(&self) -> u64 {
        self.n_rows
    }

    fn sample_length(&self) -> u64 {
        self.row_length
    }

    fn spans(&self, i: u64, _: &dyn TokenSource) -> Result<Vec<Span>> {
        if i >= self.n_rows {
            let what = format!("no sample {i}: the order has {}", self.n_rows);
            return Err(Error::argument(what));
        }
        Ok(vec![Span {
            document: i,
            start: 0,
            length: self.row_length,
        }])
    }
}

/// The samples a model sees, in order, as lists of spans over a token source.
pub struct TrainingOrder<S> {
    source: S,
    samples: Box<dyn Samples>,
    padding: i64,
}

impl<S: TokenSource> TrainingOrder<S> {
    /// Opens `STEM_{doc,sample,shuffle}_idx.npy` of a `packed` order over a source, in constant time.
    ///
    /// # Errors
    /// A file is missing, malformed, or the three do not belong together.
    pub fn open(stem: &Path, seq_length: u64, source: S) -> Result<Self> {
        let samples = IndexedSamples::open(stem, Layout::packed(seq_length))?;
        Ok(Self::new(Box::new(samples), source, 0))
    }

    /// Any samples over a source; `padding` is the token that fills those which are too short.
    pub fn new(samples: Box<dyn Samples>, source: S, padding: i64) -> Self {
        Self {
            source,
            samples,
            padding,
        }
    }

    /// The tokens' source.
    pub fn source(&self) -> &S {
        &self.source
    }

    /// Samples in the order.
    pub fn n_samples(&self) -> u64 {
        self.samples.n_samples()
    }

    /// Tokens of a sample: one more than the sequence length.
    pub fn sample_length(&self) -> u64 {
        self.samples.sample_length()
    }

    /// Samples that GPT-NeoX's reader cannot read, in whose place it gives another one.
    #[must_use]
    pub fn replaced(&self) -> Vec<u64> {
        self.samples.replaced()
    }

    /// The order cut into steps of `batch_size` samples.
    ///
    /// # Errors
    /// A batch of none.
    pub fn steps(&self, batch_size: u64) -> Result<Steps> {
        Steps::new(self.n_samples(), batch_size)
    }

    /// Which document each token of `n` samples from place `first` is of; the first `n_inputs` tokens of each
    /// are the model's inputs.
    ///
    /// # Errors
    /// As [`Self::spans`].
    pub fn batch_documents(&self, first: u64, n: u64, n_inputs: u64) -> Result<BatchDocuments> {
        let spans = self.batch_spans(first, n)?;
        let runs = spans.into_iter().map(|SampleSpan { row, span }| Run {
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

    /// Whether the order has `n` samples from place `first`.
    ///
    /// # Errors
    /// It has not.
    pub fn check_range(&self, first: u64, n: u64) -> Result<()> {
        let n_samples = self.n_samples();
        if first.checked_add(n).is_some_and(|end| end <= n_samples) {
            return Ok(());
        }
        Err(Error::argument(format!(
            "no {n} samples from {first}: the order has {n_samples}"
        )))
    }

    /// The spans of the sample at place `i` of the order, empty documents left out.
    ///
    /// # Errors
    /// No such sample, or an index that does not fit its dataset.
    pub fn spans(&self, i: u64) -> Result<Vec<Span>> {
        self.samples.spans(i, &self.source)
    }

    /// Every part of `queries` that a sample holds, by query, copy and token: the way back from a document. A
    /// token on the border of two samples may be in both.
    ///
    /// # Errors
    /// An index that does not fit its source, or a stop.
    pub fn views(&self, queries: &[Span], progress: &Progress) -> Result<Views> {
        let mut found = self.samples.views(queries, &self.source, progress)?;
        found
            .views
            .sort_by_key(|view| (view.query, view.copy, view.start, view.length, view.sample));
        Ok(found)
    }

    /// How many copies of each document of the source the samples are made of, at most.
    ///
    /// # Errors
    /// As [`Self::spans`].
    pub fn n_copies(&self) -> Result<Vec<u32>> {
        self.samples.n_copies(&self.source)
    }

    /// The spans of `n` samples from place `first`, by row.
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

    /// Writes the tokens of `n` samples from place `first` to `out`, row after row, in the stored type.
    ///
    /// # Errors
    /// As [`Self::spans`], or the source cannot be read, or `out` is too short.
    pub fn read_batch(&self, first: u64, n: u64, out: &mut [u8]) -> Result<()> {
        self.check_range(first, n)?;
        self.read_places(&(first..first + n).collect::<Vec<_>>(), out)
    }

    /// As [`Self::read_batch`] for samples at any places.
    ///
    /// # Errors
    /// As [`Self::read_batch`].
    pub fn read_places(&self, places: &[u64], out: &mut [u8]) -> Result<()> {
        let row_bytes = self.sample_length() as usize * self.source.token_type().n_bytes();
        let room = out.len();
        let mut rows = out.chunks_exact_mut(row_bytes);
        for place in places {
            let row = rows.next().ok_or_else(|| {
                Error::argument(format!(
                    "{} samples need more than {room} bytes",
                    places.len()
                ))
            })?;
            let used = self.source.read(&self.spans(*place)?, row)?;
            self.pad(&mut row[used..]);
        }
        Ok(())
    }

    fn pad(&self, rest: &mut [u8]) {
        let token = self.padding.to_le_bytes();
        for place in rest.chunks_exact_mut(self.source.token_type().n_bytes()) {
            let n = place.len();
            place.copy_from_slice(&token[..n]);
        }
    }
}
