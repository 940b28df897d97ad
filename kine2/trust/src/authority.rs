//! The authority of a cluster: made at `init`, and handed to the other node when it joins, so that
//! each can renew its own certificate while it is alone.

use std::fmt;
use std::time::{Duration, SystemTime};

use kine2_replication::{ClusterId, NodeRef};
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType,
    SignatureAlgorithm, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, TrustAnchor};
use thiserror::Error;
use webpki::EndEntityCert;

use crate::fingerprint::Fingerprint;
use crate::owner::{Owner, authority_uri, cluster_from_uri, uri_of};

/// How long an authority's certificate is good.
pub(crate) const AUTHORITY_LIFE: Duration = Duration::from_secs(20 * 365 * 24 * 3600);
/// How long a member's certificate is good.
pub(crate) const MEMBER_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);
/// The last second that certificates can name, since 1970.
const YEAR_9999: Duration = Duration::from_secs(253_402_300_799);

/// What cannot be made or used.
#[derive(Debug, Error)]
pub enum AuthorityError {
    /// No key or certificate could be made.
    #[error("make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// The certificate is not one of an authority.
    #[error("the authority's certificate cannot be used: {0}")]
    Certificate(String),
    /// The key is that of another certificate.
    #[error("the authority's key does not fit its certificate")]
    Key,
    /// The public key is not one of a member.
    #[error("a public key of {0} bytes; an uncompressed point of P-256 has 65 and begins with 4")]
    PublicKey(usize),
}

/// The authority of a cluster, with its key.
pub struct Authority {
    cluster: ClusterId,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes one.
    ///
    /// # Errors
    /// If there are no random numbers.
    pub fn make(cluster: ClusterId, now: SystemTime) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = authority_params(cluster)?;
        good_until(&mut params, now + AUTHORITY_LIFE);
        let certificate = params.self_signed(&key)?.der().clone();
        Ok(Self {
            cluster,
            certificate,
            issuer: Issuer::new(params, key),
        })
    }

    /// The authority of this certificate (DER) and this key (PKCS #8, DER).
    ///
    /// # Errors
    /// If they do not belong together or are not of an authority.
    pub fn from_parts(
        certificate: CertificateDer<'static>,
        key: &[u8],
    ) -> Result<Self, AuthorityError> {
        let cluster = cluster_of_authority(&certificate)?;
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&key.into(), &PKCS_ECDSA_P256_SHA256)?;
        let parsed = EndEntityCert::try_from(&certificate)
            .map_err(|error| AuthorityError::Certificate(error.to_string()))?;
        if parsed.subject_public_key_info().as_ref() != key.subject_public_key_info() {
            return Err(AuthorityError::Key);
        }
        Ok(Self {
            cluster,
            issuer: Issuer::new(authority_params(cluster)?, key),
            certificate,
        })
    }

    /// Its cluster.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Its certificate.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Its key (PKCS #8, DER).
    #[must_use]
    pub fn key(&self) -> &[u8] {
        self.issuer.key().serialized_der()
    }

    /// SHA-256 of its certificate.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.certificate)
    }

    /// Issues the certificate of a node.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn issue(
        &self,
        node: &NodeRef,
        key: &PublicKey,
        now: SystemTime,
    ) -> Result<CertificateDer<'static>, AuthorityError> {
        let owner = Owner {
            cluster: self.cluster,
            node: node.clone(),
        };
        let mut params = CertificateParams::default();
        good_until(&mut params, now + MEMBER_LIFE);
        params.distinguished_name = common_name(&format!("kine2 node {}", node.name));
        params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(owner.uri())?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        Ok(params.signed_by(key, &self.issuer)?.der().clone())
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("cluster", &self.cluster)
            .field("fingerprint", &self.fingerprint())
            .finish_non_exhaustive()
    }
}

/// The cluster an authority's certificate is of.
///
/// # Errors
/// If it is not the certificate of an authority.
pub fn cluster_of_authority(certificate: &CertificateDer<'_>) -> Result<ClusterId, AuthorityError> {
    let uri =
        uri_of(certificate).map_err(|error| AuthorityError::Certificate(error.to_string()))?;
    cluster_from_uri(&uri)
        .ok_or_else(|| AuthorityError::Certificate(format!("{uri:?} names no authority")))
}

/// What members' certificates are checked against.
///
/// # Errors
/// If it is no certificate.
pub fn anchor(certificate: &CertificateDer<'_>) -> Result<TrustAnchor<'static>, AuthorityError> {
    webpki::anchor_from_trusted_cert(certificate)
        .map(|anchor| anchor.to_owned())
        .map_err(|error| AuthorityError::Certificate(error.to_string()))
}

/// A member's public key: an uncompressed point of P-256.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey([u8; 65]);

impl PublicKey {
    /// The public half of a key pair.
    ///
    /// # Errors
    /// If it is of another curve.
    pub fn of(key: &KeyPair) -> Result<Self, AuthorityError> {
        Self::from_bytes(key.public_key_raw())
    }

    /// The point's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Reads the point's bytes.
    ///
    /// # Errors
    /// If they have another length or form.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, AuthorityError> {
        match <[u8; 65]>::try_from(bytes) {
            Ok(point) if point[0] == 4 => Ok(Self(point)),
            _ => Err(AuthorityError::PublicKey(bytes.len())),
        }
    }
}

impl PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

/// All that the issuing of certificates takes from an authority's certificate follows from its
/// cluster, so the certificate need not be read for it.
fn authority_params(cluster: ClusterId) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(&format!("kine2 cluster {:032x}", cluster.0));
    params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(authority_uri(cluster))?)];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    Ok(params)
}

pub(crate) fn common_name(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

/// Makes it good until `end`, and from long ago on: that it were not good *yet* would protect
/// nothing, and a server whose clock stands at its factory's date must find its peer.
pub(crate) fn good_until(params: &mut CertificateParams, end: SystemTime) {
    let end = end.duration_since(SystemTime::UNIX_EPOCH);
    // No later time can be written.
    let end = end.unwrap_or_default().min(YEAR_9999);
    params.not_before = date_time_ymd(1975, 1, 1);
    params.not_after = date_time_ymd(1970, 1, 1) + end;
}
