//! Numbers for the few distinct names of a dataset: its subsets.

use std::path::Path;

use rustc_hash::FxHashMap;

use crate::{Error, Result};

/// Bytes of the longest name of a subset. The names of all subsets are held in memory and written to the manifest,
/// whose size is limited too; tables have one in each row.
pub(crate) const MAX_SUBSET_BYTES: usize = 255;

/// Maximum number of subsets of a dataset, or of the shards of a job.
pub(crate) const MAX_SUBSETS: usize = 65_535;

/// The error of a file with one more subset than [`MAX_SUBSETS`].
pub(crate) fn too_many_subsets(path: &Path) -> Error {
    let what = "has a document of one more subset than the 65,535 that there may be";
    Error::malformed(path, what)
}

/// Returns the index of `name` in `names`, to which it is appended if it is new.
///
/// A linear search, for the subsets of a block: it has few.
pub(crate) fn number_of(name: &str, names: &mut Vec<String>) -> usize {
    names
        .iter()
        .position(|known| known == name)
        .unwrap_or_else(|| {
            names.push(name.to_owned());
            names.len() - 1
        })
}

/// The subsets of a dataset, numbered as they are first seen.
#[derive(Default)]
pub(crate) struct SubsetNames {
    names: Vec<String>,
    numbers: FxHashMap<String, u32>,
}

impl SubsetNames {
    /// The number of a subset of `source`.
    ///
    /// # Errors
    /// More than [`MAX_SUBSETS`].
    pub(crate) fn number(&mut self, name: &str, source: &Path) -> Result<u32> {
        if let Some(number) = self.numbers.get(name) {
            return Ok(*number);
        }
        if self.names.len() == MAX_SUBSETS {
            return Err(too_many_subsets(source));
        }
        let number = self.names.len() as u32;
        self.names.push(name.to_owned());
        self.numbers.insert(name.to_owned(), number);
        Ok(number)
    }

    /// The names, by number.
    pub(crate) fn into_names(self) -> Vec<String> {
        self.names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subsets_have_numbers_up_to_the_limit() {
        let mut names = SubsetNames::default();
        for number in [0..MAX_SUBSETS, 0..MAX_SUBSETS].into_iter().flatten() {
            let found = names.number(&number.to_string(), Path::new("a"));
            assert_eq!(found.unwrap() as usize, number);
        }
        let message = names.number("more", Path::new("a")).unwrap_err();
        assert!(message.to_string().contains("one more subset"), "{message}");
        assert_eq!(names.into_names()[7], "7");
    }
}
