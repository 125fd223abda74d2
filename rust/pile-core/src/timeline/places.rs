//! Where texts stand in the documents of a source.
//!
//! **A text occurs where its bytes occur in the decoded stream of a document, whatever the token
//! borders**: the ids of the typed text are one of many ways in which it may be spelt.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
};

use rustc_hash::FxHashMap;

use super::{
    chunk::{Alphabet, Chunk},
    grams::Grams,
};
use crate::{
    Error, Result,
    io::share_work,
    progress::Progress,
    tokens::{Span, TokenSource},
};

/// One occurrence of a text in a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The document.
    pub document: u64,
    /// The occurrence's first byte in the decoded document.
    pub byte: u64,
    /// Number of the text among those asked for.
    pub text: u64,
    /// The token of the document in which it begins.
    pub token: u64,
    /// Tokens from that one to the one in which it ends, both counted.
    pub n_tokens: u64,
}

/// What was found, and what was looked at for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places {
    /// Every occurrence, ascending.
    pub places: Vec<Place>,
    /// Documents looked at.
    pub n_documents: u64,
    /// Tokens looked at.
    pub n_tokens: u64,
    /// Tokens among them whose ids decode to nothing.
    pub n_without_bytes: u64,
}

/// Finds texts in documents. A scan decodes them all; an index answers at once, and the same.
pub trait FindPlaces {
    /// Every occurrence of each of `texts` within one document, overlapping ones included.
    ///
    /// # Errors
    /// An empty text, more occurrences than the finder keeps, a source that cannot be read, or a stop.
    fn places(&self, texts: &[&[u8]], progress: &Progress) -> Result<Places>;
}

/// Tokens of one work item.
const ITEM_TOKENS: u64 = 1 << 18;

/// Finds texts by decoding every document.
#[derive(Debug, Clone, Copy)]
pub struct Scan<'a, S> {
    /// The documents.
    pub source: &'a S,
    /// What is searched.
    pub alphabet: Alphabet<'a>,
    /// Threads; what is found is the same for any number.
    pub n_threads: usize,
    /// Occurrences beyond which the search gives up rather than fill the memory.
    pub max_places: u64,
}

/// What a work item covers: from a token of a document up to where the next one begins.
#[derive(Debug, Clone, Copy)]
struct Cut {
    document: u64,
    token: u64,
}

/// What a work item found.
#[derive(Debug, Default)]
struct Item {
    number: usize,
    places: Vec<Place>,
    /// Bytes of its last document's part.
    last_bytes: u64,
    /// Documents it has part of.
    n_parts: usize,
    n_without_bytes: u64,
}

/// The texts without repetition, and which of those asked for each one is.
pub(super) struct Distinct<'a> {
    pub(super) strings: Vec<&'a [u8]>,
    numbers: Vec<Vec<u64>>,
}

impl<'a> Distinct<'a> {
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

    /// The numbers of the texts that are this string.
    pub(super) fn texts(&self, string: usize) -> &[u64] {
        &self.numbers[string]
    }

    pub(super) fn longest(&self) -> usize {
        self.strings.iter().map(|s| s.len()).max().unwrap_or(0)
    }
}

impl<S: TokenSource> FindPlaces for Scan<'_, S> {
    fn places(&self, texts: &[&[u8]], progress: &Progress) -> Result<Places> {
        let distinct = Distinct::new(texts)?;
        let grams = Grams::new(&distinct.strings);
        let cuts = cuts(self.source)?;
        let budget = Budget::new(self.max_places);
        let mut items = in_parallel(
            cuts.len(),
            self.n_threads,
            |number, chunk: &mut Option<_>| {
                let chunk = chunk
                    .get_or_insert_with(|| Chunk::new(self.alphabet, self.source.token_type()));
                let next = cuts.get(number + 1).copied();
                self.search(chunk, cuts[number], next, &grams, &distinct, &budget)
                    .map(|item| Item { number, ..item })
                    .and_then(|item| {
                        progress.advance(span_tokens(chunk_range(
                            self.source,
                            cuts[number],
                            next,
                        )?))?;
                        Ok(item)
                    })
            },
        )?;
        items.sort_unstable_by_key(|item| item.number);
        let mut all = Places {
            n_documents: self.source.n_documents(),
            ..Places::default()
        };
        join(&mut all, items, &cuts);
        for document in 0..self.source.n_documents() {
            all.n_tokens += self.source.document_length(document)?;
        }
        all.places.sort_unstable();
        Ok(all)
    }
}

