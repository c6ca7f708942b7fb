//! Our own configuration files: TOML, kept with the line of each option.

use std::collections::BTreeMap;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::entry::{Entry, Value};

/// The options in file order, and what is wrong, by line from 1: each syntax error, each value of a
/// kind that no option has.
pub(super) fn parse(text: &str, file: &Path) -> (Vec<Entry>, Vec<(usize, String)>) {
    let line = |at: usize| text[..at.min(text.len())].matches('\n').count() + 1;
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut problems: Vec<(usize, String)> = errors
        .iter()
        .map(|error| (error.span().map_or(1, |span| line(span.start)), error.message().to_string()))
        .collect();
    if !problems.is_empty() {
        // What could be read of a broken file may not be what was meant.
        return (Vec::new(), problems);
    }
    let mut entries: Vec<(usize, Entry)> = Vec::new();
    for (key, value) in table.into_inner() {
        let at = key.span().start;
        match read(&value) {
            Ok(value) => entries.push((at, Entry::line(key.get_ref(), value, file, line(at)))),
            Err(problem) => problems.push((line(at), format!("{}: {problem}", key.get_ref()))),
        }
    }
    entries.sort_by_key(|(at, _)| *at);
    problems.sort();
    (entries.into_iter().map(|(_, entry)| entry).collect(), problems)
}

fn read(value: &Spanned<DeValue<'_>>) -> Result<Value, String> {
    let number = |text: &str| {
        text.replace('_', "")
            .parse()
            .map(Value::Number)
            .map_err(|_| format!("cannot read the number {text}"))
    };
    match value.get_ref() {
        DeValue::String(text) => Ok(Value::Text(text.to_string())),
        DeValue::Integer(integer) => number(integer.as_str()),
        DeValue::Float(float) => number(float.as_str()),
        DeValue::Boolean(flag) => Ok(Value::Flag(*flag)),
        DeValue::Datetime(time) => Ok(Value::Text(time.to_string())),
        DeValue::Array(items) => items
            .iter()
            .map(|item| match item.get_ref() {
                DeValue::String(text) => Ok(text.to_string()),
                _ => Err("expected texts in quotes in the list".to_string()),
            })
            .collect::<Result<Vec<String>, String>>()
            .map(Value::List),
        DeValue::Table(table) => table
            .iter()
            .map(|(key, value)| Ok((key.get_ref().to_string(), read(value)?.text()?)))
            .collect::<Result<BTreeMap<String, String>, String>>()
            .map(Value::Table),
    }
}
