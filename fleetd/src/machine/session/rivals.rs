//! Two hosts with one machine's id: the one that was refused leaves a note, from which the other
//! one learns of it.

use std::time::Duration;

use fleet_core::model::{FORMAT, Rival};
use fleet_core::name::MachineId;
use tokio::time::Instant;
use tracing::{debug, error};

use super::{Presence, Session, Trying};
use crate::store::StoreError;
use crate::store::kv::WatchEvent;

/// How long to wait before the store is asked again who else has this machine's id.
const LISTEN_AGAIN: Duration = Duration::from_secs(5);

/// What an operator does about two machines with one id.
const REMEDY: &str = "If that host is a copy of this one, or this one of it, give the copy an id \
    of its own: \
                      rm /etc/machine-id; systemd-machine-id-setup; systemctl restart fleetd";

/// What the one that was refused says.
pub(super) fn refusal(id: &MachineId, address: &str) -> String {
    format!(
        "another fleetd has this machine's id {id} and is alive, at {address}. This one is \
        refused: it starts and stops nothing until the other one is gone. {REMEDY}"
    )
}

impl Session {
    /// Leaves word for the fleetd that has this machine's id, for as long as this one waits.
    pub(super) async fn leave_note(&self, trying: &mut Trying) {
        let Presence { machine, ttl } = self.presence.borrow().clone();
        if trying.note.is_some_and(|(_, at)| at.elapsed() < ttl / 3) {
            return;
        }
        let noted = async {
            if let Some((lease, _)) = trying.note
                && self.store.keep_alive(lease).await?
            {
                return Ok(lease);
            }
            let lease = self.store.grant(ttl).await?;
            let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
            let rival =
                Rival { v: FORMAT, address: machine.address.clone(), host, ..Rival::default() };
            self.store.put_rival(&machine.id, &rival, lease).await.map(|()| lease)
        };
        match noted.await {
            Ok(lease) => trying.note = Some((lease, Instant::now())),
            Err::<_, StoreError>(error) => {
                debug!("the other fleetd with this id is not told yet: {error}")
            }
        }
    }

    /// Says when another fleetd with this machine's id was refused.
    pub(super) async fn hear_of_rivals<T>(&self) -> T {
        if self.alone {
            return std::future::pending().await;
        }
        let id = self.presence.borrow().machine.id.clone();
        let mut own = self.standing.subscribe();
        loop {
            let _ = own.wait_for(|standing| standing.is_own()).await;
            if let Err(problem) = self.follow_rivals(&id).await {
                debug!("looking again for others with this machine's id: {problem}");
            }
            tokio::time::sleep(LISTEN_AGAIN).await;
        }
    }

    async fn follow_rivals(&self, id: &MachineId) -> Result<(), StoreError> {
        let (rival, revision) = self.store.rival(id).await?;
        rival.iter().for_each(|rival| self.say(id, rival));
        let mut changes = self.store.watch_rival(id, revision).await?;
        while let Some(batch) = changes.recv().await {
            for event in batch?.events {
                if let WatchEvent::Put(kv) = event {
                    self.say(id, &self.store.read_rival(&kv)?);
                }
            }
        }
        Ok(())
    }

    fn say(&self, id: &MachineId, rival: &Rival) {
        if self.standing.now().is_own() {
            error!(
                "another fleetd with this machine's id {id} was started on {} at {}, and was \
                    refused; this one goes on. {}",
                rival.host, rival.address, REMEDY
            );
        }
    }
}
