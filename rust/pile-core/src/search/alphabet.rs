//! The ids of a dataset in the order by which its suffixes are sorted.

use std::{collections::BTreeMap, ops::Range};

use rustc_hash::FxHashMap;

use crate::{
    tokenize::TokenBytes,
    tokens::{TokenDataset, TokenSource as _, TokenType},
};

/// Non-negative ids below this are looked up in an array, which then takes 16 MiB at most. All others are in
/// a hash map.
const MAX_DENSE_ID: usize = 1 << 22;

/// Marks an id of the array that does not occur.
const NO_RANK: u32 = u32::MAX;

/// The ids of a dataset, ordered by their bytes and then by id; by id alone if the bytes are not known.
///
/// The rank of an id is its index in this order.
#[derive(Debug, Default)]
pub struct Alphabet {
    /// The id of each rank.
    ids: Vec<i32>,
    /// Where the bytes of each rank start in `bytes`, then their end. Empty if the bytes are not known.
    starts: Vec<u32>,
    bytes: Vec<u8>,
    dense: Vec<u32>,
    sparse: FxHashMap<i32, u32>,
}

impl Alphabet {
    /// The alphabet of the ids that are keys of `counts`, in the order of their bytes in `table`.
    pub(super) fn new(counts: &BTreeMap<i32, u64>, table: Option<&TokenBytes>) -> Self {
        let mut ids: Vec<i32> = counts.keys().copied().collect();
        let (mut starts, mut bytes) = (Vec::new(), Vec::new());
        if let Some(table) = table {
            let decoded: FxHashMap<i32, Vec<u8>> = ids
                .iter()
                .map(|id| (*id, table.bytes(i64::from(*id)).to_vec()))
                .collect();
            // A stable sort leaves ids of equal bytes in the order of the ids.
            ids.sort_by(|a, b| decoded[a].cmp(&decoded[b]));
            starts.push(0);
            for id in &ids {
                bytes.extend(&decoded[id]);
                starts.push(bytes.len() as u32);
            }
        }
        Self::from_parts(ids, starts, bytes)
    }

    /// An alphabet from the ids by rank and their bytes, as [`Self::byte_table`] returns them.
    pub(super) fn from_parts(ids: Vec<i32>, starts: Vec<u32>, bytes: Vec<u8>) -> Self {
        let mut alphabet = Self {
            starts,
            bytes,
            ..Self::default()
        };
        for (rank, id) in (0..).zip(&ids) {
            match usize::try_from(*id) {
                Ok(index) if index < MAX_DENSE_ID => {
                    if alphabet.dense.len() <= index {
                        alphabet.dense.resize(index + 1, NO_RANK);
                    }
                    alphabet.dense[index] = rank;
                }
                _ => {
                    alphabet.sparse.insert(*id, rank);
                }
            }
        }
        alphabet.ids = ids;
        alphabet
    }

    /// Number of ids.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are no ids.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The ids by rank.
    #[must_use]
    pub fn ids(&self) -> &[i32] {
        &self.ids
    }

    /// The rank of an id; None if the id does not occur in the dataset.
    #[must_use]
    pub fn rank(&self, id: i32) -> Option<u32> {
        let dense = usize::try_from(id).ok().and_then(|id| self.dense.get(id));
        match dense {
            Some(rank) => Some(*rank).filter(|rank| *rank != NO_RANK),
            None => self.sparse.get(&id).copied(),
        }
    }

    /// Whether the bytes of the ids are known.
    #[must_use]
    pub fn has_bytes(&self) -> bool {
        !self.starts.is_empty()
    }

    /// The bytes that the id of a rank decodes to; empty if they are not known.
    #[must_use]
    pub fn bytes(&self, rank: u32) -> &[u8] {
        match self.starts.get(rank as usize..rank as usize + 2) {
            Some(&[start, end]) => &self.bytes[start as usize..end as usize],
            _ => &[],
        }
    }

    /// The bytes of all ranks: where each starts, then the end, and the concatenated bytes.
    pub(super) fn byte_table(&self) -> (&[u32], &[u8]) {
        (&self.starts, &self.bytes)
    }

    /// Whether every id decodes to the same bytes with `table`. False if the bytes are not known.
    #[must_use]
    pub fn decodes_as(&self, table: &TokenBytes) -> bool {
        let mut by_rank = (0..).zip(&self.ids);
        self.has_bytes()
            && by_rank.all(|(rank, id)| table.bytes(i64::from(*id)) == self.bytes(rank))
    }

    /// The ranks of ids that decode to no bytes. They sort first. Empty if the bytes are not known.
    pub(super) fn ranks_without_bytes(&self) -> Range<u32> {
        if !self.has_bytes() {
            return 0..0;
        }
        // A rank has no bytes if it and the next rank start at 0: one rank fewer than there are such starts.
        let n_zeros = self.starts.partition_point(|start| *start == 0);
        0..(n_zeros as u32).saturating_sub(1)
    }

