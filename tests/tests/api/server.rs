//! fleetd's own API over the embedded store, on loopback, with one machine. Who plans and reports
//! is the test's choice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fleet_core::model::{FORMAT, InstanceStatus, Leader, Machine, Report};
use fleet_core::name::{MachineId, UnitName};
use fleet_core::outlook::Outlook;
use fleet_core::plan::plan;
use fleet_core::rollout::{State, advance};
use fleetd::api::{Api, router};
use fleetd::store::embedded::EmbeddedKv;
use fleetd::store::{Mirror, Registration, Store, Term};
use fleetd::systemd::quadlet::Generator;

/// The machine of fleet 1.0's transcripts.
pub(crate) const MACHINE: &str = "c2e1b5180a5ec645aa037c911a0f20bb";

/// Where podman's generator is looked for.
const GENERATOR: &str = "quadlet";

/// Longer than any test; nobody renews the leases.
const TTL: Duration = Duration::from_secs(3600);

/// A running API. It ends with the test.
pub(crate) struct Server {
    /// `http://127.0.0.1:PORT`.
    pub(crate) origin: String,
    /// What the API serves from.
    pub(crate) store: Store,
    registration: Registration,
    term: Term,
    folder: tempfile::TempDir,
}

impl Server {
    /// Serves an empty cluster of one machine, labelled `node=a`.
    pub(crate) async fn start() -> Server {
        Server::start_with(|router| router).await
    }

    /// The same, with something around the routes.
    pub(crate) async fn start_with(around: impl FnOnce(axum::Router) -> axum::Router) -> Server {
        let folder = tempfile::tempdir().expect("a folder");
        let kv = EmbeddedKv::open(folder.path().join("store.redb")).await.expect("a store");
        let store = Store::new(Arc::new(kv), "/fleet/");
        let id = MachineId::new(MACHINE);
        let metadata = BTreeMap::from([("node".into(), "a".into())]);
        let machine = Machine { metadata, ..crate::machine(MACHINE, None) };
        let lease = store.grant(TTL).await.expect("a lease");
        let registration = store.register(&machine, lease).await.expect("registered");
        let leader = Leader { v: FORMAT, machine: id.clone(), since_ms: 0 };
        let term =
            store.campaign(&leader, lease).await.expect("an election").expect("nobody else leads");
        let api = Api::new(store.clone(), id, || "# no counters\n".to_string());
        let api = api.with_generator(Generator::at(
            folder.path().join(GENERATOR),
            folder.path().join("scratch"),
        ));
        let origin = crate::serve(around(router(api))).await;
        Server { origin, store, registration, term, folder }
    }

    /// Puts a shell script in the place of podman's generator. There is none before.
    pub(crate) fn generate_by(&self, script: &str) {
        // Written by another process: a program that a process of ours still has open for writing,
        // by a fork, cannot be run.
        let program = self.folder.path().join(GENERATOR);
        let recipe = format!(
            "cat > '{0}' <<'END' && chmod +x '{0}'\n#!/bin/sh\n{script}\nEND\n",
            program.display()
        );
        let done = std::process::Command::new("sh").args(["-c", &recipe]).status();
        assert!(done.expect("sh runs").success());
    }

    /// Does what a leader does once.
    pub(crate) async fn plan(&self) {
        let mirror = self.store.read_all().await.expect("a snapshot");
        let plan = plan(&mirror.cluster().snapshot);
        self.store.commit(self.term, &mirror, &plan).await.expect("a commit");
    }

    /// Submits a unit that runs from then on.
    pub(crate) async fn run(&self, name: &str) {
        let body = r#"{"desiredState":"launched","options":[{"section":"Service","name":"ExecStart","value":"/bin/sleep 1"}]}"#;
        let url = format!("{}/fleet/v1/units/{name}", self.origin);
        let request = fleet_tests::http()
            .build()
            .unwrap()
            .put(url)
            .header("content-type", "application/json")
            .body(body);
        request.send().await.expect("an answer").error_for_status().expect("a unit");
        self.plan().await;
        self.report(&[name]).await;
    }

