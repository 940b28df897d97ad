//! Names, numbers and places.

use std::collections::BTreeMap;

use bytes::Bytes;
use kine2_proto::kine2 as proto;
use kine2_replication::{
    Chain, ClusterId, DataState, Entry, History, Incarnation, LogIndex, NodeRef, Origin, PartName,
    PartSummary, Position, ReadId, RegisterKey, StreamId, Term,
};

use super::{TEXT_BYTES_MAX, WireError};

pub(super) fn identity_to_wire(id: u128) -> Bytes {
    Bytes::copy_from_slice(&id.to_be_bytes())
}

pub(super) fn identity(bytes: &Bytes, what: &'static str) -> Result<u128, WireError> {
    let id: Result<[u8; 16], _> = bytes[..].try_into();
    id.map(u128::from_be_bytes)
        .map_err(|_| WireError::Identity {
            what,
            found: bytes.len(),
        })
}

pub(super) fn text<'t>(text: &'t str, what: &'static str) -> Result<&'t str, WireError> {
    match text.len() {
        0 => Err(WireError::Missing(what)),
        found if found > TEXT_BYTES_MAX => Err(WireError::Text { what, found }),
        _ => Ok(text),
    }
}

pub(super) fn part(name: &str) -> Result<PartName, WireError> {
    text(name, "a part's name").map(PartName::from)
}

pub(super) fn needed<T>(value: Option<T>, what: &'static str) -> Result<T, WireError> {
    value.ok_or(WireError::Missing(what))
}

pub(super) fn key(cluster: &Bytes, unit: &str) -> Result<RegisterKey, WireError> {
    Ok(RegisterKey {
        cluster: ClusterId(identity(cluster, "the cluster")?),
        unit: text(unit, "the unit's name")?.into(),
    })
}

/// A node on the wire.
#[must_use]
pub fn node_to_wire(node: &NodeRef) -> proto::NodeRef {
    proto::NodeRef {
        name: node.name.as_str().to_owned(),
        incarnation: identity_to_wire(node.incarnation.0),
    }
}

/// A node from the wire.
///
/// # Errors
/// If it is not there or malformed.
pub fn node_from_wire(node: Option<&proto::NodeRef>) -> Result<NodeRef, WireError> {
    let node = needed(node, "a node")?;
    Ok(NodeRef {
        name: text(&node.name, "a node's name")?.into(),
        incarnation: Incarnation(identity(&node.incarnation, "a node's incarnation")?),
    })
}

/// A position on the wire.
#[must_use]
pub fn position_to_wire(position: &Position) -> proto::Position {
    proto::Position {
        index: position.index.0,
        epoch: position.term.epoch,
        run: position.term.run,
        chain: position.chain.0,
        origin: position.term.origin.0,
    }
}

/// A position from the wire.
///
/// # Errors
/// If it is not there.
pub fn position_from_wire(position: Option<&proto::Position>) -> Result<Position, WireError> {
    let position = needed(position, "a position")?;
    Ok(Position {
        index: LogIndex(position.index),
        term: Term {
            epoch: position.epoch,
            run: position.run,
            origin: Origin(position.origin),
        },
        chain: Chain(position.chain),
    })
}

pub(super) fn stream_to_wire(stream: &StreamId) -> proto::StreamId {
    proto::StreamId {
        boot: stream.boot,
        opening: stream.opening,
    }
}

pub(super) fn stream(stream: Option<proto::StreamId>) -> Result<StreamId, WireError> {
    let stream = needed(stream, "a stream")?;
    Ok(StreamId {
        boot: stream.boot,
        opening: stream.opening,
    })
}

pub(super) fn read_to_wire(read: &ReadId) -> proto::ReadId {
    proto::ReadId {
        boot: read.boot,
        number: read.number,
    }
}

pub(super) fn read(read: Option<proto::ReadId>) -> Result<ReadId, WireError> {
    let read = needed(read, "a read")?;
    Ok(ReadId {
        boot: read.boot,
        number: read.number,
    })
}

pub(super) fn entries_to_wire(entries: &[Entry]) -> Vec<proto::Entry> {
    let entry = |entry: &Entry| proto::Entry {
        position: Some(position_to_wire(&entry.position)),
        payload: entry.payload.clone(),
    };
    entries.iter().map(entry).collect()
}

/// Entries without a gap after `prev`. Their chains are the core's to compare.
pub(super) fn entries(
    prev: &Position,
    entries: Vec<proto::Entry>,
) -> Result<Vec<Entry>, WireError> {
    let mut last = *prev;
    let mut read = Vec::with_capacity(entries.len());
    for entry in entries {
        let position = position_from_wire(entry.position.as_ref())?;
        let follows = last.index.0.checked_add(1) == Some(position.index.0);
        if !follows || position.term < last.term {
            return Err(WireError::Entries);
        }
        last = position;
        read.push(Entry {
            position,
            payload: entry.payload,
        });
    }
    Ok(read)
}

pub(super) fn summary_to_wire(part: &PartName, summary: &PartSummary) -> proto::PartSummary {
    let history = &summary.history;
    let ends = history.spans().iter();
    proto::PartSummary {
        part: part.as_str().to_owned(),
        storage: identity_to_wire(summary.storage.0),
        data: match summary.data {
            DataState::Complete => proto::DataState::Complete,
            DataState::Inconsistent => proto::DataState::Inconsistent,
            DataState::Failed => proto::DataState::Failed,
        }
        .into(),
        history: Some(proto::History {
            base: Some(position_to_wire(&history.base())),
            ends: ends.map(|span| position_to_wire(&span.end)).collect(),
        }),
        commit: summary.commit.0,
        stream: None,
    }
}

pub(super) fn summary(summary: &proto::PartSummary) -> Result<PartSummary, WireError> {
    let data = match summary.data() {
        // A number that is not known would read as the first.
        _ if proto::DataState::try_from(summary.data).is_err() => {
            return Err(WireError::Missing("a part's data"));
        }
        proto::DataState::Complete => DataState::Complete,
        proto::DataState::Inconsistent => DataState::Inconsistent,
        proto::DataState::Failed => DataState::Failed,
    };
    let history = needed(summary.history.as_ref(), "a part's terms")?;
    let base = position_from_wire(history.base.as_ref())?;
    let ends = history.ends.iter();
    let ends: Result<Vec<_>, _> = ends.map(|end| position_from_wire(Some(end))).collect();
    Ok(PartSummary {
        storage: Incarnation(identity(&summary.storage, "a part's storage")?),
        data,
        history: History::from_ends(base, ends?).ok_or(WireError::Terms)?,
        commit: LogIndex(summary.commit),
    })
}

pub(super) fn parts_to_wire(parts: &BTreeMap<PartName, PartSummary>) -> Vec<proto::PartSummary> {
    let parts = parts.iter();
    parts
        .map(|(name, part)| summary_to_wire(name, part))
        .collect()
}

/// A list as a map of parts.
pub(super) fn by_part<T, V>(
    list: Vec<T>,
    read: impl Fn(T) -> Result<(PartName, V), WireError>,
) -> Result<BTreeMap<PartName, V>, WireError> {
    let mut map = BTreeMap::new();
    for item in list {
        let (part, value) = read(item)?;
        if map.insert(part, value).is_some() {
            return Err(WireError::Twice("a list of parts"));
        }
    }
    Ok(map)
}

pub(super) fn parts(
    list: Vec<proto::PartSummary>,
) -> Result<BTreeMap<PartName, PartSummary>, WireError> {
    by_part(list, |item| Ok((part(&item.part)?, summary(&item)?)))
}
