//! `/machines/<id>/availability`: cordon, drain and open a machine again, and see what is still on
//! it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use fleet_core::model::{Availability, Snapshot, Unit};
use fleet_core::name::{MachineId, UnitName};
use fleet_core::plan::{Change, Plan};
use fleet_core::view::Cluster;
use fleet_core::wire;
use fleet_core::wire::{AvailabilityWish, MachineAvailability, Remaining};
use serde_json::json;

use super::body::decode;
use super::describe::{self, Operation, Resource, WRITTEN};
use super::door::json_only;
use super::error::ApiError;
use super::settings::{self, is_known, no_such_machine};
use super::{Api, written};
use crate::process::panics;
use crate::store::Part;

/// What of the API is answered here.
pub(super) fn routes() -> Vec<Resource> {
    vec![
        Resource::at("/machines/{machineID}/availability")
            .get(
                show,
                Operation::new(
                    "getMachineAvailability",
                    "Whether a machine takes instances, and \
                    what is still on it.",
                )
                .gives::<wire::MachineAvailability>("That.")
                .errors([400, 404]),
            )
            .put(
                set,
                Operation::new(
                    "setMachineAvailability",
                    "Cordons or drains a machine, or has it \
                    take instances again.",
                )
                .takes::<wire::AvailabilityWish>()
                .example(json!({"availability": "active"}))
                .answers(StatusCode::NO_CONTENT, "It was set.", describe::Body::None)
                .headers(WRITTEN)
                .errors([404, 409, 415]),
            ),
    ]
}

pub(super) async fn show(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<Json<MachineAvailability>, ApiError> {
    let id = MachineId::parse(&id).ok_or_else(|| no_such_machine(&id))?;
    let mirror = api.store().read_all().await?;
    if !is_known(&mirror.cluster().snapshot, &id) {
        return Err(no_such_machine(&id));
    }
    let availability = mirror.cluster().snapshot.availability.get(&id).copied().unwrap_or_default();
    let plan = match availability {
        Availability::Draining => Some(api.shared.plans.of(mirror.cluster()).await),
        Availability::Active | Availability::Cordoned => None,
    };
    // With many units this takes a while.
    let work = move || MachineAvailability {
        availability,
        instances: remaining(mirror.cluster(), plan.as_deref(), &id),
    };
    let told = panics::contained_work(work).await;
    told.map(Json).map_err(|problem| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, problem))
}

pub(super) async fn set(
    State(api): State<Api>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    json_only(&headers)?;
    let wish: AvailabilityWish = decode(&body)?;
    let id = MachineId::parse(&id).ok_or_else(|| no_such_machine(&id))?;
    let mirror = api.store().read(&[Part::Machines, Part::Assignments]).await?;
    if !is_known(&mirror.cluster().snapshot, &id) {
        return Err(no_such_machine(&id));
    }
    let revision = settings::rewrite(&api, &id, |set| set.availability = wish.availability).await?;
    Ok(written(StatusCode::NO_CONTENT, revision, &[]))
}

/// What of the machine is no global unit, with the reason why it is still there.
fn remaining(cluster: &Cluster, plan: Option<&Plan>, id: &MachineId) -> Vec<Remaining> {
    let snapshot = &cluster.snapshot;
    let global = |name: &&UnitName| {
        owner(cluster, name).is_some_and(|unit| unit.constraints.global && !unit.name.is_template())
    };
    let assignment = snapshot.assignments.get(id);
    let assigned = assignment.into_iter().flat_map(|assignment| assignment.instances.keys());
    // A fenced instance that was taken off may be alive there, also when nobody reports it any
    // more.
    let off = assignment.into_iter().flat_map(|assignment| assignment.off.keys());
    let reported = snapshot.reports.get(id).into_iter().flat_map(|report| report.instances.keys());
    let names: BTreeSet<&UnitName> = assigned.chain(off).chain(reported).collect();
    let reasons = plan.map(|plan| Reasons::of(snapshot, plan, id));
    let one = |name: &UnitName| {
        let (why, stuck) =
            reasons.as_ref().map_or((String::new(), false), |reasons| reasons.why(cluster, name));
        Remaining { name: name.to_string(), why, stuck }
    };
    names.into_iter().filter(|name| !global(name)).map(one).collect()
}

/// The unit that `name` follows from.
fn owner<'a>(cluster: &'a Cluster, name: &UnitName) -> Option<&'a Arc<Unit>> {
    cluster.owner(name).and_then(|record| cluster.snapshot.units.get(&record.name))
}

/// Why instances are still on a machine that is drained, by the plan of this very moment.
struct Reasons {
    assigned: BTreeSet<UnitName>,
    moves: BTreeSet<UnitName>,
    /// What waits, and for what.
    waits: BTreeMap<UnitName, String>,
}

impl Reasons {
    fn of(snapshot: &Snapshot, plan: &Plan, id: &MachineId) -> Reasons {
        let assigned = snapshot
            .assignments
            .get(id)
            .into_iter()
            .flat_map(|assignment| assignment.instances.keys());
        let moves = plan.changes.iter().filter_map(|change| match change {
            Change::Retire { instance, machine, .. } if machine == id => Some(instance.clone()),
            _ => None,
        });
        let held = plan.held.iter().map(|held| (held.instance.clone(), held.to_string()));
        let rolling = plan.rolling.iter().flat_map(|rolling| {
            rolling.waiting.iter().map(|name| (name.clone(), rolling.to_string()))
        });
        Reasons {
            assigned: assigned.cloned().collect(),
            moves: moves.collect(),
            waits: rolling.chain(held).collect(),
        }
    }

    /// The reason, and whether it stays until its operator does something.
    fn why(&self, cluster: &Cluster, name: &UnitName) -> (String, bool) {
        if let Some(waits) = self.waits.get(name) {
            return (waits.clone(), false);
        }
        if !self.assigned.contains(name) {
            return ("it is being stopped".to_string(), false);
        }
        if self.moves.contains(name) {
            return ("it is about to move".to_string(), false);
        }
        let beside = owner(cluster, name)
            .map(|unit| unit.constraints.expanded(name).machine_of)
            .unwrap_or_default();
        match beside.iter().find(|main| {
            self.moves.contains(main.as_str()) || self.waits.contains_key(main.as_str())
        }) {
            Some(main) => (format!("it goes where {main} goes, which waits"), false),
            None => ("no other machine can take it".to_string(), true),
        }
    }
}
