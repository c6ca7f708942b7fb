//! `/machines/<id>/availability`: cordon, drain and open a machine again, and see what is still on it.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use fleet_core::model::{Availability, FORMAT, Settings, Snapshot};
use fleet_core::name::{MachineId, UnitName};
use fleet_core::plan::{Change, plan};
use fleet_core::wire::{AvailabilityWish, MachineAvailability, Remaining};

use super::error::ApiError;
use super::units::{RETRIES, decode, json_only};
use super::{Api, written};
use crate::clock;
use crate::store::{StoreError, Versioned};

pub(super) async fn show(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<MachineAvailability>, ApiError> {
    let id = MachineId::new(id);
    let mirror = api.store().read_all().await?;
    let mut snapshot = mirror.cluster().snapshot.clone();
    snapshot.now_ms = clock::now_ms();
    if !is_known(&snapshot, &id) {
        return Err(no_such_machine(&id));
    }
    let availability = snapshot.availability.get(&id).copied().unwrap_or_default();
    let instances = remaining(&snapshot, &id, availability);
    mirror.drop_later();
    Ok(Json(MachineAvailability { availability, instances }))
}

pub(super) async fn set(
    State(api): State<Api>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    json_only(&headers)?;
    let wish: AvailabilityWish = decode(&body)?;
    let id = MachineId::new(id);
    for _ in 0..RETRIES {
        let old = api.store().settings(&id).await?;
        if old.is_none() && !is_known(&api.store().read_all().await?.cluster().snapshot, &id) {
            return Err(no_such_machine(&id));
        }
        let revision = old.as_ref().map(|old| old.revision);
        let mut settings = old.map_or_else(|| Settings { v: FORMAT, ..Settings::default() }, |Versioned { value, .. }| value);
        settings.availability = wish.availability;
        match api.store().put_settings(&id, &settings, revision).await {
            Err(StoreError::Conflict(_)) => {}
            other => return Ok(written(StatusCode::NO_CONTENT, other?, &[])),
        }
    }
    Err(StoreError::Conflict(format!("the settings of {id}")).into())
}

/// A machine that is there, or of which anything is left.
fn is_known(snapshot: &Snapshot, id: &MachineId) -> bool {
    snapshot.machines.contains_key(id) || snapshot.assignments.contains_key(id) || snapshot.availability.contains_key(id)
}

fn no_such_machine(id: &MachineId) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, format!("machine {id} does not exist"))
}

/// What of the machine is no global unit, with the reason why it is still there.
fn remaining(snapshot: &Snapshot, id: &MachineId, availability: Availability) -> Vec<Remaining> {
    let owner = |name: &UnitName| snapshot.units.get(name).or_else(|| snapshot.units.get(&name.template()?));
    let global = |name: &&UnitName| owner(name).is_some_and(|unit| unit.constraints.global && !unit.name.is_template());
    let assigned = snapshot.assignments.get(id).map(|assignment| &assignment.instances);
    let reported = snapshot.reports.get(id).map(|report| &report.instances);
    let mut names: Vec<&UnitName> = assigned.into_iter().flat_map(|instances| instances.keys()).collect();
    names.extend(reported.into_iter().flat_map(|instances| instances.keys()));
    names.sort();
    names.dedup();
    let planned = (availability == Availability::Draining).then(|| plan(snapshot));
    let why = |name: &UnitName| {
        let Some(planned) = &planned else { return String::new() };
        let moves =
            |change: &Change| matches!(change, Change::Retire { instance, machine, .. } if instance == name && machine == id);
        if assigned.is_none_or(|instances| !instances.contains_key(name)) {
            "it is being stopped".to_string()
        } else if planned.changes.iter().any(moves) {
            "it is about to move".to_string()
        } else if let Some(rolling) = planned.rolling.iter().find(|rolling| rolling.waiting.contains(name)) {
            rolling.to_string()
        } else {
            "no other machine can take it".to_string()
        }
    };
    names.into_iter().filter(|name| !global(name)).map(|name| Remaining { name: name.to_string(), why: why(name) }).collect()
}
