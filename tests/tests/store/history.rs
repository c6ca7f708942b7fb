//! Of a unit's texts those go that nobody needs, and no others.

use std::collections::BTreeSet;
use std::time::Duration;

use fleet_core::model::{Act, DesiredState, Did, FORMAT, Leader, Machine, UnitRecord, Unknown};
use fleet_core::name::{MachineId, UnitName};
use fleet_core::outlook::Outlook;
use fleet_core::plan::{Plan, plan};
use fleet_core::rollout::{Rollout, State};
use fleetd::store::{Store as Typed, Term};

use crate::imports::typed;
use crate::{Case, Store, cases};

pub(crate) const CASES: &[Case] = cases![
    old_texts_go_with_where_they_come_from
    what_is_assigned_or_gone_back_to_stays
    what_the_leader_may_still_assign_stays
    thousands_that_an_older_version_kept_go_a_few_at_a_time
    a_unit_that_was_destroyed_and_submitted_again_loses_nothing
];

fn web() -> UnitName {
    UnitName::trusted("web.service")
}

fn record(number: u64) -> UnitRecord {
    UnitRecord {
        revision: number,
        desired: DesiredState::Launched,
        ..UnitRecord::new(web(), format!("[Service]\nExecStart=/bin/sleep {number}\n"))
    }
}

async fn submit(store: &Typed, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        let old = store.unit_revision(&web()).await.expect("a read");
        let did = Did::Submitted {
            revision: number,
            change: String::new(),
            desired: DesiredState::Launched,
            replicas: None,
        };
        let store = store.telling(Act::new("anna", number, did));
        store.put_unit(&record(number), old, true).await.expect("a write");
    }
}

async fn elect(store: &Typed) -> Term {
    let lease = store.grant(Duration::from_secs(3600)).await.expect("a lease");
    let machine = Machine::new(MachineId::new("a"), "10.0.0.1");
    store.register(&machine, lease).await.expect("registered");
    let leader = Leader { v: FORMAT, machine: machine.id, since_ms: 1 };
    store.campaign(&leader, lease).await.expect("a store").expect("elected")
}

/// The leader says that it has planned with all that is there, and has changed nothing.
async fn say_planned(store: &Typed, term: Term) {
    let revision = store.read_all().await.expect("a read").cluster().snapshot.revision;
    let outlook = Outlook::of(&Plan::default(), term.create_revision, revision, false, None);
    store.tell(term, None, Some(&outlook), &[]).await.expect("a word");
}

async fn prune(store: &Typed) -> usize {
    let mirror = store.read_all().await.expect("a read");
    store.prune_texts(&BTreeSet::from([web()]), &mirror).await.expect("pruned")
}

async fn numbers(store: &Typed) -> Vec<u64> {
    let kept = store.kept_texts_of(&web()).await.expect("a read");
    kept.into_iter().map(|kept| kept.number).collect()
}

async fn old_texts_go_with_where_they_come_from(store: Store, p: String) {
    let typed = typed(&store.kv, &p);
    let term = elect(&typed).await;
    submit(&typed, 1..=16).await;
    say_planned(&typed, term).await;
    assert_eq!(prune(&typed).await, 0, "sixteen small ones stay");
    submit(&typed, 17..=18).await;
    say_planned(&typed, term).await;
    assert_eq!(prune(&typed).await, 2);
    assert_eq!(numbers(&typed).await, (3..=18).collect::<Vec<_>>());
    let texts = format!("/{}.revisions/", p.trim_matches('/'));
    let keys = store.kv.keys(&texts).await.expect("a read").kvs;
    assert_eq!(keys.len(), 2 * 16, "each text, and where it comes from");
    assert_eq!(prune(&typed).await, 0, "and once is enough");
}

async fn what_is_assigned_or_gone_back_to_stays(store: Store, p: String) {
    let typed = typed(&store.kv, &p);
    let term = elect(&typed).await;
    submit(&typed, 1..=1).await;
    let mirror = typed.read_all().await.expect("a read");
    let decided = plan(&mirror.cluster().snapshot);
    typed.commit(term, &mirror, &decided).await.expect("a commit");
    submit(&typed, 2..=3).await;
    let text = |mirror: &fleetd::store::Mirror| {
        Box::new((*mirror.cluster().snapshot.units[&web()]).clone())
    };
    let good = text(&typed.read_all().await.expect("a read"));
    submit(&typed, 4..=5).await;
    let tried = text(&typed.read_all().await.expect("a read"));
    let rollout = Some(Rollout {
        v: FORMAT,
        state: State::Rolling,
        text: tried,
        good: Some(good),
        since_ms: 1,
        failure: None,
        course: None,
        unknown: Unknown::new(),
    });
    typed.put_rollouts(term, &[(&web(), &rollout)], None).await.expect("a rollout");
    submit(&typed, 6..=25).await;
    say_planned(&typed, term).await;
    assert_eq!(prune(&typed).await, 6);
    let stay: Vec<u64> = [1, 3, 5].into_iter().chain(10..=25).collect();
    assert_eq!(numbers(&typed).await, stay);
    // Texts that an import brought with other comments alone: the one to go back to is further off.
    for number in 26..=45 {
        let old = typed.unit_revision(&web()).await.expect("a read");
        let text = format!("# {number}\n{}", record(25).text);
        let record = UnitRecord { text, ..record(number) };
        typed.put_unit(&record, old, true).await.expect("a write");
    }
    say_planned(&typed, term).await;
    assert_eq!(prune(&typed).await, 0);
    assert!(numbers(&typed).await.contains(&24));
}

async fn what_the_leader_may_still_assign_stays(store: Store, p: String) {
    let typed = typed(&store.kv, &p);
    let term = elect(&typed).await;
    submit(&typed, 1..=2).await;
    say_planned(&typed, term).await;
    submit(&typed, 3..=40).await;
    // It planned with the second, so it may assign that one and all that came later.
    assert_eq!(prune(&typed).await, 1);
    assert_eq!(numbers(&typed).await, (2..=40).collect::<Vec<_>>());
    say_planned(&typed, term).await;
    assert_eq!(prune(&typed).await, 23);
    assert_eq!(numbers(&typed).await, (25..=40).collect::<Vec<_>>());
}

async fn thousands_that_an_older_version_kept_go_a_few_at_a_time(store: Store, p: String) {
    let typed = typed(&store.kv, &p);
    let term = elect(&typed).await;
    submit(&typed, 1..=130).await;
    say_planned(&typed, term).await;
    let mut gone = Vec::new();
    while gone.last() != Some(&0) {
        gone.push(prune(&typed).await);
    }
    assert_eq!(gone, [50, 50, 14, 0]);
    assert_eq!(numbers(&typed).await, (115..=130).collect::<Vec<_>>());
}

async fn a_unit_that_was_destroyed_and_submitted_again_loses_nothing(store: Store, p: String) {
    let typed = typed(&store.kv, &p);
    let term = elect(&typed).await;
    submit(&typed, 1..=20).await;
    say_planned(&typed, term).await;
    let before = typed.read_all().await.expect("a read");
    let old = typed.unit_revision(&web()).await.expect("a read").expect("a unit");
    typed.delete_unit(&web(), old).await.expect("destroyed");
    submit(&typed, 1..=20).await;
    // A look that is older than all of it.
    typed.prune_texts(&BTreeSet::from([web()]), &before).await.expect("pruned");
    assert_eq!(numbers(&typed).await, (1..=20).collect::<Vec<_>>());
}
