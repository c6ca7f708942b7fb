//! Finds the file of a unit that a command names: in the cluster, on disk, or its template's in
//! either.

use std::fs::File;
use std::io::Read;

use fleet_core::name::UnitName;
use fleet_core::unit::file::{MAX_UNIT_BYTES, UnitFile};
use fleet_core::unit::intake::{self, Refusal};
use fleet_core::unit::xfleet;
use fleet_core::wire::Unit;

use crate::client::Client;
use crate::error::{Error, Kind};
use crate::names::{Argument, beside};
use crate::output::warn;

/// What to do about one unit before its state can change.
#[derive(Debug)]
pub(crate) enum Source {
    /// The cluster has it, and keeps it as it is.
    Keep(Box<Unit>),
    /// The cluster has it, the local file is the same but perhaps for comments, and the user asked
    /// to replace it. `text` is the file's, if it has other comments.
    Same { unit: Box<Unit>, text: Option<String> },
    /// The cluster has it; this file takes its place.
    Replace { old: Box<Unit>, new: Box<Unit> },
    /// The cluster does not have it yet.
    Create(Box<Unit>),
}

/// Which desired states a command may replace a file in, as in fleet 1.0: submit must not stop what
/// runs.
pub(crate) type Replaceable<'a> = &'a [&'a str];

/// Looks up `argument` in the order of fleet 1.0: the cluster; the path; for an instance its
/// template in the cluster, then on disk. Without a unit type a service goes before a container.
/// With `replace`, a local file that differs takes the place of the cluster's; without it, the
/// difference is a warning.
pub(crate) async fn find(
    client: &Client,
    argument: &Argument,
    replace: Option<Replaceable<'_>>,
) -> Result<Source, Error> {
    let Argument { path, name, .. } = argument;
    let ask = async |name: &UnitName| {
        client.unit(name.as_str()).await.map_err(|error| {
            Error::request(
                &format!("Error creating units: error retrieving Unit({name}) from Registry"),
                error,
            )
        })
    };
    let meanings: Vec<Argument> = argument.meanings().collect();
    let record = async |meant: &Argument| -> Result<Option<Source>, Error> {
        let old = ask(&meant.name).await?;
        old.map(|old| compare(meant, old, replace)).transpose()
    };
    let file = |name: &UnitName, path: &str| -> Result<Option<Source>, Error> {
        let text = read_optional(path)?;
        text.map(|text| Ok(Source::Create(Box::new(unit_from_text(name, path, text)?)))).transpose()
    };
    for (nth, meant) in meanings.iter().enumerate() {
        let Argument { path, name, .. } = meant;
        if nth == 0
            && let Some(found) = record(meant).await?
        {
            return Ok(found);
        }
        if let Some(found) = file(name, path)? {
            return Ok(found);
        }
        // What is there goes before what a template would make.
        for other in meanings.iter().skip(1).filter(|_| nth == 0) {
            if let Some(found) = record(other).await? {
                return Ok(found);
            }
        }
        let Some(template) = name.template() else { continue };
        if let Some(Unit { options, text, .. }) = ask(&template).await? {
            return Ok(Source::Create(Box::new(Unit {
                name: name.to_string(),
                options,
                text,
                ..Unit::default()
            })));
        }
        if let Some(found) = file(name, &beside(path, &template))? {
            return Ok(found);
        }
    }
    let message =
        format!("Error creating units: unable to find Unit({name}) in Registry or on filesystem");
    Err(Error::worded(Kind::Failed, message).hint(format!(
        "looked for {path} in this directory; `fleetctl list-unit-files` shows what the cluster has"
    )))
}

/// A unit as it is submitted: the text as it stands, and its options for servers that know only
/// these.
pub(crate) fn unit_from_text(name: &UnitName, path: &str, text: String) -> Result<Unit, Error> {
    let taken = intake::take(name, &text).map_err(|refusal| refused(path, refusal))?;
    let options = taken.file.options;
    Ok(Unit { name: name.to_string(), options, text: Some(text), ..Unit::default() })
}

/// What is wrong, where, and each option that is in the way of another: fleet 1.0's words first,
/// which named neither file nor line.
fn refused(path: &str, refusal: Refusal) -> Error {
    let Refusal { line, problem, options, .. } = refusal;
    let place = match line {
        _ if !options.is_empty() => String::new(),
        0 => format!("{path}: "),
        line => format!("{path}:{line}: "),
    };
    let error = Error::worded(Kind::Failed, format!("Error creating units: {place}{problem}"));
    options.iter().fold(error, |error, option| {
        error.hint(format!("{path}:{}: {}", option.line, option.problem))
    })
}

/// Reads a unit file; `None` if there is no such file.
pub(crate) fn read_optional(path: &str) -> Result<Option<String>, Error> {
    let cannot = |problem: String| {
        Error::worded(Kind::Failed, format!("Error creating units: {path}: {problem}"))
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(problem) if problem.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(problem) => return Err(cannot(problem.to_string())),
    };
    match file.metadata() {
        Ok(metadata) if metadata.is_dir() => {
            return Err(cannot("this is a folder, not a unit file".to_string()));
        }
        _ => {}
    }
    let limit = MAX_UNIT_BYTES as u64;
    let mut bytes = Vec::new();
    // One byte more than the limit shows that it is over it, also for a pipe or a device without an
    // end.
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|problem| cannot(problem.to_string()))?;
    if bytes.len() > MAX_UNIT_BYTES {
        return Err(cannot(format!(
            "the unit file is too large; the limit is {limit} bytes (1 MiB)"
        )));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some(text)),
        Err(error) => {
            let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
            Err(Error::worded(
                Kind::Failed,
                format!("Error creating units: {path}:{line}: this is not UTF-8 text"),
            ))
        }
    }
}

