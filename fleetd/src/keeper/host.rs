//! What a keeper stands on: its host's clock, the signals that it is sent, and the systemd that watches it.

use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use fleet_core::name::UnitName;
use rustix::time::{ClockId, clock_gettime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Mutex;
use tracing::warn;

use crate::clock;
use crate::systemd::SystemdError;
use crate::systemd::dbus::Bus;
use crate::systemd::own_job;

/// A keeper's host. The real one is `Booted`; the simulator has one of its own (`tests/sim`).
#[async_trait]
pub trait Host: Send + Sync + 'static {
    /// The time since the host's boot. It goes on while the host is suspended: what slept through its lease must not take it for fresh.
    fn since_boot(&self) -> Duration;

    /// Milliseconds since 1970 by the wall clock, to show.
    fn wall_ms(&self) -> u64;

    /// The kernel's name for this boot.
    fn boot_id(&self) -> String;

    /// Passes this much of the host's time.
    async fn sleep(&self, time: Duration);

    /// Tells systemd's watchdog that the keeper lives; with `ready`, also that its start is done.
    fn ping(&self, ready: bool);

    /// Returns when the keeper is told to end (SIGTERM). Dropping it loses nothing.
    async fn terminated(&self);

    /// Returns when the keeper is told to go on as the binary that is installed now (SIGHUP). Dropping it loses nothing.
    async fn upgraded(&self);

    /// Goes on as that binary, in the same process: systemd sees no end, so nothing is stopped. Returns only if that binary does not run,
    /// which it says.
    async fn execute_anew(&self);

    /// The type of the job that systemd runs for `unit`: `stop`, `restart`…
    async fn job_of(&self, unit: &UnitName) -> Result<Option<String>, SystemdError>;

    /// The units that are bound to `unit`, each with its active state.
    async fn bound_to(&self, unit: &UnitName) -> Result<Vec<(String, String)>, SystemdError>;
}

/// The host that this process runs on.
pub(super) struct Booted {
    bus: Bus,
    terminate: Mutex<Signal>,
    hangup: Mutex<Signal>,
}

impl Booted {
    /// From now on the signals do not end this process by themselves.
    pub(super) fn new(bus: Bus) -> anyhow::Result<Booted> {
        let terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
        let hangup = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
        Ok(Booted { bus, terminate: Mutex::new(terminate), hangup: Mutex::new(hangup) })
    }
}

#[async_trait]
impl Host for Booted {
    fn since_boot(&self) -> Duration {
        let now = clock_gettime(ClockId::Boottime);
        Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
    }

    fn wall_ms(&self) -> u64 {
        clock::wall_ms()
    }

    fn boot_id(&self) -> String {
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_string()
    }

    async fn sleep(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    fn ping(&self, ready: bool) {
        use sd_notify::NotifyState::{Ready, Watchdog};
        let _ = if ready { sd_notify::notify(&[Ready, Watchdog]) } else { sd_notify::notify(&[Watchdog]) };
    }

    async fn terminated(&self) {
        self.terminate.lock().await.recv().await;
    }

    async fn upgraded(&self) {
        self.hangup.lock().await.recv().await;
    }

    async fn execute_anew(&self) {
        use std::os::unix::process::CommandExt;
        let mut arguments = std::env::args_os();
        let Some(program) = arguments.next() else { return };
        let works = Command::new(&program).arg("--version").output();
        if !works.as_ref().is_ok_and(|said| said.status.success()) {
            return warn!("{} does not run ({works:?}); going on with the old binary", program.display());
        }
        let error = Command::new(&program).args(arguments).exec();
        warn!("cannot execute {}: {error}; going on with the old binary", program.display());
    }

    async fn job_of(&self, unit: &UnitName) -> Result<Option<String>, SystemdError> {
        own_job::own_job(&self.bus, unit).await
    }

    async fn bound_to(&self, unit: &UnitName) -> Result<Vec<(String, String)>, SystemdError> {
        own_job::bound_units(&self.bus, unit).await
    }
}
