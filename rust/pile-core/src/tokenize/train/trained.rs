//! A trained vocabulary, and its tokenizer.json.

use serde::{Serialize, Serializer};

/// The tokens and merges that a [`crate::tokenize::Trainer`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trained {
    /// The token of each id: the special tokens as they are, then the others in the byte-level alphabet. No two are
    /// equal: a byte or merge with the text of a special token shares its id.
    tokens: Vec<String>,
    merges: Vec<(u32, u32)>,
    special_tokens: Vec<String>,
}

impl Trained {
    pub(crate) fn new(
        tokens: Vec<String>,
        merges: Vec<(u32, u32)>,
        special_tokens: Vec<String>,
    ) -> Self {
        Self {
            tokens,
            merges,
            special_tokens,
        }
    }

    /// Number of merges.
    #[must_use]
    pub fn n_merges(&self) -> usize {
        self.merges.len()
    }

    /// Number of tokens, including the special ones.
    #[must_use]
    pub fn vocab_size(&self) -> u32 {
        // Fits: `Trainer::new` limits the vocabulary to 2^20 tokens.
        self.tokens.len() as u32
    }

    /// The merges in order, as tokens in the byte-level alphabet.
    pub fn merges(&self) -> impl Iterator<Item = (&str, &str)> {
        let token = |id: u32| self.tokens[id as usize].as_str();
        self.merges.iter().map(move |(l, r)| (token(*l), token(*r)))
    }

    /// A tokenizer.json in the format of Hugging Face `tokenizers`. Equal vocabularies give equal bytes. The
    /// components are those that the trainer applies: NFC, then GPT-2's pretokens.
    #[must_use]
    pub fn to_json(&self) -> String {
        let file = TokenizerJson {
            version: "1.0",
            truncation: (),
            padding: (),
            added_tokens: self.added_tokens(),
            normalizer: NormalizerJson { kind: "NFC" },
            pre_tokenizer: BYTE_LEVEL,
            post_processor: BYTE_LEVEL,
            decoder: BYTE_LEVEL,
            model: ModelJson {
                kind: "BPE",
                dropout: (),
                unk_token: (),
                continuing_subword_prefix: (),
                end_of_word_suffix: (),
                fuse_unk: false,
                byte_fallback: false,
                ignore_merges: false,
                vocab: VocabJson(&self.tokens),
                merges: self.merges().collect(),
            },
        };
        serde_json::to_string_pretty(&file).expect("strings, numbers and null have a JSON form")
    }

    fn added_tokens(&self) -> Vec<AddedTokenJson<'_>> {
        // Special tokens come first and are distinct, so their ids count from 0.
        let added = self
            .special_tokens
            .iter()
            .zip(0..)
            .map(|(content, id)| AddedTokenJson {
                id,
                content,
                single_word: false,
                lstrip: false,
                rstrip: false,
                normalized: false,
                special: true,
            });
        added.collect()
    }
}

#[derive(Serialize)]
struct TokenizerJson<'a> {
    version: &'static str,
    truncation: (),
    padding: (),
    added_tokens: Vec<AddedTokenJson<'a>>,
    normalizer: NormalizerJson,
    pre_tokenizer: ByteLevelJson,
    post_processor: ByteLevelJson,
    decoder: ByteLevelJson,
    model: ModelJson<'a>,
}

#[derive(Serialize)]
struct AddedTokenJson<'a> {
    id: u32,
    content: &'a str,
    single_word: bool,
    lstrip: bool,
    rstrip: bool,
    normalized: bool,
    special: bool,
}

#[derive(Serialize)]
struct NormalizerJson {
    #[serde(rename = "type")]
    kind: &'static str,
}

#[derive(Serialize)]
struct ByteLevelJson {
    #[serde(rename = "type")]
    kind: &'static str,
    add_prefix_space: bool,
    trim_offsets: bool,
    use_regex: bool,
}

const BYTE_LEVEL: ByteLevelJson = ByteLevelJson {
    kind: "ByteLevel",
    add_prefix_space: false,
    trim_offsets: true,
    use_regex: true,
};

#[derive(Serialize)]
struct ModelJson<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    dropout: (),
    unk_token: (),
    continuing_subword_prefix: (),
    end_of_word_suffix: (),
    fuse_unk: bool,
    byte_fallback: bool,
    ignore_merges: bool,
    vocab: VocabJson<'a>,
    merges: Vec<(&'a str, &'a str)>,
}

/// Tokens, serialized as an object from token to id in the order of ids.
struct VocabJson<'a>(&'a [String]);

impl Serialize for VocabJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().zip(0_u32..))
    }
}
