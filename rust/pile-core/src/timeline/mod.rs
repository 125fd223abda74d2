//! When the model saw what: queries that combine the order with the content of its samples.
//!
//! For a text, [`Scan`] or [`IndexSearch`] finds its [`Occurrences`] in the documents, and [`sightings`] maps them
//! to samples; those with a token that an intervention replaced are in no document, and are searched for in the rows.
//! For a document, see [`crate::order::TrainingOrder::appearances`]. [`repeats`] and [`mixture`]
//! summarize the whole order.

mod checkpoint_counts;
mod chunk;
mod grams;
mod index_search;
mod mixture;
mod occurrences;
mod parallel;
mod repeats;
mod replaced;
mod rows;
mod scan;
mod sightings;

pub use checkpoint_counts::CheckpointCounts;
pub use chunk::SearchUnit;
pub use index_search::{IndexSearch, WithInsertedTexts};
pub use mixture::{MixtureConfig, mixture};
pub use occurrences::{FindOccurrences, Occurrence, Occurrences};
pub use repeats::{RepeatedDocument, Repeats, RepeatsConfig, repeats};
pub use scan::Scan;
pub use sightings::{AcrossDocuments, Sighting, Sightings, TextQuery, across_documents, sightings};
