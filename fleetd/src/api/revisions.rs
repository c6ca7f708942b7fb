//! `/units/<name>/revisions` and `/rollback`: the texts that a unit has had, and the way back to
//! one of them.

use std::collections::BTreeMap;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use fleet_core::app::BundleRef;
use fleet_core::name::UnitName;
use fleet_core::unit::changed::changed;
use fleet_core::unit::file::UnitFile;
use fleet_core::unit::kept::MAX_KEPT_CONTENTS;
use fleet_core::wire;
use serde_json::json;

use super::Api;
use super::body::decode;
use super::describe::{Operation, Resource, WRITTEN};
use super::door::json_only;
use super::error::ApiError;
use super::history::tidy;
use super::retry::until_not_overtaken;
use super::submission::{Failed, Submission};
use super::units::{known, parse};
use super::who::Who;
use crate::store::{KeptText, Part, Versioned};

/// What of the API is answered here.
pub(super) fn routes() -> Vec<Resource> {
    vec![
        Resource::at("/units/{unitName}/revisions").get(
            list,
            Operation::new(
                "listUnitRevisions",
                "The texts that a unit has had and that are kept, newest first: when, by whom, and \
                    what changed.",
            )
            .gives::<wire::RevisionPage>("The texts, without their words.")
            .errors([400, 404]),
        ),
        Resource::at("/units/{unitName}/revisions/{revision}").get(
            one,
            Operation::new("getUnitRevision", "One text that a unit has had.")
                .gives::<wire::Revision>("The text, with its number and hash.")
                .errors([400, 404]),
        ),
        Resource::at("/units/{unitName}/rollback").post(
            rollback,
            Operation::new(
                "rollbackUnit",
                "Gives a unit an earlier text again, as a new revision; its desired state stays.",
            )
            .takes::<wire::Rollback>()
            .example(json!({}))
            .gives::<wire::RolledBack>("The revisions before and now.")
            .headers(WRITTEN)
            .errors([404, 409, 415]),
        ),
    ]
}

