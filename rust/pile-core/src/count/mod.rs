//! How often things occur: n-grams of tokens and of words, in bounded memory and exactly.

mod chunk;
mod in_order;
mod kept;
mod key;
mod ngrams;
mod radix;
mod runs;
mod spill;
mod windows;

pub use kept::{Gram, GramSink, Keep, LengthSummary};
pub use ngrams::{Grouped, NgramConfig, count_ngrams};
