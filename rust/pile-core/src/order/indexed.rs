//! Samples by the three arrays.

use std::path::Path;

use super::{Samples, build::array_path, npy::AnyArray};
use crate::{
    Error, Result,
    tokens::{Span, TokenSource},
};

/// How the arrays are read: what `packed` orders need is the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Tokens the model sees at once.
    pub seq_length: u64,
    /// 1 where samples hold one token more than the model sees, their last label; 0 where not (Megatron-LM).
    pub extra: u64,
    /// Whether samples may be shorter or longer than their length, and are padded or cut.
    pub is_padded: bool,
    /// Whether a sample that GPT-NeoX cannot read is what it puts in its place.
    pub as_gpt_neox: bool,
}

impl Layout {
    /// The layout of a `packed` order.
    #[must_use]
    pub fn packed(seq_length: u64) -> Self {
        Self {
            seq_length,
            extra: 1,
            is_padded: false,
            as_gpt_neox: false,
        }
    }
}

/// `STEM_{doc,sample,shuffle}_idx.npy`, memory-mapped.
#[derive(Debug)]
pub struct IndexedSamples {
    layout: Layout,
    doc_idx: AnyArray,
    sample_idx: AnyArray,
    shuffle_idx: AnyArray,
}

impl IndexedSamples {
    /// Opens the arrays, in constant time.
    ///
    /// # Errors
    /// A file is missing, malformed, or the three do not belong together.
    pub fn open(stem: &Path, layout: Layout) -> Result<Self> {
        let samples = Self {
            layout,
            doc_idx: AnyArray::open(&array_path(stem, "doc_idx"), 1)?,
            sample_idx: AnyArray::open(&array_path(stem, "sample_idx"), 2)?,
            shuffle_idx: AnyArray::open(&array_path(stem, "shuffle_idx"), 1)?,
        };
        let (starts, places) = (samples.sample_idx.n_rows(), samples.shuffle_idx.n_rows());
        if starts.checked_sub(1) != Some(places) {
            let what = format!("{starts} sample starts for {places} samples, expected one more");
            return Err(Error::malformed(&array_path(stem, "sample_idx"), what));
        }
        Ok(samples)
    }

    /// Place in `doc_idx` and token of a sample's start.
    fn start(&self, sample: u64) -> Option<(u64, u64)> {
        self.sample_idx
            .get(sample, 0)
            .zip(self.sample_idx.get(sample, 1))
    }

    /// Where a sample starts, and in which place of `doc_idx` and before which token it ends.
    fn ends(&self, i: u64, sample: u64) -> Result<((u64, u64), (u64, u64))> {
        let end = |next: u64| -> Option<(u64, u64)> {
            let last = self.sample_idx.get_signed(next, 1)?;
            let end = last.checked_add_unsigned(self.layout.extra)?;
            Some((self.sample_idx.get(next, 0)?, u64::try_from(end).ok()?))
        };
        let ends = sample.checked_add(1).and_then(end);
        self.start(sample).zip(ends).ok_or_else(|| {
            Error::argument(format!(
                "sample {i} of the order is outside its sample index: the index is damaged"
            ))
        })
    }

    /// The sample at place `i`, and in GPT-NeoX's way the one it takes where that one cannot be read.
    fn sample_at(&self, i: u64) -> Result<u64> {
        let n = self.shuffle_idx.n_rows();
        let no_sample = || Error::argument(format!("no sample {i}: the order has {n}"));
        let sample = self.shuffle_idx.get(i, 0).ok_or_else(no_sample)?;
        if !self.layout.as_gpt_neox || self.is_readable(sample) {
            return Ok(sample);
        }
        // `self[idx % len(self)]`, its length being one short and `idx` shuffled already.
        let again = sample % (n - 1).max(1);
        self.shuffle_idx.get(again, 0).ok_or_else(no_sample)
    }

    /// Whether GPT-NeoX finds the document after a sample, whose first token it appends.
    fn is_readable(&self, sample: u64) -> bool {
        self.start(sample + 1)
            .is_none_or(|(last, _)| last < self.doc_idx.n_rows())
    }

    /// Places at which GPT-NeoX cannot read the sample and takes another.
    #[must_use]
    pub fn replaced(&self) -> Vec<u64> {
        let n = self.shuffle_idx.n_rows();
        if !self.layout.is_padded || n == 0 || self.is_readable(n - 1) {
            return Vec::new();
        }
        // Only the last sample can have nothing after it.
        (0..n)
            .filter(|i| self.shuffle_idx.get(*i, 0) == Some(n - 1))
            .collect()
    }

    fn damaged(&self, i: u64) -> Error {
        let length = self.layout.seq_length + self.layout.extra;
        Error::argument(format!(
            "sample {i} of the order is not of {length} tokens: the index was built for another dataset or sequence length"
        ))
    }

    fn document_at(&self, place: u64) -> Result<u64> {
        self.doc_idx.get(place, 0).ok_or_else(|| {
            Error::argument(format!(
                "place {place} is outside the document index: the index is damaged"
            ))
        })
    }
}

impl Samples for IndexedSamples {
    fn n_samples(&self) -> u64 {
        self.shuffle_idx.n_rows()
    }

    fn sample_length(&self) -> u64 {
        self.layout.seq_length + self.layout.extra
    }

    fn is_padded(&self) -> bool {
        self.layout.is_padded
    }

    fn spans(&self, i: u64, source: &dyn TokenSource) -> Result<Vec<Span>> {
        let sample = self.sample_at(i)?;
        let ((first, start), (last, end)) = self.ends(i, sample)?;
        let is_padded = self.layout.is_padded;
        let mut spans = Vec::with_capacity((last.saturating_sub(first) + 1).min(64) as usize);
        let mut room = self.sample_length();
        for place in first..=last {
            // A last sample that is padded has no document after it.
            if is_padded && place == last && place >= self.doc_idx.n_rows() {
                break;
            }
            let document = self.document_at(place)?;
            let start = if place == first { start } else { 0 };
            let mut end = if place == last {
                end
            } else {
                source.document_length(document)?
            };
            if is_padded && place == last {
                end = end.min(source.document_length(document)?);
            }
            let length = end.checked_sub(start).ok_or_else(|| self.damaged(i))?;
            if !is_padded && length > room {
                return Err(self.damaged(i));
            }
            let length = length.min(room);
            room -= length;
            if length > 0 {
                spans.push(Span {
                    document,
                    start,
                    length,
                });
            }
            if is_padded && room == 0 {
                break;
            }
        }
        if room > 0 && !is_padded {
            return Err(self.damaged(i));
        }
        Ok(spans)
    }
}
