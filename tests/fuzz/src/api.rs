//! Requests to the API, over a store on disk: no panic, no 5xx, errors in one form, and what was
//! accepted can be read back.

use std::cell::RefCell;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, header};
use fleet_core::name::MachineId;
use fleet_core::unit::file::UnitFile;
use fleet_core::wire;
use fleetd::api::{Api, router};
use fleetd::store::Store;
use fleetd::store::embedded::EmbeddedKv;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tower::ServiceExt as _;

/// Stands between two requests.
const NEXT: &[u8] = b"\n%%\n";

/// Longer stories find nothing that shorter ones do not, and take longer.
const MOST_REQUESTS: usize = 8;

/// The largest answer that is looked at, in bytes.
const ANSWER_LIMIT: usize = 16 << 20;

/// Streams without an end, and what runs a program of the host.
const LEFT_OUT: [&str; 3] = ["follow", "journal", "status"];

struct Server {
    runtime: Runtime,
    router: Router,
    _folder: TempDir,
}

thread_local! {
    static SERVER: RefCell<Option<Server>> = const { RefCell::new(None) };
}

/// `data` is some requests, each a line `METHOD PATH`, then the body, with lines of `%%` between
/// them.
pub fn api(data: &[u8]) {
    SERVER.with_borrow_mut(|server| {
        let server = server.get_or_insert_with(Server::start);
        let mut rest = Some(data);
        for _ in 0..MOST_REQUESTS {
            let Some(this) = rest else { break };
            let end = this.windows(NEXT.len()).position(|window| window == NEXT);
            rest = end.map(|end| &this[end + NEXT.len()..]);
            server.request(&this[..end.unwrap_or(this.len())]);
        }
        server.clear();
    });
}

impl Server {
    fn start() -> Server {
        // In memory where there is such a place: a disk would make each write wait.
        let memory = std::path::Path::new("/dev/shm");
        let folder = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }
            .expect("a folder for the store");
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let kv = runtime
            .block_on(EmbeddedKv::open(folder.path().join("store.redb")))
            .expect("an empty store");
        let machine = MachineId::new("0123456789abcdef0123456789abcdef");
        let router = router(Api::new(Store::new(Arc::new(kv), "/fleet/"), machine, String::new));
        Server { runtime, router, _folder: folder }
    }

    fn request(&self, data: &[u8]) {
        let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
        let body = data.get(end + 1..).unwrap_or_default();
        let Ok(line) = std::str::from_utf8(&data[..end]) else { return };
        let Some((method, path)) = line.split_once(' ') else { return };
        if LEFT_OUT.iter().any(|word| path.contains(word)) {
            return;
        }
        let Some((status, answer)) = self.send(method, path, body) else { return };
        assert!(!status.is_server_error(), "{line} {body:?}: {status} {answer:?}");
        if status.is_client_error() {
            let error: wire::ErrorBody = serde_json::from_slice(&answer).unwrap_or_else(|error| {
                panic!(
                    "{line} {body:?}: {status} with {:?}: {error}",
                    String::from_utf8_lossy(&answer)
                )
            });
            assert_eq!(error.error.code, status.as_u16(), "{line} {body:?}");
        }
        if method == "PUT" && status == StatusCode::CREATED {
            let (status, answer) = self.send("GET", path, b"").expect("it was a request before");
            assert_eq!(status, StatusCode::OK, "{line} {body:?} was accepted, and is not there");
            let unit: wire::Unit = serde_json::from_slice(&answer).expect("a unit");
            let text = unit.text.expect("the text of a unit of one's own");
            assert!(
                UnitFile::parse(&text).is_ok(),
                "{line} {body:?} was accepted, and is no unit file"
            );
        }
    }

    fn send(&self, method: &str, path: &str, body: &[u8]) -> Option<(StatusCode, Vec<u8>)> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::CONTENT_TYPE, "application/json");
        let request = request.body(Body::from(body.to_vec())).ok()?;
        Some(self.runtime.block_on(async {
            let response =
                self.router.clone().oneshot(request).await.unwrap_or_else(|never| match never {});
            let status = response.status();
            let answer = to_bytes(response.into_body(), ANSWER_LIMIT)
                .await
                .expect("an answer within the limit");
            (status, answer.to_vec())
        }))
    }

    /// Every input finds the same empty store.
    fn clear(&self) {
        loop {
            let (_, answer) =
                self.send("GET", "/fleet/v1/units?pageSize=1000", b"").expect("a list");
            let page: wire::UnitPage = serde_json::from_slice(&answer).expect("a page of units");
            // Replicas go with their templates.
            let own: Vec<_> =
                page.units.into_iter().filter(|unit| unit.template.is_empty()).collect();
            if own.is_empty() {
                return;
            }
            for unit in own {
                self.send("DELETE", &format!("/fleet/v1/units/{}", unit.name), b"");
            }
        }
    }
}
