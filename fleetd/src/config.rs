//! Configuration: defaults, then `/etc/fleet/fleetd.conf`, then `/etc/fleet/fleetd.conf.d/*.toml` by name, then `FLEET_*`.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

/// Where the configuration lies unless `--config` says otherwise. Drop-ins lie beside it, in `fleetd.conf.d/`.
pub const DEFAULT_PATH: &str = "/etc/fleet/fleetd.conf";

/// The shortest lease that etcd grants, in seconds.
const SHORTEST_LEASE_S: f64 = 2.0;

/// One layer of configuration, as files and the environment give it: every option may be left out.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fragment {
    etcd_servers: Option<Vec<String>>,
    etcd_username: Option<String>,
    etcd_password: Option<String>,
    etcd_key_prefix: Option<String>,
    etcd_request_timeout: Option<f64>,
    public_ip: Option<String>,
    metadata: Option<Metadata>,
    agent_ttl: Option<Seconds>,
    leader_ttl: Option<Seconds>,
    listen: Option<Vec<String>>,
    insecure: Option<bool>,
    socket: Option<PathBuf>,
    data_dir: Option<PathBuf>,
    run_dir: Option<PathBuf>,
    units_directory: Option<PathBuf>,
    disable_engine: Option<bool>,
    log: Option<String>,
}

/// `"k=v,k2=v2"`, fleet's form, or a table.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Metadata {
    Text(String),
    Table(BTreeMap<String, String>),
}

/// `10`, `10.5` or `"10s"`.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Seconds {
    Number(f64),
    Text(String),
}

/// The merged and checked configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// etcd's client URLs; empty for the embedded store.
    pub etcd_servers: Vec<String>,
    /// etcd user and password.
    pub etcd_auth: Option<(String, String)>,
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
    pub listen: Vec<SocketAddr>,
    /// The API's unix socket, where systemd does not hand one over.
    pub socket: PathBuf,
    /// What must survive a reboot: the embedded store, the session.
    pub data_dir: PathBuf,
    /// What must survive a restart of fleetd but not a reboot.
    pub run_dir: PathBuf,
    /// Where unit files are written.
    pub unit_dir: PathBuf,
    /// Never stand for election.
    pub disable_engine: bool,
    /// Which messages are logged, as tracing's `EnvFilter` reads it.
    pub log: String,
}

/// What is wrong with the configuration, with file and line where there are any.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

/// Reads all layers. A missing main file is no error unless it was asked for by name.
pub fn load(path: Option<&Path>, environment: impl Iterator<Item = (String, String)>) -> Result<Settings, ConfigError> {
    let main = path.unwrap_or(Path::new(DEFAULT_PATH));
    let mut merged = Fragment::default();
    if path.is_some() || main.exists() {
        merged = read(main)?;
    }
    for file in drop_ins(&main.with_extension("conf.d"))? {
        merged = read(&file)?.over(merged);
    }
    from_environment(environment)?.over(merged).check()
}

fn read(path: &Path) -> Result<Fragment, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|error| ConfigError(format!("cannot read {}: {error}", path.display())))?;
    parse(&text).map_err(|(line, problem)| match line {
        Some(line) => ConfigError(format!("{}:{line}: {problem}", path.display())),
        None => ConfigError(format!("{}: {problem}", path.display())),
    })
}

fn parse(text: &str) -> Result<Fragment, (Option<usize>, String)> {
    toml::from_str(text).map_err(|error| {
        let line = error.span().map(|span| text[..span.start].matches('\n').count() + 1);
        (line, error.message().to_string())
    })
}

fn drop_ins(folder: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(Vec::new()) };
    let mut files: Vec<PathBuf> =
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|p| p.extension().is_some_and(|e| e == "toml")).collect();
    files.sort();
    Ok(files)
}

