//! Journals and status of units on other machines, whose APIs answer by script: some break off,
//! some are not there.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use fleet_core::model::{DesiredState, FORMAT, InstanceStatus, Leader, Report, UnitRecord};
use fleet_core::name::{MachineId, UnitName};
use fleet_core::plan::plan;
use fleet_core::wire::{EXIT_STATUS_HEADER, PROBLEM_HEADER};
use fleetd::api::{Api, router};
use fleetd::store::embedded::EmbeddedKv;
use fleetd::store::{Registration, Store, Term};
use futures_util::StreamExt;
use tokio::sync::Notify;

use crate::machine;
use crate::serve;

/// Longer than any test; nobody renews the leases.
const TTL: Duration = Duration::from_secs(3600);

/// What a peer answers to one request.
enum Answer {
    /// Lines, and the end.
    Whole(&'static str),
    /// Lines, and a connection that breaks when the test cuts it.
    Broken(&'static str),
    /// Lines, and silence.
    Open(&'static str),
    /// A refusal.
    Refused(StatusCode, &'static str),
    /// Bytes without an end of a line, for ever.
    Endless,
    /// A way to somebody else.
    Redirect(String),
}

/// A machine whose API answers what the test says.
#[derive(Clone, Default)]
struct Peer {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    asked: Arc<Mutex<Vec<String>>>,
    paths: Arc<Mutex<Vec<String>>>,
    cut: Arc<Notify>,
}

impl Peer {
    fn says(&self, answers: impl IntoIterator<Item = Answer>) {
        self.answers.lock().unwrap().extend(answers);
    }

    async fn serve(&self) -> String {
        serve(axum::Router::new().fallback(answer).with_state(self.clone())).await
    }
}

async fn answer(
    State(peer): State<Peer>,
    uri: axum::http::Uri,
    RawQuery(query): RawQuery,
) -> Response {
    peer.paths.lock().unwrap().push(uri.path().to_string());
    peer.asked.lock().unwrap().push(query.unwrap_or_default());
    let said = |text: &'static str| {
        futures_util::stream::iter([Ok::<_, std::io::Error>(Bytes::from(text))])
    };
    let body = match peer.answers.lock().unwrap().pop_front() {
        Some(Answer::Whole(text)) => Body::from(text),
        Some(Answer::Broken(text)) => {
            let cut = peer.cut.clone();
            let broken = futures_util::stream::once(async move {
                cut.notified().await;
                Err(std::io::Error::other("cut"))
            });
            Body::from_stream(said(text).chain(broken))
        }
        Some(Answer::Open(text)) => {
            Body::from_stream(said(text).chain(futures_util::stream::pending()))
        }
        Some(Answer::Refused(status, body)) => return (status, body).into_response(),
        Some(Answer::Endless) => {
            let part = || Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; 64 * 1024]));
            Body::from_stream(futures_util::stream::repeat_with(part))
        }
        Some(Answer::Redirect(to)) => {
            return (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, to)]).into_response();
        }
        None => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
    };
    ([(EXIT_STATUS_HEADER, "3")], body).into_response()
}

/// Units on the machines `b…` and `c…`, asked of a third.
struct Cluster {
    store: Store,
    term: Term,
    origin: String,
    b: Registration,
    _folder: tempfile::TempDir,
}

impl Cluster {
    async fn start(b: &str, c: &str) -> Cluster {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(
            Arc::new(EmbeddedKv::open(folder.path().join("store")).await.unwrap()),
            "/fleet/",
        );
        let origin =
            serve(router(Api::new(store.clone(), MachineId::new("aaaaaaaa"), String::new))).await;
        let lease = store.grant(TTL).await.unwrap();
        let mut registrations = Vec::new();
        for (id, origin) in [("bbbbbbbb", b), ("cccccccc", c)] {
            let lease = store.grant(TTL).await.unwrap();
            registrations.push(
                store
                    .register(&machine(id, Some(origin).filter(|o| !o.is_empty())), lease)
                    .await
                    .unwrap(),
            );
        }
        let leader = Leader { v: FORMAT, machine: MachineId::new("aaaaaaaa"), since_ms: 0 };
        let term = store.campaign(&leader, lease).await.unwrap().unwrap();
        Cluster { store, term, origin, b: registrations.remove(0), _folder: folder }
    }

