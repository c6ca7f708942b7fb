//! What holds for every plan, tried on random clusters. The checker below is naive on purpose: it
//! shares no code with the board.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;

use super::rank::Way;
use super::script::{applied, print, snapshot};
use super::{Change, Plan, conduct, plan};
use crate::glob;
use crate::model::{DesiredState, Machine, Placement, Snapshot, Unit, Why};
use crate::name::{MachineId, UnitName};
use crate::unit::xfleet::Constraints;

/// The units that random clusters choose from: every option, names that begin alike, units that
/// name each other.
const UNITS: &[&str] = &[
    "web@.service xN",
    "web@.service xN | MachineMetadata=r=1",
    "web@.service xN | Conflicts=web@*.service",
    "web@2.service",
    "box@.container xN",
    "app@.pod xN | MachineMetadata=r=1",
    "web2@.service xN | Conflicts=web@1.service",
    "db.service",
    "db.service | Conflicts=web@*.service z?.service",
    "side@.service xN | MachineOf=web@%i.service",
    "side.service | MachineOf=db.service",
    "tail.service | MachineOf=side.service | Conflicts=z1.service",
    "near.service | MachineOf=agent.service",
    "agent.service | Global=true",
    "agent.service | Global=true | MachineMetadata=r=1 | Conflicts=z1.service",
    "pin.service | MachineID=b",
    "z1.service | MachineMetadata=r=1 | MachineMetadata=r=2 | MachineMetadata=s=1",
    "z2.service loaded",
    "z3.service inactive",
    "new.service | Replaces=db.service | Replaces=z?.service",
    "newer@.service xN | Replaces=new.service | Replaces=newer@*.service | Replaces=web@%i.service",
    "newest.service | Replaces=newer@?.service | MachineMetadata=s=1",
    "oldest.service | Replaces=newest.service",
    "round.service | MachineOf=robin.service",
    "robin.service | MachineOf=round.service",
    "web@.service xN restart=1 | MaxUnavailable=1",
    "web2@.service xN | MaxUnavailable=50% | MachineMetadata=r=1 | Conflicts=z?.service",
    "side@.service xN | MachineOf=web@%i.service | MaxUnavailable=1",
    "db.service restart=2 | MaxUnavailable=1 | Replaces=pin.service",
    "agent.service restart=1 | Global=true | MaxUnavailable=2",
    "web2@.service xN | MaxPerMachine=1",
    "web2@1.service | MaxPerMachine=2",
    "side@.service xN rev=2 | MachineOf=web@%i.service | MaxPerMachine=1 | MaxUnavailable=1",
    "z2.service | Conflicts=web2@3.service",
    "box@.container xN | BundleNeeds=secret:db | MaxUnavailable=1",
    "box2.container | BundleNeeds=build",
    "web@.service xN rev=2 | UpdateOrder=start-first | MaxUnavailable=50%",
    "web2@.service xN restart=1 | UpdateOrder=start-first | MaxPerMachine=2",
    "newer@.service xN rev=2 | UpdateOrder=start-first",
];

const INSTANCES: &[&str] = &[
    "web@1.service",
    "web@2.service",
    "web@3.service",
    "web@9.service",
    "web2@1.service",
    "web2@4.service/spare",
    "web@5.service/spare",
    "db.service",
    "side@1.service",
    "side.service",
    "tail.service",
    "near.service",
    "agent.service",
    "pin.service",
    "z1.service",
    "z2.service",
    "z3.service",
    "new.service",
    "newer@1.service",
    "newer@2.service",
    "newest.service",
    "oldest.service",
    "gone.service",
    "round.service",
    "robin.service",
];

