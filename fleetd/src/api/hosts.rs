//! Questions that each machine answers for itself: all are asked at the same time, and those that
//! do not answer are named.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use fleet_core::name::MachineId;
use fleet_core::view::Cluster;
use fleet_core::wire::Unasked;
use futures_util::future::join_all;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use super::Api;
use super::error::ApiError;
use super::remote;
use crate::process::{clock, panics};

/// How many machines are asked at the same time.
const AT_ONCE: usize = 32;

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question<'a> {
    /// The resource.
    pub(super) path: &'a [&'a str],
    /// What follows the `?`.
    pub(super) query: &'a [(&'a str, &'a str)],
    /// How long a machine has to answer.
    pub(super) limit: Duration,
}

/// Asks those of these machines that are there, and this one by `here`. Answers with what came, and
/// with those that did not answer.
pub(super) async fn ask<T: DeserializeOwned>(
    api: &Api,
    cluster: &Cluster,
    machines: &BTreeSet<&MachineId>,
    question: Question<'_>,
    here: impl Future<Output = Result<T, ApiError>>,
) -> (Vec<T>, Vec<Unasked>) {
    let own = &api.shared.machine;
    let turns = Semaphore::new(AT_ONCE);
    let others: Vec<&MachineId> = machines.iter().copied().filter(|id| *id != own).collect();
    let others = others.into_iter().map(|id| {
        let there = cluster.snapshot.machines.get(id).map(|machine| machine.api.as_deref());
        let turns = &turns;
        async move {
            let _turn = turns.acquire().await;
            (id.clone(), ask_one(api, id, there, question).await)
        }
    });
    let others = join_all(others);
    let here = async {
        match machines.contains(own) {
            true => Some(here.await.map_err(|error| error.message().to_string())),
            false => None,
        }
    };
    let (others, here) = tokio::join!(others, here);
    let (mut came, mut unknown) = (Vec::new(), Vec::new());
    let here = here.map(|answer| (own.clone(), answer));
    for (machine, answer) in others.into_iter().chain(here) {
        match answer {
            Ok(answer) => came.push(answer),
            Err(problem) => {
                unknown.push(Unasked { machine_id: machine.to_string(), problem });
            }
        }
    }
    (came, unknown)
}

/// `there` is where its API is, if the machine is there.
async fn ask_one<T: DeserializeOwned>(
    api: &Api,
    machine: &MachineId,
    there: Option<Option<&str>>,
    question: Question<'_>,
) -> Result<T, String> {
    let base = match there {
        Some(Some(base)) => base,
        Some(None) => {
            return Err(
                "its API cannot be reached from here; set listen in its configuration".to_string()
            );
        }
        None => return Err("it is not there".to_string()),
    };
    let Question { path, query, limit } = question;
    let answer = remote::ask_within(api, Method::GET, limit, machine, base, path, query).await;
    let answer = answer.map_err(|error| error.message().to_string())?;
    remote::document(api, machine, answer).await.map_err(|error| error.message().to_string())
}

/// Does a part of an answer that has systemd run a program, in a task of its own. A client that
/// goes away does not end the program, so what counts such programs must go on, too.
pub(super) async fn to_the_end<T: Send + 'static>(
    part: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Result<T, ApiError> {
    let broke_off = |problem: String| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, problem);
    let done = panics::spawn_contained(part).await;
    done.unwrap_or_else(|ended| Err(ended.to_string())).map_err(broke_off)?
}

/// All machines that are there, and those that were lately or may come back.
pub(super) fn all(cluster: &Cluster) -> BTreeSet<MachineId> {
    let snapshot = &cluster.snapshot;
    let lost = cluster.lost(clock::now_ms()).into_iter().map(|lost| MachineId::new(lost.id));
    snapshot.machines.keys().chain(snapshot.assignments.keys()).cloned().chain(lost).collect()
}
