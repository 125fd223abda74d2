//! The settings of the job.

use std::path::PathBuf;

use super::{Bands, stored::StoredSignatures};
use crate::{Error, Result, read::Rules};

/// Maximum words or characters of a shingle.
const MAX_SHINGLE: usize = 1000;

/// Maximum number of permutations of a signature.
const MAX_PERMUTATIONS: usize = 4096;

/// Fails if signatures cannot have this length.
pub(super) fn check_permutations(permutations: usize) -> Result<()> {
    match (1..=MAX_PERMUTATIONS).contains(&permutations) {
        true => Ok(()),
        false => Err(Error::argument(format!(
            "{permutations} permutations, expected 1 to {MAX_PERMUTATIONS}"
        ))),
    }
}

/// Digits of a threshold after the point.
const THRESHOLD_DIGITS: u32 = 4;

/// What a shingle is: consecutive words, as Python's `str.split()` separates them, or consecutive characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shingle {
    /// So many consecutive words.
    Words(usize),
    /// So many consecutive Unicode scalar values.
    Chars(usize),
}

impl Shingle {
    /// Parses `words:n` or `chars:n`.
    ///
    /// # Errors
    /// Another text, or an `n` that is not within 1 to 1,000.
    pub fn parse(text: &str) -> Result<Self> {
        let parsed = text.split_once(':').and_then(|(unit, n)| {
            let n = n.parse().ok().filter(|n| (1..=MAX_SHINGLE).contains(n))?;
            match unit {
                "words" => Some(Self::Words(n)),
                "chars" => Some(Self::Chars(n)),
                _ => None,
            }
        });
        parsed.ok_or_else(|| {
            let expected = format!("words:N or chars:N, with N from 1 to {MAX_SHINGLE}");
            Error::argument(format!("shingle {text:?}, expected {expected}"))
        })
    }

    /// Words or characters of a shingle.
    pub(super) fn length(self) -> usize {
        match self {
            Self::Words(n) | Self::Chars(n) => n,
        }
    }
}

/// What is done to a text before it is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Normalization {
    /// Nothing.
    None,
    /// Each run of white space becomes one space, and the ends are trimmed.
    Whitespace,
    /// NFC, then full case folding, then [`Normalization::Whitespace`].
    Case,
}

impl Normalization {
    /// Parses `none`, `whitespace` or `case`.
    ///
    /// # Errors
    /// Another text.
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "none" => Ok(Self::None),
            "whitespace" => Ok(Self::Whitespace),
            "case" => Ok(Self::Case),
            _ => Err(Error::argument(format!(
                "normalization {text:?}, expected none, whitespace or case"
            ))),
        }
    }
}

/// The least similarity of near duplicates: a decimal fraction, compared without rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Threshold {
    /// In units of 1 / 10,000.
    units: u32,
}

impl Threshold {
    const DENOMINATOR: u32 = 10_u32.pow(THRESHOLD_DIGITS);

    /// Parses a decimal fraction above 0 and up to 1, with at most four digits after the point.
    ///
    /// # Errors
    /// Another text.
    pub fn parse(text: &str) -> Result<Self> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let is_number = |digits: &str| {
            (1..=THRESHOLD_DIGITS as usize).contains(&digits.len())
                && digits.bytes().all(|byte| byte.is_ascii_digit())
        };
        let units = if is_number(whole) && is_number(fraction) {
            format!("{whole}{fraction:0<4}").parse().unwrap_or(0)
        } else {
            0
        };
        if !(1..=Self::DENOMINATOR).contains(&units) {
            return Err(Error::argument(format!(
                "threshold {text:?}, expected a decimal fraction above 0 and up to 1, with at most \
                 {THRESHOLD_DIGITS} digits after the point"
            )));
        }
        Ok(Self { units })
    }

    /// Whether `shared / all` reaches the threshold.
    pub(super) fn is_reached(self, shared: u64, all: u64) -> bool {
        u128::from(shared) * u128::from(Self::DENOMINATOR)
            >= u128::from(all) * u128::from(self.units)
    }

    /// The nearest floating-point number.
    #[must_use]
    pub fn as_f64(self) -> f64 {
        f64::from(self.units) / f64::from(Self::DENOMINATOR)
    }
}

