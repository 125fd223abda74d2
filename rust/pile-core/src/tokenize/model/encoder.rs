//! Text to tokens, fast.
//!
//! The steps, each where the reference has it: added tokens are cut out of the raw text; what
//! is between them is normalized; added tokens are cut out of that; what is between is cut into
//! pieces, on its own; each piece is merged. `reference` does the same plainly.

use crate::tokenize::{
    model::added::Cut,
    model::cache::{BATCH, Batch, Key, MAX_SHORT_BYTES, PieceCache, SLACK},
    model::merges::{MAX_TEXT_BYTES, Scratch},
    model::tokenizer::Tokenizer,
    normalize::nfc::nfc,
    pretokenize::cutter::Cutter,
    spec::template::Template,
};
use crate::{Error, Result};
use std::borrow::Cow;

/// Encodes texts. What it learns goes back to its tokenizer for the next encoder: make one per
/// thread and keep it.
#[derive(Debug)]
pub struct Encoder<'t> {
    tokenizer: &'t Tokenizer,
    template: &'t Template,
    /// None once it went back to the tokenizer.
    state: Option<State>,
}

/// What is reused from text to text.
#[derive(Debug)]
pub(crate) struct State {
    cache: PieceCache,
    scratch: Scratch,
    /// Where pieces of the current stretch end.
    ends: Vec<usize>,
    /// Where the parts of a long piece end.
    parts: Vec<usize>,
    /// The ids of the current pieces.
    room: Vec<u32>,
    /// The ids of a piece that was not known.
    ids: Vec<u32>,
    /// Why the current text cannot be encoded.
    refused: Option<Refused>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            cache: PieceCache::new(),
            scratch: Scratch::default(),
            ends: Vec::new(),
            parts: Vec::new(),
            room: Vec::new(),
            ids: Vec::new(),
            refused: None,
        }
    }
}

impl Drop for Encoder<'_> {
    fn drop(&mut self) {
        if let Some(state) = self.state.take() {
            self.tokenizer.give_back(state);
        }
    }
}

impl<'t> Encoder<'t> {
    pub(crate) fn new(tokenizer: &'t Tokenizer, template: &'t Template, state: State) -> Self {
        Self {
            tokenizer,
            template,
            state: Some(state),
        }
    }

    /// Appends the ids of `text` to `out`, with the special tokens that this encoder adds.
    ///
    /// Cost: O(n) to O(n log n) of a text of n bytes without break; nothing depends on texts
    /// seen before but the time.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Format`]: the text has a byte that no token has; `out` is then of no use.
    /// [`crate::ErrorKind::Argument`]: the text has 4 GiB or more, or more than 32 MiB without a boundary at
    /// which it is split, which would take gigabytes to merge.
    pub fn encode(&mut self, text: &str, out: &mut Vec<u32>) -> Result<()> {
        check_length(text)?;
        let (tokenizer, state) = (self.tokenizer, self.state.get_or_insert_default());
        out.extend_from_slice(&self.template.before);
        for cut in tokenizer.raw.cuts(text) {
            match cut {
                Cut::Token(id) => out.push(id),
                Cut::Text(text) => state.encode_raw(tokenizer, text, out),
            }
        }
        out.extend_from_slice(&self.template.after);
        match state.refused.take() {
            Some(Refused::NoToken(byte)) => Err(tokenizer.no_token_for(byte)),
            Some(Refused::TooLong(n_bytes)) => Err(Error::argument(format!(
                "a text has {n_bytes} bytes without a place to split it before merging, at most \
                 {MAX_PIECE_BYTES} are encoded: put spaces or line ends in it"
            ))),
            None => Ok(()),
        }
    }
}

/// Bytes of a piece at most: merging takes some 40 bytes of memory for each.
const MAX_PIECE_BYTES: usize = 32 << 20;

/// Why a text cannot be encoded.
#[derive(Debug)]
enum Refused {
    /// No token has this byte.
    NoToken(u8),
    /// A piece has this many bytes.
    TooLong(usize),
}

/// Refuses a text whose positions do not fit the 32 bits of the merge queue.
fn check_length(text: &str) -> Result<()> {
    if text.len() < MAX_TEXT_BYTES {
        return Ok(());
    }
    let n_bytes = text.len();
    Err(Error::argument(format!(
        "a text has {n_bytes} bytes; less than {MAX_TEXT_BYTES} can be encoded, cut it into several"
    )))
}

impl State {
    /// Encodes text that is not normalized yet.
    fn encode_raw(&mut self, tokenizer: &Tokenizer, text: &str, out: &mut Vec<u32>) {
        let text = match tokenizer.is_nfc {
            true => nfc(text),
            false => Cow::Borrowed(text),
        };
        if let Some(runs) = &tokenizer.space_runs {
            return self.encode_stretch(tokenizer, &text, runs.longest(), out);
        }
        for cut in tokenizer.normalized.cuts(&text) {
            match cut {
                Cut::Token(id) => out.push(id),
                Cut::Text(text) if tokenizer.adds_prefix_space && !text.starts_with(' ') => {
                    self.encode_stretch(tokenizer, &format!(" {text}"), 0, out);
                }
                Cut::Text(text) => self.encode_stretch(tokenizer, text, 0, out),
            }
        }
    }

