//! Cuts text into pieces (pre-tokens) by GPT-2's pattern, without a regex engine.
//!
//! The pattern is
//! `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`.
//! Its alternatives are told apart by the class of the first character, of the second after a
//! space, so one pass over the text suffices. White space runs: `\s+(?!\S)` leaves the last
//! white space of a run to what follows it, unless the text ends there.

use super::classes::{Class, Classes, code_point_at};

/// The pieces of a text in order; joined they are the text.
#[derive(Debug, Clone)]
pub(super) struct Pieces<'t> {
    rest: &'t str,
    classes: Classes,
}

/// Cuts `text` into pieces.
pub(super) fn pieces(text: &str) -> Pieces<'_> {
    Pieces {
        rest: text,
        classes: Classes::get(),
    }
}

impl<'t> Iterator for Pieces<'t> {
    type Item = &'t str;

    #[inline]
    fn next(&mut self) -> Option<&'t str> {
        if self.rest.is_empty() {
            return None;
        }
        let (piece, rest) = self.rest.split_at(self.first_len());
        self.rest = rest;
        Some(piece)
    }
}

impl Pieces<'_> {
    /// Length of the first piece of a text that is not empty.
    #[inline]
    fn first_len(&self) -> usize {
        let text = self.rest.as_bytes();
        let (class, len) = self.class_at(0);
        match text[0] {
            b'\'' => contraction_len(text).unwrap_or_else(|| self.run_end(class, len)),
            b' ' if text.len() > 1 => match self.class_at(1) {
                (Class::Space, _) => self.spaces_len(),
                (next, len) => self.run_end(next, 1 + len),
            },
            _ if class == Class::Space => self.spaces_len(),
            _ => self.run_end(class, len),
        }
    }

    /// Class and length of the character at byte `at`.
    #[inline(always)] // Called per character.
    fn class_at(&self, at: usize) -> (Class, usize) {
        let (code_point, len) = code_point_at(self.rest.as_bytes(), at);
        (self.classes.class(code_point), len)
    }

    /// Where the run of `class` that reaches byte `at` ends.
    #[inline]
    fn run_end(&self, class: Class, mut at: usize) -> usize {
        while at < self.rest.len() {
            let (next, len) = self.class_at(at);
            if next != class {
                break;
            }
            at += len;
        }
        at
    }

    /// Length of the piece that starts with a run of white space.
    fn spaces_len(&self) -> usize {
        let (mut end, mut last) = (0, 0);
        while end < self.rest.len() {
            let (class, len) = self.class_at(end);
            if class != Class::Space {
                // A run of one has nothing to leave: `\s+` takes it.
                return if last == 0 { end } else { last };
            }
            last = end;
            end += len;
        }
        end
    }
}

/// Length of the contraction that `text` starts with.
#[inline]
pub(super) fn contraction_len(text: &[u8]) -> Option<usize> {
    match text {
        [_, b's' | b't' | b'm' | b'd', ..] => Some(2),
        [_, b'r' | b'v', b'e', ..] | [_, b'l', b'l', ..] => Some(3),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &str) -> Vec<&str> {
        pieces(text).collect()
    }

    #[test]
    fn words_numbers_and_signs() {
        assert_eq!(cut(""), [""; 0]);
        assert_eq!(cut("a"), ["a"]);
        assert_eq!(
            cut("Hello, world 42!"),
            ["Hello", ",", " world", " 42", "!"]
        );
        assert_eq!(cut("a1é²_漢"), ["a", "1", "é", "²", "_", "漢"]);
    }

    #[test]
    fn contractions_only_where_a_piece_starts() {
        assert_eq!(cut("we'll"), ["we", "'ll"]);
        assert_eq!(cut("'stop"), ["'s", "top"]);
        assert_eq!(cut(" 's"), [" '", "s"]);
        assert_eq!(cut("''s"), ["''", "s"]);
        assert_eq!(cut("'l'S"), ["'", "l", "'", "S"]);
        assert_eq!(cut("'"), ["'"]);
    }

    #[test]
    fn white_space_leaves_its_last_to_what_follows() {
        assert_eq!(cut("a  b"), ["a", " ", " b"]);
        assert_eq!(cut("a\n\nb"), ["a", "\n", "\n", "b"]);
        assert_eq!(cut("a\tb"), ["a", "\t", "b"]);
        assert_eq!(cut("a   "), ["a", "   "]);
        assert_eq!(cut(" "), [" "]);
        assert_eq!(cut("\u{3000} \u{a0}x"), ["\u{3000} ", "\u{a0}", "x"]);
    }
}
