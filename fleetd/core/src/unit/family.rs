//! Which unit an instance follows from: the one of its own name, or the template that counts it.

use std::collections::{BTreeMap, BTreeSet};

use crate::name::UnitName;

/// The unit called `name`, or the template whose replica that is.
pub fn owner<'a, T>(
    units: &'a BTreeMap<UnitName, T>,
    name: &UnitName,
    replicas: impl Fn(&T) -> Option<u32>,
) -> Option<(&'a UnitName, &'a T)> {
    units.get_key_value(name).or_else(|| {
        let (template, unit) = units.get_key_value(&name.template()?)?;
        is_counted(name, replicas(unit)).then_some((template, unit))
    })
}

/// Whether `instance` is among the `replicas` of its template.
pub fn is_counted(instance: &UnitName, replicas: Option<u32>) -> bool {
    let counted = 1..=replicas.unwrap_or(0);
    instance.replica_number().is_some_and(|number| counted.contains(&number))
}

/// The names of units, and of the replicas of those that are scaled.
pub fn names<T>(
    units: &BTreeMap<UnitName, T>,
    replicas: impl Fn(&T) -> Option<u32>,
) -> BTreeSet<UnitName> {
    let mut names: BTreeSet<UnitName> = units.keys().cloned().collect();
    for (name, unit) in units.iter().filter(|(name, _)| name.is_template()) {
        names.extend((1..=replicas(unit).unwrap_or(0)).map(|number| name.replica(number)));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_follows_from_its_own_unit_or_from_the_template_that_counts_it() {
        let units: BTreeMap<UnitName, Option<u32>> =
            [("db.service", None), ("web@.service", Some(2)), ("web@7.service", None)]
                .map(|(name, count)| (UnitName::trusted(name), count))
                .into();
        let of = |name: &str| {
            owner(&units, &UnitName::trusted(name), |count| *count).map(|(owner, _)| owner.as_str())
        };
        for (name, expected) in [
            ("db.service", Some("db.service")),
            ("web@2.service", Some("web@.service")),
            ("web@3.service", None),
            ("web@0.service", None),
            ("web@a.service", None),
            ("web@7.service", Some("web@7.service")),
            ("other.service", None),
        ] {
            assert_eq!(of(name), expected, "{name}");
        }
        let names: Vec<String> =
            names(&units, |count| *count).iter().map(ToString::to_string).collect();
        assert_eq!(
            names.join(" "),
            "db.service web@.service web@1.service web@2.service web@7.service"
        );
    }
}
