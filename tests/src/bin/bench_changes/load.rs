//! The client: asks all instances that answer in turn, and counts. It ends with its standard input.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::changes::PORTS;

/// Between two requests: 200 a second.
const BETWEEN: Duration = Duration::from_millis(5);

/// Between two looks at which instances answer.
const LOOK: Duration = Duration::from_millis(100);

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// How many instances a request tries that refuse the connection.
const TRIES: usize = 3;

/// What the client counted.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(crate) struct Counted {
    pub(crate) sent: u64,
    /// By what went wrong.
    pub(crate) failed: BTreeMap<String, u64>,
    /// The fewest instances that answered well at one look, and the most.
    pub(crate) fewest: usize,
    pub(crate) most: usize,
}

/// Where the instances may be: each host, each port.
type Place = (String, u16);

#[derive(Default)]
struct State {
    counted: Counted,
    answering: Vec<Place>,
    next: usize,
}

type Shared = Arc<Mutex<State>>;

fn with<T>(shared: &Shared, look: impl FnOnce(&mut State) -> T) -> T {
    look(&mut shared.lock().unwrap_or_else(PoisonError::into_inner))
}

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn run(addresses: &[&str]) -> Result<()> {
    let places: Vec<Place> = addresses
        .iter()
        .flat_map(|address| PORTS.map(|port| ((*address).to_owned(), port)))
        .collect();
    let client = fleet_tests::http().pool_max_idle_per_host(0).timeout(PATIENCE).build()?;
    let shared = Shared::default();
    look(&client, &places, &shared).await;
    with(&shared, |state| state.counted.fewest = state.answering.len());
    tokio::spawn(keep_looking(client.clone(), places, shared.clone()));
    let asking = tokio::spawn(keep_asking(client, shared.clone()));
    let ended = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    ended.await?.context("the standard input")?;
    asking.abort();
    sleep_until(Instant::now() + PATIENCE).await; // the last answers
    println!("{}", serde_json::to_string(&with(&shared, |state| state.counted.clone()))?);
    Ok(())
}

async fn keep_looking(client: reqwest::Client, places: Vec<Place>, shared: Shared) {
    let mut tick = interval(LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        look(&client, &places, &shared).await;
    }
}

/// Finds out which instances answer well.
async fn look(client: &reqwest::Client, places: &[Place], shared: &Shared) {
    let asked = places.iter().map(|place| async move {
        let answered = client.get(url(place)).send().await;
        answered.is_ok_and(|answer| answer.status().is_success()).then(|| place.clone())
    });
    let answering: Vec<Place> = join_all(asked).await.into_iter().flatten().collect();
    let instances = answering.iter().map(|(_, port)| port).collect::<BTreeSet<_>>().len();
    with(shared, |state| {
        state.counted.fewest = state.counted.fewest.min(instances);
        state.counted.most = state.counted.most.max(instances);
        state.answering = answering;
    });
}

async fn keep_asking(client: reqwest::Client, shared: Shared) {
    let mut tick = interval(BETWEEN);
    loop {
        tick.tick().await;
        tokio::spawn(ask(client.clone(), shared.clone()));
    }
}

/// One request, to the next instance in turn.
async fn ask(client: reqwest::Client, shared: Shared) {
    let mut problem = None;
    for _ in 0..TRIES {
        let place = with(&shared, |state| {
            state.next = state.next.wrapping_add(1);
            let count = state.answering.len();
            (count > 0).then(|| state.answering[state.next % count].clone())
        });
        let Some(place) = place else {
            problem = Some("no instance answers".to_owned());
            break;
        };
        match client.get(url(&place)).send().await {
            Ok(answer) if answer.status().is_success() => {
                problem = None;
                break;
            }
            Ok(answer) => {
                problem = Some(format!("status {}", answer.status().as_u16()));
                break;
            }
            Err(error) if error.is_connect() => {
                problem = Some("refused".to_owned());
                with(&shared, |state| state.answering.retain(|known| *known != place));
            }
            Err(error) => {
                problem = Some(if error.is_timeout() { "too late" } else { "broken" }.to_owned());
                break;
            }
        }
    }
    with(&shared, |state| {
        state.counted.sent += 1;
        if let Some(problem) = problem {
            *state.counted.failed.entry(problem).or_default() += 1;
        }
    });
}

fn url((address, port): &Place) -> String {
    format!("http://{address}:{port}/")
}
