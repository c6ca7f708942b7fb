//! Text as a terminal may be shown it: what a terminal would obey is written as an escape.

use std::borrow::Cow;

/// Replaces what a terminal obeys by its bytes, `\x1b`: control characters but newline and tab,
/// marks that turn the direction of the text, and bytes that are no UTF-8. All else stays.
pub fn shown(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes)
        && !text.contains(is_obeyed)
    {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match is_obeyed(c) {
                false => out.push(c),
                true => escape(c.encode_utf8(&mut [0; 4]).as_bytes(), &mut out),
            }
        }
        escape(chunk.invalid(), &mut out);
    }
    Cow::Owned(out)
}

/// The same of a text that is to stay one line: newlines and tabs are escaped, too.
pub fn line(text: &str) -> Cow<'_, str> {
    let breaks = |c: char| c.is_control() || is_obeyed(c);
    if !text.contains(breaks) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match breaks(c) {
            false => out.push(c),
            true => escape(c.encode_utf8(&mut [0; 4]).as_bytes(), &mut out),
        }
    }
    Cow::Owned(out)
}

/// What [`shown`] does, of JSON, which stays JSON: what it lets stand gets JSON's own escape.
pub fn shown_json(text: &str) -> Cow<'_, str> {
    if !text.contains(is_obeyed) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match is_obeyed(c) {
            false => out.push(c),
            true => out.push_str(&format!("\\u{:04x}", u32::from(c))),
        }
    }
    Cow::Owned(out)
}

/// How many bytes at the end are the beginning of a character whose rest may come.
pub fn unfinished(bytes: &[u8]) -> usize {
    // A character has four bytes at most, so its beginning is among the last three.
    let begins = |length: &usize| {
        let end = &bytes[bytes.len() - length..];
        std::str::from_utf8(end)
            .is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
    };
    (1..=bytes.len().min(3)).find(begins).unwrap_or(0)
}

fn is_obeyed(c: char) -> bool {
    (c.is_control() && c != '\n' && c != '\t')
        || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escape(bytes: &[u8], out: &mut String) {
    bytes.iter().for_each(|byte| out.push_str(&format!("\\x{byte:02x}")));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_shown_and_all_else_stays() {
        assert_eq!(shown("● ü\ta\nb \\x2d 漢".as_bytes()), "● ü\ta\nb \\x2d 漢");
        assert_eq!(
            shown(b"\x1b]0;title\x07\x1b[2J\r\x08\x7f"),
            "\\x1b]0;title\\x07\\x1b[2J\\x0d\\x08\\x7f"
        );
        assert_eq!(shown("\u{9b}31m \u{202e}x".as_bytes()), "\\xc2\\x9b31m \\xe2\\x80\\xaex");
        assert_eq!(shown(b"a\x9b\xffb"), "a\\x9b\\xffb");
    }

    #[test]
    fn json_stays_json() {
        let text = serde_json::to_string("\u{1b}[31m \u{7f}\u{9b} ü").unwrap();
        let shown = shown_json(&text);
        assert_eq!(shown, r#""\u001b[31m \u007f\u009b ü""#);
        assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), "\u{1b}[31m \u{7f}\u{9b} ü");
    }

    #[test]
    fn a_character_that_is_cut_off_waits_for_its_rest() {
        assert_eq!(unfinished("aü".as_bytes()), 0);
        assert_eq!(unfinished(&"aü".as_bytes()[..2]), 1);
        assert_eq!(unfinished(b"\xff\xe2\x80"), 2);
        assert_eq!(unfinished(b"a\xff"), 0);
        assert_eq!(unfinished(&[0xff; 1_000_000]), 0);
    }
}
