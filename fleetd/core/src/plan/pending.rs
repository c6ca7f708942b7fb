//! What passes leave to later passes: instances that were somewhere and are not yet decided.

use std::collections::BTreeMap;

use super::answer::Retired;
use crate::model::{Placement, Why};
use crate::name::UnitName;

/// Instances that were somewhere and must be placed again, or may move if another machine takes
/// them.
#[derive(Default)]
pub(super) struct Pending<'a> {
    /// Why an instance that has no machine any more lost it; all other missing instances are simply
    /// new.
    pub(super) displaced: BTreeMap<UnitName, Displaced>,
    /// Instances that stay only if no other machine takes them.
    pub(super) leaving: Vec<Leaving>,
    /// Followers (`MachineOf=`) that are still to be decided.
    pub(super) followers: BTreeMap<UnitName, Follower<'a>>,
}

/// Why an instance goes elsewhere.
pub(super) struct Displaced {
    pub(super) why: Why,
    /// How often it was moved because it failed.
    pub(super) moves: u32,
}

/// An instance that should leave its machine.
pub(super) struct Leaving {
    pub(super) number: usize,
    pub(super) seat: usize,
    pub(super) instance: UnitName,
    /// Why, in the words of [`Retired`].
    pub(super) cause: Retired,
    /// How often it will have been moved because it failed, if it is moved now.
    pub(super) moves: u32,
    /// The only machine that will do, if a user named one.
    pub(super) to: Option<u32>,
}

/// An instance that runs where others run.
pub(super) struct Follower<'a> {
    pub(super) number: usize,
    pub(super) seat: usize,
    /// The places that it has; more than one only after a fault.
    pub(super) old: Vec<(u32, &'a Placement)>,
}

/// Followers that stay; they are looked at again if anything moves.
pub(super) type Kept<'a> = Vec<(UnitName, Follower<'a>)>;
