//! `POST /apps/<name>`: planned on the live copy, or applied whole or not at all.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use fleet_core::app::{AppName, Applying, Basis, Bundle, Checksum, Request};
use fleet_core::model::Did;
use fleet_core::name::UnitName;
use fleet_core::wire;
use fleet_core::wire::{AppFiles, AppPlan};

use super::podman::{self, Question, Verdict};
use super::{locked, named};
use crate::api::Api;
use crate::api::body::decode;
use crate::api::door::json_only;
use crate::api::error::ApiError;
use crate::api::history::{new_texts, tidy_app};
use crate::api::query::Asked;
use crate::api::who::Who;
use crate::process::{clock, panics};
use crate::store::{Documents, Mirror, StoreError, UnitsLock};

/// How many problems one refusal lists.
const PROBLEMS_SHOWN: usize = 50;

/// The most paths of files that a refusal names.
const NAMED: usize = 5;

/// Of how many units' bundles a plan says which files differ: it reads each of those that they have
/// so far.
const BUNDLES_READ: usize = 60;

/// Up to so many units, the cluster's and the application's, are planned at once.
const SMALL: usize = 100;

/// How often podman is asked again because somebody changed what it was asked about.
const QUESTIONS: usize = 4;

/// What somebody asks for.
struct Wish {
    app: AppName,
    files: AppFiles,
    prune: bool,
    if_revision: Option<u64>,
    if_units: Option<Basis>,
    /// When it was asked for, in milliseconds since 1970.
    now_ms: u64,
}

pub(in crate::api) async fn apply(
    State(api): State<Api>,
    Path(name): Path<String>,
    who: Who,
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
        if_units: asked.value("ifUnits").map(basis).transpose()?,
        now_ms: clock::now_ms(),
    };
    if asked.flag("dryRun") {
        return Ok(Json(dry_run(&api, wish).await?).into_response());
    }
    // A task of its own: a client that goes away in the middle must not leave the lock behind.
    let broke_off = |problem| {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the apply broke off: {problem}"))
    };
    let applied = panics::spawn_contained(async move { carry_out(&api, &who, wish).await }).await;
    applied.unwrap_or_else(|ended| Err(ended.to_string())).map_err(broke_off)?
}

fn basis(text: &str) -> Result<Basis, ApiError> {
    let wrong =
        || format!("ifUnits must be the basis of a plan, as 4812.9f0c12ab34cd56ef: {text:?}");
    Basis::parse(text).ok_or_else(|| ApiError::invalid(wrong()))
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
    let planned = planned(mirror.clone(), wish).await?;
    let verdict = match planned.question() {
        Some(question) => podman::ask(api, mirror.cluster(), question).await,
        None => Verdict::default(),
    };
    let planned = with_files_told(api, planned.judged(&verdict)?).await?;
    let Applying { contents, files, mut plan, .. } = planned.applying;
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

impl Planned {
    /// What podman is to be asked, if any Quadlet file changes.
    fn question(&self) -> Option<Question> {
        let quadlets = &self.applying.quadlets;
        let paths = || self.wish.files.files.keys().cloned().collect();
        (!quadlets.is_empty()).then(|| Question { quadlets: quadlets.clone(), paths: paths() })
    }

    /// The same, if podman refuses nothing of it.
    fn judged(mut self, verdict: &Verdict) -> Result<Planned, ApiError> {
        if !verdict.refused.is_empty() {
            return Err(refused(verdict.refused.clone()));
        }
        self.applying.plan.warnings.extend(verdict.warnings.iter().cloned());
        Ok(self)
    }
}

/// On a thread of its own: of a large cluster a plan takes as long as a hundred answers. Of a small
/// one it takes less than the thread, and the simulator, which knows no threads, has such.
async fn planned(mirror: Arc<Mirror>, wish: Wish) -> Result<Planned, ApiError> {
    let small = mirror.cluster().records.len() + wish.files.units.len() <= SMALL;
    let work = move || {
        let cluster = mirror.cluster();
        expected(&mirror, &wish)?;
        let Wish { app, files, prune, now_ms, .. } = &wish;
        let request = Request { app, files, prune: *prune, now_ms: *now_ms };
        let mut applying = fleet_core::app::changes(cluster, request).map_err(refused)?;
        fleet_core::app::forecast(&cluster.snapshot, wish.now_ms, &mut applying);
        Ok(Planned { wish, applying })
    };
    let broke_off = |problem| {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the plan broke off: {problem}"))
    };
    match small {
        true => panics::contained(async { work() }).await.map_err(broke_off)?,
        false => panics::contained_work(work).await.map_err(broke_off)?,
    }
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
        Some(seen) if seen != now && now == 0 => {
            return Err(ApiError::conflict(format!(
                "the application {name} is gone, and this was planned on its revision {seen}; plan \
                    again"
            )));
        }
        Some(seen) if seen != now => {
            return Err(ApiError::conflict(format!(
                "somebody applied {name} in between: it is at revision {now}, and this was planned \
                    on revision {seen}; plan again"
            )));
        }
        _ => {}
    }
    // A rollback, a new count or a stop by hand changes no revision of the application.
    let overtaken = wish
        .if_units
        .as_ref()
        .and_then(|basis| basis.overtaken(mirror.cluster(), name, &wish.files));
    match overtaken {
        Some(what) => Err(ApiError::conflict(format!(
            "{name} changed since this was planned: {what}; plan again"
        ))),
        None => Ok(()),
    }
}

