//! One option as a file or the environment gives it, with where it stands; the same whatever the
//! form of the file.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::options::LISTS;

/// Where an option stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// A file and a line, counted from 1.
    Line(PathBuf, usize),
    /// A variable of the environment.
    Variable(String),
    /// The command line.
    Switch(&'static str),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Line(file, line) => write!(f, "{}:{line}", file.display()),
            Place::Variable(name) => write!(f, "${name}"),
            Place::Switch(name) => f.write_str(name),
        }
    }
}

/// An option's value, as far as its form tells. INI files and the environment know text only.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Text(String),
    Number(f64),
    Flag(bool),
    List(Vec<String>),
    Table(BTreeMap<String, String>),
}

/// One option of one layer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) value: Value,
    pub(super) place: Place,
}

impl Entry {
    pub(super) fn line(key: &str, value: Value, file: &Path, line: usize) -> Entry {
        Entry { key: key.to_string(), value, place: Place::Line(file.to_path_buf(), line) }
    }

    /// Whether it is as good as not given, where all values are texts: empty, and no list, which
    /// may well be empty.
    pub(super) fn is_blank(&self) -> bool {
        self.value == Value::Text(String::new()) && !LISTS.contains(&self.key.as_str())
    }
}

/// The readers of values; an error is what was expected.
impl Value {
    pub(super) fn text(&self) -> Result<String, String> {
        match self {
            Value::Text(text) => Ok(text.clone()),
            Value::Number(number) => Ok(number.to_string()),
            Value::Flag(flag) => Ok(flag.to_string()),
            Value::List(_) | Value::Table(_) => Err("expected one text in quotes".to_string()),
        }
    }

    /// Go's words for it, as fleet 1.0 took them.
    pub(super) fn flag(&self) -> Result<bool, String> {
        match self {
            Value::Flag(flag) => Ok(*flag),
            Value::Number(number) if [0.0, 1.0].contains(number) => Ok(*number == 1.0),
            Value::Text(text) if ["true", "t", "1"].contains(&text.to_lowercase().as_str()) => {
                Ok(true)
            }
            Value::Text(text) if ["false", "f", "0"].contains(&text.to_lowercase().as_str()) => {
                Ok(false)
            }
            _ => Err("expected true or false".to_string()),
        }
    }

    pub(super) fn number(&self) -> Result<f64, String> {
        let number = match self {
            Value::Number(number) => Some(*number),
            Value::Text(text) => text.parse().ok(),
            _ => None,
        };
        number.filter(|number| number.is_finite()).ok_or_else(|| "expected a number".to_string())
    }

    /// Seconds, or one of Go's durations: `30`, `"30s"`, `"1m30s"`.
    pub(super) fn duration(&self) -> Result<Duration, String> {
        let seconds = match self {
            Value::Number(number) => Some(*number),
            Value::Text(text) => text.parse().ok().or_else(|| go_duration(text)),
            _ => None,
        };
        let duration = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        duration.ok_or_else(|| "expected seconds, as 30 or \"30s\" or \"1m30s\"".to_string())
    }

    /// `["a", "b"]`, or the same in one text, with or without brackets and quotes.
    pub(super) fn list(&self) -> Result<Vec<String>, String> {
        match self {
            Value::List(list) => Ok(list.clone()),
            Value::Text(text) => {
                let inside = text.trim().trim_start_matches('[').trim_end_matches(']');
                let items =
                    inside.split(',').map(|item| item.trim().trim_matches(['"', '\'']).trim());
                Ok(items.filter(|item| !item.is_empty()).map(str::to_string).collect())
            }
            _ => Err("expected a list, as [\"a\", \"b\"]".to_string()),
        }
    }

    /// `"k=v,k2=v2"`, fleet's form, or a table.
    pub(super) fn labels(&self) -> Result<BTreeMap<String, String>, String> {
        let text = match self {
            Value::Table(table) => return Ok(table.clone()),
            other => other.text()?,
        };
        let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
        pairs
            .map(|pair| match pair.split_once('=') {
                Some((key, value)) if !key.trim().is_empty() => {
                    Ok((key.trim().to_string(), value.trim().to_string()))
                }
                _ => Err(format!("{pair:?} is not of the form key=value")),
            })
            .collect()
    }
}

/// A number with a unit, once or several times, largest first by custom: `1h`, `1m30s`, `1500ms`.
fn go_duration(text: &str) -> Option<f64> {
    let mut rest = text.trim();
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        seconds += number
            * match &rest[..unit] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 0.001,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    (!text.trim().is_empty()).then_some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_go_s_forms() {
        let read = |text: &str| {
            Value::Text(text.to_string()).duration().map(|duration| duration.as_secs_f64())
        };
        assert_eq!(
            ["30s", "1m30s", "2.5", "1500ms", "1h"].map(|text| read(text).unwrap()),
            [30.0, 90.0, 2.5, 1.5, 3600.0]
        );
        assert!(["", "s", "30 s", "30d", "-1", "1e400"].iter().all(|text| read(text).is_err()));
    }

    #[test]
    fn lists_and_labels_have_several_forms() {
        let list = |text: &str| Value::Text(text.to_string()).list().unwrap().join(" ");
        assert_eq!(list(r#"["http://a:1", 'http://b:2']"#), "http://a:1 http://b:2");
        assert_eq!(list("http://a:1,http://b:2,"), "http://a:1 http://b:2");
        let labels = |text: &str| Value::Text(text.to_string()).labels();
        assert_eq!(labels("region=us, az=a=b").unwrap()["az"], "a=b");
        assert_eq!(labels("region").unwrap_err(), "\"region\" is not of the form key=value");
    }
}
