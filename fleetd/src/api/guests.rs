//! Who is connected to the API. There is room for so many in all and from one address; when it is
//! full, the connection that has been silent the longest makes room. One that waits for an answer
//! is never cut off.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::limits::Limits;
use crate::process::repeated::Throttled;

/// Where a connection comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Source {
    /// The unix socket.
    Local,
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// The first half of an IPv6 address: a host picks the second half as it likes.
    V6([u16; 4]),
}

/// Whose request it is. Without a listener of ours, as in tests, it is the machine's own.
impl<S: Sync> FromRequestParts<S> for Source {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Source, Infallible> {
        Ok(parts.extensions.get().copied().unwrap_or(Source::Local))
    }
}

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Source {
        match address.to_canonical() {
            IpAddr::V4(address) => Source::V4(address),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Source::V6([a, b, c, d])
            }
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Local => f.write_str("the unix socket"),
            Source::V4(address) => write!(f, "{address}"),
            Source::V6([a, b, c, d]) => {
                write!(f, "{}/64", Ipv6Addr::new(*a, *b, *c, *d, 0, 0, 0, 0))
            }
        }
    }
}

/// All connections.
pub(super) struct Guests {
    most: usize,
    most_of_one: usize,
    table: Mutex<Table>,
    said: Mutex<Throttled>,
    refused: AtomicU64,
    cut_off: AtomicU64,
}

#[derive(Default)]
struct Table {
    /// Counts arrivals and returns to silence, so that the order of these is known.
    next: u64,
    guests: HashMap<u64, Guest>,
    of: HashMap<Source, usize>,
}

struct Guest {
    source: Source,
    /// Whether it waits for an answer, or reads one.
    busy: bool,
    /// Whether it has ever asked, and since when it has not. Strangers who never asked go first.
    silent: (bool, u64),
    leave: CancellationToken,
}

impl Table {
    fn of(&self, source: Source) -> usize {
        self.of.get(&source).copied().unwrap_or(0)
    }

    fn remove(&mut self, id: u64) -> Option<Guest> {
        let guest = self.guests.remove(&id)?;
        if let Some(count) = self.of.get_mut(&guest.source) {
            *count -= 1;
            if *count == 0 {
                self.of.remove(&guest.source);
            }
        }
        Some(guest)
    }

    /// Ends the one that has been silent the longest; false if there is none.
    fn cut_off_silent(&mut self, of: Option<Source>) -> bool {
        let silent = self.guests.iter().filter(|(_, guest)| !guest.busy);
        // The machine's own users are not counted among all, and do not make room for them.
        let silent = silent.filter(|(_, guest)| {
            of.map_or(guest.source != Source::Local, |source| guest.source == source)
        });
        let longest = silent.min_by_key(|(_, guest)| guest.silent).map(|(id, _)| *id);
        longest.and_then(|id| self.remove(id)).is_some_and(|guest| {
            guest.leave.cancel();
            true
        })
    }
}

impl Guests {
    pub(super) fn new(limits: &Limits) -> Arc<Guests> {
        Arc::new(Guests {
            most: limits.connections,
            most_of_one: limits.connections_of_one,
            table: Mutex::default(),
            said: Mutex::default(),
            refused: AtomicU64::new(0),
            cut_off: AtomicU64::new(0),
        })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a connection in, or says why not.
    pub(super) fn admit(self: &Arc<Guests>, source: Source) -> Result<Arc<Ticket>, String> {
        let mut table = self.table();
        let (full, of) = if table.of(source) >= self.most_of_one {
            (
                Some(format!("{source} has {} connections to the API", self.most_of_one)),
                Some(source),
            )
        } else if source != Source::Local
            && table.guests.len() - table.of(Source::Local) >= self.most
        {
            // The machine's own users get in whoever else is there: somebody must be able to look.
            (Some(format!("the API has {} connections", self.most)), None)
        } else {
            (None, None)
        };
        if let Some(full) = full {
            if !table.cut_off_silent(of) {
                self.refused.fetch_add(1, Relaxed);
                drop(table);
                self.say(&format!("{full}, the most that it may; more of them are refused"));
                return Err(full);
            }
            self.cut_off.fetch_add(1, Relaxed);
            self.say(&format!(
                "{full}, the most that it may; the one that is silent the longest makes room"
            ));
        }
        let id = table.next;
        table.next += 1;
        let leave = CancellationToken::new();
        let guest = Guest { source, busy: false, silent: (false, id), leave: leave.clone() };
        table.guests.insert(id, guest);
        *table.of.entry(source).or_default() += 1;
        Ok(Arc::new(Ticket { guests: self.clone(), id, source, leave }))
    }

    fn say(&self, words: &str) {
        if let Some(words) = self.said.lock().unwrap_or_else(PoisonError::into_inner).fresh(words) {
            warn!("{words}");
        }
    }

    /// What they came to, in Prometheus' text form.
    pub(super) fn metrics(&self) -> String {
        let (now, refused, cut_off) =
            (self.table().guests.len(), self.refused.load(Relaxed), self.cut_off.load(Relaxed));
        format!(
            "# HELP fleet_api_connections Connections to the API now.\n\
             # TYPE fleet_api_connections gauge\n\
             fleet_api_connections {now}\n\
             # HELP fleet_api_connections_refused_total Connections that were refused, since \
             there were too many.\n\
             # TYPE fleet_api_connections_refused_total counter\n\
             fleet_api_connections_refused_total {refused}\n\
             # HELP fleet_api_connections_cut_off_total Silent connections that made room for new \
             ones.\n\
             # TYPE fleet_api_connections_cut_off_total counter\n\
             fleet_api_connections_cut_off_total {cut_off}\n"
        )
    }
}

/// One connection's place. It is free again when this is dropped.
pub(super) struct Ticket {
    guests: Arc<Guests>,
    id: u64,
    source: Source,
    leave: CancellationToken,
}

impl Ticket {
    /// Where the connection comes from.
    pub(super) fn source(&self) -> Source {
        self.source
    }

