//! Samples of several orders, mixed by weight.

use std::path::Path;

use rustc_hash::FxHashMap;

use super::{
    Blended, IndexedSamples, Samples, Views, build::array_path, npy, npy::AnyArray, split::blend,
    views::report,
};
use crate::{
    Error, Result,
    io::write_atomically,
    progress::Progress,
    tokens::{Span, TokenSource},
};

const ARRAYS: [&str; 2] = ["dataset_index", "dataset_sample_index"];

/// Writes a blend as `STEM_dataset_index.npy` and `STEM_dataset_sample_index.npy`.
fn write_blend(stem: &Path, blended: &Blended) -> Result<()> {
    let paths = ARRAYS.map(|array| array_path(stem, array));
    write_atomically(&paths[0], |out| npy::write(out, &blended.dataset_index, 1))?;
    write_atomically(&paths[1], |out| npy::write(out, &blended.sample_index, 1))
}

/// Builds and writes the blend of datasets with so many samples each; returns its samples, and those it takes
/// of each.
///
/// GPT-NeoX blends as many samples as the datasets have together, one less each, and where a dataset has no
/// more it starts again with its first: so does this `as_gpt_neox`. Otherwise the blend ends there.
///
/// # Errors
/// As [`blend`], or a file cannot be written.
pub fn build_blend(
    stem: &Path,
    weights: &[f64],
    available: &[u64],
    as_gpt_neox: bool,
) -> Result<(u64, Vec<u64>)> {
    let reachable: Vec<u64> = available.iter().map(|n| n.saturating_sub(1)).collect();
    let mut blended = blend(weights, reachable.iter().sum())?;
    if weights.len() != available.len() {
        return Err(Error::argument(format!(
            "{} weights for {} datasets",
            weights.len(),
            available.len()
        )));
    }
    let n_of = |number: u8| available[usize::from(number)] as i64;
    if as_gpt_neox {
        for (number, sample) in blended.dataset_index.iter().zip(&mut blended.sample_index) {
            if *sample >= n_of(*number) {
                *sample %= (n_of(*number) - 1).max(1);
            }
        }
    } else {
        let mut both = blended.dataset_index.iter().zip(&blended.sample_index);
        if let Some(end) = both.position(|(number, sample)| *sample >= n_of(*number)) {
            blended.dataset_index.truncate(end);
            blended.sample_index.truncate(end);
        }
    }
    let mut counts = vec![0; weights.len()];
    for number in &blended.dataset_index {
        counts[usize::from(*number)] += 1;
    }
    write_blend(stem, &blended)?;
    Ok((blended.dataset_index.len() as u64, counts))
}

/// Orders over datasets that stand one after the other in one source, and which gives each sample.
#[derive(Debug)]
pub struct BlendedSamples {
    parts: Vec<(IndexedSamples, u64)>,
    dataset_index: AnyArray,
    sample_index: AnyArray,
}

impl BlendedSamples {
    /// Opens a blend of orders, each with the number of its dataset's first document in the source.
    ///
    /// # Errors
    /// A file is malformed, or the parts do not belong together.
    pub fn open(stem: &Path, parts: Vec<(IndexedSamples, u64)>) -> Result<Self> {
        let path = array_path(stem, ARRAYS[0]);
        let dataset_index = AnyArray::open(&path, 1)?;
        let sample_index = AnyArray::open(&array_path(stem, ARRAYS[1]), 1)?;
        if dataset_index.n_rows() != sample_index.n_rows() {
            return Err(Error::malformed(
                &path,
                "the two arrays of the blend differ in length",
            ));
        }
        let lengths = parts.iter().map(|(part, _)| part.sample_length());
        if parts.is_empty() || lengths.clone().min() != lengths.max() {
            return Err(Error::argument(
                "a blend needs orders of one sequence length, and at least one",
            ));
        }
        Ok(Self {
            parts,
            dataset_index,
            sample_index,
        })
    }
}

impl BlendedSamples {
    /// The documents of the source that are of a part.
    fn documents_of(&self, first: u64, source: &dyn TokenSource) -> std::ops::Range<u64> {
        let later = self.parts.iter().map(|(_, other)| *other);
        let end = later.filter(|other| *other > first).min();
        first..end.unwrap_or(source.n_documents())
    }

