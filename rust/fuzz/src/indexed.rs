//! A small dataset with its index.

use std::{fs, path::PathBuf, sync::Arc};

use pile_core::{
    progress::Progress,
    search::build,
    tokens::{TokenDataset, TokenType, write_idx},
};

use crate::{file, path};

/// Documents of the dataset. They end with different ids, so the index stores where documents end.
pub const DOCUMENTS: [&[u16]; 4] = [&[1, 2, 3, 1, 2], &[], &[2, 3, 2, 3, 9], &[7]];

/// The dataset, and the folder of its index.
#[must_use]
pub fn indexed() -> (Arc<TokenDataset>, PathBuf) {
    let lengths = DOCUMENTS.map(|document| document.len() as i32);
    let mut idx = Vec::new();
    write_idx(&mut idx, TokenType::U16, &lengths).expect("a write to memory succeeds");
    let _ = file("i.idx", &idx);
    let bytes: Vec<u8> = DOCUMENTS
        .concat()
        .iter()
        .flat_map(|id| id.to_le_bytes())
        .collect();
    let bin = file("i.bin", &bytes);
    let dataset =
        TokenDataset::open(&bin.with_file_name("i")).expect("the dataset was just written");
    let folder = path("i.index");
    fs::create_dir_all(&folder).expect("the folder can be created");
    build(&dataset, None, &folder, 1 << 20, &Progress::default()).expect("the index can be built");
    (Arc::new(dataset), folder)
}
