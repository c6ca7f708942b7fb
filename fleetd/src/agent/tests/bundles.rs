//! What comes with units of an application: files, networks and volumes, the containers of pods.

use fleet_core::app::{AppName, Bundle, BundleRef, Checksum, FileEntry};

use super::*;
use crate::systemd::quadlet::Generator;

/// As podman's generator, for the few lines that these tests have: each file becomes a service of
/// the text that it is. It counts its runs.
const GENERATOR: &str = r#"D=${QUADLET_UNIT_DIRS%%:*}
echo run >> "$0.runs"
for file in "$D"/*.*; do
    name=${file##*/} stem=${file##*/}
    stem=${stem%.*}
    case $name in
        *.container) service=$stem.service ;;
        *.pod | *.network | *.volume | *.build) service=$stem-${name##*.}.service ;;
        *) continue ;;
    esac
    printf '%s\n' "---$service---" '[Unit]' "SourcePath=$file"
    sed "s|\./|$D/|" "$file"
done
"#;

const NETWORK: &str = "[Service]\nType=oneshot\nRemainAfterExit=yes\n\
    ExecStart=/usr/bin/podman network create --ignore systemd-app\n";
const VOLUME: &str = "[Service]\nType=oneshot\nRemainAfterExit=yes\n\
    ExecStart=/usr/bin/podman volume create --ignore systemd-data\n";
const WEB: &str = "[Unit]\nRequires=app-network.service data-volume.service\n\
    After=app-network.service data-volume.service\n\
    [Service]\nExecStart=/bin/web -v ./nginx.conf\nRestart=always\n";

struct App {
    host: Host,
    app: AppName,
}

impl App {
    async fn new() -> App {
        let mut app = App { host: Host::new().await, app: AppName::parse("shop").unwrap() };
        let generator = app.host.folder.path().join("quadlet");
        // Written by another process: one that a process of ours still has open cannot be run.
        let recipe = format!(
            "cat > '{0}' <<'END' && chmod +x '{0}'\n#!/bin/sh\n{GENERATOR}\nEND\n",
            generator.display()
        );
        assert!(std::process::Command::new("sh").args(["-c", &recipe]).status().unwrap().success());
        app.take_generator();
        app
    }

    fn take_generator(&mut self) {
        let folder = self.host.folder.path();
        let (generator, scratch) = (folder.join("quadlet"), folder.join("run/quadlet"));
        self.host.agent.generator = Generator::at(generator, scratch);
    }

    fn restart_fleetd(&mut self) {
        self.host.restart_fleetd();
        self.take_generator();
    }

    /// How often podman's generator ran.
    fn runs(&self) -> usize {
        let path = self.host.folder.path().join("quadlet.runs");
        std::fs::read_to_string(path).unwrap_or_default().lines().count()
    }

    /// The bundle of these files and Quadlet files, sent to the store.
    async fn bundle(&self, files: &[(&str, &str)], quadlets: &[(&str, &str)]) -> BundleRef {
        let mut bundle = Bundle::default();
        for (path, content) in files {
            let entry = FileEntry {
                sum: self.put(content).await,
                size: content.len() as u64,
                executable: false,
            };
            bundle.files.insert(path.to_string(), entry);
        }
        for (name, text) in quadlets {
            bundle.quadlets.insert(UnitName::parse(name).unwrap(), self.put(text).await);
        }
        let bytes = String::from_utf8(bundle.encode()).unwrap();
        BundleRef { app: self.app.clone(), sum: self.put(&bytes).await }
    }

    async fn put(&self, content: &str) -> Checksum {
        self.host
            .store
            .stage_blob(&self.app, content.as_bytes().to_vec(), 0)
            .await
            .unwrap()
            .unwrap()
    }

    async fn text(&self, unit: &str, revision: u64, text: &str, bundle: &BundleRef) -> Placement {
        let text = format!("{text}[X-Fleet]\nBundle={bundle}\n");
        self.host.text(unit, revision, &text).await
    }

