//! How often things occur: n-grams of tokens and of words, in bounded memory and exactly.

mod arithmetic;
mod beginnings;
mod chunk;
mod finder;
mod fold;
mod in_order;
mod kept;
mod key;
mod ngrams;
mod radix;
mod runs;
mod spill;
mod table;
mod tally;
mod term_jobs;
mod term_set;
mod terms;
mod windows;
mod words;

pub use arithmetic::{Arithmetic, ArithmeticKey, UNITS};
pub(crate) use in_order::in_order;
pub use kept::{Gram, GramSink, Keep, LengthSummary};
pub use ngrams::{Grouped, NgramConfig, count_ngrams};
pub use table::{Keys, write_table};
pub use term_jobs::{Sums, TermCounts, Totals, count_terms_in_documents, count_terms_in_shards};
pub use terms::{Counted, TermCounter, Terms, Within};
pub use words::{Group, MAX_WORDS, WordsConfig, WordsSummary, count_words};
