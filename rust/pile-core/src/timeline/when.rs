//! From texts to every time the model saw them.

use super::{
    chunk::{Alphabet, Chunk},
    grams::Grams,
    places::{Budget, Distinct, FindPlaces, Place, Places, in_parallel},
    rows::fewest_rows,
};
use crate::{
    Result,
    order::{TrainingOrder, View, Views},
    progress::Progress,
    tokens::{Span, TokenSource},
};

/// A text in one sample, or the part of it that the sample holds.
///
/// What a sample holds whole is one sighting with `n_parts` 1; a text that consists of one token on the
/// border of two samples is seen whole in both. What no sample holds whole is cut: its parts are
/// sightings in the fewest samples that together hold every token, each with its own sample and so its own
/// step. A token that two of these share is in both parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sighting {
    /// Number of the text among those asked for.
    pub text: u64,
    /// The document in which it begins.
    pub document: u64,
    /// Its first byte in the decoded document.
    pub byte: u64,
    /// The token of the document in which it begins.
    pub token: u64,
    /// Its tokens, those in which it begins and ends counted.
    pub n_tokens: u64,
    /// Which copy of the document it is, from 0: see [`View::copy`].
    pub copy: u64,
    /// Which part of the text it is, from 0.
    pub part: u64,
    /// Parts of the text.
    pub n_parts: u64,
    /// Place of the sample in the training order.
    pub sample: u64,
    /// The part's first token within the sample.
    pub offset: u64,
    /// Tokens of the part.
    pub length: u64,
    /// Documents in which the text stands.
    pub n_documents: u64,
}

/// Every time the model saw some texts.
#[derive(Debug, Clone, Default)]
pub struct When {
    /// In training order: by the first sample that holds any part of a text, its parts together.
    pub sightings: Vec<Sighting>,
    /// Where the texts stand in the documents, and what was looked at for it.
    pub found: Places,
    /// By text, how often it stands where no sample reaches: its copy's tokens lie behind the last sample,
    /// or its document is not in the order.
    pub n_unreached: Vec<u64>,
}

/// Every time the model saw `n_texts` texts, given where they stand in the documents.
///
/// # Errors
/// As [`TrainingOrder::views`].
pub fn when<S: TokenSource>(
    order: &TrainingOrder<S>,
    n_texts: usize,
    found: Places,
    progress: &Progress,
) -> Result<When> {
    let spans: Vec<Span> = found.places.iter().map(span_of).collect();
    let Views { views, n_copies } = order.views(&spans, progress)?;
    let mut occurrences = Vec::with_capacity(views.len());
    let mut n_unreached = vec![0; n_texts];
    let mut rest = views.as_slice();
    for (number, place) in (0..).zip(&found.places) {
        let n = rest.partition_point(|view| view.query == number);
        let (of_place, behind) = rest.split_at(n);
        rest = behind;
        let mut n_missed = n_copies.get(&place.document).copied().unwrap_or(1);
        for of_copy in of_place.chunk_by(|a, b| a.copy == b.copy) {
            let seen = occurrences_in(of_copy, place);
            n_missed -= u64::from(!seen.is_empty());
            occurrences.extend(seen);
        }
        n_unreached[place.text as usize] += n_missed;
    }
    occurrences.sort_by_cached_key(|parts: &Vec<Sighting>| key(parts));
    Ok(When {
        sightings: occurrences.into_iter().flatten().collect(),
        found,
        n_unreached,
    })
}

fn span_of(place: &Place) -> Span {
    Span {
        document: place.document,
        start: place.token,
        length: place.n_tokens,
    }
}

fn key(parts: &[Sighting]) -> impl Ord + use<> {
    let first = parts.iter().min_by_key(|part| (part.sample, part.offset));
    first.map(|first| {
        (
            first.sample,
            first.offset,
            first.text,
            first.document,
            first.byte,
            first.copy,
        )
    })
}

/// The occurrences of a text in one copy of its document, each as its parts.
fn occurrences_in(views: &[View], place: &Place) -> Vec<Vec<Sighting>> {
    let sighting = |view: &View, part: usize, n_parts: usize| Sighting {
        text: place.text,
        document: place.document,
        byte: place.byte,
        token: place.token,
        n_tokens: place.n_tokens,
        copy: view.copy,
        part: part as u64,
        n_parts: n_parts as u64,
        sample: view.sample,
        offset: view.offset,
        length: view.length,
        n_documents: 1,
    };
    let whole = views.iter().filter(|view| view.length == place.n_tokens);
    let whole: Vec<_> = whole.map(|view| vec![sighting(view, 0, 1)]).collect();
    if !whole.is_empty() {
        return whole;
    }
    let rows = fewest_rows(views);
    if !cover(&rows, place) {
        return Vec::new();
    }
    // A blend may read a row again: the n-th readings of all rows together are the n-th occurrence.
    let n_times = rows.iter().map(|row| row.len()).min().unwrap_or(0);
    let occurrence = |time: usize| {
        let parts = rows.iter().map(|row| &row[time]).enumerate();
        parts
            .map(|(part, view)| sighting(view, part, rows.len()))
            .collect()
    };
    (0..n_times).map(occurrence).collect()
}

/// Whether rows, ascending, hold every token of a place.
fn cover(rows: &[&[View]], place: &Place) -> bool {
    let mut covered = place.token;
    for view in rows.iter().filter_map(|row| row.first()) {
        if view.start <= covered {
            covered = covered.max(view.start + view.length);
        }
    }
    covered == place.token + place.n_tokens
}

/// Samples of one work item.
const ITEM_SAMPLES: u64 = 64;

