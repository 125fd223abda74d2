//! Documents out of shards: bounded memory, exact positions.
//!
//! A shard is a file of JSON records, one a line, `{"text": ..., "meta": {"pile_set_name": ...}}` as in
//! the Pile (`.jsonl`, `.ndjson`, `.json`, also compressed, or standard input or a pipe), a column of texts
//! (`.parquet`) or one document (`.txt`, also compressed). [`ShardReader`] cuts it into [`Block`]s of whole records, in
//! one thread; [`Block::each_document`] parses them, in any number of threads; [`map_blocks`] is the
//! whole of it for a job.

mod block;
mod format;
mod json;
mod lines;
mod parquet;
mod pipeline;
mod record;
pub mod reference;
mod rules;
mod shard;
mod stream;

pub use block::{BadRecord, BadRecordList, Block, Position};
pub use pipeline::{Step, map_blocks};
pub use record::Document;
pub use rules::{BadRecords, DEFAULT_MAX_RECORD, Rules};
pub use shard::{ShardReader, ShardSummary};
