//! What goes over ssh, with a real sshd on a loopback port: tunnels, `ssh`, `status` and `journal`;
//! hosts that cannot be trusted.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use expect_test::expect;

use crate::session::{HELLO, Session};
use crate::sshd::Sshd;

/// A fleetd whose one machine is this one, and its sshd.
struct Ssh {
    session: Session,
    sshd: Sshd,
}

impl Ssh {
    fn new() -> Ssh {
        Ssh::configured("")
    }

    /// With these lines in the sshd's configuration.
    fn configured(lines: &str) -> Ssh {
        let session = Session::new();
        for tool in ["systemctl", "journalctl", "sudo"] {
            session
                .file(&format!("bin/{tool}"), format!("#!/bin/sh\necho {tool} \"$@\"\nexit 3\n"));
            run("chmod", &["+x", &session.path().join("bin").join(tool).display().to_string()]);
        }
        let sshd = Sshd::start(session.path(), lines);
        Ssh { session, sshd }
    }

    /// Writes known_hosts where fleet 1.0 had it, under the user's home.
    fn knows(self, key: &str) -> Ssh {
        let line = self.sshd.known_host(self.session.path(), key);
        self.session.file(".fleetctl/known_hosts", line);
        self
    }

    fn known_hosts(&self) -> String {
        std::fs::read_to_string(self.session.path().join(".fleetctl/known_hosts"))
            .unwrap_or_default()
    }

    /// fleetctl as a program without a terminal runs it; PORT stands for the sshd's.
    fn command(&self, program: &str, arguments: &str) -> Command {
        let template = self.session.command("");
        let mut command = Command::new(program);
        for (name, value) in template.get_envs().filter_map(|(name, value)| Some((name, value?))) {
            command.env(name, value);
        }
        let user = Command::new("id").arg("-un").output().expect("id runs").stdout;
        command
            .current_dir(self.session.path())
            .env("HOME", self.session.path())
            .env("SSH_AUTH_SOCK", &self.sshd.agent_socket);
        command.env("FLEETCTL_SSH_USERNAME", String::from_utf8_lossy(&user).trim());
        command.args(
            arguments
                .replace("PORT", &self.sshd.port.to_string())
                .split(' ')
                .filter(|word| !word.is_empty()),
        );
        command
    }

    fn run(&self, arguments: &str) -> String {
        let fleetctl = env!("CARGO_BIN_EXE_fleetctl");
        let output = self
            .command("setsid", &format!("-w {fleetctl} {arguments}"))
            .stdin(Stdio::null())
            .output()
            .expect("it runs");
        let text = format!(
            "$ fleetctl {arguments}\n{}{}rc={}\n",
            marked("out", &output.stdout),
            marked("err", &output.stderr),
            output.status.code().unwrap_or(-1)
        );
        text.replace(&self.sshd.port.to_string(), "PORT")
            .replace(&self.session.path().display().to_string(), "DIR")
    }
}

fn run(program: &str, arguments: &[&str]) {
    assert!(
        Command::new(program).args(arguments).status().is_ok_and(|status| status.success()),
        "{program} {arguments:?}"
    );
}

fn marked(mark: &str, bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).lines().map(|line| format!("{mark}| {line}\n")).collect()
}

