//! Clients' requests that a node passes on to the primary (`repl S1`), and their answers.

use bytes::{Bytes, BytesMut};
use kine2_mvcc::{
    Alarm, AlarmKind, Answer, Applied, Command, DeleteAnswer, LeaseGrant, OpAnswer, PutAnswer,
    RangeAnswer, Record, Refusal, Revision, TxnAnswer,
};
use kine2_proto::kine2 as proto;
use kine2_proto::kine2::{applied, forward_answer, forward_request, op_answer};

use super::WireError;
use super::ids::needed;

/// Transactions within transactions, as deep as the API accepts and more.
const DEPTH_MAX: usize = 64;

/// A request that a node passes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForwardedRequest {
    /// A change.
    Command(Command),
    /// The renewal of a lease.
    KeepAlive(i64),
    /// How long a lease lives yet.
    TimeToLive {
        /// The lease.
        lease: i64,
        /// Also its keys.
        keys: bool,
    },
}

/// What the primary answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForwardedAnswer {
    /// The command is committed and applied at the primary.
    Applied {
        /// Its result.
        applied: Applied,
        /// What the primary had applied then: a node that has it too shows its clients their own
        /// writes.
        index: u64,
    },
    /// The lease lives on for so many seconds; 0 if there is none.
    KeptAlive {
        /// The primary's revision.
        revision: Revision,
        /// The seconds.
        ttl_seconds: i64,
    },
    /// The lease, if there is one.
    Lease(Option<Lease>),
    /// The store refused it: definite, nothing was changed.
    Refused(Refusal),
    /// The node asked is not the primary; nothing was tried.
    NotPrimary,
    /// The store is not served now; nothing was tried.
    Unavailable,
    /// Too much is under way; nothing was tried.
    Busy,
    /// It may be carried out or not; it must not be repeated.
    Unknown,
}

/// A lease as the primary knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The primary's revision.
    pub revision: Revision,
    /// Time left.
    pub remaining_seconds: i64,
    /// As granted.
    pub granted_seconds: i64,
    /// Its keys, if asked for.
    pub keys: Vec<Bytes>,
}

/// A request on the wire, with the number its answer repeats.
#[must_use]
pub fn request_to_wire(number: u64, request: &ForwardedRequest) -> proto::ForwardRequest {
    use forward_request::Request as Wire;
    proto::ForwardRequest {
        number,
        request: Some(match request {
            ForwardedRequest::Command(command) => {
                let mut bytes = BytesMut::new();
                command.encode(&mut bytes);
                Wire::Command(bytes.freeze())
            }
            ForwardedRequest::KeepAlive(lease) => Wire::KeepAlive(*lease),
            ForwardedRequest::TimeToLive { lease, keys } => Wire::TimeToLive(proto::TimeToLive {
                lease: *lease,
                keys: *keys,
            }),
        }),
    }
}

/// A request from the wire.
///
/// # Errors
/// If it is malformed.
pub fn request_from_wire(
    wire: proto::ForwardRequest,
) -> Result<(u64, ForwardedRequest), WireError> {
    use forward_request::Request as Wire;
    let request = match needed(wire.request, "the request")? {
        Wire::Command(bytes) => {
            let command = Command::decode(&bytes);
            let command = command.map_err(|_| WireError::Missing("the command"))?;
            ForwardedRequest::Command(command)
        }
        Wire::KeepAlive(lease) => ForwardedRequest::KeepAlive(lease),
        Wire::TimeToLive(wire) => ForwardedRequest::TimeToLive {
            lease: wire.lease,
            keys: wire.keys,
        },
    };
    Ok((wire.number, request))
}

/// An answer on the wire.
#[must_use]
pub fn answer_to_wire(number: u64, answer: &ForwardedAnswer) -> proto::ForwardAnswer {
    use forward_answer::Answer as Wire;
    use proto::ForwardRefusalKind as Kind;
    let refused = |kind: Kind| Wire::Refused(proto::ForwardRefusal { kind: kind.into() });
    proto::ForwardAnswer {
        number,
        answer: Some(match answer {
            ForwardedAnswer::Applied { applied, index } => {
                Wire::Applied(applied_to_wire(applied, *index))
            }
            ForwardedAnswer::KeptAlive {
                revision,
                ttl_seconds,
            } => Wire::KeptAlive(proto::KeptAlive {
                revision: revision.0,
                ttl_seconds: *ttl_seconds,
            }),
            ForwardedAnswer::Lease(None) => Wire::Lease(proto::LeaseInfo::default()),
            ForwardedAnswer::Lease(Some(lease)) => Wire::Lease(proto::LeaseInfo {
                revision: lease.revision.0,
                found: true,
                remaining_seconds: lease.remaining_seconds,
                granted_seconds: lease.granted_seconds,
                keys: lease.keys.clone(),
            }),
            ForwardedAnswer::Refused(refusal) => refused(match refusal {
                Refusal::TooLarge => Kind::TooLarge,
                Refusal::Compacted => Kind::Compacted,
                Refusal::FutureRevision => Kind::FutureRevision,
                Refusal::KeyNotFound => Kind::KeyNotFound,
                Refusal::LeaseNotFound => Kind::LeaseNotFound,
                Refusal::LeaseExists => Kind::LeaseExists,
                Refusal::NoSpace => Kind::NoSpace,
                Refusal::Corrupt => Kind::Corrupt,
            }),
            ForwardedAnswer::NotPrimary => refused(Kind::NotPrimary),
            ForwardedAnswer::Unavailable => refused(Kind::Unavailable),
            ForwardedAnswer::Busy => refused(Kind::Busy),
            ForwardedAnswer::Unknown => refused(Kind::OutcomeUnknown),
        }),
    }
}

