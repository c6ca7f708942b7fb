//! What a stream leads to, text with colours for it, and all that fleetctl says on stderr.
//!
//! On a terminal everything passes [`printable`]: names, labels and words of units may hold what a
//! terminal obeys. A pipe or a file gets every byte as it is.

use std::io::{IsTerminal, Write};
use std::sync::OnceLock;

use clap::ValueEnum;
use fleet_core::printable;

/// What `--color` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Colours {
    /// On a terminal, unless `NO_COLOR` is set or the terminal is `dumb`.
    #[default]
    Auto,
    /// As on a terminal, wherever it goes.
    Always,
    /// Nowhere.
    Never,
}

/// What this run was asked for.
static COLOURS: OnceLock<Colours> = OnceLock::new();

/// Sets what `--color` asks for; the first call counts.
pub(crate) fn set_colours(colours: Colours) {
    COLOURS.get_or_init(|| colours);
}

/// What a stream leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Screen {
    /// Whether it is a terminal, which obeys what it is sent.
    pub(crate) terminal: bool,
    /// Whether it takes colours.
    pub(crate) colour: bool,
}

/// A piece of text, and the colour that it has where colours are taken, as in `\x1b[31m`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) text: String,
    pub(crate) colour: Option<&'static str>,
}

impl Screen {
    /// What `stream` leads to.
    pub(crate) fn of(stream: &impl IsTerminal) -> Screen {
        let terminal = stream.is_terminal();
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        match COLOURS.get().copied().unwrap_or_default() {
            Colours::Never => Screen { terminal, colour: false },
            // Who reads it in the end has a terminal, as with `less -R`.
            Colours::Always => Screen { terminal: true, colour: true },
            Colours::Auto => {
                let refused =
                    set("NO_COLOR").is_some() || set("TERM").is_some_and(|term| term == "dumb");
                Screen { terminal, colour: terminal && !refused }
            }
        }
    }

    /// The text as it may be written there. Only colours of ours reach a terminal.
    pub(crate) fn render(self, spans: &[Span]) -> String {
        let mut all = String::new();
        for Span { text, colour } in spans {
            let text = self.shown(text);
            match colour.filter(|_| self.colour) {
                Some(code) => all.push_str(&format!("\x1b[{code}m{text}\x1b[0m")),
                None => all.push_str(&text),
            }
        }
        all
    }

    /// A text as it stands there.
    pub(crate) fn shown(self, text: &str) -> std::borrow::Cow<'_, str> {
        if self.terminal { printable::shown(text.as_bytes()) } else { text.into() }
    }
}

impl Span {
    /// Text in a colour.
    pub(crate) fn coloured(text: impl Into<String>, colour: &'static str) -> Span {
        Span { text: text.into(), colour: Some(colour) }
    }
}

impl<T: Into<String>> From<T> for Span {
    fn from(text: T) -> Span {
        Span { text: text.into(), colour: None }
    }
}

/// Says something that is no data.
pub(crate) fn note(text: &str) {
    say(&[Span::from(text), Span::from("\n")]);
}

/// Says what the user should know, though it does not stop us.
pub(crate) fn warn(text: &str) {
    say(&[Span::coloured("WARNING:", "33"), Span::from(format!(" {text}\n"))]);
}

/// What another program said on its stderr.
pub(crate) fn say_bytes(bytes: &[u8]) {
    let stderr = std::io::stderr();
    let screen = Screen::of(&stderr);
    let _ = match screen.terminal {
        true => stderr.lock().write_all(printable::shown(bytes).as_bytes()),
        false => stderr.lock().write_all(bytes),
    };
}

/// Writes to stderr. It is the only writer there, but for lines that are drawn again.
pub(crate) fn say(spans: &[Span]) {
    let stderr = std::io::stderr();
    // Nobody is left to hear that stderr is closed.
    let _ = stderr.lock().write_all(Screen::of(&stderr).render(spans).as_bytes());
}
