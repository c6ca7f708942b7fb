//! Asks the user before something is done.

use std::io::{BufRead, IsTerminal};

use crate::error::Error;
use crate::screen::{Span, say};

/// Whether there is somebody to ask.
pub(crate) fn can_ask() -> bool {
    std::io::stdin().is_terminal()
}

/// Refuses to go on where `command` would ask and nobody could answer.
pub(crate) fn needs_yes(command: &str) -> Error {
    Error::usage(format!("{command} asks first, and stdin is no terminal; nothing was changed"))
        .hint("--yes does it without asking")
}

/// Asks, and says whether the answer is yes. No answer is no.
pub(crate) fn yes(question: &str) -> bool {
    say(&[Span::from(format!("{question} [y/N] "))]);
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    if !matches!(read, Ok(length) if length > 0) {
        say(&[Span::from("\n")]);
        return false;
    }
    ["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str())
}
