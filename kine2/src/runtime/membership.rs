//! Becoming a member: of a new cluster, or of one that a code lets in to.
//!
//! In the data directory, `tls` holds the cluster's authority and this node's certificate, `joined`
//! the configuration that a node which joined begins with.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use kine2_proto::kine2::{JoinAnswer, JoinRequest};
use kine2_replication::{ClusterId, Config, Durable, NodeRef};
use kine2_trust::{Asking, Code, CodeKind, JOIN_MESSAGE_BYTES_MAX, Joined, Trust, nobody};
use prost::Message;

use super::identity::{NodeIdentity, random_id};
use super::open::LOG_DIR;
use super::own_record::incarnation;
use super::peers::PeerAddresses;
use crate::config::ServeConfig;

const JOINED: &str = "joined";
/// Longest time to connect to the cluster, and to be answered.
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);

/// The directory of certificates within a data directory.
pub(crate) fn trust_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("tls")
}

/// The configuration that a node which joined begins with.
///
/// # Errors
/// If the file cannot be read.
pub(super) fn load_joined(data_dir: &Path) -> anyhow::Result<Option<Config>> {
    let path = data_dir.join(JOINED);
    match fs::read(&path) {
        Ok(bytes) => {
            let config = Config::decode(&bytes);
            let config = config.with_context(|| format!("read {}", path.display()))?;
            Ok(Some(config))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

/// Makes a cluster of this node. What the data directory holds stays: a single node becomes the
/// first of a pair.
///
/// # Errors
/// If it belongs to a cluster already, or cannot be written.
pub(crate) fn init(config: &ServeConfig) -> anyhow::Result<NodeRef> {
    let data_dir = &config.data_dir;
    ensure!(
        !trust_dir(data_dir).exists(),
        "{} belongs to a cluster already",
        data_dir.display()
    );
    make_data_dir(data_dir)?;
    let identity = NodeIdentity::load_or_create(data_dir)?;
    let name = match recorded_name(data_dir, identity)? {
        Some(name) => name,
        None => config.name.clone(),
    };
    let me = NodeRef {
        name: name.as_str().into(),
        incarnation: incarnation(identity),
    };
    let cluster = ClusterId(identity.cluster_id.into());
    Trust::init(&trust_dir(data_dir), cluster, &me, SystemTime::now())?;
    Ok(me)
}

fn make_data_dir(data_dir: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(data_dir)
        .with_context(|| format!("make the data directory {}", data_dir.display()))
}

/// What a node that served by itself is called in its log.
fn recorded_name(data_dir: &Path, identity: NodeIdentity) -> anyhow::Result<Option<String>> {
    let log_dir = data_dir.join(LOG_DIR);
    if !log_dir.exists() {
        return Ok(None);
    }
    let options = kine2_wal::WalOptions::with_seed(random_id()?);
    let disk = kine2_wal::FileDisk::open(&log_dir)
        .with_context(|| format!("open {}: is kine2 running?", log_dir.display()))?;
    let (_, recovery) = kine2_wal::Wal::open(disk, options)
        .with_context(|| format!("open the log in {}", log_dir.display()))?;
    let Some(bytes) = recovery.hard_state else {
        return Ok(None);
    };
    let durable = Durable::decode(&bytes).context("the log's record of this node")?;
    let hard = durable.hard.context("the log's record of this node")?;
    let mut members = hard.config.members.iter();
    let me = members.find(|member| member.incarnation == incarnation(identity));
    Ok(me.map(|me| me.name.to_string()))
}

/// Joins the cluster that the code names.
///
/// # Errors
/// If the code or the cluster does not let this node in, or the data directory is not new.
pub(crate) fn join(config: &ServeConfig, code: &str) -> anyhow::Result<NodeRef> {
    let now = SystemTime::now();
    let code = Code::read(code.trim(), CodeKind::Join, now)?;
    let data_dir = &config.data_dir;
    make_data_dir(data_dir)?;
    let mut names = fs::read_dir(data_dir)
        .with_context(|| format!("read {}", data_dir.display()))?
        .flatten()
        .map(|entry| entry.file_name());
    if let Some(name) = names.find(|name| name != "lost+found") {
        bail!(
            "{} is not empty ({}): a node joins with an empty data directory, and takes over all \
             that the cluster has",
            data_dir.display(),
            name.to_string_lossy()
        );
    }
    let member_id = random_id()?;
    let me = NodeRef {
        name: config.name.as_str().into(),
        incarnation: kine2_replication::Incarnation(member_id.into()),
    };
    let request = JoinRequest {
        addresses: match config.advertise_peer.is_empty() {
            false => config.advertise_peer.clone(),
            true if config.listen_peer.ip().is_unspecified() => {
                vec![format!(":{}", config.listen_peer.port())]
            }
            true => vec![config.listen_peer.to_string()],
        },
    };
    let asking = Asking::begin(&code, me.clone(), request.encode_to_vec().into())?;
    let answer = exchange(&code, &asking.request())?;
    let joined = asking.answered(answer, now)?;
    keep(data_dir, &code, &joined, member_id)?;
    Ok(me)
}

/// Writes what the cluster gave. The certificates come last: without them the data directory is of
/// no cluster.
fn keep(data_dir: &Path, code: &Code, joined: &Joined, member_id: u64) -> anyhow::Result<()> {
    let answer = JoinAnswer::decode(joined.payload.clone()).context("the cluster's answer")?;
    let config = Config::decode(&answer.config).context("the cluster's configuration")?;
    let cluster_id = u64::try_from(config.cluster.0).context("the cluster's id")?;
    NodeIdentity::create(data_dir, cluster_id, member_id)?;
    let path = data_dir.join(JOINED);
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&path)?;
        file.write_all(&answer.config)?;
        file.sync_all()
    };
    write().with_context(|| format!("write {}", path.display()))?;
    PeerAddresses::load(data_dir, &[])?.keep(code.addresses.clone())?;
    Trust::join(&trust_dir(data_dir), joined, SystemTime::now())?;
    Ok(())
}

/// Asks at the addresses of the code, in their order, until one answers.
fn exchange(code: &Code, request: &Bytes) -> anyhow::Result<Bytes> {
    let mut last = anyhow::anyhow!("the code names no address");
    for address in &code.addresses {
        match exchange_at(address, code, request) {
            Ok(answer) => return Ok(answer),
            Err(error) => last = error.context(format!("ask {address}")),
        }
    }
    Err(last)
}

fn exchange_at(address: &str, code: &Code, request: &Bytes) -> anyhow::Result<Bytes> {
    use std::net::{TcpStream, ToSocketAddrs};
    let address = address.to_socket_addrs()?.next();
    let address = address.context("the name has no address")?;
    let mut stream = TcpStream::connect_timeout(&address, JOIN_TIMEOUT)?;
    stream.set_read_timeout(Some(JOIN_TIMEOUT))?;
    stream.set_write_timeout(Some(JOIN_TIMEOUT))?;
    let config = kine2_trust::joining_client(code)?;
    let mut tls = rustls::ClientConnection::new(Arc::new(config), nobody())?;
    let mut stream = rustls::Stream::new(&mut tls, &mut stream);
    let length = u32::try_from(request.len()).context("requests are short")?;
    stream.write_all(&length.to_le_bytes())?;
    stream.write_all(request)?;
    stream.flush()?;
    let mut length = [0; 4];
    stream.read_exact(&mut length).context("the answer")?;
    let length = usize::try_from(u32::from_le_bytes(length))?;
    ensure!(
        length <= JOIN_MESSAGE_BYTES_MAX,
        "the answer has {length} bytes; at most {JOIN_MESSAGE_BYTES_MAX} are accepted"
    );
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).context("the answer")?;
    Ok(answer.into())
}
