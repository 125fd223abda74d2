//! Encodes text to token ids.
//!
//! The steps are those of Hugging Face `tokenizers`, in its order:
//! 1. The added tokens of raw text are split off.
//! 2. The text between them is normalized.
//! 3. The added tokens of normalized text are split off.
//! 4. The text between them is split into pretokens, each stretch as if it were a text of its own.
//! 5. Each pretoken is merged, unless the cache has its ids.
//!
//! `reference` implements the same steps without the cache, the scanners and the merge boundaries.

use crate::tokenize::{
    model::added_tokens::AddedTokenSplit,
    model::cache::{BATCH, CacheKey, LookupBatch, PretokenCache, SLACK},
    model::merge_boundaries::MergeBoundaries,
    model::merges::{MAX_TEXT_BYTES, MergeScratch},
    model::pretoken_key::MAX_SHORT_BYTES,
    model::tokenizer::Tokenizer,
    pretokenize::pretokenizer::Pretokenizer,
    spec::template::Template,
};
use crate::{Error, Result, text::nfc::nfc};
use std::{borrow::Cow, ops::Range};

/// Encodes texts with a [`Tokenizer`].
///
/// Make one per thread and reuse it for many texts: it caches the ids of pretokens. When it is dropped, its cache
/// returns to the tokenizer for the next encoder.
#[derive(Debug)]
pub struct Encoder<'t> {
    tokenizer: &'t Tokenizer,
    template: &'t Template,
    /// None once `drop` returned it to the tokenizer.
    state: Option<EncoderState>,
}

/// The cache and the buffers of an encoder.
#[derive(Debug)]
pub(crate) struct EncoderState {
    cache: PretokenCache,
    merge_scratch: MergeScratch,
    /// End offsets of pretokens, as many as one call of the pretokenizer finds.
    ends: Vec<usize>,
    /// End offsets of the parts of one long pretoken.
    part_ends: Vec<usize>,
    /// The ids of the pretokens that end at `ends`, with [`SLACK`].
    ids: Vec<u32>,
    /// The ids of one pretoken that the cache does not have.
    merged_ids: Vec<u32>,
    /// Why the current text is refused.
    refusal: Option<Refusal>,
}

impl Default for EncoderState {
    fn default() -> Self {
        Self {
            cache: PretokenCache::new(),
            merge_scratch: MergeScratch::default(),
            ends: Vec::new(),
            part_ends: Vec::new(),
            ids: Vec::new(),
            merged_ids: Vec::new(),
            refusal: None,
        }
    }
}

impl Drop for Encoder<'_> {
    fn drop(&mut self) {
        if let Some(state) = self.state.take() {
            self.tokenizer.recycle(state);
        }
    }
}

impl<'t> Encoder<'t> {
    pub(crate) fn new(
        tokenizer: &'t Tokenizer,
        template: &'t Template,
        state: EncoderState,
    ) -> Self {
        Self {
            tokenizer,
            template,
            state: Some(state),
        }
    }

    /// Appends the ids of `text` to `out`, with the special tokens that this encoder adds.
    ///
    /// A text of n bytes takes O(n) to O(n log n), the latter for a pretoken of n bytes. Texts encoded before
    /// affect the time but never the ids.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Format`]: the text has a byte that no token has.
    /// [`crate::ErrorKind::Argument`]: the text has 4 GiB or more, or a pretoken of more than 32 MiB, which would
    /// take gigabytes of memory to merge.
    ///
    /// After an error, `out` has lost or wrong ids of this text at its end.
    pub fn encode(&mut self, text: &str, out: &mut Vec<u32>) -> Result<()> {
        check_length(text)?;
        let (tokenizer, state) = (self.tokenizer, self.state.get_or_insert_default());
        out.extend_from_slice(&self.template.before);
        for split in tokenizer.raw_added_tokens.split(text) {
            match split {
                AddedTokenSplit::Token(id) => out.push(id),
                AddedTokenSplit::Text(text) => state.encode_raw(tokenizer, text, out),
            }
        }
        out.extend_from_slice(&self.template.after);
        match state.refusal.take() {
            Some(Refusal::NoToken(byte)) => Err(tokenizer.no_token_for(byte)),
            Some(Refusal::TooLong(n_bytes)) => Err(Error::argument(format!(
                "a text has {n_bytes} bytes without a boundary at which to split it before merging, at most \
                 {MAX_PRETOKEN_BYTES} are supported: put spaces or line ends in it"
            ))),
            None => Ok(()),
        }
    }
}

