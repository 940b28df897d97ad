//! TLS with and without client certificates, a unix socket, and a server that comes back.

use std::path::Path;
use std::time::Duration;

use etcd_client::{Certificate, Channel, Client, ConnectOptions, Identity, TlsOptions};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tonic::transport::Endpoint;

use crate::server::{Server, in_time, write};

/// An authority and the files a server needs.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer }
    }

    /// A certificate for a name, and its key.
    fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// The flags of a server for `localhost`.
    fn server_flags(&self, dir: &Path) -> Vec<String> {
        let (certificate, key) = self.issue("localhost");
        vec![
            format!("--cert-file={}", write(dir, "server.crt", &certificate)),
            format!("--key-file={}", write(dir, "server.key", &key)),
        ]
    }

    fn options(&self) -> TlsOptions {
        TlsOptions::new().ca_certificate(Certificate::from_pem(self.issuer.pem()))
    }
}

async fn put_over(server: &Server, tls: TlsOptions) -> Result<(), etcd_client::Error> {
    let options = ConnectOptions::new()
        .with_tls(tls)
        .with_timeout(Duration::from_secs(5));
    let url = format!("https://localhost:{}", server.port);
    let mut client = Client::connect([url], Some(options)).await?;
    in_time(client.put("a", "over tls", None)).await.map(drop)
}

#[tokio::test]
async fn tls_serves_who_trusts_the_authority() {
    let (authority, dir) = (Authority::new(), TempDir::new().unwrap());
    let flags = authority.server_flags(dir.path());
    let server = Server::start_with(dir, "https", &flags);
    put_over(&server, authority.options()).await.unwrap();
    let other = put_over(&server, Authority::new().options()).await;
    assert!(
        other.is_err(),
        "a client talks to a server it does not trust"
    );
}

#[tokio::test]
async fn tls_with_client_certificates_serves_only_who_has_one() {
    let (authority, dir) = (Authority::new(), TempDir::new().unwrap());
    let mut flags = authority.server_flags(dir.path());
    let trusted = write(dir.path(), "ca.crt", &authority.issuer.pem());
    flags.push(format!("--trusted-ca-file={trusted}"));
    let server = Server::start_with(dir, "https", &flags);
    let with = |authority: &Authority, of: &Authority| {
        let (certificate, key) = of.issue("client");
        authority
            .options()
            .identity(Identity::from_pem(certificate, key))
    };
    put_over(&server, with(&authority, &authority))
        .await
        .unwrap();
    let without = put_over(&server, authority.options()).await;
    assert!(without.is_err(), "a client without a certificate is served");
    let foreign = put_over(&server, with(&authority, &Authority::new())).await;
    assert!(
        foreign.is_err(),
        "a certificate of another authority is taken"
    );
}

#[tokio::test]
async fn a_unix_socket_serves_as_tcp_does() {
    let dir = TempDir::new().unwrap();
    let socket = format!("unix://{}", dir.path().join("kine2.sock").display());
    let flags = [format!("--listen-client={socket}")];
    let server = Server::start_with(dir, "http", &flags);
    let channel = Endpoint::from_shared(socket)
        .unwrap()
        .connect()
        .await
        .unwrap();
    let mut over_socket = Client::from_channel(Channel::Tonic(channel), None)
        .await
        .unwrap();
    over_socket.put("a", "over a socket", None).await.unwrap();
    let over_tcp = server.client().await.get("a", None).await.unwrap();
    assert_eq!(over_tcp.kvs()[0].value(), b"over a socket");
}

#[tokio::test]
async fn a_client_goes_on_after_the_server_came_back() {
    let mut server = Server::start();
    let mut client = server.client().await;
    client.put("a", "1", None).await.unwrap();
    server.kill_and_start();
    // The crate hands the lost connection's error on; the next call connects anew.
    let got = in_time(async {
        loop {
            if let Ok(got) = client.get("a", None).await {
                break got;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(got.kvs()[0].value(), b"1");
}
