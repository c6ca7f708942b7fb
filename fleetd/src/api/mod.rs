//! The HTTP API: fleet 1.0's v1 resources and our additions, on a unix socket and, if configured,
//! TCP.
//!
//! **Architecture invariant:** HTTP to store and back. A list is one range at one revision. Whoever
//! follows something, or asks for one unit again and again, reads the live copy (`copy.rs`), which
//! ends a minute after its last reader. Nothing is planned here: what is said of the leader's plans
//! is the leader's word, which stands in the store (`fleet_core::outlook`).

use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use fleet_core::name::{MachineId, UnitName};
use fleet_core::transfer::MAX_IMPORT_BYTES;
use fleet_core::wire;
use fleet_tls::{Files, TlsError};
use tokio::sync::watch;

use crate::copy::{Copies, Reader};
use crate::leader::replays::Replays;
use crate::machine::session::Standing;
use crate::machine::volumes::Volumes;
use crate::process::panics;
use crate::store::{Mirror, Store};
use crate::systemd::quadlet::Generator;

mod apps;
mod availability;
mod body;
mod budget;
mod config;
mod debug;
mod describe;
mod discovery;
mod documents;
mod door;
mod error;
mod events;
mod failures;
mod fencing;
mod fleet1;
mod fleetlock;
mod follow;
mod guests;
mod history;
mod hosts;
mod image_check;
mod import;
mod journal;
mod limits;
mod listen;
mod machines;
mod moves;
mod needs;
mod openapi;
mod page;
mod patience;
mod process;
mod query;
mod reboot_locks;
mod reboots;
mod remote;
mod retry;
mod revisions;
mod rollouts;
mod routes;
mod serve;
mod settings;
mod state;
mod status;
mod submission;
mod tls;
mod turns;
mod units;
mod volumes;
mod who;

pub use limits::Limits;
pub use listen::{Listeners, listen};
pub use serve::serve;
pub use tls::{ServerTls, server_tls};
pub use who::Who;

use error::ApiError;

/// What every request handler has.
#[derive(Clone)]
pub struct Api {
    shared: Arc<Shared>,
    /// What this machine planned last, if it leads.
    replays: Arc<Replays>,
}

struct Shared {
    store: Store,
    machine: MachineId,
    peers: remote::Peers,
    /// Whether the units are a user's.
    user: bool,
    /// Where the guard of this machine's fenced units says how it stands.
    guard_dir: Option<PathBuf>,
    /// Whether this machine's id is its own.
    standing: Option<watch::Receiver<Standing>>,
    metrics: Box<dyn Fn() -> String + Send + Sync>,
    /// How much its clients may take, and what they have taken.
    limits: Limits,
    guests: Arc<guests::Guests>,
    budgets: limits::Budgets,
    /// The live copy that all who follow anything share.
    copies: Copies,
    /// What this machine may be asked for as, over plain HTTP.
    names: Arc<door::Names>,
    /// podman's generator, which says what is wrong with Quadlet files.
    generator: Option<Generator>,
    /// podman's volumes that this machine's agent made.
    volumes: Arc<Volumes>,
    /// Restarts of fleet 1.0's client.
    restarts: fleet1::Restarts,
    /// Held while old texts are removed.
    tidying: tokio::sync::Mutex<()>,
    /// Held while a volume of podman's is removed.
    removing: tokio::sync::Mutex<()>,
}

impl Api {
    /// An API over `store`, on this machine. `metrics` gives the text of `/metrics`.
    pub fn new(
        store: Store,
        machine: MachineId,
        metrics: impl Fn() -> String + Send + Sync + 'static,
    ) -> Api {
        let limits = Limits::default();
        let shared = Shared {
            copies: Copies::new(store.clone()),
            store,
            machine,
            peers: remote::Peers::new(),
            user: false,
            guard_dir: None,
            metrics: Box::new(metrics),
            guests: guests::Guests::new(&limits),
            budgets: limits::Budgets::new(&limits),
            limits,
            names: Arc::default(),
            volumes: Arc::default(),
            restarts: fleet1::Restarts::default(),
            tidying: tokio::sync::Mutex::default(),
            removing: tokio::sync::Mutex::default(),
            standing: None,
            generator: None,
        };
        Api { shared: Arc::new(shared), replays: Arc::default() }
    }

