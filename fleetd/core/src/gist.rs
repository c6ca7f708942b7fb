//! A unit as the planner needs it, and its gist: what planning asks of every unit, in one place. A
//! plan looks at ten thousand units, and waits for each line of memory that it touches.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::app::pod_of;
use crate::configuration::{self, ConfigChanged};
use crate::model::{DesiredState, MAX_REPLICAS, Placement, RolloutWish, UnitRecord, is_zero};
use crate::name::UnitName;
use crate::unit::file::{ShortHash, UnitFile};
use crate::unit::labels::Fingerprint;
use crate::unit::max_unavailable::{self, MaxUnavailable};
use crate::unit::podman;
use crate::unit::stop_terms::StopTerms;
use crate::unit::update::{OnUpdateFailure, UpdateOrder};
use crate::unit::xfleet::Constraints;

/// What one entry of an assignment takes as JSON at most, in a group and a row of its own, beside
/// its name, its unit's name and a follower's reason, in bytes: 100 of field names and punctuation,
/// 32 of a machine's id as the reason, 12 of hash, 41 of times, and 15 for the digits of revision,
/// moves, restarts and configuration. Counts of more digits than that eat from the budget's
/// reserve; the store checks the true size.
const ENTRY_BYTES: usize = 200;

/// What an entry of a fenced instance takes as JSON beside what others take, in bytes: field names,
/// a token and a time. Longer lists of units that it starts after eat from the budget's reserve.
pub(crate) const FENCE_BYTES: usize = 96;

/// A unit as the planner needs it: its record without the text, and its constraints parsed once.
/// Nobody changes one that was read.
// In memory the fields keep their order: those that planning touches come first, side by side.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
#[repr(C)]
pub struct Unit {
    /// What follows from the rest, found once. It stands in no document.
    #[serde(skip)]
    pub(crate) gist: Gist,
    /// Its name.
    pub name: UnitName,
    /// The number of its text.
    pub revision: u64,
    /// The short hash of its text, see [`UnitFile::short_hash`].
    pub hash: ShortHash,
    /// The whole hash of its text, for people.
    pub full_hash: Arc<str>,
    /// What the user wants of it.
    pub desired: DesiredState,
    /// The wanted count, for a scaled template.
    pub replicas: Option<u32>,
    /// Restarts asked for.
    pub restart: u64,
    /// Restarts asked for of single replicas.
    pub restart_of: BTreeMap<UnitName, u64>,
    /// The revision of its configuration that its instances must have at least; 0: none is asked
    /// for.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub config: u64,
    /// What its `[X-Fleet]` section demands, specifiers unexpanded.
    pub constraints: Constraints,
    /// How long its stop may take and what waits for that: for fenced units, and those that a
    /// fenced one's stop may wait for.
    pub stop: Option<StopTerms>,
    /// Whether it is a container of a pod: it runs with that, and is never placed for itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub member: bool,
    /// When it was first submitted, in milliseconds since 1970: one that was destroyed and
    /// submitted again is another unit.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub created_ms: u64,
    /// A text that is being tried, or was and is undone: an instance that fails with it is not
    /// moved to another machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<ShortHash>,
    /// Whether what runs that text, or without one what runs its present one, stays as it is: its
    /// rollout is paused.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// A text that only so many of its instances get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<Box<Canary>>,
    /// What a user wants of its rollout. The planner does not ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wish: Option<Box<RolloutWish>>,
}

/// A text that few instances get before the others do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Canary {
    /// The unit with that text.
    pub unit: Unit,
    /// How many get it.
    pub most: MaxUnavailable,
}

impl Unit {
    /// Parses the text of `record` once, so that planning never does.
    pub fn from_record(record: &UnitRecord) -> Unit {
        let file = UnitFile::parse_lenient(&record.text);
        let full_hash = file.hash();
        let mut constraints = Constraints::from_file(&file);
        constraints.secrets.extend(podman::secrets_of(&record.name, &file));
        let stop = Some(StopTerms::from_file(&record.name, &file));
        let unit = Unit {
            gist: Gist::default(),
            name: record.name.clone(),
            revision: record.revision,
            hash: UnitFile::shorten(&full_hash).into(),
            full_hash: full_hash.into(),
            desired: record.desired,
            replicas: record.replicas,
            restart: record.restart,
            restart_of: record.restart_of.clone(),
            config: configuration::asked(record, &constraints),
            stop: stop.filter(|stop| constraints.fence || !stop.after.is_empty()),
            constraints,
            member: pod_of(&record.name, &file).is_some(),
            created_ms: record.created_ms,
            trial: None,
            paused: false,
            canary: None,
            wish: record.rollout.clone().map(Box::new),
        };
        unit.with_gist()
    }

