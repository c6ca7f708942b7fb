//! systemd unit files: text to a list of options with their lines, and back to fleet 1.0's normal
//! form, whose SHA-1 is the unit's hash.

use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};
use smol_str::SmolStr;

/// The largest unit file, in bytes. systemd itself takes no line over 1 MiB, and etcd no request
/// over 1.5 MiB.
pub const MAX_UNIT_BYTES: usize = 1024 * 1024;

/// How many hex digits of the hash documents carry: 48 bits tell the texts of one unit apart, at a
/// third of the size.
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

/// An option that is no line of a unit file. Its text would read back as something else: a newline
/// in a value is an injected line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "an option cannot be written as a line of a unit file: its section, name or value holds a \
        newline or another character with a meaning of its own"
)]
pub struct Unwritable;

impl UnitFile {
    /// Parses `text` strictly: the first line that systemd would not understand is the error.
    pub fn parse(text: &str) -> Result<UnitFile, UnitFileError> {
        let file = UnitFile::parse_even_empty(text)?;
        if !file.options.is_empty() {
            return Ok(file);
        }
        let problem = "the unit file has no options; it needs at least a section and one \
            Name=Value line";
        Err(UnitFileError { line: 0, problem: problem.to_string() })
    }

    /// The same of a file that need not say anything: `[Volume]` alone is a volume to podman.
    pub fn parse_even_empty(text: &str) -> Result<UnitFile, UnitFileError> {
        if text.len() > MAX_UNIT_BYTES {
            let problem = format!(
                "the unit file is {} bytes; the limit is {MAX_UNIT_BYTES} bytes (1 MiB)",
                text.len()
            );
            return Err(UnitFileError { line: 0, problem });
        }
        if let Some(line) = text.split('\n').position(|line| line.contains('\0')) {
            let problem = "a NUL byte: this is not a text file".to_string();
            return Err(UnitFileError { line: line + 1, problem });
        }
        if let Some(hidden) = hidden_from_us(text) {
            return Err(hidden);
        }
        let (file, errors) = read(text);
        match errors.into_iter().next() {
            Some(error) => Err(error),
            // Something is there, but nothing that anybody would read.
            None if file.options.is_empty() && !file.passed_over.is_empty() => {
                Err(file.passed_over[0].clone())
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

    /// The text of options as old clients and fleet 1.0 have them: in the normal form.
    pub fn text_of(options: Vec<UnitOption>) -> Result<String, Unwritable> {
        let file = UnitFile::from_options(options);
        let text = file.normalised();
        let by_section = |file: &UnitFile| {
            let mut options = file.options.clone();
            options.sort_by(|a, b| a.section.cmp(&b.section));
            options
        };
        match by_section(&UnitFile::parse_lenient(&text)) == by_section(&file) {
            true => Ok(text),
            false => Err(Unwritable),
        }
    }

    /// The values of `name` in `section`, in order, with systemd's rule that an empty value resets
    /// left to the caller.
    pub fn values<'a>(&'a self, section: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.options
            .iter()
            .filter(move |o| o.section == section && o.name == name)
            .map(|o| o.value.as_str())
    }

    /// The last value of `name` in `section`, which is the one that systemd uses for single
    /// settings.
    pub fn last<'a>(&'a self, section: &'a str, name: &'a str) -> Option<&'a str> {
        self.values(section, name).last()
    }

    /// Whether any option stands in `section`.
    pub fn has_section(&self, section: &str) -> bool {
        self.options.iter().any(|o| o.section == section)
    }

    /// fleet 1.0's normal form: sections in first-seen order, one `Name=Value` a line, a blank line
    /// between sections.
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
                [&option.name, "=", &option.value, "\n"]
                    .iter()
                    .for_each(|part| text.push_str(part));
            }
        }
        text
    }

    /// SHA-1 of the normal form, as 40 hex digits: equal to fleet 1.0's, so comments do not change
    /// it.
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

/// What systemd takes for whitespace, and nothing else.
const WHITESPACE: &[char] = &[' ', '\t', '\n', '\r'];

