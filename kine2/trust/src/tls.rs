//! TLS of members, joiners and witnesses: version 1.3 only, and no session is resumed, as a resumed
//! one would pass without its certificate being looked at again.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use kine2_replication::WitnessId;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};
use rcgen::{PKCS_ECDSA_P256_SHA256, SanType, string::Ia5String};
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::version::TLS13;
use rustls::{ClientConfig, ConfigBuilder, Error as TlsFault, ServerConfig, WantsVerifier};

use crate::authority::{AuthorityError, common_name, good_until};
use crate::code::{Code, CodeKind};
use crate::fingerprint::Fingerprint;
use crate::verify::{Authorities, Members, Pin, Pinned, Requirement, provider};

/// What a member offers to speak with another.
pub const ALPN_PEER: &[u8] = b"kine2-peer";
/// What a joiner offers to speak.
pub const ALPN_JOIN: &[u8] = b"kine2-join";
/// How long a witness's own certificate is good. Nobody looks at that: it is known by its
/// fingerprint.
const WITNESS_LIFE: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// A server that lets in who shows a certificate of one of these authorities.
///
/// # Errors
/// If chain and key cannot be used.
pub fn member_server(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    authorities: Arc<dyn Authorities>,
    requirement: Requirement,
) -> Result<ServerConfig, TlsFault> {
    let members = Arc::new(Members::new(authorities, requirement));
    let builder = server_builder()?.with_client_cert_verifier(members);
    Ok(hardened(builder.with_single_cert(chain, key)?))
}

/// A server that asks for no certificate: whoever comes must know a secret.
///
/// # Errors
/// If chain and key cannot be used.
pub fn open_server(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, TlsFault> {
    let builder = server_builder()?.with_no_client_auth();
    Ok(hardened(builder.with_single_cert(chain, key)?))
}

fn server_builder() -> Result<ConfigBuilder<ServerConfig, WantsVerifier>, TlsFault> {
    ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13])
}

fn hardened(mut config: ServerConfig) -> ServerConfig {
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config
}

/// A member that calls another.
///
/// # Errors
/// If chain and key cannot be used.
pub fn member_client(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    authorities: Arc<dyn Authorities>,
) -> Result<ClientConfig, TlsFault> {
    let members = Arc::new(Members::new(authorities, Requirement::Mandatory));
    let builder = client_builder()?
        .dangerous()
        .with_custom_certificate_verifier(members);
    Ok(quiet(builder.with_client_auth_cert(chain, key)?))
}

/// A member that calls the witness of this id.
///
/// # Errors
/// If chain and key cannot be used.
pub fn client_of_witness(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    witness: WitnessId,
) -> Result<ClientConfig, TlsFault> {
    let pinned = Arc::new(Pinned::new(Pin::Prefix(witness.0.to_be_bytes())));
    let builder = client_builder()?
        .dangerous()
        .with_custom_certificate_verifier(pinned);
    Ok(quiet(builder.with_client_auth_cert(chain, key)?))
}

/// One that has only a code: without a certificate, it calls the server that the code names. That
/// of [`CodeKind::Join`] names the authority of the server's certificate,
/// that of [`CodeKind::Enrol`] the certificate.
///
/// # Errors
/// Never with the provider that is built in.
pub fn joining_client(code: &Code) -> Result<ClientConfig, TlsFault> {
    let pin = match code.kind {
        CodeKind::Join => Pin::Authority(code.fingerprint),
        CodeKind::Enrol => Pin::Certificate(code.fingerprint),
    };
    let builder = client_builder()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned::new(pin)));
    let mut config = quiet(builder.with_no_client_auth());
    if code.kind == CodeKind::Join {
        config.alpn_protocols = vec![ALPN_JOIN.to_vec()];
    }
    Ok(config)
}

fn client_builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, TlsFault> {
    ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13])
}

fn quiet(mut config: ClientConfig) -> ClientConfig {
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    config
}

/// A certificate that stands for itself, as a witness has it, and its key (PKCS #8, DER).
///
/// # Errors
/// If it cannot be made.
pub fn self_signed(
    now: SystemTime,
) -> Result<(CertificateDer<'static>, PrivatePkcs8KeyDer<'static>), AuthorityError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::default();
    good_until(&mut params, now + WITNESS_LIFE);
    params.distinguished_name = common_name("kine2 witness");
    params.subject_alt_names = vec![SanType::URI(Ia5String::try_from("kine2://witness")?)];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = params.self_signed(&key)?.der().clone();
    Ok((certificate, key.serialize_der().into()))
}

/// The id of the witness that has this certificate: the first 16 bytes of its fingerprint. So the
/// id, which every configuration carries, is all a node needs to know the witness by.
#[must_use]
pub fn witness_id_of(certificate: &CertificateDer<'_>) -> WitnessId {
    let fingerprint = Fingerprint::of(certificate).0;
    let (prefix, _) = fingerprint
        .split_first_chunk()
        .expect("a fingerprint has 32 bytes");
    WitnessId(u128::from_be_bytes(*prefix))
}
