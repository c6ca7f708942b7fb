//! Programs that really act: what a test runs as a unit's process, and what such a process may ask
//! of its systemd.

use std::pin::Pin;
use std::sync::Arc;

use fleet_core::name::UnitName;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::super::{Job, SystemdError};
use super::SimSystemd;

/// A program: each start of its unit runs it once, as a task. It answers whether it ended well.
pub type Program = Arc<dyn Fn(Process) -> Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync>;

/// One process, as its program sees itself.
#[derive(Clone)]
pub struct Process {
    pub(super) sim: SimSystemd,
    pub(super) name: UnitName,
    pub(super) invocation: u64,
    pub(super) terminate: Arc<Notify>,
}

impl Process {
    /// `READY=1`: the start is done.
    pub fn ready(&self) {
        self.sim.with_manager(|manager| manager.ready(&self.name, self.invocation));
    }

    /// `WATCHDOG=1`: it lives.
    pub fn ping(&self) {
        self.sim.with_manager(|manager| manager.ping(&self.name, self.invocation));
    }

    /// Returns when systemd has sent SIGTERM. Dropping it loses nothing.
    pub async fn terminated(&self) {
        self.terminate.notified().await;
    }

    /// The job that systemd runs for this unit.
    pub fn job(&self) -> Result<Option<Job>, SystemdError> {
        self.sim.answers()?;
        Ok(self.sim.manager().job(&self.name))
    }

    /// The units that are bound to `unit`, with their active states.
    pub fn bound_to(&self, unit: &UnitName) -> Result<Vec<(UnitName, String)>, SystemdError> {
        self.sim.answers()?;
        Ok(self.sim.manager().bound_to(unit))
    }
}

/// A process as systemd keeps it.
pub(super) struct Child {
    pub(super) invocation: u64,
    pub(super) terminate: Arc<Notify>,
    /// Ends it as SIGKILL does; `None` until it was started.
    pub(super) task: Option<AbortHandle>,
}

impl Child {
    pub(super) fn kill(&self) {
        self.task.iter().for_each(AbortHandle::abort);
    }
}
