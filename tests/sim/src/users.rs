//! The users: each sends one request after the other through fleetd's own router, and every answer goes into the ledger.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request, header};
use fleet_core::model::UnitRecord;
use fleetd::clock::with_clock;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tower::ServiceExt;

use crate::host::Host;
use crate::judge::SharedJudge;
use crate::ledger::{Answer, Fields, Ledger, Operation};
use crate::script::{ROLLING, Wish, text};
use crate::verdict::Check;

/// How long a user waits for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// One ledger a unit.
pub type Ledgers = Arc<Mutex<BTreeMap<&'static str, Ledger>>>;

/// A user: takes wishes, each with the machine to ask.
pub fn user(number: usize, hosts: Vec<Arc<Host>>, ledgers: Ledgers, judge: SharedJudge) -> mpsc::UnboundedSender<(usize, Wish)> {
    let (sender, mut wishes) = mpsc::unbounded_channel::<(usize, Wish)>();
    tokio::spawn(async move {
        let mut count = 0;
        while let Some((over, wish)) = wishes.recv().await {
            count += 1;
            let id = 1_000_000 * number as u64 + count;
            ask(id, &hosts, over, wish, &ledgers, &judge).await;
        }
    });
    sender
}

async fn ask(id: u64, hosts: &[Arc<Host>], over: usize, wish: Wish, ledgers: &Ledgers, judge: &SharedJudge) {
    let written = operation(&wish);
    if let Some((unit, operation)) = &written {
        ledgers.lock().expect("no panic over ledgers").entry(unit).or_default().sent(id, operation.clone());
    }
    let (method, path, body) = request(&wish, hosts);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(body))
        .expect("a request");
    let served = with_clock(hosts[over].wall_clock(), hosts[over].router.clone().oneshot(request));
    let status = match timeout(PATIENCE, served).await {
        Ok(Ok(response)) => Some(response.status()),
        Ok(Err(never)) => match never {},
        Err(_) => None,
    };
    let answer = match status {
        Some(status) if status.is_success() => Answer::Accepted,
        Some(status) if status.is_client_error() => Answer::Refused,
        _ => Answer::Unknown,
    };
    judge.lock().note(format!("user over machine {over}: {wish:?}: {answer:?} {}", status.map_or(0, |status| status.as_u16())));
    if let Some((unit, _)) = &written {
        let explained =
            ledgers.lock().expect("no panic over ledgers").get_mut(unit).is_none_or(|ledger| ledger.answered(id, answer));
        if !explained {
            let what = format!("no order of what users asked of {unit} explains the answer {answer:?} to {wish:?}");
            judge.lock().fail(Check::Ledger, what);
        }
    }
}

/// What the wish writes, for the ledger of its unit.
fn operation(wish: &Wish) -> Option<(&'static str, Operation)> {
    match wish {
        // What a rollback brings depends on the texts before, which no ledger keeps.
        Wish::Submit { unit: ROLLING, .. } | Wish::Scale { unit: ROLLING, .. } => None,
        Wish::Submit { unit, text: number, desired } => Some((unit, Operation::Submit(text(unit, *number), *desired))),
        Wish::Desire { unit, desired } => Some((unit, Operation::Desire(*desired))),
        Wish::Scale { unit, replicas } => Some((unit, Operation::Scale(*replicas))),
        Wish::Destroy { unit } => Some((unit, Operation::Destroy)),
        Wish::Restart { .. } | Wish::Label { .. } | Wish::Rollback { .. } | Wish::Availability { .. } => None,
    }
}

fn request(wish: &Wish, hosts: &[Arc<Host>]) -> (Method, String, String) {
    let at = |unit: &str, rest: &str| format!("/fleet/v1/units/{unit}{rest}");
    match wish {
        Wish::Submit { unit, text: number, desired } => {
            let mut body = serde_json::json!({"name": unit, "text": text(unit, *number)});
            if let Some(desired) = desired {
                body["desiredState"] = desired.as_str().into();
            }
            (Method::PUT, at(unit, ""), body.to_string())
        }
        Wish::Desire { unit, desired } => {
            (Method::PUT, at(unit, ""), serde_json::json!({"desiredState": desired.as_str()}).to_string())
        }
        Wish::Scale { unit, replicas } => {
            (Method::PUT, at(unit, "/replicas"), serde_json::json!({"replicas": replicas}).to_string())
        }
        Wish::Restart { unit } => (Method::POST, at(unit, "/restart"), String::new()),
        Wish::Destroy { unit } => (Method::DELETE, at(unit, ""), String::new()),
        Wish::Rollback { unit } => (Method::POST, at(unit, "/rollback"), "{}".to_string()),
        Wish::Availability { machine, availability } => {
            let path = format!("/fleet/v1/machines/{}/availability", hosts[*machine].id);
            (Method::PUT, path, serde_json::json!({"availability": availability.as_str()}).to_string())
        }
        Wish::Label { machine, value } => {
            let path = format!("/{}/metadata/disk", hosts[*machine].id);
            let body = serde_json::json!([{"op": "add", "path": path, "value": value.to_string()}]);
            (Method::PATCH, "/fleet/v1/machines".to_string(), body.to_string())
        }
    }
}

/// What the ledger knows of a record.
pub fn fields(record: &UnitRecord) -> Fields {
    Fields { text: record.text.clone(), desired: record.desired, replicas: record.replicas }
}
