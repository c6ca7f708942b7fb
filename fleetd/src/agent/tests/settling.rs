//! What came up, and whether it stays up.

use super::*;

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

#[tokio::test(start_paused = true)]
async fn what_is_restarted_or_updated_in_place_settles_as_soon_as_what_is_new() {
    const SHOP: &str = "[Service]\nType=simple\nExecStart=/usr/bin/shop\nRestart=always\n";
    let mut host = Host::new().await;
    let mut shop = host.text("shop@.service", 1, SHOP).await;
    let said = host.watch("shop@1.service", &shop, 20).await;
    assert_eq!(said, ["0 inactive", "1 active settling", "51 active"]);
    shop.restart = 1;
    let said = host.watch("shop@1.service", &shop, 20).await;
    assert_eq!(said, ["0 active", "1 active settling", "51 active"]);
    let mut shop = host.text("shop@.service", 2, &SHOP.replace("shop", "store")).await;
    shop.restart = 1;
    let said = host.watch("shop@1.service", &shop, 20).await;
    assert_eq!(said, ["0 active settling", "51 active"], "of another text, nothing is known yet");
    // Where else it may run changes nothing of what runs, and what is known of that stays known.
    let elsewhere = format!("{}[X-Fleet]\nMaxPerMachine=2\n", SHOP.replace("shop", "store"));
    let mut shop = host.text("shop@.service", 3, &elsewhere).await;
    shop.restart = 1;
    let before = host.sim.counters().restart;
    let said = host.watch("shop@1.service", &shop, 20).await;
    assert_eq!(said, ["0 active settling", "1 active"]);
    assert_eq!(host.sim.counters().restart, before);
}
