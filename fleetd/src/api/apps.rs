//! `/apps`: what a folder brings as one: planned, applied whole or not at all, shown, destroyed.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use fleet_core::app::{AppName, Application, Checksum, MAX_FILE_BYTES};
use fleet_core::model::Did;
use fleet_core::name::UnitName;
use fleet_core::view::Cluster;
use fleet_core::wire;
use serde_json::json;
use tokio::time::Instant;

use super::Api;
use super::describe::{self, Operation, Resource};
use super::door::bytes_only;
use super::error::ApiError;
use super::history::tidy_app;
use super::who::Who;
use crate::process::{clock, panics};
use crate::store::{Documents, Mirror, Part, StoreError, UnitsLock};

mod applying;
mod podman;

use applying::apply;

/// What shows how far an application is.
const PARTS: &[Part] = &[Part::Apps, Part::Units, Part::Machines, Part::Assignments, Part::Reports];

/// How long an apply waits for another one, or an import, to end.
const TURN: Duration = Duration::from_secs(5);

/// The pause before it looks again.
const PAUSE: Duration = Duration::from_millis(50);

/// What of the API is answered here.
pub(super) fn routes() -> Vec<Resource> {
    vec![
        podman::route(),
        Resource::at("/apps").get(
            list,
            Operation::new("listApps", "The applications, by name.")
                .gives::<wire::AppPage>("All of them."),
        ),
        Resource::at("/apps/{app}")
            .get(
                show,
                Operation::new("getApp", "One application: its units and files.")
                    .gives::<wire::App>("The application.")
                    .errors([400, 404]),
            )
            .post(
                apply,
                Operation::new(
                    "applyApp",
                    "Makes the application consist of these units and files, all of it or nothing.",
                )
                .query_of(
                    "dryRun",
                    "Only say what would change. Where instances would go is said by the present \
                        state of the cluster; the leader decides when it is applied.",
                    json!({"type": "boolean", "default": false}),
                )
                .query_of(
                    "prune",
                    "Remove the units that an earlier apply brought and these files lack.",
                    json!({"type": "boolean", "default": false}),
                )
                .query_of(
                    "ifRevision",
                    "Only if the application is at this revision; 0 if it is not there.",
                    json!({"type": "integer", "minimum": 0}),
                )
                .query(
                    "ifUnits",
                    "Only if nobody has changed any of its units since it was planned: the \
                        `basis` of the plan.",
                )
                .takes::<wire::AppFiles>()
                .example(json!({"units": {"hello.service": "[Service]\nExecStart=/bin/sleep 9\n"}}))
                .gives::<wire::AppPlan>("What changes.")
                .headers(&[(
                    wire::REVISION_HEADER,
                    "The store's revision of the write; absent if nothing was written.",
                )])
                .errors([409, 415]),
            )
            .delete(
                destroy,
                Operation::new("destroyApp", "Destroys an application with all its units.")
                    .gives::<wire::AppRemoved>("What is gone, and what data stays on machines.")
                    .headers(&[(wire::REVISION_HEADER, "The store's revision of the write.")])
                    .errors([400, 404, 409]),
            ),
        Resource::at("/apps/{app}/blobs/{sum}").put(
            put_blob,
            Operation::new(
                "putAppBlob",
                "Keeps the content of a file that an apply is about to name.",
            )
            .takes_bytes()
            .answers(StatusCode::NO_CONTENT, "It is kept.", describe::Body::None)
            .errors([409, 415]),
        ),
        Resource::at("/apps/{app}/files/{*path}").get(
            file,
            Operation::new("getAppFile", "The content of one file, as it was applied last.")
                .answers(
                    StatusCode::OK,
                    "The bytes.",
                    describe::Body::Other("application/octet-stream"),
                )
                .errors([400, 404]),
        ),
    ]
}

pub(super) async fn list(State(api): State<Api>) -> Result<Json<wire::AppPage>, ApiError> {
    let mirror = api.store().read(PARTS).await?;
    let cluster = mirror.cluster();
    let apps = cluster.apps.values().map(|app| shown(cluster, app)).collect();
    mirror.drop_later();
    Ok(Json(wire::AppPage { apps }))
}

