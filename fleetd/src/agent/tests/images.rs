//! Images before instances: what a pull that hangs, fails or is done means for what runs.

use super::*;
use crate::systemd::quadlet::Generator;

/// As podman's generator: the texts here are services already, or refused. It counts its runs.
const GENERATOR: &str = r#"echo run >> "$0.runs"
for file in "${QUADLET_UNIT_DIRS%%:*}"/*.container; do
    grep -q refuse "$file" && continue
    name=${file##*/}
    printf '%s\n' "---${name%.container}.service---" '[Unit]' "SourcePath=$file"
    cat "$file"
done"#;

async fn host() -> Host {
    let mut host = Host::new().await;
    let generator = host.folder.path().join("quadlet");
    // Written by another process: one that a process of ours still has open cannot be run.
    let recipe = format!(
        "cat > '{0}' <<'END' && chmod +x '{0}'\n#!/bin/sh\n{GENERATOR}\nEND\n",
        generator.display()
    );
    assert!(std::process::Command::new("sh").args(["-c", &recipe]).status().unwrap().success());
    take_generator(&mut host);
    host
}

fn take_generator(host: &mut Host) {
    let folder = host.folder.path();
    host.agent.generator = Generator::at(folder.join("quadlet"), folder.join("run/quadlet"));
}

fn text(image: &str) -> String {
    format!("[X-Container]\nImage={image}\n[Service]\nExecStart=/usr/bin/podman run {image}\n")
}

/// The service that pulls this image.
fn pull(image: &str) -> UnitName {
    let service = fleet_core::unit::file::UnitFile::parse_lenient(&text(image));
    fleet_core::unit::image::Image::of(&service).unwrap().service()
}

/// The states of the instances, as reported.
async fn said(host: &mut Host, names: &[&str]) -> Vec<String> {
    let mut seen = host.agent.observe(host.now_ms).await.unwrap();
    host.agent.look_for_images(&mut seen, host.now_ms).await;
    let report = host.agent.report(&seen, host.now_ms).await;
    let status = names.iter().map(|name| &report.instances[&UnitName::parse(name).unwrap()]);
    status
        .map(|status| {
            let said = status.pulls.as_ref().or(status.message.as_ref());
            let said = said.map_or(String::new(), |said| format!(": {said}"));
            format!("{} {}{said}", status.active, status.sub)
        })
        .collect()
}

/// Somebody stops a service that hangs; its next start works.
async fn end_by_hand(host: &Host, service: &UnitName) {
    host.sim.heal(service);
    host.sim.systemctl(Job::Stop, service);
    let gone = async {
        while host.sim.loaded().contains_key(service) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(10), gone).await.expect("the stop of a service that is healed");
}

#[tokio::test]
async fn instances_of_one_image_wait_for_one_pull_and_nothing_of_it_is_left() {
    let mut host = host().await;
    let web = host.text("web@.container", 1, &text("h1:5000/web:1")).await;
    let wanted = [("web@1.container", &web), ("web@2.container", &web)];
    host.sim.hang(&pull("h1:5000/web:1"));
    host.run_until_hanging(&wanted).await;
    let files: Vec<UnitName> = host.sim.files().into_keys().collect();
    assert_eq!(files, [pull("h1:5000/web:1")], "nothing but the pull is written");
    let names = ["web@1.container", "web@2.container"];
    assert_eq!(said(&mut host, &names).await, ["activating pulling: h1:5000/web:1"; 2]);
    assert_eq!(host.sim.counters().start, 1);
    end_by_hand(&host, &pull("h1:5000/web:1")).await;
    host.run(&wanted).await;
    assert_eq!(host.running(), "web@1.service web@2.service");
    assert!(!host.sim.files().contains_key(&pull("h1:5000/web:1")));
}

