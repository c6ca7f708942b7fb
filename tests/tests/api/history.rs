//! What a unit has been: who gave it each text, which texts are kept, and what came with them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Extension;
use fleet_core::app::{AppName, Application, Checksum, FileEntry};
use fleet_core::model::{FORMAT, Unknown};
use fleet_core::name::UnitName;
use fleet_core::wire::RevisionPage;
use fleetd::api::Who;
use fleetd::store::Documents;
use reqwest::Method;
use serde_json::json;

use crate::apps::{Folder, applied, ask, refusal, sent};
use crate::server::Server;

async fn revisions(server: &Server, unit: &str) -> RevisionPage {
    let path = format!("/units/{unit}/revisions");
    ask(server, Method::GET, &path, None).await.json().await.expect("a page")
}

async fn numbers(server: &Server, unit: &str) -> Vec<u64> {
    revisions(server, unit).await.revisions.iter().map(|it| it.revision).collect()
}

/// Looks until it is so, far longer than it takes.
async fn eventually(what: &str, look: impl AsyncFn(u64) -> Result<(), String>) {
    let until = Instant::now() + Duration::from_secs(60);
    for n in 1.. {
        let Err(seen) = look(n).await else { return };
        assert!(Instant::now() < until, "{what}: {seen}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn submit(server: &Server, n: u64) {
    let text = format!("[Service]\nExecStart=/bin/sleep {n}\nRestart=always\n");
    let body = json!({"text": text, "desiredState": "launched"});
    let answer = ask(server, Method::PUT, "/units/a.service", Some(&body)).await;
    assert_eq!(answer.status(), 201);
}

#[tokio::test]
async fn a_list_of_revisions_says_when_who_and_what() {
    let anna = Who::Certificate("anna".into());
    let server = Server::start_with(|router| router.layer(Extension(anna))).await;
    submit(&server, 1).await;
    submit(&server, 2).await;
    let answer = ask(&server, Method::POST, "/units/a.service/rollback", Some(&json!({}))).await;
    assert_eq!(answer.status(), 200);
    let page = revisions(&server, "a.service").await.revisions;
    let said = |at: usize| (page[at].revision, page[at].change.as_str(), page[at].by.as_str());
    assert_eq!(said(0), (3, "ExecStart=; 1 line", "anna (certificate)"));
    assert_eq!(said(1), (2, "ExecStart=; 1 line", "anna (certificate)"));
    assert_eq!(said(2), (1, "", "anna (certificate)"));
    assert!(page.iter().all(|it| it.at_ms.is_some_and(|ms| ms > 1_600_000_000_000)));
    let second = ask(&server, Method::GET, "/units/a.service/revisions/2", None).await;
    let second: fleet_core::wire::Revision = second.json().await.unwrap();
    assert_eq!(second.text.as_deref(), Some("[Service]\nExecStart=/bin/sleep 2\nRestart=always\n"));
    assert_eq!((second.by, second.change), (page[1].by.clone(), page[1].change.clone()));
}

#[tokio::test]
async fn who_submits_again_and_again_leaves_sixteen_texts_and_can_go_back() {
    let server = Arc::new(Server::start().await);
    server.lead_aloud().await;
    for n in 1..=40 {
        submit(&server, n).await;
    }
    // The last look may have come before the leader's.
    eventually("old texts go", async |n| {
        submit(&server, 40 + n).await;
        let kept = numbers(&server, "a.service").await;
        let newest = kept[..10].iter().copied().eq((31 + n..=40 + n).rev());
        if newest && kept.len() <= 17 { Ok(()) } else { Err(format!("{kept:?}")) }
    })
    .await;
    let answer = ask(&server, Method::POST, "/units/a.service/rollback", Some(&json!({}))).await;
    assert_eq!(answer.status(), 200);
    let gone = json!({"revision": 2});
    let answer = ask(&server, Method::POST, "/units/a.service/rollback", Some(&gone)).await;
    let said = refusal(answer).await;
    assert!(said.starts_with("409 a.service has no revision 2; its present one is "), "{said}");
}

#[tokio::test]
async fn contents_of_an_application_are_bounded_and_what_runs_keeps_its_own() {
    const FILES: usize = 8;
    const APPLIES: usize = 10;
    let server = Arc::new(Server::start().await);
    server.lead_aloud().await;
    let name = AppName::parse("shop").unwrap();
    let path = |n: usize| format!("data/{n}");
    let mut folder = Folder::shop();
    let names: Vec<String> =
        (0..FILES).map(|n| format!("/run/fleet/files/%N/{}", path(n))).collect();
    let text = format!("[Service]\nExecStart=/bin/cat {}\n", names.join(" "));
    folder.units = vec![("web@.service".into(), format!("{text}[X-Fleet]\nReplicas=2\n"))];
    for apply in 0..APPLIES {
        let content = |n: usize| {
            let mut content = vec![b'x'; 1 << 20];
            content[..2].copy_from_slice(&[apply as u8, n as u8]);
            content
        };
        folder.files = (0..FILES).map(|n| (path(n), content(n))).collect();
        // What the last apply named counts no more, at once.
        for (_, content) in &folder.files {
            sent(&server, "shop", content).await.unwrap();
        }
        applied(&server, &folder, "").await.unwrap();
    }
    eventually("old contents go", async |_| {
        let kept = server.store.blob_sums(&name).await.unwrap().len();
        // 64 MiB with what runs, and the bundles.
        if kept < 9 * FILES { Ok(()) } else { Err(format!("{kept} contents are kept")) }
    })
    .await;
    let page = revisions(&server, "web@.service").await.revisions;
    assert_eq!(page.len(), APPLIES, "the texts stay");
    let first = page.last().expect("a first");
    assert_eq!(first.instances, 2, "nobody says that they run, so they are changed no further");
    let back = async |revision: u64| {
        let wish = json!({"revision": revision});
        ask(&server, Method::POST, "/units/web@.service/rollback", Some(&wish)).await
    };
    let said = refusal(back(2).await).await;
    let expected = "409 what came with revision 2 of web@.service is kept no more (of shop, the \
        newest 64 MiB are, and what runs); apply that folder again instead";
    assert_eq!(said, expected);
    assert_eq!(back(1).await.status(), 200, "what runs has all of it");
    assert_eq!(back(APPLIES as u64 - 1).await.status(), 200);
    assert!(server.store.unit(&UnitName::trusted("web@.service")).await.unwrap().0.is_some());
}

/// As if fleetd had died after each apply: no sweep has looked what they named.
#[tokio::test]
async fn what_applies_have_named_is_no_reason_to_refuse_also_before_any_sweep() {
    let server = Server::start().await;
    let content = |app: usize, n: usize| [vec![b'x'; (1 << 20) - 2], vec![app as u8, n as u8]];
    let names = ["a", "b", "c", "d"].map(|name| AppName::parse(name).unwrap());
    for (at, name) in names.iter().enumerate() {
        let mut files = BTreeMap::new();
        for n in 0..16 {
            let content = content(at, n).concat();
            sent(&server, name.as_str(), &content).await.unwrap();
            let sum = Checksum::of(&content);
            files.insert(
                n.to_string(),
                FileEntry { sum, size: content.len() as u64, executable: false },
            );
        }
        let app = Application {
            v: FORMAT,
            name: name.clone(),
            revision: 1,
            units: BTreeSet::new(),
            replicas: BTreeMap::new(),
            files,
            applied_ms: 1,
            unknown: Unknown::new(),
        };
        let lock = server.store.lock_units().await.unwrap();
        let all = Documents { apps: std::slice::from_ref(&app), ..Documents::default() };
        server.store.import(lock, &all).await.unwrap();
    }
    // Each has its limit, and all together.
    sent(&server, "other", b"one more").await.unwrap();
    for n in 16..32 {
        sent(&server, "a", &content(0, n).concat()).await.unwrap();
    }
    let said = sent(&server, "a", &content(0, 32).concat()).await.unwrap_err();
    assert!(said.starts_with("409 17 contents of a with 17825792 bytes"), "{said}");
    let kept = server.store.blob_sums(&names[0]).await.unwrap();
    assert_eq!(kept.len(), 32, "to count removes nothing");
}
