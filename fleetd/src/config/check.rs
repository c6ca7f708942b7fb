//! From options to settings: each value read and judged, everything that is wrong collected with
//! its place.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fleet_core::address;
use fleet_tls::{Files, TlsError};
use tracing_subscriber::EnvFilter;

use super::entry::{Entry, Place, Value};
use super::options::{OPTIONS, nearest, obsolete};
use super::{Environment, Findings, Listen, Settings};

/// The shortest lease that etcd grants, in seconds.
const SHORTEST_LEASE_S: u64 = 2;

/// The longest lease that makes sense: nothing is moved off a dead machine for as long.
const LONGEST_LEASE_S: u64 = 3600;

/// fleet 1.0's default, which holds where its own file is what configures fleetd.
const FLEET1_ETCD: &str = "http://127.0.0.1:2379";

/// fleet 1.0's default for its unit files, which holds in the same way; systemd then calls them
/// linked-runtime, as it did.
const FLEET1_UNITS: &str = "/run/fleet/units/";

/// What fleet's own parts log at `level`; of libraries only what matters is wanted.
fn log_of_fleet(level: &str) -> String {
    format!("info,fleetd={level},fleet_core={level},fleet_tls={level}")
}

/// Names what is unknown: an error in our own files, a warning in fleet 1.0's, which never minded.
pub(super) fn check_names(entries: &[Entry], lenient: bool, findings: &mut Findings) {
    for Entry { key, place, .. } in entries {
        if let Some(why) = obsolete(key) {
            findings
                .warnings
                .push(format!("{place}: {key} does nothing any more: {why}; remove it"));
        } else if key == "verbosity" {
            findings.warnings.push(format!(
                "{place}: verbosity is fleet 1.0's word; write log = \"info,fleetd=debug\" or log \
                = \"info\""
            ));
        } else if !OPTIONS.contains(&key.as_str()) {
            let hint = match nearest(key) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("the options are {}", OPTIONS.join(", ")),
            };
            let said = format!("{place}: there is no option {key:?}; {hint}");
            if lenient { findings.warnings.push(said) } else { findings.errors.push(said) }
        }
    }
}

/// Reads the settings out of all layers, the later ones winning; the values where something is
/// wrong are defaults.
pub(super) fn settings(
    entries: Vec<Entry>,
    fleet1: bool,
    environment: &Environment,
    findings: &mut Findings,
) -> Settings {
    let merged = entries.into_iter().map(|entry| (entry.key.clone(), entry)).collect();
    let mut read = Reader { entries: merged, findings };

    let user = read.value("systemd_user", Value::flag).unwrap_or(false);
    let runtime_dir = environment.get("XDG_RUNTIME_DIR").map(PathBuf::from);
    if user && runtime_dir.is_none() {
        read.error(
            "systemd_user",
            "XDG_RUNTIME_DIR is not set, so there is no systemd of this user to drive; run fleetd \
                as a service of the user, or in a login session",
        );
    }
    let under = |system: &str, base: &Option<PathBuf>, name: &str| match base {
        Some(base) if user => base.join(name),
        _ => PathBuf::from(system),
    };
    let home = |name: &str| environment.get("HOME").map(|home| PathBuf::from(home).join(name));
    let state_dir =
        environment.get("XDG_STATE_HOME").map(PathBuf::from).or_else(|| home(".local/state"));

    let etcd_tls = read.files("etcd_cafile", "etcd_certfile", "etcd_keyfile");
    let tls = read.files("tls_cafile", "tls_certfile", "tls_keyfile");
    let etcd_servers = read.etcd_servers(fleet1, &etcd_tls);
    let insecure = read.value("insecure", Value::flag).unwrap_or(false);
    let listen = read.listen(&tls, insecure);
    let username = read.text("etcd_username");
    let password = read.password();
    if username.is_none() && password.is_some() {
        read.error("etcd_password", "a password without etcd_username");
    }
    Settings {
        etcd_servers,
        etcd_auth: username.map(|user| (user, password.unwrap_or_default())),
        etcd_tls,
        key_prefix: read.text("etcd_key_prefix").unwrap_or_else(|| "/fleet/".to_string()),
        etcd_request_timeout: read.etcd_request_timeout(),
        public_ip: read.address("public_ip"),
        metadata: read.value("metadata", Value::labels).unwrap_or_default(),
        agent_ttl: read.lease("agent_ttl", 10),
        leader_ttl: read.lease("leader_ttl", 3),
        listen,
        listen_names: read.listen_names(),
        handed: Vec::new(),
        insecure,
        tls,
        socket: read
            .path("socket")
            .unwrap_or_else(|| under("/run/fleet.sock", &runtime_dir, "fleet.sock")),
        data_dir: read
            .path("data_dir")
            .unwrap_or_else(|| under("/var/lib/fleet", &state_dir, "fleet")),
        run_dir: read.path("run_dir").unwrap_or_else(|| under("/run/fleet", &runtime_dir, "fleet")),
        unit_dir: read.path("units_directory").unwrap_or_else(|| match fleet1 && !user {
            true => PathBuf::from(FLEET1_UNITS),
            false => under("/run/systemd/system", &runtime_dir, "systemd/user"),
        }),
        systemd_user: user,
        disable_engine: read.value("disable_engine", Value::flag).unwrap_or(false),
        log: read.log(),
    }
}

