//! Combinations of `[X-Fleet]` options that can never work: in fleet 1.0's words and order, with
//! the lines that they stand on. And lists that are too long to be planned with.

use crate::glob;
use crate::max_unavailable::MaxUnavailable;
use crate::unit_file::{UnitFile, UnitFileError, UnitOption};
use crate::xfleet::{
    Constraints, MAX_LABELS, MAX_PATTERNS, MAX_SPECIFIERS, MAX_VALUE_BYTES, SECTION, unquote,
};

/// A longer value would hide what is said of it.
const LONGEST_SHOWN: usize = 60;

/// What contradicts what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contradiction {
    /// fleet 1.0's words.
    pub problem: String,
    /// The options that are in each other's way, by line; none where the file came without lines.
    pub options: Vec<UnitFileError>,
}

/// The first contradiction of a file; `None` when all is well.
pub fn contradiction(file: &UnitFile) -> Option<Contradiction> {
    if let Some(found) = too_long(file) {
        return Some(found);
    }
    let wants = Constraints::from_file(file);
    let (problem, parts) = clash(&wants)?;
    let mut options: Vec<UnitFileError> = parts.iter().filter_map(|part| part.find(file)).collect();
    options.sort_by_key(|option| option.line);
    Some(Contradiction { problem, options })
}

/// The first value beyond what planning takes: it asks every value of a list of every unit and
/// machine.
fn too_long(file: &UnitFile) -> Option<Contradiction> {
    let options =
        || file.options.iter().zip(&file.lines).filter(|(option, _)| option.section == SECTION);
    for (names, most, what) in [
        (["Conflicts", "X-Conflicts"], MAX_PATTERNS, "patterns"),
        (["Replaces", "Replaces"], MAX_PATTERNS, "patterns"),
        (["MachineOf", "X-ConditionMachineOf"], MAX_PATTERNS, "units"),
        (["MachineMetadata", "X-ConditionMachineMetadata"], MAX_LABELS, "labels"),
    ] {
        let hint = if what == "patterns" { "; one such as web-* stands for many" } else { "" };
        let mut count = 0;
        for (option, &line) in options().filter(|(option, _)| names.contains(&option.name.as_str()))
        {
            let values = unquote(&option.value);
            for value in values.iter().flat_map(|value| value.split_whitespace()) {
                count += 1;
                let excess = match () {
                    () if count > most => format!("more than {most} {what}{hint}"),
                    () if value.len() > MAX_VALUE_BYTES => {
                        format!("a value of {} bytes; the limit is {MAX_VALUE_BYTES}", value.len())
                    }
                    () if value.matches('%').count() > MAX_SPECIFIERS => {
                        format!("more than {MAX_SPECIFIERS} specifiers (%i, %n …) in one value")
                    }
                    () => continue,
                };
                let at = UnitFileError { line, problem: format!("{}=…", option.name) };
                let options = if line > 0 { vec![at] } else { Vec::new() };
                return Some(Contradiction {
                    problem: format!("{}= has {excess}", names[0]),
                    options,
                });
            }
        }
    }
    None
}

impl Constraints {
    /// The combinations that can never work, in fleet 1.0's words and order; `None` when all is
    /// well.
    pub fn contradiction(&self) -> Option<String> {
        clash(self).map(|(problem, _)| problem)
    }
}

/// One side of a contradiction: an option by fleet 1.0's word for it, and which of its values.
struct Part<'a> {
    word: &'static str,
    value: Option<&'a str>,
}

fn clash(wants: &Constraints) -> Option<(String, Vec<Part<'_>>)> {
    let whole = |word| Part { word, value: None };
    if let Some(MaxUnavailable::Unreadable(text)) = &wants.max_unavailable {
        let problem = format!(
            "invalid MaxUnavailable {text:?}: expect a number from 1, or a percentage from 1% to \
                100%"
        );
        return Some((problem, vec![whole("MaxUnavailable")]));
    }
    for (patterns, what, word) in
        [(&wants.conflicts, "conflict", "Conflicts"), (&wants.replaces, "replace", "Replaces")]
    {
        for peer in &wants.machine_of {
            if let Some(pattern) = patterns.iter().find(|pattern| glob::matches(pattern, peer)) {
                let problem = format!(
                    "unresolvable requirements: peer \"{peer}\" matches {what} \"{pattern}\""
                );
                return Some((
                    problem,
                    vec![
                        Part { word: "Peers", value: Some(peer) },
                        Part { word, value: Some(pattern) },
                    ],
                ));
            }
        }
    }
    let has = |word: &str| match word {
        "MachineID" => wants.machine_id.is_some(),
        "Peers" => !wants.machine_of.is_empty(),
        "Conflicts" => !wants.conflicts.is_empty(),
        "Global" => wants.global,
        _ => !wants.replaces.is_empty(),
    };
    let pairs = [
        ("MachineID", "Peers"),
        ("MachineID", "Conflicts"),
        ("MachineID", "Global"),
        ("MachineID", "Replaces"),
        ("Global", "Peers"),
        ("Global", "Replaces"),
        ("Conflicts", "Replaces"),
    ];
    let (one, other) = pairs.into_iter().find(|(one, other)| has(one) && has(other))?;
    Some((format!("{one} cannot be used with {other}"), vec![whole(one), whole(other)]))
}

