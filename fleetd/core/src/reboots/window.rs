//! When machines may reboot: `Sat,Sun 02:00..05:00`, in the words of systemd's calendar events.

use crate::time::date;

/// The most windows of one text.
const MAX_WINDOWS: usize = 32;

/// The most items of one list, as in `*-*-1,15`.
const MAX_ITEMS: usize = 64;

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const DAY_MS: u64 = 86_400_000;
const MINUTE_MS: u64 = 60_000;

/// Times at which machines may reboot, in UTC: one or more of `[WEEKDAYS] [DATE] TIME..TIME`,
/// separated by semicolons. Weekdays and dates are those of systemd.time(7): `Sat,Sun`, `Mon..Fri`,
/// `*-*-1..7`. A window that ends at or before the time at which it begins ends on the next day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window(Vec<Span>);

/// One window a day.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Span {
    /// From Monday.
    weekdays: [bool; 7],
    year: Field,
    month: Field,
    day: Field,
    /// In minutes of the day.
    from: u64,
    /// In minutes from the beginning of the day on which it began.
    to: u64,
}

/// What a part of a date may be; empty: anything.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Field(Vec<(u64, u64, u64)>);

impl Field {
    fn holds(&self, value: u64) -> bool {
        let holds = |(first, last, step): &(u64, u64, u64)| {
            (*first..=*last).contains(&value) && (value - first).is_multiple_of(*step)
        };
        self.0.is_empty() || self.0.iter().any(holds)
    }
}

impl Window {
    /// Reads the text; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Window, String> {
        let parts: Vec<&str> = text.split(';').collect();
        if parts.len() > MAX_WINDOWS {
            return Err(format!("{} windows; at most {MAX_WINDOWS} are taken", parts.len()));
        }
        let spans = parts.iter().map(|part| Span::parse(part));
        let spans: Result<Vec<Span>, String> = spans.collect();
        spans.map(Window).map_err(|problem| {
            format!(
                "invalid window {text:?}: {problem}; write it like \"Sat,Sun 02:00..05:00\" or \
                    \"*-*-1..7 22:00..04:00\", in UTC"
            )
        })
    }

    /// Whether machines may reboot at this time, in milliseconds since 1970.
    pub fn is_open(&self, now_ms: u64) -> bool {
        self.0.iter().any(|span| span.is_open(now_ms))
    }
}

impl Span {
    fn parse(text: &str) -> Result<Span, String> {
        let mut words: Vec<&str> = text.split_whitespace().collect();
        if words.last() == Some(&"UTC") {
            words.pop();
        }
        let Some(times) = words.pop() else { return Err("it says no time".to_string()) };
        let Some((from, to)) = times.split_once("..") else {
            return Err(format!("{times:?} is not of the form TIME..TIME"));
        };
        let (from, to) = (minutes(from)?, minutes(to)?);
        let from = from % (24 * 60);
        let to = if to <= from { to + 24 * 60 } else { to };
        let any = || Field(Vec::new());
        let mut span =
            Span { weekdays: [true; 7], year: any(), month: any(), day: any(), from, to };
        let (weekdays, date) = match words[..] {
            [] => (None, None),
            [one] if one.contains('-') => (None, Some(one)),
            [one] => (Some(one), None),
            [weekdays, date] => (Some(weekdays), Some(date)),
            _ => return Err(format!("{:?} is too much", words.join(" "))),
        };
        if let Some(text) = weekdays {
            span.weekdays = read_weekdays(text)?;
        }
        if let Some(text) = date {
            let fields: Vec<&str> = text.split('-').collect();
            let (year, month, day) = match fields[..] {
                [year, month, day] => (year, month, day),
                [month, day] => ("*", month, day),
                _ => return Err(format!("{text:?} is no date like *-*-1..7")),
            };
            (span.year, span.month) = (field(year, 1970, 9999)?, field(month, 1, 12)?);
            span.day = field(day, 1, 31)?;
        }
        Ok(span)
    }

    fn is_open(&self, now_ms: u64) -> bool {
        let today = now_ms / DAY_MS;
        let minute = now_ms % DAY_MS / MINUTE_MS;
        let yesterday = today.checked_sub(1).is_some_and(|day| {
            self.begins_on(day) && (self.from..self.to).contains(&(minute + 24 * 60))
        });
        yesterday || (self.begins_on(today) && (self.from..self.to).contains(&minute))
    }

    /// Whether it begins on this day, counted from 1970-01-01, which was a Thursday.
    fn begins_on(&self, day: u64) -> bool {
        let (year, month, of_month) = date(day);
        self.weekdays[(day as usize + 3) % 7]
            && self.year.holds(year)
            && self.month.holds(month)
            && self.day.holds(of_month)
    }
}

/// `02:00`, in minutes; `24:00` ends a day.
fn minutes(text: &str) -> Result<u64, String> {
    let bad = || format!("{text:?} is no time of day like 02:00");
    let (hour, minute) = text.split_once(':').ok_or_else(bad)?;
    let (hour, minute) = (number(hour).ok_or_else(bad)?, number(minute).ok_or_else(bad)?);
    let minutes = hour * 60 + minute;
    if minute < 60 && minutes <= 24 * 60 { Ok(minutes) } else { Err(bad()) }
}

/// `Sat,Sun`, `Mon..Fri`, whole names too. A range may go over the end of the week.
fn read_weekdays(text: &str) -> Result<[bool; 7], String> {
    let mut days = [false; 7];
    for item in text.split(',') {
        let (first, last) = item.split_once("..").unwrap_or((item, item));
        let (mut day, last) = (weekday(first)?, weekday(last)?);
        days[day] = true;
        while day != last {
            day = (day + 1) % 7;
            days[day] = true;
        }
    }
    Ok(days)
}

