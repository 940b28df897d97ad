//! Connections that the peer makes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use kine2_proto::kine2::{LinkEcho, Purpose};
use kine2_replication::{Body, NodeRef};
use kine2_trust::{Accepted, JOIN_MESSAGE_BYTES_MAX};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tracing::{debug, warn};

use crate::Stream;
use crate::dial::tune;
use crate::framing::{MESSAGE_BYTES_MAX, MessageReader, put};
use crate::greeting::{GreetingError, Welcomed};
use crate::net::{Inbound, Net};
use crate::wire::frame_from_wire;

/// Longest time from a connection to its greeting.
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections that have not greeted yet; more wait to be accepted.
const GREETINGS_MAX: usize = 32;
/// Pause after the machine could not accept a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A connection that is not for frames.
#[derive(Debug)]
pub enum Incoming {
    /// Of a node of the cluster.
    Member {
        /// What it is for.
        purpose: Purpose,
        /// Who made it.
        from: NodeRef,
        /// What comes on it.
        reader: MessageReader<Stream>,
    },
    /// Of a node that wants to join: its first message is what `kine2_trust::admit` reads.
    Joiner(MessageReader<Stream>),
}

/// Accepts connections for ever.
pub(crate) async fn accept(net: Arc<Net>, listener: TcpListener) {
    let greetings = Arc::new(Semaphore::new(GREETINGS_MAX));
    loop {
        let permit = Arc::clone(&greetings).acquire_owned().await;
        let permit = permit.expect("it is never closed");
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "a connection of the peer could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let net = Arc::clone(&net);
        tokio::spawn(async move {
            let greeted = tokio::time::timeout(GREETING_TIMEOUT, welcome(&net, stream)).await;
            drop(permit);
            let ended = match greeted {
                Ok(Ok(came)) => serve(&net, came).await,
                Ok(Err(error)) => {
                    net.stats.refused();
                    Err(error)
                }
                Err(_elapsed) => Err(GreetingError::Late),
            };
            match ended {
                Ok(()) => debug!(%address, "a connection of the peer ended"),
                Err(GreetingError::Io(error)) if is_end(&error) => {
                    debug!(%address, %error, "a connection of the peer ended");
                }
                Err(error) => warn!(%address, %error, "a connection was refused or ended"),
            }
        });
    }
}

fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::TimedOut
    )
}

async fn welcome(net: &Net, stream: TcpStream) -> Result<Came, GreetingError> {
    tune(&stream)?;
    match kine2_trust::accept(&net.trust, stream).await? {
        Accepted::Member(stream, owner) => {
            let stream = Stream::from(*stream);
            net.me.welcome(stream, owner.node).await.map(Came::Member)
        }
        Accepted::Joiner(stream) => {
            let stream = Stream::from(*stream);
            let reader = MessageReader::new(stream, JOIN_MESSAGE_BYTES_MAX);
            Ok(Came::Joiner(reader))
        }
    }
}

/// Who came and said what for.
#[derive(Debug)]
enum Came {
    Member(Welcomed),
    Joiner(MessageReader<Stream>),
}

async fn serve(net: &Net, came: Came) -> Result<(), GreetingError> {
    let welcomed = match came {
        Came::Member(welcomed) => welcomed,
        Came::Joiner(reader) => {
            net.hand_over(Incoming::Joiner(reader)).await;
            return Ok(());
        }
    };
    let Welcomed {
        purpose,
        from,
        client_urls,
        reader,
    } = welcomed;
    let reader = reader.with_bytes_max(MESSAGE_BYTES_MAX);
    if purpose != Purpose::Frames {
        net.hand_over(Incoming::Member {
            purpose,
            from,
            reader,
        })
        .await;
        return Ok(());
    }
    net.on_client_urls(client_urls);
    let (stream, rest) = reader.into_parts();
    let (read, mut write) = tokio::io::split(stream);
    let mut reader = MessageReader::with_rest(read, rest, MESSAGE_BYTES_MAX);
    while let Some(bytes) = reader.next_bytes().await? {
        net.stats.received(bytes.len());
        let frame = prost::Message::decode(bytes);
        let frame = frame_from_wire(frame.map_err(crate::framing::FramingError::from)?)?;
        if frame.from != from || frame.key.cluster != net.me.cluster {
            return Err(GreetingError::Impostor {
                claimed: frame.from,
                certified: from,
            });
        }
        if matches!(frame.body, Body::Heartbeat(_)) {
            let mut out = bytes::BytesMut::new();
            let number = frame.number;
            put(&mut out, &LinkEcho { number });
            write.write_all(&out).await?;
            write.flush().await?;
        }
        let _ = net.inbound.send(Inbound::Frame(Box::new(frame))).await;
    }
    Ok(())
}
