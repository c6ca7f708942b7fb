//! Connections within limits, and how they end.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fleet_core::name::MachineId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::super::listen::listen;
use super::*;
use crate::store::Store;
use crate::store::embedded::EmbeddedKv;

/// Far above what an end takes, far below what a stream takes.
const SOON: Duration = Duration::from_secs(5);

const BODY: &str = r#"{"text":"[Service]\nExecStart=/bin/true\n"}"#;

#[tokio::test]
async fn what_was_asked_before_the_end_is_answered_and_streams_are_broken_off() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(
        Arc::new(EmbeddedKv::open(folder.path().join("store.redb")).await.unwrap()),
        "/fleet/",
    );
    let api = Api::new(store, MachineId::new("0123456789abcdef0123456789abcdef"), String::new);
    let socket = folder.path().join("fleet.sock");
    let stop = CancellationToken::new();
    let serving =
        tokio::spawn(serve(api, listen(&socket, &[], false, None).unwrap(), stop.clone()));

    let mut follow = UnixStream::connect(&socket).await.unwrap();
    follow
        .write_all(b"GET /fleet/v1/follow?unit=a.service HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let mut first = [0; 12];
    follow.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");

    // One is taken and has said half, one has said nothing yet.
    let mut half = UnixStream::connect(&socket).await.unwrap();
    let head = format!(
        "PUT /fleet/v1/units/a.service HTTP/1.1\r\nHost: x\r\nContent-Type: \
            application/json\r\nContent-Length: {}\r\n\r\n",
        BODY.len()
    );
    half.write_all(head.as_bytes()).await.unwrap();
    let mut silent = UnixStream::connect(&socket).await.unwrap();
    // Connections are taken in their order: when a later one is answered, these two are taken.
    let mut last = UnixStream::connect(&socket).await.unwrap();
    last.write_all(b"GET /fleet/v1/version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    last.read_to_end(&mut Vec::new()).await.unwrap();

    stop.cancel();
    let mut rest = String::new();
    tokio::time::timeout(SOON, follow.read_to_string(&mut rest)).await.unwrap().unwrap();
    assert!(
        !rest.ends_with("0\r\n\r\n"),
        "a stream that was cut off says that it is whole: {rest}"
    );
    half.write_all(BODY.as_bytes()).await.unwrap();
    silent.write_all(b"GET /fleet/v1/version HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    for (stream, expected) in [(&mut half, "HTTP/1.1 201 "), (&mut silent, "HTTP/1.1 200 ")] {
        let mut answer = String::new();
        tokio::time::timeout(SOON, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        assert!(answer.starts_with(expected), "{answer}");
    }
    tokio::time::timeout(SOON, serving).await.unwrap().unwrap();
}

/// An API within these limits.
async fn api(limits: Limits, folder: &Path) -> Api {
    let store =
        Store::new(Arc::new(EmbeddedKv::open(folder.join("store.redb")).await.unwrap()), "/fleet/");
    let id = MachineId::new("0123456789abcdef0123456789abcdef");
    Api::new(store, id, String::new).with_limits(limits)
}

/// The same on loopback, until `stop`.
async fn serve_tcp(limits: Limits, folder: &Path) -> (SocketAddr, CancellationToken) {
    serve_api(api(limits, folder).await).await
}

async fn serve_api(api: Api) -> (SocketAddr, CancellationToken) {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let mut listeners = Listeners::default();
    listeners.tcp.push((tcp, None));
    let stop = CancellationToken::new();
    tokio::spawn(serve(api, listeners, stop.clone()));
    (address, stop)
}

/// A connection of another host, as far as the API can tell.
async fn connect_as(from: [u8; 4], address: SocketAddr) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    socket.connect(address).await.unwrap()
}

async fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.unwrap()
}

/// What it answers to these bytes until it hangs up.
async fn answer(stream: &mut TcpStream, bytes: &str) -> String {
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut said = Vec::new();
    // One that is cut off may be reset.
    let _ = tokio::time::timeout(SOON, stream.read_to_end(&mut said)).await.unwrap();
    String::from_utf8(said).unwrap()
}

