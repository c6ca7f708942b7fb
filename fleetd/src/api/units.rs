//! `/units`: submit, change, scale, restart and destroy. Every write reads the record, checks, and
//! compares when it writes.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use fleet_core::contradiction::{Contradiction, contradiction};
use fleet_core::count::{CountError, scaled};
use fleet_core::intake;
use fleet_core::model::{DesiredState, FORMAT, UnitRecord};
use fleet_core::name::UnitName;
use fleet_core::unit_file::{MAX_UNIT_BYTES, UnitFile};
use fleet_core::wire;
use fleet_core::xfleet;

use super::body::{decode, decode_as_go};
use super::door::json_only;
use super::error::ApiError;
use super::page::{Page, is_brief};
use super::{Api, fleet1, written};
use crate::process::clock;
use crate::store::{Part, Store, StoreError, Versioned};

/// Assignments and reports say where units are, and how far.
const PARTS: &[Part] = &[Part::Units, Part::Assignments, Part::Reports];

/// How often a write that somebody else overtook is tried again.
pub(super) const RETRIES: usize = 8;

pub(super) async fn list(
    State(api): State<Api>,
    Query(query): Query<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Result<Json<wire::UnitPage>, ApiError> {
    let page = Page::of(&query)?;
    if is_brief(&query) {
        return brief_list(&api, page).await;
    }
    let mirror = api.store().read(PARTS).await?;
    let cluster = mirror.cluster();
    let all: Vec<UnitName> = cluster.names().into_iter().collect();
    let (names, next_page_token) = page.cut(&all);
    let places = cluster.places();
    let mut units: Vec<wire::Unit> =
        names.iter().filter_map(|name| cluster.unit(name, &places)).collect();
    if fleet1::is_asking(&headers) {
        units = units.into_iter().map(|unit| api.shared.restarts.told(unit)).collect();
    }
    mirror.drop_later();
    Ok(Json(wire::UnitPage { next_page_token, units }))
}

/// The same of records read only as far as it shows them.
async fn brief_list(api: &Api, page: Page) -> Result<Json<wire::UnitPage>, ApiError> {
    let (briefs, mirror) = api.store().read_briefs(PARTS).await?;
    let cluster = mirror.cluster();
    let all: Vec<UnitName> = briefs.names().into_iter().collect();
    let (names, next_page_token) = page.cut(&all);
    let places = cluster.places();
    let unit = |name| Some(cluster.brief_unit(name, briefs.owner(name)?, &places));
    let units = names.iter().filter_map(unit).collect();
    mirror.drop_later();
    Ok(Json(wire::UnitPage { next_page_token, units }))
}

pub(super) async fn show(
    State(api): State<Api>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Json<wire::Unit>, ApiError> {
    let mirror = api.store().read(PARTS).await?;
    let cluster = mirror.cluster();
    let name = known(&name)?;
    let mut unit = cluster.unit(&name, &cluster.places()).ok_or_else(ApiError::no_such_unit)?;
    unit.text = cluster.owner(&name).map(|record| record.text.clone());
    if fleet1::is_asking(&headers) {
        unit = api.shared.restarts.told(unit);
    }
    Ok(Json(unit))
}

pub(super) async fn submit(
    State(api): State<Api>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    json_only(&headers)?;
    let body: wire::Unit = decode_as_go(&body, wire::Unit::KEYS)?;
    if !body.name.is_empty() && body.name != name {
        return Err(ApiError::invalid(format!(
            "name in URL {name:?} differs from unit name in request body {:?}",
            body.name
        )));
    }
    let name = UnitName::parse(&name).map_err(|error| ApiError::invalid(error.to_string()))?;
    let mut submission = Submission::read(&name, body)?;
    let restarts = &api.shared.restarts;
    let is_fleet1 = fleet1::is_asking(&headers) && submission.text.is_none();
    let begins_restart = is_fleet1
        && submission.desired == Some(DesiredState::Loaded)
        && api
            .store()
            .unit(&name)
            .await?
            .0
            .is_some_and(|old| old.value.desired == DesiredState::Launched);
    submission.restarts =
        is_fleet1 && submission.desired == Some(DesiredState::Launched) && restarts.end(&name);
    for _ in 0..RETRIES {
        match submission.write(api.store(), &name).await {
            Err(Failed::Store(StoreError::Conflict(_))) => {}
            Err(Failed::Store(error)) => return Err(error.into()),
            Err(Failed::Refused(error)) => return Err(error),
            Ok((status, revision)) => {
                if begins_restart {
                    restarts.begin(&name);
                }
                return Ok(written(status, revision, &submission.warnings));
            }
        }
    }
    Err(StoreError::Conflict(format!("the unit {name}")).into())
}

/// A checked body of `PUT /units/<name>`, or what takes its place.
pub(super) struct Submission {
    text: Option<String>,
    hash: String,
    desired: Option<DesiredState>,
    /// The count, for a template.
    replicas: Option<u32>,
    /// Whether it is the second half of a restart by fleet 1.0's client.
    restarts: bool,
    pub(super) warnings: Vec<String>,
}

pub(super) enum Failed {
    Store(StoreError),
    Refused(ApiError),
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Failed {
        Failed::Store(error)
    }
}

impl Submission {
    pub(super) fn read(name: &UnitName, body: wire::Unit) -> Result<Submission, ApiError> {
        let desired = match body.desired_state.as_str() {
            "" => None,
            word => Some(DesiredState::parse(word).ok_or_else(|| {
                ApiError::invalid(format!(
                    "invalid desired state {word:?}: expect inactive, loaded, or launched"
                ))
            })?),
        };
        let replicas = body.replicas;
        if let Some(replicas) = replicas {
            let scale = wire::Scale { replicas: i64::from(replicas), relative: false };
            scaled(name, false, 0, &scale).map_err(refused_count)?; // whether it is Global stands in its text
        }
        // What came as options has no lines that its sender would know.
        let has_lines = body.text.is_some();
        let text = match body.text {
            Some(text) => Some(text),
            None if body.options.is_empty() => None,
            None => Some(text_of(body.options)?),
        };
        let Some(text) = text else {
            return Ok(Submission {
                text: None,
                hash: String::new(),
                desired,
                replicas,
                restarts: false,
                warnings: Vec::new(),
            });
        };
        let file = UnitFile::parse(&text).map_err(|error| {
            let status = if text.len() > MAX_UNIT_BYTES {
                StatusCode::PAYLOAD_TOO_LARGE
            } else {
                StatusCode::BAD_REQUEST
            };
            ApiError::new(status, error.to_string())
        })?;
        if let Some(Contradiction { problem, options }) = contradiction(&file) {
            let lines: Vec<String> =
                options.iter().filter(|_| has_lines).map(ToString::to_string).collect();
            return Err(ApiError::invalid(problem).because(lines.join("; ")));
        }
        if let Some(refusal) = intake::refusals(name, &file).first() {
            return Err(ApiError::invalid(refusal.to_string()));
        }
        let warnings: Vec<String> = xfleet::lint(&file).iter().map(ToString::to_string).collect();
        Ok(Submission {
            hash: file.hash(),
            text: Some(text),
            desired,
            replicas,
            restarts: false,
            warnings,
        })
    }

    async fn write(&self, store: &Store, name: &UnitName) -> Result<(StatusCode, i64), Failed> {
        let refused = |error: ApiError| Err(Failed::Refused(error));
        match store.unit(name).await?.0 {
            Some(old) => self.rewrite(store, old).await,
            None => {
                if let Some(twin) = quadlet_twin(name)
                    && store.unit(&twin).await?.0.is_some()
                {
                    return refused(ApiError::conflict(format!(
                        "{name} and {twin} would both run as {}",
                        name.systemd_name()
                    )));
                }
                let (text, desired) = match (&self.text, self.desired) {
                    (Some(text), desired) => (text.clone(), desired.unwrap_or_default()),
                    // A replica gets a record of its own by being given a state of its own.
                    (None, Some(desired)) => match replica_text(store, name).await? {
                        Some(text) => (text, desired),
                        None => {
                            return refused(ApiError::conflict(
                                "unit does not exist and options field empty",
                            ));
                        }
                    },
                    (None, None) => {
                        return refused(ApiError::conflict(
                            "unit does not exist and options field empty",
                        ));
                    }
                };
                if name.is_template()
                    && self.replicas.is_none()
                    && desired != DesiredState::Inactive
                {
                    return refused(cannot_activate(name));
                }
                if self.replicas.is_some() && is_global(&text) {
                    return refused(refused_count(CountError::Global(name.clone())));
                }
                let record = UnitRecord {
                    v: FORMAT,
                    name: name.clone(),
                    text,
                    revision: 1,
                    desired,
                    replicas: self.replicas,
                    created_ms: clock::now_ms(),
                    restart: 0,
                    restart_of: Default::default(),
                    unknown: Default::default(),
                };
                Ok((StatusCode::CREATED, store.put_unit(&record, None, true).await?))
            }
        }
    }

    pub(super) async fn rewrite(
        &self,
        store: &Store,
        old: Versioned<UnitRecord>,
    ) -> Result<(StatusCode, i64), Failed> {
        let Versioned { value: mut record, revision } = old;
        let scales = self.replicas.is_some() && self.replicas != record.replicas;
        if let Some(replicas) = self.replicas {
            set_replicas(&mut record, replicas);
        }
        let plain_template = record.name.is_template() && record.replicas.is_none();
        let replaced =
            self.text.is_some() && UnitFile::parse_lenient(&record.text).hash() != self.hash;
        if plain_template && self.desired.is_some_and(|desired| desired != DesiredState::Inactive) {
            return Err(Failed::Refused(cannot_activate(&record.name)));
        }
        let becomes_global =
            record.replicas.is_some() && self.text.as_deref().is_some_and(is_global);
        if replaced && becomes_global && !scales {
            return Err(Failed::Refused(ApiError::invalid(format!(
                "{} is scaled, so it cannot become Global",
                record.name
            ))));
        }
        if scales && (becomes_global || (self.text.is_none() && is_global(&record.text))) {
            return Err(Failed::Refused(refused_count(CountError::Global(record.name))));
        }
        match (replaced, self.desired) {
            (false, None) if !scales => {
                return Err(Failed::Refused(ApiError::conflict(
                    "must provide DesiredState to update existing unit",
                )));
            }
            (false, None) => {}
            (_, Some(desired)) => record.desired = desired,
            // fleet 1.0 unloads a unit whose text is replaced; a scaled template did not exist
            // then, and keeps running.
            (true, None) if record.replicas.is_none() => record.desired = DesiredState::Inactive,
            (true, None) => {}
        }
        if let Some(text) = &self.text {
            record.text.clone_from(text); // comments may differ where options do not
        }
        if self.restarts {
            restart_all(&mut record);
        }
        record.revision += u64::from(replaced);
        let status = if replaced { StatusCode::CREATED } else { StatusCode::NO_CONTENT };
        Ok((status, store.put_unit(&record, Some(revision), replaced).await?))
    }
}

pub(super) async fn destroy(
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Result<Response, ApiError> {
    let Some(name) = UnitName::read(&name) else {
        // Written into the store by hand. Nobody reads it, and this is the way out.
        let gone = api.store().delete_misnamed(&name).await?;
        return gone
            .map(|revision| written(StatusCode::NO_CONTENT, revision, &[]))
            .ok_or_else(ApiError::no_such_unit);
    };
    for _ in 0..RETRIES {
        // A record that cannot be read can be destroyed, too: that is the way out.
        let Some(old) = api.store().unit_revision(&name).await? else {
            return Err(match owner(api.store(), &name).await? {
                Some(template) => ApiError::conflict(format!(
                    "{name} is a replica of {}; scale that down, or destroy it",
                    template.value.name
                )),
                None => ApiError::no_such_unit(),
            });
        };
        match api.store().delete_unit(&name, old).await {
            Err(StoreError::Conflict(_)) => {}
            other => return Ok(written(StatusCode::NO_CONTENT, other?, &[])),
        }
    }
    Err(StoreError::Conflict(format!("the unit {name}")).into())
}

pub(super) async fn scale(
    State(api): State<Api>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    json_only(&headers)?;
    let scale: wire::Scale = decode(&body)?;
    let name = UnitName::parse(&name).map_err(|error| ApiError::invalid(error.to_string()))?;
    if !name.is_template() {
        return Err(refused_count(CountError::NoTemplate(name)));
    }
    for _ in 0..RETRIES {
        let Some(Versioned { value: mut record, revision }) = api.store().unit(&name).await?.0
        else {
            return Err(ApiError::no_such_unit());
        };
        let before = record.replicas.unwrap_or(0);
        let replicas =
            scaled(&name, is_global(&record.text), before, &scale).map_err(refused_count)?;
        set_replicas(&mut record, replicas);
        if record.desired == DesiredState::Inactive {
            record.desired = DesiredState::Launched;
        }
        match api.store().put_unit(&record, Some(revision), false).await {
            Err(StoreError::Conflict(_)) => {}
            Err(error) => return Err(error.into()),
            Ok(revision) => {
                let mut response = Json(wire::Scaled { name, before, replicas }).into_response();
                response.headers_mut().insert(wire::REVISION_HEADER, revision.into());
                return Ok(response);
            }
        }
    }
    Err(StoreError::Conflict(format!("the unit {name}")).into())
}

pub(super) async fn restart(
    State(api): State<Api>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    json_only(&headers)?;
    if !body.trim_ascii().is_empty() {
        let wire::Restart {} = decode(&body)?;
    }
    let name = known(&name)?;
    for _ in 0..RETRIES {
        let Some(Versioned { value: mut record, revision }) = owner(api.store(), &name).await?
        else {
            return Err(ApiError::no_such_unit());
        };
        if record.desired != DesiredState::Launched {
            return Err(ApiError::conflict(format!(
                "unable to restart unit {name} in state {}",
                record.desired
            )));
        }
        if record.name == name {
            restart_all(&mut record);
        } else {
            *record.restart_of.entry(name.clone()).or_default() += 1;
        }
        match api.store().put_unit(&record, Some(revision), false).await {
            Err(StoreError::Conflict(_)) => {}
            other => return Ok(written(StatusCode::ACCEPTED, other?, &[])),
        }
    }
    Err(StoreError::Conflict(format!("the unit {name}")).into())
}

fn restart_all(record: &mut UnitRecord) {
    // Above every count that a single replica has reached, so that all of them see more than
    // before.
    record.restart += 1 + record.restart_of.values().max().copied().unwrap_or(0);
    record.restart_of.clear();
}

/// A name that a unit may have. There is none under any other.
pub(super) fn known(name: &str) -> Result<UnitName, ApiError> {
    UnitName::parse(name).map_err(|_| ApiError::no_such_unit())
}

/// The record that `name` follows from: its own, or the template whose replica it is.
async fn owner(
    store: &Store,
    name: &UnitName,
) -> Result<Option<Versioned<UnitRecord>>, StoreError> {
    if let Some(own) = store.unit(name).await?.0 {
        return Ok(Some(own));
    }
    let (Some(template), Some(number)) = (name.template(), name.replica_number()) else {
        return Ok(None);
    };
    let template = store.unit(&template).await?.0;
    Ok(template.filter(|template| {
        template.value.replicas.is_some_and(|replicas| number >= 1 && number <= replicas)
    }))
}

async fn replica_text(store: &Store, name: &UnitName) -> Result<Option<String>, StoreError> {
    Ok(owner(store, name).await?.map(|template| template.value.text))
}

/// The unit that systemd would know by the same name: `web.service` for `web.container`, and the
/// other way round.
fn quadlet_twin(name: &UnitName) -> Option<UnitName> {
    match name.suffix() {
        "container" => Some(name.systemd_name()),
        "service" => Some(UnitName::trusted(format!("{}.container", name.stem()))),
        _ => None,
    }
}

fn cannot_activate(name: &UnitName) -> ApiError {
    ApiError::invalid(format!("cannot activate template {:?}", name.as_str()))
}

fn refused_count(problem: CountError) -> ApiError {
    ApiError::invalid(problem.to_string())
}

fn is_global(text: &str) -> bool {
    xfleet::is_global(&UnitFile::parse_lenient(text).options)
}

/// Sets the count. Restarts of replicas that it takes away are forgotten.
fn set_replicas(record: &mut UnitRecord, replicas: u32) {
    record.replicas = Some(replicas);
    record
        .restart_of
        .retain(|instance, _| instance.replica_number().is_some_and(|number| number <= replicas));
}

/// Writes options as a unit file, refusing those that would read back as something else: a newline
/// in a value is an injected line.
fn text_of(options: Vec<fleet_core::unit_file::UnitOption>) -> Result<String, ApiError> {
    let file = UnitFile::from_options(options);
    let text = file.normalised();
    let back = UnitFile::parse_lenient(&text);
    let grouped = |file: &UnitFile| {
        let mut options = file.options.clone();
        options.sort_by(|a, b| a.section.cmp(&b.section));
        options
    };
    match grouped(&back) == grouped(&file) {
        true => Ok(text),
        false => Err(ApiError::invalid(
            "an option cannot be written as a line of a unit file: its section, name or value \
                holds a newline or another character with a meaning of its own",
        )),
    }
}
