//! Terms in all documents of shards, or of a token source.

use std::{
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use super::{
    in_order::in_order,
    ngrams::Grouped,
    terms::{Counted, TermCounter, Terms},
    words::{Group, Subsets, in_order_of_names},
};
use crate::{
    Result,
    progress::Progress,
    read::{Block, Rules, Step, map_blocks},
    tokenize::{TokenBytes, Tokenizer},
    tokens::{Span, TokenSource},
};

/// Tokens of a work item.
const ITEM_TOKENS: u64 = 1 << 18;

/// Counts of terms, by the number of the term, and of pairs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// Occurrences of each term asked for.
    pub occurrences: Vec<u64>,
    /// Documents, or samples, that hold it.
    pub units: Vec<u64>,
    /// How often the terms of each pair occur together.
    pub pairs: Vec<u64>,
}

/// Sums of what was counted of different terms.
#[derive(Debug)]
pub struct Sums<'a> {
    terms: &'a Terms,
    distinct: Totals,
}

impl<'a> Sums<'a> {
    /// Nothing yet.
    #[must_use]
    pub fn new(terms: &'a Terms) -> Self {
        let distinct = Totals {
            occurrences: vec![0; terms.n_distinct()],
            units: vec![0; terms.n_distinct()],
            pairs: vec![0; terms.n_pairs()],
        };
        Self { terms, distinct }
    }

    /// Adds what was counted.
    pub fn add(&mut self, counted: &Counted) {
        for (term, n, n_units) in &counted.terms {
            self.distinct.occurrences[*term as usize] += n;
            self.distinct.units[*term as usize] += n_units;
        }
        for (pair, n) in &counted.pairs {
            self.distinct.pairs[*pair as usize] += n;
        }
    }

    /// The sums for the terms in the order in which they were asked for.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let of = |counts: &[u64]| {
            let numbers = self.terms.numbers().iter();
            numbers.map(|number| counts[*number as usize]).collect()
        };
        Totals {
            occurrences: of(&self.distinct.occurrences),
            units: of(&self.distinct.units),
            pairs: self.distinct.pairs.clone(),
        }
    }
}

/// What was counted in documents.
#[derive(Debug)]
pub struct TermCounts {
    /// The subsets; one group for all where they are not told apart.
    pub groups: Vec<Group>,
    /// Counts of each group.
    pub totals: Vec<Totals>,
    /// Documents, empty ones included.
    pub n_documents: u64,
    /// Bad records that were left out.
    pub n_bad_records: u64,
    /// SHA-256 of each shard, in order.
    pub shards: Vec<String>,
}

fn add_all<'a>(sums: &mut Vec<Sums<'a>>, terms: &'a Terms, counted: &[Counted]) {
    for counted in counted {
        let group = counted.group as usize;
        while sums.len() <= group {
            sums.push(Sums::new(terms));
        }
        sums[group].add(counted);
    }
}

/// Counts terms in the documents of shards: in their texts as a dataset of `tokenizer` would hold them, or
/// without one as they are written. `progress` advances by compressed bytes.
///
/// # Errors
/// A shard cannot be read or is damaged, or a stop.
pub fn count_terms_in_shards(
    shards: &[PathBuf],
    rules: &Rules,
    terms: &Terms,
    by_subset: bool,
    tokenizer: Option<&Tokenizer>,
    (n_threads, progress): (usize, &Progress),
) -> Result<TermCounts> {
    let counters = (0..n_threads.max(1))
        .map(|_| TermCounter::new(terms))
        .collect();
    let subsets = Mutex::new(Subsets::default());
    let count = |counter: &mut TermCounter<'_>, block: &Block| {
        let (mut n_documents, mut all) = (0, Vec::new());
        let bad = block.each_document(|_, document| {
            let group = match by_subset {
                false => 0,
                true => subsets
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .number(document.subset.as_deref())?,
            };
            all.extend(counter.begin(u32::from(group)));
            match tokenizer {
                Some(tokenizer) => counter.add(&tokenizer.normalize_document(&document.text)),
                None => counter.add(document.text.as_bytes()),
            }
            n_documents += 1;
            Ok(())
        })?;
        all.push(counter.take());
        Ok((all, n_documents, bad.n))
    };
    let (mut n_documents, mut n_bad_records, mut hashes) = (0, 0, Vec::new());
    let mut sums = vec![Sums::new(terms)];
    map_blocks(shards, rules, 0, counters, progress, count, |step| {
        match step {
            Step::Block((counted, n, n_bad)) => {
                add_all(&mut sums, terms, &counted);
                n_documents += n;
                n_bad_records += n_bad;
            }
            Step::EndOfShard(_, summary) => hashes.push(summary.sha256),
        }
        Ok(())
    })?;
    let names = subsets
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
        .names;
    let (groups, places) = in_order_of_names(&names, by_subset);
    let mut totals = vec![Sums::new(terms).totals(); groups.len()];
    for (place, sums) in places.iter().zip(&sums) {
        totals[*place as usize] = sums.totals();
    }
    Ok(TermCounts {
        groups,
        totals,
        n_documents,
        n_bad_records,
        shards: hashes,
    })
}

/// Counts terms in the decoded documents of a source; one count for each group. A last token `eod` is no part
/// of a document's text. `progress` advances by tokens.
///
/// # Errors
/// The source cannot be read, or a stop.
pub fn count_terms_in_documents<'t, S: TokenSource>(
    documents: &Grouped<'_, S>,
    terms: &'t Terms,
    (table, eod): (&TokenBytes, Option<u32>),
    (n_threads, progress): (usize, &Progress),
) -> Result<Vec<Totals>> {
    let source = documents.source;
    let mut firsts = vec![0];
    let mut n_tokens = 0;
    for document in 0..source.n_documents() {
        n_tokens += source.document_length(document)?;
        if n_tokens >= ITEM_TOKENS || document + 1 == source.n_documents() {
            firsts.push(document + 1);
            n_tokens = 0;
        }
    }
    let work = |number: usize, state: &mut Option<(TermCounter<'t>, Vec<u8>)>| {
        let (counter, text) = state.get_or_insert_with(|| (TermCounter::new(terms), Vec::new()));
        let (mut all, mut n_tokens) = (Vec::new(), 0);
        for document in firsts[number]..firsts[number + 1] {
            let group = documents
                .groups
                .get(document as usize)
                .copied()
                .unwrap_or(0);
            let length = source.document_length(document)?;
            let span = Span {
                document,
                start: 0,
                length,
            };
            let mut tokens = source.tokens(&[span])?;
            tokens.pop_if(|id| Some(*id) == eod.map(i64::from));
            let (end, _) = table.decode(tokens.into_iter(), text, 0);
            all.extend(counter.begin(group));
            counter.add(&text[..end]);
            n_tokens += length;
        }
        all.push(counter.take());
        progress.advance(n_tokens)?;
        Ok(all)
    };
    let mut sums: Vec<Sums<'_>> = (0..documents.n_groups).map(|_| Sums::new(terms)).collect();
    in_order(firsts.len() - 1, n_threads, work, |counted| {
        add_all(&mut sums, terms, &counted);
        Ok(())
    })?;
    Ok(sums.iter().map(Sums::totals).collect())
}
