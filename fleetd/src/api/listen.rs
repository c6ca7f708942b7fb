//! Where the API listens: sockets that systemd hands over, else a unix socket; and TCP, if configured.

use std::path::Path;

use anyhow::Context;
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::tls::{ServerTls, TlsListener};
use super::{Api, router};
use crate::config::Listen;

/// Open listeners.
pub struct Listeners {
    unix: Vec<UnixListener>,
    tcp: Vec<TcpListener>,
    tls: Vec<TlsListener>,
}

/// Takes over systemd's sockets; where there are none, binds `socket`. Binds each of `addresses`;
/// `tls` is for those that want it.
pub fn listen(socket: &Path, addresses: &[Listen], tls: Option<&ServerTls>) -> anyhow::Result<Listeners> {
    let mut listeners = Listeners { unix: Vec::new(), tcp: Vec::new(), tls: Vec::new() };
    let mut handed = listenfd::ListenFd::from_env();
    for index in 0..handed.len() {
        if let Ok(Some(unix)) = handed.take_unix_listener(index) {
            unix.set_nonblocking(true)?;
            listeners.unix.push(UnixListener::from_std(unix)?);
        } else if let Ok(Some(tcp)) = handed.take_tcp_listener(index) {
            tcp.set_nonblocking(true)?;
            listeners.tcp.push(TcpListener::from_std(tcp)?);
        }
    }
    if listeners.unix.is_empty() && listeners.tcp.is_empty() {
        listeners.unix.push(bind_unix(socket)?);
    }
    for Listen { address, tls: secure } in addresses {
        let url = format!("{}://{address}", if *secure { "https" } else { "http" });
        let tcp = std::net::TcpListener::bind(address).with_context(|| format!("cannot listen on {url}"))?;
        tcp.set_nonblocking(true)?;
        let tcp = TcpListener::from_std(tcp)?;
        match secure {
            false => listeners.tcp.push(tcp),
            true => {
                let tls = tls.with_context(|| format!("{url} without a certificate"))?;
                listeners.tls.push(TlsListener::new(tcp, tls.clone())?);
            }
        }
        info!("listening on {url}");
    }
    Ok(listeners)
}

/// Replaces a socket file that nobody listens on; refuses one that somebody does.
fn bind_unix(socket: &Path) -> anyhow::Result<UnixListener> {
    if std::os::unix::net::UnixStream::connect(socket).is_ok() {
        anyhow::bail!("{} is in use: another fleetd is running here", socket.display());
    }
    let _ = std::fs::remove_file(socket);
    let listener =
        std::os::unix::net::UnixListener::bind(socket).with_context(|| format!("cannot listen on {}", socket.display()))?;
    // Whoever may connect can run anything as root: root and its group only.
    std::fs::set_permissions(socket, std::os::unix::fs::PermissionsExt::from_mode(0o660))?;
    listener.set_nonblocking(true)?;
    Ok(UnixListener::from_std(listener)?)
}

/// Serves until `stop`; requests under way are cut off, follows among them.
pub async fn serve(api: Api, listeners: Listeners, stop: CancellationToken) {
    let app = router(api);
    let mut servers = tokio::task::JoinSet::new();
    for unix in listeners.unix {
        let app = app.clone();
        servers.spawn(async move { axum::serve(unix, app).await });
    }
    for tcp in listeners.tcp {
        let app = app.clone();
        servers.spawn(async move { axum::serve(tcp, app).await });
    }
    for tls in listeners.tls {
        let app = app.clone();
        servers.spawn(async move { axum::serve(tls, app).await });
    }
    tokio::select! {
        () = stop.cancelled() => {}
        ended = servers.join_next() => error!("a listener of the API ended: {ended:?}"),
    }
}
