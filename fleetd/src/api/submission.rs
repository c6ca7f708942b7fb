//! What `PUT /units/<name>` takes: a body, checked, and how it becomes a unit's record.

use axum::http::StatusCode;
use fleet_core::contradiction::{Contradiction, contradiction};
use fleet_core::count::{CountError, scaled};
use fleet_core::intake;
use fleet_core::model::{DesiredState, FORMAT, UnitRecord};
use fleet_core::name::UnitName;
use fleet_core::unit_file::{MAX_UNIT_BYTES, UnitFile, UnitOption};
use fleet_core::wire;
use fleet_core::xfleet;

use super::error::ApiError;
use crate::process::clock;
use crate::store::{Store, StoreError, Versioned};

/// A checked body of `PUT /units/<name>`, or what takes its place.
pub(super) struct Submission {
    pub(super) text: Option<String>,
    hash: String,
    pub(super) desired: Option<DesiredState>,
    /// The count, for a template.
    replicas: Option<u32>,
    /// Whether it is the second half of a restart by fleet 1.0's client.
    pub(super) restarts: bool,
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

impl From<ApiError> for Failed {
    fn from(error: ApiError) -> Failed {
        Failed::Refused(error)
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
        if let Some(refusal) = intake::refusals(name, &file).into_iter().next() {
            let told = if has_lines { refusal.to_string() } else { refusal.problem };
            return Err(ApiError::invalid(told));
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

    pub(super) async fn write(
        &self,
        store: &Store,
        name: &UnitName,
    ) -> Result<(StatusCode, i64), Failed> {
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

pub(super) fn restart_all(record: &mut UnitRecord) {
    // Above every count that a single replica has reached, so that all of them see more than
    // before.
    record.restart += 1 + record.restart_of.values().max().copied().unwrap_or(0);
    record.restart_of.clear();
}

/// The record that `name` follows from: its own, or the template whose replica it is.
pub(super) async fn owner(
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

pub(super) fn refused_count(problem: CountError) -> ApiError {
    ApiError::invalid(problem.to_string())
}

pub(super) fn is_global(text: &str) -> bool {
    xfleet::is_global(&UnitFile::parse_lenient(text).options)
}

/// Sets the count. Restarts of replicas that it takes away are forgotten.
pub(super) fn set_replicas(record: &mut UnitRecord, replicas: u32) {
    record.replicas = Some(replicas);
    record
        .restart_of
        .retain(|instance, _| instance.replica_number().is_some_and(|number| number <= replicas));
}

/// Writes options as a unit file, refusing those that would read back as something else: a newline
/// in a value is an injected line.
fn text_of(options: Vec<UnitOption>) -> Result<String, ApiError> {
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
