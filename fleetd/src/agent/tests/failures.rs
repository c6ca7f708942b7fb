//! What follows a failure, by its kind, and what is kept of it.

use fleet_core::model::{MAX_FAILURES, MAX_FAILURES_A_UNIT};
use fleet_core::unit::on_failure::Kind;

use super::*;

/// A text whose failures have wishes of their own; systemd restarts it.
fn text(wishes: &str) -> String {
    format!("[Service]\nExecStart=/bin/old\nRestart=always\n[X-Fleet]\n{wishes}\n")
}

/// The same without `Restart=`: fleet restarts it.
fn plain(wishes: &str) -> String {
    text(wishes).replace("Restart=always\n", "")
}

impl Host {
    /// `web.service` runs with these wishes.
    async fn with_wishes(wishes: &str) -> Host {
        Host::with_text(&text(wishes)).await
    }

    /// `web.service` runs with this text.
    async fn with_text(text: &str) -> Host {
        let mut host = Host::new().await;
        let web = host.text("web.service", 1, text).await;
        host.run(&[("web.service", &web)]).await;
        assert_eq!(host.running(), "web.service");
        host
    }

    /// It fails, and works again at its next start; then some time passes.
    async fn fails_once(&mut self, result: &str, code: i32) {
        let web = UnitName::trusted("web.service");
        self.sim.fail(&web, result, code);
        self.sim.heal(&web);
        let mut jobs = self.sim.changes();
        for _ in 0..3 {
            self.now_ms += 1_000;
            self.agent.pass(self.now_ms).await.unwrap();
            jobs.wait_for(|_| self.sim.jobs_in_flight() == 0).await.unwrap();
        }
    }

    /// The kept failures, one a line: `web.service exit-code 1 x2`.
    fn failures(&self) -> String {
        let failed = self.agent.failures.list().iter();
        let line = failed.map(|one| {
            let code = one.code.map_or(String::new(), |code| format!(" {code}"));
            format!("{} {}{code} x{}", one.instance, one.result, one.count)
        });
        line.collect::<Vec<_>>().join(", ")
    }
}

#[tokio::test]
async fn what_was_started_again_says_how_it_failed_before() {
    let mut host = Host::with_text(&plain("")).await;
    host.fails_once("exit-code", 7).await;
    let status = host.status("web.service").await;
    assert_eq!((status.active.as_str(), status.restarts), ("activating", 1), "{status:?}");
    assert_eq!((status.result.as_str(), status.code), ("exit-code", Some(7)));
}

#[tokio::test]
async fn what_gives_up_stays_failed_and_says_so_until_a_restart_is_asked_for() {
    let mut host = Host::with_wishes("OnFailure.exit-78=give-up").await;
    host.fails_once("exit-code", 78).await;
    for _ in 0..5 {
        host.now_ms += 60_000;
        host.agent.pass(host.now_ms).await.unwrap();
    }
    assert_eq!((host.running().as_str(), host.sim.counters().start), ("", 1));
    let status = host.status("web.service").await;
    assert_eq!((status.active.as_str(), status.result.as_str()), ("failed", "exit-code"));
    assert!(status.stays_down && !status.gave_up && status.next_try_ms.is_none(), "{status:?}");
    let expected =
        "it stays failed (OnFailure.exit-78=give-up); fleetctl restart tries it once more";
    assert_eq!(status.message.as_deref(), Some(expected));
    // A new fleetd does not forget, and counts nothing twice.
    host.restart_fleetd();
    let mut web = host.text("web.service", 2, &text("OnFailure.exit-78=give-up")).await;
    web.revision = 1;
    host.run(&[("web.service", &web)]).await;
    assert_eq!((host.running().as_str(), host.sim.counters().start), ("", 1));
    assert_eq!(host.failures(), "web.service exit-code 78 x1");
    web.restart = 1;
    host.run(&[("web.service", &web)]).await;
    assert_eq!(host.running(), "web.service");
    assert!(!host.status("web.service").await.stays_down);
}

#[tokio::test]
async fn what_is_up_again_by_somebody_elses_hand_is_judged_anew() {
    let mut host = Host::with_wishes("OnFailure.exit-78=give-up").await;
    host.fails_once("exit-code", 78).await;
    let web = UnitName::trusted("web.service");
    host.sim.systemctl(Job::Start, &web);
    while host.running() != "web.service" {
        tokio::task::yield_now().await;
    }
    host.now_ms += 1_000;
    host.agent.pass(host.now_ms).await.unwrap();
    assert!(!host.status("web.service").await.stays_down);
    host.fails_once("exit-code", 78).await;
    assert!(host.status("web.service").await.stays_down);
    assert_eq!(host.failures(), "web.service exit-code 78 x2");
}

#[tokio::test]
async fn a_failure_that_moves_is_told_at_once_and_restarted_until_the_leader_moves_it() {
    let mut host = Host::with_wishes("OnFailure.watchdog=move").await;
    host.fails_once("watchdog", 6).await;
    let status = host.status("web.service").await;
    assert!(status.gave_up && status.restarts == 1 && host.running() == "web.service");
    assert_eq!(host.agent.failure_counts.read(Kind::Watchdog), 1);
}

