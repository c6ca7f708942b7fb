use fleet_core::model::{FORMAT, Report};

use super::*;
use crate::store::embedded::EmbeddedKv;

fn machine(address: &str) -> Machine {
    Machine::new(MachineId::new("0123456789abcdef0123456789abcdef"), address)
}

struct Running {
    folder: tempfile::TempDir,
    store: Store,
    task: tokio::task::JoinHandle<()>,
    presence: watch::Sender<Presence>,
    standing: watch::Receiver<Standing>,
}

impl Running {
    async fn start() -> Running {
        let folder = tempfile::tempdir().unwrap();
        let kv = EmbeddedKv::open(&folder.path().join("store.redb")).await.unwrap();
        Running::start_in(folder, Store::new(Arc::new(kv), "/fleet/"), Duration::from_secs(10))
    }

    fn start_in(folder: tempfile::TempDir, store: Store, ttl: Duration) -> Running {
        let folders = (folder.path(), folder.path());
        let session =
            Session::new(store.clone(), machine("10.0.0.1"), ttl, folders, Arc::default());
        let (presence, standing) = (session.presence(), session.standing());
        Running { folder, store, task: tokio::spawn(session.run()), presence, standing }
    }

    /// The registration once it is another than `old`.
    async fn after(&mut self, old: Option<Registration>) -> Registration {
        let new =
            self.standing.wait_for(|now| now.registration().is_some() && now.registration() != old);
        let new = tokio::time::timeout(Duration::from_secs(20), new)
            .await
            .expect("a registration in time")
            .unwrap();
        new.registration().unwrap()
    }

    async fn seen(&self) -> (String, bool) {
        let mirror = self.store.read_all().await.unwrap();
        let snapshot = &mirror.cluster().snapshot;
        let id = machine("").id;
        (snapshot.machines[&id].address.clone(), snapshot.reports.contains_key(&id))
    }

    /// Since when the machine has been registered, by its record.
    async fn since_ms(&self) -> u64 {
        self.store.registered(&machine("").id).await.unwrap().unwrap().since_ms
    }
}

#[tokio::test]
async fn a_new_address_is_registered_under_the_same_lease() {
    let mut running = Running::start().await;
    let first = running.after(None).await;
    let seen = running.store.read_all().await.unwrap().cluster().snapshot.revision;
    let mut changes = running.store.watch_all(seen).await.unwrap();
    running.presence.send_modify(|presence| presence.machine.address = "10.0.0.2".to_string());
    while running.seen().await.0 != "10.0.0.2" {
        changes.recv().await.unwrap().unwrap();
    }
    assert_eq!(running.standing.borrow().registration(), Some(first));
}

#[tokio::test]
async fn a_new_ttl_is_a_new_lease_that_takes_the_report_along() {
    let mut running = Running::start().await;
    let first = running.after(None).await;
    let report = Report { v: FORMAT, ..Report::default() };
    running.store.put_report(&machine("").id, &report, first, 0).await.unwrap();
    running.presence.send_modify(|presence| presence.ttl = Duration::from_secs(20));
    let second = running.after(Some(first)).await;
    assert_eq!(second.create_revision, first.create_revision, "it never was away");
    assert_ne!(second.lease, first.lease);
    while running.store.keep_alive(first.lease).await.unwrap() {}
    assert_eq!(running.seen().await, ("10.0.0.1".to_string(), true));
}

#[tokio::test]
async fn a_restart_goes_on_with_the_lease_unless_its_time_is_another() {
    let mut running = Running::start().await;
    let before_ms = clock::now_ms();
    let first = running.after(None).await;
    let since_ms = running.since_ms().await;
    assert!((before_ms..=clock::now_ms()).contains(&since_ms), "{since_ms}");
    running.task.abort();
    let mut same = Running::start_in(running.folder, running.store, Duration::from_secs(10));
    assert_eq!(same.after(None).await, first);
    same.task.abort();
    let mut other = Running::start_in(same.folder, same.store, Duration::from_secs(20));
    let second = other.after(Some(first)).await;
    assert_eq!(second.create_revision, first.create_revision);
    assert_ne!(second.lease, first.lease);
    assert_eq!(other.since_ms().await, since_ms, "it never was away");
}