    /// What a unit brings along has jobs of systemd's own.
    async fn wait_for_running(&self, expected: &str) {
        let waits = async {
            while self.host.running() != expected {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let done = timeout(Duration::from_secs(10), waits).await;
        assert!(done.is_ok(), "{} runs, not {expected}", self.host.running());
    }

    /// The files below the folder of files, one a word.
    fn laid_out(&self) -> String {
        let root = self.host.folder.path().join("run/files");
        let mut found = Vec::new();
        let mut open = vec![root.clone()];
        while let Some(folder) = open.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => open.push(path),
                    false => {
                        let content = std::fs::read_to_string(&path).unwrap();
                        let path = path.strip_prefix(&root).unwrap().display().to_string();
                        found.push(format!("{path}={content}"));
                    }
                }
            }
        }
        found.sort();
        found.join(" ")
    }

    fn names(&self) -> String {
        self.host.sim.files().keys().map(UnitName::as_str).collect::<Vec<_>>().join(" ")
    }
}

#[tokio::test]
async fn what_a_unit_names_is_there_before_it_and_goes_after_its_last_user() {
    let mut app = App::new().await;
    let quadlets = [("app.network", NETWORK), ("data.volume", VOLUME)];
    let bundle = app.bundle(&[("nginx.conf", "a")], &quadlets).await;
    let web = app.text("web@.container", 1, WEB, &bundle).await;
    app.host.run(&[("web@1.container", &web), ("web@2.container", &web)]).await;
    assert_eq!(app.names(), "app-network.service data-volume.service web@.service");
    let all = "app-network.service data-volume.service web@1.service web@2.service";
    assert_eq!(app.host.running(), all);
    assert_eq!(app.runs(), 1, "replicas of one text cost one run of podman's generator");
    let (text, _) = &app.host.sim.files()[&UnitName::trusted("web@.service")];
    let root = app.host.folder.path().join("run/files");
    let path = format!("-v {}/%N/nginx.conf\n", root.display());
    assert!(text.contains(&path), "{text}");
    assert_eq!(app.laid_out(), "web@1/nginx.conf=a web@2/nginx.conf=a");
    let (_, drop_in) = &app.host.sim.files()[&UnitName::trusted("app-network.service")];
    assert!(drop_in.contains("ExecStop=-/usr/bin/podman network rm systemd-app"), "{drop_in}");

    app.restart_fleetd();
    let starts = app.host.sim.counters().start;
    app.host.run(&[("web@2.container", &web)]).await;
    assert_eq!(app.host.running(), "app-network.service data-volume.service web@2.service");
    assert_eq!(app.laid_out(), "web@2/nginx.conf=a");
    assert_eq!(app.host.sim.counters().start, starts, "what runs is adopted");
    app.host.run(&[]).await;
    assert_eq!((app.names().as_str(), app.host.running().as_str()), ("", ""));
    assert_eq!(app.laid_out(), "");
    assert_eq!(app.host.agent.instances.notes.all_beside().count(), 0);
}

#[tokio::test]
async fn what_a_killed_fleetd_left_beside_is_stopped_and_taken_away() {
    let mut app = App::new().await;
    let bundle = app
        .bundle(&[("nginx.conf", "a")], &[("app.network", NETWORK), ("data.volume", VOLUME)])
        .await;
    let web = app.text("web.container", 1, WEB, &bundle).await;
    app.host.run(&[("web.container", &web)]).await;
    // It was killed when it had removed the last user, and a folder was half written.
    let web = UnitName::trusted("web.container");
    app.host.sim.systemctl(Job::Stop, &web.systemd_name());
    app.host.sim.changes().wait_for(|_| app.host.sim.jobs_in_flight() == 0).await.unwrap();
    app.host.agent.systemd.remove(&web.systemd_name()).await.unwrap();
    app.host.agent.instances.remove_marker(&web).unwrap();
    assert_eq!(app.laid_out(), "web/nginx.conf=a");
    app.restart_fleetd();
    app.host.run(&[]).await;
    assert_eq!((app.names(), app.host.running()), (String::new(), String::new()));
    assert_eq!(app.laid_out(), "");
}

