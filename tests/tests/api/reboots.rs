//! FleetLock, and what operators see and set of reboots.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::server::{MACHINE, Server};

/// Zincati's id for [`MACHINE`]: `systemd-id128 --app-specific=de35106b6ec24688b63afddaa156679b`.
const BY_ZINCATI: &str = "104717bd66434b0cbeab85d8483fbca5";

/// Far above what anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// The status and the body of a FleetLock request.
async fn ask(server: &Server, path: &str, id: &str, group: &str) -> (u16, Value) {
    let body = json!({"client_params": {"id": id, "group": group}}).to_string();
    let request = fleet_tests::http().build().unwrap();
    let request = request.post(format!("{}/v1/{path}", server.origin));
    // As `curl -d` and Zincati send it.
    let kind = "application/x-www-form-urlencoded";
    let request = request.header("fleet-lock-protocol", "true").header("content-type", kind);
    let answer = request.body(body).send().await.unwrap();
    let status = answer.status().as_u16();
    (status, serde_json::from_str(&answer.text().await.unwrap()).unwrap_or_default())
}

async fn call(server: &Server, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
    let url = format!("{}/fleet/v1/{path}", server.origin);
    let client = fleet_tests::http().build().unwrap();
    let mut request = client.request(method.parse().unwrap(), url);
    if let Some(body) = body {
        request = request.json(&body);
    }
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    (status, serde_json::from_str(&answer.text().await.unwrap()).unwrap_or_default())
}

fn kind(answer: &(u16, Value)) -> (u16, &str) {
    (answer.0, answer.1["kind"].as_str().unwrap_or(""))
}

#[tokio::test]
async fn a_request_that_is_no_fleetlock_is_refused_with_the_reason_in_its_form() {
    let server = Server::start().await;
    let client = fleet_tests::http().build().unwrap();
    let url = format!("{}/v1/pre-reboot", server.origin);
    let body = json!({"client_params": {"id": MACHINE, "group": "default"}});
    let answer = client.post(&url).json(&body).send().await.unwrap();
    assert_eq!(answer.status(), 400);
    let refusal: Value = answer.json().await.unwrap();
    assert_eq!(refusal["kind"], "missing_header");
    let answer = ask(&server, "pre-reboot", "0123456789abcdef0123456789abcdef", "default").await;
    assert_eq!(kind(&answer), (404, "unknown_machine"));
    for group in ["", "a b", "a/b"] {
        assert_eq!(kind(&ask(&server, "pre-reboot", MACHINE, group).await), (400, "bad_group"));
    }
    let request = client.post(&url).header("fleet-lock-protocol", "true").body("no json");
    let refusal: Value = request.send().await.unwrap().json().await.unwrap();
    assert_eq!(refusal["kind"], "bad_body");
    // Who holds no lock gives it back as often as it likes.
    assert_eq!(ask(&server, "steady-state", MACHINE, "default").await.0, 200);
    assert_eq!(ask(&server, "steady-state", BY_ZINCATI, "default").await.0, 200);
}

#[tokio::test]
async fn leave_to_reboot_comes_after_the_drain_and_steady_state_ends_both() {
    let server = Arc::new(Server::start().await);
    let availability = format!("machines/{MACHINE}/availability");
    // Nobody has planned yet.
    let answer = ask(&server, "pre-reboot", BY_ZINCATI, "default").await;
    assert_eq!(kind(&answer), (409, "cluster_not_well"));
    assert!(answer.1["value"].as_str().unwrap().contains("nobody leads"), "{answer:?}");
    server.lead_aloud().await;
    let text = json!({"desiredState": "launched", "text": "[Service]\nExecStart=/bin/sleep 9\n"});
    assert_eq!(call(&server, "PUT", "units/db.service", Some(text)).await.0, 201);
    server.assigned("db.service").await;
    server.report(&["db.service"]).await;
    let begun = Instant::now();
    // A leader that plans late is none for this answer; the client asks again.
    let answer = loop {
        let answer = ask(&server, "pre-reboot", BY_ZINCATI, "default").await;
        if kind(&answer) != (409, "cluster_not_well") {
            break answer;
        }
        assert!(begun.elapsed() < PATIENCE, "{answer:?}");
    };
    assert_eq!(kind(&answer), (409, "draining"), "{answer:?}");
    let says = answer.1["value"].as_str().unwrap();
    let expected = "draining: 1 unit is left: db.service (no other machine can \
        take it)";
    assert_eq!(says, expected);
    let (_, state) = call(&server, "GET", "reboots", None).await;
    assert_eq!(state["locks"][0]["state"], "draining");
    assert_eq!(
        state["locks"][0]["waits"],
        "1 unit is left: db.service (no other machine can take it)"
    );
    let (_, drained) = call(&server, "GET", &availability, None).await;
    assert_eq!(drained["availability"], "draining");
    assert_eq!(drained["note"]["reason"], "reboot lock of the group default");

    call(&server, "DELETE", "units/db.service", None).await;
    server.report(&[]).await;
    assert_eq!(ask(&server, "pre-reboot", BY_ZINCATI, "default").await, (200, Value::Null));
    assert_eq!(ask(&server, "pre-reboot", MACHINE, "default").await.0, 200, "as often as asked");
    let answer = ask(&server, "pre-reboot", MACHINE, "workers").await;
    assert_eq!(kind(&answer), (409, "other_group"));
    let (_, state) = call(&server, "GET", "reboots", None).await;
    assert_eq!(state["locks"][0]["state"], "granted");

    assert_eq!(ask(&server, "steady-state", MACHINE, "default").await.0, 200);
    let (_, open) = call(&server, "GET", &availability, None).await;
    assert_eq!(open["availability"], "active");
    let (_, state) = call(&server, "GET", "reboots", None).await;
    assert_eq!(state, json!({"slots": {"default": 1}, "open": true, "locks": []}));
}

