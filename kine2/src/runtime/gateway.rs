//! Asking a gateway whether this node is on the network: one ICMP echo to each address.
//!
//! A datagram socket of ICMP needs no privilege where `net.ipv4.ping_group_range` holds the
//! group of the process; a raw one needs `CAP_NET_RAW`. Either will do. RFC 792, RFC 4443.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::Context;
use kine2_replication::{Arbiter, LonePolicy};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, ipproto, socket_with};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tracing::debug;

/// Type of a request, and of the reply to it, of either version.
const ECHO_REQUEST_V4: u8 = 8;
const ECHO_REPLY_V4: u8 = 0;
const ECHO_REQUEST_V6: u8 = 128;
const ECHO_REPLY_V6: u8 = 129;
/// Bytes before the payload.
const HEADER_BYTES: usize = 8;
/// Random, so that no reply to another question is taken for the one to this.
const NONCE_BYTES: usize = 16;
/// An IP header of version 4 with all options, before the message on a raw socket.
const IP_HEADER_BYTES_MAX: usize = 60;

/// The addresses that this arbiter has asked; none under another.
pub(super) fn gateways(arbiter: &Arbiter) -> &[IpAddr] {
    match arbiter {
        Arbiter::None(LonePolicy::Ping(gateways)) => gateways,
        Arbiter::None(LonePolicy::Stop | LonePolicy::PreferPrimary) | Arbiter::Witness { .. } => {
            &[]
        }
    }
}

/// Whether this process may ask these addresses.
///
/// # Errors
/// If neither kind of socket is permitted; names what would permit one.
pub(super) fn check_permitted(gateways: &[IpAddr]) -> anyhow::Result<()> {
    for gateway in gateways {
        open(*gateway).with_context(|| {
            format!(
                "policy ping cannot ask {gateway}: it takes CAP_NET_RAW (AmbientCapabilities= in \
                 the unit), or a sysctl net.ipv4.ping_group_range that holds this process's group"
            )
        })?;
    }
    Ok(())
}

/// Whether one of the addresses answers within this time.
pub(super) async fn any_answers(gateways: &[IpAddr], within: Duration) -> bool {
    let mut echoes = JoinSet::new();
    for gateway in gateways.iter().copied() {
        echoes.spawn(async move {
            match tokio::time::timeout(within, echo(gateway)).await {
                Ok(Ok(())) => true,
                Ok(Err(error)) => {
                    debug!(%gateway, %error, "the gateway is not reached");
                    false
                }
                Err(_elapsed) => false,
            }
        });
    }
    while let Some(answered) = echoes.join_next().await {
        if matches!(answered, Ok(true)) {
            return true;
        }
    }
    false
}

/// A way to the address, and whether it is raw.
struct Way {
    socket: OwnedFd,
    is_raw: bool,
}

fn open(gateway: IpAddr) -> io::Result<Way> {
    let (family, protocol) = match gateway {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6),
    };
    let socket = |kind| -> rustix::io::Result<OwnedFd> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        socket_with(family, kind, flags, Some(protocol))
    };
    match socket(SocketType::DGRAM) {
        Ok(socket) => Ok(Way {
            socket,
            is_raw: false,
        }),
        Err(Errno::ACCESS | Errno::PERM | Errno::PROTONOSUPPORT) => Ok(Way {
            socket: socket(SocketType::RAW)?,
            is_raw: true,
        }),
        Err(error) => Err(error.into()),
    }
}

/// Returns once the address has answered.
async fn echo(gateway: IpAddr) -> io::Result<()> {
    let Way { socket, is_raw } = open(gateway)?;
    // From here on only what comes from this address is received.
    connect(&socket, &SocketAddr::new(gateway, 0))?;
    let mut nonce = [0; NONCE_BYTES];
    getrandom::fill(&mut nonce).map_err(io::Error::other)?;
    let request = request(gateway, &nonce);
    // What sends and receives messages of one kind does so with those of another.
    let socket = UdpSocket::from_std(socket.into())?;
    socket.send(&request).await?;
    loop {
        let mut message = [0; IP_HEADER_BYTES_MAX + HEADER_BYTES + NONCE_BYTES];
        let count = socket.recv(&mut message).await?;
        let has_ip_header = is_raw && gateway.is_ipv4();
        if is_reply(gateway, &message[..count], has_ip_header, &nonce) {
            return Ok(());
        }
    }
}

