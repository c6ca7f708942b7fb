//! `fleetctl status`: what systemd says of units, from whichever machines run them.

use clap::Args;
use clap_complete::ArgValueCompleter;
use fleet_core::app::AppName;
use fleet_core::name::UnitName;
use fleet_core::wire::{App, FailurePage, Fencing, UnitFailure, UnitState};
use serde::Serialize;
use tokio::sync::OnceCell;

use super::apps;
use super::remote::{self, OverSsh};
use crate::client::{ClientError, first_known, innermost};
use crate::clock::age;
use crate::complete;
use crate::context::{Context, did_you_mean};
use crate::error::{Error, Kind};
use crate::names::Argument;
use crate::output::{machine_legend, warn};

/// Show systemd's status of units on the machines that run them
///
/// Exits with the status of the remote systemctl: 3 means that the unit does not run. A name
/// without an ending may be an application's, where no service, container, pod or kube has it: all
/// of it is shown on one screen.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// The units
    #[arg(value_name = "UNIT", add = ArgValueCompleter::new(complete::units))]
    units: Vec<String>,
    /// An application, also where a unit has that name
    #[arg(
        long,
        value_name = "NAME",
        conflicts_with = "units",
        add = ArgValueCompleter::new(complete::apps)
    )]
    app: Option<String>,
    #[command(flatten)]
    ssh: OverSsh,
    /// Taken from scripts for fleet 1.0, which refused it
    #[arg(long, hide = true)]
    no_block: bool,
}

pub(crate) async fn run(context: &Context, args: StatusArgs) -> Result<u8, Error> {
    if args.no_block {
        warn("--no-block does nothing: status does not wait");
    }
    if let Some(name) = &args.app {
        let app = apps::find(context, name).await?;
        return apps::show(context, &app).await;
    }
    let arguments = Argument::parse_all(&args.units)?;
    if let Some(port) = args.ssh.ssh_port {
        return over_ssh(context, &arguments, port).await;
    }
    if context.output.is_json() {
        return json(context, &arguments).await;
    }
    let mut worst = 0;
    for (i, argument) in arguments.iter().enumerate() {
        if i > 0 {
            context.output.text("\n")?;
        }
        let ask = async |name: &UnitName| context.client.status(name.as_str()).await;
        let (name, found) = first_meant(context, argument, ask).await;
        match found {
            Ok(Meant::App(app)) => worst = worst.max(apps::show(context, &app).await?),
            Ok(Meant::Unit((mut answer, code, problems))) => {
                while let Some(chunk) = answer.chunk().await.map_err(|problem| {
                    Error::failed(format!(
                        "the status of {name} ended early: {}",
                        innermost(&problem)
                    ))
                })? {
                    context.output.bytes(&chunk)?;
                }
                worst = worst.max(code);
                // The status was shown: what cannot be had beside it is no error.
                if let Ok(failures) = context.client.failures(name.as_str()).await {
                    context.output.text(&failures_as_text(&failures))?;
                }
                for problem in &problems {
                    worst = worst.max(Error::failed(problem).print());
                }
            }
            Err(error) => worst = worst.max(refused(context, &name, error).await.print()),
        }
    }
    Ok(worst)
}

/// What a name means: a unit, with what fleetd answers, or an application.
enum Meant<T> {
    Unit(T),
    App(App),
}

/// Asks for the units that may be meant, as other commands do. An application goes after those that
/// run, and before those that are there for others: `shop` is no `shop.network`.
async fn first_meant<T>(
    context: &Context,
    argument: &Argument,
    ask: impl AsyncFn(&UnitName) -> Result<T, ClientError>,
) -> (UnitName, Result<Meant<T>, ClientError>) {
    let app = OnceCell::new();
    first_known(argument, async |name| {
        if name.is_shared()
            && let Some(app) = app.get_or_init(|| application(context, argument)).await
        {
            return Ok(Meant::App(app.clone()));
        }
        ask(name).await.map(Meant::Unit)
    })
    .await
}

/// The application of this name, if no unit type was typed.
async fn application(context: &Context, argument: &Argument) -> Option<App> {
    let name = argument.untyped()?;
    AppName::parse(name).ok()?;
    context.client.app(name).await.ok().flatten()
}

