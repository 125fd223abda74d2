//! Scores the parts of items in the texts that have n-grams of them.

use std::ops::Range;

use memchr::memmem;

use super::{
    items::{BenchmarkItems, Part, Role},
    rarity::Rarity,
    spill::{NEAR_WORDS, SpilledHit, SpilledText},
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
#[derive(Debug, Clone)]
struct ItemOccurrence {
    passage: usize,
    first_word: usize,
    end_word: usize,
    /// Their bytes in the passage.
    source: Range<usize>,
    /// The bytes that are reported: of a verbatim occurrence, those of the part.
    bytes: Range<usize>,
    kind: MatchKind,
    score: f64,
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
    index: GramIndex,
    buffers: Buffers,
}

/// Buffers that are reused.
#[derive(Debug, Default)]
struct Buffers {
    /// The n-grams of a part in the text.
    located: Vec<SpilledHit>,
    /// The words of each passage of the text, once they were needed.
    words: Vec<Option<Words>>,
}

/// The hits of a text by n-gram.
#[derive(Debug)]
struct GramIndex {
    /// N-grams with the indices of their hits, ascending.
    hits: Vec<(u32, usize)>,
    /// By n-gram, the first of its entries in `hits`. The n-grams that a text lacks have a value of an earlier text, which
    /// is an entry of another n-gram or none: so the table is never cleared.
    first: Vec<usize>,
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
            index: GramIndex {
                hits: Vec::new(),
                first: vec![0; items.n_grams()],
            },
            buffers: Buffers::default(),
        }
    }

    /// The matches in a text, by part.
    pub(super) fn score(&mut self, shard: u32, text: &SpilledText<'_>) -> Vec<Match> {
        let keyed = |hit: &SpilledHit| {
            let gram = hit.gram as usize;
            &self.parts[self.starts[gram]..self.starts[gram + 1]]
        };
        let mut candidates: Vec<u32> = text.hits.iter().flat_map(keyed).copied().collect();
        if candidates.is_empty() {
            return Vec::new();
        }
        candidates.sort_unstable();
        candidates.dedup();
        self.index.read(&text.hits);
        let mut buffers = std::mem::take(&mut self.buffers);
        buffers.words.clear();
        buffers.words.resize_with(text.passages.len(), || None);
        let found = candidates.into_iter();
        let found = found
            .filter_map(|part| self.score_part(part, text, shard, &mut buffers))
            .collect();
        self.buffers = buffers;
        found
    }

    fn score_part(
        &self,
        number: u32,
        text: &SpilledText<'_>,
        shard: u32,
        Buffers { located, words }: &mut Buffers,
    ) -> Option<Match> {
        let part = &self.items.parts[number as usize];
        self.index.locate(part, &text.hits, located);
        let mut occurrences = in_order(part, text, located);
        if occurrences.is_empty() {
            let total = self.rarity.total(number as usize);
            occurrences = self.regions(part, located, total);
        }
        let best = occurrences.iter().min_by(|a, b| {
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
                let is_telling = self.items.parts[other].n > 0 && self.rarity.is_telling(other);
                let mut grams = Vec::new();
                if is_telling {
                    self.index
                        .locate(&self.items.parts[other], &text.hits, &mut grams);
                }
                let near = occurrences.iter().map(|at| {
                    let words = words[at.passage].get_or_insert_with(|| {
                        let mut words = Words::default();
                        words.read(text.passages[at.passage].text);
                        words
                    });
                    self.near(other, &grams, at, words)
                });
                let near = near.fold(0.0, f64::max);
                if role == Role::Answer {
                    answer_score = Some(answer_score.map_or(near, |score: f64| score.max(near)));
                } else {
                    n_choices += u32::from(near >= self.threshold);
                }
            }
        }
        Some(Match {
            part: number,
            shard,
            document: text.document,
            score: best.score,
            kind: best.kind,
            text: shown(&text.passages[best.passage].text[best.bytes.clone()]),
            bytes: bytes_of(text, best),
            answer_score,
            n_choices,
            occurrences: occurrences.iter().map(|at| bytes_of(text, at)).collect(),
        })
    }

    /// The regions that reach the threshold: n-grams with at most `max_gap` words between one and the next.
    fn regions(&self, part: &Part, located: &[SpilledHit], total: f64) -> Vec<ItemOccurrence> {
        let is_near = |a: &SpilledHit, b: &SpilledHit| {
            a.passage == b.passage && b.word <= a.word + part.n + self.max_gap
        };
        let score = |region: &[SpilledHit]| {
            let mut grams: Vec<u32> = region.iter().map(|at| at.gram).collect();
            grams.sort_unstable();
            grams.dedup();
            self.rarity.sum(grams.into_iter()) / total
        };
        let scored = located.chunk_by(is_near).map(|region| {
            let (first, last) = (region[0], region[region.len() - 1]);
            ItemOccurrence {
                passage: first.passage,
                first_word: first.word,
                end_word: last.word + part.n,
                source: first.start..last.end,
                bytes: first.start..last.end,
                kind: MatchKind::Partial,
                score: score(region),
            }
        });
        scored.filter(|at| at.score >= self.threshold).collect()
    }

    /// How much of a part is near an occurrence of the question: 1 if all its words are before or after it, in order
    /// and with at most [`NEAR_WORDS`] words between. Otherwise the share of its weight in the n-grams among the
    /// `NEAR_WORDS + n` words before and after the question, where `n` is the words of the part, at most [`NEAR_WORDS`].
    /// `located` are the n-grams of the part in the document, in order; none if they do not tell.
    fn near(
        &self,
        number: usize,
        located: &[SpilledHit],
        question: &ItemOccurrence,
        words: &Words,
    ) -> f64 {
        let part = &self.items.parts[number];
        let reach = NEAR_WORDS + part.n_words;
        let (before, after) = (
            words.n_before(question.source.start),
            words.first_after(question.source.end),
        );
        let windows = [
            before.saturating_sub(reach)..before,
            after..words.len().min(after + reach),
        ];
        let has_part = |window: &Range<usize>| has_words(words, window.clone(), &part.words);
        if windows.iter().any(has_part) {
            return 1.0;
        }
        if located.is_empty() {
            return 0.0;
        }
        // An n-gram further away may be in another passage, or not, as other items have n-grams between: the score must
        // not depend on them.
        let reach = NEAR_WORDS + part.n_words.min(NEAR_WORDS);
        let is_near = |at: &&SpilledHit| {
            let end = at.word + part.n;
            let is_before = question.first_word <= at.word + reach && end <= question.first_word;
            let is_after = question.end_word <= at.word && end <= question.end_word + reach;
            is_before || is_after
        };
        let first = located.partition_point(|at| {
            (at.passage, at.word + reach) < (question.passage, question.first_word)
        });
        let within = located[first..].iter().take_while(|at| {
            at.passage == question.passage && at.word <= question.end_word + reach
        });
        let mut grams: Vec<u32> = within.filter(is_near).map(|at| at.gram).collect();
        grams.sort_unstable();
        grams.dedup();
        self.rarity.sum(grams.into_iter()) / self.rarity.total(number)
    }
}

