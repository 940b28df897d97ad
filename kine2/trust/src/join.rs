//! The join of a node, as functions on bytes: what the joiner asks, how it is admitted and answered,
//! and how the joiner checks the answer.
//!
//! The joiner has reached the server that its code names: the handshake checked the authority's
//! fingerprint. What it asks and what it is answered are one message each.

use std::fmt;
use std::time::SystemTime;

use bytes::Bytes;
use kine2_replication::{Incarnation, NodeRef};
use prost::Message;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls::pki_types::{CertificateDer, UnixTime};
use thiserror::Error;
use webpki::{EndEntityCert, KeyUsage};

use crate::authority::{Authority, AuthorityError, PublicKey, anchor};
use crate::code::{Code, CodeKind, Secret};
use crate::fingerprint::Fingerprint;
use crate::open_codes::{CodeRefusal, CodesError, OpenCodes};
use crate::owner::{NAME_BYTES_MAX, Owner};
use crate::refusal::RefusalKind;
use crate::verify::{check_issued, provider};

/// What joiner and member add to the exchange for their own purposes, at most.
pub const PAYLOAD_BYTES_MAX: usize = 64 << 10;
/// The longer of request and answer, at most.
pub const JOIN_MESSAGE_BYTES_MAX: usize = PAYLOAD_BYTES_MAX + (16 << 10);
/// Version of the messages; a higher one is refused.
const VERSION: u32 = 1;

