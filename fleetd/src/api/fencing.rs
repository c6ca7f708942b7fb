//! `/fencing` and `/units/<name>/fencing`: by whose lease a fenced unit lives and until when, or
//! what the leader waits for.
//!
//! Until when is known by few: a machine's keeper tells its own lease, the leader alone counts for
//! how long a keeper has been silent. So those are asked; the store says who they are.

use std::collections::{BTreeMap, BTreeSet};

use axum::Json;
use axum::extract::{Path, State};
use fleet_core::model::Snapshot;
use fleet_core::name::{MachineId, UnitName};
use fleet_core::outlook;
use fleet_core::plan::{Held, Until};
use fleet_core::view::Cluster;
use fleet_core::wire;
use fleet_core::wire::{FenceWait, Fencing, FencingPage, KeeperLease, OwnFencing};

use super::describe::{Operation, Resource};
use super::error::ApiError;
use super::query::Asked;
use super::units::parse;
use super::{Api, remote};
use crate::keeper;
use crate::process::clock;

/// What of the API is answered here.
pub(super) fn routes() -> Vec<Resource> {
    vec![
        Resource::at("/units/{unitName}/fencing").get(
            show,
            Operation::new(
                "getUnitFencing",
                "By whose lease the unit's fenced instances live and until when, or what the \
                    leader waits for.",
            )
            .gives::<wire::FencingPage>(
                "One entry an instance and machine; none if the unit is not fenced.",
            )
            .errors([400, 404]),
        ),
        Resource::at("/fencing").get(
            own,
            Operation::new(
                "getFencing",
                "What this machine itself knows of fenced units: its keeper's lease; as the \
                    leader, who waits.",
            )
            .query("machine", "The machine that is asked, as one fleetd asks another.")
            .query("unit", "Only what waits of this unit.")
            .gives::<wire::OwnFencing>("What it knows.")
            .errors([421]),
        ),
    ]
}

pub(super) async fn own(
    State(api): State<Api>,
    asked: Asked,
) -> Result<Json<OwnFencing>, ApiError> {
    if let Some(machine) = asked.value("machine") {
        remote::must_be_here(&api, machine)?;
    }
    let unit = asked.value("unit").map(UnitName::trusted);
    Ok(Json(known_here(&api, unit.as_ref())))
}

