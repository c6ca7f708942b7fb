//! What comes with the units of an application, under real podman: a network, a volume, files by
//! relative paths; a pod with its containers. Each is on every machine that runs something which
//! names it, and goes with its last user there; a volume's data stays.

use anyhow::{Context, Result, ensure};
use fleet_core::app::{AppName, Bundle, BundleRef, Checksum, FileEntry};
use fleet_core::name::UnitName;
use fleet_tests::cluster::{Cluster, PATIENCE, replicas, scenario};
use fleet_tests::lab::wait_for;

use crate::lab;

const NETWORK: &str = "[Network]\nSubnet=10.231.7.0/24\n";

const VOLUME: &str = "[Volume]\n";

/// Serves what its files say, and keeps what it said.
const WEB: &str = "[Unit]
Description=Web server %i

[Container]
Image=localhost/busybox:latest
Network=app.network
Volume=data.volume:/data
Volume=./conf:/etc/conf:ro
EnvironmentFile=./app.env
StopTimeout=1
Exec=sh -c 'echo \"%i $$LOG $(cat /etc/conf/nginx.conf)\" >> /data/said; exec httpd -f -p 80 -h /data'

[Service]
Restart=always
RestartSec=1
";

/// A pod whose instances have a network each: podman alone does not resolve that.
const POD: &str = "[Pod]\nNetwork=app@%i.network\n";
const POD_NETWORK: &str = "[Network]\nInternal=true\n";
const MEMBER: &str = "[Container]\nImage=localhost/busybox:latest\nPod=app@%i.pod\nStopTimeout=1\n\
    Exec=httpd -f -p 80 -h /www\n[Service]\nRestart=on-failure\nRestartSec=1\n";
const SIDE: &str = "[Container]\nImage=localhost/busybox:latest\nPod=app@%i.pod\nStopTimeout=1\n\
    Volume=./index.html:/www/index.html:ro\nExec=sleep infinity\n";

#[test]
fn an_application_brings_networks_volumes_files_and_pods() -> Result<()> {
    scenario(&lab("applications", 2), |cluster| {
        replicas_find_their_network_volume_and_files(cluster)?;
        changed_files_roll_and_old_and_new_never_mix(cluster)?;
        a_restart_of_fleetd_touches_nothing(cluster)?;
        what_nobody_needs_any_more_goes_and_data_stays(cluster)?;
        a_pod_is_one_thing_with_its_containers(cluster)
    })
}

fn replicas_find_their_network_volume_and_files(cluster: &Cluster) -> Result<()> {
    apply_web(cluster, "submit", "one")?;
    cluster.ctl(&["scale", "web@.container=4"])?;
    let running = cluster.running(&["web@*.service"])?;
    ensure!(running.len() == 4, "{running:?}");
    for host in cluster.hosts() {
        let states = "systemctl is-active app-network.service data-volume.service";
        let states = cluster.lab.sh(&host, states)?;
        ensure!(states == "active\nactive", "{host}: {states:?}");
        said(cluster, &host, "level-one one")?;
    }
    let modes =
        "stat -c '%a %U %n' /run/fleet/files/web@*/app.env /run/fleet/files/web@* | sort -u";
    let host = cluster.hosts().remove(0);
    let modes = cluster.lab.sh(&host, modes)?;
    ensure!(
        modes.lines().all(|line| line.starts_with("640 root") || line.starts_with("750 root")),
        "{modes}"
    );
    Ok(())
}

fn changed_files_roll_and_old_and_new_never_mix(cluster: &Cluster) -> Result<()> {
    let before = cluster.running(&["web@*.service"])?;
    apply_web(cluster, "start", "two")?;
    wait_for("all to run with the new files", PATIENCE, || {
        let now = cluster.running(&["web@*.service"])?;
        let new = now.iter().all(|(key, pid)| before.get(key).is_none_or(|old| old != pid));
        ensure!(now.len() == 4 && new, "{before:?} and now {now:?}");
        Ok(())
    })?;
    for host in cluster.hosts() {
        said(cluster, &host, "level-two two")?;
        let all = cluster.lab.sh(
            &host,
            "podman run --rm --network none -v systemd-data:/d localhost/busybox cat /d/said",
        )?;
        let mixed = |line: &&str| !line.ends_with("one one") && !line.ends_with("two two");
        ensure!(all.lines().find(mixed).is_none(), "{all}");
    }
    Ok(())
}

fn a_restart_of_fleetd_touches_nothing(cluster: &Cluster) -> Result<()> {
    let before = cluster.running(&["web@*.service"])?;
    for host in cluster.hosts() {
        cluster.lab.sh(&host, "systemctl kill --signal=KILL --kill-whom=main fleetd")?;
    }
    wait_for("every fleetd to be back", PATIENCE, || cluster.wait_until_ready())?;
    cluster.wait_for_exactly(&["web@*.service"], &replicas("web", 4), PATIENCE)?;
    ensure!(cluster.running(&["web@*.service"])? == before, "one was restarted");
    Ok(())
}

fn what_nobody_needs_any_more_goes_and_data_stays(cluster: &Cluster) -> Result<()> {
    cluster.ctl(&["destroy", "web@.container"])?;
    for host in cluster.hosts() {
        wait_for("network and files to be gone", PATIENCE, || {
            let left = "ls /run/fleet/files; ls /run/systemd/system | grep -E 'app-|data-|web@' || true; \
                podman network ls --noheading --format '{{.Name}}' | grep systemd-app || true";
            let left = cluster.lab.sh(&host, left)?;
            ensure!(left.is_empty(), "{host} has {left:?}");
            Ok(())
        })?;
        let volumes = cluster.lab.sh(&host, "podman volume ls --noheading --format '{{.Name}}'")?;
        ensure!(volumes == "systemd-data", "{host}: {volumes:?}");
    }
    Ok(())
}

