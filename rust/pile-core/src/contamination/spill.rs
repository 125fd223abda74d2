//! The texts with n-grams of items, on disk: what is scored once the rarity of all n-grams is known.
//!
//! A text is written as its number in the file's unit (a record of a shard, or a document), and its passages: the hits,
//! and if items have answers the [`PASSAGE_WORDS`] words before and after them. Hits whose words before and after overlap
//! or touch share a passage, so a question and all that is near it are in one passage. The hits are written too, so that
//! scoring searches for nothing again.

use std::{ops::Range, path::Path};

use super::{
    items::{BenchmarkItems, Hit, MIN_WORDS},
    words::{WordNumbers, Words},
};
use crate::{
    Error, Result,
    bytes::{put_varint, take_varint},
};

/// Most words between a question and an answer that is near it.
pub const NEAR_WORDS: usize = 64;

/// Words before and after a hit in its passage. An answer of fewer than [`MIN_WORDS`] words has no hit, and all its words
/// must be in the passage of the question.
const PASSAGE_WORDS: usize = NEAR_WORDS + MIN_WORDS - 1;

/// Most words between two n-grams of one region: regions are never cut by the end of a passage.
pub const MAX_GAP: usize = NEAR_WORDS;

/// Finds the n-grams in texts, and writes the texts that have any. Its buffers are reused.
#[derive(Debug)]
pub(super) struct TextScanner<'a> {
    items: &'a BenchmarkItems,
    numbers: WordNumbers,
    /// What may be n-grams of the text.
    candidates: Vec<Hit>,
    /// Consecutive words with candidates.
    words: Words,
    prefixes: Vec<u64>,
    /// The n-grams of the text.
    hits: Vec<Hit>,
}

impl<'a> TextScanner<'a> {
    pub(super) fn new(items: &'a BenchmarkItems) -> Self {
        Self {
            items,
            numbers: WordNumbers::default(),
            candidates: Vec::new(),
            words: Words::default(),
            prefixes: Vec::new(),
            hits: Vec::new(),
        }
    }

    /// Appends a text to `out` if it has an n-gram of an item. `first_byte` is that of the text in its document.
    /// Returns whether it has one.
    pub(super) fn scan(
        &mut self,
        document: u64,
        first_byte: u64,
        text: &[u8],
        out: &mut Vec<u8>,
    ) -> bool {
        self.find_hits(text);
        if self.hits.is_empty() {
            return false;
        }
        let passages = self.passages();
        let put = |out: &mut Vec<u8>, number: usize| {
            out.extend_from_slice(&(number as u64).to_le_bytes())
        };
        out.extend_from_slice(&document.to_le_bytes());
        put(out, passages.len());
        // Replaced below by the number of bytes of the hits.
        let n_hit_bytes = out.len();
        put(out, 0);
        for passage in &passages {
            out.extend_from_slice(&(first_byte + passage.bytes.start as u64).to_le_bytes());
            put(out, passage.bytes.len());
            put(out, passage.hits.len());
        }
        let first_hit = out.len();
        for passage in &passages {
            self.put_hits(passage, out);
        }
        let n_bytes = (out.len() - first_hit) as u64;
        out[n_hit_bytes..n_hit_bytes + 8].copy_from_slice(&n_bytes.to_le_bytes());
        for passage in passages {
            out.extend_from_slice(&text[passage.bytes]);
        }
        true
    }

    /// Writes the hits of a passage. Their words and bytes are counted from the hit before, or from the start of the
    /// passage, so that most of the numbers take one byte.
    fn put_hits(&self, passage: &FoundPassage, out: &mut Vec<u8>) {
        let (mut word, mut byte) = (passage.first_word, passage.bytes.start);
        for hit in &self.hits[passage.hits.clone()] {
            let source = self.numbers.source(hit.word..hit.word + hit.n_words);
            put_varint(out, hit.gram.into());
            put_varint(out, (hit.word - word) as u64);
            put_varint(out, (source.start - byte) as u64);
            put_varint(out, source.len() as u64);
            (word, byte) = (hit.word, source.start);
        }
    }

