//! The words of a text, as benchmark items and documents are compared.
//!
//! A text is normalized by NFKC, full case folding and NFKC again. A word is a letter or number and the letters,
//! marks and numbers that follow it; everything else separates words. In scripts that put no spaces between words
//! each letter, with its marks, is a word.
//!
//! Each word keeps the range of bytes that it has in the text. So a text is not normalized as a whole, but in
//! segments that start where normalization cannot reach across: almost always at each character.

use std::{ops::Range, sync::LazyLock};

use regex_syntax::hir::{Class as RegexClass, ClassUnicode, HirKind};
use unicode_normalization_alignments::{
    IsNormalized, UnicodeNormalization, char::canonical_combining_class, is_nfc_quick,
};

use crate::{
    dedup::hash::hash_bytes,
    text::{
        case_folding::put_fully_folded,
        classes::{Class, class_of},
    },
};

/// What a normalized character is to words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Separator,
    /// Continues a word and never starts one.
    Mark,
    /// A letter or number.
    Letter,
    /// A letter that is a word.
    Single,
}

impl Kind {
    fn of(c: char) -> Self {
        match class_of(c) {
            Class::Letter | Class::Number if is_unspaced(c) => Self::Single,
            Class::Letter | Class::Number => Self::Letter,
            _ if is_mark(c) => Self::Mark,
            _ => Self::Separator,
        }
    }

    const fn from_bits(bits: u32) -> Self {
        match bits & 3 {
            0 => Self::Separator,
            1 => Self::Mark,
            2 => Self::Letter,
            _ => Self::Single,
        }
    }
}

/// Whether a letter is of a script that puts no spaces between words: Han, kana, Thai, Lao, Tibetan, Myanmar, Khmer.
fn is_unspaced(c: char) -> bool {
    matches!(u32::from(c),
        0xE00..=0xFFF | 0x1000..=0x109F | 0x1780..=0x17FF | 0x3005..=0x3007 | 0x3040..=0x30FF
        | 0x31F0..=0x31FF | 0x3400..=0x4DBF | 0x4E00..=0x9FFF | 0xF900..=0xFAFF
        | 0x1B000..=0x1B16F | 0x20000..=0x3FFFF)
}

/// `\p{M}`.
static MARKS: LazyLock<ClassUnicode> = LazyLock::new(|| {
    let parsed = regex_syntax::parse(r"\p{M}").map(|hir| hir.into_kind());
    match parsed {
        Ok(HirKind::Class(RegexClass::Unicode(class))) => class,
        _ => ClassUnicode::empty(),
    }
});

fn is_mark(c: char) -> bool {
    let ranges = MARKS.ranges();
    let after = ranges.partition_point(|range| range.start() <= c);
    after > 0 && c <= ranges[after - 1].end()
}

/// Normalizes a segment, or a whole text.
fn normalized(text: &str) -> String {
    let composed: String = text.nfkc().map(|(c, _)| c).collect();
    let mut folded = String::with_capacity(composed.len());
    put_fully_folded(&mut folded, &composed);
    // Folding chose the iota subscript, a mark, to represent all iotas. As in Unicode's own table it becomes the letter.
    let iotas = |c| if c == '\u{345}' { '\u{3b9}' } else { c };
    folded.chars().map(iotas).nfkc().map(|(c, _)| c).collect()
}

/// Whether normalization never combines `c` with what is before it.
fn starts_segment(c: char) -> bool {
    let mut bytes = [0; 4];
    let first = c
        .encode_utf8(&mut bytes)
        .nfkd()
        .next()
        .map_or(c, |(c, _)| c);
    canonical_combining_class(first) == 0
        && is_nfc_quick(std::iter::once(first)) == IsNormalized::Yes
}

/// What normalization does with a character: the one character that it becomes, in the low 21 bits; its [`Kind`];
/// and the flags below.
#[derive(Debug, Clone, Copy)]
struct CharEntry(u32);

