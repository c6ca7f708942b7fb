//! `Store::check`: says of each document what is wrong, and nothing of a sound store.

use std::sync::Arc;

use expect_test::expect;
use fleet_core::model::{DesiredState, UnitRecord};
use fleet_core::name::UnitName;
use fleetd::store::Store;
use fleetd::store::embedded::EmbeddedKv;
use fleetd::store::kv::{Change, Kv};

use crate::put;

async fn submit(store: &Store, name: &str, text: &str) {
    let record = UnitRecord {
        desired: DesiredState::Launched,
        ..UnitRecord::new(UnitName::trusted(name), text)
    };
    store.put_unit(&record, None, true).await.unwrap();
}

#[tokio::test]
async fn a_sound_store_has_nothing_to_say_and_a_spoilt_one_names_each_document() {
    let folder = tempfile::tempdir().unwrap();
    let kv = Arc::new(EmbeddedKv::open(folder.path().join("store")).await.unwrap());
    let store = Store::new(kv.clone(), "/fleet/");
    for name in ["a.service", "b.service", "c.service"] {
        submit(&store, name, "[Service]\nExecStart=/bin/a\n").await;
    }
    let sound = store.check().await.unwrap();
    expect![[r#"
        units              3 keys         705 bytes, the largest 213
        texts              3 keys         192 bytes, the largest 27
        The store is sound at revision 4.
    "#]]
    .assert_eq(&sound.to_string());
    assert!(sound.is_sound());

    submit(&store, "large.service", &"#x".repeat(600_000)).await;
    let record =
        String::from_utf8(kv.get("/fleet/units/a.service").await.unwrap().0.unwrap().value)
            .unwrap();
    let changes = [
        put("/fleet/units/b.service", "half a docu"),
        put("/fleet/units/c.service", &record.replace("\"v\":1", "\"v\":9")),
        put("/fleet/units/d.service", &record),
        put("/fleet/machines/x", "{\"v\":1,\"id\":\"y\"}"),
        put("/fleet/leader", "{\"v\":1,\"machine\":\"nobody\",\"since_ms\":0}"),
        put("/fleet/assignments/x", "{}"),
        put("/fleet/reports/x", "{\"generation\":\"all\"}"),
        put("/fleet/moods/x", "good"),
        put("/fleet/units/../../udev-evil.rules", &record),
        put("/fleet/units/app-.service", &record.replace("a.service", "app-.service")),
        put("/fleet/assignments/../x", "{\"v\":1,\"generation\":1,\"instances\":{}}"),
        put("/fleet.events/nonsense", "nonsense"),
        put("/fleet.revisions/gone.service/0000000003", "[Service]\n"),
        put("/fleet.revisions/stray", "[Service]\n"),
        Change::Delete { key: "/fleet.revisions/a.service/0000000001".into() },
    ];
    kv.txn(&[], &changes).await.unwrap();
    let spoilt = store.check().await.unwrap();
    expect![[r#"
        assignments        2 keys          82 bytes, the largest 37
        other              1 keys          52 bytes, the largest 39
        machines           1 keys          33 bytes, the largest 16
        unknown            1 keys          18 bytes, the largest 4
        reports            1 keys          36 bytes, the largest 20
        units              7 keys     1201440 bytes, the largest 1200188
        texts              5 keys     1200251 bytes, the largest 1200000
        events             1 keys          30 bytes, the largest 8
        BAD  /fleet.events/nonsense: it cannot be read: expected ident at line 1 column 2; delete it; events are for people only
        BAD  /fleet.revisions/a.service/0000000001: text 1 of a.service is missing; submit the unit again with another text; where it runs it goes on
        BAD  /fleet.revisions/app-.service/0000000001: text 1 of app-.service is missing; submit the unit again with another text; where it runs it goes on
        note /fleet.revisions/gone.service/0000000003: a text of gone.service, which is no unit any more; delete it, it only takes space
        note /fleet.revisions/stray: this fleetd does not know what it is; a later version may; else delete it
        BAD  /fleet/assignments/../x: "../x" is no machine's id; nobody reads it; delete it
        BAD  /fleet/assignments/x: it cannot be read: missing field `v` at line 1 column 2; repair it or delete it (`etcdctl get`, `etcdctl put`); nothing new is planned before
        BAD  /fleet/leader: it has no lease, so no fleetd wrote it, and it never ends; delete it; another leader is elected
        BAD  /fleet/machines/x: it has no lease, so no fleetd wrote it, and it never ends; delete it; that machine registers again when its fleetd is restarted
        BAD  /fleet/machines/x: it calls itself y; somebody copied it by hand; delete it
        note /fleet/moods/x: this fleetd does not know what it is; a later version may; else delete it
        BAD  /fleet/reports/x: it cannot be read: invalid type: string "all", expected u64 at line 1 column 19; delete it and restart fleetd on that machine, which writes it anew; until then the leader takes that machine for one that has not reported
        BAD  /fleet/units/../../udev-evil.rules: "../../udev-evil.rules" is no unit's name: invalid unit type: "rules"; nobody reads it; delete it (`curl --unix-socket /run/fleet.sock -X DELETE http://localhost/fleet/v1/units/..%2F..%2Fudev-evil.rules`)
        BAD  /fleet/units/app-.service: app-.service stands for every app-*.service to systemd; choose a name that does not end in "-"; destroy it and submit it under another name; machines that do not run it yet refuse it
        BAD  /fleet/units/b.service: it cannot be read: expected value at line 1 column 1; delete it (`curl --unix-socket /run/fleet.sock -X DELETE http://localhost/fleet/v1/units/b.service`) and submit it again; nothing new is planned before
        BAD  /fleet/units/c.service: it has format 9, this fleetd knows 1; a newer fleetd wrote it; upgrade this one
        BAD  /fleet/units/d.service: it calls itself a.service; somebody copied it by hand; delete it
        note /fleet/units/large.service: 1200188 of 1450000 bytes; make it smaller
        14 documents need a person at revision 7.
    "#]].assert_eq(&spoilt.to_string());
    assert!(!spoilt.is_sound());
    // What names no unit and no machine is passed over, holds up nobody, and can be deleted. So is
    // a report that cannot be read.
    let mirror = store.read_all().await.unwrap();
    let passed_over: Vec<&str> = mirror.passed_over().keys().map(String::as_str).collect();
    assert_eq!(
        passed_over,
        ["/fleet/assignments/../x", "/fleet/reports/x", "/fleet/units/../../udev-evil.rules"]
    );
    assert!(mirror.passed_over().keys().all(|key| !mirror.corrupt().contains_key(key)));
    assert!(mirror.cluster().snapshot.units.keys().all(|name| !name.as_str().contains('/')));
    assert!(store.delete_misnamed("../../udev-evil.rules").await.unwrap().is_some());
    for none in ["../../udev-evil.rules", "b.service", ""] {
        assert_eq!(store.delete_misnamed(none).await.unwrap(), None, "{none:?}");
    }
    // What a person mends is no longer named.
    kv.txn(&[], &[put("/fleet/units/b.service", &record.replace("a.service", "b.service"))])
        .await
        .unwrap();
    assert!(
        store
            .check()
            .await
            .unwrap()
            .problems
            .iter()
            .all(|problem| problem.key != "/fleet/units/b.service")
    );
}

#[tokio::test]
async fn a_machine_s_address_that_is_none_is_named_and_not_taken() {
    let folder = tempfile::tempdir().unwrap();
    let kv = Arc::new(EmbeddedKv::open(folder.path().join("store")).await.unwrap());
    let store = Store::new(kv.clone(), "/fleet/");
    let record = r#"{"v":1,"id":"m1","address":"-oProxyCommand=x","api":"http://u@h:1/"}"#;
    let lease = Some(store.grant(std::time::Duration::from_secs(60)).await.unwrap());
    let key = "/fleet/machines/m1".to_string();
    kv.txn(&[], &[Change::Put { key, value: record.into(), lease }]).await.unwrap();
    let check = store.check().await.unwrap();
    let counts = "is no address; it counts as not known";
    let addresses = check.problems.iter().filter(|problem| problem.problem.contains("address"));
    let said: Vec<&str> = addresses.clone().map(|problem| problem.problem.as_str()).collect();
    assert_eq!(
        said,
        [format!("\"-oProxyCommand=x\" {counts}"), format!("\"http://u@h:1/\" {counts}")]
    );
    assert!(addresses.clone().all(|problem| !problem.harms), "the machine is there all the same");
    let mirror = store.read_all().await.unwrap();
    let machine = &mirror.cluster().snapshot.machines["m1"];
    assert_eq!((machine.address.as_str(), machine.api.as_deref()), ("", None));
}

#[tokio::test]
async fn a_remedy_can_be_pasted_for_a_name_with_a_backslash() {
    let folder = tempfile::tempdir().unwrap();
    let kv = Arc::new(EmbeddedKv::open(folder.path().join("store")).await.unwrap());
    let store = Store::new(kv.clone(), "/fleet/");
    kv.txn(&[], &[put("/fleet/units/a\\x2db.service", "half a docu")]).await.unwrap();
    let remedy = store.check().await.unwrap().problems.remove(0).remedy;
    assert!(remedy.contains("http://localhost/fleet/v1/units/a%5Cx2db.service`"), "{remedy}");
}