    /// Finds the n-grams of a text. Only the words in which they may be are normalized and compared.
    fn find_hits(&mut self, text: &[u8]) {
        self.hits.clear();
        self.numbers.read(text);
        self.items
            .put_candidates(&self.numbers, &mut self.candidates);
        for candidates in self.candidates.chunk_by(touches) {
            let range = words_of(candidates);
            self.words.read(&text[self.numbers.source(range.clone())]);
            if self.words.len() != range.len() {
                // One character may become the end of a word and the start of another one, and then the bytes of a
                // word are also some of its neighbor. Only the whole text tells which words they are.
                self.words.read(text);
                self.items
                    .find(&self.words, &mut self.prefixes, &mut self.hits);
                return;
            }
            let is_hit = |hit: &&Hit| self.items.is_hit(hit, &self.words, range.start);
            self.hits.extend(candidates.iter().filter(is_hit));
        }
    }

    /// The hits, and the words near them if answers may be there.
    fn passages(&self) -> Vec<FoundPassage> {
        let mut passages: Vec<FoundPassage> = Vec::new();
        // The words and the hits of the passage that may still grow.
        let mut last: Option<(Range<usize>, Range<usize>)> = None;
        for (number, hit) in self.hits.iter().enumerate() {
            let end = hit.word + hit.n_words;
            match &mut last {
                // The words after the one hit and before the other would touch.
                Some((words, hits)) if hit.word <= words.end + 2 * PASSAGE_WORDS => {
                    words.end = words.end.max(end);
                    hits.end = number + 1;
                }
                _ => {
                    passages.extend(last.take().map(|last| self.passage(last)));
                    last = Some((hit.word..end, number..number + 1));
                }
            }
        }
        passages.extend(last.map(|last| self.passage(last)));
        passages
    }

    /// The passage of these hits, from the first to the last of whose words are `words`.
    fn passage(&self, (words, hits): (Range<usize>, Range<usize>)) -> FoundPassage {
        let n_near = match self.items.has_answers {
            true => PASSAGE_WORDS,
            false => 0,
        };
        let end = (words.end + n_near).min(self.numbers.len());
        let words = words.start.saturating_sub(n_near)..end;
        FoundPassage {
            first_word: words.start,
            bytes: self.bytes_of(words),
            hits,
        }
    }

    /// The bytes of these words and of what is before and after them up to the next words: an item may begin or end
    /// with punctuation.
    fn bytes_of(&self, words: Range<usize>) -> Range<usize> {
        let source = self.numbers.source(words.clone());
        let start = match words.start {
            0 => 0,
            first => self.numbers.source(first - 1..first).end.min(source.start),
        };
        let end = match words.end {
            end if end < self.numbers.len() => {
                self.numbers.source(end..end + 1).start.max(source.end)
            }
            _ => self.numbers.n_source_bytes(),
        };
        start..end
    }
}

/// Consecutive words of a text with hits.
struct FoundPassage {
    first_word: usize,
    /// Its bytes in the text.
    bytes: Range<usize>,
    /// Indices of its hits.
    hits: Range<usize>,
}

/// Whether two successive windows overlap or touch.
fn touches(before: &Hit, after: &Hit) -> bool {
    after.word <= before.word + before.n_words
}

/// The words of windows of which each touches the next.
fn words_of(windows: &[Hit]) -> Range<usize> {
    let ends = windows.iter().map(|window| window.word + window.n_words);
    windows.first().map_or(0, |first| first.word)..ends.max().unwrap_or(0)
}

/// A text that was written.
#[derive(Debug, Default)]
pub(super) struct SpilledText<'a> {
    /// The number of its record or document.
    pub(super) document: u64,
    /// The passages, in the order of the text.
    pub(super) passages: Vec<MatchedPassage<'a>>,
    /// The n-grams, by first word and then by length.
    pub(super) hits: Vec<SpilledHit>,
}

/// A part of a text, with the byte at which it starts.
#[derive(Debug, Clone, Copy)]
pub(super) struct MatchedPassage<'a> {
    pub(super) first_byte: u64,
    pub(super) text: &'a [u8],
}

/// An n-gram in a passage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SpilledHit {
    pub(super) gram: u32,
    /// Index of the passage.
    pub(super) passage: usize,
    /// Its first word, counted from that of the passage.
    pub(super) word: usize,
    /// Its bytes in the passage.
    pub(super) start: usize,
    pub(super) end: usize,
}

