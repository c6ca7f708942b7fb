//! Names that the host itself uses, and stops that systemd refuses.

use super::*;

#[tokio::test]
async fn a_name_that_the_host_takes_over_is_left_to_it_by_every_step() {
    let one = UnitName::trusted("one.service");
    for step in ["start --replace", "restart", "destroy", "stop"] {
        let mut host = Host::new().await;
        let mut web = host.text("one.service", 1, OLD).await;
        host.run(&[("one.service", &web)]).await;
        // The operator's own unit, which he has started.
        host.sim.define_on_host(
            &one,
            "/etc/systemd/system/one.service",
            "[Service]\nExecStart=/bin/hosts\n",
        );
        host.sim.reload().await.unwrap();
        host.sim.queue(&one, Job::Restart).await.unwrap();
        host.sim.changes().wait_for(|_| host.sim.jobs_in_flight() == 0).await.unwrap();
        let before = host.sim.counters();
        match step {
            "start --replace" => web = host.text("one.service", 2, NEW).await,
            "restart" => web.restart = 1,
            "stop" => web.state = DesiredState::Loaded,
            _ => {}
        }
        let wanted: &[(&str, &Placement)] =
            if step == "destroy" { &[] } else { &[("one.service", &web)] };
        host.run(wanted).await;
        let after = host.sim.counters();
        assert_eq!(
            (after.stop, after.restart, after.start),
            (before.stop, before.restart, before.start),
            "{step}"
        );
        assert!(
            host.sim.running_text(&one).is_some_and(|text| text.contains("/bin/hosts")),
            "{step}"
        );
        assert_eq!(host.files(), "", "{step}: nothing of fleet's is left beside it");
        assert_eq!(after.reload, before.reload + 1, "{step}: nor in what systemd has loaded of it");
        let said = host.said().unwrap_or_default();
        let own = "this machine has a one.service of its own (/etc/systemd/system/one.service)";
        assert_eq!(said.starts_with(own), step != "destroy", "{step}: {said}");
    }
}

#[tokio::test]
async fn a_file_that_systemd_does_not_go_by_yet_keeps_no_unit_of_fleets_from_its_stop_and_no_new_text_hands_it_over()
 {
    let one = UnitName::trusted("one.service");
    let mut host = Host::new().await;
    let old = host.text("one.service", 1, OLD).await;
    host.run(&[("one.service", &old)]).await;
    host.sim.define_on_host(
        &one,
        "/etc/systemd/system/one.service",
        "[Service]\nExecStart=/bin/hosts\n",
    );
    let new = host.text("one.service", 2, NEW).await;
    host.run(&[("one.service", &new)]).await;
    let said = host.said().unwrap_or_default();
    assert!(said.contains("of its own (/etc/systemd/system/one.service)"), "{said}");
    assert_eq!(
        (host.sim.counters().reload, host.sim.running_text(&one).as_deref()),
        (0, Some(OLD))
    );
    host.run(&[]).await;
    assert_eq!(
        (host.running(), host.files()),
        (String::new(), String::new()),
        "what ran was fleet's"
    );
}

#[tokio::test]
async fn a_stop_that_systemd_refuses_is_told_and_the_unit_stays_known_until_it_has_stopped() {
    let mut host = Host::new().await;
    let text = host.text("web.service", 1, &format!("[Unit]\nRefuseManualStop=yes\n{OLD}")).await;
    host.run(&[("web.service", &text)]).await;
    host.run(&[]).await;
    let name = UnitName::trusted("web.service");
    let seen = host.agent.observe(host.now_ms).await.unwrap();
    let report = host.agent.report(&seen, host.now_ms).await;
    let status = &report.instances[&name];
    assert!(
        status.stop_refused
            && status.message.as_ref().is_some_and(|said| said.contains("Operation refused")),
        "{status:?}"
    );
    assert_eq!((host.running().as_str(), status.active.as_str()), ("web.service", "active"));
    host.sim.kill(&name);
    host.sim.fail(&name, "signal", 9); // it ends otherwise
    host.run(&[]).await;
    assert_eq!(
        (host.running(), host.files(), host.agent.instances.written().count()),
        (String::new(), String::new(), 0)
    );
}
