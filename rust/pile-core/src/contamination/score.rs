//! Scores the parts of items in the texts that have n-grams of them.

use std::ops::Range;

use memchr::memmem;

use super::{
    items::{BenchmarkItems, Part, Role},
    rarity::Rarity,
    spill::{MatchedPassage, NEAR_WORDS, SpilledText},
    words::Words,
};

/// Most bytes of a matched text that are reported.
const MAX_TEXT_BYTES: usize = 1000;

/// How a part occurs in a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MatchKind {
    /// Its characters, byte for byte.
    Verbatim,
    /// All its words in order.
    Normalized,
    /// N-grams of at least the threshold's share of its weight, in one region.
    Partial,
}

/// A part of an item in a document.
#[derive(Debug, Clone, PartialEq)]
pub struct Match {
    /// Number of the part, among those that were given.
    pub part: u32,
    /// Number of the shard; 0 if the documents are not those of shards.
    pub shard: u32,
    /// The record of the shard, or the document.
    pub document: u64,
    /// The share of the part's weight in the best region.
    pub score: f64,
    /// How it occurs, at best.
    pub kind: MatchKind,
    /// The best occurrence.
    pub bytes: Range<u64>,
    /// Its text, or the start of it.
    pub text: String,
    /// For a question, the share of the answer's weight near it; `None` if the item has no answer.
    pub answer_score: Option<f64>,
    /// For a question, the choices that are near it.
    pub n_choices: u32,
    /// The bytes of all occurrences, in the order of the document.
    pub occurrences: Vec<Range<u64>>,
}

/// Consecutive words of a passage.
#[derive(Debug, Clone, Copy)]
struct ItemOccurrence {
    passage: usize,
    first_word: usize,
    end_word: usize,
    kind: MatchKind,
    score: f64,
}

/// An n-gram of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Located {
    passage: usize,
    word: usize,
    gram: u32,
}

/// A passage and its words.
#[derive(Debug)]
struct ReadPassage<'a> {
    passage: MatchedPassage<'a>,
    words: Words,
}

/// Scores texts. Its buffers are reused.
#[derive(Debug)]
pub(super) struct Scorer<'a> {
    items: &'a BenchmarkItems,
    rarity: &'a Rarity,
    threshold: f64,
    max_gap: usize,
    /// The parts that may reach the threshold because a text has this n-gram: by n-gram, the range in `parts`.
    starts: Vec<usize>,
    parts: Vec<u32>,
}

impl<'a> Scorer<'a> {
    pub(super) fn new(
        items: &'a BenchmarkItems,
        rarity: &'a Rarity,
        threshold: f64,
        max_gap: usize,
    ) -> Self {
        let mut keys: Vec<(u32, u32)> = Vec::new();
        for (number, part) in items.parts.iter().enumerate() {
            if rarity.is_telling(number) {
                let grams = key_grams(part, rarity, rarity.total(number), threshold);
                keys.extend(grams.into_iter().map(|gram| (gram, number as u32)));
            }
        }
        keys.sort_unstable();
        let mut starts = vec![0; items.n_grams() + 1];
        for (gram, _) in &keys {
            starts[*gram as usize + 1] += 1;
        }
        for gram in 0..items.n_grams() {
            starts[gram + 1] += starts[gram];
        }
        Self {
            items,
            rarity,
            threshold,
            max_gap,
            starts,
            parts: keys.into_iter().map(|(_, part)| part).collect(),
        }
    }

    /// The matches in a text, by part.
    pub(super) fn score(&self, shard: u32, text: &SpilledText<'_>) -> Vec<Match> {
        let keyed = |gram| {
            let gram = gram as usize;
            &self.parts[self.starts[gram]..self.starts[gram + 1]]
        };
        let mut candidates: Vec<u32> = text.grams().flat_map(keyed).copied().collect();
        if candidates.is_empty() {
            return Vec::new();
        }
        candidates.sort_unstable();
        candidates.dedup();
        let scored = ScoredText::read(self.items, text);
        let found = candidates.into_iter();
        found
            .filter_map(|part| self.score_part(part, &scored, shard, text.document))
            .collect()
    }

