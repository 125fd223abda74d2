//! The items of benchmarks in a corpus: which documents have them, and when a model saw them.
//!
//! 1. **Items** (`items`): the words of each part of an item, and a table of the distinct n-grams of all parts.
//! 2. **Scan** (`find`, `spill`): one pass over the documents. A text with an n-gram is written to disk: its
//!    distinct n-grams, and the words near them.
//! 3. **Rarity** (`rarity`): how many documents have each n-gram, counted from what was written, gives its weight.
//! 4. **Score** (`score`): the share of a part's weight that a region of a text has.
//! 5. **Seen** ([`sightings_of_bytes`]): the samples of an order that show the bytes of a match.
//!
//! # Memory and disk
//!
//! In memory are the words of the items about twice, 40 bytes and a key in a hash table for each distinct n-gram, the
//! blocks of text in flight, and the listed matches, of which each part has at most [`MAX_LISTED`]. Everything else
//! that depends on the corpus is on disk: 4 bytes for each distinct n-gram of a document, and the bytes of its
//! n-grams with 64 words before and after them.

mod find;
mod items;
mod rarity;
mod score;
mod seen;
mod spill;
mod words;

pub use find::{
    ContaminatedBytes, Contamination, ContaminationConfig, ContaminationSummary, MAX_LISTED,
    PartSummary, ScannedShard, find_in_documents, find_in_shards,
};
pub use items::{BenchmarkItems, ItemPart, MAX_WORDS, MIN_WORDS, Role};
pub use rarity::TELLING_DOCUMENTS;
pub use score::{Match, MatchKind};
pub use seen::{DocumentBytes, sightings_of_bytes};
pub use spill::{MAX_GAP, NEAR_WORDS};
