//! `/images/check`: which running images have another digest in their registry, by podman's
//! `auto-update --dry-run` on each machine that runs them. Nothing is changed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use fleet_core::name::{MachineId, UnitName};
use fleet_core::view::Cluster;
use fleet_core::wire::{ImageCheck, ImageCheckPage, Unasked};
use serde::Deserialize;

use super::describe::{Operation, Resource};
use super::error::ApiError;
use super::guests::Source;
use super::hosts::{self, Question};
use super::query::Asked;
use super::units::parse;
use super::{Api, remote};
use crate::store::Mirror;
use crate::systemd::transient;

/// How long podman may take to ask all registries: a machine has some tens of images.
const PODMAN_LIMIT: Duration = Duration::from_secs(40);

/// How long another machine has for it.
const MACHINE_LIMIT: Duration = Duration::from_secs(50);

/// The most units that one request may name.
const MAX_UNITS: usize = 1_000;

/// What of the API is answered here.
pub(super) fn routes() -> Vec<Resource> {
    vec![
        Resource::at("/images/check").get(
            check,
            Operation::new(
                "checkImages",
                "Which running images of units with AutoUpdate= have another digest in their \
                    registry. Changes nothing, and asks registries, so it may take a minute.",
            )
            .query("unit", "Only what runs of this unit or template; may come several times.")
            .query("machine", "The machine that is asked, as one fleetd asks another.")
            .gives::<ImageCheckPage>("The images, and the machines that did not answer.")
            .errors([400, 421]),
        ),
    ]
}

pub(super) async fn check(
    State(api): State<Api>,
    source: Source,
    asked: Asked,
) -> Result<Json<ImageCheckPage>, ApiError> {
    let units = asked.all("unit").filter(|unit| !unit.is_empty()).map(parse);
    let units: BTreeSet<UnitName> = units.collect::<Result<_, _>>()?;
    if units.len() > MAX_UNITS {
        let problem = format!("{} units; one request may name {MAX_UNITS}", units.len());
        return Err(ApiError::invalid(problem));
    }
    let (_reader, mirror) = api.copy().await?;
    let cluster = mirror.cluster();
    if let Some(machine) = asked.value("machine") {
        remote::must_be_here(&api, machine)?;
        return Ok(Json(of_this_machine(&api, source, &mirror, &units).await?));
    }
    let query: Vec<(&str, &str)> = units.iter().map(|unit| ("unit", unit.as_str())).collect();
    let question = Question { path: &["images", "check"], query: &query, limit: MACHINE_LIMIT };
    let running = running(cluster, &units);
    let machines: BTreeSet<&MachineId> = running.iter().map(|(machine, _)| *machine).collect();
    let here = of_this_machine(&api, source, &mirror, &units);
    let (pages, unknown) = hosts::ask(&api, cluster, &machines, question, here).await;
    let mut page = ImageCheckPage { images: Vec::new(), unknown };
    for one in pages {
        page.images.extend(one.images);
        page.unknown.extend(one.unknown);
    }
    page.images.sort_by(|a, b| (&a.unit, &a.machine_id).cmp(&(&b.unit, &b.machine_id)));
    page.unknown.sort_by(|a, b| a.machine_id.cmp(&b.machine_id));
    Ok(Json(page))
}

/// What runs by podman of these units, or of all if there is none, and where.
fn running<'a>(
    cluster: &'a Cluster,
    units: &BTreeSet<UnitName>,
) -> Vec<(&'a MachineId, &'a UnitName)> {
    let wanted = |instance: &UnitName, unit: &UnitName| {
        unit.is_quadlet() && is_wanted(cluster, units, instance, unit)
    };
    let all = cluster.snapshot.assignments.iter().flat_map(|(machine, assignment)| {
        let instances = assignment.instances.iter();
        instances.map(move |(instance, placement)| (machine, instance, &placement.unit))
    });
    all.filter(|(_, instance, unit)| wanted(instance, unit)).map(|(m, i, _)| (m, i)).collect()
}

