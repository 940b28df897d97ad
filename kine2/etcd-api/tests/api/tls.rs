//! TLS (`etcd S61`).

use std::path::Path;
use std::sync::Arc;

use kine2_etcd_api::{ServeConfig, ServeError, Server, TlsFiles};
use kine2_proto::etcdserverpb::{PutRequest, PutResponse, RangeRequest, RangeResponse};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use crate::client::{Client, Running, in_time};
use crate::http::request;

const PUT: &str = "/etcdserverpb.KV/Put";

/// A certificate authority of a test.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    der: CertificateDer<'static>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap();
        Self {
            pem: cert.pem(),
            der: cert.der().clone(),
            issuer: Issuer::new(params, key),
        }
    }

    /// A certificate for a name and its key, in PEM form.
    fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        (cert.pem(), key.serialize_pem())
    }

    /// Issues into files.
    fn install(&self, name: &str, dir: &Path) -> TlsFiles {
        let (cert, key) = self.issue(name);
        let files = TlsFiles {
            cert: dir.join("cert"),
            key: dir.join("key"),
            client_ca: None,
        };
        std::fs::write(&files.cert, cert).unwrap();
        std::fs::write(&files.key, key).unwrap();
        files
    }

    fn client_config(&self) -> ClientTlsConfig {
        ClientTlsConfig::new()
            .domain_name("kine2")
            .ca_certificate(Certificate::from_pem(&self.pem))
    }

    /// A connector that offers only HTTP/1.1, or nothing.
    fn connector(&self, alpn: &[&[u8]]) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        TlsConnector::from(Arc::new(config))
    }
}

fn start(files: TlsFiles) -> Running {
    Running::with(ServeConfig {
        client_urls: vec!["https://127.0.0.1:0".parse().unwrap()],
        tls: Some(files),
        ..ServeConfig::default()
    })
}

fn address(server: &Running) -> &str {
    server.client_url.strip_prefix("https://").unwrap()
}

async fn put_over(server: &Running, config: ClientTlsConfig) -> Result<(), String> {
    let endpoint = Endpoint::from_shared(server.client_url.clone()).unwrap();
    let endpoint = endpoint.tls_config(config).unwrap();
    let channel = in_time(endpoint.connect())
        .await
        .map_err(|error| error.to_string())?;
    let put = PutRequest {
        key: "k".into(),
        ..PutRequest::default()
    };
    let answer = Client::from(channel).call::<_, PutResponse>(PUT, put).await;
    answer.map(|_| ()).map_err(|status| status.to_string())
}

#[tokio::test]
async fn s61_grpc_and_http_share_the_encrypted_port() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Authority::new();
    let server = start(ca.install("kine2", dir.path()));
    put_over(&server, ca.client_config()).await.unwrap();
    server.member.put("large", &vec![b'v'; 5_000_000]);
    let endpoint = Endpoint::from_shared(server.client_url.clone()).unwrap();
    let client = Client::connect(endpoint.tls_config(ca.client_config()).unwrap()).await;
    let all = RangeRequest {
        key: "\0".into(),
        range_end: "\0".into(),
        ..RangeRequest::default()
    };
    let list: RangeResponse = client.call("/etcdserverpb.KV/Range", all).await.unwrap();
    assert!(list.kvs.len() == 2 && list.kvs[1].0.len() > 5_000_000);
    for alpn in [&[&b"http/1.1"[..]][..], &[]] {
        let io = TcpStream::connect(address(&server)).await.unwrap();
        let name = ServerName::try_from("kine2").unwrap();
        let io = in_time(ca.connector(alpn).connect(name, io)).await.unwrap();
        assert_eq!(request(io, "GET", "/health").await.0, 200);
    }
}

#[tokio::test]
async fn s61_a_unix_socket_can_be_encrypted() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Authority::new();
    let path = dir.path().join("kine2.sock");
    let _server = Running::with(ServeConfig {
        client_urls: vec![format!("unixs://{}", path.display()).parse().unwrap()],
        tls: Some(ca.install("kine2.sock", dir.path())),
        ..ServeConfig::default()
    });
    let io = UnixStream::connect(&path).await.unwrap();
    let name = ServerName::try_from("kine2.sock").unwrap();
    let io = in_time(ca.connector(&[]).connect(name, io)).await.unwrap();
    assert_eq!(request(io, "GET", "/health").await.0, 200);
}

#[tokio::test]
async fn s61_clients_without_a_certificate_of_the_authority_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, stranger) = (Authority::new(), Authority::new());
    let client_ca = dir.path().join("ca");
    std::fs::write(&client_ca, &ca.pem).unwrap();
    let files = TlsFiles {
        client_ca: Some(client_ca),
        ..ca.install("kine2", dir.path())
    };
    let server = start(files);
    let identity = |issuer: &Authority| {
        let (cert, key) = issuer.issue("client");
        Identity::from_pem(cert, key)
    };
    put_over(&server, ca.client_config().identity(identity(&ca)))
        .await
        .unwrap();
    put_over(&server, ca.client_config()).await.unwrap_err();
    put_over(&server, ca.client_config().identity(identity(&stranger)))
        .await
        .unwrap_err();
    assert_eq!(server.member.take_commands().len(), 1);
}

#[tokio::test]
async fn s61_renewed_files_are_used_and_broken_ones_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (Authority::new(), Authority::new());
    let files = old.install("kine2", dir.path());
    let server = start(files.clone());
    put_over(&server, old.client_config()).await.unwrap();

    std::fs::write(&files.cert, "half a certifi").unwrap();
    put_over(&server, old.client_config()).await.unwrap();

    new.install("kine2", dir.path());
    put_over(&server, new.client_config()).await.unwrap();
    put_over(&server, old.client_config()).await.unwrap_err();
}

#[tokio::test]
async fn a_client_that_does_not_shake_hands_holds_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Authority::new();
    let server = start(ca.install("kine2", dir.path()));
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(address(&server)).await.unwrap());
    }
    put_over(&server, ca.client_config()).await.unwrap();
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Authority::new();
    let bind = |tls| {
        let client_urls = vec!["https://127.0.0.1:0".parse().unwrap()];
        Server::bind(ServeConfig {
            client_urls,
            tls: Some(tls),
            ..ServeConfig::default()
        })
    };
    let files = ca.install("kine2", dir.path());
    let missing = TlsFiles {
        key: dir.path().join("none"),
        ..files.clone()
    };
    let error = bind(missing).unwrap_err();
    assert!(matches!(&error, ServeError::Tls(_)));
    assert!(
        error.to_string().starts_with("key ") && error.to_string().contains("none"),
        "{error}"
    );
    std::fs::write(&files.key, ca.issue("kine2").1).unwrap();
    let error = bind(files).unwrap_err().to_string();
    assert!(error.contains("cannot be used"), "{error}");
}