/// The hash of a unit's normal form, computed here if the server does not send it.
pub(crate) fn hash(unit: &Unit) -> String {
    if unit.hash.is_empty() {
        UnitFile::from_options(unit.options.clone()).hash()
    } else {
        unit.hash.clone()
    }
}

/// Whether a unit runs on every machine that fits.
pub(crate) fn is_global(unit: &Unit) -> bool {
    unit.global || xfleet::is_global(&unit.options)
}

/// The cluster has the unit: is there a local file, and does it differ?
fn compare(
    argument: &Argument,
    old: Unit,
    replace: Option<Replaceable<'_>>,
) -> Result<Source, Error> {
    let template = argument.name.template().map(|template| beside(&argument.path, &template));
    let paths = std::iter::once(argument.path.clone()).chain(template);
    let mut local = None;
    for path in paths {
        match (read_optional(&path), replace) {
            (Ok(Some(text)), _) => {
                local = Some((path, text));
                break;
            }
            (Ok(None), _) => {}
            (Err(error), Some(_)) => return Err(error),
            // What cannot be read is not worth stopping for: the cluster's file counts.
            (Err(_), None) => {}
        }
    }
    let Some((path, text)) = local else {
        return Ok(if replace.is_some() {
            Source::Same { unit: Box::new(old), text: None }
        } else {
            Source::Keep(Box::new(old))
        });
    };
    // Nothing to check, whatever a new text would be refused for today.
    if old.text.as_ref() == Some(&text) {
        return Ok(match replace {
            Some(_) => Source::Same { unit: Box::new(old), text: None },
            None => Source::Keep(Box::new(old)),
        });
    }
    let new = match (unit_from_text(&argument.name, &path, text), replace) {
        (Ok(new), _) => new,
        (Err(error), Some(_)) => return Err(error),
        (Err(_), None) => return Ok(Source::Keep(Box::new(old))),
    };
    // Comments are no difference: they are not in the hash.
    let differs = hash(&new) != hash(&old);
    match replace {
        None if differs => {
            warn(&format!(
                "Unit {} in registry differs from local unit file {path}. Add --replace to \
                    override.",
                old.name
            ));
            Ok(Source::Keep(Box::new(old)))
        }
        None => Ok(Source::Keep(Box::new(old))),
        Some(_) if !differs => {
            // A replica has its template's text, and a write would give it one of its own; an old
            // fleetd keeps no comments.
            let keeps_text = old.template.is_empty() && old.text.is_some();
            let text = new.text.filter(|text| keeps_text && old.text.as_ref() != Some(text));
            Ok(Source::Same { unit: Box::new(old), text })
        }
        Some(states)
            if states.contains(&old.desired_state.as_str()) || old.desired_state.is_empty() =>
        {
            Ok(Source::Replace { old: Box::new(old), new: Box::new(new) })
        }
        Some(_) => {
            crate::output::note(&format!(
                "Warning: can not replace Unit({}) in state '{}', use the appropriate command",
                old.name, old.desired_state
            ));
            Ok(Source::Keep(Box::new(old)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        refusal_of("a.service", text)
    }

    fn refusal_of(name: &str, text: &str) -> String {
        let name = UnitName::parse(name).unwrap();
        let error =
            unit_from_text(&name, &format!("dir/{name}"), text.to_string()).expect_err(text);
        format!("{error:?}")
            .split("message: \"")
            .nth(1)
            .and_then(|m| m.split("\", causes").next())
            .unwrap_or("")
            .replace('\\', "")
    }

    #[test]
    fn a_bad_file_is_named_with_its_line() {
        assert_eq!(
            refusal("[Service]\nnonsense\n"),
            "Error creating units: dir/a.service:2: \"nonsense\" is neither a section, a comment \
                nor a Name=Value option"
        );
        assert_eq!(
            refusal("[X-Fleet]\nMachineID=x\nGlobal=true\n"),
            "Error creating units: MachineID cannot be used with Global"
        );
        assert!(
            refusal("")
                .starts_with("Error creating units: dir/a.service: the unit file has no options")
        );
        assert!(
            refusal("[Service]\nA=b\rC=d\n")
                .starts_with("Error creating units: dir/a.service:2: a carriage return")
        );
        let container = refusal_of("a.container", "[Container]\nImage=x\nVolume=./a:/b\n");
        assert!(
            container.starts_with("Error creating units: dir/a.container:3: Volume=./a:/b: "),
            "{container}"
        );
        assert!(
            refusal_of("app-.service", "[Service]\nExecStart=/a\n")
                .contains("dir/app-.service: app-.service stands for every")
        );
    }
}
