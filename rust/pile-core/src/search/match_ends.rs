//! How far the documents of a segment match a text from a byte of it, with a token boundary of the document
//! at that byte.
//!
//! Only matches that end after a known end are searched for. If one starts at a byte, the remainder of it
//! after its first token is another one. The bytes before the known end are therefore examined backward, and
//! a byte is skipped without a walk over suffixes if every token there leads to a byte from which no match
//! ends after the known end. In a text that repeats itself or is one long copy, few bytes need a walk.

use std::{ops::Range, rc::Rc};

use rustc_hash::FxHashMap;

use super::{
    alphabet::{Alphabet, PrefixRange},
    segment::{SegmentView, StoredToken},
    text::WalkNode,
};

/// Most nodes that are visited from one byte. There is a node for each way in which the documents tokenize a
/// prefix of the text: very many if the text repeats itself. A higher limit misses fewer of its matches, and takes
/// longer.
const MAX_NODES: usize = 20_000;

/// Equal bytes from which a repetition of the text is recognized: see [`Walker::reach_of_repeat`]. With fewer,
/// more of the remembered bytes are equal by chance.
const REPEAT_BYTES: usize = 16;

/// For each byte of a text, the tokens with which the text can continue there. Computed when first needed.
pub(super) struct TokenLattice<'a> {
    text: &'a [u8],
    alphabet: &'a Alphabet,
    ranges: FxHashMap<usize, Rc<[PrefixRange]>>,
}

impl<'a> TokenLattice<'a> {
    pub(super) fn new(text: &'a [u8], alphabet: &'a Alphabet) -> Self {
        Self {
            text,
            alphabet,
            ranges: FxHashMap::default(),
        }
    }

    /// For each prefix of the text from byte `start`, shortest first, the ranks that start with it.
    fn at(&mut self, start: usize) -> Rc<[PrefixRange]> {
        let compute = || self.alphabet.prefix_ranges(&self.text[start..]).collect();
        Rc::clone(self.ranges.entry(start).or_insert_with(compute))
    }
}

/// Suffixes that match the text up to `end` and no further.
#[derive(Debug)]
pub(super) struct MatchEnd {
    /// The suffixes and their whole tokens that match.
    pub(super) node: WalkNode,
    /// The end of the match in the text. The bytes from `node.at` on match only the start of the next token.
    pub(super) end: usize,
}

/// Upper bounds on the ends of the matches from a byte, measured once. The known end of that time is the least
/// bound: matches that end at or before it were not followed.
struct Reach {
    /// The bound for all matches.
    furthest: usize,
    /// The bound for matches whose first token has `i + 1` bytes and is whole, at index `i`. It is empty if
    /// no token leads to a match that ends after the known end.
    by_first_token: Box<[usize]>,
}

/// Finds the matches of a text in a segment. It caches what it learns about the bytes of the text.
pub(super) struct Walker<'a, 't, T> {
    view: &'a SegmentView<'a, T>,
    text: &'t [u8],
    lattice: &'a mut TokenLattice<'t>,
    /// Bytes of the longest token.
    max_token_bytes: usize,
    /// Matches that end at or before this byte are ignored.
    known_end: usize,
    /// Whether a match that ends after `known_end` may start at byte `known_end - i`, at index `i`. No such
    /// match starts at a byte beyond the last index.
    may_start: Vec<bool>,
    /// The reach of each byte that was examined.
    reaches: FxHashMap<usize, Reach>,
    /// By the [`REPEAT_BYTES`] bytes from it, the last examined byte whose reach has bounds by first token. A reach
    /// without them is not copied to another byte: moved with it, the bound could be after the known end, and which
    /// first tokens lead there would be unknown.
    repeats: FxHashMap<&'t [u8], usize>,
}

impl<'a, 't, T: StoredToken> Walker<'a, 't, T> {
    pub(super) fn new(view: &'a SegmentView<'a, T>, lattice: &'a mut TokenLattice<'t>) -> Self {
        Self {
            view,
            max_token_bytes: view.alphabet.max_token_bytes(),
            text: lattice.text,
            lattice,
            known_end: 0,
            may_start: Vec::new(),
            reaches: FxHashMap::default(),
            repeats: FxHashMap::default(),
        }
    }

