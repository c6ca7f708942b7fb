//! Configuration on real hosts: fleet 1.0's own file, a reload under load, certificates between
//! machines, a user's own systemd.

use anyhow::{Result, ensure};
use fleet_tests::certs::{Authority, Lifetime};
use fleet_tests::cluster::{Cluster, PATIENCE, scenario};
use fleet_tests::lab::{Options, Store, wait_for};

use crate::{LEADER_LEASE, SLEEPER, lab};

const ALL: &[&str] = &["web@*.service", "talk.service"];

/// Says one line, then sleeps.
const TALKER: &str = "[Service]\nExecStart=/bin/sh -c 'echo here I am; exec sleep \
        infinity'\n\n[X-Fleet]\nMachineMetadata=host=h2\n";

/// The file that the API's certificates are named in.
const TLS: &str = "/etc/fleet/fleetd.conf.d/20-tls.toml";

#[test]
fn journals_and_status_come_from_other_machines_over_mutual_tls() -> Result<()> {
    scenario(&lab("tls", 2), |cluster| {
        let folder = tempfile::tempdir()?;
        let good = Authority::new(folder.path(), "good")?;
        for host in ["h1", "h2"] {
            give_certificate(cluster, host, &good)?;
            let address = cluster.lab.address(host)?;
            // The tests themselves go on asking over http; machines take the better one.
            let config = format!(
                "listen = [\"http://{address}:4100\", \"https://{address}:4101\"]\ntls_cafile = \
                    \"/etc/fleet/ca.pem\"\n\
                 tls_certfile = \"/etc/fleet/machine.pem\"\ntls_keyfile = \
                 \"/etc/fleet/machine.key\"\n"
            );
            cluster.write(host, TLS, &config)?;
            cluster.lab.sh(host, "fleetd --check-config && systemctl restart fleetd")?;
        }
        cluster.wait_until_ready()?;
        cluster.start("talk.service", TALKER)?;
        the_other_machine_answers(cluster)?;
        fleetctl_gets_in_with_a_certificate_and_not_without(cluster)?;
        a_stranger_s_certificate_is_refused_by_both_until_it_is_replaced(cluster, &folder, &good)
    })
}

/// As docs/operating.md tells it, on a fleetd that holds the address itself at first.
#[test]
fn a_tcp_socket_that_systemd_holds_refuses_nobody_while_fleetd_restarts() -> Result<()> {
    let options = Options { store: Store::Embedded, ..lab("tcp", 1) };
    scenario(&options, |cluster| {
        cluster.start("talk.service", SLEEPER)?;
        let before = cluster.running(ALL)?;
        ensure!(before.len() == 1, "{before:?}");
        let address = cluster.lab.address("h1")?;
        let socket = format!(
            "[Socket]\nListenStream={address}:4100\nFreeBind=yes\nService=fleetd.service\n\
             [Install]\nWantedBy=sockets.target fleetd.service\n"
        );
        cluster.write("h1", "/etc/systemd/system/fleetd-tcp.socket", &socket)?;
        cluster.lab.sh(
            "h1",
            "systemctl daemon-reload && systemctl enable fleetd-tcp.socket && systemctl restart \
            fleetd",
        )?;
        let active =
            cluster.lab.sh("h1", "systemctl is-active fleetd-tcp.socket fleetd.socket fleetd")?;
        ensure!(active.split_whitespace().all(|state| state == "active"), "{active}");
        let asked = format!(
            "for i in $(seq 3); do systemctl restart fleetd; touch /run/restarted-$i; done &
             while [ ! -e /run/restarted-3 ]; do curl -s -o /dev/null -w '%{{http_code}}\n' \
             http://{address}:4100/fleet/v1/version; done | sort | uniq -c"
        );
        let answers = cluster.lab.sh("h1", &asked)?;
        let words: Vec<&str> = answers.split_whitespace().collect();
        ensure!(
            words.len() == 2 && words[1] == "200",
            "how often which status (000: refused): {answers}"
        );
        ensure!(cluster.running(ALL)? == before, "a restart changed what runs");
        Ok(())
    })
}

fn give_certificate(cluster: &Cluster, host: &str, authority: &Authority) -> Result<()> {
    let files = authority.issue(host, &[cluster.lab.address(host)?], Lifetime::Good)?;
    // The key first: fleetd finds the two no pair for a moment, and goes on with those that it has.
    for (file, path) in
        [(&files.ca, "ca.pem"), (&files.key, "machine.key"), (&files.cert, "machine.pem")]
    {
        let text = std::fs::read_to_string(file.as_ref().expect("all three are issued"))?;
        cluster.write(host, &format!("/etc/fleet/{path}"), &text)?;
    }
    Ok(())
}