const CODE_POINT_BITS: u32 = 21;
/// The character alone becomes one character.
const IS_ONE: u32 = 1 << 23;
/// See [`starts_segment`].
const STARTS_SEGMENT: u32 = 1 << 24;

impl CharEntry {
    fn new(c: char) -> Self {
        let mut bytes = [0; 4];
        let text = normalized(c.encode_utf8(&mut bytes));
        let mut chars = text.chars();
        let start = if starts_segment(c) { STARTS_SEGMENT } else { 0 };
        match (chars.next(), chars.next()) {
            (Some(one), None) => {
                let kind = (Kind::of(one) as u32) << CODE_POINT_BITS;
                Self(u32::from(one) | kind | IS_ONE | start)
            }
            _ => Self(start),
        }
    }

    fn kind(self) -> Kind {
        Kind::from_bits(self.0 >> CODE_POINT_BITS)
    }

    fn starts_segment(self) -> bool {
        self.0 & STARTS_SEGMENT != 0
    }

    /// The character that it becomes, if it is one.
    fn one(self) -> Option<char> {
        let code_point = self.0 & ((1 << CODE_POINT_BITS) - 1);
        (self.0 & IS_ONE != 0)
            .then(|| char::from_u32(code_point))
            .flatten()
    }
}

/// The entries of the characters below U+10000. Those above are rare enough to be computed each time.
static ENTRIES: LazyLock<Vec<CharEntry>> = LazyLock::new(|| {
    let of = |code_point| CharEntry::new(char::from_u32(code_point).unwrap_or('\u{FFFD}'));
    (0..0x1_0000).map(of).collect()
});

/// The lower case of each ASCII letter or digit, 0 for separators.
static ASCII: [u8; 128] = {
    let mut folded = [0; 128];
    let mut byte = 0;
    while byte < 128 {
        if (byte as u8).is_ascii_alphanumeric() {
            folded[byte] = (byte as u8).to_ascii_lowercase();
        }
        byte += 1;
    }
    folded
};

/// A word of a text.
#[derive(Debug, Clone, Copy)]
struct Word {
    /// End in the normalized text, where a space follows.
    end: usize,
    /// The bytes of the text that it was made of.
    source: (usize, usize),
}

/// The words of a text. Its buffers are reused.
#[derive(Debug, Default)]
pub(super) struct Words {
    /// The normalized words, each followed by a space. The last word may still be growing.
    normalized: Vec<u8>,
    words: Vec<Word>,
    /// Start of the growing word in `normalized`.
    open: usize,
    /// Its range in the text; the start is that of its first character.
    open_source: (usize, usize),
    /// Whether letters continue it.
    takes_letters: bool,
    n_source_bytes: usize,
}

impl Words {
    /// The words of `text`. Bytes that are not UTF-8 separate words.
    pub(super) fn read(&mut self, text: &[u8]) {
        self.normalized.clear();
        self.words.clear();
        self.open = 0;
        self.n_source_bytes = text.len();
        // Texts are UTF-8 but for decoded tokens, which may be cut anywhere.
        match simdutf8::basic::from_utf8(text) {
            Ok(text) => self.read_utf8(text, 0),
            Err(_) => {
                let mut at = 0;
                for chunk in text.utf8_chunks() {
                    self.read_utf8(chunk.valid(), at);
                    at += chunk.valid().len() + chunk.invalid().len();
                }
            }
        }
    }

    /// Number of words.
    pub(super) fn len(&self) -> usize {
        self.words.len()
    }

    /// Bytes of the text.
    pub(super) fn n_source_bytes(&self) -> usize {
        self.n_source_bytes
    }

    /// The normalized words `range`, which is not empty, with single spaces between them.
    pub(super) fn normalized(&self, range: Range<usize>) -> &[u8] {
        let start = self.start(range.start);
        &self.normalized[start..self.words[range.end - 1].end]
    }

    /// The bytes of the text from the first to the last of the words `range`, which is not empty.
    pub(super) fn source(&self, range: Range<usize>) -> Range<usize> {
        self.words[range.start].source.0..self.words[range.end - 1].source.1
    }

