//! Who holds a fenced unit's lease until when, and what the leader waits for: asked of any machine,
//! known by one.

use std::sync::Arc;
use std::time::Duration;

use fleet_core::fence::wait_ms;
use fleet_core::model::{DesiredState, FORMAT, Fence, Keeper, Leader, UnitRecord};
use fleet_core::name::{MachineId, UnitName};
use fleet_core::plan::plan;
use fleet_core::replay::Saved;
use fleet_core::wire::{FencingPage, OwnFencing};
use fleetd::api::{Api, router};
use fleetd::keeper::{State, life_file};
use fleetd::leader::replays::Replays;
use fleetd::process::clock::{now_ms, wall_ms};
use fleetd::store::embedded::EmbeddedKv;
use fleetd::store::{LeaseId, Store};

use crate::machine;
use crate::serve;

/// Longer than any test; nobody renews the leases.
const TTL: Duration = Duration::from_secs(3600);

const WATCHDOG_MS: u64 = 8_000;

const FENCED: &str = "[Service]\nExecStart=/bin/sleep \
    1d\nTimeoutStopSec=10\n\n[X-Fleet]\nFence=yes\nMachineID=bbbbbbbb\n";

/// `aaaaaaaa` leads; `bbbbbbbb` runs what is fenced.
struct Two {
    store: Store,
    replays: Arc<Replays>,
    /// Where the leader's API answers.
    origin: String,
    /// The lease of b's machine, and that of its keeper.
    leases: [LeaseId; 2],
    folder: tempfile::TempDir,
}

impl Two {
    async fn start() -> Two {
        let folder = tempfile::tempdir().unwrap();
        let kv = EmbeddedKv::open(folder.path().join("store")).await.unwrap();
        let store = Store::new(Arc::new(kv), "/fleet/");
        let replays = Arc::new(Replays::default());
        let origin = serve(router(
            Api::new(store.clone(), MachineId::new("aaaaaaaa"), String::new)
                .with_replays(replays.clone()),
        ))
        .await;
        let keeper = folder.path().join("keeper");
        let other = serve(router(
            Api::new(store.clone(), MachineId::new("bbbbbbbb"), String::new).with_keeper(keeper),
        ))
        .await;
        let mut leases = Vec::new();
        for (id, origin) in [("aaaaaaaa", &origin), ("bbbbbbbb", &other)] {
            let lease = store.grant(TTL).await.unwrap();
            store.register(&machine(id, Some(origin)), lease).await.unwrap();
            leases.push(lease);
        }
        let keeper = store.grant(TTL).await.unwrap();
        let fence = Fence { v: FORMAT, watchdog_ms: WATCHDOG_MS, ..Fence::default() };
        let document = Keeper { v: FORMAT, ..Keeper::default() };
        store
            .register_keeper(&MachineId::new("bbbbbbbb"), &document, &fence, keeper)
            .await
            .unwrap();
        let two = Two { store, replays, origin, leases: [leases[1], keeper], folder };
        two.submit("lone.service", FENCED).await;
        two.submit("free.service", "[Service]\nExecStart=/bin/sleep 1d\n").await;
        let leader = Leader { v: FORMAT, machine: MachineId::new("aaaaaaaa"), since_ms: 0 };
        let term = two.store.campaign(&leader, leases[0]).await.unwrap().unwrap();
        let mirror = two.store.read_all().await.unwrap();
        two.store.commit(term, &mirror, &plan(&mirror.cluster().snapshot)).await.unwrap();
        two
    }

    async fn submit(&self, name: &str, text: &str) {
        let record = UnitRecord {
            desired: DesiredState::Launched,
            ..UnitRecord::new(UnitName::trusted(name), text)
        };
        self.store.put_unit(&record, None, true).await.unwrap();
    }

    /// The keeper of b says that its lease holds for so long.
    fn keeper_says(&self, left: Duration) -> State {
        let folder = self.folder.path().join("keeper");
        std::fs::create_dir_all(&folder).unwrap();
        let until_ms = wall_ms() + left.as_millis() as u64;
        let state = State { life: 7, alone: false, until_ms };
        std::fs::write(folder.join("state.json"), serde_json::to_vec(&state).unwrap()).unwrap();
        std::fs::write(life_file(&folder, 7), "").unwrap();
        state
    }

