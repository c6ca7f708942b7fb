//! The answer to ssh's question about a new host, where there is no terminal: it may come on stdin,
//! as for fleet 1.0. ssh asks a program then, and that is fleetctl once more.

use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::process::{Command, ExitCode};
use std::sync::mpsc;
use std::time::Duration;

use rustix::fs::FileType;

use crate::screen::{Span, say};

/// Tells this program that ssh asks, and where the answer comes from.
const FROM: &str = "FLEETCTL_ANSWER_FROM";

/// How long an answer may take: somebody may type it into the other end of the pipe.
const PATIENCE: Duration = Duration::from_secs(30);

/// The longest answer, in bytes: a key's fingerprint is shorter.
const LONGEST: usize = 256;

/// Has `ssh` ask this program, if somebody may answer on stdin and nobody on a terminal. What the
/// user set up for questions stays.
pub(crate) fn offer(ssh: &mut Command) {
    let set = |name: &str| std::env::var_os(name).is_some();
    if set("SSH_ASKPASS") || set("SSH_ASKPASS_REQUIRE") || File::open("/dev/tty").is_ok() {
        return;
    }
    // Not /dev/null: nobody answers there.
    let answers = rustix::fs::fstat(std::io::stdin()).is_ok_and(|stat| {
        let kind = FileType::from_raw_mode(stat.st_mode);
        matches!(kind, FileType::Fifo | FileType::Socket | FileType::RegularFile)
    });
    let Some(program) =
        std::env::current_exe().ok().filter(|_| answers && !std::io::stdin().is_terminal())
    else {
        return;
    };
    ssh.env("SSH_ASKPASS", program).env("SSH_ASKPASS_REQUIRE", "force");
    // ssh's own stdin may be none of ours: a tunnel's, or one of a tunnel's host.
    ssh.env(FROM, format!("/proc/{}/fd/0", std::process::id()));
}

/// Answers ssh, if it is ssh who runs this program; the exit code says whether there was an answer.
pub(crate) fn serve() -> Option<ExitCode> {
    let from = std::env::var(FROM).ok()?;
    let question = std::env::args().nth(1).unwrap_or_default();
    // Only this question: a password on stdin was never meant for ssh.
    if !question.contains("(yes/no") && !question.starts_with("Please type 'yes'") {
        return Some(ExitCode::FAILURE);
    }
    say(&[Span::from(question)]);
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        // A socket cannot be opened again. Not Rust's own stdin, which reads ahead.
        let opened = File::open(from)
            .or_else(|_| std::io::stdin().as_fd().try_clone_to_owned().map(File::from));
        // Nobody may wait any longer.
        let _ = sender.send(opened.ok().and_then(line_of));
    });
    let line = receiver.recv_timeout(PATIENCE).ok().flatten();
    say(&[Span::from(if line.is_some() { "\n" } else { "no answer on stdin\n" })]);
    let printed = line.is_some_and(|line| writeln!(std::io::stdout(), "{line}").is_ok());
    Some(if printed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The next line, and not a byte more: what follows is the remote command's. `None` if there is
/// none.
fn line_of(mut from: impl Read) -> Option<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    // Without a buffer, which would take more than the line.
    while line.len() < LONGEST {
        from.read_exact(&mut byte).ok()?;
        if byte == *b"\n" {
            return String::from_utf8(line).ok();
        }
        line.extend(byte);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_one_line_and_what_follows_is_left() {
        let mut from = &b"yes\nrest"[..];
        assert_eq!(line_of(&mut from).as_deref(), Some("yes"));
        assert_eq!(from, b"rest");
        assert_eq!(line_of(&b""[..]), None);
        assert_eq!(line_of(&[b'x'; 1000][..]), None);
    }
}