pub(super) async fn show(
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Result<Json<FencingPage>, ApiError> {
    let name = parse(&name)?;
    let (_, mirror) = api.newest(std::slice::from_ref(&name)).await?;
    if mirror.cluster().owner(&name).is_none() {
        return Err(ApiError::no_such_unit());
    }
    Ok(Json(FencingPage { fencing: of(&api, mirror.cluster(), &name).await }))
}

/// How the fenced instances of `name` stand, those that wait included. Empty, and nobody is asked,
/// if none is fenced.
pub(super) async fn of(api: &Api, cluster: &Cluster, name: &UnitName) -> Vec<Fencing> {
    let snapshot = &cluster.snapshot;
    let mut all = placed(snapshot, name);
    let fenced = cluster
        .owner(name)
        .and_then(|owner| snapshot.units.get(&owner.name))
        .is_some_and(|unit| unit.fence().is_some());
    if all.is_empty() && !fenced {
        return all;
    }
    let (mut waits, mut leases) =
        tokio::join!(waits(api, cluster, name), leases(api, snapshot, &all));
    for entry in &mut all {
        // Where it is placed and waits, it waits for the copy there.
        if let Some(at) = waits
            .iter()
            .position(|wait| wait.name == entry.name && wait.machine_id == entry.machine_id)
        {
            entry.waits = Some(waits.swap_remove(at));
            continue;
        }
        match leases.get_mut(entry.machine_id.as_str()) {
            Some(Ok(lease)) => entry.lease = Some(lease.clone()),
            Some(Err(problem)) => entry.unknown.clone_from(problem),
            None => entry.unknown = silent(snapshot, &entry.machine_id),
        }
    }
    let elsewhere = |wait: FenceWait| Fencing {
        name: wait.name.clone(),
        waits: Some(wait),
        ..Fencing::default()
    };
    all.extend(waits.into_iter().map(elsewhere));
    all.sort_by(|a, b| (&a.name, &a.machine_id).cmp(&(&b.name, &b.machine_id)));
    all
}

/// The fenced placements of a unit, of a template's instances all.
fn placed(snapshot: &Snapshot, name: &UnitName) -> Vec<Fencing> {
    let mut all = Vec::new();
    for (machine, assignment) in &snapshot.assignments {
        let own = assignment
            .instances
            .iter()
            .filter(|(instance, placement)| *instance == name || placement.unit == *name);
        for (instance, fence) in
            own.filter_map(|(instance, placement)| Some((instance, placement.fence.as_ref()?)))
        {
            let (name, machine_id) = (instance.to_string(), machine.to_string());
            all.push(Fencing { name, machine_id, token: Some(fence.token), ..Fencing::default() });
        }
    }
    all
}

/// What the leader says of those that wait; where it does not answer, what it has written down,
/// which has no times.
async fn waits(api: &Api, cluster: &Cluster, name: &UnitName) -> Vec<FenceWait> {
    let leader = cluster.leader.as_ref().map(|leader| &leader.machine);
    let asked = match leader {
        Some(leader) if *leader == api.shared.machine => Some(known_here(api, Some(name))),
        Some(leader) => ask(api, &cluster.snapshot, leader, Some(name)).await.ok(),
        None => None,
    };
    if let Some(OwnFencing { leads: true, waits, .. }) = asked {
        return waits;
    }
    let held = cluster.leaders_word().into_iter().flat_map(|outlook| &outlook.held);
    let wait = |held: &outlook::Held| FenceWait {
        name: held.instance.to_string(),
        machine_id: held.machine.to_string(),
        why: held.says.clone(),
        waits_for: Some(held.reason()),
        until_ms: None,
        left_ms: None,
    };
    held.filter(|held| concerns(&held.instance, Some(name))).map(wait).collect()
}

/// The leases that the machines of `placed` hold, each machine asked once, all at the same time.
/// Those that are silent are left out.
async fn leases(
    api: &Api,
    snapshot: &Snapshot,
    placed: &[Fencing],
) -> BTreeMap<String, Result<KeeperLease, String>> {
    let machines: BTreeSet<&str> = placed.iter().map(|entry| entry.machine_id.as_str()).collect();
    let there = machines.into_iter().filter_map(|id| snapshot.machines.get_key_value(id));
    let asked = there.map(|(id, machine)| async move {
        let known = match *id == api.shared.machine {
            true => Ok(known_here(api, None)),
            false => ask_at(api, id, machine.api.as_deref(), None).await,
        };
        let lease = known.and_then(|known| {
            known.lease.ok_or_else(|| "its keeper holds none at the moment".to_string())
        });
        (id.to_string(), lease)
    });
    futures_util::future::join_all(asked).await.into_iter().collect()
}

async fn ask(
    api: &Api,
    snapshot: &Snapshot,
    machine: &MachineId,
    unit: Option<&UnitName>,
) -> Result<OwnFencing, String> {
    let there = snapshot.machines.get(machine).ok_or_else(|| "it is silent".to_string())?;
    ask_at(api, machine, there.api.as_deref(), unit).await
}

async fn ask_at(
    api: &Api,
    machine: &MachineId,
    base: Option<&str>,
    unit: Option<&UnitName>,
) -> Result<OwnFencing, String> {
    let base = base.ok_or_else(|| {
        "its API cannot be reached from here; set listen in its configuration".to_string()
    })?;
    let query: Vec<(&str, &str)> = unit.map(|unit| ("unit", unit.as_str())).into_iter().collect();
    let answer = remote::ask_machine(api, machine, base, &["fencing"], &query).await;
    let answer = answer.map_err(|error| error.message().to_string())?;
    remote::document(api, machine, answer).await.map_err(|error| error.message().to_string())
}

/// What this machine itself knows: its keeper's lease, and if it leads, what waits.
fn known_here(api: &Api, unit: Option<&UnitName>) -> OwnFencing {
    let state = api.shared.guard_dir.as_deref().and_then(keeper::read_state);
    let lease = state.map(|state| KeeperLease {
        life: state.life,
        alone: state.alone,
        until_ms: state.until_ms,
        left_ms: state.until_ms.saturating_sub(clock::wall_ms()),
    });
    let planned = api.replays.held();
    let now_ms = clock::now_ms();
    let held = planned.iter().flatten().filter(|held| concerns(&held.instance, unit));
    let waits = held.map(|held| waiting(held, now_ms)).collect();
    OwnFencing {
        machine_id: api.shared.machine.to_string(),
        lease,
        leads: planned.is_some(),
        waits,
    }
}

fn concerns(instance: &UnitName, unit: Option<&UnitName>) -> bool {
    unit.is_none_or(|unit| instance == unit || instance.template().as_ref() == Some(unit))
}

fn waiting(held: &Held, now_ms: u64) -> FenceWait {
    let until_ms = match held.until {
        Until::Time(at) => Some(at),
        Until::Report | Until::KeeperEnds | Until::Ever => None,
    };
    FenceWait {
        name: held.instance.to_string(),
        machine_id: held.machine.to_string(),
        why: held.to_string(),
        waits_for: Some(held.into()),
        until_ms,
        left_ms: until_ms.map(|at| at.saturating_sub(now_ms)),
    }
}

/// A machine that is not there, and that nobody waits for: it gets time to return, or was given up
/// this very moment.
fn silent(snapshot: &Snapshot, machine: &str) -> String {
    match snapshot.keepers.get(machine) {
        Some(keeper) if keeper.held => {
            "it is silent, and the store still has its lease".to_string()
        }
        _ => "it is silent".to_string(),
    }
}
