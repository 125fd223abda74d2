//! An order read back: samples as spans, batches as tokens.

use std::path::Path;

use super::{build::array_path, npy, npy::Array};
use crate::{
    Error, Result,
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

/// The samples a model sees, in order, as lists of spans over a token source.
pub struct TrainingOrder<S> {
    source: S,
    seq_length: u64,
    doc_idx: Array<i32>,
    sample_idx: Starts,
    shuffle_idx: Shuffle,
}

enum Starts {
    I32(Array<i32>),
    I64(Array<i64>),
}

impl Starts {
    fn open(path: &Path) -> Result<Self> {
        Ok(if npy::descr(path)? == "<i4" {
            Self::I32(Array::open(path, 2)?)
        } else {
            Self::I64(Array::open(path, 2)?)
        })
    }

    fn n(&self) -> u64 {
        match self {
            Self::I32(array) => array.n_rows(),
            Self::I64(array) => array.n_rows(),
        }
    }

    /// Place in `doc_idx` and token of sample `i`'s start.
    fn get(&self, i: u64) -> Option<(u64, u64)> {
        let (place, offset) = match self {
            Self::I32(array) => array
                .row(i)
                .map(|row| (i64::from(row[0]), i64::from(row[1])))?,
            Self::I64(array) => array.row(i).map(|row| (row[0], row[1]))?,
        };
        Some((u64::try_from(place).ok()?, u64::try_from(offset).ok()?))
    }
}

enum Shuffle {
    U32(Array<u32>),
    I64(Array<i64>),
}

impl Shuffle {
    fn open(path: &Path) -> Result<Self> {
        Ok(if npy::descr(path)? == "<u4" {
            Self::U32(Array::open(path, 1)?)
        } else {
            Self::I64(Array::open(path, 1)?)
        })
    }

    fn n(&self) -> u64 {
        match self {
            Self::U32(array) => array.n_rows(),
            Self::I64(array) => array.n_rows(),
        }
    }

    fn get(&self, i: u64) -> Option<u64> {
        match self {
            Self::U32(array) => array.row(i).map(|row| u64::from(row[0])),
            Self::I64(array) => array.row(i).and_then(|row| u64::try_from(row[0]).ok()),
        }
    }
}

impl<S: TokenSource> TrainingOrder<S> {
    /// Opens `STEM_{doc,sample,shuffle}_idx.npy` over a source, in constant time.
    ///
    /// # Errors
    /// A file is missing, malformed, or the three do not belong together.
    pub fn open(stem: &Path, seq_length: u64, source: S) -> Result<Self> {
        let order = Self {
            source,
            seq_length,
            doc_idx: Array::open(&array_path(stem, "doc_idx"), 1)?,
            sample_idx: Starts::open(&array_path(stem, "sample_idx"))?,
            shuffle_idx: Shuffle::open(&array_path(stem, "shuffle_idx"))?,
        };
        if order.sample_idx.n() != order.shuffle_idx.n() + 1 {
            let what = format!(
                "{} sample starts for {} samples, expected one more",
                order.sample_idx.n(),
                order.shuffle_idx.n()
            );
            return Err(Error::malformed(&array_path(stem, "sample_idx"), what));
        }
        Ok(order)
    }

    /// The tokens' source.
    pub fn source(&self) -> &S {
        &self.source
    }

    /// Samples in the order.
    pub fn n_samples(&self) -> u64 {
        self.shuffle_idx.n()
    }

    /// Tokens of a sample: one more than the sequence length.
    pub fn sample_length(&self) -> u64 {
        self.seq_length + 1
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
        let n = self.n_samples();
        let sample = self
            .shuffle_idx
            .get(i)
            .ok_or_else(|| Error::argument(format!("no sample {i}: the order has {n}")))?;
        let ends = self
            .sample_idx
            .get(sample)
            .zip(self.sample_idx.get(sample + 1));
        let ((first, start), (last, end)) = ends.ok_or_else(|| {
            Error::argument(format!(
                "sample {i} of the order is outside its sample index: the index is damaged"
            ))
        })?;
        let mut spans = Vec::with_capacity((last.saturating_sub(first) + 1).min(64) as usize);
        for place in first..=last {
            let document = self.document_at(place)?;
            let start = if place == first { start } else { 0 };
            let end = if place == last {
                end + 1
            } else {
                self.source.document_length(document)?
            };
            let length = end.checked_sub(start).ok_or_else(|| self.damaged(i))?;
            if length > 0 {
                spans.push(Span {
                    document,
                    start,
                    length,
                });
            }
        }
        if spans.iter().map(|span| span.length).sum::<u64>() == self.sample_length() {
            return Ok(spans);
        }
        Err(self.damaged(i))
    }

    fn damaged(&self, i: u64) -> Error {
        let length = self.sample_length();
        Error::argument(format!(
            "sample {i} of the order is not of {length} tokens: the index was built for another dataset or sequence length"
        ))
    }

    /// Places of the document index: documents times epochs.
    pub(super) fn n_places(&self) -> u64 {
        self.doc_idx.n_rows()
    }

    /// The sample, as the sample index numbers them, at a place of the training order.
    pub(super) fn sample_at(&self, place: u64) -> Option<u64> {
        self.shuffle_idx.get(place)
    }

    /// Where a sample of the sample index begins and where its last token is, each as (place in the
    /// document index, token).
    pub(super) fn ends(&self, sample: u64) -> Option<((u64, u64), (u64, u64))> {
        self.sample_idx
            .get(sample)
            .zip(self.sample_idx.get(sample + 1))
    }

    pub(super) fn document_at(&self, place: u64) -> Result<u64> {
        let document = self.doc_idx.row(place).map(|row| row[0]);
        document
            .and_then(|document| u64::try_from(document).ok())
            .ok_or_else(|| {
                Error::argument(format!(
                    "place {place} is outside the document index: the index is damaged"
                ))
            })
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
        let spans: Vec<Span> = self
            .batch_spans(first, n)?
            .into_iter()
            .map(|s| s.span)
            .collect();
        self.source.read(&spans, out).map(drop)
    }
}
