//! ssh to machines, done by the system's OpenSSH client: today's key kinds, the agent, the user's
//! `~/.ssh/config`; fleet 1.0's known_hosts.

use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use clap::Args;
use clap::builder::BoolishValueParser;
use fleet_core::address::is_host;
use tempfile::NamedTempFile;

use crate::answer;
use crate::error::{Error, Kind};
use crate::output::Output;
use crate::screen::say_bytes;

/// ssh's own exit status when it could not connect, or lost the connection.
pub(crate) const SSH_FAILED: i32 = 255;

/// The global options that say how to reach machines over ssh, fleet 1.0's.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options for ssh")]
pub(crate) struct SshArgs {
    /// Reach fleetd over ssh through this host
    #[arg(
        long,
        global = true,
        hide_short_help = true,
        env = "FLEETCTL_TUNNEL",
        hide_env_values = true,
        value_name = "[USER@]HOST[:PORT]"
    )]
    pub(crate) tunnel: Option<String>,
    /// The user to log in as
    #[arg(
        long,
        global = true,
        env = "FLEETCTL_SSH_USERNAME",
        hide_env_values = true,
        value_name = "USER",
        default_value = "core"
    )]
    ssh_username: String,
    /// Seconds that connecting may take
    #[arg(
        long,
        global = true,
        hide_short_help = true,
        env = "FLEETCTL_SSH_TIMEOUT",
        hide_env_values = true,
        value_name = "SECONDS",
        default_value_t = 10.0,
        value_parser = timeout
    )]
    ssh_timeout: f64,
    /// File of known hosts
    ///
    /// Not used with --strict-host-key-checking=false.
    #[arg(
        long,
        global = true,
        env = "FLEETCTL_KNOWN_HOSTS_FILE",
        hide_env_values = true,
        value_name = "FILE",
        default_value = "~/.fleetctl/known_hosts"
    )]
    known_hosts_file: PathBuf,
    /// Check each host's key
    ///
    /// Asks about a new host, and refuses one whose key has changed.
    #[arg(
        long,
        global = true,
        hide_short_help = true,
        env = "FLEETCTL_STRICT_HOST_KEY_CHECKING",
        hide_env_values = true,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_value = "true",
        default_missing_value = "true",
        value_parser = BoolishValueParser::new()
    )]
    strict_host_key_checking: bool,
}

/// A host of an ssh connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    user: Option<String>,
    name: String,
    port: u16,
}

impl Host {
    /// Reads `[USER@]HOST[:PORT]`; an IPv6 address with a port stands in brackets.
    pub(crate) fn parse(text: &str) -> Result<Host, Error> {
        let (user, rest) = match text.rsplit_once('@') {
            Some((user, rest)) => (Some(user.to_string()), rest),
            None => (None, text),
        };
        let (name, port) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((name, "")) => (name, None),
            Some((name, port)) => (name, port.strip_prefix(':').or(Some(port))),
            None => match rest.split_once(':') {
                Some((name, port)) if !port.contains(':') => (name, Some(port)),
                _ => (rest, None),
            },
        };
        let port = match port {
            None => Some(22),
            Some(port) => port.parse().ok().filter(|port| *port != 0),
        };
        // A leading dash would be an option to ssh.
        let good = |part: &str| {
            !part.is_empty() && !part.starts_with('-') && !part.contains(char::is_whitespace)
        };
        match port {
            Some(port) if good(name) && user.as_deref().is_none_or(good) => {
                Ok(Host { user, name: name.to_string(), port })
            }
            _ => Err(Error::usage(format!("{text:?} is not a host for ssh"))
                .hint("write HOST, HOST:PORT or USER@HOST:PORT")),
        }
    }

    /// A machine of the cluster, by its address as fleetd tells it; ssh runs what some other texts
    /// say.
    pub(crate) fn of_machine(address: &str, port: u16) -> Result<Host, Error> {
        match is_host(address) {
            true => Ok(Host { user: None, name: address.to_string(), port }),
            false if address.is_empty() => Err(Error::failed("the machine's address is not known")
                .hint(
                    "set public_ip in its configuration, and run `systemctl reload fleetd` there",
                )),
            false => Err(Error::failed(format!(
                "{address:?} is not a machine's address, so ssh was not run"
            ))
            .hint("check public_ip in that machine's configuration, and who set it")),
        }
    }
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name =
            if self.name.contains(':') { format!("[{}]", self.name) } else { self.name.clone() };
        if self.port == 22 { f.write_str(&name) } else { write!(f, "{name}:{}", self.port) }
    }
}

/// One ssh to run. What ssh itself says goes to a file, so that it can be told from what the remote
/// command says.
#[derive(Debug)]
pub(crate) struct Connection {
    /// ssh and its options; where it goes is to be added, and then the remote command.
    pub(crate) command: Command,
    host: Host,
    known_hosts: PathBuf,
    log: NamedTempFile,
}