    /// Encodes text without added tokens but runs of up to `longest_run` spaces.
    fn encode_stretch(
        &mut self,
        tokenizer: &Tokenizer,
        text: &str,
        longest_run: usize,
        out: &mut Vec<u32>,
    ) {
        let mut cutter = Cutter::new(text, tokenizer.pattern, longest_run);
        let mut ends = std::mem::take(&mut self.ends);
        let mut room = std::mem::take(&mut self.room);
        let mut from = 0;
        loop {
            ends.clear();
            cutter.next_ends(&mut ends);
            let Some(end) = ends.last() else { break };
            if end - from > MAX_PIECE_BYTES && self.refuse_long(from, &ends) {
                from = *end;
                continue;
            }
            // A piece has at most as many ids as bytes.
            let n_enough = end - from + SLACK;
            if room.len() < n_enough {
                room.resize(n_enough, 0);
            }
            let n = self.encode_pieces(tokenizer, text.as_bytes(), from, &ends, &mut room);
            out.extend_from_slice(&room[..n]);
            from = *end;
        }
        self.room = room;
        self.ends = ends;
    }

    /// Whether one of the pieces that end at `ends` is too long to be merged; the text is then refused.
    fn refuse_long(&mut self, from: usize, ends: &[usize]) -> bool {
        let starts = std::iter::once(&from).chain(ends);
        let lengths = ends.iter().zip(starts).map(|(end, start)| end - start);
        let longest = lengths.max().unwrap_or(0);
        if longest > MAX_PIECE_BYTES {
            self.refused.get_or_insert(Refused::TooLong(longest));
        }
        longest > MAX_PIECE_BYTES
    }

    /// Writes the ids of the pieces of `text` that end at `ends`; returns their number.
    fn encode_pieces(
        &mut self,
        tokenizer: &Tokenizer,
        text: &[u8],
        mut from: usize,
        ends: &[usize],
        out: &mut [u32],
    ) -> usize {
        let mut n = 0;
        let mut batch = Batch::default();
        for ends in ends.chunks(BATCH) {
            self.cache.prepare(text, from, ends, &mut batch);
            let mut done = 0;
            loop {
                let (n_pieces, n_ids) = self.cache.known(&batch, done..ends.len(), &mut out[n..]);
                done += n_pieces;
                n += n_ids;
                let Some(end) = ends.get(done) else { break };
                let start = done.checked_sub(1).map_or(from, |before| ends[before]);
                n += self.encode_other(tokenizer, text, start, *end, &mut out[n..]);
                done += 1;
            }
            from = ends.last().copied().unwrap_or(from);
        }
        n
    }

    /// Writes the ids of a piece that is not in the first table; returns their number.
    fn encode_other(
        &mut self,
        tokenizer: &Tokenizer,
        text: &[u8],
        start: usize,
        end: usize,
        out: &mut [u32],
    ) -> usize {
        let piece = &text[start..end];
        if piece.len() > MAX_SHORT_BYTES
            && let Some(seams) = &tokenizer.seams
        {
            let mut parts = std::mem::take(&mut self.parts);
            parts.clear();
            seams.push_ends(piece, start, &mut parts);
            let n =
                (parts.len() > 1).then(|| self.encode_pieces(tokenizer, text, start, &parts, out));
            self.parts = parts;
            if let Some(n) = n {
                return n;
            }
        }
        let key = Key::new(text, start, end);
        if let Some(n) = self.cache.find(key, piece, out) {
            return n;
        }
        self.learn(tokenizer, key, piece);
        out[..self.ids.len()].copy_from_slice(&self.ids);
        self.ids.len()
    }

    /// Puts the ids of a piece that is not known into `ids` and into the tables.
    #[inline(never)]
    fn learn(&mut self, tokenizer: &Tokenizer, key: Key, piece: &[u8]) {
        self.ids.clear();
        match (&tokenizer.space_runs, tokenizer.whole.get(piece)) {
            (Some(runs), _) if piece.len() > 1 && piece.iter().all(|b| *b == b' ') => {
                runs.push_ids(piece.len(), &mut self.ids);
            }
            (_, Some(id)) => self.ids.push(*id),
            _ => {
                let merged = tokenizer
                    .merges
                    .merge(piece, &mut self.scratch, &mut self.ids);
                if let Err(byte) = merged {
                    // Not put into the tables: there, it would be known the next time.
                    self.refused.get_or_insert(Refused::NoToken(byte));
                    return;
                }
            }
        }
        self.cache.insert(key, piece, &self.ids);
    }
}
