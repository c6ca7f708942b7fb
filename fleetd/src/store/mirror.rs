//! Everything under the root at one revision, which a watch can bring up to date (`copy.rs`).

use std::collections::BTreeMap;
use std::sync::Arc;

use fleet_core::app::{AppName, Application};
use fleet_core::configuration::Configuration;
use fleet_core::model::{
    Act, Availability, Fence, Keeper, KeeperState, Leader, Machine, Move, Reboots, Settings, Unit,
    UnitRecord, Wish,
};
use fleet_core::name::MachineId;
use fleet_core::view::Cluster;
use serde::de::DeserializeOwned;

use super::import;
use super::keys::{Key, Keys};
use super::kv::{KeyValue, Range, WatchBatch, WatchEvent};

/// Everything in the store at one revision, with what a commit must compare.
#[derive(Debug, Clone)]
pub struct Mirror {
    keys: Keys,
    cluster: Cluster,
    /// Each machine as it registered, before the operator's settings.
    machines: BTreeMap<MachineId, Machine>,
    settings: BTreeMap<MachineId, Settings>,
    /// The configurations that can be read: who plans has no use for them.
    configurations: BTreeMap<AppName, Arc<Configuration>>,
    /// The rules and locks of reboots: who plans has no use for them.
    reboots: Arc<Reboots>,
    /// Whether an import is decided, and not yet carried out.
    importing: bool,
    /// The revision that created each machine's key: a new one is a new registration.
    machines_created: BTreeMap<MachineId, i64>,
    /// Of each keeper that holds its lease, the boot that it is of.
    keeper_boots: BTreeMap<MachineId, String>,
    /// The revision of each assignment's last change.
    assignment_revisions: BTreeMap<MachineId, i64>,
    /// The revision of the last commit that placed anything fenced.
    fenced_commit: Option<i64>,
    /// What users did and nobody has told, by id.
    acts: BTreeMap<String, Arc<Act>>,
    /// The revision of the last change of anything but the leader's own word.
    changed: i64,
    /// Documents that cannot be read, with what is wrong. While there are any, nobody should plan.
    corrupt: BTreeMap<String, String>,
    /// Documents of applications that cannot be read, with what is wrong. Nothing is planned by
    /// them.
    corrupt_apps: BTreeMap<AppName, String>,
    /// See [`Mirror::passed_over`].
    passed_over: BTreeMap<String, String>,
}

impl Mirror {
    pub(super) fn load(keys: &Keys, range: Range) -> Mirror {
        let mut mirror = Mirror {
            keys: keys.clone(),
            cluster: Cluster::default(),
            machines: BTreeMap::new(),
            settings: BTreeMap::new(),
            configurations: BTreeMap::new(),
            reboots: Arc::default(),
            importing: false,
            machines_created: BTreeMap::new(),
            keeper_boots: BTreeMap::new(),
            assignment_revisions: BTreeMap::new(),
            fenced_commit: None,
            acts: BTreeMap::new(),
            changed: range.revision,
            corrupt: BTreeMap::new(),
            corrupt_apps: BTreeMap::new(),
            passed_over: BTreeMap::new(),
        };
        for kv in range.kvs {
            mirror.put(kv);
        }
        mirror.cluster.snapshot.revision = range.revision;
        mirror
    }

    /// Takes one revision's changes.
    pub fn apply(&mut self, batch: WatchBatch) {
        let (outlook, acts) = (self.keys.outlook(), self.keys.acts());
        let is_word = |event: &WatchEvent| match event {
            WatchEvent::Put(kv) => kv.key == outlook,
            // An act goes when the leader has told it.
            WatchEvent::Delete(key) => *key == outlook || key.starts_with(&acts),
        };
        if !batch.events.iter().all(is_word) {
            self.changed = batch.revision;
        }
        for event in batch.events {
            match event {
                WatchEvent::Put(kv) => self.put(kv),
                WatchEvent::Delete(key) => self.delete(&key, batch.revision),
            }
        }
        self.cluster.snapshot.revision = batch.revision;
    }

    /// Frees it, but not in front of an answer: tens of thousands of documents take as long to free
    /// as to read.
    pub fn drop_later(self) {
        drop(tokio::task::spawn_blocking(move || drop(self)));
    }

