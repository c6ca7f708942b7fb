//! What shells offer at TAB, asked as the scripts of the packages ask.

use std::process::Command;

use crate::session::{HELLO, Session, WEB};

/// What bash puts after the last break of the word, with the packages' script.
fn bash(session: &Session, line: &str) -> Vec<String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/dist/fleetctl.bash");
    let ask = r#"source "$1"; COMP_LINE=$2; COMP_POINT=${#2}; compopt() { :; }; _fleetctl; printf '%s\n' "${COMPREPLY[@]}""#;
    shell(session, &["bash", "--norc", "-c", ask, "bash", script, line])
}

/// What zsh offers, in its order.
fn zsh(session: &Session, line: &str) -> Vec<String> {
    // The names that zsh's own `_describe` would be given; each may have a text after a colon.
    let ask = r#"compdef() { :; }; _describe() { local name=$3; print -l -- ${${(P)name}%%:*}; }
        source <(COMPLETE=zsh fleetctl); words=("${(@s: :)1}"); CURRENT=$#words; _clap_dynamic_completer_fleetctl"#;
    shell(session, &["zsh", "-f", "-c", ask, "zsh", line])
}

/// What fish offers; its files have no other names than ours.
fn fish(session: &Session, line: &str) -> Vec<String> {
    let ask = "COMPLETE=fish fleetctl | source; complete --do-complete $argv[1] | string split \
        --fields 1 \\t";
    shell(session, &["fish", "--no-config", "-c", ask, line])
}

fn shell(session: &Session, words: &[&str]) -> Vec<String> {
    let folder = std::path::Path::new(env!("CARGO_BIN_EXE_fleetctl"))
        .parent()
        .expect("a folder")
        .display()
        .to_string();
    let output = Command::new(words[0])
        .args(&words[1..])
        .current_dir(session.path())
        .env("PATH", format!("{folder}:/usr/bin:/bin"))
        .env("HOME", session.path())
        .env("FLEETCTL_ENDPOINT", session.endpoint())
        .output()
        .unwrap_or_else(|problem| {
            panic!("{}: {problem}; sh tests/lab/setup.sh --packages-only installs it", words[0])
        });
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout)
        .expect("text")
        .lines()
        .map(str::to_string)
        .filter(|line| !line.is_empty())
        .collect()
}

fn session() -> Session {
    let session = Session::new();
    session
        .file("hello.service", HELLO)
        .file("web@.service", WEB)
        .file("notes.txt", "")
        .file("units/db.service", HELLO);
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
    assert_eq!(
        bash(&session, "fleetctl cat "),
        ["hello.service", "web@.service", "web@10.service", "web@11.service"]
    );
    assert_eq!(bash(&session, "fleetctl scale w"), ["web="]);
    // bash breaks words at @, and puts the answer after it.
    assert_eq!(bash(&session, "fleetctl status web@1"), ["10.service", "11.service"]);
}

#[test]
fn bash_completes_ids_of_machines() {
    let session = Session::of_three();
    let id = "c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3";
    assert_eq!(bash(&session, "fleetctl ssh c"), [id]);
    assert_eq!(bash(&session, "fleetctl ssh --machine c"), [id]);
    assert_eq!(bash(&session, "fleetctl ssh ").len(), 3);
}

#[test]
fn zsh_and_fish_offer_the_same() {
    let session = session();
    for shell in [zsh, fish] {
        assert_eq!(shell(&session, "fleetctl sub"), ["submit"]);
        assert_eq!(shell(&session, "fleetctl list-units --no-l"), ["--no-legend"]);
        assert_eq!(shell(&session, "fleetctl stop he"), ["hello.service"]);
        assert_eq!(shell(&session, "fleetctl status web@1"), ["web@10.service", "web@11.service"]);
        assert_eq!(shell(&session, "fleetctl ssh c2"), ["c2e1b5180a5ec645aa037c911a0f20bb"]);
    }
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
