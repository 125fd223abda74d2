//! Remembers the ids of pieces; bounded, never changes a result.
//!
//! Most pieces of a text have been seen before, and most are short. Pieces of up to 8 bytes and up to
//! 3 ids take 16 bytes, those of up to 16 bytes and 6 ids take 32; two share a bucket, where a
//! newcomer replaces the older. Longer ones are in a map that starts anew when full; the longest are
//! not remembered. The tables are memory that the system hands out as it is touched.

use memmap2::MmapMut;
use rustc_hash::FxHashMap;

/// Ids are below this, so that three fit a word with their number.
pub(super) const ID_LIMIT: u32 = 1 << ID_BITS;

const ID_BITS: u32 = 20;
const ID_MASK: u64 = (1 << ID_BITS) - 1;
const N_SHIFT: u32 = 3 * ID_BITS;

/// Words that a lookup may write beyond the ids it gives.
pub(super) const SLACK: usize = 8;

const N_TINY_BUCKETS: usize = 1 << 18;
const N_SHORT_BUCKETS: usize = 1 << 17;
const MAX_TINY_IDS: usize = 3;
const MAX_SHORT_IDS: usize = 6;
const MAX_LONG_BYTES: usize = 256;
const MAX_LONG_PIECES: usize = 1 << 16;

/// Two entries of a word of key and a word of ids.
type TinyBucket = [[u64; 2]; 2];
/// Two entries of two words of key and two of ids.
type ShortBucket = [[u64; 4]; 2];

/// The ids of pieces seen lately.
#[derive(Debug)]
pub(super) struct PieceCache {
    tiny: MmapMut,
    short: MmapMut,
    long: FxHashMap<Box<[u8]>, Box<[u32]>>,
}

/// What a piece is known by, and its bucket.
#[derive(Debug, Clone, Copy)]
pub(super) enum Key {
    Tiny { word: u64, at: usize },
    Short { words: [u64; 2], at: usize },
    Long,
}

impl Key {
    /// The key of `text[start..end]`, which is not empty.
    ///
    /// A piece is padded with zeros to a key, so that one that ends with a zero has none.
    #[inline]
    pub(super) fn new(text: &[u8], start: usize, end: usize) -> Self {
        let len = end - start;
        if len > 16 || text[end - 1] == 0 {
            return Self::Long;
        }
        let bytes: [u8; 16] = match text[start..].first_chunk() {
            Some(bytes) => *bytes,
            None => padded(&text[start..end]),
        };
        let [low, high] = bytemuck::cast::<_, [u64; 2]>(bytes);
        if len <= 8 {
            Self::tiny(low & u64::MAX >> (64 - 8 * len))
        } else {
            Self::short([low, high & u64::MAX >> (128 - 8 * len)])
        }
    }

    #[inline]
    fn tiny(word: u64) -> Self {
        let at = bucket_of([word, 0], N_TINY_BUCKETS);
        Self::Tiny { word, at }
    }

    #[inline]
    fn short(words: [u64; 2]) -> Self {
        let at = bucket_of(words, N_SHORT_BUCKETS);
        Self::Short { words, at }
    }
}

