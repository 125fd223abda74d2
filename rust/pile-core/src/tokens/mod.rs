//! Token datasets.