#[test]
fn ssh_runs_a_command_on_a_machine_and_ends_with_its_status() {
    let ssh = Ssh::new().knows("host_key.pub");
    ssh.session.file("hello.service", HELLO);
    ssh.session.run("start hello.service");
    ssh.session.file("solo.container", "[Container]\nImage=x\n");
    ssh.session.run("start solo");
    let said = [
        "ssh --ssh-port PORT c2e1b518 echo a b",
        "ssh --ssh-port=PORT --machine=c2e1b5180a5ec645aa037c911a0f20bb exit 7",
        "ssh --ssh-port PORT hello.service -- ls -d /",
        "ssh --ssh-port PORT --unit hello -A test -S $SSH_AUTH_SOCK",
        "ssh --ssh-port PORT solo echo container",
        "ssh --ssh-port PORT nosuch",
        "ssh",
        "ssh --machine=a --unit=b",
    ]
    .map(|arguments| ssh.run(arguments));
    expect![[r#"
        $ fleetctl ssh --ssh-port PORT c2e1b518 echo a b
        out| a b
        rc=0

        $ fleetctl ssh --ssh-port=PORT --machine=c2e1b5180a5ec645aa037c911a0f20bb exit 7
        rc=7

        $ fleetctl ssh --ssh-port PORT hello.service -- ls -d /
        out| /
        rc=0

        $ fleetctl ssh --ssh-port PORT --unit hello -A test -S $SSH_AUTH_SOCK
        rc=0

        $ fleetctl ssh --ssh-port PORT solo echo container
        out| container
        rc=0

        $ fleetctl ssh --ssh-port PORT nosuch
        err| Unable to proceed: could not find matching unit or machine
        rc=1

        $ fleetctl ssh
        err| Unable to proceed: one machine or unit must be provided
        rc=1

        $ fleetctl ssh --machine=a --unit=b
        err| Error: the argument '--machine <ID>' cannot be used with '--unit <UNIT>'
        err| 
        err| Usage: fleetctl ssh --machine <ID> [X | COMMAND]...
        err| 
        err| For more information, try '--help'.
        rc=2
    "#]]
    .assert_eq(&said.join("\n"));
}

#[test]
fn status_and_journal_ask_the_machine_itself_when_told_its_ssh_port() {
    let ssh = Ssh::new().knows("host_key.pub");
    ssh.session.file("hello.service", HELLO);
    ssh.session.run("start hello.service");
    ssh.session.fake.cluster().stopping.insert("gone.service".to_string());
    let said = [
        "status --ssh-port PORT hello",
        "status --ssh-port PORT gone",
        "journal --ssh-port PORT --lines 3 hello",
        "journal --ssh-port=PORT --sudo -f hello.service",
        "journal --ssh-port=PORT nosuch",
    ]
    .map(|arguments| ssh.run(arguments));
    expect![[r#"
        $ fleetctl status --ssh-port PORT hello
        out| systemctl status -l --no-pager -- hello.service
        rc=3

        $ fleetctl status --ssh-port PORT gone
        out| systemctl status -l --no-pager -- gone.service
        rc=3

        $ fleetctl journal --ssh-port PORT --lines 3 hello
        out| journalctl --unit hello.service --no-pager -n 3 --output short
        rc=3

        $ fleetctl journal --ssh-port=PORT --sudo -f hello.service
        out| sudo journalctl --unit hello.service --no-pager -n 10 --output short -f
        rc=3

        $ fleetctl journal --ssh-port=PORT nosuch
        err| Unit nosuch.service does not exist.
        err| Hint: `fleetctl list-unit-files` shows what the cluster has
        rc=1
    "#]]
    .assert_eq(&said.join("\n"));
}

#[test]
fn a_tunnel_leads_to_a_socket_and_to_an_address_of_the_other_host() {
    let ssh = Ssh::new().knows("host_key.pub");
    let said = ssh.run("--tunnel 127.0.0.1:PORT list-machines --no-legend");
    assert!(said.contains("out| c2e1b518...\t127.0.0.1\tnode=a\nrc=0"), "{said}");
    // An address that answers: HTTP over TCP, passed on to the socket.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let socket = ssh.session.path().join("fleet.sock");
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let inner =
                std::os::unix::net::UnixStream::connect(&socket).expect("the fake's socket");
            let (mut up, mut down) =
                (stream.try_clone().expect("a socket"), inner.try_clone().expect("a socket"));
            let (mut from, mut to) = (stream, inner);
            std::thread::spawn(move || std::io::copy(&mut down, &mut up));
            std::thread::spawn(move || std::io::copy(&mut from, &mut to));
        }
    });
    let said = ssh.run(&format!(
        "--tunnel 127.0.0.1:PORT --endpoint http://{address} list-machines --no-legend"
    ));
    assert!(said.contains("out| c2e1b518...\t127.0.0.1\tnode=a\nrc=0"), "{said}");
    // ssh to a machine goes through the tunnel's host, too.
    let said = ssh.run("--tunnel 127.0.0.1:PORT ssh --ssh-port PORT c2e1 echo hello");
    assert!(said.contains("out| hello\nrc=0"), "{said}");
}

#[test]
fn a_write_is_sent_once_however_its_connection_ends() {
    let session = Session::new();
    // An ssh that forwards sockets, and says of another connection that it came to nothing.
    let ssh = r#"#!/bin/sh
log=$2
for last; do
    case $previous in -L) forward=$last;; esac
    previous=$last
done
case $last in
    "fleetctl fd-forward "*) eval "exec $last";;
