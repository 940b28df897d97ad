//! A node's end of the connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kine2_peer::framing::{MessageReader, put};
use kine2_peer::wire::{call_to_wire, word_from_wire};
use kine2_proto::kine2::witness_down::Message as Down;
use kine2_proto::kine2::witness_hello::Purpose;
use kine2_proto::kine2::witness_up::Message as Up;
use kine2_proto::kine2::{
    Nothing, WitnessDown, WitnessEnrol, WitnessHello, WitnessUp, WitnessWelcome,
};
use kine2_replication::{
    Ask, Cas, ClusterId, Config, Form, NodeRef, RegisterKey, Report, Tell, WitnessCall, WitnessId,
    WitnessWord,
};
use kine2_trust::{Code, Refusal, Trust, joining_client, nobody};
use rustls::ClientConfig;
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Longest time that anything may take.
const WAIT: Duration = Duration::from_secs(15);

type Tls = TlsStream<TcpStream>;

pub(crate) struct Connection {
    pub(crate) read: MessageReader<ReadHalf<Tls>>,
    pub(crate) write: WriteHalf<Tls>,
}

impl Connection {
    pub(crate) async fn open(to: SocketAddr, config: ClientConfig) -> Result<Self, Refusal> {
        let stream = TcpStream::connect(to).await.unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        let stream = connector.connect(nobody(), stream).await;
        let stream = stream.map_err(|error| Refusal::of_io(&error))?;
        let (read, write) = split(stream);
        Ok(Self {
            read: MessageReader::new(read, 1 << 20),
            write,
        })
    }

    pub(crate) async fn send(&mut self, message: &impl prost::Message) {
        let mut out = BytesMut::new();
        put(&mut out, message);
        // What the witness does not want it does not read.
        let _ = self.write.write_all(&out).await;
        let _ = self.write.flush().await;
    }

    /// Says what the connection is for, and what the witness says to that; nothing if it ends.
    pub(crate) async fn greet(&mut self, purpose: Purpose) -> Option<WitnessWelcome> {
        let purpose = Some(purpose);
        let hello = WitnessHello {
            version: 1,
            version_min: 1,
            purpose,
        };
        self.send(&hello).await;
        self.next().await
    }

    /// The next message; nothing where the connection ends, by whatever.
    pub(crate) async fn next<M: prost::Message + Default>(&mut self) -> Option<M> {
        let read = timeout(WAIT, self.read.next()).await;
        read.expect("something comes, or the end").ok()?
    }
}

/// Enrols the cluster of `trust`: why it is refused, empty if it is not.
pub(crate) async fn enrol(to: SocketAddr, code: &Code, trust: &Trust) -> String {
    let cluster = trust.owner().cluster;
    enrol_as(to, code, cluster, trust).await
}

pub(crate) async fn enrol_as(
    to: SocketAddr,
    code: &Code,
    cluster: ClusterId,
    trust: &Trust,
) -> String {
    let config = joining_client(code).unwrap();
    let mut connection = Connection::open(to, config).await.unwrap();
    let purpose = Purpose::Enrol(WitnessEnrol {
        secret: Bytes::copy_from_slice(&code.secret.0),
        cluster: Bytes::copy_from_slice(&cluster.0.to_be_bytes()),
        authority_certificate: Bytes::copy_from_slice(&trust.authority_certificate()),
    });
    connection.greet(purpose).await.unwrap().refused
}

/// The id of the witness that a code leads to.
pub(crate) fn witness_of(code: &Code) -> WitnessId {
    WitnessId(u128::from_be_bytes(
        code.fingerprint.0[..16].try_into().unwrap(),
    ))
}

/// A session of one node.
pub(crate) struct Session {
    pub(crate) connection: Connection,
    pub(crate) witness: WitnessId,
    node: NodeRef,
    number: u64,
}

impl Session {
    pub(crate) async fn open(to: SocketAddr, trust: &Trust, witness: WitnessId) -> Self {
        let opened = Self::try_open(to, trust, witness).await;
        opened.unwrap_or_else(|refused| panic!("refused: {refused}"))
    }

    pub(crate) async fn try_open(
        to: SocketAddr,
        trust: &Trust,
        witness: WitnessId,
    ) -> Result<Self, String> {
        let config = trust.witness_client_config(witness).unwrap();
        let connection = Connection::open(to, config).await;
        let mut connection = connection.map_err(|refusal| refusal.to_string())?;
        let welcome = connection.greet(Purpose::Session(Nothing {})).await;
        let welcome = welcome.ok_or("the connection ended")?;
        if !welcome.refused.is_empty() {
            return Err(welcome.refused);
        }
        assert_eq!(welcome.witness[..], witness.0.to_be_bytes());
        Ok(Self {
            connection,
            witness,
            node: trust.owner().node.clone(),
            number: 0,
        })
    }

    /// Sends a call, and gives its number.
    pub(crate) async fn send(&mut self, key: &RegisterKey, ask: Ask) -> u64 {
        let caller = self.node.clone();
        self.send_as(key, caller, ask).await
    }

    pub(crate) async fn send_as(&mut self, key: &RegisterKey, caller: NodeRef, ask: Ask) -> u64 {
        self.number += 1;
        let call = WitnessCall {
            key: key.clone(),
            witness: self.witness,
            caller,
            number: self.number,
            ask,
        };
        let message = Some(Up::Call(call_to_wire(&call)));
        self.connection.send(&WitnessUp { message }).await;
        self.number
    }

    pub(crate) async fn next(&mut self) -> Option<Down> {
        let message: WitnessDown = self.connection.next().await?;
        Some(message.message.unwrap())
    }

    /// The next word; what else comes is not expected.
    pub(crate) async fn word(&mut self) -> WitnessWord {
        match self.next().await {
            Some(Down::Word(word)) => word_from_wire(word).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// Calls, and waits for the answer; words in between are left out.
    pub(crate) async fn call(&mut self, key: &RegisterKey, ask: Ask) -> Tell {
        let number = self.send(key, ask).await;
        loop {
            let word = self.word().await;
            if word.answers == Some(number) {
                return word.tell;
            }
        }
    }

    /// The register's content.
    pub(crate) async fn get(&mut self, key: &RegisterKey) -> Config {
        match self.call(key, Ask::Get).await {
            Tell::Register(config) => *config,
            other => panic!("{other:?}"),
        }
    }

    /// Uses a form on what is stored.
    pub(crate) async fn cas(&mut self, key: &RegisterKey, form: Form) -> Tell {
        let cas = self.make(key, form).await;
        self.call(key, Ask::Cas(Box::new(cas))).await
    }

    pub(crate) async fn make(&mut self, key: &RegisterKey, form: Form) -> Cas {
        let stored = self.get(key).await;
        let new = form.make(&stored, &self.node, stored.uid + 1).unwrap();
        Cas {
            form,
            expected: stored.id(),
            new,
            held: None,
        }
    }

    pub(crate) async fn report(&mut self, key: &RegisterKey, config: &Config) {
        let report = Report {
            epoch: config.epoch,
            healthy: true,
            held: None,
        };
        self.send(key, Ask::Report(report)).await;
    }
}
