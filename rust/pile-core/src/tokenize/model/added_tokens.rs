//! Splits text at its added tokens, such as `<|endoftext|>`, before it is split into pretokens.

use aho_corasick::{AhoCorasick, AhoCorasickKind, BuildError, FindIter, Match, MatchKind};
use regex_syntax::is_word_character;

/// An added token as tokenizer.json describes it.
#[derive(Debug, Clone)]
pub(crate) struct AddedToken {
    pub(crate) id: u32,
    pub(crate) content: String,
    /// Whether `decode` omits it on request.
    pub(crate) is_special: bool,
    /// Whether it matches normalized text, by its normalized content. Else it matches the raw text.
    pub(crate) is_normalized: bool,
    /// Whether it matches only where no word character (`\w`) is directly before or after it.
    pub(crate) is_single_word: bool,
    /// Whether a match includes the white space before it.
    pub(crate) strips_left: bool,
    /// Whether a match includes the white space after it.
    pub(crate) strips_right: bool,
}

/// Upper bound on the bytes of all contents of a file's added tokens. The automaton takes about a hundred bytes
/// of memory for each. Published files have a few kilobytes.
pub(crate) const MAX_CONTENT_BYTES: usize = 4 << 20;

/// Contents of up to this size get the automaton that the library finds fastest, which may take a kilobyte of
/// memory for each byte. Larger contents get the automaton that takes the least memory.
const MAX_FAST_BYTES: usize = 64 << 10;

/// Finds the occurrences of a set of added tokens: at each position the leftmost, and of these the longest.
#[derive(Debug)]
pub(crate) struct AddedTokens {
    /// None if there are no tokens.
    finder: Option<AhoCorasick>,
    tokens: Vec<AddedToken>,
}

/// An added token of a text, or the text between two of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AddedTokenSplit<'t> {
    /// The id of an added token.
    Token(u32),
    /// The text between added tokens. It is never empty.
    Text(&'t str),
}

impl AddedTokens {
    /// A finder of `tokens`. Of tokens with equal contents, the first one is found.
    ///
    /// # Errors
    /// The automaton is larger than the library supports.
    pub(crate) fn new(tokens: Vec<AddedToken>) -> Result<Self, BuildError> {
        let contents = tokens.iter().map(|t| &t.content);
        let n_bytes: usize = contents.clone().map(String::len).sum();
        let kind = (n_bytes > MAX_FAST_BYTES).then_some(AhoCorasickKind::ContiguousNFA);
        let finder = match tokens.len() {
            0 => None,
            _ => Some(
                AhoCorasick::builder()
                    .kind(kind)
                    .match_kind(MatchKind::LeftmostLongest)
                    .build(contents)?,
            ),
        };
        Ok(Self { finder, tokens })
    }

    /// Splits `text` at its added tokens.
    pub(crate) fn split<'t>(&'t self, text: &'t str) -> AddedTokenSplits<'t> {
        AddedTokenSplits {
            text,
            tokens: &self.tokens,
            matches: self.finder.as_ref().map(|f| f.find_iter(text)),
            done: 0,
            pending: None,
        }
    }
}

/// Iterator over the added tokens of a text and the text between them, in order.
pub(crate) struct AddedTokenSplits<'t> {
    text: &'t str,
    tokens: &'t [AddedToken],
    matches: Option<FindIter<'t, 't>>,
    /// End of the last split.
    done: usize,
    /// A token whose preceding text was just returned.
    pending: Option<u32>,
}

impl<'t> Iterator for AddedTokenSplits<'t> {
    type Item = AddedTokenSplit<'t>;

    fn next(&mut self) -> Option<AddedTokenSplit<'t>> {
        if let Some(id) = self.pending.take() {
            return Some(AddedTokenSplit::Token(id));
        }
        while let Some(found) = self.matches.as_mut().and_then(Iterator::next) {
            let token = &self.tokens[found.pattern()];
            if token.is_single_word && !is_single_word(self.text, &found) {
                continue;
            }
            let (start, end) = self.widened(&found, token);
            if start >= end {
                continue; // Dropped: see `Self::widened`.
            }
            let before = self.done..start;
            self.done = end;
            if before.is_empty() {
                return Some(AddedTokenSplit::Token(token.id));
            }
            self.pending = Some(token.id);
            return Some(AddedTokenSplit::Text(&self.text[before]));
        }
        let rest = &self.text[self.done..];
        self.done = self.text.len();
        (!rest.is_empty()).then_some(AddedTokenSplit::Text(rest))
    }
}

