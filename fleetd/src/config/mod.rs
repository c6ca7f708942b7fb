//! Configuration: defaults, then fleet 1.0's `/etc/fleet/fleet.conf`, then
//! `/etc/fleet/fleetd.conf`, then `/etc/fleet/fleetd.conf.d/*.toml` by name, then `FLEET_*`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fleet_tls::Files;

mod check;
mod entry;
mod ini;
mod options;
mod toml_file;

#[cfg(test)]
mod tests;

use entry::{Entry, Place, Value};

/// Where the configuration lies unless `--config` says otherwise. Drop-ins lie beside it, in
/// `fleetd.conf.d/`.
pub const DEFAULT_PATH: &str = "/etc/fleet/fleetd.conf";

/// Where fleet 1.0's configuration lies.
const FLEET1_PATH: &str = "/etc/fleet/fleet.conf";

/// Variables of the environment, by name.
pub type Environment = BTreeMap<String, String>;

/// The merged and checked configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// etcd's client URLs; empty for the embedded store.
    pub etcd_servers: Vec<String>,
    /// etcd user and password.
    pub etcd_auth: Option<(String, String)>,
    /// The CA of etcd's certificates, and the certificate that etcd knows us by.
    pub etcd_tls: Files,
    /// The prefix of all keys.
    pub key_prefix: String,
    /// How long one request to etcd may take.
    pub etcd_request_timeout: Duration,
    /// The address that this machine is known by; empty: found out from its interfaces.
    pub public_ip: String,
    /// This machine's labels.
    pub metadata: BTreeMap<String, String>,
    /// How long a machine may be silent before it is lost.
    pub agent_ttl: Duration,
    /// How long a leader may be silent before another is elected.
    pub leader_ttl: Duration,
    /// TCP addresses of the API.
    pub listen: Vec<Listen>,
    /// TCP sockets that systemd handed over and `listen` does not name; no option, but known once
    /// fleetd has started.
    pub handed: Vec<Listen>,
    /// Names by which clients may ask for the API over plain HTTP, besides this machine's own.
    pub listen_names: Vec<String>,
    /// Whether anybody who reaches it may use the API over TCP.
    pub insecure: bool,
    /// The CA of those who may use the API over TLS, and this machine's certificate, towards them
    /// and towards other machines.
    pub tls: Files,
    /// The API's unix socket, where systemd does not hand one over.
    pub socket: PathBuf,
    /// What must survive a reboot: the embedded store, the session.
    pub data_dir: PathBuf,
    /// What must survive a restart of fleetd but not a reboot.
    pub run_dir: PathBuf,
    /// Where unit files are written.
    pub unit_dir: PathBuf,
    /// Drive the user's own systemd instead of the machine's.
    pub systemd_user: bool,
    /// Never stand for election.
    pub disable_engine: bool,
    /// Which messages are logged, as tracing's `EnvFilter` reads it.
    pub log: String,
}

/// One TCP address of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen {
    /// The address.
    pub address: SocketAddr,
    /// With TLS.
    pub tls: bool,
}

impl Listen {
    /// Who commands fleetd here if nobody is asked for a certificate.
    pub fn who_reaches_it(&self) -> &'static str {
        match self.address.ip().to_canonical().is_loopback() {
            true => "every user and every program of this machine",
            false => "anybody who reaches it",
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.address)
    }
}

/// What is found out on reading: an error keeps fleetd from starting.
#[derive(Debug, Default)]
struct Findings {
    errors: Vec<String>,
    warnings: Vec<String>,
}

/// What is wrong with the configuration, one line a problem, with file and line.
#[derive(Debug, thiserror::Error)]
#[error("{}", problems.join("\n"))]
pub struct ConfigError {
    /// Each problem, in the order of the layers.
    pub problems: Vec<String>,
    /// What is odd besides.
    pub warnings: Vec<String>,
}

