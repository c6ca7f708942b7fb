//! Unit names and machine ids: parsed once at the edge, cheap to copy, ordered.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The longest unit name that systemd and fleet 1.0 take, in bytes.
pub const MAX_NAME_BYTES: usize = 256;

/// What may follow the last dot. `container` is a Quadlet unit: systemd knows it as a service (see [`UnitName::systemd_name`]).
pub const SUFFIXES: &[&str] = &[
    "automount",
    "busname",
    "container",
    "device",
    "mount",
    "path",
    "scope",
    "service",
    "slice",
    "snapshot",
    "socket",
    "swap",
    "target",
    "timer",
];

/// The types that may be templates.
const TEMPLATE_SUFFIXES: &[&str] = &["container", "path", "service", "socket", "target", "timer"];

/// The name of a unit, template or instance: `db.service`, `web@.service`, `web@3.service`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct UnitName(Arc<str>);

/// Why a unit name is refused; the texts are fleet 1.0's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was given.
    #[error("unit name cannot be empty")]
    Empty,
    /// More than [`MAX_NAME_BYTES`].
    #[error("unit name exceeds maximum length (256)")]
    TooLong,
    /// There is no type suffix.
    #[error("unit name must contain \".\"")]
    NoSuffix,
    /// The type suffix is empty.
    #[error("unit name cannot end in \".\"")]
    EmptySuffix,
    /// The type is not one of systemd's.
    #[error("invalid unit type: \"{0}\"")]
    UnknownType(String),
    /// The type cannot have templates.
    #[error("invalid unit type for template: \"{0}\"")]
    NoTemplateType(String),
    /// A byte that systemd does not allow in names.
    #[error("invalid character {0:?} in unit name")]
    BadCharacter(char),
    /// Nothing stands before the `@`.
    #[error("unit name cannot start in \"@\"")]
    NoPrefix,
    /// Nothing stands before the dot.
    #[error("unit name cannot start in \".\"")]
    NoStem,
}

