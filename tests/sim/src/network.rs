//! A machine's way to the store: the `Kv` that its fleetd is given, with latency, cuts, late, lost
//! and repeated messages in between.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use fleetd::store::kv::{
    Change, Compare, KeyValue, Kv, LeaseId, Outcome, Range, StoreError, TimeLeft, WatchBatch,
    WatchEvent, WatchStream,
};
use fleetd::store::terms::Terms;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};

use crate::etcd::Etcd;
use crate::gate::Mortal;
use crate::link::{Fate, Link};
use crate::planted::Planted;

/// fleetd's own default.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a silent connection is trusted: fleetd's ping interval and timeout.
const SILENCE: Duration = Duration::from_secs(8);

/// etcd gives up a request that finds no quorum after this long.
const NO_QUORUM: Duration = Duration::from_secs(5);

/// The store as one life of one machine reaches it.
pub struct RemoteKv {
    etcd: Etcd,
    link: Arc<Link>,
    /// How fast this machine's clock runs, in millionths: its times in requests are scaled back.
    rate_ppm: i64,
    planted: Option<Planted>,
    terms: Terms,
    /// Of a keeper with a planted bug: what it last read of its own key.
    blind: Mutex<Option<KeyValue>>,
}

impl RemoteKv {
    /// `etcd` must name its asker.
    pub fn new(etcd: Etcd, link: Arc<Link>, rate_ppm: i64, planted: Option<Planted>) -> RemoteKv {
        RemoteKv { etcd, link, rate_ppm, planted, terms: Terms::default(), blind: Mutex::default() }
    }

    fn asker(&self) -> &Mortal {
        if self.is_keepers() { &self.link.keeper } else { &self.link.fleetd }
    }

    fn is_keepers(&self) -> bool {
        self.etcd.origin().is_some_and(|origin| origin.keeper)
    }

    fn pings_blindly(&self) -> bool {
        self.is_keepers() && self.planted == Some(Planted::PingsBlindly)
    }

    fn blind(&self) -> MutexGuard<'_, Option<KeyValue>> {
        self.blind.lock().expect("no panic of a blind keeper")
    }

    /// A request that changes nothing.
    async fn call<T, F>(
        &self,
        operation: impl FnOnce(Etcd) -> F + Send + 'static,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        self.asker().point().await;
        self.exchange(operation).await
    }

    /// A request that may be delivered a second time after the first, unless it is to be sent
    /// `once`. Nobody hears the second answer: fleetd's store is asked without hidden retries, and
    /// so a refusal that is heard is that of the one delivery which counts.
    async fn write<T, F>(
        &self,
        once: bool,
        operation: impl Fn(Etcd) -> F + Clone + Send + 'static,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        self.asker().point().await;
        if let Some(later) = self.link.again().filter(|_| !once) {
            let (etcd, link, second) = (self.etcd.clone(), self.link.clone(), operation.clone());
            let (carried_out, first) = oneshot::channel();
            tokio::spawn(async move {
                if first.await.is_err() {
                    return; // the first never arrives
                }
                sleep(later).await;
                arrive(link.request()).await;
                if timeout(NO_QUORUM, etcd.quorum()).await.is_ok() {
                    let _ = second(etcd).await;
                }
            });
            let first = move |etcd| async move {
                let answer = operation(etcd).await;
                let _ = carried_out.send(()); // the run may be over
                answer
            };
            return self.exchange(first).await;
        }
        self.exchange(operation).await
    }

    /// The request goes its way even if nobody waits for its answer any more.
    async fn exchange<T, F>(
        &self,
        operation: impl FnOnce(Etcd) -> F + Send + 'static,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let (etcd, link) = (self.etcd.clone(), self.link.clone());
        let exchange = tokio::spawn(async move {
            arrive(link.request()).await;
            if timeout(NO_QUORUM, etcd.quorum()).await.is_err() {
                std::future::pending::<()>().await;
            }
            let answer = operation(etcd.clone()).await;
            let term = etcd.term();
            arrive(link.answer()).await;
            (answer, term)
        });
        let answer = match timeout(REQUEST_TIMEOUT, exchange).await {
            Ok(Ok((answer, term))) => {
                self.terms.heard(term);
                answer
            }
            Ok(Err(_)) => Err(StoreError::Unavailable("the simulation ends".to_string())),
            Err(_) => Err(StoreError::Unavailable("no answer in time".to_string())),
        };
        self.asker().point().await;
        answer
    }
}

async fn arrive(fate: Fate) {
    match fate {
        Fate::Arrives(latency) => sleep(latency).await,
        Fate::Lost => std::future::pending().await,
    }
}

#[async_trait]
impl Kv for RemoteKv {
    async fn range(&self, prefix: &str) -> Result<Range, StoreError> {
        let prefix = prefix.to_string();
        let mut range = self.call(move |etcd| async move { etcd.range(&prefix).await }).await?;
        range.kvs.iter_mut().for_each(|kv| Planted::show(self.planted, kv));
        Ok(range)
    }

    async fn ranges(&self, prefixes: &[String]) -> Result<Range, StoreError> {
        let prefixes = prefixes.to_vec();
        self.call(move |etcd| async move { etcd.ranges(&prefixes).await }).await
    }

    async fn get(&self, key: &str) -> Result<(Option<KeyValue>, i64), StoreError> {
        if self.pings_blindly()
            && let Some(known) = self.blind().clone()
        {
            return Ok((Some(known), 0));
        }
        let asked = key.to_string();
        let answer = self.call(move |etcd| async move { etcd.get(&asked).await }).await;
        if let (true, Ok((Some(kv), _))) = (self.pings_blindly(), &answer) {
            *self.blind() = Some(kv.clone());
        }
        Planted::read(self.planted, key, answer)
    }

