//! Fenced units on this host: what binds them to the guard, and when they may start.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fleet_core::converge::FencedBy;
use fleet_core::model::Assignment;
use fleet_core::name::UnitName;
use fleet_core::unit::file::UnitFile;
use fleet_core::unit::stop_terms::StopTerms;
use fleet_core::unit::xfleet::Constraints;
use tokio::time::timeout;
use tracing::warn;

use super::Agent;
use crate::keeper;
use crate::machine::health::Health;
use crate::systemd::{Job, Listed, Systemd, SystemdError};

/// How often a keeper that is needed and not there is asked for, in milliseconds. Its start takes
/// as long as the store is away.
const ASK_PERIOD_MS: u64 = 10_000;

/// How long systemd may take to queue a job for the keeper. It carries the job out later, too.
const ANSWER: Duration = Duration::from_secs(5);

/// How long fenced units wait here for the keeper before the leader may try another machine, in
/// milliseconds: far longer than the lease of an earlier boot, which a keeper waits for.
const PATIENCE_MS: u64 = 60_000;

/// The keeper and the guard beside this agent.
#[derive(Debug, Clone)]
pub(super) struct KeeperOfHost {
    /// Where the guard says how it stands.
    pub(super) guard_dir: PathBuf,
    /// Whether this machine is the whole cluster.
    pub(super) alone: bool,
    /// Since when something fenced waits for it.
    waiting_since_ms: Option<u64>,
    /// Since when the store is reachable: without it no keeper can hold a lease, on any machine.
    health: Arc<Health>,
    /// When it was last asked for.
    asked_ms: Option<u64>,
    /// Whether systemd is about to stop the guard, or to start it: a start of what is bound to it
    /// would take the place of its stop.
    pub(super) moves: bool,
}

impl KeeperOfHost {
    /// Whether it has had its time since `since_ms`. While the store is away nobody's keeper can
    /// hold a lease, so that does not count.
    fn is_overdue(&self, since_ms: u64, now_ms: u64) -> bool {
        let patience = Duration::from_millis(PATIENCE_MS);
        let store_had_time =
            self.health.settled_at_ms(patience).is_some_and(|at_ms| now_ms >= at_ms);
        store_had_time && now_ms >= since_ms + PATIENCE_MS
    }
}

impl Agent {
    /// Has the agent run fenced units, bound to the guard that says in `guard_dir` how it stands;
    /// `alone` where the store is embedded.
    #[must_use]
    pub fn with_keeper(mut self, guard_dir: PathBuf, alone: bool, health: Arc<Health>) -> Agent {
        self.keeper = Some(KeeperOfHost {
            guard_dir,
            alone,
            waiting_since_ms: None,
            health,
            asked_ms: None,
            moves: false,
        });
        self
    }

    /// The guard's unit, if something fenced is assigned.
    pub(super) fn needed_guard(&self) -> Option<UnitName> {
        let needed = self.keeper.is_some()
            && self.assignment.as_ref().is_some_and(|assignment| needs_keeper(assignment));
        needed.then(|| UnitName::trusted(keeper::GUARD_UNIT))
    }

    /// Notes what systemd says of the guard.
    pub(super) fn note_guard(&mut self, listed: &BTreeMap<UnitName, Listed>) {
        if let Some(keeper) = &mut self.keeper {
            keeper.moves = listed
                .get(&UnitName::trusted(keeper::GUARD_UNIT))
                .is_some_and(|unit| unit.job || unit.active != "active");
        }
    }

    /// The keeper's life, if what is assigned is known to be no older: then a leader that has given
    /// up on this machine since would show in the assignment. Has the store read again, and the
    /// keeper started, as far as that takes.
    pub(super) async fn open_life(&mut self, now_ms: u64) -> Option<i64> {
        self.needed_guard()?;
        let keeper = self.keeper.as_mut()?;
        let state =
            keeper::read_state(&keeper.guard_dir).filter(|state| state.alone == keeper.alone);
        let open = match state {
            Some(_) if keeper.moves => None,
            Some(state) if state.alone || self.as_of >= state.life => Some(state.life),
            Some(state) => {
                self.wanted.send_replace(state.life);
                None
            }
            None => {
                if keeper.asked_ms.is_none_or(|asked| now_ms >= asked + ASK_PERIOD_MS) {
                    keeper.asked_ms = Some(now_ms);
                    if let Err(error) = ask(&*self.systemd, Job::Start).await {
                        warn!("fenced units wait for their keeper: {error}");
                    }
                }
                None
            }
        };
        keeper.waiting_since_ms =
            if open.is_some() { None } else { keeper.waiting_since_ms.or(Some(now_ms)) };
        open
    }

    /// What a fenced unit that is not running waits for, and whether it has waited for too long.
    pub(super) fn waits_for_keeper(&self, now_ms: u64) -> Option<(String, bool)> {
        let Some(keeper) = &self.keeper else {
            return Some(("fenced: this fleetd runs without a keeper".to_string(), true));
        };
        let since_ms = keeper.waiting_since_ms?;
        let too_long = keeper.is_overdue(since_ms, now_ms);
        Some(("fenced: waits until this machine's keeper holds its lease".to_string(), too_long))
    }

