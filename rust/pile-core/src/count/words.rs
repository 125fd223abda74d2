//! Counts the n-grams of words of shards, in bounded memory.
//!
//! **Words are separated by white space, as in Python's `str.split()`.** An n-gram is consecutive words of a
//! document, and its key is these words joined by single spaces. Each thread counts in a table, which holds the
//! words that the thread has read. A full table becomes sorted runs on disk, and the runs are merged.

use std::{hash::Hasher, ops::Range, path::PathBuf, sync::Mutex};

use rustc_hash::FxHasher;
use serde::{Deserialize, Serialize};

use super::{
    ngrams::NgramConfig,
    retained::{LengthSummary, NgramRetainer, NgramSink},
    runs,
    spill::{FinishedInput, PendingRuns, Spill},
    subsets::{GroupName, Subsets, sort_groups},
};
use crate::{
    Error, Result,
    bytes::sortable_prefix,
    progress::Progress,
    read::{Block, Rules, Step, map_blocks},
    text::{case_folding, words::words},
};

/// Maximum words of an n-gram.
pub const MAX_WORDS: usize = 64;

/// Maximum bytes of the text of a table, as offsets in it are `u32`.
const MAX_TEXT_BYTES: usize = if cfg!(test) {
    1 << 12
} else {
    u32::MAX as usize
};

/// Upper bound on the bytes of a document's text in a table, per byte of the document. Simple case folding lengthens
/// some characters from two bytes to three, none by more, and one space is added at the end. A loose bound: the limit
/// on a document is then 1 GiB, which is easy to state.
const MAX_GROWTH: usize = 4;

/// Words of a document that a table takes before it is spilled within the document. More than the longest n-gram has, so
/// that a run has new n-grams, however little memory there is.
const WORDS_BETWEEN_CHECKS: usize = if cfg!(test) { 2 * MAX_WORDS } else { 1 << 10 };

/// The configuration of a job that counts n-grams of words.
#[derive(Debug, Clone)]
pub struct WordsConfig {
    /// The lengths, retention, memory, threads and scratch folder.
    pub counting: NgramConfig,
    /// The shards. `-` is standard input.
    pub shards: Vec<PathBuf>,
    /// How they are read.
    pub rules: Rules,
    /// Whether words that differ in case only count as one.
    pub ignore_case: bool,
    /// Whether n-grams are also counted by subset.
    pub by_subset: bool,
}

/// What was read and counted.
#[derive(Debug, Serialize)]
pub struct WordsSummary {
    /// Documents, empty ones included.
    pub n_documents: u64,
    /// Bad records that were skipped.
    pub n_bad_records: u64,
    /// SHA-256 of each shard, in order.
    pub shards: Vec<String>,
    /// Statistics of all n-grams of each length.
    pub lengths: Vec<LengthSummary>,
    /// The groups, in the order of [`Ngram::by_group`](super::Ngram::by_group).
    pub groups: Vec<GroupName>,
}

/// A slot of the hash table. It is empty if `count` is 0.
#[derive(Debug, Clone, Copy, Default)]
struct NgramSlot {
    hash: u32,
    /// The first occurrence of the n-gram in the table's text.
    start: u32,
    length: u32,
    /// Less than the bytes of the table's text, so that it does not overflow.
    count: u32,
    group: u16,
    /// Words of the n-gram. At most [`MAX_WORDS`].
    n: u16,
}

/// The start of a word of the current document.
struct WordStart {
    /// Offset in the table's text.
    offset: u32,
    /// The hash of the document's words before this one.
    hash_before: u64,
}

/// The counts of a thread since its last run, and the words that n-grams to come begin with.
struct WordTable<'a> {
    /// Words of the n-grams, ascending.
    lengths: &'a [usize],
    max_bytes: usize,
    ignore_case: bool,
    /// The words of all documents, with a space after each.
    text: Vec<u8>,
    /// Bytes at the start of the text that are of the last run.
    n_kept: usize,
    /// The words of the current document, without those that no n-gram to come begins with.
    words: Vec<WordStart>,
    /// A hash table with linear probing. At least a third of the slots are empty, so probing ends.
    slots: Vec<NgramSlot>,
    n_used: usize,
}

/// The base of the polynomial hash of words. It is odd, so that multiplying by it loses no bits.
const BASE: u64 = 0x9E37_79B9_7F4A_7C15;

fn hash_word(word: &[u8]) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(word);
    hasher.finish()
}

impl<'a> WordTable<'a> {
    fn new(lengths: &'a [usize], max_bytes: usize, ignore_case: bool) -> Self {
        Self {
            lengths,
            max_bytes,
            ignore_case,
            text: Vec::new(),
            n_kept: 0,
            words: Vec::new(),
            slots: vec![NgramSlot::default(); 1 << 10],
            n_used: 0,
        }
    }

