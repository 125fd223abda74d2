//! How far documents go on as a text does, from the borders of their tokens.
//!
//! Asked is only what goes on beyond an end that is known. What does so from a place does so from the next border of
//! its tokens too: places are tried from that end backward, and none is walked from, nor over, whose tokens all lead to
//! places that do not go on beyond it. Of a text that repeats itself, or is one long copy, few places are walked from.

use std::{ops::Range, rc::Rc};

use rustc_hash::FxHashMap;

use super::{
    alphabet::{Alphabet, Begun},
    piece::{Token, View},
    text::Node,
};

/// From a place, points of the walk: texts that repeat themselves would have too many.
const MAX_POINTS: usize = 20_000;

/// Bytes by which a place is found that may be like another.
const ALIKE: usize = 16;

/// The tokens that a text could go on with at each of its places, looked up when asked for.
pub(super) struct Lattice<'a> {
    text: &'a [u8],
    alphabet: &'a Alphabet,
    begun: FxHashMap<usize, Rc<[Begun]>>,
}

impl<'a> Lattice<'a> {
    pub(super) fn new(text: &'a [u8], alphabet: &'a Alphabet) -> Self {
        Self {
            text,
            alphabet,
            begun: FxHashMap::default(),
        }
    }

    fn at(&mut self, place: usize) -> Rc<[Begun]> {
        let new = || self.alphabet.begun(&self.text[place..]).collect();
        Rc::clone(self.begun.entry(place).or_insert_with(new))
    }
}

/// Suffixes that go on as the text does up to `end`, in whole tokens up to `node.at`.
#[derive(Debug)]
pub(super) struct End {
    pub(super) node: Node,
    pub(super) end: usize,
}

/// How far something goes on from a place at the most.
struct Reach {
    furthest: usize,
    /// By the bytes of the first token, less one, where that is whole.
    by_first: Box<[usize]>,
}

/// Walks over the documents of a piece.
pub(super) struct Walker<'a, 't, T> {
    view: &'a View<'a, T>,
    text: &'t [u8],
    lattice: &'a mut Lattice<'t>,
    longest: usize,
    /// What ends up to here is not asked for.
    beyond: usize,
    /// Whether something may go on beyond it, from it backward; where this ends nothing does.
    open: Vec<bool>,
    reaches: FxHashMap<usize, Reach>,
    /// The last of these places before which so many bytes stand.
    alike: FxHashMap<&'t [u8], usize>,
}

impl<'a, 't, T: Token> Walker<'a, 't, T> {
    pub(super) fn new(view: &'a View<'a, T>, lattice: &'a mut Lattice<'t>) -> Self {
        Self {
            view,
            longest: view.alphabet.longest(),
            text: lattice.text,
            lattice,
            beyond: 0,
            open: Vec::new(),
            reaches: FxHashMap::default(),
            alike: FxHashMap::default(),
        }
    }

    /// The first of these places from which something may go on beyond an end. Ends may only grow from call to call,
    /// and the places too.
    pub(super) fn next_beyond(&mut self, beyond: usize, places: Range<usize>) -> Option<usize> {
        if beyond >= self.text.len() {
            return None;
        }
        if beyond > self.beyond || self.open.is_empty() {
            self.beyond = beyond;
            self.open.clear();
            let mut n_closed = 0;
            for place in (places.start..=beyond).rev() {
                let is_open = self.goes_beyond(place);
                self.open.push(is_open);
                n_closed = if is_open { 0 } else { n_closed + 1 };
                // No token leads over so many.
                if n_closed >= self.longest {
                    break;
                }
            }
        }
        places.into_iter().find(|place| self.is_open(*place))
    }

    fn is_open(&self, place: usize) -> bool {
        let back = self.beyond.checked_sub(place);
        back.is_none_or(|back| self.open.get(back) == Some(&true))
    }

    /// Whether something may go on beyond the end from a place with a token that reaches to `end`.
    fn leads_on(&self, place: usize, end: usize) -> bool {
        end > self.beyond
            || match self.reaches.get(&place) {
                Some(reach) => {
                    (reach.by_first.get(end - place - 1)).is_some_and(|reach| *reach > self.beyond)
                }
                None => self.is_open(end),
            }
    }

    /// Whether something goes on beyond the end from a place, all places behind it being known.
    fn goes_beyond(&mut self, place: usize) -> bool {
        if let Some(reach) = self.reaches.get(&place) {
            return reach.furthest > self.beyond;
        }
        let begun = self.lattice.at(place);
        let may_lead_on = |(end, begun): (usize, &Begun)| {
            end > self.beyond || !begun.whole().is_empty() && self.is_open(end)
        };
        let mut reach = Reach {
            furthest: self.beyond,
            by_first: Box::default(),
        };
        if (place + 1..).zip(begun.iter()).any(may_lead_on) {
            match self.reach_of_one_alike(place) {
                Some(known) => reach = known,
                None => {
                    reach.by_first = vec![self.beyond; begun.len()].into();
                    self.measure(place, &mut reach);
                }
            }
            if let Some(bytes) = self.text.get(place..place + ALIKE) {
                self.alike.insert(bytes, place);
            }
        }
        let is_open = reach.furthest > self.beyond;
        self.reaches.insert(place, reach);
        is_open
    }

