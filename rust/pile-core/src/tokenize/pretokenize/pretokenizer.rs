//! Selects the scanner for the pattern of a tokenizer.

use crate::tokenize::{
    pretokenize::block_scanner::BlockScanner, pretokenize::cl100k::Cl100kRule,
    pretokenize::digits::DigitsRule, pretokenize::gpt2::Gpt2Rule, pretokenize::pattern::Pattern,
};

/// Finds the ends of the pretokens of a text by any supported pattern.
#[derive(Debug)]
pub(crate) enum Pretokenizer<'t> {
    Gpt2(BlockScanner<'t, Gpt2Rule>),
    Cl100k(BlockScanner<'t, Cl100kRule>),
    Digits(BlockScanner<'t, DigitsRule>),
}

impl<'t> Pretokenizer<'t> {
    /// A pretokenizer at the start of `text`.
    ///
    /// Runs of 2 to `longest_run` spaces are added tokens, each of which becomes one pretoken; with 0 none are. Only
    /// the scanner of GPT-2's pattern finds such runs: the others require 0.
    pub(crate) fn new(text: &'t str, pattern: Pattern, longest_run: usize) -> Self {
        debug_assert!(longest_run == 0 || pattern == Pattern::Gpt2);
        match pattern {
            Pattern::Gpt2 => Self::Gpt2(BlockScanner::new(text, Gpt2Rule::new(longest_run))),
            Pattern::Cl100k(group) => Self::Cl100k(BlockScanner::new(text, Cl100kRule::new(group))),
            Pattern::Digits(group) => Self::Digits(BlockScanner::new(text, DigitsRule::new(group))),
        }
    }

    /// Appends the end offsets of the next pretokens. Appends nothing once the end of the text was appended.
    #[inline]
    pub(crate) fn next_ends(&mut self, ends: &mut Vec<usize>) {
        match self {
            Self::Gpt2(scanner) => scanner.next_ends(ends),
            Self::Cl100k(scanner) => scanner.next_ends(ends),
            Self::Digits(scanner) => scanner.next_ends(ends),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenize::{
        pretokenize::pattern::DigitGroup, pretokenize::reference::reference_pretokens,
    };
    use proptest::prelude::*;

    const PATTERNS: [Pattern; 6] = [
        Pattern::Gpt2,
        Pattern::Cl100k(DigitGroup::One),
        Pattern::Cl100k(DigitGroup::Three),
        Pattern::Cl100k(DigitGroup::All),
        Pattern::Digits(DigitGroup::One),
        Pattern::Digits(DigitGroup::All),
    ];

    fn pretokens_of(text: &str, pattern: Pattern) -> Vec<String> {
        let mut pretokenizer = Pretokenizer::new(text, pattern, 0);
        let (mut pretokens, mut from) = (Vec::new(), 0);
        loop {
            let mut ends = Vec::new();
            pretokenizer.next_ends(&mut ends);
            if ends.is_empty() {
                return pretokens;
            }
            for end in ends {
                pretokens.push(text[from..end].to_owned());
                from = end;
            }
        }
    }

    fn check(text: &str) {
        for pattern in PATTERNS {
            let expected = reference_pretokens(text, pattern);
            assert_eq!(
                pretokens_of(text, pattern),
                expected,
                "{pattern:?} of {text:?}"
            );
        }
    }

    #[test]
    fn every_case_at_every_offset_in_a_block() {
        let parts = [
            "",
            "it's",
            "'S",
            "we'LL'Ve",
            "''re",
            " 'd",
            "!'t",
            "'ſt",
            "'\u{c5}",
            "a  b",
            "a \n b",
            "\n\nb",
            "!\n\nb",
            "!\r\n \nb",
            " \n \u{3000}\n  ",
            "\n   ",
            "\n  x",
            "\n \n\t1",
            "\u{a0}x",
            "\u{3000}\u{3000}1",
            "\u{3000} x",
            "\u{3000}!x",
            "é漢",
            "\u{1F600}x",
            "\u{1F600}\u{1F600}x",
            "\u{1F600}\n\u{1F600}",
            "«x",
            " «x",
            "1234567",
            "12 345",
            "²²²²²",
            "1²3\u{1D7D8}5",
            "1\u{11DE0}\u{11DE0}2",
            " \u{11DE0}",
            "\u{16FF4}!",
            "  \u{16FF6}'s",
            "'s's",
            "'l",
            "x'S",
            "\t!a",
            "\u{85}a",
        ];
        for part in parts {
            for before in 55..70 {
                check(&format!("{}{part}", "z".repeat(before)));
                check(&format!("{}{part}z", " ".repeat(before)));
                check(&format!("{}{part}'s {part}", "!".repeat(before)));
                check(&format!("{}{part}", "\n".repeat(before)));
                check(&format!("\n{}{part}\n", "\t".repeat(before)));
                check(&format!("{}{part}9", "7".repeat(before)));
            }
        }
    }

    #[test]
    fn pretokens_longer_than_the_bytes_of_a_call() {
        for part in ["a", " ", "\n", "!", "\u{3000}", "7"] {
            check(&format!("{}b", part.repeat(9000)));
            check(&format!("!\n{}\n", part.repeat(9000)));
        }
    }

    #[test]
    fn every_character() {
        let all: Vec<char> = ('\0'..=char::MAX).collect();
        for chars in all.chunks(1 << 16) {
            check(
                &chars
                    .iter()
                    .flat_map(|c| ['x', *c, ' ', *c, '\n'])
                    .collect::<String>(),
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn equals_the_reference(text in "([ '\r\n\t\u{a0}\u{3000}]|[sdrelvtSſLE]|[0-9²\u{11DE0}]|[.,!é漢\u{1F600}]|[ \n]{20,80}|[0-9]{1,9}|\\PC){0,200}") {
            check(&text);
        }
    }
}
