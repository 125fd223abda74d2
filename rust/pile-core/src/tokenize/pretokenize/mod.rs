//! Splits text into pretokens. Merges never cross the end of a pretoken.

pub(super) mod block_scanner;
pub(super) mod cl100k;
pub(super) mod digits;
pub(super) mod gpt2;
pub(super) mod masks;
pub(super) mod pattern;
pub(super) mod pretokenizer;
pub(super) mod reference;
