//! Every file of unit-examples/: parsed, planned, and run on three hosts with the commands that its
//! comment teaches; the folders in it as applications.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use expect_test::expect;
use fleet_core::model::{DesiredState, Machine, Snapshot, Unit, UnitRecord};
use fleet_core::name::{MachineId, UnitName};
use fleet_core::plan::{Change, plan};
use fleet_core::unit::contradiction::contradiction;
use fleet_core::unit::file::UnitFile;
use fleet_core::unit::lint::lint;
use fleet_tests::cluster::{Cluster, PATIENCE, scenario};
use fleet_tests::lab::{Options, wait_for};

mod folders;

/// Each file, and what its comment makes of it. A file that is not here has no test, so it fails
/// one.
const EXAMPLES: [(&str, Wanted); 15] = [
    ("backup.service", Wanted::Loaded),
    ("backup.timer", Wanted::Launched),
    ("db.service", Wanted::Launched),
    ("echo-backend.service", Wanted::Loaded),
    ("echo.service", Wanted::Loaded),
    ("echo.socket", Wanted::Launched),
    ("edge@.service", Wanted::Replicas(2)),
    ("hello.container", Wanted::Launched),
    ("inbox.path", Wanted::Launched),
    ("inbox.service", Wanted::Loaded),
    ("node-metrics.service", Wanted::Launched),
    ("srv-scratch.mount", Wanted::Launched),
    ("web-announce@.service", Wanted::Replicas(3)),
    ("web@.service", Wanted::Replicas(5)),
    ("worker@.container", Wanted::Replicas(3)),
];

/// The host with the label that db.service asks for.
const DB_HOST: &str = "h2";

#[derive(Clone, Copy)]
enum Wanted {
    Loaded,
    Launched,
    Replicas(u32),
}

#[test]
fn every_file_has_a_test_and_a_line_in_the_readme() -> Result<()> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder())? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            found.push(entry.file_name().into_string().ok().context("a readable name")?);
        }
    }
    found.retain(|name| name != "README.md");
    found.sort();
    let known = EXAMPLES.map(|(name, _)| name);
    assert_eq!(found, known, "unit-examples/ and this test's table differ");
    let readme = fs::read_to_string(folder().join("README.md"))?;
    let missing: Vec<&str> =
        known.into_iter().filter(|name| !readme.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "unit-examples/README.md says nothing of {missing:?}");
    Ok(())
}

#[test]
fn every_file_is_accepted_without_a_warning_and_begins_with_a_comment_that_teaches() -> Result<()> {
    for (name, _) in EXAMPLES {
        UnitName::parse(name)?;
        is_without_a_warning_and_teaches(name)?;
    }
    Ok(())
}

fn is_without_a_warning_and_teaches(path: &str) -> Result<()> {
    let text = text_of(path)?;
    let file = UnitFile::parse(&text)?;
    // What comes with a folder is no fault there: the unit is not submitted by itself.
    let in_folder = path.contains('/');
    let warnings: Vec<_> = lint(&file)
        .into_iter()
        .filter(|warning| !(in_folder && warning.problem.contains("comes only with the folder")))
        .collect();
    assert_eq!(warnings, [], "{path}");
    assert_eq!(contradiction(&file), None, "{path}");
    let comment: Vec<&str> = text.lines().take_while(|line| line.starts_with('#')).collect();
    assert!(
        !comment.is_empty() && text.contains("\n[Unit]\nDescription="),
        "{path} has no comment, or no description"
    );
    Ok(())
}

