//! Duplicate documents: finds them exactly, or by the similarity of their shingles, and decides which to remove.
//!
//! [`find_duplicates`] is the whole job; [`TextSketcher`] and [`lsh_bands`] are its parts for single texts.
//! A document's number is its position among the documents of all shards, in their order; bad records that are
//! skipped have none.
//!
//! 1. **Sketch** (`sketch`): one pass over the shards writes a row of fixed size for each document, and for near
//!    duplicates its MinHash signature.
//! 2. **Exact groups** (`exact`): an external sort of the rows by the hash of the normalized text.
//! 3. **Bands** (`candidates`): an external sort of the hashes of the signatures' bands. Documents that share one are
//!    a candidate pair. Of each exact group only the preferred member takes part.
//! 4. **Verify** (`spill`, `verify`): a second pass over the shards that have candidates writes their texts or
//!    shingles to disk. Copies are compared byte by byte, candidate pairs by the true similarity of their shingles.
//! 5. **Clusters** (`clusters`): connected components of the verified pairs and exact groups. A document is removed
//!    only if a *kept* document that is preferred to it is verified to be similar to it.
//!
//! With a [`TaskRunner`], steps 3 and 4 are tasks for other processes (`tasks`).
//!
//! # Memory and disk
//!
//! Everything whose size depends on the text or the number of pairs is on disk. In memory are the buffers of the
//! external sorts, which `memory` bounds, the blocks of text in flight, and these for each document: its rank, the
//! document of each rank, the first document of its exact group, its cluster (4 bytes each), the size of its cluster
//! and the copy it is charged to (4 bytes each), its similarity to it (8 bytes), and two bits: 32.25 bytes. For 200
//! million documents that is 6.5 GB. Each member of a cluster adds a row of 46 bytes to the result.
//!
//! On disk, 200 million documents with 256 permutations take 40 bytes of row (8 GB) and 1,024 of signature (205 GB)
//! each, and at 0.87 with 25 bands 400 bytes while the bands are sorted (80 GB); candidates take 8 bytes for each
//! distinct pair, and the second pass 8 bytes for each distinct shingle and the text of each exact copy.

mod bands;
mod bits;
mod candidates;
mod clusters;
mod config;
mod documents;
mod exact;
mod find;
pub(crate) mod hash;
mod minhash;
mod normalize;
pub mod passages;
mod ranks;
pub mod reference;
mod shingles;
mod sketch;
mod spill;
mod stored;
mod tasks;
#[cfg(test)]
mod tests;
mod verify;

pub use bands::{Bands, band_probability, lsh_bands};
pub use clusters::{Decision, DuplicateKind, DuplicateRows};
pub use config::{
    DedupConfig, NearConfig, Normalization, Preference, RecordNumber, Shingle, Threshold,
    Verification,
};
pub use find::{DedupSummary, Duplicates, SubsetDuplicates, find_duplicates};
pub use shingles::Shingler;
pub use sketch::{SketchedShard, TextSketcher};
pub use stored::{
    SignaturesConfig, SignaturesFile, SignaturesSummary, StoredShard, StoredSignatures,
    write_signatures,
};
pub use tasks::{DedupTask, TaskRunner, run_task};
