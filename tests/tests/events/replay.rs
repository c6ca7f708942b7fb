//! A saved snapshot gives the plan that the leader committed, byte for byte.

use std::process::Command;

use fleet_core::replay::Saved;

use crate::cluster::Cluster;

#[tokio::test]
async fn a_saved_snapshot_gives_what_the_leader_wrote_byte_for_byte() {
    let mut cluster = Cluster::start().await;
    cluster.join(["a", "b", "c"].map(String::from)).await;
    let mut leader = cluster.elect("a").await;
    cluster
        .submit(
            "web@.service",
            Some(7),
            "[Service]\nExecStart=/bin/w\n[X-Fleet]\nConflicts=db.service\n",
        )
        .await;
    cluster
        .submit("db.service", None, "[Service]\nExecStart=/bin/d\nEnvironment=PASSWORD=secret\n")
        .await;
    leader.tick(&cluster).await.unwrap();
    cluster.lose("b").await;
    cluster.give_up("c", &["web@1.service"]).await;
    leader.tick(&cluster).await.unwrap().expect("a commit");

    let stored = cluster.mirror().await;
    let event = cluster.events().await.pop().unwrap();
    let saved = leader.engine.replays.find(Some(&event.plan)).expect("the leader keeps it");
    assert!(leader.engine.replays.find(Some("0123456789ab")).is_none());
    // Through a file, as `fleetctl debug snapshot` does it.
    let text = serde_json::to_string(&*saved).unwrap();
    assert!(!text.contains("secret"), "a unit's text is in it");
    let read: Saved = serde_json::from_str(&text).unwrap();
    let plan = read.replay();
    assert_eq!((plan.digest(), read.term), (event.plan, leader.term.create_revision));
    assert!(!plan.documents.is_empty());
    for (machine, document) in &plan.documents {
        let written = &stored.cluster().snapshot.assignments[machine];
        assert_eq!(
            serde_json::to_vec(document).unwrap(),
            serde_json::to_vec(&**written).unwrap(),
            "of {machine}"
        );
    }
    // Another time, or a machine more, is another plan: the digest tells.
    let mut other = read.clone();
    other.snapshot.now_ms += 1;
    assert_ne!(other.replay().digest(), read.plan);
    fleetctl_plans_the_same(&text, &plan.digest());
}

/// And so does the tool, in a process of its own.
fn fleetctl_plans_the_same(saved: &str, digest: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("snapshot.json");
    std::fs::write(&file, saved).unwrap();
    let read: Saved = serde_json::from_str(saved).unwrap();
    let fleetctl = std::env::current_exe().unwrap().parent().unwrap().join("../fleetctl");
    let output = Command::new(&fleetctl)
        .args(["--json", "debug", "replay"])
        .arg(&file)
        .output()
        .expect("`make test` builds fleetctl");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains(digest), "{said}");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).trim_end(),
        serde_json::to_string(&read.replay()).unwrap()
    );
}
