//! A small language for clusters, for tests: text to a snapshot, a plan to text, and a plan applied
//! to its snapshot.

use std::fmt::Write as _;
use std::sync::Arc;

use super::fencing::fenced;
use super::{Change, Plan};
use crate::app::AppName;
use crate::configuration::Asked;
use crate::health::Health;
use crate::model::{
    Assignment, Availability, DesiredState, FORMAT, InstanceStatus, Machine, Placement, Report,
    Snapshot, Unit, UnitRecord, Why, Wish,
};
use crate::model::{Fenced, KeeperState, Off};
use crate::name::{MachineId, UnitName};

/// Reads a cluster, one item a line. A machine without a `machine` line is absent: lost, or
/// `settling`.
///
/// ```text
/// now 5000
/// machine a region=eu                          a machine that is there, its labels
/// settling b                                   an absent machine that gets time to return
/// unit web@.service x3 rev=2 | Global=true     a unit: [inactive|loaded|launched] [xN] [rev=N] [restart=N], its [X-Fleet] options
/// on a: web@1.service web@2.service/moves=1    what a machine is assigned: [/rev=N][/loaded][/spare][/moves=N][/since=MS][/unit=NAME]
/// gave-up a: web@1.service                     what it reports as failing in vain
/// off a: db.service/gen=3                      a fenced instance taken off and maybe alive: [/gen=N]
/// report a gen=3: web@1.service                what it reports, and of which generation
/// runs a: web@1.service web@2.service/failed   what it reports of its present assignment (or [gen=N]), in the texts that it is assigned
/// drain a                                      a machine that is drained; likewise `cordon`
/// evict a 5000                                 when what is left on that drained machine is stopped
/// move web@1.service b                         a move that a user asked for
/// keeper a life=9 silent=5000                  the keeper of fenced units: [held|elsewhere|released] [life=N] [silent=MS], WatchdogSec=8
/// ```
pub(crate) fn snapshot(text: &str) -> Snapshot {
    let mut snapshot = Snapshot { now_ms: 1_000_000, revision: 100, ..Snapshot::default() };
    let lines: Vec<(&str, &str)> =
        text.lines().filter_map(|line| line.trim().split_once(' ')).collect();
    for (_, rest) in lines.iter().filter(|(word, _)| *word == "unit") {
        let unit = unit(rest);
        snapshot.units.insert(unit.name.clone(), Arc::new(unit));
    }
    for (word, rest) in lines {
        match word {
            "now" => snapshot.now_ms = rest.parse().unwrap(),
            "machine" => {
                let machine = machine(rest);
                snapshot.machines.insert(machine.id.clone(), Arc::new(machine));
            }
            "settling" => snapshot.settling.extend(rest.split_whitespace().map(MachineId::new)),
            "on" => {
                let (id, items) = rest.split_once(':').unwrap();
                let instances =
                    items.split_whitespace().map(|item| placement(&snapshot, item)).collect();
                let assignment =
                    Assignment { v: FORMAT, generation: 1, instances, ..Assignment::default() };
                snapshot.assignments.insert(MachineId::new(id), Arc::new(assignment));
            }
            "gave-up" => {
                let (id, items) = rest.split_once(':').unwrap();
                let status = InstanceStatus {
                    active: "failed".into(),
                    gave_up: true,
                    ..InstanceStatus::default()
                };
                let instances = items
                    .split_whitespace()
                    .map(|name| (UnitName::trusted(name), status.clone()))
                    .collect();
                let generation = snapshot.assignments.get(id).map_or(0, |seen| seen.generation);
                snapshot.reports.insert(
                    MachineId::new(id),
                    Arc::new(Report { generation, instances, ..Report::default() }),
                );
            }
            "off" => {
                let (id, items) = rest.split_once(':').unwrap();
                let assignment = snapshot.assignments.entry(MachineId::new(id)).or_default();
                Arc::make_mut(assignment).off = items.split_whitespace().map(off).collect();
            }
            "report" => {
                let (head, items) = rest.split_once(':').unwrap();
                let (id, generation) = head.split_once(" gen=").unwrap();
                let status =
                    InstanceStatus { active: "active".into(), ..InstanceStatus::default() };
                let instances = items
                    .split_whitespace()
                    .map(|name| (UnitName::trusted(name), status.clone()))
                    .collect();
                let report = Report {
                    generation: generation.parse().unwrap(),
                    instances,
                    ..Report::default()
                };
                snapshot.reports.insert(MachineId::new(id), Arc::new(report));
            }
            "runs" => {
                let (head, items) = rest.split_once(':').unwrap();
                let (id, generation) =
                    head.split_once(" gen=").map_or((head, None), |(id, n)| (id, Some(n)));
                let assignment = snapshot.assignments[id].clone();
                let instances =
                    items.split_whitespace().map(|item| runs(&assignment, item)).collect();
                let generation = generation.map_or(assignment.generation, |n| n.parse().unwrap());
                let report = Report { generation, instances, ..Report::default() };
                snapshot.reports.insert(MachineId::new(id), Arc::new(report));
            }
            "drain" => {
                snapshot.availability.insert(MachineId::new(rest), Availability::Draining);
            }
            "cordon" => {
                snapshot.availability.insert(MachineId::new(rest), Availability::Cordoned);
            }
            "evict" => {
                let (id, at_ms) = rest.split_once(' ').unwrap();
                snapshot.evictions.insert(MachineId::new(id), at_ms.parse().unwrap());
            }
            "move" => {
                let (instance, to) = rest.split_once(' ').unwrap();
                let wish = Wish { to: MachineId::new(to), revision: 90 };
                snapshot.moves.insert(UnitName::trusted(instance), wish);
            }
            "keeper" => {
                let (id, words) = rest.split_once(' ').unwrap();
                snapshot.keepers.insert(MachineId::new(id), keeper(words));
            }
            "unit" => {}
            other => panic!("no such word in a cluster: {other}"),
        }
    }
    snapshot
}

