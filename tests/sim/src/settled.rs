//! Whether the cluster is as users want it: judged from the store, each machine's systemd and the
//! ledger, by rules of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fleet_core::configuration::Configuration;
use fleet_core::model::{DesiredState, Machine, Settings, Snapshot, Unit, UnitRecord};
use fleet_core::name::{MachineId, UnitName};
use fleet_core::plan::plan;
use fleet_core::rollout::{Rollouts, State, advance, put_in_force};
use fleet_core::unit::file::UnitFile;
use fleet_core::unit::xfleet::Constraints;
use fleetd::probe::Answer;
use fleetd::store::Store;
use fleetd::systemd::Listed;
use serde::de::DeserializeOwned;

use crate::acts;
use crate::apps;
use crate::etcd::Etcd;
use crate::host::Host;
use crate::keeper;
use crate::ledger::Record;
use crate::needs::{NEEDED, NEEDING};
use crate::planted::Planted;
use crate::rules::{Ground, refusal};
use crate::script::{CHECKED, quits};
use crate::users::{Ledgers, fields, said};
use crate::values;
use crate::verdict::{Check, Verdict};

/// Why it is not settled yet; `Ok` if it is. With a planted bug, the plan asked for here has it,
/// too.
pub async fn settled(
    etcd: &Etcd,
    hosts: &[Arc<Host>],
    now_ms: u64,
    planted: Option<Planted>,
) -> Result<(), Verdict> {
    let not_yet = |what: String| Verdict { check: Check::Converges, what };
    let mirror = Store::new(Arc::new(etcd.clone()), "/fleet/")
        .read_all()
        .await
        .map_err(|error| not_yet(error.to_string()))?;
    if let Some((key, problem)) = mirror.corrupt().iter().next() {
        return Err(not_yet(format!("{key} cannot be read: {problem}")));
    }
    let mut snapshot = mirror.cluster().snapshot.clone();
    snapshot.now_ms = now_ms;
    if let Some(host) = hosts.iter().find(|host| !snapshot.machines.contains_key(&host.id)) {
        return Err(not_yet(format!("machine {} is not registered", host.number)));
    }
    let rollouts = &mirror.cluster().rollouts;
    if let Some((unit, _)) = advance(&snapshot, rollouts).documents.first_key_value() {
        return Err(not_yet(format!("the leader has yet to see how the text of {unit} is")));
    }
    nobody_runs_what_is_undone(hosts, &snapshot, rollouts).map_err(not_yet)?;
    put_in_force(&mut snapshot, rollouts);
    let nowhere = planned(&Planted::overlook(planted, &snapshot)).map_err(not_yet)?;
    let missing = nowhere.union(&held(&snapshot)).cloned().collect();
    assigned_well(&snapshot, &missing).map_err(not_yet)?;
    let config: Option<Configuration> = document(etcd, values::CONFIG).map_err(not_yet)?;
    let waiting = waiting(&snapshot, &nowhere);
    for host in hosts {
        runs_what_it_should(host, &snapshot, &mirror.cluster().records, config.is_some())
            .map_err(not_yet)?;
        has_its_values(host, &snapshot, config.as_ref(), &waiting).map_err(not_yet)?;
    }
    fits_nowhere(&snapshot, &nowhere).map_err(|what| Verdict { check: Check::Nowhere, what })
}

/// After an undo nobody runs the bad text.
fn nobody_runs_what_is_undone(
    hosts: &[Arc<Host>],
    asked: &Snapshot,
    rollouts: &Rollouts,
) -> Result<(), String> {
    for (name, rollout) in rollouts {
        let is_of = asked.units.get(name).is_some_and(|unit| rollout.is_of(unit));
        if !is_of || rollout.state != State::Undone || rollout.good.is_none() {
            continue;
        }
        for host in hosts {
            let runs = |instance: &&UnitName| {
                let text = host.systemd.inner.running_text(instance);
                let hash = text.map(|text| UnitFile::parse_lenient(&text).hash());
                hash.is_some_and(|hash| *UnitFile::shorten(&hash) == *rollout.text.hash)
            };
            let ours = host.systemd.inner.loaded();
            let ours = ours.keys().filter(|it| it.template().as_ref() == Some(name) || *it == name);
            if let Some(instance) = ours.into_iter().find(runs) {
                return Err(format!(
                    "machine {} runs {instance} with revision {}, which is undone",
                    host.number, rollout.text.revision
                ));
            }
        }
    }
    Ok(())
}