    /// Has a unit run, in place of its text before.
    async fn run(&self, name: &str, text: &str, replicas: Option<u32>) {
        let name = UnitName::trusted(name);
        let old = self.store.unit(&name).await.unwrap().0;
        let record = UnitRecord {
            revision: old.as_ref().map_or(1, |old| old.value.revision + 1),
            desired: DesiredState::Launched,
            replicas,
            ..UnitRecord::new(name, format!("[Service]\nExecStart=/bin/sleep 1d\n{text}"))
        };
        self.store.put_unit(&record, old.map(|old| old.revision), true).await.unwrap();
        self.plan().await;
    }

    async fn plan(&self) {
        let mirror = self.store.read_all().await.unwrap();
        self.store.commit(self.term, &mirror, &plan(&mirror.cluster().snapshot)).await.unwrap();
    }

    /// Has `b` report that it refuses a unit.
    async fn refuses(&self, name: &str, message: &str) {
        let status = InstanceStatus {
            active: "failed".into(),
            message: Some(message.to_string()),
            ..InstanceStatus::default()
        };
        let instances = [(UnitName::trusted(name), status)].into_iter().collect();
        let report = Report { v: FORMAT, generation: 1, instances, ..Report::default() };
        self.store.put_report(&MachineId::new("bbbbbbbb"), &report, self.b, 0).await.unwrap();
    }

    async fn get(&self, path: &str) -> reqwest::Response {
        fleet_tests::http()
            .build()
            .unwrap()
            .get(format!("{}/fleet/v1/{path}", self.origin))
            .send()
            .await
            .unwrap()
    }
}

/// Reads until `last` has come.
async fn read_until(answer: &mut reqwest::Response, last: &str) -> String {
    let mut text = String::new();
    while !text.contains(last) {
        text += &String::from_utf8_lossy(&answer.chunk().await.unwrap().expect("more"));
    }
    text
}

/// Where nobody listens.
const NOWHERE: &str = "http://127.0.0.1:9";

#[tokio::test]
async fn a_machine_that_does_not_answer_hides_no_other_ones_status() {
    let b = Peer::default();
    let cluster = Cluster::start(&b.serve().await, NOWHERE).await;
    cluster.run("web@.service", "", Some(4)).await;
    b.says([Answer::Whole("one\n"), Answer::Whole("two\n")]);
    let answer = cluster.get("units/web@.service/status").await;
    assert_eq!(answer.status(), 200);
    let headers = answer.headers();
    assert_eq!(headers[EXIT_STATUS_HEADER], "1");
    let problems: Vec<_> =
        headers.get_all(PROBLEM_HEADER).iter().map(|value| value.to_str().unwrap()).collect();
    let [problem] = problems[..] else { panic!("{problems:?}") };
    assert!(
        problem.contains("machine cccccccc at http://127.0.0.1:9 did not answer: "),
        "{problem}"
    );
    assert_eq!(
        answer.text().await.unwrap(),
        "web@1.service on machine bbbbbbbb\none\n\nweb@3.service on machine bbbbbbbb\ntwo\n"
    );
}

#[tokio::test]
async fn a_machine_that_does_not_answer_hides_no_other_ones_journal() {
    let b = Peer::default();
    let cluster = Cluster::start(&b.serve().await, NOWHERE).await;
    cluster.run("web@.service", "", Some(2)).await;
    b.says([Answer::Whole("hello\n"), Answer::Whole("hello\n")]);
    let told = cluster.get("units/web@.service/journal?notes=true").await.text().await.unwrap();
    let mut lines: Vec<&str> = told.lines().collect();
    lines.sort_unstable();
    let [note, line] = lines[..] else { panic!("{lines:?}") };
    assert_eq!(line, "web@1.service bbbbbbbb: hello");
    assert!(
        note.starts_with(
            "\0the journal of web@2.service on machine cccccccc: machine cccccccc at "
        ),
        "{note:?}"
    );
    // Without notes it breaks off, so that nobody takes it for the whole.
    assert!(cluster.get("units/web@.service/journal").await.text().await.is_err());
}

#[tokio::test]
async fn what_a_machine_refuses_is_refused_in_its_words() {
    let b = Peer::default();
    let cluster = Cluster::start(&b.serve().await, NOWHERE).await;
    cluster.run("lone.service", "[X-Fleet]\nMachineID=bbbbbbbb\n", None).await;
    let refusal = r#"{"error":{"code":404,"message":"it is not here"}}"#;
    b.says([
        Answer::Refused(StatusCode::NOT_FOUND, refusal),
        Answer::Refused(StatusCode::NOT_FOUND, refusal),
    ]);
    for what in ["status", "journal"] {
        let answer = cluster.get(&format!("units/lone.service/{what}")).await;
        assert_eq!(answer.status(), 404);
        assert_eq!(answer.text().await.unwrap(), refusal);
    }
}

