//! An opened index.

use std::{
    borrow::Cow,
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock, atomic::AtomicUsize, atomic::Ordering::Relaxed},
};

use super::{
    alphabet::Alphabet,
    build::{MAGIC, RANKS_FILE, RanksHeader},
    file::{array, read_header},
    piece::{Piece, Token, View, path_of},
    text::Tails,
};
use crate::{
    Error, Result,
    io::Mapped,
    tokens::{TokenDataset, TokenSource, TokenType},
};

/// N-grams of a batch that a thread takes at a time.
const BLOCK: usize = 1024;

/// An occurrence of an n-gram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Located {
    /// The document.
    pub document: u64,
    /// Its first token in the document.
    pub token: u64,
}

/// The sorted suffixes of a dataset, memory-mapped.
#[derive(Debug)]
pub struct SuffixIndex {
    folder: PathBuf,
    dataset: Arc<TokenDataset>,
    alphabet: Alphabet,
    pub(super) header: RanksHeader,
    pieces: Vec<Piece>,
    /// Tokens of the pieces that lie in several shards, or at odd bytes of one, in words for their alignment.
    copies: Vec<Option<Vec<u64>>>,
    /// Made when the first text is looked for.
    tails: OnceLock<Tails>,
}

/// Runs `$body` with `$tokens` as each piece's tokens in their stored type.
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
    /// It is unfinished, damaged, or was built for another dataset.
    pub fn open(folder: &Path, dataset: Arc<TokenDataset>) -> Result<Self> {
        let file = Mapped::open(&folder.join(RANKS_FILE))?;
        let (header, start): (RanksHeader, u64) = read_header(&file, MAGIC)?;
        if header.fingerprint != dataset.fingerprint() {
            let what = format!(
                "the index was built for another dataset than {} now is; `pile-tools index` with --force builds it anew",
                dataset.prefix().display()
            );
            return Err(Error::malformed(folder, what));
        }
        let alphabet = read_alphabet(&file, &header, start)?;
        if let Some(bad) = header.pieces.iter().find(|piece| {
            piece.first_document > piece.end_document
                || piece.end_document > dataset.n_documents()
                || piece.first_token.saturating_add(piece.n_tokens) > dataset.n_tokens()
        }) {
            let what = format!(
                "speaks of documents up to {} that are not there",
                bad.end_document
            );
            return Err(Error::format(file.path(), 16, what));
        }
        let pieces = (0..header.pieces.len())
            .map(|number| Piece::open(&path_of(folder, number), &header.piece(number)));
        let copies = header
            .pieces
            .iter()
            .map(|span| copy_if_needed(&dataset, span.tokens()));
        let copies: Result<Vec<_>> = copies.collect();
        let index = Self {
            folder: folder.to_owned(),
            pieces: pieces.collect::<Result<_>>()?,
            copies: copies?,
            dataset,
            alphabet,
            header,
            tails: OnceLock::new(),
        };
        let n_tokens: u64 = index.pieces.iter().map(|piece| piece.span.n_tokens).sum();
        if n_tokens != index.dataset.n_tokens() {
            let what = format!("covers {n_tokens} of {} tokens", index.dataset.n_tokens());
            return Err(Error::format(file.path(), 16, what));
        }
        Ok(index)
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The dataset.
    #[must_use]
    pub fn dataset(&self) -> &Arc<TokenDataset> {
        &self.dataset
    }

    /// The ids that occur.
    #[must_use]
    pub fn alphabet(&self) -> &Alphabet {
        &self.alphabet
    }

    /// Pieces of the index.
    #[must_use]
    pub fn n_pieces(&self) -> usize {
        self.pieces.len()
    }

    /// The tokens of each piece.
    ///
    /// # Errors
    /// A piece is no aligned slice of the map, as opening the index found it to be.
    pub(super) fn tokens<T: Token>(&self) -> Result<Vec<&[T]>> {
        let pieces = self.pieces.iter().zip(&self.copies);
        let tokens = pieces.map(|(piece, copy)| match copy {
            Some(copy) => Ok(&bytemuck::cast_slice(copy)[..piece.span.n_tokens as usize]),
            None => match typed_tokens(&self.dataset, piece.span.tokens())? {
                Cow::Borrowed(tokens) => Ok(tokens),
                Cow::Owned(_) => {
                    let what = "its tokens are not as they were when the index was opened";
                    Err(Error::malformed(self.dataset.prefix(), what))
                }
            },
        });
        tokens.collect()
    }

    /// The pieces, ready to be searched.
    pub(super) fn views<'a, T: Token>(
        &'a self,
        tokens: &'a [&'a [T]],
    ) -> impl Iterator<Item = View<'a, T>> {
        let pieces = self.pieces.iter().zip(tokens);
        pieces.map(|(piece, tokens)| piece.view(tokens, &self.alphabet, self.header.ends_with))
    }

    /// Of every id, what its bytes end in.
    pub(super) fn tails(&self) -> &Tails {
        self.tails.get_or_init(|| Tails::new(&self.alphabet))
    }

    /// Occurrences of an n-gram within documents; none of an empty one is asked for.
    ///
    /// # Errors
    /// It is empty.
    pub fn count(&self, ngram: &[i64]) -> Result<u64> {
        check_ngram(ngram)?;
        Ok(with_tokens!(self, |tokens| match typed(ngram) {
            Some(ngram) => self
                .views(tokens)
                .map(|view| n_of(&view.find(&ngram)))
                .sum(),
            None => 0,
        }))
    }

    /// Occurrences of each of many n-grams, given one after the other with where each begins and the last one ends.
    /// The answer is the same for any number of threads.
    ///
    /// # Errors
    /// One is empty, or they do not lie one after the other within `ids`.
    pub fn count_batch(&self, ids: &[i64], starts: &[usize], n_threads: usize) -> Result<Vec<u64>> {
        if !starts.is_sorted() || starts.last().is_some_and(|end| *end > ids.len()) {
            return Err(Error::argument(
                "the n-grams do not lie one after the other",
            ));
        }
        if let Some(number) = starts.windows(2).position(|pair| pair[0] == pair[1]) {
            return Err(Error::argument(format!("n-gram {number} is empty")));
        }
        Ok(with_tokens!(self, |tokens| self
            .count_typed(tokens, ids, starts, n_threads)))
    }

    fn count_typed<T: Token>(
        &self,
        tokens: &[&[T]],
        ids: &[i64],
        starts: &[usize],
        n_threads: usize,
    ) -> Vec<u64> {
        let stored: Vec<T> = ids
            .iter()
            .map(|id| T::of(*id).unwrap_or_else(T::zeroed))
            .collect();
        let ngram = |first: usize, end: usize| match ids[first..end]
            .iter()
            .all(|id| T::of(*id).is_some())
        {
            true => &stored[first..end],
            // What the type cannot hold occurs nowhere.
            false => &[],
        };
        let ngrams: Vec<&[T]> = starts.windows(2).map(|at| ngram(at[0], at[1])).collect();
        let mut counts = vec![0; ngrams.len()];
        let blocks = counts.chunks_mut(BLOCK).zip(ngrams.chunks(BLOCK));
        let blocks: Vec<_> = blocks.map(std::sync::Mutex::new).collect();
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some(block) = blocks.get(next.fetch_add(1, Relaxed)) {
                let mut block = block
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
                let (counts, ngrams) = &mut *block;
                for view in self.views(tokens) {
                    view.find_all(ngrams.iter().copied(), |number, range| {
                        // An empty one stands for what occurs nowhere.
                        if !ngrams[number].is_empty() {
                            counts[number] += n_of(&range);
                        }
                    });
                }
            }
        };
        crate::io::share_work(n_threads.clamp(1, blocks.len().max(1)), work);
        drop(blocks);
        counts
    }

    /// Every occurrence of an n-gram, in order.
    ///
    /// # Errors
    /// It is empty, or occurs more than `max_places` times.
    pub fn locate(&self, ngram: &[i64], max_places: u64) -> Result<Vec<Located>> {
        check_ngram(ngram)?;
        let mut places = Vec::new();
        let mut n = 0;
        with_tokens!(self, |tokens| if let Some(ngram) = typed(ngram) {
            for (number, view) in self.views(tokens).enumerate() {
                let range = view.find(&ngram);
                n += n_of(&range);
                check_places(n, max_places)?;
                let suffixes = &view.suffixes[range.start as usize..range.end as usize];
                for suffix in suffixes {
                    places.push(self.located(number, *suffix as usize)?);
                }
            }
        });
        places.sort_unstable();
        Ok(places)
    }

    /// The document and its token at a place of a piece.
    ///
    /// # Errors
    /// The index is damaged: there is none.
    pub(super) fn located(&self, piece: usize, place: usize) -> Result<Located> {
        let span = self.pieces[piece].span;
        let token = span.first_token + place as u64;
        let (mut low, mut high) = (span.first_document, span.end_document);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.dataset.token_range(middle)?.end <= token {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        if place as u64 >= span.n_tokens || low == span.end_document {
            return Err(Error::malformed(
                &path_of(&self.folder, piece),
                "the file is damaged: build the index anew",
            ));
        }
        Ok(Located {
            document: low,
            token: token - self.dataset.token_range(low)?.start,
        })
    }
}

