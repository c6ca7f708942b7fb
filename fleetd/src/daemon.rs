//! Wiring: builds the parts, says what talks to what, and ends them in order. No decisions live
//! here but one: leave or stay.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use fleet_core::check::StoreCheck;
use fleet_core::name::UnitName;
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::agent::Agent;
use crate::api::{self, Api};
use crate::config::Settings;
use crate::leader::engine::Engine;
use crate::leader::planner::Planner;
use crate::leader::replays::Replays;
use crate::leave;
use crate::machine::facts::{self, AddressWatch};
use crate::machine::health::Health;
use crate::machine::podman::PodmanWatch;
use crate::machine::session::Session;
use crate::machine::volumes::Volumes;
use crate::metrics::Metrics;
use crate::probe::HostProbes;
use crate::process::descriptors;
use crate::process::files;
use crate::process::notify::Notifier;
use crate::process::repeated::Repeated;
use crate::reload::{EngineSwitch, Reloadable, Source};
use crate::store::Store;
use crate::store::counted::{self, Counted};
use crate::store::embedded::EmbeddedKv;
use crate::store::etcd::{EtcdKv, EtcdOptions};
use crate::store::kv::Kv;
use crate::systemd::Systemd;
use crate::systemd::dbus::{self, Bus, DbusSystemd};
use crate::systemd::own_job::own_job;
use crate::systemd::quadlet::Generator;

/// How long after the store is back an absent machine may not yet be called lost, on top of the
/// agents' lease.
const SETTLE_MARGIN: Duration = Duration::from_secs(2);

/// The embedded store, in `data_dir`.
const STORE_FILE: &str = "store.redb";

/// How long the last requests may take to be answered: a write takes milliseconds, and while the
/// store is away nothing helps.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// The unit that fleetd itself runs as, whose job tells a restart from a stop.
const OWN_UNIT: &str = "fleetd.service";

