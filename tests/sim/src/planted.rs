//! Planted bugs: what a run must find, so that we know that its checks can fail. Each is one line
//! of fleetd taken away, at the seam where the simulator can take it: in the store's client or in
//! what a machine is configured with.

use std::fmt;
use std::sync::Arc;

use fleet_core::model::Snapshot;
use fleetd::store::kv::{Change, Compare, KeyValue, StoreError, WatchBatch};

use crate::host::OWN_LABEL;
use crate::network::deletes;
use crate::values::{CONFIG, KEYS};
use crate::verdict::Check;

/// The answer of [`fleetd::store::kv::Kv::get`].
type Read = Result<(Option<KeyValue>, i64), StoreError>;

/// One bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Planted {
    /// A commit does not compare the leader key: a deposed leader still writes.
    UnfencedCommit,
    /// A write does not compare the revision of what it rewrites: the last one wins.
    LostUpdate,
    /// A store that does not answer is taken for an empty assignment.
    SilenceIsEmpty,
    /// An absent machine is lost at once, also right after an outage of the store.
    NoSettling,
    /// Deletions are lost on the watches.
    DeafToDeletions,
    /// A start of fleetd forgets the lease that the last one held.
    ForgetsItsLease,
    /// The leader waits for the end of a keeper's lease, and no longer.
    ShortWait,
    /// The keeper takes its lease for renewed without asking.
    PingsBlindly,
    /// A write of a record leaves out what a later version wrote there.
    DropsFields,
    /// The leader takes every instance for one that is down already.
    AllLookDown,
    /// The leader takes what has just come up for up.
    BelievesTheFirstActive,
    /// The leader takes what has yet to answer its health check for well.
    BelievesTheStarting,
    /// The leader takes whatever a machine reports for up.
    AllLookUp,
    /// The planner sees no label that a machine says of itself: it says of what asks for one that
    /// it fits nowhere.
    OverlooksLabels,
    /// A machine that gets no answer about its assignment panics.
    PanicsInSilence,
    /// The planner takes all machines for ones of the same zone.
    MistakesLabels,
    /// A new text takes the place of the last one, which is not kept.
    ForgetsTexts,
    /// A host with a copy of a machine's disk takes that machine's boot for its own.
    TrustsCopies,
    /// One of the values of a configuration is read as it was before.
    MixesValues,
    /// The leader takes a paused rollout for one that goes on.
    GoesOnWhenPaused,
    /// The leader takes a text that is undone for one that is used all the same.
    UndoesNothing,
    /// The leader overlooks which text was good.
    ForgetsWhatWasGood,
    /// Leave to reboot that was given is not seen, and its slot looks free.
    ForgetsLeave,
    /// The planner does not see what a unit needs.
    OverlooksNeeds,
    /// An instance gets the files of a new text beside one of the old.
    MixesFiles,
    /// The agent takes every end of a program for one by a signal.
    MistakesEnds,
}

