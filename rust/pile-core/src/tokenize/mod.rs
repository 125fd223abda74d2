//! Text to tokens and back: byte-level BPE, exact against Hugging Face `tokenizers` 0.23.3.
//!
//! Load a tokenizer.json with [`Tokenizer`], make one [`Encoder`] per thread; learn a vocabulary
//! with [`Trainer`]. [`reference::Reference`] is the oracle of the encoder.

mod model;
mod normalize;
mod pretokenize;
pub mod reference;
mod spec;
mod train;

pub use model::{encoder::Encoder, token_bytes::TokenBytes, tokenizer::Tokenizer};
pub use pretokenize::classes::{Class, class_of};
pub use train::{
    shards::{TrainSummary, train_on_shards},
    trained::Trained,
    trainer::{TrainConfig, Trainer},
};
