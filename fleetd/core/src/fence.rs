//! Fenced units (`Fence=yes`): at most one live copy. When a copy that cannot be asked has surely
//! ended.
//!
//! A fenced unit is bound to its machine's guard, which tells systemd's watchdog that it lives only
//! after the keeper's lease was renewed. So when the keeper's key is gone from the store, systemd
//! ends the units within [`wait_ms`], whatever else is broken there. The whole argument, with what
//! it does not cover, is docs/fencing.md.

use std::collections::BTreeMap;

use crate::model::{Assignment, Fenced, Snapshot};
use crate::name::{MachineId, UnitName};

mod commands;
mod rules;

pub use rules::refusals;

/// An answer to a renewal that took longer than this, in milliseconds, does not count: the guard's
/// ping follows the sending of what it stands for by no more.
pub const ANSWER_MS: u64 = 2_000;

/// What is added to every wait, in milliseconds: systemd on a busy host acts late by this much at
/// most.
pub const SLACK_MS: u64 = 5_000;

/// How far the clocks' rates of two machines may differ, in percent. NTP slews by 0.05 at most;
/// crystals are off by 0.01.
pub const CLOCK_RATE_PERCENT: u64 = 1;

/// Whether a fenced copy on a machine that cannot be asked has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Surely, if the keeper's life is still this one when that is written down.
    Surely(i64),
    /// Not yet: in so many milliseconds, if the keeper stays away.
    In(u64),
    /// The keeper holds its lease, so the copy may well run.
    Held,
    /// Nobody can say: it waits for a unit whose stop may take for ever.
    Never,
}

/// How long after the keeper's key was seen gone the last process of a unit may live, in
/// milliseconds.
pub fn wait_ms(watchdog_ms: u64, stop_ms: u64) -> u64 {
    let wait = ANSWER_MS.saturating_add(watchdog_ms).saturating_add(stop_ms);
    wait.saturating_add(wait.saturating_mul(CLOCK_RATE_PERCENT).div_ceil(100))
        .saturating_add(SLACK_MS)
}

/// Whether `instance`, fenced as `fence` says, has ended on `machine`, judged by the machine's
/// keeper alone.
pub fn ended(
    snapshot: &Snapshot,
    machine: &MachineId,
    instance: &UnitName,
    fence: &Fenced,
) -> Ended {
    let Some(keeper) = snapshot.keepers.get(machine) else {
        return Ended::Surely(0); // without a keeper nothing fenced ever started there
    };
    if keeper.held {
        return Ended::Held;
    }
    if keeper.released {
        return Ended::Surely(keeper.life);
    }
    let stop_ms = longest_stop_ms(snapshot, machine, instance, fence);
    if stop_ms == u64::MAX {
        return Ended::Never;
    }
    match wait_ms(keeper.watchdog_ms, stop_ms).saturating_sub(keeper.silent_ms) {
        0 => Ended::Surely(keeper.life),
        left => Ended::In(left),
    }
}

/// How long the stop of `instance` on `machine` may take: its own, and before it that of the units
/// that start after it, and so on.
fn longest_stop_ms(
    snapshot: &Snapshot,
    machine: &MachineId,
    instance: &UnitName,
    fence: &Fenced,
) -> u64 {
    let Some(assignment) = snapshot.assignments.get(machine) else { return fence.stop_ms };
    let ordered = ordered(snapshot, assignment);
    fence.stop_ms.saturating_add(waits_for(&ordered, instance))
}

/// A unit with what its stop takes and what it starts after.
type Ordered<'a> = Vec<(&'a UnitName, u64, Vec<UnitName>)>;

