//! Splits text by the patterns, alternative by alternative. The tests compare the scanners with it.

use crate::text::classes::Class;
use crate::tokenize::{
    pretokenize::pattern::{DigitGroup, Pattern, is_new_digit},
    reference::class_of,
};

/// The pretokens of `text` in order. Concatenated they are the text.
pub(crate) fn reference_pretokens(text: &str, pattern: Pattern) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    match pattern {
        Pattern::Gpt2 => split(&chars, gpt2_len),
        Pattern::Cl100k(group) => split(&chars, |chars| cl100k_len(chars, group)),
        Pattern::Digits(group) => split_digits_first(&chars, group),
    }
}

/// Splits `chars` into pretokens. `first_len` returns the number of characters of the first one.
fn split(mut chars: &[char], first_len: impl Fn(&[char]) -> usize) -> Vec<String> {
    let mut pretokens = Vec::new();
    while !chars.is_empty() {
        let (pretoken, rest) = chars.split_at(first_len(chars));
        pretokens.push(pretoken.iter().collect());
        chars = rest;
    }
    pretokens
}

/// Splits off runs of digits, then splits these and the text between them by GPT-2's pattern.
fn split_digits_first(chars: &[char], group: DigitGroup) -> Vec<String> {
    let is_digit = |c: &char| class_of(*c) == Class::Number || is_new_digit((*c).into());
    let is_unsplit = |left: &char, right: &char| {
        is_digit(left) == is_digit(right) && (!is_digit(left) || group != DigitGroup::One)
    };
    let parts = chars.chunk_by(is_unsplit);
    parts.flat_map(|part| split(part, gpt2_len)).collect()
}

/// Length of the run of `class` at index `from`.
fn run_len(chars: &[char], class: Class, from: usize) -> usize {
    let rest = chars[from..].iter();
    rest.take_while(|c| class_of(**c) == class).count()
}

fn is_line_end(c: char) -> bool {
    matches!(c, '\r' | '\n')
}

/// Length of a match of `\s+(?!\S)|\s+`: of a longer run before text, all but the last character.
fn whitespace_len(chars: &[char]) -> usize {
    let n = run_len(chars, Class::Whitespace, 0);
    match n > 1 && n < chars.len() {
        true => n - 1,
        false => n,
    }
}

/// Length in characters of the first pretoken by GPT-2's pattern.
fn gpt2_len(chars: &[char]) -> usize {
    for suffix in ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"] {
        let suffix: Vec<char> = suffix.chars().collect();
        if chars.starts_with(&suffix) {
            return suffix.len();
        }
    }
    for class in [Class::Letter, Class::Number, Class::Other] {
        let space = usize::from(chars[0] == ' ');
        if run_len(chars, class, space) > 0 {
            return space + run_len(chars, class, space);
        }
    }
    whitespace_len(chars)
}

/// Length in characters of the first pretoken by cl100k's pattern.
fn cl100k_len(chars: &[char], group: DigitGroup) -> usize {
    // (?i:'s|'t|'re|'ve|'m|'ll|'d). Without regard to case, an s is also a long s.
    for suffix in ["'s", "'ſ", "'t", "'re", "'ve", "'m", "'ll", "'d"] {
        let mut char_pairs = chars.iter().zip(suffix.chars());
        let is_equal = |(a, b): (&char, char)| *a == b || a.eq_ignore_ascii_case(&b);
        if chars.len() >= suffix.chars().count() && char_pairs.all(is_equal) {
            return suffix.chars().count();
        }
    }
    // [^\r\n\p{L}\p{N}]?\p{L}+
    let is_prefix =
        !is_line_end(chars[0]) && !matches!(class_of(chars[0]), Class::Letter | Class::Number);
    let from = usize::from(is_prefix);
    if run_len(chars, Class::Letter, from) > 0 {
        return from + run_len(chars, Class::Letter, from);
    }
    // \p{N}, \p{N}{1,3} or \p{N}+
    let n = run_len(chars, Class::Number, 0);
    if n > 0 {
        return match group {
            DigitGroup::One => 1,
            DigitGroup::Three => n.min(3),
            DigitGroup::All => n,
        };
    }
    //  ?[^\s\p{L}\p{N}]+[\r\n]*
    let from = usize::from(chars[0] == ' ');
    let n = run_len(chars, Class::Other, from);
    if n > 0 {
        let rest = chars[from + n..].iter();
        return from + n + rest.take_while(|c| is_line_end(**c)).count();
    }
    // \s*[\r\n]+
    let whitespace = &chars[..run_len(chars, Class::Whitespace, 0)];
    if let Some(last) = whitespace.iter().rposition(|c| is_line_end(*c)) {
        return last + 1;
    }
    whitespace_len(chars)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LLAMA: Pattern = Pattern::Cl100k(DigitGroup::Three);
    const QWEN: Pattern = Pattern::Cl100k(DigitGroup::One);

    #[test]
    fn cl100k_by_hand() {
        let split = |text| reference_pretokens(text, LLAMA);
        assert_eq!(split("don'T 12345"), ["don", "'T", " ", "123", "45"]);
        assert_eq!(split("(a) \u{3000}b"), ["(a", ")", " ", "\u{3000}b"]);
        assert_eq!(split("x;\r\n\n  y"), ["x", ";\r\n\n", " ", " y"]);
        assert_eq!(split("a \n \t\n  "), ["a", " \n \t\n", "  "]);
        assert_eq!(reference_pretokens("12", QWEN), ["1", "2"]);
    }

    #[test]
    fn digits_by_hand() {
        let one = Pattern::Digits(DigitGroup::One);
        let all = Pattern::Digits(DigitGroup::All);
        assert_eq!(
            reference_pretokens("a  12's", one),
            ["a", "  ", "1", "2", "'s"]
        );
        assert_eq!(
            reference_pretokens("a 12\u{11DE0}!", all),
            ["a", " ", "12", "\u{11DE0}", "!"]
        );
    }

    fn split_gpt2(text: &str) -> Vec<String> {
        reference_pretokens(text, Pattern::Gpt2)
    }

    #[test]
    fn words_numbers_and_punctuation() {
        assert_eq!(split_gpt2(""), [""; 0]);
        assert_eq!(split_gpt2("a"), ["a"]);
        assert_eq!(
            split_gpt2("Hello, world 42!"),
            ["Hello", ",", " world", " 42", "!"]
        );
        assert_eq!(split_gpt2("a1é²_漢"), ["a", "1", "é", "²", "_", "漢"]);
    }

    #[test]
    fn contractions_only_where_a_pretoken_starts() {
        assert_eq!(split_gpt2("we'll"), ["we", "'ll"]);
        assert_eq!(split_gpt2("'stop"), ["'s", "top"]);
        assert_eq!(split_gpt2(" 's"), [" '", "s"]);
        assert_eq!(split_gpt2("''s"), ["''", "s"]);
        assert_eq!(split_gpt2("'l'S"), ["'", "l", "'", "S"]);
        assert_eq!(split_gpt2("'"), ["'"]);
    }

    #[test]
    fn the_last_white_space_before_text_is_split_off() {
        assert_eq!(split_gpt2("a  b"), ["a", " ", " b"]);
        assert_eq!(split_gpt2("a\n\nb"), ["a", "\n", "\n", "b"]);
        assert_eq!(split_gpt2("a\tb"), ["a", "\t", "b"]);
        assert_eq!(split_gpt2("a   "), ["a", "   "]);
        assert_eq!(split_gpt2(" "), [" "]);
        assert_eq!(split_gpt2("\u{3000} \u{a0}x"), ["\u{3000} ", "\u{a0}", "x"]);
    }
}
