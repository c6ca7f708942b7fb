//! The options of every command, and those of all lists.

use std::path::PathBuf;

use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args};
use fleet_tls::Files;

use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::screen::Colours;

/// Where fleetd listens unless told otherwise; fleet 1.0's /var/run/fleet.sock is the same place.
const DEFAULT_ENDPOINT: &str = "unix:///run/fleet.sock";

/// Options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Globals {
    /// Where fleetd listens
    ///
    /// unix:///PATH, https://HOST:PORT or http://HOST:PORT. Of several, separated by commas, the
    /// first that answers is asked.
    #[arg(
        long,
        global = true,
        env = "FLEETCTL_ENDPOINT",
        default_value = DEFAULT_ENDPOINT,
        hide_env_values = true,
        value_name = "URL"
    )]
    pub(crate) endpoint: String,
    /// CA certificates that fleetd's must be signed by
    ///
    /// For https. Without it, those that this machine trusts.
    #[arg(
        long,
        global = true,
        env = "FLEETCTL_CA_FILE",
        hide_env_values = true,
        value_name = "FILE"
    )]
    pub(crate) ca_file: Option<PathBuf>,
    /// Your certificate, for https
    #[arg(
        long,
        global = true,
        env = "FLEETCTL_CERT_FILE",
        hide_env_values = true,
        value_name = "FILE"
    )]
    pub(crate) cert_file: Option<PathBuf>,
    /// The key of your certificate
    #[arg(
        long,
        global = true,
        env = "FLEETCTL_KEY_FILE",
        hide_env_values = true,
        value_name = "FILE"
    )]
    pub(crate) key_file: Option<PathBuf>,
    /// Ask your own fleetd (fleetd --user)
    ///
    /// --endpoint, if given, names another one.
    #[arg(long, global = true)]
    pub(crate) user: bool,
    /// Print data as JSON
    ///
    /// One document; `journal` and `events --follow` print one a line.
    #[arg(
        long,
        global = true,
        env = "FLEETCTL_JSON",
        hide_env_values = true,
        value_parser = FalseyValueParser::new(),
        action = ArgAction::SetTrue
    )]
    pub(crate) json: bool,
    /// Colour and align: auto, always, never
    ///
    /// auto does so on a terminal, unless NO_COLOR is set or TERM is dumb. always writes as for a
    /// terminal into pipes and files too.
    #[arg(
        long,
        global = true,
        env = "FLEETCTL_COLOR",
        hide_env_values = true,
        value_name = "WHEN",
        value_enum,
        default_value_t = Colours::Auto,
        hide_possible_values = true
    )]
    pub(crate) color: Colours,
    /// Print on stderr each request and how long it took
    #[arg(
        long,
        global = true,
        env = "FLEETCTL_DEBUG",
        hide_env_values = true,
        value_parser = FalseyValueParser::new(),
        action = ArgAction::SetTrue
    )]
    pub(crate) debug: bool,
    /// Print the version
    #[arg(short = 'v', long, action = ArgAction::Version)]
    pub(crate) version: Option<bool>,
    /// fleet 1.0's word for --help
    #[arg(long = "h", global = true, hide = true, action = ArgAction::HelpShort)]
    h: Option<bool>,
}

impl Globals {
    /// Where fleetd listens, of this user or of the machine.
    pub(crate) fn endpoints(&self) -> Result<Vec<Endpoint>, Error> {
        if !self.user || self.endpoint != DEFAULT_ENDPOINT {
            return Endpoint::parse_list(&self.endpoint);
        }
        let folder = std::env::var("XDG_RUNTIME_DIR").map_err(|_| {
            Error::failed("--user: XDG_RUNTIME_DIR is not set, so there is no fleetd of this user")
                .hint("log in as that user, or name the socket with --endpoint")
        })?;
        Endpoint::parse_list(&format!("unix://{folder}/fleet.sock"))
    }

    /// The certificates for https; an empty text is none.
    pub(crate) fn tls(&self) -> Files {
        let given =
            |path: &Option<PathBuf>| path.clone().filter(|path| !path.as_os_str().is_empty());
        Files { ca: given(&self.ca_file), cert: given(&self.cert_file), key: given(&self.key_file) }
    }

    /// The same for another fleetd.
    pub(crate) fn at(&self, endpoint: &str) -> Globals {
        Globals { endpoint: endpoint.to_string(), user: false, ..self.clone() }
    }
}

/// The options of all lists.
#[derive(Debug, Clone, Args)]
pub(crate) struct ListArgs {
    /// Do not shorten IDs and hashes
    #[arg(long, short = 'l', alias = "l")]
    pub(crate) full: bool,
    /// Do not print the column names
    #[arg(long)]
    pub(crate) no_legend: bool,
}