/// The similarity of two sets of shingles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verification {
    /// The shingles of both, divided by those of either.
    Jaccard,
    /// The shingles of both, divided by those of the smaller set.
    Containment,
}

impl Verification {
    /// Parses `jaccard` or `containment`.
    ///
    /// # Errors
    /// Another text.
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "jaccard" => Ok(Self::Jaccard),
            "containment" => Ok(Self::Containment),
            _ => Err(Error::argument(format!(
                "verification {text:?}, expected jaccard or containment"
            ))),
        }
    }
}

/// Which of similar documents is kept. Equally preferred ones are taken in reading order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Preference {
    /// The first in reading order.
    First,
    /// The one with the most bytes of text.
    Longest,
    /// The one whose subset is named first. Subsets that are not named come last.
    Subset(Vec<String>),
}

impl Preference {
    /// Parses `first`, `longest` or `subset`, the latter with the names of subsets.
    ///
    /// # Errors
    /// Another text, or names with a preference that does not use them, or none with the one that does.
    pub fn parse(text: &str, subsets: Vec<String>) -> Result<Self> {
        match (text, subsets.is_empty()) {
            ("first", true) => Ok(Self::First),
            ("longest", true) => Ok(Self::Longest),
            ("subset", false) => Ok(Self::Subset(subsets)),
            ("first" | "longest", false) => Err(Error::argument(format!(
                "subset priorities are for the preference subset, not {text}"
            ))),
            ("subset", true) => Err(Error::argument(
                "the preference subset needs the names of subsets, the preferred one first",
            )),
            _ => Err(Error::argument(format!(
                "preference {text:?}, expected first, longest or subset"
            ))),
        }
    }
}

/// A record of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordNumber {
    /// Index of the shard.
    pub shard: usize,
    /// Number of the record in the shard, from 0.
    pub record: u64,
}

impl RecordNumber {
    /// The error for a protected record that is no document.
    pub(super) fn no_document(self, shards: &[PathBuf]) -> Error {
        Error::argument(match shards.get(self.shard) {
            Some(path) => format!(
                "a protected document is record {} of {}, which has no document there",
                self.record,
                path.display()
            ),
            None => format!(
                "a protected document is in shard {}, but there are {}",
                self.shard,
                shards.len()
            ),
        })
    }
}

/// How near duplicates are found.
#[derive(Debug, Clone)]
pub struct NearConfig {
    /// The least similarity.
    pub threshold: Threshold,
    /// What the similarity compares.
    pub shingle: Shingle,
    /// Which similarity decides.
    pub verification: Verification,
    /// Length of the signatures. At least `bands.bands * bands.rows`.
    pub permutations: usize,
    /// Which pairs are candidates.
    pub bands: Bands,
}