    /// What is mirrored. Its snapshot's time and settling machines are the reader's to fill in.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The revision of an assignment's last change; `None` if there is no such document.
    pub fn assignment_revision(&self, machine: &MachineId) -> Option<i64> {
        self.assignment_revisions.get(machine).copied()
    }

    /// The revision of the last commit that placed anything fenced; `None` if there was none.
    pub fn fenced_commit(&self) -> Option<i64> {
        self.fenced_commit
    }

    /// The revision of the newest write by users that it has seen; the leader says once it has
    /// planned that ([`Outlook::planned`](fleet_core::outlook::Outlook)).
    pub fn asked(&self) -> i64 {
        self.cluster.asked
    }

    /// What users did and nobody has told, by id, in the order in which they did it as far as their
    /// clocks say.
    pub fn acts(&self) -> &BTreeMap<String, Arc<Act>> {
        &self.acts
    }

    /// The revision of the last change that it has seen of anything but the leader's own word,
    /// which is nothing to plan for.
    pub fn changed(&self) -> i64 {
        self.changed
    }

    /// Documents that cannot be read, and why.
    pub fn corrupt(&self) -> &BTreeMap<String, String> {
        &self.corrupt
    }

    /// What is wrong with an application's document, if it cannot be read.
    pub fn corrupt_app(&self, name: &AppName) -> Option<&str> {
        self.corrupt_apps.get(name).map(String::as_str)
    }

    /// Documents that are passed over, since their keys name no unit and no machine, or since a
    /// report cannot be read, and why.
    pub fn passed_over(&self) -> &BTreeMap<String, String> {
        &self.passed_over
    }

    /// Whether an import is half-way. Nobody should plan or answer then, but finish it: see
    /// [`Store::finish_import`](super::Store::finish_import).
    pub fn importing(&self) -> bool {
        self.importing
    }

    /// What an operator set for machines.
    pub fn settings(&self) -> &BTreeMap<MachineId, Settings> {
        &self.settings
    }

    /// The configurations.
    pub fn configurations(&self) -> &BTreeMap<AppName, Arc<Configuration>> {
        &self.configurations
    }

    /// The rules and locks of reboots; none if they cannot be read. For figures: who gives leave
    /// reads them from the store itself.
    pub fn reboots(&self) -> &Reboots {
        &self.reboots
    }

    /// The revision that created each present machine's key.
    pub fn machines_created(&self) -> &BTreeMap<MachineId, i64> {
        &self.machines_created
    }

