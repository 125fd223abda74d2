//! From matches in documents to the samples of an order that show them.

use std::ops::Range;

use super::find::document_tokens;
use crate::{
    Result,
    order::TrainingOrder,
    progress::Progress,
    timeline::{Occurrence, Occurrences, Sightings, sightings},
    tokenize::TokenBytes,
    tokens::TokenSource,
};

/// Bytes of a decoded document of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentBytes {
    /// The document of the order's source.
    pub document: u64,
    /// The bytes, at least one.
    pub bytes: Range<u64>,
}

/// Every sample that shows some bytes of documents, as for texts that occur there. The number of a range is the `text`
/// of its sightings.
///
/// # Errors
/// The order or a document cannot be read, or a stop.
pub fn sightings_of_bytes<S: TokenSource>(
    order: &TrainingOrder<S>,
    token_bytes: &TokenBytes,
    ranges: &[DocumentBytes],
    progress: &Progress,
) -> Result<Sightings> {
    let mut numbers: Vec<usize> = (0..ranges.len()).collect();
    numbers.sort_by_key(|number| ranges[*number].document);
    let mut found = Occurrences::default();
    for of_document in numbers.chunk_by(|a, b| ranges[*a].document == ranges[*b].document) {
        let document = ranges[of_document[0]].document;
        let tokens = document_tokens(order.source(), document)?;
        // The end of each token in the decoded document.
        let ends = tokens.iter().scan(0, |end, token| {
            *end += token_bytes.length(*token) as u64;
            Some(*end)
        });
        let ends: Vec<u64> = ends.collect();
        for number in of_document {
            let bytes = &ranges[*number].bytes;
            let first = ends.partition_point(|end| *end <= bytes.start) as u64;
            let last = ends.partition_point(|end| *end < bytes.end) as u64;
            // A range that ends after the document is in no sample.
            if last < ends.len() as u64 {
                found.occurrences.push(Occurrence {
                    document,
                    byte_offset: bytes.start,
                    text: *number as u64,
                    token_offset: first,
                    n_tokens: last + 1 - first,
                });
            }
        }
    }
    found.occurrences.sort_unstable();
    sightings(order, ranges.len(), found, progress)
}
