//! Tests of loading, refusing, encoding and decoding, with small files built here.

use super::*;
use crate::tokenize::{TrainConfig, Trainer, reference::Reference};
use crate::{ErrorKind, progress::Progress};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Skips whatever can be skipped, as Hugging Face `tokenizers` does by default.
const SPECIAL_AND_UNKNOWN: Skipped = Skipped {
    special_tokens: true,
    unknown_ids: true,
};

fn trained_json() -> Value {
    let mut trainer = Trainer::new(TrainConfig {
        vocab_size: 280,
        min_frequency: 0,
        special_tokens: vec!["<pad>".to_owned(), "<|endoftext|>".to_owned()],
    })
    .unwrap();
    trainer.add("the cat sat on the mat, the café's cat; 'that' 1234 1234   the    end\n\n");
    let trained = trainer.finish(&Progress::default()).unwrap();
    serde_json::from_str(&trained.to_json()).unwrap()
}

fn load(json: &Value) -> Result<Tokenizer> {
    Tokenizer::from_json(json.to_string().as_bytes(), Path::new("t.json"))
}

fn encode(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    let mut ids = Vec::new();
    tokenizer.encoder().encode(text, &mut ids).unwrap();
    ids
}

/// The file with `value` at a JSON pointer.
fn with(pointer: &str, value: Value) -> Value {
    let mut json = trained_json();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    json.pointer_mut(parent).unwrap()[key] = value;
    json
}

fn refusal(pointer: &str, value: Value) -> String {
    let err = load(&with(pointer, value)).unwrap_err();
    assert!(matches!(err.kind(), ErrorKind::Format(_)));
    err.to_string()
}

fn added(id: u32, content: &str, is_normalized: bool, is_special: bool) -> Value {
    json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": is_normalized, "special": is_special})
}

#[test]
fn round_trip_of_a_trained_file() {
    let tokenizer = load(&trained_json()).unwrap();
    assert_eq!(tokenizer.vocab_size(), 280);
    assert_eq!(tokenizer.max_id(), 279);
    assert_eq!(tokenizer.eod(), Some(("<|endoftext|>", 1)));
    let ids = encode(&tokenizer, "the cat<pad> zoo");
    assert_eq!(
        tokenizer.decode(&ids, Skipped::default()).unwrap(),
        "the cat<pad> zoo"
    );
    assert_eq!(
        tokenizer.decode(&ids, SPECIAL_AND_UNKNOWN).unwrap(),
        "the cat zoo"
    );
    assert_eq!(encode(&tokenizer, ""), [0; 0]);
    assert_eq!(encode(&tokenizer, "t").len(), 1);
}

#[test]
fn unsupported_components_are_refused_by_name() {
    let metaspace = json!({"type": "Metaspace", "replacement": "_"});
    assert_eq!(
        refusal("/pre_tokenizer", metaspace),
        "unsupported pre_tokenizer \"Metaspace\": byte-level BPE is expected: \
         {\"type\": \"ByteLevel\", ...} (t.json)"
    );
    let cases = [
        ("/version", json!("2.0"), "unsupported version \"2.0\""),
        (
            "/model/type",
            json!("Unigram"),
            "unsupported model \"Unigram\"",
        ),
        (
            "/model/dropout",
            json!(0.1),
            "unsupported model.dropout 0.1",
        ),
        (
            "/model/end_of_word_suffix",
            json!("</w>"),
            "unsupported model.end_of_word_suffix \"</w>\"",
        ),
        ("/model/colour", json!(1), "unknown key at model.colour"),
        ("/colour", json!(1), "unknown key at colour"),
        (
            "/normalizer",
            json!({"type": "NFKC"}),
            "unsupported normalizer \"NFKC\"",
        ),
        (
            "/normalizer",
            json!({"type": "Sequence", "normalizers": [{"type": "Lowercase"}]}),
            "unsupported normalizer.normalizers[0] \"Lowercase\"",
        ),
        (
            "/pre_tokenizer",
            json!(null),
            "unsupported pre_tokenizer null",
        ),
        (
            "/pre_tokenizer/use_regex",
            json!(false),
            "unsupported pre_tokenizer.use_regex false",
        ),
        (
            "/post_processor",
            json!({"type": "Bert"}),
            "unsupported post_processor \"Bert\"",
        ),
        (
            "/post_processor",
            json!({"type": "Sequence", "processors": [{"type": "Bert"}]}),
            "unsupported post_processor.processors[0] \"Bert\"",
        ),
        (
            "/post_processor",
            json!({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<pad>"}}]}),
            "0 texts, expected one at post_processor.single",
        ),
        (
            "/decoder",
            json!({"type": "WordPiece"}),
            "unsupported decoder \"WordPiece\"",
        ),
        ("/decoder", json!(null), "unsupported decoder null"),
        ("/truncation", json!(1), "1 at truncation"),
    ];
    for (pointer, value, expected) in cases {
        let message = refusal(pointer, value);
        assert!(message.starts_with(expected), "{message}");
        assert!(message.ends_with("(t.json)"), "{message}");
    }
}

fn sequence(items: Value) -> Value {
    json!({"type": "Sequence", "pretokenizers": items})
}

fn split(regex: &str) -> Value {
    json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false})
}

