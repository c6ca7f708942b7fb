//! What the leader's last plan says to those who wait. The leader writes it down, so that every
//! machine's API tells the leader's word and plans nothing of its own.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::event::{Gathered, Numbers, Reason, reason};
use crate::model::{FORMAT, Snapshot, Unknown, is_zero};
use crate::name::{MachineId, UnitName};
use crate::plan::{Change, Plan, Retired};
use crate::wire::MisfitCount;

/// The largest such document, in bytes. What is left out is waited for, without a word why.
const MAX_BYTES: usize = 256 * 1024;

/// How long a lost machine is remembered, in milliseconds: an hour.
pub const LOST_FOR_MS: u64 = 3_600_000;

/// For how long a refusal is remembered, in milliseconds: who asked for the move waits for it.
const REFUSED_FOR_MS: u64 = 300_000;

/// How many refusals are remembered, the last ones.
const MAX_REFUSED: usize = 50;

/// How many lost machines are remembered, the last ones.
const MAX_LOST: usize = 20;

/// How much room the names of what a lost machine ran may take, in bytes; the rest is counted.
const MAX_LOST_BYTES: usize = 1024;

/// What an entry takes beside its texts: keys, quotes, brackets and commas.
const ENTRY_BYTES: usize = 96;

/// `outlook`: what waits, what fits no machine, and why. Written by the leader, when it changes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Outlook {
    /// The format, [`FORMAT`].
    pub v: u32,
    /// In which term: the revision that created the leader key.
    pub term: i64,
    /// The leader has planned, and written, everything that was asked up to this revision.
    pub planned: i64,
    /// Whether absent machines get time to return. Until it is over nothing is said to fit no
    /// machine: what does not fit now may fit one of those.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub settling: bool,
    /// What fits no machine.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nowhere: Vec<Nowhere>,
    /// What waits for its unit's budget.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rolling: Vec<Rolling>,
    /// What starts once another unit is healthy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needing: Vec<Rolling>,
    /// Fenced instances that wait for the end of another copy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<Held>,
    /// Set while so many machines are missing that what they ran is moved slowly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slowed: Option<Slowed>,
    /// Machines that were lost within the last hour, and have not come back, in the order in which
    /// they were lost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<Lost>,
    /// Wishes for moves that were refused within the last minutes, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<Refused>,
    /// How many entries did not fit into the document.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: u64,
    /// What a later version wrote.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// Instances that fit no machine for the same reasons.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Nowhere {
    /// The instances.
    pub units: Instances,
    /// Each reason with the number of machines that it holds for, most machines first.
    pub why: Vec<MisfitCount>,
}

/// Instances of one unit that wait, for its budget or for another unit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Rolling {
    /// The instances.
    pub units: Instances,
    /// What they wait for, in words: all that an older version reads.
    pub says: String,
    /// The same as data.
    #[serde(default, deserialize_with = "reason::read", skip_serializing_if = "Option::is_none")]
    pub why: Option<Reason>,
}

/// A fenced instance that waits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Held {
    /// The instance.
    pub instance: UnitName,
    /// Where another copy of it may be alive.
    pub machine: MachineId,
    /// What it waits for, in words: all that an older version reads.
    pub says: String,
    /// The same as data.
    #[serde(default, deserialize_with = "reason::read", skip_serializing_if = "Option::is_none")]
    pub why: Option<Reason>,
}

/// Machines that are given up one at a time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Slowed {
    /// For people.
    pub says: String,
    /// How many machines are missing that should run something.
    #[serde(default)]
    pub missing: usize,
    /// How many are there.
    #[serde(default)]
    pub there: usize,
    /// Those that are not given up yet, in the order in which they will be.
    pub waits: Vec<MachineId>,
    /// When the first of them is given up, in milliseconds since 1970.
    pub next_ms: u64,
}

