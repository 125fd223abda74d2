//! Recognizes the pattern of a pretokenizer by its published text.
//!
//! There is no regex engine here. Each supported pattern has a scanner, which `pretokenizer` selects; other
//! patterns are refused. `reference` implements the patterns alternative by alternative for the tests.

/// The rule by which text is split into pretokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// GPT-2's, built into `ByteLevel`: GPT-2, GPT-NeoX, Pythia, OLMo.
    Gpt2,
    /// cl100k's, with numbers in groups of up to three digits (Llama 3, OLMo 2), of one (Qwen), or whole (`\p{N}+`).
    Cl100k(DigitGroup),
    /// `Digits`, then GPT-2's on the text between the numbers: StarCoder, SmolLM.
    Digits(DigitGroup),
}

/// How a run of digits is split into pretokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DigitGroup {
    /// Each digit is a pretoken.
    One,
    /// Groups of three, counted from the left.
    Three,
    /// The whole run is a pretoken.
    All,
}

/// GPT-2's pattern, as Hugging Face's `ByteLevel` and as tiktoken write it. Both match the same text.
const GPT2: [&str; 2] = [
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
];
/// cl100k's pattern before and after the quantifier of its digits, as Llama 3 writes it.
const CL100K: (&str, &str) = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

impl Pattern {
    /// The pattern of a `Split` component; None if it is not supported.
    pub(crate) fn of_regex(regex: &str) -> Option<Self> {
        if GPT2.contains(&regex) {
            return Some(Self::Gpt2);
        }
        let digits = regex.strip_prefix(CL100K.0)?.strip_suffix(CL100K.1)?;
        let group = match digits {
            "" => DigitGroup::One,
            "{1,3}" => DigitGroup::Three,
            "+" => DigitGroup::All,
            _ => return None,
        };
        Some(Self::Cl100k(group))
    }
}

/// Length of the contraction of cl100k's pattern at the start of `text`, whose first byte is an apostrophe.
///
/// Case is ignored, and by Unicode's case folding U+017F (long s) is an s.
#[inline]
pub(crate) fn contraction_len_any_case(text: &[u8]) -> Option<usize> {
    // Sets the bit that distinguishes lower case. No byte but a letter becomes one of the letters below.
    let lower = |at: usize| text.get(at).map(|b| b | 0x20);
    match (lower(1)?, lower(2)) {
        (b's' | b't' | b'm' | b'd', _) => Some(2),
        (b'r' | b'v', Some(b'e')) | (b'l', Some(b'l')) => Some(3),
        _ => text[1..].starts_with("ſ".as_bytes()).then_some(3),
    }
}

/// Whether `Digits` takes a character for a number that `\p{N}` does not match. In Hugging Face `tokenizers` the first
/// asks Rust's standard library, with Unicode 17, the second a regex engine, with Unicode 16: these are the numbers
/// that are new in 17.
pub(crate) fn is_new_digit(code_point: u32) -> bool {
    matches!(code_point, 0x11DE0..=0x11DE9 | 0x16FF4..=0x16FF6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_patterns_are_recognized() {
        let llama = format!("{}{{1,3}}{}", CL100K.0, CL100K.1);
        let qwen = format!("{}{}", CL100K.0, CL100K.1);
        let of = Pattern::of_regex;
        assert_eq!(of(&llama), Some(Pattern::Cl100k(DigitGroup::Three)));
        assert_eq!(of(&qwen), Some(Pattern::Cl100k(DigitGroup::One)));
        assert_eq!(of(GPT2[0]), Some(Pattern::Gpt2));
        assert_eq!(of(r"\s+"), None);
        assert_eq!(of(&llama.replace("{1,3}", "{1,2}")), None);
    }

    #[test]
    fn contractions_of_any_case() {
        for (text, len) in [("'S", 2), ("'rEx", 3), ("'LL", 3), ("'ſt", 3), ("'m", 2)] {
            assert_eq!(
                contraction_len_any_case(text.as_bytes()),
                Some(len),
                "{text}"
            );
        }
        for text in ["'", "'r", "'la", "'é", "'\u{13}", "'\u{c5}"] {
            assert_eq!(contraction_len_any_case(text.as_bytes()), None, "{text}");
        }
    }
}