    /// Whether the table has to be spilled to keep its memory limit.
    fn is_full(&self) -> bool {
        // While the table grows, the old slots are in memory too: half as many bytes as the new ones. Spilling
        // sorts an array with 16 bytes for each used slot.
        let slots = self.slots.len() * size_of::<NgramSlot>() * 3 / 2;
        let text = self.text.len() - self.n_kept + self.words.len() * size_of::<WordStart>();
        text + slots + self.n_used * 16 > self.max_bytes
    }

    /// Whether the words of `document` can be added to the text.
    fn has_space_for(&self, document: &str) -> bool {
        self.text.len() + MAX_GROWTH * document.len() <= MAX_TEXT_BYTES
    }

    /// Counts the n-grams of a document, and calls `spill` when the table is full, within the document too: it has
    /// many times as many bytes of n-grams as of text. The table must have space for it.
    fn add(
        &mut self,
        document: &str,
        group: u16,
        mut spill: impl FnMut(&mut Self) -> Result<()>,
    ) -> Result<()> {
        let mut hash = 0_u64;
        for word in words(document) {
            let start = self.text.len();
            match self.ignore_case {
                true => case_folding::put_folded(&mut self.text, word),
                false => self.text.extend_from_slice(word.as_bytes()),
            }
            self.words.push(WordStart {
                offset: start as u32,
                hash_before: hash,
            });
            // The words are the digits of a number in base `BASE`. No digit is 0, so that each word changes the
            // hash.
            hash = hash
                .wrapping_mul(BASE)
                .wrapping_add(hash_word(&self.text[start..]) | 1);
            self.count_last_ngrams(hash, group);
            self.text.push(b' ');
            if self.words.len() >= WORDS_BETWEEN_CHECKS && self.is_full() {
                spill(self)?;
            }
        }
        self.words.clear();
        if self.is_full() {
            spill(self)?;
        }
        Ok(())
    }

    /// Counts the n-grams that end at the end of the text. `hash` is that of all words of the document so far.
    fn count_last_ngrams(&mut self, hash: u64, group: u16) {
        let (mut power, mut exponent) = (1_u64, 0);
        for n in self.lengths {
            let Some(first) = self.words.len().checked_sub(*n) else {
                // The lengths ascend: the document is too short for the others too.
                return;
            };
            while exponent < *n {
                power = power.wrapping_mul(BASE);
                exponent += 1;
            }
            let WordStart {
                offset,
                hash_before,
            } = self.words[first];
            // Removes the words before the n-gram from the hash.
            let hash = hash.wrapping_sub(hash_before.wrapping_mul(power));
            // Mixes in the group, and moves the mixed bits to the low end. The multiplier is any odd number.
            let hash = hash ^ u64::from(group).wrapping_mul(0xD6E8_FEB8_6659_FD93);
            let hash = (hash ^ (hash >> 32)).wrapping_mul(BASE) >> 32;
            self.count(NgramSlot {
                hash: hash as u32,
                start: offset,
                length: self.text.len() as u32 - offset,
                count: 1,
                group,
                n: *n as u16,
            });
        }
    }

    /// Counts one occurrence of an n-gram.
    fn count(&mut self, ngram: NgramSlot) {
        let mask = self.slots.len() - 1;
        let mut index = ngram.hash as usize & mask;
        loop {
            let slot = self.slots[index];
            if slot.count == 0 {
                break;
            }
            let may_be_equal = (slot.hash, slot.length, slot.group, slot.n)
                == (ngram.hash, ngram.length, ngram.group, ngram.n);
            if may_be_equal && self.key(&slot) == self.key(&ngram) {
                self.slots[index].count += 1;
                return;
            }
            index = (index + 1) & mask;
        }
        self.slots[index] = ngram;
        self.n_used += 1;
        if self.n_used * 3 > self.slots.len() * 2 {
            self.grow();
        }
    }

    fn key(&self, slot: &NgramSlot) -> &[u8] {
        &self.text[slot.start as usize..][..slot.length as usize]
    }

    /// Doubles the slots.
    fn grow(&mut self) {
        let mask = self.slots.len() * 2 - 1;
        let old = std::mem::replace(&mut self.slots, vec![NgramSlot::default(); mask + 1]);
        for slot in old.into_iter().filter(|slot| slot.count > 0) {
            let mut index = slot.hash as usize & mask;
            while self.slots[index].count > 0 {
                index = (index + 1) & mask;
            }
            self.slots[index] = slot;
        }
    }

