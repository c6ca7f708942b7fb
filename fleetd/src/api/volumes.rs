//! `/volumes`: what podman's volumes that fleet made hold, on which machines, and who uses them;
//! and the only way by which that data goes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use fleet_core::model::Did;
use fleet_core::name::{MachineId, UnitName};
use fleet_core::wire::{Unasked, Volume, VolumePage};
use serde::Deserialize;
use tracing::{info, warn};

use super::describe::{Body, Operation, Resource};
use super::error::ApiError;
use super::guests::Source;
use super::hosts::{self, Question};
use super::query::Asked;
use super::who::Who;
use super::{Api, remote, settings};
use crate::systemd::transient;

/// How long podman may take to list its volumes, and to remove one.
const PODMAN_LIMIT: Duration = Duration::from_secs(10);

/// How long the sizes of all may take to be counted. Those that were not by then are unknown.
const SIZES_LIMIT: Duration = Duration::from_secs(8);

/// How long another machine has for both.
const MACHINE_LIMIT: Duration = Duration::from_secs(25);

/// The most volumes of one machine whose sizes are counted: their paths are one command line.
const MAX_SIZES: usize = 1_000;

/// What of the API is answered here.
pub(super) fn routes() -> Vec<Resource> {
    vec![
        Resource::at("/volumes").get(
            list,
            Operation::new(
                "listVolumes",
                "The volumes of podman that fleet made, with their sizes and last users, from the \
                    machines that they are on.",
            )
            .query("machine", "The machine that is asked, as one fleetd asks another.")
            .gives::<VolumePage>("The volumes, and the machines that did not answer.")
            .errors([421]),
        ),
        Resource::at("/machines/{machineID}/volumes/{volumeName}").delete(
            remove,
            Operation::new(
                "destroyVolume",
                "Removes a volume that fleet made and no instance uses, with all data in it.",
            )
            .query("machine", "The machine that is asked, as one fleetd asks another.")
            .answers(StatusCode::NO_CONTENT, "It is gone.", Body::None)
            .errors([400, 404, 409, 421, 502]),
        ),
    ]
}

pub(super) async fn list(
    State(api): State<Api>,
    source: Source,
    asked: Asked,
) -> Result<Json<VolumePage>, ApiError> {
    if let Some(machine) = asked.value("machine") {
        remote::must_be_here(&api, machine)?;
        return Ok(Json(of_this_machine(&api, source).await?));
    }
    let (_reader, mirror) = api.copy().await?;
    let all = hosts::all(mirror.cluster());
    let question = Question { path: &["volumes"], query: &[], limit: MACHINE_LIMIT };
    let here = of_this_machine(&api, source);
    let all = all.iter().collect();
    let (pages, unknown) = hosts::ask(&api, mirror.cluster(), &all, question, here).await;
    let mut page = VolumePage { volumes: Vec::new(), unknown };
    for one in pages {
        page.volumes.extend(one.volumes);
        page.unknown.extend(one.unknown);
    }
    page.volumes.sort_by(|a, b| (&a.name, &a.machine_id).cmp(&(&b.name, &b.machine_id)));
    page.unknown.sort_by(|a, b| a.machine_id.cmp(&b.machine_id));
    Ok(Json(page))
}

/// What `podman volume ls` says of one.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    name: String,
    #[serde(default)]
    mountpoint: String,
}

/// Where podman has each of its volumes, by name.
async fn places_of(user: bool) -> Result<BTreeMap<String, String>, String> {
    let words = ["podman", "volume", "ls", "--format", "json"];
    let said = transient::run(user, PODMAN_LIMIT, &words).await?;
    if let Some(failure) = said.failure {
        return Err(format!("podman cannot list its volumes: {failure}"));
    }
    let listed = serde_json::from_str::<Vec<Listed>>(&said.stdout)
        .map_err(|error| format!("podman's list of volumes cannot be read: {error}"))?;
    Ok(listed.into_iter().map(|one| (one.name, one.mountpoint)).collect())
}

async fn of_this_machine(api: &Api, source: Source) -> Result<VolumePage, ApiError> {
    if api.shared.volumes.is_empty() {
        return Ok(VolumePage::default());
    }
    let api = api.clone();
    hosts::to_the_end(async move { ask_podman(&api, source).await }).await
}

