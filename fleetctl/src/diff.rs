//! Two texts as a unified diff, for people.

use std::time::Duration;

use similar::TextDiff;

use crate::screen::Span;

/// How many unchanged lines stand around a change.
const AROUND: usize = 3;

/// How long the best diff of two texts may take to find. After that it is a longer one.
const PATIENCE: Duration = Duration::from_secs(1);

/// Lines that were added.
pub(crate) const ADDED: &str = "32";

/// Lines that were removed.
pub(crate) const REMOVED: &str = "31";

/// Where in the text the lines are.
const PLACE: &str = "36";

/// The changed lines with those around them, each after `indent`; none where the texts are the
/// same.
pub(crate) fn unified(old: &str, new: &str, indent: &str) -> Vec<Span> {
    let diff = TextDiff::configure().timeout(PATIENCE).diff_lines(old, new);
    let text = diff.unified_diff().context_radius(AROUND).to_string();
    let colour = |line: &str| match line.as_bytes().first() {
        Some(b'+') => Some(ADDED),
        Some(b'-') => Some(REMOVED),
        Some(b'@') => Some(PLACE),
        _ => None,
    };
    text.lines()
        .flat_map(|line| {
            let line_span = Span { text: format!("{indent}{line}"), colour: colour(line) };
            [line_span, Span::from("\n")]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::Screen;

    fn said(old: &str, new: &str) -> String {
        Screen::default().render(&unified(old, new, "  "))
    }

    #[test]
    fn a_change_stands_between_the_lines_around_it() {
        let old = "[Container]\nImage=a\nA=1\nB=2\nC=3\nD=4\n";
        assert_eq!(
            said(old, &old.replace("Image=a", "Image=b")),
            "  @@ -1,5 +1,5 @@\n   [Container]\n  -Image=a\n  +Image=b\n   A=1\n   B=2\n   C=3\n"
        );
        assert_eq!(said(old, old), "");
    }

    #[test]
    fn a_missing_newline_at_the_end_is_a_difference() {
        assert_eq!(said("a\n", "a"), "  @@ -1 +1 @@\n  -a\n  +a\n  \\ No newline at end of file\n");
    }

    #[test]
    fn colours_stand_for_what_was_added_and_removed() {
        let screen = Screen { terminal: true, colour: true };
        let text = screen.render(&unified("a\n", "b\n", ""));
        assert!(text.contains("\x1b[31m-a\x1b[0m\n\x1b[32m+b\x1b[0m\n"), "{text:?}");
    }
}
