//! Unit names and machine ids: parsed once at the edge, cheap to copy, ordered.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::de::{Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// The longest unit name that fleet 1.0 took, in bytes.
pub const MAX_NAME_BYTES: usize = 256;

/// The longest name that a machine can run, in bytes: a file name ends at 255, and the agent notes
/// what it knows of a unit in `NAME.template`.
pub const LONGEST_BYTES: usize = 255 - ".template".len();

/// How many digits the number of a replica may have: a million replicas.
const REPLICA_DIGITS: usize = 7;

/// The longest machine id that is read, in bytes. systemd's have 32.
const MAX_MACHINE_ID_BYTES: usize = 128;

/// What may follow the last dot. Quadlet units are services to systemd (see
/// [`UnitName::systemd_name`]).
pub const SUFFIXES: &[&str] = &[
    "artifact",
    "automount",
    "build",
    "busname",
    "container",
    "device",
    "image",
    "kube",
    "mount",
    "network",
    "path",
    "pod",
    "scope",
    "service",
    "slice",
    "snapshot",
    "socket",
    "swap",
    "target",
    "timer",
    "volume",
];

/// The types of Quadlet units, each with what podman's generator puts behind the stem of the
/// service that it makes.
const QUADLET_TYPES: &[(&str, &str)] = &[
    ("artifact", "-artifact"),
    ("build", "-build"),
    ("container", ""),
    ("image", "-image"),
    ("kube", ""),
    ("network", "-network"),
    ("pod", "-pod"),
    ("volume", "-volume"),
];

/// The types of Quadlet units that run by themselves. The others are on a machine for those that
/// name them.
const RUNNABLE_QUADLET_TYPES: &[&str] = &["container", "kube", "pod"];

/// Units that are not anybody's to write. Those of systemd are always there and cannot be stopped,
/// or hold all that runs on a machine; those of fleet hold all that fleet runs.
const RESERVED: &[&str] = &[
    "-.mount",
    "-.slice",
    "fleet-guard.service",
    "fleet-keeper.service",
    "fleet.slice",
    "fleetd.service",
    "fleetd.socket",
    "init.scope",
    "machine.slice",
    "system.slice",
    "user.slice",
];

/// The types that may be templates.
const TEMPLATE_SUFFIXES: &[&str] = &[
    "artifact",
    "build",
    "container",
    "image",
    "kube",
    "network",
    "path",
    "pod",
    "service",
    "socket",
    "target",
    "timer",
    "volume",
];

/// The name of a unit, template or instance: `db.service`, `web@.service`, `web@3.service`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct UnitName(Arc<str>);

