//! What can go wrong for a user: kinds with their exit codes, a sentence, its causes, next moves.
//! The hints for requests are in `client/hints.rs`.

use crate::screen::{Span, say};

/// What sort of error it is; each has its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It was tried, and did not work.
    Failed,
    /// The command line makes no sense.
    Usage,
    /// The cluster is not as asked within the time given.
    TimedOut,
    /// Ctrl-C.
    Interrupted,
    /// Whoever read our output has seen enough.
    ClosedPipe,
}

impl Kind {
    /// The exit code: scripts may rely on these.
    pub(crate) fn code(self) -> u8 {
        match self {
            Kind::ClosedPipe => 0,
            Kind::Failed => 1,
            Kind::Usage => 2,
            Kind::TimedOut => 3,
            Kind::Interrupted => 130, // 128 + SIGINT, as a shell reports it
        }
    }
}

/// One error as the user sees it: a sentence, its causes, and next moves.
#[derive(Debug)]
pub(crate) struct Error {
    pub(crate) kind: Kind,
    message: String,
    causes: Vec<String>,
    /// Lines of something else, under their heading.
    quoted: Option<Box<(String, Vec<String>)>>,
    hints: Vec<String>,
}

impl Error {
    /// Something did not work; printed after `Error: `.
    pub(crate) fn failed(message: impl AsRef<str>) -> Error {
        Error::worded(Kind::Failed, format!("Error: {}", message.as_ref()))
    }

    /// The command line makes no sense; printed after `Error: `.
    pub(crate) fn usage(message: impl AsRef<str>) -> Error {
        Error::worded(Kind::Usage, format!("Error: {}", message.as_ref()))
    }

    /// An error in fleet 1.0's own words, which scripts may look for; printed as it is.
    pub(crate) fn worded(kind: Kind, message: impl Into<String>) -> Error {
        let (causes, hints) = (Vec::new(), Vec::new());
        Error { kind, message: message.into(), causes, quoted: None, hints }
    }

    /// Adds what led to it.
    pub(crate) fn cause(mut self, cause: impl Into<String>) -> Error {
        self.causes.push(cause.into());
        self
    }

    /// Adds lines of something else, if there are any.
    pub(crate) fn quote(mut self, heading: &str, lines: Vec<String>) -> Error {
        self.quoted = (!lines.is_empty()).then(|| Box::new((heading.to_string(), lines)));
        self
    }

    /// Adds a next move.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Error {
        self.hints.push(hint.into());
        self
    }

    /// Prints it on stderr and gives the exit code.
    pub(crate) fn print(&self) -> u8 {
        if self.kind != Kind::ClosedPipe {
            say(&self.spans());
        }
        self.kind.code()
    }

    fn spans(&self) -> Vec<Span> {
        let mut spans = match self.message.strip_prefix("Error:") {
            Some(rest) => vec![Span::coloured("Error:", "1;31"), Span::from(format!("{rest}\n"))],
            None => vec![Span::from(format!("{}\n", self.message))],
        };
        if !self.causes.is_empty() {
            spans.push(Span::from("Caused by:\n"));
            spans.extend(self.causes.iter().map(|cause| Span::from(format!("  {cause}\n"))));
        }
        if let Some((heading, lines)) = self.quoted.as_deref() {
            spans.push(Span::from(format!("{heading}\n")));
            spans.extend(lines.iter().map(|line| Span::from(format!("  {line}\n"))));
        }
        for hint in &self.hints {
            spans.extend([Span::coloured("Hint:", "36"), Span::from(format!(" {hint}\n"))]);
        }
        spans
    }
}

impl From<std::io::Error> for Error {
    /// Only writes to stdout come here.
    fn from(problem: std::io::Error) -> Error {
        match problem.kind() {
            std::io::ErrorKind::BrokenPipe => Error::worded(Kind::ClosedPipe, ""),
            _ => Error::failed(format!("cannot write the output: {problem}")),
        }
    }
}

impl From<serde_json::Error> for Error {
    fn from(problem: serde_json::Error) -> Error {
        Error::from(std::io::Error::from(problem))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::Screen;

    #[test]
    fn an_error_is_a_sentence_then_causes_then_hints() {
        let error = Error::failed("no machine can run web@4.service")
            .cause("the cluster is small")
            .hint("2 machines: lacks region=eu");
        assert_eq!(
            Screen::default().render(&error.spans()),
            "Error: no machine can run web@4.service\nCaused by:\n  the cluster is small\nHint: 2 \
                machines: lacks region=eu\n"
        );
        let terminal = Screen { terminal: true, colour: true };
        assert!(terminal.render(&error.spans()).starts_with("\x1b[1;31mError:\x1b[0m no machine"));
        let hostile = terminal.render(&Error::failed("\x1b]0;x\x07").spans());
        assert_eq!(hostile, "\x1b[1;31mError:\x1b[0m \\x1b]0;x\\x07\n");
    }

    #[test]
    fn words_of_fleet_1_0_get_no_prefix() {
        let terminal = Screen { terminal: true, colour: true };
        let error = Error::worded(Kind::Failed, "Unit a.service not found");
        assert_eq!(terminal.render(&error.spans()), "Unit a.service not found\n");
    }

    #[test]
    fn each_kind_has_its_exit_code() {
        let codes =
            [Kind::Failed, Kind::Usage, Kind::TimedOut, Kind::Interrupted, Kind::ClosedPipe]
                .map(Kind::code);
        assert_eq!(codes, [1, 2, 3, 130, 0]);
    }
}
