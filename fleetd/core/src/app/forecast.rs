//! What an apply does to machines, as far as the present state of the cluster says. The leader
//! decides when it is applied, and knows more: which absent machines are about to return, and what
//! has happened since.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Applying;
use crate::model::{Assignment, DesiredState, Placement, Snapshot, Unit};
use crate::name::{MachineId, UnitName};
use crate::plan::plan;
use crate::wire::{InstanceOn, UnitPlan, Unplaced};

/// The instances of each unit with their machines.
type Placed<'a> = BTreeMap<UnitName, BTreeMap<InstanceOn, &'a Placement>>;

/// Fills in which instances start, stop and restart, and what fits nowhere.
pub fn forecast(snapshot: &Snapshot, now_ms: u64, applying: &mut Applying) {
    let units: BTreeSet<UnitName> =
        applying.plan.units.iter().map(|unit| UnitName::trusted(unit.name.as_str())).collect();
    let after = changed(snapshot, now_ms, applying);
    let planned = plan(&after);
    let mut documents: BTreeMap<&MachineId, &Assignment> =
        snapshot.assignments.iter().map(|(id, document)| (id, &**document)).collect();
    let before = placed(&documents, &units);
    documents.extend(&planned.documents);
    let then = placed(&documents, &units);
    for unit in &mut applying.plan.units {
        let name = UnitName::trusted(unit.name.as_str());
        let none = BTreeMap::new();
        let (was, will) = (before.get(&name).unwrap_or(&none), then.get(&name).unwrap_or(&none));
        unit.starts = will.keys().filter(|on| !was.contains_key(on)).cloned().collect();
        unit.stops = was.keys().filter(|on| !will.contains_key(on)).cloned().collect();
        let unplaced = planned.unplaced.iter().filter(|unplaced| unplaced.unit == name);
        unit.unplaced = unplaced
            .map(|unplaced| Unplaced {
                instances: unplaced.instances.clone(),
                reasons: unplaced
                    .misfits
                    .iter()
                    .map(|(misfit, count)| format!("{count} × {misfit}"))
                    .collect(),
            })
            .collect();
        if let Some(new) = after.units.get(&name) {
            let stays = was.iter().filter(|(on, _)| will.contains_key(on));
            restarts(unit, new, stays.map(|(_, placement)| *placement));
        }
    }
}

/// The snapshot as it is once the records are written.
fn changed(snapshot: &Snapshot, now_ms: u64, applying: &Applying) -> Snapshot {
    let mut after = Snapshot { now_ms, ..snapshot.clone() };
    for (record, _) in &applying.records {
        after.units.insert(record.name.clone(), Arc::new(Unit::from_record(record)));
    }
    for name in &applying.removed {
        after.units.remove(name);
    }
    // Whether an absent machine is lost is the leader's to say, and no matter of the apply.
    let absent = after.assignments.keys().filter(|id| !after.machines.contains_key(*id));
    let absent: Vec<MachineId> = absent.filter(|id| !after.left.contains(*id)).cloned().collect();
    after.settling.extend(absent);
    after
}

/// Where the instances of these units are.
fn placed<'a>(
    documents: &BTreeMap<&'a MachineId, &'a Assignment>,
    units: &BTreeSet<UnitName>,
) -> Placed<'a> {
    let mut placed = Placed::new();
    for (&machine, &document) in documents {
        for (instance, placement) in &document.instances {
            if units.contains(&placement.unit) {
                let on = InstanceOn { instance: instance.clone(), machine: machine.clone() };
                placed.entry(placement.unit.clone()).or_default().insert(on, placement);
            }
        }
    }
    placed
}

