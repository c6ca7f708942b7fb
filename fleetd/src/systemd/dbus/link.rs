//! The bus connection: made when needed, made again when lost, its calls limited, its signals
//! heard.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinSet;
use tracing::debug;
use zbus::message::{Message, Type};
use zbus::zvariant::{DynamicType, ObjectPath, OwnedValue};
use zbus::{Connection, MatchRule, MessageStream};

use super::Bus;
use crate::systemd::counters::{Counters, Tally};
use crate::systemd::jobs::{DONE, Jobs};
use crate::systemd::{MAX_CALLS, SystemdError};

const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";

/// PID 1 answers nothing while it reloads, which takes it 15 s at 5,000 units; twice that, and
/// some.
const CALL_TIMEOUT: Duration = Duration::from_secs(45);

/// A bus that takes longer to greet us hangs.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How often the jobs that we wait for are compared with systemd's, should their end have been
/// lost.
const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// Job ends that may wait to be read. zbus stops reading the bus when its queue is full, so this is
/// more than can be due at once.
const SIGNAL_QUEUE: usize = 1024;

/// A call that failed.
pub(super) enum CallError {
    Unavailable(String),
    /// systemd's answer: the D-Bus error's name and its words.
    Refused(String, String),
}

impl From<CallError> for SystemdError {
    fn from(error: CallError) -> SystemdError {
        match error {
            CallError::Unavailable(problem) => SystemdError::Unavailable(problem),
            CallError::Refused(_, words) => SystemdError::Unavailable(words),
        }
    }
}

pub(super) struct Link {
    bus: Bus,
    calls: Semaphore,
    live: Mutex<Kept>,
    jobs: Arc<Jobs>,
    tally: Arc<Tally>,
}

#[derive(Default)]
struct Kept {
    live: Option<Live>,
    /// When the last try to connect failed, and why: who has waited for it does not try again.
    failed: Option<(Instant, String)>,
}

struct Live {
    connection: Connection,
    /// Ends its tasks when dropped; they hold the connection open.
    _tasks: JoinSet<()>,
}

impl Link {
    pub(super) fn new(bus: Bus, jobs: Arc<Jobs>, tally: Arc<Tally>) -> Link {
        Link { bus, calls: Semaphore::new(MAX_CALLS), live: Mutex::default(), jobs, tally }
    }

    /// Calls a method of the manager. `count` says which counter the call is for.
    pub(super) async fn manager<B>(
        &self,
        method: &'static str,
        body: &B,
        count: fn(&mut Counters),
    ) -> Result<Message, CallError>
    where
        B: serde::Serialize + DynamicType + Sync,
    {
        self.call(MANAGER_PATH, MANAGER, method, body, count).await
    }

    /// Reads one property.
    pub(super) async fn get<T>(
        &self,
        path: &str,
        interface: &str,
        name: &str,
        count: fn(&mut Counters),
    ) -> Result<T, CallError>
    where
        T: TryFrom<OwnedValue>,
    {
        let message = self
            .call(path, "org.freedesktop.DBus.Properties", "Get", &(interface, name), count)
            .await?;
        let value: OwnedValue = read(&message)?;
        T::try_from(value).map_err(|_| {
            CallError::Unavailable(format!("the property {name} has another type than expected"))
        })
    }

    /// Reads all properties of one interface.
    pub(super) async fn get_all(
        &self,
        path: &str,
        interface: &str,
    ) -> Result<HashMap<String, OwnedValue>, CallError> {
        let body = (interface,);
        let message = self
            .call(path, "org.freedesktop.DBus.Properties", "GetAll", &body, |c| c.outcome += 1)
            .await?;
        read(&message)
    }

    pub(super) async fn manager_property<T: TryFrom<OwnedValue>>(
        &self,
        name: &str,
    ) -> Result<T, CallError> {
        self.get(MANAGER_PATH, MANAGER, name, |c| c.upkeep += 1).await
    }

    /// Reads one of the manager's counters, for a listing.
    pub(super) async fn manager_count(&self, name: &str) -> Result<u32, CallError> {
        self.get(MANAGER_PATH, MANAGER, name, |c| c.list += 1).await
    }

    /// How many connections were made so far.
    pub(super) fn connections(&self) -> u64 {
        self.tally.read().connect
    }

    async fn call<B>(
        &self,
        path: &str,
        interface: &str,
        method: &'static str,
        body: &B,
        count: fn(&mut Counters),
    ) -> Result<Message, CallError>
    where
        B: serde::Serialize + DynamicType + Sync,
    {
        let _permit = self.calls.acquire().await.expect("never closed");
        let connection = self.connection().await?;
        let in_flight = MAX_CALLS - self.calls.available_permits();
        self.tally.count(|c| {
            count(c);
            c.most_calls = c.most_calls.max(in_flight);
        });
        let reply =
            connection.call_method(Some(SYSTEMD), path, Some(interface), method, body).await;
        reply.map_err(|error| {
            if let zbus::Error::InputOutput(_) = error {
                // A broken or hung connection: the next call makes a new one, and nothing waits for
                // this one's replies.
                self.abandon(&connection);
            }
            judged(error)
        })
    }

