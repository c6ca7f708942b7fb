//! FleetLock: `POST /v1/pre-reboot` and `/v1/steady-state`, by which Zincati and others ask whether
//! their machine may reboot. The protocol is Zincati's: a status other than 200 is a no, whose
//! reason stands in the body.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use fleet_core::name::MachineId;
use fleet_core::reboots::{is_group, machine_called};
use fleet_core::wire::{FleetLock, FleetLockRefusal};
use serde_json::json;

use super::Api;
use super::body::decode;
use super::describe::{Body, Operation, Resource};
use super::reboot_locks::{Denied, give_back, grant, known};
use super::who::Who;
use crate::store::{Part, StoreError};

/// A header that no form of a web page and no redirection sends.
const HEADER: &str = "fleet-lock-protocol";

/// What is answered beside the prefixes.
pub(super) fn at_root() -> Vec<Resource> {
    let asked = |id, summary, says| {
        Operation::new(id, summary)
            .takes::<FleetLock>()
            .example(json!({"client_params": {
                "id": "c2e1b5180a5ec645aa037c911a0f20bb",
                "group": "default"
            }}))
            .answers(StatusCode::OK, says, Body::None)
            .refuses::<FleetLockRefusal>(400, "The request is not FleetLock's.")
            .refuses::<FleetLockRefusal>(404, "The id is no machine's.")
            .refuses::<FleetLockRefusal>(409, "Not now; the body says why.")
            .refuses::<FleetLockRefusal>(500, "That is a bug of fleetd.")
            .refuses::<FleetLockRefusal>(503, "The store cannot be reached. Ask again.")
    };
    vec![
        Resource::at("/v1/pre-reboot").post(
            pre_reboot,
            asked(
                "fleetLockPreReboot",
                "Asks for leave to reboot a machine (FleetLock). It is drained first.",
                "It may reboot.",
            ),
        ),
        Resource::at("/v1/steady-state").post(
            steady_state,
            asked(
                "fleetLockSteadyState",
                "Says that a machine has rebooted, or does not want to (FleetLock).",
                "It holds no lock any more.",
            ),
        ),
    ]
}

async fn pre_reboot(
    State(api): State<Api>,
    who: Who,
    headers: HeaderMap,
    body: Bytes,
) -> Result<(), Refusal> {
    let (id, group) = asked(&api, &headers, &body).await?;
    grant(&api, &id, &group, &who).await.map_err(|denied| refused(&id, &denied))
}

async fn steady_state(
    State(api): State<Api>,
    who: Who,
    headers: HeaderMap,
    body: Bytes,
) -> Result<(), Refusal> {
    let (id, _) = asked(&api, &headers, &body).await?;
    match give_back(&api, &id, true, &who).await {
        Ok(had) => {
            if had {
                tracing::info!(machine = %id, "machine {} is steady again", id.short());
            }
            Ok(())
        }
        Err(denied) => Err(refused(&id, &denied)),
    }
}

/// The machine that a request is for, and its group.
async fn asked(
    api: &Api,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<(MachineId, String), Refusal> {
    let bad = |kind, value: String| Refusal::new(StatusCode::BAD_REQUEST, kind, value);
    if headers.get(HEADER).is_none_or(|value| value != "true") {
        return Err(bad("missing_header", format!("the header `{HEADER}: true` is missing")));
    }
    let FleetLock { client_params: client } =
        decode(body).map_err(|error| bad("bad_body", error.message().to_string()))?;
    if !is_group(&client.group) {
        let value = format!("invalid group {:?}: letters, digits, dots and dashes", client.group);
        return Err(bad("bad_group", value));
    }
    let failed = |error: StoreError| Refusal::of(&Denied::Failed(error));
    let (reboots, _) = api.store().reboots().await.map_err(failed)?;
    let mirror = api.store().read(&[Part::Machines, Part::Assignments]).await.map_err(failed)?;
    let id = machine_called(known(&mirror.cluster().snapshot, &reboots), &client.id).cloned();
    mirror.drop_later();
    let unknown = || {
        let value = format!(
            "{:?} is no machine of this cluster, neither by its /etc/machine-id nor by Zincati's \
                id for it",
            client.id
        );
        Refusal::new(StatusCode::NOT_FOUND, "unknown_machine", value)
    };
    Ok((id.ok_or_else(unknown)?, client.group))
}

fn refused(id: &MachineId, denied: &Denied) -> Refusal {
    tracing::info!(machine = %id, "machine {}: {}", id.short(), denied.says());
    Refusal::of(denied)
}

/// A no in FleetLock's form.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    body: FleetLockRefusal,
}

impl Refusal {
    fn new(status: StatusCode, kind: &str, value: String) -> Refusal {
        Refusal { status, body: FleetLockRefusal { kind: kind.to_string(), value } }
    }

    fn of(denied: &Denied) -> Refusal {
        let status = match denied {
            Denied::Failed(StoreError::Conflict(_)) => StatusCode::CONFLICT,
            Denied::Failed(_) => StatusCode::SERVICE_UNAVAILABLE,
            Denied::Panicked(_) => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::CONFLICT,
        };
        Refusal::new(status, denied.kind(), denied.says())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(self.body)).into_response()
    }
}