fn the_other_machine_answers(cluster: &Cluster) -> Result<()> {
    let journal = cluster.ctl(&["journal", "talk"])?;
    ensure!(journal.contains("here I am"), "{journal}");
    let status = cluster.ctl(&["status", "talk"])?;
    ensure!(status.contains("active (running)"), "{status}");
    let said = cluster.lab.sh("h1", "fleetctl list-machines --json")?;
    ensure!(!said.contains("http://"), "machines name their https address: {said}");
    Ok(())
}

fn fleetctl_gets_in_with_a_certificate_and_not_without(cluster: &Cluster) -> Result<()> {
    let endpoint = format!("--endpoint=https://{}:4101", cluster.lab.address("h2")?);
    let files = [
        "--ca-file=/etc/fleet/ca.pem",
        "--cert-file=/etc/fleet/machine.pem",
        "--key-file=/etc/fleet/machine.key",
    ];
    let with = cluster
        .fleetctl("h1", &[&[endpoint.as_str()], &files[..], &["journal", "talk"]].concat())?;
    ensure!(with.code == 0 && with.out.contains("here I am"), "{with:?}");
    let without = cluster.fleetctl("h1", &[&endpoint, files[0], "list-machines"])?;
    ensure!(
        without.code == 1 && without.err.contains("lets nobody in without a client certificate"),
        "{without:?}"
    );
    Ok(())
}

fn a_stranger_s_certificate_is_refused_by_both_until_it_is_replaced(
    cluster: &Cluster,
    folder: &tempfile::TempDir,
    good: &Authority,
) -> Result<()> {
    let before = cluster.running(ALL)?;
    let ca = std::fs::read_to_string(good.ca())?;
    let other = Authority::new(folder.path(), "other")?;
    give_certificate(cluster, "h1", &other)?;
    cluster.write("h1", "/etc/fleet/ca.pem", &ca)?;
    let said = wait_for("h2 to refuse h1", PATIENCE, || {
        let said = cluster.fleetctl("h1", &["journal", "talk"])?;
        ensure!(said.code == 1, "{said:?}");
        Ok(said)
    })?;
    ensure!(
        said.err.contains("it refuses /etc/fleet/machine.pem: from a CA that it does not know"),
        "{said:?}"
    );
    let address = cluster.lab.address("h1")?;
    let logged = cluster.lab.sh("h2", "journalctl -u fleetd -o cat --grep refused")?;
    ensure!(
        logged.contains(&format!(
            "refused {address}: its certificate is not from a CA in /etc/fleet/ca.pem"
        )),
        "{logged}"
    );
    give_certificate(cluster, "h1", good)?;
    wait_for("h2 to take h1 back", PATIENCE, || the_other_machine_answers(cluster))?;
    ensure!(cluster.running(ALL)? == before);
    Ok(())
}