    /// Plans whenever anything changes.
    pub(crate) async fn lead(self: Arc<Server>) {
        let revision = self.store.read_all().await.expect("a snapshot").cluster().snapshot.revision;
        let mut changes = self.store.watch_all(revision).await.expect("a watch");
        while let Some(Ok(_)) = changes.recv().await {
            self.plan().await;
        }
    }

    /// Leads from now on, in the background, and says what it plans.
    pub(crate) async fn lead_aloud(self: &Arc<Server>) {
        let revision = self.speak().await;
        let server = self.clone();
        let mut changes = self.store.watch_all(revision).await.expect("a watch");
        tokio::spawn(async move {
            while let Some(Ok(_)) = changes.recv().await {
                server.speak().await;
            }
        });
    }

    /// Plans once, and says so if there is anything to say. Answers with the revision that it saw.
    async fn speak(&self) -> i64 {
        let mirror = self.store.read_all().await.expect("a snapshot");
        let (cluster, term) = (mirror.cluster(), self.term.create_revision);
        let revision = cluster.snapshot.revision;
        let planned = plan(&cluster.snapshot);
        let outlook = Outlook::of(&planned, term, revision, false, None);
        let said = cluster.outlook.as_ref();
        let is_news =
            said.is_none_or(|said| said.planned < mirror.asked() || !said.says_the_same(&outlook));
        self.store.commit(self.term, &mirror, &planned).await.expect("a commit");
        if is_news {
            self.store.tell(self.term, None, Some(&outlook), &[]).await.expect("a word");
        }
        revision
    }

    /// Waits until the unit is assigned to the machine.
    pub(crate) async fn assigned(&self, name: &str) {
        let mut seen = self.store.read_all().await.expect("a snapshot");
        let mut changes =
            self.store.watch_all(seen.cluster().snapshot.revision).await.expect("a watch");
        let is_there = |seen: &Mirror| {
            let assignments = &seen.cluster().snapshot.assignments;
            assignments.get(MACHINE).is_some_and(|there| there.instances.contains_key(name))
        };
        while !is_there(&seen) {
            seen.apply(changes.recv().await.expect("a change").expect("a store"));
        }
    }

    /// Registers another machine.
    pub(crate) async fn join(&self, id: &str) {
        let lease = self.store.grant(TTL).await.expect("a lease");
        self.store.register(&crate::machine(id, None), lease).await.expect("registered");
    }

    /// Takes rollouts further, as the leader does. `Some`: to this state.
    pub(crate) async fn roll(&self, to: Option<State>) {
        let mirror = self.store.read_all().await.expect("a snapshot");
        let cluster = mirror.cluster();
        let mut rollouts = advance(&cluster.snapshot, &cluster.rollouts).documents;
        for rollout in rollouts.values_mut().flatten() {
            rollout.state = to.unwrap_or(rollout.state);
        }
        let rollouts: Vec<_> = rollouts.iter().collect();
        self.store.put_rollouts(self.term, &rollouts, None).await.expect("rollouts");
    }

    /// Reports these units as running, and nothing else.
    pub(crate) async fn report(&self, running: &[&str]) {
        let cluster = self.store.read_all().await.expect("a snapshot");
        let assigned = cluster.cluster().snapshot.assignments.get(MACHINE);
        let status = |name: &UnitName| InstanceStatus {
            load: "loaded".into(),
            active: "active".into(),
            sub: "running".into(),
            hash: assigned
                .and_then(|a| a.instances.get(name))
                .map(|placement| placement.hash.clone())
                .unwrap_or_default(),
            launched: true,
            ..InstanceStatus::default()
        };
        let names = running.iter().map(|name| UnitName::parse(name).expect("a name"));
        let instances = names.map(|name| (name.clone(), status(&name))).collect();
        let report = Report { v: FORMAT, generation: 1, instances, ..Report::default() };
        let machine = MachineId::new(MACHINE);
        let last = self.store.report_revision(&machine).await.expect("a store");
        self.store.put_report(&machine, &report, self.registration, last).await.expect("a report");
    }
}
