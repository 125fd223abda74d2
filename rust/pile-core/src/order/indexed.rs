//! Samples from the three arrays of an order.
//!
//! The document index strings the documents of all epochs together; an *entry* of it is one copy of a document.
//! Row `s` of the sample index is the position in this string at which sample `s` starts, as an entry and a token
//! in that entry's document. Sample `s` ends at the position in row `s + 1`, plus the shared token if samples
//! share one. The shuffle index has, for each position of the training order, the sample to take.

use std::path::Path;

use super::{
    Appearance, Appearances, Samples,
    appearances::{self, SpanQueries, report},
    build::array_path,
    npy::AnyArray,
    training_order::no_sample,
};
use crate::{
    Error, Result,
    progress::Progress,
    tokens::{Span, TokenSource},
};

/// How the arrays are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SampleLayout {
    /// Tokens the model sees at once.
    pub seq_length: u64,
    /// 1 if samples have one token more than the model sees, the last label; 0 if not (an option of Megatron-LM).
    pub extra: u64,
    /// Whether the documents of a sample may be shorter or longer than the sample, which is then padded or cut.
    pub is_padded: bool,
    /// Whether a sample that GPT-NeoX cannot read is replaced by the one that GPT-NeoX returns instead.
    pub as_gpt_neox: bool,
}

impl SampleLayout {
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

/// A position in the documents strung together. The order of the fields makes positions compare as they
/// follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct StringPosition {
    /// Index in the document index.
    entry: u64,
    /// Token of that entry's document.
    token: u64,
}

/// A copy of a document, and the part of it that is looked up.
#[derive(Clone, Copy)]
struct CopyQuery {
    /// Index of the span in the query.
    number: u64,
    span: Span,
    /// Index of the copy in the document index.
    entry: u64,
    /// Number of the copy among those of its document.
    copy: u64,
}

/// `STEM_{doc,sample,shuffle}_idx.npy`, memory-mapped.
#[derive(Debug)]
pub struct IndexedSamples {
    layout: SampleLayout,
    doc_idx: AnyArray,
    sample_idx: AnyArray,
    shuffle_idx: AnyArray,
}

impl IndexedSamples {
    /// Opens the arrays, in constant time.
    ///
    /// # Errors
    /// A file is missing or malformed, the three do not belong together, or a sample has no tokens.
    pub fn open(stem: &Path, layout: SampleLayout) -> Result<Self> {
        if layout.seq_length.checked_add(layout.extra).unwrap_or(0) == 0 {
            return Err(Error::argument("a sample must have at least one token"));
        }
        let samples = Self {
            layout,
            doc_idx: AnyArray::open(&array_path(stem, "doc_idx"), 1)?,
            sample_idx: AnyArray::open(&array_path(stem, "sample_idx"), 2)?,
            shuffle_idx: AnyArray::open(&array_path(stem, "shuffle_idx"), 1)?,
        };
        let (starts, n_samples) = (samples.sample_idx.n_rows(), samples.shuffle_idx.n_rows());
        if starts.checked_sub(1) != Some(n_samples) {
            let what = format!("{starts} sample starts for {n_samples} samples, expected one more");
            return Err(Error::malformed(&array_path(stem, "sample_idx"), what));
        }
        Ok(samples)
    }

    /// The position at which a sample starts.
    fn start(&self, sample: u64) -> Option<StringPosition> {
        let entry = self.sample_idx.get(sample, 0)?;
        let token = self.sample_idx.get(sample, 1)?;
        Some(StringPosition { entry, token })
    }

    /// The position at which a sample starts, and the position after its last token, which is in the last
    /// token's entry. `position` is only for the error message.
    fn bounds(&self, position: u64, sample: u64) -> Result<(StringPosition, StringPosition)> {
        let end = |next: u64| -> Option<StringPosition> {
            // The last row, which starts no sample, may have the token -1 (see `DocumentString::sample_starts`); the
            // extra token makes it 0.
            let shared = self.sample_idx.get_signed(next, 1)?;
            let token = shared.checked_add_unsigned(self.layout.extra)?;
            Some(StringPosition {
                entry: self.sample_idx.get(next, 0)?,
                token: u64::try_from(token).ok()?,
            })
        };
        let end = sample.checked_add(1).and_then(end);
        self.start(sample).zip(end).ok_or_else(|| {
            let what = format!(
                "sample {position} of the order is outside its sample index, which is damaged"
            );
            Error::malformed(self.sample_idx.path(), what)
        })
    }

    /// The sample at a position of the training order. If GPT-NeoX cannot read it and is to be followed, the
    /// sample it returns instead.
    fn sample_at(&self, position: u64) -> Result<u64> {
        let n = self.n_samples();
        if position >= n {
            return Err(no_sample(position, n));
        }
        let sample = self.shuffled(position)?;
        if !self.layout.as_gpt_neox || self.is_readable(sample) {
            return Ok(sample);
        }
        // The reference catches the error and returns `self[idx % len(self)]`. Its `len(self)` is one short
        // of the number of samples, and `idx` is already the sample of the shuffle index, which is thus
        // applied twice.
        self.shuffled(sample % (n - 1).max(1))
    }

