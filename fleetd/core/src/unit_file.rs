//! systemd unit files: text to a list of options with their lines, and back to fleet 1.0's normal form, whose SHA-1 is the unit's hash.

use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};
use smol_str::SmolStr;

/// The largest unit file, in bytes. systemd itself takes no line over 1 MiB, and etcd no request over 1.5 MiB.
pub const MAX_UNIT_BYTES: usize = 1024 * 1024;

/// How many hex digits of the hash documents carry: 48 bits tell the texts of one unit apart, at a third of the size.
const SHORT_HASH_DIGITS: usize = 12;

/// The first digits of a text's hash: so few that they need no memory of their own.
pub type ShortHash = SmolStr;

/// One `Name=Value` line, in fleet 1.0's wire form, which leaves out what is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct UnitOption {
    /// The name before `=`.
    pub name: String,
    /// `Unit`, `Service`, `X-Fleet`…
    pub section: String,
    /// The value, continuation lines kept as written.
    pub value: String,
}

/// A parsed unit file: its options in order, each with the line it stands on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UnitFile {
    /// The options, in order.
    pub options: Vec<UnitOption>,
    /// The line of each option, from 1.
    pub lines: Vec<usize>,
    /// What systemd and fleet 1.0 pass over: lines before the first section.
    pub passed_over: Vec<UnitFileError>,
}

/// What is wrong with a unit file, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{problem}", if *.line > 0 { format!("line {line}: ") } else { String::new() })]
pub struct UnitFileError {
    /// The line, from 1; 0 when the file as a whole is meant.
    pub line: usize,
    /// What is wrong, and what to do.
    pub problem: String,
}

impl UnitFile {
    /// Parses `text` strictly: the first line that systemd would not understand is the error.
    pub fn parse(text: &str) -> Result<UnitFile, UnitFileError> {
        if text.len() > MAX_UNIT_BYTES {
            let problem = format!("the unit file is {} bytes; the limit is {MAX_UNIT_BYTES} bytes (1 MiB)", text.len());
            return Err(UnitFileError { line: 0, problem });
        }
        if let Some(line) = text.split('\n').position(|line| line.contains('\0')) {
            let problem = "a NUL byte: this is not a text file".to_string();
            return Err(UnitFileError { line: line + 1, problem });
        }
        let (file, errors) = read(text);
        match errors.into_iter().next() {
            Some(error) => Err(error),
            // Something is there, but nothing that anybody would read.
            None if file.options.is_empty() && !file.passed_over.is_empty() => Err(file.passed_over[0].clone()),
            None if file.options.is_empty() => {
                let problem = "the unit file has no options; it needs at least a section and one Name=Value line".to_string();
                Err(UnitFileError { line: 0, problem })
            }
            None => Ok(file),
        }
    }

    /// Parses a text that was accepted before; lines that are no options are passed over.
    pub fn parse_lenient(text: &str) -> UnitFile {
        read(text).0
    }

    /// Builds a file from options, as old clients send them.
    pub fn from_options(options: Vec<UnitOption>) -> UnitFile {
        let lines = vec![0; options.len()];
        UnitFile { options, lines, passed_over: Vec::new() }
    }

