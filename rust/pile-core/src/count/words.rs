//! Counts the n-grams of words of shards, in bounded memory.
//!
//! **Words are what stands between white space, as Python's `str.split()` cuts a text**; an n-gram is words
//! that follow each other in a document, and its key is these with one space between. Each thread keeps the
//! words it reads and a table of places in them; a table that is full becomes a sorted run.

use std::{
    collections::BTreeMap,
    hash::Hasher,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use rustc_hash::{FxHashMap, FxHasher};
use serde::Serialize;

use super::{
    fold,
    kept::{GramSink, Keeper, LengthSummary},
    ngrams::NgramConfig,
    runs,
    spill::{Making, Spill},
};
use crate::{
    Error, Result,
    progress::Progress,
    read::{Block, Rules, Step, map_blocks},
};

/// Words of an n-gram at most.
pub const MAX_WORDS: usize = 64;

/// A table is never larger than places in it can tell.
const MAX_TEXT: usize = 3 << 30;

/// Whether Python's `str.split()` cuts a text at this character.
#[must_use]
pub fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// The words of a text.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_space).filter(|word| !word.is_empty())
}

/// Which words are counted, and how.
#[derive(Debug, Clone)]
pub struct WordsConfig {
    /// Lengths, what is kept, memory and folder.
    pub counting: NgramConfig,
    /// The shards.
    pub shards: Vec<PathBuf>,
    /// How they are read.
    pub rules: Rules,
    /// Whether words that differ in case only are one.
    pub ignore_case: bool,
    /// Whether counts are told apart by subset.
    pub by_subset: bool,
}

/// What was read and counted.
#[derive(Debug, Serialize)]
pub struct WordsSummary {
    /// Documents, empty ones included.
    pub n_documents: u64,
    /// Bad records that were left out.
    pub n_bad_records: u64,
    /// SHA-256 of each shard, in order.
    pub shards: Vec<String>,
    /// All n-grams, by length.
    pub lengths: Vec<LengthSummary>,
    /// The subsets in the order of the counts; one name for all where they are not told apart.
    pub groups: Vec<String>,
}

/// The name of documents without a subset.
pub const UNKNOWN: &str = "unknown";

/// An n-gram of a table.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    hash: u32,
    start: u32,
    length: u32,
    count: u32,
    group: u16,
    /// Words.
    n: u16,
}

/// What a thread has counted since its last run.
struct Table<'a> {
    lengths: &'a [usize],
    most_bytes: usize,
    ignore_case: bool,
    text: Vec<u8>,
    /// Where each word of the document starts, and the hash of the words before it.
    words: Vec<(u32, u64)>,
    slots: Vec<Slot>,
    n_used: usize,
    group: u16,
}

/// An odd number with bits all over: hashes of words are the digits of a number to this base.
const BASE: u64 = 0x9E37_79B9_7F4A_7C15;

fn hash_of(word: &[u8]) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(word);
    hasher.finish()
}

impl<'a> Table<'a> {
    fn new(lengths: &'a [usize], most_bytes: usize, ignore_case: bool) -> Self {
        Self {
            lengths,
            most_bytes,
            ignore_case,
            text: Vec::new(),
            words: Vec::new(),
            slots: vec![Slot::default(); 1 << 10],
            n_used: 0,
            group: 0,
        }
    }

    /// Bytes in use, with what sorting and writing it will take.
    fn is_full(&self) -> bool {
        let slots = self.slots.len() * size_of::<Slot>() * 3 / 2;
        self.text.len() + slots + self.n_used * 16 > self.most_bytes || self.text.len() > MAX_TEXT
    }

