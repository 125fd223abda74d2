//! Counts terms in all documents of shards or of a token source.

use std::path::PathBuf;

use super::{
    in_order::in_order,
    ngrams::GroupedDocuments,
    subsets::{GroupName, Subsets, sort_groups},
    terms::{GroupTermCounts, TermCounter, Terms},
};
use crate::{
    Result,
    progress::Progress,
    read::{Block, Rules, Step, map_blocks},
    tokenize::{TokenBytes, Tokenizer},
    tokens::{Span, TokenSource, work_items},
};

/// Counts of each given term and of each pair.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TermTotals {
    /// Occurrences of each term.
    pub occurrences: Vec<u64>,
    /// Documents or samples that contain each term.
    pub units: Vec<u64>,
    /// How often the terms of each pair occur together.
    pub pairs: Vec<u64>,
}

/// Sums of counts.
#[derive(Debug)]
pub struct TermSums<'a> {
    terms: &'a Terms,
    /// By number of the distinct term.
    distinct: TermTotals,
}

impl<'a> TermSums<'a> {
    /// Sums that are 0.
    #[must_use]
    pub fn new(terms: &'a Terms) -> Self {
        let distinct = TermTotals {
            occurrences: vec![0; terms.n_distinct()],
            units: vec![0; terms.n_distinct()],
            pairs: vec![0; terms.n_pairs()],
        };
        Self { terms, distinct }
    }

    /// Adds counts, whatever their group.
    pub fn add(&mut self, counts: &GroupTermCounts) {
        for count in &counts.terms {
            self.distinct.occurrences[count.term as usize] += count.occurrences;
            self.distinct.units[count.term as usize] += count.units;
        }
        for (pair, n) in &counts.pairs {
            self.distinct.pairs[*pair as usize] += n;
        }
    }

    /// The sums of each given term, in the order in which the terms were given.
    #[must_use]
    pub fn totals(&self) -> TermTotals {
        let of_given = |by_number: &[u64]| {
            let numbers = self.terms.numbers().iter();
            numbers.map(|number| by_number[*number as usize]).collect()
        };
        TermTotals {
            occurrences: of_given(&self.distinct.occurrences),
            units: of_given(&self.distinct.units),
            pairs: self.distinct.pairs.clone(),
        }
    }
}

/// The configuration of a job that counts terms in shards.
#[derive(Debug, Clone)]
pub struct ShardTermsConfig {
    /// The shards.
    pub shards: Vec<PathBuf>,
    /// How they are read.
    pub rules: Rules,
    /// Whether terms are counted by subset.
    pub by_subset: bool,
    /// Number of threads. The result does not depend on it.
    pub n_threads: usize,
}

/// Counts of terms in the documents of shards.
#[derive(Debug)]
pub struct ShardTermCounts {
    /// The subsets; one group for all documents if terms are not counted by subset.
    pub groups: Vec<GroupName>,
    /// Counts of each group.
    pub totals: Vec<TermTotals>,
    /// Documents, empty ones included.
    pub n_documents: u64,
    /// Bad records that were skipped.
    pub n_bad_records: u64,
    /// SHA-256 of each shard, in order.
    pub shards: Vec<String>,
}

/// Adds each of `counts` to the sums of its group. Adds sums if the group is new.
fn add_by_group<'a>(sums: &mut Vec<TermSums<'a>>, terms: &'a Terms, counts: &[GroupTermCounts]) {
    for counts in counts {
        let group = counts.group as usize;
        while sums.len() <= group {
            sums.push(TermSums::new(terms));
        }
        sums[group].add(counts);
    }
}

