//! Cuts added tokens (such as `<|endoftext|>`) out of text before it is cut into pieces.

use aho_corasick::{AhoCorasick, AhoCorasickKind, BuildError, FindIter, Match, MatchKind};
use regex_syntax::is_word_character;

/// An added token as tokenizer.json describes it.
#[derive(Debug, Clone)]
pub(crate) struct AddedToken {
    pub(crate) id: u32,
    pub(crate) content: String,
    /// Whether decoding can leave it out.
    pub(crate) is_special: bool,
    /// Whether it is looked for in the normalized text, its content normalized too.
    pub(crate) is_normalized: bool,
    /// Whether it counts only where no word goes on before or behind it.
    pub(crate) is_single_word: bool,
    /// Whether it takes the white space before it along.
    pub(crate) strips_left: bool,
    /// Whether it takes the white space after it along.
    pub(crate) strips_right: bool,
}

/// Most bytes of the contents of a file's added tokens together. An automaton takes some hundred bytes of
/// memory for each; published files have a few kilobytes.
pub(crate) const MAX_CONTENT_BYTES: usize = 4 << 20;

/// Contents up to this size get the fastest automaton the library sees fit, which may take a kilobyte of
/// memory for each byte; larger ones the smallest.
const MAX_FAST_BYTES: usize = 64 << 10;

/// Finds a set of added tokens: the leftmost, of those the longest.
#[derive(Debug)]
pub(crate) struct AddedTokens {
    finder: Option<AhoCorasick>,
    tokens: Vec<AddedToken>,
}

/// A part of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut<'t> {
    /// An added token.
    Token(u32),
    /// What is between added tokens; never empty.
    Text(&'t str),
}

impl AddedTokens {
    /// Looks for the contents of `tokens`; of equal contents the first token counts.
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

    /// The parts of `text` in order.
    pub(crate) fn cuts<'t>(&'t self, text: &'t str) -> Cuts<'t> {
        Cuts {
            text,
            tokens: &self.tokens,
            matches: self.finder.as_ref().map(|f| f.find_iter(text)),
            done: 0,
            pending: None,
        }
    }
}

/// Iterator over the parts of a text.
pub(crate) struct Cuts<'t> {
    text: &'t str,
    tokens: &'t [AddedToken],
    matches: Option<FindIter<'t, 't>>,
    done: usize,
    pending: Option<u32>,
}

impl<'t> Iterator for Cuts<'t> {
    type Item = Cut<'t>;

    fn next(&mut self) -> Option<Cut<'t>> {
        if let Some(id) = self.pending.take() {
            return Some(Cut::Token(id));
        }
        while let Some(found) = self.matches.as_mut().and_then(Iterator::next) {
            let token = &self.tokens[found.pattern()];
            if token.is_single_word && !is_single_word(self.text, &found) {
                continue;
            }
            let (start, end) = self.widened(&found, token);
            let before = self.done..start;
            self.done = end;
            if !before.is_empty() {
                self.pending = Some(token.id);
                return Some(Cut::Text(&self.text[before]));
            }
            if start < end {
                return Some(Cut::Token(token.id));
            }
        }
        let rest = &self.text[self.done..];
        self.done = self.text.len();
        (!rest.is_empty()).then_some(Cut::Text(rest))
    }
}

impl Cuts<'_> {
    /// Start and end of a match with the white space that its token takes along.
    ///
    /// A token that starts with white space can be found inside what its predecessor took along.
    /// As in the reference it is then cut out as well, unless it takes white space before it
    /// along: it starts where its predecessor ends, and nothing is left of it.
    fn widened(&self, found: &Match, token: &AddedToken) -> (usize, usize) {
        let (mut start, mut end) = (found.start(), found.end());
        if token.strips_left {
            start = self.text[..start].trim_end().len().max(self.done);
        }
        if token.strips_right {
            end = self.text.len() - self.text[end..].trim_start().len();
        }
        (start, end)
    }
}

/// Whether no character of a word (`\w`) stands beside a match.
fn is_single_word(text: &str, found: &Match) -> bool {
    let before = text[..found.start()].chars().next_back();
    let behind = text[found.end()..].chars().next();
    !before.into_iter().chain(behind).any(is_word_character)
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

    fn cut<'t>(added: &'t AddedTokens, text: &'t str) -> Vec<Cut<'t>> {
        added.cuts(text).collect()
    }

    #[test]
    fn nothing_to_find() {
        let none = AddedTokens::new(Vec::new()).unwrap();
        assert_eq!(cut(&none, ""), []);
        assert_eq!(cut(&none, "ab"), [Cut::Text("ab")]);
    }

    #[test]
    fn leftmost_longest() {
        let tokens = ["<a>", "<a><b>", "> <"].iter().zip(0..);
        let tokens = tokens.map(|(c, id)| token(id, c, false, false));
        let added = AddedTokens::new(tokens.collect()).unwrap();
        let expected = [
            Cut::Text("x"),
            Cut::Token(1),
            Cut::Token(0),
            Cut::Text(" <a"),
        ];
        assert_eq!(cut(&added, "x<a><b><a> <a"), expected);
    }

    #[test]
    fn a_single_word_has_no_word_beside_it() {
        let tokens = vec![AddedToken {
            is_single_word: true,
            ..token(0, "ab", true, false)
        }];
        let added = AddedTokens::new(tokens).unwrap();
        let expected = [Cut::Token(0), Cut::Text("! abc xab ab_"), Cut::Token(0)];
        assert_eq!(cut(&added, "ab! abc xab ab_ ab"), expected);
        assert_eq!(cut(&added, "ab\u{301}"), [Cut::Text("ab\u{301}")]);
        assert_eq!(cut(&added, "abab"), [Cut::Text("abab")]);
    }

    #[test]
    fn takes_white_space_along() {
        let tokens = vec![token(0, "L", true, false), token(1, "R", false, true)];
        let added = AddedTokens::new(tokens).unwrap();
        let expected = [Cut::Text("a"), Cut::Token(0), Cut::Text(" "), Cut::Token(1)];
        assert_eq!(cut(&added, "a \u{3000}L R \n"), expected);
        assert_eq!(cut(&added, "R L"), [Cut::Token(1), Cut::Token(0)]);
        let both = AddedTokens::new(vec![token(0, "  ", true, true)]).unwrap();
        assert_eq!(cut(&both, "    "), [Cut::Token(0)]);
        let right = AddedTokens::new(vec![token(0, "  ", false, true)]).unwrap();
        assert_eq!(cut(&right, "    "), [Cut::Token(0), Cut::Token(0)]);
    }
}
