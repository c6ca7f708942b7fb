//! Configurations: values that operators change by hand. Units that name one (`[X-Fleet] Config=`)
//! get its values as environment and as files, and are restarted or reloaded when it changes.
//!
//! Each has revisions that count its changes. A unit's record says which revision its instances
//! must have at least ([`Asked`]), and is written together with the configuration: so the leader
//! rolls a change out as it does with texts, and no agent takes an older configuration for the one
//! that was meant.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::app::AppName;
use crate::model::{DesiredState, FORMAT, UnitRecord, Unknown};
use crate::unit::file::UnitFile;
use crate::unit::xfleet::Constraints;

/// The longest value, in bytes.
pub const MAX_VALUE_BYTES: usize = 64 * 1024;

/// The most bytes of all keys and values of a configuration: each agent that needs it reads it in
/// one piece.
pub const MAX_CONFIGURATION_BYTES: usize = 256 * 1024;

/// The most values of a configuration: an instance has a file for each.
pub const MAX_KEYS: usize = 1_000;

/// The longest key, in bytes. It becomes the name of a file.
pub const MAX_KEY_BYTES: usize = 128;

/// How many revisions are kept, the present one among them. With the limit of each that is 4 MiB a
/// configuration at most.
pub const KEPT_REVISIONS: u64 = 16;

/// The variables that are fleet's own to set begin so.
const FLEETS: &str = "FLEET_";

/// The variable that holds the revision.
pub const REVISION_VARIABLE: &str = "FLEET_CONFIG_REVISION";

/// The longest line of an env file that podman reads: its reader gives up on longer ones.
const LONGEST_LINE: usize = 60_000;

/// `config/<name>`: the values as they are. Each revision is also under
/// `/fleet.config/<name>/<revision>`. Written by the API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Configuration {
    /// The format, [`FORMAT`].
    pub v: u32,
    /// Its name.
    pub name: AppName,
    /// Counts the changes, from 1.
    pub revision: u64,
    /// When it was changed last, in milliseconds since 1970.
    pub changed_ms: u64,
    /// The values, by key.
    pub values: BTreeMap<String, String>,
    /// What a later version wrote.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// What one change did, by keys.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Changes {
    /// The values that are new or others.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, String>,
    /// The keys that went.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub removed: BTreeSet<String>,
}

impl Changes {
    /// What leads from `old` to `new`.
    pub fn between(old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) -> Changes {
        let set = new.iter().filter(|(key, value)| old.get(*key) != Some(value));
        let removed = old.keys().filter(|key| !new.contains_key(*key));
        Changes {
            set: set.map(|(key, value)| (key.clone(), value.clone())).collect(),
            removed: removed.cloned().collect(),
        }
    }

    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.removed.is_empty()
    }
}

/// What becomes of a unit's instances when its configuration changes: `ConfigChanged=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ConfigChanged {
    /// They are restarted, as many at once as `MaxUnavailable=` allows.
    #[default]
    Restart,
    /// They read it again, by the unit's own reload.
    Reload,
    /// Nothing; they have it after their next start.
    Ignore,
    /// No such word: refused where it is submitted, and a restart where it stands all the same.
    Unreadable,
}

impl ConfigChanged {
    /// Reads the option's value.
    pub fn parse(word: &str) -> ConfigChanged {
        match word {
            "restart" => ConfigChanged::Restart,
            "reload" => ConfigChanged::Reload,
            "ignore" => ConfigChanged::Ignore,
            _ => ConfigChanged::Unreadable,
        }
    }
}

/// The configuration that a unit's instances must have at least. It counts only while the unit's
/// text names that configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Its name.
    pub name: AppName,
    /// The revision.
    pub revision: u64,
}

/// The configuration that a unit uses, and what its changes do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uses {
    /// The configuration.
    pub name: AppName,
    /// What a change does.
    pub changed: ConfigChanged,
}

