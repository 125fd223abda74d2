//! Counts the n-grams that start in one run of tokens: those of each first token by what follows it, as one number.
//!
//! The first tokens are cut into ranges of about as many n-grams each. A range is one pass over the tokens that
//! puts what follows each first token into that token's room, then counts room after room. So memory is that of a
//! range, and ranges are independent of each other.

use std::ops::Range;

use super::{
    in_order::in_order,
    key::Key,
    runs,
    tally::{Counted, Tally},
    windows::{Cut, Windows},
};
use crate::{Result, progress::Progress, tokens::TokenSource};

/// Ranges of first tokens at most where none is much more frequent than the others: each is one more pass.
const MOST_RANGES: u64 = 8;

/// Fewer n-grams than this make no range of their own.
const MIN_RANGE: u64 = 1 << 16;

/// Bytes of an id in a run's key: big-endian, so that keys sort as their ids.
pub(super) const ID_BYTES: usize = 4;

/// How the tokens, and the group below them, lie in a key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    pub(super) n: usize,
    /// Bits of an id.
    pub(super) id_bits: u32,
    /// Bits of a group's number; 0 for one group.
    pub(super) group_bits: u32,
}

impl Layout {
    /// Bits of a key: the tokens behind the first one, and the group.
    pub(super) fn bits(self) -> u32 {
        (self.n as u32 - 1) * self.id_bits + self.group_bits
    }
}

/// Bytes that counting needs for each n-gram of a range, at most.
fn bytes_per_token<K: Key>(n: usize) -> u64 {
    // Keys, and what was counted, were all of them different.
    (size_of::<K>() + ID_BYTES * n + 4) as u64
}

/// Tokens that a chunk has at most in so much memory: half of it is for ranges, a part for each thread.
pub(super) fn most_tokens<K: Key>(n: usize, memory: u64) -> u64 {
    MOST_RANGES * memory / (2 * bytes_per_token::<K>(n))
}

/// Memory of a thread that is used again.
struct Desk<K> {
    keys: Vec<K>,
    tally: Tally<K>,
    /// Where the room of each first token of the range goes on.
    places: Vec<u32>,
}

impl<K> Default for Desk<K> {
    fn default() -> Self {
        Self {
            keys: Vec::new(),
            tally: Tally::default(),
            places: Vec::new(),
        }
    }
}

/// How the n-grams that start in one run of tokens will be counted.
pub(super) struct Plan<'a, S> {
    windows: &'a Windows<'a, S>,
    layout: Layout,
    cut: Cut,
    n_threads: usize,
    /// How many n-grams start with each id.
    firsts: Vec<u32>,
    ranges: Vec<Range<usize>>,
}

impl<'a, S: TokenSource> Plan<'a, S> {
    /// Looks at the first tokens; `cut` has fewer than 2^32.
    pub(super) fn new<K: Key>(
        windows: &'a Windows<'a, S>,
        layout: Layout,
        cut: Cut,
        (n_threads, memory): (usize, u64),
    ) -> Result<Self> {
        let firsts = first_tokens(windows, layout, cut, n_threads)?;
        let most = memory / (2 * n_threads as u64 * bytes_per_token::<K>(layout.n));
        let ranges = ranges(&firsts, n_threads, most);
        Ok(Self {
            windows,
            layout,
            cut,
            n_threads,
            firsts,
            ranges,
        })
    }

    /// Tokens at which the n-grams start.
    pub(super) fn n_tokens(&self) -> u64 {
        self.cut.n_tokens
    }

    /// Bytes that counting needs at most.
    pub(super) fn n_bytes<K: Key>(&self) -> u64 {
        let range = self.ranges.iter().map(|range| self.n_grams(range)).max();
        let of_range = range.unwrap_or(0) * bytes_per_token::<K>(self.layout.n);
        let first = self.firsts.iter().copied().max().unwrap_or(0);
        (of_range + u64::from(first) * Tally::<K>::BYTES_PER_KEY as u64) * self.n_threads as u64
    }

    fn n_grams(&self, range: &Range<usize>) -> u64 {
        let firsts = self.firsts[range.clone()].iter();
        firsts.map(|n| u64::from(*n)).sum()
    }

    /// Gives the n-grams with their counts to `sink` as sorted records, part by part.
    pub(super) fn count<K: Key>(
        &self,
        progress: &Progress,
        sink: impl FnMut(Vec<u8>) -> Result<()>,
    ) -> Result<()> {
        let work = |number: usize, desk: &mut Desk<K>| {
            let range = self.ranges[number].clone();
            let n = self.n_grams(&range);
            let counted = match (self.layout.n, self.layout.group_bits) {
                (1, 0) => singles(&self.firsts, range),
                _ => in_range(
                    self.windows,
                    self.layout,
                    self.cut,
                    (range, &self.firsts),
                    desk,
                )?,
            };
            progress.advance(n)?;
            Ok(counted)
        };
        in_order(self.ranges.len(), self.n_threads, work, sink)
    }
}

/// How many n-grams start with each id.
fn first_tokens<S: TokenSource>(
    windows: &Windows<'_, S>,
    layout: Layout,
    cut: Cut,
    n_threads: usize,
) -> Result<Vec<u32>> {
    let n_ids = 1 << layout.id_bits;
    let parts = split(windows.source, cut, n_threads)?;
    let work = |number: usize, _: &mut ()| {
        let mut firsts = vec![0_u32; n_ids];
        windows.each(parts[number], |tokens, n_starts, _| {
            tokens[..n_starts]
                .iter()
                .for_each(|id| firsts[*id as usize] += 1);
            Ok(())
        })?;
        Ok(firsts)
    };
    let mut all = vec![0; n_ids];
    in_order(parts.len(), n_threads, work, |firsts| {
        all.iter_mut().zip(firsts).for_each(|(sum, n)| *sum += n);
        Ok(())
    })?;
    Ok(all)
}

