//! Occurrences of texts in the documents of a source.
//!
//! **A text occurs where its bytes occur in the decoded stream of a document, whatever the token
//! boundaries.** The ids that a tokenizer gives for a text are one of many spellings of it: the same bytes
//! inside a longer document are often split into other tokens.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rustc_hash::FxHashMap;

use crate::{Error, Result, progress::Progress};

/// One occurrence of a text in a document.
///
/// The order of the fields is the sort order of the results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Occurrence {
    /// The document.
    pub document: u64,
    /// The occurrence's first byte in the decoded document.
    pub byte_offset: u64,
    /// Number of the text in the query.
    pub text: u64,
    /// The token of the document that holds the first byte.
    pub token_offset: u64,
    /// Tokens from the one with the first byte to the one with the last byte, both included.
    pub n_tokens: u64,
}

/// The occurrences of all texts of a query, and the size of the data that was searched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Occurrences {
    /// Every occurrence, ascending.
    pub occurrences: Vec<Occurrence>,
    /// Documents searched.
    pub n_documents: u64,
    /// Tokens searched.
    pub n_tokens: u64,
    /// Tokens among them whose ids decode to no bytes.
    pub n_without_bytes: u64,
}

/// Finds texts in documents: [`super::Scan`] by decoding all of them, [`super::IndexSearch`] with an index.
/// Both give the same result.
pub trait FindOccurrences {
    /// Returns every occurrence of each of `texts` within one document, overlapping ones included.
    ///
    /// # Errors
    /// An empty text, more occurrences than the finder's limit, an unreadable source, or a stop.
    fn find(&self, texts: &[&[u8]], progress: &Progress) -> Result<Occurrences>;
}

/// The distinct texts of a query. A text that is given twice is searched for once and reported under both
/// numbers.
pub(super) struct DistinctTexts<'a> {
    pub(super) strings: Vec<&'a [u8]>,
    /// By index in `strings`: the numbers of the equal texts in the query.
    numbers: Vec<Vec<u64>>,
}

impl<'a> DistinctTexts<'a> {
    pub(super) fn new(texts: &[&'a [u8]]) -> Result<Self> {
        let mut numbers: Vec<Vec<u64>> = Vec::new();
        let mut strings = Vec::new();
        let mut known: FxHashMap<&[u8], usize> = FxHashMap::default();
        for (number, text) in texts.iter().enumerate() {
            if text.is_empty() {
                return Err(Error::argument(format!("text {number} is empty")));
            }
            let string = *known.entry(text).or_insert_with(|| {
                strings.push(*text);
                numbers.push(Vec::new());
                strings.len() - 1
            });
            numbers[string].push(number as u64);
        }
        Ok(Self { strings, numbers })
    }

    /// The numbers of the query's texts that equal `strings[string]`.
    pub(super) fn numbers_of(&self, string: usize) -> &[u64] {
        &self.numbers[string]
    }

    /// Bytes of the longest text.
    pub(super) fn longest(&self) -> usize {
        self.strings.iter().map(|s| s.len()).max().unwrap_or(0)
    }
}

/// A limit on the occurrences of one search, shared by its threads. It bounds the memory of the result.
pub(super) struct OccurrenceLimit {
    limit: u64,
    n_found: AtomicU64,
}

impl OccurrenceLimit {
    pub(super) fn new(limit: u64) -> Self {
        Self {
            limit,
            n_found: AtomicU64::new(0),
        }
    }

    /// Counts `n` more occurrences; fails once there are more than the limit.
    pub(super) fn add(&self, n: u64) -> Result<()> {
        if self.n_found.fetch_add(n, Relaxed) + n <= self.limit {
            return Ok(());
        }
        Err(Error::argument(format!(
            "the texts occur more than {} times; ask for longer or fewer texts",
            self.limit
        )))
    }
}