#[tokio::test]
async fn a_followed_journal_that_breaks_off_goes_on_after_the_last_line() {
    let b = Peer::default();
    let cluster = Cluster::start(&b.serve().await, NOWHERE).await;
    cluster.run("lone.service", "[X-Fleet]\nMachineID=bbbbbbbb\n", None).await;
    // While it is away it is asked in vain; then it sends what came already once more.
    b.says([
        Answer::Broken("one\ntwo\ntwo\n"),
        Answer::Refused(StatusCode::SERVICE_UNAVAILABLE, ""),
        Answer::Open("two\ntwo\nthree\nfour\n"),
    ]);
    let mut answer = cluster.get("units/lone.service/journal?follow=true&notes=true&lines=3").await;
    let mut told = read_until(&mut answer, "two\ntwo\n").await;
    b.cut.notify_one();
    told += &read_until(&mut answer, "four\n").await;
    let (notes, lines): (Vec<&str>, Vec<&str>) =
        told.lines().partition(|line| line.starts_with('\0'));
    assert_eq!(lines, ["one", "two", "two", "three", "four"]);
    let [broke, back] = notes[..] else { panic!("{notes:?}") };
    assert!(
        broke.starts_with("\0the journal of lone.service on machine bbbbbbbb broke off: "),
        "{broke:?}"
    );
    assert_eq!(back, "\0machine bbbbbbbb answers again");
    let asked = b.asked.lock().unwrap();
    assert!(
        !asked[0].contains("agoMs=") && asked[1].contains("agoMs=") && asked[2].contains("agoMs="),
        "{asked:?}"
    );
}

#[tokio::test]
async fn a_followed_journal_goes_where_the_unit_goes_and_ends_with_it() {
    let (b, c) = (Peer::default(), Peer::default());
    let cluster = Cluster::start(&b.serve().await, &c.serve().await).await;
    cluster.run("lone.service", "[X-Fleet]\nMachineID=bbbbbbbb\n", None).await;
    b.says([Answer::Open("on b\n")]);
    c.says([Answer::Open("on c\n")]);
    let mut answer = cluster.get("units/lone.service/journal?follow=true&notes=true").await;
    assert_eq!(read_until(&mut answer, "\n").await, "on b\n");
    cluster.run("lone.service", "[X-Fleet]\nMachineID=cccccccc\n", None).await;
    assert_eq!(read_until(&mut answer, "\n").await, "on c\n");
    let name = UnitName::trusted("lone.service");
    let revision = cluster.store.unit_revision(&name).await.unwrap().unwrap();
    cluster.store.delete_unit(&name, revision).await.unwrap();
    cluster.plan().await;
    assert_eq!(answer.text().await.unwrap(), "\0unit lone.service was destroyed\n");
}

#[tokio::test]
async fn what_was_destroyed_is_shown_until_its_machine_has_stopped_it() {
    let b = Peer::default();
    let cluster = Cluster::start(&b.serve().await, NOWHERE).await;
    cluster.run("web@.service", "[X-Fleet]\nMachineID=bbbbbbbb\n", Some(1)).await;
    let stopping = InstanceStatus { active: "deactivating".into(), ..InstanceStatus::default() };
    let reports = async |instances: &[&str], seen| {
        let instances = instances.iter().map(|name| (UnitName::trusted(*name), stopping.clone()));
        let report = Report { v: FORMAT, instances: instances.collect(), ..Report::default() };
        cluster.store.put_report(&MachineId::new("bbbbbbbb"), &report, cluster.b, seen).await
    };
    let written = reports(&["web@1.service"], 0).await.unwrap();
    let name = UnitName::trusted("web@.service");
    let revision = cluster.store.unit_revision(&name).await.unwrap().unwrap();
    cluster.store.delete_unit(&name, revision).await.unwrap();
    cluster.plan().await;
    let names = ["web@1.service", "web@.service"];
    for name in names {
        b.says([Answer::Whole("Active: deactivating\n"), Answer::Whole("bye\n")]);
        for (what, said) in [("status", "Active: deactivating\n"), ("journal", "bye\n")] {
            let answer = cluster.get(&format!("units/{name}/{what}")).await;
            assert_eq!(
                (answer.status(), answer.text().await.unwrap()),
                (StatusCode::OK, said.to_string())
            );
        }
    }
    b.says([Answer::Open("bye\n")]);
    let mut followed = cluster.get("units/web@1.service/journal?follow=true&notes=true").await;
    assert_eq!(read_until(&mut followed, "\n").await, "bye\n");
    reports(&[], written).await.unwrap();
    assert_eq!(followed.text().await.unwrap(), "\0unit web@1.service was destroyed\n");
    for name in names {
        assert_eq!(cluster.get(&format!("units/{name}/status")).await.status(), 404);
    }
}

