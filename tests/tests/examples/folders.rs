//! Every folder of unit-examples/: applied to three hosts, found at work, changed, applied again
//! and destroyed, with the commands that the comment of its main file teaches.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use fleet_core::name::UnitName;
use fleet_tests::cluster::{Cluster, PATIENCE, scenario};
use fleet_tests::lab::wait_for;

use crate::{
    DB_HOST, active_are, answer, answers, command_in, folder, host_of,
    is_without_a_warning_and_teaches, text_of, three_hosts,
};

/// Each folder, and the file whose comment has its commands. A folder that is not here has no test,
/// so it fails one.
const FOLDERS: [(&str, &str); 3] =
    [("kube", "board.kube"), ("pod", "app@.pod"), ("shop", "web@.container")];

#[test]
fn every_folder_has_a_test_and_a_line_in_the_readme() -> Result<()> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder())? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.insert(entry.file_name().into_string().ok().context("a readable name")?);
        }
    }
    let known: BTreeSet<String> = FOLDERS.iter().map(|(name, _)| name.to_string()).collect();
    assert_eq!(found, known, "the folders in unit-examples/ and this test's table differ");
    let readme = fs::read_to_string(folder().join("README.md"))?;
    for name in known {
        assert!(readme.contains(&format!("`{name}/`")), "unit-examples/README.md: no {name}/");
    }
    Ok(())
}

#[test]
fn units_in_folders_are_without_a_warning_and_begin_with_a_comment() -> Result<()> {
    for (name, main) in FOLDERS {
        for path in files(name)? {
            if path.split('/').count() == 2 && UnitName::parse(&path[name.len() + 1..]).is_ok() {
                is_without_a_warning_and_teaches(&path)?;
            }
        }
        for command in ["apply NAME/", "destroy --app NAME"] {
            let command = format!("fleetctl {}", command.replace("NAME", name));
            assert!(
                command_in(&text_of(&format!("{name}/{main}"))?, &command),
                "{name}: {command}"
            );
        }
    }
    Ok(())
}

#[test]
fn every_folder_is_an_application_that_works() -> Result<()> {
    scenario(&three_hosts("test-example-folders"), |cluster| {
        for (name, _) in FOLDERS {
            for path in files(name)? {
                // What shop/web.env leaves to its reader.
                put(
                    cluster,
                    &path,
                    &text_of(&path)?.replace("//MACHINE:", &format!("//{DB_HOST}:")),
                )?;
            }
        }
        the_shop_finds_its_parts_and_keeps_its_data(cluster)?;
        pods_are_scaled_with_both_containers(cluster)?;
        a_board_of_kubernetes_yaml_shows_its_setting(cluster)
    })
}

fn the_shop_finds_its_parts_and_keeps_its_data(cluster: &Cluster) -> Result<()> {
    let webs = ["web@1.service", "web@2.service", "web@3.service"];
    yes(cluster, "shop", "fleetctl apply shop/")?;
    active_are(cluster, "web@*.service", &webs)?;
    ensure!(host_of(cluster, "db.container")? == DB_HOST);
    let page = |cluster: &Cluster, number: u32, stock: &str| -> Result<()> {
        let host = host_of(cluster, &format!("web@{number}.container"))?;
        let first = format!("Welcome to the shop, from web {number}\nvisitors: ");
        let last = format!("\nstock: {stock}\n");
        answer(cluster, &host, ":8080/page.sh", |text| {
            let between = text.strip_prefix(&first).and_then(|text| text.strip_suffix(&last));
            between.is_some_and(is_a_count)
        })
        .map(drop)
    };
    for number in 1..=3 {
        page(cluster, number, "12 teapots")?;
    }
    cluster.lab.sh(DB_HOST, "podman exec systemd-db sh -c 'echo 11 teapots > /data/stock'")?;
    for number in 1..=3 {
        page(cluster, number, "11 teapots")?;
    }
    // The front's own file says what its start page is.
    let before = cluster.running(&["web@*.service", "db.service", "cache.service"])?;
    let other =
        text_of("shop/front/front.conf")?.replace("web:80/shop.sh", "cache:6379/visitors.sh");
    put(cluster, "shop/front/front.conf", &other)?;
    yes(cluster, "shop", "fleetctl apply shop/")?;
    for host in cluster.hosts() {
        answer(cluster, &host, ":8080/page.sh", is_a_count)?;
    }
    let after = cluster.running(&["web@*.service", "db.service", "cache.service"])?;
    ensure!(after == before, "more than the fronts was restarted: {before:?}, then {after:?}");
    destroyed(cluster, "shop")?;
    let stock = "cat \"$(podman volume inspect --format '{{.Mountpoint}}' systemd-db)\"/stock";
    ensure!(cluster.lab.sh(DB_HOST, stock)? == "11 teapots");
    Ok(())
}

