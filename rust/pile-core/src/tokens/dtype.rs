//! How a token is stored: GPT-NeoX's type codes.

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
    /// The type GPT-NeoX takes for a vocabulary of this size, added tokens included. A vocabulary cut down without
    /// renumbering has few tokens and large ids: ids beyond `uint16`, which GPT-NeoX would wrap, are `int32`.
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

    /// Appends ids of at most [`Self::max_id`].
    pub fn encode_all(self, ids: &[u32], out: &mut Vec<u8>) {
        let start = out.len();
        out.resize(start + ids.len() * self.n_bytes(), 0);
        match self {
            Self::U16 => {
                let (places, _) = out[start..].as_chunks_mut();
                for (place, id) in places.iter_mut().zip(ids) {
                    *place = (*id as u16).to_le_bytes();
                }
            }
            Self::I32 => out[start..].copy_from_slice(bytemuck::cast_slice(ids)),
        }
    }

    /// The token in the first [`Self::n_bytes`] bytes. `int32` datasets may hold negative labels.
    ///
    /// # Panics
    /// Fewer bytes than that.
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
