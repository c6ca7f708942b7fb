//! Whose turn it is to reboot, and what speaks against it now. Pure: the locks, what the store says
//! of the cluster, and the time in; a reason or none out.

use std::collections::BTreeMap;
use std::fmt;

use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::model::{
    DesiredState, InstanceStatus, MAX_REPLICAS, Placement, RebootLock, Reboots, Unit, is_zero_u32,
};
use crate::name::{MachineId, UnitName};
use crate::unit::family::is_counted;
use crate::view::Cluster;
use crate::wire::RebootState;

mod window;

pub use window::Window;

/// The group of who names none.
pub const DEFAULT_GROUP: &str = "default";

/// The longest name of a group, in bytes.
const MAX_GROUP_BYTES: usize = 128;

/// Zincati's application id: it calls a machine by what systemd's
/// `sd_id128_get_machine_app_specific` makes of the machine's id and this.
const ZINCATI: [u8; 16] = 0xde35_106b_6ec2_4688_b63a_fdda_a156_679b_u128.to_be_bytes();

/// Whether a group's name is one: letters, digits, dots and dashes, as FleetLock has it.
pub fn is_group(name: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b".-".contains(&byte);
    (1..=MAX_GROUP_BYTES).contains(&name.len()) && name.bytes().all(good)
}

/// The machine that a client means by `called`: its own id, or what Zincati makes of it. Dashes
/// and the case of letters do not count.
pub fn machine_called<'a>(
    known: impl IntoIterator<Item = &'a MachineId>,
    called: &str,
) -> Option<&'a MachineId> {
    let plain = |text: &str| text.replace('-', "").to_ascii_lowercase();
    let called = plain(called);
    known.into_iter().find(|id| {
        plain(id.as_str()) == called || app_specific(id, ZINCATI).is_some_and(|id| id == called)
    })
}

/// systemd's application-specific id of a machine; `None` if the machine's id is not one of
/// systemd's.
fn app_specific(id: &MachineId, application: [u8; 16]) -> Option<String> {
    let is_one = id.as_str().len() == 32 && id.as_str().bytes().all(|b| b.is_ascii_hexdigit());
    let id = u128::from_str_radix(id.as_str(), 16).ok().filter(|_| is_one)?.to_be_bytes();
    let mut mac = Hmac::<Sha256>::new_from_slice(&id).ok()?;
    mac.update(&application);
    let mut made = [0; 16];
    made.copy_from_slice(&mac.finalize().into_bytes()[..16]);
    // A random UUID in form.
    made[6] = made[6] & 0x0f | 0x40;
    made[8] = made[8] & 0x3f | 0x80;
    Some(format!("{:032x}", u128::from_be_bytes(made)))
}

/// How far a machine that has a lock is.
pub fn state_of(lock: &RebootLock, is_there: bool) -> RebootState {
    match lock.granted_ms {
        None => RebootState::Draining,
        Some(_) if is_there => RebootState::Granted,
        Some(_) => RebootState::Away,
    }
}

/// Why a machine may not reboot now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Against {
    /// It is outside the window.
    Closed {
        /// The window.
        window: String,
    },
    /// The window in the store cannot be read.
    Unreadable {
        /// What is wrong with it.
        problem: String,
    },
    /// Others of its group have all the slots.
    Full {
        /// The group.
        group: String,
        /// How many there are.
        slots: u32,
        /// Who has them.
        holders: Vec<MachineId>,
    },
    /// So many documents of the store cannot be read, and nothing is planned.
    Corrupt {
        /// How many.
        documents: usize,
    },
    /// Nobody leads, so nothing is moved.
    NoLeader,
    /// Absent machines get time to return.
    Settling,
    /// Another machine is missing.
    Missing {
        /// Which.
        machine: MachineId,
    },
    /// Of a unit so many instances are down that its budget is spent.
    Down {
        /// The unit.
        unit: UnitName,
        /// How many would be down.
        unavailable: usize,
        /// How many it wants.
        wanted: usize,
        /// How many may be.
        most: usize,
    },
}

impl Against {
    /// A word for programs, of a few.
    pub fn kind(&self) -> &'static str {
        match self {
            Against::Closed { .. } => "outside_window",
            Against::Unreadable { .. } => "window_unreadable",
            Against::Full { .. } => "failed_lock_semaphore_full",
            _ => "cluster_not_well",
        }
    }
}

impl fmt::Display for Against {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Against::Closed { window } => {
                write!(f, "machines reboot in the window {window:?} (UTC) alone")
            }
            Against::Unreadable { problem } => {
                write!(f, "{problem}; `fleetctl reboots --window` sets another")
            }
            Against::Full { group, slots: 0, .. } => {
                write!(f, "the group {group} has no slots, so none of its machines reboots")
            }
            Against::Full { group, slots, holders } => {
                let holders: Vec<&str> = holders.iter().map(MachineId::short).collect();
                let (are, s) = if *slots == 1 { ("is", "") } else { ("are", "s") };
                write!(
                    f,
                    "the {slots} slot{s} of the group {group} {are} taken, by {}",
                    holders.join(", ")
                )
            }
            Against::Corrupt { documents } => write!(
                f,
                "{documents} documents of the store cannot be read, so nothing is moved; \
                    `fleetctl store check` names them"
            ),
            Against::NoLeader => f.write_str("nobody leads at the moment, so nothing is moved"),
            Against::Settling => {
                f.write_str("machines that are absent may be about to return, and get time for it")
            }
            Against::Missing { machine } => write!(f, "machine {} is missing", machine.short()),
            Against::Down { unit, unavailable, wanted, most } => write!(
                f,
                "{unavailable} of {wanted} instances of {unit} would be down, and at most {most} \
                    may be"
            ),
        }
    }
}

