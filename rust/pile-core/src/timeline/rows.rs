//! The rows in which the model sees a span of a document, if no single row may hold all of it.

use crate::order::Appearance;

/// Returns the rows in which a span of `n_tokens` tokens is seen, one appearance for each time a row is read.
/// `appearances` are those of the span in one copy of its document.
///
/// If any row holds the whole span, these rows are the result. Otherwise it is [`fewest_rows`]. (Two rows may
/// hold the whole span if it is one token: neighbouring rows share a token.)
pub(super) fn rows_that_show(
    appearances: &[Appearance],
    n_tokens: u64,
) -> impl Iterator<Item = &Appearance> {
    let is_whole = move |appearance: &&Appearance| appearance.length == n_tokens;
    let has_whole = appearances.iter().any(|appearance| is_whole(&appearance));
    let parts = if has_whole {
        Vec::new()
    } else {
        fewest_rows(appearances)
    };
    appearances
        .iter()
        .filter(is_whole)
        .chain(parts.into_iter().flatten())
}

/// Returns the smallest set of rows that together hold every token held by `appearances`, sorted by token.
/// Each item is one row, as the appearances for each time that the order reads the row.
///
/// `appearances` are of one query and one copy of its document, sorted as
/// [`crate::order::TrainingOrder::appearances`] sorts them.
///
/// Neighbouring rows share one token. A row that holds nothing but the token shared with its neighbour is
/// therefore not needed, unless that token is the only one. If several sets have the smallest size, the rows
/// that reach furthest are taken; this can only happen with rows of two tokens, of which the one after the next starts
/// where a row ends.
pub(super) fn fewest_rows(appearances: &[Appearance]) -> Vec<&[Appearance]> {
    let mut rows = appearances
        .chunk_by(|a, b| (a.start, a.length, a.offset) == (b.start, b.length, b.offset))
        .peekable();
    let end = |row: &[Appearance]| row[0].start + row[0].length;
    let mut taken: Vec<&[Appearance]> = Vec::new();
    let mut covered = rows.peek().map_or(0, |row| row[0].start);
    while let Some(first) = rows.next() {
        // Greedy interval cover: of the rows that start within the covered tokens, take the one that reaches
        // furthest.
        let mut best = first;
        while let Some(row) = rows.next_if(|row| row[0].start <= covered) {
            if end(row) > end(best) {
                best = row;
            }
        }
        if end(best) > covered {
            taken.push(best);
            covered = end(best);
        }
        // No row holds the tokens up to the next row's start: continue the cover there.
        if let Some(next) = rows.peek() {
            covered = covered.max(next[0].start);
        }
    }
    taken
}
