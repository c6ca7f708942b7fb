//! Applications: planned, applied whole or not at all, destroyed.

use std::time::Duration;

use axum::middleware::from_fn;
use fleet_core::app::{AppName, Checksum};
use fleet_core::model::DesiredState;
use fleet_core::name::UnitName;
use fleet_core::wire::{App, AppPage, AppPlan, AppRemoved};
use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::imports::dropped;
use crate::server::{MACHINE, Server};

const WEB: &str = "[Service]\nExecStart=/bin/cat /run/fleet/files/%N/app.conf\n\
    [X-Fleet]\nReplicas=2\n";

/// A folder: its units and files.
#[derive(Clone)]
pub(crate) struct Folder {
    pub(crate) units: Vec<(String, String)>,
    pub(crate) files: Vec<(String, Vec<u8>)>,
}

impl Folder {
    pub(crate) fn shop() -> Folder {
        Folder {
            units: vec![
                ("web@.service".to_string(), WEB.to_string()),
                ("db.service".to_string(), "[Service]\nExecStart=/bin/sleep 1d\n".to_string()),
            ],
            files: vec![
                ("app.conf".to_string(), b"a".to_vec()),
                ("b.bin".to_string(), vec![0, 255]),
            ],
        }
    }

    fn body(&self) -> Value {
        let entry = |content: &[u8]| json!({"sum": Checksum::of(content), "size": content.len()});
        json!({
            "units": self.units.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
            "files": self.files.iter().map(|(path, content)| (path.clone(), entry(content)))
                .collect::<serde_json::Map<String, Value>>(),
        })
    }
}

