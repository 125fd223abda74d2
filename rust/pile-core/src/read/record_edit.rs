//! Changes one JSON record without touching its other bytes.
//!
//! The reference parser finds the values, so that every form of record which can be read can be changed.

use super::{
    Document,
    record::{utf8, without_marks},
    reference::{ObjectPairs, without_constants},
};

/// A range of bytes of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteRange {
    /// The first byte.
    pub start: u64,
    /// The byte after the last.
    pub end: u64,
}

/// The key of the object that has a record's metadata.
const META: &str = "meta";

/// Appends the record `line` without `ranges` of its text to `out`. Returns the number of bytes of text removed.
///
/// The ranges are those of [`Document::text`]. Only the JSON value of the text changes: it becomes a string with the
/// escapes that JSON requires and no others. A list of strings thus becomes one string, and lone surrogates become
/// U+FFFD, as they are in the text.
///
/// # Errors
/// The line is not a record, or the ranges are not ascending, disjoint and at characters of the text.
pub fn cut_record(
    line: &[u8],
    text_field: &str,
    ranges: &[ByteRange],
    out: &mut Vec<u8>,
) -> Result<u64, String> {
    let mut scratch = Vec::new();
    let document = Document::parse(line, text_field, &mut scratch)?;
    let mut text = String::with_capacity(document.text.len());
    let n_removed = cut_text(&document.text, ranges, &mut text)?;
    let record = RecordJson::parse(utf8(line)?);
    let value = match record.root()? {
        RecordRoot::String(value) => value,
        RecordRoot::Object(pairs) => pairs.last(text_field).ok_or("no text")?,
    };
    let text = json_string(&text)?;
    record.splice(record.start_of(value), value.len(), &text, out);
    Ok(n_removed)
}

/// Appends the record `line` with the member `key` of its `meta` set to `value`, which is JSON, to `out`.
///
/// A value that `key` has is replaced. `meta` is added if it is missing or null. A record that is a JSON string becomes
/// an object with this string as its text.
///
/// # Errors
/// The line is not a record, or its `meta` is no object or has the text.
pub fn mark_record(
    line: &[u8],
    text_field: &str,
    key: &str,
    value: &str,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    Document::parse(line, text_field, &mut Vec::new())?;
    if text_field == META {
        return Err(format!("\"{META}\" is its text, so it cannot have a mark"));
    }
    let record = RecordJson::parse(utf8(line)?);
    let member = format!("{}: {value}", json_string(key)?);
    let pairs = match record.root()? {
        RecordRoot::Object(pairs) => pairs,
        RecordRoot::String(text) => {
            let object = format!(
                "{{{}: {text}, \"{META}\": {{{member}}}}}",
                json_string(text_field)?
            );
            record.splice(record.start_of(text), text.len(), &object, out);
            return Ok(());
        }
    };
    match pairs.last(META) {
        Some("null") => {
            let start = record.start_of(pairs.last(META).unwrap_or_default());
            record.splice(start, "null".len(), &format!("{{{member}}}"), out);
        }
        Some(meta) if meta.starts_with('{') => {
            let members = ObjectPairs::parse(meta)?;
            match (members.last(key), members.last_value()) {
                (Some(old), _) => record.splice(record.start_of(old), old.len(), value, out),
                (None, Some(last)) => record.append_after(last, &member, out),
                (None, None) => record.splice(record.start_of(meta) + 1, 0, &member, out),
            }
        }
        Some(_) => return Err(format!("its \"{META}\" is no object, which a mark needs")),
        None => {
            // The record has at least its text.
            let last = pairs.last_value().ok_or("no text")?;
            record.append_after(last, &format!("\"{META}\": {{{member}}}"), out);
        }
    }
    Ok(())
}

/// Appends `text` without `ranges` to `out`. Returns the number of bytes removed.
///
/// # Errors
/// The ranges are not ascending, disjoint and at characters of the text.
pub(super) fn cut_text(text: &str, ranges: &[ByteRange], out: &mut String) -> Result<u64, String> {
    let (mut from, mut n_removed) = (0, 0);
    for ByteRange { start, end } in ranges {
        let invalid = || {
            let n = text.len();
            format!("bytes {start} to {end} cannot be cut from its text of {n} bytes")
        };
        let range = usize::try_from(*start).ok().zip(usize::try_from(*end).ok());
        let (start, end) = range.filter(|(s, e)| s < e).ok_or_else(invalid)?;
        out.push_str(text.get(from..start).ok_or_else(invalid)?);
        n_removed += text.get(start..end).ok_or_else(invalid)?.len() as u64;
        from = end;
    }
    out.push_str(&text[from..]);
    Ok(n_removed)
}

/// A JSON string with the escapes that JSON requires, as `json.dumps(text, ensure_ascii=False)` writes it.
fn json_string(text: &str) -> Result<String, String> {
    serde_json::to_string(text).map_err(|err| err.to_string())
}

/// The JSON of a record.
struct RecordJson<'a> {
    line: &'a str,
    /// Bytes of byte-order marks before the JSON.
    n_marks: usize,
    /// The JSON with Python's constants replaced by numbers of the same length, if it has some.
    standard: Option<String>,
}

/// The value that is a record.
enum RecordRoot<'a> {
    Object(ObjectPairs<'a>),
    /// The JSON of a string.
    String(&'a str),
}

impl<'a> RecordJson<'a> {
    fn parse(line: &'a str) -> Self {
        let json = without_marks(line);
        Self {
            line,
            n_marks: line.len() - json.len(),
            standard: without_constants(json),
        }
    }

    fn json(&self) -> &str {
        self.standard
            .as_deref()
            .unwrap_or(&self.line[self.n_marks..])
    }

    fn root(&self) -> Result<RecordRoot<'_>, String> {
        let value = self.json().trim_ascii();
        match value.starts_with('"') {
            true => Ok(RecordRoot::String(value)),
            false => ObjectPairs::parse(value).map(RecordRoot::Object),
        }
    }

    /// The offset in the line of a value, which must be a slice of [`Self::json`].
    fn start_of(&self, value: &str) -> usize {
        self.n_marks + (value.as_ptr() as usize - self.json().as_ptr() as usize)
    }

    /// Appends the line with `length` bytes from `start` replaced.
    fn splice(&self, start: usize, length: usize, replacement: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.line.as_bytes()[..start]);
        out.extend_from_slice(replacement.as_bytes());
        out.extend_from_slice(&self.line.as_bytes()[start + length..]);
    }

    /// Appends the line with a member added after the value of the last one.
    fn append_after(&self, last: &str, member: &str, out: &mut Vec<u8>) {
        let end = self.start_of(last) + last.len();
        self.splice(end, 0, &format!(", {member}"), out);
    }
}
