//! A tokenizer.json, loaded into the tables that encoding and decoding use.

use crate::tokenize::{
    model::added_tokens::{AddedToken, AddedTokens},
    model::byte_alphabet::{byte_of, bytes_of, spell},
    model::encoder::{Encoder, EncoderState},
    model::merge_boundaries::MergeBoundaries,
    model::merges::{MergeTable, RANK_LIMIT},
    model::space_runs::SpaceRuns,
    model::token_bytes::{MAX_DECODED_BYTES, too_long},
    pretokenize::pattern::Pattern,
    spec::template::Template,
    spec::tokenizer_json::{MAX_FILE_BYTES, Spec},
};
use crate::{Error, ErrorKind, Result, text::nfc::nfc};
use rustc_hash::{FxHashMap, FxHashSet};
use std::{
    fs,
    io::Read,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Mutex,
};

/// Special tokens that mark the end of a document, in order of precedence.
const EOD_TOKENS: [&str; 5] = [
    "<|endoftext|>",
    "<|end_of_text|>",
    "</s>",
    "<eos>",
    "<|im_end|>",
];

/// A loaded tokenizer.json. Threads share it: each makes an [`Encoder`] that borrows it.
///
/// ```
/// # fn main() -> pile_core::Result<()> {
/// use pile_core::{progress::Progress, tokenize::{Skipped, Tokenizer, TrainConfig, Trainer}};
/// let config = TrainConfig { vocab_size: 257, min_frequency: 0, special_tokens: vec![] };
/// let mut trainer = Trainer::new(config)?;
/// trainer.add("abab");
/// let json = trainer.finish(&Progress::default())?.to_json();
///
/// let tokenizer = Tokenizer::from_json(json.as_bytes(), "tokenizer.json".as_ref())?;
/// let mut ids = Vec::new();
/// tokenizer.encoder().encode("abba", &mut ids)?;
/// assert_eq!(ids.len(), 3);
/// assert_eq!(tokenizer.decode(&ids, Skipped::default())?, "abba");
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Tokenizer {
    ids: FxHashMap<String, u32>,
    /// The token of each id; None if no token has it.
    tokens: Vec<Option<TokenEntry>>,
    eod: Option<u32>,
    pub(crate) is_nfc: bool,
    pub(crate) adds_prefix_space: bool,
    pub(crate) pattern: Pattern,
    /// The added tokens that match raw text.
    pub(crate) raw_added_tokens: AddedTokens,
    /// The added tokens that match normalized text.
    pub(crate) normalized_added_tokens: AddedTokens,
    /// The added tokens that match normalized text, if they are all runs of spaces that the scanner can find.
    pub(crate) space_runs: Option<SpaceRuns>,
    pub(crate) merges: MergeTable,
    /// The positions at which long pretokens are split. None if a part may not have the ids that it has within
    /// its pretoken: if `ignore_merges` makes whole pretokens tokens, or if a byte of UTF-8 has no token.
    pub(crate) merge_boundaries: Option<MergeBoundaries>,
    /// The pretokens that are tokens without merging. Empty unless the file sets `ignore_merges`.
    pub(crate) whole_pretokens: FxHashMap<Box<[u8]>, u32>,
    /// The special tokens that the post-processor adds, or why it cannot be applied.
    template: std::result::Result<Template, String>,
    /// The file that messages name.
    path: PathBuf,
    /// The states of dropped encoders, for reuse.
    states: Mutex<Vec<EncoderState>>,
}

/// A token of the vocabulary, or an added token.
#[derive(Debug)]
struct TokenEntry {
    /// As the file writes it, in the byte-level alphabet.
    text: String,
    /// The bytes that it decodes to.
    bytes: Vec<u8>,
    is_special: bool,
}

impl TokenEntry {
    fn new(text: String) -> Self {
        // Added tokens can have characters outside the byte-level alphabet. They decode to themselves, as in
        // Hugging Face `tokenizers`.
        let bytes = bytes_of(&text).unwrap_or_else(|| text.as_bytes().to_vec());
        Self {
            text,
            bytes,
            is_special: false,
        }
    }
}

impl Tokenizer {
    /// Loads a tokenizer.json.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Io`] if it cannot be read; else those of [`Tokenizer::from_json`].
    pub fn from_file(path: &Path) -> Result<Self> {
        Self::from_json(&Self::read_json(path)?, path)
    }

