//! Letting a node in that shows a join code.

use std::net::IpAddr;
use std::time::SystemTime;

use anyhow::{Context, bail};
use bytes::{Bytes, BytesMut};
use kine2_peer::Stream;
use kine2_peer::framing::{MessageReader, put_bytes};
use kine2_proto::kine2::{JoinAnswer, JoinRequest};
use kine2_replication::{Config, MEMBERS_MAX, NodeRef};
use kine2_trust::{JoinRefusal, admit};
use prost::Message;
use tokio::io::AsyncWriteExt;
use tracing::{info, warn};

use super::Pair;

/// Links of a pair at most.
const LINKS_MAX: usize = 8;

impl Pair {
    /// Answers a node that wants to join.
    pub(super) async fn let_in(&self, mut reader: MessageReader<Stream>) {
        if let Err(error) = self.admit(&mut reader).await {
            warn!(error = format!("{error:#}"), "a node was not let in");
        }
    }

    async fn admit(&self, reader: &mut MessageReader<Stream>) -> anyhow::Result<()> {
        let request = reader.next_bytes().await?;
        let request = request.context("the connection ended at once")?;
        let stream = reader.stream_mut();
        let from = stream.get_ref().0.peer_addr()?.ip();
        let (answer, outcome) = match self.decide(request, from) {
            Ok(answer) => (answer, Ok(())),
            Err(refusal) => {
                self.trust.refusals().count(refusal.kind());
                (refusal.answer(), Err(refusal))
            }
        };
        let mut out = BytesMut::new();
        put_bytes(&mut out, &answer);
        stream.write_all_buf(&mut out).await?;
        stream.shutdown().await?;
        Ok(outcome?)
    }

    fn decide(&self, request: Bytes, from: IpAddr) -> Result<Bytes, JoinRefusal> {
        let now = SystemTime::now();
        let config = self.shared.node.lock().unit().config().clone();
        let mut addresses = Vec::new();
        let codes = self.trust.codes();
        let admission = admit(&codes, request, now, |node, payload| {
            addresses = read_addresses(payload, from).map_err(|error| format!("{error:#}"))?;
            has_room(&config, node)
        })?;
        let kept = self.addresses.lock().keep(addresses.clone());
        let counts = kept.map_err(|error| JoinRefusal::Cluster(format!("{error:#}")))?;
        let payload = JoinAnswer {
            config: config.encode(),
        };
        let authority = self.trust.authority();
        let authority = authority.map_err(|error| JoinRefusal::Cluster(error.to_string()))?;
        let answer = admission.answer(&authority, payload.encode_to_vec().into(), now)?;
        if counts {
            self.net.set_peers(&addresses);
        }
        info!(node = %admission.node(), ?addresses, "let a node in");
        Ok(answer)
    }
}

/// Whether a node of this name can be the second one.
fn has_room(config: &Config, node: &NodeRef) -> Result<(), String> {
    let primary = &config.primary;
    if node.name == primary.name {
        return Err(format!("the primary has the name {} already", node.name));
    }
    let others: Vec<_> = config
        .members
        .iter()
        .filter(|member| member.name != node.name)
        .collect();
    if others.len() == MEMBERS_MAX {
        return Err(format!(
            "the cluster has {MEMBERS_MAX} nodes, {} and {}; a node that takes the place of one of \
             them has its name",
            others[0].name, others[1].name
        ));
    }
    Ok(())
}

/// Where the joiner is reached.
fn read_addresses(payload: &Bytes, from: IpAddr) -> anyhow::Result<Vec<String>> {
    let request = JoinRequest::decode(payload.clone()).context("what the node adds")?;
    if request.addresses.is_empty() || request.addresses.len() > LINKS_MAX {
        bail!(
            "it has {} addresses; 1 to {LINKS_MAX} are accepted",
            request.addresses.len()
        );
    }
    let complete = |address: &String| match (address.strip_prefix(':'), from) {
        (Some(port), IpAddr::V6(from)) => format!("[{from}]:{port}"),
        (Some(port), IpAddr::V4(from)) => format!("{from}:{port}"),
        (None, _) => address.clone(),
    };
    Ok(request.addresses.iter().map(complete).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_a_host_is_the_one_it_comes_from() {
        let request = JoinRequest {
            addresses: vec![":2380".into(), "b.example:2380".into()],
        };
        let payload = Bytes::from(request.encode_to_vec());
        let read = |from: &str| read_addresses(&payload, from.parse().unwrap()).unwrap();
        assert_eq!(read("192.0.2.7"), ["192.0.2.7:2380", "b.example:2380"]);
        assert_eq!(
            read("2001:db8::7"),
            ["[2001:db8::7]:2380", "b.example:2380"]
        );
        assert!(read_addresses(&Bytes::new(), IpAddr::from([127, 0, 0, 1])).is_err());
    }
}
