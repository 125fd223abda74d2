//! The tests of the public interface, in one program: to link one takes as long as many of them to run.

mod foreign_bytes;
mod layers;
mod merge;
mod order_golden;
mod order_properties;
mod order_scale;
mod search;
mod shared;
mod sightings;
mod sightings_by_rule;
mod tokenizer_golden;
mod tokens_golden;
