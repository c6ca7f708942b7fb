//! Values of configurations: what an instance finds, when it takes them, and what it waits for.

use fleet_core::app::AppName;
use fleet_core::configuration::{self, Configuration};

use super::*;
use crate::systemd::sim::Behaviour;

/// What people write, with a configuration.
fn text(changed: &str) -> String {
    format!(
        "[Service]\nExecStart=/usr/bin/web\nExecReload=kill -HUP $MAINPID\nRestart=always\n\
         [X-Fleet]\nConfig=shop\nConfigChanged={changed}\n"
    )
}

impl Host {
    /// Writes the configuration `shop`.
    async fn set(&self, pairs: &[(&str, &str)]) -> u64 {
        let shop = AppName::parse("shop").unwrap();
        let (old, _) = self.store.configuration(&shop).await.unwrap();
        let users = self.store.configuration_users(&shop).await.unwrap();
        let values = pairs.iter().map(|(key, value)| (key.to_string(), value.to_string()));
        let (present, none) = (old.as_ref().map(|old| &old.value), std::iter::empty());
        let config: Configuration = configuration::next(present, shop, values.collect(), none);
        self.store.put_configuration(&config, old.map(|old| old.revision), &users).await.unwrap();
        config.revision
    }

    /// What the process of a unit has of the configuration.
    fn values(&self, name: &str) -> String {
        let name = UnitName::parse(name).unwrap();
        self.sim.environment(&name).unwrap_or_default().join(" ")
    }

    fn folder_of(&self, stem: &str) -> PathBuf {
        self.folder.path().join("run/config").join(stem)
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_restarts_an_instance_with_the_values_that_it_is_asked_to_have() {
    let mut host = Host::new().await;
    host.set(&[("LOG", "info"), ("db-host", "a")]).await;
    let web = host.text("web@.service", 1, &text("restart")).await;
    host.run(&[("web@1.service", &web), ("web@2.service", &web)]).await;
    assert_eq!(host.values("web@1.service"), "FLEET_CONFIG_REVISION=1 LOG=info");
    let file = |host: &Host, stem: &str| {
        std::fs::read_to_string(host.folder_of(stem).join("db-host")).unwrap()
    };
    assert_eq!(file(&host, "web@1"), "a");
    // The first one's turn has come, the other's not.
    let revision = host.set(&[("LOG", "debug"), ("db-host", "b")]).await;
    let newer = Placement { config: revision, ..web.clone() };
    host.run(&[("web@1.service", &newer), ("web@2.service", &web)]).await;
    assert_eq!(host.values("web@1.service"), "FLEET_CONFIG_REVISION=2 LOG=debug");
    assert_eq!(host.values("web@2.service"), "FLEET_CONFIG_REVISION=1 LOG=info");
    assert_eq!((file(&host, "web@1"), file(&host, "web@2")), ("b".into(), "a".into()));
    assert_eq!(host.status("web@1.service").await.config, 2);
    assert_eq!(host.sim.counters().restart, 1);
    // A fleetd that was restarted meanwhile has nothing to do.
    host.restart_fleetd();
    host.run(&[("web@1.service", &newer), ("web@2.service", &web)]).await;
    assert_eq!((host.sim.counters().restart, host.sim.counters().start), (1, 2));
    host.run(&[("web@2.service", &web)]).await;
    assert!(!host.folder_of("web@1").exists() && host.folder_of("web@2").exists());
}

#[tokio::test(start_paused = true)]
async fn a_change_is_reloaded_and_a_reload_that_fails_is_said() {
    let mut host = Host::new().await;
    host.set(&[("LOG", "info")]).await;
    let web = host.text("web.service", 1, &text("reload")).await;
    host.run(&[("web.service", &web)]).await;
    let revision = host.set(&[("LOG", "debug")]).await;
    let web = Placement { config: revision, ..web };
    host.run(&[("web.service", &web)]).await;
    assert_eq!(host.values("web.service"), "FLEET_CONFIG_REVISION=2 LOG=debug");
    let counters = host.sim.counters();
    assert_eq!((counters.start, counters.restart, counters.reload_unit), (1, 0, 1));
    host.sim.behave(&UnitName::trusted("web.service"), Behaviour::RefusesReloads);
    let web = Placement { config: host.set(&[("LOG", "trace")]).await, ..web };
    host.run(&[("web.service", &web)]).await;
    let status = host.status("web.service").await;
    assert_eq!((status.active.as_str(), status.config), ("active", 2));
    let message = status.message.unwrap();
    assert_eq!(message, "its reload failed (failed); it may run with values from before");
    assert_eq!(host.sim.counters().reload_unit, 2, "it is not tried for ever");
}

#[tokio::test(start_paused = true)]
async fn what_has_no_configuration_waits_for_it_and_no_machine_is_to_blame() {
    let mut host = Host::new().await;
    let web = host.text("web.service", 1, &text("restart")).await;
    host.run(&[("web.service", &web)]).await;
    let status = host.status("web.service").await;
    let message = status.message.unwrap();
    assert!(message.starts_with("there is no configuration shop; make it with"), "{message}");
    assert_eq!((status.gave_up, status.restarts, host.running()), (false, 0, String::new()));
    host.set(&[]).await;
    host.run(&[("web.service", &web)]).await;
    assert_eq!(host.values("web.service"), "FLEET_CONFIG_REVISION=1");
}

#[tokio::test(start_paused = true)]
async fn what_a_timer_starts_finds_the_values_and_what_ignores_changes_keeps_them() {
    let mut host = Host::new().await;
    host.set(&[("LOG", "info")]).await;
    let backup = host.text("backup.service", 1, &text("restart")).await;
    let backup = Placement { state: DesiredState::Loaded, ..backup };
    let still = host.text("still.service", 1, &text("ignore")).await;
    host.run(&[("backup.service", &backup), ("still.service", &still)]).await;
    let file = |host: &Host, stem: &str| {
        std::fs::read_to_string(host.folder_of(stem).join("LOG")).unwrap()
    };
    assert_eq!((file(&host, "backup"), host.running()), ("info".into(), "still.service".into()));
    let backup = Placement { config: host.set(&[("LOG", "debug")]).await, ..backup };
    host.run(&[("backup.service", &backup), ("still.service", &still)]).await;
    assert_eq!((file(&host, "backup"), file(&host, "still")), ("debug".into(), "info".into()));
    assert_eq!(host.running(), "still.service");
}