#[tokio::test]
async fn the_rules_are_set_by_operators_and_what_is_no_rule_is_refused() {
    let server = Arc::new(Server::start().await);
    server.lead_aloud().await;
    let set = async |body: Value| call(&server, "PATCH", "reboots", Some(body)).await;
    assert_eq!(set(json!({"slots": {"default": 0, "workers": 3}})).await.0, 204);
    let answer = ask(&server, "pre-reboot", MACHINE, "default").await;
    assert_eq!(kind(&answer), (409, "failed_lock_semaphore_full"));
    let none = "the group default has no slots, so none of its machines reboots";
    assert_eq!(answer.1["value"], none);
    let (status, problem) = set(json!({"window": "at night"})).await;
    assert_eq!(status, 400);
    assert!(problem["error"]["message"].as_str().unwrap().contains("invalid window"));
    assert_eq!(set(json!({"slots": {"a b": 1}})).await.0, 400);
    assert_eq!(set(json!({"solts": {}})).await.0, 400);
    // A window that is never open: there is no 30th of February.
    assert_eq!(
        set(json!({"slots": {"default": null}, "window": "*-2-30 02:00..03:00"})).await.0,
        204
    );
    let answer = ask(&server, "pre-reboot", MACHINE, "default").await;
    assert_eq!(kind(&answer), (409, "outside_window"));
    let (_, state) = call(&server, "GET", "reboots", None).await;
    let window = "*-2-30 02:00..03:00";
    let slots = json!({"default": 1, "workers": 3});
    assert_eq!(state, json!({"slots": slots, "window": window, "open": false, "locks": []}));
    assert_eq!(set(json!({"window": ""})).await.0, 204);
    let path = format!("reboots/{MACHINE}");
    assert_eq!(call(&server, "POST", &path, Some(json!({}))).await.0, 204);
    assert_eq!(set(json!({"window": "*-2-30 02:00..03:00"})).await.0, 204);
    assert_eq!(call(&server, "POST", &path, Some(json!({}))).await.0, 204, "it has leave already");
    assert_eq!(call(&server, "DELETE", &path, None).await.0, 204);
    assert_eq!(call(&server, "POST", &path, Some(json!({}))).await.0, 409);
    assert_eq!(call(&server, "DELETE", "reboots/nobody", None).await.0, 404);
    assert_eq!(call(&server, "POST", "reboots/nobody", Some(json!({}))).await.0, 404);
}

/// Two machines may ask at the same moment, each of an API of its own.
#[tokio::test]
async fn of_two_that_ask_at_once_one_gets_the_slot() {
    let server = Arc::new(Server::start().await);
    server.join("second").await;
    server.lead_aloud().await;
    let (one, two) = tokio::join!(
        ask(&server, "pre-reboot", MACHINE, "default"),
        ask(&server, "pre-reboot", "second", "default")
    );
    let mut statuses = [one.0, two.0];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409], "{one:?} {two:?}");
    let refused = if one.0 == 409 { one } else { two };
    assert_eq!(kind(&refused), (409, "failed_lock_semaphore_full"));
}
