//! Parses tokenizer.json, and refuses by name each component that is not byte-level BPE.
//!
//! `tokenizer` and `reference` build their tables from the result. The rules of the format are those of Hugging
//! Face `tokenizers` 0.23.3.

use crate::tokenize::{
    model::added_tokens::{AddedToken, MAX_CONTENT_BYTES},
    model::byte_alphabet::spell,
    model::cache::ID_LIMIT,
    pretokenize::pattern::{DigitGroup, Pattern},
    spec::json_node::JsonNode,
    spec::template::Template,
};
use crate::{Error, Result};
use serde_json::Value;
use std::{collections::HashSet, path::Path};

/// The largest id that is accepted. A file with a larger one is broken rather than large.
const MAX_ID: u32 = ID_LIMIT - 1;

/// Larger files are refused. The largest published one has 34 MB.
pub(crate) const MAX_FILE_BYTES: u64 = 128 << 20;

/// Upper bound on the number of values, counted by commas and opening brackets, those within strings included. 2^20
/// ids with as many merges have about 4 million.
const MAX_VALUES: usize = 8 << 20;

/// The contents of a tokenizer.json. All components are supported, but they may contradict each other.
#[derive(Debug)]
pub(crate) struct Spec {
    pub(crate) vocab: Vec<(String, u32)>,
    pub(crate) merges: Vec<(String, String)>,
    /// Whether a pretoken that is in the vocabulary becomes that token without merging.
    pub(crate) ignores_merges: bool,
    pub(crate) is_nfc: bool,
    pub(crate) adds_prefix_space: bool,
    pub(crate) pattern: Pattern,
    pub(crate) added: Vec<AddedToken>,
    /// The special tokens that the post-processor adds, or why they cannot be parsed. That is no error of the
    /// file: by default they are not used.
    pub(crate) template: Result<Template>,
}

impl Spec {
    /// Parses the bytes of a tokenizer.json. Messages name the file `path`.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Format`] if the bytes are not JSON, or a value is missing or not supported.
    pub(crate) fn from_json(bytes: &[u8], path: &Path) -> Result<Self> {
        check_size(bytes, path)?;
        let json: Value = serde_json::from_slice(bytes).map_err(|e| syntax(bytes, path, &e))?;
        let root = JsonNode::root(&json, path);
        root.object()?;
        root.only(&[
            "version",
            "truncation",
            "padding",
            "added_tokens",
            "normalizer",
            "pre_tokenizer",
            "post_processor",
            "decoder",
            "model",
        ])?;
        let model = root.key("model");
        check_model(&model)?; // First: of another model, no other value is worth a message.
        check_version(&root.key("version"))?;
        // These shape the batches of a model's inputs, and are not applied.
        root.key("truncation").object_if_any()?;
        root.key("padding").object_if_any()?;
        check_post_processor(&root.key("post_processor"))?;
        check_decoder(&root.key("decoder"))?;
        let added = root.key("added_tokens").items_or_none()?;
        let added: Vec<_> = added.iter().map(added_token).collect::<Result<_>>()?;
        check_contents(&added, path)?;
        let vocab = vocab(&model.key("vocab"))?;
        check_unknown(&model, &vocab)?;
        let (pattern, adds_prefix_space) = pre_tokenizer(&root.key("pre_tokenizer"))?;
        Ok(Self {
            vocab,
            merges: merges(&model.key("merges"))?,
            ignores_merges: model.key("ignore_merges").flag_or(false)?,
            is_nfc: is_nfc(&root.key("normalizer"))?,
            adds_prefix_space,
            pattern,
            template: Template::from_json(&root.key("post_processor")),
            added,
        })
    }
}