    /// Reads a tokenizer.json. Of a file that is too large, returns one byte more than [`Tokenizer::from_json`]
    /// accepts.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Io`] if it cannot be read, [`crate::ErrorKind::Format`] if it is not a regular file.
    pub fn read_json(path: &Path) -> Result<Vec<u8>> {
        let fail = |e| Error::io(path, e);
        // Opening a pipe would wait for its writer, also one that comes after the name was looked at.
        let mut options = fs::OpenOptions::new();
        options.read(true).custom_flags(libc::O_NONBLOCK);
        let file = options.open(path).map_err(fail)?;
        if !file.metadata().map_err(fail)?.is_file() {
            return Err(Error::malformed(path, "not a regular file"));
        }
        let mut bytes = Vec::new();
        file.take(MAX_FILE_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(fail)?;
        Ok(bytes)
    }

    /// Loads the bytes of a tokenizer.json. Messages name the file `path`.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Format`] if the bytes are not JSON, if a value is missing or contradicts another, or
    /// if the tokenizer is not byte-level BPE with a supported pattern. The message names the value.
    pub fn from_json(bytes: &[u8], path: &Path) -> Result<Self> {
        let spec = Spec::from_json(bytes, path)?;
        let wrong = |what: String| Error::malformed(path, what);
        let mut ids: FxHashMap<String, u32> = spec.vocab.into_iter().collect();
        let merges = merge_table(&ids, &spec.merges).map_err(wrong)?;
        let whole_pretokens = match spec.ignores_merges {
            true => pretokens_of_vocab(&ids),
            false => FxHashMap::default(),
        };
        add_tokens(&mut ids, &spec.added).map_err(wrong)?;
        let mut tokens = tokens_by_id(&ids).map_err(wrong)?;
        let added = spec.added.iter();
        for token in added.clone().filter(|t| spec.is_nfc && t.is_normalized) {
            // Hugging Face `tokenizers` shows and decodes the normalized form.
            tokens[token.id as usize] = Some(TokenEntry::new(nfc(&token.content).into_owned()));
        }
        let special: FxHashSet<&str> = added
            .filter(|t| t.is_special)
            .map(|t| t.content.as_str())
            .collect();
        // By text, as in Hugging Face `tokenizers`: a token that normalization changed is not special.
        for token in tokens.iter_mut().flatten() {
            token.is_special = special.contains(token.text.as_str());
        }
        let template = checked_template(spec.template, &tokens);
        let eod = eod_of(&spec.added);
        let can_split = !spec.ignores_merges && merges.has_all_bytes();
        let merge_boundaries = can_split.then(|| merge_boundaries(&spec.merges));
        let normalized: Vec<_> = spec
            .added
            .iter()
            .filter(|t| t.is_normalized)
            .cloned()
            .collect();
        let can_scan_runs = spec.pattern == Pattern::Gpt2 && !spec.adds_prefix_space;
        let space_runs = SpaceRuns::from_tokens(&normalized).filter(|_| can_scan_runs);
        let (raw_added_tokens, normalized_added_tokens) =
            finders(spec.added, spec.is_nfc).map_err(wrong)?;
        Ok(Self {
            ids,
            tokens,
            eod,
            is_nfc: spec.is_nfc,
            adds_prefix_space: spec.adds_prefix_space,
            pattern: spec.pattern,
            raw_added_tokens,
            normalized_added_tokens,
            space_runs,
            merges,
            merge_boundaries,
            whole_pretokens,
            template,
            path: path.to_owned(),
            states: Mutex::default(),
        })
    }

    /// Number of distinct tokens, including the added ones.
    #[must_use]
    pub fn vocab_size(&self) -> u32 {
        // Ids are below 2^20 and no two tokens share one.
        self.ids.len() as u32
    }

    /// The largest id; 0 if there is no token.
    #[must_use]
    pub fn max_id(&self) -> u32 {
        (self.tokens.len() as u32).saturating_sub(1)
    }

    /// Id of a token as the file writes it (`Ġthe`, not ` the`).
    #[must_use]
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.ids.get(token).copied()
    }

    /// Token of an id as the file writes it. An added token that matches normalized text is normalized, as in
    /// Hugging Face `tokenizers`.
    #[must_use]
    pub fn id_to_token(&self, id: u32) -> Option<&str> {
        self.token(id).map(|t| t.text.as_str())
    }

    /// The bytes that an id decodes to; None if no token has it. Special tokens decode to their text.
    #[must_use]
    pub fn token_bytes(&self, id: u32) -> Option<&[u8]> {
        self.token(id).map(|t| t.bytes.as_slice())
    }

