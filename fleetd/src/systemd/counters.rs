//! What was asked of systemd, counted alike for the real one and the simulated one: for metrics,
//! and for tests that set bars on it.

use std::sync::Mutex;

/// Totals since the start of the process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Calls that read the states of units.
    pub list: u64,
    /// Calls that read why a unit is in its state.
    pub outcome: u64,
    /// Calls that had systemd read its unit files again: the dear ones.
    pub reload: u64,
    /// `StartUnit` calls.
    pub start: u64,
    /// `StopUnit` calls.
    pub stop: u64,
    /// `RestartUnit` calls.
    pub restart: u64,
    /// `ReloadUnit` calls.
    pub reload_unit: u64,
    /// `ResetFailedUnit` calls.
    pub reset_failed: u64,
    /// `EnableUnitFiles` calls.
    pub enable: u64,
    /// `DisableUnitFiles` calls.
    pub disable: u64,
    /// Calls for health checks that run a command.
    pub check: u64,
    /// Calls for the connection's own upkeep: the search path, and the check for lost job ends.
    pub upkeep: u64,
    /// Looks into the journal, which are no bus calls.
    pub journal: u64,
    /// Units written.
    pub write: u64,
    /// Units removed.
    pub remove: u64,
    /// Connections made; one more than the times that the bus was lost.
    pub connect: u64,
    /// The most calls that were in flight at once.
    pub most_calls: usize,
    /// The most jobs that were in flight at once.
    pub most_jobs: usize,
}

impl Counters {
    /// All bus calls.
    pub fn calls(&self) -> u64 {
        let asked = self.list + self.outcome + self.reload + self.check + self.upkeep;
        asked
            + self.start
            + self.stop
            + self.restart
            + self.reload_unit
            + self.reset_failed
            + self.enable
            + self.disable
    }
}

/// Counters that are still counting.
#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<Counters>);

impl Tally {
    pub(super) fn count(&self, add: impl FnOnce(&mut Counters)) {
        add(&mut self.0.lock().expect("no panic while counting"));
    }

    pub(super) fn read(&self) -> Counters {
        *self.0.lock().expect("no panic while counting")
    }
}