/// Joins what the items found: a part of a document counts its bytes from the part's beginning.
fn join(all: &mut Places, items: Vec<Item>, cuts: &[Cut]) {
    let mut before = 0;
    for (item, cut) in items.into_iter().zip(cuts) {
        before = if cut.token == 0 { 0 } else { before };
        all.n_without_bytes += item.n_without_bytes;
        all.places
            .extend(item.places.into_iter().map(|place| Place {
                byte: place.byte
                    + if place.document == cut.document {
                        before
                    } else {
                        0
                    },
                ..place
            }));
        before = item.last_bytes + if item.n_parts == 1 { before } else { 0 };
    }
}

/// Where the work items begin.
fn cuts(source: &impl TokenSource) -> Result<Vec<Cut>> {
    let mut cuts = Vec::new();
    let mut room = 0;
    for document in 0..source.n_documents() {
        let length = source.document_length(document)?;
        let mut token = 0;
        while token < length {
            if room == 0 {
                cuts.push(Cut { document, token });
                room = ITEM_TOKENS;
            }
            let n = room.min(length - token);
            token += n;
            room -= n;
        }
    }
    Ok(cuts)
}

/// The spans of the work item from `cut` to the next one.
fn chunk_range(source: &impl TokenSource, cut: Cut, next: Option<Cut>) -> Result<Vec<Span>> {
    let end = next.unwrap_or(Cut {
        document: source.n_documents(),
        token: 0,
    });
    let mut spans = Vec::new();
    for document in cut.document..=end.document.min(source.n_documents() - 1) {
        let start = if document == cut.document {
            cut.token
        } else {
            0
        };
        let last = if document == end.document {
            end.token
        } else {
            source.document_length(document)?
        };
        if start < last {
            spans.push(Span {
                document,
                start,
                length: last - start,
            });
        }
    }
    Ok(spans)
}

fn span_tokens(spans: Vec<Span>) -> u64 {
    spans.iter().map(|span| span.length).sum()
}

impl<S: TokenSource> Scan<'_, S> {
    fn search(
        &self,
        chunk: &mut Chunk<'_>,
        cut: Cut,
        next: Option<Cut>,
        grams: &Grams<'_>,
        distinct: &Distinct<'_>,
        budget: &Budget,
    ) -> Result<Item> {
        let spans = chunk_range(self.source, cut, next)?;
        chunk.fill(self.source, &spans)?;
        let n_without_bytes = chunk.n_without_bytes();
        let own_bytes = chunk.look_ahead(self.source, distinct.longest().saturating_sub(1))?;
        let (haystack, length) = chunk.haystack();
        let mut places = Vec::new();
        let mut stopped = Ok(());
        grams.find(haystack, length, |string, at| {
            let text = distinct.strings[string];
            let found = (at < own_bytes)
                .then(|| chunk.place(at, text.len()))
                .flatten()
                .filter(|found| found.n_spans == 1);
            let Some(found) = found.filter(|_| stopped.is_ok()) else {
                return;
            };
            let numbers = distinct.texts(string);
            stopped = budget.take(numbers.len() as u64);
            places.extend(numbers.iter().map(|text| Place {
                document: found.document,
                byte: found.byte_in_span,
                text: *text,
                token: found.token,
                n_tokens: found.n_tokens,
            }));
        });
        stopped?;
        Ok(Item {
            number: 0,
            places,
            last_bytes: (own_bytes - chunk.last_first_byte()) as u64,
            n_parts: spans.len(),
            n_without_bytes,
        })
    }
}

/// How many occurrences may still be kept.
pub(super) struct Budget {
    limit: u64,
    taken: AtomicU64,
}

impl Budget {
    pub(super) fn new(limit: u64) -> Self {
        Self {
            limit,
            taken: AtomicU64::new(0),
        }
    }

    pub(super) fn take(&self, n: u64) -> Result<()> {
        if self.taken.fetch_add(n, Relaxed) + n <= self.limit {
            return Ok(());
        }
        Err(Error::argument(format!(
            "the texts occur more than {} times; ask for longer or fewer texts",
            self.limit
        )))
    }
}

/// What `work` makes of each number below `n`, in no particular order; each thread has a state of its
/// own. Of several errors that of the lowest number counts, whatever the number of threads.
pub(super) fn in_parallel<T: Send, W: Default>(
    n: usize,
    n_threads: usize,
    work: impl Fn(usize, &mut W) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(n));
    let failed: Mutex<Option<(usize, Error)>> = Mutex::new(None);
    share_work(n_threads.clamp(1, n.max(1)), || {
        let mut state = W::default();
        loop {
            let number = next.fetch_add(1, Relaxed);
            if number >= n {
                return;
            }
            match work(number, &mut state) {
                Ok(made) => done
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(made),
                Err(err) => {
                    next.store(n, Relaxed);
                    let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                    if failed.as_ref().is_none_or(|(first, _)| number < *first) {
                        *failed = Some((number, err));
                    }
                }
            }
        }
    });
    match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some((_, err)) => Err(err),
        None => Ok(done.into_inner().unwrap_or_else(PoisonError::into_inner)),
    }
}
