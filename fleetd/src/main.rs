//! fleetd.
fn main() {}
