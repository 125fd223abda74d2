//! Where the bytes that a dataset stores for a text are in that text.
//!
//! Most texts are stored as they are. NFC replaces characters, an added token may take white space around it, and some
//! tokenizers put a space first: there, only the ends of what was replaced have an origin.

use super::super::model::added_tokens::{AddedTokenSplit, AddedTokenSplits};
use crate::text::{
    classes::{ClassTable, code_point_at},
    nfc::{nfc_always, starts_segment},
};
use crate::tokenize::model::tokenizer::Tokenizer;

/// A stretch of a stored text, after the one before it, and the stretch of the original that it was made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stretch {
    stored_end: usize,
    text_end: usize,
    /// Whether both have the same bytes. Otherwise no byte inside has an origin.
    is_equal: bool,
    /// Whether the end has an origin.
    is_end_known: bool,
}

/// The stretches of a stored text, in order.
#[derive(Debug, Default)]
pub(crate) struct Alignment {
    stretches: Vec<Stretch>,
}

impl Alignment {
    fn ends(&self) -> (usize, usize) {
        let last = self.stretches.last();
        last.map_or((0, 0), |last| (last.stored_end, last.text_end))
    }

    /// Adds a stretch of these lengths whose end has an origin.
    fn push(&mut self, n_stored: usize, n_text: usize, is_equal: bool) {
        let (stored, text) = self.ends();
        let new = Stretch {
            stored_end: stored + n_stored,
            text_end: text + n_text,
            is_equal,
            is_end_known: true,
        };
        match self.stretches.last_mut() {
            // Fewer stretches: a text has thousands of equal characters.
            Some(last) if last.is_equal && is_equal && last.is_end_known => *last = new,
            _ => self.stretches.push(new),
        }
    }

    /// Adds what was made from the stored bytes `start..end` of `before`, as they are.
    fn push_part(&mut self, before: &Alignment, start: usize, end: usize) {
        let first = before.stretches.partition_point(|s| s.stored_end <= start);
        let mut at = start;
        for stretch in &before.stretches[first..] {
            if at >= end {
                break;
            }
            let part_end = stretch.stored_end.min(end);
            let n_text = before.floor(part_end) - before.floor(at);
            let is_cut = !stretch.is_equal && (part_end < stretch.stored_end);
            self.push(part_end - at, n_text, stretch.is_equal);
            if let Some(last) = self.stretches.last_mut() {
                last.is_end_known = !is_cut && (stretch.is_equal || stretch.is_end_known);
            }
            at = part_end;
        }
    }

    /// The origin of a stored byte, or the start of the stretch that it is inside of.
    fn floor(&self, stored: usize) -> usize {
        let found = self.stretches.partition_point(|s| s.stored_end <= stored);
        let start = found.checked_sub(1).map_or((0, 0), |i| {
            (self.stretches[i].stored_end, self.stretches[i].text_end)
        });
        match self.stretches.get(found) {
            Some(stretch) if stretch.is_equal => start.1 + stored - start.0,
            _ => start.1,
        }
    }

    /// Finds origins of ascending offsets.
    pub(crate) fn into_origins(self) -> Origins {
        Origins {
            stretches: self.stretches,
            current: 0,
        }
    }
}

/// Finds origins of stored offsets.
#[derive(Debug)]
pub(crate) struct Origins {
    stretches: Vec<Stretch>,
    /// The stretch of the last offset.
    current: usize,
}

impl Origins {
    /// The offset in the text of a stored byte, which does not precede the one that was asked for before; `None`
    /// inside of what was replaced.
    pub(crate) fn of(&mut self, stored: usize) -> Option<usize> {
        if stored == 0 {
            return Some(0);
        }
        while self.stretches.get(self.current)?.stored_end < stored {
            self.current += 1;
        }
        let stretch = self.stretches[self.current];
        let is_end = stretch.stored_end == stored;
        let is_known = if is_end {
            stretch.is_end_known
        } else {
            stretch.is_equal
        };
        is_known.then(|| stretch.text_end - (stretch.stored_end - stored))
    }
}

impl Tokenizer {
    /// Where the bytes of [`Self::normalize_document`] are in `text`.
    pub(crate) fn alignment(&self, text: &str) -> Alignment {
        let mut alignment = Alignment::default();
        let mut splits = self.raw_added_tokens.split(text);
        while let Some(range) = splits.next_range(text) {
            match range.split {
                AddedTokenSplit::Token(id) => {
                    let stored = self.token_bytes(id).unwrap_or_default();
                    push_token(&mut alignment, stored, text.as_bytes(), range.end);
                }
                AddedTokenSplit::Text(part) => {
                    let of_part = self.part_alignment(part);
                    // A token may include white space that the one before it has too.
                    if range.end - part.len() == alignment.ends().1 {
                        alignment.push_part(&of_part, 0, of_part.ends().0);
                    } else {
                        let n_text = range.end.saturating_sub(alignment.ends().1);
                        alignment.push(of_part.ends().0, n_text, false);
                    }
                }
            }
        }
        alignment
    }