/// The units of `assignment` that start after others.
fn ordered<'a>(snapshot: &'a Snapshot, assignment: &'a Assignment) -> Ordered<'a> {
    let names = |instance: &UnitName, after: &[String]| -> Vec<UnitName> {
        after
            .iter()
            .map(|name| UnitName::trusted(crate::unit::xfleet::expand(name, instance)))
            .collect()
    };
    let fenced = assignment
        .instances
        .iter()
        .filter_map(|(name, placement)| Some((name, placement.fence.as_deref()?)));
    let fenced = fenced.chain(assignment.off.iter().map(|(name, off)| (name, &off.fence)));
    let fenced = fenced.map(|(name, fence)| (name, fence.stop_ms, names(name, &fence.after)));
    let plain = assignment.instances.iter().filter(|(_, placement)| placement.fence.is_none());
    let plain = plain.filter_map(|(name, placement)| {
        let terms = snapshot.units.get(&placement.unit)?.stop.as_ref()?;
        Some((name, terms.stop_ms, names(name, &terms.after)))
    });
    fenced.chain(plain).filter(|(_, _, after)| !after.is_empty()).collect()
}

/// How long the units that start after `instance` take to stop. They stop side by side, so the
/// slowest chain counts. In a circle, which systemd breaks somewhere, all of them count.
fn waits_for(ordered: &Ordered<'_>, instance: &UnitName) -> u64 {
    let names: Vec<UnitName> = ordered.iter().map(|(name, _, _)| name.systemd_name()).collect();
    let mut followers: BTreeMap<&UnitName, Vec<usize>> = BTreeMap::new();
    for (number, (_, _, after)) in ordered.iter().enumerate() {
        after.iter().for_each(|before| followers.entry(before).or_default().push(number));
    }
    let own = instance.systemd_name();
    // The chain from each unit that was looked at; none while its followers are looked at.
    let mut chains: BTreeMap<usize, Option<u64>> = BTreeMap::new();
    let mut circle = false;
    let after = |name: &UnitName| followers.get(name).map_or(&[][..], Vec::as_slice);
    // A unit to begin with, or one whose followers are done.
    let mut open: Vec<(usize, bool)> = after(&own).iter().map(|number| (*number, false)).collect();
    while let Some((number, done)) = open.pop() {
        if done {
            let behind = after(&names[number])
                .iter()
                .filter_map(|next| chains.get(next).copied().flatten())
                .max();
            chains.insert(number, Some(ordered[number].1.saturating_add(behind.unwrap_or(0))));
            continue;
        }
        match chains.get(&number) {
            Some(Some(_)) => continue,
            Some(None) => {
                circle = true;
                continue;
            }
            None if names[number] == own => {
                circle = true;
                continue;
            }
            None => {}
        }
        chains.insert(number, None);
        open.push((number, true));
        open.extend(after(&names[number]).iter().map(|next| (*next, false)));
    }
    match circle {
        true => chains.keys().fold(0, |sum: u64, number| sum.saturating_add(ordered[*number].1)),
        false => chains.values().copied().flatten().max().unwrap_or(0),
    }
}

/// Counts for how long each keeper has been away, by the leader's own clock. Starts with the
/// leader's term.
#[derive(Debug, Clone, Default)]
pub struct Silence(BTreeMap<MachineId, (i64, u64)>);