    /// For each prefix of `text`, shortest first, the ranks whose bytes start with it: see [`prefix_ranges`].
    pub(super) fn prefix_ranges<'a>(
        &'a self,
        text: &'a [u8],
    ) -> impl Iterator<Item = PrefixRange> + 'a {
        prefix_ranges(0..self.len() as u32, |rank| self.bytes(rank), text)
    }

    /// Number of bytes of the longest id.
    pub(super) fn max_token_bytes(&self) -> usize {
        let lengths = self.starts.windows(2).map(|at| (at[1] - at[0]) as usize);
        lengths.max().unwrap_or(0)
    }
}

/// The strings of a sorted list that start with a prefix.
#[derive(Debug, Clone)]
pub(super) struct PrefixRange {
    /// All of them.
    pub(super) all: Range<u32>,
    /// The first one that is longer than the prefix; the end of `all` if there is none.
    pub(super) longer: u32,
}

impl PrefixRange {
    /// The strings that equal the prefix. They sort before the longer ones.
    pub(super) fn exact(&self) -> Range<u32> {
        self.all.start..self.longer
    }
}

/// For each prefix of `text` of one byte or more, shortest first, the strings in `range` that start with it.
/// Ends before the first prefix with which no string starts.
///
/// `bytes` returns the string of an index; the strings of `range` are sorted.
pub(super) fn prefix_ranges<'a>(
    mut range: Range<u32>,
    bytes: impl Fn(u32) -> &'a [u8] + 'a,
    text: &'a [u8],
) -> impl Iterator<Item = PrefixRange> + 'a {
    let narrowed = text.iter().enumerate().map(move |(at, byte)| {
        range = equal_range(range.clone(), |i| bytes(i).get(at).copied(), *byte);
        PrefixRange {
            all: range.clone(),
            longer: partition_point(range.clone(), |i| bytes(i).len() == at + 1),
        }
    });
    narrowed.take_while(|strings| !strings.all.is_empty())
}

/// The indices of `range` whose key is `byte`. The keys ascend, None first.
fn equal_range(range: Range<u32>, key: impl Fn(u32) -> Option<u8>, byte: u8) -> Range<u32> {
    let first = partition_point(range.clone(), |i| key(i) < Some(byte));
    first..partition_point(first..range.end, |i| key(i) <= Some(byte))
}

/// The first index of `range` for which `holds` is false, or the end of `range`. `holds` is true for all
/// indices before that one and false from it on.
pub(super) fn partition_point(range: Range<u32>, holds: impl Fn(u32) -> bool) -> u32 {
    let (mut low, mut high) = (range.start, range.end);
    while low < high {
        let middle = low + (high - low) / 2;
        if holds(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

/// Tokens counted at a time. A chunk that crosses the end of a shard is copied, and the others are read from
/// the map.
const CHUNK_TOKENS: u64 = 1 << 20;

/// How often each id of a dataset occurs.
pub(super) struct IdCounts {
    /// Occurrences in all documents.
    pub(super) total: BTreeMap<i32, u64>,
    /// Documents that end with the id.
    pub(super) as_last: BTreeMap<i32, u64>,
}

impl IdCounts {
    /// Counts the ids of a dataset.
    ///
    /// # Errors
    /// The dataset's tokens cannot be read.
    pub(super) fn new(dataset: &TokenDataset) -> crate::Result<Self> {
        let n_tokens = dataset.n_tokens();
        let chunks = (0..n_tokens)
            .step_by(CHUNK_TOKENS as usize)
            .map(|first| dataset.stored(first..n_tokens.min(first + CHUNK_TOKENS)));
        let mut total = BTreeMap::new();
        match dataset.token_type() {
            TokenType::U16 => {
                let mut by_id = vec![0_u64; 1 << 16];
                for chunk in chunks {
                    for token in chunk?.as_chunks::<2>().0 {
                        by_id[usize::from(u16::from_le_bytes(*token))] += 1;
                    }
                }
                total.extend((0..).zip(by_id).filter(|(_, n)| *n > 0));
            }
            TokenType::I32 => {
                let mut by_id: FxHashMap<i32, u64> = FxHashMap::default();
                for chunk in chunks {
                    for token in chunk?.as_chunks::<4>().0 {
                        *by_id.entry(i32::from_le_bytes(*token)).or_default() += 1;
                    }
                }
                total.extend(by_id);
            }
        }
        let mut as_last = BTreeMap::new();
        for document in 0..dataset.n_documents() {
            let range = dataset.token_range(document)?;
            if !range.is_empty() {
                let last = dataset.stored(range.end - 1..range.end)?;
                let id = dataset.token_type().decode(&last) as i32;
                *as_last.entry(id).or_default() += 1;
            }
        }
        Ok(Self { total, as_last })
    }

    /// The id that ends every document and occurs nowhere else, if there is one.
    pub(super) fn end_of_document(&self) -> Option<i32> {
        let mut last_ids = self.as_last.iter();
        match (last_ids.next(), last_ids.next()) {
            (Some((id, n)), None) if self.total.get(id) == Some(n) => Some(*id),
            _ => None,
        }
    }
}
