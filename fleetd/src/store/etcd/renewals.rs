//! Renewals of leases, each lease's over one stream that stays open: besides being cheaper, its
//! answers name the term of etcd's leader. (The crate keeps the header of a stream's first answer
//! to itself.)

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use etcd_client::{Client, Error, LeaseKeepAliveResponse, LeaseKeepAliveStream, LeaseKeeper};
use tokio::time::Instant;

use super::errors::is_lease_not_found;
use crate::store::kv::LeaseId;

/// A stream that was not used for this long belongs to a lease that nobody renews any more.
const UNUSED: Duration = Duration::from_secs(60);

/// The open streams of one connection.
#[derive(Default)]
pub(super) struct Renewals(Mutex<HashMap<LeaseId, Open>>);

struct Open {
    keeper: LeaseKeeper,
    answers: LeaseKeepAliveStream,
    used: Instant,
}

impl Renewals {
    /// Renews a lease; the term that the member knew when it was asked, `None` if the lease has
    /// ended.
    pub(super) async fn renew(
        &self,
        client: &Client,
        lease: LeaseId,
    ) -> Result<Option<u64>, Error> {
        // One that broke since, with its connection or its member's leader, is opened anew.
        let open = self.streams().remove(&lease);
        if let Some(mut open) = open
            && let Ok(answer) = open.renew().await
        {
            return Ok(self.keep(lease, open, &answer));
        }
        let (keeper, answers) = match client.lease_client().keep_alive(lease.0).await {
            Ok(opened) => opened,
            Err(error) if is_lease_not_found(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut open = Open { keeper, answers, used: Instant::now() };
        let answer = open.renew().await?;
        Ok(self.keep(lease, open, &answer))
    }

    /// Forgets a lease that is ended on purpose.
    pub(super) fn forget(&self, lease: LeaseId) {
        self.streams().remove(&lease);
    }

    fn keep(&self, lease: LeaseId, open: Open, answer: &LeaseKeepAliveResponse) -> Option<u64> {
        if answer.ttl() <= 0 {
            return None;
        }
        let mut streams = self.streams();
        streams.retain(|_, open| open.used.elapsed() < UNUSED);
        streams.insert(lease, Open { used: Instant::now(), ..open });
        Some(answer.header().map_or(0, |header| header.raft_term()))
    }

    fn streams(&self) -> MutexGuard<'_, HashMap<LeaseId, Open>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    async fn renew(&mut self) -> Result<LeaseKeepAliveResponse, Error> {
        self.keeper.keep_alive().await?;
        self.answers
            .message()
            .await?
            .ok_or_else(|| Error::LeaseKeepAliveError("the stream ended".to_string()))
    }
}