/// An answer from the wire.
///
/// # Errors
/// If it is malformed.
pub fn answer_from_wire(wire: proto::ForwardAnswer) -> Result<(u64, ForwardedAnswer), WireError> {
    use forward_answer::Answer as Wire;
    use proto::ForwardRefusalKind as Kind;
    let answer = match needed(wire.answer, "the answer")? {
        Wire::Applied(wire) => ForwardedAnswer::Applied {
            index: wire.index,
            applied: applied(wire)?,
        },
        Wire::KeptAlive(kept) => ForwardedAnswer::KeptAlive {
            revision: Revision(kept.revision),
            ttl_seconds: kept.ttl_seconds,
        },
        Wire::Lease(lease) => ForwardedAnswer::Lease(lease.found.then_some(Lease {
            revision: Revision(lease.revision),
            remaining_seconds: lease.remaining_seconds,
            granted_seconds: lease.granted_seconds,
            keys: lease.keys,
        })),
        Wire::Refused(refusal) => match refusal.kind() {
            Kind::ForwardUnknown => return Err(WireError::Missing("why the primary refuses")),
            Kind::TooLarge => ForwardedAnswer::Refused(Refusal::TooLarge),
            Kind::Compacted => ForwardedAnswer::Refused(Refusal::Compacted),
            Kind::FutureRevision => ForwardedAnswer::Refused(Refusal::FutureRevision),
            Kind::KeyNotFound => ForwardedAnswer::Refused(Refusal::KeyNotFound),
            Kind::LeaseNotFound => ForwardedAnswer::Refused(Refusal::LeaseNotFound),
            Kind::LeaseExists => ForwardedAnswer::Refused(Refusal::LeaseExists),
            Kind::NoSpace => ForwardedAnswer::Refused(Refusal::NoSpace),
            Kind::Corrupt => ForwardedAnswer::Refused(Refusal::Corrupt),
            Kind::NotPrimary => ForwardedAnswer::NotPrimary,
            Kind::Unavailable => ForwardedAnswer::Unavailable,
            Kind::Busy => ForwardedAnswer::Busy,
            Kind::OutcomeUnknown => ForwardedAnswer::Unknown,
        },
    };
    Ok((wire.number, answer))
}

fn applied_to_wire(of: &Applied, index: u64) -> proto::Applied {
    use applied::Answer as Wire;
    let nothing = proto::Nothing {};
    proto::Applied {
        revision: of.revision.0,
        index,
        answer: Some(match &of.answer {
            Answer::Nothing => Wire::Nothing(nothing),
            Answer::Put(put) => Wire::Put(put_to_wire(put)),
            Answer::Delete(delete) => Wire::Delete(delete_to_wire(delete)),
            Answer::Txn(txn) => Wire::Txn(txn_to_wire(txn)),
            Answer::Compacted => Wire::Compacted(nothing),
            Answer::LeaseGranted(grant) => Wire::Granted(proto::LeaseGrant {
                id: grant.id,
                ttl_seconds: grant.ttl_seconds,
            }),
            Answer::LeaseRevoked => Wire::Revoked(nothing),
            Answer::Alarms(alarms) => Wire::Alarms(proto::Alarms {
                alarms: alarms.iter().map(alarm_to_wire).collect(),
            }),
        }),
    }
}

