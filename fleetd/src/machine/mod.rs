//! This machine in the cluster: its facts, its lease and whether it reaches the store.

pub mod facts;
pub mod health;
pub mod podman;
pub mod session;
pub mod volumes;
