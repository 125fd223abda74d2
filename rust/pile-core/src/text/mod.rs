//! Characters, words and names of texts, which several layers use.

pub(crate) mod ascii_masks;
pub(crate) mod case_folding;
pub(crate) mod classes;
pub(crate) mod classes_table;
pub(crate) mod names;
pub(crate) mod nfc;
pub(crate) mod words;
