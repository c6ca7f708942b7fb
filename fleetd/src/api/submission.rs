//! What `PUT /units/<name>` takes: a body, checked, and how it becomes a unit's record.

use axum::http::StatusCode;
use fleet_core::app;
use fleet_core::model::{DesiredState, Did, UnitRecord};
use fleet_core::name::UnitName;
use fleet_core::unit::changed::changed;
use fleet_core::unit::count::{CountError, scaled};
use fleet_core::unit::family::is_counted;
use fleet_core::unit::file::UnitFile;
use fleet_core::unit::intake::{self, Refusal, Taken};
use fleet_core::unit::xfleet;
use fleet_core::wire;

use super::error::ApiError;
use super::who::Who;
use crate::process::clock;
use crate::store::{Store, StoreError, Versioned};

/// A checked body of `PUT /units/<name>`, or what takes its place.
pub(super) struct Submission {
    pub(super) text: Option<String>,
    hash: String,
    /// Why the text is not taken, unless the store holds it already.
    refusal: Option<Refusal>,
    pub(super) desired: Option<DesiredState>,
    /// The count, for a template.
    replicas: Option<u32>,
    /// Whether it is the second half of a restart by fleet 1.0's client.
    pub(super) restarts: bool,
    /// The number that the text had, if it is an earlier one.
    back_to: Option<u64>,
    pub(super) warnings: Vec<String>,
}

