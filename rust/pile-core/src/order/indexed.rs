//! Samples by the three arrays.

use std::path::Path;

use super::{
    Samples, View, Views,
    build::array_path,
    npy::AnyArray,
    views::{self, Queries, report},
};
use crate::{
    Error, Result,
    progress::Progress,
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
            let what =
                format!("sample {i} of the order is outside its sample index, which is damaged");
            Error::malformed(self.sample_idx.path(), what)
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

    fn damaged(&self, i: u64) -> Error {
        let length = self.layout.seq_length + self.layout.extra;
        let what = format!(
            "sample {i} of the order is not of {length} tokens: the index was built for another dataset or sequence length"
        );
        Error::malformed(self.sample_idx.path(), what)
    }

    /// The document at a place of the document index, which is one of the dataset's.
    fn document_at(&self, place: u64, source: &dyn TokenSource) -> Result<u64> {
        let n_documents = source.n_documents();
        let what = match self.doc_idx.get(place, 0) {
            Some(document) if document < n_documents => return Ok(document),
            Some(document) => format!(
                "entry {place} is document {document}, but the dataset has {n_documents}: the index is damaged, or of another dataset"
            ),
            None => format!("entry {place} is outside the document index, which is damaged"),
        };
        Err(Error::malformed(self.doc_idx.path(), what))
    }
}

/// The way back: by reading the document index and the shuffle index once each.
impl IndexedSamples {
    /// The parts of a span of the document at a place of the document index; `sample` is left as the
    /// number that the sample index has for it.
    fn views_at(
        &self,
        place: u64,
        (number, copy, query): (u64, u64, Span),
        source: &dyn TokenSource,
        views: &mut Vec<View>,
    ) -> Result<()> {
        let end = query.start + query.length;
        for sample in self.first_sample_with(place, query.start)?..self.n_samples() {
            let ((first, start), (last, last_end)) = self.ends(sample, sample)?;
            if (first, start) >= (place, end) {
                break;
            }
            let from = if first == place { start } else { 0 }.max(query.start);
            let to = if last == place { last_end } else { end }.min(end);
            if from >= to {
                continue;
            }
            let offset = self.tokens_between((first, start), (place, from), source)?;
            // A padded sample is cut at its length: a long document, or the first token after the last one.
            let length = (to - from).min(self.sample_length().saturating_sub(offset));
            if length > 0 {
                views.push(View {
                    query: number,
                    copy,
                    sample,
                    offset,
                    start: from,
                    length,
                });
            }
        }
        Ok(())
    }

    /// The first sample, as the sample index numbers them, that ends behind this token.
    fn first_sample_with(&self, place: u64, token: u64) -> Result<u64> {
        let (mut low, mut high) = (0, self.n_samples());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.ends(middle, middle)?.1 <= (place, token) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    fn tokens_between(
        &self,
        (first, start): (u64, u64),
        (last, end): (u64, u64),
        source: &dyn TokenSource,
    ) -> Result<u64> {
        let mut n = end;
        for place in first..last {
            n += source.document_length(self.document_at(place, source)?)?;
        }
        Ok(n.saturating_sub(start))
    }

    /// Replaces the sample index's numbers by places in the training order. A damaged shuffle index may have a
    /// sample at several places, or at none.
    fn place_samples(&self, views: Vec<View>, progress: &Progress) -> Result<Vec<View>> {
        let n_samples = self.n_samples();
        let mut is_wanted = vec![0_u64; n_samples.div_ceil(64) as usize];
        for view in &views {
            is_wanted[(view.sample / 64) as usize] |= 1 << (view.sample % 64);
        }
        let mut places: Vec<(u64, u64)> = Vec::new();
        for place in 0..n_samples {
            report(place, n_samples, progress)?;
            let sample = self.sample_at(place)?;
            let word = is_wanted.get((sample / 64) as usize);
            if word.is_some_and(|word| word >> (sample % 64) & 1 == 1) {
                places.push((sample, place));
            }
        }
        places.sort_unstable();
        let mut placed = Vec::with_capacity(views.len());
        for view in views {
            let first = places.partition_point(|(sample, _)| *sample < view.sample);
            let of_sample = places[first..]
                .iter()
                .take_while(|(sample, _)| *sample == view.sample);
            placed.extend(of_sample.map(|(_, place)| View {
                sample: *place,
                ..view
            }));
        }
        Ok(placed)
    }
}

impl Samples for IndexedSamples {
    fn views(
        &self,
        queries: &[Span],
        source: &dyn TokenSource,
        progress: &Progress,
    ) -> Result<Views> {
        let wanted = Queries::new(queries, source.n_documents());
        let mut found = Views::default();
        for place in 0..self.doc_idx.n_rows() {
            report(place, self.doc_idx.n_rows(), progress)?;
            let document = self.document_at(place, source)?;
            let numbers = wanted.of(document);
            if numbers.is_empty() {
                continue;
            }
            let copy = found.n_copies.entry(document).or_default();
            for number in numbers {
                let query = (*number, *copy, wanted.spans[*number as usize]);
                self.views_at(place, query, source, &mut found.views)?;
            }
            *copy += 1;
        }
        found.views = self.place_samples(found.views, progress)?;
        Ok(found)
    }

    fn n_copies(&self, source: &dyn TokenSource) -> Result<Vec<u32>> {
        let mut n_copies = vec![0; source.n_documents() as usize];
        for place in 0..self.doc_idx.n_rows() {
            views::count(&mut n_copies, self.document_at(place, source)?)?;
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
        // Only the last sample can have nothing after it.
        (0..n)
            .filter(|i| self.shuffle_idx.get(*i, 0) == Some(n - 1))
            .collect()
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
            let document = self.document_at(place, source)?;
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
