//! Counts the n-grams that start in a chunk, which is a run of tokens.
//!
//! The n-grams with the same first token are counted together, each by a packed key of its other tokens. First
//! tokens are divided into ranges with about the same number of n-grams. For each range, one pass over the chunk
//! writes the keys to a buffer, grouped by first token; then the keys of each first token are counted. So counting
//! takes the memory of one range per thread, and threads count ranges independently.

use std::ops::Range;

use super::{
    in_order::in_order,
    key_counter::{KeyCount, KeyCounter},
    packed_key::PackedKey,
    runs,
    token_windows::{TokenRun, TokenWindow, TokenWindows},
};
use crate::{Result, progress::Progress, tokens::TokenSource};

/// Maximum ranges of a chunk if no first token is much more frequent than the others. Each range is one more pass
/// over the chunk.
const MAX_RANGES: u64 = 8;

/// Minimum n-grams of a range. The pass over the chunk would cost more than counting fewer.
const MIN_RANGE_NGRAMS: u64 = 1 << 16;

/// Bytes of an id in the key of a record. Ids are big-endian, so that keys sort as the ids do.
pub(super) const ID_BYTES: usize = 4;

/// The layout of a packed key: the tokens of an n-gram after the first one, and in the low bits the group.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyLayout {
    /// Tokens of the n-gram, the first one included.
    pub(super) n: usize,
    /// Bits of an id.
    pub(super) id_bits: u32,
    /// Bits of a group's number; 0 if there is one group.
    pub(super) group_bits: u32,
}

impl KeyLayout {
    /// Bits of a key. `n` must be so small that they do not overflow.
    pub(super) fn bits(self) -> u32 {
        (self.n as u32 - 1) * self.id_bits + self.group_bits
    }
}

/// The resources that counting may use.
#[derive(Debug, Clone, Copy)]
pub(super) struct CountLimits {
    /// At least 1.
    pub(super) n_threads: usize,
    /// Bytes.
    pub(super) memory: u64,
}

/// Bytes that counting takes for each n-gram of a range: a key and, if all n-grams differ, a record.
fn bytes_per_ngram<K: PackedKey>(n: usize) -> u64 {
    // A record has about 4 bytes besides its key.
    (size_of::<K>() + ID_BYTES * n + 4) as u64
}

/// Maximum tokens of a chunk for `memory` bytes: half of the memory is for the keys and records of ranges, of which
/// there are up to [`MAX_RANGES`].
pub(super) fn max_tokens<K: PackedKey>(n: usize, memory: u64) -> u64 {
    MAX_RANGES.saturating_mul(memory) / (2 * bytes_per_ngram::<K>(n))
}

/// Buffers of a thread that are reused from range to range.
struct CountBuffers<K> {
    /// The keys of the n-grams of a range, grouped by first token.
    keys: Vec<K>,
    counter: KeyCounter<K>,
    /// For each first token of the range, the index in `keys` of its next key.
    next_keys: Vec<u32>,
}

impl<K> Default for CountBuffers<K> {
    fn default() -> Self {
        Self {
            keys: Vec::new(),
            counter: KeyCounter::default(),
            next_keys: Vec::new(),
        }
    }
}

/// The ranges of first tokens in which the n-grams of a chunk are counted.
pub(super) struct ChunkPlan<'a, S> {
    windows: &'a TokenWindows<'a, S>,
    layout: KeyLayout,
    chunk: TokenRun,
    n_threads: usize,
    /// For each id, how many n-grams start with it.
    n_by_first: Vec<u32>,
    /// Ranges of ids.
    ranges: Vec<Range<usize>>,
}

impl<'a, S: TokenSource> ChunkPlan<'a, S> {
    /// Plans the ranges by one pass over the chunk, which must have fewer than 2^32 tokens.
    pub(super) fn new<K: PackedKey>(
        windows: &'a TokenWindows<'a, S>,
        layout: KeyLayout,
        chunk: TokenRun,
        limits: CountLimits,
    ) -> Result<Self> {
        let n_threads = limits.n_threads;
        let n_by_first = count_first_tokens(windows, layout, chunk, n_threads)?;
        let max_ngrams = limits.memory / (2 * n_threads as u64 * bytes_per_ngram::<K>(layout.n));
        let ranges = divide_ids(&n_by_first, n_threads, max_ngrams);
        Ok(Self {
            windows,
            layout,
            chunk,
            n_threads,
            n_by_first,
            ranges,
        })
    }