fn take_number(bytes: &mut &[u8]) -> Option<usize> {
    let (number, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    usize::try_from(u64::from_le_bytes(*number)).ok()
}

impl<'a> SpilledText<'a> {
    /// Replaces this text by the one at the start of `bytes`; returns the bytes after it. `None` if they are none that
    /// were written for items of `n_grams` n-grams.
    fn read(&mut self, mut bytes: &'a [u8], n_grams: usize) -> Option<&'a [u8]> {
        self.passages.clear();
        self.hits.clear();
        self.document = take_number(&mut bytes)? as u64;
        let (n_passages, n_hit_bytes) = (take_number(&mut bytes)?, take_number(&mut bytes)?);
        let (mut rows, rest) =
            bytes.split_at_checked(n_passages.checked_mul(PASSAGE_ROW_BYTES)?)?;
        let (mut hits, mut texts) = rest.split_at_checked(n_hit_bytes)?;
        for passage in 0..n_passages {
            let first_byte = take_number(&mut rows)? as u64;
            let (n_bytes, n_hits) = (take_number(&mut rows)?, take_number(&mut rows)?);
            let text;
            (text, texts) = texts.split_at_checked(n_bytes)?;
            self.passages.push(MatchedPassage { first_byte, text });
            let (mut word, mut start) = (0_usize, 0_usize);
            for _ in 0..n_hits {
                let mut take = || usize::try_from(take_varint(&mut hits)?).ok();
                let gram = take()?;
                word = word.checked_add(take()?)?;
                start = start.checked_add(take()?)?;
                let end = start.checked_add(take()?)?;
                if gram >= n_grams || end > n_bytes {
                    return None;
                }
                self.hits.push(SpilledHit {
                    gram: gram as u32,
                    passage,
                    word,
                    start,
                    end,
                });
            }
        }
        hits.is_empty().then_some(texts)
    }
}

/// Bytes of a passage in the file: its first byte in the document, its bytes, and its hits.
const PASSAGE_ROW_BYTES: usize = 3 * size_of::<u64>();

/// Calls `visit` with each text in the bytes of the file at `path`.
///
/// # Errors
/// The bytes are not what was written, or an error of `visit`.
pub(super) fn each_text<'a>(
    path: &Path,
    mut bytes: &'a [u8],
    n_grams: usize,
    mut visit: impl FnMut(&SpilledText<'a>) -> Result<()>,
) -> Result<()> {
    let mut text = SpilledText::default();
    while !bytes.is_empty() {
        let Some(rest) = text.read(bytes, n_grams) else {
            let what = "is damaged: remove the folder and run the same command again";
            return Err(Error::malformed(path, what));
        };
        visit(&text)?;
        bytes = rest;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contamination::{ItemPart, Role};
    use proptest::{collection::vec, prelude::*};

    fn items(text: &str, answer: Option<&str>) -> BenchmarkItems {
        let part = |(role, text): (Role, &str)| ItemPart {
            item: 0,
            role,
            text: text.to_owned(),
        };
        let question = std::iter::once((Role::Question, text));
        let parts = question.chain(answer.map(|answer| (Role::Answer, answer)));
        BenchmarkItems::new(1, parts.map(part).collect(), 8).unwrap()
    }

    fn scanned(items: &BenchmarkItems, text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        TextScanner::new(items).scan(7, 100, text.as_bytes(), &mut out);
        out
    }

    #[test]
    fn passages_have_the_words_near_hits() {
        let items = items("one two three four", Some("five"));
        let filler: String = (0..200).map(|i| format!("w{i}, ")).collect();
        let text = format!("{filler}(One two three four!) {filler}one two three four. {filler}");
        let bytes = scanned(&items, &text);
        let mut found = Vec::new();
        each_text(Path::new("a"), &bytes, items.n_grams(), |text| {
            assert_eq!(text.document, 7);
            for (number, (hit, passage)) in text.hits.iter().zip(&text.passages).enumerate() {
                assert_eq!(
                    (hit.gram, hit.passage, hit.word),
                    (0, number, PASSAGE_WORDS)
                );
                let window = passage.text[hit.start..hit.end].to_ascii_lowercase();
                assert_eq!(window, b"one two three four");
            }
            let passages = text.passages.iter();
            found.extend(passages.map(|p| (p.first_byte, p.text.to_vec())));
            Ok(())
        })
        .unwrap();
        assert_eq!(found.len(), 2);
        for (first, passage) in found {
            let start = first as usize - 100;
            assert_eq!(text.as_bytes()[start..start + passage.len()], passage);
            let passage = String::from_utf8(passage).unwrap();
            assert!(
                passage.starts_with(", w133, ") && passage.ends_with("w66, "),
                "{passage}"
            );
        }
    }

    #[test]
    fn passages_of_items_without_answers_are_the_hits() {
        let items = items("one two three four", None);
        let text = "zero (One two three four!) five";
        let bytes = scanned(&items, &format!("{text}{}{text}", " x".repeat(NEAR_WORDS)));
        let mut found = Vec::new();
        each_text(Path::new("a"), &bytes, items.n_grams(), |text| {
            found.extend(text.passages.iter().map(|p| p.text.to_vec()));
            Ok(())
        })
        .unwrap();
        // Both hits are near each other, and so in one passage.
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with(b" (One two") && found[0].ends_with(b"four!) "));
    }

    #[test]
    fn damaged_files_are_named() {
        let items = items("one two three four", None);
        let bytes = scanned(&items, "one two three four");
        let count = |bytes: &[u8]| {
            let mut n = 0;
            let visit = |_: &SpilledText<'_>| {
                n += 1;
                Ok(())
            };
            each_text(Path::new("file"), bytes, items.n_grams(), visit).map(|()| n)
        };
        assert_eq!(count(&[&bytes[..], &bytes].concat()).unwrap(), 2);
        for end in 1..bytes.len() {
            assert!(count(&bytes[..end]).is_err());
        }
        for at in 8..bytes.len() {
            for value in [0xff, 0x80] {
                let mut damaged = bytes.clone();
                damaged[at] ^= value;
                let _ = count(&damaged);
            }
        }
        // The n-gram of the first hit, after the three numbers of the text and those of its passage.
        let mut other = bytes;
        other[48] = 1;
        assert!(count(&other).unwrap_err().to_string().contains("damaged"));
    }

    /// Words, separators, and characters whose normalized form is the end of one word and the start of another.
    const FRAGMENTS: [&str; 18] = [
        "a",
        "B",
        "longerthan8",
        "Zwölf",
        "\u{bd}",
        "1\u{2044}2",
        "ﬁ",
        "㍻",
        "平成",
        "東",
        "\u{301}",
        "e\u{301}",
        " ",
        "-\n",
        ", ",
        " ",
        "_",
        "\u{ad}",
    ];

    proptest! {
        #[test]
        fn the_scan_finds_what_a_search_of_all_words_finds(
            text in vec(0..FRAGMENTS.len(), 0..120),
            parts in vec((0_usize..100, 4_usize..16), 1..5),
            cut in proptest::option::of(0_usize..300),
        ) {
            let fragments: Vec<&str> = text.iter().map(|number| FRAGMENTS[*number]).collect();
            let part = |(item, (start, n)): (usize, &(usize, usize))| {
                let start = (*start).min(fragments.len());
                let end = (start + 2 * n).min(fragments.len());
                let text = fragments[start..end].concat();
                ItemPart { item: item as u32, role: Role::Question, text }
            };
            let items = parts.iter().enumerate().map(part).collect();
            let items = BenchmarkItems::new(parts.len(), items, 6).unwrap();
            let mut text = fragments.concat().into_bytes();
            if let Some(at) = cut.filter(|at| *at < text.len()) {
                // As decoded tokens may be cut.
                text.remove(at);
            }
            let mut scanner = TextScanner::new(&items);
            scanner.find_hits(&text);
            let (mut words, mut hits) = (Words::default(), Vec::new());
            words.read(&text);
            items.find(&words, &mut Vec::new(), &mut hits);
            prop_assert_eq!(&scanner.hits, &hits);
            for hit in &hits {
                prop_assert!(scanner.candidates.contains(hit));
            }
            // What is written has the same hits, at the same bytes.
            let mut out = Vec::new();
            scanner.scan(7, 100, &text, &mut out);
            let mut written = Vec::new();
            each_text(Path::new("file"), &out, items.n_grams(), |text| {
                for hit in &text.hits {
                    let first = text.passages[hit.passage].first_byte as usize - 100;
                    written.push((hit.gram, first + hit.start..first + hit.end));
                }
                Ok(())
            }).unwrap();
            let source = |hit: &Hit| (hit.gram, words.source(hit.word..hit.word + hit.n_words));
            prop_assert_eq!(written, hits.iter().map(source).collect::<Vec<_>>());
        }
    }
}
