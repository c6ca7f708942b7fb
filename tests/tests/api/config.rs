//! `/config`: a change is one write with the units that take it, and followers hear of it.

use fleet_core::app::AppName;
use fleet_core::name::UnitName;
use fleet_core::wire::{Config, ConfigChange, ConfigHistory};
use serde_json::{Value, json};

use crate::server::Server;

const WEB: &str = "[Service]\nExecStart=/bin/sleep 1d\nRestart=always\n[X-Fleet]\nConfig=shop\n";

struct Client<'a>(&'a Server);

impl Client<'_> {
    async fn send(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let url = format!("{}/fleet/v1/{path}", self.0.origin);
        let request = fleet_tests::http().build().unwrap().request(method, url);
        let request = if body.is_null() { request } else { request.json(&body) };
        let answer = request.send().await.expect("an answer");
        let status = answer.status().as_u16();
        let text = answer.text().await.expect("a body");
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    async fn set(&self, body: Value) -> ConfigChange {
        let (status, answer) = self.send("PATCH", "config/shop", body).await;
        assert_eq!(status, 200, "{answer}");
        serde_json::from_value(answer).unwrap()
    }

    async fn asked_of(&self, unit: &str) -> Option<u64> {
        let record = self.0.store.unit(&UnitName::trusted(unit)).await.unwrap().0.unwrap();
        record.value.config.map(|asked| asked.revision)
    }
}

#[tokio::test]
async fn a_change_asks_its_users_in_the_same_write_and_an_earlier_revision_comes_back() {
    let server = Server::start().await;
    let client = Client(&server);
    let units: Vec<String> = (0..150).map(|n| format!("web{n}.service")).collect();
    for unit in ["web.service", "other.service"].iter().copied() {
        let text = if unit == "web.service" { WEB } else { "[Service]\nExecStart=/bin/true\n" };
        let body = json!({"text": text, "desiredState": "launched"});
        assert_eq!(client.send("PUT", &format!("units/{unit}"), body).await.0, 201);
    }
    let changed = client.set(json!({"set": {"LOG": "info", "db-host": "a"}})).await;
    assert_eq!((changed.revision, changed.restarts), (1, vec!["web.service".to_string()]));
    assert_eq!(client.asked_of("web.service").await, Some(1));
    assert_eq!(client.asked_of("other.service").await, None);
    // Nothing new is no write.
    let same = client.set(json!({"set": {"LOG": "info"}, "remove": ["nosuch"]})).await;
    assert_eq!((same.revision, same.changes.is_empty(), same.restarts.len()), (1, true, 0));
    // More units than one transaction takes, all or none.
    for unit in &units {
        let body = json!({"text": WEB, "desiredState": "launched"});
        assert_eq!(client.send("PUT", &format!("units/{unit}"), body).await.0, 201);
    }
    let changed = client.set(json!({"set": {"LOG": "debug"}, "remove": ["db-host"]})).await;
    assert_eq!((changed.revision, changed.restarts.len()), (2, 151));
    for unit in &units {
        assert_eq!(client.asked_of(unit).await, Some(2));
    }
    let (status, answer) =
        client.send("PATCH", "config/shop", json!({"set": {"a": "b"}, "ifRevision": 1})).await;
    assert_eq!(status, 409, "{answer}");
    let (_, back) = client.send("POST", "config/shop/rollback", json!({})).await;
    assert_eq!(back["revision"], 3);
    let (_, now) = client.send("GET", "config/shop", Value::Null).await;
    assert_eq!(now["values"], json!({"LOG": "info", "db-host": "a"}));
    let (_, history) = client.send("GET", "config/shop/history", Value::Null).await;
    let history: ConfigHistory = serde_json::from_value(history).unwrap();
    let numbers: Vec<u64> = history.revisions.iter().map(|it| it.revision).collect();
    assert_eq!((numbers, history.revisions[0].current), (vec![3, 2, 1], true));
    assert!(history.revisions[1].changes.removed.contains("db-host"));
    // Nobody can take away what units need; a new one counts on.
    let (status, answer) = client.send("DELETE", "config/shop", Value::Null).await;
    assert!(status == 409 && answer.to_string().contains("and 146 more"), "{answer}");
    for bad in [json!({"set": {"2": "x"}}), json!({"set": {"a": "x"}, "remove": ["a"]})] {
        assert_eq!(client.send("PATCH", "config/shop", bad).await.0, 400);
    }
    assert_eq!(client.send("GET", "config/Shop", Value::Null).await.0, 400);
    assert_eq!(client.send("GET", "config/nosuch", Value::Null).await.0, 404);
}

#[tokio::test]
async fn so_many_revisions_are_kept_and_all_go_with_the_configuration() {
    let server = Server::start().await;
    let client = Client(&server);
    for n in 1..=20 {
        client.set(json!({"set": {"n": n.to_string()}})).await;
    }
    let shop = AppName::parse("shop").unwrap();
    let kept = server.store.configuration_revisions(&shop).await.unwrap();
    let numbers: Vec<u64> = kept.iter().map(|it| it.revision).collect();
    assert_eq!(numbers, (5..=20).collect::<Vec<_>>());
    assert_eq!(client.send("DELETE", "config/shop", Value::Null).await.0, 204);
    assert!(server.store.configuration_revisions(&shop).await.unwrap().is_empty());
    assert_eq!(client.send("GET", "config/shop", Value::Null).await.0, 404);
}

#[tokio::test]
async fn a_follower_hears_of_each_change_and_of_no_other_configuration() {
    let server = Server::start().await;
    let client = Client(&server);
    let url = format!("{}/fleet/v1/config/shop?follow=true", server.origin);
    let mut answer = fleet_tests::http().build().unwrap().get(url).send().await.unwrap();
    let mut buffer = Vec::new();
    let mut next = async || -> Config {
        loop {
            if let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = buffer.drain(..=end).collect();
                return serde_json::from_slice(&line).expect("a line");
            }
            buffer.extend(answer.chunk().await.expect("a connection").expect("another line"));
        }
    };
    assert_eq!(next().await.revision, 0, "there is none yet");
    let other = json!({"set": {"a": "1"}});
    assert_eq!(client.send("PATCH", "config/shop2", other).await.0, 200);
    client.set(json!({"set": {"a": "2"}})).await;
    let heard = next().await;
    assert_eq!((heard.name.as_str(), heard.revision, heard.values["a"].as_str()), ("shop", 1, "2"));
    client.set(json!({"set": {"a": "3"}})).await;
    assert_eq!(next().await.values["a"], "3");
    assert_eq!(client.send("DELETE", "config/shop", Value::Null).await.0, 204);
    assert_eq!(next().await.revision, 0);
}
