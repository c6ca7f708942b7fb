//! `fleetctl rollout`: how far changes are, and what happens to them.

use std::time::Duration;

use clap::{Args, Subcommand};
use clap_complete::ArgValueCompleter;
use fleet_core::model::RolloutAction;
use fleet_core::name::UnitName;
use fleet_core::rollout::{Kind as What, State};
use fleet_core::wire::RolloutStatus;
use tokio::time::{Instant, sleep};

use crate::client::{ClientError, first_known};
use crate::clock::age;
use crate::complete;
use crate::context::{Context, did_you_mean};
use crate::error::{Error, Kind};
use crate::last_lines;
use crate::names::Argument;
use crate::options::ListArgs;
use crate::output::{machine_legend, note};
use crate::progress::Live;
use crate::table::{Cell, Column, Tone, pick, render};
use crate::wait::{WaitArgs, at};

/// How often a rollout is looked at.
const LOOK_PERIOD: Duration = Duration::from_millis(500);

/// Watch a change reach the instances, pause it, undo it
#[derive(Debug, Args)]
pub(crate) struct RolloutArgs {
    #[command(subcommand)]
    command: RolloutCommand,
}

#[derive(Debug, Subcommand)]
enum RolloutCommand {
    /// Show how far it is until it is over
    ///
    /// Ends with 0 if all instances are healthy with what is new, 1 if it was undone, failed, or
    /// goes no further because an instance failed, 3 if it goes on at --timeout. With --no-block it
    /// looks once.
    Status(FollowArgs),
    /// Change no further instances for now
    Pause(OfArgs),
    /// Go on: after a pause, after canaries, after a failure; try again what was undone
    Resume(FollowArgs),
    /// Return all instances to the last good text
    ///
    /// The unit's file stays as it was submitted: `resume` tries it again.
    Undo(FollowArgs),
    /// List the rollouts that are under way, wait, or were undone
    List(ListRolloutsArgs),
}

#[derive(Debug, Args)]
struct OfArgs {
    /// The unit or template
    #[arg(value_name = "UNIT", add = ArgValueCompleter::new(complete::units))]
    unit: String,
}

#[derive(Debug, Args)]
struct FollowArgs {
    #[command(flatten)]
    of: OfArgs,
    #[command(flatten)]
    wait: WaitArgs,
}

#[derive(Debug, Args)]
struct ListRolloutsArgs {
    #[command(flatten)]
    list: ListArgs,
    /// The columns: unit, kind, state, new, healthy, wanted, since, waits
    #[arg(
        long,
        default_value = "unit,kind,state,new,healthy,wanted,since,waits",
        value_name = "NAMES"
    )]
    fields: String,
}

/// What a command waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// All have what is new.
    New,
    /// All have the last good text.
    Good,
}

pub(crate) async fn run(context: &Context, args: RolloutArgs) -> Result<u8, Error> {
    match args.command {
        RolloutCommand::Status(args) => {
            let status = ask(context, &args.of.unit, None).await?;
            follow(context, status, &args.wait, Wanted::New).await
        }
        RolloutCommand::Resume(args) => {
            let status = ask(context, &args.of.unit, Some(RolloutAction::Resume)).await?;
            if !args.wait.blocks() {
                return told(context, &status);
            }
            follow(context, status, &args.wait, Wanted::New).await
        }
        RolloutCommand::Undo(args) => {
            let status = ask(context, &args.of.unit, Some(RolloutAction::Undo)).await?;
            if !args.wait.blocks() {
                return told(context, &status);
            }
            follow(context, status, &args.wait, Wanted::Good).await
        }
        RolloutCommand::Pause(args) => {
            let status = ask(context, &args.unit, Some(RolloutAction::Pause)).await?;
            told(context, &status)
        }
        RolloutCommand::List(args) => list(context, &args).await,
    }
}

/// Asks how a rollout is, or for a change of it.
async fn ask(
    context: &Context,
    unit: &str,
    action: Option<RolloutAction>,
) -> Result<RolloutStatus, Error> {
    let (name, answer) =
        first_known(&Argument::parse(unit)?, async |name: &UnitName| match action {
            Some(action) => context.client.want_rollout(name.as_str(), action).await,
            None => context.client.rollout(name.as_str()).await,
        })
        .await;
    match answer {
        Ok(status) => Ok(status),
        Err(error) if error.is_not_found() => {
            let error = Error::worded(Kind::Failed, format!("Unit {name} not found"));
            Err(did_you_mean(&context.client, error, &name).await)
        }
        Err(error) => Err(refused(&name, action, error)),
    }
}

