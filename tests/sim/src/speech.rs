//! From what clients of a simulation say to what the store is asked, and back.

use bytes::Bytes;
use kine2_mvcc::wire::Reader;
use kine2_mvcc::{
    Alarm as Raised, AlarmChange, AlarmKind, Answer, Command, Compact, Compare, Delete, KeyRange,
    KeyValue, LeaseGrant, OpAnswer, Operand, Put, RangeQuery, Record, Refusal, Relation, Txn,
    TxnOp,
};

use crate::alarms::Alarm;
use crate::history::{self, Ask, Key, Op, Reply, Seen, Target, Value};
use crate::watching::Told;

/// Seconds that a lease is granted for.
pub const LEASE_TTL_SECONDS: i64 = 4;

/// The id of every node.
pub const MEMBER_ID: u64 = 1;

/// Bytes behind the numbers of values, in turn.
const PADDING: [u16; 7] = [0, 40, 500, 0, 1200, 90, 2400];

/// The command that a request becomes; a read becomes none.
#[must_use]
pub fn command(ask: &Ask) -> Option<Command> {
    Some(match ask {
        Ask::Get(_) | Ask::GetAt(..) | Ask::Renew(_) => return None,
        Ask::Put(put) => Command::Put(to_put(put)),
        Ask::Delete(key) => Command::Delete(to_delete(*key)),
        Ask::Txn(txn) => Command::Txn(to_txn(txn)),
        Ask::Grant(id) => Command::LeaseGrant(LeaseGrant {
            id: *id,
            ttl_seconds: LEASE_TTL_SECONDS,
        }),
        Ask::Revoke(id) => Command::LeaseRevoke { id: *id },
        Ask::Compact { revision, physical } => Command::Compact(Compact {
            revision: *revision,
            physical: *physical,
        }),
        Ask::Alarm { alarm, raise } => {
            let alarm = to_alarm(*alarm);
            Command::Alarm(match raise {
                true => AlarmChange::Raise(alarm),
                false => AlarmChange::Clear(alarm),
            })
        }
    })
}

/// The range of one key, or of all.
#[must_use]
pub fn range(key: Option<Key>) -> KeyRange {
    match key {
        Some(key) => KeyRange::single(key_bytes(key)),
        None => KeyRange::from_wire(Bytes::from_static(b"k"), Bytes::from_static(b"l")),
    }
}

/// The query of a read.
#[must_use]
pub fn query(key: Option<Key>) -> RangeQuery {
    RangeQuery::all(range(key))
}

/// The query of a read at a revision.
#[must_use]
pub fn query_at(key: Option<Key>, revision: i64) -> RangeQuery {
    RangeQuery {
        revision,
        ..query(key)
    }
}

/// What the records of a range say.
#[must_use]
pub fn records(records: &[Record]) -> Vec<(Key, Seen)> {
    records.iter().map(from_record).collect()
}

/// The answer to a command that was carried out.
///
/// # Panics
/// When it is the answer to another command.
#[must_use]
pub fn reply(ask: &Ask, revision: i64, answer: &Answer) -> Reply {
    match (ask, answer) {
        (Ask::Put(_), Answer::Put(put)) => Reply::Put(revision, put.prev.as_ref().map(seen)),
        (Ask::Delete(_), Answer::Delete(delete)) => {
            Reply::Deleted(revision, delete.prevs.first().map(seen))
        }
        (Ask::Txn(_), Answer::Txn(txn)) => {
            let ops = txn.ops.iter().map(|op| match op {
                OpAnswer::Range(_, range) => range.records.first().map(seen),
                OpAnswer::Put(_, put) => put.prev.as_ref().map(seen),
                OpAnswer::Delete(_, delete) => delete.prevs.first().map(seen),
                OpAnswer::Txn(_) => None,
            });
            Reply::Txn(revision, txn.succeeded, ops.collect())
        }
        (Ask::Grant(_), Answer::LeaseGranted(_)) => Reply::Granted,
        (Ask::Revoke(_), Answer::LeaseRevoked) => Reply::Revoked(revision),
        (Ask::Compact { .. }, Answer::Compacted) => Reply::Compacted,
        (Ask::Alarm { .. }, Answer::Alarms(_)) => Reply::AlarmSet,
        _ => panic!("{answer:?} is no answer to {ask:?}"),
    }
}