#[tokio::test]
async fn a_network_that_a_new_text_names_no_longer_stays_until_the_old_text_has_ended() {
    let mut app = App::new().await;
    let bundle = app
        .bundle(&[("nginx.conf", "a")], &[("app.network", NETWORK), ("data.volume", VOLUME)])
        .await;
    let old = app.text("web.container", 1, WEB, &bundle).await;
    app.host.run(&[("web.container", &old)]).await;
    let bundle = app.bundle(&[("nginx.conf", "a")], &[("data.volume", VOLUME)]).await;
    let text = WEB.replace("app-network.service ", "");
    let new = app.text("web.container", 2, &text, &bundle).await;
    let before = app.host.sim.counters();
    app.host.assign(&[("web.container", &new)]);
    app.host.agent.pass(app.host.now_ms).await.unwrap();
    let now = app.host.sim.counters();
    assert_eq!((now.restart, now.stop), (before.restart + 1, before.stop));
    app.restart_fleetd();
    app.host.run(&[("web.container", &new)]).await;
    assert_eq!(app.names(), "data-volume.service web.service");
    assert_eq!(app.host.running(), "data-volume.service web.service");
}

#[tokio::test]
async fn what_a_unit_with_an_unreadable_marker_may_need_is_not_taken_away() {
    let mut app = App::new().await;
    let bundle = app
        .bundle(&[("nginx.conf", "a")], &[("app.network", NETWORK), ("data.volume", VOLUME)])
        .await;
    let web = app.text("web@.container", 1, WEB, &bundle).await;
    app.host.run(&[("web@1.container", &web)]).await;
    let marker = app.host.folder.path().join("run/units/web@1.container.json");
    std::fs::write(marker, "{").unwrap();
    app.restart_fleetd();
    app.host.run(&[]).await;
    assert_eq!(app.host.running(), "app-network.service data-volume.service web@1.service");
    assert_eq!(app.names(), "app-network.service data-volume.service web@.service");
    assert_eq!(app.laid_out(), "web@1/nginx.conf=a");
}

#[tokio::test]
async fn what_a_killed_fleetd_left_of_a_translation_is_taken_away() {
    let mut host = Host::new().await;
    let left = host.folder.path().join("run/quadlet/0a1b");
    std::fs::create_dir_all(&left).unwrap();
    std::fs::write(left.join("web.container"), "[Container]\n").unwrap();
    host.restart_fleetd();
    assert!(!left.exists());
}

#[tokio::test]
async fn what_cannot_be_fetched_is_told_and_fetched_later() {
    let mut app = App::new().await;
    let bundle = app.bundle(&[("nginx.conf", "a")], &[]).await;
    let sum = Checksum::of(b"a");
    let gone = BundleRef { app: app.app.clone(), sum: Checksum::of(b"not there") };
    let text = "[Service]\nExecStart=/bin/a\n";
    let missing = app.text("web.service", 1, text, &gone).await;
    app.host.run(&[("web.service", &missing)]).await;
    let said = app.host.said().unwrap();
    assert!(
        said.starts_with("the store has no content ") && said.ends_with("; apply shop again"),
        "{said}"
    );
    let found = app.text("web.service", 2, text, &bundle).await;
    app.host.run(&[("web.service", &found)]).await;
    assert_eq!((app.host.running().as_str(), app.host.said()), ("web.service", None));
    assert_eq!(app.laid_out(), "web/nginx.conf=a");
    // Damage on the disk is found, and the content fetched again.
    let blob = app.host.folder.path().join("run/blobs").join(sum.as_str());
    std::fs::write(&blob, "b").unwrap();
    app.host.run(&[]).await;
    app.host.run(&[("web.service", &found)]).await;
    assert_eq!(app.laid_out(), "web/nginx.conf=a");
}

#[tokio::test]
async fn changed_files_restart_an_instance_and_it_finds_the_new_ones_only() {
    let mut app = App::new().await;
    let text = "[Service]\nExecStart=/bin/a\n";
    let old = app.bundle(&[("a", "old"), ("gone", "")], &[]).await;
    let new = app.bundle(&[("a", "new")], &[]).await;
    let old = app.text("web@.service", 1, text, &old).await;
    app.host.run(&[("web@1.service", &old)]).await;
    let restarts = app.host.sim.counters().restart;
    let new = app.text("web@.service", 2, text, &new).await;
    app.host.run(&[("web@1.service", &new)]).await;
    assert_eq!(app.laid_out(), "web@1/a=new");
    assert_eq!(app.host.sim.counters().restart, restarts + 1);
}

