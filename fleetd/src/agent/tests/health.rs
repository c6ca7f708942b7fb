//! Health checks: what is asked, what is reported, and what is done about it.

use fleet_core::health::Health;
use tokio::task::JoinHandle;

use super::*;
use crate::probe::Answer;
use crate::process::clock::with_clock;

impl Host {
    /// Asks instances from now on, by the clock of the test.
    fn ask(&self) -> JoinHandle<()> {
        let (began, at_ms) = (tokio::time::Instant::now(), self.now_ms);
        let clock = Arc::new(move || at_ms + began.elapsed().as_millis() as u64);
        tokio::spawn(with_clock(clock, self.agent.checks.clone().run()))
    }

    /// Assigns one unit and lets `seconds` go by while it is asked. Answers with each change of
    /// what is reported of it, with its time in seconds: `12 active healthy`.
    async fn watch_health(
        &mut self,
        name: &str,
        placement: &Placement,
        seconds: u64,
    ) -> Vec<String> {
        let asking = self.ask();
        let name = UnitName::parse(name).unwrap();
        let instances = BTreeMap::from([(name.clone(), placement.clone())]);
        self.agent.assignment = Some(Arc::new(Assignment { instances, ..Assignment::default() }));
        let mut said: Vec<(u64, String)> = Vec::new();
        let mut reports: Vec<InstanceStatus> = Vec::new();
        for tenth in 0..seconds * 10 {
            let seen = self.agent.observe(self.now_ms).await.unwrap();
            let report = self.agent.report(&seen, self.now_ms).await;
            let status = &report.instances[&name];
            if reports.last() != Some(status) {
                reports.push(status.clone());
            }
            let words = [(status.settling, "settling"), (status.gave_up, "gave up")];
            let mut line = vec![status.active.clone()];
            line.extend(status.health.as_ref().map(|health| health.word().to_string()));
            line.extend(words.iter().filter(|(is, _)| *is).map(|(_, word)| (*word).to_string()));
            line.extend((status.restarts > 0).then(|| format!("{} restarts", status.restarts)));
            line.extend((!status.result.is_empty()).then(|| {
                format!("({}: {})", status.result, status.reason.as_deref().unwrap_or("-"))
            }));
            let line = line.join(" ");
            if said.last().is_none_or(|(_, last)| *last != line) {
                said.push((tenth, line));
            }
            self.agent.pass(self.now_ms).await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
            self.now_ms += 100;
        }
        asking.abort();
        assert!(reports.len() <= said.len() + 2, "a report for each probe: {reports:#?}");
        said.into_iter().map(|(at, line)| format!("{} {line}", at / 10)).collect()
    }

    fn marked_healthy(&self, name: &str) -> bool {
        self.agent.instances.marker(&UnitName::parse(name).unwrap()).unwrap().healthy
    }
}

fn web(arguments: &str, options: &str) -> String {
    format!(
        "[Service]\nExecStart=/bin/web {arguments}\n[X-Fleet]\nHealthCheck=http://:8080/\n{options}\n"
    )
}

const QUICK: &str = "HealthInterval=1\nHealthStartPeriod=0\nHealthRetries=3";

#[tokio::test(start_paused = true)]
async fn what_answers_well_is_healthy_and_reported_once() {
    let mut host = Host::new().await;
    let text = web("--ready-after=5s", "");
    let web = host.text("web.service", 1, &text).await;
    let said = host.watch_health("web.service", &web, 300).await;
    assert_eq!(
        said,
        ["0 inactive", "0 active starting settling", "2 active starting", "5 active healthy"]
    );
    let asked = host.sim.counters().check;
    assert!((30..45).contains(&asked), "each 10 s, and each second while it starts: {asked}");
    assert!(host.marked_healthy("web.service"));
}