pub(crate) async fn ask(
    server: &Server,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> Response {
    let url = format!("{}/fleet/v1{path}", server.origin);
    let mut request = fleet_tests::http().build().unwrap().request(method, url);
    if let Some(body) = body {
        request = request.json(body);
    }
    request.send().await.expect("an answer")
}

async fn send_files(server: &Server, folder: &Folder) {
    for (_, content) in &folder.files {
        let sum = Checksum::of(content);
        let url = format!("{}/fleet/v1/apps/shop/blobs/{sum}", server.origin);
        let request = fleet_tests::http().build().unwrap().put(url);
        let request =
            request.header("content-type", "application/octet-stream").body(content.clone());
        assert_eq!(request.send().await.unwrap().status(), 204);
    }
}

pub(crate) async fn applied(
    server: &Server,
    folder: &Folder,
    query: &str,
) -> Result<AppPlan, String> {
    let answer =
        ask(server, Method::POST, &format!("/apps/shop{query}"), Some(&folder.body())).await;
    let status = answer.status().as_u16();
    match status {
        200 => Ok(answer.json().await.unwrap()),
        _ => Err(refusal(answer).await),
    }
}

/// The status and the sentence of an error.
pub(crate) async fn refusal(answer: Response) -> String {
    let status = answer.status().as_u16();
    let body: Value = answer.json().await.unwrap();
    format!("{status} {}", body["error"]["message"].as_str().unwrap())
}

pub(crate) async fn sent(server: &Server, app: &str, content: &[u8]) -> Result<(), String> {
    let sum = Checksum::of(content);
    let url = format!("{}/fleet/v1/apps/{app}/blobs/{sum}", server.origin);
    let request = fleet_tests::http().build().unwrap().put(url);
    let request = request.header("content-type", "application/octet-stream");
    let answer = request.body(content.to_vec()).send().await.unwrap();
    match answer.status().as_u16() {
        204 => Ok(()),
        _ => Err(refusal(answer).await),
    }
}

fn said(plan: &AppPlan) -> Vec<String> {
    let units = plan.units.iter().map(|unit| {
        let place = |on: &fleet_core::wire::InstanceOn| on.instance.to_string();
        let starts: Vec<String> = unit.starts.iter().map(place).collect();
        let stops: Vec<String> = unit.stops.iter().map(place).collect();
        format!(
            "{} {} +[{}] -[{}] {} restart, {} down",
            unit.kind,
            unit.name,
            starts.join(" "),
            stops.join(" "),
            unit.restarts,
            unit.down_at_most
        )
    });
    let files = plan.files.iter().map(|file| format!("{} {}", file.kind, file.path));
    units.chain(files).collect()
}

#[tokio::test]
async fn a_folder_is_planned_applied_shown_and_destroyed() {
    let (server, mut folder) = (Server::start().await, Folder::shop());
    let planned = applied(&server, &folder, "?dryRun=true").await.unwrap();
    assert_eq!(
        said(&planned),
        [
            "create db.service +[db.service] -[] 0 restart, 0 down",
            "create web@.service +[web@1.service web@2.service] -[] 0 restart, 0 down",
            "create app.conf",
            "create b.bin",
        ]
    );
    assert_eq!((planned.applied, planned.changes, planned.revision), (false, true, 0));
    assert_eq!(planned.missing.len(), 2);
    assert!(server.store.read_all().await.unwrap().cluster().records.is_empty());
    let unsent = applied(&server, &folder, "").await.unwrap_err();
    assert!(
        unsent.starts_with("409 the contents of app.conf, b.bin have not been sent"),
        "{unsent}"
    );
    send_files(&server, &folder).await;
    assert!(applied(&server, &folder, "?dryRun=true").await.unwrap().missing.is_empty());
    let done = applied(&server, &folder, "?ifRevision=0").await.unwrap();
    assert_eq!((done.applied, done.revision), (true, 1));
    server.plan().await;

    // The same again changes nothing.
    let before = server.store.read_all().await.unwrap().cluster().asked;
    let again = applied(&server, &folder, "").await.unwrap();
    assert_eq!((again.changes, again.revision), (false, 1));
    assert_eq!(server.store.read_all().await.unwrap().cluster().asked, before);

    let apps: AppPage = ask(&server, Method::GET, "/apps", None).await.json().await.unwrap();
    assert_eq!((apps.apps.len(), apps.apps[0].wanted, apps.apps[0].running), (1, 3, 0));
    server.report(&["db.service"]).await;
    let app: App = ask(&server, Method::GET, "/apps/shop", None).await.json().await.unwrap();
    assert_eq!((app.revision, app.units.len(), app.files.len()), (1, 2, 2));
    let file = ask(&server, Method::GET, "/apps/shop/files/b.bin", None).await;
    assert_eq!(file.headers()["content-type"], "application/octet-stream");
    assert_eq!(file.bytes().await.unwrap(), vec![0, 255]);
    for path in ["/apps/none", "/apps/shop/files/none", "/apps/none/files/x"] {
        assert_eq!(ask(&server, Method::GET, path, None).await.status(), 404, "{path}");
    }

    // A changed file restarts who uses it.
    folder.files[0].1 = b"b".to_vec();
    send_files(&server, &folder).await;
    let changed = applied(&server, &folder, "").await.unwrap();
    assert_eq!(
        said(&changed),
        [
            "keep db.service +[] -[] 0 restart, 0 down",
            "change web@.service +[] -[] 2 restart, 1 down",
            "change app.conf",
        ]
    );
    let stale = applied(&server, &folder, "?ifRevision=1").await.unwrap_err();
    assert_eq!(
        stale,
        "409 somebody applied shop in between: it is at revision 2, and this was planned on \
            revision 1; plan again"
    );

    // What the folder no longer has goes when it is pruned.
    folder.units.truncate(1);
    let kept = applied(&server, &folder, "").await.unwrap();
    assert_eq!((kept.changes, kept.units[0].kind.as_str()), (false, "stray"));
    let pruned = applied(&server, &folder, "?prune=true").await.unwrap();
    assert_eq!(said(&pruned)[0], "remove db.service +[] -[db.service] 0 restart, 0 down");
    assert!(server.store.unit(&UnitName::trusted("db.service")).await.unwrap().0.is_none());

    let gone: AppRemoved =
        ask(&server, Method::DELETE, "/apps/shop", None).await.json().await.unwrap();
    assert_eq!(gone.units, [UnitName::trusted("web@.service")]);
    assert_eq!(ask(&server, Method::GET, "/apps/shop", None).await.status(), 404);
    assert_eq!(ask(&server, Method::DELETE, "/apps/shop", None).await.status(), 404);
    // Nobody waits for the blobs to go, but they go.
    let shop = AppName::parse("shop").unwrap();
    let swept = async {
        while !server.store.blob_sums(&shop).await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), swept).await.expect("the files go");
}