impl SshArgs {
    /// Prepares a connection; through the tunnel's host if there is one, unless that is where it
    /// goes.
    pub(crate) fn connect(&self, host: &Host) -> Result<Connection, Error> {
        let known_hosts = expand_home(&self.known_hosts_file);
        let log = NamedTempFile::with_prefix("fleetctl-ssh.").map_err(|problem| {
            Error::failed(format!("cannot write a temporary file: {problem}"))
        })?;
        let mut command = Command::new("ssh");
        if self.strict_host_key_checking {
            make_folder_of(&known_hosts)?;
            answer::offer(&mut command);
        }
        command.arg("-E").arg(log.path());
        let options = self.options(&known_hosts);
        if let Some(jump) = self.tunnel_host()?.filter(|jump| jump != host) {
            // Not -J: that would not take our known_hosts.
            let mut words = vec!["ssh".to_string()];
            words.extend(options.iter().cloned());
            words.extend(self.login(&jump));
            // What ssh puts in for a percent sign is its own to say, where we did not write one.
            let plain = |words: &[String]| {
                let words: Vec<String> =
                    words.iter().map(|word| quoted(word).replace('%', "%%")).collect();
                words.join(" ")
            };
            let to = plain(&["--".to_string(), jump.name.clone()]);
            command.arg("-o").arg(format!("ProxyCommand={} -W '[%h]:%p' {to}", plain(&words)));
        }
        command.args(options).args(self.login(host));
        Ok(Connection { command, host: host.clone(), known_hosts, log })
    }

    /// The same, straight to where it goes.
    pub(crate) fn without_tunnel(&self) -> SshArgs {
        SshArgs { tunnel: None, ..self.clone() }
    }

    /// The host of `--tunnel`.
    pub(crate) fn tunnel_host(&self) -> Result<Option<Host>, Error> {
        self.tunnel.as_deref().filter(|text| !text.is_empty()).map(Host::parse).transpose()
    }

    fn options(&self, known_hosts: &Path) -> Vec<String> {
        let mut options =
            vec![format!("ConnectTimeout={}", self.ssh_timeout.ceil().max(1.0) as u64)];
        let (ask, file) = match self.strict_host_key_checking {
            true => ("ask", format!("\"{}\"", known_hosts.display())),
            false => ("no", "/dev/null".to_string()),
        };
        options.push(format!("StrictHostKeyChecking={ask}"));
        options.push(format!("UserKnownHostsFile={file}"));
        // What ssh says is read from its log, whatever the user's configuration wants to see.
        options.extend(["GlobalKnownHostsFile=/dev/null".to_string(), "LogLevel=INFO".to_string()]);
        options.into_iter().flat_map(|option| ["-o".to_string(), option]).collect()
    }

    fn login(&self, host: &Host) -> [String; 4] {
        let user = host.user.clone().unwrap_or_else(|| self.ssh_username.clone());
        ["-l".to_string(), user, "-p".to_string(), host.port.to_string()]
    }
}

impl Connection {
    /// Where it goes, after ssh's last option; the remote command comes next.
    pub(crate) fn destination(&self) -> [&str; 2] {
        // What follows the dashes is no option, whatever it looks like.
        ["--", &self.host.name]
    }

    /// Runs a command there, the user's terminal or pipes as its own; gives its exit status.
    /// Without one it is the user's shell.
    pub(crate) fn run(mut self, remote: Option<&str>) -> Result<u8, Error> {
        let to = self.destination().map(str::to_string);
        self.command.args(to).args(remote);
        let status = self.command.status().map_err(|problem| cannot_run(&problem))?;
        self.ended(status)
    }

    /// Runs a command there that only prints; what it prints passes `output`, as all that units
    /// say.
    pub(crate) fn print(mut self, remote: &str, output: &Output) -> Result<u8, Error> {
        let to = self.destination().map(str::to_string);
        self.command.args(to).arg(remote).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().map_err(|problem| cannot_run(&problem))?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let printed = std::thread::scope(|scope| {
            let say = |piece: &[u8]| {
                say_bytes(piece);
                Ok(())
            };
            scope.spawn(move || stderr.map(|stderr| pass(stderr, say)));
            let printed = stdout.map_or(Ok(()), |stdout| pass(stdout, |piece| output.bytes(piece)));
            if printed.is_err() {
                // Nobody reads on.
                let _ = child.kill();
            }
            printed
        });
        let status = child.wait().map_err(|problem| cannot_run(&problem))?;
        printed?;
        self.ended(status)
    }

