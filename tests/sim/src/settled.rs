//! Whether the cluster is as users want it: judged from the store, each machine's systemd and the ledger, by rules of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fleet_core::constraint;
use fleet_core::glob;
use fleet_core::model::{DesiredState, Snapshot, Unit, UnitRecord};
use fleet_core::name::UnitName;
use fleet_core::plan::plan;
use fleetd::store::Store;
use fleetd::systemd::Listed;

use crate::etcd::Etcd;
use crate::host::Host;
use crate::keeper;
use crate::script::UNITS;
use crate::users::{Ledgers, fields};

/// Why it is not settled yet; `Ok` if it is.
pub async fn settled(etcd: &Etcd, hosts: &[Arc<Host>], now_ms: u64) -> Result<(), String> {
    let mirror = Store::new(Arc::new(etcd.clone()), "/fleet/").read_all().await.map_err(|error| error.to_string())?;
    if let Some((key, problem)) = mirror.corrupt().iter().next() {
        return Err(format!("{key} cannot be read: {problem}"));
    }
    let mut snapshot = mirror.cluster().snapshot.clone();
    snapshot.now_ms = now_ms;
    if let Some(host) = hosts.iter().find(|host| !snapshot.machines.contains_key(&host.id)) {
        return Err(format!("machine {} is not registered", host.number));
    }
    let planned = plan(&snapshot);
    if let Some(change) = planned.changes.first() {
        return Err(format!("the plan of the planned state is not empty: {change:?}"));
    }
    if let Some(id) = planned.documents.keys().next() {
        return Err(format!("the plan of the planned state rewrites the assignment of {id} without a change"));
    }
    let nowhere: BTreeSet<UnitName> = planned.unplaced.into_iter().flat_map(|unplaced| unplaced.instances).collect();
    assigned_well(&snapshot, &nowhere)?;
    for host in hosts {
        runs_what_it_should(host, &snapshot, &mirror.cluster().records)?;
    }
    Ok(())
}

/// Whether every record is one that what users were told explains.
pub fn nothing_lost(etcd: &Etcd, ledgers: &Ledgers) -> Result<(), String> {
    let ledgers = ledgers.lock().expect("no panic over ledgers");
    for (unit, _) in UNITS {
        let Some(ledger) = ledgers.get(unit) else { continue };
        let record = etcd.peek(&format!("/fleet/units/{unit}")).map(|kv| serde_json::from_slice::<UnitRecord>(&kv.value));
        let record = record.transpose().map_err(|error| format!("the record of {unit} cannot be read: {error}"))?;
        if !ledger.explains(&record.as_ref().map(fields)) {
            return Err(format!("the record of {unit} is not what users were told: {record:?}; expected one of {ledger:?}"));
        }
    }
    Ok(())
}

fn owner<'a>(snapshot: &'a Snapshot, name: &UnitName) -> Option<&'a Arc<Unit>> {
    snapshot.units.get(name).or_else(|| {
        let template = snapshot.units.get(&name.template()?)?;
        (name.replica_number()? <= template.replicas.unwrap_or(0)).then_some(template)
    })
}