    /// Removes all counts, and the text but for the words with which n-grams of the current document may begin.
    fn clear(&mut self) {
        let n_words = self.lengths.last().map_or(0, |longest| longest - 1);
        self.words.drain(..self.words.len().saturating_sub(n_words));
        let start = self
            .words
            .first()
            .map_or(self.text.len(), |word| word.offset as usize);
        for word in &mut self.words {
            word.offset -= start as u32;
        }
        *self = Self {
            n_kept: self.text.len() - start,
            text: self.text[start..].to_vec(),
            words: std::mem::take(&mut self.words),
            ..Self::new(self.lengths, self.max_bytes, self.ignore_case)
        };
    }

    /// Writes a run of the n-grams of each length, and clears the table.
    fn spill(&mut self, spill: &Spill, pending: &Mutex<PendingRuns>) -> Result<()> {
        for n in self.lengths {
            // The first bytes of each key, and the index of its slot.
            let mut order: Vec<(u64, usize)> = Vec::new();
            for (index, slot) in self.slots.iter().enumerate() {
                if slot.count > 0 && usize::from(slot.n) == *n {
                    order.push((sortable_prefix(self.key(slot)), index));
                }
            }
            order.sort_unstable_by(|a, b| {
                let (slot_a, slot_b) = (&self.slots[a.1], &self.slots[b.1]);
                let by_key = || self.key(slot_a).cmp(self.key(slot_b));
                a.0.cmp(&b.0)
                    .then_with(by_key)
                    .then(slot_a.group.cmp(&slot_b.group))
            });
            if order.is_empty() {
                continue;
            }
            spill.write(pending, *n, |run| {
                let mut record = Vec::new();
                for (_, index) in &order {
                    let slot = &self.slots[*index];
                    let (group, count) = (u32::from(slot.group), u64::from(slot.count));
                    record.clear();
                    runs::put_record(&mut record, self.key(slot), group, count);
                    run.append(&record)?;
                }
                Ok(())
            })?;
        }
        self.clear();
        Ok(())
    }
}

/// The state of a job after some of its shards, which is saved with their runs.
#[derive(Default, Serialize, Deserialize)]
struct WordsCheckpoint {
    n_documents: u64,
    n_bad_records: u64,
    /// SHA-256 of each shard that was read.
    hashes: Vec<String>,
    /// The names of the subsets, by the group number in the runs.
    subsets: Vec<GroupName>,
}

/// Counts the n-grams of words of all documents, and passes the retained ones to the sink that `sink` creates from
/// the names of the groups.
///
/// Shards are read in batches. After a batch, all tables are spilled and the state is saved, so that a job that is
/// killed resumes after its last batch. `progress` advances by compressed bytes.
///
/// # Errors
/// No length, or one that is 0 or above [`MAX_WORDS`]; a shard that cannot be read; a document of 1 GiB or more;
/// more than 65,536 subsets; too little disk; an error of the sink; or a stop.
pub fn count_words<'a>(
    config: &WordsConfig,
    progress: &Progress,
    sink: impl FnOnce(&[GroupName]) -> Result<Box<dyn NgramSink + 'a>>,
) -> Result<WordsSummary> {
    let counting = &config.counting;
    let is_valid = |n: &usize| (1..=MAX_WORDS).contains(n);
    if counting.lengths.is_empty() || !counting.lengths.iter().all(is_valid) {
        let lengths = &counting.lengths;
        let what = format!("n-grams of words have 1 to {MAX_WORDS} words, got {lengths:?}");
        return Err(Error::argument(what));
    }
    let mut spill = Spill::open(
        &counting.folder,
        &counting.job,
        counting.discard,
        counting.spill_limits(),
        progress,
    )?;
    spill.declare_inputs(&config.shards);
    let mut checkpoint: WordsCheckpoint = match spill.job_state() {
        [json] => serde_json::from_str(json)
            .map_err(|err| Error::malformed(&spill.path("state.json"), err.to_string()))?,
        _ => WordsCheckpoint::default(),
    };
    let sizes = shard_sizes(&config.shards)?;
    let mut first = checkpoint.hashes.len();
    // Anyone may have written the state.
    if first > sizes.len() {
        let what = format!(
            "{first} shards are finished, but the job has {}",
            sizes.len()
        );
        return Err(Error::malformed(&spill.path("state.json"), what));
    }
    progress.advance(sizes[..first].iter().sum())?;
    while first < config.shards.len() {
        let end = batch_end(&sizes, first, counting.memory);
        read_batch(config, first..end, &mut spill, &mut checkpoint, progress)?;
        first = end;
        // Estimates the runs of the other shards by those so far.
        let n_read: u64 = sizes[..end].iter().sum();
        let n_unread: u64 = sizes[end..].iter().sum();
        let n_spilled: u64 = counting.lengths.iter().map(|n| spill.n_bytes(*n)).sum();
        let more_bytes = n_spilled as f64 * n_unread as f64 / n_read.max(1) as f64;
        spill.check_disk_space(more_bytes as u64)?;
    }
    let groups = sort_groups(&checkpoint.subsets, config.by_subset);
    let mut sink = sink(&groups.names)?;
    let mut lengths = Vec::new();
    for n in &counting.lengths {
        let n_groups = groups.names.len();
        let mut retainer = NgramRetainer::new(*n, n_groups, counting.retention, &mut *sink);
        spill.merge(*n, groups.indices.len(), |key, group, count| {
            retainer.add(key, groups.indices[group as usize], count)
        })?;
        lengths.push(retainer.finish()?);
    }
    sink.finish()?;
    Ok(WordsSummary {
        n_documents: checkpoint.n_documents,
        n_bad_records: checkpoint.n_bad_records,
        shards: checkpoint.hashes,
        lengths,
        groups: groups.names,
    })
}