impl UnitName {
    /// Checks `text` by fleet 1.0's rules.
    pub fn parse(text: &str) -> Result<UnitName, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > MAX_NAME_BYTES {
            return Err(NameError::TooLong);
        }
        let Some(dot) = text.rfind('.') else { return Err(NameError::NoSuffix) };
        let (stem, suffix) = (&text[..dot], &text[dot + 1..]);
        if suffix.is_empty() {
            return Err(NameError::EmptySuffix);
        }
        if !SUFFIXES.contains(&suffix) {
            return Err(NameError::UnknownType(suffix.to_string()));
        }
        if stem.contains('@') && !TEMPLATE_SUFFIXES.contains(&suffix) {
            return Err(NameError::NoTemplateType(suffix.to_string()));
        }
        let allowed = |c: &char| c.is_ascii_alphanumeric() || ":_.\\@-".contains(*c);
        if let Some(bad) = stem.chars().find(|c| !allowed(c)) {
            return Err(NameError::BadCharacter(bad));
        }
        if stem.starts_with('@') {
            return Err(NameError::NoPrefix);
        }
        if stem.is_empty() {
            return Err(NameError::NoStem);
        }
        Ok(UnitName(text.into()))
    }

    /// A name that is known to be good: it was built from one, or comes from our own store.
    pub fn trusted(text: impl Into<Arc<str>>) -> UnitName {
        UnitName(text.into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part after the last dot: `service`.
    pub fn suffix(&self) -> &str {
        self.0.rsplit_once('.').map_or("", |(_, suffix)| suffix)
    }

    /// The part before the last dot: `web@3`.
    pub fn stem(&self) -> &str {
        self.0.rsplit_once('.').map_or(&self.0, |(stem, _)| stem)
    }

    /// The part before the first `@`, or the stem: `web`.
    pub fn prefix(&self) -> &str {
        let stem = self.stem();
        stem.split_once('@').map_or(stem, |(prefix, _)| prefix)
    }

    /// What stands between `@` and the last dot: `Some("3")`; `Some("")` for a template; `None` without an `@`.
    pub fn instance(&self) -> Option<&str> {
        self.stem().split_once('@').map(|(_, instance)| instance)
    }

    /// Whether this is `web@.service`.
    pub fn is_template(&self) -> bool {
        let stem = self.stem();
        stem.ends_with('@') && stem.find('@') == Some(stem.len() - 1)
    }

    /// The template that `web@3.service` comes from; `None` for templates and plain units.
    pub fn template(&self) -> Option<UnitName> {
        match self.instance() {
            Some(instance) if !instance.is_empty() => Some(UnitName(format!("{}@.{}", self.prefix(), self.suffix()).into())),
            _ => None,
        }
    }

    /// The number of a replica (`3` for `web@3.service`), if it is written the way [`UnitName::replica`] writes it.
    pub fn replica_number(&self) -> Option<u32> {
        let instance = self.instance()?;
        let canonical = !instance.is_empty() && !instance.starts_with('0') && instance.bytes().all(|b| b.is_ascii_digit());
        if canonical { instance.parse().ok() } else { None }
    }

    /// The `number`th instance of this template.
    pub fn replica(&self, number: u32) -> UnitName {
        let suffix = self.suffix();
        UnitName(format!("{}@{number}.{suffix}", self.prefix()).into())
    }

    /// The name that systemd knows the unit by: a Quadlet `web.container` runs as `web.service`.
    pub fn systemd_name(&self) -> UnitName {
        match self.suffix() {
            "container" => UnitName(format!("{}.service", self.stem()).into()),
            _ => self.clone(),
        }
    }

    /// Whether podman's Quadlet generator turns this unit into a service.
    pub fn is_quadlet(&self) -> bool {
        self.suffix() == "container"
    }
}

impl fmt::Display for UnitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for UnitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for UnitName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// A machine's id: the 32 hex digits of its `/etc/machine-id`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct MachineId(Arc<str>);

impl MachineId {
    /// Takes the id as it stands in `/etc/machine-id` or in the store.
    pub fn new(text: impl Into<Arc<str>>) -> MachineId {
        MachineId(text.into())
    }

    /// The whole id.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first eight characters, as lists show it.
    pub fn short(&self) -> &str {
        self.0.get(..8).unwrap_or(&self.0)
    }

    /// Whether a user who wrote `text` means this machine: the whole id or its short form.
    pub fn matches(&self, text: &str) -> bool {
        text == self.as_str() || text == self.short()
    }
}

impl fmt::Display for MachineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for MachineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for MachineId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_use_the_words_and_the_order_of_fleet_1_0() {
        let longest = format!("{}.service", "a".repeat(MAX_NAME_BYTES - ".service".len()));
        for (name, expected) in [
            ("", "unit name cannot be empty"),
            (&format!("a{longest}"), "unit name exceeds maximum length (256)"),
            ("a", "unit name must contain \".\""),
            ("a.", "unit name cannot end in \".\""),
            ("a.foo", "invalid unit type: \"foo\""),
            ("a.Service", "invalid unit type: \"Service\""),
            ("x@1.mount", "invalid unit type for template: \"mount\""),
            ("x y@1.mount", "invalid unit type for template: \"mount\""),
            ("a b.service", "invalid character ' ' in unit name"),
            ("a'b.service", "invalid character '\\'' in unit name"),
            ("ä.service", "invalid character 'ä' in unit name"),
            ("../../etc/x.service", "invalid character '/' in unit name"),
            ("@.service", "unit name cannot start in \"@\""),
            (".service", "unit name cannot start in \".\""),
            (&longest, ""),
            ("a.b:c-d_e\\x2d.service", ""),
        ] {
            let said = UnitName::parse(name).err().map(|error| error.to_string()).unwrap_or_default();
            assert_eq!(said, expected, "{name:?}");
        }
    }

    #[test]
    fn each_unit_type_is_known_and_some_may_be_templates() {
        let types = |template: &str| -> Vec<&str> {
            let takes = |suffix: &&&str| UnitName::parse(&format!("a{template}.{suffix}")).is_ok();
            SUFFIXES.iter().filter(takes).copied().collect()
        };
        assert_eq!(
            types("").join(" "),
            "automount busname container device mount path scope service slice snapshot socket swap target timer"
        );
        assert_eq!(types("@").join(" "), "container path service socket target timer");
    }

    #[test]
    fn parts_of_a_name() {
        let web = UnitName::parse("web@3.service").unwrap();
        assert_eq!((web.prefix(), web.instance(), web.suffix()), ("web", Some("3"), "service"));
        assert_eq!(web.template().unwrap().as_str(), "web@.service");
        assert_eq!(web.replica_number(), Some(3));
        assert_eq!(UnitName::trusted("web@03.service").replica_number(), None);
        assert_eq!(UnitName::trusted("web@.service").replica(12).as_str(), "web@12.service");
        assert_eq!(UnitName::trusted("a.b@x.y.service").prefix(), "a.b");
        assert_eq!(UnitName::trusted("web@2.container").systemd_name().as_str(), "web@2.service");
    }
}
