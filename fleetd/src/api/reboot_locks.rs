//! Reboot locks: taken, granted once the machine is drained, and given back. Each change is one
//! write that compares, so that two machines never get the same slot.

use std::sync::Arc;
use std::time::Duration;

use fleet_core::model::{
    Act, Availability, Did, FORMAT, Note, RebootLock, Reboots, Settings, Snapshot, Unknown,
};
use fleet_core::name::MachineId;
use fleet_core::reboots::{Against, against_cluster, against_slot};
use fleet_core::wire::Remaining;
use tokio::time::timeout;

use super::Api;
use super::availability::remaining;
use super::who::Who;
use crate::process::{clock, panics};
use crate::store::{Mirror, StoreError};

/// How long a request waits for the end of a drain: that of a few units takes less, and a client
/// asks again after minutes. Less than fleetctl waits for an answer.
const DRAIN_PATIENCE: Duration = Duration::from_secs(5);

/// How often a step is tried that others overtake each time.
const ATTEMPTS: usize = 8;

/// How many instances that are left a refusal names.
const NAMED: usize = 3;

/// Why a machine gets no leave to reboot, or cannot give its lock back.
#[derive(Debug)]
pub(super) enum Denied {
    /// This speaks against it.
    Against(Against),
    /// It holds a lock of this other group.
    OtherGroup(String),
    /// This is still on it.
    Draining(Vec<Remaining>),
    /// fleetd on it is not back yet.
    Away,
    /// What went wrong.
    Failed(StoreError),
    /// A bug of fleetd.
    Panicked(String),
}

impl From<StoreError> for Denied {
    fn from(error: StoreError) -> Denied {
        Denied::Failed(error)
    }
}

impl Denied {
    /// A word for programs, of a few.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Denied::Against(against) => against.kind(),
            Denied::OtherGroup(_) => "other_group",
            Denied::Draining(_) => "draining",
            Denied::Away => "not_back",
            Denied::Failed(StoreError::Conflict(_)) => "try_again",
            Denied::Failed(_) => "store_unavailable",
            Denied::Panicked(_) => "bug",
        }
    }

    /// The reason, for people.
    pub(super) fn says(&self) -> String {
        match self {
            Denied::Against(against) => against.to_string(),
            Denied::OtherGroup(group) => format!("it holds a lock of the group {group} already"),
            Denied::Draining(left) => format!("draining: {}", what_is_left(left)),
            Denied::Away => {
                "its fleetd has yet to come back to the cluster, so the lock is kept".to_string()
            }
            Denied::Failed(error) => error.to_string(),
            Denied::Panicked(problem) => problem.clone(),
        }
    }
}

/// What is still on a machine, and why.
fn what_is_left(left: &[Remaining]) -> String {
    let units = if left.len() == 1 { "1 unit is" } else { &format!("{} units are", left.len()) };
    let named = left.iter().take(NAMED).map(|one| format!("{} ({})", one.name, one.why));
    let more = left.len().saturating_sub(NAMED);
    let named: Vec<String> = named.chain((more > 0).then(|| format!("and {more} more"))).collect();
    format!("{units} left: {}", named.join(", "))
}

/// A look at a machine and its lock, all of which is compared when it is changed.
struct Look {
    reboots: Reboots,
    reboots_at: Option<i64>,
    settings: Settings,
    settings_at: Option<i64>,
    /// A copy that is no older.
    mirror: Arc<Mirror>,
}

impl Look {
    async fn at(api: &Api, id: &MachineId) -> Result<Look, StoreError> {
        let (reboots, reboots_at) = api.store().reboots().await?;
        let settings = api.store().settings(id).await?;
        let settings_at = settings.as_ref().map(|settings| settings.revision);
        let settings = settings.map_or_else(
            || Settings { v: FORMAT, ..Settings::default() },
            |settings| settings.value,
        );
        let seen = reboots_at.max(settings_at).unwrap_or(0);
        let mut reader = api.shared.copies.reader();
        let mirror = reader.when(|mirror| mirror.cluster().snapshot.revision >= seen).await?;
        Ok(Look { reboots, reboots_at, settings, settings_at, mirror })
    }

    async fn write(&self, api: &Api, id: &MachineId, act: Option<Act>) -> Result<i64, StoreError> {
        let reboots = (&self.reboots, self.reboots_at);
        let settings = (&self.settings, self.settings_at);
        let store = match act {
            Some(act) => api.store().telling(act.on(id)),
            None => api.store().clone(),
        };
        store.put_reboots_and_settings(reboots, id, settings).await
    }

    fn is_draining(&self) -> bool {
        self.settings.availability == Availability::Draining
    }