/// `FLEET_ETCD_SERVERS=http://a:2379,http://b:2379`, `FLEET_METADATA=k=v`, and so on: each option's name in capitals.
fn from_environment(environment: impl Iterator<Item = (String, String)>) -> Result<Fragment, ConfigError> {
    let mut fragment = Fragment::default();
    for (variable, value) in environment {
        let Some(option) = variable.strip_prefix("FLEET_") else { continue };
        let list = || value.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_string).collect::<Vec<_>>();
        let bad = |what: &str| ConfigError(format!("{variable}={value}: {what}"));
        let yes = || value.parse::<bool>().map_err(|_| bad("expected true or false"));
        match option {
            "ETCD_SERVERS" => fragment.etcd_servers = Some(list()),
            "ETCD_USERNAME" => fragment.etcd_username = Some(value),
            "ETCD_PASSWORD" => fragment.etcd_password = Some(value),
            "ETCD_KEY_PREFIX" => fragment.etcd_key_prefix = Some(value),
            "ETCD_REQUEST_TIMEOUT" => fragment.etcd_request_timeout = Some(value.parse().map_err(|_| bad("expected seconds"))?),
            "PUBLIC_IP" => fragment.public_ip = Some(value),
            "METADATA" => fragment.metadata = Some(Metadata::Text(value)),
            "AGENT_TTL" => fragment.agent_ttl = Some(Seconds::Text(value)),
            "LEADER_TTL" => fragment.leader_ttl = Some(Seconds::Text(value)),
            "LISTEN" => fragment.listen = Some(list()),
            "INSECURE" => fragment.insecure = Some(yes()?),
            "SOCKET" => fragment.socket = Some(value.into()),
            "DATA_DIR" => fragment.data_dir = Some(value.into()),
            "RUN_DIR" => fragment.run_dir = Some(value.into()),
            "UNITS_DIRECTORY" => fragment.units_directory = Some(value.into()),
            "DISABLE_ENGINE" => fragment.disable_engine = Some(yes()?),
            "LOG" => fragment.log = Some(value),
            _ => {} // the environment is shared: FLEET_LAB_CACHE and others are not ours
        }
    }
    Ok(fragment)
}

impl Fragment {
    /// This layer's options, and `under`'s where this one has none.
    fn over(self, under: Fragment) -> Fragment {
        Fragment {
            etcd_servers: self.etcd_servers.or(under.etcd_servers),
            etcd_username: self.etcd_username.or(under.etcd_username),
            etcd_password: self.etcd_password.or(under.etcd_password),
            etcd_key_prefix: self.etcd_key_prefix.or(under.etcd_key_prefix),
            etcd_request_timeout: self.etcd_request_timeout.or(under.etcd_request_timeout),
            public_ip: self.public_ip.or(under.public_ip),
            metadata: self.metadata.or(under.metadata),
            agent_ttl: self.agent_ttl.or(under.agent_ttl),
            leader_ttl: self.leader_ttl.or(under.leader_ttl),
            listen: self.listen.or(under.listen),
            insecure: self.insecure.or(under.insecure),
            socket: self.socket.or(under.socket),
            data_dir: self.data_dir.or(under.data_dir),
            run_dir: self.run_dir.or(under.run_dir),
            units_directory: self.units_directory.or(under.units_directory),
            disable_engine: self.disable_engine.or(under.disable_engine),
            log: self.log.or(under.log),
        }
    }

    fn check(self) -> Result<Settings, ConfigError> {
        let listen = addresses(&self.listen.unwrap_or_default())?;
        if let Some(open) = listen.iter().find(|address| !address.ip().is_loopback())
            && !self.insecure.unwrap_or(false)
        {
            return Err(ConfigError(format!(
                "listen = {open}: plain HTTP on an address that others can reach lets anybody who reaches it run anything as root here; set insecure = true if the network is yours alone, or listen on 127.0.0.1"
            )));
        }
        let servers = self.etcd_servers.unwrap_or_default();
        if let Some(bad) = servers.iter().find(|url| !url.starts_with("http://")) {
            return Err(ConfigError(format!("etcd_servers: {bad:?} is not of the form http://host:2379")));
        }
        let timeout = self.etcd_request_timeout.unwrap_or(2.0);
        if !(0.05..=60.0).contains(&timeout) {
            return Err(ConfigError(format!("etcd_request_timeout = {timeout}: expected 0.05 to 60 seconds")));
        }
        Ok(Settings {
            etcd_servers: servers,
            etcd_auth: self
                .etcd_username
                .filter(|user| !user.is_empty())
                .map(|user| (user, self.etcd_password.unwrap_or_default())),
            key_prefix: self.etcd_key_prefix.unwrap_or_else(|| "/fleet/".to_string()),
            etcd_request_timeout: Duration::from_secs_f64(timeout),
            public_ip: self.public_ip.unwrap_or_default(),
            metadata: self.metadata.map_or(Ok(BTreeMap::new()), Metadata::read)?,
            agent_ttl: lease("agent_ttl", self.agent_ttl, 10.0)?,
            leader_ttl: lease("leader_ttl", self.leader_ttl, 3.0)?,
            listen,
            socket: self.socket.unwrap_or_else(|| "/run/fleet.sock".into()),
            data_dir: self.data_dir.unwrap_or_else(|| "/var/lib/fleet".into()),
            run_dir: self.run_dir.unwrap_or_else(|| "/run/fleet".into()),
            unit_dir: self.units_directory.unwrap_or_else(|| "/run/systemd/system".into()),
            disable_engine: self.disable_engine.unwrap_or(false),
            log: self.log.unwrap_or_else(|| "info".to_string()),
        })
    }
}

