//! Splits text by GPT-2's pattern with integer operations on blocks of 64 bytes instead of a regex engine.
//!
//! The pattern is `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`.
//! The tests compare this rule with `reference`, which tries the alternatives one after the other.
//!
//! Some tokenizers, such as GPT-NeoX's, have added tokens for runs of 2 to K spaces. They are removed from the
//! text before the pattern is applied, so the text on each side is matched as if it ended there. If they are
//! the only added tokens of normalized text, the rule finds them itself: each run is one pretoken, which
//! `SpaceRuns` encodes as one or several tokens.

use crate::tokenize::pretokenize::block_scanner::{
    BoundaryRule, ContractionFix, PretokenStarts, TextBlock, after, before, carry,
};

/// Finds the starts of pretokens by GPT-2's pattern.
#[derive(Debug)]
pub(crate) struct Gpt2Rule {
    /// K, the longest run of spaces that is a token, at least 2; 0 if no run is a token.
    longest_run: usize,
    carried: Gpt2Carry,
    contractions: ContractionFix,
}

/// The last byte of the previous block: for each mask its bit 63, as bit 0.
#[derive(Debug, Default)]
struct Gpt2Carry {
    letter: u64,
    number: u64,
    other: u64,
    space: u64,
    /// White space outside token runs.
    whitespace: u64,
    /// A U+0020 outside token runs.
    lone_space: u64,
    run: u64,
    /// Spaces of the token run that reaches the block's end and continues in the next block, else 0.
    run_len: usize,
}

impl Gpt2Rule {
    /// Runs of 2 to `longest_run` spaces are tokens; with 0 none are.
    pub(crate) fn new(longest_run: usize) -> Self {
        Self {
            longest_run,
            carried: Gpt2Carry::default(),
            contractions: ContractionFix::default(),
        }
    }

    /// The spaces that belong to token runs, and [`Gpt2Carry::run_len`] of this block.
    ///
    /// Added tokens match the leftmost longest run. Of n > K spaces, n mod K = 1 leaves one space that no
    /// token of 2 or more covers: it is the last one, and belongs to the text that follows.
    #[inline]
    fn token_runs(&self, block: &TextBlock<'_>) -> (u64, usize) {
        if self.longest_run == 0 {
            return (0, 0);
        }
        let space = block.classes.space;
        let next = block.next.space;
        let run = space & (after(space, self.carried.space) | before(space, next));
        let continues = next & 1 == 1;
        // Usual case: no run can have more than K spaces, so every run is a single token.
        if self.carried.run_len == 0 && run.count_ones() as usize <= self.longest_run {
            let run_len = if continues { run.leading_ones() } else { 0 };
            return (run, run_len as usize);
        }
        self.long_token_runs(run, continues)
    }

    /// [`Self::token_runs`] if a run may have more than K spaces: removes the last space of a run where no
    /// token covers it.
    #[cold]
    fn long_token_runs(&self, mut run: u64, continues: bool) -> (u64, usize) {
        let mut rest = run;
        while rest != 0 {
            let start = rest.trailing_zeros();
            let len = (rest >> start).trailing_ones();
            let end = start + len;
            let n_carried = if start == 0 { self.carried.run_len } else { 0 };
            let n = len as usize + n_carried;
            if end == u64::BITS && continues {
                return (run, n);
            }
            if n > self.longest_run && n % self.longest_run == 1 {
                run &= !(1 << (end - 1));
            }
            rest &= u64::MAX.checked_shl(end).unwrap_or(0); // `end` can be 64.
        }
        (run, 0)
    }
}

