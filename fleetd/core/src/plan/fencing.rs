//! What a placement says of an instance that is fenced.

use crate::model::Fenced;
use crate::name::UnitName;
use crate::unit::stop_terms::StopTerms;
use crate::unit::xfleet;

/// How an instance is fenced that is placed now. The store's revision grows with every commit, so a
/// later placement has a higher one.
pub(super) fn fenced(terms: &StopTerms, instance: &UnitName, revision: i64) -> Box<Fenced> {
    let after = terms.after.iter().map(|name| xfleet::expand(name, instance)).collect();
    Box::new(Fenced { token: revision.max(0) as u64, stop_ms: terms.stop_ms, after })
}

/// How an instance is fenced that stays: its host may run an older text still, so what was true of
/// that goes on being true.
pub(super) fn refreshed(
    terms: &StopTerms,
    instance: &UnitName,
    revision: i64,
    old: Option<&Fenced>,
) -> Box<Fenced> {
    let mut now = fenced(terms, instance, revision);
    if let Some(old) = old {
        now.token = old.token;
        now.stop_ms = now.stop_ms.max(old.stop_ms);
        now.after.extend(old.after.iter().filter(|name| !terms.after.contains(name)).cloned());
        now.after.sort();
        now.after.dedup();
    }
    now
}