    fn score_part(
        &self,
        number: u32,
        text: &ScoredText<'_>,
        shard: u32,
        document: u64,
    ) -> Option<Match> {
        let part = &self.items.parts[number as usize];
        let located = text.locate(part);
        let mut occurrences = text.in_order(part, &located);
        if occurrences.is_empty() {
            let total = self.rarity.total(number as usize);
            occurrences = self.regions(part, &located, total);
        }
        let best = *occurrences.iter().min_by(|a, b| {
            // The first one of the best.
            a.kind.cmp(&b.kind).then(b.score.total_cmp(&a.score))
        })?;
        let (mut answer_score, mut n_choices) = (None, 0);
        if part.role == Role::Question {
            for other in self.items.parts_of(part.item) {
                let role = self.items.parts[other].role;
                if !matches!(role, Role::Answer | Role::Choice)
                    || self.items.parts[other].n_words == 0
                {
                    continue;
                }
                let near = occurrences.iter().map(|at| self.near(other, text, at));
                let near = near.fold(0.0, f64::max);
                if role == Role::Answer {
                    answer_score = Some(answer_score.map_or(near, |score: f64| score.max(near)));
                } else {
                    n_choices += u32::from(near >= self.threshold);
                }
            }
        }
        let bytes = text.bytes_of(part, &best);
        Some(Match {
            part: number,
            shard,
            document,
            score: best.score,
            kind: best.kind,
            text: text.shown(best.passage, &bytes),
            bytes,
            answer_score,
            n_choices,
            occurrences: occurrences
                .iter()
                .map(|at| text.bytes_of(part, at))
                .collect(),
        })
    }

    /// The regions that reach the threshold: n-grams with at most `max_gap` words between one and the next.
    fn regions(&self, part: &Part, located: &[Located], total: f64) -> Vec<ItemOccurrence> {
        let is_near = |a: &Located, b: &Located| {
            a.passage == b.passage && b.word <= a.word + part.n + self.max_gap
        };
        let score = |region: &[Located]| {
            let mut grams: Vec<u32> = region.iter().map(|at| at.gram).collect();
            grams.sort_unstable();
            grams.dedup();
            self.rarity.sum(grams.into_iter()) / total
        };
        let scored = located.chunk_by(is_near).map(|region| ItemOccurrence {
            passage: region[0].passage,
            first_word: region[0].word,
            end_word: region[region.len() - 1].word + part.n,
            kind: MatchKind::Partial,
            score: score(region),
        });
        scored.filter(|at| at.score >= self.threshold).collect()
    }

    /// How much of a part is near an occurrence of the question: 1 for all its words in order, with at most
    /// [`NEAR_WORDS`] words between; otherwise the share of its weight within that and as many words as the part has, at
    /// most [`NEAR_WORDS`].
    fn near(&self, number: usize, text: &ScoredText<'_>, question: &ItemOccurrence) -> f64 {
        let part = &self.items.parts[number];
        let read = &text.passages[question.passage];
        let windows = |n_words: usize| {
            let reach = NEAR_WORDS + n_words;
            let before = question.first_word.saturating_sub(reach)..question.first_word;
            let end = question.end_word.saturating_add(reach);
            let after = question.end_word..end.min(read.words.len());
            [before, after]
                .into_iter()
                .filter(|words| !words.is_empty())
        };
        if windows(part.n_words).any(|words| has_words(&read.words, words, &part.words)) {
            return 1.0;
        }
        if part.n == 0 || !self.rarity.is_telling(number) {
            return 0.0;
        }
        let located = text.locate(part);
        let mut grams = Vec::new();
        // An n-gram further away may be in another passage, or not, as other items have n-grams between: the score must
        // not depend on them.
        for words in windows(part.n_words.min(NEAR_WORDS)) {
            let is_within = |at: &&Located| {
                at.passage == question.passage
                    && at.word >= words.start
                    && at.word + part.n <= words.end
            };
            grams.extend(located.iter().filter(is_within).map(|at| at.gram));
        }
        grams.sort_unstable();
        grams.dedup();
        self.rarity.sum(grams.into_iter()) / self.rarity.total(number)
    }
}

/// The fewest n-grams of a part of which a text must have one: the others together are below the threshold.
fn key_grams(part: &Part, rarity: &Rarity, total: f64, threshold: f64) -> Vec<u32> {
    let mut grams = part.grams.clone();
    grams.sort_by(|a, b| rarity.weight(*b).total_cmp(&rarity.weight(*a)));
    // Sums that are rounded must not lose a part at the threshold.
    let enough = threshold * total * (1.0 - 1e-9);
    let mut rest = total;
    let n = grams.iter().take_while(|gram| {
        let is_needed = rest >= enough;
        rest -= rarity.weight(**gram);
        is_needed
    });
    let n = n.count();
    grams.truncate(n);
    grams
}

/// Whether `words` of a passage have the normalized words of a part in order.
fn has_words(passage: &Words, words: Range<usize>, part: &[u8]) -> bool {
    let window = passage.normalized(words);
    memmem::find_iter(window, part).any(|start| {
        let end = start + part.len();
        (start == 0 || window[start - 1] == b' ') && (end == window.len() || window[end] == b' ')
    })
}

/// A text with the n-grams of all parts.
#[derive(Debug)]
struct ScoredText<'a> {
    passages: Vec<ReadPassage<'a>>,
    /// By n-gram.
    located: Vec<(u32, usize, usize)>,
}