impl Planted {
    /// All of them.
    pub const ALL: [Planted; 26] = [
        Planted::UnfencedCommit,
        Planted::LostUpdate,
        Planted::SilenceIsEmpty,
        Planted::NoSettling,
        Planted::DeafToDeletions,
        Planted::ForgetsItsLease,
        Planted::ShortWait,
        Planted::PingsBlindly,
        Planted::DropsFields,
        Planted::AllLookDown,
        Planted::BelievesTheFirstActive,
        Planted::BelievesTheStarting,
        Planted::AllLookUp,
        Planted::OverlooksLabels,
        Planted::PanicsInSilence,
        Planted::MistakesLabels,
        Planted::ForgetsTexts,
        Planted::TrustsCopies,
        Planted::MixesValues,
        Planted::GoesOnWhenPaused,
        Planted::UndoesNothing,
        Planted::ForgetsWhatWasGood,
        Planted::ForgetsLeave,
        Planted::OverlooksNeeds,
        Planted::MixesFiles,
        Planted::MistakesEnds,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Planted::UnfencedCommit => "unfenced-commit",
            Planted::LostUpdate => "lost-update",
            Planted::SilenceIsEmpty => "silence-is-empty",
            Planted::NoSettling => "no-settling",
            Planted::DeafToDeletions => "deaf-to-deletions",
            Planted::ForgetsItsLease => "forgets-its-lease",
            Planted::ShortWait => "short-wait",
            Planted::PingsBlindly => "keeper-pings-blindly",
            Planted::DropsFields => "drops-fields",
            Planted::AllLookDown => "all-look-down",
            Planted::BelievesTheFirstActive => "believes-the-first-active",
            Planted::BelievesTheStarting => "believes-the-starting",
            Planted::AllLookUp => "all-look-up",
            Planted::OverlooksLabels => "overlooks-labels",
            Planted::PanicsInSilence => "panics-in-silence",
            Planted::MistakesLabels => "mistakes-labels",
            Planted::ForgetsTexts => "forgets-texts",
            Planted::TrustsCopies => "trusts-copies",
            Planted::MixesValues => "mixes-values",
            Planted::GoesOnWhenPaused => "goes-on-when-paused",
            Planted::UndoesNothing => "undoes-nothing",
            Planted::ForgetsWhatWasGood => "forgets-what-was-good",
            Planted::ForgetsLeave => "forgets-leave",
            Planted::OverlooksNeeds => "overlooks-needs",
            Planted::MixesFiles => "mixes-files",
            Planted::MistakesEnds => "mistakes-ends",
        }
    }

    /// The check that it breaks, which must find it.
    pub fn breaks(self) -> Check {
        match self {
            Planted::UnfencedCommit => Check::OneWriter,
            Planted::LostUpdate => Check::Ledger,
            Planted::SilenceIsEmpty => Check::Decided,
            Planted::NoSettling | Planted::ForgetsItsLease => Check::Undisturbed,
            Planted::DeafToDeletions => Check::Converges,
            Planted::ShortWait | Planted::PingsBlindly => Check::OneLife,
            Planted::DropsFields => Check::LaterFields,
            Planted::AllLookDown
            | Planted::BelievesTheFirstActive
            | Planted::BelievesTheStarting => Check::Budget,
            Planted::AllLookUp => Check::StandIn,
            Planted::OverlooksLabels => Check::Nowhere,
            Planted::PanicsInSilence => Check::Panicked,
            Planted::MistakesLabels => Check::Placed,
            Planted::ForgetsTexts => Check::Texts,
            Planted::TrustsCopies => Check::Copied,
            Planted::MixesValues => Check::Values,
            Planted::GoesOnWhenPaused | Planted::UndoesNothing | Planted::ForgetsWhatWasGood => {
                Check::Rollouts
            }
            Planted::ForgetsLeave => Check::Reboots,
            Planted::OverlooksNeeds => Check::Needs,
            Planted::MixesFiles => Check::Files,
            Planted::MistakesEnds => Check::LeftAlone,
        }
    }

    /// The bug of that name.
    pub fn parse(name: &str) -> Result<Planted, String> {
        let known = || Planted::ALL.map(Planted::name).join(", ");
        Planted::ALL
            .into_iter()
            .find(|bug| bug.name() == name)
            .ok_or_else(|| format!("no such planted bug; there are {}", known()))
    }

    pub(crate) fn compares(bug: Option<Planted>, compares: &[Compare]) -> Vec<Compare> {
        let kept = |compare: &&Compare| match (bug, compare) {
            (Some(Planted::UnfencedCommit), Compare::CreateRevision(key, _)) => {
                !key.ends_with("/leader")
            }
            (Some(Planted::LostUpdate), Compare::ModRevision(key, _)) => !key.contains("/units/"),
            _ => true,
        };
        compares.iter().filter(kept).cloned().collect()
    }

    pub(crate) fn read(bug: Option<Planted>, key: &str, answer: Read) -> Read {
        match answer {
            Err(StoreError::Unavailable(_))
                if bug == Some(Planted::SilenceIsEmpty) && key.contains("/assignments/") =>
            {
                let value = br#"{"v":1,"generation":0,"instances":{}}"#.to_vec();
                Ok((
                    Some(KeyValue {
                        key: key.to_string(),
                        value,
                        create_revision: 0,
                        mod_revision: 0,
                        lease: None,
                    }),
                    0,
                ))
            }
            Err(StoreError::Unavailable(problem))
                if bug == Some(Planted::PanicsInSilence) && key.contains("/assignments/") =>
            {
                panic!("{problem}")
            }
            Ok((Some(mut kv), revision)) if bug == Some(Planted::ForgetsLeave) => {
                Planted::show(bug, &mut kv);
                Ok((Some(kv), revision))
            }
            answer => answer,
        }
    }

    pub(crate) fn changes(bug: Option<Planted>, changes: &[Change]) -> Vec<Change> {
        let mut changes = changes.to_vec();
        let last = |change: &Change| {
            let (texts, number) = change.key().split_once(".revisions/")?.1.split_once('/')?;
            let last = number.parse::<u64>().ok().filter(|number| *number > 1)? - 1;
            Some(Change::Delete { key: format!("/fleet.revisions/{texts}/{last:010}") })
        };
        if bug == Some(Planted::ForgetsTexts) {
            let put = changes.iter().filter(|change| matches!(change, Change::Put { .. }));
            changes.extend(put.filter_map(last).collect::<Vec<_>>());
        }
        for change in changes.iter_mut().filter(|_| bug == Some(Planted::DropsFields)) {
            if let Change::Put { key, value, .. } = change
                && key.contains("/units/")
                && let Ok(serde_json::Value::Object(mut record)) = serde_json::from_slice(value)
                && record.remove("x-later").is_some()
            {
                *value = serde_json::Value::Object(record).to_string().into_bytes();
            }
        }
        changes
    }

    /// What fleetd reads of a document.
    pub(crate) fn show(bug: Option<Planted>, kv: &mut KeyValue) {
        if bug == Some(Planted::ShortWait) && kv.key.contains("/fences/") {
            // As if each keeper had ended in good order: then there is nothing to wait for but its
            // lease.
            kv.value = String::from_utf8_lossy(&kv.value)
                .replace("\"released\":false", "\"released\":true")
                .into_bytes();
        }
        if bug == Some(Planted::AllLookDown) && kv.key.contains("/reports/") {
            kv.value = String::from_utf8_lossy(&kv.value)
                .replace("\"active\":\"active\"", "\"active\":\"failed\"")
                .into_bytes();
        }
        if bug == Some(Planted::BelievesTheFirstActive) && kv.key.contains("/reports/") {
            kv.value = String::from_utf8_lossy(&kv.value)
                .replace("\"settling\":true", "\"settling\":false")
                .into_bytes();
        }
        if bug == Some(Planted::BelievesTheStarting) && kv.key.contains("/reports/") {
            kv.value = String::from_utf8_lossy(&kv.value)
                .replace("\"state\":\"starting\"", "\"state\":\"healthy\"")
                .into_bytes();
        }
        if bug == Some(Planted::AllLookUp) && kv.key.contains("/reports/") {
            kv.value = String::from_utf8_lossy(&kv.value)
                .replace("\"active\":\"activating\"", "\"active\":\"active\"")
                .replace("\"active\":\"failed\"", "\"active\":\"active\"")
                .replace("\"settling\":true", "\"settling\":false")
                .into_bytes();
        }
        if bug == Some(Planted::MistakesLabels) && kv.key.contains("/machines/") {
            let label = |zone: u8| format!("\"{OWN_LABEL}\":\"{zone}\"");
            kv.value =
                String::from_utf8_lossy(&kv.value).replace(&label(0), &label(1)).into_bytes();
        }
        let replaced = match bug {
            Some(Planted::GoesOnWhenPaused) => ("\"state\":\"paused\"", "\"state\":\"rolling\""),
            Some(Planted::UndoesNothing) => ("\"state\":\"undone\"", "\"state\":\"failed\""),
            Some(Planted::ForgetsWhatWasGood) => ("\"good\":{", "\"forgotten\":{"),
            _ => ("", ""),
        };
        if kv.key.contains("/rollouts/") && !replaced.0.is_empty() {
            kv.value =
                String::from_utf8_lossy(&kv.value).replace(replaced.0, replaced.1).into_bytes();
        }
        if bug == Some(Planted::MixesValues)
            && kv.key == CONFIG
            && let Ok(mut config) = serde_json::from_slice::<serde_json::Value>(&kv.value)
        {
            config["values"][KEYS[1]] = "before".into();
            kv.value = config.to_string().into_bytes();
        }
        if bug == Some(Planted::ForgetsLeave)
            && kv.key == "/fleet/reboots"
            && let Ok(mut reboots) = serde_json::from_slice::<serde_json::Value>(&kv.value)
        {
            reboots["slots"] = serde_json::json!({"default": 9});
            let locks = reboots["locks"].as_object_mut().into_iter().flatten();
            for (_, lock) in locks {
                drop(lock.as_object_mut().and_then(|lock| lock.remove("granted_ms")));
            }
            kv.value = reboots.to_string().into_bytes();
        }
        if bug == Some(Planted::OverlooksNeeds) && kv.key.contains("/units/") {
            kv.value =
                String::from_utf8_lossy(&kv.value).replace("\\nNeeds=", "\\nWants=").into_bytes();
        }
        if bug == Some(Planted::OverlooksLabels) && kv.key.contains("/machines/") {
            kv.value = String::from_utf8_lossy(&kv.value)
                .replace(&format!("\"{OWN_LABEL}\":"), "\"hidden\":")
                .into_bytes();
        }
    }

    /// What the planner sees of a snapshot, where it is asked without the store's client.
    pub(crate) fn overlook(bug: Option<Planted>, snapshot: &Snapshot) -> Snapshot {
        let mut seen = snapshot.clone();
        for machine in seen.machines.values_mut().filter(|_| bug == Some(Planted::OverlooksLabels))
        {
            Arc::make_mut(machine).metadata.remove(OWN_LABEL);
        }
        seen
    }

    pub(crate) fn drops_batch(self, item: &Result<WatchBatch, StoreError>) -> bool {
        self == Planted::DeafToDeletions && deletes(item)
    }
}

impl fmt::Display for Planted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
