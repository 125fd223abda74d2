//! When the model saw what: questions that use the order and what can be found in its samples.

mod find;

pub use find::{Place, find_sequences};