/// Runs until SIGTERM or SIGINT. `source` is where the settings came from, for SIGHUP.
pub async fn run(mut settings: Settings, source: Source) -> anyhow::Result<()> {
    let wishes = Wishes::new()?;
    let notifier = Notifier::from_environment();
    let limits = api::Limits::for_descriptors(descriptors::raise());
    make_folders(&settings)?;
    let secure = settings.listen.iter().any(|listen| listen.tls);
    let server_tls = secure.then(|| api::server_tls(settings.tls.clone())).transpose()?;
    let listeners =
        api::listen(&settings.socket, &settings.listen, settings.insecure, server_tls.as_ref())?;
    // Others ask this machine there, too.
    settings.handed = listeners.handed().to_vec();
    // `systemctl status` shows it in one line.
    let closed = listeners.closed().map(str::to_string).reduce(|a, b| format!("{a} {b}"));
    let machine = facts::this_machine(&settings)?;
    let (kv, etcd) = open_store(&settings).await?;
    let asked = Arc::<counted::Counts>::default();
    let kv = Counted::new(kv, asked.clone());
    let store = Store::new(Arc::new(kv), &settings.key_prefix);
    let health = Arc::new(Health::default());
    let bus = if settings.systemd_user { Bus::User } else { Bus::System };
    let options = dbus::Options {
        bus: bus.clone(),
        unit_dir: settings.unit_dir.clone(),
        ..dbus::Options::default()
    };
    let systemd = Arc::new(DbusSystemd::new(options));
    let folders = (settings.data_dir.as_path(), settings.run_dir.as_path());
    let session =
        Session::new(store.clone(), machine.clone(), settings.agent_ttl, folders, health.clone());
    let session = session.alone(settings.etcd_servers.is_empty()).with_guard(settings.guard_dir());
    let (standing, presence) = (session.standing(), session.presence());
    let volumes = Arc::new(Volumes::open(&settings.data_dir, &machine.id));
    let agent = Agent::new(
        machine.id.clone(),
        store.clone(),
        systemd.clone() as Arc<dyn Systemd>,
        &settings.run_dir,
    )
    .and_then(|agent| agent.with_memory(&settings.data_dir))
    .context("cannot read what an earlier fleetd left")?
    .with_volumes(volumes.clone())
    .with_keeper(settings.guard_dir(), settings.etcd_servers.is_empty(), health.clone());
    let metrics = Arc::new(Metrics::default());
    let probes = Arc::new(HostProbes::new(systemd.clone()));
    let agent = agent.with_probes(probes, metrics.probes.clone());
    let agent = agent.counting(metrics.failures.clone());
    let agent = Arc::new(Mutex::new(agent));
    let stop = CancellationToken::new();

    let rendered = metrics.clone();
    let replays = Arc::new(Replays::default());
    let api = Api::new(store.clone(), machine.id.clone(), move || {
        rendered.render(&systemd.counters(), &asked)
    });
    let api = api.with_limits(limits);
    api.set_names(&settings.names());
    let api = api.with_replays(replays.clone()).with_keeper(settings.guard_dir());
    let api = api.with_standing(session.standing());
    let api = api.with_generator(Generator::of_host(settings.run_dir.join("quadlet")));
    let api = api.with_volumes(volumes);
    let api = if settings.systemd_user { api.of_user() } else { api };
    api.set_tls(settings.tls.clone())?;
    let serving = tokio::spawn(api::serve(api.clone(), listeners, stop.clone()));
    let (engine_store, id, stands) = (store.clone(), machine.id.clone(), session.standing());
    let mut engine = EngineSwitch::new(move |settings| Engine {
        store: engine_store.clone(),
        machine: id.clone(),
        leader_ttl: settings.leader_ttl,
        settle: settings.agent_ttl + SETTLE_MARGIN,
        health: health.clone(),
        standing: stands.clone(),
        metrics: metrics.clone(),
        replays: replays.clone(),
        planner: Planner::default(),
    });
    engine.set(&settings).await;
    let of_agent = session.standing();
    let session = tokio::spawn(session.run());
    let working = tokio::spawn(Agent::run(agent.clone(), of_agent));

    let kind = if settings.etcd_servers.is_empty() {
        "the embedded store".to_string()
    } else {
        settings.etcd_servers.join(", ")
    };
    info!(
        "fleetd {} on machine {} ({}), with {kind}",
        machine.version, machine.id, machine.address
    );
    if let Some(api) = &machine.api {
        info!("other machines reach the API at {api}");
    }
    let notifier = Arc::new(notifier);
    let status = closed.unwrap_or_default();
    if let Err(error) = notifier.say(&[NotifyState::Ready, NotifyState::Status(&status)]) {
        warn!("cannot tell systemd that fleetd is ready: {error}");
    }
    let watchdog = tokio::spawn(feed_watchdog(notifier.clone()));

    let address = AddressWatch::of(&settings, &presence);
    let podman = PodmanWatch::of(&settings, &presence);
    let mut reloadable =
        Reloadable { settings, source, presence, address, podman, api, server_tls, etcd, engine };
    let signal = serve_signals(wishes, &mut reloadable, &agent).await?;
    let _ = notifier.say(&[NotifyState::Stopping]);
    let leaving = signal == "SIGTERM" && own_job_is_stop(&bus).await;
    info!(
        "{signal}: {}",
        if leaving {
            "leaving the cluster"
        } else {
            "stopping; units keep running, the machine stays registered"
        }
    );
    // The next leader first: it plans for whoever takes over.
    stop.cancel();
    reloadable.engine.stop().await;
    session.abort();
    working.abort();
    let _ = working.await;
    let held = standing.borrow().registration();
    if leaving {
        let ttl = reloadable.presence.borrow().ttl;
        leave::leave(&store, &machine.id, held, ttl, &mut *agent.lock().await).await;
    }
    let _ = tokio::time::timeout(LAST_ANSWERS, serving).await;
    watchdog.abort();
    Ok(())
}

/// What fleetd keeps is its owner's only; what lies in memory, systemd and everybody may look into.
fn make_folders(settings: &Settings) -> anyhow::Result<()> {
    let Settings { data_dir, run_dir, unit_dir, .. } = settings;
    if files::data_folder(data_dir)
        .with_context(|| format!("cannot create {}", data_dir.display()))?
    {
        info!(
            "others may look into {}, since not only fleet's files are in it; what fleet keeps \
                there they cannot read",
            data_dir.display()
        );
    }
    files::public_folder(run_dir)
        .with_context(|| format!("cannot create {}", run_dir.display()))?;
    if unit_dir.starts_with(run_dir) || !unit_dir.exists() {
        files::public_folder(unit_dir)
            .with_context(|| format!("cannot create {}", unit_dir.display()))?;
    }
    Ok(())
}

