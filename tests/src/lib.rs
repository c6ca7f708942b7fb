//! What fleet's tests on real machines stand on.
pub mod lab;
