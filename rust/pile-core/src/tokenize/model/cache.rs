//! Cache of the ids of pretokens. Its size is bounded, and it never changes a result.
//!
//! Most pretokens of a text occurred before, and most are short. There are three tables:
//! - *tiny*: pretokens of up to 8 bytes and 3 ids, in entries of 16 bytes;
//! - *short*: the other pretokens of up to 16 bytes and 6 ids, in entries of 32 bytes;
//! - *long*: a map of the other pretokens of up to 256 bytes. It is cleared when it is full.
//!
//! In the tables of fixed size, four entries form a bucket. A new entry takes a free slot or else replaces the
//! last one. An entry that is found moves one slot forward, so frequent pretokens stay and are found first. The
//! operating system provides the memory of these tables as it is touched, so a small job uses little of it.
//!
//! A random access to a table misses the processor's caches. Pretokens are therefore looked up in batches:
//! [`PretokenCache::prepare`] prefetches the buckets of a batch, [`PretokenCache::known`] then reads them.

use std::ops::Range;

use memmap2::MmapMut;
use rustc_hash::FxHashMap;

use crate::{
    io::{out_of_memory, prefetch},
    tokenize::model::pretoken_key::{self, MAX_SHORT_BYTES, ShortKey},
};

/// All ids are below this. Three ids and their number then fit one word: 3 * 20 + 4 bits.
pub(crate) const ID_LIMIT: u32 = 1 << ID_BITS;

const ID_BITS: u32 = 20;
const ID_MASK: u64 = (1 << ID_BITS) - 1;
/// Position of the number of ids in a packed word: above three ids.
const N_SHIFT: u32 = 3 * ID_BITS;

/// Spare elements at the end of an output buffer. Lookups write three or six ids at once, whatever their number,
/// to avoid a branch.
pub(crate) const SLACK: usize = 8;

/// Pretokens of a batch: enough to overlap the cache misses, few enough for the prefetched lines to stay.
pub(crate) const BATCH: usize = 64;

/// Buckets of 64 bytes: 8 MiB. Of 29 million pretokens of the Pile, 1.3 % must be merged with these sizes, 2.0 % with
/// tables of 1 MiB.
const N_TINY_BUCKETS: usize = 1 << 17;
/// Buckets of 128 bytes: 8 MiB.
const N_SHORT_BUCKETS: usize = 1 << 16;
const MAX_TINY_BYTES: usize = 8;
const MAX_TINY_IDS: usize = 3;
const MAX_SHORT_IDS: usize = 6;
/// Longer pretokens seldom occur twice.
const MAX_LONG_BYTES: usize = 256;
/// With [`MAX_LONG_BYTES`] this bounds the map to some tens of MB.
const MAX_LONG_PRETOKENS: usize = 1 << 16;

/// Number of ids of a short pretoken that has more than [`MAX_SHORT_IDS`]: its ids are in the map.
const IN_MAP: u64 = 15;

/// Key of a pretoken that cannot be in the tiny table. No UTF-8 text has these bytes.
const NOT_TINY: u64 = u64::MAX;

/// The key and the packed ids. Both are 0 in a free entry.
type TinyEntry = [u64; 2];
/// The two words of the key, the first three ids with their number, the other ids. All are 0 in a free entry.
type ShortEntry = [u64; 4];
type Bucket<T> = [T; 4];

/// The ids of pretokens that occurred before.
#[derive(Debug)]
pub(crate) struct PretokenCache {
    tiny: MmapMut,
    short: MmapMut,
    long: FxHashMap<Box<[u8]>, Box<[u32]>>,
}

/// The key of a pretoken, by the table that it belongs to.
///
/// A tiny pretoken with more than [`MAX_TINY_IDS`] ids is in the short table, with 0 as the second word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CacheKey {
    Tiny(u64),
    Short(ShortKey),
    /// The bytes are the key.
    Long,
}