fn refused(name: &UnitName, action: Option<RolloutAction>, error: ClientError) -> Error {
    let doing = match action {
        Some(RolloutAction::Pause) => "pausing the rollout",
        Some(RolloutAction::Resume) => "resuming the rollout",
        Some(RolloutAction::Undo) => "undoing the rollout",
        Some(RolloutAction::Other) | None => "looking at the rollout",
    };
    let is_conflict = error.is_conflict();
    let error = Error::request(&format!("Error {doing} of {name}"), error);
    match action {
        Some(RolloutAction::Undo) if is_conflict => {
            error.hint(format!("`fleetctl rollback {name}` returns to an earlier text"))
        }
        _ => error,
    }
}

/// Prints how a rollout is.
fn told(context: &Context, status: &RolloutStatus) -> Result<u8, Error> {
    match context.output.is_json() {
        true => context.output.document(status)?,
        false => context.output.text(&format!("{}\n", line(status)))?,
    }
    Ok(0)
}

/// Follows a rollout until it is over: a line that is redrawn on a terminal, a line at each change
/// elsewhere.
async fn follow(
    context: &Context,
    status: RolloutStatus,
    wait: &WaitArgs,
    wanted: Wanted,
) -> Result<u8, Error> {
    let name = status.name.clone();
    let mut last = status;
    let followed = async {
        let mut live = Live::new();
        let mut told = String::new();
        loop {
            live.clear();
            let now = line(&last);
            if is_over(&last, wanted) || !wait.blocks() {
                return Ok(());
            }
            // With JSON, data is the last state alone.
            if now != told && !context.output.is_json() && !live.draws() {
                context.output.text(&format!("{now}\n"))?;
            }
            if now.contains(WAITS) && !told.contains(WAITS) {
                note(&hint_of(&last));
            }
            live.draw(&[format!("{now}, for {}", age(last.since_ms))]);
            told = now;
            sleep(LOOK_PERIOD).await;
            match context.client.rollout(&name).await {
                Ok(now) => last = now,
                Err(error) if error.is_passing() => {}
                Err(error) => {
                    return Err(Error::request(&format!("Error following {name}"), error));
                }
            }
        }
    };
    let deadline = wait.limit().map(|limit| Instant::now() + limit);
    let ended = tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => {
            let message = format!("Interrupted. The rollout of {name} goes on");
            return Err(Error::worded(Kind::Interrupted, message));
        }
        () = at(deadline) => Ok(()),
        ended = followed => ended,
    };
    ended?;
    told_at_the_end(context, &last, wanted).await
}

/// Prints how it ended, and gives the exit status.
async fn told_at_the_end(
    context: &Context,
    last: &RolloutStatus,
    wanted: Wanted,
) -> Result<u8, Error> {
    told(context, last)?;
    if !is_over(last, wanted) {
        return Ok(Kind::TimedOut.code());
    }
    let Some(error) = wrong(last, wanted) else { return Ok(0) };
    let Some(failure) = &last.failure else { return Err(error) };
    Err(last_lines::quoted(&context.client, error, failure.instance.as_str(), last.since_ms).await)
}

/// Whether nothing more comes of it for the one who waits.
fn is_over(status: &RolloutStatus, wanted: Wanted) -> bool {
    match wanted {
        Wanted::New => status.over,
        Wanted::Good => status.over && status.state != State::Paused,
    }
}

/// What is wrong with how it ended.
fn wrong(status: &RolloutStatus, wanted: Wanted) -> Option<Error> {
    let RolloutStatus { name, revision, failed, by, .. } = status;
    let because = match (failed.is_empty(), by.is_empty()) {
        (false, _) => format!(": {failed}"),
        (true, false) => format!(": {by} asked for it"),
        (true, true) => ": a user asked for it".to_string(),
    };
    let what = new(status);
    match status.state {
        State::Undone if wanted == Wanted::Good => None,
        State::Undone => Some(
            Error::failed(format!("revision {revision} of {name} was undone{because}"))
                .hint(format!("`fleetctl rollout resume {name}` tries it again")),
        ),
        State::Paused if !failed.is_empty() => Some(
            Error::failed(format!("{what} of {name} goes no further{because}"))
                .hint(hint_of(status)),
        ),
        State::Failed => Some(Error::failed(format!(
            "{what} of {name} failed, and all its instances get it all the same{because}"
        ))),
        State::Done if wanted == Wanted::Good => {
            Some(Error::failed(format!("{what} of {name} reached all its instances meanwhile")))
        }
        State::Rolling | State::Done | State::Paused => None,
    }
}

