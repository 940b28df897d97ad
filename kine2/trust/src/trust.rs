//! What a node keeps in `DATA_DIR/tls`: the cluster's authority and its own certificate.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use kine2_replication::{ClusterId, NodeRef, WitnessId};
use parking_lot::Mutex;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use rustls::{ClientConfig, ServerConfig};
use thiserror::Error;
use webpki::KeyUsage;

use crate::authority::{Authority, AuthorityError, MEMBER_LIFE, PublicKey, anchor};
use crate::files::{Stamp, replace};
use crate::fingerprint::Fingerprint;
use crate::join::Joined;
use crate::open_codes::OpenCodes;
use crate::owner::{Owner, OwnerError};
use crate::refusal::{Refusal, RefusalCounts};
use crate::tls::{
    ALPN_JOIN, ALPN_PEER, client_of_witness, member_client, member_server, open_server,
};
use crate::verify::{Members, OneCluster, Requirement};

/// Authorities' certificates; the first issues, further ones are accepted too.
const AUTHORITY_CERT: &str = "authority.crt";
/// Key of the first.
const AUTHORITY_KEY: &str = "authority.key";
/// The node's certificate and key: one file, so that they change together.
const NODE: &str = "node.pem";
/// Join codes that were given out.
const CODES: &str = "join-codes";
/// A certificate is renewed when this much of its life is left.
const RENEW_LEFT: Duration = Duration::from_secs(MEMBER_LIFE.as_secs() / 3);

/// Why the files cannot be made or used.
#[derive(Debug, Error)]
pub enum TrustError {
    /// A file that cannot be read or written.
    #[error("{0:?}: {1}")]
    Io(PathBuf, io::Error),
    /// A file that holds something else.
    #[error("{0:?} cannot be used: {1}")]
    Unusable(PathBuf, String),
    /// There is an authority already.
    #[error("{0:?} exists: this node belongs to a cluster")]
    Exists(PathBuf),
    /// No certificate could be made.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The own certificate is not accepted.
    #[error("the own certificate {0:?} is refused: {1}")]
    OwnRefused(PathBuf, Refusal),
}

/// A node's trust: what it accepts, and what it shows.
///
/// The files are looked at whenever a configuration is asked for, which is for each handshake: a
/// renewed certificate and a further authority are used without a restart.
#[derive(Debug)]
pub struct Trust {
    dir: PathBuf,
    owner: Owner,
    current: Mutex<Current>,
    counts: RefusalCounts,
}

/// What was last made of the files.
#[derive(Clone, Debug)]
struct Current {
    seen: [Option<Stamp>; 3],
    loaded: Loaded,
    configs: Configs,
}

#[derive(Clone, Debug)]
struct Configs {
    server: Arc<ServerConfig>,
    peer_server: Arc<ServerConfig>,
    join_server: Arc<ServerConfig>,
    peer_client: Arc<ClientConfig>,
}

/// The files' content.
#[derive(Clone, Debug)]
struct Loaded {
    owner: Owner,
    authorities: Vec<CertificateDer<'static>>,
    certificate: CertificateDer<'static>,
    key: Arc<PrivatePkcs8KeyDer<'static>>,
}

impl Trust {
    /// Makes the authority of a new cluster, and the certificate of its first node.
    ///
    /// # Errors
    /// If there is one already, or a file cannot be written.
    pub fn init(
        dir: &Path,
        cluster: ClusterId,
        node: &NodeRef,
        now: SystemTime,
    ) -> Result<Self, TrustError> {
        let authority = Authority::make(cluster, now)?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(AuthorityError::from)?;
        let certificate = authority.issue(node, &PublicKey::of(&key)?, now)?;
        Self::install(dir, &authority, &certificate, &key, now)
    }

    /// Keeps what a joiner was given.
    ///
    /// # Errors
    /// If there is an authority already, or a file cannot be written.
    pub fn join(dir: &Path, joined: &Joined, now: SystemTime) -> Result<Self, TrustError> {
        Self::install(
            dir,
            &joined.authority,
            &joined.certificate,
            &joined.key,
            now,
        )
    }

