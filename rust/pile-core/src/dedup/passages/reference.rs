//! A slow reference: a map of all windows.

use std::{collections::HashMap, hash::Hash};

/// A repeated range of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferencePassage {
    /// Number of the document.
    pub document: usize,
    /// First byte, untrimmed; of tokens, the first token.
    pub raw_start: usize,
    /// End, untrimmed.
    pub raw_end: usize,
    /// First byte, at the start of a character.
    pub start: usize,
    /// End, at the end of a character.
    pub end: usize,
    /// Document and byte at which the first window occurs first.
    pub copy: (usize, usize),
}

/// The bytes of each text in windows of `length` bytes that also begin earlier, or with `every_copy`, that occur at
/// least twice.
#[must_use]
pub fn passages(texts: &[&str], length: usize, every_copy: bool) -> Vec<ReferencePassage> {
    let documents: Vec<&[u8]> = texts.iter().map(|text| text.as_bytes()).collect();
    let mut passages = repeated(&documents, length, every_copy);
    for passage in &mut passages {
        let text = texts[passage.document];
        while !text.is_char_boundary(passage.start) {
            passage.start += 1;
        }
        while !text.is_char_boundary(passage.end) {
            passage.end -= 1;
        }
        passage.copy.1 += passage.start - passage.raw_start;
    }
    passages
}

/// The bytes of each text in windows of `length` tokens that also begin earlier, or with `every_copy`, that occur at
/// least twice. They start and end at borders of tokens that have an offset in the text.
#[must_use]
pub fn token_passages(
    documents: &[&[u32]],
    borders: &[Vec<Option<usize>>],
    length: usize,
    every_copy: bool,
) -> Vec<ReferencePassage> {
    let next = |document: usize, from: usize| {
        let borders = &borders[document];
        (from..borders.len()).find_map(|i| borders[i].map(|offset| (i, offset)))
    };
    let mut passages = repeated(documents, length, every_copy);
    passages.retain_mut(|passage| {
        let (first, start) = next(passage.document, passage.start).unwrap_or_default();
        let before = (0..=passage.end).rev();
        let end = before.filter_map(|i| borders[passage.document][i]).next();
        let in_copy = passage.copy.1 + first - passage.start;
        let copy = next(passage.copy.0, in_copy).unwrap_or_default();
        (passage.start, passage.end, passage.copy.1) = (start, end.unwrap_or(0), copy.1);
        passage.start < passage.end
    });
    passages
}

/// The ranges of repeated windows of each document, untrimmed.
fn repeated<U: Hash + Eq>(
    documents: &[&[U]],
    length: usize,
    every_copy: bool,
) -> Vec<ReferencePassage> {
    // For each window, its first occurrence and their number.
    let mut seen: HashMap<&[U], ((usize, usize), u64)> = HashMap::new();
    for (document, units) in documents.iter().enumerate() {
        for (start, window) in units.windows(length).enumerate() {
            seen.entry(window).or_insert(((document, start), 0)).1 += 1;
        }
    }
    let mut passages: Vec<ReferencePassage> = Vec::new();
    for (document, units) in documents.iter().enumerate() {
        for (start, window) in units.windows(length).enumerate() {
            let (copy, n) = seen[window];
            let is_first = copy == (document, start);
            if n < 2 || (is_first && !every_copy) {
                continue;
            }
            let end = start + length;
            match passages.last_mut() {
                Some(last) if last.document == document && start <= last.raw_end => {
                    (last.raw_end, last.end) = (end, end);
                }
                _ => passages.push(ReferencePassage {
                    document,
                    raw_start: start,
                    raw_end: end,
                    start,
                    end,
                    copy,
                }),
            }
        }
    }
    passages
}
