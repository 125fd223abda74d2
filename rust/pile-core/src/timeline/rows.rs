//! Which rows a text is seen in when no single row holds it.

use crate::order::View;

/// Every reading of the rows in which a span is seen, of the copy of its document that `views` are of.
///
/// A row that holds the whole span is one alone, and only such rows are given where there are any: a span of
/// one token, if two rows share it, is seen in both. Otherwise the rows of [`fewest_rows`].
pub(super) fn rows_that_show(views: &[View], n_tokens: u64) -> impl Iterator<Item = &View> {
    let is_whole = move |view: &&View| view.length == n_tokens;
    let has_whole = views.iter().any(|view| is_whole(&view));
    let cut = if has_whole {
        Vec::new()
    } else {
        fewest_rows(views)
    };
    views
        .iter()
        .filter(is_whole)
        .chain(cut.into_iter().flatten())
}

/// The smallest set of rows that together hold every token held by `views`, in the order of their tokens.
///
/// `views` are of one query and one copy of its document, sorted as [`crate::order::TrainingOrder::views`]
/// sorts them. Each item of the result is one row, with a view for each time that the order reads the row.
/// Rows overlap by one token: a row that holds only the token it shares with its neighbour is left out,
/// unless that token is all there is. Of sets of one size, which only rows of two tokens have, the one whose rows
/// reach furthest is taken.
pub(super) fn fewest_rows(views: &[View]) -> Vec<&[View]> {
    let mut rows = views
        .chunk_by(|a, b| (a.start, a.length, a.offset) == (b.start, b.length, b.offset))
        .peekable();
    let end = |row: &[View]| row[0].start + row[0].length;
    let mut taken: Vec<&[View]> = Vec::new();
    let mut covered = rows.peek().map_or(0, |row| row[0].start);
    while let Some(first) = rows.next() {
        // Greedy interval cover: of the rows that start within what is covered, the one that reaches furthest.
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
        // Tokens that no row holds: the cover starts again behind them.
        if let Some(next) = rows.peek() {
            covered = covered.max(next[0].start);
        }
    }
    taken
}