impl Silence {
    /// Notes who is away in `snapshot`, and fills in for how long each has been. A keeper that was
    /// back in between has another life, and its absence counts anew, also if it was never seen.
    pub fn note(&mut self, snapshot: &mut Snapshot) {
        let now_ms = snapshot.now_ms;
        let away = |machine: &MachineId, life: i64| {
            snapshot.keepers.get(machine).is_some_and(|k| !k.held && k.life == life)
        };
        self.0.retain(|machine, (life, _)| away(machine, *life));
        for (machine, keeper) in snapshot.keepers.iter_mut().filter(|(_, keeper)| !keeper.held) {
            let (_, since_ms) = self.0.entry(machine.clone()).or_insert((keeper.life, now_ms));
            keeper.silent_ms = now_ms.saturating_sub(*since_ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::KeeperState;

    fn snapshot(held: bool, life: i64, now_ms: u64) -> Snapshot {
        let mut snapshot = Snapshot { now_ms, ..Snapshot::default() };
        snapshot.keepers.insert(
            MachineId::new("a"),
            KeeperState { life, held, watchdog_ms: 8_000, ..KeeperState::default() },
        );
        snapshot
    }

    /// `name ms: after after`, one unit a line: how long those behind `a` take to stop.
    fn behind_a(text: &str) -> u64 {
        let unit = |name: &str| UnitName::trusted(format!("{name}.service"));
        let lines: Vec<(UnitName, u64, Vec<UnitName>)> = text
            .lines()
            .map(|line| {
                let (head, after) = line.trim().split_once(':').unwrap();
                let (name, ms) = head.split_once(' ').unwrap();
                (unit(name), ms.parse().unwrap(), after.split_whitespace().map(unit).collect())
            })
            .collect();
        let ordered: Ordered<'_> =
            lines.iter().map(|(name, ms, after)| (name, *ms, after.clone())).collect();
        waits_for(&ordered, &unit("a"))
    }

    #[test]
    fn the_slowest_chain_counts_and_of_a_circle_every_member() {
        assert_eq!(behind_a("b 3: x"), 0);
        assert_eq!(behind_a("b 3: a\nc 5: a\nd 4: b"), 7);
        assert_eq!(behind_a("b 3: a\nc 5: b a\nd 4: c b"), 12);
        assert_eq!(behind_a("a 9: b\nb 3: a"), 3);
        assert_eq!(behind_a("b 3: a d\nc 5: b\nd 4: c\ne 1: a"), 13);
        // Each after all before it: of 2^39 chains the longest.
        let all = |n: usize| (0..n).map(|before| format!("u{before} ")).collect::<String>();
        let text: Vec<String> = (0..40).map(|n| format!("u{n} 1: a {}", all(n))).collect();
        assert_eq!(behind_a(&text.join("\n")), 40);
    }

    #[test]
    fn the_wait_is_the_answer_the_watchdog_the_stop_one_percent_and_the_slack() {
        assert_eq!(wait_ms(8_000, 10_000), 2_000 + 8_000 + 10_000 + 200 + 5_000);
        assert_eq!(wait_ms(8_000, u64::MAX), u64::MAX);
    }

    #[test]
    fn silence_counts_from_the_first_look_and_anew_after_a_life_that_nobody_saw() {
        let mut silence = Silence::default();
        let mut silent = |held: bool, life: i64, now_ms: u64| {
            let mut snapshot = snapshot(held, life, now_ms);
            silence.note(&mut snapshot);
            snapshot.keepers["a"].silent_ms
        };
        assert_eq!(
            (silent(true, 5, 1_000), silent(false, 5, 2_000), silent(false, 5, 9_000)),
            (0, 0, 7_000)
        );
        // It registered and was lost again between two looks.
        assert_eq!((silent(false, 8, 10_000), silent(false, 8, 11_000)), (0, 1_000));
        assert_eq!((silent(true, 9, 12_000), silent(false, 9, 13_000)), (0, 0));
    }

    #[test]
    fn a_copy_has_ended_when_the_wait_is_over_or_the_keeper_said_so_or_there_never_was_one() {
        let (machine, unit) = (MachineId::new("a"), UnitName::trusted("db.service"));
        let fence = Fenced { token: 7, stop_ms: 10_000, after: Vec::new() };
        let mut silent = snapshot(false, 5, 0);
        let mut look = |silent_ms: u64, released: bool, held: bool| {
            silent
                .keepers
                .values_mut()
                .for_each(|k| (k.silent_ms, k.released, k.held) = (silent_ms, released, held));
            ended(&silent, &machine, &unit, &fence)
        };
        assert_eq!(look(0, false, false), Ended::In(25_200));
        assert_eq!(look(25_199, false, false), Ended::In(1));
        assert_eq!(look(25_200, false, false), Ended::Surely(5));
        assert_eq!(look(0, true, false), Ended::Surely(5));
        assert_eq!(look(99_000, false, true), Ended::Held);
        assert_eq!(ended(&Snapshot::default(), &machine, &unit, &fence), Ended::Surely(0));
    }
}
