//! TLS and logins, towards a real etcd, at the API, between machines and from fleetctl: who gets
//! in, who does not, and what is said.

mod api;
mod etcd;