#[test]
fn a_reload_changes_what_it_can_and_touches_no_unit() -> Result<()> {
    let mut options = lab("reload", 2);
    // fleet 1.0's file on one host, and its folder for units, which is none of systemd's.
    options
        .host_config_extra
        .insert("h2".into(), "units_directory = \"/run/fleet/units/\"\n".into());
    scenario(&options, |cluster| {
        cluster.submit("web@.service", SLEEPER)?;
        cluster.ctl(&["scale", "web=4"])?;
        let before = cluster.running(ALL)?;
        let texts = cluster
            .lab
            .sh("h2", "ls /run/fleet/units; readlink /run/systemd/system/web@*.service")?;
        ensure!(texts.contains("web@") && texts.contains("/run/fleet/units/web@"), "{texts}");
        // As fleet 1.0's units were.
        let enabled = cluster.lab.sh("h2", "systemctl is-enabled web@.service || true")?;
        ensure!(enabled.trim() == "linked-runtime", "{enabled}");

        let listening =
            cluster.lab.sh("h2", "systemctl show -P MainPID fleetd; stat -c %i /run/fleet.sock")?;
        let legacy = "# fleet 1.0\nmetadata=\"region=eu\"\ntoken_limit=100\n";
        cluster.write("h2", "/etc/fleet/fleet.conf", legacy)?;
        let lab_s_own = "sed -i '/^metadata/d' /etc/fleet/fleetd.conf.d/10-lab.toml";
        cluster.lab.sh("h2", lab_s_own)?;
        let more = "agent_ttl = \"15s\"\npublic_ip = \"10.1.2.3\"\nlog = \"debug\"\ndata_dir = \
            \"/var/lib/other\"\n";
        cluster.write("h2", "/etc/fleet/fleetd.conf.d/30-more.toml", more)?;
        cluster.lab.sh("h2", "systemctl reload fleetd")?;
        let id = cluster.lab.machine_id("h2")?.to_string();
        wait_for("h2 as it is now", PATIENCE, || {
            let machines = cluster.machines_by("h1")?;
            let h2 = machines.iter().find(|machine| machine.id == id);
            let region = h2.and_then(|h2| h2.metadata.get("region"));
            ensure!(
                h2.is_some_and(|h2| h2.primary_ip == "10.1.2.3")
                    && region.is_some_and(|r| r == "eu"),
                "{machines:?}"
            );
            Ok(())
        })?;
        let log = cluster.lab.sh("h2", "journalctl -u fleetd -o cat")?;
        ensure!(
            log.contains("/etc/fleet/fleet.conf:3: token_limit does nothing any more"),
            "{log}"
        );
        ensure!(log.contains("data_dir cannot change while fleetd runs"), "{log}");

        // An error changes nothing, and is named.
        cluster.write(
            "h2",
            "/etc/fleet/fleetd.conf.d/40-typo.toml",
            "# one\nmetdata = \"region=us\"\n",
        )?;
        cluster.lab.sh("h2", "systemctl reload fleetd")?;
        wait_for("the typo to be named", PATIENCE, || {
            let log = cluster.lab.sh("h2", "journalctl -u fleetd -o cat")?;
            ensure!(
                log.contains(
                    "40-typo.toml:2: there is no option \"metdata\"; did you mean metadata?"
                ),
                "{log}"
            );
            Ok(())
        })?;
        cluster.lab.sh("h2", "systemctl kill --kill-whom=main --signal=USR1 fleetd")?;
        wait_for("the state", PATIENCE, || {
            let log = cluster.lab.sh("h2", "journalctl -u fleetd -o cat")?;
            ensure!(
                log.lines().any(|line| line.starts_with('{') && line.contains("\"assignment\"")),
                "{log}"
            );
            Ok(())
        })?;
        // It never was away, so nothing moved; nobody listens anew.
        cluster.nothing_happens(ALL, &before, LEADER_LEASE * 2)?;
        ensure!(
            cluster.lab.sh("h2", "systemctl show -P MainPID fleetd; stat -c %i /run/fleet.sock")?
                == listening
        );
        Ok(())
    })
}

#[test]
fn a_user_s_own_fleetd_runs_units_without_root() -> Result<()> {
    let options = Options { store: Store::Embedded, ..lab("user", 1) };
    scenario(&options, |cluster| {
        cluster.lab.sh(
            "h1",
            "useradd --create-home --uid 1000 --groups systemd-journal u && loginctl enable-linger \
            u",
        )?;
        let as_user = |script: &str| {
            let words =
                format!("runuser -u u -- env XDG_RUNTIME_DIR=/run/user/1000 sh -c '{script}'");
            cluster.lab.sh("h1", &words)
        };
        wait_for("the user's systemd", PATIENCE, || as_user("systemctl --user start fleetd"))?;
        as_user(
            "mkdir -p ~/units && printf \"[Service]\\nExecStart=/bin/sh -c \\\"echo mine; exec \
                sleep infinity\\\"\\n\" > ~/units/web@.service",
        )?;
        as_user("fleetctl --user submit ~/units/web@.service && fleetctl --user scale web=2")?;
        let running = as_user(
            "systemctl --user show -P ActiveState web@1.service web@2.service; ps -u u -o args=",
        )?;
        ensure!(
            running.matches("active").count() == 2
                && running.matches("sleep infinity").count() == 2,
            "{running}"
        );
        let status = as_user("fleetctl --user status web@1; fleetctl --user journal web@2")?;
        ensure!(status.contains("active (running)") && status.contains("mine"), "{status}");
        ensure!(cluster.running(ALL)?.is_empty(), "nothing of it is the machine's");
        let processes = || as_user("ps -u u -o pid=,args= | grep [s]leep");
        let before = processes()?;
        as_user("systemctl --user restart fleetd")?;
        ensure!(processes()? == before, "before the restart: {before}");
        as_user("systemctl --user stop fleetd")?;
        let left = as_user("ps -u u -o args=; ls $XDG_RUNTIME_DIR/systemd/user")?;
        ensure!(
            !left.contains("sleep infinity") && !left.contains("web@"),
            "stopping fleetd is a leave: {left}"
        );
        Ok(())
    })
}
