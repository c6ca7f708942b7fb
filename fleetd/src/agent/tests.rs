//! The agent's files on a simulated host: who shares a template's file, who has one of its own, and
//! what a restarted fleetd makes of it.

use std::path::PathBuf;

use fleet_core::converge;
use fleet_core::model::{DesiredState, FORMAT, Machine, Placement, UnitRecord, Why};

use super::*;
use crate::store::embedded::EmbeddedKv;
use crate::store::{LeaseId, Registration};
use crate::systemd::sim::SimSystemd;
use crate::systemd::{Job, Listed};

mod rest;

const OLD: &str = "[Service]\nExecStart=/bin/old\n";
const NEW: &str = "[Service]\nExecStart=/bin/new\n";

struct Host {
    folder: tempfile::TempDir,
    store: Store,
    sim: SimSystemd,
    agent: Agent,
    now_ms: u64,
}

impl Host {
    async fn new() -> Host {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(
            Arc::new(EmbeddedKv::open(folder.path().join("store.redb")).await.unwrap()),
            "/fleet/",
        );
        let sim = SimSystemd::default();
        let agent = Host::agent(folder.path().join("run"), &store, &sim);
        Host { folder, store, sim, agent, now_ms: 1_000 }
    }

    fn agent(run_dir: PathBuf, store: &Store, sim: &SimSystemd) -> Agent {
        Agent::new(MachineId::new("m"), store.clone(), Arc::new(sim.clone()), &run_dir).unwrap()
    }

    fn restart_fleetd(&mut self) {
        self.agent = Host::agent(self.folder.path().join("run"), &self.store, &self.sim);
    }

    /// Submits a text and answers with a placement of it.
    async fn text(&self, unit: &str, revision: u64, text: &str) -> Placement {
        let name = UnitName::parse(unit).unwrap();
        let record = UnitRecord {
            v: FORMAT,
            name: name.clone(),
            text: text.to_string(),
            revision,
            desired: DesiredState::Launched,
            replicas: None,
            created_ms: 0,
            restart: 0,
            restart_of: BTreeMap::new(),
            unknown: BTreeMap::new(),
        };
        let old = self.store.unit(&name).await.unwrap().0.map(|old| old.revision);
        self.store.put_unit(&record, old, true).await.unwrap();
        let hash = fleet_core::unit_file::UnitFile::parse_lenient(text).short_hash();
        let (state, why) = (DesiredState::Launched, Why::Fewest);
        Placement {
            unit: name,
            revision,
            hash,
            state,
            why,
            since_ms: 0,
            moves: 0,
            restart: 0,
            fence: None,
        }
    }

    /// Assigns, and ticks until nothing is left to do.
    async fn run(&mut self, wanted: &[(&str, &Placement)]) {
        let instances = wanted
            .iter()
            .map(|(name, placement)| (UnitName::parse(name).unwrap(), (*placement).clone()))
            .collect();
        self.agent.assignment = Some(Arc::new(Assignment { instances, ..Assignment::default() }));
        let mut jobs = self.sim.changes();
        for _ in 0..20 {
            self.now_ms += 10_000;
            self.agent.pass(self.now_ms).await.unwrap();
            jobs.wait_for(|_| self.sim.jobs_in_flight() == 0).await.unwrap();
        }
    }

    /// The files, one a word: `web@.service=new web@1.service=old`.
    fn files(&self) -> String {
        let command = |text: &str| if text == NEW { "new" } else { "old" };
        let files: Vec<String> = self
            .sim
            .files()
            .iter()
            .map(|(name, (text, _))| format!("{name}={}", command(text)))
            .collect();
        files.join(" ")
    }

    /// What runs.
    fn running(&self) -> String {
        let loaded = self.sim.loaded();
        let running = loaded.iter().filter(|(_, unit)| unit.active == "active");
        running.map(|(name, _)| name.to_string()).collect::<Vec<_>>().join(" ")
    }
}

