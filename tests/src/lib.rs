//! What tests, demo and benchmarks share: the [`lab`] of real hosts, a [`cluster`] in one, and a real etcd by itself ([`etcd`]),
//! and the judge of what ran when ([`record`]).

pub mod certs;
pub mod cluster;
pub mod etcd;
mod http;
pub mod lab;
pub mod record;
pub mod slow;

pub use http::{http, http_with};