    /// Tokens of the chunk.
    pub(super) fn n_tokens(&self) -> u64 {
        self.chunk.n_tokens
    }

    /// Estimated bytes that counting takes, if all n-grams differ.
    pub(super) fn n_bytes<K: PackedKey>(&self) -> u64 {
        let largest_range = self.ranges.iter().map(|range| self.n_ngrams(range)).max();
        let range_bytes = largest_range.unwrap_or(0) * bytes_per_ngram::<K>(self.layout.n);
        let most_frequent = self.n_by_first.iter().copied().max().unwrap_or(0);
        let counter_bytes = u64::from(most_frequent) * KeyCounter::<K>::BYTES_PER_KEY as u64;
        (range_bytes + counter_bytes) * self.n_threads as u64
    }

    /// N-grams whose first token is in `range`.
    fn n_ngrams(&self, range: &Range<usize>) -> u64 {
        let n_by_first = self.n_by_first[range.clone()].iter();
        n_by_first.map(|n| u64::from(*n)).sum()
    }

    /// Counts the n-grams. Calls `sink` with the records of each range, so that all records are sorted.
    pub(super) fn count<K: PackedKey>(
        &self,
        progress: &Progress,
        sink: impl FnMut(Vec<u8>) -> Result<()>,
    ) -> Result<()> {
        let work = |number: usize, buffers: &mut CountBuffers<K>| {
            let range = self.ranges[number].clone();
            let n = self.n_ngrams(&range);
            let records = match (self.layout.n, self.layout.group_bits) {
                // The counts of single tokens are known from the plan.
                (1, 0) => self.unigram_records(range),
                _ => self.count_range(range, buffers)?,
            };
            progress.advance(n)?;
            Ok(records)
        };
        in_order(self.ranges.len(), self.n_threads, work, sink)
    }

    /// The records of the single tokens of a range, if there is one group.
    fn unigram_records(&self, range: Range<usize>) -> Vec<u8> {
        let mut out = Vec::new();
        for id in range.filter(|id| self.n_by_first[*id] > 0) {
            let count = u64::from(self.n_by_first[id]);
            runs::put_record(&mut out, &(id as u32).to_be_bytes(), 0, count);
        }
        out
    }

    /// The records of the n-grams whose first token is in `range`.
    fn count_range<K: PackedKey>(
        &self,
        range: Range<usize>,
        buffers: &mut CountBuffers<K>,
    ) -> Result<Vec<u8>> {
        let n_by_first = &self.n_by_first[range.clone()];
        buffers.prepare(n_by_first);
        self.windows.for_each(self.chunk, |window| {
            buffers.put_keys(window, self.layout, range.start);
            Ok(())
        })?;
        let mut out = Vec::new();
        let mut start = 0;
        for (first, n) in range.zip(n_by_first).filter(|(_, n)| **n > 0) {
            let end = start + *n as usize;
            let keys = &mut buffers.keys[start..end];
            let counts = buffers.counter.count(keys, self.layout.bits());
            put_records(&mut out, first as u32, counts, self.layout);
            start = end;
        }
        Ok(out)
    }
}

/// How many n-grams start with each id.
fn count_first_tokens<S: TokenSource>(
    windows: &TokenWindows<'_, S>,
    layout: KeyLayout,
    chunk: TokenRun,
    n_threads: usize,
) -> Result<Vec<u32>> {
    let n_ids = 1 << layout.id_bits;
    let parts = split(windows.source, chunk, n_threads)?;
    let work = |number: usize, _: &mut ()| {
        let mut n_by_first = vec![0_u32; n_ids];
        windows.for_each(parts[number], |window| {
            window.tokens[..window.n_starts]
                .iter()
                .for_each(|id| n_by_first[*id as usize] += 1);
            Ok(())
        })?;
        Ok(n_by_first)
    };
    let mut sums = vec![0; n_ids];
    in_order(parts.len(), n_threads, work, |n_by_first| {
        sums.iter_mut()
            .zip(n_by_first)
            .for_each(|(sum, n)| *sum += n);
        Ok(())
    })?;
    Ok(sums)
}

