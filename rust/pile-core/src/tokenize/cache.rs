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

/// Where a piece belongs.
#[derive(Debug, Clone, Copy)]
pub(super) enum Key {
    Tiny(u64),
    Short([u64; 2]),
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
        match len {
            ..=8 => Self::Tiny(low & u64::MAX >> (64 - 8 * len)),
            _ => Self::Short([low, high & u64::MAX >> (128 - 8 * len)]),
        }
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

    /// The ids of a tiny piece into `out`; their number, or `None` if they are not known.
    #[inline]
    pub(super) fn tiny(&self, key: u64, out: &mut [u32; SLACK]) -> Option<usize> {
        let buckets: &[TinyBucket] = bytemuck::cast_slice(&self.tiny);
        let [first, second] = &buckets[bucket_of([key, 0], N_TINY_BUCKETS)];
        let [found, ids] = if first[0] == key { first } else { second };
        unpack(*ids, out.first_chunk_mut()?);
        (*found == key).then_some((ids >> N_SHIFT) as usize)
    }

    /// The ids of a short piece into `out`; their number, or `None` if they are not known.
    #[inline]
    pub(super) fn short(&self, key: [u64; 2], out: &mut [u32; SLACK]) -> Option<usize> {
        let buckets: &[ShortBucket] = bytemuck::cast_slice(&self.short);
        let [first, second] = &buckets[bucket_of(key, N_SHORT_BUCKETS)];
        let is_first = first[..2] == key;
        let [k0, k1, ids, more] = if is_first { first } else { second };
        unpack(*ids, out.first_chunk_mut()?);
        unpack(*more, out[3..].first_chunk_mut()?);
        ([*k0, *k1] == key).then_some((ids >> N_SHIFT) as usize)
    }

    /// The ids of a long piece, if they are known.
    pub(super) fn long(&self, piece: &[u8]) -> Option<&[u32]> {
        self.long.get(piece).map(|ids| &**ids)
    }

    /// Remembers the ids of `piece`, whose key is `key`, if there is room for so many.
    pub(super) fn insert(&mut self, key: Key, piece: &[u8], ids: &[u32]) {
        let n = (ids.len() as u64) << N_SHIFT;
        match key {
            Key::Tiny(key) if ids.len() <= MAX_TINY_IDS => {
                let buckets: &mut [TinyBucket] = bytemuck::cast_slice_mut(&mut self.tiny);
                let bucket = &mut buckets[bucket_of([key, 0], N_TINY_BUCKETS)];
                *bucket = [[key, pack(ids) | n], bucket[0]];
            }
            Key::Short(key) if ids.len() <= MAX_SHORT_IDS => {
                let (head, tail) = ids.split_at(ids.len().min(3));
                let buckets: &mut [ShortBucket] = bytemuck::cast_slice_mut(&mut self.short);
                let bucket = &mut buckets[bucket_of(key, N_SHORT_BUCKETS)];
                *bucket = [[key[0], key[1], pack(head) | n, pack(tail)], bucket[0]];
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
        let n = match Key::new(piece, 0, piece.len()) {
            Key::Tiny(key) => cache.tiny(key, &mut out),
            Key::Short(key) => cache.short(key, &mut out),
            Key::Long => return cache.long(piece).map(<[u32]>::to_vec),
        };
        n.map(|n| out[..n].to_vec())
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
        let of_one_bucket = (1..)
            .filter(|k| bucket_of([*k, 0], N_TINY_BUCKETS) == bucket_of([1, 0], N_TINY_BUCKETS));
        let keys: Vec<u64> = of_one_bucket.take(3).collect();
        for key in &keys {
            cache.insert(Key::Tiny(*key), b"", &[7]);
        }
        let is_known = |key: &u64| cache.tiny(*key, &mut [0; SLACK]).is_some();
        assert_eq!(
            keys.iter().map(is_known).collect::<Vec<_>>(),
            [false, true, true]
        );
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
