//! fleetd: the daemon on every machine. Agent, API and a stand-by engine around one store; the engine that holds the lease plans.
//!
//! Start at [`daemon`], which is wiring only; then [`engine`] and [`agent`], which have the same shape and never meet.

pub mod agent;
pub mod api;
pub mod cli;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod descriptors;
pub mod engine;
pub mod event_log;
pub mod files;
pub mod health;
pub mod keeper;
pub mod leader;
pub mod leave;
pub mod machine;
pub mod metrics;
pub mod notify;
pub mod overdue;
pub mod panics;
pub mod planner;
pub mod reload;
pub mod repeated;
pub mod replays;
pub mod session;
pub mod store;
pub mod systemd;
