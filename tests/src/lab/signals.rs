//! Ctrl-C in the middle: what this program has started goes down with it.

use std::io;
use std::process::{Child, Command};
use std::sync::{Mutex, Once, PoisonError};
use std::time::Duration;

use anyhow::{Result, ensure};

use super::wait::wait_for;
use super::{down_named, exists};

/// The labs that end with this program, or `None` once it is ending and nothing may start any more.
static OWNED: Mutex<Option<Vec<String>>> = Mutex::new(Some(Vec::new()));
static LISTEN: Once = Once::new();

/// SIGINT's number is 2, and a shell says 128 + 2 of a program that it ended.
const INTERRUPTED: i32 = 130;

/// Taking three hosts down takes 0.2 s; a boot in another thread ends at its next step.
const CLEAN_UP_LIMIT: Duration = Duration::from_secs(15);

/// Starts a process, unless this program is ending.
pub(crate) fn spawn(command: &mut Command) -> io::Result<Child> {
    // Held over the spawn, so that the clean-up sees either the process or no attempt to start it.
    let owned = OWNED.lock().unwrap_or_else(PoisonError::into_inner);
    match *owned {
        Some(_) => command.spawn(),
        None => Err(io::Error::other("the lab is being taken down")),
    }
}

/// From now on SIGINT, SIGTERM and SIGHUP take this lab down before they end the program.
pub(crate) fn own(name: &str) {
    with_owned(|owned| owned.push(name.to_owned()));
    LISTEN.call_once(|| {
        std::thread::spawn(|| {
            if wait_for_signal().is_err() {
                return;
            }
            let mut owned = OWNED.lock().unwrap_or_else(PoisonError::into_inner);
            let names = owned.take().unwrap_or_default();
            // Freed, so that threads in the middle of a boot find out that they cannot go on.
            drop(owned);
            for name in names {
                let gone = wait_for("it to be gone", CLEAN_UP_LIMIT, || take_down(&name));
                if let Err(error) = gone {
                    eprintln!("lab {name}: {error:#}");
                }
            }
            std::process::exit(INTERRUPTED);
        });
    });
}

/// The lab is down, or stays when this program ends.
pub(crate) fn disown(name: &str) {
    with_owned(|owned| owned.retain(|other| other != name));
}

/// Does not return once a signal has come: the clean-up ends the program, and must not be raced.
pub(crate) fn yield_to_clean_up() {
    while OWNED.lock().unwrap_or_else(PoisonError::into_inner).is_none() {
        std::thread::park_timeout(Duration::from_secs(1));
    }
}

/// Fails while there is something to take down: a boot in another thread may have made more
/// meanwhile.
fn take_down(name: &str) -> Result<()> {
    let left = exists(name)?;
    down_named(name)?;
    ensure!(!left, "its state folder");
    Ok(())
}

fn with_owned(change: impl FnOnce(&mut Vec<String>)) {
    let mut owned = OWNED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(owned) = owned.as_mut() {
        change(owned);
    }
}

/// The lab's one use of tokio: std has no signals, and tokio is in the build already.
fn wait_for_signal() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        std::future::poll_fn(|context| {
            let one = interrupt.poll_recv(context).is_ready();
            let two = terminate.poll_recv(context).is_ready();
            let three = hangup.poll_recv(context).is_ready();
            if one || two || three { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
        Ok(())
    })
}