pub(super) async fn show(
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Result<Json<wire::App>, ApiError> {
    let name = named(&name)?;
    let mirror = api.store().read(PARTS).await?;
    let shown = there(&mirror, &name).map(|app| shown(mirror.cluster(), app));
    mirror.drop_later();
    shown.map(Json)
}

fn shown(cluster: &Cluster, app: &Application) -> wire::App {
    let names: Vec<UnitName> = app.units.iter().cloned().collect();
    let progress = cluster.progress(&names);
    let instances = progress.units.iter().flat_map(|unit| &unit.instances);
    let wanted = || instances.clone().filter(|instance| instance.wanted);
    wire::App {
        name: app.name.clone(),
        revision: app.revision,
        applied_ms: app.applied_ms,
        wanted: wanted().count(),
        running: wanted().filter(|instance| instance.done).count(),
        units: names,
        replicas: app.replicas_of_their_own(cluster),
        files: app.files.clone(),
    }
}

pub(super) async fn file(
    State(api): State<Api>,
    Path((name, path)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let name = named(&name)?;
    let app = api.store().app(&name).await?.ok_or_else(|| no_such_app(&name))?.value;
    let missing = |problem: String| ApiError::new(StatusCode::NOT_FOUND, problem);
    let entry = app
        .files
        .get(&path)
        .ok_or_else(|| missing(format!("the application {name} has no file {path:?}")))?;
    let content = api.store().blobs(&name, std::slice::from_ref(&entry.sum)).await?.pop().flatten();
    let content = content.ok_or_else(|| {
        missing(format!(
            "the content of {path:?} is not in the store; apply the application {name} again"
        ))
    })?;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], content).into_response())
}

pub(super) async fn put_blob(
    State(api): State<Api>,
    Path((name, sum)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<StatusCode, ApiError> {
    bytes_only(&headers)?;
    let name = named(&name)?;
    let sum = Checksum::parse(&sum)
        .ok_or_else(|| ApiError::invalid(format!("{sum:?} is no SHA-256 in 64 hex digits")))?;
    if body.len() as u64 > MAX_FILE_BYTES {
        return Err(ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the file has {} bytes; the limit is {MAX_FILE_BYTES} (1 MiB)", body.len()),
        ));
    }
    if Checksum::of(&body) != sum {
        return Err(ApiError::invalid(format!("the body is not what its checksum {sum} says")));
    }
    match api.store().stage_blob(&name, body.to_vec(), clock::now_ms()).await? {
        Ok(_) => Ok(StatusCode::NO_CONTENT),
        Err(no_room) => Err(ApiError::conflict(no_room.to_string())),
    }
}

/// The right to write units. Who applies something else has it for a moment.
async fn locked(api: &Api) -> Result<UnitsLock, ApiError> {
    let until = Instant::now() + TURN;
    loop {
        match api.store().lock_units().await {
            Err(StoreError::Conflict(_)) if Instant::now() < until => {
                // It may be decided, and its owner gone.
                api.store().finish_import().await?;
                tokio::time::sleep(PAUSE).await;
            }
            lock => return Ok(lock?),
        }
    }
}

pub(super) async fn destroy(
    State(api): State<Api>,
    Path(name): Path<String>,
    who: Who,
) -> Result<Response, ApiError> {
    let name = named(&name)?;
    let broke_off = |problem| {
        ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("destroying it broke off: {problem}"),
        )
    };
    let destroyed = panics::spawn_contained(async move { remove(&api, &who, &name).await }).await;
    destroyed.unwrap_or_else(|ended| Err(ended.to_string())).map_err(broke_off)?
}

async fn remove(api: &Api, who: &Who, name: &AppName) -> Result<Response, ApiError> {
    let lock = locked(api).await?;
    let read = api.store().read(&[Part::Apps, Part::Units]).await.map_err(ApiError::from);
    let units = read.and_then(|mirror| {
        let app = there(&mirror, name)?;
        let is_there = |unit: &&UnitName| mirror.cluster().records.contains_key(*unit);
        let replicas = app.replicas_of_their_own(mirror.cluster());
        Ok(app.units.iter().filter(is_there).cloned().chain(replicas).collect::<Vec<_>>())
    });
    let units = match units {
        Ok(units) => units,
        Err(error) => {
            api.store().unlock_units(lock).await?;
            return Err(error);
        }
    };
    let all = Documents {
        removed: &units,
        removed_apps: std::slice::from_ref(name),
        ..Documents::default()
    };
    let act = who.act(Did::AppDestroyed { app: name.clone() }).of_units(&units);
    let revision = api.store().telling(act).import(lock, &all).await?;
    tidy_app(api, (name.clone(), revision), [], revision);
    let volumes = units.iter().filter(|unit| unit.suffix() == "volume").cloned().collect();
    let mut response = Json(wire::AppRemoved { units, volumes }).into_response();
    response.headers_mut().insert(wire::REVISION_HEADER, revision.into());
    Ok(response)
}

fn named(name: &str) -> Result<AppName, ApiError> {
    AppName::parse(name).map_err(ApiError::invalid)
}

fn there<'a>(mirror: &'a Mirror, name: &AppName) -> Result<&'a Arc<Application>, ApiError> {
    mirror.cluster().apps.get(name).ok_or_else(|| no_such_app(name))
}

fn no_such_app(name: &AppName) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, format!("there is no application {name}"))
}
