//! Finds the pieces of GPT-2's pattern 64 bytes at a time, by bit algebra instead of a regex engine.
//!
//! `plain` does the same alternative by alternative. Tokenizers such as
//! GPT-NeoX's have tokens for runs of 2 to K spaces that are cut out before the pattern is applied.
//! Where no other token is looked for in normalized text, that is done here on the fly: such a run is
//! then a piece of its own.

use crate::tokenize::{
    pretokenize::blocks::{
        BYTES_PER_CALL, after, contraction_len, last, on_first_bytes, push_bits,
    },
    pretokenize::masks::{BLOCK_BYTES, Classifier, Masks},
};

/// Goes through a text and finds where pieces end.
#[derive(Debug)]
pub(crate) struct Scanner<'t> {
    text: &'t [u8],
    classifier: Classifier<'t>,
    /// Longest run of spaces that is a token; 0 if runs are not tokens.
    longest_run: usize,
    /// First byte of the block that `here` describes.
    at: usize,
    here: Masks,
    before: Before,
    /// Starts in the next block that a contraction takes away and adds.
    not_a_start: u64,
    a_start: u64,
    /// The last end that an earlier call appended.
    last_end: usize,
}

/// What the block before says of its last byte, as bit 0.
#[derive(Debug, Default)]
struct Before {
    letter: u64,
    number: u64,
    other: u64,
    blank: u64,
    /// White space outside of runs.
    loose: u64,
    /// A single space.
    single: u64,
    run: u64,
    /// Spaces at its end that are of one run.
    run_len: usize,
}

impl<'t> Scanner<'t> {
    /// A scanner at the start of `text`; runs of 2 to `longest_run` spaces are tokens.
    pub(crate) fn new(text: &'t str, longest_run: usize) -> Self {
        let text = text.as_bytes();
        let mut classifier = Classifier::new(text);
        let here = classifier.next_block();
        Self {
            text,
            classifier,
            longest_run,
            at: 0,
            here,
            before: Before::default(),
            not_a_start: 0,
            a_start: 0,
            last_end: 0,
        }
    }

    /// Appends where the next pieces end; nothing once the text's end was appended.
    pub(crate) fn next_ends(&mut self, ends: &mut Vec<usize>) {
        let enough = self.at + BYTES_PER_CALL;
        while self.at < self.text.len() && (self.at < enough || ends.is_empty()) {
            let next = self.classifier.next_block();
            let mut starts = self.starts(&next, ends);
            if self.at == 0 {
                starts &= starts - 1; // Nothing ends where the text starts.
            }
            push_bits(starts, self.at, ends);
            self.at += BLOCK_BYTES;
            self.here = next;
            if self.at >= self.text.len() {
                ends.push(self.text.len());
            }
        }
        self.last_end = ends.last().copied().unwrap_or(self.last_end);
    }

    /// Where pieces start in the block; one that starts before it is pushed to `ends`.
    #[inline]
    fn starts(&mut self, next: &Masks, ends: &mut Vec<usize>) -> u64 {
        let m = self.here;
        let (run, run_len) = self.runs(next);
        let before = &self.before;
        let loose = m.space & !run;
        let single = m.blank & !run;
        let solid = m.letter | m.number | m.other;
        let next_solid = solid >> 1 | (next.letter | next.number | next.other) << 63;
        let first = m.letter & !after(m.letter, before.letter)
            | m.number & !after(m.number, before.number)
            | m.other & !after(m.other, before.other);
        let leaves_last = loose & next_solid;
        let mut starts = first & !after(single, before.single)
            | loose & !after(loose, before.loose)
            | run & !after(run, before.run);
        self.before = Before {
            letter: last(m.letter),
            number: last(m.number),
            other: last(m.other),
            blank: last(m.blank),
            loose: last(loose),
            single: last(single),
            run: last(run),
            run_len,
        };
        starts |= match leaves_last & m.high {
            0 => leaves_last,
            wide => {
                let first_bytes = on_first_bytes(self.text, self.at, wide, self.last_end, ends);
                leaves_last & !wide | first_bytes
            }
        };
        starts = starts & !self.not_a_start | self.a_start;
        (self.not_a_start, self.a_start) = (0, 0);
        match starts & m.apostrophe {
            0 => starts,
            apostrophes => self.contract(starts, apostrophes),
        }
    }

