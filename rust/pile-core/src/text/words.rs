//! Words, as Python's `str.split()` separates them.

/// Whether Python's `str.split()` splits at this character.
pub(crate) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// The words of a text.
pub(crate) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_space).filter(|word| !word.is_empty())
}

/// What a byte says about white space.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ByteKind {
    Word,
    Space,
    /// The first byte of characters some of which are white space.
    Lead,
}

static BYTE_KINDS: [ByteKind; 256] = {
    let mut kinds = [ByteKind::Word; 256];
    let mut byte = 0x09;
    while byte <= 0x20 {
        if byte <= 0x0d || byte >= 0x1c {
            kinds[byte] = ByteKind::Space;
        }
        byte += 1;
    }
    kinds[0xc2] = ByteKind::Lead;
    kinds[0xe1] = ByteKind::Lead;
    kinds[0xe2] = ByteKind::Lead;
    kinds[0xe3] = ByteKind::Lead;
    kinds
};

/// Bytes of the white space that starts a text with a [`ByteKind::Lead`]; 0 if it is another character.
fn wide_space_bytes(text: &[u8]) -> usize {
    match text {
        [0xc2, 0x85 | 0xa0, ..] => 2,
        [0xe1, 0x9a, 0x80, ..]
        | [0xe2, 0x80, 0x80..=0x8a | 0xa8 | 0xa9 | 0xaf, ..]
        | [0xe2, 0x81, 0x9f, ..]
        | [0xe3, 0x80, 0x80, ..] => 3,
        _ => 0,
    }
}

/// Calls `take` with each word of a text: [`words`], without decoding characters.
#[inline]
pub(crate) fn each_word<'a>(text: &'a str, mut take: impl FnMut(&'a str)) {
    let bytes = text.as_bytes();
    let (mut start, mut at) = (0, 0);
    while at < bytes.len() {
        let n_space = match BYTE_KINDS[usize::from(bytes[at])] {
            ByteKind::Word => 0,
            ByteKind::Space => 1,
            ByteKind::Lead => wide_space_bytes(&bytes[at..]),
        };
        if n_space == 0 {
            at += 1;
            continue;
        }
        if start < at {
            take(&text[start..at]);
        }
        at += n_space;
        start = at;
    }
    if start < at {
        take(&text[start..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(text: &str) -> Vec<&str> {
        let mut all = Vec::new();
        each_word(text, |word| all.push(word));
        all
    }

    #[test]
    fn every_character_is_space_or_not_as_in_words() {
        for c in '\0'..=char::MAX {
            let text = format!("a{c}b");
            assert_eq!(found(&text), words(&text).collect::<Vec<_>>(), "{c:?}");
        }
    }

    proptest! {
        #[test]
        fn equals_words(text in "(\\PC|[ \t\u{1c}\u{85}\u{a0}\u{2003}\u{3000}é]){0,40}") {
            prop_assert_eq!(found(&text), words(&text).collect::<Vec<_>>());
        }
    }
}
