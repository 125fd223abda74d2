//! The tokenizer: what a tokenizer.json says, in the shape that encoding and decoding need.

use crate::tokenize::{
    model::added::{AddedToken, AddedTokens},
    model::bytes::{byte_of, bytes_of, spell},
    model::encoder::{Encoder, State},
    model::merges::{MergeTable, RANK_LIMIT},
    model::runs::SpaceRuns,
    model::seams::Seams,
    normalize::nfc::nfc,
    pretokenize::pattern::Pattern,
    spec::template::Template,
    spec::tokenizer_json::{MAX_FILE_BYTES, Spec},
};
use crate::{Error, ErrorKind, Result};
use rustc_hash::{FxHashMap, FxHashSet};
use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    sync::Mutex,
};

/// Special tokens that end a document, the first that exists counts.
const EOD_TOKENS: [&str; 5] = [
    "<|endoftext|>",
    "<|end_of_text|>",
    "</s>",
    "<eos>",
    "<|im_end|>",
];

/// A loaded tokenizer.json; cheap to share between threads, encoders borrow it.
///
/// ```
/// # fn main() -> pile_core::Result<()> {
/// use pile_core::{progress::Progress, tokenize::{TrainConfig, Tokenizer, Trainer}};
/// let config = TrainConfig { vocab_size: 257, min_frequency: 0, special_tokens: vec![] };
/// let mut trainer = Trainer::new(config)?;
/// trainer.add("abab");
/// let json = trainer.finish(&Progress::default())?.to_json();
///
/// let tokenizer = Tokenizer::from_json(json.as_bytes(), "tokenizer.json".as_ref())?;
/// let mut ids = Vec::new();
/// tokenizer.encoder().encode("abba", &mut ids)?;
/// assert_eq!(ids.len(), 3);
/// assert_eq!(tokenizer.decode(&ids, false), "abba");
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Tokenizer {
    ids: FxHashMap<String, u32>,
    /// By id; None where no token has that id.
    tokens: Vec<Option<Token>>,
    eod: Option<u32>,
    pub(crate) is_nfc: bool,
    pub(crate) adds_prefix_space: bool,
    pub(crate) pattern: Pattern,
    /// Looked for in the text as it is.
    pub(crate) raw: AddedTokens,
    /// Looked for in the normalized text.
    pub(crate) normalized: AddedTokens,
    /// What is looked for in normalized text, where that is runs of spaces alone.
    pub(crate) space_runs: Option<SpaceRuns>,
    pub(crate) merges: MergeTable,
    /// Where long pieces can be cut; None where a part may not be as its piece.
    pub(crate) seams: Option<Seams>,
    /// Pieces that are tokens as they are; empty unless the file says `ignore_merges`.
    pub(crate) whole: FxHashMap<Box<[u8]>, u32>,
    /// What the post-processor adds to a text, or why it cannot be applied.
    template: std::result::Result<Template, String>,
    /// The file, for messages.
    path: PathBuf,
    /// Those of encoders that are no longer in use.
    states: Mutex<Vec<State>>,
}

#[derive(Debug)]
struct Token {
    text: String,
    /// What it decodes to.
    bytes: Vec<u8>,
    is_special: bool,
}