    /// The leader looks at the store, having seen b's keeper silent for so long.
    async fn leader_looks(&self, silent_ms: u64) {
        let mut snapshot = self.store.read_all().await.unwrap().cluster().snapshot.clone();
        snapshot.now_ms = now_ms();
        snapshot
            .keepers
            .values_mut()
            .filter(|keeper| !keeper.held)
            .for_each(|keeper| keeper.silent_ms = silent_ms);
        let (leader, planned) = (MachineId::new("aaaaaaaa"), plan(&snapshot));
        let plan = planned.digest();
        let saved = Saved { v: FORMAT, version: String::new(), leader, term: 1, plan, snapshot };
        self.replays.planned(Arc::new(saved), &planned.held);
    }

    async fn get(&self, path: &str) -> reqwest::Response {
        fleet_tests::http()
            .build()
            .unwrap()
            .get(format!("{}/fleet/v1/{path}", self.origin))
            .send()
            .await
            .unwrap()
    }

    async fn fencing(&self, unit: &str) -> FencingPage {
        self.get(&format!("units/{unit}/fencing"))
            .await
            .error_for_status()
            .unwrap()
            .json()
            .await
            .unwrap()
    }
}

#[tokio::test]
async fn the_machine_that_holds_the_lease_is_asked_until_when() {
    let two = Two::start().await;
    let none = two.fencing("lone.service").await;
    assert!(
        none.fencing[0].lease.is_none()
            && none.fencing[0].unknown == "its keeper holds none at the moment",
        "{none:?}"
    );
    let state = two.keeper_says(Duration::from_secs(6));
    let FencingPage { fencing } = two.fencing("lone.service").await;
    let [fenced] = fencing.as_slice() else { panic!("{fencing:?}") };
    let lease = fenced.lease.as_ref().unwrap();
    assert_eq!(
        (fenced.machine_id.as_str(), lease.life, lease.until_ms),
        ("bbbbbbbb", 7, state.until_ms)
    );
    assert!(
        lease.left_ms <= 6_000 && fenced.token.is_some() && fenced.waits.is_none(),
        "{fenced:?}"
    );
    let said = fenced.to_string();
    assert!(
        said.contains("machine bbbbbbbb holds its lease until 20")
            && said.ends_with("s), and renews it"),
        "{said}"
    );
    assert_eq!(two.fencing("free.service").await, FencingPage::default());
    assert_eq!(two.get("units/nosuch.service/fencing").await.status(), 404);
    // As one fleetd asks another: what is asked of somebody else is refused.
    assert_eq!(two.get("fencing?machine=bbbbbbbb").await.status(), 421);
}

#[tokio::test]
async fn the_leader_says_for_whom_it_waits_and_until_when() {
    let two = Two::start().await;
    two.keeper_says(Duration::from_secs(6));
    for lease in two.leases {
        two.store.revoke(lease).await.unwrap();
    }
    two.leader_looks(5_000).await;
    let FencingPage { fencing } = two.fencing("lone.service").await;
    let [fenced] = fencing.as_slice() else { panic!("{fencing:?}") };
    let wait = fenced.waits.as_ref().unwrap();
    let most = wait_ms(WATCHDOG_MS, 10_000) - 5_000;
    assert!(
        wait.left_ms.is_some_and(|left| left <= most && left > most - 2_000),
        "{wait:?}, at most {most} ms"
    );
    assert_eq!((wait.machine_id.as_str(), &fenced.lease), ("bbbbbbbb", &None));
    let said = fenced.to_string();
    let why = "fenced: waits until its copy on the lost machine bbbbbbbb has surely ended, \
        about 20";
    assert!(said.starts_with(why) && said.ends_with(" s)"), "{said}");
    // Where nothing runs, `fleetctl status` has only this to show.
    let refused = two.get("units/lone.service/status").await;
    assert_eq!(refused.status(), 409);
    let body = refused.text().await.unwrap();
    assert!(
        body.contains(&format!("lone.service is on no machine; lone.service: {why}")),
        "{body}"
    );
    let own: OwnFencing = two.get("fencing?unit=lone.service").await.json().await.unwrap();
    assert!(own.leads && own.waits.len() == 1 && own.lease.is_none(), "{own:?}");
}

#[tokio::test]
async fn without_a_leader_it_is_still_said_that_the_machine_is_silent() {
    let two = Two::start().await;
    for lease in two.leases {
        two.store.revoke(lease).await.unwrap();
    }
    // It planned nothing yet, or has resigned.
    assert!(two.replays.find(None).is_none());
    let fencing = two.fencing("lone.service").await.fencing;
    assert!(fencing[0].waits.is_none() && fencing[0].machine_id == "bbbbbbbb", "{fencing:?}");
    assert!(fencing[0].unknown.contains("it is silent"), "{fencing:?}");
}