/// A wish for a move that was refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Refused {
    /// The instance.
    pub instance: UnitName,
    /// The wish: the revision at which it was written.
    pub wish: i64,
    /// When it was refused, in milliseconds since 1970.
    pub at_ms: u64,
    /// Why, in words.
    pub says: String,
}

/// A machine that was lost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lost {
    /// The machine.
    pub machine: MachineId,
    /// The address that it was known by; empty if it is not known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub address: String,
    /// When it was given up, in milliseconds since 1970.
    pub at_ms: u64,
    /// What moved off it, as far as there is room.
    #[serde(default)]
    pub units: Instances,
    /// How many instances moved off it.
    #[serde(default)]
    pub instances: u64,
}

/// Instances by name: replicas by their template with their numbers, all others by their own name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Instances(BTreeMap<UnitName, Numbers>);

impl Instances {
    fn of<'a>(instances: impl IntoIterator<Item = &'a UnitName>) -> Instances {
        let mut gathered = Gathered::default();
        instances.into_iter().for_each(|instance| gathered.add(instance));
        Instances(gathered.into_units())
    }

    /// All of them, by name.
    pub fn names(&self) -> impl Iterator<Item = UnitName> {
        let replicas = |(unit, numbers): (&UnitName, &Numbers)| {
            let named = numbers.is_empty().then(|| unit.clone());
            let replicas: Vec<UnitName> =
                numbers.iter().map(|number| unit.replica(number)).collect();
            named.into_iter().chain(replicas)
        };
        self.0.iter().flat_map(replicas)
    }

    /// Adds instances as far as they fit into so many bytes.
    fn add(&mut self, more: &[&UnitName], most: usize) {
        let there: Vec<UnitName> = self.names().collect();
        let mut gathered = Instances::of(there.iter().chain(more.iter().copied()));
        let mut room = most;
        gathered.0.retain(|unit, numbers| match room.checked_sub(bytes(unit, numbers)) {
            Some(rest) => {
                room = rest;
                true
            }
            None => false,
        });
        *self = gathered;
    }

    /// Whether the instance is one of them.
    pub fn holds(&self, instance: &UnitName) -> bool {
        match (instance.template(), instance.replica_number()) {
            (Some(template), Some(number)) => {
                self.0.get(&template).is_some_and(|numbers| numbers.contains(number))
            }
            _ => self.0.contains_key(instance),
        }
    }

    /// Keeps those that are also among `others`.
    fn retain(&mut self, others: &[&Instances]) {
        self.0.retain(|unit, numbers| {
            let mut there = others.iter().filter_map(|others| others.0.get(unit));
            if numbers.is_empty() {
                return there.next().is_some();
            }
            let still: Vec<&Numbers> = there.collect();
            *numbers = numbers
                .iter()
                .filter(|number| still.iter().any(|still| still.contains(*number)))
                .collect();
            !numbers.is_empty()
        });
    }
}

impl Rolling {
    /// What they wait for; words alone if an older version wrote it.
    pub fn reason(&self) -> Reason {
        self.why.clone().unwrap_or_else(|| self.says[..].into())
    }
}

impl Lost {
    /// Whether it is remembered at that time.
    pub fn is_recent(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.at_ms) < LOST_FOR_MS
    }
}

impl Held {
    /// What it waits for; words alone if an older version wrote it.
    pub fn reason(&self) -> Reason {
        self.why.clone().unwrap_or_else(|| self.says[..].into())
    }
}

