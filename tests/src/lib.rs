//! What tests, demo and benchmarks share: the [`lab`] of real hosts, and a real etcd by itself ([`etcd`]).

pub mod etcd;
pub mod lab;
