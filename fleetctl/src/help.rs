//! The text of `fleetctl --help`: commands in groups, then the options of every command in short
//! form; and that of each command, which only points to those.

use clap::{Arg, Command};

/// A heading, and the commands under it.
pub(crate) type Group = (&'static str, &'static [&'static str]);

/// Where texts begin, unless what stands before them is too long.
const COLUMN: usize = 31;

/// What stands at the end.
const FOOTER: &str = "\
`fleetctl COMMAND --help` explains a command. Options can be set by variables,
--endpoint by FLEETCTL_ENDPOINT; fleetctl(1) describes each.
";

/// What stands at the end of a command's own help.
const SEE: &str = "Options of every command, such as --endpoint and --json: `fleetctl --help`";

/// Gives the definition its help.
pub(crate) fn with_help(mut definition: Command, groups: &[Group]) -> Command {
    // Hands the options of every command to each, where they are hidden then.
    definition.build();
    let page = page(&definition, groups);
    let names: Vec<String> =
        definition.get_subcommands().map(|command| command.get_name().to_string()).collect();
    let template = format!(
        "{{about-with-newline}}{{name}} {{version}}\n\n{{usage-heading}} {{usage}}\n\n{page}"
    );
    names
        .into_iter()
        .fold(definition, |all, name| all.mut_subcommand(name, brief))
        .help_template(template)
}

/// A command that shows its own options alone, as do all below it.
fn brief(command: Command) -> Command {
    let names: Vec<String> =
        command.get_subcommands().map(|below| below.get_name().to_string()).collect();
    let command = names.into_iter().fold(command, |all, name| all.mut_subcommand(name, brief));
    let hide = |arg: Arg| match arg.is_global_set() {
        true => arg.hide(true),
        false => arg,
    };
    command.mut_args(hide).after_help(SEE)
}

fn page(definition: &Command, groups: &[Group]) -> String {
    let mut page = String::new();
    for (heading, names) in groups {
        page.push_str(&format!("{heading}:\n"));
        for command in names.iter().filter_map(|name| definition.find_subcommand(name)) {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            page.push_str(&line(&format!("  {}", command.get_name()), 19, &about));
        }
        page.push('\n');
    }
    let options = || definition.get_arguments().filter(|arg| !arg.is_hide_set());
    let mut headings: Vec<&str> = Vec::new();
    for heading in options().filter_map(Arg::get_help_heading) {
        if !headings.contains(&heading) {
            headings.push(heading);
        }
    }
    let first = headings.first().copied();
    for heading in headings {
        page.push_str(&format!("{heading}:\n"));
        options()
            // --help itself has no heading.
            .filter(|arg| arg.get_help_heading().or(first) == Some(heading))
            .for_each(|arg| page.push_str(&option(arg)));
        page.push('\n');
    }
    page + FOOTER
}

/// `  -v, --version           Print the version`.
fn option(arg: &Arg) -> String {
    let short = arg.get_short().map_or_else(|| "    ".to_string(), |short| format!("-{short}, "));
    let mut head = format!("  {short}--{}", arg.get_long().unwrap_or_default());
    let takes = arg.get_num_args().is_some_and(|range| range.takes_values());
    if takes {
        let value = arg.get_value_names().and_then(<[_]>::first).map_or("VALUE", |name| name);
        let optional = arg.get_num_args().is_some_and(|range| range.min_values() == 0);
        let value = if optional { format!("[={value}]") } else { format!("={value}") };
        head.push_str(&value);
    }
    let mut about = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let defaults: Vec<_> =
        arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    if takes && !defaults.is_empty() {
        about.push_str(&format!(" [{}]", defaults.join(",")));
    }
    line(&head, COLUMN, &about)
}

/// A text from its column on; on a line of its own if what stands before is too long.
fn line(head: &str, column: usize, text: &str) -> String {
    match head.len() + 2 > column {
        false => format!("{head:column$}{text}\n"),
        true => format!("{head}\n{:column$}{text}\n", ""),
    }
}
