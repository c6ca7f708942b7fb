//! One run: a cluster in simulated time, the script's faults and users, then healing, which must
//! converge.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use fleet_core::name::UnitName;
use fleetd::probe::Answer;
use fleetd::systemd::{Job, Systemd};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use crate::etcd::Etcd;
use crate::gate::Mortal;
use crate::host::{COPY, EPOCH_MS, Host, Traits};
use crate::judge::{REWRITTEN, SharedJudge};
use crate::keeper;
use crate::panics;
use crate::planted::Planted;
use crate::reboots;
use crate::script::{
    Action, CHECKED, FAULTS_FROM_MS, MOST_REPLICAS, QUITTER, ROLLING, Script, Wish, units,
};
use crate::settled::{nothing_lost, settled};
use crate::users::{self, Ledgers};
use crate::verdict::{Check, Verdict};

/// How long after the last fault everything must be as wanted: the leases and the settling time (22
/// s), then a failing unit's longest pauses: on its machine (60 s), and before it is moved again.
const HEALING: Duration = Duration::from_secs(240);

/// How long it must then stay so.
const STEADY: Duration = Duration::from_secs(5);

/// systemd starts a fleetd that crashed again after this time.
const RESTART: Duration = Duration::from_secs(1);

/// How a seed is run.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// A bug to plant.
    pub planted: Option<Planted>,
    /// The actions to keep, by number; all if none is said.
    pub keep: Option<BTreeSet<usize>>,
}

/// What came of a run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What was wrong, if anything.
    pub verdict: Option<Verdict>,
    /// What happened, line by line.
    pub history: Vec<String>,
    /// The history's hash: the same for the same seed and options.
    pub hash: u64,
    /// How long healing took, in seconds of simulated time.
    pub healed_s: f64,
}

/// Runs one seed.
pub fn run(seed: u64, options: &Options) -> Outcome {
    run_script(seed, Script::of(seed), options)
}

/// Runs a script that was written by hand; the seed still chooses latencies and losses.
pub fn run_script(seed: u64, script: Script, options: &Options) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let judge = runtime.block_on(async {
        // The paused clock began some microseconds after the timers': half a millisecond on, that
        // rounds alike in each run.
        tokio::time::advance(Duration::from_micros(500)).await;
        SharedJudge::new()
    });
    let heard = panics::heard_by(&judge);
    // A panic of the world itself ends the run.
    let run = || runtime.block_on(simulate(seed, script, options, judge.clone()));
    let healed = std::panic::catch_unwind(AssertUnwindSafe(run)).unwrap_or_default();
    drop(heard);
    let judge = judge.lock();
    let (history, hash) = judge.history();
    Outcome {
        verdict: judge.verdict().cloned(),
        history: history.to_vec(),
        hash,
        healed_s: healed.as_secs_f64(),
    }
}

struct World {
    etcd: Etcd,
    hosts: Vec<Arc<Host>>,
    judge: SharedJudge,
    ledgers: Ledgers,
    users: Vec<mpsc::UnboundedSender<(usize, Wish)>>,
    began: Instant,
    planted: Option<Planted>,
    options: Options,
    disk: PathBuf,
    /// How many disks were copied.
    copies: AtomicUsize,
}

/// Answers with how long healing took.
async fn simulate(seed: u64, script: Script, options: &Options, judge: SharedJudge) -> Duration {
    let disk = tempfile::Builder::new()
        .prefix("fleet-sim-")
        .tempdir_in(in_memory())
        .expect("a folder in memory");
    let world = Arc::new(World::new(seed, &script, options, disk.path(), judge));
    world.drive(&script, options).await;
    world.judge.lock().note("--- healing".to_string());
    world.heal();
    let healing = Instant::now();
    let verdict = world.converge().await;
    if let Err(Verdict { check, what }) = verdict {
        world.judge.lock().fail(check, what);
    }
    healing.elapsed().saturating_sub(STEADY)
}

/// Where nothing is written to a disk.
fn in_memory() -> &'static std::path::Path {
    let shm = std::path::Path::new("/dev/shm");
    if shm.is_dir() { shm } else { std::path::Path::new("/tmp") }
}

