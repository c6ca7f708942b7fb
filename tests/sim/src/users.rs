//! The users: each sends one request after the other through fleetd's own router, and every answer
//! goes into the ledger.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use fleet_core::app::Checksum;
use fleet_core::model::{Settings, UnitRecord};
use fleetd::api::Who;
use fleetd::process::clock::with_clock;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tower::ServiceExt;

use crate::acts::{self, Asked};
use crate::apps;
use crate::host::Host;
use crate::judge::SharedJudge;
use crate::ledger::{
    Answer, ConfigOperation, Fields, Ledger, MachineOperation, Said, UnitOperation,
};
use crate::script::{Wish, text};
use crate::values::KEYS;
use crate::verdict::Check;

/// How long a user waits for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The label that operators set.
const LABEL: &str = "disk";

/// What users were told.
pub type Ledgers = Arc<Mutex<Told>>;

/// One ledger a unit, and one a machine.
#[derive(Debug, Default)]
pub struct Told {
    /// By the unit's name.
    pub units: BTreeMap<&'static str, Ledger<UnitOperation>>,
    /// By the machine's number.
    pub machines: BTreeMap<usize, Ledger<MachineOperation>>,
    /// The configuration's.
    pub config: Ledger<ConfigOperation>,
    /// Who asked what, and how it was answered.
    pub asked: Asked,
}

/// What a wish writes, and into whose ledger it goes.
enum Written {
    Unit(&'static str, UnitOperation),
    Machine(usize, MachineOperation),
    Config(ConfigOperation),
}

impl Told {
    fn sent(&mut self, id: u64, written: Written) {
        match written {
            Written::Unit(unit, operation) => {
                self.units.entry(unit).or_default().sent(id, operation)
            }
            Written::Machine(machine, operation) => {
                self.machines.entry(machine).or_default().sent(id, operation)
            }
            Written::Config(operation) => self.config.sent(id, operation),
        }
    }

    /// False if nothing explains this answer.
    fn answered(&mut self, id: u64, wish: &Wish, answer: Answer) -> bool {
        match written(wish) {
            Some(Written::Unit(unit, _)) => {
                self.units.entry(unit).or_default().answered(id, answer)
            }
            Some(Written::Machine(machine, _)) => {
                self.machines.entry(machine).or_default().answered(id, answer)
            }
            Some(Written::Config(_)) => self.config.answered(id, answer),
            None => true,
        }
    }
}

/// A user: takes wishes, each with the machine to ask.
pub fn user(
    number: usize,
    hosts: Vec<Arc<Host>>,
    ledgers: Ledgers,
    judge: SharedJudge,
) -> mpsc::UnboundedSender<(usize, Wish)> {
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

async fn ask(
    id: u64,
    hosts: &[Arc<Host>],
    over: usize,
    wish: Wish,
    ledgers: &Ledgers,
    judge: &SharedJudge,
) {
    {
        let mut ledgers = ledgers.lock().expect("no panic over ledgers");
        ledgers.asked.insert(acts::name(id), (wish.clone(), Answer::Unknown));
        if let Some(written) = written(&wish) {
            ledgers.sent(id, written);
        }
    }
    let host = &hosts[over];
    let mut sent = None;
    for (path, content) in contents(&wish) {
        sent = Some(send(id, host, (Method::PUT, path, content), "application/octet-stream").await);
        if !sent.flatten().is_some_and(|status| status.is_success()) {
            break;
        }
    }
    let status = match sent {
        Some(status) if !status.is_some_and(|status| status.is_success()) => status,
        _ => send(id, host, request(&wish, hosts), "application/json").await,
    };
    let answer = match status {
        Some(status) if status.is_success() => Answer::Accepted,
        Some(status) if status.is_client_error() => Answer::Refused,
        _ => Answer::Unknown,
    };
    judge.lock().note(format!(
        "user over machine {over}: {wish:?}: {answer:?} {}",
        status.map_or(0, |status| status.as_u16())
    ));
    let mut ledgers = ledgers.lock().expect("no panic over ledgers");
    ledgers.asked.insert(acts::name(id), (wish.clone(), answer));
    if !ledgers.answered(id, &wish, answer) {
        let what =
            format!("no order of what users asked explains the answer {answer:?} to {wish:?}");
        judge.lock().fail(Check::Ledger, what);
    }
}

/// The status of the answer, if there is one in time.
async fn send(
    id: u64,
    host: &Host,
    (method, path, body): (Method, String, String),
    kind: &str,
) -> Option<StatusCode> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::CONTENT_TYPE, kind)
        .extension(Who::Certificate(acts::name(id).into()))
        .body(Body::from(body))
        .expect("a request");
    let served = with_clock(host.wall_clock(), host.router.clone().oneshot(request));
    match timeout(PATIENCE, served).await {
        Ok(Ok(response)) => Some(response.status()),
        Ok(Err(never)) => match never {},
        Err(_) => None,
    }
}