/// The answer to a command that was refused when it was applied.
///
/// # Panics
/// When nothing in a simulation can be refused so.
#[must_use]
pub fn refusal(ask: &Ask, refusal: Refusal) -> Reply {
    match refusal {
        Refusal::LeaseNotFound => Reply::LeaseNotFound,
        Refusal::Compacted => Reply::Gone,
        Refusal::FutureRevision => Reply::Future,
        Refusal::NoSpace => Reply::Refused(Alarm::NoSpace),
        Refusal::Corrupt => Reply::Refused(Alarm::Corrupt),
        _ => panic!("{ask:?} is refused: {refusal}"),
    }
}

/// The changes in a watch's message.
///
/// # Panics
/// When one does not parse.
#[must_use]
pub fn told(events: &[Bytes]) -> Vec<Told> {
    let parse = |event: &Bytes| parse_event(event).expect("an event in wire form");
    events.iter().map(parse).collect()
}

/// `mvccpb.Event`: type = 1, kv = 2.
fn parse_event(event: &Bytes) -> Option<Told> {
    let mut reader = Reader::new(event);
    let (mut is_delete, mut record) = (false, None);
    while !reader.is_empty() {
        match reader.byte()? {
            0x08 => is_delete = reader.varint()? == 1,
            0x12 => record = Record::parse(reader.owned()?),
            _ => return None,
        }
    }
    let (key, seen) = from_record(&record?);
    Some(Told {
        key,
        became: (!is_delete).then_some(seen),
        revision: seen.modified,
    })
}

/// All nodes are one member in a simulation: whoever is asked can clear what another one raised.
fn to_alarm(alarm: Alarm) -> Raised {
    Raised {
        member_id: MEMBER_ID,
        kind: match alarm {
            Alarm::NoSpace => AlarmKind::NoSpace,
            Alarm::Corrupt => AlarmKind::Corrupt,
        },
    }
}

fn key_bytes(key: Key) -> Bytes {
    Bytes::copy_from_slice(&[b'k', key])
}

fn to_put(put: &history::Put) -> Put {
    Put {
        key: key_bytes(put.key),
        value: to_value(put.value),
        lease: put.lease,
        prev_kv: true,
        ..Put::default()
    }
}

/// A value's number, and behind it so much that logs grow.
fn to_value(value: Value) -> Bytes {
    let padding = PADDING[usize::try_from(value % PADDING.len() as u64).expect("few")];
    let mut bytes = value.to_le_bytes().to_vec();
    bytes.resize(bytes.len() + usize::from(padding), 7);
    bytes.into()
}

fn from_value(bytes: &[u8]) -> Value {
    // A tombstone has none.
    bytes.first_chunk().copied().map_or(0, u64::from_le_bytes)
}

fn to_delete(key: Key) -> Delete {
    Delete {
        range: KeyRange::single(key_bytes(key)),
        prev_kv: true,
    }
}

fn to_txn(txn: &history::Txn) -> Txn {
    let compare = txn.compare;
    let op = |op: &Op| match op {
        Op::Get(key) => TxnOp::Range(query(Some(*key))),
        Op::Put(put) => TxnOp::Put(to_put(put)),
        Op::Delete(key) => TxnOp::Delete(to_delete(*key)),
    };
    Txn {
        compares: vec![Compare {
            range: KeyRange::single(key_bytes(compare.key)),
            relation: match compare.relation {
                history::Relation::Equal => Relation::Equal,
                history::Relation::Greater => Relation::Greater,
                history::Relation::Less => Relation::Less,
                history::Relation::NotEqual => Relation::NotEqual,
            },
            operand: match compare.target {
                Target::Version => Operand::Version(compare.than),
                Target::Create => Operand::Create(compare.than),
                Target::Mod => Operand::Mod(compare.than),
            },
        }],
        success: txn.success.iter().map(op).collect(),
        failure: txn.failure.iter().map(op).collect(),
    }
}

fn seen(record: &Record) -> Seen {
    from_record(record).1
}

fn from_record(record: &Record) -> (Key, Seen) {
    let KeyValue {
        key,
        create_revision,
        mod_revision,
        version,
        value,
        lease,
    } = record.view();
    let seen = Seen {
        value: from_value(value),
        create: create_revision,
        modified: mod_revision,
        version,
        lease,
    };
    (key[1], seen)
}
