//! Limits on the memory that the parquet library allocates for a page, checked before the library reads it.
//!
//! The header of a page has its decompressed size and its number of values, and the library allocates memory
//! for both without a limit. A file of a few kilobytes may thus claim, or decompress to, any amount of
//! memory. [`check_column`] parses the headers of all pages of a column first; [`CheckedPages`] checks the
//! values of decompressed pages.
//!
//! Headers are Thrift structs in the compact protocol. Their fields are defined in `parquet.thrift`.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt as _,
    path::Path,
};

use parquet::{
    basic::{Compression, Encoding},
    column::page::{Page, PageMetadata, PageReader},
    data_type::ByteArray,
    errors::{ParquetError, Result as ParquetResult},
    file::metadata::ColumnChunkMetaData,
};

use crate::{Error, Result};

/// Pages up to this size are read even if records are limited to less: writers put many records into a page. Most
/// writers end a page at 1 MiB. This limit is far above that, and any machine can allocate it.
const MIN_PAGE_BYTES: u64 = 128 << 20;

/// Bytes that the library allocates per value of a dictionary. In the page an empty value takes only four, those
/// of its length.
const DICTIONARY_VALUE_BYTES: u64 = size_of::<ByteArray>() as u64;

/// Bytes that the library allocates per value of a page in a delta encoding: an i32 for the length of the prefix
/// and one for that of the suffix.
const DELTA_VALUE_BYTES: u64 = 8;

/// Maximum number of bytes to which one byte of deflate data decompresses: two bits repeat 258 bytes.
const MAX_DEFLATE_RATIO: u64 = 1032;

/// Maximum number of bytes to which one byte of LZ4 data decompresses: each byte 255 makes a match 255 bytes longer.
const MAX_LZ4_RATIO: u64 = 255;

/// Limit on the size of a header, that of Arrow's C++ reader. A header may have two values as statistics.
const MAX_HEADER_BYTES: u64 = 16 << 20;

/// Limit on the nesting of structs and lists in a header, which keeps damaged bytes from overflowing the stack. The
/// headers of `parquet.thrift` have three levels.
const MAX_DEPTH: u32 = 16;

/// The limit on the decompressed size of a page, if records of `max_record` bytes are to be read.
pub(super) fn max_page_bytes(max_record: u64) -> u64 {
    // A page has, besides the text, its length and the levels.
    max_record.saturating_add(1 << 20).max(MIN_PAGE_BYTES)
}

/// The limit on the size of a footer. The library takes about twenty times as much memory, so a sixteenth of a
/// record keeps it near the memory of a record.
pub(super) fn max_footer_bytes(max_record: u64) -> u64 {
    (max_record / 16).clamp(16 << 20, 256 << 20)
}

/// Checks the headers of all pages of a column of a row group. Returns the size of the largest page.
pub(super) fn check_column(
    path: &Path,
    file: &File,
    column: &ColumnChunkMetaData,
    max_page: u64,
) -> Result<u64> {
    let (mut at, length) = column.byte_range();
    let n_file = file.metadata().map_err(|err| Error::io(path, err))?.len();
    let end = at.saturating_add(length);
    if end > n_file {
        let what = format!("a column ends at byte {end}, the file has {n_file}");
        return Err(Error::format(path, at, what));
    }
    let mut largest = 0;
    while at < end {
        let (header, n_header) = read_header(path, file, at, end)?;
        let found = header.check(column.compression(), max_page);
        let n_page = found.map_err(|what| Error::format(path, at, what))?;
        let (start, next) = (at + n_header, at + n_header + header.compressed);
        if next > end {
            let what = format!("a page ends at byte {next}, its column at {end}");
            return Err(Error::format(path, at, what));
        }
        // Of gzip and LZ4 frames the library ignores the size in the header. A page that cannot exceed `max_page` at
        // the best ratio of its format needs no check. The library decompresses other formats into a buffer of the
        // size in the header.
        let n_levels = header.uncompressed_levels.min(header.compressed);
        let (start, n_packed) = (start + n_levels, header.compressed - n_levels);
        if let Compression::GZIP(_) = column.compression()
            && n_packed.saturating_mul(MAX_DEFLATE_RATIO) > max_page
        {
            let claimed = header.decompressed.saturating_sub(n_levels);
            check_gzip(path, file, start, n_packed, claimed)?;
        }
        if matches!(column.compression(), Compression::LZ4)
            && n_packed.saturating_mul(MAX_LZ4_RATIO) > max_page
        {
            refuse_lz4_frame(path, file, start)?;
        }
        largest = largest.max(n_page);
        at = next;
    }
    Ok(largest)
}