fn refused(mut problems: Vec<String>) -> ApiError {
    let more = problems.len().saturating_sub(PROBLEMS_SHOWN);
    problems.truncate(PROBLEMS_SHOWN);
    problems.extend((more > 0).then(|| format!("… and {more} problems more")));
    ApiError::invalid(problems.join("\n"))
}

/// Podman is asked before the lock is taken, since it may take seconds and nobody could write units
/// meanwhile. All else is done under the lock, so that what is checked is what is there when it is
/// written, and of two at once the second sees what the first did.
async fn carry_out(api: &Api, who: &Who, mut wish: Wish) -> Result<Response, ApiError> {
    let mut asked: Option<(Question, Verdict)> = None;
    for _ in 0..QUESTIONS {
        let mirror = Arc::new(api.store().read_all().await?);
        let planned = planned(mirror.clone(), wish).await?;
        if let Some(question) = planned.question()
            && asked.as_ref().is_none_or(|(before, _)| *before != question)
        {
            let verdict = podman::ask(api, mirror.cluster(), question.clone()).await;
            asked = Some((question, verdict));
        }
        let lock = locked(api).await?;
        match prepared(api, &lock, planned.wish, asked.as_ref()).await {
            Ok(Prepared::Whole(planned, before)) => {
                return written(api, who, lock, *planned, before).await;
            }
            Ok(Prepared::Unasked(back)) => {
                api.store().unlock_units(lock).await?;
                wish = back;
            }
            Err(error) => {
                api.store().unlock_units(lock).await?;
                return Err(error);
            }
        }
    }
    Err(ApiError::conflict(format!(
        "others changed the Quadlet files that {} names again and again; try again",
        wish.app
    )))
}

/// Writes it, and gives the lock back.
async fn written(
    api: &Api,
    who: &Who,
    lock: UnitsLock,
    planned: Planned,
    before: i64,
) -> Result<Response, ApiError> {
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
    let changed = applying.records.iter().map(|(record, _)| &record.name);
    let changed: Vec<&UnitName> = changed.chain(&applying.removed).collect();
    let (name, units) = (app.name.clone(), changed.len());
    let act = who.act(Did::Applied { app: name, revision: app.revision, units }).of_units(changed);
    let revision = api.store().telling(act).import(lock, &all).await?;
    let new_text = applying.records.iter().any(|(_, new_text)| *new_text);
    if new_text || !applying.removed.is_empty() || !plan.files.is_empty() {
        tidy_app(api, (wish.app, before), new_texts(&applying.records), revision);
    }
    let mut response = Json(plan).into_response();
    response.headers_mut().insert(wire::REVISION_HEADER, revision.into());
    Ok(response)
}

/// What is to be written.
enum Prepared {
    /// All that it names is kept; with the revision of the application's document so far.
    Whole(Box<Planned>, i64),
    /// Podman has been asked about something else.
    Unasked(Wish),
}

async fn prepared(
    api: &Api,
    lock: &UnitsLock,
    wish: Wish,
    asked: Option<&(Question, Verdict)>,
) -> Result<Prepared, ApiError> {
    let mirror = Arc::new(api.store().read_all().await?);
    let before = match api.store().app(&wish.app).await {
        Err(StoreError::Corrupt { .. }) => 0, // to plan says what is wrong
        document => document?.map_or(0, |document| document.revision),
    };
    let planned = planned(mirror, wish).await?;
    let none = Verdict::default();
    let verdict = match (planned.question(), asked) {
        (None, _) => &none,
        (Some(now), Some((before, verdict))) if now == *before => verdict,
        _ => return Ok(Prepared::Unasked(planned.wish)),
    };
    let mut planned = with_files_told(api, planned.judged(verdict)?).await?;
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
    Ok(Prepared::Whole(Box::new(planned), before))
}
