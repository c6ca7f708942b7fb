//! A real OpenSSH server on a loopback port, with keys of its own and an agent that has the user's.
//! Nothing of the machine's ssh is touched.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A server that runs until the test ends.
pub(crate) struct Sshd {
    /// Where it listens.
    pub(crate) port: u16,
    /// The agent's socket.
    pub(crate) agent_socket: String,
    agent: Child,
}

impl Sshd {
    /// Starts one whose files lie in `folder`, with these lines of configuration besides. Remote
    /// commands find `folder/bin` first.
    pub(crate) fn start(folder: &Path, lines: &str) -> Sshd {
        let at = |name: &str| folder.join(name).display().to_string();
        for name in ["host_key", "user_key"] {
            run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &at(name)]);
        }
        let config = format!(
            "HostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\nPasswordAuthentication \
                no\n\
             KbdInteractiveAuthentication no\nPrintMotd no\nPrintLastLog no\nSetEnv \
             PATH={}:/usr/sbin:/usr/bin:/sbin:/bin\n{lines}\n",
            at("host_key"),
            at("user_key.pub"),
            at("bin")
        );
        std::fs::write(folder.join("sshd_config"), config).expect("a configuration");
        // Where sshd leaves its privileges; a machine whose sshd never ran has none.
        let _ = std::fs::create_dir("/run/sshd");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let config = at("sshd_config");
        std::thread::spawn(move || {
            // As inetd would: one server a connection, so that the port is ours from the start.
            for stream in listener.incoming().map_while(Result::ok) {
                let copy = stream.try_clone().expect("a socket");
                let server = Command::new("/usr/sbin/sshd")
                    .args(["-i", "-e", "-f", &config])
                    .stdin(Stdio::from(OwnedFd::from(copy)))
                    .stdout(Stdio::from(OwnedFd::from(stream)))
                    .stderr(Stdio::null())
                    .spawn();
                let mut server = server.expect("sshd runs; apt install openssh-server");
                std::thread::spawn(move || server.wait());
            }
        });
        let agent_socket = at("agent.sock");
        let agent = Command::new("ssh-agent")
            .args(["-D", "-a", &agent_socket])
            .stdout(Stdio::null())
            .spawn()
            .expect("an agent");
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        let add = || {
            let mut command = Command::new("ssh-add");
            command
                .args(["-q", &at("user_key")])
                .env("SSH_AUTH_SOCK", &agent_socket)
                .stderr(Stdio::null());
            command.status().expect("ssh-add runs").success()
        };
        while !add() {
            assert!(std::time::Instant::now() < deadline, "the agent takes no key");
            std::thread::yield_now();
        }
        Sshd { port, agent_socket, agent }
    }

    /// A line of known_hosts with the server's key, or with the user's, which is not the server's.
    pub(crate) fn known_host(&self, folder: &Path, key: &str) -> String {
        let key = std::fs::read_to_string(folder.join(key)).expect("a key");
        format!("[127.0.0.1]:{} {key}", self.port)
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.agent.kill();
        let _ = self.agent.wait();
    }
}

fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "{program} {arguments:?}; apt install openssh-server"
    );
}