/// Bytes of each shard on disk; 0 for standard input.
fn shard_sizes(shards: &[PathBuf]) -> Result<Vec<u64>> {
    let size = |path: &PathBuf| match path.as_os_str() == "-" {
        true => Ok(0),
        false => std::fs::metadata(path)
            .map(|found| found.len())
            .map_err(|err| Error::io(path, err)),
    };
    shards.iter().map(size).collect()
}

/// The end of the batch that starts with shard `first`: one shard, or several that have at most a quarter of the
/// memory's bytes on disk. Text is often compressed to a quarter or third, so theirs is about as large as the memory:
/// the tables are well filled when the batch ends and they are spilled.
fn batch_end(sizes: &[u64], first: usize, memory: u64) -> usize {
    let (mut end, mut n_bytes) = (first, 0);
    while end < sizes.len() && (end == first || n_bytes + sizes[end] <= memory / 4) {
        n_bytes += sizes[end];
        end += 1;
    }
    end
}

/// Reads a batch of shards, writes its runs and saves the state.
fn read_batch(
    config: &WordsConfig,
    batch: Range<usize>,
    spill: &mut Spill,
    checkpoint: &mut WordsCheckpoint,
    progress: &Progress,
) -> Result<()> {
    let counting = &config.counting;
    let n_threads = counting.n_threads.max(1);
    // A quarter of the memory is not for tables: it is for blocks in flight, the words of the current documents and the
    // spare capacity of the texts.
    let max_bytes = (counting.memory as usize * 3 / 4) / n_threads;
    let tables = (0..n_threads)
        .map(|_| WordTable::new(&counting.lengths, max_bytes, config.ignore_case))
        .collect();
    let subsets = Subsets::new(config.by_subset, &checkpoint.subsets)?;
    let pending = spill.begin();
    let count_block = |table: &mut WordTable<'_>, block: &Block| {
        let mut n_documents = 0;
        let bad = block.each_document(|_, document| {
            let group = subsets.group(document.subset.as_deref(), block.shard_path())?;
            if !table.has_space_for(&document.text) {
                table.spill(spill, &pending)?;
            }
            if !table.has_space_for(&document.text) {
                let what = format!(
                    "a document has {} bytes of text: words are counted in documents of at most {} bytes",
                    document.text.len(),
                    MAX_TEXT_BYTES / MAX_GROWTH
                );
                return Err(Error::malformed(block.shard_path(), what));
            }
            table.add(&document.text, group, |table| table.spill(spill, &pending))?;
            n_documents += 1;
            Ok(())
        })?;
        Ok((n_documents, bad.n))
    };
    let mut tables = map_blocks(
        &config.shards[..batch.end],
        &config.rules,
        batch.start,
        tables,
        progress,
        count_block,
        |step| {
            match step {
                Step::Block((n_documents, n_bad_records)) => {
                    checkpoint.n_documents += n_documents;
                    checkpoint.n_bad_records += n_bad_records;
                }
                Step::EndOfShard(_, summary) => checkpoint.hashes.push(summary.sha256),
            }
            Ok(())
        },
    )?;
    for table in &mut tables {
        table.spill(spill, &pending)?;
    }
    drop(tables);
    for number in batch.clone() {
        spill.use_input(&config.shards[number], &checkpoint.hashes[number]);
    }
    checkpoint.subsets = subsets.into_names();
    let json = serde_json::to_string(&checkpoint)
        .map_err(|err| Error::malformed(&counting.folder, err.to_string()))?;
    let finished = FinishedInput {
        what: "shards".to_owned(),
        end: batch.end as u64,
    };
    spill.finish_input(pending, finished, vec![json])
}

#[cfg(test)]
mod tests;
