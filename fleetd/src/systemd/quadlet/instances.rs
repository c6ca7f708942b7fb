//! Templates that name templates (`Network=app@%i.network`, `Pod=app@%i.pod`): podman knows no
//! instances of Quadlet files, so each instance gets files of its own names. Pure text.

use std::collections::BTreeMap;

use fleet_core::app::MAX_APP_UNITS;
use fleet_core::name::UnitName;
use fleet_core::unit::file::UnitFile;

/// Whether each instance of `unit` needs a translation of its own: it comes with templates, or
/// podman puts an ending behind its name, so that systemd's `%i` would be another.
pub fn one_by_one<'q>(unit: &UnitName, mut others: impl Iterator<Item = &'q UnitName>) -> bool {
    let alike = unit.systemd_name().stem() == unit.stem();
    unit.is_template() && (!alike || others.any(UnitName::is_template))
}

/// The Quadlet files for podman's generator: `name` with `text`, and of `others` all but the
/// templates, of which the instances that the rest names.
pub(super) fn files(
    name: &UnitName,
    text: &str,
    others: &BTreeMap<UnitName, String>,
) -> Result<BTreeMap<UnitName, String>, String> {
    let mut files: BTreeMap<UnitName, String> = BTreeMap::new();
    let mut open = vec![(name.clone(), text)];
    open.extend(others.iter().filter(|(other, _)| !other.is_template()).map(of));
    open.extend(members(name, others));
    while let Some((file, text)) = open.pop() {
        if files.contains_key(&file) {
            continue;
        }
        if files.len() > MAX_APP_UNITS {
            return Err(format!(
                "{name}: more than {MAX_APP_UNITS} Quadlet files name each other; a template may \
                 name its own instances in turn"
            ));
        }
        let text = for_instance(&file, text);
        for named in names(&text).filter(|named| !others.contains_key(named)) {
            let template = named.template().and_then(|template| others.get(&template));
            open.extend(template.map(|text| (named, text.as_str())));
        }
        let text = named(&file, text);
        files.insert(file, text);
    }
    Ok(files)
}

/// The files for podman's generator of a whole application, each with the name that it has there:
/// templates as their first instances.
pub(super) fn all(quadlets: &BTreeMap<UnitName, String>) -> BTreeMap<UnitName, (UnitName, String)> {
    let mut files = BTreeMap::new();
    for (name, text) in quadlets {
        let file = if name.is_template() { name.replica(1) } else { name.clone() };
        // One with a file of its own is translated from that.
        if file == *name || !quadlets.contains_key(&file) {
            let text = for_instance(&file, text);
            files.insert(file, (name.clone(), text));
        }
    }
    files
}

fn of<'t>((name, text): (&UnitName, &'t String)) -> (UnitName, &'t str) {
    (name.clone(), text.as_str())
}

/// The instances of templates that run in the pod `name`: `web@2.container` in `app@2.pod`.
fn members<'t>(
    name: &UnitName,
    others: &'t BTreeMap<UnitName, String>,
) -> Vec<(UnitName, &'t str)> {
    let instance = name.instance().filter(|instance| !instance.is_empty());
    let Some(instance) = instance.filter(|_| name.suffix() == "pod") else { return Vec::new() };
    let instances = others.iter().filter(|(other, _)| other.is_template()).map(|(other, text)| {
        let member = format!("{}@{instance}.{}", other.prefix(), other.suffix());
        (UnitName::trusted(member), text.as_str())
    });
    instances
        .filter(|(member, text)| names(&for_instance(member, text)).any(|named| named == *name))
        .collect()
}

/// The text of an instance. What systemd would resolve rightly is left to it.
fn for_instance(name: &UnitName, text: &str) -> String {
    let Some(instance) = name.instance().filter(|instance| !instance.is_empty()) else {
        return text.to_string();
    };
    let alike = name.systemd_name().stem() == name.stem();
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let specifier = from.get(..2).unwrap_or(from);
        let behind = &from[specifier.len()..];
        match specifier {
            "%i" | "%I" if !alike || (before.ends_with('@') && begins_with_kind(behind)) => {
                out.push_str(instance);
            }
            _ => out.push_str(specifier),
        }
        rest = behind;
    }
    out + rest
}

/// The kinds whose services name something of podman's after the file, with an `@` that podman
/// takes in no name; each with its section and the option that names it.
const NAMED: &[(&str, &str, &str)] = &[
    ("network", "Network", "NetworkName"),
    ("pod", "Pod", "PodName"),
    ("volume", "Volume", "VolumeName"),
];

