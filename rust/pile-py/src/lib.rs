//! `pile_tools._core`: Python bindings of `pile-core`.
//!
//! The doc comments of what Python sees are its docstrings. `make stub` copies them to `_core.pyi`.

mod contamination;
mod count;
mod dataset;
mod dedup;
mod errors;
mod jobs;
mod mapped;
mod order;
mod passages;
mod progress;
mod rewrite;
mod search;
mod source;
mod steps;
mod timeline;
mod tokenizer;

use pyo3::prelude::*;

#[global_allocator]
static ALLOCATOR: pile_core::io::ReportingAllocator = pile_core::io::ReportingAllocator;

/// Silences Rust's own report of a panic on standard error, unless `PILE_TOOLS_DEBUG` is set. Users get an
/// exception.
fn silence_panics() {
    if std::env::var_os("PILE_TOOLS_DEBUG").is_none() {
        std::panic::set_hook(Box::new(|_| {}));
    }
}

/// The Rust core: tokenizer, token datasets, training orders and the jobs that make them.
#[pymodule]
mod _core {
    #[pymodule_export]
    use super::contamination::{
        BenchmarkItems, documents_contamination, order_sightings, shards_contamination,
    };
    #[pymodule_export]
    use super::count::{
        count_token_ngrams, count_word_ngrams, dataset_terms, order_arithmetic, order_terms,
        shards_terms, token_ngrams,
    };
    #[pymodule_export]
    use super::dataset::TokenDataset;
    #[pymodule_export]
    use super::dedup::{
        MinHasher, band_probability, find_duplicates, lsh_bands, run_dedup_task, write_signatures,
    };
    #[pymodule_export]
    use super::jobs::{
        _panic, build_dataset, build_order, label_dataset, merge_datasets, normalized_weights,
        split_documents, train_tokenizer, weights_by_documents, write_blend,
    };
    #[pymodule_export]
    use super::mapped::mapped_bytes;
    #[pymodule_export]
    use super::order::{TrainingOrder, blended_order, changed_order, rows_order};
    #[pymodule_export]
    use super::passages::find_passages;
    #[pymodule_export]
    use super::rewrite::{read_record, read_record_at, record_text, rewrite_shards};
    #[pymodule_export]
    use super::search::{SuffixIndex, build_index, combine_occurrences, plan_index};
    #[pymodule_export]
    use super::source::{TokenSource, token_files};
    #[pymodule_export]
    use super::steps::{batch_documents, micro_batch_samples};
    #[pymodule_export]
    use super::timeline::{order_mixture, order_repeats, order_trace, order_when};
    #[pymodule_export]
    use super::tokenizer::Tokenizer;

    /// Makes the process end with exit code 1 and a message if a mapped file shrinks or memory runs out.
    ///
    /// For commands only. In a library, reading a mapped file that another program shortened ends the process by
    /// SIGBUS.
    #[pyfunction]
    fn report_machine_failures() {
        pile_core::io::report_failures();
    }

    /// Checks that no file became shorter while it was mapped, since the last check.
    ///
    /// The missing bytes of a file's last page read as zeros, and no signal reports it.
    ///
    /// Raises:
    ///     FormatError: A file became shorter.
    #[pyfunction]
    fn check_mapped() -> Result<(), super::errors::BindError> {
        Ok(pile_core::io::check_mapped()?)
    }

    /// Whether this process has mapped the file at a path, under this name or another one: it is an input.
    #[pyfunction]
    fn is_mapped(path: std::path::PathBuf) -> bool {
        pile_core::io::is_mapped(&path)
    }

    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(_: &Bound<'_, PyModule>) -> PyResult<()> {
        super::silence_panics();
        Ok(())
    }
}
