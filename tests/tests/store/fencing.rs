//! What fencing asks of the typed store: a keeper's lives, and commits that hold only while a
//! keeper stays away.

use std::time::Duration;

use fleet_core::model::{Assignment, FORMAT, Fence, Fenced, Keeper, Leader, Machine, Off};
use fleet_core::name::{MachineId, UnitName};
use fleet_core::plan::Plan;
use fleetd::store::{LeaseId, Store as Typed, StoreError, Term};

use super::{Case, Store};
use crate::cases;

pub(crate) const CASES: &[Case] = cases![
    a_keeper_has_one_life_a_lease_and_a_new_one_after_it
    a_keeper_that_ends_in_good_order_says_so_until_its_next_life
    what_a_machine_left_is_given_up_once_its_keeper_or_the_leader_says_so
    a_guarded_document_is_written_only_while_the_keeper_stays_away
    of_two_commits_that_place_something_fenced_from_one_look_only_one_lands
];

const TTL: Duration = Duration::from_secs(60);

fn fence() -> Fence {
    Fence { v: FORMAT, watchdog_ms: 8_000, ..Fence::default() }
}

async fn register(store: &Typed, lease: LeaseId) -> Result<i64, StoreError> {
    store.register_keeper(&MachineId::new("a"), &Keeper::default(), &fence(), lease).await
}

async fn term(store: &Typed) -> Term {
    let lease = store.grant(TTL).await.unwrap();
    let leader = Leader { v: FORMAT, machine: MachineId::new("a"), since_ms: 0 };
    store.campaign(&leader, lease).await.unwrap().unwrap()
}

/// A plan that writes one document for each machine.
fn plan(machines: &[&str]) -> Plan {
    let documents = machines
        .iter()
        .map(|id| (MachineId::new(*id), Assignment { v: FORMAT, ..Assignment::default() }));
    Plan { documents: documents.collect(), ..Plan::default() }
}

async fn a_keeper_has_one_life_a_lease_and_a_new_one_after_it(store: Store, p: String) {
    let (store, id) = (Typed::new(store.kv, &p), MachineId::new("a"));
    let (first, second) = (store.grant(TTL).await.unwrap(), store.grant(TTL).await.unwrap());
    let life = register(&store, first).await.unwrap();
    assert_eq!(register(&store, first).await.unwrap(), life);
    assert!(matches!(register(&store, second).await, Err(StoreError::Conflict(_))));
    assert!(store.keeper_lives(&id, life, first).await.unwrap());
    assert!(!store.keeper_lives(&id, life - 1, first).await.unwrap());
    store.revoke(first).await.unwrap();
    assert!(!store.keeper_lives(&id, life, first).await.unwrap());
    let next = register(&store, second).await.unwrap();
    assert!(next > life);
    let keeper = store.read_all().await.unwrap().cluster().snapshot.keepers[&id];
    assert_eq!(
        (keeper.life, keeper.held, keeper.watchdog_ms, keeper.released),
        (next, true, 8_000, false)
    );
}

async fn a_keeper_that_ends_in_good_order_says_so_until_its_next_life(store: Store, p: String) {
    let (store, id) = (Typed::new(store.kv, &p), MachineId::new("a"));
    let lease = store.grant(TTL).await.unwrap();
    let life = register(&store, lease).await.unwrap();
    assert!(store.release_keeper(&id, life - 1, &fence(), lease).await.is_err());
    store.release_keeper(&id, life, &fence(), lease).await.unwrap();
    let keeper = store.read_all().await.unwrap().cluster().snapshot.keepers[&id];
    assert!(keeper.released && !keeper.held && keeper.life > life);
    register(&store, store.grant(TTL).await.unwrap()).await.unwrap();
    assert!(!store.read_all().await.unwrap().cluster().snapshot.keepers[&id].released);
}

