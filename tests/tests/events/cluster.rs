//! A cluster without hosts: machines that are keys in an embedded store, and an engine that is
//! ticked by hand.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fleet_core::event::{Event, Item};
use fleet_core::model::{
    DesiredState, FORMAT, InstanceStatus, Leader, Machine, Report, UnitRecord,
};
use fleet_core::name::{MachineId, UnitName};
use fleetd::leader::engine::{Engine, Memory};
use fleetd::leader::event_log::EventLog;
use fleetd::leader::planner::Planner;
use fleetd::leader::replays::Replays;
use fleetd::machine::health::Health;
use fleetd::machine::session::Standing;
use fleetd::metrics::Metrics;
use fleetd::store::embedded::EmbeddedKv;
use fleetd::store::kv::{Change, Kv};
use fleetd::store::{Mirror, Registration, Store, StoreError, Term};
use tempfile::TempDir;
use tokio::task::JoinSet;

/// Longer than any test: nobody renews the leases here.
const TTL: Duration = Duration::from_secs(3600);

/// The time that every tick gets, in milliseconds since 1970, unless a test says otherwise.
pub(crate) const NOW_MS: u64 = 1_800_000_000_000;

/// The store with its machines.
pub(crate) struct Cluster {
    pub(crate) store: Store,
    pub(crate) kv: Arc<EmbeddedKv>,
    machines: BTreeMap<MachineId, Registration>,
    _folder: TempDir,
}

/// An engine that was elected.
pub(crate) struct Elected {
    pub(crate) engine: Engine,
    pub(crate) term: Term,
    log: EventLog,
    memory: Memory,
}

impl Cluster {
    pub(crate) async fn start() -> Cluster {
        let folder = tempfile::tempdir().unwrap();
        let kv = Arc::new(EmbeddedKv::open(folder.path().join("store")).await.unwrap());
        Cluster {
            store: Store::new(kv.clone(), "/fleet/"),
            kv,
            machines: BTreeMap::new(),
            _folder: folder,
        }
    }

    /// Writes a machine's assignment as it is, as somebody with etcdctl would: its revision is
    /// another then.
    pub(crate) async fn touch_assignment(&self, id: &str) {
        let key = format!("/fleet/assignments/{id}");
        let value = self.kv.get(&key).await.unwrap().0.expect("an assignment").value;
        assert!(
            self.kv.txn(&[], &[Change::Put { key, value, lease: None }]).await.unwrap().applied
        );
    }

    /// Registers machines, together, since each waits for the disk.
    pub(crate) async fn join(&mut self, ids: impl IntoIterator<Item = String>) {
        let mut joining = JoinSet::new();
        for id in ids {
            let store = self.store.clone();
            joining.spawn(async move {
                let machine = machine(&id);
                let lease = store.grant(TTL).await.unwrap();
                (machine.id.clone(), store.register(&machine, lease).await.unwrap())
            });
        }
        self.machines.extend(joining.join_all().await);
    }

    /// Ends a machine's lease.
    pub(crate) async fn lose(&mut self, id: &str) {
        let registration = self.machines.remove(id).unwrap();
        self.store.revoke(registration.lease).await.unwrap();
    }

    pub(crate) async fn leave(&mut self, id: &str) {
        let registration = self.machines.remove(id).unwrap();
        self.store.leave(&MachineId::new(id), registration).await.unwrap();
        self.store.revoke(registration.lease).await.unwrap();
    }

    /// Submits a launched unit, or changes its count or text.
    pub(crate) async fn submit(&self, name: &str, replicas: Option<u32>, text: &str) {
        let name = UnitName::parse(name).unwrap();
        let old = self.store.unit(&name).await.unwrap().0;
        let new_text = old.as_ref().is_none_or(|old| old.value.text != text);
        let record = UnitRecord {
            revision: old.as_ref().map_or(0, |old| old.value.revision) + u64::from(new_text),
            desired: DesiredState::Launched,
            replicas,
            ..UnitRecord::new(name.clone(), text)
        };
        self.store.put_unit(&record, old.map(|old| old.revision), new_text).await.unwrap();
    }

