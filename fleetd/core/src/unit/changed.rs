//! What is other in a text than in the one before it, in a line: `ExecStart=, +Environment=; 3
//! lines`.

use std::collections::{BTreeMap, BTreeSet};

use super::file::{UnitFile, UnitOption};
use super::xfleet;

/// How many options one line names.
const NAMED: usize = 6;

/// The longest name that is shown whole, in characters.
const LONGEST_NAME: usize = 40;

/// The options that differ, `+` before those that are new and `-` before those that went, and how
/// many lines differ. Empty if nothing does.
pub fn changed(old: &str, new: &str) -> String {
    if old == new {
        return String::new();
    }
    let (before, after) = (UnitFile::parse_lenient(old), UnitFile::parse_lenient(new));
    let mut named = BTreeSet::new();
    let mut words: Vec<String> = Vec::new();
    let (was, is) = (values(&before), values(&after));
    for UnitOption { section, name, .. } in after.options.iter().chain(&before.options) {
        let option = (section.as_str(), name.as_str());
        if !named.insert(option) || was.get(&option) == is.get(&option) {
            continue;
        }
        let mark = match (was.contains_key(&option), is.contains_key(&option)) {
            (false, _) => "+",
            (_, false) => "-",
            _ => "",
        };
        words.push(match option {
            (xfleet::SECTION, "Bundle") => "files".to_string(), // fleetctl writes that option
            _ => format!("{mark}{}=", shortened(name)),
        });
    }
    let more = words.len().saturating_sub(NAMED);
    words.truncate(NAMED);
    words.extend((more > 0).then(|| format!("{more} more")));
    let what = match words.is_empty() {
        false => words.join(", "),
        true if before.normalised() == after.normalised() => "comments".to_string(),
        true => "order".to_string(),
    };
    match lines(old, new) {
        0 => what,
        1 => format!("{what}; 1 line"),
        n => format!("{what}; {n} lines"),
    }
}

/// The values of each option, by section and name.
fn values(file: &UnitFile) -> BTreeMap<(&str, &str), Vec<&str>> {
    let mut values: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for UnitOption { section, name, value } in &file.options {
        values.entry((section, name)).or_default().push(value);
    }
    values
}

fn shortened(name: &str) -> String {
    match name.char_indices().nth(LONGEST_NAME) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_string(),
    }
}

/// How many lines one has and the other has not, on the side where they are more.
fn lines(old: &str, new: &str) -> usize {
    let mut counts: BTreeMap<&str, i64> = BTreeMap::new();
    new.lines().for_each(|line| *counts.entry(line).or_default() += 1);
    old.lines().for_each(|line| *counts.entry(line).or_default() -= 1);
    let sum = |sign: i64| counts.values().map(|count| (count * sign).max(0) as usize).sum();
    usize::max(sum(1), sum(-1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "# web\n[Unit]\nAfter=a.service\n[Service]\nExecStart=/bin/a\n\
        ExecStartPre=/bin/b\n[X-Fleet]\nGlobal=yes\n";

    fn to(new: &str) -> String {
        changed(OLD, new)
    }

    #[test]
    fn options_that_differ_are_named_with_how() {
        assert_eq!(to(OLD), "");
        assert_eq!(to(&OLD.replace("/bin/a", "/bin/c")), "ExecStart=; 1 line");
        assert_eq!(
            to("# web\n[Unit]\nAfter=a.service\n[Service]\nExecStart=/bin/c\nEnvironment=A=1\n"),
            "ExecStart=, +Environment=, -ExecStartPre=, -Global=; 4 lines"
        );
        // One more of the same name is a change of it.
        let twice = OLD.replace("ExecStart=/bin/a", "ExecStart=/bin/a\nExecStart=/bin/c");
        assert_eq!(to(&twice), "ExecStart=; 1 line");
    }

    #[test]
    fn what_changes_no_option_is_told_too() {
        assert_eq!(to(&OLD.replace("# web", "# the web")), "comments; 1 line");
        let swapped = "# web\n[Unit]\nAfter=a.service\n[Service]\nExecStartPre=/bin/b\n\
            ExecStart=/bin/a\n[X-Fleet]\nGlobal=yes\n";
        assert_eq!(to(swapped), "order");
    }

    #[test]
    fn a_line_stays_a_line() {
        let many: String = (0..50).map(|n| format!("Option{n}=1\n")).collect();
        let line = to(&format!("{OLD}[Service]\n{many}X{}=1\n", "y".repeat(500)));
        assert_eq!(
            line,
            "+Option0=, +Option1=, +Option2=, +Option3=, +Option4=, +Option5=, 45 more; 52 lines"
        );
        assert!(changed("", &format!("[S]\n{}=1\n", "y".repeat(500))).len() < 100);
    }

    #[test]
    fn files_that_come_along_are_called_files() {
        let with = |sum: &str| format!("{OLD}Bundle=shop/{sum}\n");
        let line = changed(&with(&"a".repeat(64)), &with(&"b".repeat(64)));
        assert_eq!(line, "files; 1 line");
    }
}