impl World {
    fn new(
        seed: u64,
        script: &Script,
        options: &Options,
        disk: &std::path::Path,
        judge: SharedJudge,
    ) -> World {
        let mut random = fastrand::Rng::with_seed(seed ^ 0x5eed);
        let etcd = Etcd::new();
        let witness = judge.clone();
        etcd.set_witness(Box::new(move |origin, batch| witness.lock().wrote(origin, batch)));
        let hosts: Vec<Arc<Host>> = (0..script.machines)
            .map(|number| {
                let rate_ppm = match random.u8(0..4) {
                    0 => -MAX_RATE_PPM,
                    1 => MAX_RATE_PPM,
                    _ => random.i64(-MAX_RATE_PPM..=MAX_RATE_PPM),
                };
                let traits = Traits { rate_ppm, later: random.u8(0..5) == 0 };
                let folder = disk.join(number.to_string());
                Host::new(number, &etcd, folder, random.u64(..), traits, options, &judge)
            })
            .collect();
        let ledgers = Ledgers::default();
        let users = (0..2)
            .map(|number| users::user(number, hosts.clone(), ledgers.clone(), judge.clone()))
            .collect();
        let (began, planted, options, disk) =
            (Instant::now(), options.planted, options.clone(), disk.to_path_buf());
        World {
            etcd,
            hosts,
            judge,
            ledgers,
            users,
            began,
            planted,
            options,
            disk,
            copies: AtomicUsize::new(0),
        }
    }

    async fn drive(self: &Arc<World>, script: &Script, options: &Options) {
        for host in &self.hosts {
            host.start();
            tokio::spawn(revive(host.clone()));
            tokio::spawn(crash_keepers(host.clone()));
        }
        let mut calm_yet = false;
        for (number, timed) in script.actions.iter().enumerate() {
            if options.keep.as_ref().is_some_and(|keep| !keep.contains(&number)) {
                continue;
            }
            if script.calm && !calm_yet && timed.at_ms >= FAULTS_FROM_MS {
                sleep_until(self.began + Duration::from_millis(FAULTS_FROM_MS)).await;
                self.judge.lock().undisturbed(true);
                calm_yet = true;
            }
            sleep_until(self.began + Duration::from_millis(timed.at_ms)).await;
            self.judge.lock().note(format!("=== action {number}: {:?}", timed.action));
            self.act(&timed.action);
        }
        sleep_until(self.began + Duration::from_millis(script.faults_until_ms())).await;
    }