    /// With the snapshots that this machine's engine plans.
    pub fn with_replays(self, replays: Arc<Replays>) -> Api {
        Api { replays, ..self }
    }

    /// With the folder where the guard of this machine's fenced units says how it stands. Before it
    /// is cloned.
    #[must_use]
    pub fn with_keeper(mut self, folder: PathBuf) -> Api {
        if let Some(shared) = Arc::get_mut(&mut self.shared) {
            shared.guard_dir = Some(folder);
        }
        self
    }

    /// With podman's generator, which is asked about Quadlet files. Before it is cloned.
    #[must_use]
    pub fn with_generator(mut self, generator: Generator) -> Api {
        if let Some(shared) = Arc::get_mut(&mut self.shared) {
            shared.generator = Some(generator);
        }
        self
    }

    /// With the volumes that this machine's agent notes. Before it is cloned.
    #[must_use]
    pub fn with_volumes(mut self, volumes: Arc<Volumes>) -> Api {
        if let Some(shared) = Arc::get_mut(&mut self.shared) {
            shared.volumes = volumes;
        }
        self
    }

    /// With other limits. Before it is cloned.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Api {
        if let Some(shared) = Arc::get_mut(&mut self.shared) {
            shared.guests = guests::Guests::new(&limits);
            shared.budgets = limits::Budgets::new(&limits);
            shared.limits = limits;
        }
        self
    }

    /// May be asked for by these names over plain HTTP from now on, besides this machine's own.
    pub fn set_names(&self, names: &[String]) {
        self.shared.names.configure(names);
    }

    /// Answers nobody while another fleetd has this machine's id. Before it is cloned.
    #[must_use]
    pub fn with_standing(mut self, standing: watch::Receiver<Standing>) -> Api {
        if let Some(shared) = Arc::get_mut(&mut self.shared) {
            shared.standing = Some(standing);
        }
        self
    }

    /// For a user's own systemd. Before it is cloned.
    #[must_use]
    pub fn of_user(mut self) -> Api {
        if let Some(shared) = Arc::get_mut(&mut self.shared) {
            shared.user = true;
        }
        self
    }

    /// Talks to other machines with these certificates from now on.
    pub fn set_tls(&self, files: Files) -> Result<(), TlsError> {
        self.shared.peers.change(files)
    }

    fn store(&self) -> &Store {
        &self.shared.store
    }

    /// The live copy as it is: at most a moment behind the store. To say that there is no such
    /// thing takes [`Api::newest`].
    async fn copy(&self) -> Result<(Reader, Arc<Mirror>), ApiError> {
        let mut reader = self.shared.copies.reader();
        let mirror = reader.now().await?;
        Ok((reader, mirror))
    }

    /// The live copy as soon as it shows these units as they stand in the store now.
    async fn newest(&self, units: &[UnitName]) -> Result<(Reader, Arc<Mirror>), ApiError> {
        let standing = self.store().standing_of(units).await?;
        let mut reader = self.shared.copies.reader();
        let mirror = reader.when(|mirror| standing.is_in(mirror)).await?;
        Ok((reader, mirror))
    }
}

