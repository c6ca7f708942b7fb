//! Tables. In a pipe and without a legend they are as fleet 1.0 printed them: Go's tabwriter with
//! tabs of 8, so that scripts which split on tabs still work. On a terminal columns are aligned
//! with spaces, states have colours, and ages stand beside them.

use crate::error::{Error, Kind};
use crate::screen::{Screen, Span};

/// The width of a tab stop, in characters.
const TAB: usize = 8;

/// The least space after a cell, in characters.
const PADDING: usize = 1;

/// The space between two columns on a terminal, in characters.
const GAP: usize = 2;

/// The colour of column names on a terminal: bold.
const BOLD: &str = "1";

/// The colour of ages on a terminal: dim.
const DIM: &str = "2";

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
    /// How long it has been so, for terminals: `3m`.
    age: Option<String>,
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
        Cell::from(text).toned(tone)
    }

    /// The cell with a meaning.
    pub(crate) fn toned(self, tone: Tone) -> Cell {
        Cell { tone, ..self }
    }

    /// The cell with how long it has been so, where that is known.
    pub(crate) fn aged(self, age: Option<String>) -> Cell {
        Cell { age, ..self }
    }
}

impl<T: Into<String>> From<T> for Cell {
    /// A plain cell; nothing to show is a dash. Tabs and newlines would break the table.
    fn from(text: T) -> Cell {
        let text = text.into();
        let text =
            if text.is_empty() { "-".to_string() } else { text.replace(['\t', '\n', '\r'], " ") };
        Cell { text, ..Cell::default() }
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
    let header = || columns.iter().map(|(name, _)| Cell::from(name.to_uppercase())).collect();
    let body = rows.iter().map(|row| columns.iter().map(|(_, show)| show(row, full)).collect());
    match legend && screen.terminal {
        true => align_with_spaces(header(), &body.collect::<Vec<_>>(), screen),
        false => {
            let lines = legend.then(header).into_iter().chain(body).collect::<Vec<_>>();
            align_with_tabs(&lines, screen)
        }
    }
}

/// For people: each column as wide as its widest cell.
fn align_with_spaces(header: Vec<Cell>, body: &[Vec<Cell>], screen: Screen) -> Vec<Span> {
    let width_of = |cell: &Cell| {
        let age = cell.age.as_ref().map_or(0, |age| 1 + age.chars().count());
        screen.shown(&cell.text).chars().count() + age
    };
    let mut widths: Vec<usize> = header.iter().map(width_of).collect();
    for line in body {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = width_of(cell).max(*width);
        }
    }
    let mut spans = Vec::new();
    let mut add = |line: &[Cell], colour: Option<&'static str>| {
        for (i, (cell, width)) in line.iter().zip(&widths).enumerate() {
            let colour = colour.or(cell.tone.colour());
            spans.push(Span { text: cell.text.clone(), colour });
            if let Some(age) = &cell.age {
                spans.extend([Span::from(" "), Span::coloured(age.as_str(), DIM)]);
            }
            if i + 1 < line.len() {
                spans.push(Span::from(" ".repeat(width - width_of(cell) + GAP)));
            }
        }
        spans.push(Span::from("\n"));
    };
    add(&header, Some(BOLD));
    body.iter().for_each(|line| add(line, None));
    spans
}

/// Pads every cell but a line's last with tabs, to the next multiple of [`TAB`] after the column's
/// widest.
fn align_with_tabs(lines: &[Vec<Cell>], screen: Screen) -> Vec<Span> {
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
            spans.push(Span::from(cell.text.as_str()));
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
        Screen::default().render(&align_with_tabs(&cells, Screen::default()))
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

    /// A table of states on a terminal, or in a pipe.
    fn states(rows: &[(&str, &str)], legend: bool, screen: Screen) -> String {
        let columns: Vec<Column<(&str, &str)>> = vec![
            ("unit", Box::new(|(name, _), _| (*name).into())),
            ("active", Box::new(|(_, state), _| Cell::state(state).aged(Some("3m".to_string())))),
            ("sub", Box::new(|_, _| "x".into())),
        ];
        let columns: Vec<&Column<_>> = columns.iter().collect();
        screen.render(&render(&columns, rows, false, legend, screen))
    }

    const TERMINAL: Screen = Screen { terminal: true, colour: true };

    #[test]
    fn on_a_terminal_columns_are_as_wide_as_their_widest_cell() {
        let rows = [("a.service", "active"), ("a-much-longer-name.service", "inactive")];
        assert_eq!(
            states(&rows, true, Screen { colour: false, ..TERMINAL }),
            "UNIT                        ACTIVE       SUB\n\
             a.service                   active 3m    x\n\
             a-much-longer-name.service  inactive 3m  x\n"
        );
        assert_eq!(
            states(&rows[..1], true, TERMINAL),
            "\x1b[1mUNIT\x1b[0m       \x1b[1mACTIVE\x1b[0m     \x1b[1mSUB\x1b[0m\n\
             a.service  \x1b[32mactive\x1b[0m \x1b[2m3m\x1b[0m  x\n"
        );
    }

    #[test]
    fn in_a_pipe_and_without_a_legend_it_is_the_table_of_fleet_1_0() {
        let rows = [("a.service", "active")];
        let piped = "UNIT\t\tACTIVE\tSUB\na.service\tactive\tx\n";
        assert_eq!(states(&rows, true, Screen::default()), piped);
        assert_eq!(states(&rows, false, Screen::default()), "a.service\tactive\tx\n");
        assert_eq!(states(&rows, false, TERMINAL), "a.service\tactive\tx\n");
    }

    #[test]
    fn what_a_terminal_obeys_is_shown_there_and_does_not_move_columns() {
        let rows = [("a\x1b[31m", "failed"), ("a", "failed")];
        assert_eq!(
            states(&rows, true, Screen { colour: false, ..TERMINAL }),
            "UNIT       ACTIVE     SUB\na\\x1b[31m  failed 3m  x\na          failed 3m  x\n"
        );
        assert_eq!(states(&rows[..1], false, Screen::default()), "a\x1b[31m\tfailed\tx\n");
    }
}
