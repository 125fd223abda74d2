//! Samples of several orders, mixed by weight.

use std::{ops::Range, path::Path};

use rustc_hash::FxHashMap;

use super::{
    Appearances, BlendArrays, IndexedSamples, Samples, appearances::report, build::array_path, npy,
    npy::AnyArray, split::blend, training_order::no_sample,
};
use crate::{
    Error, Result,
    io::write_atomically,
    progress::Progress,
    tokens::{Span, TokenSource},
};

const ARRAYS: [&str; 2] = ["dataset_index", "dataset_sample_index"];

/// Writes a blend as `STEM_dataset_index.npy` and `STEM_dataset_sample_index.npy`.
fn write_blend(stem: &Path, arrays: &BlendArrays) -> Result<()> {
    let paths = ARRAYS.map(|array| array_path(stem, array));
    write_atomically(&paths[0], |out| npy::write(out, &arrays.dataset_index, 1))?;
    write_atomically(&paths[1], |out| npy::write(out, &arrays.sample_index, 1))
}

/// Builds and writes the blend of datasets that have `available` samples each. Returns its number of samples,
/// and how many of them are from each dataset.
///
/// GPT-NeoX's blend has as many samples as the datasets together, minus one for each dataset. If a dataset
/// runs out of samples, GPT-NeoX starts again with its first one; this is done with `as_gpt_neox`. Otherwise
/// the blend ends there.
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
            // GPT-NeoX's length of a dataset is one less than its number of samples. It reads the sample after that
            // length, but takes a number past it modulo the length.
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

/// One order of a blend.
#[derive(Debug)]
pub struct BlendPart {
    /// The samples of the order, over its own dataset.
    pub samples: IndexedSamples,
    /// Number of the dataset's first document in the blend's source.
    pub first_document: u64,
}

/// The samples of a blend of orders. Its source holds the datasets of the orders one after the other.
#[derive(Debug)]
pub struct BlendedSamples {
    parts: Vec<BlendPart>,
    dataset_index: AnyArray,
    sample_index: AnyArray,
}

impl BlendedSamples {
    /// Opens the blend with these orders.
    ///
    /// # Errors
    /// A file is malformed, or the orders differ in their sequence length.
    pub fn open(stem: &Path, parts: Vec<BlendPart>) -> Result<Self> {
        let path = array_path(stem, ARRAYS[0]);
        let dataset_index = AnyArray::open(&path, 1)?;
        let sample_index = AnyArray::open(&array_path(stem, ARRAYS[1]), 1)?;
        if dataset_index.n_rows() != sample_index.n_rows() {
            return Err(Error::malformed(
                &path,
                "the two arrays of the blend differ in length",
            ));
        }
        let lengths = parts.iter().map(|part| part.samples.sample_length());
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
    /// The part, and the position in its order, of the sample at a position of the blend.
    fn sample_at(&self, position: u64) -> Result<(usize, u64)> {
        let n = self.n_samples();
        if position >= n {
            return Err(no_sample(position, n));
        }
        let damaged = |index: &AnyArray, n: u64, what: &str| {
            let what = format!("entry {position} is none of the {n} {what}: the index is damaged");
            Error::malformed(index.path(), what)
        };
        let number = self
            .dataset_index
            .get(position, 0)
            .map(|number| number as usize);
        let Some((number, part)) = number.and_then(|n| Some((n, self.parts.get(n)?))) else {
            return Err(damaged(
                &self.dataset_index,
                self.parts.len() as u64,
                "datasets",
            ));
        };
        let n_samples = part.samples.n_samples();
        let sample = self
            .sample_index
            .get(position, 0)
            .filter(|sample| *sample < n_samples);
        let sample = sample
            .ok_or_else(|| damaged(&self.sample_index, n_samples, "samples of its dataset"))?;
        Ok((number, sample))
    }

    /// The documents of a part. Each order has documents, so no two parts have the same first one.
    fn source_of<'a>(&self, part: &BlendPart, source: &'a dyn TokenSource) -> PartSource<'a> {
        let later = self.parts.iter().map(|part| part.first_document);
        let end = later.filter(|other| *other > part.first_document).min();
        PartSource {
            source,
            documents: part.first_document..end.unwrap_or(source.n_documents()),
        }
    }

    /// Replaces positions in the parts' orders by positions in the blend, where a sample may have several or
    /// none. `parts` is the part of each query.
    fn to_training_order(
        &self,
        found: Appearances,
        parts: &[usize],
        progress: &Progress,
    ) -> Result<Appearances> {
        let mut positions: FxHashMap<(usize, u64), Vec<u64>> = FxHashMap::default();
        for appearance in &found.appearances {
            let sample = (parts[appearance.query as usize], appearance.sample);
            positions.entry(sample).or_default();
        }
        for position in 0..self.n_samples() {
            report(position, self.n_samples(), progress)?;
            let sample = self.sample_at(position)?;
            if let Some(positions) = positions.get_mut(&sample) {
                positions.push(position);
            }
        }
        let mut in_order = Appearances {
            n_copies: found.n_copies,
            appearances: Vec::with_capacity(found.appearances.len()),
        };
        for mut appearance in found.appearances {
            for position in &positions[&(parts[appearance.query as usize], appearance.sample)] {
                appearance.sample = *position;
                in_order.appearances.push(appearance);
            }
        }
        Ok(in_order)
    }
}

