//! The store: etcd or one embedded file.

pub mod embedded;
pub mod etcd;
pub mod kv;