impl AddedTokenSplits<'_> {
    /// End of the last split, if that was a token.
    pub(crate) fn end(&self) -> usize {
        self.done
    }

    /// Start and end of a match with the white space that it includes.
    ///
    /// A token that starts with white space can match inside the white space that the previous match included.
    /// As in Hugging Face `tokenizers`, it is then a split as well. But if it strips on its left, it does not start
    /// before the end of the previous match. If it ends there or before, it is dropped. (If before, `tokenizers`
    /// panics.)
    fn widened(&self, found: &Match, token: &AddedToken) -> (usize, usize) {
        let (mut start, mut end) = (found.start(), found.end());
        // White space that a previous match included is not looked at again: a run of it can have a match at each
        // character.
        if token.strips_left {
            let before = self.text.get(self.done..start).unwrap_or_default();
            start = self.done + before.trim_end().len();
        }
        if token.strips_right {
            end = end.max(self.done);
            end = self.text.len() - self.text[end..].trim_start().len();
        }
        (start, end)
    }
}

/// Whether no word character (`\w`) is directly before or after a match.
fn is_single_word(text: &str, found: &Match) -> bool {
    let before = text[..found.start()].chars().next_back();
    let after = text[found.end()..].chars().next();
    !before.into_iter().chain(after).any(is_word_character)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(id: u32, content: &str, strips_left: bool, strips_right: bool) -> AddedToken {
        AddedToken {
            id,
            content: content.to_owned(),
            is_special: true,
            is_normalized: false,
            is_single_word: false,
            strips_left,
            strips_right,
        }
    }

    fn split<'t>(added: &'t AddedTokens, text: &'t str) -> Vec<AddedTokenSplit<'t>> {
        added.split(text).collect()
    }

    #[test]
    fn no_added_tokens() {
        let none = AddedTokens::new(Vec::new()).unwrap();
        assert_eq!(split(&none, ""), []);
        assert_eq!(split(&none, "ab"), [AddedTokenSplit::Text("ab")]);
    }

    #[test]
    fn leftmost_longest() {
        let tokens = ["<a>", "<a><b>", "> <"].iter().zip(0..);
        let tokens = tokens.map(|(c, id)| token(id, c, false, false));
        let added = AddedTokens::new(tokens.collect()).unwrap();
        let expected = [
            AddedTokenSplit::Text("x"),
            AddedTokenSplit::Token(1),
            AddedTokenSplit::Token(0),
            AddedTokenSplit::Text(" <a"),
        ];
        assert_eq!(split(&added, "x<a><b><a> <a"), expected);
    }

    #[test]
    fn a_single_word_has_no_adjacent_word() {
        let tokens = vec![AddedToken {
            is_single_word: true,
            ..token(0, "ab", true, false)
        }];
        let added = AddedTokens::new(tokens).unwrap();
        let expected = [
            AddedTokenSplit::Token(0),
            AddedTokenSplit::Text("! abc xab ab_"),
            AddedTokenSplit::Token(0),
        ];
        assert_eq!(split(&added, "ab! abc xab ab_ ab"), expected);
        assert_eq!(
            split(&added, "ab\u{301}"),
            [AddedTokenSplit::Text("ab\u{301}")]
        );
        assert_eq!(split(&added, "abab"), [AddedTokenSplit::Text("abab")]);
    }

    #[test]
    fn matches_include_white_space() {
        let tokens = vec![token(0, "L", true, false), token(1, "R", false, true)];
        let added = AddedTokens::new(tokens).unwrap();
        let expected = [
            AddedTokenSplit::Text("a"),
            AddedTokenSplit::Token(0),
            AddedTokenSplit::Text(" "),
            AddedTokenSplit::Token(1),
        ];
        assert_eq!(split(&added, "a \u{3000}L R \n"), expected);
        assert_eq!(
            split(&added, "R L"),
            [AddedTokenSplit::Token(1), AddedTokenSplit::Token(0)]
        );
        let both = AddedTokens::new(vec![token(0, "  ", true, true)]).unwrap();
        assert_eq!(split(&both, "    "), [AddedTokenSplit::Token(0)]);
        let right = AddedTokens::new(vec![token(0, "  ", false, true)]).unwrap();
        assert_eq!(
            split(&right, "    "),
            [AddedTokenSplit::Token(0), AddedTokenSplit::Token(0)]
        );
        // The second token is within the white space of the first: no text is repeated.
        let within = vec![token(0, "R", false, true), token(1, " ", true, false)];
        let within = AddedTokens::new(within).unwrap();
        assert_eq!(
            split(&within, "R \nx"),
            [AddedTokenSplit::Token(0), AddedTokenSplit::Text("x")]
        );
    }
}