    /// The end-of-document token of the file, and its id.
    ///
    /// It is the first special added token of `<|endoftext|>`, `<|end_of_text|>`, `</s>`, `<eos>` and
    /// `<|im_end|>` that the file has.
    #[must_use]
    pub fn eod(&self) -> Option<(&str, u32)> {
        let id = self.eod?;
        Some((self.id_to_token(id)?, id))
    }

    /// An encoder that adds no special tokens. Make one per thread and reuse it.
    #[must_use]
    pub fn encoder(&self) -> Encoder<'_> {
        static EMPTY: Template = Template::empty();
        self.encoder_with(&EMPTY)
    }

    /// An encoder that adds the special tokens of the file's post-processor to each text, as Hugging Face
    /// `tokenizers` does with `add_special_tokens`.
    ///
    /// # Errors
    /// [`ErrorKind::Format`]: the post-processor cannot be applied.
    pub fn encoder_with_special_tokens(&self) -> Result<Encoder<'_>> {
        let template = self.template.as_ref();
        Ok(self.encoder_with(template.map_err(|what| Error::malformed(&self.path, what))?))
    }

    fn encoder_with<'t>(&'t self, template: &'t Template) -> Encoder<'t> {
        let state = self.states.lock().ok().and_then(|mut states| states.pop());
        Encoder::new(self, template, state.unwrap_or_default())
    }

    /// The error for a text with a byte that no token has.
    pub(crate) fn no_token_for(&self, byte: u8) -> Error {
        let what = format!("a text has byte 0x{byte:02X}, for which model.vocab has no token");
        Error::malformed(&self.path, what)
    }

    /// Keeps the cache of a dropped encoder for the next one.
    pub(crate) fn recycle(&self, state: EncoderState) {
        if let Ok(mut states) = self.states.lock() {
            states.push(state);
        }
    }

    /// The text of `ids`. Invalid UTF-8 becomes U+FFFD, as in Hugging Face `tokenizers`.
    ///
    /// # Errors
    /// The text is longer than 1 GiB, or an id is unknown and is not to be skipped.
    pub fn decode(&self, ids: &[u32], skipped: Skipped) -> Result<String> {
        let mut bytes = Vec::with_capacity(ids.len() * 4);
        for id in ids {
            let Some(token) = self.token(*id) else {
                if skipped.unknown_ids {
                    continue;
                }
                let what = format!("the tokenizer has no id {id} ({})", self.path.display());
                return Err(Error::argument(what));
            };
            if !(skipped.special_tokens && token.is_special) {
                bytes.extend_from_slice(&token.bytes);
                if bytes.len() > MAX_DECODED_BYTES {
                    return Err(too_long(&self.path));
                }
            }
        }
        Ok(match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(e) => String::from_utf8_lossy(e.as_bytes()).into_owned(),
        })
    }

    /// The file that the tokenizer was loaded from.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn token(&self, id: u32) -> Option<&TokenEntry> {
        self.tokens.get(id as usize)?.as_ref()
    }
}

/// What [`Tokenizer::decode`] leaves out of the text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Special tokens, such as the end-of-document token.
    pub special_tokens: bool,
    /// Ids without a token. Hugging Face `tokenizers` skips them.
    pub unknown_ids: bool,
}

/// Returns `template` if all its ids are tokens, else what is wrong with it.
fn checked_template(
    template: Result<Template>,
    tokens: &[Option<TokenEntry>],
) -> std::result::Result<Template, String> {
    let template = template.map_err(|err| match err.kind() {
        ErrorKind::Format(what) => what.clone(),
        _ => err.to_string(),
    })?;
    let is_token = |id: &u32| tokens.get(*id as usize).is_some_and(Option::is_some);
    let unknown = template.ids().find(|id| !is_token(id));
    match unknown {
        Some(id) => Err(format!("post_processor adds id {id}, which no token has")),
        None => Ok(template),
    }
}

