//! Runs the built fleetctl against a fake fleetd, and shows what it printed the way the transcripts
//! of fleet 1.0 do.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::fake::Fake;

/// A directory with unit files, and a fleetd with a few machines.
pub(crate) struct Session {
    dir: tempfile::TempDir,
    /// The fleetd.
    pub(crate) fake: Fake,
}

/// The unit that most tests use; its hash in fleet 1.0 was 1253888….
pub(crate) const HELLO: &str = "[Unit]\nDescription=Hello World\n\n[Service]\nExecStart=/bin/bash \
    -c \"while true; do echo Hello, World!; sleep 2; done\"\n";

/// A template.
pub(crate) const WEB: &str = "[Service]\nExecStart=/bin/web %i\n";

impl Session {
    /// One machine, as in the transcripts.
    pub(crate) fn new() -> Session {
        Session::with_machines(&[("c2e1b5180a5ec645aa037c911a0f20bb", "127.0.0.1", "node=a")])
    }

    /// Three machines.
    pub(crate) fn of_three() -> Session {
        Session::with_machines(&[
            ("a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1", "10.0.0.1", "region=us"),
            ("b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2", "10.0.0.2", "region=us"),
            ("c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3", "10.0.0.3", ""),
        ])
    }

    /// Machines of a test's own: id, address, label.
    pub(crate) fn with_machines(machines: &[(&str, &str, &str)]) -> Session {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let fake = Fake::start(&dir.path().join("fleet.sock"), machines);
        Session { dir, fake }
    }

    /// Where the unit files lie and fleetctl runs.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Where the fleetd listens.
    pub(crate) fn endpoint(&self) -> String {
        format!("unix://{}/fleet.sock", self.dir.path().display())
    }

    /// Writes a file.
    pub(crate) fn file(&self, path: &str, text: impl AsRef<[u8]>) -> &Session {
        let path = self.dir.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(path, text).expect("a file");
        self
    }

    /// A fleetctl, ready to run.
    pub(crate) fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fleetctl"));
        command.args(arguments.split(' ').filter(|a| !a.is_empty())).current_dir(self.dir.path());
        command.env_clear().env("FLEETCTL_ENDPOINT", self.endpoint());
        command
    }

    /// Runs one command and shows its stdout, stderr and exit code.
    pub(crate) fn run(&self, arguments: &str) -> String {
        let output = self.command(arguments).output().expect("fleetctl runs");
        let marked = |mark: &str, bytes: &[u8]| -> String {
            String::from_utf8_lossy(bytes).lines().map(|line| format!("{mark}| {line}\n")).collect()
        };
        let text = format!(
            "$ fleetctl {arguments}\n{}{}rc={}\n",
            marked("out", &output.stdout),
            marked("err", &output.stderr),
            output.status.code().unwrap_or(-1)
        );
        text.replace(&self.dir.path().display().to_string(), "DIR")
    }

    /// What a command that never ends prints, until it has printed so many lines.
    pub(crate) fn follow(&self, arguments: &str, lines: usize) -> String {
        let mut command = self.command(arguments);
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("fleetctl runs");
        let printed = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let printed: Vec<String> = printed.take(lines).map(|line| line.expect("text")).collect();
        child.kill().expect("it runs still");
        child.wait().expect("it has ended");
        format!("$ fleetctl {arguments}\n{}\n", printed.join("\n"))
    }

    /// Runs one command a line.
    pub(crate) fn transcript(&self, commands: &str) -> String {
        let shown: Vec<String> = commands
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .map(|line| self.run(line))
            .collect();
        shown.join("\n")
    }
}
