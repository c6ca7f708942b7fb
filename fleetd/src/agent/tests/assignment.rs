//! Which assignment counts, and when.

use super::*;

/// A store that shows this assignment, or none.
fn shown(assignment: Option<&Arc<Assignment>>) -> Newest {
    watch::channel(Shown { assignment: assignment.cloned(), as_of: 1, answered: true }).1
}

#[tokio::test]
async fn nothing_is_started_before_the_machines_id_is_known_to_be_its_own_nor_while_another_has_it()
{
    let mut host = Host::new().await;
    let placement = host.text("a.service", 1, OLD).await;
    let instances = BTreeMap::from([(UnitName::trusted("a.service"), placement)]);
    let newest =
        shown(Some(&Arc::new(Assignment { generation: 1, instances, ..Assignment::default() })));
    let mut jobs = host.sim.changes();
    let registered =
        |create_revision| Standing::Own(Some(Registration { lease: LeaseId(1), create_revision }));
    for (standing, runs) in [
        (Standing::NoAnswer, false),
        (Standing::Asked, false),
        (Standing::Taken, false),
        (Standing::Vacant, false),
        (Standing::Own(None), false),
        // The store was seen at revision 1: that was the other one's assignment.
        (registered(2), false),
        (registered(1), true),
        (Standing::Taken, true),
    ] {
        host.agent.tick(host.now_ms, &newest, standing).await;
        jobs.wait_for(|_| host.sim.jobs_in_flight() == 0).await.unwrap();
        host.now_ms += 1_000;
        assert_eq!(host.running() == "a.service", runs, "{standing:?}");
    }
    assert_eq!(host.running(), "a.service", "who loses the id stops nothing");
    host.agent.tick(host.now_ms, &shown(Some(&Arc::default())), Standing::Taken).await;
    assert_eq!(host.running(), "a.service");
}

#[tokio::test]
async fn what_ran_by_another_machine_id_is_stopped_once_the_store_says_that_nothing_is_assigned_to_this_one()
 {
    let mut host = Host::new().await;
    let placement = host.text("a.service", 1, OLD).await;
    host.run(&[("a.service", &placement)]).await;
    let run_dir = host.folder.path().join("run");
    let mut jobs = host.sim.changes();
    for (id, standing, runs) in [
        ("m", Standing::Own(None), true),
        ("new", Standing::NoAnswer, true),
        ("new", Standing::Own(None), false),
    ] {
        let agent = Agent::new(
            MachineId::new(id),
            host.store.clone(),
            Arc::new(host.sim.clone()),
            &run_dir,
        );
        host.agent = agent.unwrap();
        for _ in 0..3 {
            host.now_ms += 1_000;
            host.agent.tick(host.now_ms, &shown(None), standing).await;
            jobs.wait_for(|_| host.sim.jobs_in_flight() == 0).await.unwrap();
        }
        assert_eq!(host.running() == "a.service", runs, "{id} {standing:?}");
    }
}
