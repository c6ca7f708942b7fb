//! What waiting costs: of the store, counted request by request, and of the leader, in plans.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fleet_core::model::{InstanceStatus, Report};
use fleet_core::name::MachineId;
use fleet_core::plan::plan;
use fleet_core::wire::Progress;
use fleet_tests::weighed::{Weighed, Weights};
use fleetd::agent::Agent;
use fleetd::api::{Api, router};
use fleetd::leader::engine::Engine;
use fleetd::leader::planner::Planner;
use fleetd::leader::replays::Replays;
use fleetd::machine::health::Health;
use fleetd::machine::session::Standing;
use fleetd::metrics::Metrics;
use fleetd::store::Store;
use fleetd::store::counted::{Counted, Counts};
use fleetd::store::embedded::EmbeddedKv;
use fleetd::store::kv::{KeyValue, Kv};
use fleetd::systemd::sim::{SimSystemd, Times};
use tokio::sync::{Mutex as AsyncMutex, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Longer than any test; nobody renews the machines' leases.
const TTL: Duration = Duration::from_secs(3600);

/// Far above what anything here takes.
const PATIENCE: Duration = Duration::from_secs(120);

const SLEEPER: &str = "[Service]\nExecStart=/bin/sleep infinity\n";

/// A cluster in one process: the API, an engine that counts its plans, and what each asks of the
/// store. It ends with the test.
struct Cluster {
    origin: String,
    kv: Arc<EmbeddedKv>,
    /// What all of them read and write.
    weights: Arc<Weights>,
    /// By who asks.
    asked: Mutex<BTreeMap<&'static str, Arc<Counts>>>,
    plans: Arc<AtomicU64>,
    /// The revision that was planned last.
    planned: Arc<AtomicI64>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    folder: tempfile::TempDir,
}

impl Cluster {
    async fn start() -> Cluster {
        let folder = tempfile::tempdir().unwrap();
        let kv = Arc::new(EmbeddedKv::open(folder.path().join("store")).await.unwrap());
        let mut cluster = Cluster {
            origin: String::new(),
            kv,
            weights: Arc::default(),
            asked: Mutex::default(),
            plans: Arc::default(),
            planned: Arc::default(),
            stop: CancellationToken::new(),
            tasks: JoinSet::new(),
            folder,
        };
        let api = Api::new(cluster.store("api"), MachineId::new("a"), String::new);
        cluster.origin = crate::serve(router(api)).await;
        cluster
    }

    /// A store that counts what `who` asks of it.
    fn store(&self, who: &'static str) -> Store {
        let counts = self.asked.lock().unwrap().entry(who).or_default().clone();
        let (inner, weights) = (self.kv.clone(), self.weights.clone());
        let weighed = Arc::new(Weighed { inner, weights });
        Store::new(Arc::new(Counted::new(weighed, counts)), "/fleet/")
    }

    /// Whole prefixes, and single keys, that were read so far.
    fn reads(&self) -> (u64, u64) {
        let asked = self.asked.lock().unwrap();
        let sum = |kind: usize| asked.values().map(|counts| counts.read()[kind].1.done).sum();
        (sum(0), sum(1))
    }

    /// Registers a machine, with an agent on a simulated systemd if `lives`.
    async fn join(&mut self, id: &str, lives: bool) {
        let store = self.store("machine");
        let lease = store.grant(TTL).await.unwrap();
        let registration = store.register(&crate::machine(id, None), lease).await.unwrap();
        if !lives {
            return;
        }
        let run = self.folder.path().join(id);
        std::fs::create_dir(&run).unwrap();
        let systemd = Arc::new(SimSystemd::new(Times::default()));
        let agent = Agent::new(MachineId::new(id), self.store("agent"), systemd, &run).unwrap();
        let (standing, stands) = watch::channel(Standing::Own(Some(registration)));
        self.tasks.spawn(async move {
            let _standing = standing;
            Agent::run(Arc::new(AsyncMutex::new(agent)), stands).await;
        });
    }

    /// Has an engine lead from now on.
    fn lead(&mut self) {
        let (plans, planned) = (self.plans.clone(), self.planned.clone());
        let health = Health::default();
        health.reachable(None, Duration::ZERO);
        let engine = Engine {
            store: self.store("engine"),
            machine: MachineId::new("a"),
            leader_ttl: TTL,
            settle: Duration::ZERO,
            health: Arc::new(health),
            standing: watch::channel(Standing::Own(None)).1,
            metrics: Arc::new(Metrics::default()),
            replays: Arc::new(Replays::default()),
            planner: Planner::with(move |snapshot| {
                let answer = plan(snapshot);
                plans.fetch_add(1, SeqCst);
                planned.store(snapshot.revision, SeqCst);
                answer
            }),
        };
        let stop = self.stop.clone();
        self.tasks.spawn(engine.run(stop));
    }

    /// Waits until the leader has planned everything that there is, has written that down, and has
    /// looked at what it wrote; how often it has planned.
    async fn quiet(&self) -> u64 {
        let begin = Instant::now();
        loop {
            let there = self.kv.range("/fleet/").await.unwrap().kvs;
            let word = there.iter().find(|kv| kv.key == "/fleet/outlook");
            let told = word.map_or(0, |word| {
                let word: serde_json::Value = serde_json::from_slice(&word.value).unwrap();
                word["planned"].as_i64().unwrap()
            });
            let newest = |of: &str| {
                let of = there.iter().filter(|kv| kv.key.starts_with(of) && Some(*kv) != word);
                of.map(|kv| kv.mod_revision).max().unwrap_or(0)
            };
            if told >= newest("/fleet/units/") && self.planned.load(SeqCst) >= newest("/fleet/") {
                return self.plans.load(SeqCst);
            }
            assert!(begin.elapsed() < PATIENCE, "the leader does not come to rest");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn write(&self, method: reqwest::Method, path: &str, body: serde_json::Value) {
        let request = fleet_tests::http()
            .build()
            .unwrap()
            .request(method, format!("{}/fleet/v1/{path}", self.origin))
            .json(&body);
        request.send().await.expect("an answer").error_for_status().expect("it was taken");
    }

    /// Waits until so many machines report that what they run has this revision of its
    /// configuration.
    async fn all_have(&self, revision: u64, machines: usize) {
        let begin = Instant::now();
        loop {
            let reports = self.kv.range("/fleet/reports/").await.unwrap().kvs;
            let has = |kv: &&KeyValue| {
                let report: Report = serde_json::from_slice(&kv.value).unwrap();
                let up = |status: &InstanceStatus| status.is_active() && !status.settling;
                let mut all = report.instances.values();
                all.any(|status| status.config == revision && up(status))
            };
            let count = reports.iter().filter(has).count();
            if count == machines {
                return;
            }
            assert!(begin.elapsed() < PATIENCE, "{count} of {machines} have revision {revision}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn follow(&self, unit: &str) -> Follow {
        let url = format!("{}/fleet/v1/follow?unit={unit}", self.origin);
        let answer = fleet_tests::http().build().unwrap().get(url).send().await.unwrap();
        Follow { answer: answer.error_for_status().unwrap(), buffer: Vec::new() }
    }
}

/// A client that waits.
struct Follow {
    answer: reqwest::Response,
    buffer: Vec<u8>,
}

impl Follow {
    /// The next line that is so.
    async fn until(&mut self, so: impl Fn(&Progress) -> bool) -> Progress {
        let reading = async {
            loop {
                if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = self.buffer.drain(..=end).collect();
                    let progress: Progress = serde_json::from_slice(&line).expect("progress");
                    if so(&progress) {
                        return progress;
                    }
                    continue;
                }
                let more = self.answer.chunk().await.expect("a connection").expect("more lines");
                self.buffer.extend(more);
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.expect("in time")
    }
}

fn up(count: usize) -> impl Fn(&Progress) -> bool {
    move |progress| progress.units[0].done && progress.units[0].instances.len() == count
}

#[tokio::test]
async fn a_scale_that_is_waited_for_reads_two_keys_and_no_prefix() {
    let mut cluster = Cluster::start().await;
    for id in ["a", "b", "c"] {
        cluster.join(id, true).await;
    }
    cluster.lead();
    // One on each machine: a machine without the text reads that, too.
    let submitted = serde_json::json!({"desiredState": "launched", "text": SLEEPER, "replicas": 3});
    cluster.write(reqwest::Method::PUT, "units/web@.service", submitted).await;
    cluster.quiet().await;
    let (before, _) = cluster.reads();
    cluster.follow("web@.service").await.until(up(3)).await;
    // The first who waits over a machine makes that machine's copy of the cluster.
    assert!(cluster.reads().0 <= before + 1);
    cluster.quiet().await;
    let before = cluster.reads();
    let scale = serde_json::json!({"replicas": 5});
    cluster.write(reqwest::Method::PUT, "units/web@.service/replicas", scale).await;
    let seen = cluster.follow("web@.service").await.until(up(5)).await;
    assert!(seen.units[0].instances.iter().all(|instance| instance.done), "{seen:?}");
    let after = cluster.reads();
    let read = (after.0 - before.0, after.1 - before.1);
    assert!(read.0 == 0 && read.1 <= 2, "{} prefixes and {} keys were read", read.0, read.1);
    cluster.stop.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_who_wait_make_the_leader_plan_no_more_often_than_none() {
    let mut cluster = Cluster::start().await;
    let machines: Vec<String> = (0..10).map(|number| format!("m{number}")).collect();
    for id in &machines {
        cluster.join(id, false).await;
    }
    let big = serde_json::json!({"desiredState": "launched", "text": SLEEPER, "replicas": 9_999});
    cluster.write(reqwest::Method::PUT, "units/big@.service", big).await;
    let small = serde_json::json!({"desiredState": "launched", "text": SLEEPER});
    cluster.write(reqwest::Method::PUT, "units/web.service", small).await;
    cluster.lead();
    let before = cluster.quiet().await;
    let set = |state: &'static str| {
        let wish = serde_json::json!({"desiredState": state});
        cluster.write(reqwest::Method::PUT, "units/web.service", wish)
    };
    set("loaded").await;
    let alone = cluster.quiet().await - before;
    let mut clients = Vec::new();
    for _ in 0..100 {
        clients.push(cluster.follow("web.service").await);
    }
    let placed = |progress: &Progress| progress.units[0].instances[0].machine.is_some();
    for client in &mut clients {
        client.until(placed).await;
    }
    assert_eq!(cluster.quiet().await, before + alone, "nobody has written anything");
    let ranges = |who: &str| cluster.asked.lock().unwrap()[who].read()[0].1.done;
    assert_eq!(ranges("api"), 1, "one copy for all");
    set("launched").await;
    for client in &mut clients {
        client.until(|progress| progress.units[0].desired_state == "launched").await;
    }
    let together = cluster.quiet().await - before - alone;
    assert!(together <= alone, "{together} plans for a write that costs {alone} alone");
    assert_eq!(ranges("api"), 1);
    cluster.stop.cancel();
}

/// docs/performance.md has what it prints with `--nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_apply_of_a_hundred_changed_units_is_one_write_and_no_plan_of_its_own() {
    const UNITS: usize = 100;
    let mut cluster = Cluster::start().await;
    for number in 0..3 {
        cluster.join(&format!("m{number}"), false).await;
    }
    cluster.lead();
    let units = |program: &str| {
        let text = format!("[Service]\nExecStart={program}\nRestart=always\n");
        let all = (0..UNITS).map(|number| (format!("shop-{number}.service"), text.clone().into()));
        let units: serde_json::Map<String, serde_json::Value> = all.collect();
        serde_json::json!({"units": units, "files": {}})
    };
    cluster.write(reqwest::Method::POST, "apps/shop", units("/bin/one")).await;
    let before = cluster.quiet().await;
    let asked = || {
        let asked = cluster.asked.lock().unwrap();
        asked["api"].read().map(|(_, total)| total.done)
    };
    let (asked_before, bytes_before) = (asked(), cluster.weights.bytes());
    let begin = Instant::now();
    cluster.write(reqwest::Method::POST, "apps/shop", units("/bin/two")).await;
    let took = begin.elapsed();
    let plans = cluster.quiet().await - before;
    let [ranges, gets, txns, ..] = asked();
    let (ranges, gets) = (ranges - asked_before[0], gets - asked_before[1]);
    let txns = txns - asked_before[2];
    let (written, read) = cluster.weights.bytes();
    eprintln!(
        "{took:?}; {ranges} ranges, {gets} gets, {txns} transactions; {} bytes written, {} read; \
            {plans} plans",
        written - bytes_before.0,
        read - bytes_before.1
    );
    // The lock, the staged documents, the decision, the documents in their places.
    assert!(txns <= 6, "{txns} transactions");
    assert!(ranges + gets <= 10, "{ranges} ranges and {gets} gets");
    assert!(plans <= 3, "{plans} plans for one apply");
    cluster.stop.cancel();
}

/// docs/performance.md has what it prints with `MACHINES=1000` and `--nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_configuration_costs_each_machine_its_values_and_little_else() {
    let machines = std::env::var("MACHINES").map_or(100, |number| number.parse().unwrap());
    let mut cluster = Cluster::start().await;
    for number in 0..machines {
        cluster.join(&format!("{number:032x}"), true).await;
    }
    let set = |value: String| serde_json::json!({"set": {"value": value}});
    cluster.write(reqwest::Method::PATCH, "config/shop", set("a".repeat(1_024))).await;
    let text = "[Service]\nExecStart=/usr/bin/web\nRestart=always\n[X-Fleet]\nConfig=shop\n\
        MaxUnavailable=100%\n";
    let wish = serde_json::json!({"desiredState": "launched", "text": text, "replicas": machines});
    cluster.write(reqwest::Method::PUT, "units/web@.service", wish).await;
    cluster.lead();
    cluster.all_have(1, machines).await;
    let before = cluster.weights.bytes();
    let begin = Instant::now();
    cluster.write(reqwest::Method::PATCH, "config/shop", set("b".repeat(1_024))).await;
    cluster.all_have(2, machines).await;
    let took = begin.elapsed();
    let after = cluster.weights.bytes();
    let (written, read) = (after.0 - before.0, after.1 - before.1);
    eprintln!("{written} bytes written, {read} read, {took:?}");
    // An assignment and a report or two, which the leader and the machine read, and the values.
    assert!(written < machines * 1_500, "{written} bytes were written");
    assert!(read < machines * 3_500, "{read} bytes were read");
    cluster.stop.cancel();
}