    /// That of a text without the added tokens of raw texts.
    fn part_alignment(&self, part: &str) -> Alignment {
        let (normalized, of_nfc) = match self.is_nfc {
            true => nfc_alignment(part),
            false => {
                let mut same = Alignment::default();
                same.push(part.len(), part.len(), true);
                (part.to_owned(), same)
            }
        };
        if self.space_runs.is_some() {
            return of_nfc;
        }
        let mut alignment = Alignment::default();
        let mut at = 0;
        let mut splits = self.normalized_added_tokens.split(&normalized);
        while let Some(range) = splits.next_range(&normalized) {
            match range.split {
                AddedTokenSplit::Token(id) => {
                    let stored = self.token_bytes(id).unwrap_or_default();
                    let end = range.end.max(at);
                    if normalized.as_bytes()[at..end] == *stored {
                        alignment.push_part(&of_nfc, at, end);
                    } else {
                        let n_text = of_nfc.floor(end) - of_nfc.floor(at);
                        alignment.push(stored.len(), n_text, false);
                    }
                    at = end;
                }
                AddedTokenSplit::Text(text) => {
                    if self.adds_prefix_space && !text.starts_with(' ') {
                        alignment.push(1, 0, false);
                    }
                    let start = range.end - text.len();
                    if start == at {
                        alignment.push_part(&of_nfc, at, range.end);
                    } else {
                        let n_text = of_nfc.floor(range.end.max(at)) - of_nfc.floor(at);
                        alignment.push(text.len(), n_text, false);
                    }
                    at = range.end.max(at);
                }
            }
        }
        alignment
    }
}

/// Adds a token that was made from the text up to `end`.
fn push_token(alignment: &mut Alignment, stored: &[u8], text: &[u8], end: usize) {
    let start = alignment.ends().1;
    let end = end.max(start);
    alignment.push(stored.len(), end - start, *stored == text[start..end]);
}

/// A split and its end in the text.
struct SplitRange<'t> {
    split: AddedTokenSplit<'t>,
    end: usize,
}

impl<'t> AddedTokenSplits<'t> {
    fn next_range(&mut self, text: &'t str) -> Option<SplitRange<'t>> {
        let split = self.next()?;
        let end = match split {
            AddedTokenSplit::Token(_) => self.end(),
            AddedTokenSplit::Text(part) => part.as_ptr().addr() - text.as_ptr().addr() + part.len(),
        };
        Some(SplitRange { split, end })
    }
}

/// A text in NFC and its alignment.
///
/// NFC changes a text by segments: no first character of one changes with those before it.
fn nfc_alignment(text: &str) -> (String, Alignment) {
    let classes = ClassTable::get();
    let (mut normalized, mut alignment) = (String::with_capacity(text.len()), Alignment::default());
    let mut start = 0;
    while start < text.len() {
        let mut end = start;
        for char in text[start..].chars() {
            let is_sure = !classes.is_nfc_suspect(char.into());
            if end > start && (is_sure || starts_segment(char)) {
                break;
            }
            end += char.len_utf8();
        }
        let segment = &text[start..end];
        let (first, n_bytes) = code_point_at(segment.as_bytes(), 0);
        if n_bytes == segment.len() && !classes.is_nfc_suspect(first) {
            alignment.push(n_bytes, n_bytes, true);
            normalized.push_str(segment);
        } else {
            let stored = nfc_always(segment);
            alignment.push(stored.len(), segment.len(), stored == segment);
            normalized.push_str(&stored);
        }
        start = end;
    }
    (normalized, alignment)
}

#[cfg(test)]
mod tests {
    use super::super::normalized::tests::{STRINGS, tokenizers};
    use proptest::{collection::vec, prelude::*, sample::select};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]
        #[test]
        fn a_text_up_to_an_origin_is_stored_as_the_bytes_up_to_it(strings in vec(select(&STRINGS[..]), 0..12)) {
            let text = strings.concat();
            for tokenizer in tokenizers() {
                let stored = tokenizer.normalize_document(&text);
                let mut origins = tokenizer.alignment(&text).into_origins();
                let found: Vec<_> = (0..=stored.len()).map(|at| origins.of(at)).collect();
                prop_assert_eq!(found[stored.len()].unwrap_or(text.len()), text.len());
                let mut ids = Vec::new();
                tokenizer.encoder().encode(&text, &mut ids).unwrap();
                let mut at = 0;
                for id in ids {
                    at += tokenizer.token_bytes(id).unwrap().len();
                    let Some(origin) = found[at].filter(|origin| text.is_char_boundary(*origin)) else { continue };
                    let before = tokenizer.normalize_document(&text[..origin]);
                    let after = tokenizer.normalize_document(&text[origin..]);
                    // White space between them may belong to an added token.
                    prop_assert!(
                        *before == stored[..at] || after.ends_with(&stored[at..]),
                        "{text:?} {stored:?} {at} {origin}"
                    );
                }
                // A token takes the space after it, and the tokenizer puts one there: the same bytes, by chance.
                let is_by_chance = tokenizer.adds_prefix_space && text.contains("<strip> ");
                if *stored == *text.as_bytes() && !is_by_chance {
                    prop_assert!(found.iter().enumerate().all(|(at, origin)| *origin == Some(at)));
                }
            }
        }

        #[test]
        fn characters_that_normalization_keeps_have_origins(
            // U+F900 is replaced by another character, U+037E by a semicolon.
            strings in vec(select(&["a", "b", "e\u{301}", "é", "\u{1112}\u{1161}", "語", "\u{f900}", "\u{37e}"][..]), 0..12),
        ) {
            let text = strings.concat();
            let tokenizer = tokenizers().into_iter().find(|t| t.normalizer().is_some()).unwrap();
            let stored = tokenizer.normalize_document(&text);
            let mut origins = tokenizer.alignment(&text).into_origins();
            for (end, _) in text.char_indices().chain([(text.len(), ' ')]) {
                let before = tokenizer.normalize_document(&text[..end]);
                let is_inside = text[end..].starts_with(['\u{301}', '\u{1161}']);
                if !is_inside && stored.starts_with(&before) {
                    prop_assert_eq!(origins.of(before.len()), Some(end));
                }
            }
        }
    }
}
