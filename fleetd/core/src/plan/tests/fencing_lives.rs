//! At most one live copy, tried on random histories: a naive cluster runs what it is assigned, by
//! the rules that its hosts enforce.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;

use super::super::plan;
use super::super::script::{applied, snapshot};
use crate::fence::{ANSWER_MS, Silence};
use crate::model::{InstanceStatus, KeeperState, Report, Snapshot};
use crate::name::{MachineId, UnitName};

const CLUSTER: &str = "machine a r=1
    machine b r=1
    machine c r=2
    unit db.service | Fence=yes
    unit app.service | Fence=yes | MachineOf=db.service
    unit pin.service | Fence=yes | MachineMetadata=r=1
    unit web@.service x2 | Fence=yes
    unit plain.service";

/// `TimeoutStopSec=` of these units, and the guards' `WatchdogSec=`, in milliseconds.
const STOP_MS: u64 = 90_000;
const WATCHDOG_MS: u64 = 8_000;

#[derive(Debug, Clone)]
enum Event {
    /// The leader plans.
    Plan,
    /// Another one leads.
    NewLeader,
    /// The machine's agent reads its assignment: it stops what is not in it, and starts what its
    /// keeper allows.
    Agent(usize),
    /// … and reports.
    Report(usize),
    /// The machine's lease ends, or it is back.
    Machine(usize, bool),
    /// The keeper's lease ends, or it registers.
    Keeper(usize, bool),
    /// A label changes, so that units must move.
    Label(usize, u8),
    /// A unit is destroyed, or submitted again.
    Unit(usize, bool),
    /// Time passes, in milliseconds.
    Time(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let machine = 0..3usize;
    prop_oneof![
        4 => Just(Event::Plan),
        1 => Just(Event::NewLeader),
        3 => machine.clone().prop_map(Event::Agent),
        3 => machine.clone().prop_map(Event::Report),
        2 => (machine.clone(), any::<bool>()).prop_map(|(m, there)| Event::Machine(m, there)),
        2 => (machine.clone(), any::<bool>()).prop_map(|(m, held)| Event::Keeper(m, held)),
        1 => (machine, 1..3u8).prop_map(|(m, r)| Event::Label(m, r)),
        1 => (0..5usize, any::<bool>()).prop_map(|(u, there)| Event::Unit(u, there)),
        3 => prop_oneof![0..10_000u64, 0..200_000u64].prop_map(Event::Time),
    ]
}

struct Run {
    all: Snapshot,
    now: Snapshot,
    silence: Silence,
    /// The last generation that each agent acted on.
    read: BTreeMap<MachineId, u64>,
    /// Copies that may be alive, with the time at which systemd has surely ended them, once it
    /// began.
    alive: BTreeMap<(UnitName, MachineId), Option<u64>>,
}

impl Run {
    fn new() -> Run {
        let all = snapshot(CLUSTER);
        Run {
            now: all.clone(),
            all,
            silence: Silence::default(),
            read: BTreeMap::new(),
            alive: BTreeMap::new(),
        }
    }

    fn machine(&self, index: usize) -> MachineId {
        self.all.machines.keys().nth(index).unwrap().clone()
    }

    fn happen(&mut self, event: &Event) {
        match event {
            Event::Plan => {
                self.silence.note(&mut self.now);
                let planned = plan(&self.now);
                self.now = applied(&self.now, &planned);
            }
            Event::NewLeader => self.silence = Silence::default(),
            Event::Agent(m) => self.act(&self.machine(*m)),
            Event::Report(m) => self.report(&self.machine(*m)),
            Event::Machine(m, true) => {
                let id = self.machine(*m);
                self.now
                    .machines
                    .entry(id.clone())
                    .or_insert_with(|| self.all.machines[&id].clone());
            }
            Event::Machine(m, false) => {
                let id = self.machine(*m);
                self.now.machines.remove(&id);
                self.now.reports.remove(&id); // it is under the same lease
            }
            Event::Keeper(m, held) => self.keeper(self.machine(*m), *held),
            Event::Label(m, r) => {
                if let Some(machine) = self.now.machines.get_mut(&self.machine(*m)) {
                    Arc::make_mut(machine).metadata.insert("r".into(), r.to_string());
                }
            }
            Event::Unit(u, there) => {
                let (name, unit) = self.all.units.iter().nth(*u).unwrap();
                match there {
                    true => self.now.units.insert(name.clone(), unit.clone()),
                    false => self.now.units.remove(name),
                };
            }
            Event::Time(ms) => self.now.now_ms += ms,
        }
        self.now.revision += 1;
        let now_ms = self.now.now_ms;
        self.alive.retain(|_, dead_at| dead_at.is_none_or(|at| at > now_ms));
    }

