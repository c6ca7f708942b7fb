//! How other machines' APIs are asked, and which of them run a unit.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use fleet_core::health::Health;
use fleet_core::name::{MachineId, UnitName};
use fleet_core::view::Cluster;
use fleet_core::wire;
use fleet_tls::{Files, Reloading, TlsError};
use reqwest::Url;
use tracing::warn;

use super::Api;
use super::error::ApiError;
use super::limits::MAX_ANSWER;
use crate::copy::Reader;
use crate::store::Mirror;

/// How long another machine may take for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How long another machine's API has to answer: less than fleetctl waits for us. A followed
/// journal may be silent for ever after that.
const PEER_TIMEOUT: Duration = Duration::from_secs(8);

/// After so long without a word another machine is probed, as often as [`PROBES`] says: one that
/// lost its power or its network is noticed within 15 s, however silent a journal is.
const PROBE_AFTER: Duration = Duration::from_secs(5);

/// How many probes may be lost.
const PROBES: u32 = 2;

/// How many instances' journals one request reads at most.
const MAX_INSTANCES: usize = 200;

/// The client for other machines' APIs. Over https it shows this machine's certificate, and reads
/// it again when the files change.
pub(super) struct Peers {
    client: Reloading<reqwest::Client>,
}

impl Peers {
    /// Without certificates.
    pub(super) fn new() -> Peers {
        Peers {
            client: Reloading::new(Files::default(), make_client)
                .expect("no files, so none is wrong"),
        }
    }

    pub(super) fn change(&self, files: Files) -> Result<(), TlsError> {
        self.client.change(files)
    }

    fn current(&self) -> reqwest::Client {
        let (client, reloaded) = self.client.current();
        if let Some(Err(error)) = reloaded {
            warn!("{error}; other machines are asked with the certificate that was there before");
        }
        client
    }

    /// What went wrong, innermost.
    pub(super) fn explain(&self, error: &reqwest::Error) -> String {
        let cause = || {
            let mut inner: &dyn std::error::Error = error;
            while let Some(source) = inner.source() {
                inner = source;
            }
            inner.to_string()
        };
        fleet_tls::explain(error, &self.client.files()).unwrap_or_else(cause)
    }
}

fn make_client(files: &Files) -> Result<reqwest::Client, TlsError> {
    let config = match files.is_empty() {
        true => fleet_tls::plain(),
        false => fleet_tls::client(files)?,
    };
    // Proxies of the environment are for the world outside, not for the cluster. A redirect would
    // have this machine ask what only it can reach.
    let builder = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_keepalive(PROBE_AFTER)
        .tcp_keepalive_interval(PROBE_AFTER)
        .tcp_keepalive_retries(PROBES)
        .tls_backend_preconfigured(config);
    Ok(builder.build().expect("a client without files of its own"))
}

/// An instance and the machine that runs it.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) instance: UnitName,
    pub(super) machine: MachineId,
    pub(super) reach: Reach,
    /// Why the machine runs none of it, by its own report: a file that it refuses, a call that
    /// failed.
    pub(super) refused: Option<String>,
    /// How it answers its health check, by the machine's report.
    pub(super) health: Option<Health>,
}

/// How a machine is asked.
#[derive(Debug, Clone)]
pub(super) enum Reach {
    /// It is this one.
    Here,
    /// At its API, `https://10.0.0.2:49153`.
    At(String),
    /// Not at all: its API listens on no address.
    Closed,
}

/// Reads another machine's answer, and whether that is all of it: not more than `limit`, and not
/// for longer than it may take to answer at all.
pub(super) async fn read(
    api: &Api,
    machine: &MachineId,
    mut answer: reqwest::Response,
    limit: usize,
) -> Result<(Vec<u8>, bool), ApiError> {
    let mut body = Vec::new();
    let reading = async {
        while let Some(part) =
            answer.chunk().await.map_err(|error| api.shared.peers.explain(&error))?
        {
            let room = limit - body.len();
            body.extend_from_slice(&part[..part.len().min(room)]);
            if part.len() > room {
                return Ok(false);
            }
        }
        Ok(true)
    };
    let read = tokio::time::timeout(PEER_TIMEOUT, reading).await;
    let whole = read.unwrap_or_else(|_| Err("its answer did not end".to_string()));
    let whole = whole.map_err(|problem| away(machine, &problem))?;
    Ok((body, whole))
}

