//! Which pre-tokenizer a tokenizer has, told by the text of its published pattern.
//!
//! There is no regex engine here: a pattern is known, and cut by a routine written for it, or refused.
//! `plain` says alternative by alternative what each matches; `cutter` does it fast.

/// How text is cut into pieces before merging.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// GPT-2's, built into `ByteLevel`: GPT-2, GPT-NeoX, Pythia, OLMo.
    Gpt2,
    /// cl100k's, numbers in groups of up to three digits (Llama 3, OLMo 2) or one (Qwen).
    Cl100k(DigitGroup),
    /// `Digits`, then GPT-2's on what is between: StarCoder, SmolLM.
    Digits(DigitGroup),
}

/// The digits of a piece that is a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DigitGroup {
    /// Each digit is a piece.
    One,
    /// Groups of three from the left.
    Three,
    /// As many as follow each other.
    All,
}

/// GPT-2's pattern, as `ByteLevel` has it and as tiktoken spells it.
const GPT2: [&str; 2] = [
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
];
/// cl100k's pattern around its digits, as Llama 3 spells it.
const CL100K: (&str, &str) = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

impl Pattern {
    /// What a pattern of `Split` is; None if it is none of the known ones.
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

/// A contraction that a text starts with: its length.
///
/// Letters of any case; U+017F is an s, as case folding has it.
#[inline]
pub(crate) fn contraction_len_any_case(text: &[u8]) -> Option<usize> {
    let lower = |at: usize| text.get(at).map(|b| b | 0x20);
    match (lower(1)?, lower(2)) {
        (b's' | b't' | b'm' | b'd', _) => Some(2),
        (b'r' | b'v', Some(b'e')) | (b'l', Some(b'l')) => Some(3),
        _ => text[1..].starts_with("ſ".as_bytes()).then_some(3),
    }
}

/// Characters that `Digits` takes for numbers and `\p{N}` does not: the reference compiles a newer Unicode
/// (17) into the former.
pub(crate) fn is_new_digit(code_point: u32) -> bool {
    matches!(code_point, 0x11DE0..=0x11DE9 | 0x16FF4..=0x16FF6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_patterns_are_known() {
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
