//! What of a record is its text, and what becomes of records that are none.

/// How records are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// The key of a JSON record, or the column of a parquet file, that holds the text.
    pub text_field: String,
    /// What becomes of bad records.
    pub bad_records: BadRecords,
    /// Bytes of the longest record that is read: of a line without its end, or of a text. Longer ones are
    /// bad records. Bounds what a reader keeps in memory of one record, whatever a compressed file holds.
    pub max_record: u64,
}

/// The longest record that is read unless a caller says otherwise, 1 GiB.
pub const DEFAULT_MAX_RECORD: u64 = 1 << 30;

/// What becomes of a record without a text that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadRecords {
    /// It ends the job with an error.
    Refuse,
    /// It is left out, counted and listed.
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
