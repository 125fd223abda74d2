//! Remembers the ids of pieces; bounded, never changes a result.
//!
//! Most pieces of a text have been seen before, and most are short. Pieces of up to 8 bytes and up to
//! 3 ids take 16 bytes, others of up to 16 bytes and 6 ids take 32; four share a bucket. A newcomer
//! takes the last place, a piece that is found in a back place moves one forward: what is frequent
//! stays and stands in front. Longer ones are in a map that starts anew when full; the longest are not
//! remembered. The tables are memory that the system hands out as it is touched.
//!
//! Pieces are looked up in batches: first the buckets of all are asked for, then they are read.

use std::ops::Range;

use memmap2::MmapMut;
use rustc_hash::FxHashMap;

use crate::io::{out_of_memory, prefetch};

/// Ids are below this, so that three fit a word with their number.
pub(crate) const ID_LIMIT: u32 = 1 << ID_BITS;

const ID_BITS: u32 = 20;
const ID_MASK: u64 = (1 << ID_BITS) - 1;
const N_SHIFT: u32 = 3 * ID_BITS;

/// Words that a lookup may write beyond the ids it gives.
pub(crate) const SLACK: usize = 8;

/// Pieces of a batch.
pub(crate) const BATCH: usize = 64;

const N_TINY_BUCKETS: usize = 1 << 17;
const N_SHORT_BUCKETS: usize = 1 << 16;
const MAX_TINY_BYTES: usize = 8;
const MAX_TINY_IDS: usize = 3;
pub(crate) const MAX_SHORT_BYTES: usize = 16;
const MAX_SHORT_IDS: usize = 6;
const MAX_LONG_BYTES: usize = 256;
const MAX_LONG_PIECES: usize = 1 << 16;

/// In place of the number of ids: they are in the map.
const IN_MAP: u64 = 15;

/// In place of a key: a piece that the first table does not hold. No text has these bytes.
const NOT_TINY: u64 = u64::MAX;

/// A word of key and a word of ids.
type Tiny = [u64; 2];
/// Two words of key and two of ids.
type Short = [u64; 4];
type Bucket<T> = [T; 4];

/// The ids of pieces seen lately.
#[derive(Debug)]
pub(crate) struct PieceCache {
    tiny: MmapMut,
    short: MmapMut,
    long: FxHashMap<Box<[u8]>, Box<[u32]>>,
}

/// What a piece is known by. A tiny piece is in the first table, or as a short one with a second word
/// of 0 in the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    Tiny(u64),
    Short([u64; 2]),
    Long,
}

impl Key {
    /// The key of `text[start..end]`, which is not empty.
    ///
    /// A piece is padded with zeros to a key, so that one that ends with a zero has none.
    #[inline]
    pub(crate) fn new(text: &[u8], start: usize, end: usize) -> Self {
        let len = end - start;
        if len > MAX_SHORT_BYTES || text[end - 1] == 0 {
            return Self::Long;
        }
        let bytes: [u8; MAX_SHORT_BYTES] = match text[start..].first_chunk() {
            Some(bytes) => *bytes,
            None => padded(&text[start..end]),
        };
        let [low, high] = bytemuck::cast::<_, [u64; 2]>(bytes);
        if len <= MAX_TINY_BYTES {
            Self::Tiny(low & u64::MAX >> (64 - 8 * len))
        } else {
            Self::Short([low, high & u64::MAX >> (128 - 8 * len)])
        }
    }
}

#[cold]
fn padded<const N: usize>(piece: &[u8]) -> [u8; N] {
    let mut bytes = [0; N];
    bytes[..piece.len()].copy_from_slice(piece);
    bytes
}

/// Up to three ids and their number as one word.
fn pack(ids: &[u32]) -> u64 {
    let ids = ids.iter().rev();
    let packed = ids.fold(0, |word, id| word << ID_BITS | u64::from(*id));
    packed & ((1 << N_SHIFT) - 1)
}

/// Writes the three ids of a word.
#[inline(always)]
fn unpack(word: u64, out: &mut [u32; 3]) {
    *out = [0, 1, 2].map(|i| (word >> (i * ID_BITS) & ID_MASK) as u32);
}