    /// What speaks against it by the copy.
    fn against(&self, id: &MachineId, group: &str) -> Option<Against> {
        let now_ms = clock::now_ms();
        let corrupt = self.mirror.corrupt().len();
        against_slot(&self.reboots, id, group, now_ms)
            .or_else(|| (corrupt > 0).then_some(Against::Corrupt { documents: corrupt }))
            .or_else(|| against_cluster(self.mirror.cluster(), &self.reboots, id, now_ms))
    }
}

/// Begins a drain for a machine's lock, which it takes if there is none.
fn drain(
    reboots: &mut Reboots,
    settings: &mut Settings,
    id: &MachineId,
    (group, by): (&str, &str),
    now_ms: u64,
) {
    let reason = format!("reboot lock of the group {group}");
    let note = Note { by: by.to_string(), at_ms: now_ms, reason, ..Note::default() };
    let since_ms = reboots.locks.get(id).map_or(now_ms, |lock| lock.since_ms);
    let lock = RebootLock {
        group: group.to_string(),
        since_ms,
        granted_ms: None,
        by: by.to_string(),
        drain: note.clone(),
        before: settings.availability,
        note_before: settings.note.clone(),
        unknown: Unknown::new(),
    };
    reboots.locks.insert(id.clone(), lock);
    (settings.availability, settings.note) = (Availability::Draining, Some(note));
}

/// Takes a machine's lock away, and ends its drain if that is still the lock's.
fn end(reboots: &mut Reboots, settings: &mut Settings, id: &MachineId) {
    let Some(lock) = reboots.locks.remove(id) else { return };
    let is_its_own = settings.note.as_ref() == Some(&lock.drain);
    if settings.availability == Availability::Draining && is_its_own {
        (settings.availability, settings.note) = (lock.before, lock.note_before);
    }
}

/// All machines that are known, or have a lock.
pub(super) fn known<'a>(
    snapshot: &'a Snapshot,
    reboots: &'a Reboots,
) -> impl Iterator<Item = &'a MachineId> {
    let all = snapshot.machines.keys().chain(snapshot.assignments.keys());
    all.chain(snapshot.availability.keys()).chain(reboots.locks.keys())
}

/// Gives the machine leave to reboot, if it is its turn and it is drained; begins the drain if it
/// is its turn. Answers `Ok` as often as it is asked, until the lock is given back.
pub(super) async fn grant(api: &Api, id: &MachineId, group: &str, who: &Who) -> Result<(), Denied> {
    for _ in 0..ATTEMPTS {
        match step(api, id, group, who).await {
            Ok(true) => return Ok(()),
            Ok(false) | Err(Denied::Failed(StoreError::Conflict(_))) => {}
            Err(denied) => return Err(denied),
        }
    }
    Err(StoreError::Conflict(format!("the reboot lock of {id}")).into())
}

/// One step towards a reboot; whether it was the last.
async fn step(api: &Api, id: &MachineId, group: &str, who: &Who) -> Result<bool, Denied> {
    let mut look = Look::at(api, id).await?;
    let lock = look.reboots.locks.get(id).cloned();
    if let Some(lock) = lock.as_ref().filter(|lock| lock.group != group) {
        return Err(Denied::OtherGroup(lock.group.clone()));
    }
    let is_granted = lock.as_ref().is_some_and(|lock| lock.granted_ms.is_some());
    if is_granted && look.is_draining() && left(api, id, &look).await?.is_empty() {
        return Ok(true);
    }
    if let Some(against) = look.against(id, group) {
        // Its turn is over: what it was drained for does not come until the next window.
        if matches!(against, Against::Closed { .. }) && lock.is_some() && !is_granted {
            end(&mut look.reboots, &mut look.settings, id);
            look.write(api, id, None).await?;
            tracing::info!(machine = %id, "machine {} reboots in the next window", id.short());
        }
        return Err(Denied::Against(against));
    }
    let Some(lock) = lock.filter(|_| look.is_draining()) else {
        let (reboots, settings) = (&mut look.reboots, &mut look.settings);
        let by = who.name();
        drain(reboots, settings, id, (group, &by), clock::now_ms());
        let did = Did::AskedToReboot { group: group.to_string() };
        look.write(api, id, Some(who.act(did))).await?;
        tracing::info!(machine = %id, "{by} drains machine {} to reboot it", id.short());
        return Ok(false);
    };
    let left = left(api, id, &look).await?;
    if !left.is_empty() {
        return Err(Denied::Draining(left));
    }
    let granted = RebootLock { granted_ms: Some(clock::now_ms()), ..lock };
    look.reboots.locks.insert(id.clone(), granted);
    let did = Did::MayReboot { group: group.to_string() };
    look.write(api, id, Some(who.act(did))).await?;
    tracing::info!(machine = %id, "machine {} may reboot", id.short());
    Ok(true)
}

