//! How often things occur: n-grams of tokens and of words, in bounded memory and exactly.

mod chunk;
mod fold;
mod in_order;
mod kept;
mod key;
mod ngrams;
mod radix;
mod runs;
mod spill;
mod table;
mod windows;
mod words;

pub use kept::{Gram, GramSink, Keep, LengthSummary};
pub use ngrams::{Grouped, NgramConfig, count_ngrams};
pub use table::{Keys, write_table};
pub use words::{MAX_WORDS, UNKNOWN, WordsConfig, WordsSummary, count_words};
