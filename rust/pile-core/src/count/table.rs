//! Writes tables of n-gram counts as tab-separated text or Parquet.

mod parquet;
mod tsv;

use std::path::Path;

use super::{
    retained::{Ngram, NgramSink},
    subsets::GroupName,
};
use crate::{Result, tokenize::TokenBytes};

/// What the keys of n-grams consist of, which determines the first columns of their table.
#[derive(Debug, Clone, Copy)]
pub enum KeyColumns<'a> {
    /// Token ids, in the column `tokens`. With the bytes of the tokens, the column `text` follows.
    Tokens(Option<&'a TokenBytes>),
    /// Words, in the column `words`.
    Words,
}

/// The token ids of a key.
fn ids_of(key: &[u8]) -> impl Iterator<Item = u32> {
    key.as_chunks::<4>()
        .0
        .iter()
        .map(|id| u32::from_be_bytes(*id))
}

/// The decoded tokens of a key. U+FFFD replaces bytes that are not UTF-8.
fn text_of(key: &[u8], token_bytes: &TokenBytes, scratch: &mut Vec<u8>) -> Result<String> {
    let ids: Vec<i64> = ids_of(key).map(i64::from).collect();
    let (end, _) = token_bytes.decode(ids.into_iter(), scratch, 0)?;
    Ok(String::from_utf8_lossy(&scratch[..end]).into_owned())
}

/// The name of the column of a group's counts. It is unique: only columns of subsets have a colon, and escaping keeps
/// names of subsets distinct.
fn column_name(group: &GroupName) -> String {
    match group {
        Some(name) => format!("count:{}", tsv::escaped(name)),
        None => "count_without_subset".to_owned(),
    }
}

/// Returns a sink that writes n-grams to a file, as Parquet if the file's extension is `parquet`, otherwise as
/// tab-separated text.
///
/// The columns are those of the keys, `count` and, if there are several groups, one for each group: `count:NAME`, or
/// `count_without_subset` for the documents without a subset. In `NAME`, backslash, tab, line feed and carriage
/// return are escaped as `\\`, `\t`, `\n` and `\r`.
///
/// # Errors
/// The file cannot be written.
pub fn write_table<'a>(
    path: &Path,
    keys: KeyColumns<'a>,
    groups: &[GroupName],
) -> Result<Box<dyn NgramSink + 'a>> {
    let groups = if groups.len() > 1 { groups } else { &[] };
    let columns: Vec<String> = groups.iter().map(column_name).collect();
    Ok(match path.extension().is_some_and(|e| e == "parquet") {
        true => Box::new(parquet::ParquetTable::create(path, keys, &columns)?),
        false => Box::new(tsv::TsvTable::create(path, keys, &columns)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ngram<'a>(key: &'a [u8], by_group: &'a [u64]) -> Ngram<'a> {
        let count = by_group.iter().sum();
        Ngram {
            key,
            count,
            by_group,
        }
    }

    #[test]
    fn words_and_column_names_are_escaped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tsv");
        let groups = [Some("Books".to_owned()), Some("a\tb".to_owned()), None];
        let mut table = write_table(&path, KeyColumns::Words, &groups).unwrap();
        table.take(&ngram("x\\ y".as_bytes(), &[3, 0, 0])).unwrap();
        table.take(&ngram("\u{1}".as_bytes(), &[1, 2, 0])).unwrap();
        table.finish().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(
            text,
            "words\tcount\tcount:Books\tcount:a\\tb\tcount_without_subset\n\
             x\\\\ y\t3\t3\t0\t0\n\u{1}\t3\t1\t2\t0\n"
        );
    }

    #[test]
    fn ids_are_written_in_decimal() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tsv");
        let mut table = write_table(&path, KeyColumns::Tokens(None), &[None]).unwrap();
        table.take(&ngram(&[0, 0, 1, 0, 0, 0, 0, 7], &[2])).unwrap();
        table.finish().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "tokens\tcount\n256 7\t2\n");
    }
}
