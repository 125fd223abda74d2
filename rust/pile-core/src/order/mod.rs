//! Which spans are seen at which step: GPT-NeoX's document, sample and shuffle index.
//!
//! [`packed`] computes the three arrays, [`npy`] stores them as the reference does, and
//! [`TrainingOrder`] reads them back as samples: ordered lists of spans over a token source.

mod build;
mod mt19937;
pub mod npy;
mod packed;
mod training_order;
mod views;

pub use build::{OrderConfig, OrderSummary, build, file_stem};
pub use mt19937::Mt19937;
pub use packed::{Amount, Packed, SampleIndex, ShuffleIndex, n_epochs_for, packed};
pub use training_order::{SampleSpan, TrainingOrder};
pub use views::{View, Views};
