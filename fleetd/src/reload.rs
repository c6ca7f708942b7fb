//! SIGHUP: the configuration is read again, and what can change while fleetd runs is changed. Units
//! and listeners are not touched.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::api::{Api, ServerTls};
use crate::config::{self, Environment, Places, Settings};
use crate::leader::engine::Engine;
use crate::machine::facts::{self, AddressWatch};
use crate::machine::podman::PodmanWatch;
use crate::machine::session::Presence;
use crate::store::etcd::EtcdKv;

/// Where the configuration came from, and how to change what is logged.
pub struct Source {
    /// The files.
    pub places: Places,
    /// The environment that fleetd was started with.
    pub environment: Environment,
    /// Changes what is logged.
    pub set_log: SetLog,
}

/// Takes a filter that is known to be good.
pub type SetLog = Box<dyn Fn(&str) + Send + Sync>;

/// What a reload can reach of a running fleetd.
pub struct Reloadable {
    /// The configuration in force.
    pub settings: Settings,
    /// Where it came from.
    pub source: Source,
    /// What the machine says of itself.
    pub presence: watch::Sender<Presence>,
    /// Follows the machine's address.
    pub address: AddressWatch,
    /// Follows its podman.
    pub podman: PodmanWatch,
    /// The API, which asks other machines.
    pub api: Api,
    /// The API's own certificate, if it has one.
    pub server_tls: Option<ServerTls>,
    /// etcd, unless the store is the embedded one.
    pub etcd: Option<Arc<EtcdKv>>,
    /// The engine, on or off.
    pub engine: EngineSwitch,
}

impl Reloadable {
    /// Reads the configuration again. A bad one changes nothing.
    pub async fn reload(&mut self) {
        info!("Reloading configuration from {}", self.source.places); // fleet 1.0's words
        let (new, warnings) = match config::load(&self.source.places, &self.source.environment) {
            Ok(loaded) => loaded,
            Err(error) => {
                error.problems.iter().for_each(|problem| error!("{problem}"));
                return warn!(
                    "the configuration is not reloaded, the one before holds; mend it and reload \
                        again"
                );
            }
        };
        warnings.iter().for_each(|warning| warn!("{warning}"));
        for option in self.settings.fixed_options_changed(&new) {
            warn!(
                "{option} cannot change while fleetd runs; run systemctl restart fleetd, which \
                    stops no unit"
            );
        }
        let new = new.with_fixed_options_of(&self.settings);
        (self.source.set_log)(&new.log);
        let before = self.presence.borrow().machine.clone();
        match facts::still_this_machine(&new, &before) {
            Ok(machine) => {
                let presence = Presence { machine, ttl: new.agent_ttl };
                self.presence.send_if_modified(|present| {
                    let changed = *present != presence;
                    *present = presence;
                    changed
                });
                self.address = AddressWatch::of(&new, &self.presence);
                self.podman = PodmanWatch::of(&new, &self.presence);
            }
            Err(error) => error!("{error:#}"),
        }
        self.api.set_names(&new.names());
        self.change_tls(&new).await;
        self.engine.set(&new).await;
        self.settings = new;
        info!("the configuration was reloaded");
    }

    async fn change_tls(&self, new: &Settings) {
        let said = |outcome: Result<(), fleet_tls::TlsError>| {
            outcome.unwrap_or_else(|error| error!("{error}"))
        };
        if let Some(etcd) = &self.etcd
            && (&self.settings.etcd_auth, &self.settings.etcd_tls)
                != (&new.etcd_auth, &new.etcd_tls)
        {
            said(etcd.change(new.etcd_auth.clone(), new.etcd_tls.clone()).await);
        }
        // Also where only the files' contents may have changed.
        said(self.api.set_tls(new.tls.clone()));
        if let Some(server) = &self.server_tls {
            said(server.change(new.tls.clone()));
        }
    }
}

/// The engine of this machine: runs, or not, as the configuration says.
pub struct EngineSwitch {
    make: Box<dyn Fn(&Settings) -> Engine + Send + Sync>,
    made_for: Option<Settings>,
    running: Option<(CancellationToken, JoinHandle<()>)>,
}

impl EngineSwitch {
    /// Off.
    pub fn new(make: impl Fn(&Settings) -> Engine + Send + Sync + 'static) -> EngineSwitch {
        EngineSwitch { make: Box::new(make), made_for: None, running: None }
    }

    /// As these settings say; an engine that works by other times is replaced, and resigns if it
    /// leads.
    pub async fn set(&mut self, settings: &Settings) {
        let matters = |settings: &Settings| {
            (settings.disable_engine, settings.leader_ttl, settings.agent_ttl)
        };
        if self.made_for.as_ref().map(matters) == Some(matters(settings)) {
            return;
        }
        self.stop().await;
        self.made_for = Some(settings.clone());
        if !settings.disable_engine {
            let stop = CancellationToken::new();
            let engine = (self.make)(settings).run(stop.clone());
            self.running = Some((stop, tokio::spawn(engine)));
        }
    }

    /// Off; a leader has resigned when this returns.
    pub async fn stop(&mut self) {
        if let Some((stop, task)) = self.running.take() {
            stop.cancel();
            // A panic in it was printed when it happened.
            let _ = task.await;
        }
    }
}