/// Names in documents are read with care: they become names of files. Their type is not looked at,
/// since a later version may know more of them.
impl<'de> Deserialize<'de> for UnitName {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<UnitName, D::Error> {
        from.deserialize_str(Reader(UnitName::read, "a unit's name"))
    }
}

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
        if let Some(bad) = stem.chars().find(|c| !is_allowed(*c)) {
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

    /// A name in a document or a key: of the form `NAME.TYPE`, whatever the type, since a later
    /// version may know more of them. It may become the name of a file.
    pub fn read(text: &str) -> Option<UnitName> {
        well_formed(text).then(|| UnitName(text.into()))
    }

    /// Why no new unit may have this name, though fleet 1.0 took it: no machine could run it as
    /// itself. `None` if one may.
    pub fn refusal(&self) -> Option<String> {
        let (name, runs_as) = (self.as_str(), self.systemd_name());
        let digits = if self.is_template() { REPLICA_DIGITS } else { 0 };
        let slice = |of: &str| runs_as.suffix() == "slice" && self.stem().starts_with(of);
        if RESERVED.contains(&runs_as.as_str()) || slice("fleet-") {
            let whose = if name.starts_with("fleet") { "fleet's" } else { "systemd's" };
            return Some(format!("{name} is {whose} own; choose another name"));
        }
        if self.prefix().ends_with('-') {
            // systemd reads NAME.d for all units whose names begin so, the host's own too.
            let all = match self.instance() {
                None => format!("{}*.{}", self.prefix(), runs_as.suffix()),
                Some(instance) => format!("{}*@{instance}.{}", self.prefix(), runs_as.suffix()),
            };
            return Some(format!(
                "{name} stands for every {all} to systemd; choose a name that does not end in \"-\""
            ));
        }
        if name.len() + digits > LONGEST_BYTES {
            let limit = LONGEST_BYTES - digits;
            return Some(format!(
                "the name has {} bytes; the limit is {limit}, since files are named after it",
                name.len()
            ));
        }
        None
    }

    /// A name that is known to be good, because it was built from one. What comes from outside is
    /// parsed.
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

    /// What stands between `@` and the last dot: `Some("3")`; `Some("")` for a template; `None`
    /// without an `@`.
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
            Some(instance) if !instance.is_empty() => {
                Some(UnitName(format!("{}@.{}", self.prefix(), self.suffix()).into()))
            }
            _ => None,
        }
    }

    /// The number of a replica (`3` for `web@3.service`), if it is written the way
    /// [`UnitName::replica`] writes it.
    pub fn replica_number(&self) -> Option<u32> {
        let instance = self.instance()?;
        let canonical = !instance.is_empty()
            && !instance.starts_with('0')
            && instance.bytes().all(|b| b.is_ascii_digit());
        if canonical { instance.parse().ok() } else { None }
    }

    /// The `number`th instance of this template.
    pub fn replica(&self, number: u32) -> UnitName {
        let suffix = self.suffix();
        UnitName(format!("{}@{number}.{suffix}", self.prefix()).into())
    }

    /// The name that systemd knows the unit by: a Quadlet `web.container` runs as `web.service`,
    /// `app.network` as `app-network.service`, `app@1.pod` as `app@1-pod.service`.
    pub fn systemd_name(&self) -> UnitName {
        match self.quadlet_ending() {
            None => self.clone(),
            Some(ending) => UnitName(format!("{}{ending}.service", self.stem()).into()),
        }
    }

    /// Whether podman's Quadlet generator turns this unit into a service.
    pub fn is_quadlet(&self) -> bool {
        self.quadlet_ending().is_some()
    }

    /// Whether it is never placed for itself, but is on every machine that runs something which
    /// names it: a network, volume, image, build or artifact of Quadlet.
    pub fn is_shared(&self) -> bool {
        self.is_quadlet() && !RUNNABLE_QUADLET_TYPES.contains(&self.suffix())
    }

    /// The other names under which a unit would be the same service to systemd: `web.container` and
    /// `web.kube` for `web.service`.
    pub fn twins(&self) -> Vec<UnitName> {
        let service = self.systemd_name();
        if service.suffix() != "service" {
            return Vec::new();
        }
        let quadlets = QUADLET_TYPES.iter().filter_map(|(kind, ending)| {
            let stem = service.stem().strip_suffix(ending).filter(|stem| !stem.is_empty())?;
            Some(UnitName(format!("{stem}.{kind}").into()))
        });
        let all = std::iter::once(service.clone()).chain(quadlets);
        all.filter(|name| name != self).collect()
    }

    fn quadlet_ending(&self) -> Option<&'static str> {
        let suffix = self.suffix();
        QUADLET_TYPES.iter().find(|(kind, _)| *kind == suffix).map(|(_, ending)| *ending)
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

/// Reads text of a document, and says what it should be.
struct Reader<T>(fn(&str) -> Option<T>, &'static str);

impl<T> Visitor<'_> for Reader<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.1)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        (self.0)(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

/// Whether systemd allows it in a unit's name.
fn is_allowed(c: char) -> bool {
    c.is_ascii_alphanumeric() || ":_.\\@-".contains(c)
}

/// Whether `text` can be a unit's name and the name of a file: `NAME.TYPE` of allowed characters.
fn well_formed(text: &str) -> bool {
    let dot = text.rfind('.').unwrap_or(0);
    text.len() <= MAX_NAME_BYTES
        && dot > 0
        && dot + 1 < text.len()
        && !text.starts_with('@')
        && text.chars().all(is_allowed)
}

/// A machine's id: the 32 hex digits of its `/etc/machine-id`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct MachineId(Arc<str>);

/// Ids in documents are read with care, as names are.
impl<'de> Deserialize<'de> for MachineId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<MachineId, D::Error> {
        from.deserialize_str(Reader(MachineId::parse, "a machine's id"))
    }
}

impl MachineId {
    /// Reads an id; `None` for what cannot be one: it is a part of keys, and may become one of a
    /// file's name.
    pub fn parse(text: &str) -> Option<MachineId> {
        let good = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
        let first = text.bytes().next()?;
        let fits = text.len() <= MAX_MACHINE_ID_BYTES
            && first != b'.'
            && first != b'-'
            && text.bytes().all(good);
        fits.then(|| MachineId(text.into()))
    }

