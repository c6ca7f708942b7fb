//! Waiting for a state instead of sleeping for a time.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// Short against everything the lab waits for, long enough to cost no CPU worth naming.
const POLL: Duration = Duration::from_millis(50);

/// Calls `probe` every 50 ms until it returns `Ok`, and returns what it returned.
///
/// A probe's error is what was seen instead of the wanted state; the last one is part of the
/// message when `timeout` has passed.
pub fn wait_for<T>(
    what: &str,
    timeout: Duration,
    mut probe: impl FnMut() -> Result<T>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        let seen = match probe() {
            Ok(value) => return Ok(value),
            Err(seen) => seen,
        };
        if start.elapsed() >= timeout {
            let waited = start.elapsed().as_secs_f64();
            return Err(anyhow!("waited {waited:.1} s for {what}; last seen: {seen:#}"));
        }
        std::thread::sleep(POLL);
    }
}
