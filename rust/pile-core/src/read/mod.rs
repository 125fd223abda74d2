//! Reading the documents of shards, with bounded memory and exact positions.
//!
//! A shard is one of:
//! - JSON records, one per line, such as `{"text": ..., "meta": {"pile_set_name": ...}}` in the Pile:
//!   `.jsonl`, `.ndjson` or `.json`, also compressed; or standard input or a pipe;
//! - a column of texts: `.parquet`;
//! - one document: `.txt`, also compressed.
//!
//! [`ShardReader`] splits a shard into [`Block`]s of whole records, on one thread. [`Block::each_document`]
//! parses a block, on any thread. [`map_blocks`] does both for a job.

mod block;
mod format;
mod json;
mod lines;
mod one_record;
mod parquet;
mod pipeline;
mod record;
mod record_edit;
// Public for the fuzz targets.
pub mod reference;
mod rewrite;
mod rules;
mod shard;
mod stream;

pub use block::{BadRecord, BadRecordList, Block, Position};
pub use one_record::{FoundRecord, read_record, read_record_at, record_text};
pub use pipeline::{Step, map_blocks};
pub use record::Document;
pub use record_edit::{ByteRange, cut_record, mark_record};
pub use rewrite::{
    Changes, Cuts, Marks, RecordColumns, RewriteConfig, RewriteSummary, RewrittenShard,
    WrittenShard, rewrite_shards,
};
pub use rules::{BadRecords, DEFAULT_MAX_RECORD, Rules};
pub use shard::{ShardReader, ShardSummary};
