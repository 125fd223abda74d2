//! Documents out of shards.
