//! The recent changes, and the watches that read them, each at its own pace.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::sync::{mpsc, watch};

use super::lock;
use crate::store::kv::{StoreError, WatchBatch, WatchEvent, WatchStream};

/// The most events kept: some minutes of a busy cluster, far more than a watch that reconnects
/// needs.
pub(super) const MAX_EVENTS: usize = 10_000;

/// The most bytes kept, keys and values: large unit files must not multiply into gigabytes.
pub(super) const MAX_BYTES: usize = 64 << 20;

/// Batches waiting in one watch's stream; the others wait in the history.
const QUEUE: usize = 64;

/// Every change since `oldest`.
pub(super) struct History {
    kept: Mutex<Kept>,
    /// Wakes the watches; they look for themselves. Closed with the store.
    woken: watch::Receiver<()>,
}

struct Kept {
    /// One for each revision from `oldest` on, without gaps.
    batches: VecDeque<Arc<WatchBatch>>,
    /// The first revision kept, or the next one to come.
    oldest: i64,
    events: usize,
    bytes: usize,
}

impl History {
    /// Empty, after `revision`.
    pub(super) fn new(revision: i64, woken: watch::Receiver<()>) -> Self {
        let kept = Kept { batches: VecDeque::new(), oldest: revision + 1, events: 0, bytes: 0 };
        History { kept: Mutex::new(kept), woken }
    }

    /// Adds the following revisions; the caller then wakes the watches.
    pub(super) fn push(&self, batches: Vec<WatchBatch>) {
        let mut kept = lock(&self.kept);
        for batch in batches {
            kept.events += batch.events.len();
            kept.bytes += size(&batch);
            kept.batches.push_back(Arc::new(batch));
        }
        while kept.events > MAX_EVENTS || kept.bytes > MAX_BYTES {
            kept.drop_oldest();
        }
    }

    /// Forgets what is before `revision`.
    pub(super) fn compact(&self, revision: i64) {
        let mut kept = lock(&self.kept);
        while kept.oldest < revision && !kept.batches.is_empty() {
            kept.drop_oldest();
        }
    }

    /// Whether the writer has ended: nothing will be added any more.
    pub(super) fn is_closed(&self) -> bool {
        self.woken.has_changed().is_err()
    }

    /// A stream of the changes from `from` on.
    pub(super) fn watch(self: &Arc<Self>, prefix: &str, from: i64) -> WatchStream {
        let (sender, receiver) = mpsc::channel(QUEUE);
        tokio::spawn(follow(self.clone(), prefix.to_string(), from.max(1), sender));
        receiver
    }

    /// The next batches from `from` on, at most [`QUEUE`], and the revision to go on from.
    fn since(&self, from: i64) -> Result<(Vec<Arc<WatchBatch>>, i64), StoreError> {
        let kept = lock(&self.kept);
        if from < kept.oldest {
            return Err(StoreError::Compacted(kept.oldest));
        }
        let skip = usize::try_from(from - kept.oldest).unwrap_or(usize::MAX);
        let batches: Vec<_> = kept.batches.iter().skip(skip).take(QUEUE).cloned().collect();
        let next = batches.last().map_or(from, |last| last.revision + 1);
        Ok((batches, next))
    }
}

impl Kept {
    fn drop_oldest(&mut self) {
        let Some(batch) = self.batches.pop_front() else { return };
        self.oldest = batch.revision + 1;
        self.events -= batch.events.len();
        self.bytes -= size(&batch);
    }
}

async fn follow(
    history: Arc<History>,
    prefix: String,
    mut from: i64,
    sender: mpsc::Sender<Result<WatchBatch, StoreError>>,
) {
    let mut woken = history.woken.clone();
    loop {
        // Before looking: what is added while we look wakes us again.
        woken.mark_unchanged();
        let (batches, next) = match history.since(from) {
            Ok(found) => found,
            Err(compacted) => return drop(sender.send(Err(compacted)).await),
        };
        for batch in batches.iter().filter_map(|batch| under(&prefix, batch)) {
            if sender.send(Ok(batch)).await.is_err() {
                return;
            }
        }
        from = next;
        if !batches.is_empty() {
            continue;
        }
        tokio::select! {
            changed = woken.changed() => if changed.is_err() {
                let closed = StoreError::Unavailable("the embedded store was closed".into());
                return drop(sender.send(Err(closed)).await);
            },
            () = sender.closed() => return,
        }
    }
}

/// The part of a batch under the prefix, if any.
fn under(prefix: &str, batch: &WatchBatch) -> Option<WatchBatch> {
    let events: Vec<_> =
        batch.events.iter().filter(|event| key(event).starts_with(prefix)).cloned().collect();
    (!events.is_empty()).then_some(WatchBatch { revision: batch.revision, events })
}

fn key(event: &WatchEvent) -> &str {
    match event {
        WatchEvent::Put(kv) => &kv.key,
        WatchEvent::Delete(key) => key,
    }
}

fn size(batch: &WatchBatch) -> usize {
    let value = |event: &WatchEvent| match event {
        WatchEvent::Put(kv) => kv.value.len(),
        WatchEvent::Delete(_) => 0,
    };
    batch.events.iter().map(|event| key(event).len() + value(event)).sum()
}
