//! What lies on hosts, under real podman: secrets decide where a unit runs, volumes are listed and
//! destroyed, and registries are asked for other images.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use fleet_core::wire::{ImageCheckPage, Volume, VolumePage};
use fleet_tests::cluster::{Cluster, PATIENCE, Said, scenario};
use fleet_tests::lab::wait_for;

use crate::lab;
use crate::registry::{self, REGISTRY, push};

const DB: &str = "[Container]
Image=localhost/busybox:latest
Volume=data.volume:/data
Secret=db-password,type=env,target=PASSWORD
StopTimeout=1
Exec=sh -c 'echo $PASSWORD > /data/password; sleep infinity'

[Service]
Restart=always
";

const MIB: u64 = 1024 * 1024;

#[test]
fn what_lies_on_hosts_is_found_asked_for_and_destroyed() -> Result<()> {
    scenario(&lab("on-hosts", 2), |cluster| {
        a_unit_runs_where_its_secret_is(cluster)?;
        a_volume_is_listed_with_its_machine_size_and_user(cluster)?;
        a_volume_in_use_is_not_destroyed_and_one_that_is_left_is(cluster)?;
        registries_are_asked_for_other_images_and_nothing_changes(cluster)
    })
}

fn a_unit_runs_where_its_secret_is(cluster: &Cluster) -> Result<()> {
    cluster.write("h1", "/root/shop/db.container", DB)?;
    cluster.write("h1", "/root/shop/data.volume", "[Volume]\n")?;
    let said = ends_with(cluster, 1, &["plan", "/root/shop"])?;
    ensure!(said.out.contains("its podman has no secret db-password"), "{said:?}");
    cluster.ctl(&["apply", "--yes", "--no-block", "/root/shop"])?;
    // No reload of fleetd: it notices.
    cluster.lab.sh("h2", "printf sesame | podman secret create db-password -")?;
    wait_for("the database to run on h2", PATIENCE, || {
        let running = cluster.running_on("h2", &["db.service"])?;
        ensure!(running.len() == 1, "{running:?}");
        Ok(())
    })?;
    wait_for("the secret to be in the volume", PATIENCE, || {
        let password = cluster.lab.sh("h2", &format!("cat {}/password", place(cluster)?))?;
        ensure!(password == "sesame", "{password:?}");
        Ok(())
    })
}

fn a_volume_is_listed_with_its_machine_size_and_user(cluster: &Cluster) -> Result<()> {
    let fill = format!("head -c {MIB} /dev/zero > {}/zeroes; sync", place(cluster)?);
    cluster.lab.sh("h2", &fill)?;
    cluster.lab.sh("h2", "podman volume create mine")?;
    let volume = only(cluster)?;
    ensure!(volume.name == "systemd-data" && volume.unit == "data.volume", "{volume:?}");
    ensure!(volume.app == "shop" && volume.used_by == ["db.container"], "{volume:?}");
    ensure!(cluster.host_of(&volume.machine_id)? == "h2", "{volume:?}");
    ensure!(volume.size_bytes.is_some_and(|size| (MIB..2 * MIB).contains(&size)), "{volume:?}");
    let list = cluster.ctl(&["volumes", "--no-legend", "--fields=volume,used"])?;
    ensure!(list.split_whitespace().eq("systemd-data in use by db.container".split(' ')), "{list}");
    Ok(())
}

