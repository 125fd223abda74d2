//! Tables of counts in files: tab-separated text, or Parquet.

mod parquet;
mod tsv;

use std::path::Path;

use super::{
    kept::{Gram, GramSink},
    words::Group,
};
use crate::{Result, tokenize::TokenBytes};

/// What the keys of n-grams are, and so the first columns of their table.
#[derive(Debug, Clone)]
pub enum Keys<'a> {
    /// `tokens` and, where the tokenizer is known, `text`.
    Tokens(Option<&'a TokenBytes>),
    /// `words`.
    Words,
}

/// Tokens of a key.
fn ids(key: &[u8]) -> impl Iterator<Item = u32> {
    key.as_chunks::<4>()
        .0
        .iter()
        .map(|b| u32::from_be_bytes(*b))
}

/// The text of a key's tokens; what is no UTF-8 is U+FFFD.
fn text_of(key: &[u8], table: &TokenBytes, scratch: &mut Vec<u8>) -> String {
    let ids: Vec<i64> = ids(key).map(i64::from).collect();
    let (end, _) = table.decode(ids.into_iter(), scratch, 0);
    String::from_utf8_lossy(&scratch[..end]).into_owned()
}

/// The column of a group's counts. No two groups have the same, nor has one that of another column: a subset's
/// name stands behind a colon, and no other column has one.
fn column_of(group: &Group) -> String {
    match group {
        Some(name) => format!("count:{}", tsv::escaped(name)),
        None => "count_without_subset".to_owned(),
    }
}

/// Writes n-grams to a file: Parquet where its name ends so, otherwise tab-separated text. The columns are
/// those of the keys, `count`, and one for each group if there are several: `count:NAME` with the name escaped
/// as texts are, or `count_without_subset`.
///
/// # Errors
/// The file cannot be written.
pub fn write_table<'a>(
    path: &Path,
    keys: Keys<'a>,
    groups: &[Group],
) -> Result<Box<dyn GramSink + 'a>> {
    let groups = if groups.len() > 1 { groups } else { &[] };
    let columns: Vec<String> = groups.iter().map(column_of).collect();
    Ok(match path.extension().is_some_and(|e| e == "parquet") {
        true => Box::new(parquet::ParquetTable::create(path, keys, &columns)?),
        false => Box::new(tsv::TsvTable::create(path, keys, &columns)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gram<'a>(key: &'a [u8], by_group: &'a [u64]) -> Gram<'a> {
        let count = by_group.iter().sum();
        Gram {
            key,
            count,
            by_group,
        }
    }

    #[test]
    fn words_are_escaped_in_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tsv");
        let groups = [Some("Books".to_owned()), Some("a\tb".to_owned()), None];
        let mut table = write_table(&path, Keys::Words, &groups).unwrap();
        table.take(&gram("x\\ y".as_bytes(), &[3, 0, 0])).unwrap();
        table.take(&gram("\u{1}".as_bytes(), &[1, 2, 0])).unwrap();
        table.finish().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(
            text,
            "words\tcount\tcount:Books\tcount:a\\tb\tcount_without_subset\n\
             x\\\\ y\t3\t3\t0\t0\n\u{1}\t3\t1\t2\t0\n"
        );
    }

    #[test]
    fn ids_are_written_as_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tsv");
        let mut table = write_table(&path, Keys::Tokens(None), &[None]).unwrap();
        table.take(&gram(&[0, 0, 1, 0, 0, 0, 0, 7], &[2])).unwrap();
        table.finish().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "tokens\tcount\n256 7\t2\n");
    }
}
