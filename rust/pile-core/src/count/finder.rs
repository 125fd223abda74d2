//! Finds every occurrence of many terms, overlapping ones included.
//!
//! A text is cut into stretches. In each, sieves leave the places where a term of one or two bytes starts, and
//! those where a longer one may by its first three; among these, further sieves leave those for terms of each
//! length up to seven bytes, and for the first eight bytes of long terms. What is left is looked up. So a place
//! where no term starts costs the same few steps, however many terms there are.

use std::ops::{Range, RangeInclusive};

use super::{
    beginnings::{Beginnings, EIGHT, Short, Sieve},
    term_set::TermSet,
};

/// Bytes of a stretch: lists of its places stay in the nearest cache.
const STRETCH: usize = if cfg!(test) { 32 } else { 2048 };

/// No term.
const NONE: u32 = Short::NONE;

/// Finds terms.
#[derive(Debug)]
pub(super) struct Finder {
    terms: TermSet,
    /// Terms of one and of two bytes.
    short: Short,
    /// The first three bytes of all others.
    three: Sieve,
    /// Terms of three bytes.
    by_three: Option<Beginnings>,
    /// The first four bytes of longer ones.
    four: Sieve,
    /// Terms of each length from four to seven bytes.
    longer: Vec<Beginnings>,
    /// Ranges of terms of eight bytes or more by the first eight.
    long: Option<Beginnings>,
    /// Of each term of eight bytes or more the longest other one that it begins with.
    inner: Vec<u32>,
}

impl Finder {
    /// Looks for terms.
    pub(super) fn new(terms: TermSet) -> Self {
        let numbers = 0..terms.len() as u32;
        let by_length = |length| {
            let long_enough = |number: &u32| match terms.term(*number).len() {
                n if length == EIGHT => n >= EIGHT,
                n => n == length,
            };
            let same: Vec<u32> = numbers.clone().filter(long_enough).collect();
            let first = |number: &u32| &terms.term(*number)[..length];
            let ranges: Vec<_> = same
                .chunk_by(|a, b| first(a) == first(b))
                .map(|same| (first(&same[0]), same[0], same[same.len() - 1] + 1))
                .collect();
            (!ranges.is_empty()).then(|| Beginnings::new(length, &ranges))
        };
        let of = |lengths: RangeInclusive<usize>| {
            let all = numbers.clone().map(|number| terms.term(number));
            all.filter(move |term| lengths.contains(&term.len()))
        };
        Self {
            short: Short::new(numbers.clone().map(|number| (terms.term(number), number))),
            three: Sieve::new(3, of(3..=usize::MAX)),
            by_three: by_length(3),
            four: Sieve::new(4, of(4..=usize::MAX)),
            longer: (4..EIGHT).filter_map(by_length).collect(),
            long: by_length(EIGHT),
            inner: inner(&terms),
            terms,
        }
    }

    /// The terms.
    pub(super) fn terms(&self) -> &TermSet {
        &self.terms
    }

    /// Calls `found(start, hits)` for each stretch of a text, with all the occurrences that begin in it, in no
    /// order.
    pub(super) fn find(&self, text: &[u8], room: &mut Room, mut found: impl FnMut(usize, &[Hit])) {
        for start in (0..text.len()).step_by(STRETCH) {
            room.hits.clear();
            self.find_in(&text[start..], room);
            found(start, &room.hits);
        }
    }

    /// Puts the occurrences that begin in the first stretch of a text.
    fn find_in(&self, text: &[u8], room: &mut Room) {
        let Room {
            bytes,
            left,
            less,
            few,
            ranges,
            hits,
        } = room;
        let n = text.len().min(bytes.len());
        bytes[..n].copy_from_slice(&text[..n]); // what was there before stays behind a text's end
        let stretch = Stretch { text, bytes };
        let (n_short, n_three) = self.scan(stretch, left, less);
        self.put_short(stretch, &left[..n_short], hits);
        let n_four = put_left(&self.four, stretch, &less[..n_three], left);
        let (three, four) = (&less[..n_three], &left[..n_four]);
        if let Some(beginnings) = &self.by_three {
            put_hits(beginnings, stretch, three, few, hits);
        }
        for beginnings in &self.longer {
            put_hits(beginnings, stretch, four, few, hits);
        }
        if let Some(beginnings) = &self.long {
            put_ranges(beginnings, stretch, four, few, ranges);
            self.put_long(stretch, ranges, hits);
        }
    }