/// A document that another machine answers with.
pub(super) async fn document<T: serde::de::DeserializeOwned>(
    api: &Api,
    machine: &MachineId,
    answer: reqwest::Response,
) -> Result<T, ApiError> {
    let (body, whole) = read(api, machine, answer, MAX_ANSWER).await?;
    if !whole {
        return Err(away(
            machine,
            &format!("its answer is longer than {} MiB", MAX_ANSWER / (1024 * 1024)),
        ));
    }
    serde_json::from_slice(&body)
        .map_err(|error| away(machine, &format!("its answer cannot be read: {error}")))
}

/// A unit that is on no machine which is there; a fenced one may wait.
pub(super) fn nowhere(name: &UnitName, fenced: &[wire::Fencing]) -> ApiError {
    let mut problem = format!("{name} is on no machine");
    for fenced in fenced {
        problem.push_str(&format!("; {}: {fenced}", fenced.name));
    }
    ApiError::conflict(problem)
}

/// What another fleetd asks of this machine.
pub(super) fn here(api: &Api, instance: UnitName, machine: &str) -> Result<Place, ApiError> {
    must_be_here(api, machine)?;
    // Who asks has the report, too.
    let (refused, health) = (None, None);
    Ok(Place { instance, machine: api.shared.machine.clone(), reach: Reach::Here, refused, health })
}

/// Refuses what another fleetd asks of another machine than this one.
pub(super) fn must_be_here(api: &Api, machine: &str) -> Result<(), ApiError> {
    if machine == api.shared.machine.as_str() {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::MISDIRECTED_REQUEST,
        format!("this is machine {}, not {machine}", api.shared.machine),
    ))
}

/// Where the instances of a unit are, by the live copy. That it is nowhere, or that there is no
/// such unit, is said only of what stands in the store now.
pub(super) async fn located(
    api: &Api,
    name: &UnitName,
) -> Result<(Reader, Arc<Mirror>, Vec<Place>), ApiError> {
    let (reader, mirror) = api.copy().await?;
    if let Ok(places) = all_places(api, mirror.cluster(), name)
        && !places.is_empty()
    {
        return Ok((reader, mirror, places));
    }
    let (reader, mirror) = api.newest(std::slice::from_ref(name)).await?;
    let places = all_places(api, mirror.cluster(), name)?;
    Ok((reader, mirror, places))
}

/// Where the instances of a unit are, not more than one request may ask for; perhaps nowhere. Where
/// one is on its way out it still is, also if its unit was destroyed.
pub(super) fn all_places(
    api: &Api,
    cluster: &Cluster,
    name: &UnitName,
) -> Result<Vec<Place>, ApiError> {
    let places = places(api, cluster, name);
    match places.len() {
        0 if cluster.owner(name).is_none() => Err(ApiError::no_such_unit()),
        n if n > MAX_INSTANCES => Err(ApiError::invalid(format!(
            "{name} has {n} instances; ask for one of them, the limit is {MAX_INSTANCES}"
        ))),
        _ => Ok(places),
    }
}

fn places(api: &Api, cluster: &Cluster, name: &UnitName) -> Vec<Place> {
    let assigned: BTreeSet<(&MachineId, &UnitName)> = cluster.assigned(name).collect();
    let elsewhere: BTreeSet<&UnitName> = assigned.iter().map(|(_, instance)| *instance).collect();
    // What it left behind elsewhere is no place of it.
    let leaving = cluster
        .leaving(name)
        .filter(|reported| !(reported.has_left() && elsewhere.contains(reported.instance)))
        .map(|reported| (reported.machine, reported.instance));
    let all: BTreeSet<(&MachineId, &UnitName)> = assigned.iter().copied().chain(leaving).collect();
    let place = |(id, instance): (&MachineId, &UnitName)| {
        let reach = match &cluster.snapshot.machines.get(id)?.api {
            _ if *id == api.shared.machine => Reach::Here,
            Some(base) => Reach::At(base.clone()),
            None => Reach::Closed,
        };
        let status = cluster.status(id, instance);
        let health = status.and_then(|status| status.health.clone());
        let refused = status.filter(|status| status.is_refused());
        Some(Place {
            instance: instance.clone(),
            machine: id.clone(),
            reach,
            refused: refused.and_then(|status| status.message.clone()),
            health,
        })
    };
    all.into_iter().filter_map(place).collect()
}

