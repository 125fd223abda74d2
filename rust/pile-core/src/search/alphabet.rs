//! The ids that occur in a dataset, in the order by which its suffixes are sorted.

use std::{collections::BTreeMap, ops::Range};

use rustc_hash::FxHashMap;

use crate::{tokenize::TokenBytes, tokens::TokenDataset};

/// Ids below this have their rank in a table.
const DENSE: usize = 1 << 22;

const UNKNOWN: u32 = u32::MAX;

/// Ids by rank: ordered by their bytes, those of equal bytes by id; by id alone where no bytes are known.
#[derive(Debug, Default)]
pub struct Alphabet {
    ids: Vec<i32>,
    /// Where the bytes of each rank begin, and where the last ones end; empty where bytes are not known.
    starts: Vec<u32>,
    bytes: Vec<u8>,
    dense: Vec<u32>,
    sparse: FxHashMap<i32, u32>,
}

impl Alphabet {
    /// The ids of these counts, ordered by what they decode to.
    pub(super) fn new(counts: &BTreeMap<i32, u64>, table: Option<&TokenBytes>) -> Self {
        let mut ids: Vec<i32> = counts.keys().copied().collect();
        let (mut starts, mut bytes) = (Vec::new(), Vec::new());
        if let Some(table) = table {
            let spelt: FxHashMap<i32, Vec<u8>> =
                ids.iter().map(|id| (*id, bytes_of(table, *id))).collect();
            ids.sort_by(|a, b| spelt[a].cmp(&spelt[b]));
            starts.push(0);
            for id in &ids {
                bytes.extend(&spelt[id]);
                starts.push(bytes.len() as u32);
            }
        }
        Self::of_parts(ids, starts, bytes)
    }

    /// An alphabet of its ids by rank and their bytes.
    pub(super) fn of_parts(ids: Vec<i32>, starts: Vec<u32>, bytes: Vec<u8>) -> Self {
        let mut alphabet = Self {
            starts,
            bytes,
            ..Self::default()
        };
        for (rank, id) in (0..).zip(&ids) {
            match usize::try_from(*id) {
                Ok(place) if place < DENSE => {
                    if alphabet.dense.len() <= place {
                        alphabet.dense.resize(place + 1, UNKNOWN);
                    }
                    alphabet.dense[place] = rank;
                }
                _ => {
                    alphabet.sparse.insert(*id, rank);
                }
            }
        }
        alphabet.ids = ids;
        alphabet
    }

    /// Ids in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether no id occurs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The ids by rank.
    #[must_use]
    pub fn ids(&self) -> &[i32] {
        &self.ids
    }

    /// The place of an id in the order, if it occurs.
    #[must_use]
    pub fn rank(&self, id: i32) -> Option<u32> {
        let dense = usize::try_from(id).ok().and_then(|id| self.dense.get(id));
        match dense {
            Some(rank) => Some(*rank).filter(|rank| *rank != UNKNOWN),
            None => self.sparse.get(&id).copied(),
        }
    }

    /// Whether it is known what the ids decode to.
    #[must_use]
    pub fn has_bytes(&self) -> bool {
        !self.starts.is_empty()
    }

    /// What the id of a rank decodes to; nothing where that is not known.
    #[must_use]
    pub fn bytes(&self, rank: u32) -> &[u8] {
        match self.starts.get(rank as usize..rank as usize + 2) {
            Some(&[start, end]) => &self.bytes[start as usize..end as usize],
            _ => &[],
        }
    }

    /// Where the bytes of each rank begin, and all bytes.
    pub(super) fn spelling(&self) -> (&[u32], &[u8]) {
        (&self.starts, &self.bytes)
    }

    /// Whether every id decodes to the same in a tokenizer.
    #[must_use]
    pub fn is_of(&self, table: &TokenBytes) -> bool {
        let all = (0..).zip(&self.ids);
        self.has_bytes()
            && all
                .into_iter()
                .all(|(rank, id)| bytes_of(table, *id) == self.bytes(rank))
    }

    /// Ranks of ids that decode to nothing.
    pub(super) fn empty(&self) -> Range<u32> {
        if !self.has_bytes() {
            return 0..0;
        }
        let n = self.starts.partition_point(|start| *start == 0);
        0..(n as u32).saturating_sub(1)
    }