    fn act(self: &Arc<World>, action: &Action) {
        let host = |number: &usize| self.hosts[*number].clone();
        let time = |ms: &u64| Duration::from_millis(*ms);
        match action {
            Action::User { user, over, wish } => {
                drop(self.users[*user].send((*over, wish.clone())))
            }
            Action::Cut { machine, requests, answers, ms } => {
                host(machine).link.cut(*requests, *answers, time(ms))
            }
            Action::CutAll { ms } => {
                self.hosts.iter().for_each(|host| host.link.cut(true, true, time(ms)))
            }
            Action::CutLeader { requests, answers, ms } => {
                if let Some(machine) = self.leader() {
                    host(&machine).link.cut(*requests, *answers, time(ms));
                }
            }
            Action::PauseLeader { ms } => {
                if let Some(machine) = self.leader() {
                    self.act(&Action::Pause { machine, ms: *ms });
                }
            }
            Action::LoseAnswers { machine, per_mille, ms } => {
                host(machine).link.lose_answers(*per_mille, time(ms))
            }
            Action::Repeat { machine, per_mille, ms } => {
                host(machine).link.repeat(*per_mille, time(ms))
            }
            Action::Delay { machine, ms } => host(machine).link.delay(time(ms)),
            Action::SlowDisk { machine, ms } => {
                let (host, time) = (host(machine), time(ms));
                host.link.slow_disk(time);
                host.systemd.inner.set_lag(LAG);
                tokio::spawn(async move {
                    sleep(time).await;
                    host.systemd.inner.set_lag(Duration::ZERO);
                });
            }
            Action::ClockStep { machine, by_ms } => host(machine).step_clock(*by_ms),
            Action::NewStoreLeader => self.etcd.change_leader(),
            Action::Compact => self.etcd.compact(self.etcd.revision()),
            Action::CrashAtCall { machine, calls } => host(machine).link.fleetd.arm(*calls),
            Action::LaterFields => self.add_later_fields(),
            Action::Pause { machine, ms } => pause(&host(machine).link.fleetd, time(ms)),
            Action::KeeperPause { machine, ms } => pause(&host(machine).link.keeper, time(ms)),
            Action::KeeperCrash { machine } => host(machine).systemd.inner.kill(&keeper::unit()),
            Action::KeeperCrashAtCall { machine, calls } => host(machine).link.keeper.arm(*calls),
            Action::GuardPause { machine, ms } => pause(&host(machine).link.guard, time(ms)),
            Action::GuardCrash { machine } => {
                host(machine).systemd.inner.kill(&keeper::guard_unit())
            }
            Action::KeeperStop { machine, again } => {
                let (host, job) = (host(machine), if *again { Job::Restart } else { Job::Stop });
                tokio::spawn(async move { host.systemd.inner.queue(&keeper::unit(), job).await });
            }
            Action::NoQuorum { ms } => {
                let (etcd, time) = (self.etcd.clone(), time(ms));
                etcd.set_quorum(false);
                tokio::spawn(async move {
                    sleep(time).await;
                    etcd.set_quorum(true);
                });
            }
            Action::NoBus { machine, ms } => {
                let (host, time) = (host(machine), time(ms));
                host.systemd.inner.set_reachable(false);
                tokio::spawn(async move {
                    sleep(time).await;
                    host.systemd.inner.set_reachable(true);
                });
            }
            Action::UnitFails { unit, machine, ms } => {
                let (host, time, name) = (host(machine), time(ms), instance(unit));
                host.systemd.inner.fail(&name, "exit-code", 1);
                tokio::spawn(async move {
                    sleep(time).await;
                    host.systemd.inner.heal(&name);
                });
            }
            Action::FallsSick { machine, hangs, ms } => {
                let (host, time, judge) = (host(machine), time(ms), self.judge.clone());
                let answer = if *hangs { Answer::None } else { Answer::Bad("503".to_string()) };
                host.answer_with(Some(answer));
                judge.lock().sick(host.number, true);
                tokio::spawn(async move {
                    sleep(time).await;
                    host.answer_with(None);
                    judge.lock().sick(host.number, false);
                });
            }
            Action::SoftReboot { machine, down_ms } => {
                self.down(host(machine), time(down_ms), |host| host.soft_reboot())
            }
            Action::Isolate { machine } => host(machine).systemd.inner.isolate(&[]),
            Action::Stopped { unit, machine } => {
                host(machine).systemd.inner.systemctl(Job::Stop, &instance(unit))
            }
            Action::StartsEnd { unit, machine, word, ms } => {
                let (host, time, name) = (host(machine), time(ms), instance(unit));
                host.systemd.inner.end_starts_as(&name, Some(word));
                tokio::spawn(async move {
                    sleep(time).await;
                    host.systemd.inner.end_starts_as(&name, None);
                });
            }
            Action::Crash { machine, down_ms } => self.down(host(machine), time(down_ms), |host| {
                let _ = host.kill();
            }),
            Action::PowerLoss { machine, down_ms } => {
                self.down(host(machine), time(down_ms), |host| host.power_off())
            }
            Action::CopiedDisk { machine, ms } => {
                let (copy, time) = (self.copy_of(*machine), time(ms));
                copy.start();
                tokio::spawn(async move {
                    sleep(time).await;
                    copy.power_off();
                });
            }
            Action::Upgrade { machine } => drop(tokio::spawn(again(host(machine), false, RESTART))),
            Action::Leave { machine, away_ms } => {
                drop(tokio::spawn(again(host(machine), true, time(away_ms))))
            }
            Action::LockedReboot { machine, down_ms } => {
                let updates = reboots::update(host(machine), self.judge.clone(), time(down_ms));
                drop(tokio::spawn(updates));
            }
            Action::Reboot { machine, down_ms } => {
                let (host, time) = (host(machine), time(down_ms));
                tokio::spawn(async move {
                    host.stop(true).await;
                    host.power_off();
                    sleep(time).await;
                    host.start();
                });
            }
        }
    }

    /// The machine that leads; none if a copy of one does, whose faults are its own.
    fn leader(&self) -> Option<usize> {
        self.judge.lock().leader().map(|origin| origin.machine).filter(|machine| *machine < COPY)
    }

    /// Another host with a copy of a machine's disk.
    fn copy_of(&self, machine: usize) -> Arc<Host> {
        let number = COPY * (self.copies.fetch_add(1, Relaxed) + 1) + machine;
        let traits = Traits { rate_ppm: 0, later: false };
        let folder = self.disk.join(number.to_string());
        let copy = Host::new(
            number,
            &self.etcd,
            folder,
            number as u64,
            traits,
            &self.options,
            &self.judge,
        );
        copy.copy_disk_of(&self.hosts[machine]);
        copy
    }

    fn down(&self, host: Arc<Host>, time: Duration, how: impl FnOnce(&Host)) {
        how(&host);
        tokio::spawn(async move {
            sleep(time).await;
            host.start();
        });
    }

