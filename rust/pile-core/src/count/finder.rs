//! Finds every occurrence of many terms in a text, overlapping ones included.
//!
//! The text is processed in blocks. The offsets of a block are tested with filters for whether a term may start there:
//!
//! 1. All offsets are tested with a bitmap of the terms of one or two bytes, and with a filter of the first three bytes
//!    of longer terms.
//! 2. Offsets that passed that filter are tested with one of the first four bytes of terms of four bytes or more.
//! 3. Each length from three to seven bytes, and the first eight bytes of longer terms, has a filter and a table, which
//!    are asked at the offsets that passed the filter of three or of four bytes.
//!
//! So an offset where no term starts mostly takes the two tests of step 1, for any number of terms.
//!
//! The loops over offsets have no branches that depend on the text, as a processor would often mispredict them: each
//! offset is written to the end of the output list, whose length then grows by 0 or 1.

use std::ops::{Range, RangeInclusive};

use super::{
    prefix_table::{LOADED_BYTES, PrefixFilter, PrefixTable, ShortTerms},
    term_set::TermSet,
};

/// Bytes of a block. Its lists of offsets, 4 KiB each, stay in the L1 data cache. A power of two.
const BLOCK_BYTES: usize = if cfg!(test) { 32 } else { 2048 };

/// No term.
const NONE: u32 = ShortTerms::NONE;

/// Finds the terms of a set.
#[derive(Debug)]
pub(super) struct Finder {
    terms: TermSet,
    /// Terms of one and two bytes.
    short: ShortTerms,
    /// The first three bytes of the terms of three bytes or more.
    three_bytes: PrefixFilter,
    /// Terms of three bytes.
    of_three_bytes: Option<PrefixTable>,
    /// The first four bytes of the terms of four bytes or more.
    four_bytes: PrefixFilter,
    /// Terms of each length from four to seven bytes.
    of_four_to_seven_bytes: Vec<PrefixTable>,
    /// Terms of eight bytes or more, by their first eight bytes.
    long: Option<PrefixTable>,
    /// For each term of eight bytes or more, the longest other one that is a prefix of it.
    longest_prefixes: Vec<u32>,
}

impl Finder {
    pub(super) fn new(terms: TermSet) -> Self {
        let numbers = 0..terms.len() as u32;
        // The terms of `length` bytes, or of eight bytes or more.
        let table_of = |length| {
            let is_of_length = |number: &u32| match terms.term(*number).len() {
                n if length == LOADED_BYTES => n >= LOADED_BYTES,
                n => n == length,
            };
            let of_length: Vec<u32> = numbers.clone().filter(is_of_length).collect();
            let prefix = |number: &u32| &terms.term(*number)[..length];
            // The numbers of a range are consecutive: terms are sorted, so a term between two terms with the same
            // prefix has that prefix too.
            let ranges: Vec<_> = of_length
                .chunk_by(|a, b| prefix(a) == prefix(b))
                .map(|same| (prefix(&same[0]), same[0], same[same.len() - 1] + 1))
                .collect();
            (!ranges.is_empty()).then(|| PrefixTable::new(length, &ranges))
        };
        let with_length = |lengths: RangeInclusive<usize>| {
            let all = numbers.clone().map(|number| terms.term(number));
            all.filter(move |term| lengths.contains(&term.len()))
        };
        Self {
            short: ShortTerms::new(numbers.clone().map(|number| (terms.term(number), number))),
            three_bytes: PrefixFilter::new(3, with_length(3..=usize::MAX)),
            of_three_bytes: table_of(3),
            four_bytes: PrefixFilter::new(4, with_length(4..=usize::MAX)),
            of_four_to_seven_bytes: (4..LOADED_BYTES).filter_map(table_of).collect(),
            long: table_of(LOADED_BYTES),
            longest_prefixes: longest_prefixes(&terms),
            terms,
        }
    }

    /// The terms.
    pub(super) fn terms(&self) -> &TermSet {
        &self.terms
    }

