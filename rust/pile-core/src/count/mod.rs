//! Exact counts of n-grams of tokens and words, in bounded memory, and of terms.

mod arithmetic;
mod chunk_plan;
mod finder;
mod in_order;
mod key_counter;
mod ngrams;
mod packed_key;
mod prefix_table;
mod radix_sort;
mod retained;
mod runs;
mod spill;
mod subsets;
mod table;
mod term_jobs;
mod term_set;
mod terms;
mod token_windows;
mod words;

pub use arithmetic::{ArithmeticCounter, ArithmeticKey, UNITS};
pub(crate) use in_order::in_order;
pub use ngrams::{GroupedDocuments, NgramConfig, count_ngrams};
pub use retained::{LengthSummary, Ngram, NgramSink, Retention};
pub use subsets::GroupName;
pub use table::{KeyColumns, write_table};
pub use term_jobs::{
    DocumentDecoder, ShardTermCounts, ShardTermsConfig, TermSums, TermTotals,
    count_terms_in_documents, count_terms_in_shards,
};
pub use terms::{GroupTermCounts, PairScope, TermCount, TermCounter, TermOptions, Terms};
pub use words::{MAX_WORDS, WordsConfig, WordsSummary, count_words};