esac
echo 'channel 2: open failed: connect failed: open failed' >> "$log"
stat -c %a "$(dirname "${forward%%:*}")" > mode
ln -s "${forward##*:}" "${forward%%:*}"
exec sleep 60
"#;
    session.file("bin/ssh", ssh);
    run("chmod", &["+x", &session.path().join("bin/ssh").display().to_string()]);
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_fleetctl"), session.path().join("bin/fleetctl"))
        .expect("a link");
    // A server that takes a write and is gone before it answers.
    let listener = std::os::unix::net::UnixListener::bind(session.path().join("breaks.sock"))
        .expect("a socket");
    let (heard, requests) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut request = Vec::new();
            let mut bytes = [0; 4096];
            while let Ok(n @ 1..) = stream.read(&mut bytes) {
                request.extend_from_slice(&bytes[..n]);
                if request.windows(4).any(|end| end == b"\r\n\r\n") {
                    let line = String::from_utf8_lossy(&request)
                        .lines()
                        .next()
                        .unwrap_or_default()
                        .to_string();
                    let asks = line.starts_with("GET");
                    let _ = heard.send(line);
                    if !asks {
                        break;
                    }
                    let answer =
                        b"HTTP/1.1 200 OK\r\nContent-Length: 19\r\n\r\n{\"version\":\"2.0.0\"}";
                    stream.write_all(answer).expect("an answer");
                    request.clear();
                }
            }
        }
    });
    let path = format!(
        "{}:{}",
        session.path().join("bin").display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let endpoint = format!("unix://{}/breaks.sock", session.path().display());
    let mut command =
        session.command(&format!("--tunnel far --endpoint {endpoint} rollback hello.service"));
    let output = command.env("PATH", path).env("HOME", session.path()).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.code() == Some(1) && said.contains("Error rolling back hello.service"),
        "{said}"
    );
    let requests: Vec<String> = requests.try_iter().collect();
    let writes = requests.iter().filter(|line| line.starts_with("POST")).count();
    assert_eq!(writes, 1, "{requests:?} {said}");
    // Who may use the sockets has the power of who opened them.
    assert_eq!(std::fs::read_to_string(session.path().join("mode")).expect("a mode"), "700\n");
}