async fn what_a_machine_left_is_given_up_once_its_keeper_or_the_leader_says_so(
    store: Store,
    p: String,
) {
    let (store, id) = (Typed::new(store.kv, &p), MachineId::new("a"));
    let off = |stop_ms| Off {
        generation: 1,
        fence: Fenced { token: 1, stop_ms, after: vec![] },
        why: None,
        moves: 0,
    };
    let mut assigned = plan(&["a"]);
    assigned
        .documents
        .get_mut(&id)
        .unwrap()
        .off
        .insert(UnitName::trusted("db.service"), off(5_000));
    let term = term(&store).await;
    store.commit(term, &store.read_all().await.unwrap(), &assigned).await.unwrap();

    let (lease, keepers) = (store.grant(TTL).await.unwrap(), store.grant(TTL).await.unwrap());
    let registration = store.register(&machine(&id), lease).await.unwrap();
    let life = register(&store, keepers).await.unwrap();
    store.leave(&id, registration).await.unwrap();
    assert!(
        !store.is_given_up(&id, None).await.unwrap(),
        "what is fenced may still be ending there"
    );
    assert!(!store.is_given_up(&id, Some(life - 1)).await.unwrap());
    assert!(
        store.is_given_up(&id, Some(life)).await.unwrap(),
        "it is this host's own keeper that has the place"
    );
    store.release_keeper(&id, life, &fence(), keepers).await.unwrap();
    assert!(store.is_given_up(&id, None).await.unwrap());

    // The next keeper's lease runs out: only the leader knows when what was bound to its guard has
    // ended.
    let keepers = store.grant(TTL).await.unwrap();
    register(&store, keepers).await.unwrap();
    store.revoke(keepers).await.unwrap();
    assert!(!store.is_given_up(&id, None).await.unwrap());
    store.commit(term, &store.read_all().await.unwrap(), &plan(&["a"])).await.unwrap();
    assert!(store.is_given_up(&id, None).await.unwrap());
}

fn machine(id: &MachineId) -> Machine {
    Machine::new(id.clone(), "10.0.0.1")
}

async fn a_guarded_document_is_written_only_while_the_keeper_stays_away(store: Store, p: String) {
    let store = Typed::new(store.kv, &p);
    let term = term(&store).await;
    let lease = store.grant(TTL).await.unwrap();
    let life = register(&store, lease).await.unwrap();
    let mut plan = plan(&["a", "b"]);
    plan.guards.insert(MachineId::new("a"), life);
    let refused = async || {
        matches!(
            store.commit(term, &store.read_all().await.unwrap(), &plan).await,
            Err(StoreError::Conflict(_))
        )
    };
    assert!(refused().await, "the keeper is there");
    store.revoke(lease).await.unwrap();
    let seen = store.read_all().await.unwrap();
    // It was back and went again, and nobody saw it.
    let lease = store.grant(TTL).await.unwrap();
    register(&store, lease).await.unwrap();
    store.revoke(lease).await.unwrap();
    assert!(matches!(store.commit(term, &seen, &plan).await, Err(StoreError::Conflict(_))));
    let seen = store.read_all().await.unwrap();
    assert_eq!(
        seen.cluster().snapshot.assignments.len(),
        0,
        "what builds on a guarded document is not written before it"
    );
    let life = seen.cluster().snapshot.keepers["a"].life;
    plan.guards.insert(MachineId::new("a"), life);
    store.commit(term, &seen, &plan).await.unwrap();
    // A machine that never had a keeper: the guard is that it has none now either.
    let seen = store.read_all().await.unwrap();
    plan.guards = [(MachineId::new("b"), 0)].into();
    store.commit(term, &seen, &plan).await.unwrap();
}

async fn of_two_commits_that_place_something_fenced_from_one_look_only_one_lands(
    store: Store,
    p: String,
) {
    let store = Typed::new(store.kv, &p);
    let term = term(&store).await;
    for _ in 0..2 {
        let seen = store.read_all().await.unwrap();
        let place = |id: &str| Plan { fenced: [MachineId::new(id)].into(), ..plan(&[id]) };
        store.commit(term, &seen, &place("a")).await.unwrap();
        assert!(matches!(
            store.commit(term, &seen, &place("b")).await,
            Err(StoreError::Conflict(_))
        ));
    }
    // More documents than fit into one transaction.
    let machines: Vec<String> = (0..300).map(|n| format!("m{n}")).collect();
    let machines: Vec<&str> = machines.iter().map(String::as_str).collect();
    let fenced = machines.iter().map(|id| MachineId::new(*id)).collect();
    let seen = store.read_all().await.unwrap();
    store.commit(term, &seen, &Plan { fenced, ..plan(&machines) }).await.unwrap();
    let after = store.read_all().await.unwrap();
    assert_eq!(after.cluster().snapshot.assignments.len(), 301);
}
