//! Unit files as other systems make them, and what an editor left in them: kept to the byte, the
//! same unit to fleet.

use fleet_core::model::UnitRecord;
use fleet_core::name::UnitName;
use serde_json::{Value, json};

use super::server::Server;

/// The file of fleet 1.0's transcripts, and the hash that it printed.
const HELLO: &str = "[Unit]\nDescription=Hello World\n\n[Service]\nExecStart=/bin/bash -c \"while \
    true; do echo Hello, World!; sleep 2; done\"\n";
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
            (400, "line 2: a NUL byte: this is not a text file")
        );
    }
    let options =
        json!({"options": [{"section": "Service", "name": "ExecStart", "value": "/bin/tr\0ue"}]});
    assert_eq!(put(&server, "bad.service", options).await.0, 400);
}

/// A later version refuses what an earlier one took.
#[tokio::test]
async fn a_text_that_is_stored_already_is_taken_again_and_a_new_one_with_its_fault_is_refused() {
    const OLD: &str = "# by hand\n[Unit]\nRefuseManualStop=yes\n[Service]\nExecStart=/bin/a\n";
    const FAULT: &str = "RefuseManualStop=yes: systemd would refuse every stop";
    let server = Server::start().await;
    for name in ["a.service", "w@.service", "app-.service"].map(UnitName::trusted) {
        server.store.put_unit(&UnitRecord::new(name, OLD), None, true).await.unwrap();
    }
    let launched = json!({"text": OLD, "desiredState": "launched"});
    let options = json!({"desiredState": "loaded", "options": [
        {"section": "Unit", "name": "RefuseManualStop", "value": "yes"},
        {"section": "Service", "name": "ExecStart", "value": "/bin/a"},
    ]});
    let template = json!({"desiredState": "inactive", "options": options["options"]});
    let changed = json!({"text": OLD.replace("/bin/a", "/bin/b")});
    let message = |body: &Value| body["error"]["message"].as_str().unwrap_or_default().to_string();
    for (name, body, status, said) in [
        ("a.service", &launched, 204, ""),
        ("app-.service", &launched, 204, ""),
        ("w@1.service", &launched, 201, ""), // its template's text
        ("a.service", &changed, 400, "line 3: "),
        ("app-.service", &changed, 400, "app-.service stands for every"),
        ("b.service", &launched, 400, "line 3: "),
        ("b.service", &options, 400, FAULT),
        ("w@.service", &template, 204, ""), // its options, without the comment
    ] {
        let (got, answer) = put(&server, name, body.clone()).await;
        assert_eq!(got, status, "{name} {body}: {answer}");
        assert!(message(&answer).starts_with(said), "{name} {body}: {answer}");
    }
    assert_eq!(get(&server, "a.service").await["desiredState"], "launched");

    let good = json!({"text": OLD.replace("RefuseManualStop=yes", "After=b.service")});
    assert_eq!(put(&server, "a.service", good).await.0, 201);
    let rolled = fleet_tests::http()
        .build()
        .unwrap()
        .post(format!("{}/fleet/v1/units/a.service/rollback", server.origin))
        .json(&json!({}))
        .send()
        .await
        .unwrap();
    let warning = rolled.headers().get("x-fleet-warning").map(|it| it.to_str().unwrap().to_owned());
    assert_eq!(rolled.status(), 200);
    let expected =
        format!("taken because it is stored already; a new text is refused: line 3: {FAULT}");
    assert!(warning.as_ref().is_some_and(|it| it.starts_with(&expected)), "{warning:?}");
    assert_eq!(get(&server, "a.service").await["text"], OLD);
}
