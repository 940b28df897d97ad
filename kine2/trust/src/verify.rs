//! Checks of the other side's certificate, for both ends of a connection.

use std::fmt;
use std::sync::Arc;

use kine2_replication::ClusterId;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error as TlsFault, PeerMisbehaved, SignatureScheme,
};
use webpki::{EndEntityCert, KeyUsage};

use crate::fingerprint::Fingerprint;
use crate::owner::{Owner, cluster_from_uri, uri_of};
use crate::refusal::Refusal;

/// The authorities that members are checked against.
pub trait Authorities: fmt::Debug + Send + Sync {
    /// Those of the cluster; `None` if it is not known here.
    fn anchors(&self, cluster: ClusterId) -> Option<Arc<[TrustAnchor<'static>]>>;
}

/// The authorities of one cluster.
#[derive(Debug)]
pub struct OneCluster {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its authorities; more than one while one replaces the other.
    pub anchors: Arc<[TrustAnchor<'static>]>,
}

impl Authorities for OneCluster {
    fn anchors(&self, cluster: ClusterId) -> Option<Arc<[TrustAnchor<'static>]>> {
        (cluster == self.cluster).then(|| Arc::clone(&self.anchors))
    }
}

/// Whether a client must show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// It must.
    Mandatory,
    /// It may go without one; one that is shown must be good.
    Optional,
}

/// Checks that the other side is a member of a known cluster.
#[derive(Debug)]
pub struct Members {
    authorities: Arc<dyn Authorities>,
    requirement: Requirement,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Members {
    /// Members of the clusters of these authorities.
    #[must_use]
    pub fn new(authorities: Arc<dyn Authorities>, requirement: Requirement) -> Self {
        Self {
            authorities,
            requirement,
            algorithms: provider().signature_verification_algorithms,
        }
    }

    /// Whose certificate it is.
    ///
    /// # Errors
    /// Why it is not accepted at this time.
    pub fn check(
        &self,
        certificate: &CertificateDer<'_>,
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<Owner, Refusal> {
        let owner = Owner::of(certificate)?;
        let Some(anchors) = self.authorities.anchors(owner.cluster) else {
            return Err(Refusal::OtherCluster(owner));
        };
        check_issued(certificate, &anchors, self.algorithms, now, usage)
            .map_err(|error| refusal_of(owner.clone(), &error))?;
        Ok(owner)
    }
}

/// Checks that an authority issued the certificate, directly: there is nothing in between.
pub(crate) fn check_issued(
    certificate: &CertificateDer<'_>,
    anchors: &[TrustAnchor<'_>],
    algorithms: WebPkiSupportedAlgorithms,
    now: UnixTime,
    usage: KeyUsage,
) -> Result<(), webpki::Error> {
    EndEntityCert::try_from(certificate)?
        .verify_for_usage(algorithms.all, anchors, &[], now, usage, None, None)
        .map(|_| ())
}

fn refusal_of(owner: Owner, error: &webpki::Error) -> Refusal {
    match error {
        webpki::Error::CertExpired { .. } => Refusal::Expired(owner),
        webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => {
            Refusal::ForeignAuthority(owner)
        }
        error => Refusal::Unusable(owner, error.to_string()),
    }
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Only TLS 1.3 is spoken, so nobody asks for this.
fn no_tls12() -> Result<HandshakeSignatureValid, TlsFault> {
    Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into())
}

impl ClientCertVerifier for Members {
    fn client_auth_mandatory(&self) -> bool {
        self.requirement == Requirement::Mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, TlsFault> {
        self.check(end_entity, now, KeyUsage::client_auth())
            .map(|_| ClientCertVerified::assertion())
            .map_err(Refusal::into_tls)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsFault> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsFault> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ServerCertVerifier for Members {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsFault> {
        self.check(end_entity, now, KeyUsage::server_auth())
            .map(|_| ServerCertVerified::assertion())
            .map_err(Refusal::into_tls)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsFault> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsFault> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// What a server is known by, to one who cannot check it otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pin {
    /// The authority in its chain has this fingerprint and issued its certificate.
    Authority(Fingerprint),
    /// Its certificate has this fingerprint.
    Certificate(Fingerprint),
    /// Its certificate's fingerprint begins with these 16 bytes.
    Prefix([u8; 16]),
}

/// Checks that the server is the one that was named.
#[derive(Debug)]
pub(crate) struct Pinned {
    pin: Pin,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Pinned {
    pub(crate) fn new(pin: Pin) -> Self {
        let algorithms = provider().signature_verification_algorithms;
        Self { pin, algorithms }
    }

    fn check(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Refusal> {
        let fingerprint = Fingerprint::of(certificate);
        match self.pin {
            Pin::Certificate(expected) => {
                if fingerprint != expected {
                    return Err(Refusal::NotThePinned);
                }
            }
            Pin::Prefix(expected) => {
                if fingerprint.0[..16] != expected {
                    return Err(Refusal::NotThePinned);
                }
            }
            Pin::Authority(expected) => self.check_member(certificate, chain, expected, now)?,
        }
        Ok(())
    }

    fn check_member(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        expected: Fingerprint,
        now: UnixTime,
    ) -> Result<(), Refusal> {
        let mut chain = chain.iter();
        let authority = chain
            .find(|link| Fingerprint::of(link) == expected)
            .ok_or(Refusal::NotThePinned)?;
        let owner = Owner::of(certificate)?;
        let cluster = uri_of(authority)?;
        if cluster_from_uri(&cluster) != Some(owner.cluster) {
            return Err(Refusal::ForeignAuthority(owner));
        }
        let anchor = webpki::anchor_from_trusted_cert(authority)
            .map_err(|error| refusal_of(owner.clone(), &error))?;
        let usage = KeyUsage::server_auth();
        check_issued(certificate, &[anchor], self.algorithms, now, usage)
            .map_err(|error| refusal_of(owner, &error))
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsFault> {
        self.check(end_entity, intermediates, now)
            .map(|()| ServerCertVerified::assertion())
            .map_err(Refusal::into_tls)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsFault> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsFault> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
