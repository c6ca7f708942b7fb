//! `/units`: submit, change, scale, restart and destroy. Every write reads the record, checks, and
//! compares when it writes.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use fleet_core::model::{DesiredState, Did};
use fleet_core::name::UnitName;
use fleet_core::unit::count::{CountError, scaled};
use fleet_core::wire;
use serde_json::json;

use super::body::{decode, decode_as_go};
use super::describe::{self, Operation, Resource, WRITTEN};
use super::door::json_only;
use super::error::ApiError;
use super::history::tidy;
use super::needs;
use super::page::Page;
use super::page::paged;
use super::query::Asked;
use super::retry::until_not_overtaken;
use super::submission::{
    Failed, Submission, Wrote, is_global, owner, refused_count, restart_all, set_replicas,
};
use super::who::Who;
use super::{Api, fleet1, written};
use crate::store::{Part, Versioned};

/// Assignments and reports say where units are, and how far.
const PARTS: &[Part] = &[Part::Units, Part::Assignments, Part::Reports];

/// What of the API is answered here.
pub(super) fn routes() -> Vec<Resource> {
    vec![
        Resource::at("/units").get(
            list,
            paged(Operation::new("listUnits", "The units, by name, replicas among them."))
                .query_of("brief", "Whether to leave out their \
                    options.", json!({"type": "boolean", "default": false}))
                .gives::<wire::UnitPage>("A page of units.")
                .discovered_as("Units", "List"),
        ),
        Resource::at("/units/{unitName}")
            .get(
                show,
                Operation::new("getUnit", "One unit, with its text.")
                    .gives::<wire::Unit>("The unit.")
                    .errors([400, 404])
                    .discovered_as("Units", "Get"),
            )
            .put(
                submit,
                Operation::new("setUnit", "Submits a unit, replaces its text, or changes its \
                    desired state.")
                    .takes::<wire::Unit>()
                    .example(json!({
                        "desiredState": "launched",
                        "options": [{"section": "Service", "name": "ExecStart", "value": "/bin/sleep infinity"}],
                    }))
                    .answers(StatusCode::CREATED, "It was created, or its text \
                        replaced.", describe::Body::None)
                    .answers(StatusCode::NO_CONTENT, "Its desired state was set.", describe::Body::None)
                    .headers(WRITTEN)
                    .errors([409, 415])
                    .discovered_as("Units", "Set"),
            )
            .delete(
                destroy,
                Operation::new("destroyUnit", "Takes a unit off its machines and forgets it.")
                    .answers(StatusCode::NO_CONTENT, "It was destroyed.", describe::Body::None)
                    .headers(WRITTEN)
                    .errors([400, 404, 409])
                    .discovered_as("Units", "Delete"),
            ),
        Resource::at("/units/{unitName}/replicas").put(
            scale,
            Operation::new("scaleUnit", "Sets the wanted count of a template, and launches it if \
                it was inactive.")
                .takes::<wire::Scale>()
                .example(json!({"replicas": 5}))
                .gives::<wire::Scaled>("The count before, and now.")
                .headers(WRITTEN)
                .errors([404, 409, 415]),
        ),
        Resource::at("/units/{unitName}/restart").post(
            restart,
            Operation::new("restartUnit", "Restarts a launched unit wherever it runs.")
                .takes::<wire::Restart>()
                .example(json!({}))
                .answers(StatusCode::ACCEPTED, "It will be restarted.", describe::Body::None)
                .headers(WRITTEN)
                .errors([404, 409, 415]),
        ),
    ]
}

pub(super) async fn list(
    State(api): State<Api>,
    asked: Asked,
    headers: HeaderMap,
) -> Result<Json<wire::UnitPage>, ApiError> {
    let page = Page::of(&asked)?;
    if asked.flag("brief") {
        return brief_list(&api, page).await;
    }
    let mirror = api.store().read(PARTS).await?;
    let cluster = mirror.cluster();
    let all: Vec<UnitName> = cluster.names().into_iter().collect();
    let (names, next_page_token) = page.cut(&all);
    let places = cluster.places();
    let mut units: Vec<wire::Unit> =
        names.iter().filter_map(|name| cluster.unit(name, &places)).collect();
    if fleet1::is_asking(&headers) {
        units = units.into_iter().map(|unit| api.shared.restarts.told(unit)).collect();
    }
    mirror.drop_later();
    Ok(Json(wire::UnitPage { next_page_token, units }))
}

/// The same of records read only as far as it shows them.
async fn brief_list(api: &Api, page: Page) -> Result<Json<wire::UnitPage>, ApiError> {
    let (briefs, mirror) = api.store().read_briefs(PARTS).await?;
    let cluster = mirror.cluster();
    let all: Vec<UnitName> = briefs.names().into_iter().collect();
    let (names, next_page_token) = page.cut(&all);
    let places = cluster.places();
    let unit = |name| Some(cluster.brief_unit(name, briefs.owner(name)?, &places));
    let units = names.iter().filter_map(unit).collect();
    mirror.drop_later();
    Ok(Json(wire::UnitPage { next_page_token, units }))
}