/// Where the configuration is read from.
#[derive(Debug, Clone)]
pub struct Places {
    /// fleet 1.0's file, read if it is there.
    fleet1: Option<PathBuf>,
    main: PathBuf,
    /// Asked for by name, so it must be there, and may be of either form.
    named: bool,
    user: bool,
}

impl Places {
    /// `named` is `--config`'s file; `user` is `--user`.
    pub fn new(named: Option<&Path>, user: bool, environment: &Environment) -> Places {
        let home = || environment.get("HOME").map(|home| PathBuf::from(home).join(".config"));
        let of_user = || environment.get("XDG_CONFIG_HOME").map(PathBuf::from).or_else(home);
        match named {
            Some(path) => Places { fleet1: None, main: path.to_path_buf(), named: true, user },
            None if user => {
                let folder = of_user().unwrap_or_else(|| PathBuf::from("/nonexistent"));
                Places { fleet1: None, main: folder.join("fleet/fleetd.conf"), named: false, user }
            }
            None => Places {
                fleet1: Some(FLEET1_PATH.into()),
                main: DEFAULT_PATH.into(),
                named: false,
                user,
            },
        }
    }
}

impl fmt::Display for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.main.display())
    }
}

/// Reads all layers. Answers with the settings and what the user should know of them.
pub fn load(
    places: &Places,
    environment: &Environment,
) -> Result<(Settings, Vec<String>), ConfigError> {
    let mut findings = Findings::default();
    let mut entries = Vec::new();
    let mut fleet1 = false;
    if let Some(path) = places.fleet1.as_deref().filter(|path| path.exists())
        && let Some(text) = read(path, &mut findings)
    {
        fleet1 = true;
        entries.extend(fleet1_file(&text, path, &mut findings));
    }
    if (places.named || places.main.exists())
        && let Some(text) = read(&places.main, &mut findings)
    {
        // `-config FILE` is fleet 1.0's flag, too.
        let is_fleet1 = places.named
            && !toml_file::parse(&text, &places.main).1.is_empty()
            && ini::parse(&text, &places.main).1.is_empty();
        fleet1 |= is_fleet1;
        entries.extend(match is_fleet1 {
            true => fleet1_file(&text, &places.main, &mut findings),
            false => own_file(&text, &places.main, &mut findings),
        });
    }
    for file in drop_ins(&places.main.with_extension("conf.d")) {
        if let Some(text) = read(&file, &mut findings) {
            entries.extend(own_file(&text, &file, &mut findings));
        }
    }
    entries.extend(variables(environment, &mut findings));
    if places.user {
        let value = Value::Flag(true);
        entries.push(Entry {
            key: "systemd_user".to_string(),
            value,
            place: Place::Switch("--user"),
        });
    }
    let settings = check::settings(entries, fleet1, environment, &mut findings);
    match findings.errors.is_empty() {
        true => Ok((settings, findings.warnings)),
        false => Err(ConfigError { problems: findings.errors, warnings: findings.warnings }),
    }
}

fn read(path: &Path, findings: &mut Findings) -> Option<String> {
    let text = std::fs::read_to_string(path);
    text.map_err(|error| findings.errors.push(format!("cannot read {}: {error}", path.display())))
        .ok()
}

fn own_file(text: &str, path: &Path, findings: &mut Findings) -> Vec<Entry> {
    let (entries, problems) = toml_file::parse(text, path);
    findings.errors.extend(
        problems.iter().map(|(line, problem)| format!("{}:{line}: {problem}", path.display())),
    );
    check::check_names(&entries, false, findings);
    entries
}

fn fleet1_file(text: &str, path: &Path, findings: &mut Findings) -> Vec<Entry> {
    let (mut entries, problems) = ini::parse(text, path);
    entries.retain(|entry| !entry.is_blank());
    for (line, problem) in problems {
        let said = format!("{}:{line}: {problem}", path.display());
        let kept_fleet1_from_starting = !problem.starts_with('[');
        if kept_fleet1_from_starting {
            findings.errors.push(said)
        } else {
            findings.warnings.push(said)
        }
    }
    check::check_names(&entries, true, findings);
    entries
}

