//! Unit files and names: read without a panic, and what was read means the same when it is written
//! out and read again.

use fleet_core::name::UnitName;
use fleet_core::unit::contradiction::contradiction;
use fleet_core::unit::file::UnitFile;
use fleet_core::unit::intake;
use fleet_core::unit::lint::lint;
use fleet_core::unit::xfleet::Constraints;

/// `data` is a unit's name, a NUL byte and its file; or a file alone.
pub fn unit_file(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let text = match text.split_once('\0') {
        Some((name, text)) => {
            check_name(name);
            text
        }
        None => text,
    };
    check_file(text);
}

fn check_name(text: &str) {
    let Ok(name) = UnitName::parse(text) else { return };
    assert_eq!(name.as_str(), text);
    assert!(name.refusal().is_none_or(|problem| !problem.is_empty()));
    assert!(!text.contains('/'), "{text:?} would be a path");
    assert_eq!(format!("{}.{}", name.stem(), name.suffix()), text);
    assert_eq!(
        UnitName::parse(name.systemd_name().as_str()).as_ref(),
        Ok(&name.systemd_name()),
        "{text:?}"
    );
    if let Some(template) = name.template() {
        assert!(template.is_template() && !name.is_template(), "{text:?} comes from {template}");
        assert_eq!(UnitName::parse(template.as_str()), Ok(template.clone()));
    }
    if let Some(number) = name.replica_number() {
        assert_eq!(name.template().map(|template| template.replica(number)), Some(name));
    }
}

fn check_file(text: &str) {
    let count = text.split('\n').count();
    let lenient = UnitFile::parse_lenient(text);
    let file = match UnitFile::parse(text) {
        Ok(file) => file,
        Err(error) => return assert!(error.line <= count, "{text:?}: {error}"),
    };
    assert_eq!(file, lenient);
    assert_eq!(file.lines.len(), file.options.len());
    assert!(
        file.lines.is_sorted_by(|a, b| a < b)
            && file.lines.iter().all(|line| (1..=count).contains(line)),
        "{:?}",
        file.lines
    );
    for note in lint(&file) {
        assert!(!note.to_string().is_empty());
    }
    for name in ["a.service", "a.container"] {
        for refusal in intake::refusals(&UnitName::trusted(name), &file) {
            assert!(refusal.line <= count, "{text:?}: {refusal}");
        }
    }
    let constraints = Constraints::from_file(&file);
    let _ = contradiction(&file);

    // What old clients are given, and what the hash is of, is the same unit. But for a backslash at
    // a value's end (in fleet 1.0, too): written down, what follows would continue it.
    if file.options.iter().any(|option| option.value.ends_with('\\')) {
        return;
    }
    let normalised = file.normalised();
    let again = UnitFile::parse(&normalised);
    let again = again.unwrap_or_else(|error| {
        panic!("{text:?} was read, its normal form {normalised:?} is not: {error}")
    });
    assert_eq!(again.normalised(), normalised, "of {text:?}");
    assert_eq!(again.hash(), file.hash());
    assert_eq!(Constraints::from_file(&again), constraints, "of {text:?}");
    assert_eq!(UnitFile::from_options(file.options.clone()).hash(), file.hash());
}