/// Splits a run of tokens into up to `n_parts` runs of the same length, of which the last may be shorter.
fn split(source: &impl TokenSource, run: TokenRun, n_parts: usize) -> Result<Vec<TokenRun>> {
    let part_tokens = run.n_tokens.div_ceil(n_parts as u64);
    let TokenRun {
        mut document,
        mut token,
        n_tokens: mut n_remaining,
    } = run;
    let mut parts = Vec::new();
    while n_remaining > 0 {
        let n_tokens = part_tokens.min(n_remaining);
        parts.push(TokenRun {
            document,
            token,
            n_tokens,
        });
        n_remaining -= n_tokens;
        token += n_tokens;
        while n_remaining > 0 && token >= source.document_length(document)? {
            token -= source.document_length(document)?;
            document += 1;
        }
    }
    Ok(parts)
}

/// Divides the ids into ranges with about the same number of n-grams, which is about `max_ngrams` at most. There is
/// at least one range per thread, unless the ranges would be smaller than [`MIN_RANGE_NGRAMS`].
fn divide_ids(n_by_first: &[u32], n_threads: usize, max_ngrams: u64) -> Vec<Range<usize>> {
    let total: u64 = n_by_first.iter().map(|n| u64::from(*n)).sum();
    let n_ranges = total
        .div_ceil(max_ngrams.max(MIN_RANGE_NGRAMS))
        .next_multiple_of(n_threads as u64);
    let range_ngrams = total.div_ceil(n_ranges.max(1)).max(MIN_RANGE_NGRAMS);
    let (mut ranges, mut start, mut n) = (Vec::new(), 0, 0);
    for (id, n_starting) in n_by_first.iter().enumerate() {
        n += u64::from(*n_starting);
        if n >= range_ngrams || id + 1 == n_by_first.len() {
            ranges.push(start..id + 1);
            (start, n) = (id + 1, 0);
        }
    }
    ranges
}

impl<K: PackedKey> CountBuffers<K> {
    /// Reserves space for the keys of a range, of whose ids `n_by_first` n-grams each start.
    fn prepare(&mut self, n_by_first: &[u32]) {
        self.next_keys.clear();
        let mut start = 0;
        for n in n_by_first {
            self.next_keys.push(start);
            start += n;
        }
        if self.keys.len() < start as usize {
            self.keys.resize(start as usize, K::default());
        }
    }

    /// Writes the keys of the window's n-grams whose first token is in the range, which starts at `first_id`.
    fn put_keys(&mut self, window: TokenWindow<'_>, layout: KeyLayout, first_id: usize) {
        let KeyLayout { n, id_bits, .. } = layout;
        let (mask, mask_with_group) = (K::mask((n as u32 - 1) * id_bits), K::mask(layout.bits()));
        let Some((before_last, last)) = window.tokens.split_at_checked(n - 1) else {
            return;
        };
        // The key slides over the tokens: each push adds the last token of an n-gram, and the mask removes the
        // first one. For the first n-gram, all but the last token are pushed here.
        let mut key = K::default();
        for token in before_last {
            key = key.push(id_bits, *token, mask);
        }
        for (first, last) in window.tokens[..window.n_starts].iter().zip(last) {
            key = key.push(id_bits, *last, mask);
            // An id below the range wraps to an index beyond it.
            let index = (*first as usize).wrapping_sub(first_id);
            let Some(next) = self.next_keys.get_mut(index) else {
                continue;
            };
            self.keys[*next as usize] = match layout.group_bits {
                0 => key,
                bits => key.push(bits, window.group, mask_with_group),
            };
            *next += 1;
        }
    }
}

/// Appends the records of the n-grams that start with `first`.
fn put_records<K: PackedKey>(
    out: &mut Vec<u8>,
    first: u32,
    counts: &[KeyCount<K>],
    layout: KeyLayout,
) {
    let KeyLayout {
        n,
        id_bits,
        group_bits,
    } = layout;
    let mut key_bytes = vec![0; n * ID_BYTES];
    key_bytes[..ID_BYTES].copy_from_slice(&first.to_be_bytes());
    for KeyCount { key, count } in counts {
        for (i, bytes) in key_bytes.chunks_exact_mut(ID_BYTES).enumerate().skip(1) {
            let at = group_bits + (n as u32 - 1 - i as u32) * id_bits;
            bytes.copy_from_slice(&key.bits(at, id_bits).to_be_bytes());
        }
        let group = key.bits(0, group_bits);
        runs::put_record(out, &key_bytes, group, u64::from(*count));
    }
}