/// Whether an instance is asked for: by its name, its unit's, or that of a container in its pod.
fn is_wanted(
    cluster: &Cluster,
    units: &BTreeSet<UnitName>,
    instance: &UnitName,
    unit: &UnitName,
) -> bool {
    if units.is_empty() || units.contains(instance) || units.contains(unit) {
        return true;
    }
    let member = |name: &UnitName| {
        let known =
            cluster.snapshot.units.get(name).or_else(|| {
                name.template().and_then(|template| cluster.snapshot.units.get(&template))
            });
        known.is_some_and(|unit| unit.member)
    };
    unit.suffix() == "pod" && units.iter().any(member)
}

/// What podman says of one container.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Said {
    unit: String,
    image: String,
    policy: String,
    updated: String,
}

async fn of_this_machine(
    api: &Api,
    source: Source,
    mirror: &Arc<Mirror>,
    units: &BTreeSet<UnitName>,
) -> Result<ImageCheckPage, ApiError> {
    let machine = &api.shared.machine;
    let here = running(mirror.cluster(), units).into_iter().filter(|(id, _)| *id == machine);
    if here.count() == 0 {
        return Ok(ImageCheckPage::default());
    }
    let (api, mirror, units) = (api.clone(), mirror.clone(), units.clone());
    hosts::to_the_end(async move { ask_podman(&api, source, mirror.cluster(), &units).await }).await
}

async fn ask_podman(
    api: &Api,
    source: Source,
    cluster: &Cluster,
    units: &BTreeSet<UnitName>,
) -> Result<ImageCheckPage, ApiError> {
    let machine = &api.shared.machine;
    let _place = api.shared.budgets.podman(source).await?;
    let words = ["podman", "auto-update", "--dry-run", "--format", "json"];
    let said = transient::run(api.shared.user, PODMAN_LIMIT, &words).await;
    let (images, problem) = match said {
        Ok(said) => match read_said(&said.stdout) {
            Ok(images) => (images, said.failure),
            Err(problem) => (Vec::new(), said.failure.or(Some(problem))),
        },
        Err(problem) => (Vec::new(), Some(problem)),
    };
    let mut page = ImageCheckPage::default();
    for said in images {
        let Some(unit) = unit_of(cluster, units, &said.unit) else { continue };
        page.images.push(ImageCheck {
            unit: unit.to_string(),
            machine_id: machine.to_string(),
            image: said.image,
            policy: said.policy,
            updated: said.updated,
        });
    }
    page.unknown = problem
        .map(|problem| Unasked { machine_id: machine.to_string(), problem })
        .into_iter()
        .collect();
    Ok(page)
}

fn read_said(json: &str) -> Result<Vec<Said>, String> {
    if json.trim().is_empty() {
        return Ok(Vec::new());
    }
    serde_json::from_str::<Option<Vec<Said>>>(json)
        .map(Option::unwrap_or_default)
        .map_err(|error| format!("podman's answer cannot be read: {error}"))
}

/// The instance that runs as this service, if it is fleet's and asked for. The host may have
/// containers of its own.
fn unit_of(cluster: &Cluster, units: &BTreeSet<UnitName>, service: &str) -> Option<UnitName> {
    let service = UnitName::parse(service).ok()?;
    let names = service.twins().into_iter().chain([service]);
    let mut known = names.filter_map(|name| {
        let owner = cluster.snapshot.units.get(&name).map(|unit| unit.name.clone());
        let owner = owner.or_else(|| {
            let template = name.template()?;
            cluster.snapshot.units.contains_key(&template).then_some(template)
        })?;
        Some((name, owner))
    });
    let (name, owner) = known.next()?;
    (units.is_empty() || units.contains(&name) || units.contains(&owner)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn podmans_answer_is_read_and_none_is_none() {
        let said = read_said(
            r#"[{"Unit":"web@1.service","Container":"ab (web)","ContainerID":"ab","ContainerName":"web",
                "Image":"h1:5000/web:1","Policy":"registry","Updated":"pending"}]"#,
        )
        .unwrap();
        assert_eq!((said[0].unit.as_str(), said[0].updated.as_str()), ("web@1.service", "pending"));
        assert!(read_said("").unwrap().is_empty() && read_said("null").unwrap().is_empty());
        assert!(read_said("Error").unwrap_err().starts_with("podman's answer cannot be read"));
    }
}
