//! What both systemds must do alike: the simulated one, and the real one of a host in the lab.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use fleet_core::name::UnitName;
use fleet_tests::lab::{Lab, Options as LabOptions, Store};
use fleetd::systemd::counters::Counters;
use fleetd::systemd::dbus::{Bus, DbusSystemd, Options};
use fleetd::systemd::sim::{Behaviour, Process, SimSystemd, Times};
use fleetd::systemd::{
    Bonds, Job, Listed, MAX_CALLS, MAX_JOBS, MAX_STARTS, Rest, Systemd, SystemdError,
};

const RUNS: &str = "[Service]\nExecStart=/bin/sleep infinity\n";
const RUNS_ONCE: &str = "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n";
const FAILS: &str = "[Service]\nExecStart=/bin/sh -c 'exit 3'\n";
/// Ends by itself as soon as it was started.
const ENDS: &str = "[Service]\nExecStart=/bin/true\n";
const HANGS: &str = "[Service]\nType=notify\nTimeoutStartSec=infinity\nTimeoutStopSec=1\nExecStart=/bin/sleep infinity\n";
/// Says that it is up, and pings the watchdog no more.
const SILENT: &str = "[Service]\nType=notify\nNotifyAccess=all\nWatchdogSec=1\nExecStart=/bin/sh \
    -c 'systemd-notify --ready; exec sleep infinity'\n";
/// The same without a watchdog, with a folder that goes when it does; systemd starts it again.
const KEEPS: &str = "[Service]\nType=notify\nNotifyAccess=all\nRuntimeDirectory=fleettest-keeps\nRestart=always\nRestartSec=50ms\nExecStart=/bin/sh -c 'systemd-notify --ready; exec sleep infinity'\n";
/// Does not end when it is told to: that signal is one that nobody heeds, from a process's first
/// instant on.
const STUBBORN: &str = "TimeoutStopSec=1\nKillSignal=SIGWINCH\n";
const DROP_IN: &str = "[Unit]\nDescription=by fleet\n";

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

struct Host {
    systemd: Arc<dyn Systemd>,
    sim: Option<SimSystemd>,
    real: Option<Arc<DbusSystemd>>,
    /// Where the real one's `/` is seen from here.
    root: String,
}

impl Host {
    fn simulated() -> Host {
        let sim = SimSystemd::new(Times {
            call: Duration::from_millis(1),
            job: Duration::from_millis(2),
        });
        sim.define_on_host(&unit("dbus.service"), "/usr/lib/systemd/system/dbus.service", RUNS);
        sim.define_on_host(&unit("getty@.service"), "/usr/lib/systemd/system/getty@.service", RUNS);
        Host { systemd: Arc::new(sim.clone()), sim: Some(sim), real: None, root: String::new() }
    }

    /// `root` is where a booted host's `/` is seen from here, its bus below it.
    async fn real(root: &str) -> Host {
        let options =
            Options { bus: Bus::Address(bus(root)), root: root.into(), ..Options::default() };
        let real =
            Arc::new(DbusSystemd::connect(options).await.expect("the host's systemd answers"));
        Host { systemd: real.clone(), sim: None, real: Some(real), root: root.to_string() }
    }

    fn counters(&self) -> Counters {
        self.sim
            .as_ref()
            .map(|sim| sim.counters())
            .or(self.real.as_ref().map(|real| real.counters()))
            .unwrap_or_default()
    }

    async fn write(&self, name: &UnitName, text: &str) {
        if let Some(sim) = &self.sim {
            match text {
                FAILS => sim.fail(name, "exit-code", 3),
                text if text.contains("systemd-notify --ready") => {
                    sim.run_program(name, Arc::new(says_ready))
                }
                _ if text.ends_with(STUBBORN) => sim.stops_slowly(name, PATIENCE),
                HANGS => sim.hang(name),
                ENDS => sim.exit(name),
                _ => sim.heal(name),
            }
        }
        self.systemd.write(name, text, DROP_IN).await.unwrap();
    }

    async fn queue(&self, name: &UnitName, job: Job) {
        self.systemd.queue(name, job).await.unwrap();
    }

    async fn now(&self, name: &UnitName) -> Listed {
        let mut all = self.systemd.list(std::slice::from_ref(name)).await.unwrap();
        all.remove(name).unwrap_or(Listed {
            active: "inactive".into(),
            sub: "dead".into(),
            ..Listed::default()
        })
    }

    /// Waits until the unit has no job and is in this state: `active running`.
    async fn until(&self, name: &UnitName, state: &str) {
        let mut changes = self.systemd.changes();
        let mut seen = Listed::default();
        let reached = tokio::time::timeout(PATIENCE, async {
            loop {
                seen = self.now(name).await;
                if !seen.job && format!("{} {}", seen.active, seen.sub) == state {
                    break;
                }
                // An end of a process is no job: look again now and then.
                let _ = tokio::time::timeout(Duration::from_millis(20), changes.changed()).await;
            }
        });
        assert!(reached.await.is_ok(), "{name} is not {state} but {seen:?}");
    }

    async fn until_no_jobs(&self) {
        let mut changes = self.systemd.changes();
        let none = tokio::time::timeout(
            PATIENCE,
            changes.wait_for(|_| self.systemd.jobs_in_flight() == 0),
        )
        .await
        .is_ok();
        assert!(none, "{} jobs are still in flight", self.systemd.jobs_in_flight());
    }

    /// Starts it, and says in systemd's word what became of that, if it came to nothing.
    async fn start(&self, name: &UnitName) -> Option<String> {
        self.queue(name, Job::Start).await;
        self.until_no_jobs().await;
        self.systemd.take_failed_starts().remove(name)
    }