    /// The first of `starts` from which a match may end after `known_end`. Neither `known_end` nor the start
    /// of `starts` may decrease from call to call: reaches do not bound ends at or before the known end of
    /// their time, and no byte before `starts` is examined.
    pub(super) fn next_start(&mut self, known_end: usize, starts: Range<usize>) -> Option<usize> {
        if known_end >= self.text.len() {
            return None;
        }
        if known_end > self.known_end || self.may_start.is_empty() {
            self.known_end = known_end;
            self.may_start.clear();
            let mut n_without = 0;
            for start in (starts.start..=known_end).rev() {
                let may_start = self.examine(start);
                self.may_start.push(may_start);
                n_without = if may_start { 0 } else { n_without + 1 };
                // No token is long enough to lead over all these bytes.
                if n_without >= self.max_token_bytes {
                    break;
                }
            }
        }
        starts.into_iter().find(|start| self.may_start_at(*start))
    }

    /// Whether a match that ends after the known end may start at a byte.
    fn may_start_at(&self, start: usize) -> bool {
        let distance = self.known_end.checked_sub(start);
        distance.is_none_or(|distance| self.may_start.get(distance) == Some(&true))
    }

    /// Whether a match that ends after the known end may start with the token `start..end`.
    fn may_start_with(&self, start: usize, end: usize) -> bool {
        end > self.known_end
            || match self.reaches.get(&start) {
                Some(reach) => reach
                    .by_first_token
                    .get(end - start - 1)
                    .is_some_and(|furthest| *furthest > self.known_end),
                None => self.may_start_at(end),
            }
    }

    /// Whether a match that ends after the known end may start at a byte. All bytes after it, up to the known
    /// end, have been examined.
    fn examine(&mut self, start: usize) -> bool {
        if let Some(reach) = self.reaches.get(&start) {
            return reach.furthest > self.known_end;
        }
        let ranges = self.lattice.at(start);
        let may_continue = |(end, range): (usize, &PrefixRange)| {
            end > self.known_end || !range.exact().is_empty() && self.may_start_at(end)
        };
        let mut reach = Reach {
            furthest: self.known_end,
            by_first_token: Box::default(),
        };
        if (start + 1..).zip(ranges.iter()).any(may_continue) {
            match self.reach_of_repeat(start) {
                Some(repeated) => reach = repeated,
                None => {
                    reach.by_first_token = vec![self.known_end; ranges.len()].into();
                    self.measure(start, &mut reach);
                }
            }
            if let Some(bytes) = self.text.get(start..start + REPEAT_BYTES) {
                self.repeats.insert(bytes, start);
            }
        }
        let may_start = reach.furthest > self.known_end;
        self.reaches.insert(start, reach);
        may_start
    }

    /// The reach of a byte if it can be copied from a byte that was examined before. The text from both must
    /// be equal up to the furthest end of a match and one byte more: that byte differs from the documents and
    /// ends the match. In a text that repeats itself, nearly every byte has its reach copied.
    fn reach_of_repeat(&self, start: usize) -> Option<Reach> {
        let other = *self
            .repeats
            .get(self.text.get(start..start + REPEAT_BYTES)?)?;
        let reach = self.reaches.get(&other)?;
        let n = reach.furthest + 1 - other;
        let is_equal = self.text.get(start..start + n)? == self.text.get(other..other + n)?;
        let moved = |end: &usize| end + start - other;
        is_equal.then(|| Reach {
            furthest: moved(&reach.furthest),
            by_first_token: reach.by_first_token.iter().map(moved).collect(),
        })
    }

    /// Raises the bounds of `reach` to the ends of all matches from a byte. A first token whose matches have
    /// too many nodes gets the end of the text as its bound.
    fn measure(&mut self, start: usize, reach: &mut Reach) {
        let (mut after_first_token, mut n_left) = (Vec::new(), MAX_NODES);
        let root = self.view.walk_root(start);
        self.step(&root, &mut after_first_token, &mut |found| {
            reach.furthest = reach.furthest.max(found.end);
        });
        while let Some(node) = after_first_token.pop() {
            let furthest = &mut reach.by_first_token[node.at - start - 1];
            let is_complete = self.walk(node, &mut n_left, |found| {
                *furthest = found.end.max(*furthest);
            });
            if !is_complete {
                *furthest = self.text.len();
            }
            reach.furthest = reach.furthest.max(*furthest);
        }
    }

    /// The matches from a byte that end after the known end. If there are more than [`MAX_NODES`] nodes, some
    /// matches may be missing.
    pub(super) fn match_ends(&mut self, start: usize) -> Vec<MatchEnd> {
        let mut ends = Vec::new();
        let (root, mut n_left) = (self.view.walk_root(start), MAX_NODES);
        self.walk(root, &mut n_left, |found| ends.push(found));
        ends
    }

