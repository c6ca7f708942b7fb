//! What a machine must be and hold for an instance: the judges' own rules, naive on purpose. They
//! share no code with the planner but the reading of a unit's text and of patterns.

use std::collections::{BTreeMap, BTreeSet};

use fleet_core::glob;
use fleet_core::name::{MachineId, UnitName};
use fleet_core::unit::xfleet::Constraints;

/// A machine as an instance finds it. That it has room is taken for granted: no run comes near the
/// limit.
pub(crate) struct Ground<'a> {
    /// Its id.
    pub(crate) id: &'a MachineId,
    /// Its labels, an operator's included.
    pub(crate) labels: &'a BTreeMap<String, String>,
    /// Whether it takes instances: nobody cordoned or drains it.
    pub(crate) open: bool,
    /// What is assigned to it, and what that demands; of each instance its own, specifiers put in.
    pub(crate) here: BTreeMap<UnitName, Constraints>,
}

/// Why the machine may not be given the instance; `None` if it may.
pub(crate) fn refusal(ground: &Ground, name: &UnitName, wants: &Constraints) -> Option<String> {
    let id = ground.id;
    if wants.machine_id.as_ref().is_some_and(|pin| *pin != id.as_str() && *pin != id.as_str()[..8])
    {
        return Some(format!("{name} is pinned to another machine than {id}"));
    }
    let has = |key: &String, values: &BTreeSet<String>| {
        ground.labels.get(key).is_some_and(|value| values.iter().any(|wanted| wanted == value))
    };
    if let Some((key, _)) = wants.metadata.iter().find(|(key, values)| !has(key, values)) {
        return Some(format!("{id} has not the label {key} that {name} asks for"));
    }
    // What belongs on each machine, or beside another, goes to closed ones, too.
    if !ground.open && !wants.global && wants.machine_of.is_empty() {
        return Some(format!("{id} takes nothing new, so not {name}"));
    }
    if let Some(peer) = wants
        .machine_of
        .iter()
        .find(|peer| !ground.here.keys().any(|other| other.as_str() == **peer))
    {
        return Some(format!("{name} on {id} without {peer}"));
    }
    if let Some(why) = is_full(ground, name, wants) {
        return Some(why);
    }
    let hits = |patterns: &[String], other: &UnitName| {
        patterns.iter().any(|pattern| glob::matches(pattern, other.as_str()))
    };
    let mut others = ground.here.iter().filter(|(other, _)| *other != name);
    let clash = others
        .find(|(other, theirs)| hits(&wants.conflicts, other) || hits(&theirs.conflicts, name));
    clash.map(|(other, _)| format!("{name} beside {other} on {id}"))
}

/// Whether `MaxPerMachine=` of the instance, or of an instance of the same template there, allows
/// no more. Those that do not have the option do not count.
fn is_full(ground: &Ground, name: &UnitName, wants: &Constraints) -> Option<String> {
    let template = name.template()?;
    let mut limits = vec![wants.max_per_machine?];
    for (other, theirs) in ground.here.iter().filter(|(other, _)| *other != name) {
        if other.template().as_ref() == Some(&template) {
            limits.extend(theirs.max_per_machine);
        }
    }
    // With the instance itself, there would be as many as there are limits.
    let lowest = limits.iter().min()?;
    (limits.len() > *lowest as usize)
        .then(|| format!("{name} on {} would be one of {}", ground.id, limits.len()))
}

#[cfg(test)]
mod tests {
    use fleet_core::unit::file::UnitFile;

    use super::*;

    fn wants(section: &str) -> Constraints {
        Constraints::from_file(&UnitFile::parse_lenient(&format!("[X-Fleet]\n{section}\n")))
    }

    fn refused(section: &str, here: &[(&str, &str)], open: bool) -> bool {
        refused_of("a.service", section, here, open)
    }

    fn refused_of(name: &str, section: &str, here: &[(&str, &str)], open: bool) -> bool {
        let id = MachineId::new("a0000001000000000000000000000001");
        let labels = [("zone".to_string(), "1".to_string())].into();
        let here =
            here.iter().map(|(name, section)| (UnitName::trusted(*name), wants(section))).collect();
        refusal(
            &Ground { id: &id, labels: &labels, open, here },
            &UnitName::trusted(name),
            &wants(section),
        )
        .is_some()
    }

    #[test]
    fn each_rule_refuses_what_it_should_and_nothing_else() {
        assert!(!refused("", &[("b.service", "Conflicts=c.service")], true));
        assert!(
            !refused("MachineID=a0000001", &[], true) && refused("MachineID=a0000002", &[], true)
        );
        assert!(
            !refused("MachineMetadata=zone=1", &[], true)
                && refused("MachineMetadata=zone=0", &[], true)
        );
        assert!(refused("MachineMetadata=disk=1", &[], true));
        assert!(
            !refused("MachineOf=b.service", &[("b.service", "")], true)
                && refused("MachineOf=b.service", &[], true)
        );
        assert!(
            refused("Conflicts=b.*", &[("b.service", "")], true)
                && !refused("Conflicts=*", &[("a.service", "")], true)
        );
        assert!(refused("", &[("b.service", "Conflicts=a.service")], true));
        let few = |most: u32, theirs: &[u32]| {
            let text = |most: &u32| format!("MaxPerMachine={most}");
            let texts: Vec<String> = theirs.iter().map(text).collect();
            let names = ["w@1.service", "w@2.service", "w@3.service"];
            let here: Vec<(&str, &str)> =
                names.into_iter().zip(texts.iter().map(String::as_str)).collect();
            refused_of("w@9.service", &text(&most), &here, true)
        };
        assert!(!few(1, &[]) && few(1, &[1]) && !few(2, &[2]) && few(2, &[2, 2]));
        assert!(few(3, &[1]) && few(1, &[3]), "the lowest number counts");
        let free = [("w@1.service", ""), ("v@1.service", "MaxPerMachine=1")];
        assert!(!refused_of("w@9.service", "MaxPerMachine=1", &free, true));
        assert!(!refused_of("w@9.service", "", &[("w@1.service", "MaxPerMachine=1")], true));
        assert!(refused("", &[], false) && !refused("Global=true", &[], false));
        assert!(!refused("MachineOf=b.service", &[("b.service", "")], false));
    }
}
