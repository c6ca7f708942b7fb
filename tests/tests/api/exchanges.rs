//! What fleet 1.0 answered to each request of its transcripts, in `exchanges.txt`; where it was at
//! fault, what it promised.

use fleet_core::name::UnitName;
use serde_json::Value;

use super::server::{MACHINE, Server};

/// One request and the answer expected.
#[derive(Debug, Default)]
struct Exchange {
    method: String,
    path: String,
    content_type: String,
    body: String,
    status: u16,
    /// `-` for none.
    answer_type: String,
    answer: String,
}

/// `exchanges.txt`: a request `METHOD PATH [content-type]`, its body after `> `, the status with
/// the answer's content type, and the answer's body after `< `. Lines with `#` are notes; `!plan`
/// and `!report UNIT…` are what the cluster does meanwhile.
const FLEET_1_0: &str = include_str!("exchanges.txt");

/// The same for what is ours.
const ADDITIONS: &str = include_str!("additions.txt");

#[tokio::test]
async fn every_exchange_of_fleet_1_0_is_answered_as_it_was() {
    all_are_answered(FLEET_1_0).await;
}

#[tokio::test]
async fn availability_revisions_and_rollback_are_answered_as_documented() {
    all_are_answered(ADDITIONS).await;
}

/// fleet 1.0 answered 405.
#[tokio::test]
async fn head_is_answered_as_get_without_the_body_and_allow_says_so() {
    let server = Server::start().await;
    let client = fleet_tests::http().build().unwrap();
    for path in
        ["machines", "units", "state", "version", "discovery", "units/nosuch.service", "nosuch"]
    {
        let url = format!("{}/fleet/v1/{path}", server.origin);
        let (got, head) =
            (client.get(&url).send().await.unwrap(), client.head(&url).send().await.unwrap());
        assert_eq!(got.status(), head.status(), "{path}");
        for name in ["content-type", "content-length", "server"] {
            assert_eq!(got.headers().get(name), head.headers().get(name), "{path} {name}");
        }
        assert_eq!(head.text().await.unwrap(), "", "{path}");
    }
    for (path, allow) in [
        ("state", "GET, HEAD"),
        ("machines", "GET, HEAD, PATCH"),
        ("units/a.service", "GET, HEAD, PUT, DELETE"),
        ("units/a.service/restart", "POST"),
    ] {
        let answer = client
            .request(reqwest::Method::TRACE, format!("{}/fleet/v1/{path}", server.origin))
            .send()
            .await
            .unwrap();
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["allow"]),
            (405, &allow.parse().unwrap()),
            "{path}"
        );
        assert!(!answer.text().await.unwrap().contains("HEAD"), "fleet 1.0's sentence");
    }
    // What only runs needs no GET.
    let restart = client
        .head(format!("{}/fleet/v1/units/a.service/restart", server.origin))
        .send()
        .await
        .unwrap();
    assert_eq!(restart.status(), 405);
}