async fn ask_podman(api: &Api, source: Source) -> Result<VolumePage, ApiError> {
    let made = api.shared.volumes.all();
    let _place = api.shared.budgets.podman(source).await?;
    let user = api.shared.user;
    let mut problems = Vec::new();
    let places = match places_of(user).await {
        Ok(places) => Some(places),
        Err(problem) => {
            problems.push(problem);
            None
        }
    };
    let mut sizes = BTreeMap::new();
    if let Some(places) = &places {
        let known = made.iter().filter_map(|(name, ..)| places.get(name).map(String::as_str));
        let counted = known.filter(|place| !place.is_empty()).take(MAX_SIZES).collect();
        match sizes_of(user, counted).await {
            (found, None) => sizes = found,
            (found, Some(problem)) => {
                sizes = found;
                problems.push(format!("not every size is known: {problem}"));
            }
        }
    }
    let mut page = VolumePage::default();
    for (name, made, users) in made {
        let place = places.as_ref().map(|places| places.get(&name));
        if place == Some(None) {
            // Somebody removed it, or nothing has made it yet.
            if users.is_empty() {
                api.shared.volumes.forget(&name);
            }
            continue;
        }
        page.volumes.push(Volume {
            size_bytes: place.flatten().and_then(|place| sizes.get(place).copied()),
            name,
            unit: made.unit.to_string(),
            app: made.app.map(|app| app.to_string()).unwrap_or_default(),
            machine_id: api.shared.machine.to_string(),
            used_by: users.iter().map(UnitName::to_string).collect(),
            last_user: made.last_user.map(|user| user.to_string()).unwrap_or_default(),
            last_used_ms: Some(made.last_used_ms).filter(|at| *at > 0),
        });
    }
    let machine_id = api.shared.machine.to_string();
    let unknown = |problem| Unasked { machine_id: machine_id.clone(), problem };
    page.unknown = problems.into_iter().map(unknown).collect();
    Ok(page)
}

/// How much each folder takes, in bytes, as far as that was counted in time.
async fn sizes_of(user: bool, folders: Vec<&str>) -> (BTreeMap<String, u64>, Option<String>) {
    if folders.is_empty() {
        return Default::default();
    }
    let mut words = vec!["du", "--summarize", "--block-size=1", "--one-file-system", "--"];
    words.extend(folders);
    match transient::run(user, SIZES_LIMIT, &words).await {
        Ok(said) => (read_sizes(&said.stdout), said.failure),
        Err(problem) => (BTreeMap::new(), Some(problem)),
    }
}

/// du's lines: a number, a tab, a path.
fn read_sizes(lines: &str) -> BTreeMap<String, u64> {
    let lines = lines.lines().filter_map(|line| line.split_once('\t'));
    lines.filter_map(|(size, path)| Some((path.to_string(), size.parse().ok()?))).collect()
}

pub(super) async fn remove(
    State(api): State<Api>,
    source: Source,
    who: Who,
    Path((machine, name)): Path<(String, String)>,
    asked: Asked,
) -> Result<Response, ApiError> {
    if !is_volume_name(&name) {
        return Err(ApiError::invalid(format!("{name:?} is no name of a volume")));
    }
    if let Some(asked) = asked.value("machine") {
        remote::must_be_here(&api, asked)?;
    }
    if machine == api.shared.machine.as_str() {
        // One fleetd that asks another tells it itself: it knows who asked.
        let tells = asked.value("machine").is_none();
        let removed = async move {
            remove_here(&api, source, &who, &name).await?;
            if tells {
                tell(&api, &who, &api.shared.machine, name).await;
            }
            Ok(())
        };
        hosts::to_the_end(removed).await?;
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    if asked.value("machine").is_some() {
        let problem = format!("this is machine {}, not {machine}", api.shared.machine);
        return Err(ApiError::new(StatusCode::MISDIRECTED_REQUEST, problem));
    }
    let (_reader, mirror) = api.copy().await?;
    let id = MachineId::new(machine.as_str());
    let Some(there) = mirror.cluster().snapshot.machines.get(&id) else {
        return Err(match settings::is_known(&mirror.cluster().snapshot, &id) {
            true => ApiError::conflict(format!(
                "machine {machine} is not there, so its volume {name} stays"
            )),
            false => settings::no_such_machine(&machine),
        });
    };
    let path = ["machines", machine.as_str(), "volumes", name.as_str()];
    let base = there.api.as_deref().ok_or_else(|| {
        let problem = format!(
            "machine {machine} cannot be reached from here; set listen = \
                [\"https://ADDRESS:PORT\"] in its configuration, or ask it itself"
        );
        ApiError::new(StatusCode::BAD_GATEWAY, problem)
    })?;
    remote::ask_within(&api, Method::DELETE, MACHINE_LIMIT, &id, base, &path, &[]).await?;
    tell(&api, &who, &id, name).await;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Tells that it is gone. It is, also if that cannot be told.
async fn tell(api: &Api, who: &Who, machine: &MachineId, volume: String) {
    let act = who.act(Did::DestroyedVolume { volume }).on(machine);
    if let Err(error) = api.store().put_act(act).await {
        warn!("the event that a volume was destroyed is not written: {error}");
    }
}

/// podman's own rule for names.
fn is_volume_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    name.len() <= 255
        && name.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric)
        && name.bytes().all(plain)
}

