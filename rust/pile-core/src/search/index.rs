//! An opened index, and the occurrences of n-grams.

use std::{
    borrow::Cow,
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use super::{
    alphabet::Alphabet,
    build::{MAGIC, RANKS_FILE, RanksHeader},
    file::{HEADER_AT, array, read_header},
    segment::{Segment, SegmentSpan, SegmentView, StoredToken, path_of},
    text::TokenTails,
};
use crate::{
    Error, Result,
    io::{Mapped, share_work},
    tokens::{TokenDataset, TokenSource, TokenType},
};

/// N-grams of a batch that a thread takes at a time: many interleaved groups of searches (see the module `find`), and few
/// enough that threads end at about the same time.
const BATCH_CHUNK: usize = 1024;

/// An occurrence of an n-gram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenOccurrence {
    /// The document.
    pub document: u64,
    /// The first token, counted from the start of the document.
    pub token_offset: u64,
}

/// A suffix array of a dataset in segments, memory-mapped.
#[derive(Debug)]
pub struct SuffixIndex {
    folder: PathBuf,
    dataset: Arc<TokenDataset>,
    alphabet: Alphabet,
    header: RanksHeader,
    segments: Vec<Segment>,
    /// For each segment, a copy of its tokens if the map does not have them contiguous and aligned. u64 words
    /// are aligned for tokens of either type.
    copies: Vec<Option<Vec<u64>>>,
    /// Built at the first search for a text.
    tails: OnceLock<TokenTails>,
}

/// Evaluates `$body` with `$tokens` bound to the tokens of each segment, in the type in which they are
/// stored. The function that contains it returns the error if they cannot be read.
macro_rules! with_tokens {
    ($index:expr, |$tokens:ident| $body:expr) => {
        match $index.dataset().token_type() {
            TokenType::U16 => {
                let $tokens = &$index.tokens::<u16>()?[..];
                $body
            }
            TokenType::I32 => {
                let $tokens = &$index.tokens::<i32>()?[..];
                $body
            }
        }
    };
}
pub(super) use with_tokens;

impl SuffixIndex {
    /// Opens the index of a dataset.
    ///
    /// # Errors
    /// The index is incomplete, damaged, or was built for another dataset.
    pub fn open(folder: &Path, dataset: Arc<TokenDataset>) -> Result<Self> {
        let file = Mapped::open(&folder.join(RANKS_FILE))?;
        let (header, start): (RanksHeader, u64) = read_header(&file, MAGIC)?;
        if header.fingerprint != dataset.fingerprint() {
            let what = format!(
                "the index was built for another dataset than {} now is; build the index anew",
                dataset.prefix().display()
            );
            return Err(Error::malformed(folder, what));
        }
        let alphabet = read_alphabet(&file, &header, start)?;
        let (n_documents, n_tokens) = (dataset.n_documents(), dataset.n_tokens());
        for segment in &header.segments {
            if !is_of_dataset(segment, &dataset)? {
                let what = format!(
                    "has {} tokens from token {} in documents {} to {}, which are not those of the dataset, with \
                     {n_tokens} tokens in {n_documents} documents: the file is damaged",
                    segment.n_tokens,
                    segment.first_token,
                    segment.first_document,
                    segment.end_document
                );
                return Err(Error::format(file.path(), HEADER_AT, what));
            }
        }
        let segments = (0..header.segments.len())
            .map(|number| Segment::open(&path_of(folder, number), &header.segment(number)));
        let copies = header
            .segments
            .iter()
            .map(|span| copy_if_needed(&dataset, span.tokens()));
        let copies: Result<Vec<_>> = copies.collect();
        let index = Self {
            folder: folder.to_owned(),
            segments: segments.collect::<Result<_>>()?,
            copies: copies?,
            dataset,
            alphabet,
            header,
            tails: OnceLock::new(),
        };
        let n_covered: u64 = index.segments.iter().map(|s| s.span.n_tokens).sum();
        if n_covered != n_tokens {
            let what = format!("covers {n_covered} of {n_tokens} tokens: the file is damaged");
            return Err(Error::format(file.path(), HEADER_AT, what));
        }
        Ok(index)
    }

    /// The folder of the index.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The dataset.
    #[must_use]
    pub fn dataset(&self) -> &Arc<TokenDataset> {
        &self.dataset
    }

    /// The ids that occur in the dataset.
    #[must_use]
    pub fn alphabet(&self) -> &Alphabet {
        &self.alphabet
    }

    /// Number of segments.
    #[must_use]
    pub fn n_segments(&self) -> usize {
        self.segments.len()
    }

