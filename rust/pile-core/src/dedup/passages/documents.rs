//! The positions of documents.
//!
//! The units of all texts, bytes or tokens, are numbered in reading order. After each text one position is left out,
//! so that no range continues in the next document.

use super::store::{Rows, ScannedShard, Store};
use crate::Result;

/// The file of documents: a row of position, record and subset number for each.
pub(super) const DOCUMENTS: &str = "documents";

/// The bit of the subset number that a protected document has.
pub(super) const PROTECTED: u64 = 1 << 63;

/// A document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DocumentRow {
    /// Of its first unit.
    pub(super) position: u64,
    /// Number of the record in its shard.
    pub(super) record: u64,
    pub(super) subset: u64,
    /// Whether its text is a protected one.
    pub(super) is_protected: bool,
    /// Units of its text.
    pub(super) length: u64,
}

/// All documents.
pub(super) struct DocumentPositions {
    rows: Rows<3>,
    end_position: u64,
}

impl DocumentPositions {
    pub(super) fn open(store: &Store) -> Result<Self> {
        Ok(Self {
            rows: Rows::open(store, DOCUMENTS, store.state.n_documents())?,
            end_position: store.state.end_position(),
        })
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn row(&self, document: usize) -> DocumentRow {
        let [position, record, subset] = self.rows.row(document);
        let end = match document + 1 < self.rows.len() {
            true => self.rows.row(document + 1)[0],
            false => self.end_position,
        };
        DocumentRow {
            position,
            record,
            subset: subset & !PROTECTED,
            is_protected: subset & PROTECTED != 0,
            length: end.saturating_sub(position + 1),
        }
    }

    /// The document with a unit of this position.
    pub(super) fn at_position(&self, position: u64) -> usize {
        let is_before = |[start, _, _]: [u64; 3]| start <= position;
        let after = self.rows.partition_point(0, self.rows.len(), is_before);
        after.saturating_sub(1)
    }

    /// The document of a record of the shard whose documents are these.
    pub(super) fn with_record(
        &self,
        shard: std::ops::Range<usize>,
        record: u64,
    ) -> Option<DocumentRow> {
        let is_before = |[_, of_row, _]: [u64; 3]| of_row < record;
        let found = self.rows.partition_point(shard.start, shard.end, is_before);
        let row = (found < shard.end).then(|| self.row(found))?;
        (row.record == record).then_some(row)
    }

    /// The number of a document's shard.
    pub(super) fn shard_of(shards: &[ScannedShard], document: usize) -> usize {
        shards.partition_point(|shard| shard.end_document <= document as u64)
    }

    /// The documents of a shard.
    pub(super) fn of_shard(shards: &[ScannedShard], shard: usize) -> std::ops::Range<usize> {
        let start = shard
            .checked_sub(1)
            .map_or(0, |before| shards[before].end_document);
        start as usize..shards[shard].end_document as usize
    }
}
