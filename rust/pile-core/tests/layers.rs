//! Rooms of the core are used only downward: see `pile_core::ROOMS`.
#![allow(clippy::unwrap_used)]

use std::{fs, path::Path};

/// Names after `crate::` in `source`, grouped imports included.
fn rooms_used(source: &str) -> Vec<String> {
    let mut used = Vec::new();
    for (at, _) in source.match_indices("crate::") {
        let rest = &source[at + "crate::".len()..];
        let names: Vec<&str> = match rest.strip_prefix('{') {
            Some(group) => top_level(group),
            None => vec![rest],
        };
        for name in names {
            let end = name
                .find(|c: char| !(c.is_alphanumeric() || c == '_'))
                .unwrap_or(name.len());
            used.push(name[..end].to_owned());
        }
    }
    used
}

/// The comma-separated items of an import group, nested groups left whole.
fn top_level(group: &str) -> Vec<&str> {
    let (mut items, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                items.push(group[start..at].trim());
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                items.push(group[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    items
}

fn check(path: &Path, room: usize, violations: &mut Vec<String>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            check(&entry.unwrap().path(), room, violations);
        }
    } else if path.extension().is_some_and(|e| e == "rs") {
        for used in rooms_used(&fs::read_to_string(path).unwrap()) {
            let above = pile_core::ROOMS.iter().position(|r| *r == used);
            if above.is_some_and(|above| above > room) {
                violations.push(format!("{} uses {used}", path.display()));
            }
        }
    }
}

#[test]
fn rooms_use_only_rooms_before_them() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut violations = Vec::new();
    for (room, name) in pile_core::ROOMS.iter().enumerate() {
        let file = src.join(format!("{name}.rs"));
        let path = if file.exists() { file } else { src.join(name) };
        assert!(path.exists(), "no such room: {name}");
        check(&path, room, &mut violations);
    }
    assert!(violations.is_empty(), "{violations:#?}");
}

#[test]
fn every_module_is_a_room() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for entry in fs::read_dir(src).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        assert!(
            name == "lib" || pile_core::ROOMS.contains(&name.as_str()),
            "{name} is not listed in ROOMS"
        );
    }
}

#[test]
fn grouped_imports_are_seen() {
    assert_eq!(
        rooms_used("use crate::{Error, tokens::{A, B}, order::C};"),
        ["Error", "tokens", "order"]
    );
}
