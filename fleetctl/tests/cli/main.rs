//! Runs the built fleetctl against a fake fleetd, and compares all that it prints and its exit
//! code.

mod apps;
mod complete;
mod config;
mod decisions;
mod drain;
mod fake;
mod follow;
mod golden;
mod help;
mod layers;
mod lists;
mod reboots;
mod rollback;
mod rollout;
mod scale;
mod session;
mod ssh;
mod sshd;
mod terminal;
mod transfer;
mod trouble;
mod update;
mod variables;
mod volumes;
mod waiting;
