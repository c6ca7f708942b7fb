//! `/reboots`: the rules of reboots, and who holds a lock.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use fleet_core::model::{Act, DEFAULT_SLOTS, Did, Reboots};
use fleet_core::name::MachineId;
use fleet_core::reboots::{DEFAULT_GROUP, Window, is_group, state_of};
use fleet_core::wire;
use fleet_core::wire::{RebootLockState, RebootState, RebootWish, RebootsPatch, RebootsState};
use serde_json::json;

use super::body::decode;
use super::describe::{self, Operation, Resource, WRITTEN};
use super::door::json_only;
use super::error::ApiError;
use super::query::Asked;
use super::reboot_locks::{Denied, give_back, grant, waits};
use super::retry::until_not_overtaken;
use super::settings::{is_known, no_such_machine};
use super::who::Who;
use super::{Api, written};
use crate::process::clock;
use crate::store::{Mirror, Part};

/// What of the API is answered here.
pub(super) fn routes() -> Vec<Resource> {
    vec![
        Resource::at("/reboots")
            .get(
                show,
                Operation::new("getReboots", "The rules of reboots, and who holds a lock.")
                    .gives::<wire::RebootsState>("Those."),
            )
            .patch(
                change,
                Operation::new("setReboots", "Changes how many machines reboot at once, and when.")
                    .takes::<wire::RebootsPatch>()
                    .example(json!({"window": "Sat,Sun 02:00..05:00"}))
                    .answers(StatusCode::NO_CONTENT, "It was changed.", describe::Body::None)
                    .headers(WRITTEN)
                    .errors([409, 415]),
            ),
        Resource::at("/reboots/{machineID}")
            .post(
                ask,
                Operation::new(
                    "askForReboot",
                    "Asks for leave to reboot a machine. It is drained first.",
                )
                .takes::<wire::RebootWish>()
                .example(json!({"group": "default"}))
                .answers(StatusCode::NO_CONTENT, "It may reboot.", describe::Body::None)
                .errors([404, 409, 415]),
            )
            .delete(
                release,
                Operation::new(
                    "releaseReboot",
                    "Takes a machine's lock away, also of one that never came back.",
                )
                .query_of(
                    "ifBack",
                    "Whether to do so only once the machine is there again.",
                    json!({"type": "boolean", "default": false}),
                )
                .answers(StatusCode::NO_CONTENT, "It has none any more.", describe::Body::None)
                .errors([400, 404, 409]),
            ),
    ]
}

pub(super) async fn show(State(api): State<Api>) -> Result<Json<RebootsState>, ApiError> {
    let (reboots, seen) = api.store().reboots().await?;
    let mut reader = api.shared.copies.reader();
    let seen = seen.unwrap_or(0);
    let mirror = reader.when(|mirror| mirror.cluster().snapshot.revision >= seen).await?;
    let window = reboots.window.clone().unwrap_or_default();
    let is_open = |window: Window| window.is_open(clock::now_ms());
    let open = window.is_empty() || Window::parse(&window).is_ok_and(is_open);
    let locks = locks(&mirror, &reboots).await.map_err(failed)?;
    let mut slots = reboots.slots;
    slots.entry(DEFAULT_GROUP.to_string()).or_insert(DEFAULT_SLOTS);
    Ok(Json(RebootsState { slots, window, open, locks }))
}

async fn locks(mirror: &Arc<Mirror>, reboots: &Reboots) -> Result<Vec<RebootLockState>, Denied> {
    let mut all = Vec::new();
    for (id, lock) in &reboots.locks {
        let state = state_of(lock, mirror.cluster().snapshot.machines.contains_key(id));
        let waits = match state {
            RebootState::Draining => waits(mirror, id).await?,
            _ => String::new(),
        };
        all.push(RebootLockState {
            machine_id: id.to_string(),
            group: lock.group.clone(),
            state,
            since_ms: lock.since_ms,
            granted_ms: lock.granted_ms,
            by: lock.by.clone(),
            waits,
        });
    }
    Ok(all)
}