/// Asks for `what` of an instance: its status, its journal.
pub(super) async fn ask(
    api: &Api,
    place: &Place,
    what: &str,
    query: &[(&str, &str)],
) -> Result<reqwest::Response, ApiError> {
    let path = ["units", place.instance.as_str(), what];
    match &place.reach {
        Reach::At(base) => ask_machine(api, &place.machine, base, &path, query).await,
        Reach::Here | Reach::Closed => {
            let problem = format!(
                "{} runs on machine {}, whose API cannot be reached from here; set listen = \
                [\"https://ADDRESS:PORT\"] in its configuration, or ask it over ssh: fleetctl \
                {what} --ssh-port=22",
                place.instance, place.machine
            );
            Err(ApiError::new(StatusCode::BAD_GATEWAY, problem))
        }
    }
}

/// Asks another machine's API at `base` for what it itself knows of a resource. What it refuses is
/// refused in its words.
pub(super) async fn ask_machine(
    api: &Api,
    machine: &MachineId,
    base: &str,
    path: &[&str],
    query: &[(&str, &str)],
) -> Result<reqwest::Response, ApiError> {
    ask_within(api, Method::GET, PEER_TIMEOUT, machine, base, path, query).await
}

/// The same by another method, or of a machine that may take longer to answer.
pub(super) async fn ask_within(
    api: &Api,
    method: Method,
    limit: Duration,
    machine: &MachineId,
    base: &str,
    path: &[&str],
    query: &[(&str, &str)],
) -> Result<reqwest::Response, ApiError> {
    let request = |client: reqwest::Client, url| client.request(method, url);
    send(api, machine, base, (path, query), limit, request).await
}

/// Asks another machine's API about what the `body` says.
pub(super) async fn ask_about(
    api: &Api,
    machine: &MachineId,
    base: &str,
    path: &[&str],
    body: &impl serde::Serialize,
) -> Result<reqwest::Response, ApiError> {
    let body = serde_json::to_vec(body).expect("names and texts can be JSON");
    let request = |client: reqwest::Client, url| {
        client.post(url).header(reqwest::header::CONTENT_TYPE, "application/json").body(body)
    };
    send(api, machine, base, (path, &[]), PEER_TIMEOUT, request).await
}

async fn send(
    api: &Api,
    machine: &MachineId,
    base: &str,
    (path, query): (&[&str], &[(&str, &str)]),
    limit: Duration,
    request: impl FnOnce(reqwest::Client, Url) -> reqwest::RequestBuilder,
) -> Result<reqwest::Response, ApiError> {
    let at = format!("{machine} at {base}");
    let url = address(base, path, query, machine).ok_or_else(|| away(&at, "that is no URL"))?;
    let request = request(api.shared.peers.current(), url);
    let answer = tokio::time::timeout(limit, request.send()).await;
    let answer = answer
        .map_err(|_| away(&at, "timed out"))?
        .map_err(|error| away(&at, &api.shared.peers.explain(&error)))?;
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let said =
        read(api, machine, answer, MAX_ANSWER).await.map(|(said, _)| said).unwrap_or_default();
    Err(match serde_json::from_slice::<wire::ErrorBody>(&said) {
        Ok(wire::ErrorBody { error }) => ApiError::of_peer(status, error),
        Err(_) => away(&at, &format!("HTTP {status}")),
    })
}

/// The URL of a resource. Its parts are escaped: names of units may hold backslashes.
fn address(base: &str, path: &[&str], query: &[(&str, &str)], machine: &MachineId) -> Option<Url> {
    let mut url = Url::parse(base).ok()?;
    url.path_segments_mut().ok()?.pop_if_empty().extend(["fleet", "v1"]).extend(path);
    url.query_pairs_mut().extend_pairs(query).append_pair("machine", machine.as_str());
    Some(url)
}

fn away(machine: impl std::fmt::Display, problem: &str) -> ApiError {
    ApiError::new(StatusCode::BAD_GATEWAY, format!("machine {machine} did not answer: {problem}"))
}