/// The merge table of a file's merges, which are pairs of tokens.
fn merge_table(
    ids: &FxHashMap<String, u32>,
    merges: &[(String, String)],
) -> std::result::Result<MergeTable, String> {
    if merges.len() >= RANK_LIMIT as usize {
        return Err(format!(
            "model.merges: {} merges, fewer than {RANK_LIMIT} are supported",
            merges.len()
        ));
    }
    let byte_ids = std::array::from_fn(|b| ids.get(&spell(&[b as u8])).copied());
    let mut table = MergeTable::new(byte_ids, merges.len());
    let mut joined = String::new();
    for (rank, (left, right)) in (0..).zip(merges) {
        let id = |token: &str| {
            let found = ids.get(token).copied();
            found.ok_or_else(|| format!("model.merges[{rank}]: {token:?} is not in model.vocab"))
        };
        joined.clear();
        joined.extend([left.as_str(), right]);
        let result = id(&joined)?;
        table.push(id(left)?, id(right)?, result);
    }
    Ok(table)
}

/// The merge boundaries of a file's merges. A merge with a character outside the byte-level alphabet never
/// applies, so it is left out.
fn merge_boundaries(merges: &[(String, String)]) -> MergeBoundaries {
    let joined = |(left, right): &(String, String)| {
        let chars = left.chars().chain(right.chars());
        chars.map(byte_of).collect::<Option<Vec<u8>>>()
    };
    MergeBoundaries::new(merges.iter().filter_map(joined))
}

/// The bytes of all tokens that are written in the byte-level alphabet.
fn pretokens_of_vocab(ids: &FxHashMap<String, u32>) -> FxHashMap<Box<[u8]>, u32> {
    let tokens = ids
        .iter()
        .filter_map(|(token, id)| Some((bytes_of(token)?, *id)));
    tokens
        .map(|(bytes, id)| (bytes.into_boxed_slice(), id))
        .collect()
}

/// Adds `added` to `ids`.
///
/// Hugging Face `tokenizers` ignores the ids of added tokens in the file: it takes that of the vocabulary, or the
/// next one after as many as the vocabulary has tokens, whatever their ids. A file whose ids differ from these is
/// ambiguous and refused.
fn add_tokens(
    ids: &mut FxHashMap<String, u32>,
    added: &[AddedToken],
) -> std::result::Result<(), String> {
    let mut next = ids.len() as u32;
    let mut seen = FxHashSet::default();
    for (i, token) in added.iter().enumerate() {
        let (content, id) = (&token.content, token.id);
        if content.is_empty() || !seen.insert(content) {
            return Err(format!(
                "added_tokens[{i}]: {content:?} is empty or repeated"
            ));
        }
        let expected = ids.get(content).copied().unwrap_or(next);
        if id != expected {
            let what = format!("added_tokens[{i}]: {content:?} has id {id}, expected {expected}");
            return Err(what);
        }
        if ids.insert(content.clone(), id).is_none() {
            next += 1;
        }
    }
    Ok(())
}

/// The token of each id.
fn tokens_by_id(
    ids: &FxHashMap<String, u32>,
) -> std::result::Result<Vec<Option<TokenEntry>>, String> {
    let n = ids.values().max().map_or(0, |max| *max as usize + 1);
    let mut tokens: Vec<Option<TokenEntry>> = Vec::new();
    tokens.resize_with(n, || None);
    for (token, id) in ids {
        let slot = &mut tokens[*id as usize];
        if let Some(other) = slot {
            let (a, b) = (token.min(&other.text), token.max(&other.text));
            return Err(format!("id {id} is assigned to both {a:?} and {b:?}"));
        }
        *slot = Some(TokenEntry::new(token.clone()));
    }
    Ok(tokens)
}

fn eod_of(added: &[AddedToken]) -> Option<u32> {
    EOD_TOKENS.iter().find_map(|eod| {
        let mut special = added.iter().filter(|t| t.is_special);
        special.find(|t| t.content == *eod).map(|t| t.id)
    })
}

/// The finders of added tokens in raw and in normalized text.
fn finders(
    added: Vec<AddedToken>,
    is_nfc: bool,
) -> std::result::Result<(AddedTokens, AddedTokens), String> {
    let (mut normalized, raw): (Vec<_>, Vec<_>) = added.into_iter().partition(|t| t.is_normalized);
    let mut seen = FxHashSet::default();
    for token in &mut normalized {
        if is_nfc {
            token.content = nfc(&token.content).into_owned();
        }
        if !seen.insert(token.content.clone()) {
            return Err(format!(
                "added_tokens: two have the normalized content {:?}",
                token.content
            ));
        }
    }
    let finder = |tokens| AddedTokens::new(tokens).map_err(|e| format!("added_tokens: {e}"));
    Ok((finder(raw)?, finder(normalized)?))
}

#[cfg(test)]
mod tests;
