//! The order in which documents are preferred.

use std::path::Path;

use rustc_hash::FxHashSet;

use super::{
    DedupConfig, Preference,
    documents::Documents,
    normalize::normalized,
    sketch::{DedupState, text_hash},
};
use crate::{Result, io::ExternalSort, progress::Progress};

/// The order of preference. A smaller rank is preferred.
pub(super) struct Ranks {
    /// The rank of each document.
    pub(super) of_document: Vec<u32>,
    /// The document of each rank.
    pub(super) documents: Vec<u32>,
    /// Protected documents have the ranks below this one.
    pub(super) n_protected: u32,
}

impl Ranks {
    /// Whether the document of this rank is protected.
    pub(super) fn is_protected(&self, rank: u32) -> bool {
        rank < self.n_protected
    }
}

/// Ranks all documents: protected ones first, then by the preference, then in reading order.
///
/// # Errors
/// A protected record does not exist or is bad; the file system fails; or a stop.
pub(super) fn rank_documents(
    config: &DedupConfig,
    documents: &Documents,
    state: &DedupState,
    folder: &Path,
    progress: &Progress,
) -> Result<Ranks> {
    let older = documents.end_of(config.n_older);
    let protected = protected_documents(config, documents)?;
    let priorities = subset_priorities(&config.preference, &state.subsets);
    let mut sort = ExternalSort::new(folder, "ranks", config.memory);
    documents.for_each(|document, _, row| {
        let key = match &config.preference {
            Preference::First => 0,
            Preference::Longest => u64::MAX - row.n_bytes,
            Preference::Subset(_) => priorities[row.subset as usize],
        };
        let is_protected = document < older || protected.binary_search(&document).is_ok();
        let record = u128::from(key) << 32 | u128::from(document);
        sort.push(u128::from(!is_protected) << 96 | record)
    })?;
    let mut ranks = Ranks {
        of_document: vec![0; documents.len() as usize],
        documents: Vec::with_capacity(documents.len() as usize),
        n_protected: older
            + protected
                .iter()
                .filter(|document| **document >= older)
                .count() as u32,
    };
    sort.for_each(progress, |record| {
        let document = record as u32;
        ranks.of_document[document as usize] = ranks.documents.len() as u32;
        ranks.documents.push(document);
        Ok(())
    })?;
    Ok(ranks)
}

/// The protected documents, ascending and distinct.
fn protected_documents(config: &DedupConfig, documents: &Documents) -> Result<Vec<u32>> {
    let document = |at: &super::RecordNumber| {
        let found = documents.of_record(*at);
        found.ok_or_else(|| at.no_document(&config.shards))
    };
    let mut protected = config
        .protected
        .iter()
        .map(document)
        .collect::<Result<Vec<_>>>()?;
    let texts = config.protected_texts.iter();
    let hashes: FxHashSet<u128> = texts
        .map(|text| text_hash(&normalized(text, config.normalization)))
        .collect();
    if !hashes.is_empty() {
        documents.for_each(|document, _, row| {
            if hashes.contains(&row.hash) {
                protected.push(document);
            }
            Ok(())
        })?;
    }
    protected.sort_unstable();
    protected.dedup();
    Ok(protected)
}

/// The key of each subset of the state, by which its documents are ranked.
fn subset_priorities(preference: &Preference, subsets: &[Option<String>]) -> Vec<u64> {
    let Preference::Subset(names) = preference else {
        return Vec::new();
    };
    let priority = |subset: &Option<String>| {
        let index = names.iter().position(|name| Some(name) == subset.as_ref());
        index.unwrap_or(names.len()) as u64
    };
    subsets.iter().map(priority).collect()
}
