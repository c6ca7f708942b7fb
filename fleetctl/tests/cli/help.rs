//! The help texts, whole: they are what a newcomer reads first.

use expect_test::expect;

use crate::session::Session;

#[test]
fn help_shows_all_commands() {
    let session = Session::new();
    expect![[r#"
        $ fleetctl --help
        out| Controls a fleet of machines as if it were one systemd
        out| fleetctl version v2.0.0-alpha.1
        out| 
        out| Usage: fleetctl [OPTIONS] <COMMAND>
        out| 
        out| Commands:
        out|   submit           Hand unit files to the cluster without running them
        out|   load             Place units on machines without running them
        out|   start            Run units, and wait until they do
        out|   scale            Keep so many instances of a template running
        out|   restart          Restart units where they are, and wait until they run again
        out|   rollback         Give a unit an earlier text again, and wait until it runs
        out|   stop             Stop units; they stay loaded on their machines
        out|   unload           Stop units and take them off their machines; the cluster keeps their files
        out|   destroy          Stop units everywhere and forget their files
        out|   status           Show what systemd says of units, on every machine that runs them
        out|   journal          Print a unit's log, from whichever machines run it
        out|   cat              Print a unit's file as it was submitted
        out|   list-units       List what systemd says of every unit on every machine
        out|   list-unit-files  List every unit that the cluster has, and what is wanted of it
        out|   list-revisions   List the texts that a unit has had since it was submitted, newest first
        out|   list-machines    List the machines of the cluster
        out|   drain            Move everything off machines that can run elsewhere, and let nothing new onto
        out|                    them
        out|   cordon           Let nothing new onto machines; what they have stays
        out|   uncordon         Let machines that were cordoned or drained take instances again
        out|   events           Show what the leaders decided and saw, and why, oldest first
        out|   ssh              Log in to a machine of the cluster, or run a command there
        out|   export           Write the cluster's units and settings into a folder: a backup, or the way to
        out|                    another store
        out|   import           Take the units and settings of an exported cluster, or of a running fleet 1.0:
        out|                    all or nothing
        out|   store            Look after the store
        out|   debug            Save what the leader planned, and plan it again
        out|   version          Print the version; with --json also that of fleetd
        out|   fd-forward       Join stdin and stdout to a unix socket; fleet 1.0's --tunnel runs this on the
        out|                    other host
        out|   help             Print this message or the help of the given subcommand(s)
        out| 
        out| Options:
        out|   -h, --help
        out|           Print help (see a summary with '-h')
        out| 
        out| Global options:
        out|       --endpoint <URL>
        out|           Where fleetd listens: unix:///PATH, https://HOST:PORT or http://HOST:PORT; several with
        out|           commas are tried in turn
        out|           
        out|           [env: FLEETCTL_ENDPOINT]
        out|           [default: unix:///run/fleet.sock]
        out| 
        out|       --ca-file <FILE>
        out|           For https: the CA that fleetd's certificate must be from [default: those that this machine
        out|           trusts]
        out|           
        out|           [env: FLEETCTL_CA_FILE]
        out| 
        out|       --cert-file <FILE>
        out|           For https: your certificate
        out|           
        out|           [env: FLEETCTL_CERT_FILE]
        out| 
        out|       --key-file <FILE>
        out|           For https: its key
        out|           
        out|           [env: FLEETCTL_KEY_FILE]
        out| 
        out|       --user
        out|           Talk to your own fleetd (fleetd --user), unless --endpoint says otherwise
        out| 
        out|       --json
        out|           Print data as JSON: one document, of journal and events --follow one a line
        out|           
        out|           [env: FLEETCTL_JSON]
        out| 
        out|       --debug
        out|           Say on stderr what is asked of fleetd and how long it takes
        out|           
        out|           [env: FLEETCTL_DEBUG]
        out| 
        out|   -v, --version
        out|           Print the version
        out| 
        out| Options for ssh:
        out|       --tunnel <[USER@]HOST[:PORT]>
        out|           Reach fleetd through an ssh connection to this host
        out|           
        out|           [env: FLEETCTL_TUNNEL]
        out| 
        out|       --ssh-username <USER>
        out|           The user to log in as
        out|           
        out|           [env: FLEETCTL_SSH_USERNAME]
        out|           [default: core]
        out| 
        out|       --ssh-timeout <SECONDS>
        out|           How long a connection may take, in seconds
        out|           
        out|           [env: FLEETCTL_SSH_TIMEOUT]
        out|           [default: 10]
        out| 
        out|       --known-hosts-file <FILE>
        out|           Where the keys of known hosts are kept; not used without --strict-host-key-checking
        out|           
        out|           [env: FLEETCTL_KNOWN_HOSTS_FILE]
        out|           [default: ~/.fleetctl/known_hosts]
        out| 
        out|       --strict-host-key-checking[=<BOOL>]
        out|           Check each host's key: ask about a new host, refuse one whose key changed
        out|           
        out|           [env: FLEETCTL_STRICT_HOST_KEY_CHECKING]
        out|           [default: true]
        out|           [possible values: true, false]
        rc=0
    "#]]
    .assert_eq(&session.run("--help"));
}

#[test]
fn without_a_command_there_is_help() {
    let said = Session::new().run("");
    assert!(
        said.starts_with("$ fleetctl \nout| Controls a fleet of machines")
            && said.ends_with("rc=0\n"),
        "{said}"
    );
}

#[test]
fn each_command_has_help() {
    let said = Session::new().transcript(
        "submit --help
        load --help
        start -h
        scale --help
        restart -h
        stop -h
        unload -h
        destroy -h
        status --help
        journal -h
        cat -h
        list-units -h
        list-unit-files -h
        list-machines -h
        version -h
        help stop",
    );
    expect![[r#"
        $ fleetctl submit --help
        out| Hand unit files to the cluster without running them
        out| 
        out| Each unit's file is looked up in the cluster, then on this machine; web@1.service also takes the
        out| file web@.service.
        out| 
        out| Usage: fleetctl submit [OPTIONS] [UNIT]...
        out| 
        out| Arguments:
        out|   [UNIT]...
        out|           The unit files
        out| 
        out| Options:
        out|       --replace
        out|           Replace a unit that the cluster has, if its file differs and it is inactive
        out| 
        out|   -h, --help
        out|           Print help (see a summary with '-h')
        out| 
        out| Global options:
        out|       --endpoint <URL>
        out|           Where fleetd listens: unix:///PATH, https://HOST:PORT or http://HOST:PORT; several with
        out|           commas are tried in turn
        out|           
        out|           [env: FLEETCTL_ENDPOINT]
        out|           [default: unix:///run/fleet.sock]
        out| 
        out|       --ca-file <FILE>
        out|           For https: the CA that fleetd's certificate must be from [default: those that this machine
        out|           trusts]
        out|           
        out|           [env: FLEETCTL_CA_FILE]
        out| 
        out|       --cert-file <FILE>
        out|           For https: your certificate
        out|           
        out|           [env: FLEETCTL_CERT_FILE]
        out| 
        out|       --key-file <FILE>
        out|           For https: its key
        out|           
        out|           [env: FLEETCTL_KEY_FILE]
        out| 
        out|       --user
        out|           Talk to your own fleetd (fleetd --user), unless --endpoint says otherwise
        out| 
        out|       --json
        out|           Print data as JSON: one document, of journal and events --follow one a line
        out|           
        out|           [env: FLEETCTL_JSON]
        out| 
        out|       --debug
        out|           Say on stderr what is asked of fleetd and how long it takes
        out|           
        out|           [env: FLEETCTL_DEBUG]
        out| 
        out| Options for ssh:
        out|       --tunnel <[USER@]HOST[:PORT]>
        out|           Reach fleetd through an ssh connection to this host
        out|           
        out|           [env: FLEETCTL_TUNNEL]
        out| 
        out|       --ssh-username <USER>
        out|           The user to log in as
        out|           
        out|           [env: FLEETCTL_SSH_USERNAME]
        out|           [default: core]
        out| 
        out|       --ssh-timeout <SECONDS>
        out|           How long a connection may take, in seconds
        out|           
        out|           [env: FLEETCTL_SSH_TIMEOUT]
        out|           [default: 10]
        out| 
        out|       --known-hosts-file <FILE>
        out|           Where the keys of known hosts are kept; not used without --strict-host-key-checking
        out|           
        out|           [env: FLEETCTL_KNOWN_HOSTS_FILE]
        out|           [default: ~/.fleetctl/known_hosts]
        out| 
        out|       --strict-host-key-checking[=<BOOL>]
        out|           Check each host's key: ask about a new host, refuse one whose key changed
        out|           
        out|           [env: FLEETCTL_STRICT_HOST_KEY_CHECKING]
        out|           [default: true]
        out|           [possible values: true, false]
        rc=0

        $ fleetctl load --help
        out| Place units on machines without running them
        out| 
        out| A unit that runs is stopped, and stays on its machine.
        out| 
        out| Usage: fleetctl load [OPTIONS] [UNIT]...
        out| 
        out| Arguments:
        out|   [UNIT]...
        out|           The units, or their files
        out| 
        out| Options:
        out|       --replace
        out|           Replace a unit that the cluster has, if its local file differs
        out| 
        out|       --no-block
        out|           Do not wait until it is done
        out| 
        out|       --block-attempts <N>
        out|           Give up waiting after N times two seconds; 0 leaves it to --timeout
        out| 
        out|       --timeout <SECONDS>
        out|           Give up waiting after so many seconds; 0 waits for ever
        out|           
        out|           [default: 300]
        out| 
        out|   -h, --help
        out|           Print help (see a summary with '-h')
        out| 
        out| Global options:
        out|       --endpoint <URL>
        out|           Where fleetd listens: unix:///PATH, https://HOST:PORT or http://HOST:PORT; several with
        out|           commas are tried in turn
        out|           
        out|           [env: FLEETCTL_ENDPOINT]
        out|           [default: unix:///run/fleet.sock]
        out| 
        out|       --ca-file <FILE>
        out|           For https: the CA that fleetd's certificate must be from [default: those that this machine
        out|           trusts]
        out|           
        out|           [env: FLEETCTL_CA_FILE]
        out| 
        out|       --cert-file <FILE>
        out|           For https: your certificate
        out|           
        out|           [env: FLEETCTL_CERT_FILE]
        out| 
        out|       --key-file <FILE>
        out|           For https: its key
        out|           
        out|           [env: FLEETCTL_KEY_FILE]
        out| 
        out|       --user
        out|           Talk to your own fleetd (fleetd --user), unless --endpoint says otherwise
        out| 
        out|       --json
        out|           Print data as JSON: one document, of journal and events --follow one a line
        out|           
        out|           [env: FLEETCTL_JSON]
        out| 
        out|       --debug
        out|           Say on stderr what is asked of fleetd and how long it takes
        out|           
        out|           [env: FLEETCTL_DEBUG]
        out| 
        out| Options for ssh:
        out|       --tunnel <[USER@]HOST[:PORT]>
        out|           Reach fleetd through an ssh connection to this host
        out|           
        out|           [env: FLEETCTL_TUNNEL]
        out| 
        out|       --ssh-username <USER>
        out|           The user to log in as
        out|           
        out|           [env: FLEETCTL_SSH_USERNAME]
        out|           [default: core]
        out| 
        out|       --ssh-timeout <SECONDS>
        out|           How long a connection may take, in seconds
        out|           
        out|           [env: FLEETCTL_SSH_TIMEOUT]
        out|           [default: 10]
        out| 
        out|       --known-hosts-file <FILE>
        out|           Where the keys of known hosts are kept; not used without --strict-host-key-checking
        out|           
        out|           [env: FLEETCTL_KNOWN_HOSTS_FILE]
        out|           [default: ~/.fleetctl/known_hosts]
        out| 
        out|       --strict-host-key-checking[=<BOOL>]
        out|           Check each host's key: ask about a new host, refuse one whose key changed
        out|           
        out|           [env: FLEETCTL_STRICT_HOST_KEY_CHECKING]
        out|           [default: true]
        out|           [possible values: true, false]
        rc=0

        $ fleetctl start -h
        out| Run units, and wait until they do
        out| 
        out| Usage: fleetctl start [OPTIONS] [UNIT]...
        out| 
        out| Arguments:
        out|   [UNIT]...  The units, or their files
        out| 
        out| Options:
        out|       --replace             Replace a unit that the cluster has, if its local file differs
        out|       --no-block            Do not wait until it is done
        out|       --block-attempts <N>  Give up waiting after N times two seconds; 0 leaves it to --timeout
        out|       --timeout <SECONDS>   Give up waiting after so many seconds; 0 waits for ever [default: 300]
        out|   -h, --help                Print help (see more with '--help')
        out| 
        out| Global options:
        out|       --endpoint <URL>    Where fleetd listens: unix:///PATH, https://HOST:PORT or http://HOST:PORT;
        out|                           several with commas are tried in turn [env: FLEETCTL_ENDPOINT] [default:
        out|                           unix:///run/fleet.sock]
        out|       --ca-file <FILE>    For https: the CA that fleetd's certificate must be from [default: those
        out|                           that this machine trusts] [env: FLEETCTL_CA_FILE]
        out|       --cert-file <FILE>  For https: your certificate [env: FLEETCTL_CERT_FILE]
        out|       --key-file <FILE>   For https: its key [env: FLEETCTL_KEY_FILE]
        out|       --user              Talk to your own fleetd (fleetd --user), unless --endpoint says otherwise
        out|       --json              Print data as JSON: one document, of journal and events --follow one a
        out|                           line [env: FLEETCTL_JSON]
        out|       --debug             Say on stderr what is asked of fleetd and how long it takes [env:
        out|                           FLEETCTL_DEBUG]
        out| 
        out| Options for ssh:
        out|       --ssh-username <USER>      The user to log in as [env: FLEETCTL_SSH_USERNAME] [default: core]
        out|       --known-hosts-file <FILE>  Where the keys of known hosts are kept; not used without
        out|                                  --strict-host-key-checking [env: FLEETCTL_KNOWN_HOSTS_FILE]
        out|                                  [default: ~/.fleetctl/known_hosts]
        rc=0

        $ fleetctl scale --help
        out| Keep so many instances of a template running
        out| 
        out| `web=5` means five instances of web@.service, `web=+2` two more than now, `web=-1` one fewer. A
        out| template that the cluster does not have is submitted from this directory first.
        out| 
        out| Usage: fleetctl scale [OPTIONS] [UNIT=COUNT]...
        out| 
        out| Arguments:
        out|   [UNIT=COUNT]...
        out|           Templates and their counts
        out| 
        out| Options:
        out|       --no-block
        out|           Do not wait until it is done
        out| 
        out|       --block-attempts <N>
        out|           Give up waiting after N times two seconds; 0 leaves it to --timeout
        out| 
        out|       --timeout <SECONDS>
        out|           Give up waiting after so many seconds; 0 waits for ever
        out|           
        out|           [default: 300]
        out| 
        out|   -h, --help
        out|           Print help (see a summary with '-h')
        out| 
        out| Global options:
        out|       --endpoint <URL>
        out|           Where fleetd listens: unix:///PATH, https://HOST:PORT or http://HOST:PORT; several with
        out|           commas are tried in turn
        out|           
        out|           [env: FLEETCTL_ENDPOINT]
        out|           [default: unix:///run/fleet.sock]
        out| 
        out|       --ca-file <FILE>
        out|           For https: the CA that fleetd's certificate must be from [default: those that this machine
        out|           trusts]
        out|           
        out|           [env: FLEETCTL_CA_FILE]
        out| 
        out|       --cert-file <FILE>
        out|           For https: your certificate
        out|           
        out|           [env: FLEETCTL_CERT_FILE]
        out| 
        out|       --key-file <FILE>
        out|           For https: its key
        out|           
        out|           [env: FLEETCTL_KEY_FILE]
        out| 
        out|       --user
        out|           Talk to your own fleetd (fleetd --user), unless --endpoint says otherwise
        out| 
        out|       --json
        out|           Print data as JSON: one document, of journal and events --follow one a line
        out|           
        out|           [env: FLEETCTL_JSON]
        out| 
        out|       --debug
        out|           Say on stderr what is asked of fleetd and how long it takes
        out|           
        out|           [env: FLEETCTL_DEBUG]
        out| 
        out| Options for ssh:
        out|       --tunnel <[USER@]HOST[:PORT]>
        out|           Reach fleetd through an ssh connection to this host
        out|           
        out|           [env: FLEETCTL_TUNNEL]
        out| 
        out|       --ssh-username <USER>
        out|           The user to log in as
        out|           
        out|           [env: FLEETCTL_SSH_USERNAME]
        out|           [default: core]
        out| 
        out|       --ssh-timeout <SECONDS>
        out|           How long a connection may take, in seconds
        out|           
        out|           [env: FLEETCTL_SSH_TIMEOUT]
        out|           [default: 10]
        out| 
        out|       --known-hosts-file <FILE>
        out|           Where the keys of known hosts are kept; not used without --strict-host-key-checking
        out|           
        out|           [env: FLEETCTL_KNOWN_HOSTS_FILE]
        out|           [default: ~/.fleetctl/known_hosts]
        out| 
        out|       --strict-host-key-checking[=<BOOL>]
        out|           Check each host's key: ask about a new host, refuse one whose key changed
        out|           
        out|           [env: FLEETCTL_STRICT_HOST_KEY_CHECKING]
        out|           [default: true]
        out|           [possible values: true, false]
        rc=0

        $ fleetctl restart -h
        out| Restart units where they are, and wait until they run again
        out| 
        out| Usage: fleetctl restart [OPTIONS] [UNIT]...
        out| 
        out| Arguments:
        out|   [UNIT]...  The units; of a template all instances, of a global unit on every machine
        out| 
        out| Options:
        out|       --no-block            Do not wait until it is done
        out|       --block-attempts <N>  Give up waiting after N times two seconds; 0 leaves it to --timeout
        out|       --timeout <SECONDS>   Give up waiting after so many seconds; 0 waits for ever [default: 300]
        out|   -h, --help                Print help (see more with '--help')
        out| 
        out| Global options:
        out|       --endpoint <URL>    Where fleetd listens: unix:///PATH, https://HOST:PORT or http://HOST:PORT;
        out|                           several with commas are tried in turn [env: FLEETCTL_ENDPOINT] [default:
        out|                           unix:///run/fleet.sock]
        out|       --ca-file <FILE>    For https: the CA that fleetd's certificate must be from [default: those
        out|                           that this machine trusts] [env: FLEETCTL_CA_FILE]
        out|       --cert-file <FILE>  For https: your certificate [env: FLEETCTL_CERT_FILE]
        out|       --key-file <FILE>   For https: its key [env: FLEETCTL_KEY_FILE]
        out|       --user              Talk to your own fleetd (fleetd --user), unless --endpoint says otherwise
        out|       --json              Print data as JSON: one document, of journal and events --follow one a
        out|                           line [env: FLEETCTL_JSON]
        out|       --debug             Say on stderr what is asked of fleetd and how long it takes [env:
        out|                           FLEETCTL_DEBUG]
        out| 
        out| Options for ssh:
        out|       --ssh-username <USER>      The user to log in as [env: FLEETCTL_SSH_USERNAME] [default: core]
        out|       --known-hosts-file <FILE>  Where the keys of known hosts are kept; not used without
        out|                                  --strict-host-key-checking [env: FLEETCTL_KNOWN_HOSTS_FILE]
        out|                                  [default: ~/.fleetctl/known_hosts]
        rc=0

        $ fleetctl stop -h
        out| Stop units; they stay loaded on their machines
        out| 
        out| Usage: fleetctl stop [OPTIONS] [UNIT]...
        out| 
        out| Arguments:
        out|   [UNIT]...  The units; of a scaled template all instances
        out| 
        out| Options:
        out|       --no-block            Do not wait until it is done
        out|       --block-attempts <N>  Give up waiting after N times two seconds; 0 leaves it to --timeout
        out|       --timeout <SECONDS>   Give up waiting after so many seconds; 0 waits for ever [default: 300]
        out|   -h, --help                Print help (see more with '--help')
        out| 
        out| Global options:
        out|       --endpoint <URL>    Where fleetd listens: unix:///PATH, https://HOST:PORT or http://HOST:PORT;
        out|                           several with commas are tried in turn [env: FLEETCTL_ENDPOINT] [default:
        out|                           unix:///run/fleet.sock]
        out|       --ca-file <FILE>    For https: the CA that fleetd's certificate must be from [default: those
        out|                           that this machine trusts] [env: FLEETCTL_CA_FILE]
        out|       --cert-file <FILE>  For https: your certificate [env: FLEETCTL_CERT_FILE]
        out|       --key-file <FILE>   For https: its key [env: FLEETCTL_KEY_FILE]
        out|       --user              Talk to your own fleetd (fleetd --user), unless --endpoint says otherwise
        out|       --json              Print data as JSON: one document, of journal and events --follow one a
        out|                           line [env: FLEETCTL_JSON]
        out|       --debug             Say on stderr what is asked of fleetd and how long it takes [env:
        out|                           FLEETCTL_DEBUG]
        out| 
        out| Options for ssh:
        out|       --ssh-username <USER>      The user to log in as [env: FLEETCTL_SSH_USERNAME] [default: core]
        out|       --known-hosts-file <FILE>  Where the keys of known hosts are kept; not used without
        out|                                  --strict-host-key-checking [env: FLEETCTL_KNOWN_HOSTS_FILE]
        out|                                  [default: ~/.fleetctl/known_hosts]
        rc=0

        $ fleetctl unload -h
        out| Stop units and take them off their machines; the cluster keeps their files
        out| 
        out| Usage: fleetctl unload [OPTIONS] [UNIT]...
        out| 
        out| Arguments:
        out|   [UNIT]...  The units; of a scaled template all instances
        out| 
        out| Options:
        out|       --no-block            Do not wait until it is done
        out|       --block-attempts <N>  Give up waiting after N times two seconds; 0 leaves it to --timeout
        out|       --timeout <SECONDS>   Give up waiting after so many seconds; 0 waits for ever [default: 300]
        out|   -h, --help                Print help (see more with '--help')
        out| 
        out| Global options:
        out|       --endpoint <URL>    Where fleetd listens: unix:///PATH, https://HOST:PORT or http://HOST:PORT;
        out|                           several with commas are tried in turn [env: FLEETCTL_ENDPOINT] [default:
        out|                           unix:///run/fleet.sock]
        out|       --ca-file <FILE>    For https: the CA that fleetd's certificate must be from [default: those
        out|                           that this machine trusts] [env: FLEETCTL_CA_FILE]
        out|       --cert-file <FILE>  For https: your certificate [env: FLEETCTL_CERT_FILE]
        out|       --key-file <FILE>   For https: its key [env: FLEETCTL_KEY_FILE]
        out|       --user              Talk to your own fleetd (fleetd --user), unless --endpoint says otherwise
        out|       --json              Print data as JSON: one document, of journal and events --follow one a
        out|                           line [env: FLEETCTL_JSON]
        out|       --debug             Say on stderr what is asked of fleetd and how long it takes [env:
        out|                           FLEETCTL_DEBUG]
        out| 
        out| Options for ssh:
        out|       --ssh-username <USER>      The user to log in as [env: FLEETCTL_SSH_USERNAME] [default: core]
        out|       --known-hosts-file <FILE>  Where the keys of known hosts are kept; not used without
        out|                                  --strict-host-key-checking [env: FLEETCTL_KNOWN_HOSTS_FILE]
        out|                                  [default: ~/.fleetctl/known_hosts]
        rc=0

        $ fleetctl destroy -h
        out| Stop units everywhere and forget their files
        out| 
        out| Usage: fleetctl destroy [OPTIONS] [UNIT]...
        out| 
        out| Arguments:
        out|   [UNIT]...  The units; a scaled template goes with all its instances
        out| 
        out| Options:
        out|       --no-block            Do not wait until it is done
        out|       --block-attempts <N>  Give up waiting after N times two seconds; 0 leaves it to --timeout
        out|       --timeout <SECONDS>   Give up waiting after so many seconds; 0 waits for ever [default: 300]
        out|   -h, --help                Print help (see more with '--help')
        out| 
        out| Global options:
        out|       --endpoint <URL>    Where fleetd listens: unix:///PATH, https://HOST:PORT or http://HOST:PORT;
        out|                           several with commas are tried in turn [env: FLEETCTL_ENDPOINT] [default:
        out|                           unix:///run/fleet.sock]
        out|       --ca-file <FILE>    For https: the CA that fleetd's certificate must be from [default: those
        out|                           that this machine trusts] [env: FLEETCTL_CA_FILE]
        out|       --cert-file <FILE>  For https: your certificate [env: FLEETCTL_CERT_FILE]
        out|       --key-file <FILE>   For https: its key [env: FLEETCTL_KEY_FILE]
        out|       --user              Talk to your own fleetd (fleetd --user), unless --endpoint says otherwise
        out|       --json              Print data as JSON: one document, of journal and events --follow one a
        out|                           line [env: FLEETCTL_JSON]
        out|       --debug             Say on stderr what is asked of fleetd and how long it takes [env:
        out|                           FLEETCTL_DEBUG]
        out| 
        out| Options for ssh:
        out|       --ssh-username <USER>      The user to log in as [env: FLEETCTL_SSH_USERNAME] [default: core]
        out|       --known-hosts-file <FILE>  Where the keys of known hosts are kept; not used without
        out|                                  --strict-host-key-checking [env: FLEETCTL_KNOWN_HOSTS_FILE]
        out|                                  [default: ~/.fleetctl/known_hosts]
        rc=0

        $ fleetctl status --help
        out| Show what systemd says of units, on every machine that runs them
        out| 
        out| Exits with the status of the remote systemctl: 3 means that the unit does not run.
        out| 
        out| Usage: fleetctl status [OPTIONS] [UNIT]...
        out| 
        out| Arguments:
        out|   [UNIT]...
        out|           The units
        out| 
        out| Options:
        out|       --ssh-port <N>
        out|           Ask the machines over ssh, on this TCP port, rather than through fleetd
        out| 
        out|   -h, --help
        out|           Print help (see a summary with '-h')
        out| 
        out| Global options:
        out|       --endpoint <URL>
        out|           Where fleetd listens: unix:///PATH, https://HOST:PORT or http://HOST:PORT; several with
        out|           commas are tried in turn
        out|           
        out|           [env: FLEETCTL_ENDPOINT]
        out|           [default: unix:///run/fleet.sock]
        out| 
        out|       --ca-file <FILE>
        out|           For https: the CA that fleetd's certificate must be from [default: those that this machine
        out|           trusts]
        out|           
        out|           [env: FLEETCTL_CA_FILE]
        out| 
        out|       --cert-file <FILE>
        out|           For https: your certificate
        out|           
        out|           [env: FLEETCTL_CERT_FILE]
        out| 
        out|       --key-file <FILE>
        out|           For https: its key
        out|           
        out|           [env: FLEETCTL_KEY_FILE]
        out| 
        out|       --user
        out|           Talk to your own fleetd (fleetd --user), unless --endpoint says otherwise
        out| 
        out|       --json
        out|           Print data as JSON: one document, of journal and events --follow one a line
        out|           
        out|           [env: FLEETCTL_JSON]
        out| 
        out|       --debug
        out|           Say on stderr what is asked of fleetd and how long it takes
        out|           
        out|           [env: FLEETCTL_DEBUG]
        out| 
        out| Options for ssh:
        out|       --tunnel <[USER@]HOST[:PORT]>
        out|           Reach fleetd through an ssh connection to this host
        out|           
        out|           [env: FLEETCTL_TUNNEL]
        out| 
        out|       --ssh-username <USER>
        out|           The user to log in as
        out|           
        out|           [env: FLEETCTL_SSH_USERNAME]
        out|           [default: core]
        out| 
        out|       --ssh-timeout <SECONDS>
        out|           How long a connection may take, in seconds
        out|           
        out|           [env: FLEETCTL_SSH_TIMEOUT]
        out|           [default: 10]
        out| 
        out|       --known-hosts-file <FILE>
        out|           Where the keys of known hosts are kept; not used without --strict-host-key-checking
        out|           
        out|           [env: FLEETCTL_KNOWN_HOSTS_FILE]
        out|           [default: ~/.fleetctl/known_hosts]
        out| 
        out|       --strict-host-key-checking[=<BOOL>]
        out|           Check each host's key: ask about a new host, refuse one whose key changed
        out|           
        out|           [env: FLEETCTL_STRICT_HOST_KEY_CHECKING]
        out|           [default: true]
        out|           [possible values: true, false]
        rc=0

        $ fleetctl journal -h
        out| Print a unit's log, from whichever machines run it
        out| 
        out| Usage: fleetctl journal [OPTIONS] [UNIT]...
        out| 
        out| Arguments:
        out|   [UNIT]...  The unit; of a template or a global unit all instances
        out| 
        out| Options:
        out|   -f, --follow           Go on printing as lines are written
        out|   -n, --lines <N>        How many of the newest lines to begin with [default: 10]
        out|   -o, --output <FORMAT>  journalctl's output format: short, short-iso, cat, json… [default: short]
        out|       --ssh-port <N>     Ask the machines over ssh, on this TCP port, rather than through fleetd
        out|       --sudo             Read the journal as root, over ssh; fleetd does anyway
        out|   -h, --help             Print help (see more with '--help')
        out| 
        out| Global options:
        out|       --endpoint <URL>    Where fleetd listens: unix:///PATH, https://HOST:PORT or http://HOST:PORT;
        out|                           several with commas are tried in turn [env: FLEETCTL_ENDPOINT] [default:
        out|                           unix:///run/fleet.sock]
        out|       --ca-file <FILE>    For https: the CA that fleetd's certificate must be from [default: those
        out|                           that this machine trusts] [env: FLEETCTL_CA_FILE]
        out|       --cert-file <FILE>  For https: your certificate [env: FLEETCTL_CERT_FILE]
        out|       --key-file <FILE>   For https: its key [env: FLEETCTL_KEY_FILE]
        out|       --user              Talk to your own fleetd (fleetd --user), unless --endpoint says otherwise
        out|       --json              Print data as JSON: one document, of journal and events --follow one a
        out|                           line [env: FLEETCTL_JSON]
        out|       --debug             Say on stderr what is asked of fleetd and how long it takes [env:
        out|                           FLEETCTL_DEBUG]
        out| 
        out| Options for ssh:
        out|       --ssh-username <USER>      The user to log in as [env: FLEETCTL_SSH_USERNAME] [default: core]
        out|       --known-hosts-file <FILE>  Where the keys of known hosts are kept; not used without
        out|                                  --strict-host-key-checking [env: FLEETCTL_KNOWN_HOSTS_FILE]
        out|                                  [default: ~/.fleetctl/known_hosts]
        rc=0

        $ fleetctl cat -h
        out| Print a unit's file as it was submitted
        out| 
        out| Usage: fleetctl cat [OPTIONS] [UNIT]...
        out| 
        out| Arguments:
        out|   [UNIT]...  The unit
        out| 
        out| Options:
        out|   -h, --help  Print help (see more with '--help')
        out| 
        out| Global options:
        out|       --endpoint <URL>    Where fleetd listens: unix:///PATH, https://HOST:PORT or http://HOST:PORT;
        out|                           several with commas are tried in turn [env: FLEETCTL_ENDPOINT] [default:
        out|                           unix:///run/fleet.sock]
        out|       --ca-file <FILE>    For https: the CA that fleetd's certificate must be from [default: those
        out|                           that this machine trusts] [env: FLEETCTL_CA_FILE]
        out|       --cert-file <FILE>  For https: your certificate [env: FLEETCTL_CERT_FILE]
        out|       --key-file <FILE>   For https: its key [env: FLEETCTL_KEY_FILE]
        out|       --user              Talk to your own fleetd (fleetd --user), unless --endpoint says otherwise
        out|       --json              Print data as JSON: one document, of journal and events --follow one a
        out|                           line [env: FLEETCTL_JSON]
        out|       --debug             Say on stderr what is asked of fleetd and how long it takes [env:
        out|                           FLEETCTL_DEBUG]
        out| 
        out| Options for ssh:
        out|       --ssh-username <USER>      The user to log in as [env: FLEETCTL_SSH_USERNAME] [default: core]
        out|       --known-hosts-file <FILE>  Where the keys of known hosts are kept; not used without
        out|                                  --strict-host-key-checking [env: FLEETCTL_KNOWN_HOSTS_FILE]
        out|                                  [default: ~/.fleetctl/known_hosts]
        rc=0

        $ fleetctl list-units -h
        out| List what systemd says of every unit on every machine
        out| 
        out| Usage: fleetctl list-units [OPTIONS]
        out| 
        out| Options:
        out|   -l, --full            Do not shorten ids and hashes
        out|       --no-legend       Do not print the column names
        out|       --fields <NAMES>  The columns, of: unit, load, active, sub, machine, hash, result, restarts,
        out|                         next, message [default: unit,machine,active,sub]
        out|   -h, --help            Print help (see more with '--help')
        out| 
        out| Global options:
        out|       --endpoint <URL>    Where fleetd listens: unix:///PATH, https://HOST:PORT or http://HOST:PORT;
        out|                           several with commas are tried in turn [env: FLEETCTL_ENDPOINT] [default:
        out|                           unix:///run/fleet.sock]
        out|       --ca-file <FILE>    For https: the CA that fleetd's certificate must be from [default: those
        out|                           that this machine trusts] [env: FLEETCTL_CA_FILE]
        out|       --cert-file <FILE>  For https: your certificate [env: FLEETCTL_CERT_FILE]
        out|       --key-file <FILE>   For https: its key [env: FLEETCTL_KEY_FILE]
        out|       --user              Talk to your own fleetd (fleetd --user), unless --endpoint says otherwise
        out|       --json              Print data as JSON: one document, of journal and events --follow one a
        out|                           line [env: FLEETCTL_JSON]
        out|       --debug             Say on stderr what is asked of fleetd and how long it takes [env:
        out|                           FLEETCTL_DEBUG]
        out| 
        out| Options for ssh:
        out|       --ssh-username <USER>      The user to log in as [env: FLEETCTL_SSH_USERNAME] [default: core]
        out|       --known-hosts-file <FILE>  Where the keys of known hosts are kept; not used without
        out|                                  --strict-host-key-checking [env: FLEETCTL_KNOWN_HOSTS_FILE]
        out|                                  [default: ~/.fleetctl/known_hosts]
        rc=0

        $ fleetctl list-unit-files -h
        out| List every unit that the cluster has, and what is wanted of it
        out| 
        out| Usage: fleetctl list-unit-files [OPTIONS]
        out| 
        out| Options:
        out|   -l, --full            Do not shorten ids and hashes
        out|       --no-legend       Do not print the column names
        out|       --fields <NAMES>  The columns, of: unit, hash, dstate, state, target, global, desc, replicas,
        out|                         revision, why [default: unit,hash,dstate,state,target]
        out|   -h, --help            Print help (see more with '--help')
        out| 
        out| Global options:
        out|       --endpoint <URL>    Where fleetd listens: unix:///PATH, https://HOST:PORT or http://HOST:PORT;
        out|                           several with commas are tried in turn [env: FLEETCTL_ENDPOINT] [default:
        out|                           unix:///run/fleet.sock]
        out|       --ca-file <FILE>    For https: the CA that fleetd's certificate must be from [default: those
        out|                           that this machine trusts] [env: FLEETCTL_CA_FILE]
        out|       --cert-file <FILE>  For https: your certificate [env: FLEETCTL_CERT_FILE]
        out|       --key-file <FILE>   For https: its key [env: FLEETCTL_KEY_FILE]
        out|       --user              Talk to your own fleetd (fleetd --user), unless --endpoint says otherwise
        out|       --json              Print data as JSON: one document, of journal and events --follow one a
        out|                           line [env: FLEETCTL_JSON]
        out|       --debug             Say on stderr what is asked of fleetd and how long it takes [env:
        out|                           FLEETCTL_DEBUG]
        out| 
        out| Options for ssh:
        out|       --ssh-username <USER>      The user to log in as [env: FLEETCTL_SSH_USERNAME] [default: core]
        out|       --known-hosts-file <FILE>  Where the keys of known hosts are kept; not used without
        out|                                  --strict-host-key-checking [env: FLEETCTL_KNOWN_HOSTS_FILE]
        out|                                  [default: ~/.fleetctl/known_hosts]
        rc=0

        $ fleetctl list-machines -h
        out| List the machines of the cluster
        out| 
        out| Usage: fleetctl list-machines [OPTIONS]
        out| 
        out| Options:
        out|   -l, --full            Do not shorten ids and hashes
        out|       --no-legend       Do not print the column names
        out|       --fields <NAMES>  The columns, of: machine, ip, metadata, leader, version, instances,
        out|                         availability [default: machine,ip,metadata]
        out|   -h, --help            Print help (see more with '--help')
        out| 
        out| Global options:
        out|       --endpoint <URL>    Where fleetd listens: unix:///PATH, https://HOST:PORT or http://HOST:PORT;
        out|                           several with commas are tried in turn [env: FLEETCTL_ENDPOINT] [default:
        out|                           unix:///run/fleet.sock]
        out|       --ca-file <FILE>    For https: the CA that fleetd's certificate must be from [default: those
        out|                           that this machine trusts] [env: FLEETCTL_CA_FILE]
        out|       --cert-file <FILE>  For https: your certificate [env: FLEETCTL_CERT_FILE]
        out|       --key-file <FILE>   For https: its key [env: FLEETCTL_KEY_FILE]
        out|       --user              Talk to your own fleetd (fleetd --user), unless --endpoint says otherwise
        out|       --json              Print data as JSON: one document, of journal and events --follow one a
        out|                           line [env: FLEETCTL_JSON]
        out|       --debug             Say on stderr what is asked of fleetd and how long it takes [env:
        out|                           FLEETCTL_DEBUG]
        out| 
        out| Options for ssh:
        out|       --ssh-username <USER>      The user to log in as [env: FLEETCTL_SSH_USERNAME] [default: core]
        out|       --known-hosts-file <FILE>  Where the keys of known hosts are kept; not used without
        out|                                  --strict-host-key-checking [env: FLEETCTL_KNOWN_HOSTS_FILE]
        out|                                  [default: ~/.fleetctl/known_hosts]
        rc=0

        $ fleetctl version -h
        out| Print the version; with --json also that of fleetd
        out| 
        out| Usage: fleetctl version [OPTIONS]
        out| 
        out| Options:
        out|   -h, --help  Print help (see more with '--help')
        out| 
        out| Global options:
        out|       --endpoint <URL>    Where fleetd listens: unix:///PATH, https://HOST:PORT or http://HOST:PORT;
        out|                           several with commas are tried in turn [env: FLEETCTL_ENDPOINT] [default:
        out|                           unix:///run/fleet.sock]
        out|       --ca-file <FILE>    For https: the CA that fleetd's certificate must be from [default: those
        out|                           that this machine trusts] [env: FLEETCTL_CA_FILE]
        out|       --cert-file <FILE>  For https: your certificate [env: FLEETCTL_CERT_FILE]
        out|       --key-file <FILE>   For https: its key [env: FLEETCTL_KEY_FILE]
        out|       --user              Talk to your own fleetd (fleetd --user), unless --endpoint says otherwise
        out|       --json              Print data as JSON: one document, of journal and events --follow one a
        out|                           line [env: FLEETCTL_JSON]
        out|       --debug             Say on stderr what is asked of fleetd and how long it takes [env:
        out|                           FLEETCTL_DEBUG]
        out| 
        out| Options for ssh:
        out|       --ssh-username <USER>      The user to log in as [env: FLEETCTL_SSH_USERNAME] [default: core]
        out|       --known-hosts-file <FILE>  Where the keys of known hosts are kept; not used without
        out|                                  --strict-host-key-checking [env: FLEETCTL_KNOWN_HOSTS_FILE]
        out|                                  [default: ~/.fleetctl/known_hosts]
        rc=0

        $ fleetctl help stop
        out| Stop units; they stay loaded on their machines
        out| 
        out| Usage: fleetctl stop [OPTIONS] [UNIT]...
        out| 
        out| Arguments:
        out|   [UNIT]...
        out|           The units; of a scaled template all instances
        out| 
        out| Options:
        out|       --no-block
        out|           Do not wait until it is done
        out| 
        out|       --block-attempts <N>
        out|           Give up waiting after N times two seconds; 0 leaves it to --timeout
        out| 
        out|       --timeout <SECONDS>
        out|           Give up waiting after so many seconds; 0 waits for ever
        out|           
        out|           [default: 300]
        out| 
        out|   -h, --help
        out|           Print help (see a summary with '-h')
        out| 
        out| Global options:
        out|       --endpoint <URL>
        out|           Where fleetd listens: unix:///PATH, https://HOST:PORT or http://HOST:PORT; several with
        out|           commas are tried in turn
        out|           
        out|           [env: FLEETCTL_ENDPOINT]
        out|           [default: unix:///run/fleet.sock]
        out| 
        out|       --ca-file <FILE>
        out|           For https: the CA that fleetd's certificate must be from [default: those that this machine
        out|           trusts]
        out|           
        out|           [env: FLEETCTL_CA_FILE]
        out| 
        out|       --cert-file <FILE>
        out|           For https: your certificate
        out|           
        out|           [env: FLEETCTL_CERT_FILE]
        out| 
        out|       --key-file <FILE>
        out|           For https: its key
        out|           
        out|           [env: FLEETCTL_KEY_FILE]
        out| 
        out|       --user
        out|           Talk to your own fleetd (fleetd --user), unless --endpoint says otherwise
        out| 
        out|       --json
        out|           Print data as JSON: one document, of journal and events --follow one a line
        out|           
        out|           [env: FLEETCTL_JSON]
        out| 
        out|       --debug
        out|           Say on stderr what is asked of fleetd and how long it takes
        out|           
        out|           [env: FLEETCTL_DEBUG]
        out| 
        out| Options for ssh:
        out|       --tunnel <[USER@]HOST[:PORT]>
        out|           Reach fleetd through an ssh connection to this host
        out|           
        out|           [env: FLEETCTL_TUNNEL]
        out| 
        out|       --ssh-username <USER>
        out|           The user to log in as
        out|           
        out|           [env: FLEETCTL_SSH_USERNAME]
        out|           [default: core]
        out| 
        out|       --ssh-timeout <SECONDS>
        out|           How long a connection may take, in seconds
        out|           
        out|           [env: FLEETCTL_SSH_TIMEOUT]
        out|           [default: 10]
        out| 
        out|       --known-hosts-file <FILE>
        out|           Where the keys of known hosts are kept; not used without --strict-host-key-checking
        out|           
        out|           [env: FLEETCTL_KNOWN_HOSTS_FILE]
        out|           [default: ~/.fleetctl/known_hosts]
        out| 
        out|       --strict-host-key-checking[=<BOOL>]
        out|           Check each host's key: ask about a new host, refuse one whose key changed
        out|           
        out|           [env: FLEETCTL_STRICT_HOST_KEY_CHECKING]
        out|           [default: true]
        out|           [possible values: true, false]
        rc=0
    "#]]
    .assert_eq(&said);
}

#[test]
fn a_prefix_means_what_it_meant_to_fleet_1_0() {
    let session = Session::new();
    let old = "cat destroy fd-forward help journal list-machines list-unit-files list-units load \
        restart ssh start status stop submit unload \
               verify version";
    let old: Vec<&str> = old.split_whitespace().collect();
    for command in old.iter().filter(|command| **command != "help") {
        for prefix in (1..command.len()).map(|length| &command[..length]) {
            let said = session.run(&format!("{prefix} --help"));
            // What was ambiguous then was no command.
            if old.iter().filter(|other| other.starts_with(prefix)).count() == 1 {
                assert!(said.contains(&format!("out| Usage: fleetctl {command} ")), "{said}");
            } else {
                assert!(said.contains("unknown command"), "{said}");
            }
        }
    }
    assert!(session.run("deb --h").contains("out| Usage: fleetctl debug "));
}

#[test]
fn what_makes_no_sense_is_a_usage_error() {
    let said = Session::new().transcript(
        "bogus
        lst-units
        start --bogus a
        start --no-blok a
        start --timeout=x a
        journal --lines
        list-units extra
        --json",
    );
    expect![[r#"
        $ fleetctl bogus
        err| Error: unknown command "bogus" for "fleetctl"
        err| Run 'fleetctl --help' for usage.
        rc=2

        $ fleetctl lst-units
        err| Error: unknown command "lst-units" for "fleetctl"
        err| Run 'fleetctl --help' for usage.
        err| Hint: did you mean status, list-unit-files, list-units?
        rc=2

        $ fleetctl start --bogus a
        err| Error: unknown flag: --bogus
        err| Run 'fleetctl COMMAND --help' for usage.
        rc=2

        $ fleetctl start --no-blok a
        err| Error: unknown flag: --no-blok
        err| Run 'fleetctl COMMAND --help' for usage.
        err| Hint: did you mean --no-block?
        rc=2

        $ fleetctl start --timeout=x a
        err| Error: invalid value 'x' for '--timeout <SECONDS>': give a number of seconds, 0 for no limit
        err| 
        err| For more information, try '--help'.
        rc=2

        $ fleetctl journal --lines
        err| Error: a value is required for '--lines <N>' but none was supplied
        err| 
        err| For more information, try '--help'.
        rc=2

        $ fleetctl list-units extra
        err| Error: there is nothing to do with "extra" here
        err| Run 'fleetctl COMMAND --help' for usage.
        rc=2

        $ fleetctl --json
        err| Error: no command is given
        err| Run 'fleetctl --help' for usage.
        rc=2
    "#]]
    .assert_eq(&said);
}
