//! Remembers the ids of pieces; bounded, never changes a result.
//!
//! Most pieces of a text have been seen before. Short ones have one slot each, found by hash,
//! where the newcomer replaces its predecessor; longer ones are in a map that starts anew when
//! full; the longest are not remembered.

use rustc_hash::FxHashMap;

const N_SLOTS: usize = 1 << 16;
const MAX_SHORT_BYTES: usize = 16;
const MAX_LONG_BYTES: usize = 256;
const MAX_LONG_PIECES: usize = 1 << 16;
/// As many as make a slot one cache line.
const MAX_SLOT_IDS: usize = 11;

/// One short piece and its ids. `n_bytes` is 0 in an empty slot.
#[derive(Debug, Clone, Copy, Default)]
#[repr(align(64))]
struct Slot {
    key: [u64; 2],
    ids: [u32; MAX_SLOT_IDS],
    n_bytes: u8,
    n_ids: u8,
}

/// The ids of pieces seen lately.
#[derive(Debug)]
pub(super) struct PieceCache {
    slots: Vec<Slot>,
    long: FxHashMap<Box<[u8]>, Box<[u32]>>,
}

impl Default for PieceCache {
    fn default() -> Self {
        Self {
            slots: vec![Slot::default(); N_SLOTS],
            long: FxHashMap::default(),
        }
    }
}

impl PieceCache {
    /// Appends the ids of `piece` to `out`; calls `encode` for them if they are not known.
    #[inline]
    pub(super) fn ids(
        &mut self,
        piece: &[u8],
        out: &mut Vec<u32>,
        encode: impl FnOnce(&mut Vec<u32>),
    ) {
        match piece.len() {
            0 => {}
            1..=MAX_SHORT_BYTES => self.short(piece, out, encode),
            n if n <= MAX_LONG_BYTES => self.long(piece, out, encode),
            _ => encode(out),
        }
    }

    #[inline]
    fn short(&mut self, piece: &[u8], out: &mut Vec<u32>, encode: impl FnOnce(&mut Vec<u32>)) {
        let key = short_key(piece);
        let slot = &mut self.slots[slot_of(key)];
        if slot.key == key && usize::from(slot.n_bytes) == piece.len() {
            out.extend_from_slice(&slot.ids[..usize::from(slot.n_ids)]);
            return;
        }
        let start = out.len();
        encode(out);
        let ids = &out[start..];
        if ids.len() <= MAX_SLOT_IDS {
            slot.key = key;
            slot.n_bytes = piece.len() as u8;
            slot.n_ids = ids.len() as u8;
            slot.ids[..ids.len()].copy_from_slice(ids);
        }
    }

    fn long(&mut self, piece: &[u8], out: &mut Vec<u32>, encode: impl FnOnce(&mut Vec<u32>)) {
        if let Some(ids) = self.long.get(piece) {
            out.extend_from_slice(ids);
            return;
        }
        let start = out.len();
        encode(out);
        if self.long.len() >= MAX_LONG_PIECES {
            self.long.clear();
        }
        self.long.insert(piece.into(), out[start..].into());
    }
}

/// The bytes of a piece of 1 to 16 bytes; with its length they tell pieces apart.
#[inline]
fn short_key(piece: &[u8]) -> [u64; 2] {
    let mut first = [0; 8];
    let mut last = [0; 8];
    let n = piece.len();
    match n {
        8.. => {
            first.copy_from_slice(&piece[..8]);
            last.copy_from_slice(&piece[n - 8..]);
        }
        4.. => {
            first[..4].copy_from_slice(&piece[..4]);
            first[4..].copy_from_slice(&piece[n - 4..]);
        }
        _ => {
            first[0] = piece[0];
            first[1] = piece[n / 2];
            first[2] = piece[n - 1];
        }
    }
    [u64::from_le_bytes(first), u64::from_le_bytes(last)]
}

/// The slot of a key: the upper bits of a multiplicative hash.
#[inline]
fn slot_of(key: [u64; 2]) -> usize {
    const ODD: u64 = 0x9E37_79B9_7F4A_7C15; // 2^64 / golden ratio.
    let mixed = (key[0] ^ key[1].rotate_left(29).wrapping_mul(ODD)).wrapping_mul(ODD);
    (mixed >> (u64::BITS - N_SLOTS.trailing_zeros())) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Ids of a piece known to `cache`, or those that `fresh` gives.
    fn ids(cache: &mut PieceCache, piece: &[u8], fresh: &[u32]) -> Vec<u32> {
        let mut out = vec![7];
        cache.ids(piece, &mut out, |out| out.extend_from_slice(fresh));
        out.split_off(1)
    }

    #[test]
    fn remembers_up_to_its_longest() {
        let mut cache = PieceCache::default();
        for n in [1, 2, 3, 4, 7, 8, 15, 16, 17, MAX_LONG_BYTES] {
            let piece = vec![b'a'; n];
            assert_eq!(ids(&mut cache, &piece, &[n as u32, 1]), [n as u32, 1]);
            assert_eq!(ids(&mut cache, &piece, &[]), [n as u32, 1]);
        }
        let piece = vec![b'a'; MAX_LONG_BYTES + 1];
        assert_eq!(ids(&mut cache, &piece, &[1]), [1]);
        assert_eq!(ids(&mut cache, &piece, &[2]), [2]);
    }

    #[test]
    fn too_many_ids_for_a_slot_are_not_remembered() {
        let mut cache = PieceCache::default();
        assert_eq!(ids(&mut cache, b"ab", &[1; 12]), [1; 12]);
        assert_eq!(ids(&mut cache, b"ab", &[2; 11]), [2; 11]);
        assert_eq!(ids(&mut cache, b"ab", &[]), [2; 11]);
    }

    #[test]
    fn starts_anew_when_full() {
        let mut cache = PieceCache::default();
        for i in 0..=MAX_LONG_PIECES {
            ids(&mut cache, format!("{i:020}").as_bytes(), &[1]);
        }
        assert_eq!(cache.long.len(), 1);
    }

    proptest! {
        #[test]
        fn keys_tell_pieces_apart(a in "[ab]{1,16}", b in "[ab]{1,16}") {
            let same_key = short_key(a.as_bytes()) == short_key(b.as_bytes());
            prop_assert_eq!(a == b, same_key && a.len() == b.len());
        }
    }
}
