//! Journals and status, from whichever machine runs the unit: run here, or asked of that machine's API.

use std::process::Stdio;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use fleet_core::name::{MachineId, UnitName};
use fleet_core::view::Cluster;
use fleet_core::wire;
use fleet_tls::{Files, Reloading, TlsError};
use tokio::io::AsyncBufReadExt;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tracing::warn;

use super::error::ApiError;
use super::{Api, fencing};

/// How long another machine's API has to answer. A followed journal may be silent for ever after that.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How many instances' journals one request reads at most.
const MAX_INSTANCES: usize = 200;

/// How long `systemctl status` may take.
const STATUS_TIMEOUT: Duration = Duration::from_secs(10);

/// journalctl's formats; a word outside this list is refused, so no option can be slipped in.
pub(super) const OUTPUTS: &[&str] = &[
    "short",
    "short-full",
    "short-iso",
    "short-iso-precise",
    "short-precise",
    "short-monotonic",
    "short-unix",
    "verbose",
    "export",
    "json",
    "json-pretty",
    "json-sse",
    "json-seq",
    "cat",
    "with-unit",
];

/// The client for other machines' APIs. Over https it shows this machine's certificate, and reads it again when the files change.
pub(super) struct Peers {
    client: Reloading<reqwest::Client>,
}

