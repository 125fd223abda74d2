//! The texts with n-grams of items, on disk: what is scored once the rarity of all n-grams is known.
//!
//! A text is written as its number in the file's unit (a record of a shard, or a document), its distinct n-grams, and
//! its passages: the hits with [`PASSAGE_WORDS`] words before and after them. Hits whose words before and after overlap
//! or touch share a passage, so a question and all that is near it are in one passage.

use std::{ops::Range, path::Path};

use super::{
    items::{BenchmarkItems, Hit, MIN_WORDS},
    words::{WordNumbers, Words},
};
use crate::{Error, Result};

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
        let mut grams: Vec<u32> = self.hits.iter().map(|hit| hit.gram).collect();
        grams.sort_unstable();
        grams.dedup();
        let passages = self.passages();
        let put = |out: &mut Vec<u8>, number: u64| out.extend_from_slice(&number.to_le_bytes());
        put(out, document);
        put(out, grams.len() as u64);
        put(out, passages.len() as u64);
        for gram in &grams {
            out.extend_from_slice(&gram.to_le_bytes());
        }
        for passage in &passages {
            put(out, first_byte + passage.start as u64);
            put(out, passage.len() as u64);
        }
        for passage in passages {
            out.extend_from_slice(&text[passage]);
        }
        true
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

    /// The bytes of the hits and the words near them.
    fn passages(&self) -> Vec<Range<usize>> {
        let mut passages: Vec<Range<usize>> = Vec::new();
        let mut last: Option<Range<usize>> = None;
        for hit in &self.hits {
            let start = hit.word.saturating_sub(PASSAGE_WORDS);
            let end = (hit.word + hit.n_words + PASSAGE_WORDS).min(self.numbers.len());
            match &mut last {
                Some(words) if start <= words.end => words.end = words.end.max(end),
                _ => {
                    passages.extend(last.take().map(|words| self.bytes_of(words)));
                    last = Some(start..end);
                }
            }
        }
        passages.extend(last.map(|words| self.bytes_of(words)));
        passages
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
#[derive(Debug)]
pub(super) struct SpilledText<'a> {
    /// The number of its record or document.
    pub(super) document: u64,
    grams: &'a [u8],
    passages: &'a [u8],
    texts: &'a [u8],
}

/// A part of a text, with the byte at which it starts.
#[derive(Debug, Clone, Copy)]
pub(super) struct MatchedPassage<'a> {
    pub(super) first_byte: u64,
    pub(super) text: &'a [u8],
}

fn number(bytes: &[u8]) -> u64 {
    bytes
        .first_chunk()
        .map_or(0, |chunk| u64::from_le_bytes(*chunk))
}

impl<'a> SpilledText<'a> {
    /// The distinct n-grams, ascending.
    pub(super) fn grams(&self) -> impl Iterator<Item = u32> + use<'a> {
        let chunks = self.grams.as_chunks::<4>().0.iter();
        chunks.map(|chunk| u32::from_le_bytes(*chunk))
    }

    /// The passages, in the order of the text.
    pub(super) fn passages(&self) -> impl Iterator<Item = MatchedPassage<'a>> + use<'a> {
        let mut rest = self.texts;
        self.passages.as_chunks::<16>().0.iter().map(move |entry| {
            let length = (number(&entry[8..]) as usize).min(rest.len());
            let (text, after) = rest.split_at(length);
            rest = after;
            MatchedPassage {
                first_byte: number(entry),
                text,
            }
        })
    }
}

/// Calls `visit` with each text in the bytes of the file at `path`.
///
/// # Errors
/// The bytes are not what was written, or an error of `visit`.
pub(super) fn each_text<'a>(
    path: &Path,
    mut bytes: &'a [u8],
    n_grams: usize,
    mut visit: impl FnMut(SpilledText<'a>) -> Result<()>,
) -> Result<()> {
    while !bytes.is_empty() {
        let parsed = parse(bytes).filter(|(text, _)| text.grams().all(|g| (g as usize) < n_grams));
        let Some((text, rest)) = parsed else {
            let what = "is damaged: remove the folder and run the same command again";
            return Err(Error::malformed(path, what));
        };
        visit(text)?;
        bytes = rest;
    }
    Ok(())
}

fn parse(bytes: &[u8]) -> Option<(SpilledText<'_>, &[u8])> {
    let (head, rest) = bytes.split_at_checked(24)?;
    let n_grams = usize::try_from(number(&head[8..])).ok()?;
    let n_passages = usize::try_from(number(&head[16..])).ok()?;
    let (grams, rest) = rest.split_at_checked(n_grams.checked_mul(4)?)?;
    let (passages, rest) = rest.split_at_checked(n_passages.checked_mul(16)?)?;
    let lengths = passages.as_chunks::<16>().0.iter();
    let n_bytes = lengths.map(|entry| number(&entry[8..]));
    let n_bytes = n_bytes.fold(0, u64::saturating_add);
    let (texts, rest) = rest.split_at_checked(usize::try_from(n_bytes).ok()?)?;
    let text = SpilledText {
        document: number(head),
        grams,
        passages,
        texts,
    };
    Some((text, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contamination::{ItemPart, Role};
    use proptest::{collection::vec, prelude::*};

    fn items(text: &str) -> BenchmarkItems {
        let part = ItemPart {
            item: 0,
            role: Role::Question,
            text: text.to_owned(),
        };
        BenchmarkItems::new(1, vec![part], 8).unwrap()
    }

    fn scanned(items: &BenchmarkItems, text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        TextScanner::new(items).scan(7, 100, text.as_bytes(), &mut out);
        out
    }

    #[test]
    fn passages_have_the_words_near_hits() {
        let items = items("one two three four");
        let filler: String = (0..200).map(|i| format!("w{i}, ")).collect();
        let text = format!("{filler}(One two three four!) {filler}one two three four. {filler}");
        let bytes = scanned(&items, &text);
        let mut found = Vec::new();
        each_text(Path::new("a"), &bytes, items.n_grams(), |text| {
            assert_eq!(
                (text.document, text.grams().collect::<Vec<_>>()),
                (7, vec![0])
            );
            found.extend(text.passages().map(|p| (p.first_byte, p.text.to_vec())));
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
    fn damaged_files_are_named() {
        let items = items("one two three four");
        let bytes = scanned(&items, "one two three four");
        let count = |bytes: &[u8]| {
            let mut n = 0;
            let visit = |_: SpilledText<'_>| {
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
        let mut other = bytes;
        other[24] = 1;
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
            for hit in hits {
                prop_assert!(scanner.candidates.contains(&hit));
            }
        }
    }
}
