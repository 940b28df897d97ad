//! What two nodes and their witness say to each other: as bytes, and over connections.
//!
//! [`wire`] turns the messages of the replication core and of the witness into those of
//! `proto/protos/kine2/peer.proto` and back; [`framing`] puts messages on a byte stream one after
//! the other. A [`PeerNet`] keeps a connection to the peer on every link: frames go out on the best,
//! signs of life on all ([`Links`] decides which is which), and what the peer opened comes in.

mod accept;
mod dial;
pub mod framing;
mod greeting;
mod links;
mod net;
mod queue;
pub mod wire;

pub use accept::Incoming;
pub use greeting::{GreetingError, PROTOCOL_VERSION};
pub use kine2_proto::kine2::Purpose;
pub use links::Links;
pub use net::{Inbound, InboundReceiver, PeerNet, PeerOptions, PeerStats};

/// A connection to the peer or from it.
pub type Stream = tokio_rustls::TlsStream<tokio::net::TcpStream>;
