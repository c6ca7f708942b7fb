//! What shells offer at TAB, asked as the scripts of the packages ask.

use std::process::Command;

use crate::session::{HELLO, Session, WEB};

/// What bash puts after the last break of the word, with the packages' script.
fn bash(session: &Session, line: &str) -> Vec<String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/dist/fleetctl.bash");
    let ask = r#"source "$1"; COMP_LINE=$2; COMP_POINT=${#2}; compopt() { :; }; _fleetctl; printf '%s\n' "${COMPREPLY[@]}""#;
    let folder = std::path::Path::new(env!("CARGO_BIN_EXE_fleetctl")).parent().expect("a folder").display().to_string();
    let output = Command::new("bash")
        .args(["--norc", "-c", ask, "bash", script, line])
        .current_dir(session.path())
        .env("PATH", format!("{folder}:/usr/bin:/bin"))
        .env("FLEETCTL_ENDPOINT", session.endpoint())
        .output()
        .expect("bash runs");
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").lines().map(str::to_string).filter(|line| !line.is_empty()).collect()
}

fn session() -> Session {
    let session = Session::new();
    session.file("hello.service", HELLO).file("web@.service", WEB).file("notes.txt", "").file("units/db.service", HELLO);
    session.run("submit hello.service web@.service");
    session.run("start web@10");
    session.run("start web@11");
    session
}

#[test]
fn bash_completes_commands_and_options() {
    let session = session();
    assert_eq!(bash(&session, "fleetctl sub"), ["submit"]);
    assert_eq!(bash(&session, "fleetctl list-units --no-l"), ["--no-legend"]);
}

#[test]
fn bash_completes_names_of_units_from_the_cluster() {
    let session = session();
    assert_eq!(bash(&session, "fleetctl stop he"), ["hello.service"]);
    assert_eq!(bash(&session, "fleetctl cat "), ["hello.service", "web@.service", "web@10.service", "web@11.service"]);
    assert_eq!(bash(&session, "fleetctl scale w"), ["web="]);
    // bash breaks words at @, and puts the answer after it.
    assert_eq!(bash(&session, "fleetctl status web@1"), ["10.service", "11.service"]);
}

#[test]
fn start_also_completes_unit_files_and_folders() {
    let session = session();
    assert_eq!(bash(&session, "fleetctl start un"), ["units/"]);
    assert_eq!(bash(&session, "fleetctl start units/"), ["units/db.service"]);
    assert!(!bash(&session, "fleetctl start ").contains(&"notes.txt".to_string()));
}

#[test]
fn the_endpoint_typed_is_the_one_asked_and_one_that_is_away_offers_nothing() {
    let session = session();
    assert!(bash(&session, "fleetctl --endpoint unix:///nonexistent stop he").is_empty());
    let line = format!("fleetctl --endpoint {} stop he", session.endpoint());
    assert_eq!(bash(&session, &line), ["hello.service"]);
}
