//! What of a record is its text, and what becomes of records that are none.

/// How records are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// The key of a JSON record, or the column of a parquet file, that holds the text.
    pub text_field: String,
    /// What becomes of bad records.
    pub bad_records: BadRecords,
}

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
        }
    }
}
