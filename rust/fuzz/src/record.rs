//! A reference for records: serde_json parses all of the JSON, and the document is taken from its values.

use std::fmt;

use pile_core::read::{Document, reference};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

/// Parses a line with the core: its text and subset, or `None` if it is not a record.
///
/// # Panics
/// The fast parser and the reference parser disagree, in the document or in the error.
#[must_use]
pub fn parsed(line: &[u8]) -> Option<(String, Option<String>)> {
    let mut scratch = Vec::new();
    let document = Document::parse(line, "text", &mut scratch);
    if let Ok(line) = std::str::from_utf8(line) {
        assert_eq!(document, reference::parse(line, "text"));
    }
    let document = document.ok()?;
    Some((document.text.into_owned(), document.subset.map(Into::into)))
}

/// The expected result of a line.
#[derive(Debug, PartialEq, Eq)]
pub enum Expected {
    /// It is a document.
    Document(String, Option<String>),
    /// It is not a record.
    Refused,
    /// Unknown, as serde_json refuses lines that the core accepts: lone surrogates, numbers of any size, deep
    /// nesting.
    Unknown,
}

/// The keys and values of an object, in order. Keys may be repeated.
pub struct Pairs(pub Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Pairs;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(All)
    }
}

/// Returns the expected result of a line, by serde_json alone.
#[must_use]
pub fn expected(line: &[u8]) -> Expected {
    let Ok(text) = std::str::from_utf8(line) else {
        return Expected::Refused;
    };
    let text = text.trim_start_matches('\u{FEFF}');
    let standard = reference::without_constants(text);
    let text = standard.as_deref().unwrap_or(text);
    if let Ok(text) = serde_json::from_str::<String>(text) {
        return Expected::Document(text, None);
    }
    let pairs = match serde_json::from_str::<Pairs>(text) {
        Ok(Pairs(pairs)) => pairs,
        Err(err) if is_accepted_by_the_core(&err) => return Expected::Unknown,
        Err(_) => return Expected::Refused,
    };
    let (mut text, mut subset) = (None, None);
    for (key, value) in pairs {
        match (key.as_str(), value) {
            ("text", value) => text = Some(value),
            ("meta", value) => {
                let name = value.get("pile_set_name").and_then(Value::as_str);
                subset = name.map(str::to_owned);
            }
            _ => {}
        }
    }
    let text = match text {
        Some(Value::String(text)) => Some(text),
        Some(Value::Array(items)) => {
            let texts: Option<Vec<&str>> = items.iter().map(Value::as_str).collect();
            texts.map(|texts| texts.join("\n\n"))
        }
        _ => None,
    };
    text.map_or(Expected::Refused, |text| Expected::Document(text, subset))
}

fn is_accepted_by_the_core(err: &serde_json::Error) -> bool {
    let message = err.to_string();
    [
        "surrogate",
        "hex escape",
        "recursion limit",
        "number out of range",
    ]
    .iter()
    .any(|what| message.contains(what))
}
