//! A real etcd of one member for a test, in a temporary folder, killed when dropped.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use fleet_tls::Files;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use tempfile::TempDir;

/// How long an etcd may take until it answers; it needs half a second on an idle machine.
const START: Duration = Duration::from_secs(30);

/// A running (or stopped) etcd.
pub struct Etcd {
    binary: PathBuf,
    folder: TempDir,
    ports: [u16; 2],
    /// Options beside those that every one gets.
    options: Vec<String>,
    child: Option<Child>,
    tls: Option<Files>,
}

/// The etcds to test with: `etcd` in PATH and every path in `FLEET_TEST_ETCD`, separated by colons.
/// An error says what to install.
pub fn binaries() -> anyhow::Result<Vec<PathBuf>> {
    let mut binaries = vec![PathBuf::from("etcd")];
    let more = std::env::var_os("FLEET_TEST_ETCD").unwrap_or_default();
    binaries.extend(std::env::split_paths(&more).filter(|path| !path.as_os_str().is_empty()));
    for binary in &binaries {
        let version = Command::new(binary).arg("--version").output();
        version.with_context(|| {
            format!("cannot run {}; `make test` installs Debian's etcd-server", binary.display())
        })?;
    }
    Ok(binaries)
}

impl Etcd {
    /// Starts an empty one and waits until it answers.
    pub async fn start(binary: &Path) -> anyhow::Result<Etcd> {
        Etcd::start_with(binary, &[]).await
    }

    /// The same, with further options.
    pub async fn start_with(binary: &Path, options: &[&str]) -> anyhow::Result<Etcd> {
        Etcd::start_secured(binary, None, options).await
    }

    /// The same over TLS: `tls` is etcd's certificate with its CA, from which a client must have
    /// one, too.
    pub async fn start_secured(
        binary: &Path,
        tls: Option<Files>,
        options: &[&str],
    ) -> anyhow::Result<Etcd> {
        let options: Vec<String> = options.iter().map(ToString::to_string).collect();
        // Another process may take a free port before etcd does; then etcd exits and others are
        // tried.
        let mut problem = None;
        for _ in 0..5 {
            let ports = [free_port()?, free_port()?];
            let mut etcd = Etcd {
                binary: binary.into(),
                folder: tempfile::tempdir()?,
                ports,
                options: options.clone(),
                child: None,
                tls: tls.clone(),
            };
            match etcd.run().await {
                Ok(()) => return Ok(etcd),
                Err(error) => problem = Some(error),
            }
        }
        bail!("{} does not start: {problem:?}", binary.display())
    }

    /// Where clients reach it.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.ports[0])
    }

    /// Starts it again, with its data, where it was.
    pub async fn run(&mut self) -> anyhow::Result<()> {
        let peer = format!("http://127.0.0.1:{}", self.ports[1]);
        let log = std::fs::File::create(self.folder.path().join("log"))?;
        let mut command = Command::new(&self.binary);
        command.arg("--data-dir").arg(self.folder.path().join("data"));
        command.args(["--listen-client-urls", &self.url(), "--advertise-client-urls", &self.url()]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--name", "test", "--initial-cluster", &format!("test={peer}")]);
        if let Some(Files { ca: Some(ca), cert: Some(cert), key: Some(key) }) = &self.tls {
            command.arg("--client-cert-auth").arg("--trusted-ca-file").arg(ca);
            command.arg("--cert-file").arg(cert).arg("--key-file").arg(key);
        }
        // What is tested is fleet, not etcd's durability, and the machine's disk is shared.
        command.arg("--unsafe-no-fsync").args(&self.options);
        self.child = Some(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?);
        let deadline = Instant::now() + START;
        loop {
            let tls = self.tls.as_ref().map_or(Ok(fleet_tls::plain()), fleet_tls::client)?;
            let client = crate::http_with(tls).timeout(Duration::from_secs(1)).build()?;
            match client.get(format!("{}/health", self.url())).send().await {
                Ok(answer) if answer.status().is_success() => return Ok(()),
                _ if Instant::now() > deadline => {
                    bail!("no answer within {START:?}: {}", self.log())
                }
                _ => {}
            }
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().transpose())
            {
                bail!("it ended, {}: {}", status?, self.log());
            }
            // A pause between two looks at another process, which has no other way to say that it
            // is ready.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Kills it, like a power failure; its data stays.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Stops it in its tracks: connections stay open and nothing answers.
    pub fn pause(&self) -> anyhow::Result<()> {
        let pid = self.signal(Signal::STOP)?;
        // On a busy machine the signal takes effect a while after it was sent.
        waitpid(Some(pid), WaitOptions::UNTRACED)?;
        Ok(())
    }

    /// Goes on after [`Etcd::pause`].
    pub fn resume(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)?;
        Ok(())
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<Pid> {
        let child = self.child.as_ref().context("it does not run")?;
        kill_process(Pid::from_child(child), signal)?;
        Ok(Pid::from_child(child))
    }

    fn log(&self) -> String {
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // Also after a panic; nobody is left to tell of a failure.
        let _ = self.kill();
    }
}

/// A port where nothing listens, below 32768: from there on Linux hands out ports to outgoing
/// connections, and one of those could take it before it is used, or connect to itself.
pub fn free_port() -> anyhow::Result<u16> {
    const RANGE: std::ops::Range<u16> = 20000..32000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Each process starts elsewhere, so that test binaries running together rarely try the same
    // ones.
    let start = (std::process::id().wrapping_mul(37) % u32::from(RANGE.end - RANGE.start)) as u16;
    for _ in RANGE {
        let offset =
            start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % (RANGE.end - RANGE.start);
        let port = RANGE.start + offset;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port in {RANGE:?}")
}