fn cluster() -> impl Strategy<Value = String> {
    let units = proptest::sample::subsequence(UNITS, 0..=UNITS.len());
    let labels = prop::collection::vec((any::<bool>(), 0..3u8, 0..2u8), 5);
    let held = prop::collection::vec(
        (
            proptest::sample::subsequence(INSTANCES, 0..=6),
            any::<bool>(),
            any::<bool>(),
            any::<bool>(),
        ),
        5,
    );
    let closed = prop::collection::vec(0..8u8, 5);
    (units, labels, held, closed, 0..5u32).prop_map(|(units, labels, held, closed, replicas)| {
        let mut lines: Vec<String> = units
            .iter()
            .map(|unit| format!("unit {}", unit.replace("xN", &format!("x{replicas}"))))
            .collect();
        for (index, id) in ["a", "b", "c", "d", "e"].iter().enumerate() {
            let ((there, r, s), (instances, settling, failing, old)) =
                (labels[index], &held[index]);
            match (there || index < 2, settling) {
                (true, _) => {
                    let all = ["", " podman:", " podman:4.9 secrets:db", " podman:5.4 secrets:x"];
                    let podman = all[index % all.len()];
                    lines.push(format!("machine {id} r={r} s={s}{podman}"));
                }
                (false, true) => lines.push(format!("settling {id}")),
                (false, false) => {}
            }
            let texts = instances.iter().enumerate().map(|(n, name)| {
                if *old && n % 2 == 0 { format!("{name}/rev=9") } else { name.to_string() }
            });
            let names: Vec<&str> =
                instances.iter().map(|name| name.trim_end_matches("/spare")).collect();
            lines.push(format!("on {id}: {}", texts.collect::<Vec<_>>().join(" ")));
            match (failing, closed[index] % 2 == 0) {
                (true, _) => lines.push(format!("gave-up {id}: {}", names.join(" "))),
                (false, true) => lines.push(format!("runs {id}: {}", names.join(" "))),
                (false, false) => {}
            }
            match closed[index] {
                0 | 1 => lines.push(format!("drain {id}")),
                2 => lines.push(format!("cordon {id}")),
                _ => {}
            }
        }
        lines.join("\n")
    })
}

fn owner<'a>(snapshot: &'a Snapshot, name: &UnitName) -> Option<&'a Arc<Unit>> {
    snapshot.units.get(name).or_else(|| {
        let template = snapshot.units.get(&name.template()?)?;
        let counts = name.replica_number()? <= template.replicas.unwrap_or(0);
        (counts || template.starts_first() && is_spare(snapshot, name)).then_some(template)
    })
}

fn is_spare(snapshot: &Snapshot, name: &UnitName) -> bool {
    let mut placed = snapshot.assignments.values().filter_map(|a| a.instances.get(name));
    placed.any(Placement::is_spare)
}

/// Whether the machine itself is what the unit asks for.
fn suits(machine: &Machine, wants: &Constraints) -> bool {
    let is_it = wants.machine_id.as_ref().is_none_or(|id| machine.id.as_str().starts_with(id));
    let has = |(key, values): (&String, &BTreeSet<String>)| {
        values.iter().any(|value| machine.metadata.get(key) == Some(value))
    };
    let runs_it = wants.podman.is_none_or(|kind| {
        let podman = machine.podman.as_deref();
        podman.is_none_or(|version| !version.is_empty() && kind.is_known_to(version))
    });
    let knows = |secret: &String| machine.secrets.as_ref().is_none_or(|all| all.contains(secret));
    is_it && runs_it && wants.secrets.iter().all(knows) && wants.metadata.iter().all(has)
}

/// Everything that is wrong with what the living machines are assigned.
fn faults(snapshot: &Snapshot) -> Vec<String> {
    let mut faults = Vec::new();
    let mut seen: BTreeMap<&UnitName, usize> = BTreeMap::new();
    for (id, machine) in &snapshot.machines {
        let Some(assignment) = snapshot.assignments.get(id) else { continue };
        for (name, placement) in &assignment.instances {
            let Some(unit) =
                owner(snapshot, name).filter(|unit| unit.desired != DesiredState::Inactive)
            else {
                faults.push(format!("{name} on {id} is not wanted"));
                continue;
            };
            if waits(snapshot, id, name) {
                *seen.entry(name).or_default() += usize::from(!unit.constraints.global);
                continue;
            }
            if (&placement.unit, &placement.hash, placement.state)
                != (&unit.name, &unit.hash, unit.desired)
            {
                faults.push(format!("{name} on {id} is out of date"));
            }
            let wants = unit.constraints.expanded(name);
            if !wants.global {
                *seen.entry(name).or_default() += 1;
            }
            if !suits(machine, &wants) {
                faults.push(format!("{id} does not suit {name}"));
            }
            for peer in wants
                .machine_of
                .iter()
                .filter(|peer| !assignment.instances.contains_key(peer.as_str()))
            {
                faults.push(format!("{name} on {id} without {peer}"));
            }
            if let Some(most) = wants.max_per_machine {
                let alike = |other: &&UnitName| {
                    other.template() == name.template()
                        && !waits(snapshot, id, other)
                        && owner(snapshot, other)
                            .is_some_and(|unit| unit.constraints.max_per_machine.is_some())
                };
                let there = assignment.instances.keys().filter(alike).count();
                if there > most as usize {
                    faults.push(format!("{there} such as {name} on {id}"));
                }
            }
            let hits = |other: &&UnitName| {
                *other != name
                    && !waits(snapshot, id, other)
                    && wants.conflicts.iter().any(|p| glob::matches(p, other.as_str()))
            };
            faults.extend(
                assignment
                    .instances
                    .keys()
                    .filter(hits)
                    .map(|other| format!("{name} beside {other} on {id}")),
            );
        }
    }
    faults.extend(unmoved(snapshot));
    faults.extend(
        seen.iter().filter(|(_, n)| **n > 1).map(|(name, n)| format!("{name} runs {n} times")),
    );
    faults
}