/// Bucket of a tiny piece.
#[inline(always)]
fn tiny_bucket(word: u64) -> usize {
    const ODD: u64 = 0x9E37_79B9_7F4A_7C15; // 2^64 / golden ratio
    let product = word.wrapping_mul(ODD);
    ((product ^ product >> 32).wrapping_mul(ODD) >> (64 - N_TINY_BUCKETS.trailing_zeros())) as usize
}

/// Bucket of a short piece: the folded product of both words.
#[inline(always)]
fn short_bucket(words: [u64; 2]) -> usize {
    const ODD: [u64; 2] = [0x9E37_79B9_7F4A_7C15, 0xD1B5_4A32_D192_ED03];
    let product = u128::from(words[0] ^ ODD[0]) * u128::from(words[1] ^ ODD[1]);
    (product as u64 ^ (product >> 64) as u64) as usize & (N_SHORT_BUCKETS - 1)
}

/// What a batch of pieces is looked up by in the first table.
#[derive(Debug)]
pub(crate) struct Batch {
    words: [u64; BATCH],
    buckets: [u32; BATCH],
}

impl Default for Batch {
    fn default() -> Self {
        Self {
            words: [NOT_TINY; BATCH],
            buckets: [0; BATCH],
        }
    }
}

impl PieceCache {
    /// An empty cache.
    pub(crate) fn new() -> Self {
        Self {
            tiny: table::<Bucket<Tiny>>(N_TINY_BUCKETS),
            short: table::<Bucket<Short>>(N_SHORT_BUCKETS),
            long: FxHashMap::default(),
        }
    }

    #[inline(always)]
    fn tiny_buckets(&self) -> &[Bucket<Tiny>; N_TINY_BUCKETS] {
        bytemuck::from_bytes(&self.tiny)
    }

    #[inline(always)]
    fn short_buckets(&self) -> &[Bucket<Short>; N_SHORT_BUCKETS] {
        bytemuck::from_bytes(&self.short)
    }

    /// Puts the pieces of `text` that end at `ends`, at most [`BATCH`], into `batch` and asks for their
    /// buckets; the first starts at `start`.
    #[inline(always)]
    pub(crate) fn prepare(&self, text: &[u8], mut start: usize, ends: &[usize], batch: &mut Batch) {
        let tiny = self.tiny_buckets();
        let places = batch.words.iter_mut().zip(&mut batch.buckets);
        for ((word, bucket), &end) in places.zip(ends) {
            let len = end - start;
            *word = NOT_TINY;
            if len <= MAX_TINY_BYTES {
                let bytes = match text[start..].first_chunk() {
                    Some(bytes) => *bytes,
                    None => padded(&text[start..end]),
                };
                let at_top = u64::from_le_bytes(bytes) << (64 - 8 * len);
                if at_top >> 56 != 0 {
                    *word = at_top >> (64 - 8 * len);
                    let at = tiny_bucket(*word);
                    *bucket = at as u32;
                    prefetch(&tiny[at]);
                }
            } else if let Key::Short(words) = Key::new(text, start, end) {
                prefetch(&self.short_buckets()[short_bucket(words)]);
            }
            start = end;
        }
    }

    /// Writes the ids of pieces of the batch, up to the first that is not in front in the first table;
    /// returns how many pieces and how many ids these are.
    #[inline(always)]
    pub(crate) fn known(
        &self,
        batch: &Batch,
        pieces: Range<usize>,
        out: &mut [u32],
    ) -> (usize, usize) {
        let tiny = self.tiny_buckets();
        let (mut n_pieces, mut n_ids) = (0, 0);
        let places = batch.words[pieces.clone()]
            .iter()
            .zip(&batch.buckets[pieces]);
        for (word, bucket) in places {
            let [first, second, ..] = &tiny[*bucket as usize % N_TINY_BUCKETS];
            let [found, ids] = if first[0] == *word { first } else { second };
            let Some(room) = out[n_ids..].first_chunk_mut() else {
                break;
            };
            if *found != *word {
                break;
            }
            unpack(*ids, room);
            n_pieces += 1;
            n_ids += (ids >> N_SHIFT) as usize;
        }
        (n_pieces, n_ids)
    }