    /// The values of `name` in `section`, in order, with systemd's rule that an empty value resets left to the caller.
    pub fn values<'a>(&'a self, section: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.options.iter().filter(move |o| o.section == section && o.name == name).map(|o| o.value.as_str())
    }

    /// The last value of `name` in `section`, which is the one that systemd uses for single settings.
    pub fn last<'a>(&'a self, section: &'a str, name: &'a str) -> Option<&'a str> {
        self.values(section, name).last()
    }

    /// Whether any option stands in `section`.
    pub fn has_section(&self, section: &str) -> bool {
        self.options.iter().any(|o| o.section == section)
    }

    /// fleet 1.0's normal form: sections in first-seen order, one `Name=Value` a line, a blank line between sections.
    pub fn normalised(&self) -> String {
        let mut sections: Vec<&str> = Vec::new();
        for option in &self.options {
            if !sections.contains(&option.section.as_str()) {
                sections.push(&option.section);
            }
        }
        let mut text = String::new();
        for (i, section) in sections.iter().enumerate() {
            if i > 0 {
                text.push('\n');
            }
            ["[", section, "]\n"].iter().for_each(|part| text.push_str(part));
            for option in self.options.iter().filter(|o| o.section == *section) {
                [&option.name, "=", &option.value, "\n"].iter().for_each(|part| text.push_str(part));
            }
        }
        text
    }

    /// SHA-1 of the normal form, as 40 hex digits: equal to fleet 1.0's, so comments do not change it.
    pub fn hash(&self) -> String {
        let digest = Sha1::digest(self.normalised().as_bytes());
        let digit = |four_bits: u8| char::from(b"0123456789abcdef"[usize::from(four_bits)]);
        digest.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
    }

    /// The first digits of [`UnitFile::hash`], as documents carry it.
    pub fn short_hash(&self) -> ShortHash {
        UnitFile::shorten(&self.hash()).into()
    }

    /// The digits of a whole hash that documents carry.
    pub fn shorten(hash: &str) -> &str {
        hash.get(..SHORT_HASH_DIGITS).unwrap_or(hash)
    }
}

/// A boolean in systemd's words; `None` for any other, which systemd passes over with a warning.
pub fn boolean(word: &str) -> Option<bool> {
    match word.to_ascii_lowercase().as_str() {
        "1" | "yes" | "y" | "true" | "t" | "on" => Some(true),
        "0" | "no" | "n" | "false" | "f" | "off" => Some(false),
        _ => None,
    }
}

/// Reads all options that can be read, and collects what could not.
fn read(text: &str) -> (UnitFile, Vec<UnitFileError>) {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut file = UnitFile::default();
    let mut errors = Vec::new();
    let mut section: Option<String> = None;
    let mut lines = text.split('\n').enumerate();
    while let Some((number, raw)) = lines.next() {
        let line = raw.strip_suffix('\r').unwrap_or(raw);
        let trimmed = line.trim();
        let wrong = |problem: String| UnitFileError { line: number + 1, problem };
        if trimmed.is_empty() || trimmed.starts_with('#') || trimmed.starts_with(';') {
            continue;
        }
        if let Some(name) = trimmed.strip_prefix('[') {
            match name.strip_suffix(']').filter(|name| !name.is_empty() && !name.contains(['[', ']'])) {
                Some(name) => section = Some(name.to_string()),
                None => errors.push(wrong(format!("malformed section header {trimmed:?}; write it as [Name]"))),
            }
            continue;
        }
        let shown = || trimmed.chars().take(60).collect::<String>();
        let Some(section) = &section else {
            file.passed_over.push(wrong(format!("{:?} stands before the first [Section] and is ignored", shown())));
            continue;
        };
        let Some((name, value)) = line.split_once('=') else {
            errors.push(wrong(format!("{:?} is neither a section, a comment nor a Name=Value option", shown())));
            continue;
        };
        let value = continued(value, &mut lines);
        let name = name.trim().to_string();
        if name.is_empty() {
            errors.push(wrong("an option without a name before \"=\"".to_string()));
        } else {
            file.options.push(UnitOption { section: section.clone(), name, value });
            file.lines.push(number + 1);
        }
    }
    (file, errors)
}

