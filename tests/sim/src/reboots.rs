//! Updaters: each wants its machine rebooted, asks for that by FleetLock, reboots when it may, and
//! says so when it is back; and the judge of how many are down by that.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use fleetd::api::Who;
use fleetd::process::clock::with_clock;
use tokio::time::{Instant, sleep, timeout};
use tower::ServiceExt;

use crate::acts;
use crate::host::Host;
use crate::judge::SharedJudge;
use crate::verdict::Check;

/// How many machines may be down by leave: nobody sets another number.
const SLOTS: usize = 1;

/// How long an updater asks for leave. Then it gives up, and says that it is steady.
pub const ASKS_MS: u64 = 60_000;

/// How often it asks.
const PERIOD: Duration = Duration::from_secs(3);

/// How long it waits for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The machines that have leave.
#[derive(Default)]
pub(crate) struct Reboots {
    down: BTreeSet<usize>,
}

impl Reboots {
    /// A machine was told that it may reboot.
    pub(crate) fn may(&mut self, machine: usize) -> Result<(), String> {
        self.down.insert(machine);
        match self.down.len() <= SLOTS {
            true => Ok(()),
            false => {
                Err(format!("machines {:?} may all reboot, and {SLOTS} may be down", self.down))
            }
        }
    }

    /// A machine is about to say that it is steady.
    pub(crate) fn is_steady(&mut self, machine: usize) {
        self.down.remove(&machine);
    }
}

/// An updater wants its machine rebooted, which takes this long.
pub(crate) async fn update(host: Arc<Host>, judge: SharedJudge, down: Duration) {
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(ASKS_MS) {
        if ask(&host, &judge, "pre-reboot").await {
            let told = judge.lock().may_reboot(host.number);
            if let Err(what) = told {
                judge.lock().fail(Check::Reboots, what);
            }
            host.stop(true).await;
            host.power_off();
            sleep(down).await;
            host.start();
            break;
        }
        sleep(PERIOD).await;
    }
    judge.lock().is_steady(host.number);
    while !ask(&host, &judge, "steady-state").await {
        sleep(PERIOD).await;
    }
}

/// Whether the answer to a request is a yes.
async fn ask(host: &Host, judge: &SharedJudge, what: &str) -> bool {
    let client = serde_json::json!({"id": host.id.as_str(), "group": "default"});
    let body = serde_json::json!({"client_params": client}).to_string();
    let request = Request::post(format!("/v1/{what}"))
        .header("fleet-lock-protocol", "true")
        .header(header::CONTENT_TYPE, "application/json")
        .extension(Who::Certificate(acts::updater(host.number).into()))
        .body(Body::from(body))
        .expect("a request");
    let served = with_clock(host.wall_clock(), host.router.clone().oneshot(request));
    let status = match timeout(PATIENCE, served).await {
        Ok(Ok(response)) => response.status(),
        Ok(Err(never)) => match never {},
        Err(_) => StatusCode::REQUEST_TIMEOUT,
    };
    judge.lock().note(format!("m{} {what}: {}", host.number, status.as_u16()));
    status == StatusCode::OK
}
