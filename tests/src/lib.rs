//! tests.

pub mod etcd;
