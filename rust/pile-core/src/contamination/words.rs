//! The words of a text, as benchmark items and documents are compared.
//!
//! A text is normalized by NFKC, full case folding and NFKC again. A word is a letter or number and the letters,
//! marks and numbers that follow it; everything else separates words. In scripts that put no spaces between words
//! each letter, with its marks, is a word.
//!
//! Each word keeps the range of bytes that it has in the text. So a text is not normalized as a whole, but in
//! segments that start where normalization cannot reach across: almost always at each character.
//!
//! Few texts have anything of an item. [`WordNumbers`] has no more than what tells whether a text may have, and does
//! not copy the words of ASCII. [`Words`] also has the normalized words, for the comparison.

use std::{ops::Range, sync::LazyLock};

use regex_syntax::hir::{Class as RegexClass, ClassUnicode, HirKind};
use unicode_normalization_alignments::{
    IsNormalized, UnicodeNormalization, char::canonical_combining_class, is_nfc_quick,
};

use crate::{
    dedup::hash::{BASE, fold},
    text::{
        ascii_masks::{BLOCK_BYTES, ascii_masks, ascii_masks_of_tail},
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

/// A bit for each of the first 64 bytes, from the lowest on, set for letters and digits of ASCII.
#[inline]
fn letter_bits(bytes: &[u8]) -> u64 {
    let masks = match bytes.first_chunk() {
        Some(block) => ascii_masks(block),
        None => ascii_masks_of_tail(bytes),
    };
    masks.letter | masks.number
}

/// Calls `take` with the first and the end of each run of letters and digits among the bytes `range` of a text.
#[inline]
fn each_letter_run(text: &[u8], range: Range<usize>, mut take: impl FnMut(usize, usize)) {
    let mut at = range.start;
    while at < range.end {
        let n = (range.end - at).min(BLOCK_BYTES);
        let mut rest = letter_bits(&text[at..]) & (u64::MAX >> (BLOCK_BYTES - n));
        let mut next = at + n;
        while rest != 0 {
            let start = rest.trailing_zeros() as usize;
            // Added to a run of ones, its lowest bit carries to the bit after the run, and clears the run.
            let (carried, is_cut) = rest.overflowing_add(1 << start);
            if is_cut {
                // The run reaches the end of the block, and may go on. The next block starts with it.
                next = at + start;
                break;
            }
            take(at + start, at + carried.trailing_zeros() as usize);
            rest &= carried;
        }
        if next == at {
            // A run longer than a block.
            next += n_letters(&text[at..range.end]);
            take(at, next);
        }
        at = next;
    }
}

/// Number of letters and digits of ASCII at the start.
fn n_letters(bytes: &[u8]) -> usize {
    let is_letter = |byte: &&u8| byte.is_ascii_alphanumeric();
    bytes.iter().take_while(is_letter).count()
}

/// Number of letters and digits of ASCII at the end.
fn n_letters_at_end(bytes: &[u8]) -> usize {
    let is_letter = |byte: &&u8| byte.is_ascii_alphanumeric();
    bytes.iter().rev().take_while(is_letter).count()
}

/// Number of bytes of ASCII at the start.
fn n_ascii(bytes: &[u8]) -> usize {
    let (chunks, rest) = bytes.as_chunks::<16>();
    for (number, chunk) in chunks.iter().enumerate() {
        let others = u128::from_le_bytes(*chunk) & (u128::MAX / 0xFF * 0x80);
        if others != 0 {
            return 16 * number + (others.trailing_zeros() / 8) as usize;
        }
    }
    let n_of_rest = rest.iter().take_while(|byte| byte.is_ascii()).count();
    16 * chunks.len() + n_of_rest
}

/// The bit that tells the cases of ASCII letters apart, for 8 bytes. It is set in lower case, and in digits.
const LOWER: u64 = u64::MAX / 0xFF * 0x20;

/// The hash of the word `range` of a text. `lower` is set in all bytes of the word. The text may go on after the word.
#[inline]
fn word_hash(text: &[u8], range: Range<usize>, lower: u64) -> u64 {
    const KEYS: [u64; 2] = [0xA076_1D64_78BD_642F, 0xD6E8_FEB8_6659_FD93];
    let (mut start, mut hash) = (range.start, KEYS[0]);
    loop {
        let n = range.end - start;
        let bytes = text
            .get(start..start + 8)
            .and_then(|bytes| bytes.first_chunk());
        let bytes = match bytes {
            Some(bytes) => u64::from_le_bytes(*bytes),
            None => {
                (text[start..].iter().rev()).fold(0, |number, byte| number << 8 | u64::from(*byte))
            }
        };
        if n <= 8 {
            // No word has a byte of zero, so the length need not be hashed.
            return fold(hash ^ (bytes | lower) & u64::MAX >> (64 - 8 * n), KEYS[1]);
        }
        hash = fold(hash ^ (bytes | lower), KEYS[1]);
        start += 8;
    }
}

/// Takes the words of a text as they are read.
trait WordSink {
    /// Takes a word of ASCII letters and digits.
    fn take(&mut self, text: &[u8], word: Range<usize>);
    /// Starts a word at this byte of the text. The last word was ended.
    fn start(&mut self, at: usize);
    /// Adds ASCII letters and digits of the text to the word.
    fn grow(&mut self, text: &[u8], letters: Range<usize>);
    /// Adds a normalized character, made of the text up to `end`, to the word.
    fn grow_char(&mut self, c: char, end: usize);
    fn end(&mut self);
}

/// Reads the words of a text into a sink.
struct WordReader<'a, S> {
    text: &'a [u8],
    sink: &'a mut S,
    /// Those of [`ENTRIES`], each access to which checks for its initialization.
    entries: &'static [CharEntry],
    /// Whether there is a word that may still grow.
    is_open: bool,
    /// Whether letters continue it.
    takes_letters: bool,
}

impl<'a, S: WordSink> WordReader<'a, S> {
    /// Reads `text`. Bytes that are not UTF-8 separate words.
    fn read(text: &'a [u8], sink: &'a mut S) {
        let mut reader = Self {
            text,
            sink,
            entries: &ENTRIES,
            is_open: false,
            takes_letters: false,
        };
        // Texts are UTF-8 but for decoded tokens, which may be cut anywhere.
        match simdutf8::basic::from_utf8(text) {
            Ok(text) => reader.read_utf8(text, 0),
            Err(_) => {
                let mut at = 0;
                for chunk in text.utf8_chunks() {
                    reader.read_utf8(chunk.valid(), at);
                    at += chunk.valid().len() + chunk.invalid().len();
                }
            }
        }
    }

    /// Reads `text`, which starts at byte `first`.
    fn read_utf8(&mut self, text: &str, first: usize) {
        let bytes = text.as_bytes();
        let mut at = 0;
        loop {
            // A run of ASCII, but for its last character if another one follows: a mark may.
            let run = at;
            at += n_ascii(&bytes[at..]);
            if at == bytes.len() {
                self.read_ascii(first + run..first + at, true);
                return self.end_word();
            }
            at = at.max(run + 1) - 1;
            self.read_ascii(first + run..first + at, false);
            at = self.read_segments(text, at, first);
        }
    }

    /// Reads ASCII of the text. Unless it `is_last`, the characters after it may continue its last word.
    fn read_ascii(&mut self, mut range: Range<usize>, is_last: bool) {
        let text = self.text;
        if self.is_open && self.takes_letters {
            let n = n_letters(&text[range.clone()]);
            self.sink.grow(text, range.start..range.start + n);
            range.start += n;
        }
        if range.is_empty() {
            return;
        }
        self.end_word();
        let n_open = match is_last {
            true => 0,
            false => n_letters_at_end(&text[range.clone()]),
        };
        let open = range.end - n_open..range.end;
        each_letter_run(text, range.start..open.start, |start, end| {
            self.sink.take(text, start..end);
        });
        if !open.is_empty() {
            self.begin(Kind::Letter, open.start);
            self.sink.grow(text, open);
        }
    }

    /// Reads the segments from byte `at` of `text` on, which starts at byte `first`, up to the next character of ASCII
    /// after the first character. Returns where that is.
    fn read_segments(&mut self, text: &str, mut at: usize, first: usize) -> usize {
        let mut next = self.entry_at(text, at);
        while let Some((c, entry)) = next {
            let mut end = at + c.len_utf8();
            next = self.entry_at(text, end);
            match entry.one() {
                Some(one) if next.is_none_or(|(_, next)| next.starts_segment()) => {
                    self.push(entry.kind(), one, first + at..first + end);
                }
                _ => {
                    while let Some((c, entry)) = next
                        && !entry.starts_segment()
                    {
                        end += c.len_utf8();
                        next = self.entry_at(text, end);
                    }
                    for c in normalized(&text[at..end]).chars() {
                        self.push(Kind::of(c), c, first + at..first + end);
                    }
                }
            }
            at = end;
            if next.is_some_and(|(c, _)| c.is_ascii()) {
                break;
            }
        }
        at
    }

    /// The character at a byte of `text`, and its entry.
    #[inline]
    fn entry_at(&self, text: &str, at: usize) -> Option<(char, CharEntry)> {
        let c = text[at..].chars().next()?;
        let entry = self.entries.get(u32::from(c) as usize).copied();
        Some((c, entry.unwrap_or_else(|| CharEntry::new(c))))
    }

    /// Adds a normalized character that was made of the bytes `source` of the text.
    fn push(&mut self, kind: Kind, c: char, source: Range<usize>) {
        if kind == Kind::Separator {
            self.end_word();
        } else if self.begin(kind, source.start) {
            self.sink.grow_char(c, source.end);
        }
    }

    /// Ends the growing word and begins another one at `start` of the text, unless a character of this kind continues
    /// it. Returns false if the character belongs to no word.
    fn begin(&mut self, kind: Kind, start: usize) -> bool {
        if self.is_open && (kind == Kind::Mark || kind == Kind::Letter && self.takes_letters) {
            return true;
        }
        if kind == Kind::Mark {
            return false;
        }
        self.end_word();
        self.sink.start(start);
        self.is_open = true;
        self.takes_letters = kind == Kind::Letter;
        true
    }

    fn end_word(&mut self) {
        if self.is_open {
            self.sink.end();
            self.is_open = false;
        }
    }
}

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
    /// The range of the growing word in the text; the start is that of its first character.
    open_source: (usize, usize),
}