/// Checks that gzip data of a page does not decompress to more than the size in its header. The library does not stop
/// at that size.
fn check_gzip(path: &Path, file: &File, start: u64, length: u64, claimed: u64) -> Result<()> {
    let compressed = FileCursor { file, at: start }.take(length);
    let mut bytes = flate2::read::MultiGzDecoder::new(compressed).take(claimed + 1);
    // Other errors of the data are reported when the library reads the page.
    let n = io::copy(&mut bytes, &mut io::sink()).unwrap_or(0);
    if n > claimed {
        let what = format!("a page of more than {claimed} bytes, the size in its header");
        return Err(Error::format(path, start, what));
    }
    Ok(())
}

/// Refuses a large page in the LZ4 frame format, which the library decompresses beyond the size in the header, as
/// it does gzip. Only old writers used this format, with small pages, so it is not worth decompressing it here.
fn refuse_lz4_frame(path: &Path, file: &File, start: u64) -> Result<()> {
    let mut magic = [0; 4];
    let is_frame = file.read_exact_at(&mut magic, start).is_ok() && magic == [4, 0x22, 0x4D, 0x18];
    if is_frame {
        let what = "a large page in the LZ4 frame format, whose decompressed size is unknown";
        return Err(Error::format(path, start, what));
    }
    Ok(())
}

/// Reads a file from an offset, without moving its position, which the library uses.
struct FileCursor<'a> {
    file: &'a File,
    at: u64,
}