    /// The tokens of each segment.
    ///
    /// # Errors
    /// The tokens are not contiguous and aligned in the map. [`Self::open`] has copied such tokens, so this is not
    /// expected.
    pub(super) fn tokens<T: StoredToken>(&self) -> Result<Vec<&[T]>> {
        let segments = self.segments.iter().zip(&self.copies);
        let tokens = segments.map(|(segment, copy)| match copy {
            Some(copy) => Ok(&bytemuck::cast_slice(copy)[..segment.span.n_tokens as usize]),
            None => match typed_tokens(&self.dataset, segment.span.tokens())? {
                Cow::Borrowed(tokens) => Ok(tokens),
                Cow::Owned(_) => {
                    let what = "its tokens are not as they were when the index was opened";
                    Err(Error::malformed(self.dataset.prefix(), what))
                }
            },
        });
        tokens.collect()
    }

    /// The segments, ready to be searched, from the tokens of each.
    pub(super) fn views<'a, T: StoredToken>(
        &'a self,
        tokens: &'a [&'a [T]],
    ) -> impl Iterator<Item = SegmentView<'a, T>> {
        let segments = self.segments.iter().zip(tokens);
        segments.map(|(segment, tokens)| {
            segment.view(tokens, &self.alphabet, self.header.end_of_document)
        })
    }

    /// The sorted suffixes of the bytes of every id.
    pub(super) fn tails(&self) -> &TokenTails {
        self.tails.get_or_init(|| TokenTails::new(&self.alphabet))
    }

    /// Number of occurrences of an n-gram within documents.
    ///
    /// # Errors
    /// The n-gram is empty.
    pub fn count(&self, ngram: &[i64]) -> Result<u64> {
        check_ngram(ngram)?;
        Ok(with_tokens!(self, |tokens| match to_stored(ngram) {
            Some(ngram) => self
                .views(tokens)
                .map(|view| n_suffixes(&view.find(&ngram)))
                .sum(),
            None => 0,
        }))
    }

    /// Number of occurrences of each of many n-grams. The n-grams are concatenated in `ids`; `starts` has the
    /// index of each one's first id, then the end of the last one. The result is the same for any number of
    /// threads.
    ///
    /// # Errors
    /// An n-gram is empty, `starts` does not ascend, or it exceeds `ids`.
    pub fn count_batch(&self, ids: &[i64], starts: &[usize], n_threads: usize) -> Result<Vec<u64>> {
        if !starts.is_sorted() || starts.last().is_some_and(|end| *end > ids.len()) {
            let what = format!(
                "the starts of the n-grams do not ascend to at most {}, the number of ids",
                ids.len()
            );
            return Err(Error::argument(what));
        }
        if let Some(number) = starts.windows(2).position(|pair| pair[0] == pair[1]) {
            return Err(Error::argument(format!("n-gram {number} is empty")));
        }
        Ok(with_tokens!(self, |tokens| self
            .count_stored(tokens, ids, starts, n_threads)))
    }

    fn count_stored<T: StoredToken>(
        &self,
        tokens: &[&[T]],
        ids: &[i64],
        starts: &[usize],
        n_threads: usize,
    ) -> Vec<u64> {
        let stored: Vec<T> = ids
            .iter()
            .map(|id| T::from_id(*id).unwrap_or_else(T::zeroed))
            .collect();
        // An n-gram with an id that the type cannot hold occurs nowhere. It is made empty and gets no count.
        let to_ngram = |at: &[usize]| {
            let mut ids = ids[at[0]..at[1]].iter();
            match ids.all(|id| T::from_id(*id).is_some()) {
                true => &stored[at[0]..at[1]],
                false => &[],
            }
        };
        let ngrams: Vec<&[T]> = starts.windows(2).map(to_ngram).collect();
        let mut counts = vec![0; ngrams.len()];
        let chunks = counts
            .chunks_mut(BATCH_CHUNK)
            .zip(ngrams.chunks(BATCH_CHUNK));
        let chunks: Vec<_> = chunks.map(Mutex::new).collect();
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some(chunk) = chunks.get(next.fetch_add(1, Relaxed)) {
                let mut chunk = chunk.lock().unwrap_or_else(PoisonError::into_inner);
                let (counts, ngrams) = &mut *chunk;
                for view in self.views(tokens) {
                    view.find_all(ngrams.iter().copied(), |index, range| {
                        if !ngrams[index].is_empty() {
                            counts[index] += n_suffixes(&range);
                        }
                    });
                }
            }
        };
        share_work(n_threads.clamp(1, chunks.len().max(1)), work);
        drop(chunks);
        counts
    }

    /// Every occurrence of an n-gram within documents, in order.
    ///
    /// # Errors
    /// The n-gram is empty, or occurs more than `max_occurrences` times.
    pub fn locate(&self, ngram: &[i64], max_occurrences: u64) -> Result<Vec<TokenOccurrence>> {
        check_ngram(ngram)?;
        let mut occurrences = Vec::new();
        let mut n = 0;
        with_tokens!(self, |tokens| if let Some(ngram) = to_stored(ngram) {
            for (segment, view) in self.views(tokens).enumerate() {
                let range = view.find(&ngram);
                n += n_suffixes(&range);
                check_limit(n, max_occurrences)?;
                for position in view.positions(range) {
                    occurrences.push(self.occurrence_at(segment, position)?);
                }
            }
        });
        occurrences.sort_unstable();
        Ok(occurrences)
    }

    /// The document of a position in a segment, and the token in the document.
    ///
    /// # Errors
    /// The segment has no such position: its suffix array is damaged.
    pub(super) fn occurrence_at(&self, segment: usize, position: usize) -> Result<TokenOccurrence> {
        let span = self.segments[segment].span;
        let token = span.first_token + position as u64;
        // The first document that ends after the token.
        let (mut low, mut high) = (span.first_document, span.end_document);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.dataset.token_range(middle)?.end <= token {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        if position as u64 >= span.n_tokens || low == span.end_document {
            let what = format!(
                "has a suffix at token {position} of {}: the file is damaged; build the index anew",
                span.n_tokens
            );
            return Err(Error::malformed(&path_of(&self.folder, segment), what));
        }
        let Some(token_offset) = token.checked_sub(self.dataset.token_range(low)?.start) else {
            let what = format!("document {low} begins after token {token}, which is in it");
            return Err(Error::malformed(self.dataset.prefix(), what));
        };
        Ok(TokenOccurrence {
            document: low,
            token_offset,
        })
    }
}

