//! What a keeper and its guard stand on: their host's clock, the signal that they are sent, and the
//! systemd that watches them.

use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use fleet_core::name::UnitName;
use rustix::time::{ClockId, clock_gettime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Mutex;

use crate::process::clock;
use crate::process::notify::Notifier;
use crate::systemd::SystemdError;
use crate::systemd::dbus::Bus;
use crate::systemd::own_job;

/// The host of a keeper, or of a guard. The real one is `Booted`; the simulator has one of its own
/// (`tests/sim`).
#[async_trait]
pub trait Host: Send + Sync + 'static {
    /// The time since the host's boot. It goes on while the host is suspended: what slept through
    /// its lease must not take it for fresh.
    fn since_boot(&self) -> Duration;

    /// Milliseconds since 1970 by the wall clock, to show.
    fn wall_ms(&self) -> u64;

    /// The kernel's name for this boot.
    fn boot_id(&self) -> String;

    /// Passes this much of the host's time.
    async fn sleep(&self, time: Duration);

    /// Tells systemd's watchdog that this process lives; with `ready`, also that its start is done.
    fn ping(&self, ready: bool);

    /// Returns when it is told to end (SIGTERM). Dropping it loses nothing.
    async fn terminated(&self);

    /// The type of the job that systemd runs for `unit`: `stop`, `restart`…
    async fn job_of(&self, unit: &UnitName) -> Result<Option<String>, SystemdError>;

    /// The units that are bound to `unit`, each with its active state.
    async fn bound_to(&self, unit: &UnitName) -> Result<Vec<(String, String)>, SystemdError>;
}

/// The host that this process runs on.
pub(super) struct Booted {
    bus: Bus,
    terminate: Mutex<Signal>,
    systemd: Notifier,
}

impl Booted {
    /// From now on SIGTERM does not end this process by itself.
    pub(super) fn new(bus: Bus) -> anyhow::Result<Booted> {
        let terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
        let systemd = Notifier::from_environment();
        Ok(Booted { bus, terminate: Mutex::new(terminate), systemd })
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
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .unwrap_or_default()
            .trim()
            .to_string()
    }

    async fn sleep(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    fn ping(&self, ready: bool) {
        use sd_notify::NotifyState::{Ready, Watchdog};
        // One that is lost is made up for by the next.
        let _ = if ready {
            self.systemd.say(&[Ready, Watchdog])
        } else {
            self.systemd.say(&[Watchdog])
        };
    }

    async fn terminated(&self) {
        self.terminate.lock().await.recv().await;
    }

    async fn job_of(&self, unit: &UnitName) -> Result<Option<String>, SystemdError> {
        own_job::own_job(&self.bus, unit).await
    }

    async fn bound_to(&self, unit: &UnitName) -> Result<Vec<(String, String)>, SystemdError> {
        own_job::bound_units(&self.bus, unit).await
    }
}