/// Refuses a file that would take too much memory to parse. A parsed value takes more memory than its text.
fn check_size(bytes: &[u8], path: &Path) -> Result<()> {
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(too_large(path));
    }
    let n_values = bytes
        .iter()
        .filter(|b| matches!(b, b',' | b'[' | b'{'))
        .count();
    if n_values > MAX_VALUES {
        let what = format!("has {n_values} JSON values, at most {MAX_VALUES} are supported");
        return Err(Error::malformed(path, what));
    }
    Ok(())
}

/// The error for a file with more than [`MAX_FILE_BYTES`].
fn too_large(path: &Path) -> Error {
    let what = format!("has more than {MAX_FILE_BYTES} bytes, the most that is supported");
    Error::malformed(path, what)
}

/// Refuses added tokens whose automaton would take too much memory.
fn check_contents(added: &[AddedToken], path: &Path) -> Result<()> {
    let n_bytes: usize = added.iter().map(|token| token.content.len()).sum();
    if n_bytes > MAX_CONTENT_BYTES {
        let what = format!(
            "added_tokens have {n_bytes} bytes of content together, at most {MAX_CONTENT_BYTES} are \
             supported"
        );
        return Err(Error::malformed(path, what));
    }
    Ok(())
}

/// The error for bytes that are not JSON, with the byte offset of the first wrong one.
fn syntax(bytes: &[u8], path: &Path, err: &serde_json::Error) -> Error {
    let lines = bytes.split_inclusive(|b| *b == b'\n');
    let before: usize = lines
        .take(err.line().saturating_sub(1))
        .map(<[u8]>::len)
        .sum();
    let offset = before + err.column().saturating_sub(1);
    let what = format!("not JSON: {err}");
    Error::format(path, offset as u64, what)
}

fn check_version(version: &JsonNode<'_>) -> Result<()> {
    match version.is_null() || version.text()? == "1.0" {
        true => Ok(()),
        false => Err(version.unsupported("version 1.0 is expected")),
    }
}

fn check_post_processor(node: &JsonNode<'_>) -> Result<()> {
    match node.kind()? {
        None | Some("ByteLevel" | "RobertaProcessing" | "BertProcessing") => Ok(()),
        Some("TemplateProcessing") => check_template(&node.key("single")),
        Some("Sequence") => {
            let items = node.key("processors").items()?;
            items.iter().try_for_each(check_post_processor)
        }
        _ => Err(node.unsupported("one that adds special tokens at most is expected")),
    }
}

/// Refuses a template that omits or repeats the text.
fn check_template(single: &JsonNode<'_>) -> Result<()> {
    let items = single.items()?;
    let texts = items
        .iter()
        .map(|item| item.key("Sequence"))
        .filter(|item| !item.is_null());
    match texts.count() {
        1 => Ok(()),
        n => Err(single.wrong(&format!("{n} texts, expected one"))),
    }
}

fn check_decoder(node: &JsonNode<'_>) -> Result<()> {
    match node.kind()? {
        Some("ByteLevel") => Ok(()),
        _ => Err(node.unsupported("byte-level BPE is expected, whose decoder is ByteLevel")),
    }
}

/// Refuses a model that is not byte-level BPE, or that has options beyond it.
fn check_model(model: &JsonNode<'_>) -> Result<()> {
    model.object()?;
    if !matches!(model.kind_or(Some("BPE"))?, Some("BPE")) {
        return Err(model.unsupported("byte-level BPE is expected"));
    }
    model.only(&[
        "type",
        "dropout",
        "unk_token",
        "continuing_subword_prefix",
        "end_of_word_suffix",
        "fuse_unk",
        "byte_fallback",
        "ignore_merges",
        "vocab",
        "merges",
    ])?;
    model.key("continuing_subword_prefix").must_be_empty()?;
    model.key("end_of_word_suffix").must_be_empty()?;
    let dropout = model.key("dropout");
    match dropout.is_null() || dropout.is_zero() {
        true => Ok(()),
        false => {
            Err(dropout.unsupported("null is expected, as the ids of a text must not be random"))
        }
    }
}

