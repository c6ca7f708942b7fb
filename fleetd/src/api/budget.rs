//! A number of places, shared by all who ask. Nobody may hold more of them than are left for
//! others, so that one client, however much it wants, never keeps the next one out.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;
use tokio::sync::Notify;
use tokio::time::timeout;
use tracing::warn;

use super::error::ApiError;
use super::guests::Source;
use crate::process::repeated::Throttled;

/// Places, or bytes.
///
/// A source that holds none gets what it asks for if there is room. One that holds some gets more
/// as long as it then holds no more than what is left: alone it takes half, the next one a half of
/// the rest, and so on. The machine's own users have as many places for themselves, so that
/// somebody can look whoever else is there.
pub(super) struct Budget {
    /// As metrics call it.
    name: &'static str,
    /// What there are so many of, as in "all 512 places for *what* are taken".
    what: &'static str,
    most: usize,
    taken: Mutex<Taken>,
    freed: Notify,
    refused: AtomicU64,
    said: Mutex<Throttled>,
}

#[derive(Default)]
struct Taken {
    /// By all but the machine's own users.
    network: usize,
    of: HashMap<Source, usize>,
}

impl Taken {
    fn of(&self, source: Source) -> usize {
        self.of.get(&source).copied().unwrap_or(0)
    }
}

impl Budget {
    pub(super) fn new(name: &'static str, what: &'static str, most: usize) -> Arc<Budget> {
        Arc::new(Budget {
            name,
            what,
            most,
            taken: Mutex::default(),
            freed: Notify::new(),
            refused: AtomicU64::new(0),
            said: Mutex::default(),
        })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So many places for this source, at once or not at all.
    pub(super) fn take(
        self: &Arc<Budget>,
        source: Source,
        places: usize,
    ) -> Result<Share, Refusal> {
        self.try_take(source, places).map_err(|refusal| self.refuse(refusal))
    }

    /// The same; waits for them so long.
    pub(super) async fn wait(
        self: &Arc<Budget>,
        source: Source,
        places: usize,
        patience: Duration,
    ) -> Result<Share, Refusal> {
        let waiting = async {
            loop {
                let mut freed = std::pin::pin!(self.freed.notified());
                // Before the look, so that what is given back in between is noticed.
                freed.as_mut().enable();
                if let Ok(share) = self.try_take(source, places) {
                    return share;
                }
                freed.await;
            }
        };
        match timeout(patience, waiting).await {
            Ok(share) => Ok(share),
            Err(_) => self.take(source, places),
        }
    }

    fn try_take(self: &Arc<Budget>, source: Source, places: usize) -> Result<Share, Refusal> {
        let mut taken = self.taken();
        let held = taken.of(source);
        let all = if source == Source::Local { held } else { taken.network };
        let left = self.most.saturating_sub(all);
        let refusal = |its_share| Refusal { source, what: self.what, most: self.most, its_share };
        if places > left {
            return Err(refusal(held > 0 && held == all));
        }
        let is_shared = source != Source::Local && held > 0;
        if is_shared && held + places > left - places {
            return Err(refusal(true));
        }
        *taken.of.entry(source).or_default() += places;
        if source != Source::Local {
            taken.network += places;
        }
        Ok(Share { budget: self.clone(), source, places })
    }

    fn refuse(&self, refusal: Refusal) -> Refusal {
        self.refused.fetch_add(1, Relaxed);
        let words = match refusal.its_share {
            true => format!("{refusal}; the API gives it no more"),
            false => format!("{refusal}; the API refuses {}", refusal.source),
        };
        if let Some(words) = self.said.lock().unwrap_or_else(PoisonError::into_inner).fresh(&words)
        {
            warn!("{words}");
        }
        refusal
    }

    /// What metrics say of it, one sample after the other.
    fn numbers(&self) -> Numbers {
        let taken = self.taken();
        Numbers {
            name: self.name,
            network: taken.network,
            local: taken.of(Source::Local),
            most: self.most,
            refused: self.refused.load(Relaxed),
        }
    }
}

struct Numbers {
    name: &'static str,
    network: usize,
    local: usize,
    most: usize,
    refused: u64,
}

/// What budgets came to, in Prometheus' text form.
pub(super) fn metrics(budgets: &[&Arc<Budget>]) -> String {
    let numbers: Vec<Numbers> = budgets.iter().map(|budget| budget.numbers()).collect();
    let mut text = String::new();
    let mut one = |name: &str, kind: &str, help: &str, samples: &dyn Fn(&Numbers) -> String| {
        text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        numbers.iter().for_each(|numbers| text.push_str(&samples(numbers)));
    };
    let name = "fleet_api_budget_used";
    one(name, "gauge", "Places (or bytes) that clients of the API hold now.", &|numbers| {
        let Numbers { name: budget, network, local, .. } = numbers;
        format!(
            "{name}{{budget=\"{budget}\",of=\"network\"}} {network}\n\
             {name}{{budget=\"{budget}\",of=\"local\"}} {local}\n"
        )
    });
    let name = "fleet_api_budget_limit";
    let help = "How many there are for all over the network, and as many for local users.";
    one(name, "gauge", help, &|numbers| {
        format!("{name}{{budget=\"{}\"}} {}\n", numbers.name, numbers.most)
    });
    let name = "fleet_api_budget_refused_total";
    one(name, "counter", "Requests that were refused for want of them.", &|numbers| {
        format!("{name}{{budget=\"{}\"}} {}\n", numbers.name, numbers.refused)
    });
    text
}

/// Places that somebody holds. They are free again when this is dropped.
pub(super) struct Share {
    budget: Arc<Budget>,
    source: Source,
    places: usize,
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.budget.taken();
        if self.source != Source::Local {
            taken.network -= self.places;
        }
        if let Some(held) = taken.of.get_mut(&self.source) {
            *held -= self.places;
            if *held == 0 {
                taken.of.remove(&self.source);
            }
        }
        drop(taken);
        self.budget.freed.notify_waiters();
    }
}

