//! Step 5: unites the ranges, trims them to characters, and writes a row for each passage.

use super::{
    documents::Documents,
    ranges::{RangeUnion, RepeatedRange},
    records::merge,
    repeated::{STOP_INTERVAL, damaged},
    store::{FinishedStep, RunKind, Store, row_bytes},
};
use crate::{Result, progress::Progress};

/// The file of passages: little-endian numbers, in the order of [`PASSAGE_COLUMNS`].
pub(super) const PASSAGES: &str = "passages";

/// The columns of the file of passages.
///
/// Starts and ends are byte offsets in the texts of documents. `start` and `end` are `raw_start` and `raw_end`, trimmed
/// inwards to borders of characters. `copy_start` is where the bytes from `start` on begin in an earlier copy, of at
/// least one window.
pub const PASSAGE_COLUMNS: [&str; 9] = [
    "document",
    "shard",
    "record",
    "start",
    "end",
    "raw_start",
    "raw_end",
    "copy_document",
    "copy_start",
];

/// Assigns ranges to documents and shards. Ranges come in ascending order.
struct PassageRows<'a> {
    store: &'a Store,
    documents: Documents,
    document: usize,
    shard: usize,
    /// For each subset, the bytes in passages.
    n_repeated_bytes: Vec<u64>,
    n_passages: u64,
}

impl PassageRows<'_> {
    fn row(&mut self, range: RepeatedRange) -> Result<[u64; 9]> {
        self.document = self.documents.at_position(range.start);
        if self.document >= self.documents.len() {
            return Err(damaged(self.store));
        }
        let row = self.documents.row(self.document);
        let shards = &self.store.state.shards;
        while shards[self.shard].end_document <= self.document as u64 {
            self.shard += 1;
        }
        let (at_start, at_end) = (u64::from(range.trim.at_start), u64::from(range.trim.at_end));
        let copy_document = self.documents.at_position(range.copy);
        let copy = range.copy - self.documents.row(copy_document).position;
        let (raw_start, raw_end) = (range.start - row.position, range.end - row.position);
        if raw_end > row.length {
            return Err(damaged(self.store));
        }
        let (start, end) = (raw_start + at_start, raw_end - at_end);
        self.n_repeated_bytes[row.subset as usize] += end - start;
        self.n_passages += 1;
        Ok([
            self.document as u64,
            self.shard as u64,
            row.record,
            start,
            end,
            raw_start,
            raw_end,
            copy_document as u64,
            copy + at_start,
        ])
    }
}

pub(super) fn write_passages(store: &mut Store, progress: &Progress) -> Result<()> {
    let runs = store.runs_to_merge(RunKind::Ranges)?;
    let mut file = store.scratch.grow(PASSAGES)?;
    let mut rows = PassageRows {
        documents: Documents::open(store)?,
        document: 0,
        shard: 0,
        n_repeated_bytes: vec![0; store.state.subsets.len()],
        n_passages: 0,
        store,
    };
    let mut union = RangeUnion::new(|range| file.push(&row_bytes(rows.row(range)?)));
    let mut n_merged = 0;
    merge(&runs, store.buffer_bytes(), |record| {
        n_merged += 1;
        if n_merged % STOP_INTERVAL == 0 {
            progress.advance(0)?;
        }
        union.add(RepeatedRange::from_record(record).ok_or_else(|| damaged(store))?)
    })?;
    union.finish()?;
    let PassageRows {
        n_repeated_bytes,
        n_passages,
        ..
    } = rows;
    file.finish(&mut store.scratch)?;
    for (subset, n) in store.state.subsets.iter_mut().zip(n_repeated_bytes) {
        subset.n_repeated_bytes = n;
    }
    store.state.n_passages = n_passages;
    store.finish_step(FinishedStep::Passages, &[RunKind::Ranges], None)
}