    fn add(&mut self, document: &str, group: u16) -> Result<()> {
        if self.text.len() + 4 * document.len() > u32::MAX as usize {
            return Err(Error::argument("a document of 1 GiB or more"));
        }
        self.group = group;
        self.words.clear();
        let mut hash = 0_u64;
        for word in words(document) {
            let start = self.text.len();
            match self.ignore_case {
                true => fold::put_folded(&mut self.text, word),
                false => self.text.extend_from_slice(word.as_bytes()),
            }
            self.words.push((start as u32, hash));
            hash = hash
                .wrapping_mul(BASE)
                .wrapping_add(hash_of(&self.text[start..]) | 1);
            self.count_last(hash);
            self.text.push(b' ');
        }
        Ok(())
    }

    /// Counts the n-grams that end with the text.
    fn count_last(&mut self, hash: u64) {
        let (mut power, mut n_powers) = (1_u64, 0);
        for n in self.lengths {
            let Some(first) = self.words.len().checked_sub(*n) else {
                return;
            };
            while n_powers < *n {
                power = power.wrapping_mul(BASE);
                n_powers += 1;
            }
            let (start, before) = self.words[first];
            let hash = hash.wrapping_sub(before.wrapping_mul(power));
            let hash = hash ^ u64::from(self.group).wrapping_mul(0xD6E8_FEB8_6659_FD93);
            let hash = (hash ^ (hash >> 32)).wrapping_mul(BASE) >> 32;
            self.count(hash as u32, start, *n as u16);
        }
    }

    fn count(&mut self, hash: u32, start: u32, n: u16) {
        let length = self.text.len() as u32 - start;
        let mask = self.slots.len() - 1;
        let mut place = hash as usize & mask;
        loop {
            let slot = self.slots[place];
            if slot.count == 0 {
                break;
            }
            let is_equal =
                (slot.hash, slot.length, slot.group, slot.n) == (hash, length, self.group, n);
            if is_equal && self.bytes(&slot) == &self.text[start as usize..] {
                self.slots[place].count += 1;
                return;
            }
            place = (place + 1) & mask;
        }
        self.slots[place] = Slot {
            hash,
            start,
            length,
            count: 1,
            group: self.group,
            n,
        };
        self.n_used += 1;
        if self.n_used * 3 > self.slots.len() * 2 {
            self.grow();
        }
    }

    fn bytes(&self, slot: &Slot) -> &[u8] {
        &self.text[slot.start as usize..][..slot.length as usize]
    }

    fn grow(&mut self) {
        let mask = self.slots.len() * 2 - 1;
        let old = std::mem::replace(&mut self.slots, vec![Slot::default(); mask + 1]);
        for slot in old.into_iter().filter(|slot| slot.count > 0) {
            let mut place = slot.hash as usize & mask;
            while self.slots[place].count > 0 {
                place = (place + 1) & mask;
            }
            self.slots[place] = slot;
        }
    }

    /// Makes a run of each length and starts anew.
    fn spill(&mut self, spill: &Spill, making: &Mutex<Making>) -> Result<()> {
        for n in self.lengths {
            // The first bytes tell most apart.
            let mut order: Vec<(u64, u32)> = Vec::new();
            for (place, slot) in self.slots.iter().enumerate() {
                if slot.count > 0 && usize::from(slot.n) == *n {
                    order.push((first_bytes(self.bytes(slot)), place as u32));
                }
            }
            order.sort_unstable_by(|a, b| {
                let (of_a, of_b) = (&self.slots[a.1 as usize], &self.slots[b.1 as usize]);
                let by_text = || self.bytes(of_a).cmp(self.bytes(of_b));
                a.0.cmp(&b.0)
                    .then_with(by_text)
                    .then(of_a.group.cmp(&of_b.group))
            });
            if order.is_empty() {
                continue;
            }
            spill.write(making, *n, |run| {
                let mut records = Vec::new();
                for (_, place) in &order {
                    let slot = &self.slots[*place as usize];
                    records.clear();
                    runs::put(
                        &mut records,
                        self.bytes(slot),
                        u32::from(slot.group),
                        u64::from(slot.count),
                    );
                    run.append(&records)?;
                }
                Ok(())
            })?;
        }
        *self = Self::new(self.lengths, self.most_bytes, self.ignore_case);
        Ok(())
    }
}