/// The settings of [`find_duplicates`](super::find_duplicates).
#[derive(Debug, Clone)]
pub struct DedupConfig {
    /// The shards, in reading order. Each is read twice.
    pub shards: Vec<PathBuf>,
    /// Number of first shards that are an older corpus: all their documents are kept and preferred to the others.
    /// They are not compared with each other, and are reported only in clusters with other documents.
    pub n_older: usize,
    /// How they are read.
    pub rules: Rules,
    /// Folder for files of the job, from which it resumes after an interruption.
    pub folder: PathBuf,
    /// Names everything that the result depends on, except the shards and the rule for bad records: the request, and
    /// after a `.` what else unfinished files depend on. They are resumed only by a job of the same name, and
    /// discarded by another one of the same request.
    pub job: String,
    /// Whether unfinished files of another job in the folder are discarded; otherwise they are an error.
    pub discard: bool,
    /// How near duplicates are found; `None` for exact ones only.
    pub near: Option<NearConfig>,
    /// What is done to texts before they are compared.
    pub normalization: Normalization,
    /// Which document of similar ones is kept.
    pub preference: Preference,
    /// Documents that are never removed, and preferred to all others.
    pub protected: Vec<RecordNumber>,
    /// Texts whose documents, wherever they are, are protected too.
    pub protected_texts: Vec<String>,
    /// Maximum documents of a cluster from which documents are removed.
    pub max_cluster: u64,
    /// Whether documents are removed from larger clusters too.
    pub large_clusters: bool,
    /// Bytes of memory for sorting.
    pub memory: u64,
    /// Number of threads. The result does not depend on it.
    pub n_threads: usize,
    /// Signatures that are used instead of the first pass over their shards.
    pub stored: Vec<StoredSignatures>,
    /// Whether the texts of the older shards are not read, which must all have stored signatures. Copies of their
    /// documents are found by the hash alone, and similarities to them are estimated from the signatures.
    pub estimates_older: bool,
}

impl DedupConfig {
    /// The settings of the first pass.
    pub(super) fn sketch(&self) -> SketchConfig<'_> {
        let signature = |near: &NearConfig| (near.shingle, near.permutations);
        SketchConfig {
            shards: &self.shards,
            rules: &self.rules,
            normalization: self.normalization,
            signature: self.near.as_ref().map(signature),
            memory: self.memory,
            n_threads: self.n_threads,
            stored: &self.stored,
            n_absent: self.n_estimated(),
        }
    }

    /// Number of first shards whose texts are not read.
    pub(super) fn n_estimated(&self) -> usize {
        match self.estimates_older {
            true => self.n_older,
            false => 0,
        }
    }
}

/// The settings of the first pass.
#[derive(Debug, Clone, Copy)]
pub(super) struct SketchConfig<'a> {
    pub(super) shards: &'a [PathBuf],
    pub(super) rules: &'a Rules,
    pub(super) normalization: Normalization,
    /// Shingle and permutations of the signatures.
    pub(super) signature: Option<(Shingle, usize)>,
    pub(super) memory: u64,
    pub(super) n_threads: usize,
    /// Signatures that an earlier job has stored of some of the shards.
    pub(super) stored: &'a [StoredSignatures],
    /// Number of first shards that need not exist, as all have stored signatures.
    pub(super) n_absent: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_exact_decimals() {
        let reached =
            |text: &str, shared, all| Threshold::parse(text).unwrap().is_reached(shared, all);
        assert!(reached("0.87", 87, 100) && !reached("0.8701", 87, 100));
        assert!(reached("1", 5, 5) && !reached("1.0", u64::MAX - 1, u64::MAX));
        assert!(reached("0.0001", 1, 10_000));
        for text in [
            "", "0", "0.0", "1.0001", "2", ".5", "0.", "0.12345", "-0.5", "1e-1", "+0.5", "٠.5",
        ] {
            assert!(Threshold::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn names_are_parsed_or_refused() {
        assert_eq!(Shingle::parse("words:5").unwrap(), Shingle::Words(5));
        assert_eq!(Shingle::parse("chars:1000").unwrap(), Shingle::Chars(1000));
        for text in ["words", "words:0", "words:1001", "lines:3", "words:-1", ""] {
            let message = Shingle::parse(text).unwrap_err().to_string();
            assert!(message.contains("expected words:N"), "{message}");
        }
        assert!(Normalization::parse("nfc").is_err() && Verification::parse("dice").is_err());
        let names = vec!["A".to_owned()];
        assert!(Preference::parse("first", names.clone()).is_err());
        assert!(Preference::parse("subset", Vec::new()).is_err());
        assert!(Preference::parse("last", Vec::new()).is_err());
        assert_eq!(
            Preference::parse("subset", names.clone()).unwrap(),
            Preference::Subset(names)
        );
    }
}