fn byte_level(uses_regex: bool) -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false,
        "use_regex": uses_regex})
}

/// Qwen's pattern.
const QWEN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

#[test]
fn unsupported_parts_of_a_pre_tokenizer_are_refused_by_name() {
    let mut prefix = byte_level(false);
    prefix["add_prefix_space"] = json!(true);
    let mut merged = split(QWEN);
    merged["behavior"] = json!("MergedWithNext");
    let text = json!({"type": "Split", "pattern": {"String": " "}, "behavior": "Isolated"});
    let cases = [
        (json!([]), " \"Sequence\": Split or Digits"),
        (
            json!([split(r"\w+"), byte_level(false)]),
            ".pretokenizers[0].pattern.Regex \"\\\\w+\": unknown; the pattern of GPT-2",
        ),
        (
            json!([text, byte_level(false)]),
            ".pretokenizers[0].pattern {\"String\":\" \"}: a Regex",
        ),
        (
            json!([merged, byte_level(false)]),
            ".pretokenizers[0].behavior \"MergedWithNext\"",
        ),
        (
            json!([split(QWEN), byte_level(true)]),
            ".pretokenizers[1].use_regex true",
        ),
        (
            json!([split(QWEN), prefix]),
            ".pretokenizers[1].add_prefix_space true",
        ),
        (
            json!([split(QWEN), split(QWEN)]),
            ".pretokenizers[1] \"Split\": ByteLevel",
        ),
        (
            json!([{"type": "Punctuation"}, byte_level(true)]),
            ".pretokenizers[0] \"Punctuation\"",
        ),
        (
            json!([{"type": "Digits"}, byte_level(false)]),
            ".pretokenizers[1].use_regex false",
        ),
    ];
    for (items, expected) in cases {
        let message = refusal("/pre_tokenizer", sequence(items));
        let expected = format!("unsupported pre_tokenizer{expected}");
        assert!(message.starts_with(&expected), "{message}");
    }
}

#[test]
fn a_fallback_for_unknown_bytes_is_refused_if_there_are_any() {
    let mut json = with("/model/unk_token", json!("<pad>"));
    json["model"]["byte_fallback"] = json!(true);
    load(&json).unwrap();
    json["model"]["vocab"].as_object_mut().unwrap().remove("z");
    let message = |json: &Value| load(json).unwrap_err().to_string();
    assert_eq!(
        message(&json),
        "unsupported model.unk_token \"<pad>\": null is expected, as byte 0x7A is not in model.vocab (t.json)"
    );
    json["model"]["unk_token"] = json!(null);
    assert!(message(&json).starts_with("unsupported model.byte_fallback true: false"));
}

#[test]
fn truncation_padding_and_post_processor_are_not_applied() {
    let mut json = trained_json();
    json["truncation"] =
        json!({"max_length": 1, "stride": 0, "strategy": "LongestFirst", "direction": "Right"});
    json["padding"] = json!({"strategy": {"Fixed": 9}});
    json["post_processor"] = json!({"type": "Sequence", "processors": [byte_level(true), {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<pad>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    }]});
    let text = "the cat sat";
    let expected = encode(&load(&trained_json()).unwrap(), text);
    assert_eq!(encode(&load(&json).unwrap(), text), expected);
}