async fn over_ssh(context: &Context, arguments: &[Argument], port: u16) -> Result<u8, Error> {
    let mut worst = 0;
    for argument in arguments {
        for place in remote::places(context, argument, "loaded").await?.1 {
            let unit = place.instance.systemd_name();
            worst = worst.max(remote::run(
                context,
                &place,
                port,
                &["systemctl", "status", "-l", "--no-pager", "--", unit.as_str()],
            )?);
        }
    }
    Ok(worst)
}

async fn refused(context: &Context, name: &UnitName, error: ClientError) -> Error {
    match error {
        ClientError::Api { code: 404, .. } => {
            did_you_mean(
                &context.client,
                Error::worded(Kind::Failed, format!("Unit {name} does not exist.")),
                name,
            )
            .await
        }
        ClientError::Api { code: 409, message } => {
            Error::worded(Kind::Failed, format!("Unit {name} does not appear to be loaded."))
                .cause(message)
        }
        error => Error::request(&format!("Error retrieving status of {name}"), error),
    }
}

/// A state, and how the instance is fenced there.
#[derive(Serialize)]
struct Entry {
    #[serde(flatten)]
    state: UnitState,
    #[serde(skip_serializing_if = "Option::is_none")]
    fencing: Option<Fencing>,
    /// Its last failures, also on machines that it has left.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failures: Vec<UnitFailure>,
}

/// The last failures, a line each under a line of their kinds; nothing if there are none.
fn failures_as_text(page: &FailurePage) -> String {
    if page.failures.is_empty() {
        return String::new();
    }
    let kinds: Vec<String> = page.kinds.iter().map(|(kind, n)| format!("{kind} {n}")).collect();
    let mut text = format!("\nLast failures ({}):\n", kinds.join(", "));
    for failure in &page.failures {
        let UnitFailure { name, machine_id, result, code, count, .. } = failure;
        let machine = machine_legend(machine_id, "", false);
        let code = code.map_or(String::new(), |code| format!(" ({code})"));
        let times = if *count > 1 { format!(", {count} times") } else { String::new() };
        let ago = age(failure.at_ms);
        text.push_str(&format!("  {ago:>4} ago  {name} on {machine}: {result}{code}{times}\n"));
    }
    text
}

/// The states as data, of all units in one list. What is fenced and has no state, since it waits,
/// has an entry of its own.
async fn json(context: &Context, arguments: &[Argument]) -> Result<u8, Error> {
    let mut all = Vec::new();
    for argument in arguments {
        let (name, asked) = first_meant(context, argument, async |name: &UnitName| {
            let name = name.as_str();
            let states = context.client.states(Some(name)).await?;
            // What was destroyed and still stops has a state, and nothing else.
            if states.is_empty() {
                context.client.unit(name).await?.ok_or_else(ClientError::not_found)?;
            }
            let (fencing, failures) =
                tokio::try_join!(context.client.fencing(name), context.client.failures(name))?;
            Ok((states, fencing, failures.failures))
        })
        .await;
        let (states, mut fencing, mut failures) = match asked {
            Ok(Meant::Unit(all)) => all,
            Ok(Meant::App(app)) if arguments.len() == 1 => return apps::show(context, &app).await,
            // A list of states has no place for one.
            Ok(Meant::App(_)) => {
                return Err(refused(context, &argument.name, ClientError::not_found()).await);
            }
            Err(error) => return Err(refused(context, &name, error).await),
        };
        for state in states {
            let at = fencing.iter().position(|fenced| {
                fenced.name == state.name && fenced.machine_id == state.machine_id
            });
            let of_it = |failure: &mut UnitFailure| failure.name == state.name;
            let failures = failures.extract_if(.., of_it).collect();
            all.push(Entry { fencing: at.map(|at| fencing.remove(at)), failures, state });
        }
        all.extend(fencing.into_iter().map(|fenced| {
            let state = UnitState {
                name: fenced.name.clone(),
                machine_id: fenced.machine_id.clone(),
                ..UnitState::default()
            };
            Entry { state, fencing: Some(fenced), failures: Vec::new() }
        }));
    }
    context.output.document(&all)?;
    Ok(0)
}
