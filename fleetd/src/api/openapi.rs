//! The OpenAPI 3.1 document, made of the routes and of the types that they take and give.

use axum::http::StatusCode;
use fleet_core::wire;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::describe::{Answer, Body, Operation, Resource, path_parameters, schema_of};

/// The document for the routes under fleet's prefixes, and those beside them.
pub(super) fn document(under_prefix: &[Resource], at_root: &[Resource]) -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None; // OpenAPI 3.1's own dialect is this draft
    });
    let mut generator = settings.into_generator();
    let mut paths = Map::new();
    for resource in under_prefix {
        // A parameter that takes slashes has a star for the router alone.
        paths.insert(resource.path.replace("{*", "{"), path_item(resource, &mut generator));
    }
    for resource in at_root {
        let mut item = path_item(resource, &mut generator);
        item["servers"] = json!([{"url": "/"}]);
        paths.insert(resource.path.to_string(), item);
    }
    let mut schemas = Value::Object(generator.take_definitions(true));
    drop_empty_defaults(&mut schemas);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "fleet",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Makes the machines of a cluster one init system.",
            "description": "fleet 1.0's API with our additions. Errors have the form \
                `{\"error\":{\"code\":404,\"message\":\"…\"}}`.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/fleet/v1"}, {"url": "/v1-alpha", "description": "fleet's first \
            prefix; the same."}],
        "paths": paths,
        "components": {"schemas": schemas},
    })
}

/// An absent field is empty: no need to say so, and `""` is none of the words that some fields
/// take.
fn drop_empty_defaults(value: &mut Value) {
    match value {
        Value::Object(map) => {
            let empty = |default: &Value| match default {
                Value::Null | Value::Bool(false) => true,
                Value::String(text) => text.is_empty(),
                Value::Array(items) => items.is_empty(),
                Value::Object(fields) => fields.is_empty(),
                _ => false,
            };
            // A field called `default` has a schema, which is not empty.
            if map.get("default").is_some_and(empty) {
                map.remove("default");
            }
            map.values_mut().for_each(drop_empty_defaults);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_empty_defaults),
        _ => {}
    }
}

fn path_item(resource: &Resource, generator: &mut SchemaGenerator) -> Value {
    let mut item = Map::new();
    let parameters: Vec<Value> = path_parameters(resource.path).map(path_parameter).collect();
    if !parameters.is_empty() {
        item.insert("parameters".to_string(), parameters.into());
    }
    for operation in &resource.operations {
        item.insert(operation.method.as_str().to_lowercase(), one(operation, generator));
    }
    item.into()
}

fn one(operation: &Operation, generator: &mut SchemaGenerator) -> Value {
    let mut responses = Map::new();
    for answer in &operation.answers {
        responses.insert(answer.status.as_str().to_string(), good(answer, generator));
    }
    let own_form = |status: &StatusCode| operation.answers.iter().any(|it| it.status == *status);
    for status in operation.errors.iter().filter(|status| !own_form(status)) {
        let content =
            json!({"application/json": {"schema": schema_of::<wire::ErrorBody>(generator)}});
        responses.insert(
            status.as_str().to_string(),
            json!({"description": meaning(*status), "content": content}),
        );
    }
    let mut said =
        json!({"operationId": operation.id, "summary": operation.summary, "responses": responses});
    if !operation.query.is_empty() {
        let parameter = |p: &super::describe::Parameter| json!({"name": p.name, "in": "query", "description": p.says, "required": p.required, "schema": p.schema});
        said["parameters"] = operation.query.iter().map(parameter).collect();
    }
    if operation.takes_bytes {
        let content = json!({"application/octet-stream": {"schema": {}}});
        said["requestBody"] = json!({"required": true, "content": content});
    }
    if let Some(takes) = operation.takes {
        let mut content = json!({"schema": takes(generator)});
        if let Some(example) = &operation.example {
            content["example"] = example.clone();
        }
        said["requestBody"] = json!({"required": true, "content": {"application/json": content}});
    }
    said
}

fn good(answer: &Answer, generator: &mut SchemaGenerator) -> Value {
    let mut said = json!({"description": answer.says});
    match answer.body {
        Body::None => {}
        Body::Json(schema) => {
            said["content"] = json!({"application/json": {"schema": schema(generator)}})
        }
        Body::Other(media) => said["content"] = json!({media: {"schema": {"type": "string"}}}),
    }
    if !answer.headers.is_empty() {
        let header = |(name, says): &(&str, &str)| {
            (name.to_string(), json!({"description": says, "schema": {"type": "string"}}))
        };
        said["headers"] = answer.headers.iter().map(header).collect::<Map<String, Value>>().into();
    }
    said
}

/// What stands in a path; each name means the same wherever it stands.
fn path_parameter(name: &str) -> Value {
    let (says, schema) = match name {
        "unitName" => (super::describe::UNIT_NAME_SAYS, unit_name()),
        "app" => ("The application's name.", app_name()),
        "configName" => ("The configuration's name.", app_name()),
        "sum" => (
            "The SHA-256 of the body, in hex digits.",
            json!({"type": "string", "pattern": "^[0-9a-f]{64}$"}),
        ),
        "path" => ("The file's path in the folder.", json!({"type": "string"})),
        "machineID" => ("The machine's whole id.", json!({"type": "string"})),
        "volumeName" => ("podman's name of the volume.", json!({"type": "string"})),
        "revision" => {
            ("The number of one of its texts, from 1.", json!({"type": "integer", "minimum": 1}))
        }
        other => panic!("say in openapi.rs what {{{other}}} in a path means"),
    };
    json!({"name": name, "in": "path", "required": true, "description": says, "schema": schema})
}

/// A unit's name as a schema: what `UnitName::parse` takes.
fn unit_name() -> Value {
    let suffixes = fleet_core::name::SUFFIXES.join("|");
    json!({
        "type": "string",
        "maxLength": fleet_core::name::MAX_NAME_BYTES,
        "pattern": format!(r"^[0-9A-Za-z:_.\\-][0-9A-Za-z:_.\\@-]*\.({suffixes})$"),
        "examples": ["hello.service"],
    })
}

/// An application's name as a schema: what `AppName::parse` takes.
fn app_name() -> Value {
    json!({
        "type": "string",
        "maxLength": fleet_core::app::MAX_APP_NAME_BYTES,
        "pattern": "^[0-9a-z][0-9a-z_-]*$",
        "examples": ["shop"],
    })
}

/// What a status of an error means here.
fn meaning(status: StatusCode) -> &'static str {
    match status.as_u16() {
        400 => "The request is not understood or not allowed; the message says what to change.",
        404 => "There is no such unit or application.",
        408 => "The body did not arrive in time.",
        409 => "It cannot be done as the unit stands now, or somebody else changed it in between.",
        413 => "The body, or a document made of it, is too large.",
        415 => "The body is not said to be application/json.",
        421 => "Another machine is meant.",
        429 => "This machine does as much for its clients as it may; nothing was done. Try again.",
        500 => "Something is broken and needs a person; the message says what.",
        502 => "The machine that runs the unit does not answer.",
        503 => {
            "The store cannot be reached, or another machine has this one's id; nothing that runs \
                is stopped. Try again."
        }
        _ => "See the message.",
    }
}