#[test]
fn contradictions_are_refused() {
    let cases = [
        (
            "/model/vocab",
            json!(null),
            "nothing at model.vocab, expected an object",
        ),
        (
            "/model/vocab/a",
            json!(-1),
            "-1 at model.vocab.a, expected an id",
        ),
        (
            "/model/vocab/a",
            json!(u32::MAX),
            "id 4294967295 of token \"a\" is above 1048575 at model.vocab",
        ),
        (
            "/model/vocab/a",
            json!(2),
            "id 2 is assigned to both \"!\" and \"a\"",
        ),
        (
            "/model/merges",
            json!(["a"]),
            "1 parts, expected a merge of 2 at model.merges[0]",
        ),
        (
            "/model/merges",
            json!([["a", 1]]),
            "expected a merge of two strings at model.merges[0]",
        ),
        (
            "/model/merges",
            json!([["a", "漢"]]),
            "model.merges[0]: \"a漢\" is not in model.vocab",
        ),
        (
            "/added_tokens/1/id",
            json!(7),
            "added_tokens[1]: \"<|endoftext|>\" has id 7, expected 1",
        ),
        (
            "/added_tokens/1/content",
            json!("<pad>"),
            "added_tokens[1]: \"<pad>\" is empty or repeated",
        ),
        (
            "/added_tokens/1/special",
            json!(null),
            "nothing at added_tokens[1].special, expected true or false",
        ),
    ];
    for (pointer, value, expected) in cases {
        let message = refusal(pointer, value);
        assert_eq!(message, format!("{expected} (t.json)"));
    }
}

#[test]
fn bytes_that_are_not_json_are_refused_at_their_byte() {
    let message = |bytes: &[u8]| {
        let err = Tokenizer::from_json(bytes, Path::new("t.json")).unwrap_err();
        err.to_string()
    };
    assert!(
        message(b"").starts_with("not JSON: EOF"),
        "{}",
        message(b"")
    );
    assert!(message(b"{\n  \"a\": x}").ends_with("(t.json, byte 9)"));
    assert_eq!(
        message(b"[]"),
        "an array at the top, expected an object (t.json)"
    );
    assert_eq!(
        message(b"{}"),
        "nothing at model, expected an object (t.json)"
    );
    let json = trained_json().to_string();
    let cut = message(&json.as_bytes()[..json.len() / 2]);
    assert!(cut.starts_with("not JSON: EOF"), "{cut}");
}

#[test]
fn missing_file_is_an_io_error() {
    let err = Tokenizer::from_file(Path::new("no/such.json")).unwrap_err();
    assert!(matches!(err.kind(), ErrorKind::Io(_)));
}

#[test]
fn merges_may_be_lines() {
    let mut json = trained_json();
    let merges = json["model"]["merges"].as_array_mut().unwrap();
    for merge in merges.iter_mut() {
        let parts = (merge[0].as_str().unwrap(), merge[1].as_str().unwrap());
        *merge = json!(format!("{} {}", parts.0, parts.1));
    }
    merges.insert(0, json!("#version: 0.2"));
    let text = "the cat sat on that mat";
    let expected = encode(&load(&trained_json()).unwrap(), text);
    assert_eq!(encode(&load(&json).unwrap(), text), expected);
}

#[test]
fn eod_is_the_first_of_the_known_special_tokens() {
    let eod = |tokens: Vec<Value>| {
        let tokenizer = load(&with("/added_tokens", json!(tokens))).unwrap();
        tokenizer.eod().map(|(token, id)| (token.to_owned(), id))
    };
    let both = vec![
        added(280, "<eos>", false, true),
        added(281, "</s>", false, true),
    ];
    assert_eq!(eod(both), Some(("</s>".to_owned(), 281)));
    assert_eq!(eod(vec![added(280, "</s>", false, false)]), None);
    assert_eq!(eod(Vec::new()), None);
}

#[test]
fn normalized_tokens_decode_to_their_normalized_form() {
    let tokens = json!([
        added(280, "e\u{301}", true, true),
        added(281, "e\u{302}z", true, true)
    ]);
    let tokenizer = load(&with("/added_tokens", tokens)).unwrap();
    assert_eq!(tokenizer.token_to_id("e\u{301}"), Some(280));
    assert_eq!(tokenizer.id_to_token(280), Some("é"));
    // Both are odd, and equal to Hugging Face `tokenizers`: é is the character of byte 0xE9, and the normalized
    // form is not known as a special token.
    assert_eq!(
        tokenizer.decode(&[280], SPECIAL_AND_UNKNOWN).unwrap(),
        "\u{fffd}"
    );
    // The file spells the token of byte 0xE9 "é", and its id is 167.
    let twice = json!([
        added(280, "e\u{301}", true, true),
        added(167, "é", true, true)
    ]);
    let message = load(&with("/added_tokens", twice)).unwrap_err().to_string();
    assert_eq!(
        message,
        "added_tokens: two have the normalized content \"é\" (t.json)"
    );
}

