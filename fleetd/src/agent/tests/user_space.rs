//! A soft-reboot.

use super::*;

fn name(name: &str) -> UnitName {
    UnitName::parse(name).unwrap()
}

#[tokio::test]
async fn after_a_soft_reboot_what_was_launched_starts_again_though_run_is_as_it_was() {
    let mut host = Host::new().await;
    let (web, db) =
        (host.text("web.service", 1, OLD).await, host.text("db@1.service", 1, OLD).await);
    let mut spare = host.text("spare.service", 1, OLD).await;
    spare.state = DesiredState::Loaded;
    let all = [("web.service", &web), ("db@1.service", &db), ("spare.service", &spare)];
    host.run(&all).await;
    host.restart_fleetd();
    host.run(&all).await;
    assert_eq!(
        (host.running().as_str(), host.sim.counters().start),
        ("db@1.service web.service", 2)
    );
    host.sim.soft_reboot();
    host.restart_fleetd();
    host.run(&all).await;
    assert_eq!(host.running(), "db@1.service web.service");
}

#[tokio::test]
async fn what_systemd_itself_ran_after_a_soft_reboot_is_not_run_twice() {
    let mut host = Host::new().await;
    let target = name("a.target");
    host.sim.define_on_host(&target, "/usr/lib/systemd/system/a.target", "[Unit]\n");
    let install = "[Install]\nWantedBy=a.target\n";
    let once = format!("[Service]\nType=oneshot\nExecStart=/bin/once\n{install}");
    let once = host.text("once.service", 1, &once).await;
    let later = "[Service]\nType=oneshot\nExecStart=/bin/later\n";
    let later = host.text("later@.service", 1, later).await;
    let web = host.text("web.service", 1, &format!("{OLD}{install}")).await;
    let all = [("once.service", &once), ("later@1.service", &later), ("web.service", &web)];
    host.sim.systemctl(Job::Start, &target);
    host.sim.hang(&name("once.service")); // so that it has not ended before the reboot
    host.run_until_hanging(&all).await;
    host.sim.soft_reboot();
    host.sim.heal(&name("once.service"));
    host.sim.systemctl(Job::Start, &target);
    let before = host.sim.counters();
    host.restart_fleetd();
    host.run(&all).await;
    let after = host.sim.counters();
    assert_eq!(host.running(), "a.target web.service");
    assert_eq!(after.start - before.start, 1, "only what systemd has not run");
    // Now it is as any other: what ends by itself stays so.
    host.sim.exit(&name("web.service"));
    host.sim.heal(&name("web.service"));
    host.run(&all).await;
    assert_eq!((host.running().as_str(), host.sim.counters().start), ("a.target", after.start));
}