/// What speaks against the machine's taking a slot of its group, or keeping it, at this time.
pub fn against_slot(
    reboots: &Reboots,
    machine: &MachineId,
    group: &str,
    now_ms: u64,
) -> Option<Against> {
    if let Some(text) = &reboots.window {
        match Window::parse(text) {
            Err(problem) => return Some(Against::Unreadable { problem }),
            Ok(window) if !window.is_open(now_ms) => {
                return Some(Against::Closed { window: text.clone() });
            }
            Ok(_) => {}
        }
    }
    let group = reboots.group(group);
    let shares = |lock: &RebootLock| reboots.group(&lock.group) == group;
    let others = reboots.locks.iter().filter(|(id, lock)| *id != machine && shares(lock));
    let holders: Vec<MachineId> = others.map(|(id, _)| id.clone()).collect();
    let slots = reboots.slots(group);
    (holders.len() >= slots as usize).then(|| Against::Full {
        group: group.to_string(),
        slots,
        holders,
    })
}

/// What of the cluster speaks against a reboot of the machine now: another machine is missing, or a
/// unit would have more instances down than its budget allows. Machines that were allowed to reboot
/// count as down, and are not missing. What is not global is moved off the machine before, within
/// the same budget.
pub fn against_cluster(
    cluster: &Cluster,
    reboots: &Reboots,
    machine: &MachineId,
    now_ms: u64,
) -> Option<Against> {
    let snapshot = &cluster.snapshot;
    let Some(word) = cluster.leaders_word() else { return Some(Against::NoLeader) };
    let reboots_now = |id: &MachineId| {
        id == machine || reboots.locks.get(id).is_some_and(|lock| lock.granted_ms.is_some())
    };
    let absent = |id: &MachineId| !snapshot.machines.contains_key(id) && !reboots_now(id);
    let lost = word.lost.iter().filter(|lost| lost.is_recent(now_ms)).map(|lost| &lost.machine);
    let silent = snapshot.assignments.iter().filter(|(id, assignment)| {
        !assignment.instances.is_empty() && !snapshot.left.contains(*id)
    });
    let mut missing = lost.chain(silent.map(|(id, _)| id)).filter(|id| absent(id));
    if let Some(id) = missing.next() {
        return Some(Against::Missing { machine: id.clone() });
    }
    if word.settling {
        return Some(Against::Settling);
    }
    spent(cluster, &reboots_now)
}

/// How many instances of one unit are up.
#[derive(Default)]
struct Counted {
    assigned: usize,
    up: usize,
}

/// The first unit whose budget does not allow that all these machines are down.
fn spent(cluster: &Cluster, down: &impl Fn(&MachineId) -> bool) -> Option<Against> {
    let snapshot = &cluster.snapshot;
    let mut counted: BTreeMap<&UnitName, Counted> = BTreeMap::new();
    for (id, assignment) in &snapshot.assignments {
        // Of one that left in good order nothing is expected.
        if !snapshot.machines.contains_key(id) && !down(id) {
            continue;
        }
        let report = snapshot.reports.get(id);
        let (is_down, mut last) = (down(id), None);
        for (instance, placement) in &assignment.instances {
            let unit = last.filter(|unit: &&Unit| unit.name == placement.unit);
            last = unit.or_else(|| snapshot.units.get(&placement.unit).map(|unit| &**unit));
            // What is not global moves away before the machine goes down.
            let goes_down = is_down && last.is_some_and(|unit| unit.constraints.global);
            let report = report.filter(|_| !goes_down);
            let count = counted.entry(&placement.unit).or_default();
            let status = report.and_then(|report| report.instances.get(instance));
            count.assigned += 1;
            count.up += usize::from(status.is_some_and(|status| is_up(placement, status)));
        }
    }
    let of = |unit: &UnitName| counted.get(unit).map_or((0, 0), |count| (count.assigned, count.up));
    snapshot.units.values().find_map(|unit| {
        let budget = unit.max_unavailable().filter(|_| unit.desired == DesiredState::Launched)?;
        let (assigned, up) = of(&unit.name);
        let wanted = if unit.constraints.global { assigned } else { wanted(cluster, unit) };
        let (most, unavailable) = (budget.limit(wanted)?, wanted.saturating_sub(up));
        (unavailable > most).then(|| Against::Down {
            unit: unit.name.clone(),
            unavailable,
            wanted,
            most,
        })
    })
}

/// How many instances of a unit should be somewhere: of a template those without a record of their
/// own.
fn wanted(cluster: &Cluster, unit: &Unit) -> usize {
    if !unit.name.is_template() {
        return 1;
    }
    let replicas = unit.replicas.unwrap_or(0).min(MAX_REPLICAS);
    let start = UnitName::trusted(format!("{}@", unit.name.prefix()));
    let family = cluster.snapshot.units.range::<UnitName, _>(&start..);
    let own = family
        .take_while(|(name, _)| name.as_str().starts_with(start.as_str()))
        .filter(|(name, _)| name.suffix() == unit.name.suffix() && !name.is_template())
        .filter(|(name, _)| is_counted(name, Some(replicas)))
        .count();
    (replicas as usize).saturating_sub(own)
}

fn is_up(placement: &Placement, status: &InstanceStatus) -> bool {
    let stays = !status.settling && is_zero_u32(&status.restarts);
    let runs = status.is_active() && stays && status.is_well();
    placement.state != DesiredState::Launched
        || (status.launched && !status.gave_up && !status.leaving && (runs || status.ended))
}

#[cfg(test)]
mod tests;
