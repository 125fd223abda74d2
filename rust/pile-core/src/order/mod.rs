//! Training orders: which spans of the documents a model sees at which step.
//!
//! [`packed`], [`pack_until_overflow`], [`unpacked`] and [`megatron`] compute the document, sample and
//! shuffle index of GPT-NeoX or Megatron-LM; [`blend`] draws samples from several datasets. [`npy`] stores the
//! arrays as these do. [`TrainingOrder`] reads them back as samples, lists of spans over a token source, and
//! [`Steps`] groups the samples into batches. [`ChangedSamples`] are those of an order with interventions.

mod appearances;
mod blended;
mod build;
mod changes;
mod indexed;
mod megatron;
mod mt19937;
pub mod npy;
mod packed;
mod split;
mod steps;
mod training_order;
mod whole_documents;

pub use appearances::{Appearance, Appearances};
pub use blended::{BlendPart, BlendedSamples, build_blend};
pub use build::{OrderConfig, OrderRule, OrderSummary, build};
pub use changes::{Change, ChangeKind, ChangedSamples};
pub use indexed::{IndexedSamples, SampleLayout};
pub use megatron::{MegatronArrays, MegatronConfig, megatron};
pub use mt19937::Mt19937;
pub use packed::{Amount, PackedArrays, n_epochs_for, packed};
pub use split::{BlendArrays, blend, normalized_weights, split_documents, weights_by_documents};
pub use steps::{BatchDocuments, DocumentRun, MicroBatch, Steps};
pub use training_order::{RowSamples, SampleSpan, Samples, TrainingOrder};
pub use whole_documents::{
    WholeDocumentArrays, WholeDocumentConfig, pack_until_overflow, unpacked,
};
