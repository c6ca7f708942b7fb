//! Every route, with what it takes and gives: each file of handlers says its own.

use super::describe::Resource;
use super::{
    apps, availability, config, debug, documents, events, failures, fencing, fleetlock, follow,
    import, journal, machines, moves, process, reboots, revisions, rollouts, state, status, units,
};
use super::{image_check, volumes};

/// The routes under fleet 1.0's two prefixes, `/fleet/v1` and `/v1-alpha`: its v1 resources and
/// our additions.
pub(super) fn under_prefix() -> Vec<Resource> {
    let all = [
        units::routes(),
        moves::routes(),
        revisions::routes(),
        rollouts::routes(),
        status::routes(),
        journal::routes(),
        fencing::routes(),
        failures::routes(),
        state::routes(),
        machines::routes(),
        volumes::routes(),
        image_check::routes(),
        availability::routes(),
        reboots::routes(),
        config::routes(),
        import::routes(),
        apps::routes(),
        follow::routes(),
        events::routes(),
        debug::routes(),
        process::routes(),
        documents::routes(),
    ];
    all.into_iter().flatten().collect()
}

/// The routes beside the prefixes.
pub(super) fn at_root() -> Vec<Resource> {
    let mut all = process::at_root();
    all.extend(fleetlock());
    all
}

/// The routes of FleetLock, which lie beside the prefixes, and ask the store.
pub(super) fn fleetlock() -> Vec<Resource> {
    fleetlock::at_root()
}