fn a_volume_in_use_is_not_destroyed_and_one_that_is_left_is(cluster: &Cluster) -> Result<()> {
    let refused = ends_with(cluster, 1, &["destroy", "--volumes", "--yes", "data"])?;
    ensure!(refused.err.contains("is in use by db.container; nothing was changed"), "{refused:?}");
    // fleetd itself refuses it, too, whoever asks.
    let machine = only(cluster)?.machine_id;
    let delete = format!(
        "curl -s -o /dev/null -w '%{{http_code}}' --unix-socket /run/fleet.sock -X DELETE \
        http://fleet/fleet/v1/machines/{machine}/volumes/systemd-data"
    );
    let code = cluster.lab.sh("h1", &delete)?;
    ensure!(code == "409", "it answered {code}");
    let said = ends_with(cluster, 0, &["destroy", "--app", "shop", "--yes"])?;
    ensure!(said.err.contains("`fleetctl destroy --volumes shop` removes it"), "{said:?}");
    cluster.lab.sh("h2", "systemctl restart fleetd")?;
    wait_for("the volume to be left by its last user", PATIENCE, || {
        let volume = only(cluster)?;
        ensure!(volume.used_by.is_empty() && volume.last_user == "db.container", "{volume:?}");
        ensure!(volume.last_used_ms.is_some(), "{volume:?}");
        Ok(())
    })?;
    let password = cluster.lab.sh("h2", &format!("cat {}/password", place(cluster)?))?;
    ensure!(password == "sesame", "the data is gone: {password:?}");
    ends_with(cluster, 2, &["destroy", "--volumes", "shop"])?;
    let said = cluster.ctl(&["destroy", "--volumes", "--yes", "shop"])?;
    ensure!(said.contains("Destroyed the volume systemd-data on "), "{said}");
    let left = cluster.lab.sh("h2", "podman volume ls --noheading --format '{{.Name}}'")?;
    ensure!(left == "mine", "{left:?}");
    let page = volumes(cluster)?;
    ensure!(page.volumes.is_empty() && page.unknown.is_empty(), "{page:?}");
    let told =
        format!("user root@h1 destroyed the volume systemd-data on machine {}", &machine[..8]);
    wait_for("the events to tell it", PATIENCE, || {
        let events = cluster.ctl(&["events"])?;
        ensure!(events.matches(&told).count() == 1, "{events}");
        Ok(())
    })
}

fn registries_are_asked_for_other_images_and_nothing_changes(cluster: &Cluster) -> Result<()> {
    registry::start(cluster)?;
    push(cluster, "web:1")?;
    let text = format!(
        "[Container]\nImage={REGISTRY}/web:1\nAutoUpdate=registry\nStopTimeout=1\n\
        Exec=sleep infinity\n\n[Service]\nRestart=always\n"
    );
    cluster.submit("web@.container", &text)?;
    cluster.ctl(&["scale", "web@.container=2"])?;
    cluster.submit("plain.container", &text.replace("AutoUpdate=registry\n", ""))?;
    cluster.ctl(&["start", "plain.container"])?;
    let before = cluster.running(&["web@*.service", "plain.service"])?;
    words_are(cluster, 0, &["web@"], "false")?;
    push(cluster, "web:1")?;
    words_are(cluster, 1, &[], "pending")?;
    let said = ends_with(cluster, 2, &["update", "--check", "plain", "web@"])?;
    ensure!(
        said.err.contains("plain.container on ") && said.err.contains("not checked"),
        "{said:?}"
    );
    ensure!(said.out.matches(&format!("{REGISTRY}/web:1")).count() == 2, "{said:?}");
    registry::told(cluster, "stop")?;
    ends_with(cluster, 2, &["update", "--check", "web@"])?;
    let after = cluster.running(&["web@*.service", "plain.service"])?;
    ensure!(before.len() == 3 && before == after, "{before:?}, then {after:?}");
    Ok(())
}

/// podman's word for the two web servers, one a host.
fn words_are(cluster: &Cluster, code: i32, units: &[&str], word: &str) -> Result<()> {
    let args: Vec<&str> = ["update", "--check", "--json"].iter().chain(units).copied().collect();
    let said = ends_with(cluster, code, &args)?;
    let page: ImageCheckPage = serde_json::from_str(&said.out)?;
    let machines: BTreeSet<&str> = page.images.iter().map(|one| one.machine_id.as_str()).collect();
    let names: Vec<&str> = page.images.iter().map(|one| one.unit.as_str()).collect();
    ensure!(machines.len() == 2 && names == ["web@1.container", "web@2.container"], "{page:?}");
    ensure!(page.images.iter().all(|one| one.updated == word && one.policy == "registry"));
    Ok(())
}

/// Where podman keeps the volume's data.
fn place(cluster: &Cluster) -> Result<String> {
    cluster.lab.sh("h2", "podman volume inspect --format '{{.Mountpoint}}' systemd-data")
}

fn volumes(cluster: &Cluster) -> Result<VolumePage> {
    Ok(serde_json::from_str(&cluster.ctl(&["volumes", "--json"])?)?)
}

fn only(cluster: &Cluster) -> Result<Volume> {
    let page = volumes(cluster)?;
    ensure!(page.volumes.len() == 1 && page.unknown.is_empty(), "{page:?}");
    page.volumes.into_iter().next().context("one")
}

fn ends_with(cluster: &Cluster, code: i32, args: &[&str]) -> Result<Said> {
    let said = cluster.fleetctl("h1", args)?;
    ensure!(said.code == code, "fleetctl {args:?}: {said:?}");
    Ok(said)
}