impl CacheKey {
    /// The key of `text[start..end]`, which must not be empty.
    #[inline]
    pub(crate) fn new(text: &[u8], start: usize, end: usize) -> Self {
        let len = end - start;
        if len > MAX_SHORT_BYTES || text[end - 1] == 0 {
            return Self::Long;
        }
        let bytes: [u8; MAX_SHORT_BYTES] = pretoken_key::load(text, start, end);
        let [low, high] = bytemuck::cast::<_, ShortKey>(bytes);
        if len <= MAX_TINY_BYTES {
            Self::Tiny(low & u64::MAX >> (64 - 8 * len))
        } else {
            Self::Short([low, high & u64::MAX >> (128 - 8 * len)])
        }
    }
}

/// Up to three ids as one word, the first in the lowest bits. The bits of their number are 0.
fn pack(ids: &[u32]) -> u64 {
    let ids = ids.iter().rev();
    let packed = ids.fold(0, |word, id| word << ID_BITS | u64::from(*id));
    packed & ((1 << N_SHIFT) - 1)
}

/// Writes the three ids of a packed word. Ids beyond their number are 0.
#[inline(always)]
fn unpack(word: u64, out: &mut [u32; 3]) {
    *out = [0, 1, 2].map(|i| (word >> (i * ID_BITS) & ID_MASK) as u32);
}

/// Bucket of a key of the tiny table: the upper bits of two multiplicative hashes in a row.
///
/// One multiplication would not do: the last bytes of the pretoken are the upper bits of the word and would
/// affect few bits of the result.
#[inline(always)]
fn tiny_bucket(word: u64) -> usize {
    const ODD: u64 = 0x9E37_79B9_7F4A_7C15; // 2^64 / golden ratio
    let product = word.wrapping_mul(ODD);
    ((product ^ product >> 32).wrapping_mul(ODD) >> (64 - N_TINY_BUCKETS.trailing_zeros())) as usize
}

/// Bucket of a key of the short table.
#[inline(always)]
fn short_bucket(key: ShortKey) -> usize {
    pretoken_key::hash(key) & (N_SHORT_BUCKETS - 1)
}

/// The keys and buckets of a batch of pretokens in the tiny table.
#[derive(Debug)]
pub(crate) struct LookupBatch {
    words: [u64; BATCH],
    buckets: [u32; BATCH],
}

impl Default for LookupBatch {
    fn default() -> Self {
        Self {
            words: [NOT_TINY; BATCH],
            buckets: [0; BATCH],
        }
    }
}

impl PretokenCache {
    /// An empty cache.
    pub(crate) fn new() -> Self {
        Self {
            tiny: allocate::<Bucket<TinyEntry>>(N_TINY_BUCKETS),
            short: allocate::<Bucket<ShortEntry>>(N_SHORT_BUCKETS),
            long: FxHashMap::default(),
        }
    }

    #[inline(always)]
    fn tiny_buckets(&self) -> &[Bucket<TinyEntry>; N_TINY_BUCKETS] {
        bytemuck::from_bytes(&self.tiny)
    }

    #[inline(always)]
    fn short_buckets(&self) -> &[Bucket<ShortEntry>; N_SHORT_BUCKETS] {
        bytemuck::from_bytes(&self.short)
    }

    /// Fills `batch` with the pretokens of `text` that end at `ends`, and prefetches their buckets.
    ///
    /// The first pretoken starts at `start`. `ends` has at most [`BATCH`] elements.
    #[inline(always)]
    pub(crate) fn prepare(
        &self,
        text: &[u8],
        mut start: usize,
        ends: &[usize],
        batch: &mut LookupBatch,
    ) {
        let tiny = self.tiny_buckets();
        let slots = batch.words.iter_mut().zip(&mut batch.buckets);
        for ((word, bucket), &end) in slots.zip(ends) {
            let len = end - start;
            *word = NOT_TINY;
            if len <= MAX_TINY_BYTES {
                let bytes = pretoken_key::load(text, start, end);
                // The shift drops the bytes after the pretoken. Its last byte is now the most significant one.
                let at_top = u64::from_le_bytes(bytes) << (64 - 8 * len);
                if at_top >> 56 != 0 {
                    *word = at_top >> (64 - 8 * len);
                    let index = tiny_bucket(*word);
                    *bucket = index as u32;
                    prefetch(&tiny[index]);
                }
            } else if let CacheKey::Short(key) = CacheKey::new(text, start, end) {
                // Only the first of two cache lines: it has the slots to which frequent pretokens move.
                prefetch(&self.short_buckets()[short_bucket(key)]);
            }
            start = end;
        }
    }

