//! Live copies of the cluster: a mirror that a watch brings up to date.
//!
//! The leader follows the store with a copy of its own ([`Following`]): its plans wait for nobody.
//! The API of a machine shares one ([`Copies`]), which is there while anybody reads it and a minute
//! longer, so that an idle cluster is watched by no API.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::process::panics;
use crate::store::kv::WatchStream;
use crate::store::{Mirror, Store, StoreError};

/// States come no faster than this: a deploy of thousands changes something every millisecond.
const PACE: Duration = Duration::from_millis(20);

/// The pause before a copy that broke is made again.
const AGAIN: Duration = Duration::from_millis(300);

/// How long a copy is kept that nobody reads.
const KEPT: Duration = Duration::from_secs(60);

/// How long a reader waits for the copy to show what stands in the store already: a watch brings it
/// within milliseconds.
const BEHIND: Duration = Duration::from_secs(5);

/// A mirror with the watch that brings it up to date.
pub struct Following {
    mirror: Mirror,
    changes: WatchStream,
}

impl Following {
    /// Reads everything, and watches from there.
    pub async fn begin(store: &Store) -> Result<Following, StoreError> {
        let mirror = store.read_all().await?;
        let changes = store.watch_all(mirror.cluster().snapshot.revision).await?;
        Ok(Following { mirror, changes })
    }

    /// What is there, as far as it was told.
    pub fn mirror(&self) -> &Mirror {
        &self.mirror
    }

    /// Applies what has changed: waits for the first change, takes along all that are there. After
    /// an error it must be begun again. Nothing is lost if it is dropped while it waits.
    pub async fn next(&mut self) -> Result<(), StoreError> {
        let ended = || StoreError::Unavailable("the watch ended".to_string());
        self.mirror.apply(self.changes.recv().await.ok_or_else(ended)??);
        self.take_all()
    }

    /// The same, until anything has changed but the leader's own word.
    pub async fn next_to_plan(&mut self) -> Result<(), StoreError> {
        let before = self.mirror.changed();
        while self.mirror.changed() == before {
            self.next().await?;
        }
        Ok(())
    }

    fn take_all(&mut self) -> Result<(), StoreError> {
        while let Ok(batch) = self.changes.try_recv() {
            self.mirror.apply(batch?);
        }
        Ok(())
    }
}

/// The copy that all readers of one process share.
#[derive(Clone)]
pub struct Copies {
    store: Store,
    live: Arc<Mutex<Option<Live>>>,
}

/// Where the states of a copy come from.
type Live = Arc<watch::Sender<State>>;

/// The copy as it was after so many changes.
#[derive(Clone, Default)]
struct State {
    number: u64,
    mirror: Option<Arc<Mirror>>,
    /// Why there is none.
    problem: Option<StoreError>,
}

/// One who reads the copy.
pub struct Reader {
    states: watch::Receiver<State>,
    /// The last state that it has seen.
    seen: u64,
}

impl Copies {
    /// None is made before somebody reads.
    pub fn new(store: Store) -> Copies {
        Copies { store, live: Arc::default() }
    }

    /// A reader of the copy, which is made if there is none.
    pub fn reader(&self) -> Reader {
        let mut live = self.lock();
        let states = match &*live {
            Some(live) => live.subscribe(),
            None => {
                let (sender, states) = watch::channel(State::default());
                let made = Arc::new(sender);
                *live = Some(made.clone());
                tokio::spawn(self.clone().keep(made));
                states
            }
        };
        Reader { states, seen: 0 }
    }

    async fn keep(self, live: Live) {
        let kept = panics::contained(async {
            tokio::select! {
                () = self.unread(&live) => {}
                () = follow_always(&self.store, &live) => {}
            }
        });
        if kept.await.is_err() {
            // Readers see its end, and the next one makes another.
            self.forget(&live, |_| true);
        }
    }

    /// Returns when nobody has read for long, and the copy is no longer to be had.
    async fn unread(&self, live: &Live) {
        loop {
            live.closed().await;
            sleep(KEPT).await;
            if self.forget(live, |live| live.receiver_count() == 0) {
                return;
            }
        }
    }

    /// Takes a copy away if it is so; whether it was.
    fn forget(&self, live: &Live, is_so: impl Fn(&Live) -> bool) -> bool {
        let mut there = self.lock();
        let goes = is_so(live);
        if goes {
            there.take_if(|there| Arc::ptr_eq(there, live));
        }
        goes
    }

    fn lock(&self) -> MutexGuard<'_, Option<Live>> {
        // A panic while holding it cannot leave half a value.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reader {
    /// The copy as it is, as soon as it holds what is wanted: for what stands in the store by now.
    /// [`StoreError::Unavailable`] if that does not come, or what keeps the copy from being made.
    pub async fn when(
        &mut self,
        holds: impl Fn(&Mirror) -> bool,
    ) -> Result<Arc<Mirror>, StoreError> {
        let is_it = |state: &State| {
            state.problem.is_some() || state.mirror.as_ref().is_some_and(|mirror| holds(mirror))
        };
        let seen = match timeout(BEHIND, self.states.wait_for(is_it)).await {
            Ok(Ok(state)) => state.clone(),
            Ok(Err(_)) => return Err(StoreError::Unavailable("the copy of it ended".to_string())),
            Err(_) => {
                let problem = format!("its changes are more than {} s late", BEHIND.as_secs());
                return Err(StoreError::Unavailable(problem));
            }
        };
        self.seen = seen.number;
        match (seen.problem, seen.mirror) {
            (None, Some(mirror)) => Ok(mirror),
            (problem, _) => Err(problem
                .unwrap_or_else(|| StoreError::Unavailable("there is no copy of it".to_string()))),
        }
    }