impl Part<'_> {
    /// Where it stands: the line that counts, `Global=true`.
    fn find(&self, file: &UnitFile) -> Option<UnitFileError> {
        // By which names the file may have it, the one that goes before the others first.
        let names: &[&str] = match self.word {
            "MachineID" => &["MachineID", "X-ConditionMachineID", "X-ConditionMachineBootID"],
            "Peers" => &["MachineOf", "X-ConditionMachineOf"],
            "Conflicts" => &["Conflicts", "X-Conflicts"],
            "Global" => &["Global"],
            "Replaces" => &["Replaces"],
            _ => &["MaxUnavailable"],
        };
        let says = |option: &UnitOption| {
            let values = unquote(&option.value);
            let is = |value: &str| {
                values.iter().any(|v| v == value || v.split_whitespace().any(|word| word == value))
            };
            self.value.map_or_else(|| values.iter().any(|value| !value.is_empty()), is)
        };
        let lines = || {
            file.options
                .iter()
                .zip(&file.lines)
                .filter(|(option, line)| option.section == SECTION && **line > 0)
        };
        let mut fitting = names
            .iter()
            .flat_map(|name| lines().filter(move |(o, _)| o.name == *name))
            .filter(|(o, _)| says(o));
        let found = if matches!(self.word, "Global" | "MaxUnavailable") {
            fitting.next_back()
        } else {
            fitting.next()
        };
        found.map(|(option, &line)| {
            let value = Some(option.value.as_str())
                .filter(|value| value.len() <= LONGEST_SHOWN && !value.contains('\n'));
            UnitFileError { line, problem: format!("{}={}", option.name, value.unwrap_or("…")) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_contradiction_names_the_lines_that_count() {
        for (section, expected) in [
            (
                "MachineID=x\nGlobal=true",
                "MachineID cannot be used with Global: line 2: MachineID=x, line 3: Global=true",
            ),
            (
                "Global=no\nConflicts=a.*\nGlobal=true\nX-ConditionMachineID=y\nConflicts=",
                "MachineID cannot be used with Conflicts: line 3: Conflicts=a.*, line 5: \
                    X-ConditionMachineID=y",
            ),
            (
                "X-ConditionMachineID=b\nMachineID=a\nGlobal=no\nGlobal=yes",
                "MachineID cannot be used with Global: line 3: MachineID=a, line 5: Global=yes",
            ),
            (
                "Replaces=b.*\nGlobal=1",
                "Global cannot be used with Replaces: line 2: Replaces=b.*, line 3: Global=1",
            ),
            (
                "Conflicts=a.*\nReplaces=b.*",
                "Conflicts cannot be used with Replaces: line 2: Conflicts=a.*, line 3: \
                    Replaces=b.*",
            ),
            (
                "Conflicts=c.* b.*\nMachineOf=a.service\nMachineOf=b.service",
                "unresolvable requirements: peer \"b.service\" matches conflict \"b.*\": line 2: \
                    Conflicts=c.* b.*, line 4: MachineOf=b.service",
            ),
            (
                "MaxUnavailable=1\nMaxUnavailable=none",
                "invalid MaxUnavailable \"none\": expect a number from 1, or a percentage from 1% \
                    to 100%: line 3: MaxUnavailable=none",
            ),
        ] {
            let file = UnitFile::parse(&format!("[X-Fleet]\n{section}\n")).unwrap();
            let Contradiction { problem, options } = contradiction(&file).expect(section);
            let lines: Vec<String> = options.iter().map(ToString::to_string).collect();
            assert_eq!(format!("{problem}: {}", lines.join(", ")), expected, "{section}");
        }
    }

    #[test]
    fn lists_that_are_too_long_to_plan_with_are_refused_with_the_line_that_goes_too_far() {
        let many = |option: &str, count: usize| {
            (0..count).map(|n| format!("{option}=a{n}=b\n")).collect::<String>()
        };
        let in_one_line = |count: usize| format!("Conflicts={}", "x.* ".repeat(count));
        for (section, expected) in [
            (in_one_line(100), None),
            (many("Replaces", 100), None),
            (
                in_one_line(101),
                Some(
                    "Conflicts= has more than 100 patterns; one such as web-* stands for many: \
                        line 2",
                ),
            ),
            (
                format!("Conflicts=a\n{}", many("X-Conflicts", 100)),
                Some(
                    "Conflicts= has more than 100 patterns; one such as web-* stands for many: \
                        line 102",
                ),
            ),
            (
                many("Replaces", 101),
                Some(
                    "Replaces= has more than 100 patterns; one such as web-* stands for many: \
                        line 102",
                ),
            ),
            (many("MachineOf", 300), Some("MachineOf= has more than 100 units: line 102")),
            (
                many("MachineMetadata", 257),
                Some("MachineMetadata= has more than 256 labels: line 258"),
            ),
            (format!("Global=no\nConflicts=*{}", "a".repeat(511)), None),
            (
                format!("Global=no\nConflicts=*{}", "a".repeat(512)),
                Some("Conflicts= has a value of 513 bytes; the limit is 512: line 3"),
            ),
            (
                format!("Replaces={}", "%n".repeat(9)),
                Some("Replaces= has more than 8 specifiers (%i, %n …) in one value: line 2"),
            ),
        ] {
            let file = UnitFile::parse(&format!("[X-Fleet]\n{section}\n")).unwrap();
            let said = contradiction(&file).map(|Contradiction { problem, options }| {
                format!("{problem}: line {}", options[0].line)
            });
            assert_eq!(said.as_deref(), expected, "{}…", &section[..20]);
        }
    }

    #[test]
    fn a_file_made_of_options_has_no_lines_to_name() {
        let file = UnitFile::parse("[X-Fleet]\nMachineID=x\nGlobal=true\n").unwrap();
        let options = UnitFile::from_options(file.options);
        let problem = "MachineID cannot be used with Global".to_string();
        assert_eq!(contradiction(&options), Some(Contradiction { problem, options: Vec::new() }));
    }
}