    /// Writes as a later version of fleet would: a field more in every document.
    fn add_later_fields(&self) {
        let etcd = self.etcd.clone();
        let found: Vec<_> = REWRITTEN.iter().flat_map(|prefix| etcd.peek_all(prefix)).collect();
        tokio::spawn(async move {
            use fleetd::store::kv::{Change, Compare, Kv};
            for kv in found {
                let Ok(mut document) = serde_json::from_slice::<serde_json::Value>(&kv.value)
                else {
                    continue;
                };
                document["x-later"] = 1.into();
                if let Some(generation) =
                    document.get("generation").and_then(serde_json::Value::as_u64)
                {
                    document["generation"] = (generation + 1).into();
                }
                let value = document.to_string().into_bytes();
                let unchanged = Compare::ModRevision(kv.key.clone(), kv.mod_revision);
                let _ = etcd
                    .txn(&[unchanged], &[Change::Put { key: kv.key, value, lease: None }])
                    .await;
            }
        });
    }

    fn heal(&self) {
        self.judge.lock().undisturbed(false);
        self.judge.lock().all_are_mended();
        self.etcd.set_quorum(true);
        for host in &self.hosts {
            host.link.heal();
            host.systemd.inner.set_reachable(true);
            host.systemd.inner.set_lag(Duration::ZERO);
            // What its file gives up at, nobody mends.
            for (unit, _) in units().filter(|(unit, _)| *unit != QUITTER) {
                host.systemd.inner.heal(&instance(unit));
                host.systemd.inner.end_starts_as(&instance(unit), None);
            }
            // What their programs died of is mended.
            for number in 1..=MOST_REPLICAS {
                host.systemd.inner.heal(&UnitName::trusted(ROLLING).replica(number));
                host.systemd.inner.heal(&UnitName::trusted(CHECKED).replica(number));
            }
            host.start();
        }
    }

    /// Waits until all is as wanted and stays so.
    async fn converge(&self) -> Result<(), Verdict> {
        let deadline = Instant::now() + HEALING;
        let mut steady_since = None;
        loop {
            if let Some(verdict) = self.judge.lock().verdict() {
                return Err(verdict.clone());
            }
            let now_ms = EPOCH_MS + self.began.elapsed().as_millis() as u64;
            match (settled(&self.etcd, &self.hosts, now_ms, self.planted).await, steady_since) {
                (Ok(()), None) => steady_since = Some(Instant::now()),
                (Ok(()), Some(since)) if since.elapsed() >= STEADY => break,
                (Ok(()), Some(_)) => {}
                (Err(Verdict { check, what }), _) if Instant::now() > deadline => {
                    let what = format!(
                        "not as wanted {} s after the last fault: {what}",
                        HEALING.as_secs()
                    );
                    return Err(Verdict { check, what });
                }
                (Err(_), _) => steady_since = None,
            }
            sleep(Duration::from_millis(500)).await;
        }
        nothing_lost(&self.etcd, &self.hosts, &self.ledgers)
            .map_err(|what| Verdict { check: Check::Ledger, what })
    }
}

/// How wrong a clock's rate may be, in millionths: any two then differ by one percent at most, the
/// bound of docs/fencing.md.
const MAX_RATE_PPM: i64 = 5_000;

/// How late a slow systemd is, with a watchdog and once more with SIGKILL: together less than the
/// slack of 5 s in docs/fencing.md.
const LAG: Duration = Duration::from_millis(2_400);

/// The instance that an action on a unit means: a template's first replica.
fn instance(unit: &str) -> UnitName {
    UnitName::trusted(unit.replace('@', "@1"))
}

/// systemd, which starts a fleetd that crashed again.
async fn revive(host: Arc<Host>) {
    loop {
        host.link.fleetd.crashed.notified().await;
        host.kill();
        sleep(RESTART).await;
        host.start();
    }
}

/// Kills keepers that have come to the call at which they crash; systemd starts them again.
async fn crash_keepers(host: Arc<Host>) {
    loop {
        host.link.keeper.crashed.notified().await;
        host.systemd.inner.kill(&keeper::unit());
    }
}

/// SIGSTOP, and SIGCONT after a while.
fn pause(process: &Mortal, time: Duration) {
    let gate = process.gate();
    gate.close();
    tokio::spawn(async move {
        sleep(time).await;
        gate.open();
    });
}

/// Stops fleetd in good order, and starts it again after a while.
async fn again(host: Arc<Host>, leaving: bool, after: Duration) {
    host.stop(leaving).await;
    sleep(after).await;
    host.start();
}
