//! docs/tutorial.md, typed in: every command runs where its prompt says, and prints what the page
//! says.
//!
//! Three rules for what a page cannot know:
//!
//! - Machine ids and addresses are those of the lab that a reader boots; what this test's lab
//!   prints is translated. Blanks and the order of lines do not count.
//! - `…` in a line stands for any text, a line with nothing else for any lines.
//! - A command that only looks is repeated until it prints what the page says, since a reader takes
//!   longer to type. All others run once. A command fails exactly if the page shows its error.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use fleet_tests::cluster::{Cluster, PATIENCE, Said, scenario};
use fleet_tests::lab::{DEFAULT_NAME, Options, Store, address, machine_id, wait_for};

/// A lab whose machine ids sort as those of the reader's do: the planner goes by their order.
const LAB: &str = "test-the-tutorial";

const HOSTS: usize = 3;

/// The command that boots the page's lab; this test boots its own, which ends with it.
const UP: &str = "cargo lab up 3 --store embedded";

const DOWN: &str = "cargo lab down";

/// Commands that change nothing.
const LOOKS: [&str; 6] = [
    "fleetctl list-",
    "fleetctl status",
    "fleetctl journal",
    "fleetctl events",
    "systemctl list-units",
    "systemctl status",
];

/// One thing that the reader types.
#[derive(Debug, PartialEq)]
struct Step {
    /// The line of the page.
    line: usize,
    /// A host, or nothing for the machine that the lab is on.
    host: Option<String>,
    command: String,
    /// What the page says it prints; nothing of a script that is pasted.
    output: Option<Vec<String>>,
}

#[test]
fn every_command_of_the_tutorial_prints_what_the_page_says() -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/tutorial.md");
    let page = std::fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
    let steps = read(&page)?;
    let (first, last) = (steps.first().context("no step")?, steps.last().context("no step")?);
    ensure!(first.command == UP && last.command == DOWN, "the page boots {first:?} and {last:?}");
    ensure!(
        order(LAB) == order(DEFAULT_NAME),
        "find a name for LAB whose ids sort as the reader's"
    );
    let options = Options {
        name: LAB.to_owned(),
        hosts: HOSTS,
        store: Store::Embedded,
        ..Options::default()
    };
    scenario(&options, |cluster| {
        steps[1..steps.len() - 1].iter().try_for_each(|step| {
            follow(cluster, step).with_context(|| {
                format!("docs/tutorial.md, line {}: `{}`", step.line, step.command)
            })
        })
    })
}

fn follow(cluster: &Cluster, step: &Step) -> Result<()> {
    let Some(wanted) = &step.output else {
        let said = type_in(cluster, step)?;
        ensure!(said.code == 0 && said.out.is_empty(), "{said:?}");
        return Ok(());
    };
    let fails = wanted.iter().any(|line| line.starts_with("Error"));
    let once = || {
        let said = type_in(cluster, step)?;
        let printed = as_the_reader_sees(&said.out);
        let fits = matches(&printed, wanted) && fails == (said.code != 0);
        ensure!(fits, "exit status {}, and it prints\n{printed}", said.code);
        Ok(())
    };
    match LOOKS.iter().any(|look| step.command.starts_with(look)) {
        true => wait_for("what the page says", PATIENCE, once),
        false => once(),
    }
}

/// Runs the command, with its errors among its output as on a terminal.
fn type_in(cluster: &Cluster, step: &Step) -> Result<Said> {
    let command = &step.command;
    if let Some(host) = &step.host {
        let script = format!("exec 2>&1 </dev/null; cd; {command}");
        return Ok(Said::from(cluster.lab.exec(host, &["sh", "-c", &script])?));
    }
    let Some(words) = command.strip_prefix("cargo lab ") else {
        bail!("only `cargo lab` is run outside of the hosts");
    };
    let script = format!("exec 2>&1 </dev/null; \"$0\" --name {LAB} {words}");
    let output = Command::new("sh").args(["-c", &script, env!("CARGO_BIN_EXE_lab")]).output()?;
    Ok(Said::from(output))
}

/// The ids and addresses of this test's lab become those of the lab that `cargo lab up` boots.
fn as_the_reader_sees(text: &str) -> String {
    (1..=HOSTS).fold(text.to_owned(), |text, number| {
        let (ours, theirs) = (machine_id(LAB, number), machine_id(DEFAULT_NAME, number));
        text.replace(&ours[..8], &theirs[..8])
            .replace(&address(LAB, number), &address(DEFAULT_NAME, number))
    })
}