    /// The terms of its stop, if at most one copy of it may be alive.
    pub fn fence(&self) -> Option<&StopTerms> {
        self.stop.as_ref().filter(|_| self.constraints.fence && !self.constraints.global)
    }

    /// How many of its instances may be down at once because somebody decided so; `None` if it has
    /// no such budget: a unit by its own name that names none.
    pub fn max_unavailable(&self) -> Option<&MaxUnavailable> {
        let default = self.gist.traits.template || self.gist.traits.global;
        self.constraints.max_unavailable.as_ref().or(default.then_some(&max_unavailable::DEFAULT))
    }

    /// What happens to a new text of it that fails; `None` if nobody looks: a unit by its own name
    /// that says nothing.
    pub fn on_update_failure(&self) -> Option<OnUpdateFailure> {
        let default = (self.gist.traits.template || self.gist.traits.global)
            .then_some(OnUpdateFailure::Rollback);
        let named = self.constraints.on_update_failure;
        named.filter(|named| *named != OnUpdateFailure::Unreadable).or(default)
    }

    /// Whether a spare instance is up before one is taken down on purpose (`UpdateOrder=`). A text
    /// in the store may say so of a unit that cannot have spares.
    pub fn starts_first(&self) -> bool {
        let Constraints { update_order, global, fence, machine_of, .. } = &self.constraints;
        *update_order == Some(UpdateOrder::StartFirst)
            && self.name.is_template()
            && !global
            && !fence
            && machine_of.is_empty()
    }

    /// How often `instance` of this unit was asked to restart.
    pub fn restarts_asked(&self, instance: &UnitName) -> u64 {
        self.restart + self.restart_of.get(instance).copied().unwrap_or(0)
    }

    /// Whether bringing an instance that stays launched up to date with its unit takes it down.
    pub fn takes_down(&self, instance: &UnitName, old: &Placement) -> bool {
        old.hash != self.hash
            || old.restart != self.restarts_asked(instance)
            || (old.config < self.config
                && self.constraints.config_changed != Some(ConfigChanged::Reload))
    }

    /// The unit with its gist found.
    pub(crate) fn with_gist(mut self) -> Unit {
        self.constraints.podman = podman::newest_kind(&self.name, &self.constraints);
        self.gist = Gist::of(&self);
        self
    }
}

/// The gist of one unit. It follows from the unit's other fields and stands in no document: it is
/// found anew whenever a unit is read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Gist {
    /// The [`Fingerprint`] of what it asks of the machine itself: labels, and for a Quadlet unit
    /// a podman that knows its type and has its secrets.
    pub(crate) labels: Option<Fingerprint>,
    /// How many instances are wanted; for a global unit, on each machine.
    pub(crate) wanted: u32,
    /// Where a replica's number stands in its name; the whole length for units that are no
    /// templates.
    pub(crate) number_at: u32,
    /// The size of an entry without the instance's name, as JSON.
    pub(crate) entry_bytes: u32,
    /// The rest.
    pub(crate) traits: Traits,
}

/// What is so or not so of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Traits {
    /// Whether it is a template, which stands for its replicas.
    pub(crate) template: bool,
    /// Whether it runs on every machine that fits. A template never does: its count says how many
    /// run.
    pub(crate) global: bool,
    /// Whether any constraint holds a specifier, so that instances differ.
    pub(crate) specifiers: bool,
    /// Whether it names a machine (`MachineID=`).
    pub(crate) pinned: bool,
    /// Whether it goes where others are (`MachineOf=`).
    pub(crate) follows: bool,
    /// Whether it starts only once others are up (`Needs=`).
    pub(crate) needs: bool,
    /// Whether it declares conflicts.
    pub(crate) declares: bool,
    /// Whether few of its template's instances may share a machine (`MaxPerMachine=`).
    pub(crate) limited: bool,
    /// Whether it pushes others off (`Replaces=`).
    pub(crate) replaces: bool,
    /// Whether at most one copy of it may be alive, see [`Unit::fence`].
    pub(crate) fenced: bool,
    /// Whether few of its instances may be taken down at once, see [`Unit::max_unavailable`].
    pub(crate) budgeted: bool,
    /// Whether a restart was ever asked for.
    pub(crate) restarts: bool,
    /// Whether a text of it is being tried, see [`Unit::trial`], or its rollout is paused.
    pub(crate) tried: bool,
    /// Whether a spare instance stands in for one that is taken down, see [`Unit::starts_first`].
    pub(crate) starts_first: bool,
}