impl Token {
    fn new(text: String) -> Self {
        // Added tokens may have characters outside the byte-level alphabet: they decode to
        // themselves, as in the reference.
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
    /// [`crate::ErrorKind::Io`] if it cannot be read; else as [`Tokenizer::from_json`].
    pub fn from_file(path: &Path) -> Result<Self> {
        Self::from_json(&Self::read_json(path)?, path)
    }

    /// The bytes of a tokenizer.json, one more than [`Tokenizer::from_json`] takes where there are too many.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Io`] if it cannot be read.
    pub fn read_json(path: &Path) -> Result<Vec<u8>> {
        let fail = |e| Error::io(path, e);
        // A file can be endless, as a device is.
        let mut bytes = Vec::new();
        let file = fs::File::open(path).map_err(fail)?;
        file.take(MAX_FILE_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(fail)?;
        Ok(bytes)
    }

    /// The tokenizer that the bytes of a tokenizer.json describe; `path` is for messages.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Format`] if the bytes are not JSON, if something is missing or
    /// contradictory, or by name for anything but byte-level BPE with a known pattern.
    pub fn from_json(bytes: &[u8], path: &Path) -> Result<Self> {
        let spec = Spec::from_json(bytes, path)?;
        let wrong = |what: String| Error::malformed(path, what);
        let mut ids: FxHashMap<String, u32> = spec.vocab.into_iter().collect();
        let merges = merge_table(&ids, &spec.merges).map_err(wrong)?;
        let whole = match spec.ignores_merges {
            true => whole_pieces(&ids),
            false => FxHashMap::default(),
        };
        add_tokens(&mut ids, &spec.added).map_err(wrong)?;
        let mut tokens = tokens_by_id(&ids).map_err(wrong)?;
        let added = spec.added.iter();
        for token in added.clone().filter(|t| spec.is_nfc && t.is_normalized) {
            // The reference shows and decodes the normalized form.
            tokens[token.id as usize] = Some(Token::new(nfc(&token.content).into_owned()));
        }
        let special: FxHashSet<&str> = added
            .filter(|t| t.is_special)
            .map(|t| t.content.as_str())
            .collect();
        for token in tokens.iter_mut().flatten() {
            token.is_special = special.contains(token.text.as_str());
        }
        let template = checked_template(spec.template, &tokens);
        let eod = eod_of(&spec.added);
        let can_cut = !spec.ignores_merges && merges.has_all_bytes();
        let seams = can_cut.then(|| seams(&spec.merges));
        let of_normalized: Vec<_> = spec
            .added
            .iter()
            .filter(|t| t.is_normalized)
            .cloned()
            .collect();
        let can_scan_runs = spec.pattern == Pattern::Gpt2 && !spec.adds_prefix_space;
        let space_runs = SpaceRuns::of(&of_normalized).filter(|_| can_scan_runs);
        let (raw, normalized) = finders(spec.added, spec.is_nfc).map_err(wrong)?;
        Ok(Self {
            ids,
            tokens,
            eod,
            is_nfc: spec.is_nfc,
            adds_prefix_space: spec.adds_prefix_space,
            pattern: spec.pattern,
            raw,
            normalized,
            space_runs,
            merges,
            seams,
            whole,
            template,
            path: path.to_owned(),
            states: Mutex::default(),
        })
    }

    /// Number of different tokens, the added ones included.
    #[must_use]
    pub fn vocab_size(&self) -> u32 {
        // Ids are below 2^20 and no two tokens share one.
        self.ids.len() as u32
    }

    /// The largest id; 0 if there is no token at all.
    #[must_use]
    pub fn max_id(&self) -> u32 {
        (self.tokens.len() as u32).saturating_sub(1)
    }

    /// Id of a token as the file spells it (`Ġthe`, not ` the`).
    #[must_use]
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.ids.get(token).copied()
    }

    /// Token of an id as the file spells it; an added token that is looked for in normalized
    /// text is normalized here too, as in the reference.
    #[must_use]
    pub fn id_to_token(&self, id: u32) -> Option<&str> {
        self.token(id).map(|t| t.text.as_str())
    }

    /// What an id decodes to, special tokens spelt out; None where no token has it.
    #[must_use]
    pub fn token_bytes(&self, id: u32) -> Option<&[u8]> {
        self.token(id).map(|t| t.bytes.as_slice())
    }

    /// The end-of-document token that the file itself declares.
    ///
    /// The special added token `<|endoftext|>`; if there is none `<|end_of_text|>`, `</s>`,
    /// `<eos>`, `<|im_end|>` in this order.
    #[must_use]
    pub fn eod(&self) -> Option<(&str, u32)> {
        let id = self.eod?;
        Some((self.id_to_token(id)?, id))
    }

    /// An encoder that adds no special tokens; make one per thread and keep it.
    #[must_use]
    pub fn encoder(&self) -> Encoder<'_> {
        static NOTHING: Template = Template::nothing();
        self.encoder_with(&NOTHING)
    }

    /// An encoder that adds the special tokens of the file's post-processor to each text, as `tokenizers` does
    /// with `add_special_tokens`.
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