/// Whether each line has its own line among the wanted ones; with a line `…` there may be more.
fn matches(printed: &str, wanted: &[String]) -> bool {
    let mut left: Vec<&str> = printed.lines().filter(|line| !line.trim().is_empty()).collect();
    let mut more = false;
    for line in wanted {
        if line.trim() == "…" {
            more = true;
            continue;
        }
        let Some(at) = left.iter().position(|printed| matches_line(printed, line)) else {
            return false;
        };
        left.remove(at);
    }
    more || left.is_empty()
}

fn matches_line(printed: &str, wanted: &str) -> bool {
    let printed = words(printed);
    let wanted = words(wanted);
    let parts: Vec<&str> = wanted.split('…').collect();
    let [first, middle @ .., last] = parts.as_slice() else { return printed == wanted };
    let Some(mut rest) = printed.strip_prefix(first) else { return false };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

fn words(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The hosts by the order of their ids.
fn order(lab: &str) -> Vec<usize> {
    let mut hosts: Vec<usize> = (1..=HOSTS).collect();
    hosts.sort_by_key(|number| machine_id(lab, *number));
    hosts
}

/// What is to be typed: `console` blocks hold commands behind a prompt, each with its output below;
/// `sh h1 h2` blocks are pasted on each of these hosts. A block of another kind is a mistake.
fn read(page: &str) -> Result<Vec<Step>> {
    let mut steps: Vec<Step> = Vec::new();
    let mut lines = page.lines().enumerate();
    while let Some((at, fence)) = lines.next() {
        let Some(kind) = fence.strip_prefix("```") else { continue };
        let line = at + 1;
        let body: Vec<&str> =
            lines.by_ref().map(|(_, text)| text).take_while(|text| *text != "```").collect();
        if let Some(hosts) = kind.strip_prefix("sh ") {
            steps.extend(hosts.split(' ').map(|host| Step {
                line,
                host: Some(host.to_owned()),
                command: body.join("\n"),
                output: None,
            }));
            continue;
        }
        ensure!(kind == "console", "line {line}: a block of kind {kind:?} is not checked");
        for (below, text) in body.into_iter().enumerate() {
            match (prompt(text), steps.last_mut()) {
                (Some((host, command)), _) => steps.push(Step {
                    line: line + 1 + below,
                    host,
                    command: command.to_owned(),
                    output: Some(Vec::new()),
                }),
                (None, Some(Step { output: Some(output), .. })) if below > 0 => {
                    output.push(text.to_owned());
                }
                (None, _) => bail!("line {line}: the block does not begin with a prompt"),
            }
        }
    }
    Ok(steps)
}

/// `$ COMMAND` or `h1# COMMAND`.
fn prompt(text: &str) -> Option<(Option<String>, &str)> {
    if let Some(command) = text.strip_prefix("$ ") {
        return Some((None, command));
    }
    let (host, command) = text.split_once("# ")?;
    let number = host.strip_prefix('h')?;
    number.bytes().all(|byte| byte.is_ascii_digit()).then(|| (Some(host.to_owned()), command))
}

#[test]
fn a_page_is_read_as_steps() -> Result<()> {
    let page =
        "Text.\n```sh h1 h2\na\nb\n```\nh1# no step\n```console\n$ c\nh1# d e\nsays\nmore\n```\n";
    let step = |line, host: Option<&str>, command: &str, output: Option<&[&str]>| Step {
        line,
        host: host.map(str::to_owned),
        command: command.to_owned(),
        output: output.map(|lines| lines.iter().map(|line| (*line).to_owned()).collect()),
    };
    let wanted = [
        step(2, Some("h1"), "a\nb", None),
        step(2, Some("h2"), "a\nb", None),
        step(8, None, "c", Some(&[])),
        step(9, Some("h1"), "d e", Some(&["says", "more"])),
    ];
    assert_eq!(read(page)?, wanted);
    for wrong in ["```rust\n```\n", "```console\nsays\n```\n"] {
        assert!(read(&format!("{page}{wrong}")).is_err(), "{wrong}");
    }
    Ok(())
}

#[test]
fn output_differs_from_the_page_only_where_it_may() {
    let fits = |printed: &str, wanted: &str| {
        matches(printed, &wanted.lines().map(str::to_owned).collect::<Vec<_>>())
    };
    assert!(fits("b\t 2\na 1\n", "a   1\nb 2"));
    assert!(fits("took 12 s, then 3 s\n", "took … s, then … s"));
    assert!(fits("one\ntwo\nthree\n", "two\n…"));
    assert!(fits("", ""));
    assert!(!fits("a\na\n", "a"));
    assert!(!fits("a\n", "a\nb"));
    assert!(!fits("took 12 s\n", "took … ms"));
    assert!(!fits("a b", "a"));
}