    /// Until another connection needs its place.
    pub(super) async fn cut_off(&self) {
        self.leave.cancelled().await;
    }

    /// Begins an answer, unless the place has been given away.
    pub(super) fn begin(self: &Arc<Ticket>) -> Option<Busy> {
        let mut table = self.guests.table();
        table.guests.get_mut(&self.id)?.busy = true;
        Some(Busy(self.clone()))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.guests.table().remove(self.id);
    }
}

/// An answer that is under way.
pub(super) struct Busy(Arc<Ticket>);

impl Drop for Busy {
    fn drop(&mut self) {
        let mut table = self.0.guests.table();
        table.next += 1;
        let now = table.next;
        if let Some(guest) = table.guests.get_mut(&self.0.id) {
            guest.busy = false;
            guest.silent = (true, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guests(connections: usize, connections_of_one: usize) -> Arc<Guests> {
        Guests::new(&Limits { connections, connections_of_one, ..Limits::default() })
    }

    fn host(last: u8) -> Source {
        IpAddr::from([10, 0, 0, last]).into()
    }

    #[test]
    fn one_address_shuts_out_itself_and_nobody_else() {
        let guests = guests(100, 3);
        let mine: Vec<_> = (0..3).map(|_| guests.admit(host(1)).unwrap()).collect();
        let busy: Vec<_> = mine.iter().map(|ticket| ticket.begin().unwrap()).collect();
        assert_eq!(guests.admit(host(1)).err().unwrap(), "10.0.0.1 has 3 connections to the API");
        assert!(guests.admit(host(2)).is_ok() && guests.admit(Source::Local).is_ok());
        drop(busy);
        assert!(guests.admit(host(1)).is_ok());
        drop(mine);
        assert!(guests.table().guests.is_empty() && guests.table().of.is_empty());
    }

    #[test]
    fn the_one_that_is_silent_the_longest_makes_room_and_never_asked_comes_before_asked() {
        let guests = guests(3, 3);
        let asked = guests.admit(host(1)).unwrap();
        drop(asked.begin().unwrap());
        let answered = guests.admit(host(2)).unwrap();
        let _answer = answered.begin().unwrap();
        let stranger = guests.admit(host(3)).unwrap();
        let later = guests.admit(host(4)).unwrap();
        assert!(stranger.leave.is_cancelled() && stranger.begin().is_none());
        drop(later);
        let kept: Vec<_> = (5..7).map(|last| guests.admit(host(last)).unwrap()).collect();
        assert!(!asked.leave.is_cancelled() && kept[0].leave.is_cancelled(), "strangers first");
        let _busy = kept[1].begin().unwrap();
        let last = guests.admit(host(8)).unwrap();
        assert!(asked.leave.is_cancelled(), "then the one that asked and is silent now");
        let _last = last.begin().unwrap();
        assert_eq!(guests.admit(host(9)).err().unwrap(), "the API has 3 connections");
        assert!(!answered.leave.is_cancelled(), "one that waits for its answer stays");
        let metrics = guests.metrics();
        assert!(
            metrics.contains("refused_total 1\n") && metrics.contains("cut_off_total 3\n"),
            "{metrics}"
        );
    }

    #[test]
    fn addresses_of_one_host_are_one_source() {
        let source = |text: &str| Source::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(source("::ffff:10.0.0.1"), host(1));
        assert_eq!(source("2001:db8::1"), source("2001:db8::ffff:1"));
        assert_ne!(source("2001:db8::1"), source("2001:db8:0:1::1"));
        assert_eq!(source("2001:db8::1").to_string(), "2001:db8::/64");
    }
}
