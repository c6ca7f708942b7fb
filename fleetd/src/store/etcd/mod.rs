//! The store on an etcd cluster (3.4 or later, API v3).

mod endpoints;
mod errors;
mod probe;
mod renewals;
mod watch;

use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{
    Client, CompareOp, GetOptions, PutOptions, ResponseHeader, Txn, TxnOp, TxnOpResponse,
    TxnResponse,
};
use fleet_tls::{Files, TlsError};
use tokio::time::Instant;

use self::endpoints::{Connection, Endpoints, Repeat};
use super::kv::{
    Change, Compare, KeyValue, Kv, LeaseId, Outcome, Range, StoreError, TimeLeft, WatchStream,
    check, check_count, check_key,
};
use super::terms::Terms;

/// How to reach the cluster.
#[derive(Debug, Clone)]
pub struct EtcdOptions {
    /// URLs like `http://10.0.0.1:2379`, or `host:port`. The first is tried first; after a failure
    /// the next one, and so on around.
    pub endpoints: Vec<String>,
    /// User and password, if etcd asks for them.
    pub credentials: Option<(String, String)>,
    /// For `https://` endpoints: their CA, and our certificate if they ask for one. They are always
    /// verified.
    pub tls: Files,
    /// The time a whole call may take, whatever number of endpoints it tries.
    pub request_timeout: Duration,
    /// The time one endpoint has to accept a connection; shorter than `request_timeout`, so that a
    /// call can still try another one.
    pub connect_timeout: Duration,
}

impl EtcdOptions {
    /// Defaults: no credentials, 2 s a call, 1 s a connection.
    pub fn new(endpoints: impl IntoIterator<Item = impl Into<String>>) -> Self {
        EtcdOptions {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            credentials: None,
            tls: Files::default(),
            request_timeout: Duration::from_secs(2),
            connect_timeout: Duration::from_secs(1),
        }
    }
}

/// A client of an etcd cluster. It connects when it is first used, and again whenever a connection
/// broke.
///
/// Absent: learning further endpoints from the cluster, retries beyond one call's time.
pub struct EtcdKv {
    endpoints: Endpoints,
    terms: Terms,
}

impl EtcdKv {
    /// Checks the options; does not connect. [`StoreError::Refused`] for an empty list, a URL that
    /// is neither `http://` nor `https://`, and certificate files that will not do.
    pub fn connect(options: EtcdOptions) -> Result<EtcdKv, StoreError> {
        Ok(EtcdKv { endpoints: Endpoints::new(options)?, terms: Terms::default() })
    }

    /// Logs in as somebody else and uses other certificate files from now on.
    pub async fn change(
        &self,
        credentials: Option<(String, String)>,
        tls: Files,
    ) -> Result<(), TlsError> {
        self.endpoints.change(credentials, tls).await
    }

    async fn txn_once(&self, repeat: Repeat, txn: Txn) -> Result<TxnResponse, StoreError> {
        let request = |to: Connection| {
            let txn = txn.clone();
            async move { kv(&to.client).txn(txn).await }
        };
        self.endpoints.call(repeat, request).await
    }

    async fn read(&self, txn: Txn) -> Result<(Vec<TxnOpResponse>, i64), StoreError> {
        let response = self.txn_once(Repeat::Always, txn).await?;
        Ok((response.op_responses(), self.revision(response.header())?))
    }

    /// The revision of an answer, whose term is noted.
    fn revision(&self, header: Option<&ResponseHeader>) -> Result<i64, StoreError> {
        let header = header.ok_or_else(|| {
            StoreError::Refused("etcd answered without a header; is this an etcd?".into())
        })?;
        self.terms.heard(header.raft_term());
        Ok(header.revision())
    }
}

#[async_trait]
impl Kv for EtcdKv {
    async fn range(&self, prefix: &str) -> Result<Range, StoreError> {
        let request = |to: Connection| async move {
            kv(&to.client).get(prefix, Some(GetOptions::new().with_prefix())).await
        };
        let mut response = self.endpoints.call(Repeat::Always, request).await?;
        let revision = self.revision(response.header())?;
        Ok(Range { kvs: response.take_kvs().into_iter().map(key_value).collect(), revision })
    }

