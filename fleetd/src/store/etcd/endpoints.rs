//! One client per endpoint, and which of them is asked: one that failed is left for the next.
//!
//! The crate's own balancing over one channel is not used: it picks endpoints at random and keeps
//! picking one that hangs.

use std::path::Path;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;

use etcd_client::{Client, ConnectOptions, Identity, TlsOptions};
use fleet_tls::{Files, Reloading, TlsError};
use futures_util::future::{Either, select};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{info, warn};

use super::EtcdOptions;
use super::errors::{is_a_close, never_sent, store_error};
use super::probe;
use super::renewals::Renewals;
use crate::store::kv::StoreError;

/// How often a connection with open streams is pinged. etcd takes pings closer than 5 s
/// (`--grpc-keepalive-min-time`) for an attack and closes the connection; the sixth second is for
/// jitter.
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
    credentials: StdMutex<Option<(String, String)>>,
    /// What TLS wants, from the files as they are now; `None` where no endpoint is https.
    tls: Reloading<Option<TlsOptions>>,
    slots: Vec<Mutex<Slot>>,
    /// Counts failures; the endpoint asked is this modulo their number.
    turn: AtomicUsize,
}

/// One endpoint's connection, if it has one.
#[derive(Default)]
struct Slot {
    connection: Option<Connection>,
}

/// A connection to an endpoint. Clones are one connection.
#[derive(Clone)]
pub(super) struct Connection {
    pub(super) client: Client,
    pub(super) renewals: Arc<Renewals>,
}

impl Endpoints {
    pub(super) fn new(options: EtcdOptions) -> Result<Self, StoreError> {
        if options.endpoints.is_empty() {
            return Err(StoreError::Refused("no etcd endpoint is configured".into()));
        }
        for url in &options.endpoints {
            let scheme = url.split_once("://").map_or("http", |(scheme, _)| scheme);
            if !["http", "https"].contains(&scheme) {
                return Err(StoreError::Refused(format!(
                    "the etcd endpoint {url} is {scheme}; write http:// or https://"
                )));
            }
        }
        let slots = options.endpoints.iter().map(|_| Mutex::default()).collect();
        let secure = options.endpoints.iter().any(|url| is_https(url));
        let make =
            move |files: &Files| if secure { tls_options(files).map(Some) } else { Ok(None) };
        let tls = Reloading::new(options.tls.clone(), make)
            .map_err(|error| StoreError::Refused(error.to_string()))?;
        let credentials = StdMutex::new(options.credentials.clone());
        Ok(Endpoints { options, credentials, tls, slots, turn: AtomicUsize::new(0) })
    }

    /// Logs in and proves itself with these from now on, in new connections: open watches go on in
    /// theirs.
    pub(super) async fn change(
        &self,
        credentials: Option<(String, String)>,
        tls: Files,
    ) -> Result<(), TlsError> {
        self.tls.change(tls)?;
        *self.credentials.lock().unwrap_or_else(PoisonError::into_inner) = credentials;
        self.hang_up().await;
        Ok(())
    }

    /// Makes the next calls connect anew.
    async fn hang_up(&self) {
        for slot in &self.slots {
            slot.lock().await.connection = None;
        }
    }

