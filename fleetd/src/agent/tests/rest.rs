//! Launched units that are at rest: which of them start again, and what is said of a start that
//! failed.

use super::*;

/// Bound to another unit, as sidekicks are.
fn bound_to(other: &str) -> String {
    format!("[Unit]\nBindsTo={other}\nAfter={other}\n{OLD}")
}

impl Host {
    fn name(name: &str) -> UnitName {
        UnitName::parse(name).unwrap()
    }

    /// What is reported of a unit: `inactive`, `failed: …`.
    async fn reported(&mut self, name: &str) -> String {
        self.now_ms += 10;
        let mut host = self.agent.observe(self.now_ms).await.unwrap();
        self.agent.explain_rest(&mut host, self.now_ms).await;
        let status = converge::status(&host[&Host::name(name)], 0);
        format!(
            "{}{}",
            status.active,
            status.message.map_or(String::new(), |message| format!(": {message}"))
        )
    }

    /// As [`Host::run`], with what was assigned last.
    async fn go_on(&mut self) {
        self.comes_to_rest().await;
        let wanted = self.agent.assignment.clone().unwrap();
        let wanted: Vec<(&str, &Placement)> =
            wanted.instances.iter().map(|(name, p)| (name.as_str(), p)).collect();
        self.run(&wanted).await;
    }

    /// `systemctl start`, `stop` or `restart` by somebody.
    async fn systemctl(&self, job: Job, name: &str) {
        self.sim.systemctl(job, &Host::name(name));
        self.comes_to_rest().await;
    }

