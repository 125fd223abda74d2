//! Text to tokens, fast.
//!
//! The steps, each where the reference has it: added tokens are cut out of the raw text; what
//! is between them is normalized; added tokens are cut out of that; what is between is cut into
//! pieces, on its own; each piece is merged. `reference` does the same plainly.

use super::{
    added::Cut,
    cache::{Key, PieceCache, SLACK},
    merges::Scratch,
    normalize::nfc,
    scan::Scanner,
    tokenizer::Tokenizer,
};
use std::borrow::Cow;

/// Pieces whose places in the cache are asked for before the first is looked up.
const KEYS_AHEAD: usize = 32;

/// Encodes texts. What it learns goes back to its tokenizer for the next encoder: make one per
/// thread and keep it.
#[derive(Debug)]
pub struct Encoder<'t> {
    tokenizer: &'t Tokenizer,
    state: Option<State>,
}

/// What is reused from text to text.
#[derive(Debug)]
pub(super) struct State {
    cache: PieceCache,
    scratch: Scratch,
    /// Where pieces of the current stretch end.
    ends: Vec<usize>,
    /// The ids of a piece that was not known.
    ids: Vec<u32>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            cache: PieceCache::new(),
            scratch: Scratch::default(),
            ends: Vec::new(),
            ids: Vec::new(),
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
    pub(super) fn new(tokenizer: &'t Tokenizer, state: State) -> Self {
        Self {
            tokenizer,
            state: Some(state),
        }
    }

    /// Appends the ids of `text` to `out`; a post-processor of the file adds nothing.
    ///
    /// Cost: O(n) to O(n log n) of a text of n bytes without break; nothing depends on texts
    /// seen before but the time.
    pub fn encode(&mut self, text: &str, out: &mut Vec<u32>) {
        let Some(state) = &mut self.state else { return };
        let tokenizer = self.tokenizer;
        for cut in tokenizer.raw.cuts(text) {
            match cut {
                Cut::Token(id) => out.push(id),
                Cut::Text(text) => state.encode_raw(tokenizer, text, out),
            }
        }
    }
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
        let mut scanner = Scanner::new(text, longest_run);
        let mut ends = std::mem::take(&mut self.ends);
        let mut from = 0;
        loop {
            ends.clear();
            scanner.next_ends(&mut ends);
            let Some(end) = ends.last() else { break };
            // A piece has at most as many ids as bytes.
            let start = out.len();
            out.resize(start + (end - from) + SLACK, 0);
            let n = self.encode_pieces(tokenizer, text.as_bytes(), from, &ends, &mut out[start..]);
            out.truncate(start + n);
            from = *end;
        }
        self.ends = ends;
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
        let mut keys = [Key::Long; KEYS_AHEAD];
        for ends in ends.chunks(KEYS_AHEAD) {
            let mut start = from;
            for (key, end) in keys.iter_mut().zip(ends) {
                *key = Key::new(text, start, *end);
                self.cache.prefetch(*key);
                start = *end;
            }
            for (key, end) in keys.iter().zip(ends) {
                let room = &mut out[n..];
                let known = room.first_chunk_mut();
                let known = known.and_then(|room| self.cache.ids(*key, room));
                n += match known {
                    Some(known) => known,
                    None => self.encode_unknown(tokenizer, *key, &text[from..*end], room),
                };
                from = *end;
            }
        }
        n
    }

    /// Writes the ids of a piece that is not in the tables; returns their number.
    #[inline(never)]
    fn encode_unknown(
        &mut self,
        tokenizer: &Tokenizer,
        key: Key,
        piece: &[u8],
        out: &mut [u32],
    ) -> usize {
        self.ids.clear();
        match &tokenizer.seams {
            Some(seams) if matches!(key, Key::Long) => {
                let mut rest = piece;
                while !rest.is_empty() {
                    let (part, behind) = rest.split_at(seams.first_part(rest));
                    self.push_part(tokenizer, part);
                    rest = behind;
                }
            }
            _ => self.push_new(tokenizer, key, piece),
        }
        out[..self.ids.len()].copy_from_slice(&self.ids);
        self.ids.len()
    }

    /// Adds the ids of a part of a long piece.
    fn push_part(&mut self, tokenizer: &Tokenizer, part: &[u8]) {
        let key = Key::new(part, 0, part.len());
        let mut room = [0; SLACK];
        match self.cache.ids(key, &mut room) {
            Some(n) => self.ids.extend_from_slice(&room[..n]),
            None => self.push_new(tokenizer, key, part),
        }
    }

    /// Adds the ids of a piece that is in no table, and remembers them.
    fn push_new(&mut self, tokenizer: &Tokenizer, key: Key, piece: &[u8]) {
        if let Some(ids) = self.cache.long(piece) {
            return self.ids.extend_from_slice(ids);
        }
        let start = self.ids.len();
        match (&tokenizer.space_runs, tokenizer.whole.get(piece)) {
            (Some(runs), _) if piece.len() > 1 && piece.iter().all(|b| *b == b' ') => {
                runs.push_ids(piece.len(), &mut self.ids);
            }
            (_, Some(id)) => self.ids.push(*id),
            _ => tokenizer
                .merges
                .merge(piece, &mut self.scratch, &mut self.ids),
        }
        self.cache.insert(key, piece, &self.ids[start..]);
    }
}
