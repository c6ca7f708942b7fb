//! Counters for operators and tests, in Prometheus' text form, fleet 1.0's names where it had them.
//! Counted where things happen.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use fleet_core::model::{Reboots, Snapshot};
use fleet_core::name::MachineId;
use fleet_core::plan::{Change, Plan};
use fleet_core::reboots::state_of;
use fleet_core::unit::on_failure::Kind;
use fleet_core::wire::RebootState;

use crate::probe;
use crate::store::counted::{Counts, Total};
use crate::systemd::counters::Counters;

/// The states of machines that hold a reboot lock.
const REBOOT_STATES: [RebootState; 3] =
    [RebootState::Draining, RebootState::Granted, RebootState::Away];

/// What this fleetd has done since it started.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Since when this engine leads, in seconds since 1970; 0 while it does not.
    pub leader_since_s: AtomicU64,
    /// Passes of the engine.
    pub ticks: AtomicU64,
    /// Passes that failed.
    pub tick_failures: AtomicU64,
    /// Passes that ended in a panic.
    pub engine_panics: AtomicU64,
    /// Time spent in passes, in microseconds.
    pub tick_us: AtomicU64,
    /// Commits that failed.
    pub commit_failures: AtomicU64,
    /// Health checks.
    pub probes: Arc<probe::Tally>,
    placed: AtomicU64,
    retired: AtomicU64,
    updated: AtomicU64,
    documents: AtomicU64,
    reboot_locks: [AtomicU64; REBOOT_STATES.len()],
    /// Failures of instances on this machine, which its agent counts.
    pub failures: Arc<FailureCounts>,
}

/// How often instances failed on this machine, by kind: at most once for each pause between two
/// restarts.
#[derive(Debug, Default)]
pub struct FailureCounts([AtomicU64; Kind::ALL.len()]);

impl FailureCounts {
    /// Counts one.
    pub fn count(&self, kind: Kind) {
        self.0[kind as usize].fetch_add(1, Relaxed);
    }

    /// How many there were of a kind.
    pub fn read(&self, kind: Kind) -> u64 {
        self.0[kind as usize].load(Relaxed)
    }
}

impl Metrics {
    /// Counts a committed plan.
    pub fn committed(&self, plan: &Plan) {
        for change in &plan.changes {
            let counter = match change {
                Change::Place { .. } => &self.placed,
                Change::Retire { .. } => &self.retired,
                Change::Update { .. } => &self.updated,
            };
            counter.fetch_add(1, Relaxed);
        }
        self.documents.fetch_add(plan.documents.len() as u64, Relaxed);
    }

    /// Notes who holds a reboot lock.
    pub fn note_reboots(&self, reboots: &Reboots, snapshot: &Snapshot) {
        let is_there = |id: &MachineId| snapshot.machines.contains_key(id);
        for (state, count) in REBOOT_STATES.iter().zip(&self.reboot_locks) {
            let locks = reboots.locks.iter();
            let so = locks.filter(|(id, lock)| state_of(lock, is_there(id)) == *state).count();
            count.store(so as u64, Relaxed);
        }
    }

