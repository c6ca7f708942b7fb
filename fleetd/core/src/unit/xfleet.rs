//! The `[X-Fleet]` section: what a unit demands of its machine, with fleet 1.0's options, legacy
//! names and refusals.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::labels::Labels;
use crate::max_unavailable::MaxUnavailable;
use crate::name::{NameError, QUADLET_TYPES, UnitName};
use crate::unit_file::{UnitFile, UnitFileError, UnitOption, boolean};

/// The section that fleet reads; systemd passes over sections that start with `X-`.
pub const SECTION: &str = "X-Fleet";

/// The most values of `Conflicts=`, of `Replaces=` and of `MachineOf=`. Planning compares each with
/// every unit on a machine.
pub const MAX_PATTERNS: usize = 100;

/// The most values of `MachineMetadata=`. Planning compares each with every machine.
pub const MAX_LABELS: usize = 256;

/// The longest value of such a list, in bytes: twice the longest name.
pub const MAX_VALUE_BYTES: usize = 512;

/// The most specifiers of one value: each may stand for a whole name.
pub const MAX_SPECIFIERS: usize = 8;

/// Every option that the section may hold, legacy names last.
const KNOWN: &[&str] = &[
    "MachineID",
    "MachineOf",
    "MachineMetadata",
    "Conflicts",
    "Global",
    "Replaces",
    "Fence",
    "MaxUnavailable",
    "X-ConditionMachineID",
    "X-ConditionMachineBootID",
    "X-ConditionMachineOf",
    "X-ConditionMachineMetadata",
    "X-Conflicts",
];

/// What a unit demands of its machine.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Constraints {
    /// The machine that it must run on, whole or short id.
    pub machine_id: Option<String>,
    /// Units that must run on the same machine.
    pub machine_of: Vec<String>,
    /// Labels: keys are all needed, of a key's values any one.
    pub metadata: Labels,
    /// Patterns of units that may not run on the same machine.
    pub conflicts: Vec<String>,
    /// Whether it runs on every machine that fits.
    pub global: bool,
    /// Patterns of units that it pushes off its machine.
    pub replaces: Vec<String>,
    /// Whether at most one copy of it may be alive.
    pub fence: bool,
    /// How many of its instances may be down at once because somebody decided so; none: all at
    /// once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_unavailable: Option<MaxUnavailable>,
}

impl Constraints {
    /// Reads the section of a parsed file. What fleet 1.0 ignored (malformed metadata, bad
    /// patterns) is ignored here; [`lint`] says so.
    pub fn from_file(file: &UnitFile) -> Constraints {
        let values = |names: &[&str]| -> Vec<String> {
            file.options
                .iter()
                .filter(|o| o.section == SECTION && names.contains(&o.name.as_str()))
                .flat_map(|o| unquote(&o.value))
                .collect()
        };
        let mut metadata: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for pair in values(&["MachineMetadata", "X-ConditionMachineMetadata"]) {
            if let Some((key, value)) = metadata_pair(&pair) {
                metadata.entry(key.to_string()).or_default().insert(value.to_string());
            }
        }
        let first_id = ["MachineID", "X-ConditionMachineID", "X-ConditionMachineBootID"]
            .iter()
            .find_map(|name| values(&[name]).into_iter().next());
        let split = |list: Vec<String>| {
            list.iter().flat_map(|v| v.split_whitespace()).map(str::to_string).collect()
        };
        Constraints {
            machine_id: first_id.filter(|id| !id.is_empty()),
            machine_of: values(&["MachineOf", "X-ConditionMachineOf"])
                .into_iter()
                .filter(|v| !v.is_empty())
                .collect(),
            metadata: metadata.into(),
            conflicts: split(values(&["Conflicts", "X-Conflicts"])),
            global: is_global(&file.options),
            replaces: values(&["Replaces"]).into_iter().filter(|v| !v.is_empty()).collect(),
            fence: values(&["Fence"]).last().is_some_and(|v| boolean(v) == Some(true)),
            max_unavailable: values(&["MaxUnavailable"])
                .last()
                .filter(|v| !v.is_empty())
                .map(|v| MaxUnavailable::parse(v)),
        }
    }