#[test]
fn prefix_space_is_added_to_each_text_between_added_tokens() {
    let tokenizer = load(&with("/pre_tokenizer/add_prefix_space", json!(true))).unwrap();
    let decoded = |text| {
        tokenizer
            .decode(&encode(&tokenizer, text), Skipped::default())
            .unwrap()
    };
    assert_eq!(decoded("a<pad>b<pad> c"), " a<pad> b<pad> c");
    assert_eq!(decoded(""), "");
}

#[test]
fn whole_pretokens_need_no_merging_with_ignore_merges() {
    let mut json = with("/model/ignore_merges", json!(true));
    json["model"]["vocab"]["Ġdog"] = json!(280);
    let tokenizer = load(&json).unwrap();
    assert_eq!(
        encode(&tokenizer, "a dog"),
        [tokenizer.token_to_id("a").unwrap(), 280]
    );
    json["model"]["ignore_merges"] = json!(false);
    assert!(!encode(&load(&json).unwrap(), "a dog").contains(&280));
}

#[test]
fn added_tokens_outside_the_alphabet_decode_to_themselves() {
    let tokens = json!([added(280, "漢 字", true, false)]);
    let tokenizer = load(&with("/added_tokens", tokens)).unwrap();
    assert_eq!(encode(&tokenizer, "漢 字"), [280]);
    assert_eq!(
        tokenizer
            .decode(&[280, u32::MAX], SPECIAL_AND_UNKNOWN)
            .unwrap(),
        "漢 字"
    );
    let err = tokenizer.decode(&[280, u32::MAX], Skipped::default());
    assert_eq!(
        err.unwrap_err().to_string(),
        "the tokenizer has no id 4294967295 (t.json)"
    );
}

/// A file with added tokens of all kinds. NFC makes one character of the first two of "e\u{301}", of a normalized
/// token and of a text; a token that is not normalized is searched before that.
fn with_added_tokens(strips: (bool, bool), adds_prefix_space: bool) -> Value {
    let mut tokens = vec![
        added(0, "<pad>", false, true),
        added(280, "e\u{301}", true, false),
        added(281, "  ", true, false),
        added(282, "<pad>e", false, false),
        added(283, "e\u{301}e", false, false),
        added(284, " x", true, false),
    ];
    for token in &mut tokens {
        token["lstrip"] = json!(strips.0);
        token["rstrip"] = json!(strips.1);
    }
    let mut json = with("/added_tokens", json!(tokens));
    json["pre_tokenizer"]["add_prefix_space"] = json!(adds_prefix_space);
    json
}

#[test]
fn a_long_run_whose_parts_have_boundaries_of_their_own_is_encoded() {
    // No token starts with "aa", so a merge boundary is seen after the first "a" of a run, where the test has no more
    // context, and nowhere else. If parts were split again, each level would cut off one byte and the stack overflow.
    let mut json = trained_json();
    let mut tokens: Vec<String> = ["ba", "baa", "baaa", "baaaa"].map(String::from).into();
    let vocab = json["model"]["vocab"].as_object_mut().unwrap();
    vocab.retain(|token, _| token.chars().count() == 1);
    let ids: Vec<String> = vocab.keys().cloned().collect();
    for (id, token) in ids.into_iter().chain(tokens.drain(..)).enumerate() {
        vocab.insert(token, json!(id));
    }
    json["model"]["merges"] = json!([["b", "a"], ["ba", "a"], ["baa", "a"], ["baaa", "a"]]);
    json["added_tokens"] = json!([]);
    let tokenizer = load(&json).unwrap();
    let text = "a".repeat(200_000);
    let ids = encode(&tokenizer, &text);
    assert_eq!(ids.len(), text.len());
    assert!(tokenizer.decode(&ids, Skipped::default()).unwrap() == text);
}