    /// Writes the ids of `pretokens` of the batch, up to the first that is not in the first two slots of its
    /// bucket in the tiny table. Returns the number of pretokens and of ids.
    ///
    /// This is the fast path, which nine of ten pretokens of the Pile take. [`Self::find`] looks up the others.
    #[inline(always)]
    pub(crate) fn known(
        &self,
        batch: &LookupBatch,
        pretokens: Range<usize>,
        out: &mut [u32],
    ) -> (usize, usize) {
        let tiny = self.tiny_buckets();
        let (mut n_pretokens, mut n_ids) = (0, 0);
        let lookups = batch.words[pretokens.clone()]
            .iter()
            .zip(&batch.buckets[pretokens]);
        for (word, bucket) in lookups {
            // The remainder changes no value; it removes the bounds check.
            let [first, second, ..] = &tiny[*bucket as usize % N_TINY_BUCKETS];
            // Written to compile to a selection: a branch on the slot would be mispredicted often.
            let [found, ids] = if first[0] == *word { first } else { second };
            let Some(out) = out[n_ids..].first_chunk_mut() else {
                break;
            };
            if *found != *word {
                break;
            }
            unpack(*ids, out);
            n_pretokens += 1;
            n_ids += (ids >> N_SHIFT) as usize;
        }
        (n_pretokens, n_ids)
    }

    /// Writes the ids of a pretoken and returns their number; None if the cache does not have it.
    ///
    /// Moves the pretoken one slot forward in its bucket. `out` needs an element for each byte of the pretoken,
    /// as it has no more ids than bytes, and [`SLACK`] more.
    #[inline]
    pub(crate) fn find(
        &mut self,
        key: CacheKey,
        pretoken: &[u8],
        out: &mut [u32],
    ) -> Option<usize> {
        let key = match key {
            CacheKey::Tiny(word) => {
                let bucket = &mut buckets_mut::<TinyEntry>(&mut self.tiny)[tiny_bucket(word)];
                if let Some([_, ids]) = find_and_promote(bucket, |entry| entry[0] == word) {
                    unpack(ids, out.first_chunk_mut()?);
                    return Some((ids >> N_SHIFT) as usize);
                }
                [word, 0]
            }
            CacheKey::Short(key) => key,
            CacheKey::Long => return self.find_long(pretoken, out),
        };
        let bucket = &mut buckets_mut::<ShortEntry>(&mut self.short)[short_bucket(key)];
        let has_key = |entry: &ShortEntry| (entry[0] ^ key[0]) | (entry[1] ^ key[1]) == 0;
        let [_, _, low, high] = find_and_promote(bucket, has_key)?;
        let n = low >> N_SHIFT;
        if n == IN_MAP {
            return self.find_long(pretoken, out);
        }
        unpack(low, out.first_chunk_mut()?);
        unpack(high, out[3..].first_chunk_mut()?);
        Some(n as usize)
    }

    fn find_long(&self, pretoken: &[u8], out: &mut [u32]) -> Option<usize> {
        let ids = self.long.get(pretoken)?;
        out[..ids.len()].copy_from_slice(ids);
        Some(ids.len())
    }