#[test]
fn all_together_find_their_machines() -> Result<()> {
    let machines = ["h1", "h2", "h3"].map(machine);
    let mut snapshot = Snapshot { now_ms: 1, ..Snapshot::default() };
    snapshot.machines =
        machines.into_iter().map(|machine| (machine.id.clone(), Arc::new(machine))).collect();
    for (name, wanted) in EXAMPLES {
        let unit = Unit::from_record(&record(name, wanted)?);
        snapshot.units.insert(unit.name.clone(), Arc::new(unit));
    }
    let plan = plan(&snapshot);
    assert_eq!(plan.unplaced, []);
    let mut placed: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for change in &plan.changes {
        if let Change::Place { instance, machine, .. } = change {
            placed.entry(machine.as_str()).or_default().insert(instance.as_str());
        }
    }
    let lines: Vec<String> = placed
        .iter()
        .map(|(machine, instances)| {
            format!("{machine}: {}", instances.iter().copied().collect::<Vec<_>>().join(" "))
        })
        .collect();
    expect![[r#"
        h1: echo-backend.service echo.service echo.socket edge@2.service node-metrics.service srv-scratch.mount web-announce@1.service web@1.service web@4.service worker@2.container
        h2: backup.service backup.timer db.service hello.container node-metrics.service srv-scratch.mount web-announce@2.service web@2.service web@5.service worker@3.container
        h3: edge@1.service inbox.path inbox.service node-metrics.service srv-scratch.mount web-announce@3.service web@3.service worker@1.container"#]].assert_eq(&lines.join("\n"));
    Ok(())
}

#[test]
fn every_example_does_what_its_comment_says() -> Result<()> {
    scenario(&three_hosts("test-examples"), |cluster| {
        for (name, _) in EXAMPLES {
            cluster.write_unit(name, &text_of(name)?)?;
        }
        replicas_answer_each_on_its_own_port(cluster)?;
        a_sidekick_lives_beside_its_main_unit_and_dies_with_it(cluster)?;
        a_quadlet_answers_and_has_a_journal(cluster)?;
        a_quadlet_template_has_instances(cluster)?;
        a_global_agent_is_everywhere(cluster)?;
        the_database_is_where_its_disk_is(cluster)?;
        the_timer_makes_a_backup_there(cluster)?;
        the_first_connection_starts_the_containers(cluster)?;
        a_machine_has_one_edge_only(cluster)?;
        what_comes_in_is_worked_on(cluster)?;
        the_scratch_space_is_mounted(cluster)?;
        destroyed_nothing_is_left(cluster)
    })
}

/// Three hosts, of which [`DB_HOST`] has the good disk.
fn three_hosts(name: &str) -> Options {
    let label = format!("metadata = \"disk=ssd,host={DB_HOST}\"");
    Options {
        name: name.to_owned(),
        hosts: 3,
        host_config_extra: BTreeMap::from([(DB_HOST.to_owned(), label)]),
        ..Options::default()
    }
}

fn replicas_answer_each_on_its_own_port(cluster: &Cluster) -> Result<()> {
    typed(cluster, "web@.service", "fleetctl submit web@.service")?;
    typed(cluster, "web@.service", "fleetctl scale web=5")?;
    for number in 1..=5 {
        let name = format!("web@{number}.service");
        let host = host_of(cluster, &name)?;
        answers(
            cluster,
            &host,
            &format!(":{}/", 8100 + number),
            &format!("Hello from {name} on {host}"),
        )?;
    }
    typed(cluster, "web@.service", "fleetctl scale web=-3")?;
    active_are(cluster, "web@*.service", &["web@1.service", "web@2.service"])
}

fn a_sidekick_lives_beside_its_main_unit_and_dies_with_it(cluster: &Cluster) -> Result<()> {
    typed(cluster, "web-announce@.service", "fleetctl scale web=3")?;
    typed(cluster, "web-announce@.service", "fleetctl scale web-announce=3")?;
    for number in 1..=3 {
        let host = host_of(cluster, &format!("web@{number}.service"))?;
        ensure!(
            host_of(cluster, &format!("web-announce@{number}.service"))? == host,
            "sidekick {number} is not on {host}"
        );
        let address = wait_for("the address", PATIENCE, || {
            cluster.lab.sh(&host, &format!("cat /run/web-announce-{number}/address"))
        })?;
        ensure!(address == format!("http://{host}:{}/", 8100 + number), "announced {address:?}");
    }
    // Its main unit dies: systemd takes the sidekick down with it, and both come back.
    let host = host_of(cluster, "web@1.service")?;
    let sidekick = |cluster: &Cluster| -> Result<u32> {
        let running = cluster.running_on(&host, &["web-announce@1.service"])?;
        running
            .get("web-announce@1.service")
            .copied()
            .filter(|pid| *pid != 0)
            .with_context(|| format!("{running:?}"))
    };
    let before = sidekick(cluster)?;
    cluster.lab.sh(&host, "systemctl kill --signal=KILL web@1.service")?;
    wait_for("a new sidekick", PATIENCE, || {
        let after = sidekick(cluster)?;
        ensure!(after != before, "still the old one, {after}");
        Ok(())
    })?;
    // Its main unit is scaled away: it goes too, and its announcement with it.
    let host = host_of(cluster, "web@3.service")?;
    cluster.ctl(&["scale", "web=2"])?;
    active_are(
        cluster,
        "web-announce@*.service",
        &["web-announce@1.service", "web-announce@2.service"],
    )?;
    ensure!(
        cluster.lab.sh(&host, "ls -d /run/web-announce-3").is_err(),
        "the address of web@3 is still announced"
    );
    Ok(())
}

fn a_quadlet_answers_and_has_a_journal(cluster: &Cluster) -> Result<()> {
    typed(cluster, "hello.container", "fleetctl start hello.container")?;
    let host = host_of(cluster, "hello.container")?;
    answers(cluster, &host, ":8090/", &format!("hello from a Quadlet on {host}"))?;
    says(cluster, "hello.container", "fleetctl journal hello.container", "serving")
}

fn a_quadlet_template_has_instances(cluster: &Cluster) -> Result<()> {
    typed(cluster, "worker@.container", "fleetctl submit worker@.container")?;
    typed(cluster, "worker@.container", "fleetctl scale worker@.container=3")?;
    active_are(
        cluster,
        "worker@*.service",
        &["worker@1.service", "worker@2.service", "worker@3.service"],
    )?;
    says(cluster, "worker@.container", "fleetctl journal worker@2.container", "worker 2 is ready")
}

fn a_global_agent_is_everywhere(cluster: &Cluster) -> Result<()> {
    typed(cluster, "node-metrics.service", "fleetctl start node-metrics.service")?;
    for host in cluster.hosts() {
        let metrics =
            answer(cluster, &host, ":9100/cgi-bin/metrics", |text| text.contains("node_load1 "))?;
        let memory =
            metrics.lines().find_map(|line| line.strip_prefix("node_memory_MemTotal_bytes "));
        ensure!(
            memory.is_some_and(|bytes| bytes.parse::<u64>().is_ok_and(|bytes| bytes > 0)),
            "{host} says {metrics:?}"
        );
    }
    Ok(())
}

fn the_database_is_where_its_disk_is(cluster: &Cluster) -> Result<()> {
    typed(cluster, "db.service", "fleetctl start db.service")?;
    ensure!(host_of(cluster, "db.service")? == DB_HOST);
    let etcdctl = format!("etcdctl --endpoints=http://{DB_HOST}:2479");
    cluster.lab.sh("h1", &format!("{etcdctl} put greeting hello"))?;
    ensure!(
        cluster.lab.sh("h3", &format!("{etcdctl} get --print-value-only greeting"))? == "hello"
    );
    cluster.lab.sh(DB_HOST, "test -d /var/lib/db/etcd").map(drop)
}

fn the_timer_makes_a_backup_there(cluster: &Cluster) -> Result<()> {
    typed(cluster, "backup.timer", "fleetctl load backup.service")?;
    typed(cluster, "backup.timer", "fleetctl start backup.timer")?;
    ensure!(host_of(cluster, "backup.timer")? == DB_HOST);
    let backups = |cluster: &Cluster| cluster.lab.sh(DB_HOST, "ls /var/lib/backup/db-*.snapshot");
    wait_for("the timer's backup", PATIENCE, || backups(cluster))?;
    cluster.lab.sh(DB_HOST, "rm /var/lib/backup/db-*.snapshot")?;
    typed(cluster, "backup.service", "fleetctl start backup.service")?;
    wait_for("a backup by hand", PATIENCE, || backups(cluster)).map(drop)
}

fn the_first_connection_starts_the_containers(cluster: &Cluster) -> Result<()> {
    typed(cluster, "echo.socket", "fleetctl load echo.socket echo.service echo-backend.service")?;
    typed(cluster, "echo.socket", "fleetctl start echo.socket")?;
    let host = host_of(cluster, "echo.socket")?;
    ensure!(
        cluster.running(&["echo*.service"])?.is_empty(),
        "the echo service runs before anybody has connected"
    );
    let talk = format!(
        "exec 3<>/dev/tcp/{}/7007 && echo 'hello there' >&3 && timeout 30 head -n 1 <&3",
        cluster.lab.address(&host)?
    );
    for _ in 0..2 {
        let output = cluster.lab.outside("bash").args(["-c", &talk]).output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            said == "hello there\n",
            "the echo is {said:?}; {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    active_are(cluster, "echo*.service", &["echo-backend.service", "echo.service"])
}

fn a_machine_has_one_edge_only(cluster: &Cluster) -> Result<()> {
    typed(cluster, "edge@.service", "fleetctl scale edge=2")?;
    let (one, two) = (host_of(cluster, "edge@1.service")?, host_of(cluster, "edge@2.service")?);
    ensure!(one != two, "both are on {one}");
    for host in [one, two] {
        answers(cluster, &host, ":80/", &format!("The edge on {host}"))?;
    }
    ensure!(command_in(&text_of("edge@.service")?, "fleetctl scale edge=9"));
    let said = cluster.fleetctl("h1", &["scale", "edge=9"])?;
    ensure!(said.code == 1 && said.err.contains("no machine can run edge@"), "{said:?}");
    let three = ["edge@1.service", "edge@2.service", "edge@3.service"];
    active_are(cluster, "edge@*.service", &three)
}

fn what_comes_in_is_worked_on(cluster: &Cluster) -> Result<()> {
    typed(cluster, "inbox.path", "fleetctl load inbox.path inbox.service")?;
    typed(cluster, "inbox.path", "fleetctl start inbox.path")?;
    let host = host_of(cluster, "inbox.path")?;
    for name in ["first", "second"] {
        cluster.lab.sh(
            &host,
            &format!(
                "echo {name} > /var/spool/.{name} && mv /var/spool/.{name} /var/spool/inbox/{name}"
            ),
        )?;
        wait_for("the file to be worked on", PATIENCE, || {
            cluster.lab.sh(
                &host,
                &format!(
                    "grep ' {name}$' /var/lib/inbox/ledger && test ! -e /var/spool/inbox/{name}"
                ),
            )
        })?;
    }
    Ok(())
}

fn the_scratch_space_is_mounted(cluster: &Cluster) -> Result<()> {
    typed(cluster, "srv-scratch.mount", "fleetctl start srv-scratch.mount")?;
    for host in cluster.hosts() {
        cluster.lab.sh(
            &host,
            "grep '^tmpfs /srv/scratch tmpfs .*size=65536k' /proc/mounts && touch \
            /srv/scratch/file",
        )?;
    }
    Ok(())
}

fn destroyed_nothing_is_left(cluster: &Cluster) -> Result<()> {
    let mut arguments = vec!["destroy"];
    arguments.extend(EXAMPLES.map(|(name, _)| name));
    cluster.ctl(&arguments)?;
    let stems: BTreeSet<&str> =
        EXAMPLES.iter().map(|(name, _)| name.split(['@', '.']).next().unwrap_or(name)).collect();
    let patterns: Vec<String> =
        stems.iter().flat_map(|stem| [format!("'{stem}.*'"), format!("'{stem}@*'")]).collect();
    let patterns = patterns.join(" ");
    for host in cluster.hosts() {
        for (what, script) in [
            ("units", format!("systemctl list-units --all --plain --no-legend -- {patterns}")),
            (
                "unit files",
                format!(
                    "cd /run/systemd/system && ls -d {} 2>/dev/null || true",
                    patterns.replace('\'', "")
                ),
            ),
            ("containers", "podman ps --all --quiet".to_owned()),
            ("mounts", "grep /srv/scratch /proc/mounts || true".to_owned()),
        ] {
            // A container's files are removed by podman's own clean-up, a moment after its unit has
            // stopped.
            wait_for(&format!("no {what} on {host}"), Duration::from_secs(10), || {
                let left = cluster.lab.sh(&host, &script)?;
                ensure!(left.is_empty(), "{left}");
                Ok(())
            })?;
        }
    }
    Ok(())
}

/// Runs a command of the file's comment as a user would, in the folder with the files; it must end
/// well.
fn typed(cluster: &Cluster, file: &str, command: &str) -> Result<String> {
    ensure!(
        command_in(&text_of(file)?, command),
        "the comment of {file} does not teach `{command}`"
    );
    cluster.lab.sh("h1", &format!("cd /root/units && {command}"))
}

/// Whether the file's comment shows this command.
fn command_in(text: &str, command: &str) -> bool {
    let shown = |line: &str| {
        line.strip_prefix("#   ").is_some_and(|line| line.split("   ").next() == Some(command))
    };
    text.lines()
        .any(|line| shown(line) || line.strip_prefix("#   ").map(str::trim_end) == Some(command))
}

/// Waits until a command of the file's comment prints these words.
fn says(cluster: &Cluster, file: &str, command: &str, words: &str) -> Result<()> {
    wait_for(&format!("{words:?} from `{command}`"), PATIENCE, || {
        let said = typed(cluster, file, command)?;
        ensure!(said.contains(words), "{said}");
        Ok(())
    })
}

/// The one host on which fleet says that the unit is active.
fn host_of(cluster: &Cluster, unit: &str) -> Result<String> {
    let states = cluster.states()?;
    let places: Vec<_> = states
        .iter()
        .filter(|state| state.name == unit && state.systemd_active_state == "active")
        .collect();
    ensure!(places.len() == 1, "{unit} is active on {} machines: {states:?}", places.len());
    cluster.host_of(&places[0].machine_id)
}

/// Waits until the hosts' systemds run exactly these of the units that the pattern names, each
/// once.
fn active_are(cluster: &Cluster, pattern: &str, units: &[&str]) -> Result<()> {
    let names: Vec<String> = units.iter().map(|unit| unit.to_string()).collect();
    cluster.wait_for_exactly(&[pattern], &names, PATIENCE).map(drop)
}

/// Waits until the host answers on this port and path with exactly this line.
fn answers(cluster: &Cluster, host: &str, rest: &str, line: &str) -> Result<()> {
    answer(cluster, host, rest, |text| text.trim_end() == line).map(drop)
}

fn answer(
    cluster: &Cluster,
    host: &str,
    rest: &str,
    right: impl Fn(&str) -> bool,
) -> Result<String> {
    let url = format!("http://{}{rest}", cluster.lab.address(host)?);
    wait_for(&format!("the right answer of {url}"), PATIENCE, || {
        let text = cluster.lab.http_get(&url)?;
        ensure!(right(&text), "{text:?}");
        Ok(text)
    })
}

fn machine(name: &str) -> Machine {
    let disk = if name == DB_HOST { "ssd" } else { "disk" };
    Machine {
        metadata: BTreeMap::from([("disk".to_owned(), disk.to_owned())]),
        ..Machine::new(MachineId::new(name), "")
    }
}

fn record(name: &str, wanted: Wanted) -> Result<UnitRecord> {
    let (desired, replicas) = match wanted {
        Wanted::Loaded => (DesiredState::Loaded, None),
        Wanted::Launched => (DesiredState::Launched, None),
        Wanted::Replicas(count) => (DesiredState::Launched, Some(count)),
    };
    Ok(UnitRecord {
        desired,
        replicas,
        created_ms: 1,
        ..UnitRecord::new(UnitName::parse(name)?, text_of(name)?)
    })
}

fn text_of(name: &str) -> Result<String> {
    fs::read_to_string(folder().join(name)).with_context(|| format!("read {name}"))
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../unit-examples")
}
