//! One connection: its handshake, what it is for, and that.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use kine2_proto::kine2::witness_hello::Purpose;
use kine2_proto::kine2::{WitnessEnrol, WitnessHello, WitnessWelcome};
use kine2_replication::{ClusterId, WitnessId, WitnessLife};
use kine2_trust::{
    CodeRefusal, OpenCodes, Owner, Refusal, RefusalCounts, RefusalKind, Secret,
    cluster_of_authority,
};
use prost::Message;
use rustls::pki_types::CertificateDer;
use thiserror::Error;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::limits::{HANDSHAKE_MAX, OUTBOUND_MAX};
use crate::messages::{MessageError, MessageReader, framed};
use crate::service::{Input, SessionId};
use crate::session::{self, End};

/// Version of the protocol that is spoken: the highest and the lowest.
const VERSION: u32 = 1;
const VERSION_MIN: u32 = 1;

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) witness: WitnessId,
    pub(crate) life: WitnessLife,
    pub(crate) acceptor: TlsAcceptorDebug,
    pub(crate) codes: OpenCodes,
    pub(crate) counts: RefusalCounts,
    pub(crate) inputs: mpsc::Sender<Input>,
}

/// [`TlsAcceptor`], which does not tell what is in it.
pub(crate) struct TlsAcceptorDebug(pub(crate) TlsAcceptor);

impl std::fmt::Debug for TlsAcceptorDebug {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsAcceptor")
    }
}