/// The first eight bytes as a number that sorts as they do.
fn first_bytes(bytes: &[u8]) -> u64 {
    let mut eight = [0; 8];
    let n = bytes.len().min(8);
    eight[..n].copy_from_slice(&bytes[..n]);
    u64::from_be_bytes(eight)
}

/// The numbers of subsets, given in the order in which they are met.
#[derive(Default)]
pub(super) struct Subsets {
    by_name: FxHashMap<String, u16>,
    pub(super) names: Vec<String>,
}

impl Subsets {
    pub(super) fn number(&mut self, name: &str) -> Result<u16> {
        if let Some(number) = self.by_name.get(name) {
            return Ok(*number);
        }
        let number = u16::try_from(self.names.len())
            .map_err(|_| Error::argument("more than 65,536 subsets: count without --by-subset"))?;
        self.by_name.insert(name.to_owned(), number);
        self.names.push(name.to_owned());
        Ok(number)
    }
}

/// What is known of the finished shards, kept with their runs.
#[derive(Default, Serialize, serde::Deserialize)]
struct Notes {
    n_documents: u64,
    n_bad_records: u64,
    hashes: Vec<String>,
    subsets: Vec<String>,
}

/// Counts the n-grams of words of all documents and gives them to the sink that `sink` makes, with the names
/// of the groups. `progress` advances by compressed bytes. A job that is killed goes on after the last piece,
/// which is the shards that are read between two times at which all tables are written.
///
/// # Errors
/// No length or one above [`MAX_WORDS`], a shard that cannot be read, too little disk, or a stop.
pub fn count_words<'a>(
    config: &WordsConfig,
    progress: &Progress,
    sink: impl FnOnce(&[String]) -> Result<Box<dyn GramSink + 'a>>,
) -> Result<WordsSummary> {
    let counting = &config.counting;
    if counting.lengths.is_empty()
        || counting
            .lengths
            .iter()
            .any(|n| !(1..=MAX_WORDS).contains(n))
    {
        let what = format!("n-grams of words have 1 to {MAX_WORDS} words");
        return Err(Error::argument(what));
    }
    let room = (counting.free_bytes, counting.memory);
    let mut spill = Spill::open(
        &counting.folder,
        &counting.job,
        counting.discard,
        room,
        progress,
    )?;
    let mut notes: Notes = match spill.notes() {
        [json] => serde_json::from_str(json)
            .map_err(|err| Error::malformed(&spill.path("state.json"), err.to_string()))?,
        _ => Notes::default(),
    };
    let sizes = sizes(&config.shards)?;
    let mut first = notes.hashes.len();
    progress.advance(sizes[..first].iter().sum())?;
    while first < config.shards.len() {
        let end = piece_end(&sizes, first, counting.memory);
        read_piece(config, (first, end), &mut spill, &mut notes, progress)?;
        first = end;
        let done: u64 = sizes[..end].iter().sum();
        let left: u64 = sizes[end..].iter().sum();
        let spilled: u64 = counting.lengths.iter().map(|n| spill.n_bytes(*n)).sum();
        spill.check_room((spilled as f64 * left as f64 / done.max(1) as f64) as u64)?;
    }
    let (groups, places) = in_order_of_names(&notes.subsets, config.by_subset);
    let mut sink = sink(&groups)?;
    let mut lengths = Vec::new();
    for n in &counting.lengths {
        let mut keeper = Keeper::new(*n, groups.len(), counting.keep, &mut *sink);
        spill.merge(*n, |key, group, count| {
            keeper.add(key, places[group as usize], count)
        })?;
        lengths.push(keeper.finish()?);
    }
    sink.finish()?;
    Ok(WordsSummary {
        n_documents: notes.n_documents,
        n_bad_records: notes.n_bad_records,
        shards: notes.hashes,
        lengths,
        groups,
    })
}

