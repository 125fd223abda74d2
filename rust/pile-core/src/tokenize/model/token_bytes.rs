//! A table from ids to bytes that decodes gigabytes a second.

use crate::tokenize::Tokenizer;

/// Bytes of a slot. A token that fits is copied with its whole slot: a copy of constant size needs no call and no
/// branch on the length.
const SLOT_BYTES: usize = 16;

/// The bytes of every id of a tokenizer. Unknown ids have no bytes, as in [`Tokenizer::decode`].
#[derive(Debug)]
pub struct TokenBytes {
    /// The bytes of each id, padded with zeros. The last slot is empty and is used for all unknown ids.
    slots: Vec<[u8; SLOT_BYTES]>,
    lengths: Vec<u32>,
    /// The bytes of tokens longer than a slot, at the index of their id; else empty.
    long: Vec<Box<[u8]>>,
    /// Bytes of the longest token.
    longest: usize,
}

impl TokenBytes {
    /// The table of a tokenizer. Special tokens decode to their text.
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

    /// Number of bytes of an id; 0 for an unknown one.
    #[must_use]
    pub fn length(&self, id: i64) -> usize {
        self.lengths[self.index(id)] as usize
    }

    fn index(&self, id: i64) -> usize {
        usize::try_from(id).map_or(self.slots.len() - 1, |id| id.min(self.slots.len() - 1))
    }

    /// Writes the bytes of `ids` to `out[at..]`. Returns the end of the bytes, and how many ids have none.
    ///
    /// `out` grows as needed. Its bytes after the returned end are undefined: `out` is scratch space that the
    /// caller reuses.
    pub fn decode(
        &self,
        ids: impl ExactSizeIterator<Item = i64>,
        out: &mut Vec<u8>,
        mut at: usize,
    ) -> (usize, u64) {
        // The last token may write a whole slot past its start.
        let n_needed = at + ids.len() * self.longest + SLOT_BYTES;
        if out.len() < n_needed {
            out.resize(n_needed, 0);
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
