//! Certificates: files in, rustls configurations out, and one clear sentence when something about
//! them is wrong.
//!
//! fleetd (etcd, its API, other machines) and fleetctl share it. There is no way here to skip
//! verification.
//!
//! Absent: sockets, and any retry. Revocation lists: keep lifetimes short, or change the CA.

mod config;
mod explain;
mod files;
mod name;
mod reload;

pub use config::{client, plain, server};
pub use explain::explain;
pub use files::{Files, Identity, TlsError};
pub use name::name_of;
pub use reload::Reloading;
