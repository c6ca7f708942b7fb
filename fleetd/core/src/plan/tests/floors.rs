//! The planner's floors: no file of it reads one that reads it, by however many others.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What a module reads, by name: `rank::loads` for `plan/rank/loads.rs`, and an empty name for
/// `plan.rs`.
type Imports = BTreeMap<String, BTreeSet<String>>;

#[test]
fn the_planners_files_read_only_those_below_them() {
    let texts = texts();
    assert!(texts.len() > 20, "only {} files were found: is this the planner?", texts.len());
    let imports = imports(&texts);
    let found = circle(imports.clone());
    assert!(
        found.is_empty(),
        "these files of plan/ read each other in a circle; take what both need a floor down: \
         {found:#?}"
    );
}

#[test]
fn a_file_that_reads_upwards_is_found() {
    let texts = BTreeMap::from([
        (String::new(), "use board::{Board, seats};".to_string()),
        (
            "board".to_string(),
            "use super::{fit::{self, Reasons}, slot};\n//! use x::y;".to_string(),
        ),
        ("board::seats".to_string(), "use super::Board;".to_string()),
        ("fit".to_string(), "use crate::plan::rank;".to_string()),
        ("rank".to_string(), "use super::{\n    board::{Board},\n};".to_string()),
        ("slot".to_string(), String::new()),
    ]);
    let found: Vec<String> = circle(imports(&texts)).into_keys().collect();
    assert_eq!(found, ["", "board", "board::seats", "fit", "rank"]);
}

/// The texts of all files but those of tests.
fn texts() -> BTreeMap<String, String> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/plan");
    let mut texts = BTreeMap::from([(String::new(), read(&top.with_extension("rs")))]);
    let mut folders = vec![(top, String::new())];
    while let Some((folder, within)) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let stem = path.file_stem().unwrap().to_str().unwrap();
            if within.is_empty() && ["tests", "properties", "script"].contains(&stem) {
                continue;
            }
            let name = format!("{within}{stem}");
            match path.is_dir() {
                true => folders.push((path, format!("{name}::"))),
                false => drop(texts.insert(name, read(&path))),
            }
        }
    }
    texts
}

#[expect(clippy::disallowed_methods, reason = "what is tested is the source")]
fn read(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    text.split("#[cfg(test)]\nmod tests {").next().unwrap().to_string()
}

fn imports(texts: &BTreeMap<String, String>) -> Imports {
    let known = |path: &str| -> Option<String> {
        let names: Vec<&str> = path.split("::").collect();
        let starts = (0..=names.len()).rev().map(|many| names[..many].join("::"));
        starts.into_iter().find(|name| texts.contains_key(name))
    };
    let of = |(name, text): (&String, &String)| {
        let mut read = BTreeSet::new();
        let code: Vec<&str> =
            text.lines().map(str::trim).filter(|line| !line.starts_with("//")).collect();
        for statement in code.join(" ").split(';') {
            let words = statement.trim().trim_start_matches("pub ");
            let Some(tree) = words.strip_prefix("use ") else { continue };
            read.extend(flat(tree).iter().filter_map(|path| known(&resolved(name, path)?)));
        }
        read.remove(name);
        (name.clone(), read)
    };
    texts.iter().map(of).collect()
}

/// A path as `plan.rs` would write it; `None` if it leads out of the planner.
fn resolved(name: &str, path: &str) -> Option<String> {
    if let Some(inner) = path.strip_prefix("crate::plan::") {
        return Some(inner.to_string());
    }
    let mut here: Vec<&str> = name.split("::").filter(|part| !part.is_empty()).collect();
    let mut rest = path;
    while let Some(inner) = rest.strip_prefix("super::") {
        rest = inner;
        here.pop()?;
    }
    // What names no parent is a child or another crate's; `plan.rs` reads its children.
    (rest.len() < path.len() || here.is_empty())
        .then(|| here.into_iter().chain([rest]).collect::<Vec<_>>().join("::"))
}

/// The paths of a tree of them: `a::{b, c::{d, e}}` is `a::b`, `a::c::d` and `a::c::e`.
fn flat(tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((head, inner)) = tree.split_once('{') else { return vec![tree.to_string()] };
    let inner = inner.trim_end().strip_suffix('}').unwrap();
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (at, letter) in inner.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&inner[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&inner[start..]);
    let named = parts.into_iter().filter(|part| !part.trim().is_empty());
    named.flat_map(flat).map(|path| format!("{head}{path}").replace("::self", "")).collect()
}

/// What is left once all are taken away that read nothing that is left: nothing, without a circle.
fn circle(mut imports: Imports) -> Imports {
    loop {
        let done: Vec<String> = imports
            .iter()
            .filter(|(_, read)| !read.iter().any(|name| imports.contains_key(name)))
            .map(|(name, _)| name.clone())
            .collect();
        if done.is_empty() {
            return imports;
        }
        done.iter().for_each(|name| drop(imports.remove(name)));
    }
}
