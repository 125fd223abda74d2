//! Trains a vocabulary on text.

pub(super) mod pretoken_counts;
pub(super) mod shards;
pub(super) mod trained;
pub(super) mod trainer;
