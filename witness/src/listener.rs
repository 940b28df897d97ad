//! Takes connections, of nodes over TCP and of the operator on a unix socket.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt::{
    set_socket_keepalive, set_tcp_keepcnt, set_tcp_keepidle, set_tcp_keepintvl,
};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{sleep, timeout};

use crate::connection::Shared;
use crate::limits::{HANDSHAKES_MAX, WRITE_MAX};
use crate::service::{Input, SessionId};
use crate::status::Status;

/// After an error that a moment may end, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// Where `kine2-witness status` asks.
pub(crate) fn status_socket(dir: &Path) -> PathBuf {
    dir.join("status.sock")
}

/// Takes connections of nodes, for ever.
pub(crate) async fn listen(listener: TcpListener, shared: Arc<Shared>) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let mut number = 0;
    loop {
        let permit = Arc::clone(&handshakes).acquire_owned().await;
        let permit = permit.expect("it is never closed");
        match accept(&listener).await {
            Ok((stream, address)) => {
                number += 1;
                let serve = Arc::clone(&shared).serve(stream, address, SessionId(number), permit);
                tokio::spawn(serve);
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be taken");
                sleep(PAUSE).await;
            }
        }
    }
}

async fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (stream, address) = listener.accept().await?;
    stream.set_nodelay(true)?;
    // The kernel notices a host that is gone, should a session be silent for another reason.
    set_socket_keepalive(&stream, true)?;
    set_tcp_keepidle(&stream, Duration::from_secs(10))?;
    set_tcp_keepintvl(&stream, Duration::from_secs(5))?;
    set_tcp_keepcnt(&stream, 3)?;
    Ok((stream, address))
}

/// Opens the operator's socket; one that another run left is replaced.
pub(crate) fn bind_status(dir: &Path) -> io::Result<UnixListener> {
    let path = status_socket(dir);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Tells whoever connects how the witness is, for ever.
pub(crate) async fn tell_status(listener: UnixListener, shared: Arc<Shared>) {
    loop {
        let Ok((mut stream, _)) = listener.accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        let (done, status) = oneshot::channel();
        let cluster = None;
        if shared
            .inputs
            .send(Input::Status { cluster, done })
            .await
            .is_err()
        {
            return;
        }
        let Ok(status) = status.await else { return };
        let status: Status = serde_json::from_str(&status).expect("it was just written");
        let status = status.with_refused(&shared.counts);
        let mut text = serde_json::to_vec(&status).expect("it is plain data");
        text.push(b'\n');
        // Whether the other side reads it is its own affair.
        let _ = timeout(WRITE_MAX, stream.write_all(&text)).await;
    }
}
