//! A small dataset with its index.

use std::{fs, path::PathBuf, sync::Arc};

use pile_core::{
    progress::Progress,
    search::build,
    tokens::{TokenDataset, TokenType, write_idx},
};

use crate::{file, path};

/// Documents of the dataset; the last tokens of the first two end nothing else.
pub const DOCUMENTS: [&[u16]; 4] = [&[1, 2, 3, 1, 2], &[], &[2, 3, 2, 3, 9], &[7]];

/// The dataset, and the folder of its index.
#[must_use]
pub fn indexed() -> (Arc<TokenDataset>, PathBuf) {
    let lengths = DOCUMENTS.map(|document| document.len() as i32);
    let mut idx = Vec::new();
    write_idx(&mut idx, TokenType::U16, &lengths).expect("in memory");
    let _ = file("i.idx", &idx);
    let bytes: Vec<u8> = DOCUMENTS
        .concat()
        .iter()
        .flat_map(|id| id.to_le_bytes())
        .collect();
    let bin = file("i.bin", &bytes);
    let dataset = TokenDataset::open(&bin.with_file_name("i")).expect("it was written now");
    let folder = path("i.index");
    fs::create_dir_all(&folder).expect("room for a folder");
    build(&dataset, None, &folder, 1 << 20, &Progress::default()).expect("it is small");
    (Arc::new(dataset), folder)
}