fn drop_ins(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|p| p.extension().is_some_and(|e| e == "toml"))
        .collect();
    files.sort();
    files
}

/// `FLEET_ETCD_SERVERS=http://a:2379,http://b:2379`, `FLEET_METADATA=k=v`, and so on: each option's
/// name in capitals. The environment is shared, so other names are nobody's mistake, unless they
/// are nearly one of ours.
fn variables(environment: &Environment, findings: &mut Findings) -> Vec<Entry> {
    let mut entries = Vec::new();
    for (variable, value) in environment {
        let Some(key) = variable.strip_prefix("FLEET_").map(str::to_lowercase) else { continue };
        let entry = Entry {
            key,
            value: Value::Text(value.clone()),
            place: Place::Variable(variable.clone()),
        };
        if entry.is_blank() {
            continue;
        }
        let ours = options::OPTIONS.contains(&entry.key.as_str());
        if ours || options::obsolete(&entry.key).is_some() || options::nearest(&entry.key).is_some()
        {
            check::check_names(std::slice::from_ref(&entry), true, findings);
        }
        if ours {
            entries.push(entry);
        }
    }
    entries
}

impl Settings {
    /// Where the guard of fenced units says until when they are safe: its unit's
    /// `RuntimeDirectory=`, beside fleetd's.
    pub fn guard_dir(&self) -> PathBuf {
        self.run_dir.with_file_name("fleet-guard")
    }

    /// Where other machines reach this one's API: the first listener that is not loopback, with TLS
    /// if one is, by this machine's address.
    pub fn api_url(&self, address: &str) -> Option<String> {
        let all = || self.listen.iter().chain(&self.handed);
        let open = || all().filter(|listen| !listen.address.ip().is_loopback());
        let Listen { address: open, tls } =
            open().find(|listen| listen.tls).or_else(|| open().next())?;
        let host =
            if open.ip().is_unspecified() { address.to_string() } else { open.ip().to_string() };
        let host = if host.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()) {
            format!("[{host}]")
        } else {
            host
        };
        Some(format!("{}://{host}:{}", if *tls { "https" } else { "http" }, open.port()))
    }

    /// What this machine may be asked for as over plain HTTP, besides its host's own names: other
    /// machines ask for it by what it registers.
    pub fn names(&self) -> Vec<String> {
        self.listen_names.iter().chain([&self.public_ip]).cloned().collect()
    }

    /// The options that differ in `new` and hold from the start of fleetd to its end.
    pub fn fixed_options_changed(&self, new: &Settings) -> Vec<&'static str> {
        let changed = [
            ("etcd_servers", self.etcd_servers != new.etcd_servers),
            ("etcd_key_prefix", self.key_prefix != new.key_prefix),
            ("etcd_request_timeout", self.etcd_request_timeout != new.etcd_request_timeout),
            ("listen", self.listen != new.listen),
            ("socket", self.socket != new.socket),
            ("data_dir", self.data_dir != new.data_dir),
            ("run_dir", self.run_dir != new.run_dir),
            ("units_directory", self.unit_dir != new.unit_dir),
            ("systemd_user", self.systemd_user != new.systemd_user),
        ];
        changed.into_iter().filter(|(_, changed)| *changed).map(|(name, _)| name).collect()
    }

    /// With the options that cannot change as they were.
    #[must_use]
    pub fn with_fixed_options_of(self, old: &Settings) -> Settings {
        let old = old.clone();
        Settings {
            etcd_servers: old.etcd_servers,
            key_prefix: old.key_prefix,
            etcd_request_timeout: old.etcd_request_timeout,
            listen: old.listen,
            handed: old.handed,
            socket: old.socket,
            data_dir: old.data_dir,
            run_dir: old.run_dir,
            unit_dir: old.unit_dir,
            systemd_user: old.systemd_user,
            ..self
        }
    }
}
