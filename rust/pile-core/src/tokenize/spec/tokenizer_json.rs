//! Reads tokenizer.json and refuses, by name, what is not byte-level BPE.
//!
//! The result is plain data; `tokenizer` and `reference` build on it. Rules of the format:
//! Hugging Face `tokenizers` 0.23.3.

use crate::tokenize::{
    model::added::{AddedToken, MAX_CONTENT_BYTES},
    model::bytes::spell,
    model::cache::ID_LIMIT,
    pretokenize::pattern::{DigitGroup, Pattern},
    spec::node::Node,
    spec::template::Template,
};
use crate::{Error, Result};
use serde_json::Value;
use std::{collections::HashSet, path::Path};

/// Ids up to here are accepted; a file with larger ones is broken rather than large.
const MAX_ID: u32 = ID_LIMIT - 1;

/// Larger files are refused; the largest that is published has 34 MB.
pub(crate) const MAX_FILE_BYTES: u64 = 128 << 20;

/// Upper bound of commas and brackets: 2^20 ids with as many merges have some 5 million.
const MAX_VALUES: usize = 8 << 20;

/// What a tokenizer.json says, checked for being supported but not yet for being consistent.
#[derive(Debug)]
pub(crate) struct Spec {
    pub(crate) vocab: Vec<(String, u32)>,
    pub(crate) merges: Vec<(String, String)>,
    /// Whether a piece that is a token of the vocabulary needs no merging.
    pub(crate) ignores_merges: bool,
    pub(crate) is_nfc: bool,
    pub(crate) adds_prefix_space: bool,
    pub(crate) pattern: Pattern,
    pub(crate) added: Vec<AddedToken>,
    /// What the post-processor adds to a text, or why that cannot be read: it is not wanted by default.
    pub(crate) template: Result<Template>,
}

impl Spec {
    /// Reads the bytes of a tokenizer.json; `path` is for messages.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Format`] if the bytes are not JSON, or something is missing or not
    /// supported.
    pub(crate) fn from_json(bytes: &[u8], path: &Path) -> Result<Self> {
        check_size(bytes, path)?;
        let json: Value = serde_json::from_slice(bytes).map_err(|e| syntax(bytes, path, &e))?;
        let root = Node::root(&json, path);
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
        check_model(&model)?; // first: the rest of another kind of model does not matter
        check_version(&root.key("version"))?;
        // How batches of a model's inputs are made; like post-processors not applied.
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
            template: Template::of(&root.key("post_processor")),
            added,
        })
    }
}

/// Refuses a file that would take much memory merely to be parsed: a JSON value takes more than its bytes.
fn check_size(bytes: &[u8], path: &Path) -> Result<()> {
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(too_large(path));
    }
    let n_values = bytes
        .iter()
        .filter(|b| matches!(b, b',' | b'[' | b'{'))
        .count();
    if n_values > MAX_VALUES {
        let what =
            format!("has {n_values} JSON values, more than the {MAX_VALUES} of any tokenizer");
        return Err(Error::malformed(path, what));
    }
    Ok(())
}

/// The error of a file with more than [`MAX_FILE_BYTES`].
fn too_large(path: &Path) -> Error {
    let what = format!("has more than {MAX_FILE_BYTES} bytes, which no tokenizer.json has");
    Error::malformed(path, what)
}

/// Refuses added tokens whose automaton would take much memory.
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

/// The error of bytes that are not JSON, at their byte.
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

fn check_version(version: &Node<'_>) -> Result<()> {
    match version.is_null() || version.text()? == "1.0" {
        true => Ok(()),
        false => Err(version.unsupported("version 1.0 is expected")),
    }
}

fn check_post_processor(node: &Node<'_>) -> Result<()> {
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

/// Refuses a template that leaves the text out or repeats it.
fn check_template(single: &Node<'_>) -> Result<()> {
    let items = single.items()?;
    let texts = items
        .iter()
        .map(|item| item.key("Sequence"))
        .filter(|item| !item.is_null());
    match texts.count() {
        1 => Ok(()),
        n => Err(single.wrong(&format!("the text stands there {n} times, expected once"))),
    }
}

fn check_decoder(node: &Node<'_>) -> Result<()> {
    match node.kind()? {
        Some("ByteLevel") => Ok(()),
        _ => Err(node.unsupported("byte-level BPE is expected, whose decoder is ByteLevel")),
    }
}

/// Refuses what would make the model other than plain byte-level BPE.
fn check_model(model: &Node<'_>) -> Result<()> {
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
        false => Err(dropout.unsupported("null is expected: the same text has the same ids")),
    }
}

