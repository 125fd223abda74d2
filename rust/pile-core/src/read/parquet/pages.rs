//! Bounds what a parquet file makes a reader allocate, before it does.
//!
//! A page's header says how long the page is once it is decompressed, and how many values it has; a reader
//! makes room for both. A few kilobytes can so claim, or decompress to, any amount of memory. Headers are
//! Thrift structs in its compact protocol; fields are those of `parquet.thrift`.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt as _,
    path::Path,
};

use parquet::{
    basic::{Compression, Encoding},
    column::page::{Page, PageMetadata, PageReader},
    errors::{ParquetError, Result as ParquetResult},
    file::metadata::ColumnChunkMetaData,
};

use crate::{Error, Result};

/// Pages up to here are read whatever the longest record: writers put many records into one.
const MIN_PAGE_BYTES: u64 = 128 << 20;

/// Bytes that a reader keeps of each value of a dictionary, of which an empty one takes four in the page.
const DICTIONARY_VALUE_BYTES: u64 = 32;

/// Bytes that a reader keeps of each value of a page in one of the delta encodings.
const DELTA_VALUE_BYTES: u64 = 8;

/// A byte of deflate becomes at most so many, one of lz4 so many.
const MAX_DEFLATE_RATIO: u64 = 1032;
const MAX_LZ4_RATIO: u64 = 255;

/// Headers are longer only if they are damaged.
const MAX_HEADER_BYTES: u64 = 16 << 20;

/// Structs and lists in a header, within each other; deeper ones are damage.
const MAX_DEPTH: u32 = 16;

/// The most bytes of a page, once decompressed, where records of `max_record` bytes are read.
pub(super) fn max_page_bytes(max_record: u64) -> u64 {
    // The value's length and the levels come on top of the text.
    max_record.saturating_add(1 << 20).max(MIN_PAGE_BYTES)
}

/// The most bytes of a footer: a reader keeps some twenty times as many.
pub(super) fn max_footer_bytes(max_record: u64) -> u64 {
    (max_record / 16).clamp(16 << 20, 256 << 20)
}

/// Checks the pages of a column of a row group; returns the bytes of the largest one.
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
        if let Compression::GZIP(_) = column.compression()
            && header.compressed.saturating_mul(MAX_DEFLATE_RATIO) > max_page
        {
            check_gzip(path, file, start, header.compressed, n_page)?;
        }
        if matches!(column.compression(), Compression::LZ4)
            && header.compressed.saturating_mul(MAX_LZ4_RATIO) > max_page
        {
            refuse_lz4_frame(path, file, start)?;
        }
        largest = largest.max(n_page);
        at = next;
    }
    Ok(largest)
}

/// The library decompresses gzip up to its own end, not up to the length that the header says.
fn check_gzip(path: &Path, file: &File, start: u64, length: u64, n_page: u64) -> Result<()> {
    let packed = At { file, at: start }.take(length);
    let mut bytes = flate2::read::MultiGzDecoder::new(packed).take(n_page + 1);
    // What fails here fails when the page is read, too, and is explained then.
    let n = io::copy(&mut bytes, &mut io::sink()).unwrap_or(0);
    if n > n_page {
        let what = format!("a page of more than {n_page} bytes, the length that its header says");
        return Err(Error::format(path, start, what));
    }
    Ok(())
}

/// As gzip: the frames that old writers made say nothing of their length. Theirs were of small pages.
fn refuse_lz4_frame(path: &Path, file: &File, start: u64) -> Result<()> {
    let mut magic = [0; 4];
    let is_frame = file.read_exact_at(&mut magic, start).is_ok() && magic == [4, 0x22, 0x4D, 0x18];
    if is_frame {
        let what = "a large page in the framed kind of LZ4, whose length is not known before";
        return Err(Error::format(path, start, what));
    }
    Ok(())
}

struct At<'a> {
    file: &'a File,
    at: u64,
}

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read_at(buffer, self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

/// What a page's header says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Header {
    /// Bytes of the page once decompressed.
    decompressed: u64,
    /// Bytes of the page in the file, without the header.
    compressed: u64,
    /// Values of a dictionary, if the page is one.
    n_dictionary: Option<u64>,
}

