//! A table from ids to bytes that decodes gigabytes a second.

use std::path::{Path, PathBuf};

use crate::{Error, Result, tokenize::Tokenizer};

/// Bytes of a slot. A token that fits is copied with its whole slot: a copy of constant size needs neither a call nor a
/// loop over its bytes.
const SLOT_BYTES: usize = 16;

/// Maximum bytes of a decoded text: as many as a record may have by default. A token may have megabytes, so a small
/// file of its ids could otherwise fill the memory.
pub(crate) const MAX_DECODED_BYTES: usize = 1 << 30;

/// Ids decoded between two checks of the buffer, which has space for the longest token for each of them. More ids would
/// waste memory if a token has megabytes; fewer would check too often.
const CHECK_IDS: usize = 16;

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
    /// The tokenizer's file, for errors.
    path: PathBuf,
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
            path: tokenizer.path().to_owned(),
        }
    }

    /// The bytes of an id; none for an unknown one.
    #[must_use]
    pub fn bytes(&self, id: i64) -> &[u8] {
        let index = self.index(id);
        match self.lengths[index] as usize {
            length if length <= SLOT_BYTES => &self.slots[index][..length],
            _ => &self.long[index],
        }
    }

    /// Number of bytes of an id; 0 for an unknown one.
    #[must_use]
    pub fn length(&self, id: i64) -> usize {
        self.lengths[self.index(id)] as usize
    }

    /// Bytes of the longest token.
    pub(crate) fn longest(&self) -> usize {
        self.longest
    }

    fn index(&self, id: i64) -> usize {
        usize::try_from(id).map_or(self.slots.len() - 1, |id| id.min(self.slots.len() - 1))
    }

    /// Writes the bytes of `ids` to `out[at..]`. Returns the end of the bytes, and how many ids have none.
    ///
    /// `out` grows as needed. Its bytes after the returned end are undefined: `out` is scratch space that the
    /// caller reuses.
    ///
    /// # Errors
    /// The returned end would exceed 1 GiB.
    pub fn decode(
        &self,
        mut ids: impl ExactSizeIterator<Item = i64>,
        out: &mut Vec<u8>,
        mut at: usize,
    ) -> Result<(usize, u64)> {
        let mut n_without = 0;
        while ids.len() > 0 {
            let n_ids = ids.len().min(CHECK_IDS);
            // The last token may write a whole slot past its start.
            let n_needed = at + n_ids * self.longest + SLOT_BYTES;
            if out.len() < n_needed {
                out.resize(n_needed, 0);
            }
            for id in ids.by_ref().take(n_ids) {
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
            if at > MAX_DECODED_BYTES {
                return Err(too_long(&self.path));
            }
        }
        Ok((at, n_without))
    }
}

/// The error for tokens that decode to more than [`MAX_DECODED_BYTES`].
pub(super) fn too_long(tokenizer: &Path) -> Error {
    let what = "the tokens of a text decode to more than 1 GiB with this tokenizer, the longest text supported";
    Error::malformed(tokenizer, what)
}