/// Counts terms in the documents of shards. With a tokenizer, texts are normalized as the tokenizer does, so that
/// the counts are those of the decoded dataset. `progress` advances by compressed bytes.
///
/// # Errors
/// A shard cannot be read or is damaged, more than 65,536 subsets, or a stop.
pub fn count_terms_in_shards(
    config: &ShardTermsConfig,
    terms: &Terms,
    tokenizer: Option<&Tokenizer>,
    progress: &Progress,
) -> Result<ShardTermCounts> {
    let counters = (0..config.n_threads.max(1))
        .map(|_| TermCounter::new(terms))
        .collect();
    let subsets = Subsets::new(config.by_subset, &[])?;
    let count_block = |counter: &mut TermCounter<'_>, block: &Block| {
        let (mut n_documents, mut counts) = (0, Vec::new());
        let bad = block.each_document(|_, document| {
            let group = subsets.group(document.subset.as_deref(), block.shard_path())?;
            counts.extend(counter.begin(u32::from(group)));
            match tokenizer {
                Some(tokenizer) => counter.add(&tokenizer.normalize_document(&document.text)),
                None => counter.add(document.text.as_bytes()),
            }
            n_documents += 1;
            Ok(())
        })?;
        counts.push(counter.take());
        Ok((counts, n_documents, bad.n))
    };
    let (mut n_documents, mut n_bad_records, mut hashes) = (0, 0, Vec::new());
    let mut sums = vec![TermSums::new(terms)];
    let first_shard = 0;
    map_blocks(
        &config.shards,
        &config.rules,
        first_shard,
        counters,
        progress,
        count_block,
        |step| {
            match step {
                Step::Block((counts, n, n_bad)) => {
                    add_by_group(&mut sums, terms, &counts);
                    n_documents += n;
                    n_bad_records += n_bad;
                }
                Step::EndOfShard(_, summary) => hashes.push(summary.sha256),
            }
            Ok(())
        },
    )?;
    let groups = sort_groups(&subsets.into_names(), config.by_subset);
    // A group without occurrences may have no sums.
    let mut totals = vec![TermSums::new(terms).totals(); groups.names.len()];
    for (index, sums) in groups.indices.iter().zip(&sums) {
        totals[*index as usize] = sums.totals();
    }
    Ok(ShardTermCounts {
        groups: groups.names,
        totals,
        n_documents,
        n_bad_records,
        shards: hashes,
    })
}

/// Decodes the documents of a dataset.
#[derive(Debug, Clone, Copy)]
pub struct DocumentDecoder<'a> {
    /// The bytes of each token.
    pub token_bytes: &'a TokenBytes,
    /// The end-of-document token. As the last token of a document, it is not part of the text.
    pub eod: Option<u32>,
}

/// Counts terms in the decoded documents of a source. Returns the counts of each group. `progress` advances by
/// tokens.
///
/// # Errors
/// The source cannot be read, or a stop.
pub fn count_terms_in_documents<'t, S: TokenSource>(
    documents: &GroupedDocuments<'_, S>,
    terms: &'t Terms,
    decoder: DocumentDecoder<'_>,
    n_threads: usize,
    progress: &Progress,
) -> Result<Vec<TermTotals>> {
    let source = documents.source;
    let firsts = work_items(source)?;
    let work = |number: usize, state: &mut Option<(TermCounter<'t>, Vec<u8>)>| {
        let (counter, text) = state.get_or_insert_with(|| (TermCounter::new(terms), Vec::new()));
        let (mut counts, mut n_tokens) = (Vec::new(), 0);
        for document in firsts[number]..firsts[number + 1] {
            let group = documents.groups.get(document as usize);
            let length = source.document_length(document)?;
            let span = Span {
                document,
                start: 0,
                length,
            };
            let mut tokens = source.tokens(&[span])?;
            tokens.pop_if(|id| Some(*id) == decoder.eod.map(i64::from));
            let (end, _) = decoder.token_bytes.decode(tokens.into_iter(), text, 0)?;
            counts.extend(counter.begin(group.copied().unwrap_or(0)));
            counter.add(&text[..end]);
            n_tokens += length;
        }
        counts.push(counter.take());
        progress.advance(n_tokens)?;
        Ok(counts)
    };
    let mut sums: Vec<TermSums<'_>> = (0..documents.n_groups)
        .map(|_| TermSums::new(terms))
        .collect();
    in_order(firsts.len() - 1, n_threads, work, |counts| {
        add_by_group(&mut sums, terms, &counts);
        Ok(())
    })?;
    Ok(sums.iter().map(TermSums::totals).collect())
}