    /// Calls `visit(start, hits)` for each block of `text` with the block's offset and all occurrences that start
    /// in it, in no particular order.
    pub(super) fn find(
        &self,
        text: &[u8],
        buffers: &mut FinderBuffers,
        mut visit: impl FnMut(usize, &[TermHit]),
    ) {
        for start in (0..text.len()).step_by(BLOCK_BYTES) {
            buffers.hits.clear();
            self.find_in_block(&text[start..], buffers);
            visit(start, &buffers.hits);
        }
    }

    /// Appends the occurrences that start in the first [`BLOCK_BYTES`] bytes of `text` to `buffers.hits`.
    fn find_in_block(&self, text: &[u8], buffers: &mut FinderBuffers) {
        let FinderBuffers {
            bytes,
            short_or_four,
            three,
            passed,
            candidates,
            hits,
        } = buffers;
        // At the end of the text, the bytes of an earlier block follow it. They can only yield offsets too
        // close to the end, which `FinderBlock::with_space_for` removes.
        let n = text.len().min(bytes.len());
        bytes[..n].copy_from_slice(&text[..n]);
        let block = FinderBlock { text, bytes };
        let (n_short, n_three) = self.filter_all(block, short_or_four, three);
        self.put_short(block, &short_or_four[..n_short], hits);
        let three = &three[..n_three];
        let n_four = put_passed(&self.four_bytes, block, three, short_or_four);
        let four = &short_or_four[..n_four];
        if let Some(table) = &self.of_three_bytes {
            put_hits(table, block, three, passed, hits);
        }
        for table in &self.of_four_to_seven_bytes {
            put_hits(table, block, four, passed, hits);
        }
        if let Some(table) = &self.long {
            put_candidates(table, block, four, passed, candidates);
            self.put_long(block, candidates, hits);
        }
    }

    /// Writes the offsets of the block where a term of one or two bytes may start to `short`, and those where a longer
    /// term may start to `longer`. Returns how many there are of each.
    #[inline(never)] // inlined, the loop's variables do not all fit the registers
    fn filter_all(
        &self,
        block: FinderBlock<'_>,
        short: &mut [u16; BLOCK_BYTES],
        longer: &mut [u16; BLOCK_BYTES],
    ) -> (usize, usize) {
        let (mut n_short, mut n_longer) = (0, 0);
        let windows = block
            .bytes
            .windows(LOADED_BYTES)
            .take(block.text.len().min(BLOCK_BYTES));
        for (bytes, offset) in windows.zip(0_u16..) {
            let loaded = u64::from_le_bytes(*bytes.first_chunk().unwrap_or(&[0; LOADED_BYTES]));
            short[n_short] = offset;
            n_short += self.short.bit(loaded) as usize;
            longer[n_longer] = offset;
            n_longer += self.three_bytes.bit(loaded) as usize;
        }
        (n_short, n_longer)
    }

    /// Appends the occurrences of terms of one and two bytes at `offsets`.
    fn put_short(&self, block: FinderBlock<'_>, offsets: &[u16], hits: &mut Vec<TermHit>) {
        if self.short.has_one_byte() {
            let loads = block.load(offsets);
            put_terms(loads, |loaded| self.short.of_one_byte(loaded), hits);
        }
        let loads = block.load(block.with_space_for(offsets, 2));
        put_terms(loads, |loaded| self.short.of_two_bytes(loaded), hits);
    }

    /// Appends the occurrences of the candidates' terms.
    fn put_long(
        &self,
        block: FinderBlock<'_>,
        candidates: &[LongCandidate],
        hits: &mut Vec<TermHit>,
    ) {
        for candidate in candidates {
            let LongCandidate { offset, start, end } = *candidate;
            let text = &block.text[usize::from(offset)..];
            // A term that is a prefix of the text is also a prefix of every term that sorts between it and the text.
            // So all matches are in the chain of longest prefixes of the last term that is not above the text.
            let mut term = match end - start {
                1 => start,
                _ => self.last_not_above(start..end, text),
            };
            while term != NONE {
                if text.starts_with(self.terms.term(term)) {
                    hits.push(TermHit { term, offset });
                }
                term = self.longest_prefixes[term as usize];
            }
        }
    }

