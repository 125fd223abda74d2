//! Trains a tokenizer on shards with several threads.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::tokenize::{TrainConfig, Trained, Trainer};
use crate::{
    Error, Result,
    progress::Progress,
    read::{Block, Rules, Step, map_blocks},
};

/// The text that a tokenizer was trained on, and the size of the result.
#[derive(Debug, Clone, Serialize)]
pub struct TrainSummary {
    /// Documents, including empty ones.
    pub n_documents: u64,
    /// Bytes of text.
    pub n_text_bytes: u64,
    /// Tokens in the vocabulary. Fewer than the configured size if the text has no more pairs to merge.
    pub vocab_size: u32,
    /// Merges.
    pub n_merges: usize,
    /// Bad records that were skipped.
    pub n_bad_records: u64,
    /// SHA-256 of each shard, in order.
    pub shards: Vec<String>,
}

/// Trains a tokenizer on the documents of `shards`. The result is the same for any number of threads.
///
/// `progress` advances by compressed bytes while pretokens are counted, then by merges.
///
/// # Errors
/// Those of [`Trainer::new`] and [`Trainer::finish`]; a shard cannot be read; or all documents are empty.
pub fn train_on_shards(
    shards: &[PathBuf],
    rules: &Rules,
    config: TrainConfig,
    n_threads: usize,
    progress: &Progress,
) -> Result<(Trained, TrainSummary)> {
    let trainers = (0..n_threads.max(1))
        .map(|_| Trainer::new(config.clone()))
        .collect::<Result<_>>()?;
    let (mut n_documents, mut n_bad_records, mut hashes) = (0, 0, Vec::new());
    let trainers = map_blocks(shards, rules, 0, trainers, progress, add_block, |step| {
        match step {
            Step::Block((n, n_bad)) => {
                n_documents += n;
                n_bad_records += n_bad;
            }
            Step::EndOfShard(_, summary) => hashes.push(summary.sha256),
        }
        Ok(())
    })?;
    let mut all = Trainer::new(config)?;
    trainers.into_iter().for_each(|trainer| all.absorb(trainer));
    let n_text_bytes = all.n_bytes();
    if n_text_bytes == 0 {
        let first = shards.first().map_or(Path::new("no shards"), |p| p);
        return Err(Error::malformed(
            first,
            "no text to train on: every document is empty",
        ));
    }
    let trained = all.finish(progress)?;
    let summary = TrainSummary {
        n_documents,
        n_text_bytes,
        vocab_size: trained.vocab_size(),
        n_merges: trained.n_merges(),
        n_bad_records,
        shards: hashes,
    };
    Ok((trained, summary))
}

/// Counts the pretokens of a block. Returns the numbers of its documents and of its bad records.
fn add_block(trainer: &mut Trainer, block: &Block) -> Result<(u64, u64)> {
    let mut n_documents = 0;
    let bad = block.each_document(|_, document| {
        trainer.add(&document.text);
        n_documents += 1;
        Ok(())
    })?;
    Ok((n_documents, bad.n))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(vocab_size: u32) -> TrainConfig {
        TrainConfig {
            vocab_size,
            min_frequency: 2,
            special_tokens: Vec::new(),
        }
    }

    #[test]
    fn progress_counts_bytes_and_merges() {
        let folder = tempfile::tempdir().unwrap();
        let shards = [0, 1].map(|i| folder.path().join(format!("{i}.jsonl")));
        let record = "{\"text\": \"the three trees there\"}\n";
        for shard in &shards {
            std::fs::write(shard, record.repeat(9)).unwrap();
        }
        let train = |n_threads| {
            let progress = Progress::default();
            let (trained, summary) = train_on_shards(
                &shards,
                &Rules::default(),
                config(300),
                n_threads,
                &progress,
            )
            .unwrap();
            assert_eq!((summary.n_documents, summary.n_text_bytes), (18, 18 * 21));
            let expected = 18 * record.len() + summary.n_merges;
            assert_eq!(progress.done(), expected as u64);
            trained
        };
        assert_eq!(train(1), train(2));
    }

    #[test]
    fn no_text_is_refused() {
        let err = train_on_shards(&[], &Rules::default(), config(300), 1, &Progress::default())
            .unwrap_err();
        assert!(err.to_string().contains("no text to train on"), "{err}");
    }
}
