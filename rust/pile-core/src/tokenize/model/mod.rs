//! The vocabulary, its merges, and the encoder.

pub(super) mod added_tokens;
pub(super) mod byte_alphabet;
pub(super) mod cache;
pub(super) mod encoder;
pub(super) mod merge_boundaries;
pub(super) mod merge_queue;
pub(super) mod merges;
pub(super) mod pretoken_key;
pub(super) mod space_runs;
pub(super) mod token_bytes;
pub(super) mod tokenizer;
