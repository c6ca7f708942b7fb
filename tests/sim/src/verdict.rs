//! What a run checks, and how it says that a check failed.

use std::fmt;

/// One check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// Only the life of fleetd that won the term writes assignments in it.
    OneWriter,
    /// Assignments can be read, and their generations only grow.
    Generations,
    /// A stop or restart of an unfenced unit was decided by a leader.
    Decided,
    /// In quiet seeds no unfenced unit stops.
    Undisturbed,
    /// The plan of a planned state is empty.
    Quiet,
    /// What users were told explains every record.
    Ledger,
    /// A fenced unit lives on one machine at most.
    OneLife,
    /// A later life of a fenced unit has no lower token.
    Tokens,
    /// What a later version wrote into a document outlives its rewrites.
    LaterFields,
    /// No more instances are taken down at once than `MaxUnavailable=` allows, and the way back is
    /// always there.
    Budget,
    /// With `UpdateOrder=start-first`, what is taken down has a spare instance that is up.
    StandIn,
    /// What is placed was wanted, and its machine fit, by what the leader had seen.
    Placed,
    /// What needs another unit starts after it.
    Needs,
    /// What gives up as its file says is not started again.
    LeftAlone,
    /// No more machines may reboot at once than there are slots.
    Reboots,
    /// Values are of one revision, and of none older than was asked for.
    Values,
    /// An application is applied whole, and no instance finds files of two versions.
    Files,
    /// Each text that a unit has had is kept.
    Texts,
    /// Nobody is given a text that is undone or held back, and the text to return to is there.
    Rollouts,
    /// A host with a copy of a machine's disk keeps out of that machine's way.
    Copied,
    /// No task panics.
    Panicked,
    /// What is said to fit nowhere fits nowhere.
    Nowhere,
    /// After the last fault all becomes as wanted.
    Converges,
}

/// A check that failed, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Which.
    pub check: Check,
    /// What must not have been.
    pub what: String,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}