    /// Stores the ids of `pretoken`, whose key is `key`. Pretokens of more than [`MAX_LONG_BYTES`] are not stored.
    ///
    /// A short key whose ids were in the map is stored again after the map was cleared. Its bucket then has it twice,
    /// until one entry is replaced; both are right.
    pub(crate) fn insert(&mut self, key: CacheKey, pretoken: &[u8], ids: &[u32]) {
        let n = (ids.len() as u64) << N_SHIFT;
        let key = match key {
            CacheKey::Tiny(word) if ids.len() <= MAX_TINY_IDS => {
                let bucket = &mut buckets_mut::<TinyEntry>(&mut self.tiny)[tiny_bucket(word)];
                return add(bucket, [word, pack(ids) | n]);
            }
            CacheKey::Tiny(word) => [word, 0],
            CacheKey::Short(key) => key,
            CacheKey::Long => return self.insert_long(pretoken, ids),
        };
        let (low, high) = if ids.len() <= MAX_SHORT_IDS {
            let (first, rest) = ids.split_at(ids.len().min(3));
            (pack(first) | n, pack(rest))
        } else {
            self.insert_long(pretoken, ids);
            (IN_MAP << N_SHIFT, 0)
        };
        let bucket = &mut buckets_mut::<ShortEntry>(&mut self.short)[short_bucket(key)];
        add(bucket, [key[0], key[1], low, high]);
    }

    fn insert_long(&mut self, pretoken: &[u8], ids: &[u32]) {
        if pretoken.len() > MAX_LONG_BYTES {
            return;
        }
        if self.long.len() >= MAX_LONG_PRETOKENS {
            self.long.clear();
        }
        self.long.insert(pretoken.into(), ids.into());
    }
}

fn buckets_mut<T: bytemuck::Pod>(table: &mut MmapMut) -> &mut [Bucket<T>] {
    bytemuck::cast_slice_mut(table)
}

/// The first entry for which `has_key` is true. It swaps slots with the entry before it.
#[inline]
fn find_and_promote<T: Copy>(bucket: &mut Bucket<T>, has_key: impl Fn(&T) -> bool) -> Option<T> {
    let slot = bucket.iter().position(has_key)?;
    let entry = bucket[slot];
    bucket.swap(slot, slot.saturating_sub(1));
    Some(entry)
}

/// Stores an entry in the first free slot, or else in the last slot.
///
/// An entry counts as free if its first word is 0. A short key that starts with eight zero bytes is therefore
/// replaced early, which costs time but no correctness.
fn add<const N: usize>(bucket: &mut Bucket<[u64; N]>, entry: [u64; N]) {
    let last = bucket.len() - 1;
    let slot = bucket.iter().position(|e| e[0] == 0).unwrap_or(last);
    bucket[slot] = entry;
}

