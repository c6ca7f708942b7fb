//! What a machine's podman must know to run a Quadlet unit.

use crate::name::UnitName;

/// The types of Quadlet units that are placed, each with the version of podman, major and minor,
/// that was the first to know it.
const FIRST: &[(&str, (u32, u32))] = &[("container", (4, 4)), ("kube", (4, 4)), ("pod", (5, 0))];

/// A type of Quadlet unit that needs podman where it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind(u8);

impl Kind {
    /// That of a unit; `None` for all that need no podman or are placed by no plan.
    pub fn of(name: &UnitName) -> Option<Kind> {
        let suffix = name.suffix();
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

    /// Whether this version of podman knows it: `5.4.2`. One that cannot be read may.
    pub fn is_known_to(self, version: &str) -> bool {
        major_minor(version).is_none_or(|version| version >= FIRST[usize::from(self.0)].1)
    }
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
    }
}
