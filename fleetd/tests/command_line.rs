//! The program as it is run: its flags, fleet 1.0's too, and `--check-config`.

use std::process::{Command, Output};

fn fleetd(args: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fleetd"));
    let Output { status, stdout, stderr } = command.args(args).env_clear().output().unwrap();
    (
        status.code().unwrap(),
        String::from_utf8(stdout).unwrap() + &String::from_utf8(stderr).unwrap(),
    )
}

#[test]
fn the_version_is_asked_for_in_three_ways() {
    let (code, said) = fleetd(&["--version"]);
    assert!(code == 0 && said.starts_with("fleetd "), "{said}");
    assert_eq!([fleetd(&["-version"]), fleetd(&["version"])], [(0, said.clone()), (0, said)]);
}

#[test]
fn check_config_names_file_and_line_of_every_problem() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("fleetd.conf");
    std::fs::write(
        &file,
        "metdata = \"a=b\"\n\
         listen = [\"https://127.0.0.1:4100\"]\n\
         tls_certfile = \"/nowhere/m.pem\"\n\
         tls_keyfile = \"/nowhere/m.key\"\n",
    )
    .unwrap();
    let file = file.to_str().unwrap();
    let (code, said) = fleetd(&["-config", file, "--check-config"]);
    let expected = format!(
        "{file}:1: there is no option \"metdata\"; did you mean metadata?\n\
         {file}:2: listen: https://127.0.0.1:4100 without tls_cafile asks nobody for a certificate, \
         so every user and every program of this machine can run anything as root here; name the \
         CA of those who may, or set insecure = true if they all may\n\
         {file}:3: tls_certfile: /nowhere/m.pem: no such file; put it there, or name another\n\
         Error: the configuration has 3 problems\n"
    );
    assert_eq!((code, said), (1, expected));
}

#[test]
fn fleet_1_0_s_file_passes_with_its_obsolete_keys_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("fleet.conf");
    std::fs::write(
        &file,
        "etcd_servers=[\"http://127.0.0.1:2379\"]\npublic_ip=10.0.0.1\ntoken_limit=100\n",
    )
    .unwrap();
    let file = file.to_str().unwrap();
    let (code, said) = fleetd(&["-config", file, "--check-config"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains(&format!("{file}:3: token_limit does nothing any more")), "{said}");
}