#[tokio::test(start_paused = true)]
async fn what_falls_sick_is_restarted_and_the_report_says_why() {
    let mut host = Host::new().await;
    let text = web("--sick-after=20s", QUICK);
    let web = host.text("web.service", 1, &text).await;
    let said = host.watch_health("web.service", &web, 40).await;
    let sick = |line: &&String| line.ends_with("active unhealthy (unhealthy: health check: 503)");
    let sick = said.iter().find(sick).unwrap_or_else(|| panic!("{said:#?}"));
    let at: u64 = sick.split(' ').next().unwrap().parse().unwrap();
    assert!((21..=24).contains(&at), "after three bad answers: {said:#?}");
    assert!(
        said.iter().any(|line| line.contains("1 restarts (unhealthy: health check: 503)")),
        "{said:#?}"
    );
    assert_eq!(host.sim.counters().restart, 1);
    assert!(said.last().unwrap().contains("active healthy 1 restarts"), "{said:#?}");
}

#[tokio::test(start_paused = true)]
async fn what_never_answers_well_is_restarted_with_pauses_and_given_up() {
    let mut host = Host::new().await;
    let text = web("--ready-after=1h", QUICK);
    let web = host.text("web.service", 1, &text).await;
    let said = host.watch_health("web.service", &web, 60).await;
    assert!(said.iter().any(|line| line.contains("gave up 5 restarts")), "{said:#?}");
    assert!(said.last().unwrap().contains("health check: connection refused"), "{said:#?}");
    assert!(!said.iter().any(|line| line.contains("active healthy")), "{said:#?}");
    assert!(host.sim.counters().restart >= 5);
}