#[tokio::test]
async fn an_instance_of_a_pod_is_its_containers_too() {
    let mut app = App::new().await;
    let pod = "[Unit]\nWants=web@%i.service side@%i.service\n[Service]\nExecStart=/bin/pod %i\n";
    let member = |program: &str| {
        format!(
            "[Container]\nPod=app@%i.pod\n[Unit]\nBindsTo=app@%i-pod.service\nAfter=app@%i-pod.service\n\
             [Service]\nExecStart={program} ./conf\n"
        )
    };
    let (web, side) = (member("/bin/web"), member("/bin/side"));
    // As podman writes them, the names of services hold the instance.
    let fixed = |text: &str| text.replace("app@%i-pod", "app@2-pod");
    let (web, side) = (fixed(&web), fixed(&side));
    let quadlets = [("web@.container", web.as_str()), ("side@.container", side.as_str())];
    let bundle = app.bundle(&[("conf", "x")], &quadlets).await;
    let pod = app.text("app@.pod", 1, pod, &bundle).await;
    app.host.run(&[("app@2.pod", &pod)]).await;
    assert_eq!(app.names(), "app@2-pod.service side@2.service web@2.service");
    app.wait_for_running("app@2-pod.service side@2.service web@2.service").await;
    assert_eq!(app.laid_out(), "app@2-pod/conf=x side@2/conf=x web@2/conf=x");
    let said = app.host.status("app@2.pod").await;
    assert_eq!((said.active.as_str(), said.sub.as_str()), ("active", "running"));

    let web = UnitName::trusted("web@2.service");
    app.host.sim.fail(&web, "exit-code", 1);
    let said = app.host.status("app@2.pod").await;
    let message = "web@2.service, a container of the pod, failed".to_string();
    assert_eq!((said.active.as_str(), said.message), ("failed", Some(message)));
    app.host.sim.heal(&web);
    app.host.run(&[("app@2.pod", &pod)]).await;
    app.wait_for_running("app@2-pod.service side@2.service web@2.service").await;
    assert_eq!(app.host.status("app@2.pod").await.active, "active");

    app.host.run(&[]).await;
    assert_eq!((app.names(), app.host.running()), (String::new(), String::new()));
}

#[tokio::test]
async fn a_service_of_the_hosts_own_is_not_overwritten_by_a_network() {
    let mut app = App::new().await;
    let network = UnitName::trusted("app-network.service");
    let path = "/etc/systemd/system/app-network.service";
    app.host.sim.define_on_host(&network, path, "[Service]\nExecStart=/bin/a\n");
    let bundle = app.bundle(&[], &[("app.network", NETWORK)]).await;
    let web = "[Unit]\nRequires=app-network.service\n[Service]\nExecStart=/bin/web\n";
    let web = app.text("web.container", 1, web, &bundle).await;
    app.host.run(&[("web.container", &web)]).await;
    let said = app.host.said().unwrap();
    assert_eq!(
        said,
        format!(
            "app.network: this machine has a app-network.service of its own ({path}); fleet does \
             not overwrite it"
        )
    );
    assert_eq!(app.host.running(), "");
}

#[tokio::test]
async fn after_a_reboot_without_the_store_what_was_assigned_starts_with_its_files() {
    let mut app = App::new().await;
    let data = app.host.folder.path().join("data");
    let with_memory = |app: &mut App| {
        let agent = Host::agent(app.host.folder.path().join("run"), &app.host.store, &app.host.sim);
        app.host.agent = agent.with_memory(&data).unwrap();
        app.take_generator();
    };
    with_memory(&mut app);
    let bundle = app
        .bundle(&[("nginx.conf", "a")], &[("app.network", NETWORK), ("data.volume", VOLUME)])
        .await;
    let web = app.text("web@.container", 1, WEB, &bundle).await;
    app.host.run(&[("web@1.container", &web)]).await;
    app.host.sim.crash_host();
    std::fs::remove_dir_all(app.host.folder.path().join("run")).unwrap();
    let sim = SimSystemd::default();
    app.host.sim = sim;
    // The store has nothing of it any longer, as one that is away.
    let folder = tempfile::tempdir().unwrap();
    let empty = EmbeddedKv::open(folder.path().join("store.redb")).await.unwrap();
    app.host.store = Store::new(Arc::new(empty), "/fleet/");
    with_memory(&mut app);
    app.host.text("web@.container", 1, &format!("{WEB}[X-Fleet]\nBundle={bundle}\n")).await;
    app.host.run(&[("web@1.container", &web)]).await;
    assert_eq!(
        app.host.running(),
        "app-network.service data-volume.service web@1.service",
        "{:?}",
        app.host.said()
    );
    assert_eq!(app.laid_out(), "web@1/nginx.conf=a");
}

