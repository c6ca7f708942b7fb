//! What users type for a unit, made a unit name: `hello`, `dir/hello.service`, `web@3`, `web=+2`.

use std::path::Path;

use fleet_core::model::MAX_REPLICAS;
use fleet_core::name::{NameError, UnitName};
use fleet_core::wire::Scale;

use crate::error::{Error, Kind};

/// One argument of a command: the unit meant, and the path under which its file may lie here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Argument {
    pub(crate) path: String,
    pub(crate) name: UnitName,
    /// What else may be meant where no unit type was typed, the likeliest first.
    others: Vec<UnitName>,
}

/// The Quadlet types that may be meant where no unit type was typed, after `service`. Those that
/// run go before those that are there for others.
const UNTYPED: &[&str] =
    &["container", "pod", "kube", "network", "volume", "image", "build", "artifact"];

/// The types whose templates have a count.
const SCALED: &[&str] = &["service", "container", "pod", "kube"];

/// What is no unit's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BadName {
    text: String,
    problem: NameError,
}

impl BadName {
    /// The error, after words that say what it was for.
    pub(crate) fn during(self, what: &str) -> Error {
        let error = Error::worded(Kind::Failed, format!("{what}: {}", self.problem));
        if self.text.is_empty() {
            error
        } else {
            error.hint(format!("{:?} is not the name of a unit", self.text))
        }
    }
}

impl std::fmt::Display for BadName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} is not the name of a unit: {}", self.text, self.problem)
    }
}

impl From<BadName> for Error {
    fn from(bad: BadName) -> Error {
        bad.during("Error")
    }
}

impl Argument {
    /// Takes an argument as typed; one without a unit type gets `.service`.
    pub(crate) fn parse(text: &str) -> Result<Argument, BadName> {
        Argument::read(text).map_err(|problem| BadName { text: text.to_string(), problem })
    }

    fn read(text: &str) -> Result<Argument, NameError> {
        let base = text.rsplit('/').next().unwrap_or(text);
        if base.is_empty() {
            return Err(NameError::Empty);
        }
        let untyped =
            matches!(UnitName::parse(base), Err(NameError::NoSuffix | NameError::UnknownType(_)));
        let path = if untyped { format!("{text}.service") } else { text.to_string() };
        let name = UnitName::parse(path.rsplit('/').next().unwrap_or(&path))?;
        let other = |kind: &&str| UnitName::parse(&format!("{base}.{kind}")).ok();
        let others = if untyped { UNTYPED.iter().filter_map(other).collect() } else { Vec::new() };
        Ok(Argument { path, name, others })
    }

    /// The names that may be meant, the likeliest first.
    pub(crate) fn names(&self) -> impl Iterator<Item = &UnitName> {
        std::iter::once(&self.name).chain(&self.others)
    }

    /// What was typed, if no unit type was: it may be no unit's name at all.
    pub(crate) fn untyped(&self) -> Option<&str> {
        (!self.others.is_empty()).then(|| self.name.stem())
    }

    /// The same, each as if it had been typed in full.
    pub(crate) fn meanings(&self) -> impl Iterator<Item = Argument> {
        self.names().map(|name| Argument {
            path: beside(&self.path, name),
            name: name.clone(),
            others: Vec::new(),
        })
    }

    /// All of `texts`; the first bad one is the error. A unit named twice counts once.
    pub(crate) fn parse_all(texts: &[String]) -> Result<Vec<Argument>, BadName> {
        let mut all: Vec<Argument> = Vec::new();
        for text in texts {
            let argument = Argument::parse(text)?;
            if !all.iter().any(|known| known.name == argument.name) {
                all.push(argument);
            }
        }
        Ok(all)
    }
}

/// The path of another unit in the same directory.
pub(crate) fn beside(path: &str, name: &UnitName) -> String {
    Path::new(path).with_file_name(name.as_str()).to_string_lossy().into_owned()
}

/// One argument of `fleetctl scale`: the templates that may be meant, the likeliest first, and the
/// count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ScaleArgument {
    pub(crate) templates: Vec<UnitName>,
    pub(crate) count: Scale,
}

