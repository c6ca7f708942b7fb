//! An application as its user sees it: a folder that is planned, applied, changed, rolled back and
//! destroyed by fleetctl, under real podman.

use anyhow::{Context, Result, ensure};
use fleet_tests::cluster::{Cluster, PATIENCE, Running, Said, scenario};
use fleet_tests::lab::wait_for;

use crate::lab;

const WEB: &str = "[Container]
Image=localhost/busybox:latest
Network=app.network
Volume=data.volume:/data
Volume=./web.conf:/etc/web.conf:ro
StopTimeout=1
Exec=sleep infinity

[Service]
Restart=always

[X-Fleet]
Replicas=2
MaxUnavailable=1
";

const NOTE: &str = "[Service]\nExecStart=/bin/sleep infinity\n";

const ALL: &[&str] = &["web@*.service", "note.service"];

#[test]
fn a_folder_is_applied_changed_rolled_back_and_destroyed() -> Result<()> {
    scenario(&lab("folders", 2), |cluster| {
        a_plan_touches_nothing_and_an_apply_does_it(cluster)?;
        what_systemd_does_not_read_restarts_nothing(cluster)?;
        a_changed_file_restarts_what_names_it_and_a_rollback_brings_it_back(cluster)?;
        what_is_wrong_and_what_was_overtaken_changes_nothing(cluster)?;
        what_is_gone_from_the_folder_goes_with_prune(cluster)?;
        it_is_destroyed_and_its_data_stays(cluster)
    })
}

fn a_plan_touches_nothing_and_an_apply_does_it(cluster: &Cluster) -> Result<()> {
    for (name, text) in [
        ("web@.container", WEB),
        ("app.network", "[Network]\n"),
        ("data.volume", "[Volume]\n"),
        ("note.service", NOTE),
        ("web.conf", "one\n"),
    ] {
        write(cluster, name, text)?;
    }
    let said = ends_with(cluster, 1, &["plan", "/root/shop"])?;
    ensure!(said.out.contains("+ web@.container") && said.out.contains("starts on "), "{said:?}");
    ensure!(said.err.contains("shop is new"), "{said:?}");
    ensure!(cluster.running(ALL)?.is_empty() && cluster.units()?.is_empty());
    let without_yes = ends_with(cluster, 2, &["apply", "/root/shop"])?;
    ensure!(without_yes.err.contains("--yes does it without asking"), "{without_yes:?}");
    apply(cluster)?;
    ensure!(running(cluster)?.len() == 3);
    same_on_every_host(cluster, "one")?;
    let again = ends_with(cluster, 0, &["plan", "/root/shop/"])?;
    ensure!(again.err.contains("Nothing to do: shop is at revision 1"), "{again:?}");
    let list = cluster.ctl(&["apps", "--no-legend", "--fields=app,revision,running"])?;
    ensure!(list.split_whitespace().eq(["shop", "1", "3/3"]), "{list:?}");
    let shown = cluster.ctl(&["status", "shop"])?;
    ensure!(shown.contains("3 of 3 instances running"), "{shown}");
    for name in ["web@1.container", "web@2.container", "app.network", "data.volume", "web.conf"] {
        ensure!(shown.contains(name), "{name}: {shown}");
    }
    let cat = cluster.ctl(&["cat", "app"])?;
    ensure!(cat == "[Network]\n", "{cat:?}");
    Ok(())
}

fn what_systemd_does_not_read_restarts_nothing(cluster: &Cluster) -> Result<()> {
    let before = running(cluster)?;
    write(cluster, "web@.container", &format!("# Two of them.\n{WEB}MaxPerMachine=2\n"))?;
    let said = ends_with(cluster, 1, &["plan", "/root/shop"])?;
    ensure!(
        said.out.contains("+# Two of them.") && said.out.contains("restarts nothing"),
        "{said:?}"
    );
    apply(cluster)?;
    ensure!(running(cluster)? == before, "one was restarted");
    Ok(())
}