/// The options that were given, and what is found out about them.
struct Reader<'a> {
    entries: BTreeMap<String, Entry>,
    findings: &'a mut Findings,
}

impl Reader<'_> {
    fn error(&mut self, option: &str, problem: impl std::fmt::Display) {
        let said = self.place(option).map_or(String::new(), |place| format!("{place}: "));
        self.findings.errors.push(format!("{said}{option}: {problem}"));
    }

    fn warn(&mut self, option: &str, problem: impl std::fmt::Display) {
        let said = self.place(option).map_or(String::new(), |place| format!("{place}: "));
        self.findings.warnings.push(format!("{said}{option}: {problem}"));
    }

    fn place(&self, option: &str) -> Option<&Place> {
        self.entries.get(option).map(|entry| &entry.place)
    }

    fn value<T>(&mut self, option: &str, read: fn(&Value) -> Result<T, String>) -> Option<T> {
        match read(&self.entries.get(option)?.value) {
            Ok(value) => Some(value),
            Err(problem) => {
                self.error(option, problem);
                None
            }
        }
    }

    /// An empty text is none, as in fleet 1.0.
    fn text(&mut self, option: &str) -> Option<String> {
        self.value(option, Value::text).filter(|text| !text.is_empty())
    }

    fn path(&mut self, option: &str) -> Option<PathBuf> {
        let path = PathBuf::from(self.text(option)?);
        if !path.is_absolute() {
            self.error(option, format_args!("{path:?} is not an absolute path"));
        }
        Some(path)
    }

    /// Others hand it to programs such as ssh, so it may be nothing else.
    fn address(&mut self, option: &str) -> String {
        let text = self.text(option).unwrap_or_default();
        if !text.is_empty() && !address::is_host(&text) {
            self.error(
                option,
                format_args!("{text:?} is no address; write an IP address, or a host name"),
            );
        }
        text
    }

    fn lease(&mut self, option: &str, default: u64) -> Duration {
        let ttl = self.value(option, Value::duration).unwrap_or(Duration::from_secs(default));
        let (shortest, longest) =
            (Duration::from_secs(SHORTEST_LEASE_S), Duration::from_secs(LONGEST_LEASE_S));
        if !(shortest..=longest).contains(&ttl) {
            let given = ttl.as_secs_f64();
            self.error(
                option,
                format_args!(
                    "{given} s is not from {SHORTEST_LEASE_S} s (etcd grants no less) to \
                    {LONGEST_LEASE_S} s"
                ),
            );
        }
        ttl
    }

    fn etcd_request_timeout(&mut self) -> Duration {
        let seconds = self.value("etcd_request_timeout", Value::number).unwrap_or(2.0);
        if !(0.05..=60.0).contains(&seconds) {
            self.error(
                "etcd_request_timeout",
                format_args!("{seconds} is not from 0.05 to 60 seconds"),
            );
            return Duration::from_secs(2);
        }
        Duration::from_secs_f64(seconds)
    }

    fn log(&mut self) -> String {
        let verbosity = self.value("verbosity", Value::number).unwrap_or(0.0);
        let of_verbosity =
            || if verbosity > 0.0 { log_of_fleet("debug") } else { "info".to_string() };
        let log = self.text("log").unwrap_or_else(of_verbosity);
        if EnvFilter::try_new(&log).is_err() {
            self.error(
                "log",
                format_args!("{log:?} is not a filter such as \"info\" or \"fleetd=debug\""),
            );
        }
        log
    }

    fn etcd_servers(&mut self, fleet1: bool, tls: &Files) -> Vec<String> {
        let given = self.value("etcd_servers", Value::list);
        if given.is_none() && fleet1 {
            self.findings.warnings.push(format!(
                "etcd_servers: not given, so {FLEET1_ETCD}, fleet 1.0's default, holds; name it"
            ));
        }
        let servers = given
            .unwrap_or_else(|| if fleet1 { vec![FLEET1_ETCD.to_string()] } else { Vec::new() });
        for url in &servers {
            let host = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
            if host.is_none_or(|host| {
                host.trim_end_matches('/').is_empty() || host.contains(char::is_whitespace)
            }) {
                self.error(
                    "etcd_servers",
                    format_args!(
                        "{url:?} is not of the form http://host:2379 or https://host:2379"
                    ),
                );
            }
        }
        let secure = servers.iter().any(|url| url.starts_with("https://"));
        if !tls.is_empty() && !secure {
            self.warn(
                "etcd_servers",
                "none is https://, so the etcd_cafile, etcd_certfile and etcd_keyfile are of no \
                use",
            );
        } else if let Some(problem) = secure.then(|| fleet_tls::client(tls).err()).flatten() {
            self.tls_error("etcd_cafile", "etcd_certfile", tls, problem);
        }
        servers
    }

    fn files(&mut self, ca: &str, cert: &str, key: &str) -> Files {
        let files = Files { ca: self.path(ca), cert: self.path(cert), key: self.path(key) };
        if let Some(open) = files.key.as_deref().and_then(open_to_all) {
            self.warn(key, open);
        }
        files
    }

    /// A password stands in a configuration file or in the environment.
    fn password(&mut self) -> Option<String> {
        let password = self.text("etcd_password")?;
        if let Some(Place::Line(file, _)) = self.place("etcd_password")
            && let Some(open) = open_to_all(&file.clone())
        {
            self.warn("etcd_password", open);
        }
        Some(password)
    }

    /// The line that names the file in question.
    fn tls_error(&mut self, ca: &str, cert: &str, files: &Files, problem: TlsError) {
        let option = if files.ca.is_some() && files.roots().is_err() { ca } else { cert };
        self.error(option, problem);
    }

    fn listen_names(&mut self) -> Vec<String> {
        let names = self.value("listen_names", Value::list).unwrap_or_default();
        let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        for name in names.iter().filter(|name| name.is_empty() || !name.chars().all(good)) {
            self.error(
                "listen_names",
                format_args!("{name:?} is not a name such as fleet.example.com"),
            );
        }
        names
    }

    fn listen(&mut self, tls: &Files, insecure: bool) -> Vec<Listen> {
        let mut listen = Vec::new();
        for text in self.value("listen", Value::list).unwrap_or_default() {
            let secure = text.starts_with("https://");
            let address = text
                .strip_prefix("https://")
                .or_else(|| text.strip_prefix("http://"))
                .unwrap_or(&text);
            match address.trim_end_matches('/').parse::<SocketAddr>() {
                Ok(address) => listen.push(Listen { address, tls: secure }),
                Err(_) => self.error(
                    "listen",
                    format_args!(
                        "{text:?} is not of the form https://ADDRESS:PORT or http://ADDRESS:PORT"
                    ),
                ),
            }
        }
        for open in listen.iter().filter(|_| !insecure) {
            let who = open.who_reaches_it();
            if !open.tls {
                self.error(
                    "listen",
                    format_args!(
                        "{open}: plain HTTP lets {who} run anything as root here; use the unix \
                        socket alone, or https with tls_cafile, tls_certfile and tls_keyfile, or \
                        set insecure = true if they all may"
                    ),
                );
            } else if tls.ca.is_none() {
                self.error(
                    "listen",
                    format_args!(
                        "{open} without tls_cafile asks nobody for a certificate, so {who} can run \
                        anything as root here; name the CA of those who may, or set insecure = \
                        true if they all may"
                    ),
                );
            }
        }
        let secure = listen.iter().any(|listen| listen.tls);
        let problem = if secure { fleet_tls::server(tls).err() } else { None };
        let problem =
            problem.or_else(|| if tls.is_empty() { None } else { fleet_tls::client(tls).err() });
        match problem {
            Some(problem) => self.tls_error("tls_cafile", "tls_certfile", tls, problem),
            None => {
                if let Some(doubt) = tls.doubts() {
                    self.warn("tls_certfile", doubt);
                }
            }
        }
        listen
    }
}

/// What to say of a file with a secret that everybody on this machine may read.
fn open_to_all(file: &Path) -> Option<String> {
    let mode = std::fs::metadata(file).ok()?.mode();
    let path = file.display();
    (mode & 0o007 != 0).then(|| {
        format!(
            "{path} has mode {:04o}, so everybody on this machine may read it; chmod 600 {path}",
            mode & 0o7777
        )
    })
}