    /// Puts the places where a term of one or two bytes starts, and those where a longer one may.
    #[inline(never)] // what it needs just fits into the registers
    fn scan(
        &self,
        stretch: Stretch<'_>,
        short: &mut [u16; STRETCH],
        longer: &mut [u16; STRETCH],
    ) -> (usize, usize) {
        let (mut n_short, mut n_longer) = (0, 0);
        let windows = stretch
            .bytes
            .windows(EIGHT)
            .take(stretch.text.len().min(STRETCH));
        for (bytes, place) in windows.zip(0_u16..) {
            let eight = u64::from_le_bytes(*bytes.first_chunk().unwrap_or(&[0; EIGHT]));
            short[n_short] = place;
            n_short += self.short.bit(eight) as usize;
            longer[n_longer] = place;
            n_longer += self.three.bit(eight) as usize;
        }
        (n_short, n_longer)
    }

    /// Puts the terms of one and two bytes.
    fn put_short(&self, stretch: Stretch<'_>, places: &[u16], hits: &mut Vec<Hit>) {
        if self.short.has_one() {
            put_terms(stretch.some(places), |eight| self.short.one(eight), hits);
        }
        let places = stretch.inside(places, 2);
        put_terms(stretch.some(places), |eight| self.short.two(eight), hits);
    }

    /// Puts those terms of ranges that the text at their places begins with.
    fn put_long(&self, stretch: Stretch<'_>, ranges: &[(u16, u32, u32)], hits: &mut Vec<Hit>) {
        for (place, start, end) in ranges {
            let text = &stretch.text[usize::from(*place)..];
            // Of terms that a text begins with, the last one not above it begins with all others.
            let mut term = match end - start {
                1 => *start,
                _ => self.last_not_above(*start..*end, text),
            };
            while term != NONE {
                if text.starts_with(self.terms.term(term)) {
                    hits.push(Hit {
                        term,
                        place: *place,
                    });
                }
                term = self.inner[term as usize];
            }
        }
    }

    fn last_not_above(&self, range: Range<u32>, text: &[u8]) -> u32 {
        let (mut low, mut high) = (range.start, range.end);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.terms.term(middle) <= text {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        if low > range.start { low - 1 } else { NONE }
    }
}

/// Of each term of eight bytes or more the longest other one that it begins with.
fn inner(terms: &TermSet) -> Vec<u32> {
    let mut open: Vec<u32> = Vec::new();
    let mut inner = vec![NONE; terms.len()];
    for number in 0..terms.len() as u32 {
        let term = terms.term(number);
        if term.len() < EIGHT {
            continue;
        }
        while let Some(last) = open.pop_if(|last| !term.starts_with(terms.term(*last))) {
            debug_assert!(last < number);
        }
        inner[number as usize] = open.last().copied().unwrap_or(NONE);
        open.push(number);
    }
    inner
}

/// An occurrence.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Hit {
    pub(super) term: u32,
    /// Where it starts in its stretch.
    pub(super) place: u16,
}

/// Room that is used again.
#[derive(Debug)]
pub(super) struct Room {
    /// A stretch, and the bytes behind it that the last place's eight need.
    bytes: Box<[u8; STRETCH + EIGHT]>,
    left: Box<[u16; STRETCH]>,
    less: Box<[u16; STRETCH]>,
    few: Box<[u16; STRETCH]>,
    /// Places, and the ranges of terms with the first bytes there.
    ranges: Vec<(u16, u32, u32)>,
    hits: Vec<Hit>,
}

impl Default for Room {
    fn default() -> Self {
        let places = || Box::new([0; STRETCH]);
        Self {
            bytes: Box::new([0; STRETCH + EIGHT]),
            left: places(),
            less: places(),
            few: places(),
            ranges: Vec::new(),
            hits: Vec::new(),
        }
    }
}

/// A part of a text.
#[derive(Clone, Copy)]
struct Stretch<'a> {
    /// From its start to the end of the text.
    text: &'a [u8],
    /// Its bytes where no place needs to be checked; behind the text's end are others.
    bytes: &'a [u8; STRETCH + EIGHT],
}

