//! The discovery and OpenAPI documents: complete, consistent, and true of where they were asked
//! for.

use serde_json::Value;

use super::server::Server;

async fn get(server: &Server, path: &str) -> Value {
    let url = format!("{}{path}", server.origin);
    fleet_tests::http()
        .build()
        .unwrap()
        .get(url)
        .send()
        .await
        .unwrap()
        .error_for_status()
        .unwrap()
        .json()
        .await
        .unwrap()
}

#[tokio::test]
async fn the_discovery_document_names_fleet_1_0s_methods_and_types() {
    let server = Server::start().await;
    let document = get(&server, "/fleet/v1/discovery").await;
    assert_eq!(document["kind"], "discovery#restDescription");
    assert_eq!(document["baseUrl"], format!("{}/fleet/v1/", server.origin));
    let mut methods: Vec<String> = Vec::new();
    for (resource, group) in document["resources"].as_object().unwrap() {
        for (name, method) in group["methods"].as_object().unwrap() {
            let of = |key: &str| method[key]["$ref"].as_str().unwrap_or("-").to_string();
            let verb = method["httpMethod"].as_str().unwrap();
            let path = method["path"].as_str().unwrap();
            methods.push(format!(
                "{resource}.{name} {verb} {path} {} {}",
                of("request"),
                of("response")
            ));
        }
    }
    methods.sort();
    assert_eq!(
        methods,
        [
            "Machines.List GET machines - MachinePage",
            "Machines.Patch PATCH machines MachineMetadataOps -",
            "UnitState.Get GET state/{unitName} - UnitState",
            "UnitState.List GET state - UnitStatePage",
            "Units.Delete DELETE units/{unitName} - -",
            "Units.Get GET units/{unitName} - Unit",
            "Units.List GET units - UnitPage",
            "Units.Set PUT units/{unitName} Unit -",
        ]
    );
    let alpha = get(&server, "/v1-alpha/discovery").await;
    assert_eq!(alpha["basePath"], "/v1-alpha/");
    assert_eq!(
        (&alpha["resources"], &alpha["schemas"]),
        (&document["resources"], &document["schemas"])
    );
}

#[tokio::test]
async fn the_discovery_document_names_the_address_that_it_was_asked_at() {
    let server =
        Server::start_with(|routes| routes.layer(axum::Extension(axum::http::uri::Scheme::HTTPS)))
            .await;
    let request = fleet_tests::http()
        .build()
        .unwrap()
        .get(format!("{}/v1-alpha/discovery", server.origin))
        .header("host", "fleet.example:4100");
    let document: Value = request.send().await.unwrap().json().await.unwrap();
    assert_eq!(document["rootUrl"], "https://fleet.example:4100/");
    assert_eq!(document["baseUrl"], "https://fleet.example:4100/v1-alpha/");
}

#[tokio::test]
async fn each_reference_in_the_documents_leads_somewhere() {
    let server = Server::start().await;
    for (path, types) in
        [("/fleet/v1/openapi.json", "/components/schemas"), ("/fleet/v1/discovery", "/schemas")]
    {
        let document = get(&server, path).await;
        let known = document.pointer(types).unwrap().as_object().unwrap();
        let mut names = Vec::new();
        references(&document, &mut names);
        assert!(!names.is_empty());
        for name in names {
            assert!(known.contains_key(name.rsplit('/').next().unwrap()), "{path}: {name}");
        }
    }
}

#[tokio::test]
async fn each_operation_has_its_own_name_and_says_what_it_answers() {
    let server = Server::start().await;
    let document = get(&server, "/v1-alpha/openapi.json").await;
    assert_eq!(document["openapi"], "3.1.0");
    let mut names = Vec::new();
    for item in document["paths"].as_object().unwrap().values() {
        for (_, operation) in item
            .as_object()
            .unwrap()
            .iter()
            .filter(|(key, _)| !["parameters", "servers"].contains(&key.as_str()))
        {
            names.push(operation["operationId"].as_str().unwrap().to_string());
            let good = operation["responses"]
                .as_object()
                .unwrap()
                .keys()
                .any(|status| status.starts_with('2'));
            assert!(good && operation["summary"].is_string(), "{operation}");
        }
    }
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count);
}

fn references(value: &Value, names: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            names.extend(map.get("$ref").and_then(Value::as_str).map(str::to_string));
            map.values().for_each(|value| references(value, names));
        }
        Value::Array(all) => all.iter().for_each(|value| references(value, names)),
        _ => {}
    }
}
