//! Subsets of documents, which are the groups of counts.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Mutex, PoisonError},
};

use rustc_hash::FxHashMap;

use crate::{Error, Result};

/// The name of a subset. `None` stands for the documents without one, so that no name can be confused with it.
pub type GroupName = Option<String>;

/// Numbers subsets in the order in which they are first seen. Threads share it.
pub(super) struct Subsets {
    by_subset: bool,
    numbers: Mutex<SubsetNumbers>,
}

#[derive(Default)]
struct SubsetNumbers {
    by_name: FxHashMap<String, u16>,
    without_name: Option<u16>,
    names: Vec<GroupName>,
}

impl Subsets {
    /// Gives `names`, those of a resumed job, the first numbers. If `by_subset` is off, all documents are in group 0.
    pub(super) fn new(by_subset: bool, names: &[GroupName]) -> Result<Self> {
        let mut numbers = SubsetNumbers::default();
        for name in names {
            numbers.number(name.as_deref(), Path::new("state.json"))?;
        }
        Ok(Self {
            by_subset,
            numbers: Mutex::new(numbers),
        })
    }

    /// The group of a document whose subset has this name.
    pub(super) fn group(&self, subset: Option<&str>, source: &Path) -> Result<u16> {
        if !self.by_subset {
            return Ok(0);
        }
        let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        numbers.number(subset, source)
    }

    /// The names of the subsets, by number.
    pub(super) fn into_names(self) -> Vec<GroupName> {
        let numbers = self.numbers.into_inner();
        numbers.unwrap_or_else(PoisonError::into_inner).names
    }
}

impl SubsetNumbers {
    fn number(&mut self, name: Option<&str>, source: &Path) -> Result<u16> {
        let known = match name {
            Some(name) => self.by_name.get(name).copied(),
            None => self.without_name,
        };
        if let Some(number) = known {
            return Ok(number);
        }
        let number = u16::try_from(self.names.len()).map_err(|_| {
            let what = "has a document of one more subset than the 65,536 that are counted";
            Error::malformed(source, what)
        })?;
        match name {
            Some(name) => drop(self.by_name.insert(name.to_owned(), number)),
            None => self.without_name = Some(number),
        }
        self.names.push(name.map(str::to_owned));
        Ok(number)
    }
}

/// Groups in the order in which they are reported.
pub(super) struct SortedGroups {
    pub(super) names: Vec<GroupName>,
    /// For each subset number, the index of its name in `names`.
    pub(super) indices: Vec<u32>,
}

/// Sorts groups by name. The documents without a subset are last. If `by_subset` is off, there is one group.
pub(super) fn sort_groups(names: &[GroupName], by_subset: bool) -> SortedGroups {
    if !by_subset {
        return SortedGroups {
            names: vec![None],
            indices: vec![0],
        };
    }
    let sorted: BTreeMap<(bool, GroupName), usize> = names
        .iter()
        .enumerate()
        .map(|(number, name)| ((name.is_none(), name.clone()), number))
        .collect();
    let mut indices = vec![0; names.len()];
    for (index, number) in (0..).zip(sorted.values()) {
        indices[*number] = index;
    }
    SortedGroups {
        names: sorted.into_keys().map(|(_, name)| name).collect(),
        indices,
    }
}