    /// How a unit came to be at rest; what systemd notes takes a moment to be seen.
    async fn rest(&self, name: &UnitName) -> Rest {
        let mut rest = Rest::Unknown;
        let known = tokio::time::timeout(PATIENCE, async {
            while rest == Rest::Unknown {
                rest = self.systemd.rest(name).await.unwrap();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        assert!(known.await.is_ok(), "nothing is noted of {name}");
        rest
    }

    /// SIGKILL for the main process.
    async fn kill(&self, name: &UnitName) {
        match (&self.sim, &self.root) {
            (Some(sim), _) => sim.kill(name),
            (None, root) => kill_main(root, name).await,
        }
    }

    async fn clear(&self, name: &UnitName) {
        self.queue(name, Job::Stop).await;
        self.systemd.remove(name).await.unwrap();
    }
}

/// What SILENT and KEEPS run: ready at once, then nothing but an end when told.
fn says_ready(process: Process) -> Pin<Box<dyn Future<Output = bool> + Send>> {
    Box::pin(async move {
        process.ready();
        process.terminated().await;
        true
    })
}

fn unit(name: &str) -> UnitName {
    UnitName::parse(name).unwrap()
}

fn problem(result: Result<(), SystemdError>) -> String {
    result.expect_err("a refusal").to_string()
}

async fn a_new_unit_starts_without_a_reload(host: Host) {
    let name = unit("fleettest-new@1.service");
    host.write(&name, RUNS).await;
    host.queue(&name, Job::Start).await;
    host.until(&name, "active running").await;
    host.queue(&name, Job::Stop).await;
    host.until(&name, "inactive dead").await;
    host.clear(&name).await;
    assert_eq!(host.counters().reload, 0);
}

async fn many_units_written_while_others_start_are_all_found(host: Host) {
    let names: Vec<UnitName> =
        (0..200).map(|i| unit(&format!("fleettest-many@{i}.service"))).collect();
    let arrivals = names.iter().map(|name| async {
        host.write(name, RUNS_ONCE).await;
        host.queue(name, Job::Start).await;
    });
    futures_util::future::join_all(arrivals).await;
    host.until_no_jobs().await;
    let listed = host.systemd.list(&names).await.unwrap();
    assert!(names.iter().all(|name| listed[name].sub == "exited"), "{listed:?}");
    futures_util::future::join_all(names.iter().map(|name| host.clear(name))).await;
    host.until_no_jobs().await;
    let counters = host.counters();
    assert_eq!(
        (counters.start, counters.stop, counters.write, counters.reload),
        (200, 200, 200, 0)
    );
    assert!(counters.most_calls <= MAX_CALLS && counters.most_jobs <= MAX_JOBS, "{counters:?}");
}

async fn a_changed_text_is_used_only_after_a_reload(host: Host) {
    let name = unit("fleettest-changed.service");
    host.write(&name, RUNS).await;
    host.queue(&name, Job::Start).await;
    host.until(&name, "active running").await;
    host.write(&name, RUNS_ONCE).await;
    host.queue(&name, Job::Restart).await;
    host.until(&name, "active running").await;
    host.systemd.reload().await.unwrap();
    host.queue(&name, Job::Restart).await;
    host.until(&name, "active exited").await;
    host.clear(&name).await;
}

async fn a_name_can_be_used_again_with_another_text(host: Host) {
    let name = unit("fleettest-again.service");
    for (text, state) in [
        (RUNS, "active running"),
        (FAILS, "failed failed"),
        (RUNS_ONCE, "active exited"),
        (RUNS, "active running"),
    ] {
        host.write(&name, text).await;
        host.queue(&name, Job::Start).await;
        host.until(&name, state).await;
        host.clear(&name).await;
        host.systemd.reset_failed(&name).await.unwrap();
        host.until(&name, "inactive dead").await;
    }
}

async fn a_failed_unit_tells_why_until_it_is_reset(host: Host) {
    let name = unit("fleettest-fails.service");
    host.write(&name, FAILS).await;
    host.queue(&name, Job::Start).await;
    host.until(&name, "failed failed").await;
    let outcome = host.systemd.outcome(&name).await.unwrap();
    assert_eq!(
        (outcome.result.as_str(), outcome.code, outcome.restarts),
        ("exit-code", Some(3), 0)
    );
    host.systemd.reset_failed(&name).await.unwrap();
    host.until(&name, "inactive dead").await;
    host.clear(&name).await;
}

async fn a_unit_that_restarts_itself_too_often_fails(host: Host) {
    let name = unit("fleettest-restarts.service");
    host.write(&name, FAILS).await;
    let text = format!("[Unit]\nStartLimitBurst=3\n{FAILS}Restart=always\nRestartSec=10ms\n");
    host.systemd.write(&name, &text, DROP_IN).await.unwrap();
    host.queue(&name, Job::Start).await;
    host.until(&name, "failed failed").await;
    assert_eq!(host.systemd.outcome(&name).await.unwrap().restarts, 3);
    host.systemd.reset_failed(&name).await.unwrap();
    host.clear(&name).await;
}

async fn the_drop_in_is_part_of_the_unit(host: Host) {
    let name = unit("fleettest-dropin.service");
    host.systemd.write(&name, "[Unit]\nDescription=no command\n", RUNS).await.unwrap();
    host.queue(&name, Job::Start).await;
    host.until(&name, "active running").await;
    host.clear(&name).await;
}

async fn instances_share_their_templates_file_until_one_gets_its_own(host: Host) {
    let [template, one, two] =
        ["fleettest-shared@.service", "fleettest-shared@1.service", "fleettest-shared@2.service"]
            .map(unit);
    host.write(&template, RUNS).await;
    // The drop-in of its own takes the place of the template's for this one, and here it says that
    // it ends by itself.
    host.systemd.share(&one, None).await.unwrap();
    host.systemd
        .share(
            &two,
            Some("[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=\nExecStart=/bin/true\n"),
        )
        .await
        .unwrap();
    host.queue(&one, Job::Start).await;
    host.queue(&two, Job::Start).await;
    host.until(&one, "active running").await;
    host.until(&two, "active exited").await;
    host.systemd.unshare(&one).await.unwrap();
    host.write(&template, RUNS_ONCE).await;
    host.systemd.reload().await.unwrap();
    host.queue(&one, Job::Restart).await;
    host.until(&one, "active running").await;
    host.systemd.share(&one, None).await.unwrap();
    host.systemd.reload().await.unwrap();
    host.queue(&one, Job::Restart).await;
    host.until(&one, "active exited").await;
    host.clear(&one).await;
    host.clear(&two).await;
    host.systemd.remove(&template).await.unwrap();
}

async fn refusals_are_in_systemds_words(host: Host) {
    let (missing, bad) = (unit("fleettest-missing@1.service"), unit("fleettest-bad.service"));
    host.write(&bad, "[Service]\nType=simple\n").await;
    let start = |name| host.systemd.queue(name, Job::Start);
    assert_eq!(
        problem(start(&missing).await),
        "systemd refused to start fleettest-missing@1.service: Unit fleettest-missing@1.service \
            not found."
    );
    assert_eq!(
        problem(start(&bad).await),
        "systemd refused to start fleettest-bad.service: Unit fleettest-bad.service has a bad \
            unit file setting."
    );
    host.clear(&bad).await;
    assert_eq!(host.systemd.jobs_in_flight(), 0);
}

async fn what_is_not_there_can_be_stopped_reset_and_removed(host: Host) {
    let name = unit("fleettest-nothing.service");
    host.queue(&name, Job::Stop).await;
    host.systemd.reset_failed(&name).await.unwrap();
    host.systemd.remove(&name).await.unwrap();
    assert_eq!(host.systemd.jobs_in_flight(), 0);
}

async fn a_list_has_only_units_that_are_not_at_rest(host: Host) {
    let [runs, written, missing, template] = [
        "fleettest-runs@1.service",
        "fleettest-written.service",
        "fleettest-absent.service",
        "fleettest-t@.service",
    ]
    .map(unit);
    for name in [&runs, &written, &template] {
        host.write(name, RUNS).await;
    }
    host.queue(&runs, Job::Start).await;
    host.until(&runs, "active running").await;
    let listed = host
        .systemd
        .list(&[missing, template.clone(), written.clone(), runs.clone()])
        .await
        .unwrap();
    let running = Listed {
        load: "loaded".into(),
        active: "active".into(),
        sub: "running".into(),
        job: false,
    };
    assert_eq!(listed.into_iter().collect::<Vec<_>>(), [(runs.clone(), running)]);
    for name in [&runs, &written] {
        host.clear(name).await;
    }
    host.systemd.remove(&template).await.unwrap();
}

async fn a_hanging_start_has_a_job_until_it_is_stopped(host: Host) {
    let name = unit("fleettest-hangs.service");
    host.write(&name, HANGS).await;
    host.queue(&name, Job::Start).await;
    // Taken is not begun: the job may still wait while the unit is inactive.
    assert!(host.now(&name).await.job);
    assert_eq!(host.systemd.jobs_in_flight(), 1);
    host.clear(&name).await;
    host.until(&name, "inactive dead").await;
    host.until_no_jobs().await;
}

async fn the_hosts_own_units_are_told_with_their_path(host: Host) {
    let defines = async |name: &str| host.systemd.host_defines(&unit(name)).await.unwrap();
    assert_eq!(
        defines("dbus.service").await.as_deref(),
        Some("/usr/lib/systemd/system/dbus.service")
    );
    assert_eq!(
        defines("getty@7.service").await.as_deref(),
        Some("/usr/lib/systemd/system/getty@.service")
    );
    let ours = unit("fleettest-ours.service");
    host.write(&ours, RUNS).await;
    assert_eq!(defines(ours.as_str()).await, None);
    host.systemd.remove(&ours).await.unwrap();
}

const WANTED: &str = "[Service]\nExecStart=/bin/sleep \
    infinity\n[Install]\nWantedBy=fleettest-wants.target\n";

async fn an_enabled_unit_starts_with_its_target_until_it_is_disabled(host: Host) {
    let [target, wanted] = ["fleettest-wants.target", "fleettest-wanted@1.service"].map(unit);
    host.write(&target, "[Unit]\nDescription=t\n").await;
    host.write(&wanted, WANTED).await;
    for _ in 0..2 {
        host.systemd.enable(std::slice::from_ref(&wanted)).await.unwrap();
    }
    host.queue(&target, Job::Start).await;
    host.until(&target, "active active").await;
    host.until(&wanted, "active running").await;
    for name in [&target, &wanted] {
        host.queue(name, Job::Stop).await;
        host.until(name, "inactive dead").await;
    }
    assert_eq!(host.counters().reload, 0, "a target that is not loaded needs none");
    for _ in 0..2 {
        host.systemd.disable(&wanted).await.unwrap();
    }
    host.systemd.reload().await.unwrap();
    host.queue(&target, Job::Start).await;
    host.until(&target, "active active").await;
    host.until_no_jobs().await;
    assert_eq!(host.now(&wanted).await.active, "inactive");
    for name in [&target, &wanted] {
        host.clear(name).await;
    }
    host.systemd.disable(&wanted).await.unwrap(); // of what is gone
}

async fn a_loaded_target_heeds_an_enabled_unit_after_a_reload(host: Host) {
    let [target, wanted] = ["fleettest-wants.target", "fleettest-wanted@2.service"].map(unit);
    host.write(&target, "[Unit]\nDescription=t\n").await;
    host.queue(&target, Job::Start).await;
    host.until(&target, "active active").await;
    host.write(&wanted, WANTED).await;
    host.systemd.enable(std::slice::from_ref(&wanted)).await.unwrap();
    host.queue(&target, Job::Start).await;
    host.until_no_jobs().await;
    assert_eq!(host.now(&wanted).await.active, "inactive");
    host.systemd.reload().await.unwrap();
    host.queue(&target, Job::Start).await;
    host.until(&wanted, "active running").await;
    host.systemd.disable(&wanted).await.unwrap();
    for name in [&target, &wanted] {
        host.clear(name).await;
    }
}

async fn a_unit_without_a_file_cannot_be_enabled(host: Host) {
    let missing = unit("fleettest-nofile.service");
    assert!(
        problem(host.systemd.enable(&[missing]).await)
            .starts_with("systemd refused to enable fleettest-nofile.service: Unit ")
    );
}

async fn one_call_enables_many_and_one_that_is_refused_leaves_the_others_to_be_asked_for(
    host: Host,
) {
    let names =
        ["fleettest-many-1.service", "fleettest-many-2.service", "fleettest-odd.service"].map(unit);
    for name in &names {
        let alias = if name.stem().ends_with("odd") { "Alias=fleettest-odd.socket\n" } else { "" };
        host.write(name, &format!("{WANTED}{alias}")).await;
    }
    let before = host.counters().enable;
    host.systemd.enable(&names[..2]).await.unwrap();
    assert_eq!(host.counters().enable, before + 1);
    assert!(problem(host.systemd.enable(&names).await).starts_with("systemd refused to enable "));
    host.systemd.enable(&names[..2]).await.unwrap();
    assert!(problem(host.systemd.enable(&names[2..]).await).contains("fleettest-odd"));
    for name in &names {
        host.systemd.disable(name).await.unwrap();
        host.clear(name).await;
    }
}

/// What binds a unit to another, as fleet's drop-in for fenced units does.
fn bound_to(other: &UnitName, text: &str) -> String {
    format!("[Unit]\nBindsTo={other}\nAfter={other}\n{text}")
}

async fn a_bound_unit_starts_what_it_is_bound_to_and_stops_with_it(host: Host) {
    let [keeper, bound] = ["fleettest-keeps.service", "fleettest-bound.service"].map(unit);
    host.write(&keeper, RUNS).await;
    host.write(&bound, &bound_to(&keeper, RUNS)).await;
    host.queue(&bound, Job::Start).await;
    host.until(&bound, "active running").await;
    host.until(&keeper, "active running").await;
    host.queue(&keeper, Job::Stop).await;
    host.until(&keeper, "inactive dead").await;
    assert_eq!(host.now(&bound).await.active, "inactive", "it went first");
    for name in [&bound, &keeper] {
        host.clear(name).await;
    }
}

async fn what_a_unit_wants_is_started_along_and_may_be_missing(host: Host) {
    let [wants, wanted] = ["fleettest-wants.service", "fleettest-wanted.service"].map(unit);
    host.write(&wanted, RUNS).await;
    host.write(&wants, &format!("[Unit]\nWants={wanted} fleettest-missing.service\n{RUNS}")).await;
    host.queue(&wants, Job::Start).await;
    host.until(&wants, "active running").await;
    host.until(&wanted, "active running").await;
    host.queue(&wanted, Job::Stop).await;
    host.until(&wanted, "inactive dead").await;
    host.until(&wants, "active running").await;
    host.queue(&wants, Job::Restart).await;
    host.until(&wanted, "active running").await; // a restart brings it, too
    for name in [&wants, &wanted] {
        host.clear(name).await;
    }
}

async fn a_bound_unit_that_does_not_end_is_killed_and_waited_for(host: Host) {
    let [keeper, bound] = ["fleettest-keeps.service", "fleettest-stubborn.service"].map(unit);
    host.write(&keeper, RUNS).await;
    host.write(&bound, &bound_to(&keeper, &format!("{RUNS}{STUBBORN}"))).await;
    host.queue(&bound, Job::Start).await;
    host.until(&bound, "active running").await;
    host.queue(&keeper, Job::Stop).await;
    assert_eq!(host.now(&keeper).await.active, "active", "its stop waits");
    host.until(&keeper, "inactive dead").await;
    host.until(&bound, "failed failed").await;
    assert_eq!(host.systemd.outcome(&bound).await.unwrap().result, "timeout");
    host.systemd.reset_failed(&bound).await.unwrap();
    for name in [&bound, &keeper] {
        host.clear(name).await;
    }
}

async fn a_restart_takes_along_what_is_bound(host: Host) {
    let [keeper, bound] = ["fleettest-keeps.service", "fleettest-bound.service"].map(unit);
    host.write(&keeper, RUNS).await;
    host.write(&bound, &bound_to(&keeper, RUNS)).await;
    host.queue(&bound, Job::Start).await;
    host.until(&bound, "active running").await;
    host.write(&bound, &bound_to(&keeper, RUNS_ONCE)).await;
    host.systemd.reload().await.unwrap();
    host.queue(&keeper, Job::Restart).await;
    host.until(&bound, "active exited").await; // the text of now: it was started anew
    host.until(&keeper, "active running").await;
    for name in [&bound, &keeper] {
        host.clear(name).await;
    }
}

async fn a_failed_assertion_keeps_a_unit_from_starting_and_is_no_failure(host: Host) {
    let name = unit("fleettest-asserts.service");
    host.write(&name, &format!("[Unit]\nAssertPathExists=/nonexistent/life-7\n{RUNS}")).await;
    host.queue(&name, Job::Start).await;
    host.until_no_jobs().await;
    host.until(&name, "inactive dead").await;
    host.write(&name, &format!("[Unit]\nAssertPathExists=/\n{RUNS}")).await;
    host.queue(&name, Job::Start).await;
    host.until(&name, "active running").await;
    host.clear(&name).await;
}

async fn a_condition_is_asked_at_each_start_also_at_those_by_restart(host: Host) {
    let name = unit("fleettest-keeps.service");
    let text = |path: &str| format!("{KEEPS}ExecCondition=+/usr/bin/test -e {path}\n");
    host.write(&name, &text("/nonexistent/life-7")).await;
    host.queue(&name, Job::Start).await;
    host.until_no_jobs().await;
    host.until(&name, "inactive dead").await;
    host.write(&name, &text("/")).await;
    host.systemd.reload().await.unwrap();
    host.queue(&name, Job::Start).await;
    host.until(&name, "active running").await;
    host.write(&name, &text("/nonexistent/life-7")).await;
    host.systemd.reload().await.unwrap();
    host.kill(&name).await;
    host.until(&name, "inactive dead").await;
    host.clear(&name).await;
}

async fn a_silent_watchdog_ends_a_unit_and_what_is_bound_to_it(host: Host) {
    let [keeper, bound] = ["fleettest-silent.service", "fleettest-bound.service"].map(unit);
    host.write(&keeper, SILENT).await;
    host.write(&bound, &bound_to(&keeper, RUNS)).await;
    host.queue(&bound, Job::Start).await;
    host.until(&bound, "active running").await;
    host.until(&keeper, "failed failed").await;
    assert_eq!(host.systemd.outcome(&keeper).await.unwrap().result, "watchdog");
    host.until(&bound, "inactive dead").await;
    host.systemd.reset_failed(&keeper).await.unwrap();
    for name in [&bound, &keeper] {
        host.clear(name).await;
    }
}

async fn what_restarts_by_itself_is_counted_takes_along_what_is_bound_and_brings_back_only_itself(
    host: Host,
) {
    let [keeper, bound] = ["fleettest-keeps.service", "fleettest-bound.service"].map(unit);
    host.write(&keeper, KEEPS).await;
    host.write(&bound, &bound_to(&keeper, RUNS)).await;
    host.queue(&bound, Job::Start).await;
    host.until(&bound, "active running").await;
    assert_eq!(host.systemd.restarts(&keeper).await.unwrap(), 0);
    let jobs = host.systemd.jobs_of_others();
    host.kill(&keeper).await;
    host.until(&bound, "inactive dead").await;
    host.until(&keeper, "active running").await;
    assert_eq!(host.systemd.outcome(&keeper).await.unwrap().restarts, 1);
    assert_eq!(host.systemd.restarts(&keeper).await.unwrap(), 1);
    assert_eq!(host.now(&bound).await.active, "inactive");
    let noticed = tokio::time::timeout(PATIENCE, async {
        while host.systemd.jobs_of_others() == jobs {
            tokio::time::sleep(Duration::from_millis(20)).await;
            host.now(&keeper).await;
        }
    });
    assert!(
        noticed.await.is_ok(),
        "the restart, which is a job of systemd's own, is never noticed"
    );
    host.queue(&keeper, Job::Restart).await;
    host.until(&keeper, "active running").await;
    assert_eq!(
        host.systemd.restarts(&keeper).await.unwrap(),
        0,
        "a job's start counts from nought"
    );
    for name in [&bound, &keeper] {
        host.clear(name).await;
    }
}

async fn a_start_that_came_to_nothing_is_told_in_systemds_word(host: Host) {
    let [needs, fails, timer, hangs] = [
        "fleettest-needs.service",
        "fleettest-once.service",
        "fleettest-tick.timer",
        "fleettest-hangs.service",
    ]
    .map(unit);
    let tick = unit("fleettest-tick.service");
    host.write(&fails, "[Service]\nType=oneshot\nExecStart=/bin/false\n").await;
    host.sim.iter().for_each(|sim| sim.fail(&fails, "exit-code", 1));
    host.write(&needs, &format!("[Unit]\nRequires={fails}\nAfter={fails}\n{RUNS}")).await;
    assert_eq!(host.start(&needs).await.as_deref(), Some("dependency"));
    assert_eq!(host.now(&needs).await.active, "inactive", "nothing else tells");
    host.write(&timer, "[Timer]\nOnActiveSec=1h\n").await;
    assert_eq!(host.start(&timer).await.as_deref(), Some("failed"));
    assert_eq!(host.now(&timer).await.active, "inactive");
    host.write(&tick, RUNS_ONCE).await;
    assert_eq!(host.start(&timer).await, None);
    assert_eq!(host.now(&timer).await.active, "active");
    // One that another job of ours took the place of came to nothing by our own wish.
    host.write(&hangs, HANGS).await;
    host.queue(&hangs, Job::Start).await;
    assert_eq!(
        host.systemd.open_starts().into_iter().collect::<Vec<_>>(),
        std::slice::from_ref(&hangs)
    );
    host.queue(&hangs, Job::Stop).await;
    host.until_no_jobs().await;
    assert!(host.systemd.take_failed_starts().is_empty() && host.systemd.open_starts().is_empty());
    host.systemd.reset_failed(&fails).await.unwrap();
    for name in [&needs, &fails, &timer, &tick, &hangs] {
        host.clear(name).await;
    }
}

async fn a_unit_that_ended_is_told_from_one_that_a_job_stopped(host: Host) {
    let [main, bound, ends] =
        ["fleettest-main.service", "fleettest-side.service", "fleettest-ends.service"].map(unit);
    assert_eq!(host.systemd.rest(&main).await.unwrap(), Rest::Unknown);
    host.write(&main, RUNS).await;
    host.write(&bound, &bound_to(&main, RUNS)).await;
    host.write(&ends, ENDS).await;
    host.queue(&bound, Job::Start).await;
    host.until(&bound, "active running").await;
    host.queue(&ends, Job::Start).await;
    host.until_no_jobs().await;
    host.until(&ends, "inactive dead").await;
    assert_eq!(host.rest(&ends).await, Rest::Ended);
    host.queue(&main, Job::Stop).await;
    host.until(&main, "inactive dead").await;
    for name in [&bound, &main] {
        assert_eq!(host.rest(name).await, Rest::Stopped, "{name}");
    }
    // What died, and is started again by its Restart=, takes along what is bound to it, by a job of
    // systemd's own. Not at once: a restart that finds what is bound to it still ending takes it
    // along, and it is up again.
    host.write(&main, &KEEPS.replace("RestartSec=50ms", "RestartSec=5s")).await;
    host.systemd.reload().await.unwrap();
    host.queue(&bound, Job::Start).await;
    host.until(&bound, "active running").await;
    host.kill(&main).await;
    host.until(&bound, "inactive dead").await;
    assert_eq!(host.rest(&bound).await, Rest::Stopped);
    for name in [&bound, &main, &ends] {
        host.clear(name).await;
    }
}

async fn a_unit_that_failed_is_told_from_one_that_failed_as_a_job_stopped_it(host: Host) {
    let [fails, stubborn] = ["fleettest-fails.service", "fleettest-stubborn.service"].map(unit);
    host.write(&fails, FAILS).await;
    host.write(&stubborn, &format!("{RUNS}{STUBBORN}")).await;
    host.queue(&fails, Job::Start).await;
    host.until(&fails, "failed failed").await;
    host.queue(&stubborn, Job::Start).await;
    host.until(&stubborn, "active running").await;
    host.queue(&stubborn, Job::Stop).await;
    host.until(&stubborn, "failed failed").await;
    assert_eq!(host.rest(&fails).await, Rest::Ended);
    assert_eq!(host.rest(&stubborn).await, Rest::Stopped);
    for name in [&fails, &stubborn] {
        host.systemd.reset_failed(name).await.unwrap();
        host.clear(name).await;
    }
}

async fn what_isolate_stops_was_stopped_by_a_job_whatever_its_type(host: Host) {
    let names = ["fleettest-iso.service", "fleettest-iso-once.service", "fleettest-iso.timer"];
    let [runs, once, timer] = names.map(unit);
    host.write(&runs, RUNS).await;
    host.write(&once, RUNS_ONCE).await;
    host.write(&timer, "[Timer]\nOnActiveSec=1h\n").await;
    for (name, state) in
        [(&runs, "active running"), (&once, "active exited"), (&timer, "active waiting")]
    {
        host.queue(name, Job::Start).await;
        host.until(name, state).await;
    }
    match &host.sim {
        Some(sim) => sim.isolate(&[]),
        None => isolate(&host.root).await,
    }
    for name in [&runs, &once, &timer] {
        host.until(name, "inactive dead").await;
        assert_eq!(host.rest(name).await, Rest::Stopped, "{name}");
        host.clear(name).await;
    }
}

async fn what_has_run_in_this_user_space_is_known_while_a_loaded_unit_names_it(host: Host) {
    let [target, ran, new] =
        ["fleettest-has-run.target", "fleettest-has-run.service", "fleettest-new.service"]
            .map(unit);
    for name in [&ran, &new] {
        host.write(name, "[Service]\nType=oneshot\nExecStart=/bin/true\n").await;
    }
    host.write(&target, &format!("[Unit]\nWants={ran}\n")).await;
    assert!(!host.systemd.has_run(&ran).await.unwrap());
    host.queue(&target, Job::Start).await;
    host.until(&target, "active active").await;
    host.until(&ran, "inactive dead").await;
    let runs = tokio::time::timeout(PATIENCE, async {
        while !host.systemd.has_run(&ran).await.unwrap() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(runs.await.is_ok(), "it has run");
    assert!(!host.systemd.has_run(&new).await.unwrap());
    for name in [&target, &ran, &new] {
        host.clear(name).await;
    }
}

async fn what_a_start_does_to_other_units_is_known(host: Host) {
    let [one, main, stopped, fresh, rival] = [
        "fleettest-one.service",
        "fleettest-bonds.service",
        "fleettest-required.service",
        "fleettest-fresh.service",
        "fleettest-rival.service",
    ]
    .map(unit);
    for name in [&main, &stopped, &fresh, &rival] {
        host.write(name, RUNS).await;
    }
    let text =
        format!("[Unit]\nBindsTo={main}\nRequires={stopped} {fresh}\nConflicts={rival}\n{RUNS}");
    host.write(&one, &text).await;
    host.queue(&stopped, Job::Start).await;
    host.until(&stopped, "active running").await;
    host.queue(&stopped, Job::Stop).await;
    host.until(&stopped, "inactive dead").await;
    assert_eq!(host.rest(&stopped).await, Rest::Stopped);
    let Bonds { mut needs, rivals } = host.systemd.bonds(&one).await.unwrap().unwrap();
    needs.sort();
    assert_eq!(needs, [main.clone(), stopped.clone()]);
    assert!(rivals.contains(&rival), "{rivals:?}");
    host.queue(&one, Job::Start).await;
    host.until(&one, "active running").await;
    for name in [&main, &stopped] {
        assert_eq!(host.systemd.stopped_with(name).await.unwrap(), std::slice::from_ref(&one));
    }
    assert_eq!(host.systemd.stopped_with(&one).await.unwrap(), []);
    for name in [&one, &main, &stopped, &fresh, &rival] {
        host.clear(name).await;
    }
}

/// A BOM, CRLF, a line over 2,048 bytes, no newline at the end: files as other systems make them.
async fn a_stop_that_a_unit_refuses_is_told_in_systemds_words_and_it_runs_on(host: Host) {
    let name = unit("fleettest-stays.service");
    host.write(&name, &format!("[Unit]\nRefuseManualStop=yes\n{RUNS}")).await;
    host.queue(&name, Job::Start).await;
    host.until(&name, "active running").await;
    for job in [Job::Stop, Job::Restart] {
        let said = problem(host.systemd.queue(&name, job).await);
        assert!(
            said.contains(
                "Operation refused, unit fleettest-stays.service may be requested by dependency \
                only"
            ),
            "{said}"
        );
    }
    host.until(&name, "active running").await;
    host.write(&name, RUNS).await;
    host.systemd.reload().await.unwrap();
    host.clear(&name).await;
}

async fn a_file_of_the_hosts_takes_a_name_over_at_the_next_reload(host: Host) {
    let name = unit("fleettest-own.service");
    let path = "/etc/systemd/system/fleettest-own.service";
    host.write(&name, RUNS).await;
    host.queue(&name, Job::Start).await;
    host.until(&name, "active running").await;
    let taken_over = async || {
        host.systemd.host_takes_over(&name).await.unwrap().map(|by| (by.path, by.in_force))
    };
    assert_eq!(taken_over().await, None);
    match &host.sim {
        Some(sim) => sim.define_on_host(&name, path, RUNS),
        None => std::fs::write(format!("{}{path}", host.root), RUNS).unwrap(),
    }
    assert_eq!(taken_over().await, Some((path.to_string(), false)));
    host.systemd.reload().await.unwrap();
    assert_eq!(taken_over().await, Some((path.to_string(), true)));
    host.until(&name, "active running").await;
    host.clear(&name).await;
    if host.sim.is_none() {
        std::fs::remove_file(format!("{}{path}", host.root)).unwrap();
        host.systemd.reload().await.unwrap();
    }
}

async fn odd_files_run(host: Host) {
    let name = unit("fleettest-odd.service");
    let long = format!("Environment=LONG={}", "x".repeat(2_049));
    host.write(
        &name,
        &format!(
            "\u{feff}# by hand\r\n[Service]\r\n{long}\r\nExecStart=/bin/sleep \\\r\n  infinity"
        ),
    )
    .await;
    host.queue(&name, Job::Start).await;
    host.until(&name, "active running").await;
    host.clear(&name).await;
}

async fn a_reload_runs_the_units_own_and_one_that_fails_is_told_in_systemds_word(host: Host) {
    let [reloads, refuses, hangs, none, down] = [
        "fleettest-reloads.service",
        "fleettest-refuses.service",
        "fleettest-endless.service",
        "fleettest-noreload.service",
        "fleettest-down.service",
    ]
    .map(unit);
    let touches = "ExecReload=/bin/touch /run/fleettest-reloaded\nRestart=always\n";
    host.write(&reloads, &format!("{RUNS}{touches}")).await;
    host.write(&refuses, &format!("{RUNS}ExecReload=/bin/false\nRestart=always\n")).await;
    host.sim.iter().for_each(|sim| sim.behave(&refuses, Behaviour::RefusesReloads));
    host.write(&hangs, &format!("{RUNS}ExecReload=/bin/sleep infinity\n")).await;
    host.write(&none, RUNS).await;
    host.write(&down, &format!("{RUNS}{touches}")).await;
    for name in [&reloads, &refuses, &hangs, &none] {
        assert_eq!(host.start(name).await, None);
        host.until(name, "active running").await;
    }
    for (name, word) in [(&down, Some("invalid")), (&reloads, None), (&refuses, Some("failed"))] {
        host.queue(name, Job::Reload).await;
        host.until_no_jobs().await;
        let failed = host.systemd.take_failed_reloads();
        assert_eq!(failed.get(name).map(String::as_str), word, "{name}: {failed:?}");
        assert!(host.systemd.take_failed_starts().is_empty(), "{name}: a reload is no start");
    }
    if host.sim.is_none() {
        let touched = std::path::Path::new(&host.root).join("run/fleettest-reloaded");
        assert!(touched.exists(), "its own reload has not run");
    }
    for name in [&reloads, &refuses] {
        host.until(name, "active running").await;
        assert_eq!(host.systemd.restarts(name).await.unwrap(), 0, "{name} runs on");
    }
    assert_eq!(host.now(&down).await.active, "inactive");
    assert_eq!(
        problem(host.systemd.queue(&none, Job::Reload).await),
        "systemd refused to reload fleettest-noreload.service: Job type reload is not applicable \
            for unit fleettest-noreload.service."
    );
    assert_eq!(host.now(&none).await.active, "active");
    // A stop does not wait for a reload, which came to nothing by our own wish then.
    host.queue(&hangs, Job::Reload).await;
    host.queue(&hangs, Job::Stop).await;
    host.until_no_jobs().await;
    // The reload's own process was ended by a signal.
    host.until(&hangs, "failed failed").await;
    assert_eq!(host.rest(&hangs).await, Rest::Stopped);
    assert_eq!(host.systemd.take_failed_reloads().get(&hangs), None);
    host.systemd.reset_failed(&hangs).await.unwrap();
    for name in [&reloads, &refuses, &hangs, &none, &down] {
        host.clear(name).await;
    }
}

/// Runs each case on both.
macro_rules! both {
    ($($case:ident)*) => {
        mod simulated {
            $(#[tokio::test] async fn $case() { super::$case(super::Host::simulated()).await; })*
        }
        async fn all_on_the_real_one(root: &str) {
            $(eprintln!("{}", stringify!($case)); $case(Host::real(root).await).await;)*
        }
    };
}

both! {
    a_new_unit_starts_without_a_reload
    many_units_written_while_others_start_are_all_found
    a_changed_text_is_used_only_after_a_reload
    a_name_can_be_used_again_with_another_text
    a_failed_unit_tells_why_until_it_is_reset
    a_unit_that_restarts_itself_too_often_fails
    the_drop_in_is_part_of_the_unit
    instances_share_their_templates_file_until_one_gets_its_own
    refusals_are_in_systemds_words
    what_is_not_there_can_be_stopped_reset_and_removed
    a_list_has_only_units_that_are_not_at_rest
    a_hanging_start_has_a_job_until_it_is_stopped
    the_hosts_own_units_are_told_with_their_path
    an_enabled_unit_starts_with_its_target_until_it_is_disabled
    a_loaded_target_heeds_an_enabled_unit_after_a_reload
    a_unit_without_a_file_cannot_be_enabled
    one_call_enables_many_and_one_that_is_refused_leaves_the_others_to_be_asked_for
    odd_files_run
    a_bound_unit_starts_what_it_is_bound_to_and_stops_with_it
    what_a_unit_wants_is_started_along_and_may_be_missing
    a_bound_unit_that_does_not_end_is_killed_and_waited_for
    a_restart_takes_along_what_is_bound
    a_failed_assertion_keeps_a_unit_from_starting_and_is_no_failure
    a_condition_is_asked_at_each_start_also_at_those_by_restart
    a_silent_watchdog_ends_a_unit_and_what_is_bound_to_it
    what_restarts_by_itself_is_counted_takes_along_what_is_bound_and_brings_back_only_itself
    a_stop_that_a_unit_refuses_is_told_in_systemds_words_and_it_runs_on
    a_file_of_the_hosts_takes_a_name_over_at_the_next_reload
    a_start_that_came_to_nothing_is_told_in_systemds_word
    a_unit_that_ended_is_told_from_one_that_a_job_stopped
    a_unit_that_failed_is_told_from_one_that_failed_as_a_job_stopped_it
    what_isolate_stops_was_stopped_by_a_job_whatever_its_type
    what_has_run_in_this_user_space_is_known_while_a_loaded_unit_names_it
    what_a_start_does_to_other_units_is_known
    a_reload_runs_the_units_own_and_one_that_fails_is_told_in_systemds_word
}

#[tokio::test]
async fn a_simulated_reboot_leaves_nothing_and_frees_the_jobs() {
    let host = Host::simulated();
    let (runs, hangs) = (unit("a.service"), unit("b.service"));
    host.write(&runs, RUNS).await;
    host.write(&hangs, HANGS).await;
    host.queue(&runs, Job::Start).await;
    host.queue(&hangs, Job::Start).await;
    let sim = host.sim.as_ref().unwrap();
    sim.crash_host();
    assert_eq!((sim.loaded().len(), sim.files().len(), host.systemd.jobs_in_flight()), (0, 0, 0));
    assert_eq!(
        problem(host.systemd.queue(&runs, Job::Start).await),
        "systemd refused to start a.service: Unit a.service not found."
    );
}

#[tokio::test]
async fn a_simulated_soft_reboot_stops_all_and_leaves_the_files() {
    let host = Host::simulated();
    let runs = unit("a.service");
    host.write(&runs, RUNS).await;
    host.queue(&runs, Job::Start).await;
    host.until(&runs, "active running").await;
    let before = host.systemd.user_space().await.unwrap();
    let sim = host.sim.as_ref().unwrap();
    sim.soft_reboot();
    assert_eq!((sim.loaded().len(), sim.files().len()), (0, 1));
    assert_ne!(host.systemd.user_space().await.unwrap(), before);
    assert_eq!(host.systemd.rest(&runs).await.unwrap(), Rest::Stopped);
}

/// One host, one case after the other: the last ones take the bus from under all others.
#[tokio::test]
async fn the_real_systemd_does_the_same_and_survives_its_bus() {
    let lab = Lab::up(&LabOptions {
        name: "systemd".into(),
        hosts: 1,
        store: Store::Embedded,
        ..LabOptions::default()
    })
    .expect("a host");
    lab.sh("h1", "systemctl stop fleetd.socket fleetd").expect("fleetd stops");
    let root = lab.path_in("h1", "/").expect("the host runs");
    let root = root.to_str().expect("a path of ours").trim_end_matches('/');
    all_on_the_real_one(root).await;
    more_long_jobs_than_there_are_slots_still_start(Host::real(root).await).await;
    calls_work_again_after_the_bus_or_systemd_went_away(root, Host::real(root).await).await;
    lab.down().expect("the lab goes");
}

async fn calls_work_again_after_the_bus_or_systemd_went_away(root: &str, host: Host) {
    let (name, hangs) = (unit("fleettest-after.service"), unit("fleettest-before.service"));
    host.write(&name, RUNS).await;
    host.write(&hangs, HANGS).await;
    let user_space = host.systemd.user_space().await.unwrap();
    for broken_by in ["Reexecute", "dbus.service"] {
        host.queue(&hangs, Job::Start).await;
        let mut changes = host.systemd.changes();
        changes.mark_unchanged();
        match broken_by {
            "Reexecute" => reexecute(root).await,
            _ => drop(host.systemd.queue(&unit(broken_by), Job::Restart).await),
        }
        tokio::time::timeout(PATIENCE, changes.changed()).await.expect("told of the loss").unwrap();
        let back = async {
            while host.systemd.list(std::slice::from_ref(&name)).await.is_err() {
                tokio::task::yield_now().await;
            }
            while let Err(SystemdError::Unavailable(_)) =
                host.systemd.queue(&name, Job::Restart).await
            {}
        };
        tokio::time::timeout(PATIENCE, back).await.expect("systemd is back");
        host.until(&name, "active running").await;
        host.queue(&hangs, Job::Stop).await;
        host.until_no_jobs().await;
        assert_eq!(
            host.systemd.user_space().await.unwrap(),
            user_space,
            "{broken_by} begins no user space"
        );
        eprintln!("after {broken_by}: {:?}", host.counters());
    }
    host.clear(&name).await;
    host.clear(&hangs).await;
}

/// Takes half a minute: the check for lost job ends runs every 30 s.
async fn more_long_jobs_than_there_are_slots_still_start(host: Host) {
    let names: Vec<UnitName> =
        (0..MAX_STARTS + 50).map(|i| unit(&format!("fleettest-long@{i}.service"))).collect();
    for name in &names {
        host.write(name, "[Service]\nType=oneshot\nExecStart=/bin/sleep infinity\n").await;
    }
    let starts =
        futures_util::future::join_all(names.iter().map(|name| host.queue(name, Job::Start)));
    tokio::time::timeout(Duration::from_secs(120), starts).await.expect("slots came free");
    let listed = host.systemd.list(&names).await.unwrap();
    assert_eq!(listed.values().filter(|unit| unit.job).count(), names.len());
    eprintln!("{:?}", host.counters());
    futures_util::future::join_all(names.iter().map(|name| host.clear(name))).await;
    host.until_no_jobs().await;
    // A oneshot that is stopped while it runs has failed.
    for name in &names {
        host.systemd.reset_failed(name).await.unwrap();
    }
    assert!(host.systemd.list(&names).await.unwrap().is_empty());
}

fn bus(root: &str) -> String {
    format!("unix:path={root}/run/dbus/system_bus_socket")
}

async fn kill_main(root: &str, name: &UnitName) {
    let address = bus(root);
    let bus = zbus::connection::Builder::address(address.as_str()).unwrap().build().await.unwrap();
    let (to, manager) = ("org.freedesktop.systemd1", "org.freedesktop.systemd1.Manager");
    let arguments = (name.as_str(), "main", 9_i32);
    bus.call_method(Some(to), "/org/freedesktop/systemd1", Some(manager), "KillUnit", &arguments)
        .await
        .expect("it runs");
}

/// `systemctl isolate multi-user.target`.
async fn isolate(root: &str) {
    let address = bus(root);
    let bus = zbus::connection::Builder::address(address.as_str()).unwrap().build().await.unwrap();
    let (to, manager) = ("org.freedesktop.systemd1", "org.freedesktop.systemd1.Manager");
    let arguments = ("multi-user.target", "isolate");
    bus.call_method(Some(to), "/org/freedesktop/systemd1", Some(manager), "StartUnit", &arguments)
        .await
        .expect("it may be isolated");
}

async fn reexecute(root: &str) {
    let address = bus(root);
    let bus = zbus::connection::Builder::address(address.as_str()).unwrap().build().await.unwrap();
    let to = "org.freedesktop.systemd1";
    let call = bus.call_method(
        Some(to),
        "/org/freedesktop/systemd1",
        Some("org.freedesktop.systemd1.Manager"),
        "Reexecute",
        &(),
    );
    // It never answers: the one who would is gone.
    let _ = tokio::time::timeout(Duration::from_secs(2), call).await;
}