fn pods_are_scaled_with_both_containers(cluster: &Cluster) -> Result<()> {
    yes(cluster, "pod", "fleetctl apply pod/")?;
    let say = |cluster: &Cluster, count: u32, words: &str| -> Result<()> {
        let mut hosts = BTreeSet::new();
        for number in 1..=count {
            let host = host_of(cluster, &format!("app@{number}.pod"))?;
            answers(cluster, &host, ":8180/page.sh", &format!("pod {number}{words}"))?;
            hosts.insert(host);
        }
        ensure!(hosts.len() == count as usize, "{count} pods on {hosts:?}");
        Ok(())
    };
    say(cluster, 2, "")?;
    typed(cluster, "pod", "fleetctl scale app@.pod=3")?;
    say(cluster, 3, "")?;
    let servers = ["server@1.service", "server@2.service", "server@3.service"];
    active_are(cluster, "server@*.service", &servers)?;
    let other = text_of("pod/proxy/proxy.conf")?.replace("/index.html", "/health");
    put(cluster, "pod/proxy/proxy.conf", &other)?;
    yes(cluster, "pod", "fleetctl apply pod/")?;
    say(cluster, 3, " is well")?;
    destroyed(cluster, "pod")
}

fn a_board_of_kubernetes_yaml_shows_its_setting(cluster: &Cluster) -> Result<()> {
    yes(cluster, "kube", "fleetctl apply kube/")?;
    answers(cluster, &host_of(cluster, "board.kube")?, ":8280/", "Nothing is lost")?;
    let settings = text_of("kube/settings.yaml")?;
    put(cluster, "kube/settings.yaml", &settings.replace("Nothing is lost", "One umbrella"))?;
    yes(cluster, "kube", "fleetctl apply kube/")?;
    let host = host_of(cluster, "board.kube")?;
    answers(cluster, &host, ":8280/", "One umbrella")?;
    destroyed(cluster, "kube")?;
    let notice =
        "cat \"$(podman volume inspect --format '{{.Mountpoint}}' board-notices)\"/index.html";
    ensure!(cluster.lab.sh(&host, notice)? == "One umbrella");
    Ok(())
}

/// Destroys the application: nothing of it is left on a host but its volumes.
fn destroyed(cluster: &Cluster, name: &str) -> Result<()> {
    yes(cluster, name, &format!("fleetctl destroy --app {name}"))?;
    for host in cluster.hosts() {
        wait_for(&format!("nothing of {name} to be left on {host}"), PATIENCE, || {
            let left = "podman ps --all --quiet; podman pod ls --quiet; ls /run/fleet/files; \
                podman network ls --noheading | grep systemd- || true";
            let left = cluster.lab.sh(&host, left)?;
            ensure!(left.is_empty(), "{left}");
            Ok(())
        })?;
    }
    Ok(())
}

fn is_a_count(text: &str) -> bool {
    text.trim_end().parse::<u32>().is_ok_and(|count| count > 0)
}

/// Runs a command that the folder's main file teaches, where there is no terminal to ask on.
fn yes(cluster: &Cluster, name: &str, command: &str) -> Result<String> {
    taught(name, command)?;
    cluster.lab.sh("h1", &format!("cd /root/units && {command} --yes"))
}

/// Runs a command that the folder's main file teaches.
fn typed(cluster: &Cluster, name: &str, command: &str) -> Result<String> {
    taught(name, command)?;
    cluster.lab.sh("h1", &format!("cd /root/units && {command}"))
}

fn taught(name: &str, command: &str) -> Result<()> {
    let main = FOLDERS.iter().find(|(folder, _)| *folder == name).context("no such folder")?.1;
    let taught = command_in(&text_of(&format!("{name}/{main}"))?, command);
    ensure!(taught, "the comment of {name}/{main} does not teach `{command}`");
    Ok(())
}

/// Writes a file of a folder on h1, for fleetctl.
fn put(cluster: &Cluster, path: &str, text: &str) -> Result<()> {
    cluster.write("h1", &format!("/root/units/{path}"), text)
}

/// The files of a folder and the folders in it, with paths from unit-examples/.
fn files(name: &str) -> Result<Vec<String>> {
    let mut paths = Vec::new();
    let mut open = vec![name.to_string()];
    while let Some(path) = open.pop() {
        for entry in fs::read_dir(folder().join(Path::new(&path)))? {
            let entry = entry?;
            let inner = entry.file_name().into_string().ok().context("a readable name")?;
            let inner = format!("{path}/{inner}");
            if entry.file_type()?.is_dir() { open.push(inner) } else { paths.push(inner) }
        }
    }
    Ok(paths)
}