    async fn keys(&self, prefix: &str) -> Result<Range, StoreError> {
        let request = |to: Connection| async move {
            let options = GetOptions::new().with_prefix().with_keys_only();
            kv(&to.client).get(prefix, Some(options)).await
        };
        let mut response = self.endpoints.call(Repeat::Always, request).await?;
        let revision = self.revision(response.header())?;
        Ok(Range { kvs: response.take_kvs().into_iter().map(key_value).collect(), revision })
    }

    async fn ranges(&self, prefixes: &[String]) -> Result<Range, StoreError> {
        check_count("prefixes", prefixes.len())?;
        let gets: Vec<TxnOp> = match prefixes {
            [] => vec![linearised()],
            prefixes => prefixes
                .iter()
                .map(|prefix| TxnOp::get(prefix.as_str(), Some(GetOptions::new().with_prefix())))
                .collect(),
        };
        let (answers, revision) = self.read(Txn::new().and_then(gets)).await?;
        let kvs = answers.into_iter().take(prefixes.len()).flat_map(|answer| match answer {
            TxnOpResponse::Get(mut get) => get.take_kvs(),
            _ => Vec::new(),
        });
        Ok(Range { kvs: kvs.map(key_value).collect(), revision })
    }

    async fn get(&self, key: &str) -> Result<(Option<KeyValue>, i64), StoreError> {
        check_key(key)?;
        let request = |to: Connection| async move { kv(&to.client).get(key, None).await };
        let mut response = self.endpoints.call(Repeat::Always, request).await?;
        let revision = self.revision(response.header())?;
        Ok((response.take_kvs().pop().map(key_value), revision))
    }

    async fn get_many(&self, keys: &[String]) -> Result<(Vec<Option<KeyValue>>, i64), StoreError> {
        check_count("keys", keys.len())?;
        keys.iter().try_for_each(|key| check_key(key))?;
        let gets: Vec<TxnOp> = match keys {
            [] => vec![linearised()],
            keys => keys.iter().map(|key| TxnOp::get(key.as_str(), None)).collect(),
        };
        let (answers, revision) = self.read(Txn::new().and_then(gets)).await?;
        let found = answers.into_iter().take(keys.len()).map(|answer| match answer {
            TxnOpResponse::Get(mut get) => get.take_kvs().pop().map(key_value),
            _ => None,
        });
        Ok((found.collect(), revision))
    }

    async fn txn(&self, compares: &[Compare], changes: &[Change]) -> Result<Outcome, StoreError> {
        let bytes = check(compares, changes)?;
        let when: Vec<etcd_client::Compare> = compares.iter().map(compare).collect();
        let then: Vec<TxnOp> = match changes {
            [] => vec![linearised()],
            changes => changes.iter().map(operation).collect(),
        };
        let repeat = if changes.is_empty() { Repeat::Always } else { Repeat::IfNotSent };
        let txn = Txn::new().when(when).and_then(then).or_else(if changes.is_empty() {
            vec![linearised()]
        } else {
            vec![]
        });
        let response = self.txn_once(repeat, txn).await.map_err(|error| match error {
            StoreError::TooLarge { what, limit, .. } => StoreError::TooLarge { what, bytes, limit },
            error => error,
        })?;
        Ok(Outcome { applied: response.succeeded(), revision: self.revision(response.header())? })
    }

    async fn watch(&self, prefix: &str, from: i64) -> Result<WatchStream, StoreError> {
        watch::open(&self.endpoints, prefix, from).await
    }

