//! Where a text stands in the documents, whatever the token borders.
//!
//! A text lies within one token, or a token ends in its beginning (any of [`Tails`]) and the rest begins at a token's
//! border. From there it is a walk: tokens that are a beginning of what remains, and at last any token that begins with
//! all that remains; ids without bytes may stand between. As tokens are sorted by their bytes, each step narrows a
//! range of suffixes, and an empty one ends its branch.

use std::ops::Range;

use super::{
    alphabet::{Alphabet, Begun, begun},
    index::{SuffixIndex, check_places, n_of, with_tokens},
    piece::{Token, View},
};
use crate::{
    Error, Result,
    bytes::sortable_prefix,
    tokens::{TokenSource, TokenType},
};

/// Every end of every token's bytes, sorted: where a text may begin within a token.
#[derive(Debug)]
pub(super) struct Tails {
    /// Rank of the token, and where in its bytes the tail begins.
    tails: Vec<(u32, u32)>,
}

impl Tails {
    pub(super) fn new(alphabet: &Alphabet) -> Self {
        let ranks = 0..alphabet.len() as u32;
        let mut keyed: Vec<(u64, u32, u32)> = ranks
            .flat_map(|rank| {
                let bytes = alphabet.bytes(rank);
                (0..bytes.len())
                    .map(move |start| (sortable_prefix(&bytes[start..]), rank, start as u32))
            })
            .collect();
        keyed.sort_unstable_by(|a, b| {
            let tail = |of: &(u64, u32, u32)| &alphabet.bytes(of.1)[of.2 as usize..];
            a.0.cmp(&b.0)
                .then_with(|| tail(a).cmp(tail(b)))
                .then_with(|| a.cmp(b))
        });
        Self {
            tails: keyed
                .into_iter()
                .map(|(_, rank, start)| (rank, start))
                .collect(),
        }
    }

    fn bytes<'a>(&self, alphabet: &'a Alphabet, tail: u32) -> &'a [u8] {
        let (rank, start) = self.tails[tail as usize];
        &alphabet.bytes(rank)[start as usize..]
    }

    /// The tails that begin as a text does: see [`begun`].
    pub(super) fn begun<'a>(
        &'a self,
        alphabet: &'a Alphabet,
        text: &'a [u8],
    ) -> impl Iterator<Item = Begun> + 'a {
        let all = 0..self.tails.len() as u32;
        begun(all, |tail| self.bytes(alphabet, tail), text)
    }
}

/// Occurrences of a text in a piece that lie in as many tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Hits {
    /// Those that begin in the first token of these suffixes, so many bytes into it.
    Suffixes {
        suffixes: Range<u32>,
        byte: u32,
        n_tokens: u64,
    },
    /// One that begins in the token at this place of the piece.
    One {
        place: usize,
        byte: u32,
        n_tokens: u64,
    },
}

impl Hits {
    pub(super) fn n(&self) -> u64 {
        match self {
            Self::Suffixes { suffixes, .. } => n_of(suffixes),
            Self::One { .. } => 1,
        }
    }
}

/// A point of the walk: suffixes whose tokens, up to `depth`, spell what was looked for up to `at`.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) suffixes: Range<u32>,
    pub(super) depth: usize,
    pub(super) at: usize,
}

/// A step of the comparison backward costs about as much as so many forward.
const NARROWING: u64 = 16;