    /// The hash of a word.
    pub(super) fn hash(&self, word: usize) -> u64 {
        hash_bytes(&self.normalized[self.start(word)..self.words[word].end])
    }

    fn start(&self, word: usize) -> usize {
        word.checked_sub(1)
            .map_or(0, |before| self.words[before].end + 1)
    }

    fn read_utf8(&mut self, text: &str, first: usize) {
        let bytes = text.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            // A run of ASCII, but for its last character if another one follows: a mark may.
            let run = at;
            while at < bytes.len() && bytes[at] < 0x80 {
                at += 1;
            }
            let is_end = at == bytes.len();
            let run_end = if is_end { at } else { at.max(run + 1) - 1 };
            self.read_ascii(&bytes[run..run_end], first + run);
            if is_end {
                break;
            }
            at = run_end;
            at += self.read_segment(&text[at..], first + at);
        }
        self.end_word();
    }

    fn read_ascii(&mut self, bytes: &[u8], first: usize) {
        let is_letter = |byte: &u8| ASCII[usize::from(*byte)] != 0;
        let mut at = 0;
        while at < bytes.len() {
            let n = bytes[at..]
                .iter()
                .take_while(|byte| is_letter(byte))
                .count();
            if n == 0 {
                self.end_word();
                at += 1;
                continue;
            }
            let letters = bytes[at..at + n].iter();
            self.begin(Kind::Letter, first + at);
            self.normalized
                .extend(letters.map(|byte| ASCII[usize::from(*byte)]));
            at += n;
            self.open_source.1 = first + at;
        }
    }

    /// Reads the segment that starts `text`; returns its bytes.
    fn read_segment(&mut self, text: &str, first: usize) -> usize {
        let mut chars = text.char_indices();
        let Some((_, c)) = chars.next() else { return 0 };
        let entry = entry_of(c);
        let end = chars
            .find(|(_, c)| entry_of(*c).starts_segment())
            .map_or(text.len(), |(at, _)| at);
        let mut bytes = [0; 4];
        match entry.one() {
            Some(one) if end == c.len_utf8() => {
                let bytes = one.encode_utf8(&mut bytes).as_bytes();
                self.push(entry.kind(), bytes, first, first + end);
            }
            _ => {
                for c in normalized(&text[..end]).chars() {
                    let bytes = c.encode_utf8(&mut bytes).as_bytes();
                    self.push(Kind::of(c), bytes, first, first + end);
                }
            }
        }
        end
    }

    /// Adds a normalized character that was made of `start..end` of the text.
    fn push(&mut self, kind: Kind, c: &[u8], start: usize, end: usize) {
        if kind == Kind::Separator {
            self.end_word();
        } else if self.begin(kind, start) {
            self.normalized.extend_from_slice(c);
            self.open_source.1 = end;
        }
    }

    /// Ends the growing word and begins another one at `start` of the text, unless a character of this kind continues
    /// it. Returns false if the character belongs to no word.
    fn begin(&mut self, kind: Kind, start: usize) -> bool {
        let is_open = self.open < self.normalized.len();
        if is_open && (kind == Kind::Mark || kind == Kind::Letter && self.takes_letters) {
            return true;
        }
        if kind == Kind::Mark {
            return false;
        }
        self.end_word();
        self.open_source.0 = start;
        self.takes_letters = kind == Kind::Letter;
        true
    }

    fn end_word(&mut self) {
        let end = self.normalized.len();
        if self.open == end {
            return;
        }
        self.words.push(Word {
            end,
            source: self.open_source,
        });
        self.normalized.push(b' ');
        self.open = end + 1;
    }
}

fn entry_of(c: char) -> CharEntry {
    let table = &*ENTRIES;
    let entry = table.get(u32::from(c) as usize).copied();
    entry.unwrap_or_else(|| CharEntry::new(c))
}

