//! The packages on a host: upgraded under load, removed, purged, and installed as README says.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fleet_tests::cluster::{Cluster, PATIENCE, Said, scenario};
use fleet_tests::lab::{Options, Store, bin_folder, packages, wait_for};
use fleet_tests::versions::{next_version, other_version};

use crate::{AGENT_LEASE, SLEEPER, lab};

/// All that must not notice an upgrade; `churn@` is the load, and comes and goes.
const STEADY: &[&str] =
    &["steady@*.service", "everywhere.service", "box.service", "quadlet.service", "lone.service"];

const PODMAN: &str = "[Service]
Type=notify
NotifyAccess=all
Delegate=yes
TimeoutStopSec=10
ExecStart=/usr/bin/podman run --rm --replace --name=box --cgroups=split --sdnotify=conmon \
    --network=host --stop-timeout=1 localhost/busybox:latest sleep 1000000
";

const QUADLET: &str = "[Container]
Image=localhost/busybox:latest
Exec=sleep 1000000
StopSignal=SIGKILL
";

/// Scales a template up and down in h1 until it is told to stop, and counts the rounds.
const CHURN: &str = "i=0
until [ -e /run/churned ]; do
    fleetctl scale churn=12 && fleetctl scale churn=3 || exit 1
    i=$((i + 1)); echo $i > /run/churn
done";

#[test]
fn upgrading_the_packages_under_load_changes_no_pid_and_moves_nothing() -> Result<()> {
    scenario(&lab("upgrade", 2), |cluster| {
        cluster.submit("steady@.service", SLEEPER)?;
        cluster.ctl(&["scale", "steady=60"])?;
        cluster.start("everywhere.service", &format!("{SLEEPER}\n[X-Fleet]\nGlobal=true\n"))?;
        cluster.start("box.service", PODMAN)?;
        cluster.start("quadlet.container", QUADLET)?;
        cluster.start(
            "lone.service",
            &format!("{SLEEPER}TimeoutStopSec=5\n\n[X-Fleet]\nFence=yes\n"),
        )?;
        cluster.submit("churn@.service", SLEEPER)?;
        let before = cluster.running(STEADY)?;
        ensure!(before.len() == 60 + 2 + 3, "{before:?}");

        let version = next_version();
        let built = tempfile::tempdir()?;
        let debs = packages(&other_version(built.path(), &version)?, &version, built.path())?;
        let mut churn = cluster.lab.command("h1", &["sh", "-c", CHURN])?.spawn()?;
        for host in cluster.hosts() {
            let pid = fleetd_pid(cluster, &host)?;
            let said = dpkg(cluster, &host, "--install", &hand(cluster, &host, &debs)?)?;
            ensure!(
                fleetd_pid(cluster, &host)? != pid,
                "fleetd in {host} was not restarted: {said:?}"
            );
            // Not even for a moment: the lease goes on, so the other machine never misses it.
            for asked in cluster.hosts() {
                ensure!(
                    cluster.machines_by(&asked)?.len() == 2,
                    "a machine is gone after the upgrade in {host}"
                );
            }
        }
        cluster.nothing_happens(STEADY, &before, AGENT_LEASE + Duration::from_secs(3))?;
        cluster.lab.sh("h1", "[ $(cat /run/churn) -ge 1 ] && touch /run/churned")?;
        ensure!(churn.wait()?.success(), "a fleetctl during the upgrade failed");
        cluster.ctl(&["scale", "churn=0"])?;
        ensure!(cluster.running(STEADY)? == before);

        for host in cluster.hosts() {
            let running = cluster.lab.sh(
                &host,
                "/proc/$(systemctl show --property=MainPID --value fleetd)/exe --version",
            )?;
            ensure!(running == format!("fleetd {version}"), "{host} runs {running}");
            ensure!(installed(cluster, &host, "fleetd")? == "install ok installed");
        }
        let said = cluster.ctl(&["list-machines", "--json"])?;
        ensure!(said.matches(&version).count() == 2, "the machines say {said}");
        Ok(())
    })
}

#[test]
fn removing_the_package_is_a_leave_and_purging_it_forgets_the_data() -> Result<()> {
    scenario(&lab("remove", 2), |cluster| {
        cluster.submit("web@.service", SLEEPER)?;
        cluster.ctl(&["scale", "web=4"])?;
        let here = cluster.running_on("h2", &["web@*.service"])?;
        ensure!(here.len() == 2, "{here:?}");
        let version = env!("CARGO_PKG_VERSION");
        let built = tempfile::tempdir()?;
        let debs = hand(cluster, "h2", &packages(&bin_folder()?, version, built.path())?)?;

        dpkg(cluster, "h2", "--remove", &["fleetd".to_owned()])?;
        ensure!(cluster.machines_by("h1")?.len() == 1, "h2 did not leave");
        ensure!(
            cluster.running_on("h2", &["web@*.service"])?.is_empty(),
            "h2 still runs its units"
        );
        wait_for("the units of h2 on h1", PATIENCE, || {
            let running = cluster.running_on("h1", &["web@*.service"])?;
            ensure!(running.len() == 4, "{running:?}");
            Ok(())
        })?;
        cluster.lab.sh(
            "h2",
            "! systemctl cat fleetd.service && ! systemctl is-active fleetd.socket && ! \
                test -e /run/fleet.sock",
        )?;
        cluster.lab.sh(
            "h2",
            "test -n \"$(ls -A /var/lib/fleet)\" && test -e /etc/fleet/fleetd.conf.d/10-lab.toml",
        )?;

        // Installed again it is a machine again, with what it knew.
        dpkg(cluster, "h2", "--install", &debs)?;
        cluster.wait_until_ready()?;
        ensure!(cluster.machines_by("h1")?.len() == 2);

        // An administrator who took it out of service finds it so after an upgrade.
        cluster.lab.sh("h2", "systemctl disable --now fleetd.socket fleetd.service")?;
        dpkg(cluster, "h2", "--install", &debs)?;
        let state = cluster.lab.sh(
            "h2",
            "systemctl is-active fleetd.service fleetd.socket; systemctl is-enabled fleetd; true",
        )?;
        ensure!(state == "inactive\ninactive\ndisabled", "after the upgrade fleetd is {state:?}");

        let said = dpkg(cluster, "h2", "--purge", &["fleetd".to_owned(), "fleetctl".to_owned()])?;
        // The lab's disk is mounted there, so the folder itself stays.
        cluster.lab.sh(
            "h2",
            "test -z \"$(ls -A /var/lib/fleet)\" && ! test -e /run/fleet && ! \
            test -e /usr/bin/fleetctl",
        )?;
        cluster.lab.sh("h2", "! find /etc/systemd /var/lib/systemd -name '*fleet*' | grep .")?;
        cluster.lab.sh("h2", "test -e /etc/fleet/fleetd.conf.d/10-lab.toml")?;
        ensure!(
            said.err.contains("/etc/fleet"),
            "dpkg does not say that the administrator's files stay: {said:?}"
        );
        Ok(())
    })
}

