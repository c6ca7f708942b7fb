//! What podman says of Quadlet files before they are taken: this machine's, or, where it has none,
//! another machine's.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use fleet_core::app::{MAX_APP_FILES, MAX_APP_UNITS, paths_refusals};
use fleet_core::model::Machine;
use fleet_core::name::{MachineId, UnitName};
use fleet_core::unit::podman::major_minor;
use fleet_core::view::Cluster;
use fleet_core::wire;
use serde_json::json;

use crate::api::body::decode;
use crate::api::describe::{Operation, Resource};
use crate::api::door::json_only;
use crate::api::error::ApiError;
use crate::api::query::Asked;
use crate::api::{Api, remote};
use crate::systemd::quadlet::Checked;

/// How many other machines are asked in turn: each may take some seconds not to answer.
const ASKED: usize = 2;

/// The most Quadlet files in one question: those of an application, and what an earlier apply left.
const MAX_QUADLETS: usize = 2 * MAX_APP_UNITS;

/// What podman is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question {
    /// The Quadlet files, by name.
    pub(super) quadlets: BTreeMap<UnitName, String>,
    /// The paths of the files that come with them.
    pub(super) paths: Vec<String>,
}

/// What it says.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// What is wrong, as `web.container: line 3: podman: …`.
    pub(super) refused: Vec<String>,
    /// What the user should know.
    pub(super) warnings: Vec<String>,
}

pub(super) fn route() -> Resource {
    Resource::at("/quadlets/check").post(
        check,
        Operation::new(
            "checkQuadlets",
            "Asks the podman of one machine what it refuses of Quadlet files that come together.",
        )
        .query("machine", "The machine that is asked, as one fleetd asks another.")
        .takes::<wire::QuadletCheck>()
        .example(json!({"quadlets": {"a.network": "[Network]\n"}}))
        .gives::<wire::QuadletsChecked>("What is refused, and what is not known.")
        .errors([415, 421, 502]),
    )
}

/// Only this machine's podman is asked; who asks has looked which machine has one.
async fn check(
    State(api): State<Api>,
    asked: Asked,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<wire::QuadletsChecked>, ApiError> {
    json_only(&headers)?;
    if let Some(machine) = asked.value("machine") {
        remote::must_be_here(&api, machine)?;
    }
    let wire::QuadletCheck { quadlets, paths } = decode(&body)?;
    // Each becomes a file for a moment.
    if quadlets.len() > MAX_QUADLETS || paths.len() > MAX_APP_FILES {
        return Err(ApiError::invalid(format!(
            "{} Quadlet files that come with {} others; one question may have {MAX_QUADLETS} and \
                {MAX_APP_FILES}",
            quadlets.len(),
            paths.len()
        )));
    }
    let names = quadlets.into_iter().map(|(name, text)| match UnitName::parse(&name) {
        Ok(name) if name.is_quadlet() => Ok((name, text)),
        Ok(name) => Err(ApiError::invalid(format!("{name} is no Quadlet file"))),
        Err(problem) => Err(ApiError::invalid(format!("{name}: {problem}"))),
    });
    let question = Question { quadlets: names.collect::<Result<_, _>>()?, paths };
    let together = question.quadlets.keys().map(UnitName::as_str);
    let together = together.chain(question.paths.iter().map(String::as_str)).collect();
    if let Some(problem) = paths_refusals(&together).into_iter().next() {
        return Err(ApiError::invalid(problem));
    }
    let checked = ask_here(&api, &question).await;
    let checked = checked.map_err(|problem| ApiError::new(StatusCode::BAD_GATEWAY, problem))?;
    let refused = checked.refused.into_iter().map(|(name, (line, problem))| {
        let line = line.map(|line| line as u64);
        (name, wire::QuadletRefusal { line, problem })
    });
    Ok(Json(wire::QuadletsChecked { refused: refused.collect(), unknown: checked.unknown }))
}

/// This machine's podman, or another machine's that has one. That nobody can tell is a warning.
pub(super) async fn ask(api: &Api, cluster: &Cluster, question: Question) -> Verdict {
    let mut problems = Vec::new();
    match ask_here(api, &question).await {
        Ok(checked) => return said("podman", "of the machine that was asked", checked),
        Err(problem) => problems.push(problem),
    }
    for (id, base) in others(api, cluster).into_iter().take(ASKED) {
        match ask_there(api, id, base, &question).await {
            Ok(checked) => {
                let who = format!("podman of machine {id}");
                return said(&who, &format!("of machine {id}"), checked);
            }
            Err(error) => problems.push(error.message().to_string()),
        }
    }
    let warning = format!(
        "nobody has looked whether podman takes the Quadlet files: {}. The machines that run them \
            will say so",
        problems.join("; ")
    );
    Verdict { refused: Vec::new(), warnings: vec![warning] }
}

async fn ask_here(api: &Api, question: &Question) -> Result<Checked, String> {
    let paths: Vec<&str> = question.paths.iter().map(String::as_str).collect();
    match &api.shared.generator {
        Some(generator) => generator.check(&question.quadlets, &paths).await,
        None => Err("this fleetd has no Quadlet generator".to_string()),
    }
}

/// The other machines whose podman can be asked, the newest podman first.
fn others<'c>(api: &Api, cluster: &'c Cluster) -> Vec<(&'c MachineId, &'c str)> {
    let version = |machine: &Machine| machine.podman.as_deref().and_then(major_minor);
    let machines = cluster.snapshot.machines.iter().filter(|(id, _)| **id != api.shared.machine);
    let mut able: Vec<_> = machines
        .filter_map(|(id, machine)| Some((Reverse(version(machine)?), id, machine.api.as_deref()?)))
        .collect();
    able.sort();
    able.into_iter().map(|(_, id, base)| (id, base)).collect()
}

async fn ask_there(
    api: &Api,
    id: &MachineId,
    base: &str,
    question: &Question,
) -> Result<Checked, ApiError> {
    let named = |(name, text): (&UnitName, &String)| (name.to_string(), text.clone());
    let body = wire::QuadletCheck {
        quadlets: question.quadlets.iter().map(named).collect(),
        paths: question.paths.clone(),
    };
    let answer = remote::ask_about(api, id, base, &["quadlets", "check"], &body).await?;
    let wire::QuadletsChecked { refused, unknown } = remote::document(api, id, answer).await?;
    // Only what was asked about: another version may say more.
    let asked = |name: &UnitName| question.quadlets.contains_key(name);
    let refused = refused.into_iter().filter(|(name, _)| asked(name));
    let line = |line: u64| usize::try_from(line).ok();
    let refused =
        refused.map(|(name, one)| (name, (one.line.and_then(line), one.problem))).collect();
    let unknown: BTreeSet<UnitName> = unknown.into_iter().filter(asked).collect();
    Ok(Checked { refused, unknown })
}

fn said(who: &str, whose: &str, Checked { refused, unknown }: Checked) -> Verdict {
    let problem = |(name, (line, words)): (UnitName, (Option<usize>, String))| match line {
        Some(line) => format!("{name}: line {line}: {who}: {words}"),
        None => format!("{name}: {who}: {words}"),
    };
    let warning =
        |name: &UnitName| format!("{name}: the podman {whose} knows no .{}", name.suffix());
    Verdict {
        refused: refused.into_iter().map(problem).collect(),
        warnings: unknown.iter().map(warning).collect(),
    }
}
