//! A fast parser of one record, in one pass over the line. It validates all of the JSON, but builds only the text.
//!
//! It supports the usual forms of records and returns `None` for everything else. [`super::reference`], based
//! on serde_json, then parses the line: it supports all forms and its errors say what is wrong. For every
//! line that this parser accepts, both return the same document; the tests below compare them.

use std::{borrow::Cow, ops::Range};

use super::Document;

/// Limit on the nesting of skipped arrays and objects, which are tracked in the bits of a `u64`.
const MAX_DEPTH: u32 = 64;

/// Joins the strings of a text that is a list.
pub(super) const JOINER: &str = "\n\n";

/// A parsed record, as ranges of the line and the scratch buffer.
pub(super) struct ParsedRecord {
    text: TextLocation,
    subset: Option<Range<usize>>,
    n_lone_surrogates: u64,
}

/// The location of the text.
enum TextLocation {
    /// A range of the line: the text has no escapes.
    Line(Range<usize>),
    /// This many bytes from the start of the scratch buffer: the text was unescaped.
    Scratch(usize),
}

impl ParsedRecord {
    /// The document. `line` and `scratch` must be those of [`parse`].
    pub(super) fn document<'a>(self, line: &'a str, scratch: &'a [u8]) -> Option<Document<'a>> {
        let text = match self.text {
            TextLocation::Line(range) => &line[range],
            TextLocation::Scratch(n_bytes) => {
                simdutf8::basic::from_utf8(&scratch[..n_bytes]).ok()?
            }
        };
        Some(Document {
            text: Cow::Borrowed(text),
            subset: self.subset.map(|range| Cow::Borrowed(&line[range])),
            n_lone_surrogates: self.n_lone_surrogates,
        })
    }
}

/// Parses a line; `None` if this parser does not support it. A text with escapes is built in `scratch`.
pub(super) fn parse(line: &str, text_field: &str, scratch: &mut Vec<u8>) -> Option<ParsedRecord> {
    let mut parser = RecordParser {
        line: line.as_bytes(),
        at: 0,
        n_lone_surrogates: 0,
    };
    let (text, subset) = parser.record(text_field, scratch)?;
    Some(ParsedRecord {
        text,
        subset,
        n_lone_surrogates: parser.n_lone_surrogates,
    })
}

/// A parser over a line. Its methods return `None` if the line is not supported.
struct RecordParser<'a> {
    /// Valid UTF-8.
    line: &'a [u8],
    /// The next byte.
    at: usize,
    n_lone_surrogates: u64,
}

