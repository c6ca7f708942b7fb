//! Bodies over their limits.

use fleet_core::transfer::MAX_IMPORT_BYTES;
use fleet_core::wire::MAX_BODY_BYTES;
use reqwest::Method;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::server::Server;

/// Sends a body of so many bytes and reads the answer, which may come before all of the body is
/// sent.
async fn send(server: &Server, request: &str, bytes: usize) -> (String, Value) {
    let address = server.origin.strip_prefix("http://").unwrap();
    let (mut answer, mut body) = TcpStream::connect(address).await.unwrap().into_split();
    let head = format!(
        "{request} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: \
            close\r\nContent-Length: {bytes}\r\n\r\n"
    );
    body.write_all(head.as_bytes()).await.unwrap();
    let sending = tokio::spawn(async move {
        // The server hangs up in the middle of it.
        let _ = body.write_all(&vec![b' '; bytes]).await;
        body
    });
    let mut said = Vec::new();
    // What came before the hanging up counts.
    while let Ok(1..) = answer.read_buf(&mut said).await {}
    sending.abort();
    let said = String::from_utf8(said).unwrap();
    let (head, body) = said.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {said}"));
    (head.lines().next().unwrap().to_string(), serde_json::from_str(body).unwrap())
}

#[tokio::test]
async fn a_body_over_its_limit_is_refused_with_the_limit_that_it_met() {
    let server = Server::start().await;
    for (request, limit, expected) in [
        (
            "PUT /fleet/v1/units/a.service",
            MAX_BODY_BYTES,
            "the request is larger than 4194304 bytes (a unit file may have 1 MiB)",
        ),
        (
            "POST /fleet/v1/import?dryRun=true",
            MAX_IMPORT_BYTES,
            "the import is larger than 67108864 bytes (64 MiB); import its units in several parts",
        ),
    ] {
        let (status, body) = send(&server, request, limit + 1).await;
        assert_eq!(status, "HTTP/1.1 413 Payload Too Large");
        assert_eq!(body["error"]["message"], expected);
        // At the limit it is read, and is no JSON.
        let (status, body) = send(&server, request, limit).await;
        assert_eq!(status, "HTTP/1.1 400 Bad Request", "{body}");
    }
}

#[tokio::test]
async fn a_body_of_very_many_values_is_refused_before_it_is_read() {
    let server = Server::start().await;
    let numbers = format!("{{\"x\":[{}0]}}", "0,".repeat(1_000_000));
    for (method, path) in [(Method::PUT, "units/a.service"), (Method::POST, "import?dryRun=true")] {
        let request = fleet_tests::http()
            .build()
            .unwrap()
            .request(method, format!("{}/fleet/v1/{path}", server.origin))
            .header("content-type", "application/json")
            .body(numbers.clone());
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 413, "{path}");
        let body: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        let expected = "the request holds more than 1000000 JSON values";
        assert_eq!(body["error"]["message"], expected);
    }
}