    /// The runs of spaces that are tokens, and how long the one at the end of the block is by then.
    ///
    /// Of n spaces, n - 1 are cut out where tokens of up to K leave one over: n mod K = 1.
    #[inline]
    fn runs(&self, next: &Masks) -> (u64, usize) {
        if self.longest_run == 0 {
            return (0, 0);
        }
        let blank = self.here.blank;
        let neighbours = after(blank, self.before.blank) | blank >> 1 | next.blank << 63;
        let run = blank & neighbours;
        let goes_on = next.blank & 1 == 1;
        if self.before.run_len == 0 && run.count_ones() as usize <= self.longest_run {
            let run_len = if goes_on { run.leading_ones() } else { 0 };
            return (run, run_len as usize);
        }
        self.long_runs(run, goes_on)
    }

    #[cold]
    fn long_runs(&self, mut run: u64, goes_on: bool) -> (u64, usize) {
        let mut rest = run;
        while rest != 0 {
            let start = rest.trailing_zeros();
            let len = (rest >> start).trailing_ones();
            let end = start + len;
            let earlier = if start == 0 { self.before.run_len } else { 0 };
            let n = len as usize + earlier;
            if end == u64::BITS && goes_on {
                return (run, n);
            }
            if n > self.longest_run && n % self.longest_run == 1 {
                run &= !(1 << (end - 1));
            }
            rest &= u64::MAX.checked_shl(end).unwrap_or(0);
        }
        (run, 0)
    }

    /// The starts where those at `apostrophes` that begin a contraction are followed by its end.
    fn contract(&mut self, mut starts: u64, mut apostrophes: u64) -> u64 {
        while apostrophes != 0 {
            let bit = apostrophes.trailing_zeros() as usize;
            apostrophes &= apostrophes - 1;
            let text = &self.text[self.at + bit..];
            let Some(len) = contraction_len(text) else {
                continue;
            };
            let inside = 1_u128 << (bit + 1);
            let end = if len < text.len() {
                1_u128 << (bit + len)
            } else {
                0
            };
            starts = starts & !(inside as u64) | end as u64;
            self.not_a_start |= (inside >> 64) as u64;
            self.a_start |= (end >> 64) as u64;
        }
        starts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenize::{
        model::added::{AddedToken, AddedTokens, Cut},
        pretokenize::pattern::Pattern,
        pretokenize::plain::plain_pieces,
    };
    use proptest::prelude::*;

    fn scanned(text: &str, longest_run: usize) -> Vec<&str> {
        let mut scanner = Scanner::new(text, longest_run);
        let (mut pieces, mut from) = (Vec::new(), 0);
        loop {
            let mut ends = Vec::new();
            scanner.next_ends(&mut ends);
            if ends.is_empty() {
                return pieces;
            }
            for end in ends {
                pieces.push(&text[from..end]);
                from = end;
            }
        }
    }

    /// The same from `plain_pieces`, runs cut out as any other token; the tokens of a run joined.
    fn plain(text: &str, longest_run: usize) -> Vec<String> {
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
        for cut in added.cuts(text) {
            match cut {
                Cut::Token(n) if follows_run => {
                    let run = all.last_mut().unwrap();
                    run.push_str(&" ".repeat(n as usize));
                }
                Cut::Token(n) => all.push(" ".repeat(n as usize)),
                Cut::Text(text) => all.extend(plain_pieces(text, Pattern::Gpt2)),
            }
            follows_run = matches!(cut, Cut::Token(_));
        }
        all
    }

    fn check(text: &str) {
        for longest_run in [0, 2, 3, 24] {
            assert_eq!(
                scanned(text, longest_run),
                plain(text, longest_run),
                "{longest_run}"
            );
        }
    }

    #[test]
    fn nothing_is_no_piece() {
        check("");
    }

    #[test]
    fn everything_at_every_place_of_a_block() {
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
            for (before, behind) in [
                ("", ""),
                ("a", "b"),
                ("\n", "\n"),
                ("a", "\nb"),
                ("a", "\u{a0}b"),
            ] {
                check(&format!("{before}{}{behind}", " ".repeat(n)));
                check(&format!(
                    "{before}{}{behind}{}",
                    " ".repeat(n),
                    " ".repeat(25)
                ));
            }
        }
    }

    #[test]
    fn a_piece_longer_than_one_call_looks_at() {
        check(&"a".repeat(3 * BYTES_PER_CALL));
        check(&format!("{}b", " ".repeat(3 * BYTES_PER_CALL + 1)));
    }

    #[test]
    fn more_text_than_one_call_looks_at() {
        check(&"it's 12 o'clock,  \u{3000}é\n".repeat(1000));
    }

    proptest! {
        #[test]
        fn equals_the_pieces(text in "([ '\n\t\u{a0}\u{3000}]|[sdrelvtSa]|[0-9²]|[.,!é漢\u{1F600}]| {20,80}|\\PC){0,200}") {
            check(&text);
        }
    }
}