    /// The same constraints for one instance, with `%n`, `%N`, `%p` and `%i` put in. Cheap where
    /// there are no specifiers.
    pub fn expanded(&self, instance: &UnitName) -> Constraints {
        let one = |text: &String| expand(text, instance);
        Constraints {
            machine_id: self.machine_id.as_ref().map(one),
            machine_of: self.machine_of.iter().map(one).collect(),
            metadata: match self.metadata.have_specifiers() {
                true => self
                    .metadata
                    .iter()
                    .map(|(k, vs)| (one(k), vs.iter().map(one).collect()))
                    .collect::<BTreeMap<_, _>>()
                    .into(),
                false => self.metadata.clone(),
            },
            conflicts: self.conflicts.iter().map(one).collect(),
            global: self.global,
            replaces: self.replaces.iter().map(one).collect(),
            fence: self.fence,
            max_unavailable: self.max_unavailable.clone(),
        }
    }

    /// Whether any value holds a specifier, so that instances differ.
    pub fn has_specifiers(&self) -> bool {
        let any = |text: &String| text.contains('%');
        self.machine_id.iter().any(any)
            || self.machine_of.iter().any(any)
            || self.metadata.have_specifiers()
            || self.conflicts.iter().any(any)
            || self.replaces.iter().any(any)
    }
}

/// Whether these options make a unit run on every machine that fits; the last word counts.
pub fn is_global(options: &[UnitOption]) -> bool {
    let given =
        options.iter().rev().filter(|option| option.section == SECTION && option.name == "Global");
    given
        .filter_map(|option| unquote(&option.value).pop())
        .next()
        .is_some_and(|value| is_true(&value))
}

/// What a user should know of a file before it is accepted: unknown options, values that do
/// nothing, options where nobody looks for them.
pub fn lint(file: &UnitFile) -> Vec<UnitFileError> {
    let mut notes = file.passed_over.clone();
    let mut known_section = true;
    for (nth, (option, &line)) in file.options.iter().zip(&file.lines).enumerate() {
        let first_of_section = nth == 0 || file.options[nth - 1].section != option.section;
        let mut note = |problem: String| notes.push(UnitFileError { line, problem });
        if first_of_section {
            known_section = !looks_like_ours(&option.section);
            if !known_section {
                note(format!("[{}] is read by nobody; did you mean [{SECTION}]?", option.section));
            }
        }
        match option.section.as_str() {
            SECTION => own_option(option).into_iter().for_each(note),
            "Container" => quadlet_reference(option).into_iter().for_each(note),
            section if known_section && !section.starts_with("X-") && is_misplaced(option) => {
                note(format!(
                    "{}= in [{section}] is read by nobody; it belongs in [{SECTION}]",
                    option.name
                ));
            }
            _ => {}
        }
    }
    if notes.len() > NOTES_SHOWN {
        let more = notes.len() - NOTES_SHOWN;
        notes.truncate(NOTES_SHOWN);
        notes.push(UnitFileError { line: 0, problem: format!("... and {more} notes more") });
    }
    notes
}

/// How many notes [`lint`] makes.
const NOTES_SHOWN: usize = 20;

