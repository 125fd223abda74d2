//! A record from which ranges are cut or that is marked, compared with serde_json changing its values.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pile_core::read::{ByteRange, cut_record, mark_record, reference::without_constants};
use pile_fuzz::record::{Pairs, parsed};
use serde_json::{Value, json};

/// The key and the value of a mark.
const MARK: (&str, &str) = ("dedup", "{\"cluster\": 12}");

/// The characters of a text that are cut: those whose number modulo 8 is a bit of `mask`.
fn cut(text: &str, mask: u8) -> (Vec<ByteRange>, String) {
    let (mut ranges, mut rest) = (Vec::<ByteRange>::new(), String::new());
    for (number, (start, c)) in text.char_indices().enumerate() {
        let (start, end) = (start as u64, (start + c.len_utf8()) as u64);
        match (mask >> (number % 8) & 1, ranges.last_mut()) {
            (0, _) => rest.push(c),
            (_, Some(last)) if last.end == start => last.end = end,
            _ => ranges.push(ByteRange { start, end }),
        }
    }
    (ranges, rest)
}

/// The keys and values of a line, in order, or its string; `None` if serde_json cannot represent it.
fn values(line: &[u8]) -> Option<Result<Vec<(String, Value)>, String>> {
    let text = std::str::from_utf8(line)
        .ok()?
        .trim_start_matches('\u{FEFF}');
    let standard = without_constants(text);
    let text = standard.as_deref().unwrap_or(text);
    if let Ok(text) = serde_json::from_str::<String>(text) {
        return Some(Err(text));
    }
    serde_json::from_str(text)
        .ok()
        .map(|Pairs(pairs)| Ok(pairs))
}

/// Sets the last value of a key, or adds it.
fn set(pairs: &mut Vec<(String, Value)>, key: &str, value: Value) {
    match pairs.iter_mut().rev().find(|(name, _)| name == key) {
        Some((_, old)) => *old = value,
        None => pairs.push((key.to_owned(), value)),
    }
}

/// Checks that an edit only inserted bytes.
fn check_insertion(line: &[u8], edited: &[u8]) {
    let n_before = line.iter().zip(edited).take_while(|(a, b)| a == b).count();
    assert!(
        edited.ends_with(&line[n_before..]),
        "bytes of the line were lost"
    );
}

fuzz_target!(|input: &[u8]| {
    let Some(([kind, mask], line)) = input.split_first_chunk() else {
        return;
    };
    let record = parsed(line);
    let mut edited = Vec::new();
    if kind % 2 == 0 {
        let text = record.as_ref().map_or("", |(text, _)| text);
        let (ranges, rest) = cut(text, *mask);
        let done = cut_record(line, "text", &ranges, &mut edited);
        let Some((_, subset)) = &record else {
            assert!(done.is_err() && edited.is_empty());
            return;
        };
        assert_eq!(done, Ok((text.len() - rest.len()) as u64));
        assert_eq!(parsed(&edited), Some((rest.clone(), subset.clone())));
        match values(line) {
            Some(Ok(mut expected)) => {
                set(&mut expected, "text", Value::String(rest));
                assert_eq!(values(&edited), Some(Ok(expected)));
            }
            Some(Err(_)) => assert_eq!(values(&edited), Some(Err(rest))),
            None => {}
        }
        return;
    }
    let done = mark_record(line, "text", MARK.0, MARK.1, &mut edited);
    if done.is_err() {
        assert!(edited.is_empty());
    }
    let is_object = match values(line) {
        Some(Ok(pairs)) => {
            let meta = pairs.iter().rev().find(|(key, _)| key == "meta");
            meta.is_none_or(|(_, meta)| meta.is_null() || meta.is_object())
        }
        Some(Err(_)) => true,
        None => return,
    };
    assert_eq!(done.is_ok(), record.is_some() && is_object);
    if done.is_err() {
        return;
    }
    assert_eq!(parsed(&edited), record);
    let mark = json!({"cluster": 12});
    match values(line) {
        Some(Ok(mut expected)) => {
            let meta = expected.iter().rev().find(|(key, _)| key == "meta");
            let mut meta = meta.map_or(Value::Null, |(_, meta)| meta.clone());
            let is_insertion = meta.get(MARK.0).is_none() && !meta.is_null();
            meta[MARK.0] = mark;
            let is_added = !expected.iter().any(|(key, _)| key == "meta");
            set(&mut expected, "meta", meta);
            assert_eq!(values(&edited), Some(Ok(expected)));
            if is_insertion || is_added {
                check_insertion(line, &edited);
            }
        }
        Some(Err(text)) => {
            let expected = vec![
                ("text".to_owned(), Value::String(text)),
                ("meta".to_owned(), json!({MARK.0: mark})),
            ];
            assert_eq!(values(&edited), Some(Ok(expected)));
        }
        None => {}
    }
});
