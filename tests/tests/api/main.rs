//! The HTTP API as programs see it: fleet 1.0's exchanges, the documents that describe it, and
//! foreign clients made of those.

mod acts;
mod apps;
mod clients;
mod config;
mod documents;
mod exchanges;
mod fencing;
mod follow;
mod history;
mod imports;
mod journals;
mod limits;
mod odd_files;
mod reboots;
mod server;
mod standing;
mod waiting;

use fleet_core::model::Machine;
use fleet_core::name::MachineId;

/// Serves routes on a port of the loopback; the answer is where.
pub(crate) async fn serve(routes: axum::Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let origin = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    origin
}

/// A machine without labels, whose API answers at `origin`.
pub(crate) fn machine(id: &str, origin: Option<&str>) -> Machine {
    Machine { api: origin.map(str::to_string), ..Machine::new(MachineId::new(id), "127.0.0.1") }
}
