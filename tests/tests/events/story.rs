//! What is told, once, whoever leads, and never by somebody who leads no longer.

use expect_test::expect;
use fleet_core::event::{Item, What};
use fleet_core::model::{FORMAT, Move, Unknown};
use fleet_core::name::{MachineId, UnitName};
use fleet_core::wire::LostMachine;
use fleetd::leader::event_log::resign;
use fleetd::store::{Mirror, StoreError};

use crate::cluster::{Cluster, NOW_MS};

const SLEEPER: &str = "[Service]\nExecStart=/bin/sleep 1d\n";

fn names(ids: &[&str]) -> Vec<String> {
    ids.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn a_clusters_story_is_told_with_reasons_and_once() {
    let mut cluster = Cluster::start().await;
    cluster.join(names(&["a", "bb"])).await;
    let mut leader = cluster.elect("a").await;
    cluster.submit("web@.service", Some(3), SLEEPER).await;
    leader.tick(&cluster).await.unwrap();
    let other = "[Service]\nExecStart=/bin/sleep 2d\n[X-Fleet]\nMaxUnavailable=100%\n";
    cluster.submit("web@.service", Some(3), other).await;
    cluster
        .submit("ssd.service", None, &format!("{SLEEPER}[X-Fleet]\nMachineMetadata=disk=ssd\n"))
        .await;
    leader.tick(&cluster).await.unwrap();
    // At the time of its placement, so that it is still in the pause before a failing unit moves.
    cluster.give_up("bb", &["web@2.service"]).await;
    leader.tick(&cluster).await.unwrap();
    leader.reopen(&cluster).await;
    leader.tick(&cluster).await.unwrap();
    // The next leader repeats nothing, and tells what happened while nobody led.
    leader.fall_silent().await;
    cluster.lose("bb").await;
    let mut leader = cluster.elect("a").await;
    leader.tick(&cluster).await.unwrap();
    resign(&cluster.store, leader.term, &MachineId::new("a"), NOW_MS).await.unwrap();
    leader.fall_silent().await;
    cluster.join(names(&["bb"])).await;
    cluster.leave("bb").await;
    cluster.join(names(&["ccc"])).await;
    let mut leader = cluster.elect("ccc").await;
    leader.tick(&cluster).await.unwrap();
    cluster.leave("a").await;
    leader.tick(&cluster).await.unwrap();
    expect![[r#"
        machine a leads: the first to do so
        machine a registered: 10.0.0.1
        machine bb registered: 10.0.0.2
        placed web@{1,3}.service on a: fewest units of the machines that fit
        placed web@2.service on bb: fewest units of the machines that fit
        no machine can run ssd.service: lacks the metadata disk=ssd
        updated web@{1,3}.service on a: text 1 to 2
        updated web@2.service on bb: text 1 to 2
        web@2.service gave up on bb: exit-code (7) after 5 restarts
        machine a leads: after machine a, which fell silent
        machine bb was lost: it ran 1 unit
        placed web@2.service on a: machine bb was lost
        took web@2.service off bb: the machine was lost
        machine a leads no longer: it stops
        machine ccc leads: after machine a
        machine ccc registered: 10.0.0.3
        machine bb left: it ran nothing
        machine a left: it ran 3 units
        took web@{1-3}.service off a: the machine left
        placed web@{1-3}.service on ccc: machine a left"#]]
    .assert_eq(&cluster.told(0).await);
    let events = cluster.events().await;
    assert!(events.iter().all(|event| event.left_out == 0 && event.term > 0));
    assert!(
        events.is_sorted_by_key(|event| (event.term, event.id.clone())),
        "they are named in order"
    );
    assert!(
        events
            .iter()
            .filter(|event| event.items.iter().any(|i| i.what == What::Placed))
            .all(|event| event.plan.len() == 12)
    );
}

#[tokio::test]
async fn a_lost_machine_is_remembered_with_what_moved_off_it_also_by_the_next_leader() {
    let mut cluster = Cluster::start().await;
    cluster.join(names(&["a", "bb", "ccc", "eeeee", "idle"])).await;
    let mut leader = cluster.elect("a").await;
    cluster.submit("web@.service", Some(5), SLEEPER).await;
    cluster.submit("own.service", None, &format!("{SLEEPER}[X-Fleet]\nMachineID=bb\n")).await;
    leader.tick(&cluster).await.unwrap();
    cluster.lose("bb").await;
    leader.tick_at(&cluster, NOW_MS).await.unwrap();
    cluster.lose("idle").await;
    leader.tick_at(&cluster, NOW_MS + 1_000).await.unwrap();
    let told = async |cluster: &Cluster, now_ms| {
        let line = |lost: LostMachine| {
            let moved: Vec<String> = lost
                .moved
                .iter()
                .map(|moved| format!("{} to {:?}", moved.name, moved.machine_id))
                .collect();
            let (id, ip, moved) = (lost.id, lost.primary_ip, moved.join(", "));
            format!("{id} {ip} {} s ago: {moved}", (now_ms - lost.lost_ms) / 1_000)
        };
        let lost = cluster.mirror().await.cluster().lost(now_ms);
        lost.into_iter().map(line).collect::<Vec<_>>().join("\n")
    };
    let both = "idle 10.0.0.4 4 s ago: web@4.service to \"ccc\"\n\
        bb 10.0.0.2 5 s ago: own.service to \"\", web@5.service to \"a\"";
    assert_eq!(told(&cluster, NOW_MS + 5_000).await, both);
    // The next leader keeps what the last one wrote, and a restart of the log forgets nothing.
    leader.fall_silent().await;
    let mut leader = cluster.elect("a").await;
    leader.tick_at(&cluster, NOW_MS + 4_000).await.unwrap();
    leader.reopen(&cluster).await;
    leader.tick_at(&cluster, NOW_MS + 4_500).await.unwrap();
    assert_eq!(told(&cluster, NOW_MS + 5_000).await, both);
    cluster.join(names(&["idle"])).await;
    assert!(told(&cluster, NOW_MS + 5_000).await.starts_with("bb"), "one is back");
    assert_eq!(told(&cluster, NOW_MS + 3_600_000).await, "", "an hour has passed");
}

#[tokio::test]
async fn a_move_is_granted_once_by_whoever_leads_and_a_refusal_is_kept_for_who_asked() {
    let mut cluster = Cluster::start().await;
    cluster.join(names(&["a", "bb"])).await;
    let mut leader = cluster.elect("a").await;
    cluster.submit("web.service", None, SLEEPER).await;
    leader.tick(&cluster).await.unwrap();
    let web = UnitName::trusted("web.service");
    let ask = async |cluster: &Cluster, to: &str| {
        let (to, by, unknown) = (MachineId::new(to), "root@h1".to_string(), Unknown::new());
        let wish = Move { v: FORMAT, to, by, at_ms: NOW_MS, unknown };
        cluster.store.put_move(&web, &wish).await.unwrap().expect("room")
    };
    let place = async |cluster: &Cluster| {
        let mirror = cluster.mirror().await;
        let all = &mirror.cluster().snapshot;
        let holds = all.assignments.iter().find(|(_, one)| one.instances.contains_key(&web));
        (holds.unwrap().0.to_string(), all.moves.len())
    };
    ask(&cluster, "bb").await;
    // The leader moves it and dies before it has deleted the wish.
    leader.tick(&cluster).await.unwrap();
    assert_eq!(place(&cluster).await, ("bb".to_string(), 1));
    leader.fall_silent().await;
    let mut leader = cluster.elect("bb").await;
    leader.tick(&cluster).await.unwrap();
    assert_eq!(place(&cluster).await, ("bb".to_string(), 0));
    // A refused one is deleted, too, and told.
    let wish = ask(&cluster, "z").await;
    leader.tick(&cluster).await.unwrap();
    leader.tick(&cluster).await.unwrap();
    assert_eq!(place(&cluster).await, ("bb".to_string(), 0));
    let mirror = cluster.mirror().await;
    let refused = &mirror.cluster().outlook.as_ref().unwrap().refused;
    let said: Vec<(i64, &str)> = refused.iter().map(|one| (one.wish, one.says.as_str())).collect();
    assert_eq!(said, [(wish, "that machine is not there")]);
    assert!(mirror.cluster().is_planned(wish));
}

#[tokio::test]
async fn a_steady_cluster_writes_nothing() {
    let mut cluster = Cluster::start().await;
    cluster.join(names(&["a", "b"])).await;
    let mut leader = cluster.elect("a").await;
    cluster.submit("web@.service", Some(10), SLEEPER).await;
    leader.tick(&cluster).await.unwrap();
    leader.tick(&cluster).await.unwrap();
    let revision = cluster.revision().await;
    for _ in 0..10 {
        leader.tick(&cluster).await.unwrap();
        leader.reopen(&cluster).await;
    }
    assert_eq!(cluster.revision().await, revision);
}

#[tokio::test]
async fn who_leads_no_longer_tells_nothing_any_more() {
    let mut cluster = Cluster::start().await;
    cluster.join(names(&["a", "b"])).await;
    let mut old = cluster.elect("a").await;
    old.tick(&cluster).await.unwrap();
    old.fall_silent().await;
    let mut new = cluster.elect("b").await;
    new.tick(&cluster).await.unwrap();
    let told = cluster.told(0).await;
    // Both with a decision and with mere news.
    cluster.join(names(&["c"])).await;
    assert!(matches!(old.tick(&cluster).await, Err(StoreError::Conflict(_))));
    cluster.submit("db.service", None, SLEEPER).await;
    assert!(matches!(old.tick(&cluster).await, Err(StoreError::Conflict(_))));
    assert!(matches!(
        resign(&cluster.store, old.term, &MachineId::new("a"), NOW_MS).await,
        Err(StoreError::Conflict(_))
    ));
    assert_eq!(cluster.told(0).await, told);
    assert!(cluster.mirror().await.cluster().snapshot.assignments.is_empty());
}

#[tokio::test]
async fn a_commit_that_conflicts_between_two_of_its_transactions_is_finished_by_the_next_look_and_told_once()
 {
    const MACHINES: usize = 300; // more than two transactions hold
    let mut cluster = Cluster::start().await;
    let ids: Vec<String> = (0..MACHINES).map(|i| format!("{i:032x}")).collect();
    cluster.join(ids.clone()).await;
    let mut leader = cluster.elect(&ids[0]).await;
    cluster.submit("old@.service", Some(MACHINES as u32), SLEEPER).await;
    leader.tick(&cluster).await.unwrap();
    cluster.submit("web@.service", Some(2 * MACHINES as u32), SLEEPER).await;
    let (mirror, from) = (cluster.mirror().await, cluster.events().await.len());
    cluster.touch_assignment(&ids[MACHINES - 1]).await;
    assert!(matches!(leader.tick_on(&mirror).await, Err(StoreError::Conflict(_))));
    let placed = |mirror: &Mirror| {
        let all = mirror
            .cluster()
            .snapshot
            .assignments
            .values()
            .flat_map(|a| a.instances.keys().cloned())
            .collect::<Vec<_>>();
        all.into_iter().filter(|name| name.as_str().starts_with("web@")).collect::<Vec<_>>()
    };
    let written = placed(&cluster.mirror().await).len();
    assert!(written > 0 && written < 2 * MACHINES, "{written} were written before the conflict");
    leader.tick(&cluster).await.unwrap();
    let mut names = placed(&cluster.mirror().await);
    assert_eq!(names.len(), 2 * MACHINES);
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 2 * MACHINES, "each once");
    let events = cluster.events().await;
    let told = events[from..]
        .iter()
        .flat_map(|event| &event.items)
        .filter(|item| item.what == What::Placed);
    assert_eq!(told.map(Item::instances).sum::<usize>(), 2 * MACHINES);
    let revision = cluster.revision().await;
    leader.tick(&cluster).await.unwrap();
    assert_eq!(cluster.revision().await, revision, "nothing was left to do");
}