pub(super) async fn show(
    State(api): State<Api>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Json<wire::Unit>, ApiError> {
    let mirror = api.store().read(PARTS).await?;
    let cluster = mirror.cluster();
    let name = known(&name)?;
    let mut unit = cluster.unit(&name, &cluster.places()).ok_or_else(ApiError::no_such_unit)?;
    unit.text = cluster.owner(&name).map(|record| record.text.clone());
    if fleet1::is_asking(&headers) {
        unit = api.shared.restarts.told(unit);
    }
    Ok(Json(unit))
}

pub(super) async fn submit(
    State(api): State<Api>,
    Path(name): Path<String>,
    who: Who,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    json_only(&headers)?;
    let body: wire::Unit = decode_as_go(&body, wire::Unit::KEYS)?;
    if !body.name.is_empty() && body.name != name {
        return Err(ApiError::invalid(format!(
            "name in URL {name:?} differs from unit name in request body {:?}",
            body.name
        )));
    }
    let name = parse(&name)?;
    let mut submission = Submission::read(&name, body)?;
    let restarts = &api.shared.restarts;
    let is_fleet1 = fleet1::is_asking(&headers) && submission.text.is_none();
    let begins_restart = is_fleet1
        && submission.desired == Some(DesiredState::Loaded)
        && api
            .store()
            .unit(&name)
            .await?
            .0
            .is_some_and(|old| old.value.desired == DesiredState::Launched);
    submission.restarts =
        is_fleet1 && submission.desired == Some(DesiredState::Launched) && restarts.end(&name);
    if let Some(text) = &submission.text {
        let warnings = needs::check(&api, &name, text).await?;
        submission.warnings.extend(warnings);
    }
    let what = format!("the unit {name}");
    let Wrote { status, at, text } =
        until_not_overtaken(&what, || submission.write(api.store(), &name, &who)).await?;
    tidy(&api, text.map(|number| (&name, number)), at);
    if begins_restart {
        restarts.begin(&name);
    }
    Ok(written(status, at, &submission.warnings))
}

pub(super) async fn destroy(
    State(api): State<Api>,
    Path(name): Path<String>,
    who: Who,
) -> Result<Response, ApiError> {
    let Some(name) = UnitName::read(&name) else {
        // Written into the store by hand. Nobody reads it, and this is the way out.
        let gone = api.store().delete_misnamed(&name).await?;
        return gone
            .map(|revision| written(StatusCode::NO_CONTENT, revision, &[]))
            .ok_or_else(ApiError::no_such_unit);
    };
    let destroy = || async {
        // A record that cannot be read can be destroyed, too: that is the way out.
        if let Some(old) = api.store().unit_revision(&name).await? {
            let store = api.store().telling(who.act(Did::Destroyed).of_unit(&name));
            return Ok(store.delete_unit(&name, old).await?);
        }
        Err(Failed::Refused(match owner(api.store(), &name).await? {
            Some(template) => ApiError::conflict(format!(
                "{name} is a replica of {}; scale that down, or destroy it",
                template.value.name
            )),
            None => ApiError::no_such_unit(),
        }))
    };
    let revision = until_not_overtaken(&format!("the unit {name}"), destroy).await?;
    Ok(written(StatusCode::NO_CONTENT, revision, &[]))
}

pub(super) async fn scale(
    State(api): State<Api>,
    Path(name): Path<String>,
    who: Who,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    json_only(&headers)?;
    let scale: wire::Scale = decode(&body)?;
    let name = parse(&name)?;
    if !name.is_template() {
        return Err(refused_count(CountError::NoTemplate(name)));
    }
    let set = || async {
        let old = api.store().unit(&name).await?.0.ok_or_else(ApiError::no_such_unit)?;
        let Versioned { value: mut record, revision } = old;
        let before = record.replicas.unwrap_or(0);
        let replicas =
            scaled(&name, is_global(&record.text), before, &scale).map_err(refused_count)?;
        set_replicas(&mut record, replicas);
        let was = record.desired;
        if was == DesiredState::Inactive {
            record.desired = DesiredState::Launched;
        }
        let store = match (before, was) == (replicas, record.desired) {
            true => api.store().clone(), // nothing changes
            false => {
                let did = Did::Scaled { from: before, to: replicas };
                api.store().telling(who.act(did).of_unit(&name))
            }
        };
        Ok((before, replicas, store.put_unit(&record, Some(revision), false).await?))
    };
    let (before, replicas, revision) =
        until_not_overtaken(&format!("the unit {name}"), set).await?;
    let mut response = Json(wire::Scaled { name, before, replicas }).into_response();
    response.headers_mut().insert(wire::REVISION_HEADER, revision.into());
    Ok(response)
}

pub(super) async fn restart(
    State(api): State<Api>,
    Path(name): Path<String>,
    who: Who,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    json_only(&headers)?;
    if !body.trim_ascii().is_empty() {
        let wire::Restart {} = decode(&body)?;
    }
    let name = known(&name)?;
    let restart = || async {
        let old = owner(api.store(), &name).await?.ok_or_else(ApiError::no_such_unit)?;
        let Versioned { value: mut record, revision } = old;
        if record.desired != DesiredState::Launched {
            return Err(Failed::Refused(ApiError::conflict(format!(
                "unable to restart unit {name} in state {}",
                record.desired
            ))));
        }
        if record.name == name {
            restart_all(&mut record);
        } else {
            *record.restart_of.entry(name.clone()).or_default() += 1;
        }
        let store = api.store().telling(who.act(Did::Restarted).of_unit(&name));
        Ok(store.put_unit(&record, Some(revision), false).await?)
    };
    let revision = until_not_overtaken(&format!("the unit {name}"), restart).await?;
    Ok(written(StatusCode::ACCEPTED, revision, &[]))
}

/// A name that a unit may have; any other is an error of the request.
pub(super) fn parse(name: &str) -> Result<UnitName, ApiError> {
    UnitName::parse(name).map_err(|error| ApiError::invalid(error.to_string()))
}

/// A name that a unit may have. There is none under any other.
pub(super) fn known(name: &str) -> Result<UnitName, ApiError> {
    UnitName::parse(name).map_err(|_| ApiError::no_such_unit())
}
