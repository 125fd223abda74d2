//! Where texts stand, by an index: the answer of a [`super::Scan`] without reading the documents.

use super::{
    chunk::Alphabet,
    places::{Budget, Distinct, FindPlaces, Place, Places},
};
use crate::{
    Error, Result,
    progress::Progress,
    search::SuffixIndex,
    tokens::{Span, TokenSource},
};

/// Finds texts by an index of the documents.
#[derive(Debug, Clone, Copy)]
pub struct Indexed<'a> {
    index: &'a SuffixIndex,
    alphabet: Alphabet<'a>,
    max_places: u64,
}

impl<'a> Indexed<'a> {
    /// A finder that keeps so many places at most.
    ///
    /// # Errors
    /// The index was built with another tokenizer, or with none and texts are to be found.
    pub fn new(index: &'a SuffixIndex, alphabet: Alphabet<'a>, max_places: u64) -> Result<Self> {
        if let Alphabet::Text(table) = alphabet
            && !index.alphabet().is_of(table)
        {
            let what = "the index was built without this tokenizer and does not know its texts";
            return Err(Error::malformed(index.folder(), what));
        }
        Ok(Self {
            index,
            alphabet,
            max_places,
        })
    }

    /// The places of one text, bytes counted from the token in which it begins.
    fn places_of(&self, text: &[u8], max_places: u64) -> Result<Vec<Place>> {
        if let Alphabet::Ids(token_type) = self.alphabet {
            let width = token_type.n_bytes();
            if !text.len().is_multiple_of(width) {
                return Ok(Vec::new());
            }
            let ids: Vec<i64> = text
                .chunks_exact(width)
                .map(|id| token_type.decode(id))
                .collect();
            let found = self.index.locate(&ids, max_places)?;
            let place = |document, token| Place {
                document,
                byte: 0,
                text: 0,
                token,
                n_tokens: ids.len() as u64,
            };
            return Ok(found
                .iter()
                .map(|at| place(at.document, at.token))
                .collect());
        }
        let found = self.index.locate_text(text, max_places)?;
        Ok(found
            .iter()
            .map(|at| Place {
                document: at.document,
                byte: at.byte_of_token,
                text: 0,
                token: at.token,
                n_tokens: at.n_tokens,
            })
            .collect())
    }

    /// Adds the bytes of each place's document before the token in which it begins; places are in order.
    fn add_bytes_before(&self, places: &mut [Place]) -> Result<()> {
        let dataset = self.index.dataset();
        for places in places.chunk_by_mut(|a, b| a.document == b.document) {
            let (mut token, mut byte) = (0, 0);
            for place in places {
                byte += self.length(&dataset.tokens(&[Span {
                    document: place.document,
                    start: token,
                    length: place.token - token,
                }])?);
                token = place.token;
                place.byte += byte;
            }
        }
        Ok(())
    }

    /// What ids are long together.
    fn length(&self, ids: &[i64]) -> u64 {
        match self.alphabet {
            Alphabet::Text(table) => ids.iter().map(|id| table.length(*id) as u64).sum(),
            Alphabet::Ids(token_type) => (ids.len() * token_type.n_bytes()) as u64,
        }
    }
}

impl FindPlaces for Indexed<'_> {
    fn places(&self, texts: &[&[u8]], progress: &Progress) -> Result<Places> {
        let distinct = Distinct::new(texts)?;
        let budget = Budget::new(self.max_places);
        let mut places = Vec::new();
        for (number, text) in distinct.strings.iter().enumerate() {
            let texts = distinct.texts(number);
            let found = self.places_of(text, self.max_places)?;
            budget.take((found.len() * texts.len()) as u64)?;
            for place in found {
                places.extend(texts.iter().map(|text| Place {
                    text: *text,
                    ..place
                }));
            }
            progress.advance(1)?;
        }
        places.sort_unstable_by_key(|place| (place.document, place.token));
        self.add_bytes_before(&mut places)?;
        places.sort_unstable();
        let is_text = matches!(self.alphabet, Alphabet::Text(_));
        Ok(Places {
            places,
            n_documents: self.index.dataset().n_documents(),
            n_tokens: self.index.dataset().n_tokens(),
            n_without_bytes: if is_text {
                self.index.n_without_bytes()?
            } else {
                0
            },
        })
    }
}
