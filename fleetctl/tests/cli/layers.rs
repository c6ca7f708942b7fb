//! Which file of fleetctl uses which: never in a circle, so that each can be read after those that
//! it stands on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What each module uses, by its path from the crate's root.
type Uses = BTreeMap<String, BTreeSet<String>>;

/// The files below `src`, as module paths, with their texts.
fn modules(src: &Path) -> BTreeMap<String, String> {
    let mut modules = BTreeMap::new();
    let mut folders = vec![src.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("read"))
        {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(src).expect("below it").with_extension("");
            let name = name.display().to_string().replace('/', "::");
            let name = name.strip_suffix("::mod").map(str::to_string).unwrap_or(name);
            // The crate's own roots use everything, and nothing uses them.
            if name != "lib" && name != "main" {
                modules.insert(name, std::fs::read_to_string(&path).expect("a source file"));
            }
        }
    }
    modules
}

/// The modules that a text names by `crate::`, `super::` or `self::`, and those that it declares.
/// Its tests may use what they like.
fn used(name: &str, text: &str, modules: &BTreeMap<String, String>) -> BTreeSet<String> {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let code: String = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .map(|line| format!("{line}\n"))
        .collect();
    let parent = name.rsplit_once("::").map_or("", |(parent, _)| parent);
    let within = |module: &str, word: &str| match module {
        "" => word.to_string(),
        module => format!("{module}::{word}"),
    };
    let mut used = BTreeSet::new();
    for (start, base) in [("crate::", ""), ("super::", parent), ("self::", name), ("mod ", name)] {
        for (at, _) in code.match_indices(start) {
            for path in paths(&code[at + start.len()..]) {
                // The longest beginning of the path that is a file.
                let whole = within(base, &path);
                let mut file = whole.as_str();
                while !modules.contains_key(file) {
                    let Some((shorter, _)) = file.rsplit_once("::") else { break };
                    file = shorter;
                }
                if modules.contains_key(file) && file != name {
                    used.insert(file.to_string());
                }
            }
        }
    }
    used
}

/// `a::b` of `a::b;`, and `a`, `b` of `{a, b::{c, d}};`: one level is enough to find a file.
fn paths(rest: &str) -> Vec<String> {
    let word = |text: &str| -> String {
        let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
        text[..end.unwrap_or(text.len())].trim_end_matches(':').to_string()
    };
    match rest.strip_prefix('{') {
        None => vec![word(rest)],
        Some(list) => {
            let list = list.split("};").next().unwrap_or_default();
            list.split([',', '{', '}']).map(|item| word(item.trim())).collect()
        }
    }
}

/// A circle, if there is one: each uses the next, and the last the first.
fn circle(uses: &Uses) -> Option<Vec<String>> {
    fn walk(at: &str, uses: &Uses, way: &mut Vec<String>, done: &mut BTreeSet<String>) -> bool {
        if let Some(start) = way.iter().position(|name| name == at) {
            way.drain(..start);
            return true;
        }
        if !done.contains(at) {
            way.push(at.to_string());
            if uses.get(at).into_iter().flatten().any(|next| walk(next, uses, way, done)) {
                return true;
            }
            way.pop();
            done.insert(at.to_string());
        }
        false
    }
    let mut done = BTreeSet::new();
    uses.keys().find_map(|start| {
        let mut way = Vec::new();
        walk(start, uses, &mut way, &mut done).then_some(way)
    })
}

#[test]
fn no_file_uses_one_that_uses_it() {
    let modules = modules(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let uses: Uses =
        modules.iter().map(|(name, text)| (name.clone(), used(name, text, &modules))).collect();
    assert!(uses["cmd::start"].contains("cmd::activate"), "{uses:?}");
    assert!(uses["cmd"].contains("cmd::start") && uses["client"].contains("error"), "{uses:?}");
    assert_eq!(circle(&uses), None);
}

#[test]
fn a_circle_is_found() {
    let text = |uses: &str| uses.to_string();
    let modules = BTreeMap::from([
        ("a".to_string(), text("use crate::{b, d::x};")),
        ("b".to_string(), text("mod c;\nuse self::c::Y;")),
        ("b::c".to_string(), text("use super::super::nothing;\nuse crate::a::Z;")),
        ("d".to_string(), text("// use crate::a;\n#[cfg(test)]\nmod tests {\n use crate::a;\n}")),
    ]);
    let uses: Uses =
        modules.iter().map(|(name, text)| (name.clone(), used(name, text, &modules))).collect();
    assert_eq!(circle(&uses), Some(["a", "b", "b::c"].map(str::to_string).to_vec()));
}