impl Read for FileCursor<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read_at(buffer, self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

/// The fields of a page's header that determine the memory of the page.
#[derive(Debug, PartialEq, Eq)]
struct PageHeader {
    /// Decompressed size of the page.
    decompressed: u64,
    /// Size of the page in the file, without the header.
    compressed: u64,
    /// Number of values of the dictionary, if the page is one.
    n_dictionary: Option<u64>,
    /// Bytes at the start of the page that are never compressed: the levels of a data page of version 2.
    uncompressed_levels: u64,
}

impl PageHeader {
    /// The size of the page in memory, or why the page is refused.
    fn check(&self, compression: Compression, max_page: u64) -> std::result::Result<u64, String> {
        let n_page = match compression {
            Compression::UNCOMPRESSED => self.compressed,
            _ => self.decompressed.max(self.compressed),
        };
        if n_page > max_page {
            return Err(format!(
                "a page of {n_page} bytes, more than the {max_page} that max-record allows"
            ));
        }
        let n_values = self.n_dictionary.unwrap_or(0);
        if n_values.saturating_mul(4) > n_page {
            return Err(format!(
                "a dictionary of {n_values} values in {n_page} bytes: each takes at least four"
            ));
        }
        if n_values.saturating_mul(DICTIONARY_VALUE_BYTES) > max_page {
            return Err(format!(
                "a dictionary of {n_values} values, more than max-record allows"
            ));
        }
        Ok(n_page)
    }
}

/// Reads the header of the page at byte `at`. Also returns the header's size.
fn read_header(path: &Path, file: &File, at: u64, end: u64) -> Result<(PageHeader, u64)> {
    // The size of a header is unknown: read more until it is complete.
    let limit = (end - at).min(MAX_HEADER_BYTES);
    let mut n_bytes = 1 << 10;
    loop {
        let mut bytes = vec![0; n_bytes.min(limit) as usize];
        file.read_exact_at(&mut bytes, at)
            .map_err(|err| Error::io(path, err))?;
        let mut thrift = CompactReader {
            bytes: &bytes,
            at: 0,
        };
        if let Some(header) = thrift.page_header() {
            return Ok((header, thrift.at as u64));
        }
        if n_bytes >= limit {
            return Err(Error::format(
                path,
                at,
                "not parquet, or damaged: no page header",
            ));
        }
        n_bytes *= 16;
    }
}

/// The types of fields in Thrift's compact protocol.
mod field_type {
    pub const BOOLEAN_TRUE: u8 = 1;
    pub const BOOLEAN_FALSE: u8 = 2;
    pub const BYTE: u8 = 3;
    pub const I16: u8 = 4;
    pub const I32: u8 = 5;
    pub const I64: u8 = 6;
    pub const DOUBLE: u8 = 7;
    pub const BINARY: u8 = 8;
    pub const LIST: u8 = 9;
    pub const SET: u8 = 10;
    pub const STRUCT: u8 = 12;
}

/// The numbers of fields in `PageHeader` of `parquet.thrift`.
const UNCOMPRESSED_PAGE_SIZE: i64 = 2;
const COMPRESSED_PAGE_SIZE: i64 = 3;
const DICTIONARY_PAGE_HEADER: i64 = 7;
const DATA_PAGE_HEADER_V2: i64 = 8;

/// The number of a field in `DictionaryPageHeader`.
const NUM_VALUES: i64 = 1;

/// The numbers of fields in `DataPageHeaderV2`.
const DEFINITION_LEVELS_BYTE_LENGTH: i64 = 5;
const REPETITION_LEVELS_BYTE_LENGTH: i64 = 6;

/// Reads Thrift's compact protocol. Its methods return `None` if the bytes are damaged or end too early.
struct CompactReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl CompactReader<'_> {
    fn page_header(&mut self) -> Option<PageHeader> {
        let (mut decompressed, mut compressed, mut n_dictionary) = (None, None, None);
        let (mut uncompressed_levels, mut id) = (0, 0);
        while let Some(kind) = self.next_field(&mut id)? {
            match (id, kind) {
                (UNCOMPRESSED_PAGE_SIZE, field_type::I32) => decompressed = Some(self.size()?),
                (COMPRESSED_PAGE_SIZE, field_type::I32) => compressed = Some(self.size()?),
                (DICTIONARY_PAGE_HEADER, field_type::STRUCT) => {
                    let [n_values] = self.sizes_of_struct([NUM_VALUES])?;
                    n_dictionary = Some(n_values);
                }
                (DATA_PAGE_HEADER_V2, field_type::STRUCT) => {
                    let levels = [DEFINITION_LEVELS_BYTE_LENGTH, REPETITION_LEVELS_BYTE_LENGTH];
                    uncompressed_levels = self.sizes_of_struct(levels)?.iter().sum();
                }
                _ => self.skip(kind, 0)?,
            }
        }
        Some(PageHeader {
            decompressed: decompressed?,
            compressed: compressed?,
            n_dictionary,
            uncompressed_levels,
        })
    }

    /// Reads a struct. Returns the sizes in the fields of these numbers, all of which it must have.
    fn sizes_of_struct<const N: usize>(&mut self, fields: [i64; N]) -> Option<[u64; N]> {
        let (mut sizes, mut id) = ([None; N], 0);
        while let Some(kind) = self.next_field(&mut id)? {
            match fields.iter().position(|field| *field == id) {
                Some(i) if kind == field_type::I32 => sizes[i] = Some(self.size()?),
                _ => self.skip(kind, 0)?,
            }
        }
        let mut found = [0; N];
        for (to, size) in found.iter_mut().zip(sizes) {
            *to = size?;
        }
        Some(found)
    }

    /// The type of the next field, or `Some(None)` after the last one of a struct. `id` is the number of the
    /// previous field, and is set to that of this one: most fields store only the difference.
    #[allow(clippy::option_option)] // The outer option is the reader's.
    fn next_field(&mut self, id: &mut i64) -> Option<Option<u8>> {
        let byte = self.byte()?;
        if byte == 0 {
            return Some(None);
        }
        *id = match byte >> 4 {
            0 => self.signed()?,
            step => id.checked_add(step.into())?,
        };
        Some(Some(byte & 0xF))
    }

    /// Skips a value of the type `kind`.
    fn skip(&mut self, kind: u8, depth: u32) -> Option<()> {
        if depth == MAX_DEPTH {
            return None;
        }
        match kind {
            // The type is the value.
            field_type::BOOLEAN_TRUE | field_type::BOOLEAN_FALSE => Some(()),
            field_type::BYTE => self.skip_bytes(1),
            field_type::I16 | field_type::I32 | field_type::I64 => self.varint().map(drop),
            field_type::DOUBLE => self.skip_bytes(8),
            field_type::BINARY => {
                let n = self.varint()?;
                self.skip_bytes(n)
            }
            field_type::LIST | field_type::SET => {
                let byte = self.byte()?;
                let n = match byte >> 4 {
                    15 => self.varint()?,
                    n => n.into(),
                };
                // In a list each boolean is a byte. Every item thus takes a byte, so the loop ends with the
                // bytes whatever number the list claims.
                let kind = match byte & 0xF {
                    0..=field_type::BOOLEAN_FALSE => field_type::BYTE,
                    kind => kind,
                };
                (0..n).try_for_each(|_| self.skip(kind, depth + 1))
            }
            field_type::STRUCT => {
                let mut id = 0;
                while let Some(kind) = self.next_field(&mut id)? {
                    self.skip(kind, depth + 1)?;
                }
                Some(())
            }
            // Headers have no maps.
            _ => None,
        }
    }

    fn skip_bytes(&mut self, n: u64) -> Option<()> {
        let end = self.at.checked_add(usize::try_from(n).ok()?)?;
        self.bytes.get(self.at..end)?;
        self.at = end;
        Some(())
    }

    /// A size: a number of 32 bits that is not negative.
    fn size(&mut self) -> Option<u64> {
        let size = self.signed()?;
        i32::try_from(size).ok()?;
        u64::try_from(size).ok()
    }

    /// A signed number in zigzag encoding.
    fn signed(&mut self) -> Option<i64> {
        let n = self.varint()?;
        Some((n >> 1) as i64 ^ -((n & 1) as i64))
    }

    /// A number in LEB128.
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn byte(&mut self) -> Option<u8> {
        let byte = self.bytes.get(self.at)?;
        self.at += 1;
        Some(*byte)
    }
}