async fn remove_here(api: &Api, source: Source, who: &Who, name: &str) -> Result<(), ApiError> {
    let (volumes, machine) = (&api.shared.volumes, api.shared.machine.short());
    if !volumes.all().iter().any(|(known, ..)| known == name) {
        let problem = format!("fleet made no volume {name} on machine {machine}");
        return Err(ApiError::new(StatusCode::NOT_FOUND, problem));
    }
    let unused = || {
        let users = volumes.users_of(name).ok_or_else(|| {
            let problem = format!(
                "fleetd on machine {machine} has just started and does not know yet who uses \
                    {name}; try again"
            );
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, problem)
        })?;
        must_be_unused(name, machine, &users)
    };
    unused()?;
    let _place = api.shared.budgets.podman(source).await?;
    let failed = |problem: String| {
        let problem = format!("podman on machine {machine} cannot remove {name}: {problem}");
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, problem)
    };
    // If podman has no volume of this name, it removes the one whose name begins so. That is why it
    // is looked for first, and nobody else removes it meanwhile.
    let _turn = api.shared.removing.lock().await;
    let places = places_of(api.shared.user).await.map_err(failed)?;
    let Some(place) = places.get(name) else {
        info!("the volume {name} was gone already");
        volumes.forget(name);
        return Ok(());
    };
    // Not every file system knows when a folder came to be.
    let made = std::fs::metadata(place).and_then(|folder| folder.created());
    if made.is_ok_and(|made| volumes.was_there_before(name, made)) {
        return Err(ApiError::conflict(format!(
            "{name} on machine {machine} was there before fleet used it, so its data may be \
                somebody else's; `podman volume rm {name}` on that machine removes it"
        )));
    }
    // Somebody may have begun to use it meanwhile.
    unused()?;
    // Without --force podman refuses one that any container has.
    let words = ["podman", "volume", "rm", "--", name];
    let said = transient::run(api.shared.user, PODMAN_LIMIT, &words).await.map_err(failed)?;
    match said.failure {
        None => info!("the volume {name} was removed, as {} asked", who.name()),
        Some(problem) if problem.contains("no such volume") => {
            info!("the volume {name} was gone already");
        }
        Some(problem) if problem.contains("being used") => {
            return Err(ApiError::conflict(format!("{name} on machine {machine}: {problem}")));
        }
        Some(problem) => return Err(failed(problem)),
    }
    volumes.forget(name);
    Ok(())
}

fn must_be_unused(name: &str, machine: &str, users: &BTreeSet<UnitName>) -> Result<(), ApiError> {
    if users.is_empty() {
        return Ok(());
    }
    let users: Vec<&str> = users.iter().map(UnitName::as_str).collect();
    Err(ApiError::conflict(format!(
        "{name} on machine {machine} is in use by {}; unload or destroy that first",
        users.join(", ")
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn du_tells_a_size_a_line() {
        let sizes = read_sizes("4096\t/v/a/_data\n12\t/v/b c/_data\ndu: x\n");
        let expected = [("/v/a/_data".to_string(), 4096), ("/v/b c/_data".to_string(), 12)];
        assert_eq!(sizes, expected.into());
    }

    #[test]
    fn a_name_can_be_no_option_and_no_path() {
        for (name, good) in [
            ("systemd-data", true),
            ("a_b.c", true),
            ("", false),
            ("-f", false),
            ("../x", false),
            ("a b", false),
        ] {
            assert_eq!(is_volume_name(name), good, "{name:?}");
        }
    }

    #[test]
    fn a_volume_in_use_is_refused_with_its_users() {
        let users = BTreeSet::from([UnitName::trusted("db.container")]);
        let error = must_be_unused("systemd-data", "c2e1b518", &users).unwrap_err();
        assert_eq!(error.status(), StatusCode::CONFLICT);
        assert_eq!(
            error.message(),
            "systemd-data on machine c2e1b518 is in use by db.container; unload or destroy that \
                first"
        );
        assert!(must_be_unused("systemd-data", "c2e1b518", &BTreeSet::new()).is_ok());
    }
}
