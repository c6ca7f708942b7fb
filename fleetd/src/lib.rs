//! fleetd.
pub mod store;
