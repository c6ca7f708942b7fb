//! fleetd's HTTP API: one method a resource, over a unix socket or TCP, endpoints tried in turn.

mod failure;
mod hints;

use std::cell::Cell;
use std::time::{Duration, Instant};

use fleet_core::app::{AppName, Checksum};
use fleet_core::check::StoreCheck;
use fleet_core::model::RolloutAction;
use fleet_core::name::UnitName;
use fleet_core::transfer::{Export, Imported};
use fleet_core::wire::{
    App, AppFiles, AppPage, AppPlan, AppRemoved, AvailabilityWish, Config, ConfigChange,
    ConfigHistory, ConfigPage, ConfigPatch, ConfigRollback, ConfigSummary, EXIT_STATUS_HEADER,
    ErrorBody, ErrorDetail, EventPage, FailurePage, Fencing, FencingPage, LostMachine, Machine,
    MachineAvailability, MachinePage, Missing, MoveState, MoveWish, PROBLEM_HEADER, RebootWish,
    RebootsPatch, RebootsState, Restart, Revision, RevisionPage, Rollback, RolledBack, RolloutPage,
    RolloutStatus, RolloutWanted, Scale, Scaled, Unit, UnitPage, UnitState, UnitStatePage, Version,
    WARNING_HEADER,
};
use fleet_core::wire::{ImageCheckPage, VolumePage};
use fleet_tls::Files;
use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use self::failure::{ClientError, innermost};
use crate::app_plan::PlannedOn;
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::names::Argument;
use crate::options::Globals;
use crate::output::{note, warn};
use crate::ssh::SshArgs;
use crate::tunnel::Tunnel;

/// How long to wait for a connection, for the first byte of an answer, and between two pieces of a
/// body that must end. Longer than any healthy server needs, short enough that a user learns of a
/// dead one.
const SILENCE: Duration = Duration::from_secs(10);

/// How many probes of a silent connection may be lost before it counts as broken.
const PROBES: u32 = 2;

/// How much longer a connection and the answer together may take, so that a connection that takes
/// too long is told apart.
const LONGER: Duration = Duration::from_secs(1);

/// How long an import may take that is being done: 20,000 units are staged in some seconds, and a
/// busy store may need some minutes. Whoever stops waiting does not know what became of it.
const IMPORT: Duration = Duration::from_secs(600);

/// How long a question may take that fleetd has podman answer, on this or another machine: what a
/// dry run of an apply makes of Quadlet files, sizes of volumes, digests in registries.
const PLAN: Duration = Duration::from_secs(60);

/// How many items to ask for at once; servers that do not know the wish send pages of 100.
const PAGE_SIZE: &str = "10000";

/// The wish for a list without what costs the server most; servers that do not know it send
/// everything.
const BRIEF: (&str, &str) = ("brief", "true");

/// What a write answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Written {
    /// What the user should know of it.
    pub(crate) warnings: Vec<String>,
}

/// A fleetd, or several of one cluster.
#[derive(Debug)]
pub(crate) struct Client {
    targets: Vec<(Endpoint, reqwest::Client)>,
    /// Which one answered last; the next request starts with it.
    current: Cell<usize>,
    /// Which one has answered at all.
    heard: Cell<Option<usize>>,
    /// What the targets' sockets lead through.
    tunnel: Option<Tunnel>,
    /// What https shows and trusts.
    tls: Files,
    debug: bool,
}

