//! Step 1: reads all shards, and writes the documents, the anchors and the ranges of periodic stretches.

use std::path::Path;

use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    PassagesConfig, RecordNumber,
    anchors::{PassageScanner, WindowShape},
    documents::{DOCUMENTS, DocumentPositions, PROTECTED},
    ranges::RepeatedRange,
    records::RecordBuffer,
    store::{FinishedStep, RunKind, ScannedShard, Store, SubsetPassages, row_bytes},
    units::{BorderFile, Unit, UnitSplitter},
};
use crate::{
    Error, Result,
    progress::Progress,
    read::{Block, Position, ShardSummary, Step, map_blocks},
    text::names::{MAX_SUBSETS, too_many_subsets},
};

/// A document of a block.
struct ScannedDocument {
    record: u64,
    n_units: u64,
    n_text_bytes: u64,
    /// Index in [`ScannedBlock::subsets`].
    subset: usize,
    is_protected: bool,
}

/// An anchor. Its position counts from the start of the block.
struct AnchorPosition {
    hash: u64,
    position: u64,
}

/// What a worker finds in a block.
#[derive(Default)]
struct ScannedBlock {
    documents: Vec<ScannedDocument>,
    subsets: Vec<Option<String>>,
    anchors: Vec<AnchorPosition>,
    /// Their positions count from the start of the block.
    ranges: Vec<RepeatedRange>,
    /// Of the texts, one after the other.
    borders: Vec<u32>,
    n_bad_records: u64,
}

impl ScannedBlock {
    fn subset(&mut self, name: Option<&str>) -> usize {
        // Documents of one subset often follow each other, and a block has few subsets.
        let known = self
            .subsets
            .iter()
            .rposition(|known| known.as_deref() == name);
        known.unwrap_or_else(|| {
            self.subsets.push(name.map(str::to_owned));
            self.subsets.len() - 1
        })
    }
}

/// The units of a record's text. An error names the record.
pub(super) fn split_record<'a, S: UnitSplitter>(
    splitter: &'a mut S,
    block: &Block,
    position: Position,
    text: &'a str,
) -> Result<&'a [S::Unit]> {
    splitter.split(text).map_err(|err| {
        let what = format!("record {}: {err}", position.record);
        Error::format(block.shard_path(), position.byte_start, what)
    })
}

fn scan_block<S: UnitSplitter>(
    (splitter, scanner): &mut (S, PassageScanner),
    block: &Block,
    config: &PassagesConfig,
    protected_texts: &FxHashSet<&str>,
) -> Result<ScannedBlock> {
    let mut scanned = ScannedBlock::default();
    let mut start = 0;
    let bad = block.each_document(|at, document| {
        let text = split_record(splitter, block, at, &document.text)?;
        let n_units = text.len() as u64;
        let subset = scanned.subset(document.subset.as_deref());
        scanned.documents.push(ScannedDocument {
            record: at.record,
            n_units,
            n_text_bytes: document.text.len() as u64,
            subset,
            is_protected: !protected_texts.is_empty() && protected_texts.contains(&*document.text),
        });
        let ScannedBlock {
            anchors, ranges, ..
        } = &mut scanned;
        scanner.each(
            text,
            |anchor| {
                anchors.push(AnchorPosition {
                    hash: anchor.hash,
                    position: start + anchor.offset as u64,
                });
            },
            |periodic| {
                let mut range = |first: usize, last: usize, copy: usize| {
                    let end = last + config.length;
                    ranges.push(RepeatedRange {
                        start: start + first as u64,
                        end: start + end as u64,
                        copy: start + copy as u64,
                        trim: S::Unit::trim(&text[first..end]),
                    });
                };
                let copy = periodic.first - periodic.distance;
                range(periodic.first, periodic.last, copy);
                if config.every_copy {
                    range(copy, periodic.last - periodic.distance, copy);
                }
            },
        );
        splitter.put_borders(&document.text, &mut scanned.borders);
        start += n_units + 1;
        Ok(())
    })?;
    scanned.n_bad_records = bad.n;
    Ok(scanned)
}

/// Collects the results of blocks in reading order.
struct Collector<'a> {
    store: &'a mut Store,
    documents: crate::io::GrowingFile,
    borders: BorderFile,
    anchors: RecordBuffer,
    ranges: RecordBuffer,
    subsets: FxHashMap<Option<String>, u64>,
    shard: ScannedShard,
    /// Shards that are read, but not in the saved state.
    unsaved: Vec<ScannedShard>,
}

