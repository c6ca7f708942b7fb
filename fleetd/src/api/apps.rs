//! `/apps`: what a folder brings as one: planned, applied whole or not at all, shown, destroyed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use fleet_core::app::{AppName, Application, Applying, Bundle, Checksum, MAX_FILE_BYTES, Request};
use fleet_core::name::UnitName;
use fleet_core::view::Cluster;
use fleet_core::wire;
use fleet_core::wire::{AppFiles, AppPlan};
use serde_json::json;
use tokio::time::Instant;

use super::Api;
use super::body::decode;
use super::describe::{self, Operation, Resource};
use super::door::{bytes_only, json_only};
use super::error::ApiError;
use super::query::Asked;
use crate::process::{clock, panics};
use crate::store::{Documents, Mirror, Part, StoreError, UnitsLock};
use crate::systemd::quadlet::Checked;

/// What shows how far an application is.
const PARTS: &[Part] = &[Part::Apps, Part::Units, Part::Machines, Part::Assignments, Part::Reports];

/// How long an apply waits for another one, or an import, to end.
const TURN: Duration = Duration::from_secs(5);

/// The pause before it looks again.
const PAUSE: Duration = Duration::from_millis(50);

/// How many problems one refusal lists.
const PROBLEMS_SHOWN: usize = 50;

/// The most paths of files that a refusal names.
const NAMED: usize = 5;

/// Of how many units' bundles a plan says which files differ: it reads each of those that they have
/// so far.
const BUNDLES_READ: usize = 60;