impl GramIndex {
    /// Replaces the hits by those of a text.
    fn read(&mut self, hits: &[SpilledHit]) {
        self.hits.clear();
        let numbered = hits.iter().enumerate();
        self.hits
            .extend(numbered.map(|(number, hit)| (hit.gram, number)));
        self.hits.sort_unstable();
        let mut at = 0;
        for of_gram in self.hits.chunk_by(|a, b| a.0 == b.0) {
            self.first[of_gram[0].0 as usize] = at;
            at += of_gram.len();
        }
    }

    /// Replaces `located` by the n-grams of a part among the hits, in the order of the text.
    fn locate(&self, part: &Part, hits: &[SpilledHit], located: &mut Vec<SpilledHit>) {
        located.clear();
        for gram in &part.grams {
            let from_first = self
                .hits
                .get(self.first[*gram as usize]..)
                .unwrap_or_default();
            let of_gram = from_first.iter().take_while(|(other, _)| other == gram);
            located.extend(of_gram.map(|(_, number)| hits[*number]));
        }
        located.sort_unstable_by_key(|hit| (hit.passage, hit.word));
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

/// Whether `words` of a passage, which may be none, have the normalized words of a part in order.
fn has_words(passage: &Words, words: Range<usize>, part: &[u8]) -> bool {
    if words.is_empty() {
        return false;
    }
    let window = passage.normalized(words);
    memmem::find_iter(window, part).any(|start| {
        let end = start + part.len();
        (start == 0 || window[start - 1] == b' ') && (end == window.len() || window[end] == b' ')
    })
}

/// Where all words of a part are in order, from left to right without overlap, found as Knuth, Morris and Pratt do:
/// a text may repeat one n-gram a million times.
fn in_order(part: &Part, text: &SpilledText<'_>, located: &[SpilledHit]) -> Vec<ItemOccurrence> {
    let (sequence, borders) = (&part.sequence, &part.borders);
    let (mut found, mut n_matched, mut last) = (Vec::new(), 0, None);
    // The first word after the last occurrence.
    let mut free = (0, 0);
    let n_grams = sequence.len();
    for (number, at) in located.iter().enumerate() {
        if last != Some((at.passage, at.word)) {
            n_matched = 0;
        }
        last = Some((at.passage, at.word + 1));
        if (at.passage, at.word) < free {
            continue;
        }
        while n_matched > 0 && sequence[n_matched] != at.gram {
            n_matched = borders[n_matched - 1] as usize;
        }
        n_matched += usize::from(sequence[n_matched] == at.gram);
        if n_matched == n_grams {
            n_matched = 0;
            // N-grams in order are those of successive words, so they follow each other here too.
            let first = located[number + 1 - n_grams];
            let (first_word, end_word) = (first.word, first.word + part.n_words);
            free = (at.passage, end_word);
            let as_written = as_written(part, text.passages[at.passage].text, first.start);
            let kind = match as_written {
                Some(_) => MatchKind::Verbatim,
                None => MatchKind::Normalized,
            };
            found.push(ItemOccurrence {
                passage: at.passage,
                first_word,
                end_word,
                source: first.start..at.end,
                bytes: as_written.unwrap_or(first.start..at.end),
                kind,
                score: 1.0,
            });
        }
    }
    found
}

/// The bytes of a part in a passage, if its first word is at `first_byte` and these are its own.
fn as_written(part: &Part, passage: &[u8], first_byte: usize) -> Option<Range<usize>> {
    let start = first_byte.checked_sub(part.n_bytes_before)?;
    let range = start..start + part.text.len();
    (passage.get(range.clone())? == part.text.as_bytes()).then_some(range)
}

/// The bytes of an occurrence in the document.
fn bytes_of(text: &SpilledText<'_>, at: &ItemOccurrence) -> Range<u64> {
    let first = text.passages[at.passage].first_byte;
    first + at.bytes.start as u64..first + at.bytes.end as u64
}

/// The text of a match, cut if it is long.
fn shown(text: &[u8]) -> String {
    let mut end = text.len().min(MAX_TEXT_BYTES);
    // Not within a character. One that is no UTF-8 may be cut.
    while end < text.len() && end + 4 > MAX_TEXT_BYTES && text[end] & 0xC0 == 0x80 {
        end -= 1;
    }
    String::from_utf8_lossy(&text[..end]).into_owned()
}
