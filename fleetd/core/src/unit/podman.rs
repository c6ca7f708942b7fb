//! What a machine's podman must know and have to run a Quadlet unit.

use std::collections::BTreeSet;

use super::file::{UnitFile, words};
use super::xfleet::Constraints;
use crate::name::UnitName;

/// The types of Quadlet units, each with the version of podman, major and minor, that was the first
/// to know it.
const FIRST: &[(&str, (u32, u32))] = &[
    ("container", (4, 4)),
    ("kube", (4, 4)),
    ("pod", (5, 0)),
    ("network", (4, 4)),
    ("volume", (4, 4)),
    ("image", (4, 8)),
    ("build", (5, 2)),
    ("artifact", (5, 7)),
];

/// How a word of `BundleNeeds=` begins that names a secret.
const SECRET: &str = "secret:";

/// A type of Quadlet unit that needs podman where it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind(u8);

impl Kind {
    /// That of a unit; `None` for all that need no podman or are placed by no plan.
    pub fn of(name: &UnitName) -> Option<Kind> {
        Kind::named(name.suffix()).filter(|_| !name.is_shared())
    }

    /// The type of which names end so.
    fn named(suffix: &str) -> Option<Kind> {
        FIRST.iter().position(|(kind, _)| *kind == suffix).map(|at| Kind(at as u8))
    }

    /// The type, as names end.
    pub fn as_str(self) -> &'static str {
        FIRST[usize::from(self.0)].0
    }

    /// A number that tells kinds apart.
    pub(crate) fn number(self) -> u64 {
        u64::from(self.0) + 1
    }

    /// The first version of podman that knows it.
    fn first(self) -> (u32, u32) {
        FIRST[usize::from(self.0)].1
    }

    /// Whether this version of podman knows it: `5.4.2`. One that cannot be read may.
    pub fn is_known_to(self, version: &str) -> bool {
        major_minor(version).is_none_or(|version| version >= self.first())
    }
}

/// The type that takes the newest podman: of the unit's own, and of those that come with it.
pub(crate) fn newest_kind(name: &UnitName, wants: &Constraints) -> Option<Kind> {
    let own = Kind::of(name)?;
    let beside = wants.bundle_needs.iter().filter_map(|word| Kind::named(word));
    Some(beside.fold(own, |newest, kind| if kind.first() > newest.first() { kind } else { newest }))
}

/// The names of podman's secrets that a Quadlet file takes (`Secret=`), as it has them.
pub(crate) fn secrets_of(name: &UnitName, file: &UnitFile) -> BTreeSet<String> {
    let given = file.values("Container", "Secret").filter(|_| name.suffix() == "container");
    let given = given.flat_map(|value| words(&value.replace("\\\n", " ")));
    let names = given.filter_map(|word| Some(word.split(',').next()?.to_string()));
    names.filter(|name| !name.is_empty()).collect()
}

/// What the Quadlet files that come with a unit need of podman beside what the unit itself does, as
/// `BundleNeeds=` has it: types that not every podman knows, and secrets.
///
/// A name of a secret that holds a specifier other than `%i` is left out: it would stand for
/// something else in the unit's own text.
pub(crate) fn needs_of<'a>(
    quadlets: impl Iterator<Item = (&'a UnitName, &'a str)>,
) -> BTreeSet<String> {
    let mut needs = BTreeSet::new();
    for (name, text) in quadlets {
        let kind = Kind::named(name.suffix()).filter(|kind| kind.first() > FIRST[0].1);
        needs.extend(kind.map(|kind| kind.as_str().to_string()));
        let secrets = secrets_of(name, &UnitFile::parse_lenient(text)).into_iter();
        let secrets = secrets.filter(|secret| !secret.replace("%i", "").contains('%'));
        needs.extend(secrets.map(|secret| format!("{SECRET}{secret}")));
    }
    needs
}

/// The secrets among the words of `BundleNeeds=`.
pub(crate) fn secrets_among(needs: &[String]) -> impl Iterator<Item = String> {
    needs.iter().filter_map(|word| word.strip_prefix(SECRET)).map(str::to_string)
}

/// Whether `BundleNeeds=` may hold this word.
pub(crate) fn is_need(word: &str) -> bool {
    let secret = word.strip_prefix(SECRET);
    Kind::named(word).is_some() || secret.is_some_and(|name| !name.is_empty())
}

/// The first two numbers of a version.
pub fn major_minor(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        let pod = Kind::of(&UnitName::trusted("app@.pod")).unwrap();
        let known = ["4.9.3", "4.10", "5.0.0-rc1", "5.4.2", "10.0", "", "x"];
        assert_eq!(
            known.map(|version| pod.is_known_to(version)),
            [false, false, true, true, true, true, true]
        );
        assert_eq!(Kind::of(&UnitName::trusted("a.service")), None);
        assert_eq!(Kind::of(&UnitName::trusted("a.network")), None);
        assert_eq!(Kind::of(&UnitName::trusted("a.build")), None);
    }

    #[test]
    fn what_comes_with_a_unit_says_which_podman_it_takes_and_which_secrets() {
        let db = "[Container]\nSecret=pw,type=env \"a b\"\nSecret=%i-key\nSecret=%H-key\n";
        let texts = [
            ("app.network", "[Network]\n"),
            ("db@.container", db),
            ("x.build", "[Build]\nSecret=id=y,src=/z\n"),
            ("y.image", "[Image]\n"),
        ];
        let texts = texts.map(|(name, text)| (UnitName::trusted(name), text));
        let needs = needs_of(texts.iter().map(|(name, text)| (name, *text)));
        let needs: Vec<String> = needs.into_iter().collect();
        assert_eq!(needs, ["build", "image", "secret:%i-key", "secret:a b", "secret:pw"]);
        assert!(needs.iter().all(|word| is_need(word)));
        assert!(!["", "secret:", "service"].iter().any(|word| is_need(word)));
        let wants = Constraints { bundle_needs: needs, ..Constraints::default() };
        let newest = |name: &str| newest_kind(&UnitName::trusted(name), &wants).map(Kind::as_str);
        assert_eq!(newest("app@.pod"), Some("build"));
        assert_eq!(newest("app.service"), None);
    }
}