#[tokio::test]
async fn everything_that_is_wrong_is_said_and_nothing_is_written() {
    let (server, mut folder) = (Server::start().await, Folder::shop());
    folder.files.clear();
    folder.units.push(("x.foo".to_string(), "[Service]\n".to_string()));
    for query in ["?dryRun=true", ""] {
        assert_eq!(
            applied(&server, &folder, query).await.unwrap_err(),
            "400 x.foo: invalid unit type: \"foo\"\n\
                web@.service: line 2: ExecStart=/run/fleet/files/%N/app.conf: there is no app.conf \
                in the folder"
        );
    }
    let cluster = server.store.read_all().await.unwrap();
    assert!(cluster.cluster().records.is_empty() && cluster.cluster().apps.is_empty());
    let lock = server.store.lock_units().await.expect("nobody left the lock behind");
    server.store.unlock_units(lock).await.unwrap();
}

#[tokio::test]
async fn a_file_is_kept_only_as_what_its_checksum_says() {
    let server = Server::start().await;
    let put = async |path: String, kind: &str, content: Vec<u8>| {
        let url = format!("{}/fleet/v1/apps/{path}", server.origin);
        let request = fleet_tests::http().build().unwrap().put(url);
        request.header("content-type", kind).body(content).send().await.unwrap().status().as_u16()
    };
    let (bytes, commas) = ("application/octet-stream", vec![b','; 1024 * 1024]);
    let sum = |content: &[u8]| Checksum::of(content).to_string();
    for (path, kind, content, expected) in [
        (format!("shop/blobs/{}", sum(b"a")), bytes, b"a".to_vec(), 204),
        (format!("shop/blobs/{}", sum(b"a")), bytes, b"b".to_vec(), 400),
        (format!("shop/blobs/{}", sum(b"a")), "application/json", b"a".to_vec(), 415),
        ("shop/blobs/x".to_string(), bytes, b"a".to_vec(), 400),
        (format!("Shop/blobs/{}", sum(b"a")), bytes, b"a".to_vec(), 400),
        (format!("shop/blobs/{}", sum(&commas)), bytes, commas.clone(), 204),
        (format!("shop/blobs/{}", sum(&commas)), bytes, [commas, vec![b',']].concat(), 413),
    ] {
        assert_eq!(put(path.clone(), kind, content).await, expected, "{path}");
    }
}

#[tokio::test]
async fn of_two_who_apply_at_once_one_wins_and_the_other_hears_of_it() {
    let (server, folder) = (Server::start().await, Folder::shop());
    send_files(&server, &folder).await;
    let mut other = folder.clone();
    other.units.iter_mut().for_each(|(_, text)| text.push_str("# other\n"));
    let both = async |query: &str| {
        let (one, two) =
            tokio::join!(applied(&server, &folder, query), applied(&server, &other, query));
        [one, two]
    };
    let first = both("?ifRevision=0").await;
    let lost: Vec<&String> = first.iter().filter_map(|answer| answer.as_ref().err()).collect();
    assert!(
        lost.len() == 1 && lost[0].starts_with("409 somebody applied shop in between"),
        "{first:?}"
    );
    // Without a revision the second follows the first, and nothing of the two is mixed.
    for _ in 0..5 {
        for answer in both("").await {
            answer.expect("it waits for its turn");
        }
        let mirror = server.store.read_all().await.unwrap();
        let records = mirror.cluster().records.values();
        let others = records.filter(|record| record.text.contains("# other")).count();
        assert!(others == 0 || others == 2, "{others} units of the other folder");
    }
}

#[tokio::test]
async fn an_apply_goes_on_when_its_client_has_gone() {
    let server = Server::start_with(|router| router.layer(from_fn(dropped))).await;
    let mut folder = Folder::shop();
    folder.files.clear();
    folder.units.remove(0);
    let answer = ask(&server, Method::POST, "/apps/shop", Some(&folder.body())).await;
    assert_eq!(answer.status(), 504);
    let name = UnitName::trusted("db.service");
    let written = async {
        while server.store.unit(&name).await.unwrap().0.is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), written).await.expect("it is applied");
    let unlocked = async {
        loop {
            if let Ok(lock) = server.store.lock_units().await {
                return server.store.unlock_units(lock).await.unwrap();
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), unlocked).await.expect("the lock is gone");
}