impl BoundaryRule for Gpt2Rule {
    /// A pretoken starts
    /// - where a run of letters, of numbers or of other characters starts, unless a lone space precedes it,
    ///   which the pattern's ` ?` takes along;
    /// - where a run of white space starts;
    /// - at the last character of a run of white space that text follows, as `\s+(?!\S)` stops before it;
    /// - where a token run of spaces starts;
    /// - after a contraction, and not inside it: see [`ContractionFix`].
    #[inline]
    fn starts(&mut self, block: &TextBlock<'_>) -> PretokenStarts {
        let (m, next) = (block.classes, block.next);
        let (run, run_len) = self.token_runs(block);
        let carried = &self.carried;
        let whitespace = m.whitespace & !run;
        let lone_space = m.space & !run;
        let text = m.letter | m.number | m.other;
        let before_text = before(text, next.letter | next.number | next.other);
        let first_of_class = m.letter & !after(m.letter, carried.letter)
            | m.number & !after(m.number, carried.number)
            | m.other & !after(m.other, carried.other);
        // The last byte of the white space character before text.
        let last_whitespace = whitespace & before_text;
        let starts = first_of_class & !after(lone_space, carried.lone_space)
            | whitespace & !after(whitespace, carried.whitespace)
            | run & !after(run, carried.run)
            | last_whitespace & !m.non_ascii;
        self.carried = Gpt2Carry {
            letter: carry(m.letter),
            number: carry(m.number),
            other: carry(m.other),
            space: carry(m.space),
            whitespace: carry(whitespace),
            lone_space: carry(lone_space),
            run: carry(run),
            run_len,
        };
        let starts = self.contractions.apply_carried(starts);
        let bits = match starts & m.apostrophe {
            0 => starts,
            apostrophes => self
                .contractions
                .apply(block.text, block.at, starts, apostrophes),
        };
        PretokenStarts {
            bits,
            last_bytes: last_whitespace & m.non_ascii,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenize::{
        model::added_tokens::{AddedToken, AddedTokenSplit, AddedTokens},
        pretokenize::block_scanner::{BYTES_PER_CALL, BlockScanner},
        pretokenize::pattern::Pattern,
        pretokenize::reference::reference_pretokens,
    };
    use proptest::prelude::*;

    fn scanned(text: &str, longest_run: usize) -> Vec<&str> {
        let mut scanner = BlockScanner::new(text, Gpt2Rule::new(longest_run));
        let (mut pretokens, mut from) = (Vec::new(), 0);
        loop {
            let mut ends = Vec::new();
            scanner.next_ends(&mut ends);
            if ends.is_empty() {
                return pretokens;
            }
            for end in ends {
                pretokens.push(&text[from..end]);
                from = end;
            }
        }
    }

    /// The pretokens found by `reference_pretokens` after `AddedTokens` removed the runs. The tokens of a run
    /// are joined.
    fn expected(text: &str, longest_run: usize) -> Vec<String> {
        let token = |n: usize| AddedToken {
            id: n as u32,
            content: " ".repeat(n),
            is_special: false,
            is_normalized: true,
            is_single_word: false,
            strips_left: false,
            strips_right: false,
        };
        let added = AddedTokens::new((2..=longest_run).map(token).collect()).unwrap();
        let mut all: Vec<String> = Vec::new();
        let mut follows_run = false;
        for split in added.split(text) {
            match split {
                AddedTokenSplit::Token(n) if follows_run => {
                    let run = all.last_mut().unwrap();
                    run.push_str(&" ".repeat(n as usize));
                }
                AddedTokenSplit::Token(n) => all.push(" ".repeat(n as usize)),
                AddedTokenSplit::Text(text) => all.extend(reference_pretokens(text, Pattern::Gpt2)),
            }
            follows_run = matches!(split, AddedTokenSplit::Token(_));
        }
        all
    }

    fn check(text: &str) {
        for longest_run in [0, 2, 3, 24] {
            assert_eq!(
                scanned(text, longest_run),
                expected(text, longest_run),
                "{longest_run}"
            );
        }
    }

    #[test]
    fn an_empty_text_has_no_pretokens() {
        check("");
    }

    #[test]
    fn every_case_at_every_offset_in_a_block() {
        let parts = [
            "it's",
            "'s",
            "we'll've",
            "''re",
            " 'd",
            "!'t",
            "a  b",
            "a \n b",
            "\n\nb",
            "\u{a0}x",
            "\u{3000}\u{3000}1",
            "\u{3000} x",
            "é漢",
            "\u{1F600}\u{1F600}",
            " ",
            "  ",
            "'",
            "'l",
            "x'S",
        ];
        for part in parts {
            for before in 55..70 {
                check(&format!("{}{part}", "z".repeat(before)));
                check(&format!("{}{part}z", " ".repeat(before)));
                check(&format!("{}{part}'s {part}", "!".repeat(before)));
            }
        }
    }

    #[test]
    fn runs_of_all_lengths() {
        for n in 0..200 {
            for (before, after) in [
                ("", ""),
                ("a", "b"),
                ("\n", "\n"),
                ("a", "\nb"),
                ("a", "\u{a0}b"),
            ] {
                check(&format!("{before}{}{after}", " ".repeat(n)));
                check(&format!(
                    "{before}{}{after}{}",
                    " ".repeat(n),
                    " ".repeat(25)
                ));
            }
        }
    }

    #[test]
    fn a_pretoken_longer_than_the_bytes_of_a_call() {
        check(&"a".repeat(3 * BYTES_PER_CALL));
        check(&format!("{}b", " ".repeat(3 * BYTES_PER_CALL + 1)));
    }

    #[test]
    fn a_text_longer_than_the_bytes_of_a_call() {
        check(&"it's 12 o'clock,  \u{3000}é\n".repeat(1000));
    }

    proptest! {
        #[test]
        fn equals_the_reference(text in "([ '\n\t\u{a0}\u{3000}]|[sdrelvtSa]|[0-9²]|[.,!é漢\u{1F600}]| {20,80}|\\PC){0,200}") {
            check(&text);
        }
    }
}