/// Whether an instance may run an old text, or one without a restart that was asked for: its unit
/// is changed a few at a time. What its text demands is not known then.
fn waits(snapshot: &Snapshot, id: &MachineId, name: &UnitName) -> bool {
    let Some(unit) = owner(snapshot, name).filter(|unit| unit.max_unavailable().is_some()) else {
        return false;
    };
    let placement = &snapshot.assignments[id].instances[name];
    let launched =
        placement.state == DesiredState::Launched && unit.desired == DesiredState::Launched;
    launched && placement.hash != unit.hash
}

/// Instances beside one that replaces them, though another machine would take them.
fn unmoved(snapshot: &Snapshot) -> Vec<String> {
    let names = snapshot.assignments.values().flat_map(|a| a.instances.keys());
    let known: BTreeMap<&UnitName, Constraints> = names
        .filter_map(|name| Some((name, owner(snapshot, name)?.constraints.expanded(name))))
        .collect();
    let none = Constraints::default();
    let wants = |name: &UnitName| known.get(name).unwrap_or(&none);
    let hits = |patterns: &[String], name: &UnitName| {
        patterns.iter().any(|p| glob::matches(p, name.as_str()))
    };
    let pushes = |one: &UnitName, other: &UnitName| {
        one != other && hits(&wants(one).replaces, other) && !hits(&wants(other).replaces, one)
    };
    let clash = |one: &UnitName, other: &UnitName| {
        hits(&wants(one).conflicts, other) || hits(&wants(other).conflicts, one)
    };
    let on =
        |id: &MachineId| snapshot.assignments.get(id).into_iter().flat_map(|a| a.instances.keys());
    let mut unmoved = Vec::new();
    for id in snapshot.machines.keys() {
        let stays = |name: &&UnitName| !wants(name).global && wants(name).machine_of.is_empty();
        for name in on(id).filter(stays).filter(|name| on(id).any(|by| pushes(by, name))) {
            let takes = |other: &MachineId, machine| {
                other != id
                    && !snapshot.availability.contains_key(other)
                    && suits(machine, wants(name))
                    && on(other).all(|there| {
                        !clash(name, there) && !pushes(there, name) && !pushes(name, there)
                    })
            };
            let to = snapshot
                .machines
                .iter()
                .find(|(other, machine)| takes(other, machine))
                .map(|(other, _)| other);
            unmoved.extend(to.map(|to| format!("{name} on {id} is replaced and fits on {to}")));
        }
    }
    unmoved
}

fn places(snapshot: &Snapshot) -> BTreeSet<(MachineId, UnitName)> {
    let all = snapshot
        .assignments
        .iter()
        .flat_map(|(id, a)| a.instances.keys().map(move |name| (id.clone(), name.clone())));
    all.collect()
}

