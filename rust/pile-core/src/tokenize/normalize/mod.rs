//! Unicode normalization, before anything else is done with a text.

pub(super) mod nfc;
pub(super) mod normalized;
