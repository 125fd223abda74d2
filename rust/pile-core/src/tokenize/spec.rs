//! Reads tokenizer.json and refuses, by name, what is not byte-level BPE.
//!
//! The result is plain data; `tokenizer` and `reference` build on it. Rules of the format:
//! Hugging Face `tokenizers` 0.23.3.

use super::{added::AddedToken, cache::ID_LIMIT, node::Node};
use crate::{Error, Result};
use serde_json::Value;
use std::path::Path;

/// Ids up to here are accepted; a file with larger ones is broken rather than large.
const MAX_ID: u32 = ID_LIMIT - 1;

/// What a tokenizer.json says, checked for being supported but not yet for being consistent.
#[derive(Debug)]
pub(super) struct Spec {
    pub(super) vocab: Vec<(String, u32)>,
    pub(super) merges: Vec<(String, String)>,
    /// Whether a piece that is a token of the vocabulary needs no merging.
    pub(super) ignores_merges: bool,
    pub(super) is_nfc: bool,
    pub(super) adds_prefix_space: bool,
    pub(super) added: Vec<AddedToken>,
}

impl Spec {
    /// Reads the bytes of a tokenizer.json; `path` is for messages.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Format`] if the bytes are not JSON, or something is missing or not
    /// supported.
    pub(super) fn from_json(bytes: &[u8], path: &Path) -> Result<Self> {
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
        root.key("truncation").must_be_null()?;
        root.key("padding").must_be_null()?;
        check_post_processor(&root.key("post_processor"))?;
        check_decoder(&root.key("decoder"))?;
        let added = root.key("added_tokens").items_or_none()?;
        Ok(Self {
            vocab: vocab(&model.key("vocab"))?,
            merges: merges(&model.key("merges"))?,
            ignores_merges: model.key("ignore_merges").flag_or(false)?,
            is_nfc: is_nfc(&root.key("normalizer"))?,
            adds_prefix_space: adds_prefix_space(&root.key("pre_tokenizer"))?,
            added: added.iter().map(added_token).collect::<Result<_>>()?,
        })
    }
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
        None | Some("ByteLevel" | "TemplateProcessing") => Ok(()),
        _ => Err(node.unsupported("null, ByteLevel or TemplateProcessing is expected")),
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
    model.key("unk_token").must_be_null()?;
    model.key("continuing_subword_prefix").must_be_empty()?;
    model.key("end_of_word_suffix").must_be_empty()?;
    model.key("byte_fallback").must_be_false()?;
    model.key("fuse_unk").flag_or(false)?; // Without unknown token there is nothing to fuse.
    let dropout = model.key("dropout");
    match dropout.is_null() || dropout.is_zero() {
        true => Ok(()),
        false => Err(dropout.unsupported("null is expected: the same text has the same ids")),
    }
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

fn adds_prefix_space(node: &Node<'_>) -> Result<bool> {
    if node.kind()? != Some("ByteLevel") {
        let what = "byte-level BPE is expected: {\"type\": \"ByteLevel\", ...}";
        return Err(node.unsupported(what));
    }
    node.only(&["type", "add_prefix_space", "trim_offsets", "use_regex"])?;
    let regex = node.key("use_regex");
    if !regex.flag_or(true)? {
        return Err(regex.unsupported("true is expected: pieces are cut by GPT-2's pattern"));
    }
    node.key("add_prefix_space").flag()
}

fn vocab(node: &Node<'_>) -> Result<Vec<(String, u32)>> {
    let entries = node.object()?.iter().map(|(token, id)| {
        let id = Node::child(node, token, id).number()?;
        if id > MAX_ID {
            let what = format!("id {id} of token {token:?} is above {MAX_ID}");
            return Err(node.wrong(&what));
        }
        Ok((token.clone(), id))
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
    let parts: Vec<String> = match node.text_if_any() {
        Some(line) => line.split(' ').map(str::to_owned).collect(),
        None => {
            let items = node.items()?;
            let texts = items.iter().map(|i| Ok(i.text()?.to_owned()));
            texts.collect::<Result<_>>()?
        }
    };
    match <[String; 2]>::try_from(parts) {
        Ok([left, right]) => Ok((left, right)),
        Err(parts) => Err(node.wrong(&format!("{} parts, expected a merge of 2", parts.len()))),
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
    node.key("single_word").must_be_false()?;
    Ok(AddedToken {
        id: node.key("id").number()?,
        content: node.key("content").text()?.to_owned(),
        is_special: node.key("special").flag()?,
        is_normalized: node.key("normalized").flag()?,
        strips_left: node.key("lstrip").flag()?,
        strips_right: node.key("rstrip").flag()?,
    })
}