impl Collector<'_> {
    fn add_block(&mut self, block: ScannedBlock, shard: &Path) -> Result<()> {
        let start = self.shard.end_position;
        let numbers: Vec<u64> = block
            .subsets
            .into_iter()
            .map(|name| self.subset_number(name, shard))
            .collect::<Result<_>>()?;
        for document in block.documents {
            let subset = numbers[document.subset];
            let flag = if document.is_protected { PROTECTED } else { 0 };
            let row = [self.shard.end_position, document.record, subset | flag];
            self.documents.push(&row_bytes(row))?;
            let total = &mut self.store.state.subsets[subset as usize];
            total.n_documents += 1;
            total.n_text_bytes += document.n_text_bytes;
            self.shard.end_document += 1;
            self.shard.end_position += document.n_units + 1;
        }
        self.borders.push(&block.borders)?;
        for anchor in block.anchors {
            let position = (start + anchor.position).to_be_bytes();
            self.anchors.push(&[&anchor.hash.to_be_bytes(), &position]);
            self.store
                .write_run_if_full(RunKind::Anchors, &mut self.anchors)?;
        }
        for mut range in block.ranges {
            range.start += start;
            range.end += start;
            range.copy += start;
            self.ranges.push(&[&range.to_record()]);
            self.store
                .write_run_if_full(RunKind::Ranges, &mut self.ranges)?;
        }
        self.shard.n_bad_records += block.n_bad_records;
        Ok(())
    }

    fn subset_number(&mut self, name: Option<String>, shard: &Path) -> Result<u64> {
        if let Some(number) = self.subsets.get(&name) {
            return Ok(*number);
        }
        let subsets = &mut self.store.state.subsets;
        // One of the names is that of no subset.
        if subsets.len() > MAX_SUBSETS {
            return Err(too_many_subsets(shard));
        }
        let number = subsets.len() as u64;
        subsets.push(SubsetPassages {
            name: name.clone(),
            ..SubsetPassages::default()
        });
        self.subsets.insert(name, number);
        Ok(number)
    }

    /// Saves the state after a shard if the buffer is half full, or after the last one: a run for each of many small
    /// shards would make the merge slow.
    fn end_shard(
        &mut self,
        number: usize,
        summary: ShardSummary,
        config: &PassagesConfig,
    ) -> Result<()> {
        let next = ScannedShard {
            bytes: 0,
            sha256: String::new(),
            n_bad_records: 0,
            ..self.shard
        };
        let mut finished = std::mem::replace(&mut self.shard, next);
        finished.bytes = summary.bytes;
        finished.sha256 = summary.sha256;
        self.unsaved.push(finished);
        let is_last = number + 1 == config.shards.len();
        if !is_last && 4 * self.anchors.n_bytes() < self.store.memory_share(2) {
            return Ok(());
        }
        self.store.write_run(RunKind::Anchors, &mut self.anchors)?;
        self.store.write_run(RunKind::Ranges, &mut self.ranges)?;
        self.documents.finish(&mut self.store.scratch)?;
        self.borders.finish(self.store)?;
        let first = number + 1 - self.unsaved.len();
        for (path, shard) in config.shards[first..].iter().zip(&self.unsaved) {
            self.store.scratch.use_input(path, &shard.sha256);
        }
        self.store.state.shards.append(&mut self.unsaved);
        self.store.save()
    }
}

/// Scans the shards that are not scanned yet.
pub(super) fn scan_shards<S: UnitSplitter>(
    config: &PassagesConfig,
    new_splitter: &impl Fn() -> S,
    store: &mut Store,
    progress: &Progress,
) -> Result<()> {
    for path in &config.shards {
        let found = std::fs::metadata(path).map_err(|err| Error::io(path, err))?;
        if !found.is_file() {
            let what = "no regular file, and passages are found by reading each shard twice";
            return Err(Error::malformed(path, what));
        }
    }
    let first = store.state.shards.len();
    let borders = BorderFile::grow(store, S::Unit::NAME)?;
    let subsets = store.state.subsets.iter().zip(0..);
    let mut collector = Collector {
        documents: store.scratch.grow(DOCUMENTS)?,
        borders,
        anchors: RecordBuffer::new(store.memory_share(2)),
        ranges: RecordBuffer::new(store.memory_share(8)),
        subsets: subsets
            .map(|(subset, n)| (subset.name.clone(), n))
            .collect(),
        shard: ScannedShard {
            bytes: 0,
            sha256: String::new(),
            n_bad_records: 0,
            end_document: store.state.n_documents(),
            end_position: store.state.end_position(),
        },
        unsaved: Vec::new(),
        store,
    };
    let shape = WindowShape::new::<S::Unit>(config.length);
    let protected_texts = config.protected_texts.iter().map(String::as_str).collect();
    let workers = (0..config.n_threads.max(1))
        .map(|_| (new_splitter(), PassageScanner::new(shape)))
        .collect();
    map_blocks(
        &config.shards,
        &config.rules,
        first,
        workers,
        progress,
        |worker, block| scan_block(worker, block, config, &protected_texts),
        |step| match step {
            Step::Block(block) => {
                let n_read = collector.store.state.shards.len() + collector.unsaved.len();
                collector.add_block(block, &config.shards[n_read])
            }
            Step::EndOfShard(number, summary) => collector.end_shard(number, summary, config),
        },
    )?;
    let Collector {
        mut documents,
        mut borders,
        store,
        ..
    } = collector;
    // Without shards, nothing has recorded the files.
    documents.finish(&mut store.scratch)?;
    borders.finish(store)?;
    check_protected(config, store)?;
    store.finish_step(FinishedStep::Anchors, &[], None)
}

/// Fails early for a protected record that is no document.
fn check_protected(config: &PassagesConfig, store: &Store) -> Result<()> {
    let (documents, shards) = (DocumentPositions::open(store)?, &store.state.shards);
    let is_document = |at: &RecordNumber| {
        let of_shard = || DocumentPositions::of_shard(shards, at.shard);
        at.shard < shards.len() && documents.with_record(of_shard(), at.record).is_some()
    };
    match config.protected.iter().find(|at| !is_document(at)) {
        Some(at) => Err(at.no_document(&config.shards)),
        None => Ok(()),
    }
}
