//! When the model saw what.
