//! Step 3: reads the shards with repeated anchors again, and writes the context of each such anchor.
//!
//! The context is the text of the anchor's windows, from the start of the first to the end of the last. A record has
//! the anchor's hash, its offset in the context, the length of the context (four bytes each number, eight the hash),
//! the context, and the position of its first unit. So anchors with equal contexts follow each other, in reading
//! order.

use super::{
    PassagesConfig,
    anchors::{AnchorScanner, WindowShape},
    documents::DocumentPositions,
    records::RecordBuffer,
    repeated::REPEATED,
    scan::split_record,
    store::{FinishedStep, Rows, RunKind, Store},
    units::{Unit, UnitSplitter},
};
use crate::{
    Error, Result,
    progress::Progress,
    read::{Block, Step, map_blocks},
};

/// Bytes before the context in a record.
pub(super) const HEADER_BYTES: usize = 16;

/// The context of an anchor as in its record.
pub(super) struct ContextRecord<'a> {
    pub(super) hash: u64,
    /// The header and the context. Anchors with equal windows have equal keys.
    pub(super) key: &'a [u8],
    /// The bytes of the context's units.
    pub(super) text: &'a [u8],
    pub(super) position: u64,
}

impl<'a> ContextRecord<'a> {
    /// Parses a record; `None` if its lengths are wrong.
    pub(super) fn parse(record: &'a [u8]) -> Option<Self> {
        let (key, position) = record.split_last_chunk()?;
        let (hash, _) = record.split_first_chunk()?;
        Some(Self {
            hash: u64::from_be_bytes(*hash),
            key,
            text: key.get(HEADER_BYTES..)?,
            position: u64::from_be_bytes(*position),
        })
    }
}

/// Records one after the other.
#[derive(Default)]
struct ContextBatch {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

/// What the workers read.
struct ContextScan<'a> {
    config: &'a PassagesConfig,
    documents: DocumentPositions,
    repeated: Rows<1>,
    shape: WindowShape,
}

impl ContextScan<'_> {
    /// The indices of the repeated anchors at these positions.
    fn repeated_within(&self, positions: std::ops::Range<u64>) -> std::ops::Range<usize> {
        let first = |position| {
            let is_before = |[at]: [u64; 1]| at < position;
            self.repeated
                .partition_point(0, self.repeated.len(), is_before)
        };
        first(positions.start)..first(positions.end)
    }

    /// The units of all windows with one of the anchors, in a document of `n_units` units.
    fn stretches(
        &self,
        anchors: &std::ops::Range<usize>,
        document_position: u64,
        n_units: usize,
    ) -> Vec<std::ops::Range<usize>> {
        let length = self.config.length;
        let mut stretches: Vec<std::ops::Range<usize>> = Vec::new();
        for index in anchors.clone() {
            let [position] = self.repeated.row(index);
            let offset = (position - document_position) as usize;
            let start = offset.saturating_sub(length - self.shape.anchor_length);
            let end = (offset + length).min(n_units);
            match stretches.last_mut() {
                Some(last) if start <= last.end => last.end = end,
                _ => stretches.push(start..end),
            }
        }
        stretches
    }

    fn scan_block<S: UnitSplitter>(
        &self,
        (splitter, scanner): &mut (S, AnchorScanner),
        block: &Block,
        shard: std::ops::Range<usize>,
    ) -> Result<ContextBatch> {
        let mut batch = ContextBatch::default();
        block.each_document(|at, document| {
            let text = split_record(splitter, block, at, &document.text)?;
            let row = self.documents.with_record(shard.clone(), at.record);
            let Some(row) = row.filter(|row| row.length == text.len() as u64) else {
                return Err(changed(block.shard_path()));
            };
            let mut repeated = self.repeated_within(row.position..row.position + text.len() as u64);
            if repeated.is_empty() {
                return Ok(());
            }
            for stretch in self.stretches(&repeated, row.position, text.len()) {
                scanner.each(&text[stretch.clone()], |anchor| {
                    let position = row.position + (stretch.start + anchor.offset) as u64;
                    if repeated.is_empty() || self.repeated.row(repeated.start) != [position] {
                        return;
                    }
                    repeated.start += 1;
                    let first = stretch.start + anchor.first;
                    let context = &text[first..stretch.start + anchor.last + self.config.length];
                    let offset = (anchor.offset - anchor.first) as u32;
                    let bytes = &mut batch.bytes;
                    bytes.extend_from_slice(&anchor.hash.to_be_bytes());
                    bytes.extend_from_slice(&offset.to_be_bytes());
                    bytes.extend_from_slice(&(context.len() as u32).to_be_bytes());
                    S::Unit::write(context, bytes);
                    bytes.extend_from_slice(&(row.position + first as u64).to_be_bytes());
                    batch.ends.push(bytes.len());
                });
            }
            match repeated.is_empty() {
                true => Ok(()),
                false => Err(changed(block.shard_path())),
            }
        })?;
        Ok(batch)
    }
}

fn changed(path: &std::path::Path) -> Error {
    let what = "changed since it was first read; run the command again";
    Error::malformed(path, what)
}

/// Writes the contexts of the shards that are not done yet.
pub(super) fn write_contexts<S: UnitSplitter>(
    config: &PassagesConfig,
    new_splitter: &impl Fn() -> S,
    store: &mut Store,
    progress: &Progress,
) -> Result<()> {
    let n_repeated =
        std::fs::metadata(store.scratch.path(REPEATED)).map_or(0, |found| found.len()) / 8;
    let shape = WindowShape::new::<S::Unit>(config.length);
    let scan = ContextScan {
        config,
        shape,
        documents: DocumentPositions::open(store)?,
        repeated: Rows::open(store, REPEATED, n_repeated)?,
    };
    let mut workers: Vec<_> = (0..config.n_threads.max(1))
        .map(|_| (new_splitter(), AnchorScanner::new(shape)))
        .collect();
    let mut contexts = RecordBuffer::new(store.memory_share(2));
    for number in store.state.n_context_shards..config.shards.len() {
        let shard = store.state.shards[number].clone();
        let before = number.checked_sub(1);
        let first_position = before.map_or(0, |before| store.state.shards[before].end_position);
        let documents = DocumentPositions::of_shard(&store.state.shards, number);
        if scan
            .repeated_within(first_position..shard.end_position)
            .is_empty()
        {
            progress.advance(shard.bytes)?;
        } else {
            workers = map_blocks(
                &config.shards[..=number],
                &config.rules,
                number,
                workers,
                progress,
                |worker, block| scan.scan_block(worker, block, documents.clone()),
                |step| match step {
                    Step::Block(batch) => {
                        let mut start = 0;
                        for end in batch.ends {
                            contexts.push(&[&batch.bytes[start..end]]);
                            start = end;
                            store.write_run_if_full(RunKind::Contexts, &mut contexts)?;
                        }
                        Ok(())
                    }
                    Step::EndOfShard(_, summary) if summary.sha256 != shard.sha256 => {
                        Err(changed(&config.shards[number]))
                    }
                    Step::EndOfShard(..) => Ok(()),
                },
            )?;
        }
        let is_last = number + 1 == config.shards.len();
        if is_last || 4 * contexts.n_bytes() >= store.memory_share(2) {
            store.write_run(RunKind::Contexts, &mut contexts)?;
            store.state.n_context_shards = number + 1;
            store.save()?;
        }
    }
    store.finish_step(FinishedStep::Contexts, &[], Some(REPEATED))
}