/// Whether a segment begins and ends with documents of the dataset.
fn is_of_dataset(segment: &SegmentSpan, dataset: &TokenDataset) -> Result<bool> {
    let (first, end) = (segment.first_document, segment.end_document);
    Ok(first < end
        && end <= dataset.n_documents()
        && dataset.token_range(first)?.start == segment.first_token
        && Some(dataset.token_range(end - 1)?.end)
            == segment.first_token.checked_add(segment.n_tokens))
}

/// A range of a dataset's tokens in the type in which they are stored: borrowed if the map has them
/// contiguous and aligned, or else a copy.
///
/// # Errors
/// The range exceeds the dataset, or the tokens do not exist.
pub(super) fn typed_tokens<T: StoredToken>(
    dataset: &TokenDataset,
    range: Range<u64>,
) -> Result<Cow<'_, [T]>> {
    let stored = dataset.stored(range)?;
    if let Cow::Borrowed(bytes) = stored
        && let Ok(tokens) = bytemuck::try_cast_slice(bytes)
    {
        return Ok(Cow::Borrowed(tokens));
    }
    Ok(Cow::Owned(bytemuck::pod_collect_to_vec(&stored)))
}

/// A copy of a range of tokens; None if the map has them contiguous and aligned.
fn copy_if_needed(dataset: &TokenDataset, range: Range<u64>) -> Result<Option<Vec<u64>>> {
    let stored = dataset.stored(range)?;
    let is_aligned = stored
        .as_ptr()
        .addr()
        .is_multiple_of(dataset.token_type().n_bytes());
    if matches!(stored, Cow::Borrowed(_)) && is_aligned {
        return Ok(None);
    }
    Ok(Some(bytemuck::pod_collect_to_vec(&stored)))
}

/// Reads the alphabet, whose arrays start at the byte offset `start`.
fn read_alphabet(file: &Mapped, header: &RanksHeader, start: u64) -> Result<Alphabet> {
    let (ids, end) = array::<i32>(file, start, header.n_ids)?;
    if !header.has_bytes {
        return Ok(Alphabet::from_parts(ids.to_vec(), Vec::new(), Vec::new()));
    }
    let starts_at = end;
    let (starts, bytes_at) = array::<u32>(file, starts_at, header.n_ids.saturating_add(1))?;
    let n_bytes = starts.last().copied().unwrap_or_default();
    let (bytes, _) = array::<u8>(file, bytes_at, n_bytes.into())?;
    // `Alphabet::bytes` slices by these.
    if !starts.is_sorted() || starts.first() != Some(&0) {
        let what = "the starts of the ids' bytes do not ascend from 0: the file is damaged";
        return Err(Error::format(file.path(), starts_at, what));
    }
    Ok(Alphabet::from_parts(
        ids.to_vec(),
        starts.to_vec(),
        bytes.to_vec(),
    ))
}

/// Checks that an n-gram is not empty.
fn check_ngram(ngram: &[i64]) -> Result<()> {
    if ngram.is_empty() {
        return Err(Error::argument(
            "the query is empty: it would occur everywhere",
        ));
    }
    Ok(())
}

/// Checks that there are at most `max_occurrences` occurrences.
pub(super) fn check_limit(n: u64, max_occurrences: u64) -> Result<()> {
    if n <= max_occurrences {
        return Ok(());
    }
    Err(Error::argument(format!(
        "the query occurs more than {max_occurrences} times; ask for a longer one, or for its count"
    )))
}

/// Number of suffixes in a range.
pub(super) fn n_suffixes(range: &Range<u32>) -> u64 {
    u64::from(range.end - range.start)
}

/// Ids in the type in which the dataset stores its tokens; None if the type cannot hold one of them, which
/// then occurs nowhere.
pub(super) fn to_stored<T: StoredToken>(ids: &[i64]) -> Option<Vec<T>> {
    ids.iter().map(|id| T::from_id(*id)).collect()
}
