//! A fleetd of its own folder, with no bus to a systemd: what it is asked here are its API, its
//! store and its signals.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fleet_core::wire::{ErrorBody, MachinePage};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// How long anything may take to happen. Far above what it does take, since the machine may be
/// busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks at another process, which has no other way to say that it is ready.
const LOOK: Duration = Duration::from_millis(20);

/// A running fleetd. It is killed when dropped.
pub(crate) struct Fleetd {
    folder: TempDir,
    child: Child,
}

impl Fleetd {
    /// Starts one with `config`, beside what keeps it in its folder.
    pub(crate) fn start(folder: TempDir, config: &str) -> Fleetd {
        Fleetd::spawn(folder, config, None)
    }

    /// The same with a socket as systemd hands it over.
    pub(crate) fn start_with(folder: TempDir, config: &str, socket: impl Into<OwnedFd>) -> Fleetd {
        Fleetd::spawn(folder, config, Some(socket.into()))
    }

    fn spawn(folder: TempDir, config: &str, socket: Option<OwnedFd>) -> Fleetd {
        write_config(folder.path(), config);
        // The socket comes as standard input, and is file 3 from then on; the shell's process
        // becomes fleetd.
        let script = match &socket {
            Some(_) => r#"exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" "$@""#,
            None => r#"exec "$0" "$@""#,
        };
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", script])
            .arg(fleetd())
            .arg("--config")
            .arg(folder.path().join("fleetd.conf"));
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nowhere");
        command.stdin(socket.map_or_else(Stdio::null, Stdio::from));
        let child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        Fleetd { folder, child }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes the configuration anew and sends SIGHUP.
    pub(crate) fn reload(&self, config: &str) {
        write_config(self.path(), config);
        kill_process(Pid::from_child(&self.child), Signal::HUP).unwrap();
    }

    /// What it said so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path().join("log")).unwrap_or_default()
    }

    /// The machines and whether each leads, over its unix socket; an error is what it says, or why
    /// it does not.
    pub(crate) async fn leads(&self) -> Result<Vec<bool>, String> {
        let client =
            fleet_tests::http().unix_socket(self.path().join("fleet.sock")).build().unwrap();
        let answer = client
            .get("http://fleetd/fleet/v1/machines")
            .send()
            .await
            .map_err(|error| error.to_string())?;
        let body = answer.text().await.map_err(|error| error.to_string())?;
        match serde_json::from_str::<ErrorBody>(&body) {
            Ok(ErrorBody { error }) => {
                Err(format!("{}: {}", error.message, error.detail.unwrap_or_default()))
            }
            Err(_) => {
                let page: MachinePage =
                    serde_json::from_str(&body).map_err(|error| format!("{error}: {body}"))?;
                Ok(page.machines.iter().map(|machine| machine.leader).collect())
            }
        }
    }

    /// Waits until it answers as wanted.
    pub(crate) async fn until(
        &self,
        what: &str,
        wanted: impl Fn(&Result<Vec<bool>, String>) -> bool,
    ) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said = self.leads().await;
            if wanted(&said) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{what}: the last answer is {said:?}; {}",
                self.log()
            );
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until it has said this.
    pub(crate) async fn until_said(&self, words: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.log().contains(words) {
            assert!(Instant::now() < deadline, "it has not said {words:?}: {}", self.log());
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Drop for Fleetd {
    fn drop(&mut self) {
        // Also after a panic; nobody is left to tell of a failure.
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}

fn write_config(folder: &Path, config: &str) {
    let at = |name: &str| folder.join(name).display().to_string();
    let own = format!(
        "socket = {:?}\ndata_dir = {:?}\nrun_dir = {:?}\nunits_directory = {:?}\n",
        at("fleet.sock"),
        at("data"),
        at("run"),
        at("units")
    );
    std::fs::write(folder.join("fleetd.conf"), own + config).unwrap();
}

/// Beside the test's own folder; `make test` builds it.
fn fleetd() -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    let path = exe.ancestors().nth(2).unwrap().join("fleetd");
    assert!(path.exists(), "{} is missing; run `cargo build -p fleetd`", path.display());
    path
}