/// All routes, under both of fleet 1.0's prefixes.
pub fn router(api: Api) -> Router {
    let mut resources = Router::new();
    for resource in routes::under_prefix() {
        resources = resources.route(resource.path, resource.into_methods());
    }
    let resources = resources
        .layer(from_fn_with_state(api.clone(), turns::wait))
        .layer(from_fn_with_state(api.clone(), answer_by_an_id_of_ones_own));
    let nothing = || async { ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "") };
    let mut all = Router::new()
        .nest("/fleet/v1", resources.clone())
        .nest("/v1-alpha", resources)
        .route("/", axum::routing::any(nothing))
        .route("/fleet/v1", axum::routing::any(nothing))
        .route("/v1-alpha", axum::routing::any(nothing));
    let mut at_root = Router::new();
    for resource in routes::fleetlock() {
        at_root = at_root.route(resource.path, resource.into_methods());
    }
    let at_root = at_root
        .layer(from_fn_with_state(api.clone(), turns::wait))
        .layer(from_fn_with_state(api.clone(), answer_by_an_id_of_ones_own));
    for resource in process::at_root() {
        all = all.route(resource.path, resource.into_methods());
    }
    let all = all.merge(at_root);
    all.fallback(|| async { ApiError::new(StatusCode::NOT_FOUND, "") })
        .layer(DefaultBodyLimit::max(wire::MAX_BODY_BYTES))
        .layer(from_fn_with_state(api.clone(), body::take_in))
        .layer(from_fn(door::keep))
        .layer(from_fn(outlive_panics))
        .layer(from_fn(in_our_words))
        .layer(from_fn(name_the_server))
        .with_state(api)
}

/// A panic while one request is answered ends that answer, not fleetd: whoever may ask could else
/// keep it from its work.
async fn outlive_panics(request: Request, next: Next) -> Response {
    let asked = format!("{} {}", request.method(), request.uri().path());
    panics::contained(next.run(request)).await.unwrap_or_else(|message| {
        tracing::error!(
            "the answer to {asked} ended in a panic: {message}. That is a bug of fleetd"
        );
        ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "fleetd has a bug here; its journal says where",
        )
        .into_response()
    })
}

/// Another fleetd has this machine's id: who asked this one would take its answer for that
/// machine's. fleet 1.0 answered so, too.
async fn answer_by_an_id_of_ones_own(
    State(api): State<Api>,
    request: Request,
    next: Next,
) -> Response {
    let standing = api.shared.standing.as_ref().map(|standing| *standing.borrow());
    if !standing.is_some_and(Standing::is_refused) {
        return next.run(request).await;
    }
    let why = format!(
        "another fleetd has this machine's id {}, so this one was refused; `journalctl -u fleetd` \
            here says what to do",
        api.shared.machine
    );
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, error::UNAVAILABLE).because(why).into_response()
}

/// axum's own refusals (a body over the limit, a name that is no UTF-8) get the form of all others.
async fn in_our_words(request: Request, next: Next) -> Response {
    let is_import = body::is_import(request.uri().path());
    let response = next.run(request).await;
    let status = response.status();
    let is_ours =
        response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
    if is_ours || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    if status == StatusCode::PAYLOAD_TOO_LARGE {
        let message = match is_import {
            true => format!(
                "the import is larger than {} bytes (64 MiB); import its units in several parts",
                MAX_IMPORT_BYTES
            ),
            false => format!(
                "the request is larger than {} bytes (a unit file may have 1 MiB)",
                wire::MAX_BODY_BYTES
            ),
        };
        return ApiError::new(status, message).into_response();
    }
    // Cut off, since it is a sentence and not a document.
    let text = axum::body::to_bytes(response.into_body(), 4096).await.unwrap_or_default();
    ApiError::new(status, String::from_utf8_lossy(&text)).into_response()
}

async fn name_the_server(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.headers_mut().insert(
        header::SERVER,
        HeaderValue::from_static(concat!("fleetd/", env!("CARGO_PKG_VERSION"))),
    );
    response
}

/// An empty answer that names the revision of a write, so that a client can follow from there.
fn written(status: StatusCode, revision: i64, warnings: &[String]) -> Response {
    let mut response = status.into_response();
    note_written(response.headers_mut(), revision, warnings);
    response
}

/// What the headers of a write's answer say: its revision, and what the user should know.
fn note_written(headers: &mut HeaderMap, revision: i64, warnings: &[String]) {
    headers.insert(wire::REVISION_HEADER, HeaderValue::from(revision));
    for warning in warnings {
        // A header takes ASCII alone; a warning may quote what a unit file says.
        let shown: String = warning
            .chars()
            .flat_map(
                |c| if (' '..='~').contains(&c) { vec![c] } else { c.escape_default().collect() },
            )
            .collect();
        if let Ok(value) = HeaderValue::from_str(&shown) {
            headers.append(wire::WARNING_HEADER, value);
        }
    }
}