const VERSION: &str =
    "GET /fleet/v1/version HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn silent_connections_make_room_for_those_who_ask() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits { connections_of_one: 4, first_byte: SOON * 10, ..Limits::default() };
    let (address, _stop) = serve_tcp(limits, folder.path()).await;
    let mut silent = Vec::new();
    for _ in 0..4 {
        silent.push(connect(address).await);
    }
    for _ in 0..3 {
        let said = answer(&mut connect(address).await, VERSION).await;
        assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    }
    // The first that came is the first that went.
    assert_eq!(answer(&mut silent[0], "").await, "");
    assert!(answer(&mut silent[3], VERSION).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn those_who_wait_for_an_answer_are_not_cut_off_and_one_too_many_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let (address, _stop) =
        serve_tcp(Limits { connections_of_one: 2, ..Limits::default() }, folder.path()).await;
    let mut followers = Vec::new();
    for _ in 0..2 {
        let mut follower = connect(address).await;
        let ask = "GET /fleet/v1/follow?unit=a.service HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
        follower.write_all(ask.as_bytes()).await.unwrap();
        follower.read_exact(&mut [0; 12]).await.unwrap();
        followers.push(follower);
    }
    let said = answer(&mut connect(address).await, "").await;
    assert!(
        said.starts_with("HTTP/1.1 429") && said.contains("127.0.0.1 has 2 connections"),
        "{said}"
    );
    drop(followers.pop());
    // Its place is free as soon as it is seen that it went.
    let deadline = tokio::time::Instant::now() + SOON;
    while !answer(&mut connect(address).await, VERSION).await.starts_with("HTTP/1.1 200") {
        assert!(tokio::time::Instant::now() < deadline, "the place stays taken");
    }
}

#[tokio::test]
async fn who_says_nothing_or_not_all_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let short = Duration::from_millis(50);
    let limits = Limits { first_byte: short, head: short, body: short, ..Limits::default() };
    let (address, _stop) = serve_tcp(limits, folder.path()).await;
    assert_eq!(answer(&mut connect(address).await, "").await, "");
    assert_eq!(
        answer(&mut connect(address).await, "GET /fleet/v1/version HTTP/1.1\r\nHo").await,
        ""
    );
    let half = "PUT /fleet/v1/units/a.service HTTP/1.1\r\nHost: 127.0.0.1\r\n\
                Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
    let said = answer(&mut connect(address).await, half).await;
    assert!(said.starts_with("HTTP/1.1 408"), "{said}");
}

#[tokio::test]
async fn more_followers_than_there_are_places_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits { followers: 1, journals: 0, ..Limits::default() };
    let (address, _stop) = serve_tcp(limits, folder.path()).await;
    let ask = |path: &str| {
        format!("GET /fleet/v1/{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
    };
    let mut first = connect(address).await;
    first.write_all(ask("follow?unit=a.service").as_bytes()).await.unwrap();
    first.read_exact(&mut [0; 12]).await.unwrap();
    for path in ["follow?unit=a.service", "events?follow=true", "units/a.service/journal"] {
        let said = answer(&mut connect(address).await, &ask(path)).await;
        assert!(said.starts_with("HTTP/1.1 429"), "{path}: {said}");
    }
}

#[tokio::test]
async fn a_web_page_cannot_use_an_open_listener() {
    let folder = tempfile::tempdir().unwrap();
    let (address, _stop) = serve_tcp(Limits::default(), folder.path()).await;
    let ask = |head: &str| format!("{head}\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{{}}");
    let restart = "POST /fleet/v1/units/a.service/restart HTTP/1.1\r\nHost: 127.0.0.1";
    for (head, status) in [
        (
            "PUT /fleet/v1/units/a.service HTTP/1.1\r\nHost: evil.example\r\nContent-Type: \
            application/json"
                .into(),
            421,
        ),
        (format!("{restart}\r\nContent-Type: text/plain"), 415),
        (
            format!("{restart}\r\nContent-Type: application/json\r\nOrigin: http://evil.example"),
            403,
        ),
        (format!("{restart}\r\nContent-Type: application/json"), 404),
    ] as [(String, u16); 4]
    {
        let said = answer(&mut connect(address).await, &ask(&head)).await;
        assert!(said.starts_with(&format!("HTTP/1.1 {status}")), "{head}: {said}");
    }
}