impl RecordParser<'_> {
    /// Parses the whole line: the location of the text and the range of the subset.
    fn record(
        &mut self,
        text_field: &str,
        scratch: &mut Vec<u8>,
    ) -> Option<(TextLocation, Option<Range<usize>>)> {
        let (mut text, mut subset) = (None, None);
        self.skip_space();
        match self.next()? {
            b'"' => text = Some(self.text(scratch)?),
            b'{' => {
                let mut is_first = true;
                while let Some(key) = self.next_key(is_first)? {
                    is_first = false;
                    match &self.line[key] {
                        name if name == text_field.as_bytes() => {
                            text = Some(self.text_value(scratch)?);
                        }
                        b"meta" => subset = self.subset()?,
                        _ => self.skip_value()?,
                    }
                }
            }
            _ => return None,
        }
        self.skip_space();
        (self.at == self.line.len()).then_some((text?, subset))
    }

    /// Parses the value of `meta`: the range of `pile_set_name`, if the value is an object and has it as a string.
    #[allow(clippy::option_option)] // The outer option is the parser's.
    fn subset(&mut self) -> Option<Option<Range<usize>>> {
        self.skip_space();
        if self.peek() != Some(b'{') {
            self.skip_value()?;
            return Some(None);
        }
        self.at += 1;
        let (mut subset, mut is_first) = (None, true);
        while let Some(key) = self.next_key(is_first)? {
            is_first = false;
            self.skip_space();
            if &self.line[key] != b"pile_set_name" {
                self.skip_value()?;
            } else if self.peek() == Some(b'"') {
                self.at += 1;
                subset = Some(self.unescaped_string()?);
            } else {
                self.skip_value()?;
                subset = None;
            }
        }
        Some(subset)
    }

    /// Parses the value of the text: a string or a list of strings.
    fn text_value(&mut self, scratch: &mut Vec<u8>) -> Option<TextLocation> {
        // If a key occurs twice, the last value counts.
        self.n_lone_surrogates = 0;
        self.skip_space();
        match self.next()? {
            b'"' => self.text(scratch),
            b'[' => self.list(scratch),
            _ => None,
        }
    }

    /// Parses a list of strings after its opening bracket, and joins them.
    fn list(&mut self, scratch: &mut Vec<u8>) -> Option<TextLocation> {
        self.reserve(scratch);
        let mut n = 0;
        self.skip_space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Some(TextLocation::Scratch(0));
        }
        loop {
            self.skip_space();
            if self.next()? != b'"' {
                return None;
            }
            n = self.unescape(scratch, n)?;
            self.skip_space();
            match self.next()? {
                b',' => {
                    scratch[n..n + JOINER.len()].copy_from_slice(JOINER.as_bytes());
                    n += JOINER.len();
                }
                b']' => return Some(TextLocation::Scratch(n)),
                _ => return None,
            }
        }
    }

    /// Parses a text after its opening quote.
    fn text(&mut self, scratch: &mut Vec<u8>) -> Option<TextLocation> {
        let start = self.at;
        self.skip_ordinary();
        if self.peek()? == b'"' {
            self.at += 1;
            return Some(TextLocation::Line(start..self.at - 1));
        }
        self.reserve(scratch);
        let n = self.at - start;
        scratch[..n].copy_from_slice(&self.line[start..self.at]);
        self.unescape(scratch, n).map(TextLocation::Scratch)
    }

    /// Makes the scratch buffer long enough for any text of the line.
    ///
    /// An unescaped text is never longer than its escaped form: `\uXXXX` has six bytes and becomes at most
    /// three. The joiner has two bytes, and `","` between two strings has three. [`Self::unescape`] copies
    /// whole chunks, so up to [`CHUNK`] bytes more are written.
    fn reserve(&self, scratch: &mut Vec<u8>) {
        let needed = self.line.len() + CHUNK;
        if scratch.len() < needed {
            scratch.resize(needed, 0);
        }
    }

    /// Unescapes the rest of a string to `out[n..]`, up to its closing quote, which is consumed. Returns the
    /// end in `out`.
    fn unescape(&mut self, out: &mut [u8], mut n: usize) -> Option<usize> {
        loop {
            let rest = &self.line[self.at..];
            let n_ordinary = match rest.first_chunk() {
                Some(chunk) => {
                    // Copies the whole chunk, which is faster than a copy of variable length. The bytes after the
                    // ordinary ones are overwritten next.
                    out[n..n + CHUNK].copy_from_slice(chunk);
                    ordinary_bytes(chunk)
                }
                None => {
                    let n_ordinary = rest.iter().take_while(|byte| !is_special(**byte)).count();
                    out[n..n + n_ordinary].copy_from_slice(&rest[..n_ordinary]);
                    n_ordinary
                }
            };
            self.at += n_ordinary;
            n += n_ordinary;
            if n_ordinary == CHUNK {
                continue;
            }
            match self.next()? {
                b'"' => return Some(n),
                b'\\' => n = self.escapes(out, n)?,
                _ => return None,
            }
        }
    }

    /// Unescapes consecutive escapes, after the first backslash. Texts in other scripts than Latin have long
    /// runs of them.
    fn escapes(&mut self, out: &mut [u8], mut n: usize) -> Option<usize> {
        loop {
            let escape = self.next()?;
            if escape == b'u' {
                let unit = self.hex()?;
                n += self.push_unit(unit, out[n..].first_chunk_mut()?);
            } else {
                out[n] = unescaped(escape)?;
                n += 1;
            }
            if self.peek() != Some(b'\\') {
                return Some(n);
            }
            self.at += 1;
        }
    }

    /// Writes the UTF-8 of a UTF-16 code unit. If it is a high surrogate and the next escape is a low one,
    /// writes the character of the pair. Returns the number of bytes.
    #[inline]
    fn push_unit(&mut self, unit: u32, out: &mut [u8; 4]) -> usize {
        match unit {
            0..0x80 => {
                out[0] = unit as u8;
                1
            }
            0x80..0x800 => {
                out[0] = 0xC0 | (unit >> 6) as u8;
                out[1] = 0x80 | (unit & 0x3F) as u8;
                2
            }
            0xD800..0xE000 => self.push_surrogate(unit, out),
            _ => {
                out[0] = 0xE0 | (unit >> 12) as u8;
                out[1] = 0x80 | (unit >> 6 & 0x3F) as u8;
                out[2] = 0x80 | (unit & 0x3F) as u8;
                3
            }
        }
    }

    /// Does [`Self::push_unit`] for a surrogate. A lone one becomes U+FFFD and is counted.
    ///
    /// Cold, so that the common cases stay small enough to be inlined.
    #[cold]
    fn push_surrogate(&mut self, high: u32, out: &mut [u8; 4]) -> usize {
        let after_unit = self.at;
        let low = match self.line[self.at..] {
            [b'\\', b'u', ..] if high < 0xDC00 => {
                self.at += 2;
                self.hex().filter(|low| (0xDC00..0xE000).contains(low))
            }
            _ => None,
        };
        let pair =
            low.and_then(|low| char::from_u32(0x1_0000 + ((high - 0xD800) << 10) + low - 0xDC00));
        let char = pair.unwrap_or_else(|| {
            self.at = after_unit;
            self.n_lone_surrogates += 1;
            char::REPLACEMENT_CHARACTER
        });
        char.encode_utf8(out).len()
    }

    /// Parses four hexadecimal digits.
    #[inline]
    fn hex(&mut self) -> Option<u32> {
        let digits: &[u8; 4] = self.line[self.at..].first_chunk()?;
        self.at += 4;
        let [a, b, c, d] = digits.map(|digit| i32::from(HEX[usize::from(digit)]));
        // A digit of -1 has all bits set, which makes the sum negative.
        u32::try_from(a << 12 | b << 8 | c << 4 | d).ok()
    }

    /// Parses the next key of an object and its colon. Returns `Some(None)` after the closing brace. A key
    /// with escapes is not supported.
    #[allow(clippy::option_option)] // The outer option is the parser's.
    fn next_key(&mut self, is_first: bool) -> Option<Option<Range<usize>>> {
        self.skip_space();
        let mut byte = self.next()?;
        if byte == b'}' {
            return Some(None);
        }
        if !is_first {
            if byte != b',' {
                return None;
            }
            self.skip_space();
            byte = self.next()?;
        }
        if byte != b'"' {
            return None;
        }
        let key = self.unescaped_string()?;
        self.skip_space();
        (self.next()? == b':').then_some(Some(key))
    }

    /// Parses a string without escapes, after its opening quote.
    fn unescaped_string(&mut self) -> Option<Range<usize>> {
        let start = self.at;
        self.skip_ordinary();
        (self.next()? == b'"').then_some(start..self.at - 1)
    }

    /// Skips a value of any kind.
    fn skip_value(&mut self) -> Option<()> {
        // A stack of the open arrays and objects, without recursion: one bit each, 1 for an object, the
        // innermost in the lowest bit.
        let (mut open, mut depth) = (0_u64, 0);
        loop {
            self.skip_space();
            let opened = match self.next()? {
                b'"' => {
                    self.skip_string()?;
                    None
                }
                b'{' => Some((1, b'}')),
                b'[' => Some((0, b']')),
                byte => {
                    self.skip_scalar(byte)?;
                    None
                }
            };
            if let Some((kind, closing)) = opened {
                self.skip_space();
                if self.peek()? == closing {
                    self.at += 1;
                } else {
                    if depth == MAX_DEPTH {
                        return None;
                    }
                    (open, depth) = (open << 1 | kind, depth + 1);
                    if kind == 1 {
                        self.skip_key()?;
                    }
                    continue;
                }
            }
            // A value has ended: close arrays and objects until one continues with a comma.
            loop {
                if depth == 0 {
                    return Some(());
                }
                self.skip_space();
                match (self.next()?, open & 1) {
                    (b',', 1) => {
                        self.skip_key()?;
                        break;
                    }
                    (b',', _) => break,
                    (b'}', 1) | (b']', 0) => (open, depth) = (open >> 1, depth - 1),
                    _ => return None,
                }
            }
        }
    }

    /// Skips a key and its colon.
    fn skip_key(&mut self) -> Option<()> {
        self.skip_space();
        if self.next()? != b'"' {
            return None;
        }
        self.skip_string()?;
        self.skip_space();
        (self.next()? == b':').then_some(())
    }

    /// Skips a string after its opening quote.
    fn skip_string(&mut self) -> Option<()> {
        loop {
            self.skip_ordinary();
            match self.next()? {
                b'"' => return Some(()),
                b'\\' => match self.next()? {
                    b'u' => drop(self.hex()?),
                    escape => drop(unescaped(escape)?),
                },
                _ => return None,
            }
        }
    }

    /// Skips a number, a literal or a constant, after its first byte.
    fn skip_scalar(&mut self, first: u8) -> Option<()> {
        let word: &[u8] = match first {
            b't' => b"rue",
            b'f' => b"alse",
            b'n' => b"ull",
            // Python's json writes these constants, which are not JSON.
            b'N' => b"aN",
            b'I' => b"nfinity",
            b'-' if self.peek() == Some(b'I') => b"Infinity",
            _ => return self.skip_number(first),
        };
        self.at += word.len();
        (self.line.get(self.at - word.len()..self.at)? == word).then_some(())
    }

    fn skip_number(&mut self, first: u8) -> Option<()> {
        let first = if first == b'-' { self.next()? } else { first };
        match first {
            b'0' => {}
            b'1'..=b'9' => self.skip_digits(),
            _ => return None,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.skip_some_digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.skip_some_digits()?;
        }
        // A digit after a leading zero is found by the caller, which expects a comma or a bracket.
        Some(())
    }

    /// Skips digits, of which there must be at least one.
    fn skip_some_digits(&mut self) -> Option<()> {
        let is_digit = self.peek()?.is_ascii_digit();
        self.skip_digits();
        is_digit.then_some(())
    }

    fn skip_digits(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
    }

    /// Skips to the next quote, backslash or control character, or to the end of the line.
    #[inline]
    fn skip_ordinary(&mut self) {
        while let Some(chunk) = self.line[self.at..].first_chunk() {
            let n_ordinary = ordinary_bytes(chunk);
            self.at += n_ordinary;
            if n_ordinary < CHUNK {
                return;
            }
        }
        let rest = &self.line[self.at..];
        self.at += rest.iter().take_while(|byte| !is_special(**byte)).count();
    }

    #[inline]
    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.line.get(self.at).copied()
    }

    #[inline]
    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }
}

