//! The sentences of "What must work", each shown on real hosts: booted systemd, real D-Bus, real
//! etcd, real containers.
//!
//! One lab a scenario, several sentences a lab. What runs is asked of each host's own systemd,
//! never only of fleet. Nothing here sleeps for a time to make something happen: it waits for a
//! state, or watches for a time that nothing happens.

mod applications;
mod bad_input;
mod config_values;
mod configuration;
mod constraints;
mod containers;
mod decisions;
mod docker;
mod embedded;
mod failures;
mod fencing;
mod fleetctl;
mod folders;
mod health;
mod images;
mod leaders;
mod leaving;
mod lost_machines;
mod no_surprises;
mod on_hosts;
mod outages;
mod packages;
mod placement;
mod reboots;
mod registry;
mod rolling;
mod start_first;
mod thrift;
mod unit_types;

use std::time::Duration;

use fleet_tests::lab::Options;

/// How long a machine may be silent, in seconds: the default of `agent_ttl`.
pub(crate) const AGENT_LEASE: Duration = Duration::from_secs(10);

/// How long a leader may be silent, in seconds: the default of `leader_ttl`.
pub(crate) const LEADER_LEASE: Duration = Duration::from_secs(3);

/// What a busy machine of two cores may add to a time that the specification states: the tests
/// assert behaviour, the benchmarks speed.
pub(crate) const NOISE: Duration = Duration::from_secs(4);

/// Runs for ever, ends at once when told to, and is not restarted by systemd.
pub(crate) const SLEEPER: &str = "[Unit]\nDescription=Sleeps\n\n[Service]\nExecStart=/bin/sleep \
    infinity\n";

/// A lab's options.
pub(crate) fn lab(name: &str, hosts: usize) -> Options {
    Options { name: format!("test-{name}"), hosts, ..Options::default() }
}