    /// Calls `found` with the matches from `start`. Visits at most `n_left` nodes and subtracts their number
    /// from it. Returns whether all nodes were visited.
    fn walk(
        &mut self,
        start: WalkNode,
        n_left: &mut usize,
        mut found: impl FnMut(MatchEnd),
    ) -> bool {
        let mut open = vec![start];
        while let Some(node) = open.pop() {
            if *n_left == 0 {
                return false;
            }
            *n_left -= 1;
            if node.suffixes.len() == 1 {
                self.follow(node, &mut found);
            } else {
                self.step(&node, &mut open, &mut found);
            }
        }
        true
    }

    /// Adds to `open` the nodes that are one token further. Calls `found` with the suffixes of `node` that do
    /// not match another whole token.
    fn step(
        &mut self,
        node: &WalkNode,
        open: &mut Vec<WalkNode>,
        found: &mut impl FnMut(MatchEnd),
    ) {
        let ranges = self.lattice.at(node.at);
        let (view, depth) = (self.view, node.depth);
        let mut report = |suffixes: Range<u32>, end| {
            if end > self.known_end && !suffixes.is_empty() {
                let node = WalkNode { suffixes, ..*node };
                found(MatchEnd { node, end });
            }
        };
        // Adds the node of the suffixes that continue with a rank. Returns the end of their range.
        let mut add_node = |suffixes: Range<u32>, rank, at| {
            let suffixes = view.narrow(suffixes, depth, rank..rank + 1);
            let end = suffixes.end;
            if !suffixes.is_empty() {
                let depth = depth + 1;
                open.push(WalkNode {
                    suffixes,
                    depth,
                    at,
                });
            }
            end
        };
        // Suffixes are taken off `rest` in sorted order: those that end, those that continue with an id
        // without bytes, and then by the prefix of the text that their next token starts with.
        let mut rest = node.suffixes.clone();
        // A match that starts with an id without bytes is also found without it, from the token after it.
        let without_bytes = view.alphabet.ranks_without_bytes();
        if depth > 0 && !without_bytes.is_empty() {
            let suffixes = view.narrow(rest.clone(), depth, without_bytes.clone());
            report(rest.start..suffixes.start, node.at);
            for rank in without_bytes {
                add_node(suffixes.clone(), rank, node.at);
            }
            rest.start = suffixes.end;
        }
        for (end, range) in (node.at + 1..).zip(ranges.iter()) {
            let continues = !range.exact().is_empty() && self.may_start_with(node.at, end);
            // Nothing would be reported or added. What stays in `rest` now is taken off by a later prefix, with the end
            // of the prefix just before that one. This end is reported only if it is after the known end, and such a
            // prefix is never skipped.
            if end <= self.known_end && !continues {
                continue;
            }
            let matching = view.narrow(rest.clone(), depth, range.all.clone());
            report(rest.start..matching.start, end - 1);
            report(matching.end..rest.end, end - 1);
            rest = matching;
            if rest.is_empty() {
                return;
            }
            if continues {
                for rank in range.exact() {
                    rest.start = add_node(rest.clone(), rank, end);
                }
            }
        }
        report(rest, node.at + ranges.len());
    }

    /// Calls `found` with the match of a node of one suffix. Its tokens are read one by one: there is no
    /// range to narrow.
    fn follow(&mut self, mut node: WalkNode, found: &mut impl FnMut(MatchEnd)) {
        let (view, text) = (self.view, self.text);
        while let Some(rank) = view.rank_at(node.suffixes.start, node.depth) {
            let bytes = view.alphabet.bytes(rank);
            if !text[node.at..].starts_with(bytes) {
                break;
            }
            let start = node.at;
            node.depth += 1;
            node.at += bytes.len();
            if node.at > start && !self.may_start_with(start, node.at) {
                return;
            }
        }
        let next = view.rank_at(node.suffixes.start, node.depth);
        let next = next.map_or(&[][..], |rank| view.alphabet.bytes(rank));
        let end = node.at + n_equal(next.iter().zip(&text[node.at..]));
        if end > self.known_end {
            found(MatchEnd { node, end });
        }
    }
}

/// Number of equal pairs before the first unequal one.
pub(super) fn n_equal<'a>(pairs: impl Iterator<Item = (&'a u8, &'a u8)>) -> usize {
    pairs.take_while(|(a, b)| a == b).count()
}