/// What the planner says fits nowhere, if it has nothing else to say.
fn planned(snapshot: &Snapshot) -> Result<BTreeSet<UnitName>, String> {
    let planned = plan(snapshot);
    if let Some(change) = planned.changes.first() {
        return Err(format!("the plan of the planned state is not empty: {change:?}"));
    }
    if let Some(id) = planned.documents.keys().next() {
        return Err(format!(
            "the plan of the planned state rewrites the assignment of {id} without a change"
        ));
    }
    // What no machine may run a spare instance of keeps its text.
    for rolling in planned.rolling.iter().filter(|rolling| rolling.spares.is_some()) {
        let no_spare = rolling.spares.as_ref().filter(|spares| !spares.misfits.is_empty());
        let Some(unit) = snapshot.units.get(&rolling.unit).filter(|_| no_spare.is_some()) else {
            return Err(format!("{} still waits: {rolling}", rolling.unit));
        };
        let spare = unit.name.replica(unit.replicas.unwrap_or(0) + 1);
        let takes = |(id, machine): &(&MachineId, &Arc<Machine>)| {
            let ground = ground(snapshot, id, machine);
            refusal(&ground, &spare, &unit.constraints.expanded(&spare)).is_none()
        };
        if let Some((id, _)) = snapshot.machines.iter().find(takes) {
            return Err(format!(
                "{id} may run a spare of {}, which is said to fit nowhere",
                unit.name
            ));
        }
    }
    Ok(planned.unplaced.into_iter().flat_map(|unplaced| unplaced.instances).collect())
}

/// What waits for a unit that nobody wants: the request that would have launched it may have come
/// to nothing.
fn held(snapshot: &Snapshot) -> BTreeSet<UnitName> {
    let launched = |unit: &&Arc<Unit>| unit.desired == DesiredState::Launched;
    if snapshot.units.get(NEEDED).is_some_and(|unit| launched(&unit)) {
        return BTreeSet::new();
    }
    let Some(unit) = snapshot.units.get(NEEDING) else { return BTreeSet::new() };
    (1..=unit.replicas.unwrap_or(0)).map(|number| unit.name.replica(number)).collect()
}

/// Units whose new text may have to wait: replicas that fit nowhere spend the budget of the others.
fn waiting(snapshot: &Snapshot, nowhere: &BTreeSet<UnitName>) -> BTreeSet<UnitName> {
    let units = nowhere.iter().filter_map(|name| owner(snapshot, name));
    let waits = units.filter(|unit| unit.max_unavailable().is_some());
    let closed = |id| snapshot.availability.contains_key(id);
    let all_closed = snapshot.machines.keys().all(closed);
    // Spare instances are new ones.
    let spared = snapshot.units.values().filter(|unit| all_closed && unit.starts_first());
    // What is paused stays so until a user says otherwise.
    let paused = snapshot.units.values().filter(|unit| unit.paused);
    waits.chain(spared).chain(paused).map(|unit| unit.name.clone()).collect()
}

/// Whether no machine may be given any of what the planner says fits nowhere.
fn fits_nowhere(snapshot: &Snapshot, nowhere: &BTreeSet<UnitName>) -> Result<(), String> {
    let wants = |name: &UnitName| owner(snapshot, name).map(|unit| unit.constraints.expanded(name));
    for (id, machine) in &snapshot.machines {
        let ground = ground(snapshot, id, machine);
        for name in nowhere.iter().filter(|name| !ground.here.contains_key(*name)) {
            let wants = wants(name)
                .ok_or_else(|| format!("{name} is said to fit nowhere, and nobody wants it"))?;
            if refusal(&ground, name, &wants).is_none() {
                return Err(format!("{name} is said to fit nowhere, but {id} may run it"));
            }
        }
    }
    // A fenced one that waits for another copy of itself has not been found to fit nowhere.
    let waits = |name: &&UnitName| {
        snapshot.assignments.values().any(|assignment| assignment.off.contains_key(*name))
    };
    nowhere.iter().find(waits).map_or(Ok(()), |name| {
        Err(format!("{name} waits for its end elsewhere, and is said to fit nowhere"))
    })
}

fn ground<'a>(snapshot: &Snapshot, id: &'a MachineId, machine: &'a Machine) -> Ground<'a> {
    let instances =
        snapshot.assignments.get(id).into_iter().flat_map(|assignment| assignment.instances.keys());
    let demands = |name: &UnitName| {
        owner(snapshot, name).map(|unit| unit.constraints.expanded(name)).unwrap_or_default()
    };
    let here: BTreeMap<UnitName, Constraints> =
        instances.map(|name| (name.clone(), demands(name))).collect();
    Ground { id, labels: &machine.metadata, open: !snapshot.availability.contains_key(id), here }
}