    async fn connection(&self) -> Result<Connection, CallError> {
        let asked = Instant::now();
        let mut kept = self.live.lock().await;
        if let Some(live) = &kept.live
            && !live.connection.is_closed()
        {
            return Ok(live.connection.clone());
        }
        if let Some((_, problem)) = kept.failed.as_ref().filter(|(at, _)| *at >= asked) {
            return Err(CallError::Unavailable(problem.clone()));
        }
        kept.live = None;
        self.jobs.forget_all();
        let connecting = Live::connect(&self.bus, &self.jobs, &self.tally);
        let new = match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(new) => new.map_err(judged),
            Err(_) => Err(CallError::Unavailable("the bus does not greet".to_string())),
        };
        let new = new.inspect_err(|error| {
            let (CallError::Unavailable(problem) | CallError::Refused(_, problem)) = error;
            kept.failed = Some((Instant::now(), problem.clone()));
        })?;
        self.tally.count(|c| c.connect += 1);
        self.jobs.wake();
        let connection = new.connection.clone();
        kept.live = Some(new);
        Ok(connection)
    }

    fn abandon(&self, connection: &Connection) {
        if let Ok(mut kept) = self.live.try_lock()
            && kept
                .live
                .as_ref()
                .is_some_and(|live| live.connection.unique_name() == connection.unique_name())
        {
            kept.live = None;
            self.jobs.forget_all();
        }
    }
}

impl Live {
    async fn connect(bus: &Bus, jobs: &Arc<Jobs>, tally: &Arc<Tally>) -> zbus::Result<Live> {
        let connection = bus.connect(Some(CALL_TIMEOUT)).await?;
        // Without `Subscribe` systemd sends the ends of our own jobs and nothing else, which starts
        // units 29 % faster.
        let job_removed = MatchRule::builder()
            .msg_type(Type::Signal)
            .sender(SYSTEMD)?
            .path(MANAGER_PATH)?
            .interface(MANAGER)?
            .member("JobRemoved")?
            .build();
        let owner_changed = MatchRule::builder()
            .msg_type(Type::Signal)
            .sender("org.freedesktop.DBus")?
            .interface("org.freedesktop.DBus")?
            .member("NameOwnerChanged")?
            .arg(0, SYSTEMD)?
            .build();
        let ends =
            MessageStream::for_match_rule(job_removed, &connection, Some(SIGNAL_QUEUE)).await?;
        let owners = MessageStream::for_match_rule(owner_changed, &connection, None).await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(hear_job_ends(ends, Arc::clone(jobs)));
        tasks.spawn(hear_new_owners(owners, Arc::clone(jobs)));
        tasks.spawn(sweep(connection.clone(), Arc::clone(jobs), Arc::clone(tally)));
        Ok(Live { connection, _tasks: tasks })
    }
}

async fn hear_job_ends(mut ends: MessageStream, jobs: Arc<Jobs>) {
    while let Some(Ok(message)) = ends.next().await {
        if let Ok((id, _, unit, result)) =
            message.body().deserialize::<(u32, ObjectPath<'_>, &str, &str)>()
        {
            jobs.ended(id, result);
            jobs.check_ended(unit, result);
        }
    }
    debug!("the bus connection ended");
    jobs.forget_all();
    jobs.wake();
}

/// systemd came back to the bus, as after daemon-reexec.
async fn hear_new_owners(mut owners: MessageStream, jobs: Arc<Jobs>) {
    while let Some(Ok(_)) = owners.next().await {
        jobs.wake();
    }
}

/// Gives back the slots of jobs that systemd no longer has, should a signal have been lost.
///
/// Jobs may also run for hours, as those of `Type=oneshot` do. When they fill every slot and none
/// ended for a whole round, the connection is given up: systemd then drops the match rules that it
/// holds for this client's jobs, which is what the slots ration.
async fn sweep(connection: Connection, jobs: Arc<Jobs>, tally: Arc<Tally>) {
    let mut ends_seen = 0;
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        let waiting = jobs.running();
        if waiting.is_empty() {
            continue;
        }
        tally.count(|c| c.upkeep += 1);
        let Ok(reply) = connection
            .call_method(Some(SYSTEMD), MANAGER_PATH, Some(MANAGER), "ListJobs", &())
            .await
        else {
            continue;
        };
        type JobLine<'a> = (u32, &'a str, &'a str, &'a str, ObjectPath<'a>, ObjectPath<'a>);
        let body = reply.body();
        let Ok(listed) = body.deserialize::<Vec<JobLine<'_>>>() else { continue };
        let listed: BTreeSet<u32> = listed.into_iter().map(|(id, ..)| id).collect();
        for id in waiting.difference(&listed) {
            jobs.ended(*id, DONE); // how, nobody knows
        }
        if jobs.full() && jobs.ends_seen() == ends_seen {
            debug!("every job slot is held by a long job: starting over with a new connection");
            let _ = connection.close().await;
            return;
        }
        ends_seen = jobs.ends_seen();
    }
}

/// Deserializes a reply.
pub(super) fn read<T>(message: &Message) -> Result<T, CallError>
where
    T: for<'de> serde::Deserialize<'de> + zbus::zvariant::Type,
{
    message.body().deserialize().map_err(|error| {
        CallError::Unavailable(format!("systemd's answer is not understood: {error}"))
    })
}

/// Tells systemd's refusals from a bus on which systemd does not answer.
fn judged(error: zbus::Error) -> CallError {
    match error {
        zbus::Error::MethodError(name, words, _) => {
            let words = words.unwrap_or_else(|| name.to_string());
            let bus_speaks = [
                ".NoReply",
                ".ServiceUnknown",
                ".NameHasNoOwner",
                ".LimitsExceeded",
                ".Disconnected",
                ".NoServer",
            ];
            let unavailable = name.strip_prefix("org.freedesktop.DBus.Error").is_some_and(|rest| {
                bus_speaks.contains(&rest)
                    || rest.starts_with(".Time")
                    || rest.starts_with(".Spawn")
            });
            match unavailable {
                true => CallError::Unavailable(words),
                false => CallError::Refused(name.to_string(), words),
            }
        }
        other => CallError::Unavailable(other.to_string()),
    }
}