impl Header {
    /// Bytes that the page takes in memory, or what is wrong with it.
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
                "a dictionary of {n_values} values in {n_page} bytes: each takes four at least"
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

/// The header of the page at a byte, and its length.
fn read_header(path: &Path, file: &File, at: u64, end: u64) -> Result<(Header, u64)> {
    let mut room = 1 << 10;
    loop {
        let mut bytes = vec![0; room.min(end - at) as usize];
        file.read_exact_at(&mut bytes, at)
            .map_err(|err| Error::io(path, err))?;
        let mut thrift = Thrift {
            bytes: &bytes,
            at: 0,
        };
        if let Some(header) = thrift.header() {
            return Ok((header, thrift.at as u64));
        }
        if room >= (end - at).min(MAX_HEADER_BYTES) {
            return Err(Error::format(
                path,
                at,
                "not parquet, or damaged: no page header",
            ));
        }
        room *= 16;
    }
}

/// Reads Thrift's compact protocol; `None` is damage, or that more bytes are needed.
struct Thrift<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Thrift<'_> {
    fn header(&mut self) -> Option<Header> {
        let mut header = Header::default();
        let (mut has_sizes, mut id) = ((false, false), 0);
        while let Some(kind) = self.field(&mut id)? {
            match (id, kind) {
                (2, 5) => (header.decompressed, has_sizes.0) = (self.size()?, true),
                (3, 5) => (header.compressed, has_sizes.1) = (self.size()?, true),
                (7, 12) => header.n_dictionary = Some(self.dictionary()?),
                _ => self.skip(kind, 0)?,
            }
        }
        (has_sizes == (true, true)).then_some(header)
    }

    /// The number of values in the header of a dictionary.
    fn dictionary(&mut self) -> Option<u64> {
        let (mut n_values, mut id) = (None, 0);
        while let Some(kind) = self.field(&mut id)? {
            match (id, kind) {
                (1, 5) => n_values = Some(self.size()?),
                _ => self.skip(kind, 0)?,
            }
        }
        n_values
    }