/// What of the API is answered here.
pub(super) fn routes() -> Vec<Resource> {
    vec![
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
            .errors([415]),
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
    api.store().put_blob(&name, body.to_vec()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What somebody asks for.
struct Wish {
    app: AppName,
    files: AppFiles,
    prune: bool,
    if_revision: Option<u64>,
}

pub(super) async fn apply(
    State(api): State<Api>,
    Path(name): Path<String>,
    asked: Asked,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    json_only(&headers)?;
    let wish = Wish {
        app: named(&name)?,
        files: decode(&body)?,
        prune: asked.flag("prune"),
        if_revision: asked.number("ifRevision")?,
    };
    if asked.flag("dryRun") {
        return Ok(Json(dry_run(&api, wish).await?).into_response());
    }
    // A task of its own: a client that goes away in the middle must not leave the lock behind.
    let broke_off = |problem| {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the apply broke off: {problem}"))
    };
    let applied = panics::spawn_contained(async move { carry_out(&api, wish).await }).await;
    applied.unwrap_or_else(|ended| Err(ended.to_string())).map_err(broke_off)?
}

/// Plans on the live copy, as soon as that shows the application and its units as they stand.
async fn dry_run(api: &Api, wish: Wish) -> Result<AppPlan, ApiError> {
    let document = api.store().app(&wish.app).await;
    let document = match document {
        Err(StoreError::Corrupt { .. }) => None, // the copy says so, too
        document => document?.map(|document| document.revision),
    };
    let units: Vec<UnitName> =
        wish.files.units.keys().filter_map(|name| UnitName::parse(name).ok()).collect();
    let (mut reader, _) = api.newest(&units).await?;
    let app = wish.app.clone();
    let mirror = reader
        .when(move |mirror| match document {
            Some(revision) => mirror.cluster().snapshot.revision >= revision,
            None => !mirror.cluster().apps.contains_key(&app),
        })
        .await?;
    let kept = api.store().blob_sums(&wish.app).await?;
    let planned = with_podmans_word(api, planned(mirror, wish).await?).await?;
    let Applying { contents, files, mut plan, .. } = with_files_told(api, planned).await?.applying;
    let lacks = |sum: &&Checksum| !kept.contains_key(*sum);
    plan.missing = files.iter().filter(lacks).cloned().collect();
    // An import brings texts and the document, and not what they name.
    let unkept = plan.missing.len() + contents.keys().filter(lacks).count();
    if unkept > 0 && !plan.changes {
        plan.changes = true;
        plan.warnings.push(format!(
            "the store lacks {unkept} contents that come with these units, as after an import; \
                an apply brings them"
        ));
    }
    Ok(plan)
}

/// Reads the bundles that units have so far, and says which files differ.
async fn with_files_told(api: &Api, mut planned: Planned) -> Result<Planned, ApiError> {
    let sums: BTreeSet<&Checksum> = planned.applying.bundles_before.values().collect();
    let sums: Vec<Checksum> = sums.into_iter().take(BUNDLES_READ).cloned().collect();
    let found = api.store().blobs(&planned.wish.app, &sums).await?;
    let bundles = sums.into_iter().zip(found).filter_map(|(sum, content)| {
        let bundle: Bundle = serde_json::from_slice(&content?).ok()?;
        Some((sum, bundle))
    });
    fleet_core::app::tell_files(&mut planned.applying, &bundles.collect());
    Ok(planned)
}

/// A wish with what it changes.
struct Planned {
    wish: Wish,
    applying: Applying,
}

/// On a thread of its own: of a large cluster a plan takes as long as a hundred answers.
async fn planned(mirror: Arc<Mirror>, wish: Wish) -> Result<Planned, ApiError> {
    let work = move || {
        let cluster = mirror.cluster();
        expected(&mirror, &wish)?;
        let now_ms = clock::now_ms();
        let request = Request { app: &wish.app, files: &wish.files, prune: wish.prune, now_ms };
        let mut applying = fleet_core::app::changes(cluster, request).map_err(refused)?;
        fleet_core::app::forecast(&cluster.snapshot, now_ms, &mut applying);
        Ok(Planned { wish, applying })
    };
    let broke_off = |problem| {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the plan broke off: {problem}"))
    };
    panics::contained_work(work).await.map_err(broke_off)?
}

/// Asks podman about the Quadlet files, where any changes.
async fn with_podmans_word(api: &Api, mut planned: Planned) -> Result<Planned, ApiError> {
    let quadlets = std::mem::take(&mut planned.applying.quadlets);
    if quadlets.is_empty() {
        return Ok(planned);
    }
    let paths: Vec<&str> = planned.wish.files.files.keys().map(String::as_str).collect();
    let warnings = &mut planned.applying.plan.warnings;
    let checked = match &api.shared.generator {
        Some(generator) => generator.check(&quadlets, &paths).await,
        None => Err("this fleetd has no Quadlet generator".to_string()),
    };
    match checked {
        Err(problem) => warnings.push(format!(
            "nobody has looked whether podman takes the Quadlet files: {problem}. The machines that \
                run them will say so"
        )),
        Ok(Checked { refused: found, .. }) if !found.is_empty() => {
            let problem = |(name, (line, words)): (UnitName, (Option<usize>, String))| match line {
                Some(line) => format!("{name}: line {line}: podman: {words}"),
                None => format!("{name}: podman: {words}"),
            };
            return Err(refused(found.into_iter().map(problem).collect()));
        }
        Ok(Checked { unknown, .. }) => warnings.extend(unknown.iter().map(|name| {
            format!("{name}: the podman of the machine that was asked knows no .{}", name.suffix())
        })),
    }
    Ok(planned)
}

/// Whether the application is as the one who asks has seen it.
fn expected(mirror: &Mirror, wish: &Wish) -> Result<(), ApiError> {
    let name = &wish.app;
    if let Some(problem) = mirror.corrupt_app(name) {
        return Err(ApiError::conflict(format!(
            "the document of the application {name} cannot be read ({problem}); \
                `fleetctl store check` says what to do"
        )));
    }
    let now = mirror.cluster().apps.get(name).map_or(0, |app| app.revision);
    match wish.if_revision {
        Some(seen) if seen != now && now == 0 => Err(ApiError::conflict(format!(
            "the application {name} is gone, and this was planned on its revision {seen}; plan again"
        ))),
        Some(seen) if seen != now => Err(ApiError::conflict(format!(
            "somebody applied {name} in between: it is at revision {now}, and this was planned on \
                revision {seen}; plan again"
        ))),
        _ => Ok(()),
    }
}

fn refused(mut problems: Vec<String>) -> ApiError {
    let more = problems.len().saturating_sub(PROBLEMS_SHOWN);
    problems.truncate(PROBLEMS_SHOWN);
    problems.extend((more > 0).then(|| format!("… and {more} problems more")));
    ApiError::invalid(problems.join("\n"))
}

/// Under the lock, so that what is checked is what is there when it is written, and of two at once
/// the second sees what the first did.
async fn carry_out(api: &Api, wish: Wish) -> Result<Response, ApiError> {
    let lock = locked(api).await?;
    let (planned, before) = match prepared(api, &lock, wish).await {
        Ok(prepared) => prepared,
        Err(error) => {
            api.store().unlock_units(lock).await?;
            return Err(error);
        }
    };
    let Planned { wish, applying } = planned;
    let mut plan = applying.plan;
    plan.applied = true;
    let Some(app) = applying.app else {
        api.store().unlock_units(lock).await?;
        return Ok(Json(plan).into_response());
    };
    plan.revision = app.revision;
    let all = Documents {
        records: &applying.records,
        removed: &applying.removed,
        apps: std::slice::from_ref(&app),
        ..Documents::default()
    };
    let revision = api.store().import(lock, &all).await?;
    let new_text = applying.records.iter().any(|(_, new_text)| *new_text);
    if new_text || !applying.removed.is_empty() || !plan.files.is_empty() {
        sweep_later(api, wish.app, before);
    }
    let mut response = Json(plan).into_response();
    response.headers_mut().insert(wire::REVISION_HEADER, revision.into());
    Ok(response)
}

/// What is to be written, with all that it names kept; and the revision of the application's
/// document so far.
async fn prepared(api: &Api, lock: &UnitsLock, wish: Wish) -> Result<(Planned, i64), ApiError> {
    let mirror = Arc::new(api.store().read_all().await?);
    let before = match api.store().app(&wish.app).await {
        Err(StoreError::Corrupt { .. }) => 0, // to plan says what is wrong
        document => document?.map_or(0, |document| document.revision),
    };
    let planned = with_podmans_word(api, planned(mirror, wish).await?).await?;
    let mut planned = with_files_told(api, planned).await?;
    let app = &planned.wish.app;
    let kept = api.store().blob_sums(app).await?;
    let files = &planned.wish.files.files;
    let missing: BTreeSet<&str> = files
        .iter()
        .filter(|(_, entry)| !kept.contains_key(&entry.sum))
        .map(|(path, _)| path.as_str())
        .collect();
    if !missing.is_empty() {
        let more = missing.len().saturating_sub(NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let named: Vec<&str> = missing.into_iter().take(NAMED).collect();
        return Err(ApiError::conflict(format!(
            "the contents of {}{more} have not been sent; send them first, with PUT \
                /apps/{app}/blobs/CHECKSUM",
            named.join(", ")
        )));
    }
    let contents = std::mem::take(&mut planned.applying.contents);
    let contents = contents.into_iter().filter(|(sum, _)| !kept.contains_key(sum));
    api.store().put_blobs(lock, app, contents).await?;
    Ok((planned, before))
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

/// Removes what no text names any more. Nobody waits for it; what stays goes another time.
fn sweep_later(api: &Api, app: AppName, before: i64) {
    let store = api.store().clone();
    drop(panics::spawn_contained(async move {
        if let Err(error) = store.sweep_blobs(&app, before).await {
            tracing::info!("old files of the application {app} are still in the store: {error}");
        }
    }));
}

pub(super) async fn destroy(
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Result<Response, ApiError> {
    let name = named(&name)?;
    let broke_off = |problem| {
        ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("destroying it broke off: {problem}"),
        )
    };
    let destroyed = panics::spawn_contained(async move { remove(&api, &name).await }).await;
    destroyed.unwrap_or_else(|ended| Err(ended.to_string())).map_err(broke_off)?
}

async fn remove(api: &Api, name: &AppName) -> Result<Response, ApiError> {
    let lock = locked(api).await?;
    let read = api.store().read(&[Part::Apps, Part::Units]).await.map_err(ApiError::from);
    let units = read.and_then(|mirror| {
        let app = there(&mirror, name)?;
        let is_there = |unit: &&UnitName| mirror.cluster().records.contains_key(*unit);
        Ok(app.units.iter().filter(is_there).cloned().collect::<Vec<_>>())
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
    let revision = api.store().import(lock, &all).await?;
    sweep_later(api, name.clone(), revision);
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