    /// The sample at a position of the shuffle index, which has the position.
    fn shuffled(&self, position: u64) -> Result<u64> {
        let n = self.n_samples();
        let sample = self
            .shuffle_idx
            .get(position, 0)
            .filter(|sample| *sample < n);
        sample.ok_or_else(|| {
            let what = format!("entry {position} is none of its {n} samples: the index is damaged");
            Error::malformed(self.shuffle_idx.path(), what)
        })
    }

    /// Whether GPT-NeoX can read a sample: it takes the sample's last token from the entry at which the next sample
    /// starts, which after the last sample may be one past the end.
    fn is_readable(&self, sample: u64) -> bool {
        self.start(sample + 1)
            .is_none_or(|next| next.entry < self.doc_idx.n_rows())
    }

    fn damaged(&self, position: u64) -> Error {
        let length = self.layout.seq_length + self.layout.extra;
        let what = format!(
            "sample {position} of the order is not of {length} tokens: the index was built for another dataset or sequence length"
        );
        Error::malformed(self.sample_idx.path(), what)
    }

    /// The document of an entry of the document index; it is in the source.
    fn document_at(&self, entry: u64, source: &dyn TokenSource) -> Result<u64> {
        let n_documents = source.n_documents();
        let what = match self.doc_idx.get(entry, 0) {
            Some(document) if document < n_documents => return Ok(document),
            Some(document) => format!(
                "entry {entry} is document {document}, but the dataset has {n_documents}: the index is damaged, or of another dataset"
            ),
            None => format!("entry {entry} is outside the document index, which is damaged"),
        };
        Err(Error::malformed(self.doc_idx.path(), what))
    }
}

/// The inverse lookup: one pass over the document index finds the copies of the queried documents, binary
/// search in the sample index their samples, and one pass over the shuffle index the positions of these.
impl IndexedSamples {
    /// Adds the appearances of a span in one copy of its document. Their `sample` is the number in the sample
    /// index, which [`Self::to_training_order`] replaces.
    fn appearances_in_copy(
        &self,
        query: CopyQuery,
        source: &dyn TokenSource,
        appearances: &mut Vec<Appearance>,
    ) -> Result<()> {
        let CopyQuery { span, entry, .. } = query;
        let span_end = span.start + span.length;
        let first_sample = self.first_sample_after(StringPosition {
            entry,
            token: span.start,
        })?;
        for sample in first_sample..self.n_samples() {
            let (start, end) = self.bounds(sample, sample)?;
            let after_span = StringPosition {
                entry,
                token: span_end,
            };
            if start >= after_span {
                break;
            }
            // The sample's part of this copy, cut to the span.
            let from_start = if start.entry == entry { start.token } else { 0 };
            let from = from_start.max(span.start);
            let to = match end.entry == entry {
                true => end.token.min(span_end),
                false => span_end,
            };
            if from >= to {
                continue;
            }
            let first_token = StringPosition { entry, token: from };
            let offset = self.tokens_between(start, first_token, source)?;
            // A padded sample ends at its length: a document longer than the sample is cut, and so is the
            // token shared with the next document if the sample is full without it.
            let length = (to - from).min(self.sample_length().saturating_sub(offset));
            if length > 0 {
                appearances.push(Appearance {
                    query: query.number,
                    copy: query.copy,
                    sample,
                    offset,
                    start: from,
                    length,
                });
            }
        }
        Ok(())
    }