impl Outlook {
    /// What a plan of that term, of a snapshot at the revision `planned`, says. While absent
    /// machines get time to return (`settling`), nothing fits no machine that did not before, in
    /// this term: `before` is what was written then.
    pub fn of(
        plan: &Plan,
        term: i64,
        planned: i64,
        settling: bool,
        before: Option<&Outlook>,
    ) -> Outlook {
        let mut outlook = Outlook { v: FORMAT, term, planned, settling, ..Outlook::default() };
        let mut room = Room { bytes: MAX_BYTES, left_out: 0 };
        for held in &plan.held {
            let why = Reason::from(held);
            let said = why.to_string();
            let bytes = 2 * held.instance.as_str().len() + said.len() + bytes_of(&why);
            let held = Held {
                instance: held.instance.clone(),
                machine: held.machine.clone(),
                says: said,
                why: Some(why),
            };
            if room.has(bytes) {
                outlook.held.push(held);
            }
        }
        for rolling in &plan.rolling {
            let why = Reason::from(rolling);
            let (says, data) = (why.to_string(), bytes_of(&why));
            let rolling = Rolling { units: Instances::of(&rolling.waiting), says, why: Some(why) };
            let instances: usize =
                rolling.units.0.iter().map(|(unit, numbers)| bytes(unit, numbers)).sum();
            if room.has(instances + rolling.says.len() + data) {
                outlook.rolling.push(rolling);
            }
        }
        for needing in &plan.needing {
            let why = Reason::from(needing);
            let (says, data) = (why.to_string(), bytes_of(&why));
            let units = Instances::of(&needing.instances);
            let names: usize = units.0.iter().map(|(unit, numbers)| bytes(unit, numbers)).sum();
            if room.has(names + says.len() + data) {
                outlook.needing.push(Rolling { units, says, why: Some(why) });
            }
        }
        outlook.slowed = plan.slowed.as_ref().map(|slowed| Slowed {
            says: slowed.to_string(),
            missing: slowed.missing,
            there: slowed.there,
            waits: slowed.waits.clone(),
            next_ms: slowed.next_ms,
        });
        for mut nowhere in nowhere(plan) {
            if settling {
                let before = before.map_or(&[][..], |before| &before.nowhere);
                nowhere.units.retain(&before.iter().map(|one| &one.units).collect::<Vec<_>>());
            }
            let why: usize = nowhere.why.iter().map(bytes_of).sum();
            room.bytes = room.bytes.saturating_sub(why + ENTRY_BYTES);
            nowhere.units.0.retain(|unit, numbers| room.has(bytes(unit, numbers)));
            if !nowhere.units.0.is_empty() {
                outlook.nowhere.push(nowhere);
            }
        }
        outlook.left_out = room.left_out;
        outlook
    }

    /// Remembers the machines that were `lost` (with the address of each), of which it is
    /// remembered `before`, and what the plan takes off them. Forgets those that are there again,
    /// and those that are too many or too long ago.
    pub fn remember(
        &mut self,
        before: &[Lost],
        lost: impl IntoIterator<Item = (MachineId, String)>,
        plan: &Plan,
        snapshot: &Snapshot,
    ) {
        let now_ms = snapshot.now_ms;
        let keeps =
            |lost: &&Lost| !snapshot.machines.contains_key(&lost.machine) && lost.is_recent(now_ms);
        self.lost = before.iter().filter(keeps).cloned().collect();
        for (machine, address) in lost {
            self.lost.retain(|known| known.machine != machine);
            let (units, instances) = (Instances::default(), 0);
            self.lost.push(Lost { machine, address, at_ms: now_ms, units, instances });
        }
        self.lost.drain(..self.lost.len().saturating_sub(MAX_LOST));
        if self.lost.is_empty() {
            return;
        }
        let mut moved: BTreeMap<&MachineId, Vec<&UnitName>> = BTreeMap::new();
        for change in &plan.changes {
            if let Change::Retire { instance, machine, why: Retired::Lost } = change {
                moved.entry(machine).or_default().push(instance);
            }
        }
        for lost in &mut self.lost {
            if let Some(instances) = moved.remove(&lost.machine) {
                lost.instances += instances.len() as u64;
                lost.units.add(&instances, MAX_LOST_BYTES);
            }
        }
    }