/// What was written of a unit.
pub(super) struct Wrote {
    pub(super) status: StatusCode,
    /// At which revision of the store.
    pub(super) at: i64,
    /// The number of its text, if that is new.
    pub(super) text: Option<u64>,
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
            None => {
                let text = UnitFile::text_of(body.options);
                Some(text.map_err(|problem| ApiError::invalid(problem.to_string()))?)
            }
        };
        let Some(text) = text else {
            return Ok(Submission {
                text: None,
                hash: String::new(),
                refusal: None,
                desired,
                replicas,
                restarts: false,
                back_to: None,
                warnings: Vec::new(),
            });
        };
        let (Taken { file, warnings }, refusal) = match intake::take(name, &text) {
            Ok(taken) => (taken, None),
            Err(refusal) if has_lines => (refusal.waived(&text), Some(refusal)),
            Err(refusal) => (refusal.waived(&text), Some(refusal.without_lines())),
        };
        Ok(Submission {
            hash: file.hash(),
            text: Some(text),
            refusal,
            desired,
            replicas,
            restarts: false,
            back_to: None,
            warnings,
        })
    }

    /// What goes back to a text that the store holds, whatever a new one is refused for.
    pub(super) fn back_to(
        name: &UnitName,
        (number, text): (u64, String),
        desired: DesiredState,
    ) -> Submission {
        let Taken { file, warnings } = intake::take_stored(name, &text);
        Submission {
            hash: file.hash(),
            text: Some(text),
            refusal: None,
            desired: Some(desired),
            replicas: None,
            restarts: false,
            back_to: Some(number),
            warnings,
        }
    }

    /// Refuses a text that is not taken, unless it is `stored`.
    fn admit(&self, stored: Option<&str>) -> Result<(), Failed> {
        let (Some(refusal), Some(text)) = (&self.refusal, &self.text) else { return Ok(()) };
        // What came as options has the normal form.
        let is_stored =
            |stored: &str| stored == text || UnitFile::parse_lenient(stored).normalised() == *text;
        match stored.is_some_and(is_stored) {
            true => Ok(()),
            false => Err(Failed::Refused(refused(refusal))),
        }
    }

    pub(super) async fn write(
        &self,
        store: &Store,
        name: &UnitName,
        who: &Who,
    ) -> Result<Wrote, Failed> {
        let refused = |error: ApiError| Err(Failed::Refused(error));
        match store.unit(name).await?.0 {
            Some(old) => self.rewrite(store, old, who).await,
            None => {
                // An instance may have its template's text, if the name is one that is taken.
                let template = match name.template().filter(|_| self.refusal.is_some()) {
                    Some(template) if name.refusal().is_none() => store.unit(&template).await?.0,
                    _ => None,
                };
                self.admit(template.as_ref().map(|template| template.value.text.as_str()))?;
                for twin in name.twins() {
                    if store.unit(&twin).await?.0.is_some() {
                        return refused(ApiError::conflict(format!(
                            "{name} and {twin} would both run as {}",
                            name.systemd_name()
                        )));
                    }
                }
                let (text, desired, did) = match (&self.text, self.desired) {
                    (Some(text), desired) => {
                        let desired = desired.unwrap_or_default();
                        (text.clone(), desired, submitted(1, String::new(), desired, self.replicas))
                    }
                    // A replica gets a record of its own by being given a state of its own.
                    (None, Some(desired)) => match owner(store, name).await? {
                        Some(template) => {
                            let UnitRecord { text, desired: from, .. } = template.value;
                            (text, desired, Did::SetState { from, to: desired })
                        }
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
                    desired,
                    replicas: self.replicas,
                    created_ms: clock::now_ms(),
                    ..UnitRecord::new(name.clone(), text)
                };
                let store = store.telling(who.act(did).of_unit(name));
                let at = store.put_unit(&record, None, true).await?;
                Ok(Wrote { status: StatusCode::CREATED, at, text: Some(record.revision) })
            }
        }
    }

    pub(super) async fn rewrite(
        &self,
        store: &Store,
        old: Versioned<UnitRecord>,
        who: &Who,
    ) -> Result<Wrote, Failed> {
        let Versioned { value: mut record, revision } = old;
        let before = record.clone();
        self.admit(Some(&record.text))?;
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
        if replaced && comes_with_others(&record) {
            return Err(Failed::Refused(ApiError::conflict(format!(
                "{} reaches machines only with the units that name it: change its file and use \
                    fleetctl apply",
                record.name
            ))));
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
        let store = match self.did(&before, &record) {
            Some(did) => store.telling(who.act(did).of_unit(&record.name)),
            None => store.clone(),
        };
        let status = if replaced { StatusCode::CREATED } else { StatusCode::NO_CONTENT };
        let at = store.put_unit(&record, Some(revision), replaced).await?;
        Ok(Wrote { status, at, text: replaced.then_some(record.revision) })
    }
}

impl Submission {
    /// What it does to a unit that is there; `None` if nothing becomes of it.
    fn did(&self, before: &UnitRecord, after: &UnitRecord) -> Option<Did> {
        if after.revision != before.revision {
            let (from, revision) = (before.revision, after.revision);
            if let Some(to) = self.back_to {
                return Some(Did::RolledBack { from, to, revision });
            }
            let change = changed(&before.text, &after.text);
            let replicas = self.replicas.filter(|_| before.replicas != after.replicas);
            return Some(submitted(revision, change, after.desired, replicas));
        }
        if self.restarts {
            return Some(Did::Restarted);
        }
        let (from, to) = (before.replicas.unwrap_or(0), after.replicas.unwrap_or(0));
        if before.replicas != after.replicas {
            return Some(Did::Scaled { from, to });
        }
        let (from, to) = (before.desired, after.desired);
        (from != to).then_some(Did::SetState { from, to })
    }
}

fn submitted(revision: u64, change: String, desired: DesiredState, replicas: Option<u32>) -> Did {
    Did::Submitted { revision, change, desired, replicas }
}

/// Whether machines get the unit in the bundles of others, so that a new text of its own would
/// change nothing: a network, volume, image, or a container of a pod.
fn comes_with_others(record: &UnitRecord) -> bool {
    let in_a_pod = || app::pod_of(&record.name, &UnitFile::parse_lenient(&record.text)).is_some();
    record.name.is_shared() || in_a_pod()
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
    let Some(template) = name.template() else { return Ok(None) };
    let template = store.unit(&template).await?.0;
    Ok(template.filter(|template| is_counted(name, template.value.replicas)))
}

/// A refused text: fleet 1.0's words first, then the lines of what is in each other's way.
fn refused(refusal: &Refusal) -> ApiError {
    let status = match refusal.too_large {
        true => StatusCode::PAYLOAD_TOO_LARGE,
        false => StatusCode::BAD_REQUEST,
    };
    let lines: Vec<String> = refusal.options.iter().map(ToString::to_string).collect();
    ApiError::new(status, refusal.headline()).because(lines.join("; "))
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
    record.set_replicas(replicas);
}