/// Refuses a fallback for bytes without a token, unless all bytes have one.
fn check_unknown(model: &JsonNode<'_>, vocab: &[(String, u32)]) -> Result<()> {
    let (unk_token, byte_fallback) = (model.key("unk_token"), model.key("byte_fallback"));
    model.key("fuse_unk").flag_or(false)?; // Only affects `unk_token`.
    let falls_back = byte_fallback.flag_or(false)?;
    let Some(byte) = missing_byte(vocab) else {
        return Ok(());
    };
    let why = format!("is expected, as byte 0x{byte:02X} is not in model.vocab");
    match (unk_token.text_or_null()?, falls_back) {
        (Some(_), _) => Err(unk_token.unsupported(&format!("null {why}"))),
        (None, true) => Err(byte_fallback.unsupported(&format!("false {why}"))),
        (None, false) => Ok(()),
    }
}

/// The first byte that occurs in UTF-8 and is not a token.
fn missing_byte(vocab: &[(String, u32)]) -> Option<u8> {
    let tokens: HashSet<&str> = vocab.iter().map(|(token, _)| token.as_str()).collect();
    let mut utf8_bytes = (0..=0xF4).filter(|byte| !matches!(byte, 0xC0 | 0xC1));
    utf8_bytes.find(|byte| !tokens.contains(spell(&[*byte]).as_str()))
}

fn is_nfc(node: &JsonNode<'_>) -> Result<bool> {
    match node.kind()? {
        None => Ok(false),
        Some("NFC") => Ok(true),
        Some("Sequence") => {
            let items = node.key("normalizers").items()?;
            let each = items.iter().map(is_nfc).collect::<Result<Vec<bool>>>()?;
            Ok(each.contains(&true))
        }
        _ => Err(node.unsupported("null or NFC is expected")),
    }
}

/// The pattern, and whether a space is added before the text.
fn pre_tokenizer(node: &JsonNode<'_>) -> Result<(Pattern, bool)> {
    match node.kind()? {
        Some("ByteLevel") => {
            let adds_prefix_space = byte_level(node, true)?;
            Ok((Pattern::Gpt2, adds_prefix_space))
        }
        Some("Sequence") => match &node.key("pretokenizers").items()?[..] {
            [only] => pre_tokenizer(only),
            [first, second] => Ok((pattern_of_sequence(first, second)?, false)),
            _ => Err(node.unsupported("Split or Digits, then ByteLevel are expected")),
        },
        _ => {
            let what = "byte-level BPE is expected: {\"type\": \"ByteLevel\", ...}";
            Err(node.unsupported(what))
        }
    }
}

/// The pattern of two pretokenizers in sequence: `Split` or `Digits`, then `ByteLevel`.
fn pattern_of_sequence(first: &JsonNode<'_>, second: &JsonNode<'_>) -> Result<Pattern> {
    let pattern = match first.kind()? {
        Some("Split") => split(first)?,
        Some("Digits") => {
            first.only(&["type", "individual_digits"])?;
            Pattern::Digits(match first.key("individual_digits").flag_or(false)? {
                true => DigitGroup::One,
                false => DigitGroup::All,
            })
        }
        _ => return Err(first.unsupported("Split or Digits is expected, then ByteLevel")),
    };
    if second.kind()? != Some("ByteLevel") {
        return Err(second.unsupported("ByteLevel is expected as the last"));
    }
    let splits_again = matches!(pattern, Pattern::Digits(_));
    // Hugging Face `tokenizers` would add a space to each pretoken of `first`.
    if byte_level(second, splits_again)? {
        let prefix = second.key("add_prefix_space");
        return Err(prefix.unsupported("false is expected after another pre-tokenizer"));
    }
    Ok(pattern)
}