impl Samples for BlendedSamples {
    fn appearances(
        &self,
        queries: &[Span],
        source: &dyn TokenSource,
        progress: &Progress,
    ) -> Result<Appearances> {
        let mut all = Appearances::default();
        let mut parts = vec![0; queries.len()];
        for (number, part) in self.parts.iter().enumerate() {
            let first_document = part.first_document;
            let part_source = self.source_of(part, source);
            let mut numbers = Vec::new();
            let mut of_part = Vec::new();
            for (query, span) in queries.iter().enumerate() {
                if part_source.documents.contains(&span.document) {
                    parts[query] = number;
                    numbers.push(query as u64);
                    of_part.push(Span {
                        document: span.document - first_document,
                        ..*span
                    });
                }
            }
            let found = part.samples.appearances(&of_part, &part_source, progress)?;
            let n_copies = found.n_copies.into_iter();
            all.n_copies
                .extend(n_copies.map(|(document, n)| (document + first_document, n)));
            for mut appearance in found.appearances {
                appearance.query = numbers[appearance.query as usize];
                all.appearances.push(appearance);
            }
        }
        self.to_training_order(all, &parts, progress)
    }

    fn n_samples(&self) -> u64 {
        self.dataset_index.n_rows()
    }

    fn sample_length(&self) -> u64 {
        self.parts[0].samples.sample_length()
    }

    fn is_padded(&self) -> bool {
        self.parts.iter().any(|part| part.samples.is_padded())
    }

    fn replaced(&self) -> Vec<u64> {
        let of_parts = self.parts.iter().map(|part| part.samples.replaced());
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

    fn spans(&self, position: u64, source: &dyn TokenSource) -> Result<Vec<Span>> {
        let (part, sample) = self.sample_at(position)?;
        let part = &self.parts[part];
        let part_source = self.source_of(part, source);
        let mut spans = part.samples.spans(sample, &part_source)?;
        for span in &mut spans {
            span.document += part.first_document;
        }
        Ok(spans)
    }
}

/// The documents of a part, numbered from 0.
struct PartSource<'a> {
    source: &'a dyn TokenSource,
    /// Their range in the source.
    documents: Range<u64>,
}

impl TokenSource for PartSource<'_> {
    fn n_documents(&self) -> u64 {
        self.documents.end.saturating_sub(self.documents.start)
    }

    fn document_length(&self, document: u64) -> Result<u64> {
        self.source
            .document_length(document.saturating_add(self.documents.start))
    }

    fn token_type(&self) -> crate::tokens::TokenType {
        self.source.token_type()
    }

    fn read(&self, spans: &[Span], out: &mut [u8]) -> Result<usize> {
        let shift = |span: &Span| Span {
            document: span.document + self.documents.start,
            ..*span
        };
        self.source
            .read(&spans.iter().map(shift).collect::<Vec<_>>(), out)
    }
}
