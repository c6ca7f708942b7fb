//! In which order one command writes several units. Each write may be planned by itself, so a unit
//! that another one of the command needs on its machine is written before that one: a timer after
//! its service, and last what the others must run beside. So a host is brought them together, and
//! has the files of all before it starts the first.

use std::collections::BTreeSet;

use fleet_core::name::UnitName;
use fleet_core::unit::file::UnitFile;
use fleet_core::unit::xfleet::Constraints;
use fleet_core::wire::Unit;

use crate::sources::Source;

/// What counts of one unit.
struct Node {
    name: UnitName,
    /// What it must run beside: nothing places it before these are there.
    beside: BTreeSet<UnitName>,
    /// What systemd needs for its start.
    needs: BTreeSet<UnitName>,
}

/// Keeps the order of the command line where nothing speaks against it.
pub(super) fn in_order(sources: Vec<Source>) -> Vec<Source> {
    let nodes: Vec<Node> = sources.iter().map(|source| node(unit_of(source))).collect();
    let mut sources: Vec<Option<Source>> = sources.into_iter().map(Some).collect();
    order(&nodes).into_iter().filter_map(|index| sources[index].take()).collect()
}

fn unit_of(source: &Source) -> &Unit {
    match source {
        Source::Keep(unit)
        | Source::Same { unit, .. }
        | Source::Replace { new: unit, .. }
        | Source::Create(unit) => unit,
    }
}

fn node(unit: &Unit) -> Node {
    let name = UnitName::trusted(unit.name.as_str());
    let file = UnitFile::from_options(unit.options.clone());
    let beside = Constraints::from_file(&file)
        .expanded(&name)
        .machine_of
        .into_iter()
        .map(UnitName::trusted)
        .collect();
    let words =
        ["Requires", "Requisite", "BindsTo"].into_iter().flat_map(|key| file.values("Unit", key));
    let mut needs: BTreeSet<UnitName> =
        words.flat_map(str::split_whitespace).map(UnitName::trusted).collect();
    let triggers = match name.suffix() {
        "timer" => Some(file.last("Timer", "Unit")),
        "path" => Some(file.last("Path", "Unit")),
        "socket" => Some(file.last("Socket", "Service")),
        _ => None,
    };
    needs.extend(triggers.map(|named| {
        named.map_or_else(
            || UnitName::trusted(format!("{}.service", name.stem())),
            |named| UnitName::trusted(named.trim()),
        )
    }));
    Node { name, beside, needs }
}

/// Always the first that none of those left must go before; of a circle the first.
fn order(nodes: &[Node]) -> Vec<usize> {
    let goes_before = |first: &Node, then: &Node| {
        let named = |unit: &Node, other: &Node| unit.beside.contains(&other.name);
        named(first, then) || (then.needs.contains(&first.name) && !named(then, first))
    };
    let bound = |node: &Node| !node.beside.is_empty() || !node.needs.is_empty();
    if !nodes.iter().any(bound) {
        return (0..nodes.len()).collect();
    }
    let mut left: Vec<usize> = (0..nodes.len()).collect();
    let mut ordered = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let free = |index: &usize| {
            !left.iter().any(|other| other != index && goes_before(&nodes[*other], &nodes[*index]))
        };
        let next = left.iter().position(free).unwrap_or(0);
        ordered.push(left.remove(next));
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `name: option option`, one unit a line, into the names in their order.
    fn ordered(text: &str) -> String {
        let unit = |line: &str| {
            let (name, options) = line.trim().split_once(':').unwrap();
            let (fleet, systemd): (Vec<&str>, Vec<&str>) =
                options.split_whitespace().partition(|option| option.starts_with("MachineOf"));
            let text = format!("[Unit]\n{}\n[X-Fleet]\n{}\n", systemd.join("\n"), fleet.join("\n"));
            let options = UnitFile::parse_lenient(&text).options;
            Source::Create(Box::new(Unit { name: name.to_string(), options, ..Unit::default() }))
        };
        let sources = text.lines().map(unit).collect();
        in_order(sources)
            .iter()
            .map(|source| unit_of(source).name.clone())
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn what_must_be_beside_another_unit_is_written_before_that_and_a_service_before_its_timer() {
        assert_eq!(ordered("t.timer:\nt.service: MachineOf=t.timer"), "t.service t.timer");
        assert_eq!(ordered("inbox.path:\ninbox.service:"), "inbox.service inbox.path");
        assert_eq!(ordered("a.service: Requires=b.service\nb.service:"), "b.service a.service");
        // The timer is placed when its service is, so they come together all the same.
        assert_eq!(ordered("t.service:\nt.timer: MachineOf=t.service"), "t.timer t.service");
        assert_eq!(
            ordered("web@1.service:\nsay@1.service: MachineOf=web@%i BindsTo=web@%i"),
            "web@1.service say@1.service"
        );
        assert_eq!(
            ordered(
                "web@1.service:\nsay@1.service: MachineOf=web@%i.service BindsTo=web@%i.service"
            ),
            "say@1.service web@1.service"
        );
    }

    #[test]
    fn the_order_of_the_command_line_stands_otherwise_also_in_a_circle() {
        assert_eq!(
            ordered("c.service:\na.service:\nb.service: Requires=x.service"),
            "c.service a.service b.service"
        );
        assert_eq!(
            ordered("a.service: MachineOf=b.service\nb.service: MachineOf=a.service\nc.service:"),
            "c.service a.service b.service"
        );
    }
}