    /// All of it as text, with what was asked of systemd and of the store.
    pub fn render(&self, systemd: &Counters, store: &Counts) -> String {
        let mut text = String::new();
        let mut one = |name: &str, kind: &str, help: &str, samples: &[(&str, f64)]| {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (labels, value) in samples {
                let _ = writeln!(text, "{name}{labels} {value}");
            }
        };
        let read = |counter: &AtomicU64| counter.load(Relaxed) as f64;
        one(
            "fleet_engine_leader_start_time",
            "gauge",
            "Since when this engine leads, in seconds since 1970; 0 if it does not.",
            &[("", read(&self.leader_since_s))],
        );
        one(
            "fleet_engine_panics_total",
            "counter",
            "Passes of the engine that ended in a panic.",
            &[("", read(&self.engine_panics))],
        );
        one(
            "fleet_engine_reconcile_count_total",
            "counter",
            "Passes of the engine.",
            &[("", read(&self.ticks))],
        );
        one(
            "fleet_engine_reconcile_failure_count_total",
            "counter",
            "Passes of the engine that failed.",
            &[("{type=\"tick\"}", read(&self.tick_failures))],
        );
        one(
            "fleet_engine_reconcile_duration_second",
            "summary",
            "How long passes took.",
            &[("_sum", read(&self.tick_us) / 1e6), ("_count", read(&self.ticks))],
        );
        one(
            "fleet_engine_task_failure_count_total",
            "counter",
            "Commits that failed; what they held is planned anew.",
            &[("{type=\"commit\"}", read(&self.commit_failures))],
        );
        let asked = store.read();
        let by_kind = |suffix: &str, of: fn(&Total) -> f64| -> Vec<(String, f64)> {
            asked
                .iter()
                .map(|(kind, total)| (format!("{suffix}{{type=\"{kind}\"}}"), of(total)))
                .collect()
        };
        let mut several = |name: &str, kind: &str, help: &str, samples: Vec<(String, f64)>| {
            let samples: Vec<(&str, f64)> =
                samples.iter().map(|(labels, value)| (labels.as_str(), *value)).collect();
            one(name, kind, help, &samples);
        };
        let done = |total: &Total| total.done as f64;
        several(
            "fleet_registry_operation_count_total",
            "counter",
            "Operations on the store.",
            by_kind("", done),
        );
        several(
            "fleet_registry_operation_failed_count_total",
            "counter",
            "Operations on the store that failed.",
            by_kind("", |total| total.failed as f64),
        );
        let mut durations = by_kind("_sum", |total| total.micros as f64 / 1e6);
        durations.extend(by_kind("_count", done));
        several(
            "fleet_registry_operation_duration_second",
            "summary",
            "How long operations on the store took.",
            durations,
        );
        let probes = self.probes.read();
        several(
            "fleet_probes_total",
            "counter",
            "Health checks of instances, by what came of them.",
            probes
                .iter()
                .map(|(result, count)| (format!("{{result=\"{result}\"}}"), *count as f64))
                .collect(),
        );
        let failures = Kind::ALL.map(|kind| {
            (format!("{{result=\"{}\"}}", kind.word()), self.failures.read(kind) as f64)
        });
        several(
            "fleet_agent_unit_failures_total",
            "counter",
            "Failures of units on this machine, by systemd's result.",
            failures.into(),
        );
        let locks = REBOOT_STATES.iter().zip(&self.reboot_locks);
        several(
            "fleet_engine_reboot_locks",
            "gauge",
            "Machines that hold a reboot lock, as the leader sees them; 0 on the others.",
            locks
                .map(|(state, count)| (format!("{{state=\"{}\"}}", state.as_str()), read(count)))
                .collect(),
        );
        one(
            "fleet_engine_task_count_total",
            "counter",
            "Changes committed.",
            &[
                ("{type=\"place\"}", read(&self.placed)),
                ("{type=\"retire\"}", read(&self.retired)),
                ("{type=\"update\"}", read(&self.updated)),
            ],
        );
        one(
            "fleet_engine_documents_written_total",
            "counter",
            "Assignments written.",
            &[("", read(&self.documents))],
        );
        let calls = [
            ("{kind=\"list\"}", systemd.list),
            ("{kind=\"outcome\"}", systemd.outcome),
            ("{kind=\"reload\"}", systemd.reload),
            ("{kind=\"start\"}", systemd.start),
            ("{kind=\"stop\"}", systemd.stop),
            ("{kind=\"restart\"}", systemd.restart),
            ("{kind=\"reload_unit\"}", systemd.reload_unit),
            ("{kind=\"reset-failed\"}", systemd.reset_failed),
            ("{kind=\"enable\"}", systemd.enable),
            ("{kind=\"disable\"}", systemd.disable),
            ("{kind=\"check\"}", systemd.check),
            ("{kind=\"upkeep\"}", systemd.upkeep),
        ];
        one(
            "fleet_systemd_calls_total",
            "counter",
            "Calls to systemd over D-Bus.",
            &calls.map(|(labels, count)| (labels, count as f64)),
        );
        one(
            "fleet_systemd_connections_total",
            "counter",
            "Connections made to the bus.",
            &[("", systemd.connect as f64)],
        );
        one(
            "fleet_systemd_calls_in_flight_max",
            "gauge",
            "The most calls in flight at once so far.",
            &[("", systemd.most_calls as f64)],
        );
        one(
            "fleet_systemd_jobs_in_flight_max",
            "gauge",
            "The most jobs in flight at once so far.",
            &[("", systemd.most_jobs as f64)],
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use fleet_core::model::{Machine, RebootLock};

    use super::*;

    #[test]
    fn every_name_of_fleet_1_0_is_there_and_each_line_is_a_comment_or_a_sample() {
        let text = Metrics::default().render(&Counters::default(), &Counts::default());
        for name in [
            "fleet_engine_leader_start_time",
            "fleet_engine_task_count_total{type=",
            "fleet_engine_task_failure_count_total{type=",
            "fleet_engine_reconcile_count_total",
            "fleet_engine_reconcile_duration_second_sum",
            "fleet_engine_reconcile_failure_count_total{type=",
            "fleet_registry_operation_count_total{type=\"txn\"}",
            "fleet_registry_operation_failed_count_total{type=\"get\"}",
            "fleet_registry_operation_duration_second_sum{type=\"range\"}",
            "fleet_registry_operation_duration_second_count{type=\"range\"}",
        ] {
            assert!(text.lines().any(|line| line.starts_with(name)), "{name}");
        }
        for line in text.lines().filter(|line| !line.starts_with("# ")) {
            let value = line.rsplit_once(' ').map(|(_, value)| value.parse::<f64>());
            assert!(matches!(value, Some(Ok(_))), "{line}");
        }
    }

    #[test]
    fn a_machine_that_does_not_come_back_from_its_reboot_is_counted_as_away() {
        let lock = |granted_ms| RebootLock { granted_ms, ..RebootLock::default() };
        let ids = ["a", "b", "c", "d"].map(MachineId::new);
        let given = [None, Some(7), Some(7), Some(7)].map(lock);
        let reboots =
            Reboots { locks: ids.clone().into_iter().zip(given).collect(), ..Reboots::default() };
        let there = ids[..2].iter().map(|id| (id.clone(), Arc::new(Machine::new(id.clone(), ""))));
        let snapshot = Snapshot { machines: there.collect(), ..Snapshot::default() };
        let metrics = Metrics::default();
        let says = |metrics: &Metrics, line: &str| {
            let text = metrics.render(&Counters::default(), &Counts::default());
            assert!(text.lines().any(|said| said == line), "{line} in {text}");
        };
        metrics.note_reboots(&reboots, &snapshot);
        says(&metrics, "fleet_engine_reboot_locks{state=\"draining\"} 1");
        says(&metrics, "fleet_engine_reboot_locks{state=\"granted\"} 1");
        says(&metrics, "fleet_engine_reboot_locks{state=\"away\"} 2");
        metrics.note_reboots(&Reboots::default(), &snapshot);
        says(&metrics, "fleet_engine_reboot_locks{state=\"away\"} 0");
    }
}
