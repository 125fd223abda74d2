//! Numbers for the few distinct names of a dataset: its subsets.

/// Returns the index of `name` in `names`, to which it is appended if it is new.
///
/// A linear search: datasets have tens of subsets.
pub(crate) fn number_of(name: &str, names: &mut Vec<String>) -> usize {
    names
        .iter()
        .position(|known| known == name)
        .unwrap_or_else(|| {
            names.push(name.to_owned());
            names.len() - 1
        })
}