/// What users may do about one that waits.
fn hint_of(status: &RolloutStatus) -> String {
    let RolloutStatus { name, .. } = status;
    match status.kind == What::Text && status.good.is_some() {
        true => format!(
            "`fleetctl rollout resume {name}` goes on, `fleetctl rollout undo {name}` returns all \
                to the last good text"
        ),
        false => format!("`fleetctl rollout resume {name}` goes on"),
    }
}

fn new(status: &RolloutStatus) -> String {
    match (status.kind, status.config) {
        (What::Restart, _) => "a restart".to_string(),
        (What::Config, Some(config)) => format!("configuration {config}"),
        (What::Config, None) => "a configuration".to_string(),
        (What::Text | What::Other, _) => format!("revision {}", status.revision),
    }
}

const WAITS: &str = "waits for a user";

/// `web@.service: revision 3 after 1: rolling, 2 of 5 new, 1 healthy; web@3.service on 4dbc7f3b...
/// is to become healthy`.
fn line(status: &RolloutStatus) -> String {
    let RolloutStatus { name, wanted, healthy, .. } = status;
    let after = status.good.filter(|_| status.kind == What::Text);
    let after = after.map_or(String::new(), |good| format!(" after {good}"));
    let what = new(status);
    let waits = match waits(status) {
        waits if waits.is_empty() => waits,
        waits => format!("; {waits}"),
    };
    format!(
        "{name}: {what}{after}: {}, {} of {wanted} new, {healthy} healthy{waits}",
        word(status.state),
        status.new,
    )
}

fn word(state: State) -> &'static str {
    match state {
        State::Rolling => "rolling",
        State::Done => "done",
        State::Undone => "undone",
        State::Paused => "paused",
        State::Failed => "failed",
    }
}

/// What is waited for.
fn waits(status: &RolloutStatus) -> String {
    if status.state == State::Done {
        return String::new();
    }
    match (&status.waits_on, &status.waits_for) {
        (Some(on), _) => {
            let machine = machine_legend(on.machine_id.as_str(), "", false);
            format!("{} on {machine} is to become healthy", on.instance)
        }
        (None, _) if status.waits => WAITS.to_string(),
        (None, Some(reason)) => reason.to_string(),
        (None, None) => String::new(),
    }
}

async fn list(context: &Context, args: &ListRolloutsArgs) -> Result<u8, Error> {
    let columns = columns();
    let columns = pick(&columns, &args.fields)?;
    let found = context.client.rollouts().await;
    let found = found.map_err(|error| Error::request("Error listing rollouts", error))?;
    if context.output.is_json() {
        context.output.document(&found)?;
        return Ok(0);
    }
    let legend = !args.list.no_legend;
    let table = render(&columns, &found, args.list.full, legend, context.output.stdout());
    context.output.spans(&table)?;
    Ok(0)
}

fn columns() -> Vec<Column<'static, RolloutStatus>> {
    vec![
        ("unit", Box::new(|it, _| it.name.as_str().into())),
        ("kind", Box::new(|it, _| it.kind.to_string().into())),
        (
            "state",
            Box::new(|it, _| {
                let tone = match it.state {
                    State::Undone | State::Failed => Tone::Bad,
                    State::Paused if it.failure.is_some() => Tone::Bad,
                    State::Rolling | State::Paused => Tone::Busy,
                    State::Done => Tone::Good,
                };
                Cell::from(word(it.state)).toned(tone)
            }),
        ),
        ("new", Box::new(|it, _| it.new.to_string().into())),
        ("healthy", Box::new(|it, _| it.healthy.to_string().into())),
        ("wanted", Box::new(|it, _| it.wanted.to_string().into())),
        (
            "since",
            Box::new(|it, _| match it.since_ms {
                0 => "-".into(),
                since_ms => age(since_ms).into(),
            }),
        ),
        (
            "waits",
            Box::new(|it, _| match it.failed.as_str() {
                "" => waits(it).into(),
                failed => failed.into(),
            }),
        ),
    ]
}
