//! The help texts, whole: they are what a newcomer reads first.

use expect_test::expect;

use crate::session::Session;

#[test]
fn help_shows_all_commands() {
    let session = Session::new();
    expect![[r#"
        $ fleetctl --help
        out| Runs systemd units on a cluster of machines
        out| fleetctl version v2.0.0-alpha.1
        out| 
        out| Usage: fleetctl [OPTIONS] <COMMAND>
        out| 
        out| Applications:
        out|   plan             Show what applying an application would change
        out|   apply            Apply an application's files, and wait until it runs
        out|   apps             List applications and how many of their instances run
        out|   diff             Compare an application's files, or two revisions of a unit
        out|   config           Change the values that units get by Config=
        out|   volumes          List the volumes that fleet made, with their sizes and users
        out| 
        out| Run units:
        out|   start            Start units, and wait until they run
        out|   scale            Set how many instances of a template run
        out|   restart          Restart units where they are, and wait until they run
        out|   stop             Stop units; they stay loaded on their machines
        out| 
        out| Look at units:
        out|   status           Show systemd's status of units on the machines that run them
        out|   journal          Print a unit's log from all machines that run it
        out|   cat              Print a unit's file as submitted
        out|   list-units       List units and their state in systemd on each machine
        out|   list-unit-files  List units in the cluster and their desired states
        out|   list-revisions   List the revisions of a unit's file, newest first
        out|   events           Show what users did and what the leaders decided, and why
        out| 
        out| Change units:
        out|   submit           Hand unit files to the cluster without running them
        out|   load             Place units on machines without starting them
        out|   update           Give a unit another image, and wait until it runs
        out|   rollback         Return a unit to an earlier revision, and wait until it runs
        out|   rollout          Watch a change reach the instances, pause it, undo it
        out|   unload           Stop units and take them off their machines
        out|   destroy          Stop units and delete them from the cluster
        out| 
        out| Machines:
        out|   list-machines    List the machines of the cluster
        out|   drain            Move units off machines, and place nothing new on them
        out|   cordon           Place nothing new on machines; their units stay
        out|   uncordon         Let cordoned or drained machines take units again
        out|   move             Move one instance to a machine, and wait until it runs there
        out|   reboots          Show which machines reboot, and set how many and when
        out|   ssh              Log in to a machine, or run a command there
        out| 
        out| Cluster:
        out|   export           Write the cluster's units and settings to a folder
        out|   import           Take over an exported cluster or a running fleet 1.0
        out|   store            Check the store
        out| 
        out| Tools:
        out|   debug            Save the leader's last plan, and replay it
        out|   version          Print the version; with --json also fleetd's
        out|   fd-forward       Connect stdin and stdout to a unix socket
        out|   help             Print this message or the help of the given subcommand(s)
        out| 
        out| Global options:
        out|       --endpoint=URL           Where fleetd listens [unix:///run/fleet.sock]
        out|       --ca-file=FILE           CA certificates that fleetd's must be signed by
        out|       --cert-file=FILE         Your certificate, for https
        out|       --key-file=FILE          The key of your certificate
        out|       --user                   Ask your own fleetd (fleetd --user)
        out|       --json                   Print data as JSON
        out|       --color=WHEN             Colour and align: auto, always, never [auto]
        out|       --debug                  Print on stderr each request and how long it took
        out|   -v, --version                Print the version
        out|   -h, --help                   Print help (see more with '--help')
        out| 
        out| Options for ssh:
        out|       --tunnel=[USER@]HOST[:PORT]
        out|                                Reach fleetd over ssh through this host
        out|       --ssh-username=USER      The user to log in as [core]
        out|       --ssh-timeout=SECONDS    Seconds that connecting may take [10]
        out|       --known-hosts-file=FILE  File of known hosts [~/.fleetctl/known_hosts]
        out|       --strict-host-key-checking[=BOOL]
        out|                                Check each host's key [true]
        out| 
        out| `fleetctl COMMAND --help` explains a command. Options can be set by variables,
        out| --endpoint by FLEETCTL_ENDPOINT; fleetctl(1) describes each.
        rc=0
    "#]]
    .assert_eq(&session.run("--help"));
}

#[test]
fn the_help_has_every_command_once_and_fits_a_terminal() {
    let said = Session::new().run("--help");
    let definition = fleetctl::command();
    for command in definition.get_subcommands().filter(|command| !command.is_hide_set()) {
        let listed = format!("out|   {} ", command.get_name());
        assert_eq!(said.matches(&listed).count(), 1, "{}: {said}", command.get_name());
    }
    for option in definition.get_arguments().filter(|option| !option.is_hide_set()) {
        let listed = format!("--{}", option.get_long().unwrap_or_default());
        assert!(said.contains(&listed), "{listed}: {said}");
    }
    for line in said.lines() {
        let line = line.strip_prefix("out| ").unwrap_or(line);
        assert!(line.chars().count() <= 80, "{line}");
    }
}

#[test]
fn without_a_command_there_is_help() {
    let said = Session::new().run("");
    assert!(
        said.starts_with("$ fleetctl \nout| Runs systemd units on a cluster of machines")
            && said.ends_with("rc=0\n"),
        "{said}"
    );
}

#[test]
fn each_command_has_help() {
    let said = Session::new().transcript(
        "plan --help
        apply --help
        apps --help
        diff --help
        submit --help
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
        $ fleetctl plan --help
        out| Show what applying an application would change
        out| 
        out| Nothing is changed. The signs: + is new, ~ changes, - goes, = stays, ! stays though its file is
        out| gone. Exits with 0 if there is nothing to do, 1 if there are changes, 2 if there is no plan: the
        out| files are wrong, or fleetd does not answer.
        out| 
        out| Usage: fleetctl plan [OPTIONS] <PATH>...
        out| 
        out| Arguments:
        out|   <PATH>...
        out|           A folder, a .quadlets file, or single files with --app
        out| 
        out| Options:
        out|       --app <NAME>
        out|           The application's name [default: the folder's]
        out| 
        out|       --prune
        out|           Also remove units that an earlier apply brought and that are gone from the files
        out| 
        out|   -h, --help
        out|           Print help (see a summary with '-h')
        out| 
        out| Options of every command, such as --endpoint and --json: `fleetctl --help`
        rc=0

        $ fleetctl apply --help
        out| Apply an application's files, and wait until it runs
        out| 
        out| Shows the plan first, and asks. Everything is changed, or nothing. Units that an earlier apply
        out| brought and that are gone from the files stay, unless --prune is given.
        out| 
        out| Usage: fleetctl apply [OPTIONS] <PATH>...
        out| 
        out| Arguments:
        out|   <PATH>...
        out|           A folder, a .quadlets file, or single files with --app
        out| 
        out| Options:
        out|       --app <NAME>
        out|           The application's name [default: the folder's]
        out| 
        out|       --prune
        out|           Also remove units that an earlier apply brought and that are gone from the files
        out| 
        out|   -y, --yes
        out|           Do not ask
        out| 
        out|       --if-revision <N>
        out|           Refuse if the application is at another revision, or, with all that `fleetctl plan` says
        out|           there, if any of its units was changed since; 0 means that it is new
        out| 
        out|       --no-block
        out|           Do not wait until the units are as asked
        out| 
        out|       --block-attempts <N>
        out|           Stop waiting after N times 2 seconds; 0 means --timeout
        out| 
        out|       --timeout <SECONDS>
        out|           Stop waiting after this many seconds; 0 waits forever
        out|           
        out|           [default: 300]
        out| 
        out|   -h, --help
        out|           Print help (see a summary with '-h')
        out| 
        out| Options of every command, such as --endpoint and --json: `fleetctl --help`
        rc=0

        $ fleetctl apps --help
        out| List applications and how many of their instances run
        out| 
        out| Usage: fleetctl apps [OPTIONS]
        out| 
        out| Options:
        out|   -l, --full
        out|           Do not shorten IDs and hashes
        out| 
        out|       --no-legend
        out|           Do not print the column names
        out| 
        out|       --fields <NAMES>
        out|           The columns: app, revision, running, applied, units, files
        out|           
        out|           [default: app,revision,running,applied]
        out| 
        out|   -h, --help
        out|           Print help (see a summary with '-h')
        out| 
        out| Options of every command, such as --endpoint and --json: `fleetctl --help`
        rc=0

        $ fleetctl diff --help
        out| Compare an application's files, or two revisions of a unit
        out| 
        out| `fleetctl diff shop/` compares with the cluster, file by file; - is the cluster's, + is here.
        out| `fleetctl diff web@ 3..4` compares two revisions of a unit, and `3..` an earlier one with the
        out| present. Exits with 0 if there is no difference, 1 if there is one, 2 if that cannot be said.
        out| 
        out| Usage: fleetctl diff [OPTIONS] <PATH>...
        out| 
        out| Arguments:
        out|   <PATH>...
        out|           A folder, a .quadlets file, files with --app; or a unit and its revisions
        out| 
        out| Options:
        out|       --app <NAME>
        out|           The application's name [default: the folder's]
        out| 
        out|   -h, --help
        out|           Print help (see a summary with '-h')
        out| 
        out| Options of every command, such as --endpoint and --json: `fleetctl --help`
        rc=0

        $ fleetctl submit --help
        out| Hand unit files to the cluster without running them
        out| 
        out| Looks for each file in the cluster, then on this machine; for web@1.service also for the file
        out| web@.service.
        out| 
        out| Usage: fleetctl submit [OPTIONS] [UNIT]...
        out| 
        out| Arguments:
        out|   [UNIT]...
        out|           The unit files
        out| 
        out| Options:
        out|       --replace
        out|           Replace the cluster's unit if its file differs and it is inactive
        out| 
        out|   -h, --help
        out|           Print help (see a summary with '-h')
        out| 
        out| Options of every command, such as --endpoint and --json: `fleetctl --help`
        rc=0

        $ fleetctl load --help
        out| Place units on machines without starting them
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
        out|           Replace the cluster's unit if its local file differs
        out| 
        out|       --no-block
        out|           Do not wait until the units are as asked
        out| 
        out|       --block-attempts <N>
        out|           Stop waiting after N times 2 seconds; 0 means --timeout
        out| 
        out|       --timeout <SECONDS>
        out|           Stop waiting after this many seconds; 0 waits forever
        out|           
        out|           [default: 300]
        out| 
        out|   -h, --help
        out|           Print help (see a summary with '-h')
        out| 
        out| Options of every command, such as --endpoint and --json: `fleetctl --help`
        rc=0

        $ fleetctl start -h
        out| Start units, and wait until they run
        out| 
        out| Usage: fleetctl start [OPTIONS] [UNIT]...
        out| 
        out| Arguments:
        out|   [UNIT]...  The units, or their files
        out| 
        out| Options:
        out|       --replace             Replace the cluster's unit if its local file differs
        out|       --no-block            Do not wait until the units are as asked
        out|       --block-attempts <N>  Stop waiting after N times 2 seconds; 0 means --timeout
        out|       --timeout <SECONDS>   Stop waiting after this many seconds; 0 waits forever [default: 300]
        out|   -h, --help                Print help (see more with '--help')
        out| 
        out| Options of every command, such as --endpoint and --json: `fleetctl --help`
        rc=0

        $ fleetctl scale --help
        out| Set how many instances of a template run
        out| 
        out| `web=5` means five instances of web@.service, `web=+2` two more than now, `web=-1` one fewer.
        out| Submits a template from this directory that the cluster does not have.
        out| 
        out| Usage: fleetctl scale [OPTIONS] [UNIT=COUNT]...
        out| 
        out| Arguments:
        out|   [UNIT=COUNT]...
        out|           Templates and their counts
        out| 
        out| Options:
        out|       --no-block
        out|           Do not wait until the units are as asked
        out| 
        out|       --block-attempts <N>
        out|           Stop waiting after N times 2 seconds; 0 means --timeout
        out| 
        out|       --timeout <SECONDS>
        out|           Stop waiting after this many seconds; 0 waits forever
        out|           
        out|           [default: 300]
        out| 
        out|   -h, --help
        out|           Print help (see a summary with '-h')
        out| 
        out| Options of every command, such as --endpoint and --json: `fleetctl --help`
        rc=0

        $ fleetctl restart -h
        out| Restart units where they are, and wait until they run
        out| 
        out| Usage: fleetctl restart [OPTIONS] [UNIT]...
        out| 
        out| Arguments:
        out|   [UNIT]...  The units; of a template all instances, of a global unit on every machine
        out| 
        out| Options:
        out|       --no-block            Do not wait until the units are as asked
        out|       --block-attempts <N>  Stop waiting after N times 2 seconds; 0 means --timeout
        out|       --timeout <SECONDS>   Stop waiting after this many seconds; 0 waits forever [default: 300]
        out|   -h, --help                Print help (see more with '--help')
        out| 
        out| Options of every command, such as --endpoint and --json: `fleetctl --help`
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
        out|       --no-block            Do not wait until the units are as asked
        out|       --block-attempts <N>  Stop waiting after N times 2 seconds; 0 means --timeout
        out|       --timeout <SECONDS>   Stop waiting after this many seconds; 0 waits forever [default: 300]
        out|   -h, --help                Print help (see more with '--help')
        out| 
        out| Options of every command, such as --endpoint and --json: `fleetctl --help`
        rc=0

        $ fleetctl unload -h
        out| Stop units and take them off their machines
        out| 
        out| Usage: fleetctl unload [OPTIONS] [UNIT]...
        out| 
        out| Arguments:
        out|   [UNIT]...  The units; of a scaled template all instances
        out| 
        out| Options:
        out|       --no-block            Do not wait until the units are as asked
        out|       --block-attempts <N>  Stop waiting after N times 2 seconds; 0 means --timeout
        out|       --timeout <SECONDS>   Stop waiting after this many seconds; 0 waits forever [default: 300]
        out|   -h, --help                Print help (see more with '--help')
        out| 
        out| Options of every command, such as --endpoint and --json: `fleetctl --help`
        rc=0

        $ fleetctl destroy -h
        out| Stop units and delete them from the cluster
        out| 
        out| Usage: fleetctl destroy [OPTIONS] [UNIT]...
        out| 
        out| Arguments:
        out|   [UNIT]...  The units; a scaled template goes with all its instances
        out| 
        out| Options:
        out|       --app <NAME>          An application: all of its units go
        out|       --volumes             Destroy volumes and all data in them: VOLUME, APP, VOLUME@MACHINE
        out|   -y, --yes                 Do not ask; --app and --volumes ask on a terminal, and need this
        out|                             elsewhere
        out|       --no-block            Do not wait until the units are as asked
        out|       --block-attempts <N>  Stop waiting after N times 2 seconds; 0 means --timeout
        out|       --timeout <SECONDS>   Stop waiting after this many seconds; 0 waits forever [default: 300]
        out|   -h, --help                Print help (see more with '--help')
        out| 
        out| Options of every command, such as --endpoint and --json: `fleetctl --help`
        rc=0

        $ fleetctl status --help
        out| Show systemd's status of units on the machines that run them
        out| 
        out| Exits with the status of the remote systemctl: 3 means that the unit does not run. A name without an
        out| ending may be an application's, where no service, container, pod or kube has it: all of it is shown
        out| on one screen.
        out| 
        out| Usage: fleetctl status [OPTIONS] [UNIT]...
        out| 
        out| Arguments:
        out|   [UNIT]...
        out|           The units
        out| 
        out| Options:
        out|       --app <NAME>
        out|           An application, also where a unit has that name
        out| 
        out|       --ssh-port <N>
        out|           Ask the machines over ssh on this TCP port, not through fleetd
        out| 
        out|   -h, --help
        out|           Print help (see a summary with '-h')
        out| 
        out| Options of every command, such as --endpoint and --json: `fleetctl --help`
        rc=0

        $ fleetctl journal -h
        out| Print a unit's log from all machines that run it
        out| 
        out| Usage: fleetctl journal [OPTIONS] [UNIT]...
        out| 
        out| Arguments:
        out|   [UNIT]...  The unit; of a template or a global unit all instances
        out| 
        out| Options:
        out|   -f, --follow           Keep printing new lines
        out|   -n, --lines <N>        How many of the newest lines to print first [default: 10]
        out|   -o, --output <FORMAT>  journalctl's output format: short, short-iso, cat, json… [default: short]
        out|       --ssh-port <N>     Ask the machines over ssh on this TCP port, not through fleetd
        out|       --sudo             With --ssh-port: read the journal as root
        out|   -h, --help             Print help (see more with '--help')
        out| 
        out| Options of every command, such as --endpoint and --json: `fleetctl --help`
        rc=0

        $ fleetctl cat -h
        out| Print a unit's file as submitted
        out| 
        out| Usage: fleetctl cat [OPTIONS] [UNIT]...
        out| 
        out| Arguments:
        out|   [UNIT]...  The unit
        out| 
        out| Options:
        out|       --revision <REVISION>  The text that it had as this revision, see `fleetctl list-revisions`
        out|   -h, --help                 Print help (see more with '--help')
        out| 
        out| Options of every command, such as --endpoint and --json: `fleetctl --help`
        rc=0

        $ fleetctl list-units -h
        out| List units and their state in systemd on each machine
        out| 
        out| Usage: fleetctl list-units [OPTIONS]
        out| 
        out| Options:
        out|   -l, --full            Do not shorten IDs and hashes
        out|       --no-legend       Do not print the column names
        out|       --fields <NAMES>  The columns: unit, load, active, sub, machine, hash, health, result,
        out|                         restarts, next, message [default: unit,machine,active,sub]
        out|   -h, --help            Print help (see more with '--help')
        out| 
        out| Options of every command, such as --endpoint and --json: `fleetctl --help`
        rc=0

        $ fleetctl list-unit-files -h
        out| List units in the cluster and their desired states
        out| 
        out| Usage: fleetctl list-unit-files [OPTIONS]
        out| 
        out| Options:
        out|   -l, --full            Do not shorten IDs and hashes
        out|       --no-legend       Do not print the column names
        out|       --fields <NAMES>  The columns: unit, hash, dstate, state, target, global, desc, replicas,
        out|                         running, revision, why [default: unit,hash,dstate,state,target]
        out|   -h, --help            Print help (see more with '--help')
        out| 
        out| Options of every command, such as --endpoint and --json: `fleetctl --help`
        rc=0

        $ fleetctl list-machines -h
        out| List the machines of the cluster
        out| 
        out| Usage: fleetctl list-machines [OPTIONS]
        out| 
        out| Options:
        out|   -l, --full            Do not shorten IDs and hashes
        out|       --no-legend       Do not print the column names
        out|       --fields <NAMES>  The columns: machine, ip, metadata, state, leader, version, instances,
        out|                         availability [default: machine,ip,metadata]
        out|   -h, --help            Print help (see more with '--help')
        out| 
        out| Options of every command, such as --endpoint and --json: `fleetctl --help`
        rc=0

        $ fleetctl version -h
        out| Print the version; with --json also fleetd's
        out| 
        out| Usage: fleetctl version
        out| 
        out| Options:
        out|   -h, --help  Print help (see more with '--help')
        out| 
        out| Options of every command, such as --endpoint and --json: `fleetctl --help`
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
        out|           Do not wait until the units are as asked
        out| 
        out|       --block-attempts <N>
        out|           Stop waiting after N times 2 seconds; 0 means --timeout
        out| 
        out|       --timeout <SECONDS>
        out|           Stop waiting after this many seconds; 0 waits forever
        out|           
        out|           [default: 300]
        out| 
        out|   -h, --help
        out|           Print help (see a summary with '-h')
        out| 
        out| Options of every command, such as --endpoint and --json: `fleetctl --help`
        rc=0
    "#]]
    .assert_eq(&said);
}

#[test]
fn a_prefix_means_what_it_meant_to_fleet_1_0() {
    let session = Session::new();
    let old = "cat destroy fd-forward help journal list-machines list-unit-files list-units load \
        restart ssh start status stop submit unload verify version";
    let old: Vec<&str> = old.split_whitespace().collect();
    for command in old.iter().filter(|command| **command != "help") {
        for prefix in (1..command.len()).map(|length| &command[..length]) {
            let said = session.run(&format!("{prefix} --help"));
            // What was ambiguous then was no command.
            if old.iter().filter(|other| other.starts_with(prefix)).count() == 1 {
                let usage = format!("out| Usage: fleetctl {command}");
                assert!(
                    [" ", "\n"].iter().any(|end| said.contains(&format!("{usage}{end}"))),
                    "{said}"
                );
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
        err| Error: unexpected argument "extra"
        err| Run 'fleetctl COMMAND --help' for usage.
        rc=2

        $ fleetctl --json
        err| Error: no command given
        err| Run 'fleetctl --help' for usage.
        rc=2
    "#]]
    .assert_eq(&said);
}
