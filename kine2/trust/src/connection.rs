//! The handshakes of members and joiners.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use rustls::pki_types::{DnsName, ServerName};
use rustls::server::Acceptor;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::{LazyConfigAcceptor, TlsConnector, client, server};

use crate::owner::Owner;
use crate::refusal::Refusal;
use crate::tls::{ALPN_JOIN, ALPN_PEER};
use crate::trust::Trust;

/// How long a handshake may take.
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(5);

/// Who came.
#[derive(Debug)]
pub enum Accepted {
    /// A member, and which.
    Member(Box<server::TlsStream<TcpStream>>, Owner),
    /// One that wants to join. Whether it may is seen by [`admit`](crate::admit).
    Joiner(Box<server::TlsStream<TcpStream>>),
}

/// Takes the connection of a member or joiner. A refusal is counted; to log it is the caller's.
///
/// # Errors
/// Why it was refused.
pub async fn accept(trust: &Trust, stream: TcpStream) -> Result<Accepted, Refusal> {
    let accepted = match timeout(HANDSHAKE_MAX, shake(trust, stream)).await {
        Ok(accepted) => accepted,
        Err(_) => Err(Refusal::Connection("the handshake took too long".into())),
    };
    accepted.inspect_err(|refusal| trust.refusals().count(refusal.kind()))
}

async fn shake(trust: &Trust, stream: TcpStream) -> Result<Accepted, Refusal> {
    let refused = |error: io::Error| Refusal::of_io(&error);
    let start = LazyConfigAcceptor::new(Acceptor::default(), stream);
    let start = start.await.map_err(refused)?;
    let offered = start.client_hello().alpn();
    let joins = offered.is_some_and(|mut names| names.any(|name| name == ALPN_JOIN));
    if joins {
        let stream = start.into_stream(trust.join_server_config()).await;
        return Ok(Accepted::Joiner(Box::new(stream.map_err(refused)?)));
    }
    let stream = start.into_stream(trust.peer_server_config()).await;
    let stream = stream.map_err(refused)?;
    let (_, session) = stream.get_ref();
    if session.alpn_protocol() != Some(ALPN_PEER) {
        let what = "it names no protocol that members speak";
        return Err(Refusal::Protocol(what.into()));
    }
    let certificates = session.peer_certificates().unwrap_or_default();
    let certificate = certificates.first().ok_or(Refusal::NoCertificate)?;
    let owner = Owner::of(certificate)?;
    Ok(Accepted::Member(Box::new(stream), owner))
}

/// Calls a member: whom was reached, by its certificate. A refusal is counted. That the *other* side
/// refuses is seen by the first read only: [`Refusal::of_io`].
///
/// # Errors
/// Why it was refused.
pub async fn connect(
    trust: &Trust,
    stream: TcpStream,
) -> Result<(client::TlsStream<TcpStream>, Owner), Refusal> {
    let connector = TlsConnector::from(trust.peer_client_config());
    let shake = async {
        let stream = connector.connect(nobody(), stream).await;
        let stream = stream.map_err(|error| Refusal::of_io(&error))?;
        let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let certificate = certificates.first().ok_or(Refusal::NoCertificate)?;
        let owner = Owner::of(certificate)?;
        Ok((stream, owner))
    };
    let connected = match timeout(HANDSHAKE_MAX, shake).await {
        Ok(connected) => connected,
        Err(_) => Err(Refusal::Connection("the handshake took too long".into())),
    };
    connected.inspect_err(|refusal| trust.refusals().count(refusal.kind()))
}

/// The address under which others most likely reach what listens there, as a code says it. For a
/// listener on all addresses it is the one this machine sends from.
///
/// # Errors
/// If this machine has no way to others.
pub fn reachable(listen: SocketAddr) -> io::Result<SocketAddr> {
    if !listen.ip().is_unspecified() {
        return Ok(listen);
    }
    // Connecting a UDP socket sends nothing; it shows the address that would be sent from.
    let elsewhere = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9);
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(elsewhere)?;
    Ok(SocketAddr::new(socket.local_addr()?.ip(), listen.port()))
}

/// The name TLS asks for. Servers are known by their certificate's owner, not by where they are, and
/// the name is not sent.
#[must_use]
pub fn nobody() -> ServerName<'static> {
    const NAME: &str = "kine2";
    let name = DnsName::try_from(NAME).expect("it is a name");
    ServerName::DnsName(name)
}
