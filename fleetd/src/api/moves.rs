//! `/units/<instance>/move`: a move that a user asks for, which the leader grants once or refuses.

use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use fleet_core::model::{Did, FORMAT, Move, Unknown};
use fleet_core::name::{MachineId, UnitName};
use fleet_core::view::Cluster;
use fleet_core::wire;
use serde_json::json;
use tokio::time::timeout;

use super::Api;
use super::body::decode;
use super::describe::{Operation, Resource, WRITTEN};
use super::door::json_only;
use super::error::ApiError;
use super::settings::no_such_machine;
use super::units::known;
use super::who::Who;
use crate::store::MAX_MOVES;

/// How long the leader's answer is waited for; who asked may look again.
const ANSWER: Duration = Duration::from_secs(5);

/// What of the API is answered here.
pub(super) fn routes() -> Vec<Resource> {
    vec![
        Resource::at("/units/{unitName}/move")
            .get(
                show,
                Operation::new("getUnitMove", "How a move that was asked for stands.")
                    .gives::<wire::MoveState>("That.")
                    .errors([404]),
            )
            .post(
                ask,
                Operation::new(
                    "moveUnit",
                    "Moves one instance to a machine, once, if the unit's options and its budget \
                        allow.",
                )
                .takes::<wire::MoveWish>()
                .example(json!({"machineID": "c2e1b5180a5ec645aa037c911a0f20bb"}))
                .gives::<wire::MoveState>("It is there, or on its way.")
                .headers(WRITTEN)
                .errors([404, 409, 415]),
            ),
    ]
}

pub(super) async fn show(
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Result<Json<wire::MoveState>, ApiError> {
    let name = known(&name)?;
    let (_, mirror) = api.newest(std::slice::from_ref(&name)).await?;
    if mirror.cluster().owner(&name).is_none() {
        return Err(ApiError::no_such_unit());
    }
    Ok(Json(state(mirror.cluster(), &name, None)))
}

pub(super) async fn ask(
    State(api): State<Api>,
    Path(name): Path<String>,
    who: Who,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    json_only(&headers)?;
    let wish: wire::MoveWish = decode(&body)?;
    let name = known(&name)?;
    let to = MachineId::parse(&wish.machine_id).ok_or_else(|| no_such_machine(&wish.machine_id))?;
    let (mut reader, mirror) = api.newest(std::slice::from_ref(&name)).await?;
    if mirror.cluster().owner(&name).is_none() {
        return Err(ApiError::no_such_unit());
    }
    if name.is_template() {
        return Err(ApiError::conflict(format!(
            "{name} is a template; name one of its instances, like {}",
            name.replica(1)
        )));
    }
    if !mirror.cluster().snapshot.machines.contains_key(&to) {
        return Err(no_such_machine(&to));
    }
    let act = who.act(Did::Moved).of_unit(&name).on(&to);
    let (at_ms, by) = (act.at_ms, act.by.clone());
    let wish = Move { v: FORMAT, to, by, at_ms, unknown: Unknown::new() };
    let Some(revision) = api.store().telling(act).put_move(&name, &wish).await? else {
        return Err(ApiError::conflict(format!(
            "{MAX_MOVES} moves are asked for already; wait until some of them are done"
        )));
    };
    tracing::info!(unit = name.as_str(), "{} moves {name} to machine {}", wish.by, wish.to.short());
    // The leader answers at once, if there is one.
    let answered = timeout(ANSWER, reader.when(|mirror| mirror.cluster().is_planned(revision)));
    let mirror = match answered.await {
        Ok(mirror) => mirror?,
        Err(_) => reader.when(|mirror| mirror.cluster().snapshot.revision >= revision).await?,
    };
    let state = state(mirror.cluster(), &name, Some(revision));
    if !state.refused.is_empty() {
        return Err(ApiError::conflict(format!(
            "{name} does not move to machine {}: {}",
            wish.to.short(),
            state.refused
        )));
    }
    let mut response = (StatusCode::OK, Json(state)).into_response();
    super::note_written(response.headers_mut(), revision, &[]);
    Ok(response)
}

/// How the move of an instance stands; `wish` is the one whose refusal counts, if it is known.
fn state(cluster: &Cluster, name: &UnitName, wish: Option<i64>) -> wire::MoveState {
    let mut assigned = cluster.assigned(name).filter(|(_, instance)| *instance == name);
    let machine = assigned.next().map(|(machine, _)| machine);
    let wished = cluster.snapshot.moves.get(name).filter(|now| machine != Some(&now.to));
    let refused = cluster.outlook.iter().flat_map(|outlook| outlook.refused.iter().rev());
    let refused = refused
        .filter(|refused| refused.instance == *name)
        .find(|refused| wish.is_none_or(|wish| wish == refused.wish))
        .filter(|refused| wished.is_none_or(|wished| wished.revision == refused.wish));
    let waits = cluster.leaders_word().and_then(|word| word.waits(name));
    let status = machine.and_then(|machine| cluster.status(machine, name));
    wire::MoveState {
        name: name.to_string(),
        machine_id: machine.map(ToString::to_string).unwrap_or_default(),
        to_machine_id: wished.map(|wished| wished.to.to_string()).unwrap_or_default(),
        waits: waits.map(|waits| waits.to_string()).unwrap_or_default(),
        refused: refused.map(|refused| refused.says.clone()).unwrap_or_default(),
        active: status.is_some_and(|status| status.is_active() && !status.leaving),
    }
}