/// A range of a dataset's tokens in their stored type: of the map where one file holds them aligned, or a copy.
///
/// # Errors
/// They are not there.
pub(super) fn typed_tokens<T: Token>(
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

/// A copy of a range of tokens that cannot be searched where they lie.
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

fn read_alphabet(file: &Mapped, header: &RanksHeader, start: u64) -> Result<Alphabet> {
    let (ids, at) = array::<i32>(file, start, header.n_ids)?;
    if !header.has_bytes {
        return Ok(Alphabet::of_parts(ids.to_vec(), Vec::new(), Vec::new()));
    }
    let (starts, at) = array::<u32>(file, at, header.n_ids.saturating_add(1))?;
    let n_bytes = starts.last().copied().unwrap_or_default();
    let (bytes, _) = array::<u8>(file, at, n_bytes.into())?;
    if !starts.is_sorted() || starts.first() != Some(&0) {
        return Err(Error::format(
            file.path(),
            at,
            "the beginnings of the tokens are not ascending",
        ));
    }
    Ok(Alphabet::of_parts(
        ids.to_vec(),
        starts.to_vec(),
        bytes.to_vec(),
    ))
}

pub(super) fn check_ngram(ngram: &[i64]) -> Result<()> {
    if ngram.is_empty() {
        return Err(Error::argument(
            "the query is empty: it would occur everywhere",
        ));
    }
    Ok(())
}

pub(super) fn check_places(n: u64, max_places: u64) -> Result<()> {
    if n <= max_places {
        return Ok(());
    }
    Err(Error::argument(format!(
        "the query occurs more than {max_places} times; ask for a longer one, or for its count"
    )))
}

pub(super) fn n_of(range: &Range<u32>) -> u64 {
    u64::from(range.end - range.start)
}

/// Ids in the stored type; None where one cannot be stored, and so occurs nowhere.
pub(super) fn typed<T: Token>(ids: &[i64]) -> Option<Vec<T>> {
    ids.iter().map(|id| T::of(*id)).collect()
}
