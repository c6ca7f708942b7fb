//! Status, from whichever machine runs the unit, and how other machines' APIs are asked.

use std::process::Stdio;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use fleet_core::name::{MachineId, UnitName};
use fleet_core::view::Cluster;
use fleet_core::wire;
use fleet_tls::{Files, Reloading, TlsError};
use reqwest::Url;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tracing::warn;

use super::error::ApiError;
use super::limits::{MAX_ANSWER, MAX_STATUS};
use super::{Api, fencing};

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

/// How long `systemctl status` may take: less than another machine waits for it.
const STATUS_TIMEOUT: Duration = Duration::from_secs(7);

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

pub(super) async fn status(
    State(api): State<Api>,
    Path(name): Path<String>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Response, ApiError> {
    let machine = query.iter().find(|(key, _)| key == "machine").map(|(_, id)| id.as_str());
    let (places, mut fenced) = match machine {
        Some(_) => (find(&api, &name, machine).await?, Vec::new()),
        None => {
            let name = parse(&name)?;
            let mirror = api.store().read_all().await?;
            let places = all_places(&api, mirror.cluster(), &name)?;
            let fenced = fencing::of(&api, mirror.cluster(), &name).await;
            if places.is_empty() {
                return Err(nowhere(&name, &fenced));
            }
            (places, fenced)
        }
    };
    let several = places.len() > 1;
    let answers = ask_all(&api, places).await;
    let (mut text, mut worst) = (String::new(), 0);
    let mut problems: Vec<(MachineId, String)> = Vec::new();
    for (place, answer) in answers {
        let (part, code) = match answer {
            Ok(answer) => answer,
            Err(error) if !several => return Err(error),
            // The others' status is shown all the same.
            Err(error) => {
                problems.push((place.machine, format!("{}: {}", place.instance, error.message())));
                continue;
            }
        };
        if several {
            text.push_str(&format!(
                "{}{} on machine {}\n",
                if text.is_empty() { "" } else { "\n" },
                place.instance,
                place.machine.short()
            ));
        }
        let part = with_refusal(part, &place);
        let is_here = |fenced: &wire::Fencing| {
            fenced.name == place.instance.as_str() && fenced.machine_id == place.machine.as_str()
        };
        match fenced.iter().position(is_here).map(|at| fenced.remove(at)) {
            Some(fenced) => text.push_str(&with_fencing(part, &fenced)),
            None => text.push_str(&part),
        }
        worst = worst.max(code);
    }
    for waiting in fenced {
        text.push_str(&format!("\n{}: {waiting}\n", waiting.name));
    }
    let mut response =
        ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response();
    let headers = response.headers_mut();
    headers.insert(wire::EXIT_STATUS_HEADER, if problems.is_empty() { worst } else { 1 }.into());
    // One a machine: of a hundred replicas on a dead one the first says it.
    problems.dedup_by(|later, first| later.0 == first.0);
    for (_, problem) in problems {
        let line: String = problem.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        if let Ok(value) = HeaderValue::from_str(&line) {
            headers.append(wire::PROBLEM_HEADER, value);
        }
    }
    Ok(response)
}

/// Asks all machines at once, and each for one instance after the other; one that does not answer
/// is asked no more.
async fn ask_all(api: &Api, places: Vec<Place>) -> Vec<(Place, Result<(String, i32), ApiError>)> {
    let machines = places.chunk_by(|a, b| a.machine == b.machine).map(|places| async move {
        let mut answers = Vec::new();
        let mut away: Option<String> = None;
        for place in places {
            let answer = match (&place.reach, &away) {
                (_, Some(problem)) => Err(ApiError::new(StatusCode::BAD_GATEWAY, problem.as_str())),
                (Reach::Here, _) => local_status(api, &place.instance).await,
                (Reach::At(_) | Reach::Closed, _) => remote_status(api, place).await,
            };
            if let Err(error) = &answer
                && error.status() == StatusCode::BAD_GATEWAY
            {
                away = Some(error.message().to_string());
            }
            answers.push((place.clone(), answer));
        }
        answers
    });
    futures_util::future::join_all(machines).await.into_iter().flatten().collect()
}

async fn remote_status(api: &Api, place: &Place) -> Result<(String, i32), ApiError> {
    let answer = ask(api, place, "status", &[]).await?;
    let code = answer
        .headers()
        .get(wire::EXIT_STATUS_HEADER)
        .and_then(|v| v.to_str().ok()?.parse().ok())
        .unwrap_or(0);
    let (text, whole) = read(api, &place.machine, answer, MAX_STATUS).await?;
    Ok((in_status(&text, whole), code))
}

/// Reads another machine's answer, and whether that is all of it: not more than `limit`, and not
/// for longer than it may take to answer at all.
async fn read(
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

fn in_status(text: &[u8], whole: bool) -> String {
    let text = String::from_utf8_lossy(text);
    match whole {
        true => text.into_owned(),
        false => format!("{text}\n[cut: this status is longer than {} KiB]\n", MAX_STATUS / 1024),
    }
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

/// Puts how it is fenced under systemctl's other facts, above the journal's lines.
fn with_fencing(mut status: String, fenced: &wire::Fencing) -> String {
    let line = format!("    Fencing: {fenced}\n");
    match status.find("\n\n") {
        Some(end) => status.insert_str(end + 1, &line),
        None => status.push_str(&line),
    }
    status
}

/// Says why the machine runs none of it; systemd knows nothing of what was refused before it came
/// to it.
fn with_refusal(status: String, place: &Place) -> String {
    let Some(refused) = &place.refused else { return status };
    let Place { instance, machine, .. } = place;
    let refused: Vec<&str> = refused.lines().collect();
    let why = format!(
        "{instance} is not started on machine {}: {}\n",
        machine.short(),
        refused.join("\n    ")
    );
    if status.is_empty() { why } else { format!("{why}{status}") }
}

/// A unit that is on no machine which is there; a fenced one may wait.
pub(super) fn nowhere(name: &UnitName, fenced: &[wire::Fencing]) -> ApiError {
    let mut problem = format!("{name} is on no machine");
    for fenced in fenced {
        problem.push_str(&format!("; {}: {fenced}", fenced.name));
    }
    ApiError::conflict(problem)
}

/// What a process says first: a byte more than is shown, so that it is known whether that is all.
async fn beginning(output: Option<impl AsyncRead + Unpin>) -> std::io::Result<Vec<u8>> {
    let mut said = Vec::new();
    if let Some(output) = output {
        output.take(MAX_STATUS as u64 + 1).read_to_end(&mut said).await?;
    }
    Ok(said)
}

async fn local_status(api: &Api, instance: &UnitName) -> Result<(String, i32), ApiError> {
    let mut command = Command::new("systemctl");
    command
        .args(api.shared.user.then_some("--user"))
        .args(["status", "--full", "--no-pager", "--"])
        .arg(instance.systemd_name().as_str())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let busy = || {
        ApiError::new(
            StatusCode::TOO_MANY_REQUESTS,
            "this machine answers too many such requests; try again",
        )
    };
    let _place = api.shared.budgets.process().ok_or_else(busy)?;
    let failed = |problem: String| {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot run systemctl: {problem}"))
    };
    let run = async {
        let mut child = command.spawn()?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (mut stdout, stderr) = tokio::try_join!(beginning(stdout), beginning(stderr))?;
        // What systemd does not know is said on stderr.
        if stdout.is_empty() {
            stdout = stderr;
        }
        let whole = stdout.len() <= MAX_STATUS;
        stdout.truncate(MAX_STATUS);
        Ok((
            in_status(&stdout, whole),
            child.wait().await?.code().unwrap_or(if whole { 4 } else { 0 }),
        ))
    };
    let output = tokio::time::timeout(STATUS_TIMEOUT, run).await;
    let output = output.map_err(|_| failed("it did not answer in 7 s".to_string()))?;
    output.map_err(|error: std::io::Error| failed(error.to_string()))
}

/// Where the instances of `name` are. With `machine` (as one fleetd asks another) it must be this
/// one.
async fn find(api: &Api, name: &str, machine: Option<&str>) -> Result<Vec<Place>, ApiError> {
    let name = parse(name)?;
    if let Some(machine) = machine {
        return Ok(vec![here(api, name, machine)?]);
    }
    let places = all_places(api, api.store().read_all().await?.cluster(), &name)?;
    if places.is_empty() { Err(nowhere(&name, &[])) } else { Ok(places) }
}

/// What another fleetd asks of this machine.
pub(super) fn here(api: &Api, instance: UnitName, machine: &str) -> Result<Place, ApiError> {
    must_be_here(api, machine)?;
    // Who asks has the report, too.
    Ok(Place { instance, machine: api.shared.machine.clone(), reach: Reach::Here, refused: None })
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

pub(super) fn parse(name: &str) -> Result<UnitName, ApiError> {
    UnitName::parse(name).map_err(|error| ApiError::invalid(error.to_string()))
}

/// Where the instances of a unit are, not more than one request may ask for; perhaps nowhere.
pub(super) fn all_places(
    api: &Api,
    cluster: &Cluster,
    name: &UnitName,
) -> Result<Vec<Place>, ApiError> {
    if cluster.owner(name).is_none() {
        return Err(ApiError::no_such_unit());
    }
    let places = places(api, cluster, name);
    match places.len() {
        n if n > MAX_INSTANCES => Err(ApiError::invalid(format!(
            "{name} has {n} instances; ask for one of them, the limit is {MAX_INSTANCES}"
        ))),
        _ => Ok(places),
    }
}

fn places(api: &Api, cluster: &Cluster, name: &UnitName) -> Vec<Place> {
    let mut places = Vec::new();
    for (id, assignment) in &cluster.snapshot.assignments {
        let Some(machine) = cluster.snapshot.machines.get(id) else { continue };
        let reach = match &machine.api {
            _ if *id == api.shared.machine => Reach::Here,
            Some(base) => Reach::At(base.clone()),
            None => Reach::Closed,
        };
        let of_it = assignment
            .instances
            .iter()
            .filter(|(i, p)| *i == name || (name.is_template() && p.unit == *name));
        let report = cluster.snapshot.reports.get(id);
        places.extend(of_it.map(|(instance, _)| {
            Place {
                instance: instance.clone(),
                machine: id.clone(),
                reach: reach.clone(),
                refused: report
                    .and_then(|report| report.instances.get(instance))
                    .filter(|status| status.is_refused())
                    .and_then(|status| status.message.clone()),
            }
        }));
    }
    places
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
                    [\"https://ADDRESS:PORT\"] in its \
                 configuration, or ask it over ssh: fleetctl {what} --ssh-port=22",
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
    let at = format!("{machine} at {base}");
    let url = address(base, path, query, machine).ok_or_else(|| away(&at, "that is no URL"))?;
    let answer =
        tokio::time::timeout(PEER_TIMEOUT, api.shared.peers.current().get(url).send()).await;
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