    /// Remembers the wishes for moves that the plan refuses, beside those that were refused
    /// `before`.
    pub fn refuse(&mut self, before: &[Refused], plan: &Plan, now_ms: u64) {
        let fresh = plan.answered.iter().filter_map(|(instance, answered)| {
            let (wish, says) = (answered.wish, answered.refused.as_ref()?.to_string());
            Some(Refused { instance: instance.clone(), wish, at_ms: now_ms, says })
        });
        let is_recent = |one: &&Refused| now_ms.saturating_sub(one.at_ms) < REFUSED_FOR_MS;
        self.refused = before.iter().filter(is_recent).cloned().collect();
        for one in fresh {
            // Until it is deleted it is refused in each plan, and told once.
            if self.refused.iter().all(|known| known.wish != one.wish) {
                self.refused.push(one);
            }
        }
        self.refused.drain(..self.refused.len().saturating_sub(MAX_REFUSED));
    }

    /// Whether it says the same, whatever has been planned since.
    pub fn says_the_same(&self, other: &Outlook) -> bool {
        let Outlook {
            term,
            settling,
            nowhere,
            rolling,
            needing,
            held,
            slowed,
            lost,
            refused,
            left_out,
            ..
        } = self;
        (term, settling, nowhere) == (&other.term, &other.settling, &other.nowhere)
            && (rolling, needing, held) == (&other.rolling, &other.needing, &other.held)
            && *slowed == other.slowed
            && (lost, refused, *left_out) == (&other.lost, &other.refused, other.left_out)
    }

    /// Why no machine can run the instance, if none can.
    pub fn misfits(&self, instance: &UnitName) -> Option<&[MisfitCount]> {
        let holds = |nowhere: &&Nowhere| nowhere.units.holds(instance);
        self.nowhere.iter().find(holds).map(|nowhere| &nowhere.why[..])
    }

    /// What the instance waits for before it is changed or moved: its unit's budget, or the end of
    /// another copy.
    pub fn waits(&self, instance: &UnitName) -> Option<Reason> {
        let rolling = self.rolling.iter().find(|rolling| rolling.units.holds(instance));
        let held = || self.held.iter().find(|held| held.instance == *instance);
        let needing = || self.needing.iter().find(|needing| needing.units.holds(instance));
        let rolling = rolling.or_else(needing);
        rolling.map(Rolling::reason).or_else(|| held().map(Held::reason))
    }

    /// Whether the instance waits for its unit's budget.
    pub fn is_rolling(&self, instance: &UnitName) -> bool {
        self.rolling.iter().any(|rolling| rolling.units.holds(instance))
    }
}

/// What fits no machine, gathered by the reasons for it.
fn nowhere(plan: &Plan) -> Vec<Nowhere> {
    let mut all: Vec<(Vec<MisfitCount>, Vec<&UnitName>)> = Vec::new();
    let mut known: BTreeMap<String, usize> = BTreeMap::new();
    for unplaced in &plan.unplaced {
        let counted = unplaced.misfits.iter();
        let counted = counted.map(|(misfit, machines)| MisfitCount::new(misfit, *machines));
        let why: Vec<MisfitCount> = counted.collect();
        let text: String =
            why.iter().map(|why| format!("{} {}\n", why.machines, why.reason)).collect();
        let at = *known.entry(text).or_insert_with(|| {
            all.push((why, Vec::new()));
            all.len() - 1
        });
        all[at].1.extend(&unplaced.instances);
    }
    let gathered = |(why, instances): (Vec<MisfitCount>, Vec<&UnitName>)| Nowhere {
        units: Instances::of(instances),
        why,
    };
    all.into_iter().map(gathered).collect()
}

/// How much of the document is left.
struct Room {
    bytes: usize,
    left_out: u64,
}

impl Room {
    /// Takes the room of an entry, if there is enough.
    fn has(&mut self, bytes: usize) -> bool {
        match self.bytes.checked_sub(bytes + ENTRY_BYTES) {
            Some(rest) => self.bytes = rest,
            None => self.left_out += 1,
        }
        self.left_out == 0
    }
}

