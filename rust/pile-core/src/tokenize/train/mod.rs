//! Learns a vocabulary from text.

pub(super) mod counts;
pub(super) mod shards;
pub(super) mod trained;
pub(super) mod trainer;
