//! numpy's `.npy` format, version 1.0: writing as `np.save` does, and memory-mapped reading. Only the element
//! types in which GPT-NeoX and Megatron-LM store the arrays of an order.

use std::{io, io::Write, marker::PhantomData, path::Path};

use crate::{Error, Result, io::Mapped};

const MAGIC: &[u8; 8] = b"\x93NUMPY\x01\x00";

/// An element type of the arrays.
pub trait Element: bytemuck::Pod {
    /// numpy's name of the type, with its byte order.
    const DESCR: &'static str;
}

impl Element for u8 {
    const DESCR: &'static str = "|u1";
}
impl Element for i32 {
    const DESCR: &'static str = "<i4";
}
impl Element for u32 {
    const DESCR: &'static str = "<u4";
}
impl Element for i64 {
    const DESCR: &'static str = "<i8";
}

/// Writes a C-order array; `width`, at least 1, is the length of its rows, 1 for a one-dimensional array.
///
/// # Errors
/// What the writer reports.
pub fn write<T: Element>(out: &mut impl Write, items: &[T], width: usize) -> io::Result<()> {
    let rows = items.len() / width;
    let shape = if width == 1 {
        format!("({rows},)")
    } else {
        format!("({rows}, {width})")
    };
    let mut header = format!(
        "{{'descr': '{}', 'fortran_order': False, 'shape': {shape}, }}",
        T::DESCR
    );
    // numpy pads as if the first axis had 21 digits, so that the header can be rewritten as the array grows,
    // and then to a multiple of 64.
    header.push_str(&" ".repeat(21 - rows.to_string().len()));
    let unpadded = MAGIC.len() + 2 + header.len() + 1;
    header.push_str(&" ".repeat(unpadded.next_multiple_of(64) - unpadded));
    header.push('\n');
    out.write_all(MAGIC)?;
    out.write_all(&(header.len() as u16).to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    out.write_all(bytemuck::cast_slice(items))
}

/// Returns numpy's name of the element type of a file.
///
/// # Errors
/// As [`Array::open`].
pub fn descr(path: &Path) -> Result<String> {
    Ok(NpyHeader::read(&Mapped::open(path)?)?.descr)
}

struct NpyHeader {
    descr: String,
    shape: Vec<u64>,
    data_start: u64,
}

impl NpyHeader {
    fn read(file: &Mapped) -> Result<Self> {
        if file.slice(0, 8)? != MAGIC {
            return Err(Error::format(
                file.path(),
                0,
                "not a .npy file of version 1.0",
            ));
        }
        let length = file.slice(8, 2)?;
        let length = u64::from(u16::from_le_bytes([length[0], length[1]]));
        let text = String::from_utf8_lossy(file.slice(10, length)?).into_owned();
        let wrong = || {
            Error::format(
                file.path(),
                10,
                format!("header {:?} is not one np.save writes", text.trim()),
            )
        };
        let value = |key: &str| {
            text.split_once(&format!("'{key}':"))
                .map(|(_, rest)| rest.trim_start())
        };
        let descr = value("descr")
            .and_then(|v| v.strip_prefix('\''))
            .and_then(|v| v.split('\'').next());
        let shape = value("shape")
            .and_then(|v| v.strip_prefix('('))
            .and_then(|v| v.split(')').next());
        let (Some(descr), Some(shape), true) = (
            descr,
            shape,
            value("fortran_order").is_some_and(|v| v.starts_with("False")),
        ) else {
            return Err(wrong());
        };
        let axes = shape
            .split(',')
            .map(str::trim)
            .filter(|axis| !axis.is_empty());
        let shape = axes
            .map(str::parse)
            .collect::<std::result::Result<_, _>>()
            .map_err(|_| wrong())?;
        Ok(Self {
            descr: descr.to_owned(),
            shape,
            data_start: 10 + length,
        })
    }
}

/// A memory-mapped array of rows of `width` elements each.
#[derive(Debug)]
pub struct Array<T> {
    file: Mapped,
    data_start: usize,
    n_rows: u64,
    width: u64,
    element: PhantomData<T>,
}

impl<T: Element> Array<T> {
    /// Opens a file. Its element type and row length must be the expected ones, and its size must match its shape.
    ///
    /// # Errors
    /// The file cannot be read or is another kind of array.
    pub fn open(path: &Path, width: u64) -> Result<Self> {
        let file = Mapped::open(path)?;
        let header = NpyHeader::read(&file)?;
        let fits = match header.shape.as_slice() {
            [_] => width == 1,
            [_, columns] => *columns == width && width != 1,
            _ => false,
        };
        if header.descr != T::DESCR || !fits {
            let what = format!(
                "an array of type {} and shape {:?}, expected {} in rows of {width}",
                header.descr,
                header.shape,
                T::DESCR
            );
            return Err(Error::format(path, 10, what));
        }
        let n_rows = header.shape[0];
        let data_bytes = n_rows
            .checked_mul(width)
            .and_then(|n| n.checked_mul(size_of::<T>() as u64));
        if data_bytes.and_then(|n| n.checked_add(header.data_start))
            != Some(file.bytes().len() as u64)
        {
            let what = format!(
                "{n_rows} rows of {width} {} do not fit a file of {} bytes: it is truncated or damaged",
                T::DESCR,
                file.bytes().len()
            );
            return Err(Error::format(path, 10, what));
        }
        if bytemuck::try_cast_slice::<u8, T>(&file.bytes()[header.data_start as usize..]).is_err() {
            return Err(Error::format(
                path,
                header.data_start,
                "the data are not aligned as np.save aligns them",
            ));
        }
        Ok(Self {
            file,
            data_start: header.data_start as usize,
            n_rows,
            width,
            element: PhantomData,
        })
    }

    /// All elements, row after row.
    #[must_use]
    pub fn items(&self) -> &[T] {
        bytemuck::cast_slice(&self.file.bytes()[self.data_start..])
    }

    /// Number of rows; of elements in a one-dimensional array.
    #[must_use]
    pub fn n_rows(&self) -> u64 {
        self.n_rows
    }

    /// Path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Row `i`; `None` past the last row.
    #[must_use]
    pub fn row(&self, i: u64) -> Option<&[T]> {
        let start = usize::try_from(i.checked_mul(self.width)?).ok()?;
        self.items()
            .get(start..start.checked_add(self.width as usize)?)
    }
}

/// An array in memory, of any element type.
#[derive(Debug, PartialEq, Eq)]
pub enum Numbers {
    /// `uint8`.
    U8(Vec<u8>),
    /// `int32`.
    I32(Vec<i32>),
    /// `uint32`.
    U32(Vec<u32>),
    /// `int64`.
    I64(Vec<i64>),
}

impl Numbers {
    /// Writes the array: see [`write`].
    ///
    /// # Errors
    /// What the writer reports.
    pub fn write(&self, out: &mut impl Write, width: usize) -> io::Result<()> {
        match self {
            Self::U8(items) => write(out, items, width),
            Self::I32(items) => write(out, items, width),
            Self::U32(items) => write(out, items, width),
            Self::I64(items) => write(out, items, width),
        }
    }

    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::U8(items) => items.len(),
            Self::I32(items) => items.len(),
            Self::U32(items) => items.len(),
            Self::I64(items) => items.len(),
        }
    }

    /// Whether the array has no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A memory-mapped array of any element type.