/// A run of tokens in so many runs.
fn split(source: &impl TokenSource, cut: Cut, n_parts: usize) -> Result<Vec<Cut>> {
    let each = cut.n_tokens.div_ceil(n_parts as u64);
    let Cut {
        mut document,
        mut token,
        n_tokens: mut left,
    } = cut;
    let mut parts = Vec::new();
    while left > 0 {
        let n_tokens = each.min(left);
        parts.push(Cut {
            document,
            token,
            n_tokens,
        });
        left -= n_tokens;
        token += n_tokens;
        while left > 0 && token >= source.document_length(document)? {
            token -= source.document_length(document)?;
            document += 1;
        }
    }
    Ok(parts)
}

/// Ids cut into ranges with about as many n-grams each, `most` of them if need be; at least one for each thread.
fn ranges(firsts: &[u32], n_threads: usize, most: u64) -> Vec<Range<usize>> {
    let total: u64 = firsts.iter().map(|n| u64::from(*n)).sum();
    let n_ranges = total
        .div_ceil(most.max(MIN_RANGE))
        .next_multiple_of(n_threads as u64);
    let each = total.div_ceil(n_ranges.max(1)).max(MIN_RANGE);
    let (mut ranges, mut first, mut n) = (Vec::new(), 0, 0);
    for (id, n_starting) in firsts.iter().enumerate() {
        n += u64::from(*n_starting);
        if n >= each || id + 1 == firsts.len() {
            ranges.push(first..id + 1);
            (first, n) = (id + 1, 0);
        }
    }
    ranges
}

/// The records of single tokens, of one group.
fn singles(firsts: &[u32], range: Range<usize>) -> Vec<u8> {
    let mut out = Vec::new();
    for id in range.filter(|id| firsts[*id] > 0) {
        runs::put(
            &mut out,
            &(id as u32).to_be_bytes(),
            0,
            u64::from(firsts[id]),
        );
    }
    out
}

/// The records of the n-grams that start with the ids of a range.
fn in_range<K: Key, S: TokenSource>(
    windows: &Windows<'_, S>,
    layout: Layout,
    cut: Cut,
    (range, firsts): (Range<usize>, &[u32]),
    desk: &mut Desk<K>,
) -> Result<Vec<u8>> {
    let firsts = &firsts[range.clone()];
    desk.furnish(firsts);
    windows.each(cut, |tokens, n_starts, group| {
        desk.distribute((tokens, n_starts, group), layout, range.start);
        Ok(())
    })?;
    let mut out = Vec::new();
    let mut start = 0;
    for (first, n) in range.zip(firsts).filter(|(_, n)| **n > 0) {
        let end = start + *n as usize;
        let counted = desk.tally.count(&mut desk.keys[start..end], layout.bits());
        put_counts(&mut out, first as u32, counted, layout);
        start = end;
    }
    Ok(out)
}

impl<K: Key> Desk<K> {
    /// Makes rooms for n-grams, of which so many start with each id of the range.
    fn furnish(&mut self, firsts: &[u32]) {
        self.places.clear();
        let mut start = 0;
        for n_starting in firsts {
            self.places.push(start);
            start += n_starting;
        }
        if self.keys.len() < start as usize {
            self.keys.resize(start as usize, K::default());
        }
    }

    /// Puts the keys of n-grams whose first token is of the range into their rooms.
    fn distribute(
        &mut self,
        (tokens, n_starts, group): (&[u32], usize, u32),
        layout: Layout,
        first_id: usize,
    ) {
        let Layout { n, id_bits, .. } = layout;
        let (mask, full) = (K::mask((n as u32 - 1) * id_bits), K::mask(layout.bits()));
        let Some((ahead, last)) = tokens.split_at_checked(n - 1) else {
            return;
        };
        let mut key = K::default();
        for token in ahead {
            key = key.push(id_bits, *token, mask);
        }
        for (first, last) in tokens[..n_starts].iter().zip(last) {
            key = key.push(id_bits, *last, mask);
            let Some(place) = self
                .places
                .get_mut((*first as usize).wrapping_sub(first_id))
            else {
                continue;
            };
            self.keys[*place as usize] = match layout.group_bits {
                0 => key,
                bits => key.push(bits, group, full),
            };
            *place += 1;
        }
    }
}

/// Appends a record for each key.
fn put_counts<K: Key>(out: &mut Vec<u8>, first: u32, counted: &[Counted<K>], layout: Layout) {
    let Layout {
        n,
        id_bits,
        group_bits,
    } = layout;
    let mut key_bytes = vec![0; n * ID_BYTES];
    key_bytes[..ID_BYTES].copy_from_slice(&first.to_be_bytes());
    for Counted { key, count } in counted {
        for (i, bytes) in key_bytes.chunks_exact_mut(ID_BYTES).enumerate().skip(1) {
            let at = group_bits + (n as u32 - 1 - i as u32) * id_bits;
            bytes.copy_from_slice(&key.bits(at, id_bits).to_be_bytes());
        }
        let group = key.bits(0, group_bits);
        runs::put(out, &key_bytes, group, u64::from(*count));
    }
}
