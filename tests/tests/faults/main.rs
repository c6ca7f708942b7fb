//! Faults on real machines, with the workloads' own records as judge (see `fleet_tests::record`).
//!
//! Three hosts, each with a member of etcd. [`control_plane`] breaks everything but the workloads, so no workload may notice;
//! [`machines`] takes machines away, so the count must be back in time and nothing may run twice in the end.

mod control_plane;
mod machines;
mod trial;

use std::time::Duration;

use fleet_tests::lab::Options;

/// How long a machine may be silent, in seconds: the default of `agent_ttl`.
pub(crate) const AGENT_LEASE: Duration = Duration::from_secs(10);

/// A lab's options.
pub(crate) fn lab(name: &str) -> Options {
    Options { name: format!("fault-{name}"), hosts: 3, etcd_members: 3, ..Options::default() }
}
