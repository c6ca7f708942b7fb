//! `fleetctl update`: gives a unit another image.

use clap::Args;
use clap_complete::ArgValueCompleter;
use fleet_core::name::UnitName;
use fleet_core::unit::new_image::with_image;
use fleet_core::wire::Unit;
use serde::Serialize;

use super::activate::{instances, tell_warnings};
use super::deactivate::is_inactive;
use super::image_check;
use crate::complete;
use crate::context::{Context, did_you_mean};
use crate::error::{Error, Kind};
use crate::names::Argument;
use crate::sources::{is_global, unit_from_text};
use crate::target::{Goal, Target};
use crate::wait::{WaitArgs, until_done};

/// Give a unit another image, and wait until it runs
///
/// The unit's file becomes a new revision with this image: in Image= of a .container unit, else in
/// the `docker run` or `podman run` of its ExecStart=. The rest of the file, the desired state and
/// the count stay. Instances change as MaxUnavailable= permits; a .container's image is pulled
/// before its instance is stopped. `fleetctl rollback` returns.
///
/// With --check nothing is changed: podman on each machine asks the registries, for containers with
/// AutoUpdate=registry. Exits with 0 if none differs, 1 if some do, 2 if some could not be asked
/// for.
#[derive(Debug, Args)]
pub(crate) struct UpdateArgs {
    /// The unit or template; with --check also several, and applications
    #[arg(
        value_name = "UNIT",
        required_unless_present = "check",
        add = ArgValueCompleter::new(complete::units)
    )]
    units: Vec<String>,
    /// The image: registry.example.com/web:2, or with @sha256:…
    #[arg(long, value_name = "IMAGE", required_unless_present = "check")]
    image: Option<String>,
    /// Change nothing, and show which running images have another digest in their registry
    #[arg(long, conflicts_with = "image")]
    check: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

/// What was changed, for `--json`.
#[derive(Serialize)]
struct Updated<'a> {
    name: &'a str,
    image: &'a str,
    before: &'a str,
}

pub(crate) async fn run(context: &Context, args: UpdateArgs) -> Result<u8, Error> {
    let (unit, image) = match (args.units.as_slice(), &args.image) {
        (units, None) => return image_check::run(context, units).await,
        ([unit], Some(image)) => (unit, image),
        (_, Some(_)) => {
            let problem = "update gives one unit another image; name one";
            return Err(Error::usage(problem));
        }
    };
    let argument = Argument::parse(unit)?;
    let asked = &argument.name;
    let found = context.client.unit_of(&argument).await;
    let found =
        found.map_err(|error| Error::request(&format!("Error retrieving Unit {asked}"), error))?;
    let Some(unit) = found else {
        let error = Error::worded(Kind::Failed, format!("Unit {asked} not found"));
        return Err(did_you_mean(&context.client, error, asked).await);
    };
    let name = unit.name.clone();
    let failed = |problem: String| Error::failed(format!("cannot update {name}: {problem}"));
    if !unit.template.is_empty() {
        let template = &unit.template;
        return Err(failed(format!("it has no file of its own, it follows {template}"))
            .hint(format!("fleetctl update {template} --image {}", image)));
    }
    let Some(text) = &unit.text else {
        return Err(failed("the server sent no file of it".to_string()));
    };
    let unit_name = UnitName::trusted(name.as_str());
    let (text, before) = with_image(&unit_name, text, image).map_err(|problem| {
        failed(problem).hint("`fleetctl start --replace FILE` takes a file as you write it")
    })?;
    if context.output.is_json() {
        let updated = Updated { name: &name, image, before: &before };
        context.output.document(&updated)?;
    }
    if before == *image {
        if !context.output.is_json() {
            context.output.text(&format!("Unit {name} has the image {before}, nothing to do\n"))?;
        }
        return Ok(0);
    }
    let new = unit_from_text(&unit_name, &name, text)?;
    let body = Unit { desired_state: unit.desired_state.clone(), ..new };
    let written = context.client.put_unit(&body).await;
    let written =
        written.map_err(|error| Error::request(&format!("Error updating {name}"), error))?;
    tell_warnings(&name, &written);
    if !context.output.is_json() {
        let line = format!("Unit {name} has the image {} instead of {before}\n", image);
        context.output.text(&line)?;
    }
    if !args.wait.blocks() || is_inactive(&unit) {
        return Ok(0);
    }
    let goal = if unit.desired_state == "launched" { Goal::Launched } else { Goal::Loaded };
    let target = match is_global(&unit) || context.output.is_json() {
        true => Target::quiet(name.as_str(), goal),
        false => Target::telling(name.as_str(), goal, instances(context, &unit).await?),
    };
    let target = Target { stays_up: true, ..target };
    until_done(&context.client, &context.output, vec![target], &args.wait).await?;
    Ok(0)
}