impl Peers {
    /// Without certificates.
    pub(super) fn new() -> Peers {
        Peers { client: Reloading::new(Files::default(), make_client).expect("no files, so none is wrong") }
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
    fn explain(&self, error: &reqwest::Error) -> String {
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
    // Proxies of the environment are for the world outside, not for the cluster.
    let builder = reqwest::Client::builder().no_proxy().connect_timeout(CONNECT_TIMEOUT).tls_backend_preconfigured(config);
    Ok(builder.build().expect("a client without files of its own"))
}

/// An instance and the machine that runs it.
struct Place {
    instance: UnitName,
    machine: MachineId,
    /// `None`: this machine.
    api: Option<String>,
}

pub(super) async fn journal(
    State(api): State<Api>,
    Path(name): Path<String>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Response, ApiError> {
    let value = |key: &str| query.iter().rev().find(|(k, _)| k == key).map(|(_, v)| v.as_str());
    let lines: u32 = value("lines").unwrap_or("10").parse().map_err(|_| ApiError::invalid("lines must be a number"))?;
    let follow = value("follow").is_some_and(|v| v == "true" || v == "1");
    let output = value("output").unwrap_or("short");
    if !OUTPUTS.contains(&output) {
        return Err(ApiError::invalid(format!("output must be one of {}", OUTPUTS.join(", "))));
    }
    let places = find(&api, &name, value("machine")).await?;
    let prefixed = places.len() > 1;
    let (sender, receiver) = mpsc::channel::<Bytes>(64);
    for place in places {
        let label = if prefixed { format!("{} {}: ", place.instance, place.machine.short()) } else { String::new() };
        let sender = sender.clone();
        let path = format!("journal?lines={lines}&follow={follow}&output={output}");
        match &place.api {
            None => {
                let mut command = Command::new("journalctl");
                command.args(["--no-pager", "--quiet", "--lines", &lines.to_string(), "--output", output]);
                command
                    .args(follow.then_some("--follow"))
                    .arg(if api.shared.user { "--user-unit" } else { "--unit" })
                    .arg(place.instance.systemd_name().as_str());
                let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true).spawn();
                let child = child.map_err(|error| {
                    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot run journalctl: {error}"))
                })?;
                tokio::spawn(relay_child(child, label, sender));
            }
            Some(_) => {
                let answer = ask(&api, &place, &path).await?;
                tokio::spawn(async move {
                    let mut bytes = answer.bytes_stream();
                    let mut rest = Vec::new();
                    loop {
                        tokio::select! {
                            () = sender.closed() => return,
                            part = bytes.next() => match part {
                                Some(Ok(part)) => relay_lines(&mut rest, &part, &label, &sender).await,
                                _ => return,
                            },
                        }
                    }
                });
            }
        }
    }
    let body = Body::from_stream(ReceiverStream::new(receiver).map(Ok::<Bytes, std::convert::Infallible>));
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response())
}

/// Sends a child's output line by line; the child ends with the request.
async fn relay_child(mut child: Child, label: String, sender: mpsc::Sender<Bytes>) {
    let Some(stdout) = child.stdout.take() else { return };
    let mut lines = tokio::io::BufReader::new(stdout);
    loop {
        let mut line = label.clone().into_bytes();
        let read = tokio::select! {
            () = sender.closed() => break,
            read = lines.read_until(b'\n', &mut line) => read,
        };
        if !matches!(read, Ok(bytes) if bytes > 0) || sender.send(line.into()).await.is_err() {
            break;
        }
    }
    let _ = child.kill().await;
}

async fn relay_lines(rest: &mut Vec<u8>, part: &[u8], label: &str, sender: &mpsc::Sender<Bytes>) {
    rest.extend_from_slice(part);
    while let Some(end) = rest.iter().position(|&b| b == b'\n') {
        let mut line = label.as_bytes().to_vec();
        line.extend(rest.drain(..=end));
        if sender.send(line.into()).await.is_err() {
            return;
        }
    }
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
    let (mut text, mut worst) = (String::new(), 0);
    for place in places {
        let (part, code) = match &place.api {
            None => local_status(&api, &place.instance).await?,
            Some(_) => {
                let answer = ask(&api, &place, "status").await?;
                let code =
                    answer.headers().get(wire::EXIT_STATUS_HEADER).and_then(|v| v.to_str().ok()?.parse().ok()).unwrap_or(0);
                (answer.text().await.unwrap_or_default(), code)
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
        let is_here =
            |fenced: &wire::Fencing| fenced.name == place.instance.as_str() && fenced.machine_id == place.machine.as_str();
        match fenced.iter().position(is_here).map(|at| fenced.remove(at)) {
            Some(fenced) => text.push_str(&with_fencing(part, &fenced)),
            None => text.push_str(&part),
        }
        worst = worst.max(code);
    }
    for waiting in fenced {
        text.push_str(&format!("\n{}: {waiting}\n", waiting.name));
    }
    let mut response = ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response();
    response.headers_mut().insert(wire::EXIT_STATUS_HEADER, worst.into());
    Ok(response)
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

/// A unit that is on no machine which is there; a fenced one may wait.
fn nowhere(name: &UnitName, fenced: &[wire::Fencing]) -> ApiError {
    let mut problem = format!("{name} is on no machine");
    for fenced in fenced {
        problem.push_str(&format!("; {}: {fenced}", fenced.name));
    }
    ApiError::conflict(problem)
}

async fn local_status(api: &Api, instance: &UnitName) -> Result<(String, i32), ApiError> {
    let mut command = Command::new("systemctl");
    command
        .args(api.shared.user.then_some("--user"))
        .args(["status", "--full", "--no-pager", "--"])
        .arg(instance.systemd_name().as_str())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let failed = |problem: String| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot run systemctl: {problem}"));
    let output = tokio::time::timeout(STATUS_TIMEOUT, command.output())
        .await
        .map_err(|_| failed("it did not answer in 10 s".to_string()))?;
    let output = output.map_err(|error| failed(error.to_string()))?;
    Ok((String::from_utf8_lossy(&output.stdout).into_owned(), output.status.code().unwrap_or(4)))
}

/// Where the instances of `name` are. With `machine` (as one fleetd asks another) it must be this one.
async fn find(api: &Api, name: &str, machine: Option<&str>) -> Result<Vec<Place>, ApiError> {
    let name = parse(name)?;
    if let Some(machine) = machine {
        must_be_here(api, machine)?;
        return Ok(vec![Place { instance: name, machine: api.shared.machine.clone(), api: None }]);
    }
    let places = all_places(api, api.store().read_all().await?.cluster(), &name)?;
    if places.is_empty() { Err(nowhere(&name, &[])) } else { Ok(places) }
}

/// Refuses what another fleetd asks of another machine than this one.
pub(super) fn must_be_here(api: &Api, machine: &str) -> Result<(), ApiError> {
    if machine == api.shared.machine.as_str() {
        return Ok(());
    }
    Err(ApiError::new(StatusCode::MISDIRECTED_REQUEST, format!("this is machine {}, not {machine}", api.shared.machine)))
}

fn parse(name: &str) -> Result<UnitName, ApiError> {
    UnitName::parse(name).map_err(|error| ApiError::invalid(error.to_string()))
}

/// Where the instances of a unit are, not more than one request may ask for; perhaps nowhere.
fn all_places(api: &Api, cluster: &Cluster, name: &UnitName) -> Result<Vec<Place>, ApiError> {
    if cluster.owner(name).is_none() {
        return Err(ApiError::no_such_unit());
    }
    let places = places(api, cluster, name)?;
    match places.len() {
        n if n > MAX_INSTANCES => {
            Err(ApiError::invalid(format!("{name} has {n} instances; ask for one of them, the limit is {MAX_INSTANCES}")))
        }
        _ => Ok(places),
    }
}

fn places(api: &Api, cluster: &Cluster, name: &UnitName) -> Result<Vec<Place>, ApiError> {
    let mut places = Vec::new();
    for (id, assignment) in &cluster.snapshot.assignments {
        let Some(machine) = cluster.snapshot.machines.get(id) else { continue };
        for instance in
            assignment.instances.iter().filter(|(i, p)| *i == name || (name.is_template() && p.unit == *name)).map(|(i, _)| i)
        {
            let here = *id == api.shared.machine;
            if !here && machine.api.is_none() {
                let problem = format!(
                    "{instance} runs on machine {id}, whose API cannot be reached from here; set listen = [\"https://ADDRESS:PORT\"] in its configuration"
                );
                return Err(ApiError::new(StatusCode::BAD_GATEWAY, problem));
            }
            places.push(Place { instance: instance.clone(), machine: id.clone(), api: machine.api.clone().filter(|_| !here) });
        }
    }
    Ok(places)
}

async fn ask(api: &Api, place: &Place, what: &str) -> Result<reqwest::Response, ApiError> {
    let joint = if what.contains('?') { "&" } else { "?" };
    let path = format!("units/{}/{what}{joint}machine={}", place.instance, place.machine);
    ask_machine(api, &place.machine, place.api.as_deref().unwrap_or_default(), &path).await
}

/// Asks another machine's API at `base` for a resource.
pub(super) async fn ask_machine(api: &Api, machine: &MachineId, base: &str, path: &str) -> Result<reqwest::Response, ApiError> {
    let away = |problem: String| {
        ApiError::new(StatusCode::BAD_GATEWAY, format!("machine {machine} at {base} did not answer: {problem}"))
    };
    let url = format!("{base}/fleet/v1/{path}");
    let answer = tokio::time::timeout(STATUS_TIMEOUT, api.shared.peers.current().get(url).send()).await;
    let answer = answer.map_err(|_| away("timed out".to_string()))?.map_err(|error| away(api.shared.peers.explain(&error)))?;
    match answer.status().is_success() {
        true => Ok(answer),
        false => Err(away(answer.text().await.unwrap_or_default())),
    }
}