    /// Takes an id that is known to be good: it was parsed, or stands in `/etc/machine-id`. What
    /// comes from outside is parsed.
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
            let said =
                UnitName::parse(name).err().map(|error| error.to_string()).unwrap_or_default();
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
            "artifact automount build busname container device image kube mount network path pod \
                scope service slice snapshot socket swap target timer volume"
        );
        assert_eq!(
            types("@").join(" "),
            "artifact build container image kube network path pod service socket target timer volume"
        );
    }

    #[test]
    fn a_name_that_no_machine_could_run_as_itself_is_refused_for_new_units() {
        let refused = |name: &str| UnitName::parse(name).unwrap().refusal().unwrap_or_default();
        // systemd reads `app-.service.d` for `app-web.service`, and `app-@x.service.d` for
        // `app-web@x.service`.
        for (name, all) in [
            ("app-.service", "every app-*.service "),
            ("app-.container", "every app-*.service "),
            ("app-@.service", "every app-*@.service "),
            ("app-@x.service", "every app-*@x.service "),
            ("a-b-.timer", "every a-b-*.timer "),
            ("--.service", "every --*.service "),
        ] {
            assert!(refused(name).contains(all), "{name}: {}", refused(name));
        }
        for name in
            ["-.slice", "-.mount", "system.slice", "user.slice", "machine.slice", "init.scope"]
        {
            assert_eq!(refused(name), format!("{name} is systemd's own; choose another name"));
        }
        for name in [
            "fleet.slice",
            "fleet-web.slice",
            "fleetd.service",
            "fleetd.container",
            "fleet-guard.service",
        ] {
            assert_eq!(refused(name), format!("{name} is fleet's own; choose another name"));
        }
        for name in [
            "app-web.service",
            "-a.service",
            "a@-.service",
            "a@b-.service",
            "fleet-web.service",
            "app.slice",
        ] {
            assert_eq!(refused(name), "", "{name}");
        }
    }

    #[test]
    fn a_name_may_be_as_long_as_the_files_that_are_named_after_it() {
        let long = |bytes: usize, ending: &str| {
            let name = format!("{}{ending}", "a".repeat(bytes - ending.len()));
            UnitName::parse(&name).unwrap().refusal().unwrap_or_default()
        };
        assert_eq!(long(246, ".service"), "");
        for bytes in [247, 251, 255, 256] {
            let said = format!(
                "the name has {bytes} bytes; the limit is 246, since files are named after it"
            );
            assert_eq!(long(bytes, ".service"), said);
        }
        // A template's millionth replica has seven digits more.
        assert_eq!(long(239, "@.service"), "");
        assert!(long(240, "@.service").contains("the limit is 239"));
    }

    #[test]
    fn names_and_ids_in_documents_are_read_with_care() {
        let name = |text: &str| {
            serde_json::from_value::<UnitName>(text.into()).map(|name| name.to_string())
        };
        for good in ["a.service", "web@3.service", "app-.service", "a.network", "a\\x2d.later-type"]
        {
            assert_eq!(name(good).unwrap(), good);
        }
        let long = format!("{}.service", "a".repeat(MAX_NAME_BYTES));
        for bad in [
            "",
            "a",
            ".service",
            "a.",
            "@.service",
            "../a.service",
            "a/b.service",
            "a b.service",
            "a\n.service",
            &long,
        ] {
            assert_eq!(
                name(bad).unwrap_err().to_string(),
                format!("invalid value: string {bad:?}, expected a unit's name")
            );
        }
        let id =
            |text: &str| serde_json::from_value::<MachineId>(text.into()).map(|id| id.to_string());
        for good in ["4dbc7f3b59c84a2f8d1c0f6a7e5b3c21", "m", "my_host-1.lan"] {
            assert_eq!(id(good).unwrap(), good);
        }
        for bad in ["", "..", ".a", "-oProxyCommand=x", "a/b", "a b", "a\u{1b}", &"a".repeat(129)] {
            assert_eq!(
                id(bad).unwrap_err().to_string(),
                format!("invalid value: string {bad:?}, expected a machine's id")
            );
        }
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

    #[test]
    fn quadlet_units_run_as_the_services_that_podman_makes_of_them() {
        for (name, service, shared) in [
            ("web.container", "web.service", false),
            ("k.kube", "k.service", false),
            ("app.pod", "app-pod.service", false),
            ("app@2.pod", "app@2-pod.service", false),
            ("app.network", "app-network.service", true),
            ("data.volume", "data-volume.service", true),
            ("x.image", "x-image.service", true),
            ("y.build", "y-build.service", true),
            ("z.artifact", "z-artifact.service", true),
            ("db.service", "db.service", false),
        ] {
            let name = UnitName::parse(name).unwrap();
            assert_eq!((name.systemd_name().as_str(), name.is_shared()), (service, shared));
        }
        let twins = |name: &str| -> String {
            let twins = UnitName::trusted(name).twins();
            twins.iter().map(UnitName::as_str).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(twins("web.service"), "web.container web.kube");
        assert_eq!(twins("web@1.kube"), "web@1.service web@1.container");
        assert_eq!(twins("app.pod"), "app-pod.service app-pod.container app-pod.kube");
        assert_eq!(twins("a.timer"), "");
    }
}
