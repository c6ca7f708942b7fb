//! `/config`: values that operators change by hand. A change is one write with the records of the
//! units that it restarts or has reload.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use fleet_core::app::AppName;
use fleet_core::configuration::{self, Changes, Configuration, Effect};
use fleet_core::model::{Act, Did};
use fleet_core::wire;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use super::Api;
use super::body::decode;
use super::describe::{self, Operation, Resource, WRITTEN};
use super::door::json_only;
use super::error::ApiError;
use super::guests::Source;
use super::page::{Page, paged};
use super::query::Asked;
use super::retry::until_not_overtaken;
use super::submission::Failed;
use super::who::Who;
use crate::process::{clock, panics};
use crate::store::kv::WatchEvent;
use crate::store::{StoreError, Versioned};

/// How long a follower waits before it asks a store again that was away.
const RETRY: Duration = Duration::from_secs(1);

/// The most units that a refusal names.
const NAMED: usize = 5;

/// What of the API is answered here.
pub(super) fn routes() -> Vec<Resource> {
    vec![
        Resource::at("/config").get(
            list,
            paged(Operation::new("listConfigs", "The configurations, by name."))
                .gives::<wire::ConfigPage>("A page of configurations."),
        ),
        Resource::at("/config/{configName}")
            .get(
                show,
                Operation::new("getConfig", "The values of a configuration.")
                    .query_of(
                        "follow",
                        "Whether to answer with a JSON document a line, of the type Config: the \
                            present one, and one at each change, for ever. Where there is no such \
                            configuration its revision is 0.",
                        json!({"type": "boolean", "default": false}),
                    )
                    .gives::<wire::Config>("The values.")
                    .errors([400, 404, 429]),
            )
            .patch(
                change,
                Operation::new("changeConfig", "Sets and removes values, all in one write.")
                    .takes::<wire::ConfigPatch>()
                    .example(json!({"set": {"log": "debug"}, "remove": ["db-host"]}))
                    .gives::<wire::ConfigChange>("What changed, and for whom.")
                    .headers(WRITTEN)
                    .errors([409, 415]),
            )
            .delete(
                destroy,
                Operation::new("destroyConfig", "Forgets a configuration that no unit uses.")
                    .answers(StatusCode::NO_CONTENT, "It was forgotten.", describe::Body::None)
                    .headers(WRITTEN)
                    .errors([400, 404, 409]),
            ),
        Resource::at("/config/{configName}/history").get(
            history,
            Operation::new("listConfigRevisions", "The revisions that are kept, newest first.")
                .gives::<wire::ConfigHistory>("The revisions, each with what it changed.")
                .errors([400, 404]),
        ),
        Resource::at("/config/{configName}/rollback").post(
            rollback,
            Operation::new(
                "rollbackConfig",
                "Gives a configuration the values of an earlier revision, as a new one.",
            )
            .takes::<wire::ConfigRollback>()
            .example(json!({}))
            .gives::<wire::ConfigChange>("What changed, and for whom.")
            .headers(WRITTEN)
            .errors([404, 409, 415]),
        ),
    ]
}

async fn list(State(api): State<Api>, asked: Asked) -> Result<Json<wire::ConfigPage>, ApiError> {
    let page = Page::of(&asked)?;
    let all = api.store().all_configurations().await?;
    let (configs, next_page_token) = page.cut(&all);
    let summary = |config: &Configuration| wire::ConfigSummary {
        name: config.name.to_string(),
        revision: config.revision,
        keys: config.values.len(),
        changed_ms: config.changed_ms,
    };
    Ok(Json(wire::ConfigPage { next_page_token, configs: configs.iter().map(summary).collect() }))
}