/// Looks at every document of the configured store. The embedded one must not be in use, and must
/// be there: nothing is created.
pub async fn check_store(settings: &Settings) -> anyhow::Result<StoreCheck> {
    let file = settings.data_dir.join(STORE_FILE);
    if settings.etcd_servers.is_empty() && !file.exists() {
        anyhow::bail!(
            "there is no embedded store {} yet; fleetd creates it when it starts",
            file.display()
        );
    }
    let store = Store::new(open_store(settings).await?.0, &settings.key_prefix);
    Ok(store.check().await?)
}

/// The store, and etcd's client by itself if it is that.
async fn open_store(settings: &Settings) -> anyhow::Result<(Arc<dyn Kv>, Option<Arc<EtcdKv>>)> {
    match open_etcd(settings, settings.etcd_request_timeout)? {
        Some(etcd) => Ok((etcd.clone(), Some(etcd))),
        None => Ok((Arc::new(EmbeddedKv::open(&settings.data_dir.join(STORE_FILE)).await?), None)),
    }
}

/// The store of a cluster, for the keeper, which has times of its own; `None` where this machine is
/// the cluster and fleetd alone has the store open.
pub fn open_cluster_store(
    settings: &Settings,
    request_timeout: Duration,
) -> anyhow::Result<Option<Store>> {
    Ok(open_etcd(settings, request_timeout)?.map(|etcd| Store::new(etcd, &settings.key_prefix)))
}

fn open_etcd(
    settings: &Settings,
    request_timeout: Duration,
) -> anyhow::Result<Option<Arc<EtcdKv>>> {
    if settings.etcd_servers.is_empty() {
        return Ok(None);
    }
    let mut options = EtcdOptions::new(settings.etcd_servers.clone());
    options.credentials.clone_from(&settings.etcd_auth);
    options.tls.clone_from(&settings.etcd_tls);
    options.request_timeout = request_timeout;
    Ok(Some(Arc::new(EtcdKv::connect(options)?)))
}

/// Signals that would end a process which does not listen for them. One that comes while fleetd
/// starts is heard when it has started.
struct Wishes {
    hangup: Signal,
    dump: Signal,
}

impl Wishes {
    fn new() -> anyhow::Result<Wishes> {
        let hangup = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
        let dump = signal(SignalKind::user_defined1()).context("cannot listen for SIGUSR1")?;
        Ok(Wishes { hangup, dump })
    }
}

/// Does what signals ask for until one of them asks for the end.
async fn serve_signals(
    Wishes { mut hangup, mut dump }: Wishes,
    reloadable: &mut Reloadable,
    agent: &Mutex<Agent>,
) -> anyhow::Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok("SIGTERM"),
            _ = interrupt.recv() => return Ok("SIGINT"),
            _ = hangup.recv() => reloadable.reload().await,
            _ = dump.recv() => {
                let machine = reloadable.presence.borrow().machine.clone();
                let state = serde_json::json!({ "machine": machine, "agent": agent.lock().await.state() });
                // As fleet 1.0 did it; nobody is left to tell of a closed stdout.
                let _ = writeln!(std::io::stdout(), "{state}");
            }
        }
    }
}

/// Whether systemd is stopping fleetd (or the host), rather than restarting it. Without systemd's
/// word it is no leave.
async fn own_job_is_stop(bus: &Bus) -> bool {
    match own_job(bus, &UnitName::trusted(OWN_UNIT)).await {
        Ok(Some(job)) => job == "stop",
        Ok(None) => false,
        Err(error) => {
            warn!(
                "cannot ask systemd whether this is a stop or a restart: {error}; staying \
                    registered"
            );
            false
        }
    }
}

/// Feeds systemd's watchdog at half its period, from the runtime: a fleetd whose runtime hangs is
/// restarted.
async fn feed_watchdog(notifier: Arc<Notifier>) {
    let Some(period) = sd_notify::watchdog_enabled() else { return };
    let mut trouble = Repeated::default();
    loop {
        tokio::time::sleep(period / 2).await;
        if let Err(error) = notifier.say(&[NotifyState::Watchdog])
            && let Some(words) =
                trouble.fresh(format!("cannot tell systemd's watchdog that fleetd lives: {error}"))
        {
            warn!("{words}");
        }
    }
}