    fn put(&mut self, kv: KeyValue) {
        let Some(key) = self.keys.read(&kv.key) else { return };
        if let Key::Unit(_) | Key::Settings(_) | Key::Move(_) = &key {
            self.cluster.asked = self.cluster.asked.max(kv.mod_revision);
        }
        let read = match key {
            Key::Misnamed(_, problem) => {
                self.passed_over.insert(kv.key, problem);
                return;
            }
            Key::Unit(name) => parse::<UnitRecord>(&kv.value).map(|record| {
                self.cluster
                    .snapshot
                    .units
                    .insert(name.clone(), Arc::new(Unit::from_record(&record)));
                self.cluster.units_written.insert(name.clone(), kv.mod_revision);
                self.cluster.records.insert(name, Arc::new(record));
            }),
            Key::App(name) => {
                self.forget_app(&name);
                match parse::<Application>(&kv.value) {
                    Ok(app) => drop(self.cluster.apps.insert(name, Arc::new(app))),
                    Err(problem) => drop(self.corrupt_apps.insert(name, problem)),
                }
                return;
            }
            Key::Settings(id) => parse(&kv.value).map(|settings: Settings| {
                match settings.availability {
                    Availability::Active => self.cluster.snapshot.availability.remove(&id),
                    other => self.cluster.snapshot.availability.insert(id.clone(), other),
                };
                match settings.evicts_at_ms() {
                    None => self.cluster.snapshot.evictions.remove(&id),
                    Some(at_ms) => self.cluster.snapshot.evictions.insert(id.clone(), at_ms),
                };
                match settings.note.clone().filter(|_| !settings.availability.is_active()) {
                    None => self.cluster.notes.remove(&id),
                    Some(note) => self.cluster.notes.insert(id.clone(), note),
                };
                self.settings.insert(id.clone(), settings);
                self.cluster.settings_written.insert(id.clone(), kv.mod_revision);
                self.merge(&id);
            }),
            // For exports alone: one that cannot be read must keep nobody from planning.
            Key::Config(name) => {
                match parse::<Configuration>(&kv.value) {
                    Ok(config) => self.configurations.insert(name, Arc::new(config)),
                    Err(_) => self.configurations.remove(&name),
                };
                Ok(())
            }
            // Likewise: a wish that nobody can read is granted by nobody.
            Key::Move(instance) => {
                match parse::<Move>(&kv.value) {
                    Ok(wish) => {
                        let wish = Wish { to: wish.to, revision: kv.mod_revision };
                        self.cluster.snapshot.moves.insert(instance, wish);
                    }
                    Err(_) => drop(self.cluster.snapshot.moves.remove(&instance)),
                }
                Ok(())
            }
            Key::Machine(id) => parse(&kv.value).map(|machine| {
                self.machines_created.insert(id.clone(), kv.create_revision);
                self.machines.insert(id.clone(), machine);
                self.compare_boots(&id);
                self.merge(&id);
            }),
            Key::Assignment(id) => parse(&kv.value).map(|assignment| {
                self.cluster.snapshot.assignments.insert(id.clone(), Arc::new(assignment));
                self.assignment_revisions.insert(id, kv.mod_revision);
            }),
            // One machine's broken report keeps nobody from planning for the others: it is as if
            // that machine had not reported yet.
            Key::Report(id) => {
                match parse(&kv.value) {
                    Ok(report) => {
                        self.passed_over.remove(&kv.key);
                        self.cluster.snapshot.reports.insert(id, Arc::new(report));
                    }
                    Err(problem) => {
                        self.cluster.snapshot.reports.remove(&id);
                        self.passed_over.insert(kv.key.clone(), problem);
                    }
                }
                Ok(())
            }
            Key::Left(id) => {
                self.cluster.snapshot.left.insert(id);
                Ok(())
            }
            Key::Rival(_) => Ok(()), // for that machine's fleetd alone
            Key::Reboots => {
                self.reboots = parse(&kv.value).map(Arc::new).unwrap_or_default();
                return;
            }
            Key::Keeper(id) => parse::<Keeper>(&kv.value).map(|keeper| {
                self.keeper(id.clone()).held = true;
                self.keeper_boots.insert(id.clone(), keeper.boot_id);
                self.compare_boots(&id);
            }),
            Key::Fence(id) => parse::<Fence>(&kv.value).map(|fence| {
                let keeper = self.keeper(id);
                (keeper.life, keeper.watchdog_ms, keeper.released) =
                    (kv.mod_revision, fence.watchdog_ms, fence.released);
            }),
            Key::FencedCommits => {
                self.fenced_commit = Some(kv.mod_revision);
                Ok(())
            }
            Key::Leader => parse::<Leader>(&kv.value).map(|leader| {
                self.cluster.leader = Some(leader);
                self.cluster.term = kv.create_revision;
            }),
            // Only for those who wait, who wait on where it cannot be read; the leader writes it
            // again when it changes.
            Key::Outlook => {
                self.cluster.outlook = parse(&kv.value).ok();
                Ok(())
            }
            // What cannot be read is written again when it changes; a leader of this version knows
            // no rollout until then.
            Key::Rollout(name) => {
                match parse(&kv.value) {
                    Ok(rollout) => self.cluster.rollouts.insert(name, Arc::new(rollout)),
                    Err(_) => self.cluster.rollouts.remove(&name),
                };
                Ok(())
            }
            // For people only: what cannot be read keeps nobody from planning.
            Key::Act(id) => {
                let act = parse::<Act>(&kv.value).ok();
                self.acts.extend(act.map(|act| (id, Arc::new(act))));
                return;
            }
            Key::Import => import::is_decided(&kv.value).map(|decided| self.importing = decided),
        };
        match read {
            Ok(()) => self.corrupt.remove(&kv.key),
            Err(problem) => self.corrupt.insert(kv.key, problem),
        };
    }