/// Zeroed memory for `n` values of type `T`, in huge pages where the system has them.
fn allocate<T>(n: usize) -> MmapMut {
    let n_bytes = n * size_of::<T>();
    let map = MmapMut::map_anon(n_bytes).unwrap_or_else(|_| out_of_memory(n_bytes));
    // Only affects speed: with small pages, most lookups also miss the TLB.
    #[cfg(target_os = "linux")]
    let _ = map.advise(memmap2::Advice::HugePage);
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cached ids of a pretoken, by both ways to look it up.
    fn known(cache: &mut PretokenCache, pretoken: &[u8]) -> Option<Vec<u32>> {
        let key = CacheKey::new(pretoken, 0, pretoken.len());
        let mut out = [u32::MAX; 2 * SLACK];
        let n = cache.find(key, pretoken, &mut out);
        let found = n.map(|n| out[..n].to_vec());
        let mut batch = LookupBatch::default();
        cache.prepare(pretoken, 0, &[pretoken.len()], &mut batch);
        if let (1, n) = cache.known(&batch, 0..1, &mut out) {
            assert_eq!(found.as_deref(), Some(&out[..n]));
        }
        found
    }

    fn insert(cache: &mut PretokenCache, pretoken: &[u8], ids: &[u32]) {
        cache.insert(CacheKey::new(pretoken, 0, pretoken.len()), pretoken, ids);
    }

    #[test]
    fn caches_pretokens_up_to_the_longest() {
        let mut cache = PretokenCache::new();
        for len in (1..20).chain([MAX_LONG_BYTES, MAX_LONG_BYTES + 1]) {
            for n_ids in (1..=9).filter(|n| usize::from(*n) <= len) {
                let pretoken = vec![b'a' + n_ids; len];
                let ids: Vec<u32> = (0..u32::from(n_ids)).map(|i| ID_LIMIT - 1 - i).collect();
                assert_eq!(known(&mut cache, &pretoken), None);
                insert(&mut cache, &pretoken, &ids);
                let expected = (len <= MAX_LONG_BYTES).then_some(ids);
                assert_eq!(
                    known(&mut cache, &pretoken),
                    expected,
                    "{len} bytes, {n_ids} ids"
                );
            }
        }
    }

    #[test]
    fn a_batch_is_known_up_to_the_first_unknown_pretoken() {
        let mut cache = PretokenCache::new();
        let text = b"ab cde fgh a long pretoken";
        let ends = [2, 6, 10, 23];
        insert(&mut cache, b"ab", &[1]);
        insert(&mut cache, b" cde", &[2, 3]);
        insert(&mut cache, b" fgh", &[4, 5, 6]);
        let mut batch = LookupBatch::default();
        cache.prepare(text, 0, &ends, &mut batch);
        let mut out = [0; 12];
        assert_eq!(cache.known(&batch, 0..4, &mut out), (3, 6));
        assert_eq!(out[..6], [1, 2, 3, 4, 5, 6]);
        assert_eq!(cache.known(&batch, 1..2, &mut out), (1, 2));
    }

    #[test]
    fn a_bucket_keeps_the_entries_that_are_found() {
        let mut cache = PretokenCache::new();
        let words: Vec<u64> = (1..)
            .filter(|w| tiny_bucket(*w) == tiny_bucket(1))
            .take(6)
            .collect();
        let find = |cache: &mut PretokenCache, i: usize| {
            let found = cache.find(CacheKey::Tiny(words[i]), b"", &mut [0; SLACK]);
            found.is_some()
        };
        for word in &words[..5] {
            cache.insert(CacheKey::Tiny(*word), b"", &[7]);
        }
        assert!(!find(&mut cache, 3), "the fifth replaced it");
        assert!(find(&mut cache, 4), "and was not replaced");
        cache.insert(CacheKey::Tiny(words[5]), b"", &[7]);
        let found = [0, 1, 2, 4, 5].map(|i| find(&mut cache, i));
        assert_eq!(found, [true, true, false, true, true]);
    }

    #[test]
    fn trailing_zeros_are_no_padding() {
        let mut cache = PretokenCache::new();
        insert(&mut cache, b"a", &[1]);
        insert(&mut cache, b"a\0", &[2]);
        insert(&mut cache, b"a\0\0", &[3]);
        assert_eq!(known(&mut cache, b"a"), Some(vec![1]));
        assert_eq!(known(&mut cache, b"a\0"), Some(vec![2]));
        assert_eq!(known(&mut cache, b"a\0\0"), Some(vec![3]));
    }

    #[test]
    fn a_full_map_is_cleared() {
        let mut cache = PretokenCache::new();
        for i in 0..=MAX_LONG_PRETOKENS {
            insert(&mut cache, format!("{i:020}").as_bytes(), &[1]);
        }
        assert_eq!(cache.long.len(), 1);
    }

    #[test]
    fn keys_do_not_depend_on_the_surrounding_text() {
        let text = b"abcdefghijklmnopqrstuvwxyz";
        for end in 1..text.len() {
            for start in end.saturating_sub(16)..end {
                let (inside, alone) = (CacheKey::new(text, start, end), &text[start..end]);
                assert_eq!(inside, CacheKey::new(alone, 0, alone.len()));
            }
        }
    }
}
