//! The first words on a connection: who speaks, for what, in which version.

use std::io;

use bytes::BytesMut;
use kine2_proto::kine2::{Greeting, Purpose, Welcome};
use kine2_replication::{ClusterId, NodeRef};
use kine2_trust::Refusal;
use thiserror::Error;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::Stream;
use crate::framing::{FramingError, MessageReader, put};
use crate::wire::{WireError, node_from_wire, node_to_wire};

/// Version of the protocol that is spoken; [`PROTOCOL_VERSION_MIN`] is the lowest understood.
pub const PROTOCOL_VERSION: u32 = 1;
const PROTOCOL_VERSION_MIN: u32 = 1;
/// Bytes of the longest greeting and welcome.
pub(crate) const GREETING_BYTES_MAX: usize = 4 << 10;

/// Why a connection was not made.
#[derive(Debug, Error)]
pub enum GreetingError {
    /// It failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What came is no message.
    #[error(transparent)]
    Framing(#[from] FramingError),
    /// A message is malformed.
    #[error("{0}")]
    Wire(#[from] WireError),
    /// It ended at once.
    #[error("the connection ended before it was answered")]
    Ended,
    /// No handshake, or not with a node of this cluster.
    #[error(transparent)]
    Handshake(#[from] Refusal),
    /// Whoever speaks says to be somebody else than the certificate names.
    #[error("{claimed:?} speaks with the certificate of {certified:?}")]
    Impostor {
        /// Who it says to be.
        claimed: NodeRef,
        /// Whose certificate it has.
        certified: NodeRef,
    },
    /// It is of another cluster.
    #[error("it is of cluster {0:x}")]
    Cluster(u128),
    /// There is no version both speak.
    #[error(
        "it speaks versions {0} to {1}; {PROTOCOL_VERSION_MIN} to {PROTOCOL_VERSION} are spoken here"
    )]
    Version(u32, u32),
    /// The other side refused.
    #[error("the other side refused: {0}")]
    Refused(String),
    /// The node that answers has the name of this one.
    #[error("{0:?}, which answers there, has the name of this node")]
    OwnName(NodeRef),
    /// No link to the peer is up.
    #[error("the peer is not connected")]
    NoLink,
    /// It took too long.
    #[error("the other side did not answer in time")]
    Late,
}

impl GreetingError {
    /// Whether the machine asked said that nobody listens there.
    pub(crate) fn is_refused(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused)
    }
}

/// Who this node is.
#[derive(Clone, Debug)]
pub(crate) struct Me {
    pub(crate) cluster: ClusterId,
    pub(crate) node: NodeRef,
    pub(crate) boot: u64,
    pub(crate) client_urls: Vec<String>,
}

impl Me {
    /// Greets on a connection made to the peer, and waits for its welcome.
    pub(crate) async fn greet(
        &self,
        mut stream: Stream,
        purpose: Purpose,
    ) -> Result<MessageReader<Stream>, GreetingError> {
        let greeting = Greeting {
            version: PROTOCOL_VERSION,
            version_min: PROTOCOL_VERSION_MIN,
            purpose: purpose.into(),
            cluster: self.cluster.0.to_be_bytes().to_vec().into(),
            from: Some(node_to_wire(&self.node)),
            boot: self.boot,
            client_urls: self.client_urls.clone(),
        };
        write(&mut stream, &greeting).await?;
        let mut reader = MessageReader::new(stream, GREETING_BYTES_MAX);
        let welcome: Option<Welcome> = reader.next().await?;
        let welcome = welcome.ok_or(GreetingError::Ended)?;
        if !welcome.refused.is_empty() {
            return Err(GreetingError::Refused(welcome.refused));
        }
        Ok(reader)
    }

    /// Reads the greeting on a connection that came in from the node `certified`.
    pub(crate) async fn welcome(
        &self,
        stream: Stream,
        certified: NodeRef,
    ) -> Result<Welcomed, GreetingError> {
        let mut reader = MessageReader::new(stream, GREETING_BYTES_MAX);
        let greeting: Option<Greeting> = reader.next().await?;
        let greeting = greeting.ok_or(GreetingError::Ended)?;
        let checked = self.check(&greeting, &certified);
        let refused = checked.as_ref().err().map(ToString::to_string);
        let welcome = Welcome {
            version: PROTOCOL_VERSION.min(greeting.version),
            refused: refused.unwrap_or_default(),
            boot: self.boot,
        };
        write(reader.stream_mut(), &welcome).await?;
        Ok(Welcomed {
            purpose: checked?,
            from: certified,
            client_urls: greeting.client_urls,
            reader,
        })
    }

    fn check(&self, greeting: &Greeting, certified: &NodeRef) -> Result<Purpose, GreetingError> {
        let (low, high) = (greeting.version_min, greeting.version);
        if low > PROTOCOL_VERSION || high < PROTOCOL_VERSION_MIN {
            return Err(GreetingError::Version(low, high));
        }
        let claimed = node_from_wire(greeting.from.as_ref())?;
        if claimed != *certified {
            let certified = certified.clone();
            return Err(GreetingError::Impostor { claimed, certified });
        }
        if greeting.cluster[..] != self.cluster.0.to_be_bytes() {
            let bytes = greeting.cluster[..].try_into().unwrap_or([0; 16]);
            return Err(GreetingError::Cluster(u128::from_be_bytes(bytes)));
        }
        match greeting.purpose() {
            Purpose::Unknown => Err(WireError::Missing("the connection's purpose").into()),
            purpose => Ok(purpose),
        }
    }
}

/// A connection that came in and greeted well.
#[derive(Debug)]
pub(crate) struct Welcomed {
    pub(crate) purpose: Purpose,
    pub(crate) from: NodeRef,
    pub(crate) client_urls: Vec<String>,
    pub(crate) reader: MessageReader<Stream>,
}

/// Writes one message.
pub(crate) async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &impl prost::Message,
) -> io::Result<()> {
    let mut out = BytesMut::new();
    put(&mut out, message);
    stream.write_all(&out).await?;
    stream.flush().await
}