impl ScaleArgument {
    /// Takes `web=5`, `web@=5`, `web@.service=5`, `web=+2` or `web=-1`.
    pub(crate) fn parse(text: &str) -> Result<ScaleArgument, Error> {
        let wrong = |what: &str| {
            Error::usage(format!("{text:?} {what}"))
                .hint("write UNIT=COUNT: web=5, web@.service=5, web=+2 or web=-1")
        };
        let Some((unit, count)) = text.rsplit_once('=') else { return Err(wrong("has no count")) };
        let digits = count.strip_prefix(['+', '-']).unwrap_or(count);
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(wrong("does not end in a number"));
        }
        // Any other that is too large is refused by the server.
        let replicas: i64 = digits
            .parse()
            .map_err(|_| wrong(&format!("has no count: expect 0 to {MAX_REPLICAS}")))?;
        let count = Scale {
            replicas: if count.starts_with('-') { -replicas } else { replicas },
            relative: digits.len() < count.len(),
        };
        let stem = unit.strip_suffix('@').unwrap_or(unit);
        let candidates = match UnitName::parse(unit) {
            Ok(name) => vec![name],
            Err(NameError::NoSuffix | NameError::UnknownType(_)) => SCALED
                .iter()
                .map(|suffix| UnitName::parse(&format!("{stem}@.{suffix}")))
                .collect::<Result<_, _>>()
                .map_err(|problem| wrong(&format!("names no unit: {problem}")))?,
            Err(problem) => return Err(wrong(&format!("names no unit: {problem}"))),
        };
        match candidates.iter().find(|name| !name.is_template()) {
            Some(name) => Err(wrong(&format!(
                "cannot be scaled: {name} is not a template; templates are named like web@.service"
            ))),
            None => Ok(ScaleArgument { templates: candidates, count }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str) -> String {
        Argument::parse(text)
            .map_or_else(|bad| bad.problem.to_string(), |a| format!("{} at {}", a.name, a.path))
    }

    #[test]
    fn a_name_without_a_unit_type_is_a_service() {
        assert_eq!(named("hello"), "hello.service at hello.service");
        assert_eq!(named("web@3"), "web@3.service at web@3.service");
        assert_eq!(named("dir/a.b"), "a.b.service at dir/a.b.service");
        assert_eq!(named("app.network"), "app.network at app.network");
        assert_eq!(named("hello.target"), "hello.target at hello.target");
        assert_eq!(named("./web.container"), "web.container at ./web.container");
        assert_eq!(named(""), "unit name cannot be empty");
        assert_eq!(named("dir/"), "unit name cannot be empty");
        assert_eq!(named("a b"), "invalid character ' ' in unit name");
    }

    #[test]
    fn without_a_unit_type_a_quadlet_unit_may_be_meant_too() {
        let meant = |text: &str| -> Vec<String> {
            Argument::parse(text)
                .unwrap()
                .meanings()
                .map(|meant| format!("{} at {}", meant.name, meant.path))
                .collect()
        };
        let first = "w@1.service at dir/w@1.service";
        let all = meant("dir/w@1");
        assert_eq!(all[..2], [first, "w@1.container at dir/w@1.container"]);
        let kinds: Vec<&str> = all.iter().filter_map(|name| name.rsplit('.').next()).collect();
        let expected = "service container pod kube network volume image build artifact";
        assert_eq!(kinds.join(" "), expected);
        assert_eq!(meant("app.network"), ["app.network at app.network"]);
        assert_eq!(meant("w.service"), ["w.service at w.service"]);
    }

    #[test]
    fn the_template_lies_beside_the_instance() {
        assert_eq!(beside("web@1.service", &UnitName::trusted("web@.service")), "web@.service");
        assert_eq!(beside("./web@1.service", &UnitName::trusted("web@.service")), "./web@.service");
        assert_eq!(
            beside("dir/web@1.service", &UnitName::trusted("web@.service")),
            "dir/web@.service"
        );
    }

    fn scaled(text: &str) -> String {
        match ScaleArgument::parse(text) {
            Ok(s) => format!(
                "{:?} {}{}",
                s.templates,
                if s.count.relative { "by " } else { "to " },
                s.count.replicas
            ),
            Err(error) => {
                format!("{error:?}").split('"').nth(1).unwrap_or_default().to_string() + " refused"
            }
        }
    }

    #[test]
    fn a_scale_argument_is_a_template_and_a_count() {
        assert_eq!(scaled("web=5"), "[web@.service, web@.container, web@.pod, web@.kube] to 5");
        assert_eq!(scaled("web@=5"), "[web@.service, web@.container, web@.pod, web@.kube] to 5");
        assert_eq!(scaled("web@.service=0"), "[web@.service] to 0");
        assert_eq!(scaled("web=+2"), "[web@.service, web@.container, web@.pod, web@.kube] by 2");
        assert_eq!(scaled("web=-1"), "[web@.service, web@.container, web@.pod, web@.kube] by -1");
    }

    #[test]
    fn anything_else_is_refused_as_usage() {
        for text in [
            "web",
            "web=",
            "web=-",
            "web=abc",
            "web=1.5",
            "=5",
            "web.service=5",
            "web@3.service=5",
            "web@3=5",
            "a b=1",
            "web=99999999999999999999",
        ] {
            assert_eq!(
                ScaleArgument::parse(text).expect_err(text).kind,
                crate::error::Kind::Usage,
                "{text}"
            );
        }
    }
}
