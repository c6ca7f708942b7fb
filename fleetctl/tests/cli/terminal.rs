//! What a terminal obeys is shown there, and goes through a pipe byte for byte: labels, texts,
//! words of units and of fleetd.

use std::process::{Command, Stdio};

use crate::session::Session;

/// Sets a terminal's title, and clears it.
const ESCAPES: &str = "\u{1b}]0;owned\u{7}\u{1b}[2J\u{9b}31m";

/// The same as it is shown.
const SHOWN: &str = "\\x1b]0;owned\\x07\\x1b[2J\\xc2\\x9b31m";

/// A cluster that says such things wherever it can.
fn hostile() -> Session {
    let label = format!("node={ESCAPES}");
    let session =
        Session::with_machines(&[("c2e1b5180a5ec645aa037c911a0f20bb", "127.0.0.1", &label)]);
    session.file(
        "evil.service",
        format!("[Unit]\nDescription={ESCAPES}\n[Service]\nExecStart=/bin/a\n"),
    );
    session.run("start evil.service");
    session
}

/// What a terminal is sent.
fn at_a_terminal(session: &Session, arguments: &str) -> String {
    let template = session.command("");
    let mut command = Command::new("script");
    for (name, value) in template.get_envs().filter_map(|(name, value)| Some((name, value?))) {
        command.env(name, value);
    }
    let line = format!("{} {arguments}", env!("CARGO_BIN_EXE_fleetctl"));
    command.args(["-qec", &line, "/dev/null"]).current_dir(session.path()).stdin(Stdio::null());
    String::from_utf8(command.output().expect("script runs").stdout).expect("UTF-8")
}

#[test]
fn on_a_terminal_escapes_are_shown_and_in_a_pipe_every_byte_goes_through() {
    let session = hostile();
    let commands = ["list-machines", "list-unit-files --fields=unit,desc", "cat evil"];
    for arguments in commands {
        let terminal = at_a_terminal(&session, arguments);
        assert!(
            terminal.contains(SHOWN) && !terminal.contains(ESCAPES),
            "{arguments}: {terminal:?}"
        );
        let output = session.command(arguments).output().expect("it runs");
        let piped = String::from_utf8_lossy(&output.stdout);
        assert!(piped.contains(ESCAPES) && !piped.contains(SHOWN), "{arguments}: {piped:?}");
    }
    let json = at_a_terminal(&session, "list-machines --json");
    assert!(json.contains("\\u001b]0;owned\\u0007\\u001b[2J\\u009b31m"), "{json:?}");
}

#[test]
fn what_machines_say_of_units_and_errors_are_shown_in_the_same_way() {
    let session = hostile();
    session.fake.cluster().says = Some(format!("Status: {ESCAPES}\n"));
    for arguments in ["status evil", "journal evil", "journal -o cat evil"] {
        // What went wrong comes in a line of a journal.
        let in_journal = arguments.starts_with("journal");
        session.fake.cluster().problem = in_journal.then(|| "it says \u{9b}31m".to_string());
        let terminal = at_a_terminal(&session, arguments);
        assert!(terminal.contains(SHOWN), "{arguments}: {terminal:?}");
        assert!(
            !in_journal || terminal.contains("it says \\xc2\\x9b31m"),
            "{arguments}: {terminal:?}"
        );
        let colours = terminal.replace("\u{1b}[1;31mError:\u{1b}[0m", "");
        assert!(!colours.contains(['\u{1b}', '\u{9b}', '\u{7}']), "{arguments}: {terminal:?}");
        let output = session.command(arguments).output().expect("it runs");
        assert!(String::from_utf8_lossy(&output.stdout).contains(ESCAPES), "{arguments}");
    }
}