#[tokio::test]
async fn a_name_with_a_backslash_is_asked_of_another_machine_as_it_is() {
    let b = Peer::default();
    let cluster = Cluster::start(&b.serve().await, NOWHERE).await;
    cluster.run("a\\x2db.service", "[X-Fleet]\nMachineID=bbbbbbbb\n", None).await;
    b.says([Answer::Whole("fine\n"), Answer::Whole("hello\n")]);
    for (what, said) in [("status", "fine\n"), ("journal", "hello\n")] {
        let answer = cluster.get(&format!("units/a%5Cx2db.service/{what}")).await;
        assert_eq!((answer.status().as_u16(), answer.text().await.unwrap().as_str()), (200, said));
    }
    let paths =
        ["/fleet/v1/units/a%5Cx2db.service/status", "/fleet/v1/units/a%5Cx2db.service/journal"];
    assert_eq!(*b.paths.lock().unwrap(), paths);
    assert_eq!(b.asked.lock().unwrap()[0], "machine=bbbbbbbb");
}

#[tokio::test]
async fn status_and_journal_say_why_a_machine_refuses_a_unit() {
    let b = Peer::default();
    let cluster = Cluster::start(&b.serve().await, NOWHERE).await;
    cluster.run("app.container", "[X-Fleet]\nMachineID=bbbbbbbb\n", None).await;
    cluster.refuses("app.container", "line 3: unsupported key\nline 4: another").await;
    b.says([Answer::Whole(""), Answer::Whole("Unit\n"), Answer::Whole("")]);
    let status = async || cluster.get("units/app.container/status").await.text().await.unwrap();
    let why = "app.container is not started on machine bbbbbbbb: line 3: unsupported key\n    \
        line 4: another\n";
    assert_eq!(status().await, why);
    assert_eq!(status().await, format!("{why}Unit\n"));
    let journal = cluster.get("units/app.container/journal?notes=true").await.text().await.unwrap();
    assert_eq!(
        journal,
        "\0app.container is not started on machine bbbbbbbb: line 3: unsupported key line 4: \
        another\n"
    );
}

#[tokio::test]
async fn a_machine_without_an_api_for_others_can_be_asked_over_ssh() {
    let cluster = Cluster::start("", NOWHERE).await;
    cluster.run("lone.service", "[X-Fleet]\nMachineID=bbbbbbbb\n", None).await;
    for what in ["status", "journal"] {
        let answer = cluster.get(&format!("units/lone.service/{what}")).await;
        assert_eq!(answer.status(), 502);
        let said = answer.text().await.unwrap();
        assert!(
            said.contains(&format!("or ask it over ssh: fleetctl {what} --ssh-port=22")),
            "{said}"
        );
    }
}

#[tokio::test]
async fn a_machine_that_never_ends_its_answer_is_cut_short() {
    let b = Peer::default();
    let cluster = Cluster::start(&b.serve().await, NOWHERE).await;
    cluster.run("lone.service", "[X-Fleet]\nMachineID=bbbbbbbb\n", None).await;
    b.says([Answer::Endless, Answer::Endless]);
    let status = cluster.get("units/lone.service/status").await.text().await.unwrap();
    assert!(
        status.ends_with("x\n[cut: this status is longer than 256 KiB]\n"),
        "{} bytes",
        status.len()
    );
    let mut journal = cluster.get("units/lone.service/journal?follow=true").await;
    let line = read_until(&mut journal, "\n").await;
    assert!(line.ends_with("x [cut: this line is longer than 256 KiB]\n"), "{} bytes", line.len());
}

/// It could name what only the asking machine reaches.
#[tokio::test]
async fn a_machine_that_answers_with_a_redirect_is_not_followed() {
    let (b, other) = (Peer::default(), Peer::default());
    let cluster = Cluster::start(&b.serve().await, NOWHERE).await;
    cluster.run("lone.service", "[X-Fleet]\nMachineID=bbbbbbbb\n", None).await;
    let elsewhere = other.serve().await;
    b.says([Answer::Redirect(elsewhere.clone()), Answer::Redirect(elsewhere)]);
    for what in ["status", "journal"] {
        let answer = cluster.get(&format!("units/lone.service/{what}")).await;
        assert_eq!(answer.status(), 502, "{what}");
        let said = answer.text().await.unwrap();
        assert!(said.contains("HTTP 307"), "{said}");
    }
    assert!(other.asked.lock().unwrap().is_empty());
}