    /// Writes the ids of a piece, if they are known; returns their number. The piece moves forward in its
    /// bucket.
    #[inline]
    pub(crate) fn find(&mut self, key: Key, piece: &[u8], out: &mut [u32]) -> Option<usize> {
        let words = match key {
            Key::Tiny(word) => {
                let bucket = &mut buckets_mut::<Tiny>(&mut self.tiny)[tiny_bucket(word)];
                if let Some([_, ids]) = forward(bucket, |entry| entry[0] == word) {
                    unpack(ids, out.first_chunk_mut()?);
                    return Some((ids >> N_SHIFT) as usize);
                }
                [word, 0]
            }
            Key::Short(words) => words,
            Key::Long => return self.find_long(piece, out),
        };
        let bucket = &mut buckets_mut::<Short>(&mut self.short)[short_bucket(words)];
        let is_it = |entry: &Short| (entry[0] ^ words[0]) | (entry[1] ^ words[1]) == 0;
        let [_, _, low, high] = forward(bucket, is_it)?;
        let n = low >> N_SHIFT;
        if n == IN_MAP {
            return self.find_long(piece, out);
        }
        unpack(low, out.first_chunk_mut()?);
        unpack(high, out[3..].first_chunk_mut()?);
        Some(n as usize)
    }

    fn find_long(&self, piece: &[u8], out: &mut [u32]) -> Option<usize> {
        let ids = self.long.get(piece)?;
        out[..ids.len()].copy_from_slice(ids);
        Some(ids.len())
    }

    /// Remembers the ids of `piece`, whose key is `key`, if there is room for so many.
    pub(crate) fn insert(&mut self, key: Key, piece: &[u8], ids: &[u32]) {
        let n = (ids.len() as u64) << N_SHIFT;
        let words = match key {
            Key::Tiny(word) if ids.len() <= MAX_TINY_IDS => {
                let bucket = &mut buckets_mut::<Tiny>(&mut self.tiny)[tiny_bucket(word)];
                return add(bucket, [word, pack(ids) | n]);
            }
            Key::Tiny(word) => [word, 0],
            Key::Short(words) => words,
            Key::Long => return self.insert_long(piece, ids),
        };
        let (low, high) = if ids.len() <= MAX_SHORT_IDS {
            let (head, tail) = ids.split_at(ids.len().min(3));
            (pack(head) | n, pack(tail))
        } else {
            self.insert_long(piece, ids);
            (IN_MAP << N_SHIFT, 0)
        };
        let bucket = &mut buckets_mut::<Short>(&mut self.short)[short_bucket(words)];
        add(bucket, [words[0], words[1], low, high]);
    }

    fn insert_long(&mut self, piece: &[u8], ids: &[u32]) {
        if piece.len() > MAX_LONG_BYTES {
            return;
        }
        if self.long.len() >= MAX_LONG_PIECES {
            self.long.clear();
        }
        self.long.insert(piece.into(), ids.into());
    }
}

fn buckets_mut<T: bytemuck::Pod>(table: &mut MmapMut) -> &mut [Bucket<T>] {
    bytemuck::cast_slice_mut(table)
}

/// The entry that is the one, moved one place forward.
#[inline]
fn forward<T: Copy>(bucket: &mut Bucket<T>, is_it: impl Fn(&T) -> bool) -> Option<T> {
    let at = bucket.iter().position(is_it)?;
    let entry = bucket[at];
    bucket.swap(at, at.saturating_sub(1));
    Some(entry)
}

/// Adds an entry in the first place that is empty, else in the last.
fn add<const N: usize>(bucket: &mut Bucket<[u64; N]>, entry: [u64; N]) {
    let last = bucket.len() - 1;
    let at = bucket.iter().position(|e| e[0] == 0).unwrap_or(last);
    bucket[at] = entry;
}

