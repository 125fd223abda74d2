//! A sorted set of distinct terms.

use crate::{Error, Result, bytes::sortable_prefix};

/// Distinct terms, numbered in the order of their bytes.
#[derive(Debug)]
pub(super) struct TermSet {
    /// All terms, concatenated.
    bytes: Vec<u8>,
    /// The offset of each term in `bytes`, and the end of the last one.
    starts: Vec<usize>,
}

impl TermSet {
    /// The set of `terms`, and for each of them its number in the set.
    ///
    /// # Errors
    /// An empty term, or 2^32 terms or more.
    pub(super) fn new(terms: &[&[u8]]) -> Result<(Self, Vec<u32>)> {
        if terms.iter().any(|term| term.is_empty()) {
            return Err(Error::argument(
                "a term is empty: it would occur everywhere",
            ));
        }
        if u32::try_from(terms.len()).is_err() {
            return Err(Error::argument(format!(
                "{} terms are given: fewer than 2^32 can be counted",
                terms.len()
            )));
        }
        let mut set = Self {
            bytes: Vec::new(),
            starts: vec![0],
        };
        let mut numbers = vec![0; terms.len()];
        let order = sorted_indices(terms);
        for equal in order.chunk_by(|a, b| terms[*a as usize] == terms[*b as usize]) {
            for i in equal {
                numbers[*i as usize] = set.len() as u32;
            }
            set.bytes.extend_from_slice(terms[equal[0] as usize]);
            set.starts.push(set.bytes.len());
        }
        Ok((set, numbers))
    }

    /// The number of terms.
    pub(super) fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// The bytes of the term with this number.
    #[inline]
    pub(super) fn term(&self, number: u32) -> &[u8] {
        let number = number as usize;
        &self.bytes[self.starts[number]..self.starts[number + 1]]
    }
}

/// The indices of `terms` in the order of their bytes.
fn sorted_indices(terms: &[&[u8]]) -> Vec<u32> {
    let numbered = terms.iter().zip(0_u32..);
    let mut order: Vec<(u64, u32)> = numbered
        .map(|(term, i)| (sortable_prefix(term), i))
        .collect();
    order.sort_unstable_by(|a, b| {
        a.0.cmp(&b.0)
            .then_with(|| terms[a.1 as usize].cmp(terms[b.1 as usize]))
    });
    order.into_iter().map(|(_, i)| i).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    proptest! {
        #[test]
        fn terms_are_sorted_and_distinct(terms in vec(vec(0_u8..2, 1..12), 0..50)) {
            let given: Vec<&[u8]> = terms.iter().map(Vec::as_slice).collect();
            let (set, numbers) = TermSet::new(&given).unwrap();
            let of_numbers: Vec<&[u8]> = numbers.iter().map(|number| set.term(*number)).collect();
            prop_assert_eq!(of_numbers, given);
            let all: Vec<&[u8]> = (0..set.len() as u32).map(|number| set.term(number)).collect();
            prop_assert!(all.is_sorted_by(|a, b| a < b));
            prop_assert!(set.len() <= terms.len());
        }
    }
}
