//! A unit's text with another image in the place of the one that it runs; all else stays as it was
//! written, comments and line ends too.

use std::ops::Range;

use crate::name::UnitName;

/// The text with `image` as what it runs, and the image that stood there. The error says why that
/// cannot be told.
///
/// In a `.container` file that is `Image=`. In others it is the image of the one `docker run` or
/// `podman run` in `ExecStart=`, and what `ExecStartPre=` pulls of the same name.
pub fn with_image(name: &UnitName, text: &str, image: &str) -> Result<(String, String), String> {
    if image.is_empty() || image.starts_with('-') || image.contains(is_odd) {
        return Err(format!("{image:?} is no name of an image"));
    }
    let options = options(text);
    let places = match name.suffix() {
        "container" => vec![of_container(text, &options)?],
        _ => of_service(text, &options)?,
    };
    let old = text[places[0].clone()].to_string();
    let mut new = text.to_string();
    for place in places.into_iter().rev() {
        new.replace_range(place, image);
    }
    Ok((new, old))
}

/// What would have to be quoted in a unit file.
fn is_odd(c: char) -> bool {
    c.is_whitespace() || c.is_control() || ['"', '\'', '\\', '$', ';'].contains(&c)
}

/// Where the image of a `.container` file stands.
fn of_container(text: &str, options: &[Written]) -> Result<Range<usize>, String> {
    let image = options.iter().rfind(|option| option.is(text, "Container", "Image"));
    let place = image.ok_or("it has no Image=")?.value.clone();
    let old = &text[place.clone()];
    if old.ends_with(".image") || old.ends_with(".build") {
        return Err(format!("its image is what {old} makes; change that file"));
    }
    if old.is_empty() || old.contains(is_odd) {
        return Err("its Image= is not one plain name".to_string());
    }
    Ok(place)
}

/// Where the image that a service runs stands, and where it is pulled.
fn of_service(text: &str, options: &[Written]) -> Result<Vec<Range<usize>>, String> {
    let commands = |key: &'static str| {
        let lines = options.iter().filter(move |option| option.is(text, "Service", key));
        lines.map(|option| words(text, option.value.clone()))
    };
    let runs: Vec<Range<usize>> =
        commands("ExecStart").filter_map(|words| image_at(text, &words)).collect();
    let [run] = runs.as_slice() else {
        let found = if runs.is_empty() { "no" } else { "more than one" };
        return Err(format!(
            "{found} `docker run` or `podman run` whose image can be told stands in its ExecStart="
        ));
    };
    let old = &text[run.clone()];
    let pulls = commands("ExecStartPre").filter_map(|words| {
        let last = words.last()?.clone();
        let pulls = is_engine(&text[words[0].clone()])
            && words.iter().any(|word| &text[word.clone()] == "pull");
        (pulls && &text[last.clone()] == old).then_some(last)
    });
    let mut places = vec![run.clone()];
    places.extend(pulls);
    places.sort_by_key(|place| place.start);
    Ok(places)
}

/// The options of `run` that take no value of their own.
const SWITCHES: &[&str] = &[
    "--detach",
    "--disable-content-trust",
    "--env-host",
    "--init",
    "--interactive",
    "--no-healthcheck",
    "--no-hosts",
    "--oom-kill-disable",
    "--privileged",
    "--publish-all",
    "--quiet",
    "--read-only",
    "--read-only-tmpfs",
    "--replace",
    "--rm",
    "--rmi",
    "--sig-proxy",
    "--tls-verify",
    "--tty",
];

/// The same by one letter; several may stand together: `-it`.
const LETTERS: &str = "dPiqt";

fn image_at(text: &str, words: &[Range<usize>]) -> Option<Range<usize>> {
    let word = |at: usize| words.get(at).map(|word| &text[word.clone()]);
    if !is_engine(word(0)?) {
        return None;
    }
    let mut at = (1..words.len()).find(|at| word(*at) == Some("run"))? + 1;
    while let Some(option) = word(at).filter(|word| word.starts_with('-')) {
        let switch = match option.strip_prefix("--") {
            Some(long) => long.contains('=') || SWITCHES.contains(&option),
            None => {
                let letters = &option[1..];
                // `-p80:80` has its value with it, `-itp 80:80` has not.
                let first_with_value = letters.find(|c| !LETTERS.contains(c));
                first_with_value.is_none_or(|at| at + 1 < letters.len())
            }
        };
        at += if switch { 1 } else { 2 };
    }
    let image = words.get(at)?.clone();
    (!text[image.clone()].contains(is_odd)).then_some(image)
}

fn is_engine(word: &str) -> bool {
    let program = word.trim_start_matches(['-', '@', ':', '+', '!']);
    ["docker", "podman"].contains(&program.rsplit('/').next().unwrap_or(program))
}

/// An option as it stands in a text.
struct Written {
    section: Range<usize>,
    key: Range<usize>,
    /// Without the spaces around it; with the ends of lines in it where it goes on.
    value: Range<usize>,
}

impl Written {
    fn is(&self, text: &str, section: &str, key: &str) -> bool {
        &text[self.section.clone()] == section && &text[self.key.clone()] == key
    }
}

