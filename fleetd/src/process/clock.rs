//! The time that fleetd works with: the wall clock at start plus what has passed since, so a
//! stepped clock moves no pause.
//!
//! The simulator gives each of its machines a clock of its own, see [`with_clock`]; nothing else
//! does.

use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970, monotonic within one run.
pub fn now_ms() -> u64 {
    CLOCK.try_with(|clock| clock()).unwrap_or_else(|_| host_ms())
}

/// A clock: what [`now_ms`] answers.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

tokio::task_local! {
    static CLOCK: Clock;
}

/// Runs `part` by another clock. A task that `part` spawns goes by the host's again.
pub async fn with_clock<F: Future>(clock: Clock, part: F) -> F::Output {
    CLOCK.scope(clock, part).await
}

/// Whether another clock than the host's goes here: time is simulated, and nothing may depend on
/// which thread is faster.
pub fn is_simulated() -> bool {
    CLOCK.try_with(|_| ()).is_ok()
}

/// For a task of its own: `part` by the clock that goes here.
pub fn by_this_clock<F: Future>(part: F) -> impl Future<Output = F::Output> {
    let clock = CLOCK.try_with(Arc::clone).ok();
    async move {
        match clock {
            Some(clock) => with_clock(clock, part).await,
            None => part.await,
        }
    }
}

fn host_ms() -> u64 {
    static START: OnceLock<(Instant, u64)> = OnceLock::new();
    let (start, wall_ms) = START.get_or_init(|| {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        (Instant::now(), wall.as_millis() as u64)
    });
    wall_ms + start.elapsed().as_millis() as u64
}

/// Milliseconds since 1970 by the wall clock, which may be set at any time: to show, not to count
/// with.
pub fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}
