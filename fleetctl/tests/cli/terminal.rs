//! What a terminal obeys is shown there, and goes through a pipe byte for byte: labels, texts,
//! words of units and of fleetd.

use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use expect_test::expect;

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
    at_a_terminal_with(session, &[], arguments)
}

/// The same with variables of the environment.
fn at_a_terminal_with(session: &Session, set: &[(&str, &str)], arguments: &str) -> String {
    let template = session.command("");
    let mut command = Command::new("script");
    command.env("TERM", "xterm").env_remove("NO_COLOR").envs(set.iter().copied());
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

/// Two units in a state for three minutes and a half.
fn busy() -> Session {
    let session = Session::of_three();
    session.file("a-unit-with-a-long-name.service", "[Service]\nExecStart=/bin/a\n");
    session.file("bad.service", "[Service]\nExecStart=/bin/bad\n");
    session.run("start --no-block a-unit-with-a-long-name bad");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
    session.fake.cluster().since_ms = Some(now as u64 - 210_000);
    session
}

/// What is between the lines of a terminal.
fn lines(text: &str) -> String {
    text.replace("\r\n", "\n")
}

#[test]
fn on_a_terminal_columns_are_aligned_states_have_colours_and_ages() {
    let session = busy();
    let seen = lines(&at_a_terminal(&session, "list-units"));
    expect![[r#"
        \x1b[1mUNIT\x1b[0m                             \x1b[1mMACHINE\x1b[0m               \x1b[1mACTIVE\x1b[0m     \x1b[1mSUB\x1b[0m
        a-unit-with-a-long-name.service  a1a1a1a1.../10.0.0.1  \x1b[32mactive\x1b[0m \x1b[2m3m\x1b[0m  running
        bad.service                      a1a1a1a1.../10.0.0.1  \x1b[31mfailed\x1b[0m \x1b[2m3m\x1b[0m  failed
    "#]]
    .assert_eq(&seen.replace('\u{1b}', "\\x1b"));
    let plain = "UNIT                             MACHINE               ACTIVE     SUB\n\
        a-unit-with-a-long-name.service  a1a1a1a1.../10.0.0.1  active 3m  running\n\
        bad.service                      a1a1a1a1.../10.0.0.1  failed 3m  failed\n";
    for (set, arguments) in [
        (("NO_COLOR", "1"), "list-units"),
        (("TERM", "dumb"), "list-units"),
        (("FLEETCTL_COLOR", "never"), "list-units"),
        (("TERM", "xterm"), "list-units --color=never"),
    ] {
        assert_eq!(lines(&at_a_terminal_with(&session, &[set], arguments)), plain, "{set:?}");
    }
    let asked = at_a_terminal_with(&session, &[("NO_COLOR", "1")], "list-units --color=always");
    assert_eq!(lines(&asked), seen, "what the command line asks for wins");
    let machines = at_a_terminal_with(&session, &[("NO_COLOR", "1")], "list-machines");
    expect![[r#"
        MACHINE      IP        STATE  METADATA
        a1a1a1a1...  10.0.0.1  up 3m  region=us
        b2b2b2b2...  10.0.0.2  up 3m  region=us
        c3c3c3c3...  10.0.0.3  up 3m  -
    "#]]
    .assert_eq(&lines(&machines));
}

#[test]
fn without_a_legend_and_in_a_pipe_a_list_is_that_of_fleet_1_0() {
    let session = busy();
    let piped = |arguments: &str| {
        let output = session.command(arguments).output().expect("it runs");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let bare = piped("list-units --no-legend");
    expect![[r#"
        a-unit-with-a-long-name.service	a1a1a1a1.../10.0.0.1	active	running
        bad.service			a1a1a1a1.../10.0.0.1	failed	failed
    "#]]
    .assert_eq(&bare);
    assert_eq!(lines(&at_a_terminal(&session, "list-units --no-legend")), bare);
    assert!(piped("list-units").ends_with(&bare));
    let coloured = piped("list-units --color=always");
    assert_eq!(coloured, lines(&at_a_terminal(&session, "list-units")), "as on a terminal");
}