/// What is sent before the request: the files of an application.
fn contents(wish: &Wish) -> Vec<(String, String)> {
    let Wish::Apply { version } = wish else { return Vec::new() };
    let blob = |path: &&str| {
        let content = apps::content(path, *version);
        let sum = Checksum::of(content.as_bytes());
        (format!("/fleet/v1/apps/{}/blobs/{sum}", apps::APP), content)
    };
    apps::FILES.iter().map(blob).collect()
}

/// What the ledger knows of it. What becomes of an application is judged as it is written.
fn written(wish: &Wish) -> Option<Written> {
    Some(match wish {
        Wish::Apply { .. } | Wish::DestroyApp => return None,
        Wish::Submit { unit, text: number, desired } => {
            Written::Unit(unit, UnitOperation::Submit(text(unit, *number), *desired))
        }
        Wish::Desire { unit, desired } => Written::Unit(unit, UnitOperation::Desire(*desired)),
        Wish::Scale { unit, replicas } => Written::Unit(unit, UnitOperation::Scale(*replicas)),
        Wish::Restart { unit } => Written::Unit(unit, UnitOperation::Restart),
        Wish::Rollback { unit } => Written::Unit(unit, UnitOperation::Rollback),
        Wish::Destroy { unit } => Written::Unit(unit, UnitOperation::Destroy),
        Wish::Steer { unit, .. } => Written::Unit(unit, UnitOperation::Steer),
        Wish::Label { machine, value } => {
            Written::Machine(*machine, MachineOperation::Label(value.to_string()))
        }
        Wish::Availability { machine, availability } => {
            Written::Machine(*machine, MachineOperation::Availability(*availability))
        }
        Wish::Set { value } => Written::Config(ConfigOperation::Set(value.to_string())),
        Wish::RollConfigBack => Written::Config(ConfigOperation::Rollback),
    })
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
        Wish::Desire { unit, desired } => (
            Method::PUT,
            at(unit, ""),
            serde_json::json!({"desiredState": desired.as_str()}).to_string(),
        ),
        Wish::Scale { unit, replicas } => (
            Method::PUT,
            at(unit, "/replicas"),
            serde_json::json!({"replicas": replicas}).to_string(),
        ),
        Wish::Restart { unit } => (Method::POST, at(unit, "/restart"), "{}".to_string()),
        Wish::Destroy { unit } => (Method::DELETE, at(unit, ""), String::new()),
        Wish::Rollback { unit } => (Method::POST, at(unit, "/rollback"), "{}".to_string()),
        Wish::Availability { machine, availability } => {
            let path = format!("/fleet/v1/machines/{}/availability", hosts[*machine].id);
            (
                Method::PUT,
                path,
                serde_json::json!({"availability": availability.as_str()}).to_string(),
            )
        }
        Wish::Label { machine, value } => {
            let path = format!("/{}/metadata/{LABEL}", hosts[*machine].id);
            let body = serde_json::json!([{"op": "add", "path": path, "value": value.to_string()}]);
            (Method::PATCH, "/fleet/v1/machines".to_string(), body.to_string())
        }
        Wish::Set { value } => {
            let value = value.to_string();
            let set: BTreeMap<&str, &str> = KEYS.iter().map(|key| (*key, &*value)).collect();
            let body = serde_json::json!({"set": set});
            (Method::PATCH, "/fleet/v1/config/shop".to_string(), body.to_string())
        }
        Wish::Steer { unit, action } => {
            let body = serde_json::json!({"action": action}).to_string();
            (Method::POST, format!("/fleet/v1/rollouts/{unit}"), body)
        }
        Wish::Apply { version } => {
            let path = format!("/fleet/v1/apps/{}", apps::APP);
            (Method::POST, path, apps::body(*version).to_string())
        }
        Wish::DestroyApp => {
            (Method::DELETE, format!("/fleet/v1/apps/{}", apps::APP), String::new())
        }
        Wish::RollConfigBack => {
            (Method::POST, "/fleet/v1/config/shop/rollback".to_string(), "{}".to_string())
        }
    }
}

/// What the ledger knows of a record whose unit has had these texts.
pub fn fields(record: &UnitRecord, texts: Vec<String>) -> Fields {
    Fields { texts, desired: record.desired, replicas: record.replicas, restarts: record.restart }
}

/// What the ledger knows of an operator's settings.
pub fn said(settings: &Settings) -> Said {
    let label = settings.metadata.get(LABEL).cloned().unwrap_or_default();
    Said { label, availability: settings.availability.as_str() }
}