impl Uses {
    /// What `wants` says of it; `None` for a unit without a configuration.
    pub fn of(wants: &Constraints) -> Option<Uses> {
        let name = AppName::parse(wants.config.as_deref()?).ok()?;
        Some(Uses { name, changed: wants.config_changed.unwrap_or_default() })
    }

    /// The same of a unit's text.
    pub fn in_text(text: &str) -> Option<Uses> {
        // Most texts have none, and there may be ten thousand.
        if !text.contains("Config") {
            return None;
        }
        Uses::of(&Constraints::from_file(&UnitFile::parse_lenient(text)))
    }
}

/// The revision that a record's instances must have at least; 0 for none.
pub(crate) fn asked(record: &UnitRecord, wants: &Constraints) -> u64 {
    let Some(uses) = Uses::of(wants).filter(|uses| uses.changed != ConfigChanged::Ignore) else {
        return 0;
    };
    record.config.as_ref().filter(|asked| asked.name == uses.name).map_or(0, |asked| asked.revision)
}

/// The revision that follows `old`. One that is made again counts on from what its users were asked
/// for of an earlier one by that name.
pub fn next<'a>(
    old: Option<&Configuration>,
    name: AppName,
    values: BTreeMap<String, String>,
    records: impl Iterator<Item = &'a UnitRecord>,
) -> Configuration {
    let asked = records.filter_map(|record| record.config.as_ref());
    let asked = asked.filter(|asked| asked.name == name).map(|asked| asked.revision).max();
    let after = old.map_or(0, |old| old.revision).max(asked.unwrap_or(0));
    let unknown = old.map_or(Unknown::new(), |old| old.unknown.clone());
    Configuration { unknown, ..Configuration::new(name, values, after) }
}

/// What a change does to a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// Its instances are restarted.
    Restart,
    /// Its instances reload.
    Reload,
    /// Nothing that fleet started runs; what starts it next finds the new values.
    Prepare,
}

/// Has the instances of a unit take a revision of the configuration `name`, and says what that does
/// to them; `None` for a unit that does not use it, or ignores changes.
pub fn ask(record: &mut UnitRecord, name: &AppName, revision: u64) -> Option<Effect> {
    let uses = Uses::in_text(&record.text).filter(|uses| uses.name == *name)?;
    if uses.changed == ConfigChanged::Ignore {
        return None;
    }
    record.config = Some(Asked { name: name.clone(), revision });
    let runs = record.desired == DesiredState::Launched && record.replicas != Some(0);
    Some(match uses.changed {
        _ if !runs => Effect::Prepare,
        ConfigChanged::Reload => Effect::Reload,
        _ => Effect::Restart,
    })
}

impl Configuration {
    /// The revision that comes after this number.
    pub fn new(name: AppName, values: BTreeMap<String, String>, after: u64) -> Configuration {
        Configuration {
            v: FORMAT,
            name,
            revision: after + 1,
            changed_ms: 0,
            values,
            unknown: Unknown::new(),
        }
    }

    /// The value as environment: a name that may be one, and nothing that cannot be in one.
    fn environment(&self) -> impl Iterator<Item = (&str, &str)> {
        let all = self.values.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        all.filter(|(key, value)| is_variable(key) && is_plain(value))
    }

    /// The file for systemd's `EnvironmentFile=`.
    pub fn for_systemd(&self) -> String {
        let revision = format!("{REVISION_VARIABLE}={}\n", self.revision);
        self.environment().fold(revision, |text, (key, value)| text + &quoted(key, value))
    }

    /// The file for podman's `--env-file`, which knows no quotes and ends a value with its line. Of
    /// a value that is no such line it has the key alone, which podman takes for one of its own
    /// environment: see [`Configuration::for_podman_itself`].
    pub fn for_podman(&self) -> String {
        let mut text = format!("{REVISION_VARIABLE}={}\n", self.revision);
        for (key, value) in self.environment() {
            text.push_str(key);
            if is_line(key, value) {
                text.push('=');
                text.push_str(value);
            }
            text.push('\n');
        }
        text
    }

