//! Units with an `[Install]` section.

use super::*;

fn wanted_by(target: &str) -> String {
    format!("{OLD}[Install]\nWantedBy={target}\n")
}

#[tokio::test]
async fn a_unit_with_an_install_section_is_linked_while_it_is_here() {
    let mut host = Host::new().await;
    let (web, db) = (
        host.text("web@.service", 1, &wanted_by("a.target")).await,
        host.text("db.service", 1, OLD).await,
    );
    host.run(&[("web@1.service", &web), ("web@2.service", &web), ("db.service", &db)]).await;
    let links = |host: &Host| format!("{:?}", host.sim.links());
    assert_eq!(links(&host), "{a.target: {web@1.service, web@2.service}}");
    assert_eq!(host.running(), "db.service web@1.service web@2.service");
    let counters = host.sim.counters();
    assert_eq!(
        (counters.enable, counters.reload),
        (1, 1),
        "one call for all, and targets learn of all of them at once"
    );
    // A new text takes its links along, also after a restart of fleetd.
    host.restart_fleetd();
    let web = host.text("web@.service", 2, &wanted_by("b.target").replace("old", "new")).await;
    host.run(&[("web@1.service", &web), ("db.service", &db)]).await;
    assert_eq!(links(&host), "{b.target: {web@1.service}}");
    host.run(&[]).await;
    assert_eq!((links(&host), host.files()), ("{}".to_string(), String::new()));
}

#[tokio::test]
async fn many_units_are_enabled_by_few_calls_and_one_that_systemd_refuses_holds_up_no_other() {
    let mut host = Host::new().await;
    let web = host.text("web@.service", 1, &wanted_by("a.target")).await;
    let names: Vec<String> = (1..=250).map(|number| format!("web@{number}.service")).collect();
    let mut wanted: Vec<(&str, &Placement)> =
        names.iter().map(|name| (name.as_str(), &web)).collect();
    host.run(&wanted).await;
    assert_eq!(host.sim.links()[&UnitName::trusted("a.target")].len(), 250);
    assert_eq!(host.sim.counters().enable, 3, "100 a call");
    let bad = host.text("bad.service", 1, &format!("{OLD}[Install]\nAlias=bad.socket\n")).await;
    let good = host.text("good.service", 1, &wanted_by("b.target")).await;
    wanted.extend([("bad.service", &bad), ("good.service", &good)]);
    host.run(&wanted).await;
    assert_eq!(host.running().split(' ').count(), 251, "all but the bad one");
    assert!(host.running().contains("good.service") && !host.files().contains("bad.service"));
    assert_eq!(format!("{:?}", host.sim.links()[&UnitName::trusted("b.target")]), "{good.service}");
}

#[tokio::test]
async fn enabling_a_unit_takes_no_place_of_a_host_unit_and_enables_none() {
    let mut host = Host::new().await;
    for own in ["dbus.service", "debug-shell.service", "shell@.service"] {
        host.sim.define_on_host(
            &UnitName::parse(own).unwrap(),
            &format!("/usr/lib/systemd/system/{own}"),
            OLD,
        );
    }
    let cases = [
        (
            "a.service",
            "Alias=dbus.service",
            "Alias=dbus.service: this machine has a dbus.service of its own \
                (/usr/lib/systemd/system/dbus.service); fleet takes the place of none",
        ),
        (
            "b.service",
            "Also=debug-shell.service",
            "Also=debug-shell.service: this machine has a debug-shell.service of its own \
                (/usr/lib/systemd/system/debug-shell.service); fleet enables only its own",
        ),
        (
            "shell.service",
            "Alias=%p@x.service",
            "Alias=shell@x.service: this machine has a shell@x.service of its own \
                (/usr/lib/systemd/system/shell@.service); fleet takes the place of none",
        ),
        (
            "c.service",
            "Alias=%H.service",
            "Alias=%H.service: which unit that is, only the machine knows; of specifiers, use %i, \
                %j, %n, %N and %p",
        ),
    ];
    for (unit, line, expected) in cases {
        let placement = host.text(unit, 1, &format!("{OLD}[Install]\n{line}\n")).await;
        host.run(&[(unit, &placement)]).await;
        let said = host.said();
        assert_eq!((said.as_deref(), host.running().as_str()), (Some(expected), ""), "{line}");
        assert!(host.files().is_empty(), "{}", host.files());
        host.run(&[]).await;
    }
    let fine = host
        .text("d.service", 1, &format!("{OLD}[Install]\nAlias=other.service\nAlso=later.socket\n"))
        .await;
    host.run(&[("d.service", &fine)]).await;
    assert_eq!((host.running().as_str(), host.sim.counters().enable), ("d.service", 1));
}

#[tokio::test]
async fn systemd_reads_its_files_again_once_nothing_enabled_is_left() {
    let mut host = Host::new().await;
    let web = host.text("web.service", 1, &wanted_by("a.target")).await;
    host.run(&[("web.service", &web)]).await;
    let before = host.sim.counters().reload;
    host.run(&[]).await;
    assert_eq!(host.sim.counters().reload, before + 1, "after a destroy");
    host.run(&[("web.service", &web)]).await;
    let before = host.sim.counters().reload;
    host.agent.stop_everything().await;
    assert_eq!(host.sim.counters().reload, before + 1, "after a leave");
}
