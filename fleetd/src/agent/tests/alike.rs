//! Texts that differ and run the same: a comment, a placement rule.

use super::*;

#[tokio::test]
async fn a_text_that_systemd_reads_the_same_restarts_nothing() {
    let mut host = Host::new().await;
    let old = host.text("web@.service", 1, OLD).await;
    host.run(&[("web@1.service", &old), ("web@2.service", &old)]).await;
    let text = format!("{OLD}# why\n[X-Fleet]\nMaxUnavailable=1\nMachineMetadata=disk=ssd\n");
    let new = host.text("web@.service", 2, &text).await;
    let counters = host.sim.counters();
    host.run(&[("web@1.service", &new), ("web@2.service", &old)]).await;
    host.run(&[("web@1.service", &new), ("web@2.service", &new)]).await;
    let now = host.sim.counters();
    assert_eq!(
        (now.restart, now.start, now.stop),
        (counters.restart, counters.start, counters.stop)
    );
    for name in ["web@1.service", "web@2.service"] {
        let said = host.status(name).await;
        assert_eq!((&said.hash, said.launched, said.settling), (&new.hash, true, false), "{name}");
    }
    // A restart that is asked for along with it is one.
    let again = Placement { restart: 1, ..host.text("web@.service", 3, OLD).await };
    host.run(&[("web@1.service", &again), ("web@2.service", &new)]).await;
    assert_eq!(host.sim.counters().restart, counters.restart + 1);
}

/// A fleetd that dies between any two writes of a text that runs the same.
#[tokio::test]
async fn a_text_that_systemd_reads_the_same_restarts_nothing_wherever_fleetd_dies() {
    for names in [["web@1.service", "web@2.service"], ["a.service", "b.service"]] {
        for room in 0..3 {
            let mut host = Host::new().await;
            let unit = |name: &'static str| if name.contains('@') { "web@.service" } else { name };
            let mut old = Vec::new();
            for name in names {
                old.push((name, host.text(unit(name), 1, OLD).await));
            }
            let wanted: Vec<_> = old.iter().map(|(name, text)| (*name, text)).collect();
            host.run(&wanted).await;
            let mut new = Vec::new();
            for name in names {
                new.push((name, host.text(unit(name), 2, &format!("{OLD}# why\n")).await));
            }
            let counters = host.sim.counters();
            let wanted: Vec<_> = new.iter().map(|(name, text)| (*name, text)).collect();
            host.sim.set_room(room);
            host.assign(&wanted);
            host.agent.pass(host.now_ms).await.unwrap();
            host.sim.set_room(u64::MAX);
            host.restart_fleetd();
            host.run(&wanted).await;
            let now = host.sim.counters();
            assert_eq!(
                (now.restart, now.start, now.stop),
                (counters.restart, counters.start, counters.stop),
                "{names:?} after {room} writes"
            );
            for (name, text) in &new {
                let said = host.status(name).await;
                assert_eq!((&said.hash, said.launched), (&text.hash, true), "{name}");
            }
        }
    }
}

/// A text that does not run the same is started anew also then.
#[tokio::test]
async fn a_text_that_runs_otherwise_restarts_wherever_fleetd_dies() {
    for room in 0..3 {
        let mut host = Host::new().await;
        let old = host.text("web@.service", 1, OLD).await;
        host.run(&[("web@1.service", &old), ("web@2.service", &old)]).await;
        let alike = host.text("web@.service", 2, &format!("{OLD}# why\n")).await;
        host.sim.set_room(room);
        host.assign(&[("web@1.service", &alike), ("web@2.service", &alike)]);
        host.agent.pass(host.now_ms).await.unwrap();
        host.sim.set_room(u64::MAX);
        host.restart_fleetd();
        let restarts = host.sim.counters().restart;
        let new = host.text("web@.service", 3, NEW).await;
        host.run(&[("web@1.service", &new), ("web@2.service", &new)]).await;
        assert_eq!(host.sim.counters().restart, restarts + 2, "after {room} writes");
    }
}
