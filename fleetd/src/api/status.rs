//! `/units/<name>/status`: what `systemctl status` says, from whichever machines run the unit.

use std::process::Stdio;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use fleet_core::name::{MachineId, UnitName};
use fleet_core::wire;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

use super::describe::{self, Operation, Resource};
use super::error::ApiError;
use super::guests::Source;
use super::limits::MAX_STATUS;
use super::query::Asked;
use super::remote::{Place, Reach, ask, here, located, nowhere, read};
use super::units::parse;
use super::{Api, fencing};
use crate::process::clock::now_ms;

/// How long `systemctl status` may take: less than another machine waits for it.
const STATUS_TIMEOUT: Duration = Duration::from_secs(7);

/// What of the API is answered here.
pub(super) fn routes() -> Vec<Resource> {
    vec![
        Resource::at("/units/{unitName}/status").get(
            status,
            Operation::new(
                "getUnitStatus",
                "What `systemctl status` says, from the machines that run the unit.",
            )
            .query("machine", "The machine that is asked, as one fleetd asks another.")
            .answers(
                StatusCode::OK,
                "systemctl's words.",
                describe::Body::Other("text/plain; charset=utf-8"),
            )
            .headers(&[
                (
                    wire::EXIT_STATUS_HEADER,
                    "systemctl's exit status; the highest where it was asked several times, 1 if a \
                    machine did not answer.",
                ),
                (
                    wire::PROBLEM_HEADER,
                    "A machine that did not answer, and why; the answer lacks what it runs.",
                ),
            ])
            .errors([400, 404, 409, 421, 429, 502]),
        ),
    ]
}

pub(super) async fn status(
    State(api): State<Api>,
    source: Source,
    Path(name): Path<String>,
    asked: Asked,
) -> Result<Response, ApiError> {
    let machine = asked.value("machine");
    let (places, mut fenced) = match machine {
        Some(machine) => (vec![here(&api, parse(&name)?, machine)?], Vec::new()),
        None => {
            let name = parse(&name)?;
            let (_, mirror, places) = located(&api, &name).await?;
            let fenced = fencing::of(&api, mirror.cluster(), &name).await;
            if places.is_empty() {
                return Err(nowhere(&name, &fenced));
            }
            (places, fenced)
        }
    };
    let several = places.len() > 1;
    let answers = ask_all(&api, source, places).await;
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
        let part = with_health(with_refusal(part, &place), &place);
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
async fn ask_all(
    api: &Api,
    source: Source,
    places: Vec<Place>,
) -> Vec<(Place, Result<(String, i32), ApiError>)> {
    let machines = places.chunk_by(|a, b| a.machine == b.machine).map(|places| async move {
        let mut answers = Vec::new();
        let mut away: Option<String> = None;
        for place in places {
            let answer = match (&place.reach, &away) {
                (_, Some(problem)) => Err(ApiError::new(StatusCode::BAD_GATEWAY, problem.as_str())),
                (Reach::Here, _) => local_status(api, source, &place.instance).await,
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

fn in_status(text: &[u8], whole: bool) -> String {
    let text = String::from_utf8_lossy(text);
    match whole {
        true => text.into_owned(),
        false => format!("{text}\n[cut: this status is longer than {} KiB]\n", MAX_STATUS / 1024),
    }
}

/// Says how it is fenced.
fn with_fencing(status: String, fenced: &wire::Fencing) -> String {
    with_fact(status, &format!("    Fencing: {fenced}\n"))
}

/// Says how it answers its health check.
fn with_health(status: String, place: &Place) -> String {
    match &place.health {
        Some(health) => with_fact(status, &format!("     Health: {}\n", health.words(now_ms()))),
        None => status,
    }
}

/// Puts a line under systemctl's other facts, above the journal's lines.
fn with_fact(mut status: String, line: &str) -> String {
    match status.find("\n\n") {
        Some(end) => status.insert_str(end + 1, line),
        None => status.push_str(line),
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

/// What a process says first: a byte more than is shown, so that it is known whether that is all.
async fn beginning(output: Option<impl AsyncRead + Unpin>) -> std::io::Result<Vec<u8>> {
    let mut said = Vec::new();
    if let Some(output) = output {
        output.take(MAX_STATUS as u64 + 1).read_to_end(&mut said).await?;
    }
    Ok(said)
}

async fn local_status(
    api: &Api,
    source: Source,
    instance: &UnitName,
) -> Result<(String, i32), ApiError> {
    let mut command = Command::new("systemctl");
    command
        .args(api.shared.user.then_some("--user"))
        .args(["status", "--full", "--no-pager", "--"])
        .arg(instance.systemd_name().as_str())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let _place = api.shared.budgets.process(source).await?;
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