/// Takes the lines that a backslash at the very end continues, kept verbatim inside the value as fleet 1.0 did: so hashes are equal.
fn continued<'a>(first: &str, lines: &mut impl Iterator<Item = (usize, &'a str)>) -> String {
    if !first.ends_with('\\') {
        return first.trim().to_string();
    }
    let mut value = first.to_string();
    while value.ends_with('\\') {
        let Some((_, next)) = lines.next() else { break };
        let next = next.strip_suffix('\r').unwrap_or(next);
        value.push('\n');
        if next.trim().is_empty() {
            break; // a blank line ends the value, its newline kept
        }
        value.push_str(next);
    }
    let trimmed = value.trim();
    if value.ends_with('\n') { format!("{trimmed}\n") } else { trimmed.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELLO: &str = "[Unit]\nDescription=Hello World\n\n[Service]\nExecStart=/bin/bash -c \"while true; do echo Hello, World!; sleep 2; done\"\n";

    #[test]
    fn the_hash_is_the_one_that_fleet_1_0_printed() {
        assert_eq!(UnitFile::parse(HELLO).unwrap().hash(), "12538882634ecdba3dc6ddab70473ebc073de4e7");
    }

    #[test]
    fn comments_crlf_bom_and_a_missing_newline_do_not_change_the_hash() {
        let noisy = format!("\u{feff}# a comment\r\n{}", HELLO.trim_end().replace('\n', "\r\n; note\r\n"));
        assert_eq!(UnitFile::parse(&noisy).unwrap().hash(), UnitFile::parse(HELLO).unwrap().hash());
    }

    #[test]
    fn values_are_read_as_fleet_1_0_read_them() {
        for (lines, expected) in [
            ("A=b", "b"),
            ("A =  b \t", "b"),
            ("A=", ""),
            ("A=b=c", "b=c"),
            ("A=a \\\n  b", "a \\\n  b"),
            ("A=a \\\n# no comment \\\n  b  ", "a \\\n# no comment \\\n  b"),
            ("A=a \\\r\n  b\r", "a \\\n  b"),
            ("A=a \\ ", "a \\"), // a space after it: no continuation, for systemd neither
            ("A=a \\\n\nB=c", "a \\\n"),
            ("A=a \\", "a \\"),
        ] {
            let file = UnitFile::parse(&format!("[S]\n{lines}")).unwrap();
            assert_eq!(file.options[0].value, expected, "{lines:?}");
            // A backslash at the end of a value cannot be written down: what follows would continue it.
            if !expected.ends_with('\\') {
                assert_eq!(
                    UnitFile::parse(&file.normalised()).unwrap().options,
                    file.options,
                    "{lines:?} written and read again"
                );
            }
        }
    }

    #[test]
    fn each_option_knows_its_line() {
        let file = UnitFile::parse("# note\n[Service]\nExecStart=/bin/echo a \\\n  b\nRestart=always\n").unwrap();
        assert_eq!(file.lines, [3, 5]);
    }

    #[test]
    fn sections_are_grouped_in_the_normal_form() {
        let file = UnitFile::parse("[B]\nx=1\n[A]\ny=2\n;note\n[B]\nz=3").unwrap();
        assert_eq!(file.normalised(), "[B]\nx=1\nz=3\n\n[A]\ny=2\n");
    }

    #[test]
    fn text_before_the_first_section_is_passed_over_and_said() {
        let file = UnitFile::parse("by hand\nA=b\n[Service]\nExecStart=/bin/true\n").unwrap();
        assert_eq!(file.options.len(), 1);
        assert_eq!(file.passed_over[1].to_string(), "line 2: \"A=b\" stands before the first [Section] and is ignored");
    }

    #[test]
    fn a_line_may_be_longer_than_fleet_1_0_took() {
        let line = format!("ExecStart=/bin/echo {}", "x".repeat(2_049 - 20));
        assert_eq!(line.len(), 2_049);
        assert_eq!(UnitFile::parse(&format!("[Service]\n{line}\n")).unwrap().options[0].value.len(), 2_039);
    }

    #[test]
    fn errors_name_the_line() {
        for (text, expected) in [
            ("", "the unit file has no options; it needs at least a section and one Name=Value line"),
            ("[Service\nA=b\n", "line 1: malformed section header \"[Service\"; write it as [Name]"),
            ("[Service]\nA=b\nnonsense\n", "line 3: \"nonsense\" is neither a section, a comment nor a Name=Value option"),
            ("A=b\n", "line 1: \"A=b\" stands before the first [Section] and is ignored"),
            ("\nwritten by hand\n", "line 2: \"written by hand\" stands before the first [Section] and is ignored"),
            ("[Service]\n=b\n", "line 2: an option without a name before \"=\""),
            ("[Service]\nA=\0\n", "line 2: a NUL byte: this is not a text file"),
        ] {
            assert_eq!(UnitFile::parse(text).unwrap_err().to_string(), expected, "{text:?}");
        }
        assert!(UnitFile::parse(&"x".repeat(2 << 20)).unwrap_err().to_string().contains("the limit is"));
    }
}