    async fn get_many(&self, keys: &[String]) -> Result<(Vec<Option<KeyValue>>, i64), StoreError> {
        let keys = keys.to_vec();
        let mut read = self.call(move |etcd| async move { etcd.get_many(&keys).await }).await?;
        read.0.iter_mut().flatten().for_each(|kv| Planted::show(self.planted, kv));
        Ok(read)
    }

    async fn txn(&self, compares: &[Compare], changes: &[Change]) -> Result<Outcome, StoreError> {
        let (compares, changes) =
            (Planted::compares(self.planted, compares), Planted::changes(self.planted, changes));
        // A new record asks only that there is none, which holds again when it was destroyed:
        // nothing could tell it from a new wish.
        let once = compares
            .iter()
            .any(|compare| matches!(compare, Compare::Absent(key) if key.contains("/units/")));
        let transaction = Arc::new((compares, changes));
        self.write(once, move |etcd| {
            let transaction = transaction.clone();
            async move { etcd.txn(&transaction.0, &transaction.1).await }
        })
        .await
    }

    async fn watch(&self, prefix: &str, from: i64) -> Result<WatchStream, StoreError> {
        let prefix = prefix.to_string();
        let opened = self.call(move |etcd| async move { etcd.watch(&prefix, from).await }).await?;
        let (sender, receiver) = mpsc::channel(64);
        tokio::spawn(carry(self.link.clone(), opened, sender, self.planted));
        Ok(receiver)
    }

    async fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        // fleetd was told its times by a clock that is wrong; etcd hears what it meant.
        let ttl = Duration::from_millis(
            (ttl.as_secs_f64() * 1e3 * (1.0 + self.rate_ppm as f64 / 1e6)).round() as u64,
        );
        self.write(false, move |etcd| async move { etcd.grant(ttl).await }).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<bool, StoreError> {
        if self.pings_blindly() && self.blind().is_some() {
            return Ok(true);
        }
        self.write(false, move |etcd| async move { etcd.keep_alive(lease).await }).await
    }

    async fn time_left(&self, lease: LeaseId) -> Result<Option<TimeLeft>, StoreError> {
        self.call(move |etcd| async move { etcd.time_left(lease).await }).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.write(false, move |etcd| async move { etcd.revoke(lease).await }).await
    }

    fn led_anew(&self) -> Option<Instant> {
        self.terms.led_anew()
    }
}

/// Carries a watch over the link: late, in order, and broken once it was silent for long.
async fn carry(
    link: Arc<Link>,
    mut from: WatchStream,
    to: mpsc::Sender<Result<WatchBatch, StoreError>>,
    planted: Option<Planted>,
) {
    let carried = async {
        while let Some(mut item) = from.recv().await {
            link.answers_pass().await;
            if let Fate::Arrives(latency) = link.request() {
                sleep(latency).await;
            }
            link.answers_pass().await;
            if planted.is_some_and(|bug| bug.drops_batch(&item)) {
                continue;
            }
            for event in item.iter_mut().flat_map(|batch| &mut batch.events) {
                if let WatchEvent::Put(kv) = event {
                    Planted::show(planted, kv);
                }
            }
            if to.send(item).await.is_err() {
                return;
            }
        }
    };
    let broken = tokio::select! {
        biased;
        () = to.closed() => false,
        () = link.silent(SILENCE) => true,
        () = carried => false,
    };
    if broken {
        let _ = to
            .send(Err(StoreError::Unavailable(
                "the connection was silent for too long".to_string(),
            )))
            .await;
    }
}

/// Whether an item deletes a key.
pub(crate) fn deletes(item: &Result<WatchBatch, StoreError>) -> bool {
    item.as_ref()
        .is_ok_and(|batch| batch.events.iter().any(|event| matches!(event, WatchEvent::Delete(_))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_second_delivery_never_overtakes_the_first_whose_answer_is_heard() {
        let (etcd, link) = (Etcd::new(), Arc::new(Link::new(1)));
        let kv = RemoteKv::new(etcd, link.clone(), 0, None);
        link.repeat(1_000, Duration::from_secs(600));
        link.delay(Duration::from_secs(600));
        let mut heard = 0;
        for number in 0..200 {
            let key = format!("/{number}");
            let put = Change::Put { key: key.clone(), value: Vec::new(), lease: None };
            if let Ok(outcome) = kv.txn(&[Compare::Absent(key)], &[put]).await {
                assert!(outcome.applied, "of request {number} the second delivery was first");
                heard += 1;
            }
        }
        assert!(heard > 20, "{heard} of 200");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_delivered_twice_is_carried_out_twice_but_for_a_new_record() {
        let (etcd, link) = (Etcd::new(), Arc::new(Link::new(1)));
        let kv = RemoteKv::new(etcd.clone(), link.clone(), 0, None);
        let put = |key: &str, value: &str| Change::Put {
            key: key.to_string(),
            value: value.as_bytes().to_vec(),
            lease: None,
        };
        link.repeat(1_000, Duration::from_secs(1));
        for number in 0..20 {
            let (plain, record) = (format!("/{number}"), format!("/fleet/units/{number}"));
            kv.txn(&[], &[put(&plain, "first")]).await.unwrap();
            kv.txn(&[Compare::Absent(record.clone())], &[put(&record, "first")]).await.unwrap();
            etcd.txn(&[], &[put(&plain, "second"), Change::Delete { key: record }]).await.unwrap();
        }
        sleep(Duration::from_secs(10)).await;
        let late = (0..20)
            .filter(|number| etcd.peek(&format!("/{number}")).unwrap().value == b"first")
            .count();
        assert!(late > 10, "{late} of 20");
        assert_eq!(etcd.peek_all("/fleet/units/"), Vec::new());
    }
}