    fn delete(&mut self, key: &str, revision: i64) {
        self.corrupt.remove(key);
        match self.keys.read(key) {
            Some(Key::Unit(name)) => {
                self.cluster.asked = self.cluster.asked.max(revision);
                self.cluster.snapshot.units.remove(&name);
                self.cluster.units_written.remove(&name);
                self.cluster.records.remove(&name);
            }
            Some(Key::App(name)) => self.forget_app(&name),
            Some(Key::Settings(id)) => {
                self.cluster.asked = self.cluster.asked.max(revision);
                self.settings.remove(&id);
                self.cluster.settings_written.remove(&id);
                self.cluster.snapshot.availability.remove(&id);
                self.cluster.snapshot.evictions.remove(&id);
                self.cluster.notes.remove(&id);
                self.merge(&id);
            }
            Some(Key::Config(name)) => drop(self.configurations.remove(&name)),
            Some(Key::Move(instance)) => drop(self.cluster.snapshot.moves.remove(&instance)),
            Some(Key::Machine(id)) => {
                self.machines.remove(&id);
                self.machines_created.remove(&id);
                self.compare_boots(&id);
                self.merge(&id);
            }
            Some(Key::Assignment(id)) => {
                self.cluster.snapshot.assignments.remove(&id);
                self.assignment_revisions.remove(&id);
            }
            Some(Key::Report(id)) => {
                self.passed_over.remove(key);
                self.cluster.snapshot.reports.remove(&id);
            }
            Some(Key::Left(id)) => {
                self.cluster.snapshot.left.remove(&id);
            }
            Some(Key::Keeper(id)) => {
                self.keeper_boots.remove(&id);
                self.keeper(id.clone()).held = false;
                self.compare_boots(&id);
            }
            // Somebody who knows that the machine will not return took it away by hand.
            Some(Key::Fence(id)) => {
                self.cluster.snapshot.keepers.remove(&id);
            }
            Some(Key::FencedCommits) => self.fenced_commit = None,
            Some(Key::Leader) => self.cluster.leader = None,
            Some(Key::Outlook) => self.cluster.outlook = None,
            Some(Key::Rollout(name)) => drop(self.cluster.rollouts.remove(&name)),
            Some(Key::Act(id)) => drop(self.acts.remove(&id)),
            Some(Key::Import) => self.importing = false,
            Some(Key::Misnamed(..)) => drop(self.passed_over.remove(key)),
            Some(Key::Reboots) => self.reboots = Arc::default(),
            Some(Key::Rival(_)) | None => {}
        }
    }

    fn forget_app(&mut self, name: &AppName) {
        self.cluster.apps.remove(name);
        self.corrupt_apps.remove(name);
    }

    fn keeper(&mut self, id: MachineId) -> &mut KeeperState {
        self.cluster.snapshot.keepers.entry(id).or_default()
    }

    /// A machine in the snapshot is what it registered as, with the operator's settings on top.
    /// Notes whether the keeper that holds its lease is of the boot that is registered. Keepers
    /// that do not say theirs are taken to be.
    fn compare_boots(&mut self, id: &MachineId) {
        let keeper = self.keeper_boots.get(id).filter(|boot_id| !boot_id.is_empty());
        let machine = self.machines.get(id).map(|machine| &machine.boot_id);
        let machine = machine.filter(|boot_id| !boot_id.is_empty());
        let differ = keeper.zip(machine).is_some_and(|(keeper, machine)| keeper != machine);
        if let Some(keeper) = self.cluster.snapshot.keepers.get_mut(id) {
            keeper.of_another_boot = differ;
        }
    }

    fn merge(&mut self, id: &MachineId) {
        let Some(machine) = self.machines.get(id) else {
            self.cluster.snapshot.machines.remove(id);
            return;
        };
        let mut merged = machine.clone();
        if let Some(settings) = self.settings.get(id) {
            merged.metadata = settings.merged_metadata(machine);
        }
        self.cluster.snapshot.machines.insert(id.clone(), Arc::new(merged));
    }
}

/// Reads a document; the error is for an operator's eyes.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|error| error.to_string())
}
