//! The documents of a dataset, found by their tokens: 16 bytes a document.

use std::{hash::Hasher, panic, thread};

use rustc_hash::FxHasher;

use super::super::{TokenDataset, TokenSource};
use crate::{Error, Result, io::spawn, progress::Progress};

/// A hash of stored tokens.
pub(super) type Hash = fn(&[u8]) -> u64;

/// High and low half of a document's hash, and its number: sorted, equal hashes stand together.
type Key = [u32; 3];

/// Documents hashed between two looks at the stop flag.
const DOCUMENTS_AT_ONCE: usize = 256;

/// The hash that is used outside of tests; matches never rest on it alone.
pub(super) fn hash(tokens: &[u8]) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(tokens);
    hasher.finish()
}

fn key(hash: u64, document: u32) -> Key {
    [(hash >> 32) as u32, hash as u32, document]
}

fn hash_of(key: &Key) -> u64 {
    u64::from(key[0]) << 32 | u64::from(key[1])
}

/// Documents by hash. Documents of the same tokens stand in neighbouring slots, in their order.
pub(super) struct Index<'a> {
    dataset: &'a TokenDataset,
    hash: Hash,
    keys: Vec<Key>,
    /// By slot: documents of the same tokens for the first of them, 0 for the others.
    n_equal: Vec<u32>,
    has_eod: bool,
}

impl<'a> Index<'a> {
    /// Hashes and sorts all documents, and looks whether more than half end with `eod`.
    ///
    /// # Errors
    /// A damaged dataset, or one of 2^32 documents and more.
    pub fn new(
        dataset: &'a TokenDataset,
        eod: Option<u32>,
        n_threads: usize,
        hash: Hash,
        progress: &Progress,
    ) -> Result<Self> {
        let n = dataset.n_documents();
        if n >= u64::from(u32::MAX) {
            let what =
                format!("has {n} documents, more than the 4,294,967,294 that can be labelled");
            return Err(Error::malformed(dataset.prefix(), what));
        }
        let end = eod.map_or(Vec::new(), |eod| {
            let mut end = Vec::new();
            dataset.token_type().encode_all(&[eod], &mut end);
            end
        });
        let mut keys = vec![[0; 3]; n as usize];
        let n_a_thread = keys.len().div_ceil(n_threads.max(1)).max(1);
        let n_ended = thread::scope(|scope| {
            let runs = keys.chunks_mut(n_a_thread).enumerate();
            let threads = runs.map(|(i, keys)| {
                let (first, end) = (i * n_a_thread, &end);
                spawn(scope, move || {
                    hash_documents(dataset, first, keys, end, hash, progress)
                })
            });
            let threads = threads.collect::<Result<Vec<_>>>()?;
            let joined = threads.into_iter().map(|thread| {
                let joined = thread.join();
                joined.unwrap_or_else(|payload| panic::resume_unwind(payload))
            });
            joined.sum::<Result<u64>>()
        })?;
        keys.sort_unstable();
        let n_equal = group(dataset, &mut keys)?;
        Ok(Self {
            dataset,
            hash,
            keys,
            n_equal,
            has_eod: eod.is_some() && 2 * n_ended > n,
        })
    }

    /// The dataset.
    pub fn dataset(&self) -> &TokenDataset {
        self.dataset
    }

    /// Whether more than half of the documents end with the end-of-document token.
    pub fn has_eod(&self) -> bool {
        self.has_eod
    }

    /// Slots, one a document.
    pub fn n_slots(&self) -> usize {
        self.keys.len()
    }

    /// The document in a slot.
    pub fn document(&self, slot: usize) -> u32 {
        self.keys[slot][2]
    }

    /// Documents of the same tokens as that in a slot, which is the first of them.
    pub fn n_equal(&self, slot: usize) -> u32 {
        self.n_equal[slot]
    }

    /// The slot of the first document of exactly these tokens.
    pub fn find(&self, tokens: &[u8]) -> Result<Option<usize>> {
        let hash = (self.hash)(tokens);
        let mut slot = self.keys.partition_point(|key| hash_of(key) < hash);
        while let Some(key) = self.keys.get(slot)
            && hash_of(key) == hash
        {
            if *self.dataset.document_bytes(u64::from(key[2]))? == *tokens {
                return Ok(Some(slot));
            }
            slot += self.n_equal[slot] as usize;
        }
        Ok(None)
    }
}

/// Fills the keys of documents from `first`; returns how many of them end with `end`.
fn hash_documents(
    dataset: &TokenDataset,
    first: usize,
    keys: &mut [Key],
    end: &[u8],
    hash: Hash,
    progress: &Progress,
) -> Result<u64> {
    let (mut n_ended, mut document) = (0, first as u32);
    for some in keys.chunks_mut(DOCUMENTS_AT_ONCE) {
        let mut n_bytes = 0;
        for place in some {
            let tokens = dataset.document_bytes(u64::from(document))?;
            *place = key(hash(&tokens), document);
            n_ended += u64::from(tokens.ends_with(end));
            n_bytes += tokens.len() as u64;
            document += 1;
        }
        progress.advance(n_bytes)?;
    }
    Ok(n_ended)
}

/// Brings documents of the same tokens together, and counts them: the result is by slot.
fn group(dataset: &TokenDataset, keys: &mut [Key]) -> Result<Vec<u32>> {
    let mut n_equal = vec![1; keys.len()];
    let mut slot = 0;
    for run in keys.chunk_by_mut(|a, b| hash_of(a) == hash_of(b)) {
        let slots = slot..slot + run.len();
        slot = slots.end;
        if run.len() > 1 {
            group_run(dataset, run, &mut n_equal[slots])?;
        }
    }
    Ok(n_equal)
}

/// As [`group`], for documents of the same hash.
fn group_run(dataset: &TokenDataset, run: &mut [Key], n_equal: &mut [u32]) -> Result<()> {
    let tokens = |key: &Key| dataset.document_bytes(u64::from(key[2]));
    let first = tokens(&run[0])?;
    let mut are_equal = true;
    for key in run.iter() {
        are_equal = are_equal && tokens(key)? == first;
    }
    if !are_equal {
        // Documents that differ and have one hash. Each was read before: none fails now.
        run.sort_by_key(|key| (tokens(key).unwrap_or_default(), key[2]));
    }
    let same = |a: &Key, b: &Key| are_equal || tokens(a).ok() == tokens(b).ok();
    let mut slot = 0;
    for equal in run.chunk_by(same) {
        n_equal[slot..slot + equal.len()].fill(0);
        n_equal[slot] = equal.len() as u32;
        slot += equal.len();
    }
    Ok(())
}
