//! One line of a shard as a document.

use std::{borrow::Cow, fmt};

use serde::de::{self, Deserializer, MapAccess, Visitor};

/// The text of a record and the subset it says it is from.
#[derive(Debug, PartialEq, Eq)]
pub struct Document<'a> {
    /// The text; lone surrogates in the JSON have become U+FFFD.
    pub text: Cow<'a, str>,
    /// `meta.pile_set_name`, where there is one.
    pub subset: Option<Cow<'a, str>>,
}

impl<'a> Document<'a> {
    /// Parses `{"text": ..., "meta": {"pile_set_name": ...}}`; other keys are ignored.
    ///
    /// # Errors
    /// What is wrong with the line, without its position.
    pub fn parse(line: &'a [u8]) -> Result<Self, String> {
        if line.iter().all(u8::is_ascii_whitespace) {
            return Err("an empty line, expected a JSON object with a \"text\"".to_owned());
        }
        let record: Record<'a> = serde_json::from_slice(line).map_err(explain)?;
        let text = record.text.ok_or("no \"text\" in the JSON object")?;
        Ok(Self {
            text: text.into_str()?,
            subset: record.meta.subset.map(JsonText::into_str).transpose()?,
        })
    }
}

fn explain(err: serde_json::Error) -> String {
    match err.classify() {
        serde_json::error::Category::Data => format!("not a document: {}", without_position(&err)),
        _ => format!(
            "not JSON: {} at byte {} of the line",
            without_position(&err),
            err.column()
        ),
    }
}

/// The parser's message less its own " at line 1 column 7".
fn without_position(err: &serde_json::Error) -> String {
    let text = err.to_string();
    text.split(" at line ").next().unwrap_or(&text).to_owned()
}

#[derive(Default)]
struct Record<'a> {
    text: Option<JsonText<'a>>,
    meta: Meta<'a>,
}

#[derive(Default)]
struct Meta<'a> {
    subset: Option<JsonText<'a>>,
}

/// The bytes of a JSON string, unescaped: UTF-8, or with lone surrogates in its generalized form.
struct JsonText<'a>(Cow<'a, [u8]>);

impl<'a> JsonText<'a> {
    fn into_str(self) -> Result<Cow<'a, str>, String> {
        match self.0 {
            Cow::Borrowed(bytes) => std::str::from_utf8(bytes)
                .map(Cow::Borrowed)
                .or_else(|_| replace_surrogates(bytes).map(Cow::Owned)),
            Cow::Owned(bytes) => String::from_utf8(bytes)
                .or_else(|err| replace_surrogates(err.as_bytes()))
                .map(Cow::Owned),
        }
    }
}

/// Generalized UTF-8 with each lone surrogate (ED A0..BF xx) as U+FFFD; other bad bytes are an error.
fn replace_surrogates(mut bytes: &[u8]) -> Result<String, String> {
    let mut text = String::with_capacity(bytes.len());
    loop {
        let err = match std::str::from_utf8(bytes) {
            Ok(rest) => {
                text.push_str(rest);
                return Ok(text);
            }
            Err(err) => err,
        };
        let (valid, rest) = bytes.split_at(err.valid_up_to());
        text.push_str(&String::from_utf8_lossy(valid));
        let [0xED, 0xA0..=0xBF, 0x80..=0xBF, after @ ..] = rest else {
            return Err(format!("not UTF-8: byte {:#04x}", rest[0]));
        };
        text.push('\u{FFFD}');
        bytes = after;
    }
}

impl<'de: 'a, 'a> de::Deserialize<'de> for JsonText<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl<'de> Visitor<'de> for Bytes {
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
            fn visit_seq<A: de::SeqAccess<'de>>(self, _: A) -> Result<Self::Value, A::Error> {
                Err(de::Error::invalid_type(de::Unexpected::Seq, &self))
            }
        }
        // Bytes, not str: serde_json then lets lone surrogates through, which JSON may hold.
        deserializer.deserialize_bytes(Bytes)
    }
}

impl<'de: 'a, 'a> de::Deserialize<'de> for Record<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Record<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object with a \"text\"")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut record = Record::default();
                while let Some(key) = map.next_key::<JsonText<'de>>()? {
                    match &*key.0 {
                        b"text" => record.text = Some(map.next_value()?),
                        b"meta" => record.meta = map.next_value()?,
                        _ => drop(map.next_value::<de::IgnoredAny>()?),
                    }
                }
                Ok(record)
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

impl<'de: 'a, 'a> de::Deserialize<'de> for Meta<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Meta<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"meta\" as a JSON object")
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Meta::default())
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut meta = Meta::default();
                while let Some(key) = map.next_key::<JsonText<'de>>()? {
                    match &*key.0 {
                        b"pile_set_name" => meta.subset = Some(map.next_value()?),
                        _ => drop(map.next_value::<de::IgnoredAny>()?),
                    }
                }
                Ok(meta)
            }
        }
        deserializer.deserialize_any(Fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(line: &[u8]) -> String {
        Document::parse(line).unwrap_err()
    }

    #[test]
    fn text_and_subset_are_found_among_other_keys() {
        let line = br#"{"id": [1, {"text": 2}], "text": "a\n\u00e9", "meta": {"x": 1, "pile_set_name": "C"}}"#;
        let document = Document::parse(line).unwrap();
        assert_eq!(
            (&*document.text, document.subset.as_deref()),
            ("a\né", Some("C"))
        );
    }

    #[test]
    fn meta_may_be_absent_or_null() {
        assert_eq!(Document::parse(br#"{"text": ""}"#).unwrap().subset, None);
        assert_eq!(
            Document::parse(br#"{"text": "", "meta": null}"#)
                .unwrap()
                .subset,
            None
        );
    }

    #[test]
    fn lone_surrogates_become_replacement_characters() {
        let document = Document::parse(br#"{"text": "a\ud800b\udc00\ud83d\ude00"}"#).unwrap();
        assert_eq!(document.text, "a\u{FFFD}b\u{FFFD}😀");
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert!(message(b"").contains("empty line"));
        assert!(message(b"{\"text\": \"a").contains("not JSON: EOF"));
        assert!(message(b"hello").contains("not JSON: expected value at byte 1"));
        assert!(message(b"{}").contains("no \"text\""));
        assert!(message(b"[1]").contains("expected a JSON object"));
        assert!(message(b"{\"text\": 1}").contains("expected a string"));
        assert!(message(b"{\"text\": [1]}").contains("expected a string"));
        assert!(message(b"{\"text\": \"\xff\"}").contains("not UTF-8: byte 0xff"));
        assert!(message(b"{\"text\": \"a\"} x").contains("trailing characters"));
    }

    proptest::proptest! {
        #[test]
        fn any_string_survives(text: String) {
            let line = serde_json::to_vec(&serde_json::json!({"text": text})).unwrap();
            proptest::prop_assert_eq!(&*Document::parse(&line).unwrap().text, &*text);
        }

        #[test]
        fn any_bytes_parse_or_fail_cleanly(line: Vec<u8>) {
            let _ = Document::parse(&line);
        }
    }
}
