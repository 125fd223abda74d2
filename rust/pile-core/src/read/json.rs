//! One line of JSON, read straight through: the text, the subset, and whether all of it is JSON.
//!
//! What this reader does not take is left to `reference`, which reads the rare forms that are
//! skipped here and says what is wrong with the rest. What it takes, `reference` reads the same.

use std::{borrow::Cow, ops::Range};

use super::Document;

/// Nested arrays and objects in what is skipped; deeper ones are left to `reference`.
const MAX_DEPTH: u32 = 64;

/// Between the strings of a text that is a list of them.
pub(super) const JOINER: &str = "\n\n";

/// What was found in a line.
pub(super) struct Found {
    text: Text,
    subset: Option<Range<usize>>,
    n_lone_surrogates: u64,
}

/// Where a text stands.
enum Text {
    /// In the line, as it is.
    Line(Range<usize>),
    /// In the first so many bytes of the scratch.
    Scratch(usize),
}

impl Found {
    /// As a document, given the line and the scratch that it was read with.
    pub(super) fn document<'a>(self, line: &'a str, scratch: &'a [u8]) -> Option<Document<'a>> {
        let text = match self.text {
            Text::Line(range) => &line[range],
            Text::Scratch(n_bytes) => simdutf8::basic::from_utf8(&scratch[..n_bytes]).ok()?,
        };
        Some(Document {
            text: Cow::Borrowed(text),
            subset: self.subset.map(|range| Cow::Borrowed(&line[range])),
            n_lone_surrogates: self.n_lone_surrogates,
        })
    }
}

/// Reads a line, or gives `None` if it is not one that this reader takes. A text with escapes is
/// built in `scratch`.
pub(super) fn read(line: &str, text_field: &str, scratch: &mut Vec<u8>) -> Option<Found> {
    let mut reader = Reader {
        line: line.as_bytes(),
        at: 0,
        n_lone_surrogates: 0,
    };
    let (text, subset) = reader.record(text_field, scratch)?;
    Some(Found {
        text,
        subset,
        n_lone_surrogates: reader.n_lone_surrogates,
    })
}

struct Reader<'a> {
    line: &'a [u8],
    at: usize,
    n_lone_surrogates: u64,
}

