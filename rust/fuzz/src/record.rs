//! Records by the plainest means: all of the JSON read by serde_json, then looked at.

use std::fmt;

use pile_core::read::{Document, reference};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

/// What is fuzzed: text and subset of a line, or `None` if it is refused.
///
/// # Panics
/// The fast reader and the plain one do not agree, in the document or in what they say is wrong.
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

/// What serde_json makes of a line.
#[derive(Debug, PartialEq, Eq)]
pub enum Expected {
    /// It is a document.
    Document(String, Option<String>),
    /// It is to be refused.
    Refused,
    /// serde_json cannot say: we read lone surrogates, numbers of any size and any nesting.
    Unknown,
}

/// Keys may come twice: all of them are kept, in their order.
struct Pairs(Vec<(String, Value)>);

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

/// The oracle.
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
        Err(err) if is_ours_to_read(&err) => return Expected::Unknown,
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

fn is_ours_to_read(err: &serde_json::Error) -> bool {
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
