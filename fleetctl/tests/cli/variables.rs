//! The variables of the environment: each sets its option, the command line wins, and an empty one
//! is none.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;

use crate::session::Session;

/// A variable; a value of it, and what fleetctl says then; an option that wins, and what fleetctl
/// says then. `SAYS` is what the ssh of the test says: its own arguments.
const TABLE: &[(&str, &str, &str, &str, &str)] = &[
    (
        "ENDPOINT",
        "unix:///by-variable",
        "GET unix:///by-variable/",
        "--endpoint=unix:///by-option",
        "GET unix:///by-option/",
    ),
    (
        "CA_FILE",
        "/by-variable",
        "/by-variable: no such file",
        "--ca-file=/by-option",
        "/by-option: no such file",
    ),
    (
        "CERT_FILE",
        "/by-variable",
        "/by-variable: no such file",
        "--cert-file=/by-option",
        "/by-option: no such file",
    ),
    (
        "KEY_FILE",
        "/by-variable",
        "/by-variable: no such file",
        "--key-file=/by-option",
        "/by-option: no such file",
    ),
    ("COLOR", "always", "\u{1b}[1mMACHINE", "--color=never", "MACHINE\t"),
    ("JSON", "1", "\"id\":", "--json=false", "MACHINE"),
    ("DEBUG", "true", "DEBUG: GET", "--debug=false", ""),
    (
        "TUNNEL",
        "by-variable",
        "cannot connect to by-variable over ssh",
        "--tunnel=by-option",
        "cannot connect to by-option over ssh",
    ),
    ("SSH_USERNAME", "by-variable", "-l by-variable", "--ssh-username=by-option", "-l by-option"),
    ("SSH_TIMEOUT", "7", "ConnectTimeout=7", "--ssh-timeout=8", "ConnectTimeout=8"),
    (
        "KNOWN_HOSTS_FILE",
        "by-variable",
        "\"by-variable\"",
        "--known-hosts-file=by-option",
        "\"by-option\"",
    ),
    (
        "STRICT_HOST_KEY_CHECKING",
        "false",
        "StrictHostKeyChecking=no",
        "--strict-host-key-checking=true",
        "StrictHostKeyChecking=ask",
    ),
    (
        "DRIVER",
        "etcd",
        "the driver \"etcd\" is gone",
        "--driver=API",
        "--driver no longer has any effect",
    ),
    (
        "ETCD_KEY_PREFIX",
        "/x/",
        "--etcd-key-prefix no longer has",
        "--etcd-key-prefix=/y/",
        "--etcd-key-prefix no longer has",
    ),
    (
        "REQUEST_TIMEOUT",
        "3",
        "--request-timeout no longer has",
        "--request-timeout=4",
        "--request-timeout no longer has",
    ),
    (
        "ETCD_CAFILE",
        "x",
        "--etcd-cafile no longer has",
        "--etcd-cafile=y",
        "--etcd-cafile no longer has",
    ),
    (
        "ETCD_CERTFILE",
        "x",
        "--etcd-certfile no longer has",
        "--etcd-certfile=y",
        "--etcd-certfile no longer has",
    ),
    (
        "ETCD_KEYFILE",
        "x",
        "--etcd-keyfile no longer has",
        "--etcd-keyfile=y",
        "--etcd-keyfile no longer has",
    ),
    (
        "EXPERIMENTAL_API",
        "true",
        "--experimental-api no longer has",
        "--experimental-api",
        "--experimental-api no longer has",
    ),
];

#[test]
fn each_sets_its_option_the_command_line_wins_and_an_empty_one_is_none() {
    let session = Session::new();
    session
        .file("bin/ssh", "#!/bin/sh\nshift 2 # its log\necho \"$@\"\n")
        .file("cert", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        .file("key", "");
    let executable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(session.path().join("bin/ssh"), executable).expect("an executable");
    let run = |arguments: &str, set: &[(String, &str)]| {
        let mut command = session.command(arguments);
        command.env("PATH", session.path().join("bin")).env("HOME", session.path());
        command.envs(set.iter().map(|(name, value)| (name, value)));
        let output = command.output().expect("fleetctl runs");
        format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    };
    let mut names = BTreeSet::new();
    for (name, value, says, option, option_says) in TABLE {
        let variable = format!("FLEETCTL_{name}");
        let command = match *name {
            "CA_FILE" => "--endpoint=https://127.0.0.1:1 list-machines",
            "CERT_FILE" => "--endpoint=https://127.0.0.1:1 --key-file=key list-machines",
            "KEY_FILE" => "--endpoint=https://127.0.0.1:1 --cert-file=cert list-machines",
            "SSH_USERNAME" | "SSH_TIMEOUT" | "KNOWN_HOSTS_FILE" | "STRICT_HOST_KEY_CHECKING" => {
                "ssh c2e1 true"
            }
            _ => "list-machines",
        };
        let said = run(command, &[(variable.clone(), value)]);
        assert!(said.contains(says), "{variable}={value}: {said}");
        let said = run(&format!("{option} {command}"), &[(variable.clone(), value)]);
        assert!(
            said.contains(option_says) && (option_says.contains(says) || !said.contains(says)),
            "{variable}={value} {option}: {said}"
        );
        if *name != "ENDPOINT" {
            assert_eq!(
                run(command, &[(variable.clone(), "")]),
                run(command, &[]),
                "{variable} is empty"
            );
        }
        names.insert(variable);
    }
    let definition = fleetctl::command();
    let all =
        definition.get_arguments().filter_map(|arg| Some(arg.get_env()?.to_str()?.to_string()));
    assert_eq!(names, all.collect());
}
