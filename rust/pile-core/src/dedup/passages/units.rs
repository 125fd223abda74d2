//! What windows are made of: the bytes of a text, or its tokens.
//!
//! Positions count units. Bytes are their own offsets in the text. For tokens, a file has a row for each position:
//! the byte offset of the token there, and whether a text may be cut in front of it. Not all borders of tokens are
//! borders in the text: a token may have a part of a character, and normalization may have replaced characters.

use super::{
    ranges::BorderTrim,
    repeated::damaged,
    store::{Store, WindowUnit},
};
use crate::{
    Error, Result,
    io::{GrowingFile, Mapped},
};

/// A byte or a token.
pub(super) trait Unit: Copy + Eq + Send + Sync {
    /// Bytes of a unit in a record.
    const BYTES: usize;
    /// What the state says of them.
    const NAME: WindowUnit;
    /// Limits of the length of anchors. Shorter strings occur too often in texts that have no window in common.
    const ANCHOR_LENGTHS: [usize; 2];

    /// The digit of the unit in a polynomial hash, below [`MAX_DIGIT`]. None is 0, so that strings of zeros of
    /// different lengths differ.
    fn digit(self) -> u64;

    /// Appends the bytes of units.
    fn write(units: &[Self], bytes: &mut Vec<u8>);

    /// Appends the units that were written as `bytes`.
    fn read(bytes: &[u8], units: &mut Vec<Self>);

    /// What to trim at the borders of units that are a part of a text.
    fn trim(units: &[Self]) -> BorderTrim;
}

/// Upper bound of digits.
pub(super) const MAX_DIGIT: u64 = 1 << 33;

impl Unit for u8 {
    const BYTES: usize = 1;
    const NAME: WindowUnit = WindowUnit::Bytes;
    const ANCHOR_LENGTHS: [usize; 2] = [16, 32];

    #[inline]
    fn digit(self) -> u64 {
        u64::from(self) + 1
    }

    fn write(units: &[Self], bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(units);
    }

    fn read(bytes: &[u8], units: &mut Vec<Self>) {
        units.extend_from_slice(bytes);
    }

    fn trim(units: &[Self]) -> BorderTrim {
        BorderTrim::of(units)
    }
}

/// The id of a token.
impl Unit for u32 {
    const BYTES: usize = 4;
    const NAME: WindowUnit = WindowUnit::Tokens;
    const ANCHOR_LENGTHS: [usize; 2] = [8, 16];

    #[inline]
    fn digit(self) -> u64 {
        u64::from(self) + 1
    }

    fn write(units: &[Self], bytes: &mut Vec<u8>) {
        bytes.extend(units.iter().flat_map(|unit| unit.to_be_bytes()));
    }

    fn read(bytes: &[u8], units: &mut Vec<Self>) {
        let read = bytes.as_chunks().0.iter();
        units.extend(read.map(|bytes| Self::from_be_bytes(*bytes)));
    }

    /// Nothing: [`TextBorders`] has the borders.
    fn trim(_: &[Self]) -> BorderTrim {
        BorderTrim::default()
    }
}

/// Splits texts into units. Each thread has its own.
pub(super) trait UnitSplitter: Send {
    type Unit: Unit;

    /// The units of a text.
    ///
    /// # Errors
    /// The text cannot be tokenized, or is too long.
    fn split<'a>(&'a mut self, text: &'a str) -> Result<&'a [Self::Unit]>;

    /// Appends a row for each border of the units of the text that was last split, which is `text`.
    fn put_borders(&self, text: &str, borders: &mut Vec<u32>);
}

/// Bytes as they are.
pub(super) struct ByteSplitter;

impl UnitSplitter for ByteSplitter {
    type Unit = u8;

    fn split<'a>(&'a mut self, text: &'a str) -> Result<&'a [u8]> {
        Ok(text.as_bytes())
    }

    fn put_borders(&self, _: &str, _: &mut Vec<u32>) {}
}

/// The bit of a row that says that the text may be cut at its offset.
const CUT_BIT: u32 = 1 << 31;

/// The tokens of texts. The layer of tokenizers, which is above this one, implements it.
pub trait TextTokenizer: Sync {
    /// A splitter for one thread.
    fn splitter(&self) -> Box<dyn TokenSplitter + '_>;
}

/// Splits texts into tokens, without those that a tokenizer adds to texts.
pub trait TokenSplitter: Send {
    /// The ids of a text.
    ///
    /// # Errors
    /// The text cannot be tokenized.
    fn split<'a>(&'a mut self, text: &'a str) -> Result<&'a [u32]>;

    /// Calls `put` for each border of the tokens of the text that was last split, which is `text`: with its byte
    /// offset, or `None` if the text may not be cut there.
    fn borders(&self, text: &str, put: &mut dyn FnMut(Option<usize>));
}

impl UnitSplitter for Box<dyn TokenSplitter + '_> {
    type Unit = u32;

    fn split<'a>(&'a mut self, text: &'a str) -> Result<&'a [u32]> {
        if text.len() >= CUT_BIT as usize {
            let n = text.len();
            let what = format!(
                "a text has {n} bytes, fewer than {CUT_BIT} are supported: split it into several texts"
            );
            return Err(Error::argument(what));
        }
        (**self).split(text)
    }

    fn put_borders(&self, text: &str, borders: &mut Vec<u32>) {
        (**self).borders(text, &mut |offset| {
            borders.push(offset.map_or(0, |offset| offset as u32 | CUT_BIT));
        });
    }
}

/// The file of borders.
const BORDERS: &str = "borders";

/// Bytes of a row.
const ROW_BYTES: u64 = 4;

/// Writes the rows of borders, if units need them.
pub(super) struct BorderFile(Option<GrowingFile>);

impl BorderFile {
    pub(super) fn grow(store: &mut Store, unit: WindowUnit) -> Result<Self> {
        Ok(Self(match unit {
            WindowUnit::Bytes => None,
            WindowUnit::Tokens => Some(store.scratch.grow(BORDERS)?),
        }))
    }

    pub(super) fn push(&mut self, rows: &[u32]) -> Result<()> {
        match &mut self.0 {
            Some(file) => rows
                .iter()
                .try_for_each(|row| file.push(&row.to_le_bytes())),
            None => Ok(()),
        }
    }

    pub(super) fn finish(&mut self, store: &mut Store) -> Result<()> {
        match &mut self.0 {
            Some(file) => file.finish(&mut store.scratch),
            None => Ok(()),
        }
    }
}

/// Byte offsets of positions of tokens.
pub(super) struct TextBorders<'a> {
    store: &'a Store,
    file: Mapped,
}

impl<'a> TextBorders<'a> {
    /// `None` if positions are byte offsets.
    pub(super) fn open(store: &'a Store) -> Result<Option<Self>> {
        if store.state.unit == WindowUnit::Bytes {
            return Ok(None);
        }
        let path = store.scratch.path(BORDERS);
        let file = Mapped::open_written(&path, store.state.end_position(), ROW_BYTES)?;
        Ok(Some(Self { store, file }))
    }

    /// The byte offset of the first position in `positions` at which the text may be cut, and that position.
    pub(super) fn first(&self, positions: impl Iterator<Item = u64>) -> Result<(u64, u64)> {
        let rows = self.file.bytes().as_chunks().0;
        for position in positions {
            let Some(row) = rows.get(position as usize) else {
                break;
            };
            let row = u32::from_le_bytes(*row);
            if row & CUT_BIT != 0 {
                return Ok((position, u64::from(row & !CUT_BIT)));
            }
        }
        // The text's start and end are borders.
        Err(damaged(self.store))
    }
}