#[tokio::test]
async fn what_fits_nowhere_is_said_before() {
    let server = Server::start().await;
    let text = "[Service]\nExecStart=/bin/sleep 1d\n[X-Fleet]\nMachineMetadata=disk=ssd\n";
    let folder = Folder { units: vec![("a.service".to_string(), text.to_string())], files: vec![] };
    let planned = applied(&server, &folder, "?dryRun=true").await.unwrap();
    let unplaced = &planned.units[0].unplaced[0];
    assert_eq!(unplaced.instances, [UnitName::trusted("a.service")]);
    assert_eq!(unplaced.reasons, ["1 × lacks the metadata disk=ssd"]);
    let fits = Folder {
        units: vec![("a.service".to_string(), text.replace("disk=ssd", "node=a"))],
        files: vec![],
    };
    let planned = applied(&server, &fits, "?dryRun=true").await.unwrap();
    assert_eq!(planned.units[0].starts[0].machine.as_str(), MACHINE);
    applied(&server, &fits, "").await.unwrap();
    let record = server.store.unit(&UnitName::trusted("a.service")).await.unwrap().0.unwrap();
    assert_eq!(record.value.desired, DesiredState::Launched);
}

#[tokio::test]
async fn what_podman_refuses_comes_back_with_its_line_and_nothing_is_written() {
    let server = Server::start().await;
    let mut folder = Folder { units: vec![], files: vec![] };
    let text = "[Container]\nImage=x\nNetwork=app.network\nFoo=1\n";
    folder.units.push(("web.container".to_string(), text.to_string()));
    folder.units.push(("app.network".to_string(), "[Network]\nDriver=bridge\n".to_string()));
    // Without podman nobody can tell.
    let planned = applied(&server, &folder, "?dryRun=true").await.unwrap();
    assert!(
        planned.warnings[0].starts_with("nobody has looked whether podman takes the Quadlet files"),
        "{:?}",
        planned.warnings
    );
    let says = "for f in ${QUADLET_UNIT_DIRS%%:*}/*; do
        echo \"quadlet-generator[9]: Loading source unit file $f\" >&2
        [ ${f##*.} = network ] && printf -- '---app-network.service---\\n[Unit]\\nSourcePath=%s\\n' $f
        done
        if grep -q Foo= ${QUADLET_UNIT_DIRS%%:*}/web.container; then
        echo \"quadlet-generator[9]: converting \\\"web.container\\\": unsupported key 'Foo' in group \
        'Container' in web.container\" >&2
        else printf -- '---web.service---\\n[Unit]\\nSourcePath=%s\\n' $f; fi";
    server.generate_by(says);
    for query in ["?dryRun=true", ""] {
        assert_eq!(
            applied(&server, &folder, query).await.unwrap_err(),
            "400 web.container: line 4: podman: converting \"web.container\": unsupported key \
                'Foo' in group 'Container' in web.container"
        );
    }
    assert!(server.store.read_all().await.unwrap().cluster().records.is_empty());
    folder.units[0].1 = text.replace("Foo=1\n", "");
    let done = applied(&server, &folder, "").await.unwrap();
    assert_eq!((done.applied, done.warnings), (true, Vec::new()));
}

#[tokio::test]
async fn files_that_no_text_names_any_more_go_and_others_stay() {
    let (server, mut folder) = (Server::start().await, Folder::shop());
    let shop = AppName::parse("shop").unwrap();
    let sum = |content: &[u8]| Checksum::of(content);
    send_files(&server, &folder).await;
    applied(&server, &folder, "").await.unwrap();
    // An earlier text of web@ still names the first app.conf; no text ever named b.bin.
    folder.files[0].1 = b"b".to_vec();
    folder.files[1].1 = b"c".to_vec();
    send_files(&server, &folder).await;
    applied(&server, &folder, "").await.unwrap();
    let gone = sum(&[0, 255]);
    let swept = async {
        while server.store.blob_sums(&shop).await.unwrap().contains_key(&gone) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), swept).await.expect("it goes");
    let kept = server.store.blob_sums(&shop).await.unwrap();
    for content in [b"a", b"b", b"c"] {
        assert!(kept.contains_key(&sum(content)), "{content:?}");
    }
    assert_eq!(kept.len(), 5, "three files and two bundles");
}

#[tokio::test]
async fn a_replica_with_a_record_of_its_own_keeps_the_files_that_its_text_names() {
    let (server, mut folder) = (Server::start().await, Folder::shop());
    let shop = AppName::parse("shop").unwrap();
    send_files(&server, &folder).await;
    applied(&server, &folder, "").await.unwrap();
    let body = json!({"desiredState": "inactive"});
    let stopped = ask(&server, Method::PUT, "/units/web@1.service", Some(&body)).await;
    assert_eq!(stopped.status(), 201);
    // The template goes by itself, and leaves it.
    assert_eq!(ask(&server, Method::DELETE, "/units/web@.service", None).await.status(), 204);
    folder.units.remove(0);
    for content in [b"b", b"c"] {
        folder.files = vec![("app.conf".to_string(), content.to_vec())];
        send_files(&server, &folder).await;
        applied(&server, &folder, "").await.unwrap();
    }
    let gone = Checksum::of(b"b");
    let swept = async {
        while server.store.blob_sums(&shop).await.unwrap().contains_key(&gone) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), swept).await.expect("what nobody has goes");
    let kept = server.store.blob_sums(&shop).await.unwrap();
    assert!(kept.contains_key(&Checksum::of(b"a")) && kept.len() == 3, "with its bundle and c");
}

