//! The types in which tokens are stored, with GPT-NeoX's codes.

use crate::{Error, Result};

/// The type of a stored token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenType {
    /// `uint16`, code 8.
    U16,
    /// `int32`, code 4.
    I32,
}

/// Vocabularies below this size are stored as `uint16` (GPT-NeoX's rule).
const U16_VOCAB_LIMIT: u32 = 65_500;

impl TokenType {
    /// The type that GPT-NeoX takes for a vocabulary of this size, added tokens included, except that ids
    /// beyond `uint16` always take `int32`. Such ids exist in vocabularies that were reduced without
    /// renumbering; GPT-NeoX would let them wrap around.
    #[must_use]
    pub fn for_vocabulary(vocab_size: u32, max_id: u32) -> Self {
        if vocab_size < U16_VOCAB_LIMIT && max_id <= Self::U16.max_id() {
            Self::U16
        } else {
            Self::I32
        }
    }

    /// The type of a code in an `.idx` header.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        match code {
            8 => Some(Self::U16),
            4 => Some(Self::I32),
            _ => None,
        }
    }

    /// The code in an `.idx` header.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::U16 => 8,
            Self::I32 => 4,
        }
    }

    /// Bytes of one token.
    #[must_use]
    pub fn n_bytes(self) -> usize {
        match self {
            Self::U16 => 2,
            Self::I32 => 4,
        }
    }

    /// numpy's name of the type.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::U16 => "uint16",
            Self::I32 => "int32",
        }
    }

    /// The largest id the type can hold.
    #[must_use]
    pub fn max_id(self) -> u32 {
        match self {
            Self::U16 => u32::from(u16::MAX),
            Self::I32 => i32::MAX as u32,
        }
    }

    /// Appends the stored bytes of ids, little-endian. The caller has checked that they are at most [`Self::max_id`].
    pub fn encode_all(self, ids: &[u32], out: &mut Vec<u8>) {
        let start = out.len();
        out.resize(start + ids.len() * self.n_bytes(), 0);
        match self {
            Self::U16 => {
                let (slots, _) = out[start..].as_chunks_mut();
                for (slot, id) in slots.iter_mut().zip(ids) {
                    *slot = (*id as u16).to_le_bytes();
                }
            }
            // The crate is for little-endian processors only, so the bytes in memory are those stored.
            Self::I32 => out[start..].copy_from_slice(bytemuck::cast_slice(ids)),
        }
    }

    /// Appends the stored bytes of a token.
    ///
    /// # Errors
    /// The type cannot hold the token.
    pub fn append(self, token: i64, out: &mut Vec<u8>) -> Result<()> {
        let stored = match self {
            Self::U16 => u16::try_from(token).map(|token| out.extend(token.to_le_bytes())),
            Self::I32 => i32::try_from(token).map(|token| out.extend(token.to_le_bytes())),
        };
        stored.map_err(|_| {
            Error::argument(format!("token {token} cannot be stored as {}", self.name()))
        })
    }

    /// The token in the first [`Self::n_bytes`] bytes. Tokens of `int32` datasets may be negative: labels are.
    ///
    /// # Panics
    /// There are fewer bytes.
    #[must_use]
    pub fn decode(self, bytes: &[u8]) -> i64 {
        match self {
            Self::U16 => i64::from(u16::from_le_bytes([bytes[0], bytes[1]])),
            Self::I32 => i64::from(i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_follows_the_vocabulary_and_holds_its_largest_id() {
        for (vocab_size, max_id, expected) in [
            (50_277, 50_276, TokenType::U16),
            (65_499, 65_498, TokenType::U16),
            (65_500, 65_499, TokenType::I32),
            (258, 65_535, TokenType::U16),
            (258, 65_536, TokenType::I32),
            (258, 70_000, TokenType::I32),
        ] {
            assert_eq!(TokenType::for_vocabulary(vocab_size, max_id), expected);
            assert!(max_id <= expected.max_id());
        }
    }
}