/// Why somebody gets no place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    source: Source,
    what: &'static str,
    most: usize,
    /// Whether there is room for others.
    its_share: bool,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Refusal { source, what, most, its_share } = self;
        match its_share {
            true => write!(f, "{source} holds its share of the {most} {what}"),
            false => write!(f, "all {most} {what} are taken"),
        }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> ApiError {
        let next = "try again, or ask another machine";
        ApiError::new(StatusCode::TOO_MANY_REQUESTS, format!("{refusal}; {next}"))
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn host(last: u8) -> Source {
        IpAddr::from([10, 0, 0, last]).into()
    }

    fn take_all(budget: &Arc<Budget>, source: Source) -> Vec<Share> {
        std::iter::from_fn(|| budget.take(source, 1).ok()).collect()
    }

    #[test]
    fn nobody_holds_more_than_what_is_left_so_the_next_one_always_gets_in() {
        let budget = Budget::new("followers", "places for followers", 512);
        let greedy = take_all(&budget, host(1));
        assert_eq!(greedy.len(), 256);
        let why = budget.take(host(1), 1).err().unwrap().to_string();
        assert_eq!(why, "10.0.0.1 holds its share of the 512 places for followers");
        let second = take_all(&budget, host(2));
        assert_eq!(second.len(), 128);
        assert_eq!(take_all(&budget, host(3)).len(), 64, "they are free again at once");
        drop(greedy);
        assert_eq!(take_all(&budget, host(3)).len(), 192);
    }

    #[test]
    fn the_machine_s_own_users_have_places_of_their_own_all_of_which_they_may_take() {
        let budget = Budget::new("journals", "places for journals", 4);
        let _network: Vec<_> = (1..5).map(|last| take_all(&budget, host(last))).collect();
        let full = budget.take(host(9), 1).err().unwrap().to_string();
        assert_eq!(full, "all 4 places for journals are taken");
        let own = take_all(&budget, Source::Local);
        assert_eq!(own.len(), 4);
        let text = metrics(&[&budget]);
        for line in [
            "fleet_api_budget_used{budget=\"journals\",of=\"network\"} 4\n",
            "fleet_api_budget_used{budget=\"journals\",of=\"local\"} 4\n",
            "fleet_api_budget_limit{budget=\"journals\"} 4\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
        assert!(text.contains("refused_total{budget=\"journals\"} 6\n"), "{text}");
    }

    #[test]
    fn one_place_is_enough_for_one_and_bytes_are_shared_alike() {
        let one = Budget::new("one", "places", 1);
        let place = one.take(host(1), 1).unwrap();
        assert!(one.take(host(2), 1).is_err());
        drop(place);
        assert!(one.take(host(2), 1).is_ok());
        let bytes = Budget::new("bytes", "bytes", 128);
        let largest = bytes.take(host(1), 64).unwrap();
        assert!(bytes.take(host(1), 1).is_err());
        assert!(bytes.take(host(2), 64).is_ok());
        drop(largest);
        assert!(bytes.taken().of.is_empty() && bytes.taken().network == 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_gets_the_place_that_is_given_back_and_not_one_beyond_its_time() {
        let budget = Budget::new("requests", "requests", 1);
        let held = budget.take(host(1), 1).unwrap();
        let second = Duration::from_secs(1);
        assert!(budget.wait(host(2), 1, second).await.is_err());
        let (waited, ()) = tokio::join!(budget.wait(host(2), 1, second), async { drop(held) });
        assert!(waited.is_ok());
    }
}