impl WordSink for Words {
    fn take(&mut self, text: &[u8], word: Range<usize>) {
        self.open_source = (word.start, word.end);
        put_lower(&mut self.normalized, text, word);
        self.end();
    }

    fn start(&mut self, at: usize) {
        self.open_source.0 = at;
    }

    fn grow(&mut self, text: &[u8], letters: Range<usize>) {
        self.open_source.1 = letters.end;
        put_lower(&mut self.normalized, text, letters);
    }

    fn grow_char(&mut self, c: char, end: usize) {
        put_char(&mut self.normalized, c);
        self.open_source.1 = end;
    }

    fn end(&mut self) {
        self.words.push(Word {
            end: self.normalized.len(),
            source: self.open_source,
        });
        self.normalized.push(b' ');
    }
}

impl Words {
    /// The words of `text`. Bytes that are not UTF-8 separate words.
    pub(super) fn read(&mut self, text: &[u8]) {
        self.normalized.clear();
        self.words.clear();
        WordReader::read(text, self);
    }

    /// Number of words.
    pub(super) fn len(&self) -> usize {
        self.words.len()
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

    /// Number of words that end at or before a byte of the text.
    pub(super) fn n_before(&self, byte: usize) -> usize {
        self.words.partition_point(|word| word.source.1 <= byte)
    }

    /// The first word that starts at or after a byte of the text; the number of words if none does.
    pub(super) fn first_after(&self, byte: usize) -> usize {
        self.words.partition_point(|word| word.source.0 < byte)
    }

    /// The hash of a word, that of [`WordNumbers`].
    pub(super) fn hash(&self, word: usize) -> u64 {
        let range = self.start(word)..self.words[word].end;
        word_hash(&self.normalized, range, 0)
    }

    fn start(&self, word: usize) -> usize {
        word.checked_sub(1)
            .map_or(0, |before| self.words[before].end + 1)
    }
}

/// The words of a text as numbers and positions, without the normalized words. Its buffers are reused.
#[derive(Debug)]
pub(super) struct WordNumbers {
    /// Those whose digits in base [`BASE`] are the hashes of the first words: of none, one, two and so on.
    prefixes: Vec<u64>,
    /// By word, the first byte of the text that it was made of and the end.
    sources: Vec<(usize, usize)>,
    /// The normalized bytes of the growing word, and where it is in the text.
    open: Vec<u8>,
    open_source: (usize, usize),
    n_source_bytes: usize,
}

impl Default for WordNumbers {
    fn default() -> Self {
        Self {
            prefixes: vec![0],
            sources: Vec::new(),
            open: Vec::new(),
            open_source: (0, 0),
            n_source_bytes: 0,
        }
    }
}

impl WordSink for WordNumbers {
    #[inline]
    fn take(&mut self, text: &[u8], word: Range<usize>) {
        let source = (word.start, word.end);
        self.push(word_hash(text, word, LOWER), source);
    }