#[tokio::test]
async fn a_pull_that_fails_leaves_what_runs_alone_and_is_tried_again() {
    let mut host = host().await;
    let old = host.text("web.container", 1, &text("h1:5000/web:1")).await;
    host.run(&[("web.container", &old)]).await;
    let web = UnitName::trusted("web.service");
    let before = host.sim.running_text(&web).unwrap();
    let new = host.text("web.container", 2, &text("h1:5000/web:2")).await;
    host.sim.fail(&pull("h1:5000/web:2"), "timeout", 0);
    host.run(&[("web.container", &new)]).await;
    assert_eq!(host.sim.running_text(&web).unwrap(), before);
    assert_eq!(
        said(&mut host, &["web.container"]).await,
        ["active running: cannot pull the image h1:5000/web:2: it was not done within 15 min"]
    );
    assert_eq!(host.trouble("web.container").failures, 0, "the instance itself is well");
    // It dies meanwhile, and comes back as it was.
    host.sim.fail(&web, "exit-code", 1);
    host.sim.heal(&web);
    host.run(&[("web.container", &new)]).await;
    assert_eq!(host.sim.running_text(&web).unwrap(), before);
    host.sim.heal(&pull("h1:5000/web:2"));
    host.now_ms += 60_000;
    host.run(&[("web.container", &new)]).await;
    assert!(host.sim.running_text(&web).unwrap().contains("podman run h1:5000/web:2"));
    assert_eq!(host.running(), "web.service");
}

#[tokio::test]
async fn a_fleetd_that_starts_in_the_middle_of_a_pull_goes_on_with_it() {
    let mut host = host().await;
    let web = host.text("web.container", 1, &text("h1:5000/web:1")).await;
    host.sim.hang(&pull("h1:5000/web:1"));
    host.run_until_hanging(&[("web.container", &web)]).await;
    host.restart_fleetd();
    take_generator(&mut host);
    host.run_until_hanging(&[("web.container", &web)]).await;
    assert_eq!(said(&mut host, &["web.container"]).await, ["activating pulling: h1:5000/web:1"]);
    end_by_hand(&host, &pull("h1:5000/web:1")).await;
    host.run(&[("web.container", &web)]).await;
    assert_eq!((host.running(), host.sim.files().len()), ("web.service".to_string(), 1));
}

#[tokio::test]
async fn a_pull_that_nothing_waits_for_any_more_is_ended() {
    let mut host = host().await;
    let old = host.text("web.container", 1, &text("h1:5000/web:1")).await;
    host.run(&[("web.container", &old)]).await;
    let new = host.text("web.container", 2, &text("h1:5000/web:2")).await;
    host.sim.hang(&pull("h1:5000/web:2"));
    host.run_until_hanging(&[("web.container", &new)]).await;
    assert!(host.sim.files().contains_key(&pull("h1:5000/web:2")));
    host.run(&[("web.container", &old)]).await;
    assert_eq!((host.running(), host.sim.files().len()), ("web.service".to_string(), 1));
    assert_eq!(said(&mut host, &["web.container"]).await, ["active running"]);
}

#[tokio::test]
async fn a_text_that_podman_refuses_is_not_translated_again_while_it_pauses() {
    let mut host = host().await;
    let refused = host.text("web@.container", 1, "[Container]\n# refuse\n").await;
    host.assign(&[("web@1.container", &refused), ("web@2.container", &refused)]);
    let path = host.folder.path().join("quadlet.runs");
    let runs = || std::fs::read_to_string(&path).unwrap().lines().count();
    host.agent.pass(host.now_ms).await.unwrap();
    let first = runs();
    assert!(first > 0 && host.said().is_some());
    host.agent.pass(host.now_ms + 100).await.unwrap();
    assert_eq!(runs(), first, "else a few such texts take all the time for looking");
    host.agent.pass(host.now_ms + converge::FIRST_PAUSE_MS).await.unwrap();
    assert!(runs() > first, "it is tried again");
}

#[tokio::test]
async fn a_pull_that_a_killed_fleetd_left_is_ended_if_nothing_waits_for_it_by_then() {
    let mut host = host().await;
    let web = host.text("web.container", 1, &text("h1:5000/web:1")).await;
    let service = pull("h1:5000/web:1");
    host.sim.hang(&service);
    host.run_until_hanging(&[("web.container", &web)]).await;
    host.restart_fleetd();
    take_generator(&mut host);
    host.agent.pass(host.now_ms).await.unwrap();
    assert!(host.sim.files().contains_key(&service), "nobody knows what is assigned");
    host.run(&[]).await;
    assert_eq!((host.running(), host.sim.files().len()), (String::new(), 0));
    assert_eq!(host.agent.instances.notes.pulls().unwrap().len(), 0);
}
