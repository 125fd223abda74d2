//! Clusters of similar documents, and which of them are removed.
//!
//! A cluster is a connected component: A ~ B and B ~ C put C into the cluster of A even if the two are unlike. So
//! membership alone removes nothing. Documents are visited in the order of preference, and one is removed only if a
//! kept document that came before is verified to be similar to it.

use super::{bits::BitSet, exact::ExactGroups, ranks::Ranks, verify::VerifiedPair};
use crate::{Result, io::RecordFile};

/// No document.
const NONE: u32 = u32::MAX;

/// What becomes of a document of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Decision {
    /// It is kept.
    Kept = 0,
    /// It is removed.
    Removed = 1,
    /// It is kept because its cluster is too large.
    LeftAlone = 2,
}

/// How a removed document relates to the kept copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum DuplicateKind {
    /// The document is not removed.
    None = 0,
    /// The normalized texts are equal.
    Exact = 1,
    /// The shingles are similar.
    Near = 2,
    /// The signatures are similar. The kept copy is in an older corpus whose texts were not read.
    Estimate = 3,
}

/// The members of all clusters, by ascending number of document. Each vector has an element for each.
#[derive(Debug, Default, PartialEq)]
pub struct DuplicateRows {
    /// The number of the document.
    pub document: Vec<u32>,
    /// The index of its shard.
    pub shard: Vec<u32>,
    /// The number of its record in the shard.
    pub record: Vec<u64>,
    /// The smallest document of its cluster.
    pub cluster: Vec<u32>,
    /// Documents of its cluster.
    pub cluster_size: Vec<u32>,
    /// A [`Decision`].
    pub decision: Vec<u8>,
    /// The kept document to which a removed one is charged; otherwise the document itself.
    pub kept_copy: Vec<u32>,
    /// The similarity to the kept copy.
    pub similarity: Vec<f64>,
    /// A [`DuplicateKind`].
    pub kind: Vec<u8>,
}

impl DuplicateRows {
    /// Number of members.
    #[must_use]
    pub fn len(&self) -> usize {
        self.document.len()
    }

    /// Whether there are no clusters.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.document.is_empty()
    }
}

/// The clusters.
pub(super) struct Clusters {
    /// The smallest document of each document's cluster.
    pub(super) first: Vec<u32>,
    /// The size of each cluster, at its smallest document; 0 elsewhere.
    sizes: Vec<u32>,
}

impl Clusters {
    /// Joins documents of verified pairs and of exact groups.
    pub(super) fn new(
        groups: &ExactGroups,
        ranks: &Ranks,
        verified: Option<&RecordFile>,
    ) -> Result<Self> {
        let mut forest = Forest::new(groups.preferred.len());
        for (copy, preferred) in groups.copies(groups.all()) {
            forest.join(copy, preferred);
        }
        for_each_pair(verified, |VerifiedPair { pair, .. }| {
            let document = |rank: u32| ranks.documents[rank as usize];
            forest.join(document(pair.preferred), document(pair.other));
        })?;
        let first = forest.into_roots();
        let mut sizes = vec![0; first.len()];
        for root in &first {
            sizes[*root as usize] += 1;
        }
        Ok(Self { first, sizes })
    }

    /// Documents of the cluster of a document, at least one.
    pub(super) fn size(&self, document: u32) -> u32 {
        self.sizes[self.first[document as usize] as usize]
    }

    /// Number of clusters of at least two documents whose smallest one is in `counts`, and the size of the largest.
    pub(super) fn count(&self, counts: &BitSet) -> (u64, u32) {
        let clusters = self.sizes.iter().zip(0..);
        let counted = clusters.filter(|(size, first)| **size > 1 && counts.contains(*first));
        counted.fold((0, 0), |(n, largest), (size, _)| {
            (n + 1, largest.max(*size))
        })
    }
}

/// Calls `visit` with each verified pair, in order of the less preferred document's rank, then the other one's.
fn for_each_pair(verified: Option<&RecordFile>, mut visit: impl FnMut(VerifiedPair)) -> Result<()> {
    let Some(verified) = verified else {
        return Ok(());
    };
    let mut reader = verified.read()?;
    while let Some(pair) = reader.next()? {
        visit(VerifiedPair::unpack(pair));
    }
    Ok(())
}

