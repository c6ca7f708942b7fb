//! For a look behind: the snapshot that the leader planned, and what is wrong in the store.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use fleet_core::check::StoreCheck;
use fleet_core::name::MachineId;
use fleet_core::view::Cluster;
use serde_json::Value;

use super::describe::{Operation, Resource};
use super::error::ApiError;
use super::query::Asked;
use super::{Api, remote};
use crate::store::Part;

/// What of the API is answered here.
pub(super) fn routes() -> Vec<Resource> {
    vec![
        Resource::at("/store/check").get(
            check,
            Operation::new("checkStore", "Reads every document, and says what is wrong.")
                .gives::<StoreCheck>("What was found."),
        ),
        Resource::at("/debug/snapshot").get(
            snapshot,
            Operation::new(
                "getSnapshot",
                "Everything that the leader's last plan saw, and the plan's digest.",
            )
            .query(
                "plan",
                "The digest of another plan, as events name it; the leader keeps the last few.",
            )
            .query("machine", "The machine that is asked, as one fleetd asks another.")
            .gives::<Value>(
                "The snapshot, for `fleetctl debug replay`; its form is this version's own.",
            )
            .errors([404, 502]),
        ),
    ]
}

pub(super) async fn check(State(api): State<Api>) -> Result<Json<StoreCheck>, ApiError> {
    Ok(Json(api.store().check().await?))
}

/// The leader has what it planned last, and whoever led has what it planned then; another machine's
/// API asks them.
pub(super) async fn snapshot(State(api): State<Api>, asked: Asked) -> Result<Response, ApiError> {
    let digest = asked.value("plan");
    if let Some(saved) = api.replays.find(digest) {
        return Ok(Json(&*saved).into_response());
    }
    let not_here = || match digest {
        Some(digest) => format!(
            "no machine has the snapshot of plan {digest} any more; those that led keep the last \
                of them"
        ),
        None => "the leader has planned nothing yet".to_string(),
    };
    if asked.value("machine").is_some() {
        return Err(ApiError::new(StatusCode::NOT_FOUND, not_here()));
    }
    let mirror = api.store().read(&[Part::Machines]).await?;
    let cluster = mirror.cluster();
    let leader = cluster.leader.as_ref().map(|leader| &leader.machine);
    let others = cluster
        .snapshot
        .machines
        .keys()
        .filter(|machine| digest.is_some() && Some(*machine) != leader);
    if leader.is_none() && digest.is_none() {
        return Err(ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "nobody leads at the moment, so nobody has planned anything",
        ));
    }
    let mut unasked: Option<ApiError> = None;
    for machine in
        leader.into_iter().chain(others).filter(|machine| **machine != api.shared.machine)
    {
        match ask(&api, cluster, machine, digest).await {
            Ok(answer) => return Ok(answer),
            Err(error) if error.status() == StatusCode::NOT_FOUND => {}
            Err(error) => unasked = unasked.or(Some(error)),
        }
    }
    Err(unasked.unwrap_or_else(|| ApiError::new(StatusCode::NOT_FOUND, not_here())))
}

async fn ask(
    api: &Api,
    cluster: &Cluster,
    machine: &MachineId,
    digest: Option<&str>,
) -> Result<Response, ApiError> {
    let base = cluster.snapshot.machines.get(machine).and_then(|machine| machine.api.clone()).ok_or_else(|| {
        let problem = format!(
            "machine {machine} may have it, and its API cannot be reached from here; ask there, \
                or set listen in its configuration"
        );
        ApiError::new(StatusCode::BAD_GATEWAY, problem)
    })?;
    let query: Vec<(&str, &str)> = digest.map(|digest| ("plan", digest)).into_iter().collect();
    let answer = remote::ask_machine(api, machine, &base, &["debug", "snapshot"], &query).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], Body::from_stream(answer.bytes_stream()))
        .into_response())
}