impl<T: Token> View<'_, T> {
    /// Every occurrence of a text.
    pub(super) fn find_text(&self, tails: &Tails, text: &[u8]) -> Vec<Hits> {
        let (mut hits, mut within) = (Vec::new(), 0..0);
        for (length, begun) in (1..).zip(tails.begun(self.alphabet, text)) {
            if length == text.len() {
                within = begun.all;
            } else {
                self.split(tails, begun.whole(), text, length, &mut hits);
            }
        }
        for tail in within {
            let (rank, byte) = tails.tails[tail as usize];
            let suffixes = self.of_ranks(rank..rank + 1);
            hits.push(Hits::Suffixes {
                suffixes,
                byte,
                n_tokens: 1,
            });
        }
        hits.retain(|hits| hits.n() > 0);
        hits
    }

    /// Occurrences whose first token ends behind `length` bytes of the text. The rest is found at a border; what
    /// stands before it is looked at, or, where the rest is frequent, each token that ends so is tried.
    fn split(
        &self,
        tails: &Tails,
        of: Range<u32>,
        text: &[u8],
        length: usize,
        hits: &mut Vec<Hits>,
    ) {
        let (head, rest) = text.split_at(length);
        if of.is_empty() {
            return;
        }
        let all = Node {
            suffixes: 0..self.suffixes.len() as u32,
            depth: 0,
            at: 0,
        };
        let rests = self.walk(rest, all);
        let n: u64 = rests.iter().map(|(suffixes, _)| n_of(suffixes)).sum();
        if n <= u64::from(of.end - of.start) * NARROWING {
            for (suffixes, n_tokens) in rests {
                for place in &self.suffixes[suffixes.start as usize..suffixes.end as usize] {
                    hits.extend(self.before(*place as usize, head, n_tokens));
                }
            }
            return;
        }
        for tail in of {
            let (rank, byte) = tails.tails[tail as usize];
            let suffixes = self.of_ranks(rank..rank + 1);
            let found = self.walk(
                rest,
                Node {
                    suffixes,
                    depth: 1,
                    at: 0,
                },
            );
            hits.extend(
                found
                    .into_iter()
                    .map(|(suffixes, n_tokens)| Hits::Suffixes {
                        suffixes,
                        byte,
                        n_tokens,
                    }),
            );
        }
    }

    /// The occurrence whose rest begins at a place, if the token before ends in `head`.
    fn before(&self, place: usize, head: &[u8], n_tokens: u64) -> Option<Hits> {
        let first = self.spelt_before(place)?;
        let bytes = self.alphabet.bytes(self.rank(first)?);
        let byte = bytes.len().checked_sub(head.len())?;
        bytes.ends_with(head).then_some(Hits::One {
            place: first,
            byte: byte as u32,
            n_tokens: n_tokens + (place - first) as u64,
        })
    }

    /// The last place before one of the same document whose token has bytes.
    pub(super) fn spelt_before(&self, place: usize) -> Option<usize> {
        let mut before = place;
        loop {
            before = before.checked_sub(1)?;
            if self.is_last(before) {
                return None;
            }
            if !self.alphabet.bytes(self.rank(before)?).is_empty() {
                return Some(before);
            }
        }
    }

    /// Suffixes that go on with `text` from a point of the walk, by the number of tokens in which they do.
    fn walk(&self, text: &[u8], from: Node) -> Vec<(Range<u32>, u64)> {
        let (mut found, mut open) = (Vec::new(), vec![from]);
        while let Some(node) = open.pop() {
            let (begun, ranks) = self.steps(text, &node, &mut open);
            if begun == text.len() {
                let suffixes = self.narrow(node.suffixes, node.depth, ranks);
                if !suffixes.is_empty() {
                    found.push((suffixes, node.depth as u64 + 1));
                }
            }
        }
        found
    }

    /// Adds the points one token on. Returns how far bytes agree with any token, and the ranks that agree so far.
    fn steps(&self, text: &[u8], node: &Node, open: &mut Vec<Node>) -> (usize, Range<u32>) {
        let mut step = |ranks: Range<u32>, at: usize| {
            // One by one: suffixes are sorted by what follows only where the id is the same.
            for rank in ranks {
                let suffixes = self.narrow(node.suffixes.clone(), node.depth, rank..rank + 1);
                if !suffixes.is_empty() {
                    open.push(Node {
                        suffixes,
                        depth: node.depth + 1,
                        at,
                    });
                }
            }
        };
        let empty = self.alphabet.empty();
        if node.depth > 0 && !empty.is_empty() {
            step(empty, node.at);
        }
        let (mut ranks, mut at) = (0..self.alphabet.len() as u32, node.at);
        for begun in self.alphabet.begun(&text[node.at..]) {
            at += 1;
            if at < text.len() && !begun.whole().is_empty() {
                step(begun.whole(), at);
            }
            ranks = begun.all;
        }
        (at, ranks)
    }
}

/// An occurrence of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TextPlace {
    /// The document.
    pub document: u64,
    /// The token of the document in which it begins.
    pub token: u64,
    /// Its first byte in what that token decodes to.
    pub byte_of_token: u64,
    /// Tokens from that one to the one in which it ends, both counted.
    pub n_tokens: u64,
}

