//! The documents of all shards after the first pass: their rows, mapped from disk.

use std::path::Path;

use bytemuck::AnyBitPattern;

use super::{
    RecordNumber,
    sketch::{DedupState, PackedRow, SketchRow, rows_name},
};
use crate::{Error, Result, io::Mapped};

/// The documents of a shard.
struct ShardDocuments {
    /// The number of the first one.
    first: u32,
    rows: Mapped,
}

impl ShardDocuments {
    fn rows(&self) -> &[PackedRow] {
        // Maps start at a page, and the size was checked.
        bytemuck::try_cast_slice(self.rows.bytes()).unwrap_or_default()
    }
}

/// The documents of all shards, by number.
pub(super) struct Documents {
    shards: Vec<ShardDocuments>,
    n: u32,
    /// Number of subsets. Rows have smaller subset numbers.
    n_subsets: usize,
}

impl Documents {
    /// Maps the rows of the shards in the folder of a job; all must be sketched.
    pub(super) fn open(folder: &Path, state: &DedupState) -> Result<Self> {
        let mut shards = Vec::with_capacity(state.shards.len());
        let mut n = 0_u64;
        for (index, shard) in state.shards.iter().enumerate() {
            let path = folder.join(rows_name(index));
            let width = size_of::<PackedRow>() as u64;
            shards.push(ShardDocuments {
                // The first pass has checked that all numbers fit.
                first: n as u32,
                rows: Mapped::open_written(&path, shard.n_documents, width)?,
            });
            n += shard.n_documents;
        }
        let n = u32::try_from(n)
            .map_err(|_| Error::malformed(folder, "its state has too many documents"))?;
        Ok(Self {
            shards,
            n,
            n_subsets: state.subsets.len(),
        })
    }

    /// Number of documents.
    pub(super) fn len(&self) -> u32 {
        self.n
    }

    /// Number of shards.
    pub(super) fn n_shards(&self) -> usize {
        self.shards.len()
    }

    /// The number of the first document of a shard.
    pub(super) fn first(&self, shard: usize) -> u32 {
        self.shards[shard].first
    }

    /// The end of the documents of the first `n` shards.
    pub(super) fn end_of(&self, n: usize) -> u32 {
        self.shards.get(n).map_or(self.n, |shard| shard.first)
    }

    /// The shard of a document.
    pub(super) fn shard_of(&self, document: u32) -> usize {
        // Empty shards have the same first document as the next one.
        self.shards.partition_point(|shard| shard.first <= document) - 1
    }

    /// The row of a document.
    pub(super) fn row(&self, document: u32) -> SketchRow {
        let shard = &self.shards[self.shard_of(document)];
        SketchRow::unpack(shard.rows()[(document - shard.first) as usize])
    }

    /// Calls `visit` with each document and its row, in order.
    ///
    /// # Errors
    /// Those of `visit`, or a row with a subset that the job has not seen.
    pub(super) fn for_each(
        &self,
        mut visit: impl FnMut(u32, usize, SketchRow) -> Result<()>,
    ) -> Result<()> {
        for (index, shard) in self.shards.iter().enumerate() {
            for (document, row) in (shard.first..).zip(shard.rows()) {
                let row = SketchRow::unpack(*row);
                if row.subset as usize >= self.n_subsets {
                    let what = format!("subset {} of {}", row.subset, self.n_subsets);
                    return Err(Error::malformed(shard.rows.path(), what));
                }
                visit(document, index, row)?;
            }
        }
        Ok(())
    }

    /// The document of a record, if the record has one.
    pub(super) fn of_record(&self, at: RecordNumber) -> Option<u32> {
        let shard = self.shards.get(at.shard)?;
        let rows = shard.rows();
        let record = |row: &PackedRow| SketchRow::unpack(*row).record;
        let index = rows.binary_search_by_key(&at.record, record).ok()?;
        Some(shard.first + index as u32)
    }
}

/// `n` numbers of a mapped file from a byte on.
pub(super) fn numbers<T: AnyBitPattern>(file: &Mapped, start: u64, n: u64) -> Result<&[T]> {
    let bytes = file.slice(start, n.saturating_mul(size_of::<T>() as u64))?;
    if bytes.is_empty() {
        return Ok(&[]);
    }
    bytemuck::try_cast_slice(bytes)
        .map_err(|err| Error::format(file.path(), start, err.to_string()))
}