/// The message; the system puts in what is its own: the identifier on a datagram socket, the
/// checksum of version 6.
fn request(gateway: IpAddr, nonce: &[u8; NONCE_BYTES]) -> [u8; HEADER_BYTES + NONCE_BYTES] {
    let mut message = [0; HEADER_BYTES + NONCE_BYTES];
    message[0] = match gateway {
        IpAddr::V4(_) => ECHO_REQUEST_V4,
        IpAddr::V6(_) => ECHO_REQUEST_V6,
    };
    // The identifier: other programs of this machine ask, too.
    message[4..6].copy_from_slice(&nonce[..2]);
    message[HEADER_BYTES..].copy_from_slice(nonce);
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

fn is_reply(gateway: IpAddr, bytes: &[u8], has_ip_header: bool, nonce: &[u8; NONCE_BYTES]) -> bool {
    let skipped = match (has_ip_header, bytes.first()) {
        (true, Some(first)) => usize::from(first & 0xf) * 4,
        _ => 0,
    };
    let reply = match gateway {
        IpAddr::V4(_) => ECHO_REPLY_V4,
        IpAddr::V6(_) => ECHO_REPLY_V6,
    };
    let message = bytes.get(skipped..).unwrap_or_default();
    message.len() == HEADER_BYTES + NONCE_BYTES
        && message[..2] == [reply, 0]
        && message[HEADER_BYTES..] == *nonce
}

/// RFC 1071.
fn checksum(message: &[u8]) -> u16 {
    let words = message.chunks_exact(2);
    let sum: u32 = words
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    !u16::try_from(folded).expect("two folds leave 16 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_of_a_message_with_its_checksum_is_zero() {
        let message = request([192, 0, 2, 1].into(), &[0xab; NONCE_BYTES]);
        assert_eq!(checksum(&message), 0);
    }

    #[test]
    fn only_the_reply_with_the_nonce_counts() {
        let gateway = IpAddr::from([192, 0, 2, 1]);
        let nonce = [7; NONCE_BYTES];
        let mut reply = request(gateway, &nonce);
        assert!(!is_reply(gateway, &reply, false, &nonce), "the own request");
        reply[0] = ECHO_REPLY_V4;
        assert!(is_reply(gateway, &reply, false, &nonce));
        assert!(!is_reply(gateway, &reply, false, &[8; NONCE_BYTES]));
        assert!(!is_reply(gateway, &reply[..20], false, &nonce));
        let mut with_header = vec![0x45; 20];
        with_header.extend(reply);
        assert!(is_reply(gateway, &with_header, true, &nonce));
        assert!(!is_reply(gateway, &[], true, &nonce));
        assert!(!is_reply(gateway, &[0x4f], true, &nonce));
    }

    /// Where the machine permits it; a container may not.
    #[tokio::test]
    async fn this_machine_answers_itself_and_a_reserved_address_does_not() {
        let own = [IpAddr::from([127, 0, 0, 1])];
        if check_permitted(&own).is_err() {
            return;
        }
        assert!(any_answers(&own, Duration::from_secs(5)).await);
        // Reserved: nobody has it.
        let nobody = [IpAddr::from([240, 0, 0, 1])];
        assert!(!any_answers(&nobody, Duration::from_millis(50)).await);
        let some = [nobody[0], own[0]];
        assert!(any_answers(&some, Duration::from_secs(5)).await);
        let v6 = [IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])];
        if std::net::TcpListener::bind("[::1]:0").is_ok() {
            assert!(any_answers(&v6, Duration::from_secs(5)).await);
        }
    }
}