#[tokio::test]
async fn replicas_of_one_text_share_their_templates_file_and_the_last_takes_it_along() {
    let mut host = Host::new().await;
    let web = host.text("web@.service", 1, OLD).await;
    host.run(&[("web@1.service", &web), ("web@2.service", &web), ("web@70.service", &web)]).await;
    assert_eq!(host.files(), "web@.service=old");
    assert_eq!(host.running(), "web@1.service web@2.service web@70.service");
    let (writes, starts) = (host.sim.counters().write, host.sim.counters().start);
    host.run(&[
        ("web@1.service", &web),
        ("web@2.service", &web),
        ("web@3.service", &web),
        ("web@70.service", &web),
    ])
    .await;
    assert_eq!(
        (host.sim.counters().write, host.sim.counters().start),
        (writes, starts + 1),
        "one more writes nothing"
    );
    host.run(&[("web@70.service", &web)]).await;
    assert_eq!(host.files(), "web@.service=old");
    host.run(&[]).await;
    assert_eq!((host.files(), host.running()), (String::new(), String::new()));
    assert_eq!(host.sim.counters().reload, 0);
}

#[tokio::test]
async fn a_unit_submitted_by_name_has_a_file_of_its_own_beside_the_templates() {
    let mut host = Host::new().await;
    let (web, own) =
        (host.text("web@.service", 1, OLD).await, host.text("web@2.service", 1, NEW).await);
    host.run(&[("web@1.service", &web), ("web@2.service", &own)]).await;
    assert_eq!(host.files(), "web@.service=old web@2.service=new");
    host.run(&[("web@2.service", &own)]).await;
    assert_eq!(host.files(), "web@2.service=new");
    host.run(&[("web@2.service", &web)]).await;
    assert_eq!(
        (host.files().as_str(), host.running().as_str()),
        ("web@.service=old", "web@2.service")
    );
}

#[tokio::test]
async fn a_new_text_for_all_is_one_file_and_one_reload() {
    let mut host = Host::new().await;
    let old = host.text("web@.service", 1, OLD).await;
    host.run(&[("web@1.service", &old), ("web@2.service", &old)]).await;
    let new = host.text("web@.service", 2, NEW).await;
    host.run(&[("web@1.service", &new), ("web@2.service", &new)]).await;
    let counters = host.sim.counters();
    assert_eq!(
        (host.files().as_str(), counters.reload, counters.restart),
        ("web@.service=new", 1, 2)
    );
}

#[tokio::test]
async fn in_a_rolling_update_those_that_wait_keep_their_text_in_files_of_their_own() {
    let mut host = Host::new().await;
    let old = host.text("web@.service", 1, OLD).await;
    host.run(&[("web@1.service", &old), ("web@2.service", &old), ("web@3.service", &old)]).await;
    let new = host.text("web@.service", 2, NEW).await;
    host.run(&[("web@1.service", &new), ("web@2.service", &old), ("web@3.service", &old)]).await;
    assert_eq!(host.files(), "web@.service=new web@2.service=old web@3.service=old");
    assert_eq!(host.sim.counters().restart, 1, "nobody else is touched");
    host.run(&[("web@1.service", &new), ("web@2.service", &new), ("web@3.service", &new)]).await;
    assert_eq!((host.files().as_str(), host.sim.counters().restart), ("web@.service=new", 3));
}

#[tokio::test]
async fn two_texts_of_one_template_that_are_written_in_one_pass_are_each_their_own() {
    for install in ["", "[Install]\nWantedBy=a.target\n"] {
        let mut host = Host::new().await;
        let texts =
            [OLD, NEW, "[Service]\nExecStart=/bin/newer\n"].map(|text| format!("{text}{install}"));
        let first = host.text("web@.service", 1, &texts[0]).await;
        host.run(&[("web@2.service", &first)]).await;
        let second = host.text("web@.service", 2, &texts[1]).await;
        let third = host.text("web@.service", 3, &texts[2]).await;
        let before = host.sim.counters();
        host.run(&[
            ("web@1.service", &third),
            ("web@2.service", &second),
            ("web@3.service", &third),
        ])
        .await;
        for (name, text) in [
            ("web@1.service", &texts[2]),
            ("web@2.service", &texts[1]),
            ("web@3.service", &texts[2]),
        ] {
            assert_eq!(
                host.sim.running_text(&UnitName::trusted(name)).as_ref(),
                Some(text),
                "{name}"
            );
        }
        let after = host.sim.counters();
        assert_eq!(
            (after.start - before.start, after.restart - before.restart),
            (2, 1),
            "each is started with its text at once"
        );
    }
}