async fn all_are_answered(script: &str) {
    let server = Server::start().await;
    let client = fleet_tests::http().build().unwrap();
    let script = script.replace("$MACHINE", MACHINE);
    let mut wrong = Vec::new();
    for block in script.split("\n\n") {
        let mut exchange = Exchange::default();
        for line in block.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            match line.split_once(' ').unwrap_or((line, "")) {
                ("!plan", _) => server.plan().await,
                ("!report", units) => {
                    server.report(&units.split_whitespace().collect::<Vec<_>>()).await
                }
                (">", body) => exchange.body = body.into(),
                ("<", body) => exchange.answer = body.into(),
                (status, kind) if status.bytes().all(|b| b.is_ascii_digit()) => {
                    exchange.status = status.parse().unwrap();
                    exchange.answer_type = kind.into();
                }
                (method, rest) => {
                    let (path, kind) = rest.split_once(' ').unwrap_or((rest, ""));
                    (exchange.method, exchange.path, exchange.content_type) =
                        (method.into(), path.into(), kind.into());
                }
            }
        }
        if !exchange.method.is_empty()
            && let Err(problem) = check(&client, &server.origin, &exchange).await
        {
            wrong.push(format!(
                "{} {} {}\n    {problem}",
                exchange.method, exchange.path, exchange.body
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

async fn check(client: &reqwest::Client, origin: &str, exchange: &Exchange) -> Result<(), String> {
    let method = reqwest::Method::from_bytes(exchange.method.as_bytes()).unwrap();
    let mut request =
        client.request(method, format!("{origin}{}", exchange.path)).body(exchange.body.clone());
    if !exchange.content_type.is_empty() {
        request = request.header("content-type", &exchange.content_type);
    }
    let answer = request.send().await.map_err(|error| error.to_string())?;
    let header = |name: &str| {
        answer.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or("-").to_string()
    };
    let (status, kind, server, length) = (
        answer.status().as_u16(),
        header("content-type"),
        header("server"),
        header("content-length"),
    );
    let body = answer.text().await.map_err(|error| error.to_string())?;
    let seen = format!("{status} {kind} {body}");
    if status != exchange.status || kind != exchange.answer_type {
        return Err(format!("expected {} {}, got {seen}", exchange.status, exchange.answer_type));
    }
    if !server.starts_with("fleetd/") {
        return Err(format!("Server: {server}"));
    }
    // As fleet 1.0: no line end after the document, a length also for an empty body, none with 204.
    let expected_length = if status == 204 { "-".to_string() } else { body.len().to_string() };
    if body.ends_with('\n') || length != expected_length {
        return Err(format!("Content-Length: {length} of {body:?}"));
    }
    let same = match (
        serde_json::from_str::<Value>(&exchange.answer),
        serde_json::from_str::<Value>(&body),
    ) {
        // Errors are the same to the letter; other documents may hold more than they did.
        (Ok(expected), Ok(got)) if status < 300 => holds(&got, &expected),
        _ => exchange.answer == body,
    };
    if same { Ok(()) } else { Err(format!("expected {}, got {body}", exchange.answer)) }
}

/// Whether `got` has all that is in `expected`; lists have the same length.
fn holds(got: &Value, expected: &Value) -> bool {
    match (got, expected) {
        (Value::Object(got), Value::Object(expected)) if expected.is_empty() => got.is_empty(),
        (Value::Object(got), Value::Object(expected)) => {
            expected.iter().all(|(key, value)| got.get(key).is_some_and(|got| holds(got, value)))
        }
        (Value::Array(got), Value::Array(expected)) => {
            got.len() == expected.len()
                && got.iter().zip(expected).all(|(got, expected)| holds(got, expected))
        }
        _ => got == expected,
    }
}

#[tokio::test]
async fn pages_end_without_an_empty_one() {
    let server = Server::start().await;
    let client = fleet_tests::http().build().unwrap();
    for number in 0..200 {
        let body = r#"{"options":[{"section":"Service","name":"ExecStart","value":"/bin/true"}]}"#;
        let request =
            client.put(format!("{}/fleet/v1/units/p{number}.service", server.origin)).body(body);
        assert_eq!(
            request.header("content-type", "application/json").send().await.unwrap().status(),
            201
        );
    }
    let page = async |query: &str| -> (usize, String) {
        let url = format!("{}/fleet/v1/units{query}", server.origin);
        let page: Value = client.get(url).send().await.unwrap().json().await.unwrap();
        (
            page["units"].as_array().map_or(0, Vec::len),
            page["nextPageToken"].as_str().unwrap_or("").to_string(),
        )
    };
    assert_eq!(page("").await, (100, "ZAACAA==".to_string()));
    assert_eq!(page("?nextPageToken=ZAACAA==").await, (100, String::new()));
    assert_eq!(page("?nextPageToken=ZAADAA==").await, (0, String::new()));
}

/// It sets `loaded`, waits until the state is `launched`, which of fleet 1.0 was the old one, and
/// sets `launched`.
#[tokio::test]
async fn fleet_1_0s_client_restarts_a_running_unit() {
    let server = Server::start().await;
    server.run("hello.service").await;
    let url = format!("{}/fleet/v1/units/hello.service", server.origin);
    let client = fleet_tests::http().user_agent("google-api-go-client/0.5").build().unwrap();
    let set = async |state: &str| {
        let request = client.put(&url).header("content-type", "application/json");
        let body = format!("{{\"desiredState\":\"{state}\",\"name\":\"hello.service\"}}");
        assert_eq!(request.body(body).send().await.unwrap().status(), 204, "{state}");
    };
    let restarts = async || {
        server
            .store
            .unit(&UnitName::trusted("hello.service"))
            .await
            .unwrap()
            .0
            .unwrap()
            .value
            .restart
    };
    set("loaded").await;
    server.plan().await;
    let unit: Value = client.get(&url).send().await.unwrap().json().await.unwrap();
    assert_eq!(
        (&unit["currentState"], &unit["desiredState"]),
        (&"launched".into(), &"loaded".into())
    );
    assert_eq!(restarts().await, 0);
    set("launched").await;
    assert_eq!(restarts().await, 1);
    set("launched").await;
    assert_eq!(restarts().await, 1, "it was launched already");
}