/// What a machine reports of an instance that does as it is assigned, is in another state, was
/// `restarted` lately, is `settling`, or by its check is `starting`, `healthy` or `unhealthy`.
pub(crate) fn runs(assignment: &Assignment, item: &str) -> (UnitName, InstanceStatus) {
    let (name, active) = item.split_once('/').unwrap_or((item, "active"));
    let (active, restarts, settling, health) = match active {
        "restarted" => ("active", 1, false, None),
        "settling" => ("active", 0, true, None),
        "starting" => ("active", 0, false, Some(Health::Starting)),
        "healthy" => ("active", 0, false, Some(Health::Healthy)),
        "unhealthy" => {
            let health = Health::Unhealthy { why: "503".to_string(), since_ms: 0 };
            ("active", 0, false, Some(health))
        }
        active => (active, 0, false, None),
    };
    let placement = &assignment.instances[name];
    let status = InstanceStatus {
        active: active.to_string(),
        restarts,
        settling,
        health,
        launched: true,
        hash: placement.hash.clone(),
        restart: placement.restart,
        config: placement.config,
        ..InstanceStatus::default()
    };
    (UnitName::trusted(name), status)
}

fn off(item: &str) -> (UnitName, Off) {
    let (name, generation) = item.split_once("/gen=").unwrap();
    let fence = Fenced { token: 1, stop_ms: 90_000, after: Vec::new() };
    let off = Off {
        generation: generation.parse().unwrap(),
        fence,
        why: Some(Why::Unfit(MachineId::new("a"))),
        moves: 0,
    };
    (UnitName::trusted(name), off)
}

fn keeper(words: &str) -> KeeperState {
    let mut keeper = KeeperState { life: 7, watchdog_ms: 8_000, ..KeeperState::default() };
    for word in words.split_whitespace() {
        match word.split_once('=').unwrap_or((word, "")) {
            ("held", _) => keeper.held = true,
            ("elsewhere", _) => (keeper.held, keeper.of_another_boot) = (true, true),
            ("released", _) => keeper.released = true,
            ("life", n) => keeper.life = n.parse().unwrap(),
            (_, n) => keeper.silent_ms = n.parse().unwrap(),
        }
    }
    keeper
}

fn machine(rest: &str) -> Machine {
    let mut words = rest.split_whitespace();
    let id = MachineId::new(words.next().unwrap());
    let mut machine = Machine::new(id, "");
    for word in words {
        let names = |text: &str| text.split(',').map(str::to_string).collect();
        match (word.strip_prefix("podman:"), word.strip_prefix("secrets:")) {
            (Some(version), _) => machine.podman = Some(version.to_string()),
            (_, Some(secrets)) => machine.secrets = Some(names(secrets)),
            _ => {
                let (key, value) = word.split_once('=').unwrap();
                machine.metadata.insert(key.to_string(), value.to_string());
            }
        }
    }
    machine
}

