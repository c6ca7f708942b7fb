//! What users do to rollouts, reboots and volumes is kept for the leader to tell, with who; what
//! changes nothing, or is refused, is not.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use fleet_core::event::Item;
use fleet_core::model::{Act, Did};
use fleet_core::name::MachineId;
use fleet_core::rollout::State;
use fleetd::api::Who;
use reqwest::Method;
use serde_json::{Value, json};

use crate::apps::ask;
use crate::server::{MACHINE, Server};

const ROLLOUT: &str = "/rollouts/web@.service";

async fn start() -> Arc<Server> {
    let anna = Who::Certificate("anna".into());
    let server = Arc::new(Server::start_with(|router| router.layer(Extension(anna))).await);
    server.lead_aloud().await;
    server
}

/// The lines of what nobody has told yet, but for the first `after`.
async fn told(server: &Server, after: usize) -> Vec<String> {
    let mirror = server.store.read_all().await.expect("a read");
    let lines = mirror.acts().values().map(|act| Item::from(&**act).to_string());
    lines.skip(after).collect()
}

/// Asks, and answers with the status.
async fn status(server: &Server, method: Method, path: &str, body: Value) -> u16 {
    ask(server, method, path, Some(&body)).await.status().as_u16()
}

/// Waits until the API shows the rollout in this state.
async fn shown(server: &Server, state: &str) {
    let looked = async {
        loop {
            let answer = ask(server, Method::GET, ROLLOUT, None).await;
            let now: Value = answer.json().await.expect("a rollout");
            if now["state"] == state {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), looked).await.expect("the state");
}

#[tokio::test]
async fn what_users_want_of_rollouts_is_told() {
    let server = start().await;
    for (text, state) in [("1d", Some(State::Done)), ("2d", None)] {
        let text = format!("[Service]\nExecStart=/bin/sleep {text}\nRestart=always\n");
        let body = json!({"text": text, "desiredState": "inactive"});
        assert_eq!(status(&server, Method::PUT, "/units/web@.service", body).await, 201);
        let body = json!({"replicas": 2});
        let path = "/units/web@.service/replicas";
        assert_eq!(status(&server, Method::PUT, path, body).await, 200);
        server.assigned("web@2.service").await;
        server.report(&["web@1.service", "web@2.service"]).await;
        server.roll(state).await;
        shown(&server, if state.is_some() { "done" } else { "rolling" }).await;
    }
    let before = told(&server, 0).await.len();
    let want = async |action: &str| {
        status(&server, Method::POST, ROLLOUT, json!({"action": action})).await
    };
    for (action, state) in [("pause", "paused"), ("resume", "rolling"), ("undo", "undone")] {
        assert_eq!(want(action).await, 200, "{action}");
        server.roll(None).await;
        shown(&server, state).await;
    }
    assert_eq!(want("undo").await, 200, "it is undone already");
    assert_eq!(want("sleep").await, 400);
    assert_eq!(
        told(&server, before).await,
        [
            "user anna (certificate) paused the rollout of web@.service",
            "user anna (certificate) resumed the rollout of web@.service",
            "user anna (certificate) undid the rollout of web@.service",
        ]
    );
}

#[tokio::test]
async fn rules_and_locks_of_reboots_are_told_each_once() {
    let server = start().await;
    let set = async |body: Value| status(&server, Method::PATCH, "/reboots", body).await;
    assert_eq!(set(json!({"slots": {"default": 2}})).await, 204);
    assert_eq!(set(json!({"slots": {"default": 2}})).await, 204, "as it was");
    assert_eq!(set(json!({"window": "at night"})).await, 400);
    let machine = format!("/reboots/{MACHINE}");
    // As often as an updater likes.
    for _ in 0..3 {
        assert_eq!(status(&server, Method::POST, &machine, json!({})).await, 204);
    }
    for _ in 0..2 {
        assert_eq!(status(&server, Method::DELETE, &machine, json!({})).await, 204);
    }
    assert_eq!(
        told(&server, 0).await,
        [
            "user anna (certificate) changed the rules of reboots: 2 at once in the group default",
            "user anna (certificate) asked to reboot machine c2e1b518, as one of the group default",
            "user anna (certificate) may reboot machine c2e1b518, which is drained",
            "user anna (certificate) released the reboot lock of machine c2e1b518",
        ]
    );
}

#[tokio::test]
async fn what_is_no_write_of_the_store_is_told_as_well() {
    let server = start().await;
    let path = format!("/machines/{MACHINE}/volumes/systemd-db");
    assert_eq!(status(&server, Method::DELETE, &path, json!({})).await, 404);
    assert_eq!(told(&server, 0).await, [] as [&str; 0], "fleet made no such volume");
    let did = Did::DestroyedVolume { volume: "systemd-db".into() };
    let act = Act::new("anna", 7, did).on(&MachineId::new(MACHINE));
    server.store.put_act(act).await.expect("a write");
    let said = "user anna destroyed the volume systemd-db on machine c2e1b518";
    assert_eq!(told(&server, 0).await, [said]);
}
