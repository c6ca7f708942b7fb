//! fleetd.

pub mod systemd;