/// How many instances that stay where they are restart, and how many are down at once, those that
/// move included.
fn restarts<'a>(plan: &mut UnitPlan, new: &Unit, stay: impl Iterator<Item = &'a Placement>) {
    let same = match (&plan.old_text, &plan.new_text) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(old), Some(new)) => super::runs_the_same(old, new),
    };
    let launched = new.desired == DesiredState::Launched;
    let stay: Vec<&Placement> = stay.collect();
    let there = stay.len() + plan.starts.len();
    let running = stay.iter().filter(|placement| placement.state == DesiredState::Launched);
    plan.restarts = if same || !launched { 0 } else { running.count() };
    let moves = plan.stops.len().min(plan.starts.len());
    let down = plan.restarts + moves;
    let wanted = if new.name.is_template() { new.replicas.unwrap_or(0) as usize } else { there };
    let budget = new.max_unavailable().and_then(|max| max.limit(wanted));
    plan.down_at_most = budget.map_or(down, |budget| budget.min(down));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::{AppName, Request, changes};
    use crate::model::{FORMAT, Machine, UnitRecord, Why};
    use crate::view::Cluster;
    use crate::wire::AppFiles;

    const WEB: &str = "[Service]\nExecStart=/a\n[X-Fleet]\nReplicas=4\n";

    /// Two machines; web@ runs, two instances on each.
    fn cluster() -> Cluster {
        let mut cluster = Cluster::default();
        let mut record = UnitRecord::new(UnitName::trusted("web@.service"), WEB);
        (record.desired, record.replicas) = (DesiredState::Launched, Some(4));
        let unit = Arc::new(Unit::from_record(&record));
        for (id, numbers) in [("m1", [1, 2]), ("m2", [3, 4])] {
            let id = MachineId::new(id);
            let machine = Machine::new(id.clone(), "127.0.0.1");
            cluster.snapshot.machines.insert(id.clone(), Arc::new(machine));
            let placement = Placement {
                unit: record.name.clone(),
                revision: 1,
                hash: unit.hash.clone(),
                state: DesiredState::Launched,
                why: Why::Fewest,
                since_ms: 0,
                changed_ms: 0,
                moves: 0,
                restart: 0,
                fence: None,
                config: 0,
            };
            let instances = numbers.map(|number| (record.name.replica(number), placement.clone()));
            let assignment =
                Assignment { v: FORMAT, instances: instances.into(), ..Assignment::default() };
            cluster.snapshot.assignments.insert(id, Arc::new(assignment));
        }
        cluster.snapshot.units.insert(record.name.clone(), unit);
        cluster.records.insert(record.name.clone(), Arc::new(record));
        let (app, files) = shop(&[("web@.service", WEB)]);
        let request = Request { app: &app, files: &files, prune: false, now_ms: 0 };
        let document = changes(&cluster, request).unwrap().app.unwrap();
        cluster.apps.insert(app, Arc::new(document));
        cluster
    }

    fn shop(units: &[(&str, &str)]) -> (AppName, AppFiles) {
        let units = units.iter().map(|(name, text)| (name.to_string(), text.to_string()));
        let files = AppFiles { units: units.collect(), ..AppFiles::default() };
        (AppName::parse("shop").unwrap(), files)
    }

    /// What applying these units does, a unit a line.
    fn said(cluster: &Cluster, units: &[(&str, &str)]) -> String {
        let (app, files) = shop(units);
        let request = Request { app: &app, files: &files, prune: true, now_ms: 0 };
        let mut applying = changes(cluster, request).unwrap();
        forecast(&cluster.snapshot, 0, &mut applying);
        let on = |on: &InstanceOn| format!("{}:{}", on.instance.stem(), on.machine);
        let all = |list: &[InstanceOn]| list.iter().map(on).collect::<Vec<_>>().join(" ");
        let unplaced = |unplaced: &Unplaced| {
            format!(", {} nowhere: {}", unplaced.instances.len(), unplaced.reasons.join(", "))
        };
        let unit = |unit: &UnitPlan| {
            format!(
                "{}: +[{}] -[{}] {} restart, {} down{}",
                unit.name,
                all(&unit.starts),
                all(&unit.stops),
                unit.restarts,
                unit.down_at_most,
                unit.unplaced.iter().map(unplaced).collect::<String>()
            )
        };
        applying.plan.units.iter().map(unit).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn what_starts_stops_and_restarts_is_said() {
        let cluster = cluster();
        for (text, expected) in [
            (WEB.to_string(), "+[] -[] 0 restart, 0 down"),
            (format!("# why\n{WEB}"), "+[] -[] 0 restart, 0 down"),
            (format!("{WEB}MaxPerMachine=9\n"), "+[] -[] 0 restart, 0 down"),
            (WEB.replace("/a", "/b"), "+[] -[] 4 restart, 1 down"),
            (format!("{}MaxUnavailable=2\n", WEB.replace("/a", "/b")), "+[] -[] 4 restart, 2 down"),
            (
                format!("{}MaxUnavailable=100%\n", WEB.replace("/a", "/b")),
                "+[] -[] 4 restart, 4 down",
            ),
            (WEB.replace('4', "6"), "+[web@5:m1 web@6:m2] -[] 0 restart, 0 down"),
            (WEB.replace('4', "3"), "+[] -[web@4:m2] 0 restart, 0 down"),
        ] {
            let all = said(&cluster, &[("web@.service", &text)]);
            assert_eq!(all, format!("web@.service: {expected}"), "{text}");
        }
        assert_eq!(
            said(
                &cluster,
                &[("a.service", "[Service]\nExecStart=/a\n[X-Fleet]\nMachineMetadata=a=b\n")]
            ),
            "a.service: +[] -[] 0 restart, 0 down, 1 nowhere: 2 × lacks the metadata a=b\n\
            web@.service: +[] -[web@1:m1 web@2:m1 web@3:m2 web@4:m2] 0 restart, 0 down"
        );
    }

    #[test]
    fn a_machine_that_is_away_for_now_is_no_matter_of_the_apply() {
        let mut cluster = cluster();
        cluster.snapshot.machines.remove("m2");
        let text = WEB.replace("/a", "/b");
        assert_eq!(
            said(&cluster, &[("web@.service", &text)]),
            "web@.service: +[] -[] 4 restart, 1 down"
        );
    }
}