    async fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        let seconds = whole_seconds(ttl);
        // Sent twice, it leaves a lease that nobody knows and that expires by itself.
        let request =
            |to: Connection| async move { to.client.lease_client().grant(seconds, None).await };
        let granted = self.endpoints.call(Repeat::Always, request).await?;
        self.revision(granted.header())?;
        Ok(LeaseId(granted.id()))
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<bool, StoreError> {
        let request = |to: Connection| async move { to.renewals.renew(&to.client, lease).await };
        let renewed = self.endpoints.call_quickly(request).await?;
        Ok(renewed.is_some_and(|term| {
            self.terms.heard(term);
            true
        }))
    }

    async fn time_left(&self, lease: LeaseId) -> Result<Option<TimeLeft>, StoreError> {
        let request = |to: Connection| async move {
            to.client.lease_client().time_to_live(lease.0, None).await
        };
        let answer = self.endpoints.call_quickly(request).await?;
        if !self.terms.heard(answer.header().map_or(0, ResponseHeader::raft_term)) {
            return Err(StoreError::Unavailable(
                "a member answered that has not heard of etcd's present leader".into(),
            ));
        }
        // -1 for a lease that has ended; 0 for one in its last second, and for one whose end is
        // due.
        let Ok(seconds) = u64::try_from(answer.ttl()) else { return Ok(None) };
        let granted = Duration::from_secs(u64::try_from(answer.granted_ttl()).unwrap_or(0));
        Ok(Some(TimeLeft { granted, left: Duration::from_secs(seconds + 1) }))
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        let request = |to: Connection| async move {
            to.renewals.forget(lease);
            match to.client.lease_client().revoke(lease.0).await {
                Ok(_) => Ok(()),
                Err(error) if errors::is_lease_not_found(&error) => Ok(()),
                Err(error) => Err(error),
            }
        };
        self.endpoints.call(Repeat::Always, request).await
    }

    fn led_anew(&self) -> Option<Instant> {
        self.terms.led_anew()
    }
}

/// The client for reads and transactions. tonic's limit of 4 MB for an answer is lifted, since a
/// range of 100,000 keys is larger.
fn kv(client: &Client) -> etcd_client::KvClient {
    client.kv_client().max_decoding_message_size(usize::MAX)
}

/// A read that makes etcd ask its leader: a transaction without any operation is answered by any
/// member, from what it happens to know.
fn linearised() -> TxnOp {
    TxnOp::get("\0", None)
}

fn compare(compare: &Compare) -> etcd_client::Compare {
    // For etcd an absent key's revisions are 0. No key's are -1, so a caller's 0 holds for none.
    let existing = |revision: i64| if revision > 0 { revision } else { -1 };
    match compare {
        Compare::Absent(key) => {
            etcd_client::Compare::create_revision(key.as_str(), CompareOp::Equal, 0)
        }
        Compare::ModRevision(key, revision) => {
            etcd_client::Compare::mod_revision(key.as_str(), CompareOp::Equal, existing(*revision))
        }
        Compare::CreateRevision(key, revision) => etcd_client::Compare::create_revision(
            key.as_str(),
            CompareOp::Equal,
            existing(*revision),
        ),
    }
}

fn operation(change: &Change) -> TxnOp {
    match change {
        Change::Put { key, value, lease } => {
            let options = lease.map(|lease| PutOptions::new().with_lease(lease.0));
            TxnOp::put(key.as_str(), value.as_slice(), options)
        }
        Change::Delete { key } => TxnOp::delete(key.as_str(), None),
    }
}

fn key_value(found: etcd_client::KeyValue) -> KeyValue {
    let (create_revision, mod_revision, lease) =
        (found.create_revision(), found.mod_revision(), found.lease());
    let (key, value) = found.into_key_value();
    // fleet writes no other keys than UTF-8; a stranger's must not make a whole range fail.
    let key = String::from_utf8(key)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
    KeyValue {
        key,
        value,
        create_revision,
        mod_revision,
        lease: (lease != 0).then_some(LeaseId(lease)),
    }
}

fn whole_seconds(ttl: Duration) -> i64 {
    let rounded_up = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
    i64::try_from(rounded_up).unwrap_or(i64::MAX).max(1)
}
