//! One client per endpoint, and which of them is asked: one that failed is left for the next.
//!
//! The crate's own balancing over one channel is not used: it picks endpoints at random and keeps picking one that hangs.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use etcd_client::{Client, ConnectOptions};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use super::EtcdOptions;
use super::errors::{never_sent, store_error};
use crate::store::kv::StoreError;

/// How often a connection with open streams is pinged. etcd takes pings closer than 5 s (`--grpc-keepalive-min-time`) for an attack
/// and closes the connection; the sixth second is for jitter.
const PING_INTERVAL: Duration = Duration::from_secs(6);

/// How long a ping may go unanswered: a cut network ends a watch after `PING_INTERVAL` and this.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// Whether a call that failed at one endpoint may be sent to another within its time.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// It reads, or does the same when done twice.
    Always,
    /// It writes: only if the first endpoint surely never got it.
    IfNotSent,
}

/// The endpoints, and which one is asked next.
pub(super) struct Endpoints {
    options: EtcdOptions,
    slots: Vec<Mutex<Slot>>,
    /// Counts failures; the endpoint asked is this modulo their number.
    turn: AtomicUsize,
}

/// One endpoint's client, if it has one.
#[derive(Default)]
struct Slot {
    client: Option<Client>,
}

impl Endpoints {
    pub(super) fn new(options: EtcdOptions) -> Result<Self, StoreError> {
        if options.endpoints.is_empty() {
            return Err(StoreError::Refused("no etcd endpoint is configured".into()));
        }
        for url in &options.endpoints {
            let scheme = url.split_once("://").map_or("http", |(scheme, _)| scheme);
            if scheme != "http" {
                return Err(StoreError::Refused(format!("the etcd endpoint {url} is {scheme}; only http is supported")));
            }
        }
        let slots = options.endpoints.iter().map(|_| Mutex::default()).collect();
        Ok(Endpoints { options, slots, turn: AtomicUsize::new(0) })
    }

    /// Asks the endpoint whose turn it is; within the request timeout also the others, as `repeat` allows. One that did not answer, or
    /// said that it cannot, loses its turn and its connection.
    pub(super) async fn call<T, F: Future<Output = Result<T, etcd_client::Error>>>(
        &self,
        repeat: Repeat,
        request: impl Fn(Client) -> F,
    ) -> Result<T, StoreError> {
        let deadline = Instant::now() + self.options.request_timeout;
        let mut tries_left = self.slots.len();
        loop {
            let turn = self.turn.load(Ordering::Relaxed);
            let url = &self.options.endpoints[turn % self.slots.len()];
            let attempt = async { request(self.client(turn).await?).await };
            let (error, repeatable) = match timeout_at(deadline, attempt).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => {
                    let repeatable = repeat == Repeat::Always || never_sent(&error);
                    (store_error(url, &error), repeatable)
                }
                Err(_) => {
                    let problem = format!("{url} did not answer within {:?}", self.options.request_timeout);
                    (StoreError::Unavailable(problem), false)
                }
            };
            if !matches!(error, StoreError::Unavailable(_)) {
                return Err(error);
            }
            self.give_up(turn).await;
            tries_left -= 1;
            if !repeatable || tries_left == 0 {
                return Err(error);
            }
        }
    }

    /// The turn's client. Building one does no more than parse, unless there are credentials: then it logs in.
    async fn client(&self, turn: usize) -> Result<Client, etcd_client::Error> {
        let index = turn % self.slots.len();
        let mut slot = self.slots[index].lock().await;
        if let Some(client) = &slot.client {
            return Ok(client.clone());
        }
        let mut options = ConnectOptions::new()
            .with_connect_timeout(self.options.connect_timeout)
            .with_keep_alive(PING_INTERVAL, PING_TIMEOUT)
            // etcd forbids pings without an open stream.
            .with_keep_alive_while_idle(false)
            // A member that lost its cluster must say so, instead of serving a watch that nothing will ever come from.
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        if let Some((user, password)) = &self.options.credentials {
            options = options.with_user(user, password);
        }
        let client = Client::connect([&self.options.endpoints[index]], Some(options)).await?;
        slot.client = Some(client.clone());
        Ok(client)
    }

    /// Passes the turn on, once however many calls failed on it together, and drops the connection: TCP may take minutes to notice
    /// that it is dead, and a connection that failed once reports the old error again.
    async fn give_up(&self, turn: usize) {
        if self.turn.compare_exchange(turn, turn + 1, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.slots[turn % self.slots.len()].lock().await.client = None;
        }
    }
}
