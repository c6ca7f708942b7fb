//! What is said of failures.

use super::*;

#[tokio::test]
async fn a_restart_that_is_carried_out_ends_what_was_said_of_one_that_was_refused() {
    let mut host = Host::new().await;
    let (name, mut web) =
        (UnitName::trusted("web.service"), host.text("web.service", 1, OLD).await);
    host.run(&[("web.service", &web)]).await;
    let instance = host.agent.instances.of(&name);
    instance.trouble.again(host.now_ms, Some("masked".to_string()));
    instance.since = Some(("active".to_string(), host.now_ms)); // not well for long: that alone would end it
    web.restart = 1;
    host.agent.assignment = Some(Arc::new(Assignment {
        instances: [(name.clone(), web)].into(),
        ..Assignment::default()
    }));
    host.now_ms += 2_000;
    host.agent.pass(host.now_ms).await.unwrap();
    let trouble = host.trouble(name.as_str());
    assert_eq!(
        (host.sim.counters().restart, trouble.failures, trouble.message.as_deref()),
        (1, 1, None)
    );
}

#[tokio::test]
async fn a_failure_is_reported_before_the_next_try_hides_it() {
    let mut host = Host::new().await;
    let (name, web) = (UnitName::trusted("web.service"), host.text("web.service", 1, OLD).await);
    host.run(&[("web.service", &web)]).await;
    let lease = host.store.grant(Duration::from_secs(10)).await.unwrap();
    host.agent.reports.go_under(Some(host.store.register(&machine(), lease).await.unwrap()));
    host.sim.fail(&name, "timeout", 15);
    host.sim.hang(&name); // its next start takes long until it fails
    host.now_ms += 2_000;
    host.agent.pass(host.now_ms).await.unwrap();
    let reported = host.agent.reports.last().map(|report| &report.instances[&name]);
    assert_eq!(
        reported.map(|status| (status.active.as_str(), status.result.as_str())),
        Some(("failed", "timeout"))
    );
}

#[tokio::test]
async fn what_systemd_said_of_a_program_that_it_could_not_run_is_reported() {
    let mut host = Host::new().await;
    let (name, web) = (UnitName::trusted("web.service"), host.text("web.service", 1, OLD).await);
    host.run(&[("web.service", &web)]).await;
    host.sim.fail(&name, "exit-code", 203);
    let status = host.status(name.as_str()).await;
    assert_eq!(status.reason.as_deref(), Some("Failed to run it"));
}