    /// Asks the endpoint whose turn it is; within the request timeout also the others, as `repeat`
    /// allows. One that did not answer, or said that it cannot, loses its turn and its connection.
    pub(super) async fn call<T, F: Future<Output = Result<T, etcd_client::Error>>>(
        &self,
        repeat: Repeat,
        request: impl Fn(Connection) -> F,
    ) -> Result<T, StoreError> {
        let deadline = Instant::now() + self.options.request_timeout;
        let mut tries_left = self.slots.len();
        loop {
            let turn = self.turn.load(Ordering::Relaxed);
            let url = &self.options.endpoints[turn % self.slots.len()];
            let attempt = async { request(self.connection(turn).await?).await };
            let (error, repeatable) = match timeout_at(deadline, attempt).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => {
                    let repeatable = repeat == Repeat::Always || never_sent(&error);
                    (self.judged(url, &error).await, repeatable)
                }
                Err(_) => {
                    let problem =
                        format!("{url} did not answer within {:?}", self.options.request_timeout);
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

    /// The same for what may be asked twice and etcd's leader answers from memory: an endpoint that
    /// has not answered after half of the time may hang, so the next one is asked beside it, and
    /// whoever answers first is heard.
    pub(super) async fn call_quickly<T, F: Future<Output = Result<T, etcd_client::Error>>>(
        &self,
        request: impl Fn(Connection) -> F,
    ) -> Result<T, StoreError> {
        if self.slots.len() == 1 {
            return self.call(Repeat::Always, request).await;
        }
        let turn = self.turn.load(Ordering::Relaxed);
        let first = pin!(self.call(Repeat::Always, &request));
        let second = pin!(async {
            sleep(self.options.request_timeout / 2).await;
            request(self.connection(turn.wrapping_add(1)).await?).await
        });
        match select(first, second).await {
            Either::Left((answer, _)) => answer,
            Either::Right((Ok(answer), _)) => {
                self.give_up(turn).await;
                Ok(answer)
            }
            Either::Right((Err(_), first)) => first.await,
        }
    }

    async fn judged(&self, url: &str, error: &etcd_client::Error) -> StoreError {
        let files = self.tls.files();
        if is_https(url)
            && is_a_close(error)
            && let Some(problem) = probe::refusal(url, &files).await
        {
            return StoreError::Unavailable(format!("{url}: {problem}"));
        }
        store_error(url, error, &files)
    }

    /// The turn's connection. Building one does no more than parse, unless there are credentials:
    /// then it logs in.
    async fn connection(&self, turn: usize) -> Result<Connection, etcd_client::Error> {
        let index = turn % self.slots.len();
        let (tls, reloaded) = self.tls.current();
        match reloaded {
            Some(Ok(())) => {
                info!("the certificates for etcd were read anew");
                self.hang_up().await;
            }
            Some(Err(error)) => {
                warn!("{error}; etcd is asked with the certificates that were there before")
            }
            None => {}
        }
        let mut slot = self.slots[index].lock().await;
        if let Some(connection) = &slot.connection {
            return Ok(connection.clone());
        }
        let mut options = ConnectOptions::new()
            .with_connect_timeout(self.options.connect_timeout)
            .with_keep_alive(PING_INTERVAL, PING_TIMEOUT)
            // etcd forbids pings without an open stream.
            .with_keep_alive_while_idle(false)
            // A member that lost its cluster must say so, instead of serving a watch that nothing
            // will ever come from.
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        let credentials = self.credentials.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((user, password)) = credentials {
            options = options.with_user(user, password);
        }
        let url = &self.options.endpoints[index];
        if let Some(tls) = tls.filter(|_| is_https(url)) {
            options = options.with_tls(tls);
        }
        let client = Client::connect([url], Some(options)).await?;
        let connection = Connection { client, renewals: Arc::default() };
        slot.connection = Some(connection.clone());
        Ok(connection)
    }

    /// Passes the turn on, once however many calls failed on it together, and drops the connection:
    /// TCP may take minutes to notice that it is dead, and a connection that failed once reports
    /// the old error again.
    async fn give_up(&self, turn: usize) {
        if self.turn.compare_exchange(turn, turn + 1, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            self.slots[turn % self.slots.len()].lock().await.connection = None;
        }
    }
}

fn is_https(url: &str) -> bool {
    url.starts_with("https://")
}

/// The files for tonic. It has no words of its own for what is wrong with them, so they are read
/// into rustls first.
fn tls_options(files: &Files) -> Result<TlsOptions, TlsError> {
    fleet_tls::client(files)?;
    let read = |path: &Path| {
        std::fs::read(path)
            .map_err(|error| TlsError::new(format!("cannot read {}: {error}", path.display())))
    };
    let options = TlsOptions::new().trust_anchors(files.roots()?.roots);
    let (Some(cert), Some(key)) = (&files.cert, &files.key) else { return Ok(options) };
    Ok(options.identity(Identity::from_pem(read(cert)?, read(key)?)))
}
