//! Who may speak with whom: the authority of a cluster, the certificates of its members, TLS
//! between them and the witness, and the one-time codes by which a new one is let in.
//!
//! What is kept on disk, the text of a code and the exchange of a join are written down in
//! `docs/trust.md`. The join is decided by plain functions on bytes; [`accept`], [`connect`]
//! and [`reachable`] are the only ones that touch a socket.

mod authority;
mod base32;
mod code;
mod connection;
mod files;
mod fingerprint;
pub mod fuzz;
mod join;
mod open_codes;
mod owner;
mod refusal;
mod tls;
mod trust;
mod verify;

pub use authority::{Authority, AuthorityError, PublicKey, anchor, cluster_of_authority};
pub use code::{ADDRESSES_MAX, Code, CodeError, CodeKind, Secret};
pub use connection::{Accepted, HANDSHAKE_MAX, accept, connect, nobody, reachable};
pub use fingerprint::Fingerprint;
pub use join::{
    Admission, Asking, JOIN_MESSAGE_BYTES_MAX, JoinError, JoinRefusal, Joined, PAYLOAD_BYTES_MAX,
    admit,
};
pub use open_codes::{CODES_MAX, CodeRefusal, CodesError, OpenCodes};
pub use owner::{NAME_BYTES_MAX, Owner, OwnerError};
pub use refusal::{Refusal, RefusalCounts, RefusalKind};
pub use tls::{
    ALPN_JOIN, ALPN_PEER, client_of_witness, joining_client, member_client, member_server,
    open_server, self_signed, witness_id_of,
};
pub use trust::{Trust, TrustError};
pub use verify::{Authorities, Members, OneCluster, Requirement};