    fn install(
        dir: &Path,
        authority: &Authority,
        certificate: &CertificateDer<'_>,
        key: &KeyPair,
        now: SystemTime,
    ) -> Result<Self, TrustError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(|error| TrustError::Io(dir.to_owned(), error))?;
        let node = dir.join(NODE);
        // It is written last: without it, what an earlier attempt left is replaced.
        if node.exists() {
            return Err(TrustError::Exists(node));
        }
        let authority_pem = pem("CERTIFICATE", authority.certificate());
        write(&dir.join(AUTHORITY_CERT), &authority_pem)?;
        write(
            &dir.join(AUTHORITY_KEY),
            &pem("PRIVATE KEY", authority.key()),
        )?;
        write(&node, &node_pem(certificate, key))?;
        Self::open(dir, now)
    }

    /// Opens what is kept.
    ///
    /// # Errors
    /// If a file is missing, or they do not fit together. An expired certificate is renewed.
    pub fn open(dir: &Path, now: SystemTime) -> Result<Self, TrustError> {
        let seen = stamps(dir);
        let loaded = Loaded::read(dir)?;
        let configs = loaded.configs(dir)?;
        let trust = Self {
            dir: dir.to_owned(),
            owner: loaded.owner.clone(),
            current: Mutex::new(Current {
                seen,
                loaded,
                configs,
            }),
            counts: RefusalCounts::default(),
        };
        if let Err(error) = trust.renew(now) {
            tracing::warn!(%error, "the own certificate should be renewed and cannot be");
        }
        let loaded = trust.current().loaded;
        loaded
            .check_own(loaded.accepted(dir, &loaded.authorities)?, now)
            .map_err(|refusal| TrustError::OwnRefused(dir.join(NODE), refusal))?;
        Ok(trust)
    }

    /// Who this node is.
    #[must_use]
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// How many were refused, by kind.
    #[must_use]
    pub fn refusals(&self) -> &RefusalCounts {
        &self.counts
    }

    /// SHA-256 of the certificate of the authority that issues, as join codes name it.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.current().loaded.authorities[0])
    }

    /// Certificate of the authority that issues, as a witness is given it.
    #[must_use]
    pub fn authority_certificate(&self) -> CertificateDer<'static> {
        self.current().loaded.authorities[0].clone()
    }

    /// The authority with its key, to let a joiner in.
    ///
    /// # Errors
    /// If its files cannot be used.
    pub fn authority(&self) -> Result<Authority, TrustError> {
        authority_in(&self.dir)
    }

    /// The join codes that were given out.
    #[must_use]
    pub fn codes(&self) -> OpenCodes {
        OpenCodes::at(self.dir.join(CODES))
    }

    /// For servers that let members in and speak another protocol than `accept` does: set
    /// `alpn_protocols` in a copy where one is wanted.
    #[must_use]
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.current().configs.server
    }

    /// For connections of other members.
    #[must_use]
    pub fn peer_server_config(&self) -> Arc<ServerConfig> {
        self.current().configs.peer_server
    }

    /// For connections of joiners, who have no certificate.
    #[must_use]
    pub fn join_server_config(&self) -> Arc<ServerConfig> {
        self.current().configs.join_server
    }

    /// For connections to other members.
    #[must_use]
    pub fn peer_client_config(&self) -> Arc<ClientConfig> {
        self.current().configs.peer_client
    }

    /// For connections to the witness of this id, as the configuration names it.
    ///
    /// # Errors
    /// If the own certificate cannot be used.
    pub fn witness_client_config(&self, witness: WitnessId) -> Result<ClientConfig, TrustError> {
        let Loaded {
            certificate, key, ..
        } = self.current().loaded;
        let key = PrivateKeyDer::Pkcs8(key.clone_key());
        client_of_witness(vec![certificate], key, witness)
            .map_err(|error| TrustError::Unusable(self.dir.join(NODE), error.to_string()))
    }

    /// Renews the own certificate if a third of its life is left, or if another authority issues
    /// now; true if it was. To be called at least once a day.
    ///
    /// # Errors
    /// If none can be made or written.
    pub fn renew(&self, now: SystemTime) -> Result<bool, TrustError> {
        let loaded = self.current().loaded;
        let issues = loaded.accepted(&self.dir, &loaded.authorities[..1])?;
        if loaded.check_own(issues, now + RENEW_LEFT).is_ok() {
            return Ok(false);
        }
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(AuthorityError::from)?;
        let authority = self.authority()?;
        let certificate = authority.issue(&self.owner.node, &PublicKey::of(&key)?, now)?;
        write(&self.dir.join(NODE), &node_pem(&certificate, &key))?;
        tracing::info!(dir = ?self.dir, "own certificate renewed");
        Ok(true)
    }

    /// As the files are now; as they were, if they cannot be used.
    fn current(&self) -> Current {
        let mut current = self.current.lock();
        let seen = stamps(&self.dir);
        if seen != current.seen {
            // Files that do not fit together are tried once; the next change is another chance.
            current.seen = seen;
            match self.load() {
                Ok((loaded, configs)) => {
                    tracing::info!(dir = ?self.dir, "certificates read again");
                    current.loaded = loaded;
                    current.configs = configs;
                }
                Err(error) => tracing::warn!(%error, "keeping the certificates as they were"),
            }
        }
        current.clone()
    }

    fn load(&self) -> Result<(Loaded, Configs), TrustError> {
        let loaded = Loaded::read(&self.dir)?;
        if loaded.owner != self.owner {
            let other = format!("it is of {}, and this is {}", loaded.owner, self.owner);
            return Err(TrustError::Unusable(self.dir.join(NODE), other));
        }
        let configs = loaded.configs(&self.dir)?;
        Ok((loaded, configs))
    }
}