    /// The file for systemd's `EnvironmentFile=` of the service that runs podman: values of several
    /// lines, and very long ones. No others, so that few keys can mean something to podman.
    pub fn for_podman_itself(&self) -> String {
        let handed_on = self.environment().filter(|(key, value)| !is_line(key, value));
        handed_on.map(|(key, value)| quoted(key, value)).collect()
    }
}

/// Why a configuration cannot have these values; `None` if it can.
pub fn refusal(values: &BTreeMap<String, String>) -> Option<String> {
    if let Some(problem) = values
        .iter()
        .find_map(|(key, value)| key_refusal(key).or_else(|| value_refusal(key, value)))
    {
        return Some(problem);
    }
    if values.len() > MAX_KEYS {
        return Some(format!("{} values; a configuration has {MAX_KEYS} at most", values.len()));
    }
    let bytes: usize = values.iter().map(|(key, value)| key.len() + value.len()).sum();
    (bytes > MAX_CONFIGURATION_BYTES).then(|| {
        format!(
            "{bytes} bytes of keys and values; a configuration has {} KiB at most",
            MAX_CONFIGURATION_BYTES / 1024
        )
    })
}

/// Why a value cannot be called so; `None` if it can.
pub fn key_refusal(key: &str) -> Option<String> {
    let first = |b: u8| b.is_ascii_alphabetic() || b == b'_';
    let good = |b: u8| first(b) || b.is_ascii_digit() || b == b'.' || b == b'-';
    let fits = key.bytes().next().is_some_and(first)
        && key.len() <= MAX_KEY_BYTES
        && key.bytes().all(good);
    match fits {
        false => Some(format!(
            "{key:?} is no key: expect 1 to {MAX_KEY_BYTES} letters, digits, \"_\", \".\" and \
                \"-\", a letter or \"_\" first"
        )),
        true if key.starts_with(FLEETS) => {
            Some(format!("{key:?} is no key: names that begin with {FLEETS} are fleet's own"))
        }
        true => None,
    }
}

fn value_refusal(key: &str, value: &str) -> Option<String> {
    match value.len() {
        _ if value.contains('\0') => Some(format!("the value of {key} has a NUL byte")),
        bytes if bytes > MAX_VALUE_BYTES => Some(format!(
            "the value of {key} has {bytes} bytes; a value has {} KiB at most",
            MAX_VALUE_BYTES / 1024
        )),
        _ => None,
    }
}

