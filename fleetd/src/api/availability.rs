//! `/machines/<id>/availability`: cordon, drain and open a machine again, and see what is still on
//! it.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use fleet_core::model::{Availability, Did, Note, Settings, Unit};
use fleet_core::name::{MachineId, UnitName};
use fleet_core::view::Cluster;
use fleet_core::wire;
use fleet_core::wire::{AvailabilityWish, MachineAvailability, Remaining, Stays};
use serde_json::json;

use super::body::decode;
use super::describe::{self, Operation, Resource, WRITTEN};
use super::door::json_only;
use super::error::ApiError;
use super::settings::{self, is_known, no_such_machine};
use super::who::Who;
use super::{Api, written};
use crate::process::{clock, panics};
use crate::store::Part;

/// What of the API is answered here.
pub(super) fn routes() -> Vec<Resource> {
    vec![
        Resource::at("/machines/{machineID}/availability")
            .get(
                show,
                Operation::new(
                    "getMachineAvailability",
                    "Whether a machine takes instances, and what is still on it.",
                )
                .gives::<wire::MachineAvailability>("That.")
                .errors([400, 404]),
            )
            .put(
                set,
                Operation::new(
                    "setMachineAvailability",
                    "Cordons or drains a machine, or has it take instances again.",
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
    // Whoever has just set it reads what was set.
    let set_at = api.store().settings(&id).await?.map_or(0, |settings| settings.revision);
    let mut reader = api.shared.copies.reader();
    let mirror = reader.when(|mirror| mirror.cluster().snapshot.revision >= set_at).await?;
    let mirror = match is_known(&mirror.cluster().snapshot, &id) {
        true => mirror,
        // It may have come this very moment.
        false => Arc::new(api.store().read(&[Part::Machines, Part::Assignments]).await?),
    };
    if !is_known(&mirror.cluster().snapshot, &id) {
        return Err(no_such_machine(&id));
    }
    let availability = mirror.cluster().snapshot.availability.get(&id).copied().unwrap_or_default();
    let note = mirror.cluster().notes.get(&id).cloned().map(Into::into);
    // With many units this takes a while.
    let work = move || MachineAvailability {
        availability,
        note,
        instances: remaining(mirror.cluster(), availability, &id),
    };
    let told = panics::contained_work(work).await;
    told.map(Json).map_err(|problem| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, problem))
}

pub(super) async fn set(
    State(api): State<Api>,
    Path(id): Path<String>,
    who: Who,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    json_only(&headers)?;
    let wish: AvailabilityWish = decode(&body)?;
    let note = note(&wish, &who)?;
    let id = MachineId::parse(&id).ok_or_else(|| no_such_machine(&id))?;
    let mirror = api.store().read(&[Part::Machines, Part::Assignments]).await?;
    if !is_known(&mirror.cluster().snapshot, &id) {
        return Err(no_such_machine(&id));
    }
    let change = |set: &mut Settings| {
        set.availability = wish.availability;
        set.note = (!wish.availability.is_active()).then(|| note.clone());
    };
    let did = Did::SetAvailability { to: wish.availability, reason: note.reason.clone() };
    let revision = settings::rewrite(&api, &id, &who.act(did).on(&id), change).await?;
    let is = wish.availability.as_str();
    tracing::info!(machine = %id, "{} set machine {} {is}", note.by, id.short());
    Ok(written(StatusCode::NO_CONTENT, revision, &[]))
}

/// What is kept of who asked for that and why.
fn note(wish: &AvailabilityWish, who: &Who) -> Result<Note, ApiError> {
    let reason = wish.reason.trim().to_string();
    if reason.len() > Note::MAX_REASON_BYTES {
        return Err(ApiError::invalid(format!(
            "the reason has {} bytes; at most {} are kept",
            reason.len(),
            Note::MAX_REASON_BYTES
        )));
    }
    let draining = wish.availability == Availability::Draining;
    if (wish.within_ms.is_some() || wish.force) && !draining {
        return Err(ApiError::invalid("withinMs and force are for a drain: availability draining"));
    }
    if wish.force && wish.within_ms.is_none() {
        return Err(ApiError::invalid("force stops what is left after withinMs, which is missing"));
    }
    let at_ms = clock::now_ms();
    let deadline_ms = wish.within_ms.map(|ms| at_ms.saturating_add(ms));
    Ok(Note { by: who.name(), at_ms, reason, deadline_ms, force: wish.force })
}

/// What of the machine is no global unit, and, if it is drained, why it is still there.
pub(super) fn remaining(
    cluster: &Cluster,
    availability: Availability,
    id: &MachineId,
) -> Vec<Remaining> {
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
    let one = |name: &UnitName| {
        let drained = availability == Availability::Draining;
        Remaining::new(name, drained.then(|| stays(cluster, id, name)))
    };
    names.into_iter().filter(|name| !global(name)).map(one).collect()
}

/// The unit that `name` follows from.
fn owner<'a>(cluster: &'a Cluster, name: &UnitName) -> Option<&'a Arc<Unit>> {
    cluster.owner(name).and_then(|record| cluster.snapshot.units.get(&record.name))
}

/// Why an instance is still on a machine that is drained, by the leader's word.
fn stays(cluster: &Cluster, id: &MachineId, name: &UnitName) -> Stays {
    let assigned = |name: &str| {
        cluster
            .snapshot
            .assignments
            .get(id)
            .is_some_and(|assignment| assignment.instances.contains_key(name))
    };
    let Some(word) = cluster.leaders_word() else { return Stays::NoLeader };
    if let Some(waits_for) = word.waits(name) {
        return Stays::Waits { waits_for };
    }
    if !assigned(name.as_str()) {
        return Stays::Stopping;
    }
    let set_at = cluster.settings_written.get(id).copied().unwrap_or(0);
    if !cluster.is_planned(set_at) {
        return Stays::Undecided;
    }
    if word.settling {
        return Stays::Returning;
    }
    let beside = owner(cluster, name)
        .map(|unit| unit.constraints.expanded(name).machine_of)
        .unwrap_or_default();
    let waits = |main: &&String| word.waits(&UnitName::trusted(main.as_str())).is_some();
    match beside.iter().find(waits) {
        Some(main) => Stays::Beside { unit: main.clone() },
        None => Stays::Nowhere,
    }
}
