//! fleet 1.0's discovery document, in Google's discovery format, from which its clients were
//! generated; made of the same routes.

use serde_json::{Map, Value, json};

use super::describe::{Operation, Resource, UNIT_NAME_SAYS, path_parameters};

/// The part of the document that is the same for everybody: methods from `resources`, types from
/// the OpenAPI document.
pub(super) fn document(resources: &[Resource], openapi: &Value) -> Value {
    let mut groups = Map::new();
    for resource in resources {
        for operation in &resource.operations {
            let Some((group, method)) = operation.discovery else { continue };
            let group = groups.entry(group).or_insert_with(|| json!({"methods": {}}));
            group["methods"][method] = one(resource.path, operation, openapi);
        }
    }
    let schemas = openapi["components"]["schemas"].as_object();
    let mut types = Map::new();
    let mut wanted: Vec<String> = references(&Value::Object(groups.clone()));
    while let Some(name) = wanted.pop() {
        let Some(schema) =
            schemas.and_then(|schemas| schemas.get(&name)).filter(|_| !types.contains_key(&name))
        else {
            continue;
        };
        let mut schema = in_discovery(schema);
        schema["id"] = name.clone().into();
        wanted.extend(references(&schema));
        types.insert(name, schema);
    }
    json!({
        "kind": "discovery#restDescription",
        "discoveryVersion": "v1",
        "id": "fleet:v1",
        "name": "fleet",
        "version": "v1",
        "title": "fleet API",
        "description": "Makes the machines of a cluster one init system.",
        "documentationLink": "https://github.com/coreos/fleet",
        "protocol": "rest",
        "icons": {"x16": "", "x32": ""},
        "labels": [],
        "auth": {"oauth2": {"scopes": {}}},
        "parameters": {},
        "schemas": types,
        "resources": groups,
    })
}

/// The document for one who reached us at `origin` (`http://10.0.0.1:4100`) under `prefix`
/// (`/fleet/v1`).
pub(super) fn seen_from(document: &Value, origin: &str, prefix: &str) -> Value {
    let mut document = document.clone();
    let path = format!("{}/", prefix.trim_matches('/'));
    document["rootUrl"] = format!("{origin}/").into();
    document["servicePath"] = path.clone().into();
    document["baseUrl"] = format!("{origin}/{path}").into();
    document["basePath"] = format!("/{path}").into();
    document["batchPath"] = "batch".into(); // the format wants one; nothing is there
    document
}

fn one(path: &str, operation: &Operation, openapi: &Value) -> Value {
    let (group, method) = operation.discovery.unwrap_or_default();
    let said = &openapi["paths"][path][operation.method.as_str().to_lowercase()];
    let mut parameters = Map::new();
    for name in path_parameters(path) {
        parameters.insert(
            name.to_string(),
            json!({"type": "string", "location": "path", "required": true, "description": UNIT_NAME_SAYS}),
        );
    }
    for parameter in &operation.query {
        let mut one = in_discovery(&parameter.schema);
        one["location"] = "query".into();
        one["description"] = parameter.says.into();
        if parameter.required {
            one["required"] = true.into();
        }
        parameters.insert(parameter.name.to_string(), one);
    }
    let mut method = json!({
        // "Units" in the tree is "Unit" in the id, as fleet 1.0 had it.
        "id": format!("fleet.{}.{method}", group.trim_end_matches('s')),
        "description": operation.summary,
        "httpMethod": operation.method.as_str(),
        "path": path.trim_start_matches('/'),
        "parameters": parameters,
        "parameterOrder": path_parameters(path).collect::<Vec<_>>(),
    });
    let body = "content";
    let takes = &said["requestBody"][body]["application/json"]["schema"];
    if !takes.is_null() {
        method["request"] = in_discovery(takes);
    }
    let gives = &said["responses"]["200"][body]["application/json"]["schema"];
    if !gives.is_null() {
        method["response"] = in_discovery(gives);
    }
    method
}

/// A JSON schema in discovery's older dialect, which knows no unions and no `null`.
fn in_discovery(schema: &Value) -> Value {
    let mut one = Map::new();
    if let Some(says) = schema.get("description") {
        one.insert("description".to_string(), says.clone());
    }
    if let Some(name) = schema["$ref"].as_str() {
        one.insert("$ref".to_string(), name.rsplit('/').next().unwrap_or(name).into());
        return one.into();
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().find(|kind| *kind != "null").and_then(Value::as_str),
        kind => kind.as_str(),
    };
    match kind {
        // Its `integer` is of 32 bits, and its 64-bit ones are texts on the wire; ours are numbers.
        Some("integer")
            if matches!(schema["format"].as_str(), Some("uint64" | "int64" | "uint")) =>
        {
            one.insert("type".to_string(), "number".into());
            one.insert("format".to_string(), "double".into());
        }
        Some("integer") => {
            let unsigned = schema["format"].as_str().is_some_and(|format| format.starts_with('u'));
            one.insert("type".to_string(), "integer".into());
            one.insert("format".to_string(), if unsigned { "uint32" } else { "int32" }.into());
        }
        Some("array") => {
            one.insert("type".to_string(), "array".into());
            one.insert("items".to_string(), in_discovery(&schema["items"]));
        }
        Some("object") => {
            one.insert("type".to_string(), "object".into());
            if let Some(properties) = schema["properties"].as_object() {
                let properties: Map<String, Value> =
                    properties.iter().map(|(n, s)| (n.clone(), in_discovery(s))).collect();
                one.insert("properties".to_string(), properties.into());
            }
            if schema["additionalProperties"].is_object() {
                one.insert(
                    "additionalProperties".to_string(),
                    in_discovery(&schema["additionalProperties"]),
                );
            }
        }
        Some(plain) => {
            one.insert("type".to_string(), plain.into());
        }
        None => {
            one.insert("type".to_string(), "any".into());
        }
    }
    for key in ["default", "enum"] {
        let texts = |value: &Value| match value {
            Value::String(text) => Value::from(text.as_str()),
            other => other.to_string().into(),
        };
        match schema.get(key) {
            Some(Value::Array(all)) if key == "enum" => {
                one.insert(key.to_string(), all.iter().map(texts).collect());
            }
            Some(value @ (Value::String(_) | Value::Number(_) | Value::Bool(_)))
                if one["type"] != "any" =>
            {
                one.insert(key.to_string(), texts(value));
            }
            _ => {}
        }
    }
    one.into()
}

/// Every name that a `$ref` in `value` names.
fn references(value: &Value) -> Vec<String> {
    match value {
        Value::Object(map) => {
            let own = map.get("$ref").and_then(Value::as_str).map(str::to_string);
            own.into_iter().chain(map.values().flat_map(references)).collect()
        }
        Value::Array(all) => all.iter().flat_map(references).collect(),
        _ => Vec::new(),
    }
}
