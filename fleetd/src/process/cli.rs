//! The command lines of fleetd and of its keeper.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{CommandFactory, Parser};

/// Makes the machines of a cluster one init system: runs on every machine, drives its systemd.
///
/// Without a configuration it manages this machine alone, with an embedded store. Give it
/// etcd_servers, and it is one of a cluster.
#[derive(Debug, Parser)]
#[command(
    name = "fleetd",
    version,
    about,
    after_help = "Each option of the configuration can also be given as FLEET_<OPTION> in the \
        environment."
)]
pub struct Args {
    /// The configuration file, TOML or fleet 1.0's; drop-ins lie in <FILE without
    /// .conf>.conf.d/*.toml [default: /etc/fleet/fleetd.conf, over fleet 1.0's
    /// /etc/fleet/fleet.conf]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Check the configuration, say what is wrong with file and line, and exit
    #[arg(long)]
    pub check_config: bool,

    /// Read every document of the configured store, say what is wrong, and exit; the embedded store
    /// only while no fleetd runs
    #[arg(long)]
    pub check_store: bool,

    /// Drive this user's own systemd, without root; the configuration is
    /// ~/.config/fleet/fleetd.conf
    #[arg(long)]
    pub user: bool,
}

/// Takes fleet 1.0's forms too: `-config FILE`, `-version` and `version`.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Args {
    Args::parse_from(args.into_iter().enumerate().map(|(i, arg)| in_todays_form(i, arg)))
}

fn in_todays_form(i: usize, arg: OsString) -> OsString {
    match arg.to_str() {
        Some("version") if i == 1 => "--version".into(),
        Some(text) if text == "-version" || text == "-config" || text.starts_with("-config=") => {
            format!("-{text}").into()
        }
        _ => arg,
    }
}

/// Holds this machine's lease for fenced units
///
/// Units with Fence=yes are bound to its guard, so that systemd ends them when their machine may be
/// taken for lost. Both are run by systemd, as fleet-keeper.service and fleet-guard.service, which
/// fleetd starts when the first fenced unit is assigned here. A restart of the keeper, for an
/// upgrade too, stops nothing: the next process goes on with the lease. A stop of it ends all that
/// is fenced here.
#[derive(Debug, Parser)]
#[command(name = "fleet-keeper", version)]
pub struct KeeperArgs {
    /// The configuration file; fleetd's by default
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// For a user's own systemd
    #[arg(long)]
    pub user: bool,

    /// Be the guard, which goes by what the keeper beside it tells: for fleet-guard.service
    #[arg(long)]
    pub guard: bool,
}

/// fleetd's definition, for its man page.
pub fn command() -> clap::Command {
    Args::command()
}

/// The keeper's definition, for its man page.
pub fn keeper_command() -> clap::Command {
    KeeperArgs::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fleet_1_0_s_flags_are_ours() {
        let parse = |args: &[&str]| parse(["fleetd"].iter().chain(args).map(OsString::from)).config;
        assert_eq!(parse(&["-config", "/a"]), Some("/a".into()));
        assert_eq!(parse(&["-config=/a"]), Some("/a".into()));
        assert_eq!(parse(&["--config", "/a"]), Some("/a".into()));
        let form = |i, arg: &str| in_todays_form(i, OsString::from(arg));
        assert_eq!(
            [form(1, "version"), form(1, "-version"), form(2, "version")],
            ["--version", "--version", "version"]
        );
    }
}