    fn act(&mut self, id: &MachineId) {
        let Some(assignment) = self.now.assignments.get(id) else { return };
        self.read.insert(id.clone(), assignment.generation);
        self.alive.retain(|(name, on), _| on != id || assignment.instances.contains_key(name));
        if self.now.keepers.get(id).is_some_and(|keeper| keeper.held) {
            let fenced =
                assignment.instances.iter().filter(|(_, placement)| placement.fence.is_some());
            self.alive.extend(fenced.map(|(name, _)| ((name.clone(), id.clone()), None)));
        }
    }

    /// What the agent saw when it last acted: a machine that is not there reports nothing.
    fn report(&mut self, id: &MachineId) {
        let (Some(generation), true) = (self.read.get(id), self.now.machines.contains_key(id))
        else {
            return;
        };
        let here = self.alive.keys().filter(|(_, on)| on == id);
        let instances = here.map(|(name, _)| (name.clone(), InstanceStatus::default())).collect();
        self.now.reports.insert(
            id.clone(),
            Arc::new(Report { generation: *generation, instances, ..Report::default() }),
        );
    }

    /// systemd begins to stop what is bound to the guard at the latest when an answer on its way
    /// and the watchdog are over.
    fn keeper(&mut self, id: MachineId, held: bool) {
        let revision = self.now.revision;
        let keeper = self.now.keepers.entry(id.clone()).or_default();
        if held && !keeper.held {
            *keeper = KeeperState {
                life: revision,
                held,
                watchdog_ms: WATCHDOG_MS,
                ..KeeperState::default()
            };
        } else if !held && keeper.held {
            keeper.held = false;
            let dead_at = self.now.now_ms + ANSWER_MS + WATCHDOG_MS + STOP_MS;
            let here = self.alive.iter_mut().filter(|((_, on), _)| *on == id);
            here.for_each(|(_, at)| *at = at.or(Some(dead_at)));
        }
    }

    fn twice(&self) -> Option<&UnitName> {
        let mut seen = BTreeSet::new();
        self.alive.keys().map(|(name, _)| name).find(|name| !seen.insert(*name))
    }

    /// All is well again, and everybody does their work, for as long as any wait takes.
    fn heal(&mut self) {
        for (name, unit) in self.all.units.clone() {
            self.now.units.insert(name, unit);
        }
        for m in 0..3 {
            [Event::Machine(m, true), Event::Keeper(m, true), Event::Label(m, 1)]
                .iter()
                .for_each(|event| self.happen(event));
        }
        for _ in 0..8 {
            self.happen(&Event::Plan);
            (0..3).for_each(|m| {
                [Event::Agent(m), Event::Report(m)].iter().for_each(|event| self.happen(event))
            });
            self.happen(&Event::Time(60_000));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_history_gives_a_fenced_unit_two_live_copies_and_every_history_heals(events in prop::collection::vec(event(), 1..80)) {
        let mut run = Run::new();
        for event in &events {
            run.happen(event);
            prop_assert_eq!(run.twice(), None, "after {:?}", event);
        }
        run.heal();
        prop_assert_eq!(run.twice(), None);
        prop_assert_eq!(run.alive.len(), 5, "{:?}", run.alive);
    }
}