/// The words of a whole text by the definition: the text is normalized at once.
pub(super) fn words_by_definition(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut last = Kind::Separator;
    for c in normalized(text).chars() {
        let kind = Kind::of(c);
        match (last, kind) {
            (_, Kind::Separator) => last = Kind::Separator,
            (Kind::Separator, Kind::Mark) => {}
            (Kind::Letter, Kind::Letter) | (_, Kind::Mark) => {
                if let Some(word) = found.last_mut() {
                    word.push(c);
                }
            }
            _ => {
                found.push(c.to_string());
                last = kind;
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(text: &str) -> Vec<String> {
        let mut words = Words::default();
        words.read(text.as_bytes());
        let of = |i| String::from_utf8(words.normalized(i..i + 1).to_vec()).unwrap();
        (0..words.len()).map(of).collect()
    }

    #[test]
    fn case_punctuation_lines_and_unicode_forms_do_not_matter() {
        let plain = words("don t stop the cafe\u{301} at 12 30 strasse ﬁne");
        assert_eq!(
            plain,
            [
                "don",
                "t",
                "stop",
                "the",
                "caf\u{e9}",
                "at",
                "12",
                "30",
                "strasse",
                "fine"
            ]
        );
        for text in [
            "Don't stop:\n\tthe CAFÉ — at 12:30_STRAßE (fine)!",
            "ＤＯＮ’Ｔ　ＳＴＯＰ ｔｈｅ cafe\u{301}; at １２．３０ Straße \u{fb01}ne",
        ] {
            assert_eq!(words(text), plain, "{text}");
        }
        // The mark of "not equal" is a separator in either form.
        assert_eq!(words("a\u{2260}b"), words("a=\u{338}b"));
        assert_eq!(words(" \u{301}\u{301} ... "), [] as [&str; 0]);
    }

    #[test]
    fn letters_of_unspaced_scripts_are_words() {
        assert_eq!(words("東京abc都2x"), ["東", "京", "abc", "都", "2x"]);
        assert_eq!(words("ｶﾞ か\u{3099}"), ["ガ", "が"]);
        assert_eq!(
            words("한국어 \u{1112}\u{1161}\u{11ab}국어"),
            ["한국어", "한국어"]
        );
        assert_eq!(words("ดี"), ["ดี"]);
    }

    #[test]
    fn words_have_their_bytes_in_the_text() {
        let text = "é, Ａ１ ﬁ½x";
        let mut words = Words::default();
        words.read(text.as_bytes());
        let source = |range: Range<usize>| &text[words.source(range)];
        assert_eq!(source(0..1), "é");
        assert_eq!(source(1..2), "Ａ１");
        // Half becomes two words, of the same bytes.
        assert_eq!(words.normalized(2..4), b"fi1 2x");
        assert_eq!(source(2..3), "ﬁ½");
        assert_eq!(source(3..4), "½x");
        let mut cut = Words::default();
        cut.read(b"ab\xffcd \xc3");
        assert_eq!(cut.normalized(0..cut.len()), b"ab cd");
        assert_eq!(cut.source(1..2), 3..5);
    }

    #[test]
    fn every_character_alone_and_after_a_letter() {
        for c in '\0'..=char::MAX {
            for text in [format!("{c}"), format!("e{c}\u{301}")] {
                assert_eq!(words(&text), words_by_definition(&text), "{c:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn segments_equal_the_whole_text(
            text in "([a-zA-Z0-9 .,_=é\u{300}-\u{345}\u{1100}-\u{11ff}\u{ac00}-\u{ac20}\u{ff00}-\u{ffa0}\u{1f80}-\u{1fff}]|ß|İ|ǰ|\u{3099}|か|東|\\PC){0,24}",
        ) {
            prop_assert_eq!(words(&text), words_by_definition(&text));
        }

        #[test]
        fn forms_of_a_text_have_the_same_words(text in "\\PC{0,24}") {
            let nfd: String = text.nfd().map(|(c, _)| c).collect();
            let nfkc: String = text.nfkc().map(|(c, _)| c).collect();
            prop_assert_eq!(&words(&text), &words(&nfd));
            prop_assert_eq!(words(&text), words(&nfkc));
        }
    }
}