#[cold]
fn padded(piece: &[u8]) -> [u8; 16] {
    let mut bytes = [0; 16];
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
#[inline]
fn unpack(word: u64, out: &mut [u32; 3]) {
    *out = [0, 1, 2].map(|i| (word >> (i * ID_BITS) & ID_MASK) as u32);
}

/// The place of a key among `n` buckets, a power of 2: the folded product of both words.
#[inline]
fn bucket_of(key: [u64; 2], n: usize) -> usize {
    const ODD: [u64; 2] = [0x9E37_79B9_7F4A_7C15, 0xD1B5_4A32_D192_ED03];
    let product = u128::from(key[0] ^ ODD[0]) * u128::from(key[1] ^ ODD[1]);
    (product as u64 ^ (product >> 64) as u64) as usize & (n - 1)
}

impl PieceCache {
    /// An empty cache.
    pub(super) fn new() -> Self {
        Self {
            tiny: table::<TinyBucket>(N_TINY_BUCKETS),
            short: table::<ShortBucket>(N_SHORT_BUCKETS),
            long: FxHashMap::default(),
        }
    }

    fn tiny_buckets(&self) -> &[TinyBucket] {
        bytemuck::cast_slice(&self.tiny)
    }

    fn short_buckets(&self) -> &[ShortBucket] {
        bytemuck::cast_slice(&self.short)
    }

    /// Fetches what [`Self::ids`] will look at for this key.
    #[inline]
    pub(super) fn prefetch(&self, key: Key) {
        match key {
            Key::Tiny { at, .. } => prefetch(&self.tiny_buckets()[at]),
            Key::Short { at, .. } => prefetch(&self.short_buckets()[at]),
            Key::Long => {}
        }
    }

    /// The ids of a piece of the tables into `out`; their number, or `None` if they are not known.
    #[inline]
    pub(super) fn ids(&self, key: Key, out: &mut [u32; SLACK]) -> Option<usize> {
        match key {
            Key::Tiny { word, at } => {
                let [first, second] = &self.tiny_buckets()[at];
                let [found, ids] = if first[0] == word { first } else { second };
                unpack(*ids, out.first_chunk_mut()?);
                (*found == word).then_some((ids >> N_SHIFT) as usize)
            }
            Key::Short { words, at } => {
                let is_same = |entry: &[u64; 4]| (entry[0] ^ words[0]) | (entry[1] ^ words[1]) == 0;
                let [first, second] = &self.short_buckets()[at];
                let entry = if is_same(first) { first } else { second };
                unpack(entry[2], out.first_chunk_mut()?);
                unpack(entry[3], out[3..].first_chunk_mut()?);
                is_same(entry).then_some((entry[2] >> N_SHIFT) as usize)
            }
            Key::Long => None,
        }
    }

    /// The ids of a long piece, if they are known.
    pub(super) fn long(&self, piece: &[u8]) -> Option<&[u32]> {
        self.long.get(piece).map(|ids| &**ids)
    }

    /// Remembers the ids of `piece`, whose key is `key`, if there is room for so many.
    pub(super) fn insert(&mut self, key: Key, piece: &[u8], ids: &[u32]) {
        let n = (ids.len() as u64) << N_SHIFT;
        match key {
            Key::Tiny { word, at } if ids.len() <= MAX_TINY_IDS => {
                let buckets: &mut [TinyBucket] = bytemuck::cast_slice_mut(&mut self.tiny);
                buckets[at] = [[word, pack(ids) | n], buckets[at][0]];
            }
            Key::Short { words, at } if ids.len() <= MAX_SHORT_IDS => {
                let (head, tail) = ids.split_at(ids.len().min(3));
                let buckets: &mut [ShortBucket] = bytemuck::cast_slice_mut(&mut self.short);
                let entry = [words[0], words[1], pack(head) | n, pack(tail)];
                buckets[at] = [entry, buckets[at][0]];
            }
            _ if piece.len() <= MAX_LONG_BYTES => {
                if self.long.len() >= MAX_LONG_PIECES {
                    self.long.clear();
                }
                self.long.insert(piece.into(), ids.into());
            }
            _ => {}
        }
    }
}

/// Asks for the cache line of `place` before it is needed.
#[inline]
fn prefetch<T>(place: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint, it reads nothing; `place` is valid anyway.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(place).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}

/// Zeroed memory for `n` entries, in large pages where the system has them.
fn table<T>(n: usize) -> MmapMut {
    let map = MmapMut::map_anon(n * size_of::<T>()).expect("a few MiB of memory are there");
    #[cfg(target_os = "linux")]
    let _ = map.advise(memmap2::Advice::HugePage); // Slower without, not wrong.
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ids of a piece as the cache knows them.
    fn known(cache: &PieceCache, piece: &[u8]) -> Option<Vec<u32>> {
        let mut out = [u32::MAX; SLACK];
        match cache.ids(Key::new(piece, 0, piece.len()), &mut out) {
            Some(n) => Some(out[..n].to_vec()),
            None => cache.long(piece).map(<[u32]>::to_vec),
        }
    }

    fn insert(cache: &mut PieceCache, piece: &[u8], ids: &[u32]) {
        cache.insert(Key::new(piece, 0, piece.len()), piece, ids);
    }

    #[test]
    fn remembers_up_to_its_longest() {
        let mut cache = PieceCache::new();
        for len in (1..20).chain([MAX_LONG_BYTES, MAX_LONG_BYTES + 1]) {
            for n_ids in [1, 2, 3] {
                let piece = vec![b'a' + n_ids; len];
                let ids: Vec<u32> = (0..u32::from(n_ids)).map(|i| ID_LIMIT - 1 - i).collect();
                assert_eq!(known(&cache, &piece), None);
                insert(&mut cache, &piece, &ids);
                let expected = (len <= MAX_LONG_BYTES).then_some(ids);
                assert_eq!(known(&cache, &piece), expected, "{len} bytes");
            }
        }
    }

    #[test]
    fn six_ids_are_remembered_of_a_short_piece() {
        let mut cache = PieceCache::new();
        for n in 1..=MAX_SHORT_IDS as u32 {
            let piece = [b'0' + n as u8; 12];
            insert(&mut cache, &piece, &(0..n).collect::<Vec<_>>());
            assert_eq!(known(&cache, &piece), Some((0..n).collect()));
        }
    }

    #[test]
    fn a_bucket_keeps_its_last_two() {
        let mut cache = PieceCache::new();
        let bucket = |word: &u64| bucket_of([*word, 0], N_TINY_BUCKETS);
        let words: Vec<u64> = (1..).filter(|w| bucket(w) == bucket(&1)).take(3).collect();
        for word in &words {
            cache.insert(Key::tiny(*word), b"", &[7]);
        }
        let is_known = |word: &u64| cache.ids(Key::tiny(*word), &mut [0; SLACK]).is_some();
        let known: Vec<bool> = words.iter().map(is_known).collect();
        assert_eq!(known, [false, true, true]);
    }

    #[test]
    fn zeros_at_the_end_are_no_padding() {
        let mut cache = PieceCache::new();
        insert(&mut cache, b"a", &[1]);
        insert(&mut cache, b"a\0", &[2]);
        insert(&mut cache, b"a\0\0", &[3]);
        assert_eq!(known(&cache, b"a"), Some(vec![1]));
        assert_eq!(known(&cache, b"a\0"), Some(vec![2]));
        assert_eq!(known(&cache, b"a\0\0"), Some(vec![3]));
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
                let alone = Key::new(alone, 0, alone.len());
                assert_eq!(format!("{inside:?}"), format!("{alone:?}"));
            }
        }
    }
}