/// The trained file without some of the byte tokens that no merge uses: those for whose number in the vocabulary
/// `is_left_out` is true.
fn without_bytes(is_left_out: impl Fn(usize) -> bool) -> Value {
    let mut json = trained_json();
    let merges = json["model"]["merges"].to_string();
    let vocab = json["model"]["vocab"].as_object_mut().unwrap();
    let bytes = vocab.keys().filter(|token| token.chars().count() == 1);
    let unmerged: Vec<String> = bytes
        .filter(|token| !merges.contains(token.as_str()))
        .cloned()
        .collect();
    for (number, token) in unmerged.iter().enumerate() {
        if is_left_out(number) {
            vocab.remove(token);
        }
    }
    json
}

#[test]
fn a_text_that_the_vocabulary_cannot_write_is_refused() {
    let mut json = trained_json();
    json["model"]["vocab"] = json!({});
    json["model"]["merges"] = json!([]);
    json["added_tokens"] = json!([]);
    let empty = load(&json).unwrap();
    let err = empty.encoder().encode("a", &mut Vec::new()).unwrap_err();
    assert_eq!(
        err.to_string(),
        "a text has byte 0x61, for which model.vocab has no token (t.json)"
    );
    assert_eq!(encode(&empty, ""), [0; 0]);
    let tokenizer = load(&without_bytes(|_| true)).unwrap();
    let mut encoder = tokenizer.encoder();
    let mut refused = |text: &str| encoder.encode(text, &mut Vec::new()).is_err();
    for text in ["Z", "the Z", "<pad>Z<pad>", &"Z".repeat(1000), "Z"] {
        assert!(refused(text), "{text}");
        assert!(!refused("the cat"), "the next text is valid");
    }
}

/// Post-processors with the ids that each adds before and after a text: `<pad>` is 0, `<|endoftext|>` is 1.
fn post_processors() -> Vec<(Value, [Vec<u32>; 2])> {
    let special = json!({
        "<b>": {"id": "<b>", "ids": [1, 0], "tokens": ["<|endoftext|>", "<pad>"]},
        "<e>": {"id": "<e>", "ids": [1], "tokens": ["<|endoftext|>"]},
    });
    let token = |id: &str| json!({"SpecialToken": {"id": id, "type_id": 0}});
    let text = json!({"Sequence": {"id": "A", "type_id": 0}});
    let template = |single: Value| {
        json!({"type": "TemplateProcessing", "single": single, "pair": [],
            "special_tokens": special.clone()})
    };
    let both = template(json!([token("<b>"), text, token("<e>"), token("<e>")]));
    let pairs =
        |kind: &str| json!({"type": kind, "sep": ["<|endoftext|>", 1], "cls": ["<pad>", 0]});
    vec![
        (Value::Null, [vec![], vec![]]),
        (byte_level(false), [vec![], vec![]]),
        (template(json!([text])), [vec![], vec![]]),
        (template(json!([token("<e>"), text])), [vec![1], vec![]]),
        (template(json!([text, token("<b>")])), [vec![], vec![1, 0]]),
        (both.clone(), [vec![1, 0], vec![1, 1]]),
        (pairs("RobertaProcessing"), [vec![0], vec![1]]),
        (pairs("BertProcessing"), [vec![0], vec![1]]),
        (
            json!({"type": "Sequence", "processors": [
                byte_level(false),
                {"type": "Sequence", "processors": [both, byte_level(true)]},
            ]}),
            [vec![1, 0], vec![1, 1]],
        ),
    ]
}

#[test]
fn special_tokens_of_the_post_processor_are_added_only_on_request() {
    let plain = encode(&load(&trained_json()).unwrap(), "the cat<pad>");
    for (post_processor, [before, after]) in post_processors() {
        let tokenizer = load(&with("/post_processor", post_processor.clone())).unwrap();
        assert_eq!(encode(&tokenizer, "the cat<pad>"), plain);
        let mut encoder = tokenizer.encoder_with_special_tokens().unwrap();
        for _ in 0..2 {
            let mut ids = Vec::new();
            encoder.encode("the cat<pad>", &mut ids).unwrap();
            assert_eq!(
                ids,
                [&before[..], &plain, &after].concat(),
                "{post_processor}"
            );
        }
    }
}

