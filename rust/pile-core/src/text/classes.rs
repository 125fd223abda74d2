//! The class of each character, and whether NFC may change it.
//!
//! The lookup table has one byte per code point, 1.1 MB in all, and is built once per process from the ranges
//! in `classes_table`. A text touches only the pages of its scripts, so most of it stays out of the caches.

use crate::text::classes_table::{CLASSES, NFC_SUSPECTS};
use std::sync::LazyLock;

/// The class of a character in the patterns of pretokenizers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Any other character: punctuation, symbols, marks, controls.
    Other,
    /// `\p{L}`.
    Letter,
    /// `\p{N}`.
    Number,
    /// `\s`.
    Whitespace,
}

const N_CODE_POINTS: usize = 0x11_0000;
/// The bits of a table entry that hold the class.
const CLASS_BITS: u8 = 0b011;
/// Set if NFC may change a text because of this character.
const SUSPECT_BIT: u8 = 0b100;

static TABLE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut table = vec![0; N_CODE_POINTS];
    for (i, (start, class)) in CLASSES.iter().enumerate() {
        let end = CLASSES.get(i + 1).map_or(N_CODE_POINTS, |r| r.0 as usize);
        table[*start as usize..end].fill(*class as u8);
    }
    for (first, last) in &NFC_SUSPECTS {
        for entry in &mut table[*first as usize..=*last as usize] {
            *entry |= SUSPECT_BIT;
        }
    }
    table
});

/// A reference to the lookup table. Inner loops hold a copy, as each access to `TABLE` checks for its
/// initialization.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClassTable(&'static [u8]);

impl ClassTable {
    /// The table of this process.
    pub(crate) fn get() -> Self {
        Self(&TABLE)
    }

    /// Class of `code_point`, which must be below 0x110000.
    #[inline]
    pub(crate) fn class(self, code_point: u32) -> Class {
        match self.0[code_point as usize] & CLASS_BITS {
            1 => Class::Letter,
            2 => Class::Number,
            3 => Class::Whitespace,
            _ => Class::Other,
        }
    }

    /// Whether NFC may change a text that contains `code_point`.
    #[inline]
    pub(crate) fn is_nfc_suspect(self, code_point: u32) -> bool {
        self.0[code_point as usize] & SUSPECT_BIT != 0
    }
}

/// The code point that starts at byte `at` of a UTF-8 text, and its length in bytes.
///
/// # Panics
/// If `at` is not inside `text`; `text` must be valid UTF-8 and `at` a character boundary.
#[inline]
pub(crate) fn code_point_at(text: &[u8], at: usize) -> (u32, usize) {
    let low = |i: usize| u32::from(text[at + i] & 0x3F);
    let lead = u32::from(text[at]);
    match lead {
        0..0x80 => (lead, 1),
        0x80..0xE0 => ((lead & 0x1F) << 6 | low(1), 2),
        0xE0..0xF0 => ((lead & 0x0F) << 12 | low(1) << 6 | low(2), 3),
        _ => ((lead & 0x07) << 18 | low(1) << 12 | low(2) << 6 | low(3), 4),
    }
}

/// The class of `c` in Hugging Face `tokenizers` 0.23.3 (Unicode 16).
#[must_use]
pub fn class_of(c: char) -> Class {
    ClassTable::get().class(c.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use unicode_normalization_alignments::{
        IsNormalized, char::canonical_combining_class, is_nfc_quick,
    };

    #[test]
    fn suspects_equal_the_normalization_library() {
        for c in '\0'..=char::MAX {
            let sure = canonical_combining_class(c) == 0
                && is_nfc_quick(std::iter::once(c)) == IsNormalized::Yes;
            assert_eq!(ClassTable::get().is_nfc_suspect(c.into()), !sure, "{c:?}");
        }
    }

    #[test]
    fn code_points_are_decoded() {
        for c in ('\0'..='\u{2FFF}').chain(['\u{FFFF}', '\u{10000}', char::MAX]) {
            let text = format!("é{c}");
            let expected = (u32::from(c), c.len_utf8());
            assert_eq!(code_point_at(text.as_bytes(), 2), expected);
        }
    }

    #[test]
    fn surrogates_and_the_last_code_point_are_in_the_table() {
        assert_eq!(ClassTable::get().class(0xD800), Class::Other);
        assert_eq!(class_of(char::MAX), Class::Other);
    }
}
