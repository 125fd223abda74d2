//! Text to tokens and back: byte-level BPE, exact against Hugging Face `tokenizers` 0.23.3.
//!
//! Load a tokenizer.json with [`Tokenizer`], make one [`Encoder`] per thread; learn a vocabulary
//! with [`Trainer`]. [`reference::Reference`] is the oracle of the encoder.

mod added;
mod blocks;
mod bytes;
mod cache;
mod classes;
mod classes_table;
mod counts;
mod cutter;
mod encoder;
mod masks;
mod merges;
mod node;
mod normalize;
mod normalized;
mod pattern;
mod plain;
mod queue;
pub mod reference;
mod runs;
mod scan;
mod scan_cl100k;
mod scan_digits;
mod seams;
mod shards;
mod spec;
mod template;
mod token_bytes;
mod tokenizer;
mod trained;
mod trainer;

pub use classes::{Class, class_of};
pub use encoder::Encoder;
pub use shards::{TrainSummary, train_on_shards};
pub use token_bytes::TokenBytes;
pub use tokenizer::Tokenizer;
pub use trained::Trained;
pub use trainer::{TrainConfig, Trainer};
