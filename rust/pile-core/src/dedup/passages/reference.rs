//! A slow reference: a map of all windows.

use std::{collections::HashMap, hash::Hash};

use crate::tokenize::Tokenizer;

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
/// least twice. They start and end at tokens that start and end at characters.
///
/// # Panics
/// If a text cannot be tokenized.
#[must_use]
pub fn token_passages(
    texts: &[&str],
    tokenizer: &Tokenizer,
    length: usize,
    every_copy: bool,
) -> Vec<ReferencePassage> {
    let ids = |text: &&str| {
        let mut ids = Vec::new();
        let encoded = tokenizer.encoder().encode(text, &mut ids);
        encoded.map(|()| ids).expect("the text can be tokenized")
    };
    let documents: Vec<Vec<u32>> = texts.iter().map(ids).collect();
    let slices: Vec<&[u32]> = documents.iter().map(Vec::as_slice).collect();
    let borders: Vec<_> = texts
        .iter()
        .zip(&documents)
        .map(|(text, ids)| token_borders(text, tokenizer, ids))
        .collect();
    let next = |document: usize, from: usize| {
        let borders: &Vec<Option<usize>> = &borders[document];
        (from..borders.len()).find_map(|i| borders[i].map(|offset| (i, offset)))
    };
    let mut passages = repeated(&slices, length, every_copy);
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

/// The offset in a text of each border of its tokens that is one of characters: the text up to it is stored as the
/// bytes of the tokens up to it.
fn token_borders(text: &str, tokenizer: &Tokenizer, ids: &[u32]) -> Vec<Option<usize>> {
    let stored = tokenizer.normalize_document(text);
    let mut offsets = HashMap::new();
    for end in (0..=text.len()).filter(|end| text.is_char_boundary(*end)) {
        if *stored == *text.as_bytes() {
            offsets.insert(end, end);
            continue;
        }
        let before = tokenizer.normalize_document(&text[..end]);
        if stored.starts_with(&before) {
            offsets.insert(before.len(), end);
        }
    }
    let n_bytes = |id: &u32| tokenizer.token_bytes(*id).map_or(0, <[u8]>::len);
    (0..=ids.len())
        .map(|i| offsets.get(&ids[..i].iter().map(n_bytes).sum()).copied())
        .collect()
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
