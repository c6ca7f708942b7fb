//! What an agent reports of an instance.

use super::seen::{Phase, phase};
use super::{ImageState, Seen, SystemdState};
use crate::model::InstanceStatus;

/// What is said of an instance in the report.
pub fn status(seen: &Seen, since_ms: u64) -> InstanceStatus {
    let written = seen.marker.as_ref().filter(|marker| !marker.writing);
    let state = seen.systemd.clone().unwrap_or_else(|| SystemdState {
        load: if written.is_some() { "loaded" } else { "not-found" }.to_string(),
        active: "inactive".to_string(),
        sub: "dead".to_string(),
        job: false,
    });
    // With a job queued the unit is on its way, whatever state it is still in: a start just asked
    // for is not "ended".
    let refused = seen.trouble.message.is_some() && seen.systemd.is_none();
    let state = if refused {
        SystemdState { active: "failed".to_string(), sub: "failed".to_string(), ..state }
    } else {
        state
    };
    let queued = state.job && ["inactive", "failed"].contains(&state.active.as_str());
    // A job on a running unit is its stop or restart, not carried out yet: who counts what is up
    // must not count on it.
    let stopping = state.job && state.active == "active";
    let state =
        if stopping { SystemdState { active: "deactivating".to_string(), ..state } } else { state };
    // Whether it takes the new values is open until its reload has ended.
    let reloading = state.job && state.active == "reloading";
    // What failed and has just been started again is on its way up until it has stayed up.
    let again = seen.settling && seen.trouble.failures > 0 && state.active == "active";
    let (active, sub) = ("activating".to_string(), "settling".to_string());
    let state = if again { SystemdState { active, sub, ..state } } else { state };
    // A pod is what all of its containers are together.
    let failed_part = seen.failed_part.as_ref().filter(|_| state.active == "active");
    let state = match failed_part {
        Some(_) => {
            SystemdState { active: "failed".to_string(), sub: "failed".to_string(), ..state }
        }
        None => state,
    };
    let of_part = || failed_part.map(|part| format!("{part}, a container of the pod, failed"));
    let down = ["inactive", "failed"].contains(&state.active.as_str()) && !queued;
    let ended = phase(seen) == Phase::Down
        && !refused
        && seen.stopped.is_none()
        && !seen.asking
        && written.is_some_and(|marker| marker.launched && marker.has_done_its_work());
    let stays_down = down && seen.stopped.is_none() && seen.given_up.is_some();
    let waits = down && !ended && !stays_down && seen.trouble.failures > 0;
    let given_up = || {
        let said = seen.given_up.as_ref().filter(|_| stays_down || seen.is_unhealthy())?;
        let state = if stays_down { "failed" } else { "unhealthy" };
        Some(format!("it stays {state} ({said}); fleetctl restart tries it once more"))
    };
    let status = InstanceStatus {
        load: state.load,
        active: if queued { "activating".to_string() } else { state.active },
        sub: if queued { "queued".to_string() } else { state.sub },
        since_ms,
        hash: written.map(|marker| marker.hash.clone()).unwrap_or_default(),
        launched: seen.marker.as_ref().is_some_and(|marker| marker.launched),
        ended,
        restart: seen.marker.as_ref().map_or(0, |marker| marker.restart),
        config: written
            .and_then(|marker| marker.config.as_ref())
            .map_or(0, |config| config.revision.saturating_sub(u64::from(reloading))),
        restarts: seen.trouble.failures,
        settling: seen.settling,
        health: seen.health.clone(),
        next_try_ms: waits.then_some(seen.trouble.not_before_ms),
        gave_up: seen.trouble.gave_up() && !stays_down && seen.given_up.is_none(),
        stays_down,
        message: seen
            .trouble
            .message
            .clone()
            .or_else(of_part)
            .or_else(given_up)
            .or_else(|| seen.stopped.as_ref()?.waits()),
        ..InstanceStatus::default()
    };
    with_image(status, seen)
}

/// The same, for one that is to be started or restarted once its image is there. What runs
/// meanwhile is as well as ever.
fn with_image(mut status: InstanceStatus, seen: &Seen) -> InstanceStatus {
    let down = ["inactive", "failed"].contains(&status.active.as_str());
    match &seen.image {
        ImageState::Ready | ImageState::Unknown | ImageState::Missing => {}
        ImageState::Pulling(what) => {
            if down {
                status.active = "activating".to_string();
            }
            (status.sub, status.pulls) = ("pulling".to_string(), Some(what.clone()));
        }
        ImageState::Failed(trouble) => {
            if down {
                (status.active, status.sub) = ("failed".to_string(), "failed".to_string());
                status.restarts = status.restarts.max(trouble.failures);
                status.gave_up |= trouble.gave_up();
            }
            status.next_try_ms = Some(trouble.not_before_ms);
            status.message = status.message.or_else(|| trouble.message.clone());
        }
    }
    status
}
