//! The pieces of each pattern, alternative by alternative: the oracle of the scanners.

use crate::tokenize::{
    pretokenize::classes::Class,
    pretokenize::pattern::{DigitGroup, Pattern, is_new_digit},
    reference::class_of,
};

/// The pieces of `text` in order; joined they are the text.
pub(crate) fn plain_pieces(text: &str, pattern: Pattern) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    match pattern {
        Pattern::Gpt2 => cut(&chars, gpt2),
        Pattern::Cl100k(group) => cut(&chars, |chars| cl100k(chars, group)),
        Pattern::Digits(group) => between_digits(&chars, group),
    }
}

/// Takes pieces off the front, as long as `first_len` says.
fn cut(mut chars: &[char], first_len: impl Fn(&[char]) -> usize) -> Vec<String> {
    let mut pieces = Vec::new();
    while !chars.is_empty() {
        let (piece, rest) = chars.split_at(first_len(chars));
        pieces.push(piece.iter().collect());
        chars = rest;
    }
    pieces
}

/// Cuts numbers out first, then everything by GPT-2's pattern.
fn between_digits(chars: &[char], group: DigitGroup) -> Vec<String> {
    let is_digit = |c: &char| class_of(*c) == Class::Number || is_new_digit((*c).into());
    let is_one = |left: &char, right: &char| {
        is_digit(left) == is_digit(right) && (!is_digit(left) || group != DigitGroup::One)
    };
    let parts = chars.chunk_by(is_one);
    parts.flat_map(|part| cut(part, gpt2)).collect()
}

/// Number of characters of `class` from `from` on.
fn run(chars: &[char], class: Class, from: usize) -> usize {
    let rest = chars[from..].iter();
    rest.take_while(|c| class_of(**c) == class).count()
}

fn is_line_end(c: char) -> bool {
    matches!(c, '\r' | '\n')
}

/// `\s+(?!\S)|\s+`
fn white_space(chars: &[char]) -> usize {
    let n = run(chars, Class::Space, 0);
    match n > 1 && n < chars.len() {
        true => n - 1,
        false => n,
    }
}

/// Characters of the first piece by GPT-2's pattern.
fn gpt2(chars: &[char]) -> usize {
    for suffix in ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"] {
        let suffix: Vec<char> = suffix.chars().collect();
        if chars.starts_with(&suffix) {
            return suffix.len();
        }
    }
    for class in [Class::Letter, Class::Number, Class::Other] {
        let space = usize::from(chars[0] == ' ');
        if run(chars, class, space) > 0 {
            return space + run(chars, class, space);
        }
    }
    white_space(chars)
}

/// Characters of the first piece by cl100k's pattern.
fn cl100k(chars: &[char], group: DigitGroup) -> usize {
    // (?i:'s|'t|'re|'ve|'m|'ll|'d)
    for suffix in ["'s", "'ſ", "'t", "'re", "'ve", "'m", "'ll", "'d"] {
        let mut both = chars.iter().zip(suffix.chars());
        let is_equal = |(a, b): (&char, char)| *a == b || a.eq_ignore_ascii_case(&b);
        if chars.len() >= suffix.chars().count() && both.all(is_equal) {
            return suffix.chars().count();
        }
    }
    // [^\r\n\p{L}\p{N}]?\p{L}+
    let is_prefix =
        !is_line_end(chars[0]) && !matches!(class_of(chars[0]), Class::Letter | Class::Number);
    let from = usize::from(is_prefix);
    if run(chars, Class::Letter, from) > 0 {
        return from + run(chars, Class::Letter, from);
    }
    // \p{N}, \p{N}{1,3} or \p{N}+
    let n = run(chars, Class::Number, 0);
    if n > 0 {
        return match group {
            DigitGroup::One => 1,
            DigitGroup::Three => n.min(3),
            DigitGroup::All => n,
        };
    }
    //  ?[^\s\p{L}\p{N}]+[\r\n]*
    let from = usize::from(chars[0] == ' ');
    let n = run(chars, Class::Other, from);
    if n > 0 {
        let rest = chars[from + n..].iter();
        return from + n + rest.take_while(|c| is_line_end(**c)).count();
    }
    // \s*[\r\n]+
    let white = &chars[..run(chars, Class::Space, 0)];
    if let Some(last) = white.iter().rposition(|c| is_line_end(*c)) {
        return last + 1;
    }
    white_space(chars)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LLAMA: Pattern = Pattern::Cl100k(DigitGroup::Three);
    const QWEN: Pattern = Pattern::Cl100k(DigitGroup::One);

    #[test]
    fn cl100k_by_hand() {
        let cut = |text| plain_pieces(text, LLAMA);
        assert_eq!(cut("don'T 12345"), ["don", "'T", " ", "123", "45"]);
        assert_eq!(cut("(a) \u{3000}b"), ["(a", ")", " ", "\u{3000}b"]);
        assert_eq!(cut("x;\r\n\n  y"), ["x", ";\r\n\n", " ", " y"]);
        assert_eq!(cut("a \n \t\n  "), ["a", " \n \t\n", "  "]);
        assert_eq!(plain_pieces("12", QWEN), ["1", "2"]);
    }

    #[test]
    fn digits_by_hand() {
        let one = Pattern::Digits(DigitGroup::One);
        let all = Pattern::Digits(DigitGroup::All);
        assert_eq!(plain_pieces("a  12's", one), ["a", "  ", "1", "2", "'s"]);
        assert_eq!(
            plain_pieces("a 12\u{11DE0}!", all),
            ["a", " ", "12", "\u{11DE0}", "!"]
        );
    }

    fn cut(text: &str) -> Vec<String> {
        plain_pieces(text, Pattern::Gpt2)
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