impl Settings {
    /// Where other machines reach this one's API: the first listener that is not loopback, by this machine's address.
    pub fn api_url(&self, address: &str) -> Option<String> {
        let open = self.listen.iter().find(|listen| !listen.ip().is_loopback())?;
        let host = if open.ip().is_unspecified() { address.to_string() } else { open.ip().to_string() };
        let host = if host.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()) { format!("[{host}]") } else { host };
        Some(format!("http://{host}:{}", open.port()))
    }
}

impl Metadata {
    fn read(self) -> Result<BTreeMap<String, String>, ConfigError> {
        let text = match self {
            Metadata::Table(table) => return Ok(table),
            Metadata::Text(text) => text,
        };
        let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
        pairs
            .map(|pair| match pair.split_once('=') {
                Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_string(), value.trim().to_string())),
                _ => Err(ConfigError(format!("metadata: {pair:?} is not of the form key=value"))),
            })
            .collect()
    }
}

fn lease(option: &str, value: Option<Seconds>, default: f64) -> Result<Duration, ConfigError> {
    let seconds = match value {
        None => Some(default),
        Some(Seconds::Number(seconds)) => Some(seconds),
        Some(Seconds::Text(text)) => text.trim().trim_end_matches('s').parse().ok(),
    };
    match seconds {
        Some(seconds) if (SHORTEST_LEASE_S..=3600.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(ConfigError(format!(
            "{option}: expected seconds, as 10 or \"10s\", from {SHORTEST_LEASE_S} (etcd grants no less) to 3600"
        ))),
    }
}

fn addresses(listen: &[String]) -> Result<Vec<SocketAddr>, ConfigError> {
    let parse = |text: &String| {
        let address = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        address.parse().map_err(|_| ConfigError(format!("listen: {text:?} is not of the form http://ADDRESS:PORT")))
    };
    listen.iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Result<Settings, String> {
        parse(text).map_err(|(line, problem)| format!("line {line:?}: {problem}"))?.check().map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_configured_is_one_machine_with_an_embedded_store() {
        let settings = settings("").unwrap();
        assert!(settings.etcd_servers.is_empty() && settings.listen.is_empty());
        assert_eq!((settings.agent_ttl.as_secs(), settings.leader_ttl.as_secs()), (10, 3));
    }

    #[test]
    fn a_typo_is_named_with_its_line() {
        let error = settings("public_ip = \"10.0.0.1\"\nmetdata = \"a=b\"\n").unwrap_err();
        assert!(error.starts_with("line Some(2): unknown field `metdata`"), "{error}");
    }

    #[test]
    fn an_open_plain_listener_needs_the_word_insecure() {
        assert!(settings("listen = [\"http://0.0.0.0:4100\"]").unwrap_err().contains("insecure = true"));
        assert!(settings("listen = [\"http://127.0.0.1:4100\"]").is_ok());
        let open = settings("listen = [\"http://0.0.0.0:4100\"]\ninsecure = true").unwrap();
        assert_eq!(open.api_url("10.0.0.7").unwrap(), "http://10.0.0.7:4100");
    }

    #[test]
    fn metadata_is_text_or_a_table_and_seconds_have_two_forms() {
        let text = settings("metadata = \"region=eu, disk=ssd\"\nagent_ttl = \"30s\"").unwrap();
        let table = settings("agent_ttl = 30\n[metadata]\nregion = \"eu\"\ndisk = \"ssd\"").unwrap();
        assert_eq!(text, table);
        assert!(settings("agent_ttl = 1").unwrap_err().contains("etcd grants no less"));
        assert!(settings("metadata = \"region\"").unwrap_err().contains("key=value"));
    }

    #[test]
    fn the_environment_wins_over_files() {
        let environment = [("FLEET_METADATA".to_string(), "a=b".to_string()), ("FLEET_LAB_CACHE".to_string(), "x".to_string())];
        let merged = from_environment(environment.into_iter())
            .unwrap()
            .over(parse("metadata = \"c=d\"\npublic_ip = \"1.2.3.4\"").unwrap());
        let settings = merged.check().unwrap();
        assert_eq!((settings.metadata["a"].as_str(), settings.public_ip.as_str()), ("b", "1.2.3.4"));
    }
}