fn unit(rest: &str) -> Unit {
    let mut options = rest.split('|').map(str::trim);
    let mut words = options.next().unwrap().split_whitespace();
    let mut record = UnitRecord {
        desired: DesiredState::Launched,
        ..UnitRecord::new(UnitName::parse(words.next().unwrap()).unwrap(), "")
    };
    for word in words {
        match word.split_once('=').unwrap_or((word, "")) {
            ("rev", n) => record.revision = n.parse().unwrap(),
            ("restart", n) => record.restart = n.parse().unwrap(),
            ("config", n) => {
                let name = AppName::parse("shop").unwrap();
                record.config = Some(Asked { name, revision: n.parse().unwrap() });
            }
            (state, "") if DesiredState::parse(state).is_some() => {
                record.desired = DesiredState::parse(state).unwrap()
            }
            (count, _) => record.replicas = Some(count.strip_prefix('x').unwrap().parse().unwrap()),
        }
    }
    let options: Vec<&str> = options.collect();
    record.text = format!(
        "[Service]\nExecStart=/bin/v{}\n[X-Fleet]\n{}\n",
        record.revision,
        options.join("\n")
    );
    Unit::from_record(&record)
}

fn placement(snapshot: &Snapshot, item: &str) -> (UnitName, Placement) {
    let mut words = item.split('/');
    let name = UnitName::trusted(words.next().unwrap());
    let owner = snapshot.units.get(&name).or_else(|| snapshot.units.get(&name.template()?));
    let mut placement = Placement {
        unit: owner
            .map_or_else(|| name.template().unwrap_or(name.clone()), |unit| unit.name.clone()),
        revision: owner.map_or(1, |unit| unit.revision),
        hash: owner.map_or("gone".into(), |unit| unit.hash.clone()),
        state: owner
            .map(|unit| unit.desired)
            .filter(|s| *s != DesiredState::Inactive)
            .unwrap_or(DesiredState::Launched),
        why: Why::Fewest,
        since_ms: 0,
        changed_ms: 0,
        moves: 0,
        restart: 0,
        config: 0,
        fence: owner.and_then(|unit| unit.fence()).map(|terms| fenced(terms, &name, 1)),
    };
    for word in words {
        match word.split_once('=').unwrap_or((word, "")) {
            ("rev", n) => {
                (placement.revision, placement.hash) = (n.parse().unwrap(), format!("v{n}").into())
            }
            ("moves", n) => placement.moves = n.parse().unwrap(),
            ("since", n) => placement.since_ms = n.parse().unwrap(),
            ("spare", _) => placement.why = Why::Spare,
            ("unit", name) => placement.unit = UnitName::trusted(name),
            (state, _) => placement.state = DesiredState::parse(state).unwrap(),
        }
    }
    (name, placement)
}

/// Prints a plan: `+` placed, `-` taken off, `~` updated, `…` waits for its other copy, its
/// unit's budget or another unit, `=` a wish that is answered, `!` fits nowhere.
pub(crate) fn print(plan: &Plan) -> String {
    let mut text = String::new();
    for change in &plan.changes {
        let _ = match change {
            Change::Place { instance, machine, why } => {
                writeln!(text, "+ {instance} on {machine}: {why}")
            }
            Change::Retire { instance, machine, why } => {
                writeln!(text, "- {instance} off {machine}: {why:?}")
            }
            Change::Update { instance, machine } => writeln!(text, "~ {instance} on {machine}"),
        };
    }
    for held in &plan.held {
        let _ = writeln!(text, "… {}: {held}", held.instance);
    }
    for rolling in &plan.rolling {
        let _ = writeln!(text, "… {}: {rolling}", rolling.unit);
    }
    for needing in &plan.needing {
        let names: Vec<&str> = needing.instances.iter().map(UnitName::as_str).collect();
        let _ = writeln!(text, "… {}: needs {}", names.join(" "), needing.needs);
    }
    for (instance, answered) in &plan.answered {
        let said = answered.refused.as_ref().map_or("there".to_string(), |why| why.to_string());
        let _ = writeln!(text, "= {instance} to {}: {said}", answered.to);
    }
    for (machine, life) in &plan.guards {
        let _ = writeln!(text, "if the keeper of {machine} is away in its life {life}");
    }
    for unplaced in &plan.unplaced {
        let names: Vec<&str> = unplaced.instances.iter().map(UnitName::as_str).collect();
        let reasons: Vec<String> = unplaced
            .misfits
            .iter()
            .map(|(misfit, machines)| format!("{machines} × {misfit}"))
            .collect();
        let _ = writeln!(text, "! {}: {}", names.join(" "), reasons.join("; "));
    }
    if let Some(at) = plan.wake_at_ms {
        let _ = writeln!(text, "wake at {at}");
    }
    text.trim_end().to_string()
}

/// The snapshot after `plan` was committed.
pub(crate) fn applied(snapshot: &Snapshot, plan: &Plan) -> Snapshot {
    let mut next = snapshot.clone();
    next.assignments.extend(
        plan.documents.iter().map(|(id, document)| (id.clone(), Arc::new(document.clone()))),
    );
    next
}