/// Why a connection came to nothing.
#[derive(Debug, Error)]
pub(crate) enum Fault {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("its first message did not come within {} s", HANDSHAKE_MAX.as_secs())]
    Slow,
    #[error("its first message: {0}")]
    Message(#[from] MessageError),
    #[error("it speaks versions {0} to {1}; {VERSION_MIN} to {VERSION} are accepted")]
    Version(u32, u32),
    #[error("it does not say what it is for")]
    Purpose,
    #[error("{0}")]
    Limit(&'static str),
    #[error(transparent)]
    Code(#[from] CodeRefusal),
    #[error("it cannot be enrolled: {0}")]
    Enrol(String),
    #[error("the witness stops")]
    Stopped,
}

impl Fault {
    fn kind(&self) -> RefusalKind {
        match self {
            Self::Refused(refusal) => refusal.kind(),
            Self::Slow | Self::Stopped | Self::Limit(_) => RefusalKind::Connection,
            Self::Message(_) | Self::Version(..) | Self::Purpose => RefusalKind::Protocol,
            Self::Code(_) | Self::Enrol(_) => RefusalKind::Code,
        }
    }
}

/// A connection that said what it is for.
struct Greeted {
    stream: TlsStream<TcpStream>,
    reader: MessageReader,
    /// Whose certificate it showed.
    owner: Option<Owner>,
    purpose: Purpose,
}

impl Shared {
    /// Serves a connection until it ends. `permit` is given back when it has said what it is for.
    pub(crate) async fn serve(
        self: Arc<Self>,
        stream: TcpStream,
        address: SocketAddr,
        session: SessionId,
        permit: OwnedSemaphorePermit,
    ) {
        let greeted = timeout(HANDSHAKE_MAX, self.greet(stream)).await;
        drop(permit);
        let served = match greeted {
            Err(_) => Err(Fault::Slow),
            Ok(Err(fault)) => Err(fault),
            Ok(Ok(greeted)) => self.serve_purpose(greeted, address, session).await,
        };
        if let Err(fault) = served {
            self.counts.count(fault.kind());
            tracing::warn!(%address, reason = fault.kind().label(), "refused: {fault}");
        }
    }

    async fn greet(&self, stream: TcpStream) -> Result<Greeted, Fault> {
        let accepted = self.acceptor.0.accept(stream).await;
        let mut stream = accepted.map_err(|error| Refusal::of_io(&error))?;
        let certificates = stream.get_ref().1.peer_certificates();
        let owner = match certificates.and_then(<[_]>::first) {
            Some(certificate) => Some(Owner::of(certificate).map_err(Refusal::from)?),
            None => None,
        };
        let mut reader = MessageReader::default();
        let message = match reader.next(&mut stream).await {
            Ok(Some(message)) => message,
            Ok(None) => return Err(MessageError::Torn.into()),
            // A node that does not want this witness says so now.
            Err(MessageError::Io(error)) => return Err(Refusal::of_io(&error).into()),
            Err(error) => return Err(error.into()),
        };
        let hello = WitnessHello::decode(message).map_err(MessageError::from)?;
        let fault = match hello.purpose {
            _ if hello.version < VERSION_MIN || hello.version_min > VERSION => {
                Fault::Version(hello.version_min, hello.version)
            }
            None => Fault::Purpose,
            Some(purpose) => {
                return Ok(Greeted {
                    stream,
                    reader,
                    owner,
                    purpose,
                });
            }
        };
        self.refuse(&mut stream, &fault).await;
        Err(fault)
    }

    async fn serve_purpose(
        &self,
        greeted: Greeted,
        address: SocketAddr,
        session: SessionId,
    ) -> Result<(), Fault> {
        let Greeted {
            mut stream,
            reader,
            owner,
            purpose,
        } = greeted;
        let outcome = match purpose {
            Purpose::Enrol(enrol) => self.enrol(enrol).await,
            Purpose::Status(_) => self.status(owner).await,
            Purpose::Session(_) => match self.open(owner, address, session).await {
                Ok((owner, words)) => {
                    return self.carry(stream, reader, session, owner, words).await;
                }
                Err(fault) => Err(fault),
            },
        };
        match outcome {
            Ok(status) => self.finish(&mut stream, &self.welcome(status)).await,
            Err(fault) => {
                self.refuse(&mut stream, &fault).await;
                return Err(fault);
            }
        }
        Ok(())
    }

    async fn open(
        &self,
        owner: Option<Owner>,
        address: SocketAddr,
        session: SessionId,
    ) -> Result<(Owner, mpsc::Receiver<Bytes>), Fault> {
        let owner = owner.ok_or(Refusal::NoCertificate)?;
        let (out, words) = mpsc::channel(OUTBOUND_MAX);
        let (done, opened) = oneshot::channel();
        let input = Input::Open {
            session,
            owner: owner.clone(),
            address,
            out,
            done,
        };
        self.ask(input).await?;
        let opened = opened.await.map_err(|_| Fault::Stopped)?;
        opened.map_err(Fault::Limit)?;
        Ok((owner, words))
    }

    async fn carry(
        &self,
        mut stream: TlsStream<TcpStream>,
        reader: MessageReader,
        session: SessionId,
        owner: Owner,
        words: mpsc::Receiver<Bytes>,
    ) -> Result<(), Fault> {
        tracing::info!(%owner, "session opened");
        let end = match session::send(&mut stream, &framed(&self.welcome(String::new()))).await {
            Ok(()) => session::carry(stream, reader, session, &self.inputs, words).await,
            Err(end) => end,
        };
        tracing::info!(%owner, %end, "session closed");
        let refusal = end.refusal();
        // Told in any case, at once.
        self.ask(Input::Closed(session)).await?;
        match (end, refusal) {
            (_, Some(refusal)) => Err(refusal.into()),
            (End::Message(error @ (MessageError::Long(_) | MessageError::Encoding(_))), _) => {
                Err(error.into())
            }
            _ => Ok(()),
        }
    }

    async fn status(&self, owner: Option<Owner>) -> Result<String, Fault> {
        let cluster = owner.ok_or(Refusal::NoCertificate)?.cluster;
        let (done, status) = oneshot::channel();
        let cluster = Some(cluster);
        self.ask(Input::Status { cluster, done }).await?;
        status.await.map_err(|_| Fault::Stopped)
    }

    /// Lets a cluster in whose node knows the secret of an open code.
    async fn enrol(&self, enrol: WitnessEnrol) -> Result<String, Fault> {
        let malformed = |what: &str| Fault::Enrol(what.to_owned());
        let secret = <[u8; 16]>::try_from(&enrol.secret[..]);
        let secret = Secret(secret.map_err(|_| malformed("the secret has no 16 bytes"))?);
        let now = SystemTime::now();
        let unusable = |error: kine2_trust::CodesError| Fault::Enrol(error.to_string());
        self.codes.look(&secret, now).map_err(unusable)??;
        let cluster = <[u8; 16]>::try_from(&enrol.cluster[..]);
        let cluster = cluster.map_err(|_| malformed("the cluster's id has no 16 bytes"))?;
        let cluster = ClusterId(u128::from_be_bytes(cluster));
        let certificate = CertificateDer::from(enrol.authority_certificate.to_vec());
        let named = cluster_of_authority(&certificate);
        if named.map_err(|error| malformed(&error.to_string()))? != cluster {
            return Err(malformed("the authority is another cluster's"));
        }
        // A file is flushed: not on the thread that everybody waits for.
        let codes = OpenCodes::at(self.codes.path().to_owned());
        let taken = spawn_blocking(move || codes.take(&secret, now)).await;
        taken.map_err(|_| Fault::Stopped)?.map_err(unusable)??;
        let (done, enrolled) = oneshot::channel();
        self.ask(Input::Enrol {
            cluster,
            certificate,
            done,
        })
        .await?;
        let enrolled = enrolled.await.map_err(|_| Fault::Stopped)?;
        enrolled.map_err(Fault::Enrol).map(|()| String::new())
    }

    async fn ask(&self, input: Input) -> Result<(), Fault> {
        self.inputs.send(input).await.map_err(|_| Fault::Stopped)
    }

    fn welcome(&self, status: String) -> WitnessWelcome {
        WitnessWelcome {
            version: VERSION,
            refused: String::new(),
            witness: Bytes::copy_from_slice(&self.witness.0.to_be_bytes()),
            life: self.life.0,
            status,
        }
    }

    async fn refuse(&self, stream: &mut TlsStream<TcpStream>, fault: &Fault) {
        let welcome = WitnessWelcome {
            refused: fault.to_string(),
            ..self.welcome(String::new())
        };
        self.finish(stream, &welcome).await;
    }

    /// Says a last thing. Whether it arrives changes nothing.
    async fn finish(&self, stream: &mut TlsStream<TcpStream>, welcome: &WitnessWelcome) {
        let _ = session::send(stream, &framed(welcome)).await;
        let _ = timeout(HANDSHAKE_MAX, stream.shutdown()).await;
    }
}