impl Loaded {
    fn read(dir: &Path) -> Result<Self, TrustError> {
        let path = dir.join(NODE);
        let certificate = certificates(&path)?.remove(0);
        let key = private_key(&path)?;
        let owner = Owner::of(&certificate)
            .map_err(|error: OwnerError| TrustError::Unusable(path, error.to_string()))?;
        Ok(Self {
            owner,
            authorities: certificates(&dir.join(AUTHORITY_CERT))?,
            certificate,
            key: Arc::new(key),
        })
    }

    /// These authorities' certificates are accepted.
    fn accepted(
        &self,
        dir: &Path,
        authorities: &[CertificateDer<'_>],
    ) -> Result<Arc<OneCluster>, TrustError> {
        let anchors: Result<Vec<_>, _> = authorities.iter().map(anchor).collect();
        let unusable = |error: AuthorityError| {
            TrustError::Unusable(dir.join(AUTHORITY_CERT), error.to_string())
        };
        Ok(Arc::new(OneCluster {
            cluster: self.owner.cluster,
            anchors: anchors.map_err(unusable)?.into(),
        }))
    }

    /// Whether the own certificate is one that this node itself would accept at the time.
    fn check_own(&self, accepted: Arc<OneCluster>, at: SystemTime) -> Result<(), Refusal> {
        let at = at
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let members = Members::new(accepted, Requirement::Mandatory);
        let at = UnixTime::since_unix_epoch(at);
        members
            .check(&self.certificate, at, KeyUsage::client_auth())
            .map(|_| ())
    }

    fn configs(&self, dir: &Path) -> Result<Configs, TrustError> {
        let unusable =
            |error: rustls::Error| TrustError::Unusable(dir.join(NODE), error.to_string());
        let own = || vec![self.certificate.clone()];
        let key = || PrivateKeyDer::Pkcs8(self.key.clone_key());
        let accepted = self.accepted(dir, &self.authorities)?;
        let server = member_server(own(), key(), accepted.clone(), Requirement::Mandatory)
            .map_err(unusable)?;
        let mut peer_server = server.clone();
        peer_server.alpn_protocols = vec![ALPN_PEER.to_vec()];
        // A joiner knows the authority by its fingerprint only, so it is shown whole.
        let with_authority = vec![self.certificate.clone(), self.authorities[0].clone()];
        let mut join_server = open_server(with_authority, key()).map_err(unusable)?;
        join_server.alpn_protocols = vec![ALPN_JOIN.to_vec()];
        let mut peer_client = member_client(own(), key(), accepted).map_err(unusable)?;
        peer_client.alpn_protocols = vec![ALPN_PEER.to_vec()];
        Ok(Configs {
            server: Arc::new(server),
            peer_server: Arc::new(peer_server),
            join_server: Arc::new(join_server),
            peer_client: Arc::new(peer_client),
        })
    }
}

fn authority_in(dir: &Path) -> Result<Authority, TrustError> {
    let path = dir.join(AUTHORITY_CERT);
    let certificate = certificates(&path)?.remove(0);
    let key = private_key(&dir.join(AUTHORITY_KEY))?;
    Authority::from_parts(certificate, key.secret_pkcs8_der())
        .map_err(|error| TrustError::Unusable(path, error.to_string()))
}

fn stamps(dir: &Path) -> [Option<Stamp>; 3] {
    [AUTHORITY_CERT, AUTHORITY_KEY, NODE].map(|name| Stamp::of(&dir.join(name)))
}

fn write(path: &Path, content: &str) -> Result<(), TrustError> {
    replace(path, content.as_bytes()).map_err(|error| TrustError::Io(path.to_owned(), error))
}

fn read(path: &Path) -> Result<Vec<u8>, TrustError> {
    fs::read(path).map_err(|error| TrustError::Io(path.to_owned(), error))
}

/// The certificates in the file; at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let unusable = |what: String| TrustError::Unusable(path.to_owned(), what);
    let text = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found.map_err(|error| unusable(error.to_string()))?;
    match found.is_empty() {
        true => Err(unusable("there is no certificate in it".into())),
        false => Ok(found),
    }
}

fn private_key(path: &Path) -> Result<PrivatePkcs8KeyDer<'static>, TrustError> {
    PrivatePkcs8KeyDer::from_pem_slice(&read(path)?)
        .map_err(|error| TrustError::Unusable(path.to_owned(), error.to_string()))
}

fn node_pem(certificate: &CertificateDer<'_>, key: &KeyPair) -> String {
    let certificate = pem("CERTIFICATE", certificate);
    certificate + &pem("PRIVATE KEY", key.serialized_der())
}

/// PEM form (RFC 7468).
fn pem(label: &str, der: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in der.chunks(48) {
        for group in line.chunks(3) {
            let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
            let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
            for at in 0..4 {
                let index = (bits >> (18 - 6 * at) & 63) as usize;
                text.push(match at > group.len() {
                    true => '=',
                    false => char::from(ALPHABET[index]),
                });
            }
        }
        text.push('\n');
    }
    text + &format!("-----END {label}-----\n")
}