/// Whether a `ByteLevel` adds a space before the text. Its `use_regex` must equal `uses_regex`.
fn byte_level(node: &JsonNode<'_>, uses_regex: bool) -> Result<bool> {
    node.only(&["type", "add_prefix_space", "trim_offsets", "use_regex"])?;
    let regex = node.key("use_regex");
    match (regex.flag_or(true)?, uses_regex) {
        (false, true) => {
            Err(regex.unsupported("true is expected: GPT-2's pattern splits the text"))
        }
        (true, false) => Err(regex.unsupported("false is expected: Split splits the text")),
        _ => node.key("add_prefix_space").flag(),
    }
}

/// The pattern of a `Split` that keeps the whole text.
fn split(node: &JsonNode<'_>) -> Result<Pattern> {
    node.only(&["type", "pattern", "behavior", "invert"])?;
    let regex = node.key("pattern").key("Regex");
    if regex.is_null() {
        let what = "a Regex is expected: that of GPT-2, cl100k (Llama 3) or Qwen";
        return Err(node.key("pattern").unsupported(what));
    }
    let Some(pattern) = Pattern::of_regex(regex.text()?) else {
        let what = "unknown; the pattern of GPT-2, cl100k (Llama 3) or Qwen is expected";
        return Err(regex.unsupported(what));
    };
    // The patterns match every character. With nothing between matches, both settings keep exactly the matches.
    let behavior = node.key("behavior");
    match (behavior.text()?, node.key("invert").flag_or(false)?) {
        ("Isolated", _) | ("Removed", true) => Ok(pattern),
        _ => Err(behavior.unsupported("Isolated is expected")),
    }
}

fn vocab(node: &JsonNode<'_>) -> Result<Vec<(String, u32)>> {
    let entries = node.object()?.iter().map(|(token, id)| {
        match id.as_u64().and_then(|id| u32::try_from(id).ok()) {
            Some(id) if id <= MAX_ID => Ok((token.clone(), id)),
            Some(id) => {
                let what = format!("id {id} of token {token:?} is above {MAX_ID}");
                Err(node.wrong(&what))
            }
            None => Err(node.child(token, id).expected("an id")),
        }
    });
    entries.collect()
}

fn merges(node: &JsonNode<'_>) -> Result<Vec<(String, String)>> {
    let items = node.items()?;
    let lines = items.iter().filter(|i| !is_version_line(i));
    lines.map(merge).collect()
}

/// Whether a merge is the version line of a merges.txt, which some files include.
fn is_version_line(node: &JsonNode<'_>) -> bool {
    let text = node.text_if_any();
    text.is_some_and(|line| line.starts_with("#version"))
}

/// A merge, given as "left right" or as ["left", "right"].
fn merge(node: &JsonNode<'_>) -> Result<(String, String)> {
    let parts: Vec<&str> = match node.text_if_any() {
        Some(line) => line.split(' ').collect(),
        None => node
            .items()?
            .iter()
            .map(JsonNode::text_if_any)
            .collect::<Option<_>>()
            .ok_or_else(|| node.wrong("expected a merge of two strings"))?,
    };
    match parts[..] {
        [left, right] => Ok((left.to_owned(), right.to_owned())),
        _ => Err(node.wrong(&format!("{} parts, expected a merge of 2", parts.len()))),
    }
}

fn added_token(node: &JsonNode<'_>) -> Result<AddedToken> {
    node.object()?;
    node.only(&[
        "id",
        "content",
        "single_word",
        "lstrip",
        "rstrip",
        "normalized",
        "special",
    ])?;
    let (id, content) = (node.key("id"), node.key("content").text()?);
    Ok(AddedToken {
        id: match id.number()? {
            found if found <= MAX_ID => found,
            found => {
                let what = format!("id {found} of token {content:?} is above {MAX_ID}");
                return Err(id.wrong(&what));
            }
        },
        content: content.to_owned(),
        is_special: node.key("special").flag()?,
        is_normalized: node.key("normalized").flag()?,
        is_single_word: node.key("single_word").flag()?,
        strips_left: node.key("lstrip").flag()?,
        strips_right: node.key("rstrip").flag()?,
    })
}