#[tokio::test]
async fn files_of_an_older_fleetd_are_adopted_untouched_and_shared_at_the_next_text() {
    let mut host = Host::new().await;
    let old = host.text("web@.service", 1, OLD).await;
    let (one, two) = (UnitName::trusted("web@1.service"), UnitName::trusted("web@2.service"));
    host.run(&[("web@1.service", &old)]).await;
    // What 0.1 wrote: a file for each, and a marker without a word of sharing.
    let marker = host.folder.path().join("run/units/web@1.service.json");
    let text = std::fs::read_to_string(&marker).unwrap();
    std::fs::write(&marker, text.replace(",\"shared\":true", "")).unwrap();
    std::fs::remove_file(host.folder.path().join("run/units/web@.service.template")).unwrap();
    host.sim.unshare(&one).await.unwrap();
    host.sim.remove(&UnitName::trusted("web@.service")).await.unwrap();
    let before = host.sim.counters();
    host.restart_fleetd();
    host.run(&[("web@1.service", &old), ("web@2.service", &old)]).await;
    let after = host.sim.counters();
    assert_eq!(host.files(), "web@.service=old web@1.service=old");
    assert_eq!(
        (after.start, after.restart, after.reload),
        (before.start + 1, before.restart, before.reload),
        "only {two} starts"
    );
    let new = host.text("web@.service", 2, NEW).await;
    host.run(&[("web@1.service", &new), ("web@2.service", &new)]).await;
    assert_eq!(host.files(), "web@.service=new");
}

#[tokio::test]
async fn a_fleetd_that_died_while_it_wrote_a_template_anew_goes_on_with_it() {
    let mut host = Host::new().await;
    let old = host.text("web@.service", 1, OLD).await;
    host.run(&[("web@1.service", &old), ("web@2.service", &old)]).await;
    let new = host.text("web@.service", 2, NEW).await;
    // It had written the template and noted that, but no instance yet; meanwhile the user took the
    // text back.
    let template = UnitName::trusted("web@.service");
    host.sim.write(&template, NEW, "").await.unwrap();
    let noted = format!("{{\"unit\":\"web@.service\",\"hash\":\"{}\"}}", new.hash);
    std::fs::write(host.folder.path().join("run/units/web@.service.template"), noted).unwrap();
    host.restart_fleetd();
    host.run(&[("web@1.service", &old), ("web@2.service", &old)]).await;
    assert_eq!(
        (host.files().as_str(), host.running().as_str()),
        ("web@.service=old", "web@1.service web@2.service")
    );
}

/// Registers the machine, runs one unit that takes `stop` to stop, leaves, and looks at the host in
/// the moment that the machine is gone from the store: whether the unit was still stopping, and
/// after how many seconds that was.
async fn leave_with_a_stop_of(stop: Duration) -> (bool, u64) {
    const TTL: Duration = Duration::from_secs(10);
    let mut host = Host::new().await;
    let (name, text) = (UnitName::trusted("web.service"), host.text("web.service", 1, OLD).await);
    host.sim.stops_slowly(&name, stop);
    host.run(&[("web.service", &text)]).await;
    let lease = host.store.grant(TTL).await.unwrap();
    let registration = host.store.register(&machine(), lease).await.unwrap();
    let begin = tokio::time::Instant::now();
    let clock: clock::Clock = Arc::new(move || 1_000_000 + begin.elapsed().as_millis() as u64);
    let (store, sim) = (host.store.clone(), host.sim.clone());
    let gone = async {
        let seen = store.read_all().await.unwrap().cluster().snapshot.revision;
        let mut changes = store.watch_all(seen).await.unwrap();
        while store
            .read_all()
            .await
            .unwrap()
            .cluster()
            .snapshot
            .machines
            .contains_key(&machine().id)
        {
            changes.recv().await.unwrap().unwrap();
        }
        (sim.loaded().contains_key(&UnitName::trusted("web.service")), begin.elapsed().as_secs())
    };
    let id = machine().id;
    let leaving = crate::leave::leave(&host.store, &id, Some(registration), TTL, &mut host.agent);
    let (gone, left) = tokio::join!(gone, clock::with_clock(clock, leaving));
    assert!(left);
    assert_eq!(
        (host.running(), host.files()),
        (String::new(), String::new()),
        "all has stopped in the end"
    );
    gone
}

