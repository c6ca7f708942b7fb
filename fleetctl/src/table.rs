//! Tables as fleet 1.0 printed them: Go's tabwriter with tabs of 8, so that scripts which split on
//! tabs still work.

use crate::error::{Error, Kind};
use crate::screen::{Screen, Span};

/// The width of a tab stop, in characters.
const TAB: usize = 8;

/// The least space after a cell, in characters.
const PADDING: usize = 1;

/// A cell's meaning, shown as a colour on a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Tone {
    #[default]
    Plain,
    /// As it should be.
    Good,
    /// On its way.
    Busy,
    /// Failed.
    Bad,
}

impl Tone {
    fn colour(self) -> Option<&'static str> {
        match self {
            Tone::Good => Some("32"),
            Tone::Busy => Some("33"),
            Tone::Bad => Some("31"),
            Tone::Plain => None,
        }
    }
}

/// One cell.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// A cell with a systemd active state's tone.
    pub(crate) fn state(text: &str) -> Cell {
        let tone = match text {
            "active" => Tone::Good,
            "activating" | "deactivating" | "reloading" => Tone::Busy,
            "failed" => Tone::Bad,
            _ => Tone::Plain,
        };
        Cell { tone, ..Cell::from(text) }
    }
}

impl<T: Into<String>> From<T> for Cell {
    /// A plain cell; nothing to show is a dash. Tabs and newlines would break the table.
    fn from(text: T) -> Cell {
        let text = text.into();
        let text =
            if text.is_empty() { "-".to_string() } else { text.replace(['\t', '\n', '\r'], " ") };
        Cell { text, tone: Tone::Plain }
    }
}

/// A column: its name for `--fields`, and how it shows a row; the flag is `--full`.
pub(crate) type Column<'a, Row> = (&'a str, Box<dyn Fn(&Row, bool) -> Cell + 'a>);

/// Picks the columns that `--fields` names; errors are in fleet 1.0's words.
pub(crate) fn pick<'c, 'a, Row>(
    columns: &'c [Column<'a, Row>],
    fields: &str,
) -> Result<Vec<&'c Column<'a, Row>>, Error> {
    if fields.is_empty() {
        return Err(Error::worded(Kind::Failed, "Must define output format"));
    }
    let valid = || columns.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(",");
    fields
        .split(',')
        .map(|field| {
            columns.iter().find(|(name, _)| *name == field).ok_or_else(|| {
                let message = format!("Invalid key in output format: \"{field}\"");
                Error::worded(Kind::Failed, message).hint(format!("valid fields are {}", valid()))
            })
        })
        .collect()
}

/// Renders rows under the columns' names in capitals, for `screen`.
pub(crate) fn render<Row>(
    columns: &[&Column<'_, Row>],
    rows: &[Row],
    full: bool,
    legend: bool,
    screen: Screen,
) -> Vec<Span> {
    let header = columns.iter().map(|(name, _)| Cell::from(name.to_uppercase())).collect();
    let body = rows.iter().map(|row| columns.iter().map(|(_, show)| show(row, full)).collect());
    let lines: Vec<Vec<Cell>> = legend.then_some(header).into_iter().chain(body).collect();
    align(&lines, screen)
}

/// Pads every cell but a line's last with tabs, to the next multiple of [`TAB`] after the column's
/// widest.
fn align(lines: &[Vec<Cell>], screen: Screen) -> Vec<Span> {
    let width_of = |cell: &Cell| screen.shown(&cell.text).chars().count();
    let mut widths: Vec<usize> = Vec::new();
    for line in lines {
        for (i, cell) in line.iter().enumerate() {
            let width = (width_of(cell) + PADDING).next_multiple_of(TAB);
            match widths.get_mut(i) {
                Some(widest) => *widest = width.max(*widest),
                None => widths.push(width),
            }
        }
    }
    let mut spans = Vec::new();
    for line in lines {
        for (i, (cell, width)) in line.iter().zip(&widths).enumerate() {
            spans.push(Span { text: cell.text.clone(), colour: cell.tone.colour() });
            if i + 1 < line.len() {
                let tabs = (width - width_of(cell)).div_ceil(TAB);
                spans.push(Span::from("\t".repeat(tabs)));
            }
        }
        spans.push(Span::from("\n"));
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aligned(lines: &[&[&str]]) -> String {
        let cells: Vec<Vec<Cell>> =
            lines.iter().map(|line| line.iter().map(|text| Cell::from(*text)).collect()).collect();
        Screen::default().render(&align(&cells, Screen::default()))
    }

    #[test]
    fn cells_are_padded_as_fleet_1_0_did() {
        assert_eq!(
            aligned(&[
                &["UNIT", "MACHINE", "ACTIVE", "SUB"],
                &["hello.service", "c2e1b518.../127.0.0.1", "inactive", "dead"]
            ]),
            "UNIT\t\tMACHINE\t\t\tACTIVE\t\tSUB\nhello.service\tc2e1b518.../127.0.0.1\tinactive\tdead\n"
        );
        assert_eq!(
            aligned(&[
                &["UNIT", "HASH", "DSTATE", "STATE", "TARGET"],
                &["glob.service", "c8249a2", "launched", "-", "global"]
            ]),
            "UNIT\t\tHASH\tDSTATE\t\tSTATE\tTARGET\nglob.service\tc8249a2\tlaunched\t-\tglobal\n"
        );
        assert_eq!(
            aligned(&[&["UNIT", "MACHINE", "ACTIVE", "SUB"]]),
            "UNIT\tMACHINE\tACTIVE\tSUB\n"
        );
    }

    #[test]
    fn a_cell_of_seven_fits_a_tab_stop_and_one_of_eight_needs_two() {
        assert_eq!(aligned(&[&["1234567", "x"], &["1", "x"]]), "1234567\tx\n1\tx\n");
        assert_eq!(aligned(&[&["12345678", "x"], &["1", "x"]]), "12345678\tx\n1\t\tx\n");
    }

    #[test]
    fn nothing_to_show_is_a_dash_and_no_cell_breaks_the_table() {
        assert_eq!(aligned(&[&["", "a\tb\nc"]]), "-\ta b c\n");
    }

    #[test]
    fn colours_do_not_move_columns() {
        let screen = Screen { terminal: true, colour: true };
        let line = vec![Cell::state("failed"), Cell::from("x")];
        assert_eq!(screen.render(&align(&[line], screen)), "\x1b[31mfailed\x1b[0m\tx\n");
    }

    #[test]
    fn what_a_terminal_obeys_is_shown_there_and_does_not_move_columns() {
        let lines = [
            vec![Cell::from("a\x1b[31m"), Cell::from("x")],
            vec![Cell::from("a"), Cell::from("y")],
        ];
        let on = |screen: Screen| screen.render(&align(&lines, screen));
        assert_eq!(on(Screen { terminal: true, colour: true }), "a\\x1b[31m\tx\na\t\ty\n");
        assert_eq!(on(Screen::default()), "a\x1b[31m\tx\na\ty\n");
    }
}