/// The character of an escape: the byte that a backslash followed by `escape` means. `u` is handled elsewhere.
#[inline]
fn unescaped(escape: u8) -> Option<u8> {
    Some(match escape {
        b'"' | b'\\' | b'/' => escape,
        b'b' => 0x08,
        b'f' => 0x0C,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        _ => return None,
    })
}

/// The value of each hexadecimal digit; -1 for other bytes.
const HEX: [i8; 256] = {
    let mut values = [-1; 256];
    let mut value = 0;
    while value < 16 {
        let digit = b"0123456789abcdef"[value];
        values[digit as usize] = value as i8;
        values[digit.to_ascii_uppercase() as usize] = value as i8;
        value += 1;
    }
    values
};

/// Bytes that are examined together: the width of an SSE2 register.
const CHUNK: usize = 16;

/// Whether a byte of a string is special: a quote, a backslash, or a control character, which JSON forbids in
/// strings.
fn is_special(byte: u8) -> bool {
    matches!(byte, b'"' | b'\\' | 0..=0x1F)
}

/// Number of bytes before the first special one.
#[cfg(target_arch = "x86_64")]
#[inline]
fn ordinary_bytes(chunk: &[u8; CHUNK]) -> usize {
    // SAFETY: the function needs SSE2, which is part of the x86-64 baseline.
    unsafe { ordinary_bytes_sse2(chunk) }
}

