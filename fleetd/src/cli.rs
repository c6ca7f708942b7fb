//! fleetd's command line.

use std::path::PathBuf;

use clap::{CommandFactory, Parser};

/// Makes the machines of a cluster one init system: runs on every machine, drives its systemd.
///
/// Without a configuration it manages this machine alone, with an embedded store. Give it etcd_servers, and it is one of a cluster.
#[derive(Debug, Parser)]
#[command(
    name = "fleetd",
    version,
    about,
    after_help = "Each option of the configuration can also be given as FLEET_<OPTION> in the environment."
)]
pub struct Args {
    /// The configuration file, TOML; drop-ins lie in <FILE without .conf>.conf.d/*.toml [default: /etc/fleet/fleetd.conf]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Check the configuration, say what is wrong with file and line, and exit
    #[arg(long)]
    pub check_config: bool,

    /// Read every document of the configured store, say what is wrong, and exit; the embedded store only while no fleetd runs
    #[arg(long)]
    pub check_store: bool,
}

/// The command line's definition, for the man page.
pub fn command() -> clap::Command {
    Args::command()
}
