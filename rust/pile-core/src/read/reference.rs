//! The reference parser of a record, based on `serde_json`. It parses the lines that the fast parser does not
//! support, says what is wrong with bad ones, and is what the fast parser is tested against.

use std::{borrow::Cow, fmt};

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{Document, json::JOINER, record::without_marks};

/// Parses a line into a document. Leading byte-order marks are ignored.
///
/// # Errors
/// Why the line is not a record.
pub fn parse<'a>(line: &'a str, text_field: &str) -> Result<Document<'a>, String> {
    let json = without_marks(line);
    let n_marks = line.len() - json.len();
    match without_constants(json) {
        None => parse_standard(json, n_marks, text_field),
        Some(standard) => parse_standard(&standard, n_marks, text_field)
            .map(Document::into_owned)
            .map_err(|what| without_number(&what)),
    }
}

/// Constants that Python's json writes for floats and that are not JSON, each with a number of the same
/// length: replacing them keeps the offsets in error messages, and those of the values that `record_edit` changes.
const CONSTANTS: [(&str, &str); 2] = [("NaN", "0.0"), ("Infinity", "1.000000")];

/// Removes the number from an error message that quotes one: it may be the replacement of a constant, which the
/// line does not have.
fn without_number(what: &str) -> String {
    const QUOTED: &str = "floating point `";
    match what.split_once(QUOTED) {
        Some((before, rest)) => {
            let after = rest.split_once('`').map_or("", |(_, after)| after);
            format!("{before}a floating point number{after}")
        }
        None => what.to_owned(),
    }
}

/// Replaces each `NaN`, `Infinity` and `-Infinity` outside of strings by a number. Returns `None` if there is
/// none.
#[must_use]
pub fn without_constants(line: &str) -> Option<String> {
    if !line.contains("NaN") && !line.contains("Infinity") {
        return None;
    }
    let is_in_number = |byte: u8| byte.is_ascii_alphanumeric() || b"_.+-".contains(&byte);
    let mut standard = String::with_capacity(line.len());
    let (mut is_string, mut at) = (false, 0);
    while let Some(byte) = line.as_bytes().get(at) {
        let previous = at.checked_sub(1).map(|at| line.as_bytes()[at]);
        let constant = CONSTANTS.iter().find(|(name, _)| {
            let after = line.as_bytes().get(at + name.len());
            let is_alone =
                previous.is_none_or(|b| !is_in_number(b) || (b == b'-' && *name == "Infinity"));
            line[at..].starts_with(name) && is_alone && after.is_none_or(|b| !is_in_number(*b))
        });
        let (length, replacement) = match (byte, constant) {
            (b'\\', _) if is_string => (2, None),
            (b'"', _) => {
                is_string = !is_string;
                (1, None)
            }
            (_, Some((name, number))) if !is_string => (name.len(), Some(*number)),
            _ => (1, None),
        };
        let mut end = (at + length).min(line.len());
        while !line.is_char_boundary(end) {
            end += 1;
        }
        standard.push_str(replacement.unwrap_or(&line[at..end]));
        at = end;
    }
    Some(standard).filter(|standard| standard != line)
}

/// Parses standard JSON. The line has `n_marks` bytes of byte-order marks before it, which messages count.
fn parse_standard<'a>(
    line: &'a str,
    n_marks: usize,
    text_field: &str,
) -> Result<Document<'a>, String> {
    if line.bytes().all(|byte| byte.is_ascii_whitespace()) {
        let what = format!("an empty line, expected a JSON object with a \"{text_field}\"");
        return Err(what);
    }
    let value: &RawValue =
        serde_json::from_str(line).map_err(|err| explain_syntax(&err, n_marks))?;
    if value.get().starts_with('"') {
        return document(value.get(), None);
    }
    if !value.get().starts_with('{') {
        let what = format!("not a document: expected a JSON object with a \"{text_field}\"");
        return Err(what);
    }
    let record = ObjectPairs::parse(value.get())?;
    let text = record.last(text_field);
    let text = text.ok_or_else(|| {
        format!("no \"{text_field}\" in the JSON object; text-field names the key of the text")
    })?;
    let meta = record.last("meta").filter(|_| text_field != "meta");
    document(text, meta)
}

fn document<'a>(text: &'a str, meta: Option<&'a str>) -> Result<Document<'a>, String> {
    let strings: Strings<'a> = serde_json::from_str(text).map_err(explain_value)?;
    let mut n_lone_surrogates = 0;
    let mut texts = strings.0.into_iter().map(|JsonText(bytes)| {
        let (text, n) = replace_surrogates(bytes);
        n_lone_surrogates += n;
        text
    });
    let mut text = texts.next().unwrap_or_default();
    for more in texts {
        let text = text.to_mut();
        text.push_str(JOINER);
        text.push_str(&more);
    }
    Ok(Document {
        text,
        subset: meta.map(subset).transpose()?.flatten(),
        n_lone_surrogates,
    })
}

