//! Whether this machine's id is its own, and who is told when that changes.

use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

use crate::store::Registration;

/// Whether this machine's id is its own, by the store's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The store has not answered.
    NoAnswer,
    /// A record of the id is there, and whose it is will be known within seconds.
    Asked,
    /// It is, and this is the registration, unless there is none at the moment.
    Own(Option<Registration>),
    /// Another fleetd has it, and lives.
    Taken,
    /// That one is gone. What it ran may run on, so nothing of it is begun here until the leader
    /// has given up on it; if there is no leader, this machine may become it.
    Vacant,
}

impl Standing {
    /// The present registration.
    pub fn registration(self) -> Option<Registration> {
        if let Standing::Own(registration) = self { registration } else { None }
    }

    /// Whether this machine may act by its id.
    pub fn is_own(self) -> bool {
        matches!(self, Standing::Own(_))
    }

    /// Whether another fleetd had it, so that this one waits.
    pub fn is_refused(self) -> bool {
        matches!(self, Standing::Taken | Standing::Vacant)
    }

    /// Whether this machine may lead: nobody else answers to its id.
    pub fn may_lead(self) -> bool {
        self.is_own() || self == Standing::Vacant
    }
}

/// How the machine stands, with a channel for each part that waits for it: they are woken in the
/// order in which they subscribed. Of one channel tokio wakes the waiters in a random order, and
/// the simulator's seeds would stand for no history.
pub(super) struct Standings {
    now: Mutex<Standing>,
    told: Mutex<Vec<watch::Sender<Standing>>>,
}

impl Default for Standings {
    fn default() -> Standings {
        Standings { now: Mutex::new(Standing::NoAnswer), told: Mutex::default() }
    }
}

impl Standings {
    pub(super) fn now(&self) -> Standing {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn tell(&self, standing: Standing) {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = standing;
        for told in self.told.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            told.send_replace(standing);
        }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Standing> {
        let (sender, receiver) = watch::channel(self.now());
        self.told.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        receiver
    }
}
