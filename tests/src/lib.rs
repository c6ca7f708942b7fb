//! What tests, demo and benchmarks share: the [`lab`] of real hosts, a [`cluster`] in one, and a real etcd by itself ([`etcd`]).

pub mod cluster;
pub mod etcd;
pub mod lab;
