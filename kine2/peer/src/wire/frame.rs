//! Frames between the two nodes.

use kine2_proto::kine2 as proto;
use kine2_proto::kine2::frame::Body as Wire;
use kine2_replication::{
    Body, Config, ConfigId, Epoch, Frame, Heartbeat, LogIndex, Opened, Origin, PartName,
};

use super::WireError;
use super::ids::{
    by_part, entries, entries_to_wire, identity_to_wire, key, needed, node_from_wire, node_to_wire,
    part, parts, parts_to_wire, position_from_wire, position_to_wire, read, read_to_wire, stream,
    stream_to_wire, summary, summary_to_wire,
};

/// A frame on the wire.
#[must_use]
pub fn frame_to_wire(frame: &Frame) -> proto::Frame {
    proto::Frame {
        cluster: identity_to_wire(frame.key.cluster.0),
        unit: frame.key.unit.as_str().to_owned(),
        from: Some(node_to_wire(&frame.from)),
        epoch: frame.id.epoch.0,
        uid: frame.id.uid,
        origin: frame.id.origin.0,
        run: frame.run,
        number: frame.number,
        echo: frame.echo,
        body: Some(body_to_wire(&frame.body)),
    }
}

/// A frame from the wire.
///
/// # Errors
/// If it is malformed.
pub fn frame_from_wire(frame: proto::Frame) -> Result<Frame, WireError> {
    Ok(Frame {
        key: key(&frame.cluster, &frame.unit)?,
        from: node_from_wire(frame.from.as_ref())?,
        id: ConfigId {
            epoch: Epoch(frame.epoch),
            uid: frame.uid,
            origin: Origin(frame.origin),
        },
        run: frame.run,
        number: frame.number,
        echo: frame.echo,
        body: body(needed(frame.body, "a frame's content")?)?,
    })
}

fn name(part: &PartName) -> String {
    part.as_str().to_owned()
}

fn body_to_wire(body: &Body) -> Wire {
    match body {
        Body::Hello(config) => Wire::Hello(config.encode()),
        Body::HelloAck(parts) => Wire::HelloAck(proto::Parts {
            parts: parts_to_wire(parts),
        }),
        Body::FetchTail { part, after } => Wire::FetchTail(proto::FetchTail {
            part: name(part),
            after: Some(position_to_wire(after)),
        }),
        Body::Tail {
            part,
            prev,
            entries,
        } => Wire::Tail(proto::Tail {
            part: name(part),
            prev: Some(position_to_wire(prev)),
            entries: entries_to_wire(entries),
        }),
        Body::Open {
            config,
            opening,
            parts,
        } => Wire::Open(proto::Open {
            config: config.encode(),
            opening: *opening,
            parts: parts_to_wire(parts),
        }),
        Body::OpenAck { opening, parts } => Wire::OpenAck(proto::OpenAck {
            opening: *opening,
            parts: parts.iter().map(opened_to_wire).collect(),
        }),
        Body::Append {
            part,
            stream,
            prev,
            entries,
            commit,
        } => Wire::Append(proto::Append {
            part: name(part),
            stream: Some(stream_to_wire(stream)),
            prev: Some(position_to_wire(prev)),
            entries: entries_to_wire(entries),
            commit: commit.0,
        }),
        Body::Ack {
            part,
            stream,
            matched,
        } => Wire::Ack(proto::Ack {
            part: name(part),
            stream: Some(stream_to_wire(stream)),
            matched: matched.0,
        }),
        Body::Nack { part, stream } => Wire::Nack(proto::PartStream {
            part: name(part),
            stream: Some(stream_to_wire(stream)),
        }),
        Body::Diverges { part, stream } => Wire::Diverges(proto::PartStream {
            part: name(part),
            stream: Some(stream_to_wire(stream)),
        }),
        Body::ReadConfirm => Wire::ReadConfirm(proto::Nothing {}),
        Body::ReadConfirmAck => Wire::ReadConfirmAck(proto::Nothing {}),
        Body::Heartbeat(heartbeat) => Wire::Heartbeat(heartbeat_to_wire(heartbeat)),
        Body::ConfigNotice(config) => Wire::ConfigNotice(config.encode()),
        Body::ReadIndex { part, read } => Wire::ReadIndex(proto::ReadIndex {
            part: name(part),
            read: Some(read_to_wire(read)),
        }),
        Body::ReadIndexAck { read, index } => Wire::ReadIndexAck(proto::ReadIndexAck {
            read: Some(read_to_wire(read)),
            index: index.map(|index| index.0),
        }),
        Body::SnapshotOffer {
            part,
            stream,
            position,
        } => Wire::SnapshotOffer(proto::SnapshotOffer {
            part: name(part),
            stream: Some(stream_to_wire(stream)),
            position: Some(position_to_wire(position)),
        }),
        Body::SnapshotAccept {
            part,
            position,
            take,
        } => Wire::SnapshotAccept(proto::SnapshotAccept {
            part: name(part),
            position: Some(position_to_wire(position)),
            take: *take,
        }),
        Body::SnapshotDone { part, position } => Wire::SnapshotDone(proto::SnapshotDone {
            part: name(part),
            position: Some(position_to_wire(position)),
        }),
        Body::Propose { config, to } => Wire::Propose(proto::Propose {
            config: config.encode(),
            to: Some(node_to_wire(to)),
        }),
        Body::Leave => Wire::Leave(proto::Nothing {}),
        Body::PartFailed(part) => Wire::PartFailed(name(part)),
    }
}

