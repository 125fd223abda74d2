//! Tokens for runs of spaces, as GPT-NeoX's tokenizer has for 2 to 24.

use crate::tokenize::model::added::AddedToken;

/// The tokens for runs of 2, 3, ... K spaces.
#[derive(Debug)]
pub(crate) struct SpaceRuns {
    /// Of the run of i + 2 spaces.
    ids: Vec<u32>,
}

impl SpaceRuns {
    /// What `tokens` are, if they are runs of spaces without a gap and nothing else.
    pub(crate) fn of(tokens: &[AddedToken]) -> Option<Self> {
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

    /// Spaces of the longest token.
    pub(crate) fn longest(&self) -> usize {
        self.ids.len() + 1
    }

    /// Appends the ids of a run of `n` spaces: the longest token as often as it fits, then the rest,
    /// which is not 1.
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
    fn runs_are_runs_without_a_gap() {
        let of = |contents: &[&str]| {
            SpaceRuns::of(&contents.iter().map(|c| token(c)).collect::<Vec<_>>())
        };
        assert_eq!(of(&["   ", "  "]).unwrap().longest(), 3);
        assert!(of(&[]).is_none());
        assert!(of(&["  ", "    "]).is_none());
        assert!(of(&["   "]).is_none());
        assert!(of(&["  ", "  a"]).is_none());
    }

    #[test]
    fn a_run_is_cut_into_the_longest_first() {
        let runs = SpaceRuns::of(&[token("  "), token("   "), token("    ")]).unwrap();
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