#[tokio::test]
async fn after_an_import_an_apply_brings_what_the_texts_name() {
    let (server, folder) = (Server::start().await, Folder::shop());
    send_files(&server, &folder).await;
    applied(&server, &folder, "").await.unwrap();
    let export: Value = ask(&server, Method::GET, "/export", None).await.json().await.unwrap();
    let other = Server::start().await;
    assert_eq!(ask(&other, Method::POST, "/import", Some(&export)).await.status(), 200);
    let planned = applied(&other, &folder, "?dryRun=true").await.unwrap();
    assert_eq!((planned.changes, planned.missing.len()), (true, 2));
    assert_eq!(
        planned.warnings,
        ["the store lacks 3 contents that come with these units, as after an import; an apply \
            brings them"]
    );
    send_files(&other, &folder).await;
    assert!(applied(&other, &folder, "?dryRun=true").await.unwrap().changes, "the bundle");
    let done = applied(&other, &folder, "").await.unwrap();
    assert_eq!((done.applied, done.revision), (true, 1));
    assert!(!applied(&other, &folder, "?dryRun=true").await.unwrap().changes);
}

#[tokio::test]
async fn after_a_rollback_a_plan_names_the_files_that_differ() {
    let (server, mut folder) = (Server::start().await, Folder::shop());
    send_files(&server, &folder).await;
    applied(&server, &folder, "").await.unwrap();
    folder.files[0].1 = b"b".to_vec();
    send_files(&server, &folder).await;
    applied(&server, &folder, "").await.unwrap();
    let path = "/units/web@.service/rollback";
    assert_eq!(ask(&server, Method::POST, path, Some(&json!({}))).await.status(), 200);
    let planned = applied(&server, &folder, "?dryRun=true").await.unwrap();
    let web = planned.units.iter().find(|unit| unit.name == "web@.service").unwrap();
    assert_eq!(
        (web.kind.as_str(), web.details.as_slice()),
        ("change", &["files: app.conf".into()][..])
    );
    assert!(planned.files.is_empty(), "the application has them already");
}

#[tokio::test]
async fn what_reaches_machines_with_others_gets_a_new_text_by_apply_alone() {
    let (server, mut folder) = (Server::start().await, Folder::shop());
    let network = |driver: &str| format!("[Network]\nDriver={driver}\n");
    folder.units.push(("app.network".to_string(), network("bridge")));
    send_files(&server, &folder).await;
    applied(&server, &folder, "").await.unwrap();
    let put = json!({"desiredState": "launched", "text": network("macvlan")});
    let refused = ask(&server, Method::PUT, "/units/app.network", Some(&put)).await;
    assert_eq!(refused.status(), 409);
    assert!(refused.text().await.unwrap().contains("use fleetctl apply"));
    folder.units.last_mut().unwrap().1 = network("macvlan");
    assert!(applied(&server, &folder, "").await.unwrap().changes);
    let path = "/units/app.network/rollback";
    assert_eq!(ask(&server, Method::POST, path, Some(&json!({}))).await.status(), 409);
}