    /// Lets systemd do what it is about to do.
    async fn comes_to_rest(&self) {
        let moves = |unit: &Listed| {
            unit.job || ["activating", "deactivating"].contains(&unit.active.as_str())
        };
        while self.sim.loaded().values().any(moves) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test]
async fn a_sidekick_comes_back_with_its_main_unit_and_stays_down_while_that_is_wanted_down() {
    let mut host = Host::new().await;
    let mut web =
        host.text("web@1.service", 1, &format!("{OLD}Restart=always\nRestartSec=0\n")).await;
    let say = host.text("say@1.service", 1, &bound_to("web@1.service")).await;
    host.run(&[("web@1.service", &web), ("say@1.service", &say)]).await;
    let both = "say@1.service web@1.service";
    assert_eq!(host.running(), both);
    // It dies, and systemd's own restart brings back only itself.
    host.sim.fail(&Host::name("web@1.service"), "signal", 9);
    host.sim.heal(&Host::name("web@1.service"));
    host.go_on().await;
    assert_eq!(host.running(), both);
    // Somebody stops and starts it on the host.
    host.systemctl(Job::Stop, "web@1.service").await;
    host.systemctl(Job::Start, "web@1.service").await;
    host.go_on().await;
    assert_eq!(host.running(), both);
    // fleet's own stop of it is the user's wish: nothing brings it back, and the sidekick waits.
    web.state = DesiredState::Loaded;
    host.run(&[("web@1.service", &web), ("say@1.service", &say)]).await;
    assert_eq!(host.running(), "");
    assert_eq!(
        host.reported("say@1.service").await,
        "inactive: systemd stopped it; it is started again when web@1.service is up"
    );
    let starts = host.sim.counters().start;
    host.go_on().await;
    assert_eq!(host.sim.counters().start, starts, "it is not tried in a loop");
    web.state = DesiredState::Launched;
    host.run(&[("web@1.service", &web), ("say@1.service", &say)]).await;
    assert_eq!(host.running(), both);
}

#[tokio::test(start_paused = true)]
async fn a_sidekick_that_takes_its_stop_badly_does_not_bring_back_what_a_user_stopped() {
    let mut host = Host::new().await;
    let mut web = host.text("web.service", 1, OLD).await;
    let text = format!("{}TimeoutStopSec=1\n", bound_to("web.service"));
    let say = host.text("say.service", 1, &text).await;
    host.sim.stops_slowly(&Host::name("say.service"), Duration::from_secs(5));
    host.run(&[("web.service", &web), ("say.service", &say)]).await;
    web.state = DesiredState::Loaded;
    host.run(&[("web.service", &web), ("say.service", &say)]).await;
    assert_eq!(host.running(), "");
    assert_eq!(
        host.reported("say.service").await,
        "failed: systemd stopped it; it is started again when web.service is up"
    );
    web.state = DesiredState::Launched;
    host.run(&[("web.service", &web), ("say.service", &say)]).await;
    assert_eq!(host.running(), "say.service web.service");
}

#[tokio::test]
async fn a_sidekick_that_fails_does_not_bring_back_what_a_user_has_stopped_meanwhile() {
    for binds in ["BindsTo", "Requires"] {
        let mut host = Host::new().await;
        let mut web = host.text("web.service", 1, OLD).await;
        let say = bound_to("web.service").replace("BindsTo", binds);
        let say = host.text("say.service", 1, &say).await;
        host.run(&[("web.service", &web), ("say.service", &say)]).await;
        host.sim.fail(&Host::name("say.service"), "exit-code", 1);
        host.run(&[("web.service", &web), ("say.service", &say)]).await;
        assert!(host.trouble("say.service").gave_up(), "{binds}: it is tried again and again");
        assert_eq!(host.running(), "web.service");
        web.state = DesiredState::Loaded;
        host.run(&[("web.service", &web), ("say.service", &say)]).await;
        assert_eq!(host.running(), "", "{binds}");
        assert_eq!(
            host.reported("say.service").await,
            "failed: systemd stopped it; it is started again when web.service is up"
        );
        host.sim.heal(&Host::name("say.service"));
        web.state = DesiredState::Launched;
        host.run(&[("web.service", &web), ("say.service", &say)]).await;
        assert_eq!(host.running(), "say.service web.service", "{binds}");
    }
}

#[tokio::test]
async fn a_unit_that_fails_with_what_it_needs_brings_that_back() {
    let mut host = Host::new().await;
    let mut helper = host.text("helper.service", 1, OLD).await;
    helper.state = DesiredState::Loaded;
    let app = host.text("app.service", 1, &bound_to("helper.service")).await;
    host.run(&[("helper.service", &helper), ("app.service", &app)]).await;
    assert_eq!(host.running(), "app.service helper.service", "as its dependency");
    for name in ["app.service", "helper.service"] {
        host.sim.fail(&Host::name(name), "signal", 9);
        host.sim.heal(&Host::name(name));
    }
    host.go_on().await;
    assert_eq!(host.running(), "app.service helper.service");
}

#[tokio::test]
async fn what_systemd_stops_when_nobody_needs_it_comes_back_with_who_needs_it() {
    let mut host = Host::new().await;
    let helper = format!("[Unit]\nStopWhenUnneeded=yes\n{OLD}");
    let mut helper = host.text("helper.service", 1, &helper).await;
    helper.state = DesiredState::Loaded;
    let app = host.text("app.service", 1, &bound_to("helper.service")).await;
    let both = [("helper.service", &helper), ("app.service", &app)];
    host.run(&both).await;
    host.systemctl(Job::Stop, "app.service").await;
    host.systemctl(Job::Stop, "helper.service").await; // as systemd does then
    host.go_on().await;
    assert_eq!(host.running(), "app.service helper.service");
    host.sim.fail(&Host::name("app.service"), "exit-code", 1);
    host.sim.heal(&Host::name("app.service"));
    host.systemctl(Job::Stop, "helper.service").await;
    host.go_on().await;
    assert_eq!(host.running(), "app.service helper.service");
}

#[tokio::test]
async fn replicas_that_are_to_stay_up_come_back_after_isolate_and_those_that_are_done_do_not() {
    let mut host = Host::new().await;
    let once = "[Service]\nType=oneshot\nExecStart=/bin/once\n";
    let once = host.text("once@.service", 1, once).await;
    let rules = "[Service]\nType=oneshot\nRemainAfterExit=true\nExecStart=/bin/rules\n";
    let rules = host.text("rules@.service", 1, rules).await;
    let timer = host.text("tick@.timer", 1, "[Timer]\nOnActiveSec=1h\n").await;
    let mut tick =
        host.text("tick@.service", 1, "[Service]\nType=oneshot\nExecStart=/bin/tick\n").await;
    tick.state = DesiredState::Loaded;
    let all = [
        ("once@1.service", &once),
        ("rules@1.service", &rules),
        ("tick@1.timer", &timer),
        ("tick@1.service", &tick),
    ];
    host.run(&all).await;
    assert_eq!(host.running(), "rules@1.service tick@1.timer");
    host.sim.isolate(&[]);
    let starts = host.sim.counters().start;
    host.go_on().await;
    assert_eq!(host.running(), "rules@1.service tick@1.timer");
    assert_eq!(host.sim.counters().start, starts + 2);
    // A timer that has elapsed for good is done.
    host.sim.exit(&Host::name("tick@1.timer"));
    host.sim.heal(&Host::name("tick@1.timer"));
    host.go_on().await;
    assert_eq!(host.running(), "rules@1.service");
}

#[tokio::test]
async fn replicas_bound_to_others_do_not_bring_back_what_a_user_stopped() {
    let mut host = Host::new().await;
    let mut web = host.text("web@.service", 1, OLD).await;
    let say = host.text("say@.service", 1, &bound_to("web@1.service")).await;
    host.run(&[("web@1.service", &web), ("say@1.service", &say)]).await;
    web.state = DesiredState::Loaded;
    host.run(&[("web@1.service", &web), ("say@1.service", &say)]).await;
    assert_eq!(host.running(), "");
    web.state = DesiredState::Launched;
    host.run(&[("web@1.service", &web), ("say@1.service", &say)]).await;
    assert_eq!(host.running(), "say@1.service web@1.service");
    // A replica that ended by itself starts again, as ever.
    host.sim.exit(&Host::name("say@1.service"));
    host.sim.heal(&Host::name("say@1.service"));
    host.go_on().await;
    assert_eq!(host.running(), "say@1.service web@1.service");
}

#[tokio::test]
async fn what_isolate_stops_comes_back_and_what_has_ended_by_itself_does_not() {
    let mut host = Host::new().await;
    let done = host.text("done.service", 1, OLD).await;
    let once = host.text("once.service", 1, "[Service]\nType=oneshot\nExecStart=/bin/once\n").await;
    let rules = "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/rules\n";
    let rules = host.text("rules.service", 1, rules).await;
    let web = host.text("web.service", 1, OLD).await;
    let all = [
        ("done.service", &done),
        ("once.service", &once),
        ("rules.service", &rules),
        ("web.service", &web),
    ];
    host.run(&all).await;
    host.sim.exit(&Host::name("done.service"));
    host.go_on().await;
    assert_eq!(host.running(), "rules.service web.service");
    let looks = host.sim.counters().journal;
    host.restart_fleetd();
    host.run(&all).await;
    assert_eq!(host.sim.counters().journal, looks, "that is known, and nobody asks again");
    host.sim.isolate(&[]);
    host.go_on().await;
    assert_eq!(host.running(), "rules.service web.service");
    let starts = host.sim.counters().start;
    host.restart_fleetd();
    host.run(&all).await;
    assert_eq!(
        (host.running().as_str(), host.sim.counters().start),
        ("rules.service web.service", starts)
    );
}

#[tokio::test]
async fn a_unit_that_was_stopped_for_one_that_conflicts_with_it_comes_back_when_that_is_down() {
    let mut host = Host::new().await;
    let web =
        host.text("web.service", 1, &format!("[Unit]\nConflicts=upkeep.service\n{OLD}")).await;
    host.sim.define_on_host(
        &Host::name("upkeep.service"),
        "/etc/systemd/system/upkeep.service",
        OLD,
    );
    host.run(&[("web.service", &web)]).await;
    host.systemctl(Job::Start, "upkeep.service").await;
    host.go_on().await;
    assert_eq!(host.running(), "upkeep.service", "the host's own is not stopped for it");
    host.systemctl(Job::Stop, "upkeep.service").await;
    host.go_on().await;
    assert_eq!(host.running(), "web.service");
}

#[tokio::test]
async fn a_start_that_ends_as_failed_or_dependency_is_told_and_tried_again() {
    let mut host = Host::new().await;
    let setup = "[Service]\nType=oneshot\nExecStart=/bin/setup\n";
    let setup = host.text("setup.service", 1, setup).await;
    let app = host
        .text(
            "app.service",
            1,
            &format!("[Unit]\nRequires=setup.service\nAfter=setup.service\n{OLD}"),
        )
        .await;
    let timer = host.text("tick.timer", 1, "[Timer]\nOnActiveSec=1h\n").await;
    host.sim.fail(&Host::name("setup.service"), "exit-code", 1);
    host.run(&[("setup.service", &setup), ("app.service", &app), ("tick.timer", &timer)]).await;
    assert_eq!(host.running(), "");
    for (name, said) in [
        ("app.service", "failed: systemd did not start it: a dependency job failed (dependency)"),
        ("tick.timer", "failed: systemd did not start it: the start job failed (failed)"),
    ] {
        assert_eq!(host.reported(name).await, said);
    }
    assert!(host.trouble("app.service").gave_up());
    // What was missing is there.
    host.sim.heal(&Host::name("setup.service"));
    let tick = host.text("tick.service", 1, "[Service]\nType=oneshot\nExecStart=/bin/tick\n").await;
    let mut loaded = tick.clone();
    loaded.state = DesiredState::Loaded;
    let all = [
        ("setup.service", &setup),
        ("app.service", &app),
        ("tick.timer", &timer),
        ("tick.service", &loaded),
    ];
    host.run(&all).await;
    assert_eq!(host.running(), "app.service tick.timer");
}

#[tokio::test]
async fn the_files_of_everything_that_a_pass_brings_are_there_before_the_first_start() {
    let mut host = Host::new().await;
    let timer = host.text("a.timer", 1, "[Timer]\nOnActiveSec=1h\n").await;
    let mut service =
        host.text("a.service", 1, "[Service]\nType=oneshot\nExecStart=/bin/tick\n").await;
    service.state = DesiredState::Loaded;
    host.run(&[("a.timer", &timer), ("a.service", &service)]).await;
    assert_eq!((host.running().as_str(), host.sim.counters().start), ("a.timer", 1));
}

#[tokio::test]
async fn a_start_that_somebody_called_off_is_asked_for_again() {
    let mut host = Host::new().await;
    let (web, name) = (host.text("web.service", 1, OLD).await, Host::name("web.service"));
    host.sim.hang(&name);
    let assignment =
        Assignment { instances: [(name.clone(), web.clone())].into(), ..Assignment::default() };
    host.agent.assignment = Some(Arc::new(assignment));
    host.agent.pass(host.now_ms).await.unwrap();
    assert!(host.sim.loaded()[&name].job);
    host.sim.heal(&name);
    host.systemctl(Job::Stop, "web.service").await;
    host.run(&[("web.service", &web)]).await;
    assert_eq!(host.running(), "web.service");
}
