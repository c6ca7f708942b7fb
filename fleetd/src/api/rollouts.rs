//! `/rollouts`: how far changes of units are, and what users want of them. A wish is written into
//! the unit's record; the leader carries it out.

use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use fleet_core::model::{Did, RolloutAction, RolloutWish};
use fleet_core::name::UnitName;
use fleet_core::rollout::Refused;
use fleet_core::view::Cluster;
use fleet_core::wire;
use serde_json::json;
use tokio::time::timeout;

use super::Api;
use super::body::decode;
use super::describe::{Operation, Resource, WRITTEN};
use super::door::json_only;
use super::error::ApiError;
use super::page::{Page, paged};
use super::query::Asked;
use super::retry::until_not_overtaken;
use super::submission::Failed;
use super::units::known;
use super::who::Who;
use crate::process::clock;
use crate::store::Versioned;

/// How long the leader's answer is waited for; who asked may look again.
const ANSWER: Duration = Duration::from_secs(5);

/// What of the API is answered here.
pub(super) fn routes() -> Vec<Resource> {
    vec![
        Resource::at("/rollouts").get(
            list,
            paged(Operation::new(
                "listRollouts",
                "The rollouts that are under way, wait for a user or were undone, by unit.",
            ))
            .gives::<wire::RolloutPage>("A page of rollouts."),
        ),
        Resource::at("/rollouts/{unitName}")
            .get(
                show,
                Operation::new("getRollout", "How far a unit's rollout is.")
                    .gives::<wire::RolloutStatus>("That.")
                    .errors([404, 409]),
            )
            .post(
                want,
                Operation::new(
                    "setRollout",
                    "Pauses a unit's rollout, resumes it, or returns all instances to the last \
                        good text.",
                )
                .takes::<wire::RolloutWanted>()
                .example(json!({"action": "pause"}))
                .gives::<wire::RolloutStatus>("How it is now.")
                .headers(WRITTEN)
                .errors([404, 409, 415]),
            ),
    ]
}

pub(super) async fn list(
    State(api): State<Api>,
    asked: Asked,
) -> Result<Json<wire::RolloutPage>, ApiError> {
    let page = Page::of(&asked)?;
    let (_, mirror) = api.newest(&[]).await?;
    let all = mirror.cluster().rollouts_under_way();
    let names: Vec<UnitName> =
        all.iter().map(|rollout| UnitName::trusted(rollout.name.as_str())).collect();
    let (names, next_page_token) = page.cut(&names);
    let is_here =
        |rollout: &wire::RolloutStatus| names.iter().any(|name| name.as_str() == rollout.name);
    let rollouts = all.into_iter().filter(is_here).collect();
    Ok(Json(wire::RolloutPage { next_page_token, rollouts }))
}

pub(super) async fn show(
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Result<Json<wire::RolloutStatus>, ApiError> {
    let name = known(&name)?;
    let (_, mirror) = api.newest(std::slice::from_ref(&name)).await?;
    Ok(Json(status(mirror.cluster(), &name)?))
}

pub(super) async fn want(
    State(api): State<Api>,
    Path(name): Path<String>,
    who: Who,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    json_only(&headers)?;
    let wire::RolloutWanted { action } = decode(&body)?;
    if action == RolloutAction::Other {
        return Err(ApiError::invalid("unknown action: expect pause, resume or undo".to_string()));
    }
    let name = known(&name)?;
    let (mut reader, mirror) = api.newest(std::slice::from_ref(&name)).await?;
    status(mirror.cluster(), &name)?;
    // What was submitted a moment ago has yet to be begun by the leader.
    let begun = timeout(ANSWER, reader.when(|mirror| has_begun(mirror.cluster(), &name))).await;
    let mirror = begun.unwrap_or(Ok(mirror))?;
    let by = who.name();
    let write = || async {
        let cluster = mirror.cluster();
        let old = api.store().unit(&name).await?.0.ok_or_else(ApiError::no_such_unit)?;
        let Versioned { value: mut record, revision } = old;
        let unit = fleet_core::model::Unit::from_record(&record);
        let rollout = cluster.rollouts.get(&name).filter(|rollout| rollout.is_of_all(&unit));
        let refused = match rollout.map(|rollout| rollout.after(action)) {
            Some(Ok(_)) => None,
            Some(Err(refused)) => Some(refused),
            None if cluster.rollouts.contains_key(&name) => {
                return Err(Failed::Refused(ApiError::conflict(format!(
                    "the leader has yet to begin the rollout of {name}; try again"
                ))));
            }
            None => Some(Refused::First),
        };
        match refused {
            None => {}
            Some(Refused::Already) => return Ok(None),
            Some(refused) => {
                return Err(Failed::Refused(ApiError::conflict(refused.told(&name))));
            }
        }
        let last = record.rollout.as_ref().map_or(0, |wish| wish.id);
        record.rollout = Some(RolloutWish {
            action,
            id: clock::now_ms().max(last + 1),
            revision: unit.revision,
            restart: unit.restart,
            config: unit.config,
            by: by.clone(),
        });
        let store = api.store().telling(who.act(Did::SteeredRollout { action }).of_unit(&name));
        Ok(Some(store.put_unit(&record, Some(revision), false).await?))
    };
    let written = until_not_overtaken(&format!("the unit {name}"), write).await?;
    let Some(revision) = written else {
        return Ok(Json(status(mirror.cluster(), &name)?).into_response());
    };
    tracing::info!(unit = name.as_str(), "{by}: {} the rollout of {name}", action.as_str());
    // The leader carries it out at once, if there is one.
    let answered = timeout(ANSWER, reader.when(|mirror| mirror.cluster().is_planned(revision)));
    let mirror = match answered.await {
        Ok(mirror) => mirror?,
        Err(_) => reader.when(|mirror| mirror.cluster().snapshot.revision >= revision).await?,
    };
    let mut response = (StatusCode::OK, Json(status(mirror.cluster(), &name)?)).into_response();
    super::note_written(response.headers_mut(), revision, &[]);
    Ok(response)
}

/// Whether the leader has seen what is asked of the unit last, if it looked at it before.
fn has_begun(cluster: &Cluster, name: &UnitName) -> bool {
    let known = cluster.snapshot.units.get(name).zip(cluster.rollouts.get(name));
    known.is_none_or(|(unit, rollout)| rollout.is_of_all(unit))
}

/// How a unit's rollout is.
fn status(cluster: &Cluster, name: &UnitName) -> Result<wire::RolloutStatus, ApiError> {
    if let Some(status) = cluster.rollout(name) {
        return Ok(status);
    }
    if cluster.snapshot.units.contains_key(name) {
        return Err(ApiError::conflict(format!(
            "nobody looks after changes of {name}, a unit by its own name: OnUpdateFailure= in its \
                [X-Fleet] section makes fleet do so"
        )));
    }
    Err(match cluster.owner(name) {
        Some(template) => ApiError::conflict(format!(
            "{name} is a replica of {0}; name {0}, whose text all have",
            template.name
        )),
        None => ApiError::no_such_unit(),
    })
}
