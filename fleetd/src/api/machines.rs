//! `/machines`: who is in the cluster, and the labels that an operator gives them.

use std::collections::BTreeSet;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use fleet_core::model::Did;
use fleet_core::name::MachineId;
use fleet_core::wire;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::body::value_as_go;
use super::describe::{self, Resource, WRITTEN};
use super::door::json_or_nothing;
use super::error::ApiError;
use super::page::Page;
use super::page::paged;
use super::query::Asked;
use super::who::Who;
use super::{Api, settings, written};
use crate::process::clock;
use crate::store::Part;

/// The most operations of one PATCH.
const MAX_OPERATIONS: usize = 1000;

/// What of the API is answered here.
pub(super) fn routes() -> Vec<Resource> {
    vec![
        Resource::at("/machines")
            .get(
                list,
                paged(describe::Operation::new(
                    "listMachines",
                    "The machines of the cluster, by id.",
                ))
                .gives::<wire::MachinePage>("A page of machines.")
                .discovered_as("Machines", "List"),
            )
            .patch(
                patch,
                describe::Operation::new("patchMachines", "Sets and removes labels of machines.")
                    .takes::<Operations>()
                    .example(json!([{
                        "op": "add",
                        "path": "/c2e1b5180a5ec645aa037c911a0f20bb/metadata/region",
                        "value": "eu",
                    }]))
                    .answers(StatusCode::NO_CONTENT, "All was carried out.", describe::Body::None)
                    .headers(WRITTEN)
                    .errors([404, 409, 415])
                    .discovered_as("Machines", "Patch"),
            ),
    ]
}

pub(super) async fn list(
    State(api): State<Api>,
    asked: Asked,
) -> Result<Json<wire::MachinePage>, ApiError> {
    let page = Page::of(&asked)?;
    let mirror = api.store().read(&[Part::Machines, Part::Assignments]).await?;
    let all = mirror.cluster().machines();
    let (machines, next_page_token) = page.cut(&all);
    let now_ms = clock::now_ms();
    let missing = mirror.cluster().missing(now_ms);
    let lost = mirror.cluster().lost(now_ms);
    Ok(Json(wire::MachinePage { machines: machines.to_vec(), next_page_token, missing, lost }))
}

/// The body of a PATCH, carried out in order.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "MachineMetadataOps")]
pub(super) struct Operations(Vec<Operation>);

/// One JSON-patch operation; the value in both forms, as documented (`"x"`) and as fleet 1.0 took
/// it (`{"value":"x"}`).
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "MachineMetadataOp")]
struct Operation {
    /// What to do.
    #[serde(default)]
    #[schemars(extend("enum" = ["add", "replace", "remove"]))]
    op: String,
    /// `/<machine id>/metadata/<key>`.
    #[serde(default)]
    #[schemars(regex(pattern = "^/[0-9A-Za-z_.-]+/metadata/[0-9A-Za-z_.-]+$"))]
    path: String,
    /// The label's value; none for `remove`.
    #[serde(default)]
    value: Option<Value>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "MachineMetadataValue")]
enum Value {
    Plain(String),
    Wrapped { value: String },
}

/// A checked operation: an empty value masks the label, as in fleet 1.0.
struct Edit {
    machine: MachineId,
    key: String,
    value: String,
}

pub(super) async fn patch(
    State(api): State<Api>,
    who: Who,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    json_or_nothing(&headers)?;
    let Operations(operations) = decode(&body)?;
    if operations.len() > MAX_OPERATIONS {
        return Err(ApiError::invalid(format!(
            "{} operations; the limit is {MAX_OPERATIONS}",
            operations.len()
        )));
    }
    // All are checked before any is carried out.
    let edits = operations.into_iter().map(check).collect::<Result<Vec<Edit>, ApiError>>()?;
    must_be_known(&api, edits.iter().map(|edit| &edit.machine).collect()).await?;
    let mut revision = 0;
    for edit in edits {
        revision = carry_out(&api, &who, edit).await?;
    }
    let mut response = written(StatusCode::NO_CONTENT, revision, &[]);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    Ok(response.into_response())
}

/// fleet 1.0 kept labels of machines that never were, and nobody could see or remove them.
async fn must_be_known(api: &Api, ids: BTreeSet<&MachineId>) -> Result<(), ApiError> {
    let mut mirror = None;
    for id in ids {
        // One that is away for long may have nothing left but its labels.
        if api.store().settings(id).await?.is_some() {
            continue;
        }
        if mirror.is_none() {
            mirror = Some(api.store().read(&[Part::Machines, Part::Assignments]).await?);
        }
        if mirror.as_ref().is_some_and(|mirror| !settings::is_known(&mirror.cluster().snapshot, id))
        {
            return Err(settings::no_such_machine(id));
        }
    }
    Ok(())
}

fn decode(body: &[u8]) -> Result<Operations, ApiError> {
    let other = match body.trim_ascii_start().first() {
        Some(b'{') => "object",
        Some(b'"') => "string",
        Some(b't' | b'f') => "bool",
        Some(b'0'..=b'9' | b'-') => "number",
        _ => "",
    };
    let read = value_as_go(body, &["op", "path", "value"]).and_then(|value| match value {
        serde_json::Value::Null => Ok(Operations(Vec::new())),
        value => serde_json::from_value(value),
    });
    read.map_err(|error| match other {
        _ if error.is_eof() => {
            ApiError::invalid(if body.is_empty() { "EOF" } else { "unexpected EOF" })
        }
        "" => ApiError::invalid(format!(
            "unable to decode body: {error}; expected \
                [{{\"op\":\"add\",\"path\":\"/<id>/metadata/<key>\",\"value\":\"x\"}}]"
        )),
        // fleet 1.0's words, its programming language's type and all: its clients may know them.
        other => ApiError::invalid(format!(
            "json: cannot unmarshal {other} into Go value of type []api.machineMetadataOp"
        )),
    })
}

fn check(operation: Operation) -> Result<Edit, ApiError> {
    if !["add", "remove", "replace"].contains(&operation.op.as_str()) {
        return Err(ApiError::invalid("invalid op: expect add, remove, or replace"));
    }
    let good = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
    };
    let parts: Vec<&str> = operation.path.split('/').collect();
    let ["", machine, "metadata", key] = parts[..] else {
        return Err(ApiError::invalid("machine metadata path invalid"));
    };
    let machine = MachineId::parse(machine).filter(|_| good(key));
    let machine = machine.ok_or_else(|| ApiError::invalid("machine metadata path invalid"))?;
    let value = match operation.value {
        _ if operation.op == "remove" => String::new(),
        Some(Value::Plain(value) | Value::Wrapped { value }) if !value.is_empty() => value,
        _ => return Err(ApiError::invalid("invalid value: add and replace require a value")),
    };
    Ok(Edit { machine, key: key.to_string(), value })
}

async fn carry_out(api: &Api, who: &Who, edit: Edit) -> Result<i64, ApiError> {
    let Edit { machine, key, value } = edit;
    let labels = [(key.clone(), value.clone())].into();
    let act = who.act(Did::Labelled { labels }).on(&machine);
    settings::rewrite(api, &machine, &act, |settings| {
        drop(settings.metadata.insert(key.clone(), value.clone()))
    })
    .await
}