impl Reader<'_> {
    fn record(
        &mut self,
        text_field: &str,
        scratch: &mut Vec<u8>,
    ) -> Option<(Text, Option<Range<usize>>)> {
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

    /// `pile_set_name` in the value ahead, if that is an object and this a string.
    #[allow(clippy::option_option)] // outside: whether it could be read
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
                subset = Some(self.plain_string()?);
            } else {
                self.skip_value()?;
                subset = None;
            }
        }
        Some(subset)
    }

    /// A string, or a list of them joined.
    fn text_value(&mut self, scratch: &mut Vec<u8>) -> Option<Text> {
        self.n_lone_surrogates = 0; // of another text of the same name before
        self.skip_space();
        match self.next()? {
            b'"' => self.text(scratch),
            b'[' => self.list(scratch),
            _ => None,
        }
    }

    fn list(&mut self, scratch: &mut Vec<u8>) -> Option<Text> {
        self.make_room(scratch);
        let mut n = 0;
        self.skip_space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Some(Text::Scratch(0));
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
                b']' => return Some(Text::Scratch(n)),
                _ => return None,
            }
        }
    }

    /// The string whose opening quote was read.
    fn text(&mut self, scratch: &mut Vec<u8>) -> Option<Text> {
        let start = self.at;
        self.skip_plain();
        if self.peek()? == b'"' {
            self.at += 1;
            return Some(Text::Line(start..self.at - 1));
        }
        self.make_room(scratch);
        let n = self.at - start;
        scratch[..n].copy_from_slice(&self.line[start..self.at]);
        self.unescape(scratch, n).map(Text::Scratch)
    }

    /// Unescaped text is never longer than the line; a run is copied [`CHUNK`] bytes at a time.
    fn make_room(&self, scratch: &mut Vec<u8>) {
        let needed = self.line.len() + CHUNK;
        if scratch.len() < needed {
            scratch.resize(needed, 0);
        }
    }

    /// Unescapes the string ahead to `out[n..]`, its closing quote included; returns where that ends.
    fn unescape(&mut self, out: &mut [u8], mut n: usize) -> Option<usize> {
        loop {
            let rest = &self.line[self.at..];
            let plain = match rest.first_chunk() {
                Some(chunk) => {
                    out[n..n + CHUNK].copy_from_slice(chunk);
                    plain_bytes(chunk)
                }
                None => {
                    let plain = rest.iter().take_while(|byte| !is_special(**byte)).count();
                    out[n..n + plain].copy_from_slice(&rest[..plain]);
                    plain
                }
            };
            self.at += plain;
            n += plain;
            if plain == CHUNK {
                continue;
            }
            match self.next()? {
                b'"' => return Some(n),
                b'\\' => n = self.escapes(out, n)?,
                _ => return None,
            }
        }
    }

    /// Unescapes the escapes ahead, the first one's backslash read already.
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

    /// Writes the character of a UTF-16 unit, and of the one ahead if the two are a pair.
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

    #[cold]
    fn push_surrogate(&mut self, high: u32, out: &mut [u8; 4]) -> usize {
        let before = self.at;
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
            self.at = before;
            self.n_lone_surrogates += 1;
            char::REPLACEMENT_CHARACTER
        });
        char.encode_utf8(out).len()
    }

    /// Four hexadecimal digits.
    #[inline]
    fn hex(&mut self) -> Option<u32> {
        let digits: &[u8; 4] = self.line[self.at..].first_chunk()?;
        self.at += 4;
        let [a, b, c, d] = digits.map(|digit| i32::from(HEX[usize::from(digit)]));
        u32::try_from(a << 12 | b << 8 | c << 4 | d).ok()
    }

    /// The next key of an object, up to and with its colon; `None` inside after the closing brace.
    #[allow(clippy::option_option)] // outside: whether it could be read
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
        let key = self.plain_string()?;
        self.skip_space();
        (self.next()? == b':').then_some(Some(key))
    }

    /// The string whose opening quote was read, if it has no escapes.
    fn plain_string(&mut self) -> Option<Range<usize>> {
        let start = self.at;
        self.skip_plain();
        (self.next()? == b'"').then_some(start..self.at - 1)
    }

    /// Skips a value of any kind.
    fn skip_value(&mut self) -> Option<()> {
        // The kinds of what is open, the innermost in the lowest bit: 1 for an object.
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

    fn skip_key(&mut self) -> Option<()> {
        self.skip_space();
        if self.next()? != b'"' {
            return None;
        }
        self.skip_string()?;
        self.skip_space();
        (self.next()? == b':').then_some(())
    }

    /// Skips a string whose opening quote was read.
    fn skip_string(&mut self) -> Option<()> {
        loop {
            self.skip_plain();
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

    /// Skips a number or a word that starts with `first`.
    fn skip_scalar(&mut self, first: u8) -> Option<()> {
        let word: &[u8] = match first {
            b't' => b"rue",
            b'f' => b"alse",
            b'n' => b"ull",
            // What Python's json writes of floats that JSON does not know.
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
        // A digit after a zero is told by what must follow a value.
        Some(())
    }

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

    /// Goes on to the next quote, backslash or control character, or to the end.
    #[inline]
    fn skip_plain(&mut self) {
        while let Some(chunk) = self.line[self.at..].first_chunk() {
            let plain = plain_bytes(chunk);
            self.at += plain;
            if plain < CHUNK {
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

/// What a backslash and this byte stand for, `u` aside.
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

/// Bytes that are looked at together.
const CHUNK: usize = 16;

/// Whether a byte ends a run of plain ones in a string.
fn is_special(byte: u8) -> bool {
    matches!(byte, b'"' | b'\\' | 0..=0x1F)
}

/// Bytes before the first special one.
#[cfg(target_arch = "x86_64")]
#[inline]
fn plain_bytes(chunk: &[u8; CHUNK]) -> usize {
    // SAFETY: SSE2 is part of every x86-64.
    unsafe { plain_bytes_sse2(chunk) }
}

#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "sse2")]
fn plain_bytes_sse2(chunk: &[u8; CHUNK]) -> usize {
    use std::arch::x86_64::{
        __m128i, _mm_cmpeq_epi8, _mm_max_epu8, _mm_movemask_epi8, _mm_or_si128, _mm_set1_epi8,
    };
    let bytes: __m128i = bytemuck::cast(*chunk);
    let last_control = _mm_set1_epi8(0x1F);
    let special = _mm_or_si128(
        _mm_cmpeq_epi8(_mm_max_epu8(bytes, last_control), last_control),
        _mm_or_si128(
            _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'"' as i8)),
            _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'\\' as i8)),
        ),
    );
    (_mm_movemask_epi8(special) | 1 << CHUNK).trailing_zeros() as usize
}

#[cfg(not(target_arch = "x86_64"))]
use plain_bytes_one_by_one as plain_bytes;

/// The same anywhere.
#[cfg(any(test, not(target_arch = "x86_64")))]
fn plain_bytes_one_by_one(chunk: &[u8; CHUNK]) -> usize {
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
        let found = read(line, "text", &mut scratch)?;
        found.document(line, &scratch).map(Document::into_owned)
    }

    #[test]
    fn good_records_are_read_here() {
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
    fn deep_nesting_is_left_to_the_reference() {
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

    /// JSON of every kind, as strings that a writer might have made.
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

    /// A record whose text is of any kind.
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
        fn any_json_is_read_as_the_reference_reads_it(line in prop_oneof![json(), record()]) {
            agrees(&line)?;
        }

        #[test]
        fn damaged_json_is_taken_only_if_the_reference_takes_it(
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
        fn what_serde_json_writes_is_read_here(text: String, subset in "[A-Za-z ]{0,20}", key: String) {
            let key = key.replace(|c: char| c.is_ascii_control() || c == '"' || c == '\\', "");
            let record = serde_json::json!({"meta": {"pile_set_name": subset, key: 1}, "text": text});
            let found = fast(&record.to_string());
            prop_assert_eq!(found.map(|d| d.text.into_owned()), Some(text));
        }

        #[test]
        fn runs_end_at_the_same_byte_everywhere(chunk: [u8; CHUNK]) {
            prop_assert_eq!(plain_bytes(&chunk), plain_bytes_one_by_one(&chunk));
        }
    }
}
