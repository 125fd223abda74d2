//! Splits text into pretokens, within which alone tokens are merged.

pub(super) mod blocks;
pub(super) mod classes;
pub(super) mod classes_table;
pub(super) mod cutter;
pub(super) mod masks;
pub(super) mod pattern;
pub(super) mod plain;
pub(super) mod scan;
pub(super) mod scan_cl100k;
pub(super) mod scan_digits;
