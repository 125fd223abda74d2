//! Different terms, sorted, one after the other in memory.

use crate::{Error, Result};

/// Different terms by their numbers, which ascend as their bytes do.
#[derive(Debug)]
pub(super) struct TermSet {
    bytes: Vec<u8>,
    /// Where each term starts, and the end of all.
    starts: Vec<usize>,
}

impl TermSet {
    /// The different ones of some terms, and the number of each that was given.
    ///
    /// # Errors
    /// An empty term, or 2^32 of them.
    pub(super) fn new(terms: &[&[u8]]) -> Result<(Self, Vec<u32>)> {
        if terms.iter().any(|term| term.is_empty()) {
            return Err(Error::argument(
                "a term is empty: it would occur everywhere",
            ));
        }
        if u32::try_from(terms.len()).is_err() {
            return Err(Error::argument("2^32 terms or more"));
        }
        let mut this = Self {
            bytes: Vec::new(),
            starts: vec![0],
        };
        let mut numbers = vec![0; terms.len()];
        let order = sorted(terms);
        for equal in order.chunk_by(|a, b| terms[*a as usize] == terms[*b as usize]) {
            for i in equal {
                numbers[*i as usize] = this.len() as u32;
            }
            this.bytes.extend_from_slice(terms[equal[0] as usize]);
            this.starts.push(this.bytes.len());
        }
        Ok((this, numbers))
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// The bytes of a term.
    #[inline]
    pub(super) fn term(&self, number: u32) -> &[u8] {
        let number = number as usize;
        &self.bytes[self.starts[number]..self.starts[number + 1]]
    }
}

/// The places of terms in the order of their bytes.
fn sorted(terms: &[&[u8]]) -> Vec<u32> {
    // The first bytes next to the place settle most comparisons without a look at the term.
    let first = |term: &[u8]| {
        let mut bytes = [0; 8];
        let n = term.len().min(8);
        bytes[..n].copy_from_slice(&term[..n]);
        u64::from_be_bytes(bytes)
    };
    let numbered = terms.iter().zip(0_u32..);
    let mut order: Vec<(u64, u32)> = numbered.map(|(term, i)| (first(term), i)).collect();
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
        fn sorted_and_different(terms in vec(vec(0_u8..2, 1..12), 0..50)) {
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