/// Whether a key may be the name of a variable.
pub fn is_variable(key: &str) -> bool {
    key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Whether podman reads the value from a line of its own format.
fn is_line(key: &str, value: &str) -> bool {
    !value.contains('\n') && key.len() + value.len() < LONGEST_LINE
}

/// A variable as systemd reads it from a file.
fn quoted(key: &str, value: &str) -> String {
    let mut text = format!("{key}=\"");
    for c in value.chars() {
        // What systemd takes for itself between double quotes.
        if matches!(c, '"' | '\\' | '`' | '$') {
            text.push('\\');
        }
        text.push(c);
    }
    text + "\"\n"
}

/// Whether systemd and podman put it into an environment as it is.
fn is_plain(value: &str) -> bool {
    value.chars().all(|c| !c.is_control() || c == '\t' || c == '\n')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::UnitName;

    fn name(text: &str) -> AppName {
        AppName::parse(text).unwrap()
    }

    fn values(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
    }

    #[test]
    fn keys_and_values_have_limits_and_each_is_said() {
        for good in ["log", "LOG_LEVEL", "_x", "db.host-2", &"a".repeat(MAX_KEY_BYTES)] {
            assert_eq!(key_refusal(good), None);
        }
        let long = "a".repeat(MAX_KEY_BYTES + 1);
        for bad in ["", "2a", ".env", "-a", "a b", "a/b", "ä", "a=b", &long] {
            assert!(key_refusal(bad).unwrap().contains("is no key"), "{bad}");
        }
        assert!(key_refusal(REVISION_VARIABLE).unwrap().contains("fleet's own"));
        let most = "x".repeat(MAX_VALUE_BYTES);
        assert_eq!(refusal(&values(&[("a", &most)])), None);
        let said = |pairs: &[(&str, &str)]| refusal(&values(pairs)).unwrap();
        assert!(said(&[("a", &format!("{most}x"))]).contains("64 KiB at most"));
        assert!(said(&[("a", "x\0")]).contains("NUL"));
        let four = [("a", &*most), ("b", &most), ("c", &most), ("d", &most)];
        assert!(said(&four).contains("256 KiB at most"));
        let many = (0..=MAX_KEYS).map(|n| (format!("k{n}"), String::new())).collect();
        assert!(refusal(&many).unwrap().contains("1000 at most"));
    }

    #[test]
    fn a_change_is_what_is_new_another_or_gone() {
        let old = values(&[("a", "1"), ("b", "2"), ("c", "3")]);
        let new = values(&[("a", "1"), ("b", "4"), ("d", "5")]);
        let changes = Changes::between(&old, &new);
        assert_eq!(changes.set, values(&[("b", "4"), ("d", "5")]));
        assert_eq!(changes.removed, BTreeSet::from(["c".to_string()]));
        assert!(Changes::between(&old, &old).is_empty());
    }

    #[test]
    fn environments_are_written_as_each_reads_them() {
        let lines = "two\nlines";
        let config = Configuration {
            revision: 7,
            ..Configuration::new(
                name("shop"),
                values(&[
                    ("LOG", "debug"),
                    ("QUOTED", "a \"b\" $HOME `c` \\d 'e' #f"),
                    ("db-host", "10.0.0.5"),
                    ("lines", lines),
                    ("bell", "\u{7}"),
                    ("empty", ""),
                ]),
                0,
            )
        };
        expect_test::expect![[r#"
            FLEET_CONFIG_REVISION=7
            LOG="debug"
            QUOTED="a \"b\" \$HOME \`c\` \\d 'e' #f"
            empty=""
            lines="two
            lines"
        "#]]
        .assert_eq(&config.for_systemd());
        expect_test::expect![[r#"
            FLEET_CONFIG_REVISION=7
            LOG=debug
            QUOTED=a "b" $HOME `c` \d 'e' #f
            empty=
            lines
        "#]]
        .assert_eq(&config.for_podman());
        expect_test::expect![[r#"
            lines="two
            lines"
        "#]]
        .assert_eq(&config.for_podman_itself());
    }

    #[test]
    fn a_change_asks_of_a_unit_what_its_text_says_and_only_while_it_names_that_configuration() {
        let record = |section: &str, desired| UnitRecord {
            desired,
            ..UnitRecord::new(
                UnitName::trusted("web.service"),
                format!("[Service]\nExecStart=/bin/web\n[X-Fleet]\n{section}\n"),
            )
        };
        let effect = |section: &str, desired| ask(&mut record(section, desired), &name("shop"), 3);
        let (launched, loaded) = (DesiredState::Launched, DesiredState::Loaded);
        assert_eq!(effect("Config=shop", launched), Some(Effect::Restart));
        assert_eq!(effect("Config=shop\nConfigChanged=reload", launched), Some(Effect::Reload));
        assert_eq!(effect("Config=shop\nConfigChanged=ignore", launched), None);
        assert_eq!(effect("Config=shop", loaded), Some(Effect::Prepare));
        assert_eq!(effect("Config=other", launched), None);
        assert_eq!(effect("", launched), None);
        let mut asked_of = record("Config=shop", launched);
        ask(&mut asked_of, &name("shop"), 3);
        let asked = |record: &UnitRecord| {
            let file = UnitFile::parse_lenient(&record.text);
            super::asked(record, &Constraints::from_file(&file))
        };
        assert_eq!(asked(&asked_of), 3);
        let other = UnitRecord { text: record("Config=other", launched).text, ..asked_of };
        assert_eq!(asked(&other), 0);
    }
}