/// Every occurrence in the first `n_samples` samples that runs from one document into another, within one
/// sample, in training order.
///
/// # Errors
/// As [`FindPlaces::places`]; the order cannot be read.
pub fn across_documents<S: TokenSource>(
    order: &TrainingOrder<S>,
    alphabet: Alphabet<'_>,
    texts: &[&[u8]],
    n_samples: u64,
    (n_threads, max_places): (usize, u64),
    progress: &Progress,
) -> Result<Vec<Sighting>> {
    order.check_range(0, n_samples)?;
    let distinct = Distinct::new(texts)?;
    let grams = Grams::new(&distinct.strings);
    let budget = Budget::new(max_places);
    let n_items = n_samples.div_ceil(ITEM_SAMPLES) as usize;
    let found = in_parallel(n_items, n_threads, |item, chunk: &mut Option<_>| {
        let chunk = chunk.get_or_insert_with(|| Chunk::new(alphabet, order.source().token_type()));
        let first = item as u64 * ITEM_SAMPLES;
        let end = (first + ITEM_SAMPLES).min(n_samples);
        let mut sightings = Vec::new();
        for sample in first..end {
            in_sample(
                order,
                sample,
                chunk,
                (&grams, &distinct),
                &budget,
                &mut sightings,
            )?;
        }
        progress.advance((end - first) * order.sample_length())?;
        Ok(sightings)
    })?;
    let mut sightings: Vec<Sighting> = found.into_iter().flatten().collect();
    sightings.sort_unstable_by_key(|s| (s.sample, s.offset, s.text, s.byte));
    complete(order, alphabet, &mut sightings, progress)?;
    Ok(sightings)
}

fn in_sample<S: TokenSource>(
    order: &TrainingOrder<S>,
    sample: u64,
    chunk: &mut Chunk<'_>,
    (grams, distinct): (&Grams<'_>, &Distinct<'_>),
    budget: &Budget,
    sightings: &mut Vec<Sighting>,
) -> Result<()> {
    let spans = order.spans(sample)?;
    if spans.len() < 2 {
        return Ok(());
    }
    chunk.fill(order.source(), &spans)?;
    let (haystack, length) = chunk.haystack();
    let mut stopped = Ok(());
    grams.find(haystack, length, |string, at| {
        let found = chunk.place(at, distinct.strings[string].len());
        let Some(found) = found.filter(|found| found.n_spans > 1 && stopped.is_ok()) else {
            return;
        };
        stopped = budget.take(distinct.texts(string).len() as u64);
        for text in distinct.texts(string) {
            sightings.push(Sighting {
                text: *text,
                document: found.document,
                byte: found.byte_in_span,
                token: found.token,
                n_tokens: found.n_tokens,
                copy: 0,
                part: 0,
                n_parts: 1,
                sample,
                offset: found.token_in_chunk,
                length: found.n_tokens,
                n_documents: found.n_spans,
            });
        }
    });
    stopped
}

/// Fills in what a sample alone does not tell: the bytes of the document before the sample's part of it,
/// and which copy of the document it is.
fn complete<S: TokenSource>(
    order: &TrainingOrder<S>,
    alphabet: Alphabet<'_>,
    sightings: &mut [Sighting],
    progress: &Progress,
) -> Result<()> {
    let first_tokens: Vec<Span> = sightings
        .iter()
        .map(|s| Span {
            document: s.document,
            start: s.token,
            length: 1,
        })
        .collect();
    let mut chunk = Chunk::new(alphabet, order.source().token_type());
    for view in order.views(&first_tokens, progress)?.views {
        let sighting = &mut sightings[view.query as usize];
        if (view.sample, view.offset) == (sighting.sample, sighting.offset) {
            sighting.copy = view.copy;
        }
    }
    for sighting in sightings {
        // A sample's part of a document begins at its start unless it is the sample's first.
        if sighting.token < sighting.offset {
            continue;
        }
        let before = Span {
            document: sighting.document,
            start: 0,
            length: sighting.token - sighting.offset,
        };
        chunk.fill(order.source(), &[before])?;
        sighting.byte += chunk.haystack().1 as u64;
    }
    Ok(())
}

/// Every time the model saw `texts`: [`FindPlaces::places`], then [`when`], then [`across_documents`] where
/// that is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The texts, as bytes of the alphabet.
    pub texts: &'a [&'a [u8]],
    /// Samples from the first that the run sees, where occurrences across documents are wanted too.
    pub across_documents: Option<u64>,
}

impl Question<'_> {
    /// The answer of a finder of places; what runs across documents is found by `scan`.
    ///
    /// # Errors
    /// Those of the finder and of the order.
    pub fn ask<S: TokenSource>(
        &self,
        order: &TrainingOrder<S>,
        finder: &dyn FindPlaces,
        scan: &super::Scan<'_, S>,
        progress: &Progress,
    ) -> Result<When> {
        let found = finder.places(self.texts, progress)?;
        let mut answer = when(order, self.texts.len(), found, progress)?;
        if let Some(n_samples) = self.across_documents {
            let limits = (scan.n_threads, scan.max_places);
            let more = across_documents(
                order,
                scan.alphabet,
                self.texts,
                n_samples,
                limits,
                progress,
            )?;
            let more = more.into_iter().map(|sighting| vec![sighting]);
            let whole_and_cut = answer.sightings.chunk_by(|a, b| b.part == a.part + 1);
            let mut all: Vec<Vec<Sighting>> =
                whole_and_cut.map(<[_]>::to_vec).chain(more).collect();
            all.sort_by_cached_key(|parts| key(parts));
            answer.sightings = all.into_iter().flatten().collect();
        }
        Ok(answer)
    }
}