/// What is to be said of an option of `[X-Fleet]`.
fn own_option(option: &UnitOption) -> Vec<String> {
    let name = option.name.as_str();
    if !KNOWN.contains(&name) {
        let nearest = KNOWN
            .iter()
            .take_while(|known| !known.starts_with("X-"))
            .map(|known| (strsim::jaro_winkler(&known.to_lowercase(), &name.to_lowercase()), known))
            .max_by(|a, b| a.0.total_cmp(&b.0));
        let hint = nearest
            .filter(|(score, _)| *score > 0.7)
            .map_or(String::new(), |(_, known)| format!("; did you mean \"{known}\"?"));
        return vec![format!("unrecognized requirement in [X-Fleet] section: \"{name}\"{hint}")];
    }
    let values = unquote(&option.value).into_iter().filter(|value| !value.is_empty());
    match name {
        "Global" => values
            .filter(|word| !is_true(word) && boolean(word) != Some(false))
            .map(|word| {
                format!(
                    "Global={word} counts as no, as it did in fleet 1.0; write \
                Global=true or Global=false"
                )
            })
            .collect(),
        "MachineMetadata" | "X-ConditionMachineMetadata" => values
            .filter(|pair| metadata_pair(pair).is_none())
            .map(|pair| {
                format!(
                    "MachineMetadata \"{pair}\" is ignored: it is not of the form \
                key=value"
                )
            })
            .collect(),
        "MachineOf" | "X-ConditionMachineOf" => values.filter_map(|peer| no_unit(&peer)).collect(),
        "Replaces" => values
            .filter(|pattern| pattern.contains(char::is_whitespace))
            .map(|pattern| {
                format!(
                    "Replaces \"{pattern}\" is one pattern, spaces and all; put \
                each into quotes, or on a line"
                )
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// Why no unit can be called what `MachineOf=` says.
fn no_unit(peer: &str) -> Option<String> {
    let problem = UnitName::parse(&expand(peer, &UnitName::trusted("a@1.service"))).err()?;
    let hint = match &problem {
        _ if peer.contains(char::is_whitespace) => {
            "; put each name into quotes, or on a line of its own".to_string()
        }
        NameError::NoSuffix => format!("; did you mean \"{peer}.service\"?"),
        _ => String::new(),
    };
    Some(format!("MachineOf \"{peer}\" is no unit: {problem}{hint}"))
}

/// Whether a section is [`SECTION`] but for its spelling.
fn looks_like_ours(section: &str) -> bool {
    let letters: String = section.chars().filter(char::is_ascii_alphabetic).collect();
    section != SECTION && ["xfleet", "fleet"].contains(&letters.to_ascii_lowercase().as_str())
}

/// Whether an option of another section is fleet's and means nothing to systemd there.
fn is_misplaced(option: &UnitOption) -> bool {
    let systemds = option.name == "Conflicts" && option.section == "Unit";
    KNOWN.contains(&option.name.as_str()) && !systemds
}

/// What is to be said of an option that names another Quadlet unit.
fn quadlet_reference(option: &UnitOption) -> Option<String> {
    let name = match option.name.as_str() {
        "Image" | "Pod" => option.value.as_str(),
        "Network" | "Volume" => {
            option.value.split(':').next().filter(|source| !source.starts_with('/'))?
        }
        _ => return None,
    };
    let kind =
        name.rsplit_once('.').map(|(_, kind)| kind).filter(|kind| QUADLET_TYPES.contains(kind))?;
    let (option, value) = (&option.name, &option.value);
    Some(format!(
        "{option}={value} names a Quadlet unit; fleet does not take .{kind} yet, so podman does \
            not find it"
    ))
}

/// `key=value` with exactly one `=` and neither side empty.
fn metadata_pair(pair: &str) -> Option<(&str, &str)> {
    let (key, value) = pair.split_once('=')?;
    (!key.is_empty() && !value.is_empty() && !value.contains('=')).then_some((key, value))
}

/// A value that starts and ends with a quote holds several: `"a=b" "c=d"`. What stands between
/// quotes keeps its spaces.
pub(crate) fn unquote(value: &str) -> Vec<String> {
    if !value.starts_with('"') || !value.ends_with('"') {
        return vec![value.to_string()];
    }
    let mut values = vec![String::new()];
    let mut inside = false;
    for c in value.chars() {
        match c {
            '"' => inside = !inside,
            space if space.is_whitespace() && !inside => values.push(String::new()),
            other => values.last_mut().expect("never empty").push(other),
        }
    }
    if values.len() > 1 {
        values.retain(|value| !value.is_empty()); // two spaces between values
    }
    values
}

/// fleet 1.0's words for yes; every other one is no, also systemd's `y`.
fn is_true(value: &str) -> bool {
    ["true", "yes", "1", "on", "t"].contains(&value.to_lowercase().as_str())
}

/// Puts `%n`, `%N`, `%p` and `%i` of `instance` into `text`.
pub(crate) fn expand(text: &str, instance: &UnitName) -> String {
    if !text.contains('%') {
        return text.to_string();
    }
    let i = instance.instance().unwrap_or("");
    text.replace("%n", instance.as_str())
        .replace("%N", instance.stem())
        .replace("%p", instance.prefix())
        .replace("%i", i)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(section: &str) -> UnitFile {
        UnitFile::parse(&format!("[X-Fleet]\n{section}\n")).unwrap()
    }

    fn constraints(section: &str) -> Constraints {
        Constraints::from_file(&file(section))
    }

    #[test]
    fn each_option_and_its_legacy_names_mean_what_they_meant() {
        for (section, expected) in [
            // The first value wins, the present name before the legacy ones.
            ("MachineID=a\nMachineID=b", "id=a"),
            ("X-ConditionMachineBootID=c\nX-ConditionMachineID=b\nMachineID=a", "id=a"),
            ("X-ConditionMachineBootID=c\nX-ConditionMachineID=b", "id=b"),
            ("X-ConditionMachineBootID=c", "id=c"),
            ("MachineID=", ""),
            // Exact names: neither split at spaces nor patterns.
            ("MachineOf=a.service\nMachineOf=b.service", "of=[a.service] of=[b.service]"),
            ("MachineOf=a.service b.service", "of=[a.service b.service]"),
            (
                "X-ConditionMachineOf=a.service\nMachineOf=\"b.service\" \"c.service\"",
                "of=[a.service] of=[b.service] of=[c.service]",
            ),
            // Keys are all needed, of one key's values any; what is malformed is ignored.
            (
                "MachineMetadata=region=eu\nMachineMetadata=region=us\nMachineMetadata=disk=ssd",
                "disk={\"ssd\"} region={\"eu\", \"us\"}",
            ),
            (
                "MachineMetadata=\"region=eu\" \"disk=ssd\"\nX-ConditionMachineMetadata=region=us",
                "disk={\"ssd\"} region={\"eu\", \"us\"}",
            ),
            ("MachineMetadata=\"a=b\"  \"c=d\"\t\"e=f g\"", "a={\"b\"} c={\"d\"} e={\"f g\"}"),
            (
                "MachineMetadata=bad\nMachineMetadata=a=b=c\nMachineMetadata==c\nMachineMetadata=a=",
                "",
            ),
            // Split at spaces, repeatable, both names together.
            (
                "Conflicts=a.* b.*\nX-Conflicts=c.*\nConflicts=\"d.* e.*\" \"f.*\"",
                "not=a.* not=b.* not=c.* not=d.* not=e.* not=f.*",
            ),
            // The last value wins.
            ("Global=true\nGlobal=no", ""),
            ("Global=no\nGlobal=YES", "global"),
            ("Global=1", "global"),
            ("Global=On", "global"),
            ("Global=t", "global"),
            ("Global=y", ""),
            // Patterns, not split at spaces.
            (
                "Replaces=a.* b.*\nReplaces=\"c.*\" \"d.*\"",
                "replaces=[a.* b.*] replaces=[c.*] replaces=[d.*]",
            ),
            ("X-Replaces=a.*", ""),
        ] {
            assert_eq!(said(&constraints(section)), expected, "{section}");
        }
    }

    /// Constraints as one line.
    fn said(c: &Constraints) -> String {
        let mut words: Vec<String> = c.machine_id.iter().map(|id| format!("id={id}")).collect();
        words.extend(c.machine_of.iter().map(|peer| format!("of=[{peer}]")));
        words.extend(c.metadata.iter().map(|(key, values)| format!("{key}={values:?}")));
        words.extend(c.conflicts.iter().map(|pattern| format!("not={pattern}")));
        words.extend(c.global.then(|| "global".to_string()));
        words.extend(c.replaces.iter().map(|pattern| format!("replaces=[{pattern}]")));
        words.join(" ")
    }

    #[test]
    fn specifiers_are_put_in_for_each_instance() {
        let text = "MachineID=%i\nMachineOf=%n %N %p %i %H \
            %%\nMachineMetadata=%p=%i\nConflicts=%p@*.service\nReplaces=%N.*";
        let wants = constraints(text);
        assert!(wants.has_specifiers());
        for (instance, expected) in [
            (
                "web@3.service",
                "id=3 of=[web@3.service web@3 web 3 %H %%] web={\"3\"} not=web@*.service \
                    replaces=[web@3.*]",
            ),
            (
                "db.service",
                "id= of=[db.service db db  %H %%] db={\"\"} not=db@*.service replaces=[db.*]",
            ),
        ] {
            assert_eq!(said(&wants.expanded(&UnitName::trusted(instance))), expected);
        }
    }

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
            assert_eq!(
                constraints(section).contradiction().unwrap_or_default(),
                expected,
                "{section}"
            );
        }
    }

    #[test]
    fn a_word_for_global_that_counts_as_no_is_named_with_its_line() {
        let notes = lint(&file("Global=y\nGlobal=enable\nGlobal=no\nGlobal=\nGlobal=T"));
        let said: Vec<String> = notes.iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "line 2: Global=y counts as no, as it did in fleet 1.0; write Global=true or \
                    Global=false",
                "line 3: Global=enable counts as no, as it did in fleet 1.0; write Global=true or \
                    Global=false"
            ]
        );
    }

    #[test]
    fn what_stands_where_nobody_reads_it_is_named_with_its_line() {
        let said = |text: &str| -> Vec<String> {
            lint(&UnitFile::parse(text).unwrap()).iter().map(ToString::to_string).collect()
        };
        for section in ["X-fleet", "XFleet", "x_fleet", "Fleet", "X-Fleet "] {
            assert_eq!(
                said(&format!("[{section}]\nGlobal=true\nConflicts=a.*\n")),
                [format!("line 2: [{section}] is read by nobody; did you mean [X-Fleet]?")]
            );
        }
        assert_eq!(
            said(
                "[Unit]\nConflicts=a.service\n[Service]\nGlobal=true\nConflicts=a.service\n[X-Other]\nGlobal=true\n"
            ),
            [
                "line 4: Global= in [Service] is read by nobody; it belongs in [X-Fleet]",
                "line 5: Conflicts= in [Service] is read by nobody; it belongs in [X-Fleet]"
            ]
        );
        assert_eq!(
            said(&format!("[X-Fleet]\n{}", "Bogus=1\n".repeat(1_000))).len(),
            NOTES_SHOWN + 1
        );
    }

    #[test]
    fn a_unit_that_cannot_be_there_is_named_with_its_line() {
        let lines = "MachineOf=a.service \
            b.service\nMachineOf=web\nMachineOf=web@%i\nMachineOf=\"a.service\" \"b\"\n\
                     Replaces=a.* b.*\nMachineOf=%p@%i.service\nReplaces=\"a.*\" \
                     \"b.*\"\nMachineOf=";
        let notes: Vec<String> = lint(&file(lines)).iter().map(ToString::to_string).collect();
        assert_eq!(
            notes,
            [
                "line 2: MachineOf \"a.service b.service\" is no unit: invalid character ' ' in \
                    unit name; put each name into quotes, or on a line of its own",
                "line 3: MachineOf \"web\" is no unit: unit name must contain \".\"; did you mean \
                    \"web.service\"?",
                "line 4: MachineOf \"web@%i\" is no unit: unit name must contain \".\"; did you \
                    mean \"web@%i.service\"?",
                "line 5: MachineOf \"b\" is no unit: unit name must contain \".\"; did you mean \
                    \"b.service\"?",
                "line 6: Replaces \"a.* b.*\" is one pattern, spaces and all; put each into \
                    quotes, or on a line",
            ]
        );
    }

    #[test]
    fn quadlet_units_that_fleet_does_not_take_are_named_with_their_line() {
        let file =
            UnitFile::parse("[Container]\nImage=a.image\nNetwork=app.network:ip=10.0.0.2\nVolume=/a.volume:/b\nVolume=v:/b")
                .unwrap();
        let notes: Vec<String> = lint(&file).iter().map(ToString::to_string).collect();
        assert_eq!(
            notes,
            [
                "line 2: Image=a.image names a Quadlet unit; fleet does not take .image yet, so \
                    podman does not find it",
                "line 3: Network=app.network:ip=10.0.0.2 names a Quadlet unit; fleet does not \
                    take .network yet, so podman does not find it",
            ]
        );
    }

    #[test]
    fn an_unknown_option_names_the_nearest_known_one() {
        let notes = lint(&file("Conflict=a\nBogus=1"));
        assert_eq!(
            notes[0].to_string(),
            "line 2: unrecognized requirement in [X-Fleet] section: \"Conflict\"; did you mean \
                \"Conflicts\"?"
        );
        assert_eq!(
            notes[1].to_string(),
            "line 3: unrecognized requirement in [X-Fleet] section: \"Bogus\""
        );
    }
}
