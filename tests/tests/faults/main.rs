//! Faults on real machines, with the workloads' own records as judge (see `fleet_tests::record`).
//!
//! Three hosts, each with a member of etcd. [`control_plane`] breaks everything but the workloads,
//! so no workload may notice; [`machines`] takes machines away, so the count must be back in time
//! and nothing may run twice in the end; [`cuts`] cuts their network both ways and one way;
//! [`upgrade`] has two versions of fleetd at once.

mod control_plane;
mod cuts;
mod machines;
mod trial;
mod upgrade;

use std::time::Duration;

use fleet_tests::lab::Options;

/// How long a machine may be silent, in seconds: the default of `agent_ttl`.
pub(crate) const AGENT_LEASE: Duration = Duration::from_secs(10);

/// How long a leader may be silent, in seconds: the default of `leader_ttl`.
pub(crate) const LEADER_LEASE: Duration = Duration::from_secs(3);

/// What a busy machine of two cores may add to a time that is promised.
pub(crate) const NOISE: Duration = Duration::from_secs(5);

/// A lab's options.
pub(crate) fn lab(name: &str) -> Options {
    Options { name: format!("fault-{name}"), hosts: 3, etcd_members: 3, ..Options::default() }
}
