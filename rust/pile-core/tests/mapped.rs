//! Files that become shorter while they are mapped.
//!
//! In a process of its own: the registry of mapped files belongs to the process, and every job that finds a
//! file of it shorter fails, also one of another test.
#![allow(clippy::unwrap_used)]

use std::fs;

use pile_core::io::{Mapped, check_mapped};

#[test]
fn a_file_that_became_shorter_is_named_while_it_is_mapped_and_after() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    fs::write(&path, "whole").unwrap();
    let mapped = Mapped::open(&path).unwrap();
    fs::write(folder.path().join("b"), "new").unwrap();
    fs::rename(folder.path().join("b"), &path).unwrap();
    check_mapped().expect("a replaced file is whole as long as it is mapped");
    drop(mapped);
    let mapped = Mapped::open(&path).unwrap();
    fs::write(&path, "ne").unwrap();
    let names_it = || {
        let err = check_mapped().expect_err("the file is shorter");
        assert!(err.to_string().contains(&*path.to_string_lossy()), "{err}");
        assert!(err.to_string().contains("became shorter"), "{err}");
    };
    names_it();
    drop(mapped);
    names_it();
    check_mapped().expect("it is named once");
}
