//! Reads tokenizer.json into checked types.

pub(super) mod json_node;
pub(super) mod template;
pub(super) mod tokenizer_json;