impl Client {
    /// Reads `--endpoint` and opens the tunnel, if there is to be one; nothing is sent yet.
    pub(crate) async fn connect(globals: &Globals, ssh: &SshArgs) -> Result<Client, Error> {
        let endpoints = globals.endpoints()?;
        let tls = globals.tls();
        if !tls.is_empty() && !endpoints.iter().any(Endpoint::is_tls) {
            warn("no endpoint is https://, so --ca-file, --cert-file and --key-file are not used");
        }
        let tunnel = match ssh.tunnel_host()? {
            Some(host) => Some(Tunnel::open(ssh, &host, &endpoints).await?),
            None => None,
        };
        let mut targets = Vec::new();
        for (i, endpoint) in endpoints.into_iter().enumerate() {
            // Proxies of the environment are for the world outside, not for the cluster.
            let files =
                if endpoint.is_tls() { fleet_tls::client(&tls) } else { Ok(fleet_tls::plain()) };
            let config = files.map_err(|problem| Error::failed(problem.to_string()))?;
            let mut builder = reqwest::Client::builder()
                .tls_backend_preconfigured(config)
                .no_proxy()
                // fleetd sends none, and one could name what only this machine reaches.
                .redirect(reqwest::redirect::Policy::none())
                .connect_timeout(SILENCE)
                .tcp_keepalive(SILENCE)
                .tcp_keepalive_interval(SILENCE / 2)
                .tcp_keepalive_retries(PROBES)
                .user_agent(concat!("fleetctl/", env!("CARGO_PKG_VERSION")));
            match (&tunnel, &endpoint) {
                (Some(tunnel), _) => builder = builder.unix_socket(tunnel.socket(i)),
                (None, Endpoint::Unix(path)) => builder = builder.unix_socket(path.clone()),
                (None, Endpoint::Http(_)) => {}
            }
            let http = builder.build().map_err(|problem| {
                Error::failed(format!("Unable to initialize client: {problem}"))
            })?;
            targets.push((endpoint, http));
        }
        Ok(Client {
            targets,
            current: Cell::new(0),
            heard: Cell::new(None),
            tunnel,
            tls,
            debug: globals.debug,
        })
    }

    /// One unit, with its text; `None` if there is none of that name.
    pub(crate) async fn unit(&self, name: &str) -> Result<Option<Unit>, ClientError> {
        match self.get_json(&["units", name], &[]).await {
            Err(error) if error.is_not_found() => Ok(None),
            answer => answer.map(Some),
        }
    }

    /// The first unit that there is of those that an argument may mean.
    pub(crate) async fn unit_of(&self, argument: &Argument) -> Result<Option<Unit>, ClientError> {
        first_known(argument, async |name| {
            self.unit(name.as_str()).await?.ok_or_else(ClientError::not_found)
        })
        .await
        .1
        .map_or_else(
            |error| if error.is_not_found() { Ok(None) } else { Err(error) },
            |unit| Ok(Some(unit)),
        )
    }

    /// All units, by name, without their options where the server can leave them out.
    pub(crate) async fn brief_units(&self) -> Result<Vec<Unit>, ClientError> {
        self.pages("units", &[BRIEF], |page: UnitPage| (page.units, page.next_page_token)).await
    }

    /// All units, by name.
    pub(crate) async fn units(&self) -> Result<Vec<Unit>, ClientError> {
        self.pages("units", &[], |page: UnitPage| (page.units, page.next_page_token)).await
    }

    /// What systemd says on each machine, of all units or of one.
    pub(crate) async fn states(&self, unit: Option<&str>) -> Result<Vec<UnitState>, ClientError> {
        let filter: Vec<(&str, &str)> = unit.map(|name| ("unitName", name)).into_iter().collect();
        self.pages("state", &filter, |page: UnitStatePage| (page.states, page.next_page_token))
            .await
    }

    /// The same of all units, perhaps with the first digits of hashes alone.
    pub(crate) async fn brief_states(&self) -> Result<Vec<UnitState>, ClientError> {
        self.pages("state", &[BRIEF], |page: UnitStatePage| (page.states, page.next_page_token))
            .await
    }

