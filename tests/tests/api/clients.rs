//! Programs of others against this API: Google's client made of the discovery document; a validator
//! and schemathesis with the OpenAPI document.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use tokio::process::Command;

use super::server::Server;

/// How many requests schemathesis makes an operation in its random part, at most. All of it takes
/// about a minute.
const EXAMPLES: &str = "40";

/// Where these requests are always the same, a failure is the change's that shows it. Others:
/// `FLEET_TEST_SEED=7`.
const SEED: &str = "1";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("python")
}

/// A program of the pinned Python tools, which are installed if they are not there.
async fn tool(name: &str) -> Command {
    let setup = Command::new("sh")
        .arg(folder().join("setup.sh"))
        .stderr(Stdio::inherit())
        .output()
        .await
        .expect("sh");
    assert!(setup.status.success(), "the Python tools cannot be installed; the last line says why");
    let venv = String::from_utf8(setup.stdout).expect("a path");
    let mut command = Command::new(Path::new(venv.trim()).join("bin").join(name));
    command.kill_on_drop(true).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// Runs it to its end; whatever it said is shown if it fails.
async fn succeed(command: &mut Command) {
    let output = command.output().await.expect("it runs");
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_generated_from_the_discovery_document_works() {
    let server = Server::start().await;
    server.run("hello.service").await;
    for prefix in ["fleet/v1", "v1-alpha"] {
        succeed(
            tool("python")
                .await
                .arg(folder().join("discovery_client.py"))
                .args([&server.origin, prefix]),
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_openapi_document_keeps_to_its_standard() {
    let server = Server::start().await;
    let document = fleet_tests::http()
        .build()
        .unwrap()
        .get(format!("{}/fleet/v1/openapi.json", server.origin))
        .send()
        .await
        .expect("an answer");
    let file = tempfile::NamedTempFile::with_suffix(".json").expect("a file");
    std::fs::write(file.path(), document.bytes().await.expect("a body")).expect("written");
    succeed(tool("openapi-spec-validator").await.args(["--schema", "3.1"]).arg(file.path())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_answers_as_the_openapi_document_says() {
    let server = Arc::new(Server::start().await);
    server.generate_by("exit 0"); // without a generator the answer is a 502, as it should be
    server.run("hello.service").await;
    server.run("web@1.service").await;
    let leader = tokio::spawn(Arc::clone(&server).lead());
    let nowhere = tempfile::tempdir().expect("a folder");
    let mut fuzzer = tool("st").await;
    fuzzer
        .args(["run", &format!("{}/fleet/v1/openapi.json", server.origin)])
        // It never ends once it is asked well.
        .args(["--exclude-operation-id", "followUnits"])
        // Left out: schemas say less than fleet 1.0's rules, some of it is taken that they forbid,
        // and its discovery refuses methods with 400.
        .args(["--checks", "all"])
        .args([
            "--exclude-checks",
            "positive_data_acceptance,negative_data_rejection,unsupported_method",
        ])
        .args([
            "--max-examples",
            EXAMPLES,
            "--seed",
            &std::env::var("FLEET_TEST_SEED").unwrap_or(SEED.into()),
        ])
        .args(["--request-timeout", "10", "--continue-on-failure", "--no-color"])
        .env("SCHEMATHESIS_HOOKS", "hooks")
        .env("PYTHONPATH", folder())
        .current_dir(nowhere.path()); // it leaves files where it runs
    succeed(&mut fuzzer).await;
    leader.abort();
}
