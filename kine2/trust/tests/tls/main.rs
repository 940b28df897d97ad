//! Members, joiners and strangers over real connections.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: what fails here fails the test"
)]

mod join;
mod members;
mod renewal;
mod stranger;
mod witness;

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use kine2_replication::{ClusterId, NodeRef};
use kine2_trust::{Accepted, Refusal, Trust, accept};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};

pub(crate) const CLUSTER: ClusterId = ClusterId(0xc1);
pub(crate) const DAY: Duration = Duration::from_secs(24 * 3600);

pub(crate) fn node(name: &str) -> NodeRef {
    NodeRef::new(name, 0xa1)
}

/// The first node of a cluster, made at the time.
pub(crate) fn first(dir: &Path, cluster: ClusterId, made: SystemTime) -> Trust {
    Trust::init(&dir.join("tls"), cluster, &node("a"), made).unwrap()
}

/// Both ends of a connection on loopback.
pub(crate) async fn ends() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (here, there) = tokio::join!(TcpStream::connect(address), listener.accept());
    (here.unwrap(), there.unwrap().0)
}

/// `server` takes the call of `client`: what both make of it.
pub(crate) async fn meet<R>(
    server: &Trust,
    client: impl AsyncFnOnce(TcpStream) -> R,
) -> (Result<Accepted, Refusal>, R) {
    let (here, there) = ends().await;
    // What the server takes is dropped at once, so that a client that reads sees the end.
    let serve = async {
        let mut accepted = accept(server, there).await;
        if let Ok(Accepted::Member(stream, _)) = &mut accepted {
            let _ = tokio::io::AsyncWriteExt::shutdown(stream).await;
        }
        accepted
    };
    tokio::join!(serve, client(here))
}

/// Reads: what the other side has to say.
pub(crate) async fn first_read(mut stream: impl tokio::io::AsyncRead + Unpin) -> io::Result<u8> {
    stream.read_u8().await
}