impl<'a> ScoredText<'a> {
    fn read(items: &BenchmarkItems, text: &SpilledText<'a>) -> Self {
        let (mut passages, mut located) = (Vec::new(), Vec::new());
        let (mut numbers, mut hits) = (Vec::new(), Vec::new());
        for passage in text.passages() {
            let mut words = Words::default();
            words.read(passage.text);
            items.find(&words, &mut numbers, &mut hits);
            located.extend(hits.iter().map(|hit| (hit.gram, passages.len(), hit.word)));
            passages.push(ReadPassage { passage, words });
        }
        located.sort_unstable();
        Self { passages, located }
    }

    /// The n-grams of a part, in the order of the text.
    fn locate(&self, part: &Part) -> Vec<Located> {
        let mut found = Vec::with_capacity(part.grams.len());
        for gram in &part.grams {
            let first = self.located.partition_point(|(other, ..)| other < gram);
            let of_gram = self.located[first..]
                .iter()
                .take_while(|(other, ..)| other == gram);
            found.extend(of_gram.map(|(gram, passage, word)| Located {
                passage: *passage,
                word: *word,
                gram: *gram,
            }));
        }
        found.sort_unstable();
        found
    }

    /// Where all words of a part are in order, from left to right without overlap, found as Knuth, Morris and Pratt do:
    /// a text may repeat one n-gram a million times.
    fn in_order(&self, part: &Part, located: &[Located]) -> Vec<ItemOccurrence> {
        let sequence = &part.sequence;
        // The longest proper prefix of the first n-grams that is also their end.
        let mut borders = vec![0; sequence.len()];
        let mut n = 0;
        for i in 1..sequence.len() {
            while n > 0 && sequence[i] != sequence[n] {
                n = borders[n - 1];
            }
            n += usize::from(sequence[i] == sequence[n]);
            borders[i] = n;
        }
        let (mut found, mut n_matched, mut last) = (Vec::new(), 0, None);
        // The first word after the last occurrence.
        let mut free = (0, 0);
        for at in located {
            if last != Some((at.passage, at.word)) {
                n_matched = 0;
            }
            last = Some((at.passage, at.word + 1));
            if (at.passage, at.word) < free {
                continue;
            }
            while n_matched > 0 && sequence[n_matched] != at.gram {
                n_matched = borders[n_matched - 1];
            }
            n_matched += usize::from(sequence[n_matched] == at.gram);
            if n_matched == sequence.len() {
                n_matched = 0;
                let first_word = at.word + 1 - sequence.len();
                let end_word = first_word + part.n_words;
                free = (at.passage, end_word);
                let occurrence = ItemOccurrence {
                    passage: at.passage,
                    first_word,
                    end_word,
                    kind: MatchKind::Normalized,
                    score: 1.0,
                };
                found.push(ItemOccurrence {
                    kind: match self.as_written(part, &occurrence) {
                        Some(_) => MatchKind::Verbatim,
                        None => MatchKind::Normalized,
                    },
                    ..occurrence
                });
            }
        }
        found
    }

    /// The bytes of an occurrence in its passage, if these are the part's own.
    fn as_written(&self, part: &Part, at: &ItemOccurrence) -> Option<Range<usize>> {
        let read = &self.passages[at.passage];
        let first = read.words.source(at.first_word..at.end_word).start;
        let start = first.checked_sub(part.n_bytes_before)?;
        let range = start..start + part.text.len();
        (read.passage.text.get(range.clone())? == part.text.as_bytes()).then_some(range)
    }

    /// The bytes of an occurrence in the document.
    fn bytes_of(&self, part: &Part, at: &ItemOccurrence) -> Range<u64> {
        let read = &self.passages[at.passage];
        let bytes = match at.kind {
            MatchKind::Verbatim => self.as_written(part, at),
            MatchKind::Normalized | MatchKind::Partial => None,
        };
        let bytes = bytes.unwrap_or_else(|| read.words.source(at.first_word..at.end_word));
        let first = read.passage.first_byte;
        first + bytes.start as u64..first + bytes.end as u64
    }

    /// The text of bytes of the document that are in a passage, cut if it is long.
    fn shown(&self, passage: usize, bytes: &Range<u64>) -> String {
        let MatchedPassage { first_byte, text } = self.passages[passage].passage;
        let text = &text[(bytes.start - first_byte) as usize..(bytes.end - first_byte) as usize];
        let mut end = text.len().min(MAX_TEXT_BYTES);
        // Not within a character. One that is no UTF-8 may be cut.
        while end < text.len() && end + 4 > MAX_TEXT_BYTES && text[end] & 0xC0 == 0x80 {
            end -= 1;
        }
        String::from_utf8_lossy(&text[..end]).into_owned()
    }
}