/// Bytes on disk of each shard; nothing is known of standard input.
fn sizes(shards: &[PathBuf]) -> Result<Vec<u64>> {
    let size = |path: &PathBuf| match path.as_os_str() == "-" {
        true => Ok(0),
        false => std::fs::metadata(path)
            .map(|found| found.len())
            .map_err(|err| Error::io(path, err)),
    };
    shards.iter().map(size).collect()
}

/// Where the piece that begins with a shard ends: shards whose text may fill the memory, or one.
fn piece_end(sizes: &[u64], first: usize, memory: u64) -> usize {
    let (mut end, mut n_bytes) = (first, 0);
    while end < sizes.len() && (end == first || n_bytes + sizes[end] <= memory / 4) {
        n_bytes += sizes[end];
        end += 1;
    }
    end
}

/// Names by the alphabet, unknown last, and the place of each number among them.
pub(super) fn in_order_of_names(names: &[String], by_subset: bool) -> (Vec<String>, Vec<u32>) {
    if !by_subset {
        return (vec!["all".to_owned()], vec![0]);
    }
    let key = |name: &String| (name == UNKNOWN, name.clone());
    let sorted: BTreeMap<(bool, String), u32> = names
        .iter()
        .enumerate()
        .map(|(number, name)| (key(name), number as u32))
        .collect();
    let mut places = vec![0; names.len()];
    for (place, number) in sorted.values().enumerate() {
        places[*number as usize] = place as u32;
    }
    let names = sorted.into_keys().map(|(_, name)| name).collect();
    (names, places)
}

/// Reads some shards and makes their runs.
fn read_piece(
    config: &WordsConfig,
    (first, end): (usize, usize),
    spill: &mut Spill,
    notes: &mut Notes,
    progress: &Progress,
) -> Result<()> {
    let counting = &config.counting;
    let n_threads = counting.n_threads.max(1);
    let most_bytes = (counting.memory as usize * 3 / 4) / n_threads;
    let tables = (0..n_threads)
        .map(|_| Table::new(&counting.lengths, most_bytes, config.ignore_case))
        .collect();
    let mut subsets = Subsets::default();
    for name in &notes.subsets {
        subsets.number(name)?;
    }
    let (subsets, making) = (Mutex::new(subsets), spill.begin());
    let add = |table: &mut Table<'_>, block: &Block| {
        let mut n_documents = 0;
        let bad = block.each_document(|_, document| {
            let group = match config.by_subset {
                false => 0,
                true => subsets
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .number(document.subset.as_deref().unwrap_or(UNKNOWN))?,
            };
            table.add(&document.text, group)?;
            n_documents += 1;
            if table.is_full() {
                table.spill(spill, &making)?;
            }
            Ok(())
        })?;
        Ok((n_documents, bad.n))
    };
    let shards = &config.shards[..end];
    let mut tables = map_blocks(
        shards,
        &config.rules,
        first,
        tables,
        progress,
        add,
        |step| {
            match step {
                Step::Block((n, n_bad)) => {
                    notes.n_documents += n;
                    notes.n_bad_records += n_bad;
                }
                Step::EndOfShard(_, summary) => notes.hashes.push(summary.sha256),
            }
            Ok(())
        },
    )?;
    for table in &mut tables {
        table.spill(spill, &making)?;
    }
    drop(tables);
    for (path, sha256) in config.shards[first..end].iter().zip(&notes.hashes[first..]) {
        spill.use_input(path, sha256);
    }
    notes.subsets = subsets
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
        .names;
    let json = serde_json::to_string(&notes)
        .map_err(|err| Error::malformed(&counting.folder, err.to_string()))?;
    spill.keep(making, ("shards", end as u64), vec![json])
}

#[cfg(test)]
mod tests;