/// Zeroed memory for `n` entries, in large pages where the system has them.
fn table<T>(n: usize) -> MmapMut {
    let n_bytes = n * size_of::<T>();
    let map = MmapMut::map_anon(n_bytes).unwrap_or_else(|_| out_of_memory(n_bytes));
    #[cfg(target_os = "linux")]
    let _ = map.advise(memmap2::Advice::HugePage); // Slower without, not wrong.
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ids of a piece as the cache knows them.
    fn known(cache: &mut PieceCache, piece: &[u8]) -> Option<Vec<u32>> {
        let key = Key::new(piece, 0, piece.len());
        let mut out = [u32::MAX; 2 * SLACK];
        let n = cache.find(key, piece, &mut out);
        let found = n.map(|n| out[..n].to_vec());
        let mut batch = Batch::default();
        cache.prepare(piece, 0, &[piece.len()], &mut batch);
        if let (1, n) = cache.known(&batch, 0..1, &mut out) {
            assert_eq!(found.as_deref(), Some(&out[..n]));
        }
        found
    }

    fn insert(cache: &mut PieceCache, piece: &[u8], ids: &[u32]) {
        cache.insert(Key::new(piece, 0, piece.len()), piece, ids);
    }

    #[test]
    fn remembers_up_to_its_longest() {
        let mut cache = PieceCache::new();
        for len in (1..20).chain([MAX_LONG_BYTES, MAX_LONG_BYTES + 1]) {
            for n_ids in (1..=9).filter(|n| usize::from(*n) <= len) {
                let piece = vec![b'a' + n_ids; len];
                let ids: Vec<u32> = (0..u32::from(n_ids)).map(|i| ID_LIMIT - 1 - i).collect();
                assert_eq!(known(&mut cache, &piece), None);
                insert(&mut cache, &piece, &ids);
                let expected = (len <= MAX_LONG_BYTES).then_some(ids);
                assert_eq!(
                    known(&mut cache, &piece),
                    expected,
                    "{len} bytes, {n_ids} ids"
                );
            }
        }
    }

    #[test]
    fn a_batch_is_known_up_to_the_first_that_is_not() {
        let mut cache = PieceCache::new();
        let text = b"ab cde fgh a long piece";
        let ends = [2, 6, 10, 23];
        insert(&mut cache, b"ab", &[1]);
        insert(&mut cache, b" cde", &[2, 3]);
        insert(&mut cache, b" fgh", &[4, 5, 6]);
        let mut batch = Batch::default();
        cache.prepare(text, 0, &ends, &mut batch);
        let mut out = [0; 12];
        assert_eq!(cache.known(&batch, 0..4, &mut out), (3, 6));
        assert_eq!(out[..6], [1, 2, 3, 4, 5, 6]);
        assert_eq!(cache.known(&batch, 1..2, &mut out), (1, 2));
    }

    #[test]
    fn a_bucket_keeps_what_is_asked_for() {
        let mut cache = PieceCache::new();
        let words: Vec<u64> = (1..)
            .filter(|w| tiny_bucket(*w) == tiny_bucket(1))
            .take(6)
            .collect();
        let find = |cache: &mut PieceCache, i: usize| {
            let found = cache.find(Key::Tiny(words[i]), b"", &mut [0; SLACK]);
            found.is_some()
        };
        for word in &words[..5] {
            cache.insert(Key::Tiny(*word), b"", &[7]);
        }
        assert!(!find(&mut cache, 3), "the fifth took its place");
        assert!(find(&mut cache, 4), "and has moved forward");
        cache.insert(Key::Tiny(words[5]), b"", &[7]);
        let found = [0, 1, 2, 4, 5].map(|i| find(&mut cache, i));
        assert_eq!(found, [true, true, false, true, true]);
    }

    #[test]
    fn zeros_at_the_end_are_no_padding() {
        let mut cache = PieceCache::new();
        insert(&mut cache, b"a", &[1]);
        insert(&mut cache, b"a\0", &[2]);
        insert(&mut cache, b"a\0\0", &[3]);
        assert_eq!(known(&mut cache, b"a"), Some(vec![1]));
        assert_eq!(known(&mut cache, b"a\0"), Some(vec![2]));
        assert_eq!(known(&mut cache, b"a\0\0"), Some(vec![3]));
    }

    #[test]
    fn the_map_starts_anew_when_full() {
        let mut cache = PieceCache::new();
        for i in 0..=MAX_LONG_PIECES {
            insert(&mut cache, format!("{i:020}").as_bytes(), &[1]);
        }
        assert_eq!(cache.long.len(), 1);
    }

    #[test]
    fn keys_are_of_the_piece_alone() {
        let text = b"abcdefghijklmnopqrstuvwxyz";
        for end in 1..text.len() {
            for start in end.saturating_sub(16)..end {
                let (inside, alone) = (Key::new(text, start, end), &text[start..end]);
                assert_eq!(inside, Key::new(alone, 0, alone.len()));
            }
        }
    }
}