/// The first line that systemd reads otherwise than [`read`] and that could so hide options from
/// every check of ours. What was accepted before this was looked at is still read as it always was:
/// its hash must stay.
fn hidden_from_us(text: &str) -> Option<UnitFileError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (mut in_section, mut ours_goes_on, mut theirs_goes_on) = (false, false, false);
    for (number, raw) in text.split('\n').enumerate() {
        let refused =
            |line: usize, problem: &str| Some(UnitFileError { line, problem: problem.to_string() });
        let line = raw.strip_suffix('\r').unwrap_or(raw);
        if line.contains('\r') {
            return refused(
                number + 1,
                "a carriage return inside the line: systemd begins a new line there; remove it",
            );
        }
        let (bare, trimmed) = (line.trim_start_matches(WHITESPACE), line.trim());
        // Also between the lines of a value, which goes on behind it.
        let is_their_comment = bare.starts_with(['#', ';']);
        let is_header = trimmed.starts_with('[');
        if !is_their_comment && !trimmed.is_empty() {
            match (ours_goes_on, theirs_goes_on) {
                (true, false) => {
                    return refused(
                        number,
                        "its last backslash is escaped, so systemd ends the value here; put a \
                            space behind it",
                    );
                }
                (false, true) if is_header => {
                    let problem = "the line before it goes on here for systemd, which finds no \
                        section then; put a blank line between";
                    return refused(number + 1, problem);
                }
                (false, false) => {
                    if let Some(odd) = odd_character(bare) {
                        let problem = format!(
                            "U+{:04X} is no whitespace to systemd, but a part of the word; \
                                remove it",
                            u32::from(odd)
                        );
                        return refused(number + 1, &problem);
                    }
                }
                _ => {}
            }
        }
        let is_option = in_section && !trimmed.starts_with(['#', ';', '[']) && line.contains('=');
        in_section |= is_header && !ours_goes_on;
        ours_goes_on = line.ends_with('\\') && (ours_goes_on || is_option);
        let backslashes = line.len() - line.trim_end_matches('\\').len();
        theirs_goes_on = if is_their_comment { theirs_goes_on } else { backslashes % 2 == 1 };
    }
    None
}

/// What only Unicode takes for whitespace at the start of a line, at the end of its option's name,
/// or behind a section's header.
fn odd_character(line: &str) -> Option<char> {
    let name = line.split_once('=').map_or("", |(name, _)| name.trim_end_matches(WHITESPACE));
    let header = if line.starts_with('[') { line.trim_end_matches(WHITESPACE) } else { "" };
    let ends = [name, header].into_iter().filter_map(|word| word.chars().next_back());
    line.chars().next().into_iter().chain(ends).find(|c| is_odd(*c))
}