    /// The ranks that begin as a text does: see [`begun`].
    pub(super) fn begun<'a>(&'a self, text: &'a [u8]) -> impl Iterator<Item = Begun> + 'a {
        begun(0..self.len() as u32, |rank| self.bytes(rank), text)
    }

    /// Bytes of the longest id.
    pub(super) fn longest(&self) -> usize {
        let lengths = self.starts.windows(2).map(|at| (at[1] - at[0]) as usize);
        lengths.max().unwrap_or(0)
    }
}

/// Of sorted strings, those that begin with so many bytes of a text.
#[derive(Debug, Clone)]
pub(super) struct Begun {
    /// Those that begin so.
    pub(super) all: Range<u32>,
    /// The first of them that goes on; those before are these bytes and no more.
    pub(super) longer: u32,
}

impl Begun {
    /// Those that are these bytes and no more.
    pub(super) fn whole(&self) -> Range<u32> {
        self.all.start..self.longer
    }
}

/// Of sorted strings, those that begin with the first byte of a text, with its first two, and on while there are any.
pub(super) fn begun<'a>(
    mut of: Range<u32>,
    bytes: impl Fn(u32) -> &'a [u8] + 'a,
    text: &'a [u8],
) -> impl Iterator<Item = Begun> + 'a {
    let narrowed = text.iter().enumerate().map(move |(at, byte)| {
        of = narrow(of.clone(), |i| bytes(i).get(at).copied(), *byte);
        Begun {
            all: of.clone(),
            longer: partition_point(of.clone(), |i| bytes(i).len() == at + 1),
        }
    });
    narrowed.take_while(|begun| !begun.all.is_empty())
}

/// Of a sorted range, where the key is this byte; a missing one sorts first.
fn narrow(range: Range<u32>, key: impl Fn(u32) -> Option<u8>, byte: u8) -> Range<u32> {
    let first = partition_point(range.clone(), |i| key(i) < Some(byte));
    first..partition_point(first..range.end, |i| key(i) <= Some(byte))
}

/// The first of a range for which a predicate does not hold, where it holds up to some place.
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

fn bytes_of(table: &TokenBytes, id: i32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let (end, _) = table.decode([i64::from(id)].into_iter(), &mut bytes, 0);
    bytes.truncate(end);
    bytes
}

/// Tokens counted at once: only those of a shard's end are copied.
const CHUNK_TOKENS: u64 = 1 << 20;

/// How often each id occurs in all documents, and how often as the last of one.
pub(super) fn count_ids(
    dataset: &TokenDataset,
) -> crate::Result<(BTreeMap<i32, u64>, BTreeMap<i32, u64>)> {
    let (n_tokens, width) = (dataset.n_tokens(), dataset.token_type().n_bytes());
    let chunks = (0..n_tokens)
        .step_by(CHUNK_TOKENS as usize)
        .map(|first| dataset.stored(first..n_tokens.min(first + CHUNK_TOKENS)));
    let mut counts = BTreeMap::new();
    match dataset.token_type() {
        crate::tokens::TokenType::U16 => {
            let mut by_id = vec![0_u64; 1 << 16];
            for chunk in chunks {
                for token in chunk?.as_chunks::<2>().0 {
                    by_id[usize::from(u16::from_le_bytes(*token))] += 1;
                }
            }
            counts.extend((0..).zip(by_id).filter(|(_, n)| *n > 0));
        }
        crate::tokens::TokenType::I32 => {
            let mut by_id: FxHashMap<i32, u64> = FxHashMap::default();
            for chunk in chunks {
                for token in chunk?.as_chunks::<4>().0 {
                    *by_id.entry(i32::from_le_bytes(*token)).or_default() += 1;
                }
            }
            counts.extend(by_id);
        }
    }
    let mut lasts = BTreeMap::new();
    for document in 0..dataset.n_documents() {
        let range = dataset.token_range(document)?;
        if !range.is_empty() {
            let last = dataset.stored(range.end - 1..range.end)?;
            *lasts
                .entry(dataset.token_type().decode(&last[..width]) as i32)
                .or_default() += 1;
        }
    }
    Ok((counts, lasts))
}

use crate::tokens::TokenSource as _;
