//! Counters for operators and tests, in Prometheus' text form, fleet 1.0's names where it had them. Counted where things happen.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use fleet_core::plan::{Change, Plan};

use crate::systemd::counters::Counters;

/// What this fleetd has done since it started.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Since when this engine leads, in seconds since 1970; 0 while it does not.
    pub leader_since_s: AtomicU64,
    /// Passes of the engine.
    pub ticks: AtomicU64,
    /// Passes that failed.
    pub tick_failures: AtomicU64,
    /// Time spent in passes, in microseconds.
    pub tick_us: AtomicU64,
    placed: AtomicU64,
    retired: AtomicU64,
    updated: AtomicU64,
    documents: AtomicU64,
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

    /// All of it as text, with what was asked of systemd.
    pub fn render(&self, systemd: &Counters) -> String {
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
        one("fleet_engine_reconcile_count_total", "counter", "Passes of the engine.", &[("", read(&self.ticks))]);
        one(
            "fleet_engine_reconcile_failure_count_total",
            "counter",
            "Passes of the engine that failed.",
            &[("", read(&self.tick_failures))],
        );
        one(
            "fleet_engine_reconcile_duration_seconds_total",
            "counter",
            "Time spent in passes.",
            &[("", read(&self.tick_us) / 1e6)],
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
        one("fleet_engine_documents_written_total", "counter", "Assignments written.", &[("", read(&self.documents))]);
        let calls = [
            ("{kind=\"list\"}", systemd.list),
            ("{kind=\"outcome\"}", systemd.outcome),
            ("{kind=\"reload\"}", systemd.reload),
            ("{kind=\"start\"}", systemd.start),
            ("{kind=\"stop\"}", systemd.stop),
            ("{kind=\"restart\"}", systemd.restart),
            ("{kind=\"reset-failed\"}", systemd.reset_failed),
            ("{kind=\"enable\"}", systemd.enable),
            ("{kind=\"disable\"}", systemd.disable),
            ("{kind=\"upkeep\"}", systemd.upkeep),
        ];
        one(
            "fleet_systemd_calls_total",
            "counter",
            "Calls to systemd over D-Bus.",
            &calls.map(|(labels, count)| (labels, count as f64)),
        );
        one("fleet_systemd_connections_total", "counter", "Connections made to the bus.", &[("", systemd.connect as f64)]);
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