/// Bytes of the longest pretoken. Merging takes about 40 bytes of memory for each.
const MAX_PRETOKEN_BYTES: usize = 32 << 20;

/// Why a text cannot be encoded.
#[derive(Debug)]
enum Refusal {
    /// No token has this byte.
    NoToken(u8),
    /// A pretoken has this many bytes.
    TooLong(usize),
}

/// Refuses a text whose offsets do not fit the 32 bits of the merge queue.
fn check_length(text: &str) -> Result<()> {
    if text.len() < MAX_TEXT_BYTES {
        return Ok(());
    }
    let n_bytes = text.len();
    Err(Error::argument(format!(
        "a text has {n_bytes} bytes, fewer than {MAX_TEXT_BYTES} are supported: split it into several texts"
    )))
}

impl EncoderState {
    /// Appends the ids of text that has no added tokens of raw text, and is not yet normalized.
    fn encode_raw(&mut self, tokenizer: &Tokenizer, text: &str, out: &mut Vec<u32>) {
        let text = match tokenizer.is_nfc {
            true => nfc(text),
            false => Cow::Borrowed(text),
        };
        // The scanner finds runs of spaces itself, which is faster than an automaton for added tokens.
        if let Some(runs) = &tokenizer.space_runs {
            return self.encode_normalized(tokenizer, &text, runs.longest(), out);
        }
        for split in tokenizer.normalized_added_tokens.split(&text) {
            match split {
                AddedTokenSplit::Token(id) => out.push(id),
                AddedTokenSplit::Text(text)
                    if tokenizer.adds_prefix_space && !text.starts_with(' ') =>
                {
                    self.encode_normalized(tokenizer, &format!(" {text}"), 0, out);
                }
                AddedTokenSplit::Text(text) => self.encode_normalized(tokenizer, text, 0, out),
            }
        }
    }

    /// Appends the ids of normalized text without added tokens, except runs of 2 to `longest_run` spaces.
    fn encode_normalized(
        &mut self,
        tokenizer: &Tokenizer,
        text: &str,
        longest_run: usize,
        out: &mut Vec<u32>,
    ) {
        let mut pretokenizer = Pretokenizer::new(text, tokenizer.pattern, longest_run);
        // Taken out, so that `self` can be borrowed.
        let mut ends = std::mem::take(&mut self.ends);
        let mut ids = std::mem::take(&mut self.ids);
        let mut start = 0;
        loop {
            ends.clear();
            pretokenizer.next_ends(&mut ends);
            let Some(end) = ends.last() else { break };
            // The first comparison is cheap and almost always decides.
            if end - start > MAX_PRETOKEN_BYTES && self.refuse_long_pretoken(start, &ends) {
                start = *end;
                continue;
            }
            // A pretoken has at most as many ids as bytes.
            let n_needed = end - start + SLACK;
            if ids.len() < n_needed {
                ids.resize(n_needed, 0);
            }
            let boundaries = tokenizer.merge_boundaries.as_ref();
            let bytes = text.as_bytes();
            let n = self.encode_batches(tokenizer, bytes, start, &ends, boundaries, &mut ids);
            out.extend_from_slice(&ids[..n]);
            start = *end;
        }
        self.ids = ids;
        self.ends = ends;
    }

    /// Refuses the text if one of the pretokens that end at `ends` is too long to be merged. The first one starts
    /// at `start`. Returns whether the text is refused.
    fn refuse_long_pretoken(&mut self, start: usize, ends: &[usize]) -> bool {
        let starts = std::iter::once(&start).chain(ends);
        let lengths = ends.iter().zip(starts).map(|(end, start)| end - start);
        let longest = lengths.max().unwrap_or(0);
        if longest > MAX_PRETOKEN_BYTES {
            self.refusal.get_or_insert(Refusal::TooLong(longest));
        }
        longest > MAX_PRETOKEN_BYTES
    }