impl Serialize for Unit {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        Unit::serialize(self, to)
    }
}

impl<'de> Deserialize<'de> for Unit {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Unit, D::Error> {
        Ok(Unit::deserialize(from)?.with_gist())
    }
}

impl Gist {
    pub(crate) fn of(unit: &Unit) -> Gist {
        let (name, constraints) = (unit.name.as_str(), &unit.constraints);
        let template = unit.name.is_template();
        let wanted = match unit.desired {
            DesiredState::Inactive => 0,
            // The agents bring it to where something names it.
            _ if unit.name.is_shared() => 0,
            _ if unit.member => 0,
            _ if template => unit.replicas.unwrap_or(0).min(MAX_REPLICAS),
            _ => 1,
        };
        let number_at =
            if template { name.len() - unit.name.suffix().len() - 1 } else { name.len() };
        // A backslash takes two bytes in JSON, in the unit's name, the instance's and those that a
        // follower's reason may name.
        let escapes = name.bytes().filter(|b| *b == b'\\').count();
        let beside = constraints.machine_of.first().map_or(0, |peer| 2 * peer.len() + name.len());
        let fence = if unit.fence().is_some() { FENCE_BYTES } else { 0 };
        Gist {
            labels: match constraints.podman {
                Some(kind) => Some(
                    Fingerprint::of_kind(kind, constraints.metadata.fingerprint())
                        .with_secrets(&constraints.secrets),
                ),
                None => constraints.metadata.fingerprint(),
            },
            wanted,
            number_at: number_at as u32,
            entry_bytes: (ENTRY_BYTES + fence + name.len() + 2 * escapes + beside) as u32,
            traits: Traits {
                template,
                global: constraints.global && !template,
                specifiers: constraints.has_specifiers(),
                pinned: constraints.machine_id.is_some(),
                follows: !constraints.machine_of.is_empty(),
                needs: !constraints.needs.is_empty(),
                declares: !constraints.conflicts.is_empty(),
                limited: constraints.max_per_machine.is_some(),
                replaces: !constraints.replaces.is_empty(),
                fenced: unit.fence().is_some(),
                budgeted: template || constraints.global || constraints.max_unavailable.is_some(),
                restarts: unit.restart > 0 || !unit.restart_of.is_empty(),
                starts_first: unit.starts_first(),
                tried: unit.trial.is_some() || unit.paused,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::model::{Unit, UnitRecord};

    #[test]
    fn the_gist_stands_in_no_document_and_is_found_when_one_is_read() {
        let text = "[X-Fleet]\nMachineMetadata=zone=a\nConflicts=%p@*.service\nFence=true\n";
        let record = serde_json::json!({
            "v": 1, "name": "web@.service", "text": text, "revision": 3, "desired": "launched", "replicas": 7, "created_ms": 0
        });
        let unit = Unit::from_record(&serde_json::from_value::<UnitRecord>(record).unwrap());
        assert!(
            unit.gist.traits.template
                && unit.gist.traits.specifiers
                && unit.gist.traits.declares
                && unit.gist.traits.fenced
        );
        assert!(!unit.gist.traits.global && !unit.gist.traits.restarts);
        assert_eq!(
            (unit.gist.wanted, unit.gist.number_at, unit.gist.labels),
            (7, 4, unit.constraints.metadata.fingerprint())
        );
        let written = serde_json::to_value(&unit).unwrap();
        assert_eq!(written.as_object().unwrap().get("gist"), None);
        assert_eq!(serde_json::from_value::<Unit>(written).unwrap(), unit);
    }
}
