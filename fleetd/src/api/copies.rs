//! One live copy of the cluster for all who follow it, kept for as long as anybody does.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use crate::process::panics;
use crate::store::{Mirror, Store, StoreError};

/// States come no faster than this: a deploy of thousands changes something every millisecond.
const PACE: Duration = Duration::from_millis(20);

/// The pause before a watch that broke is opened again.
const AGAIN: Duration = Duration::from_millis(300);

/// The copy, if there is one.
#[derive(Default)]
pub(super) struct Copies {
    live: Mutex<Weak<Live>>,
}

/// A copy that follows the store.
pub(super) struct Live {
    states: watch::Receiver<State>,
}

/// The copy as it was after so many changes.
#[derive(Clone, Default)]
struct State {
    number: u64,
    mirror: Option<Arc<Mirror>>,
}

impl Copies {
    /// The copy; it is made if nobody has one.
    pub(super) fn live(&self, store: &Store) -> Arc<Live> {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(live) = live.upgrade() {
            return live;
        }
        let (sender, states) = watch::channel(State::default());
        panics::spawn_contained(keep(store.clone(), sender));
        let made = Arc::new(Live { states });
        *live = Arc::downgrade(&made);
        made
    }
}

/// What of the copy one follower has seen.
pub(super) struct Follower {
    live: Arc<Live>,
    revision: i64,
    number: u64,
}

impl Follower {
    /// One that has seen the store at this revision by itself.
    pub(super) fn since(live: Arc<Live>, revision: i64) -> Follower {
        Follower { live, revision, number: 0 }
    }

    /// The newest state that it has not seen, as soon as there is one; `None` if there will be
    /// none.
    pub(super) async fn next(&mut self) -> Option<Arc<Mirror>> {
        let mut states = self.live.states.clone();
        let (number, revision) = (self.number, self.revision);
        let is_new = |state: &State| {
            let later = |mirror: &Arc<Mirror>| mirror.cluster().snapshot.revision > revision;
            // The revisions of a store that was restored begin again; the numbers do not.
            if number == 0 {
                state.mirror.as_ref().is_some_and(later)
            } else {
                state.number > number
            }
        };
        let state = states.wait_for(is_new).await.ok()?.clone();
        self.number = state.number;
        state.mirror
    }
}

async fn keep(store: Store, sender: watch::Sender<State>) {
    while !sender.is_closed() {
        tokio::select! {
            () = sender.closed() => return,
            // What broke is read again; followers see what is then.
            _ = follow(&store, &sender) => {}
        }
        sleep(AGAIN).await;
    }
}

async fn follow(store: &Store, sender: &watch::Sender<State>) -> Result<(), StoreError> {
    let mut mirror = store.read_all().await?;
    let mut changes = store.watch_all(mirror.cluster().snapshot.revision).await?;
    let ended = || StoreError::Unavailable("the watch ended".to_string());
    loop {
        sender.send_modify(|state| {
            *state = State { number: state.number + 1, mirror: Some(Arc::new(mirror.clone())) };
        });
        mirror.apply(changes.recv().await.ok_or_else(ended)??);
        sleep(PACE).await;
        while let Ok(batch) = changes.try_recv() {
            mirror.apply(batch?);
        }
    }
}

#[cfg(test)]
mod tests {
    use fleet_core::model::{FORMAT, Leader};
    use fleet_core::name::MachineId;

    use super::*;
    use crate::store::embedded::EmbeddedKv;

    /// Far above what a change takes to arrive.
    const SOON: Duration = Duration::from_secs(10);

    async fn next(follower: &mut Follower) -> Arc<Mirror> {
        tokio::time::timeout(SOON, follower.next()).await.expect("in time").expect("a state")
    }

    #[tokio::test]
    async fn all_followers_share_one_copy_which_ends_with_the_last_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(
            Arc::new(EmbeddedKv::open(folder.path().join("store")).await.unwrap()),
            "/fleet/",
        );
        let copies = Copies::default();
        let revision = store.read_all().await.unwrap().cluster().snapshot.revision;
        let mut one = Follower::since(copies.live(&store), revision);
        let mut two = Follower::since(copies.live(&store), revision);
        let lease = store.grant(Duration::from_secs(3600)).await.unwrap();
        let leader =
            |machine: &str| Leader { v: FORMAT, machine: MachineId::new(machine), since_ms: 0 };
        let term = store.campaign(&leader("a"), lease).await.unwrap();
        assert!(term.is_some());
        let seen = next(&mut one).await;
        assert_eq!(seen.cluster().leader, Some(leader("a")));
        assert!(Arc::ptr_eq(&seen, &next(&mut two).await));
        drop((one, two));
        assert!(copies.live.lock().unwrap().upgrade().is_none());
        // What is there already is no news for who has read it.
        let read = store.read_all().await.unwrap().cluster().snapshot.revision;
        let mut three = Follower::since(copies.live(&store), read);
        store.revoke(lease).await.unwrap();
        assert_eq!(next(&mut three).await.cluster().leader, None);
    }
}