/// Whether every record, and what is set for every machine, is such that what users were told
/// explains it.
pub fn nothing_lost(etcd: &Etcd, hosts: &[Arc<Host>], ledgers: &Ledgers) -> Result<(), String> {
    let told = ledgers.lock().expect("no panic over ledgers");
    for (unit, ledger) in &told.units {
        let record: Option<UnitRecord> = document(etcd, &format!("/fleet/units/{unit}"))?;
        let texts = |record: &UnitRecord| {
            (1..=record.revision).map(|number| text_of(etcd, unit, number)).collect()
        };
        let fields = record.as_ref().map(|record| fields(record, texts(record)));
        let is_so = |may: &Record| match (may, &fields) {
            (Some(may), Some(seen)) => may.shows_as(seen),
            (may, seen) => may.is_none() && seen.is_none(),
        };
        if !ledger.allows(is_so) {
            return Err(format!(
                "the record of {unit} is not what users were told: {fields:?}; expected one of \
                    {ledger:?}"
            ));
        }
    }
    for (machine, ledger) in &told.machines {
        let settings: Option<Settings> =
            document(etcd, &format!("/fleet/settings/{}", hosts[*machine].id))?;
        let said = said(&settings.unwrap_or_default());
        if !ledger.explains(&said) {
            return Err(format!(
                "machine {machine} is not set as users were told: {said:?}; expected one of \
                    {ledger:?}"
            ));
        }
    }
    let kept: Vec<Configuration> = etcd
        .peek_all(values::REVISIONS)
        .iter()
        .filter_map(|kv| serde_json::from_slice(&kv.value).ok())
        .collect();
    let state: Vec<String> = kept.iter().map(|it| it.values[values::KEYS[0]].clone()).collect();
    if !told.config.explains(&state) {
        return Err(format!(
            "the configuration is not what users were told: {state:?}; expected one of {:?}",
            told.config
        ));
    }
    acts::told(etcd, &told.asked)
}

fn document<T: DeserializeOwned>(etcd: &Etcd, key: &str) -> Result<Option<T>, String> {
    let read = etcd.peek(key).map(|kv| serde_json::from_slice(&kv.value)).transpose();
    read.map_err(|error| format!("{key} cannot be read: {error}"))
}

fn text_of(etcd: &Etcd, unit: &str, number: u64) -> String {
    let kept = etcd.peek(&format!("/fleet.revisions/{unit}/{number:010}"));
    kept.map_or(String::new(), |kv| String::from_utf8_lossy(&kv.value).into_owned())
}

fn owner<'a>(snapshot: &'a Snapshot, name: &UnitName) -> Option<&'a Arc<Unit>> {
    snapshot.units.get(name).or_else(|| {
        let template = snapshot.units.get(&name.template()?)?;
        (name.replica_number()? <= template.replicas.unwrap_or(0)).then_some(template)
    })
}

