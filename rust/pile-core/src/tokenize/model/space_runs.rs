//! Added tokens for runs of spaces. GPT-NeoX's tokenizer has them for 2 to 24 spaces.

use crate::tokenize::model::added_tokens::AddedToken;

/// The tokens for runs of 2, 3, ... K spaces.
#[derive(Debug)]
pub(crate) struct SpaceRuns {
    /// The id of the run of i + 2 spaces at index i.
    ids: Vec<u32>,
}

impl SpaceRuns {
    /// The runs of `tokens`; None unless these are runs of 2, 3, ... K spaces without a gap and nothing else.
    pub(crate) fn from_tokens(tokens: &[AddedToken]) -> Option<Self> {
        let mut runs: Vec<&AddedToken> = tokens.iter().collect();
        runs.sort_by_key(|t| t.content.len());
        let is_run = |(n, t): (usize, &&AddedToken)| {
            t.content == " ".repeat(n) && !t.strips_left && !t.strips_right && !t.is_single_word
        };
        let are_runs = !runs.is_empty() && (2..).zip(&runs).all(is_run);
        are_runs.then(|| Self {
            ids: runs.iter().map(|t| t.id).collect(),
        })
    }

    /// K, the number of spaces of the longest run.
    pub(crate) fn longest(&self) -> usize {
        self.ids.len() + 1
    }

    /// Appends the ids of a run of `n` spaces: the longest token as often as it fits, then that of the rest.
    ///
    /// The rest is never one space, which no token covers: the scanner ends the run before it.
    pub(crate) fn push_ids(&self, n: usize, out: &mut Vec<u32>) {
        let (longest, last) = (self.longest(), self.ids.len() - 1);
        out.extend(std::iter::repeat_n(self.ids[last], n / longest));
        if n % longest > 1 {
            out.push(self.ids[n % longest - 2]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(content: &str) -> AddedToken {
        AddedToken {
            id: content.len() as u32,
            content: content.to_owned(),
            is_special: false,
            is_normalized: true,
            is_single_word: false,
            strips_left: false,
            strips_right: false,
        }
    }

    #[test]
    fn only_runs_without_a_gap_are_space_runs() {
        let of = |contents: &[&str]| {
            SpaceRuns::from_tokens(&contents.iter().map(|c| token(c)).collect::<Vec<_>>())
        };
        assert_eq!(of(&["   ", "  "]).unwrap().longest(), 3);
        assert!(of(&[]).is_none());
        assert!(of(&["  ", "    "]).is_none());
        assert!(of(&["   "]).is_none());
        assert!(of(&["  ", "  a"]).is_none());
    }

    #[test]
    fn a_run_is_split_into_the_longest_first() {
        let runs = SpaceRuns::from_tokens(&[token("  "), token("   "), token("    ")]).unwrap();
        let ids = |n| {
            let mut out = Vec::new();
            runs.push_ids(n, &mut out);
            out
        };
        assert_eq!(ids(2), [2]);
        assert_eq!(ids(4), [4]);
        assert_eq!(ids(8), [4, 4]);
        assert_eq!(ids(11), [4, 4, 3]);
    }
}