/// The text of an instance with a name for what podman makes, as it names containers of instances:
/// `systemd-app_2`.
fn named(name: &UnitName, text: String) -> String {
    let kind = NAMED.iter().find(|(kind, ..)| *kind == name.suffix());
    let instance = name.instance().filter(|instance| !instance.is_empty());
    let Some(((_, section, option), instance)) = kind.zip(instance) else { return text };
    match UnitFile::parse_lenient(&text).last(section, option) {
        Some(_) => text,
        None => format!("{text}\n\n[{section}]\n{option}=systemd-{}_{instance}\n", name.prefix()),
    }
}

/// Whether `.network` or the like follows.
fn begins_with_kind(text: &str) -> bool {
    let kind = text
        .strip_prefix('.')
        .map(|text| text.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default());
    kind.is_some_and(|kind| UnitName::trusted(format!("a.{kind}")).is_quadlet())
}

/// The Quadlet files that a text may name. A comment names none: it may well tell of another
/// instance.
fn names(text: &str) -> impl Iterator<Item = UnitName> + '_ {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with(['#', ';']));
    let words = lines.flat_map(|line| {
        line.split(|c: char| !(c.is_ascii_alphanumeric() || "_.\\@-".contains(c)))
    });
    let words = words.filter(|word| word.contains('@') && word.contains('.'));
    words.filter_map(|word| UnitName::parse(word).ok()).filter(UnitName::is_quadlet)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(name: &str, text: &str, others: &[(&str, &str)]) -> String {
        let others: BTreeMap<UnitName, String> = others
            .iter()
            .map(|(name, text)| (UnitName::parse(name).unwrap(), text.to_string()))
            .collect();
        let files = files(&UnitName::parse(name).unwrap(), text, &others).unwrap();
        let line = |(name, text): (&UnitName, &String)| {
            format!("{name}: {}\n", text.replace('\n', " ").trim())
        };
        files.iter().map(line).collect()
    }

    #[test]
    fn an_instance_brings_the_instances_of_the_templates_that_it_names() {
        expect_test::expect![[r#"
            app.network: [Network]
            cache@x.volume: X=x %%i  [Volume] VolumeName=systemd-cache_x
            data@2.volume: [Volume] VolumeName=d2 Label=data@2.volume
            web@2.container: Volume=data@2.volume:/d Volume=cache@x.volume:/c Exec=%i%
        "#]]
        .assert_eq(&shown(
            "web@2.container",
            "Volume=data@%i.volume:/d Volume=cache@x.volume:/c Exec=%i%",
            &[
                ("app.network", "[Network]"),
                ("data@.volume", "[Volume]\nVolumeName=d%i\nLabel=data@%i.volume"),
                ("cache@.volume", "X=%I %%i"),
                ("unused@.volume", ""),
            ],
        ));
    }

    #[test]
    fn a_pod_brings_its_containers() {
        expect_test::expect![[r#"
            app@2.pod: PublishPort=802:80  [Pod] PodName=systemd-app_2
            web@2.container: Pod=app@2.pod Exec=%i
        "#]]
        .assert_eq(&shown(
            "app@2.pod",
            "PublishPort=80%i:80",
            &[("web@.container", "Pod=app@%i.pod Exec=%i"), ("other@.container", "Pod=x@%i.pod")],
        ));
    }

    #[test]
    fn what_a_comment_tells_of_is_not_brought() {
        let member = "# web@2.container runs in app@2.pod\n  ; app@3.pod\nPod=app@%i.pod";
        assert_eq!(
            shown("app@1.pod", "", &[("app@.pod", ""), ("web@.container", member)]),
            "app@1.pod: [Pod] PodName=systemd-app_1\n\
             web@1.container: # web@2.container runs in app@2.pod   ; app@3.pod Pod=app@1.pod\n"
        );
    }

    #[test]
    fn a_template_that_names_ever_new_instances_of_itself_is_refused() {
        let name = UnitName::trusted("a@1.network");
        let text = "X=a@x%i.network a@y%i.network";
        let others = [(UnitName::trusted("a@.network"), text.to_string())].into();
        let said = files(&name, text, &others).unwrap_err();
        assert!(said.starts_with("a@1.network: more than 500 Quadlet files"), "{said}");
    }

    #[test]
    fn only_templates_that_need_it_are_translated_one_by_one() {
        let one_by_one = |unit: &str, other: &str| {
            super::one_by_one(&UnitName::trusted(unit), [UnitName::trusted(other)].iter())
        };
        assert!(!one_by_one("web@.container", "app.network"));
        assert!(one_by_one("web@.container", "app@.network"));
        assert!(one_by_one("app@.pod", "app.network"));
        assert!(!one_by_one("app.pod", "app@.network"));
    }
}