fn weekday(text: &str) -> Result<usize, String> {
    const REST: [&str; 7] = ["day", "sday", "nesday", "rsday", "day", "urday", "day"];
    let is = |at: &usize| {
        let short = DAYS[*at];
        text.eq_ignore_ascii_case(short)
            || text.eq_ignore_ascii_case(&format!("{short}{}", REST[*at]))
    };
    (0..7).find(is).ok_or_else(|| format!("{text:?} is no day of the week"))
}

/// `*`, `1`, `1..7`, `1/2`, `1..7/2`, or several of them.
fn field(text: &str, least: u64, most: u64) -> Result<Field, String> {
    let bad = || format!("{text:?} is no number from {least} to {most}, and no list of such");
    if text == "*" {
        return Ok(Field(Vec::new()));
    }
    let items: Vec<&str> = text.split(',').collect();
    if items.len() > MAX_ITEMS {
        return Err(format!("{text:?} is too long a list"));
    }
    let read = |item: &&str| {
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => (range, number(step).filter(|step| *step > 0)?),
            None => (*item, 1),
        };
        let (first, last) = match range.split_once("..") {
            Some((first, last)) => (number(first)?, number(last)?),
            None if range == "*" => (least, most),
            None if item.contains('/') => (number(range)?, most),
            None => (number(range)?, number(range)?),
        };
        (least <= first && first <= last && last <= most).then_some((first, last, step))
    };
    let items: Option<Vec<_>> = items.iter().map(read).collect();
    items.map(Field).ok_or_else(bad)
}

/// A number of at most four digits.
fn number(text: &str) -> Option<u64> {
    let digits = (1..=4).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Minutes from Thursday 1970-01-01, as milliseconds.
    fn at(day: u64, hour: u64, minute: u64) -> u64 {
        day * DAY_MS + (hour * 60 + minute) * MINUTE_MS
    }

    #[test]
    fn a_window_is_open_from_its_first_minute_to_the_one_before_its_end() {
        let weekend = Window::parse("Sat,Sun 02:00..05:00").unwrap();
        let saturday = 2;
        let open = |day, hour, minute| weekend.is_open(at(day, hour, minute));
        assert!(open(saturday, 2, 0) && open(saturday, 4, 59) && open(saturday + 1, 2, 0));
        assert!(!open(saturday, 1, 59) && !open(saturday, 5, 0));
        assert!(!open(saturday - 1, 3, 0) && !open(saturday + 2, 3, 0));
    }

    #[test]
    fn a_window_over_midnight_belongs_to_the_day_on_which_it_begins() {
        let night = Window::parse("Fri 22:00..04:00 UTC").unwrap();
        let friday = 1;
        assert!(night.is_open(at(friday, 22, 0)) && night.is_open(at(friday + 1, 3, 59)));
        assert!(!night.is_open(at(friday, 3, 0)) && !night.is_open(at(friday + 1, 22, 0)));
        let all_day = Window::parse("00:00..24:00").unwrap();
        assert!((0..48).all(|half| all_day.is_open(at(9, half / 2, half % 2 * 30))));
    }

    #[test]
    fn weekdays_and_dates_are_those_of_systemd_and_several_windows_are_one() {
        // The first Saturday of January and July, and each weekday at noon.
        let text = "Sat *-1,7-1..7 02:00..03:00; Mon..Fri 12:00..13:00";
        let window = Window::parse(text).unwrap();
        assert!(window.is_open(at(2, 2, 30)), "1970-01-03 was a Saturday");
        assert!(!window.is_open(at(9, 2, 30)) && !window.is_open(at(37, 2, 30)));
        assert!(window.is_open(at(0, 12, 0)) && !window.is_open(at(2, 12, 0)));
        let odd = Window::parse("*-*-1/2 00:00..01:00").unwrap();
        assert!(odd.is_open(at(0, 0, 0)) && !odd.is_open(at(1, 0, 0)) && odd.is_open(at(2, 0, 0)));
        let over = Window::parse("saturday..mon 00:00..01:00").unwrap();
        assert_eq!(
            [1, 2, 3, 4, 5].map(|day| over.is_open(at(day, 0, 0))),
            [false, true, true, true, false]
        );
    }

    #[test]
    fn what_is_no_window_says_why() {
        for (text, why) in [
            ("", "it says no time"),
            ("Sat", "\"Sat\" is not of the form TIME..TIME"),
            ("02:00", "\"02:00\" is not of the form"),
            ("Sax 02:00..03:00", "\"Sax\" is no day of the week"),
            ("25:00..26:00", "\"25:00\" is no time of day"),
            ("02:60..03:00", "\"02:60\" is no time of day"),
            ("02..03", "\"02\" is no time of day"),
            ("*-13-1 02:00..03:00", "\"13\" is no number from 1 to 12"),
            ("*-*-0 02:00..03:00", "\"0\" is no number"),
            ("*-*-1/0 02:00..03:00", "is no number"),
            ("Sat 2024-01-01 Europe 02:00..03:00", "is too much"),
            ("Sat 02:00..03:00 Europe/Berlin", "\"Europe/Berlin\" is not of the form"),
            (";", "it says no time"),
        ] {
            let problem = Window::parse(text).unwrap_err();
            assert!(problem.contains(why), "{text}: {problem}");
        }
        assert!(Window::parse(&"02:00..03:00;".repeat(40)).is_err());
    }
}
