//! The transcripts of fleet 1.0, command by command: what scripts expect. Where fleet 1.0 was
//! plainly wrong, ours differs.

use expect_test::expect;

use crate::session::{HELLO, Session};

#[test]
fn an_empty_cluster_prints_headers_and_the_refusals_of_fleet_1_0() {
    let said = Session::new().transcript(
        "list-machines
        list-machines --full --no-legend
        list-units
        list-unit-files
        list-units --fields=foo
        list-units --fields=
        submit
        load
        start
        stop
        unload
        destroy
        restart
        stop nosuch
        unload nosuch
        destroy nosuch
        restart nosuch
        cat nosuch
        journal nosuch
        status nosuch
        cat
        journal
        status",
    );
    expect![[r#"
        $ fleetctl list-machines
        out| MACHINE		IP		METADATA
        out| c2e1b518...	127.0.0.1	node=a
        rc=0

        $ fleetctl list-machines --full --no-legend
        out| c2e1b5180a5ec645aa037c911a0f20bb	127.0.0.1	node=a
        rc=0

        $ fleetctl list-units
        out| UNIT	MACHINE	ACTIVE	SUB
        rc=0

        $ fleetctl list-unit-files
        out| UNIT	HASH	DSTATE	STATE	TARGET
        rc=0

        $ fleetctl list-units --fields=foo
        err| Invalid key in output format: "foo"
        err| Hint: valid fields are unit,load,active,sub,machine,hash,health,result,restarts,next,message
        rc=1

        $ fleetctl list-units --fields=
        err| Must define output format
        rc=1

        $ fleetctl submit
        err| No units given
        rc=0

        $ fleetctl load
        err| No units given
        rc=0

        $ fleetctl start
        err| No units given
        rc=0

        $ fleetctl stop
        err| No units given
        rc=0

        $ fleetctl unload
        err| No units given
        rc=0

        $ fleetctl destroy
        err| No units given
        rc=0

        $ fleetctl restart
        err| No units given
        rc=0

        $ fleetctl stop nosuch
        err| Units not found in registry
        rc=0

        $ fleetctl unload nosuch
        err| Units not found in registry
        rc=0

        $ fleetctl destroy nosuch
        err| Units not found in registry
        rc=0

        $ fleetctl restart nosuch
        err| Error creating units: unable to find Unit(nosuch.service) in Registry or on filesystem
        err| Hint: looked for nosuch.service in this directory; `fleetctl list-unit-files` shows what the cluster has
        rc=1

        $ fleetctl cat nosuch
        err| Unit nosuch.service not found
        err| Hint: `fleetctl list-unit-files` shows what the cluster has
        rc=1

        $ fleetctl journal nosuch
        err| Unit nosuch.service does not exist.
        err| Hint: `fleetctl list-unit-files` shows what the cluster has
        rc=1

        $ fleetctl status nosuch
        err| Unit nosuch.service does not exist.
        err| Hint: `fleetctl list-unit-files` shows what the cluster has
        rc=1

        $ fleetctl cat
        err| One unit file must be provided
        rc=1

        $ fleetctl journal
        err| One unit file must be provided.
        rc=1

        $ fleetctl status
        rc=0
    "#]]
    .assert_eq(&said);
}

#[test]
fn a_unit_goes_through_its_life_in_the_words_of_fleet_1_0() {
    let session = Session::new();
    session
        .file("hello.service", HELLO.replace("Hello World", "Hello"))
        .file("v2/hello.service", HELLO);
    let said = session.transcript(
        "submit hello.service
        submit hello.service
        submit v2/hello.service
        submit --replace v2/hello.service
        submit --replace v2/hello.service
        cat hello
        list-unit-files
        stop hello
        restart hello
        load hello.service
        list-units
        start hello.service
        start hello.service
        list-units --full --no-legend --fields=unit,load,active,sub,machine,hash
        list-unit-files --fields=unit,hash,dstate,state,target,tmachine,global,desc
        submit --replace hello.service
        restart hello
        stop hello
        stop hello
        start --no-block hello
        stop --no-block hello
        unload hello
        unload hello
        destroy hello
        destroy hello",
    );
    expect![[r#"
        $ fleetctl submit hello.service
        out| Unit hello.service inactive
        rc=0

        $ fleetctl submit hello.service
        rc=0

        $ fleetctl submit v2/hello.service
        err| WARNING: Unit hello.service in registry differs from local unit file v2/hello.service. Add --replace to override.
        rc=0

        $ fleetctl submit --replace v2/hello.service
        out| Unit hello.service inactive
        rc=0

        $ fleetctl submit --replace v2/hello.service
        out| Found same Unit(hello.service) in Registry, nothing to do
        rc=0

        $ fleetctl cat hello
        out| [Unit]
        out| Description=Hello World
        out| 
        out| [Service]
        out| ExecStart=/bin/bash -c "while true; do echo Hello, World!; sleep 2; done"
        rc=0

        $ fleetctl list-unit-files
        out| UNIT		HASH	DSTATE		STATE		TARGET
        out| hello.service	1253888	inactive	inactive	-
        rc=0

        $ fleetctl stop hello
        err| Unable to stop unit hello.service in state inactive
        rc=1

        $ fleetctl restart hello
        err| WARNING: Unit hello.service in registry differs from local unit file hello.service. Add --replace to override.
        err| Unable to restart unit hello.service in state inactive
        err| Hint: fleetctl start hello.service
        rc=0

        $ fleetctl load hello.service
        out| Unit hello.service loaded on c2e1b518.../127.0.0.1
        err| WARNING: Unit hello.service in registry differs from local unit file hello.service. Add --replace to override.
        rc=0

        $ fleetctl list-units
        out| UNIT		MACHINE			ACTIVE		SUB
        out| hello.service	c2e1b518.../127.0.0.1	inactive	dead
        rc=0

        $ fleetctl start hello.service
        out| Unit hello.service launched on c2e1b518.../127.0.0.1
        err| WARNING: Unit hello.service in registry differs from local unit file hello.service. Add --replace to override.
        rc=0

        $ fleetctl start hello.service
        err| WARNING: Unit hello.service in registry differs from local unit file hello.service. Add --replace to override.
        rc=0

        $ fleetctl list-units --full --no-legend --fields=unit,load,active,sub,machine,hash
        out| hello.service	loaded	active	running	c2e1b5180a5ec645aa037c911a0f20bb/127.0.0.1	12538882634ecdba3dc6ddab70473ebc073de4e7
        rc=0

        $ fleetctl list-unit-files --fields=unit,hash,dstate,state,target,tmachine,global,desc
        out| UNIT		HASH	DSTATE		STATE		TARGET			TMACHINE		GLOBAL	DESC
        out| hello.service	1253888	launched	launched	c2e1b518.../127.0.0.1	c2e1b518.../127.0.0.1	false	Hello World
        err| WARNING: The "tmachine" field is deprecated. Use "target" instead
        rc=0

        $ fleetctl submit --replace hello.service
        err| Warning: can not replace Unit(hello.service) in state 'launched', use the appropriate command
        rc=0

        $ fleetctl restart hello
        out| Unit hello.service launched on c2e1b518.../127.0.0.1
        err| WARNING: Unit hello.service in registry differs from local unit file hello.service. Add --replace to override.
        err| Unit(hello.service) was restarted.
        rc=0

        $ fleetctl stop hello
        out| Unit hello.service loaded on c2e1b518.../127.0.0.1
        err| Successfully stopped units [hello.service].
        rc=0

        $ fleetctl stop hello
        err| Successfully stopped units [].
        rc=0

        $ fleetctl start --no-block hello
        out| Triggered unit hello.service start
        err| WARNING: Unit hello.service in registry differs from local unit file hello.service. Add --replace to override.
        rc=0

        $ fleetctl stop --no-block hello
        out| Triggered unit hello.service stop
        err| Successfully stopped units [hello.service].
        rc=0

        $ fleetctl unload hello
        out| Unit hello.service inactive
        err| Successfully unloaded units [hello.service].
        rc=0

        $ fleetctl unload hello
        err| Successfully unloaded units [].
        rc=0

        $ fleetctl destroy hello
        out| Destroyed hello.service
        rc=0

        $ fleetctl destroy hello
        err| Units not found in registry
        rc=0
    "#]].assert_eq(&said);
    assert_eq!(session.fake.cluster().restarts, ["hello.service"]);
}

#[test]
fn files_that_cannot_work_are_refused_and_change_nothing() {
    let session = Session::new();
    session
        .file("inval.service", "[X-Fleet]\nMachineID=x\nGlobal=true\n")
        .file("garb.service", "[Service]\ngarbage\n");
    session
        .file("empty.service", "")
        .file("binary.service", b"[Service]\nA=\xff\n")
        .file("nul.service", "[Service]\nA=\0\n");
    session.file("huge.service", "#".repeat(2 << 20)).file("good.service", HELLO);
    let said = session.transcript(
        "submit inval.service
        submit garb.service
        submit empty.service
        submit binary.service
        submit nul.service
        submit huge.service
        submit nofile.service
        submit no:such!name
        start good.service garb.service",
    );
    expect![[r#"
        $ fleetctl submit inval.service
        err| Error creating units: MachineID cannot be used with Global
        err| Hint: inval.service:2: MachineID=x
        err| Hint: inval.service:3: Global=true
        rc=1

        $ fleetctl submit garb.service
        err| Error creating units: garb.service:2: "garbage" is neither a section, a comment nor a Name=Value option
        rc=1

        $ fleetctl submit empty.service
        err| Error creating units: empty.service: the unit file has no options; it needs at least a section and one Name=Value line
        rc=1

        $ fleetctl submit binary.service
        err| Error creating units: binary.service:2: this is not UTF-8 text
        rc=1

        $ fleetctl submit nul.service
        err| Error creating units: nul.service:2: a NUL byte: this is not a text file
        rc=1

        $ fleetctl submit huge.service
        err| Error creating units: huge.service: the unit file is too large; the limit is 1048576 bytes (1 MiB)
        rc=1

        $ fleetctl submit nofile.service
        err| Error creating units: unable to find Unit(nofile.service) in Registry or on filesystem
        err| Hint: looked for nofile.service in this directory; `fleetctl list-unit-files` shows what the cluster has
        rc=1

        $ fleetctl submit no:such!name
        err| Error creating units: invalid character '!' in unit name
        err| Hint: "no:such!name" is not the name of a unit
        rc=1

        $ fleetctl start good.service garb.service
        err| Error creating units: garb.service:2: "garbage" is neither a section, a comment nor a Name=Value option
        rc=1
    "#]].assert_eq(&said);
    assert!(session.fake.cluster().units.is_empty());
}

#[test]
fn an_unknown_option_of_x_fleet_is_a_warning() {
    let session = Session::new();
    session.file("badopt.service", "[Service]\nExecStart=/bin/x\n[X-Fleet]\nConflict=a.service\n");
    expect![[r#"
        $ fleetctl submit badopt.service
        out| Unit badopt.service inactive
        err| WARNING: Unit badopt.service: line 4: unrecognized requirement in [X-Fleet] section: "Conflict"; did you mean "Conflicts"?
        rc=0
    "#]].assert_eq(&session.run("submit badopt.service"));
}

#[test]
fn global_units_are_triggered_and_then_waited_for() {
    let session = Session::new();
    session.file("glob.service", "[Service]\nExecStart=/bin/x\n[X-Fleet]\nGlobal=true\n");
    let said = session.transcript(
        "start glob.service
        list-units
        list-unit-files
        restart glob
        status glob
        journal glob
        stop glob
        status glob
        restart glob
        start glob
        unload glob
        destroy glob",
    );
    expect![[r#"
        $ fleetctl start glob.service
        out| Unit glob.service 
        out| Triggered global unit glob.service start
        rc=0

        $ fleetctl list-units
        out| UNIT		MACHINE			ACTIVE	SUB
        out| glob.service	c2e1b518.../127.0.0.1	active	running
        rc=0

        $ fleetctl list-unit-files
        out| UNIT		HASH	DSTATE		STATE	TARGET
        out| glob.service	1c79c8c	launched	-	global
        rc=0

        $ fleetctl restart glob
        out| Triggered global unit glob.service restart
        err| Unit(glob.service) was restarted.
        rc=0

        $ fleetctl status glob
        out| ● glob.service
        out|      Active: active
        rc=0

        $ fleetctl journal glob
        out| Nov 22 21:33:16 host glob.service: hello
        rc=0

        $ fleetctl stop glob
        out| Triggered global unit glob.service stop
        err| Successfully stopped units [].
        rc=0

        $ fleetctl status glob
        out| ● glob.service
        out|      Active: inactive
        rc=3

        $ fleetctl restart glob
        out| Triggered global unit glob.service restart
        err| Unit(glob.service) was restarted.
        rc=0

        $ fleetctl start glob
        rc=0

        $ fleetctl unload glob
        out| Triggered global unit glob.service unload
        err| Successfully unloaded units [].
        rc=0

        $ fleetctl destroy glob
        out| Destroyed glob.service
        rc=0
    "#]]
    .assert_eq(&said);
}

#[test]
fn an_instance_takes_the_file_of_its_template() {
    let session = Session::new();
    session.file("s@.service", "[Service]\nExecStart=/bin/sleep 1000\n");
    let said = session.transcript(
        "start s@7
        submit s@.service
        start s@1
        list-unit-files
        start s@
        destroy s@1 s@",
    );
    expect![[r#"
        $ fleetctl start s@7
        out| Unit s@7.service inactive
        out| Unit s@7.service launched on c2e1b518.../127.0.0.1
        rc=0

        $ fleetctl submit s@.service
        out| Unit s@.service inactive
        rc=0

        $ fleetctl start s@1
        out| Unit s@1.service inactive
        out| Unit s@1.service launched on c2e1b518.../127.0.0.1
        rc=0

        $ fleetctl list-unit-files
        out| UNIT		HASH	DSTATE		STATE		TARGET
        out| s@.service	2d432f4	inactive	inactive	-
        out| s@1.service	2d432f4	launched	launched	c2e1b518.../127.0.0.1
        out| s@7.service	2d432f4	launched	launched	c2e1b518.../127.0.0.1
        rc=0

        $ fleetctl start s@
        err| Error starting units: cannot activate template "s@.service"
        err| Hint: a template runs as instances: `fleetctl scale web=3` keeps three, `fleetctl start web@1` starts one
        rc=1

        $ fleetctl destroy s@1 s@
        out| Destroyed s@1.service
        out| Destroyed s@.service
        rc=0
    "#]]
    .assert_eq(&said);
}

#[test]
fn a_version_and_endpoints_that_cannot_be() {
    let said = Session::new().transcript(
        "version
        --version
        -v
        version --json
        --endpoint http://127.0.0.1:1 list-units
        --endpoint http://127.0.0.1:1 list-machines
        --endpoint foo list-units
        --endpoint unix://var/run/x list-units
        --endpoint unix:///nonexistent/fleet.sock list-units
        --driver bogus list-units
        --driver=etcd list-units
        --tunnel=10.0.0.1:x stop hello",
    );
    expect![[r#"
        $ fleetctl version
        out| fleetctl version v2.0.0-alpha.1
        rc=0

        $ fleetctl --version
        out| fleetctl version v2.0.0-alpha.1
        rc=0

        $ fleetctl -v
        out| fleetctl version v2.0.0-alpha.1
        rc=0

        $ fleetctl version --json
        out| {
        out|   "fleetctl": "2.0.0-alpha.1",
        out|   "fleetd": "2.0.0"
        out| }
        rc=0

        $ fleetctl --endpoint http://127.0.0.1:1 list-units
        err| Error retrieving list of units from repository: GET http://127.0.0.1:1/fleet/v1/state: connection refused
        err| Hint: is fleetd listening there? Name one or several machines with --endpoint=http://HOST:PORT,http://HOST2:PORT
        rc=1

        $ fleetctl --endpoint http://127.0.0.1:1 list-machines
        err| Error retrieving list of active machines from fleet API (GET http://127.0.0.1:1/fleet/v1/machines: connection refused)
        err| Possible issues:
        err|   etcd is unhealthy and/or lost quorum
        err|   connection cannot be established to any etcd servers
        err| Hint: is fleetd listening there? Name one or several machines with --endpoint=http://HOST:PORT,http://HOST2:PORT
        rc=1

        $ fleetctl --endpoint foo list-units
        err| Unable to initialize client: URL scheme undefined
        err| Hint: write unix:///run/fleet.sock, https://HOST:PORT or http://HOST:PORT
        rc=1

        $ fleetctl --endpoint unix://var/run/x list-units
        err| Unable to initialize client: unable to connect to host "var" with scheme "unix"
        err| Hint: a socket's path starts with a third slash: unix:///var/run/x
        rc=1

        $ fleetctl --endpoint unix:///nonexistent/fleet.sock list-units
        err| Error retrieving list of units from repository: GET unix:///nonexistent/fleet.sock/fleet/v1/state: no such file or directory
        err| Hint: is fleetd running on this machine? See `systemctl status fleetd`, or name another machine with --endpoint=http://HOST:PORT
        rc=1

        $ fleetctl --driver bogus list-units
        err| Unable to initialize client: unrecognized driver "bogus"
        rc=1

        $ fleetctl --driver=etcd list-units
        err| Unable to initialize client: the driver "etcd" is gone: only fleetd talks to the store
        err| Hint: name a fleetd with --endpoint
        rc=1

        $ fleetctl --tunnel=10.0.0.1:x stop hello
        err| Error: "10.0.0.1:x" is not a host for ssh
        err| Hint: write HOST, HOST:PORT or USER@HOST:PORT
        rc=2
    "#]].assert_eq(&said);
}

#[test]
fn retired_options_are_taken_with_a_warning() {
    let said = Session::new().transcript(
        "--driver=API --experimental-api --etcd-key-prefix /x --request-timeout=3 \
            --strict-host-key-checking=false list-units
        list-units --no-legend=true --full=false
        submit --sign
        --request-timeout=1.0 --etcd-cafile=x --etcd-certfile=x --etcd-keyfile=x list-units \
        --no-legend
        status --no-block
        list-u --l
        list-units --l
        list-units -l
        bogus
        --bogus list-units",
    );
    expect![[r#"
        $ fleetctl --driver=API --experimental-api --etcd-key-prefix /x --request-timeout=3 --strict-host-key-checking=false list-units
        out| UNIT	MACHINE	ACTIVE	SUB
        err| WARNING: --driver no longer has any effect
        err| WARNING: --etcd-key-prefix no longer has any effect
        err| WARNING: --request-timeout no longer has any effect
        err| WARNING: --experimental-api no longer has any effect
        rc=0

        $ fleetctl list-units --no-legend=true --full=false
        rc=0

        $ fleetctl submit --sign
        err| WARNING: --sign no longer has any effect
        err| No units given
        rc=0

        $ fleetctl --request-timeout=1.0 --etcd-cafile=x --etcd-certfile=x --etcd-keyfile=x list-units --no-legend
        err| WARNING: --request-timeout no longer has any effect
        err| WARNING: --etcd-cafile no longer has any effect
        err| WARNING: --etcd-certfile no longer has any effect
        err| WARNING: --etcd-keyfile no longer has any effect
        rc=0

        $ fleetctl status --no-block
        err| WARNING: --no-block does nothing: status does not wait
        rc=0

        $ fleetctl list-u --l
        err| Error: unknown command "list-u" for "fleetctl"
        err| Run 'fleetctl --help' for usage.
        err| Hint: did you mean list-revisions, list-machines, list-unit-files, list-units?
        rc=2

        $ fleetctl list-units --l
        out| UNIT	MACHINE	ACTIVE	SUB
        rc=0

        $ fleetctl list-units -l
        out| UNIT	MACHINE	ACTIVE	SUB
        rc=0

        $ fleetctl bogus
        err| Error: unknown command "bogus" for "fleetctl"
        err| Run 'fleetctl --help' for usage.
        rc=2

        $ fleetctl --bogus list-units
        err| Error: unknown flag: --bogus
        err| Run 'fleetctl COMMAND --help' for usage.
        rc=2
    "#]].assert_eq(&said);
}