fn body(body: Wire) -> Result<Body, WireError> {
    let config = |bytes: bytes::Bytes| Config::decode(&bytes).map(Box::new);
    Ok(match body {
        Wire::Hello(bytes) => Body::Hello(config(bytes)?),
        Wire::HelloAck(list) => Body::HelloAck(parts(list.parts)?),
        Wire::FetchTail(fetch) => Body::FetchTail {
            part: part(&fetch.part)?,
            after: position_from_wire(fetch.after.as_ref())?,
        },
        Wire::Tail(tail) => {
            let prev = position_from_wire(tail.prev.as_ref())?;
            Body::Tail {
                part: part(&tail.part)?,
                entries: entries(&prev, tail.entries)?,
                prev,
            }
        }
        Wire::Open(open) => Body::Open {
            config: config(open.config)?,
            opening: open.opening,
            parts: parts(open.parts)?,
        },
        Wire::OpenAck(ack) => Body::OpenAck {
            opening: ack.opening,
            parts: by_part(ack.parts, |item| {
                let opened = Opened {
                    stream: stream(item.stream)?,
                    summary: summary(&item)?,
                };
                Ok((part(&item.part)?, opened))
            })?,
        },
        Wire::Append(append) => {
            let prev = position_from_wire(append.prev.as_ref())?;
            Body::Append {
                part: part(&append.part)?,
                stream: stream(append.stream)?,
                entries: entries(&prev, append.entries)?,
                prev,
                commit: LogIndex(append.commit),
            }
        }
        Wire::Ack(ack) => Body::Ack {
            part: part(&ack.part)?,
            stream: stream(ack.stream)?,
            matched: LogIndex(ack.matched),
        },
        Wire::Nack(nack) => Body::Nack {
            part: part(&nack.part)?,
            stream: stream(nack.stream)?,
        },
        Wire::Diverges(diverges) => Body::Diverges {
            part: part(&diverges.part)?,
            stream: stream(diverges.stream)?,
        },
        Wire::ReadConfirm(_) => Body::ReadConfirm,
        Wire::ReadConfirmAck(_) => Body::ReadConfirmAck,
        Wire::Heartbeat(wire) => Body::Heartbeat(heartbeat(wire)?),
        Wire::ConfigNotice(bytes) => Body::ConfigNotice(config(bytes)?),
        Wire::ReadIndex(wire) => Body::ReadIndex {
            part: part(&wire.part)?,
            read: read(wire.read)?,
        },
        Wire::ReadIndexAck(wire) => Body::ReadIndexAck {
            read: read(wire.read)?,
            index: wire.index.map(LogIndex),
        },
        Wire::SnapshotOffer(offer) => Body::SnapshotOffer {
            part: part(&offer.part)?,
            stream: stream(offer.stream)?,
            position: position_from_wire(offer.position.as_ref())?,
        },
        Wire::SnapshotAccept(accept) => Body::SnapshotAccept {
            part: part(&accept.part)?,
            position: position_from_wire(accept.position.as_ref())?,
            take: accept.take,
        },
        Wire::SnapshotDone(done) => Body::SnapshotDone {
            part: part(&done.part)?,
            position: position_from_wire(done.position.as_ref())?,
        },
        Wire::Propose(propose) => Body::Propose {
            config: config(propose.config)?,
            to: node_from_wire(propose.to.as_ref())?,
        },
        Wire::Leave(_) => Body::Leave,
        Wire::PartFailed(name) => Body::PartFailed(part(&name)?),
    })
}

fn opened_to_wire((part, opened): (&PartName, &Opened)) -> proto::PartSummary {
    proto::PartSummary {
        stream: Some(stream_to_wire(&opened.stream)),
        ..summary_to_wire(part, &opened.summary)
    }
}

fn heartbeat_to_wire(heartbeat: &Heartbeat) -> proto::Heartbeat {
    let commits = heartbeat.commits.iter();
    let commit = |(part, index): (&PartName, &LogIndex)| proto::Commit {
        part: name(part),
        index: index.0,
    };
    proto::Heartbeat {
        active: heartbeat.active,
        commits: commits.map(commit).collect(),
    }
}

fn heartbeat(wire: proto::Heartbeat) -> Result<Heartbeat, WireError> {
    Ok(Heartbeat {
        active: wire.active,
        commits: by_part(wire.commits, |commit| {
            Ok((part(&commit.part)?, LogIndex(commit.index)))
        })?,
    })
}