fn machine() -> Machine {
    Machine::new(MachineId::new("m"), "")
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_leaves_is_gone_when_its_units_have_stopped_or_after_five_seconds() {
    assert_eq!(leave_with_a_stop_of(Duration::from_millis(10)).await, (false, 0));
    assert_eq!(leave_with_a_stop_of(Duration::from_secs(3)).await, (false, 3));
    assert_eq!(leave_with_a_stop_of(Duration::from_secs(20)).await, (true, 5));
}

#[tokio::test]
async fn a_machine_that_leaves_while_the_store_is_away_stops_nothing_and_ends_a_keeper_that_waits()
{
    let mut host = Host::new().await;
    let text = host.text("web.service", 1, OLD).await;
    host.run(&[("web.service", &text)]).await;
    let keeper = UnitName::trusted(crate::keeper::UNIT);
    let unit_file = include_str!("../../dist/fleet-keeper.service");
    host.sim.define_on_host(&keeper, "/usr/lib/systemd/system/fleet-keeper.service", unit_file);
    host.sim.run_program(
        &keeper,
        Arc::new(|process| {
            Box::pin(async move {
                process.terminated().await;
                true
            })
        }),
    );
    host.sim.queue(&keeper, Job::Start).await.unwrap();
    host.agent =
        host.agent.with_keeper(host.folder.path().join("fleet-guard"), false, Arc::default());
    let nowhere = crate::store::etcd::EtcdOptions::new(vec!["http://127.0.0.1:1".to_string()]);
    let nowhere =
        Store::new(Arc::new(crate::store::etcd::EtcdKv::connect(nowhere).unwrap()), "/fleet/");
    let mut jobs = host.sim.changes();
    assert!(
        !crate::leave::leave(
            &nowhere,
            &machine().id,
            None,
            Duration::from_secs(10),
            &mut host.agent
        )
        .await
    );
    jobs.wait_for(|_| host.sim.jobs_in_flight() == 0).await.unwrap();
    assert_eq!((host.running().as_str(), host.sim.counters().stop), ("web.service", 1));
    assert!(!host.sim.loaded().contains_key(&keeper), "{:?}", host.sim.loaded());
}

#[tokio::test]
async fn a_restart_that_is_carried_out_ends_what_was_said_of_one_that_was_refused() {
    let mut host = Host::new().await;
    let (name, mut web) =
        (UnitName::trusted("web.service"), host.text("web.service", 1, OLD).await);
    host.run(&[("web.service", &web)]).await;
    host.agent
        .trouble
        .entry(name.clone())
        .or_default()
        .again(host.now_ms, Some("masked".to_string()));
    host.agent.since.insert(name.clone(), ("active".to_string(), host.now_ms)); // not well for long: that alone would end it
    web.restart = 1;
    host.agent.assignment = Some(Arc::new(Assignment {
        instances: [(name.clone(), web)].into(),
        ..Assignment::default()
    }));
    host.now_ms += 2_000;
    host.agent.pass(host.now_ms).await.unwrap();
    let trouble = &host.agent.trouble[&name];
    assert_eq!(
        (host.sim.counters().restart, trouble.failures, trouble.message.as_deref()),
        (1, 1, None)
    );
}

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

impl Host {
    /// Assigns one unit and lets `seconds` go by. Answers with what was reported of it, each change
    /// with its time in tenths of a second: `3 active settling`.
    async fn watch(&mut self, name: &str, placement: &Placement, seconds: u64) -> Vec<String> {
        let name = UnitName::parse(name).unwrap();
        let instances = BTreeMap::from([(name.clone(), placement.clone())]);
        self.agent.assignment = Some(Arc::new(Assignment { instances, ..Assignment::default() }));
        let mut said: Vec<(u64, String)> = Vec::new();
        for tenth in 0..seconds * 10 {
            let seen = self.agent.observe(self.now_ms).await.unwrap();
            let report = self.agent.report(&seen, self.now_ms).await;
            let status = &report.instances[&name];
            let words = [(status.settling, " settling"), (status.gave_up, " gave up")];
            let words: String = words.iter().filter(|(is, _)| *is).map(|(_, word)| *word).collect();
            let restarts = if status.restarts > 0 {
                format!(" {} restarts", status.restarts)
            } else {
                String::new()
            };
            let line = format!("{}{words}{restarts}", status.active);
            if said.last().is_none_or(|(_, last)| *last != line) {
                said.push((tenth, line));
            }
            self.agent.pass(self.now_ms).await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
            self.now_ms += 100;
        }
        said.into_iter().map(|(at, line)| format!("{at} {line}")).collect()
    }

    fn asked(&self) -> u64 {
        self.sim.counters().outcome
    }
}

fn dies(script: &str, restart: &str) -> String {
    format!(
        "[Unit]\nStartLimitIntervalSec=0\n[Service]\nExecStart=/bin/sh -c '{script}'\n{restart}\n"
    )
}

#[tokio::test(start_paused = true)]
async fn what_came_up_settles_after_two_seconds_and_is_asked_about_once() {
    let mut host = Host::new().await;
    let web = host.text("web.service", 1, OLD).await;
    let said = host.watch("web.service", &web, 10).await;
    assert_eq!(said, ["0 inactive", "1 active settling", "21 active"]);
    assert_eq!(host.asked(), 1, "an idle agent asks nothing");
    host.restart_fleetd();
    // It does not know how often systemd had restarted the unit before: one count is no answer.
    assert_eq!(host.watch("web.service", &web, 10).await, ["0 active settling", "40 active"]);
    assert_eq!(host.asked(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_systemd_restarts_again_and_again_never_settles_and_gives_up() {
    let mut host = Host::new().await;
    let text = dies("sleep 0.5; exit 3", "Restart=always\nRestartSec=10ms");
    let web = host.text("web.service", 1, &text).await;
    let said = host.watch("web.service", &web, 30).await;
    let settled = |line: &&String| line.contains(" active") && !line.contains("settling");
    assert!(!said.iter().any(|line| settled(&line)), "{said:#?}");
    let gave_up = said.iter().position(|line| line.contains("gave up")).expect("it gave up");
    let at: u64 = said[gave_up].split(' ').next().unwrap().parse().unwrap();
    assert!((150..250).contains(&at), "as the agent's own restarts would have: {said:#?}");
    assert!(said.iter().any(|line| line.contains("activating settling 1 restarts")), "{said:#?}");
    assert_eq!(host.sim.counters().restart, 0, "it is systemd's to restart it");
}

#[tokio::test(start_paused = true)]
async fn what_dies_long_after_it_came_up_and_is_restarted_at_once_is_noticed_all_the_same() {
    let mut host = Host::new().await;
    let text = dies("sleep 10; exit 3", "Restart=on-failure\nRestartSec=20ms");
    let web = host.text("web.service", 1, &text).await;
    let said = host.watch("web.service", &web, 70).await;
    assert!(said.last().unwrap().contains("gave up"), "{said:#?}");
    assert!(
        said.iter().any(|line| line.ends_with("active 1 restarts")),
        "between two deaths it is up: {said:#?}"
    );
    assert!(host.asked() < 100, "{}", host.asked());
}

#[tokio::test(start_paused = true)]
async fn what_ends_well_and_is_restarted_by_its_unit_file_is_no_trouble() {
    let mut host = Host::new().await;
    let text = dies("sleep 5; exit 0", "Restart=always\nRestartSec=1");
    let web = host.text("web.service", 1, &text).await;
    let said = host.watch("web.service", &web, 60).await;
    assert!(!said.iter().any(|line| line.contains("restarts")), "{said:#?}");
}

#[tokio::test(start_paused = true)]
async fn what_ends_well_every_second_is_up_while_it_runs() {
    let mut host = Host::new().await;
    let text = dies("sleep 1; exit 0", "Restart=always\nRestartSec=1");
    let web = host.text("web.service", 1, &text).await;
    let said = host.watch("web.service", &web, 20).await;
    assert!(said[1].ends_with("active settling"), "nobody knows it yet: {said:#?}");
    assert!(
        said[3..].iter().all(|line| line.ends_with(" active") || line.ends_with(" activating")),
        "{said:#?}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_was_moved_for_failing_has_to_stay_up_for_a_minute_and_a_new_text_does_not() {
    let mut host = Host::new().await;
    let mut web = host.text("web.service", 1, OLD).await;
    web.moves = 1;
    assert_eq!(
        host.watch("web.service", &web, 70).await,
        ["0 inactive", "1 active settling", "601 active"]
    );
    web.restart = 1;
    let said = host.watch("web.service", &web, 10).await;
    assert_eq!(said.last().unwrap(), "21 active", "it has shown that it runs here: {said:?}");
}

#[tokio::test(start_paused = true)]
async fn a_new_text_starts_with_a_clean_record() {
    let mut host = Host::new().await;
    let bad = host.text("web.service", 1, &dies("sleep 0.1; exit 1", "")).await;
    let said = host.watch("web.service", &bad, 40).await;
    assert!(said.last().unwrap().contains("gave up"), "{said:#?}");
    let good = host.text("web.service", 2, OLD).await;
    let said = host.watch("web.service", &good, 10).await;
    assert!(
        !said.iter().any(|line| line.contains("restarts") || line.contains("gave up")),
        "{said:#?}"
    );
    assert!(said.last().unwrap().ends_with(" active"), "{said:#?}");
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
        let said = host.agent.trouble.values().find_map(|trouble| trouble.message.clone());
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
async fn a_name_that_stands_for_more_than_one_unit_or_is_too_long_is_written_nowhere() {
    let mut host = Host::new().await;
    let long = format!("{}.service", "a".repeat(251 - ".service".len()));
    for (name, expected) in [
        ("app-.service", "stands for every app-*.service"),
        (long.as_str(), "the name has 251 bytes"),
    ] {
        let placement = host.text(name, 1, OLD).await;
        host.run(&[(name, &placement)]).await;
        let said = host
            .agent
            .trouble
            .values()
            .find_map(|trouble| trouble.message.clone())
            .unwrap_or_default();
        assert!(said.contains(expected) && host.files().is_empty(), "{said}");
        let notes = std::fs::read_dir(host.folder.path().join("run/units")).unwrap().count();
        assert_eq!(notes, 0, "nothing is left");
        host.run(&[]).await;
    }
}

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
        let said = host
            .agent
            .trouble
            .get(&one)
            .and_then(|trouble| trouble.message.clone())
            .unwrap_or_default();
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
    let said = host.agent.trouble[&one].message.clone().unwrap_or_default();
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
        (host.running(), host.files(), host.agent.markers.names().count()),
        (String::new(), String::new(), 0)
    );
}

#[tokio::test(start_paused = true)]
async fn a_machine_leaves_at_once_though_systemd_refuses_to_stop_a_unit() {
    let mut host = Host::new().await;
    let text = host.text("web.service", 1, &format!("[Unit]\nRefuseManualStop=yes\n{OLD}")).await;
    let other = host.text("other.service", 1, OLD).await;
    host.run(&[("web.service", &text), ("other.service", &other)]).await;
    let begin = tokio::time::Instant::now();
    let clock: clock::Clock = Arc::new(move || 1_000_000 + begin.elapsed().as_millis() as u64);
    clock::with_clock(clock, host.agent.stop_everything()).await;
    assert_eq!((host.running().as_str(), begin.elapsed().as_secs()), ("web.service", 0));
}

#[tokio::test]
async fn a_failure_is_reported_before_the_next_try_hides_it() {
    let mut host = Host::new().await;
    let (name, web) = (UnitName::trusted("web.service"), host.text("web.service", 1, OLD).await);
    host.run(&[("web.service", &web)]).await;
    let lease = host.store.grant(Duration::from_secs(10)).await.unwrap();
    host.agent.registration = Some(host.store.register(&machine(), lease).await.unwrap());
    host.sim.fail(&name, "timeout", 15);
    host.sim.hang(&name); // its next start takes long until it fails
    host.now_ms += 2_000;
    host.agent.pass(host.now_ms).await.unwrap();
    let reported = host.agent.reported.as_ref().map(|report| &report.instances[&name]);
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
    let seen = host.agent.observe(host.now_ms).await.unwrap();
    let report = host.agent.report(&seen, host.now_ms).await;
    assert_eq!(report.instances[&name].reason.as_deref(), Some("Failed to run it"));
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
/// A store that shows this assignment, or none.
fn shown(assignment: Option<&Arc<Assignment>>) -> Newest {
    watch::channel(Shown { assignment: assignment.cloned(), as_of: 1, answered: true }).1
}

#[tokio::test]
async fn nothing_is_started_before_the_machines_id_is_known_to_be_its_own_nor_while_another_has_it()
{
    let mut host = Host::new().await;
    let placement = host.text("a.service", 1, OLD).await;
    let instances = BTreeMap::from([(UnitName::trusted("a.service"), placement)]);
    let newest =
        shown(Some(&Arc::new(Assignment { generation: 1, instances, ..Assignment::default() })));
    let mut jobs = host.sim.changes();
    let registered =
        |create_revision| Standing::Own(Some(Registration { lease: LeaseId(1), create_revision }));
    for (standing, runs) in [
        (Standing::NoAnswer, false),
        (Standing::Asked, false),
        (Standing::Taken, false),
        (Standing::Vacant, false),
        (Standing::Own(None), false),
        // The store was seen at revision 1: that was the other one's assignment.
        (registered(2), false),
        (registered(1), true),
        (Standing::Taken, true),
    ] {
        host.agent.tick(host.now_ms, &newest, standing).await;
        jobs.wait_for(|_| host.sim.jobs_in_flight() == 0).await.unwrap();
        host.now_ms += 1_000;
        assert_eq!(host.running() == "a.service", runs, "{standing:?}");
    }
    assert_eq!(host.running(), "a.service", "who loses the id stops nothing");
    host.agent.tick(host.now_ms, &shown(Some(&Arc::default())), Standing::Taken).await;
    assert_eq!(host.running(), "a.service");
}

#[tokio::test]
async fn what_ran_by_another_machine_id_is_stopped_once_the_store_says_that_nothing_is_assigned_to_this_one()
 {
    let mut host = Host::new().await;
    let placement = host.text("a.service", 1, OLD).await;
    host.run(&[("a.service", &placement)]).await;
    let run_dir = host.folder.path().join("run");
    let mut jobs = host.sim.changes();
    for (id, standing, runs) in [
        ("m", Standing::Own(None), true),
        ("new", Standing::NoAnswer, true),
        ("new", Standing::Own(None), false),
    ] {
        let agent = Agent::new(
            MachineId::new(id),
            host.store.clone(),
            Arc::new(host.sim.clone()),
            &run_dir,
        );
        host.agent = agent.unwrap();
        for _ in 0..3 {
            host.now_ms += 1_000;
            host.agent.tick(host.now_ms, &shown(None), standing).await;
            jobs.wait_for(|_| host.sim.jobs_in_flight() == 0).await.unwrap();
        }
        assert_eq!(host.running() == "a.service", runs, "{id} {standing:?}");
    }
}
