//! A slow reference: a map of all windows.

use std::collections::HashMap;

/// A repeated range of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferencePassage {
    /// Number of the document.
    pub document: usize,
    /// First byte, untrimmed.
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
    // For each window, its first occurrence and their number.
    let mut seen: HashMap<&[u8], ((usize, usize), u64)> = HashMap::new();
    for (document, text) in texts.iter().enumerate() {
        for (start, window) in text.as_bytes().windows(length).enumerate() {
            seen.entry(window).or_insert(((document, start), 0)).1 += 1;
        }
    }
    let mut passages: Vec<ReferencePassage> = Vec::new();
    for (document, text) in texts.iter().enumerate() {
        for (start, window) in text.as_bytes().windows(length).enumerate() {
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
