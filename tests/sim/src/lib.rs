//! A simulator of the whole cluster, deterministic by seed: fleetd's own engine, agent, session,
//! election, API and planner, in tokio's paused time, over a model of etcd, a network that loses
//! and delays, machines that crash, and a simulated systemd.
//!
//! **Architecture invariant:** a run depends on its seed and options alone. No clock, no randomness
//! of the host's, no unordered map; the only files lie in a folder of the run's own, in memory.
//!
//! Start at [`run`](run::run); a run's faults are chosen in [`script`], and judged in [`judge`] as
//! they happen and in [`settled`] at the end.

pub mod acts;
mod apps;
mod budget;
mod copies;
pub mod etcd;
pub mod gate;
pub mod host;
pub mod judge;
pub mod keeper;
pub mod ledger;
pub mod link;
mod needs;
pub mod network;
mod panics;
mod placing;
pub mod planted;
mod quitting;
pub mod reboots;
mod rollouts;
mod rules;
pub mod run;
pub mod script;
pub mod settled;
pub mod shrink;
mod stand_ins;
pub mod systemd;
mod texts;
pub mod users;
mod values;
pub mod verdict;
