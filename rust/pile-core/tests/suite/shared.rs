//! Finds the golden data, which lie beside the checkout and are not part of it.
#![allow(dead_code, clippy::print_stderr, unreachable_pub)]

use std::{env, path::Path, path::PathBuf};

/// The folder with corpora and golden data, or `None`, said why, where it is absent.
pub fn folder() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let folder = env::var_os("PILE_TOOLS_SHARED").map_or(beside, PathBuf::from);
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!(
        "skipped: no golden data at {}; PILE_TOOLS_SHARED names the folder",
        folder.display()
    );
    None
}

/// A folder of golden data.
pub fn golden(name: &str) -> Option<PathBuf> {
    folder().map(|folder| folder.join("golden").join(name))
}
