//! When the model saw what: questions that use the order and what can be found in its samples.
//!
//! From a text: [`Scan`] or [`Indexed`] finds its [`Places`] in the documents, [`when`] the samples that hold them.
//! From a document: [`crate::order::TrainingOrder::views`]. [`repeats`] and [`mixture`] speak of the whole order.

mod chunk;
mod counts;
mod find;
mod grams;
mod indexed;
mod mixture;
mod places;
mod repeats;
mod rows;
mod when;

pub use chunk::Alphabet;
pub use counts::Stretches;
pub use find::{Place as SequencePlace, find_sequences};
pub use indexed::Indexed;
pub use mixture::mixture;
pub use places::{FindPlaces, Place, Places, Scan};
pub use repeats::{Repeated, Repeats, repeats};
pub use when::{Question, Sighting, When, across_documents, when};
