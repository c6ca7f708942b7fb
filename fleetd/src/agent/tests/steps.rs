//! What hangs, or takes long, holds up nothing else.

use super::*;
use crate::systemd::sim::Times;

#[tokio::test]
async fn stops_pass_when_more_starts_hang_than_there_are_slots() {
    let mut host = Host::new().await;
    let text = host.text("hangs@.service", 1, OLD).await;
    let names: Vec<String> = (0..300).map(|number| format!("hangs@{number}.service")).collect();
    names.iter().for_each(|name| host.sim.hang(&UnitName::parse(name).unwrap()));
    let web = host.text("web.service", 1, OLD).await;
    host.run(&[("web.service", &web)]).await;
    let mut wanted: Vec<(&str, &Placement)> =
        names.iter().map(|name| (name.as_str(), &text)).collect();
    wanted.push(("web.service", &web));
    host.assign(&wanted);
    for _ in 0..3 {
        host.now_ms += 1_000;
        host.agent.pass(host.now_ms).await.unwrap();
    }
    assert!(host.sim.jobs_in_flight() > 200, "{}", host.sim.jobs_in_flight());
    wanted.pop();
    host.assign(&wanted);
    let mut jobs = host.sim.changes();
    host.agent.pass(host.now_ms + 1_000).await.unwrap();
    let web = UnitName::trusted("web.service");
    jobs.wait_for(|_| !host.sim.loaded().contains_key(&web)).await.unwrap();
    host.run_until_hanging(&[]).await;
    assert_eq!((host.running(), host.files()), (String::new(), String::new()));
}

#[tokio::test(start_paused = true)]
async fn a_pass_leaves_what_takes_too_long_to_the_next_ones() {
    let times = Times { call: Duration::from_secs(3), job: Duration::ZERO };
    let mut host = Host::with(SimSystemd::new(times)).await;
    let text = host.text("web@.service", 1, OLD).await;
    let names: Vec<String> = (0..20).map(|number| format!("web@{number}.service")).collect();
    let wanted: Vec<(&str, &Placement)> = names.iter().map(|name| (name.as_str(), &text)).collect();
    host.run(&wanted).await;
    assert_eq!(host.running().split(' ').count(), 20);
    for name in &names {
        host.sim.exit(&UnitName::parse(name).unwrap()); // each removal asks systemd about it
    }
    host.assign(&[]);
    for _ in 0..20 {
        host.now_ms += 1_000;
        let begin = tokio::time::Instant::now();
        host.agent.pass(host.now_ms).await.unwrap();
        assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", begin.elapsed());
    }
    assert_eq!(host.files(), "");
}

#[tokio::test]
async fn a_new_text_whose_restart_systemd_refuses_is_told_and_moves_to_no_other_machine() {
    let mut host = Host::new().await;
    let text = |command: &str| {
        format!("[Unit]\nRefuseManualStop=yes\n[Service]\nExecStart=/bin/{command}\n")
    };
    let web = host.text("web.service", 1, &text("old")).await;
    host.run(&[("web.service", &web)]).await;
    let web = host.text("web.service", 2, &text("new")).await;
    host.run(&[("web.service", &web)]).await;
    let status = host.status("web.service").await;
    assert!(status.message.is_some_and(|said| said.contains("Operation refused")));
    assert_eq!(
        (status.active.as_str(), status.stop_refused, status.gave_up),
        ("active", true, false),
        "it runs on here, and would elsewhere, too"
    );
}
