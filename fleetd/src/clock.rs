//! The time that fleetd works with: the wall clock at start plus what has passed since, so a stepped clock moves no pause.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970, monotonic within one run.
pub fn now_ms() -> u64 {
    static START: OnceLock<(Instant, u64)> = OnceLock::new();
    let (start, wall_ms) = START.get_or_init(|| {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        (Instant::now(), wall.as_millis() as u64)
    });
    wall_ms + start.elapsed().as_millis() as u64
}