fn applied(wire: proto::Applied) -> Result<Applied, WireError> {
    use applied::Answer as Wire;
    Ok(Applied {
        revision: Revision(wire.revision),
        answer: match needed(wire.answer, "the result")? {
            Wire::Nothing(_) => Answer::Nothing,
            Wire::Put(wire) => Answer::Put(put(wire)?),
            Wire::Delete(wire) => Answer::Delete(delete(wire)?),
            Wire::Txn(wire) => Answer::Txn(txn(wire, DEPTH_MAX)?),
            Wire::Compacted(_) => Answer::Compacted,
            Wire::Granted(grant) => Answer::LeaseGranted(LeaseGrant {
                id: grant.id,
                ttl_seconds: grant.ttl_seconds,
            }),
            Wire::Revoked(_) => Answer::LeaseRevoked,
            Wire::Alarms(wire) => {
                let alarms = wire.alarms.into_iter();
                Answer::Alarms(alarms.map(alarm).collect())
            }
        },
    })
}

fn records_to_wire(records: &[Record]) -> Vec<Bytes> {
    let records = records.iter();
    records.map(|record| record.as_bytes().clone()).collect()
}

fn record(bytes: Bytes) -> Result<Record, WireError> {
    Record::parse(bytes).ok_or(WireError::Record)
}

fn records(list: Vec<Bytes>) -> Result<Vec<Record>, WireError> {
    list.into_iter().map(record).collect()
}

fn put_to_wire(put: &PutAnswer) -> proto::PutAnswer {
    let prev = put.prev.as_ref();
    proto::PutAnswer {
        prev: prev.map_or_else(Bytes::new, |record| record.as_bytes().clone()),
    }
}

fn put(wire: proto::PutAnswer) -> Result<PutAnswer, WireError> {
    Ok(PutAnswer {
        prev: match wire.prev.is_empty() {
            true => None,
            false => Some(record(wire.prev)?),
        },
    })
}

fn delete_to_wire(delete: &DeleteAnswer) -> proto::DeleteAnswer {
    proto::DeleteAnswer {
        deleted: delete.deleted,
        prevs: records_to_wire(&delete.prevs),
    }
}

fn delete(wire: proto::DeleteAnswer) -> Result<DeleteAnswer, WireError> {
    Ok(DeleteAnswer {
        deleted: wire.deleted,
        prevs: records(wire.prevs)?,
    })
}

fn txn_to_wire(txn: &TxnAnswer) -> proto::TxnAnswer {
    use op_answer::Answer as Wire;
    let op = |op: &OpAnswer| {
        let (revision, answer) = match op {
            OpAnswer::Range(revision, range) => {
                let range = proto::RangeAnswer {
                    records: records_to_wire(&range.records),
                    more: range.more,
                    count: range.count,
                };
                (*revision, Wire::Range(range))
            }
            OpAnswer::Put(revision, put) => (*revision, Wire::Put(put_to_wire(put))),
            OpAnswer::Delete(revision, delete) => (*revision, Wire::Delete(delete_to_wire(delete))),
            OpAnswer::Txn(txn) => (Revision(0), Wire::Txn(txn_to_wire(txn))),
        };
        proto::OpAnswer {
            revision: revision.0,
            answer: Some(answer),
        }
    };
    proto::TxnAnswer {
        succeeded: txn.succeeded,
        ops: txn.ops.iter().map(op).collect(),
    }
}

fn txn(wire: proto::TxnAnswer, depth: usize) -> Result<TxnAnswer, WireError> {
    let depth = depth.checked_sub(1);
    let depth = depth.ok_or(WireError::Missing("the end of transactions"))?;
    let ops = wire.ops.into_iter();
    let ops: Result<_, _> = ops.map(|wire| op(wire, depth)).collect();
    Ok(TxnAnswer {
        succeeded: wire.succeeded,
        ops: ops?,
    })
}

fn op(wire: proto::OpAnswer, depth: usize) -> Result<OpAnswer, WireError> {
    use op_answer::Answer as Wire;
    let revision = Revision(wire.revision);
    Ok(match needed(wire.answer, "the result of an operation")? {
        Wire::Range(range) => {
            let answer = RangeAnswer {
                records: records(range.records)?,
                more: range.more,
                count: range.count,
            };
            OpAnswer::Range(revision, answer)
        }
        Wire::Put(wire) => OpAnswer::Put(revision, put(wire)?),
        Wire::Delete(wire) => OpAnswer::Delete(revision, delete(wire)?),
        Wire::Txn(wire) => OpAnswer::Txn(txn(wire, depth)?),
    })
}

fn alarm_to_wire(alarm: &Alarm) -> proto::Alarm {
    proto::Alarm {
        member_id: alarm.member_id,
        corrupt: alarm.kind == AlarmKind::Corrupt,
    }
}

fn alarm(wire: proto::Alarm) -> Alarm {
    Alarm {
        member_id: wire.member_id,
        kind: match wire.corrupt {
            true => AlarmKind::Corrupt,
            false => AlarmKind::NoSpace,
        },
    }
}