/// Whitespace to Unicode and not to systemd, or invisible.
fn is_odd(c: char) -> bool {
    c == '\u{feff}' || (c.is_whitespace() && !WHITESPACE.contains(&c))
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
            match name
                .strip_suffix(']')
                .filter(|name| !name.is_empty() && !name.contains(['[', ']']))
            {
                Some(name) => section = Some(name.to_string()),
                None => errors.push(wrong(format!(
                    "malformed section header {trimmed:?}; write it as [Name]"
                ))),
            }
            continue;
        }
        let shown = || trimmed.chars().take(60).collect::<String>();
        let Some(section) = &section else {
            file.passed_over.push(wrong(format!(
                "{:?} stands before the first [Section] and is ignored",
                shown()
            )));
            continue;
        };
        let Some((name, value)) = line.split_once('=') else {
            errors.push(wrong(format!(
                "{:?} is neither a section, a comment nor a Name=Value option",
                shown()
            )));
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

/// Takes the lines that a backslash at the very end continues, kept verbatim inside the value as
/// fleet 1.0 did: so hashes are equal.
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

/// The words of a list, without the quotes around or in them. Escapes are not resolved: what they
/// could hide in a Quadlet file shows in what podman's generator makes of it.
pub fn words(value: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in value.chars() {
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, None) if c.is_ascii_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELLO: &str = "[Unit]\nDescription=Hello World\n\n[Service]\nExecStart=/bin/bash -c \
        \"while true; do echo Hello, World!; sleep 2; done\"\n";

    #[test]
    fn the_hash_is_the_one_that_fleet_1_0_printed() {
        assert_eq!(
            UnitFile::parse(HELLO).unwrap().hash(),
            "12538882634ecdba3dc6ddab70473ebc073de4e7"
        );
    }

    #[test]
    fn comments_crlf_bom_and_a_missing_newline_do_not_change_the_hash() {
        let noisy =
            format!("\u{feff}# a comment\r\n{}", HELLO.trim_end().replace('\n', "\r\n; note\r\n"));
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
            // A backslash at the end of a value cannot be written down: what follows would continue
            // it.
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
        let file =
            UnitFile::parse("# note\n[Service]\nExecStart=/bin/echo a \\\n  b\nRestart=always\n")
                .unwrap();
        assert_eq!(file.lines, [3, 5]);
    }

    #[test]
    fn options_are_written_as_a_text_unless_that_would_read_back_as_others() {
        let option = |value: &str| UnitOption {
            name: "A".to_string(),
            section: "S".to_string(),
            value: value.to_string(),
        };
        assert_eq!(UnitFile::text_of(vec![option("b")]), Ok("[S]\nA=b\n".to_string()));
        for value in ["b\n[T]\nC=d", "b\nC=d", " b"] {
            assert_eq!(UnitFile::text_of(vec![option(value)]), Err(Unwritable), "{value:?}");
        }
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
        assert_eq!(
            file.passed_over[1].to_string(),
            "line 2: \"A=b\" stands before the first [Section] and is ignored"
        );
    }

    #[test]
    fn a_line_may_be_longer_than_fleet_1_0_took() {
        let line = format!("ExecStart=/bin/echo {}", "x".repeat(2_049 - 20));
        assert_eq!(line.len(), 2_049);
        assert_eq!(
            UnitFile::parse(&format!("[Service]\n{line}\n")).unwrap().options[0].value.len(),
            2_039
        );
    }

    #[test]
    fn a_line_that_systemd_reads_otherwise_is_refused_so_that_none_hides_behind_it() {
        let fine = "";
        let (carriage, escaped) =
            ("a carriage return inside the line", "its last backslash is escaped");
        for (text, expected) in [
            ("[S]\nA=x\r[Service]\rExecStartPre=/bin/evil\n", format!("line 2: {carriage}")),
            ("# x\rKillMode=none\n[S]\nA=b\n", format!("line 1: {carriage}")),
            ("[S]\nA=b\n\rKillMode=none\n", format!("line 3: {carriage}")),
            ("[S]\r\nA=b \\\r\n  c\r\nB=d\r", fine.to_string()),
            // An even number of backslashes ends no line for fleet 1.0, and does for systemd.
            ("[S]\nA=b\\\\\nKillMode=none\n", format!("line 2: {escaped}")),
            ("[S]\nA=b \\\n c\\\\\nKillMode=none\n", format!("line 3: {escaped}")),
            ("[S]\nA=b\\\\ \nKillMode=none\n", fine.to_string()),
            ("[S]\nA=b\\\\\n\nKillMode=none\n", fine.to_string()),
            ("[S]\nA=b\\\\\\\n c\nKillMode=none\n", fine.to_string()),
            ("[S]\n# c\\\\\nKillMode=none\n", fine.to_string()),
            // To systemd a comment ends no value, so the header is a part of it and the option is
            // one of [S].
            (
                "[S]\nA=b \\\n# c\n[X-T]\nKillMode=none\n",
                "line 4: the line before it goes on here".to_string(),
            ),
            ("[S]\nA=b \\\n# c\n\n[X-T]\nKillMode=none\n", fine.to_string()),
            ("[S]\nA=b \\\n# c\n --x=y\nB=c\n", fine.to_string()),
            // Whitespace is systemd's.
            (
                "[S]\n\u{a0}[X-T]\nKillMode=none\n",
                "line 2: U+00A0 is no whitespace to systemd".to_string(),
            ),
            ("[S]\n[X-T]\u{2003}\nKillMode=none\n", "line 2: U+2003 is no".to_string()),
            ("[S]\n \u{feff}KillMode=none\n", "line 2: U+FEFF is no".to_string()),
            ("[S]\n\u{b}KillMode=none\n", "line 2: U+000B is no".to_string()),
            ("[S]\nKillMode\u{85} =none\n", "line 2: U+0085 is no".to_string()),
            ("\u{feff}[S]\n\u{c}\n \t\nA=b\u{a0}\n", fine.to_string()),
        ] {
            let said =
                UnitFile::parse(text).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(
                said.starts_with(&expected) && said.is_empty() == expected.is_empty(),
                "{text:?}: {said:?}"
            );
        }
    }

    /// The options that systemd 257 finds, by its own rules for lines, comments, continuations and
    /// whitespace.
    fn as_systemd_reads(text: &str) -> Vec<(String, String)> {
        let (mut lines, mut ended_by) = (vec![String::new()], String::new());
        for c in text.chars() {
            // A line ends with any of the two, or with one of each.
            let is_end = c == '\n' || c == '\r';
            if (!is_end && !ended_by.is_empty()) || ended_by.contains(c) {
                lines.push(String::new());
                ended_by.clear();
            }
            if is_end { ended_by.push(c) } else { lines.last_mut().unwrap().push(c) }
        }
        let (mut logical, mut joined, mut bom) = (Vec::new(), String::new(), true);
        for line in lines {
            if line.trim_start_matches(WHITESPACE).starts_with(['#', ';']) {
                continue;
            }
            let stripped = line.strip_prefix('\u{feff}').filter(|_| bom);
            bom &= stripped.is_none();
            joined.push_str(stripped.unwrap_or(&line));
            let escaped = joined.chars().fold(false, |escaped, c| !escaped && c == '\\');
            if escaped {
                joined.pop();
                joined.push(' ');
            } else {
                logical.push(std::mem::take(&mut joined));
            }
        }
        logical.push(joined);
        let (mut section, mut options) = (None::<String>, Vec::new());
        for line in logical {
            let line = line.trim_matches(WHITESPACE);
            if let Some(header) = line.strip_prefix('[') {
                let Some(name) = header.strip_suffix(']') else { return Vec::new() }; // it refuses the file
                section = Some(name.to_string());
            } else if let (Some(section), Some((name, _))) = (&section, line.split_once('=')) {
                options.push((section.clone(), name.trim_matches(WHITESPACE).to_string()));
            }
        }
        options
    }

    proptest::proptest! {
        #[test]
        fn of_what_is_accepted_systemd_finds_no_option_that_fleet_does_not(
            pieces in proptest::collection::vec(proptest::sample::select(vec![
                "[S]", "[T]", "K=n", "A=b", "x", "=", " ", "\\", "\\\\", "#", ";", "\n", "\n", "\n[S]\nA=b \\\n", "\n\n", "\r", "\r\n",
                "\u{a0}", "\u{feff}", "\u{b}", "\nK=n\n",
            ]), 0..16)
        ) {
            let text = pieces.concat();
            if let Ok(file) = UnitFile::parse(&text) {
                for (section, name) in as_systemd_reads(&text) {
                    let theirs = as_systemd_reads(&text).iter().filter(|(s, n)| (s, n) == (&section, &name)).count();
                    let ours = file.options.iter().filter(|o| (&o.section, &o.name) == (&section, &name)).count();
                    proptest::prop_assert!(ours >= theirs, "{:?}: {}= in \
                        [{}]", text, name, section);
                }
            }
        }
    }

    #[test]
    fn errors_name_the_line() {
        for (text, expected) in [
            (
                "",
                "the unit file has no options; it needs at least a section and one Name=Value line",
            ),
            (
                "[Service\nA=b\n",
                "line 1: malformed section header \"[Service\"; write it as [Name]",
            ),
            (
                "[Service]\nA=b\nnonsense\n",
                "line 3: \"nonsense\" is neither a section, a comment nor a Name=Value option",
            ),
            ("A=b\n", "line 1: \"A=b\" stands before the first [Section] and is ignored"),
            (
                "\nwritten by hand\n",
                "line 2: \"written by hand\" stands before the first [Section] and is ignored",
            ),
            ("[Service]\n=b\n", "line 2: an option without a name before \"=\""),
            ("[Service]\nA=\0\n", "line 2: a NUL byte: this is not a text file"),
        ] {
            assert_eq!(UnitFile::parse(text).unwrap_err().to_string(), expected, "{text:?}");
        }
        assert!(
            UnitFile::parse(&"x".repeat(2 << 20)).unwrap_err().to_string().contains("the limit is")
        );
    }
}
