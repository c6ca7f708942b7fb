//! A fleetd whose machine id another one has.

use std::sync::Arc;

use fleetd::api::{Api, router};
use fleetd::machine::session::Standing;
use fleetd::store::Store;
use fleetd::store::embedded::EmbeddedKv;
use tokio::sync::watch;

#[tokio::test]
async fn a_fleetd_whose_machine_id_is_taken_answers_503_in_fleet_1_0s_words_and_why() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(
        Arc::new(EmbeddedKv::open(&folder.path().join("store.redb")).await.unwrap()),
        "/fleet/",
    );
    let standing = watch::Sender::new(Standing::Asked);
    let api = Api::new(store, fleet_core::name::MachineId::new("m"), || "counted 1\n".to_string());
    let origin = crate::serve(router(api.with_standing(standing.subscribe()))).await;
    let get = async |path: &str| {
        let answer = fleet_tests::http()
            .build()
            .unwrap()
            .get(format!("{origin}{path}"))
            .send()
            .await
            .unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    assert_eq!(get("/fleet/v1/machines").await.0, 200);
    standing.send_replace(Standing::Taken);
    for path in ["/fleet/v1/machines", "/fleet/v1/units", "/v1-alpha/state"] {
        let (status, body) = get(path).await;
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            (status, body["error"]["message"].as_str()),
            (503, Some("fleet server unable to communicate with etcd"))
        );
        assert!(
            body["error"]["detail"].as_str().unwrap().contains("this machine's id m"),
            "{body}"
        );
    }
    assert_eq!(get("/metrics").await.0, 200, "its metrics are its own");
    standing.send_replace(Standing::Own(None));
    assert_eq!(get("/fleet/v1/machines").await.0, 200);
}
