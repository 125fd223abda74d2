//! The vocabulary, its merges, and the encoder.

pub(super) mod added;
pub(super) mod bytes;
pub(super) mod cache;
pub(super) mod encoder;
pub(super) mod merges;
pub(super) mod queue;
pub(super) mod runs;
pub(super) mod seams;
pub(super) mod token_bytes;
pub(super) mod tokenizer;