#[test]
fn a_post_processor_that_cannot_be_applied_is_refused_on_request() {
    let refused = |post_processor: &Value| {
        let tokenizer = load(&with("/post_processor", post_processor.clone())).unwrap();
        encode(&tokenizer, "the cat");
        tokenizer
            .encoder_with_special_tokens()
            .unwrap_err()
            .to_string()
    };
    let all = post_processors();
    // The template with tokens on both sides, and `RobertaProcessing`.
    let (both, pairs) = (&all[5].0, &all[6].0);
    let twice = json!({"type": "Sequence", "processors": [both, pairs]});
    let two = refused(&twice);
    assert!(two.contains("two processors add tokens"), "{two}");
    let mut unknown = both.clone();
    unknown["special_tokens"] = json!({});
    let message = refused(&unknown);
    assert!(
        message.contains("post_processor.special_tokens.<b>.ids"),
        "{message}"
    );
    let mut beyond = both.clone();
    beyond["special_tokens"]["<e>"]["ids"] = json!([70_000]);
    assert!(
        refused(&beyond).contains("id 70000"),
        "{}",
        refused(&beyond)
    );
    let mut odd = both.clone();
    odd["single"][0] = json!({"Token": {"id": "<b>"}});
    let message = refused(&odd);
    assert!(message.contains("post_processor.single[0]"), "{message}");
    let mut pair = pairs.clone();
    pair["sep"] = json!(["<pad>"]);
    assert!(
        refused(&pair).contains("post_processor.sep"),
        "{}",
        refused(&pair)
    );
}

proptest! {
    #[test]
    fn refuses_the_texts_that_the_reference_refuses(
        left_out in proptest::collection::vec(any::<bool>(), 256),
        texts in proptest::collection::vec("([a-zA-Z]{1,3}|the|<pad>| |é|漢|[0-9]{1,30}|\\PC){0,12}", 1..8),
    ) {
        let json = without_bytes(|number| left_out[number % 256] && number % 3 == 0);
        let bytes = json.to_string().into_bytes();
        let reference = Reference::from_json(&bytes, Path::new("t.json")).unwrap();
        let tokenizer = load(&json).unwrap();
        let mut encoder = tokenizer.encoder();
        for text in texts.iter().chain(&texts) {
            let mut ids = Vec::new();
            let encoded = encoder.encode(text, &mut ids).ok().map(|()| ids);
            prop_assert_eq!(encoded, reference.encode(text));
        }
    }

    #[test]
    fn equals_the_reference_with_added_tokens_of_all_kinds(
        parts in proptest::collection::vec(
            "(<pad>|<pad>e|e|\u{301}|é| {1,3}|x|the|'s|\n|[0-9a-z]{1,4}|\\PC)", 0..12),
        strips in any::<(bool, bool)>(),
        adds_prefix_space in any::<bool>(),
    ) {
        let json = with_added_tokens(strips, adds_prefix_space);
        let bytes = json.to_string().into_bytes();
        let reference = Reference::from_json(&bytes, Path::new("t.json")).unwrap();
        let text = parts.concat();
        let ids = encode(&load(&json).unwrap(), &text);
        prop_assert_eq!(Some(ids), reference.encode(&text));
    }

    #[test]
    fn equals_the_reference_in_every_family(
        text in "(<pad>| x|[ '\r\n\u{a0}]{1,3}|[sStTeElL]|the|[0-9²]{1,5}|[.!é漢]|\\PC){0,40}",
        is_single_word in any::<bool>(),
    ) {
        for pre_tokenizer in [
            json!([split(QWEN), byte_level(false)]),
            json!([split(&QWEN.replace("N}|", "N}{1,3}|")), byte_level(false)]),
            json!([split(&QWEN.replace("N}|", "N}+|")), byte_level(false)]),
            json!([{"type": "Digits", "individual_digits": true}, byte_level(true)]),
            json!([{"type": "Digits", "individual_digits": false}, byte_level(true)]),
        ] {
            let mut json = with_added_tokens((false, false), false);
            json["pre_tokenizer"] = sequence(pre_tokenizer);
            json["added_tokens"][0]["single_word"] = json!(is_single_word);
            let bytes = json.to_string().into_bytes();
            let reference = Reference::from_json(&bytes, Path::new("t.json")).unwrap();
            let ids = encode(&load(&json).unwrap(), &text);
            prop_assert_eq!(Some(ids), reference.encode(&text));
        }
    }
}
