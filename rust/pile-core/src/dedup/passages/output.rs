//! Step 5: unites the ranges, trims them to characters, and writes a row for each passage.

use super::{
    PassagesConfig,
    documents::DocumentPositions,
    ranges::{RangeUnion, RepeatedRange},
    records::merge,
    repeated::damaged,
    store::{FinishedStep, RunKind, Store},
    units::TextBorders,
};
use crate::{Result, progress::Progress};

/// The columns of passages, each a file of little-endian numbers, and the bytes of a number.
///
/// Starts and ends are byte offsets in the texts of documents: the repeated bytes, trimmed inwards by `trimmed_start`
/// and `trimmed_end` bytes to borders of characters (0 for tokens, whose bytes are not counted). `copy_start` is where the bytes from `start` on begin in an earlier
/// copy, of at least one window.
pub const PASSAGE_COLUMNS: [(&str, usize); 11] = [
    ("document", 8),
    ("shard", 4),
    ("record", 8),
    ("start", 8),
    ("end", 8),
    ("trimmed_start", 1),
    ("trimmed_end", 1),
    ("copy_document", 8),
    ("copy_shard", 4),
    ("copy_record", 8),
    ("copy_start", 8),
];

/// Assigns ranges to documents and shards. Ranges come in ascending order.
struct PassageRows<'a> {
    store: &'a Store,
    documents: DocumentPositions,
    borders: Option<TextBorders<'a>>,
    /// Shards and records of protected documents, ascending.
    protected: Vec<(usize, u64)>,
    /// For each subset, the bytes in passages.
    n_repeated_bytes: Vec<u64>,
    n_passages: u64,
}

impl PassageRows<'_> {
    /// The numbers of a passage, or `None` if its document is protected, or no character of it is repeated whole.
    fn row(&mut self, range: RepeatedRange) -> Result<Option<[u64; 11]>> {
        let document = self.documents.at_position(range.start);
        if document >= self.documents.len() {
            return Err(damaged(self.store));
        }
        let row = self.documents.row(document);
        let shards = &self.store.state.shards;
        let shard = DocumentPositions::shard_of(shards, document);
        if row.is_protected || self.protected.binary_search(&(shard, row.record)).is_ok() {
            return Ok(None);
        }
        let (at_start, at_end) = (u64::from(range.trim.at_start), u64::from(range.trim.at_end));
        let copy_document = self.documents.at_position(range.copy);
        let copy = self.documents.row(copy_document);
        if range.end - row.position > row.length {
            return Err(damaged(self.store));
        }
        let (start, end, copy_start) = match &self.borders {
            None => (
                range.start - row.position + at_start,
                range.end - row.position - at_end,
                range.copy - copy.position + at_start,
            ),
            Some(borders) => {
                let (first, start) = borders.first(range.start..)?;
                let (_, end) = borders.first((row.position..=range.end).rev())?;
                let (_, copy_start) = borders.first(range.copy + (first - range.start)..)?;
                (start, end, copy_start)
            }
        };
        if start >= end {
            return Ok(None);
        }
        self.n_repeated_bytes[row.subset as usize] += end - start;
        self.n_passages += 1;
        Ok(Some([
            document as u64,
            shard as u64,
            row.record,
            start,
            end,
            at_start,
            at_end,
            copy_document as u64,
            DocumentPositions::shard_of(shards, copy_document) as u64,
            copy.record,
            copy_start,
        ]))
    }
}

pub(super) fn write_passages(
    config: &PassagesConfig,
    store: &mut Store,
    progress: &Progress,
) -> Result<()> {
    let runs = store.runs_to_merge(RunKind::Ranges, progress)?;
    let mut files = PASSAGE_COLUMNS
        .iter()
        .map(|(name, _)| store.scratch.grow(name))
        .collect::<Result<Vec<_>>>()?;
    let protected = config.protected.iter().map(|at| (at.shard, at.record));
    let mut protected: Vec<_> = protected.collect();
    protected.sort_unstable();
    let mut rows = PassageRows {
        documents: DocumentPositions::open(store)?,
        borders: TextBorders::open(store)?,
        protected,
        n_repeated_bytes: vec![0; store.state.subsets.len()],
        n_passages: 0,
        store,
    };
    let mut union = RangeUnion::new(|range| {
        for (number, (file, (_, width))) in rows
            .row(range)?
            .iter()
            .flatten()
            .zip(files.iter_mut().zip(PASSAGE_COLUMNS))
        {
            file.push(&number.to_le_bytes()[..width])?;
        }
        Ok(())
    });
    merge(&runs, store.buffer_bytes(), progress, |record| {
        union.add(RepeatedRange::from_record(record).ok_or_else(|| damaged(store))?)
    })?;
    union.finish()?;
    let PassageRows {
        n_repeated_bytes,
        n_passages,
        ..
    } = rows;
    for file in &mut files {
        file.finish(&mut store.scratch)?;
    }
    for (subset, n) in store.state.subsets.iter_mut().zip(n_repeated_bytes) {
        subset.n_repeated_bytes = n;
    }
    store.state.n_passages = n_passages;
    store.finish_step(FinishedStep::Passages, &[RunKind::Ranges], None)
}
