//! TLS of the listeners (`etcd S61`).
//!
//! The files are looked at with every handshake: a renewed certificate is used without a restart.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use thiserror::Error;
use tokio_rustls::TlsAcceptor;

/// Files in PEM form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and those that lead to its root.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Roots of clients' certificates; if set, every client must have one.
    pub client_ca: Option<PathBuf>,
}

/// Files that make no TLS configuration.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file that cannot be read or holds nothing of what is wanted.
    #[error("{what} {path:?}: {reason}")]
    File {
        /// What it should hold.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The parts do not fit together.
    #[error("the certificate {cert:?} cannot be used: {reason}")]
    Unusable {
        /// The certificate.
        cert: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// Makes acceptors from files, anew when they have changed.
#[derive(Debug)]
pub(crate) struct TlsReloader {
    files: TlsFiles,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    config: Arc<ServerConfig>,
    seen: Vec<Option<Stamp>>,
}

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: SystemTime,
    bytes: u64,
    inode: u64,
}

impl TlsReloader {
    /// # Errors
    /// If the files cannot be used.
    pub(crate) fn new(files: TlsFiles) -> Result<Self, TlsError> {
        let seen = stamps(&files);
        let config = Arc::new(load(&files)?);
        let current = Mutex::new(Current { config, seen });
        Ok(Self { files, current })
    }

    /// For one handshake.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        let mut current = self.current.lock();
        let seen = stamps(&self.files);
        if seen != current.seen {
            // Half-written files are tried once; the next change is another chance.
            current.seen = seen;
            match load(&self.files) {
                Ok(config) => {
                    tracing::info!(cert = ?self.files.cert, "certificate renewed");
                    current.config = Arc::new(config);
                }
                Err(error) => tracing::warn!(%error, "keeping the certificate as it was"),
            }
        }
        TlsAcceptor::from(Arc::clone(&current.config))
    }
}

fn stamps(files: &TlsFiles) -> Vec<Option<Stamp>> {
    use std::os::unix::fs::MetadataExt;
    let stamp = |path: &PathBuf| {
        let metadata = fs::metadata(path).ok()?;
        Some(Stamp {
            modified: metadata.modified().ok()?,
            bytes: metadata.len(),
            inode: metadata.ino(),
        })
    };
    let paths = [
        Some(&files.cert),
        Some(&files.key),
        files.client_ca.as_ref(),
    ];
    paths.into_iter().map(|path| stamp(path?)).collect()
}

fn load(files: &TlsFiles) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let unusable = |reason: String| TlsError::Unusable {
        cert: files.cert.clone(),
        reason,
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(error.to_string()))?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for root in certificates("client CA", path)? {
                roots
                    .add(root)
                    .map_err(|error| file_error("client CA", path, &error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| file_error("client CA", path, &error))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let chain = certificates("certificate", &files.cert)?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| file_error("key", &files.key, &error))?;
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|error| unusable(error.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| file_error(what, path, &error))?;
    if found.is_empty() {
        let none = io::Error::other("there is no certificate in it");
        return Err(file_error(what, path, &none));
    }
    Ok(found)
}

fn file_error(what: &'static str, path: &Path, reason: &dyn std::error::Error) -> TlsError {
    TlsError::File {
        what,
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}