/// Refuses an answer to bytes that are no token, unless there are none.
fn check_unknown(model: &Node<'_>, vocab: &[(String, u32)]) -> Result<()> {
    let (unk_token, byte_fallback) = (model.key("unk_token"), model.key("byte_fallback"));
    model.key("fuse_unk").flag_or(false)?; // Is about `unk_token`.
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

/// UTF-8 bytes of a byte spelt in the byte-level alphabet, at most.
const MAX_SPELT_BYTES: usize = 2;

/// The first byte of UTF-8 that is no token.
fn missing_byte(vocab: &[(String, u32)]) -> Option<u8> {
    let tokens = vocab.iter().map(|(token, _)| token.as_str());
    let bytes: HashSet<&str> = tokens
        .filter(|token| token.len() <= MAX_SPELT_BYTES)
        .collect();
    let mut of_utf8 = (0..=0xF4).filter(|byte| !matches!(byte, 0xC0 | 0xC1));
    of_utf8.find(|byte| !bytes.contains(spell(&[*byte]).as_str()))
}

fn is_nfc(node: &Node<'_>) -> Result<bool> {
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

/// The pattern, and whether a space is put before the text.
fn pre_tokenizer(node: &Node<'_>) -> Result<(Pattern, bool)> {
    match node.kind()? {
        Some("ByteLevel") => {
            let adds_prefix_space = byte_level(node, true)?;
            Ok((Pattern::Gpt2, adds_prefix_space))
        }
        Some("Sequence") => match &node.key("pretokenizers").items()?[..] {
            [only] => pre_tokenizer(only),
            [first, byte_level] => Ok((pattern_before(first, byte_level)?, false)),
            _ => Err(node.unsupported("Split or Digits, then ByteLevel are expected")),
        },
        _ => {
            let what = "byte-level BPE is expected: {\"type\": \"ByteLevel\", ...}";
            Err(node.unsupported(what))
        }
    }
}

/// The pattern of what `first` cuts and `second` cuts on or spells in the byte-level alphabet.
fn pattern_before(first: &Node<'_>, second: &Node<'_>) -> Result<Pattern> {
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
    let is_cut_on = matches!(pattern, Pattern::Digits(_));
    if byte_level(second, is_cut_on)? {
        let prefix = second.key("add_prefix_space");
        return Err(prefix.unsupported("false is expected behind another pre-tokenizer"));
    }
    Ok(pattern)
}

/// Whether a `ByteLevel` adds a space before the text; refused if it uses its regex or not, other than expected.
fn byte_level(node: &Node<'_>, uses_regex: bool) -> Result<bool> {
    node.only(&["type", "add_prefix_space", "trim_offsets", "use_regex"])?;
    let regex = node.key("use_regex");
    match (regex.flag_or(true)?, uses_regex) {
        (false, true) => {
            Err(regex.unsupported("true is expected: pieces are cut by GPT-2's pattern"))
        }
        (true, false) => Err(regex.unsupported("false is expected: pieces are cut by Split")),
        _ => node.key("add_prefix_space").flag(),
    }
}

/// The pattern of a `Split` that keeps all of the text.
fn split(node: &Node<'_>) -> Result<Pattern> {
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
    // The patterns match every character, so nothing is between matches.
    let behavior = node.key("behavior");
    match (behavior.text()?, node.key("invert").flag_or(false)?) {
        ("Isolated", _) | ("Removed", true) => Ok(pattern),
        _ => Err(behavior.unsupported("Isolated is expected")),
    }
}

fn vocab(node: &Node<'_>) -> Result<Vec<(String, u32)>> {
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

fn merges(node: &Node<'_>) -> Result<Vec<(String, String)>> {
    let items = node.items()?;
    let lines = items.iter().filter(|i| !is_version_line(i));
    lines.map(merge).collect()
}

/// The first line of a merges.txt, which some files carry along.
fn is_version_line(node: &Node<'_>) -> bool {
    let text = node.text_if_any();
    text.is_some_and(|line| line.starts_with("#version"))
}

/// A merge, written "left right" or ["left", "right"].
fn merge(node: &Node<'_>) -> Result<(String, String)> {
    let parts: Vec<&str> = match node.text_if_any() {
        Some(line) => line.split(' ').collect(),
        None => node
            .items()?
            .iter()
            .map(Node::text)
            .collect::<Result<_>>()?,
    };
    match parts[..] {
        [left, right] => Ok((left.to_owned(), right.to_owned())),
        _ => Err(node.wrong(&format!("{} parts, expected a merge of 2", parts.len()))),
    }
}

fn added_token(node: &Node<'_>) -> Result<AddedToken> {
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
    Ok(AddedToken {
        id: node.key("id").number()?,
        content: node.key("content").text()?.to_owned(),
        is_special: node.key("special").flag()?,
        is_normalized: node.key("normalized").flag()?,
        is_single_word: node.key("single_word").flag()?,
        strips_left: node.key("lstrip").flag()?,
        strips_right: node.key("rstrip").flag()?,
    })
}