impl SuffixIndex {
    pub(super) fn check_text(&self, text: &[u8]) -> Result<()> {
        if text.is_empty() {
            return Err(Error::argument(
                "the text is empty: it would occur everywhere",
            ));
        }
        if !self.alphabet().has_bytes() && !self.alphabet().is_empty() {
            return Err(Error::argument(
                "the index was built without a tokenizer and knows no texts, only tokens; `pile-tools index --force --tokenizer` builds one that does",
            ));
        }
        Ok(())
    }

    /// Occurrences of a text within documents, overlapping ones included.
    ///
    /// # Errors
    /// It is empty, or the index was built without a tokenizer.
    pub fn count_text(&self, text: &[u8]) -> Result<u64> {
        self.check_text(text)?;
        Ok(with_tokens!(self, |tokens| {
            let views = self.views(tokens);
            views
                .flat_map(|view| view.find_text(self.tails(), text))
                .map(|hits| hits.n())
                .sum()
        }))
    }

    /// Every occurrence of a text within documents, in order.
    ///
    /// # Errors
    /// As [`Self::count_text`], or it occurs more than `max_places` times.
    pub fn locate_text(&self, text: &[u8], max_places: u64) -> Result<Vec<TextPlace>> {
        self.check_text(text)?;
        let mut places = Vec::new();
        let mut n = 0;
        with_tokens!(
            self,
            |tokens| for (piece, view) in self.views(tokens).enumerate() {
                let hits = view.find_text(self.tails(), text);
                n += hits.iter().map(Hits::n).sum::<u64>();
                check_places(n, max_places)?;
                for hits in hits {
                    self.add_places(piece, &view, &hits, usize::MAX, &mut places)?;
                }
            }
        );
        places.sort_unstable();
        Ok(places)
    }

    /// How often a text occurs within documents, and some of the places: the first `limit` as the index sorts them.
    ///
    /// # Errors
    /// As [`Self::count_text`].
    pub fn sample_text(&self, text: &[u8], limit: usize) -> Result<(u64, Vec<TextPlace>)> {
        self.check_text(text)?;
        let (mut n, mut places) = (0, Vec::new());
        with_tokens!(
            self,
            |tokens| for (piece, view) in self.views(tokens).enumerate() {
                for hits in view.find_text(self.tails(), text) {
                    n += hits.n();
                    self.add_places(piece, &view, &hits, limit - places.len(), &mut places)?;
                }
            }
        );
        places.sort_unstable();
        Ok((n, places))
    }

    /// Adds up to `limit` places of hits.
    fn add_places<T: Token>(
        &self,
        piece: usize,
        view: &View<'_, T>,
        hits: &Hits,
        limit: usize,
        places: &mut Vec<TextPlace>,
    ) -> Result<()> {
        let mut add = |place: usize, byte: u32, n_tokens| {
            let at = self.located(piece, place)?;
            places.push(TextPlace {
                document: at.document,
                token: at.token,
                byte_of_token: byte.into(),
                n_tokens,
            });
            Ok(())
        };
        match hits {
            Hits::One {
                place,
                byte,
                n_tokens,
            } if limit > 0 => add(*place, *byte, *n_tokens),
            Hits::One { .. } => Ok(()),
            Hits::Suffixes {
                suffixes,
                byte,
                n_tokens,
            } => {
                let suffixes = &view.suffixes[suffixes.start as usize..suffixes.end as usize];
                suffixes
                    .iter()
                    .take(limit)
                    .try_for_each(|suffix| add(*suffix as usize, *byte, *n_tokens))
            }
        }
    }

    /// What ids decode to; those that do not occur in the dataset to nothing.
    #[must_use]
    pub fn decode(&self, ids: &[i64]) -> Vec<u8> {
        let ranks = ids
            .iter()
            .filter_map(|id| self.alphabet().rank(i32::try_from(*id).ok()?));
        ranks
            .flat_map(|rank| self.alphabet().bytes(rank))
            .copied()
            .collect()
    }

    /// Tokens of the dataset whose ids decode to nothing.
    ///
    /// # Errors
    /// The dataset's tokens cannot be read.
    pub fn n_without_bytes(&self) -> Result<u64> {
        let empty = self.alphabet().empty();
        if empty.is_empty() {
            return Ok(0);
        }
        Ok(with_tokens!(self, |tokens| self
            .views(tokens)
            .map(|view| n_of(&view.of_ranks(empty.clone())))
            .sum()))
    }
}