/// Disjoint sets of documents, each a tree whose root is its smallest document.
struct Forest {
    parents: Vec<u32>,
}

impl Forest {
    fn new(n: usize) -> Self {
        Self {
            parents: (0..n as u32).collect(),
        }
    }

    /// The root of a document's tree. Halves the path to it.
    fn root(&mut self, mut document: u32) -> u32 {
        loop {
            let parent = self.parents[document as usize];
            if parent == document {
                return document;
            }
            let grandparent = self.parents[parent as usize];
            self.parents[document as usize] = grandparent;
            document = grandparent;
        }
    }

    fn join(&mut self, a: u32, b: u32) {
        let (a, b) = (self.root(a), self.root(b));
        self.parents[a.max(b) as usize] = a.min(b);
    }

    fn into_roots(mut self) -> Vec<u32> {
        for document in 0..self.parents.len() {
            // A parent is smaller, so its own root is final.
            self.parents[document] = self.parents[self.parents[document] as usize];
        }
        self.parents
    }
}

/// The kept document to which each removed one is charged.
pub(super) struct Removals {
    /// [`NONE`] for documents that are not removed.
    kept_copy: Vec<u32>,
    /// The similarity to the kept copy, for removed documents that are not exact copies of it.
    similarity: Vec<f64>,
    largest: u64,
}

impl Removals {
    /// Decides which documents are removed. Clusters of more than `largest` documents are left alone. Protected
    /// documents have the first ranks and are never removed.
    pub(super) fn decide(
        groups: &ExactGroups,
        ranks: &Ranks,
        clusters: &Clusters,
        verified: Option<&RecordFile>,
        largest: u64,
    ) -> Result<Self> {
        let n = groups.preferred.len();
        let mut removals = Self {
            kept_copy: vec![NONE; n],
            similarity: vec![1.0; n],
            largest,
        };
        // Pairs are sorted by the rank of the less preferred document: when its pairs come, every document that is
        // preferred to it is decided. Its most preferred partner comes first.
        for_each_pair(verified, |VerifiedPair { pair, similarity }| {
            let (kept, other) = (
                ranks.documents[pair.preferred as usize],
                ranks.documents[pair.other as usize],
            );
            let is_charged = removals.kept_copy[other as usize] != NONE;
            if is_charged
                || ranks.is_protected(pair.other)
                || removals.kept_copy[kept as usize] != NONE
                || removals.leaves_alone(clusters, other)
            {
                return;
            }
            removals.kept_copy[other as usize] = kept;
            removals.similarity[other as usize] = similarity;
        })?;
        for (copy, preferred) in groups.copies(groups.all()) {
            let rank = ranks.of_document[copy as usize];
            if ranks.is_protected(rank) || removals.leaves_alone(clusters, copy) {
                continue;
            }
            let (copy, member) = (copy as usize, preferred as usize);
            match removals.kept_copy[member] {
                NONE => removals.kept_copy[copy] = preferred,
                kept => {
                    removals.kept_copy[copy] = kept;
                    removals.similarity[copy] = removals.similarity[member];
                }
            }
        }
        Ok(removals)
    }

    fn leaves_alone(&self, clusters: &Clusters, document: u32) -> bool {
        u64::from(clusters.size(document)) > self.largest
    }

    /// What becomes of a document, the kept copy, the similarity to it, and how they relate. An estimate is
    /// [`DuplicateKind::Near`] here: the caller knows which texts were not read.
    pub(super) fn of(
        &self,
        document: u32,
        groups: &ExactGroups,
        clusters: &Clusters,
    ) -> (Decision, u32, f64, DuplicateKind) {
        let kept = self.kept_copy[document as usize];
        if kept == NONE {
            let decision = match self.leaves_alone(clusters, document) {
                true => Decision::LeftAlone,
                false => Decision::Kept,
            };
            return (decision, document, 1.0, DuplicateKind::None);
        }
        let kind = match groups.preferred[document as usize] == kept {
            true => DuplicateKind::Exact,
            false => DuplicateKind::Near,
        };
        let similarity = self.similarity[document as usize];
        (Decision::Removed, kept, similarity, kind)
    }
}
