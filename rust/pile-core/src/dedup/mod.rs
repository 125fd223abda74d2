//! Deduplication of documents and passages, before tokenization.

pub mod passages;