#[tokio::test]
async fn what_is_sent_and_never_applied_has_a_limit_and_goes() {
    let (server, shop) = (Server::start().await, AppName::parse("shop").unwrap());
    let content = |n: u8| vec![n; 1024 * 1024];
    for n in 0..16 {
        sent(&server, "shop", &content(n)).await.unwrap();
    }
    let said = sent(&server, "shop", &content(16)).await.unwrap_err();
    assert!(
        said.starts_with("409 17 contents of shop with 17825792 bytes have been sent"),
        "{said}"
    );
    sent(&server, "shop", &content(3)).await.expect("what is there already");
    sent(&server, "other", b"a").await.expect("another application");
    // An apply takes up some of them; the rest still counts.
    let folder = Folder {
        units: vec![("a.service".to_string(), "[Service]\nExecStart=/a\n".to_string())],
        files: (0..15).map(|n| (n.to_string(), content(n))).collect(),
    };
    applied(&server, &folder, "").await.unwrap();
    sent(&server, "shop", &content(16)).await.expect("there is room again, at once");
    // Long after, somebody sends anything at all: what nobody applied goes.
    let later = fleetd::process::clock::now_ms() + fleetd::store::KEPT_STAGED_MS + 60_000;
    server.store.stage_blob(&shop, b"b".to_vec(), later).await.unwrap().unwrap();
    let kept = server.store.blob_sums(&shop).await.unwrap();
    assert_eq!(kept.len(), 16, "what the application has, and the new one");
    let other = server.store.blob_sums(&AppName::parse("other").unwrap()).await.unwrap();
    assert!(other.is_empty());
}

#[tokio::test]
async fn a_change_by_hand_between_plan_and_apply_is_noticed() {
    let (server, mut folder) = (Server::start().await, Folder::shop());
    send_files(&server, &folder).await;
    applied(&server, &folder, "").await.unwrap();
    folder.units[0].1.push_str("# changed\n");
    let by_hand: [(&str, Method, &str, Value, &str); 4] = [
        ("scaled", Method::PUT, "web@.service/replicas", json!({"replicas": 5}), "5 replicas"),
        ("stopped", Method::PUT, "db.service", json!({"desiredState": "loaded"}), "db.service"),
        ("restarted", Method::POST, "web@.service/restart", json!({}), "web@.service"),
        ("destroyed", Method::DELETE, "db.service", json!({}), "a unit of it was destroyed"),
    ];
    for (what, method, path, body, expected) in by_hand {
        let planned = applied(&server, &folder, "?dryRun=true").await.unwrap();
        let answer = ask(&server, method, &format!("/units/{path}"), Some(&body)).await;
        assert!(answer.status().is_success(), "{what}: {}", answer.status());
        let query = format!("?ifRevision=1&ifUnits={}", planned.basis);
        let said = applied(&server, &folder, &query).await.unwrap_err();
        assert!(said.starts_with("409 shop changed since this was planned: "), "{what}: {said}");
        assert!(said.contains(expected), "{what}: {said}");
    }
    let planned = applied(&server, &folder, "?dryRun=true").await.unwrap();
    let other = json!({"desiredState": "launched", "text": "[Service]\nExecStart=/bin/true\n"});
    assert!(
        ask(&server, Method::PUT, "/units/x.service", Some(&other)).await.status().is_success()
    );
    let query = format!("?ifRevision=1&ifUnits={}", planned.basis);
    assert!(applied(&server, &folder, &query).await.unwrap().applied, "that is no unit of it");
    let said = applied(&server, &folder, "?ifUnits=x").await.unwrap_err();
    assert!(said.starts_with("400 ifUnits must be the basis of a plan"), "{said}");
}

