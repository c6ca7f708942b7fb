//! fleetd: the daemon on every machine. Agent, API and a stand-by engine around one store; the
//! engine that holds the lease plans.
//!
//! Start at [`daemon`], which is wiring only; then [`leader::engine`] and [`agent`], which have the
//! same shape and never meet.

pub mod agent;
pub mod api;
pub mod config;
pub mod copy;
pub mod daemon;
pub mod keeper;
pub mod leader;
pub mod leave;
pub mod machine;
pub mod metrics;
pub mod probe;
pub mod process;
pub mod reload;
pub mod store;
pub mod systemd;
