//! What tests, demo and benchmarks share: the [`lab`] of real hosts, a [`cluster`] in one, and a
//! real etcd by itself ([`etcd`]), the judge of what ran when ([`record`]), and programs of another
//! version ([`versions`]).

pub mod certs;
pub mod cluster;
pub mod etcd;
mod http;
pub mod interposed;
pub mod lab;
pub mod record;
pub mod slow;
pub mod versions;
pub mod weighed;

pub use http::{http, http_with};