/// How much room it takes as JSON.
fn bytes_of(value: &impl Serialize) -> usize {
    // Nothing of a reason can fail to be written.
    serde_json::to_string(value).map_or(0, |text| text.len())
}

fn bytes(unit: &UnitName, numbers: &Numbers) -> usize {
    2 * unit.as_str().len() + numbers.to_string().len() // a backslash takes two bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::script::snapshot;
    use crate::plan::{Unplaced, plan};

    fn fit_nowhere(instances: &[&str]) -> Plan {
        let unplaced = |name: &&str| Unplaced {
            unit: UnitName::trusted(*name),
            instances: vec![UnitName::trusted(*name)],
            misfits: Vec::new(),
        };
        Plan { unplaced: instances.iter().map(unplaced).collect(), ..Plan::default() }
    }

    fn held(outlook: &Outlook, names: &[&str]) -> Vec<bool> {
        names.iter().map(|name| outlook.misfits(&UnitName::trusted(*name)).is_some()).collect()
    }

    #[test]
    fn while_machines_may_return_only_what_fitted_nowhere_before_fits_nowhere() {
        let before = fit_nowhere(&["web@1.service", "web@2.service", "db.service", "old.service"]);
        let before = Outlook::of(&before, 7, 1, false, None);
        let read: Outlook = serde_json::from_value(serde_json::to_value(&before).unwrap()).unwrap();
        assert_eq!(read, before);
        let later = fit_nowhere(&["web@2.service", "web@3.service", "db.service", "new.service"]);
        let names =
            ["web@1.service", "web@2.service", "web@3.service", "db.service", "new.service"];
        let now = Outlook::of(&later, 7, 2, true, Some(&before));
        assert_eq!(held(&now, &names), [false, true, false, true, false]);
        let now = Outlook::of(&later, 7, 2, true, None);
        assert_eq!(held(&now, &names), [false; 5]);
        let now = Outlook::of(&later, 7, 2, false, Some(&before));
        assert_eq!(held(&now, &names), [false, true, true, true, true]);
    }

    #[test]
    fn a_lost_machine_is_remembered_for_an_hour_with_what_moved_off_it() {
        let seen = |machines: &str, now_ms: u64| {
            let text = format!("{machines}\nunit web@.service x3\nunit db.service");
            Snapshot { now_ms, ..snapshot(&text) }
        };
        let id = || MachineId::new("b");
        let retire = |instance: &str| Change::Retire {
            instance: UnitName::trusted(instance),
            machine: id(),
            why: Retired::Lost,
        };
        let changes = vec![retire("web@1.service"), retire("web@3.service"), retire("db.service")];
        let first = Plan { changes, ..Plan::default() };
        let mut now = Outlook::default();
        now.remember(&[], [(id(), "10.0.0.2".to_string())], &first, &seen("machine a", 1_000));
        let [lost] = &now.lost[..] else { panic!("{now:?}") };
        assert_eq!((lost.at_ms, lost.instances, lost.address.as_str()), (1_000, 3, "10.0.0.2"));
        let names: Vec<String> = lost.units.names().map(|name| name.to_string()).collect();
        assert_eq!(names, ["db.service", "web@1.service", "web@3.service"]);
        // A fenced one follows later.
        let second = Plan { changes: vec![retire("web@2.service")], ..Plan::default() };
        let mut later = Outlook::default();
        later.remember(&now.lost, [], &second, &seen("machine a", 2_000));
        assert_eq!(later.lost[0].instances, 4);
        assert!(later.lost[0].units.holds(&UnitName::trusted("web@2.service")));
        assert!(!later.says_the_same(&now));
        let kept = |machines: &str, now_ms: u64| {
            let mut outlook = Outlook::default();
            outlook.remember(&later.lost, [], &Plan::default(), &seen(machines, now_ms));
            outlook.lost.len()
        };
        assert_eq!(kept("machine a", 1_000 + LOST_FOR_MS - 1), 1);
        assert_eq!(kept("machine a", 1_000 + LOST_FOR_MS), 0);
        assert_eq!(kept("machine a\nmachine b", 3_000), 0, "it is back");
    }

    #[test]
    fn what_is_remembered_of_lost_machines_is_bounded() {
        let names: Vec<UnitName> =
            (0..1000).map(|n| UnitName::trusted(format!("unit-{n}.service"))).collect();
        let mut outlook = Outlook::default();
        for machine in 0..50 {
            let machine = MachineId::new(format!("m{machine}"));
            let retire = |instance: &UnitName| Change::Retire {
                instance: instance.clone(),
                machine: machine.clone(),
                why: Retired::Lost,
            };
            let plan = Plan { changes: names.iter().map(retire).collect(), ..Plan::default() };
            let before = std::mem::take(&mut outlook.lost);
            let lost = [(machine.clone(), String::new())];
            outlook.remember(&before, lost, &plan, &snapshot("machine a"));
        }
        assert_eq!(outlook.lost.len(), MAX_LOST);
        assert_eq!(outlook.lost.last().unwrap().machine, MachineId::new("m49"));
        assert!(outlook.lost.iter().all(|lost| lost.instances == 1000));
        assert!(serde_json::to_vec(&outlook).unwrap().len() < MAX_LOST * 2 * MAX_LOST_BYTES);
    }

    #[test]
    fn ten_thousand_long_names_fill_no_document() {
        let names: Vec<String> =
            (0..10_000).map(|n| format!("{n}-{}.service", "x".repeat(200))).collect();
        let plan = fit_nowhere(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let outlook = Outlook::of(&plan, 7, 1, false, None);
        assert!(serde_json::to_vec(&outlook).unwrap().len() <= MAX_BYTES + 400);
        let named: usize = outlook.nowhere.iter().map(|nowhere| nowhere.units.0.len()).sum();
        assert!(named > 0);
        assert_eq!(named as u64 + outlook.left_out, 10_000);
    }

    #[test]
    fn replicas_that_fit_nowhere_for_the_same_reasons_are_one_entry_with_these_reasons() {
        let seen = snapshot(
            "machine a\nmachine b\nunit web@.service x3 | MachineMetadata=disk=ssd\n\
             unit db.service | MachineMetadata=disk=ssd",
        );
        let outlook = Outlook::of(&plan(&seen), 7, 1, false, None);
        let [nowhere] = &outlook.nowhere[..] else { panic!("{outlook:?}") };
        assert_eq!(
            serde_json::to_value(nowhere).unwrap(),
            serde_json::json!({
                "units": {"db.service": "", "web@.service": "1-3"},
                "why": [{
                    "reason": "lacks the metadata disk=ssd", "machines": 2,
                    "kind": "lacks", "key": "disk", "values": ["ssd"],
                }],
            })
        );
    }

    #[test]
    fn what_waits_for_its_budget_is_told_as_data_and_by_an_older_leader_in_words() {
        let seen = snapshot(
            "machine a\nunit web@.service x2 rev=2 | MaxUnavailable=1\n\
             on a: web@1.service/rev=1 web@2.service/rev=1\nruns a: web@1.service web@2.service",
        );
        let outlook = Outlook::of(&plan(&seen), 7, 1, false, None);
        let waits = |outlook: &Outlook| outlook.waits(&UnitName::trusted("web@2.service")).unwrap();
        let reason = Reason::Rolling { waiting: 1, unavailable: 1, wanted: 2, most: Some(1) };
        assert_eq!(waits(&outlook), reason);
        let mut written = serde_json::to_value(&outlook).unwrap();
        let read: Outlook = serde_json::from_value(written.clone()).unwrap();
        assert_eq!(read, outlook);
        written["rolling"][0].as_object_mut().unwrap().remove("why");
        let older: Outlook = serde_json::from_value(written).unwrap();
        assert_eq!(waits(&older), Reason::Said { text: reason.to_string() });
    }
}