#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(bytes = "bytes", tag = "2")]
    secret: Bytes,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(bytes = "bytes", tag = "4")]
    incarnation: Bytes,
    #[prost(bytes = "bytes", tag = "5")]
    public_key: Bytes,
    #[prost(bytes = "bytes", tag = "6")]
    payload: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct Answer {
    #[prost(oneof = "Outcome", tags = "1, 2")]
    outcome: Option<Outcome>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Outcome {
    #[prost(message, tag = "1")]
    Welcome(Welcome),
    /// Why not, in words for the operator.
    #[prost(string, tag = "2")]
    Refused(String),
}

#[derive(Clone, PartialEq, Message)]
struct Welcome {
    #[prost(bytes = "bytes", tag = "1")]
    certificate: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    authority_certificate: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    authority_key: Bytes,
    #[prost(bytes = "bytes", tag = "4")]
    payload: Bytes,
}

/// Why a joiner is not let in.
#[derive(Debug, Error)]
pub enum JoinRefusal {
    /// What it sent is not a request.
    #[error("the request is malformed in {0}")]
    Malformed(&'static str),
    /// It speaks another version.
    #[error("the joiner speaks version {0} of the join; up to {VERSION} is accepted")]
    Version(u32),
    /// Its code lets nobody in.
    #[error(transparent)]
    Code(#[from] CodeRefusal),
    /// The cluster does not take it.
    #[error("{0}")]
    Cluster(String),
    /// The codes cannot be read or written.
    #[error("the codes cannot be used: {0}")]
    Codes(#[from] CodesError),
    /// No certificate can be issued.
    #[error("no certificate can be issued: {0}")]
    Authority(#[from] AuthorityError),
}

impl JoinRefusal {
    /// What it is counted by.
    #[must_use]
    pub const fn kind(&self) -> RefusalKind {
        match self {
            Self::Malformed(_) | Self::Version(_) => RefusalKind::Protocol,
            Self::Code(_) | Self::Cluster(_) | Self::Codes(_) | Self::Authority(_) => {
                RefusalKind::Code
            }
        }
    }

    /// The message that tells the joiner.
    #[must_use]
    pub fn answer(&self) -> Bytes {
        let outcome = Some(Outcome::Refused(self.to_string()));
        Answer { outcome }.encode_to_vec().into()
    }
}

/// A joiner whose code was good, and is used up now.
#[derive(Debug)]
pub struct Admission {
    node: NodeRef,
    key: PublicKey,
    payload: Bytes,
}

/// Reads a joiner's request. If its code lets in and `takes` has nothing against the node and its
/// payload, the code is used up durably. Whoever has no good code learns nothing but that.
///
/// # Errors
/// Why the joiner is not let in; it is told by [`JoinRefusal::answer`].
pub fn admit(
    codes: &OpenCodes,
    request: Bytes,
    now: SystemTime,
    takes: impl FnOnce(&NodeRef, &Bytes) -> Result<(), String>,
) -> Result<Admission, JoinRefusal> {
    let (secret, admission) = read_request(request)?;
    codes.look(&secret, now)??;
    takes(&admission.node, &admission.payload).map_err(JoinRefusal::Cluster)?;
    codes.take(&secret, now)??;
    Ok(admission)
}

/// The code's secret, and what would be admitted by it.
pub(crate) fn read_request(request: Bytes) -> Result<(Secret, Admission), JoinRefusal> {
    if request.len() > JOIN_MESSAGE_BYTES_MAX {
        return Err(JoinRefusal::Malformed("its length"));
    }
    let request = Request::decode(request).map_err(|_| JoinRefusal::Malformed("its encoding"))?;
    if request.version == 0 || request.version > VERSION {
        return Err(JoinRefusal::Version(request.version));
    }
    let secret = <[u8; 16]>::try_from(&request.secret[..]);
    let secret = Secret(secret.map_err(|_| JoinRefusal::Malformed("the secret"))?);
    Ok((secret, Admission::read(request)?))
}

impl Admission {
    fn read(request: Request) -> Result<Self, JoinRefusal> {
        if request.name.is_empty() || request.name.len() > NAME_BYTES_MAX {
            return Err(JoinRefusal::Malformed("the name"));
        }
        let incarnation = <[u8; 16]>::try_from(&request.incarnation[..]);
        let incarnation = incarnation.map_err(|_| JoinRefusal::Malformed("the incarnation"))?;
        let key = PublicKey::from_bytes(&request.public_key);
        Ok(Self {
            node: NodeRef {
                name: request.name.as_str().into(),
                incarnation: Incarnation(u128::from_be_bytes(incarnation)),
            },
            key: key.map_err(|_| JoinRefusal::Malformed("the public key"))?,
            payload: request.payload,
        })
    }

    /// Who joins.
    #[must_use]
    pub fn node(&self) -> &NodeRef {
        &self.node
    }

    /// What the joiner added for the cluster.
    #[must_use]
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// The message that lets the joiner in, with what the cluster adds for it.
    ///
    /// # Errors
    /// If no certificate can be issued.
    ///
    /// # Panics
    /// If the payload is longer than [`PAYLOAD_BYTES_MAX`].
    pub fn answer(
        &self,
        authority: &Authority,
        payload: Bytes,
        now: SystemTime,
    ) -> Result<Bytes, JoinRefusal> {
        assert!(
            payload.len() <= PAYLOAD_BYTES_MAX,
            "the payload is too long"
        );
        let certificate = authority.issue(&self.node, &self.key, now)?;
        let outcome = Outcome::Welcome(Welcome {
            certificate: Bytes::copy_from_slice(&certificate),
            authority_certificate: Bytes::copy_from_slice(authority.certificate()),
            authority_key: Bytes::copy_from_slice(authority.key()),
            payload,
        });
        let outcome = Some(outcome);
        Ok(Answer { outcome }.encode_to_vec().into())
    }
}

/// Why a join failed, on the joiner's side.
#[derive(Debug, Error)]
pub enum JoinError {
    /// The code is not one for this.
    #[error("the code is for a witness; one for a node is accepted")]
    Kind,
    /// No key could be made.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The cluster said no.
    #[error("the cluster refused: {0}")]
    Refused(String),
    /// The answer is not one.
    #[error("the answer is malformed in {0}")]
    Malformed(&'static str),
    /// The answer is of another cluster than the code names, or not for this node.
    #[error("the answer is not the one that the code promises: {0}")]
    Untrue(&'static str),
}

/// A join under way, on the joiner's side.
pub struct Asking {
    node: NodeRef,
    key: KeyPair,
    fingerprint: Fingerprint,
    request: Bytes,
}

/// What the joiner was given.
pub struct Joined {
    /// The node's certificate.
    pub certificate: CertificateDer<'static>,
    /// Its key.
    pub(crate) key: KeyPair,
    /// The authority with its key.
    pub authority: Authority,
    /// What the cluster added.
    pub payload: Bytes,
}

impl fmt::Debug for Joined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Joined")
            .field("authority", &self.authority)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Asking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asking")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

impl Asking {
    /// Begins a join with this code. `payload` is what the node adds for the cluster.
    ///
    /// # Errors
    /// If the code is not for this, or no key can be made.
    ///
    /// # Panics
    /// If the payload is longer than [`PAYLOAD_BYTES_MAX`].
    pub fn begin(code: &Code, node: NodeRef, payload: Bytes) -> Result<Self, JoinError> {
        assert!(
            payload.len() <= PAYLOAD_BYTES_MAX,
            "the payload is too long"
        );
        if code.kind != CodeKind::Join {
            return Err(JoinError::Kind);
        }
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(AuthorityError::from)?;
        let request = Request {
            version: VERSION,
            secret: Bytes::copy_from_slice(&code.secret.0),
            name: node.name.as_str().to_owned(),
            incarnation: Bytes::copy_from_slice(&node.incarnation.0.to_be_bytes()),
            public_key: Bytes::copy_from_slice(PublicKey::of(&key)?.as_bytes()),
            payload,
        };
        Ok(Self {
            node,
            key,
            fingerprint: code.fingerprint,
            request: request.encode_to_vec().into(),
        })
    }

    /// The message to be sent.
    #[must_use]
    pub fn request(&self) -> Bytes {
        self.request.clone()
    }

    /// Takes the answer: who lets in is the authority that the code named, and what it gave is what
    /// this node needs.
    ///
    /// # Errors
    /// Why it is not so.
    pub fn answered(self, answer: Bytes, now: SystemTime) -> Result<Joined, JoinError> {
        if answer.len() > JOIN_MESSAGE_BYTES_MAX {
            return Err(JoinError::Malformed("its length"));
        }
        let answer = Answer::decode(answer).map_err(|_| JoinError::Malformed("its encoding"))?;
        let welcome = match answer.outcome {
            Some(Outcome::Welcome(welcome)) => welcome,
            Some(Outcome::Refused(why)) => return Err(JoinError::Refused(why)),
            None => return Err(JoinError::Malformed("its outcome")),
        };
        if Fingerprint::of(&welcome.authority_certificate) != self.fingerprint {
            return Err(JoinError::Untrue("it is another authority's"));
        }
        let authority_certificate = CertificateDer::from(welcome.authority_certificate.to_vec());
        let authority = Authority::from_parts(authority_certificate, &welcome.authority_key)?;
        let certificate = CertificateDer::from(welcome.certificate.to_vec());
        self.check(&certificate, &authority, now)
            .map_err(JoinError::Untrue)?;
        Ok(Joined {
            certificate,
            key: self.key,
            authority,
            payload: welcome.payload,
        })
    }

    fn check(
        &self,
        certificate: &CertificateDer<'_>,
        authority: &Authority,
        now: SystemTime,
    ) -> Result<(), &'static str> {
        let owner = Owner {
            cluster: authority.cluster(),
            node: self.node.clone(),
        };
        if Owner::of(certificate) != Ok(owner) {
            return Err("the certificate names another node");
        }
        let parsed = EndEntityCert::try_from(certificate).map_err(|_| "it is no certificate")?;
        if parsed.subject_public_key_info().as_ref() != self.key.subject_public_key_info() {
            return Err("the certificate is for another key");
        }
        let anchor = anchor(authority.certificate()).map_err(|_| "it is no authority")?;
        let now = now.duration_since(SystemTime::UNIX_EPOCH);
        let now = UnixTime::since_unix_epoch(now.unwrap_or_default());
        let algorithms = provider().signature_verification_algorithms;
        check_issued(
            certificate,
            &[anchor],
            algorithms,
            now,
            KeyUsage::client_auth(),
        )
        .map_err(|_| "the certificate was not issued by the authority")
    }
}