    /// The copy as it is; at most a moment behind the store.
    pub async fn now(&mut self) -> Result<Arc<Mirror>, StoreError> {
        self.when(|_| true).await
    }

    /// The next state that it has not seen, however long that takes, also over outages of the
    /// store; `None` if there will be none.
    pub async fn next(&mut self) -> Option<Arc<Mirror>> {
        let seen = self.seen;
        let is_new = |state: &State| state.number > seen && state.mirror.is_some();
        let state = self.states.wait_for(is_new).await.ok()?.clone();
        self.seen = state.number;
        state.mirror
    }
}

async fn follow_always(store: &Store, live: &Live) {
    loop {
        if let Err(problem) = follow(store, live).await {
            live.send_modify(|state| {
                *state = State { number: state.number, mirror: None, problem: Some(problem) };
            });
        }
        sleep(AGAIN).await;
    }
}

/// Fails when the copy cannot be made; a watch that broke is no failure, for the copy made next
/// shows what was missed.
async fn follow(store: &Store, live: &Live) -> Result<(), StoreError> {
    let mut following = Following::begin(store).await?;
    loop {
        // Half of an import is nothing to show.
        if !following.mirror().importing() {
            let mirror = Some(Arc::new(following.mirror().clone()));
            live.send_modify(|state| {
                *state = State { number: state.number + 1, mirror, problem: None };
            });
        }
        let next = Instant::now() + PACE;
        if following.next().await.is_err() {
            return Ok(());
        }
        sleep_until(next).await;
        if following.take_all().is_err() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use fleet_core::model::{FORMAT, Leader};
    use fleet_core::name::MachineId;

    use super::*;
    use crate::store::counted::{Counted, Counts};
    use crate::store::embedded::EmbeddedKv;

    /// Far above what a change takes to arrive.
    const SOON: Duration = Duration::from_secs(10);

    struct Counting {
        store: Store,
        counts: Arc<Counts>,
        _folder: tempfile::TempDir,
    }

    impl Counting {
        async fn start() -> Counting {
            let folder = tempfile::tempdir().unwrap();
            let kv = EmbeddedKv::open(folder.path().join("store")).await.unwrap();
            let counts = Arc::<Counts>::default();
            let store = Store::new(Arc::new(Counted::new(Arc::new(kv), counts.clone())), "/fleet/");
            Counting { store, counts, _folder: folder }
        }

        fn ranges(&self) -> u64 {
            self.counts.read()[0].1.done
        }
    }

    fn leader(machine: &str) -> Leader {
        Leader { v: FORMAT, machine: MachineId::new(machine), since_ms: 0 }
    }

    async fn next(reader: &mut Reader) -> Arc<Mirror> {
        timeout(SOON, reader.next()).await.expect("in time").expect("a state")
    }

    #[tokio::test]
    async fn a_hundred_readers_share_one_read_and_one_watch() {
        let there = Counting::start().await;
        let copies = Copies::new(there.store.clone());
        let mut readers: Vec<Reader> = (0..100).map(|_| copies.reader()).collect();
        for reader in &mut readers {
            assert_eq!(reader.now().await.unwrap().cluster().leader, None);
        }
        let lease = there.store.grant(Duration::from_secs(3600)).await.unwrap();
        there.store.campaign(&leader("a"), lease).await.unwrap().expect("nobody leads");
        let first = next(&mut readers[0]).await;
        assert_eq!(first.cluster().leader, Some(leader("a")));
        for reader in &mut readers[1..] {
            assert!(Arc::ptr_eq(&next(reader).await, &first));
        }
        assert_eq!((there.ranges(), there.counts.read()[3].1.done), (1, 1));
    }

    #[tokio::test]
    async fn a_reader_waits_for_what_stands_in_the_store() {
        let there = Counting::start().await;
        let copies = Copies::new(there.store.clone());
        let mut reader = copies.reader();
        reader.now().await.unwrap();
        let lease = there.store.grant(Duration::from_secs(3600)).await.unwrap();
        let term = there.store.campaign(&leader("a"), lease).await.unwrap().expect("elected");
        let holds = |mirror: &Mirror| mirror.cluster().snapshot.revision >= term.create_revision;
        assert_eq!(reader.when(holds).await.unwrap().cluster().term, term.create_revision);
    }

    #[tokio::test(start_paused = true)]
    async fn a_copy_is_kept_a_minute_longer_than_it_is_read() {
        let kv = crate::store::etcd::EtcdKv::connect(crate::store::etcd::EtcdOptions::new(vec![
            "http://127.0.0.1:1".to_string(),
        ]))
        .unwrap();
        let copies = Copies::new(Store::new(Arc::new(kv), "/fleet/"));
        let is_there = || copies.lock().is_some();
        let reader = copies.reader();
        assert!(is_there());
        sleep(3 * KEPT).await;
        assert!(is_there(), "it is read");
        drop(reader);
        sleep(KEPT / 2).await;
        assert!(is_there());
        sleep(KEPT).await;
        assert!(!is_there());
    }

    #[tokio::test]
    async fn a_copy_that_cannot_be_made_says_why() {
        let mut options =
            crate::store::etcd::EtcdOptions::new(vec!["http://127.0.0.1:1".to_string()]);
        options.request_timeout = Duration::from_millis(200);
        let kv = crate::store::etcd::EtcdKv::connect(options).unwrap();
        let copies = Copies::new(Store::new(Arc::new(kv), "/fleet/"));
        let Err(error) = copies.reader().now().await else { panic!("there is no store") };
        assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    }
}