pub(super) async fn change(
    State(api): State<Api>,
    who: Who,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    json_only(&headers)?;
    let patch: RebootsPatch = decode(&body)?;
    check(&patch)?;
    let slots = patch.slots.iter().take(Act::MAX_KEYS);
    let slots = slots.map(|(group, slots)| (group.clone(), *slots)).collect();
    let did = Did::SetReboots { slots, window: patch.window.clone() };
    let rewrite = || async {
        let (mut reboots, revision) = api.store().reboots().await?;
        let before = reboots.clone();
        for (group, slots) in &patch.slots {
            match slots {
                Some(slots) => drop(reboots.slots.insert(group.clone(), *slots)),
                None => drop(reboots.slots.remove(group)),
            }
        }
        if reboots.slots.len() > Reboots::MAX_GROUPS {
            let problem = format!(
                "{} groups have slots of their own; at most {} may",
                reboots.slots.len(),
                Reboots::MAX_GROUPS
            );
            return Err(ApiError::conflict(problem).into());
        }
        if let Some(window) = &patch.window {
            reboots.window = (!window.is_empty()).then(|| window.clone());
        }
        let store = match reboots == before {
            true => api.store().clone(),
            false => api.store().telling(who.act(did.clone())),
        };
        Ok(store.put_reboots(&reboots, revision).await?)
    };
    let revision = until_not_overtaken("the rules of reboots", rewrite).await?;
    tracing::info!("{} changed the rules of reboots", who.name());
    Ok(written(StatusCode::NO_CONTENT, revision, &[]))
}

fn check(patch: &RebootsPatch) -> Result<(), ApiError> {
    patch.slots.keys().try_for_each(|group| check_group(group))?;
    match patch.window.as_deref().filter(|window| !window.is_empty()) {
        Some(window) => Window::parse(window).map(drop).map_err(ApiError::invalid),
        None => Ok(()),
    }
}

pub(super) async fn ask(
    State(api): State<Api>,
    Path(id): Path<String>,
    who: Who,
    headers: HeaderMap,
    body: Bytes,
) -> Result<StatusCode, ApiError> {
    json_only(&headers)?;
    let wish: RebootWish = decode(&body)?;
    let group = if wish.group.is_empty() { DEFAULT_GROUP } else { &wish.group };
    check_group(group)?;
    let id = MachineId::parse(&id).ok_or_else(|| no_such_machine(&id))?;
    let mirror = api.store().read(&[Part::Machines, Part::Assignments]).await?;
    if !is_known(&mirror.cluster().snapshot, &id) {
        return Err(no_such_machine(&id));
    }
    mirror.drop_later();
    grant(&api, &id, group, &who).await.map_err(failed)?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn release(
    State(api): State<Api>,
    Path(id): Path<String>,
    asked: Asked,
    who: Who,
) -> Result<StatusCode, ApiError> {
    let id = MachineId::parse(&id).ok_or_else(|| no_such_machine(&id))?;
    if give_back(&api, &id, asked.flag("ifBack"), &who).await.map_err(failed)? {
        tracing::info!(machine = %id, "{} released the lock of {}", who.name(), id.short());
        return Ok(StatusCode::NO_CONTENT);
    }
    let mirror = api.store().read(&[Part::Machines, Part::Assignments]).await?;
    match is_known(&mirror.cluster().snapshot, &id) {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(no_such_machine(&id)),
    }
}

fn check_group(group: &str) -> Result<(), ApiError> {
    let invalid = || format!("invalid group {group:?}: letters, digits, dots and dashes");
    if is_group(group) { Ok(()) } else { Err(ApiError::invalid(invalid())) }
}

fn failed(denied: Denied) -> ApiError {
    match denied {
        Denied::Failed(error) => error.into(),
        Denied::Panicked(problem) => ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, problem),
        denied => ApiError::conflict(denied.says()),
    }
}
