//! fleet 1.0's configuration file: `key=value` lines without sections, values with or without
//! quotes.

use std::path::Path;

use super::entry::{Entry, Value};

/// The options in file order, and what is wrong, by line from 1. Options below a `[section]` meant
/// nothing to fleet 1.0 either.
pub(super) fn parse(text: &str, file: &Path) -> (Vec<Entry>, Vec<(usize, String)>) {
    let (mut entries, mut problems) = (Vec::new(), Vec::new());
    for (number, line) in (1..).zip(text.trim_start_matches('\u{feff}').lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if line.starts_with('[') {
            problems.push((
                number,
                format!("{line}: this file has no sections; nothing below this line is read"),
            ));
            break;
        }
        let Some((key, value)) = line.split_once('=') else {
            problems.push((number, format!("{line:?} is not of the form key=value")));
            continue;
        };
        match unquote(value.trim()) {
            Some(value) => {
                entries.push(Entry::line(key.trim(), Value::Text(value.to_string()), file, number))
            }
            None => problems.push((
                number,
                format!("{}: a quote is not closed, or something follows it", key.trim()),
            )),
        }
    }
    (entries, problems)
}

fn unquote(value: &str) -> Option<&str> {
    let Some(quoted) = value.strip_prefix('"') else { return Some(value) };
    let (inside, rest) = quoted.split_once('"')?;
    let rest = rest.trim();
    (rest.is_empty() || rest.starts_with(['#', ';'])).then_some(inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_with_and_without_quotes() {
        let text = "# fleet\n; old\n\netcd_servers=[\"http://a:1\",\"http://b:2\"]\npublic_ip = \
            10.0.0.1\nmetadata=\"region=us\" # west\r\nempty=\n";
        let (entries, problems) = parse(text, "f".as_ref());
        let read: Vec<String> = entries
            .iter()
            .map(|e| format!("{} {} {}", e.place, e.key, e.value.text().unwrap()))
            .collect();
        assert_eq!(
            read.join("\n"),
            "f:4 etcd_servers [\"http://a:1\",\"http://b:2\"]\nf:5 public_ip 10.0.0.1\nf:6 \
                metadata region=us\nf:7 empty "
        );
        assert!(problems.is_empty(), "{problems:?}");
    }

    #[test]
    fn what_is_wrong_is_told_by_line() {
        let (entries, problems) =
            parse("agent_ttl=\"30s\nverbose\n[etcd]\nservers=1\n", "f".as_ref());
        let said: Vec<String> =
            problems.into_iter().map(|(line, said)| format!("{line}: {said}")).collect();
        assert_eq!(
            said.join("\n"),
            "1: agent_ttl: a quote is not closed, or something follows it\n2: \"verbose\" is not \
                of the form key=value\n3: [etcd]: this file has no sections; nothing below this \
                line is read"
        );
        assert!(entries.is_empty());
    }
}
