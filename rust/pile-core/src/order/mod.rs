//! Which spans are seen at which step: GPT-NeoX's document, sample and shuffle index.
//!
//! [`packed`], [`pack_until_overflow`], [`unpacked`] and [`megatron`] compute the three arrays, [`npy`] stores
//! them as the references do, and [`TrainingOrder`] reads them back as samples: ordered lists of spans over a
//! token source.

mod blended;
mod build;
mod indexed;
mod megatron;
mod mt19937;
pub mod npy;
mod packed;
mod split;
mod steps;
mod training_order;
mod unpacked;
mod views;

pub use blended::{BlendedSamples, build_blend};
pub use build::{OrderConfig, OrderSummary, Rule, build};
pub use indexed::{IndexedSamples, Layout};
pub use megatron::{Megatron, MegatronConfig, megatron};
pub use mt19937::Mt19937;
pub use packed::{Amount, Packed, n_epochs_for, packed};
pub use split::{Blended, blend, normalized_weights, split_documents, weights_by_documents};
pub use steps::{BatchDocuments, MicroBatch, Run, Steps};
pub use training_order::{RowSamples, SampleSpan, Samples, TrainingOrder};
pub use unpacked::{Whole, WholeConfig, pack_until_overflow, unpacked};
pub use views::{View, Views};
