//! The items of benchmarks in a corpus: which documents have them, and when a model saw them.
//!
//! 1. **Items** (`items`): the words of each part of an item, and a table of the distinct n-grams of all parts.
//! 2. **Scan** (`find`, `spill`): one pass over the documents. The hashes of the words tell where an n-gram may be,
//!    and only there words are normalized and compared. A text with an n-gram is written to disk: its n-grams,
//!    and the words near them.
//! 3. **Rarity** (`rarity`): how many documents have each n-gram, counted from what was written, gives its weight.
//! 4. **Score** (`score`): the share of a part's weight that a region of a text has.
//! 5. **Seen** ([`sightings_of_bytes`]): the samples of an order that show the bytes of a match.
//!
//! # Memory and disk
//!
//! In memory are the texts of the items and twice their words, some 100 bytes for each distinct n-gram, the blocks of
//! text in flight, the listed matches, of which each part has at most [`MAX_LISTED`], and all contaminated bytes if
//! these are listed. Everything else that depends on the corpus is on disk: some 6 bytes for each n-gram in a document,
//! and the bytes of its n-grams, with 67 words before and after them if items have answers.

mod find;
mod items;
mod rarity;
pub mod reference;
mod score;
mod seen;
mod spill;
mod words;

pub use find::{
    ContaminatedBytes, Contamination, ContaminationConfig, ContaminationSummary, MAX_LISTED,
    PartSummary, SearchedShard, find_in_documents, find_in_shards,
};
pub use items::{BenchmarkItems, ItemPart, MAX_WORDS, MIN_WORDS, Role};
pub use rarity::TELLING_DOCUMENTS;
pub use score::{Match, MatchKind};
pub use seen::{DocumentBytes, sightings_of_bytes};
pub use spill::{MAX_GAP, NEAR_WORDS};