    /// Replaces places in the parts' orders by places in the blend; a sample may have several, or none.
    fn place_samples(&self, found: Views, parts: &[usize], progress: &Progress) -> Result<Views> {
        let mut places: FxHashMap<(usize, u64), Vec<u64>> = FxHashMap::default();
        for view in &found.views {
            let sample = (parts[view.query as usize], view.sample);
            places.entry(sample).or_default();
        }
        for place in 0..self.n_samples() {
            report(place, self.n_samples(), progress)?;
            let number = self.dataset_index.get(place, 0);
            if let Some((number, sample)) = number.zip(self.sample_index.get(place, 0))
                && let Some(places) = places.get_mut(&(number as usize, sample))
            {
                places.push(place);
            }
        }
        let mut placed = Views {
            n_copies: found.n_copies,
            views: Vec::with_capacity(found.views.len()),
        };
        for mut view in found.views {
            for place in &places[&(parts[view.query as usize], view.sample)] {
                view.sample = *place;
                placed.views.push(view);
            }
        }
        Ok(placed)
    }
}

impl Samples for BlendedSamples {
    fn views(
        &self,
        queries: &[Span],
        source: &dyn TokenSource,
        progress: &Progress,
    ) -> Result<Views> {
        let mut all = Views::default();
        let mut parts = vec![0; queries.len()];
        for (number, (part, first_document)) in self.parts.iter().enumerate() {
            let documents = self.documents_of(*first_document, source);
            let mut numbers = Vec::new();
            let mut own = Vec::new();
            for (query, span) in queries.iter().enumerate() {
                if documents.contains(&span.document) {
                    parts[query] = number;
                    numbers.push(query as u64);
                    own.push(Span {
                        document: span.document - first_document,
                        ..*span
                    });
                }
            }
            let shifted = Shifted {
                source,
                first_document: *first_document,
            };
            let found = part.views(&own, &shifted, progress)?;
            let n_copies = found.n_copies.into_iter();
            all.n_copies
                .extend(n_copies.map(|(document, n)| (document + first_document, n)));
            for mut view in found.views {
                view.query = numbers[view.query as usize];
                all.views.push(view);
            }
        }
        self.place_samples(all, &parts, progress)
    }

    fn n_samples(&self) -> u64 {
        self.dataset_index.n_rows()
    }

    fn sample_length(&self) -> u64 {
        self.parts[0].0.sample_length()
    }

    fn is_padded(&self) -> bool {
        self.parts.iter().any(|(part, _)| part.is_padded())
    }

    fn replaced(&self) -> Vec<u64> {
        let of_parts = self.parts.iter().map(|(part, _)| part.replaced());
        let of_parts: Vec<Vec<u64>> = of_parts.collect();
        if of_parts.iter().all(Vec::is_empty) {
            return Vec::new();
        }
        let is_replaced = |i: &u64| {
            let number = self.dataset_index.get(*i, 0);
            let sample = number.zip(self.sample_index.get(*i, 0));
            sample.is_some_and(|(number, sample)| {
                let of_part = of_parts.get(number as usize);
                of_part.is_some_and(|replaced| replaced.contains(&sample))
            })
        };
        (0..self.n_samples()).filter(is_replaced).collect()
    }

    fn spans(&self, i: u64, source: &dyn TokenSource) -> Result<Vec<Span>> {
        let place = self
            .dataset_index
            .get(i, 0)
            .zip(self.sample_index.get(i, 0));
        let n = self.n_samples();
        let (number, sample) =
            place.ok_or_else(|| Error::argument(format!("no sample {i}: the order has {n}")))?;
        let (part, first_document) = self.parts.get(number as usize).ok_or_else(|| {
            Error::argument(format!(
                "sample {i} is of dataset {number}, the blend has {}",
                self.parts.len()
            ))
        })?;
        let shifted = Shifted {
            source,
            first_document: *first_document,
        };
        let mut spans = part.spans(sample, &shifted)?;
        for span in &mut spans {
            span.document += first_document;
        }
        Ok(spans)
    }
}

/// A source seen from one of its datasets.
struct Shifted<'a> {
    source: &'a dyn TokenSource,
    first_document: u64,
}

impl TokenSource for Shifted<'_> {
    fn n_documents(&self) -> u64 {
        self.source
            .n_documents()
            .saturating_sub(self.first_document)
    }

    fn document_length(&self, document: u64) -> Result<u64> {
        self.source
            .document_length(document.saturating_add(self.first_document))
    }

    fn token_type(&self) -> crate::tokens::TokenType {
        self.source.token_type()
    }

    fn read(&self, spans: &[Span], out: &mut [u8]) -> Result<usize> {
        let shift = |span: &Span| Span {
            document: span.document + self.first_document,
            ..*span
        };
        self.source
            .read(&spans.iter().map(shift).collect::<Vec<_>>(), out)
    }
}