/// `pile_set_name`, if `meta` is an object and has it as a string.
fn subset(meta: &str) -> Result<Option<Cow<'_, str>>, String> {
    if !meta.starts_with('{') {
        return Ok(None);
    }
    let meta = ObjectPairs::parse(meta)?;
    let name = meta.last("pile_set_name").filter(|v| v.starts_with('"'));
    let name: Option<JsonText<'_>> = name
        .map(serde_json::from_str)
        .transpose()
        .map_err(explain_value)?;
    Ok(name.map(|JsonText(bytes)| replace_surrogates(bytes).0))
}

/// Says what is wrong with a line that is not JSON, and at which byte of the line, counted from 1.
fn explain_syntax(err: &serde_json::Error, n_marks: usize) -> String {
    // The record continues on the next line, or is truncated.
    let advice = match err.is_eof() {
        true => "; a record is one line",
        false => "",
    };
    format!(
        "not JSON: {} at byte {} of the line{advice}",
        without_position(err),
        n_marks + err.column()
    )
}

/// Says why a value of a line that is JSON is not what is expected. Its position in the line is not known here.
fn explain_value(err: serde_json::Error) -> String {
    format!("not a document: {}", without_position(&err))
}

/// Removes " at line 1 column 7" from the message of serde_json.
fn without_position(err: &serde_json::Error) -> String {
    let text = err.to_string();
    text.split(" at line ").next().unwrap_or(&text).to_owned()
}

/// Replaces each lone surrogate (ED A0..BF xx in generalized UTF-8) by U+FFFD. Also returns their number. `bytes` are
/// those of a JSON string in UTF-8, so nothing else in them can be invalid.
fn replace_surrogates(bytes: Cow<'_, [u8]>) -> (Cow<'_, str>, u64) {
    if let Cow::Borrowed(bytes) = bytes
        && let Ok(text) = std::str::from_utf8(bytes)
    {
        return (Cow::Borrowed(text), 0);
    }
    let (mut text, mut n) = (String::with_capacity(bytes.len()), 0);
    let mut rest = &*bytes;
    while !rest.is_empty() {
        let chunk = rest.utf8_chunks().next();
        let valid = chunk.map_or("", |chunk| chunk.valid());
        text.push_str(valid);
        rest = &rest[valid.len()..];
        if !rest.is_empty() {
            text.push(char::REPLACEMENT_CHARACTER);
            n += 1;
            // A surrogate has three bytes.
            rest = rest.get(3..).unwrap_or_default();
        }
    }
    (Cow::Owned(text), n)
}

/// The keys and values of an object, in order. Keys may be repeated; as in Python, the last one counts.
pub(super) struct ObjectPairs<'a>(Vec<(JsonText<'a>, &'a RawValue)>);

impl<'a> ObjectPairs<'a> {
    pub(super) fn parse(object: &'a str) -> Result<Self, String> {
        serde_json::from_str(object).map_err(explain_value)
    }

    /// The JSON of the last value of the object, whatever its key.
    pub(super) fn last_value(&self) -> Option<&'a str> {
        self.0.last().map(|(_, value)| value.get())
    }

    /// The JSON of the last value of a key.
    pub(super) fn last(&self, key: &str) -> Option<&'a str> {
        let mut pairs = self.0.iter().rev();
        let pair = pairs.find(|(JsonText(name), _)| **name == *key.as_bytes());
        pair.map(|(_, value)| value.get())
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for ObjectPairs<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PairsVisitor;
        impl<'de> Visitor<'de> for PairsVisitor {
            type Value = ObjectPairs<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(ObjectPairs(pairs))
            }
        }
        deserializer.deserialize_map(PairsVisitor)
    }
}

/// A string or a list of strings.
struct Strings<'a>(Vec<JsonText<'a>>);

/// The unescaped bytes of a JSON string: UTF-8, or generalized UTF-8 if it has lone surrogates.
struct JsonText<'a>(Cow<'a, [u8]>);

struct StringsVisitor;

impl<'de> Visitor<'de> for StringsVisitor {
    type Value = Strings<'de>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }
    fn visit_borrowed_bytes<E>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
        Ok(Strings(vec![JsonText(Cow::Borrowed(bytes))]))
    }
    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        Ok(Strings(vec![JsonText(Cow::Owned(bytes.to_owned()))]))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut strings = Vec::new();
        while let Some(string) = items.next_element()? {
            strings.push(string);
        }
        Ok(Strings(strings))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Strings<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // As bytes, since serde_json rejects lone surrogates in a `str`. JSON allows them. Asked for bytes, serde_json
        // also passes an array, to `visit_seq`.
        deserializer.deserialize_bytes(StringsVisitor)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for JsonText<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct StringVisitor;
        impl<'de> Visitor<'de> for StringVisitor {
            type Value = JsonText<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_bytes<E>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
                Ok(JsonText(Cow::Borrowed(bytes)))
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Self::Value, E> {
                Ok(JsonText(Cow::Owned(bytes.to_owned())))
            }
        }
        deserializer.deserialize_bytes(StringVisitor)
    }
}
