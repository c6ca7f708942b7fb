//! Combinations of `[X-Fleet]` options that can never work: in fleet 1.0's words and order, with
//! the lines that they stand on. And lists that are too long to be planned with.

use super::xfleet::{
    Constraints, Counts, FleetOption, List, MAX_SPECIFIERS, MAX_VALUE_BYTES, OPTIONS, SECTION,
    unquote,
};
use crate::glob;
use crate::unit::file::{UnitFile, UnitFileError, UnitOption};

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
    let (problem, parts) = unreachable_peer(&wants).or_else(|| clash(file))?;
    let mut options: Vec<UnitFileError> = parts.iter().filter_map(|part| part.find(file)).collect();
    options.sort_by_key(|option| option.line);
    Some(Contradiction { problem, options })
}

/// The first value beyond what planning takes: it asks every value of a list of every unit and
/// machine.
fn too_long(file: &UnitFile) -> Option<Contradiction> {
    let options =
        || file.options.iter().zip(&file.lines).filter(|(option, _)| option.section == SECTION);
    for (row, List { most, of }) in OPTIONS.iter().filter_map(|row| Some((row, row.list?))) {
        let hint = if of == "patterns" { "; one such as web-* stands for many" } else { "" };
        let mut count = 0;
        for (option, &line) in
            options().filter(|(option, _)| row.names().any(|name| option.name == name))
        {
            let values = unquote(&option.value);
            for value in values.iter().flat_map(|value| value.split_whitespace()) {
                count += 1;
                let excess = match () {
                    () if count > most => format!("more than {most} {of}{hint}"),
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
                    problem: format!("{}= has {excess}", row.name),
                    options,
                });
            }
        }
    }
    None
}

/// One side of a contradiction: an option, and which of its values.
struct Part<'a> {
    row: &'static FleetOption,
    value: Option<&'a str>,
}

/// A unit that must be on the machine, and may not be there.
fn unreachable_peer(wants: &Constraints) -> Option<(String, Vec<Part<'_>>)> {
    for (patterns, what, name) in
        [(&wants.conflicts, "conflict", "Conflicts"), (&wants.replaces, "replace", "Replaces")]
    {
        for peer in &wants.machine_of {
            let Some(pattern) = patterns.iter().find(|pattern| glob::matches(pattern, peer)) else {
                continue;
            };
            let part = |name: &str, value| Some(Part { row: FleetOption::named(name)?, value });
            let parts = [part("MachineOf", Some(peer.as_str())), part(name, Some(pattern))];
            return Some((
                format!("unresolvable requirements: peer \"{peer}\" matches {what} \"{pattern}\""),
                parts.into_iter().flatten().collect(),
            ));
        }
    }
    None
}

/// The first two options that exclude each other.
fn clash(file: &UnitFile) -> Option<(String, Vec<Part<'static>>)> {
    let set: Vec<&'static FleetOption> = OPTIONS.iter().filter(|row| row.is_set(file)).collect();
    let pairs = set.iter().flat_map(|row| row.excludes.iter().map(move |other| (*row, *other)));
    let (one, other) = pairs
        .filter_map(|(row, other)| Some((row, *set.iter().find(|row| row.name == other)?)))
        .next()?;
    let word = |row: &FleetOption| row.word.unwrap_or(row.name);
    let parts = [one, other].map(|row| Part { row, value: None });
    Some((format!("{} cannot be used with {}", word(one), word(other)), parts.into()))
}

impl Part<'_> {
    /// Where it stands: the line that counts, `Global=true`.
    fn find(&self, file: &UnitFile) -> Option<UnitFileError> {
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
        let mut fitting = self
            .row
            .names()
            .flat_map(|name| lines().filter(move |(o, _)| o.name == name))
            .filter(|(o, _)| says(o));
        let found = match self.row.counts {
            Counts::Last => fitting.last(),
            _ => fitting.next(),
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
    fn contradictions_are_refused_in_fleets_words_and_order() {
        for (section, expected) in [
            (
                "MachineOf=a.service\nConflicts=a.*",
                "unresolvable requirements: peer \"a.service\" matches conflict \"a.*\"",
            ),
            (
                "MachineOf=a.service\nReplaces=a.*",
                "unresolvable requirements: peer \"a.service\" matches replace \"a.*\"",
            ),
            (
                "MachineID=x\nMachineOf=a.service\nConflicts=a.*",
                "unresolvable requirements: peer \"a.service\" matches conflict \"a.*\"",
            ),
            ("MachineID=x\nMachineOf=a.service", "MachineID cannot be used with Peers"),
            ("MachineID=x\nConflicts=a.*", "MachineID cannot be used with Conflicts"),
            ("MachineID=x\nGlobal=true", "MachineID cannot be used with Global"),
            ("MachineID=x\nReplaces=a.*", "MachineID cannot be used with Replaces"),
            ("Global=true\nMachineOf=a.service", "Global cannot be used with Peers"),
            ("Global=true\nReplaces=a.*", "Global cannot be used with Replaces"),
            ("Conflicts=a.*\nReplaces=b.*", "Conflicts cannot be used with Replaces"),
            (
                "MachineID=x\nMachineOf=a.service\nGlobal=true\nReplaces=b.*",
                "MachineID cannot be used with Peers",
            ),
            ("Global=true\nConflicts=a.*\nReplaces=b.*", "Global cannot be used with Replaces"),
            (
                "X-ConditionMachineBootID=x\nX-Conflicts=a.*",
                "MachineID cannot be used with Conflicts",
            ),
            ("MachineID=x\nMachineMetadata=a=b", ""),
            ("Global=true\nMachineMetadata=a=b\nConflicts=a.*", ""),
            ("MachineOf=a.service\nConflicts=b.*\nMachineMetadata=a=b", ""),
            ("MachineOf=a.service\nReplaces=b.*", ""),
            ("MachineOf=a.service\nConflicts=[", ""),
        ] {
            let file = UnitFile::parse(&format!("[X-Fleet]\n{section}\n")).unwrap();
            let said = contradiction(&file).map(|found| found.problem).unwrap_or_default();
            assert_eq!(said, expected, "{section}");
        }
    }

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
