//! The byte-level alphabet: one printable character for each of the 256 bytes.
//!
//! Vocabularies spell tokens in it. Printable ASCII and most of Latin-1 stand for themselves,
//! the other 68 bytes take U+0100 onwards in order. Source: GPT-2's `bytes_to_unicode`.

use std::sync::LazyLock;

/// The 256 characters, at the index of their byte.
pub(crate) static BYTE_CHARS: LazyLock<[char; 256]> = LazyLock::new(|| {
    let mut next = 0x100;
    std::array::from_fn(|byte| {
        // The index of an array of 256 fits.
        let c = char::from(byte as u8);
        if matches!(c, '!'..='~' | '\u{A1}'..='\u{AC}' | '\u{AE}'..='\u{FF}') {
            return c;
        }
        next += 1;
        char::from_u32(next - 1).expect("U+0100..U+0144 are characters")
    })
});

/// The byte a character stands for, if it is one of the 256.
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

/// The bytes a token stands for; None if one of its characters is not of the alphabet.
pub(crate) fn bytes_of(token: &str) -> Option<Vec<u8>> {
    token.chars().map(byte_of).collect()
}

/// `bytes` spelt in the alphabet.
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
    fn every_byte_comes_back() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(bytes_of(&spell(&all)), Some(all));
    }

    #[test]
    fn other_characters_are_not_of_the_alphabet() {
        assert_eq!(bytes_of("a b"), None);
        assert_eq!(byte_of('\u{144}'), None);
        assert_eq!(byte_of('漢'), None);
    }
}
