//! Queries of clauses: documents with an occurrence of at least one alternative of every clause (and over
//! or).

use crate::{Error, Result};

/// An occurrence of one of a clause's alternatives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClauseOccurrence {
    /// The document.
    pub document: u64,
    /// The first token, counted from the start of the document.
    pub token_offset: u64,
    /// Number of tokens.
    pub n_tokens: u64,
}

impl ClauseOccurrence {
    /// One past the last token, counted from the start of the document.
    fn end(&self) -> u64 {
        self.token_offset + self.n_tokens
    }
}

/// A document with an occurrence of every clause, and the shortest run of tokens that contains one of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DocumentMatch {
    /// The document.
    pub document: u64,
    /// The first token of the run, counted from the start of the document. Of several shortest runs, this is
    /// the first.
    pub token_offset: u64,
    /// Number of tokens of the run.
    pub n_tokens: u64,
}

/// The documents with an occurrence of every clause, in order. With `window`, only those where a run of at
/// most `window` tokens contains an occurrence of every clause.
///
/// `clauses` holds the occurrences of each clause's alternatives, in any order. The result is exact.
///
/// # Errors
/// There are no clauses.
pub fn combine(
    clauses: &[Vec<ClauseOccurrence>],
    window: Option<u64>,
) -> Result<Vec<DocumentMatch>> {
    if clauses.is_empty() {
        return Err(Error::argument("the query has no clauses"));
    }
    let all = clauses
        .iter()
        .enumerate()
        .flat_map(|(clause, found)| found.iter().map(move |occurrence| (clause, occurrence)));
    let mut all: Vec<(usize, &ClauseOccurrence)> = all.collect();
    all.sort_unstable_by_key(|(_, occurrence)| (occurrence.document, occurrence.end()));
    let found = all
        .chunk_by(|(_, a), (_, b)| a.document == b.document)
        .filter_map(|in_document| shortest_run(in_document, clauses.len()));
    Ok(found
        .filter(|found| window.is_none_or(|window| found.n_tokens <= window))
        .collect())
}

/// The shortest run that contains an occurrence of every clause; None if a clause has none.
///
/// `occurrences` are of one document, with the clause of each, sorted by their ends. Of all runs with the
/// same end, the shortest one takes the latest start of each clause among the occurrences up to that end.
fn shortest_run(
    occurrences: &[(usize, &ClauseOccurrence)],
    n_clauses: usize,
) -> Option<DocumentMatch> {
    let mut latest_starts: Vec<Option<u64>> = vec![None; n_clauses];
    let mut shortest: Option<DocumentMatch> = None;
    for (clause, occurrence) in occurrences {
        latest_starts[*clause] = latest_starts[*clause].max(Some(occurrence.token_offset));
        // None is the least: a clause has not occurred yet.
        let Some(Some(token_offset)) = latest_starts.iter().copied().min() else {
            continue;
        };
        let n_tokens = occurrence.end() - token_offset;
        if shortest.is_none_or(|shortest| n_tokens < shortest.n_tokens) {
            shortest = Some(DocumentMatch {
                document: occurrence.document,
                token_offset,
                n_tokens,
            });
        }
    }
    shortest
}