/// Pages of another reader. Refuses pages in a delta encoding that claim more values than the page has: the
/// library allocates memory for the claimed number.
pub(super) struct CheckedPages {
    pub pages: Box<dyn PageReader>,
    /// The maximum repetition and definition levels of the column.
    pub max_levels: [i16; 2],
    pub max_page: u64,
}

impl CheckedPages {
    fn check(&self, page: &Page) -> ParquetResult<()> {
        let is_delta = [
            Encoding::DELTA_BYTE_ARRAY,
            Encoding::DELTA_LENGTH_BYTE_ARRAY,
        ]
        .contains(&page.encoding());
        if !is_delta || matches!(page, Page::DictionaryPage { .. }) {
            return Ok(());
        }
        // The number in the header includes nulls, which have no value.
        let max_values = (self.max_page / DELTA_VALUE_BYTES).min(page.num_values().into());
        let values_end = || {
            let mut at = self.values_start(page)?;
            let values = page.buffer();
            // DELTA_BYTE_ARRAY starts with the lengths of the prefixes that values share with the previous ones.
            // Both encodings then have the lengths of the stored bytes of the values.
            if page.encoding() == Encoding::DELTA_BYTE_ARRAY {
                at += delta_end(values.get(at..)?, max_values)?;
            }
            delta_end(values.get(at..)?, max_values)
        };
        match values_end() {
            Some(_) => Ok(()),
            None => Err(ParquetError::General(
                "a page with more values than it claims, or than max-record allows".into(),
            )),
        }
    }

    /// The offset of the values of a page, after its levels.
    fn values_start(&self, page: &Page) -> Option<usize> {
        match page {
            Page::DataPageV2 {
                def_levels_byte_len,
                rep_levels_byte_len,
                ..
            } => usize::try_from(def_levels_byte_len.checked_add(*rep_levels_byte_len)?).ok(),
            Page::DataPage {
                buf,
                num_values,
                def_level_encoding,
                rep_level_encoding,
                ..
            } => {
                let mut at = 0;
                let encodings = [rep_level_encoding, def_level_encoding];
                for (max_level, encoding) in self.max_levels.into_iter().zip(encodings) {
                    if max_level > 0 {
                        let levels = buf.get(at..)?;
                        let n_bytes = levels_bytes(levels, *num_values, max_level, *encoding)?;
                        at = at.checked_add(n_bytes)?;
                    }
                }
                Some(at)
            }
            Page::DictionaryPage { .. } => None,
        }
    }
}

/// Bytes of the levels at the start of `bytes`, in a page of version 1.
fn levels_bytes(bytes: &[u8], n_values: u32, max_level: i16, encoding: Encoding) -> Option<usize> {
    match encoding {
        Encoding::RLE => {
            let length = u32::from_le_bytes(*bytes.first_chunk()?);
            usize::try_from(length).ok()?.checked_add(4)
        }
        _ => {
            let n_bits = u64::from(n_values) * u64::from(max_level.ilog2() + 1);
            usize::try_from(n_bits.div_ceil(8)).ok()
        }
    }
}

