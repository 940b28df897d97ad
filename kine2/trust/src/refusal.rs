//! Why a connection was refused, told apart so that it can be logged and counted.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kine2_replication::ClusterId;
use rustls::{CertificateError, Error as TlsFault, OtherError};
use thiserror::Error;

use crate::owner::{Owner, OwnerError};

/// Why a connection was refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Refusal {
    /// It showed no certificate.
    #[error("it showed no certificate; one issued by the cluster's authority is accepted")]
    NoCertificate,
    /// Its certificate is not one of a node.
    #[error("its certificate is not one of a node: {0}")]
    Stranger(#[from] OwnerError),
    /// It belongs to a cluster that is not known here.
    #[error("it is {0}, and that cluster is not known here")]
    OtherCluster(Owner),
    /// Its certificate was issued by somebody else than the authority of the cluster it names.
    #[error("it calls itself {0}, by a certificate that the cluster's authority did not issue")]
    ForeignAuthority(Owner),
    /// Its certificate has expired.
    #[error("the certificate of {0} has expired; look at the clocks of both")]
    Expired(Owner),
    /// Its certificate is unusable in another way.
    #[error("the certificate of {0} cannot be used: {1}")]
    Unusable(Owner, String),
    /// The certificate is not the one that the code or the configuration names.
    #[error("it showed another certificate than the expected one")]
    NotThePinned,
    /// It is a node of the cluster, but no member of the present configuration.
    #[error("{0} is no member any more")]
    NotAMember(Owner),
    /// The other side refused this one.
    #[error("the other side refused us: {0}")]
    ByPeer(String),
    /// It does not speak this protocol.
    #[error("it does not speak as expected: {0}")]
    Protocol(String),
    /// The connection failed, or took too long.
    #[error("the connection failed: {0}")]
    Connection(String),
}

/// What refusals are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum RefusalKind {
    /// [`Refusal::NoCertificate`].
    NoCertificate,
    /// [`Refusal::Stranger`].
    Stranger,
    /// [`Refusal::OtherCluster`].
    OtherCluster,
    /// [`Refusal::ForeignAuthority`].
    ForeignAuthority,
    /// [`Refusal::Expired`].
    Expired,
    /// [`Refusal::Unusable`].
    Unusable,
    /// [`Refusal::NotThePinned`].
    NotThePinned,
    /// [`Refusal::NotAMember`].
    NotAMember,
    /// [`Refusal::ByPeer`].
    ByPeer,
    /// [`Refusal::Protocol`].
    Protocol,
    /// [`Refusal::Connection`].
    Connection,
    /// A join or enrolment whose code is refused.
    Code,
}

impl RefusalKind {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::NoCertificate,
        Self::Stranger,
        Self::OtherCluster,
        Self::ForeignAuthority,
        Self::Expired,
        Self::Unusable,
        Self::NotThePinned,
        Self::NotAMember,
        Self::ByPeer,
        Self::Protocol,
        Self::Connection,
        Self::Code,
    ];

    /// As the label of a metric.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::Stranger => "stranger",
            Self::OtherCluster => "other_cluster",
            Self::ForeignAuthority => "foreign_authority",
            Self::Expired => "expired",
            Self::Unusable => "unusable",
            Self::NotThePinned => "not_the_pinned",
            Self::NotAMember => "not_a_member",
            Self::ByPeer => "by_peer",
            Self::Protocol => "protocol",
            Self::Connection => "connection",
            Self::Code => "code",
        }
    }
}

impl Refusal {
    /// What it is counted by.
    #[must_use]
    pub const fn kind(&self) -> RefusalKind {
        match self {
            Self::NoCertificate => RefusalKind::NoCertificate,
            Self::Stranger(_) => RefusalKind::Stranger,
            Self::OtherCluster(_) => RefusalKind::OtherCluster,
            Self::ForeignAuthority(_) => RefusalKind::ForeignAuthority,
            Self::Expired(_) => RefusalKind::Expired,
            Self::Unusable(..) => RefusalKind::Unusable,
            Self::NotThePinned => RefusalKind::NotThePinned,
            Self::NotAMember(_) => RefusalKind::NotAMember,
            Self::ByPeer(_) => RefusalKind::ByPeer,
            Self::Protocol(_) => RefusalKind::Protocol,
            Self::Connection(_) => RefusalKind::Connection,
        }
    }

    /// The cluster it called itself a member of, where it did.
    #[must_use]
    pub const fn cluster(&self) -> Option<ClusterId> {
        match self {
            Self::OtherCluster(owner)
            | Self::ForeignAuthority(owner)
            | Self::Expired(owner)
            | Self::Unusable(owner, _)
            | Self::NotAMember(owner) => Some(owner.cluster),
            Self::NoCertificate
            | Self::Stranger(_)
            | Self::NotThePinned
            | Self::ByPeer(_)
            | Self::Protocol(_)
            | Self::Connection(_) => None,
        }
    }

    /// The refusal behind an error of a TLS stream: while its handshake goes on, and at the first
    /// read after it, where a client learns that the server refused its certificate.
    #[must_use]
    pub fn of_io(error: &io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref()) {
            Some(fault) => Self::of_tls(fault),
            None => Self::Connection(error.to_string()),
        }
    }

    fn of_tls(fault: &TlsFault) -> Self {
        match fault {
            TlsFault::InvalidCertificate(CertificateError::Other(OtherError(inner))) => {
                match inner.downcast_ref::<Self>() {
                    Some(refusal) => refusal.clone(),
                    None => Self::Protocol(fault.to_string()),
                }
            }
            TlsFault::NoCertificatesPresented => Self::NoCertificate,
            TlsFault::AlertReceived(alert) => Self::ByPeer(format!("{alert:?}")),
            fault => Self::Protocol(fault.to_string()),
        }
    }

    /// As the verifiers of TLS hand it through.
    pub(crate) fn into_tls(self) -> TlsFault {
        CertificateError::Other(OtherError(Arc::new(self))).into()
    }
}

/// How many were refused, by kind.
#[derive(Debug, Default)]
pub struct RefusalCounts([AtomicU64; RefusalKind::ALL.len()]);

impl RefusalCounts {
    /// Counts one.
    pub fn count(&self, kind: RefusalKind) {
        self.0[kind as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many there were of the kind.
    #[must_use]
    pub fn get(&self, kind: RefusalKind) -> u64 {
        self.0[kind as usize].load(Ordering::Relaxed)
    }
}