#[tokio::test]
async fn a_client_that_takes_all_that_it_may_leaves_places_for_the_next_one() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits { followers: 8, ..Limits::default() };
    let (address, _stop) = serve_tcp(limits, folder.path()).await;
    let ask = "GET /fleet/v1/follow?unit=a.service HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
    let mut kept = Vec::new();
    let mut follow = async |from| {
        let mut stream = connect_as(from, address).await;
        stream.write_all(ask.as_bytes()).await.unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).await.unwrap();
        kept.push(stream);
        String::from_utf8(status[9..].to_vec()).unwrap()
    };
    for _ in 0..4 {
        assert_eq!(follow([127, 0, 0, 1]).await, "200");
    }
    assert_eq!(follow([127, 0, 0, 1]).await, "429");
    assert_eq!(follow([127, 0, 0, 2]).await, "200");
    let ask = "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";
    let metrics = answer(&mut connect(address).await, ask).await;
    for line in [
        "fleet_api_budget_used{budget=\"followers\",of=\"network\"} 5\n",
        "fleet_api_budget_limit{budget=\"followers\"} 8\n",
        "fleet_api_budget_refused_total{budget=\"followers\"} 1\n",
    ] {
        assert!(metrics.contains(line), "{metrics}");
    }
}

#[tokio::test]
async fn a_request_waits_for_its_turn_unless_it_costs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits { requests: 1, ..Limits::default() };
    let api = api(limits, folder.path()).await;
    let other = std::net::IpAddr::from([127, 0, 0, 2]).into();
    let turn = api.shared.budgets.turn(other, super::super::limits::Kind::Usual).await;
    let (address, _stop) = serve_api(api.clone()).await;
    let mut waiting = connect(address).await;
    let units = VERSION.replace("version", "units");
    waiting.write_all(units.as_bytes()).await.unwrap();
    let said = answer(&mut connect(address).await, VERSION).await;
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    let nothing = tokio::time::timeout(Duration::from_millis(100), waiting.readable()).await;
    assert!(nothing.is_err(), "it is answered before its turn");
    drop(turn);
    let said = answer(&mut waiting, "").await;
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
}

/// What stands behind this in the API's metrics.
async fn metric(socket: &Path, name: &str) -> u64 {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    let ask = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(ask.as_bytes()).await.unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).await.unwrap();
    let line = said.lines().find_map(|line| line.strip_prefix(name)).expect("it is told");
    line.trim().parse().unwrap()
}

#[tokio::test]
async fn a_client_of_the_socket_that_never_reads_its_answer_is_cut_off() {
    const HELD: &str = "fleet_api_budget_used{budget=\"answers\",of=\"local\"}";
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("fleet.sock");
    let limits = Limits { unread: Duration::from_millis(500), ..Limits::default() };
    let api = api(limits, folder.path()).await;
    let stop = CancellationToken::new();
    tokio::spawn(serve(api, listen(&socket, &[], false, None).unwrap(), stop.clone()));

    let text = format!("[Service]\nExecStart=/bin/true\n#{}\n", "x".repeat(800_000));
    let body = serde_json::json!({ "text": text }).to_string();
    let put = format!(
        "PUT /fleet/v1/units/a.service HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let get = "GET /fleet/v1/units/a.service HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let mut said = String::new();
    for (ask, status) in [(put.as_str(), "201"), (get, "200")] {
        let mut stream = UnixStream::connect(&socket).await.unwrap();
        stream.write_all(ask.as_bytes()).await.unwrap();
        said.clear();
        stream.read_to_string(&mut said).await.unwrap();
        assert!(said.starts_with(&format!("HTTP/1.1 {status}")), "{said}");
    }
    // In pieces, and whole.
    let unit: serde_json::Value =
        serde_json::from_str(said.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(unit["text"], text);

    let mut silent = UnixStream::connect(&socket).await.unwrap();
    silent.write_all(get.as_bytes()).await.unwrap();
    let deadline = tokio::time::Instant::now() + SOON;
    while metric(&socket, HELD).await == 0 {
        assert!(tokio::time::Instant::now() < deadline, "it is not counted");
    }
    while metric(&socket, HELD).await > 0 {
        assert!(tokio::time::Instant::now() < deadline, "it is kept for ever");
    }
    let mut rest = Vec::new();
    // What the kernel has of it, and no more.
    let _ = silent.read_to_end(&mut rest).await;
    assert!(rest.len() < 800_000, "{} bytes", rest.len());
    stop.cancel();
}
