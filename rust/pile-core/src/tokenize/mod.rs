//! Byte-level BPE: text to tokens and back, with the same ids as Hugging Face `tokenizers` 0.23.3.
//!
//! [`Tokenizer`] loads a tokenizer.json. Each thread encodes with an [`Encoder`] of its own. [`Trainer`] trains a
//! vocabulary. Tests compare the encoder with [`reference::Reference`].

mod model;
mod normalize;
mod passages;
mod pretokenize;
pub mod reference;
mod spec;
mod train;

pub use crate::text::classes::{Class, class_of};
pub(crate) use model::token_bytes::MAX_DECODED_BYTES;
pub use model::{
    encoder::Encoder,
    token_bytes::TokenBytes,
    tokenizer::{Skipped, Tokenizer},
};
pub use passages::PassageTokens;
pub use train::{
    shards::{TrainSummary, train_on_shards},
    trained::Trained,
    trainer::{TrainConfig, Trainer},
};