async fn show(
    State(api): State<Api>,
    source: Source,
    Path(name): Path<String>,
    asked: Asked,
) -> Result<Response, ApiError> {
    let name = read_name(&name)?;
    let (found, revision) = api.store().configuration(&name).await?;
    let found = found.map(|found| found.value);
    if !asked.flag("follow") {
        let found = found.ok_or_else(|| no_such(&name))?;
        return Ok(Json(shown(&name, Some(found))).into_response());
    }
    let place = api.shared.budgets.follower(source)?;
    let (lines, body) = mpsc::channel(4);
    panics::spawn_contained(async move {
        let _place = place;
        follow(&api, &name, found, revision, &lines).await;
    });
    let body =
        Body::from_stream(ReceiverStream::new(body).map(Ok::<Bytes, std::convert::Infallible>));
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

/// Sends the values as they are, and at each change, until the client goes. A watch that broke
/// leaves no gap: what is there is read again.
async fn follow(
    api: &Api,
    name: &AppName,
    config: Option<Configuration>,
    revision: i64,
    lines: &mpsc::Sender<Bytes>,
) {
    let (mut config, mut revision) = (config, revision);
    let mut told: Option<wire::Config> = None;
    loop {
        let now = shown(name, config);
        if told.as_ref() != Some(&now) && lines.send(line(&now)).await.is_err() {
            return;
        }
        told = Some(now);
        (config, revision) = match next(api, name, revision, lines).await {
            Ok(next) => next,
            Err(_) => match read_again(api, name, lines).await {
                Some(found) => found,
                None => return,
            },
        };
    }
}

/// Reads the values once the store answers; `None` if the client has gone before.
async fn read_again(
    api: &Api,
    name: &AppName,
    lines: &mpsc::Sender<Bytes>,
) -> Option<(Option<Configuration>, i64)> {
    while !lines.is_closed() {
        if let Ok((found, at)) = api.store().configuration(name).await {
            return Some((found.map(|found| found.value), at));
        }
        sleep(RETRY).await;
    }
    None
}

/// The next change.
async fn next(
    api: &Api,
    name: &AppName,
    revision: i64,
    lines: &mpsc::Sender<Bytes>,
) -> Result<(Option<Configuration>, i64), StoreError> {
    let mut changes = api.store().watch_configuration(name, revision).await?;
    let ended = || StoreError::Unavailable("the watch ended".to_string());
    loop {
        let batch = tokio::select! {
            biased;
            () = lines.closed() => return Err(ended()),
            batch = changes.recv() => batch.ok_or_else(ended)??,
        };
        for event in &batch.events {
            match event {
                WatchEvent::Put(kv) if api.store().is_configuration(&kv.key, name) => {
                    return Ok((Some(api.store().read_configuration(kv)?), batch.revision));
                }
                WatchEvent::Delete(key) if api.store().is_configuration(key, name) => {
                    return Ok((None, batch.revision));
                }
                _ => {}
            }
        }
    }
}

async fn change(
    State(api): State<Api>,
    Path(name): Path<String>,
    who: Who,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    json_only(&headers)?;
    let patch: wire::ConfigPatch = decode(&body)?;
    let name = read_name(&name)?;
    if let Some(key) = patch.remove.iter().find(|key| patch.set.contains_key(*key)) {
        return Err(ApiError::invalid(format!("{key} is to be set and to be removed")));
    }
    rewrite(&api, &name, &who, |old| {
        let present = old.map_or(0, |old| old.revision);
        if let Some(wanted) = patch.if_revision.filter(|wanted| *wanted != present) {
            return Err(ApiError::conflict(format!(
                "the configuration {name} has revision {present}, not {wanted}; somebody changed \
                    it meanwhile"
            )));
        }
        let mut values = old.map(|old| old.values.clone()).unwrap_or_default();
        values.retain(|key, _| !patch.remove.contains(key));
        values.extend(patch.set.clone());
        Ok(values)
    })
    .await
}

async fn rollback(
    State(api): State<Api>,
    Path(name): Path<String>,
    who: Who,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    json_only(&headers)?;
    let wish: wire::ConfigRollback = decode(&body)?;
    let name = read_name(&name)?;
    let kept = api.store().configuration_revisions(&name).await?;
    rewrite(&api, &name, &who, |old| {
        let old = old.ok_or_else(|| no_such(&name))?;
        let mut earlier = kept.iter().rev().filter(|kept| kept.revision < old.revision);
        let found = match wish.revision {
            None => earlier.find(|kept| kept.values != old.values),
            Some(wanted) => earlier.find(|kept| kept.revision == wanted),
        };
        found.map(|kept| kept.values.clone()).ok_or_else(|| {
            ApiError::conflict(match wish.revision {
                Some(wanted) => format!(
                    "revision {wanted} of the configuration {name} is not kept, or is no earlier \
                        one; its present one is {}",
                    old.revision
                ),
                None => format!(
                    "the configuration {name} has no other earlier revision; its present one is {}",
                    old.revision
                ),
            })
        })
    })
    .await
}

/// Gives a configuration other values, whoever else does so at the same time, and has its users
/// take them.
async fn rewrite(
    api: &Api,
    name: &AppName,
    who: &Who,
    values: impl Fn(Option<&Configuration>) -> Result<BTreeMap<String, String>, ApiError>,
) -> Result<Response, ApiError> {
    let attempt = || async {
        let (old, at) = api.store().configuration(name).await?;
        let present = old.as_ref().map(|old| &old.value);
        let values = values(present)?;
        if let Some(problem) = configuration::refusal(&values) {
            return Err(Failed::Refused(ApiError::invalid(problem)));
        }
        let none = BTreeMap::new();
        let changes = Changes::between(present.map_or(&none, |old| &old.values), &values);
        if let Some(old) = present.filter(|_| changes.is_empty()) {
            let answer = wire::ConfigChange {
                name: name.to_string(),
                revision: old.revision,
                ..wire::ConfigChange::default()
            };
            return Ok((answer, at));
        }
        let mut users = api.store().configuration_users(name).await?;
        let records = users.records.iter().map(|record| &record.value);
        let mut config = configuration::next(present, name.clone(), values, records);
        config.changed_ms = clock::now_ms();
        let mut effects: BTreeMap<Effect, Vec<String>> = BTreeMap::new();
        users.records.retain_mut(|record| {
            let effect = configuration::ask(&mut record.value, name, config.revision);
            if let Some(effect) = effect {
                effects.entry(effect).or_default().push(record.value.name.to_string());
            }
            effect.is_some()
        });
        let old = old.as_ref().map(|Versioned { revision, .. }| *revision);
        let keys = changes.set.keys().chain(&changes.removed).take(Act::MAX_KEYS).cloned();
        let (revision, keys) = (config.revision, keys.collect());
        let act = who.act(Did::Configured { config: name.clone(), revision, keys });
        let written = api.store().telling(act).put_configuration(&config, old, &users).await?;
        let answer = wire::ConfigChange {
            name: name.to_string(),
            revision: config.revision,
            changes,
            restarts: effects.remove(&Effect::Restart).unwrap_or_default(),
            reloads: effects.remove(&Effect::Reload).unwrap_or_default(),
        };
        Ok((answer, written))
    };
    let what = format!("the configuration {name}");
    let (answer, revision) = until_not_overtaken(&what, attempt).await?;
    let mut response = Json(answer).into_response();
    super::note_written(response.headers_mut(), revision, &[]);
    Ok(response)
}

async fn destroy(
    State(api): State<Api>,
    Path(name): Path<String>,
    who: Who,
) -> Result<Response, ApiError> {
    let name = read_name(&name)?;
    let attempt = || async {
        let (old, _) = api.store().configuration(&name).await?;
        let old = old.ok_or_else(|| no_such(&name))?;
        let users = api.store().configuration_users(&name).await?;
        let named: Vec<&str> =
            users.records.iter().map(|record| record.value.name.as_str()).collect();
        if !named.is_empty() {
            let more = match named.len().saturating_sub(NAMED) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            return Err(Failed::Refused(ApiError::conflict(format!(
                "{}{more} would not start without the configuration {name}; take Config= out of \
                    what uses it, or destroy that",
                named[..named.len().min(NAMED)].join(", ")
            ))));
        }
        let store = api.store().telling(who.act(Did::ConfigRemoved { config: name.clone() }));
        Ok(store.delete_configuration(&name, old.revision, &users).await?)
    };
    let revision = until_not_overtaken(&format!("the configuration {name}"), attempt).await?;
    Ok(super::written(StatusCode::NO_CONTENT, revision, &[]))
}

async fn history(
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Result<Json<wire::ConfigHistory>, ApiError> {
    let name = read_name(&name)?;
    let (present, _) = api.store().configuration(&name).await?;
    let present = present.ok_or_else(|| no_such(&name))?.value.revision;
    let kept = api.store().configuration_revisions(&name).await?;
    let none = BTreeMap::new();
    let before = std::iter::once(&none).chain(kept.iter().map(|kept| &kept.values));
    let mut revisions: Vec<wire::ConfigRevision> = kept
        .iter()
        .zip(before)
        .map(|(kept, before)| wire::ConfigRevision {
            revision: kept.revision,
            changed_ms: kept.changed_ms,
            current: kept.revision == present,
            changes: Changes::between(before, &kept.values),
        })
        .collect();
    revisions.reverse();
    Ok(Json(wire::ConfigHistory { revisions }))
}

fn read_name(name: &str) -> Result<AppName, ApiError> {
    AppName::parse(name).map_err(|_| {
        ApiError::invalid(format!(
            "{name:?} is no name of a configuration: expect lower-case letters, digits, \"-\" and \
                \"_\", a letter or digit first"
        ))
    })
}

fn no_such(name: &AppName) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, format!("there is no configuration {name}"))
}

fn shown(name: &AppName, config: Option<Configuration>) -> wire::Config {
    let name = name.to_string();
    match config {
        None => wire::Config { name, ..wire::Config::default() },
        Some(Configuration { revision, changed_ms, values, .. }) => {
            wire::Config { name, revision, changed_ms, values }
        }
    }
}

fn line(config: &wire::Config) -> Bytes {
    let mut line = serde_json::to_vec(config).unwrap_or_default();
    line.push(b'\n');
    line.into()
}