    /// The error of a text with a byte that no token has.
    pub(crate) fn no_token_for(&self, byte: u8) -> Error {
        let what = format!("a text has byte 0x{byte:02X}, for which model.vocab has no token");
        Error::malformed(&self.path, what)
    }

    /// Keeps what an encoder learnt for the next one.
    pub(crate) fn give_back(&self, state: State) {
        if let Ok(mut states) = self.states.lock() {
            states.push(state);
        }
    }

    /// The text of `ids`. Unknown ids are skipped, invalid UTF-8 becomes U+FFFD, as in the
    /// reference.
    #[must_use]
    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> String {
        let mut bytes = Vec::with_capacity(ids.len() * 4);
        for token in ids.iter().filter_map(|id| self.token(*id)) {
            if !(skip_special_tokens && token.is_special) {
                bytes.extend_from_slice(&token.bytes);
            }
        }
        match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(e) => String::from_utf8_lossy(e.as_bytes()).into_owned(),
        }
    }

    fn token(&self, id: u32) -> Option<&Token> {
        self.tokens.get(id as usize)?.as_ref()
    }
}

/// A template whose ids are all tokens.
fn checked_template(
    template: Result<Template>,
    tokens: &[Option<Token>],
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

/// The merges as pairs of ids.
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
        let made = id(&joined)?;
        table.push(id(left)?, id(right)?, made);
    }
    Ok(table)
}

/// What merges leave open. A merge with a character outside the byte-level alphabet never applies.
fn seams(merges: &[(String, String)]) -> Seams {
    let joined = |(left, right): &(String, String)| {
        let chars = left.chars().chain(right.chars());
        chars.map(byte_of).collect::<Option<Vec<u8>>>()
    };
    Seams::new(merges.iter().filter_map(joined))
}

/// The bytes of all tokens that are spelt in the byte-level alphabet.
fn whole_pieces(ids: &FxHashMap<String, u32>) -> FxHashMap<Box<[u8]>, u32> {
    let spelt = ids
        .iter()
        .filter_map(|(token, id)| Some((bytes_of(token)?, *id)));
    spelt
        .map(|(bytes, id)| (bytes.into_boxed_slice(), id))
        .collect()
}

/// Adds `added` to `ids`.
///
/// The reference does not heed the ids of added tokens in the file: it takes those of the
/// vocabulary or counts on. A file where the two differ is refused rather than read either way.
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
                "added_tokens[{i}]: {content:?} is empty or there twice"
            ));
        }
        let known = ids.get(content).copied();
        let expected = known.unwrap_or(next);
        if id != expected {
            let what = format!("added_tokens[{i}]: {content:?} has id {id}, expected {expected}");
            return Err(what);
        }
        next = next.max(id + 1);
        ids.insert(content.clone(), id);
    }
    Ok(())
}

/// The tokens at the index of their id.
fn tokens_by_id(ids: &FxHashMap<String, u32>) -> std::result::Result<Vec<Option<Token>>, String> {
    let n = ids.values().max().map_or(0, |max| *max as usize + 1);
    let mut tokens: Vec<Option<Token>> = Vec::new();
    tokens.resize_with(n, || None);
    for (token, id) in ids {
        let place = &mut tokens[*id as usize];
        if let Some(other) = place {
            let (a, b) = (token.min(&other.text), token.max(&other.text));
            return Err(format!("id {id} is that of {a:?} and of {b:?}"));
        }
        *place = Some(Token::new(token.clone()));
    }
    Ok(tokens)
}

fn eod_of(added: &[AddedToken]) -> Option<u32> {
    EOD_TOKENS.iter().find_map(|eod| {
        let mut special = added.iter().filter(|t| t.is_special);
        special.find(|t| t.content == *eod).map(|t| t.id)
    })
}

/// The finders of tokens in raw and in normalized text.
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
                "added_tokens: two are {:?} once normalized",
                token.content
            ));
        }
    }
    let finder = |tokens| AddedTokens::new(tokens).map_err(|e| format!("added_tokens: {e}"));
    Ok((finder(raw)?, finder(normalized)?))
}

#[cfg(test)]
mod tests;