    /// The type of the next field, whose number is put into `id`; `None` inside after the last one.
    #[allow(clippy::option_option)] // outside: whether it could be read
    fn field(&mut self, id: &mut i64) -> Option<Option<u8>> {
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

    fn skip(&mut self, kind: u8, depth: u32) -> Option<()> {
        if depth == MAX_DEPTH {
            return None;
        }
        match kind {
            1 | 2 => Some(()), // a boolean is in the field's type
            3 => self.skip_bytes(1),
            4..=6 => self.varint().map(drop),
            7 => self.skip_bytes(8),
            8 => {
                let n = self.varint()?;
                self.skip_bytes(n)
            }
            9 | 10 => {
                let byte = self.byte()?;
                let n = match byte >> 4 {
                    15 => self.varint()?,
                    n => n.into(),
                };
                // Booleans in a list take a byte each.
                let kind = if byte & 0xF <= 2 { 3 } else { byte & 0xF };
                (0..n).try_for_each(|_| self.skip(kind, depth + 1))
            }
            12 => {
                let mut id = 0;
                while let Some(kind) = self.field(&mut id)? {
                    self.skip(kind, depth + 1)?;
                }
                Some(())
            }
            _ => None, // no header has maps
        }
    }

    fn skip_bytes(&mut self, n: u64) -> Option<()> {
        let end = self.at.checked_add(usize::try_from(n).ok()?)?;
        self.bytes.get(self.at..end)?;
        self.at = end;
        Some(())
    }

    /// A number that is not negative and of 32 bits, as sizes are.
    fn size(&mut self) -> Option<u64> {
        let size = self.signed()?;
        i32::try_from(size).ok()?;
        u64::try_from(size).ok()
    }

    fn signed(&mut self) -> Option<i64> {
        let n = self.varint()?;
        Some((n >> 1) as i64 ^ -((n & 1) as i64))
    }

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

/// Pages as another reader gives them, those refused whose values say that there are too many of them.
pub(super) struct CheckedPages {
    pub pages: Box<dyn PageReader>,
    pub max_def_level: i16,
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
        let most = (self.max_page / DELTA_VALUE_BYTES).min(page.num_values().into());
        let is_bounded = || {
            let mut at = self.values_start(page)?;
            let values = page.buffer();
            if page.encoding() == Encoding::DELTA_BYTE_ARRAY {
                at += delta_end(values.get(at..)?, most)?;
            }
            delta_end(values.get(at..)?, most)
        };
        match is_bounded() {
            Some(_) => Ok(()),
            None => Err(ParquetError::General(
                "a page whose values are not as many as it says".into(),
            )),
        }
    }

    /// Where the values of a page start, behind its levels; the columns read here repeat nothing.
    fn values_start(&self, page: &Page) -> Option<usize> {
        match page {
            Page::DataPageV2 {
                def_levels_byte_len,
                rep_levels_byte_len,
                ..
            } => usize::try_from(def_levels_byte_len.checked_add(*rep_levels_byte_len)?).ok(),
            Page::DataPage { .. } if self.max_def_level == 0 => Some(0),
            Page::DataPage {
                buf,
                num_values,
                def_level_encoding,
                ..
            } => match def_level_encoding {
                Encoding::RLE => {
                    let length = u32::from_le_bytes(*buf.first_chunk()?);
                    usize::try_from(length).ok()?.checked_add(4)
                }
                _ => {
                    let n_bits = u64::from(*num_values) * u64::from(self.max_def_level.ilog2() + 1);
                    usize::try_from(n_bits.div_ceil(8)).ok()
                }
            },
            Page::DictionaryPage { .. } => None,
        }
    }
}

/// Where numbers in the encoding DELTA_BINARY_PACKED end, if they are at most so many.
fn delta_end(bytes: &[u8], most: u64) -> Option<usize> {
    let mut header = Thrift { bytes, at: 0 };
    let (block, n_runs, n) = (header.varint()?, header.varint()?, header.varint()?);
    header.varint()?; // the first number
    let run = block.checked_div(n_runs)?;
    if n > most || run == 0 {
        return None;
    }
    let mut left = n.saturating_sub(1);
    while left > 0 {
        header.varint()?; // the smallest difference
        let widths = header.at;
        header.skip_bytes(n_runs)?;
        for width in &bytes[widths..header.at] {
            if left > 0 {
                header.skip_bytes(u64::from(*width).checked_mul(run)? / 8)?;
                left = left.saturating_sub(run);
            }
        }
    }
    Some(header.at)
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

    fn varint(mut n: u64, out: &mut Vec<u8>) {
        while n >= 0x80 {
            out.push(n as u8 | 0x80);
            n >>= 7;
        }
        out.push(n as u8);
    }

    /// A header with a field that is to be skipped, a string in a struct in a list.
    fn header(decompressed: i32, compressed: i32, n_dictionary: Option<i32>) -> Vec<u8> {
        let size = |n: i32, out: &mut Vec<u8>| varint(((n << 1) ^ (n >> 31)) as u32 as u64, out);
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

    fn read(bytes: &[u8]) -> Option<Header> {
        Thrift { bytes, at: 0 }.header()
    }

    #[test]
    fn headers_are_read_whole_or_not_at_all() {
        let bytes = header(1 << 20, 999, Some(7));
        let expected = Header {
            decompressed: 1 << 20,
            compressed: 999,
            n_dictionary: Some(7),
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
    fn what_a_header_claims_is_bounded() {
        let check = |decompressed, n_dictionary| {
            let header = read(&header(decompressed, 100, n_dictionary)).unwrap();
            header.check(Compression::SNAPPY, max_page_bytes(1_000_000))
        };
        assert_eq!(check(128 << 20, None), Ok(128 << 20));
        assert!(check((128 << 20) + 1, None).is_err());
        assert!(check(i32::MAX, None).is_err());
        assert_eq!(check(400, Some(100)), Ok(400));
        assert!(check(400, Some(101)).is_err());
        // Empty strings take four bytes in a page, and more in memory.
        assert!(check(128 << 20, Some(32 << 20)).is_err());
        assert_eq!(max_page_bytes(1 << 30), (1 << 30) + (1 << 20));
    }

    #[test]
    fn gzip_is_not_decompressed_beyond_what_a_header_says() {
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

    /// Numbers in the encoding, all the same, in blocks of 128 with 4 runs.
    fn delta(n: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        for field in [128, 4, n, 2] {
            varint(field, &mut bytes);
        }
        for _ in 0..n.saturating_sub(1).div_ceil(128) {
            bytes.extend([0, 0, 0, 0, 0]);
        }
        bytes
    }

    #[test]
    fn the_values_of_a_delta_encoding_are_counted_before_there_is_room_for_them() {
        for n in [0, 1, 2, 128, 129, 130, 5000] {
            let bytes = delta(n);
            assert_eq!(delta_end(&bytes, n), Some(bytes.len()), "{n}");
            assert_eq!(delta_end(&bytes, n.saturating_sub(1)).is_some(), n == 0);
        }
        let claim = |fields: [u64; 4]| {
            let mut bytes = Vec::new();
            fields.iter().for_each(|n| varint(*n, &mut bytes));
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
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = (read(&bytes), delta_end(&bytes, 1 << 20));
        }
    }
}
