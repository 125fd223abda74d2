//! What each id decodes to, in a shape that decodes gigabytes a second.

use crate::tokenize::Tokenizer;

/// Tokens up to this long are copied whole, whatever their length is.
const SLOT_BYTES: usize = 16;

/// The bytes of every id of a tokenizer; ids that it does not know decode to nothing, as in `decode`.
#[derive(Debug)]
pub struct TokenBytes {
    /// By id, and one more that stands for all unknown ids.
    slots: Vec<[u8; SLOT_BYTES]>,
    lengths: Vec<u32>,
    /// Tokens longer than a slot, at the index of their id.
    long: Vec<Box<[u8]>>,
    longest: usize,
}

impl TokenBytes {
    /// The table of a tokenizer, special tokens spelt out.
    #[must_use]
    pub fn new(tokenizer: &Tokenizer) -> Self {
        let ids = 0..=tokenizer.max_id();
        let all: Vec<&[u8]> = ids
            .map(|id| tokenizer.token_bytes(id).unwrap_or_default())
            .chain([&[][..]])
            .collect();
        let mut slots = vec![[0; SLOT_BYTES]; all.len()];
        let mut long = vec![Box::default(); all.len()];
        for (id, bytes) in all.iter().enumerate() {
            match slots[id].get_mut(..bytes.len()) {
                Some(slot) => slot.copy_from_slice(bytes),
                None => long[id] = Box::from(*bytes),
            }
        }
        Self {
            slots,
            lengths: all.iter().map(|bytes| bytes.len() as u32).collect(),
            long,
            longest: all.iter().map(|bytes| bytes.len()).max().unwrap_or(0),
        }
    }

    /// Bytes of an id; 0 for one without.
    #[must_use]
    pub fn length(&self, id: i64) -> usize {
        self.lengths[self.index(id)] as usize
    }

    fn index(&self, id: i64) -> usize {
        usize::try_from(id).map_or(self.slots.len() - 1, |id| id.min(self.slots.len() - 1))
    }

    /// Writes the bytes of `ids` to `out` from `at`, growing it as needed, and returns where they end
    /// and how many ids have no bytes. What stands behind the end is without meaning.
    pub fn decode(
        &self,
        ids: impl ExactSizeIterator<Item = i64>,
        out: &mut Vec<u8>,
        mut at: usize,
    ) -> (usize, u64) {
        let room = at + ids.len() * self.longest + SLOT_BYTES;
        if out.len() < room {
            out.resize(room, 0);
        }
        let mut n_without = 0;
        for id in ids {
            let index = self.index(id);
            let length = self.lengths[index] as usize;
            if length <= SLOT_BYTES {
                out[at..at + SLOT_BYTES].copy_from_slice(&self.slots[index]);
            } else {
                out[at..at + length].copy_from_slice(&self.long[index]);
            }
            at += length;
            n_without += u64::from(length == 0);
        }
        (at, n_without)
    }
}
