//! Parsing one record of a shard into a document.

use std::borrow::Cow;

use super::{json, reference};

/// The text and the subset of a record.
#[derive(Debug, PartialEq, Eq)]
pub struct Document<'a> {
    /// The text, with lone surrogates of the JSON replaced by U+FFFD.
    pub text: Cow<'a, str>,
    /// `meta.pile_set_name`, if it is a string.
    pub subset: Option<Cow<'a, str>>,
    /// Number of lone surrogates in the text.
    pub n_lone_surrogates: u64,
}

impl<'a> Document<'a> {
    /// Parses a line `{"text": ..., "meta": {"pile_set_name": ...}}`, where `text_field` is the key of the
    /// text, or a line that is a JSON string. A list of strings is joined by empty lines.
    ///
    /// Leading byte-order marks are ignored: concatenated files have them in the middle. Other keys are
    /// ignored, and may have the values `NaN`, `Infinity` and `-Infinity`, which Python writes. A text with
    /// escapes is built in `scratch`.
    ///
    /// # Errors
    /// Why the line is not a record. The message names neither the file nor the record.
    pub fn parse(
        line: &'a [u8],
        text_field: &str,
        scratch: &'a mut Vec<u8>,
    ) -> Result<Self, String> {
        let line = utf8(line)?;
        let json = without_marks(line);
        let found = json::parse(json, text_field, scratch);
        match found.and_then(|found| found.document(json, scratch)) {
            Some(document) => Ok(document),
            None => reference::parse(line, text_field),
        }
    }

    /// Copies the borrowed strings.
    #[must_use]
    pub fn into_owned(self) -> Document<'static> {
        Document {
            text: Cow::Owned(self.text.into_owned()),
            subset: self.subset.map(|name| Cow::Owned(name.into_owned())),
            n_lone_surrogates: self.n_lone_surrogates,
        }
    }
}

/// Removes leading byte-order marks.
pub(super) fn without_marks(text: &str) -> &str {
    text.trim_start_matches('\u{FEFF}')
}

/// Checks that the bytes of a record are UTF-8. The error names the first byte that is not.
pub(super) fn utf8(bytes: &[u8]) -> Result<&str, String> {
    // The fast check does not report the position of an error.
    simdutf8::basic::from_utf8(bytes).or_else(|_| {
        std::str::from_utf8(bytes).map_err(|err| {
            let at = err.valid_up_to();
            format!(
                "not UTF-8: byte {:#04x} at byte {} of it",
                bytes[at],
                at + 1
            )
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &[u8]) -> Result<Document<'static>, String> {
        Document::parse(line, "text", &mut Vec::new()).map(Document::into_owned)
    }

    fn message(line: &[u8]) -> String {
        parse(line).unwrap_err()
    }

    #[test]
    fn text_and_subset_are_found_among_other_keys() {
        let line = br#"{"id": [1, {"text": 2}], "text": "a\n\u00e9", "meta": {"x": 1, "pile_set_name": "C"}}"#;
        let document = parse(line).unwrap();
        assert_eq!(
            (&*document.text, document.subset.as_deref()),
            ("a\né", Some("C"))
        );
    }

    #[test]
    fn the_subset_is_a_string_in_meta() {
        for meta in [
            "null",
            "{}",
            "\"books\"",
            "[1]",
            r#"{"pile_set_name": null}"#,
        ] {
            let line = format!(r#"{{"text": "", "meta": {meta}}}"#);
            assert_eq!(parse(line.as_bytes()).unwrap().subset, None);
        }
        assert_eq!(parse(br#"{"text": ""}"#).unwrap().subset, None);
    }

    #[test]
    fn lone_surrogates_become_replacement_characters_and_are_counted() {
        let document = parse(br#"{"text": "a\ud800b\udc00\ud83d\ude00"}"#).unwrap();
        assert_eq!(document.text, "a\u{FFFD}b\u{FFFD}😀");
        assert_eq!(document.n_lone_surrogates, 2);
    }

    #[test]
    fn a_string_is_a_document_and_a_list_of_them_is_joined() {
        assert_eq!(parse(br#" "a\tb" "#).unwrap().text, "a\tb");
        assert_eq!(
            parse(br#"{"text": ["a", "b\n"]}"#).unwrap().text,
            "a\n\nb\n"
        );
        assert_eq!(parse(br#"{"text": []}"#).unwrap().text, "");
    }

    #[test]
    fn the_text_may_be_under_another_name() {
        let line = br#"{"text": 1, "content": "a"}"#;
        let mut scratch = Vec::new();
        let document = Document::parse(line, "content", &mut scratch).unwrap();
        assert_eq!(document.text, "a");
        let missing = Document::parse(br#"{"text": ""}"#, "body", &mut scratch).unwrap_err();
        assert_eq!(
            missing,
            "no \"body\" in the JSON object; text-field names the key of the text"
        );
    }

    #[test]
    fn errors_say_what_is_wrong() {
        assert!(message(b"").contains("empty line"));
        assert!(message(b"{\"text\": \"a").contains("not JSON: EOF"));
        assert!(message(b"{").contains("at byte 1 of the line; a record is one line"));
        assert!(message(b"hello").contains("not JSON: expected value at byte 1"));
        assert!(message(b"{}").contains("no \"text\""));
        assert!(message(b"[1]").contains("expected a JSON object"));
        assert!(message(b"{\"text\": 1}").contains("integer `1`, expected a string"));
        assert!(message(b"{\"text\": null}").contains("null, expected a string"));
        assert!(message(b"{\"text\": [1]}").contains("expected a string"));
        assert!(message(b"{\"text\": \"\xff\"}").contains("not UTF-8: byte 0xff at byte 11"));
        assert!(message(b"{\"text\": \"a\"} x").contains("trailing characters"));
        assert!(message(b"{\"text\": \"\x01\"}").contains("control character"));
    }

    #[test]
    fn positions_in_messages_are_those_of_the_line() {
        for before in ["", " ", "\u{FEFF}", "\u{FEFF}\u{FEFF} "] {
            let at = |n: usize| format!("at byte {} of", before.len() + n);
            let of = |json: &str| message(format!("{before}{json}").as_bytes());
            assert!(of("hello").contains(&at(1)), "{}", of("hello"));
            assert!(of(r#"{"x": NaN, "text": y}"#).contains(&at(20)));
            let invalid = [before.as_bytes(), b"{\"text\": \"\xff\"}"].concat();
            assert!(message(&invalid).contains(&at(11)));
        }
        // serde_json counts from the start of the value, which is not that of the line.
        for json in [r#"{"text": 1e999}"#, r#"{"text": ["a", 1e999]}"#] {
            assert_eq!(
                message(json.as_bytes()),
                "not a document: number out of range"
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn any_string_survives(text: String) {
            let line = serde_json::to_vec(&serde_json::json!({"text": text})).unwrap();
            proptest::prop_assert_eq!(&*parse(&line).unwrap().text, &*text);
        }

        #[test]
        fn any_bytes_parse_or_fail_cleanly(line: Vec<u8>) {
            let _ = parse(&line);
        }
    }
}
