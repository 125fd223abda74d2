//! Unicode normalization, and the text of a dataset that it yields.

pub(super) mod aligned;
pub(super) mod normalized;