    /// The last term of `range` that sorts before `text` or is equal to it, or [`NONE`].
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

/// For each term of eight bytes or more, the longest other one that is a prefix of it, or [`NONE`]. Prefixes of fewer
/// than eight bytes do not count: they are found by their own tables.
fn longest_prefixes(terms: &TermSet) -> Vec<u32> {
    // The prefixes of the last term, and that term, by ascending length. As terms are sorted, a term that is not a
    // prefix of the next one is not a prefix of any later one.
    let mut prefixes: Vec<u32> = Vec::new();
    let mut longest = vec![NONE; terms.len()];
    for number in 0..terms.len() as u32 {
        let term = terms.term(number);
        if term.len() < LOADED_BYTES {
            continue;
        }
        while prefixes
            .last()
            .is_some_and(|last| !term.starts_with(terms.term(*last)))
        {
            prefixes.pop();
        }
        longest[number as usize] = prefixes.last().copied().unwrap_or(NONE);
        prefixes.push(number);
    }
    longest
}

/// An occurrence of a term in a block.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct TermHit {
    pub(super) term: u32,
    /// Offset of the occurrence in its block.
    pub(super) offset: u16,
}

/// An offset of a block whose next eight bytes are the prefix of the terms from `start` to `end`.
#[derive(Debug, Clone, Copy, Default)]
struct LongCandidate {
    offset: u16,
    start: u32,
    end: u32,
}

/// Buffers that are reused from block to block.
#[derive(Debug)]
pub(super) struct FinderBuffers {
    /// A copy of the block, and of the following bytes that are loaded with its last bytes.
    bytes: Box<[u8; BLOCK_BYTES + LOADED_BYTES]>,
    /// Offsets where a term of one or two bytes may start; later those where a term of four bytes or more may.
    short_or_four: Box<[u16; BLOCK_BYTES]>,
    /// Offsets where a term of three bytes or more may start.
    three: Box<[u16; BLOCK_BYTES]>,
    /// Offsets that passed the filter of one table.
    passed: Box<[u16; BLOCK_BYTES]>,
    candidates: Vec<LongCandidate>,
    hits: Vec<TermHit>,
}

impl Default for FinderBuffers {
    fn default() -> Self {
        let offsets = || Box::new([0; BLOCK_BYTES]);
        Self {
            bytes: Box::new([0; BLOCK_BYTES + LOADED_BYTES]),
            short_or_four: offsets(),
            three: offsets(),
            passed: offsets(),
            candidates: Vec::new(),
            hits: Vec::new(),
        }
    }
}

/// A block of a text.
#[derive(Clone, Copy)]
struct FinderBlock<'a> {
    /// The text from the start of the block.
    text: &'a [u8],
    /// The bytes of the block and eight more. Arbitrary after the end of the text.
    bytes: &'a [u8; BLOCK_BYTES + LOADED_BYTES],
}

