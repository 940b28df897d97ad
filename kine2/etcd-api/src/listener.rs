//! Where clients connect: TCP and unix sockets.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::str::FromStr;
use std::task::{Context, Poll};
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// Connections the kernel keeps for us until they are accepted.
const BACKLOG: u32 = 1024;
/// Silence after which the kernel asks for an answer, and how often it asks then.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// Only the owner may connect to a unix socket.
const SOCKET_MODE: u32 = 0o600;

/// An address to listen on: `http://host:port`, `https://host:port`, `unix://path` or
/// `unixs://path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenUrl {
    /// Whether connections are encrypted.
    pub tls: bool,
    /// Where.
    pub address: ListenAddress,
}

/// The address of a [`ListenUrl`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// `host:port`; the host may be a name.
    Tcp(String),
    /// Path of a socket.
    Unix(PathBuf),
}

/// A text that is not a [`ListenUrl`].
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "{url:?} is not an address to listen on: expected http://HOST:PORT, https://HOST:PORT, \
     unix://PATH or unixs://PATH"
)]
pub struct ListenUrlError {
    url: String,
}

impl FromStr for ListenUrl {
    type Err = ListenUrlError;

    fn from_str(url: &str) -> Result<Self, ListenUrlError> {
        let error = || ListenUrlError {
            url: url.to_owned(),
        };
        let (scheme, rest) = url.split_once("://").ok_or_else(error)?;
        let tls = matches!(scheme, "https" | "unixs");
        let address = match scheme {
            "http" | "https" => {
                let host_port = rest.strip_suffix('/').unwrap_or(rest);
                let (host, port) = host_port.rsplit_once(':').ok_or_else(error)?;
                if host.is_empty() || host.contains('/') || port.parse::<u16>().is_err() {
                    return Err(error());
                }
                ListenAddress::Tcp(host_port.to_owned())
            }
            "unix" | "unixs" if !rest.is_empty() => ListenAddress::Unix(rest.into()),
            _ => return Err(error()),
        };
        Ok(Self { tls, address })
    }
}

impl fmt::Display for ListenUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.address, self.tls) {
            (ListenAddress::Tcp(address), false) => write!(f, "http://{address}"),
            (ListenAddress::Tcp(address), true) => write!(f, "https://{address}"),
            (ListenAddress::Unix(path), false) => write!(f, "unix://{}", path.display()),
            (ListenAddress::Unix(path), true) => write!(f, "unixs://{}", path.display()),
        }
    }
}

/// A bound socket.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// The file of a unix socket, removed when the listener goes.
#[derive(Debug)]
pub(crate) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // It may be gone already; nobody is left to tell.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Listener {
    /// Binds. Must be called within a runtime.
    pub(crate) fn bind(address: &ListenAddress) -> io::Result<Self> {
        match address {
            ListenAddress::Tcp(host_port) => bind_tcp(host_port).map(Self::Tcp),
            ListenAddress::Unix(path) => bind_unix(path),
        }
    }

    /// The address it is bound to; the port is set if 0 was asked for.
    pub(crate) fn address(&self) -> io::Result<ListenAddress> {
        Ok(match self {
            Self::Tcp(listener) => ListenAddress::Tcp(listener.local_addr()?.to_string()),
            Self::Unix(_, SocketFile(path)) => ListenAddress::Unix(path.clone()),
        })
    }

    /// Waits for the next connection. Cancel-safe.
    pub(crate) async fn accept(&self) -> io::Result<Connection> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                if let Err(error) = set_options(&stream) {
                    tracing::debug!(%error, "cannot set the options of a connection");
                }
                Ok(Connection::Tcp(stream))
            }
            Self::Unix(listener, _) => Ok(Connection::Unix(listener.accept().await?.0)),
        }
    }
}

fn bind_tcp(host_port: &str) -> io::Result<TcpListener> {
    let mut addresses: Vec<SocketAddr> = host_port.to_socket_addrs()?.collect();
    // A name that has both is expected to answer to the older protocol.
    addresses.sort_by_key(SocketAddr::is_ipv6);
    let mut failure = io::Error::new(io::ErrorKind::AddrNotAvailable, "the name has no address");
    for address in addresses {
        match listen_tcp(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn listen_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    use tokio::net::TcpSocket;
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn set_options(stream: &TcpStream) -> io::Result<()> {
    use rustix::net::sockopt;
    // Answers are small and wanted at once.
    stream.set_nodelay(true)?;
    // Whoever loses power says no goodbye.
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL)?;
    Ok(())
}

/// A socket left behind by a process that is gone is replaced; one that answers is not.
fn bind_unix(path: &Path) -> io::Result<Listener> {
    if let Ok(metadata) = std::fs::symlink_metadata(path) {
        if !metadata.file_type().is_socket() {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "there is a file that is not a socket",
            ));
        }
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                "another process listens on it",
            ));
        }
    }
    // Under another name until only the owner may connect.
    let mut draft = path.to_owned().into_os_string();
    draft.push("~");
    let draft = SocketFile(draft.into());
    if draft.0.exists() {
        std::fs::remove_file(&draft.0)?;
    }
    let listener = UnixListener::bind(&draft.0)?;
    std::fs::set_permissions(&draft.0, std::fs::Permissions::from_mode(SOCKET_MODE))?;
    std::fs::rename(&draft.0, path)?;
    Ok(Listener::Unix(listener, SocketFile(path.to_owned())))
}

/// A connection of either kind.
#[derive(Debug)]
pub(crate) enum Connection {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Calls the same method of whichever stream it is.
macro_rules! on_stream {
    ($connection:expr, $stream:ident => $call:expr) => {
        match $connection.get_mut() {
            Connection::Tcp(stream) => {
                let $stream = Pin::new(stream);
                $call
            }
            Connection::Unix(stream) => {
                let $stream = Pin::new(stream);
                $call
            }
        }
    };
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        on_stream!(self, stream => stream.poll_read(context, buffer))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        on_stream!(self, stream => stream.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on_stream!(self, stream => stream.poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(self, stream => stream.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(self, stream => stream.poll_shutdown(context))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_shown() {
        for url in [
            "http://0.0.0.0:2379",
            "https://[::1]:2379",
            "http://localhost:0",
            "unix:///run/kine2/kine2.sock",
            "unixs://kine2.sock",
        ] {
            assert_eq!(url.parse::<ListenUrl>().unwrap().to_string(), url);
        }
        for url in [
            "",
            "0.0.0.0:2379",
            "ftp://a:1",
            "http://a",
            "http://:2379",
            "http://a:b",
            "unix://",
        ] {
            assert!(url.parse::<ListenUrl>().is_err(), "{url:?}");
        }
    }

    #[tokio::test]
    async fn a_socket_nobody_answers_on_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        let address = ListenAddress::Unix(path.clone());
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());

        let listener = Listener::bind(&address).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, SOCKET_MODE);
        let second = Listener::bind(&address).unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        assert!(!path.exists());

        std::fs::write(&path, "not a socket").unwrap();
        assert!(Listener::bind(&address).is_err());
        assert!(path.exists());
    }
}