    /// The first sample, by number in the sample index, whose end is after the token at `position`.
    fn first_sample_after(&self, position: StringPosition) -> Result<u64> {
        let (mut low, mut high) = (0, self.n_samples());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.bounds(middle, middle)?.1 <= position {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    fn tokens_between(
        &self,
        start: StringPosition,
        end: StringPosition,
        source: &dyn TokenSource,
    ) -> Result<u64> {
        let mut n = end.token;
        for entry in start.entry..end.entry {
            n += source.document_length(self.document_at(entry, source)?)?;
        }
        Ok(n.saturating_sub(start.token))
    }

    /// Replaces sample numbers by positions in the training order. With `as_gpt_neox`, or if the shuffle index lists a
    /// sample twice, as a damaged one may, a sample may have several positions or none.
    fn to_training_order(
        &self,
        appearances: Vec<Appearance>,
        progress: &Progress,
    ) -> Result<Vec<Appearance>> {
        let n_samples = self.n_samples();
        // One bit per sample: nearly all samples of the shuffle index are skipped by it.
        let mut is_needed = vec![0_u64; n_samples.div_ceil(64) as usize];
        for appearance in &appearances {
            is_needed[(appearance.sample / 64) as usize] |= 1 << (appearance.sample % 64);
        }
        let mut positions: Vec<(u64, u64)> = Vec::new();
        for position in 0..n_samples {
            report(position, n_samples, progress)?;
            let sample = self.sample_at(position)?;
            if is_needed[(sample / 64) as usize] >> (sample % 64) & 1 == 1 {
                positions.push((sample, position));
            }
        }
        positions.sort_unstable();
        let mut in_order = Vec::with_capacity(appearances.len());
        for appearance in appearances {
            let first = positions.partition_point(|(sample, _)| *sample < appearance.sample);
            let of_sample = positions[first..]
                .iter()
                .take_while(|(sample, _)| *sample == appearance.sample);
            in_order.extend(of_sample.map(|(_, position)| Appearance {
                sample: *position,
                ..appearance
            }));
        }
        Ok(in_order)
    }

    /// Whether the shuffle lists a sample more than once, as a damaged one may.
    fn has_repeated_samples(&self) -> bool {
        let n = self.shuffle_idx.n_rows();
        let mut is_listed = vec![false; n as usize];
        (0..n).any(|position| {
            let sample = self.shuffle_idx.get(position, 0).unwrap_or(n) as usize;
            is_listed
                .get_mut(sample)
                .is_none_or(|is_listed| std::mem::replace(is_listed, true))
        })
    }
}

impl Samples for IndexedSamples {
    fn appearances(
        &self,
        queries: &[Span],
        source: &dyn TokenSource,
        progress: &Progress,
    ) -> Result<Appearances> {
        let queries = SpanQueries::new(queries, source.n_documents());
        let mut found = Appearances::default();
        for entry in 0..self.doc_idx.n_rows() {
            report(entry, self.doc_idx.n_rows(), progress)?;
            let document = self.document_at(entry, source)?;
            let numbers = queries.of(document);
            if numbers.is_empty() {
                continue;
            }
            let copy = found.n_copies.entry(document).or_default();
            for number in numbers {
                let query = CopyQuery {
                    number: *number,
                    span: queries.spans[*number as usize],
                    entry,
                    copy: *copy,
                };
                self.appearances_in_copy(query, source, &mut found.appearances)?;
            }
            *copy += 1;
        }
        found.appearances = self.to_training_order(found.appearances, progress)?;
        Ok(found)
    }

    fn n_copies(&self, source: &dyn TokenSource) -> Result<Vec<u32>> {
        if self.layout.is_padded || self.has_repeated_samples() {
            return appearances::spans_by_document(self, source);
        }
        let mut n_copies = vec![0; source.n_documents() as usize];
        for entry in 0..self.doc_idx.n_rows() {
            appearances::count(&mut n_copies, self.document_at(entry, source)?)?;
        }
        Ok(n_copies)
    }

    fn n_samples(&self) -> u64 {
        self.shuffle_idx.n_rows()
    }

    fn sample_length(&self) -> u64 {
        self.layout.seq_length + self.layout.extra
    }

    fn is_padded(&self) -> bool {
        self.layout.is_padded
    }

    fn replaced(&self) -> Vec<u64> {
        let n = self.shuffle_idx.n_rows();
        if !self.layout.is_padded || n == 0 || self.is_readable(n - 1) {
            return Vec::new();
        }
        // Only the last sample can lack a document after it.
        (0..n)
            .filter(|position| self.shuffle_idx.get(*position, 0) == Some(n - 1))
            .collect()
    }

    fn spans(&self, position: u64, source: &dyn TokenSource) -> Result<Vec<Span>> {
        let sample = self.sample_at(position)?;
        let (start, end) = self.bounds(position, sample)?;
        let is_padded = self.layout.is_padded;
        // A damaged index may claim any number of entries: allocate for at most 64 before they are checked.
        let n_entries = (end.entry.saturating_sub(start.entry) + 1).min(64);
        let mut spans = Vec::with_capacity(n_entries as usize);
        let mut remaining = self.sample_length();
        for entry in start.entry..=end.entry {
            // The last sample of a padded order may have no document after it.
            if is_padded && entry == end.entry && entry >= self.doc_idx.n_rows() {
                break;
            }
            let document = self.document_at(entry, source)?;
            let first_token = if entry == start.entry { start.token } else { 0 };
            let document_length = source.document_length(document)?;
            let mut end_token = if entry == end.entry {
                end.token
            } else {
                document_length
            };
            if is_padded {
                end_token = end_token.min(document_length);
            } else if end_token > document_length {
                return Err(self.damaged(position));
            }
            let length = end_token
                .checked_sub(first_token)
                .ok_or_else(|| self.damaged(position))?;
            if !is_padded && length > remaining {
                return Err(self.damaged(position));
            }
            let length = length.min(remaining);
            remaining -= length;
            if length > 0 {
                spans.push(Span {
                    document,
                    start: first_token,
                    length,
                });
            }
            if is_padded && remaining == 0 {
                break;
            }
        }
        if remaining > 0 && !is_padded {
            return Err(self.damaged(position));
        }
        Ok(spans)
    }
}
