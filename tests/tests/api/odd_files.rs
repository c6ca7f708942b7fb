//! Unit files as other systems make them, and what an editor left in them: kept to the byte, the
//! same unit to fleet.

use serde_json::{Value, json};

use super::server::Server;

/// The file of fleet 1.0's transcripts, and the hash that it printed.
const HELLO: &str = "[Unit]\nDescription=Hello World\n\n[Service]\nExecStart=/bin/bash -c \"while \
    true; do echo \
        Hello, World!; sleep 2; done\"\n";
const HASH: &str = "12538882634ecdba3dc6ddab70473ebc073de4e7";

async fn put(server: &Server, name: &str, body: Value) -> (u16, Value) {
    let request = fleet_tests::http()
        .build()
        .unwrap()
        .put(format!("{}/fleet/v1/units/{name}", server.origin));
    let answer = request
        .header("content-type", "application/json")
        .body(body.to_string())
        .send()
        .await
        .unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap_or_default())
}

async fn get(server: &Server, name: &str) -> Value {
    fleet_tests::http()
        .build()
        .unwrap()
        .get(format!("{}/fleet/v1/units/{name}", server.origin))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap()
}

#[tokio::test]
async fn what_was_submitted_is_kept_to_the_byte_and_hashed_as_fleet_1_0_did() {
    let server = Server::start().await;
    for (what, text) in [
        ("plain", HELLO.to_string()),
        ("comments", format!("# why\n{}", HELLO.replace("[Service]", "; more\n[Service]"))),
        ("spaces", HELLO.replace("Description=Hello World", "  Description =  Hello World  ")),
        ("crlf", HELLO.replace('\n', "\r\n")),
        ("no-newline", HELLO.trim_end().to_string()),
        ("bom", format!("\u{feff}{HELLO}")),
        ("text-before", format!("written by hand\n{HELLO}")),
    ] {
        let name = format!("{what}.service");
        assert_eq!(put(&server, &name, json!({"text": text})).await.0, 201, "{what}");
        let unit = get(&server, &name).await;
        assert_eq!(
            (unit["text"].as_str().unwrap(), unit["hash"].as_str().unwrap()),
            (text.as_str(), HASH),
            "{what}"
        );
        // Only comments and formatting changed: the same unit, its newest text kept, and nothing is
        // unloaded.
        assert_eq!(
            put(&server, &name, json!({"desiredState": "loaded", "text": HELLO})).await.0,
            204,
            "{what}"
        );
        let unit = get(&server, &name).await;
        assert_eq!(
            (unit["text"].as_str().unwrap(), &unit["revision"]),
            (HELLO, &json!(1)),
            "{what}"
        );
    }
    // From options, as old clients send them, the text is fleet 1.0's normal form.
    let unit = get(&server, "plain.service").await;
    assert_eq!(put(&server, "options.service", json!({"options": unit["options"]})).await.0, 201);
    assert_eq!(get(&server, "options.service").await["text"], HELLO);
}

#[tokio::test]
async fn long_lines_are_taken_and_nul_bytes_are_not() {
    let server = Server::start().await;
    let long = format!("[Service]\nExecStart=/bin/echo {}\n", "x".repeat(2_049));
    assert_eq!(put(&server, "long.service", json!({"text": long})).await.0, 201);
    assert_eq!(get(&server, "long.service").await["text"], long);
    for bad in ["[Service]\nExecStart=/bin/tr\0ue\n", "[Service]\n# a\0b\nExecStart=/bin/true\n"] {
        let (status, body) = put(&server, "bad.service", json!({"text": bad})).await;
        assert_eq!(
            (status, body["error"]["message"].as_str().unwrap()),
            (
                400,
                "line 2: a NUL \
            byte: this is not a text file"
            )
        );
    }
    let options =
        json!({"options": [{"section": "Service", "name": "ExecStart", "value": "/bin/tr\0ue"}]});
    assert_eq!(put(&server, "bad.service", options).await.0, 400);
}
