//! Occurrences of texts from a suffix index: the result of a [`super::Scan`] without reading the documents.

use super::{
    Scan,
    chunk::SearchUnit,
    occurrences::{DistinctTexts, FindOccurrences, Occurrence, OccurrenceLimit, Occurrences},
};
use crate::{
    Error, Result,
    progress::Progress,
    search::SuffixIndex,
    tokens::{Span, TokenSource, TokensInMemory},
};

/// Finds texts with a suffix index of the documents.
#[derive(Debug, Clone, Copy)]
pub struct IndexSearch<'a> {
    index: &'a SuffixIndex,
    unit: SearchUnit<'a>,
    max_occurrences: u64,
}

impl<'a> IndexSearch<'a> {
    /// A search in `index` that fails if the texts occur more than `max_occurrences` times.
    ///
    /// # Errors
    /// `unit` is text, and the index was built with another tokenizer or with none.
    pub fn new(index: &'a SuffixIndex, unit: SearchUnit<'a>, max_occurrences: u64) -> Result<Self> {
        if let SearchUnit::Text(table) = unit
            && !index.alphabet().decodes_as(table)
        {
            let what = "the index was built without this tokenizer and does not know its texts";
            return Err(Error::malformed(index.folder(), what));
        }
        Ok(Self {
            index,
            unit,
            max_occurrences,
        })
    }

    /// The occurrences of one text, with `byte_offset` relative to the token that holds the first byte.
    fn occurrences_of(&self, text: &[u8]) -> Result<Vec<Occurrence>> {
        if let SearchUnit::Ids(token_type) = self.unit {
            let width = token_type.n_bytes();
            if !text.len().is_multiple_of(width) {
                return Ok(Vec::new());
            }
            let ids: Vec<i64> = text
                .chunks_exact(width)
                .map(|id| token_type.decode(id))
                .collect();
            let found = self.index.locate(&ids, self.max_occurrences)?;
            let n_tokens = ids.len() as u64;
            return Ok(found
                .iter()
                .map(|at| Occurrence {
                    document: at.document,
                    byte_offset: 0,
                    text: 0,
                    token_offset: at.token_offset,
                    n_tokens,
                })
                .collect());
        }
        let found = self.index.locate_text(text, self.max_occurrences)?;
        Ok(found
            .iter()
            .map(|at| Occurrence {
                document: at.document,
                byte_offset: at.byte_in_token,
                text: 0,
                token_offset: at.token_offset,
                n_tokens: at.n_tokens,
            })
            .collect())
    }

    /// Makes byte offsets relative to the document: adds the bytes of the tokens before each occurrence's
    /// first one. The occurrences are sorted by document and token, so that no token is read twice.
    fn add_bytes_before(&self, occurrences: &mut [Occurrence]) -> Result<()> {
        let dataset = self.index.dataset();
        for same_document in occurrences.chunk_by_mut(|a, b| a.document == b.document) {
            let (mut token, mut bytes_before) = (0, 0);
            for occurrence in same_document {
                bytes_before += self.n_bytes(&dataset.tokens(&[Span {
                    document: occurrence.document,
                    start: token,
                    length: occurrence.token_offset - token,
                }])?);
                token = occurrence.token_offset;
                occurrence.byte_offset += bytes_before;
            }
        }
        Ok(())
    }

    /// Bytes of some tokens together.
    fn n_bytes(&self, ids: &[i64]) -> u64 {
        match self.unit {
            SearchUnit::Text(table) => ids.iter().map(|id| table.length(*id) as u64).sum(),
            SearchUnit::Ids(token_type) => (ids.len() * token_type.n_bytes()) as u64,
        }
    }
}

/// An [`IndexSearch`] of the documents of an order with interventions, and a scan of the inserted texts, which the
/// index lacks. They are the documents after those of the index. The two limit their occurrences separately.
#[derive(Debug)]
pub struct WithInsertedTexts<'a> {
    /// Finds the texts in the documents.
    pub documents: IndexSearch<'a>,
    /// Finds them in the inserted texts.
    pub inserted: Scan<'a, TokensInMemory>,
}

impl FindOccurrences for WithInsertedTexts<'_> {
    fn find(&self, texts: &[&[u8]], progress: &Progress) -> Result<Occurrences> {
        let mut all = self.documents.find(texts, progress)?;
        let inserted = self.inserted.find(texts, progress)?;
        let shifted = inserted.occurrences.into_iter().map(|found| Occurrence {
            document: found.document + all.n_documents,
            ..found
        });
        all.occurrences.extend(shifted);
        all.n_documents += inserted.n_documents;
        all.n_tokens += inserted.n_tokens;
        all.n_without_bytes += inserted.n_without_bytes;
        Ok(all)
    }
}

impl FindOccurrences for IndexSearch<'_> {
    fn find(&self, texts: &[&[u8]], progress: &Progress) -> Result<Occurrences> {
        let distinct = DistinctTexts::new(texts)?;
        let limit = OccurrenceLimit::new(self.max_occurrences);
        let mut occurrences = Vec::new();
        for (string, text) in distinct.strings.iter().enumerate() {
            let numbers = distinct.numbers_of(string);
            let found = self.occurrences_of(text)?;
            limit.add((found.len() * numbers.len()) as u64)?;
            for occurrence in found {
                occurrences.extend(numbers.iter().map(|text| Occurrence {
                    text: *text,
                    ..occurrence
                }));
            }
            progress.advance(1)?;
        }
        occurrences.sort_unstable_by_key(|found| (found.document, found.token_offset));
        self.add_bytes_before(&mut occurrences)?;
        occurrences.sort_unstable();
        let is_text = matches!(self.unit, SearchUnit::Text(_));
        Ok(Occurrences {
            occurrences,
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