    fn start(&mut self, at: usize) {
        self.open_source.0 = at;
    }

    fn grow(&mut self, text: &[u8], letters: Range<usize>) {
        self.open_source.1 = letters.end;
        put_lower(&mut self.open, text, letters);
    }

    fn grow_char(&mut self, c: char, end: usize) {
        put_char(&mut self.open, c);
        self.open_source.1 = end;
    }

    fn end(&mut self) {
        self.push(
            word_hash(&self.open, 0..self.open.len(), 0),
            self.open_source,
        );
        self.open.clear();
    }
}

impl WordNumbers {
    /// The words of `text`, as [`Words::read`].
    pub(super) fn read(&mut self, text: &[u8]) {
        self.prefixes.truncate(1);
        self.sources.clear();
        self.n_source_bytes = text.len();
        WordReader::read(text, self);
    }

    #[inline]
    fn push(&mut self, hash: u64, source: (usize, usize)) {
        let last = self.prefixes[self.prefixes.len() - 1];
        self.prefixes
            .push(last.wrapping_mul(BASE).wrapping_add(hash));
        self.sources.push(source);
    }

    /// Number of words.
    pub(super) fn len(&self) -> usize {
        self.sources.len()
    }

    /// Bytes of the text.
    pub(super) fn n_source_bytes(&self) -> usize {
        self.n_source_bytes
    }

