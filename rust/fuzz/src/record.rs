//! Records by the plainest means: all of the JSON read by serde_json, then looked at.

use std::fmt;

use pile_core::read::Document;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

/// What is fuzzed: text and subset of a line, or `None` if it is refused.
#[must_use]
pub fn parsed(line: &[u8]) -> Option<(String, Option<String>)> {
    let document = Document::parse(line).ok()?;
    Some((document.text.into_owned(), document.subset.map(Into::into)))
}

/// What serde_json makes of a line.
#[derive(Debug, PartialEq, Eq)]
pub enum Expected {
    /// It is a document.
    Document(String, Option<String>),
    /// It is to be refused.
    Refused,
    /// serde_json cannot say: we read lone surrogates, numbers of any size and any nesting, and let control
    /// characters in strings pass.
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
        // A byte that is not UTF-8 may stand in a value that is skipped.
        return Expected::Unknown;
    };
    let pairs = match serde_json::from_str::<Pairs>(text) {
        Ok(Pairs(pairs)) => pairs,
        Err(err) if is_ours_to_read(&err) => return Expected::Unknown,
        Err(_) => return Expected::Refused,
    };
    let (mut text, mut subset) = (None, None);
    for (key, value) in pairs {
        match (key.as_str(), value) {
            ("text", Value::String(value)) => text = Some(value),
            ("text", _) => return Expected::Refused,
            ("meta", Value::Null) => subset = None,
            ("meta", Value::Object(meta)) => match meta.get("pile_set_name") {
                None => subset = None,
                Some(Value::String(name)) => subset = Some(name.clone()),
                // Another one of the name before it may have been wrong, too.
                Some(_) => return Expected::Refused,
            },
            ("meta", _) => return Expected::Refused,
            _ => {}
        }
    }
    text.map_or(Expected::Refused, |text| Expected::Document(text, subset))
}

fn is_ours_to_read(err: &serde_json::Error) -> bool {
    let message = err.to_string();
    [
        "surrogate",
        "hex escape",
        "recursion limit",
        "number out of range",
        "control character",
    ]
    .iter()
    .any(|what| message.contains(what))
}