/// What is still on the machine once the leader has looked at its drain, after some time for it to
/// go.
async fn left(api: &Api, id: &MachineId, look: &Look) -> Result<Vec<Remaining>, Denied> {
    let set_at = look.settings_at.unwrap_or(0);
    let mut reader = api.shared.copies.reader();
    let mut seen = look.mirror.clone();
    let emptied = async {
        loop {
            let now = left_by(&seen, id).await?;
            let planned = seen.cluster().is_planned(set_at);
            if now.is_empty() && planned {
                return Ok(());
            }
            seen = match reader.next().await {
                Some(mirror) => mirror,
                None => return Err(StoreError::Unavailable("its copy ended".to_string()).into()),
            };
        }
    };
    match timeout(DRAIN_PATIENCE, emptied).await {
        Ok(Ok(())) => Ok(Vec::new()),
        Ok(Err(denied)) => Err(denied),
        Err(_) => {
            let left = left_by(&seen, id).await?;
            match left.is_empty() {
                false => Ok(left),
                true => Err(Denied::Against(Against::NoLeader)), // it has not looked yet
            }
        }
    }
}

async fn left_by(mirror: &Arc<Mirror>, id: &MachineId) -> Result<Vec<Remaining>, Denied> {
    let (mirror, id) = (mirror.clone(), id.clone());
    // With many units this takes a while.
    let work = move || remaining(mirror.cluster(), Availability::Draining, &id);
    panics::contained_work(work).await.map_err(Denied::Panicked)
}

/// Gives the machine's lock back, if it has one. `returns`: only if the machine is there again,
/// since it may have rebooted. Answers whether it had one.
pub(super) async fn give_back(
    api: &Api,
    id: &MachineId,
    returns: bool,
    who: &Who,
) -> Result<bool, Denied> {
    for _ in 0..ATTEMPTS {
        let mut look = Look::at(api, id).await?;
        let Some(lock) = look.reboots.locks.get(id) else { return Ok(false) };
        let is_there = look.mirror.cluster().snapshot.machines.contains_key(id);
        if returns && lock.granted_ms.is_some() && !is_there {
            return Err(Denied::Away);
        }
        let did = Did::ReleasedReboot { group: lock.group.clone() };
        end(&mut look.reboots, &mut look.settings, id);
        match look.write(api, id, Some(who.act(did))).await {
            Ok(_) => return Ok(true),
            Err(StoreError::Conflict(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(StoreError::Conflict(format!("the reboot lock of {id}")).into())
}

/// What a machine with a lock waits for, by the copy: for lists.
pub(super) async fn waits(mirror: &Arc<Mirror>, id: &MachineId) -> Result<String, Denied> {
    let left = left_by(mirror, id).await?;
    Ok(if left.is_empty() { String::new() } else { what_is_left(&left) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str) -> Remaining {
        Remaining { name: name.to_string(), why: "it waits".to_string(), ..Remaining::default() }
    }

    #[test]
    fn a_refusal_names_the_first_of_what_is_left_and_counts_the_rest() {
        assert_eq!(what_is_left(&[one("a.service")]), "1 unit is left: a.service (it waits)");
        let many: Vec<Remaining> = ["a", "b", "c", "d", "e"].map(one).into();
        let said = "5 units are left: a (it waits), b (it waits), c (it waits), and 2 more";
        assert_eq!(what_is_left(&many), said);
    }

    #[test]
    fn a_lock_ends_its_own_drain_alone_and_leaves_the_machine_as_it_was() {
        let id = MachineId::new("a");
        let note = |by: &str| Note { by: by.into(), at_ms: 1, ..Note::default() };
        let after = |availability, before: Option<Note>, meanwhile: Option<Note>| {
            let mut settings = Settings { availability, note: before, ..Settings::default() };
            let mut reboots = Reboots::default();
            drain(&mut reboots, &mut settings, &id, ("default", "zincati"), 7);
            assert_eq!(settings.availability, Availability::Draining);
            assert_eq!(settings.note.as_ref().map(|note| &note.by[..]), Some("zincati"));
            settings.note = meanwhile.or(settings.note);
            end(&mut reboots, &mut settings, &id);
            assert!(reboots.locks.is_empty());
            (settings.availability, settings.note)
        };
        assert_eq!(after(Availability::Active, None, None), (Availability::Active, None));
        let cordoned = (Availability::Cordoned, Some(note("root@h1")));
        assert_eq!(after(cordoned.0, cordoned.1.clone(), None), cordoned);
        // Somebody drains it meanwhile, for a reason of their own.
        let own = (Availability::Draining, Some(note("root@h1")));
        assert_eq!(after(Availability::Active, None, own.1.clone()), own);
    }
}