    /// As [`Words::source`].
    pub(super) fn source(&self, range: Range<usize>) -> Range<usize> {
        self.sources[range.start].0..self.sources[range.end - 1].1
    }

    /// The numbers whose digits are the hashes of the first words: of none, one, two and so on.
    pub(super) fn prefixes(&self) -> &[u64] {
        &self.prefixes
    }
}

/// Appends ASCII letters and digits of a text in lower case.
#[inline]
fn put_lower(out: &mut Vec<u8>, text: &[u8], letters: Range<usize>) {
    let end = out.len() + letters.len();
    match text[letters.start..].first_chunk() {
        // Most words are short, and a copy of fixed length needs no call. What follows the word is cut again.
        Some(chunk) if letters.len() <= chunk.len() => {
            let lower = u128::from_le_bytes(*chunk) | (u128::MAX / 0xFF * 0x20);
            out.extend_from_slice(&lower.to_le_bytes());
            out.truncate(end);
        }
        _ => out.extend(text[letters].iter().map(u8::to_ascii_lowercase)),
    }
}

/// Appends a character.
#[inline]
fn put_char(out: &mut Vec<u8>, c: char) {
    let mut bytes = [0; 4];
    let end = out.len() + c.encode_utf8(&mut bytes).len();
    // A copy of fixed length needs no call.
    out.extend_from_slice(&bytes);
    out.truncate(end);
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
    use proptest::{collection::vec, prelude::*};

    /// Words of ASCII, some long, and characters that become several or join others.
    const TEXTS: &str =
        "([a-zA-Z0-9]{1,20}|[ .,_\n-]{1,3}|[\u{300}-\u{345}½ﬁ㍻東かßéД]|\\PC){0,60}";

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
    fn letters_of_ascii_are_found_at_all_offsets() {
        let every: Vec<u8> = (0..128).cycle().take(300).collect();
        let long = [b"- ", "a1".repeat(100).as_bytes(), b" b"].concat();
        let texts = (0..130).zip((0..170).rev());
        let texts = texts.flat_map(|(start, n)| [(&every, start, n), (&long, start, n.min(60))]);
        for (text, start, n) in texts {
            let bytes = &text[start..start + n];
            let mut is_letter = vec![false; n];
            let mut last = None;
            each_letter_run(text, start..start + n, |first, end| {
                assert!(first < end && last.is_none_or(|last| last < first));
                last = Some(end);
                is_letter[first - start..end - start].fill(true);
            });
            let expected: Vec<bool> = bytes.iter().map(u8::is_ascii_alphanumeric).collect();
            assert_eq!(is_letter, expected, "{start}");
            assert_eq!(n_ascii(bytes), n);
            if n > 0 {
                let mut other = bytes.to_vec();
                other[n - 1] = 0x80;
                assert_eq!(n_ascii(&other), n - 1);
            }
        }
    }

    #[test]
    fn hashes_tell_words_apart_and_not_cases() {
        let words = |text: &str| {
            let mut numbers = WordNumbers::default();
            numbers.read(text.as_bytes());
            numbers.prefixes()[1..].to_vec()
        };
        // Each in a text that ends with it, in one that goes on, and with a letter that is not of ASCII.
        for n in 1..40 {
            let word = "abcdefgh1".repeat(5)[..n].to_owned();
            let hash = words(&word);
            assert_eq!(hash, words(&word.to_uppercase()));
            assert_eq!(hash[0], words(&format!("{word} and some more words"))[0]);
            for at in 0..n {
                let mut other = word.clone();
                other.replace_range(at..=at, "z");
                assert_ne!(hash, words(&other));
                other.replace_range(at..=at, "\u{e9}");
                assert_eq!(words(&other), words(&other.to_uppercase()));
            }
        }
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
        fn long_runs_of_ascii_equal_the_whole_text(
            text in "([a-zA-Z0-9]{1,20}|[a-z]{60,140}|[ .,_\n-]{1,70}|[\u{300}-\u{345}½ﬁ㍻東かßéД]|\\PC){0,30}",
        ) {
            prop_assert_eq!(words(&text), words_by_definition(&text));
        }

        #[test]
        fn numbers_have_the_words_of_the_text(text in TEXTS, bytes in vec(any::<u8>(), 0..8), at in 0_usize..200) {
            let mut text = text.into_bytes();
            let at = at.min(text.len());
            text.splice(at..at, bytes);
            let (mut words, mut numbers) = (Words::default(), WordNumbers::default());
            words.read(&text);
            numbers.read("other words".as_bytes());
            numbers.read(&text);
            prop_assert_eq!(words.len(), numbers.len());
            let mut number: u64 = 0;
            for word in 0..words.len() {
                number = number.wrapping_mul(BASE).wrapping_add(words.hash(word));
                prop_assert_eq!(number, numbers.prefixes()[word + 1]);
                prop_assert_eq!(words.source(word..word + 1), numbers.source(word..word + 1));
            }
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
