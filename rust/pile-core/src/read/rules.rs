//! The rules by which records are read.

/// The rules by which records are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// The key of a JSON record, or the column of a parquet file, that holds the text.
    pub text_field: String,
    /// What to do with bad records.
    pub bad_records: BadRecords,
    /// Maximum length of a record in bytes: of a line without its end, or of a text. Longer records are bad.
    /// This bounds the memory of one record, even if a compressed file expands to more.
    pub max_record: u64,
}

/// The default of [`Rules::max_record`], 1 GiB.
pub const DEFAULT_MAX_RECORD: u64 = 1 << 30;

/// What to do with a record whose text cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadRecords {
    /// End the job with an error.
    Refuse,
    /// Skip it, and count and list it.
    Skip,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            text_field: "text".to_owned(),
            bad_records: BadRecords::Refuse,
            max_record: DEFAULT_MAX_RECORD,
        }
    }
}
