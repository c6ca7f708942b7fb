//! Files in, settings or complaints out.

use super::*;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new(files: &[(&str, &str)]) -> Folder {
        let folder = Folder(tempfile::tempdir().unwrap());
        for (name, text) in files {
            let path = folder.0.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        folder
    }

    fn load(&self, environment: &[(&str, &str)]) -> Result<(Settings, Vec<String>), ConfigError> {
        let (fleet1, main) = (self.0.path().join("fleet.conf"), self.0.path().join("fleetd.conf"));
        load(
            &Places { fleet1: Some(fleet1), main, named: false, user: false },
            &variables_of(environment),
        )
    }

    fn named(&self, name: &str) -> Result<(Settings, Vec<String>), ConfigError> {
        load(
            &Places::new(Some(&self.0.path().join(name)), false, &Environment::new()),
            &Environment::new(),
        )
    }

    /// Without the folder's own name.
    fn plain(&self, said: &[String]) -> String {
        said.join("\n").replace(&format!("{}/", self.0.path().display()), "")
    }

    fn errors(&self, environment: &[(&str, &str)]) -> String {
        self.plain(&self.load(environment).unwrap_err().problems)
    }
}

fn variables_of(list: &[(&str, &str)]) -> Environment {
    list.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

/// The settings of one file of ours.
fn settings(text: &str) -> Settings {
    Folder::new(&[("fleetd.conf", text)]).load(&[]).unwrap().0
}

fn errors(text: &str) -> String {
    Folder::new(&[("fleetd.conf", text)]).errors(&[])
}

#[test]
fn nothing_configured_is_one_machine_with_an_embedded_store() {
    let settings = settings("");
    assert!(settings.etcd_servers.is_empty() && settings.listen.is_empty());
    assert_eq!((settings.agent_ttl.as_secs(), settings.leader_ttl.as_secs()), (10, 3));
    assert_eq!(settings.key_prefix, "/fleet/");
}

#[test]
fn a_key_and_a_password_that_everybody_may_read_are_warned_of() {
    let text = "etcd_servers = [\"http://10.0.0.1:2379\"]\netcd_username = \"me\"\netcd_password \
        = \"x\"\netcd_keyfile = \"KEY\"\n";
    let folder = Folder::new(&[("key.pem", "no key")]);
    let (key, main) = (folder.0.path().join("key.pem"), folder.0.path().join("fleetd.conf"));
    std::fs::write(&main, text.replace("KEY", &key.display().to_string())).unwrap();
    let warned = |mode: u32| {
        for file in [&key, &main] {
            std::fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(mode))
                .unwrap();
        }
        folder.plain(
            &folder
                .load(&[])
                .unwrap()
                .1
                .into_iter()
                .filter(|said| said.contains("chmod"))
                .collect::<Vec<_>>(),
        )
    };
    expect_test::expect![[r#"
        fleetd.conf:4: etcd_keyfile: key.pem has mode 0644, so everybody on this machine may read it; chmod 600 key.pem
        fleetd.conf:3: etcd_password: fleetd.conf has mode 0644, so everybody on this machine may read it; chmod 600 fleetd.conf"#]]
    .assert_eq(&warned(0o644));
    assert_eq!([warned(0o600), warned(0o640)], ["", ""]);
}

/// The sample that fleet 1.0 came with, its lines in force.
const FLEET1: &str = r#"# The default verbosity
verbosity=1
etcd_servers=["http://10.0.0.1:2379", "http://10.0.0.2:2379"]
etcd_request_timeout=1.5
etcd_cafile=""
etcd_key_prefix=/_coreos.com/fleet/
public_ip=10.0.0.7
metadata="region=us-west,az=us-west-1"
agent_ttl="30s"
engine_reconcile_interval=2
authorized_keys_file=~/.ssh/authorized_keys
units_directory=/run/units/
disable_engine=true
token_limit=100
enable_grpc=false
disable_watches=false
verify_units=false
systemd_user=false
"#;

#[test]
fn fleet_1_0_s_file_means_what_it_meant() {
    let folder = Folder::new(&[("fleet.conf", FLEET1)]);
    let (settings, warnings) = folder.load(&[]).unwrap();
    assert_eq!(settings.etcd_servers, ["http://10.0.0.1:2379", "http://10.0.0.2:2379"]);
    assert_eq!(settings.etcd_request_timeout, Duration::from_millis(1500));
    assert_eq!(
        (settings.key_prefix.as_str(), settings.public_ip.as_str()),
        ("/_coreos.com/fleet/", "10.0.0.7")
    );
    assert_eq!((settings.metadata["az"].as_str(), settings.agent_ttl.as_secs()), ("us-west-1", 30));
    assert_eq!(
        (settings.unit_dir.to_str().unwrap(), settings.log.as_str()),
        ("/run/units/", "info,fleetd=debug,fleet_core=debug,fleet_tls=debug")
    );
    assert!(settings.disable_engine && settings.etcd_tls.is_empty());
    expect_test::expect![[r#"
        fleet.conf:2: verbosity is fleet 1.0's word; write log = "info,fleetd=debug" or log = "info"
        fleet.conf:10: engine_reconcile_interval does nothing any more: the engine looks whenever something changes; remove it
        fleet.conf:11: authorized_keys_file does nothing any more: units are not signed; remove it
        fleet.conf:14: token_limit does nothing any more: a list has pages of any size; a request names its own with pageSize; remove it
        fleet.conf:15: enable_grpc does nothing any more: reports go through the store, one document a machine; remove it
        fleet.conf:16: disable_watches does nothing any more: the store's watches are what wakes fleetd; remove it
        fleet.conf:17: verify_units does nothing any more: units are not signed; remove it"#]]
    .assert_eq(&folder.plain(&warnings));
}

#[test]
fn fleet_1_0_s_flag_names_a_file_of_either_form() {
    let folder = Folder::new(&[
        ("old", "public_ip=10.0.0.7\nmetadata=a=b\n"),
        ("new", "public_ip = \"10.0.0.8\"\n"),
    ]);
    let (old, warnings) = folder.named("old").unwrap();
    assert_eq!((old.public_ip.as_str(), old.metadata["a"].as_str()), ("10.0.0.7", "b"));
    // Its default for etcd comes with its file.
    assert_eq!(old.etcd_servers, ["http://127.0.0.1:2379"]);
    // So does its folder for units: systemd calls them linked-runtime, as it did.
    assert_eq!(old.unit_dir.to_str(), Some("/run/fleet/units/"));
    assert!(warnings[0].starts_with("etcd_servers: not given"), "{warnings:?}");
    let (new, warnings) = folder.named("new").unwrap();
    assert_eq!(
        (new.public_ip.as_str(), new.etcd_servers.len(), warnings.len()),
        ("10.0.0.8", 0, 0)
    );
    assert_eq!(new.unit_dir.to_str(), Some("/run/systemd/system"));
    assert!(folder.named("neither").unwrap_err().to_string().contains("No such file"));
}

#[test]
fn later_layers_win() {
    let folder = Folder::new(&[
        (
            "fleet.conf",
            "metadata=\"from=fleet1\"\npublic_ip=10.0.0.1\nagent_ttl=20s\nleader_ttl=4\nlog=debug\netcd_servers=\n",
        ),
        (
            "fleetd.conf",
            "metadata = \"from=main\"\npublic_ip = \"10.0.0.2\"\nagent_ttl = 21\nleader_ttl = 5\n",
        ),
        ("fleetd.conf.d/20-b.toml", "public_ip = \"10.0.0.4\"\n"),
        (
            "fleetd.conf.d/10-a.toml",
            "public_ip = \"10.0.0.3\"\nagent_ttl = 22\n[metadata]\nfrom = \"drop-in\"\n",
        ),
        ("fleetd.conf.d/30-not.conf", "nonsense"),
    ]);
    let (settings, _) =
        folder.load(&[("FLEET_METADATA", "from=env"), ("FLEET_LAB_CACHE", "x")]).unwrap();
    assert_eq!(settings.metadata["from"], "env");
    assert_eq!(settings.public_ip, "10.0.0.4");
    assert_eq!((settings.agent_ttl.as_secs(), settings.leader_ttl.as_secs()), (22, 5));
    assert_eq!((settings.log.as_str(), settings.etcd_servers.len()), ("debug", 0));
}

#[test]
fn an_empty_text_is_none_and_an_empty_list_is_one() {
    let all = "agent_ttl=\nverbosity=\ndisable_engine=\npublic_ip=\"\"\nunits_directory=\ntoken_limit=\netcd_servers=\n";
    let folder = Folder::new(&[("fleet.conf", all)]);
    let empty = options::OPTIONS
        .iter()
        .map(|option| format!("FLEET_{}", option.to_uppercase()))
        .collect::<Vec<_>>();
    let empty: Vec<(&str, &str)> = empty.iter().map(|variable| (variable.as_str(), "")).collect();
    let mut none = Folder::new(&[]).load(&[]).unwrap().0;
    none.unit_dir = PathBuf::from("/run/fleet/units/"); // the default that comes with fleet 1.0's file
    for environment in [&[][..], &empty] {
        let (settings, warnings) = folder.load(environment).unwrap();
        assert_eq!((settings, warnings.len()), (none.clone(), 0), "{warnings:?}");
    }
    let given = "public_ip = \"10.0.0.1\"\nlisten = [\"http://127.0.0.1:4100\"]\nmetadata = \
        \"a=b\"\nagent_ttl = 20\n";
    let (settings, _) = Folder::new(&[("fleetd.conf", given)]).load(&empty).unwrap();
    assert_eq!((settings.public_ip.as_str(), settings.agent_ttl.as_secs()), ("10.0.0.1", 20));
    assert!(settings.listen.is_empty() && settings.metadata.is_empty());
    // In our own files it is a slip.
    assert!(errors("agent_ttl = \"\"").contains("agent_ttl: expected seconds"));
}

#[test]
fn every_problem_is_named_with_its_place() {
    let folder = Folder::new(&[
        ("fleet.conf", "metdata=a=b\nagent_ttl=\"soon\"\n"),
        (
            "fleetd.conf",
            "public_ip = \"10.0.0.1\"\n\nlisten = [\"http://0.0.0.0:4100\", \
                \"here\"]\netcd_server = [\"x\"]\n",
        ),
        (
            "fleetd.conf.d/10.toml",
            "disable_engine = \"perhaps\"\nunits_directory = \"run/units\"\n",
        ),
        ("fleetd.conf.d/20.toml", "log = \n"),
        (
            "fleetd.conf.d/30.toml",
            "tls_cafile = \"/nowhere/ca.pem\"\ntls_certfile = \"/nowhere/cert.pem\"\n",
        ),
    ]);
    let error = folder
        .load(&[("FLEET_ETCD_REQUEST_TIMEOUT", "100"), ("FLEET_METADTA", "a=b")])
        .unwrap_err();
    expect_test::expect![[r#"
        fleetd.conf:4: there is no option "etcd_server"; did you mean etcd_servers?
        fleetd.conf.d/20.toml:1: string values must be quoted, expected literal string
        fleetd.conf:3: listen: "here" is not of the form https://ADDRESS:PORT or http://ADDRESS:PORT
        fleetd.conf:3: listen: http://0.0.0.0:4100: plain HTTP lets anybody who reaches it run anything as root here; use the unix socket alone, or https with tls_cafile, tls_certfile and tls_keyfile, or set insecure = true if they all may
        fleetd.conf.d/30.toml:1: tls_cafile: /nowhere/ca.pem: no such file; put it there, or name another
        $FLEET_ETCD_REQUEST_TIMEOUT: etcd_request_timeout: 100 is not from 0.05 to 60 seconds
        fleet.conf:2: agent_ttl: expected seconds, as 30 or "30s" or "1m30s"
        fleetd.conf.d/10.toml:2: units_directory: "run/units" is not an absolute path
        fleetd.conf.d/10.toml:1: disable_engine: expected true or false"#]]
    .assert_eq(&folder.plain(&error.problems));
    expect_test::expect![[r#"
        fleet.conf:1: there is no option "metdata"; did you mean metadata?
        $FLEET_METADTA: there is no option "metadta"; did you mean metadata?
        etcd_servers: not given, so http://127.0.0.1:2379, fleet 1.0's default, holds; name it"#]]
    .assert_eq(&folder.plain(&error.warnings));
}

#[test]
fn an_open_listener_needs_the_word_insecure_unless_it_asks_for_certificates() {
    assert!(errors("listen = [\"http://0.0.0.0:4100\"]").contains("insecure = true"));
    assert!(
        errors("listen = [\"https://0.0.0.0:4100\"]").contains("asks nobody for a certificate")
    );
    for loopback in ["http://127.0.0.1:4100", "http://[::1]:4100", "https://127.0.0.1:4100"] {
        let refused = errors(&format!("listen = [{loopback:?}]"));
        assert!(refused.contains("every user and every program of this machine"), "{refused}");
        assert!(refused.contains("insecure = true"), "{refused}");
    }
    let open = settings("listen = [\"http://0.0.0.0:4100\"]\ninsecure = true");
    assert_eq!(open.api_url("10.0.0.7").unwrap(), "http://10.0.0.7:4100");
    assert_eq!(open.api_url("fd00::7").unwrap(), "http://[fd00::7]:4100");
}

#[test]
fn a_public_ip_is_an_address_and_nothing_that_ssh_could_take_for_an_option() {
    for bad in ["-oProxyCommand=touch /tmp/x", "core@10.0.0.1", "10.0.0.1:22", "$(id)"] {
        let said = errors(&format!("# one\npublic_ip = {bad:?}"));
        let expected = format!(
            "fleetd.conf:2: public_ip: {bad:?} is no address; write an IP address, or a host name"
        );
        assert_eq!(said, expected);
    }
    assert_eq!(settings("public_ip = \"h1.example.com\"").public_ip, "h1.example.com");
}

#[test]
fn a_socket_that_systemd_hands_over_is_where_others_reach_the_api() {
    let handed = |address: &str| Listen { address: address.parse().unwrap(), tls: false };
    let mut settings = settings("");
    assert_eq!(settings.api_url("10.0.0.7"), None);
    settings.handed = vec![handed("127.0.0.1:1"), handed("[::]:49153")];
    assert_eq!(settings.api_url("10.0.0.7").as_deref(), Some("http://10.0.0.7:49153"));
    // A reload keeps what only a start finds out; what listen names goes first.
    let new = self::settings("metadata = \"a=b\"").with_fixed_options_of(&settings);
    assert_eq!(new.handed, settings.handed);
    settings.listen = vec![handed("10.0.0.8:4100")];
    assert_eq!(settings.api_url("10.0.0.7").as_deref(), Some("http://10.0.0.8:4100"));
}

#[test]
fn leases_have_limits() {
    assert!(
        errors("agent_ttl = 1").contains("agent_ttl: 1 s is not from 2 s (etcd grants no less)")
    );
    assert!(errors("leader_ttl = \"2h\"").contains("fleetd.conf:1: leader_ttl: 7200 s"));
}

#[test]
fn etcd_over_tls_wants_files_that_are_there() {
    let said =
        errors("etcd_servers = [\"https://10.0.0.1:2379\"]\netcd_cafile = \"/nowhere/ca.pem\"");
    assert!(said.contains("fleetd.conf:2: etcd_cafile: /nowhere/ca.pem: no such file"), "{said}");
    let said = errors("etcd_servers = [\"10.0.0.1:2379\"]");
    assert!(
        said.contains("fleetd.conf:1: etcd_servers: \"10.0.0.1:2379\" is not of the form"),
        "{said}"
    );
}

#[test]
fn a_user_s_fleetd_keeps_to_the_user_s_folders() {
    let variables = [("HOME", "/home/u"), ("XDG_RUNTIME_DIR", "/run/user/1000")];
    let folder = Folder::new(&[("fleetd.conf", "systemd_user = true")]);
    let (settings, _) = folder.load(&variables).unwrap();
    let paths = [&settings.socket, &settings.run_dir, &settings.unit_dir, &settings.data_dir]
        .map(|path| path.to_str().unwrap());
    assert_eq!(
        paths.join(" "),
        "/run/user/1000/fleet.sock /run/user/1000/fleet /run/user/1000/systemd/user \
            /home/u/.local/state/fleet"
    );
    assert!(folder.errors(&[]).contains("XDG_RUNTIME_DIR is not set"));
    let places = Places::new(None, true, &variables_of(&variables));
    assert_eq!(places.main.to_str(), Some("/home/u/.config/fleet/fleetd.conf"));
}

#[test]
fn what_a_reload_cannot_change_is_named() {
    let (old, new) = (
        settings(""),
        settings(
            "insecure = true\nlisten = [\"http://127.0.0.1:1\"]\nmetadata = \"a=b\"\nrun_dir = \
                \"/x\"",
        ),
    );
    assert_eq!(old.fixed_options_changed(&new), ["listen", "run_dir"]);
    assert!(old.fixed_options_changed(&settings("agent_ttl = 20\nlog = \"debug\"")).is_empty());
}
