//! Clusters: a pair of kine2 with its witness, and three members of etcd.

use std::collections::HashMap;
use std::fs::File;
use std::net::TcpListener;
use std::ops::Range;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, bail, ensure};

use crate::grpc::Connection;
use crate::protobuf::Fields;
use crate::requests::{self, Method};

/// Ports of a pair: client, peer and admin of two nodes, and the witness.
const PAIR_PORTS: u16 = 7;
/// Clients and peers of three members.
const THREE_PORTS: u16 = 6;
const PORTS_TRIES: usize = 100;

/// The processes of a cluster, and where clients find its members.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) children: Vec<Child>,
    /// Processes that `scripts/pair` left behind.
    pub(crate) left: Vec<u32>,
    pub(crate) addresses: Vec<String>,
}

/// A pair as `scripts/pair` starts it; the witness's program is beside that of the nodes.
pub(crate) fn pair(kine2: &Path, dir: &Path) -> anyhow::Result<Cluster> {
    let ports = free_ports(PAIR_PORTS)?;
    let kine2 = kine2
        .canonicalize()
        .with_context(|| kine2.display().to_string())?;
    let output = Command::new("scripts/pair")
        .arg("up")
        .args([dir.as_os_str(), ports.start.to_string().as_ref()])
        .env("WITNESS_BIN", kine2.with_file_name("kine2-witness"))
        .env("KINE2_BIN", &kine2)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("run scripts/pair")?;
    ensure!(
        output.status.success(),
        "scripts/pair ended with {}",
        output.status
    );
    let text = String::from_utf8(output.stdout)?;
    let env: HashMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .collect();
    let named = |name: &str| {
        let value = env.get(name);
        value
            .copied()
            .with_context(|| format!("scripts/pair does not tell {name}"))
    };
    let mut cluster = Cluster {
        children: Vec::new(),
        left: Vec::new(),
        addresses: Vec::new(),
    };
    for name in ["A_PID", "B_PID", "W_PID"] {
        cluster.left.push(named(name)?.parse()?);
    }
    for name in ["A_ENDPOINT", "B_ENDPOINT"] {
        let endpoint = named(name)?;
        let address = endpoint.strip_prefix("http://").unwrap_or(endpoint);
        cluster.addresses.push(address.to_owned());
    }
    Ok(cluster)
}

/// Three members of etcd, each with its own directory in `dir`.
pub(crate) fn three(etcd: &Path, dir: &Path) -> anyhow::Result<Cluster> {
    let ports: Vec<u16> = free_ports(THREE_PORTS)?.collect();
    let (clients, peers) = ports.split_at(3);
    let members: Vec<String> = peers
        .iter()
        .enumerate()
        .map(|(number, port)| format!("m{number}=http://127.0.0.1:{port}"))
        .collect();
    let members = members.join(",");
    let mut cluster = Cluster {
        children: Vec::new(),
        left: Vec::new(),
        addresses: Vec::new(),
    };
    for (number, (client, peer)) in clients.iter().zip(peers).enumerate() {
        let log = File::create(dir.join(format!("m{number}.log")))?;
        let child = Command::new(etcd)
            .arg("--data-dir")
            .arg(dir.join(format!("m{number}")))
            .args(["--listen", &format!("http://127.0.0.1:{client}")])
            .args(["--listen-peer", &format!("http://127.0.0.1:{peer}")])
            .args(["--name", &format!("m{number}"), "--cluster", &members])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {}", etcd.display()))?;
        cluster.children.push(child);
        cluster.addresses.push(format!("127.0.0.1:{client}"));
    }
    Ok(cluster)
}

/// The member that orders writes, and one of the others.
pub(crate) async fn places(addresses: &[String]) -> anyhow::Result<(&str, &str)> {
    let (mut first, mut other) = (None, None);
    for address in addresses {
        let connection = Connection::open(address).await?;
        let answer = connection.call(Method::Status, requests::status()).await?;
        let answer = Fields(&answer);
        let (itself, leader) = (answer.message(1).int(2), answer.int(4));
        ensure!(leader != 0, "{address} knows no leader");
        let place = if itself == leader {
            &mut first
        } else {
            &mut other
        };
        *place = Some(&address[..]);
    }
    match (first, other) {
        (Some(first), Some(other)) => Ok((first, other)),
        _ => bail!("the members {addresses:?} do not agree on their leader"),
    }
}

/// As many ports in a row as nobody listens at now.
fn free_ports(count: u16) -> anyhow::Result<Range<u16>> {
    for _ in 0..PORTS_TRIES {
        let first = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let Some(end) = first.checked_add(count) else {
            continue;
        };
        if (first..end).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return Ok(first..end);
        }
    }
    bail!("no {count} free ports in a row")
}