    fn ended(&self, status: ExitStatus) -> Result<u8, Error> {
        match status.code() {
            Some(SSH_FAILED) => Err(self.failure()),
            code => Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(SSH_FAILED as u8)),
        }
    }

    /// Why ssh ended, from what it said: one error whatever its length.
    pub(crate) fn failure(&self) -> Error {
        let (host, file) = (&self.host, self.known_hosts.display());
        let said = self.said();
        let name = if host.port == 22 {
            host.name.clone()
        } else {
            format!("[{}]:{}", host.name, host.port)
        };
        if said.contains("HOST IDENTIFICATION HAS CHANGED") {
            let line = said.lines().find_map(|line| line.split_once("Offending ")).map_or_else(
                || file.to_string(),
                |(_, place)| {
                    place.split_once("key in ").map_or(place, |(_, place)| place).trim().to_string()
                },
            );
            return Error::failed(format!(
                "the host key of {host} has changed: it is not the one in {line}"
            ))
            .hint(format!(
                "if that machine was reinstalled: ssh-keygen -f {file} -R '{name}', then connect \
                    again; otherwise somebody may be intercepting the connection"
            ));
        }
        let last = self.last_words().unwrap_or_else(|| "it said nothing".to_string());
        let error = Error::failed(format!("cannot connect to {host} over ssh: {last}"));
        if said.contains("Host key verification failed") {
            let scan = if host.port == 22 { String::new() } else { format!("-p {} ", host.port) };
            return error.hint(format!(
                "its key is not in {file}: connect once at a terminal to say yes, or ssh-keyscan \
                    {scan}{} >> {file}",
                host.name
            ));
        }
        if said.contains("Permission denied") {
            return error.hint(
                "check that the key is in the agent (ssh-add -l) and the user is right (--ssh-username)",
            );
        }
        error
    }

    /// Where what ssh says goes, for what the remote command says.
    pub(crate) fn log(&self) -> std::io::Result<std::fs::File> {
        std::fs::File::options().append(true).open(self.log.path())
    }

    /// The last line of what ssh said so far.
    pub(crate) fn last_words(&self) -> Option<String> {
        self.said().lines().map(str::trim).rfind(|line| !line.is_empty()).map(str::to_string)
    }

    fn said(&self) -> String {
        let mut said = Vec::new();
        // Without the file there is nothing to say.
        let _ = self.log.reopen().and_then(|mut file| file.read_to_end(&mut said));
        String::from_utf8_lossy(&said).into_owned()
    }
}

/// Hands on what comes, as it comes.
fn pass(mut from: impl Read, mut to: impl FnMut(&[u8]) -> Result<(), Error>) -> Result<(), Error> {
    let mut buffer = [0; 8192];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => to(&buffer[..length])?,
            Err(problem) if problem.kind() == std::io::ErrorKind::Interrupted => {}
            Err(problem) => {
                return Err(Error::failed(format!("cannot read what ssh prints: {problem}")));
            }
        }
    }
}

/// There is no ssh to run.
pub(crate) fn cannot_run(problem: &std::io::Error) -> Error {
    let error = Error::failed(format!("cannot run ssh: {problem}"));
    match problem.kind() {
        std::io::ErrorKind::NotFound => error.hint("apt install openssh-client"),
        _ => error,
    }
}

/// A word as a shell reads it.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./=:@%+,".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_string(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

fn expand_home(path: &Path) -> PathBuf {
    match (
        path.strip_prefix("~"),
        std::env::var_os("HOME").filter(|home: &OsString| !home.is_empty()),
    ) {
        (Ok(rest), Some(home)) => Path::new(&home).join(rest),
        _ => path.to_path_buf(),
    }
}

fn make_folder_of(file: &Path) -> Result<(), Error> {
    use std::os::unix::fs::DirBuilderExt;
    let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) else {
        return Ok(());
    };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|problem| {
        Error::worded(Kind::Failed, format!("Error: cannot create {}: {problem}", folder.display()))
            .hint("name another file with --known-hosts-file")
    })
}

fn timeout(text: &str) -> Result<f64, String> {
    // ssh counts in an int of seconds; an hour is longer than anybody waits.
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= 3600.0 => Ok(seconds),
        _ => Err("give a number of seconds above 0, at most 3600".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> String {
        Host::parse(text).map_or_else(
            |_| "refused".to_string(),
            |host| format!("{:?} {} {}", host.user, host.name, host.port),
        )
    }

    #[test]
    fn a_host_may_have_a_user_and_a_port() {
        assert_eq!(host("h1"), "None h1 22");
        assert_eq!(host("h1:2222"), "None h1 2222");
        assert_eq!(host("root@10.0.0.1"), "Some(\"root\") 10.0.0.1 22");
        assert_eq!(host("[::1]:2222"), "None ::1 2222");
        assert_eq!(host("fe80::1"), "None fe80::1 22");
        for bad in ["", "-oProxyCommand=x", "h:", "h:0", "h:x", "a b", "@h", "[::1]2222x"] {
            assert_eq!(host(bad), "refused", "{bad}");
        }
    }

    #[test]
    fn only_an_address_becomes_a_machine_s_host() {
        assert_eq!(Host::of_machine("10.0.0.1", 22).unwrap().to_string(), "10.0.0.1");
        for bad in ["", "-oProxyCommand=x", "user@10.0.0.1", "$(id)", "10.0.0.1 x"] {
            assert!(Host::of_machine(bad, 22).is_err(), "{bad}");
        }
    }

    #[test]
    fn words_are_quoted_for_a_shell() {
        assert_eq!(quoted("a=b"), "a=b");
        assert_eq!(quoted("it's $x"), r"'it'\''s $x'");
        assert_eq!(quoted(""), "''");
    }
}
