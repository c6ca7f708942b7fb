//! What must hold for any unit file and any request: functions that panic if it does not.
//!
//! The fuzzers call them with what they make up, the tests of this crate with the corpus, which
//! holds what fuzzers once found.

mod api;
mod unit_file;

pub use api::api;
pub use unit_file::unit_file;