/// The end of numbers in the encoding DELTA_BINARY_PACKED, at most `max_values`; `None` if there are more or
/// they are damaged.
///
/// The header is the number of values per block, the number of runs ("miniblocks") per block, the number of
/// values and the first value. Each block has its smallest difference, one byte per run with the width of its
/// values in bits, and the runs.
fn delta_end(bytes: &[u8], max_values: u64) -> Option<usize> {
    let mut reader = CompactReader { bytes, at: 0 };
    let (block, n_runs, n) = (reader.varint()?, reader.varint()?, reader.varint()?);
    let _first = reader.varint()?;
    let run = block.checked_div(n_runs)?;
    if n > max_values || run == 0 {
        return None;
    }
    let mut remaining = n.saturating_sub(1);
    while remaining > 0 {
        let _smallest_difference = reader.varint()?;
        let widths = reader.at;
        reader.skip_bytes(n_runs)?;
        for width in &bytes[widths..reader.at] {
            // Runs after the last value are not stored. The format has runs of a multiple of 32 values, so the
            // division is exact.
            if remaining > 0 {
                reader.skip_bytes(u64::from(*width).checked_mul(run)? / 8)?;
                remaining = remaining.saturating_sub(run);
            }
        }
    }
    Some(reader.at)
}

impl Iterator for CheckedPages {
    type Item = ParquetResult<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for CheckedPages {
    fn get_next_page(&mut self) -> ParquetResult<Option<Page>> {
        let page = self.pages.get_next_page()?;
        page.as_ref().map_or(Ok(()), |page| self.check(page))?;
        Ok(page)
    }

    fn peek_next_page(&mut self) -> ParquetResult<Option<PageMetadata>> {
        self.pages.peek_next_page()
    }

    fn skip_next_page(&mut self) -> ParquetResult<()> {
        self.pages.skip_next_page()
    }

    fn at_record_boundary(&mut self) -> ParquetResult<bool> {
        self.pages.at_record_boundary()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::put_varint;
    use std::sync::Arc;

    /// A header with a field that must be skipped: a list of structs with a string.
    fn header(decompressed: i32, compressed: i32, n_dictionary: Option<i32>) -> Vec<u8> {
        let size =
            |n: i32, out: &mut Vec<u8>| put_varint(out, ((n << 1) ^ (n >> 31)) as u32 as u64);
        let mut bytes = vec![0x15, 4, 0x15];
        size(decompressed, &mut bytes);
        bytes.push(0x15);
        size(compressed, &mut bytes);
        if let Some(n) = n_dictionary {
            bytes.extend([0x4C, 0x15]);
            size(n, &mut bytes);
            bytes.extend([0x15, 0, 0]);
        }
        bytes.extend([0x19, 0x1C, 0x18, 2, b'a', b'b', 0, 0]);
        bytes
    }

    fn read(bytes: &[u8]) -> Option<PageHeader> {
        CompactReader { bytes, at: 0 }.page_header()
    }

    #[test]
    fn truncated_and_invalid_headers_are_refused() {
        let bytes = header(1 << 20, 999, Some(7));
        let expected = PageHeader {
            decompressed: 1 << 20,
            compressed: 999,
            n_dictionary: Some(7),
            uncompressed_levels: 0,
        };
        assert_eq!(read(&bytes), Some(expected));
        for n in 0..bytes.len() {
            assert_eq!(read(&bytes[..n]), None, "{n}");
        }
        for (decompressed, compressed, n) in [(-1, 1, 1), (1, -1, 1), (1, 1, -1)] {
            assert_eq!(read(&header(decompressed, compressed, Some(n))), None);
        }
        let deep = [vec![0x15, 2, 0x15, 2, 0x1C], vec![0x1C; 1000]].concat();
        assert_eq!(read(&deep), None);
    }

    #[test]
    fn the_claims_of_a_header_are_limited() {
        let check = |decompressed, n_dictionary| {
            let header = read(&header(decompressed, 100, n_dictionary)).unwrap();
            header.check(Compression::SNAPPY, max_page_bytes(1_000_000))
        };
        assert_eq!(check(128 << 20, None), Ok(128 << 20));
        assert!(check((128 << 20) + 1, None).is_err());
        assert!(check(i32::MAX, None).is_err());
        assert_eq!(check(400, Some(100)), Ok(400));
        assert!(check(400, Some(101)).is_err());
        // Empty strings take four bytes in the page, but more in memory.
        assert!(check(128 << 20, Some(32 << 20)).is_err());
        assert_eq!(max_page_bytes(1 << 30), (1 << 30) + (1 << 20));
    }

    #[test]
    fn gzip_beyond_the_size_in_the_header_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        io::Write::write_all(&mut packed, &[0; 10_000]).unwrap();
        let packed = packed.finish().unwrap();
        std::fs::write(&path, &packed).unwrap();
        let file = File::open(&path).unwrap();
        let length = packed.len() as u64;
        assert!(check_gzip(&path, &file, 0, length, 10_000).is_ok());
        assert!(check_gzip(&path, &file, 0, length, 9_999).is_err());
    }

    /// The levels of a data page of version 2 come before its compressed values, and must not hide them.
    #[test]
    fn pages_of_both_versions_cannot_claim_less_than_they_decompress_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let schema = parquet::schema::parser::parse_message_type(
            "message schema { OPTIONAL BYTE_ARRAY text (UTF8); }",
        );
        let schema = parquet::schema::types::SchemaDescriptor::new(Arc::new(schema.unwrap()));
        let gzip = |n: usize| {
            let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            io::Write::write_all(&mut packed, &vec![0; n]).unwrap();
            packed.finish().unwrap()
        };
        let lz4_frame = [&[4, 0x22, 0x4D, 0x18][..], &[0; 400]].concat();
        let check = |compression, n_levels: Option<usize>, claim: usize, packed: &[u8]| {
            let page = [&vec![7; n_levels.unwrap_or(0)], packed].concat();
            let mut bytes = header(claim as i32, page.len() as i32, None);
            if let Some(n_levels) = n_levels {
                // Field 8, before the end of the header: a struct with the fields 5 and 6.
                bytes.pop();
                bytes.extend([0x0C, 16, 0x55]);
                put_varint(&mut bytes, 2 * n_levels as u64);
                bytes.extend([0x15, 0, 0, 0]);
            }
            bytes.extend(page);
            std::fs::write(&path, &bytes).unwrap();
            let column = ColumnChunkMetaData::builder(schema.column(0))
                .set_compression(compression)
                .set_data_page_offset(0)
                .set_total_compressed_size(bytes.len() as i64)
                .build()
                .unwrap();
            check_column(&path, &File::open(&path).unwrap(), &column, 20_000)
                .map_err(|err| err.to_string())
        };
        let as_gzip = Compression::GZIP(Default::default());
        for n_levels in [None, Some(0), Some(1), Some(300)] {
            let n = n_levels.unwrap_or(0);
            assert_eq!(
                check(as_gzip, n_levels, n + 10_000, &gzip(10_000)),
                Ok(n as u64 + 10_000)
            );
            let refused = check(as_gzip, n_levels, n + 10_000, &gzip(100_000)).unwrap_err();
            assert!(
                refused.contains("the size in its header"),
                "{n_levels:?} {refused}"
            );
            let refused = check(Compression::LZ4, n_levels, n + 10_000, &lz4_frame).unwrap_err();
            assert!(refused.contains("LZ4 frame"), "{n_levels:?} {refused}");
        }
        // The library refuses levels that are longer than the page.
        assert!(check(as_gzip, Some(300), 9_000, &[]).is_ok());
    }