#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "sse2")]
fn ordinary_bytes_sse2(chunk: &[u8; CHUNK]) -> usize {
    use std::arch::x86_64::{
        __m128i, _mm_cmpeq_epi8, _mm_max_epu8, _mm_movemask_epi8, _mm_or_si128, _mm_set1_epi8,
    };
    let bytes: __m128i = bytemuck::cast(*chunk);
    // SSE2 has no unsigned comparison: byte <= 0x1F if and only if max(byte, 0x1F) == 0x1F.
    let last_control = _mm_set1_epi8(0x1F);
    let special = _mm_or_si128(
        _mm_cmpeq_epi8(_mm_max_epu8(bytes, last_control), last_control),
        _mm_or_si128(
            _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'"' as i8)),
            _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'\\' as i8)),
        ),
    );
    // The extra bit makes the result CHUNK if no byte is special.
    (_mm_movemask_epi8(special) | 1 << CHUNK).trailing_zeros() as usize
}

#[cfg(not(target_arch = "x86_64"))]
use ordinary_bytes_portable as ordinary_bytes;

/// `ordinary_bytes` for other architectures.
#[cfg(any(test, not(target_arch = "x86_64")))]
fn ordinary_bytes_portable(chunk: &[u8; CHUNK]) -> usize {
    let special = chunk.iter().position(|byte| is_special(*byte));
    special.unwrap_or(CHUNK)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::reference;
    use proptest::prelude::*;

    fn fast(line: &str) -> Option<Document<'static>> {
        let mut scratch = Vec::new();
        let found = parse(line, "text", &mut scratch)?;
        found.document(line, &scratch).map(Document::into_owned)
    }

    #[test]
    fn usual_records_are_supported() {
        for line in [
            r#"{"text": "a\n\u00e9\ud83d\ude00", "meta": {"pile_set_name": "C"}}"#,
            r#" {"id": [1, {"text": 2.5e3}, [], {}], "meta": null, "text": "b"} "#,
            r#"{"text": "\ud800", "other": [true, false, null, -0.1E+2]}"#,
            r#"{"text": ["a", "b\t", "long enough for a chunk \\ and more of it"], "meta": {"a": {"b": []}}}"#,
            r#"{"text": "\ud800\ud83d\ude00\udc00\ud800\n\ud800", "meta": {"pile_set_name": 1}}"#,
            r#""a string""#,
            r#"{"meta": {"pile_set_name": "a"}, "meta": 1, "text": "\ud800", "text": []}"#,
            r#"{"a": NaN, "text": "NaN, \"Infinity", "meta": {"x": [-Infinity, {"y": Infinity}]}}"#,
            r#"{"text": "a", "meta": {"pile_set_name": NaN}}"#,
        ] {
            let found = fast(line).unwrap_or_else(|| panic!("not read: {line}"));
            assert_eq!(Ok(found), reference::parse(line, "text"));
        }
    }

    #[test]
    fn deep_nesting_needs_the_reference() {
        for depth in [63, 64, 65, 1000] {
            let line = format!(
                r#"{{"x": {}{}, "text": "a"}}"#,
                "[".repeat(depth),
                "]".repeat(depth)
            );
            assert_eq!(fast(&line).is_some(), depth <= 64 + 1, "{depth}");
            assert!(reference::parse(&line, "text").is_ok());
        }
    }

    /// JSON of every kind, and some text that is nearly JSON.
    fn json() -> impl Strategy<Value = String> {
        let string = prop_oneof![
            any::<String>().prop_map(|s| serde_json::to_string(&s).unwrap()),
            prop::collection::vec(escape(), 0..9).prop_map(|s| format!("\"{}\"", s.concat())),
        ];
        let leaf = prop_oneof![
            string.clone(),
            any::<f64>().prop_map(|n| serde_json::to_string(&n).unwrap()),
            any::<i64>().prop_map(|n| n.to_string()),
            prop::sample::select(vec![
                "null",
                "true",
                "false",
                "-0",
                "1e9",
                "0.0E-1",
                "01",
                "1.",
                "-",
                "tru",
                "NaN",
                "Infinity",
                "-Infinity",
                "-NaN",
                "Inf",
                "NaN1",
                "1NaN",
                "1e-Infinity",
                "--Infinity",
                "- Infinity",
                "+Infinity",
                "nan",
                "NaN.0",
                "Infinitye1",
                "\"NaN\"",
            ])
            .prop_map(str::to_owned),
        ];
        let key = prop_oneof![
            3 => prop::sample::select(vec![r#""text""#, r#""meta""#, r#""pile_set_name""#, r#""t\u0065xt""#])
                .prop_map(str::to_owned),
            1 => string,
        ];
        leaf.prop_recursive(4, 24, 5, move |inner| {
            let space = prop::sample::select(vec!["", " ", "\t", "\r", "\u{b}"]);
            let pair = (key.clone(), space.clone(), inner.clone())
                .prop_map(|(key, space, value)| format!("{key}{space}:{space}{value}"));
            prop_oneof![
                (prop::collection::vec(inner, 0..4), space.clone())
                    .prop_map(|(items, space)| format!("[{space}{}{space}]", items.join(","))),
                (prop::collection::vec(pair, 0..5), space).prop_map(|(pairs, space)| format!(
                    "{space}{{{space}{}{space}}}",
                    pairs.join(&format!("{space},{space}"))
                )),
            ]
        })
    }

    fn escape() -> impl Strategy<Value = String> {
        prop_oneof![
            any::<u16>().prop_map(|unit| format!("\\u{unit:04x}")),
            (0xD800_u16..0xE000).prop_map(|unit| format!("\\u{unit:04X}")),
            prop::sample::select(vec![
                "\\n", "\\\"", "\\\\", "\\/", "\\b", "\\x", "\\u12", "é", "a", "\u{1}", "\\"
            ])
            .prop_map(str::to_owned),
            "[a-z ]{0,40}",
        ]
    }

    /// A record with any JSON as its values.
    fn record() -> impl Strategy<Value = String> {
        (json(), json(), json()).prop_map(|(text, meta, other)| {
            format!(r#"{{"x": {other}, "text": {text}, "meta": {{"pile_set_name": {meta}}}}}"#)
        })
    }

    fn agrees(line: &str) -> Result<(), TestCaseError> {
        if let Some(found) = fast(line) {
            prop_assert_eq!(Ok(found), reference::parse(line, "text"), "{}", line);
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn agrees_with_the_reference_on_any_json(line in prop_oneof![json(), record()]) {
            agrees(&line)?;
        }

        #[test]
        fn agrees_with_the_reference_on_damaged_json(
            line in record(), at: usize, byte in prop::sample::select(b"\"\\{}[],:u0-e \x01x".to_vec()), cut: bool,
        ) {
            let mut bytes = line.into_bytes();
            let at = at % bytes.len();
            bytes[at] = byte;
            bytes.truncate(if cut { at } else { bytes.len() });
            if let Ok(line) = std::str::from_utf8(&bytes) {
                agrees(line)?;
            }
        }

        #[test]
        fn output_of_serde_json_is_supported(text: String, subset in "[A-Za-z ]{0,20}", key: String) {
            let key = key.replace(|c: char| c.is_ascii_control() || c == '"' || c == '\\', "");
            let record = serde_json::json!({"meta": {"pile_set_name": subset, key: 1}, "text": text});
            let found = fast(&record.to_string());
            prop_assert_eq!(found.map(|d| d.text.into_owned()), Some(text));
        }

        #[test]
        fn the_portable_function_agrees_with_sse2(chunk: [u8; CHUNK]) {
            prop_assert_eq!(ordinary_bytes(&chunk), ordinary_bytes_portable(&chunk));
        }
    }
}