#[tokio::test(start_paused = true)]
async fn a_check_that_hangs_counts_as_bad_once_its_time_is_over() {
    let mut host = Host::new().await;
    let text = web("--sick-after=10s --hangs", "HealthInterval=2\nHealthTimeout=1500ms");
    let web = host.text("web.service", 1, &text).await;
    let said = host.watch_health("web.service", &web, 25).await;
    let words = "(unhealthy: health check: no answer within 1500 ms)";
    assert!(said.iter().any(|line| line.ends_with(words)), "{said:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_restarted_fleetd_neither_forgets_nor_restarts_what_is_well() {
    let mut host = Host::new().await;
    let text = web("", "");
    let placement = host.text("web.service", 1, &text).await;
    host.watch_health("web.service", &placement, 30).await;
    host.restart_fleetd();
    let said = host.watch_health("web.service", &placement, 60).await;
    assert_eq!(said, ["0 active healthy"], "neither starting nor settling");
    // It still sees what falls sick, and what it restarted does not count as well.
    host.sim.answer_with(&UnitName::trusted("web.service"), Some(Answer::Bad("500".into())));
    let said = host.watch_health("web.service", &placement, 90).await;
    assert!(said.iter().any(|line| line.contains("unhealthy")), "{said:#?}");
    assert!(!host.marked_healthy("web.service"));
    host.restart_fleetd();
    let said = host.watch_health("web.service", &placement, 10).await;
    assert!(said[0].contains("active starting"), "{said:#?}");
}

#[tokio::test(start_paused = true)]
async fn another_check_restarts_nothing_and_has_to_be_answered_first() {
    let mut host = Host::new().await;
    let placement = host.text("web.service", 1, &web("", "")).await;
    host.watch_health("web.service", &placement, 20).await;
    let starts = host.sim.counters().start + host.sim.counters().restart;
    let changed = web("", "HealthInterval=5");
    let placement = host.text("web.service", 2, &changed).await;
    let said = host.watch_health("web.service", &placement, 20).await;
    assert_eq!(host.sim.counters().start + host.sim.counters().restart, starts);
    assert!(said.iter().any(|line| line.contains("starting")), "{said:#?}");
    assert!(said.last().unwrap().contains("active healthy"), "{said:#?}");
}

#[tokio::test(start_paused = true)]
async fn what_dies_or_is_restarted_by_systemd_has_to_answer_anew() {
    let mut host = Host::new().await;
    let text = format!("{}\n[Service]\nRestart=always\nRestartSec=3\n", web("", ""));
    let placement = host.text("web.service", 1, &text).await;
    host.watch_health("web.service", &placement, 20).await;
    let name = UnitName::trusted("web.service");
    host.sim.fail(&name, "exit-code", 1);
    host.sim.heal(&name);
    host.sim.answer_with(&name, Some(Answer::Bad("starting up".into())));
    let said = host.watch_health("web.service", &placement, 10).await;
    assert!(!said.last().unwrap().contains("healthy"), "{said:#?}");
    assert!(said.last().unwrap().contains("starting"), "{said:#?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_without_an_answer_stays_what_it_was() {
    let mut host = Host::new().await;
    let placement = host.text("web.service", 1, &web("", QUICK)).await;
    host.watch_health("web.service", &placement, 10).await;
    let not_asked = Answer::NotAsked("systemd cannot be reached".to_string());
    host.sim.answer_with(&UnitName::trusted("web.service"), Some(not_asked));
    let said = host.watch_health("web.service", &placement, 60).await;
    assert_eq!(said, ["0 active healthy"]);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_are_asked_one_after_the_other_and_those_that_hang_hold_up_no_command() {
    let mut host = Host::new().await;
    let text = web("--sick-after=0 --hangs", "HealthStartPeriod=1d");
    let hangs = host.text("web@.service", 1, &text).await;
    let text = text.replace("http://:8080/", "exec:/bin/true").replace(" --hangs", "");
    let runs = host.text("run@.service", 1, &text).await;
    let mut wanted: Vec<(String, &Placement)> = Vec::new();
    wanted.extend((1..=400).map(|n| (format!("web@{n}.service"), &hangs)));
    wanted.extend((1..=20).map(|n| (format!("run@{n}.service"), &runs)));
    let wanted: Vec<(&str, &Placement)> = wanted.iter().map(|(n, p)| (n.as_str(), *p)).collect();
    host.run(&wanted).await;
    let before = host.sim.counters().check;
    let asking = host.ask();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let asked = host.sim.counters().check - before;
    assert!((256..=400).contains(&asked), "as many as there is room for: {asked}");
    tokio::time::sleep(Duration::from_secs(20)).await;
    asking.abort();
    let known = |health: &Health| *health == Health::Starting;
    let seen = host.agent.observe(host.now_ms).await.unwrap();
    assert_eq!(seen.values().filter(|seen| seen.health.as_ref().is_some_and(known)).count(), 420);
    assert!(host.sim.counters().check - before > 1_000, "nobody is forgotten");
}

/// Answers every request well, on a thread of its own.
fn web_server() -> u16 {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    port
}

/// How much this thread has worked, in seconds.
fn worked() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

#[tokio::test]
#[ignore = "a benchmark of half a minute: tests/bench.sh probes"]
async fn a_thousand_probes_each_ten_seconds_cost_less_than_two_percent_of_a_core() {
    let mut host = Host::new().await;
    let text = web("", "").replace("8080", &web_server().to_string());
    let placement = host.text("web@.service", 1, &text).await;
    let names: Vec<String> = (1..=1_000).map(|n| format!("web@{n}.service")).collect();
    let wanted: Vec<(&str, &Placement)> =
        names.iter().map(|name| (name.as_str(), &placement)).collect();
    host.run(&wanted).await;
    let systemd = crate::systemd::dbus::DbusSystemd::new(Default::default());
    let probes = Arc::new(crate::probe::HostProbes::new(Arc::new(systemd)));
    let tally = Arc::new(crate::probe::Tally::default());
    host.agent.checks = Checks::new();
    let agent = std::mem::replace(
        &mut host.agent,
        Host::agent(host.folder.path().join("other"), &host.store, &host.sim),
    );
    host.agent = agent.with_probes(probes, tally.clone());
    host.agent.observe(host.now_ms).await.unwrap();
    let asking = host.ask();
    // Until all have answered once, they are asked more often.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let good = || tally.read()[0].1;
    assert!(good() >= 1_000, "{:?}", tally.read());
    let (before, asked) = (worked(), good());
    let began = std::time::Instant::now();
    tokio::time::sleep(Duration::from_secs(20)).await;
    let seconds = began.elapsed().as_secs_f64();
    let (share, asked) = ((worked() - before) / seconds, (good() - asked) as f64 / seconds);
    asking.abort();
    eprintln!("{asked:.0} probes a second: {:.2} % of a core", share * 100.0);
    assert!((90.0..110.0).contains(&asked), "{asked}");
    let most = if cfg!(debug_assertions) { 0.06 } else { 0.02 };
    assert!(share < most, "{share}");
}