impl<'a> Stretch<'a> {
    /// These places with their eight bytes.
    #[inline]
    fn some(self, places: &'a [u16]) -> impl ExactSizeIterator<Item = (u16, u64)> + 'a {
        places.iter().map(move |place| {
            let bytes = self.bytes[usize::from(*place) % STRETCH..].first_chunk();
            (*place, u64::from_le_bytes(*bytes.unwrap_or(&[0; EIGHT])))
        })
    }

    /// Those of these ascending places that so many bytes of the text follow.
    fn inside(self, places: &[u16], n_bytes: usize) -> &[u16] {
        let outside = |place: &&u16| usize::from(**place) + n_bytes > self.text.len();
        let n_outside = places.iter().rev().take_while(outside).count();
        &places[..places.len() - n_outside]
    }
}

/// Puts those places where a key of the sieve may start. Like all here it asks nothing that a processor could
/// mostly guess wrong.
fn put_left(
    sieve: &Sieve,
    stretch: Stretch<'_>,
    places: &[u16],
    left: &mut [u16; STRETCH],
) -> usize {
    let mut n = 0;
    for (place, eight) in stretch.some(places) {
        left[n] = place;
        n += sieve.bit(eight) as usize;
    }
    n
}

/// Puts the terms of places, where there is one.
#[inline]
fn put_terms(
    places: impl ExactSizeIterator<Item = (u16, u64)>,
    term: impl Fn(u64) -> u32,
    hits: &mut Vec<Hit>,
) {
    let mut n = hits.len();
    hits.resize(n + places.len(), Hit::default());
    for (place, eight) in places {
        let term = term(eight);
        hits[n] = Hit { term, place };
        n += usize::from(term != NONE);
    }
    hits.truncate(n);
}

/// Puts the terms that start at some places, where their bytes are all of the table's keys.
fn put_hits(
    beginnings: &Beginnings,
    stretch: Stretch<'_>,
    places: &[u16],
    few: &mut [u16; STRETCH],
    hits: &mut Vec<Hit>,
) {
    let n = put_left(&beginnings.sieve, stretch, places, few);
    let places = stretch.inside(&few[..n], beginnings.length);
    let term = |eight| match beginnings.range(eight) {
        (term, end) if term != end => term,
        _ => NONE,
    };
    put_terms(stretch.some(places), term, hits);
}

/// Puts the ranges of terms that may start at some places.
fn put_ranges(
    beginnings: &Beginnings,
    stretch: Stretch<'_>,
    places: &[u16],
    few: &mut [u16; STRETCH],
    ranges: &mut Vec<(u16, u32, u32)>,
) {
    let n_few = put_left(&beginnings.sieve, stretch, places, few);
    let few = stretch.inside(&few[..n_few], beginnings.length);
    ranges.clear();
    ranges.resize(few.len(), (0, 0, 0));
    let mut n = 0;
    for (place, eight) in stretch.some(few) {
        let (start, end) = beginnings.range(eight);
        ranges[n] = (place, start, end);
        n += usize::from(start != end);
    }
    ranges.truncate(n);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    proptest! {
        #[test]
        fn as_a_naive_search(
            text in vec(0_u8..3, 0..200),
            cuts in vec((0_usize..200, 1_usize..40), 0..20),
            others in vec(vec(0_u8..3, 1..20), 0..9),
        ) {
            let cut = |(start, n): (usize, usize)| text.get(start..(start + n).min(text.len()));
            let cuts = cuts.into_iter().filter_map(cut).map(<[u8]>::to_vec);
            let mut terms: Vec<Box<[u8]>> = cuts.chain(others).map(Vec::into_boxed_slice).collect();
            terms.retain(|term| !term.is_empty());
            terms.sort_unstable();
            terms.dedup();
            let mut expected = Vec::new();
            for at in 0..text.len() {
                let here = terms.iter().enumerate().filter(|(_, term)| text[at..].starts_with(term));
                expected.extend(here.map(|(i, _)| (at, i)));
            }
            let terms: Vec<&[u8]> = terms.iter().map(|term| &**term).collect();
            let finder = Finder::new(TermSet::new(&terms).unwrap().0);
            let mut found = Vec::new();
            finder.find(&text, &mut Room::default(), |start, hits| {
                found.extend(hits.iter().map(|hit| (start + usize::from(hit.place), hit.term as usize)));
            });
            found.sort_unstable();
            prop_assert_eq!(found, expected);
        }
    }
}