#[derive(Debug)]
pub enum AnyArray {
    /// `uint8`.
    U8(Array<u8>),
    /// `int32`.
    I32(Array<i32>),
    /// `uint32`.
    U32(Array<u32>),
    /// `int64`.
    I64(Array<i64>),
}

impl AnyArray {
    /// Opens a file of any of these element types: see [`Array::open`].
    ///
    /// # Errors
    /// The file cannot be read or is another kind of array.
    pub fn open(path: &Path, width: u64) -> Result<Self> {
        Ok(match descr(path)?.as_str() {
            "|u1" => Self::U8(Array::open(path, width)?),
            "<i4" => Self::I32(Array::open(path, width)?),
            "<u4" => Self::U32(Array::open(path, width)?),
            "<i8" => Self::I64(Array::open(path, width)?),
            other => {
                let what =
                    format!("an array of type {other}, expected one of |u1, <i4, <u4 and <i8");
                return Err(Error::format(path, 10, what));
            }
        })
    }

    /// Number of rows; of elements in a one-dimensional array.
    #[must_use]
    pub fn n_rows(&self) -> u64 {
        match self {
            Self::U8(array) => array.n_rows(),
            Self::I32(array) => array.n_rows(),
            Self::U32(array) => array.n_rows(),
            Self::I64(array) => array.n_rows(),
        }
    }

    /// Path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::U8(array) => array.path(),
            Self::I32(array) => array.path(),
            Self::U32(array) => array.path(),
            Self::I64(array) => array.path(),
        }
    }

    /// A column of row `i`; `None` past the last row or if the value is negative.
    #[must_use]
    pub fn get(&self, i: u64, column: usize) -> Option<u64> {
        u64::try_from(self.get_signed(i, column)?).ok()
    }

    /// A column of row `i`, below the row length; `None` past the last row.
    #[must_use]
    pub fn get_signed(&self, i: u64, column: usize) -> Option<i64> {
        match self {
            Self::U8(array) => array.row(i).map(|row| i64::from(row[column])),
            Self::I32(array) => array.row(i).map(|row| i64::from(row[column])),
            Self::U32(array) => array.row(i).map(|row| i64::from(row[column])),
            Self::I64(array) => array.row(i).map(|row| row[column]),
        }
    }
}
