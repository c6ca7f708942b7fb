//! Something made of certificate files, made again when the files change.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use crate::files::{Files, TlsError};

/// What is made of the files, such as a server's configuration; looked up for each new connection.
pub struct Reloading<T> {
    make: Make<T>,
    state: Mutex<State<T>>,
}

type Make<T> = Box<dyn Fn(&Files) -> Result<T, TlsError> + Send + Sync>;

struct State<T> {
    files: Files,
    made_of: Vec<Stamp>,
    made: T,
}

/// How a file looks from outside. A replaced one has another inode, so two writes within one tick
/// of the clock differ, too.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp(Option<(SystemTime, u64, u64)>);

impl<T: Clone> Reloading<T> {
    /// Makes the first one.
    pub fn new(
        files: Files,
        make: impl Fn(&Files) -> Result<T, TlsError> + Send + Sync + 'static,
    ) -> Result<Reloading<T>, TlsError> {
        // The stamp before the read: a change in between is then seen as one.
        let made_of = stamps(&files);
        let made = make(&files)?;
        Ok(Reloading { make: Box::new(make), state: Mutex::new(State { files, made_of, made }) })
    }

    /// The one made of the files as they are now, and what the caller should log: that it was made
    /// anew, or why it could not be. Until they will do, the last good one stays. Costs one `stat`
    /// a file.
    pub fn current(&self) -> (T, Option<Result<(), TlsError>>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = stamps(&state.files);
        if now == state.made_of {
            return (state.made.clone(), None);
        }
        // Also when it fails: the same trouble is said once, and tried again when the files change
        // again.
        state.made_of = now;
        let outcome = (self.make)(&state.files).map(|made| state.made = made);
        (state.made.clone(), Some(outcome))
    }

    /// Uses other files from now on, if they will do.
    pub fn change(&self, files: Files) -> Result<(), TlsError> {
        let made_of = stamps(&files);
        let made = (self.make)(&files)?;
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = State { files, made_of, made };
        Ok(())
    }

    /// The files in use.
    pub fn files(&self) -> Files {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).files.clone()
    }
}

fn stamps(files: &Files) -> Vec<Stamp> {
    files.paths().map(stamp).collect()
}

fn stamp(path: &Path) -> Stamp {
    use std::os::unix::fs::MetadataExt;
    let seen = std::fs::metadata(path).ok();
    Stamp(seen.and_then(|seen| Some((seen.modified().ok()?, seen.len(), seen.ino()))))
}