    /// How far something goes on from a place, where the text goes on from another as far and a byte more. In a text
    /// that repeats itself nearly all places are so.
    fn reach_of_one_alike(&self, place: usize) -> Option<Reach> {
        let other = *self.alike.get(self.text.get(place..place + ALIKE)?)?;
        let reach = self.reaches.get(&other)?;
        let n = reach.furthest + 1 - other;
        let is_alike = self.text.get(place..place + n)? == self.text.get(other..other + n)?;
        let moved = |end: &usize| end + place - other;
        is_alike.then(|| Reach {
            furthest: moved(&reach.furthest),
            by_first: reach.by_first.iter().map(moved).collect(),
        })
    }

    fn measure(&mut self, place: usize, reach: &mut Reach) {
        let (mut firsts, mut left) = (Vec::new(), MAX_POINTS);
        let root = self.root(place);
        self.step(&root, &mut firsts, &mut |end| {
            reach.furthest = reach.furthest.max(end.end);
        });
        while let Some(first) = firsts.pop() {
            let by_first = &mut reach.by_first[first.at - place - 1];
            if !self.walk(first, &mut left, |end| *by_first = end.end.max(*by_first)) {
                *by_first = self.text.len();
            }
            reach.furthest = reach.furthest.max(*by_first);
        }
    }

    fn root(&self, place: usize) -> Node {
        Node {
            suffixes: 0..self.view.suffixes.len() as u32,
            depth: 0,
            at: place,
        }
    }

    /// What goes on beyond the end from a place.
    pub(super) fn ends(&mut self, place: usize) -> Vec<End> {
        let mut ends = Vec::new();
        self.walk(self.root(place), &mut { MAX_POINTS }, |end| ends.push(end));
        ends
    }

    /// Whether all could be walked.
    fn walk(&mut self, from: Node, left: &mut usize, mut found: impl FnMut(End)) -> bool {
        let mut open = vec![from];
        while let Some(node) = open.pop() {
            if *left == 0 {
                return false;
            }
            *left -= 1;
            if node.suffixes.len() == 1 {
                self.follow(node, &mut found);
            } else {
                self.step(&node, &mut open, &mut found);
            }
        }
        true
    }

    /// Adds the points one token on; tells suffixes that do not go on with a whole token.
    fn step(&mut self, node: &Node, open: &mut Vec<Node>, found: &mut impl FnMut(End)) {
        let begun = self.lattice.at(node.at);
        let (view, depth) = (self.view, node.depth);
        let mut rest = node.suffixes.clone();
        let mut tell = |suffixes: Range<u32>, end| {
            if end > self.beyond && !suffixes.is_empty() {
                let node = Node { suffixes, ..*node };
                found(End { node, end });
            }
        };
        let mut walk_on = |suffixes: Range<u32>, rank, at| {
            let suffixes = view.narrow(suffixes, depth, rank..rank + 1);
            let end = suffixes.end;
            if !suffixes.is_empty() {
                let depth = depth + 1;
                open.push(Node {
                    suffixes,
                    depth,
                    at,
                });
            }
            end
        };
        let empty = view.alphabet.empty();
        if depth > 0 && !empty.is_empty() {
            let without = view.narrow(rest.clone(), depth, empty.clone());
            tell(rest.start..without.start, node.at);
            for rank in empty {
                walk_on(without.clone(), rank, node.at);
            }
            rest.start = without.end;
        }
        for (end, begun) in (node.at + 1..).zip(begun.iter()) {
            let leads_on = !begun.whole().is_empty() && self.leads_on(node.at, end);
            if end <= self.beyond && !leads_on {
                continue;
            }
            let on = view.narrow(rest.clone(), depth, begun.all.clone());
            tell(rest.start..on.start, end - 1);
            tell(on.end..rest.end, end - 1);
            rest = on;
            if rest.is_empty() {
                return;
            }
            if leads_on {
                for rank in begun.whole() {
                    rest.start = walk_on(rest.clone(), rank, end);
                }
            }
        }
        tell(rest, node.at + begun.len());
    }

    /// Walks on with a single suffix: reading its tokens is all there is to it.
    fn follow(&mut self, mut node: Node, found: &mut impl FnMut(End)) {
        let (view, text) = (self.view, self.text);
        while let Some(rank) = view.rank_at(node.suffixes.start, node.depth) {
            let bytes = view.alphabet.bytes(rank);
            if !text[node.at..].starts_with(bytes) {
                break;
            }
            let place = node.at;
            node.depth += 1;
            node.at += bytes.len();
            if node.at > place && !self.leads_on(place, node.at) {
                return;
            }
        }
        let next = view.rank_at(node.suffixes.start, node.depth);
        let next = next.map_or(&[][..], |rank| view.alphabet.bytes(rank));
        let end = node.at + common(next.iter().zip(&text[node.at..]));
        if end > self.beyond {
            found(End { node, end });
        }
    }
}

/// Pairs that agree before the first that does not.
pub(super) fn common<'a>(pairs: impl Iterator<Item = (&'a u8, &'a u8)>) -> usize {
    pairs.take_while(|(a, b)| a == b).count()
}
