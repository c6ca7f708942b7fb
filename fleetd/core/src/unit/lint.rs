//! What a user should know of a file before it is accepted: unknown options, values that do
//! nothing, options where nobody looks for them.

use super::xfleet::{FleetOption, OPTIONS, SECTION, unquote};
use crate::app::BundleRef;
use crate::name::UnitName;
use crate::unit::file::{UnitFile, UnitFileError, UnitOption};

/// How many notes [`lint`] makes.
const NOTES_SHOWN: usize = 20;

/// What a user should know of `file`, each with its line.
pub fn lint(file: &UnitFile) -> Vec<UnitFileError> {
    let mut notes = file.passed_over.clone();
    let mut known_section = true;
    let alone = BundleRef::of(file).is_none();
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
            "Container" if alone => quadlet_reference(option).into_iter().for_each(note),
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

/// What is to be said of an option of `[X-Fleet]`.
fn own_option(option: &UnitOption) -> Vec<String> {
    let Some(row) = FleetOption::named(&option.name) else {
        return vec![unknown(&option.name)];
    };
    let values = unquote(&option.value).into_iter().filter(|value| !value.is_empty());
    values.filter_map(|value| (row.note)(&value)).collect()
}

fn unknown(name: &str) -> String {
    let score =
        |row: &FleetOption| strsim::jaro_winkler(&row.name.to_lowercase(), &name.to_lowercase());
    let nearest = OPTIONS
        .iter()
        .map(|row| (score(row), row.name))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(score, _)| *score > 0.7);
    let hint = nearest.map_or(String::new(), |(_, known)| format!("; did you mean \"{known}\"?"));
    format!("unrecognized requirement in [{SECTION}] section: \"{name}\"{hint}")
}

/// Whether a section is [`SECTION`] but for its spelling.
fn looks_like_ours(section: &str) -> bool {
    let letters: String = section.chars().filter(char::is_ascii_alphabetic).collect();
    section != SECTION && ["xfleet", "fleet"].contains(&letters.to_ascii_lowercase().as_str())
}

/// Whether an option of another section is fleet's and means nothing to systemd there.
fn is_misplaced(option: &UnitOption) -> bool {
    let systemds = option.name == "Conflicts" && option.section == "Unit";
    FleetOption::named(&option.name).is_some() && !systemds
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
    UnitName::parse(name).ok().filter(UnitName::is_quadlet)?;
    let (option, value) = (&option.name, &option.value);
    Some(format!(
        "{option}={value} names a Quadlet unit, which comes only with the folder of both: use \
            fleetctl apply"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(section: &str) -> UnitFile {
        UnitFile::parse(&format!("[X-Fleet]\n{section}\n")).unwrap()
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
    fn quadlet_units_that_do_not_come_along_are_named_with_their_line() {
        let file =
            UnitFile::parse("[Container]\nImage=a.image\nNetwork=app.network:ip=10.0.0.2\nVolume=/a.volume:/b\nVolume=v:/b")
                .unwrap();
        let notes: Vec<String> = lint(&file).iter().map(ToString::to_string).collect();
        assert_eq!(
            notes,
            [
                "line 2: Image=a.image names a Quadlet unit, which comes only with the \
                    folder of both: use fleetctl apply",
                "line 3: Network=app.network:ip=10.0.0.2 names a Quadlet unit, which \
                    comes only with the folder of both: use fleetctl apply",
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
