//! Checks that each layer of the core uses only the layers below it.
#![allow(clippy::unwrap_used)]

use std::{fs, path::Path};

/// The modules in the direction of the data flow. Each may use only the ones before it.
const LAYERS: [&str; 14] = [
    "error",
    "progress",
    "bytes",
    "text",
    "io",
    "read",
    "dedup",
    "tokenize",
    "tokens",
    "count",
    "search",
    "order",
    "timeline",
    "contamination",
];

/// The names after `crate::` in `source`, grouped imports included.
fn modules_used(source: &str) -> Vec<String> {
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

/// The comma-separated items of an import group. Nested groups are not split.
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

fn check(path: &Path, layer: usize, violations: &mut Vec<String>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            check(&entry.unwrap().path(), layer, violations);
        }
    } else if path.extension().is_some_and(|e| e == "rs") {
        for used in modules_used(&fs::read_to_string(path).unwrap()) {
            let used_layer = LAYERS.iter().position(|r| *r == used);
            if used_layer.is_some_and(|used_layer| used_layer > layer) {
                violations.push(format!("{} uses {used}", path.display()));
            }
        }
    }
}

#[test]
fn layers_use_only_layers_below_them() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut violations = Vec::new();
    for (layer, name) in LAYERS.iter().enumerate() {
        let file = src.join(format!("{name}.rs"));
        let path = if file.exists() { file } else { src.join(name) };
        assert!(path.exists(), "no such layer: {name}");
        check(&path, layer, &mut violations);
    }
    assert!(violations.is_empty(), "{violations:#?}");
}

#[test]
fn every_module_is_a_layer() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for entry in fs::read_dir(src).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        assert!(
            name == "lib" || LAYERS.contains(&name.as_str()),
            "{name} is not listed in LAYERS"
        );
    }
}

#[test]
fn grouped_imports_are_parsed() {
    assert_eq!(
        modules_used("use crate::{Error, tokens::{A, B}, order::C};"),
        ["Error", "tokens", "order"]
    );
}
