//! Groups of documents whose normalized texts have the same hash.

use std::{ops::Range, path::Path};

use super::{documents::Documents, ranks::Ranks};
use crate::{Result, io::ExternalSort, progress::Progress};

/// For each document the preferred one of its group, which may be itself: of the documents with the same hash, and once
/// `verify_copies` has run, with the same text.
pub(super) struct ExactGroups {
    pub(super) preferred: Vec<u32>,
}

impl ExactGroups {
    /// Whether a document is a copy of another that is preferred to it.
    pub(super) fn is_copy(&self, document: u32) -> bool {
        self.preferred[document as usize] != document
    }

    /// All documents.
    pub(super) fn all(&self) -> Range<u32> {
        0..self.preferred.len() as u32
    }

    /// Each copy among these documents, and the preferred member of its group.
    pub(super) fn copies(&self, documents: Range<u32>) -> impl Iterator<Item = (u32, u32)> {
        let with_preferred =
            documents.map(|document| (document, self.preferred[document as usize]));
        with_preferred.filter(|(document, preferred)| document != preferred)
    }
}

/// Groups documents by the hash of their texts.
pub(super) fn group_by_hash(
    documents: &Documents,
    ranks: &Ranks,
    memory: u64,
    folder: &Path,
    progress: &Progress,
) -> Result<ExactGroups> {
    // The low 96 bits of the hash, then the rank, so that the first member of a group is the preferred one. All members
    // are verified later.
    let mut sort = ExternalSort::new(folder, "hashes", memory);
    documents.for_each(|document, _, row| {
        let rank = ranks.of_document[document as usize];
        sort.push(row.hash << 32 | u128::from(rank))
    })?;
    let mut preferred: Vec<u32> = (0..documents.len()).collect();
    let mut first: Option<(u128, u32)> = None;
    sort.for_each(progress, |record| {
        let (hash, document) = (record >> 32, ranks.documents[record as u32 as usize]);
        match first {
            Some((of_first, member)) if of_first == hash => preferred[document as usize] = member,
            _ => first = Some((hash, document)),
        }
        Ok(())
    })?;
    Ok(ExactGroups { preferred })
}