/// Counts, misfits, conflicts and peers.
fn assigned_well(snapshot: &Snapshot, nowhere: &BTreeSet<UnitName>) -> Result<(), String> {
    let waiting = waiting(snapshot, nowhere);
    let mut count: BTreeMap<&UnitName, usize> = BTreeMap::new();
    for (id, machine) in &snapshot.machines {
        let Some(assignment) = snapshot.assignments.get(id) else { continue };
        // What a machine has it keeps, whether it takes anything new or not.
        let mut ground = Ground { open: true, ..ground(snapshot, id, machine) };
        // What still runs an older text demands nothing that is known here, and is on its way.
        let lingers = |name: &UnitName| {
            let placement = assignment.instances.get(name);
            placement.zip(owner(snapshot, name)).is_some_and(|(is, unit)| is.hash != unit.hash)
        };
        ground.here.retain(|name, _| !lingers(name));
        for (name, placement) in &assignment.instances {
            let unit = owner(snapshot, name).filter(|unit| unit.desired != DesiredState::Inactive);
            let unit = unit.ok_or_else(|| format!("{name} on {id} is not wanted"))?;
            let of_now = placement.hash == unit.hash || waiting.contains(&unit.name);
            if !of_now || (&placement.unit, placement.state) != (&unit.name, unit.desired) {
                return Err(format!("{name} on {id} is out of date"));
            }
            *count.entry(name).or_default() += 1;
            if let Some(wants) = ground.here.get(name)
                && let Some(refusal) = refusal(&ground, name, wants)
            {
                return Err(refusal);
            }
        }
    }
    for unit in snapshot.units.values().filter(|unit| unit.desired != DesiredState::Inactive) {
        if unit.constraints.global {
            let fits = |(id, machine): &(&MachineId, &Arc<Machine>)| {
                refusal(&ground(snapshot, id, machine), &unit.name, &unit.constraints).is_none()
            };
            let fits = snapshot.machines.iter().filter(fits).count();
            let runs = count.get(&unit.name).copied().unwrap_or(0);
            if runs != fits {
                return Err(format!(
                    "the global unit {} is on {runs} of {fits} machines",
                    unit.name
                ));
            }
            continue;
        }
        let names: Vec<UnitName> = match (unit.name.is_template(), unit.replicas) {
            (true, replicas) => {
                (1..=replicas.unwrap_or(0)).map(|number| unit.name.replica(number)).collect()
            }
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

/// Whether what a machine runs has the present values, but for units that wait to take them.
fn has_its_values(
    host: &Host,
    snapshot: &Snapshot,
    config: Option<&Configuration>,
    waiting: &BTreeSet<UnitName>,
) -> Result<(), String> {
    let assignment = snapshot.assignments.get(&host.id);
    let instances = assignment.into_iter().flat_map(|assignment| &assignment.instances);
    for (name, placement) in instances {
        let systemd = &host.systemd.inner;
        let Some(text) = systemd.running_text(name) else { continue };
        if placement.state == DesiredState::Launched && !waiting.contains(&placement.unit) {
            let environment = systemd.environment(name).unwrap_or_default();
            values::up_to_date(&text, &environment, config)
                .map_err(|what| format!("{name} on machine {} {what}", host.number))?;
        }
    }
    Ok(())
}

/// Whether a machine says of an instance that it has ended and stays down, as its text has it.
fn stays_down(host: &Host, snapshot: &Snapshot, name: &UnitName) -> bool {
    let report = snapshot.reports.get(&host.id);
    let status = report.and_then(|report| report.instances.get(name));
    status.is_some_and(|status| status.stays_down && !status.gave_up)
}

type Records = BTreeMap<UnitName, Arc<UnitRecord>>;

/// Whether a machine runs exactly what it is assigned, in the text that it should. What names a
/// configuration that nobody has made waits for it.
fn runs_what_it_should(
    host: &Host,
    snapshot: &Snapshot,
    records: &Records,
    configured: bool,
) -> Result<(), String> {
    let number = host.number;
    let loaded = host.systemd.inner.loaded();
    let assignment = snapshot.assignments.get(&host.id);
    let instances = assignment.map(|assignment| assignment.instances.clone()).unwrap_or_default();
    for (name, placement) in
        instances.iter().filter(|(_, placement)| placement.state == DesiredState::Launched)
    {
        let record = records.get(&placement.unit);
        if record.is_some_and(|record| quits(&record.text)) {
            match loaded.get(name) {
                Some(Listed { active, job: false, .. })
                    if active == "failed" && stays_down(host, snapshot, name) => {}
                other => return Err(format!("machine {number} should give up {name}: {other:?}")),
            }
            continue;
        }
        match loaded.get(name) {
            None if !configured && values::is_configured(name) => continue,
            Some(Listed { active, job: false, .. }) if active == "active" => {}
            other => return Err(format!("machine {number} should run {name}: {other:?}")),
        }
        if placement.unit.as_str() == CHECKED {
            let answer = host.systemd.inner.answer(name);
            if answer != Some(Answer::Good) {
                return Err(format!("machine {number} runs {name}, which answers {answer:?}"));
            }
        }
        let record = record.ok_or_else(|| format!("no record of {}", placement.unit))?;
        // Where a new text has to wait or is undone, `assigned_well` has said that it may.
        let own =
            UnitFile::shorten(&UnitFile::parse_lenient(&record.text).hash()) == &*placement.hash;
        if own && host.systemd.inner.running_text(name).as_ref() != Some(&record.text) {
            return Err(format!(
                "machine {number} runs {name} with another text than its record's"
            ));
        }
        if own && apps::is_of_app(name) {
            let found = host.systemd.files_of(name)?;
            if apps::version_of(&record.text) != Some(found) {
                return Err(format!(
                    "machine {number} has the files of version {found} for {name}, which are not \
                        those of its text"
                ));
            }
        }
        if let Some(fence) = &placement.fence {
            let (environment, wanted) = (
                host.systemd.inner.environment(name),
                format!("FLEET_FENCING_TOKEN={}", fence.token),
            );
            if !environment.is_some_and(|environment| environment.contains(&wanted)) {
                return Err(format!("machine {number} runs {name} without {wanted}"));
            }
        }
    }
    let wanted = |name: &UnitName| {
        instances.get(name).is_some_and(|placement| placement.state == DesiredState::Launched)
    };
    let strays = |(name, unit): &(&UnitName, &Listed)| {
        unit.active == "active"
            && !wanted(name)
            && ![keeper::unit(), keeper::guard_unit()].contains(name)
    };
    if let Some((name, _)) = loaded.iter().find(strays) {
        return Err(format!("machine {number} still runs {name}"));
    }
    // A template's file is there for its instances.
    let used = |name: &UnitName| {
        instances
            .keys()
            .any(|instance| instance == name || instance.template().as_ref() == Some(name))
    };
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