#[test]
fn what_readme_says_of_one_machine_works_on_a_fresh_one() -> Result<()> {
    scenario(&Options { store: Store::Embedded, ..lab("readme", 1) }, |cluster| {
        // As it comes from Debian: no fleet, no configuration.
        dpkg(cluster, "h1", "--purge", &["fleetd".to_owned(), "fleetctl".to_owned()])?;
        cluster.lab.sh(
            "h1",
            "rm -r /etc/fleet && mkdir -p /root/fleet/target /root/fleet/unit-examples",
        )?;
        let built = tempfile::tempdir()?;
        let debs = hand(
            cluster,
            "h1",
            &packages(&bin_folder()?, env!("CARGO_PKG_VERSION"), built.path())?,
        )?;
        cluster.lab.sh(
            "h1",
            &format!(
                "mkdir /root/fleet/target/deb && cp {} /root/fleet/target/deb/",
                debs.join(" ")
            ),
        )?;
        for entry in std::fs::read_dir(top().join("unit-examples"))? {
            let path = entry?.path();
            if path.is_dir() {
                continue; // an application, which README does not name
            }
            let name = path.file_name().and_then(|name| name.to_str()).context("a name")?;
            cluster.write(
                "h1",
                &format!("/root/fleet/unit-examples/{name}"),
                &std::fs::read_to_string(&path)?,
            )?;
        }
        let readme = std::fs::read_to_string(top().join("README.md"))?;
        let lines: Vec<&str> = section(&readme, "## One machine")
            .filter_map(|line| line.strip_prefix("    "))
            .collect();
        let (build, rest) = lines.split_first().context("README has lines to type")?;
        // It has happened: the packages in target/deb are what it makes.
        ensure!(build.split_whitespace().take(2).eq(["make", "deb"]), "{build}");
        ensure!(rest.iter().any(|line| line.contains("target/deb/")), "{rest:?}");
        for line in rest {
            // The hosts have no sudo, and root needs none.
            cluster.lab.sh("h1", &format!("cd /root/fleet && sudo() {{ \"$@\"; }}; {line}"))?;
        }
        // What docs/operating.md says of the sandboxes: 2.8, 2.1 and 1.3.
        cluster.lab.sh("h1", "systemd-analyze security --threshold=28 fleetd")?;
        cluster.lab.sh("h1", "systemd-analyze security --threshold=21 fleet-keeper")?;
        cluster.lab.sh("h1", "systemd-analyze security --threshold=13 fleet-guard")?;
        let running = cluster.running(&["hello.service", "web@*.service"])?;
        ensure!(running.len() == 1 + 5, "{running:?}");
        ensure!(cluster.ctl(&["list-units", "--no-legend"])?.lines().count() == 1 + 5);
        Ok(())
    })
}

/// The repository.
fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The lines under a heading.
fn section<'a>(text: &'a str, heading: &str) -> impl Iterator<Item = &'a str> {
    text.lines()
        .skip_while(move |line| *line != heading)
        .skip(1)
        .take_while(|line| !line.starts_with("## "))
}

/// Hands the packages to the host, and answers with their paths there.
fn hand(cluster: &Cluster, host: &str, debs: &[PathBuf]) -> Result<Vec<String>> {
    let name = |path: &PathBuf| {
        path.file_name()
            .and_then(|name| name.to_str())
            .map(str::to_owned)
            .context("a package's name")
    };
    debs.iter().map(|path| cluster.lab.hand(host, &name(path)?, path)).collect()
}

/// Runs dpkg in the host; it must end well.
fn dpkg(cluster: &Cluster, host: &str, action: &str, what: &[String]) -> Result<Said> {
    let args: Vec<&str> = ["dpkg", "--force-unsafe-io", action]
        .into_iter()
        .chain(what.iter().map(String::as_str))
        .collect();
    let said = Said::from(cluster.lab.exec(host, &args)?);
    ensure!(said.code == 0, "`{}` in {host}: {}{}", args.join(" "), said.out, said.err);
    Ok(said)
}

fn installed(cluster: &Cluster, host: &str, package: &str) -> Result<String> {
    cluster.lab.sh(host, &format!("dpkg-query --show --showformat='${{Status}}' {package}"))
}

fn fleetd_pid(cluster: &Cluster, host: &str) -> Result<String> {
    cluster.lab.sh(host, "systemctl show --property=MainPID --value fleetd")
}
