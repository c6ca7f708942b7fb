//! Wiring: builds the parts, says what talks to what, and ends them in order. No decisions live here but one: leave or stay.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use fleet_core::check::StoreCheck;
use fleet_core::name::UnitName;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::agent::Agent;
use crate::api::{self, Api};
use crate::config::Settings;
use crate::engine::Engine;
use crate::health::Health;
use crate::machine;
use crate::metrics::Metrics;
use crate::replays::Replays;
use crate::session::{self, Session};
use crate::store::Store;
use crate::store::counted::{self, Counted};
use crate::store::embedded::EmbeddedKv;
use crate::store::etcd::{EtcdKv, EtcdOptions};
use crate::store::kv::Kv;
use crate::systemd::Systemd;
use crate::systemd::dbus::{self, DbusSystemd};
use crate::systemd::own_job::own_job;

/// How long after the store is back an absent machine may not yet be called lost, on top of the agents' lease.
const SETTLE_MARGIN: Duration = Duration::from_secs(2);

/// The embedded store, in `data_dir`.
const STORE_FILE: &str = "store.redb";

/// The unit that fleetd itself runs as, whose job tells a restart from a stop.
const OWN_UNIT: &str = "fleetd.service";

/// Runs until SIGTERM or SIGINT.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let machine = machine::this_machine(&settings)?;
    for folder in [&settings.data_dir, &settings.run_dir] {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let asked = Arc::<counted::Counts>::default();
    let kv = Counted::new(open_store(&settings).await?, asked.clone());
    let store = Store::new(Arc::new(kv), &settings.key_prefix);
    let health = Arc::new(Health::default());
    let systemd = Arc::new(DbusSystemd::new(dbus::Options { unit_dir: settings.unit_dir.clone(), ..dbus::Options::default() }));
    let session = Session::new(store.clone(), machine.clone(), settings.agent_ttl, &settings.data_dir, health.clone());
    let registration = session.registration();
    let agent = Agent::new(machine.id.clone(), store.clone(), systemd.clone() as Arc<dyn Systemd>, &settings.run_dir)
        .context("cannot read what an earlier fleetd left")?;
    let agent = Arc::new(Mutex::new(agent));
    let stop = CancellationToken::new();

    let metrics = Arc::new(Metrics::default());
    let rendered = metrics.clone();
    let replays = Arc::new(Replays::default());
    let api = Api::new(store.clone(), machine.id.clone(), move || rendered.render(&systemd.counters(), &asked));
    let api = api.with_replays(replays.clone());
    let listeners = api::listen(&settings.socket, &settings.listen)?;
    let serving = tokio::spawn(api::serve(api, listeners, stop.clone()));
    let engine = Engine {
        store: store.clone(),
        machine: machine.id.clone(),
        leader_ttl: settings.leader_ttl,
        settle: settings.agent_ttl + SETTLE_MARGIN,
        health,
        metrics,
        replays,
    };
    let engine = (!settings.disable_engine).then(|| tokio::spawn(engine.run(stop.clone())));
    let session = tokio::spawn(session.run());
    let working = tokio::spawn(Agent::run(agent.clone(), registration.clone()));

    let kind = if settings.etcd_servers.is_empty() { "the embedded store".to_string() } else { settings.etcd_servers.join(", ") };
    info!("fleetd {} on machine {} ({}), with {kind}", machine.version, machine.id, machine.address);
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let watchdog = tokio::spawn(feed_watchdog());

    let signal = wait_for_signal().await?;
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    let leaving = signal == "SIGTERM" && own_job_is_stop().await;
    info!(
        "{signal}: {}",
        if leaving { "leaving; units are handed over" } else { "stopping; units keep running, the machine stays registered" }
    );
    // The next leader first, then this machine's lease: whoever plans then sees it gone.
    stop.cancel();
    if let Some(engine) = engine {
        let _ = engine.await;
    }
    session.abort();
    working.abort();
    let _ = working.await;
    let held = *registration.borrow();
    if leaving {
        if let Some(registration) = held {
            session::leave(&store, &machine.id, registration).await;
        }
        agent.lock().await.stop_everything().await;
    }
    let _ = tokio::time::timeout(Duration::from_secs(1), serving).await;
    watchdog.abort();
    Ok(())
}

/// Looks at every document of the configured store. The embedded one must not be in use, and must be there: nothing is created.
pub async fn check_store(settings: &Settings) -> anyhow::Result<StoreCheck> {
    let file = settings.data_dir.join(STORE_FILE);
    if settings.etcd_servers.is_empty() && !file.exists() {
        anyhow::bail!("there is no embedded store {} yet; fleetd creates it when it starts", file.display());
    }
    let store = Store::new(open_store(settings).await?, &settings.key_prefix);
    Ok(store.check().await?)
}

async fn open_store(settings: &Settings) -> anyhow::Result<Arc<dyn Kv>> {
    if settings.etcd_servers.is_empty() {
        let path = settings.data_dir.join(STORE_FILE);
        return Ok(Arc::new(EmbeddedKv::open(&path).await?));
    }
    let mut options = EtcdOptions::new(settings.etcd_servers.clone());
    options.credentials.clone_from(&settings.etcd_auth);
    options.request_timeout = settings.etcd_request_timeout;
    Ok(Arc::new(EtcdKv::connect(options)?))
}

async fn wait_for_signal() -> anyhow::Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let mut hangup = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok("SIGTERM"),
            _ = interrupt.recv() => return Ok("SIGINT"),
            _ = hangup.recv() => warn!("SIGHUP: the configuration is read at start only; use systemctl restart fleetd, which stops no unit"),
        }
    }
}

/// Whether systemd is stopping fleetd (or the host), rather than restarting it. Without systemd's word it is no leave.
async fn own_job_is_stop() -> bool {
    match own_job(&UnitName::trusted(OWN_UNIT)).await {
        Ok(Some(job)) => job == "stop",
        Ok(None) => false,
        Err(error) => {
            warn!("cannot ask systemd whether this is a stop or a restart: {error}; staying registered");
            false
        }
    }
}

/// Feeds systemd's watchdog at half its period, from the runtime: a fleetd whose runtime hangs is restarted.
async fn feed_watchdog() {
    let Some(period) = sd_notify::watchdog_enabled() else { return };
    loop {
        tokio::time::sleep(period / 2).await;
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
    }
}