impl<'a> FinderBlock<'a> {
    /// Each of `offsets`, and the eight bytes at it.
    #[inline]
    fn load(self, offsets: &'a [u16]) -> impl ExactSizeIterator<Item = (u16, u64)> + 'a {
        offsets.iter().map(move |offset| {
            // Offsets are below `BLOCK_BYTES`. The remainder tells the compiler, which then checks no bounds.
            let bytes = self.bytes[usize::from(*offset) % BLOCK_BYTES..].first_chunk();
            (
                *offset,
                u64::from_le_bytes(*bytes.unwrap_or(&[0; LOADED_BYTES])),
            )
        })
    }

    /// The ascending `offsets` without those at the end that have fewer than `n_bytes` bytes of text after them.
    fn with_space_for(self, offsets: &[u16], n_bytes: usize) -> &[u16] {
        let is_too_close = |offset: &&u16| usize::from(**offset) + n_bytes > self.text.len();
        let n = offsets.iter().rev().take_while(is_too_close).count();
        &offsets[..offsets.len() - n]
    }
}

/// Writes the offsets that pass the filter to `passed`. Returns how many there are.
fn put_passed(
    filter: &PrefixFilter,
    block: FinderBlock<'_>,
    offsets: &[u16],
    passed: &mut [u16; BLOCK_BYTES],
) -> usize {
    let mut n = 0;
    for (offset, loaded) in block.load(offsets) {
        passed[n] = offset;
        n += filter.bit(loaded) as usize;
    }
    n
}

/// Appends a hit for each offset for which `term` returns a term.
#[inline]
fn put_terms(
    loads: impl ExactSizeIterator<Item = (u16, u64)>,
    term: impl Fn(u64) -> u32,
    hits: &mut Vec<TermHit>,
) {
    let mut n = hits.len();
    hits.resize(n + loads.len(), TermHit::default());
    for (offset, loaded) in loads {
        let term = term(loaded);
        hits[n] = TermHit { term, offset };
        n += usize::from(term != NONE);
    }
    hits.truncate(n);
}

/// Appends the occurrences at `offsets` of the terms of a table whose prefixes are whole terms.
fn put_hits(
    table: &PrefixTable,
    block: FinderBlock<'_>,
    offsets: &[u16],
    passed: &mut [u16; BLOCK_BYTES],
    hits: &mut Vec<TermHit>,
) {
    let n = put_passed(&table.filter, block, offsets, passed);
    let passed = block.with_space_for(&passed[..n], table.prefix_bytes);
    let term = |loaded| match table.range(loaded) {
        (term, end) if term != end => term,
        _ => NONE,
    };
    put_terms(block.load(passed), term, hits);
}

/// Replaces `candidates` by the offsets whose next eight bytes are a prefix of the table.
fn put_candidates(
    table: &PrefixTable,
    block: FinderBlock<'_>,
    offsets: &[u16],
    passed: &mut [u16; BLOCK_BYTES],
    candidates: &mut Vec<LongCandidate>,
) {
    let n_passed = put_passed(&table.filter, block, offsets, passed);
    let passed = block.with_space_for(&passed[..n_passed], table.prefix_bytes);
    candidates.clear();
    candidates.resize(passed.len(), LongCandidate::default());
    let mut n = 0;
    for (offset, loaded) in block.load(passed) {
        let (start, end) = table.range(loaded);
        candidates[n] = LongCandidate { offset, start, end };
        n += usize::from(start != end);
    }
    candidates.truncate(n);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    proptest! {
        #[test]
        fn equals_a_naive_search(
            text in vec(0_u8..3, 0..200),
            parts in vec((0_usize..200, 1_usize..40), 0..20),
            others in vec(vec(0_u8..3, 1..20), 0..9),
        ) {
            let part = |(start, n): (usize, usize)| text.get(start..(start + n).min(text.len()));
            let parts = parts.into_iter().filter_map(part).map(<[u8]>::to_vec);
            let mut terms: Vec<Vec<u8>> = parts.chain(others).collect();
            terms.retain(|term| !term.is_empty());
            terms.sort_unstable();
            terms.dedup();
            let mut expected = Vec::new();
            for offset in 0..text.len() {
                let here = terms.iter().enumerate().filter(|(_, term)| text[offset..].starts_with(term));
                expected.extend(here.map(|(term, _)| (offset, term)));
            }
            let terms: Vec<&[u8]> = terms.iter().map(Vec::as_slice).collect();
            let finder = Finder::new(TermSet::new(&terms).unwrap().0);
            let mut found = Vec::new();
            finder.find(&text, &mut FinderBuffers::default(), |start, hits| {
                found.extend(hits.iter().map(|hit| (start + usize::from(hit.offset), hit.term as usize)));
            });
            found.sort_unstable();
            prop_assert_eq!(found, expected);
        }
    }
}
