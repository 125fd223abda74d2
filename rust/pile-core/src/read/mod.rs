//! Documents out of shards: bounded memory, exact positions.
//!
//! A shard is a `.jsonl` or `.jsonl.zst` file, one record a line: `{"text": ..., "meta":
//! {"pile_set_name": ...}}` as in the Pile. [`ShardReader`] cuts its bytes into [`Block`]s of whole
//! lines, in one thread; [`Block::documents`] parses them, in any number of threads; [`map_blocks`]
//! is the whole of it for a job.

mod block;
mod pipeline;
mod record;
mod shard;

pub use block::{Block, Position};
pub use pipeline::{Step, map_blocks};
pub use record::Document;
pub use shard::{ShardReader, ShardSummary};