    /// A machine reports these units as given up.
    pub(crate) async fn give_up(&self, id: &str, units: &[&str]) {
        let status = InstanceStatus {
            active: "failed".into(),
            result: "exit-code".into(),
            code: Some(7),
            restarts: 5,
            gave_up: true,
            ..InstanceStatus::default()
        };
        let instances =
            units.iter().map(|name| (UnitName::trusted(*name), status.clone())).collect();
        let report = Report { v: FORMAT, generation: 1, instances, ..Report::default() };
        let machine = MachineId::new(id);
        let last = self.store.report_revision(&machine).await.unwrap();
        self.store.put_report(&machine, &report, self.machines[id], last).await.unwrap();
    }

    /// An engine on the machine `id` that nobody has elected.
    pub(crate) fn engine(&self, id: &str, store: Store) -> Engine {
        let health = Health::default();
        health.reachable(None, Duration::ZERO);
        Engine {
            store,
            machine: MachineId::new(id),
            leader_ttl: TTL,
            settle: Duration::ZERO,
            health: Arc::new(health),
            standing: tokio::sync::watch::channel(Standing::Own(None)).1,
            metrics: Arc::new(Metrics::default()),
            replays: Arc::new(Replays::default()),
            planner: Planner::default(),
        }
    }

    /// Elects `id`, whoever led before.
    pub(crate) async fn elect(&self, id: &str) -> Elected {
        let leader = Leader { v: FORMAT, machine: MachineId::new(id), since_ms: NOW_MS };
        let lease = self.store.grant(TTL).await.unwrap();
        let term = self.store.campaign(&leader, lease).await.unwrap().expect("somebody leads");
        let engine = self.engine(id, self.store.clone());
        let log =
            EventLog::open(&self.store, term, &engine.machine, &self.mirror().await).await.unwrap();
        Elected { engine, term, log, memory: Memory::default() }
    }

    pub(crate) async fn mirror(&self) -> Mirror {
        self.store.read_all().await.unwrap()
    }

    /// The store's counter: it stands still while nobody writes.
    pub(crate) async fn revision(&self) -> i64 {
        self.store.leader().await.unwrap().1
    }

    pub(crate) async fn events(&self) -> Vec<Event> {
        self.store
            .events()
            .await
            .unwrap()
            .0
            .into_iter()
            .map(|stored| stored.event.expect("readable"))
            .collect()
    }

    /// Writes an event as whoever leads would.
    pub(crate) async fn put_event(&self, term: Term, event: &Event) {
        self.store.tell(term, Some(event), None, &[]).await.unwrap();
    }

    /// What was told since the event before number `from`, one line an item.
    pub(crate) async fn told(&self, from: usize) -> String {
        let events = self.events().await;
        events[from..]
            .iter()
            .flat_map(|event| &event.items)
            .map(Item::to_string)
            .collect::<Vec<_>>()
            .join("\n")
    }
}

impl Elected {
    /// One pass over what is in the store now. Answers with the commit's revision.
    pub(crate) async fn tick(&mut self, cluster: &Cluster) -> Result<Option<i64>, StoreError> {
        // Far enough ahead that no machine is only settling.
        self.tick_at(cluster, u64::MAX / 2).await
    }

    pub(crate) async fn tick_at(
        &mut self,
        cluster: &Cluster,
        now_ms: u64,
    ) -> Result<Option<i64>, StoreError> {
        Ok(self
            .engine
            .tick(&mut self.log, &cluster.mirror().await, &mut self.memory, now_ms)
            .await?
            .0)
    }

    /// One pass over what was in the store when `mirror` was read.
    pub(crate) async fn tick_on(&mut self, mirror: &Mirror) -> Result<Option<i64>, StoreError> {
        Ok(self.engine.tick(&mut self.log, mirror, &mut self.memory, u64::MAX / 2).await?.0)
    }

    /// Reads the store anew, as after a watch that broke.
    pub(crate) async fn reopen(&mut self, cluster: &Cluster) {
        self.log = EventLog::open(
            &cluster.store,
            self.term,
            &self.engine.machine,
            &cluster.mirror().await,
        )
        .await
        .unwrap();
    }

    /// Its lease ends.
    pub(crate) async fn fall_silent(&self) {
        self.engine.store.revoke(self.term.lease).await.unwrap();
    }
}

fn machine(id: &str) -> Machine {
    Machine::new(MachineId::new(id), format!("10.0.0.{}", id.len()))
}