#[test]
fn a_tunnel_to_a_socket_that_is_not_there_says_so() {
    let ssh = Ssh::new().knows("host_key.pub");
    let said =
        ssh.run("--tunnel 127.0.0.1:PORT --endpoint unix:///nonexistent/fleet.sock list-units");
    expect![[r#"
        $ fleetctl --tunnel 127.0.0.1:PORT --endpoint unix:///nonexistent/fleet.sock list-units
        err| Error retrieving list of units from repository: GET unix:///nonexistent/fleet.sock/fleet/v1/state: channel 2: open failed: connect failed: open failed
        err| Hint: the socket does not exist, or that user (--ssh-username) may not use it, or the host's sshd forwards no sockets (AllowStreamLocalForwarding); with fleetctl installed there that is not needed
        rc=1
    "#]]
    .assert_eq(&said);
}

#[test]
fn a_host_that_forbids_to_forward_sockets_is_asked_by_its_own_fleetctl() {
    let ssh = Ssh::configured("AllowStreamLocalForwarding no\nAllowTcpForwarding no")
        .knows("host_key.pub");
    let said = ["", "--endpoint http://127.0.0.1:1 "]
        .map(|more| ssh.run(&format!("--tunnel 127.0.0.1:PORT {more}list-machines")));
    expect![[r#"
        $ fleetctl --tunnel 127.0.0.1:PORT list-machines
        err| Error retrieving list of active machines from fleet API (GET unix://DIR/fleet.sock/fleet/v1/machines: channel 1: open failed: connect failed: open failed)
        err| Possible issues:
        err|   etcd is unhealthy and/or lost quorum
        err|   connection cannot be established to any etcd servers
        err| Hint: the socket does not exist, or that user (--ssh-username) may not use it, or the host's sshd forwards no sockets (AllowStreamLocalForwarding); with fleetctl installed there that is not needed
        rc=1

        $ fleetctl --tunnel 127.0.0.1:PORT --endpoint http://127.0.0.1:1 list-machines
        err| Error retrieving list of active machines from fleet API (GET http://127.0.0.1:1/fleet/v1/machines: channel 1: open failed: administratively prohibited: open failed)
        err| Possible issues:
        err|   etcd is unhealthy and/or lost quorum
        err|   connection cannot be established to any etcd servers
        err| Hint: the host's sshd does not allow this forwarding: change AllowTcpForwarding or PermitOpen there, or name its socket with --endpoint
        rc=1
    "#]]
    .assert_eq(&said.join("\n"));
    std::os::unix::fs::symlink(
        env!("CARGO_BIN_EXE_fleetctl"),
        ssh.session.path().join("bin/fleetctl"),
    )
    .expect("a link");
    ssh.session.file("hello.service", HELLO);
    let said = [
        "start hello.service",
        "list-machines --no-legend",
        "--endpoint unix:///nonexistent list-machines",
    ]
    .map(|command| ssh.run(&format!("--tunnel 127.0.0.1:PORT {command}")));
    expect![[r#"
        $ fleetctl --tunnel 127.0.0.1:PORT start hello.service
        out| Unit hello.service inactive
        out| Unit hello.service launched on c2e1b518.../127.0.0.1
        rc=0

        $ fleetctl --tunnel 127.0.0.1:PORT list-machines --no-legend
        out| c2e1b518...	127.0.0.1	node=a
        rc=0

        $ fleetctl --tunnel 127.0.0.1:PORT --endpoint unix:///nonexistent list-machines
        err| Error retrieving list of active machines from fleet API (GET unix:///nonexistent/fleet/v1/machines: Error: /nonexistent: No such file or directory (os error 2))
        err| Possible issues:
        err|   etcd is unhealthy and/or lost quorum
        err|   connection cannot be established to any etcd servers
        err| Hint: is that a fleetd? `fleetctl version --json` shows both versions
        rc=1
    "#]]
    .assert_eq(&said.join("\n"));
}

#[test]
fn a_changed_host_key_is_one_clear_error() {
    let ssh = Ssh::new().knows("user_key.pub");
    for arguments in ["--tunnel 127.0.0.1:PORT list-units", "ssh --ssh-port PORT c2e1b518 true"] {
        let said = ssh.run(arguments);
        let expected = "\
            err| Error: the host key of 127.0.0.1:PORT has changed: it is not the one in \
            DIR/.fleetctl/known_hosts:1\n\
            err| Hint: if that machine was reinstalled: ssh-keygen -f DIR/.fleetctl/known_hosts \
            -R '[127.0.0.1]:PORT', then connect again; otherwise somebody may be intercepting the \
            connection\n\
            rc=1\n";
        assert_eq!(said, format!("$ fleetctl {arguments}\n{expected}"));
    }
    let said = ssh
        .run("--strict-host-key-checking=false --tunnel 127.0.0.1:PORT list-machines --no-legend");
    assert!(said.contains("rc=0"), "{said}");
}

#[test]
fn a_new_host_is_asked_about_at_a_terminal_and_refused_without_one() {
    let ssh = Ssh::new();
    expect![[r#"
        $ fleetctl --tunnel 127.0.0.1:PORT list-units
        err| Error: cannot connect to 127.0.0.1:PORT over ssh: Host key verification failed.
        err| Hint: its key is not in DIR/.fleetctl/known_hosts: connect once at a terminal to say yes, or ssh-keyscan -p PORT 127.0.0.1 >> DIR/.fleetctl/known_hosts
        rc=1
    "#]]
    .assert_eq(&ssh.run("--tunnel 127.0.0.1:PORT list-units"));
    assert_eq!(ssh.known_hosts(), "");
    // `script` gives it a terminal.
    let line = format!(
        "{} --tunnel 127.0.0.1:{} list-machines --no-legend",
        env!("CARGO_BIN_EXE_fleetctl"),
        ssh.sshd.port
    );
    let mut child = ssh.command("script", "-qec");
    let mut child = child
        .arg(line)
        .arg("/dev/null")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("script runs");
    let (mut stdin, mut stdout) =
        (child.stdin.take().expect("stdin"), child.stdout.take().expect("stdout"));
    let mut said = Vec::new();
    let mut byte = [0];
    while !String::from_utf8_lossy(&said).contains("continue connecting (yes/no") {
        assert_eq!(
            stdout.read(&mut byte).expect("its words"),
            1,
            "{}",
            String::from_utf8_lossy(&said)
        );
        said.extend_from_slice(&byte);
    }
    stdin.write_all(b"yes\n").expect("an answer");
    stdout.read_to_end(&mut said).expect("its words");
    assert!(
        String::from_utf8_lossy(&said).contains("c2e1b518..."),
        "{}",
        String::from_utf8_lossy(&said)
    );
    assert!(child.wait().expect("it ends").success());
    assert!(ssh.known_hosts().contains("ssh-ed25519"), "{}", ssh.known_hosts());
    assert!(ssh.run("--tunnel 127.0.0.1:PORT list-units").ends_with("rc=0\n"));
}

#[test]
fn a_key_that_is_not_the_users_and_a_silent_host_are_said_so() {
    let ssh = Ssh::new().knows("host_key.pub");
    let mut child = ssh.command(
        "setsid",
        &format!("-w {} --tunnel 127.0.0.1:PORT list-units", env!("CARGO_BIN_EXE_fleetctl")),
    );
    let output = child.env_remove("SSH_AUTH_SOCK").output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("Permission denied (publickey)")
            && said.contains("Hint: check that the key is in the agent"),
        "{said}"
    );
    // A host that takes a connection and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = silent.local_addr().expect("an address").port();
    let said = ssh.run(&format!("--ssh-timeout 1 --tunnel 127.0.0.1:{port} list-units"));
    assert!(
        said.contains("Error: cannot connect to 127.0.0.1:")
            && said.contains("timed out")
            && said.ends_with("rc=1\n"),
        "{said}"
    );
}

#[test]
fn fd_forward_leaves_the_socket_open_until_the_answer_is_there() {
    let session = Session::new();
    let path = session.path().join("slow.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
    let mut child = session
        .command(&format!("fd-forward {}", path.display()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    let (mut server, _) = listener.accept().expect("a client");
    child.stdin.take().expect("stdin").write_all(b"question").expect("a question"); // and its end
    let mut question = [0; 8];
    server.read_exact(&mut question).expect("the question");
    server.set_read_timeout(Some(std::time::Duration::from_millis(500))).expect("a limit");
    let early = server.read(&mut question);
    assert!(
        early.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock),
        "before the answer: {early:?}"
    );
    server.write_all(b"answer").expect("an answer");
    drop(server);
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success() && output.stdout == b"answer", "{output:?}");
}

#[test]
fn fd_forward_joins_its_pipes_to_a_socket() {
    let session = Session::new();
    let mut child = session
        .command(&format!("fd-forward {}/fleet.sock", session.path().display()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut stdin = child.stdin.take().expect("stdin");
    stdin
        .write_all(b"GET /fleet/v1/machines HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .expect("a request");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let answer = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success()
            && answer.starts_with("HTTP/1.1 200 OK")
            && answer.contains("c2e1b518"),
        "{answer}"
    );
    expect![[r#"
        $ fleetctl fd-forward
        err| Provide a single argument
        rc=1

        $ fleetctl fd-forward /nonexistent
        err| Error: /nonexistent: No such file or directory (os error 2)
        rc=1

        $ fleetctl verify x
        err| Command "verify" is deprecated, DEPRECATED - No longer works
        err| WARNING: The signed/verified units feature is DEPRECATED and cannot be used.
        rc=2
    "#]]
    .assert_eq(&session.transcript("fd-forward\nfd-forward /nonexistent\nverify x"));
}

#[test]
fn an_address_that_is_none_never_reaches_ssh_and_one_that_is_stands_after_the_options() {
    let fake = |address: &str| {
        let session = Session::with_machines(&[("c2e1b5180a5ec645aa037c911a0f20bb", address, "")]);
        session.file("hello.service", HELLO).run("start hello.service");
        session.file("bin/ssh", "#!/bin/sh\nshift 2\necho ran \"$@\"\n");
        run("chmod", &["+x", &session.path().join("bin/ssh").display().to_string()]);
        session
    };
    let commands = [
        "ssh c2e1 uptime",
        "ssh hello uptime",
        "status --ssh-port=22 hello",
        "journal --ssh-port=22 hello",
    ];
    let said = |session: &Session, arguments: &str| {
        let path = format!(
            "{}:{}",
            session.path().join("bin").display(),
            std::env::var("PATH").unwrap_or_default()
        );
        let mut command = session.command(arguments);
        let output =
            command.env("PATH", path).env("HOME", session.path()).output().expect("it runs");
        format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    };
    for address in ["-oProxyCommand=touch pwned", "$(touch pwned)", ""] {
        let session = fake(address);
        for arguments in commands {
            let said = said(&session, arguments);
            assert!(said.contains("address") && !said.contains("ran "), "{arguments}: {said}");
        }
    }
    let session = fake("10.0.0.7");
    for arguments in commands {
        let said = said(&session, arguments);
        assert!(said.contains(" -- 10.0.0.7 "), "{arguments}: {said}");
    }
}

#[test]
fn without_a_terminal_the_answer_about_a_new_host_may_come_on_stdin() {
    let ssh = Ssh::new();
    let fleetctl = env!("CARGO_BIN_EXE_fleetctl");
    let answered = |arguments: &str, stdin: &str| {
        let mut command = ssh.command("setsid", &format!("-w {fleetctl} {arguments}"));
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it runs");
        child.stdin.take().expect("stdin").write_all(stdin.as_bytes()).expect("an answer");
        let output = child.wait_with_output().expect("it ends");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (text(&output.stdout), text(&output.stderr), output.status.code())
    };
    for refusal in ["no\n", ""] {
        let (_, said, code) = answered("--tunnel 127.0.0.1:PORT list-machines", refusal);
        assert!(said.contains("continue connecting (yes/no") && code == Some(1), "{said}");
        assert!(said.contains("its key is not in"), "{said}");
        assert_eq!(ssh.known_hosts(), "");
    }
    let (out, said, _) = answered("--tunnel 127.0.0.1:PORT list-machines --no-legend", "yes\n");
    assert!(out.starts_with("c2e1b518..."), "{said}");
    assert!(ssh.known_hosts().contains("ssh-ed25519"), "{}", ssh.known_hosts());
    // What follows the answer is the remote command's.
    std::fs::remove_file(ssh.session.path().join(".fleetctl/known_hosts")).expect("it was there");
    let (out, said, code) = answered("ssh --ssh-port PORT c2e1b518 cat", "yes\nrest\n");
    assert!(out == "rest\n" && code == Some(0), "{out} {said}");
}
