//! The byte-level alphabet: one printable character for each of the 256 bytes.
//!
//! Vocabularies write tokens in this alphabet. Printable ASCII without the space and most of Latin-1 represent
//! themselves; the other 68 bytes are U+0100 to U+0143 in order. Source: GPT-2's `bytes_to_unicode`.

use std::sync::LazyLock;

/// The character of each byte.
pub(crate) static BYTE_CHARS: LazyLock<[char; 256]> = LazyLock::new(|| {
    let mut next = 0x100;
    std::array::from_fn(|byte| {
        // The index of an array of 256 elements is a byte.
        let c = char::from(byte as u8);
        if matches!(c, '!'..='~' | '\u{A1}'..='\u{AC}' | '\u{AE}'..='\u{FF}') {
            return c;
        }
        next += 1;
        char::from_u32(next - 1).expect("U+0100..U+0144 are characters")
    })
});

/// The byte that a character represents; None if it is not in the alphabet.
pub(crate) fn byte_of(c: char) -> Option<u8> {
    static BYTES: LazyLock<[Option<u8>; 0x144]> = LazyLock::new(|| {
        let mut bytes = [None; 0x144];
        for (byte, c) in (0..=u8::MAX).zip(BYTE_CHARS.iter()) {
            bytes[*c as usize] = Some(byte);
        }
        bytes
    });
    BYTES.get(c as usize).copied().flatten()
}

/// The bytes that a token represents; None if one of its characters is not in the alphabet.
pub(crate) fn bytes_of(token: &str) -> Option<Vec<u8>> {
    token.chars().map(byte_of).collect()
}

/// `bytes` written in the alphabet.
pub(crate) fn spell(bytes: &[u8]) -> String {
    bytes.iter().map(|b| BYTE_CHARS[usize::from(*b)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_characters() {
        assert_eq!(spell(b" a\n"), "ĠaĊ");
        assert_eq!(BYTE_CHARS[0], '\u{100}');
        assert_eq!(BYTE_CHARS[0xAD], '\u{143}');
    }

    #[test]
    fn every_byte_round_trips() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(bytes_of(&spell(&all)), Some(all));
    }

    #[test]
    fn other_characters_are_not_in_the_alphabet() {
        assert_eq!(bytes_of("a b"), None);
        assert_eq!(byte_of('\u{144}'), None);
        assert_eq!(byte_of('漢'), None);
    }
}
