//! The store: etcd or one embedded file.

pub mod etcd;
pub mod kv;