#[tokio::test]
async fn while_podman_is_asked_everybody_else_can_write() {
    let server = Server::start().await;
    let text = "[Container]\nImage=x\n".to_string();
    let folder = Folder { units: vec![("web.container".to_string(), text)], files: vec![] };
    let signs = tempfile::tempdir().unwrap();
    let [asked, go] = ["asked", "go"].map(|name| signs.path().join(name));
    server.generate_by(&format!(
        "touch {}; until [ -e {} ]; do sleep 0.05; done
        for f in ${{QUADLET_UNIT_DIRS%%:*}}/*; do
        printf -- '---web.service---\\n[Unit]\\nSourcePath=%s\\n' $f; done",
        asked.display(),
        go.display()
    ));
    let apply = applied(&server, &folder, "");
    let others = async {
        while !asked.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let body = json!({"desiredState": "launched", "text": "[Service]\nExecStart=/a\n"});
        let written = ask(&server, Method::PUT, "/units/x.service", Some(&body)).await;
        assert_eq!(written.status(), 201);
        std::fs::write(&go, "").unwrap();
    };
    let (done, ()) = tokio::join!(apply, others);
    assert!(done.unwrap().applied);
}

#[tokio::test]
async fn destroying_an_application_takes_the_replicas_that_were_stopped_by_hand() {
    let (server, folder) = (Server::start().await, Folder::shop());
    send_files(&server, &folder).await;
    applied(&server, &folder, "").await.unwrap();
    let body = json!({"desiredState": "inactive"});
    let stopped = ask(&server, Method::PUT, "/units/web@1.service", Some(&body)).await;
    assert_eq!(stopped.status(), 201);
    let own = json!({"desiredState": "launched", "text": "[Service]\nExecStart=/other\n"});
    let own = ask(&server, Method::PUT, "/units/web@mine.service", Some(&own)).await;
    assert_eq!(own.status(), 201);
    let shown: App = ask(&server, Method::GET, "/apps/shop", None).await.json().await.unwrap();
    assert_eq!(shown.replicas, [UnitName::trusted("web@1.service")]);
    let gone = ask(&server, Method::DELETE, "/apps/shop", None).await;
    let gone: AppRemoved = gone.json().await.unwrap();
    assert!(gone.units.contains(&UnitName::trusted("web@1.service")), "{gone:?}");
    let left = server.store.read_all().await.unwrap();
    let left: Vec<&str> = left.cluster().records.keys().map(UnitName::as_str).collect();
    assert_eq!(left, ["web@mine.service"], "somebody submitted it with a text of its own");
}

#[tokio::test]
async fn where_this_machine_has_no_podman_another_one_is_asked() {
    let server = Server::start().await;
    let scratch = tempfile::tempdir().unwrap();
    let program = scratch.path().join("quadlet");
    let script = "#!/bin/sh\necho \"quadlet-generator[9]: Loading source unit file \
        ${QUADLET_UNIT_DIRS%%:*}/web.container\" >&2\necho \"quadlet-generator[9]: converting \
        \\\"web.container\\\": unsupported key 'Foo' in group 'Container' in web.container\" >&2\n";
    let mut made = std::process::Command::new("sh");
    made.args(["-c", "printf %s \"$2\" > \"$1\" && chmod +x \"$1\"", "sh"])
        .args([program.as_os_str(), script.as_ref()]);
    assert!(made.status().unwrap().success());
    let register = async |id: &str, podman: &str, origin: &str| {
        let machine = crate::machine(id, Some(origin));
        let machine = fleet_core::model::Machine { podman: Some(podman.to_string()), ..machine };
        let lease = server.store.grant(Duration::from_secs(3600)).await.unwrap();
        server.store.register(&machine, lease).await.unwrap();
    };
    let text = "[Container]\nImage=x\nFoo=1\n".to_string();
    let folder = Folder { units: vec![("web.container".to_string(), text)], files: vec![] };
    // Nobody listens there, and the other has none.
    register("gone", "5.5.0", "http://127.0.0.1:9").await;
    register("bare", "", &server.origin).await;
    let planned = applied(&server, &folder, "?dryRun=true").await.unwrap();
    let warning = &planned.warnings[0];
    assert!(
        warning.starts_with("nobody has looked whether podman takes the Quadlet files: ")
            && warning.contains("machine gone at http://127.0.0.1:9 did not answer"),
        "{warning}"
    );
    let id = fleet_core::name::MachineId::new("able");
    let api = fleetd::api::Api::new(server.store.clone(), id, String::new);
    let generator = fleetd::systemd::quadlet::Generator::at(program, scratch.path().join("s"));
    let origin = crate::serve(fleetd::api::router(api.with_generator(generator))).await;
    register("able", "5.4.2", &origin).await;
    assert_eq!(
        applied(&server, &folder, "").await.unwrap_err(),
        "400 web.container: line 3: podman of machine able: converting \"web.container\": \
            unsupported key 'Foo' in group 'Container' in web.container"
    );
}