#[tokio::test]
async fn the_second_out_of_memory_kill_moves_unless_it_ran_well_in_between() {
    let mut host = Host::new().await;
    let web = host.text("web.service", 1, OLD).await;
    host.run(&[("web.service", &web)]).await;
    host.fails_once("oom-kill", 9).await;
    assert!(!host.status("web.service").await.gave_up);
    host.run(&[("web.service", &web)]).await; // a few minutes
    host.fails_once("oom-kill", 9).await;
    assert!(!host.status("web.service").await.gave_up, "it ran well in between");
    host.fails_once("oom-kill", 9).await;
    assert!(host.status("web.service").await.gave_up);
    assert_eq!(host.failures(), "web.service oom-kill 9 x3");
}

#[tokio::test]
async fn what_is_to_be_restarted_never_counts_towards_a_move() {
    let mut host = Host::with_text(&plain("OnFailure.exit-code=restart")).await;
    for _ in 0..7 {
        host.fails_once("exit-code", 1).await;
        host.now_ms += 55_000;
    }
    let status = host.status("web.service").await;
    assert!(status.restarts >= 6 && !status.gave_up, "{status:?}");
    let mut host = Host::with_text(&plain("")).await;
    for _ in 0..7 {
        host.fails_once("exit-code", 1).await;
        host.now_ms += 40_000;
    }
    assert!(host.status("web.service").await.gave_up, "it would");
}

#[tokio::test]
async fn the_last_failures_are_kept_by_unit_and_also_when_the_instance_has_left() {
    let mut host = Host::with_text(&plain("")).await;
    host.fails_once("exit-code", 1).await;
    host.fails_once("exit-code", 1).await;
    host.now_ms += 60_000;
    host.fails_once("signal", 9).await;
    let expected = "web.service signal 9 x1, web.service exit-code 1 x2";
    assert_eq!(host.failures(), expected);
    host.run(&[]).await;
    assert_eq!((host.running().as_str(), host.failures().as_str()), ("", expected));
    host.restart_fleetd();
    assert_eq!(host.failures(), expected);
    let outcome = |code| crate::systemd::JobOutcome {
        result: "exit-code".into(),
        code: Some(code),
        restarts: 0,
    };
    for nth in 0..100 {
        let name = UnitName::trusted(format!("many@{nth}.service"));
        host.agent.take_failure(&name, &outcome(nth), host.now_ms, true);
    }
    let kept = host.failures().matches("many@").count();
    assert_eq!(kept, MAX_FAILURES_A_UNIT);
    assert!(host.failures().contains("signal 9"), "other units' are kept");
    for nth in 0..100 {
        let name = UnitName::trusted(format!("u{nth}.service"));
        host.agent.take_failure(&name, &outcome(1), host.now_ms, true);
    }
    assert_eq!(host.agent.failures.list().len(), MAX_FAILURES);
}

/// How long after a program's death the store has it, in milliseconds: it dies `after_ms` after
/// its start.
async fn told_after(after_ms: u64) -> u64 {
    let mut host = Host::new().await;
    let lease = host.store.grant(Duration::from_secs(10)).await.unwrap();
    host.agent.reports.go_under(Some(host.store.register(&machine(), lease).await.unwrap()));
    let seconds = after_ms as f64 / 1_000.0;
    let text = format!("[Service]\nExecStart=/bin/sh -c 'sleep {seconds}; exit 7'\n");
    let web = host.text("web.service", 1, &text).await;
    host.assign(&[("web.service", &web)]);
    let name = UnitName::trusted("web.service");
    let mut started_ms = None;
    for _ in 0..1_000 {
        // A listing takes no time.
        let now_ms = host.now_ms;
        let next_ms = clock::with_clock(Arc::new(move || now_ms), host.agent.pass(now_ms)).await;
        let next_ms = next_ms.unwrap();
        if started_ms.is_none() && host.sim.counters().start == 1 {
            started_ms = Some(host.now_ms);
        }
        let report = host.agent.reports.last();
        let status = report.and_then(|report| report.instances.get(&name));
        if status.is_some_and(|status| status.active == "failed") {
            return host.now_ms - started_ms.unwrap() - after_ms;
        }
        // A job that ends wakes the agent.
        let busy = host.sim.jobs_in_flight() > 0;
        let pause_ms = if busy { 1 } else { next_ms - host.now_ms };
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        host.now_ms += pause_ms;
    }
    panic!("nobody was told");
}

#[tokio::test(start_paused = true)]
async fn what_dies_soon_after_its_start_is_told_within_100_ms() {
    for after_ms in [0, 20, 50, 130, 400, 850] {
        let late_ms = told_after(after_ms).await;
        assert!(late_ms <= 100, "it died after {after_ms} ms and was told of {late_ms} ms later");
    }
}
