//! Finds documents of a dataset by their tokens. The index takes 16 bytes per document.

use std::{hash::Hasher, panic, thread};

use rustc_hash::FxHasher;

use super::super::{TokenDataset, TokenSource};
use crate::{Error, Result, io::spawn, progress::Progress};

/// A hash of stored tokens.
pub(super) type TokenHash = fn(&[u8]) -> u64;

/// The high and low half of a document's hash, then its number. Sorted keys are grouped by hash, and
/// documents ascend within a group. Three `u32` take 12 bytes; a `u64` and a `u32` would take 16.
type HashKey = [u32; 3];

/// Documents hashed between two checks for a stop.
const BATCH_DOCUMENTS: usize = 256;

/// The hash used outside of tests. It need not be collision-free: tokens with equal hashes are compared in full.
pub(super) fn hash(tokens: &[u8]) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(tokens);
    hasher.finish()
}

fn key(hash: u64, document: u32) -> HashKey {
    [(hash >> 32) as u32, hash as u32, document]
}

fn hash_of(key: &HashKey) -> u64 {
    u64::from(key[0]) << 32 | u64::from(key[1])
}

/// The documents sorted by hash, one per slot. Documents with equal tokens are in adjacent slots, in their order.
pub(super) struct DocumentIndex<'a> {
    dataset: &'a TokenDataset,
    hash: TokenHash,
    keys: Vec<HashKey>,
    /// By slot: the number of documents with these tokens in the slot of the first of them, 0 in the slots of
    /// the others.
    n_equal: Vec<u32>,
    has_eod: bool,
}

impl<'a> DocumentIndex<'a> {
    /// Hashes and sorts all documents, and checks whether more than half end with `eod`.
    ///
    /// # Errors
    /// A damaged dataset, or one of 2^32 - 1 documents or more: the job counts and labels documents with `u32`, of
    /// which the largest means "no label".
    pub fn new(
        dataset: &'a TokenDataset,
        eod: Option<u32>,
        n_threads: usize,
        hash: TokenHash,
        progress: &Progress,
    ) -> Result<Self> {
        let n = dataset.n_documents();
        if n >= u64::from(u32::MAX) {
            let what =
                format!("has {n} documents, more than the 4,294,967,294 that can be labelled");
            return Err(Error::malformed(dataset.prefix(), what));
        }
        // Empty without `eod`: then all documents end with it, and the count is not used.
        let end = eod.map_or(Vec::new(), |eod| {
            let mut end = Vec::new();
            dataset.token_type().encode_all(&[eod], &mut end);
            end
        });
        let mut keys = vec![[0; 3]; n as usize];
        let n_per_thread = keys.len().div_ceil(n_threads.max(1)).max(1);
        let n_ended = thread::scope(|scope| {
            let runs = keys.chunks_mut(n_per_thread).enumerate();
            let threads = runs.map(|(i, keys)| {
                let (first, end) = (i * n_per_thread, &end);
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

    /// Number of slots, one per document.
    pub fn n_slots(&self) -> usize {
        self.keys.len()
    }

    /// The document in a slot.
    pub fn document(&self, slot: usize) -> u32 {
        self.keys[slot][2]
    }

    /// Number of documents with the same tokens. `slot` must be the first of them.
    pub fn n_equal(&self, slot: usize) -> u32 {
        self.n_equal[slot]
    }

    /// The slot of the first document with exactly these tokens.
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

/// Computes the keys of the documents from `first` on. Returns how many of them end with `end`.
fn hash_documents(
    dataset: &TokenDataset,
    first: usize,
    keys: &mut [HashKey],
    end: &[u8],
    hash: TokenHash,
    progress: &Progress,
) -> Result<u64> {
    let (mut n_ended, mut document) = (0, first as u32);
    for batch in keys.chunks_mut(BATCH_DOCUMENTS) {
        let mut n_bytes = 0;
        for slot in batch {
            let tokens = dataset.document_bytes(u64::from(document))?;
            *slot = key(hash(&tokens), document);
            n_ended += u64::from(tokens.ends_with(end));
            n_bytes += tokens.len() as u64;
            document += 1;
        }
        progress.advance(n_bytes)?;
    }
    Ok(n_ended)
}

/// Makes documents with equal tokens adjacent, and returns their number by slot: see [`DocumentIndex::n_equal`].
fn group(dataset: &TokenDataset, keys: &mut [HashKey]) -> Result<Vec<u32>> {
    let mut n_equal = vec![1; keys.len()];
    let mut slot = 0;
    for same_hash in keys.chunk_by_mut(|a, b| hash_of(a) == hash_of(b)) {
        let slots = slot..slot + same_hash.len();
        slot = slots.end;
        if same_hash.len() > 1 {
            group_same_hash(dataset, same_hash, &mut n_equal[slots])?;
        }
    }
    Ok(n_equal)
}

/// Does [`group`] for documents with the same hash.
fn group_same_hash(
    dataset: &TokenDataset,
    keys: &mut [HashKey],
    n_equal: &mut [u32],
) -> Result<()> {
    let tokens = |key: &HashKey| dataset.document_bytes(u64::from(key[2]));
    let first = tokens(&keys[0])?;
    let mut are_equal = true;
    for key in keys.iter() {
        are_equal = are_equal && tokens(key)? == first;
    }
    if !are_equal {
        // A hash collision. `hash_documents` has read all documents, so the defaults below are never used.
        keys.sort_by_key(|key| (tokens(key).unwrap_or_default(), key[2]));
    }
    let same = |a: &HashKey, b: &HashKey| are_equal || tokens(a).ok() == tokens(b).ok();
    let mut slot = 0;
    for equal in keys.chunk_by(same) {
        n_equal[slot..slot + equal.len()].fill(0);
        n_equal[slot] = equal.len() as u32;
        slot += equal.len();
    }
    Ok(())
}