#[tokio::test]
async fn what_runs_keeps_its_old_files_when_fleetd_dies_before_it_restarts_it() {
    let mut app = App::new().await;
    let text = "[Service]\nExecStart=/bin/a\n";
    let old = app.bundle(&[("a", "old")], &[]).await;
    let new = app.bundle(&[("a", "new")], &[]).await;
    let old = app.text("web.service", 1, text, &old).await;
    app.host.run(&[("web.service", &old)]).await;
    let new = app.text("web.service", 2, text, &new).await;
    // The files are there, the unit's is not.
    app.host.sim.set_room(0);
    app.host.assign(&[("web.service", &new)]);
    app.host.agent.pass(app.host.now_ms).await.unwrap();
    app.restart_fleetd();
    // The store is away: there is no assignment.
    for _ in 0..3 {
        app.host.agent.pass(app.host.now_ms).await.unwrap();
    }
    assert_eq!(app.laid_out(), ".before/web/a=old web/a=new");
    app.host.sim.set_room(u64::MAX);
    app.host.run(&[("web.service", &new)]).await;
    assert_eq!(app.laid_out(), "web/a=new");
    assert_eq!(app.host.running(), "web.service");
}

#[tokio::test]
async fn a_network_that_a_unit_of_the_hosts_own_requires_stays_while_that_is_up() {
    let mut app = App::new().await;
    let bundle = app.bundle(&[], &[("app.network", NETWORK)]).await;
    let text = "[Unit]\nRequires=app-network.service\n[Service]\nExecStart=/bin/web\n";
    let web = app.text("web.container", 1, text, &bundle).await;
    app.host.run(&[("web.container", &web)]).await;
    let own = UnitName::trusted("own.service");
    let text = "[Unit]\nRequires=app-network.service\n[Service]\nExecStart=/bin/own\n";
    app.host.sim.define_on_host(&own, "/etc/systemd/system/own.service", text);
    app.host.sim.systemctl(Job::Start, &own);
    app.wait_for_running("app-network.service own.service web.service").await;
    app.host.run(&[]).await;
    assert_eq!(app.host.running(), "app-network.service own.service");
    assert_eq!(app.names(), "app-network.service");
    app.host.sim.systemctl(Job::Stop, &own);
    app.wait_for_running("app-network.service").await;
    app.host.run(&[]).await;
    assert_eq!((app.names(), app.host.running()), (String::new(), String::new()));
}

#[tokio::test]
async fn a_build_that_two_units_share_has_its_own_files_alone() {
    let mut app = App::new().await;
    let build = "[Build]\nFile=./Containerfile\nSetWorkingDirectory=./src\n[Service]\n\
        Type=oneshot\nRemainAfterExit=yes\nExecStart=/usr/bin/podman build ./src\n";
    let user = |program: &str| {
        format!("[Unit]\nRequires=app-build.service\n[Service]\nExecStart={program} ./own.conf\n")
    };
    let common = [("src/Containerfile", "FROM x"), ("src/a", "1")];
    let mut placed = Vec::new();
    for name in ["db.container", "web.container"] {
        let files = [&common[..], &[("own.conf", name)]].concat();
        let bundle = app.bundle(&files, &[("app.build", build)]).await;
        placed.push((name, app.text(name, 1, &user("/bin/x"), &bundle).await));
    }
    let wanted: Vec<_> = placed.iter().map(|(name, text)| (*name, text)).collect();
    app.host.run(&wanted).await;
    assert_eq!(app.host.running(), "app-build.service db.service web.service");
    let writes = app.host.sim.counters().write;
    assert!(app.laid_out().starts_with("app-build/src/Containerfile=FROM x app-build/src/a=1 db/"));
    let mut again = Vec::new();
    for (name, _) in &placed {
        let files = [&common[..], &[("own.conf", "new")]].concat();
        let bundle = app.bundle(&files, &[("app.build", build)]).await;
        again.push((*name, app.text(name, 2, &user("/bin/x"), &bundle).await));
    }
    let wanted: Vec<_> = again.iter().map(|(name, text)| (*name, text)).collect();
    app.host.run(&wanted).await;
    assert_eq!(app.host.sim.counters().write, writes + 2, "the units, and not the build");
}
