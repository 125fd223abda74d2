//! And / or: documents that hold, for each of several clauses, at least one of its alternatives.

use crate::{Error, Result};

/// An occurrence of a clause: of any of its alternatives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    document: u64,
    end: u64,
    start: u64,
    clause: usize,
}

/// A document that holds all clauses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Combined {
    /// The document.
    pub document: u64,
    /// The first token of the shortest run that holds an occurrence of each clause whole; of several, the first run.
    pub token: u64,
    /// Tokens of that run.
    pub n_tokens: u64,
}

/// The documents in which, for each clause, one of its alternatives occurs, all of these within `window` tokens where
/// that is given. A clause is the occurrences of its alternatives: document, first token, tokens. Exact: every occurrence
/// is looked at.
///
/// # Errors
/// There are no clauses.
pub fn combine(clauses: &[Vec<(u64, u64, u64)>], window: Option<u64>) -> Result<Vec<Combined>> {
    if clauses.is_empty() {
        return Err(Error::argument("the query has no clauses"));
    }
    let all = clauses.iter().enumerate().flat_map(|(clause, places)| {
        places.iter().map(move |&(document, start, n_tokens)| Held {
            document,
            end: start + n_tokens,
            start,
            clause,
        })
    });
    let mut all: Vec<Held> = all.collect();
    all.sort_unstable();
    let found = all
        .chunk_by(|a, b| a.document == b.document)
        .filter_map(|held| shortest(held, clauses.len()));
    Ok(found
        .filter(|found| window.is_none_or(|window| found.n_tokens <= window))
        .collect())
}

/// The shortest run of a document that holds each clause. Of runs with the same end, the one that takes of each clause
/// the occurrence that begins last is the shortest.
fn shortest(held: &[Held], n_clauses: usize) -> Option<Combined> {
    let mut starts: Vec<Option<u64>> = vec![None; n_clauses];
    let mut best: Option<Combined> = None;
    for one in held {
        starts[one.clause] = starts[one.clause].max(Some(one.start));
        let Some(Some(token)) = starts.iter().copied().min() else {
            continue;
        };
        let n_tokens = one.end - token;
        if best.is_none_or(|best| n_tokens < best.n_tokens) {
            best = Some(Combined {
                document: one.document,
                token,
                n_tokens,
            });
        }
    }
    best
}
