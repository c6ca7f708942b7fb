//! `fleetctl fd-forward`: joins stdin and stdout to a unix socket, for whoever tunnels to this
//! host's fleetd over ssh.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use crate::error::{Error, Kind};

/// How long an answer may take after stdin has ended. fleetd takes a connection that is closed on
/// one side for a client that has gone, so the socket stays open until then; and no longer, or a
/// tunnel whose other end has gone would stay for ever.
const LAST_ANSWER: Duration = Duration::from_secs(10);

/// Connect stdin and stdout to a unix socket
///
/// fleet 1.0's --tunnel runs this on the other host.
#[derive(Debug, Args)]
pub(crate) struct FdForwardArgs {
    /// The socket
    #[arg(value_name = "SOCKET")]
    sockets: Vec<PathBuf>,
}

pub(crate) async fn run(args: FdForwardArgs) -> Result<u8, Error> {
    let [socket] = args.sockets.as_slice() else {
        return Err(Error::worded(Kind::Failed, "Provide a single argument"));
    };
    let failed =
        |problem: std::io::Error| Error::failed(format!("{}: {problem}", socket.display()));
    let mut stream = UnixStream::connect(socket).await.map_err(failed)?;
    let (mut from, mut to) = stream.split();
    let (mut stdin, mut stdout) = (tokio::io::stdin(), tokio::io::stdout());
    let up = tokio::io::copy(&mut stdin, &mut to);
    let down = async {
        tokio::io::copy(&mut from, &mut stdout).await?;
        stdout.flush().await
    };
    tokio::pin!(down);
    // When the socket has said all there is nothing to wait for; when stdin has, its answer may be
    // on the way.
    tokio::select! {
        ended = &mut down => return ended.map(|()| 0).map_err(failed),
        ended = up => ended.map_err(failed)?,
    };
    match tokio::time::timeout(LAST_ANSWER, &mut down).await {
        Ok(ended) => ended.map_err(failed)?,
        Err(_) => {
            to.shutdown().await.map_err(failed)?;
            down.await.map_err(failed)?;
        }
    }
    Ok(0)
}