    /// How the fenced instances of a unit stand; none if it is not fenced, or fleetd is older than
    /// that.
    pub(crate) async fn fencing(&self, name: &str) -> Result<Vec<Fencing>, ClientError> {
        match self.get_json(&["units", name, "fencing"], &[]).await {
            Ok(FencingPage { fencing }) => Ok(fencing),
            Err(ClientError::Api { code: 404, .. }) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// The last failures of a unit's instances; none if fleetd is older than that.
    pub(crate) async fn failures(&self, name: &str) -> Result<FailurePage, ClientError> {
        match self.get_json(&["units", name, "failures"], &[]).await {
            Err(ClientError::Api { code: 404, .. }) => Ok(FailurePage::default()),
            answer => answer,
        }
    }

    /// All machines, by id.
    pub(crate) async fn machines(&self) -> Result<Vec<Machine>, ClientError> {
        Ok(self.machines_and_absent().await?.0)
    }

    /// All machines, those that are missing while they are so many that moves are slowed, and those
    /// that were lost lately.
    pub(crate) async fn machines_and_absent(
        &self,
    ) -> Result<(Vec<Machine>, Option<Missing>, Vec<LostMachine>), ClientError> {
        let (mut missing, mut lost) = (None, Vec::new());
        let take = |page: MachinePage| {
            (missing, lost) = (page.missing, page.lost);
            (page.machines, page.next_page_token)
        };
        let machines = self.pages("machines", &[], take).await?;
        Ok((machines, missing, lost))
    }

    /// fleetd's version.
    pub(crate) async fn version(&self) -> Result<Version, ClientError> {
        self.get_json(&["version"], &[]).await
    }

    /// Creates a unit, replaces its file, or changes what is wanted of it.
    pub(crate) async fn put_unit(&self, unit: &Unit) -> Result<Written, ClientError> {
        let answer = self.send(Method::PUT, &["units", &unit.name], &[], Some(unit)).await?;
        Ok(written(answer.headers()))
    }

    /// Changes what is wanted of a unit: `inactive`, `loaded`, `launched`.
    pub(crate) async fn set_desired(
        &self,
        name: &str,
        state: &str,
    ) -> Result<Written, ClientError> {
        self.put_unit(&Unit {
            name: name.to_string(),
            desired_state: state.to_string(),
            ..Unit::default()
        })
        .await
    }

    /// Forgets a unit.
    pub(crate) async fn destroy(&self, name: &str) -> Result<Written, ClientError> {
        let answer = self.send::<()>(Method::DELETE, &["units", name], &[], None).await?;
        Ok(written(answer.headers()))
    }

    /// Sets or changes the count of a template.
    pub(crate) async fn scale(
        &self,
        template: &str,
        count: &Scale,
    ) -> Result<(Scaled, Written), ClientError> {
        let answer =
            self.send(Method::PUT, &["units", template, "replicas"], &[], Some(count)).await?;
        let written = written(answer.headers());
        Ok((decode(answer).await?, written))
    }

    /// Gives a unit an earlier text again.
    pub(crate) async fn rollback(
        &self,
        name: &str,
        revision: Option<u64>,
    ) -> Result<(RolledBack, Written), ClientError> {
        let wish = Rollback { revision };
        let answer =
            self.send(Method::POST, &["units", name, "rollback"], &[], Some(&wish)).await?;
        let written = written(answer.headers());
        Ok((decode(answer).await?, written))
    }

    /// The texts that a unit has had.
    pub(crate) async fn revisions(&self, name: &str) -> Result<RevisionPage, ClientError> {
        self.get_json(&["units", name, "revisions"], &[]).await
    }

    /// One text that a unit has had.
    pub(crate) async fn revision(
        &self,
        name: &str,
        revision: u64,
    ) -> Result<Revision, ClientError> {
        self.get_json(&["units", name, "revisions", &revision.to_string()], &[]).await
    }

    /// All applications, by name.
    pub(crate) async fn apps(&self) -> Result<Vec<App>, ClientError> {
        let AppPage { apps } = self.get_json(&["apps"], &[]).await?;
        Ok(apps)
    }

    /// One application; `None` if there is none of that name.
    pub(crate) async fn app(&self, name: &str) -> Result<Option<App>, ClientError> {
        match self.get_json(&["apps", name], &[]).await {
            Err(error) if error.is_not_found() => Ok(None),
            answer => answer.map(Some),
        }
    }

    /// What is in a file of an application.
    pub(crate) async fn app_file(&self, name: &str, path: &str) -> Result<Vec<u8>, ClientError> {
        let path = ["apps", name, "files", path];
        collect(self.send::<()>(Method::GET, &path, &[], None).await?).await
    }

    /// What an apply of these files would change, or with `for_good` the apply itself, all or
    /// nothing. With an earlier plan's state, only if that is still so.
    pub(crate) async fn apply(
        &self,
        name: &AppName,
        files: &AppFiles,
        prune: bool,
        planned_on: Option<&PlannedOn>,
        for_good: bool,
    ) -> Result<AppPlan, ClientError> {
        let word = |flag| if flag { "true" } else { "false" };
        let revision = planned_on.map(|on| on.revision.to_string());
        let mut query = vec![("dryRun", word(!for_good)), ("prune", word(prune))];
        query.extend(revision.as_deref().map(|revision| ("ifRevision", revision)));
        let units = planned_on.and_then(|on| on.units.as_deref());
        query.extend(units.map(|units| ("ifUnits", units)));
        let limit = if for_good { IMPORT } else { PLAN };
        let path = ["apps", name.as_str()];
        decode(self.send_within(limit, Method::POST, &path, &query, json(Some(files))).await?).await
    }

    /// Sends the content of a file that an apply will name.
    pub(crate) async fn put_blob(
        &self,
        name: &AppName,
        sum: &Checksum,
        content: &[u8],
    ) -> Result<(), ClientError> {
        let path = ["apps", name.as_str(), "blobs", sum.as_str()];
        let fill = |builder: RequestBuilder| {
            let binary = "application/octet-stream";
            builder.header(reqwest::header::CONTENT_TYPE, binary).body(content.to_vec())
        };
        self.send_within(SILENCE, Method::PUT, &path, &[], fill).await?;
        Ok(())
    }

    /// Forgets an application with all its units; what its volumes hold stays.
    pub(crate) async fn destroy_app(&self, name: &str) -> Result<AppRemoved, ClientError> {
        let path = ["apps", name];
        let fill = json::<()>(None);
        decode(self.send_within(IMPORT, Method::DELETE, &path, &[], fill).await?).await
    }

    /// The volumes that fleet made, from the machines that they are on.
    pub(crate) async fn volumes(&self) -> Result<VolumePage, ClientError> {
        let fill = json::<()>(None);
        decode(self.send_within(PLAN, Method::GET, &["volumes"], &[], fill).await?).await
    }

    /// Removes a volume and all data in it.
    pub(crate) async fn destroy_volume(
        &self,
        machine: &str,
        name: &str,
    ) -> Result<(), ClientError> {
        let path = ["machines", machine, "volumes", name];
        let fill = json::<()>(None);
        self.send_within(PLAN, Method::DELETE, &path, &[], fill).await.map(drop)
    }

    /// Which running images have another digest in their registry, of these units or of all.
    pub(crate) async fn check_images(&self, units: &[&str]) -> Result<ImageCheckPage, ClientError> {
        let query: Vec<(&str, &str)> = units.iter().map(|unit| ("unit", *unit)).collect();
        let fill = json::<()>(None);
        decode(self.send_within(PLAN, Method::GET, &["images", "check"], &query, fill).await?).await
    }

    /// Whether a machine takes instances, and what is still on it.
    pub(crate) async fn availability(
        &self,
        machine: &str,
    ) -> Result<MachineAvailability, ClientError> {
        self.get_json(&["machines", machine, "availability"], &[]).await
    }

    /// Cordons or drains a machine, or has it take instances again.
    pub(crate) async fn set_availability(
        &self,
        machine: &str,
        wish: &AvailabilityWish,
    ) -> Result<Written, ClientError> {
        let answer =
            self.send(Method::PUT, &["machines", machine, "availability"], &[], Some(wish)).await?;
        Ok(written(answer.headers()))
    }

    /// Asks for a move of one instance.
    pub(crate) async fn move_unit(
        &self,
        name: &str,
        machine_id: &str,
    ) -> Result<MoveState, ClientError> {
        let wish = MoveWish { machine_id: machine_id.to_string() };
        let answer = self.send(Method::POST, &["units", name, "move"], &[], Some(&wish)).await?;
        decode(answer).await
    }

    /// How a move that was asked for stands.
    pub(crate) async fn move_state(&self, name: &str) -> Result<MoveState, ClientError> {
        self.get_json(&["units", name, "move"], &[]).await
    }

    /// The rules of reboots, and who holds a lock.
    pub(crate) async fn reboots(&self) -> Result<RebootsState, ClientError> {
        self.get_json(&["reboots"], &[]).await
    }

    /// Changes the rules of reboots.
    pub(crate) async fn set_reboots(&self, patch: &RebootsPatch) -> Result<(), ClientError> {
        self.send(Method::PATCH, &["reboots"], &[], Some(patch)).await.map(drop)
    }

    /// Asks for leave to reboot a machine.
    pub(crate) async fn ask_for_reboot(
        &self,
        machine: &str,
        wish: &RebootWish,
    ) -> Result<(), ClientError> {
        self.send(Method::POST, &["reboots", machine], &[], Some(wish)).await.map(drop)
    }

    /// Gives a machine's reboot lock back; `if_back`: only once the machine is there again.
    pub(crate) async fn release_reboot(
        &self,
        machine: &str,
        if_back: bool,
    ) -> Result<(), ClientError> {
        let query: &[(&str, &str)] = if if_back { &[("ifBack", "true")] } else { &[] };
        self.send::<()>(Method::DELETE, &["reboots", machine], query, None).await.map(drop)
    }

    /// How far a unit's rollout is.
    pub(crate) async fn rollout(&self, name: &str) -> Result<RolloutStatus, ClientError> {
        self.get_json(&["rollouts", name], &[]).await
    }

    /// Pauses a unit's rollout, resumes or undoes it.
    pub(crate) async fn want_rollout(
        &self,
        name: &str,
        action: RolloutAction,
    ) -> Result<RolloutStatus, ClientError> {
        let wanted = RolloutWanted { action };
        let answer = self.send(Method::POST, &["rollouts", name], &[], Some(&wanted)).await?;
        decode(answer).await
    }

    /// The rollouts that are not over.
    pub(crate) async fn rollouts(&self) -> Result<Vec<RolloutStatus>, ClientError> {
        let mut all = Vec::new();
        let mut token = String::new();
        loop {
            let query = [("nextPageToken", token.as_str())];
            let query = if token.is_empty() { &[][..] } else { &query };
            let page: RolloutPage = self.get_json(&["rollouts"], query).await?;
            all.extend(page.rollouts);
            match page.next_page_token.is_empty() {
                true => return Ok(all),
                false => token = page.next_page_token,
            }
        }
    }

    /// Restarts all instances of a unit.
    pub(crate) async fn restart(&self, name: &str) -> Result<Written, ClientError> {
        let answer =
            self.send(Method::POST, &["units", name, "restart"], &[], Some(&Restart {})).await?;
        Ok(written(answer.headers()))
    }

    /// The configurations, by name.
    pub(crate) async fn configs(&self) -> Result<Vec<ConfigSummary>, ClientError> {
        self.pages("config", &[], |page: ConfigPage| (page.configs, page.next_page_token)).await
    }

    /// A configuration's values.
    pub(crate) async fn config(&self, name: &AppName) -> Result<Config, ClientError> {
        self.get_json(&["config", name.as_str()], &[]).await
    }

    /// The same as a stream that goes on, a document at each change.
    pub(crate) async fn follow_config(&self, name: &AppName) -> Result<Response, ClientError> {
        let query = [("follow", "true")];
        self.send::<()>(Method::GET, &["config", name.as_str()], &query, None).await
    }

    /// Sets and removes values in one write.
    pub(crate) async fn change_config(
        &self,
        name: &AppName,
        patch: &ConfigPatch,
    ) -> Result<ConfigChange, ClientError> {
        let path = ["config", name.as_str()];
        decode(self.send(Method::PATCH, &path, &[], Some(patch)).await?).await
    }

    /// Forgets a configuration.
    pub(crate) async fn destroy_config(&self, name: &AppName) -> Result<(), ClientError> {
        self.send::<()>(Method::DELETE, &["config", name.as_str()], &[], None).await.map(drop)
    }

    /// The revisions of a configuration that are kept.
    pub(crate) async fn config_history(
        &self,
        name: &AppName,
    ) -> Result<ConfigHistory, ClientError> {
        self.get_json(&["config", name.as_str(), "history"], &[]).await
    }

    /// Gives a configuration the values of an earlier revision.
    pub(crate) async fn roll_config_back(
        &self,
        name: &AppName,
        wish: &ConfigRollback,
    ) -> Result<ConfigChange, ClientError> {
        let path = ["config", name.as_str(), "rollback"];
        decode(self.send(Method::POST, &path, &[], Some(wish)).await?).await
    }

    /// Everything that makes up the cluster but for what runs where.
    pub(crate) async fn export(&self) -> Result<Export, ClientError> {
        self.get_json(&["export"], &[]).await
    }

    /// Takes an exported cluster, all or nothing; a dry run only says what would change.
    pub(crate) async fn import(
        &self,
        export: &Export,
        dry_run: bool,
        replace: bool,
    ) -> Result<Imported, ClientError> {
        let word = |flag| if flag { "true" } else { "false" };
        let query = [("dryRun", word(dry_run)), ("replace", word(replace))];
        let limit = if dry_run { SILENCE } else { IMPORT };
        let fill = json(Some(export));
        decode(self.send_within(limit, Method::POST, &["import"], &query, fill).await?).await
    }

    /// A stream of `Progress` lines, the first not older than the request.
    pub(crate) async fn follow(&self, units: &[String]) -> Result<Response, ClientError> {
        let query: Vec<(&str, &str)> = units.iter().map(|unit| ("unit", unit.as_str())).collect();
        self.send::<()>(Method::GET, &["follow"], &query, None).await
    }

    /// What the leaders decided, oldest first.
    pub(crate) async fn events(&self, query: &[(&str, &str)]) -> Result<EventPage, ClientError> {
        self.get_json(&["events"], query).await
    }

    /// The same as a stream that goes on, an event a line.
    pub(crate) async fn follow_events(
        &self,
        query: &[(&str, &str)],
    ) -> Result<Response, ClientError> {
        let query: Vec<_> = query.iter().copied().chain([("follow", "true")]).collect();
        self.send::<()>(Method::GET, &["events"], &query, None).await
    }

    /// What the leader planned last, or the plan with this digest, as the leader wrote it.
    pub(crate) async fn snapshot(&self, plan: Option<&str>) -> Result<Vec<u8>, ClientError> {
        let query: Vec<_> = plan.map(|digest| ("plan", digest)).into_iter().collect();
        collect(self.send::<()>(Method::GET, &["debug", "snapshot"], &query, None).await?).await
    }

    /// What is in the store, and what is wrong with it.
    pub(crate) async fn check_store(&self) -> Result<StoreCheck, ClientError> {
        self.get_json(&["store", "check"], &[]).await
    }

    /// `systemctl status` of a unit wherever it is, as a stream of text, its exit status, and which
    /// machines did not answer.
    pub(crate) async fn status(
        &self,
        name: &str,
    ) -> Result<(Response, u8, Vec<String>), ClientError> {
        let answer = self.send::<()>(Method::GET, &["units", name, "status"], &[], None).await?;
        let code = header(answer.headers(), EXIT_STATUS_HEADER)
            .and_then(|code| code.parse().ok())
            .unwrap_or(0);
        let problems = headers(answer.headers(), PROBLEM_HEADER);
        Ok((answer, code, problems))
    }

    /// A unit's journal as a stream of text.
    pub(crate) async fn journal(
        &self,
        name: &str,
        query: &[(&str, &str)],
    ) -> Result<Response, ClientError> {
        self.send::<()>(Method::GET, &["units", name, "journal"], query, None).await
    }

    async fn get_json<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<T, ClientError> {
        decode(self.send::<()>(Method::GET, path, query, None).await?).await
    }

    async fn pages<P, T>(
        &self,
        list: &str,
        filter: &[(&str, &str)],
        mut take: impl FnMut(P) -> (Vec<T>, String),
    ) -> Result<Vec<T>, ClientError>
    where
        P: DeserializeOwned,
    {
        let mut all = Vec::new();
        let mut token = String::new();
        loop {
            let mut query = filter.to_vec();
            query.push(("pageSize", PAGE_SIZE));
            if !token.is_empty() {
                query.push(("nextPageToken", &token));
            }
            let (items, next) = take(self.get_json(&[list], &query).await?);
            all.extend(items);
            if next.is_empty() || next == token {
                return Ok(all);
            }
            token = next;
        }
    }

    async fn send<B: Serialize>(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<&B>,
    ) -> Result<Response, ClientError> {
        self.send_within(SILENCE, method, path, query, json(body)).await
    }

    /// Whether the tunnel has found another way to the endpoint that was just asked in vain.
    fn forward_otherwise(&self) -> bool {
        let is_socket = matches!(self.targets[self.current.get()].0, Endpoint::Unix(_));
        is_socket && self.tunnel.as_ref().is_some_and(Tunnel::forward_otherwise)
    }

    /// Finds the way through the tunnel by a question that may be asked twice, before something is
    /// written: ssh takes a connection that it cannot forward, and a write that is lost with one
    /// may have been done. Where nobody answers the question nothing is written; what else it comes
    /// to, the write will.
    async fn find_way(&self) -> Result<(), ClientError> {
        if self.tunnel.is_some() && self.heard.get() != Some(self.current.get()) {
            let asked = Box::pin(self.send::<()>(Method::GET, &["version"], &[], None)).await;
            if let Err(error @ ClientError::Silent { .. }) = asked {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Sends a request to the first endpoint that takes a connection, and turns a refusal into an
    /// error. `fill` gives it its body. What only asks is also asked of the next endpoint when one
    /// takes it and says nothing: a write may have been done, and would be done twice.
    async fn send_within(
        &self,
        limit: Duration,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        fill: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response, ClientError> {
        let asks = method == Method::GET;
        let mut tries = 0;
        loop {
            if !asks {
                self.find_way().await?;
            }
            let (endpoint, http) = &self.targets[self.current.get()];
            let request = format!("{method} {endpoint}/fleet/v1/{}", path.join("/"));
            let builder = fill(http.request(method.clone(), address(endpoint, path, query)));
            let started = Instant::now();
            let answer = tokio::time::timeout(limit + LONGER, builder.send()).await;
            if self.debug {
                let outcome = match &answer {
                    Ok(Ok(answer)) => answer.status().to_string(),
                    Ok(Err(problem)) => {
                        fleet_tls::explain(problem, &self.tls).unwrap_or_else(|| innermost(problem))
                    }
                    Err(_) => "no answer".to_string(),
                };
                note(&format!(
                    "DEBUG: {request}: {outcome} after {} ms",
                    started.elapsed().as_millis()
                ));
            }
            let problem = match answer {
                Ok(Ok(answer)) => {
                    self.heard.set(Some(self.current.get()));
                    return refused(answer, request).await;
                }
                Ok(Err(problem)) if problem.is_connect() && problem.is_timeout() => {
                    ClientError::Silent { request, limit: SILENCE }
                }
                Ok(Err(problem))
                    if let Some(explained) = fleet_tls::explain(&problem, &self.tls) =>
                {
                    let refused =
                        ClientError::Tls { endpoint: endpoint.to_string(), problem: explained };
                    if !asks && !problem.is_connect() {
                        return Err(refused);
                    }
                    refused
                }
                Ok(Err(problem)) if problem.is_connect() => ClientError::Unreachable {
                    request,
                    endpoint: endpoint.to_string(),
                    source: problem,
                },
                Ok(Err(_)) if asks && self.forward_otherwise() => continue,
                Ok(Err(problem)) => {
                    let problem = self
                        .tunnel
                        .as_ref()
                        .and_then(Tunnel::last_words)
                        .unwrap_or_else(|| innermost(&problem));
                    return Err(ClientError::Garbled { request, problem });
                }
                Err(_) if asks => ClientError::Silent { request, limit },
                Err(_) => return Err(ClientError::Silent { request, limit }),
            };
            tries += 1;
            if tries >= self.targets.len() {
                return Err(problem);
            }
            self.current.set((self.current.get() + 1) % self.targets.len());
            if let ClientError::Silent { .. } = problem {
                note(&format!("{problem}; trying {}", self.targets[self.current.get()].0));
            }
        }
    }
}

/// Asks for one name after the other that `argument` may mean, until fleetd knows one. Gives its
/// answer and that name, or the refusal of the likeliest. All commands go by this rule.
pub(crate) async fn first_known<T>(
    argument: &Argument,
    ask: impl AsyncFn(&UnitName) -> Result<T, ClientError>,
) -> (UnitName, Result<T, ClientError>) {
    let mut refusal = None;
    for name in argument.names() {
        match ask(name).await {
            Err(error) if error.is_not_found() => refusal = refusal.or(Some(error)),
            answer => return (name.clone(), answer),
        }
    }
    (argument.name.clone(), Err(refusal.unwrap_or_else(ClientError::not_found)))
}

/// Gives a request a body of JSON, or none.
fn json<B: Serialize>(body: Option<&B>) -> impl Fn(RequestBuilder) -> RequestBuilder {
    move |builder| match body {
        Some(body) => builder.json(body),
        None => builder,
    }
}

/// The URL of a resource; names are escaped, for systemd's may hold backslashes.
fn address(endpoint: &Endpoint, path: &[&str], query: &[(&str, &str)]) -> Url {
    let mut url = endpoint.base();
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().extend(["fleet", "v1"]).extend(path);
    }
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    url
}

async fn refused(answer: Response, request: String) -> Result<Response, ClientError> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let body = collect(answer).await.unwrap_or_default();
    let message = match serde_json::from_slice::<ErrorBody>(&body) {
        Ok(ErrorBody { error: ErrorDetail { message, detail, .. } }) if !message.is_empty() => {
            match detail {
                Some(detail) => format!("{message}: {detail}"),
                None => message,
            }
        }
        _ => format!(
            "{request}: HTTP {} {}",
            status.as_u16(),
            status.canonical_reason().unwrap_or("")
        )
        .trim_end()
        .to_string(),
    };
    Err(ClientError::Api { code: StatusCode::as_u16(&status), message })
}

async fn decode<T: DeserializeOwned>(answer: Response) -> Result<T, ClientError> {
    let request = format!("GET {}", answer.url().path());
    let body = collect(answer).await?;
    serde_json::from_slice(&body).map_err(|problem| ClientError::Garbled {
        request,
        problem: format!("the answer is not one of fleetd's: {problem}"),
    })
}

/// Reads a body that must end; a pause of [`SILENCE`] is an error.
async fn collect(mut answer: Response) -> Result<Vec<u8>, ClientError> {
    let request = format!("GET {}", answer.url().path());
    let mut body = Vec::new();
    loop {
        match tokio::time::timeout(SILENCE, answer.chunk()).await {
            Ok(Ok(Some(chunk))) => body.extend_from_slice(&chunk),
            Ok(Ok(None)) => return Ok(body),
            Ok(Err(problem)) => {
                return Err(ClientError::Garbled { request, problem: innermost(&problem) });
            }
            Err(_) => return Err(ClientError::Silent { request, limit: SILENCE }),
        }
    }
}

fn written(headers: &HeaderMap) -> Written {
    Written { warnings: self::headers(headers, WARNING_HEADER) }
}

/// All values of a header.
fn headers(headers: &HeaderMap, name: &str) -> Vec<String> {
    headers
        .get_all(name)
        .iter()
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        .collect()
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_in_addresses() {
        let endpoint = Endpoint::parse_list("http://h:1").unwrap().remove(0);
        assert_eq!(
            address(&endpoint, &["units", "web@1.service"], &[]).as_str(),
            "http://h:1/fleet/v1/units/web@1.service"
        );
        assert_eq!(
            address(&endpoint, &["units", "a\\x2db.mount"], &[]).as_str(),
            "http://h:1/fleet/v1/units/a%5Cx2db.mount"
        );
        assert_eq!(
            address(&endpoint, &["state"], &[("unitName", "a&b")]).as_str(),
            "http://h:1/fleet/v1/state?unitName=a%26b"
        );
        assert_eq!(
            address(&endpoint, &["apps", "shop", "files", "conf/a b"], &[]).as_str(),
            "http://h:1/fleet/v1/apps/shop/files/conf%2Fa%20b"
        );
    }
}
