//! One simulated machine: its disk, its systemd, its clock, and the lives of its fleetd, wired as
//! `fleetd::daemon` does.

use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use fleet_core::model::{Capacity, Machine};
use fleet_core::name::{MachineId, UnitName};
use fleetd::agent::Agent;
use fleetd::api::{self, Api};
use fleetd::leader::engine::Engine;
use fleetd::leader::planner::Planner;
use fleetd::leader::replays::Replays;
use fleetd::leave;
use fleetd::machine::health::Health;
use fleetd::machine::session::{Session, Standing};
use fleetd::metrics::Metrics;
use fleetd::probe::Answer;
use fleetd::process::clock::{Clock, with_clock};
use fleetd::store::Store;
use fleetd::systemd::Systemd;
use tokio::sync::{Mutex as AsyncMutex, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::etcd::{Etcd, Origin};
use crate::gate::{Gate, Gated};
use crate::judge::SharedJudge;
use crate::keeper::{self, Surroundings};
use crate::link::Link;
use crate::network::RemoteKv;
use crate::planted::Planted;
use crate::script::{CHECKED, FENCED, MOST_REPLICAS};
use crate::systemd::HostSystemd;

/// fleetd's own defaults, in seconds.
pub const AGENT_TTL: Duration = Duration::from_secs(10);
const LEADER_TTL: Duration = Duration::from_secs(3);
const SETTLE_MARGIN: Duration = Duration::from_secs(2);

/// A fenced unit takes up to so long to end once told to, in milliseconds: some longer than their
/// `TimeoutStopSec=`.
const SLOWEST_STOP_MS: u64 = 18_000;

/// The label that each machine says of itself.
pub const OWN_LABEL: &str = "zone";

/// When the simulation begins, in milliseconds since 1970.
pub const EPOCH_MS: u64 = 1_800_000_000_000;

/// A host with a copy of a machine's disk has this machine's number and so much more, or a
/// multiple.
pub const COPY: usize = 100;

/// What differs between machines.
#[derive(Debug, Clone, Copy)]
pub struct Traits {
    /// How fast its clock runs, in millionths more than real time.
    pub rate_ppm: i64,
    /// Its fleetd is of a later version, which writes fields that ours does not know.
    pub later: bool,
}

/// A machine.
pub struct Host {
    /// Its number.
    pub number: usize,
    /// Its id.
    pub id: MachineId,
    /// Its network, disk and crash points.
    pub link: Arc<Link>,
    /// Its systemd.
    pub systemd: Arc<HostSystemd>,
    /// Its API; it outlives fleetd's lives, as clients take a cut connection for a lost answer.
    pub router: Router,
    etcd: Etcd,
    folder: PathBuf,
    traits: Traits,
    planted: Option<Planted>,
    began: Instant,
    judge: SharedJudge,
    /// How far the wall clock is off, in milliseconds.
    offset_ms: Arc<AtomicI64>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    life: Option<Life>,
    /// Ends the life that is on its way out.
    ending: Option<CancellationToken>,
    lives: u64,
    boots: u64,
    /// With a planted bug, the boot that it takes for its own.
    copied_boot: Option<String>,
}

struct Life {
    tasks: Vec<AbortHandle>,
    gate: Arc<Gate>,
    engine: JoinHandle<()>,
    stop: CancellationToken,
    standing: watch::Receiver<Standing>,
    agent: Arc<AsyncMutex<Agent>>,
    store: Store,
    clock: Clock,
}

impl Host {
    /// A machine that was just booted, its fleetd not yet started. `folder` is its disk.
    pub fn new(
        number: usize,
        etcd: &Etcd,
        folder: PathBuf,
        seed: u64,
        traits: Traits,
        run: &crate::run::Options,
        judge: &SharedJudge,
    ) -> Arc<Host> {
        let link = Arc::new(Link::new(seed));
        let original = number % COPY;
        let id =
            MachineId::new(format!("{:08x}{:024x}", 0xa000_0000_u32 + original as u32, original));
        let systemd = HostSystemd::new(
            number,
            link.clone(),
            judge.clone(),
            folder.join("run/fleet/files"),
            run.planted,
        );
        let systemd = Arc::new(systemd);
        systemd.inner.set_clock_rate(traits.rate_ppm);
        let mut random = fastrand::Rng::with_seed(seed ^ 0x570b);
        for name in FENCED.iter().flat_map(|unit| instances(unit)) {
            systemd
                .inner
                .stops_slowly(&name, Duration::from_millis(random.u64(30..SLOWEST_STOP_MS)));
        }
        let offset_ms = Arc::<AtomicI64>::default();
        let around = Surroundings {
            number,
            id: id.clone(),
            etcd: etcd.clone(),
            link: link.clone(),
            run: folder.join("run"),
            rate_ppm: traits.rate_ppm,
            planted: run.planted,
            judge: judge.clone(),
            began: Instant::now(),
            offset_ms: offset_ms.clone(),
            lives: AtomicU64::new(0),
        };
        keeper::install(&systemd.inner, Arc::new(around));
        let kv = RemoteKv::new(
            etcd.asked_by(Origin { machine: number, life: 0, keeper: false }),
            link.clone(),
            0,
            run.planted,
        );
        let router =
            api::router(Api::new(Store::new(Arc::new(kv), "/fleet/"), id.clone(), String::new));
        let (etcd, judge) = (etcd.clone(), judge.clone());
        let state = Mutex::default();
        Arc::new(Host {
            number,
            id,
            link,
            systemd,
            router,
            etcd,
            folder,
            traits,
            planted: run.planted,
            began: Instant::now(),
            judge,
            offset_ms,
            state,
        })
    }

    /// Gets a copy of another machine's disk, with its `/etc/machine-id`. What is in memory is not
    /// copied, unless that bug is planted.
    pub fn copy_disk_of(&self, other: &Host) {
        let copy = |part: &str| {
            let to = self.folder.join(part);
            std::fs::create_dir_all(&to).expect("a folder in memory");
            let file = "session.json";
            let _ = std::fs::copy(other.folder.join(part).join(file), to.join(file)); // it may have none yet
        };
        copy("data");
        if self.planted == Some(Planted::TrustsCopies) {
            copy("run/fleet");
            self.state().copied_boot = Some(other.boot_id(other.state().boots));
        }
    }

    fn boot_id(&self, boots: u64) -> String {
        format!("boot-{}-{boots}", self.number)
    }

    /// Starts fleetd, unless it runs or is on its way out.
    pub fn start(&self) {
        let mut state = self.state();
        if state.life.is_some() || state.ending.is_some() {
            return;
        }
        state.lives += 1;
        let origin = Origin { machine: self.number, life: state.lives, keeper: false };
        {
            let mut judge = self.judge.lock();
            judge.stays(self.number);
            judge.note(format!("machine {}: fleetd starts, life {}", self.number, state.lives));
        }
        let boot_id = state.copied_boot.clone().unwrap_or_else(|| self.boot_id(state.boots));
        state.life = Some(self.live(origin, boot_id, self.offset_ms.load(Relaxed)));
    }

    /// The wiring of `fleetd::daemon::run`.
    fn live(&self, origin: Origin, boot_id: String, offset_ms: i64) -> Life {
        let gate = self.link.fleetd.new_gate();
        let clock = self.clock(offset_ms);
        let rate = 1.0 + self.traits.rate_ppm as f64 / 1e6;
        // Whole milliseconds, also of a third: tokio's timers round what is between by the host's
        // own clock.
        let mistimed = |time: Duration| {
            Duration::from_millis((time.as_secs_f64() * 1e3 / rate / 3.0).floor() as u64 * 3)
        };
        let (data_dir, run_dir) = (self.folder.join("data"), self.folder.join("run/fleet"));
        for folder in [&data_dir, &run_dir] {
            std::fs::create_dir_all(folder).expect("a folder in memory");
        }
        if self.planted == Some(Planted::ForgetsItsLease) {
            for folder in [&data_dir, &run_dir] {
                let _ = std::fs::remove_file(folder.join("session.json"));
            }
        }
        let kv = RemoteKv::new(
            self.etcd.asked_by(origin),
            self.link.clone(),
            self.traits.rate_ppm,
            self.planted,
        );
        let store = Store::new(Arc::new(kv), "/fleet/");
        let health = Arc::new(Health::default());
        let folders = (data_dir.as_path(), run_dir.as_path());
        let session = Session::new(
            store.clone(),
            self.machine(boot_id),
            mistimed(AGENT_TTL),
            folders,
            health.clone(),
        );
        let session = session.with_guard(self.folder.join("run/fleet-guard"));
        let standing = session.standing();
        let systemd = self.systemd.clone() as Arc<dyn Systemd>;
        let agent = Agent::new(self.id.clone(), store.clone(), systemd, &run_dir)
            .expect("markers in memory");
        let agent = agent.with_probes(Arc::new(self.systemd.inner.clone()), Arc::default());
        let agent = Arc::new(AsyncMutex::new(agent.with_keeper(
            self.folder.join("run/fleet-guard"),
            false,
            health.clone(),
        )));
        let stop = CancellationToken::new();
        let settle = if self.planted == Some(Planted::NoSettling) {
            Duration::ZERO
        } else {
            mistimed(AGENT_TTL + SETTLE_MARGIN)
        };
        let engine = Engine {
            store: store.clone(),
            machine: self.id.clone(),
            leader_ttl: mistimed(LEADER_TTL),
            settle,
            health,
            standing: session.standing(),
            metrics: Arc::new(Metrics::default()),
            replays: Arc::new(Replays::default()),
            planner: Planner::inline(),
        };
        let of_agent = session.standing();
        let engine = tokio::spawn(Gated::new(
            gate.clone(),
            with_clock(clock.clone(), engine.run(stop.clone())),
        ));
        let session =
            tokio::spawn(Gated::new(gate.clone(), with_clock(clock.clone(), session.run())));
        let working = tokio::spawn(Gated::new(
            gate.clone(),
            with_clock(clock.clone(), Agent::run(agent.clone(), of_agent)),
        ));
        let tasks = vec![session.abort_handle(), working.abort_handle(), engine.abort_handle()];
        Life { tasks, gate, engine, stop, standing, agent, store, clock }
    }

    /// Ends fleetd as SIGKILL does. False if it was not running.
    pub fn kill(&self) -> bool {
        let (life, ending) = {
            let mut state = self.state();
            (state.life.take(), state.ending.take())
        };
        let was_there = life.is_some() || ending.is_some();
        if was_there {
            self.judge.lock().note(format!("machine {}: fleetd is gone", self.number));
        }
        life.iter().flat_map(|life| &life.tasks).for_each(AbortHandle::abort);
        ending.iter().for_each(CancellationToken::cancel);
        was_there
    }

    /// Power loss: fleetd and all units end, and what lay in memory is gone.
    pub fn power_off(&self) {
        self.kill();
        self.judge.lock().note(format!("machine {}: power off", self.number));
        self.state().boots += 1;
        self.systemd.inner.crash_host();
        let _ = std::fs::remove_dir_all(self.folder.join("run"));
    }

    /// fleetd and all units end, and what lies in memory stays.
    pub fn soft_reboot(&self) {
        self.kill();
        self.judge.lock().note(format!("machine {}: soft-reboot", self.number));
        self.systemd.inner.soft_reboot();
    }

    /// Ends fleetd as SIGTERM does: `leaving` hands the units over first, else they run on and the
    /// machine stays registered.
    pub async fn stop(&self, leaving: bool) {
        let killed = CancellationToken::new();
        let life = {
            let mut state = self.state();
            let Some(life) = state.life.take() else { return };
            state.ending = Some(killed.clone());
            life
        };
        self.judge.lock().note(format!(
            "machine {}: fleetd {}",
            self.number,
            if leaving { "leaves" } else { "stops" }
        ));
        let tasks = life.tasks.clone();
        tokio::select! {
            biased;
            () = killed.cancelled() => {}
            // systemd kills it after its TimeoutStopSec=.
            _ = timeout(Duration::from_secs(90), self.end(life, leaving)) => self.state().ending = None,
        }
        tasks.iter().for_each(AbortHandle::abort);
    }

    async fn end(&self, life: Life, leaving: bool) {
        let Life { tasks, gate, engine, stop, standing, agent, store, clock } = life;
        stop.cancel();
        let _ = engine.await;
        tasks.iter().for_each(AbortHandle::abort);
        if !leaving {
            return;
        }
        self.judge.lock().leaves(self.number);
        let (held, id) = (standing.borrow().registration(), self.id.clone());
        let goodbye = async move {
            leave::leave(&store, &id, held, AGENT_TTL, &mut *agent.lock().await).await
        };
        if !Gated::new(gate, with_clock(clock, goodbye)).await {
            self.judge.lock().stays(self.number);
        }
    }

    /// From now on what has a health check answers like this here; `None`: as its text says.
    pub fn answer_with(&self, answer: Option<Answer>) {
        for number in 1..=MOST_REPLICAS {
            let name = UnitName::trusted(CHECKED).replica(number);
            self.systemd.inner.answer_with(&name, answer.clone());
        }
    }

    /// Steps the wall clock; fleetd hears of it when it starts next.
    pub fn step_clock(&self, by_ms: i64) {
        self.offset_ms.fetch_add(by_ms, Relaxed);
    }

    /// The clock of this machine, for what serves its API.
    pub fn wall_clock(&self) -> Clock {
        self.clock(self.offset_ms.load(Relaxed))
    }

    fn clock(&self, offset_ms: i64) -> Clock {
        let (started, rate_ppm) = (Instant::now(), self.traits.rate_ppm);
        let wall_ms =
            (EPOCH_MS + self.began.elapsed().as_millis() as u64).saturating_add_signed(offset_ms);
        Arc::new(move || {
            let passed_ms = started.elapsed().as_millis() as i64;
            wall_ms.saturating_add_signed(passed_ms + passed_ms * rate_ppm / 1_000_000)
        })
    }

    fn machine(&self, boot_id: String) -> Machine {
        let unknown = if self.traits.later {
            [("x-later".to_string(), 1.into())].into()
        } else {
            Default::default()
        };
        Machine {
            metadata: [(OWN_LABEL.to_string(), (self.number % 2).to_string())].into(),
            capacity: Capacity { cpus: 2, memory_bytes: 4 << 30 },
            version: if self.traits.later { "99.0.0" } else { env!("CARGO_PKG_VERSION") }
                .to_string(),
            boot_id,
            unknown,
            ..Machine::new(self.id.clone(), format!("10.0.0.{}", self.number + 1))
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic inside a machine")
    }
}

/// The names that a unit may run by.
fn instances(unit: &str) -> Vec<UnitName> {
    let unit = UnitName::trusted(unit);
    if unit.is_template() {
        (1..=MOST_REPLICAS).map(|number| unit.replica(number)).collect()
    } else {
        vec![unit]
    }
}