fn bytes(snapshot: &Snapshot) -> String {
    serde_json::to_string(&plan(snapshot).documents).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_plan_breaks_no_rule_and_leaves_nothing_to_plan(text in cluster()) {
        let before = snapshot(&text);
        let planned = plan(&before);
        let after = applied(&before, &planned);
        prop_assert_eq!(faults(&after), Vec::<String>::new(), "{}\n\n{}", text, print(&planned));
        let mut again = plan(&after);
        // What moves away may leave room for a spare, or what that is to stand in for: no more.
        if !again.documents.is_empty() && again.changes.iter().all(|change| matches!(change, Change::Place { why: Why::Spare, .. })) {
            let after = applied(&after, &again);
            prop_assert_eq!(faults(&after), Vec::<String>::new(), "{}\n\n{}", text, print(&again));
            again = plan(&after);
        }
        prop_assert!(again.documents.is_empty(), "{}\n\n{}\n\nthen\n{}", text, print(&planned), print(&again));
    }

    #[test]
    fn the_same_cluster_gives_the_same_bytes_however_it_was_built(text in cluster()) {
        let of = |words: &[&str]| text.lines().filter(|line| words.iter().any(|w| line.starts_with(w))).collect::<Vec<_>>();
        let (units, reports) = (of(&["unit"]), of(&["runs", "gave-up"])); // what they speak of comes before them
        let mut reversed = of(&["machine", "settling", "on", "drain", "cordon"]);
        reversed.reverse();
        prop_assert_eq!(bytes(&snapshot(&text)), bytes(&snapshot(&text)));
        prop_assert_eq!(bytes(&snapshot(&text)), bytes(&snapshot(&[units, reversed, reports].concat().join("\n"))));
    }

    #[test]
    fn a_snapshot_read_back_from_json_gives_the_same_bytes(text in cluster()) {
        let before = snapshot(&text);
        let read: Snapshot = serde_json::from_str(&serde_json::to_string(&before).unwrap()).unwrap();
        prop_assert_eq!(serde_json::to_string(&plan(&read)).unwrap(), serde_json::to_string(&plan(&before)).unwrap());
        prop_assert_eq!(plan(&read).digest(), plan(&before).digest());
    }

    #[test]
    fn the_fast_way_and_the_plain_way_choose_the_same_machine(text in cluster(), more in prop_oneof![3 => Just(0), 1 => 1..140u32]) {
        let more = (0..more).map(|n| format!("\nmachine m{n} r={} s={} podman:{}.0", n % 3, n / 5 % 2, n % 7));
        let before = snapshot(&(text.clone() + &more.collect::<String>()));
        let (fast, plain) = (conduct(&before, Way::Fast), conduct(&before, Way::Plain));
        let nowhere = |plan: &Plan| -> BTreeSet<UnitName> { plan.unplaced.iter().flat_map(|unplaced| unplaced.instances.clone()).collect() };
        prop_assert_eq!(&fast.changes, &plain.changes, "{}", text);
        prop_assert_eq!(nowhere(&fast), nowhere(&plain), "{}", text);
        prop_assert_eq!(fast.documents, plain.documents, "{}", text);
    }

    #[test]
    fn losing_a_machine_takes_nothing_off_the_others(text in cluster()) {
        // A unit that has to come here may push one off that it replaces.
        let quiet: Vec<&str> =
            text.lines().filter(|line| !["gave-up", "drain"].iter().any(|w| line.starts_with(w)) && !line.contains("Replaces")).collect();
        let before = snapshot(&quiet.join("\n"));
        let mut settled = applied(&before, &plan(&before));
        settled.machines.remove("a");
        settled.settling.clear();
        let after = applied(&settled, &plan(&settled));
        let lost = |id: &MachineId| !settled.machines.contains_key(id);
        // What a spare stood in for may be gone with its machine.
        let stays = |(id, name): &&(MachineId, UnitName)| !lost(id) && !is_spare(&settled, name);
        let moved: Vec<_> = places(&settled).difference(&places(&after)).filter(stays).cloned().collect();
        prop_assert!(moved.is_empty(), "{}\nmoved {:?}", text, moved);
    }

    #[test]
    fn plain_units_go_where_a_naive_search_puts_them(loads in prop::collection::vec(0..4usize, 1..6), labelled in prop::collection::vec(any::<bool>(), 0..12)) {
        let mut lines = Vec::new();
        for (index, load) in loads.iter().enumerate() {
            lines.push(format!("machine m{index} r={}", index % 2));
            let held: Vec<String> = (0..*load).map(|n| format!("old-{index}-{n}.service")).collect();
            lines.extend(held.iter().map(|name| format!("unit {name}")));
            lines.push(format!("on m{index}: {}", held.join(" ")));
        }
        for (index, labelled) in labelled.iter().enumerate() {
            lines.push(format!("unit unit-{index:02}.service{}", if *labelled { " | MachineMetadata=r=1" } else { "" }));
        }
        let before = snapshot(&lines.join("\n"));
        let after = applied(&before, &plan(&before));
        let mut loads = loads;
        for (index, labelled) in labelled.iter().enumerate() {
            let name = UnitName::trusted(format!("unit-{index:02}.service"));
            let best = (0..loads.len()).filter(|m| !labelled || m % 2 == 1).min_by_key(|m| (loads[*m], *m));
            let on = |m: usize| -> Option<&Placement> { after.assignments.get(format!("m{m}").as_str())?.instances.get(&name) };
            let found = (0..loads.len()).find(|m| on(*m).is_some());
            prop_assert_eq!(found, best, "{} in\n{}", name, lines.join("\n"));
            if let Some(best) = best {
                loads[best] += 1;
            }
        }
    }
}