pub(super) async fn list(
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Result<Json<wire::RevisionPage>, ApiError> {
    let name = known(&name)?;
    Ok(Json(wire::RevisionPage { revisions: all(&api, &name, false).await? }))
}

pub(super) async fn one(
    State(api): State<Api>,
    Path((name, revision)): Path<(String, String)>,
) -> Result<Json<wire::Revision>, ApiError> {
    let name = known(&name)?;
    let number: u64 = revision.parse().map_err(|_| {
        ApiError::invalid(format!("{revision:?} is no revision; they count from 1"))
    })?;
    let mut revisions = all(&api, &name, true).await?.into_iter();
    let found = revisions.find(|revision| revision.revision == number);
    let none = || format!("{name} has no revision {number}");
    found.map(Json).ok_or_else(|| ApiError::new(StatusCode::NOT_FOUND, none()))
}

/// What is known of each text of a unit, newest first.
async fn all(
    api: &Api,
    name: &UnitName,
    with_texts: bool,
) -> Result<Vec<wire::Revision>, ApiError> {
    let mirror = api.store().read(&[Part::Units, Part::Assignments]).await?;
    let snapshot = &mirror.cluster().snapshot;
    let Some(unit) = snapshot.units.get(name) else { return Err(ApiError::no_such_unit()) };
    let mut instances: BTreeMap<u64, u32> = BTreeMap::new();
    let placements =
        snapshot.assignments.values().flat_map(|assignment| assignment.instances.values());
    for placement in placements.filter(|placement| placement.unit == *name) {
        *instances.entry(placement.revision).or_default() += 1;
    }
    let kept = api.store().kept_texts_of(name).await?;
    let change = |at: usize| match at.checked_sub(1).map(|before| &kept[before]) {
        Some(before) if before.number + 1 == kept[at].number => {
            changed(&before.text, &kept[at].text)
        }
        _ => String::new(),
    };
    let revision = |(at, KeptText { number, text, origin }): (usize, &KeptText)| wire::Revision {
        revision: *number,
        hash: UnitFile::parse_lenient(text).hash(),
        current: *number == unit.revision,
        instances: instances.get(number).copied().unwrap_or(0),
        by: origin.as_ref().map(|origin| origin.by.clone()).unwrap_or_default(),
        at_ms: origin.as_ref().map(|origin| origin.at_ms),
        change: change(at),
        text: with_texts.then(|| text.clone()),
    };
    // One that was cut short while it was submitted has its text and no record yet.
    let there = kept.iter().enumerate().filter(|(_, kept)| kept.number <= unit.revision);
    let revisions = there.rev().map(revision).collect();
    mirror.drop_later();
    Ok(revisions)
}

pub(super) async fn rollback(
    State(api): State<Api>,
    Path(name): Path<String>,
    who: Who,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    json_only(&headers)?;
    let wish: wire::Rollback = decode(&body)?;
    let name = parse(&name)?;
    let roll_back = || async {
        let old = api.store().unit(&name).await?.0.ok_or_else(ApiError::no_such_unit)?;
        let (to, text) = target(&old.value, wish.revision, api.store().texts_of(&name).await?)?;
        hold_files(&api, (&name, to), &text).await?;
        let submission = Submission::back_to(&name, (to, text), old.value.desired);
        let Versioned { value: record, .. } = &old;
        let answer = wire::RolledBack {
            name: name.to_string(),
            from: record.revision,
            to,
            revision: record.revision + 1,
        };
        let wrote = submission.rewrite(api.store(), old, &who).await?;
        Ok((answer, wrote.at, submission.warnings))
    };
    let (answer, revision, warnings) =
        until_not_overtaken(&format!("the unit {name}"), roll_back).await?;
    tidy(&api, [(&name, answer.revision)], revision);
    let mut response = Json(answer).into_response();
    super::note_written(response.headers_mut(), revision, &warnings);
    Ok(response)
}

/// Sees to it that what comes with the text is there and stays.
async fn hold_files(api: &Api, (name, number): (&UnitName, u64), text: &str) -> Result<(), Failed> {
    let Some(named) = BundleRef::of(&UnitFile::parse_lenient(text)) else { return Ok(()) };
    if api.store().hold_bundle(&named).await? {
        return Ok(());
    }
    let mib = MAX_KEPT_CONTENTS >> 20;
    Err(Failed::Refused(ApiError::conflict(format!(
        "what came with revision {number} of {name} is kept no more (of {}, the newest {mib} MiB \
            are, and what runs); apply that folder again instead",
        named.app
    ))))
}

/// The text to go back to, and its number.
fn target(
    record: &fleet_core::model::UnitRecord,
    wanted: Option<u64>,
    texts: Vec<(u64, String)>,
) -> Result<(u64, String), ApiError> {
    let name = &record.name;
    let now = UnitFile::parse_lenient(&record.text).hash();
    let differs = |text: &str| UnitFile::parse_lenient(text).hash() != now;
    let mut earlier = texts.into_iter().filter(|(number, _)| *number < record.revision).rev();
    let Some(number) = wanted else {
        return earlier.find(|(_, text)| differs(text)).ok_or_else(|| {
            ApiError::conflict(format!(
                "{name} has had no other text than its present one, revision {}",
                record.revision
            ))
        });
    };
    match earlier.find(|(earlier, _)| *earlier == number) {
        Some((_, text)) if !differs(&text) => Err(ApiError::conflict(format!(
            "the text of revision {number} of {name} is its present one"
        ))),
        Some(found) => Ok(found),
        None if number == record.revision => {
            Err(ApiError::conflict(format!("revision {number} of {name} is its present one")))
        }
        None => Err(ApiError::conflict(format!(
            "{name} has no revision {number}; its present one is {}",
            record.revision
        ))),
    }
}
