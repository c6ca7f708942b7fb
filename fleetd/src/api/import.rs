//! `/export` and `/import`: a whole cluster as one document, taken in whole or not at all.

use axum::Json;
use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::extract::State;
use axum::handler::Handler;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use fleet_core::model::Did;
use fleet_core::transfer::{self, Export, Import};
use fleet_core::wire;
use fleet_core::wire::REVISION_HEADER;
use serde_json::json;

use super::Api;
use super::body::decode;
use super::describe::{Operation, Resource};
use super::door::json_only;
use super::error::ApiError;
use super::history::{new_texts, tidy};
use super::query::Asked;
use super::who::Who;
use crate::process::clock;
use crate::process::panics;
use crate::store::{Documents, Mirror};

/// The most differing units that a refusal names.
const NAMED: usize = 5;

/// What of the API is answered here.
pub(super) fn routes() -> Vec<Resource> {
    vec![
        Resource::at("/export").get(
            export,
            Operation::new(
                "exportCluster",
                "Units with what is wanted of them, machines' settings and configurations, all of \
                    one revision.",
            )
            .gives::<transfer::Export>("The cluster, but for what runs where."),
        ),
        Resource::at("/import").post(
            import.layer(DefaultBodyLimit::max(transfer::MAX_IMPORT_BYTES)),
            Operation::new("importCluster", "Takes an exported cluster, all of it or nothing.")
                .query_of(
                    "dryRun",
                    "Only say what would change.",
                    json!({"type": "boolean", "default": false}),
                )
                .query_of(
                    "replace",
                    "Replace units that are there and differ; else they refuse the import.",
                    json!({"type": "boolean", "default": false}),
                )
                .takes::<transfer::Export>()
                .gives::<transfer::Imported>("What changes.")
                .headers(&[(
                    wire::REVISION_HEADER,
                    "The store's revision of the last write; absent on a dry run.",
                )])
                .errors([409, 415]),
        ),
    ]
}

pub(super) async fn export(State(api): State<Api>) -> Result<Json<Export>, ApiError> {
    let mirror = api.store().read_all().await?;
    Ok(Json(transfer::export(mirror.cluster(), mirror.settings(), mirror.configurations())))
}

pub(super) async fn import(
    State(api): State<Api>,
    who: Who,
    asked: Asked,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    json_only(&headers)?;
    let (dry_run, replace) = (asked.flag("dryRun"), asked.flag("replace"));
    let export: Export = decode(&body)?;
    if dry_run {
        let planned = plan(&api.store().read_all().await?, &export, replace)?;
        return Ok(Json(planned.answer).into_response());
    }
    // A task of its own: a client that goes away in the middle must not leave the lock behind.
    let broke_off = |problem| {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the import broke off: {problem}"))
    };
    let imported =
        panics::spawn_contained(async move { apply(&api, &who, &export, replace).await }).await;
    imported.unwrap_or_else(|ended| Err(ended.to_string())).map_err(broke_off)?
}

/// Under the lock, so that what is checked is what is there when it is written.
async fn apply(api: &Api, who: &Who, export: &Export, replace: bool) -> Result<Response, ApiError> {
    let lock = api.store().lock_units().await?;
    let planned = match api
        .store()
        .read_all()
        .await
        .map_err(ApiError::from)
        .and_then(|mirror| checked(&mirror, export, replace))
    {
        Ok(planned) => planned,
        Err(error) => {
            api.store().unlock_units(lock).await?;
            return Err(error);
        }
    };
    let all = Documents {
        records: &planned.records,
        settings: &planned.settings,
        configurations: &planned.configurations,
        apps: &planned.apps,
        ..Documents::default()
    };
    let act = who.act(Did::Imported { units: planned.records.len() });
    let revision = api.store().telling(act).import(lock, &all).await?;
    tidy(api, new_texts(&planned.records), revision);
    let mut answer = planned.answer;
    answer.applied = true;
    let mut response = Json(answer).into_response();
    response.headers_mut().insert(REVISION_HEADER, revision.into());
    Ok(response)
}

fn plan(mirror: &Mirror, export: &Export, replace: bool) -> Result<Import, ApiError> {
    let (cluster, settings) = (mirror.cluster(), mirror.settings());
    let configurations = mirror.configurations();
    transfer::import(cluster, settings, configurations, export, replace, clock::now_ms())
        .map_err(ApiError::invalid)
}

/// The plan, if nothing that is there would be replaced against the user's will.
fn checked(mirror: &Mirror, export: &Export, replace: bool) -> Result<Import, ApiError> {
    let planned = plan(mirror, export, replace)?;
    let differing: Vec<&str> = planned
        .answer
        .changes
        .iter()
        .filter(|change| change.kind == "conflict")
        .map(|change| change.name.as_str())
        .collect();
    match differing.len() {
        0 => Ok(planned),
        n => {
            let more = if n > NAMED { format!(" and {} more", n - NAMED) } else { String::new() };
            let named = differing[..n.min(NAMED)].join(", ");
            Err(ApiError::conflict(format!(
                "the cluster has other versions of {named}{more}, and nothing was asked to be \
                    replaced"
            )))
        }
    }
}