fn a_changed_file_restarts_what_names_it_and_a_rollback_brings_it_back(
    cluster: &Cluster,
) -> Result<()> {
    let before = running(cluster)?;
    write(cluster, "web.conf", "two\n")?;
    let diff = ends_with(cluster, 1, &["diff", "/root/shop"])?;
    ensure!(diff.out.contains("-one\n+two\n"), "{diff:?}");
    let said = ends_with(cluster, 1, &["plan", "/root/shop"])?;
    ensure!(said.out.contains("restarts 2 instances, at most 1 down at any time"), "{said:?}");
    apply(cluster)?;
    same_on_every_host(cluster, "two")?;
    let after = running(cluster)?;
    for (key, pid) in &before {
        let is_web = key.0.starts_with("web@");
        ensure!((after.get(key) == Some(pid)) != is_web, "{key:?}: {before:?}, then {after:?}");
    }
    ends_with(cluster, 0, &["diff", "/root/shop"])?;
    cluster.ctl(&["rollback", "web@"])?;
    same_on_every_host(cluster, "one")?;
    ends_with(cluster, 1, &["plan", "/root/shop"])?;
    apply(cluster)?;
    same_on_every_host(cluster, "two")
}

fn what_is_wrong_and_what_was_overtaken_changes_nothing(cluster: &Cluster) -> Result<()> {
    let before = running(cluster)?;
    write(cluster, "web@.container", &WEB.replace("app.network", "nosuch.network"))?;
    let said = ends_with(cluster, 2, &["apply", "--yes", "/root/shop"])?;
    ensure!(said.err.contains("web@.container: line 3: Network=nosuch.network: "), "{said:?}");
    write(cluster, "web@.container", &WEB.replace("infinity", "86400"))?;
    let said = ends_with(cluster, 1, &["apply", "--yes", "--if-revision=1", "/root/shop"])?;
    ensure!(said.err.contains("somebody applied shop in between"), "{said:?}");
    ensure!(running(cluster)? == before, "one was restarted");
    write(cluster, "web@.container", WEB)?;
    apply(cluster)
}

fn what_is_gone_from_the_folder_goes_with_prune(cluster: &Cluster) -> Result<()> {
    cluster.lab.sh("h1", "rm /root/shop/note.service")?;
    let said = ends_with(cluster, 0, &["plan", "/root/shop"])?;
    ensure!(said.out.contains("! note.service"), "{said:?}");
    apply(cluster)?;
    ensure!(running(cluster)?.len() == 3);
    let said = cluster.ctl(&["apply", "--yes", "--prune", "/root/shop"])?;
    ensure!(said.contains("- note.service") && said.contains("Destroyed note.service"), "{said}");
    ensure!(running(cluster)?.len() == 2);
    Ok(())
}

fn it_is_destroyed_and_its_data_stays(cluster: &Cluster) -> Result<()> {
    let said = ends_with(cluster, 0, &["destroy", "--app", "shop", "--yes"])?;
    ensure!(said.err.contains("What data.volume held stays on the machines"), "{said:?}");
    ensure!(cluster.running(ALL)?.is_empty() && cluster.units()?.is_empty());
    for host in cluster.hosts() {
        wait_for("its network and files to be gone", PATIENCE, || {
            let left =
                "ls /run/fleet/files; podman network ls --noheading | grep systemd-app || true";
            let left = cluster.lab.sh(&host, left)?;
            ensure!(left.is_empty(), "{host} has {left:?}");
            Ok(())
        })?;
        let volumes = cluster.lab.sh(&host, "podman volume ls --noheading --format '{{.Name}}'")?;
        ensure!(volumes == "systemd-data", "{host}: {volumes:?}");
    }
    Ok(())
}

fn write(cluster: &Cluster, path: &str, text: &str) -> Result<()> {
    cluster.write("h1", &format!("/root/shop/{path}"), text)
}

fn apply(cluster: &Cluster) -> Result<()> {
    cluster.ctl(&["apply", "--yes", "/root/shop"]).map(drop)
}

fn ends_with(cluster: &Cluster, code: i32, args: &[&str]) -> Result<Said> {
    let said = cluster.fleetctl("h1", args)?;
    ensure!(said.code == code, "fleetctl {args:?}: {said:?}");
    Ok(said)
}

fn running(cluster: &Cluster) -> Result<Running> {
    cluster.running(ALL)
}

/// The web servers' own copies of their file.
fn same_on_every_host(cluster: &Cluster, word: &str) -> Result<()> {
    let mut copies = 0;
    for host in cluster.hosts() {
        let said = cluster.lab.sh(&host, "cat /run/fleet/files/web@*/web.conf || true")?;
        ensure!(said.lines().all(|line| line == word), "{host}: {said:?}");
        copies += said.lines().count();
    }
    let expected = 2;
    (copies == expected).then_some(()).with_context(|| format!("{copies} copies of {word:?}"))
}