    /// Writes the ids of the pretokens of `text` that end at `ends` to the start of `out`, and returns their
    /// number. The first pretoken starts at `start`.
    ///
    /// Long pretokens are split at `boundaries`; None for pretokens that are parts of one. `out` must have an element
    /// for each byte of the pretokens, and [`SLACK`] more.
    // Not generic over how a pretoken is encoded: it was then inlined into its caller twice, where its loops lacked
    // registers, which cost 1.5 % of the instructions of `tokenize`.
    fn encode_batches(
        &mut self,
        tokenizer: &Tokenizer,
        text: &[u8],
        mut start: usize,
        ends: &[usize],
        boundaries: Option<&MergeBoundaries>,
        out: &mut [u32],
    ) -> usize {
        let mut n = 0;
        let mut batch = LookupBatch::default();
        for ends in ends.chunks(BATCH) {
            self.cache.prepare(text, start, ends, &mut batch);
            let mut n_done = 0;
            loop {
                let (n_pretokens, n_ids) =
                    self.cache.known(&batch, n_done..ends.len(), &mut out[n..]);
                n_done += n_pretokens;
                n += n_ids;
                let Some(end) = ends.get(n_done) else { break };
                let start = n_done
                    .checked_sub(1)
                    .map_or(start, |previous| ends[previous]);
                n += self.encode_pretoken(tokenizer, text, start..*end, boundaries, &mut out[n..]);
                n_done += 1;
            }
            start = ends.last().copied().unwrap_or(start);
        }
        n
    }

    /// Writes the ids of the pretoken at `range` of `text` to the start of `out`, and returns their number. A long
    /// pretoken is split at `boundaries`.
    fn encode_pretoken(
        &mut self,
        tokenizer: &Tokenizer,
        text: &[u8],
        range: Range<usize>,
        boundaries: Option<&MergeBoundaries>,
        out: &mut [u32],
    ) -> usize {
        let (pretoken, start) = (&text[range.clone()], range.start);
        if pretoken.len() > MAX_SHORT_BYTES
            && let Some(boundaries) = boundaries
        {
            // Taken out, so that `self` can be borrowed.
            let mut part_ends = std::mem::take(&mut self.part_ends);
            part_ends.clear();
            boundaries.push_ends(pretoken, start, &mut part_ends);
            // A part is not split again. At its ends it has fewer bytes of context than its pretoken, so it can
            // have a merge boundary that the pretoken does not have, and its parts again: as many levels as bytes.
            let n = (part_ends.len() > 1)
                .then(|| self.encode_batches(tokenizer, text, start, &part_ends, None, out));
            self.part_ends = part_ends;
            if let Some(n) = n {
                return n;
            }
        }
        let key = CacheKey::new(text, start, range.end);
        if let Some(n) = self.cache.find(key, pretoken, out) {
            return n;
        }
        self.merge_and_cache(tokenizer, key, pretoken);
        out[..self.merged_ids.len()].copy_from_slice(&self.merged_ids);
        self.merged_ids.len()
    }

    /// Computes the ids of a pretoken that the cache does not have. Stores them in `merged_ids` and in the cache.
    #[inline(never)]
    fn merge_and_cache(&mut self, tokenizer: &Tokenizer, key: CacheKey, pretoken: &[u8]) {
        self.merged_ids.clear();
        match (
            &tokenizer.space_runs,
            tokenizer.whole_pretokens.get(pretoken),
        ) {
            (Some(runs), _) if pretoken.len() > 1 && pretoken.iter().all(|b| *b == b' ') => {
                runs.push_ids(pretoken.len(), &mut self.merged_ids);
            }
            (_, Some(id)) => self.merged_ids.push(*id),
            _ => {
                let merged =
                    tokenizer
                        .merges
                        .merge(pretoken, &mut self.merge_scratch, &mut self.merged_ids);
                if let Err(byte) = merged {
                    // Not cached: the next text with this pretoken must be refused as well.
                    self.refusal.get_or_insert(Refusal::NoToken(byte));
                    return;
                }
            }
        }
        self.cache.insert(key, pretoken, &self.merged_ids);
    }
}
