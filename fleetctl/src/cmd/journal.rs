//! `fleetctl journal`: a unit's log, from whichever machines run it.

use clap::Args;
use clap_complete::ArgValueCompleter;
use fleet_core::name::UnitName;
use fleet_core::wire::NOTE_MARK;

use super::remote::{self, OverSsh};
use crate::client::{ClientError, first_known, innermost};
use crate::complete;
use crate::context::{Context, did_you_mean};
use crate::error::{Error, Kind};
use crate::lines::{Lines, Piece};
use crate::names::Argument;
use crate::output::{machine_legend, note};

/// So many bytes of a line are kept until it ends; of a longer one the parts are printed as they
/// come.
const MAX_KEPT: usize = 64 * 1024;

/// Print a unit's log from all machines that run it
///
/// --follow follows the unit to other machines, and resumes when a machine answers again.
#[derive(Debug, Args)]
pub(crate) struct JournalArgs {
    /// The unit; of a template or a global unit all instances
    #[arg(value_name = "UNIT", add = ArgValueCompleter::new(complete::units))]
    units: Vec<String>,
    /// Keep printing new lines
    #[arg(long, short = 'f', alias = "f")]
    follow: bool,
    /// How many of the newest lines to print first
    #[arg(long, short = 'n', default_value_t = 10, value_name = "N")]
    lines: u32,
    /// journalctl's output format: short, short-iso, cat, json…
    #[arg(long, short = 'o', default_value = "short", value_name = "FORMAT")]
    output: String,
    #[command(flatten)]
    ssh: OverSsh,
    /// With --ssh-port: read the journal as root
    #[arg(long)]
    sudo: bool,
}

pub(crate) async fn run(context: &Context, args: JournalArgs) -> Result<u8, Error> {
    let [unit] = args.units.as_slice() else {
        return Err(Error::worded(Kind::Failed, "One unit file must be provided."));
    };
    let argument = Argument::parse(unit)?;
    let lines = args.lines.to_string();
    // With --json each entry is a document, as journalctl has it.
    let format = if context.output.is_json() { "json" } else { &args.output };
    if let Some(port) = args.ssh.ssh_port {
        return over_ssh(context, &argument, port, &lines, format, &args).await;
    }
    let follow = if args.follow { "true" } else { "false" };
    let query =
        [("lines", lines.as_str()), ("follow", follow), ("output", format), ("notes", "true")];
    let (name, found) =
        first_known(&argument, async |name| context.client.journal(name.as_str(), &query).await)
            .await;
    let mut answer = match found {
        Ok(answer) => answer,
        Err(ClientError::Api { code: 404, .. }) => {
            let error = Error::worded(Kind::Failed, format!("Unit {name} does not exist."));
            return Err(did_you_mean(&context.client, error, &name).await);
        }
        Err(ClientError::Api { code: 409, message }) => {
            return Err(Error::worded(
                Kind::Failed,
                format!("Unit {name} does not appear to be running."),
            )
            .cause(message));
        }
        Err(error) => {
            return Err(Error::request(&format!("Error retrieving journal of {name}"), error));
        }
    };
    let mut journal = Journal { lines: Lines::new(MAX_KEPT), goes_on: args.follow, in_line: false };
    let mut code = 0;
    loop {
        match answer.chunk().await {
            Ok(Some(chunk)) => {
                if journal.print(context, &chunk)? {
                    code = Kind::Failed.code();
                }
            }
            // It ends only after a note that says why.
            Ok(None) if args.follow && code == 0 => {
                return Err(broke_off(&name, "fleetd closed the connection"));
            }
            Ok(None) => {
                context.output.bytes(&journal.lines.rest())?;
                return Ok(code);
            }
            Err(problem) => return Err(broke_off(&name, &innermost(&problem))),
        }
    }
}

fn broke_off(name: &UnitName, problem: &str) -> Error {
    Error::failed(format!("the journal of {name} ended early: {problem}"))
}

/// The journal as fleetd sends it: its lines, and notes of what went wrong between them.
struct Journal {
    lines: Lines,
    /// Whether it is followed, and goes on after a note.
    goes_on: bool,
    /// Whether a part of a line was printed whose rest is to come.
    in_line: bool,
}

impl Journal {
    /// Prints what came: lines of the journal on stdout, on stderr what is none but says what went
    /// wrong. True if anything did.
    fn print(&mut self, context: &Context, chunk: &[u8]) -> Result<bool, Error> {
        self.lines.push(chunk);
        let mut wrong = false;
        // Lines are written together: one write a line would be slow.
        let mut text = Vec::new();
        while let Some(piece) = self.lines.next() {
            let (begins, bytes) = match piece {
                Piece::Line(bytes) => (!std::mem::take(&mut self.in_line), bytes),
                Piece::Part(bytes) => (!std::mem::replace(&mut self.in_line, true), bytes),
            };
            match read(&bytes).filter(|_| begins) {
                Some(Meaning::Note(said)) => {
                    context.output.bytes(&std::mem::take(&mut text))?;
                    match self.goes_on {
                        true => note(said.trim_end()),
                        false => _ = Error::failed(said.trim_end()).print(),
                    }
                    wrong = true;
                }
                Some(Meaning::Line(line)) => text.extend_from_slice(line),
                None => text.extend_from_slice(&bytes),
            }
        }
        context.output.bytes(&text)?;
        Ok(wrong)
    }
}

/// What a line that begins with [`NOTE_MARK`] means.
enum Meaning<'a> {
    /// fleetd says what went wrong.
    Note(String),
    /// A line of the journal that begins so, marked once more by fleetd.
    Line(&'a [u8]),
}

fn read(line: &[u8]) -> Option<Meaning<'_>> {
    let rest = line.strip_prefix(&[NOTE_MARK])?;
    Some(match rest.first() {
        Some(&NOTE_MARK) => Meaning::Line(rest),
        _ => Meaning::Note(String::from_utf8_lossy(rest).into_owned()),
    })
}

async fn over_ssh(
    context: &Context,
    argument: &Argument,
    port: u16,
    lines: &str,
    format: &str,
    args: &JournalArgs,
) -> Result<u8, Error> {
    let (name, places) = remote::places(context, argument, "running").await?;
    if args.follow && places.len() > 1 {
        let machines: Vec<String> = places
            .iter()
            .map(|place| machine_legend(&place.machine, &place.address, false))
            .collect();
        let message = format!(
            "{name} is in {} places, and ssh can follow one: {}",
            places.len(),
            machines.join(", ")
        );
        return Err(Error::failed(message)
            .hint("without --ssh-port fleetd follows all of them as one stream"));
    }
    let mut worst = 0;
    for place in places {
        let unit = place.instance.systemd_name();
        let mut words = vec![
            "journalctl",
            "--unit",
            unit.as_str(),
            "--no-pager",
            "-n",
            lines,
            "--output",
            format,
        ];
        if args.sudo {
            words.insert(0, "sudo");
        }
        words.extend(args.follow.then_some("-f"));
        worst = worst.max(remote::run(context, &place, port, &words)?);
    }
    Ok(worst)
}