/// Counts, misfits, conflicts and peers. Naive on purpose: it shares no code with the planner but the rules of one machine.
fn assigned_well(snapshot: &Snapshot, nowhere: &BTreeSet<UnitName>) -> Result<(), String> {
    let mut count: BTreeMap<&UnitName, usize> = BTreeMap::new();
    for (id, assignment) in &snapshot.assignments {
        let Some(machine) = snapshot.machines.get(id) else { continue };
        for (name, placement) in &assignment.instances {
            let unit = owner(snapshot, name).filter(|unit| unit.desired != DesiredState::Inactive);
            let unit = unit.ok_or_else(|| format!("{name} on {id} is not wanted"))?;
            if (&placement.unit, &placement.hash, placement.state) != (&unit.name, &unit.hash, unit.desired) {
                return Err(format!("{name} on {id} is out of date"));
            }
            *count.entry(name).or_default() += 1;
            let wants = unit.constraints.expanded(name);
            if constraint::suits(machine, &wants).is_err() {
                return Err(format!("{id} does not suit {name}"));
            }
            if let Some(peer) = wants.machine_of.iter().find(|peer| !assignment.instances.contains_key(peer.as_str())) {
                return Err(format!("{name} on {id} without {peer}"));
            }
            let hit = |other: &&UnitName| *other != name && wants.conflicts.iter().any(|p| glob::matches(p, other.as_str()));
            if let Some(other) = assignment.instances.keys().find(hit) {
                return Err(format!("{name} beside {other} on {id}"));
            }
        }
    }
    for unit in snapshot.units.values().filter(|unit| unit.desired != DesiredState::Inactive) {
        if unit.constraints.global {
            let fits = snapshot.machines.values().filter(|machine| constraint::suits(machine, &unit.constraints).is_ok()).count();
            let runs = count.get(&unit.name).copied().unwrap_or(0);
            if runs != fits {
                return Err(format!("the global unit {} is on {runs} of {fits} machines", unit.name));
            }
            continue;
        }
        let names: Vec<UnitName> = match (unit.name.is_template(), unit.replicas) {
            (true, replicas) => (1..=replicas.unwrap_or(0)).map(|number| unit.name.replica(number)).collect(),
            (false, _) => vec![unit.name.clone()],
        };
        for name in names.iter().filter(|name| !nowhere.contains(*name)) {
            match count.get(name) {
                Some(1) => {}
                other => return Err(format!("{name} is on {} machines", other.unwrap_or(&0))),
            }
        }
    }
    Ok(())
}

type Records = BTreeMap<UnitName, Arc<UnitRecord>>;

/// Whether a machine runs exactly what it is assigned, in the text that it should.
fn runs_what_it_should(host: &Host, snapshot: &Snapshot, records: &Records) -> Result<(), String> {
    let number = host.number;
    let loaded = host.systemd.inner.loaded();
    let assignment = snapshot.assignments.get(&host.id);
    let instances = assignment.map(|assignment| assignment.instances.clone()).unwrap_or_default();
    for (name, placement) in instances.iter().filter(|(_, placement)| placement.state == DesiredState::Launched) {
        match loaded.get(name) {
            Some(Listed { active, job: false, .. }) if active == "active" => {}
            other => return Err(format!("machine {number} should run {name}: {other:?}")),
        }
        let record = records.get(&placement.unit).ok_or_else(|| format!("no record of {}", placement.unit))?;
        if host.systemd.inner.running_text(name).as_ref() != Some(&record.text) {
            return Err(format!("machine {number} runs {name} with another text than its record's"));
        }
        if let Some(fence) = &placement.fence {
            let (environment, wanted) = (host.systemd.inner.environment(name), format!("FLEET_FENCING_TOKEN={}", fence.token));
            if !environment.is_some_and(|environment| environment.contains(&wanted)) {
                return Err(format!("machine {number} runs {name} without {wanted}"));
            }
        }
    }
    let wanted = |name: &UnitName| instances.get(name).is_some_and(|placement| placement.state == DesiredState::Launched);
    let strays = |(name, unit): &(&UnitName, &Listed)| unit.active == "active" && !wanted(name) && **name != keeper::unit();
    if let Some((name, _)) = loaded.iter().find(strays) {
        return Err(format!("machine {number} still runs {name}"));
    }
    // A template's file is there for its instances.
    let used = |name: &UnitName| instances.keys().any(|instance| instance == name || instance.template().as_ref() == Some(name));
    if let Some(name) = host.systemd.inner.files().keys().find(|name| !used(name)) {
        return Err(format!("machine {number} still has the file of {name}"));
    }
    let said = snapshot.reports.get(&host.id).map_or(0, |report| report.generation);
    let asked = assignment.map_or(0, |assignment| assignment.generation);
    if said != asked {
        return Err(format!("machine {number} reports generation {said} of {asked}"));
    }
    Ok(())
}