/// The options of a text that [`UnitFile`](super::file::UnitFile) takes, by their places.
fn options(text: &str) -> Vec<Written> {
    let (mut all, mut section) = (Vec::new(), 0..0);
    let mut at = 0;
    let mut lines = text.split_inclusive('\n').peekable();
    while let Some(line) = lines.next() {
        let begin = at;
        at += line.len();
        let trimmed = line.trim();
        if let Some(name) = trimmed.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
            let from = begin + line.find('[').unwrap_or(0) + 1;
            section = from..from + name.len();
            continue;
        }
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        let mut goes_on = trimmed.ends_with('\\');
        while goes_on && let Some(next) = lines.next() {
            at += next.len();
            let next = next.trim();
            // A comment between does not end it.
            goes_on = next.ends_with('\\') || next.starts_with(['#', ';']);
        }
        let Some(equals) = text[begin..at].find('=') else { continue };
        let trim = |range: Range<usize>| {
            let inner = &text[range.clone()];
            let from = range.start + inner.len() - inner.trim_start().len();
            from..from + inner.trim().len()
        };
        all.push(Written {
            section: section.clone(),
            key: trim(begin..begin + equals),
            value: trim(begin + equals + 1..at),
        });
    }
    all
}

/// The words of a command. One in quotes is one word, with its quotes. A comment between its lines
/// is none of it.
pub(super) fn words(text: &str, value: Range<usize>) -> Vec<Range<usize>> {
    let (mut words, mut begin, mut quote) = (Vec::new(), None, None);
    let (mut line_begins, mut comment) = (false, false);
    let mut chars = text[value.clone()].char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let at = value.start + at;
        comment = c != '\n' && (comment || (line_begins && ['#', ';'].contains(&c)));
        line_begins = c == '\n' || (line_begins && c.is_whitespace());
        if comment {
            continue;
        }
        let goes_on = c == '\\' && chars.peek().is_none_or(|(_, next)| ['\n', '\r'].contains(next));
        if quote.is_none() && (c.is_whitespace() || goes_on) {
            words.extend(begin.take().map(|begin| begin..at));
            continue;
        }
        begin.get_or_insert(at);
        match (c, quote) {
            ('\\', _) => drop(chars.next()),
            ('"' | '\'', None) => quote = Some(c),
            (end, Some(open)) if end == open => quote = None,
            _ => {}
        }
    }
    words.extend(begin.map(|begin| begin..value.end));
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(name: &str, text: &str) -> Result<(String, String), String> {
        with_image(&UnitName::trusted(name), text, "h1:5000/web:2")
    }

    #[test]
    fn a_container_has_its_last_image_changed_and_nothing_else() {
        let text = "# Image=no\n[Unit]\nImage=no\n[Container]\r\nImage=old\n Image = h1:5000/web:1 \n\
            Exec=h1:5000/web:1\n";
        let (new, old) = change("web@.container", text).unwrap();
        assert_eq!(old, "h1:5000/web:1");
        assert_eq!(new, text.replace(" h1:5000/web:1 \n", " h1:5000/web:2 \n"));
    }

    #[test]
    fn docker_runs_and_pulls_the_new_image() {
        let text = "[Service]\nExecStartPre=-/usr/bin/docker rm web\nExecStartPre=/usr/bin/docker \
            pull web:1\n# docker run web:1\nExecStart=/usr/bin/docker run -it --rm -p 80:80 -v/x:/y \
            -e A=web:1 \\\n# web:1\n  --name \"web:1\" --net=host web:1 sh -c \"run web:1\"\n";
        let (new, old) = change("web.service", text).unwrap();
        assert_eq!(old, "web:1");
        let expected = text
            .replace("pull web:1", "pull h1:5000/web:2")
            .replace("host web:1 sh", "host h1:5000/web:2 sh");
        assert_eq!(new, expected);
    }

    #[test]
    fn the_options_of_a_run_end_where_its_image_stands() {
        for options in [
            "-d",
            "-dit",
            "-itp 80:80",
            "-p80:80",
            "--rm --replace --init",
            "--privileged -e A=1 --env B=2",
            "--cgroups=split --sdnotify conmon",
        ] {
            let text = format!("[Service]\nExecStart=podman run {options} web cmd web\n");
            let (new, old) = change("web.service", &text).unwrap();
            assert_eq!((old.as_str(), new), ("web", text.replacen(" web", " h1:5000/web:2", 1)));
        }
    }

    #[test]
    fn what_cannot_be_told_is_refused() {
        for (name, text, problem) in [
            ("a.container", "[Container]\nExec=x\n", "it has no Image="),
            ("a.container", "[Container]\nImage=x.build\n", "its image is what x.build makes"),
            ("a.service", "[Service]\nExecStart=/bin/sleep 1\n", "no `docker run`"),
            ("a.service", "[Service]\nExecStart=sh -c 'docker run x'\n", "no `docker run`"),
            ("a.service", "[Service]\nExecStart=docker run --rm\n", "no `docker run`"),
            (
                "a.service",
                "[Service]\nType=oneshot\nExecStart=docker run x\nExecStart=docker run y\n",
                "more than one `docker run`",
            ),
        ] {
            let said = change(name, text).unwrap_err();
            assert!(said.starts_with(problem), "{text}: {said}");
        }
        let name = UnitName::trusted("a.container");
        for image in ["", "a b", "-x", "a\nExec=y", "$x"] {
            let said = with_image(&name, "[Container]\nImage=x\n", image).unwrap_err();
            assert!(said.ends_with("is no name of an image"), "{said}");
        }
    }
}