fn a_pod_is_one_thing_with_its_containers(cluster: &Cluster) -> Result<()> {
    let quadlets =
        [("app@.network", POD_NETWORK), ("web@.container", MEMBER), ("side@.container", SIDE)];
    let bundle = send(cluster, &[("index.html", "hello\n")], &quadlets)?;
    cluster.submit("app@.pod", &format!("{POD}[X-Fleet]\nMaxPerMachine=1\nBundle={bundle}\n"))?;
    cluster.ctl(&["scale", "app@.pod=2"])?;
    let mut victim = None;
    for host in cluster.hosts() {
        let pods = cluster.lab.sh(
            &host,
            "podman pod ps --noheading --format '{{.Name}} {{.Status}} {{.NumberOfContainers}}'",
        )?;
        let number = pods.strip_prefix("systemd-app_").and_then(|rest| rest.split(' ').next());
        let number = number.with_context(|| format!("{host}: {pods:?}"))?;
        ensure!(pods == format!("systemd-app_{number} Running 3"), "{host}: {pods:?}");
        let page = format!(
            "podman exec systemd-side_{number} wget -qO- http://127.0.0.1/ || true; cat /run/fleet/files/side@{number}/index.html"
        );
        let page = cluster.lab.sh(&host, &page)?;
        ensure!(page.ends_with("hello"), "{host}: {page:?}");
        victim = Some((host, number.to_string()));
    }
    // A container that dies is back by its own Restart=, and the pod with it.
    let (host, number) = victim.context("no host")?;
    let pid = cluster
        .lab
        .sh(&host, &format!("podman inspect --format '{{{{.State.Pid}}}}' systemd-web_{number}"))?;
    cluster.lab.sh(&host, &format!("kill -9 {pid}"))?;
    wait_for("the container to be back", PATIENCE, || {
        let now = cluster.lab.sh(
            &host,
            &format!("podman inspect --format '{{{{.State.Pid}}}}' systemd-web_{number}"),
        )?;
        ensure!(now != pid && now != "0", "its pid is {now}");
        Ok(())
    })?;
    cluster.ctl(&["destroy", "app@.pod"])?;
    for host in cluster.hosts() {
        wait_for("the pods to be gone", PATIENCE, || {
            let left = "podman pod ps --noheading; podman ps --all --noheading; ls /run/fleet/files; \
                ls /run/systemd/system | grep -E 'app@|web@|side@' || true; \
                podman network ls --noheading --format '{{.Name}}' | grep systemd || true";
            let left = cluster.lab.sh(&host, left)?;
            ensure!(left.is_empty(), "{host} has {left:?}");
            Ok(())
        })?;
    }
    Ok(())
}

/// Submits the web server with files that say `word`.
fn apply_web(cluster: &Cluster, verb: &str, word: &str) -> Result<()> {
    let (env, conf) = (format!("LOG=level-{word}\n"), format!("{word}\n"));
    let files = [("app.env", env.as_str()), ("conf/nginx.conf", conf.as_str())];
    let bundle = send(cluster, &files, &[("app.network", NETWORK), ("data.volume", VOLUME)])?;
    let text = format!("{WEB}\n[X-Fleet]\nMaxUnavailable=2\nBundle={bundle}\n");
    let path = cluster.write_unit("web@.container", &text)?;
    cluster.ctl(&[verb, "--replace", &path]).map(drop)
}

/// Puts a bundle into the store, as an apply does.
fn send(cluster: &Cluster, files: &[(&str, &str)], quadlets: &[(&str, &str)]) -> Result<BundleRef> {
    let mut bundle = Bundle::default();
    for (path, content) in files {
        let (sum, size) = (put(cluster, content)?, content.len() as u64);
        bundle.files.insert(path.to_string(), FileEntry { sum, size, executable: false });
    }
    for (name, text) in quadlets {
        bundle.quadlets.insert(UnitName::parse(name)?, put(cluster, text)?);
    }
    let sum = put(cluster, &String::from_utf8(bundle.encode())?)?;
    let app = AppName::parse("shop").map_err(anyhow::Error::msg)?;
    Ok(BundleRef { app, sum })
}

fn put(cluster: &Cluster, content: &str) -> Result<Checksum> {
    let sum = Checksum::of(content.as_bytes());
    cluster.write("h1", "/tmp/blob", content)?;
    let key = format!("/fleet.blobs/shop/{sum}");
    cluster.lab.sh("h1", &format!("ETCDCTL_API=3 etcdctl put {key} < /tmp/blob"))?;
    Ok(sum)
}

/// What the instances on this host said of their files when they started, at last.
fn said(cluster: &Cluster, host: &str, files: &str) -> Result<()> {
    let here = cluster.running_on(host, &["web@*.service"])?;
    ensure!(!here.is_empty(), "nothing runs on {host}");
    let read = "podman run --rm --network none -v systemd-data:/d localhost/busybox cat /d/said";
    wait_for(&format!("{host} to have said {files:?}"), PATIENCE, || {
        let all = cluster.lab.sh(host, read)?;
        for unit in here.keys() {
            let number = unit.trim_start_matches("web@").trim_end_matches(".service");
            let line = format!("{number} {files}");
            ensure!(all.lines().any(|said| said == line), "no {line:?} in {all:?}");
        }
        Ok(())
    })
}
