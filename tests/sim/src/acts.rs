//! Whether events tell what users did: each act once, whoever led, and none that was refused.

use std::collections::BTreeMap;

use fleet_core::event::{Event, Reason};

use crate::etcd::Etcd;
use crate::ledger::Answer;
use crate::script::Wish;

/// Where events lie, and what is still to be told.
const EVENTS: &str = "/fleet.events/";
const ACTS: &str = "/fleet/acts/";

/// With so many events old ones may have gone.
const MAY_BE_TRIMMED: usize = 800;

/// What users asked, by who asked it: each has a name of its own.
pub type Asked = BTreeMap<String, (Wish, Answer)>;

/// The name of the user who asks this.
pub fn name(id: u64) -> String {
    format!("user-{id}")
}

/// What the names of updaters, which reboot machines, begin with.
const UPDATER: &str = "updater-";

/// The name of a machine's updater.
pub fn updater(machine: usize) -> String {
    format!("{UPDATER}{machine}")
}

/// Whether the events tell it so, once nothing is left to do.
pub fn told(etcd: &Etcd, asked: &Asked) -> Result<(), String> {
    let left = etcd.peek_all(ACTS);
    if !left.is_empty() {
        return Err(format!(
            "{} acts of users are not told, the first {}",
            left.len(),
            left[0].key
        ));
    }
    let events = etcd.peek_all(EVENTS);
    let mut count: BTreeMap<String, usize> = BTreeMap::new();
    let read = |kv: &fleetd::store::kv::KeyValue| serde_json::from_slice::<Event>(&kv.value).ok();
    for item in events.iter().filter_map(read).flat_map(|event| event.items) {
        if let Some(Reason::User { by, .. }) = item.reason {
            *count.entry(by.trim_end_matches(" (certificate)").to_string()).or_default() += 1;
        }
    }
    let all_kept = events.len() < MAY_BE_TRIMMED;
    for (who, (wish, answer)) in asked {
        let count = count.remove(who).unwrap_or(0);
        // What changes nothing is not told; these always change something.
        let changes =
            matches!(wish, Wish::Restart { .. } | Wish::Rollback { .. } | Wish::Destroy { .. });
        let most = usize::from(*answer != Answer::Refused);
        let least = usize::from(*answer == Answer::Accepted && changes && all_kept);
        if !(least..=most).contains(&count) {
            return Err(format!("{wish:?} of {who}, which was {answer:?}, is told {count} times"));
        }
    }
    // They ask again and again, and other checks judge what they get.
    count.retain(|who, _| !who.starts_with(UPDATER));
    match count.pop_first() {
        None => Ok(()),
        Some((who, _)) => Err(format!("something is told of {who}, who asked nothing")),
    }
}
