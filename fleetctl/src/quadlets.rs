//! A `.quadlets` file: several Quadlet files in one, as podman takes it. Each is named by a comment
//! `# FileName=web`, its section says its type, and a line `---` stands between two of them.

/// The sections that tell a type, each with the ending of its files.
const SECTIONS: &[(&str, &str)] = &[
    ("[Artifact]", "artifact"),
    ("[Build]", "build"),
    ("[Container]", "container"),
    ("[Image]", "image"),
    ("[Kube]", "kube"),
    ("[Network]", "network"),
    ("[Pod]", "pod"),
    ("[Volume]", "volume"),
];

/// One of the files.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// Its name: `web.container`.
    pub(crate) name: String,
    /// The line on which it begins, from 1.
    pub(crate) line: usize,
    /// What stands in it.
    pub(crate) text: String,
}

/// The files in `text`; the error is a line and what is wrong there.
pub(crate) fn split(text: &str) -> Result<Vec<Part>, (usize, String)> {
    let mut parts = Vec::new();
    let mut begin = 1;
    let mut lines: Vec<&str> = Vec::new();
    let all = text.split_inclusive('\n').map(Some).chain([None]);
    for (number, line) in all.enumerate() {
        if let Some(line) = line.filter(|line| line.trim() != "---") {
            lines.push(line);
            continue;
        }
        let of_part = std::mem::take(&mut lines);
        if of_part.iter().any(|line| !line.trim().is_empty()) {
            parts.push(part(begin, &of_part)?);
        }
        begin = number + 2;
    }
    match parts.is_empty() {
        true => Err((1, "there is no Quadlet file in it".to_string())),
        false => Ok(parts),
    }
}

fn part(begin: usize, lines: &[&str]) -> Result<Part, (usize, String)> {
    let named = |line: &&str| {
        let comment = line.trim().strip_prefix('#')?;
        comment.trim_start().strip_prefix("FileName=").map(|name| name.trim().to_string())
    };
    let names: Vec<(usize, String)> =
        (begin..).zip(lines).filter_map(|(number, line)| Some((number, named(line)?))).collect();
    let stem = match names.as_slice() {
        [(_, stem)] => stem,
        [] => {
            let missing = "the part that begins here has no name: write a comment \
                \"# FileName=web\" into it";
            return Err((begin, missing.to_string()));
        }
        [_, (number, _), ..] => {
            let twice = "this part has a name already; a line \"---\" begins another one";
            return Err((*number, twice.to_string()));
        }
    };
    let section = |line: &&str| SECTIONS.iter().find(|(section, _)| *section == line.trim());
    let mut kinds: Vec<&str> = lines.iter().filter_map(section).map(|(_, kind)| *kind).collect();
    kinds.dedup();
    match kinds.as_slice() {
        [kind] => Ok(Part { name: format!("{stem}.{kind}"), line: begin, text: lines.concat() }),
        [] => Err((
            begin,
            format!(
                "{stem} has none of the sections that tell a Quadlet file's type, such as \
                    [Container]"
            ),
        )),
        several => Err((
            begin,
            format!(
                "{stem} has sections of several types ({}); a line \"---\" begins another file",
                several.join(", ")
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> String {
        match split(text) {
            Ok(parts) => parts
                .iter()
                .map(|part| format!("{}:{} {:?}\n", part.name, part.line, part.text))
                .collect(),
            Err((line, problem)) => format!("{line}: {problem}"),
        }
    }

    #[test]
    fn each_part_is_named_by_its_comment_and_typed_by_its_section() {
        let text = "# FileName=web\n[Container]\nImage=x\n---\n\n#FileName=app@\n[Network]\n ---\n";
        assert_eq!(
            said(text),
            "web.container:1 \"# FileName=web\\n[Container]\\nImage=x\\n\"\n\
                app@.network:5 \"\\n#FileName=app@\\n[Network]\\n\"\n"
        );
        assert_eq!(
            said("---\n# FileName=a\n[Pod]\n[Unit]\n[Pod]"),
            "a.pod:2 \"# FileName=a\\n[Pod]\\n[Unit]\\n[Pod]\"\n"
        );
    }

    #[test]
    fn what_has_no_name_or_no_type_is_refused_with_its_line() {
        assert!(said("").starts_with("1: there is no Quadlet file"));
        assert!(said("---\n[Container]\n").starts_with("2: the part that begins here has no name"));
        assert!(said("# FileName=a\n[Service]\n").starts_with("1: a has none of the sections"));
        assert!(
            said("# FileName=a\n[Pod]\n# FileName=b\n[Volume]\n")
                .starts_with("3: this part has a name already")
        );
        assert!(said("# FileName=a\n[Pod]\n[Volume]\n").contains("several types (pod, volume)"));
    }
}