    /// Equal numbers in DELTA_BINARY_PACKED, with 128 values and 4 runs per block.
    fn delta(n: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        for field in [128, 4, n, 2] {
            put_varint(&mut bytes, field);
        }
        for _ in 0..n.saturating_sub(1).div_ceil(128) {
            bytes.extend([0, 0, 0, 0, 0]);
        }
        bytes
    }

    #[test]
    fn the_values_of_a_delta_encoding_are_counted() {
        for n in [0, 1, 2, 128, 129, 130, 5000] {
            let bytes = delta(n);
            assert_eq!(delta_end(&bytes, n), Some(bytes.len()), "{n}");
            assert_eq!(delta_end(&bytes, n.saturating_sub(1)).is_some(), n == 0);
        }
        let claim = |fields: [u64; 4]| {
            let mut bytes = Vec::new();
            fields.iter().for_each(|n| put_varint(&mut bytes, *n));
            bytes
        };
        for fields in [
            [128, 0, 9, 0],
            [0, 4, 9, 0],
            [128, u64::MAX, 9, 0],
            [128, 4, u64::MAX, 0],
        ] {
            assert_eq!(delta_end(&claim(fields), 1 << 20), None, "{fields:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused(bytes: Vec<u8>) {
            let _ = (read(&bytes), delta_end(&bytes, 1 << 20));
        }
    }
}
