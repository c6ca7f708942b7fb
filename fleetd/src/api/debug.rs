//! For a look behind: the snapshot that the leader planned, and what is wrong in the store.

use axum::Json;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use fleet_core::check::StoreCheck;

use super::error::ApiError;
use super::{Api, remote};

pub(super) async fn check(State(api): State<Api>) -> Result<Json<StoreCheck>, ApiError> {
    Ok(Json(api.store().check().await?))
}

/// Only the leader has it; another machine's API asks the leader's.
pub(super) async fn snapshot(State(api): State<Api>, Query(query): Query<Vec<(String, String)>>) -> Result<Response, ApiError> {
    let value = |key: &str| query.iter().rev().find(|(k, v)| k == key && !v.is_empty()).map(|(_, v)| v.as_str());
    let digest = value("plan");
    if let Some(saved) = api.replays.find(digest) {
        return Ok(Json(&*saved).into_response());
    }
    let mirror = api.store().read_all().await?;
    let cluster = mirror.cluster();
    let Some(leader) = cluster.leader.as_ref().map(|leader| &leader.machine) else {
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "nobody leads at the moment, so nobody has planned anything"));
    };
    if *leader == api.shared.machine || value("machine").is_some() {
        return Err(ApiError::new(
            StatusCode::NOT_FOUND,
            match digest {
                Some(digest) => format!("the leader no longer has the snapshot of plan {digest}; it keeps the last few"),
                None => "the leader has planned nothing yet".to_string(),
            },
        ));
    }
    let base = cluster.snapshot.machines.get(leader).and_then(|machine| machine.api.clone()).ok_or_else(|| {
        let problem = format!(
            "machine {leader} leads, and its API cannot be reached from here; ask there, or set listen in its configuration"
        );
        ApiError::new(StatusCode::BAD_GATEWAY, problem)
    })?;
    let wanted = digest.map_or(String::new(), |digest| format!("&plan={digest}"));
    let answer = remote::ask_machine(&api, leader, &base, &format!("debug/snapshot?machine={leader}{wanted}")).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], Body::from_stream(answer.bytes_stream())).into_response())
}