    /// While another host has this machine's id, no keeper here may wait for the machine's place:
    /// when the other one's lease has ended, the leader would take it for a sign that the other
    /// one's fenced units run on. One that holds its lease is left alone.
    pub(super) async fn call_off_keeper(&mut self) {
        let Some(keeper) = &mut self.keeper else { return };
        if keeper.asked_ms.take().is_some() && keeper::read_state(&keeper.guard_dir).is_none() {
            self.end_keeper().await;
        }
    }

    /// Ends the keeper, once all that was bound to it is gone: it then says so to the leader, and
    /// nobody need wait. Also where none is seen: a start of it, perhaps asked for by an earlier
    /// fleetd, may be waiting for the store.
    pub async fn end_keeper(&mut self) {
        if self.keeper.is_some()
            && let Err(error) = ask(&*self.systemd, Job::Stop).await
        {
            warn!(
                "cannot end the keeper: {error}; fenced units start elsewhere when its lease has \
                    run out"
            );
        }
    }
}

/// Queues a job for the keeper, and hears for a while whether systemd took it.
async fn ask(systemd: &dyn Systemd, job: Job) -> Result<(), SystemdError> {
    let name = UnitName::trusted(keeper::UNIT);
    timeout(ANSWER, systemd.queue(&name, job)).await.unwrap_or_else(|_| {
        Err(SystemdError::Unavailable(format!("no answer within {} s", ANSWER.as_secs())))
    })
}

/// The text of a Quadlet unit for podman's generator: a fenced one hands its token on into the
/// container.
pub(super) fn with_token(text: &str) -> String {
    if is_fenced(text) { handing_on_token(text) } else { text.to_string() }
}

/// Whether a unit's text asks for fencing.
pub(super) fn is_fenced(text: &str) -> bool {
    Constraints::from_file(&UnitFile::parse_lenient(text)).fence
}

/// The text of a container that gets the token of its service.
pub(super) fn handing_on_token(text: &str) -> String {
    format!("{text}\n\n[Container]\nPodmanArgs=--env=FLEET_FENCING_TOKEN\n")
}

fn needs_keeper(assignment: &Assignment) -> bool {
    assignment.instances.values().any(|placement| placement.fence.is_some())
}

/// The lines of the drop-in that fence a unit. systemd looks for the file at each start, so one
/// that was prepared under an earlier life of the keeper never starts under a later one, however
/// late it is asked for. `ExecCondition=` is for starts by `Restart=`, at which systemd 254 and
/// later test no `Assert…=`.
pub(super) fn lines(
    file: &UnitFile,
    instance: &UnitName,
    by: FencedBy,
    guard_dir: &Path,
) -> String {
    let timeout_ms = StopTerms::from_file(instance, file).timeout_ms;
    // Written even where the unit sets them: a host's defaults, and drop-ins for all services, must
    // not stretch the stop.
    format!(
        "[Unit]\nBindsTo={unit}\nAfter={unit}\nAssertPathExists={life}\n[Service]\nTimeoutStopSec={timeout_ms}ms\nSendSIGKILL=yes\n\
         FinalKillSignal=SIGKILL\nExecCondition=+/usr/bin/test -e \
         {life}\nEnvironment=FLEET_FENCING_TOKEN={token}\n",
        unit = keeper::GUARD_UNIT,
        life = keeper::life_file(guard_dir, by.life).display(),
        token = by.token,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keeper_is_overdue_only_when_the_store_has_been_there_for_as_long() {
        let (health, guard_dir) = (Arc::<Health>::default(), PathBuf::new());
        let keeper = KeeperOfHost {
            guard_dir,
            alone: false,
            waiting_since_ms: None,
            health: health.clone(),
            asked_ms: None,
            moves: false,
        };
        let now_ms = crate::process::clock::now_ms();
        let long_ago = now_ms - 10 * PATIENCE_MS;
        assert!(!keeper.is_overdue(long_ago, now_ms), "the store is away");
        health.reachable(None, Duration::ZERO);
        assert!(!keeper.is_overdue(long_ago, now_ms), "it is just back");
        assert!(keeper.is_overdue(long_ago, now_ms + 2 * PATIENCE_MS));
        assert!(
            !keeper.is_overdue(now_ms + 2 * PATIENCE_MS, now_ms + 2 * PATIENCE_MS),
            "it has just been asked for"
        );
    }

    #[test]
    fn a_fenced_units_drop_in_binds_it_to_one_life_of_the_keeper() {
        let file = UnitFile::parse_lenient("[Service]\nExecStart=/bin/true\nTimeoutStopSec=1min\n");
        let lines = lines(
            &file,
            &UnitName::trusted("a.service"),
            FencedBy { token: 7, life: 40 },
            Path::new("/run/fleet-guard"),
        );
        expect_test::expect![[r#"
            [Unit]
            BindsTo=fleet-guard.service
            After=fleet-guard.service
            AssertPathExists=/run/fleet-guard/life-40
            [Service]
            TimeoutStopSec=60000ms
            SendSIGKILL=yes
            FinalKillSignal=SIGKILL
            ExecCondition=+/usr/bin/test -e /run/fleet-guard/life-40
            Environment=FLEET_FENCING_TOKEN=7
        "#]]
        .assert_eq(&lines);
    }
}
