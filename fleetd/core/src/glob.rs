//! Shell patterns as Go's `path.Match` reads them: `*`, `?`, `[a-z]`, `[^a-z]`, `\` escapes; a bad
//! pattern matches nothing.

/// Whether `name` matches `pattern` as a whole. `*` and `?` do not match `/`, which unit names
/// never hold.
pub fn matches(pattern: &str, name: &str) -> bool {
    match_here(pattern.as_bytes(), name.as_bytes()).unwrap_or(false)
}

/// The part of `pattern` before its first special character: every name that it matches begins so.
pub fn literal_head(pattern: &str) -> &str {
    &pattern[..pattern.find(['*', '?', '[', '\\']).unwrap_or(pattern.len())]
}

/// Whether `pattern` surely matches every name that begins with `head` and ends with `tail`; it may
/// say no where the answer is yes.
pub fn matches_all(pattern: &str, head: &str, tail: &str) -> bool {
    let plain = |text: &str| literal_head(text).len() == text.len();
    pattern.split_once('*').is_some_and(|(before, after)| {
        plain(before) && plain(after) && head.starts_with(before) && tail.ends_with(after)
    })
}

/// `None` stands for a malformed pattern.
fn match_here(mut pattern: &[u8], mut name: &[u8]) -> Option<bool> {
    // Where to go back to after the last `*`: the pattern after it, and the name it has eaten so
    // far.
    let mut star: Option<(&[u8], &[u8])> = None;
    loop {
        let step = match pattern.first() {
            Some(b'*') => {
                pattern = &pattern[1..];
                star = Some((pattern, name));
                continue;
            }
            Some(_) if !name.is_empty() => match_one(pattern, name[0])?,
            Some(_) => None,
            None if name.is_empty() => return Some(true),
            None => None,
        };
        match (step, star) {
            (Some(rest), _) => {
                pattern = rest;
                name = &name[1..];
            }
            (None, Some((after, eaten))) if !eaten.is_empty() => {
                star = Some((after, &eaten[1..]));
                pattern = after;
                name = &eaten[1..];
            }
            (None, _) => return Some(false),
        }
    }
}

/// Matches one byte against the head of the pattern: `Some(Some(rest))` on a match, `Some(None)` on
/// none, `None` if malformed.
fn match_one(pattern: &[u8], byte: u8) -> Option<Option<&[u8]>> {
    match pattern[0] {
        b'?' => Some(Some(&pattern[1..])),
        b'\\' => pattern.get(1).map(|&literal| (literal == byte).then(|| &pattern[2..])),
        b'[' => match_class(&pattern[1..], byte),
        literal => Some((literal == byte).then(|| &pattern[1..])),
    }
}

fn match_class(mut class: &[u8], byte: u8) -> Option<Option<&[u8]>> {
    let negated = class.first() == Some(&b'^');
    if negated {
        class = &class[1..];
    }
    let mut found = false;
    let mut first = true;
    loop {
        match class.first()? {
            b']' if !first => return Some((found != negated).then(|| &class[1..])),
            _ => {
                let (low, rest) = class_byte(class)?;
                let (high, rest) = match rest.first() {
                    Some(b'-') => class_byte(&rest[1..])?,
                    _ => (low, rest),
                };
                found |= (low..=high).contains(&byte);
                class = rest;
                first = false;
            }
        }
    }
}

fn class_byte(class: &[u8]) -> Option<(u8, &[u8])> {
    match class.first()? {
        b'\\' => Some((*class.get(1)?, &class[2..])),
        b'-' | b']' => None,
        &byte => Some((byte, &class[1..])),
    }
}

#[cfg(test)]
mod tests {
    use super::{matches, matches_all};

    #[test]
    fn patterns_match_as_in_go() {
        for (pattern, name, expected) in [
            ("web@*.service", "web@12.service", true),
            ("web@*.service", "db.service", false),
            ("*", "", true),
            ("a*b*c", "a-x-b-y-c", true),
            ("a*b*c", "a-x-c", false),
            ("?.service", "a.service", true),
            ("?.service", "ab.service", false),
            ("[a-c]*", "banana", true),
            ("[^a-c]*", "banana", false),
            ("[", "a", false),
            ("a[", "a", false),
            ("\\*", "*", true),
            ("\\", "x", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} on {name}");
        }
    }

    #[test]
    fn a_pattern_for_a_whole_family_is_told_from_one_for_some() {
        for (pattern, expected) in [
            ("web@*.service", true),
            ("*", true),
            ("w*", true),
            ("web@*", true),
            ("web@1*.service", false),
            ("web@?.service", false),
            ("web@3.service", false),
            ("web@*.socket", false),
            ("[w]*", false),
        ] {
            assert_eq!(matches_all(pattern, "web@", ".service"), expected, "{pattern}");
        }
    }
}
